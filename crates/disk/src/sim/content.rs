//! The bytes of one file: what reads show, what is on stable storage, and everything written in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;

use super::choice::{Choice, odds};
use crate::GRAIN;

/// The unit that a power cut leaves old or new, never mixed.
pub(super) const SECTOR: u64 = 512;

const SECTOR_BYTES: usize = SECTOR as usize;
const _: () = assert!(GRAIN.is_multiple_of(SECTOR_BYTES));

/// Shared, so that an image of the machine costs no copy of the bytes. `None` reads as zeros.
type Sector = Option<Arc<[u8; SECTOR_BYTES]>>;

/// Sectors by number; one that is missing reads as zeros.
type Sectors = BTreeMap<u64, Arc<[u8; SECTOR_BYTES]>>;

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Into the page cache: a power cut may keep it or not, sector by sector.
    Pending,
    /// Onto stable storage, with the length needed to read it back, and nothing beside it.
    Stable,
}

/// One file's bytes and length, each in every state that a power cut could leave.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// The last name it had, for faults that ask.
    pub(super) name: OsString,
    /// Blocks it holds of the disk's capacity, in bytes: as far as it was ever allocated or written. Holes
    /// below that count as blocks.
    pub(super) reserved: u64,
    /// A write through the page cache met one past it: the next flush says so.
    pub(super) has_collided: bool,
    /// What reads return. After a failed flush it differs from `stable` with nothing pending.
    cache: Sectors,
    stable: Sectors,
    /// What was written since the sector was last made stable, oldest first, each with the moment it was.
    pending: BTreeMap<u64, Vec<(u64, Sector)>>,
    len: u64,
    stable_len: u64,
    pending_lens: Vec<(u64, u64)>,
}

impl Content {
    /// A file that holds `bytes`, all of it on stable storage.
    pub(super) fn stable(name: OsString, bytes: &[u8]) -> Self {
        let mut content = Self { name, ..Self::default() };
        content.write(0, 0, bytes, Fate::Stable, || true);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fill `into` from `at`; fewer bytes come only at the end.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(at).min(into.len() as u64) as usize;
        let (into, end) = (&mut into[..count], at + count as u64);
        into.fill(0);
        if count == 0 {
            return 0;
        }
        for (&sector, bytes) in self.cache.range(at / SECTOR..=(end - 1) / SECTOR) {
            let start = sector * SECTOR;
            let (from, until) = (start.max(at), (start + SECTOR).min(end));
            into[(from - at) as usize..(until - at) as usize]
                .copy_from_slice(&bytes[(from - start) as usize..(until - start) as usize]);
        }
        count
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Write those sectors' worth of `bytes` that `keep` picks; the file grows to the last of them.
    pub(super) fn write(
        &mut self,
        moment: u64,
        at: u64,
        bytes: &[u8],
        fate: Fate,
        mut keep: impl FnMut() -> bool,
    ) {
        let end = at + bytes.len() as u64;
        let (mut from, mut landed) = (at, None);
        while from < end {
            let start = from / SECTOR * SECTOR;
            let until = end.min(start + SECTOR);
            if keep() {
                let sector = start / SECTOR;
                let mut data = self.cache.get(&sector).map_or([0; SECTOR_BYTES], |data| **data);
                data[(from - start) as usize..(until - start) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(until - at) as usize]);
                self.put(moment, sector, Some(Arc::new(data)), fate);
                landed = Some(until);
            }
            from = until;
        }
        if let Some(landed) = landed {
            self.grow(moment, landed, fate);
            self.reserve(landed);
        }
    }

