//! The threads for what blocks, and for what must not be done by the thread that asked for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::state::{State, Work};
use super::{NAMES, Shared};
use crate::{Done, Outcome, Result, job};

impl Shared {
    /// One more piece of work is there.
    pub(super) fn rouse_helper(self: &Arc<Self>, state: &mut State) {
        if state.work.len() > state.helpers_idle && state.helpers < self.helpers_max {
            // Where it cannot be started those that there are do its share: there is always one.
            let _ = self.start_helper(state);
        }
        self.work.notify_one();
    }

    pub(super) fn start_helper(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let helper = Arc::clone(self);
        state.start(NAMES[1], move || helper.run_helper())?;
        state.helpers += 1;
        Ok(())
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
            Work::Tell(done) => done,
            Work::Resend => return self.resend(),
        };
        self.tell(&mut vec![done]);
    }
}
