//! Core's errors on their way to JavaScript: plain objects, which the facade makes into its classes.

use napi_derive::napi;
use ringbolt_core::{Code, Error};

/// An error as data. Only what applies is there.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeFailure {
    /// One of `codes()`.
    pub code: String,
    /// What was being done, to what, and what to do next.
    pub message: String,
    /// The file or directory it is about.
    pub path: Option<String>,
    /// The kernel's error number, negative as Node's are.
    pub errno: Option<i32>,
    /// The system call that failed.
    pub syscall: Option<String>,
    /// What is wrong with it.
    pub reason: Option<String>,
    /// The number of the segment.
    pub segment: Option<f64>,
    /// The offset in the file.
    pub offset: Option<f64>,
    /// The partition of the blob.
    pub partition: Option<String>,
    /// The name of the blob.
    pub blob_name: Option<Vec<u8>>,
    /// How many bytes were asked for.
    pub length: Option<f64>,
    /// How many of them were done.
    pub bytes_done: Option<f64>,
    /// The first LSN concerned.
    pub first_lsn: Option<f64>,
    /// The last LSN concerned.
    pub last_lsn: Option<f64>,
    /// The size asked for, in bytes.
    pub size: Option<f64>,
    /// The limit it is above, in bytes.
    pub limit: Option<f64>,
    /// The process that holds the lock.
    pub pid: Option<u32>,
    /// What was found.
    pub found: Option<String>,
    /// What was expected.
    pub expected: Option<String>,
    /// The errors behind this one, nearest first; each of them without causes of its own.
    pub causes: Vec<NativeFailure>,
}

impl From<&Error> for NativeFailure {
    fn from(error: &Error) -> Self {
        let mut failure = Self::alone(error);
        let mut cause = error.cause.as_ref();
        while let Some(error) = cause {
            failure.causes.push(Self::alone(error));
            cause = error.cause.as_ref();
        }
        failure
    }
}

impl NativeFailure {
    fn alone(error: &Error) -> Self {
        Self {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            path: error.path.as_ref().map(|path| path.to_string_lossy().into_owned()),
            errno: error.errno.map(|errno| -errno),
            syscall: error.syscall.map(str::to_owned),
            reason: error.reason.clone(),
            segment: error.segment.map(number),
            offset: error.offset.map(number),
            partition: error.partition.clone(),
            blob_name: error.name.clone(),
            length: error.length.map(number),
            bytes_done: error.bytes_done.map(number),
            first_lsn: error.first_lsn.map(number),
            last_lsn: error.last_lsn.map(number),
            size: error.size.map(number),
            limit: error.limit.map(number),
            pid: error.pid,
            found: error.found.clone(),
            expected: error.expected.clone(),
            causes: Vec::new(),
        }
    }
}

/// Every error code there is, for the test that holds the two lists equal.
#[napi]
pub fn codes() -> Vec<&'static str> {
    Code::ALL.iter().map(|code| code.as_str()).collect()
}

/// A whole number as JavaScript has it. LSNs, offsets and sizes are at most 2^53 - 1, which a double holds exactly.
#[expect(clippy::cast_precision_loss, reason = "what comes here is at most 2^53 - 1")]
pub(crate) fn number(whole: u64) -> f64 {
    whole as f64
}

/// A whole number that JavaScript checked.
#[expect(clippy::cast_sign_loss, reason = "the facade passes safe integers of 0 or more; others saturate")]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_causes_is_laid_out_nearest_first_and_errno_is_negative() {
        let first = Error::new(Code::WalIo, "write").with(|details| details.errno = Some(5));
        let second = Error::new(Code::WalOutcomeUnknown, "append").because(&first);
        let third = Error::new(Code::WalPoisoned, "flush").because(&second);
        let failure = NativeFailure::from(&third);
        assert_eq!(failure.code, "ERR_WAL_POISONED");
        assert_eq!(failure.errno, Some(-5));
        let causes: Vec<_> = failure.causes.iter().map(|cause| cause.code.as_str()).collect();
        assert_eq!(causes, ["ERR_WAL_OUTCOME_UNKNOWN", "ERR_WAL_IO"]);
        assert!(failure.causes.iter().all(|cause| cause.causes.is_empty()));
    }

    #[test]
    fn the_largest_lsn_crosses_exactly() {
        let largest = (1 << 53) - 1;
        assert_eq!(whole(number(largest)), largest);
        assert_eq!(whole(-1.0), 0);
    }
}
