//! The thread that takes completions out of the kernel.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use io_uring_07::EnterFlags;
use rustix::io::Errno;

use super::state::{NUDGE, Sender, State};
use super::{PAUSE, Shared, describe, is_passing};
use crate::error::errno_of;
use crate::{Done, Result};

impl Shared {
    /// The reaper's thread.
    pub(super) fn run_reaper(self: &Arc<Self>) {
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
        // Until there is a completion those who submit send for themselves: it has nothing to do for them.
        self.sleep()?;
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
}
