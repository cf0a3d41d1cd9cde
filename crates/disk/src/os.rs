//! [`Fs`] over the operating system: plain blocking calls.
//!
//! What only Linux has stands together at the end of [`OsFile`] and of this file: `O_DIRECT` and what a file
//! system thinks of it, `pwritev2`, `fallocate`, copy-on-write, and the device's write cache in sysfs.

use std::fmt;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, FsWord, IFlags, Mode, OFlags, StatxFlags, fallocate,
    fcntl_getfl, fcntl_setfl, fdatasync, flock, fstat, fstatfs, fsync, ftruncate, ioctl_getflags,
    ioctl_setflags, lstat, major, minor, mkdir, open, rename, rmdir, statx, syncfs, unlink,
};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, pwritev2};
use rustix::time::{ClockId, clock_gettime};

use crate::transfer::{Transfer, is_in_range};
use crate::{
    Access, Buffer, Create, Entry, EntryKind, Error, File, FileKind, Fs, GRAIN, OpenOptions, Result, Time,
};

/// The most that one bounce buffer or one write of zeros holds.
const CHUNK: usize = 1 << 20;
const _: () = assert!(CHUNK.is_multiple_of(GRAIN));

/// `RWF_DONTCACHE`, since Linux 6.14.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// An open file of the operating system: the descriptor and what was learnt about it.
pub struct OsFile {
    descriptor: OwnedFd,
    path: PathBuf,
    /// Whether the descriptor has `O_DIRECT`. Settled when it is opened.
    direct: bool,
    /// Whether its file system refused `FALLOC_FL_WRITE_ZEROES`. Only ever set: the answer does not change.
    refuses_write_zeroes: AtomicBool,
    /// Whether its file system refused `RWF_DSYNC`. Only ever set.
    refuses_dsync: AtomicBool,
    /// Whether its file system refused `RWF_DONTCACHE`. Only ever set.
    refuses_uncached: AtomicBool,
}

