//! Opening: what is made, what is refused, what is left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use ringbolt_core::Code;
use ringbolt_core::wal::{Handle, Options, Phase, SyncMode};
use ringbolt_disk::sim::{Call, Fault, Image, Sim};

use crate::support::{DIRECTORY, FRAMES, Log, forgetful, options, path, records, without_lock};
use crate::{log_of, must_hold, with_sync};

#[test]
fn a_second_owner_is_told_who_has_the_log_after_the_timeout() {
    // Goal: one writer; the other learns whom to ask, and not before it waited. Method: two processes.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(1));
    let (fs, before) = (sim.fs(), sim.snapshot());
    let (began, timeout) = (fs.now(), Duration::from_millis(250));
    let refused = Log::open(&sim, Options { lock_timeout: timeout, ..options() }).expect_err("it is taken");
    let took = fs.now().since(began);
    assert_eq!(refused.code, Code::WalLocked);
    assert_eq!(refused.pid, Some(fs.pid()));
    assert_eq!(refused.path, Some(path("LOCK")));
    assert!(refused.message.contains(&format!("process {} has the log open", fs.pid())), "{refused}");
    assert!(took >= timeout && took < timeout + Duration::from_millis(20), "after {took:?}");
    assert_eq!(without_lock(sim.snapshot()), without_lock(before));
    log.append(2, &records(2)[1]).expect("the owner is not disturbed");
}

#[test]
fn an_owner_that_leaves_within_the_timeout_is_waited_for() {
    // Goal: a restart need not fail. Method: the owner dies with a write in flight; the next one opens at once.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(1));
    log.turn(10);
    sim.stall(true);
    log.submit(2, &records(2)[1..], true).expect("is taken");
    log.turn(5);
    sim.kill();
    drop(log);
    sim.stall(false);
    let log = Log::open(&sim, options()).expect("the write lands within two seconds");
    assert_eq!(sim.in_flight(), 0, "not before it has");
    assert!(records(2).starts_with(&log.read(1).expect("reads")));
}

#[test]
fn a_dead_owner_whose_writes_are_on_their_way_is_named_again_and_again() {
    // Goal: rule 8: whoever is kept out learns by whom, and by nobody else. Method: the owner dies with a write
    // at a disk that does not answer; LOCK is free, its segment is not. Try twice.
    let (sim, mut log) = log_of(options());
    let owner = sim.fs().pid();
    log.append_all(&records(1));
    log.turn(10);
    sim.stall(true);
    log.submit(2, &records(2)[1..], true).expect("is taken");
    log.turn(5);
    sim.kill();
    drop(log);
    for _ in 0..2 {
        let refused = Log::open(&sim, Options { lock_timeout: Duration::ZERO, ..options() });
        let refused = refused.expect_err("a write is on its way");
        assert_eq!(refused.code, Code::WalLocked);
        assert_eq!(refused.path, Some(path("wal-0000000000000001.seg")));
        assert_eq!(refused.pid, Some(owner), "{refused}");
    }
    sim.stall(false);
    Log::open(&sim, options()).expect("opens");
    assert_eq!(sim.read_file(path("LOCK")), sim.fs().pid().to_string().as_bytes());
}

#[test]
fn without_create_nothing_is_made() {
    // Goal: a mistyped path leaves no trace. Method: no directory at all, an empty one, one with our LOCK.
    let options = Options { create: false, ..options() };
    let sim = Sim::new(1);
    for prepare in
        [|_: &Sim| {}, |sim: &Sim| sim.make_dir(DIRECTORY), |sim: &Sim| sim.write_file(path("LOCK"), "7")]
    {
        prepare(&sim);
        let before = (sim.snapshot(), sim.list("/"), sim.list("/data"), sim.list(DIRECTORY));
        let refused = Log::open(&sim, options.clone()).expect_err("there is no log");
        assert_eq!(refused.code, Code::WalNotFound);
        assert_eq!(refused.path.as_deref(), Some(DIRECTORY.as_ref()));
        assert_eq!((sim.snapshot(), sim.list("/"), sim.list("/data"), sim.list(DIRECTORY)), before);
    }
    Log::open(&sim, crate::support::options()).expect("opens").close().expect("closes");
    Log::open(&sim, options).expect("now there is one");
}

#[test]
fn a_directory_with_something_else_in_it_is_left_alone() {
    // Goal: somebody's data is not mixed with ours. Method: one foreign name; the error tells it.
    for name in ["notes.txt", "wal-1.seg", "WAL-0000000000000001.SEG", "head"] {
        let sim = Sim::new(1);
        sim.write_file(path(name), "mine");
        let before = (sim.snapshot(), sim.list(DIRECTORY));
        let refused = Log::open(&sim, options()).expect_err("not an empty directory");
        assert_eq!(refused.code, Code::WalNotEmpty);
        assert_eq!(refused.found.as_deref(), Some(name));
        assert_eq!((sim.snapshot(), sim.list(DIRECTORY)), before);
    }
}

