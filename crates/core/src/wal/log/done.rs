//! What comes back from the disk, and how far the watermarks move for it.

use std::time::Duration;

use ringbolt_disk::{Done, Outcome, Pool, Time, Token, WriteMode};

use super::{ALONE_TIME_COUNTED, FrameState, Log};
use crate::error::Error;
use crate::format::frame::Kind;
use crate::planted::{self, Bug};

impl Log {
    pub(super) fn take_done(&mut self, now: Time, done: Done, pool: &Pool, queue_is_empty: bool) {
        if let Some(buffer) = done.buffer {
            pool.give(buffer);
        }
        if let Some(index) = self.jobs.iter().position(|(token, _)| *token == done.token) {
            let (_, kind) = self.jobs.swap_remove(index);
            self.on_job(now, kind, done.outcome);
        } else if self.flush.is_some_and(|(token, _)| token == done.token) {
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

    /// Durability rule 3: every completion is looked at, also where a flush follows that could succeed.
    pub(super) fn on_written(&mut self, now: Time, token: Token, outcome: ringbolt_disk::Result<Outcome>) {
        // Behind the complete ones at the front: in a log without a flush in sight these are many.
        let mut writing = self.frames.range(self.written_frames..);
        let index = writing.position(|frame| frame.token == token);
        let index = index.expect("a completion belongs to a flush, a job or a frame") + self.written_frames;
        self.writing -= 1;
        if let Err(error) = outcome {
            let error = self.named(error, self.frames[index].segment);
            return self.fail(&Error::io("writing to the log", error));
        }
        let frame = &mut self.frames[index];
        let FrameState::Writing(mode) = frame.state else { unreachable!("a write completes once") };
        if mode == WriteMode::Alone {
            // While bytes move the disk has enough to do: a large frame that takes long does not make it a slow disk. At a
            // gigabyte a second, somewhat less than the disk moves where this was measured.
            let transfer = Duration::from_nanos(frame.record_bytes);
            let took = now.since(frame.written_at).saturating_sub(transfer).min(ALONE_TIME_COUNTED);
            self.alone_time = (self.alone_time * 7 + took) / 8;
        }
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

    pub(super) fn on_flushed(&mut self, token: Token) {
        for frame in &mut self.frames {
            if frame.covered_by == Some(token) {
                assert_eq!(frame.state, FrameState::Written, "a flush covers complete frames only");
                frame.state = FrameState::Durable;
            }
        }
    }

    /// Rule 2: the first failure ends the log. What is in flight is awaited and believed no more.
    pub(super) fn fail(&mut self, error: &Error) {
        self.counters.errors += 1;
        if self.failure.is_none() {
            self.failure = Some(error.clone());
        }
    }

    /// Move the watermarks over what is complete, and what is durable, without a gap (rule 1).
    pub(super) fn advance(&mut self, now: Time, queue_is_empty: bool) {
        if self.failure.is_some() {
            return;
        }
        while let Some(frame) = self.frames.get(self.written_frames)
            && !matches!(frame.state, FrameState::Writing(_))
        {
            self.written_frames += 1;
            self.written_lsn = frame.last_lsn;
            self.counters.bytes += frame.record_bytes;
            self.counters.queue_bytes += frame.queue_bytes;
            if frame.kind == Kind::Batch {
                self.counters.records += frame.last_lsn + 1 - frame.first_lsn;
            }
            if !frame.durable {
                self.counters.acknowledge(now, &frame.runs);
            }
        }
        let mut acknowledged = false;
        let mut sealed = None;
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
                sealed = Some(frame.segment);
            }
            acknowledged = true;
            self.frames.pop_front();
            self.written_frames -= 1;
        }
        if let Some(segment) = sealed {
            self.sealed(segment);
        }
        if planted::is(Bug::AcknowledgeOutOfOrder)
            && let Some(frame) = self.frames.iter().rfind(|frame| frame.state == FrameState::Durable)
        {
            self.durable_lsn = frame.last_lsn;
        }
        if acknowledged {
            let lone = self.frames.is_empty() && self.batch.is_none() && queue_is_empty;
            self.lone_batches = if lone { self.lone_batches.saturating_add(1) } else { 0 };
        }
    }

    /// An error of a segment, by the name that people find it by: the file was opened when it had another.
    pub(super) fn named(&self, mut error: ringbolt_disk::Error, segment: u64) -> ringbolt_disk::Error {
        error.path = self.maker.path(segment);
        error
    }
}
