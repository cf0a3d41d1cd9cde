//! One error, one code per case. The codes are the public contract: the TypeScript facade has the same list,
//! and a test holds the two equal.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringbolt_disk::Errno;

/// The result of everything on this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What went wrong, as users match on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its public spelling.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// A backend named by the user cannot be had.
    BackendUnavailable = "ERR_BACKEND_UNAVAILABLE",
    /// There is no log, and none was to be made.
    WalNotFound = "ERR_WAL_NOT_FOUND",
    /// The directory holds something that is not a log.
    WalNotEmpty = "ERR_WAL_NOT_EMPTY",
    /// Somebody else has the log open for writing.
    WalLocked = "ERR_WAL_LOCKED",
    /// The log was closed.
    WalClosed = "ERR_WAL_CLOSED",
    /// Acknowledged data is damaged.
    WalDamaged = "ERR_WAL_DAMAGED",
    /// A format version or flag that this version does not know, or another product's file.
    WalUnsupported = "ERR_WAL_UNSUPPORTED",
    /// The record or batch does not fit a segment; nothing was written.
    WalRecordTooLarge = "ERR_WAL_RECORD_TOO_LARGE",
    /// Too many bytes are waiting to be written; nothing was written.
    WalQueueFull = "ERR_WAL_QUEUE_FULL",
    /// The append was in flight when a write or a flush failed: it may be there after the next open, or not.
    WalOutcomeUnknown = "ERR_WAL_OUTCOME_UNKNOWN",
    /// A write or a flush failed before; the log takes no more work.
    WalPoisoned = "ERR_WAL_POISONED",
    /// The next segment cannot be reserved; nothing was written.
    WalNoSpace = "ERR_WAL_NO_SPACE",
    /// The records asked for were truncated away.
    WalTruncated = "ERR_WAL_TRUNCATED",
    /// Any other error of the system.
    WalIo = "ERR_WAL_IO",
    /// No partition can have this name.
    BlobPartitionNameInvalid = "ERR_BLOB_PARTITION_NAME_INVALID",
    /// No blob can have this name.
    BlobNameInvalid = "ERR_BLOB_NAME_INVALID",
    /// There is no such partition.
    BlobPartitionMissing = "ERR_BLOB_PARTITION_MISSING",
    /// Something lies in the partition that is no blob.
    BlobPartitionCorrupt = "ERR_BLOB_PARTITION_CORRUPT",
    /// The partition cannot be made.
    BlobPartitionCreationFailed = "ERR_BLOB_PARTITION_CREATION_FAILED",
    /// There is no such blob.
    BlobMissing = "ERR_BLOB_MISSING",
    /// The blob cannot be opened, or its name cannot be removed.
    BlobOpenFailed = "ERR_BLOB_OPEN_FAILED",
    /// The blob's header is not one; the file was left as it is.
    BlobCorrupt = "ERR_BLOB_CORRUPT",
    /// The blob's version is outside the range asked for.
    BlobVersionMismatch = "ERR_BLOB_VERSION_MISMATCH",
    /// A read reaches past the end of the blob.
    BlobInsufficientLength = "ERR_BLOB_INSUFFICIENT_LENGTH",
    /// An offset, or an end, is beyond 2^53 - 1.
    BlobOffsetOverflow = "ERR_BLOB_OFFSET_OVERFLOW",
    /// A read failed.
    BlobReadFailed = "ERR_BLOB_READ_FAILED",
    /// A write failed; some of its bytes may have been written.
    BlobWriteFailed = "ERR_BLOB_WRITE_FAILED",
    /// A resize failed.
    BlobResizeFailed = "ERR_BLOB_RESIZE_FAILED",
    /// A flush failed: what it was to make durable may be lost.
    BlobSyncFailed = "ERR_BLOB_SYNC_FAILED",
    /// A flush of this blob failed before, or the end of a write was not heard of.
    BlobPoisoned = "ERR_BLOB_POISONED",
    /// The handle was closed.
    BlobClosed = "ERR_BLOB_CLOSED",
    /// The store was closed.
    BlobStoreClosed = "ERR_BLOB_STORE_CLOSED",
    /// Somebody else has the store open.
    BlobStoreLocked = "ERR_BLOB_STORE_LOCKED",
    /// There is no store, and none was to be made.
    BlobStoreNotFound = "ERR_BLOB_STORE_NOT_FOUND",
    /// The store's directory cannot be used.
    BlobStoreIo = "ERR_BLOB_STORE_IO",
}