#[test]
fn an_open_that_failed_has_ended_and_told_why() {
    // Goal: nobody waits for a log that will never be. Method: a log on a thread of its own, in a directory that
    // is not ours.
    let sim = Sim::new(1);
    sim.write_file(path("notes.txt"), "mine");
    let handle = Handle::open(options(), sim.disk(), Box::new(|| {}));
    handle.join();
    let status = handle.status();
    assert_eq!((status.phase, status.ended), (Phase::Closed, true));
    assert_eq!(handle.failure().expect("it failed").code, Code::WalNotEmpty);
    assert!(handle.opened().is_none());
}

#[test]
fn what_file_systems_and_interrupted_creations_leave_is_no_stranger() {
    // Goal: a log can be made at a mount point, and where one was begun. Method: those names, then open.
    let sim = Sim::new(1);
    sim.make_dir(path("lost+found"));
    sim.write_file(path("LOCK"), "");
    sim.write_file(path("HEAD.tmp"), "half");
    sim.write_file(path("wal-0000000000000001.seg.tmp"), "half");
    sim.write_file(path("editor.tmp"), "another program's");
    let mut log = Log::open(&sim, options()).expect("opens");
    assert!(log.recovery().created);
    log.append_all(&records(1));
    log.close().expect("closes");
    let expected = ["HEAD", "LOCK", "editor.tmp", "lost+found", "wal-0000000000000001.seg"];
    assert_eq!(sim.list(DIRECTORY), expected);
    assert_eq!(sim.read_file(path("editor.tmp")), b"another program's");
    must_hold(&sim, &records(1));
}

#[test]
fn an_existing_log_ignores_names_it_does_not_know() {
    // Goal: a note beside a log does not make it unreadable. Method: put some there, work the log.
    let (sim, log) = log_of(options());
    log.close().expect("closes");
    sim.write_file(path("README"), "do not touch");
    sim.write_file(path("editor.tmp"), "another program's");
    sim.write_file(path("HEAD.tmp"), "ours, from a crash");
    let mut log = Log::open(&sim, options()).expect("opens");
    log.append_all(&records(1));
    log.close().expect("closes");
    assert_eq!(sim.read_file(path("README")), b"do not touch");
    assert_eq!(sim.read_file(path("editor.tmp")), b"another program's");
    assert!(!sim.list(DIRECTORY).contains(&"HEAD.tmp".to_owned()));
    must_hold(&sim, &records(1));
}

/// The machines that a power cut at this moment may leave: by chance, and with all, nothing, or any one of
/// the pending changes kept, or all but one.
fn power_cuts(image: &Image) -> Vec<Sim> {
    let undecided: BTreeSet<u64> = image.undecided().into_iter().collect();
    let mut cuts: Vec<Sim> = (0..10).map(|seed| image.boot(seed)).collect();
    cuts.push(image.boot_with([], 0));
    cuts.push(image.boot_with(undecided.iter().copied(), 0));
    for &one in &undecided {
        cuts.push(image.boot_with([one], 0));
        cuts.push(image.boot_with(undecided.iter().copied().filter(|&other| other != one), 0));
    }
    cuts
}

#[test]
fn a_creation_that_was_interrupted_at_any_step_is_completed() {
    // Goal: a log that was never told to be open is in nobody's way. Method: kill the creation and cut its
    // power at each of its steps; then open, append, cut the power again.
    let mut steps = 0;
    for step in 1.. {
        let sim = Sim::new(step);
        sim.crash_at(step);
        sim.kill_at(step);
        Log::open(&sim, options()).expect("opens");
        let (Some(image), Some(killed)) = (sim.take_image(), sim.take_kill()) else { break };
        for machine in power_cuts(&image).into_iter().chain([killed]) {
            let mut log = Log::open(&machine, options())
                .unwrap_or_else(|error| panic!("interrupted at step {step}: {error}"));
            assert_eq!(log.last_lsn(), 0);
            log.append_all(&records(1));
            must_hold(&machine.image().boot_with([], step), &records(1));
        }
        steps = step;
    }
    assert!(steps > 20, "a creation of {steps} steps");
}

#[test]
fn an_open_that_was_interrupted_at_any_step_changes_nothing_about_the_next() {
    // Goal: rule 6, last sentence. Method: a log with a torn tail over two segments, of which nothing is
    // proven; kill the recovery and cut its power at each step; everything written durably is there.
    let torn = || {
        let sim = Sim::new(3);
        let mut log = Log::open(&sim, with_sync(SyncMode::Fdatasync)).expect("opens");
        log.append_all(&records(FRAMES + 1));
        sim.stall(true);
        for lsn in FRAMES + 2..=FRAMES + 4 {
            log.submit(lsn as u64, &records(lsn)[lsn - 1..], true).expect("is taken");
            log.turn(1);
        }
        let image = sim.image();
        let last = *image.undecided().last().expect("there are writes in flight");
        image.boot_with([last], 3)
    };
    let log = Log::open(&torn(), options()).expect("opens");
    let (recovery, found) = (log.recovery(), log.read(1).expect("reads"));
    assert!(recovery.torn_bytes > 0 && found.len() == FRAMES + 1, "{recovery:?}");
    let mut steps = 0;
    for step in 1.. {
        let sim = torn();
        sim.crash_at(sim.steps() + step);
        sim.kill_at(sim.steps() + step);
        Log::open(&sim, options()).expect("opens");
        let (Some(image), Some(killed)) = (sim.take_image(), sim.take_kill()) else { break };
        for machine in power_cuts(&image).into_iter().chain([killed]) {
            must_hold(&machine, &found);
            assert_eq!(machine.list(path("torn")).len(), 1, "step {step}: the copy is there, once");
        }
        steps = step;
    }
    assert!(steps > 40, "a recovery of {steps} steps");
}

