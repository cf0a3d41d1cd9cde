//! A store's life: opened on a thread of its own, used from any thread, closed in order.
//!
//! ```text
//!   Opening ──▶ Open ──▶ Closing ──▶ Closed          one thread, asleep in Open, which builds the engine
//!      └──▶ Failed                                    and at the end waits for it
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use ringbolt_disk::{Backend, Done, Engine, EngineOptions, Fs, NewDisk, Op, Pool, SharedDisk, Token};

use crate::blob::machine::{Config, Machine};
use crate::blob::options::Options;
use crate::blob::root::Root;
use crate::blob::stats::Stats;
use crate::blob::{Finished, Request, failure, root};
use crate::error::{Code, Error, Result};
use crate::panic;

/// Is called, on any thread and with no lock held, when there is something to take or the state has changed.
pub type Listener = Box<dyn Fn() + Send + Sync>;

/// Where a store is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being opened. Requests are not for now.
    Opening,
    /// It takes requests. Also while it closes: then they are answered with `ERR_BLOB_STORE_CLOSED`.
    Open {
        /// What runs it.
        backend: Backend,
        /// Why that is not the first choice, where it is not.
        reason: Option<String>,
    },
    /// It could not be opened. Everything it held is let go of.
    Failed(Error),
    /// It was closed, its threads have ended and its lock is free.
    Closed,
}

/// So many threads do what blocks: opening, removing, listing, directory syncs.
const HELPERS: usize = 4;

/// A handle on a store. Dropping it closes the store and waits for its end.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    life: Option<JoinHandle<()>>,
}

struct Shared {
    options: Options,
    listener: Listener,
    fs: Arc<dyn Fs>,
    pool: Arc<Pool>,
    inner: Mutex<Inner>,
    /// Told when `inner` may have become finished, or is told to close.
    turn: Condvar,
    /// Written twice: when the engine is there, and when it is to go. Requests go through it side by side.
    engine: RwLock<Option<Box<dyn Engine>>>,
}

/// Let the machine take one thing in. A panic is a mistake of ours: everybody is told, and the store closes. What else
/// is to be taken in is then counted still: a completion that nobody heard of would be waited for for ever.
fn guarded(machine: &mut Machine, work: impl FnOnce(&mut Machine)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(machine))) {
        machine.fail(&failure::bug(panic::message(&*panic)));
    }
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    state: State,
    is_closing: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.options.directory.display())
    }
}

impl Store {
    /// Start to open a store, on a thread of its own. `listener` tells when [`Store::state`] says how that went.
    pub fn open(options: Options, disk: impl Into<NewDisk<SharedDisk>>, listener: Listener) -> Self {
        let disk = disk.into();
        let pool = Arc::new(Pool::default());
        let inner = Inner {
            machine: Machine::new(Config::of(&options), Arc::clone(&pool)),
            state: State::Opening,
            is_closing: false,
        };
        let shared = Arc::new(Shared {
            options,
            listener,
            fs: Arc::clone(&disk.fs),
            pool,
            inner: Mutex::new(inner),
            turn: Condvar::new(),
            engine: RwLock::new(None),
        });
        let mine = Arc::clone(&shared);
        let life = std::thread::Builder::new().name("ringbolt-store".into()).spawn(move || mine.live(disk));
        let life = match life {
            Ok(life) => Some(life),
            Err(error) => {
                let error = ringbolt_disk::Error::of_std("pthread_create", "", &error);
                shared.set(State::Failed(failure::of_store(Code::BlobStoreIo, "opening the store", error)));
                None
            }
        };
        Self { shared, life }
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.shared.inner().state.clone()
    }

    /// Buffers for [`crate::blob::BlobRequest::Write`], recycled.
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// Ask for something. It is answered once, by [`Store::take`], under the same number, which the caller chooses.
    /// Never waits for the disk.
    pub fn request(&self, id: u32, request: Request) {
        self.request_all(std::iter::once((id, request)));
    }

    /// Ask for several things at once.
    pub fn request_all(&self, requests: impl IntoIterator<Item = (u32, Request)>) {
        let mut ops = Vec::new();
        let has_news = self.shared.turn(|machine| {
            let now = self.shared.fs.now();
            for (id, request) in requests {
                guarded(machine, |machine| machine.request(now, id, request));
            }
            machine.take_ops(&mut ops);
        });
        self.shared.submit(&mut ops);
        if has_news {
            (self.shared.listener)();
        }
    }

    /// Move out the answers since the last call.
    pub fn take(&self, out: &mut Vec<Finished>) {
        out.append(self.shared.inner().machine.finished());
    }

