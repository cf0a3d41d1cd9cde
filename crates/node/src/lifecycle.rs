//! Which logs are open in this environment, and how each of them ends.
//!
//! | how | who closes it | who waits for the thread |
//! | --- | --- | --- |
//! | `close()` | the facade | nobody: it is told when the thread has ended, then calls `release` |
//! | collected unclosed | the facade's registry | as above |
//! | the environment ends: process end, `worker.terminate()` | the cleanup hook | the cleanup hook: afterwards the log can be opened again at once, and no thread is left that could call into what is gone |
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
use ringbolt_core::wal::handle::{Handle, Listener, Options};

use crate::completion::Road;
use crate::guard::guard;

thread_local! {
    /// The environments of this thread: one for each copy of the package that opened a log. JavaScript knows them,
    /// and its logs, by number. An object of a class would be looked up, checked and rooted anew by every call,
    /// which costs a microsecond; a number costs nothing.
    ///
    /// Never dropped, and neither are the logs below: `process.exit()` runs a thread's destructors, and a drop
    /// would wait there for a disk that may never answer. Where an environment ends in order, its cleanup hook
    /// empties both.
    static ENVIRONMENTS: ManuallyDrop<RefCell<BTreeMap<u32, Arc<Environment>>>> = ManuallyDrop::default();
    /// The logs of this thread, open or not yet released.
    static LOGS: ManuallyDrop<RefCell<BTreeMap<u32, Log>>> = ManuallyDrop::default();
}

/// Never used twice in a process: a number that outlives its log, or its environment, finds nothing.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

fn next_id() -> u32 {
    LAST_ID.fetch_add(1, Ordering::Relaxed) + 1
}

/// The road back to an environment: the main thread's, or a worker's.
struct Environment {
    road: Road,
}

/// A log, and the environment it ends with at the latest.
struct Log {
    handle: Handle,
    environment: u32,
}

/// Set up this environment, once; returns its number. `callback` is called, without arguments, when there is news
/// (see `takeNews`).
#[napi]
pub fn create_environment(env: Env, callback: Function<'_, (), ()>) -> napi::Result<u32> {
    guard(|| {
        let environment = Arc::new(Environment { road: Road::to(&callback)? });
        let id = next_id();
        // Registered behind the threadsafe function, so that it runs before that one's own hook.
        env.add_env_cleanup_hook(Arc::clone(&environment), move |environment| {
            // Nothing could be done about a panic here, and nobody could be told.
            drop(catch_unwind(AssertUnwindSafe(|| environment.end(id))));
        })?;
        ENVIRONMENTS.with(|environments| environments.borrow_mut().insert(id, environment));
        Ok(id)
    })?
}

/// The numbers of the logs there is news of.
#[napi]
pub fn take_news(environment: u32) -> napi::Result<Vec<u32>> {
    guard(|| self::environment(environment).road.take_news())
}

/// Start to open a log in this environment; returns its number.
pub(crate) fn open(environment: u32, options: Options) -> u32 {
    let told = self::environment(environment);
    let id = next_id();
    let listener: Listener = Box::new(move || told.road.tell(id));
    let log = Log { handle: Handle::open(options, ringbolt_disk::disk(), listener), environment };
    LOGS.with(|logs| logs.borrow_mut().insert(id, log));
    id
}

/// Do something with a log.
pub(crate) fn with<T>(log: u32, work: impl FnOnce(&Handle) -> T) -> napi::Result<T> {
    guard(|| {
        LOGS.with(|logs| {
            let logs = logs.borrow();
            work(&logs.get(&log).expect("the facade asks for logs it has not released").handle)
        })
    })
}

/// Let go of a log whose thread has ended: dropping it would wait for that.
pub(crate) fn release(log: u32) {
    LOGS.with(|logs| drop(logs.borrow_mut().remove(&log)));
}

fn environment(id: u32) -> Arc<Environment> {
    ENVIRONMENTS
        .with(|environments| environments.borrow().get(&id).map(Arc::clone))
        .expect("the facade asks for the environment it made")
}

impl Environment {
    /// Close every log and wait for their threads: all begin to close before the first is waited for.
    fn end(&self, id: u32) {
        self.road.close();
        // On the environment's own thread, as everything that fills these maps.
        LOGS.with(|logs| {
            let mut logs = logs.borrow_mut();
            for log in logs.values().filter(|log| log.environment == id) {
                log.handle.close();
            }
            // Dropping a handle waits for its thread.
            logs.retain(|_, log| log.environment != id);
        });
        ENVIRONMENTS.with(|environments| environments.borrow_mut().remove(&id));
    }
}
