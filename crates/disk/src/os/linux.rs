//! Linux: `O_DIRECT` and what a file system thinks of it, `pwritev2`, `fallocate`, copy-on-write, `syncfs`, and the
//! device's write cache in sysfs.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
#[cfg(feature = "ring")]
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FallocateFlags, FsWord, IFlags, OFlags, SeekFrom, StatxFlags, fallocate, fdatasync, fstat,
    fstatfs, fsync, ioctl_getflags, ioctl_setflags, major, minor, seek, statx, syncfs,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

pub(super) use super::unix::{create_dir, is_linked, read, share_lock, try_lock, write};
use super::unix::{on_directory, uninterrupted};
use super::{OsFile, unix};
use crate::{GRAIN, OpenOptions, Result};

/// `RWF_DONTCACHE`, since Linux 6.14.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// What a file's file system was found to refuse. Each is only ever set: the answer does not change.
#[derive(Debug, Default)]
#[expect(clippy::struct_field_names, reason = "each is true of what was refused")]
pub(super) struct Learnt {
    /// `FALLOC_FL_WRITE_ZEROES`.
    pub(super) refuses_write_zeroes: AtomicBool,
    /// `RWF_DSYNC`.
    refuses_dsync: AtomicBool,
    /// `RWF_DONTCACHE`.
    pub(super) refuses_uncached: AtomicBool,
}

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<(File, bool)> {
    let direct = if options.direct { OFlags::DIRECT } else { OFlags::empty() };
    unix::open(path, options, direct, is_grain_enough)
}

/// `fdatasync`. Not retried, whatever it answers: after a failure the kernel calls the lost pages clean.
pub(super) fn flush(file: &OsFile) -> Result<()> {
    fdatasync(file).map_err(|errno| file.error("fdatasync", errno))
}

/// One plain call: nothing beats it while nothing else is waiting.
pub(super) fn write_durably(file: &OsFile, at: u64, bytes: &[u8]) -> Result<()> {
    if file.takes_dsync() {
        let written = file.write_pieces("pwritev2", at, bytes, |piece, from| {
            Ok(pwritev2(file, &[IoSlice::new(piece)], from, ReadWriteFlags::DSYNC)?)
        });
        match written {
            Err(error) if error.errno == Errno::OPNOTSUPP.raw_os_error() => file.refused_dsync(),
            written => return written,
        }
    }
    file.write_all(at, bytes)?;
    flush(file)
}

/// Asks the page cache to let go of it where the file system knows how to.
pub(super) fn write_uncached(file: &OsFile, at: u64, bytes: &[u8]) -> Result<()> {
    if !file.direct && !file.learnt.refuses_uncached.load(Ordering::Relaxed) {
        let written = file.write_pieces("pwritev2", at, bytes, |piece, from| {
            Ok(pwritev2(file, &[IoSlice::new(piece)], from, DONTCACHE)?)
        });
        match written {
            Err(error) if error.errno == Errno::OPNOTSUPP.raw_os_error() => {
                file.learnt.refuses_uncached.store(true, Ordering::Relaxed);
            }
            written => return written,
        }
    }
    file.write_all(at, bytes)
}

pub(super) fn read_cached(file: &OsFile, at: u64, into: &mut [u8]) -> Result<usize> {
    let mut vector = [IoSliceMut::new(into)];
    match uninterrupted(|| preadv2(file, &mut vector, at, ReadWriteFlags::NOWAIT)) {
        Ok(count) => Ok(count),
        // Not in the cache, or a file system without the flag.
        Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(0),
        Err(errno) => Err(file.error("preadv2", errno).at(at)),
    }
}

pub(super) fn reserve(file: &OsFile, len: u64) -> Result<()> {
    file.avoid_copy_on_write();
    match uninterrupted(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Ok(()) => Ok(()),
        Err(errno) if is_refusal(errno) => file.extend(len),
        Err(errno) => Err(file.error("fallocate", errno)),
    }
}

/// One call that leaves zeros in blocks that count as written; `false` where the file system has none.
pub(super) fn write_zeroes(file: &OsFile, at: u64, len: u64) -> Result<bool> {
    /// `FALLOC_FL_WRITE_ZEROES`, since Linux 6.17.
    const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

    if file.learnt.refuses_write_zeroes.load(Ordering::Relaxed) {
        return Ok(false);
    }
    match uninterrupted(|| fallocate(file, WRITE_ZEROES, at, len)) {
        Ok(()) => Ok(true),
        Err(errno) if is_refusal(errno) => {
            file.learnt.refuses_write_zeroes.store(true, Ordering::Relaxed);
            Ok(false)
        }
        Err(errno) => Err(file.error("fallocate", errno).at(at)),
    }
}

/// What `SEEK_HOLE` finds first. Bytes that were never flushed count as written: a write past the page cache flushes those
/// in its way.
pub(super) fn written_len(file: &OsFile) -> Result<u64> {
    match seek(file, SeekFrom::Hole(0)) {
        Ok(at) => Ok(at),
        // An empty file has not even a hole, and a file system that knows of none may have some.
        Err(errno) if errno == Errno::NXIO || is_refusal(errno) => Ok(0),
        Err(errno) => Err(file.error("lseek", errno)),
    }
}

pub(super) fn has_cheap_dsync(file: &OsFile) -> bool {
    let Ok(metadata) = file.file.metadata() else { return false };
    match Cache::of_device(metadata.dev()) {
        Cache::None => true,
        // The kernel forces unit access for direct writes only; others it follows by a flush all the same.
        Cache::ForcedUnitAccess => file.direct,
        Cache::Volatile => false,
    }
}