    /// Make whole sectors read as zeros; the file grows to their end.
    pub(super) fn zero(&mut self, moment: u64, at: u64, len: u64) {
        assert!(at.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR), "zeroing is aligned");
        for sector in self.known(at / SECTOR, (at + len) / SECTOR) {
            self.put(moment, sector, None, Fate::Pending);
        }
        self.grow(moment, at + len, Fate::Pending);
        self.reserve(at + len);
    }

    /// Cut or extend. What is cut off reads as zeros should the file grow again.
    pub(super) fn set_len(&mut self, moment: u64, len: u64) {
        if len == self.len {
            return;
        }
        if len < self.len {
            let tail = (len % SECTOR) as usize;
            let sector = len / SECTOR;
            if tail > 0
                && let Some(data) = self.cache.get(&sector)
            {
                let mut data = **data;
                data[tail..].fill(0);
                self.put(moment, sector, Some(Arc::new(data)), Fate::Pending);
            }
            for sector in self.known(len.div_ceil(SECTOR), u64::MAX) {
                self.put(moment, sector, None, Fate::Pending);
            }
            self.reserved = self.reserved.min(len.next_multiple_of(GRAIN as u64));
        }
        self.len = len;
        self.pending_lens.push((moment, len));
    }

    /// Take blocks for the first `len` bytes and extend the file to them.
    pub(super) fn allocate(&mut self, moment: u64, len: u64) {
        self.reserve(len);
        self.grow(moment, len, Fate::Pending);
    }

    /// A flush that succeeds: what was written up to `moment` is stable, what came later stays pending.
    pub(super) fn sync(&mut self, moment: u64) {
        let Self { stable, pending, .. } = self;
        pending.retain(|&sector, versions| {
            let covered = versions.partition_point(|version| version.0 <= moment);
            if let Some((_, data)) = versions.drain(..covered).next_back() {
                set(stable, sector, data);
            }
            !versions.is_empty()
        });
        let covered = self.pending_lens.partition_point(|version| version.0 <= moment);
        if let Some((_, len)) = self.pending_lens.drain(..covered).next_back() {
            self.stable_len = len;
        }
    }

    /// A flush that fails: some sectors made it; the others count as clean from now on, so no later flush
    /// writes them, while reads go on showing them. The length is the journal's, and stays pending.
    pub(super) fn lose(&mut self, rng: &mut SmallRng) {
        let odds = odds(rng);
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            if rng.random_bool(odds)
                && let Some((_, data)) = versions.pop()
            {
                set(&mut self.stable, sector, data);
            }
        }
    }

    /// The power is cut: each sector and the length keep what is stable or any one pending version.
    pub(super) fn settle(&mut self, choice: &mut Choice<'_>) {
        let odds = choice.odds();
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            if let Some(version) = choice.version(odds, &versions) {
                set(&mut self.stable, sector, versions.swap_remove(version).1);
            }
        }
        let lens = std::mem::take(&mut self.pending_lens);
        if let Some(version) = choice.version(odds, &lens) {
            self.stable_len = lens[version].1;
        }
        self.len = self.stable_len;
        self.stable.split_off(&self.len.div_ceil(SECTOR));
        let tail = (self.len % SECTOR) as usize;
        if tail > 0
            && let Some(data) = self.stable.get_mut(&(self.len / SECTOR))
        {
            Arc::make_mut(data)[tail..].fill(0);
        }
        self.cache.clone_from(&self.stable);
        self.reserved = self.reserved.min(self.len.next_multiple_of(GRAIN as u64));
    }

    /// The moments of what is pending, but for zeroing.
    pub(super) fn undecided(&self) -> impl Iterator<Item = u64> {
        let written = self.pending.values().flatten().filter(|(_, data)| data.is_some());
        written.map(|&(moment, _)| moment).chain(self.pending_lens.iter().map(|&(moment, _)| moment))
    }

    /// Rot: one bit turns over, in the page cache and wherever else the sector is.
    pub(super) fn flip(&mut self, at: u64, bit: u8) {
        assert!(at < self.len, "offset {at} is past the end of the file, {}", self.len);
        assert!(bit < 8, "a byte has eight bits");
        let (sector, byte) = (at / SECTOR, (at % SECTOR) as usize);
        for sectors in [&mut self.cache, &mut self.stable] {
            Arc::make_mut(sectors.entry(sector).or_insert_with(|| Arc::new([0; SECTOR_BYTES])))[byte] ^=
                1 << bit;
        }
        for (_, data) in self.pending.get_mut(&sector).into_iter().flatten() {
            Arc::make_mut(data.get_or_insert_with(|| Arc::new([0; SECTOR_BYTES])))[byte] ^= 1 << bit;
        }
    }

    fn put(&mut self, moment: u64, sector: u64, data: Sector, fate: Fate) {
        set(&mut self.cache, sector, data.clone());
        match fate {
            Fate::Pending => self.pending.entry(sector).or_default().push((moment, data)),
            Fate::Stable => {
                self.pending.remove(&sector);
                set(&mut self.stable, sector, data);
            }
        }
    }

    /// The file reaches to `end`, at least. A stable write brings only as much of the length as is needed
    /// to read it back.
    fn grow(&mut self, moment: u64, end: u64, fate: Fate) {
        if fate == Fate::Stable {
            self.stable_len = self.stable_len.max(end);
            for (_, len) in &mut self.pending_lens {
                *len = end.max(*len);
            }
        } else if end > self.len {
            self.pending_lens.push((moment, end));
        }
        self.len = self.len.max(end);
    }

    fn reserve(&mut self, end: u64) {
        self.reserved = self.reserved.max(end.next_multiple_of(GRAIN as u64));
    }

    /// The sectors from `first` up to and without `end` that may hold anything but zeros.
    fn known(&self, first: u64, end: u64) -> BTreeSet<u64> {
        let known = self.cache.range(first..end).map(|(&sector, _)| sector);
        let known = known.chain(self.stable.range(first..end).map(|(&sector, _)| sector));
        known.chain(self.pending.range(first..end).map(|(&sector, _)| sector)).collect()
    }
}

fn set(sectors: &mut Sectors, sector: u64, data: Sector) {
    match data {
        Some(data) => sectors.insert(sector, data),
        None => sectors.remove(&sector),
    };
}
