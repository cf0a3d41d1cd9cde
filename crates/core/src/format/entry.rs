//! One record of the key-value log: a put or a delete. Byte-compatible with amaters-core 0.2.
//!
//! ```text
//!      ┌──────────┬──────────┬──────────┬────┬─────┬─────┬─────┬───────┬────────┬─────────────────
//!      │ u32      │ 4C 41 57 │ u64      │ u8 │ u32 │     │ u32 │       │ u32    │ the next record,
//!      │ length   │ 00 magic │ sequence │type│  K  │ key │  V  │ value │ CRC-32 │ or the file's end
//!      └──────────┴──────────┴──────────┴────┴─────┴─────┴─────┴───────┴────────┴─────────────────
//!      0          4          8          16   17    21          25 + K           29 + K + V
//!                 └───────────────────── length = 25 + K + V ───────────────────┘
//!                                       └────────── body ─────────────┘
//! ```
//!
//! Records stand back to back: no file header, no padding, nothing behind the last one. The _body_ is what the
//! floors above hand over; the log puts what stands before and behind it.
//!
//! # What the checksum proves
//!
//! Less than one would like: it covers sequence, type, key and value, and leaves out the magic and the three
//! lengths. So `ab` with value `c` has the checksum of `a` with value `bc`. [`parse`] therefore asks for more than
//! amaters' reader does: the lengths must agree with each other, and a delete has no value. One bit turned over
//! anywhere is found then; two in the two lengths, against each other, are not, and no reader of this format could.

use ringbolt_disk::Buffer;

use super::Refusal;

/// What stands before a record's body, in bytes: length, magic, sequence.
pub const HEAD_BYTES: usize = 16;

/// What stands behind it: the checksum.
pub const CRC_BYTES: usize = 4;

/// The shortest body: a type and two lengths of nothing.
pub const BODY_BYTES_MIN: usize = 9;

/// The longest body. Its record's length is then [`LENGTH_MAX`].
pub const BODY_BYTES_MAX: usize = LENGTH_MAX as usize - (HEAD_BYTES - LENGTH_BYTES) - CRC_BYTES;

/// Key and value together have at most so many bytes.
pub const KEY_VALUE_BYTES_MAX: usize = BODY_BYTES_MAX - BODY_BYTES_MIN;

/// The shortest record there is, in bytes.
pub const RECORD_BYTES_MIN: usize = HEAD_BYTES + BODY_BYTES_MIN + CRC_BYTES;

/// The length field's least value.
pub const LENGTH_MIN: u32 = (RECORD_BYTES_MIN - LENGTH_BYTES) as u32;

/// The length field's greatest: amaters' reader refuses more.
pub const LENGTH_MAX: u32 = 100 << 20;

/// The highest sequence there can be: 2^53 - 1, the last integer that JavaScript's `number` tells from the next.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;

/// What every record has at [`MAGIC_AT`].
pub const MAGIC: [u8; 4] = 0x0057_414c_u32.to_le_bytes();

/// Where.
pub const MAGIC_AT: usize = 4;

const LENGTH_BYTES: usize = 4;
const TYPE_AT: usize = 16;
const KEY_AT: usize = 21;

const _: () = assert!(KEY_VALUE_BYTES_MAX == 104_857_575, "what append refuses more than");
const _: () = assert!(LENGTH_MIN == 25 && RECORD_BYTES_MIN == 29);

/// What a record does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The key has this value now. An empty value is a value.
    Put,
    /// The key has none any more.
    Delete,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Delete => 2,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number, from 0.
    pub sequence: u64,
    /// What it does.
    pub kind: Kind,
    /// To which key; may be empty.
    pub key: &'a [u8],
    /// The value of a put; a delete's is empty.
    pub value: &'a [u8],
}

impl Entry<'_> {
    /// The record's bytes.
    ///
    /// # Panics
    /// Where a delete has a value, or key and value are longer than [`KEY_VALUE_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let mut bytes = head(self.sequence, body.len()).to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&[0; CRC_BYTES]);
        finish(&mut bytes);
        bytes
    }

    /// The record's body: bytes 16..25 + K + V.
    ///
    /// # Panics
    /// As [`Entry::encode`].
    pub fn body(&self) -> Vec<u8> {
        let bytes = self.key.len() + self.value.len();
        assert!(bytes <= KEY_VALUE_BYTES_MAX, "{bytes} bytes of key and value");
        assert!(self.kind == Kind::Put || self.value.is_empty(), "a delete has no value");
        let mut body = Vec::with_capacity(BODY_BYTES_MIN + bytes);
        body.push(self.kind.number());
        body.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        body.extend_from_slice(self.key);
        body.extend_from_slice(&(self.value.len() as u32).to_le_bytes());
        body.extend_from_slice(self.value);
        body
    }
}

/// The length of a whole record with so long a body.
pub const fn record_bytes(body_bytes: usize) -> usize {
    HEAD_BYTES + body_bytes + CRC_BYTES
}

/// The length of the whole record that begins with these four bytes. Says nothing about whether it is one.
///
/// # Errors
/// [`Refusal::NotWhole`] for a length that no record has: whatever it sizes is bounded.
pub fn claimed_bytes(length: [u8; LENGTH_BYTES]) -> Result<usize, Refusal> {
    let length = u32::from_le_bytes(length);
    if (LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Ok(LENGTH_BYTES + length as usize);
    }
    Err(Refusal::not_whole(format!("record length {length}, expected {LENGTH_MIN} to {LENGTH_MAX}")))
}

