//! What is done to names, call by call, on the simulated disk, and in `real` what only a real file system has.

mod real;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Fs, OpenOptions};

use super::{Prepared, Wanted, open, partitions, remove, remove_partition, scan};
use crate::blob::names::Key;
use crate::error::{Code, Error, Result};
use crate::format::blob::{Header, Layout};

const ROOT: &str = "/store";
const NAME: &[u8] = b"hello";
const PATH: &str = "/store/one/68656c6c6f";

const BOTH: [Layout; 2] = [Layout::V0, Layout::V1];

const WANTED: Wanted = Wanted {
    layout: Layout::V1,
    versions: (0, 0),
    create: true,
    file_mode: 0o600,
    lock_timeout: Duration::from_millis(250),
};

/// Only what is there.
const FOUND: Wanted = Wanted { create: false, ..WANTED };

/// A machine with an empty store, and its calls.
struct Store {
    sim: Sim,
    fs: Arc<dyn Fs>,
}

impl Store {
    fn new() -> Self {
        let sim = Sim::new(1);
        sim.make_dir(ROOT);
        Self { fs: sim.fs(), sim }
    }

    /// With one blob of these bytes, header included.
    fn holding(bytes: &[u8]) -> Self {
        let store = Self::new();
        store.sim.write_file(PATH, bytes);
        store
    }

    fn open(&self, wanted: &Wanted) -> Result<Prepared> {
        open(&*self.fs, Path::new(ROOT), &key(), wanted)
    }

    fn scan(&self) -> Result<Vec<Vec<u8>>> {
        scan(&*self.fs, Path::new(ROOT), "one")
    }

    fn remove(&self) -> Result<()> {
        remove(&*self.fs, Path::new(ROOT), &key())
    }

    fn remove_partition(&self) -> Result<()> {
        remove_partition(&*self.fs, Path::new(ROOT), "one")
    }
}

fn key() -> Key {
    Key::new("one".to_owned(), NAME.to_vec()).expect("a valid name")
}

/// The error is of this case, and says which blob.
fn assert_about_the_blob(error: &Error, code: Code) {
    assert_eq!(error.code, code, "{error:?}");
    assert_eq!((error.partition.as_deref(), error.name.as_deref()), (Some("one"), Some(NAME)), "{error:?}");
}

/// The error is of this case, and says which partition.
fn assert_about_the_partition(error: &Error, code: Code) {
    assert_eq!((error.code, error.partition.as_deref()), (code, Some("one")), "{error:?}");
    assert!(error.path.as_deref().is_some_and(|path| path.starts_with("/store/one")), "{error:?}");
}

// Opening

#[test]
fn a_new_blob_is_its_header_and_nothing_else() {
    for layout in BOTH {
        let store = Store::new();
        let made = store.open(&Wanted { layout, versions: (1, 0x0203), ..WANTED }).expect("opens");
        let header = Header { layout, version: 0x0203 };
        assert_eq!((made.header, made.size, made.is_new, made.partition_is_new), (header, 0, true, true));
        assert_eq!(store.sim.read_file(PATH), header.encode());
        drop(made);

        let found = store.open(&Wanted { versions: (0, u16::MAX), ..FOUND }).expect("opens");
        assert_eq!(
            (found.header, found.size, found.is_new, found.partition_is_new),
            (header, 0, false, false)
        );
    }
}

#[test]
fn a_blob_keeps_the_layout_it_was_made_in() {
    for (layout, other) in [(Layout::V0, Layout::V1), (Layout::V1, Layout::V0)] {
        let mut bytes = Header { layout, version: 0 }.encode();
        bytes.extend(b"some data");
        let store = Store::holding(&bytes);
        let found = store.open(&Wanted { layout: other, ..WANTED }).expect("opens");
        assert_eq!((found.header.layout, found.size, found.is_new), (layout, 9, false));
        assert_eq!(store.sim.read_file(PATH), bytes);
    }
}

