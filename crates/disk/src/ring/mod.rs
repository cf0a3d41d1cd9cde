//! The blob store's engine on Linux: our own loop on the `io-uring` crate, for callers on many threads.
//!
//! # The life of a request
//!
//! ```text
//!    any thread, in submit                    kernel                  the reaper's thread
//!   ┌──────────────────────────────┐                           ┌────────────────────────────────┐
//!   │       under the lock         │                           │ sleeps without the lock        │
//!   │                              │       ┌────────┐          │   │ a completion ends the sleep │
//! Op├─▶ queue ──▶ slot ──▶ entry ──┼enter─▶│        │──▶ CQE ──┼─▶ with the lock: whose is it?  │
//!   │   (caller's (`depth` (two at │       └────────┘          │   │ then the queue moves up     │
//!   │    bound)    at most) a time)│            ▲              │   ▼                            │
//!   └──────┬───────────────────────┘            │     again ◀──┼── short, EINTR, ECANCELED …    │
//!          │ jobs                               └──────────────┼── or Done ─▶ without the lock: │
//!          ▼                                                   │              OnDone ─▶ more Op │
//!   helper threads ─▶ Done ─▶ OnDone ─▶ more Op                └────────────────────────────────┘
//! ```
//!
//! An operation becomes a `Request`, which owns its file and its buffer and moves from the queue into a slot
//! before its first entry is made. There it stays, through every entry it takes, until the completion of the
//! last one; then its buffer goes back with its [`Done`]. Nobody can free what the kernel may still use, since
//! nobody else has it; and what the slots hold at their end they leak.
//!
//! Who submits enters the kernel itself, there and then: to pass the operation to another thread would cost
//! more than to start it. Entries go two at a time. More of them at once reach the device as one burst and come
//! back as one, and meanwhile it has nothing to do.
//!
//! The lock guards the queue, the slots and both of the ring's own queues, and is not held in the kernel. One
//! thread at a time is there with entries, the *sender*; who finds one leaves the operation to it. So no caller
//! waits for another's system call, and a caller that sends is relieved by the reaper as soon as room is made by
//! completions: it does not get caught in the work of all.
//!
//! # Bounds
//!
//! | what | bound | when it is reached |
//! | --- | --- | --- |
//! | requests in slots | `depth` | the rest stays in the queue, first in first out |
//! | entries in the submission queue | two | no more are made until the kernel has taken them |
//! | completions not reaped | one for each slot, and the nudge | cannot be: the completion queue has room for all |
//! | queue, jobs | none here | the caller bounds what it submits |
//!
//! # Sleep and wake
//!
//! The reaper sleeps in `io_uring_enter` until the completion queue is not empty. A completion that comes
//! between its look at that queue, which is under the lock, and its sleep is still there when the kernel looks,
//! so it does not fall asleep over it. Only the end has to wake it without a completion: it is a no-op with a
//! number of its own, the *nudge*, for which there is always room. While nothing is at the disk the ring holds
//! no request at all, not even one that waits for a wake: it would count as waiting for a disk in the system's
//! figures.
//!
//! What ends without the kernel (nothing to move, an offset that cannot be) is told by a helper thread, as
//! [`OnDone`] must not be called by a thread that submits.
//!
//! # What is refused, and what does not get far
//!
//! `io_uring_enter` may refuse entries: no memory, or a filter on that one thread. They stay where they are, in the
//! submission queue, and whoever submits or reaps next tries again; so that it does not depend on that, a helper
//! thread, one of which is always there, does the same every `PAUSE`. A reason that does not pass, met there or
//! by the reaper, breaks the ring.
//!
//! A completion may say that nothing was done. `ECANCELED`: the kernel's workers belong to the thread that
//! submitted, a worker thread of Node's for instance, and end with it. `EFAULT`: a read waited for the page cache,
//! and when the page came its thread had ended. Both are sent again by whoever sends next, mostly the reaper, which
//! does not end. `EAGAIN`: again, by a helper after a pause. All this a bounded number of times, then it is the
//! request's error.
//!
//! # Liveness
//!
//! An operation at the disk waits for no other, so a full set of slots empties by itself. That holds for files
//! only: were a pipe read here, the write that it waits for could stand in the queue behind it. [`OnDone`] holds up
//! the completions behind it, and nothing else: other threads go on submitting, and the kernel working. A disk
//! that never answers keeps its requests, and the drop waits with them.
//!
//! # The end
//!
//! The drop lets everything that was accepted come to its [`Done`], what [`OnDone`] adds too: `outstanding`
//! counts them, from their acceptance until [`OnDone`] has returned and what it added is accepted. At zero the
//! helpers find that it is over, the nudge lets the reaper find it, and they are joined.
//!
//! Should the reaper panic, or the kernel answer what it must not, the ring is *broken*: what is in flight is
//! leaked, file and buffer, and its owners hear `EIO`, as do those in the queue and all that comes later. Jobs
//! still run.

