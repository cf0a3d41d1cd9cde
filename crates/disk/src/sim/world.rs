//! The machine: its clock and steps, its files and names, who has what open, and what is in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::choice::{Choice, odds};
use super::content::{Content, Fate};
use super::faults::{Faults, Lie};
use super::flight::{Finish, Flight};
use super::image::Image;
use super::names::{Names, Node, ROOT};
use crate::Time;

/// Everything there is. Cloning it is cheap: files share their bytes until one of the two changes them.
#[derive(Clone)]
pub(super) struct World {
    pub(super) rng: SmallRng,
    /// How long the machine has been up, the times before a power cut included.
    pub(super) clock: Time,
    pub(super) steps: u64,
    /// The newest write: each takes the next number, and a flush covers those up to one.
    pub(super) moment: u64,
    pub(super) names: Names,
    pub(super) files: BTreeMap<Node, Arc<Content>>,
    pub(super) descriptions: BTreeMap<u64, Description>,
    /// The open file descriptions that hold the lock of a file: one, or those that share it.
    pub(super) locks: BTreeMap<Node, BTreeSet<u64>>,
    pub(super) flights: Vec<Flight>,
    /// The drivers that live, by number.
    pub(super) drivers: BTreeMap<u64, Inbox>,
    pub(super) processes: BTreeSet<u32>,
    pub(super) process: u32,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Faults,
    pub(super) lies: BTreeSet<Lie>,
    pub(super) has_cheap_dsync: bool,
    /// How long a step takes at most: some disks are quick and some are slow, and a log sends to each as suits it.
    pub(super) step_micros_max: u64,
    /// How likely it is that a lone write is over when its submission returns.
    pub(super) alone_at_once: f64,
    /// The file system takes files past the page cache.
    pub(super) takes_direct: bool,
    /// The device answers nothing.
    pub(super) is_stalled: bool,
    pub(super) marker: u64,
    pub(super) armed: Armed,
    next_number: u64,
}

/// An open file description: it belongs to a process, and lives until every handle is dropped (or the
/// process is dead) and nothing is in flight on it.
#[derive(Clone)]
pub(super) struct Description {
    pub(super) node: Node,
    pub(super) process: u32,
    pub(super) is_writable: bool,
    is_closed: bool,
}

/// What was executed for a driver and not handed out yet.
#[derive(Clone)]
pub(super) struct Inbox {
    pub(super) process: u32,
    pub(super) finished: Vec<Finish>,
}

