//! The key-value log as a pure state machine. `mod.rs` draws the life of an append and numbers the invariants cited
//! here. This page holds what the log knows and what it decides first; `write` the road of one write, `requests` what is asked
//! of it beside, `mark` what SYNCED says.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use ringbolt_disk::{Backend, Done, File, Pool, Time, Token};

use super::LogFile;
use super::mark::Mark;
use super::requests::{JobKind, Requests};
use super::write::{ALONE_AFTER, State, Write};
use crate::error::{Error, Result};
use crate::format::synced::Synced;
use crate::format::{LogId, log_file_name};
use crate::wal::batch::Batch;
use crate::wal::flushes::Flushes;
use crate::wal::handle::{Answer, Opened, Recovery};
use crate::wal::link::Link;
use crate::wal::log::Policy;
use crate::wal::machine::{Asked, Machine, Step};
use crate::wal::stats::Counters;

/// SYNCED is synced after this long without work.
const IDLE: Duration = Duration::from_secs(1);

/// What recovery hands to the state machine.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) directory: PathBuf,
    pub(crate) file_mode: u32,
    pub(crate) policy: Policy,
    pub(crate) sync_interval: Duration,
    /// The log's files, oldest first; records go on into the last.
    pub(crate) files: Vec<LogFile>,
    /// The last one, open and locked.
    pub(crate) file: File,
    /// SYNCED, which says that all of this is durable.
    pub(crate) synced: File,
    /// The LSN due next; everything below is durable.
    pub(crate) next_lsn: u64,
}

impl Start {
    /// What the handle is told.
    pub(crate) fn opened(
        &self,
        backend: Backend,
        backend_reason: Option<String>,
        recovery: Recovery,
    ) -> Opened {
        let last = self.files.last().expect("a log has a file");
        Opened {
            recovery,
            backend,
            backend_reason,
            first_lsn: first_lsn(&self.files).unwrap_or(self.next_lsn),
            last_lsn: self.next_lsn - 1,
            end: (last.number, last.bytes),
            direct_io: false,
            durability: self.policy.name(),
            log_id: LogId([0; 16]),
            incarnation: 0,
        }
    }
}

/// The least LSN in these files.
fn first_lsn<'a>(files: impl IntoIterator<Item = &'a LogFile>) -> Option<u64> {
    files.into_iter().filter_map(|file| file.lsns).map(|(first, _)| first).min()
}

#[derive(Debug)]
pub(crate) struct Log {
    pub(super) directory: PathBuf,
    pub(super) file_mode: u32,
    pub(super) policy: Policy,
    /// How long a write that nobody waits for may be without a flush: half of the interval promised.
    pub(super) sync_delay: Duration,
    pub(super) file_bytes_max: u64,

    /// Oldest first; the last is the one that records go into, and `bytes` of it are durable.
    pub(super) files: VecDeque<LogFile>,
    pub(super) file: File,
    pub(super) batch: Option<Batch>,
    pub(super) write: Option<Write>,
    /// There was no room: what waits is to be refused.
    pub(super) refused: Option<Error>,
    pub(super) mark: Mark,
    pub(super) jobs: Vec<(Token, JobKind)>,
    pub(super) requests: Requests,
    pub(super) answers: Vec<(u64, Result<Answer>)>,
    /// Some while the log waits to go on in the next file: the round of link checks this waits for.
    pub(super) rotation: Option<u64>,
    pub(super) link: Link,
    pub(super) flushes: Flushes,

    pub(super) next_lsn: u64,
    pub(super) written_lsn: u64,
    pub(super) durable_lsn: u64,
    pub(super) durable_wanted: u64,
    pub(super) closing: Option<u64>,
    closed: bool,
    pub(super) failure: Option<Error>,
    pub(super) lone_batches: u32,
    next_token: u64,
    pub(super) counters: Counters,
}

impl Log {
    pub(crate) fn new(start: Start, file_bytes_max: u64) -> Self {
        let durable_lsn = start.next_lsn - 1;
        let last = *start.files.last().expect("a log has a file");
        let synced = Synced { file: last.number, offset: last.bytes };
        Self {
            directory: start.directory,
            file_mode: start.file_mode,
            policy: start.policy,
            sync_delay: start.sync_interval / 2,
            file_bytes_max,
            files: start.files.into(),
            file: start.file,
            batch: None,
            write: None,
            refused: None,
            mark: Mark::new(start.synced, synced),
            jobs: Vec::new(),
            requests: Requests::default(),
            answers: Vec::new(),
            rotation: None,
            link: Link::default(),
            flushes: Flushes::default(),
            next_lsn: start.next_lsn,
            written_lsn: durable_lsn,
            durable_lsn,
            durable_wanted: 0,
            closing: None,
            closed: false,
            failure: None,
            lone_batches: ALONE_AFTER,
            next_token: 0,
            counters: Counters::default(),
        }
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// The file that records go into.
    pub(super) fn last(&self) -> &LogFile {
        self.files.back().expect("a log has a file")
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.directory.join(log_file_name(number))
    }

    /// Whether everything that was taken is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.write.is_none()
    }

    /// Rule 2: the first failure ends the log. What is in flight is awaited and believed no more.
    pub(super) fn fail(&mut self, error: &Error) {
        self.counters.errors += 1;
        if self.failure.is_none() {
            self.failure = Some(error.clone());
        }
        // Nobody will look any more at what a write left that met a full disk: nothing is awaited of it.
        if self.requests.look.take().is_some() {
            self.write = None;
        }
    }

