//! The way into the kernel: one thread at a time is on it, without the lock.

use std::sync::{Arc, MutexGuard, PoisonError};

use io_uring_07::{EnterFlags, squeue};
use rustix::io::Errno;

use super::state::{Sender, State, Work};
use super::{PAUSE, Shared, describe, is_passing};
use crate::Result;
use crate::error::errno_of;

/// Entries for one `io_uring_enter`.
pub(super) const PER_ENTER: usize = 2;

impl Shared {
    /// The reaper: see to it that what can go to the kernel goes, and not by a thread of the caller's. That one
    /// would never get away while completions make room as fast as it sends.
    pub(super) fn take_over<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        if !state.has_next() {
            return state;
        }
        while state.sender != Sender::Nobody {
            state.sender = Sender::Relieved;
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.send(state)
    }

    /// Hand to the kernel what it may have. What it refuses is left to a helper.
    pub(super) fn send<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (mut state, sent) = self.enter(state);
        if sent.is_err() {
            self.resend_later(&mut state);
        }
        state
    }

    /// Hand to the kernel what it may have, as far as it takes it, or until the reaper does that in its place.
    pub(super) fn enter<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, Result<(), Errno>) {
        assert_eq!(state.sender, Sender::Nobody);
        let sent = loop {
            while state.unsent < PER_ENTER
                && let Some(entry) = state.next_entry()
            {
                self.push(&mut state, &entry);
            }
            if state.unsent == 0 {
                break Ok(());
            }
            let count = state.unsent as u32;
            state.sender = Sender::Somebody;
            drop(state);
            // SAFETY: it waits for nothing and passes no argument. The entries it hands over were pushed by
            // `push`, whose note tells what keeps their memory; this thread is the sender, so nobody pushes.
            let entered =
                unsafe { self.ring.submitter().enter::<()>(count, 0, EnterFlags::empty().bits(), None) };
            state = self.lock();
            let is_relieved = state.sender == Sender::Relieved;
            state.sender = Sender::Nobody;
            if is_relieved {
                self.turn.notify_all();
            }
            match entered.map_err(|error| Errno::from_raw_os_error(errno_of(&error))) {
                Ok(0) => break Err(Errno::AGAIN),
                Ok(count) => state.unsent -= count,
                Err(Errno::INTR) => {}
                Err(errno) => break Err(errno),
            }
            if is_relieved {
                break Ok(());
            }
        };
        if state.is_over() {
            // The helpers stay until the nudge is sent.
            self.work.notify_all();
        }
        (state, sent)
    }

    /// Put an entry into the submission queue.
    pub(super) fn push(&self, state: &mut State, entry: &squeue::Entry) {
        assert_eq!(state.sender, Sender::Nobody);
        // SAFETY: `state` can be had only with the lock, and nobody without it makes a submission queue; the one
        // made here ends with this function.
        let mut queue = unsafe { self.ring.submission_shared() };
        // SAFETY: the entry is the nudge, which points at nothing, or that of a request in a slot. The slots keep
        // that request, and with it the memory and the descriptor in the entry, until the completion of this entry
        // is drained; where that cannot be waited for, they are leaked.
        let pushed = unsafe { queue.push(entry) };
        pushed.expect("two entries fit into the submission queue");
        state.unsent += 1;
    }

    /// Have a helper send again, after a pause.
    pub(super) fn resend_later(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_resending, true) {
            // Ahead of the jobs: requests wait for it.
            state.work.push_front(Work::Resend);
            self.rouse_helper(state);
        }
    }

    /// Send what was refused or had to wait, until the kernel takes it.
    pub(super) fn resend(self: &Arc<Self>) {
        loop {
            std::thread::sleep(PAUSE);
            let mut guard = self.lock();
            let state = &mut *guard;
            state.again.append(&mut state.later);
            if guard.sender != Sender::Nobody {
                // Then that thread learns whether it is taken by now; in a while we see.
                continue;
            }
            let (mut state, sent) = self.enter(guard);
            match sent {
                Ok(()) => {
                    state.is_resending = false;
                    return;
                }
                Err(_) if state.broken.is_some() => return,
                Err(errno) if is_passing(errno) => {}
                Err(errno) => {
                    drop(state);
                    return self.break_down(&format!("io_uring_enter answered {}", describe(errno)));
                }
            }
        }
    }
}