/// An error with everything that is known about it. Cheap to clone: one failure answers many callers.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Arc<Details>);

/// What an [`Error`] knows. Only what applies is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// The case.
    pub code: Code,
    /// What was being done, to what, with both values, and what to do next.
    pub message: String,
    /// The file or directory it is about.
    pub path: Option<PathBuf>,
    /// The kernel's error number, positive.
    pub errno: Option<i32>,
    /// The system call that failed.
    pub syscall: Option<&'static str>,
    /// What is wrong with it, in a few words.
    pub reason: Option<String>,
    /// The number of the segment.
    pub segment: Option<u64>,
    /// The offset in the file.
    pub offset: Option<u64>,
    /// The first LSN concerned.
    pub first_lsn: Option<u64>,
    /// The last LSN concerned.
    pub last_lsn: Option<u64>,
    /// The size that was asked for, in bytes.
    pub size: Option<u64>,
    /// The limit it is above, in bytes.
    pub limit: Option<u64>,
    /// The process that holds the lock.
    pub pid: Option<u32>,
    /// The blob's partition.
    pub partition: Option<String>,
    /// The blob's name.
    pub name: Option<Vec<u8>>,
    /// How many bytes a call was about, or the length asked for.
    pub length: Option<u64>,
    /// How many bytes of a write that failed were written, from its beginning.
    pub bytes_done: Option<u64>,
    /// What was found.
    pub found: Option<String>,
    /// What was expected.
    pub expected: Option<String>,
    /// The error behind this one.
    pub cause: Option<Error>,
}

impl Error {
    /// An error of this case.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Arc::new(Details {
            code,
            message: message.into(),
            path: None,
            errno: None,
            syscall: None,
            reason: None,
            segment: None,
            offset: None,
            first_lsn: None,
            last_lsn: None,
            size: None,
            limit: None,
            pid: None,
            partition: None,
            name: None,
            length: None,
            bytes_done: None,
            found: None,
            expected: None,
            cause: None,
        }))
    }

    /// The error of a log whose system call failed.
    pub fn io(doing: &str, error: ringbolt_disk::Error) -> Self {
        Self::of_disk(Code::WalIo, doing, error)
    }

    /// An error of this case behind which there is a failed system call.
    pub fn of_disk(code: Code, doing: &str, error: ringbolt_disk::Error) -> Self {
        Self::new(code, format!("{doing}: {error}")).with(|details| {
            details.errno = Some(error.errno);
            details.syscall = Some(error.syscall);
            details.offset = error.offset;
            details.reason = error.hint;
            details.path = Some(error.path).filter(|path| !path.as_os_str().is_empty());
        })
    }

    /// What runs operations cannot be had.
    pub(crate) fn backend_unavailable(error: ringbolt_disk::Error) -> Self {
        let reason = error.to_string();
        let advice = if error.syscall.starts_with("io_uring") {
            "; the backends 'auto' and 'threads' do without io_uring"
        } else {
            ""
        };
        Self::of_disk(Code::BackendUnavailable, "starting the backend", error).with(|details| {
            details.message.push_str(advice);
            details.reason = Some(reason);
        })
    }

    /// Whether what failed is a system call that found no such name.
    pub fn is_not_found(&self) -> bool {
        self.errno.is_some_and(|errno| Errno::from_raw_os_error(errno).kind() == std::io::ErrorKind::NotFound)
    }

    /// The same with more on it.
    #[must_use]
    pub fn with(mut self, add: impl FnOnce(&mut Details)) -> Self {
        add(Arc::make_mut(&mut self.0));
        self
    }

    /// The same, about `path`.
    #[must_use]
    pub fn path(self, path: impl AsRef<Path>) -> Self {
        self.with(|details| details.path = Some(path.as_ref().to_owned()))
    }

    /// The same, because of `cause`, whose errno, syscall, path and offset show on this one too.
    #[must_use]
    pub fn because(self, cause: &Self) -> Self {
        self.with(|details| {
            details.errno = cause.errno;
            details.syscall = cause.syscall;
            details.path.clone_from(&cause.path);
            details.offset = cause.offset;
            details.cause = Some(cause.clone());
        })
    }
}

impl std::ops::Deref for Error {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
