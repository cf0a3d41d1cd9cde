//! The log as a pure state machine: batches go in, operations come out, completions go in, watermarks move.
//! No I/O, no clock, no lock, so a test can step it by hand. `wal/mod.rs` draws the life of an append and
//! numbers the invariants cited here.
//!
//! This page holds what the log knows and what it decides first; `frames` what it sends, `jobs` what it asks of
//! the helper thread, `requests` what is asked of it, `done` what comes back.

mod done;
mod frames;
mod jobs;
mod policy;
mod requests;

use std::collections::VecDeque;
use std::time::Duration;

use ringbolt_disk::{Done, File, Pool, Time, Token, WriteMode};

use self::jobs::JobKind;
pub(crate) use self::policy::Policy;
pub(crate) use self::requests::Held;
use self::requests::Requests;
use crate::error::{Error, Result};
use crate::format::frame::Kind;
use crate::format::head::Head;
use crate::wal::batch::Batch;
use crate::wal::flushes::Flushes;
use crate::wal::handle::Answer;
use crate::wal::link::Link;
use crate::wal::machine::{Asked, Machine, Step};
use crate::wal::segment::{Maker, Segment};
use crate::wal::stats::Counters;

/// Batches at the disk at once. One leaves the disk idle while it is framed; two gain only a third; more than
/// four gain little for small records and hold back the newest.
pub(crate) const DEPTH: usize = 4;

/// On a slow disk so many batches in a row must have found nobody waiting behind them before one goes alone. While a call
/// blocks nothing can overlap, so without this rule writing alone would fulfil itself on a slow disk.
const ALONE_AFTER: u32 = 2;

/// Where a batch that goes alone takes less than this, but for the transfer of its bytes, what waits behind it does not wait
/// for long: to overlap the two would cost both of them more, in system calls and wakes (a batch alone: 100 to 250 µs; ext4
/// on virtio, Linux 6.18).
const ALONE_TIME_MAX: Duration = Duration::from_micros(500);

/// A batch that goes alone counts as this at most: one that takes very long says little about the next.
const ALONE_TIME_COUNTED: Duration = Duration::from_millis(2);

/// Below this the average tells how long such a batch takes; towards what one counts at most, only that it takes long.
const ALONE_TIME_KNOWN: Duration = Duration::from_micros(1500);

/// Where so many batches overlapped, one goes alone to see how long that takes by now: a disk that stumbled once should
/// not be held for slow.
const ALONE_AGAIN_AFTER: u32 = 64;

/// More frames than this without a flush get one, whoever waits: the list of them has a bound.
const UNFLUSHED_FRAMES_MAX: usize = 1024;

/// With so many nothing more is written until a flush that is under way has answered.
const UNFLUSHED_FRAMES_BOUND: usize = 4 * UNFLUSHED_FRAMES_MAX;

/// HEAD follows the durable LSN after this long without progress.
const HEAD_IDLE: Duration = Duration::from_secs(1);

/// What recovery hands to the state machine.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) maker: Maker,
    pub(crate) policy: Policy,
    pub(crate) sync_interval: Duration,
    pub(crate) segment: Segment,
    pub(crate) next: Option<Segment>,
    pub(crate) head: Head,
    /// The segments that hold frames, oldest first.
    pub(crate) held: Vec<Held>,
    /// The LSN due next; everything below is durable.
    pub(crate) next_lsn: u64,
    /// The header checksum of the last frame, 0 where there is none.
    pub(crate) previous_crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameState {
    /// At the disk.
    Writing(WriteMode),
    /// Complete at full length, so a flush submitted from now on covers it.
    Written,
    /// Proven durable by its own DSYNC or by such a flush.
    Durable,
}

/// A frame that is not yet known to be durable, with everything before it.
#[derive(Debug)]
struct Frame {
    token: Token,
    segment: u64,
    file: File,
    kind: Kind,
    first_lsn: u64,
    /// For a seal, the LSN before it.
    last_lsn: u64,
    record_bytes: u64,
    queue_bytes: u64,
    state: FrameState,
    written_at: Time,
    /// The flush in flight that was submitted after this frame was complete.
    covered_by: Option<Token>,
    runs: Vec<(Time, u32)>,
    durable: bool,
}

