//! What a log counts.

use std::time::Duration;

use ringbolt_disk::Time;

/// Figures since open, kept by the log's thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) runs: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// As the queue counts them.
    pub(crate) queue_bytes: u64,
    pub(crate) batches: u64,
    pub(crate) syncs: u64,
    pub(crate) rotations: u64,
    pub(crate) errors: u64,
    /// From accept to acknowledgement, each for so many records, since they were last taken.
    pub(crate) latencies: Vec<(Duration, u32)>,
}

impl Counters {
    /// Count runs that are acknowledged now. A run without records is only the beginning of one.
    pub(crate) fn acknowledge(&mut self, now: Time, runs: &[(Time, u32)]) {
        let whole = runs.iter().filter(|&&(_, count)| count > 0);
        let before = self.latencies.len();
        self.latencies.extend(whole.map(|&(accepted, count)| (now.since(accepted), count)));
        self.runs += (self.latencies.len() - before) as u64;
    }
}
