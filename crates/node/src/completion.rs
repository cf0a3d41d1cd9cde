//! The one road back: a weak threadsafe function, called only while JavaScript does not look by itself.
//!
//! ```text
//!   service threads                    JavaScript thread
//!
//!   tell(id)   ── news += id
//!              ── looking? no: call ─▶ callback()
//!                                       │ take_news(): some. Once more in the next turn of its event loop
//!   tell(id)   ── news += id            ▼
//!              ── looking? yes         look at each log and store, settle its promises
//!                                       │ take_news(): some. And so on, each turn
//!                                       ▼
//!                                      take_news(): none, looking = no
//! ```
//!
//! Node's threadsafe functions make up to a thousand calls in one turn of the event loop where each new one comes
//! during the last. A log that writes back to back would call as often, and meanwhile no timer ends and no socket is
//! read: 10 ms and more with 1000 appends outstanding. So there is a call only to begin with.
//!
//! The function is weak, so it never keeps the event loop alive: the facade does that, only while something is
//! outstanding. There is one for each environment, not one for each log or store: then a single cleanup hook,
//! registered right behind it, is sure to run before Node takes it down (hooks run last in, first out), and
//! opening and closing one costs none. Nor can it keep one alive: it carries numbers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use napi::Status;
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

/// `callback()`, weak.
type Call = ThreadsafeFunction<(), (), (), Status, false, true>;

/// From the services of one environment to its JavaScript.
pub(crate) struct Road {
    call: Call,
    /// The environment is ending: nobody is called any more.
    closed: AtomicBool,
    news: Mutex<News>,
}

#[derive(Debug, Default)]
struct News {
    /// Logs and stores on which something happened since JavaScript last looked, each once.
    ids: Vec<u32>,
    /// JavaScript was called and has not found nothing since: it will look by itself.
    is_looking: bool,
}

impl Road {
    /// A road to `callback`, which calls `take_news` once a turn until there is none.
    pub(crate) fn to(callback: &Function<'_, (), ()>) -> napi::Result<Self> {
        let call = callback.build_threadsafe_function().weak::<true>().build()?;
        Ok(Self { call, closed: AtomicBool::new(false), news: Mutex::default() })
    }

    /// Say that there is news of a log or a store. From any thread; does not block.
    pub(crate) fn tell(&self, id: u32) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let was_looking = {
            let mut news = self.news();
            if !news.ids.contains(&id) {
                news.ids.push(id);
            }
            std::mem::replace(&mut news.is_looking, true)
        };
        if !was_looking {
            // Not taken means that the environment is closing: nobody is left to tell.
            self.call.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// Take out what there is news of. Nothing means that the next is told by a call.
    pub(crate) fn take_news(&self) -> Vec<u32> {
        let mut news = self.news();
        news.is_looking = !news.ids.is_empty();
        std::mem::take(&mut news.ids)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call nobody from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
