//! What the kernel said: which call, on what, which errno.

use std::fmt;
use std::path::PathBuf;

/// The result of everything on this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The call's name, as its manual page has it: `pwritev2`, `fdatasync`, `open`.
    pub syscall: &'static str,
    /// The file or directory it was about; empty where it was about neither.
    pub path: PathBuf,
    /// The offset of a read or a write.
    pub offset: Option<u64>,
    /// The kernel's error number, positive.
    pub errno: i32,
    /// What to do about it, where there is something to say that the errno does not.
    pub hint: Option<String>,
}

impl Error {
    /// `syscall` on `path` failed with `errno`.
    pub fn new(syscall: &'static str, path: impl Into<PathBuf>, errno: i32) -> Self {
        Self { syscall, path: path.into(), offset: None, errno, hint: None }
    }

    /// `syscall` on `path` failed where the standard library made it.
    pub fn of_std(syscall: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::new(syscall, path, errno_of(error))
    }

    /// The same, of a read or a write at `offset`.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether there was no room: the device, the quota.
    pub fn is_no_space(&self) -> bool {
        self.is(rustix::io::Errno::NOSPC) || self.is(rustix::io::Errno::DQUOT)
    }

    /// Whether the call that failed is one that moves no data (opening, locking, reserving), and the device did
    /// not fail under it: what was written before is as it was, and later it may go better.
    pub fn changed_nothing(&self) -> bool {
        let moves_no_data =
            matches!(self.syscall, "open" | "fstat" | "fcntl" | "flock" | "fallocate" | "ftruncate");
        moves_no_data && !self.is(rustix::io::Errno::IO)
    }

    /// Whether this is not for us to do: no right to, a file system that is read-only or has no such call.
    pub fn is_refused(&self) -> bool {
        use rustix::io::Errno;
        [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::INVAL].into_iter().any(|errno| self.is(errno))
    }

    /// Whether there is no such name.
    pub fn is_not_found(&self) -> bool {
        self.is(rustix::io::Errno::NOENT)
    }

    /// Whether the name is taken.
    pub fn is_exists(&self) -> bool {
        self.is(rustix::io::Errno::EXIST)
    }

    fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno == errno.raw_os_error()
    }
}

/// The errno that the standard library reports; `EIO` where the failure is of its own making.
pub(crate) fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = std::io::Error::from_raw_os_error(self.errno);
        f.write_str(self.syscall)?;
        if !self.path.as_os_str().is_empty() {
            write!(f, " {}", self.path.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {cause}")?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
