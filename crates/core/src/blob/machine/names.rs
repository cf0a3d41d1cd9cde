//! What is done to names: blobs opened and removed, partitions removed and listed.
//!
//! ```text
//!   open ─▶ in its partition's lane ─▶ job: open, judge, make ─▶ flush the file ─▶ sync the partition ─▶ sync the root ─▶ answer
//!                                         already open: share it      where new,        where its names      where its names
//!                                                                     or left unflushed  are not durable      are not durable
//! ```
//!
//! * Whatever concerns one name goes one after another; what concerns a whole partition (its first use, which may make
//!   it, and its removal) goes alone in it.
//! * Directory syncs are shared: one at a time for all who wait, in each partition and in the root.
//! * A directory whose sync failed is synced again before anybody is told that a name in it is durable (rule 5).

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use ringbolt_disk::{Op, Outcome};

use crate::blob::Answer;
use crate::blob::calls::CallKey;
use crate::blob::direct::Direct;
use crate::blob::failure;
use crate::blob::file::{Blob, Uncached};
use crate::blob::flush::Flush;
use crate::blob::lane::{Lane, Scope, Ticket};
use crate::blob::machine::{FLUSHED_MAX, Handle, Machine, Pending, Slot, job_result};
use crate::blob::names::{self, Key};
use crate::blob::partition::{self, Prepared, Wanted};
use crate::error::{Code, Error, Result};
use crate::planted::{self, Bug};

/// So many blobs that were closed with unflushed changes are remembered one by one. Beyond that everything is flushed.
const UNFLUSHED_MAX: usize = 1024;

/// What must be remembered about a blob that is closed.
#[derive(Debug)]
pub(crate) enum Left {
    /// It was changed and not flushed since: the next open flushes it before it shows its bytes to anybody.
    Unflushed {
        /// Whether that open is under way.
        is_opening: bool,
    },
    /// A flush of it failed: what it was to make durable may be gone. Until it is removed.
    Failed(Error),
}

/// A partition that something is or was done in.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    errands: Lane<About, Errand>,
    pub(super) names: Flush<NamesWaiter>,
    /// Whether it is known to exist. Until then an errand may make it, and goes alone.
    is_known: bool,
}

/// What an errand is about.
#[derive(Debug)]
pub(crate) enum About {
    Name(Arc<Key>),
    /// The list of names; who asks for it meanwhile gets a name or does not.
    List,
    Whole,
}

impl Scope for About {
    fn waits_for(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Name(one), Self::Name(other)) => one == other,
            (Self::Whole, _) | (_, Self::Whole) => true,
            (Self::List, _) | (_, Self::List) => false,
        }
    }
}

/// Something to be done in a partition.
#[derive(Debug)]
pub(crate) enum Errand {
    Open { call: CallKey, key: Arc<Key>, versions: (u16, u16), create: bool },
    Remove { call: CallKey, key: Arc<Key> },
    RemovePartition { call: CallKey },
    Scan { call: CallKey },
}

/// An errand under way: whom to answer, and its place in its partition's lane.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    call: CallKey,
    partition: String,
    ticket: Ticket,
}

/// An open under way.
#[derive(Debug)]
pub(crate) struct Opening {
    running: Running,
    key: Arc<Key>,
    prepared: Prepared,
}

/// An open that waits to begin: of which blob, of which versions, made or not.
pub(crate) type Waiting = (Running, Arc<Key>, (u16, u16), bool);

/// Who waits for a partition's names to be durable.
#[derive(Debug)]
pub(crate) enum NamesWaiter {
    Opening(Box<Opening>),
    /// With what is to be answered.
    Removed(Running, Arc<Key>, Result<Answer>),
}

/// Who waits for the root's names to be durable.
#[derive(Debug)]
pub(crate) enum RootWaiter {
    Opening(Box<Opening>),
    /// With what is to be answered.
    PartitionRemoved(Running, Result<Answer>),
}

/// How far the removal of a partition came.
#[derive(Debug)]
pub(crate) struct Removal {
    /// The blobs in it whose names are gone.
    gone: HashSet<Vec<u8>>,
    result: Result<()>,
}