impl OsFile {
    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// A file of the caller's making, which no path leads to.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_descriptor(descriptor: OwnedFd, path: &str) -> File {
        File(FileKind::Os(Arc::new(Self::new(descriptor, path.into(), false))))
    }

    /// With nothing learnt about it yet.
    fn new(descriptor: OwnedFd, path: PathBuf, direct: bool) -> Self {
        Self {
            descriptor,
            path,
            direct,
            refuses_write_zeroes: AtomicBool::new(false),
            refuses_dsync: AtomicBool::new(false),
            refuses_uncached: AtomicBool::new(false),
        }
    }

    /// The descriptor, for a ring's entry: whoever puts it there keeps this file until the entry's completion.
    pub(crate) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// `syscall` on this file failed with `errno`.
    pub(crate) fn error(&self, syscall: &'static str, errno: Errno) -> Error {
        Error::new(syscall, &self.path, errno.raw_os_error())
    }

    /// `EINVAL` where some of `len` bytes from `at` have no offset that the kernel can name.
    pub(crate) fn check_range(&self, syscall: &'static str, at: u64, len: usize) -> Result<()> {
        if is_in_range(at, len as u64) { Ok(()) } else { Err(self.error(syscall, Errno::INVAL).at(at)) }
    }

    /// Fill `into` from `at`, up to the end of the file. On direct files `into` is aligned memory and `at` and
    /// the length are whole grains.
    fn read_aligned(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        self.check_range("pread", at, into.len())?;
        let mut transfer = Transfer::new(into.len(), self.direct);
        while let Some(piece) = transfer.next() {
            let (start, from) = (piece.start, at + piece.start as u64);
            let count = uninterrupted(|| pread(&self.descriptor, &mut into[piece.clone()], from))
                .map_err(|errno| self.error("pread", errno).at(from))?;
            if !transfer.advance(start, count) {
                break;
            }
        }
        Ok(transfer.done())
    }

    /// The same for any offset, length and memory: through an aligned buffer.
    fn read_bounced(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        self.check_range("pread", at, into.len())?;
        let mut bounce = Buffer::with_capacity((into.len() + 2 * GRAIN).min(CHUNK));
        let mut done = 0;
        while done < into.len() {
            let from = at + done as u64;
            let skip = (from % GRAIN as u64) as usize;
            let wanted = (skip + into.len() - done).next_multiple_of(GRAIN).min(bounce.capacity());
            bounce.resize(wanted);
            let count = self.read_aligned(from - skip as u64, &mut bounce)?;
            let fresh = count.saturating_sub(skip).min(into.len() - done);
            into[done..done + fresh].copy_from_slice(&bounce[skip..skip + fresh]);
            done += fresh;
            if count < wanted {
                break;
            }
        }
        Ok(done)
    }

    fn write_all(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.write_pieces("pwrite", at, bytes, |piece, from| pwrite(&self.descriptor, piece, from))
    }

    /// Write all of `bytes` at `at` by `write`, which may do less at a time.
    fn write_pieces(
        &self,
        syscall: &'static str,
        at: u64,
        bytes: &[u8],
        mut write: impl FnMut(&[u8], u64) -> rustix::io::Result<usize>,
    ) -> Result<()> {
        self.check_range(syscall, at, bytes.len())?;
        let mut transfer = Transfer::new(bytes.len(), self.direct);
        while let Some(piece) = transfer.next() {
            let (start, from) = (piece.start, at + piece.start as u64);
            let count = uninterrupted(|| write(&bytes[piece.clone()], from))
                .map_err(|errno| self.error(syscall, errno).at(from))?;
            if !transfer.advance(start, count) {
                return Err(self.wrote_nothing(syscall, from));
            }
        }
        Ok(())
    }

    /// A write of nothing new is an error; taken for progress it would be a loop. A direct write is cut short
    /// again and again where a limit lies within a grain, and then the kernel never says so.
    pub(crate) fn wrote_nothing(&self, syscall: &'static str, from: u64) -> Error {
        self.error(syscall, Errno::IO).at(from).hint(
            "the file system wrote no more and gave no reason; is there a limit on the size of files, or a quota?",
        )
    }

    /// `fdatasync`. Not retried, whatever it answers: after a failure the kernel calls the lost pages clean.
    fn flush(&self) -> Result<()> {
        fdatasync(&self.descriptor).map_err(|errno| self.error("fdatasync", errno))
    }

    // What only Linux has.

    /// Write all of `bytes` at `at`; on return these bytes are durable. One plain call on the calling thread:
    /// nothing beats it while nothing else is waiting.
    pub(crate) fn write_durably(&self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.takes_dsync() {
            let written = self.write_pieces("pwritev2", at, bytes, |piece, from| {
                let vector = [std::io::IoSlice::new(piece)];
                pwritev2(&self.descriptor, &vector, from, ReadWriteFlags::DSYNC)
            });
            match written {
                Err(error) if error.errno == Errno::OPNOTSUPP.raw_os_error() => self.refused_dsync(),
                written => return written,
            }
        }
        self.write_all(at, bytes)?;
        self.flush()
    }

    /// Write all of `bytes` at `at`, and ask the page cache to let go of it where the file system knows how to.
    fn write_uncached(&self, at: u64, bytes: &[u8]) -> Result<()> {
        if !self.direct && !self.refuses_uncached.load(Ordering::Relaxed) {
            let written = self.write_pieces("pwritev2", at, bytes, |piece, from| {
                pwritev2(&self.descriptor, &[std::io::IoSlice::new(piece)], from, DONTCACHE)
            });
            match written {
                Err(error) if error.errno == Errno::OPNOTSUPP.raw_os_error() => {
                    self.refuses_uncached.store(true, Ordering::Relaxed);
                }
                written => return written,
            }
        }
        self.write_all(at, bytes)
    }

    /// Read from `at` what the page cache holds; never waits for the device.
    fn read_cached(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        self.check_range("preadv2", at, into.len())?;
        let mut vector = [std::io::IoSliceMut::new(into)];
        match uninterrupted(|| preadv2(&self.descriptor, &mut vector, at, ReadWriteFlags::NOWAIT)) {
            Ok(count) => Ok(count),
            // Not in the cache, or a file system without the flag.
            Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(0),
            Err(errno) => Err(self.error("preadv2", errno).at(at)),
        }
    }

    /// Whether `RWF_DSYNC` is worth a try.
    pub(crate) fn takes_dsync(&self) -> bool {
        !self.refuses_dsync.load(Ordering::Relaxed)
    }

    /// `RWF_DSYNC` was refused: from here on a durable write is a plain one and a flush.
    pub(crate) fn refused_dsync(&self) {
        self.refuses_dsync.store(true, Ordering::Relaxed);
    }

    /// Ask btrfs to write this file in place. Where each write goes to a new block, one into a reservation may
    /// run out of space all the same. It takes the wish for an empty file only. Best effort: the file serves
    /// without.
    fn avoid_copy_on_write(&self) {
        /// `BTRFS_SUPER_MAGIC`.
        const BTRFS: FsWord = 0x9123_683e;

        let is_empty = fstat(&self.descriptor).is_ok_and(|stat| stat.st_size == 0);
        if is_empty
            && fstatfs(&self.descriptor).is_ok_and(|system| system.f_type == BTRFS)
            && let Ok(flags) = ioctl_getflags(&self.descriptor)
        {
            let _ = ioctl_setflags(&self.descriptor, flags | IFlags::NOCOW);
        }
    }

    /// One call that leaves zeros in blocks that count as written; `false` where the file system has none.
    fn write_zeroes(&self, at: u64, len: u64) -> Result<bool> {
        /// `FALLOC_FL_WRITE_ZEROES`, since Linux 6.17.
        const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

        if self.refuses_write_zeroes.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match uninterrupted(|| fallocate(&self.descriptor, WRITE_ZEROES, at, len)) {
            Ok(()) => Ok(true),
            Err(errno) if is_refusal(errno) => {
                self.refuses_write_zeroes.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(errno) => Err(self.error("fallocate", errno).at(at)),
        }
    }
}

