//! The middle floor: what the bytes on disk are, in which order they get there, when they count as durable,
//! and what is left of them after a crash. No system call, no file descriptor, no JavaScript type.
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@format`] | one layout a file: diagram, encode, decode; pure functions |
//! | [`mod@wal`] | the log: a pure state machine, its recovery, its service |
//! | [`mod@error`] | one code per case |

#![forbid(unsafe_code)]

pub mod error;
pub mod format;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
pub mod wal;

pub use error::{Code, Error, Result};
