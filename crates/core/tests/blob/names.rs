//! Names: which there can be, what is made of what lies under them, and what each call answers that cannot be done.

use ringbolt_core::blob::{BlobRequest, Layout, Options};
use ringbolt_core::format::blob::Header;
use ringbolt_core::{Code, Error};
use ringbolt_disk::sim::{Call, Fault};
use ringbolt_disk::{Access, Create, OpenOptions};

use crate::desk::{Desk, Place, everywhere};

/// The file name of the blob `name`.
pub(crate) const NAME: &str = "6e616d65";

pub(crate) fn header(layout: Layout, version: u16) -> Vec<u8> {
    Header { layout, version }.encode()
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.expect_err("it is refused").code
}

/// That every call about it answers this, and nothing is made.
fn refuses_everything(place: &Place, desk: &mut Desk, partition: &str, name: &[u8], expected: Code) {
    let before = place.files();
    for create in [false, true] {
        let error = desk.open_with(partition, name, (0, 0), create).expect_err("it is refused");
        assert_eq!(error.code, expected, "{error:?}");
        assert_eq!(error.partition.as_deref(), Some(partition));
    }
    assert_eq!(code(desk.remove(partition, Some(name))), expected);
    assert_eq!(place.files(), before);
}

#[test]
fn names_that_cannot_be_are_refused_and_nothing_is_made() {
    everywhere(|place| {
        let mut desk = place.open();
        let long = "a".repeat(256);
        for partition in
            ["", ".", "..", "../one", "one/two", "/one", "o.ne", ".hold", "o ne", "öne", "a\0", &*long]
        {
            refuses_everything(place, &mut desk, partition, b"name", Code::BlobPartitionNameInvalid);
            assert_eq!(code(desk.scan(partition)), Code::BlobPartitionNameInvalid);
            assert_eq!(code(desk.remove(partition, None)), Code::BlobPartitionNameInvalid);
        }
        for name in [&[][..], &[1; 128], &[1; 1000]] {
            refuses_everything(place, &mut desk, "one", name, Code::BlobNameInvalid);
        }
        assert!(desk.partitions().is_empty() && place.files().is_empty());
    });
}

#[test]
fn names_at_the_limits_are_made_listed_and_removed() {
    everywhere(|place| {
        let mut desk = place.open();
        let long = "a".repeat(255);
        let mut partitions = ["-", "0", "Z", "_", "one", &*long];
        partitions.sort_unstable();
        let mut names = [&[0][..], &[0, 0], b"/", b"..", &[0xff], &[0xff; 127], "ключ".as_bytes()];
        names.sort_unstable();
        for partition in partitions {
            for name in names {
                desk.open(partition, name).expect("makes");
            }
            assert_eq!(desk.scan(partition).expect("scans"), names);
        }
        assert_eq!(desk.partitions(), partitions);
        for name in names {
            desk.remove(&long, Some(name)).expect("removes");
        }
        assert!(desk.scan(&long).expect("scans").is_empty(), "a partition stays when its blobs are gone");
        desk.remove(&long, None).expect("removes");
        desk.remove("-", None).expect("removes");
        assert_eq!(desk.partitions(), ["0", "Z", "_", "one"]);
    });
}

#[test]
fn what_is_missing_is_told_apart_and_not_made() {
    everywhere(|place| {
        let mut desk = place.open();
        for again in [false, true] {
            if again {
                desk.open("one", b"name").expect("makes");
                desk.remove("one", None).expect("removes");
            }
            let error = desk.open_with("one", b"name", (0, 0), false).expect_err("there is none");
            assert_eq!((error.code, error.partition.as_deref()), (Code::BlobPartitionMissing, Some("one")));
            assert_eq!(error.path.as_deref(), Some(&*place.path("one")));
            assert_eq!(code(desk.scan("one")), Code::BlobPartitionMissing);
            assert_eq!(code(desk.remove("one", None)), Code::BlobPartitionMissing);
            assert_eq!(code(desk.remove("one", Some(b"name"))), Code::BlobPartitionMissing);
            assert!(desk.partitions().is_empty(), "nothing is made by asking");
        }
        desk.open("one", b"other").expect("makes");
        let before = place.files();
        let error = desk.open_with("one", b"name", (0, 0), false).expect_err("there is none");
        assert_eq!((error.code, error.name.as_deref()), (Code::BlobMissing, Some(&b"name"[..])));
        assert_eq!(error.path.as_ref(), Some(&place.path("one").join(NAME)));
        assert_eq!(code(desk.remove("one", Some(b"name"))), Code::BlobMissing);
        assert_eq!(place.files(), before);
    });
}

