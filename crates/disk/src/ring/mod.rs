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
//! Who submits enters the kernel itself, there and then, while there is little at the disk: to pass the operation to
//! another thread would cost more than to start it. Where there are reads enough (`ENOUGH`) the operation waits in the queue
//! for the reaper, which the next completion wakes anyway: so a busy caller, as a thread of JavaScript is, has half of
//! the work done by another processor. Entries go two at a time. More of them at once reach the device as one burst and come
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
//! What ends without the kernel (nothing to move, an offset that cannot be) is told by a helper thread, ahead of
//! its next job, as [`OnDone`] must not be called by a thread that submits.
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

mod helpers;
mod reaper;
mod request;
mod sender;
mod setup;
mod slots;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod trial;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use io_uring_07::IoUring;
use rustix::io::Errno;

use self::request::{Accepted, Request};
use self::state::{Sender, State, Work};
use crate::os::file_system;
use crate::{Backend, Disk, Done, Engine, EngineOptions, Error, Fs, OnDone, Op, Result, SharedDisk, Token};

/// More at the disk than this gains nothing on any device, and the completion queue has to hold it.
const DEPTH_MAX: usize = 4096;

/// With so many reads at the disk it has enough to do until one of them ends and the reaper brings more. With fewer there
/// it idles meanwhile: where it answers in bursts, what waits behind four of them makes up the next burst, and half of what
/// is outstanding is never at the disk. From a thread of JavaScript that reads 4 KiB at random, 32 gave 1.1 times as many
/// a second as 4 with 16 and with 64 outstanding, and as many with 256.
const ENOUGH: usize = 32;

/// Before what was refused is tried again. At once it would be refused for the same reason.
const PAUSE: Duration = Duration::from_millis(1);

/// The names of the threads: the reaper's and the helpers'.
const NAMES: [&str; 2] = ["ringbolt-ring", "ringbolt-jobs"];

/// The disk of this system: plain calls for what is cold, `io_uring` through the `tokio-uring` crate for what is hot.
#[cfg(not(target_env = "musl"))]
pub fn disk() -> Disk {
    let fs = file_system();
    let jobs = Arc::clone(&fs);
    Disk {
        fs,
        driver: Box::new(move || Ok(Box::new(crate::tokio_ring::TokioRing::new(jobs)?))),
        backend: Backend::IoUring,
    }
}

/// The disk of this system: plain calls for what is cold, for what is hot the engine below. The `tokio-uring` crate is
/// not written for musl.
#[cfg(target_env = "musl")]
pub fn disk() -> Disk {
    shared_disk().into_disk(crate::pool::LOG)
}

/// The disk of this system for a service whose callers submit on their own threads.
pub fn shared_disk() -> SharedDisk {
    let fs = file_system();
    let jobs = Arc::clone(&fs);
    SharedDisk {
        fs,
        engine: Box::new(move |options, on_done| Ok(Box::new(Ring::new(jobs, options, on_done)?))),
        backend: Backend::IoUring,
    }
}

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
        let ring = setup::set_up(depth + 1)?;
        let (state, helpers_max) = (Mutex::new(State::new(depth)), options.helpers.max(1));
        let (work, end, turn) = (Condvar::new(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { ring, helpers_max, fs, on_done, state, work, end, turn });
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
            let accepted = Request::accept(token, op);
            state.outstanding += 1;
            match accepted {
                Accepted::Request(request) => match state.broken.clone() {
                    None => {
                        state.queue.push_back(request);
                        continue;
                    }
                    Some(error) => state.work.push_front(Work::Tell(request.end(Err(error)))),
                },
                // Ahead of the jobs, which may take long.
                Accepted::Answer(done) => state.work.push_front(Work::Tell(done)),
                Accepted::Job(token, job) => state.work.push_back(Work::Job(token, job)),
            }
            self.rouse_helper(&mut state);
        }
        // Where another thread is sending it takes these along; where the disk has enough, the reaper does.
        if state.sender == Sender::Nobody && state.slots.brief() < ENOUGH {
            drop(self.send(state));
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
        let _ = catch_unwind(AssertUnwindSafe(|| dones.clear()));
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

/// Whether a refusal of `io_uring_enter` is one that passes: the kernel is short of something.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::BUSY | Errno::NOMEM | Errno::INTR)
}

fn describe(errno: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.raw_os_error())
}