#[test]
fn an_interrupted_creation_is_completed() {
    // Every prefix of a header, with zeros behind it up to each length of interest, under a store of either layout: the
    // prefix's layout where it names one, the store's otherwise, and the version that is wanted now.
    for (named, version, layout) in BOTH
        .into_iter()
        .flat_map(|named| [0, 0x1234].map(|version| (named, version)))
        .flat_map(|(named, version)| BOTH.map(|layout| (named, version, layout)))
    {
        let header = Header { layout: named, version }.encode();
        for written in 0..=12.min(header.len() - 1) {
            for len in [written, 7, 8, 9, 512, 4095, 4096] {
                let mut bytes = header[..written].to_vec();
                bytes.resize(len.max(written), 0);
                let is_whole_v0 = named == Layout::V0 && written >= 4 && bytes.len() >= 8;
                let is_whole_v1 = bytes == header;
                if is_whole_v0 || is_whole_v1 {
                    continue;
                }
                let store = Store::holding(&bytes);
                let case =
                    format!("{written} bytes of {named:?} {version:#x}, {len} in all, a store of {layout:?}");
                let made = store.open(&Wanted { layout, versions: (5, 7), ..FOUND });
                let made = made.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                let header = Header { layout: if written < 4 { layout } else { named }, version: 7 };
                assert_eq!((made.header, made.size, made.is_new), (header, 0, true), "{case}");
                assert_eq!(store.sim.read_file(PATH), header.encode(), "{case}");
            }
        }
    }
}

#[test]
fn what_is_corrupt_is_reported_and_left_as_it_is() {
    let v1 = Header { layout: Layout::V1, version: 0 }.encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = v1.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        (b"junk".to_vec(), "4 bytes"),
        (vec![0; 4097], "magic"),
        (b"CWID\0\0\0\0".to_vec(), "magic"),
        (b"CWIC\0\x01\0\0".to_vec(), "layout version 1"),
        (with(5, 0), "layout version 0"),
        (with(8, v1[8] ^ 1), "checksum"),
        (with(4095, 1), "byte 4095"),
        ([&with(12, 7)[..], b"data"].concat(), "byte 12"),
    ];
    for (bytes, reason) in cases {
        let store = Store::holding(&bytes);
        let before = store.sim.snapshot();
        for wanted in [WANTED, FOUND] {
            let error = store.open(&wanted).expect_err("it is corrupt");
            assert_about_the_blob(&error, Code::BlobCorrupt);
            assert_eq!(error.path.as_deref(), Some(Path::new(PATH)));
            assert!(error.reason.as_ref().is_some_and(|found| found.contains(reason)), "{error:?}, {reason}");
        }
        assert!(store.sim.snapshot() == before, "not a byte changed: {reason}");
    }
}

#[test]
fn a_version_out_of_range_is_a_mismatch_with_both_values() {
    for layout in BOTH {
        let store = Store::holding(&Header { layout, version: 3 }.encode());
        let before = store.sim.snapshot();
        for (versions, expected) in [((0, 2), "0 to 2"), ((4, 9), "4 to 9"), ((0, 0), "0")] {
            let error = store.open(&Wanted { versions, ..WANTED }).expect_err("another version");
            assert_about_the_blob(&error, Code::BlobVersionMismatch);
            assert_eq!((error.found.as_deref(), error.expected.as_deref()), (Some("3"), Some(expected)));
        }
        for versions in [(3, 3), (0, 3), (3, u16::MAX)] {
            assert_eq!(store.open(&Wanted { versions, ..WANTED }).expect("opens").header.version, 3);
        }
        assert!(store.sim.snapshot() == before);
    }
}

#[test]
fn nothing_is_made_where_nothing_is_to_be_made() {
    let store = Store::new();
    assert_about_the_partition(&store.open(&FOUND).expect_err("no partition"), Code::BlobPartitionMissing);
    store.sim.make_dir("/store/one");
    let error = store.open(&FOUND).expect_err("no blob");
    assert_about_the_blob(&error, Code::BlobMissing);
    assert_eq!(error.path.as_deref(), Some(Path::new(PATH)));
    assert!(store.sim.list("/store/one").is_empty());
}