/// A blob that was closed, and how its flush went.
type Flushed = (Arc<Key>, Result<()>);

/// What an operation on names is for.
#[derive(Debug)]
pub(crate) enum NamesOp {
    Open {
        running: Running,
        key: Arc<Key>,
        slot: Slot<Result<Prepared>>,
    },
    FlushOpened(Box<Opening>),
    Remove {
        running: Running,
        key: Arc<Key>,
        slot: Slot<Result<()>>,
    },
    RemovePartition {
        running: Running,
        slot: Slot<Result<Removal>>,
    },
    Scan {
        running: Running,
        slot: Slot<Result<Vec<Vec<u8>>>>,
    },
    ListPartitions {
        call: CallKey,
        slot: Slot<Result<Vec<String>>>,
    },
    SyncPartition {
        partition: String,
        slot: Slot<Result<()>>,
    },
    SyncRoot {
        slot: Slot<Result<()>>,
    },
    /// Everything that was left unflushed, at once.
    FlushLeft {
        slot: Slot<Result<Vec<Flushed>>>,
    },
}

impl Machine {
    // Requests

    pub(super) fn open(
        &mut self,
        call: CallKey,
        partition: String,
        name: Vec<u8>,
        versions: (u16, u16),
        create: bool,
    ) {
        match Key::new(partition, name) {
            Ok(key) => {
                let key = Arc::new(key);
                let about = About::Name(Arc::clone(&key));
                let partition = key.partition().to_owned();
                self.send(&partition, about, Errand::Open { call, key, versions, create });
            }
            Err(error) => self.answer(call, Err(error)),
        }
    }

    pub(super) fn remove(&mut self, call: CallKey, partition: String, name: Option<Vec<u8>>) {
        let Some(name) = name else {
            return match names::check_partition(&partition) {
                Ok(()) => self.send(&partition, About::Whole, Errand::RemovePartition { call }),
                Err(error) => self.answer(call, Err(error)),
            };
        };
        match Key::new(partition, name) {
            Ok(key) => {
                let key = Arc::new(key);
                let partition = key.partition().to_owned();
                self.send(&partition, About::Name(Arc::clone(&key)), Errand::Remove { call, key });
            }
            Err(error) => self.answer(call, Err(error)),
        }
    }

    pub(super) fn scan(&mut self, call: CallKey, partition: &str) {
        match names::check_partition(partition) {
            Ok(()) => self.send(partition, About::List, Errand::Scan { call }),
            Err(error) => self.answer(call, Err(error)),
        }
    }

    pub(super) fn list_partitions(&mut self, call: CallKey) {
        let root = self.config.root.clone();
        let pending = |slot| Pending::Names(NamesOp::ListPartitions { call, slot });
        self.job(pending, move |fs| partition::partitions(fs, &root));
    }

    // Errands

    fn send(&mut self, partition: &str, about: About, errand: Errand) {
        let entry = self.partitions.entry(partition.to_owned()).or_default();
        let about = match about {
            About::Name(_) if !entry.is_known => About::Whole,
            about => about,
        };
        entry.errands.push(about, errand);
        self.restless.push(partition.to_owned());
    }

    /// Begin what may begin in partitions where something was queued or ended. Not done where that happens: one end
    /// may be the beginning and the end of the next, a million times over.
    pub(super) fn begin_errands(&mut self) {
        while let Some(partition) = self.restless.pop() {
            self.begin_errands_in(&partition);
        }
    }

