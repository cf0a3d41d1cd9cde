//! The log's driver on Linux: `io_uring` through the `tokio-uring` crate.
//!
//! # The life of an operation
//!
//! ```text
//!          submit                        wait enters the runtime                         wait returns
//!   Op ──┬───────▶ queue ──▶ spawned task ──▶ SQE ──▶ ┌────────┐ ──▶ CQE ──▶ task ──▶ finished ──▶ Done
//!        │        (bound:    owns the File    ▲       │ kernel │              │          ▲  ▲
//!        │        caller's)  and the Buffer   │       └────────┘              │          │  │
//!        │                   (IN_FLIGHT_MAX)  └── short, EINTR, EAGAIN: ◀─────┘          │  │
//!        │                                        another entry                         │  │
//!        ├─ Alone ──▶ pwritev2(RWF_DSYNC), here and now ─────────────────────────────────┘  │
//!        └─ Job ──▶ channel ──▶ helper thread, one job after another ──▶ its finished, wake ┘
//! ```
//!
//! An operation is a local task of the runtime. Its file and its buffer move from the [`Op`] into the task,
//! from the task into the data of each `UnsubmittedOneshot`, and back out of its completion: while the kernel
//! may use them they belong to `tokio-uring`, which keeps them also where the future that waits is dropped.
//! So no operation needs `unsafe`, though its entry holds a raw pointer and a bare descriptor.
//!
//! # Submission
//!
//! `tokio-uring` hands entries to the kernel when its thread parks, and ignores what the kernel answers then.
//! Three things follow:
//!
//! * Where [`Driver::wait`] finds a reason to return at once, a wake or a completion, it still sends a no-op
//!   behind the entries (the *barrier*) and returns when that is back. Otherwise a thread that always finds a
//!   wake waiting would never submit, nor see a completion.
//! * While operations are in flight the thread parks anew every `TICK`, which submits what was refused.
//! * An operation has one entry at a time and at most `IN_FLIGHT_MAX` operations have one, so the submission
//!   queue is never full (`tokio-uring` would submit on the spot then, and panic where that fails), and the
//!   completion queue, four times that long, cannot overflow.
//!
//! # Sleep and wake
//!
//! Through the runtime's epoll a wake costs a lone append 10 to 20 % more than through a futex. So the thread
//! sleeps in one of two places, and one atomic, `Signal::state`, says in which:
//!
//! ```text
//!                 nothing in the ring               operations in the ring
//!               ┌───────────────────────┐ RUNNING ┌───────────────────────────┐
//!               ▼                       └─┬─▲─┬───┘                           ▼
//!             PARKED                      │ │ │                          IN_RUNTIME
//!      futex, until the deadline          │ │ │       epoll: the ring, the notice, the timer
//!               │    wake: swap, unpark   │ │ │   wake: swap, notify          │
//!               └────────────────────▶  WOKEN  ◀──────────────────────────────┘
//!                                   swap on the way out
//! ```
//!
//! `wake` swaps in `WOKEN`; what was there before says whom to rouse, and nobody where it was `RUNNING` or
//! `WOKEN`: then the wake is that one atomic. The thread goes to sleep only by exchanging `RUNNING` for a
//! sleeping place, which fails where a wake came before, and it takes the wake by swapping `RUNNING` back in
//! before it collects what was pushed. Every access is a read-modify-write, so each later one sees what
//! happened before each earlier one, and no wake falls between two waits. A waker that is suspended between
//! its swap and its rousing leaves a token (in the parker, in the notice) which ends some later sleep early;
//! the sleepers look at the state again, so that costs a turn and changes nothing.
//!
//! # The end
//!
//! Dropping a [`TokioRing`] completes everything that was submitted, jobs too, and then takes the ring down.
//! `tokio-uring` cannot be left to it: its own drop releases the buffers of abandoned operations before their
//! completions are in. Should our drain unwind, the ring and all it holds are leaked rather than freed under
//! the kernel.
//!
//! A task that panics, which is a mistake of ours, ends without its `Done`, and tokio keeps the panic to itself.
//! What waits for that `Done` would wait for ever; so the task's `Ending` counts it out all the same and sets
//! a flag, at which `wait` panics in its place. The drop that follows drains what is left.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_utils::sync::{Parker, Unparker};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_uring::{OneshotOutputTransform, Runtime, UnsubmittedOneshot};

