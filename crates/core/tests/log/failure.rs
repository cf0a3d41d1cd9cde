//! What a failure ends, and what it leaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringbolt_core::wal::{Handle, Options, Phase, Records, Run, Status, SyncMode};
use ringbolt_core::{Code, Error};
use ringbolt_disk::Op;
use ringbolt_disk::sim::{Call, Fault, Sim};

use crate::support::{FRAMES, Log, on_submit, options, path, records, watched};
use crate::{SYNC_MODES, log_of, must_hold, with_sync};

/// Three records are acknowledged, then `fault` strikes what two more need. Answers with the failure.
fn poisoned(sync: SyncMode, fault: Fault) -> (Sim, Log, Error) {
    let (sim, mut log) = log_of(with_sync(sync));
    log.append_all(&records(3));
    sim.fail(fault);
    for (lsn, record) in (4..).zip(records(5).split_off(3)) {
        log.submit(lsn, &[record], true).expect("is taken");
    }
    log.turn_until(|status| status.phase == Phase::Failed);
    assert_eq!(log.handle.status().durable_lsn, 3, "{sync:?}: what is in flight stays unacknowledged");
    let failure = log.handle.failure().expect("it failed");
    (sim, log, failure)
}

/// Later calls are refused, closing ends and releases the locks, and nothing acknowledged is lost.
fn must_end_well(sim: &Sim, mut log: Log, failure: &Error) {
    let refused = log.submit(6, &records(1), true).expect_err("the log takes no more");
    assert_eq!(refused.code, Code::WalPoisoned);
    assert_eq!(refused.cause.as_ref(), Some(failure));
    assert_eq!((refused.errno, refused.syscall), (failure.errno, failure.syscall));
    assert_eq!(refused.path, failure.path);
    log.turn(100);
    assert_eq!(log.handle.status().durable_lsn, 3, "nothing is believed any more");
    assert_eq!(log.close().expect_err("it failed"), *failure);

    // Without waiting for the locks: a log that ended holds none.
    let log = Log::open(sim, Options { lock_timeout: Duration::ZERO, ..options() }).expect("opens");
    let found = log.read(1).expect("reads");
    assert!(found.len() >= 3, "acknowledged, and lost");
    assert_eq!(found, records(found.len()));
    log.close().expect("closes");
}

#[test]
fn a_failed_write_poisons_the_log() {
    // Goal: rule 2 for writes. Method: a fault, in each mode; the error says what the kernel said.
    for sync in SYNC_MODES {
        let (sim, log, failure) = poisoned(sync, Fault::new(Call::Write).named(".seg"));
        let segment = path("wal-0000000000000001.seg");
        assert_eq!(failure.code, Code::WalIo);
        let syscall = if sync == SyncMode::Fdatasync { "pwrite" } else { "pwritev2" };
        assert_eq!((failure.errno, failure.syscall), (Some(5), Some(syscall)));
        assert_eq!(failure.path, Some(segment), "by the name it has, not the one it was made under");
        assert!(failure.message.starts_with("writing to the log: "), "{failure}");
        must_end_well(&sim, log, &failure);
    }
}

#[test]
fn a_failed_flush_poisons_the_log() {
    // Goal: rule 2 for flushes. Method: a fault, in the mode that flushes.
    let (sim, log, failure) = poisoned(SyncMode::Fdatasync, Fault::new(Call::Sync).named(".seg"));
    assert_eq!(failure.code, Code::WalIo);
    assert_eq!((failure.errno, failure.syscall), (Some(5), Some("fdatasync")));
    assert_eq!(failure.path, Some(path("wal-0000000000000001.seg")));
    assert!(failure.message.starts_with("flushing the log: "), "{failure}");
    must_end_well(&sim, log, &failure);
}