#[test]
fn a_directory_is_no_blob_and_a_file_is_no_partition() {
    let store = Store::new();
    store.sim.make_dir(PATH);
    let error = store.open(&WANTED).expect_err("a directory");
    assert_about_the_blob(&error, Code::BlobOpenFailed);
    assert_eq!((error.syscall, error.errno), (Some("open"), Some(EISDIR)));

    let store = Store::new();
    store.sim.write_file("/store/one", b"");
    for wanted in [WANTED, FOUND] {
        let error = store.open(&wanted).expect_err("a file");
        assert_about_the_partition(&error, Code::BlobPartitionCreationFailed);
    }
    for error in [store.scan().map(drop), store.remove(), store.remove_partition()] {
        assert_about_the_partition(&error.expect_err("a file"), Code::BlobPartitionCorrupt);
    }
    assert_eq!(store.sim.read_file("/store/one"), b"");
}

#[test]
fn a_locked_blob_is_waited_for_and_not_looked_at() {
    let store = Store::holding(b"what a dead owner may still be writing");
    let held = store.fs.open(Path::new(PATH), OpenOptions::WRITE).expect("opens");
    assert_eq!(store.fs.try_lock(&held), Ok(true));
    let before = store.fs.now();
    let error = store.open(&WANTED).expect_err("it is locked");
    assert_about_the_blob(&error, Code::BlobOpenFailed);
    assert!(error.message.contains("locked"), "{error:?}");
    assert!(store.fs.now().since(before) >= WANTED.lock_timeout);
    drop(held);
    // Free, and now it is judged.
    assert_about_the_blob(&store.open(&WANTED).expect_err("corrupt"), Code::BlobCorrupt);
}

#[test]
fn an_open_blob_is_locked_against_every_other_store() {
    let store = Store::new();
    let made = store.open(&WANTED).expect("opens");
    let other = store.fs.open(Path::new(PATH), OpenOptions::WRITE).expect("opens");
    assert_eq!(store.fs.try_lock(&other), Ok(false));
    drop(made);
    assert_eq!(store.fs.try_lock(&other), Ok(true));
}

// Removing

#[test]
fn a_removed_blob_is_gone_and_what_is_not_there_is_named() {
    let store = Store::new();
    assert_about_the_partition(&store.remove().expect_err("no partition"), Code::BlobPartitionMissing);
    store.open(&WANTED).expect("opens");
    store.remove().expect("removes");
    let error = store.remove().expect_err("no blob");
    assert_about_the_blob(&error, Code::BlobMissing);
    assert!(store.sim.list("/store/one").is_empty());
}

#[test]
fn a_removed_partition_takes_everything_in_it_along() {
    let store = Store::new();
    let error = store.remove_partition().expect_err("no partition");
    assert_about_the_partition(&error, Code::BlobPartitionMissing);
    store.open(&WANTED).expect("opens");
    store.sim.write_file("/store/one/NOT-OURS", b"");
    store.sim.write_file("/store/one/.temporary", b"");
    store.remove_partition().expect("removes");
    assert!(store.sim.list(ROOT).is_empty());
}

#[test]
fn a_partition_with_a_directory_in_it_is_left_whole() {
    let store = Store::new();
    store.open(&WANTED).expect("opens");
    store.sim.make_dir("/store/one/zz");
    let before = store.sim.snapshot();
    let error = store.remove_partition().expect_err("there is a directory");
    assert_about_the_partition(&error, Code::BlobPartitionCorrupt);
    assert_eq!(error.found.as_deref(), Some("zz"));
    assert!(store.sim.snapshot() == before);
}

// Listing

#[test]
fn names_are_listed_in_the_order_of_their_bytes() {
    let store = Store::new();
    assert_about_the_partition(&store.scan().expect_err("no partition"), Code::BlobPartitionMissing);
    let mut names = [&b"b"[..], b"a", b"ab", b"\0", b"\xff", b"a\0"].map(<[u8]>::to_vec);
    for name in &names {
        let key = Key::new("one".to_owned(), name.clone()).expect("a valid name");
        open(&*store.fs, Path::new(ROOT), &key, &WANTED).expect("opens");
    }
    store.sim.write_file("/store/one/.temporary", b"");
    names.sort();
    assert_eq!(store.scan().expect("lists"), names);
}

