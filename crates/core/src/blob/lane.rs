//! Work in the order it was asked for, where that matters, and side by side where it does not.

use std::collections::VecDeque;
use std::fmt::Debug;

/// So many are looked at beside each other: more than a disk takes at a time. What is behind them waits, so that a
/// million calls that nobody awaits cost no more to compare than a few.
const WINDOW: usize = 128;

/// What a piece of work is about.
pub(crate) trait Scope {
    /// Whether work on this must wait for earlier work on `earlier`.
    fn waits_for(&self, earlier: &Self) -> bool;
}

/// Names a piece of work from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// A queue in which work overtakes only what it has nothing to do with.
///
/// ```text
///   window: under way or next        waiting
///   ├── a ── b ── c ── d ──┤ ◀── e ── f ── g …
///       each begins once nothing before it in the window stands in its way
/// ```
#[derive(Debug)]
pub(crate) struct Lane<S, W> {
    window: Vec<Entry<S, W>>,
    waiting: VecDeque<(S, W)>,
    last: u64,
}

#[derive(Debug)]
struct Entry<S, W> {
    ticket: Ticket,
    scope: S,
    /// Taken when it begins.
    work: Option<W>,
}

impl<S, W> Default for Lane<S, W> {
    fn default() -> Self {
        Self { window: Vec::new(), waiting: VecDeque::new(), last: 0 }
    }
}

impl<S: Scope, W> Lane<S, W> {
    /// Queue work.
    pub(crate) fn push(&mut self, scope: S, work: W) {
        if self.window.len() < WINDOW {
            self.admit(scope, work);
        } else {
            self.waiting.push_back((scope, work));
        }
    }

    /// The first that may begin now. It stands in the way of others until [`Lane::finish`].
    pub(crate) fn begin(&mut self) -> Option<(Ticket, W)> {
        let index = (0..self.window.len()).find(|&index| {
            let (earlier, entry) = (&self.window[..index], &self.window[index]);
            entry.work.is_some() && !earlier.iter().any(|earlier| entry.scope.waits_for(&earlier.scope))
        })?;
        let entry = &mut self.window[index];
        entry.work.take().map(|work| (entry.ticket, work))
    }

    /// What had this ticket is over.
    pub(crate) fn finish(&mut self, ticket: Ticket) {
        let before = self.window.len();
        self.window.retain(|entry| entry.ticket != ticket);
        assert_eq!(self.window.len() + 1, before, "work ends once");
        if let Some((scope, work)) = self.waiting.pop_front() {
            self.admit(scope, work);
        }
    }

    /// Change what work that has not begun is about.
    pub(crate) fn rescope(&mut self, rescope: impl FnMut(&mut S)) {
        let next = self.window.iter_mut().filter(|entry| entry.work.is_some()).map(|entry| &mut entry.scope);
        let waiting = self.waiting.iter_mut().map(|(scope, _)| scope);
        next.chain(waiting).for_each(rescope);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    fn admit(&mut self, scope: S, work: W) {
        self.last += 1;
        self.window.push(Entry { ticket: Ticket(self.last), scope, work: Some(work) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Scope for u32 {
        /// The same number waits, and 0 waits for all and is waited for by all.
        fn waits_for(&self, earlier: &Self) -> bool {
            self == earlier || *self == 0 || *earlier == 0
        }
    }

    fn begin_all(lane: &mut Lane<u32, &'static str>) -> Vec<(Ticket, &'static str)> {
        std::iter::from_fn(|| lane.begin()).collect()
    }

    #[test]
    fn work_overtakes_only_what_it_has_nothing_to_do_with() {
        let mut lane = Lane::default();
        for (scope, work) in [(1, "a"), (1, "b"), (2, "c"), (0, "d"), (3, "e")] {
            lane.push(scope, work);
        }
        let begun = begin_all(&mut lane);
        assert_eq!(begun.iter().map(|&(_, work)| work).collect::<Vec<_>>(), ["a", "c"]);
        assert!(lane.begin().is_none(), "each begins once");
        lane.finish(begun[0].0);
        let b = begin_all(&mut lane);
        assert_eq!(b[0].1, "b");
        lane.finish(b[0].0);
        assert!(lane.begin().is_none(), "c is under way");
        lane.finish(begun[1].0);
        let d = begin_all(&mut lane);
        assert_eq!((d.len(), d[0].1), (1, "d"));
        lane.finish(d[0].0);
        let e = begin_all(&mut lane);
        assert_eq!((e.len(), e[0].1), (1, "e"));
        lane.finish(e[0].0);
        assert!(lane.is_empty());
    }

    #[test]
    fn what_does_not_fit_the_window_keeps_its_order() {
        let mut lane = Lane::default();
        let count = 3 * WINDOW;
        for index in 0..count {
            lane.push(7, index);
        }
        for index in 0..count {
            let (ticket, work) = lane.begin().unwrap();
            assert_eq!(work, index);
            assert!(lane.begin().is_none());
            lane.finish(ticket);
        }
        assert!(lane.begin().is_none() && lane.is_empty());
    }
}
