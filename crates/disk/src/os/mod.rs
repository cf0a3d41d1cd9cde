//! [`Fs`] over the operating system: plain blocking calls.
//!
//! What every system has is here, over the standard library. What each has its own way of doing is in its own module,
//! under the same names and in the same order, and is called `system` here:
//!
//! | module | opening, durability, space, locks of |
//! | --- | --- |
//! | `linux` | Linux: `O_DIRECT`, `pwritev2`, `fallocate`, the device's write cache in sysfs |
//! | `apple` | macOS: `F_FULLFSYNC`, `F_PREALLOCATE` |
//! | `windows` | Windows: `FlushFileBuffers`, directories that cannot always be flushed, locks that are mandatory |
//! | `unix` | what Linux and macOS have in common |

use std::fmt;
use std::fs::FileType;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "macos")]
use self::apple as system;
#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(windows)]
use self::windows as system;
use crate::transfer::{Transfer, is_in_range};
use crate::{
    Buffer, Entry, EntryKind, Errno, Error, File, FileKind, Fs, GRAIN, OpenOptions, ReadAhead, Result, Time,
};

#[cfg(target_os = "macos")]
mod apple;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("ringbolt is built for Linux, macOS and Windows");

/// The most that one bounce buffer or one write of zeros holds.
const CHUNK: usize = 1 << 20;
const _: () = assert!(CHUNK.is_multiple_of(GRAIN));

/// What files are zeroed with. Kept: new memory each time costs more, page by page, than all else of a write of zeros.
static ZEROS: LazyLock<Buffer> = LazyLock::new(|| Buffer::zeroed(CHUNK));

/// An open file of the operating system, and what was learnt about it.
pub struct OsFile {
    file: std::fs::File,
    path: PathBuf,
    /// Whether it bypasses the page cache. Settled when it is opened.
    direct: bool,
    #[cfg_attr(target_os = "macos", expect(dead_code, reason = "there is nothing to learn there"))]
    learnt: system::Learnt,
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

    /// With nothing learnt about it yet.
    fn new(file: std::fs::File, path: PathBuf, direct: bool) -> Self {
        Self { file, path, direct, learnt: system::Learnt::default() }
    }

    /// `syscall` on this file failed with `errno`.
    pub(crate) fn error(&self, syscall: &'static str, errno: impl Into<Errno>) -> Error {
        Error::new(syscall, &self.path, errno)
    }

