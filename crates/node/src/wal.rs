//! The log's functions, free ones over the log's number. Those on the path of an append are cheap.

#![expect(clippy::needless_pass_by_value, reason = "arguments are handed over by the crossing, vectors too")]

use std::time::Duration;

use napi::bindgen_prelude::BufferSlice;
use napi_derive::napi;
use ringbolt_core::wal::handle::{
    Answer, Check, Format, Handle, Options, Phase, Records, Request, Run, Sequences, SyncMode,
};

use crate::backend::preference;
use crate::error::{NativeFailure, number, whole};
use crate::guard::guard;
use crate::lifecycle::{self, with_log as with};

/// How to open a log: checked and completed by the facade.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct NativeWalOptions {
    /// Absolute.
    pub directory: String,
    /// `segments` or `entries`.
    pub format: String,
    /// Of entries: `strict` or `any`.
    pub sequences: String,
    /// Make one where there is none.
    pub create: bool,
    /// Refuse one that is there.
    pub create_only: bool,
    /// A multiple of the grain. Of entries: the bound on a file.
    pub segment_bytes: f64,
    /// Records accepted and not yet written.
    pub queue_bytes_max: f64,
    /// `auto`, `dsync` or `fdatasync`.
    pub sync: String,
    /// Where the file system takes it.
    pub direct_io: bool,
    /// For the locks.
    pub lock_timeout_ms: f64,
    /// `tail` or `all`.
    pub check: String,
    /// Within which written records become durable.
    pub sync_interval_ms: f64,
    /// Permission bits.
    pub file_mode: u32,
    /// `auto`, or a backend's name.
    pub backend: String,
}

impl NativeWalOptions {
    fn into_core(self) -> Options {
        let milliseconds = |number: f64| Duration::from_millis(whole(number));
        let segment_bytes = whole(self.segment_bytes);
        let options = Options::new(self.directory);
        Options {
            create: self.create,
            create_only: self.create_only,
            format: if self.format == "entries" {
                Format::Entries { sequences: sequences(&self.sequences), file_bytes_max: segment_bytes }
            } else {
                Format::Segments
            },
            segment_bytes: if self.format == "entries" { options.segment_bytes } else { segment_bytes },
            queue_bytes_max: whole(self.queue_bytes_max),
            sync: match self.sync.as_str() {
                "dsync" => SyncMode::Dsync,
                "fdatasync" => SyncMode::Fdatasync,
                _ => SyncMode::Auto,
            },
            direct_io: self.direct_io,
            lock_timeout: milliseconds(self.lock_timeout_ms),
            check: if self.check == "all" { Check::All } else { Check::Tail },
            sync_interval: milliseconds(self.sync_interval_ms),
            file_mode: self.file_mode,
            ..options
        }
    }
}

/// `strict` or `any`.
pub(crate) fn sequences(name: &str) -> Sequences {
    if name == "any" { Sequences::Any } else { Sequences::Strict }
}

/// Start to open a log; returns its number, under which its news are announced.
#[napi]
pub fn open_wal(environment: u32, options: NativeWalOptions) -> napi::Result<u32> {
    guard(|| {
        let backend = preference(&options.backend);
        lifecycle::open_log(environment, options.into_core(), backend)
    })
}

/// Hand over the first `length` bytes of `staging`: `count` records, each behind its length as a little-endian
/// u32. They are copied before this returns. What is returned is why nothing was taken.
#[napi]
pub fn submit(
    wal: u32,
    staging: &[u8],
    length: u32,
    count: u32,
    first_lsn: f64,
    epoch: f64,
    durable: bool,
) -> napi::Result<Option<NativeFailure>> {
    with(wal, |handle| {
        let bytes = &staging[..length as usize];
        let records = Records::Staged { count, bytes };
        refused(handle.submit(Run { epoch: whole(epoch), first_lsn: whole(first_lsn), records, durable }))
    })
}

/// The same for records that lie apart.
#[napi]
pub fn submit_apart(
    wal: u32,
    records: Vec<&[u8]>,
    first_lsn: f64,
    epoch: f64,
    durable: bool,
) -> napi::Result<Option<NativeFailure>> {
    with(wal, |handle| {
        let records = Records::Apart(&records);
        refused(handle.submit(Run { epoch: whole(epoch), first_lsn: whole(first_lsn), records, durable }))
    })
}

fn refused(outcome: ringbolt_core::Result<()>) -> Option<NativeFailure> {
    outcome.err().map(|error| NativeFailure::from(&error))
}

/// While the log's thread sleeps and has nothing to do: how long a small write takes, in microseconds; else -1.
#[napi]
pub fn idle(wal: u32) -> napi::Result<f64> {
    with(wal, |handle| handle.idle().map_or(-1.0, |time| (time.as_secs_f64() * 1e6).round()))
}

