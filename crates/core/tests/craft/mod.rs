//! Logs written by hand, frame by frame, with the format's own functions: what no run of the log would leave
//! behind, or not so exactly. And what opening one may answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringbolt_core::format::frame::{self, HEADER_BYTES, Place, Stamp};
use ringbolt_core::format::head::{Head, State};
use ringbolt_core::format::segment::Header;
use ringbolt_core::format::{GRAIN, HEAD_NAME, LOCK_NAME, LogId, crc32c, segment_name};
use ringbolt_core::wal::{Options, Recovery};
use ringbolt_core::{Code, Error};
use ringbolt_disk::Buffer;
use ringbolt_disk::sim::Sim;

use crate::support::{self, DIRECTORY, Log};

pub(crate) const LOG_ID: LogId = LogId(*b"written by hand.");
pub(crate) const SEGMENT_BYTES: u64 = 32 << 10;

/// A log in the making.
#[derive(Clone, Debug)]
pub(crate) struct Craft {
    pub(crate) head: Head,
    /// What the next frame says; each frame moves it on. A seal's durable LSN is what it has to be.
    pub(crate) next: Stamp,
    /// The segments, whole, by number.
    pub(crate) segments: BTreeMap<u64, Vec<u8>>,
    /// Where the next frame goes.
    pub(crate) place: (u64, u64),
}

impl Craft {
    /// Segment 1 and HEAD of a log that was just made.
    pub(crate) fn new() -> Self {
        Self::from_segment(1, 1)
    }

    /// A log truncated so far that it begins with this segment and this LSN.
    pub(crate) fn from_segment(number: u64, first_lsn: u64) -> Self {
        let head = Head {
            state: State::Open,
            log_id: LOG_ID,
            oldest_segment: number,
            first_lsn,
            proven_lsn: first_lsn - 1,
            incarnation: 1,
        };
        let durable_lsn = first_lsn - 1;
        let next = Stamp { first_lsn, durable_lsn, previous_crc: 0, incarnation: 1, wall_clock: 0 };
        let mut log = Self { head, next, segments: BTreeMap::new(), place: (number, GRAIN) };
        log.segment(number);
        log
    }

    /// Add a segment without frames.
    pub(crate) fn segment(&mut self, number: u64) {
        let mut bytes = Header { log_id: LOG_ID, number, bytes: SEGMENT_BYTES }.encode().to_vec();
        bytes.resize(SEGMENT_BYTES as usize, 0);
        self.segments.insert(number, bytes);
    }

    /// A batch of so many records. Returns its offset.
    pub(crate) fn batch(&mut self, count: u32) -> u64 {
        let (number, offset) = self.place;
        let lsns = self.next.first_lsn..self.next.first_lsn + u64::from(count);
        let mut buffer = Buffer::with_capacity(SEGMENT_BYTES as usize);
        frame::begin(&mut buffer);
        lsns.clone().for_each(|lsn| frame::push_record(&mut buffer, &record(lsn)));
        let place = Place { log_id: &LOG_ID, segment: number, offset };
        self.next.previous_crc = frame::finish(&mut buffer, count, self.next, place);
        self.next.first_lsn = lsns.end;
        buffer.pad_to_grain();
        self.bytes(number)[offset as usize..][..buffer.len()].copy_from_slice(&buffer);
        self.place.1 += buffer.len() as u64;
        offset
    }

    /// A seal, and the segment after it. Returns its offset.
    pub(crate) fn seal(&mut self) -> u64 {
        let (number, offset) = self.place;
        self.next.durable_lsn = self.next.first_lsn - 1;
        let place = Place { log_id: &LOG_ID, segment: number, offset };
        let (bytes, crc) = frame::seal(self.next, place);
        self.next.previous_crc = crc;
        self.bytes(number)[offset as usize..][..HEADER_BYTES].copy_from_slice(&bytes);
        self.segment(number + 1);
        self.place = (number + 1, GRAIN);
        offset
    }

    /// The bytes of a segment.
    pub(crate) fn bytes(&mut self, number: u64) -> &mut Vec<u8> {
        self.segments.get_mut(&number).expect("the segment is there")
    }

    /// Spoil the payload of the frame at this place.
    pub(crate) fn spoil(&mut self, number: u64, offset: u64) {
        self.bytes(number)[offset as usize + HEADER_BYTES] ^= 1;
    }

    /// Change fields of the frame header at this place, by hand, and sign it again.
    pub(crate) fn forge(&mut self, number: u64, offset: u64, at: usize, field: &[u8]) {
        let header = &mut self.bytes(number)[offset as usize..][..HEADER_BYTES];
        header[at..at + field.len()].copy_from_slice(field);
        let mut covered = header[8..].to_vec();
        covered.extend(LOG_ID.0);
        covered.extend(number.to_le_bytes());
        covered.extend(offset.to_le_bytes());
        header[4..8].copy_from_slice(&crc32c(&covered).to_le_bytes());
    }

    /// A machine with this log.
    pub(crate) fn machine(&self) -> Sim {
        let sim = self.machine_without_head();
        sim.write_file(file(HEAD_NAME), self.head.encode());
        sim
    }

    pub(crate) fn machine_without_head(&self) -> Sim {
        let sim = Sim::new(1);
        for (&number, bytes) in &self.segments {
            sim.write_file(segment(number), bytes);
        }
        sim
    }
}

/// The record of an LSN: no two are alike, some are empty, and a few of them take several grains.
pub(crate) fn record(lsn: u64) -> Vec<u8> {
    (0..lsn * 977 % 1500).map(|at| (at * 31 + lsn * 7) as u8 | 1).collect()
}

/// Change fields of a header that has its checksum at 8 (HEAD, a segment's), and sign it again.
pub(crate) fn forge_header(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c(&bytes[12..HEADER_BYTES]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// A file of the log.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

pub(crate) fn segment(number: u64) -> PathBuf {
    file(&segment_name(number))
}

pub(crate) fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..support::options() }
}

/// Every file but LOCK, the one that a refused open may touch.
pub(crate) fn files(sim: &Sim) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = sim.snapshot();
    files.remove(&file(LOCK_NAME));
    files
}

/// Open a log that must be refused so, and see that no byte of it was changed.
pub(crate) fn refused_with(sim: &Sim, options: Options, code: Code) -> Error {
    let before = files(sim);
    let error = match Log::open(sim, options) {
        Ok(log) => panic!("opened, expected {}: {:?}", code.as_str(), log.recovery()),
        Err(error) => error,
    };
    assert_eq!(error.code, code, "{error:?}");
    assert!(files(sim) == before, "a refused open changed the log: {error:?}");
    error
}

pub(crate) fn refused(sim: &Sim, code: Code) -> Error {
    refused_with(sim, options(), code)
}

/// Open a log that must hold the records `first..=last`.
pub(crate) fn opened(sim: &Sim, first: u64, last: u64) -> Recovery {
    let log = Log::open(sim, options()).unwrap_or_else(|error| panic!("refused: {error:?}"));
    assert_eq!(log.last_lsn(), last, "{:?}", log.recovery());
    assert_eq!(log.recovery().records, last + 1 - first);
    let expected: Vec<_> = (first..=last).map(record).collect();
    assert!(log.read(first).expect("what open has checked can be read") == expected, "other records");
    log.recovery()
}
