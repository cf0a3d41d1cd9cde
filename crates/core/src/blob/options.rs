//! How a store is opened.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::format::blob::Layout;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is; an absolute path.
    pub directory: PathBuf,
    /// Whether to make it, and its missing parents, where there is none.
    pub create: bool,
    /// The layout of blobs made from now on. Those that are there keep theirs.
    pub layout: Layout,
    /// How many operations may be at the disk at a time; the rest waits.
    pub queue_depth: usize,
    /// How long to try for the store's lock, and for that of a blob's file.
    pub lock_timeout: Duration,
    /// Permission bits of files made from now on, less the umask; directories get the matching x bits.
    pub file_mode: u32,
}

impl Options {
    /// The defaults, for the store in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            create: true,
            layout: Layout::V1,
            queue_depth: 64,
            lock_timeout: Duration::from_millis(250),
            file_mode: 0o600,
        }
    }
}
