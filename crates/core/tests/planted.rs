//! Tests that were seen to fail. A test that cannot fail shows nothing, so each promise here is kept by the
//! log as it is and broken, in the way it should be, once the bug it guards against is planted: in the log by
//! `planted::with`, below the waist by `Sim::lie`.
//!
//! `npm run planted` prints which bug is caught by what.

#![cfg(feature = "planted")]

mod planting;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use planting::{Plant, planted, publish};
use ringbolt_core::Code;
use ringbolt_core::format::head::Head;
use ringbolt_core::format::{GRAIN, segment_name, temporary_name};
use ringbolt_core::planted::Bug;
use ringbolt_core::wal::{Check, Options, Records, Request, Run, SyncMode};
use ringbolt_disk::sim::{Call, Fault, Lie, Sim};
use ringbolt_disk::{Buffer, OpenOptions};
use support::{DIRECTORY, Log, RECORD_BYTES, options, path, without_lock};

planted! {
    acknowledging_before_the_flush_is_caught:
        Plant::Log(Bug::AcknowledgeBeforeFlush) => acknowledged_is_durable, "1 records were acknowledged, 0";
    acknowledging_before_the_completion_is_caught:
        Plant::Disk(Lie::DoneBeforeWrite) => acknowledged_is_durable, "1 records were acknowledged, 0";
    skipping_the_flush_is_caught:
        Plant::Disk(Lie::SkipSync) => acknowledged_is_durable, "1 records were acknowledged, 0";
    trusting_a_durable_write_for_the_frame_before_it_is_caught:
        Plant::Log(Bug::DsyncProvesEarlierFrames) => a_durable_write_proves_only_itself,
        "2 records were acknowledged, 0";
    counting_a_flush_for_another_segment_is_caught:
        Plant::Log(Bug::FlushProvesOtherSegments) => a_flush_proves_only_its_own_segment,
        "15 records were acknowledged, 14";
    skipping_the_directory_sync_is_caught:
        Plant::Disk(Lie::SkipDirectorySync) => a_new_segment_has_a_durable_name,
        "the segment before it is sealed, and this one is missing";
    ignoring_a_short_write_is_caught:
        Plant::Disk(Lie::IgnoreShortWrite) => a_short_write_is_finished, "1 records were acknowledged, 0";
    leaving_the_offset_out_of_the_checksum_is_caught:
        Plant::Log(Bug::NoOffsetInChecksum) => a_misplaced_block_is_not_believed, "damage was not noticed";
    cutting_at_damage_is_caught:
        Plant::Log(Bug::CutAtDamage) => damage_is_refused, "damage was not noticed";
    trusting_the_page_cache_is_caught:
        Plant::Log(Bug::TrustCachedFrames) => what_open_serves_is_durable, "a sound log is refused";
    locking_without_the_segments_is_caught:
        Plant::Log(Bug::NoSegmentLocks) => a_dead_owner_writes_over_nothing,
        "not the one that was acknowledged";
    segment_locks_that_lock_nothing_are_caught:
        Plant::Disk(Lie::NoSegmentLocks) => a_dead_owner_writes_over_nothing,
        "not the one that was acknowledged";
    dropping_the_incarnation_rule_is_caught:
        Plant::Log(Bug::NoIncarnationRule) => stale_frames_behind_the_tail_are_junk, "a sound log is refused";
    removing_names_before_the_directory_is_synced_is_caught:
        Plant::Log(Bug::RemoveBeforeDirectorySync) => a_leftover_goes_after_the_name_that_made_it_one,
        "the segment is missing";
    replacing_head_before_the_sync_is_caught:
        Plant::Log(Bug::HeadBeforeSync) => head_claims_only_what_is_durable, "HEAD says that LSN 3";
    flushing_again_after_a_failure_is_caught:
        Plant::Log(Bug::RetryFlush) => a_failed_flush_is_final, "1 records were acknowledged, 0";
    taking_an_error_for_the_end_is_caught:
        Plant::Log(Bug::ReadErrorEndsLog) => an_error_of_the_disk_is_not_the_end,
        "the disk could not read, and it opened";
    removing_segments_before_head_is_caught:
        Plant::Log(Bug::UnlinkBeforeHead) => a_truncation_can_be_cut_anywhere, "a sound log is refused";
    truncating_ahead_of_durability_is_caught:
        Plant::Log(Bug::TruncateAheadOfDurability) => a_truncation_waits_for_the_records_before_it,
        "a sound log is refused";
    acknowledging_out_of_order_is_caught:
        Plant::Log(Bug::AcknowledgeOutOfOrder) => what_is_acknowledged_has_everything_before_it,
        "2 records were acknowledged, 0";
    leaving_the_log_id_out_of_the_checksum_is_caught:
        Plant::Log(Bug::NoLogIdInChecksum) => a_frame_of_another_log_is_not_believed, "damage was not noticed";
    unlocking_early_is_caught:
        Plant::Log(Bug::UnlockEarly) => a_failed_log_is_locked_until_its_last_write_has_landed,
        "LOCK was free with a write in flight";
    zeroing_a_torn_tail_without_a_flush_is_caught:
        Plant::Log(Bug::ZeroWithoutSync) => a_torn_tail_is_cut_for_good, "the torn tail is back";
    giving_refused_numbers_out_twice_is_caught:
        Plant::Log(Bug::RefusedNumbersTwice) => a_number_that_was_taken_back_is_given_out_once,
        "a record was written whose number was another's";
}

