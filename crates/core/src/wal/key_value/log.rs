//! The key-value log as a pure state machine. `mod.rs` draws the life of an append and numbers the invariants cited
//! here. This page holds what the log knows, and the road of one write; `requests` what is asked of it beside, `mark`
//! what SYNCED says.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use ringbolt_disk::{Backend, Done, File, Op, Outcome, Pool, Time, Token, WriteMode};

use super::LogFile;
use super::mark::Mark;
use super::requests::{JobKind, Requests};
use crate::error::{Code, Error, Result};
use crate::format::synced::Synced;
use crate::format::{LogId, entry, log_file_name};
use crate::planted::{self, Bug};
use crate::wal::batch::Batch;
use crate::wal::flushes::Flushes;
use crate::wal::handle::{Answer, Opened, Recovery};
use crate::wal::link::Link;
use crate::wal::log::Policy;
use crate::wal::machine::{Asked, Machine, Step};
use crate::wal::stats::Counters;

/// SYNCED is synced after this long without work.
const IDLE: Duration = Duration::from_secs(1);

/// So many batches in a row must have found nobody waiting behind them before one is written by a blocking call.
const ALONE_AFTER: u32 = 2;

/// The largest batch that is.
const ALONE_BYTES_MAX: u64 = 128 << 10;

/// `EFBIG`: the file may not grow so far (a limit on the process, or the file system's).
const FILE_TOO_BIG: i32 = 27;

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
    pub(crate) fn opened(&self, backend: Backend, recovery: Recovery) -> Opened {
        let last = self.files.last().expect("a log has a file");
        Opened {
            recovery,
            backend,
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

/// How far the one write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
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
struct Write {
    token: Token,
    state: State,
    bytes: u64,
    first_lsn: u64,
    last_lsn: u64,
    record_bytes: u64,
    queue_bytes: u64,
    runs: Vec<(Time, u32)>,
    /// Whether somebody waits for it to be durable.
    durable: bool,
    /// Whether its first record is not the first of its run.
    is_continued: bool,
}

#[derive(Debug)]
pub(crate) struct Log {
    pub(super) directory: PathBuf,
    pub(super) file_mode: u32,
    policy: Policy,
    /// How long a write that nobody waits for may be without a flush: half of the interval promised.
    sync_delay: Duration,
    pub(super) file_bytes_max: u64,

    /// Oldest first; the last is the one that records go into, and `bytes` of it are durable.
    pub(super) files: VecDeque<LogFile>,
    pub(super) file: File,
    pub(super) batch: Option<Batch>,
    write: Option<Write>,
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
    written_lsn: u64,
    pub(super) durable_lsn: u64,
    durable_wanted: u64,
    pub(super) closing: Option<u64>,
    closed: bool,
    failure: Option<Error>,
    lone_batches: u32,
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
    }

    // ---- down: the one write ------------------------------------------------------------------------------

    /// Whether the batch that waits belongs into the next file.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.last().bytes;
        let more = self.batch.as_ref().map(|batch| batch.buffer.len() as u64);
        bytes > 0 && more.is_some_and(|more| bytes + more > self.file_bytes_max)
    }

    fn next_write(&mut self, queue_is_empty: bool) -> Option<Step> {
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

    fn next_flush(&mut self, now: Time, queue_is_empty: bool) -> Option<Step> {
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
    fn on_write(&mut self, now: Time, outcome: ringbolt_disk::Result<Outcome>, queue_is_empty: bool) {
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
    fn forget_write(&mut self) {
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
    fn next_refusal(&mut self) -> Option<Step> {
        let error = self.refused.take()?;
        self.batch = None;
        self.requests.take_back(self.next_lsn);
        let last = self.next_lsn - 1;
        self.durable_wanted = self.durable_wanted.min(last);
        self.flushes.take_back(last);
        Some(Step::Refuse(error))
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

/// Whether a write met a limit that it may not meet again.
fn is_full(error: &ringbolt_disk::Error) -> bool {
    error.is_no_space() || error.errno == FILE_TOO_BIG
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
        if let Some(op) = self.mark.next_write(token) {
            return Some(Step::Submit(token, op));
        }
        let is_closing = self.is_drained() && self.closing.is_some_and(|round| self.link.is_confirmed(round));
        let is_idle = self.mark.behind_since().is_some_and(|since| now >= since.after(IDLE));
        if (is_closing || is_idle || self.wants_mark())
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
