//! What a service turns: a log as a state machine, whichever format it writes. Batches go in, operations come
//! out, completions go in, watermarks move. No I/O, no clock, no lock, so a test can step it by hand.

use std::fmt::Debug;
use std::time::Duration;

use ringbolt_disk::{Done, Op, Pool, Time, Token};

use crate::error::{Error, Result};
use crate::wal::batch::Batch;
use crate::wal::handle::{Answer, Request};
use crate::wal::stats::Counters;

/// What a turn asks its service to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Hand this to the driver.
    Submit(Token, Op),
    /// There is no room for the file that records would go into next: everything queued is refused, nothing of it
    /// was written.
    Refuse(Error),
}

/// A request, as the machine gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its answer's name.
    pub(crate) number: u64,
    /// What was asked.
    pub(crate) request: Request,
    /// The last LSN given out before it.
    pub(crate) last_lsn: u64,
}

pub(crate) trait Machine: Debug {
    /// Take a completion in; its buffer goes back to `pool`.
    fn on_done(&mut self, now: Time, done: Done, pool: &Pool, queue_is_empty: bool);

    /// What to do next, until `None`.
    fn next(&mut self, now: Time, wall_clock: u64, queue_is_empty: bool) -> Option<Step>;

    /// When to look again although nothing happened.
    fn deadline(&self) -> Option<Time>;

    /// Whether a batch would be sent now. Until then it stays in the mailbox, where more may join it.
    fn wants_batch(&self) -> bool;

    fn accept(&mut self, batch: Batch);

    /// Everything up to `lsn` is to become durable. May be called again with the same.
    fn want_durable(&mut self, lsn: u64);

    /// Answer flush requests up to `number`, once everything up to `target_lsn` is durable in a file that has
    /// a name. May be called again with the same.
    fn flush(&mut self, request: (u64, u64));

    /// Take a request in. Answered once, in [`Machine::answers`], unless the log fails first.
    fn ask(&mut self, asked: Asked);

    /// The answers since the last call.
    fn answers(&mut self) -> Vec<(u64, Result<Answer>)>;

    /// No batch and no request comes any more. May be called again.
    fn close(&mut self);

    /// Closed, or failed and told to close, and nothing is in flight any more: the locks may go (durability
    /// rule 8).
    fn is_finished(&self) -> bool;

    // The watermarks.

    fn written_lsn(&self) -> u64;

    fn durable_lsn(&self) -> u64;

    /// The LSN of the oldest record that is served.
    fn first_lsn(&self) -> u64;

    /// The LSN of the next batch: what is below was sent, and may be at the disk.
    fn next_lsn(&self) -> u64;

    fn flushes_done(&self) -> u64;

    fn failure(&self) -> Option<&Error>;

    // The figures.

    fn counters(&self) -> &Counters;

    /// The latencies of what was acknowledged since the last call, each for so many records.
    fn take_latencies(&mut self) -> std::vec::Drain<'_, (Duration, u32)>;

    /// Since when the oldest thing that somebody waits for is at the disk, or waits to be: a run not yet
    /// acknowledged as its owner asked, or a flush (rule 12).
    fn oldest_run(&self) -> Option<Time>;

    /// Batches at the disk.
    fn in_flight(&self) -> u64;

    /// While the log has nothing to do: how long a small write takes. `None` too where nothing is gained by handing
    /// over what there is before the caller is done.
    fn idle(&self) -> Option<Duration> {
        None
    }
}
