//! What the floor above holds of a log: a mailbox into its service, and the watermarks that come back.

use std::path::PathBuf;
use std::time::Duration;

use ringbolt_disk::{Backend, Disk};

use crate::Result;

/// How batches become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// What suits the device.
    #[default]
    Auto,
    /// Each write carries its own durability (`RWF_DSYNC`).
    Dsync,
    /// Plain writes, then one `fdatasync` for all that are complete.
    Fdatasync,
}

/// How much of the log open checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// The head of each segment, and every frame from the proven LSN's segment on.
    #[default]
    Tail,
    /// Every frame.
    All,
}

/// How to open a log. The limits are checked by the floor above and asserted here.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the log lives; absolute.
    pub directory: PathBuf,
    /// Make a log where there is none.
    pub create: bool,
    /// Size of segments made from now on, in bytes; a multiple of the grain.
    pub segment_bytes: u64,
    /// Bound on the bytes of records accepted and not yet written.
    pub queue_bytes_max: u64,
    /// How batches become durable.
    pub sync: SyncMode,
    /// Bypass the page cache where the file system takes it.
    pub direct_io: bool,
    /// How long to retry for the locks.
    pub lock_timeout: Duration,
    /// How much open checks.
    pub check: Check,
    /// Records acknowledged as written are durable within this.
    pub sync_interval: Duration,
    /// Permission bits of files; directories get the matching x bits.
    pub file_mode: u32,
}

impl Options {
    /// The defaults, for this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            create: true,
            segment_bytes: 64 << 20,
            queue_bytes_max: 64 << 20,
            sync: SyncMode::Auto,
            direct_io: true,
            lock_timeout: Duration::from_millis(250),
            check: Check::Tail,
            sync_interval: Duration::from_secs(1),
            file_mode: 0o600,
        }
    }
}

/// What open found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records in the log.
    pub records: u64,
    /// Segments in the log.
    pub segments: u64,
    /// Bytes set aside and cut.
    pub torn_bytes: u64,
    /// Where the cut was made.
    pub torn_at: Option<TornAt>,
    /// Whether the last owner closed it, and nothing was torn.
    pub clean_shutdown: bool,
    /// Whether the log was made by this open.
    pub created: bool,
    /// How long it took.
    pub duration: Duration,
}

/// The place where a torn tail was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornAt {
    /// The segment's number.
    pub segment: u64,
    /// The offset in it.
    pub offset: u64,
    /// The LSN of the record due there.
    pub lsn: u64,
}

/// An open log, as open left it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What recovery found.
    pub recovery: Recovery,
    /// What runs the log.
    pub backend: Backend,
    /// The LSN of the oldest record kept.
    pub first_lsn: u64,
    /// The newest LSN in the log, durable.
    pub last_lsn: u64,
    /// Whether segments are written past the page cache.
    pub direct_io: bool,
    /// What [`SyncMode::Auto`] came to.
    pub sync: SyncMode,
}

/// Where a log is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Recovery is running.
    Opening,
    /// Taking records.
    Open,
    /// A write or a flush failed, or open did: [`Handle::failure`] tells. Its thread may still be draining.
    Failed,
    /// Closed: locks released, every operation complete. After a failure too, once the thread has ended.
    Closed,
}

/// The watermarks. Each only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where the log is in its life.
    pub phase: Phase,
    /// The thread has ended (or never began): locks released, every completion in.
    pub ended: bool,
    /// Every record up to here is in the file.
    pub written_lsn: u64,
    /// Every record up to here is durable.
    pub durable_lsn: u64,
    /// Bytes of records (without prefixes) written since open.
    pub bytes_written: u64,
    /// Flush requests answered; see [`Handle::flush`].
    pub flushes_done: u64,
    /// How often records were refused for want of space; see [`Handle::refusal`].
    pub epoch: u64,
}

/// Records that were accepted and then refused before anything of them was written: their LSNs are free again.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The epoch that began with it: runs of an earlier epoch are dropped unseen.
    pub epoch: u64,
    /// The first LSN refused; the next run begins with it.
    pub from_lsn: u64,
    /// Why.
    pub error: crate::Error,
}

/// Records of one submission, which will be in one frame: after a crash all of them are there or none.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The epoch the submitter knows of.
    pub epoch: u64,
    /// The LSN of the first record; must follow the last one submitted.
    pub first_lsn: u64,
    /// Their bytes.
    pub records: Records<'a>,
    /// Whether somebody waits for them to be durable (else: written).
    pub durable: bool,
}

