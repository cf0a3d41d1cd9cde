//! The native log's bytes: what every decoder owes, and the files of version 1, which stay forever.

use proptest::prelude::*;
use ringbolt_core::format::frame::{self, Held, Kind, Place, Stamp};
use ringbolt_core::format::head::{Head, State};
use ringbolt_core::format::{GRAIN, LSN_MAX, LogId, Refusal, SEGMENT_BYTES_FLOOR, crc32c, segment};
use ringbolt_disk::Buffer;

const SEGMENT_BYTES: u64 = 64 << 10;

prop_compose! {
    fn any_head()(
        closed: bool,
        id: [u8; 16],
        oldest_segment in 1..=u64::MAX,
        proven_lsn in prop_oneof![0..=100_u64, 0..=LSN_MAX],
        first in any::<prop::sample::Index>(),
        incarnation in 1..=u32::MAX,
    ) -> Head {
        Head {
            state: if closed { State::Closed } else { State::Open },
            log_id: LogId(id),
            oldest_segment,
            first_lsn: first.index(usize::try_from(proven_lsn + 1).expect("64 bits")) as u64 + 1,
            proven_lsn,
            incarnation,
        }
    }
}

prop_compose! {
    fn any_segment_header()(
        id: [u8; 16],
        number in 1..=u64::MAX,
        grains in 4..=(1_u64 << 18),
    ) -> segment::Header {
        segment::Header { log_id: LogId(id), number, bytes: grains * GRAIN }
    }
}

/// A batch and where it is.
#[derive(Clone, Debug)]
struct Batch {
    log_id: LogId,
    segment: u64,
    offset: u64,
    stamp: Stamp,
    records: Vec<Vec<u8>>,
}

impl Batch {
    fn place(&self) -> Place<'_> {
        Place { log_id: &self.log_id, segment: self.segment, offset: self.offset }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.records.len()).expect("a test's batch is small")
    }

    /// The whole frame, padded.
    fn bytes(&self) -> Buffer {
        let payload: usize =
            self.records.iter().map(|record| frame::RECORD_PREFIX_BYTES + record.len()).sum();
        let mut bytes =
            Buffer::with_capacity(usize::try_from(frame::padded_bytes(payload as u64)).expect("64 bits"));
        frame::begin(&mut bytes);
        for record in &self.records {
            frame::push_record(&mut bytes, record);
        }
        frame::finish(&mut bytes, self.count(), self.stamp, self.place());
        bytes.pad_to_grain();
        bytes
    }
}

prop_compose! {
    fn any_batch()(
        id: [u8; 16],
        segment in 1..=u64::MAX,
        grain in 1..=10_u64,
        first_lsn in prop_oneof![1..100_u64, 1..=LSN_MAX - 10],
        durable in any::<prop::sample::Index>(),
        previous_crc: u32,
        incarnation in 1..=u32::MAX,
        wall_clock: u64,
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..8),
    ) -> Batch {
        let durable_lsn = durable.index(usize::try_from(first_lsn).expect("64 bits")) as u64;
        let stamp = Stamp { first_lsn, durable_lsn, previous_crc, incarnation, wall_clock };
        Batch { log_id: LogId(id), segment, offset: grain * GRAIN, stamp, records }
    }
}

/// Whether nothing in the bytes was believed.
fn is_not_whole(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotWhole { .. })
}

/// The payload behind a header, as far as it is there.
fn payload<'a>(held: &Held, frame: &'a [u8]) -> &'a [u8] {
    let rest = frame.get(frame::HEADER_BYTES..).unwrap_or_default();
    &rest[..rest.len().min(held.header.payload_bytes as usize)]
}