    fn begin_errands_in(&mut self, partition: &str) {
        // It may be gone by now, where something ended in it twice.
        while let Some(entry) = self.partitions.get_mut(partition)
            && let Some((ticket, errand)) = entry.errands.begin()
        {
            let running = |call| Running { call, partition: partition.to_owned(), ticket };
            match errand {
                Errand::Open { call, key, versions, create } => {
                    self.begin_open(running(call), key, versions, create);
                }
                Errand::Remove { call, key } => self.begin_remove(running(call), key),
                Errand::RemovePartition { call } => {
                    let (root, partition) = (self.config.root.clone(), partition.to_owned());
                    let running = running(call);
                    let pending = |slot| Pending::Names(NamesOp::RemovePartition { running, slot });
                    self.job(pending, move |fs| {
                        let mut gone = HashSet::new();
                        let result = partition::remove_partition(fs, &root, &partition, &mut gone);
                        Ok(Removal { gone, result })
                    });
                }
                Errand::Scan { call } => {
                    let (root, partition) = (self.config.root.clone(), partition.to_owned());
                    let running = running(call);
                    let pending = |slot| Pending::Names(NamesOp::Scan { running, slot });
                    self.job(pending, move |fs| partition::scan(fs, &root, &partition));
                }
            }
        }
        let is_over =
            |entry: &Partition| entry.errands.is_empty() && !entry.is_known && entry.names.is_clean();
        if self.partitions.get(partition).is_some_and(is_over) {
            self.partitions.remove(partition);
        }
    }

    /// The end of an errand.
    fn end(&mut self, running: Running, result: Result<Answer>) {
        let Running { call, partition, ticket } = running;
        self.partition(&partition).errands.finish(ticket);
        self.answer(call, result);
        self.restless.push(partition);
    }

    fn partition(&mut self, partition: &str) -> &mut Partition {
        self.partitions
            .get_mut(partition)
            .expect("a partition with an errand in it, or just behind it, is kept")
    }

    // Opening

    fn begin_open(&mut self, running: Running, key: Arc<Key>, versions: (u16, u16), create: bool) {
        if let Some(&blob) = self.named.get(&key) {
            let open = &self.blobs[blob];
            let result = match &open.failure {
                Some(first) => Err(failure::poisoned(&key, first)),
                None => partition::check_version(&key, open.version, versions),
            };
            let result = result.map(|()| self.hand_out(blob));
            return self.end(running, result);
        }
        // The system tells of a flush that failed once, and whoever opens the file after that does not hear of it.
        if self.flushing_left.contains(&key) {
            return self.behind_left.push((running, key, versions, create));
        }
        match self.left.get_mut(&key) {
            Some(Left::Failed(first)) => {
                let error = failure::poisoned(&key, first);
                return self.end(running, Err(error));
            }
            Some(Left::Unflushed { is_opening }) => *is_opening = true,
            None => {}
        }
        let (root, its) = (self.config.root.clone(), Arc::clone(&key));
        let wanted = Wanted {
            layout: self.config.layout,
            versions,
            create,
            file_mode: self.config.file_mode,
            lock_timeout: self.config.lock_timeout,
            is_suspect: self.is_suspect(&key),
        };
        let pending = |slot| Pending::Names(NamesOp::Open { running, key, slot });
        self.job(pending, move |fs| partition::open(fs, &root, &its, &wanted));
    }

