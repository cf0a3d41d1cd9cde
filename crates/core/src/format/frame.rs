//! One batch of records, or the seal at the end of a segment.
//!
//! ```text
//!      offset, on a grain                                    padded end, on a grain
//!      │                                                               │
//!      ▼                                                               ▼
//!      ┌────────────────┬──────┬──────────┬──────┬────────┬────────────┬───────────
//!      │ header, 64 B   │ u32  │ record   │ u32  │ record │ zeros,     │ the next
//!      │                │ len  │          │ len  │        │ not read   │ header
//!      └────────────────┴──────┴──────────┴──────┴────────┴────────────┴───────────
//!                       └───────── payload ───────────────┘
//! ```
//!
//! # What a checksum proves
//!
//! The header's checksum covers, besides the header, *where it is*: log, segment and offset. So a header
//! that holds was written by this log for this place, and not by a user whose record looks like a frame, by
//! a file restored from elsewhere, or by a disk that put a block in the wrong spot. That is what lets
//! recovery look for proof of damage anywhere behind a bad frame, and believe what it finds.
//!
//! The payload has a checksum of its own. A payload that rotted leaves the header readable, and with it the
//! frame's end; a length that rotted fails with the header and never sizes an allocation.
//!
//! # What is left to the caller
//!
//! [`Header::parse`] answers whether a header holds, and [`Held::check`] whether it agrees with itself. What
//! takes a neighbour (LSN follows LSN, checksum follows checksum, the incarnation does not fall) is for the
//! reader of the log to compare. The incarnation comes first there: a header whose incarnation is lower than
//! that of the frame before is a leftover that no checksum can tell from the real thing, and says nothing.

use ringbolt_disk::Buffer;

use super::{GRAIN, LSN_MAX, LogId, Refusal, crc32c, put, take};
use crate::planted::{self, Bug};

/// The length of a frame's header in bytes.
pub const HEADER_BYTES: usize = super::HEADER_BYTES;

/// The length of what stands before each record, its own length, in bytes.
pub const RECORD_PREFIX_BYTES: usize = 4;

const MAGIC: [u8; 4] = *b"RBF1";

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records.
    Batch,
    /// The end of a segment that is complete: the log goes on in the next. Holds no record.
    Seal,
    /// A kind of frame that this version does not know. Never written.
    Unknown(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Seal => 2,
            Self::Unknown(number) => number,
        }
    }

    fn of(number: u8) -> Self {
        match number {
            1 => Self::Batch,
            2 => Self::Seal,
            number => Self::Unknown(number),
        }
    }

    /// The offset in a segment that such a frame's padded end may reach: a batch leaves the last grain to
    /// the seal, so that a segment can always be sealed.
    pub const fn end_max(self, segment_bytes: u64) -> u64 {
        match self {
            Self::Batch => segment_bytes.saturating_sub(GRAIN),
            Self::Seal | Self::Unknown(_) => segment_bytes,
        }
    }
}

/// Where a frame is. Part of its header's checksum, and not of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The log's name.
    pub log_id: &'a LogId,
    /// The number of the segment, from 1.
    pub segment: u64,
    /// The frame's offset in the file: a multiple of [`GRAIN`], and not 0.
    pub offset: u64,
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The length of the payload, without the padding.
    pub payload_bytes: u32,
    /// The LSN of the first record; of a seal, the LSN that the next record will have.
    pub first_lsn: u64,
    /// How many records there are: at least one in a batch, none in a seal.
    pub count: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// The highest LSN known to be on stable storage when this frame was built: below `first_lsn`, and of a
    /// seal the one just below it. What makes a later frame the proof that an earlier one must be there.
    pub durable_lsn: u64,
    /// The header checksum of the frame before, also where that is in the segment before; 0 in a log's first.
    pub previous_crc: u32,
    /// The opening of the log that wrote this; see [`Head::incarnation`](super::head::Head::incarnation).
    pub incarnation: u32,
    /// Microseconds since 1970. For people: nothing decides by it.
    pub wall_clock: u64,
}