/// Ask that everything up to `lsn` become durable.
#[napi]
pub fn want_durable(wal: u32, lsn: f64) -> napi::Result<()> {
    with(wal, |handle| handle.want_durable(whole(lsn)))
}

/// Ask for a flush; returns the request's number, see `poll`.
#[napi]
pub fn flush(wal: u32) -> napi::Result<f64> {
    with(wal, |handle| number(handle.flush()))
}

/// Ask that records go on in a new segment; returns the number of the answer, see `takeAnswers`.
#[napi]
pub fn rotate(wal: u32) -> napi::Result<f64> {
    with(wal, |handle| number(handle.ask(Request::Rotate)))
}

/// Ask that nothing below `lsn` be served any more; returns the number of the answer.
#[napi]
pub fn truncate_before(wal: u32, lsn: f64) -> napi::Result<f64> {
    with(wal, |handle| number(handle.ask(Request::TruncateBefore(whole(lsn)))))
}

/// Ask which segments there are; returns the number of the answer.
#[napi]
pub fn segments(wal: u32) -> napi::Result<f64> {
    with(wal, |handle| number(handle.ask(Request::Segments)))
}

/// What became of a request.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeAnswer {
    /// Which request.
    pub number: f64,
    /// Why it was not done.
    pub failure: Option<NativeFailure>,
    /// Of a truncation: the first LSN that is served.
    pub first_lsn: Option<f64>,
    /// Of a question for segments.
    pub segments: Option<Vec<NativeSegment>>,
}

/// A segment of an open log.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeSegment {
    /// Its number.
    pub segment: f64,
    /// Its file.
    pub path: String,
    /// The file's size.
    pub bytes: f64,
    /// The first LSN in it that is served.
    pub first_lsn: f64,
    /// The last LSN in it.
    pub last_lsn: f64,
    /// Whether the log has gone on in the next.
    pub sealed: bool,
}

/// The answers since the last call.
#[napi]
pub fn take_answers(wal: u32) -> napi::Result<Vec<NativeAnswer>> {
    with(wal, |handle| {
        handle.take_answers().into_iter().map(|(of, answer)| native_answer(of, answer)).collect()
    })
}

fn native_answer(of: u64, answer: ringbolt_core::Result<Answer>) -> NativeAnswer {
    let mut native = NativeAnswer { number: number(of), failure: None, first_lsn: None, segments: None };
    match answer {
        Ok(Answer::Rotated) => {}
        Ok(Answer::Truncated { first_lsn }) => native.first_lsn = Some(number(first_lsn)),
        Ok(Answer::Segments(segments)) => {
            let segments = segments.into_iter().map(|info| NativeSegment {
                segment: number(info.segment),
                path: info.path.to_string_lossy().into_owned(),
                bytes: number(info.bytes),
                first_lsn: number(info.first_lsn),
                last_lsn: number(info.last_lsn),
                sealed: info.is_sealed,
            });
            native.segments = Some(segments.collect());
        }
        Err(error) => native.failure = Some(NativeFailure::from(&error)),
    }
    native
}

/// Block this thread until `lsn`, submitted in `epoch`, is durable. What is returned is why it will not be.
#[napi]
pub fn wait_durable(wal: u32, lsn: f64, epoch: f64) -> napi::Result<Option<NativeFailure>> {
    with(wal, |handle| refused(handle.wait_durable(whole(lsn), whole(epoch))))
}

/// Begin to close. The end shows in `poll`.
#[napi]
pub fn close(wal: u32) -> napi::Result<()> {
    with(wal, Handle::close)
}

/// Write where a log is into `status`, as eleven doubles: phase (0 opening, 1 open, 2 failed, 3 closed), whether its
/// thread has ended (0 or 1), written LSN, durable LSN, bytes written as the queue counts them, flush requests answered, epoch,
/// bytes that recovery has read, and will have read, the first LSN served, requests answered.
#[napi]
pub fn poll(wal: u32, mut status: BufferSlice<'_>) -> napi::Result<()> {
    with(wal, |handle| {
        let now = handle.status();
        let phase = match now.phase {
            Phase::Opening => 0.0,
            Phase::Open => 1.0,
            Phase::Failed => 2.0,
            Phase::Closed => 3.0,
        };
        let words = [
            phase,
            f64::from(u8::from(now.ended)),
            number(now.written_lsn),
            number(now.durable_lsn),
            number(now.queue_bytes_written),
            number(now.flushes_done),
            number(now.epoch),
            number(now.recovery_bytes.0),
            number(now.recovery_bytes.1),
            number(now.first_lsn),
            number(now.answers),
        ];
        for (place, word) in status.chunks_exact_mut(size_of::<f64>()).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    })
}

