//! Links, pipes, sockets, names that are no text, permissions.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringbolt_disk::os::OsFs;
use tempfile::TempDir;

use super::{BOTH, FOUND, NAME, WANTED, assert_about_the_blob, key};
use crate::blob::partition::{Wanted, open, partitions, remove, remove_partition, scan};
use crate::error::{Code, Error};
use crate::format::blob::Header;

const HEX: &str = "68656c6c6f";

/// A store with the partition `one`, and a directory that is none of its business.
struct Real {
    directory: TempDir,
}

impl Real {
    fn new() -> Self {
        let real = Self { directory: tempfile::tempdir().expect("a directory") };
        fs::create_dir_all(real.one()).expect("is made");
        fs::create_dir(real.elsewhere()).expect("is made");
        fs::write(real.elsewhere().join(HEX), Header { layout: WANTED.layout, version: 0 }.encode())
            .expect("writes");
        real
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn one(&self) -> PathBuf {
        self.root().join("one")
    }

    fn elsewhere(&self) -> PathBuf {
        self.directory.path().join("elsewhere")
    }

    fn open_error(&self, wanted: &Wanted) -> Error {
        open(&OsFs, &self.root(), &key(), wanted).expect_err("it does not open")
    }

    fn scan_error(&self) -> Error {
        scan(&OsFs, &self.root(), "one").expect_err("it is not listed")
    }
}

fn bits(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_blob_that_was_made_is_found_again_byte_for_byte() {
    for layout in BOTH {
        let real = Real::new();
        fs::remove_dir(real.one()).expect("is removed");
        let made = open(&OsFs, &real.root(), &key(), &Wanted { layout, ..WANTED }).expect("opens");
        assert!(made.is_new && made.partition_is_new && made.size == 0);
        assert_eq!(fs::read(real.one().join(HEX)).expect("reads"), made.header.encode());
        assert_eq!((bits(real.one()), bits(real.one().join(HEX))), (0o700, 0o600));
        drop(made);

        let found = open(&OsFs, &real.root(), &key(), &FOUND).expect("opens");
        assert!(!found.is_new && !found.partition_is_new && found.header.layout == layout);
        assert_eq!(scan(&OsFs, &real.root(), "one").expect("lists"), [NAME]);
        assert_eq!(partitions(&OsFs, &real.root()).expect("lists"), ["one"]);
        remove(&OsFs, &real.root(), &key()).expect("removes");
        remove_partition(&OsFs, &real.root(), "one").expect("removes");
        assert!(partitions(&OsFs, &real.root()).expect("lists").is_empty());
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    // A pipe without a writer would block whoever opens it, and a link would let a blob be made anywhere.
    type Make = fn(&Real, &Path);
    let makes: [(&str, Make); 5] = [
        ("a link to a blob", |real, path| symlink(real.elsewhere().join(HEX), path).expect("is made")),
        ("a link to nowhere", |real, path| symlink(real.elsewhere().join("none"), path).expect("is made")),
        ("a link to itself", |_, path| symlink(path, path).expect("is made")),
        ("a pipe", |_, path| {
            assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
        }),
        ("a socket", |_, path| drop(UnixListener::bind(path).expect("is made"))),
    ];
    for (what, make) in makes {
        let real = Real::new();
        make(&real, &real.one().join(HEX));
        for wanted in [WANTED, FOUND] {
            let error = real.open_error(&wanted);
            assert_about_the_blob(&error, Code::BlobOpenFailed);
            assert!(error.path == Some(real.one().join(HEX)) && error.reason.is_some(), "{what}: {error:?}");
        }
        let error = real.scan_error();
        assert_eq!((error.code, error.found.as_deref()), (Code::BlobPartitionCorrupt, Some(HEX)), "{what}");
        assert!(!real.elsewhere().join("none").exists(), "{what}");
        // Its name can be removed, and then it is a blob's.
        remove(&OsFs, &real.root(), &key()).expect(what);
        open(&OsFs, &real.root(), &key(), &WANTED).expect(what);
        assert!(real.elsewhere().join(HEX).exists(), "{what}");
    }
}

#[test]
fn nothing_is_done_through_a_link_to_a_directory() {
    let real = Real::new();
    fs::remove_dir(real.one()).expect("is removed");
    symlink(real.elsewhere(), real.one()).expect("is made");
    assert_eq!(real.open_error(&WANTED).code, Code::BlobPartitionCreationFailed);
    assert_eq!(real.scan_error().code, Code::BlobPartitionCorrupt);
    let error = remove(&OsFs, &real.root(), &key()).expect_err("it is no partition");
    assert_eq!((error.code, error.path.as_ref()), (Code::BlobPartitionCorrupt, Some(&real.one())));
    let error = remove_partition(&OsFs, &real.root(), "one").expect_err("it is no partition");
    assert_eq!((error.code, error.path.as_ref()), (Code::BlobPartitionCorrupt, Some(&real.one())));
    assert!(real.elsewhere().join(HEX).exists());
    assert!(partitions(&OsFs, &real.root()).expect("lists").is_empty());
}

#[test]
fn names_that_are_no_text_are_skipped_and_go_with_their_partition() {
    let real = Real::new();
    open(&OsFs, &real.root(), &key(), &WANTED).expect("opens");
    fs::write(real.one().join(OsStr::from_bytes(b"\xff\xfe")), b"").expect("writes");
    assert_eq!(scan(&OsFs, &real.root(), "one").expect("lists"), [NAME]);
    remove_partition(&OsFs, &real.root(), "one").expect("removes");
    assert!(!real.one().exists());
}

#[test]
fn a_blob_is_opened_whole_while_its_name_is_as_long_as_it_can_be() {
    let real = Real::new();
    let name = vec![0xee; 127];
    let key = crate::blob::names::Key::new("p".repeat(255), name.clone()).expect("valid names");
    open(&OsFs, &real.root(), &key, &WANTED).expect("opens");
    assert_eq!(scan(&OsFs, &real.root(), &"p".repeat(255)).expect("lists"), [name]);
}