#[test]
fn a_corrupt_blob_is_reported_and_left_as_it_is() {
    let whole = header(Layout::V1, 0);
    let mut padding = whole.clone();
    padding[4000] = 1;
    let mut checksum = whole.clone();
    checksum[9] ^= 1;
    let mut layout = header(Layout::V0, 0);
    layout[5] = 9;
    let mut files = vec![
        (padding, "byte 4000 of the header's padding is not zero"),
        (checksum, "header checksum"),
        (layout, "unsupported layout version 9"),
        (b"CWIX0000 and something behind".to_vec(), "invalid magic"),
        (vec![0; 4097], "invalid magic [00, 00, 00, 00]"),
        (vec![0xff; 10_000], "invalid magic"),
    ];
    // Commonware would make a new blob of these.
    files.extend((1..8).map(|len| (b"junkjun"[..len].to_vec(), "too few for a header")));
    everywhere(|place| {
        let place = place.another();
        place.write(format!("one/{NAME}"), header(Layout::V1, 0));
        let mut desk = place.open();
        for (bytes, reason) in &files {
            place.write("one/00", bytes);
            let before = place.files();
            for (versions, create) in [((0, 0), false), ((0, 0), true), ((3, 9), true)] {
                let error = desk.open_with("one", &[0], versions, create).expect_err("it is corrupt");
                assert_eq!((error.code, error.name.as_deref()), (Code::BlobCorrupt, Some(&[0][..])));
                assert_eq!(error.path.as_ref(), Some(&place.path("one/00")));
                assert!(error.reason.as_ref().is_some_and(|said| said.contains(reason)), "{error:?}");
            }
            assert!(desk.scan("one").expect("names are no bytes").contains(&vec![0]));
            let blob = desk.open("one", b"name").expect("others are not concerned");
            desk.of(blob, BlobRequest::Close).expect("closes");
            assert!(place.files() == before, "{reason}");
        }
        desk.close();
        let mut desk = place.open();
        assert_eq!(code(desk.open("one", &[0])), Code::BlobCorrupt, "nor by an open of the store");
        desk.remove("one", Some(&[0])).expect("removes");
        desk.open("one", &[0]).expect("makes");
        assert_eq!(place.read("one/00"), header(Layout::V1, 0));
    });
}

#[test]
fn an_interrupted_creation_is_completed_in_the_layout_it_names() {
    let mut left: Vec<(Vec<u8>, Option<Layout>)> = Vec::new();
    for len in [0, 1, 4, 7, 8, 9, 12, 4095, 4096] {
        left.push((vec![0; len], None));
        for layout in [Layout::V0, Layout::V1] {
            // Of another version than is asked for now: nobody was told of it.
            let whole = header(layout, 0x0102);
            for written in [1, 3, 4, 5, 6, 7, 8, 11, 12].into_iter().filter(|&written| written <= len) {
                if written >= whole.len() {
                    continue;
                }
                let mut bytes = whole[..written].to_vec();
                bytes.resize(len, 0);
                let is_whole = match layout {
                    Layout::V0 => written >= 4 && len >= 8,
                    Layout::V1 => written == 12 && len == 4096,
                };
                if !is_whole {
                    left.push((bytes, (written >= 4).then_some(layout)));
                }
            }
        }
    }
    everywhere(|place| {
        for ours in [Layout::V0, Layout::V1] {
            let place = place.another();
            let mut desk = place.open_in(ours);
            for (bytes, named) in &left {
                for create in [false, true] {
                    place.write("one/00", bytes);
                    let (blob, version) = desk.open_with("one", &[0], (2, 7), create).expect("completes");
                    assert_eq!((version, desk.size(blob)), (7, 0));
                    assert_eq!(place.read("one/00"), header(named.unwrap_or(ours), 7), "{bytes:02x?}");
                    desk.write(blob, 3, b"data");
                    assert_eq!(desk.contents(blob), b"\0\0\0data");
                    desk.of(blob, BlobRequest::Close).expect("closes");
                    desk.remove("one", Some(&[0])).expect("removes");
                }
            }
        }
    });
}

