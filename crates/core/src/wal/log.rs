//! The log as a pure state machine: batches go in, operations come out, completions go in, watermarks move.
//! No I/O, no clock, no lock, so a test can step it by hand. `wal/mod.rs` draws the life of an append and
//! numbers the invariants cited here.

use std::collections::VecDeque;
use std::time::Duration;

use ringbolt_disk::{Buffer, Done, File, GRAIN, Job, Op, Outcome, Pool, Time, Token, WriteMode};

use crate::error::{Code, Error};
use crate::format::frame::{self, Kind, Place};
use crate::format::head::{Head, State};
use crate::planted::{self, Bug};
use crate::wal::batch::Batch;
use crate::wal::handle::SyncMode;
use crate::wal::head;
use crate::wal::segment::{Maker, Segment};
use crate::wal::stats::Counters;

/// Batches at the disk at once. One leaves the disk idle while it is framed; two gain only a third; more than
/// four gain little for small records and hold back the newest.
pub(crate) const DEPTH: usize = 4;

/// A batch up to this size, with nothing else in flight, may be written here and now by a blocking call: the
/// wake-ups that an overlapped write costs are longer than what could overlap.
const ALONE_BYTES_MAX: u64 = 128 << 10;

/// So many batches in a row must have found nobody waiting behind them before one goes alone. While a call
/// blocks nothing can overlap, so without this rule writing alone would fulfil itself on a slow disk.
const ALONE_AFTER: u32 = 2;

/// HEAD follows the durable LSN after this long without progress.
const HEAD_IDLE: Duration = Duration::from_secs(1);

/// Zeroing runs this far ahead of the tail, in chunks of a quarter of it: from the first bound at the start to
/// the second in a log that is written much. A log of a few records should not cost megabytes of zeros, and
/// the flush behind a chunk waits for it: 1.5 ms for 1 MiB on the disk this was measured on.
const ZERO_AHEAD_BYTES: (u64, u64) = (512 << 10, 4 << 20);

/// Frames above this size, on average, go into blocks that are merely allocated. A durable write there costs
/// some 100 µs more, whatever its size (the journal notes that the blocks are in use); zeroing costs 2.4 µs for
/// each KiB (ext4 on virtio, Linux 6.18). What is quicker changes at 40 KiB.
const ZERO_FRAME_BYTES_MAX: u64 = 32 << 10;

/// How frames become durable, resolved for this log's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Every durable frame carries its own flush or forced unit access.
    Dsync,
    /// Every frame is written plainly; one flush at a time covers all that are complete.
    Fdatasync,
    /// A lone frame carries its own flush, overlapping ones share: for devices without forced unit access,
    /// where each DSYNC completion through the ring waits in a kernel worker behind whatever runs there.
    Hybrid,
}

impl Policy {
    pub(crate) fn resolve(mode: SyncMode, has_cheap_dsync: bool) -> Self {
        match mode {
            SyncMode::Dsync => Self::Dsync,
            SyncMode::Fdatasync => Self::Fdatasync,
            SyncMode::Auto if has_cheap_dsync => Self::Dsync,
            SyncMode::Auto => Self::Hybrid,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dsync => "dsync",
            Self::Fdatasync => "fdatasync",
            Self::Hybrid => "dsync alone, fdatasync overlapped",
        }
    }
}

/// What recovery hands to the state machine.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) maker: Maker,
    pub(crate) policy: Policy,
    pub(crate) sync_interval: Duration,
    pub(crate) segment: Segment,
    pub(crate) next: Option<Segment>,
    pub(crate) head: Head,
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
enum JobKind {
    Prepare { number: u64 },
    Zero { segment: u64 },
    Head(Head),
    LinkCheck { round: u64 },
}

/// Whether the segment still has its name is asked in rounds (durability rule 14): who needs to know starts a
/// round, and a check submitted after that answers it.
#[derive(Debug, Default)]
struct Link {
    wanted: u64,
    asked: u64,
    confirmed: u64,
}

impl Link {
    fn begin(&mut self) -> u64 {
        self.wanted = self.asked + 1;
        self.wanted
    }
}

#[derive(Debug)]
struct FlushRequest {
    /// The newest request that this answers.
    number: u64,
    target_lsn: u64,
    link_round: u64,
}

