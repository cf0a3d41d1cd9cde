//! The `threads` backend: positioned reads and writes on a small pool of threads, for wherever `io_uring` is not to be
//! had. Containers forbid it, old kernels lack it, and macOS and Windows never had it.
//!
//! # The life of an operation
//!
//! ```text
//!     any thread, in submit                         one of the pool's threads
//!   ┌─────────────────────────┐   ┌─────────────────────────────────────────────────────────┐
//!   │     under the lock      │   │ with the lock: takes what is next, or sleeps            │
//!   │                         │   │   │                                                     │
//! Op├─▶ transfers ────────────┼──▶│   ├─▶ without it: pread, pwrite, fdatasync ─┐           │
//!   ├─▶ jobs ─────────────────┼──▶│   └─▶ without it: the job ──────────────────┴─▶ Done ─┐ │
//!   │   wake a thread, or     │   │                                                       │ │
//!   │   start one             │◀──┼─────────────────────────────── more Op ◀── OnDone ◀───┘ │
//!   └─────────────────────────┘   └─────────────────────────────────────────────────────────┘
//! ```
//!
//! An operation moves from its queue to the thread that does it, with its file and its buffer, and is done there from
//! its first byte to its last: a short write is finished by the same thread, a durable one flushed by it. The file is let
//! go of before the [`Done`] is told. Nothing here is unsafe, and nothing here knows which system it runs on: it calls
//! [`mod@crate::os`].
//!
//! A driver of it ([`crate::engine::EngineDriver`]) does a lone write on its own thread, where nothing stands between
//! the service and the disk; the pool's threads are for what overlaps.
//!
//! # Lanes and bounds
//!
//! Transfers (reads, writes, flushes) and jobs have a lane each: a queue, first in first out, and a bound of how many are
//! under way. Threads belong to neither. One that looks for work takes from the two lanes by turns, so where there are
//! fewer threads than work neither keeps out the other; and as a lane's bound counts what is under way, jobs that take
//! long leave the transfers as many threads as they may have.
//!
//! | what | bound | when it is reached |
//! | --- | --- | --- |
//! | transfers under way | `depth`, at most `DEPTH_MAX` | the rest waits in its lane |
//! | jobs under way | `helpers` | the rest waits in its lane; with one helper they run in order |
//! | threads | the two bounds together | cannot be: no more can be busy |
//! | queues | none here | the caller bounds what it submits |
//!
//! # Sleep and wake
//!
//! Work is *ready* where its lane's bound lets it begin. Whoever makes work ready sees to it that one more thread looks
//! for some: a submitter wakes one that sleeps, or starts one where more is ready than there are idle threads; a thread
//! that ends its work looks itself. So no ready work waits while a thread sleeps. That a thread was woken for work which
//! another has taken is no harm: it looks, and sleeps again.
//!
//! The first thread is started with the pool. Where a later one is refused, by a limit on threads or for want of
//! memory, those that there are do its share, and the next submission tries again.
//!
//! # Panics
//!
//! A job that panics fails, a listener that panics loses what it was told; the thread goes on. So it is with an
//! operation, which can only panic by a mistake of ours: its owner hears `EIO`.
//!
//! # The end
//!
//! The drop lets everything that was accepted come to its [`Done`], what [`OnDone`] adds too: `outstanding` counts
//! them, from their acceptance until [`OnDone`] has returned and what it added is accepted. At zero the threads end,
//! and are joined.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::os::{OsFs, file_system};
use crate::{
    Backend, Buffer, Disk, Done, Engine, EngineOptions, Error, Fs, OnDone, Op, Outcome, Result, SharedDisk,
    Token, WriteMode, job,
};

/// More threads at the disk than this gain nothing on any device.
const DEPTH_MAX: usize = 64;

/// What a log has at the disk: four batches, and a flush behind them.
pub(crate) const LOG: EngineOptions = EngineOptions { depth: 8, helpers: 1 };

/// The name of each thread.
const NAME: &str = "ringbolt-pool";

/// The disk of this system for a service with a thread of its own, on a pool of threads.
pub fn disk() -> Disk {
    shared_disk().into_disk(LOG)
}

