//! Who joins a batch, and when it closes. A batch becomes one write: of one frame, whose records are all there
//! after a crash or none, or of entries.

use std::collections::VecDeque;

use ringbolt_disk::{Buffer, Pool, Time};

use crate::format::frame::{self, HEADER_BYTES, RECORD_PREFIX_BYTES};
use crate::format::{entry, frame_bytes_max};
use crate::wal::handle::{Format, Options, Records, Run};

/// A batch takes no further run once its payload would pass this. Larger runs travel alone; what queues up
/// behind a busy disk becomes several frames, so that they overlap.
pub(crate) const BATCH_BYTES_TARGET: usize = Pool::CAPACITY_MAX - HEADER_BYTES;

/// A batch begins with room for this much and grows by doubling, so a lone small record costs little memory.
const BATCH_BYTES_FIRST: usize = 16 << 10;

/// How records lie in a batch, which is how they go to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One frame of at most so many bytes: a run is in it whole, each record behind its length.
    Frame {
        /// With header and padding.
        bytes_max: u64,
    },
    /// Entries of the key-value log, back to back, of at most so many bytes unless there is only one. A run that is
    /// longer goes on in the next batch: this format has nothing that would hold it together.
    Entries {
        /// With what stands before and behind each body.
        bytes_max: usize,
    },
}

impl Layout {
    /// Of a log with these options.
    pub(crate) fn of(options: &Options) -> Self {
        match options.format {
            Format::Segments => Self::Frame { bytes_max: frame_bytes_max(options.segment_bytes) },
            Format::Entries { file_bytes_max, .. } => {
                Self::Entries { bytes_max: ENTRIES_BYTES_MAX.min(file_bytes_max as usize) }
            }
        }
    }

    /// What stands before the first record.
    const fn header_bytes(self) -> usize {
        match self {
            Self::Frame { .. } => HEADER_BYTES,
            Self::Entries { .. } => 0,
        }
    }

    /// What records up to the end of a batch may have.
    fn payload_bytes_max(self) -> usize {
        match self {
            Self::Frame { bytes_max } => (bytes_max as usize - HEADER_BYTES).min(BATCH_BYTES_TARGET),
            Self::Entries { bytes_max } => bytes_max,
        }
    }
}

/// One write of the key-value log has at most so many bytes, or one record (format: a bad record further than this
/// before a good one cannot be the mark of one torn write).
pub(crate) const ENTRIES_BYTES_MAX: usize = Pool::CAPACITY_MAX;

/// Records on their way into one write, already in the memory that the kernel will be shown: room for the
/// frame's header where there is one, then the payload as the file holds it.
#[derive(Debug)]
pub(crate) struct Batch {
    layout: Layout,
    pub(crate) buffer: Buffer,
    pub(crate) first_lsn: u64,
    pub(crate) count: u32,
    /// Bytes of records, without what stands around them.
    pub(crate) record_bytes: u64,
    /// What the queue counts for them, see [`queue_bytes`].
    pub(crate) queue_bytes: u64,
    /// Whether somebody waits for it to be durable.
    pub(crate) durable: bool,
    /// Whether the first record is not the first of its run: a part of the run went before.
    pub(crate) is_continued: bool,
    /// When each run was accepted, and its number of records: for the latency figures. A run that goes on in the next
    /// batch counts there, and has no records here.
    pub(crate) runs: Vec<(Time, u32)>,
}

impl Batch {
    fn new(pool: &Pool, layout: Layout, first_lsn: u64, payload_bytes: usize) -> Self {
        let mut buffer = pool.take((layout.header_bytes() + payload_bytes).max(BATCH_BYTES_FIRST));
        if matches!(layout, Layout::Frame { .. }) {
            frame::begin(&mut buffer);
        }
        Self {
            layout,
            buffer,
            first_lsn,
            count: 0,
            record_bytes: 0,
            queue_bytes: 0,
            durable: false,
            is_continued: false,
            runs: Vec::new(),
        }
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.buffer.len() - self.layout.header_bytes()
    }

