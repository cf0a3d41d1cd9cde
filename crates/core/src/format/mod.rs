//! Bytes on disk: one layout a file, each a diagram, an encoder and a decoder. Pure functions; nothing here
//! reads, writes, waits or knows why it was asked.
//!
//! # The map of the room
//!
//! ```text
//!     a log's directory                             what its bytes are
//!
//!     LOCK                                          the owner's pid, as text
//!     HEAD                        ────────────────▶ head.rs      64 bytes: what must be there
//!     wal-0000000000000001.seg ┬─ the first grain ▶ segment.rs   64 bytes: whose file this is
//!     wal-0000000000000002.seg └─ the others ─────▶ frame.rs     64 bytes a batch, then its records
//!     *.tmp                                         one of the above in the making
//!     torn/                                         torn tails set aside, for people
//! ```
//!
//! ```text
//!     a key-value log's directory                   what its bytes are
//!
//!     LOCK                                          the owner's pid, as text
//!     SYNCED                      ────────────────▶ synced.rs    32 bytes: how far it is durable
//!     wal_00000000.log            ────────────────▶ entry.rs     records, back to back
//!     torn/                                         torn tails set aside, for people
//! ```
//!
//! ```text
//!     a blob store's directory                      what its bytes are
//!
//!     .hold                                         the owner's pid, or that it was closed in order, as text
//!     <partition>/<name in hex>   ────────────────▶ blob.rs      8 or 4096 bytes, then the application's
//! ```
//!
//! Names, limits and the checksum are on this page, for the logs.
//!
//! # Who judges
//!
//! A decoder looks at one header and nothing else, so it says what it found ([`Refusal`]) and never what
//! that means: the same torn header is an end of the log in one place and damage in another, and telling
//! the two apart takes the rest of the log. Recovery has that.
//!
//! Checks run from the outside in: length and magic, checksum, version, what we can serve, and last whether
//! the values agree with each other. No field is believed before the checksum over it holds. A later version
//! has to keep magic, checksum and version where they are to be told from damage.

pub mod blob;
pub mod entry;
pub mod frame;
pub mod head;
pub mod segment;
pub mod synced;

use std::fmt;

/// The grain, as offsets on disk are counted: every frame starts on one. The same as
/// [`ringbolt_disk::GRAIN`], the unit of alignment of direct writes.
pub const GRAIN: u64 = ringbolt_disk::GRAIN as u64;

/// The version of the native log's format.
pub const VERSION: u16 = 1;

/// The highest LSN there can be: 2^53 - 1, the last integer that JavaScript's `number` tells from the next.
pub const LSN_MAX: u64 = (1 << 53) - 1;

/// What a user's log takes for a segment size, in bytes, at the least.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// What any log takes for a segment size, in bytes, at the most. Every offset and payload length within
/// such a segment fits a `u32`.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The segment size where the user names none, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// The smallest segment the format can carry, and tests use: the header's grain, the largest frame (half a
/// segment, here two grains) and the seal's grain.
pub const SEGMENT_BYTES_FLOOR: u64 = 4 * GRAIN;

const _: () = assert!(GRAIN.is_power_of_two() && GRAIN <= u16::MAX as u64);
const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64, "a payload's length is a u32");
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(GRAIN) && SEGMENT_BYTES_MAX.is_multiple_of(GRAIN));
const _: () = assert!(SEGMENT_BYTES_FLOOR < SEGMENT_BYTES_MIN && SEGMENT_BYTES_MIN < SEGMENT_BYTES_DEFAULT);
// The largest frame fits an empty segment, between the header's grain and the seal's.
const _: () = assert!(GRAIN + frame_bytes_max(SEGMENT_BYTES_FLOOR) + GRAIN <= SEGMENT_BYTES_FLOOR);
// The largest record fits a frame of its own.
const _: () = assert!(
    frame::padded_bytes(frame::RECORD_PREFIX_BYTES as u64 + record_bytes_max(SEGMENT_BYTES_FLOOR))
        <= frame_bytes_max(SEGMENT_BYTES_FLOOR)
);

/// The longest record a log of such segments takes, in bytes: a quarter of a segment. Counts the record's
/// own bytes, not the four of its length prefix.
pub const fn record_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes / 4
}

/// The longest frame a log of such segments takes, in bytes: half a segment, in
/// whole grains. Counts the header, the payload
/// with its length prefixes, and the padding: what [`frame::padded_bytes`] answers. So a batch that does not
/// fit the rest of a segment leaves about half of it unused, at the most.
pub const fn frame_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes / 2 / GRAIN * GRAIN
}

/// Whether the format can carry segments of this size: whole grains, from [`SEGMENT_BYTES_FLOOR`] to
/// [`SEGMENT_BYTES_MAX`].
pub const fn is_segment_bytes(bytes: u64) -> bool {
    bytes.is_multiple_of(GRAIN) && bytes >= SEGMENT_BYTES_FLOOR && bytes <= SEGMENT_BYTES_MAX
}

