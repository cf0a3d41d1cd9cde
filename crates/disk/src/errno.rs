//! The numbers by which a system says what went wrong: one name for one thing, whatever system it is.
//!
//! The names are POSIX's, the numbers the system's own, so that people find them in its manuals. Windows has several
//! numbers for some of these things: the constant is the one that files are answered with, and what *asks* for a kind of
//! failure ([`crate::Error::is_no_space`] and its like) knows the others.

use std::fmt;

/// A number by which this system says what went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($constant:ident, $posix:literal, $windows:ident;)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", $posix, "`; on Windows `", stringify!($windows), "`.")]
                #[cfg(unix)]
                pub const $constant: Self = Self(rustix::io::Errno::$constant.raw_os_error());
                #[doc = concat!("`", $posix, "`; on Windows `", stringify!($windows), "`.")]
                #[cfg(windows)]
                pub const $constant: Self =
                    Self(windows_sys::Win32::Foundation::$windows.cast_signed());
            )*
        }

        /// What the system's manual calls them.
        const NAMES: &[(Errno, &str)] = &[
            $((Errno::$constant, if cfg!(windows) { stringify!($windows) } else { $posix }),)*
        ];
    };
}

errnos! {
    ACCESS, "EACCES", ERROR_ACCESS_DENIED;
    AGAIN, "EAGAIN", ERROR_LOCK_VIOLATION;
    BADF, "EBADF", ERROR_INVALID_HANDLE;
    BUSY, "EBUSY", ERROR_BUSY;
    DQUOT, "EDQUOT", ERROR_DISK_QUOTA_EXCEEDED;
    EXIST, "EEXIST", ERROR_FILE_EXISTS;
    FBIG, "EFBIG", ERROR_FILE_TOO_LARGE;
    INVAL, "EINVAL", ERROR_INVALID_PARAMETER;
    IO, "EIO", ERROR_IO_DEVICE;
    ISDIR, "EISDIR", ERROR_DIRECTORY_NOT_SUPPORTED;
    LOOP, "ELOOP", ERROR_CANT_RESOLVE_FILENAME;
    MFILE, "EMFILE", ERROR_TOO_MANY_OPEN_FILES;
    NAMETOOLONG, "ENAMETOOLONG", ERROR_FILENAME_EXCED_RANGE;
    NOENT, "ENOENT", ERROR_FILE_NOT_FOUND;
    NOMEM, "ENOMEM", ERROR_NOT_ENOUGH_MEMORY;
    NOSPC, "ENOSPC", ERROR_DISK_FULL;
    NOSYS, "ENOSYS", ERROR_CALL_NOT_IMPLEMENTED;
    NOTDIR, "ENOTDIR", ERROR_DIRECTORY;
    NOTEMPTY, "ENOTEMPTY", ERROR_DIR_NOT_EMPTY;
    NOTSUP, "ENOTSUP", ERROR_NOT_SUPPORTED;
    PERM, "EPERM", ERROR_PRIVILEGE_NOT_HELD;
    ROFS, "EROFS", ERROR_WRITE_PROTECT;
    XDEV, "EXDEV", ERROR_NOT_SAME_DEVICE;
}

/// What else a system answers, which nothing here has to name.
#[cfg(unix)]
const MORE_NAMES: &[(i32, &str)] = {
    use rustix::io::Errno;
    &[
        (Errno::INTR.raw_os_error(), "EINTR"),
        (Errno::NFILE.raw_os_error(), "ENFILE"),
        (Errno::NODEV.raw_os_error(), "ENODEV"),
        (Errno::NXIO.raw_os_error(), "ENXIO"),
        (Errno::OVERFLOW.raw_os_error(), "EOVERFLOW"),
        (Errno::SPIPE.raw_os_error(), "ESPIPE"),
        (Errno::STALE.raw_os_error(), "ESTALE"),
        (Errno::TIMEDOUT.raw_os_error(), "ETIMEDOUT"),
        (Errno::TXTBSY.raw_os_error(), "ETXTBSY"),
    ]
};

