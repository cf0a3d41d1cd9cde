//! The hot side: operations wait in the machine, at random longer or shorter, and `wait` lets some happen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::Rng;
use rand::seq::SliceRandom;

use super::content::Fate;
use super::flight::{Answer, Finish, Flight, Work};
use super::fs::SimFs;
use super::world::{Inbox, World};
use super::{Shared, handle, lock};
use crate::job;
use crate::{Buffer, Done, Driver, File, Job, Op, Outcome, Time, Token, Waker, WriteMode};

/// A driver of one process. It never sleeps: where a real one would, the clock jumps.
pub(super) struct SimDriver {
    shared: Shared,
    id: u64,
    fs: SimFs,
    /// What belongs to the kernel until the operation's `Done`.
    owned: BTreeMap<u64, (File, Option<Buffer>)>,
    jobs: VecDeque<(Token, Job)>,
    is_woken: Arc<AtomicBool>,
}

impl SimDriver {
    pub(super) fn new(shared: &Shared, process: u32) -> Self {
        let id = {
            let mut world = lock(shared);
            let id = world.number();
            if world.processes.contains(&process) {
                world.drivers.insert(id, Inbox { process, finished: Vec::new() });
            }
            id
        };
        Self {
            shared: Arc::clone(shared),
            id,
            fs: SimFs::new(shared, process),
            owned: BTreeMap::new(),
            jobs: VecDeque::new(),
            is_woken: Arc::default(),
        }
    }

    /// Let some of what is in flight happen. Answers whether this driver waits for anything at all.
    fn execute_some(&self, may_be_none: bool) -> bool {
        let mut world = lock(&self.shared);
        world.land_overdue();
        let mine = world.flights.iter().filter(|flight| flight.driver == Some(self.id)).count();
        if mine == 0 || world.is_stalled {
            return world.drivers.get(&self.id).is_some_and(|inbox| !inbox.finished.is_empty());
        }
        let least = usize::from(!may_be_none);
        for _ in 0..world.rng.random_range(least..=mine) {
            world.execute_one(|flight| flight.driver == Some(self.id));
        }
        true
    }

    /// Take some completions, in no particular order: all of them as a rule, else at least one if any.
    fn take_finished(&self) -> Vec<Finish> {
        let mut world = lock(&self.shared);
        let World { drivers, rng, .. } = &mut *world;
        let Some(inbox) = drivers.get_mut(&self.id) else { return Vec::new() };
        let mut finished = std::mem::take(&mut inbox.finished);
        finished.shuffle(rng);
        if finished.len() > 1 && rng.random_bool(0.25) {
            inbox.finished = finished.split_off(rng.random_range(1..finished.len()));
        }
        finished
    }

    /// Let the clock run to the deadline; what nobody waits for happens meanwhile.
    fn sleep_until(&self, until: Time) {
        let mut world = lock(&self.shared);
        world.clock = world.clock.max(until);
        world.land_overdue();
    }

    fn is_dead(&self) -> bool {
        !lock(&self.shared).drivers.contains_key(&self.id)
    }

    fn done(&mut self, Finish { token, outcome }: Finish) -> Done {
        let (file, mut buffer) =
            self.owned.remove(&token).expect("a completion is of an operation in flight");
        drop(file);
        let outcome = outcome.map(|answer| match answer {
            Answer::Read(bytes) => {
                let buffer = buffer.as_mut().expect("a read has a buffer");
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Outcome::Read(bytes.len())
            }
            Answer::Written => Outcome::Written,
            Answer::Synced => Outcome::Synced,
        });
        Done { token: Token(token), outcome, buffer }
    }
}

impl Driver for SimDriver {
    fn submit(&mut self, token: Token, op: Op) {
        if self.is_dead() {
            return;
        }
        let mut is_alone = false;
        let (file, work, buffer) = match op {
            Op::Read { file, at, buffer } => (file, Work::Read { at, len: buffer.len() }, Some(buffer)),
            Op::Write { file, at, buffer, mode } => {
                is_alone = mode == WriteMode::Alone;
                let fate = if mode == WriteMode::Plain { Fate::Pending } else { Fate::Stable };
                let bytes = Arc::from(&buffer[..]);
                (file, Work::Write { at, bytes, start: 0, fate }, Some(buffer))
            }
            Op::Sync { file } => (file, Work::Sync { moment: lock(&self.shared).moment }, None),
            Op::Job(job) => {
                self.jobs.push_back((token, job));
                return;
            }
        };
        let mut world = lock(&self.shared);
        let sim = handle(&self.shared, &file);
        let allowed = match &work {
            Work::Read { at, len } => sim.check(*at, *len),
            Work::Write { at, bytes, .. } => sim.check(*at, bytes.len()),
            Work::Sync { .. } => Ok(()),
        };
        let flight = Flight {
            driver: Some(self.id),
            token: token.0,
            description: sim.description,
            node: sim.node,
            path: sim.path.clone(),
            work,
            is_direct: sim.is_direct,
            held: 0,
            due: None,
        };
        match allowed {
            Ok(()) => world.launch(flight),
            Err(errno) => world.refuse(&flight, errno),
        }
        let at_once = world.alone_at_once;
        if is_alone && world.rng.random_bool(at_once) {
            while world.execute_one(|flight| flight.driver == Some(self.id) && flight.token == token.0) {}
        }
        drop(world);
        let before = self.owned.insert(token.0, (file, buffer));
        assert!(before.is_none(), "token {} is in flight already", token.0);
    }

    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>) {
        let is_woken = self.is_woken.swap(false, Ordering::SeqCst);
        if self.is_dead() {
            return;
        }
        let is_busy = self.execute_some(is_woken || !self.jobs.is_empty());
        if !self.jobs.is_empty() && (!is_busy || lock(&self.shared).rng.random()) {
            let (token, job) = self.jobs.pop_front().expect("there is a job");
            // The machine is not held here: the job's own calls step it.
            let outcome = job::run(job, &self.fs).map(Outcome::Job);
            out.push(Done { token, outcome, buffer: None });
        } else if !is_busy
            && !is_woken
            && let Some(until) = until
        {
            self.sleep_until(until);
        }
        for finish in self.take_finished() {
            let done = self.done(finish);
            out.push(done);
        }
    }

    fn waker(&self) -> Waker {
        let is_woken = Arc::clone(&self.is_woken);
        Waker::new(move || is_woken.store(true, Ordering::SeqCst))
    }

    fn now(&self) -> Time {
        lock(&self.shared).clock
    }
}

impl Drop for SimDriver {
    /// Completes what was submitted, unless its process is dead. A stalled device would let a thread wait here;
    /// as nothing does, what is in flight then happens once the device goes on.
    fn drop(&mut self) {
        while !self.is_dead()
            && let Some((_, job)) = self.jobs.pop_front()
        {
            self.execute_some(true);
            let _ = job::run(job, &self.fs);
        }
        let mut world = lock(&self.shared);
        if world.drivers.contains_key(&self.id) {
            while world.execute_one(|flight| flight.driver == Some(self.id)) {}
        }
        world.drivers.remove(&self.id);
        world.orphan(|flight| flight.driver == Some(self.id));
    }
}
