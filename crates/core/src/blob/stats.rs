//! What a store counts.

use std::time::Duration;

use crate::latency::Latency;

/// Figures since open, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads that succeeded, those in place from the page cache included.
    pub reads: u64,
    /// The bytes they read.
    pub read_bytes: u64,
    /// How many of the reads were served in place from the page cache.
    pub cached_reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// The bytes they wrote.
    pub write_bytes: u64,
    /// Flushes of blobs that were asked for and succeeded, those of durable writes included.
    pub syncs: u64,
    /// Flushes that the disk was asked for to that end: fewer, as one answers for all who wait.
    pub flushes: u64,
    /// Resizes that succeeded.
    pub resizes: u64,
    /// Calls of any kind that failed.
    pub errors: u64,
    /// Handles that are open.
    pub open_blobs: u64,
    /// Calls that are not answered yet.
    pub pending: u64,
    /// Since when the oldest of them waits.
    pub oldest_pending: Duration,
    /// How many operations may be at the disk at a time.
    pub queue_depth: u64,
    /// From call to answer, of reads that went to the disk.
    pub read_latency: Latency,
    /// From call to answer, of writes that are not durable by themselves.
    pub write_latency: Latency,
    /// From call to answer, of syncs and durable writes.
    pub sync_latency: Latency,
}
