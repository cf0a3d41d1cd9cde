//! Positioned blob storage: named blobs in partitions, read and written at any offset, flushed when asked for.
//!
//! # The life of a read and of a write
//!
//! ```text
//!   caller's thread                                             threads of the engine
//!
//!   Store::request(id, Read | Write | …)
//!     │ lock
//!     ▼
//!   Machine ── which may begin? ──▶ Op ──▶ Engine::submit ─────▶ disk
//!                                                                 │
//!   Machine ◀── on_done ── lock ◀──────────────────────────────── Done
//!     │     └──▶ what may begin now, the flush it was written for … ──▶ Op ──▶ disk
//!     ▼
//!   Finished { id } ──▶ listener ──▶ whoever calls Store::take
//! ```
//!
//! The machine decides and never waits; the engine works and never decides. There is one machine a store, under one
//! lock that nobody holds while the disk works.
//!
//! # What holds
//!
//! 1. A request is answered once, whatever happens, and the memory of its buffer is let go of before that.
//! 2. Changes of one blob happen in the order of their calls. Reads wait for nobody, and see what was answered before
//!    they began.
//! 3. A flush answers for what was complete when it was submitted, and one runs at a time for each blob.
//! 4. After a flush failed the blob takes no change and no flush any more, through any handle, until it is removed or
//!    the store is opened again. Reads go on.
//! 5. A blob is answered for only when its file, its name and its partition's name are durable; a removal when the name
//!    is durably gone.
//! 6. What nobody flushed before its blob was closed is flushed by the next open, before it can be read.
//!
//! | module | what |
//! | --- | --- |
//! | `options` | how a store is opened |
//! | `names` | names of partitions and of blobs, and where they lie |
//! | `root` | the store's directory: made, locked, flushed |
//! | `partition` | what is done to names, as straight-line calls of the disk |
//! | `lane` | order where it matters |
//! | `flush` | one flush for all who wait |
//! | `file` | one open blob |
//! | `change` | changes of its bytes, many in one job |
//! | `direct` | durable writes past the page cache, side by side |
//! | `calls` | who waits for an answer, and the figures |
//! | `machine` | the state machine: `names` and `data` |
//! | `store` | the machine, its lock, its engine, its life |
//! | `turned` | a store without threads, for the crash tests |
//! | `failure` | the errors |

mod calls;
mod change;
mod direct;
mod failure;
mod file;
mod flush;
mod lane;
mod machine;
mod names;
mod options;
mod partition;
mod root;
mod stats;
mod store;
#[cfg(feature = "planted")]
mod turned;

use ringbolt_disk::Buffer;

pub use options::{Layout, Options};
pub use stats::Stats;
pub use store::{Listener, State, Store};
#[cfg(feature = "planted")]
pub use turned::Turned;

use crate::error::Result;

/// The largest offset of a byte, and the largest size: 2^53 - 1, what JavaScript's numbers hold exactly.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;

/// Something asked of a store.
#[derive(Debug)]
pub enum Request {
    /// Open a blob. Answered by [`Answer::Opened`].
    Open {
        /// The partition it is in.
        partition: String,
        /// Its name.
        name: Vec<u8>,
        /// The least and the largest version it may have; a new one gets the largest.
        versions: (u16, u16),
        /// Whether to make it, and its partition, where there is none.
        create: bool,
    },
    /// Remove a blob, or with no name a partition and all that is in it.
    Remove {
        /// The partition.
        partition: String,
        /// The blob's name.
        name: Option<Vec<u8>>,
    },
    /// List the blobs of a partition. Answered by [`Answer::Names`].
    Scan {
        /// The partition.
        partition: String,
    },
    /// List the partitions. Answered by [`Answer::Partitions`].
    Partitions,
    /// Do something to an open blob.
    Blob {
        /// The number of the handle that [`Answer::Opened`] gave out.
        blob: u32,
        /// What.
        work: BlobRequest,
    },
}

/// Something asked of an open blob.
#[derive(Debug)]
pub enum BlobRequest {
    /// Fill a buffer.
    Read {
        /// From where, in bytes.
        offset: u64,
        /// Its length is how much. One that is lent goes back to its lender before the answer.
        buffer: Buffer,
        /// Whether the page cache may keep what is read; `false` is a wish.
        cached: bool,
    },
    /// Write a buffer. What lies between the old end and the offset reads as zeros.
    Write {
        /// Where to, in bytes.
        offset: u64,
        /// What.
        buffer: Buffer,
        /// Whether to answer only once it is durable.
        sync: bool,
        /// Whether the page cache may keep what is written; `false` is a wish.
        cached: bool,
    },
    /// Cut or extend.
    Resize {
        /// To how many bytes.
        length: u64,
    },
    /// Make every change that was answered before durable.
    Sync,
    /// Close the handle, once the calls before it are answered.
    Close,
}

/// The end of a request.
#[derive(Debug)]
pub struct Finished {
    /// The request's number.
    pub id: u32,
    /// How it went.
    pub result: Result<Answer>,
}

/// What a request that succeeded came to.
#[derive(Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// The buffer is filled; one that was lent went back to its lender, and the answer is [`Answer::Done`].
    Read(Buffer),
    /// A blob is open.
    Opened {
        /// The handle's number.
        blob: u32,
        /// The blob's version.
        version: u16,
    },
    /// The names of the blobs in a partition, sorted by their bytes.
    Names(Vec<Vec<u8>>),
    /// The names of the partitions, sorted.
    Partitions(Vec<String>),
}