/// The log's random name, the same in every file of it: tells our frames from those of another log whose
/// files or blocks ended up here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// Why bytes are not the header they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Length, magic or checksum is wrong: nothing in these bytes can be believed.
    NotWhole {
        /// What is wrong, with both values.
        reason: String,
    },
    /// The checksum holds, and somebody meant what is written here, but we cannot serve it: a later version
    /// of ringbolt, most likely.
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value.
        found: String,
        /// The values we know.
        expected: String,
    },
    /// The checksum holds, every value is one we know, and they contradict each other: damage, whatever
    /// stands around it.
    Inconsistent {
        /// What contradicts what.
        reason: String,
    },
}

impl Refusal {
    fn not_whole(reason: impl Into<String>) -> Self {
        Self::NotWhole { reason: reason.into() }
    }

    fn unsupported(what: &'static str, found: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::Unsupported { what, found: found.to_string(), expected: expected.to_string() }
    }

    fn inconsistent(reason: impl Into<String>) -> Self {
        Self::Inconsistent { reason: reason.into() }
    }

    fn checksum(what: &str, found: u32, expected: u32) -> Self {
        Self::not_whole(format!("{what} checksum {found:#010x}, expected {expected:#010x}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWhole { reason } | Self::Inconsistent { reason } => f.write_str(reason),
            Self::Unsupported { what, found, expected } => {
                write!(f, "{what} {found} is not supported, expected {expected}")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// CRC-32C (Castagnoli; CRC-32/ISCSI) of `bytes`.
///
/// ```
/// assert_eq!(ringbolt_core::format::crc32c(b"123456789"), 0xe306_9283);
/// ```
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The one-shot entry. The streaming `Digest` goes through a slower, generic path: whoever has two pieces
    // and one of them is small copies both into an array instead (`frame::checksum`).
    crc_fast::crc32_iscsi(bytes)
}

/// The file that says what must be there.
pub const HEAD_NAME: &str = "HEAD";

/// The file that is locked while the log is open for writing.
pub const LOCK_NAME: &str = "LOCK";

/// The directory of the torn tails that were set aside.
pub const TORN_NAME: &str = "torn";

/// The file that says how far a key-value log is durable.
pub const SYNCED_NAME: &str = "SYNCED";

const SEGMENT_PREFIX: &str = "wal-";
const SEGMENT_SUFFIX: &str = ".seg";
/// What ends the name of a file in the making.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
const TORN_SUFFIX: &str = ".bin";

/// A segment's file name: its number in 16 lower-case hex digits, so that names sort as numbers do.
///
/// ```
/// use ringbolt_core::format::segment_name;
/// assert_eq!(segment_name(26), "wal-000000000000001a.seg");
/// ```
pub fn segment_name(number: u64) -> String {
    format!("{SEGMENT_PREFIX}{number:016x}{SEGMENT_SUFFIX}")
}

/// The number in a segment's file name; `None` for every other name, and for number 0. No two names have
/// the same number: upper-case digits, signs, and more or fewer than 16 digits are other names.
pub fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?.strip_suffix(SEGMENT_SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (number > 0 && segment_name(number) == name).then_some(number)
}

/// The name of a key-value log's file: its number in eight decimal digits, or as many more as it takes.
///
/// ```
/// use ringbolt_core::format::log_file_name;
/// assert_eq!(log_file_name(26), "wal_00000026.log");
/// ```
pub fn log_file_name(number: u64) -> String {
    format!("wal_{number:08}.log")
}

/// The number in the name of a key-value log's file; `None` for every other name. No two names have the same number.
pub fn parse_log_file_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix("wal_")?.strip_suffix(".log")?.parse().ok()?;
    (log_file_name(number) == name).then_some(number)
}

/// What a file is called while it is made. It gets its name only when it is whole and durable.
pub fn temporary_name(name: &str) -> String {
    format!("{name}{TEMPORARY_SUFFIX}")
}

/// Whether this is the name of a file in the making: such names do not keep a directory from taking a log.
pub fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

/// The name of a torn tail under [`TORN_NAME`]: where it was cut from, and by which opening of the log.
///
/// ```
/// use ringbolt_core::format::TornName;
/// let torn = TornName { segment: 26, offset: 8192, incarnation: 3 };
/// assert_eq!(torn.to_string(), "000000000000001a-8192-3.bin");
/// assert_eq!(TornName::parse("000000000000001a-8192-3.bin"), Some(torn));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornName {
    /// The number of the segment, in the name as 16 lower-case hex digits: as the segment's own name has it.
    pub segment: u64,
    /// Where in the segment the tail began, in bytes, in the name as a decimal.
    pub offset: u64,
    /// The incarnation of the opening that cut it, in the name as a decimal. The higher, the newer.
    pub incarnation: u32,
}

impl TornName {
    /// What a file name says; `None` for a name that no [`TornName`] is written as.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(TORN_SUFFIX)?.splitn(3, '-');
        let torn = Self {
            segment: u64::from_str_radix(parts.next()?, 16).ok()?,
            offset: parts.next()?.parse().ok()?,
            incarnation: parts.next()?.parse().ok()?,
        };
        (torn.to_string() == name).then_some(torn)
    }
}

impl fmt::Display for TornName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, incarnation } = self;
        write!(f, "{segment:016x}-{offset}-{incarnation}{TORN_SUFFIX}")
    }
}