/// Bytes of records on their way in. They are copied by the call.
#[derive(Clone, Copy, Debug)]
pub enum Records<'a> {
    /// So many records, each behind its length as a little-endian u32, as a frame holds them.
    Staged {
        /// How many.
        count: u32,
        /// Prefixed, back to back.
        bytes: &'a [u8],
    },
    /// Each by itself.
    Apart(&'a [&'a [u8]]),
}

/// Figures since open.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Runs accepted.
    pub runs: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of records written.
    pub bytes: u64,
    /// Frames written.
    pub batches: u64,
    /// Flushes and durable writes.
    pub syncs: u64,
    /// Batches at the disk.
    pub in_flight: u64,
    /// Age of the oldest run not yet durable.
    pub oldest_in_flight: Duration,
    /// Segments completed.
    pub rotations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// From submit to durable (or to written, where nobody waits for more), weighted by records.
    pub latency_p50: Duration,
    /// The same, 99th percentile.
    pub latency_p99: Duration,
    /// The same, maximum.
    pub latency_max: Duration,
}

/// Called, from the service's thread, after the watermarks moved or the phase changed. Must not block.
pub type Listener = Box<dyn Fn() + Send + Sync>;

/// An open log. Dropping it closes it and waits for the end.
#[derive(Debug)]
pub struct Handle {}

impl Handle {
    /// Start the log's service on a thread of its own and return at once. [`Handle::status`] tells when it is
    /// open ([`Handle::opened`]) or could not be opened ([`Handle::failure`]).
    pub fn open(options: Options, disk: Disk, listener: Listener) -> Self {
        let _ = (options, disk, listener);
        unimplemented!()
    }

    /// Hand over records. Their bytes are copied before this returns.
    ///
    /// # Errors
    /// `ERR_WAL_CLOSED`, `ERR_WAL_POISONED`, `ERR_WAL_RECORD_TOO_LARGE`, `ERR_WAL_QUEUE_FULL`: nothing was taken.
    pub fn submit(&self, run: Run<'_>) -> Result<()> {
        let _ = run;
        unimplemented!()
    }

    /// Ask that everything up to `lsn` become durable.
    pub fn want_durable(&self, lsn: u64) {
        let _ = lsn;
    }

    /// Ask that everything submitted so far become durable in a segment that still has its name. Returns the
    /// request's number: it is answered once [`Status::flushes_done`] reaches it.
    pub fn flush(&self) -> u64 {
        unimplemented!()
    }

    /// Begin to close: what was submitted is written and flushed, HEAD too, then the locks are released.
    pub fn close(&self) {}

    /// Wait until the service's thread has ended. Call [`Handle::close`] first.
    pub fn join(&self) {}

    /// The watermarks.
    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// What open found, once the log is open.
    pub fn opened(&self) -> Option<Opened> {
        unimplemented!()
    }

    /// Why the log failed, or could not be opened.
    pub fn failure(&self) -> Option<crate::Error> {
        unimplemented!()
    }

    /// The newest refusal.
    pub fn refusal(&self) -> Option<Refusal> {
        unimplemented!()
    }

    /// Figures since open.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Bytes of one record at most.
    pub fn record_bytes_max(&self) -> u64 {
        unimplemented!()
    }

    /// Read the records `from..=to`, durable ones only, whatever `to` says.
    ///
    /// # Errors
    /// `ERR_WAL_TRUNCATED` where `from` is below the first LSN kept.
    pub fn read(&self, from: u64, to: u64) -> Result<Reader> {
        let _ = (from, to);
        unimplemented!()
    }
}

/// Reads records in order. Blocks; belongs on a thread of its own. Independent of its handle's life.
#[derive(Debug)]
pub struct Reader {}

/// Consecutive records.
#[derive(Debug)]
pub struct Chunk {
    /// The LSN of the first.
    pub first_lsn: u64,
    /// How many.
    pub count: u32,
    /// Each behind its length as a little-endian u32.
    pub bytes: Vec<u8>,
}

impl Reader {
    /// The next records, about `bytes` of them (one at least), or `None` at the end.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` at a record that is not what was written, `ERR_WAL_IO` where the disk will not read.
    pub fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        let _ = bytes;
        unimplemented!()
    }
}
