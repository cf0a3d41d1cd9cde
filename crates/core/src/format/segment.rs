//! The first grain of a segment: whose file this is. It says nothing about the records, so the next segment
//! is made, whole and durable, while the current one still fills.

use super::{
    GRAIN, HEADER_BYTES, LogId, Refusal, SEGMENT_BYTES_FLOOR, SEGMENT_BYTES_MAX, begin_header, close_header,
    is_segment_bytes, open_header, put, take,
};

/// The length of a segment's header in bytes. It has a grain to itself, whose rest is zero and is not read;
/// the first frame starts at [`GRAIN`].
pub const SEGMENT_HEADER_BYTES: usize = HEADER_BYTES;

const MAGIC: [u8; 8] = *b"RINGBOLT";
const GRAIN_EXPONENT: u16 = GRAIN.trailing_zeros() as u16;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The log's name, in every file of it.
    pub log_id: LogId,
    /// The segment's number, from 1; the same as in its file name.
    pub number: u64,
    /// The segment's size in bytes: bytes behind it are not the log's.
    pub bytes: u64,
}

impl Header {
    /// The bytes of a segment's header.
    ///
    /// ```text
    ///   0        8       12    14    16                              32
    ///   ┌────────┬────────┬─────┬─────┬───────────────────────────────┐
    ///   │RINGBOLT│ CRC32C │ ver │grain│            log id             │
    ///   ├────────┴────────┴┬────┴─────┴───────┬───────────────────────┤
    ///   │      number      │  size in bytes   │         zero          │
    ///   └──────────────────┴──────────────────┴───────────────────────┘
    ///   32                 40                 48                      64
    ///
    ///    at  size  field
    ///     0     8  magic, "RINGBOLT"
    ///     8     4  CRC32C of bytes 12..64
    ///    12     2  format version, 1
    ///    14     2  grain as a power of two, 12
    ///    16    16  log id
    ///    32     8  segment number
    ///    40     8  segment size in bytes
    ///    48    16  zero
    /// ```
    ///
    /// # Panics
    /// Where the number is 0 or the size is none that the format carries.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        assert!(self.number > 0, "segments are numbered from 1");
        assert!(is_segment_bytes(self.bytes), "a segment of {} bytes cannot be read back", self.bytes);
        let mut header = begin_header(MAGIC);
        put(&mut header, 14, GRAIN_EXPONENT.to_le_bytes());
        put(&mut header, 16, self.log_id.0);
        put(&mut header, 32, self.number.to_le_bytes());
        put(&mut header, 40, self.bytes.to_le_bytes());
        close_header(header)
    }

    /// What the first bytes of a segment, at least [`SEGMENT_HEADER_BYTES`] of them, say. Whether log and
    /// number are the ones that belong here is for the caller to compare.
    ///
    /// # Errors
    /// [`Refusal::NotWhole`] for too few bytes, another magic or checksum; [`Refusal::Unsupported`] for
    /// another version, grain or size and for a reserved field in use; [`Refusal::Inconsistent`] for a
    /// number of 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            let found = bytes.len();
            return Err(Refusal::not_whole(format!(
                "segment header of {found} bytes, expected {SEGMENT_HEADER_BYTES}"
            )));
        };
        open_header("segment header", MAGIC, bytes)?;
        let grain = u16::from_le_bytes(take(bytes, 14));
        if grain != GRAIN_EXPONENT {
            return Err(Refusal::unsupported("grain, as a power of two,", grain, GRAIN_EXPONENT));
        }
        let reserved = u128::from_le_bytes(take(bytes, 48));
        if reserved != 0 {
            let found = format!("{reserved:#x}");
            return Err(Refusal::unsupported("reserved field of the segment header", found, 0));
        }
        let header = Self {
            log_id: LogId(take(bytes, 16)),
            number: u64::from_le_bytes(take(bytes, 32)),
            bytes: u64::from_le_bytes(take(bytes, 40)),
        };
        if !is_segment_bytes(header.bytes) {
            let expected = format!("a multiple of {GRAIN} from {SEGMENT_BYTES_FLOOR} to {SEGMENT_BYTES_MAX}");
            return Err(Refusal::unsupported("segment size in bytes", header.bytes, expected));
        }
        if header.number == 0 {
            return Err(Refusal::inconsistent("segment number 0, expected at least 1"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { log_id: LogId(*b"0123456789abcdef"), number: 9, bytes: 64 << 10 };

    /// The header with `bytes` at `at` and a checksum that holds, as another writer would leave it.
    fn forged<const N: usize>(at: usize, bytes: [u8; N]) -> Result<Header, Refusal> {
        let mut header = HEADER.encode();
        put(&mut header, at, bytes);
        Header::decode(&close_header(header))
    }

    #[test]
    fn what_was_encoded_is_decoded_and_the_rest_of_the_grain_is_not_read() {
        let mut grain = [0xff; GRAIN as usize];
        grain[..SEGMENT_HEADER_BYTES].copy_from_slice(&HEADER.encode());
        assert_eq!(Header::decode(&grain), Ok(HEADER));
    }

    #[test]
    fn what_we_cannot_serve_is_unsupported() {
        for decoded in [
            forged(12, 2_u16.to_le_bytes()),
            forged(14, 13_u16.to_le_bytes()),
            forged(40, 0_u64.to_le_bytes()),
            forged(40, (SEGMENT_BYTES_FLOOR - GRAIN).to_le_bytes()),
            forged(40, (SEGMENT_BYTES_FLOOR + 1).to_le_bytes()),
            forged(40, (SEGMENT_BYTES_MAX + GRAIN).to_le_bytes()),
            forged(48, [1]),
            forged(63, [1]),
        ] {
            assert!(matches!(decoded, Err(Refusal::Unsupported { .. })), "{decoded:?}");
        }
    }

    #[test]
    fn number_zero_is_inconsistent() {
        assert!(matches!(forged(32, 0_u64.to_le_bytes()), Err(Refusal::Inconsistent { .. })));
    }

    #[test]
    #[should_panic(expected = "cannot be read back")]
    fn a_segment_size_that_cannot_be_read_back_is_not_written() {
        let _ = Header { bytes: SEGMENT_BYTES_FLOOR + 1, ..HEADER }.encode();
    }
}
