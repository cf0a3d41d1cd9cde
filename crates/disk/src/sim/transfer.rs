//! What a read, a write and a flush do to a file: where a fault strikes, where the disk is full.

use std::sync::Arc;

use rand::Rng;

use super::choice::odds;
use super::content::Fate;
use super::faults::{Call, Kind, Lie};
use super::flight::Flight;
use super::names::Node;
use super::world::World;
use crate::GRAIN;
use crate::errno::Errno;

impl World {
    /// The fault that strikes a call on `name`, if it fails the call.
    pub(super) fn strike(&mut self, call: Call, name: &str) -> Result<(), Errno> {
        match self.faults.strike(call, name, None) {
            Some(Kind::Fail(errno)) => Err(errno),
            Some(Kind::ShortWrite) | None => Ok(()),
        }
    }

    /// As `strike`, of an open file, by the name it has now.
    pub(super) fn strike_file(&mut self, call: Call, node: Node) -> Result<(), Errno> {
        let name = self.file(node).name.to_string_lossy().into_owned();
        self.strike(call, &name)
    }

    /// How far a file may reach before the disk is full.
    pub(super) fn room(&self, node: Node) -> u64 {
        match self.capacity {
            Some(capacity) => self.file(node).reserved + capacity.saturating_sub(self.used()),
            None => u64::MAX,
        }
    }

    /// Whether there is a block left, as a new name needs one.
    pub(super) fn has_room(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.used() + GRAIN as u64 <= capacity)
    }

    fn used(&self) -> u64 {
        let mut held = self.names.reachable();
        held.extend(self.descriptions.values().map(|description| description.node));
        self.files.iter().filter(|(node, _)| held.contains(node)).map(|(_, content)| content.reserved).sum()
    }

    pub(super) fn read(&mut self, node: Node, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let content = self.files.get(&node).expect("an open file has its content");
        let name = content.name.to_string_lossy();
        match self.faults.strike(Call::Read, &name, Some(&(at..at + into.len() as u64))) {
            Some(Kind::Fail(errno)) => Err(errno),
            Some(Kind::ShortWrite) | None => Ok(content.read(at, into)),
        }
    }

    /// Write `bytes`, or the beginning of them: answers how many, never 0 of some.
    pub(super) fn write(&mut self, node: Node, at: u64, bytes: &[u8], fate: Fate) -> Result<usize, Errno> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = at + bytes.len() as u64;
        let name = self.file(node).name.to_string_lossy().into_owned();
        let struck = self.faults.strike(Call::Write, &name, Some(&(at..end)));
        let room = self.room(node);
        let fitting = &bytes[..bytes.len().min(room.saturating_sub(at) as usize)];
        if let Some(Kind::Fail(errno)) = struck {
            let odds = odds(&mut self.rng);
            self.land(node, at, fitting, Fate::Pending, odds);
            return Err(errno);
        }
        if fitting.len() < bytes.len() {
            let odds = odds(&mut self.rng);
            self.land(node, at, fitting, Fate::Pending, odds);
            return Err(Errno::NOSPC);
        }
        let count = match struck {
            Some(Kind::ShortWrite) => self.shorten(bytes.len()),
            _ => bytes.len(),
        };
        self.land(node, at, &bytes[..count], fate, 1.0);
        if self.is_told(Lie::IgnoreShortWrite) { Ok(bytes.len()) } else { Ok(count) }
    }

    /// A write through the page cache is made while one past it is under way in the same pages: that one cannot drop what was
    /// changed beneath it.
    pub(super) fn collide(&mut self, node: Node, at: u64, len: usize) {
        let grain = GRAIN as u64;
        let (start, end) = (at / grain * grain, (at + len as u64).next_multiple_of(grain));
        let meets = |flight: &Flight| {
            let place = flight.write().filter(|_| flight.is_direct && flight.node == node);
            place.is_some_and(|(at, bytes)| at < end && start < at + bytes.len() as u64)
        };
        if self.flights.iter().any(meets) {
            self.file_mut(node).has_collided = true;
        }
    }

    /// A flush of what was written up to `moment`.
    pub(super) fn sync(&mut self, node: Node, moment: u64) -> Result<(), Errno> {
        if self.file(node).has_collided {
            self.file_mut(node).has_collided = false;
            return Err(Errno::IO);
        }
        if let Err(errno) = self.strike_file(Call::Sync, node) {
            let Self { files, rng, .. } = self;
            Arc::make_mut(files.get_mut(&node).expect("an open file has its content")).lose(rng);
            return Err(errno);
        }
        if !self.is_told(Lie::SkipSync) {
            self.file_mut(node).sync(moment);
        }
        Ok(())
    }

    /// Sectors of a write arrive, each with these odds.
    pub(super) fn land(&mut self, node: Node, at: u64, bytes: &[u8], fate: Fate, odds: f64) {
        let moment = self.next_moment();
        let Self { files, rng, .. } = self;
        let content = Arc::make_mut(files.get_mut(&node).expect("an open file has its content"));
        content.write(moment, at, bytes, fate, || odds >= 1.0 || rng.random_bool(odds));
    }

    /// How much of a short write gets done: some whole sectors, or of a small one some bytes.
    fn shorten(&mut self, len: usize) -> usize {
        let unit = if len > 512 { 512 } else { 1 };
        (self.rng.random_range(1..=len.div_ceil(unit)) * unit).min(len - 1).max(1).min(len)
    }
}
