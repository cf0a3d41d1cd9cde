//! Changes of a blob's bytes, made many at a time by one job: plain calls on a helper thread.
//!
//! Not through the ring: the page cache is written by a thread that may wait, whichever way it is asked to. The ring would
//! hand each write to a thread of the kernel's, and tell of each by itself. What passes by the page cache does go through
//! it: see [`crate::blob::direct`].

use std::collections::VecDeque;

use ringbolt_disk::{Buffer, File, Fs};

use crate::blob::calls::CallKey;
use crate::blob::failure;
use crate::blob::names::Key;
use crate::error::{Code, Error};
use crate::planted::{self, Bug};

/// One job makes at most so many changes: the first of them waits for the last.
const BATCH_MAX: usize = 128;

/// Of so many bytes together, unless one alone has more.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A change that waits for its turn.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) call: CallKey,
    pub(crate) what: What,
    /// Whether it is to be answered only once it is durable.
    pub(crate) sync: bool,
    /// Whether the page cache may keep it.
    pub(crate) cached: bool,
}

/// What is changed.
#[derive(Debug)]
pub(crate) enum What {
    /// These bytes, from there on.
    Write { offset: u64, buffer: Buffer },
    /// How many there are.
    Resize { length: u64 },
}

/// What a job did.
#[derive(Debug)]
pub(crate) struct Changed {
    /// In the order of the calls.
    pub(crate) ends: Vec<End>,
    /// How the flush went, where there was to be one.
    pub(crate) flushed: Option<ringbolt_disk::Result<()>>,
}

/// The end of one change.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) change: Change,
    pub(crate) result: ringbolt_disk::Result<()>,
    /// The file's length after one that failed, where it could be had.
    pub(crate) len: Option<u64>,
}

impl What {
    /// Why it failed.
    pub(crate) fn failure(&self, key: &Key, data_at: u64, error: ringbolt_disk::Error) -> Error {
        match self {
            Self::Write { offset, buffer } => {
                let done = error.offset.map_or(0, |at| at.saturating_sub(data_at + offset));
                failure::of_blob(Code::BlobWriteFailed, "writing", key, error).with(|details| {
                    details.offset = Some(*offset);
                    details.length = Some(buffer.len() as u64);
                    details.bytes_done = Some(done);
                })
            }
            Self::Resize { length } => failure::of_blob(Code::BlobResizeFailed, "resizing", key, error)
                .with(|details| details.length = Some(*length)),
        }
    }
}

/// Take what goes next, in one job: the first, and those behind it that wish for the same, up to the bounds.
pub(crate) fn take_batch(changes: &mut VecDeque<Change>) -> Vec<Change> {
    if planted::is(Bug::ChangesInAnyOrder) {
        changes.make_contiguous().reverse();
    }
    let mut batch: Vec<Change> = Vec::new();
    let mut bytes = 0;
    while let Some(next) = changes.front() {
        let weight = match &next.what {
            What::Write { buffer, .. } => buffer.len(),
            What::Resize { .. } => 0,
        };
        let joins = batch.first().is_none_or(|first| {
            (first.sync, first.cached) == (next.sync, next.cached)
                && batch.len() < BATCH_MAX
                && bytes + weight <= BATCH_BYTES_MAX
        });
        if !joins {
            break;
        }
        bytes += weight;
        batch.extend(changes.pop_front());
    }
    batch
}

/// Make changes one after another, then flush where that is wished. One that fails does not keep the others from being
/// made.
pub(crate) fn make(fs: &dyn Fs, file: &File, data_at: u64, batch: Vec<Change>, with_flush: bool) -> Changed {
    let make = |change: &Change| match &change.what {
        What::Write { offset, buffer } if change.cached => fs.write_at(file, data_at + offset, buffer),
        What::Write { offset, buffer } => fs.write_uncached_at(file, data_at + offset, buffer),
        What::Resize { length } => fs.set_len(file, data_at + length),
    };
    let end = |change| {
        let result = make(&change);
        let len = if result.is_err() { fs.len(file).ok() } else { None };
        End { change, result, len }
    };
    let ends = batch.into_iter().map(end).collect();
    Changed { ends, flushed: with_flush.then(|| fs.sync(file)) }
}