mod request;
mod setup;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use io_uring_07::{EnterFlags, IoUring, opcode, squeue};
use rustix::io::Errno;

use self::request::{Accepted, Request, Verdict};
use self::setup::SetUp;
use self::slots::Slots;
use crate::probe::errno_of;
use crate::{Done, Engine, EngineOptions, Error, File, Fs, Job, OnDone, Op, Outcome, Result, Token, job};

/// Entries for one `io_uring_enter`.
const PER_ENTER: usize = 2;

/// More at the disk than this gains nothing on any device, and the completion queue has to hold it.
const DEPTH_MAX: usize = 4096;

/// Before what was refused is tried again. At once it would be refused for the same reason.
const PAUSE: Duration = Duration::from_millis(1);

/// The names of the threads: the reaper's and the helpers'.
const NAMES: [&str; 2] = ["ringbolt-ring", "ringbolt-jobs"];

/// The number of the nudge: an entry that wakes the reaper and is no request's.
const NUDGE: u64 = Slots::NONE;

/// An [`Engine`] on `io_uring`.
pub struct Ring {
    shared: Arc<Shared>,
}

impl Ring {
    /// A ring, and the threads that reap its completions and run its jobs. These get `fs`.
    ///
    /// # Errors
    /// What `io_uring_setup` answers, with advice: `EPERM`, `ENOSYS` (forbidden, hidden or missing), `ENOMEM`,
    /// `EMFILE`; what starting a thread answers. The caller has other engines to turn to.
    pub fn new(fs: Arc<dyn Fs>, options: EngineOptions, on_done: OnDone) -> Result<Self> {
        let depth = options.depth.clamp(1, DEPTH_MAX);
        // One more: the nudge.
        let SetUp { ring, sets_len } = setup::set_up(depth + 1)?;
        let (state, helpers_max) = (Mutex::new(State::new(depth)), options.helpers.max(1));
        let (work, end, turn) = (Condvar::new(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { ring, sets_len, helpers_max, fs, on_done, state, work, end, turn });
        let this = Self { shared: Arc::clone(&shared) };
        // Where one fails, the drop ends what was started.
        let mut state = shared.lock();
        let reaper = Arc::clone(&shared);
        state.start(NAMES[0], move || reaper.run_reaper())?;
        shared.start_helper(&mut state)?;
        drop(state);
        Ok(this)
    }
}

impl Engine for Ring {
    fn submit(&self, ops: &mut Vec<(Token, Op)>) {
        self.shared.submit(ops);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        write!(f, "Ring({} queued, {} at the disk)", state.queue.len(), state.slots.len())
    }
}

/// What the ring's owner and its threads have in common.
struct Shared {
    /// Its two queues are touched by whoever holds the lock of `state`, and by nobody else.
    ring: IoUring,
    /// Whether the kernel has an entry that sets a file's length.
    sets_len: bool,
    helpers_max: usize,
    fs: Arc<dyn Fs>,
    on_done: OnDone,
    state: Mutex<State>,
    /// There is work for a helper, or it is all over. Helpers wait for it.
    work: Condvar,
    /// Nothing is outstanding any more. The drop waits for it.
    end: Condvar,
    /// The thread that was in the kernel with entries is back. The reaper waits for it.
    turn: Condvar,
}

/// What changes, under the one lock.
struct State {
    /// Requests that are not at the disk, first in first out.
    queue: VecDeque<Request>,
    /// Requests that are.
    slots: Slots,
    /// Slots whose request needs another entry.
    again: Vec<u32>,
    /// The same, but after a pause.
    later: Vec<u32>,
    /// Whether a nudge is to be sent.
    nudge: bool,
    /// Entries in the submission queue that the kernel has not taken.
    unsent: usize,
    /// Whether a thread is in the kernel with these.
    sender: Sender,
    /// What is for the helpers.
    work: VecDeque<Work>,
    /// Whether a helper is to send, or is sending, what was refused or has to wait.
    is_resending: bool,
    helpers: usize,
    helpers_idle: usize,
    /// Operations that were accepted and whose end was not told; the head says where they are counted.
    outstanding: usize,
    /// Whether the drop has begun. Only ever set.
    is_ending: bool,
    /// Why there is no ring any more. Set once.
    broken: Option<Error>,
    /// All threads that were started. Emptied by the drop.
    threads: Vec<JoinHandle<()>>,
}

/// Who is in the kernel with the entries of the submission queue. That is done without the lock; until the thread
/// is back nobody else pushes or enters, and what is queued meanwhile it takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Nobody,
    /// A thread that goes on as long as there are entries to send.
    Somebody,
    /// One that leaves the rest to a thread of the engine, which waits for its turn.
    Relieved,
}

