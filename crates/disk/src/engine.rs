//! The hot side of the waist for a service whose callers submit on their own threads, and the [`Driver`] that
//! any engine makes: one thread's inbox for its completions.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use crate::{Backend, Disk, Done, Driver, Fs, Op, Outcome, Result, Time, Token, Waker, WriteMode};

/// Runs operations that any thread hands it. Where a [`Driver`] is asked for what is done, an engine tells: it
/// calls its [`OnDone`] on a thread of its own.
///
/// Dropping it completes everything that was submitted, jobs too, and blocks until then; [`OnDone`] is still
/// called, and what it adds is completed as well. Then the threads of the engine end. On one of these threads,
/// from within [`OnDone`] or a job, the drop cannot wait for itself: there it returns at once, and the rest
/// happens behind it.
pub trait Engine: Send + Sync {
    /// Take over operations, in this order, and leave `ops` empty. Never fails and never waits for the disk:
    /// whatever goes wrong comes back as a [`Done`]. [`crate::WriteMode::Alone`] is as `Dsync` here.
    fn submit(&self, ops: &mut Vec<(Token, Op)>);
}

/// Hears of completions, each once, and adds what is to be submitted next. It is called on threads of the
/// engine, at times by several at once, and never with a lock of the engine held. One that panics loses what it
/// was told; the engine goes on.
pub type OnDone = Box<dyn Fn(&mut Vec<Done>, &mut Vec<(Token, Op)>) + Send + Sync>;

/// How large an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// How many operations are at the disk at most; at least one, and an engine may have a bound of its own above
    /// any use. The rest waits in the engine, first in first out; its bound is the caller's.
    pub depth: usize,
    /// How many threads run jobs at most; at least one. With one jobs run one after another, in order.
    pub helpers: usize,
}

/// Builds an engine.
pub type NewEngine = Box<dyn FnOnce(EngineOptions, OnDone) -> Result<Box<dyn Engine>> + Send>;

/// Everything such a service needs of a disk.
pub struct SharedDisk {
    /// The cold side.
    pub fs: Arc<dyn Fs>,
    /// Builds the hot side; called once, on any thread.
    pub engine: NewEngine,
    /// What it is.
    pub backend: Backend,
}

impl SharedDisk {
    /// The same disk for a service that has one thread.
    pub fn into_disk(self, options: EngineOptions) -> Disk {
        let Self { fs, engine, backend } = self;
        Disk { fs, driver: Box::new(move || Ok(Box::new(EngineDriver::new(engine, options)?))), backend }
    }
}

impl fmt::Debug for SharedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedDisk({})", self.backend.name())
    }
}

/// A [`Driver`] on an engine. A lone write it does itself, on its own thread: on its way to another and back it would
/// meet two more sleeps, and nothing else is waiting.
pub struct EngineDriver {
    engine: Box<dyn Engine>,
    inbox: Arc<Inbox>,
    /// What [`Engine::submit`] takes from; empty between two calls.
    ops: Vec<(Token, Op)>,
    /// It does not go to another thread: wakes rouse the one that made it.
    _of_this_thread: PhantomData<*const ()>,
}

/// What the engine's threads and wakers leave for the driver's thread.
struct Inbox {
    /// What is done and not collected. Its bound is what was submitted.
    done: Mutex<Vec<Done>>,
    /// Whether the thread is to look: somebody woke it, or left something. Set after that, and before the thread is
    /// roused; taken by the thread before it looks, so whatever comes later sets it once more.
    has_news: AtomicBool,
    /// The driver's thread. It parks only after it has seen that there is no news, and looks again when it is roused,
    /// so it does not matter who else parks on it, or takes its token.
    thread: Thread,
}

impl Inbox {
    fn done(&self) -> MutexGuard<'_, Vec<Done>> {
        // A list of whole values: a panic elsewhere leaves nothing to repair.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any thread: end the sleep of the driver's, or the next one. A system call only where it sleeps.
    fn wake(&self) {
        if !self.has_news.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

impl EngineDriver {
    /// A driver on what `engine` builds, for the calling thread.
    ///
    /// # Errors
    /// What building the engine answers.
    pub fn new(engine: NewEngine, options: EngineOptions) -> Result<Self> {
        let inbox = Arc::new(Inbox {
            done: Mutex::default(),
            has_news: AtomicBool::new(false),
            thread: std::thread::current(),
        });
        let told = Arc::clone(&inbox);
        let on_done: OnDone = Box::new(move |done, _| {
            told.done().append(done);
            told.wake();
        });
        Ok(Self { engine: engine(options, on_done)?, inbox, ops: Vec::new(), _of_this_thread: PhantomData })
    }
}

impl Driver for EngineDriver {
    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Write { file, at, buffer, mode: WriteMode::Alone } => {
                let outcome = file.os().write_durably(at, &buffer).map(|()| Outcome::Written);
                self.inbox.done().push(Done { token, outcome, buffer: Some(buffer) });
                self.inbox.has_news.store(true, Ordering::Release);
            }
            op => {
                self.ops.push((token, op));
                self.engine.submit(&mut self.ops);
            }
        }
    }

    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>) {
        while !self.inbox.has_news.swap(false, Ordering::AcqRel) {
            match until.map(|until| until.since(self.now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => break,
                Some(left) => std::thread::park_timeout(left),
            }
        }
        out.append(&mut self.inbox.done());
    }

    fn waker(&self) -> Waker {
        let inbox = Arc::clone(&self.inbox);
        Waker::new(move || inbox.wake())
    }

    fn now(&self) -> Time {
        crate::os::now()
    }
}

impl fmt::Debug for EngineDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineDriver({} done)", self.inbox.done().len())
    }
}
