//! What a store was asked, what it answered, and what must be there after a crash in the midst of it.

use std::collections::HashMap;

/// So many blobs are played with.
pub(crate) const NAMES: usize = 4;

/// Something asked of a store.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Open { name: usize },
    Remove { name: usize },
    RemovePartition { partition: usize },
    Close { handle: u32 },
    Sync { handle: u32 },
    Resize { handle: u32, length: u64 },
    Write { handle: u32, offset: u64, length: u64, byte: u8, sync: bool },
}

impl Op {
    /// Whether it removes a blob.
    fn removes(&self, name: usize, partition_of: impl Fn(usize) -> usize) -> bool {
        match self {
            Self::Remove { name: removed } => *removed == name,
            Self::RemovePartition { partition } => *partition == partition_of(name),
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Asked { id: u32, op: Op },
    Opened { handle: u32, name: usize },
    Answered { id: u32, is_ok: bool },
}

/// Everything that happened since the last crash, and what was there after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    events: Vec<Event>,
    /// What each blob held, durably; `None` where there was none.
    before: [Option<Vec<u8>>; NAMES],
    /// Whether the machine lost its page cache.
    is_power_cut: bool,
}

/// What may be found of one blob.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) must_exist: bool,
    pub(crate) may_exist: bool,
    /// `None` where anything goes.
    content: Option<Content>,
}

/// A change of a blob's bytes.
#[derive(Clone, Debug)]
struct Change {
    from: u64,
    /// `None` for a resize to `from`.
    bytes: Option<(u64, u8)>,
    /// Whether it must be found.
    is_certain: bool,
}

#[derive(Debug)]
struct Content {
    before: Vec<u8>,
    changes: Vec<Change>,
}

impl Model {
    /// Returns the marker of a machine that crashes from now on.
    pub(crate) fn asked(&mut self, id: u32, op: Op) -> u64 {
        self.push(Event::Asked { id, op })
    }

    pub(crate) fn opened(&mut self, handle: u32, name: usize) {
        self.push(Event::Opened { handle, name });
    }

    pub(crate) fn answered(&mut self, id: u32, is_ok: bool) -> u64 {
        self.push(Event::Answered { id, is_ok })
    }

    fn push(&mut self, event: Event) -> u64 {
        self.events.push(event);
        self.events.len() as u64
    }

    /// The machine went down when it had this marker.
    pub(crate) fn cut(&mut self, marker: u64, is_power_cut: bool) {
        self.events.truncate(marker as usize);
        self.is_power_cut = is_power_cut;
    }

    /// Since the last crash.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// This is what is there now, durably.
    pub(crate) fn found(&mut self, found: [Option<Vec<u8>>; NAMES]) {
        self.before = found;
        self.events.clear();
    }

