//! The one road back: a weak threadsafe function, called only if no call is on its way.
//!
//! ```text
//!   service threads                    JavaScript thread
//!
//!   tell(id)   ── news += id
//!              ── pending? no: call ─▶ callback()
//!   tell(id)   ── news += id             │ take_news(): pending = no, then news taken out
//!              ── pending? yes           ▼
//!                                      look at each log and store, settle its promises
//! ```
//!
//! `pending` falls *before* the news are taken out. The other way round one told of in between would wait for
//! a call that nobody makes; this way round the worst is a call that finds no news.
//!
//! The function is weak, so it never keeps the event loop alive: the facade does that, only while something is
//! outstanding. There is one for each environment, not one for each log or store: then a single cleanup hook,
//! registered right behind it, is sure to run before Node takes it down (hooks run last in, first out), and
//! opening and closing one costs none. Nor can it keep one alive: it carries numbers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use napi::Status;
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

/// `callback()`, weak.
type Call = ThreadsafeFunction<(), (), (), Status, false, true>;

/// From the services of one environment to its JavaScript.
pub(crate) struct Road {
    call: Call,
    /// A call is on its way. Rises in `tell`, falls in `take_news` before the news are read.
    pending: AtomicBool,
    /// The environment is ending: nobody is called any more.
    closed: AtomicBool,
    /// Logs and stores on which something happened since JavaScript last looked, each once.
    news: Mutex<Vec<u32>>,
}

impl Road {
    /// A road to `callback`.
    pub(crate) fn to(callback: &Function<'_, (), ()>) -> napi::Result<Self> {
        let call = callback.build_threadsafe_function().weak::<true>().build()?;
        Ok(Self {
            call,
            pending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            news: Mutex::default(),
        })
    }

    /// Say that there is news of a log or a store. From any thread; does not block.
    pub(crate) fn tell(&self, id: u32) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        {
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            if !news.contains(&id) {
                news.push(id);
            }
        }
        if !self.pending.swap(true, Ordering::AcqRel) {
            // Not taken means that the environment is closing: nobody is left to tell.
            self.call.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// Take out what there is news of.
    pub(crate) fn take_news(&self) -> Vec<u32> {
        self.pending.store(false, Ordering::Release);
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Call nobody from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
