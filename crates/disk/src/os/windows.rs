//! Windows: `FlushFileBuffers`, directories that cannot always be flushed, and locks that are mandatory.
//!
//! * **Durable data**: `FlushFileBuffers` writes the file's cached data and has the device write down its cache.
//! * **Durable names**: the system has no call for them. NTFS keeps them in its journal, in order. Where it lets us, a
//!   directory is flushed like a file, which it does not promise anything for; where it does not, a change of a name is
//!   durable when the journal is, a few seconds later at most, and never out of its order.
//! * **Locks** are of a handle, and of a range of bytes that nobody else can read or write then. So ours is of one byte
//!   far behind all data: readers beside a writer are not kept out. Whole-file locks of others meet it all the same.
//! * **Files that are open** can be renamed, replaced and removed, as everything here is opened with all sharing on.
//!   NTFS frees the name at once (Windows 10 1809 and later).
//! * **Extending** a file reserves its clusters, unless it is sparse or compressed.
//! * Permission bits have no meaning; what a directory's list of rights says is inherited.
//! * A handle does one thing at a time: transfers of one file by several threads wait for one another in the kernel.

use std::fs::File;
use std::io::ErrorKind;
use std::mem::size_of;
use std::os::windows::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::windows::io::AsRawHandle as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use windows_sys::Win32::Foundation::{
    ERROR_INVALID_FUNCTION, ERROR_LOCK_VIOLATION, GENERIC_READ, GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_STANDARD_INFO,
    FileStandardInfo, GetFileInformationByHandle, GetFileInformationByHandleEx, LOCKFILE_EXCLUSIVE_LOCK,
    LOCKFILE_FAIL_IMMEDIATELY, LockFileEx,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0};

use super::{OsFile, sync_tree};
use crate::os::OsFs;
use crate::{Access, Create, EntryKind, Errno, Error, Fs as _, OpenOptions, Result};

/// The byte that is locked: the last one that has an offset, which no file is long enough for.
const LOCK_AT: u64 = i64::MAX as u64;

/// What is learnt about a file: whether its lock is ours. Only ever set; the lock goes with the handle.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    is_locked: AtomicBool,
}

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<(File, bool)> {
    let failed = |error: &std::io::Error| Error::of_std("open", path, error);
    match std::fs::symlink_metadata(path) {
        // Asked before: a handle that does not follow links reads the data of no other reparse point either.
        Ok(found) if found.is_symlink() => return Err(Error::new("open", path, Errno::LOOP)),
        Ok(found) if found.is_dir() => return Err(Error::new("open", path, Errno::ISDIR)),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
        Ok(_) | Err(_) => {}
    }
    let mut wanted = File::options();
    // The standard library makes files only where it may write; what we may do is said by itself.
    wanted.read(true).write(true);
    match options.create {
        Create::Never => {}
        Create::IfMissing(_) => _ = wanted.create(true),
        Create::Truncate(_) => _ = wanted.create(true).truncate(true),
    }
    wanted.access_mode(match options.access {
        Access::Read => GENERIC_READ,
        Access::ReadWrite => GENERIC_READ | GENERIC_WRITE,
    });
    Ok((wanted.open(path).map_err(|error| failed(&error))?, false))
}

pub(super) fn read(file: &File, into: &mut [u8], at: u64) -> std::io::Result<usize> {
    file.seek_read(into, at)
}

pub(super) fn write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<usize> {
    file.seek_write(bytes, at)
}

/// `FlushFileBuffers`. Not retried, whatever it answers.
pub(super) fn flush(file: &OsFile) -> Result<()> {
    file.file.sync_data().map_err(|error| file.error("fdatasync", &error))
}

/// There is no write that is durable by itself on a handle that others are not.
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

/// Extending reserves.
pub(super) fn reserve(file: &OsFile, len: u64) -> Result<()> {
    file.extend(len)
}

/// There is no such call for files that are not sparse.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn write_zeroes(_: &OsFile, _: u64, _: u64) -> Result<bool> {
    Ok(false)
}