    pub(crate) fn last_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.count) - 1
    }

    /// The frame's length on disk: header, payload, padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame::padded_bytes(self.payload_bytes() as u64)
    }

    /// Whether `payload_bytes` more may join.
    fn has_room(&self, payload_bytes: usize) -> bool {
        self.payload_bytes() + payload_bytes <= self.layout.payload_bytes_max()
    }

    /// Copy a run in, as a frame holds it.
    fn push_frame(&mut self, pool: &Pool, records: Records<'_>, queue_bytes: u64) {
        self.reserve(pool, payload_bytes(records));
        let before = self.payload_bytes();
        match records {
            Records::Staged { bytes, .. } => self.buffer.extend(bytes),
            Records::Apart(records) => {
                for record in records {
                    frame::push_record(&mut self.buffer, record);
                }
            }
        }
        let count = count(records);
        self.count += count;
        self.queue_bytes += queue_bytes;
        self.record_bytes +=
            (self.payload_bytes() - before) as u64 - u64::from(count) * RECORD_PREFIX_BYTES as u64;
    }

    /// Copy one entry in, as the file holds it but for its checksum.
    fn push_entry(&mut self, pool: &Pool, body: &[u8]) {
        self.reserve(pool, entry::record_bytes(body.len()));
        let sequence = self.first_lsn + u64::from(self.count) - 1;
        entry::push(&mut self.buffer, sequence, body);
        self.count += 1;
        self.queue_bytes += body.len() as u64;
        self.record_bytes += body.len() as u64;
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

/// Batches not yet taken: the newest is still open for more.
#[derive(Debug)]
pub(crate) struct Batches {
    layout: Layout,
    waiting: VecDeque<Batch>,
}

impl Batches {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, waiting: VecDeque::new() }
    }

    /// Copy a run in, behind what waits; the queue counts so much for it. The one copy on this floor.
    pub(crate) fn push(&mut self, pool: &Pool, run: &Run<'_>, queue_bytes: u64, now: Time) {
        match self.layout {
            Layout::Frame { .. } => {
                let batch = self.with_room(pool, run.first_lsn, payload_bytes(run.records));
                batch.push_frame(pool, run.records, queue_bytes);
                batch.durable |= run.durable;
            }
            Layout::Entries { .. } => {
                for (lsn, body) in (run.first_lsn..).zip(each(run.records)) {
                    let batches = self.waiting.len();
                    self.with_room(pool, lsn, entry::record_bytes(body.len()));
                    if lsn > run.first_lsn && self.waiting.len() > batches {
                        self.waiting[batches].is_continued = true;
                        self.waiting[batches - 1].runs.push((now, 0));
                    }
                    let batch = self.waiting.back_mut().expect("it has room");
                    batch.push_entry(pool, body);
                    batch.durable |= run.durable;
                }
            }
        }
        let last = self.waiting.back_mut().expect("a run holds at least one record");
        last.runs.push((now, count(run.records)));
    }

    /// The newest batch where it has room for so much, else one more.
    fn with_room(&mut self, pool: &Pool, first_lsn: u64, payload_bytes: usize) -> &mut Batch {
        if !self.waiting.back().is_some_and(|batch| batch.has_room(payload_bytes)) {
            self.waiting.push_back(Batch::new(pool, self.layout, first_lsn, payload_bytes));
        }
        self.waiting.back_mut().expect("there is one, or it was just made")
    }

    /// The oldest, with what it holds.
    pub(crate) fn pop(&mut self) -> Option<Batch> {
        self.waiting.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// When the oldest run of all was accepted.
    pub(crate) fn oldest_run(&self) -> Option<Time> {
        self.waiting.front()?.runs.first().map(|&(accepted, _)| accepted)
    }
}

/// The records of a run, one by one.
pub(crate) fn each(records: Records<'_>) -> impl Iterator<Item = &[u8]> {
    let (staged, apart) = match records {
        Records::Staged { count, bytes } => (frame::records(bytes, count).ok(), None),
        Records::Apart(records) => (None, Some(records.iter().copied())),
    };
    staged.into_iter().flatten().chain(apart.into_iter().flatten())
}

/// The payload a run makes in a frame: its records and their prefixes.
pub(crate) fn payload_bytes(records: Records<'_>) -> usize {
    match records {
        Records::Staged { bytes, .. } => bytes.len(),
        Records::Apart(records) => records.iter().map(|record| RECORD_PREFIX_BYTES + record.len()).sum(),
    }
}

/// What a run counts for in the queue: the bytes of its records, an empty one as one byte. So the bound on bytes
/// bounds their number too.
///
/// # Panics
/// Where staged bytes are not the records they should be: a mistake of the caller, which must not reach the disk.
pub(crate) fn queue_bytes(records: Records<'_>) -> u64 {
    let weight = |record: &[u8]| record.len().max(1) as u64;
    match records {
        Records::Staged { count, bytes } => {
            let mut sum = 0;
            let walked = frame::walk(bytes, count, |record| sum += weight(record));
            assert!(walked.is_ok(), "the staged bytes are {count} records: {walked:?}");
            sum
        }
        Records::Apart(records) => records.iter().copied().map(weight).sum(),
    }
}

/// The number of records in a run.
pub(crate) fn count(records: Records<'_>) -> u32 {
    match records {
        Records::Staged { count, .. } => count,
        Records::Apart(records) => records.len() as u32,
    }
}
