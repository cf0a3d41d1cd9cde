//! The store's directory: what is there when it is open, whom it is locked against, and what the system may say.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Access, Buffer, Create, Fs, OpenOptions};

use super::{Leaving, Root};
use crate::blob::names::Key;
use crate::blob::options::Options;
use crate::error::{Code, Error, Result};
use crate::format::blob::HOLD_CLEAN;

const ROOT: &str = "/data/deep/store";
const HOLD: &str = "/data/deep/store/.hold";

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const ENOSPC: i32 = 28;

/// As somebody who waits.
fn open(fs: &dyn Fs, options: &Options) -> Result<Root> {
    super::open(fs, options, &|| true)
}

fn open_on(sim: &Sim) -> Result<Root> {
    open(&*sim.fs(), &Options::new(ROOT))
}

/// With nothing left unflushed by its own life, or something.
fn leaving(is_durable: bool) -> Leaving {
    Leaving { is_durable, flushed: None }
}

fn refused(sim: &Sim) -> Error {
    open_on(sim).expect_err("it does not open")
}

#[test]
fn a_store_that_is_missing_is_made_durably_with_the_directories_that_lead_to_it() {
    let sim = Sim::new(1);
    open_on(&sim).expect("opens");
    assert_eq!(sim.image().boot_with([], 1).list("/data/deep"), ["store"]);
}

#[test]
fn directories_that_a_killed_process_made_are_durable_once_the_store_is_open() {
    let sim = Sim::new(1);
    for directory in ["/data", "/data/deep", ROOT] {
        sim.fs().create_dir(Path::new(directory), 0o700).expect("is made");
    }
    sim.kill();
    open_on(&sim).expect("opens");
    assert_eq!(sim.image().boot_with([], 1).list("/data/deep"), ["store"]);
}

#[test]
fn what_an_earlier_life_left_unflushed_is_durable_once_the_store_is_open() {
    // An open of a blob that is there promises that it is there durably, and nothing in it says whether it is.
    let sim = Sim::new(1);
    sim.make_dir(ROOT);
    let fs = sim.fs();
    fs.create_dir(&Path::new(ROOT).join("one"), 0o700).expect("is made");
    let path = Path::new(ROOT).join("one/00");
    let file = fs.open(&path, OpenOptions::replace(0o600)).expect("opens");
    fs.write_at(&file, 0, &Buffer::copy_of(b"left")).expect("writes");
    sim.kill();
    open_on(&sim).expect("opens");
    assert_eq!(sim.image().boot_with([], 1).read_file(&path), b"left");
}

#[test]
fn a_store_that_is_not_to_be_made_is_not_found() {
    let sim = Sim::new(1);
    let error =
        open(&*sim.fs(), &Options { create: false, ..Options::new(ROOT) }).expect_err("there is none");
    assert_eq!((error.code, error.path.as_deref()), (Code::BlobStoreNotFound, Some(Path::new(ROOT))));
    assert!(sim.list("/").is_empty());

    sim.make_dir(ROOT);
    open(&*sim.fs(), &Options { create: false, ..Options::new(ROOT) })
        .expect("an empty directory is a store");
}

#[test]
fn a_file_is_no_store_and_leads_to_none() {
    for file in [ROOT, "/data/deep"] {
        let sim = Sim::new(1);
        sim.write_file(file, b"a file");
        let error = refused(&sim);
        assert_eq!((error.code, error.errno), (Code::BlobStoreIo, Some(ENOTDIR)), "{error:?}");
        assert!(error.path.is_some() && error.syscall.is_some(), "{error:?}");
        assert_eq!(sim.read_file(file), b"a file");
    }
}