#[test]
fn missing_parents_are_made_and_durable() {
    // Goal: rule 5, upwards. Method: a deep path on an empty disk; keep nothing that need not be kept.
    let sim = Sim::new(1);
    let options = Options { directory: "/a/b/c/d/log".into(), ..options() };
    let mut log = Log::open(&sim, options.clone()).expect("opens");
    log.append_all(&records(1));
    let sim = sim.image().boot_with([], 1);
    let log = Log::open(&sim, Options { create: false, ..options }).expect("the path is there");
    assert_eq!(log.read(1).expect("reads"), records(1));
}

#[test]
fn a_parent_whose_sync_fails_is_not_taken_for_durable() {
    // Goal: rule 5, where earlier opens made the parents and could not make them durable. Method: fail one
    // directory sync after another, open until it succeeds, keep nothing that need not be kept.
    let deep = Options { directory: "/a/b/log".into(), ..options() };
    for failures in 0..12 {
        let sim = Sim::new(1);
        sim.fail(Fault::new(Call::SyncDir).times(failures));
        let mut log = (0..20).find_map(|_| Log::open(&sim, deep.clone()).ok()).expect("opens in the end");
        sim.clear_faults();
        log.append_all(&records(1));
        let log = Log::open(&sim.image().boot_with([], 1), Options { create: false, ..deep.clone() });
        let log = log.unwrap_or_else(|error| panic!("after {failures} failures: {error}"));
        assert_eq!(log.read(1).expect("reads"), records(1), "after {failures} failures");
    }
}

#[test]
fn a_torn_tail_is_cut_set_aside_and_reported() {
    // Goal: the report says what was cut, and the copy is what was cut. Method: rot in a frame that nobody
    // acknowledged.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(2));
    log.submit(3, &records(3)[2..], false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 3);
    sim.kill();
    drop(log);
    let segment = path("wal-0000000000000001.seg");
    sim.flip(&segment, 3 * 4096 + 2000, 0);
    let before = sim.read_file(&segment);
    let mut log = Log::open(&sim, options()).expect("opens");
    let recovery = log.recovery();
    let torn_at = recovery.torn_at.expect("it was cut");
    assert_eq!((torn_at.segment, torn_at.offset, torn_at.lsn), (1, 3 * 4096, 3));
    assert_eq!((recovery.records, recovery.torn_bytes, recovery.clean_shutdown), (2, 4096, false));
    assert_eq!(sim.read_file(path("torn/0000000000000001-12288-2.bin")), before[3 * 4096..4 * 4096]);
    log.append(3, b"another").expect("appends");
    log.close().expect("closes");
    must_hold(&sim, &[records(2), vec![b"another".to_vec()]].concat());
}

#[test]
fn the_torn_tails_of_the_newest_four_recoveries_are_kept() {
    // Goal: copies for people do not fill the disk. Method: tear six tails, one after another.
    let (sim, log) = log_of(options());
    log.close().expect("closes");
    for _ in 0..6 {
        let log = Log::open(&sim, options()).expect("opens");
        sim.kill();
        drop(log);
        let segment = path("wal-0000000000000001.seg");
        sim.flip(&segment, 8192, 0);
    }
    let log = Log::open(&sim, options()).expect("opens");
    let incarnation = log.handle.opened().expect("it is open").incarnation;
    let expected: Vec<String> =
        (incarnation - 3..=incarnation).map(|number| format!("0000000000000001-4096-{number}.bin")).collect();
    assert_eq!(sim.list(path("torn")), expected);
}

#[test]
fn head_vouches_for_nothing_that_the_disk_did_not_take() {
    // Goal: rule 6 where the page cache forgets between the scan and the writing again. Method: a flush fails, the
    // next open sees the record in the cache, and what it writes again arrives as zeros.
    let (sim, mut log) = log_of(Options { direct_io: false, ..with_sync(SyncMode::Fdatasync) });
    log.append(1, &records(1)[0]).expect("appends");
    sim.fail(Fault::new(Call::Sync).named(".seg"));
    log.append(2, &records(2)[1]).expect_err("the flush fails");
    log.close().expect_err("it failed");
    let before = sim.read_file(path("HEAD"));
    let error = Log::open_on(forgetful(&sim), options(), |_| {}).expect_err("the disk lost it");
    assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error}");
    assert_eq!(sim.read_file(path("HEAD")), before, "nothing vouches for it");
}