proptest! {
    #[test]
    fn head_is_read_back_and_every_flipped_bit_and_every_prefix_is_refused(head in any_head()) {
        let bytes = head.encode();
        prop_assert_eq!(Head::decode(&bytes), Ok(head));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = Head::decode(&flipped).is_err_and(|refusal| is_not_whole(&refusal));
            prop_assert!(refused, "bit {}", bit);
        }
        for length in 0..bytes.len() {
            let refused = Head::decode(&bytes[..length]).is_err_and(|refusal| is_not_whole(&refusal));
            prop_assert!(refused, "length {}", length);
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        let refused = Head::decode(&longer).is_err_and(|refusal| is_not_whole(&refusal));
        prop_assert!(refused);
    }

    #[test]
    fn a_segment_header_is_read_back_and_every_flipped_bit_and_every_prefix_is_refused(
        header in any_segment_header(),
    ) {
        let bytes = header.encode();
        prop_assert_eq!(segment::Header::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = segment::Header::decode(&flipped).is_err_and(|refusal| is_not_whole(&refusal));
            prop_assert!(refused, "bit {}", bit);
        }
        for length in 0..bytes.len() {
            let decoded = segment::Header::decode(&bytes[..length]);
            let refused = decoded.is_err_and(|refusal| is_not_whole(&refusal));
            prop_assert!(refused, "length {}", length);
        }
    }

    /// Goal: a checksum that holds is no licence. Method: overwrite anything behind HEAD's and the segment
    /// header's checksum, make the checksum hold, and compare what is accepted with what would be written.
    #[test]
    fn what_is_accepted_is_what_would_be_written(
        head in any_head(),
        header in any_segment_header(),
        at in 12..64_usize,
        bytes in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let forge = |mut whole: [u8; 64]| {
            let end = whole.len().min(at + bytes.len());
            whole[at..end].copy_from_slice(&bytes[..end - at]);
            let crc = crc32c(&whole[12..]);
            whole[8..12].copy_from_slice(&crc.to_le_bytes());
            whole
        };
        let forged = forge(head.encode());
        match Head::decode(&forged) {
            Ok(head) => prop_assert_eq!(head.encode(), forged),
            Err(refusal) => prop_assert!(!is_not_whole(&refusal), "{}", refusal),
        }
        let forged = forge(header.encode());
        match segment::Header::decode(&forged) {
            Ok(header) => prop_assert_eq!(header.encode(), forged),
            Err(refusal) => prop_assert!(!is_not_whole(&refusal), "{}", refusal),
        }
    }

    #[test]
    fn a_batch_is_read_back(batch in any_batch()) {
        let bytes = batch.bytes();
        let held = frame::Header::parse(&bytes, batch.place()).expect("it holds");
        prop_assert_eq!(held.check(batch.offset, SEGMENT_BYTES), Ok(()));
        prop_assert_eq!(held.header.kind, Kind::Batch);
        prop_assert_eq!(held.header.padded_end(batch.offset), Some(batch.offset + bytes.len() as u64));
        prop_assert_eq!(held.header.next_lsn(), batch.stamp.first_lsn + u64::from(batch.count()));
        let header = *bytes.first_chunk().expect("a header");
        prop_assert_eq!(held.header.encode(batch.place()), (header, held.crc));
        let records: Vec<_> = held.header.records(payload(&held, &bytes)).expect("whole").collect();
        prop_assert_eq!(records, batch.records);
    }

    /// Goal: no flipped bit of a frame is taken for another frame. Method: flip each bit of the header and
    /// some of the payload; the header must not hold, or the payload must not.
    #[test]
    fn every_flipped_bit_of_a_frame_is_refused(batch in any_batch(), some in any::<prop::sample::Index>()) {
        let mut bytes = batch.bytes();
        for bit in 0..frame::HEADER_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(frame::Header::parse(&bytes, batch.place()), None, "bit {}", bit);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let held = frame::Header::parse(&bytes, batch.place()).expect("it holds again");
        let bit = some.index(held.header.payload_bytes as usize * 8);
        bytes[frame::HEADER_BYTES + bit / 8] ^= 1 << (bit % 8);
        let records = held.header.records(payload(&held, &bytes));
        let refused = records.is_err_and(|refusal| is_not_whole(&refusal));
        prop_assert!(refused);
    }

    #[test]
    fn every_prefix_of_a_frame_is_refused(batch in any_batch()) {
        let bytes = batch.bytes();
        for length in 0..frame::HEADER_BYTES {
            prop_assert_eq!(frame::Header::parse(&bytes[..length], batch.place()), None, "length {}", length);
        }
        let held = frame::Header::parse(&bytes, batch.place()).expect("it holds");
        let end = frame::HEADER_BYTES + held.header.payload_bytes as usize;
        for length in (frame::HEADER_BYTES..end).step_by(13) {
            let cut = payload(&held, &bytes[..length]);
            let refused = held.header.records(cut).is_err_and(|refusal| is_not_whole(&refusal));
            prop_assert!(refused, "length {}", length);
        }
    }

    #[test]
    fn a_frame_holds_nowhere_but_in_its_place(
        batch in any_batch(), other: [u8; 16], segment: u64, offset: u64,
    ) {
        let bytes = batch.bytes();
        let place = batch.place();
        prop_assume!(LogId(other) != batch.log_id && segment != batch.segment && offset != batch.offset);
        prop_assert_eq!(frame::Header::parse(&bytes, Place { log_id: &LogId(other), ..place }), None);
        prop_assert_eq!(frame::Header::parse(&bytes, Place { segment, ..place }), None);
        prop_assert_eq!(frame::Header::parse(&bytes, Place { offset, ..place }), None);
        prop_assert_eq!(frame::Header::parse(&bytes, Place { offset: place.offset + GRAIN, ..place }), None);
    }

    /// Goal: arbitrary bytes never panic, and what is taken for records is exactly the payload. Method: both
    /// noise and near misses, whose lengths are small enough to be believed.
    #[test]
    fn records_of_arbitrary_bytes_are_an_exact_fit_or_refused(
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop_oneof![9 => Just(0_u8), 1 => 0..6_u8], 0..200),
        ],
        count in prop_oneof![0..50_u32, any::<u32>()],
    ) {
        if let Ok(records) = frame::records(&payload, count) {
            let mut written = Vec::new();
            let mut found = 0;
            for record in records {
                found += 1;
                written.extend(u32::try_from(record.len()).expect("short").to_le_bytes());
                written.extend(record);
            }
            prop_assert_eq!((written, found), (payload, count));
        }
    }

    #[test]
    fn arbitrary_bytes_panic_no_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200), offset: u64) {
        let place = Place { log_id: &LogId([0; 16]), segment: offset, offset };
        prop_assert_eq!(frame::Header::parse(&bytes, place), None);
        prop_assert!(Head::decode(&bytes).is_err() && segment::Header::decode(&bytes).is_err());
    }

    /// Goal: a header whose checksum holds and whose fields are anything is judged without a panic, and only
    /// one that could have been written passes. Method: fields at random, not through the encoder.
    #[test]
    fn any_header_that_holds_is_judged(
        kind: u8, payload_bytes: u32, first_lsn: u64, count in prop_oneof![0..3_u32, any::<u32>()],
        durable_lsn: u64, incarnation: u32, offset: u64, segment_bytes: u64,
    ) {
        let kind = match kind % 3 { 0 => Kind::Batch, 1 => Kind::Seal, _ => Kind::Unknown(kind) };
        let header = frame::Header {
            kind, payload_bytes, first_lsn, count, payload_crc: 0, durable_lsn, previous_crc: 0, incarnation,
            wall_clock: 0,
        };
        let held = Held { header, crc: 0, flags: 0, reserved: (0, 0) };
        let _ = (header.next_lsn(), header.last_lsn());
        if held.check(offset, segment_bytes).is_ok() {
            let end = header.padded_end(offset).expect("it lies in the segment");
            prop_assert!(end <= segment_bytes && header.next_lsn() <= LSN_MAX + 1);
            let _ = header.encode(Place { log_id: &LogId([0; 16]), segment: 1, offset: GRAIN });
        }
    }
}

