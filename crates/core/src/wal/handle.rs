//! What the floor above holds of a log: a mailbox into its service, and the watermarks that come back.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ringbolt_disk::{Backend, Disk, NewDisk};

use crate::error::{Code, Error, Result};
use crate::format::{LogId, entry, frame, frame_bytes_max, record_bytes_max};
use crate::wal::batch;
use crate::wal::key_value;
use crate::wal::mailbox::Shared;
use crate::wal::reader::{self, Reader, Source};
use crate::wal::service::Starting;

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

/// Which format a log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The native one: segments of frames.
    #[default]
    Segments,
    /// The key-value log: files of entries, byte-compatible with amaters-core 0.2. A record is an entry's body
    /// ([`crate::format::entry`]), its LSN the entry's sequence plus one.
    Entries {
        /// How sequences follow each other in what is there.
        sequences: Sequences,
        /// A file goes on in the next before it would be longer, in bytes; one record may be.
        file_bytes_max: u64,
    },
}

/// How the sequences of a key-value log follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// They rise by one, from 0 in file 0; everything else is damage.
    #[default]
    Strict,
    /// As they like: amaters' ring writer takes them from its caller. What is appended rises by one from the largest.
    Any,
}

/// How to open a log. The limits are checked by the floor above and asserted here.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the log lives; absolute.
    pub directory: PathBuf,
    /// What is written there.
    pub format: Format,
    /// Make a log where there is none.
    pub create: bool,
    /// Refuse a log that is there already.
    pub create_only: bool,
    /// Size of segments made from now on, in bytes; a multiple of the grain.
    pub segment_bytes: u64,
    /// Bound on the bytes of records accepted and not yet written; an empty record counts as one byte.
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
            format: Format::Segments,
            create: true,
            create_only: false,
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
    /// Whether the last owner closed it, or (of entries) left nothing to be done, and nothing was torn.
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
    /// Why that is not the first choice, where it is not.
    pub backend_reason: Option<String>,
    /// The LSN of the oldest record kept.
    pub first_lsn: u64,
    /// The newest LSN in the log, durable.
    pub last_lsn: u64,
    /// Where open left off: the number of a file and an offset in it. What is appended goes behind.
    pub end: (u64, u64),
    /// Whether segments are written past the page cache.
    pub direct_io: bool,
    /// How frames become durable, in words: what [`SyncMode::Auto`] came to.
    pub durability: &'static str,
    /// The log's name, in every file of it; zeros in a key-value log, whose files have no room for one.
    pub log_id: LogId,
    /// How many times the log was opened for writing, this time included; 0 in a key-value log, which does not count.
    pub incarnation: u32,
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
    /// The oldest record that is served.
    pub first_lsn: u64,
    /// Every record up to here is in the file.
    pub written_lsn: u64,
    /// Every record up to here is durable.
    pub durable_lsn: u64,
    /// Bytes that the queue counts for what was written since open: a record's own, one for an empty record.
    pub queue_bytes_written: u64,
    /// Flush requests answered; see [`Handle::flush`].
    pub flushes_done: u64,
    /// Requests answered; see [`Handle::take_answers`].
    pub answers: u64,
    /// How often records were refused for want of space; see [`Handle::refusal`].
    pub epoch: u64,
    /// Bytes that open has read so far, and will have read when it is done.
    pub recovery_bytes: (u64, u64),
}

/// Records that were accepted and then refused before anything of them was written: their LSNs are free again.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The epoch that began with it: runs of an earlier epoch are dropped unseen.
    pub epoch: u64,
    /// The first LSN refused; the next run begins with it.
    pub from_lsn: u64,
    /// Why.
    pub error: Error,
}

/// What can be asked of an open log beside appending to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Go on in a new segment once everything submitted before is in this one.
    Rotate,
    /// Remove the segments that hold nothing from this LSN on; a log of segments serves nothing below it any more, one
    /// of entries what is left. At most one above the last LSN given out.
    TruncateBefore(u64),
    /// Tell which segments there are.
    Segments,
}

/// What became of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The segment is sealed, durably; records go into the next.
    Rotated,
    /// Durably: HEAD says so, or the files are gone.
    Truncated {
        /// The first LSN that is served.
        first_lsn: u64,
    },
    /// Oldest first.
    Segments(Vec<SegmentInfo>),
}