    // ---- flush requests -----------------------------------------------------------------------------------

    fn next_flush_request(&mut self) {
        if let Some(target_lsn) = self.flushes.begin(&mut self.link) {
            self.want_durable(target_lsn);
        }
    }

    /// Told to close, and nothing is left to do but SYNCED.
    fn is_drained(&self) -> bool {
        self.batch.is_none()
            && self.write.is_none()
            && self.refused.is_none()
            && self.rotation.is_none()
            && self.jobs.is_empty()
            && self.flushes.is_empty()
            && self.requests.is_empty()
    }
}

impl Machine for Log {
    fn on_done(&mut self, now: Time, done: Done, pool: &Pool, queue_is_empty: bool) {
        let Done { token, outcome, buffer } = done;
        if let Some(outcome) = self.mark.on_done(token, &outcome) {
            if let Err(error) = outcome {
                self.fail(&Error::io("telling SYNCED how far the log is durable", error));
            }
            return;
        }
        if let Some(buffer) = buffer {
            pool.give(buffer);
        }
        if let Some(index) = self.jobs.iter().position(|(job, _)| *job == token) {
            let (_, kind) = self.jobs.swap_remove(index);
            return self.on_job(now, kind, outcome);
        }
        let is_ours = self.write.as_ref().is_some_and(|write| write.token == token);
        assert!(is_ours, "a completion belongs to SYNCED, a job or the write");
        self.on_write(now, outcome, queue_is_empty);
        self.forget_write();
    }

    fn next(&mut self, now: Time, _wall_clock: u64, queue_is_empty: bool) -> Option<Step> {
        if self.failure.is_some() || self.closed {
            return None;
        }
        if self.flushes.settle(self.durable_lsn, &self.link) {
            self.next_flush_request();
        }
        if let Some(step) = self.next_refusal() {
            return Some(step);
        }
        self.begin_rotation();
        if let Some(step) = self.next_request() {
            return Some(step);
        }
        let token = self.token();
        // Before SYNCED is written again: where appends never pause it always is to be.
        if self.removal_wants_mark()
            && let Some(op) = self.mark.next_sync(token)
        {
            return Some(Step::Submit(token, op));
        }
        if let Some(op) = self.mark.next_write(token) {
            return Some(Step::Submit(token, op));
        }
        let is_closing = self.is_drained() && self.closing.is_some_and(|round| self.link.is_confirmed(round));
        let is_idle = self.mark.behind_since().is_some_and(|since| now >= since.after(IDLE));
        if (is_closing || is_idle || self.rotation.is_some())
            && let Some(op) = self.mark.next_sync(token)
        {
            return Some(Step::Submit(token, op));
        }
        self.closed = is_closing && self.mark.is_synced() && !self.mark.is_at_the_disk();
        self.next_flush(now, queue_is_empty).or_else(|| self.next_write(queue_is_empty))
    }

    fn deadline(&self) -> Option<Time> {
        if self.failure.is_some() || self.closed {
            return None;
        }
        let flush = self.write.as_ref().and_then(|write| match write.state {
            State::Written(at) => Some(at.after(self.sync_delay)),
            State::Writing(_) | State::Looking | State::Syncing(_) => None,
        });
        let mark = self.mark.behind_since().map(|since| since.after(IDLE));
        flush.into_iter().chain(mark.filter(|_| !self.mark.is_at_the_disk())).min()
    }

    fn wants_batch(&self) -> bool {
        let is_free = self.batch.is_none() && self.write.is_none() && self.refused.is_none();
        is_free && self.rotation.is_none() && self.failure.is_none()
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

    fn ask(&mut self, asked: Asked) {
        self.take_request(asked);
    }

    fn answers(&mut self) -> Vec<(u64, Result<Answer>)> {
        std::mem::take(&mut self.answers)
    }

    fn close(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(self.link.begin());
        }
    }

    fn is_finished(&self) -> bool {
        let is_writing = self.write.as_ref().is_some_and(|write| !matches!(write.state, State::Written(_)));
        let is_quiet = !is_writing && self.jobs.is_empty() && !self.mark.is_at_the_disk();
        is_quiet && (self.closed || self.failure.is_some() && self.closing.is_some())
    }

    fn written_lsn(&self) -> u64 {
        self.written_lsn
    }

    fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    fn first_lsn(&self) -> u64 {
        first_lsn(&self.files).unwrap_or(self.durable_lsn + 1)
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
        let write = self.write.as_ref();
        let waited_for = write.filter(|write| write.durable || !matches!(write.state, State::Written(_)));
        let runs = waited_for.map(|write| &write.runs).or(self.batch.as_ref().map(|batch| &batch.runs));
        let run = runs.and_then(|runs| runs.first()).map(|&(accepted, _)| accepted);
        let syncing = write.and_then(|write| match write.state {
            State::Syncing(since) => Some(since),
            State::Writing(_) | State::Looking | State::Written(_) => None,
        });
        run.into_iter().chain(syncing).min()
    }

    fn in_flight(&self) -> u64 {
        self.write.as_ref().map_or(0, |write| u64::from(matches!(write.state, State::Writing(_))))
    }
}