/// The whole file system, by one call.
pub(super) fn sync_all(directory: &Path) -> Result<()> {
    on_directory(directory, "syncfs", syncfs)
}

pub(super) fn sync_dir(directory: &Path) -> Result<()> {
    on_directory(directory, "fsync", fsync)
}

/// What the rings need of a file.
#[cfg(feature = "ring")]
impl OsFile {
    /// A file of the caller's making, which no path leads to.
    pub(crate) fn of_descriptor(descriptor: OwnedFd, path: &str) -> crate::File {
        crate::File(crate::FileKind::Os(std::sync::Arc::new(Self::new(
            descriptor.into(),
            path.into(),
            false,
        ))))
    }

    /// The descriptor, for a ring's entry: whoever puts it there keeps this file until the entry's completion.
    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl OsFile {
    /// Whether `RWF_DSYNC` is worth a try.
    pub(crate) fn takes_dsync(&self) -> bool {
        !self.learnt.refuses_dsync.load(Ordering::Relaxed)
    }

    /// `RWF_DSYNC` was refused: from here on a durable write is a plain one and a flush.
    pub(crate) fn refused_dsync(&self) {
        self.learnt.refuses_dsync.store(true, Ordering::Relaxed);
    }

    /// Ask btrfs to write this file in place. Where each write goes to a new block, one into a reservation may
    /// run out of space all the same. It takes the wish for an empty file only. Best effort: the file serves
    /// without.
    fn avoid_copy_on_write(&self) {
        /// `BTRFS_SUPER_MAGIC`.
        const BTRFS: FsWord = 0x9123_683e;

        let is_empty = fstat(self).is_ok_and(|stat| stat.st_size == 0);
        if is_empty
            && fstatfs(self).is_ok_and(|system| system.f_type == BTRFS)
            && let Ok(flags) = ioctl_getflags(self)
        {
            let _ = ioctl_setflags(self, flags | IFlags::NOCOW);
        }
    }
}

/// Whether `errno` says that the file system has no such `fallocate`, rather than that it failed.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

/// Whether writes aligned to [`GRAIN`] are aligned enough for this descriptor's `O_DIRECT`. Kernels before
/// 6.1, and file systems that do not tell, took the flag at open: believed.
fn is_grain_enough(descriptor: &OwnedFd) -> bool {
    let Ok(stat) = statx(descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else { return true };
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return true;
    }
    // Zero means that direct access is not to be had for this file, whatever the flag says.
    let enough = |alignment: u32| (1..=GRAIN).contains(&(alignment as usize));
    enough(stat.stx_dio_mem_align) && enough(stat.stx_dio_offset_align)
}

/// What stands between a completed write and the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// Nothing: a completed write is durable.
    None,
    /// A volatile cache that a single write can be told to pass by.
    ForcedUnitAccess,
    /// A volatile cache that must be flushed, or nothing is known.
    Volatile,
}

impl Cache {
    /// Of a block device, by what sysfs tells of its queue. File systems over several devices, in memory or on
    /// a network have no such device.
    fn of_device(device: u64) -> Self {
        let block = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
        // A partition shares its disk's queue. The kernel follows the link first, so `..` is the disk.
        let queue = block.join(if block.join("partition").exists() { "../queue" } else { "queue" });
        let says = |name: &str, value: &str| {
            std::fs::read_to_string(queue.join(name)).is_ok_and(|text| text.trim() == value)
        };
        if says("write_cache", "write through") {
            Self::None
        } else if says("fua", "1") {
            Self::ForcedUnitAccess
        } else {
            Self::Volatile
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::OsFs;
    use crate::{Buffer, Fs as _};

    #[test]
    fn a_device_that_nothing_is_known_about_counts_as_one_with_a_volatile_cache() {
        // What file systems in memory and over several devices report: a number without a device.
        assert_eq!(Cache::of_device(0), Cache::Volatile);
    }

    #[test]
    fn a_wish_that_was_refused_is_remembered_and_the_bytes_are_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsFs.open(&dir.path().join("file"), OpenOptions::replace(0o600)).unwrap();
        file.os().learnt.refuses_uncached.store(true, Ordering::Relaxed);
        OsFs.write_uncached_at(&file, 3, &Buffer::copy_of(b"bytes")).unwrap();
        let mut bytes = [1; 10];
        assert_eq!(OsFs.read_at(&file, 0, &mut bytes), Ok(8));
        assert_eq!(&bytes[..8], b"\0\0\0bytes");
    }

    #[test]
    fn a_refusal_to_write_zeroes_is_remembered_and_changes_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for direct in [false, true] {
            let options = OpenOptions::replace(0o600).with_direct(direct);
            let file = OsFs.open(&dir.path().join("file"), options).unwrap();
            file.os().learnt.refuses_write_zeroes.store(true, Ordering::Relaxed);
            OsFs.write_at(&file, 0, &Buffer::copy_of(&[1; 4 * GRAIN])).unwrap();
            OsFs.zero(&file, GRAIN as u64, (2 << 20) + GRAIN as u64).unwrap();
            assert_eq!(OsFs.len(&file), Ok((2 << 20) + 2 * GRAIN as u64));
            let mut bytes = vec![2; 5 * GRAIN];
            OsFs.read_at(&file, 0, &mut bytes).unwrap();
            assert!(bytes[..GRAIN] == [1; GRAIN] && bytes[GRAIN..] == [0; 4 * GRAIN]);
        }
    }
}
