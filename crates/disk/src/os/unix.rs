//! What Linux and macOS have in common.

use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;

use crate::os::OsFile;
use crate::{Access, Create, Error, OpenOptions, Result};

/// Open a file, with `extra` flags where it takes them; whether it has them.
pub(super) fn open(
    path: &Path,
    options: OpenOptions,
    extra: OFlags,
    takes: impl FnOnce(&OwnedFd) -> bool,
) -> Result<(File, bool)> {
    let (create, mode) = match options.create {
        Create::Never => (OFlags::empty(), 0),
        Create::IfMissing(mode) => (OFlags::CREATE, mode),
        Create::Truncate(mode) => (OFlags::CREATE | OFlags::TRUNC, mode),
    };
    let access = match options.access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    // NONBLOCK until it is known what was opened: a pipe would wait here for its other end. It must not stay:
    // the ring answers EAGAIN on such a file where it would have to wait for the disk.
    let flags = access | create | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(mode as _);
    let with = |extra| uninterrupted(|| rustix::fs::open(path, flags | extra, mode));
    let opened = if extra.is_empty() { Err(Errno::INVAL) } else { with(extra) };
    let (opened, is_extra) = match opened {
        // Not asked for, or refused.
        Err(Errno::INVAL) => (with(OFlags::empty()), false),
        opened => (opened, true),
    };
    let failed = |syscall| move |errno: Errno| Error::new(syscall, path, errno);
    let descriptor = opened.map_err(failed("open"))?;
    let stat = fstat(&descriptor).map_err(failed("fstat"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => {
            let hint = "a named pipe stands where a file should be";
            return Err(failed("open")(Errno::INVAL).hint(hint));
        }
        // The kernel opens one for reading, and answers this for writing.
        FileType::Directory => return Err(failed("open")(Errno::ISDIR)),
        _ => {}
    }
    let is_extra = is_extra && takes(&descriptor);
    let unwanted = OFlags::NONBLOCK | if is_extra { OFlags::empty() } else { extra };
    let flags = fcntl_getfl(&descriptor).map_err(failed("fcntl"))?;
    fcntl_setfl(&descriptor, flags - unwanted).map_err(failed("fcntl"))?;
    Ok((descriptor.into(), is_extra))
}

pub(super) fn read(file: &File, into: &mut [u8], at: u64) -> std::io::Result<usize> {
    file.read_at(into, at)
}

pub(super) fn write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<usize> {
    file.write_at(bytes, at)
}

/// The standard library's lock is `flock` here: of the open file description, so a second open is refused in the same
/// process too, and the kernel keeps it until the last operation on it is done.
pub(super) fn try_lock(file: &OsFile) -> Result<bool> {
    match file.file.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(error)) => Err(file.error("flock", &error)),
    }
}

/// Both hold it as readers do: a lock of one description is in the way of another's, but for such. Who tries for it asks for
/// all of it, and is refused as long as one of them is held.
pub(super) fn share_lock(file: &OsFile, other: &OsFile) -> Result<bool> {
    for file in [file, other] {
        match file.file.try_lock_shared() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(false),
            Err(std::fs::TryLockError::Error(error)) => return Err(file.error("flock", &error)),
        }
    }
    Ok(true)
}

pub(super) fn is_linked(file: &OsFile, path: &Path) -> Result<bool> {
    let held = file.file.metadata().map_err(|error| file.error("fstat", &error))?;
    // `lstat`, as opening never follows a link: a link to the file would not be the file's name.
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok(held.nlink() > 0 && (held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::of_std("lstat", path, &error)),
    }
}

pub(super) fn create_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// Open a directory and do one call on it.
pub(super) fn on_directory(
    directory: &Path,
    syscall: &'static str,
    call: impl FnOnce(OwnedFd) -> rustix::io::Result<()>,
) -> Result<()> {
    let failed = |syscall| move |errno: Errno| Error::new(syscall, directory, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor =
        uninterrupted(|| rustix::fs::open(directory, flags, Mode::empty())).map_err(failed("open"))?;
    call(descriptor).map_err(failed(syscall))
}

/// Do `call` again as long as a signal interrupts it.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

impl AsFd for OsFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