impl fmt::Debug for OsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OsFile({}, {})", self.raw(), self.path.display())
    }
}

impl File {
    /// The file of the operating system behind it.
    ///
    /// # Panics
    /// Where it is another disk's file: two disks were mixed up, which is a mistake of ours.
    pub(crate) fn os(&self) -> &OsFile {
        match &self.0 {
            FileKind::Os(file) => file,
            #[cfg(feature = "sim")]
            FileKind::Sim(file) => panic!("{} is a file of the simulated disk", file.path().display()),
        }
    }
}

/// The operating system's file systems. It has no state of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<File> {
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
        let with = |extra| uninterrupted(|| open(path, flags | extra, Mode::from_raw_mode(mode)));
        let opened = if options.direct { with(OFlags::DIRECT) } else { Err(Errno::INVAL) };
        let (opened, direct) = match opened {
            // Not asked for, or refused: the page cache it is.
            Err(Errno::INVAL) => (with(OFlags::empty()), false),
            opened => (opened, true),
        };
        let failed = |syscall| move |errno: Errno| Error::new(syscall, path, errno.raw_os_error());
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
        let direct = direct && is_grain_enough(&descriptor);
        let unwanted = OFlags::NONBLOCK | if direct { OFlags::empty() } else { OFlags::DIRECT };
        let flags = fcntl_getfl(&descriptor).map_err(failed("fcntl"))?;
        fcntl_setfl(&descriptor, flags - unwanted).map_err(failed("fcntl"))?;
        Ok(File(FileKind::Os(Arc::new(OsFile::new(descriptor, path.to_owned(), direct)))))
    }

    fn len(&self, file: &File) -> Result<u64> {
        let file = file.os();
        let stat = fstat(&file.descriptor).map_err(|errno| file.error("fstat", errno))?;
        Ok(u64::try_from(stat.st_size).expect("a file's length is not negative"))
    }

    fn set_len(&self, file: &File, len: u64) -> Result<()> {
        let file = file.os();
        uninterrupted(|| ftruncate(&file.descriptor, len))
            .map_err(|errno| file.error("ftruncate", errno).at(len))
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
        let file = file.os();
        let grain = GRAIN as u64;
        let aligned = into.as_ptr().addr().is_multiple_of(GRAIN)
            && at.is_multiple_of(grain)
            && into.len().is_multiple_of(GRAIN);
        if file.direct && !aligned { file.read_bounced(at, into) } else { file.read_aligned(at, into) }
    }

    fn read_cached(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
        file.os().read_cached(at, into)
    }

    fn write_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()> {
        file.os().write_all(at, bytes)
    }

    fn write_uncached_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()> {
        file.os().write_uncached(at, bytes)
    }

    fn sync(&self, file: &File) -> Result<()> {
        file.os().flush()
    }

    fn allocate(&self, file: &File, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        file.os().avoid_copy_on_write();
        match uninterrupted(|| fallocate(&file.os().descriptor, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            Err(errno) if is_refusal(errno) => {
                // Only ever extend: what is longer already holds somebody's bytes.
                if self.len(file)? < len { self.set_len(file, len) } else { Ok(()) }
            }
            Err(errno) => Err(file.os().error("fallocate", errno)),
        }
    }

    fn zero(&self, file: &File, at: u64, len: u64) -> Result<()> {
        let grain = GRAIN as u64;
        assert!(
            at.is_multiple_of(grain) && len.is_multiple_of(grain),
            "zeros from {at}, {len} bytes of them"
        );
        let file = file.os();
        if len == 0 || file.write_zeroes(at, len)? {
            return Ok(());
        }
        let zeros = Buffer::zeroed(CHUNK.min(len as usize));
        let mut done = 0;
        while done < len {
            let count = (len - done).min(CHUNK as u64);
            file.write_all(at + done, &zeros[..count as usize])?;
            done += count;
        }
        Ok(())
    }

    fn try_lock(&self, file: &File) -> Result<bool> {
        let file = file.os();
        match uninterrupted(|| flock(&file.descriptor, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(file.error("flock", errno)),
        }
    }

    fn is_linked(&self, file: &File, path: &Path) -> Result<bool> {
        let file = file.os();
        let held = fstat(&file.descriptor).map_err(|errno| file.error("fstat", errno))?;
        // `lstat`, as opening never follows a link: a link to the file would not be the file's name.
        match lstat(path) {
            Ok(named) => Ok(held.st_nlink > 0 && (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::new("lstat", path, errno.raw_os_error())),
        }
    }

    fn has_cheap_dsync(&self, file: &File) -> bool {
        let file = file.os();
        let Ok(stat) = fstat(&file.descriptor) else { return false };
        match Cache::of_device(stat.st_dev) {
            Cache::None => true,
            // The kernel forces unit access for direct writes only; others it follows by a flush all the same.
            Cache::ForcedUnitAccess => file.direct,
            Cache::Volatile => false,
        }
    }

    fn stat(&self, path: &Path) -> Result<Option<EntryKind>> {
        match lstat(path) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Directory,
                _ => EntryKind::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::new("lstat", path, errno.raw_os_error())),
        }
    }

    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        let failed = |syscall| move |error| Error::of_std(syscall, directory, &error);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed("opendir"))? {
            let entry = entry.map_err(failed("readdir"))?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Directory,
                Ok(_) => EntryKind::Other,
                // Where the directory does not tell the type it is asked for by name, which may be gone by now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::of_std("lstat", entry.path(), &error)),
            };
            entries.push(Entry { name: entry.file_name(), kind });
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> Result<()> {
        mkdir(path, Mode::from_raw_mode(mode))
            .map_err(|errno| Error::new("mkdir", path, errno.raw_os_error()))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        rename(from, to).map_err(|errno| {
            Error::new("rename", from, errno.raw_os_error()).hint(format!("to {}", to.display()))
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        unlink(path).map_err(|errno| Error::new("unlink", path, errno.raw_os_error()))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        rmdir(path).map_err(|errno| Error::new("rmdir", path, errno.raw_os_error()))
    }

    fn sync_all(&self, directory: &Path) -> Result<()> {
        on_directory(directory, "syncfs", syncfs)
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        on_directory(directory, "fsync", fsync)
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // Up to 256 bytes come whole once the kernel's pool is ready, and until then the call waits.
        match uninterrupted(|| rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())) {
            Ok(16) => bytes,
            _ => random_of_device(),
        }
    }

    fn wall_clock(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_micros() as u64
    }

    fn now(&self) -> Time {
        now()
    }

    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// The monotonic clock of [`Fs::now`] and [`crate::Driver::now`].
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Time(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
}

/// Random bytes where `getrandom` is not to be had: a seccomp filter may forbid it.
///
/// # Panics
/// Where there is no such device either.
fn random_of_device() -> [u8; 16] {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut device| device.read_exact(&mut bytes));
    if let Err(error) = read {
        panic!("no random numbers on this machine: getrandom is refused, and /dev/urandom: {error}");
    }
    bytes
}

