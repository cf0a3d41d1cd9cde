//! SYNCED: how far a key-value log is known to be durable. amaters ignores this file; so a log of its making has
//! none.
//!
//! ```text
//!   0                8               16              24      28      32
//!   ┌────────────────┬───────────────┬───────────────┬───────┬───────┐
//!   │ RBSYNC1␀       │ file number   │ offset        │CRC32C │ zero  │
//!   └────────────────┴───────────────┴───────────────┴───────┴───────┘
//! ```
//!
//! It is rewritten in place, without being synced itself: what it says was true before it was written. All of it
//! lies in one sector, so a power cut leaves an older statement or a newer one, whole.

use super::{Refusal, crc32c};

/// Its length in bytes.
pub const SYNCED_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"RBSYNC1\0";

/// A place in the log: everything before it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Synced {
    /// The number of a file.
    pub file: u64,
    /// The offset in it.
    pub offset: u64,
}

impl Synced {
    /// Its bytes.
    ///
    /// ```text
    ///    at  size  field
    ///     0     8  magic, "RBSYNC1" and a zero byte
    ///     8     8  file number
    ///    16     8  offset
    ///    24     4  CRC32C of bytes 0..24
    ///    28     4  zero
    /// ```
    pub fn encode(&self) -> [u8; SYNCED_BYTES] {
        let mut bytes = [0; SYNCED_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.file.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        let crc = crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What the bytes of a whole file say.
    ///
    /// # Errors
    /// [`Refusal::NotWhole`] for another length, magic or checksum; [`Refusal::Unsupported`] where the last four bytes
    /// are in use.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let Some(bytes) = bytes.first_chunk::<SYNCED_BYTES>().filter(|_| bytes.len() == SYNCED_BYTES) else {
            let found = bytes.len();
            return Err(Refusal::not_whole(format!("SYNCED of {found} bytes, expected {SYNCED_BYTES}")));
        };
        if bytes[..8] != MAGIC {
            let (found, magic) = (bytes[..8].escape_ascii(), MAGIC.escape_ascii());
            return Err(Refusal::not_whole(format!("SYNCED magic \"{found}\", expected \"{magic}\"")));
        }
        let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("it is within"));
        let short = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("it is within"));
        let (found, expected) = (short(24), crc32c(&bytes[..24]));
        if found != expected {
            return Err(Refusal::checksum("SYNCED", found, expected));
        }
        if short(28) != 0 {
            return Err(Refusal::unsupported("SYNCED's last field", short(28), 0));
        }
        Ok(Self { file: number(8), offset: number(16) })
    }
}