/// Work for a helper.
enum Work {
    Job(Token, Job),
    SetLen(Token, File, u64),
    /// Tell what ended without the kernel.
    Tell(Done),
    /// Send what was refused, or had to wait a while.
    Resend,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Panics of threads that hold it break the ring, which takes nothing for granted that was in their hands.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any thread: take over operations.
    fn submit(self: &Arc<Self>, ops: &mut Vec<(Token, Op)>) {
        if ops.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (token, op) in ops.drain(..) {
            // A file of another disk panics here, before the operation is counted.
            let accepted = Request::accept(token, op, self.sets_len);
            state.outstanding += 1;
            let work = match accepted {
                Accepted::Request(request) => match &state.broken {
                    None => {
                        state.queue.push_back(request);
                        continue;
                    }
                    Some(error) => Work::Tell(request.end(Err(error.clone()))),
                },
                Accepted::Job(token, job) => Work::Job(token, job),
                Accepted::SetLen(token, file, len) => Work::SetLen(token, file, len),
                Accepted::Answer(done) => Work::Tell(done),
            };
            state.work.push_back(work);
            self.rouse_helper(&mut state);
        }
        // Where another thread is sending it takes these along.
        if state.sender == Sender::Nobody {
            drop(self.send(state));
        }
    }

    /// The reaper: see to it that what can go to the kernel goes, and not by a thread of the caller's. That one
    /// would never get away while completions make room as fast as it sends.
    fn take_over<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if !state.has_next() {
            return state;
        }
        while state.sender != Sender::Nobody {
            state.sender = Sender::Relieved;
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.send(state)
    }

