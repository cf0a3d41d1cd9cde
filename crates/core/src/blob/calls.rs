//! Who asked for something and was not answered yet; and what all of them came to, counted.

use std::time::Duration;

use ringbolt_disk::Time;
use slab::Slab;

use crate::blob::stats::Stats;
use crate::blob::{Answer, Finished};
use crate::error::{Error, Result};
use crate::latency::Latencies;

/// Names a call between its beginning and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallKey(usize);

/// What kind of call it is, as the figures tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opening, closing, removing, listing.
    Name,
    Read {
        bytes: u64,
    },
    Write {
        bytes: u64,
        is_durable: bool,
    },
    Resize,
    Sync,
}

#[derive(Debug)]
struct Call {
    id: u32,
    kind: Kind,
    since: Time,
    /// The handle it came through.
    handle: Option<usize>,
}

/// The calls of a store. Each is answered once: answering takes it out.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: Slab<Call>,
    finished: Vec<Finished>,
    counted: Stats,
    reads: Latencies,
    writes: Latencies,
    syncs: Latencies,
}

impl Calls {
    /// A call begins.
    pub(crate) fn begin(&mut self, now: Time, id: u32, kind: Kind, handle: Option<usize>) -> CallKey {
        CallKey(self.open.insert(Call { id, kind, since: now, handle }))
    }

    /// Answer a call. Returns the handle it came through.
    pub(crate) fn answer(&mut self, now: Time, key: CallKey, result: Result<Answer>) -> Option<usize> {
        let Call { id, kind, since, handle } = self.open.remove(key.0);
        match &result {
            Ok(_) => self.count(kind, now.since(since)),
            Err(_) => self.counted.errors += 1,
        }
        self.finished.push(Finished { id, result });
        handle
    }

    /// Answer everything that is open, the same.
    pub(crate) fn answer_all(&mut self, error: &Error) {
        for call in self.open.drain() {
            self.counted.errors += 1;
            self.finished.push(Finished { id: call.id, result: Err(error.clone()) });
        }
    }

    /// A read that was served in place.
    pub(crate) fn count_cached_read(&mut self, bytes: u64) {
        self.counted.reads += 1;
        self.counted.cached_reads += 1;
        self.counted.read_bytes += bytes;
    }

    /// A flush was sent to the disk because somebody asked for it.
    pub(crate) fn count_flush(&mut self) {
        self.counted.flushes += 1;
    }

    /// Whether every call is answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The answers since they were last taken.
    pub(crate) fn finished(&mut self) -> &mut Vec<Finished> {
        &mut self.finished
    }

    /// The figures, but for what is not counted here.
    pub(crate) fn stats(&self, now: Time) -> Stats {
        let oldest = self.open.iter().map(|(_, call)| now.since(call.since)).max();
        Stats {
            pending: self.open.len() as u64,
            oldest_pending: oldest.unwrap_or_default(),
            read_latency: self.reads.summary(),
            write_latency: self.writes.summary(),
            sync_latency: self.syncs.summary(),
            ..self.counted.clone()
        }
    }

    fn count(&mut self, kind: Kind, latency: Duration) {
        let counted = &mut self.counted;
        match kind {
            Kind::Name => {}
            Kind::Read { bytes } => {
                counted.reads += 1;
                counted.read_bytes += bytes;
                self.reads.record(latency, 1);
            }
            Kind::Write { bytes, is_durable } => {
                counted.writes += 1;
                counted.write_bytes += bytes;
                counted.syncs += u64::from(is_durable);
                if is_durable { self.syncs.record(latency, 1) } else { self.writes.record(latency, 1) }
            }
            Kind::Resize => counted.resizes += 1,
            Kind::Sync => {
                counted.syncs += 1;
                self.syncs.record(latency, 1);
            }
        }
    }
}
