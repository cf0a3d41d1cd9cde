//! What a store must not forget: flushes that failed, and bytes that nobody flushed.

use ringbolt_core::blob::{BlobRequest, Layout};
use ringbolt_core::format::blob::Header;
use ringbolt_core::{Code, Error};
use ringbolt_disk::Buffer;
use ringbolt_disk::sim::{Call, Fault, Sim};

use crate::desk::{Desk, Place};
use crate::names::{NAME, code};

/// A disk with one store on it, which has two blobs in one partition: `name`, and one that comes before it.
fn with_two_blobs() -> (Place, Sim, Desk) {
    let sim = Sim::new(1);
    let place = Place::Sim(sim.clone());
    let mut desk = place.open();
    desk.open("one", b"a").expect("makes");
    desk.open("one", b"name").expect("makes");
    (place, sim, desk)
}

fn write_unflushed(desk: &mut Desk, blob: u32, bytes: &[u8]) {
    let work = BlobRequest::Write { offset: 0, buffer: Buffer::copy_of(bytes), sync: false, cached: true };
    desk.of(blob, work).expect("writes");
}

fn sync(desk: &mut Desk, blob: u32) -> Result<(), Error> {
    desk.of(blob, BlobRequest::Sync).map(drop)
}

/// Every way in which the removal of the partition fails and `name` keeps its name.
const HALF_REMOVALS: [(Call, u64); 3] = [(Call::List, 0), (Call::Remove, 0), (Call::Remove, 1)];

#[test]
fn a_flush_that_failed_is_remembered_where_its_partition_could_not_be_removed() {
    for (call, skip) in HALF_REMOVALS {
        for is_open in [false, true] {
            let (_place, sim, mut desk) = with_two_blobs();
            let blob = desk.open("one", b"name").expect("opens");
            write_unflushed(&mut desk, blob, b"lost");
            sim.fail(Fault::new(Call::Sync));
            assert_eq!(sync(&mut desk, blob).expect_err("it fails").code, Code::BlobSyncFailed);
            if !is_open {
                // The other handle is that of its making.
                for handle in [blob, 1] {
                    desk.of(handle, BlobRequest::Close).expect("closes");
                }
            }
            sim.fail(Fault::new(call).skip(skip));
            desk.remove("one", None).expect_err("it fails");
            let case = format!("{call:?}, {skip}, {is_open}");
            assert_eq!(desk.open("one", b"name").expect_err(&case).code, Code::BlobPoisoned, "{case}");
            for handle in [blob, 1].into_iter().filter(|_| is_open) {
                desk.of(handle, BlobRequest::Close).expect("closes");
            }
            assert_eq!(desk.open("one", b"name").expect_err(&case).code, Code::BlobPoisoned, "{case}");
            desk.remove("one", None).expect("removes");
            desk.open("one", b"name").expect("it is another");
        }
    }
}

#[test]
fn what_nobody_flushed_is_flushed_by_the_next_open_where_its_partition_could_not_be_removed() {
    for (call, skip) in HALF_REMOVALS {
        let (place, sim, mut desk) = with_two_blobs();
        write_unflushed(&mut desk, 1, b"left");
        sim.fail(Fault::new(call).skip(skip));
        desk.remove("one", None).expect_err("it fails");
        let again = desk.open("one", b"name").expect("it is the same, and open");
        assert_eq!(desk.contents(again), b"left");
        for handle in [again, 1] {
            desk.of(handle, BlobRequest::Close).expect("closes");
        }
        desk.open("one", b"name").expect("opens");
        let after = sim.image().boot_with([], 1);
        assert!(after.read_file(place.path("one").join(NAME)).ends_with(b"left"), "{call:?}, {skip}");
    }
}

#[test]
fn what_went_before_the_removal_of_its_partition_failed_is_made_anew() {
    for (call, skip) in [(Call::Remove, 1), (Call::RemoveDir, 0)] {
        let (place, sim, mut desk) = with_two_blobs();
        write_unflushed(&mut desk, 0, b"old");
        sim.fail(Fault::new(call).skip(skip));
        desk.remove("one", None).expect_err("it fails");
        assert!(!place.files().contains_key(&place.path("one").join("61")));
        let blob = desk.open("one", b"a").expect("makes");
        assert_eq!((desk.size(blob), desk.size(0)), (0, 3));
        // Its name is durable, and the old one with it.
        let after = Place::Sim(sim.image().boot_with([], 1));
        assert_eq!(after.read("one/61"), Header { layout: Layout::V1, version: 0 }.encode());
    }
}

