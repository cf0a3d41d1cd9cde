//! The lowest floor: every system call, errno, descriptor and raw pointer of ringbolt is in this crate,
//! and all of its `unsafe` code. Nothing here knows a record, a blob or a promise.
//!
//! # The waist
//!
//! What the floors above see is small and has no `async` in it:
//!
//! ```text
//!             hot: values go down, values come back          cold: plain blocking calls
//!
//!   core ──── Op ────▶ ┌────────────┐                  core ──── open, rename, sync_dir … ────▶ ┌────┐
//!                      │   Driver   │                                                           │ Fs │
//!   core ◀─── Done ─── └────────────┘                  core ◀─────────── Result ─────────────── └────┘
//!                       one thread                                     any thread
//! ```
//!
//! * A [`Driver`] lives on its service's thread. [`Driver::submit`] hands it an [`Op`]; [`Driver::wait`]
//!   sleeps until there is a [`Done`], a wake from another thread or a deadline.
//! * An [`Fs`] is shared by everyone and blocks. Recovery, readers and the jobs of the helper thread use it.
//!
//! # The owned-buffer rule
//!
//! An operation *moves* its [`Buffer`] and its [`File`] into the driver. The driver keeps both until the
//! kernel's last completion for that operation, whatever happens to the caller, and only then returns the
//! buffer with the [`Done`]. So there is no pointer that anybody else could free under the kernel.
//!
//! # The map of the room
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@ahead`] | a read that is begun before anybody needs it |
//! | [`mod@buffer`] | aligned, owned, recycled memory; the only memory the kernel sees |
//! | [`mod@error`] | operation, path, errno |
//! | [`mod@errno`] | what the number means, on each system |
//! | [`mod@os`] | [`Fs`] over the operating system, each in its own way |
//! | [`mod@tokio_ring`] | the log's driver on Linux: the `tokio-uring` crate |
//! | [`mod@engine`] | the hot side for callers on many threads, and a [`Driver`] made of it |
//! | [`mod@ring`] | the blob store's engine on Linux: our own loop on the `io-uring` crate |
//! | [`mod@probe`] | may we use `io_uring` here? a reason, not a bool; and what is used then |
//! | [`mod@pool`] | the engine and the driver of both where there is no `io_uring`: a small pool of threads |
//! | [`mod@sim`] | a disk in memory, from a seed: torn, lost, reordered, failing (feature `sim`, tests only) |

pub mod ahead;
pub mod buffer;
pub mod engine;
pub mod errno;
pub mod error;
mod job;
pub mod os;
pub mod pool;
pub mod probe;
#[cfg(all(target_os = "linux", feature = "ring"))]
pub mod ring;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(all(target_os = "linux", feature = "ring", not(target_env = "musl")))]
pub mod tokio_ring;
mod transfer;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use ahead::ReadAhead;
pub use buffer::{Buffer, Pool};
pub use engine::{Engine, EngineOptions, OnDone, SharedDisk};
pub use errno::Errno;
pub use error::{Error, Result};
pub use os::file_system;
pub use probe::{Choice, NewDisk, Preference, choose};
#[cfg(all(target_os = "linux", feature = "ring"))]
pub use ring::{disk, shared_disk};

/// Lengths cross between `u64` (on disk) and `usize` (in memory) all the time.
const _: () = assert!(usize::BITS == 64, "ringbolt needs a 64-bit target");

/// The unit of alignment of every direct write: 4096 bytes, the page and the largest sector in use.
pub const GRAIN: usize = 4096;

/// Names an operation between its [`Driver::submit`] and its [`Done`]. The caller chooses it and keeps it
/// unique among the operations in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// A point on a monotonic clock that began at some arbitrary moment; the simulator has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// The time `later` after this one.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Its completion says the bytes are in the file; a later [`Op::Sync`] makes them durable.
    Plain,
    /// Its completion says its own bytes, and nothing else, are durable.
    Dsync,
    /// As [`WriteMode::Dsync`], and nothing else is waiting: a driver may do it at once on the calling
    /// thread, blocking, where that is faster. The `Done` comes from the next `wait` all the same.
    Alone,
}

/// Work for the helper thread: blocking calls in straight-line code. Jobs of one driver run one after
/// another, in the order of their submission; those of an engine begin in that order. What it opens travels back in its [`Done`]. One that panics fails
/// with `EIO`, and those behind it go on.
pub type Job = Box<dyn FnOnce(&dyn Fs) -> Result<Option<File>> + Send>;

/// An operation: a value that owns everything the kernel will look at.
pub enum Op {
    /// Fill `buffer` up to its length from offset `at`. Fewer bytes come only at the end of the file.
    Read {
        /// Where from.
        file: File,
        /// Offset in bytes; a multiple of [`GRAIN`] where [`File::is_direct`].
        at: u64,
        /// Its length says how many bytes to read; it is a multiple of [`GRAIN`] where [`File::is_direct`].
        buffer: Buffer,
    },
    /// Write all of `buffer` at offset `at`. A short write is finished by the driver, or fails.
    Write {
        /// Where to.
        file: File,
        /// Offset in bytes; a multiple of [`GRAIN`] where [`File::is_direct`].
        at: u64,
        /// What; its length is a multiple of [`GRAIN`] where [`File::is_direct`].
        buffer: Buffer,
        /// What its completion proves.
        mode: WriteMode,
    },
    /// Flush the file's data: what was complete before this was *submitted* is durable once it succeeds.
    Sync {
        /// Which file.
        file: File,
    },
    /// Run on the helper thread.
    Job(Job),
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, at, buffer } => {
                write!(f, "Read({}, {at}, {})", file.path().display(), buffer.len())
            }
            Self::Write { file, at, buffer, mode } => {
                write!(f, "Write({}, {at}, {}, {mode:?})", file.path().display(), buffer.len())
            }
            Self::Sync { file } => write!(f, "Sync({})", file.path().display()),
            Self::Job(_) => f.write_str("Job"),
        }
    }
}

/// What an operation that succeeded did.
#[derive(Debug)]
pub enum Outcome {
    /// So many bytes were read; fewer than asked for only at the end of the file.
    Read(usize),
    /// Every byte was written.
    Written,
    /// The file was flushed.
    Synced,
    /// The job ran; this is what it opened, if anything.
    Job(Option<File>),
}

/// The end of an operation: exactly one for each [`Driver::submit`].
#[derive(Debug)]
pub struct Done {
    /// The operation's name.
    pub token: Token,
    /// What it did, or why it could not.
    pub outcome: Result<Outcome>,
    /// The operation's buffer, back from the kernel, to be read or recycled.
    pub buffer: Option<Buffer>,
}

/// The hot side of the waist. It belongs to one thread, is not `Send`, and is built where it is used.
///
/// Dropping it completes all that was submitted, queued jobs too, and blocks until then. Nobody hears of it, but
/// what was to be written is written, and files are let go of only then.
pub trait Driver {
    /// Take over an operation. Never fails and, but for [`WriteMode::Alone`], never blocks: whatever goes
    /// wrong comes back as a [`Done`].
    fn submit(&mut self, token: Token, op: Op);

    /// Sleep until there is a completion, a wake, or the deadline, and append what is done to `out`.
    /// Wakes that came since the last `wait` count: none is lost. May return with nothing.
    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>);

    /// Ends a `wait` from any thread.
    fn waker(&self) -> Waker;

    /// The clock that deadlines are measured by.
    fn now(&self) -> Time;
}

/// Ends its driver's [`Driver::wait`], from any thread, also ahead of time. Cheap when nobody sleeps.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wake the driver's thread.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// An open file: one open file description of the system, shared by its clones and by the operations in
/// flight on it. It is closed, and its lock released, when the last of them is gone.
#[derive(Clone)]
pub struct File(FileKind);

#[derive(Clone)]
enum FileKind {
    Os(Arc<os::OsFile>),
    #[cfg(feature = "sim")]
    Sim(Arc<sim::SimFile>),
}

impl File {
    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        match &self.0 {
            FileKind::Os(file) => file.path(),
            #[cfg(feature = "sim")]
            FileKind::Sim(file) => file.path(),
        }
    }

    /// Whether it bypasses the page cache: then writes, and reads by a driver, must be aligned to [`GRAIN`].
    pub fn is_direct(&self) -> bool {
        match &self.0 {
            FileKind::Os(file) => file.is_direct(),
            #[cfg(feature = "sim")]
            FileKind::Sim(file) => file.is_direct(),
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.path().display())
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Whether opening may, or must, make the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// It must exist.
    Never,
    /// It is made, with these permission bits (less the umask), if it is missing.
    IfMissing(u32),
    /// As `IfMissing`, and an existing file is cut to length 0.
    Truncate(u32),
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// For what.
    pub access: Access,
    /// Whether to make it.
    pub create: Create,
    /// Bypass the page cache where the file system takes it; [`File::is_direct`] tells what was had.
    pub direct: bool,
}

impl OpenOptions {
    /// An existing file, to be read.
    pub const READ: Self = Self { access: Access::Read, create: Create::Never, direct: false };

    /// An existing file, to be read and written through the page cache.
    pub const WRITE: Self = Self { access: Access::ReadWrite, create: Create::Never, direct: false };

    /// A file to be written from its beginning, made with `mode` where it is missing.
    pub const fn replace(mode: u32) -> Self {
        Self { access: Access::ReadWrite, create: Create::Truncate(mode), direct: false }
    }

    /// The same, past the page cache where that can be had and `direct` says so.
    #[must_use]
    pub const fn with_direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }
}

/// What kind of thing a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link or a special file.
    Other,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the directory.
    pub name: OsString,
    /// What it is.
    pub kind: EntryKind,
}

/// The cold side of the waist: blocking calls, for any thread. An error names the call, the path and the
/// errno ([`Error`]).
pub trait Fs: Send + Sync {
    /// Open a file, as `options` says. Never follows a symbolic link in the last component.
    ///
    /// # Errors
    /// What `open` answers; `EISDIR` for a directory, also where it is only to be read. `O_DIRECT` refused by the file system is no error: the file is not direct then.
    fn open(&self, path: &Path, options: OpenOptions) -> Result<File>;

    /// The length of an open file in bytes.
    ///
    /// # Errors
    /// What `fstat` answers.
    fn len(&self, file: &File) -> Result<u64>;

    /// Cut or extend a file (with zeros) to `len` bytes.
    ///
    /// # Errors
    /// What `ftruncate` answers.
    fn set_len(&self, file: &File, len: u64) -> Result<()>;

    /// Read into `into` from `at`; fewer bytes come only at the end of the file. Any offset and length,
    /// on direct files too.
    ///
    /// # Errors
    /// What `pread` answers.
    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize>;

    /// Begin to read what [`Fs::read_at`] would, into `buffer` from its byte `skip` on, and return meanwhile. For much at once:
    /// to begin costs the start of a thread. A disk that has no such way reads when it is waited for.
    fn read_ahead(&self, file: &File, at: u64, buffer: Buffer, skip: usize) -> ReadAhead {
        ReadAhead::later(file, at, buffer, skip)
    }

    /// Read into `into` from `at` what can be had without waiting for a disk: what the page cache holds of it, from
    /// `at` on without a gap. It may be nothing at all, also of a file that does not end there. Not for direct files.
    ///
    /// # Errors
    /// What `preadv2` answers, but for `EAGAIN` and for what says that the file system has no such read: nothing
    /// can be had then.
    fn read_cached(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize>;

    /// Write all of `bytes` at `at`. On direct files the offset, the length and the memory must be aligned to
    /// [`GRAIN`], which is why this takes a [`Buffer`]. A short write is finished, or fails.
    ///
    /// # Errors
    /// What `pwrite` answers; `EIO` where it wrote nothing.
    fn write_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()>;

    /// The same, and a wish: the page cache need not keep what was written. Not for direct files.
    ///
    /// # Errors
    /// As [`Fs::write_at`].
    fn write_uncached_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()>;

    /// Flush the file's data and what is needed to read it back (`fdatasync`).
    ///
    /// # Errors
    /// What `fdatasync` answers. The data may then be lost for good: do not retry.
    fn sync(&self, file: &File) -> Result<()>;

    /// Reserve blocks for the first `len` bytes and extend the file to them, so that writing there cannot run
    /// out of space. Where the file system cannot reserve, it extends only. An empty file is set to be written
    /// in place where the file system would copy on write, and run out in spite of the reservation.
    ///
    /// # Errors
    /// What `fallocate` answers, above all `ENOSPC`.
    fn allocate(&self, file: &File, len: u64) -> Result<()>;

    /// Make `len` bytes from `at` read as zeros, in blocks that count as written. Not durable by itself.
    /// Offset and length are multiples of [`GRAIN`].
    ///
    /// # Errors
    /// What `fallocate` or `pwrite` answers.
    fn zero(&self, file: &File, at: u64, len: u64) -> Result<()>;

    /// Try to take the exclusive lock of this open file description: `false` where another one has it. It keeps nobody
    /// from reading and writing.
    ///
    /// # Errors
    /// What `flock` answers but for `EWOULDBLOCK`.
    fn try_lock(&self, file: &File) -> Result<bool>;

    /// Have `other`, the same file opened once more, hold the lock that `file` holds: who tries for it gets it when both are
    /// gone, with their last operations. `false` where that is not to be had; `file` keeps its lock then, unless somebody else
    /// tried for it at this very moment, so somebody of another lock that comes before this one must be kept out.
    ///
    /// # Errors
    /// What `flock` answers but for `EWOULDBLOCK`.
    fn share_lock(&self, file: &File, other: &File) -> Result<bool>;

    /// Up to where the bytes of a file were written, as far as the file system tells: from there on there may be holes, which
    /// take room and a change of the file's map to be written to. 0 where nothing is known.
    ///
    /// # Errors
    /// What `lseek` answers, but for what says that it does not tell.
    fn written_len(&self, file: &File) -> Result<u64>;

    /// Whether the open file is still what `path`, the one it was opened by or renamed to, leads to.
    ///
    /// # Errors
    /// What `fstat` or `stat` answers, but for a missing name.
    fn is_linked(&self, file: &File, path: &Path) -> Result<bool>;

    /// Whether a durable write of this file costs no flush of a volatile cache: the device has forced unit
    /// access, or no volatile cache. `false` where that is not known.
    fn has_cheap_dsync(&self, file: &File) -> bool;

    /// What `path` is, or `None` where there is nothing. Does not follow a symbolic link.
    ///
    /// # Errors
    /// What `lstat` answers but for `ENOENT`.
    fn stat(&self, path: &Path) -> Result<Option<EntryKind>>;

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// What `opendir` and `readdir` answer.
    fn list(&self, directory: &Path) -> Result<Vec<Entry>>;

    /// Make a directory with these permission bits (less the umask). Not durable by itself.
    ///
    /// # Errors
    /// What `mkdir` answers, `EEXIST` too.
    fn create_dir(&self, path: &Path, mode: u32) -> Result<()>;

    /// Rename a file over whatever has the new name. Not durable by itself.
    ///
    /// # Errors
    /// What `rename` answers.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Remove a file's name. Not durable by itself.
    ///
    /// # Errors
    /// What `unlink` answers.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Remove an empty directory. Not durable by itself.
    ///
    /// # Errors
    /// What `rmdir` answers.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// Make all that was done below `directory`, by anybody and before this call, durable: the data of files and the
    /// names. Takes as long as there is to write. On Linux that is the whole file system's (`syncfs`); elsewhere each
    /// file below is flushed by itself, so that it also takes as long as there are files.
    ///
    /// # Errors
    /// What `open` and `syncfs` answer, elsewhere what listing and flushing do. Also that some earlier write was lost,
    /// where the system tells: on Linux of any write to this file system, once; elsewhere a file that was not open
    /// meanwhile may have forgotten.
    fn sync_all(&self, directory: &Path) -> Result<()>;

    /// Make the names in a directory durable: what was made, renamed and removed in it before this call. Windows has no
    /// call that promises it, and this does what it can there: see `docs/DURABILITY.md`.
    ///
    /// # Errors
    /// What `open` and `fsync` answer.
    fn sync_dir(&self, directory: &Path) -> Result<()>;

    /// Sixteen random bytes.
    fn random(&self) -> [u8; 16];

    /// Microseconds since 1970, for people to read.
    fn wall_clock(&self) -> u64;

    /// The same monotonic clock that [`Driver::now`] reads.
    fn now(&self) -> Time;

    /// Sleep, as between two attempts at a lock.
    fn sleep(&self, pause: Duration);

    /// The number of this process, as a lock file tells it.
    fn pid(&self) -> u32;
}

/// What runs a service's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Linux's `io_uring`.
    IoUring,
    /// Positioned reads and writes on a pool of threads.
    Threads,
    /// The simulator; tests only.
    #[cfg(feature = "sim")]
    Sim,
}

impl Backend {
    /// The name users know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
            #[cfg(feature = "sim")]
            Self::Sim => "sim",
        }
    }
}

/// Everything a service needs of a disk: the shared cold side, and how to build the hot side on the
/// service's own thread.
pub struct Disk {
    /// The cold side.
    pub fs: Arc<dyn Fs>,
    /// Builds the hot side; called once, on the thread that will use it.
    pub driver: Box<dyn FnOnce() -> Result<Box<dyn Driver>> + Send>,
    /// What it is.
    pub backend: Backend,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({})", self.backend.name())
    }
}