    /// What may be found of a blob.
    pub(crate) fn expected(&self, name: usize, partition_of: impl Fn(usize) -> usize) -> Expected {
        let answers: HashMap<u32, bool> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Answered { id, is_ok } => Some((*id, *is_ok)),
                _ => None,
            })
            .collect();
        // What concerns the name, in the order of the calls, which is the order of its happening.
        let (mut must_exist, mut may_exist) = (self.before[name].is_some(), self.before[name].is_some());
        // Where it was last removed for certain: what is there now was made after that.
        let mut removed_at = None;
        // It may have been removed, or come back; and whichever of the two it is was opened since.
        let (mut is_uncertain, mut is_known) = (false, true);
        for (at, event) in self.events.iter().enumerate() {
            let Event::Asked { id, op } = event else { continue };
            let answer = answers.get(id).copied();
            match op {
                Op::Open { name: opened } if *opened == name => {
                    may_exist = true;
                    must_exist = answer == Some(true) || (must_exist && answer.is_none());
                    // An open that failed leaves what was there, or makes the blob, or has made half of it.
                    if answer == Some(false) {
                        must_exist = false;
                    }
                    is_known &= !is_uncertain;
                }
                Op::Remove { .. } | Op::RemovePartition { .. } if op.removes(name, &partition_of) => {
                    (must_exist, may_exist) = (false, answer != Some(true));
                    if answer == Some(true) {
                        (removed_at, is_uncertain, is_known) = (Some(at), false, true);
                    } else {
                        is_uncertain = true;
                    }
                }
                _ => {}
            }
        }
        let content = is_known.then(|| self.content(name, &answers, removed_at));
        Expected { must_exist, may_exist, content }
    }

    /// The changes of the blob that was made after `removed_at`, if it was removed since the last crash.
    fn content(&self, name: usize, answers: &HashMap<u32, bool>, removed_at: Option<usize>) -> Content {
        // Calls that are answered in the same moment as a handle is given out are its open.
        let is_of_now = |at: usize| match self.events.get(at + 1) {
            Some(Event::Answered { id, .. }) => {
                let asked = |event: &Event| matches!(event, Event::Asked { id: asked, .. } if asked == id);
                self.events.iter().position(asked) > removed_at
            }
            _ => removed_at.is_none(),
        };
        let mut handles = HashMap::new();
        // By id: its place among the changes.
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut changes: Vec<Change> = Vec::new();
        let mut answered: Vec<u32> = Vec::new();
        // For each flush that is asked for: what it will have made durable.
        let mut flushes: HashMap<u32, Vec<u32>> = HashMap::new();
        for (at, event) in self.events.iter().enumerate() {
            match event {
                // A handle's number is used again.
                Event::Opened { handle, name } => {
                    handles.insert(*handle, Some(*name).filter(|_| is_of_now(at)));
                }
                Event::Answered { id, is_ok } => {
                    if let Some(covered) = flushes.get(id)
                        && *is_ok
                    {
                        for id in covered {
                            changes[places[id]].is_certain = true;
                        }
                    }
                    if places.contains_key(id) && *is_ok {
                        answered.push(*id);
                    }
                }
                Event::Asked { id, op } => {
                    let (Op::Sync { handle } | Op::Resize { handle, .. } | Op::Write { handle, .. }) = op
                    else {
                        continue;
                    };
                    if handles.get(handle) != Some(&Some(name)) {
                        continue;
                    }
                    let is_ok = answers.get(id) == Some(&true);
                    // A crash of the process takes nothing that was answered.
                    let is_certain = is_ok && !self.is_power_cut;
                    match op {
                        Op::Sync { .. } => drop(flushes.insert(*id, answered.clone())),
                        Op::Resize { length, .. } => {
                            places.insert(*id, changes.len());
                            changes.push(Change { from: *length, bytes: None, is_certain });
                        }
                        Op::Write { offset, length, byte, sync, .. } => {
                            places.insert(*id, changes.len());
                            let is_certain = is_certain || (is_ok && *sync);
                            let bytes = Some((*offset + *length, *byte));
                            changes.push(Change { from: *offset, bytes, is_certain });
                        }
                        _ => unreachable!("it has a handle"),
                    }
                }
            }
        }
        let before = self.before[name].clone().filter(|_| removed_at.is_none());
        Content { before: before.unwrap_or_default(), changes }
    }
}

impl Expected {
    /// Panics where `found` is not what may be there.
    pub(crate) fn check(&self, name: usize, found: Option<&[u8]>) {
        let Some(found) = found else {
            assert!(!self.must_exist, "blob {name} is gone");
            return;
        };
        assert!(self.may_exist, "blob {name} is there");
        if let Some(content) = &self.content {
            content.check(found);
        }
    }
}

impl Content {
    fn check(&self, found: &[u8]) {
        let size = found.len() as u64;
        let mut certain = self.before.len() as u64;
        let (mut least, mut most) = (certain, certain);
        for change in &self.changes {
            match (change.bytes, change.is_certain) {
                (None, true) => (certain, least, most) = (change.from, change.from, change.from),
                (None, false) => (least, most) = (least.min(change.from), most.max(change.from)),
                (Some((end, _)), true) => {
                    certain = certain.max(end);
                    least = least.max(end);
                    most = most.max(end);
                }
                (Some((end, _)), false) => most = most.max(end),
            }
        }
        assert!(
            (least..=most).contains(&size),
            "{size} bytes, expected {least} to {most}: {:?}",
            self.changes
        );
        for (at, &byte) in found.iter().enumerate() {
            self.check_byte(at as u64, byte);
        }
    }

    fn check_byte(&self, at: u64, found: u8) {
        // What the newest certain change made of it, or any later one that may or may not be there.
        let mut allowed = vec![self.before.get(at as usize).copied().unwrap_or(0)];
        for change in &self.changes {
            let made = match change.bytes {
                Some((end, byte)) if (change.from..end).contains(&at) => byte,
                None if at >= change.from => 0,
                _ => continue,
            };
            if change.is_certain {
                allowed.clear();
            }
            allowed.push(made);
        }
        assert!(
            allowed.contains(&found),
            "byte {at} is {found}, expected one of {allowed:?}: {:?}",
            self.changes
        );
    }
}
