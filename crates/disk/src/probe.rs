//! May we use `io_uring` here? A reason, not a bool.

use rustix::io::Errno;

use crate::error::errno_of;
use crate::{Error, Result};

/// `syscall` of `io_uring` was refused: what a person can do about it.
pub(crate) fn explained(syscall: &'static str, errno: i32) -> Error {
    let error = Error::new(syscall, "", errno);
    match Errno::from_raw_os_error(errno) {
        Errno::PERM | Errno::ACCESS => error.hint(
            "io_uring is forbidden here: by a seccomp filter, as Docker's default profile has one, or by the \
             sysctl kernel.io_uring_disabled",
        ),
        Errno::NOSYS => {
            error.hint("this kernel has no io_uring (Linux 5.6 brought it), or a seccomp filter hides it")
        }
        Errno::NOMEM => error.hint("locked memory is used up: raise RLIMIT_MEMLOCK (ulimit -l)"),
        Errno::MFILE => error.hint("descriptors are used up: raise RLIMIT_NOFILE (ulimit -n)"),
        Errno::NFILE => error.hint("the system's descriptors are used up: raise the sysctl fs.file-max"),
        _ => error,
    }
}

/// What the kernel's answer to a probe means: whether it knows every operation that was asked about.
///
/// # Errors
/// `ENOSYS`, with advice, where it does not. Linux 5.6 brought the probe and the reads and writes together.
pub(crate) fn must_know(known: std::io::Result<bool>) -> Result<()> {
    let errno = match known.map_err(|error| errno_of(&error)) {
        Ok(true) => return Ok(()),
        Err(errno) if errno != Errno::INVAL.raw_os_error() => errno,
        Ok(false) | Err(_) => Errno::NOSYS.raw_os_error(),
    };
    Err(explained("io_uring_register", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refuses_a_ring_is_explained() {
        for (errno, advice) in [
            (Errno::PERM, "seccomp"),
            (Errno::NOSYS, "Linux 5.6"),
            (Errno::NOMEM, "RLIMIT_MEMLOCK"),
            (Errno::MFILE, "RLIMIT_NOFILE"),
        ] {
            let error = explained("io_uring_setup", errno.raw_os_error());
            assert!(error.to_string().starts_with("io_uring_setup: "), "{error}");
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
