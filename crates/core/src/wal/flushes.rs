//! Who asked for everything to be durable in files that have their names, and who was answered.

use crate::wal::link::Link;

/// The flush requests of a log.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    /// The one being answered. Its target stays as it is while others come: they wait for the next.
    current: Option<Flush>,
    /// The newest asked for since, and the LSN it is for: one answer will do for all of them.
    waiting: Option<(u64, u64)>,
    asked: u64,
    done: u64,
}

#[derive(Debug)]
struct Flush {
    /// The newest request that this answers.
    number: u64,
    target_lsn: u64,
    link_round: u64,
}

impl Flushes {
    /// Requests up to `number` want everything up to `target_lsn` to be durable. May be called again with the same.
    pub(crate) fn ask(&mut self, (number, target_lsn): (u64, u64)) {
        if number > self.asked {
            self.asked = number;
            self.waiting = Some((number, target_lsn));
        }
    }

    /// Take up what waits, once there is nothing before it; returns the LSN that is to become durable for it.
    pub(crate) fn begin(&mut self, link: &mut Link) -> Option<u64> {
        if self.current.is_some() {
            return None;
        }
        let (number, target_lsn) = self.waiting.take()?;
        self.current = Some(Flush { number, target_lsn, link_round: link.begin() });
        Some(target_lsn)
    }

    /// Rule 14: a flush is answered once everything it covers is durable and the file has its name. Returns whether
    /// one was.
    pub(crate) fn settle(&mut self, durable_lsn: u64, link: &Link) -> bool {
        let settled = self
            .current
            .take_if(|flush| durable_lsn >= flush.target_lsn && link.is_confirmed(flush.link_round));
        self.done = settled.as_ref().map_or(self.done, |flush| flush.number);
        settled.is_some()
    }

    /// The log goes on in another file. Who waits to know that records have a file with a name means the files they
    /// are in by then.
    pub(crate) fn check_again(&mut self, link: &mut Link) {
        if let Some(flush) = &mut self.current {
            flush.link_round = link.begin();
        }
    }

    /// The records above `last_lsn` were taken back: nothing waits for them any more.
    pub(crate) fn take_back(&mut self, last_lsn: u64) {
        let targets = self.current.iter_mut().map(|flush| &mut flush.target_lsn);
        for target_lsn in targets.chain(self.waiting.iter_mut().map(|(_, target_lsn)| target_lsn)) {
            *target_lsn = last_lsn.min(*target_lsn);
        }
    }

    /// Requests answered.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.waiting.is_none()
    }
}