impl Header {
    /// The bytes of a frame's header for `place`, and its checksum, which the next frame names.
    ///
    /// ```text
    ///   0      4      8    9    10   12              16
    ///   ┌──────┬──────┬────┬────┬────┬────────────────┐
    ///   │ RBF1 │CRC32C│kind│flag│ 0  │ payload length │
    ///   ├──────┴──────┴────┴────┴────┼───────┬────────┤
    ///   │         first LSN          │ count │ CRC32C │ of the payload
    ///   ├────────────────────────────┼───────┼────────┤ 32
    ///   │        durable LSN         │ prev. │ incarn.│
    ///   ├────────────────────────────┼───────┴────────┤ 48
    ///   │        wall clock          │      zero      │
    ///   └────────────────────────────┴────────────────┘ 64
    ///
    ///    at  size  field
    ///     0     4  magic, "RBF1"
    ///     4     4  CRC32C of bytes 8..64, then log id (16), segment number (8) and offset (8)
    ///     8     1  kind: 1 batch, 2 seal
    ///     9     1  flags, 0
    ///    10     2  zero
    ///    12     4  payload length in bytes, without padding
    ///    16     8  first LSN; of a seal, the next LSN
    ///    24     4  record count
    ///    28     4  CRC32C of the payload
    ///    32     8  durable LSN
    ///    40     4  header CRC of the frame before; 0 in the log's first
    ///    44     4  incarnation
    ///    48     8  wall clock, microseconds since 1970
    ///    56     8  zero
    ///    64    ..  payload: for each record its length (4), then its bytes
    /// ```
    ///
    /// # Panics
    /// Where the header contradicts itself, as [`Held::check`] would find, or the place is none for a frame.
    pub fn encode(&self, place: Place<'_>) -> ([u8; HEADER_BYTES], u32) {
        assert!(place.segment > 0, "segments are numbered from 1");
        assert!(
            place.offset > 0 && place.offset.is_multiple_of(GRAIN),
            "no frame starts at {}",
            place.offset
        );
        if let Err(refusal) = self.check() {
            panic!("the frame is not written: {refusal}");
        }
        let mut header = [0; HEADER_BYTES];
        put(&mut header, 0, MAGIC);
        put(&mut header, 8, [self.kind.number()]);
        put(&mut header, 12, self.payload_bytes.to_le_bytes());
        put(&mut header, 16, self.first_lsn.to_le_bytes());
        put(&mut header, 24, self.count.to_le_bytes());
        put(&mut header, 28, self.payload_crc.to_le_bytes());
        put(&mut header, 32, self.durable_lsn.to_le_bytes());
        put(&mut header, 40, self.previous_crc.to_le_bytes());
        put(&mut header, 44, self.incarnation.to_le_bytes());
        put(&mut header, 48, self.wall_clock.to_le_bytes());
        let crc = checksum(&header, place);
        put(&mut header, 4, crc.to_le_bytes());
        (header, crc)
    }