use crate::error::errno_of;
use crate::job;
use crate::os::now;
use crate::probe::{explained, must_know};
use crate::transfer::Transfer;
use crate::{Buffer, Done, Driver, Error, File, Fs, Job, Op, Outcome, Result, Time, Token, Waker, WriteMode};

/// Entries of the submission queue; the kernel makes the completion queue twice as long.
const ENTRIES: u32 = 128;

/// Operations that have an entry at the same time. Beyond 32 to 64 a disk gains nothing and the rest only
/// waits longer; what is submitted above that waits here, in order.
const IN_FLIGHT_MAX: usize = 64;
// One entry more: the barrier.
const _: () = assert!(IN_FLIGHT_MAX < ENTRIES as usize);

/// How long a thread with operations in flight sleeps at most before it submits again.
const TICK: Duration = Duration::from_millis(100);

/// The name of the thread that runs the jobs.
const HELPER_NAME: &str = "ringbolt-jobs";

/// A [`Driver`] on `io_uring`. It belongs to the thread that made it.
pub struct TokioRing {
    /// Dropped by our own `Drop`, after the last completion.
    runtime: ManuallyDrop<Runtime>,
    /// What was submitted and has no task yet, first in first out. Its bound is the caller's: it takes what
    /// [`Driver::submit`] hands over, and services bound what they submit.
    queue: VecDeque<(Token, Request)>,
    shared: Rc<Shared>,
    signal: Arc<Signal>,
    parker: Parker,
    helper: Helper,
}

/// It does not go to another thread: the ring takes entries from the one that set it up.
const _: () = {
    trait AmbiguousIfSend<Marker> {
        fn check() {}
    }
    struct Sendable;
    impl<T: ?Sized> AmbiguousIfSend<()> for T {}
    impl<T: ?Sized + Send> AmbiguousIfSend<Sendable> for T {}
    let _ = <TokioRing as AmbiguousIfSend<_>>::check;
};

impl TokioRing {
    /// A ring for the calling thread. Its jobs get `fs`.
    ///
    /// # Errors
    /// What `io_uring_setup` answers, with advice: `EPERM`, `ENOSYS` (forbidden, hidden or missing), `ENOMEM`,
    /// `EMFILE`. The caller has other drivers to turn to.
    pub fn new(fs: Arc<dyn Fs>) -> Result<Self> {
        let runtime = ManuallyDrop::new(set_up()?);
        let parker = Parker::new();
        let signal = Arc::new(Signal::new(parker.unparker().clone()));
        let shared = Rc::new(Shared::new(Arc::clone(&signal)));
        let helper = Helper::new(fs, Arc::clone(&signal));
        Ok(Self { runtime, queue: VecDeque::new(), shared, signal, parker, helper })
    }

    /// Whether the ring has nothing to do, so that the thread may sleep outside of the runtime.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.shared.in_flight.get() == 0
    }

    /// Sleep until a wake or the deadline. Jobs end with a wake, so they need no runtime either.
    fn park(&self, until: Option<Time>) {
        if !self.signal.fall_asleep(PARKED) {
            return;
        }
        while !self.signal.is_woken() {
            match until {
                None => self.parker.park(),
                Some(until) => match until.since(now()) {
                    Duration::ZERO => break,
                    left => self.parker.park_timeout(left),
                },
            }
        }
    }

    /// Complete all that was submitted to the ring.
    fn drain(&mut self) {
        while !self.is_idle() || self.shared.barrier.get() {
            // No `wait` is left to be told of it, and it would end each sleep.
            self.shared.lost.set(false);
            // Where only a barrier is left there is no completion to sleep for.
            self.enter(None, self.is_idle());
            self.signal.get_up();
            // Nobody waits for these any more; the drop gives the buffers and the files back.
            self.shared.finished.borrow_mut().clear();
        }
    }

    /// Enter the runtime: hand the queue to the kernel and stay until there is a completion, a wake or the
    /// deadline; where `hurried`, only until the kernel has the queue and we have what is complete.
    fn enter(&mut self, until: Option<Time>, hurried: bool) {
        let Self { runtime, queue, shared, signal, .. } = self;
        runtime.block_on(async {
            while shared.in_flight.get() < IN_FLIGHT_MAX
                && let Some((token, request)) = queue.pop_front()
            {
                Shared::spawn(shared, token, request);
            }
            if hurried || !signal.fall_asleep(IN_RUNTIME) {
                Shared::spawn_barrier(shared);
                // A refused submission must not hold up what is done: one tick, then return without.
                while shared.barrier.get() && timeout(TICK, signal.notice.notified()).await.is_ok() {}
                return;
            }
            while shared.finished.borrow().is_empty() && !shared.lost.get() && !signal.is_woken() {
                let pause = match until.map(|until| until.since(now())) {
                    Some(Duration::ZERO) => break,
                    Some(left) => left.min(TICK),
                    None => TICK,
                };
                // What ended it shows in the conditions above.
                let _ = timeout(pause, signal.notice.notified()).await;
            }
        });
    }
}