#[test]
fn a_flush_that_fails_once_and_would_then_succeed_is_not_believed() {
    // Goal: the page cache marks what it could not write as clean, and the next flush says yes. Method: let
    // everything that comes after the one failure succeed, for every way the lost sectors may fall, and cut
    // the power behind the next open, which serves what the cache shows.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let (disk, seen) = watched(&sim);
        let mut log = Log::open_on(disk, with_sync(SyncMode::Fdatasync), |_| {}).expect("opens");
        log.append_all(&records(1));
        sim.fail(Fault::new(Call::Sync).named(".seg"));
        log.append(2, &records(2)[1]).expect_err("its flush fails");
        log.handle.want_durable(2);
        log.handle.flush();
        log.turn(50);
        let flushes = seen.lock().expect("nobody panics").iter().filter(|op| op.starts_with("Sync")).count();
        assert_eq!(flushes, 2, "the failed flush was tried again");
        let status = log.handle.status();
        assert_eq!((status.durable_lsn, status.flushes_done), (1, 0));
        log.close().expect_err("it failed");

        let log = Log::open(&sim, options()).expect("opens");
        let served = log.read(1).expect("reads");
        must_hold(&sim.image().boot_with([], seed), &served);
    }
}

#[test]
fn a_failed_directory_sync_of_the_next_segment_poisons_the_log() {
    // Goal: nothing is acknowledged into a file whose name may vanish. Method: the one directory sync that a
    // rotation needs fails.
    let (sim, mut log) = log_of(options());
    sim.fail(Fault::new(Call::SyncDir));
    let records = records(FRAMES + 1);
    let failure = (1..).zip(&records).find_map(|(lsn, record)| log.append(lsn, record).err());
    let failure = failure.expect("the next segment cannot be made");
    assert_eq!((failure.code, failure.syscall, failure.errno), (Code::WalIo, Some("fsync"), Some(5)));
    assert!(failure.message.starts_with("preparing the next segment: "), "{failure}");
    let durable = log.handle.status().durable_lsn as usize;
    assert!(durable <= FRAMES);
    log.close().expect_err("it failed");
    let image = sim.image();
    for seed in 0..20 {
        let log = Log::open(&image.boot(seed), options()).expect("opens");
        let found = log.read(1).expect("reads");
        assert!(found.len() >= durable && records.starts_with(&found));
    }
}

#[test]
fn whichever_call_fails_nothing_acknowledged_is_lost() {
    // Goal: there is no call whose failure is forgotten. Method: each kind of call, each of the first of its
    // kind, once and for good, from before open on; then the process dies, the fault is gone, and the power
    // is cut too.
    let calls = [
        Call::Open,
        Call::Len,
        Call::SetLen,
        Call::Read,
        Call::Write,
        Call::Sync,
        Call::Allocate,
        Call::Zero,
        Call::Lock,
        Call::Stat,
        Call::List,
        Call::CreateDir,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
    ];
    let all = records(2 * FRAMES + 3);
    for call in calls {
        for skip in 0..12 {
            for is_final in [false, true] {
                let sim = Sim::new(skip);
                let fault = Fault::new(call).skip(skip);
                sim.fail(if is_final { fault.forever() } else { fault });
                let mut acknowledged = 0;
                for _ in 0..2 {
                    let Ok(mut log) = Log::open(&sim, options()) else { continue };
                    acknowledged = acknowledged.max(log.last_lsn());
                    let first = acknowledged as usize;
                    for (lsn, record) in (acknowledged + 1..).zip(&all[first..]).take(FRAMES + 1) {
                        if log.append(lsn, record).is_err() {
                            break;
                        }
                        acknowledged = lsn;
                    }
                    // Whether it failed or not, it ends.
                    let _ = log.close();
                }
                sim.clear_faults();
                let rebooted = sim.power_cut(skip);
                for machine in [&rebooted, &sim] {
                    let log = Log::open(machine, options());
                    let log = log.unwrap_or_else(|error| panic!("{call:?} {skip} {is_final}: {error}"));
                    let found = log.read(1).expect("reads");
                    assert!(found.len() as u64 >= acknowledged, "{call:?} {skip} {is_final}: lost");
                    assert!(all.starts_with(&found), "{call:?} {skip} {is_final}: invented");
                }
            }
        }
    }
}

