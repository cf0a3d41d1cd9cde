//! The cold side: every call is a step of the machine, and then does what it says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::content::Fate;
use super::faults::{Call, Lie};
use super::names::Node;
use super::world::World;
use super::{Shared, SimFile, handle, lock};
use crate::errno::Errno;
use crate::transfer::is_in_range;
use crate::{
    Access, Buffer, Create, Entry, EntryKind, Error, File, FileKind, Fs, GRAIN, OpenOptions, ReadAhead,
    Result, Time,
};

/// The calls of one process.
pub(super) struct SimFs {
    shared: Shared,
    process: u32,
}

impl SimFs {
    pub(super) fn new(shared: &Shared, process: u32) -> Self {
        Self { shared: Arc::clone(shared), process }
    }

    /// A call about a path.
    fn on_path<T>(
        &self,
        call: Call,
        syscall: &'static str,
        path: &Path,
        act: impl FnOnce(&mut World) -> Result<T, Errno>,
    ) -> Result<T> {
        let mut world = lock(&self.shared);
        self.enter(&mut world)
            .and_then(|()| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                world.strike(call, &name)
            })
            .and_then(|()| act(&mut world))
            .map_err(|errno| Error::new(syscall, path, errno.raw_os_error()))
    }

    /// A call about an open file. Whether a fault strikes it, `act` asks.
    fn on_file<T>(
        &self,
        syscall: &'static str,
        file: &File,
        act: impl FnOnce(&mut World, &SimFile) -> Result<T, Errno>,
    ) -> Result<T> {
        let sim = handle(&self.shared, file);
        let mut world = lock(&self.shared);
        self.enter(&mut world)
            .and_then(|()| {
                // Gone with the process that opened it.
                if world.descriptions.contains_key(&sim.description) { Ok(()) } else { Err(Errno::IO) }
            })
            .and_then(|()| act(&mut world, sim))
            .map_err(|errno| Error::new(syscall, &sim.path, errno.raw_os_error()))
    }

    fn enter(&self, world: &mut World) -> Result<(), Errno> {
        if !world.processes.contains(&self.process) {
            return Err(Errno::IO);
        }
        world.step();
        Ok(())
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<File> {
        let (node, description, is_direct) = self.on_path(Call::Open, "open", path, |world| {
            let node = match (world.names.find(path), options.create) {
                (Ok(node), _) if world.names.is_directory(node) => return Err(Errno::ISDIR),
                (Ok(node), Create::Truncate(_)) => {
                    let moment = world.next_moment();
                    world.file_mut(node).set_len(moment, 0);
                    node
                }
                (Ok(node), _) => node,
                (Err(Errno::NOENT), Create::IfMissing(_) | Create::Truncate(_)) => {
                    let (parent, name) = world.names.place(path)?;
                    if !world.has_room() {
                        return Err(Errno::NOSPC);
                    }
                    world.make_file(parent, name)
                }
                (Err(errno), _) => return Err(errno),
            };
            let description = world.open(node, self.process, options.access == Access::ReadWrite);
            Ok((node, description, options.direct && world.takes_direct))
        })?;
        let shared = Arc::clone(&self.shared);
        let path = path.to_owned();
        Ok(File(FileKind::Sim(Arc::new(SimFile { shared, description, node, path, is_direct }))))
    }

    fn len(&self, file: &File) -> Result<u64> {
        self.on_file("fstat", file, |world, sim| {
            world.strike_file(Call::Len, sim.node)?;
            Ok(world.file(sim.node).len())
        })
    }

    fn set_len(&self, file: &File, len: u64) -> Result<()> {
        self.on_file("ftruncate", file, |world, sim| {
            let node = writable(world, sim)?;
            nameable(0, len)?;
            world.strike_file(Call::SetLen, node)?;
            let moment = world.next_moment();
            world.file_mut(node).set_len(moment, len);
            Ok(())
        })
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
        let read = |world: &mut World, sim: &SimFile| {
            // Direct files too are read from anywhere: the calls of `Fs` go through an aligned buffer.
            nameable(at, into.len() as u64)?;
            world.read(sim.node, at, into)
        };
        self.on_file("pread", file, read).map_err(|error| error.at(at))
    }

    /// At once, or not before it is waited for: chance decides.
    fn read_ahead(&self, file: &File, at: u64, mut buffer: Buffer, skip: usize) -> ReadAhead {
        if lock(&self.shared).rng.random() {
            return ReadAhead::later(file, at, buffer, skip);
        }
        let read = self.read_at(file, at, &mut buffer[skip..]);
        ReadAhead::made(buffer, read)
    }

    fn read_cached(&self, file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
        let read = |world: &mut World, sim: &SimFile| {
            nameable(at, into.len() as u64)?;
            // The cache has all of it, or the beginning, or nothing: who asks must be ready for each.
            let len = match world.rng.random_range(0..3) {
                0 => 0,
                1 => world.rng.random_range(0..=into.len()),
                _ => into.len(),
            };
            world.read(sim.node, at, &mut into[..len])
        };
        self.on_file("preadv2", file, read).map_err(|error| error.at(at))
    }

    fn write_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()> {
        let mut done = 0;
        let write = |world: &mut World, sim: &SimFile| {
            sim.check(at, bytes.len())?;
            let node = writable(world, sim)?;
            if !sim.is_direct {
                world.collide(node, at, bytes.len());
            }
            done = world.write(node, at, bytes, Fate::Pending)?;
            while done < bytes.len() {
                world.step();
                done += world.write(node, at + done as u64, &bytes[done..], Fate::Pending)?;
            }
            Ok(())
        };
        let written = self.on_file("pwrite", file, write);
        written.map_err(|error| error.at(at + done as u64))
    }

    fn write_uncached_at(&self, file: &File, at: u64, bytes: &Buffer) -> Result<()> {
        self.write_at(file, at, bytes)
    }

    fn sync(&self, file: &File) -> Result<()> {
        self.on_file("fdatasync", file, |world, sim| world.sync(sim.node, world.moment))
    }

    fn allocate(&self, file: &File, len: u64) -> Result<()> {
        self.on_file("fallocate", file, |world, sim| {
            let node = writable(world, sim)?;
            nameable(0, len)?;
            world.strike_file(Call::Allocate, node)?;
            if len > world.room(node) {
                return Err(Errno::NOSPC);
            }
            let moment = world.next_moment();
            world.file_mut(node).allocate(moment, len);
            Ok(())
        })
    }

    fn zero(&self, file: &File, at: u64, len: u64) -> Result<()> {
        let grain = GRAIN as u64;
        assert!(at.is_multiple_of(grain) && len.is_multiple_of(grain), "zeroing is in whole grains");
        self.on_file("fallocate", file, |world, sim| {
            let node = writable(world, sim)?;
            nameable(at, len)?;
            world.strike_file(Call::Zero, node)?;
            if at + len > world.room(node) {
                return Err(Errno::NOSPC);
            }
            let moment = world.next_moment();
            world.file_mut(node).zero(moment, at, len);
            Ok(())
        })
    }

    fn try_lock(&self, file: &File) -> Result<bool> {
        self.on_file("flock", file, |world, sim| {
            world.strike_file(Call::Lock, sim.node)?;
            let is_segment = world.file(sim.node).name.to_string_lossy().ends_with(".seg");
            if is_segment && world.is_told(Lie::NoSegmentLocks) {
                return Ok(true);
            }
            let holders = world.locks.entry(sim.node).or_default();
            if holders.is_empty() {
                holders.insert(sim.description);
            }
            Ok(*holders == [sim.description].into())
        })
    }

    fn share_lock(&self, file: &File, other: &File) -> Result<bool> {
        let other = handle(&self.shared, other);
        self.on_file("flock", file, |world, sim| {
            world.strike_file(Call::Lock, sim.node)?;
            let holders = world.locks.entry(sim.node).or_default();
            let is_ours = other.node == sim.node && holders.contains(&sim.description);
            if is_ours {
                holders.insert(other.description);
            }
            Ok(is_ours)
        })
    }

    fn written_len(&self, file: &File) -> Result<u64> {
        self.on_file("lseek", file, |world, sim| {
            // It has holes or it has none; nobody may lean on either.
            let len = world.file(sim.node).len();
            Ok(if world.rng.random() { len } else { world.rng.random_range(0..=len) })
        })
    }

    fn is_linked(&self, file: &File, path: &Path) -> Result<bool> {
        self.on_file("stat", file, |world, sim| {
            world.strike_file(Call::Stat, sim.node)?;
            Ok(world.names.find(path) == Ok(sim.node))
        })
    }

    fn has_cheap_dsync(&self, _file: &File) -> bool {
        lock(&self.shared).has_cheap_dsync
    }

    fn stat(&self, path: &Path) -> Result<Option<EntryKind>> {
        self.on_path(Call::Stat, "lstat", path, |world| match world.names.find(path) {
            Ok(node) => Ok(Some(kind(world, node))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        })
    }

    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        self.on_path(Call::List, "readdir", directory, |world| {
            let entries = world.names.entries(world.names.find(directory)?)?;
            Ok(entries
                .iter()
                .map(|(name, &node)| Entry { name: name.clone(), kind: kind(world, node) })
                .collect())
        })
    }

    fn create_dir(&self, path: &Path, _mode: u32) -> Result<()> {
        self.on_path(Call::CreateDir, "mkdir", path, |world| {
            if world.names.find(path).is_ok() {
                return Err(Errno::EXIST);
            }
            let (parent, name) = world.names.place(path)?;
            if !world.has_room() {
                return Err(Errno::NOSPC);
            }
            let (node, moment) = (world.number(), world.next_moment());
            world.names.link_directory(moment, parent, name, node);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.on_path(Call::Rename, "rename", from, |world| {
            let node = regular(world, from)?;
            let (parent, name) = world.names.place(from)?;
            let (new_parent, new_name) = world.names.place(to)?;
            if world.names.find(to).is_ok_and(|node| world.names.is_directory(node)) {
                return Err(Errno::ISDIR);
            }
            // Nobody needs it across directories, and it would have to be pending in two of them.
            if parent != new_parent {
                return Err(Errno::XDEV);
            }
            world.file_mut(node).name.clone_from(&new_name);
            let moment = world.next_moment();
            world.names.rename(moment, parent, name, new_name, node);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.on_path(Call::Remove, "unlink", path, |world| {
            regular(world, path)?;
            let (parent, name) = world.names.place(path)?;
            let moment = world.next_moment();
            world.names.unlink(moment, parent, name);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.on_path(Call::RemoveDir, "rmdir", path, |world| {
            let node = world.names.find(path)?;
            if !world.names.entries(node)?.is_empty() {
                return Err(Errno::NOTEMPTY);
            }
            let (parent, name) = world.names.place(path)?;
            let moment = world.next_moment();
            world.names.unlink(moment, parent, name);
            Ok(())
        })
    }

    fn sync_all(&self, directory: &Path) -> Result<()> {
        self.on_path(Call::SyncAll, "syncfs", directory, |world| {
            world.names.find(directory)?;
            world.sync_all();
            Ok(())
        })
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        self.on_path(Call::SyncDir, "fsync", directory, |world| {
            let node = world.names.find(directory)?;
            if !world.names.is_directory(node) {
                return Err(Errno::NOTDIR);
            }
            if !world.is_told(Lie::SkipDirectorySync) {
                world.names.sync(node);
                world.forget_unlinked();
            }
            Ok(())
        })
    }

    fn random(&self) -> [u8; 16] {
        lock(&self.shared).rng.random()
    }

    fn wall_clock(&self) -> u64 {
        // Some day in 2026, when the machine was switched on for the first time.
        1_780_000_000_000_000 + lock(&self.shared).clock.0.as_micros() as u64
    }

    fn now(&self) -> Time {
        lock(&self.shared).clock
    }

    fn sleep(&self, pause: Duration) {
        let mut world = lock(&self.shared);
        world.clock = world.clock.after(pause);
        world.step();
    }

    fn pid(&self) -> u32 {
        self.process
    }
}

fn kind(world: &World, node: Node) -> EntryKind {
    if world.names.is_directory(node) { EntryKind::Directory } else { EntryKind::File }
}

fn regular(world: &World, path: &Path) -> Result<Node, Errno> {
    let node = world.names.find(path)?;
    if world.names.is_directory(node) { Err(Errno::ISDIR) } else { Ok(node) }
}

fn nameable(at: u64, len: u64) -> Result<(), Errno> {
    if is_in_range(at, len) { Ok(()) } else { Err(Errno::INVAL) }
}

fn writable(world: &World, sim: &SimFile) -> Result<Node, Errno> {
    let is_writable = world.descriptions.get(&sim.description).is_some_and(|it| it.is_writable);
    if is_writable { Ok(sim.node) } else { Err(Errno::BADF) }
}