impl Driver for TokioRing {
    fn submit(&mut self, token: Token, op: Op) {
        let request = match op {
            Op::Read { file, at, buffer } => Request::Read { held: Held { file, buffer }, at },
            Op::Write { file, at, buffer, mode: WriteMode::Alone } => {
                let outcome = file.os().write_durably(at, &buffer).map(|()| Outcome::Written);
                self.shared.finished.borrow_mut().push(Done { token, outcome, buffer: Some(buffer) });
                return;
            }
            Op::Write { file, at, buffer, mode } => {
                Request::Write { held: Held { file, buffer }, at, durable: mode == WriteMode::Dsync }
            }
            Op::Sync { file } => Request::Sync { file },
            Op::Job(job) => {
                if let Err(error) = self.helper.run(token, job) {
                    let done = Done { token, outcome: Err(error), buffer: None };
                    self.shared.finished.borrow_mut().push(done);
                }
                return;
            }
        };
        self.queue.push_back((token, request));
    }

    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>) {
        let hurried = self.signal.is_woken()
            || !self.shared.finished.borrow().is_empty()
            || until.is_some_and(|until| until <= now());
        if !self.is_idle() {
            self.enter(until, hurried);
        } else if !hurried {
            self.park(until);
        }
        assert!(!self.shared.lost.get(), "an operation's task panicked: its completion will never come");
        // First take the wake, then collect: what was pushed before the wake is seen.
        self.signal.get_up();
        out.append(&mut self.shared.finished.borrow_mut());
        self.helper.collect(out);
    }

    fn waker(&self) -> Waker {
        let signal = Arc::clone(&self.signal);
        Waker::new(move || signal.wake())
    }

    fn now(&self) -> Time {
        now()
    }
}

impl Drop for TokioRing {
    fn drop(&mut self) {
        // The thread may be unwinding already: a panic from here would end the process.
        let drained = catch_unwind(AssertUnwindSafe(|| self.drain()));
        self.helper.join();
        if drained.is_ok() {
            // SAFETY: `self` owns the runtime, this is its only drop, and nothing uses it afterwards. `drain`
            // returned only when the last completion was in, so the kernel holds no pointer into it.
            unsafe { ManuallyDrop::drop(&mut self.runtime) }
        }
    }
}

impl fmt::Debug for TokioRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (queued, in_flight) = (self.queue.len(), self.shared.in_flight.get());
        write!(f, "TokioRing({queued} queued, {in_flight} in flight)")
    }
}

/// What the tasks of a ring and its owner have in common. All of it is on one thread.
struct Shared {
    finished: RefCell<Vec<Done>>,
    /// Tasks whose `Done` is not in `finished` yet.
    in_flight: Cell<usize>,
    /// Whether a barrier is under way. There is one at a time: they would fill the queue of a ring that
    /// refuses submissions.
    barrier: Cell<bool>,
    /// Whether a task ended without its `Done`. Stays so until the drop.
    lost: Cell<bool>,
    signal: Arc<Signal>,
}

impl Shared {
    fn new(signal: Arc<Signal>) -> Self {
        Self {
            finished: RefCell::default(),
            in_flight: Cell::new(0),
            barrier: Cell::new(false),
            lost: Cell::new(false),
            signal,
        }
    }

    /// Make a task of `request`.
    fn spawn(shared: &Rc<Self>, token: Token, request: Request) {
        shared.in_flight.update(|count| count + 1);
        let ending = Ending { shared: Rc::clone(shared), done: None };
        tokio_uring::spawn(async move {
            let (outcome, buffer) = request.run().await;
            ending.with(Done { token, outcome, buffer });
        });
    }