#[test]
fn a_version_is_in_the_range_or_the_blob_is_left_alone() {
    everywhere(|place| {
        let mut desk = place.open();
        assert_eq!(desk.open_with("one", b"name", (2, 5), true).expect("makes").1, 5, "the largest");
        let expected = header(Layout::V1, 5);
        for is_open in [true, false] {
            for versions in [(5, 5), (0, 5), (5, 9), (0, u16::MAX)] {
                let (blob, version) = desk.open_with("one", b"name", versions, true).expect("opens");
                assert_eq!(version, 5);
                desk.of(blob, BlobRequest::Close).expect("closes");
            }
            for (versions, text) in [((0, 4), "0 to 4"), ((6, 6), "6"), ((6, u16::MAX), "6 to 65535")] {
                let error = desk.open_with("one", b"name", versions, true).expect_err("another version");
                assert_eq!(error.code, Code::BlobVersionMismatch);
                assert_eq!((error.found.as_deref(), error.expected.as_deref()), (Some("5"), Some(text)));
            }
            assert_eq!(place.read(format!("one/{NAME}")), expected);
            if is_open {
                desk = place.reopen(desk);
            }
        }
        let before = place.files();
        for name in [&b"name"[..], b"new"] {
            let refused = desk.open_with("one", name, (9, 3), true);
            assert_eq!(code(refused), Code::BlobVersionMismatch, "no version is in an empty range");
        }
        assert_eq!(code(desk.open_with("two", b"new", (9, 3), true)), Code::BlobVersionMismatch);
        assert_eq!(desk.partitions(), ["one"]);
        assert_eq!(place.files(), before);
    });
}

#[test]
fn what_is_no_blob_in_a_partition_is_named_by_scan() {
    everywhere(|place| {
        let place = place.another();
        place.write(format!("one/{NAME}"), header(Layout::V1, 0));
        // Not ours, or ours for a moment.
        for skipped in [".tmp", ".6e61", ".", ".ABC"] {
            if skipped != "." {
                place.write(format!("one/{skipped}"), b"whatever");
            }
        }
        place.make_dir("one/.directory");
        let mut desk = place.open();
        assert_eq!(desk.scan("one").expect("scans"), [b"name"]);
        for stray in ["6E616D65", "6e6", "0", "zz", "6e616d65.tmp", "a b", "é"] {
            place.write(format!("one/{stray}"), header(Layout::V1, 0));
            let error = desk.scan("one").expect_err("there is a stray entry");
            assert_eq!((error.code, error.found.as_deref()), (Code::BlobPartitionCorrupt, Some(stray)));
            assert_eq!(error.path.as_ref(), Some(&place.path("one").join(stray)));
            desk.open_with("one", b"name", (0, 0), false).expect("blobs are not concerned");
            place.remove_file(format!("one/{stray}"));
        }
        place.write("one/zz", b"");
        place.write("one/0g", b"");
        assert_eq!(desk.scan("one").expect_err("two of them").found.as_deref(), Some("0g"), "the first");
        desk.close();
        for name in ["zz", "0g"] {
            place.remove_file(format!("one/{name}"));
        }
        place.make_dir("one/00");
        let error = place.open().scan("one").expect_err("a directory");
        assert_eq!((error.code, error.found.as_deref()), (Code::BlobPartitionCorrupt, Some("00")));
    });
}

#[test]
fn what_is_no_partition_in_the_root_is_skipped() {
    everywhere(|place| {
        let place = place.another();
        for directory in ["two", "one", "o.ne", ".one", "lost+found", "é"] {
            place.make_dir(directory);
        }
        place.write("file", b"");
        assert_eq!(place.open().partitions(), ["one", "two"]);
    });
}