#[test]
fn one_process_has_the_store_and_the_others_are_told_which() {
    let sim = Sim::new(1);
    let owner = sim.disk().fs;
    let hold = open(&*owner, &Options::new(ROOT)).expect("opens");
    let other = sim.disk().fs;
    let before = other.now();
    let options = Options { lock_timeout: Duration::from_millis(40), ..Options::new(ROOT) };
    let error = open(&*other, &options).expect_err("it is locked");
    assert_eq!((error.code, error.pid), (Code::BlobStoreLocked, Some(owner.pid())), "{error:?}");
    assert!(error.message.contains(&owner.pid().to_string()), "{error:?}");
    assert_eq!(error.path.as_deref(), Some(Path::new(HOLD)));
    assert!(other.now().since(before) >= options.lock_timeout);

    hold.close(&*owner, &leaving(true));
    open(&*other, &options).expect("it is free");
}

#[test]
fn who_left_the_store_is_not_blamed_for_the_next() {
    // commonware-runtime locks the file and writes nothing into it.
    for is_durable in [false, true] {
        let sim = Sim::new(1);
        open_on(&sim).expect("opens").close(&*sim.fs(), &leaving(is_durable));
        nobody_is_blamed(&sim);
    }
}

fn nobody_is_blamed(sim: &Sim) {
    let theirs = sim.disk().fs;
    let create = Create::IfMissing(0o600);
    let hold = theirs.open(Path::new(HOLD), OpenOptions { access: Access::ReadWrite, create, direct: false });
    assert_eq!(theirs.try_lock(hold.as_ref().expect("opens")), Ok(true));
    let error = open(&*sim.disk().fs, &Options::new(ROOT)).expect_err("it is locked");
    assert_eq!((error.code, error.pid), (Code::BlobStoreLocked, None), "{error:?}");
}

#[test]
fn who_does_not_want_the_store_any_more_does_not_wait_for_it() {
    let sim = Sim::new(1);
    let held = open(&*sim.disk().fs, &Options::new(ROOT)).expect("opens");
    let options = Options { lock_timeout: Duration::from_hours(1), ..Options::new(ROOT) };
    let other = sim.disk().fs;
    let before = other.now();
    let error = super::open(&*other, &options, &|| false).expect_err("it is locked");
    assert_eq!(error.code, Code::BlobStoreClosed);
    assert!(other.now().since(before) < Duration::from_secs(1));
    drop(held);
}

#[test]
fn a_store_is_settled_where_it_is_empty_or_was_closed_with_everything_durable() {
    let sim = Sim::new(1);
    let is_settled = |is_durable| {
        let root = open_on(&sim).expect("opens");
        let is_settled = root.is_settled;
        root.close(&*sim.fs(), &leaving(is_durable));
        is_settled
    };
    assert!(is_settled(false), "it is new");
    assert!(is_settled(true), "it is empty");
    sim.write_file(Path::new(ROOT).join("one/00"), b"");
    assert!(is_settled(true));
    assert!(is_settled(false));
    assert!(!is_settled(true), "something was left unflushed");
    assert!(is_settled(true));
    let held = open_on(&sim).expect("opens");
    sim.kill();
    let root = open(&*sim.disk().fs, &Options::new(ROOT)).expect("opens");
    assert!(!root.is_settled, "its owner was killed");
    drop(held);

    let sim = Sim::new(1);
    sim.write_file(Path::new(ROOT).join("one/00"), b"");
    assert!(!open_on(&sim).expect("opens").is_settled, "nobody knows who was here");
}

#[test]
fn a_store_that_was_not_settled_is_closed_clean_only_where_each_of_its_blobs_was_flushed() {
    let sim = Sim::new(1);
    for blob in ["one/00", "one/01", "two/00", "two/no name"] {
        sim.write_file(Path::new(ROOT).join(blob), b"");
    }
    let key = |partition: &str, name| Arc::new(Key::new(partition.to_owned(), vec![name]).expect("a name"));
    let all = [key("one", 0), key("one", 1), key("two", 0)];
    for count in 0..=all.len() {
        let root = open_on(&sim).expect("opens");
        assert!(!root.is_settled, "{count}");
        let flushed = Some(all[..count].iter().cloned().collect());
        root.close(&*sim.fs(), &Leaving { is_durable: true, flushed });
    }
    assert!(open_on(&sim).expect("opens").is_settled, "all of them were");
}