/// A segment of an open log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub segment: u64,
    /// Its file.
    pub path: PathBuf,
    /// The file's size.
    pub bytes: u64,
    /// The first LSN in it that is served.
    pub first_lsn: u64,
    /// The last LSN in it; the one before `first_lsn` where it holds none yet.
    pub last_lsn: u64,
    /// Whether the log has gone on in the next.
    pub is_sealed: bool,
}

/// Records of one submission. In a log of segments they will be in one frame: after a crash all of them are there or
/// none.
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
pub struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Start the log's service on a thread of its own and return at once. [`Handle::status`] tells when it is
    /// open ([`Handle::opened`]) or could not be opened ([`Handle::failure`]).
    pub fn open(options: Options, disk: impl Into<NewDisk<Disk>>, listener: Listener) -> Self {
        let (handle, starting) = Self::stepped(options, disk, listener);
        let spawned =
            std::thread::Builder::new().name("ringbolt-wal".to_owned()).spawn(move || starting.run());
        match spawned {
            Ok(thread) => *handle.thread() = Some(thread),
            Err(error) => {
                let message = format!("starting the log's thread: {error}; is there a limit on threads?");
                let error = Error::new(Code::WalIo, message).with(|details| {
                    details.errno = error.raw_os_error();
                    details.syscall = Some("pthread_create");
                });
                handle.shared.fail(&error);
                handle.shared.end();
            }
        }
        handle
    }

    /// The same without the thread: the caller runs [`Starting::open`] and [`Service::turn`], as tests on a
    /// simulated disk do.
    ///
    /// [`Service::turn`]: crate::wal::Service::turn
    pub fn stepped(options: Options, disk: impl Into<NewDisk<Disk>>, listener: Listener) -> (Self, Starting) {
        let disk = disk.into();
        let shared = Arc::new(Shared::new(options, disk.fs.clone(), listener));
        let starting = Starting::new(disk, shared.clone());
        (Self { shared, thread: Mutex::new(None) }, starting)
    }

    /// Hand over records. Their bytes are copied before this returns (durability rule 10), once, to where the
    /// kernel will read them.
    ///
    /// # Errors
    /// `ERR_WAL_CLOSED`, `ERR_WAL_POISONED`, `ERR_WAL_RECORD_TOO_LARGE`, `ERR_WAL_QUEUE_FULL`: nothing was taken.
    ///
    /// # Panics
    /// Where LSNs do not follow each other, a run is empty, or staged bytes are not the records they should
    /// be: mistakes of the caller, which must not reach the disk.
    pub fn submit(&self, run: Run<'_>) -> Result<()> {
        self.check_size(run.records)?;
        let count = batch::count(run.records);
        assert!(count > 0, "a run holds at least one record");
        // Checks and weighs what is staged in one walk; what a frame takes is not walked again on its way in.
        let queue_bytes = batch::queue_bytes(run.records);
        if matches!(self.shared.options.format, Format::Entries { .. }) {
            for body in batch::each(run.records) {
                let body = entry::parse_body(body);
                assert!(body.is_ok(), "each record is an entry's body: {body:?}");
            }
        }
        self.shared.submit(run, queue_bytes)
    }

    fn check_size(&self, records: Records<'_>) -> Result<()> {
        let too_large = |what: &str, size: u64, limit: u64| {
            let hint = match self.shared.options.format {
                Format::Segments => "split it, or use larger segments",
                Format::Entries { .. } => "split it",
            };
            let message = format!("{what} of {size} bytes is above the limit of {limit}; {hint}");
            Err(Error::new(Code::WalRecordTooLarge, message).with(|details| {
                details.size = Some(size);
                details.limit = Some(limit);
            }))
        };
        let limit = self.record_bytes_max();
        let largest = match records {
            // The lengths are walked only where one of them could be above the limit.
            Records::Staged { bytes, .. } if bytes.len() as u64 <= limit => None,
            records => batch::each(records).map(<[u8]>::len).max(),
        };
        if let Some(largest) = largest.map(|bytes| bytes as u64).filter(|&bytes| bytes > limit) {
            return too_large("a record", largest, limit);
        }
        let payload_bytes = batch::payload_bytes(records) as u64;
        match self.shared.options.format {
            Format::Segments => {
                let limit = frame_bytes_max(self.shared.options.segment_bytes);
                let size = frame::padded_bytes(payload_bytes);
                if size > limit {
                    return too_large("a batch that makes a frame", size, limit);
                }
            }
            Format::Entries { .. } => {
                let limit = self.batch_bytes_max();
                if payload_bytes > limit {
                    return too_large("a batch", payload_bytes, limit);
                }
            }
        }
        Ok(())
    }

    /// While the log's service sleeps and has nothing to do: how long a small write takes. Who is about to make records
    /// for longer than that does well to submit half of them first: then the disk works meanwhile.
    /// `None` too where that is not known: under [`SyncMode::Fdatasync`], and on a disk that takes milliseconds.
    pub fn idle(&self) -> Option<Duration> {
        self.shared.idle()
    }

    /// Ask that everything up to `lsn` become durable.
    pub fn want_durable(&self, lsn: u64) {
        self.shared.want_durable(lsn);
    }

    /// Ask that everything submitted so far become durable in a segment that still has its name. Returns the
    /// request's number: it is answered once [`Status::flushes_done`] reaches it.
    pub fn flush(&self) -> u64 {
        self.shared.flush()
    }

    /// Ask for something; its answer comes in [`Handle::take_answers`] under the number returned, unless the log
    /// fails or ends first.
    pub fn ask(&self, request: Request) -> u64 {
        self.shared.ask(request)
    }

    /// The answers since the last call, in any order. [`Status::answers`] tells when there are more.
    pub fn take_answers(&self) -> Vec<(u64, Result<Answer>)> {
        self.shared.take_answers()
    }

    /// Sleep until everything up to `lsn`, which was submitted in `epoch`, is durable.
    ///
    /// # Errors
    /// `ERR_WAL_NO_SPACE` where it was refused, its LSN taken back; the failure where the log failed first.
    pub fn wait_durable(&self, lsn: u64, epoch: u64) -> Result<()> {
        self.shared.wait_durable(lsn, epoch)
    }

    /// Begin to close: what was submitted is written and flushed, HEAD too, then the locks are released.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Wait until the service's thread has ended. Call [`Handle::close`] first.
    pub fn join(&self) {
        // Held while waiting, so that whoever else joins waits too.
        let mut thread = self.thread();
        if let Some(thread) = thread.take() {
            // The thread catches its own panics and poisons the log with them.
            let _ = thread.join();
        }
    }

    /// The watermarks.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// What open found, once the log is open.
    pub fn opened(&self) -> Option<Opened> {
        self.shared.opened()
    }

    /// Why the log failed, or could not be opened.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    /// The newest refusal.
    pub fn refusal(&self) -> Option<Refusal> {
        self.shared.refusal()
    }

    /// Figures since open.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Bytes of one record at most; of an entry, its body's.
    pub fn record_bytes_max(&self) -> u64 {
        match self.shared.options.format {
            Format::Segments => record_bytes_max(self.shared.options.segment_bytes),
            Format::Entries { .. } => entry::BODY_BYTES_MAX as u64,
        }
    }

    /// Bytes of one batch at most: its records, each with [`frame::RECORD_PREFIX_BYTES`] more.
    pub fn batch_bytes_max(&self) -> u64 {
        match self.shared.options.format {
            Format::Segments => {
                frame_bytes_max(self.shared.options.segment_bytes) - frame::HEADER_BYTES as u64
            }
            Format::Entries { .. } => self.record_bytes_max() + frame::RECORD_PREFIX_BYTES as u64,
        }
    }

    /// Read the records `from..=to`, durable ones only, whatever `to` says.
    ///
    /// # Errors
    /// `ERR_WAL_TRUNCATED` where `from` is below the first LSN kept, `ERR_WAL_CLOSED` where the log is not open.
    pub fn read(&self, from: u64, to: u64) -> Result<Box<dyn Source>> {
        let status = self.status();
        let Some(opened) = self.opened().filter(|_| !status.ended) else {
            return Err(Error::new(Code::WalClosed, "reading a log that is not open"));
        };
        if from < status.first_lsn {
            let directory = &self.shared.options.directory;
            return Err(match self.shared.options.format {
                Format::Segments => reader::truncated(directory, from, status.first_lsn),
                Format::Entries { .. } => key_value::truncated(directory, from, status.first_lsn),
            });
        }
        let directory = self.shared.options.directory.clone();
        let to = to.min(status.durable_lsn);
        let fs = self.shared.fs.clone();
        Ok(match self.shared.options.format {
            Format::Segments => Box::new(Reader::new(fs, directory, &opened, from, to)),
            Format::Entries { sequences, .. } => {
                Box::new(key_value::Reader::of_handle(fs, directory, sequences, &opened, from, to))
            }
        })
    }

    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
        self.join();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({}, {:?})", self.shared.options.directory.display(), self.status())
    }
}