#[test]
fn a_later_version_with_a_checksum_that_holds_is_unsupported() {
    let head = Head {
        state: State::Open,
        log_id: LogId([1; 16]),
        oldest_segment: 1,
        first_lsn: 1,
        proven_lsn: 0,
        incarnation: 1,
    };
    let header = segment::Header { log_id: LogId([1; 16]), number: 1, bytes: SEGMENT_BYTES_FLOOR };
    let later = |mut bytes: [u8; 64]| {
        bytes[12] = 2;
        let crc = crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    for refusal in [
        Head::decode(&later(head.encode())).expect_err("version 2"),
        segment::Header::decode(&later(header.encode())).expect_err("version 2"),
    ] {
        let expected =
            Refusal::Unsupported { what: "format version", found: "2".into(), expected: "1".into() };
        assert_eq!(refusal, expected);
    }
}

/// The files of `fixtures/log-v1`: what they hold, and that we still write the same bytes.
mod log_v1 {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const LOG_ID: LogId = LogId(*b"ringbolt log v1!");
    const HEAD: Head = Head {
        state: State::Closed,
        log_id: LOG_ID,
        oldest_segment: 1,
        first_lsn: 1,
        proven_lsn: 6,
        incarnation: 1,
    };
    /// 2026-01-01T00:00:00Z; each frame was written a second after the one before.
    const WALL_CLOCK: u64 = 1_767_225_600_000_000;

    fn directory() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/log-v1")
    }

    fn read(name: &str) -> Vec<u8> {
        fs::read(directory().join(name)).expect("a golden file is there")
    }

    /// 5000 bytes that are not all alike: longer than a grain.
    fn long_record() -> Vec<u8> {
        (0..5000_u32).map(|index| u8::try_from(index % 251).expect("below 251")).collect()
    }

    fn segment_header(number: u64) -> Vec<u8> {
        let mut grain = segment::Header { log_id: LOG_ID, number, bytes: SEGMENT_BYTES }.encode().to_vec();
        grain.resize(GRAIN as usize, 0);
        grain
    }

    fn batch(segment: u64, offset: u64, stamp: Stamp, records: &[&[u8]]) -> (Vec<u8>, u32) {
        let records = records.iter().map(|record| record.to_vec()).collect();
        let batch = Batch { log_id: LOG_ID, segment, offset, stamp, records };
        let bytes = batch.bytes();
        let crc = frame::Header::parse(&bytes, batch.place()).expect("it holds").crc;
        (bytes.to_vec(), crc)
    }

    /// Every file of the log, written anew.
    fn written() -> Vec<(&'static str, Vec<u8>)> {
        let stamp =
            Stamp { first_lsn: 1, durable_lsn: 0, previous_crc: 0, incarnation: 1, wall_clock: WALL_CLOCK };
        let mut first = segment_header(1);
        let (bytes, crc) = batch(1, 4096, stamp, &[b"hello", b"", b"ringbolt"]);
        first.extend(bytes);
        let stamp = Stamp { first_lsn: 4, previous_crc: crc, wall_clock: WALL_CLOCK + 1_000_000, ..stamp };
        let (bytes, crc) = batch(1, 8192, stamp, &[&long_record(), b"the last of its segment"]);
        first.extend(bytes);
        let stamp = Stamp {
            first_lsn: 6,
            durable_lsn: 5,
            previous_crc: crc,
            wall_clock: WALL_CLOCK + 2_000_000,
            ..stamp
        };
        let (bytes, crc) = frame::seal(stamp, Place { log_id: &LOG_ID, segment: 1, offset: 16384 });
        first.extend(bytes);

        let mut second = segment_header(2);
        let stamp = Stamp { previous_crc: crc, wall_clock: WALL_CLOCK + 3_000_000, ..stamp };
        second.extend(batch(2, 4096, stamp, &[b"across"]).0);
        vec![
            ("HEAD", HEAD.encode().to_vec()),
            ("wal-0000000000000001.seg", without_trailing_zeros(first)),
            ("wal-0000000000000002.seg", without_trailing_zeros(second)),
        ]
    }

    /// What is missing at a segment's end reads as zeros, so the golden files leave it out.
    fn without_trailing_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        bytes
    }

    #[test]
    fn golden_files_are_what_we_write() {
        for (name, bytes) in written() {
            assert!(read(name) == bytes, "{name} is not what we write: the format changed");
        }
    }

    #[test]
    fn golden_files_are_read() {
        let head = Head::decode(&read("HEAD")).expect("HEAD is whole");
        assert_eq!(head, HEAD);

        let mut records = Vec::new();
        let mut frames = Vec::new();
        let mut previous_crc = 0;
        for number in [1, 2] {
            let mut bytes = read(&ringbolt_core::format::segment_name(number));
            let header = segment::Header::decode(&bytes).expect("the header is whole");
            assert_eq!(header, segment::Header { log_id: head.log_id, number, bytes: SEGMENT_BYTES });
            bytes.resize(SEGMENT_BYTES as usize, 0);
            let mut offset = GRAIN;
            loop {
                let place = Place { log_id: &head.log_id, segment: number, offset };
                let bytes = &bytes[offset as usize..];
                let Some(found) = frame::Header::parse(bytes, place) else { break };
                assert_eq!(found.check(offset, header.bytes), Ok(()));
                let Held { header: frame, crc, .. } = found;
                assert_eq!(frame.previous_crc, previous_crc);
                assert_eq!(frame.first_lsn, records.len() as u64 + 1);
                assert_eq!(frame.wall_clock, WALL_CLOCK + frames.len() as u64 * 1_000_000);
                records.extend(frame.records(payload(&found, bytes)).expect("whole").map(<[u8]>::to_vec));
                frames.push((number, offset, frame.kind, frame.durable_lsn));
                previous_crc = crc;
                offset = frame.padded_end(offset).expect("checked");
            }
            assert!(bytes[offset as usize..].iter().all(|&byte| byte == 0));
        }
        let expected = [
            (1, 4096, Kind::Batch, 0),
            (1, 8192, Kind::Batch, 0),
            (1, 16384, Kind::Seal, 5),
            (2, 4096, Kind::Batch, 5),
        ];
        assert_eq!(frames, expected);
        let expected: [&[u8]; 6] =
            [b"hello", b"", b"ringbolt", &long_record(), b"the last of its segment", b"across"];
        assert_eq!(records, expected);
    }
}
