//! What changes in a ring, all of it under one lock, and the decisions that need nothing else.

use std::collections::VecDeque;
use std::thread::JoinHandle;

use io_uring_07::{opcode, squeue};

use super::request::{Request, Verdict};
use super::slots::Slots;
use crate::{Done, Error, Job, Result, Token};

/// The number of the nudge: an entry that wakes the reaper and is no request's.
pub(super) const NUDGE: u64 = Slots::NONE;

/// What changes, under the one lock.
pub(super) struct State {
    /// Requests that are not at the disk, first in first out.
    pub(super) queue: VecDeque<Request>,
    /// Requests that are.
    pub(super) slots: Slots,
    /// Slots whose request needs another entry.
    pub(super) again: Vec<u32>,
    /// The same, but after a pause.
    pub(super) later: Vec<u32>,
    /// Whether a nudge is to be sent.
    pub(super) nudge: bool,
    /// Entries in the submission queue that the kernel has not taken.
    pub(super) unsent: usize,
    /// Whether a thread is in the kernel with these.
    pub(super) sender: Sender,
    /// What is for the helpers.
    pub(super) work: VecDeque<Work>,
    /// Whether a helper is to send, or is sending, what was refused or has to wait.
    pub(super) is_resending: bool,
    pub(super) helpers: usize,
    pub(super) helpers_idle: usize,
    /// Operations that were accepted and whose end was not told; the head says where they are counted.
    pub(super) outstanding: usize,
    /// Whether the drop has begun. Only ever set.
    pub(super) is_ending: bool,
    /// Why there is no ring any more. Set once.
    pub(super) broken: Option<Error>,
    /// All threads that were started. Emptied by the drop.
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// Who is in the kernel with the entries of the submission queue. That is done without the lock; until the thread
/// is back nobody else pushes or enters, and what is queued meanwhile it takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Nobody,
    /// A thread that goes on as long as there are entries to send.
    Somebody,
    /// One that leaves the rest to a thread of the engine, which waits for its turn.
    Relieved,
}

/// Work for a helper.
pub(super) enum Work {
    Job(Token, Job),
    /// Tell what ended without the kernel.
    Tell(Done),
    /// Send what was refused, or had to wait a while.
    Resend,
}

impl State {
    pub(super) fn new(depth: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            slots: Slots::new(depth),
            again: Vec::new(),
            later: Vec::new(),
            nudge: false,
            unsent: 0,
            sender: Sender::Nobody,
            work: VecDeque::new(),
            is_resending: false,
            helpers: 0,
            helpers_idle: 0,
            outstanding: 0,
            is_ending: false,
            broken: None,
            threads: Vec::new(),
        }
    }

    /// Whether there is nothing left to do for anybody.
    pub(super) fn is_over(&self) -> bool {
        self.is_ending && self.outstanding == 0
    }

    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        self.threads.push(thread.map_err(|error| Error::of_std("pthread_create", "", &error))?);
        Ok(())
    }

    /// Whether the kernel has taken all that it was given, the nudge too. Until then a helper has to be there.
    pub(super) fn is_sent(&self) -> bool {
        self.broken.is_some() || self.unsent == 0 && !self.nudge
    }

    /// Whether there is an entry for the kernel.
    pub(super) fn has_next(&self) -> bool {
        self.unsent > 0 && self.sender == Sender::Nobody
            || self.nudge
            || !self.again.is_empty()
            || !self.queue.is_empty() && !self.slots.is_full()
    }

    /// The entry that goes next to the kernel.
    pub(super) fn next_entry(&mut self) -> Option<squeue::Entry> {
        if std::mem::take(&mut self.nudge) {
            return Some(opcode::Nop::new().build().user_data(NUDGE));
        }
        let index = match self.again.pop() {
            Some(index) => index,
            None if self.slots.is_full() => return None,
            None => self.slots.insert(self.queue.pop_front()?),
        };
        let (request, number) = self.slots.get(index);
        Some(request.entry().user_data(number))
    }

    /// The entry with this number is complete.
    pub(super) fn complete(&mut self, number: u64, result: i32, dones: &mut Vec<Done>) {
        let Some(index) = self.slots.find(number) else {
            // Each entry has one completion, so this is a mistake of ours or of the kernel's. It concerns no memory:
            // whose it was is gone, or leaked.
            debug_assert!(false, "a completion of no request: {number:#x}, {result}");
            return;
        };
        let (request, _) = self.slots.get(index);
        match request.complete(result) {
            Verdict::Again => self.again.push(index),
            Verdict::Later => self.later.push(index),
            Verdict::Over(outcome) => dones.push(self.slots.remove(index).end(outcome)),
        }
    }
}
