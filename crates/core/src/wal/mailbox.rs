//! What a log's handle and its service share: the mailbox in, the watermarks out, one lock over both, held
//! for a copy or a few assignments.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ringbolt_disk::{Fs, Pool, Time, Waker};

use crate::error::{Code, Error, Result};
use crate::format::LSN_MAX;
use crate::latency::{Latencies, Latency};
use crate::planted::{self, Bug};
use crate::wal::batch::{self, Batch, Batches, Layout};
use crate::wal::handle::{Answer, Listener, Opened, Options, Phase, Refusal, Request, Run, Stats, Status};
use crate::wal::machine::{Asked, Machine};

/// The listener hears of a recovery's progress each time so many more bytes were read.
const PROGRESS_BYTES: u64 = 16 << 20;

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) pool: Pool,
    listener: Listener,
    /// Set once the log is open; what was asked before is found by the first turn, which is woken for it.
    waker: OnceLock<Waker>,
    inbox: Mutex<Inbox>,
    /// Rung where a watermark moved and somebody sleeps until it does.
    settled: Condvar,
    /// While the service sleeps and has nothing to do: how long a small write takes, in microseconds; else [`BUSY`].
    /// What is read here may be old the next moment, and decides only when records are handed over.
    idle: AtomicU32,
}

/// What the service says while it is not idle.
const BUSY: u32 = u32::MAX;

/// What waits for the service, and what it told last.
struct Inbox {
    status: Status,
    opened: Option<Opened>,
    failure: Option<Error>,
    refusal: Option<Refusal>,
    batches: Batches,
    /// The LSN that the next run must begin with.
    next_lsn: u64,
    /// Of what was accepted and is not yet written, see [`batch::queue_bytes`]; never above the option's bound, but for
    /// one record.
    queued_bytes: u64,
    durable_wanted: u64,
    /// The newest flush request, and the LSN it is for.
    flush: (u64, u64),
    /// Requests not yet taken, and the number of the newest.
    requests: Vec<Asked>,
    asked: u64,
    /// Answers not yet fetched.
    answers: Vec<(u64, Result<Answer>)>,
    /// Threads that sleep on `settled`.
    sleepers: usize,
    closing: bool,
    stats: Stats,
    oldest_run: Option<Time>,
    /// From accept to acknowledgement.
    latency: Latencies,
}

/// What a turn of the service takes out of the mailbox.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) batch: Option<Batch>,
    pub(crate) durable_wanted: u64,
    pub(crate) flush: (u64, u64),
    pub(crate) requests: Vec<Asked>,
    pub(crate) closing: bool,
    pub(crate) queue_is_empty: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.options.directory.display())
    }
}