#[derive(Debug)]
pub(crate) struct Log {
    maker: Maker,
    policy: Policy,
    sync_interval: Duration,

    segment: Segment,
    next: Next,
    /// The batch that goes next, not yet framed.
    batch: Option<Batch>,
    /// In LSN order, from the oldest that is not known to be durable.
    frames: VecDeque<Frame>,
    /// How many at the front of `frames` are complete.
    written_frames: usize,
    writing: usize,
    /// The flush in flight. One at a time: a second would wait for the first in the kernel anyway.
    flush: Option<Token>,
    jobs: Vec<(Token, JobKind)>,
    /// HEAD as it is on disk.
    head: Head,
    head_wanted: bool,
    /// Some while the log waits to go on in the next segment: the round of link checks this waits for.
    rotation: Option<u64>,
    link: Link,

    next_lsn: u64,
    previous_crc: u32,
    written_lsn: u64,
    durable_lsn: u64,
    durable_wanted: u64,
    flush_request: Option<FlushRequest>,
    flushes_done: u64,
    /// When the durable LSN last moved, while HEAD is behind it.
    head_behind_since: Option<Time>,
    closing: Option<u64>,
    closed: bool,
    failure: Option<Error>,
    lone_batches: u32,
    appended_bytes: u64,
    /// The moving average over some 16 frames.
    frame_bytes: u64,
    next_token: u64,
    counters: Counters,
}

/// What a turn of the log asks its service to do beside the operations.
#[derive(Debug)]
pub(crate) enum Step {
    /// Hand this to the driver.
    Submit(Token, Op),
    /// There is no room for the next segment: everything queued is refused, nothing of it was written.
    Refuse(Error),
}

impl Log {
    pub(crate) fn new(start: Start) -> Self {
        let durable_lsn = start.next_lsn - 1;
        assert!(start.head.proven_lsn <= durable_lsn, "HEAD never claims more than recovery found");
        Self {
            maker: start.maker,
            policy: start.policy,
            sync_interval: start.sync_interval,
            segment: start.segment,
            next: start.next.map_or(Next::None, Next::Ready),
            batch: None,
            frames: VecDeque::new(),
            written_frames: 0,
            writing: 0,
            flush: None,
            jobs: Vec::new(),
            head: start.head,
            head_wanted: false,
            rotation: None,
            link: Link::default(),
            next_lsn: start.next_lsn,
            previous_crc: start.previous_crc,
            written_lsn: durable_lsn,
            durable_lsn,
            durable_wanted: 0,
            flush_request: None,
            flushes_done: 0,
            head_behind_since: None,
            closing: None,
            closed: false,
            failure: None,
            lone_batches: ALONE_AFTER,
            appended_bytes: 0,
            frame_bytes: 0,
            next_token: 0,
            counters: Counters::default(),
        }
    }

    pub(crate) fn written_lsn(&self) -> u64 {
        self.written_lsn
    }