#[test]
fn table_of_planted_bugs_names_every_one() {
    // Goal: the table is complete. Method: look each bug of the log up.
    publish(TABLE, Bug::ALL);
}

// ---- what the scenarios are made of -----------------------------------------------------------------------

/// The record that fills a frame of one grain to its last byte, all of them `mark`: whatever part of the
/// frame is lost, its checksum tells.
fn record(mark: u8) -> Vec<u8> {
    assert!(mark > 0, "a zero would read like a hole");
    vec![mark; RECORD_BYTES]
}

/// So many one-grain frames fit a segment.
const FRAMES: u8 = support::FRAMES as u8;

fn with_sync(sync: SyncMode) -> Options {
    Options { sync, ..options() }
}

fn segment_path(number: u64) -> PathBuf {
    Path::new(DIRECTORY).join(segment_name(number))
}

/// The log opens, and begins with these records.
fn must_hold(sim: &Sim, acknowledged: &[Vec<u8>]) {
    let log = Log::open(sim, options()).unwrap_or_else(|error| panic!("a sound log is refused: {error}"));
    let found = log.read(log.handle.opened().expect("it is open").first_lsn);
    let found = found.unwrap_or_else(|error| panic!("a sound log cannot be read: {error}"));
    let (here, there) = (found.len(), acknowledged.len());
    assert!(here >= there, "{there} records were acknowledged, {here} are there");
    assert!(found.starts_with(acknowledged), "a record is not the one that was acknowledged");
}

/// The log is refused as damaged, and no byte of it changes.
fn must_refuse(sim: &Sim, options: Options) {
    let before = sim.snapshot();
    match Log::open(sim, options) {
        Ok(log) => panic!("damage was not noticed: {:?}", log.recovery()),
        Err(error) => assert_eq!(error.code, Code::WalDamaged, "{error}"),
    }
    assert_eq!(without_lock(sim.snapshot()), without_lock(before), "a refusal writes nothing");
}

// ---- the scenarios ----------------------------------------------------------------------------------------

fn acknowledged_is_durable(plant: &dyn Fn(&Sim)) {
    // Goal: an acknowledgement is worth its name at the very moment it is given.
    // Method: plain writes and flushes; the power is cut then and there, and keeps nothing it need not keep.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        plant(&sim);
        log.append(1, &record(1)).expect("appends");
        must_hold(&sim.image().boot_with([], seed), &[record(1)]);
    }
}

