//! macOS: `F_FULLFSYNC` and `F_PREALLOCATE`.
//!
//! `fsync` hands a file's data to the drive there and does not have the drive write it down; `F_FULLFSYNC` has the drive
//! write down all that it holds. A file system that has no such call (network file systems, some FUSE ones) is flushed
//! by `fsync`, which is the most that it can do.
//!
//! There is no direct access: `F_NOCACHE` is a wish that cached pages override, and asks for no alignment.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fcntl_fullfsync, fsync};
use rustix::io::Errno;

pub(super) use super::unix::{create_dir, is_linked, read, share_lock, try_lock, write};
use super::unix::{on_directory, uninterrupted};
use super::{OsFile, sync_tree, unix};
use crate::os::OsFs;
use crate::{EntryKind, Error, OpenOptions, Result};

/// What is learnt about a file: nothing.
#[derive(Debug, Default)]
pub(super) struct Learnt;

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<(File, bool)> {
    unix::open(path, options, OFlags::empty(), |_| false)
}

/// `F_FULLFSYNC`. Not retried, whatever it answers, but for a file system that has none.
pub(super) fn flush(file: &OsFile) -> Result<()> {
    full_sync(file).map_err(|errno| file.error("fdatasync", errno))
}

/// There is no write that is durable by itself.
pub(super) fn write_durably(file: &OsFile, at: u64, bytes: &[u8]) -> Result<()> {
    file.write_all(at, bytes)?;
    flush(file)
}

/// The wish cannot be told for one write.
pub(super) fn write_uncached(file: &OsFile, at: u64, bytes: &[u8]) -> Result<()> {
    file.write_all(at, bytes)
}

/// There is no read that never waits.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn read_cached(_: &OsFile, _: u64, _: &mut [u8]) -> Result<usize> {
    Ok(0)
}

/// Reserves blocks for a new file. One that holds something already is extended only: what is asked for is counted
/// from the last block that the file has, whichever that is.
pub(super) fn reserve(file: &OsFile, len: u64) -> Result<()> {
    if file.len()? > 0 {
        return file.extend(len);
    }
    match uninterrupted(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Ok(()) => Ok(()),
        Err(Errno::NOTSUP | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.extend(len),
        Err(errno) => Err(file.error("fallocate", errno)),
    }
}

/// There is no such call.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn write_zeroes(_: &OsFile, _: u64, _: u64) -> Result<bool> {
    Ok(false)
}

/// Nobody asks where there is no direct access.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn written_len(_: &OsFile) -> Result<u64> {
    Ok(0)
}

pub(super) fn has_cheap_dsync(_: &OsFile) -> bool {
    false
}

/// Everything below is handed to the drive, and the last flush has the drive write down all of it.
pub(super) fn sync_all(directory: &Path) -> Result<()> {
    sync_tree(&OsFs, directory, &|path, kind| match kind {
        EntryKind::Directory => on_directory(path, "fsync", fsync),
        _ => hand_to_drive(path),
    })?;
    sync_dir(directory)
}

pub(super) fn sync_dir(directory: &Path) -> Result<()> {
    on_directory(directory, "fsync", full_sync)
}

fn full_sync(descriptor: impl AsFd) -> rustix::io::Result<()> {
    match fcntl_fullfsync(&descriptor) {
        Err(Errno::NOTSUP | Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL) => fsync(descriptor),
        result => result,
    }
}

fn hand_to_drive(path: &Path) -> Result<()> {
    let failed = |syscall| move |errno: Errno| Error::new(syscall, path, errno);
    // NONBLOCK, as a pipe may have taken the place of what was listed.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = uninterrupted(|| rustix::fs::open(path, flags, Mode::empty())).map_err(failed("open"))?;
    fsync(file).map_err(failed("fsync"))
}