    /// The header at the beginning of `bytes`, which were read at `place`; `None` where there is none that
    /// holds: too few bytes, another magic, a wrong checksum, or a frame of another place.
    ///
    /// A header that holds may still be one that we do not know, that contradicts itself ([`Held::check`]),
    /// or that is left over from an earlier incarnation.
    pub fn parse(bytes: &[u8], place: Place<'_>) -> Option<Held> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        if take(bytes, 0) != MAGIC {
            return None;
        }
        let crc = u32::from_le_bytes(take(bytes, 4));
        if crc != checksum(bytes, place) {
            return None;
        }
        let header = Self {
            kind: Kind::of(bytes[8]),
            payload_bytes: u32::from_le_bytes(take(bytes, 12)),
            first_lsn: u64::from_le_bytes(take(bytes, 16)),
            count: u32::from_le_bytes(take(bytes, 24)),
            payload_crc: u32::from_le_bytes(take(bytes, 28)),
            durable_lsn: u64::from_le_bytes(take(bytes, 32)),
            previous_crc: u32::from_le_bytes(take(bytes, 40)),
            incarnation: u32::from_le_bytes(take(bytes, 44)),
            wall_clock: u64::from_le_bytes(take(bytes, 48)),
        };
        let reserved = (u16::from_le_bytes(take(bytes, 10)), u64::from_le_bytes(take(bytes, 56)));
        Some(Held { header, crc, flags: bytes[9], reserved })
    }

    /// Where the frame ends, padding included, if it starts at `offset`; `None` above what a `u64` counts.
    /// Does not ask whether that lies in the segment: [`Held::check`] does.
    pub fn padded_end(&self, offset: u64) -> Option<u64> {
        offset.checked_add(padded_bytes(u64::from(self.payload_bytes)))
    }

    /// The LSN of the first record after this frame.
    pub fn next_lsn(&self) -> u64 {
        // Saturates only where `check` refuses.
        self.first_lsn.saturating_add(u64::from(self.count))
    }

    /// The LSN of the last record up to and including this frame.
    pub fn last_lsn(&self) -> u64 {
        self.next_lsn().saturating_sub(1)
    }

    /// The records in the `payload` that was read behind this header.
    ///
    /// # Errors
    /// [`Refusal::NotWhole`] for another length or checksum than the header says; [`Refusal::Inconsistent`]
    /// where the checksum holds and yet the records do not fill the payload exactly or are not so many.
    pub fn records<'a>(&self, payload: &'a [u8]) -> Result<Records<'a>, Refusal> {
        if payload.len() as u64 != u64::from(self.payload_bytes) {
            let (found, expected) = (payload.len(), self.payload_bytes);
            return Err(Refusal::not_whole(format!("payload of {found} bytes, expected {expected}")));
        }
        let found = crc32c(payload);
        if found != self.payload_crc {
            return Err(Refusal::checksum("payload", found, self.payload_crc));
        }
        records(payload, self.count)
    }

    /// Whether the values agree with each other.
    fn check(&self) -> Result<(), Refusal> {
        let Self { first_lsn, durable_lsn, count, payload_bytes, .. } = *self;
        if first_lsn == 0 || self.incarnation == 0 {
            return Err(Refusal::inconsistent(format!(
                "first LSN {first_lsn} and incarnation {} count from 1",
                self.incarnation
            )));
        }
        if self.last_lsn() > LSN_MAX {
            let last = self.last_lsn();
            return Err(Refusal::inconsistent(format!("last LSN {last} is above the highest, {LSN_MAX}")));
        }
        match self.kind {
            Kind::Batch if count == 0 => Err(Refusal::inconsistent("a batch without a record")),
            Kind::Batch if durable_lsn >= first_lsn => Err(Refusal::inconsistent(format!(
                "durable LSN {durable_lsn} is not below the batch's first LSN {first_lsn}"
            ))),
            Kind::Seal if count != 0 || payload_bytes != 0 => Err(Refusal::inconsistent(format!(
                "a seal with {count} records in {payload_bytes} bytes, expected none"
            ))),
            Kind::Seal if durable_lsn != first_lsn - 1 => Err(Refusal::inconsistent(format!(
                "durable LSN {durable_lsn} is not the one below the seal's next LSN {first_lsn}"
            ))),
            Kind::Batch | Kind::Seal => Ok(()),
            Kind::Unknown(kind) => Err(Refusal::unsupported("frame kind", kind, "1 or 2")),
        }
    }
}

/// A header whose magic and checksum hold: this log wrote it, for this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub header: Header,
    /// Its checksum, which the next frame names.
    pub crc: u32,
    /// Its flags, of which this version knows none.
    pub flags: u8,
    /// The fields at 10 and 56 that are written as zero.
    pub reserved: (u16, u64),
}