#[test]
fn a_short_write_is_finished() {
    // Goal: rule 4. Method: every write is short, in each mode, over a rotation; nothing is amiss.
    for sync in SYNC_MODES {
        let (sim, mut log) = log_of(with_sync(sync));
        sim.fail(Fault::short_write().named(".seg").times(40));
        let records = records(FRAMES + 3);
        log.append_all(&records);
        must_hold(&sim.image().boot_with([], 1), &records);
    }
}

#[test]
fn after_a_failure_nothing_is_handed_to_the_disk_any_more() {
    // Goal: invariant 5. Method: watch the driver while everything is asked of a failed log.
    let sim = Sim::new(1);
    let (disk, seen) = watched(&sim);
    let mut log = Log::open_on(disk, options(), |_| {}).expect("opens");
    log.append_all(&records(1));
    sim.fail(Fault::new(Call::Write).named(".seg"));
    log.append(2, &records(2)[1]).expect_err("the write fails");
    let before = seen.lock().expect("nobody panics").len();
    log.submit(3, &records(1), true).expect_err("it is poisoned");
    log.handle.flush();
    log.handle.want_durable(2);
    log.turn(20);
    log.close().expect_err("it failed");
    assert_eq!(seen.lock().expect("nobody panics")[before..], [] as [String; 0]);
}

#[test]
fn a_failure_is_told_to_the_listener_and_counted() {
    // Goal: nobody has to ask to learn of it. Method: a listener that looks at the phase.
    let sim = Sim::new(1);
    let phases = Arc::new(Mutex::new(Vec::new()));
    let told = phases.clone();
    let tell = move |status: &Status| told.lock().expect("nobody panics").push(status.phase);
    let mut log = Log::open_with(&sim, options(), tell).expect("opens");
    sim.fail(Fault::new(Call::Write).named(".seg"));
    log.append(1, &records(1)[0]).expect_err("the write fails");
    assert_eq!(phases.lock().expect("nobody panics").last(), Some(&Phase::Failed));
    assert_eq!(log.handle.stats().errors, 1);
}

#[test]
fn a_panic_of_the_logs_thread_poisons_it_and_releases_the_locks() {
    // Goal: a bug of ours ends one log, not the process, and hangs nobody. Method: a log on a thread of its own,
    // over a driver that panics at the second frame.
    let sim = Sim::new(1);
    let mut frames = 0;
    let disk = on_submit(&sim, move |op| {
        frames += u32::from(matches!(op, Op::Write { .. }));
        assert!(frames < 2, "on purpose");
    });
    let handle = Handle::open(options(), disk, Box::new(|| {}));
    let submit = |first_lsn, record: &[u8]| {
        handle.submit(Run { epoch: 0, first_lsn, records: Records::Apart(&[record]), durable: true })
    };
    let wait_for = |reached: &dyn Fn(&Status) -> bool| {
        while !reached(&handle.status()) && !handle.status().ended {
            std::thread::yield_now();
        }
    };
    let records = records(3);
    wait_for(&|status| status.phase == Phase::Open);
    submit(1, &records[0]).expect("is taken");
    wait_for(&|status| status.durable_lsn == 1);
    submit(2, &records[1]).expect("is taken");
    wait_for(&|status| status.ended);

    let failure = handle.failure().expect("it panicked");
    assert!(failure.message.contains("panicked (on purpose)"), "{failure}");
    assert_eq!(submit(3, &records[2]).expect_err("it is poisoned").code, Code::WalPoisoned);
    handle.close();
    handle.join();
    must_hold(&sim, &records[..1]);
}

/// A log whose first segment is full, and whose second, prepared, was removed by somebody.
fn without_the_prepared_segment() -> (Sim, Log) {
    let (sim, mut log) = log_of(options());
    log.append_all(&records(FRAMES));
    log.turn(20);
    sim.remove_file(path("wal-0000000000000002.seg"));
    (sim, log)
}