fn a_durable_write_proves_only_itself(plant: &dyn Fn(&Sim)) {
    // Goal: durability rule 1. Method: a record that nobody waits for is written plainly, the one behind it
    // durably; as soon as the second is acknowledged the power is cut. Several disks, as one may by chance have written
    // the first before.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Dsync)).expect("opens");
        log.submit(1, &[record(1)], false).expect("is taken");
        log.turn_until(|status| status.written_lsn == 1);
        assert_eq!(log.handle.status().durable_lsn, 0, "nobody asked for it yet");
        log.append(2, &record(2)).expect("appends");
        must_hold(&sim.image().boot_with([], seed), &[record(1), record(2)]);
    }
}

fn a_flush_proves_only_its_own_segment(plant: &dyn Fn(&Sim)) {
    // Goal: rule 1 where the log goes on in the next segment: its first frame and the seal before it are
    // complete at the same time, in two files. Method: fill a segment, append one more record, cut the power.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        let mut acknowledged = Vec::new();
        for mark in 1..=FRAMES + 1 {
            log.append(u64::from(mark), &record(mark)).expect("appends");
            acknowledged.push(record(mark));
        }
        must_hold(&sim.image().boot_with([], seed), &acknowledged);
    }
}

fn a_new_segment_has_a_durable_name(plant: &dyn Fn(&Sim)) {
    // Goal: rule 5. Method: on a log that is there, append into a segment that was made since; cut the power.
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    plant(&sim);
    let mut acknowledged = Vec::new();
    for mark in 1..=FRAMES + 1 {
        log.append(u64::from(mark), &record(mark)).expect("appends");
        acknowledged.push(record(mark));
    }
    must_hold(&sim.image().boot_with([], 1), &acknowledged);
}

fn a_short_write_is_finished(plant: &dyn Fn(&Sim)) {
    // Goal: rule 4. Method: the frame's write is short, and acknowledged all the same once it is whole.
    for sync in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let sim = Sim::new(1);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(sync)).expect("opens");
        sim.fail(Fault::short_write().named(".seg"));
        log.append(1, &record(1)).expect("appends");
        must_hold(&sim.image().boot_with([], 1), &[record(1)]);
    }
}

fn a_misplaced_block_is_not_believed(plant: &dyn Fn(&Sim)) {
    // Goal: a frame is one only where it was written. Method: the newest frame is copied over the first one
    // of its segment, where nothing but the frame itself says which one belongs there; opening looks no
    // further back than it has to.
    let sim = Sim::new(1);
    plant(&sim);
    let mut log = Log::open(&sim, options()).expect("opens");
    for mark in 1..=FRAMES {
        log.append(u64::from(mark), &record(mark)).expect("appends");
    }
    let first = u64::from(FRAMES) + 1;
    log.submit(first, &[record(101), record(102)], true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == first + 1);
    log.append(first + 2, &record(103)).expect("appends");
    log.close().expect("closes");

    let (path, grain) = (segment_path(2), GRAIN as usize);
    let mut bytes = sim.read_file(&path);
    let (first, newest) = (grain..2 * grain, 3 * grain..4 * grain);
    assert_eq!(bytes[newest.end - 1], 103, "a frame of two grains, then one of one");
    bytes.copy_within(newest, first.start);
    sim.write_file(&path, bytes);
    must_refuse(&sim, Options { check: Check::Tail, ..options() });
}

fn damage_is_refused(plant: &dyn Fn(&Sim)) {
    // Goal: rule 7. Method: one bit of an acknowledged record turns over; HEAD does not vouch for it yet,
    // later frames do.
    let sim = Sim::new(1);
    plant(&sim);
    let mut log = Log::open(&sim, options()).expect("opens");
    for mark in 1..=5 {
        log.append(u64::from(mark), &record(mark)).expect("appends");
    }
    let rotten = sim.power_cut(1);
    rotten.flip(segment_path(1), 2 * GRAIN + 1000, 3);
    must_refuse(&rotten, options());
}

