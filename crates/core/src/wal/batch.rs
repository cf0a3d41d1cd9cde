//! Who joins a batch, and when it closes. A batch becomes one frame: after a crash all of its records are
//! there or none.

use ringbolt_disk::{Buffer, Pool, Time};

use crate::format::frame::{self, HEADER_BYTES, RECORD_PREFIX_BYTES};
use crate::wal::handle::Records;

/// A batch takes no further run once its payload would pass this. Larger runs travel alone; what queues up
/// behind a busy disk becomes several frames, so that they overlap.
pub(crate) const BATCH_BYTES_TARGET: usize = Pool::CAPACITY_MAX - HEADER_BYTES;

/// A batch begins with room for this much and grows by doubling, so a lone small record costs little memory.
const BATCH_BYTES_FIRST: usize = 16 << 10;

/// Records on their way into one frame, already in the memory that the kernel will be shown: room for the
/// frame's header, then the payload as the frame holds it.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) buffer: Buffer,
    pub(crate) first_lsn: u64,
    pub(crate) count: u32,
    /// Bytes of records, without their prefixes.
    pub(crate) record_bytes: u64,
    /// What the queue counts for them, see [`queue_bytes`].
    pub(crate) queue_bytes: u64,
    /// Whether somebody waits for it to be durable.
    pub(crate) durable: bool,
    /// When each run was accepted, and its number of records: for the latency figures.
    pub(crate) runs: Vec<(Time, u32)>,
}

impl Batch {
    pub(crate) fn new(pool: &Pool, first_lsn: u64, payload_bytes: usize) -> Self {
        let mut buffer = pool.take((HEADER_BYTES + payload_bytes).max(BATCH_BYTES_FIRST));
        frame::begin(&mut buffer);
        Self {
            buffer,
            first_lsn,
            count: 0,
            record_bytes: 0,
            queue_bytes: 0,
            durable: false,
            runs: Vec::new(),
        }
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.buffer.len() - HEADER_BYTES
    }

    pub(crate) fn last_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.count) - 1
    }

    /// The frame's length on disk: header, payload, padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame::padded_bytes(self.payload_bytes() as u64)
    }

    /// Whether a run of `payload_bytes` may join without passing `payload_bytes_max`.
    pub(crate) fn has_room(&self, payload_bytes: usize, payload_bytes_max: usize) -> bool {
        self.payload_bytes() + payload_bytes <= payload_bytes_max.min(BATCH_BYTES_TARGET)
    }

    /// Copy a run in. The one copy on this floor.
    pub(crate) fn push(&mut self, pool: &Pool, records: Records<'_>, durable: bool, now: Time) {
        self.reserve(pool, payload_bytes(records));
        let before = self.payload_bytes();
        let count = match records {
            Records::Staged { count, bytes } => {
                self.buffer.extend(bytes);
                count
            }
            Records::Apart(records) => {
                for record in records {
                    frame::push_record(&mut self.buffer, record);
                }
                records.len() as u32
            }
        };
        self.count += count;
        self.queue_bytes += queue_bytes(records);
        self.record_bytes +=
            (self.payload_bytes() - before) as u64 - u64::from(count) * RECORD_PREFIX_BYTES as u64;
        self.durable |= durable;
        self.runs.push((now, count));
    }

    fn reserve(&mut self, pool: &Pool, more: usize) {
        let needed = self.buffer.len() + more;
        if needed > self.buffer.capacity() {
            let mut larger = pool.take(needed.max(2 * self.buffer.capacity()));
            larger.extend(&self.buffer);
            pool.give(std::mem::replace(&mut self.buffer, larger));
        }
    }
}

/// The payload a run makes: its records and their prefixes.
pub(crate) fn payload_bytes(records: Records<'_>) -> usize {
    match records {
        Records::Staged { bytes, .. } => bytes.len(),
        Records::Apart(records) => records.iter().map(|record| RECORD_PREFIX_BYTES + record.len()).sum(),
    }
}

/// What a run counts for in the queue: the bytes of its records, an empty one as one byte. So the bound on bytes
/// bounds their number too.
pub(crate) fn queue_bytes(records: Records<'_>) -> u64 {
    let bytes = |record: &[u8]| record.len().max(1) as u64;
    match records {
        Records::Staged { count, bytes: staged } => {
            frame::records(staged, count).into_iter().flatten().map(bytes).sum()
        }
        Records::Apart(records) => records.iter().map(|record| bytes(record)).sum(),
    }
}

/// The number of records in a run.
pub(crate) fn count(records: Records<'_>) -> u32 {
    match records {
        Records::Staged { count, .. } => count,
        Records::Apart(records) => records.len() as u32,
    }
}
