//! What an acknowledgement means, and when it comes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use ringbolt_core::Code;
use ringbolt_core::wal::{Options, SyncMode};
use ringbolt_disk::sim::Sim;

use crate::support::{FRAMES, Log, Model, options, path, records, rng};
use crate::{SYNC_MODES, log_of, must_hold, with_sync};

#[test]
fn what_was_appended_is_there_after_a_close() {
    // Goal: the simplest promise. Method: append, close, open again.
    let (sim, mut log) = log_of(options());
    assert!(log.recovery().created);
    let records = records(100);
    log.append_all(&records);
    assert_eq!(log.read(1).expect("reads"), records);
    log.close().expect("closes");
    let log = Log::open(&sim, options()).expect("opens");
    assert!(log.recovery().clean_shutdown && !log.recovery().created);
    assert_eq!(log.recovery().records, 100);
    assert_eq!(log.read(1).expect("reads"), records);
}

#[test]
fn watermarks_come_in_order_and_each_is_true_when_it_is_told() {
    // Goal: acknowledgements come in LSN order; none goes back; what is told as durable is. Method: overlap
    // many runs; at each telling the watermarks are compared with the last ones and the power is cut.
    for (seed, sync) in (0..).zip(SYNC_MODES) {
        let sim = Sim::new(seed);
        let told = Arc::new(Mutex::new(Vec::new()));
        let (listener, machine) = (told.clone(), sim.clone());
        let mut log = Log::open_with(&sim, with_sync(sync), move |status| {
            listener.lock().expect("nobody panics").push((*status, machine.image()));
        })
        .expect("opens");
        let (mut rng, mut model) = (rng(seed), Model::default());
        while model.last() < 60 {
            let first = model.last() + 1;
            let records = model.run(&mut rng, 0, 2, 3000).to_vec();
            log.submit(first, &records, rng.random()).expect("is taken");
            log.turn(rng.random_range(0..4));
        }
        log.handle.want_durable(60);
        log.turn_until(|status| status.durable_lsn == 60);
        log.close().expect("closes");

        let told = told.lock().expect("nobody panics");
        let (mut written, mut durable) = (0, 0);
        for (status, image) in told.iter() {
            assert!(status.written_lsn >= written && status.durable_lsn >= durable, "a watermark went back");
            assert!(status.durable_lsn <= status.written_lsn, "durable, and not even written");
            if status.durable_lsn > durable {
                let log = Log::open(&image.boot_with([], seed), options()).expect("opens");
                let found = log.read(1).expect("reads");
                assert!(found.len() as u64 >= status.durable_lsn, "told as durable, and lost");
                assert_eq!(found, model.records[..found.len()]);
            }
            (written, durable) = (status.written_lsn, status.durable_lsn);
        }
        assert_eq!((written, durable), (60, 60));
    }
}

#[test]
fn a_run_is_whole_or_absent_after_a_power_cut() {
    // Goal: the atomic batch. Method: runs of several grains, all of them in flight; cut the power in any way.
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    let (mut rng, mut model) = (rng(1), Model::default());
    for _ in 0..3 {
        let first = model.last() + 1;
        let records = model.run(&mut rng, 0, 5, 2000).to_vec();
        log.submit(first, &records, true).expect("is taken");
        log.turn(1);
    }
    let image = sim.image();
    let mut ends = Vec::new();
    for seed in 0..100 {
        let log = Log::open(&image.boot(seed), options()).expect("opens");
        let last = log.last_lsn();
        assert!(last == 0 || model.ends.contains(&last), "a run was torn at LSN {last}");
        assert_eq!(log.read(1).expect("reads"), model.records[..last as usize]);
        ends.push(last);
    }
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 1, "the cuts made no difference: {ends:?}");
}

#[test]
fn a_written_record_is_acknowledged_without_a_flush_and_durable_within_the_interval() {
    // Goal: the weaker acknowledgement is cheap, and ends in the stronger one by itself. Method: the
    // simulator's clock.
    for sync in SYNC_MODES {
        let interval = Duration::from_millis(300);
        let (sim, mut log) = log_of(Options { sync_interval: interval, ..with_sync(sync) });
        let fs = sim.fs();
        let records = records(1);
        log.submit(1, &records, false).expect("is taken");
        log.turn_until(|status| status.written_lsn == 1);
        let began = fs.now();
        assert_eq!(log.handle.stats().syncs, 0, "{sync:?}: nobody waits for a flush");
        assert_eq!(log.handle.status().durable_lsn, 0);
        must_hold(&sim.image().boot_with([], 1), &[]);

        log.turn_until(|status| status.durable_lsn == 1);
        let took = fs.now().since(began);
        assert!(took <= interval + Duration::from_millis(10), "{sync:?}: durable after {took:?}");
        assert_eq!(log.handle.stats().syncs, 1);
        must_hold(&sim.image().boot_with([], 1), &records);
    }
}