    /// Hand to the kernel what it may have. What it refuses is left to a helper.
    fn send<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (mut state, sent) = self.enter(state);
        if sent.is_err() {
            self.resend_later(&mut state);
        }
        state
    }

    /// Hand to the kernel what it may have, as far as it takes it, or until the reaper
    /// does it in its place.
    fn enter<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, Result<(), Errno>) {
        assert_eq!(state.sender, Sender::Nobody);
        let sent = loop {
            while state.unsent < PER_ENTER
                && let Some(entry) = state.next_entry()
            {
                self.push(&mut state, &entry);
            }
            if state.unsent == 0 {
                break Ok(());
            }
            let count = state.unsent as u32;
            state.sender = Sender::Somebody;
            drop(state);
            // SAFETY: it waits for nothing and passes no argument. The entries it hands over were pushed by
            // `push`, whose note tells what keeps their memory; this thread is the sender, so nobody pushes.
            let entered =
                unsafe { self.ring.submitter().enter::<()>(count, 0, EnterFlags::empty().bits(), None) };
            state = self.lock();
            let is_relieved = state.sender == Sender::Relieved;
            state.sender = Sender::Nobody;
            if is_relieved {
                self.turn.notify_all();
            }
            match entered.map_err(|error| Errno::from_raw_os_error(errno_of(&error))) {
                Ok(0) => break Err(Errno::AGAIN),
                Ok(count) => state.unsent -= count,
                Err(Errno::INTR) => {}
                Err(errno) => break Err(errno),
            }
            if is_relieved {
                break Ok(());
            }
        };
        if state.is_over() {
            // The helpers stay until the nudge is sent.
            self.work.notify_all();
        }
        (state, sent)
    }

    /// Put an entry into the submission queue.
    fn push(&self, state: &mut State, entry: &squeue::Entry) {
        assert_eq!(state.sender, Sender::Nobody);
        // SAFETY: `state` can be had only with the lock, and nobody without it makes a submission queue; the one
        // made here ends with this function.
        let mut queue = unsafe { self.ring.submission_shared() };
        // SAFETY: the entry is the nudge, which points at nothing, or that of a request in a slot. The slots keep
        // that request, and with it the memory and the descriptor in the entry, until the completion of this entry
        // is drained; where that cannot be waited for, they are leaked.
        let pushed = unsafe { queue.push(entry) };
        pushed.expect("two entries fit into the submission queue");
        state.unsent += 1;
    }

    /// Have a helper send again, after a pause.
    fn resend_later(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_resending, true) {
            // Ahead of the jobs: requests wait for it.
            state.work.push_front(Work::Resend);
            self.rouse_helper(state);
        }
    }

    /// One more piece of work is there.
    fn rouse_helper(self: &Arc<Self>, state: &mut State) {
        if state.work.len() > state.helpers_idle && state.helpers < self.helpers_max {
            // Where it cannot be started those that there are do its share: there is always one.
            let _ = self.start_helper(state);
        }
        self.work.notify_one();
    }

    fn start_helper(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let helper = Arc::clone(self);
        state.start(NAMES[1], move || helper.run_helper())?;
        state.helpers += 1;
        Ok(())
    }

    /// The reaper's thread.
    fn run_reaper(self: &Arc<Self>) {
        // Out here, so that a panic does not take it along: each has an owner that waits.
        let mut dones = Vec::new();
        let reaped = catch_unwind(AssertUnwindSafe(|| self.reap(&mut dones)));
        match reaped {
            Ok(Ok(())) => {}
            Ok(Err(errno)) => self.break_down(&format!("io_uring_enter answered {}", describe(errno))),
            Err(_) => self.break_down("its thread panicked; this is a bug, please report it"),
        }
        self.tell(&mut dones);
    }

    /// Reap completions until it is all over, or the ring is broken.
    fn reap(self: &Arc<Self>, dones: &mut Vec<Done>) -> Result<(), Errno> {
        loop {
            let mut state = self.lock();
            if state.broken.is_some() {
                return Ok(());
            }
            self.drain(&mut state, dones);
            if dones.is_empty() {
                state = self.take_over(state);
            } else if state.sender == Sender::Nobody {
                // Before they are told: meanwhile the disk has something to do.
                state = self.send(state);
            }
            let is_over = state.is_over();
            drop(state);
            if !dones.is_empty() {
                self.tell(dones);
            } else if is_over {
                return Ok(());
            } else {
                self.sleep()?;
            }
        }
    }

    /// Sleep until there is a completion.
    fn sleep(&self) -> Result<(), Errno> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: it hands nothing over and passes no argument; it touches neither queue from our side.
        let woken = unsafe { self.ring.submitter().enter::<()>(0, 1, flags, None) };
        match woken.map_err(|error| Errno::from_raw_os_error(errno_of(&error))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) if is_passing(errno) => {
                std::thread::sleep(PAUSE);
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Take what is complete out of the completion queue.
    fn drain(self: &Arc<Self>, state: &mut State, dones: &mut Vec<Done>) {
        // SAFETY: `state` can be had only with the lock, and nobody without it makes a completion queue; the one
        // made here ends with this function.
        let completions = unsafe { self.ring.completion_shared() };
        for completion in completions {
            if completion.user_data() != NUDGE {
                state.complete(completion.user_data(), completion.result(), dones);
            }
        }
        if !state.later.is_empty() {
            self.resend_later(state);
        }
    }

    /// Tell what is done, with no lock held, and submit what comes of it.
    fn tell(self: &Arc<Self>, dones: &mut Vec<Done>) {
        let count = dones.len();
        if count == 0 {
            return;
        }
        let mut next = Vec::new();
        // A listener that panics has reported that itself. The others are still owed their completions.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_done)(dones, &mut next)));
        let _ = catch_unwind(AssertUnwindSafe(|| self.submit(&mut next)));
        dones.clear();
        let mut state = self.lock();
        state.outstanding -= count;
        if state.is_over() {
            drop(self.tell_the_end(state));
        }
    }

    /// It is all over: end every sleep.
    fn tell_the_end<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.work.notify_all();
        self.end.notify_all();
        state.nudge = true;
        if state.sender == Sender::Nobody { self.send(state) } else { state }
    }

    /// A helper's thread.
    fn run_helper(self: &Arc<Self>) {
        while catch_unwind(AssertUnwindSafe(|| self.help())).is_err() {
            self.break_down("a helper thread panicked; this is a bug, please report it");
        }
    }

    fn help(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.work.pop_front() {
                drop(state);
                self.work_on(work);
                state = self.lock();
            } else if state.is_over() && state.is_sent() {
                return;
            } else {
                state.helpers_idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.helpers_idle -= 1;
            }
        }
    }

    fn work_on(self: &Arc<Self>, work: Work) {
        let done = match work {
            Work::Job(token, job) => {
                Done { token, outcome: job::run(job, &*self.fs).map(Outcome::Job), buffer: None }
            }
            Work::SetLen(token, file, len) => {
                let outcome = self.fs.set_len(&file, len).map(|()| Outcome::Resized);
                Done { token, outcome, buffer: None }
            }
            Work::Tell(done) => done,
            Work::Resend => return self.resend(),
        };
        self.tell(&mut vec![done]);
    }

    /// Send what was refused or had to wait, until the kernel takes it.
    fn resend(self: &Arc<Self>) {
        loop {
            std::thread::sleep(PAUSE);
            let mut guard = self.lock();
            let state = &mut *guard;
            state.again.append(&mut state.later);
            if guard.sender != Sender::Nobody {
                // Then that thread learns whether it is taken by now; in a while we see.
                continue;
            }
            let (mut state, sent) = self.enter(guard);
            match sent {
                Ok(()) => {
                    state.is_resending = false;
                    return;
                }
                Err(_) if state.broken.is_some() => return,
                Err(errno) if is_passing(errno) => {}
                Err(errno) => {
                    drop(state);
                    return self.break_down(&format!("io_uring_enter answered {}", describe(errno)));
                }
            }
        }
    }

    /// There is no ring any more: leak what the kernel may have, and answer everybody.
    fn break_down(self: &Arc<Self>, why: &str) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.broken.is_some() {
            return;
        }
        let hint = format!(
            "the ring of ringbolt broke down ({why}); what was under way has an unknown outcome, and nothing more can \
             be read or written by it"
        );
        let error = Error::new("io_uring_enter", "", Errno::IO.raw_os_error()).hint(hint);
        state.again.clear();
        state.later.clear();
        let queued = state.queue.drain(..).map(|request| request.end(Err(error.clone())));
        state.work.extend(queued.map(Work::Tell));
        // So that the reaper ends, where it can still be reached.
        state.nudge = true;
        let leaked = state.slots.remove_all().into_iter().map(|request| request.leak(error.clone()));
        state.work.extend(leaked.map(Work::Tell));
        state.broken = Some(error);
        if state.sender == Sender::Nobody {
            drop(self.enter(guard));
        }
        self.work.notify_all();
    }

    /// Let everything that was accepted come to its end, then end the threads.
    fn end(self: &Arc<Self>) {
        let mut state = self.lock();
        state.is_ending = true;
        if state.is_over() {
            state = self.tell_the_end(state);
        }
        let this = std::thread::current().id();
        let is_ours = state.threads.iter().any(|thread| thread.thread().id() == this);
        while state.outstanding > 0 && !is_ours {
            state = self.end.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (threads, is_broken) = (std::mem::take(&mut state.threads), state.broken.is_some());
        drop(state);
        for thread in threads {
            // The reaper of a broken ring may sleep in it for ever. It has what it needs, and nobody needs it.
            let is_lost = is_broken && thread.thread().name() == Some(NAMES[0]);
            if !is_ours && !is_lost {
                // What panics there is caught there.
                let _ = thread.join();
            }
        }
    }
}

