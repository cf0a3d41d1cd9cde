//! HEAD: what must be there. The one file that is replaced, so the one place that can say that records are
//! missing: a log that ends too early looks, by itself, just like a log that was never longer.

use super::{HEADER_BYTES, LSN_MAX, LogId, Refusal, begin_header, close_header, open_header, put, take};

/// The length of HEAD in bytes: the whole file.
pub const HEAD_BYTES: usize = HEADER_BYTES;

const MAGIC: [u8; 8] = *b"RBHEAD1\0";

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Open for writing, or ended without a close.
    Open,
    /// Closed: everything that was appended is durable.
    Closed,
}

/// What HEAD says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How the log was left. The only field that does not only grow.
    pub state: State,
    /// The log's name, in every file of it.
    pub log_id: LogId,
    /// The number of the oldest segment that is kept; older ones are leftovers of a truncation.
    pub oldest_segment: u64,
    /// The first LSN that is kept: records below it are not served, though their segment may be there. At
    /// most one above `proven_lsn`.
    pub first_lsn: u64,
    /// The newest LSN known to be durable when this was written: a log that ends below it is damaged.
    pub proven_lsn: u64,
    /// How many times the log was opened for writing; every frame names the one it was written in.
    pub incarnation: u32,
}

impl Head {
    /// The bytes of HEAD.
    ///
    /// ```text
    ///   0        8       12    14    16                              32
    ///   ┌────────┬────────┬─────┬─────┬───────────────────────────────┐
    ///   │RBHEAD1␀│ CRC32C │ ver │state│            log id             │
    ///   ├────────┴────────┴┬────┴─────┴───────┬───────────────┬───────┤
    ///   │  oldest segment  │    first LSN     │  proven LSN   │inc│ 0 │
    ///   └──────────────────┴──────────────────┴───────────────┴───┴───┘
    ///   32                 40                 48              56  60  64
    ///
    ///    at  size  field
    ///     0     8  magic, "RBHEAD1" and a zero byte
    ///     8     4  CRC32C of bytes 12..64
    ///    12     2  format version, 1
    ///    14     2  state: 1 open, 2 closed
    ///    16    16  log id
    ///    32     8  oldest segment kept
    ///    40     8  first LSN kept
    ///    48     8  proven LSN
    ///    56     4  incarnation
    ///    60     4  zero
    /// ```
    ///
    /// # Panics
    /// Where the values contradict each other, as [`Head::decode`] would find: HEAD that cannot be read back
    /// is a lost log.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        if let Err(refusal) = self.check() {
            panic!("HEAD is not written: {refusal}");
        }
        let state: u16 = match self.state {
            State::Open => 1,
            State::Closed => 2,
        };
        let mut head = begin_header(MAGIC);
        put(&mut head, 14, state.to_le_bytes());
        put(&mut head, 16, self.log_id.0);
        put(&mut head, 32, self.oldest_segment.to_le_bytes());
        put(&mut head, 40, self.first_lsn.to_le_bytes());
        put(&mut head, 48, self.proven_lsn.to_le_bytes());
        put(&mut head, 56, self.incarnation.to_le_bytes());
        close_header(head)
    }

    /// What the bytes of HEAD, the whole file, say.
    ///
    /// # Errors
    /// [`Refusal::NotWhole`] for another length, magic or checksum; [`Refusal::Unsupported`] for another
    /// version, an unknown state or a reserved field in use; [`Refusal::Inconsistent`] for a first LSN above
    /// the proven one plus one, and for values that are never written: an LSN above [`LSN_MAX`], a segment,
    /// first LSN or incarnation of 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let Ok(bytes) = <&[u8; HEAD_BYTES]>::try_from(bytes) else {
            let found = bytes.len();
            return Err(Refusal::not_whole(format!("HEAD of {found} bytes, expected {HEAD_BYTES}")));
        };
        open_header("HEAD", MAGIC, bytes)?;
        let state = match u16::from_le_bytes(take(bytes, 14)) {
            1 => State::Open,
            2 => State::Closed,
            state => return Err(Refusal::unsupported("state of HEAD", state, "1 or 2")),
        };
        let reserved = u32::from_le_bytes(take(bytes, 60));
        if reserved != 0 {
            return Err(Refusal::unsupported("reserved field of HEAD", format!("{reserved:#x}"), 0));
        }
        let head = Self {
            state,
            log_id: LogId(take(bytes, 16)),
            oldest_segment: u64::from_le_bytes(take(bytes, 32)),
            first_lsn: u64::from_le_bytes(take(bytes, 40)),
            proven_lsn: u64::from_le_bytes(take(bytes, 48)),
            incarnation: u32::from_le_bytes(take(bytes, 56)),
        };
        head.check()?;
        Ok(head)
    }

    /// Whether the values agree with each other.
    fn check(&self) -> Result<(), Refusal> {
        let Self { oldest_segment, first_lsn, proven_lsn, incarnation, .. } = *self;
        if oldest_segment == 0 || first_lsn == 0 || incarnation == 0 {
            return Err(Refusal::inconsistent(format!(
                "HEAD's oldest segment {oldest_segment}, first LSN {first_lsn} and incarnation {incarnation} \
                 count from 1"
            )));
        }
        if proven_lsn > LSN_MAX {
            return Err(Refusal::inconsistent(format!(
                "HEAD's proven LSN {proven_lsn} is above the highest, {LSN_MAX}"
            )));
        }
        if first_lsn > proven_lsn + 1 {
            return Err(Refusal::inconsistent(format!(
                "HEAD's first LSN {first_lsn} is more than one above its proven LSN {proven_lsn}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        state: State::Open,
        log_id: LogId(*b"0123456789abcdef"),
        oldest_segment: 3,
        first_lsn: 17,
        proven_lsn: 16,
        incarnation: 2,
    };

    /// HEAD with `bytes` at `at` and a checksum that holds, as another writer would leave it.
    fn forged<const N: usize>(at: usize, bytes: [u8; N]) -> Result<Head, Refusal> {
        let mut head = HEAD.encode();
        put(&mut head, at, bytes);
        Head::decode(&close_header(head))
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let closed = Head { state: State::Closed, proven_lsn: LSN_MAX, first_lsn: LSN_MAX + 1, ..HEAD };
        assert_eq!(Head::decode(&HEAD.encode()), Ok(HEAD));
        assert_eq!(Head::decode(&closed.encode()), Ok(closed));
    }

    #[test]
    fn what_we_cannot_serve_is_unsupported() {
        let whats = [
            (forged(12, 2_u16.to_le_bytes()), "format version"),
            (forged(14, 0_u16.to_le_bytes()), "state of HEAD"),
            (forged(14, 3_u16.to_le_bytes()), "state of HEAD"),
            (forged(60, 1_u32.to_le_bytes()), "reserved field of HEAD"),
        ];
        for (decoded, expected) in whats {
            assert!(matches!(decoded, Err(Refusal::Unsupported { what, .. }) if what == expected));
        }
    }

    #[test]
    fn a_later_version_is_unsupported_whatever_else_it_says() {
        let mut head = HEAD.encode();
        head[14..].fill(0xff);
        put(&mut head, 12, 2_u16.to_le_bytes());
        let refusal = Head::decode(&close_header(head)).expect_err("version 2 is not ours");
        assert_eq!(refusal.to_string(), "format version 2 is not supported, expected 1");
    }

    #[test]
    fn values_that_contradict_each_other_are_inconsistent() {
        for decoded in [
            forged(32, 0_u64.to_le_bytes()),
            forged(40, 0_u64.to_le_bytes()),
            forged(40, 18_u64.to_le_bytes()),
            forged(48, (LSN_MAX + 1).to_le_bytes()),
            forged(48, u64::MAX.to_le_bytes()),
            forged(56, 0_u32.to_le_bytes()),
        ] {
            assert!(matches!(decoded, Err(Refusal::Inconsistent { .. })), "{decoded:?}");
        }
    }

    #[test]
    #[should_panic(expected = "HEAD is not written")]
    fn a_head_that_contradicts_itself_is_not_written() {
        let _ = Head { first_lsn: 18, ..HEAD }.encode();
    }

    #[test]
    fn a_refusal_names_both_values() {
        let mut head = HEAD.encode();
        assert_eq!(
            Head::decode(&head[..63]).expect_err("short").to_string(),
            "HEAD of 63 bytes, expected 64"
        );
        head[0] = b'X';
        let refusal = Head::decode(&head).expect_err("another magic").to_string();
        assert_eq!(refusal, r#"HEAD magic "XBHEAD1\x00", expected "RBHEAD1\x00""#);
    }
}