    /// Send a no-op behind the entries of this turn, where none is under way.
    fn spawn_barrier(shared: &Rc<Self>) {
        if shared.barrier.replace(true) {
            return;
        }
        let shared = Rc::clone(shared);
        tokio_uring::spawn(async move {
            // A no-op has no way to fail, and that it came back is all it says. Nor has this task a way to panic.
            let ((), _) = complete((), opcode::Nop::new().build()).await;
            shared.barrier.set(false);
            shared.signal.notice.notify_one();
        });
    }
}

/// The end of an operation's task, whichever way it comes to it.
struct Ending {
    shared: Rc<Shared>,
    /// Missing where the task panicked.
    done: Option<Done>,
}

impl Ending {
    /// The good one.
    fn with(mut self, done: Done) {
        self.done = Some(done);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.in_flight.update(|count| count - 1);
        match self.done.take() {
            Some(done) => self.shared.finished.borrow_mut().push(done),
            None => self.shared.lost.set(true),
        }
        self.shared.signal.notice.notify_one();
    }
}

/// An operation of the ring.
enum Request {
    Read { held: Held, at: u64 },
    Write { held: Held, at: u64, durable: bool },
    Sync { file: File },
}

impl Request {
    async fn run(self) -> (Result<Outcome>, Option<Buffer>) {
        match self {
            Self::Read { held, at } => {
                let (held, read) = read(held, at).await;
                (read.map(Outcome::Read), Some(held.buffer))
            }
            Self::Write { held, at, durable } => {
                let (held, written) = if durable {
                    write_durably(held, at).await
                } else {
                    write(held, at, ReadWriteFlags::empty()).await
                };
                (written.map(|()| Outcome::Written), Some(held.buffer))
            }
            Self::Sync { file } => {
                let (_, synced) = sync(file).await;
                (synced.map(|()| Outcome::Synced), None)
            }
        }
    }
}

/// What an entry points at. It moves into the ring with the entry and comes back with the completion.
struct Held {
    file: File,
    buffer: Buffer,
}

impl Held {
    fn transfer(&self) -> Transfer {
        Transfer::new(self.buffer.len(), self.file.is_direct())
    }

    /// The entry that reads into `piece` of the buffer. Valid as long as `self` is kept, moved or not: moving
    /// a [`Buffer`] does not move its bytes.
    fn read_entry(&mut self, piece: Range<usize>, from: u64) -> squeue::Entry {
        let descriptor = types::Fd(self.file.os().raw());
        let bytes = &mut self.buffer[piece];
        opcode::Read::new(descriptor, bytes.as_mut_ptr(), bytes.len() as u32).offset(from).build()
    }

    /// The entry that writes `piece` of the buffer; valid as [`Held::read_entry`]'s is.
    fn write_entry(&self, piece: Range<usize>, from: u64, flags: ReadWriteFlags) -> squeue::Entry {
        let descriptor = types::Fd(self.file.os().raw());
        let bytes = &self.buffer[piece];
        opcode::Write::new(descriptor, bytes.as_ptr(), bytes.len() as u32)
            .offset(from)
            .rw_flags(flags.bits().cast_signed())
            .build()
    }
}

/// Fill the buffer from `at`, up to the end of the file.
async fn read(mut held: Held, at: u64) -> (Held, Result<usize>) {
    if let Err(error) = held.file.os().check_range("pread", at, held.buffer.len()) {
        return (held, Err(error));
    }
    let (mut transfer, mut retries) = (held.transfer(), Retries::default());
    while let Some(piece) = transfer.next() {
        let (start, from) = (piece.start, at + piece.start as u64);
        let entry = held.read_entry(piece, from);
        let (back, result) = complete(held, entry).await;
        held = back;
        match result {
            Ok(count) if transfer.advance(start, count) => {}
            Ok(_) => break,
            Err(errno) if retries.allow(errno).await => {}
            Err(errno) => {
                let error = held.file.os().error("pread", errno).at(from);
                return (held, Err(error));
            }
        }
    }
    (held, Ok(transfer.done()))
}