/// The disk of this system for a service whose callers submit on their own threads, on a pool of threads.
pub fn shared_disk() -> SharedDisk {
    let fs = file_system();
    let jobs = Arc::clone(&fs);
    SharedDisk {
        fs,
        engine: Box::new(move |options, on_done| Ok(Box::new(ThreadPool::new(jobs, options, on_done)?))),
        backend: Backend::Threads,
    }
}

/// An [`Engine`] on threads.
pub struct ThreadPool {
    shared: Arc<Shared>,
}

impl ThreadPool {
    /// A pool, and its first thread. Its jobs get `fs`.
    ///
    /// # Errors
    /// What starting a thread answers, with advice.
    pub fn new(fs: Arc<dyn Fs>, options: EngineOptions, on_done: OnDone) -> Result<Self> {
        let state = Mutex::new(State::new(options));
        let shared = Arc::new(Shared { fs, on_done, state, work: Condvar::new() });
        shared.start(&mut shared.lock())?;
        Ok(Self { shared })
    }
}

impl Engine for ThreadPool {
    fn submit(&self, ops: &mut Vec<(Token, Op)>) {
        self.shared.submit(ops);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        let [transfers, jobs] = &state.lanes;
        write!(f, "ThreadPool({transfers:?}, {jobs:?}, {} threads)", state.threads.len())
    }
}

/// What the pool's owner and its threads have in common.
struct Shared {
    fs: Arc<dyn Fs>,
    on_done: OnDone,
    state: Mutex<State>,
    /// There is work, or it is all over. Idle threads wait for it.
    work: Condvar,
}

/// What changes, under the one lock.
struct State {
    lanes: [Lane; 2],
    /// The lane that is looked at first.
    first: usize,
    /// Threads that sleep, or are on their way into or out of their sleep, or were started and have not looked yet.
    idle: usize,
    /// Operations that were accepted and whose end was not told; the head says where they are counted.
    outstanding: usize,
    /// Whether the drop has begun. Only ever set.
    is_ending: bool,
    /// All threads that were started. Emptied by the drop.
    threads: Vec<JoinHandle<()>>,
}

/// The lane of reads, writes and flushes.
const TRANSFERS: usize = 0;
/// The lane of jobs.
const JOBS: usize = 1;

/// Work of one kind.
struct Lane {
    /// Not begun, first in first out.
    queue: VecDeque<(Token, Op)>,
    /// How many are under way, from when a thread takes one until its end was told.
    running: usize,
    /// How many may be.
    max: usize,
}

impl Lane {
    fn new(max: usize) -> Self {
        Self { queue: VecDeque::new(), running: 0, max }
    }

    /// How many could begin now.
    fn ready(&self) -> usize {
        self.queue.len().min(self.max - self.running)
    }

    /// Begin the next one.
    fn take(&mut self) -> Option<(Token, Op)> {
        if self.ready() == 0 {
            return None;
        }
        self.running += 1;
        self.queue.pop_front()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queued and {} of {} under way", self.queue.len(), self.running, self.max)
    }
}

impl State {
    fn new(options: EngineOptions) -> Self {
        Self {
            lanes: [Lane::new(options.depth.clamp(1, DEPTH_MAX)), Lane::new(options.helpers.max(1))],
            first: TRANSFERS,
            idle: 0,
            outstanding: 0,
            is_ending: false,
            threads: Vec::new(),
        }
    }

    fn ready(&self) -> usize {
        self.lanes.iter().map(Lane::ready).sum()
    }

    /// Whether there is nothing left to do for anybody.
    fn is_over(&self) -> bool {
        self.is_ending && self.outstanding == 0
    }