#[test]
fn a_store_forgets_the_partitions_that_it_was_only_asked_for() {
    let (place, sim, mut desk) = with_two_blobs();
    assert_eq!(code(desk.remove("none", None)), Code::BlobPartitionMissing);
    desk.close();
    assert_eq!(place.read(".hold"), b"clean\n");
    drop(sim);
}

#[test]
fn a_creation_whose_cut_could_not_be_flushed_is_poisoned() {
    // What is behind an interrupted header is cut first: it would be data. A flush of that which failed is not tried again.
    let sim = Sim::new(1);
    let place = Place::Sim(sim.clone());
    place.write(format!("one/{NAME}"), [0; 100]);
    let mut desk = place.open_in(Layout::V0);
    sim.fail(Fault::new(Call::Sync));
    assert_eq!(code(desk.open("one", b"name")), Code::BlobSyncFailed);
    assert_eq!(code(desk.open("one", b"name")), Code::BlobPoisoned);
    desk.remove("one", Some(b"name")).expect("removes");
    desk.open("one", b"name").expect("makes");
}

#[test]
fn a_removal_that_is_tried_again_is_answered_when_it_is_durable() {
    for name in [Some(&b"name"[..]), None] {
        let (place, sim, mut desk) = with_two_blobs();
        sim.fail(Fault::new(Call::SyncDir).times(2));
        for missing in [false, false, true] {
            let code =
                desk.remove("one", name).expect_err("it fails, and then there is nothing to remove").code;
            let expected = if name.is_some() { Code::BlobMissing } else { Code::BlobPartitionMissing };
            assert_eq!(code, if missing { expected } else { Code::BlobSyncFailed });
        }
        let after = sim.image().boot_with([], 1);
        let path = place.path("one").join(NAME);
        assert!(!after.snapshot().contains_key(&path), "a power cut brings it back");
    }
}

#[test]
fn a_store_in_which_anything_is_not_durable_is_not_closed_clean() {
    type Work = fn(&Sim, &mut Desk);
    let nothing: Work = |_, _| {};
    let open: Work = |_, desk| write_unflushed(desk, 1, b"left");
    let closed: Work = |_, desk| {
        write_unflushed(desk, 1, b"left");
        desk.of(1, BlobRequest::Close).expect("closes");
    };
    let failed: Work = |sim, desk| {
        write_unflushed(desk, 1, b"lost");
        sim.fail(Fault::new(Call::Sync));
        sync(desk, 1).expect_err("it fails");
    };
    let name: Work = |sim, desk| {
        sim.fail(Fault::new(Call::SyncDir));
        desk.remove("one", Some(b"name")).expect_err("it fails");
    };
    let partition: Work = |sim, desk| {
        sim.fail(Fault::new(Call::SyncDir));
        desk.remove("one", None).expect_err("it fails");
    };
    let half: Work = |sim, desk| {
        sim.fail(Fault::new(Call::Remove).skip(1));
        desk.remove("one", None).expect_err("it fails");
    };
    let works = [nothing, open, closed, failed, name, partition, half];
    for (index, work) in works.into_iter().enumerate() {
        let (place, sim, mut desk) = with_two_blobs();
        work(&sim, &mut desk);
        desk.close();
        assert_eq!(place.read(".hold") == b"clean\n", index == 0, "{index}");
    }
}

#[test]
fn a_creation_that_failed_is_tried_again_but_for_a_flush_of_its_header() {
    let sim = Sim::new(1);
    let place = Place::Sim(sim.clone());
    let mut desk = place.open();
    // Once for the partition's directory, and once for the root.
    for directory in ["one", "store"] {
        sim.fail(Fault::new(Call::SyncDir).named(directory));
        assert_eq!(code(desk.open("one", b"name")), Code::BlobSyncFailed);
    }
    desk.open("one", b"name").expect("its names are synced now");
    let after = Place::Sim(sim.image().boot_with([], 1));
    assert_eq!(after.read(format!("one/{NAME}")), Header { layout: Layout::V1, version: 0 }.encode());

    sim.fail(Fault::new(Call::Sync));
    assert_eq!(code(desk.open("one", b"other")), Code::BlobSyncFailed);
    assert_eq!(code(desk.open("one", b"other")), Code::BlobPoisoned);
    desk.remove("one", Some(b"other")).expect("removes");
    desk.open("one", b"other").expect("it is another");
}