#[test]
fn the_root_must_be_a_directory_and_be_there_or_be_made() {
    everywhere(|place| {
        let place = place.another();
        let error = place.open_with(Options { create: false, ..place.options() }).expect_err("none there");
        assert_eq!((error.code, error.path.as_deref()), (Code::BlobStoreNotFound, Some(&*place.root())));
        assert!(!place.exists(), "nothing is made");
        place.open_with(Options { directory: place.path("far/below"), ..place.options() }).expect("makes");
        place.open_with(Options { create: false, ..place.options() }).expect("it is there now");

        let place = place.another();
        place.write("file", b"mine");
        for directory in [place.path("file"), place.path("file/below")] {
            let error = place.open_with(Options { directory, ..place.options() }).expect_err("a file");
            assert_eq!((error.code, error.errno.is_some()), (Code::BlobStoreIo, true), "{error:?}");
        }
        assert_eq!(place.read("file"), b"mine");
        place.make_dir(".hold");
        assert_eq!(code(place.open_with(place.options())), Code::BlobStoreIo);
    });
}

#[test]
fn a_file_in_a_partitions_place_is_left_alone() {
    everywhere(|place| {
        let place = place.another();
        place.write("one", b"mine");
        let mut desk = place.open();
        for create in [false, true] {
            let error = desk.open_with("one", b"name", (0, 0), create).expect_err("a file");
            assert_eq!(error.code, Code::BlobPartitionCreationFailed);
            assert_eq!(error.path.as_deref(), Some(&*place.path("one")));
        }
        assert_eq!(code(desk.scan("one")), Code::BlobPartitionCorrupt);
        assert_eq!(code(desk.remove("one", None)), Code::BlobPartitionCorrupt);
        assert_eq!(code(desk.remove("one", Some(b"name"))), Code::BlobPartitionCorrupt);
        assert_eq!(place.read("one"), b"mine");
        assert!(desk.partitions().is_empty());
    });
}

#[test]
fn a_directory_in_a_blobs_place_is_left_alone() {
    everywhere(|place| {
        let place = place.another();
        place.make_dir(format!("one/{NAME}"));
        place.write(format!("one/{NAME}/below"), b"mine");
        let mut desk = place.open();
        for create in [false, true] {
            let error = desk.open_with("one", b"name", (0, 0), create).expect_err("a directory");
            assert_eq!((error.code, error.name.as_deref()), (Code::BlobOpenFailed, Some(&b"name"[..])));
        }
        assert_eq!(code(desk.remove("one", Some(b"name"))), Code::BlobOpenFailed);
        assert_eq!(place.read(format!("one/{NAME}/below")), b"mine");
    });
}

#[test]
fn a_partition_goes_with_all_that_is_in_it_but_not_with_a_directory() {
    everywhere(|place| {
        let place = place.another();
        let mut desk = place.open();
        let blob = desk.open("one", b"name").expect("makes");
        desk.write(blob, 0, b"data");
        desk.open("two", b"name").expect("makes");
        for file in ["one/ZZ", "one/.tmp", "one/00"] {
            place.write(file, b"junk");
        }
        place.make_dir("one/directory");
        let before = place.files();
        let error = desk.remove("one", None).expect_err("a directory");
        assert_eq!((error.code, error.found.as_deref()), (Code::BlobPartitionCorrupt, Some("directory")));
        assert_eq!(place.files(), before, "nothing is removed");
        desk.write(blob, 4, b"more");
        assert_eq!(desk.open_with("one", b"name", (0, 0), false).map(|_| ()), Ok(()));
        desk.close();

        place.remove_dir("one/directory");
        let mut desk = place.open();
        let blob = desk.open("one", b"name").expect("opens");
        desk.remove("one", None).expect("removes");
        assert_eq!(desk.partitions(), ["two"]);
        assert_eq!(desk.contents(blob), b"datamore", "who has it open goes on");
        let other = desk.open("one", b"name").expect("makes");
        assert_eq!(desk.size(other), 0, "and a new one is another");
        desk.write(blob, 0, b"old");
        assert_eq!((desk.size(other), desk.size(blob)), (0, 8));
        assert_eq!(place.files().len(), 2);
    });
}

