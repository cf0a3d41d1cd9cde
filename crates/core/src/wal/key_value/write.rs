//! The road of the one write that is at the disk: down, back up, and what a full disk makes of it.

use ringbolt_disk::{Op, Outcome, Time, Token, WriteMode};

use super::log::Log;
use crate::error::{Code, Error};
use crate::format::entry;
use crate::format::synced::Synced;
use crate::planted::{self, Bug};
use crate::wal::batch::Batch;
use crate::wal::log::Policy;
use crate::wal::machine::Step;

/// So many batches in a row must have found nobody waiting behind them before one is written by a blocking call.
pub(super) const ALONE_AFTER: u32 = 2;

/// The largest batch that is.
const ALONE_BYTES_MAX: u64 = 128 << 10;

/// How far the one write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// At the disk.
    Writing(WriteMode),
    /// There was no room for it: whether anything of it was written is being looked at.
    Looking,
    /// Complete; a flush submitted from now on covers it.
    Written(Time),
    /// That flush is at the disk, since then.
    Syncing(Time),
}

/// The one write that is not yet durable (invariant 1).
#[derive(Debug)]
pub(super) struct Write {
    pub(super) token: Token,
    pub(super) state: State,
    pub(super) bytes: u64,
    pub(super) first_lsn: u64,
    pub(super) last_lsn: u64,
    pub(super) record_bytes: u64,
    pub(super) queue_bytes: u64,
    pub(super) runs: Vec<(Time, u32)>,
    /// Whether somebody waits for it to be durable.
    pub(super) durable: bool,
    /// Whether its first record is not the first of its run.
    pub(super) is_continued: bool,
}

impl Log {
    // ---- down: the one write ------------------------------------------------------------------------------