fn what_open_serves_is_durable(plant: &dyn Fn(&Sim)) {
    // Goal: rules 2 and 6. Method: a flush fails, the page cache goes on showing what the disk may not have,
    // and the next owner in the same boot serves it. Then the power is cut.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        sim.fail(Fault::new(Call::Sync).named(".seg"));
        log.append(1, &record(1)).expect_err("the flush fails");
        log.close().expect_err("it failed");

        let log = Log::open(&sim, options()).expect("opens again");
        assert_eq!(log.last_lsn(), 1, "the page cache shows it");
        must_hold(&sim.image().boot_with([], seed), &[record(1)]);
    }
}

fn a_dead_owner_writes_over_nothing(plant: &dyn Fn(&Sim)) {
    // Goal: rule 8. Method: an owner dies with a write at a disk that answers nothing for a while. Whoever
    // opens meanwhile is told that it is locked; the next owner appends, and then the dead one's write has
    // landed too, and everything is on disk.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, options()).expect("opens");
        log.append(1, &record(1)).expect("appends");
        sim.stall(true);
        log.submit(2, &[record(2)], true).expect("is taken");
        for _ in 0..10 {
            log.service.turn();
        }
        assert_eq!(sim.in_flight(), 1, "the write is at the disk");
        sim.kill();
        drop(log);

        let early = Log::open(&sim, Options { lock_timeout: Duration::from_millis(50), ..options() });
        sim.stall(false);
        let mut log = early.unwrap_or_else(|error| {
            assert_eq!(error.code, Code::WalLocked, "{error}");
            Log::open(&sim, options()).expect("opens once the write has landed")
        });
        let mut acknowledged = vec![record(1), record(2)];
        acknowledged.truncate(usize::try_from(log.last_lsn()).expect("a few"));
        log.append(log.last_lsn() + 1, &record(3)).expect("appends");
        acknowledged.push(record(3));
        sim.fs().sleep(Duration::from_secs(3));
        assert_eq!(sim.in_flight(), 0, "a dead owner's writes land within two seconds");
        let image = sim.image();
        must_hold(&image.boot_with(image.undecided(), seed), &acknowledged);
    }
}

fn stale_frames_behind_the_tail_are_junk(plant: &dyn Fn(&Sim)) {
    // Goal: the incarnation rule. Method: a plain frame is lost by a flush that fails, the durable one behind
    // it is there after the power cut. Recovery zeroes that one, and the flush of the zeros fails too, so
    // that only the page cache has them: the next open in the same boot finds a clean end and appends one
    // frame, right before the stale one. Then the power is cut again.
    let mut seeds_that_count = 0;
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Dsync)).expect("opens");
        log.append(1, &record(1)).expect("appends");
        log.submit(2, &[record(2)], false).expect("is taken");
        log.turn_until(|status| status.written_lsn == 2);
        sim.fail(Fault::new(Call::Sync).named(".seg"));
        log.append(3, &record(3)).expect_err("the flush of the second fails");
        log.close().expect_err("it failed");

        let sim = sim.image().boot_with([], seed);
        sim.fail(Fault::new(Call::Sync).named(".seg"));
        Log::open(&sim, with_sync(SyncMode::Dsync)).expect_err("the flush of the zeros fails");
        let mut log = Log::open(&sim, with_sync(SyncMode::Dsync)).expect("opens");
        if log.last_lsn() > 1 {
            // The failed flush had brought every sector to the disk all the same.
            continue;
        }
        seeds_that_count += 1;
        assert_eq!(log.recovery().torn_bytes, 0, "the page cache shows the zeros");
        log.append(2, &record(4)).expect("appends");
        must_hold(&sim.image().boot_with([], seed), &[record(1), record(4)]);
    }
    assert!(seeds_that_count > 5, "the frame is lost for some of the seeds");
}