/// The segment after this one.
#[derive(Debug)]
enum Next {
    None,
    Preparing,
    Ready(Segment),
    /// There was no room for it. Where it is needed by now, what needs it is refused; else it is tried again
    /// when it is.
    NoSpace {
        error: Error,
        needed: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Log {
    maker: Maker,
    policy: Policy,
    /// How long a frame that nobody waits for may be without a flush: half of the interval promised, for the
    /// flush takes its time too.
    sync_delay: Duration,

    segment: Segment,
    next: Next,
    /// The segments that hold frames, or are about to: oldest first.
    held: Vec<Held>,
    /// The batch that goes next, not yet framed.
    batch: Option<Batch>,
    /// In LSN order, from the oldest that is not known to be durable.
    frames: VecDeque<Frame>,
    /// How many at the front of `frames` are complete.
    written_frames: usize,
    writing: usize,
    /// The flush in flight, and since when. One at a time: a second would wait for the first in the kernel anyway.
    flush: Option<(Token, Time)>,
    jobs: Vec<(Token, JobKind)>,
    /// HEAD as it is on disk.
    head: Head,
    head_wanted: bool,
    requests: Requests,
    answers: Vec<(u64, Result<Answer>)>,
    /// Some while the log waits to go on in the next segment: the round of link checks this waits for.
    rotation: Option<u64>,
    link: Link,

    next_lsn: u64,
    previous_crc: u32,
    written_lsn: u64,
    durable_lsn: u64,
    durable_wanted: u64,
    flushes: Flushes,
    /// When the durable LSN last moved, while HEAD is behind it.
    head_behind_since: Option<Time>,
    closing: Option<u64>,
    closed: bool,
    failure: Option<Error>,
    lone_batches: u32,
    /// How long a batch that goes alone takes: the moving average over some eight of them.
    alone_time: Duration,
    /// Batches since the last one that went alone.
    since_alone: u32,
    appended_bytes: u64,
    /// The moving average over some 16 frames.
    frame_bytes: u64,
    next_token: u64,
    counters: Counters,
}

impl Log {
    pub(crate) fn new(start: Start) -> Self {
        let durable_lsn = start.next_lsn - 1;
        assert!(start.head.proven_lsn <= durable_lsn, "HEAD never claims more than recovery found");
        Self {
            maker: start.maker,
            policy: start.policy,
            sync_delay: start.sync_interval / 2,
            segment: start.segment,
            next: start.next.map_or(Next::None, Next::Ready),
            held: start.held,
            batch: None,
            frames: VecDeque::new(),
            written_frames: 0,
            writing: 0,
            flush: None,
            jobs: Vec::new(),
            head: start.head,
            head_wanted: false,
            requests: Requests::default(),
            answers: Vec::new(),
            rotation: None,
            link: Link::default(),
            next_lsn: start.next_lsn,
            previous_crc: start.previous_crc,
            written_lsn: durable_lsn,
            durable_lsn,
            durable_wanted: 0,
            flushes: Flushes::default(),
            head_behind_since: None,
            closing: None,
            closed: false,
            failure: None,
            lone_batches: ALONE_AFTER,
            alone_time: Duration::ZERO,
            since_alone: 0,
            appended_bytes: 0,
            frame_bytes: 0,
            next_token: 0,
            counters: Counters::default(),
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }
}

impl Machine for Log {
    fn written_lsn(&self) -> u64 {
        self.written_lsn
    }

    fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    fn flushes_done(&self) -> u64 {
        self.flushes.done()
    }

    fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn take_latencies(&mut self) -> std::vec::Drain<'_, (Duration, u32)> {
        self.counters.latencies.drain(..)
    }

    fn oldest_run(&self) -> Option<Time> {
        let waiting = self.frames.iter().find(|frame| {
            !frame.runs.is_empty() && (frame.durable || matches!(frame.state, FrameState::Writing(_)))
        });
        let runs = waiting.map(|frame| &frame.runs).or(self.batch.as_ref().map(|batch| &batch.runs));
        let run = runs.and_then(|runs| runs.first()).map(|&(accepted, _)| accepted);
        run.into_iter().chain(self.flush.map(|(_, submitted)| submitted)).min()
    }

    fn in_flight(&self) -> u64 {
        self.writing as u64
    }

    fn idle(&self) -> Option<Duration> {
        let is_idle = self.frames.is_empty() && self.batch.is_none() && self.failure.is_none();
        // Where no batch goes alone, or alone takes too long to tell how long, what is handed over too early makes what
        // follows wait for two flushes instead of one.
        let is_known = self.policy != Policy::Fdatasync && self.alone_time < ALONE_TIME_KNOWN;
        (is_idle && is_known).then_some(self.alone_time)
    }

    fn wants_batch(&self) -> bool {
        self.batch.is_none() && self.writing < DEPTH && self.failure.is_none()
    }

    fn accept(&mut self, batch: Batch) {
        assert!(self.wants_batch() && batch.count > 0, "a batch is taken only while there is a place for it");
        assert_eq!(batch.first_lsn, self.next_lsn, "batches come in LSN order");
        if batch.durable {
            self.durable_wanted = self.durable_wanted.max(batch.last_lsn());
        }
        self.batch = Some(batch);
    }

    fn want_durable(&mut self, lsn: u64) {
        self.durable_wanted = self.durable_wanted.max(lsn);
    }

    fn flush(&mut self, request: (u64, u64)) {
        self.flushes.ask(request);
        self.next_flush_request();
    }

    fn close(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(self.link.begin());
        }
    }

    fn is_finished(&self) -> bool {
        let quiet = self.writing == 0 && self.flush.is_none() && self.jobs.is_empty();
        quiet && (self.closed || self.failure.is_some() && self.closing.is_some())
    }

    fn deadline(&self) -> Option<Time> {
        if self.failure.is_some() {
            return None;
        }
        let flush = self.frames.iter().find(|frame| frame.state == FrameState::Written);
        let flush =
            flush.filter(|_| self.flush.is_none()).map(|frame| frame.written_at.after(self.sync_delay));
        let head =
            self.head_behind_since.filter(|_| !self.has_head_job()).map(|since| since.after(HEAD_IDLE));
        flush.into_iter().chain(head).min()
    }

    fn next(&mut self, now: Time, wall_clock: u64, queue_is_empty: bool) -> Option<Step> {
        if self.failure.is_some() || self.closed {
            return None;
        }
        self.settle_flush();
        self.begin_rotation();
        if let Some(step) = self.next_job(now) {
            return Some(step);
        }
        if self.is_ready_to_rotate() {
            return Some(self.seal(now, wall_clock));
        }
        if let Some(error) = self.refusal() {
            return Some(Step::Refuse(error));
        }
        self.next_write(now, wall_clock, queue_is_empty).or_else(|| self.next_flush(now))
    }

    fn on_done(&mut self, now: Time, done: Done, pool: &Pool, queue_is_empty: bool) {
        self.take_done(now, done, pool, queue_is_empty);
    }

    fn ask(&mut self, asked: Asked) {
        self.take_request(asked);
    }

    fn answers(&mut self) -> Vec<(u64, Result<Answer>)> {
        std::mem::take(&mut self.answers)
    }

    fn first_lsn(&self) -> u64 {
        self.head.first_lsn
    }
}