/// The record that `bytes` are, all of them.
///
/// # Errors
/// [`Refusal::NotWhole`] for what is no record: another magic, an unknown type, lengths that do not agree, a delete
/// with a value, a wrong checksum. [`Refusal::Unsupported`] for a record that is one, with a sequence above
/// [`SEQUENCE_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Entry<'_>, Refusal> {
    let Some((length, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(Refusal::not_whole(format!("{} bytes, too few for a record", bytes.len())));
    };
    let claimed = claimed_bytes(*length)?;
    if claimed != bytes.len() {
        let found = bytes.len();
        return Err(Refusal::not_whole(format!("a record of {claimed} bytes, and there are {found}")));
    }
    if bytes[MAGIC_AT..MAGIC_AT + MAGIC.len()] != MAGIC {
        let (found, expected) =
            (bytes[MAGIC_AT..][..MAGIC.len()].escape_ascii().to_string(), MAGIC.escape_ascii());
        return Err(Refusal::not_whole(format!("record magic \"{found}\", expected \"{expected}\"")));
    }
    let crc_at = bytes.len() - CRC_BYTES;
    let (kind, key, value) = parse_body(&bytes[TYPE_AT..crc_at])?;
    let (found, expected) = (u32_at(bytes, crc_at), checksum(&bytes[..crc_at]));
    if found != expected {
        return Err(Refusal::checksum("record", found, expected));
    }
    let sequence = u64::from_le_bytes(*bytes[8..].first_chunk().expect("a record is longer"));
    if sequence > SEQUENCE_MAX {
        return Err(Refusal::unsupported("sequence", sequence, format!("at most {SEQUENCE_MAX} (2^53 - 1)")));
    }
    Ok(Entry { sequence, kind, key, value })
}

/// What a body says: what is done, to which key, with which value.
///
/// # Errors
/// [`Refusal::NotWhole`] where its lengths do not fill it exactly, the type is none, or a delete has a value.
pub fn parse_body(body: &[u8]) -> Result<(Kind, &[u8], &[u8]), Refusal> {
    let no_body = |reason: String| Err(Refusal::not_whole(reason));
    if body.len() < BODY_BYTES_MIN {
        return no_body(format!(
            "a record's body of {} bytes, expected at least {BODY_BYTES_MIN}",
            body.len()
        ));
    }
    let Some(kind) = Kind::of(body[0]) else {
        return no_body(format!("record type {}, expected 1 or 2", body[0]));
    };
    let key_bytes = u32_at(body, 1) as usize;
    let rest = &body[KEY_AT - TYPE_AT..];
    if key_bytes > rest.len() - 4 {
        return no_body(format!("a key of {key_bytes} bytes in a body of {}", body.len()));
    }
    let (key, rest) = rest.split_at(key_bytes);
    let (value_bytes, value) = (u32_at(rest, 0) as usize, &rest[4..]);
    if value_bytes != value.len() {
        return no_body(format!("a value of {value_bytes} bytes, and there are {}", value.len()));
    }
    if kind == Kind::Delete && !value.is_empty() {
        return no_body(format!("a delete with a value of {value_bytes} bytes"));
    }
    Ok((kind, key, value))
}

/// Append a record around `body`, but for its checksum, which [`finish`] puts: the copy is made where many wait
/// for it, the checksum where nobody does.
pub fn push(buffer: &mut Buffer, sequence: u64, body: &[u8]) {
    buffer.extend(&head(sequence, body.len()));
    buffer.extend(body);
    buffer.extend(&[0; CRC_BYTES]);
}

/// Put the checksums of the whole records that `bytes` are.
///
/// # Panics
/// Where they are something else.
pub fn finish(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some(length) = rest.first_chunk::<LENGTH_BYTES>() {
        let record = claimed_bytes(*length).expect("records were pushed, one behind the other");
        let (record, behind) = rest.split_at_mut(record);
        let crc_at = record.len() - CRC_BYTES;
        let crc = checksum(&record[..crc_at]);
        record[crc_at..].copy_from_slice(&crc.to_le_bytes());
        rest = behind;
    }
    assert!(rest.is_empty(), "{} bytes are no record", rest.len());
}

fn head(sequence: u64, body_bytes: usize) -> [u8; HEAD_BYTES] {
    assert!(sequence <= SEQUENCE_MAX, "sequence {sequence} is above the highest");
    assert!((BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&body_bytes), "a body of {body_bytes} bytes");
    let length = (record_bytes(body_bytes) - LENGTH_BYTES) as u32;
    let mut head = [0; HEAD_BYTES];
    head[..MAGIC_AT].copy_from_slice(&length.to_le_bytes());
    head[MAGIC_AT..8].copy_from_slice(&MAGIC);
    head[8..].copy_from_slice(&sequence.to_le_bytes());
    head
}

/// Of a record up to its checksum, whose lengths agree: of sequence and type, key, and value.
fn checksum(record: &[u8]) -> u32 {
    let value_at = KEY_AT + u32_at(record, TYPE_AT + 1) as usize + 4;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[8..TYPE_AT + 1]);
    hasher.update(&record[KEY_AT..value_at - 4]);
    hasher.update(&record[value_at..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has looked at the length"))
}