fn a_leftover_goes_after_the_name_that_made_it_one(plant: &dyn Fn(&Sim)) {
    // Goal: rule 6, names. Method: a truncation was killed between the rename of HEAD and the sync of the
    // directory. Open removes the segments that HEAD no longer names, and the power is cut at each of its
    // steps, with any one of the pending changes kept and no other.
    for step in 1.. {
        let sim = Sim::new(1);
        plant(&sim);
        let mut log = Log::open(&sim, options()).expect("opens");
        for mark in 1..=FRAMES + 3 {
            log.append(u64::from(mark), &record(mark)).expect("appends");
        }
        log.close().expect("closes");
        let head = Head::decode(&sim.read_file(path("HEAD"))).expect("a head");
        let head = Head { oldest_segment: 2, first_lsn: u64::from(FRAMES) + 2, ..head };
        let (fs, temporary) = (sim.fs(), path(&temporary_name("HEAD")));
        let file = fs.open(&temporary, OpenOptions::replace(0o600)).expect("opens");
        fs.write_at(&file, 0, &Buffer::copy_of(&head.encode())).expect("writes");
        fs.sync(&file).expect("syncs");
        fs.rename(&temporary, &path("HEAD")).expect("renames");
        drop(file);

        sim.crash_at(sim.steps() + step);
        let log = Log::open(&sim, options()).expect("opens");
        assert_eq!(log.handle.opened().expect("it is open").first_lsn, head.first_lsn);
        let Some(image) = sim.take_image() else { break };
        let newest = [record(FRAMES + 2), record(FRAMES + 3)];
        for kept in image.undecided() {
            let sim = image.boot_with([kept], step);
            let log = Log::open(&sim, options());
            let log = log.unwrap_or_else(|error| panic!("a sound log is refused: {error}"));
            assert_eq!(log.read(head.first_lsn).expect("reads"), newest);
        }
    }
}

fn head_claims_only_what_is_durable(plant: &dyn Fn(&Sim)) {
    // Goal: rule 6, HEAD last. Method: an owner is killed with records in the page cache only; the next one
    // finds them, and the power is cut at each step of its open. Nothing was promised, so nothing need be
    // there; but a HEAD that says so may not be.
    for step in 1.. {
        let sim = Sim::new(1);
        plant(&sim);
        let mut log = Log::open(&sim, options()).expect("opens");
        for mark in 1..=3 {
            log.submit(u64::from(mark), &[record(mark)], false).expect("is taken");
            log.turn_until(|status| status.written_lsn == u64::from(mark));
        }
        sim.kill();
        drop(log);

        sim.crash_at(sim.steps() + step);
        let log = Log::open(&sim, options()).expect("opens");
        assert_eq!(log.last_lsn(), 3, "a kill loses nothing that was written");
        let Some(image) = sim.take_image() else { break };
        must_hold(&image.boot_with([], step), &[]);
    }
}

fn a_failed_flush_is_final(plant: &dyn Fn(&Sim)) {
    // Goal: rule 2. Method: a flush fails once and would then succeed, over data that is lost. Whatever is
    // acknowledged must be there after the power cut; as it is, nothing is.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        sim.fail(Fault::new(Call::Sync).named(".seg"));
        let outcome = log.append(1, &record(1));
        let acknowledged = if outcome.is_ok() { vec![record(1)] } else { Vec::new() };
        must_hold(&sim.image().boot_with([], seed), &acknowledged);
    }
}

/// A log of two segments and some records, one a frame.
fn two_segments(sim: &Sim, sync: SyncMode) -> (Log, Vec<Vec<u8>>) {
    let mut log = Log::open(sim, with_sync(sync)).expect("opens");
    let all: Vec<Vec<u8>> = (1..=FRAMES + 3).map(record).collect();
    log.append_all(&all);
    (log, all)
}

