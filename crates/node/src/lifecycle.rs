//! Which logs and stores are open in this environment, and how each of them ends.
//!
//! | how | who closes it | who waits for the threads |
//! | --- | --- | --- |
//! | `close()` | the facade | nobody: it is told when the threads have ended, then calls `release` |
//! | collected unclosed | the facade's registry | as above |
//! | the environment ends: process end, `worker.terminate()` | the cleanup hook | the cleanup hook: afterwards it can be opened again at once, no thread is left that could call into what is gone, and none of the environment's memory is lent |
//! | `process.exit()` on the main thread, SIGKILL | nobody | nobody: what was acknowledged is on the disk, and the kernel drops the locks with the last write |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use napi::Env;
use napi::bindgen_prelude::Function;
use napi_derive::napi;
use ringbolt_core::blob;
use ringbolt_core::wal::handle::{self, Handle};
use ringbolt_disk::Preference;

use crate::completion::Road;
use crate::guard::guard;
use crate::staging::Loans;
use crate::store::OpenStore;

thread_local! {
    /// The environments of this thread: one for each copy of the package that opened something. JavaScript knows them,
    /// and its services, by number. An object of a class would be looked up, checked and rooted anew by every call,
    /// which costs a microsecond; a number costs nothing.
    ///
    /// Never dropped, and neither are the services below: `process.exit()` runs a thread's destructors, and a drop
    /// would wait there for a disk that may never answer. Where an environment ends in order, its cleanup hook
    /// empties both.
    static ENVIRONMENTS: ManuallyDrop<RefCell<BTreeMap<u32, Arc<Environment>>>> = ManuallyDrop::default();
    /// The logs and stores of this thread, open or not yet released.
    static SERVICES: ManuallyDrop<RefCell<BTreeMap<u32, Running>>> = ManuallyDrop::default();
}

/// Never used twice in a process: a number that outlives its service, or its environment, finds nothing.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

fn next_id() -> u32 {
    LAST_ID.fetch_add(1, Ordering::Relaxed) + 1
}

/// What the services of one JavaScript thread, the main one or a worker's, share.
struct Environment {
    road: Road,
    loans: Arc<Loans>,
}

/// A service, and the environment it ends with at the latest.
struct Running {
    service: Service,
    environment: u32,
}

/// Dropping one waits for its threads.
enum Service {
    Log(Handle),
    Store(OpenStore),
}

impl Service {
    fn close(&self) {
        match self {
            Self::Log(log) => log.close(),
            Self::Store(store) => store.close(),
        }
    }
}

/// Set up this environment, once; returns its number. `callback` is called, without arguments, when there is news
/// and JavaScript does not look by itself (see `takeNews`).
#[napi]
pub fn create_environment(env: Env, callback: Function<'_, (), ()>) -> napi::Result<u32> {
    guard(|| {
        let environment = Arc::new(Environment { road: Road::to(&callback)?, loans: Arc::default() });
        let id = next_id();
        // Registered behind the threadsafe function, so that it runs before that one's own hook.
        env.add_env_cleanup_hook(Arc::clone(&environment), move |environment| {
            // Nothing could be done about a panic here, and nobody could be told.
            drop(catch_unwind(AssertUnwindSafe(|| environment.end(id))));
            environment.must_have_no_loans();
        })?;
        ENVIRONMENTS.with(|environments| environments.borrow_mut().insert(id, environment));
        Ok(id)
    })?
}

/// The numbers of the logs and stores there is news of. To be asked again, a turn of the event loop later, until there
/// are none: only then is there a call for the next.
#[napi]
pub fn take_news(environment: u32) -> napi::Result<Vec<u32>> {
    guard(|| self::environment(environment).road.take_news())
}

/// Start to open a log in this environment; returns its number.
pub(crate) fn open_log(environment: u32, options: handle::Options, backend: Preference) -> u32 {
    run(environment, |_, tell| Service::Log(Handle::open(options, backend, Box::new(tell))))
}

/// Start to open a store in this environment; returns its number.
pub(crate) fn open_store(environment: u32, options: blob::Options, backend: Preference) -> u32 {
    run(environment, |loans, tell| {
        let store = blob::Store::open(options, backend, Box::new(tell));
        Service::Store(OpenStore::new(store, loans))
    })
}

/// Start a service; what it is given says that there is news of it.
fn run(environment: u32, start: impl FnOnce(Arc<Loans>, Tell) -> Service) -> u32 {
    let told = self::environment(environment);
    let id = next_id();
    let loans = Arc::clone(&told.loans);
    let service = start(loans, Box::new(move || told.road.tell(id)));
    SERVICES.with(|services| services.borrow_mut().insert(id, Running { service, environment }));
    id
}

type Tell = Box<dyn Fn() + Send + Sync>;

/// Do something with a log.
pub(crate) fn with_log<T>(log: u32, work: impl FnOnce(&Handle) -> T) -> napi::Result<T> {
    with(log, |service| match service {
        Service::Log(log) => work(log),
        Service::Store(_) => unreachable!("the facade asks a log for what is a log's"),
    })
}

/// Do something with a store.
pub(crate) fn with_store<T>(store: u32, work: impl FnOnce(&OpenStore) -> T) -> napi::Result<T> {
    with(store, |service| match service {
        Service::Store(store) => work(store),
        Service::Log(_) => unreachable!("the facade asks a store for what is a store's"),
    })
}

fn with<T>(id: u32, work: impl FnOnce(&Service) -> T) -> napi::Result<T> {
    guard(|| {
        SERVICES.with(|services| {
            let services = services.borrow();
            work(&services.get(&id).expect("the facade asks for what it has not released").service)
        })
    })
}

/// Let go of a log or a store whose threads have ended, and of its memory, without waiting for a garbage collection.
#[napi]
pub fn release(service: u32) -> napi::Result<()> {
    guard(|| SERVICES.with(|services| drop(services.borrow_mut().remove(&service))))
}

fn environment(id: u32) -> Arc<Environment> {
    ENVIRONMENTS
        .with(|environments| environments.borrow().get(&id).map(Arc::clone))
        .expect("the facade asks for the environment it made")
}

impl Environment {
    /// Close every service and wait for their threads: all begin to close before the first is waited for.
    fn end(&self, id: u32) {
        self.road.close();
        // On the environment's own thread, as everything that fills these maps.
        let ending: Vec<_> = SERVICES.with(|services| {
            services.borrow_mut().extract_if(.., |_, running| running.environment == id).collect()
        });
        ENVIRONMENTS.with(|environments| environments.borrow_mut().remove(&id));
        for (_, running) in &ending {
            running.service.close();
        }
        if has_planted_bug() {
            std::mem::forget(ending);
        }
    }

    /// The environment's memory is gone when its cleanup hook returns. Should the kernel still be about to write to it,
    /// no JavaScript error can help any more; better no process than one with foreign bytes in its memory.
    fn must_have_no_loans(&self) {
        let count = self.loans.count();
        if count > 0 {
            eprintln!("ringbolt has a bug, please report it: {count} reads into an environment that ends");
            std::process::abort();
        }
    }
}

/// For the test that shows that the check above bites: the hook waits for nobody.
#[cfg(debug_assertions)]
fn has_planted_bug() -> bool {
    std::env::var_os("RINGBOLT_PLANTED").is_some_and(|bug| bug == "end_waits_for_nobody")
}

#[cfg(not(debug_assertions))]
fn has_planted_bug() -> bool {
    false
}

/// Whether bugs can be planted in this build: for the tests.
#[napi]
pub fn has_planted_bugs() -> bool {
    cfg!(debug_assertions)
}