/// Every header of the native log is so long.
const HEADER_BYTES: usize = 64;

/// The `N` bytes at `at` of a header.
fn take<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

/// Put `bytes` at `at` of a header.
fn put<const N: usize>(header: &mut [u8; HEADER_BYTES], at: usize, bytes: [u8; N]) {
    header[at..at + N].copy_from_slice(&bytes);
}

/// What HEAD and the segment header have in common: magic at 0, checksum of 12..64 at 8, version at 12.
/// Checks all three, in this order.
fn open_header(what: &str, magic: [u8; 8], header: &[u8; HEADER_BYTES]) -> Result<(), Refusal> {
    let found = take::<8>(header, 0);
    if found != magic {
        let (found, magic) = (found.escape_ascii(), magic.escape_ascii());
        return Err(Refusal::not_whole(format!("{what} magic \"{found}\", expected \"{magic}\"")));
    }
    let (found, expected) = (u32::from_le_bytes(take(header, 8)), crc32c(&header[12..]));
    if found != expected {
        return Err(Refusal::checksum(what, found, expected));
    }
    let version = u16::from_le_bytes(take(header, 12));
    if version != VERSION {
        return Err(Refusal::unsupported("format version", version, VERSION));
    }
    Ok(())
}

/// Begins a header that [`open_header`] opens; [`close_header`] ends it.
fn begin_header(magic: [u8; 8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    put(&mut header, 0, magic);
    put(&mut header, 12, VERSION.to_le_bytes());
    header
}

/// Puts the checksum over everything behind it, once that is complete.
fn close_header(mut header: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let checksum = crc32c(&header[12..]);
    put(&mut header, 8, checksum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43, "RFC 3720, B.4");
    }

    #[test]
    fn a_segment_name_has_one_spelling() {
        assert_eq!(segment_name(1), "wal-0000000000000001.seg");
        for number in [1, 0xabc_def0, u64::MAX] {
            assert_eq!(parse_segment_name(&segment_name(number)), Some(number));
        }
        for name in [
            "",
            "HEAD",
            "wal-.seg",
            "wal-1.seg",
            "wal-0000000000000000.seg",
            "wal-000000000000000A.seg",
            "wal-+000000000000001.seg",
            "wal-00000000000000001.seg",
            "wal-10000000000000001.seg",
            "wal-0000000000000001.seg.tmp",
            "WAL-0000000000000001.seg",
            "wal-000000000000000é.seg",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_log_file_name_has_one_spelling() {
        assert_eq!(log_file_name(0), "wal_00000000.log");
        for number in [0, 7, 99_999_999, 100_000_000, u64::MAX] {
            assert_eq!(parse_log_file_name(&log_file_name(number)), Some(number));
        }
        for name in [
            "",
            "wal_.log",
            "wal_0.log",
            "wal_+0000001.log",
            "wal_000000001.log",
            "wal_0000000a.log",
            "wal_00000000.log.tmp",
            "wal-00000000.log",
            "wal_99999999999999999999.log",
        ] {
            assert_eq!(parse_log_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_file_in_the_making_is_neither_segment_nor_head() {
        let name = temporary_name(&segment_name(7));
        assert!(is_temporary(&name) && parse_segment_name(&name).is_none());
        assert!(is_temporary(&temporary_name(HEAD_NAME)));
        assert!(!is_temporary(HEAD_NAME) && !is_temporary(LOCK_NAME) && !is_temporary(&segment_name(7)));
    }

    #[test]
    fn a_torn_name_has_one_spelling() {
        let torn = TornName { segment: u64::MAX, offset: u64::MAX, incarnation: u32::MAX };
        assert_eq!(TornName::parse(&torn.to_string()), Some(torn));
        for name in [
            "000000000000001a-8192-3",
            "1a-8192-3.bin",
            "000000000000001A-8192-3.bin",
            "000000000000001a-08192-3.bin",
            "000000000000001a-+8192-3.bin",
            "000000000000001a-8192-3-4.bin",
            "000000000000001a-8192.bin",
            "000000000000001a-8192-4294967296.bin",
        ] {
            assert_eq!(TornName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_largest_record_fits_a_frame_and_the_largest_frame_a_segment() {
        for grains in 4..10_000 {
            let segment = grains * GRAIN;
            let alone = frame::padded_bytes(frame::RECORD_PREFIX_BYTES as u64 + record_bytes_max(segment));
            assert!(alone <= frame_bytes_max(segment), "{grains} grains");
            assert!(GRAIN + frame_bytes_max(segment) + GRAIN <= segment, "{grains} grains");
        }
        assert!(!is_segment_bytes(SEGMENT_BYTES_FLOOR - GRAIN) && !is_segment_bytes(SEGMENT_BYTES_MIN + 1));
        assert!(!is_segment_bytes(SEGMENT_BYTES_MAX + GRAIN) && is_segment_bytes(SEGMENT_BYTES_MAX));
    }
}
