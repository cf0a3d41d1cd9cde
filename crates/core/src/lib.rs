//! The middle floor: what the bytes on disk are, in which order they get there, when they count as durable,
//! and what is left of them after a crash. No system call, no file descriptor, no JavaScript type.
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@format`] | one layout a file: diagram, encode, decode; pure functions |
//! | [`mod@wal`] | the log: a pure state machine, its recovery, its service |
//! | [`mod@blob`] | blobs: a pure state machine, what is done to names, the store |
//! | [`mod@error`] | one code per case |
//! | [`mod@planted`] | bugs on purpose, for tests; nothing without the feature of that name |

#![forbid(unsafe_code)]

pub mod blob;
mod directory;
pub mod error;
pub mod format;
mod latency;
mod lock;
mod panic;
pub mod planted;
pub mod wal;

pub use error::{Code, Error, Result};
pub use latency::Latency;