    /// Fill `into` from the page cache, in place and without waiting: `true` where all of it was there. Otherwise, an
    /// error included, ask by a request, which tells why.
    pub fn read_now(&self, blob: u32, offset: u64, into: &mut [u8]) -> bool {
        let place = {
            let inner = self.shared.inner();
            inner.machine.file(blob).and_then(|(file, data_at, size)| {
                let is_inside = offset.checked_add(into.len() as u64).is_some_and(|end| end <= size);
                is_inside.then(|| (file.clone(), data_at + offset))
            })
        };
        let Some((file, at)) = place else { return false };
        let is_whole = self.shared.fs.read_cached(&file, at, into) == Ok(into.len());
        if is_whole {
            self.shared.inner().machine.count_cached_read(into.len() as u64);
        }
        is_whole
    }

    /// The size of an open blob in bytes, after every change that is over; 0 of one that is closed.
    pub fn size(&self, blob: u32) -> u64 {
        self.shared.inner().machine.file(blob).map_or(0, |(_, _, size)| size)
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        let now = self.shared.fs.now();
        let stats = self.shared.inner().machine.stats(now);
        Stats { queue_depth: self.shared.options.queue_depth as u64, ..stats }
    }

    /// Begin to close. What was asked before is answered as it ends; what is asked later is refused. Nothing is
    /// flushed. May be called again.
    pub fn close(&self) {
        let mut inner = self.shared.inner();
        inner.is_closing = true;
        inner.machine.close();
        drop(inner);
        self.shared.turn.notify_all();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
        if let Some(life) = self.life.take() {
            // Its panics are caught and told.
            let _ = life.join();
        }
    }
}

impl Shared {
    /// The whole life, for a thread of its own.
    fn live(self: Arc<Self>, disk: NewDisk<SharedDisk>) {
        let opened = catch_unwind(AssertUnwindSafe(|| self.open(disk)));
        let root = match opened.unwrap_or_else(|panic| Err(failure::bug(panic::message(&*panic)))) {
            Ok(root) => root,
            Err(error) => return self.set(State::Failed(error)),
        };
        let mut inner = self.inner();
        while !(inner.is_closing && inner.machine.is_finished()) {
            inner = self.turn.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        drop(inner);
        // Everything is answered. The engine ends first, and with it the last use of a file; then the lock goes.
        let engine = self.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(engine);
        let leaving = self.inner().machine.let_go();
        root.close(&*self.fs, &leaving);
        self.set(State::Closed);
    }

    fn open(self: &Arc<Self>, disk: NewDisk<SharedDisk>) -> Result<Root> {
        let options = EngineOptions { depth: self.options.queue_depth, helpers: HELPERS };
        let build = |SharedDisk { fs, engine, backend }| {
            let shared = Arc::clone(self);
            let on_done = move |done: &mut Vec<Done>, ops: &mut Vec<(Token, Op)>| shared.on_done(done, ops);
            Ok((fs, engine(options, Box::new(on_done))?, backend))
        };
        // Before the directory is touched: where it is not to be had, nothing is made.
        let ((fs, engine, backend), reason) = disk.build(build).map_err(Error::backend_unavailable)?;
        let root = root::open(&*fs, &self.options, &|| !self.inner().is_closing)?;
        if !root.is_settled {
            self.inner().machine.distrust();
        }
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Some(engine);
        self.set(State::Open { backend, reason });
        Ok(root)
    }

    fn on_done(&self, done: &mut Vec<Done>, ops: &mut Vec<(Token, Op)>) {
        let has_news = self.turn(|machine| {
            let now = self.fs.now();
            for done in done.drain(..) {
                guarded(machine, |machine| machine.on_done(now, done));
            }
            machine.take_ops(ops);
        });
        if has_news {
            (self.listener)();
        }
    }

    /// Do something to the machine, guarded; says whether there is something to take.
    fn turn(&self, work: impl FnOnce(&mut Machine)) -> bool {
        let mut inner = self.inner();
        work(&mut inner.machine);
        let has_news = !inner.machine.finished().is_empty();
        let may_end = inner.is_closing && inner.machine.is_finished();
        drop(inner);
        if may_end {
            self.turn.notify_all();
        }
        has_news
    }

    fn submit(&self, ops: &mut Vec<(Token, Op)>) {
        if ops.is_empty() {
            return;
        }
        let engine: RwLockReadGuard<'_, _> = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        // It goes only when nothing is under way, and these operations are.
        engine.as_ref().expect("an open store has its engine").submit(ops);
    }

    fn set(&self, state: State) {
        self.inner().state = state;
        (self.listener)();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What may panic while holding it is caught, and the machine is told.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