#[test]
fn what_is_no_blob_makes_its_partition_corrupt_and_the_first_is_named() {
    for (stray, is_directory) in [("0", false), ("AB", false), ("xy", false), ("ab", true)] {
        let store = Store::new();
        store.sim.write_file("/store/one/zz", b"");
        let path = Path::new("/store/one").join(stray);
        if is_directory {
            store.sim.make_dir(&path);
        } else {
            store.sim.write_file(&path, b"");
        }
        let error = store.scan().expect_err("a stray entry");
        assert_about_the_partition(&error, Code::BlobPartitionCorrupt);
        assert_eq!(error.found.as_deref(), Some(stray));
        assert_eq!(error.path.as_deref(), Some(&*path));
    }
}

#[test]
fn partitions_are_directories_that_a_partition_may_be_called() {
    let store = Store::new();
    let list = || partitions(&*store.fs, Path::new(ROOT)).expect("lists");
    assert!(list().is_empty());
    for name in ["b", "A-1_x", "a", "lost+found", ".dot"] {
        store.sim.make_dir(Path::new(ROOT).join(name));
    }
    store.sim.write_file("/store/.hold", b"");
    store.sim.write_file("/store/file", b"");
    assert_eq!(list(), ["A-1_x", "a", "b"]);
}

// What the system says

const EIO: i32 = 5;
const EEXIST: i32 = 17;
const EISDIR: i32 = 21;

#[test]
fn a_failed_call_is_told_with_all_that_is_known_of_it() {
    let steps = [
        (Call::Stat, Code::BlobPartitionCreationFailed, "lstat", 0),
        (Call::CreateDir, Code::BlobPartitionCreationFailed, "mkdir", 0),
        (Call::Stat, Code::BlobOpenFailed, "lstat", 1),
        (Call::Open, Code::BlobOpenFailed, "open", 0),
        (Call::Lock, Code::BlobOpenFailed, "flock", 0),
        (Call::Len, Code::BlobOpenFailed, "fstat", 0),
        (Call::Write, Code::BlobOpenFailed, "pwrite", 0),
    ];
    for (call, code, syscall, skip) in steps {
        for layout in BOTH {
            let store = Store::new();
            store.sim.fail(Fault::new(call).skip(skip));
            let error = store.open(&Wanted { layout, ..WANTED }).expect_err("a call fails");
            match code {
                Code::BlobOpenFailed => assert_about_the_blob(&error, code),
                _ => assert_about_the_partition(&error, code),
            }
            assert_eq!((error.syscall, error.errno), (Some(syscall), Some(EIO)), "{error:?}");
            assert!(error.path.is_some(), "{error:?}");
            // Whatever it left is a creation that the next open completes.
            let made = store.open(&Wanted { layout, ..WANTED }).expect("opens");
            assert_eq!(made.header.layout, layout);
            assert_eq!(store.sim.read_file(PATH), made.header.encode());
        }
    }

    let store = Store::holding(&Header { layout: Layout::V1, version: 0 }.encode());
    store.sim.fail(Fault::new(Call::Read));
    let error = store.open(&WANTED).expect_err("a call fails");
    assert_about_the_blob(&error, Code::BlobOpenFailed);
    assert_eq!((error.syscall, error.errno, error.offset), (Some("pread"), Some(EIO), Some(0)));

    store.sim.fail(Fault::new(Call::Remove));
    let error = store.remove().expect_err("a call fails");
    assert_about_the_blob(&error, Code::BlobOpenFailed);
    assert_eq!((error.syscall, error.errno), (Some("unlink"), Some(EIO)));

    for (call, syscall) in [(Call::Remove, "unlink"), (Call::RemoveDir, "rmdir"), (Call::List, "readdir")] {
        let store = Store::holding(b"");
        store.sim.fail(Fault::new(call));
        let error = store.remove_partition().expect_err("a call fails");
        assert_about_the_partition(&error, Code::BlobStoreIo);
        assert_eq!((error.syscall, error.errno), (Some(syscall), Some(EIO)));
        store.remove_partition().expect("goes on where it was");
    }
}

#[test]
fn a_partition_that_somebody_else_makes_just_now_is_taken_for_new() {
    let store = Store::new();
    // The look says that there is none, and the making that there is one.
    store.sim.fail(Fault::new(Call::CreateDir).errno(EEXIST));
    let error = store.open(&WANTED).expect_err("here there is really none");
    assert_about_the_blob(&error, Code::BlobMissing);
}
