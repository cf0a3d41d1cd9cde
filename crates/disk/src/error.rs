//! What the kernel said: which call, on what, which errno.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::errno::Errno;

/// The result of everything on this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The call's name, as its manual page has it: `pwritev2`, `fdatasync`, `open`. On systems that have another call for
    /// the same thing, the name it has on Linux, as in Node's own errors.
    pub syscall: &'static str,
    /// The file or directory it was about; empty where it was about neither.
    pub path: PathBuf,
    /// The offset of a read or a write.
    pub offset: Option<u64>,
    /// The system's error number, positive: an errno, on Windows the code of `GetLastError`.
    pub errno: i32,
    /// What to do about it, where there is something to say that the errno does not.
    pub hint: Option<String>,
}

impl Error {
    /// `syscall` on `path` failed with `errno`.
    pub fn new(syscall: &'static str, path: impl Into<PathBuf>, errno: impl Into<Errno>) -> Self {
        Self { syscall, path: path.into(), offset: None, errno: errno.into().raw_os_error(), hint: None }
    }

    /// `syscall` on `path` failed where the standard library made it.
    pub fn of_std(syscall: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::new(syscall, path, error)
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

    /// Its number, as what it means.
    pub fn number(&self) -> Errno {
        Errno::from_raw_os_error(self.errno)
    }

    /// What the system's manual calls its number: `ENOSPC`, on Windows `ERROR_DISK_FULL`. Rare ones have no name here.
    pub fn name(&self) -> Option<&'static str> {
        self.number().name()
    }

    /// Whether there was no room: the device, the quota.
    pub fn is_no_space(&self) -> bool {
        matches!(self.number().kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }

    /// Whether the file may not grow so far: a limit on the process, or the file system's.
    pub fn is_file_too_large(&self) -> bool {
        self.number().kind() == ErrorKind::FileTooLarge
    }

    /// Whether the call that failed is one that moves no data (opening, locking, reserving), and the device did
    /// not fail under it: what was written before is as it was, and later it may go better.
    pub fn changed_nothing(&self) -> bool {
        let moves_no_data =
            matches!(self.syscall, "open" | "fstat" | "fcntl" | "flock" | "fallocate" | "ftruncate");
        moves_no_data && !self.number().is_device_failure()
    }

    /// Whether this is not for us to do: no right to, a file system that is read-only or has no such call.
    pub fn is_refused(&self) -> bool {
        let kind = self.number().kind();
        matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput)
    }

    /// Whether there is no such name.
    pub fn is_not_found(&self) -> bool {
        self.number().kind() == ErrorKind::NotFound
    }

    /// Whether the name is taken.
    pub fn is_exists(&self) -> bool {
        self.number().kind() == ErrorKind::AlreadyExists
    }
}

/// The errno that the standard library reports.
#[cfg(all(target_os = "linux", feature = "ring"))]
pub(crate) fn errno_of(error: &std::io::Error) -> i32 {
    Errno::of_std(error).raw_os_error()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.syscall)?;
        if !self.path.as_os_str().is_empty() {
            write!(f, " {}", self.path.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.number())?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_call_its_path_the_name_and_the_number() {
        let error = Error::new("pwrite", "/log/1", Errno::NOSPC).at(4096).hint("make room");
        let text = error.to_string();
        let name = error.name().expect("a name");
        assert!(text.starts_with(&format!("pwrite /log/1 at offset 4096: {name}: ")), "{text}");
        assert!(text.contains(&error.errno.to_string()) && text.ends_with("; make room"), "{text}");
    }

    #[test]
    fn a_kind_of_failure_is_known_by_each_of_its_numbers_and_by_no_other() {
        type Asked = (fn(&Error) -> bool, &'static [Errno]);
        let kinds: [Asked; 5] = [
            (Error::is_no_space, &[Errno::NOSPC, Errno::DQUOT]),
            (Error::is_file_too_large, &[Errno::FBIG]),
            (Error::is_not_found, &[Errno::NOENT]),
            (Error::is_exists, &[Errno::EXIST]),
            (Error::is_refused, &[Errno::ACCESS, Errno::ROFS, Errno::INVAL]),
        ];
        for (index, (_, numbers)) in kinds.iter().enumerate() {
            for &number in *numbers {
                let error = Error::new("open", "", number);
                for (other, (is, _)) in kinds.iter().enumerate() {
                    assert_eq!(is(&error), other == index, "{number:?}");
                }
                assert!(error.changed_nothing());
                assert!(!Error::new("pwrite", "", number).changed_nothing());
            }
        }
        assert!(!Error::new("open", "", Errno::IO).changed_nothing());
    }
}