/// What else a system answers, which nothing here has to name.
#[cfg(windows)]
const MORE_NAMES: &[(i32, &str)] = {
    use windows_sys::Win32::Foundation as win32;
    macro_rules! names {
        ($($windows:ident)*) => { &[$((win32::$windows.cast_signed(), stringify!($windows)),)*] };
    }
    names! {
        ERROR_ALREADY_EXISTS ERROR_BAD_NETPATH ERROR_COMMITMENT_LIMIT ERROR_CRC ERROR_DELETE_PENDING
        ERROR_DEVICE_HARDWARE_ERROR ERROR_DEVICE_NOT_CONNECTED ERROR_DEVICE_REMOVED ERROR_DEV_NOT_EXIST
        ERROR_DISK_CORRUPT ERROR_DISK_OPERATION_FAILED ERROR_FILE_CORRUPT ERROR_FILE_INVALID
        ERROR_FILE_SYSTEM_LIMITATION ERROR_GEN_FAILURE ERROR_HANDLE_DISK_FULL ERROR_INVALID_FUNCTION
        ERROR_INVALID_NAME ERROR_NOACCESS ERROR_NOT_ENOUGH_QUOTA ERROR_NOT_READY ERROR_NO_SYSTEM_RESOURCES
        ERROR_OPERATION_ABORTED ERROR_OUTOFMEMORY ERROR_PATH_NOT_FOUND ERROR_READ_FAULT ERROR_SEEK
        ERROR_SEM_TIMEOUT ERROR_SHARING_VIOLATION ERROR_TIMEOUT ERROR_USER_MAPPED_FILE ERROR_WRITE_FAULT
    }
};

impl Errno {
    /// Of this number.
    pub const fn from_raw_os_error(number: i32) -> Self {
        Self(number)
    }

    /// The number behind a failure of the standard library; where that is of the library's own making, what the system
    /// would have said.
    pub fn of_std(error: &std::io::Error) -> Self {
        match (error.raw_os_error(), error.kind()) {
            (Some(number), _) => Self(number),
            (None, std::io::ErrorKind::InvalidInput) => Self::INVAL,
            (None, _) => Self::IO,
        }
    }

    /// The number.
    pub const fn raw_os_error(self) -> i32 {
        self.0
    }

    /// What the system's manual calls it: `ENOSPC`, on Windows `ERROR_DISK_FULL`. Rare ones have no name here.
    pub fn name(self) -> Option<&'static str> {
        let known = NAMES.iter().find(|(errno, _)| *errno == self).map(|(_, name)| *name);
        known.or_else(|| MORE_NAMES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name))
    }

    /// What kind of failure the standard library takes it for. It knows all numbers of a kind, on every system.
    pub fn kind(self) -> std::io::ErrorKind {
        std::io::Error::from_raw_os_error(self.0).kind()
    }

    /// Whether the device failed, or what lies on it is in disorder, rather than that the call was wrong.
    #[cfg(unix)]
    pub(crate) fn is_device_failure(self) -> bool {
        self == Self::IO
    }

    /// Whether the device failed, or what lies on it is in disorder, rather than that the call was wrong.
    #[cfg(windows)]
    pub(crate) fn is_device_failure(self) -> bool {
        use windows_sys::Win32::Foundation as win32;
        matches!(
            self.0.cast_unsigned(),
            win32::ERROR_IO_DEVICE
                | win32::ERROR_CRC
                | win32::ERROR_SEEK
                | win32::ERROR_READ_FAULT
                | win32::ERROR_WRITE_FAULT
                | win32::ERROR_GEN_FAILURE
                | win32::ERROR_NOT_READY
                | win32::ERROR_DEV_NOT_EXIST
                | win32::ERROR_DEVICE_HARDWARE_ERROR
                | win32::ERROR_DEVICE_NOT_CONNECTED
                | win32::ERROR_DEVICE_REMOVED
                | win32::ERROR_DISK_OPERATION_FAILED
                | win32::ERROR_DISK_CORRUPT
                | win32::ERROR_FILE_CORRUPT
        )
    }
}

#[cfg(unix)]
impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<i32> for Errno {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Self {
        Self::of_std(error)
    }
}

/// `ENOSPC: No space left on device (os error 28)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(f, "{name}: ")?;
        }
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}, {})", self.0, self.name().unwrap_or("?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_name_and_names_are_told_with_their_number() {
        let names: Vec<_> =
            NAMES.iter().map(|(errno, name)| (errno.0, *name)).chain(MORE_NAMES.iter().copied()).collect();
        for (number, name) in &names {
            assert_eq!(names.iter().filter(|(other, _)| other == number).count(), 1, "{name}");
            let told = Errno(*number).to_string();
            assert!(told.starts_with(name) && told.contains(&number.to_string()), "{told}");
        }
        assert_eq!(Errno(123_456).name(), None);
        assert!(Errno(123_456).to_string().contains("123456"));
    }

    #[test]
    fn a_failure_of_the_librarys_own_making_is_told_as_the_system_would() {
        let no_path = std::fs::metadata("a\0b").unwrap_err();
        assert_eq!((no_path.raw_os_error(), Errno::of_std(&no_path)), (None, Errno::INVAL));
        assert_eq!(Errno::of_std(&std::io::Error::other("odd")), Errno::IO);
        let missing = std::fs::metadata("/no/such/file").unwrap_err();
        assert_eq!(Errno::of_std(&missing).kind(), std::io::ErrorKind::NotFound);
    }
}
