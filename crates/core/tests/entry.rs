//! The key-value log's bytes: what its decoders owe, amaters' vectors, and amaters' own files.

use proptest::prelude::*;
use ringbolt_core::format::Refusal;
use ringbolt_core::format::entry::{self, Entry, Kind, SEQUENCE_MAX};
use ringbolt_core::format::synced::{SYNCED_BYTES, Synced};
use ringbolt_disk::Buffer;

/// An entry that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    sequence: u64,
    kind: Kind,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Owned {
    fn entry(&self) -> Entry<'_> {
        Entry { sequence: self.sequence, kind: self.kind, key: &self.key, value: &self.value }
    }
}

prop_compose! {
    fn any_entry()(
        sequence in prop_oneof![0..10_u64, 0..=SEQUENCE_MAX],
        is_put: bool,
        key in prop::collection::vec(any::<u8>(), 0..40),
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) -> Owned {
        let kind = if is_put { Kind::Put } else { Kind::Delete };
        Owned { sequence, kind, key, value: if is_put { value } else { Vec::new() } }
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn the_vectors_of_the_format_are_what_we_write_and_read() {
    // Goal: byte compatibility, and that a put of nothing stays a put (defect W14).
    let entry = |sequence, kind, key, value| Entry { sequence, kind, key, value };
    let vectors: [(Entry<'_>, &str); 4] = [
        (
            entry(1, Kind::Put, b"hello", b"world"),
            "230000004c4157000100000000000000010500000068656c6c6f05000000776f726c642cde05d6",
        ),
        (
            entry(2, Kind::Delete, b"hello", b""),
            "1e0000004c4157000200000000000000020500000068656c6c6f00000000fa4d2f8d",
        ),
        (entry(3, Kind::Put, b"k", b""), "1a0000004c415700030000000000000001010000006b00000000e45ac6cb"),
        (entry(0, Kind::Put, b"", b""), "190000004c415700000000000000000001000000000000000038240e91"),
    ];
    for (entry, hex) in vectors {
        let bytes = bytes_of(hex);
        assert_eq!(entry.encode(), bytes);
        assert_eq!(entry::parse(&bytes), Ok(entry));
    }
}

#[test]
fn the_checksum_cannot_tell_key_from_value_and_the_lengths_can() {
    // Goal: the weakness that the format page admits is where it says it is, and no wider.
    let ab = Entry { sequence: 9, kind: Kind::Put, key: b"ab", value: b"c" }.encode();
    let bc = Entry { sequence: 9, kind: Kind::Put, key: b"a", value: b"bc" }.encode();
    let crc = |record: &[u8]| record[record.len() - 4..].to_vec();
    assert_eq!(crc(&ab), crc(&bc));
    for (at, byte) in [(17, 1), (23, 2), (17, 3), (0, 27), (0, 29)] {
        let mut shifted = ab.clone();
        shifted[at] = byte;
        assert!(entry::parse(&shifted).is_err(), "byte {at} is {byte}");
    }
}

#[test]
fn a_record_of_another_shape_is_none_whatever_its_checksum() {
    // Goal: we are stricter than amaters' reader (W16). Method: right checksums over wrong shapes.
    let seal = |mut record: Vec<u8>| {
        let crc_at = record.len() - 4;
        let key = u32::from_le_bytes(record[17..21].try_into().expect("four")) as usize;
        let covered = [&record[8..17], &record[21..21 + key], &record[25 + key..crc_at]].concat();
        let crc = crc32fast::hash(&covered).to_le_bytes();
        record[crc_at..].copy_from_slice(&crc);
        record
    };
    let put = Entry { sequence: 5, kind: Kind::Put, key: b"key", value: b"value" }.encode();
    assert_eq!(seal(put.clone()), put, "the checksum is made as it should be");
    let changed = |at: usize, byte: u8| {
        let mut record = put.clone();
        record[at] = byte;
        seal(record)
    };
    for record in [changed(16, 2), changed(16, 0), changed(16, 3), changed(4, 0x4d)] {
        assert!(matches!(entry::parse(&record), Err(Refusal::NotWhole { .. })), "{record:02x?}");
    }
    // Junk between the value and the checksum, within the length.
    let mut padded = put.clone();
    padded.splice(put.len() - 4..put.len() - 4, [0; 4]);
    padded[0] += 4;
    assert!(entry::parse(&seal(padded)).is_err());
    // Above what JavaScript counts to: said by name.
    let mut far = put;
    far[8..16].copy_from_slice(&(SEQUENCE_MAX + 1).to_le_bytes());
    let Err(Refusal::Unsupported { what, found, .. }) = entry::parse(&seal(far)) else {
        panic!("it is read")
    };
    assert_eq!((what, found.as_str()), ("sequence", "9007199254740992"));
}

#[test]
fn a_length_sizes_nothing_that_no_record_has() {
    // Goal: no large allocation for a rotted length (W15): what a caller would allocate has a bound.
    for length in [0, 1, 24, entry::LENGTH_MAX + 1, u32::MAX] {
        assert!(entry::claimed_bytes(length.to_le_bytes()).is_err(), "{length}");
    }
    assert_eq!(entry::claimed_bytes(entry::LENGTH_MAX.to_le_bytes()), Ok(entry::LENGTH_MAX as usize + 4));
    assert_eq!(entry::record_bytes(entry::BODY_BYTES_MAX), entry::LENGTH_MAX as usize + 4);
}

proptest! {
    #[test]
    fn an_entry_comes_back(entry in any_entry()) {
        let bytes = entry.entry().encode();
        prop_assert_eq!(entry::parse(&bytes), Ok(entry.entry()));
        prop_assert_eq!(bytes.len(), entry::record_bytes(entry.entry().body().len()));
    }

    #[test]
    fn entries_pushed_in_place_are_the_bytes_they_encode_to(entries in prop::collection::vec(any_entry(), 1..8)) {
        let mut buffer = Buffer::with_capacity(8 * 300);
        let mut expected = Vec::new();
        for entry in &entries {
            entry::push(&mut buffer, entry.sequence, &entry.entry().body());
            expected.extend(entry.entry().encode());
        }
        entry::finish(&mut buffer);
        prop_assert_eq!(&buffer[..], &expected[..]);
    }

    #[test]
    fn no_flipped_bit_is_read(entry in any_entry(), at: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = entry.entry().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(entry::parse(&bytes).is_err(), "byte {}", at);
    }

    #[test]
    fn no_prefix_is_read(entry in any_entry()) {
        let bytes = entry.entry().encode();
        for len in 0..bytes.len() {
            prop_assert!(entry::parse(&bytes[..len]).is_err(), "{} bytes", len);
        }
    }

    #[test]
    fn junk_is_refused_and_panics_nobody(bytes in prop::collection::vec(any::<u8>(), 0..200), with_magic: bool) {
        let mut bytes = bytes;
        if with_magic && bytes.len() >= 8 {
            let length = bytes.len() as u32 - 4;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            bytes[4..8].copy_from_slice(&entry::MAGIC);
        }
        prop_assert!(entry::parse(&bytes).is_err());
        let _ = entry::parse_body(&bytes);
    }

    #[test]
    fn synced_comes_back_and_no_flipped_bit_of_it_is_read(
        file: u64,
        offset: u64,
        at in 0..SYNCED_BYTES,
        bit in 0..8_u8,
    ) {
        let synced = Synced { file, offset };
        let mut bytes = synced.encode();
        prop_assert_eq!(Synced::decode(&bytes), Ok(synced));
        for len in 0..bytes.len() {
            prop_assert!(Synced::decode(&bytes[..len]).is_err());
        }
        prop_assert!(Synced::decode(&[&bytes[..], &[0]].concat()).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(Synced::decode(&bytes).is_err());
    }
}
