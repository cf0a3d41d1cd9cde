//! Tests that were seen to fail, like those of the native log in `tests/planted.rs`: each promise here is kept by the
//! log as it is and broken, in the way it should be, once the bug it guards against is planted.
//!
//! `npm run planted` prints which bug is caught by what.

use std::time::Duration;

use ringbolt_core::Code;
use ringbolt_core::format::synced::Synced;
use ringbolt_core::planted::Bug;
use ringbolt_core::wal::{Options, SyncMode};
use ringbolt_disk::sim::{Call, Fault, Lie, Sim};

use crate::planting::{Plant, planted, publish};
use crate::support::{Log, path, without_lock};
use crate::{file, options, put, record};

planted! {
    writing_synced_before_the_sync_is_caught:
        Plant::Log(Bug::SyncedBeforeSync) => synced_claims_only_what_is_durable, "a sound log is refused";
    cutting_a_torn_tail_without_a_sync_is_caught:
        Plant::Log(Bug::CutWithoutSync) => what_was_cut_does_not_come_back, "a record was invented";
    trusting_the_page_cache_is_caught:
        Plant::Log(Bug::TrustCachedFrames) => what_open_serves_is_durable, "a sound log is refused";
    cutting_at_damage_is_caught:
        Plant::Log(Bug::CutAtDamage) => damage_is_refused, "damage was not noticed";
    taking_an_error_for_the_end_is_caught:
        Plant::Log(Bug::ReadErrorEndsLog) => an_error_of_the_disk_is_not_the_end,
        "the disk could not read, and it opened";
    locking_without_the_files_is_caught:
        Plant::Log(Bug::NoSegmentLocks) => a_dead_owner_writes_over_nothing, "not the one that was acknowledged";
    skipping_the_flush_is_caught:
        Plant::Disk(Lie::SkipSync) => acknowledged_is_durable, "1 records were acknowledged, 0";
    acknowledging_before_the_completion_is_caught:
        Plant::Disk(Lie::DoneBeforeWrite) => acknowledged_is_durable, "1 records were acknowledged, 0";
    ignoring_a_short_write_is_caught:
        Plant::Disk(Lie::IgnoreShortWrite) => a_short_write_is_finished, "1 records were acknowledged, 0";
    skipping_the_directory_sync_is_caught:
        Plant::Disk(Lie::SkipDirectorySync) => a_new_file_has_a_durable_name, "a sound log is refused";
}

#[test]
fn table_of_planted_bugs_names_every_one() {
    // Goal: the table is complete. Method: look each bug of the log up.
    publish(TABLE, Bug::KEY_VALUE);
}

// ---- what the scenarios are made of -----------------------------------------------------------------------

fn with_sync(sync: SyncMode) -> Options {
    Options { sync, ..options() }
}

/// A body whose record has 1024 bytes: two sectors, when it is the only one of its kind before it.
fn kilobyte(mark: u8) -> Vec<u8> {
    put([], vec![mark; 1024 - 29])
}

/// The log opens, and begins with these records.
fn must_begin_with(sim: &Sim, acknowledged: &[Vec<u8>]) {
    let log = Log::open(sim, options()).unwrap_or_else(|error| panic!("a sound log is refused: {error}"));
    let found = log.read(1).unwrap_or_else(|error| panic!("a sound log cannot be read: {error}"));
    let (here, there) = (found.len(), acknowledged.len());
    assert!(here >= there, "{there} records were acknowledged, {here} are there");
    assert!(found.starts_with(acknowledged), "a record is not the one that was acknowledged");
}

// ---- the scenarios ----------------------------------------------------------------------------------------

fn synced_claims_only_what_is_durable(plant: &dyn Fn(&Sim)) {
    // Goal: SYNCED never claims too much. Method: append, cut the power at each step, and keep nothing of what was
    // undecided, all of it, or any one thing alone, SYNCED among them.
    for step in 1.. {
        let sim = Sim::new(1);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        sim.crash_at(sim.steps() + step);
        log.append(1, &put("a", "1")).expect("appends");
        log.append(2, &put("b", "2")).expect("appends");
        let Some(image) = sim.take_image() else { break };
        let alone = image.undecided().into_iter().map(|kept| vec![kept]);
        for kept in [Vec::new(), image.undecided()].into_iter().chain(alone) {
            must_begin_with(&image.boot_with(kept, step), &[]);
        }
    }
}

fn what_was_cut_does_not_come_back(plant: &dyn Fn(&Sim)) {
    // Goal: a cut is durable before anything is appended behind it. Method: of a write of two records a crash kept the
    // second; it is cut. The record appended then is as long as the first was: without the cut on disk, the power cut
    // that follows brings the second back, as if it followed.
    let sim = Sim::new(1);
    plant(&sim);
    sim.write_file(file(0), [vec![0; 1024], record(1, &kilobyte(2))].concat());
    sim.write_file(path("SYNCED"), Synced { file: 0, offset: 0 }.encode());
    let mut log = Log::open(&sim, with_sync(SyncMode::Dsync)).expect("opens");
    assert_eq!(log.recovery().torn_bytes, 2048);
    log.append(1, &kilobyte(3)).expect("appends");
    let log = Log::open(&sim.image().boot_with([], 1), options()).expect("opens");
    assert_eq!(log.read(1).expect("reads"), [kilobyte(3)], "a record was invented");
}