/// What open found.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeOpened {
    /// What runs the log.
    pub backend: String,
    /// Why that is not `io_uring`, where it could not be had.
    pub backend_reason: Option<String>,
    /// How frames become durable, and past which cache, in words.
    pub durability: String,
    /// The oldest record kept.
    pub first_lsn: f64,
    /// The newest record.
    pub last_lsn: f64,
    /// Bytes of one record at most.
    pub record_bytes_max: f64,
    /// Bytes of one batch at most, each record counted with four more.
    pub batch_bytes_max: f64,
    /// Records in the log.
    pub records: f64,
    /// Segments in the log.
    pub segments: f64,
    /// Bytes set aside and cut.
    pub torn_bytes: f64,
    /// Where the cut was made.
    pub torn_at: Option<NativeTornAt>,
    /// Whether the last owner closed it and nothing was torn.
    pub clean_shutdown: bool,
    /// Whether this open made it.
    pub created: bool,
    /// How long it took.
    pub duration_ms: f64,
}

/// The place where a torn tail was cut.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeTornAt {
    /// The segment's number.
    pub segment: f64,
    /// The offset in it.
    pub offset: f64,
    /// The LSN of the record due there.
    pub lsn: f64,
}

/// What open found, once the log is open.
#[napi]
pub fn opened(wal: u32) -> napi::Result<Option<NativeOpened>> {
    with(wal, |handle| {
        let opened = handle.opened()?;
        let recovery = opened.recovery;
        Some(NativeOpened {
            backend: opened.backend.name().to_owned(),
            backend_reason: opened.backend_reason,
            durability: format!(
                "{}; {}",
                opened.durability,
                if opened.direct_io { "direct I/O" } else { "through the page cache" }
            ),
            first_lsn: number(opened.first_lsn),
            last_lsn: number(opened.last_lsn),
            record_bytes_max: number(handle.record_bytes_max()),
            batch_bytes_max: number(handle.batch_bytes_max()),
            records: number(recovery.records),
            segments: number(recovery.segments),
            torn_bytes: number(recovery.torn_bytes),
            torn_at: recovery.torn_at.map(|at| NativeTornAt {
                segment: number(at.segment),
                offset: number(at.offset),
                lsn: number(at.lsn),
            }),
            clean_shutdown: recovery.clean_shutdown,
            created: recovery.created,
            duration_ms: milliseconds(recovery.duration),
        })
    })
}

/// Why the log failed, or could not be opened.
#[napi]
pub fn failure(wal: u32) -> napi::Result<Option<NativeFailure>> {
    with(wal, |handle| handle.failure().map(|error| NativeFailure::from(&error)))
}

/// Records that were accepted and then refused for want of space.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeRefusal {
    /// The epoch that began with it.
    pub epoch: f64,
    /// The first LSN refused.
    pub from_lsn: f64,
    /// Why.
    pub failure: NativeFailure,
}

/// The newest refusal.
#[napi]
pub fn refusal(wal: u32) -> napi::Result<Option<NativeRefusal>> {
    with(wal, |handle| {
        let refusal = handle.refusal()?;
        Some(NativeRefusal {
            epoch: number(refusal.epoch),
            from_lsn: number(refusal.from_lsn),
            failure: NativeFailure::from(&refusal.error),
        })
    })
}

/// Figures since open.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeWalStats {
    /// Records written.
    pub records: f64,
    /// Bytes of records written.
    pub bytes: f64,
    /// Frames written.
    pub batches: f64,
    /// Flushes and durable writes.
    pub syncs: f64,
    /// Batches at the disk.
    pub in_flight: f64,
    /// Age of the oldest run not yet durable.
    pub oldest_in_flight_ms: f64,
    /// Segments completed.
    pub rotations: f64,
    /// Operations that failed.
    pub errors: f64,
    /// From submit to the acknowledgement asked for.
    pub p50_ms: f64,
    /// The same, 99th percentile.
    pub p99_ms: f64,
    /// The same, maximum.
    pub max_ms: f64,
}

/// Figures since open.
#[napi]
pub fn stats(wal: u32) -> napi::Result<NativeWalStats> {
    with(wal, |handle| {
        let stats = handle.stats();
        NativeWalStats {
            records: number(stats.records),
            bytes: number(stats.bytes),
            batches: number(stats.batches),
            syncs: number(stats.syncs),
            in_flight: number(stats.in_flight),
            oldest_in_flight_ms: milliseconds(stats.oldest_in_flight),
            rotations: number(stats.rotations),
            errors: number(stats.errors),
            p50_ms: milliseconds(stats.latency_p50),
            p99_ms: milliseconds(stats.latency_p99),
            max_ms: milliseconds(stats.latency_max),
        }
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
