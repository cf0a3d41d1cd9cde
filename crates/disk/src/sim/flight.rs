//! The driver's operations between their submission and their execution, in no particular order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::content::Fate;
use super::faults::Lie;
use super::names::Node;
use super::world::World;
use crate::errno::Errno;
use crate::{Error, Result, Time};

/// An operation in flight. It keeps its open file description, whoever lives.
#[derive(Clone)]
pub(super) struct Flight {
    /// Who waits for it; nobody where the process is dead, the driver is gone, or the completion was a lie.
    pub(super) driver: Option<u64>,
    pub(super) token: u64,
    pub(super) description: u64,
    pub(super) node: Node,
    /// For the error.
    pub(super) path: PathBuf,
    pub(super) work: Work,
    /// Whether it passes by the page cache.
    pub(super) is_direct: bool,
    /// How many more rounds the device leaves it lying.
    pub(super) held: u32,
    /// When it happens at the latest, where nobody waits for it.
    pub(super) due: Option<Due>,
}

/// What an operation does.
#[derive(Clone)]
pub(super) enum Work {
    Read {
        at: u64,
        len: usize,
    },
    /// `bytes` from `start` on are left to be written, at `at`.
    Write {
        at: u64,
        bytes: Arc<[u8]>,
        start: usize,
        fate: Fate,
    },
    /// Covers what was written up to `moment`, that of its submission.
    Sync {
        moment: u64,
    },
}

/// The step or the time, whichever comes first.
#[derive(Clone, Copy)]
pub(super) struct Due {
    step: u64,
    clock: Time,
}

/// An operation that was executed.
#[derive(Clone)]
pub(super) struct Finish {
    pub(super) token: u64,
    pub(super) outcome: Result<Answer>,
}

/// What it did.
#[derive(Clone)]
pub(super) enum Answer {
    Read(Vec<u8>),
    Written,
    Synced,
}

impl Flight {
    /// Where a write is to go, and what is left of it.
    pub(super) fn write(&self) -> Option<(u64, &[u8])> {
        match &self.work {
            Work::Write { at, bytes, start, .. } => Some((*at, &bytes[*start..])),
            Work::Read { .. } | Work::Sync { .. } => None,
        }
    }

    /// Whether it leaves a trace that outlives its process.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self.work, Work::Read { .. })
    }

    fn error(&self, errno: Errno) -> Error {
        let errno = errno.raw_os_error();
        match self.work {
            Work::Read { at, .. } => Error::new("pread", &self.path, errno).at(at),
            Work::Write { at, fate: Fate::Pending, .. } => Error::new("pwrite", &self.path, errno).at(at),
            Work::Write { at, .. } => Error::new("pwritev2", &self.path, errno).at(at),
            Work::Sync { .. } => Error::new("fdatasync", &self.path, errno),
        }
    }
}

impl World {
    /// Put an operation in flight.
    pub(super) fn launch(&mut self, mut flight: Flight) {
        let description = self.descriptions.get(&flight.description);
        if description.is_none_or(|it| flight.write().is_some() && !it.is_writable) {
            // Its process is dead, and somebody passed the handle on; or it was opened for reading only.
            return self.refuse(&flight, Errno::BADF);
        }
        if self.is_told(Lie::DoneBeforeWrite)
            && flight.write().is_some()
            && let Some(driver) = flight.driver.take()
        {
            self.finish(driver, Finish { token: flight.token, outcome: Ok(Answer::Written) });
            flight.due = Some(self.due());
        }
        flight.held = if self.rng.random_bool(0.25) { self.rng.random_range(1..=8) } else { 0 };
        self.flights.push(flight);
    }

    /// An operation that fails before it is in flight.
    pub(super) fn refuse(&mut self, flight: &Flight, errno: Errno) {
        if let Some(driver) = flight.driver {
            self.finish(driver, Finish { token: flight.token, outcome: Err(flight.error(errno)) });
        }
    }

    /// Nobody waits any more for these: they happen all the same, some time soon.
    pub(super) fn orphan(&mut self, which: impl Fn(&Flight) -> bool) {
        for index in 0..self.flights.len() {
            if which(&self.flights[index]) {
                let due = self.due();
                let flight = &mut self.flights[index];
                flight.driver = None;
                flight.due.get_or_insert(due);
            }
        }
    }

    /// Execute one of the operations that `which` picks, at random, those last that are held back. Answers
    /// whether there was one.
    pub(super) fn execute_one(&mut self, which: impl Fn(&Flight) -> bool) -> bool {
        if self.is_stalled {
            return false;
        }
        let picked = (0..self.flights.len()).filter(|&index| which(&self.flights[index]));
        let picked: Vec<usize> = picked.collect();
        let ready = picked.iter().copied().filter(|&index| self.flights[index].held == 0);
        let ready: Vec<usize> = ready.collect();
        let among = if ready.is_empty() { &picked } else { &ready };
        let index = match among.len() {
            0 => return false,
            len => among[self.rng.random_range(0..len)],
        };
        for flight in &mut self.flights {
            flight.held = flight.held.saturating_sub(1);
        }
        self.execute(index);
        true
    }

    /// Execute what has waited for as long as it may.
    pub(super) fn land_overdue(&mut self) {
        let is_overdue = |flight: &Flight, steps: u64, clock: Time| {
            flight.due.is_some_and(|due| due.step <= steps || due.clock <= clock)
        };
        loop {
            let (steps, clock) = (self.steps, self.clock);
            if !self.execute_one(|flight| is_overdue(flight, steps, clock)) {
                break;
            }
        }
    }

    /// Hand a completion to its driver, if that still lives.
    fn finish(&mut self, driver: u64, finish: Finish) {
        if let Some(inbox) = self.drivers.get_mut(&driver) {
            inbox.finished.push(finish);
        }
    }

    fn execute(&mut self, index: usize) {
        // The step comes first: a capture finds the operation still in flight.
        self.tick();
        let mut flight = self.flights.swap_remove(index);
        let node = flight.node;
        let outcome = match &mut flight.work {
            Work::Read { at, len } => {
                let mut bytes = vec![0; *len];
                self.read(node, *at, &mut bytes).map(|count| {
                    bytes.truncate(count);
                    Answer::Read(bytes)
                })
            }
            Work::Write { at, bytes, start, fate } => match self.write(node, *at, &bytes[*start..], *fate) {
                Ok(count) if *start + count < bytes.len() => {
                    *at += count as u64;
                    *start += count;
                    self.flights.push(flight);
                    return;
                }
                Ok(_) => Ok(Answer::Written),
                Err(errno) => Err(errno),
            },
            Work::Sync { moment } => self.sync(node, *moment).map(|()| Answer::Synced),
        };
        if let Some(driver) = flight.driver {
            let outcome = outcome.map_err(|errno| flight.error(errno));
            self.finish(driver, Finish { token: flight.token, outcome });
        }
        self.reap(flight.description);
    }

    fn due(&mut self) -> Due {
        Due {
            step: self.steps + self.rng.random_range(1..=300),
            clock: self.clock.after(Duration::from_millis(self.rng.random_range(1..=2000))),
        }
    }
}