#[test]
fn the_lock_of_a_file_that_lost_its_name_is_not_the_stores() {
    let sim = Sim::new(1);
    let (first, second, third) = (sim.disk().fs, sim.disk().fs, sim.disk().fs);
    let held = RefCell::new(Some(open(&*first, &Options::new(ROOT)).expect("opens")));
    let made_again = RefCell::new(None);
    // While the second waits, the store is removed, and made again by a third.
    let look = || {
        if held.take().is_some() {
            sim.remove_file(HOLD);
            *made_again.borrow_mut() = Some(open(&*third, &Options::new(ROOT)).expect("opens"));
        }
        true
    };
    let error = super::open(&*second, &Options::new(ROOT), &look).expect_err("the third has it");
    assert_eq!((error.code, error.pid), (Code::BlobStoreLocked, Some(third.pid())), "{error:?}");
}

#[test]
fn a_killed_process_leaves_the_store_free() {
    let sim = Sim::new(1);
    let hold = open_on(&sim);
    sim.kill();
    open(&*sim.disk().fs, &Options::new(ROOT)).expect("it is free");
    drop(hold);
}

#[test]
fn a_store_whose_owner_was_killed_is_not_clean_though_there_was_no_room_to_say_who_it_was() {
    // Of a write that fails any part may be there.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        sim.write_file(Path::new(ROOT).join("one/00"), b"");
        sim.write_file(HOLD, HOLD_CLEAN);
        sim.fail(Fault::new(Call::Write).errno(ENOSPC).named(".hold"));
        assert!(open_on(&sim).expect("opens").is_settled);
        sim.kill();
        assert!(!open_on(&sim).expect("opens").is_settled, "seed {seed}");
    }
}

#[test]
fn a_full_disk_does_not_keep_a_store_from_opening() {
    let sim = Sim::new(1);
    sim.write_file(HOLD, b"");
    sim.fail(Fault::new(Call::Write).errno(ENOSPC).named(".hold"));
    open_on(&sim).expect("the number in the lock is for people");
}

#[test]
fn a_failed_call_is_told_with_all_that_is_known_of_it() {
    for (call, syscall) in [
        (Call::Stat, "lstat"),
        (Call::CreateDir, "mkdir"),
        (Call::SyncDir, "fsync"),
        (Call::Open, "open"),
        (Call::Lock, "flock"),
        (Call::SyncAll, "syncfs"),
    ] {
        let sim = Sim::new(1);
        sim.fail(Fault::new(call));
        let error = refused(&sim);
        assert_eq!((error.code, error.errno), (Code::BlobStoreIo, Some(EIO)), "{error:?}");
        assert_eq!(error.syscall, Some(syscall), "{error:?}");
        assert!(
            error.path.as_deref().is_some_and(
                |path| Path::new(ROOT).ancestors().any(|it| it == path) || path == Path::new(HOLD)
            ),
            "{error:?}"
        );
        open_on(&sim).expect("it is free, and opens");
    }
}

#[test]
fn the_directories_above_are_synced_too_where_that_is_for_us_to_do() {
    // They may be on another file system than the store, which its own flush does not reach.
    for parent in ["deep", "data"] {
        let sim = Sim::new(1);
        sim.make_dir(ROOT);
        sim.fail(Fault::new(Call::SyncDir).named(parent));
        let error = refused(&sim);
        assert_eq!((error.code, error.syscall), (Code::BlobStoreIo, Some("fsync")), "{error:?}");
        sim.fail(Fault::new(Call::SyncDir).named(parent).errno(EACCES));
        open_on(&sim).expect("who has no right to sync it did not make it");
    }
}