pub(super) fn try_lock(file: &OsFile) -> Result<bool> {
    // The handle that has it would be refused too.
    let is_ours = || file.learnt.is_locked.load(Ordering::Acquire);
    if is_ours() {
        return Ok(true);
    }
    let place = OVERLAPPED_0_0 { Offset: LOCK_AT as u32, OffsetHigh: (LOCK_AT >> 32) as u32 };
    let mut at = OVERLAPPED { Anonymous: OVERLAPPED_0 { Anonymous: place }, ..OVERLAPPED::default() };
    let how = LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY;
    // SAFETY: `file` owns the handle and `at` is this call's own; the handle is synchronous and the call is told not to
    // wait, so when it returns the kernel has let go of both.
    let is_taken = unsafe { LockFileEx(file.file.as_raw_handle(), how, 0, 1, 0, &raw mut at) } != 0;
    if is_taken {
        file.learnt.is_locked.store(true, Ordering::Release);
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(ERROR_LOCK_VIOLATION.cast_signed()) {
        // Another thread may have taken it for this handle meanwhile.
        return Ok(is_ours());
    }
    Err(file.error("flock", &error))
}

pub(super) fn is_linked(file: &OsFile, path: &Path) -> Result<bool> {
    let standard = standard_info(&file.file).map_err(|error| file.error("fstat", &error))?;
    if standard.DeletePending || standard.NumberOfLinks == 0 {
        return Ok(false);
    }
    // What has the name, itself: neither a link is followed nor rights to its data are needed.
    let mut wanted = File::options();
    wanted.access_mode(0).custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT);
    let named = match wanted.open(path) {
        Ok(named) => named,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::of_std("lstat", path, &error)),
    };
    let held = identity(&file.file).map_err(|error| file.error("fstat", &error))?;
    Ok(held == identity(&named).map_err(|error| Error::of_std("lstat", path, &error))?)
}

/// Nobody asks where there is no direct access.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn share_lock(_: &OsFile, _: &OsFile) -> Result<bool> {
    Ok(false)
}

/// As there.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn written_len(_: &OsFile) -> Result<u64> {
    Ok(0)
}

pub(super) fn has_cheap_dsync(_: &OsFile) -> bool {
    false
}

pub(super) fn create_dir(path: &Path, _: u32) -> std::io::Result<()> {
    std::fs::create_dir(path)
}

pub(super) fn sync_all(directory: &Path) -> Result<()> {
    sync_tree(&OsFs, directory, &|path, kind| match kind {
        EntryKind::Directory => sync_dir(path),
        _ => OsFs.sync(&OsFs.open(path, OpenOptions::WRITE)?),
    })
}

/// As far as it can be had: see the head. That the system refuses it is no error.
pub(super) fn sync_dir(directory: &Path) -> Result<()> {
    let mut wanted = File::options();
    // Nothing is flushed that may not be written to.
    wanted.access_mode(GENERIC_WRITE).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    let flushed = match wanted.open(directory) {
        Ok(directory) => directory.sync_all().map_err(|error| ("fsync", error)),
        Err(error) => Err(("open", error)),
    };
    match flushed {
        Err((syscall, error)) if !is_refusal(&error) => Err(Error::of_std(syscall, directory, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the file system does not flush directories, or does not let us.
fn is_refusal(error: &std::io::Error) -> bool {
    let refusals = [
        Errno::ACCESS,
        Errno::BADF,
        Errno::INVAL,
        Errno::NOSYS,
        Errno::NOTSUP,
        Errno::ROFS,
        Errno::from_raw_os_error(ERROR_INVALID_FUNCTION.cast_signed()),
    ];
    refusals.contains(&Errno::of_std(error))
}

fn standard_info(file: &File) -> std::io::Result<FILE_STANDARD_INFO> {
    let mut info = FILE_STANDARD_INFO::default();
    let bytes = size_of::<FILE_STANDARD_INFO>() as u32;
    let into = (&raw mut info).cast();
    // SAFETY: `file` owns the handle, and `into` leads to `bytes` bytes of ours; the call has ended with both when it
    // returns.
    let is_told =
        unsafe { GetFileInformationByHandleEx(file.as_raw_handle(), FileStandardInfo, into, bytes) } != 0;
    if is_told { Ok(info) } else { Err(std::io::Error::last_os_error()) }
}

/// The volume's number, and the file's on it.
fn identity(file: &File) -> std::io::Result<(u32, u32, u32)> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: `file` owns the handle and `info` is ours; the call has ended with both when it returns.
    let is_told = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) } != 0;
    if !is_told {
        return Err(std::io::Error::last_os_error());
    }
    Ok((info.dwVolumeSerialNumber, info.nFileIndexHigh, info.nFileIndexLow))
}
