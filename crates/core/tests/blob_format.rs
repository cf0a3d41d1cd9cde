//! A blob's header: its bytes, which stay forever, and what is made of every file that is none.

use std::sync::LazyLock;

use proptest::prelude::*;
use ringbolt_core::format::blob::{Finding, HEADER_BYTES_MAX, Header, Layout};

const V0: Layout = Layout::V0;
const V1: Layout = Layout::V1;

fn header(layout: Layout, version: u16) -> Header {
    Header { layout, version }
}

fn examine(file: &[u8]) -> Finding {
    Header::examine(&file[..file.len().min(HEADER_BYTES_MAX)], file.len() as u64)
}

fn with_zeros(start: &[u8], len: usize) -> Vec<u8> {
    let mut file = start.to_vec();
    file.resize(len, 0);
    file
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// What is not zero of some headers. V1's checksums were computed elsewhere, a bit at a time.
const GOLDEN: [(Layout, u16, &str); 9] = [
    (V0, 0, "4357494300000000"),
    (V0, 1, "4357494300000001"),
    (V0, 0x1234, "4357494300001234"),
    (V0, 0xffff, "435749430000ffff"),
    (V1, 0, "4357494b000100002813d8dc"),
    (V1, 1, "4357494b00010001da785bdf"),
    (V1, 0x1234, "4357494b00011234c7eac71d"),
    (V1, 0x934b, "4357494b0001934b0000cdba"),
    (V1, 0xffff, "4357494b0001ffff268daf0e"),
];

#[test]
fn headers_have_the_bytes_they_have_always_had() {
    for (layout, version, bytes) in GOLDEN {
        let header = header(layout, version);
        assert_eq!(header.encode(), with_zeros(&hex(bytes), layout.data_at() as usize));
        assert_eq!(examine(&header.encode()), Finding::Whole(header));
    }
    assert_eq!((V0.data_at(), V1.data_at()), (8, 4096));
}

/// The headers of every version, without V1's zeros.
static EVERY_HEADER: LazyLock<Vec<(Layout, Vec<u8>)>> = LazyLock::new(|| {
    let versions = |layout, len| {
        (0..=u16::MAX).map(move |version| (layout, header(layout, version).encode()[..len].to_vec()))
    };
    versions(V0, 8).chain(versions(V1, 12)).collect()
});

/// What [`Header::examine`] is to say, word for word as the format has it, by trying every header there is.
fn judge(file: &[u8]) -> Judgement {
    // From here on there are only zeros.
    let zeros_at = file.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    for (layout, header) in &*EVERY_HEADER {
        let data_at = layout.data_at() as usize;
        let is_padded = || file[header.len()..data_at].iter().all(|&byte| byte == 0);
        if file.starts_with(header) && file.len() >= data_at && is_padded() {
            return Judgement::Whole(*layout, u16::from_be_bytes([header[6], header[7]]));
        }
    }
    if file.len() > HEADER_BYTES_MAX {
        return Judgement::Corrupt;
    }
    let mut found = if zeros_at == 0 { Judgement::Interrupted(None) } else { Judgement::Corrupt };
    for (layout, header) in &*EVERY_HEADER {
        for written in 1..=header.len().min(file.len()) {
            if file[written - 1] != header[written - 1] {
                break;
            }
            if written >= zeros_at {
                // Three letters are the same in both.
                found = Judgement::Interrupted((written >= 4).then_some(*layout));
            }
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Whole(Layout, u16),
    Interrupted(Option<Layout>),
    Corrupt,
}

impl From<Finding> for Judgement {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Whole(Header { layout, version }) => Self::Whole(layout, version),
            Finding::Interrupted(layout) => Self::Interrupted(layout),
            Finding::Corrupt(reason) => {
                assert!(!reason.is_empty());
                Self::Corrupt
            }
        }
    }
}

fn check(file: &[u8]) -> Judgement {
    let found = Judgement::from(examine(file));
    assert_eq!(found, judge(file), "{} bytes, {:02x?}", file.len(), &file[..file.len().min(20)]);
    found
}

#[test]
fn a_file_of_zeros_is_an_interrupted_creation_up_to_4096_bytes() {
    for len in 0..=4097 {
        let expected = if len <= 4096 { Judgement::Interrupted(None) } else { Judgement::Corrupt };
        assert_eq!(Judgement::from(examine(&vec![0; len])), expected, "{len} bytes");
    }
    for len in [0, 1, 7, 8, 9, 11, 12, 13, 4095, 4096, 4097, 10_000] {
        check(&vec![0; len]);
    }
}

#[test]
fn the_beginning_of_a_header_and_zeros_behind_it_is_an_interrupted_creation() {
    for (layout, version, bytes) in GOLDEN {
        let bytes = hex(bytes);
        for written in 0..=bytes.len() {
            for len in [written, written + 1, 7, 8, 9, 11, 12, 13, 100, 4095, 4096, 4097, 5000] {
                if len < written {
                    continue;
                }
                let found = check(&with_zeros(&bytes[..written], len));
                let named = (written >= 4).then_some(layout);
                // V0's header of version 0 is its magic and zeros, and its version reaches the disk in two pieces.
                let expected = match layout {
                    V0 if written >= 4 && len >= 8 => {
                        let version = if written > 6 { &bytes[6..written] } else { &[] };
                        let version = with_zeros(version, 2);
                        Judgement::Whole(V0, u16::from_be_bytes([version[0], version[1]]))
                    }
                    V1 if written == 12 && len >= 4096 => Judgement::Whole(V1, version),
                    _ if len <= 4096 => Judgement::Interrupted(named),
                    _ => Judgement::Corrupt,
                };
                assert_eq!(found, expected, "{layout:?} {version}: {written} bytes of {len}");
            }
        }
    }
}

#[test]
fn every_prefix_of_a_header_is_an_interrupted_creation_with_every_length_behind_it() {
    let whole = header(V1, 0x1234).encode();
    for written in 0..whole.len() {
        let named = (written >= 4).then_some(V1);
        assert_eq!(examine(&whole[..written]), Finding::Interrupted(named), "{written} bytes");
    }
    for len in 12..4096 {
        assert_eq!(examine(&with_zeros(&whole[..9], len)), Finding::Interrupted(Some(V1)), "{len} bytes");
        assert_eq!(examine(&with_zeros(&whole[..3], len)), Finding::Interrupted(None), "{len} bytes");
    }
}

#[test]
fn every_version_can_be_cut_off_anywhere() {
    for version in 0..=u16::MAX {
        let whole = header(V1, version).encode();
        assert_eq!(examine(&whole), Finding::Whole(header(V1, version)));
        for written in 6..12 {
            for len in [written, 12, 4096] {
                let file = with_zeros(&whole[..written], len);
                // A checksum may end in zeros.
                if file != whole {
                    let expected = Finding::Interrupted(Some(V1));
                    assert_eq!(examine(&file), expected, "version {version}: {written} bytes of {len}");
                }
            }
        }
        let short = header(V0, version).encode();
        assert_eq!(examine(&short), Finding::Whole(header(V0, version)));
        assert_eq!(examine(&short[..7]), Finding::Interrupted(Some(V0)));
    }
}

#[test]
fn a_checksum_may_be_cut_off_but_not_be_another() {
    let whole = header(V1, 7).encode();
    for len in [12, 13, 600, 4096] {
        for written in 8..12 {
            let mut file = with_zeros(&whole[..written], len);
            assert_eq!(check(&file), Judgement::Interrupted(Some(V1)), "{written} bytes of {len}");
            // The last byte before the zeros is wrong: it was never written so.
            file[written.max(9) - 1] ^= 0x10;
            assert_eq!(check(&file), Judgement::Corrupt, "{written} bytes of {len}");
        }
        // Only its end: what is written in one go does not begin with a hole.
        let mut file = with_zeros(&whole[..12], len);
        file[8] = 0;
        assert_eq!(check(&file), Judgement::Corrupt);
    }
}

#[test]
fn a_header_with_one_bit_turned_over_is_none() {
    for (layout, version, bytes) in GOLDEN {
        let bytes = hex(bytes);
        let data_at = layout.data_at() as usize;
        for behind in [0, 1, 5000] {
            let whole = with_zeros(&bytes, data_at + behind);
            for bit in 0..data_at * 8 {
                // Of the padding, a bit of each byte.
                if bit >= 16 * 8 && bit % 8 != bit / 8 % 8 {
                    continue;
                }
                let mut file = whole.clone();
                file[bit / 8] ^= 1 << (bit % 8);
                let found = Judgement::from(examine(&file));
                let turned = u16::from_be_bytes([file[6], file[7]]);
                let expected = match (layout, bit / 8) {
                    // V0 does not prove its version.
                    (V0, 6 | 7) => Judgement::Whole(V0, turned),
                    // C and K are one bit apart: the beginning of V1's header, where nothing but zeros is behind.
                    (V0, 3) if file[3] == b'K' && version == 0 && file.len() <= 4096 => {
                        Judgement::Interrupted(Some(V1))
                    }
                    _ => Judgement::Corrupt,
                };
                assert_eq!(found, expected, "{layout:?} {version}, bit {bit}, {behind} bytes behind");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_said_in_the_order_of_the_fields() {
    let reason = |file: &[u8]| match examine(file) {
        Finding::Corrupt(reason) => reason,
        other => panic!("{other:?}"),
    };
    let mut file = with_zeros(&hex("4357494b00010000deadbeef"), 4097);
    file[100] = 1;
    assert_eq!(reason(&file), "header checksum 0xdeadbeef, expected 0x2813d8dc");
    assert_eq!(reason(&file[..10]), "10 bytes, too few for a checksum");
    file[8..12].copy_from_slice(&hex("2813d8dc"));
    assert_eq!(reason(&file), "byte 100 of the header's padding is not zero");
    assert_eq!(reason(&file[..101]), "101 bytes, too few for a header of 4096");
    file[5] = 2;
    assert_eq!(reason(&file), "unsupported layout version 2, expected 1 behind this magic");
    file[3] = b'C';
    assert_eq!(reason(&file), "unsupported layout version 2, expected 0 behind this magic");
    file[0] = b'X';
    assert_eq!(reason(&file), "invalid magic [58, 57, 49, 43], expected CWIC or CWIK");
    assert_eq!(reason(b"junk"), "4 bytes, too few for a header of 8");
}

#[test]
fn short_junk_is_corrupt() {
    for byte in 1..=u8::MAX {
        for len in 1..8 {
            for at in 0..len {
                let mut file = vec![0; len];
                file[at] = byte;
                let expected =
                    if at == 0 && byte == b'C' { Judgement::Interrupted(None) } else { Judgement::Corrupt };
                assert_eq!(Judgement::from(examine(&file)), expected, "{file:02x?}");
            }
        }
    }
}

/// Something like a header, cut off, damaged and with something behind it.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![Just(0), Just(1), Just(0x934b), any::<u16>()];
    let len = prop_oneof![0..20_usize, 4090..4100_usize, 0..6000_usize];
    let damage = prop::collection::vec((prop_oneof![0..16_usize, 0..5000_usize], any::<u8>()), 0..3);
    (any::<bool>(), version, 0..=16_usize, len, damage).prop_map(|(is_v1, version, written, len, damage)| {
        let whole = header(if is_v1 { V1 } else { V0 }, version).encode();
        let mut file = with_zeros(&whole[..written.min(whole.len())], written.max(len));
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_file_is_judged_as_by_trying_every_header(file in any_file()) {
        check(&file);
    }

    #[test]
    fn what_a_creation_leaves_is_completed_and_data_never_is(
        is_v1: bool,
        version: u16,
        data in prop::collection::vec(any::<u8>(), 1..5000),
    ) {
        let header = header(if is_v1 { V1 } else { V0 }, version);
        let file = [header.encode(), data].concat();
        prop_assert_eq!(examine(&file), Finding::Whole(header));
    }

    #[test]
    fn bytes_of_any_kind_are_judged(file in prop::collection::vec(any::<u8>(), 0..5000)) {
        check(&file);
    }
}
