//! One blob that is open: its file, what is being done to it, and what became of that.

use std::path::PathBuf;
use std::sync::Arc;

use ringbolt_disk::File;

use crate::blob::calls::CallKey;
use crate::blob::flush::Flush;
use crate::blob::lane::{Lane, Scope};
use crate::blob::machine::data::{Change, UncachedRead};
use crate::blob::names::Key;
use crate::error::Error;

/// An open blob. All its handles share it, so there is one order of events for all of them.
///
/// * Changes wait for earlier changes of the same bytes; a resize waits for all, and all wait for it. So the bytes
///   and the size are what the calls made of them in their order, also where nobody awaited them.
/// * Reads wait for nobody. They see every change that was answered before they began.
/// * One flush at a time, for all who wait.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) key: Arc<Key>,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) uncached: Uncached,
    /// Where the data begins in the file.
    pub(crate) data_at: u64,
    pub(crate) version: u16,
    /// Bytes of data, after every change that is over.
    pub(crate) size: u64,
    pub(crate) changes: Lane<Extent, Change>,
    pub(crate) flush: Flush<CallKey>,
    /// The first flush that failed. Only ever set once: what it was to make durable may be gone, and a flush that
    /// succeeds later does not bring it back (rule 2).
    pub(crate) failure: Option<Error>,
    /// Handles that are not closed, or have calls that are not answered.
    pub(crate) handles: usize,
    /// Whether it still has its name: `false` once it was removed through this store.
    pub(crate) is_named: bool,
}

/// The same file once more, opened to be read past the page cache.
#[derive(Debug)]
pub(crate) enum Uncached {
    /// Nobody asked yet.
    Unknown,
    /// It is being opened; these wait for it.
    Opening(Vec<UncachedRead>),
    /// Here it is.
    Open(File),
    /// The file system does not take it, or the name leads elsewhere by now: the page cache serves.
    Refused,
}

/// The bytes that a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// From, and up to but without.
    Bytes(u64, u64),
    /// All, and how many there are.
    Whole,
}

impl Scope for Extent {
    fn waits_for(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Bytes(from, to), Self::Bytes(other_from, other_to)) => from < other_to && other_from < to,
            (Self::Whole, _) | (_, Self::Whole) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_same_bytes_wait_for_each_other_and_a_resize_waits_for_all() {
        let bytes = Extent::Bytes;
        assert!(bytes(0, 10).waits_for(&bytes(9, 20)) && bytes(9, 20).waits_for(&bytes(0, 10)));
        assert!(bytes(3, 4).waits_for(&bytes(0, 10)) && bytes(0, 10).waits_for(&bytes(3, 4)));
        assert!(!bytes(0, 10).waits_for(&bytes(10, 20)) && !bytes(10, 20).waits_for(&bytes(0, 10)));
        assert!(Extent::Whole.waits_for(&bytes(0, 1)) && bytes(0, 1).waits_for(&Extent::Whole));
        assert!(Extent::Whole.waits_for(&Extent::Whole));
    }
}