fn a_truncation_can_be_cut_anywhere(plant: &dyn Fn(&Sim)) {
    // Goal: whatever step of a truncation the power is cut at, the log begins at or before its LSN. Method: cut it at
    // each step, with none of what was undecided kept, all of it, or any one thing alone.
    for step in 1.. {
        let sim = Sim::new(1);
        plant(&sim);
        let (mut log, all) = two_segments(&sim, SyncMode::Auto);
        log.turn(20);
        sim.crash_at(sim.steps() + step);
        let kept_from = u64::from(FRAMES) + 2;
        log.request(Request::TruncateBefore(kept_from)).expect("truncates");
        assert_eq!(log.handle.status().first_lsn, kept_from);
        let cut = sim.take_image();
        let is_last = cut.is_none();
        let image = cut.unwrap_or_else(|| sim.image());
        let alone = image.undecided().into_iter().map(|kept| vec![kept]);
        for kept in [Vec::new(), image.undecided()].into_iter().chain(alone) {
            let sim = image.boot_with(kept, step);
            let log = Log::open(&sim, options());
            let log = log.unwrap_or_else(|error| panic!("a sound log is refused: {error}"));
            let first = log.handle.opened().expect("it is open").first_lsn;
            assert!([1, kept_from].contains(&first), "the log begins with LSN {first}");
            assert_eq!(log.read(first).expect("reads"), all[first as usize - 1..]);
        }
        if is_last {
            break;
        }
    }
}

fn a_truncation_waits_for_the_records_before_it(plant: &dyn Fn(&Sim)) {
    // Goal: rule 15. Method: a record that nobody waits for, a truncation behind it, and a power cut at each step that
    // keeps nothing but names and HEAD.
    for step in 1.. {
        let sim = Sim::new(1);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        log.append(1, &record(1)).expect("appends");
        log.submit(2, &[record(2)], false).expect("is taken");
        log.turn_until(|status| status.written_lsn == 2);
        sim.crash_at(sim.steps() + step);
        log.request(Request::TruncateBefore(3)).expect("truncates");
        let cut = sim.take_image();
        let is_last = cut.is_none();
        let log = Log::open(&cut.unwrap_or_else(|| sim.image()).boot_with([], step), options());
        log.unwrap_or_else(|error| panic!("a sound log is refused: {error}"));
        if is_last {
            break;
        }
    }
}

fn an_error_of_the_disk_is_not_the_end(plant: &dyn Fn(&Sim)) {
    // Goal: the first row of the verdict table. Method: the disk cannot read the log from its middle on for a while,
    // in which it is opened after a power cut.
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    let acknowledged = [record(1), record(2), record(3)];
    log.append_all(&acknowledged);
    let sim = sim.power_cut(1);
    plant(&sim);
    sim.fail(Fault::new(Call::Read).named(".seg").bytes(2 * GRAIN..u64::MAX).forever());
    let before = sim.snapshot();
    let error = Log::open(&sim, options()).expect_err("the disk could not read, and it opened");
    assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error}");
    assert_eq!(without_lock(sim.snapshot()), without_lock(before));
    sim.clear_faults();
    must_hold(&sim, &acknowledged);
}

fn what_is_acknowledged_has_everything_before_it(plant: &dyn Fn(&Sim)) {
    // Goal: rule 1, the order. Method: two durable writes in flight together, which the disk does in any order. As soon
    // as the second is acknowledged the power is cut.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Dsync)).expect("opens");
        log.submit(1, &[record(1)], false).expect("is taken");
        log.service.turn();
        log.submit(2, &[record(2)], true).expect("is taken");
        log.turn_until(|status| status.durable_lsn >= 2);
        must_hold(&sim.image().boot_with([], seed), &[record(1), record(2)]);
    }
}

fn a_frame_of_another_log_is_not_believed(plant: &dyn Fn(&Sim)) {
    // Goal: blocks of another log are no records. Method: two logs of the same shape; the one frame of the newest segment
    // is the other's, and opening looks no further back than it has to.
    let machine = |seed, mark: u8| {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, options()).expect("opens");
        for lsn in 1..=FRAMES + 1 {
            log.append(u64::from(lsn), &record(mark)).expect("appends");
        }
        log.close().expect("closes");
        sim
    };
    let (sim, other) = (machine(1, 1), machine(2, 2));
    let path = segment_path(2);
    let (mut bytes, others) = (sim.read_file(&path), other.read_file(&path));
    let frame = GRAIN as usize..2 * GRAIN as usize;
    assert_eq!((bytes[frame.end - 1], others[frame.end - 1]), (1, 2), "the last record of each");
    bytes[frame.clone()].copy_from_slice(&others[frame]);
    sim.write_file(&path, bytes);
    must_refuse(&sim, Options { check: Check::Tail, ..options() });
}

