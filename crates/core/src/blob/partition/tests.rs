//! What is done to names, call by call. Which names and files are taken for what, through the whole store, is in
//! `tests/blob/names.rs` and `file_system.rs`.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Fs, OpenOptions};

use super::{Prepared, Wanted, open, remove, remove_partition};
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
    is_suspect: false,
};

/// Only what is there.
const FOUND: Wanted = Wanted { create: false, ..WANTED };

const EIO: i32 = 5;
const EEXIST: i32 = 17;

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

    fn remove(&self) -> Result<()> {
        remove(&*self.fs, Path::new(ROOT), &key())
    }

    fn remove_partition(&self) -> Result<()> {
        remove_partition(&*self.fs, Path::new(ROOT), "one", &mut HashSet::new())
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