    /// Begin what is next, of the lane that it comes from. The other lane has its turn then.
    fn take(&mut self) -> Option<(usize, Token, Op)> {
        for lane in [self.first, 1 - self.first] {
            if let Some((token, op)) = self.lanes[lane].take() {
                self.first = 1 - lane;
                return Some((lane, token, op));
            }
        }
        None
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, but for want of memory: queues of whole values, and counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any thread: take over operations.
    fn submit(self: &Arc<Self>, ops: &mut Vec<(Token, Op)>) {
        if ops.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (token, op) in ops.drain(..) {
            state.outstanding += 1;
            let lane = if matches!(op, Op::Job(_)) { JOBS } else { TRANSFERS };
            let ready = state.ready();
            state.lanes[lane].queue.push_back((token, op));
            if state.ready() > ready {
                self.rouse(&mut state);
            }
        }
    }

    /// One more piece of work is ready: one more thread is to look for some.
    fn rouse(self: &Arc<Self>, state: &mut State) {
        let is_short = state.ready() > state.idle;
        // Where it cannot be started those that there are do its share: there is always one.
        if !(is_short && self.start(state).is_ok()) && state.idle > 0 {
            self.work.notify_one();
        }
    }

    /// Start a thread, which is idle until it has looked for work.
    fn start(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name(NAME.into()).spawn(move || shared.run());
        let thread = thread.map_err(|error| {
            Error::of_std("pthread_create", "", &error)
                .hint("a thread could not be started: see the limit on them (ulimit -u, pids.max) and the memory left")
        })?;
        state.threads.push(thread);
        state.idle += 1;
        Ok(())
    }

    /// A thread of the pool.
    fn run(self: &Arc<Self>) {
        let mut state = self.lock();
        state.idle -= 1;
        loop {
            if let Some((lane, token, op)) = state.take() {
                drop(state);
                let done = self.perform(token, op);
                self.tell(done);
                state = self.lock();
                state.lanes[lane].running -= 1;
            } else if state.is_over() {
                return;
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// Do an operation, from its beginning to its end.
    fn perform(&self, token: Token, op: Op) -> Done {
        let (outcome, buffer) = match op {
            Op::Job(job) => (job::run(job, &*self.fs).map(Outcome::Job), None),
            op => {
                job::caught("transfer", || Ok(transfer(op))).unwrap_or_else(|panicked| (Err(panicked), None))
            }
        };
        Done { token, outcome, buffer }
    }

    /// Tell what is done, with no lock held, and submit what comes of it.
    fn tell(self: &Arc<Self>, done: Done) {
        let (mut dones, mut next) = (vec![done], Vec::new());
        // A listener that panics has reported that itself. The others are still owed their completions.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_done)(&mut dones, &mut next)));
        let _ = catch_unwind(AssertUnwindSafe(|| dones.clear()));
        self.submit(&mut next);
        let mut state = self.lock();
        state.outstanding -= 1;
        if state.is_over() {
            self.work.notify_all();
        }
    }

    /// Let everything that was accepted come to its end, then end the threads.
    fn end(&self) {
        let mut state = self.lock();
        state.is_ending = true;
        if state.is_over() {
            self.work.notify_all();
        }
        let this = std::thread::current().id();
        if state.threads.iter().any(|thread| thread.thread().id() == this) {
            // It cannot wait for itself. They end by themselves, and the last of them drops what they share.
            return state.threads.clear();
        }
        // Each ends when it is all over, and until then may start another.
        while let Some(thread) = state.threads.pop() {
            drop(state);
            // What panics there is caught there.
            let _ = thread.join();
            state = self.lock();
        }
    }
}

/// A read, a write or a flush, and the buffer back. Its file is let go of.
fn transfer(op: Op) -> (Result<Outcome>, Option<Buffer>) {
    match op {
        Op::Read { file, at, mut buffer } => {
            (OsFs.read_at(&file, at, &mut buffer).map(Outcome::Read), Some(buffer))
        }
        Op::Write { file, at, buffer, mode } => {
            let written = match mode {
                WriteMode::Plain => OsFs.write_at(&file, at, &buffer),
                WriteMode::Dsync | WriteMode::Alone => file.os().write_durably(at, &buffer),
            };
            (written.map(|()| Outcome::Written), Some(buffer))
        }
        Op::Sync { file } => (OsFs.sync(&file).map(|()| Outcome::Synced), None),
        Op::Job(_) => unreachable!("a job is no transfer"),
    }
}