fn a_failed_log_is_locked_until_its_last_write_has_landed(plant: &dyn Fn(&Sim)) {
    // Goal: rule 8, of a handle that failed. Method: of two writes in flight one fails, and then the disk answers nothing
    // for a while, in which the handle is told to close and somebody else wants the log.
    let mut seeds_that_count = 0;
    for seed in 0..20 {
        let sim = Sim::new(seed);
        plant(&sim);
        let mut log = Log::open(&sim, with_sync(SyncMode::Dsync)).expect("opens");
        log.submit(1, &[record(1)], false).expect("is taken");
        log.service.turn();
        log.submit(2, &[record(2)], false).expect("is taken");
        log.service.turn();
        sim.fail(Fault::new(Call::Write).named(".seg"));
        while log.handle.failure().is_none() && sim.in_flight() > 0 {
            log.service.turn();
        }
        if sim.in_flight() == 0 || log.handle.failure().is_none() {
            continue;
        }
        seeds_that_count += 1;
        sim.stall(true);
        log.handle.close();
        log.turn(3);
        let early = Options { lock_timeout: Duration::from_millis(50), ..options() };
        let error = Log::open(&sim, early).expect_err("a write is in flight");
        assert_eq!(error.code, Code::WalLocked, "{error}");
        assert_eq!(error.path, Some(path("LOCK")), "LOCK was free with a write in flight");
        sim.stall(false);
        while log.service.turn() {}
        drop(log);
        Log::open(&sim, options()).expect("opens once everything has landed");
    }
    assert!(seeds_that_count > 3, "{seeds_that_count} seeds have a write in flight when the other fails");
}

fn a_torn_tail_is_cut_for_good(plant: &dyn Fn(&Sim)) {
    // Goal: what open reports as cut does not come back. Method: bytes that are no frame behind the last one; open, and
    // cut the power as soon as it is open, keeping nothing that need not be kept.
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    log.append(1, &record(1)).expect("appends");
    log.close().expect("closes");
    let mut bytes = sim.read_file(segment_path(1));
    bytes[2 * GRAIN as usize..][..500].fill(7);
    sim.write_file(segment_path(1), bytes);
    plant(&sim);
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.recovery().torn_bytes, 500);
    let log = Log::open(&sim.image().boot_with([], 1), options()).expect("opens");
    assert_eq!(log.recovery().torn_bytes, 0, "the torn tail is back");
}

fn a_number_that_was_taken_back_is_given_out_once(plant: &dyn Fn(&Sim)) {
    // Goal: rule 9. Method: no room for the next segment, so a record is refused; the number behind it had been given out
    // too, and that record comes late, when the first number has been given to another.
    let sim = Sim::new(1);
    plant(&sim);
    let mut log = Log::open(&sim, options()).expect("opens");
    sim.fail(Fault::new(Call::Allocate).errno(28).forever());
    let all: Vec<Vec<u8>> = (1..=FRAMES).map(record).collect();
    log.append_all(&all);
    let due = u64::from(FRAMES) + 1;
    log.submit(due, &[record(101)], true).expect("is taken");
    log.turn_until(|status| status.epoch == 1);
    sim.clear_faults();
    log.append(due, &record(102)).expect("there is room now");
    let late = record(103);
    let run = Run { epoch: 0, first_lsn: due + 1, records: Records::Apart(&[&late]), durable: true };
    log.handle.submit(run).expect("the refusal answers for it");
    log.turn(50);
    let written = log.handle.status().written_lsn;
    assert_eq!(written, due, "a record was written whose number was another's");
    log.append(due + 1, &record(104)).expect("the number is free");
    must_hold(&sim.power_cut(1), &[all, vec![record(102), record(104)]].concat());
}