    /// `EINVAL` where some of `len` bytes from `at` have no offset that the kernel can name.
    pub(crate) fn check_range(&self, syscall: &'static str, at: u64, len: usize) -> Result<()> {
        if is_in_range(at, len as u64) { Ok(()) } else { Err(self.error(syscall, Errno::INVAL).at(at)) }
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|error| self.error("fstat", &error))?.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| self.error("ftruncate", &error).at(len))
    }

    /// Extend it to `len` bytes. What is longer already holds somebody's bytes, and stays.
    fn extend(&self, len: u64) -> Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    /// Fill `into` from `at`, up to the end of the file. On direct files `into` is aligned memory and `at` and
    /// the length are whole grains.
    fn read_aligned(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        self.check_range("pread", at, into.len())?;
        let mut transfer = Transfer::new(into.len(), self.direct);
        while let Some(piece) = transfer.next() {
            let (start, from) = (piece.start, at + piece.start as u64);
            let count = uninterrupted(|| system::read(&self.file, &mut into[piece.clone()], from))
                .map_err(|error| self.error("pread", &error).at(from))?;
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

    /// Write all of `bytes` at `at`.
    fn write_all(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.write_pieces("pwrite", at, bytes, |piece, from| system::write(&self.file, piece, from))
    }

    /// Write all of `bytes` at `at` by `write`, which may do less at a time.
    fn write_pieces(
        &self,
        syscall: &'static str,
        at: u64,
        bytes: &[u8],
        mut write: impl FnMut(&[u8], u64) -> std::io::Result<usize>,
    ) -> Result<()> {
        self.check_range(syscall, at, bytes.len())?;
        let mut transfer = Transfer::new(bytes.len(), self.direct);
        while let Some(piece) = transfer.next() {
            let (start, from) = (piece.start, at + piece.start as u64);
            let count = uninterrupted(|| write(&bytes[piece.clone()], from))
                .map_err(|error| self.error(syscall, &error).at(from))?;
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

    /// Write all of `bytes` at `at`; on return these bytes are durable. One call on the calling thread where the system
    /// has one for it.
    pub(crate) fn write_durably(&self, at: u64, bytes: &[u8]) -> Result<()> {
        system::write_durably(self, at, bytes)
    }
}

impl fmt::Debug for OsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OsFile({})", self.path.display())
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
        let (file, direct) = system::open(path, options)?;
        Ok(File(FileKind::Os(Arc::new(OsFile::new(file, path.to_owned(), direct)))))
    }

    fn len(&self, file: &File) -> Result<u64> {
        file.os().len()
    }

    fn set_len(&self, file: &File, len: u64) -> Result<()> {
        file.os().set_len(len)
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
        let file = file.os();
        let grain = GRAIN as u64;
        let aligned = into.as_ptr().addr().is_multiple_of(GRAIN)
            && at.is_multiple_of(grain)
            && into.len().is_multiple_of(GRAIN);
        if file.direct && !aligned { file.read_bounced(at, into) } else { file.read_aligned(at, into) }
    }

    fn read_ahead(&self, file: &File, at: u64, buffer: Buffer, skip: usize) -> ReadAhead {
        ReadAhead::begun(*self, file, at, buffer, skip)
    }

    fn read_cached(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
        file.os().check_range("preadv2", at, into.len())?;
        system::read_cached(file.os(), at, into)
    }

    fn write_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()> {
        file.os().write_all(at, bytes)
    }

    fn write_uncached_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()> {
        system::write_uncached(file.os(), at, bytes)
    }

    fn sync(&self, file: &File) -> Result<()> {
        system::flush(file.os())
    }

    fn allocate(&self, file: &File, len: u64) -> Result<()> {
        if len == 0 { Ok(()) } else { system::reserve(file.os(), len) }
    }

    fn zero(&self, file: &File, at: u64, len: u64) -> Result<()> {
        let grain = GRAIN as u64;
        assert!(
            at.is_multiple_of(grain) && len.is_multiple_of(grain),
            "zeros from {at}, {len} bytes of them"
        );
        let file = file.os();
        if len == 0 || system::write_zeroes(file, at, len)? {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let count = (len - done).min(CHUNK as u64);
            file.write_all(at + done, &ZEROS[..count as usize])?;
            done += count;
        }
        Ok(())
    }

    fn try_lock(&self, file: &File) -> Result<bool> {
        system::try_lock(file.os())
    }

    fn share_lock(&self, file: &File, other: &File) -> Result<bool> {
        system::share_lock(file.os(), other.os())
    }

    fn written_len(&self, file: &File) -> Result<u64> {
        system::written_len(file.os())
    }

    fn is_linked(&self, file: &File, path: &Path) -> Result<bool> {
        system::is_linked(file.os(), path)
    }

    fn has_cheap_dsync(&self, file: &File) -> bool {
        system::has_cheap_dsync(file.os())
    }

    fn stat(&self, path: &Path) -> Result<Option<EntryKind>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(kind(metadata.file_type()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::of_std("lstat", path, &error)),
        }
    }

    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        let failed = |syscall| move |error| Error::of_std(syscall, directory, &error);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed("opendir"))? {
            let entry = entry.map_err(failed("readdir"))?;
            let kind = match entry.file_type() {
                Ok(of) => kind(of),
                // Where the directory does not tell the type it is asked for by name, which may be gone by now.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::of_std("lstat", entry.path(), &error)),
            };
            entries.push(Entry { name: entry.file_name(), kind });
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> Result<()> {
        system::create_dir(path, mode).map_err(|error| Error::of_std("mkdir", path, &error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
            .map_err(|error| Error::of_std("rename", from, &error).hint(format!("to {}", to.display())))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path).map_err(|error| Error::of_std("unlink", path, &error))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        std::fs::remove_dir(path).map_err(|error| Error::of_std("rmdir", path, &error))
    }

    fn sync_all(&self, directory: &Path) -> Result<()> {
        system::sync_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        system::sync_dir(directory)
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        bytes
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

/// The cold side of this system's disk.
pub fn file_system() -> Arc<dyn Fs> {
    Arc::new(OsFs)
}

/// The monotonic clock of [`Fs::now`] and [`crate::Driver::now`].
pub(crate) fn now() -> Time {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    // The first to ask makes the beginning before it looks at the clock.
    let beginning = *BEGINNING;
    Time(beginning.elapsed())
}

fn kind(of: FileType) -> EntryKind {
    if of.is_file() {
        EntryKind::File
    } else if of.is_dir() {
        EntryKind::Directory
    } else {
        EntryKind::Other
    }
}

/// Do `call` again as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What [`Fs::sync_all`] promises, where the system has no call for it: `flush` every file below `directory`, then the
/// names in each directory, and its own last. Links are not followed. What is removed meanwhile needs no flush; what
/// cannot be opened fails it, as nobody can say that it is durable.
#[cfg(any(all(test, feature = "sim"), not(target_os = "linux")))]
fn sync_tree(fs: &dyn Fs, directory: &Path, flush: &dyn Fn(&Path, EntryKind) -> Result<()>) -> Result<()> {
    for Entry { name, kind } in fs.list(directory)? {
        let path = directory.join(name);
        let flushed = match kind {
            EntryKind::File => flush(&path, kind),
            EntryKind::Directory => sync_tree(fs, &path, flush),
            EntryKind::Other => Ok(()),
        };
        match flushed {
            Err(error) if error.is_not_found() => {}
            flushed => flushed?,
        }
    }
    flush(directory, EntryKind::Directory)
}

#[cfg(all(test, feature = "sim"))]
mod tests;
