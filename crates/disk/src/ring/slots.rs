//! The requests that are at the disk, each under the number that its entry carries.

use super::request::Request;

/// What an entry carries as `user_data` and its completion brings back: which slot, and which of the requests
/// that had it one after another.
///
/// ```text
///   63             32 31              0
///   ├────────────────┼────────────────┤
///   │   generation   │     index      │
/// ```
fn user_data(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// Owns each request from before its first entry until after its last completion, so that the file and the
/// memory in the entry stay valid while the kernel may use them.
///
/// A completion that is not of the request which has the slot now finds nothing: the slot's generation moved on
/// when its request left. It would take 2³² requests in one slot for an old number to be a new one again.
#[derive(Debug)]
pub(super) struct Slots {
    /// At most `capacity`; it grows as they are first needed.
    all: Vec<Slot>,
    free: Vec<u32>,
    /// Kept, not counted: every submission asks.
    brief: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Slot {
    /// Which request has it, counted around. Moves on when a request leaves, so that no two that follow each
    /// other are the same.
    generation: u32,
    request: Option<Request>,
}

impl Slots {
    /// As many requests at most. None of their numbers is [`Slots::NONE`].
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0 && capacity < u32::MAX as usize);
        Self { all: Vec::new(), free: Vec::new(), brief: 0, capacity }
    }

    /// A number that no request has.
    pub(super) const NONE: u64 = u64::MAX;

    /// How many requests there are.
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// How many of them end soon.
    pub(super) fn brief(&self) -> usize {
        self.brief
    }

    /// Whether there is no room for another.
    pub(super) fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Keep a request. There must be room.
    pub(super) fn insert(&mut self, request: Request) -> u32 {
        assert!(!self.is_full(), "{} requests are at the disk already", self.capacity);
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot { generation: 0, request: None });
            (self.all.len() - 1) as u32
        });
        let slot = &mut self.all[index as usize];
        assert!(slot.request.is_none());
        self.brief += usize::from(request.is_brief());
        slot.request = Some(request);
        index
    }

    /// The request in a slot, and the number for its next entry.
    pub(super) fn get(&mut self, index: u32) -> (&mut Request, u64) {
        let slot = &mut self.all[index as usize];
        (slot.request.as_mut().expect("a slot in use"), user_data(slot.generation, index))
    }

    /// The slot of the request with this number; `None` where there is no such request, or no more.
    pub(super) fn find(&self, number: u64) -> Option<u32> {
        let index = number as u32;
        let slot = self.all.get(index as usize)?;
        (slot.request.is_some() && number == user_data(slot.generation, index)).then_some(index)
    }

    /// Let a request go: its last completion is in.
    pub(super) fn remove(&mut self, index: u32) -> Request {
        let slot = &mut self.all[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        let request = slot.request.take().expect("a slot in use");
        self.brief -= usize::from(request.is_brief());
        request
    }

    /// As if so many requests had had the slot before.
    #[cfg(test)]
    pub(super) fn set_generation(&mut self, index: u32, generation: u32) {
        self.all[index as usize].generation = generation;
    }

    /// Let all requests go, to be leaked.
    pub(super) fn remove_all(&mut self) -> Vec<Request> {
        let used: Vec<u32> =
            (0..self.all.len() as u32).filter(|&index| self.all[index as usize].request.is_some()).collect();
        used.into_iter().map(|index| self.remove(index)).collect()
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // There are none unless we made a mistake, and then what the kernel may still use is not to be freed.
        self.remove_all().into_iter().for_each(std::mem::forget);
    }
}