impl Held {
    /// Whether the header, found at `offset` of a segment of `segment_bytes`, is one that we know and that
    /// agrees with itself. Ask after its incarnation: one that is too low makes all of this meaningless.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for a kind or flag that this version does not know, before anything else;
    /// [`Refusal::Inconsistent`], which is damage and never a torn write, for a reserved field in use, an end
    /// outside the segment (for a batch, in its last grain), an LSN above [`LSN_MAX`], a first LSN or an
    /// incarnation of 0, a batch without records, a seal with some, and a durable LSN that is not below the
    /// first (for a seal, just below).
    pub fn check(&self, offset: u64, segment_bytes: u64) -> Result<(), Refusal> {
        let Self { header, flags, reserved, .. } = self;
        if let Kind::Unknown(kind) = header.kind {
            return Err(Refusal::unsupported("frame kind", kind, "1 or 2"));
        }
        if *flags != 0 {
            return Err(Refusal::unsupported("frame flags", format!("{flags:#04x}"), 0));
        }
        if *reserved != (0, 0) {
            let (short, long) = reserved;
            return Err(Refusal::inconsistent(format!(
                "reserved fields {short:#x} and {long:#x}, expected 0"
            )));
        }
        let end_max = header.kind.end_max(segment_bytes);
        if header.padded_end(offset).is_none_or(|end| end > end_max) {
            let payload = header.payload_bytes;
            return Err(Refusal::inconsistent(format!(
                "the frame at offset {offset} with {payload} bytes of payload does not end by {end_max}"
            )));
        }
        header.check()
    }
}

/// The length of a whole frame with so much payload: header and padding included.
pub const fn padded_bytes(payload_bytes: u64) -> u64 {
    (HEADER_BYTES as u64 + payload_bytes).next_multiple_of(GRAIN)
}

/// The checksum of a payload.
pub fn payload_crc(payload: &[u8]) -> u32 {
    crc32c(payload)
}

/// The checksum of a header: bytes 8..64, then the place. Copied together into one array, since one pass
/// over 88 bytes is cheaper than a stream of four.
fn checksum(header: &[u8; HEADER_BYTES], place: Place<'_>) -> u32 {
    let offset = if planted::is(Bug::NoOffsetInChecksum) { 0 } else { place.offset };
    let log_id = if planted::is(Bug::NoLogIdInChecksum) { [0; 16] } else { place.log_id.0 };
    let mut covered = [0; 56 + 16 + 8 + 8];
    covered[..56].copy_from_slice(&header[8..]);
    covered[56..72].copy_from_slice(&log_id);
    covered[72..80].copy_from_slice(&place.segment.to_le_bytes());
    covered[80..].copy_from_slice(&offset.to_le_bytes());
    crc32c(&covered)
}

/// What the writer of a frame knows besides the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// See [`Header::first_lsn`].
    pub first_lsn: u64,
    /// See [`Header::durable_lsn`].
    pub durable_lsn: u64,
    /// See [`Header::previous_crc`].
    pub previous_crc: u32,
    /// See [`Header::incarnation`].
    pub incarnation: u32,
    /// See [`Header::wall_clock`].
    pub wall_clock: u64,
}

impl Stamp {
    fn header(self, kind: Kind, count: u32, payload: &[u8]) -> Header {
        let Self { first_lsn, durable_lsn, previous_crc, incarnation, wall_clock } = self;
        let payload_bytes = u32::try_from(payload.len()).expect("a payload is shorter than half a segment");
        let payload_crc = payload_crc(payload);
        Header {
            kind,
            payload_bytes,
            first_lsn,
            count,
            payload_crc,
            durable_lsn,
            previous_crc,
            incarnation,
            wall_clock,
        }
    }
}

