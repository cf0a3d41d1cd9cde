//! One blob that is open: its file, what is being done to it, and what became of that.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use ringbolt_disk::File;

use crate::blob::calls::CallKey;
use crate::blob::change::Change;
use crate::blob::direct::Direct;
use crate::blob::flush::Flush;
use crate::blob::machine::data::UncachedRead;
use crate::blob::names::Key;
use crate::error::Error;

/// An open blob. All its handles share it, so there is one order of events for all of them.
///
/// * Changes are made one after another, in the order of the calls, many in one job; or side by side where they do not
///   concern each other ([`Direct`]). So the bytes and the size are what the calls made of them, also where nobody awaited
///   them.
/// * Reads wait for nobody. They see every change that was answered before they began.
/// * One flush at a time, for all who wait.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) key: Arc<Key>,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) uncached: Uncached,
    pub(crate) direct: Direct,
    /// Where the data begins in the file.
    pub(crate) data_at: u64,
    pub(crate) version: u16,
    /// Bytes of data, after every change that is over.
    pub(crate) size: u64,
    /// What waits to be changed, in the order of the calls.
    pub(crate) changes: VecDeque<Change>,
    /// Whether a job makes changes now; one at a time.
    pub(crate) is_changing: bool,
    /// Whether that job will flush, too.
    pub(crate) is_flushed_by_change: bool,
    pub(crate) flush: Flush<CallKey>,
    /// The first flush that failed. Only ever set once: what it was to make durable may be gone, and a flush that
    /// succeeds later does not bring it back (rule 2).
    pub(crate) failure: Option<Error>,
    /// Handles that are not closed, or have calls that are not answered.
    pub(crate) handles: usize,
    /// Whether it still has its name: `false` once it was removed through this store.
    pub(crate) is_named: bool,
}

impl Blob {
    /// How many changes are to be made, or to be flushed.
    pub(crate) fn waiting(&self) -> usize {
        self.changes.len() + self.direct.len() + self.flush.waiting()
    }
}

/// The same file once more, opened to be read and written past the page cache.
#[derive(Debug)]
pub(crate) enum Uncached {
    /// Nobody asked yet.
    Unknown,
    /// It is being opened; these wait for it, if any.
    Opening(Vec<UncachedRead>),
    /// Here it is.
    Open {
        file: File,
        /// Whether it holds the blob's lock along with the other. What is written to it by a process that is killed may land
        /// late, and is to be waited for (rule 8).
        is_locked: bool,
    },
    /// The file system does not take it, or the name leads elsewhere by now: the page cache serves.
    Refused,
}