#[test]
fn a_store_that_somebody_has_open_is_not_opened_and_the_holder_is_told() {
    everywhere(|place| {
        let desk = place.open();
        let error = place.open_with(place.impatient()).expect_err("it is open");
        assert_eq!((error.code, error.path.clone()), (Code::BlobStoreLocked, Some(place.path(".hold"))));
        let holder = String::from_utf8(place.read(".hold")).expect("text");
        assert_eq!(error.pid, Some(holder.parse().expect("a number")));
        if let Place::Real(..) = place {
            assert_eq!(error.pid, Some(std::process::id()));
        }
        place.write(".hold", b"nobody");
        assert_eq!(place.open_with(place.impatient()).expect_err("it is open").pid, None);
        desk.close();
        place.open().close();
    });
}

#[test]
fn a_blob_that_somebody_has_locked_is_not_opened() {
    let place = Place::sim();
    place.write(format!("one/{NAME}"), header(Layout::V1, 0));
    let Place::Sim(sim) = &place else { unreachable!("it is") };
    let fs = sim.disk().fs;
    let options = OpenOptions { access: Access::ReadWrite, create: Create::Never, direct: false };
    let held = fs.open(&place.path("one").join(NAME), options).expect("opens");
    assert!(fs.try_lock(&held).expect("locks"));
    let mut desk = place.open_with(place.impatient()).expect("opens");
    let error = desk.open("one", b"name").expect_err("somebody has it");
    assert_eq!(error.code, Code::BlobOpenFailed);
    assert!(error.to_string().contains("locked"), "{error:?}");
    desk.open("one", b"other").expect("others are not concerned");
    drop(held);
    desk.open("one", b"name").expect("opens");
}

#[test]
fn a_call_of_the_system_that_fails_is_told_as_what_was_being_done() {
    type Ask = fn(&mut Desk) -> Result<(), Error>;
    let open: Ask = |desk| desk.open("one", b"name").map(drop);
    let new: Ask = |desk| desk.open("new", b"name").map(drop);
    let scan: Ask = |desk| desk.scan("one").map(drop);
    let remove: Ask = |desk| desk.remove("one", Some(b"name"));
    let remove_partition: Ask = |desk| desk.remove("one", None);
    for (call, ask, expected) in [
        (Call::Open, open, Code::BlobOpenFailed),
        (Call::Lock, open, Code::BlobOpenFailed),
        (Call::Len, open, Code::BlobOpenFailed),
        (Call::Read, open, Code::BlobOpenFailed),
        (Call::CreateDir, new, Code::BlobPartitionCreationFailed),
        (Call::Write, new, Code::BlobOpenFailed),
        (Call::Sync, new, Code::BlobSyncFailed),
        (Call::SyncDir, new, Code::BlobSyncFailed),
        (Call::List, scan, Code::BlobStoreIo),
        (Call::Remove, remove, Code::BlobOpenFailed),
        (Call::SyncDir, remove, Code::BlobSyncFailed),
        (Call::List, remove_partition, Code::BlobStoreIo),
        (Call::Remove, remove_partition, Code::BlobStoreIo),
        (Call::RemoveDir, remove_partition, Code::BlobStoreIo),
        (Call::SyncDir, remove_partition, Code::BlobSyncFailed),
    ] {
        let place = Place::sim();
        place.write(format!("one/{NAME}"), header(Layout::V1, 0));
        let Place::Sim(sim) = &place else { unreachable!("it is") };
        let mut desk = place.open();
        sim.fail(Fault::new(call));
        let error = ask(&mut desk).expect_err("it fails");
        assert_eq!((error.code, error.errno), (expected, Some(5)), "{call:?}: {error:?}");
        assert!(error.partition.is_some(), "{call:?}: {error:?}");
        assert!(error.syscall.is_some(), "{call:?}: {error:?}");
    }
}