#[test]
fn nothing_is_acknowledged_into_a_prepared_segment_that_lost_its_name() {
    // Goal: rule 14 at rotation, for the file that rotation goes to: it has lain there for a while. Method: remove
    // it before the record that needs it; what is acknowledged then must be there after a power cut.
    let flush = |handle: &Handle| assert_eq!(handle.flush(), 1);
    for ask in [|_: &Handle| {}, flush, Handle::close] {
        let (sim, mut log) = without_the_prepared_segment();
        let last = FRAMES as u64 + 1;
        log.submit(last, &records(1), true).expect("is taken");
        ask(&log.handle);
        log.turn_until(|status| status.phase == Phase::Failed);
        let status = log.handle.status();
        assert_eq!((status.durable_lsn, status.flushes_done), (FRAMES as u64, 0));
        let failure = log.handle.failure().expect("it failed");
        assert_eq!((failure.errno, failure.syscall), (Some(2), Some("stat")), "{failure}");
        assert_eq!(failure.path, Some(path("wal-0000000000000002.seg")));
        must_hold(&sim.power_cut(1), &records(FRAMES));
    }
}

#[test]
fn a_flush_and_a_close_are_answered_by_the_segment_that_the_records_are_in() {
    // Goal: rule 14 where the records move on to the next segment after the call. Method: the next segment loses
    // its name as the seal is written, when every check before it has been made.
    let flush = |handle: &Handle| assert_eq!(handle.flush(), 1);
    for ask in [flush, Handle::close] {
        let sim = Sim::new(1);
        let (machine, mut seen) = (sim.clone(), 0);
        let disk = on_submit(&sim, move |op| {
            if let Op::Write { file, .. } = op
                && file.path() == path("wal-0000000000000001.seg.tmp")
            {
                seen += 1;
                if seen == FRAMES + 1 {
                    machine.remove_file(path("wal-0000000000000002.seg"));
                }
            }
        });
        let mut log = Log::open_on(disk, options(), |_| {}).expect("opens");
        log.append_all(&records(FRAMES));
        log.submit(FRAMES as u64 + 1, &records(1), true).expect("is taken");
        ask(&log.handle);
        for _ in 0..1000 {
            log.turn(1);
        }
        assert_eq!(log.handle.status().flushes_done, 0, "answered by the file of another segment");
        let failure = log.handle.failure().expect("the record is in a file without a name");
        assert_eq!(failure.syscall, Some("stat"), "{failure}");
    }
}

#[test]
fn a_want_of_descriptors_ends_no_log() {
    // Goal: only a failed write or flush poisons (rule 2). Method: EMFILE for whatever is opened, while HEAD is due
    // after a second of idleness, while the next segment is to be made, and at close.
    let too_many_open_files = 24;
    let (sim, mut log) = log_of(options());
    log.append_all(&records(3));
    sim.fail(Fault::new(Call::Open).errno(too_many_open_files).forever());
    sim.fs().sleep(Duration::from_secs(5));
    log.turn(20);
    for (lsn, record) in (4..).zip(&records(FRAMES)[3..]) {
        log.append(lsn, record).expect("appends");
    }
    log.turn(20);
    assert!(log.handle.stats().errors > 1);
    // Where the segment is needed the record is refused, and the log works on once it can be made.
    let next = FRAMES as u64 + 1;
    log.submit(next, &records(1), true).expect("is taken");
    log.turn_until(|status| status.epoch == 1);
    let refusal = log.handle.refusal().expect("there is one");
    assert_eq!((refusal.from_lsn, refusal.error.errno), (next, Some(too_many_open_files)));
    sim.clear_faults();
    log.append(next, &records(1)[0]).expect("appends");
    sim.fail(Fault::new(Call::Open).errno(too_many_open_files).forever());
    log.close().expect("everything is durable, and the HEAD that is there is true");
    sim.clear_faults();
    let mut all = records(FRAMES);
    all.extend(records(1));
    must_hold(&sim.power_cut(1), &all);
}

#[test]
fn no_room_for_zeros_ends_no_log() {
    // Goal: zeros only make what follows quicker. Method: a disk that has no room for them, as one that copies on
    // write may have none.
    let (sim, mut log) = log_of(options());
    sim.fail(Fault::new(Call::Zero).errno(28).forever());
    log.append_all(&records(FRAMES + 3));
    log.close().expect("closes");
    must_hold(&sim, &records(FRAMES + 3));
}
