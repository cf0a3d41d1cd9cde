//! Names on this machine's file system, where there is more than files and directories.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringbolt_core::Code;
use ringbolt_core::blob::{Layout, Options};

use crate::desk::{Place, System};
use crate::names::{NAME, code, header};

on_each_backend! { shared_disk:
    what_is_no_regular_file_is_refused_at_once
    a_link_in_a_partitions_place_is_not_followed
    a_link_to_the_root_is_followed_and_the_lock_is_one
    a_lock_file_that_is_none_never_blocks
    names_that_are_not_text_are_skipped_and_go_with_their_partition
    files_and_directories_get_the_permissions_asked_for
    what_may_not_be_touched_is_told_with_the_systems_reason
    a_blob_that_another_process_could_have_locked_is_waited_for_as_long_as_asked
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn what_is_no_regular_file_is_refused_at_once(system: System) {
    let place = Place::real(system);
    place.make_dir("one");
    place.write("elsewhere", b"mine");
    let one = place.path("one");
    symlink(place.path("elsewhere"), one.join("01")).expect("links");
    symlink(place.path("nowhere"), one.join("02")).expect("links");
    symlink(place.root(), one.join("03")).expect("links");
    make_fifo(&one.join("04"));
    let _socket = UnixListener::bind(one.join("05")).expect("binds");
    let mut desk = place.open();
    for name in 1..=5 {
        for create in [false, true] {
            let error = desk.open_with("one", &[name], (0, 0), create).expect_err("it is no file");
            assert_eq!((error.code, error.name.as_deref()), (Code::BlobOpenFailed, Some(&[name][..])));
            assert_eq!(error.path.as_ref(), Some(&one.join(format!("0{name}"))));
        }
        assert_eq!(code(desk.scan("one")), Code::BlobPartitionCorrupt);
    }
    assert_eq!(desk.scan("one").expect_err("it is no file").found.as_deref(), Some("01"));
    assert!(!place.path("nowhere").exists());
    // They have names, which can go.
    desk.remove("one", Some(&[1])).expect("removes");
    assert_eq!(desk.scan("one").expect_err("it is no file").found.as_deref(), Some("02"));
    desk.remove("one", None).expect("removes");
    assert_eq!(place.read("elsewhere"), b"mine", "what a link leads to is not concerned");
    assert!(desk.partitions().is_empty());
}

fn a_link_in_a_partitions_place_is_not_followed(system: System) {
    let place = Place::real(system);
    place.write("real/6e616d65", header(Layout::V1, 0));
    symlink(place.path("real"), place.path("one")).expect("links");
    let before = place.files();
    let mut desk = place.open();
    assert_eq!(desk.partitions(), ["real"]);
    for create in [false, true] {
        let refused = desk.open_with("one", b"name", (0, 0), create);
        assert_eq!(code(refused), Code::BlobPartitionCreationFailed);
    }
    assert_eq!(code(desk.scan("one")), Code::BlobPartitionCorrupt);
    assert_eq!(code(desk.remove("one", Some(b"name"))), Code::BlobPartitionCorrupt);
    assert_eq!(code(desk.remove("one", None)), Code::BlobPartitionCorrupt);
    assert_eq!(place.files(), before);
}

fn a_link_to_the_root_is_followed_and_the_lock_is_one(system: System) {
    let place = Place::real(system);
    let mut desk = place.open();
    desk.open("one", b"name").expect("makes");
    let link = place.path("link");
    symlink(place.root(), &link).expect("links");
    let by_link = |options| Options { directory: link.clone(), ..options };
    assert_eq!(code(place.open_with(by_link(place.impatient()))), Code::BlobStoreLocked);
    desk.close();
    assert_eq!(
        place.open_with(by_link(place.options())).expect("opens").scan("one").expect("scans"),
        [b"name"]
    );
}

fn a_lock_file_that_is_none_never_blocks(system: System) {
    for make in [make_fifo, |path: &Path| symlink("/dev/null", path).expect("links")] {
        let place = Place::real(system);
        place.make_dir("");
        make(&place.path(".hold"));
        assert_eq!(code(place.open_with(place.options())), Code::BlobStoreIo);
    }
}

fn names_that_are_not_text_are_skipped_and_go_with_their_partition(system: System) {
    // APFS takes no such names.
    if cfg!(target_os = "macos") {
        return;
    }
    let place = Place::real(system);
    place.write(format!("one/{NAME}"), header(Layout::V1, 0));
    let not_text = OsStr::from_bytes(b"\xff\xfe");
    fs::write(place.path("one").join(not_text), b"").expect("writes");
    fs::create_dir(place.root().join(not_text)).expect("makes");
    let mut desk = place.open();
    assert_eq!(desk.partitions(), ["one"]);
    assert_eq!(desk.scan("one").expect("scans"), [b"name"]);
    desk.remove("one", None).expect("removes");

    place.make_dir("one");
    fs::create_dir(place.path("one").join(not_text)).expect("makes");
    assert_eq!(desk.scan("one").expect("scans"), [] as [&[u8]; 0]);
    assert_eq!(code(desk.remove("one", None)), Code::BlobPartitionCorrupt);
}

fn files_and_directories_get_the_permissions_asked_for(system: System) {
    for (file_mode, directory_mode) in [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)] {
        let place = Place::real(system);
        let mut desk = place.open_with(Options { file_mode, ..place.options() }).expect("opens");
        desk.open("one", b"name").expect("makes");
        assert_eq!(mode(&place.path("one").join(NAME)), file_mode);
        assert_eq!(mode(&place.path(".hold")), file_mode);
        assert_eq!((mode(&place.root()), mode(&place.path("one"))), (directory_mode, directory_mode));
    }
}

fn what_may_not_be_touched_is_told_with_the_systems_reason(system: System) {
    let place = Place::real(system);
    place.write(format!("one/{NAME}"), header(Layout::V1, 0));
    let file = place.path("one").join(NAME);
    fs::set_permissions(&file, Permissions::from_mode(0o000)).expect("changes");
    if fs::read(&file).is_ok() {
        // Nothing is denied to this user.
        return;
    }
    let mut desk = place.open();
    let error = desk.open("one", b"name").expect_err("it is denied");
    assert_eq!((error.code, error.errno), (Code::BlobOpenFailed, Some(13)));
    fs::set_permissions(place.path("one"), Permissions::from_mode(0o000)).expect("changes");
    let scanned = desk.scan("one").expect_err("it is denied");
    let removed = desk.remove("one", Some(b"name")).expect_err("it is denied");
    fs::set_permissions(place.path("one"), Permissions::from_mode(0o700)).expect("changes");
    assert_eq!((scanned.code, scanned.errno), (Code::BlobStoreIo, Some(13)));
    assert_eq!((removed.code, removed.errno), (Code::BlobOpenFailed, Some(13)));
}

fn a_blob_that_another_process_could_have_locked_is_waited_for_as_long_as_asked(system: System) {
    let place = Place::real(system);
    place.write(format!("one/{NAME}"), header(Layout::V1, 0));
    let held = fs::File::open(place.path("one").join(NAME)).expect("opens");
    held.lock().expect("locks");
    let mut desk = place.open_with(place.impatient()).expect("opens");
    assert_eq!(code(desk.open("one", b"name")), Code::BlobOpenFailed);
    desk.close();
    let mut desk = place.open();
    let holder = std::thread::spawn(move || {
        // So that it is mostly waited for. Where it is free before, it opens all the same.
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    desk.open("one", b"name").expect("opens, once it is free");
    holder.join().expect("ends");
}