/// Make `frame` one without records: empty but for the header's room.
///
/// ```
/// use ringbolt_core::format::{LogId, frame};
/// use ringbolt_disk::Buffer;
///
/// let mut bytes = Buffer::with_capacity(4096);
/// frame::begin(&mut bytes);
/// frame::push_record(&mut bytes, b"hello");
/// let stamp =
///     frame::Stamp { first_lsn: 1, durable_lsn: 0, previous_crc: 0, incarnation: 1, wall_clock: 0 };
/// let place = frame::Place { log_id: &LogId([7; 16]), segment: 1, offset: 4096 };
/// let crc = frame::finish(&mut bytes, 1, stamp, place);
/// bytes.pad_to_grain();
///
/// let held = frame::Header::parse(&bytes, place).expect("a header that holds");
/// assert_eq!(held.crc, crc);
/// let payload = &bytes[frame::HEADER_BYTES..][..held.header.payload_bytes as usize];
/// assert_eq!(held.header.records(payload)?.collect::<Vec<_>>(), [b"hello"]);
/// # Ok::<(), ringbolt_core::format::Refusal>(())
/// ```
pub fn begin(frame: &mut Buffer) {
    frame.clear();
    frame.resize(HEADER_BYTES);
}

/// Append a record to the payload: its length as a little-endian `u32`, then its bytes.
///
/// # Panics
/// Where it does not fit the buffer: the caller has asked [`padded_bytes`].
pub fn push_record(frame: &mut Buffer, record: &[u8]) {
    debug_assert!(frame.len() >= HEADER_BYTES, "a frame begins with its header's room");
    let length = u32::try_from(record.len()).expect("a record is shorter than a quarter of a segment");
    frame.extend(&length.to_le_bytes());
    frame.extend(record);
}

/// Write the header of a batch into the first [`HEADER_BYTES`] of `frame`, whose rest is the payload, without
/// padding. Returns the header's checksum, which the next frame names. The padding is the caller's, who has
/// the memory: [`Buffer::pad_to_grain`].
///
/// # Panics
/// Where `frame` has no room for a header, or the values contradict each other.
pub fn finish(frame: &mut [u8], count: u32, stamp: Stamp, place: Place<'_>) -> u32 {
    let (room, payload) =
        frame.split_first_chunk_mut::<HEADER_BYTES>().expect("a frame begins with its header's room");
    debug_assert!(records(payload, count).is_ok(), "{count} records fill the payload");
    let (header, crc) = stamp.header(Kind::Batch, count, payload).encode(place);
    *room = header;
    crc
}

/// The bytes of a seal, and its checksum, which the next segment's first frame names. The rest of its grain
/// is zeros.
///
/// # Panics
/// Where the durable LSN is not the one just below the next.
pub fn seal(stamp: Stamp, place: Place<'_>) -> ([u8; HEADER_BYTES], u32) {
    stamp.header(Kind::Seal, 0, &[]).encode(place)
}

/// The records in a payload, of which there should be `count`. Walks the lengths once; takes no memory.
///
/// # Errors
/// [`Refusal::Inconsistent`] where they do not fill the payload exactly, or are more or fewer.
pub fn records(payload: &[u8], count: u32) -> Result<Records<'_>, Refusal> {
    walk(payload, count, |_| {})?;
    Ok(Records { rest: payload })
}

/// As [`records`]; on its one walk it shows each of them, before it is known whether they are whole.
pub(crate) fn walk<'a>(payload: &'a [u8], count: u32, mut show: impl FnMut(&'a [u8])) -> Result<(), Refusal> {
    let mut walk = Records { rest: payload };
    let mut found = 0_usize;
    for record in walk.by_ref() {
        show(record);
        found += 1;
    }
    if !walk.rest.is_empty() {
        let (rest, whole) = (walk.rest.len(), payload.len());
        return Err(Refusal::inconsistent(format!(
            "record {found} of the batch does not fit the last {rest} of {whole} bytes of payload"
        )));
    }
    if found as u64 != u64::from(count) {
        return Err(Refusal::inconsistent(format!("{found} records in the payload, expected {count}")));
    }
    Ok(())
}

/// The records of a payload that [`records`] found to be whole, in the order of their LSNs.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    /// Stops where no whole record is left: a walk that ends before the payload does tells [`records`] so.
    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.rest.split_first_chunk::<RECORD_PREFIX_BYTES>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*prefix) as usize)?;
        self.rest = rest;
        Some(record)
    }
}