    /// Whether the batch that waits belongs into the next file.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.last().bytes;
        let more = self.batch.as_ref().map(|batch| batch.buffer.len() as u64);
        bytes > 0 && more.is_some_and(|more| bytes + more > self.file_bytes_max)
    }

    pub(super) fn next_write(&mut self, queue_is_empty: bool) -> Option<Step> {
        if self.write.is_some() || self.rotation.is_some() || self.is_full() {
            return None;
        }
        let mut batch = self.batch.take()?;
        assert_eq!(batch.first_lsn, self.next_lsn, "LSNs are dense and in order");
        entry::finish(&mut batch.buffer);
        let mode = self.mode(&batch, queue_is_empty);
        let token = self.token();
        self.next_lsn = batch.last_lsn() + 1;
        self.counters.batches += 1;
        self.counters.syncs += u64::from(mode != WriteMode::Plain);
        self.write = Some(Write {
            token,
            state: State::Writing(mode),
            bytes: batch.buffer.len() as u64,
            first_lsn: batch.first_lsn,
            last_lsn: batch.last_lsn(),
            record_bytes: batch.record_bytes,
            queue_bytes: batch.queue_bytes,
            runs: batch.runs,
            durable: batch.durable,
            is_continued: batch.is_continued,
        });
        let (file, at) = (self.file.clone(), self.last().bytes);
        Some(Step::Submit(token, Op::Write { file, at, buffer: batch.buffer, mode }))
    }

    fn mode(&self, batch: &Batch, queue_is_empty: bool) -> WriteMode {
        if !batch.durable && self.durable_wanted < batch.first_lsn {
            return WriteMode::Plain;
        }
        let small = batch.buffer.len() as u64 <= ALONE_BYTES_MAX;
        match self.policy {
            Policy::Dsync | Policy::Hybrid if queue_is_empty && small && self.lone_batches >= ALONE_AFTER => {
                WriteMode::Alone
            }
            Policy::Dsync => WriteMode::Dsync,
            Policy::Fdatasync | Policy::Hybrid => WriteMode::Plain,
        }
    }

    pub(super) fn next_flush(&mut self, now: Time, queue_is_empty: bool) -> Option<Step> {
        let write = self.write.as_ref()?;
        let State::Written(written_at) = write.state else { return None };
        let wanted = write.first_lsn <= self.durable_wanted
            || !queue_is_empty
            || self.batch.is_some()
            || self.requests.wants_rotation(self.next_lsn)
            || self.closing.is_some()
            || now >= written_at.after(self.sync_delay);
        if !wanted {
            return None;
        }
        let token = self.token();
        let write = self.write.as_mut().expect("there is one, seen a moment ago");
        (write.token, write.state) = (token, State::Syncing(now));
        self.counters.syncs += 1;
        Some(Step::Submit(token, Op::Sync { file: self.file.clone() }))
    }

    // ---- back up ------------------------------------------------------------------------------------------

    /// Durability rule 3: every completion is looked at.
    pub(super) fn on_write(
        &mut self,
        now: Time,
        outcome: ringbolt_disk::Result<Outcome>,
        queue_is_empty: bool,
    ) {
        let write = self.write.as_mut().expect("a completion is of the write at the disk");
        match (write.state, outcome) {
            (State::Writing(_), Err(error)) if is_full(&error) && self.failure.is_none() => {
                // A write at the end of a file may have written a part of itself. A file that is as long as before got
                // nothing of it, since every byte of the write belongs behind that.
                write.state = State::Looking;
                self.requests.look = Some(error);
            }
            (State::Syncing(_), Err(error)) => self.fail(&Error::io("flushing the log", error)),
            (_, Err(error)) => self.fail(&Error::io("writing to the log", error)),
            (State::Writing(mode), Ok(_)) => {
                self.written(now);
                match mode {
                    WriteMode::Plain => {}
                    WriteMode::Dsync | WriteMode::Alone => self.settled(now, queue_is_empty),
                }
            }
            (State::Syncing(_), Ok(_)) => self.settled(now, queue_is_empty),
            (state, Ok(outcome)) => unreachable!("a write that is {state:?} ended in {outcome:?}"),
        }
    }

    /// The write is complete.
    fn written(&mut self, now: Time) {
        if self.failure.is_some() {
            return;
        }
        let write = self.write.as_mut().expect("it is complete");
        write.state = State::Written(now);
        self.written_lsn = write.last_lsn;
        self.counters.bytes += write.record_bytes;
        self.counters.queue_bytes += write.queue_bytes;
        self.counters.records += write.last_lsn + 1 - write.first_lsn;
        if !write.durable {
            self.counters.acknowledge(now, &write.runs);
        }
        if planted::is(Bug::SyncedBeforeSync) {
            let (last, bytes) = (*self.files.back().expect("a log has a file"), write.bytes);
            self.mark.move_to(now, Synced { file: last.number, offset: last.bytes + bytes });
        }
    }

    /// The write is durable: only now may another follow it, and SYNCED speak of it (invariants 1 and 2).
    fn settled(&mut self, now: Time, queue_is_empty: bool) {
        if self.failure.is_some() {
            return;
        }
        let write = self.write.take().expect("it is durable");
        assert_eq!(write.first_lsn, self.durable_lsn + 1, "rule 1: in order, without a gap");
        self.durable_lsn = write.last_lsn;
        self.lone_batches = if queue_is_empty { self.lone_batches.saturating_add(1) } else { 0 };
        if write.durable {
            self.counters.acknowledge(now, &write.runs);
        }
        let last = self.files.back_mut().expect("a log has a file");
        last.bytes += write.bytes;
        let first = last.lsns.map_or(write.first_lsn, |(first, _)| first.min(write.first_lsn));
        last.lsns = Some((first, write.last_lsn));
        let place = Synced { file: last.number, offset: last.bytes };
        self.mark.move_to(now, place);
    }

    /// Behind a failure nothing more is known of a write that is no longer at the disk.
    pub(super) fn forget_write(&mut self) {
        if self.failure.is_some() {
            self.write = None;
        }
    }

    /// The same, of a write that was being looked at.
    pub(super) fn forget_looked_at(&mut self) {
        if self.write.as_ref().is_some_and(|write| write.state == State::Looking) {
            self.forget_write();
        }
    }

    // ---- no space -----------------------------------------------------------------------------------------

    /// Nothing of the write is in the file: its records are refused, like native ones without a next segment (rule 9).
    /// Where that would tear a run whose beginning is written, nobody could be told the truth: the log fails.
    pub(super) fn nothing_was_written(&mut self, error: ringbolt_disk::Error) {
        let write = self.write.take().expect("it was looked at");
        if write.is_continued {
            let doing = "writing the rest of a batch whose beginning is written";
            return self.fail(&Error::io(doing, error));
        }
        self.counters.errors += 1;
        self.counters.batches -= 1;
        self.next_lsn = write.first_lsn;
        let doing = "appending to the log (free some space, or raise the limit)";
        self.refused = Some(Error::of_disk(Code::WalNoSpace, doing, error));
    }

    /// What waits is refused, and nothing waits for it any more.
    pub(super) fn next_refusal(&mut self) -> Option<Step> {
        let error = self.refused.take()?;
        self.batch = None;
        self.requests.take_back(self.next_lsn);
        let last = self.next_lsn - 1;
        self.durable_wanted = self.durable_wanted.min(last);
        self.flushes.take_back(last);
        Some(Step::Refuse(error))
    }
}

/// Whether a write met a limit that it may not meet again.
fn is_full(error: &ringbolt_disk::Error) -> bool {
    error.is_no_space() || error.is_file_too_large()
}
