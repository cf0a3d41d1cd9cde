//! The key-value log: the same service over files that amaters-core 0.2 reads and writes.
//!
//! # The life of an append
//!
//! ```text
//!    any thread                   the log's thread                                   the disk
//!
//!    Handle::submit ──copy──▶ mailbox ──accept──▶ Log ─ next: checksums ──▶ write at the file's end ─┐
//!                                                  │ ◀── on_done: written ───────────────────────────┘
//!                                                  │ next: flush ─────────▶ fdatasync ───────────────┐ one write
//!                                                  │ ◀── on_done: durable ───────────────────────────┘ at a time
//!    Handle::status ◀── publish ── durable LSN ────┤
//!                                                  └ next: SYNCED ────────▶ 32 bytes, in place, not synced
//! ```
//!
//! The format has no frame that would say what was durable before it, and no header to tell a torn write from rot. So
//! one write, of at most 1 MiB or one record, is at the disk at a time and is synced before the next; and a file
//! beside the log, SYNCED, says how far that has come. It is written only after a sync, so it never claims too much,
//! and synced only where that costs nobody anything: at a rotation, a truncation, after a second without work, at
//! close.
//!
//! # Numbers
//!
//! An entry's sequence counts from 0, an LSN from 1: **the LSN of an entry is its sequence plus one**, everywhere in
//! this crate: in the handle, its watermarks, [`Chunk::first_lsn`](crate::wal::Chunk), [`Report`] and in
//! [`Details`](crate::error::Details). Only messages speak of sequences. What is called a segment elsewhere is here a
//! file, numbered from 0.
//!
//! # Invariants
//!
//! 1. One write is at the disk, and it is durable before the next is submitted. (`Log::next_write`)
//! 2. SYNCED names a place only once everything before it is durable. (`Log::settled`)
//! 3. The file that records go into is the last one, and every file before it is durable. (`Log::next_rotation`)
//! 4. Files go from the front, one by one, each removal durable before the next; the newest that holds a record stays,
//!    so the next sequence is never lost. (`Log::next_removal`)
//! 5. After a failure no watermark moves and nothing more is submitted. (`Log::fail`)

mod finding;
mod log;
mod mark;
mod names;
mod reader;
mod recovery;
mod requests;
mod salvage;
mod scan;
mod search;
mod verify;
mod write;

use std::path::Path;
use std::sync::Arc;

use ringbolt_disk::Fs;

pub(crate) use self::log::Log;
pub(crate) use self::reader::{Reader, truncated};
pub(crate) use self::recovery::{Recovered, recover};
pub use self::salvage::Salvage;
use crate::error::Result;
use crate::wal::handle::Sequences;
use crate::wal::reader::Source;
use crate::wal::report::Report;

/// The name and number of a file of the log.
pub(crate) use self::scan::LogFile;

/// Read the records `from..=to` (LSNs: sequences plus one; from the first there is, where `from` is `None`) of the log
/// in `directory`, without its lock and without changing a byte, also while another process appends, rotates and truncates. Records come as entries' bodies, in the
/// order of the files; with [`Sequences::Any`] a chunk ends where the next sequence does not follow.
///
/// The newest records of a log that is being written may not be durable yet; one that is not whole yet ends the read.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND` where there is no log, `ERR_WAL_TRUNCATED` where `from` is below its first record,
/// `ERR_WAL_UNSUPPORTED` for what only looks like a log's file, `ERR_WAL_IO`. The source itself ends in
/// `ERR_WAL_DAMAGED` at damage, behind everything before it.
pub fn read(
    fs: Arc<dyn Fs>,
    directory: impl AsRef<Path>,
    sequences: Sequences,
    from: Option<u64>,
    to: u64,
) -> Result<Box<dyn Source>> {
    Ok(Box::new(Reader::of_directory(fs, directory.as_ref(), sequences, from, to)?))
}

/// Check every byte of the log in `directory`, without its lock and without changing one. Damage is no error: the
/// report names each place. In it `segments` and `segment` are files and their numbers, LSNs are sequences plus one.
///
/// `progress` hears the bytes read so far and in all; an error that it returns ends the check.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND` where there is no log, `ERR_WAL_IO` where the disk will not read, what `progress` returns.
pub fn verify(
    fs: &dyn Fs,
    directory: impl AsRef<Path>,
    sequences: Sequences,
    progress: &dyn Fn(u64, u64) -> Result<()>,
) -> Result<Report> {
    verify::verify(fs, directory.as_ref(), sequences, progress)
}

/// Every intact record of the log in `directory`, in the order of the files, whatever lies between them. Nothing is
/// locked, nothing is changed. Each chunk's LSNs are its entries' sequences plus one, and a chunk ends where the next
/// sequence does not follow: what is missing between two chunks is lost.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND` where there is no log. The source itself answers `ERR_WAL_IO` where the disk will not read.
pub fn salvage(fs: Arc<dyn Fs>, directory: impl AsRef<Path>) -> Result<Salvage> {
    Salvage::new(fs, directory.as_ref())
}