impl std::iter::FusedIterator for Records<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LogId = LogId(*b"0123456789abcdef");
    const PLACE: Place<'_> = Place { log_id: &ID, segment: 5, offset: 8192 };
    const SEGMENT_BYTES: u64 = 64 << 10;
    const HEADER: Header = Header {
        kind: Kind::Batch,
        payload_bytes: 9,
        first_lsn: 100,
        count: 1,
        payload_crc: 0x1234_5678,
        durable_lsn: 98,
        previous_crc: 0x9abc_def0,
        incarnation: 3,
        wall_clock: 1_700_000_000_000_000,
    };

    /// The header with `bytes` at `at` and a checksum that holds, as another writer would leave it.
    fn forged<const N: usize>(at: usize, bytes: [u8; N]) -> Held {
        let (mut header, _) = HEADER.encode(PLACE);
        put(&mut header, at, bytes);
        let crc = checksum(&header, PLACE);
        put(&mut header, 4, crc.to_le_bytes());
        Header::parse(&header, PLACE).expect("the checksum was made to hold")
    }

    #[test]
    fn what_was_encoded_is_parsed_and_passes() {
        let (bytes, crc) = HEADER.encode(PLACE);
        let held = Header::parse(&bytes, PLACE).expect("it holds");
        assert_eq!(held, Held { header: HEADER, crc, flags: 0, reserved: (0, 0) });
        assert_eq!(held.check(PLACE.offset, SEGMENT_BYTES), Ok(()));
        assert_eq!((held.header.last_lsn(), held.header.next_lsn()), (100, 101));
        assert_eq!(held.header.padded_end(8192), Some(12288));
    }

    #[test]
    fn an_unknown_kind_or_flag_holds_and_is_unsupported() {
        assert_eq!(forged(8, [3]).header.kind, Kind::Unknown(3));
        assert_eq!(forged(9, [0x80]).flags, 0x80);
        // Whatever else is odd about it: a later version may use what we reserve.
        let mut later = forged(9, [1]);
        later.reserved = (1, 1);
        for held in [forged(8, [0]), forged(8, [3]), forged(9, [1]), later] {
            assert!(matches!(held.check(8192, SEGMENT_BYTES), Err(Refusal::Unsupported { .. })), "{held:?}");
        }
    }

    #[test]
    fn a_header_that_holds_and_contradicts_itself_is_inconsistent() {
        let mut seal_with_records = forged(8, [2]);
        seal_with_records.header.durable_lsn = 99;
        for held in [
            forged(10, [1]),
            forged(56, [1]),
            forged(63, [1]),
            forged(12, u32::MAX.to_le_bytes()),
            forged(16, 0_u64.to_le_bytes()),
            forged(16, (LSN_MAX + 1).to_le_bytes()),
            forged(16, u64::MAX.to_le_bytes()),
            forged(24, 0_u32.to_le_bytes()),
            forged(32, 100_u64.to_le_bytes()),
            forged(44, 0_u32.to_le_bytes()),
            seal_with_records,
        ] {
            assert!(matches!(held.check(8192, SEGMENT_BYTES), Err(Refusal::Inconsistent { .. })), "{held:?}");
        }
    }

    #[test]
    fn a_batch_leaves_the_last_grain_to_the_seal() {
        let fits = |payload_bytes: u64, offset| {
            let payload_bytes = u32::try_from(payload_bytes).expect("a test's payload");
            forged(12, payload_bytes.to_le_bytes()).check(offset, SEGMENT_BYTES).is_ok()
        };
        assert!(fits(GRAIN - 64, SEGMENT_BYTES - 2 * GRAIN));
        assert!(!fits(GRAIN - 63, SEGMENT_BYTES - 2 * GRAIN));
        assert!(!fits(4, SEGMENT_BYTES - GRAIN) && !fits(4, u64::MAX - 4095));

        let stamp = Stamp { first_lsn: 7, durable_lsn: 6, previous_crc: 1, incarnation: 1, wall_clock: 0 };
        let place = Place { offset: SEGMENT_BYTES - GRAIN, ..PLACE };
        let held = Header::parse(&seal(stamp, place).0, place).expect("it holds");
        assert_eq!(held.check(place.offset, SEGMENT_BYTES), Ok(()));
        assert_eq!((held.header.last_lsn(), held.header.next_lsn()), (6, 7));
    }

    #[test]
    fn a_seal_vouches_for_everything_before_it() {
        let held = forged(8, [2]);
        let header = Header { count: 0, payload_bytes: 0, ..held.header };
        for durable_lsn in [0, 98, 100, u64::MAX] {
            let held = Held { header: Header { durable_lsn, ..header }, ..held };
            assert!(matches!(held.check(8192, SEGMENT_BYTES), Err(Refusal::Inconsistent { .. })));
        }
        let held = Held { header: Header { durable_lsn: 99, ..header }, ..held };
        assert_eq!(held.check(8192, SEGMENT_BYTES), Ok(()));
    }

    #[test]
    fn arithmetic_on_untrusted_values_does_not_overflow() {
        let header = Header { payload_bytes: u32::MAX, first_lsn: u64::MAX, count: u32::MAX, ..HEADER };
        assert_eq!(header.padded_end(u64::MAX), None);
        assert_eq!(header.padded_end(0), Some((1 << 32) + GRAIN));
        assert_eq!((header.next_lsn(), header.last_lsn()), (u64::MAX, u64::MAX - 1));
        assert_eq!(Header { first_lsn: 0, count: 0, ..HEADER }.last_lsn(), 0);
    }

    #[test]
    fn records_fill_the_payload_exactly() {
        let payload = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c";
        let whole: Vec<_> = records(payload, 3).expect("three records").collect();
        assert_eq!(whole, [b"ab".as_slice(), b"", b"c"]);
        assert!(records(b"", 0).is_ok_and(|mut none| none.next().is_none()));
        for (payload, count) in [
            (&payload[..], 2),
            (&payload[..], 4),
            (&payload[..14], 3),
            (&payload[..12], 2),
            (b"", 1),
            (b"\xff\xff\xff\xff", 1),
            (b"\0\0\0\0", u32::MAX),
        ] {
            assert!(matches!(records(payload, count), Err(Refusal::Inconsistent { .. })), "{payload:?}");
        }
    }

    #[test]
    fn a_payload_that_rotted_is_not_whole_and_one_that_lies_is_inconsistent() {
        let payload = b"\x05\0\0\0hello";
        let header = Header { payload_crc: payload_crc(payload), ..HEADER };
        assert!(header.records(payload).is_ok());
        assert!(matches!(header.records(&payload[..8]), Err(Refusal::NotWhole { .. })));
        assert!(matches!(header.records(b"\x05\0\0\0jello"), Err(Refusal::NotWhole { .. })));
        assert!(matches!(Header { count: 2, ..header }.records(payload), Err(Refusal::Inconsistent { .. })));
    }

    #[test]
    #[should_panic(expected = "the frame is not written")]
    fn a_batch_that_calls_itself_durable_is_not_written() {
        let _ = Header { durable_lsn: 100, ..HEADER }.encode(PLACE);
    }

    #[test]
    #[should_panic(expected = "no frame starts at 100")]
    fn a_frame_starts_on_a_grain() {
        let _ = HEADER.encode(Place { offset: 100, ..PLACE });
    }

    #[cfg(feature = "planted")]
    #[test]
    fn without_the_offset_a_misplaced_frame_would_hold() {
        let elsewhere = Place { offset: 12288, ..PLACE };
        assert!(Header::parse(&HEADER.encode(PLACE).0, elsewhere).is_none());
        planted::with(Bug::NoOffsetInChecksum, || {
            assert!(Header::parse(&HEADER.encode(PLACE).0, elsewhere).is_some());
        });
    }
}