    pub(crate) fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    /// The LSN of the next frame: what is below was framed, and may be at the disk.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    pub(crate) fn flushes_done(&self) -> u64 {
        self.flushes_done
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The latencies of what was acknowledged since the last call, each for so many records.
    pub(crate) fn take_latencies(&mut self) -> std::vec::Drain<'_, (Duration, u32)> {
        self.counters.latencies.drain(..)
    }

    /// When the oldest run not yet acknowledged as its owner asked was accepted.
    pub(crate) fn oldest_run(&self) -> Option<Time> {
        let waiting = self.frames.iter().find(|frame| {
            !frame.runs.is_empty() && (frame.durable || matches!(frame.state, FrameState::Writing(_)))
        });
        let runs = waiting.map(|frame| &frame.runs).or(self.batch.as_ref().map(|batch| &batch.runs));
        runs.and_then(|runs| runs.first()).map(|&(accepted, _)| accepted)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.writing as u64
    }

    /// Whether a batch would be framed now. Until then it stays in the mailbox, where more may join it.
    pub(crate) fn wants_batch(&self) -> bool {
        self.batch.is_none() && self.writing < DEPTH && self.failure.is_none()
    }

    pub(crate) fn accept(&mut self, batch: Batch) {
        assert!(self.wants_batch() && batch.count > 0, "a batch is taken only while there is a place for it");
        assert_eq!(batch.first_lsn, self.next_lsn, "batches come in LSN order");
        if batch.durable {
            self.durable_wanted = self.durable_wanted.max(batch.last_lsn());
        }
        self.batch = Some(batch);
    }

    /// Everything up to `lsn` is to become durable.
    pub(crate) fn want_durable(&mut self, lsn: u64) {
        self.durable_wanted = self.durable_wanted.max(lsn);
    }

    /// Answer flush requests up to `number`, once everything up to `target_lsn` is durable in a file that has
    /// a name.
    pub(crate) fn flush(&mut self, (number, target_lsn): (u64, u64)) {
        let asked = self.flush_request.as_ref().map_or(self.flushes_done, |request| request.number);
        if number == asked {
            return;
        }
        self.want_durable(target_lsn);
        self.flush_request = Some(FlushRequest { number, target_lsn, link_round: self.link.begin() });
    }

    /// No batch comes any more. May be called again.
    pub(crate) fn close(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(self.link.begin());
        }
    }

    /// Closed, or failed and told to close, and nothing is in flight any more: the locks may go (durability
    /// rule 8).
    pub(crate) fn is_finished(&self) -> bool {
        let quiet = self.writing == 0 && self.flush.is_none() && self.jobs.is_empty();
        quiet && (self.closed || self.failure.is_some() && self.closing.is_some())
    }

    /// When to look again although nothing happened.
    pub(crate) fn deadline(&self) -> Option<Time> {
        if self.failure.is_some() {
            return None;
        }
        let flush = self.frames.iter().find(|frame| frame.state == FrameState::Written);
        let flush =
            flush.filter(|_| self.flush.is_none()).map(|frame| frame.written_at.after(self.sync_interval));
        let head =
            self.head_behind_since.filter(|_| !self.has_head_job()).map(|since| since.after(HEAD_IDLE));
        flush.into_iter().chain(head).min()
    }

    /// What to do next, until `None`.
    pub(crate) fn next(&mut self, now: Time, wall_clock: u64, queue_is_empty: bool) -> Option<Step> {
        if self.failure.is_some() || self.closed {
            return None;
        }
        self.settle_flush();
        if let Some(step) = self.next_job(now) {
            return Some(step);
        }
        if self.next_rotation_step() {
            return Some(self.seal(now, wall_clock));
        }
        if let Some(error) = self.refusal() {
            return Some(Step::Refuse(error));
        }
        self.next_write(now, wall_clock, queue_is_empty).or_else(|| self.next_flush(now))
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    // ---- writes -------------------------------------------------------------------------------------------

    fn next_write(&mut self, now: Time, wall_clock: u64, queue_is_empty: bool) -> Option<Step> {
        let frame_bytes = self.batch.as_ref()?.frame_bytes();
        let ready = self.rotation.is_none() && self.writing < DEPTH;
        if !ready || !self.segment.fits(frame_bytes) || !self.segment.is_clear(frame_bytes) {
            return None;
        }
        let mut batch = self.batch.take()?;
        assert_eq!(batch.first_lsn, self.next_lsn, "LSNs are dense and in order");
        let mode = self.mode(&batch, frame_bytes, queue_is_empty);
        let stamp = self.stamp(wall_clock);
        self.previous_crc = frame::finish(&mut batch.buffer, batch.count, stamp, self.place());
        self.appended_bytes += frame_bytes;
        self.frame_bytes = (self.frame_bytes * 15 + frame_bytes) / 16;
        self.counters.batches += 1;
        let last_lsn = batch.last_lsn();
        let frame = self.frame(now, mode, Kind::Batch, last_lsn);
        let frame =
            Frame { record_bytes: batch.record_bytes, runs: batch.runs, durable: batch.durable, ..frame };
        Some(self.submit_frame(frame, mode, batch.buffer))
    }

    /// What every frame built now says.
    fn stamp(&self, wall_clock: u64) -> frame::Stamp {
        frame::Stamp {
            first_lsn: self.next_lsn,
            durable_lsn: self.durable_lsn,
            previous_crc: self.previous_crc,
            incarnation: self.head.incarnation,
            wall_clock,
        }
    }

    fn place(&self) -> Place<'_> {
        Place { log_id: &self.maker.log_id, segment: self.segment.number, offset: self.segment.tail }
    }

    /// A frame without records at the tail, up to `last_lsn`.
    fn frame(&mut self, now: Time, mode: WriteMode, kind: Kind, last_lsn: u64) -> Frame {
        Frame {
            token: self.token(),
            segment: self.segment.number,
            file: self.segment.file.clone(),
            kind,
            first_lsn: self.next_lsn,
            last_lsn,
            record_bytes: 0,
            state: FrameState::Writing(mode),
            written_at: now,
            covered_by: None,
            runs: Vec::new(),
            durable: true,
        }
    }

    fn mode(&self, batch: &Batch, frame_bytes: u64, queue_is_empty: bool) -> WriteMode {
        if !batch.durable && self.durable_wanted < batch.first_lsn {
            return WriteMode::Plain;
        }
        let lone = self.writing == 0 && self.flush.is_none() && queue_is_empty;
        let alone = lone && frame_bytes <= ALONE_BYTES_MAX && self.lone_batches >= ALONE_AFTER;
        match self.policy {
            Policy::Dsync | Policy::Hybrid if alone => WriteMode::Alone,
            Policy::Dsync => WriteMode::Dsync,
            Policy::Fdatasync | Policy::Hybrid => WriteMode::Plain,
        }
    }

    /// Send a finished frame to the tail. Every frame goes through here.
    fn submit_frame(&mut self, frame: Frame, mode: WriteMode, mut buffer: Buffer) -> Step {
        buffer.pad_to_grain();
        let at = self.segment.tail;
        assert!(self.segment.is_clear(buffer.len() as u64), "zeros in flight would land on the frame");
        self.segment.tail += buffer.len() as u64;
        assert!(self.segment.tail <= self.segment.bytes, "a frame ends within its segment");
        self.next_lsn = frame.last_lsn + 1;
        self.writing += 1;
        self.counters.syncs += u64::from(mode != WriteMode::Plain);
        let (token, file) = (frame.token, frame.file.clone());
        self.frames.push_back(frame);
        Step::Submit(token, Op::Write { file, at, buffer, mode })
    }

    // ---- rotation -----------------------------------------------------------------------------------------

    /// Whether the seal is to be written now.
    fn next_rotation_step(&mut self) -> bool {
        let full = self.batch.as_ref().is_some_and(|batch| !self.segment.fits(batch.frame_bytes()));
        if full && self.rotation.is_none() {
            self.rotation = Some(self.link.begin());
        }
        // The seal says that the segment is complete and durable, and that the next one is there (format: a
        // seal's durable LSN is the LSN before it): so it waits for all of that.
        self.rotation.is_some_and(|round| self.link.confirmed >= round)
            && self.frames.is_empty()
            && matches!(self.next, Next::Ready(_))
            && self.segment.is_clear(GRAIN as u64)
    }

    fn seal(&mut self, now: Time, wall_clock: u64) -> Step {
        assert_eq!(self.durable_lsn + 1, self.next_lsn, "a seal follows durable records only");
        let mode = match self.policy {
            Policy::Fdatasync => WriteMode::Plain,
            Policy::Dsync | Policy::Hybrid => WriteMode::Dsync,
        };
        let (header, crc) = frame::seal(self.stamp(wall_clock), self.place());
        self.previous_crc = crc;
        let frame = self.frame(now, mode, Kind::Seal, self.next_lsn - 1);
        let step = self.submit_frame(frame, mode, Buffer::copy_of(&header));
        let Next::Ready(next) = std::mem::replace(&mut self.next, Next::None) else {
            unreachable!("the next segment was ready a moment ago")
        };
        // From here on only the seal's own frame holds the old segment's file, and with it its lock.
        self.segment = next;
        self.rotation = None;
        step
    }

    /// The records that need a next segment for which there is no room.
    fn refusal(&mut self) -> Option<Error> {
        let Next::NoSpace { error, needed: true } = &self.next else { return None };
        // Only with nothing at the disk: so what is written and what is refused add up.
        if self.writing > 0 {
            return None;
        }
        let error = error.clone();
        self.rotation = None;
        self.next = Next::None;
        self.batch = None;
        let last = self.next_lsn - 1;
        self.durable_wanted = self.durable_wanted.min(last);
        if let Some(request) = &mut self.flush_request {
            request.target_lsn = request.target_lsn.min(last);
        }
        Some(error)
    }

    // ---- flushes ------------------------------------------------------------------------------------------

    fn next_flush(&mut self, now: Time) -> Option<Step> {
        if self.flush.is_some() {
            return None;
        }
        let oldest = self.frames.iter().find(|frame| frame.state == FrameState::Written)?;
        let wanted = oldest.kind == Kind::Seal
            || oldest.first_lsn <= self.durable_wanted
            || self.rotation.is_some()
            || self.closing.is_some()
            || now >= oldest.written_at.after(self.sync_interval);
        if !wanted {
            return None;
        }
        let (segment, file) = (oldest.segment, oldest.file.clone());
        let token = self.token();
        // Rule 1: a flush proves what was complete at full length, in its own file, before it was submitted.
        for frame in &mut self.frames {
            let own = frame.segment == segment || planted::is(Bug::FlushProvesOtherSegments);
            if own && frame.state == FrameState::Written {
                frame.covered_by = Some(token);
            }
        }
        self.flush = Some(token);
        self.counters.syncs += 1;
        Some(Step::Submit(token, Op::Sync { file }))
    }

    /// Rule 14: a flush is answered once everything it covers is durable and the segment has its name.
    fn settle_flush(&mut self) {
        let Some(request) = &self.flush_request else { return };
        if self.durable_lsn >= request.target_lsn && self.link.confirmed >= request.link_round {
            self.flushes_done = request.number;
            self.flush_request = None;
        }
    }

    // ---- jobs ---------------------------------------------------------------------------------------------

    fn next_job(&mut self, now: Time) -> Option<Step> {
        if self.link.asked < self.link.wanted {
            return Some(self.check_link());
        }
        if self.closing.is_none()
            && let Some(step) = self.zero_ahead()
        {
            return Some(step);
        }
        let past_half = self.segment.tail > self.segment.bytes / 2 && self.closing.is_none();
        let prepare = match self.next {
            Next::None => past_half || self.rotation.is_some(),
            Next::NoSpace { needed, .. } => !needed && self.rotation.is_some(),
            Next::Preparing | Next::Ready(_) => false,
        };
        if prepare {
            return Some(self.prepare());
        }
        self.next_head(now)
    }

    fn job(&mut self, kind: JobKind, job: Job) -> Step {
        let token = self.token();
        self.jobs.push((token, kind));
        Step::Submit(token, Op::Job(job))
    }

    fn check_link(&mut self) -> Step {
        self.link.asked = self.link.wanted;
        let (file, path) = (self.segment.file.clone(), self.segment.path.clone());
        let no_entry = 2;
        self.job(
            JobKind::LinkCheck { round: self.link.asked },
            Box::new(move |fs| {
                if fs.is_linked(&file, &path)? {
                    return Ok(None);
                }
                Err(ringbolt_disk::Error::new("stat", path, no_entry).hint(
                    "the segment that records go into was removed or replaced by another program; \
                     what was appended to it since cannot be found again",
                ))
            }),
        )
    }

    fn zero_ahead(&mut self) -> Option<Step> {
        if self.frame_bytes > ZERO_FRAME_BYTES_MAX {
            return None;
        }
        let (first, most) = ZERO_AHEAD_BYTES;
        let distance = self.appended_bytes.clamp(first, most);
        let chunk = (distance / 4).next_multiple_of(GRAIN as u64);
        let next = match &mut self.next {
            Next::Ready(segment) => Some(segment),
            Next::None | Next::Preparing | Next::NoSpace { .. } => None,
        };
        let segment = std::iter::once(&mut self.segment)
            .chain(next)
            .find_map(|segment| segment.zero_ahead(distance, chunk).map(|range| (segment, range)));
        let (segment, (from, to)) = segment?;
        segment.zeroing = Some((from, to));
        let (number, file) = (segment.number, segment.file.clone());
        Some(self.job(
            JobKind::Zero { segment: number },
            Box::new(move |fs| fs.zero(&file, from, to - from).map(|()| None)),
        ))
    }

    fn prepare(&mut self) -> Step {
        self.next = Next::Preparing;
        let number = self.segment.number + 1;
        let maker = self.maker.clone();
        self.job(
            JobKind::Prepare { number },
            Box::new(move |fs| maker.make(fs, number).map(|segment| Some(segment.file))),
        )
    }

    fn has_head_job(&self) -> bool {
        self.jobs.iter().any(|(_, kind)| matches!(kind, JobKind::Head(_)))
    }

    fn next_head(&mut self, now: Time) -> Option<Step> {
        if self.has_head_job() {
            return None;
        }
        let idle = self.head_behind_since.is_some_and(|since| now >= since.after(HEAD_IDLE));
        let last = self.is_drained() && self.closing.is_some_and(|round| self.link.confirmed >= round);
        if !self.head_wanted && !idle && !last {
            return None;
        }
        let head = Head {
            state: if last { State::Closed } else { State::Open },
            proven_lsn: self.durable_lsn,
            ..self.head
        };
        self.head_wanted = false;
        self.head_behind_since = None;
        let (directory, file_mode, value) = (self.maker.directory.clone(), self.maker.file_mode, head);
        Some(self.job(
            JobKind::Head(head),
            Box::new(move |fs| head::replace(fs, &directory, &value, file_mode).map(|()| None)),
        ))
    }

    /// Told to close, and nothing is left to do but HEAD.
    fn is_drained(&self) -> bool {
        self.batch.is_none()
            && self.frames.is_empty()
            && self.flush.is_none()
            && self.jobs.is_empty()
            && self.flush_request.is_none()
    }

    // ---- completions --------------------------------------------------------------------------------------

    /// Take a completion in; its buffer goes back to `pool`.
    pub(crate) fn on_done(&mut self, now: Time, done: Done, pool: &Pool, queue_is_empty: bool) {
        if let Some(buffer) = done.buffer {
            pool.give(buffer);
        }
        if let Some(index) = self.jobs.iter().position(|(token, _)| *token == done.token) {
            let (_, kind) = self.jobs.swap_remove(index);
            self.on_job(kind, done.outcome);
        } else if self.flush == Some(done.token) {
            self.flush = None;
            match done.outcome {
                Ok(_) => self.on_flushed(done.token),
                Err(_) if planted::is(Bug::RetryFlush) => {}
                Err(error) => {
                    let frame = self.frames.iter().find(|frame| frame.covered_by == Some(done.token));
                    let segment = frame.map_or(self.segment.number, |frame| frame.segment);
                    self.fail(&Error::io("flushing the log", self.named(error, segment)));
                }
            }
        } else {
            self.on_written(now, done.token, done.outcome);
        }
        self.advance(now, queue_is_empty);
    }

    fn on_written(&mut self, now: Time, token: Token, outcome: ringbolt_disk::Result<Outcome>) {
        let index = self.frames.iter().position(|frame| frame.token == token);
        let index = index.expect("a completion belongs to a flush, a job or a frame");
        self.writing -= 1;
        if let Err(error) = outcome {
            let error = self.named(error, self.frames[index].segment);
            return self.fail(&Error::io("writing to the log", error));
        }
        let frame = &mut self.frames[index];
        let FrameState::Writing(mode) = frame.state else { unreachable!("a write completes once") };
        frame.written_at = now;
        frame.state = match mode {
            WriteMode::Plain => FrameState::Written,
            // Rule 1: its own bytes, and nothing before it.
            WriteMode::Dsync | WriteMode::Alone => FrameState::Durable,
        };
        if frame.state == FrameState::Durable && planted::is(Bug::DsyncProvesEarlierFrames) {
            for frame in self.frames.range_mut(..index) {
                if frame.state == FrameState::Written {
                    frame.state = FrameState::Durable;
                }
            }
        }
    }

    fn on_flushed(&mut self, token: Token) {
        for frame in &mut self.frames {
            if frame.covered_by == Some(token) {
                assert_eq!(frame.state, FrameState::Written, "a flush covers complete frames only");
                frame.state = FrameState::Durable;
            }
        }
    }

    fn on_job(&mut self, kind: JobKind, outcome: ringbolt_disk::Result<Outcome>) {
        match (kind, outcome) {
            (JobKind::Prepare { number }, Ok(Outcome::Job(Some(file)))) => {
                let path = self.maker.path(number);
                self.next = Next::Ready(Segment::empty(file, path, number, self.maker.bytes));
            }
            // Rule 9: no room for the next segment, known before this one is full. Nothing is lost yet.
            (JobKind::Prepare { .. }, Err(error)) if error.is_no_space() => {
                self.counters.errors += 1;
                let doing = "reserving the next segment (free some space; the log works on)";
                let error = Error::of_disk(Code::WalNoSpace, doing, error);
                self.next = Next::NoSpace { error, needed: self.rotation.is_some() };
            }
            (JobKind::Zero { segment }, Ok(_)) => {
                let next = match &mut self.next {
                    Next::Ready(next) => Some(next),
                    Next::None | Next::Preparing | Next::NoSpace { .. } => None,
                };
                let mut segments = std::iter::once(&mut self.segment).chain(next);
                if let Some(segment) = segments.find(|open| open.number == segment)
                    && let Some((_, to)) = segment.zeroing.take()
                {
                    segment.zeroed_to = to;
                }
            }
            (JobKind::Head(head), Ok(_)) => {
                assert!(head.proven_lsn >= self.head.proven_lsn, "HEAD's fields only grow");
                self.closed = head.state == State::Closed;
                self.head = head;
            }
            // No promise rests on HEAD, and the old one stays true: a full disk may keep it from being
            // replaced, and then the next open reads a little more.
            (JobKind::Head(head), Err(error)) if error.is_no_space() => {
                self.counters.errors += 1;
                self.closed = head.state == State::Closed;
            }
            (JobKind::LinkCheck { round }, Ok(_)) => self.link.confirmed = round,
            (kind, Err(error)) => {
                let error = match kind {
                    JobKind::Zero { segment } => self.named(error, segment),
                    JobKind::Prepare { .. } | JobKind::Head(_) | JobKind::LinkCheck { .. } => error,
                };
                let doing = match kind {
                    JobKind::Prepare { .. } => "preparing the next segment",
                    JobKind::Zero { .. } => "zeroing ahead of the log's tail",
                    JobKind::Head(_) => "replacing HEAD",
                    JobKind::LinkCheck { .. } => "checking that the segment still has its name",
                };
                self.fail(&Error::io(doing, error));
            }
            (kind, Ok(outcome)) => unreachable!("{kind:?} ended in {outcome:?}"),
        }
    }

    /// An error of a segment, by the name that people find it by: the file was opened when it had another.
    fn named(&self, mut error: ringbolt_disk::Error, segment: u64) -> ringbolt_disk::Error {
        error.path = self.maker.path(segment);
        error
    }

    /// Rule 2: the first failure ends the log. What is in flight is awaited and believed no more.
    fn fail(&mut self, error: &Error) {
        self.counters.errors += 1;
        if self.failure.is_none() {
            self.failure = Some(error.clone());
        }
    }

    /// Move the watermarks over what is complete, and what is durable, without a gap (rule 1).
    fn advance(&mut self, now: Time, queue_is_empty: bool) {
        if self.failure.is_some() {
            return;
        }
        while let Some(frame) = self.frames.get(self.written_frames)
            && !matches!(frame.state, FrameState::Writing(_))
        {
            self.written_frames += 1;
            self.written_lsn = frame.last_lsn;
            self.counters.bytes += frame.record_bytes;
            if frame.kind == Kind::Batch {
                self.counters.records += frame.last_lsn + 1 - frame.first_lsn;
            }
            if !frame.durable {
                self.counters.acknowledge(now, &frame.runs);
            }
        }
        let mut acknowledged = false;
        while let Some(frame) = self.frames.front()
            && (frame.state == FrameState::Durable
                || frame.state == FrameState::Written && planted::is(Bug::AcknowledgeBeforeFlush))
        {
            self.durable_lsn = frame.last_lsn;
            self.head_behind_since = Some(now);
            if frame.durable {
                self.counters.acknowledge(now, &frame.runs);
            }
            if frame.kind == Kind::Seal {
                self.counters.rotations += 1;
                self.head_wanted = true;
            }
            acknowledged = true;
            self.frames.pop_front();
            self.written_frames -= 1;
        }
        if acknowledged {
            let lone = self.frames.is_empty() && self.batch.is_none() && queue_is_empty;
            self.lone_batches = if lone { self.lone_batches.saturating_add(1) } else { 0 };
        }
    }
}