impl State {
    fn new(depth: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            slots: Slots::new(depth),
            again: Vec::new(),
            later: Vec::new(),
            nudge: false,
            unsent: 0,
            sender: Sender::Nobody,
            work: VecDeque::new(),
            is_resending: false,
            helpers: 0,
            helpers_idle: 0,
            outstanding: 0,
            is_ending: false,
            broken: None,
            threads: Vec::new(),
        }
    }

    /// Whether there is nothing left to do for anybody.
    fn is_over(&self) -> bool {
        self.is_ending && self.outstanding == 0
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        self.threads.push(thread.map_err(|error| Error::new("pthread_create", "", errno_of(&error)))?);
        Ok(())
    }

    /// Whether the kernel has taken all that it was given, the nudge too. Until then a helper has to be there.
    fn is_sent(&self) -> bool {
        self.broken.is_some() || self.unsent == 0 && !self.nudge
    }

    /// Whether there is an entry for the kernel.
    fn has_next(&self) -> bool {
        self.unsent > 0 && self.sender == Sender::Nobody
            || self.nudge
            || !self.again.is_empty()
            || !self.queue.is_empty() && !self.slots.is_full()
    }

    /// The entry that goes next to the kernel.
    fn next_entry(&mut self) -> Option<squeue::Entry> {
        if std::mem::take(&mut self.nudge) {
            return Some(opcode::Nop::new().build().user_data(NUDGE));
        }
        let index = match self.again.pop() {
            Some(index) => index,
            None if self.slots.is_full() => return None,
            None => self.slots.insert(self.queue.pop_front()?),
        };
        let (request, number) = self.slots.get(index);
        Some(request.entry().user_data(number))
    }

    /// The entry with this number is complete.
    fn complete(&mut self, number: u64, result: i32, dones: &mut Vec<Done>) {
        let Some(index) = self.slots.find(number) else {
            // Each entry has one completion, so this is a mistake of ours or of the kernel's. It concerns no memory:
            // whose it was is gone, or leaked.
            debug_assert!(false, "a completion of no request: {number:#x}, {result}");
            return;
        };
        let (request, _) = self.slots.get(index);
        match request.complete(result) {
            Verdict::Again => self.again.push(index),
            Verdict::Later => self.later.push(index),
            Verdict::Over(outcome) => dones.push(self.slots.remove(index).end(outcome)),
        }
    }
}

/// Whether a refusal of `io_uring_enter` is one that passes: the kernel is short of something.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::BUSY | Errno::NOMEM | Errno::INTR)
}

fn describe(errno: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.raw_os_error())
}
