//! What goes wrong on purpose: calls that fail, and a waist that lies.

use std::ops::Range;

use crate::errno::Errno;

/// Which call a [`Fault`] strikes, wherever it comes from: the driver, a job, recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `Fs::open`.
    Open,
    /// `Fs::len`.
    Len,
    /// `Fs::set_len`.
    SetLen,
    /// `Op::Read`, `Fs::read_at`, `Fs::read_cached`.
    Read,
    /// `Op::Write`, `Fs::write_at`.
    Write,
    /// `Op::Sync`, `Fs::sync`.
    Sync,
    /// `Fs::allocate`.
    Allocate,
    /// `Fs::zero`.
    Zero,
    /// `Fs::try_lock`.
    Lock,
    /// `Fs::stat`, `Fs::is_linked`.
    Stat,
    /// `Fs::list`.
    List,
    /// `Fs::create_dir`.
    CreateDir,
    /// `Fs::rename`; the name is the old one.
    Rename,
    /// `Fs::remove`.
    Remove,
    /// `Fs::remove_dir`.
    RemoveDir,
    /// `Fs::sync_dir`; the name is the directory's.
    SyncDir,
    /// `Fs::sync_all`; the name is the directory's.
    SyncAll,
}

/// A call that fails: by default the next one of its kind, once, with `EIO`.
///
/// ```
/// use ringbolt_disk::sim::{Call, Fault, Sim};
///
/// let sim = Sim::new(7);
/// // The second flush of a segment, and every later one, answers EIO.
/// sim.fail(Fault::new(Call::Sync).named(".seg").skip(1).forever());
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    call: Call,
    kind: Kind,
    name: String,
    bytes: Option<Range<u64>>,
    skip: u64,
    times: u64,
}

/// What a fault does to the call it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It fails.
    Fail(Errno),
    /// It writes the beginning only.
    ShortWrite,
}

impl Fault {
    /// The next `call` fails with `EIO`.
    pub fn new(call: Call) -> Self {
        Self { call, kind: Kind::Fail(Errno::IO), name: String::new(), bytes: None, skip: 0, times: 1 }
    }

    /// The next write is short: it writes some of its sectors, from the first on. The driver goes on with
    /// the rest, unless [`Lie::IgnoreShortWrite`] is told.
    pub fn short_write() -> Self {
        Self { kind: Kind::ShortWrite, ..Self::new(Call::Write) }
    }

    /// Only where the file's name, as it is at that time and without its directory, contains `part`.
    #[must_use]
    pub fn named(mut self, part: impl Into<String>) -> Self {
        self.name = part.into();
        self
    }

    /// Only reads and writes that touch these bytes of the file.
    #[must_use]
    pub fn bytes(mut self, bytes: Range<u64>) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Let the first `count` of the calls that match pass.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Strike `count` times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// Strike until [`Sim::clear_faults`](super::Sim::clear_faults).
    #[must_use]
    pub fn forever(self) -> Self {
        self.times(u64::MAX)
    }

    /// Fail with `errno`, a positive number.
    #[must_use]
    pub fn errno(mut self, errno: i32) -> Self {
        self.kind = Kind::Fail(Errno::from_raw_os_error(errno));
        self
    }

    fn matches(&self, call: Call, name: &str, bytes: Option<&Range<u64>>) -> bool {
        let touches = match (&self.bytes, bytes) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => ours.start < theirs.end && theirs.start < ours.end,
        };
        self.call == call && name.contains(&self.name) && touches
    }
}

/// The faults that wait for their call, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that strikes this call. Every fault that matches counts the call, the oldest one due wins.
    pub(super) fn strike(&mut self, call: Call, name: &str, bytes: Option<&Range<u64>>) -> Option<Kind> {
        let mut struck = None;
        for fault in self.0.iter_mut().filter(|fault| fault.matches(call, name, bytes)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if struck.is_none() && fault.times > 0 {
                fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times - 1 };
                struck = Some(fault.kind);
            }
        }
        self.0.retain(|fault| fault.times > 0);
        struck
    }
}

/// A bug planted below the waist. A test that is worth its name catches each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// `sync_dir` says yes and does nothing.
    SkipDirectorySync,
    /// A short write counts as whole (needs [`Fault::short_write`]).
    IgnoreShortWrite,
    /// A flush, of the driver's or of `Fs`, says yes and does nothing. Durable writes stay honest.
    SkipSync,
    /// The driver completes a write before it was executed.
    DoneBeforeWrite,
    /// `try_lock` on a `.seg` says yes and takes nothing.
    NoSegmentLocks,
}