    fn on_opened(&mut self, running: Running, key: Arc<Key>, prepared: Result<Prepared>) {
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                if failure::may_have_made(&error) {
                    // Half a creation: what there is of it is made durable before anybody is told of it.
                    self.root_names.changed();
                    self.partition(&running.partition).names.changed();
                    if error.code == Code::BlobSyncFailed {
                        self.left.insert(key, Left::Failed(error.clone()));
                    } else {
                        self.leave_unflushed(key);
                    }
                } else if let Some(Left::Unflushed { is_opening }) = self.left.get_mut(&key) {
                    *is_opening = false;
                }
                return self.end(running, Err(error));
            }
        };
        if prepared.partition_is_new {
            self.root_names.changed();
        }
        let entry = self.partition(&running.partition);
        entry.is_known = true;
        if prepared.is_new {
            entry.names.changed();
        }
        let is_made = prepared.is_new && !planted::is(Bug::HeaderWithoutSync);
        let is_flush_due = is_made || self.is_suspect(&key) || self.left.contains_key(&key);
        let opening = Box::new(Opening { running, key, prepared });
        if is_flush_due {
            let op = Op::Sync { file: opening.prepared.file.clone() };
            self.submit(Pending::Names(NamesOp::FlushOpened(opening)), op);
        } else {
            self.make_name_durable(opening);
        }
    }

    /// Whether a killed process's writes may have come into this blob since the store was opened (they could, until its
    /// lock was had), or an earlier life's flush of it may have failed.
    fn is_suspect(&self, key: &Arc<Key>) -> bool {
        self.flushed.as_ref().is_some_and(|flushed| !flushed.contains(key))
    }

    fn on_opened_flushed(&mut self, opening: Box<Opening>, outcome: ringbolt_disk::Result<Outcome>) {
        match outcome {
            Ok(_) => {
                self.left.remove(&opening.key);
                if let Some(flushed) = self.flushed.as_mut().filter(|flushed| flushed.len() < FLUSHED_MAX) {
                    flushed.insert(Arc::clone(&opening.key));
                }
                self.make_name_durable(opening);
            }
            Err(error) => {
                let Opening { running, key, .. } = *opening;
                let error = failure::of_blob(Code::BlobSyncFailed, "opening", &key, error);
                self.left.insert(key, Left::Failed(error.clone()));
                self.end(running, Err(error));
            }
        }
    }

    fn make_name_durable(&mut self, opening: Box<Opening>) {
        let partition = opening.running.partition.clone();
        let names = &mut self.partition(&partition).names;
        if names.is_clean() || planted::is(Bug::NameWithoutSync) {
            return self.make_partition_durable(opening);
        }
        names.join(NamesWaiter::Opening(opening));
        self.begin_names_sync(&partition);
    }

    fn make_partition_durable(&mut self, opening: Box<Opening>) {
        if self.root_names.is_clean() || planted::is(Bug::PartitionWithoutSync) {
            return self.finish_open(*opening);
        }
        self.root_names.join(RootWaiter::Opening(opening));
        self.begin_root_sync();
    }

    fn finish_open(&mut self, Opening { running, key, prepared }: Opening) {
        let blob = self.blobs.insert(Blob {
            path: key.path(&self.config.root),
            key: Arc::clone(&key),
            file: prepared.file,
            uncached: Uncached::Unknown,
            direct: Direct::default(),
            data_at: prepared.header.layout.data_at(),
            version: prepared.header.version,
            size: prepared.size,
            changes: VecDeque::new(),
            is_changing: false,
            is_flushed_by_change: false,
            flush: Flush::default(),
            failure: None,
            handles: 0,
            is_named: true,
        });
        self.named.insert(key, blob);
        let answer = self.hand_out(blob);
        self.end(running, Ok(answer));
    }

    /// A new handle of an open blob.
    fn hand_out(&mut self, blob: usize) -> Answer {
        let handle = Handle { blob, pending: 0, is_closed: false, closing: None };
        let number = self.handles.insert(handle);
        let blob = &mut self.blobs[blob];
        blob.handles += 1;
        let number = u32::try_from(number).expect("descriptors run out before numbers do");
        Answer::Opened { blob: number, version: blob.version }
    }

    // Removing

    fn begin_remove(&mut self, running: Running, key: Arc<Key>) {
        let (root, its) = (self.config.root.clone(), Arc::clone(&key));
        let pending = |slot| Pending::Names(NamesOp::Remove { running, key, slot });
        self.job(pending, move |fs| partition::remove(fs, &root, &its));
    }

    fn on_removed(&mut self, running: Running, key: &Arc<Key>, removed: Result<()>) {
        if removed.is_ok() {
            self.forget(key);
            let entry = self.partition(&running.partition);
            entry.is_known = true;
            entry.names.changed();
        }
        self.answer_removed(running, key, removed.map(|()| Answer::Done));
    }

    /// Answer a removal once it is durable that the blob is gone. Also where it was gone before: whoever tries again
    /// behind a directory sync that failed is not to be told so while a power cut would bring it back.
    fn answer_removed(&mut self, running: Running, key: &Arc<Key>, result: Result<Answer>) {
        let is_gone = result.as_ref().err().is_none_or(|error| error.code == Code::BlobMissing);
        let partition = running.partition.clone();
        let names = &mut self.partition(&partition).names;
        if !is_gone || names.is_clean() || planted::is(Bug::RemovalWithoutSync) {
            return self.answer_partition_removed(running, result);
        }
        names.join(NamesWaiter::Removed(running, Arc::clone(key), result));
        self.begin_names_sync(&partition);
    }

    /// The same of a partition.
    fn answer_partition_removed(&mut self, running: Running, result: Result<Answer>) {
        let is_gone = result.as_ref().err().is_none_or(|error| error.code == Code::BlobPartitionMissing);
        if !is_gone || self.root_names.is_clean() || planted::is(Bug::RemovalWithoutSync) {
            return self.end(running, result);
        }
        self.root_names.join(RootWaiter::PartitionRemoved(running, result));
        self.begin_root_sync();
    }

    fn on_partition_removed(&mut self, running: Running, removal: Result<Removal>) {
        let Removal { gone, result } = match removal {
            Ok(removal) => removal,
            // Nobody knows any more which names are gone.
            Err(error) => panic!("removing the partition {}: {error}", running.partition),
        };
        let is_gone = |key: &&Arc<Key>| {
            key.partition() == running.partition && (result.is_ok() || gone.contains(key.name()))
        };
        let keys: Vec<_> = self.named.keys().chain(self.left.keys()).filter(is_gone).cloned().collect();
        for key in &keys {
            self.forget(key);
        }
        if let Err(error) = result {
            // Where it failed half way, the others are what they were.
            if !gone.is_empty() {
                self.partition(&running.partition).names.changed();
            }
            return self.answer_partition_removed(running, Err(error));
        }
        let entry = self.partition(&running.partition);
        entry.is_known = false;
        // Who comes next makes it again, and goes alone until it is heard of: one that found the directory which
        // another has just made would take its name for durable.
        entry.errands.rescope(|about| {
            if matches!(about, About::Name(_)) {
                *about = About::Whole;
            }
        });
        // Its directory is gone, and with it what was to be synced in it.
        entry.names = Flush::default();
        self.root_names.changed();
        self.answer_partition_removed(running, Ok(Answer::Done));
    }

    /// A blob's name is gone: handles go on with its file, and a new blob of that name has nothing to do with it.
    fn forget(&mut self, key: &Arc<Key>) {
        self.left.remove(key);
        if let Some(blob) = self.named.remove(key) {
            self.blobs[blob].is_named = false;
        }
    }

    // Directory syncs

    fn begin_names_sync(&mut self, partition: &str) {
        if self.partition(partition).names.begin() {
            let directory = self.config.root.join(partition);
            let partition = partition.to_owned();
            let pending = |slot| Pending::Names(NamesOp::SyncPartition { partition, slot });
            self.sync_directory(pending, directory);
        }
    }

    fn begin_root_sync(&mut self) {
        if self.root_names.begin() {
            let directory = self.config.root.clone();
            self.sync_directory(|slot| Pending::Names(NamesOp::SyncRoot { slot }), directory);
        }
    }

    fn sync_directory(&mut self, pending: impl FnOnce(Slot<Result<()>>) -> Pending, directory: PathBuf) {
        self.job(pending, move |fs| {
            fs.sync_dir(&directory)
                .map_err(|error| failure::of_store(Code::BlobSyncFailed, "making names durable", error))
        });
    }

    fn on_names_synced(&mut self, partition: &str, synced: Result<()>) {
        let names = &mut self.partition(partition).names;
        let (waiters, result) = match synced {
            Ok(()) => (names.succeeded(), Ok(())),
            // Those who came later get a sync of their own: names stay pending, they are not lost.
            Err(error) => (names.failed(), Err(error)),
        };
        for waiter in waiters {
            match (waiter, &result) {
                (NamesWaiter::Opening(opening), Ok(())) => self.make_partition_durable(opening),
                (NamesWaiter::Opening(opening), Err(error)) => {
                    let error = failure::about(error, &opening.key);
                    self.end(opening.running, Err(error));
                }
                (NamesWaiter::Removed(running, _, answer), Ok(())) => self.end(running, answer),
                (NamesWaiter::Removed(running, key, _), Err(error)) => {
                    self.end(running, Err(failure::about(error, &key)));
                }
            }
        }
        self.begin_names_sync(partition);
    }

    fn on_root_synced(&mut self, synced: Result<()>) {
        let (waiters, result) = match synced {
            Ok(()) => (self.root_names.succeeded(), Ok(())),
            Err(error) => (self.root_names.failed(), Err(error)),
        };
        for waiter in waiters {
            match (waiter, &result) {
                (RootWaiter::Opening(opening), Ok(())) => self.finish_open(*opening),
                (RootWaiter::Opening(opening), Err(error)) => {
                    let error = failure::about(error, &opening.key);
                    self.end(opening.running, Err(error));
                }
                (RootWaiter::PartitionRemoved(running, answer), Ok(())) => self.end(running, answer),
                (RootWaiter::PartitionRemoved(running, _), Err(error)) => {
                    let error = failure::in_partition(error, &running.partition);
                    self.end(running, Err(error));
                }
            }
        }
        self.begin_root_sync();
    }

    // What was left unflushed

    /// A blob may have changes that are not durable, and no handle.
    pub(super) fn leave_unflushed(&mut self, key: Arc<Key>) {
        if planted::is(Bug::ForgetUnflushed) {
            return;
        }
        self.left.insert(key, Left::Unflushed { is_opening: false });
        if self.left.len() < UNFLUSHED_MAX || !self.flushing_left.is_empty() {
            return;
        }
        let unflushed =
            self.left.iter().filter(|(_, left)| matches!(left, Left::Unflushed { is_opening: false }));
        let keys: HashSet<_> = unflushed.map(|(key, _)| Arc::clone(key)).collect();
        if keys.len() >= UNFLUSHED_MAX {
            self.flushing_left.clone_from(&keys);
            let root = self.config.root.clone();
            let pending = |slot| Pending::Names(NamesOp::FlushLeft { slot });
            self.job(pending, move |fs| {
                let flush = |key: &Arc<Key>| partition::flush(fs, &root, key);
                Ok(keys.into_iter().map(|key| (Arc::clone(&key), flush(&key))).collect())
            });
        }
    }

    fn on_left_flushed(&mut self, flushed: Vec<Flushed>) {
        self.flushing_left.clear();
        for (key, flushed) in flushed {
            match (self.left.get(&key), flushed) {
                (Some(Left::Unflushed { .. }), Ok(())) => drop(self.left.remove(&key)),
                (Some(Left::Unflushed { .. }), Err(error)) if error.code == Code::BlobSyncFailed => {
                    self.left.insert(key, Left::Failed(error));
                }
                // It was removed meanwhile, or could not even be opened: then nothing is lost.
                _ => {}
            }
        }
        for (running, key, versions, create) in std::mem::take(&mut self.behind_left) {
            self.begin_open(running, key, versions, create);
        }
    }

    pub(super) fn on_names(&mut self, op: NamesOp, outcome: ringbolt_disk::Result<Outcome>) {
        match op {
            NamesOp::Open { running, key, slot } => {
                let prepared = job_result(&slot, outcome);
                self.on_opened(running, key, prepared);
            }
            NamesOp::FlushOpened(opening) => self.on_opened_flushed(opening, outcome),
            NamesOp::Remove { running, key, slot } => {
                let removed = job_result(&slot, outcome);
                self.on_removed(running, &key, removed);
            }
            NamesOp::RemovePartition { running, slot } => {
                let removed = job_result(&slot, outcome);
                self.on_partition_removed(running, removed);
            }
            NamesOp::Scan { running, slot } => {
                let names = job_result(&slot, outcome);
                self.end(running, names.map(Answer::Names));
            }
            NamesOp::ListPartitions { call, slot } => {
                let partitions = job_result(&slot, outcome);
                self.answer(call, partitions.map(Answer::Partitions));
            }
            NamesOp::SyncPartition { partition, slot } => {
                let synced = job_result(&slot, outcome);
                self.on_names_synced(&partition, synced);
            }
            NamesOp::SyncRoot { slot } => {
                let synced = job_result(&slot, outcome);
                self.on_root_synced(synced);
            }
            NamesOp::FlushLeft { slot } => {
                let flushed = job_result(&slot, outcome);
                self.on_left_flushed(flushed.unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests;