/// Write all of the buffer at `at`.
async fn write(mut held: Held, at: u64, flags: ReadWriteFlags) -> (Held, Result<()>) {
    let syscall = if flags.is_empty() { "pwrite" } else { "pwritev2" };
    if let Err(error) = held.file.os().check_range(syscall, at, held.buffer.len()) {
        return (held, Err(error));
    }
    let (mut transfer, mut retries) = (held.transfer(), Retries::default());
    while let Some(piece) = transfer.next() {
        let (start, from) = (piece.start, at + piece.start as u64);
        let entry = held.write_entry(piece, from, flags);
        let (back, result) = complete(held, entry).await;
        held = back;
        let error = match result {
            Ok(count) if transfer.advance(start, count) => continue,
            Ok(_) => held.file.os().wrote_nothing(syscall, from),
            Err(errno) if retries.allow(errno).await => continue,
            Err(errno) => held.file.os().error(syscall, errno).at(from),
        };
        return (held, Err(error));
    }
    (held, Ok(()))
}

/// Write all of the buffer at `at`, so that its bytes are durable when it is done.
async fn write_durably(mut held: Held, at: u64) -> (Held, Result<()>) {
    if held.file.os().takes_dsync() {
        let (back, written) = write(held, at, ReadWriteFlags::DSYNC).await;
        held = back;
        match written {
            Err(error) if error.errno == Errno::OPNOTSUPP.raw_os_error() => held.file.os().refused_dsync(),
            written => return (held, written),
        }
    }
    let (Held { file, buffer }, written) = write(held, at, ReadWriteFlags::empty()).await;
    if written.is_err() {
        return (Held { file, buffer }, written);
    }
    let (file, synced) = sync(file).await;
    (Held { file, buffer }, synced)
}

/// Flush the file's data. Not retried, whatever it answers: after a failure the kernel calls the lost pages
/// clean, and would say 0.
async fn sync(file: File) -> (File, Result<()>) {
    let descriptor = types::Fd(file.os().raw());
    let entry = opcode::Fsync::new(descriptor).flags(types::FsyncFlags::DATASYNC).build();
    let (file, result) = complete(file, entry).await;
    let synced = match result {
        Ok(_) => Ok(()),
        Err(errno) => Err(file.os().error("fdatasync", errno)),
    };
    (file, synced)
}

/// How often an operation was sent again because the kernel asked for that.
#[derive(Default)]
struct Retries(u32);

impl Retries {
    /// A kernel that is short of memory gets over it, or never does.
    const MAX: u32 = 100;

    /// Whether `errno` asks for another try, after a little while, and there were not too many.
    async fn allow(&mut self, errno: Errno) -> bool {
        if !matches!(errno, Errno::INTR | Errno::AGAIN) || self.0 == Self::MAX {
            return false;
        }
        self.0 += 1;
        // At once it would fail for the same reason.
        tokio::time::sleep(Duration::from_millis(1)).await;
        true
    }
}

/// Send one entry and wait for its completion. `held` owns all that the entry points at: the ring keeps it
/// until then, also where this future is dropped.
async fn complete<T: 'static + Unpin>(held: T, entry: squeue::Entry) -> (T, Result<usize, Errno>) {
    let (held, result) =
        UnsubmittedOneshot::new(held, Return(std::marker::PhantomData), entry).submit().await;
    match usize::try_from(result) {
        Ok(count) => (held, Ok(count)),
        Err(_) => (held, Err(Errno::from_raw_os_error(-result))),
    }
}

/// The end of an entry: what it held, and what the kernel said.
struct Return<T>(std::marker::PhantomData<fn(T) -> T>);

impl<T> OneshotOutputTransform for Return<T> {
    type Output = (T, i32);
    type StoredData = T;

    fn transform_oneshot_output(self, held: T, completion: cqueue::Entry) -> (T, i32) {
        (held, completion.result())
    }
}

/// Where the driver's thread is, and how to rouse it there. The module's head tells the protocol.
struct Signal {
    /// One of the four below. The thread leaves a sleeping place, anybody enters [`WOKEN`].
    state: AtomicU8,
    unparker: Unparker,
    notice: Notify,
}

/// The thread is at work and will look before it sleeps.
const RUNNING: u8 = 0;
/// The thread sleeps on its parker, or is about to.
const PARKED: u8 = 1;
/// The thread sleeps in the runtime, or is about to.
const IN_RUNTIME: u8 = 2;
/// Somebody wants the thread, and has roused it if it slept.
const WOKEN: u8 = 3;

impl Signal {
    fn new(unparker: Unparker) -> Self {
        Self { state: AtomicU8::new(RUNNING), unparker, notice: Notify::new() }
    }

