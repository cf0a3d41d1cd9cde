//! One flush at a time, for all who wait: group commit.

use crate::planted::{self, Bug};

/// Changes, counted, and how far they are durable; and who waits for that.
///
/// ```text
///   changes:   1   2   3   4   5   6   7   8
///              ├───────┤───────────┤───────┤
///              durable │  covered by the   │ to be covered by
///                      │  running flush    │ the next one
/// ```
///
/// A flush covers what was complete when it was submitted (durability rule 1), so whoever comes for later changes
/// waits for the next one; however many they are, one will do.
#[derive(Debug)]
pub(crate) struct Flush<W> {
    changes: u64,
    /// Only [`Flush::succeeded`] moves it, only forward, and only to what a successful flush covered.
    durable: u64,
    running: Option<Running<W>>,
    waiting: Vec<W>,
}

#[derive(Debug)]
struct Running<W> {
    covers: u64,
    waiting: Vec<W>,
}

impl<W> Default for Flush<W> {
    fn default() -> Self {
        Self { changes: 0, durable: 0, running: None, waiting: Vec::new() }
    }
}

impl<W> Flush<W> {
    /// Something was changed that is not durable yet.
    pub(crate) fn changed(&mut self) {
        self.changes += 1;
    }

    /// Whether every change is durable.
    pub(crate) fn is_clean(&self) -> bool {
        self.changes == self.durable
    }

    /// Wait until every change so far is durable. Not for what is clean: no flush would come.
    pub(crate) fn join(&mut self, waiter: W) {
        assert!(!self.is_clean(), "there is nothing to wait for");
        match &mut self.running {
            Some(running) if running.covers == self.changes || planted::is(Bug::FlushProvesLaterChanges) => {
                running.waiting.push(waiter);
            }
            _ => self.waiting.push(waiter),
        }
    }

    /// Whether a flush is to be submitted now; it counts as submitted.
    #[must_use]
    pub(crate) fn begin(&mut self) -> bool {
        let wanted = self.running.is_none() && !self.waiting.is_empty();
        if wanted {
            self.begin_anyway();
        }
        wanted
    }

    /// A flush that covers every change so far is under way, whether anybody waits for it or not.
    pub(crate) fn begin_anyway(&mut self) {
        assert!(self.running.is_none(), "flushes run one after another");
        let waiting = std::mem::take(&mut self.waiting);
        self.running = Some(Running { covers: self.changes, waiting });
    }

    /// The running flush succeeded: who waited for it.
    pub(crate) fn succeeded(&mut self) -> Vec<W> {
        let Running { covers, waiting } = self.running.take().expect("a flush that ends was begun");
        assert!(covers >= self.durable, "flushes run one after another");
        self.durable = covers;
        waiting
    }

    /// The running flush failed: who waited for it.
    pub(crate) fn failed(&mut self) -> Vec<W> {
        self.running.take().expect("a flush that ends was begun").waiting
    }

    /// How many wait for one.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() + self.running.as_ref().map_or(0, |running| running.waiting.len())
    }

    /// Whether a flush is under way.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Take out who waits for a flush that has not begun.
    pub(crate) fn give_up(&mut self) -> Vec<W> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether a flush is under way or wanted.
    #[cfg(test)]
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some() || !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_answers_for_what_was_complete_when_it_began() {
        let mut flush = Flush::default();
        assert!(flush.is_clean() && !flush.begin());
        flush.changed();
        flush.join('a');
        assert!(flush.begin());
        flush.join('b');
        flush.changed();
        flush.join('c');
        flush.join('d');
        assert!(!flush.begin(), "one at a time");
        assert_eq!(flush.succeeded(), ['a', 'b']);
        assert!(!flush.is_clean());
        assert!(flush.begin());
        assert_eq!(flush.succeeded(), ['c', 'd']);
        assert!(flush.is_clean() && !flush.is_busy());
    }

    #[test]
    fn a_flush_that_fails_makes_nothing_durable() {
        let mut flush = Flush::default();
        flush.changed();
        flush.join('a');
        assert!(flush.begin());
        flush.changed();
        flush.join('b');
        assert_eq!(flush.failed(), ['a']);
        assert!(!flush.is_clean() && flush.is_busy());
        assert_eq!(flush.give_up(), ['b']);
        assert!(!flush.begin() && !flush.is_busy());
    }
}
