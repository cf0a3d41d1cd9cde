//! The write-ahead log.

pub mod handle;