impl Shared {
    pub(crate) fn new(options: Options, fs: Arc<dyn Fs>, listener: Listener) -> Self {
        let inbox = Inbox {
            status: Status {
                phase: Phase::Opening,
                ended: false,
                first_lsn: 1,
                written_lsn: 0,
                durable_lsn: 0,
                queue_bytes_written: 0,
                flushes_done: 0,
                answers: 0,
                epoch: 0,
                recovery_bytes: (0, 0),
            },
            opened: None,
            failure: None,
            refusal: None,
            batches: Batches::new(Layout::of(&options)),
            next_lsn: 1,
            queued_bytes: 0,
            durable_wanted: 0,
            flush: (0, 0),
            requests: Vec::new(),
            asked: 0,
            answers: Vec::new(),
            sleepers: 0,
            closing: false,
            stats: Stats::default(),
            oldest_run: None,
            latency: Latencies::default(),
        };
        Self {
            options,
            fs,
            pool: Pool::default(),
            listener,
            waker: OnceLock::new(),
            inbox: Mutex::new(inbox),
            settled: Condvar::new(),
            idle: AtomicU32::new(BUSY),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Whoever panicked while holding it did so before changing anything, or between plain assignments;
        // the service's panic is told as a failure of the log.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tell whoever listens, and whoever sleeps until something settles.
    fn tell(&self, inbox: MutexGuard<'_, Inbox>) {
        let sleepers = inbox.sleepers;
        drop(inbox);
        if sleepers > 0 {
            self.settled.notify_all();
        }
        (self.listener)();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    // ---- the handle's side --------------------------------------------------------------------------------

    pub(crate) fn submit(&self, run: Run<'_>, queue_bytes: u64) -> Result<()> {
        let count = batch::count(run.records);
        let now = self.fs.now();
        let mut inbox = self.inbox();
        inbox.check_open()?;
        if run.epoch != inbox.status.epoch && !planted::is(Bug::RefusedNumbersTwice) {
            // Its LSNs were taken back before it came; the refusal answers for it.
            return Ok(());
        }
        inbox.check_room(queue_bytes, self.options.queue_bytes_max)?;
        assert_eq!(run.first_lsn, inbox.next_lsn, "runs come in LSN order");
        if run.first_lsn + u64::from(count) > LSN_MAX {
            let message = format!("the log has given out its last number, {}", run.first_lsn - 1);
            return Err(Error::new(Code::WalUnsupported, message).path(&self.options.directory));
        }
        inbox.next_lsn += u64::from(count);
        inbox.queued_bytes += queue_bytes;
        inbox.batches.push(&self.pool, &run, queue_bytes, now);
        // Asleep it may be, but not for long. It says so again when it is done with these.
        self.set_idle(None);
        drop(inbox);
        self.wake();
        Ok(())
    }

    /// How long a small write takes, while the service has nothing to do.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let micros = self.idle.load(Ordering::Relaxed);
        (micros != BUSY).then(|| Duration::from_micros(micros.into()))
    }

    pub(crate) fn want_durable(&self, lsn: u64) {
        let mut inbox = self.inbox();
        inbox.durable_wanted = inbox.durable_wanted.max(lsn.min(inbox.next_lsn - 1));
        drop(inbox);
        self.wake();
    }

    pub(crate) fn flush(&self) -> u64 {
        let mut inbox = self.inbox();
        inbox.flush = (inbox.flush.0 + 1, inbox.next_lsn - 1);
        let number = inbox.flush.0;
        drop(inbox);
        self.wake();
        number
    }

    /// Ask for something; returns the number that its answer will have.
    pub(crate) fn ask(&self, request: Request) -> u64 {
        let mut inbox = self.inbox();
        inbox.asked += 1;
        let asked = Asked { number: inbox.asked, request, last_lsn: inbox.next_lsn - 1 };
        inbox.requests.push(asked);
        drop(inbox);
        self.wake();
        asked.number
    }

    pub(crate) fn take_answers(&self) -> Vec<(u64, Result<Answer>)> {
        std::mem::take(&mut self.inbox().answers)
    }

    /// Sleep until `lsn`, submitted in `epoch`, is durable, or will not be.
    pub(crate) fn wait_durable(&self, lsn: u64, epoch: u64) -> Result<()> {
        self.want_durable(lsn);
        let mut inbox = self.inbox();
        inbox.sleepers += 1;
        let outcome = loop {
            // First: the number may have been given out again since.
            if let Some(refusal) = inbox.refusal.as_ref().filter(|refusal| refusal.epoch > epoch)
                && refusal.from_lsn <= lsn
            {
                break Err(refusal.error.clone());
            }
            if inbox.status.durable_lsn >= lsn {
                break Ok(());
            }
            if let Some(failure) = &inbox.failure {
                break Err(failure.clone());
            }
            if inbox.status.ended {
                break Err(Error::new(Code::WalClosed, "the log ended before the record was durable"));
            }
            inbox = self.settled.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        };
        inbox.sleepers -= 1;
        outcome
    }

    pub(crate) fn close(&self) {
        self.inbox().closing = true;
        self.wake();
    }

    pub(crate) fn status(&self) -> Status {
        self.inbox().status
    }

    pub(crate) fn opened(&self) -> Option<Opened> {
        self.inbox().opened.clone()
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.inbox().failure.clone()
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.inbox().refusal.clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        let now = self.fs.now();
        let inbox = self.inbox();
        let oldest = inbox.oldest_run.or(inbox.batches.oldest_run());
        let Latency { p50, p99, max } = inbox.latency.summary();
        Stats {
            oldest_in_flight: oldest.map_or(Duration::ZERO, |accepted| now.since(accepted)),
            latency_p50: p50,
            latency_p99: p99,
            latency_max: max,
            ..inbox.stats.clone()
        }
    }

    // ---- the service's side -------------------------------------------------------------------------------

    /// Tell how far a recovery has come, and hear whether it is still wanted.
    pub(crate) fn progress(&self, bytes: u64, total: u64) -> Result<()> {
        let mut inbox = self.inbox();
        let told = inbox.status.recovery_bytes.0;
        if bytes >= told + PROGRESS_BYTES || bytes < told {
            inbox.check_wanted()?;
            inbox.status.recovery_bytes = (bytes, total);
            drop(inbox);
            (self.listener)();
        }
        Ok(())
    }

    /// Whether somebody still waits for the log to open. Asked wherever that takes long and nothing has been
    /// changed yet: a wait that was given up must not keep a process, or whoever opens next, waiting.
    ///
    /// # Errors
    /// `ERR_WAL_CLOSED`.
    pub(crate) fn check_wanted(&self) -> Result<()> {
        self.inbox().check_wanted()
    }

    /// The log is open.
    pub(crate) fn open(&self, opened: Opened, waker: Waker) {
        // The first and only time: a service opens once.
        let _ = self.waker.set(waker);
        let mut inbox = self.inbox();
        inbox.next_lsn = opened.last_lsn + 1;
        inbox.status.first_lsn = opened.first_lsn;
        inbox.status.written_lsn = opened.last_lsn;
        inbox.status.durable_lsn = opened.last_lsn;
        inbox.status.phase = Phase::Open;
        inbox.opened = Some(opened);
        drop(inbox);
        // Whoever asked for something until now (to close, to flush) had nobody to wake: without this the first
        // turn would sleep over it.
        self.wake();
        (self.listener)();
    }

    /// Take what the log has a place for.
    pub(crate) fn take(&self, wants_batch: bool) -> Intake {
        let mut inbox = self.inbox();
        let batch = if wants_batch { inbox.batches.pop() } else { None };
        Intake {
            batch,
            durable_wanted: inbox.durable_wanted,
            flush: inbox.flush,
            requests: std::mem::take(&mut inbox.requests),
            closing: inbox.closing,
            queue_is_empty: inbox.batches.is_empty(),
        }
    }

    /// Say whether the service has nothing to do.
    pub(crate) fn set_idle(&self, alone_time: Option<Duration>) {
        let micros = alone_time.map_or(BUSY, |time| u32::try_from(time.as_micros()).unwrap_or(BUSY));
        self.idle.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn queue_is_empty(&self) -> bool {
        self.inbox().batches.is_empty()
    }

    /// Tell how far the log is. The listener hears of it where a watermark moved.
    pub(crate) fn publish(&self, log: &mut dyn Machine) {
        let mut inbox = self.inbox();
        let before = inbox.status;
        let status = &mut inbox.status;
        status.first_lsn = log.first_lsn();
        status.written_lsn = log.written_lsn();
        status.durable_lsn = log.durable_lsn();
        status.flushes_done = log.flushes_done();
        let counters = log.counters();
        let written = counters.queue_bytes - status.queue_bytes_written;
        status.queue_bytes_written = counters.queue_bytes;
        inbox.queued_bytes -= written;
        inbox.stats = Stats {
            runs: counters.runs,
            records: counters.records,
            bytes: counters.bytes,
            batches: counters.batches,
            syncs: counters.syncs,
            rotations: counters.rotations,
            errors: counters.errors,
            in_flight: log.in_flight(),
            ..Stats::default()
        };
        inbox.oldest_run = log.oldest_run();
        for (latency, count) in log.take_latencies() {
            inbox.latency.record(latency, count);
        }
        if let Some(failure) = log.failure()
            && inbox.failure.is_none()
        {
            inbox.fail(failure);
        }
        let answers = log.answers();
        inbox.status.answers += answers.len() as u64;
        inbox.answers.extend(answers);
        if inbox.status != before {
            self.tell(inbox);
        }
    }

    /// Refuse everything from `from_lsn` on: none of it was written, its LSNs are free again (rule 9).
    pub(crate) fn refuse(&self, from_lsn: u64, error: Error) {
        let mut inbox = self.inbox();
        inbox.batches.clear();
        inbox.queued_bytes = 0;
        inbox.next_lsn = from_lsn;
        inbox.durable_wanted = inbox.durable_wanted.min(from_lsn - 1);
        inbox.flush.1 = inbox.flush.1.min(from_lsn - 1);
        for asked in &mut inbox.requests {
            asked.last_lsn = asked.last_lsn.min(from_lsn - 1);
        }
        inbox.status.epoch += 1;
        let epoch = inbox.status.epoch;
        inbox.refusal = Some(Refusal { epoch, from_lsn, error });
        self.tell(inbox);
    }

    /// The log failed, or could not be opened (rule 2).
    pub(crate) fn fail(&self, error: &Error) {
        let mut inbox = self.inbox();
        if inbox.failure.is_none() {
            inbox.fail(error);
        }
        self.tell(inbox);
    }

    /// The service's thread is done: every completion is in, the locks are released.
    pub(crate) fn end(&self) {
        let mut inbox = self.inbox();
        inbox.status.phase = Phase::Closed;
        inbox.status.ended = true;
        inbox.batches.clear();
        self.tell(inbox);
    }
}

impl Inbox {
    fn fail(&mut self, error: &Error) {
        self.failure = Some(error.clone());
        self.status.phase = Phase::Failed;
        self.batches.clear();
    }

    fn check_wanted(&self) -> Result<()> {
        if self.closing {
            return Err(Error::new(Code::WalClosed, "the log was closed while it was being opened"));
        }
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            let message = format!("the log takes no more records since it failed: {failure}; open it again");
            return Err(Error::new(Code::WalPoisoned, message).because(failure));
        }
        if self.closing || self.status.phase != Phase::Open {
            return Err(Error::new(Code::WalClosed, "appending to a log that is not open"));
        }
        Ok(())
    }

    fn check_room(&self, bytes: u64, limit: u64) -> Result<()> {
        // One record above the limit is taken where nothing waits: else it could never be appended.
        if self.queued_bytes == 0 || self.queued_bytes + bytes <= limit {
            return Ok(());
        }
        let queued = self.queued_bytes;
        let message = format!(
            "{bytes} bytes on top of {queued} that wait to be written are above the limit of {limit}; \
             wait for some appends to settle"
        );
        Err(Error::new(Code::WalQueueFull, message).with(|details| {
            details.size = Some(bytes);
            details.limit = Some(limit);
        }))
    }
}
