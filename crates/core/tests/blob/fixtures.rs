//! The files that commonware-runtime wrote (`fixtures/commonware`): each blob reads equal to its listing, nothing that
//! only looks changes a byte, and what we write is the same, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringbolt_core::Code;
use ringbolt_core::blob::{BlobRequest, Layout, Options};

use crate::desk::{self, everywhere};

const BOTH: [Layout; 2] = [Layout::V0, Layout::V1];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/commonware")
}

/// The storage directory in this layout.
fn files(layout: Layout) -> BTreeMap<PathBuf, Vec<u8>> {
    let directory = match layout {
        Layout::V0 => "2026.4.0-v0",
        Layout::V1 => "2026.10.0-v1",
    };
    desk::files_under(&fixtures().join(directory))
}

/// A line of the listing.
struct Listed {
    partition: String,
    file_name: String,
    name: Vec<u8>,
    version: u16,
    length: u64,
    crc: u32,
    start: Vec<u8>,
}

fn listing() -> Vec<Listed> {
    let text = std::fs::read_to_string(fixtures().join("expected.txt")).expect("the listing is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [partition, name, version, length, crc, start] = fields[..] else { panic!("{line}") };
            Listed {
                partition: partition.to_owned(),
                file_name: name.to_owned(),
                name: bytes_of(name),
                version: version.parse().expect("a number"),
                length: length.parse().expect("a number"),
                crc: u32::from_str_radix(crc, 16).expect("hex"),
                start: bytes_of(start.trim_matches('-')),
            }
        })
        .collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn contents_of(files: &BTreeMap<PathBuf, Vec<u8>>, listed: &Listed, layout: Layout) -> Vec<u8> {
    let file = &files[&Path::new(&listed.partition).join(&listed.file_name)];
    file[usize::try_from(layout.data_at()).expect("64 bits")..].to_vec()
}

#[test]
fn the_files_are_what_the_listing_says() {
    for layout in BOTH {
        let files = files(layout);
        let listing = listing();
        assert_eq!((files.len(), listing.len()), (12, 12));
        for listed in listing {
            let contents = contents_of(&files, &listed, layout);
            assert_eq!(contents.len() as u64, listed.length, "{}", listed.file_name);
            assert_eq!(crc32fast::hash(&contents), listed.crc, "{}", listed.file_name);
            assert!(contents.starts_with(&listed.start) && listed.start.len() == contents.len().min(16));
        }
    }
}

#[test]
fn what_commonware_wrote_is_opened_scanned_and_read_and_stays_as_it_is() {
    everywhere(|place| {
        // Whatever new blobs would get.
        for (layout, ours) in BOTH.into_iter().flat_map(|layout| BOTH.map(|ours| (layout, ours))) {
            let files = files(layout);
            let place = place.another();
            for (path, bytes) in &files {
                place.write(path, bytes);
            }
            let options = Options { layout: ours, create: false, ..place.options() };
            let mut desk = place.open_with(options).expect("opens");
            assert_eq!(desk.partitions(), ["alpha"]);
            let names: Vec<_> = listing().into_iter().map(|listed| listed.name).collect();
            assert_eq!(desk.scan("alpha").expect("scans"), names);
            for listed in listing() {
                let opened = desk.open_with(&listed.partition, &listed.name, (0, 7), false);
                let (blob, version) = opened.expect("opens");
                assert_eq!((version, desk.size(blob)), (listed.version, listed.length));
                let expected = contents_of(&files, &listed, layout);
                assert!(desk.contents(blob) == expected, "{}", listed.file_name);
                for (from, to) in [(0, 1), (1, 5000), (4087, 4097), (8191, 65_537)] {
                    let (from, to) = (expected.len().min(from), expected.len().min(to));
                    for cached in [true, false] {
                        let read = desk.read(blob, from as u64, to - from, cached);
                        assert!(read == expected[from..to], "{}: {from} to {to}", listed.file_name);
                    }
                }
                desk.of(blob, BlobRequest::Sync).expect("syncs");
                desk.of(blob, BlobRequest::Close).expect("closes");
                let refused = desk.open_with(&listed.partition, &listed.name, (1, u16::MAX), true);
                assert_eq!(refused.expect_err("another version").code, Code::BlobVersionMismatch);
            }
            desk.close();
            assert!(place.files() == files, "{layout:?}: something was changed");
        }
    });
}

#[test]
fn what_we_write_is_what_commonware_writes() {
    everywhere(|place| {
        for layout in BOTH {
            let files = files(layout);
            let place = place.another();
            let mut desk = place.open_in(layout);
            for listed in listing() {
                let blob = desk.open(&listed.partition, &listed.name).expect("opens");
                let contents = contents_of(&files, &listed, layout);
                match &*listed.name {
                    b"gap" => desk.write(blob, 10_000, &contents[10_000..]),
                    b"shrunk" => {
                        desk.write(blob, 0, &[&contents[..], &[0xee; 3000]].concat());
                        desk.of(blob, BlobRequest::Resize { length: listed.length }).expect("resizes");
                    }
                    b"grown" => {
                        let zeros = contents.iter().rev().take_while(|&&byte| byte == 0).count();
                        assert!(zeros > 0, "what it grew by is zeros");
                        desk.write(blob, 0, &contents[..contents.len() - zeros]);
                        desk.of(blob, BlobRequest::Resize { length: listed.length }).expect("resizes");
                    }
                    _ => desk.write(blob, 0, &contents),
                }
                desk.of(blob, BlobRequest::Sync).expect("syncs");
            }
            desk.close();
            assert!(place.files() == files, "{layout:?}: other bytes");
        }
    });
}

#[test]
fn both_layouts_lie_side_by_side_and_keep_theirs() {
    everywhere(|place| {
        place.open_in(Layout::V0).open("one", b"old").expect("makes");
        let mut desk = place.open_in(Layout::V1);
        desk.open("one", b"new").expect("makes");
        let old = desk.open("one", b"old").expect("opens");
        desk.write(old, 0, b"data");
        desk.close();
        let lengths: Vec<_> = place.files().into_values().map(|bytes| bytes.len()).collect();
        assert_eq!(lengths, [4096, 12]);
    });
}