/// What is to be captured, and what was. A copy of the machine starts without any.
#[derive(Clone, Default)]
pub(super) struct Armed {
    pub(super) crash_at: Option<u64>,
    pub(super) image: Option<Box<Image>>,
    pub(super) kill_at: Option<u64>,
    pub(super) killed: Option<Box<World>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let has_cheap_dsync = rng.random();
        let step_micros_max = if rng.random() { 40 } else { 1000 };
        let mut world = Self {
            rng,
            clock: Time(Duration::from_secs(1)),
            steps: 0,
            moment: 0,
            names: Names::new(),
            files: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            locks: BTreeMap::new(),
            flights: Vec::new(),
            drivers: BTreeMap::new(),
            processes: BTreeSet::new(),
            process: 1000,
            capacity: None,
            faults: Faults::default(),
            lies: BTreeSet::new(),
            has_cheap_dsync,
            step_micros_max,
            alone_at_once: 0.5,
            takes_direct: true,
            is_stalled: false,
            marker: 0,
            armed: Armed::default(),
            next_number: 1,
        };
        world.start_process();
        world
    }

    /// A number that nothing else on this machine has.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub(super) fn is_told(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// One step: it is counted, takes a little time, and is where a capture happens: before its effect.
    pub(super) fn tick(&mut self) {
        self.steps += 1;
        self.clock = self.clock.after(Duration::from_micros(self.rng.random_range(1..=self.step_micros_max)));
        if self.armed.crash_at == Some(self.steps) {
            self.armed.image = Some(Box::new(self.image()));
        }
        if self.armed.kill_at == Some(self.steps) {
            let mut killed = self.copy();
            for process in killed.processes.clone() {
                killed.kill(process);
            }
            self.armed.killed = Some(Box::new(killed));
        }
    }

    /// A step of a blocking call: a tick, and whatever the disk gets done meanwhile.
    pub(super) fn step(&mut self) {
        self.tick();
        self.land_overdue();
        if !self.flights.is_empty() && self.rng.random_bool(0.3) {
            for _ in 0..self.rng.random_range(1..=3) {
                self.execute_one(|_| true);
            }
        }
    }

    /// This machine as it would be found after a power cut now, undecided yet.
    pub(super) fn image(&self) -> Image {
        Image::new(self.copy())
    }

    fn copy(&self) -> Self {
        // Images are behind boxes whose bytes are shared too, but there is no use in copying them at all.
        let mut copy = self.clone();
        copy.armed = Armed::default();
        copy
    }

    /// The power is cut and comes back: decides what every undecided thing was, and forgets all that lived
    /// in memory.
    ///
    /// Chance decides, from `seed`, or `kept` names the moments that persist.
    pub(super) fn cut_power(&mut self, seed: u64, kept: Option<&BTreeSet<u64>>) {
        self.rng = SmallRng::seed_from_u64(seed);
        self.land_flights(kept.is_none());
        let Self { names, files, rng, .. } = self;
        let mut choice = kept.map_or(Choice::Chance(rng), Choice::Kept);
        names.settle(&mut choice);
        let reachable = names.reachable();
        files.retain(|node, _| reachable.contains(node));
        for (path, node) in names.tree() {
            if let Some(content) = files.get_mut(&node) {
                let content = Arc::make_mut(content);
                content.settle(&mut choice);
                path.file_name().unwrap_or_default().clone_into(&mut content.name);
            }
        }
        self.descriptions.clear();
        self.locks.clear();
        self.drivers.clear();
        self.processes.clear();
        self.faults.clear();
        self.is_stalled = false;
        self.armed = Armed::default();
        self.steps = 0;
        self.clock = self.clock.after(Duration::from_secs(30));
        self.start_process();
    }

    /// What is undecided if the power is cut now, by its moment; zeroing is left out.
    pub(super) fn undecided(mut self) -> BTreeSet<u64> {
        self.land_flights(false);
        let written = self.files.values().flat_map(|content| content.undecided());
        written.chain(self.names.undecided()).collect()
    }

    /// Writes on their way to the device become pending: by chance in part and in any order, else whole.
    fn land_flights(&mut self, by_chance: bool) {
        let mut flights = std::mem::take(&mut self.flights);
        if by_chance {
            flights.shuffle(&mut self.rng);
        }
        for flight in flights {
            if let Some((at, bytes)) = flight.write() {
                let odds = if by_chance { odds(&mut self.rng) } else { 1.0 };
                self.land(flight.node, at, bytes, Fate::Pending, odds);
            }
        }
    }

    /// A new process, the one that `Sim::fs` and `Sim::driver` belong to from now on.
    pub(super) fn start_process(&mut self) -> u32 {
        self.process += 1;
        self.processes.insert(self.process);
        self.process
    }

    /// A process dies. What it has in flight stays in flight, on its open file descriptions.
    pub(super) fn kill(&mut self, process: u32) {
        self.processes.remove(&process);
        let theirs: BTreeSet<u64> = (self.descriptions.iter())
            .filter(|(_, description)| description.process == process)
            .map(|(&id, _)| id)
            .collect();
        // Nobody waits for what would have been read.
        self.flights.retain(|flight| !theirs.contains(&flight.description) || flight.is_lasting());
        self.drivers.retain(|_, inbox| inbox.process != process);
        self.orphan(|flight| theirs.contains(&flight.description));
        for id in theirs {
            self.close(id);
        }
    }

    pub(super) fn open(&mut self, node: Node, process: u32, is_writable: bool) -> u64 {
        let id = self.number();
        self.descriptions.insert(id, Description { node, process, is_writable, is_closed: false });
        id
    }

    /// The last handle of an open file description is gone.
    pub(super) fn close(&mut self, id: u64) {
        if let Some(description) = self.descriptions.get_mut(&id) {
            description.is_closed = true;
            self.reap(id);
        }
    }

    /// Forget an open file description that nobody and nothing holds, and its lock with it.
    pub(super) fn reap(&mut self, id: u64) {
        let is_held = self.flights.iter().any(|flight| flight.description == id);
        if !is_held && self.descriptions.get(&id).is_some_and(|description| description.is_closed) {
            self.descriptions.remove(&id);
            self.locks.retain(|_, holders| {
                holders.remove(&id);
                !holders.is_empty()
            });
        }
    }

    /// Files that have no name, could get none back, and are not open.
    pub(super) fn forget_unlinked(&mut self) {
        let mut held = self.names.mentioned();
        held.extend(self.descriptions.values().map(|description| description.node));
        self.files.retain(|node, _| held.contains(node));
    }

    /// All that was done is stable, but for what is still in flight.
    pub(super) fn sync_all(&mut self) {
        let moment = self.moment;
        for content in self.files.values_mut() {
            Arc::make_mut(content).sync(moment);
        }
        self.names.sync_all();
        self.forget_unlinked();
    }

    pub(super) fn file(&self, node: Node) -> &Content {
        self.files.get(&node).expect("an open file has its content")
    }

    pub(super) fn file_mut(&mut self, node: Node) -> &mut Content {
        Arc::make_mut(self.files.get_mut(&node).expect("an open file has its content"))
    }

    /// A new, empty file; its name is the parent's to sync.
    pub(super) fn make_file(&mut self, parent: Node, name: OsString) -> Node {
        let node = self.number();
        self.files.insert(node, Arc::new(Content::stable(name.clone(), &[])));
        let moment = self.next_moment();
        self.names.link(moment, parent, name, node);
        node
    }

    /// The directory at `path`, made with all that lead to it, all of it on stable storage.
    pub(super) fn plant_directories(&mut self, path: &Path) -> Node {
        let mut node = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let known = self.names.entries(node).expect("a file is in the way").get(name).copied();
                node = if let Some(known) = known {
                    self.names.decide(node, name);
                    known
                } else {
                    let made = self.number();
                    self.names.plant_directory(node, name.to_owned(), made);
                    made
                };
            }
        }
        node
    }
}
