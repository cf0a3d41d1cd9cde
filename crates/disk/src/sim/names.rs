//! Directories: the names everybody sees, the names on stable storage, and the changes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::choice::Choice;
use crate::errno::Errno;

/// A file or a directory, whatever its name. Never used twice.
pub(super) type Node = u64;

/// The directory that has no name and is always there.
pub(super) const ROOT: Node = 0;

/// Every directory of the machine.
#[derive(Clone, Debug)]
pub(super) struct Names {
    directories: BTreeMap<Node, Directory>,
}

/// One directory. `visible` is `stable` with all of `pending` applied in order.
#[derive(Clone, Debug, Default)]
struct Directory {
    visible: BTreeMap<OsString, Node>,
    stable: BTreeMap<OsString, Node>,
    /// Each change with the moment it was made.
    pending: Vec<(u64, Change)>,
}

/// A change of a directory that a power cut may keep while it drops the ones before it.
#[derive(Clone, Debug)]
enum Change {
    Link { name: OsString, node: Node },
    Unlink { name: OsString },
    Rename { from: OsString, to: OsString, node: Node },
}

impl Change {
    /// The names it is about.
    fn names(&self) -> impl Iterator<Item = &OsString> {
        let (name, other) = match self {
            Self::Link { name, .. } | Self::Unlink { name } => (name, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(name).chain(other)
    }

    fn apply(&self, entries: &mut BTreeMap<OsString, Node>) {
        match self {
            Self::Link { name, node } => {
                entries.insert(name.clone(), *node);
            }
            Self::Unlink { name } => {
                entries.remove(name);
            }
            // The file had one name and still has, also where the renames that led to `from` were dropped.
            Self::Rename { from, to, node } => {
                entries.retain(|name, entry| name != from && entry != node);
                entries.insert(to.clone(), *node);
            }
        }
    }
}

impl Names {
    /// An empty root.
    pub(super) fn new() -> Self {
        Self { directories: BTreeMap::from([(ROOT, Directory::default())]) }
    }

    /// What `path` leads to. Paths begin at the root, with or without a leading slash.
    pub(super) fn find(&self, path: &Path) -> Result<Node, Errno> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let directory = self.directories.get(&node).ok_or(Errno::NOTDIR)?;
                    node = *directory.visible.get(name).ok_or(Errno::NOENT)?;
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
            }
        }
        Ok(node)
    }

    /// The directory that `path` is in, and the name it has or would have there.
    pub(super) fn place(&self, path: &Path) -> Result<(Node, OsString), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        if !self.is_directory(parent) {
            return Err(Errno::NOTDIR);
        }
        Ok((parent, name.to_owned()))
    }

    pub(super) fn is_directory(&self, node: Node) -> bool {
        self.directories.contains_key(&node)
    }

    /// The visible entries of a directory, by name.
    pub(super) fn entries(&self, directory: Node) -> Result<&BTreeMap<OsString, Node>, Errno> {
        Ok(&self.directories.get(&directory).ok_or(Errno::NOTDIR)?.visible)
    }

    pub(super) fn link(&mut self, moment: u64, parent: Node, name: OsString, node: Node) {
        self.change(moment, parent, Change::Link { name, node });
    }

    /// A new, empty directory; its name is `parent`'s to sync.
    pub(super) fn link_directory(&mut self, moment: u64, parent: Node, name: OsString, node: Node) {
        self.directories.insert(node, Directory::default());
        self.link(moment, parent, name, node);
    }

    pub(super) fn unlink(&mut self, moment: u64, parent: Node, name: OsString) {
        self.change(moment, parent, Change::Unlink { name });
    }

    /// Give a file another name in the same directory, over whatever has it.
    pub(super) fn rename(&mut self, moment: u64, parent: Node, from: OsString, to: OsString, node: Node) {
        if from != to {
            self.change(moment, parent, Change::Rename { from, to, node });
        }
    }

    /// What is pending about a name is decided as everybody sees it: neither it nor what a rename ties to it can
    /// come back after a power cut as it was before.
    pub(super) fn decide(&mut self, parent: Node, name: &OsStr) {
        let directory = self.directories.get_mut(&parent).expect("a place is in a directory");
        let mut tied = BTreeSet::from([name.to_owned()]);
        loop {
            let before = tied.len();
            for (_, change) in &directory.pending {
                if change.names().any(|name| tied.contains(name)) {
                    tied.extend(change.names().cloned());
                }
            }
            if tied.len() == before {
                break;
            }
        }
        directory.pending.retain(|(_, change)| !change.names().any(|name| tied.contains(name)));
        for name in tied {
            match directory.visible.get(&name) {
                Some(&node) => directory.stable.insert(name, node),
                None => directory.stable.remove(&name),
            };
        }
    }

    /// A name on stable storage, at once.
    pub(super) fn plant(&mut self, parent: Node, name: OsString, node: Node) {
        self.decide(parent, &name);
        let directory = self.directories.get_mut(&parent).expect("a place is in a directory");
        directory.visible.insert(name.clone(), node);
        directory.stable.insert(name, node);
    }

    /// A directory, empty, on stable storage at once.
    pub(super) fn plant_directory(&mut self, parent: Node, name: OsString, node: Node) {
        self.directories.insert(node, Directory::default());
        self.plant(parent, name, node);
    }

    /// Take a name off stable storage, at once.
    pub(super) fn uproot(&mut self, parent: Node, name: &OsStr) {
        self.decide(parent, name);
        let directory = self.directories.get_mut(&parent).expect("a place is in a directory");
        directory.visible.remove(name);
        directory.stable.remove(name);
    }

    /// The names of a directory, as they are now, are durable.
    pub(super) fn sync(&mut self, directory: Node) {
        if let Some(directory) = self.directories.get_mut(&directory) {
            directory.pending.clear();
            directory.stable.clone_from(&directory.visible);
        }
    }

    /// Every name, as it is now, is durable.
    pub(super) fn sync_all(&mut self) {
        for directory in self.directories.values_mut() {
            directory.pending.clear();
            directory.stable.clone_from(&directory.visible);
        }
    }

    /// The power is cut: of each directory a random subset of the pending changes was kept, in their order.
    pub(super) fn settle(&mut self, choice: &mut Choice<'_>) {
        for directory in self.directories.values_mut() {
            let odds = choice.odds();
            for change in std::mem::take(&mut directory.pending) {
                if choice.version(odds, std::slice::from_ref(&change)).is_some() {
                    change.1.apply(&mut directory.stable);
                }
            }
            directory.visible.clone_from(&directory.stable);
        }
        let reachable = self.reachable();
        self.directories.retain(|node, _| reachable.contains(node));
    }

    /// The moments of what is pending.
    pub(super) fn undecided(&self) -> impl Iterator<Item = u64> {
        let pending = self.directories.values().flat_map(|directory| &directory.pending);
        pending.map(|&(moment, _)| moment)
    }

    /// Everything that has a visible name, by its path; a directory comes before what is in it.
    pub(super) fn tree(&self) -> Vec<(PathBuf, Node)> {
        let mut tree = vec![(PathBuf::from("/"), ROOT)];
        let mut next = 0;
        while let Some((path, node)) = tree.get(next) {
            if let Some(directory) = self.directories.get(node) {
                let below = directory.visible.iter().map(|(name, &node)| (path.join(name), node));
                let below: Vec<_> = below.collect();
                tree.extend(below);
            }
            next += 1;
        }
        tree
    }

    /// Everything that has a visible name, and the root.
    pub(super) fn reachable(&self) -> BTreeSet<Node> {
        self.tree().into_iter().map(|(_, node)| node).collect()
    }

    /// Everything that has a name now, or could have one after a power cut.
    pub(super) fn mentioned(&self) -> BTreeSet<Node> {
        let mut mentioned = BTreeSet::from([ROOT]);
        for directory in self.directories.values() {
            mentioned.extend(directory.visible.values().chain(directory.stable.values()));
            mentioned.extend(directory.pending.iter().filter_map(|(_, change)| match change {
                Change::Link { node, .. } | Change::Rename { node, .. } => Some(*node),
                Change::Unlink { .. } => None,
            }));
        }
        mentioned
    }

    fn change(&mut self, moment: u64, parent: Node, change: Change) {
        let directory = self.directories.get_mut(&parent).expect("a place is in a directory");
        change.apply(&mut directory.visible);
        directory.pending.push((moment, change));
    }
}