/// Open a directory and do one call on it.
fn on_directory(
    directory: &Path,
    syscall: &'static str,
    call: impl FnOnce(OwnedFd) -> rustix::io::Result<()>,
) -> Result<()> {
    let failed = |syscall| move |errno: Errno| Error::new(syscall, directory, errno.raw_os_error());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = uninterrupted(|| open(directory, flags, Mode::empty())).map_err(failed("open"))?;
    call(descriptor).map_err(failed(syscall))
}

/// Do `call` again as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The cold side of this system's disk.
pub fn file_system() -> Arc<dyn Fs> {
    Arc::new(OsFs)
}

// What only Linux has.

/// The disk of this system: plain calls for what is cold, `io_uring` through the `tokio-uring` crate for what
/// is hot.
#[cfg(target_os = "linux")]
pub fn disk() -> crate::Disk {
    let fs = file_system();
    let jobs = Arc::clone(&fs);
    crate::Disk {
        fs,
        driver: Box::new(move || Ok(Box::new(crate::tokio_ring::TokioRing::new(jobs)?))),
        backend: crate::Backend::IoUring,
    }
}

/// The disk of this system for a service whose callers submit on their own threads: our own loop on `io_uring`.
#[cfg(target_os = "linux")]
pub fn shared_disk() -> crate::SharedDisk {
    let fs = file_system();
    let jobs = Arc::clone(&fs);
    crate::SharedDisk {
        fs,
        engine: Box::new(move |options, on_done| {
            Ok(Box::new(crate::ring::Ring::new(jobs, options, on_done)?))
        }),
        backend: crate::Backend::IoUring,
    }
}

