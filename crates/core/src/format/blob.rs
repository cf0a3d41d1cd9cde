//! A blob's header, in two layouts, byte-compatible with commonware-runtime's storage. Behind it the application's
//! bytes, which are not checked.
//!
//! ```text
//!   V0, 8 bytes                          V1, 4096 bytes
//!
//!   0       4       6       8            0       4       6       8          12                          4096
//!   ┌───────┬───────┬───────┬── data     ┌───────┬───────┬───────┬──────────┬───────────────────────────┬── data
//!   │ CWIC  │ 0     │version│            │ CWIK  │ 1     │version│ CRC-32C  │ zeros                     │
//!   └───────┴───────┴───────┴──          └───────┴───────┴───────┴──────────┴───────────────────────────┴──
//! ```
//!
//! Every number is big-endian. V1's data lies at a page's beginning, and its header proves itself.

use super::crc32c;

/// The longest header, in bytes, and what is looked at of a file to judge it.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The file whose lock is the store's: no partition can take the name, and commonware-runtime locks the same one.
pub const HOLD_NAME: &str = ".hold";

/// What stands in [`HOLD_NAME`] after a store was closed with everything in it durable. While it is open the process's
/// number stands there, as text. Neither is flushed: after the power was lost nothing is left that is not durable,
/// whatever it says.
pub const HOLD_CLEAN: &[u8] = b"clean\n";

/// The name of a blob's file: the bytes of the blob's name in lower-case hexadecimal.
///
/// ```
/// assert_eq!(ringbolt_core::format::blob::file_name(b"\x00hi"), "006869");
/// ```
pub fn file_name(name: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    name.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// The name of the blob that a file's name stands for: `None` where it stands for none.
pub fn parse_file_name(file_name: &str) -> Option<Vec<u8>> {
    let (digits, rest) = file_name.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || digits.is_empty() {
        return None;
    }
    digits.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// Lower-case only: a name is written in one way.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Which layout a blob has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// 8 bytes of header: what commonware-runtime reads and writes before 2026.10.
    V0,
    /// 4096 bytes of header with a checksum; the data begins at a page.
    V1,
}

impl Layout {
    /// The length of its header, which is where the data begins.
    pub const fn data_at(self) -> u64 {
        match self {
            Self::V0 => 8,
            Self::V1 => HEADER_BYTES_MAX as u64,
        }
    }

    const fn magic(self) -> [u8; 4] {
        match self {
            Self::V0 => *b"CWIC",
            Self::V1 => *b"CWIK",
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its layout.
    pub layout: Layout,
    /// The blob's version, which is the application's own.
    pub version: u16,
}

/// What the beginning of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A whole header.
    Whole(Header),
    /// What a creation leaves that did not come to its end: no data can be in it. The layout is the one it names.
    Interrupted(Option<Layout>),
    /// Anything else, and why.
    Corrupt(String),
}

impl Header {
    /// Its bytes.
    ///
    /// ```text
    ///    at  size  field
    ///     0     4  magic: "CWIC" for V0, "CWIK" for V1
    ///     4     2  layout: 0 or 1
    ///     6     2  version
    ///     8     4  V1: CRC-32C of bytes 0..8
    ///    12  4084  V1: zeros
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.layout.data_at() as usize];
        bytes[..4].copy_from_slice(&self.layout.magic());
        bytes[4..6].copy_from_slice(&self.layout.number().to_be_bytes());
        bytes[6..8].copy_from_slice(&self.version.to_be_bytes());
        if self.layout == Layout::V1 {
            let crc = crc32c(&bytes[..8]);
            bytes[8..12].copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    /// Judge a file of `len` bytes by its first [`HEADER_BYTES_MAX`] bytes, or all where there are fewer.
    ///
    /// # Panics
    /// Where `start` is not those bytes.
    pub fn examine(start: &[u8], len: u64) -> Finding {
        assert_eq!(start.len() as u64, len.min(HEADER_BYTES_MAX as u64), "the beginning of the file");
        match Self::decode(start) {
            Ok(header) => Finding::Whole(header),
            Err(reason) => {
                let is_short = len <= HEADER_BYTES_MAX as u64;
                interrupted(start).filter(|_| is_short).unwrap_or(Finding::Corrupt(reason))
            }
        }
    }

    /// In this order: magic, layout, checksum, length and padding.
    fn decode(start: &[u8]) -> Result<Self, String> {
        let Some((header, _)) = start.split_first_chunk::<8>() else {
            return Err(format!("{} bytes, too few for a header of 8", start.len()));
        };
        let [m0, m1, m2, m3, l0, l1, v0, v1] = *header;
        let magic = [m0, m1, m2, m3];
        let Some(layout) = [Layout::V0, Layout::V1].into_iter().find(|layout| layout.magic() == magic) else {
            return Err(format!("invalid magic {magic:02x?}, expected CWIC or CWIK"));
        };
        let found = u16::from_be_bytes([l0, l1]);
        if found != layout.number() {
            let expected = layout.number();
            return Err(format!("unsupported layout version {found}, expected {expected} behind this magic"));
        }
        if layout == Layout::V1 {
            let Some((crc, padding)) = start[8..].split_first_chunk::<4>() else {
                return Err(format!("{} bytes, too few for a checksum", start.len()));
            };
            let (found, expected) = (u32::from_be_bytes(*crc), crc32c(header));
            if found != expected {
                return Err(format!("header checksum {found:#010x}, expected {expected:#010x}"));
            }
            if start.len() < HEADER_BYTES_MAX {
                return Err(format!("{} bytes, too few for a header of {HEADER_BYTES_MAX}", start.len()));
            }
            if let Some(at) = padding.iter().position(|&byte| byte != 0) {
                return Err(format!("byte {} of the header's padding is not zero", 12 + at));
            }
        }
        Ok(Self { layout, version: u16::from_be_bytes([v0, v1]) })
    }
}

/// Whether this is the beginning of a header, of any version, and then only zeros; and the layout it names. A header
/// reaches the disk in pieces, and a file may be longer than what reached it.
fn interrupted(bytes: &[u8]) -> Option<Finding> {
    let version = [6, 7].map(|at| bytes.get(at).copied().unwrap_or(0));
    let named = [Layout::V0, Layout::V1].into_iter().filter_map(|layout| {
        let header = Header { layout, version: u16::from_be_bytes(version) }.encode();
        let written = bytes.iter().zip(&header).take_while(|(one, other)| one == other).count();
        bytes[written..].iter().all(|&byte| byte == 0).then_some((written, layout))
    });
    let (written, layout) = named.max_by_key(|&(written, _)| written)?;
    Some(Finding::Interrupted((written >= layout.magic().len()).then_some(layout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_in_one_way_and_read_back() {
        for name in [&b"\0"[..], b"hello", &[0xff; 127], &(0..=255).collect::<Vec<u8>>()] {
            assert_eq!(parse_file_name(&file_name(name)).as_deref(), Some(name));
        }
        for other in ["", "0", "0g", "AB", "aB", "ab ", "0x", "é"] {
            assert_eq!(parse_file_name(other), None, "{other:?}");
        }
    }
}