fn what_open_serves_is_durable(plant: &dyn Fn(&Sim)) {
    // Goal: rules 2 and 6. Method: a flush fails, the page cache goes on showing what the disk may not have, and the
    // next owner in the same boot serves it. Then the power is cut.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        sim.fail(Fault::new(Call::Sync).named(".log"));
        log.append(1, &kilobyte(1)).expect_err("the flush fails");
        log.close().expect_err("it failed");

        let log = Log::open(&sim, options()).expect("opens again");
        assert_eq!(log.last_lsn(), 1, "the page cache shows it");
        must_begin_with(&sim.image().boot_with([], seed), &[kilobyte(1)]);
    }
}

fn damage_is_refused(plant: &dyn Fn(&Sim)) {
    // Goal: rule 7. Method: one bit of an acknowledged record turns over; SYNCED vouches for it.
    let sim = Sim::new(1);
    plant(&sim);
    let mut log = Log::open(&sim, options()).expect("opens");
    log.append_all(&[put("a", "1"), put("b", "2"), put("c", "3")]);
    log.close().expect("closes");
    sim.flip(file(0), 50, 3);
    let before = sim.snapshot();
    match Log::open(&sim, options()) {
        Ok(log) => panic!("damage was not noticed: {:?}", log.recovery()),
        Err(error) => assert_eq!(error.code, Code::WalDamaged, "{error}"),
    }
    assert_eq!(without_lock(sim.snapshot()), without_lock(before), "a refusal writes nothing");
}

fn an_error_of_the_disk_is_not_the_end(plant: &dyn Fn(&Sim)) {
    // Goal: EIO is never taken for the end of the log. Method: the disk cannot read the log's newest file for a while,
    // in which it is opened.
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    let acknowledged = [put("a", "1"), put("b", "2")];
    log.append_all(&acknowledged);
    log.close().expect("closes");
    // As after a file that amaters wrote: nothing else says how far the log must reach.
    sim.remove_file(path("SYNCED"));
    plant(&sim);
    sim.fail(Fault::new(Call::Read).named(".log").forever());
    let before = sim.snapshot();
    let error = Log::open(&sim, options()).expect_err("the disk could not read, and it opened");
    assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error}");
    assert_eq!(without_lock(sim.snapshot()), without_lock(before));
    sim.clear_faults();
    must_begin_with(&sim, &acknowledged);
}

fn a_dead_owner_writes_over_nothing(plant: &dyn Fn(&Sim)) {
    // Goal: rule 8. Method: an owner dies with a write at a disk that answers nothing for a while. Whoever opens
    // meanwhile is told that it is locked; the next owner appends, and then the dead one's write has landed too.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        log.append(1, &kilobyte(1)).expect("appends");
        log.turn(20);
        sim.stall(true);
        log.submit(2, &[kilobyte(2)], true).expect("is taken");
        log.turn(10);
        assert_eq!(sim.in_flight(), 1, "the write is at the disk");
        sim.kill();
        drop(log);

        let early = Log::open(&sim, Options { lock_timeout: Duration::from_millis(50), ..options() });
        sim.stall(false);
        let mut log = early.unwrap_or_else(|error| {
            assert_eq!(error.code, Code::WalLocked, "{error}");
            Log::open(&sim, options()).expect("opens once the write has landed")
        });
        let next = log.last_lsn() + 1;
        log.append(next, &kilobyte(3)).expect("appends");
        let acknowledged: Vec<_> = (0..next - 1).map(|index| kilobyte(index as u8 + 1)).collect();
        sim.fs().sleep(Duration::from_secs(3));
        must_begin_with(&sim.power_cut(seed), &[acknowledged, vec![kilobyte(3)]].concat());
    }
}

fn acknowledged_is_durable(plant: &dyn Fn(&Sim)) {
    // Goal: an acknowledgement is worth its name at the very moment it is given. Method: the power is cut then and
    // there, and keeps nothing it need not keep.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        plant(&sim);
        log.append(1, &kilobyte(1)).expect("appends");
        must_begin_with(&sim.image().boot_with([], seed), &[kilobyte(1)]);
    }
}

fn a_short_write_is_finished(plant: &dyn Fn(&Sim)) {
    // Goal: rule 4 (W2). Method: the write is short, and acknowledged all the same once it is whole.
    for sync in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let sim = Sim::new(1);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(sync)).expect("opens");
        sim.fail(Fault::short_write().named(".log"));
        log.append(1, &kilobyte(1)).expect("appends");
        must_begin_with(&sim.image().boot_with([], 1), &[kilobyte(1)]);
    }
}

fn a_new_file_has_a_durable_name(plant: &dyn Fn(&Sim)) {
    // Goal: rule 5 (W8). Method: append into a file that was made since, and cut the power; with SYNCED as it was when
    // the log was opened, and as it was told last.
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    plant(&sim);
    let acknowledged: Vec<_> = (1..=6).map(kilobyte).collect();
    log.append_all(&acknowledged);
    log.turn(20);
    let image = sim.image();
    for kept in image.undecided().into_iter().map(|kept| vec![kept]).chain([Vec::new()]) {
        must_begin_with(&image.boot_with(kept, 1), &acknowledged);
    }
}