    /// Any thread: end the sleep, or the next one. One atomic where the thread does not sleep.
    fn wake(&self) {
        match self.state.swap(WOKEN, Ordering::AcqRel) {
            PARKED => self.unparker.unpark(),
            IN_RUNTIME => self.notice.notify_one(),
            _ => {}
        }
    }

    /// The driver's thread: go to sleep in `place`. `false` where a wake came first.
    fn fall_asleep(&self, place: u8) -> bool {
        assert!(place == PARKED || place == IN_RUNTIME);
        self.state.compare_exchange(RUNNING, place, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The driver's thread: whether a wake is there to be taken.
    fn is_woken(&self) -> bool {
        self.state.load(Ordering::Acquire) == WOKEN
    }

    /// The driver's thread: be at work again, and take the wakes that came.
    fn get_up(&self) {
        self.state.swap(RUNNING, Ordering::AcqRel);
    }
}

/// The way to the helper thread, which ends when the sender is dropped.
type HelperThread = (mpsc::Sender<(Token, Job)>, JoinHandle<()>);

/// The thread that runs the jobs, one after another. It is started with the first of them.
struct Helper {
    fs: Arc<dyn Fs>,
    signal: Arc<Signal>,
    thread: Option<HelperThread>,
    /// What the thread has done and the driver not collected. At most `outstanding` long.
    finished: Arc<Mutex<Vec<Done>>>,
    /// Jobs that the thread was given and the driver did not collect.
    outstanding: usize,
}

impl Helper {
    fn new(fs: Arc<dyn Fs>, signal: Arc<Signal>) -> Self {
        Self { fs, signal, thread: None, finished: Arc::default(), outstanding: 0 }
    }

    /// Queue a job.
    fn run(&mut self, token: Token, job: Job) -> Result<()> {
        if self.thread.is_none() {
            self.thread = Some(self.start()?);
        }
        let (jobs, _) = self.thread.as_ref().expect("the helper thread was started");
        jobs.send((token, job)).expect("the helper thread runs until its channel closes");
        self.outstanding += 1;
        Ok(())
    }

    fn start(&self) -> Result<HelperThread> {
        let (sender, jobs) = mpsc::channel::<(Token, Job)>();
        let (fs, signal) = (Arc::clone(&self.fs), Arc::clone(&self.signal));
        let finished = Arc::clone(&self.finished);
        let work = move || {
            for (token, job) in jobs {
                let outcome = job::run(job, &*fs).map(Outcome::Job);
                lock(&finished).push(Done { token, outcome, buffer: None });
                signal.wake();
            }
        };
        match std::thread::Builder::new().name(HELPER_NAME.into()).spawn(work) {
            Ok(thread) => Ok((sender, thread)),
            Err(error) => Err(Error::of_std("pthread_create", "", &error)),
        }
    }

    /// Append what the jobs came to.
    fn collect(&mut self, out: &mut Vec<Done>) {
        if self.outstanding > 0 {
            let mut finished = lock(&self.finished);
            self.outstanding -= finished.len();
            out.append(&mut finished);
        }
    }

    /// Let the jobs that it has run to their end, then end the thread.
    fn join(&mut self) {
        if let Some((jobs, thread)) = self.thread.take() {
            drop(jobs);
            // Jobs that panic are caught, so the thread has no way to.
            let _ = thread.join();
        }
    }
}

fn lock(finished: &Mutex<Vec<Done>>) -> MutexGuard<'_, Vec<Done>> {
    // A list of whole values: a panic elsewhere leaves nothing to repair.
    finished.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Set up the runtime, with the flags that this kernel knows.
fn set_up() -> Result<Runtime> {
    // Newest first. SINGLE_ISSUER (6.0) spares locks, COOP_TASKRUN (5.19) spares interrupting the thread.
    // DEFER_TASKRUN is not among them: completions would wait for a call that epoll never makes.
    let mut wishes = [true, false].into_iter().map(|single_issuer| {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun();
        if single_issuer {
            ring.setup_single_issuer();
        }
        ring
    });
    let builder = loop {
        let (ring, last) = match wishes.next() {
            Some(ring) => (ring, false),
            None => (tokio_uring::uring_builder(), true),
        };
        match try_out(&ring) {
            Ok(()) => {
                let mut builder = tokio_uring::builder();
                builder.entries(ENTRIES).uring_builder(&ring);
                break builder;
            }
            Err(error) if error.errno == Errno::INVAL.raw_os_error() && !last => {}
            Err(error) => return Err(error),
        }
    };
    // It unwraps the registration of the ring with epoll, which has a limit per user.
    match catch_unwind(|| Runtime::new(&builder)) {
        Ok(Ok(runtime)) => Ok(runtime),
        Ok(Err(error)) => Err(explained("io_uring_setup", errno_of(&error))),
        Err(_) => {
            let error = Error::new("epoll_ctl", "", Errno::NOSPC.raw_os_error());
            Err(error.hint("the ring cannot be watched: see /proc/sys/fs/epoll/max_user_watches"))
        }
    }
}

/// Make such a ring, ask it for all that we need, and drop it. `tokio-uring` leaks its runtime where the ring
/// cannot be made, panics or sleeps for ever where the ring cannot be used, and ignores what `io_uring_enter`
/// answers; so we ask first.
fn try_out(builder: &io_uring::Builder) -> Result<()> {
    let failed = |syscall| move |error: std::io::Error| explained(syscall, errno_of(&error));
    let ring: IoUring = builder.build(ENTRIES).map_err(failed("io_uring_setup"))?;
    let mut probe = Probe::new();
    let unknown = ring.submitter().register_probe(&mut probe).map(|()| {
        let needed =
            [(opcode::Read::CODE, "read"), (opcode::Write::CODE, "write"), (opcode::Fsync::CODE, "fsync")];
        needed.into_iter().filter(|&(code, _)| !probe.is_supported(code)).map(|(_, name)| name).collect()
    });
    must_know(unknown)?;
    ring.submitter().submit().map_err(failed("io_uring_enter"))?;
    // The runtime has four descriptors, these are eight: room for its own, held while the ring is and let go.
    let room: std::io::Result<Vec<_>> = (0..4).map(|_| std::io::pipe()).collect();
    room.map_err(failed("pipe2"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenOptions;
    use crate::os::{OsFile, OsFs};

    #[test]
    fn a_wake_rouses_a_thread_that_sleeps_in_the_runtime() {
        // Goal: the notice arrives, and not only the next tick. Method: a read that does not end keeps the
        // thread there; each round trip needs its wake, and by ticks alone they would take five minutes.
        const ROUNDS: usize = 3000;
        const { assert!(TICK.as_millis() as usize * ROUNDS > 4 * 60_000) };
        let mut driver = TokioRing::new(Arc::new(OsFs)).unwrap();
        // Dropped before the driver, which ends the read also where this test fails.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let file = OsFile::of_descriptor(reader.into(), "a pipe");
        driver.submit(Token(1), Op::Read { file, at: 0, buffer: Buffer::zeroed(5) });
        let (asked, asks) = mpsc::channel::<()>();
        let waker = driver.waker();
        let thread = std::thread::spawn(move || {
            for () in asks {
                // For the other side to fall asleep: without, most wakes would come ahead of that.
                std::thread::sleep(Duration::from_micros(100));
                waker.wake();
            }
        });
        let (start, mut out) = (now(), Vec::new());
        for _ in 0..ROUNDS {
            asked.send(()).unwrap();
            driver.wait(None, &mut out);
            assert!(out.is_empty(), "{out:?}");
            assert!(now().since(start) < Duration::from_mins(1), "wakes are lost");
        }
        drop(asked);
        thread.join().unwrap();
        std::io::Write::write_all(&mut writer, b"bytes").unwrap();
        while out.is_empty() {
            driver.wait(None, &mut out);
        }
        assert!(matches!(out[0].outcome, Ok(Outcome::Read(5))), "{out:?}");
        assert_eq!(out[0].buffer.as_deref(), Some(&b"bytes"[..]));
    }

    #[test]
    fn what_the_kernel_asks_to_try_again_is_tried_a_bounded_number_of_times() {
        // No file at hand makes the kernel ask for that, so only the counting is seen here.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut retries = Retries::default();
            assert!(!retries.allow(Errno::IO).await, "it does not ask for it");
            for _ in 0..Retries::MAX / 2 {
                assert!(retries.allow(Errno::INTR).await && retries.allow(Errno::AGAIN).await);
            }
            assert!(!retries.allow(Errno::INTR).await && !retries.allow(Errno::AGAIN).await);
        });
    }

    #[cfg(feature = "sim")]
    #[test]
    fn an_operation_that_panics_ends_wait_by_a_panic_and_the_drop_completes_the_others() {
        // Goal: neither waits for what never comes. Method: a file of another disk, which is a mistake that the
        // task finds out; beside it writes that are still queued, some more than have an entry at a time.
        let sim = crate::sim::Sim::new(1);
        sim.write_file("/foreign", b"bytes");
        let foreign = sim.fs().open("/foreign".as_ref(), OpenOptions::WRITE).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let count = 2 * IN_FLIGHT_MAX;
        for foreigners in [1, count] {
            let file = OsFs.open(&dir.path().join("file"), OpenOptions::replace(0o600)).unwrap();
            let mut driver = TokioRing::new(Arc::new(OsFs)).unwrap();
            for index in 0..foreigners {
                let (file, buffer) = (foreign.clone(), Buffer::zeroed(5));
                driver.submit(Token(index as u64), Op::Read { file, at: 0, buffer });
            }
            for index in 0..count {
                let (file, at, buffer) = (file.clone(), index as u64, Buffer::copy_of(b"x"));
                let token = Token((count + index) as u64);
                driver.submit(token, Op::Write { file, at, buffer, mode: WriteMode::Plain });
            }
            let waited = catch_unwind(AssertUnwindSafe(|| {
                let mut out = Vec::new();
                while out.len() < count {
                    driver.wait(None, &mut out);
                }
            }));
            assert!(waited.is_err());
            drop(driver);
            assert_eq!(OsFs.len(&file), Ok(count as u64));
        }
    }

    #[test]
    fn a_file_system_without_rwf_dsync_gets_a_write_and_a_flush() {
        // Every file system at hand takes the flag, so this file is told that its own did not.
        let dir = tempfile::tempdir().unwrap();
        let mut driver = TokioRing::new(Arc::new(OsFs)).unwrap();
        let file = OsFs.open(&dir.path().join("file"), OpenOptions::replace(0o600)).unwrap();
        file.os().refused_dsync();
        for (at, mode) in [(0, WriteMode::Dsync), (5, WriteMode::Alone)] {
            let buffer = Buffer::copy_of(b"bytes");
            driver.submit(Token(at), Op::Write { file: file.clone(), at, buffer, mode });
            let mut out = Vec::new();
            while out.is_empty() {
                driver.wait(None, &mut out);
            }
            assert!(matches!(out[0].outcome, Ok(Outcome::Written)), "{out:?}");
        }
        let mut bytes = [0; 20];
        assert_eq!(OsFs.read_at(&file, 0, &mut bytes), Ok(10));
        assert_eq!(&bytes[..10], b"bytesbytes");
    }

    #[test]
    fn a_write_whose_flush_fails_fails_also_where_the_flush_stands_for_rwf_dsync() {
        // This file takes a plain write (of what it holds already) and has no flush.
        let path = "/proc/self/coredump_filter";
        // Kernels without core dumps do not have it.
        let Ok(held) = std::fs::read_to_string(path) else { return };
        let mut driver = TokioRing::new(Arc::new(OsFs)).unwrap();
        let file = OsFs.open(path.as_ref(), OpenOptions::WRITE).unwrap();
        file.os().refused_dsync();
        for mode in [WriteMode::Dsync, WriteMode::Alone] {
            let buffer = Buffer::copy_of(format!("0x{held}").as_bytes());
            driver.submit(Token(1), Op::Write { file: file.clone(), at: 0, buffer, mode });
            let mut out = Vec::new();
            while out.is_empty() {
                driver.wait(None, &mut out);
            }
            let error = out.remove(0).outcome.unwrap_err();
            assert_eq!((error.syscall, error.errno), ("fdatasync", Errno::INVAL.raw_os_error()));
        }
    }

    #[test]
    fn a_wake_is_taken_once_and_ends_the_sleep_that_it_meets() {
        let parker = Parker::new();
        let signal = Signal::new(parker.unparker().clone());
        for place in [PARKED, IN_RUNTIME] {
            signal.wake();
            assert!(!signal.fall_asleep(place), "a wake came first");
            signal.get_up();
            assert!(signal.fall_asleep(place));
            assert!(!signal.is_woken());
            signal.wake();
            assert!(signal.is_woken());
            signal.get_up();
            assert!(!signal.is_woken());
        }
    }
}