/// Whether `errno` says that the file system has no such `fallocate`, rather than that it failed.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

/// Whether writes aligned to [`GRAIN`] are aligned enough for this descriptor's `O_DIRECT`. Kernels before
/// 6.1, and file systems that do not tell, took the flag at open: believed.
fn is_grain_enough(descriptor: impl AsFd) -> bool {
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

    #[test]
    fn a_device_that_nothing_is_known_about_counts_as_one_with_a_volatile_cache() {
        // What file systems in memory and over several devices report: a number without a device.
        assert_eq!(Cache::of_device(0), Cache::Volatile);
    }

    #[test]
    fn the_device_gives_random_bytes_where_the_call_does_not() {
        assert_ne!(random_of_device(), random_of_device());
    }

    #[test]
    fn a_wish_that_was_refused_is_remembered_and_the_bytes_are_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsFs.open(&dir.path().join("file"), OpenOptions::replace(0o600)).unwrap();
        file.os().refuses_uncached.store(true, Ordering::Relaxed);
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
            file.os().refuses_write_zeroes.store(true, Ordering::Relaxed);
            OsFs.write_at(&file, 0, &Buffer::copy_of(&[1; 4 * GRAIN])).unwrap();
            OsFs.zero(&file, GRAIN as u64, (2 << 20) + GRAIN as u64).unwrap();
            assert_eq!(OsFs.len(&file), Ok((2 << 20) + 2 * GRAIN as u64));
            let mut bytes = vec![2; 5 * GRAIN];
            OsFs.read_at(&file, 0, &mut bytes).unwrap();
            assert!(bytes[..GRAIN] == [1; GRAIN] && bytes[GRAIN..] == [0; 4 * GRAIN]);
        }
    }
}