#[test]
fn a_written_record_survives_a_kill() {
    // Goal: what `written` is worth. Method: kill the process as soon as it is told.
    let (sim, mut log) = log_of(options());
    let records = records(3);
    log.submit(1, &records, false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 3);
    sim.kill();
    drop(log);
    must_hold(&sim, &records);
}

#[test]
fn want_durable_flushes_what_is_written_at_once() {
    // Goal: whoever is in a hurry need not wait for the interval. Method: the simulator's clock.
    for sync in SYNC_MODES {
        let (sim, mut log) = log_of(Options { sync_interval: Duration::from_hours(1), ..with_sync(sync) });
        let fs = sim.fs();
        log.submit(1, &records(2), false).expect("is taken");
        log.turn_until(|status| status.written_lsn == 2);
        let began = fs.now();
        log.handle.want_durable(1);
        log.turn_until(|status| status.durable_lsn >= 1);
        assert!(fs.now().since(began) < Duration::from_millis(100), "{sync:?}");
    }
}

#[test]
fn want_durable_covers_nothing_that_is_not_submitted_yet() {
    // Goal: asking for too much asks for what there is. Method: ask for LSN 100, then append as written.
    let (_sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    log.handle.want_durable(100);
    log.turn(10);
    log.submit(1, &records(1), false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 1);
    assert_eq!(log.handle.stats().syncs, 0, "a later record is not part of the wish");
}

#[test]
fn one_flush_answers_everyone_who_asked_before_it() {
    // Goal: many flushes cost one. Method: ask three times, then let the log turn.
    let (_sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    log.submit(1, &records(3), false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 3);
    let numbers = [log.handle.flush(), log.handle.flush(), log.handle.flush()];
    assert_eq!(numbers, [1, 2, 3]);
    log.turn_until(|status| status.flushes_done == 3);
    assert_eq!(log.handle.status().durable_lsn, 3);
    assert_eq!(log.handle.stats().syncs, 1);
}

#[test]
fn a_flush_covers_what_was_submitted_before_it_and_is_answered_on_an_empty_log() {
    // Goal: no flush waits forever, none is answered early. Method: flush with nothing, then with records that
    // were only submitted.
    for sync in SYNC_MODES {
        let (_sim, mut log) = log_of(with_sync(sync));
        assert_eq!(log.handle.flush(), 1);
        log.turn_until(|status| status.flushes_done == 1);
        log.submit(1, &records(3), false).expect("is taken");
        assert_eq!(log.handle.flush(), 2);
        log.turn_until(|status| status.flushes_done == 2);
        assert_eq!(log.handle.status().durable_lsn, 3, "{sync:?}");
    }
}

#[test]
fn a_segment_that_lost_its_name_poisons_the_flush() {
    // Goal: durability rule 14. Method: another program removes the segment, or puts another in its place.
    for is_replaced in [false, true] {
        let (sim, mut log) = log_of(options());
        log.append_all(&records(2));
        let segment = path("wal-0000000000000001.seg");
        let bytes = sim.read_file(&segment);
        sim.remove_file(&segment);
        if is_replaced {
            sim.write_file(&segment, bytes);
        }
        log.handle.flush();
        log.turn_until(|status| status.phase == ringbolt_core::wal::Phase::Failed);
        assert_eq!(log.handle.status().flushes_done, 0);
        let failure = log.handle.failure().expect("it failed");
        assert_eq!(failure.code, Code::WalIo);
        assert_eq!(failure.path.as_deref(), Some(&*segment));
        assert_eq!((failure.syscall, failure.errno), (Some("stat"), Some(2)));
        assert!(failure.message.contains("removed or replaced by another program"), "{failure}");
        assert_eq!(log.close().expect_err("it failed"), failure);
    }
}

#[test]
fn a_segment_that_lost_its_name_poisons_rotation() {
    // Goal: rule 14, at the place where nobody asked for a flush. Method: remove the segment, fill it.
    let (sim, mut log) = log_of(options());
    let records = records(FRAMES + 1);
    log.append_all(&records[..1]);
    sim.remove_file(path("wal-0000000000000001.seg"));
    let first_failed = (2..).zip(&records[1..]).find_map(|(lsn, record)| log.append(lsn, record).err());
    let failure = first_failed.expect("the record that needs the next segment fails");
    assert!(failure.message.contains("removed or replaced"), "{failure}");
    assert_eq!(log.handle.status().durable_lsn, FRAMES as u64);
}

#[test]
fn a_segment_that_lost_its_name_poisons_close() {
    // Goal: rule 14, at the last moment to say so. Method: remove the segment, close.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(1));
    sim.remove_file(path("wal-0000000000000001.seg"));
    let failure = log.close().expect_err("what was appended cannot be found again");
    assert!(failure.message.contains("removed or replaced"), "{failure}");
    let refused = Log::open(&sim, options()).expect_err("the segment is missing");
    assert_eq!(refused.code, Code::WalDamaged, "{refused}");
}
