//! What goes to the disk: frames, the seal of a full segment, flushes.

use ringbolt_disk::{Buffer, GRAIN, Op, Pool, Time, WriteMode};

use super::requests::Held;
use super::{
    ALONE_AFTER, ALONE_AGAIN_AFTER, ALONE_TIME_MAX, DEPTH, Frame, FrameState, Log, Next, Policy, Step,
    UNFLUSHED_FRAMES_BOUND, UNFLUSHED_FRAMES_MAX,
};
use crate::error::Error;
use crate::format::frame::{self, Kind, Place};
use crate::planted::{self, Bug};
use crate::wal::batch::Batch;
use crate::wal::machine::Machine;
use crate::wal::segment::Segment;

/// A batch up to this size, with nothing else in flight, may be written here and now by a blocking call: the
/// wake-ups that an overlapped write costs are longer than what could overlap. From here on a disk is kept busy by one
/// write alone (durable writes of 1 MiB a second, two at a time ÷ one: 1.1, of 4 KiB: 1.8; ext4 on virtio, Linux 6.18).
/// Only a run that is longer makes a batch that is.
const ALONE_BYTES_MAX: u64 = Pool::CAPACITY_MAX as u64;

impl Log {
    pub(super) fn next_write(&mut self, now: Time, wall_clock: u64, queue_is_empty: bool) -> Option<Step> {
        let batch = self.batch.as_ref()?;
        let frame_bytes = batch.frame_bytes();
        let ready =
            self.rotation.is_none() && self.writing < DEPTH && self.frames.len() < UNFLUSHED_FRAMES_BOUND;
        if !ready || !self.segment.fits(frame_bytes) || !self.segment.is_clear(frame_bytes) {
            return None;
        }
        // What nobody needs durable goes plainly in any case, so it has nothing to wait for.
        if self.is_awaited(batch) && self.may_go_alone(frame_bytes) && self.is_about_to_drain() {
            return None;
        }
        let mut batch = self.batch.take()?;
        assert_eq!(batch.first_lsn, self.next_lsn, "LSNs are dense and in order");
        let mode = self.mode(&batch, frame_bytes, queue_is_empty);
        self.since_alone = if mode == WriteMode::Alone { 0 } else { self.since_alone.saturating_add(1) };
        let stamp = self.stamp(wall_clock);
        self.previous_crc = frame::finish(&mut batch.buffer, batch.count, stamp, self.place());
        self.appended_bytes += frame_bytes;
        self.frame_bytes = (self.frame_bytes * 15 + frame_bytes) / 16;
        self.counters.batches += 1;
        let last_lsn = batch.last_lsn();
        let frame = self.frame(now, mode, Kind::Batch, last_lsn);
        let frame = Frame {
            record_bytes: batch.record_bytes,
            queue_bytes: batch.queue_bytes,
            runs: batch.runs,
            durable: batch.durable,
            ..frame
        };
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
            queue_bytes: 0,
            state: FrameState::Writing(mode),
            written_at: now,
            covered_by: None,
            runs: Vec::new(),
            durable: true,
        }
    }

    fn mode(&self, batch: &Batch, frame_bytes: u64, queue_is_empty: bool) -> WriteMode {
        if !self.is_awaited(batch) {
            return WriteMode::Plain;
        }
        let alone = self.frames.is_empty()
            && (self.may_go_alone(frame_bytes)
                || frame_bytes <= ALONE_BYTES_MAX && queue_is_empty && self.lone_batches >= ALONE_AFTER);
        match self.policy {
            Policy::Dsync | Policy::Hybrid if alone => WriteMode::Alone,
            Policy::Dsync => WriteMode::Dsync,
            Policy::Fdatasync | Policy::Hybrid => WriteMode::Plain,
        }
    }

    /// Whether somebody waits for records of this batch to be durable.
    fn is_awaited(&self, batch: &Batch) -> bool {
        batch.durable || self.durable_wanted >= batch.first_lsn
    }

    /// Whether a batch of this size does better alone even where another waits behind it.
    fn may_go_alone(&self, frame_bytes: u64) -> bool {
        self.policy != Policy::Fdatasync
            && frame_bytes <= ALONE_BYTES_MAX
            && (self.alone_time < ALONE_TIME_MAX || self.since_alone >= ALONE_AGAIN_AFTER)
    }

    /// Whether there are frames, each on its way to be durable. One that nobody waits for could stay for long.
    fn is_about_to_drain(&self) -> bool {
        !self.frames.is_empty() && self.frames.iter().all(|frame| frame.durable)
    }

    /// Send a finished frame to the tail. Every frame goes through here.
    fn submit_frame(&mut self, frame: Frame, mode: WriteMode, mut buffer: Buffer) -> Step {
        buffer.pad_to_grain();
        let at = self.segment.tail;
        if at == GRAIN as u64 {
            let Segment { number, bytes, .. } = self.segment;
            self.held.push(Held { number, bytes, first_lsn: frame.first_lsn });
        }
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

    /// Where the next batch does not fit the segment, or somebody asks for it, the log goes on in the next.
    pub(super) fn begin_rotation(&mut self) {
        let asked = self.is_rotation_due();
        if (asked || self.needs_next()) && self.rotation.is_none() {
            self.rotation = Some(self.link.begin());
        }
    }

    /// Whether the batch that is due does not fit the segment.
    fn needs_next(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| !self.segment.fits(batch.frame_bytes()))
    }

    /// Whether the seal is to be written now.
    pub(super) fn is_ready_to_rotate(&self) -> bool {
        // The seal says that the segment is complete and durable, and that the next one is there (format: a
        // seal's durable LSN is the LSN before it): so it waits for all of that.
        self.rotation.is_some_and(|round| self.link.is_confirmed(round))
            && self.frames.is_empty()
            && matches!(self.next, Next::Ready(_))
            && self.segment.is_clear(GRAIN as u64)
    }

    pub(super) fn seal(&mut self, now: Time, wall_clock: u64) -> Step {
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
        self.sealing(self.segment.number);
        // From here on only the seal's own frame holds the old segment's file, and with it its lock.
        self.segment = next;
        self.rotation = None;
        // Rule 14: who waits to know that records have a file with a name means the files they are in by then.
        self.flushes.check_again(&mut self.link);
        if let Some(round) = &mut self.closing {
            *round = self.link.begin();
        }
        step
    }

    /// The records that need a next segment for which there is no room.
    pub(super) fn refusal(&mut self) -> Option<Error> {
        let Next::NoSpace { error, needed: true } = &self.next else { return None };
        // Only with nothing at the disk: so what is written and what is refused add up.
        if self.writing > 0 {
            return None;
        }
        let error = error.clone();
        self.rotation = None;
        self.next = Next::None;
        self.refuse_rotations(&error);
        if !self.needs_next() {
            return None;
        }
        self.batch = None;
        self.take_back(self.next_lsn);
        let last = self.next_lsn - 1;
        self.durable_wanted = self.durable_wanted.min(last);
        self.flushes.take_back(last);
        Some(error)
    }

    pub(super) fn next_flush(&mut self, now: Time) -> Option<Step> {
        if self.flush.is_some() {
            return None;
        }
        let oldest = self.frames.iter().find(|frame| frame.state == FrameState::Written)?;
        let wanted = oldest.kind == Kind::Seal
            || oldest.first_lsn <= self.durable_wanted
            || self.rotation.is_some()
            || self.closing.is_some()
            || self.frames.len() > UNFLUSHED_FRAMES_MAX
            || now >= oldest.written_at.after(self.sync_delay);
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
        self.flush = Some((token, now));
        self.counters.syncs += 1;
        Some(Step::Submit(token, Op::Sync { file }))
    }

    /// Rule 14: a flush is answered once everything it covers is durable and the segment has its name.
    pub(super) fn settle_flush(&mut self) {
        if self.flushes.settle(self.durable_lsn, &self.link) {
            self.next_flush_request();
        }
    }

    /// Take up what waits, once there is nothing before it.
    pub(super) fn next_flush_request(&mut self) {
        if let Some(target_lsn) = self.flushes.begin(&mut self.link) {
            self.want_durable(target_lsn);
        }
    }
}
