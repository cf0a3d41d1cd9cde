//! The end of a log.

use std::time::Duration;

use ringbolt_core::Code;
use ringbolt_core::format::head::{Head, State};
use ringbolt_core::wal::{Handle, Options, Phase, Records, Run};
use ringbolt_disk::sim::Sim;

use crate::support::{FRAMES, Log, insomniac, options, path, records};
use crate::{SYNC_MODES, log_of, must_hold, with_sync};

fn head(sim: &Sim) -> Head {
    Head::decode(&sim.read_file(path("HEAD"))).expect("a whole HEAD")
}

#[test]
fn closing_drains_what_was_submitted() {
    // Goal: every append before the close settles, over rotations, whoever waited for what. Method: submit
    // much, close without a turn between.
    for sync in SYNC_MODES {
        let (sim, log) = log_of(with_sync(sync));
        let records = records(3 * FRAMES);
        for (lsn, record) in (1..).zip(&records) {
            log.submit(lsn, std::slice::from_ref(record), lsn % 3 == 0).expect("is taken");
        }
        log.close().expect("closes");
        let head = head(&sim);
        assert_eq!((head.state, head.proven_lsn), (State::Closed, records.len() as u64), "{sync:?}");
        // Not even the directory entry of HEAD is left to chance.
        must_hold(&sim.image().boot_with([], 1), &records);
    }
}

#[test]
fn a_closed_log_opens_at_once_and_was_closed_cleanly() {
    // Goal: close releases the locks. Method: open again without waiting for any.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(3));
    log.close().expect("closes");
    let log = Log::open(&sim, Options { lock_timeout: Duration::ZERO, ..options() }).expect("opens");
    assert!(log.recovery().clean_shutdown);
    assert_eq!(log.handle.opened().expect("it is open").incarnation, 2);
    assert_eq!(head(&sim).state, State::Open);
}

#[test]
fn a_log_that_was_not_closed_says_so() {
    // Goal: the difference shows. Method: kill the owner of an idle log.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(3));
    sim.kill();
    drop(log);
    let log = Log::open(&sim, options()).expect("opens");
    assert!(!log.recovery().clean_shutdown);
    assert_eq!(log.recovery().records, 3);
}

#[test]
fn a_log_closed_while_it_opens_opens_and_closes() {
    // Goal: close may come at any time. Method: ask before the service begins; its driver would rather panic
    // than sleep for good.
    let sim = Sim::new(1);
    let (handle, starting) = Handle::stepped(options(), insomniac(&sim), Box::new(|| {}));
    handle.close();
    let mut service = starting.open().expect("opens");
    let ended = (0..1000).any(|_| !service.turn());
    assert!(ended, "it does not close");
    drop(service);
    assert_eq!(handle.status().durable_lsn, 0);
    assert_eq!(head(&sim).state, State::Closed);
    must_hold(&sim, &[]);
}

#[test]
fn a_log_closed_while_it_waits_for_a_lock_waits_no_longer() {
    // Goal: a wait that was given up holds nobody up. Method: somebody has the log; the one who waits for an
    // hour is told to close; the simulator's clock tells how long it went on.
    let (sim, _holder) = log_of(options());
    let patient = Options { lock_timeout: Duration::from_hours(1), ..options() };
    let (handle, starting) = Handle::stepped(patient, sim.disk(), Box::new(|| {}));
    handle.close();
    let began = sim.fs().now();
    assert!(starting.open().is_none(), "it is locked");
    assert!(sim.fs().now().since(began) < Duration::from_secs(1));
    assert_eq!(handle.failure().expect("it failed").code, Code::WalClosed);
}

#[test]
fn whatever_is_asked_is_heard_whenever_it_is_asked() {
    // Goal: no wake is lost. Method: ask for one thing at a time, before the log opens, while it is busy and
    // while it sleeps, and turn it no longer than until it has answered.
    let sim = Sim::new(1);
    let (handle, starting) = Handle::stepped(options(), insomniac(&sim), Box::new(|| {}));
    assert_eq!(handle.flush(), 1);
    let service = starting.open().expect("opens");
    let mut log = Log { handle: std::sync::Arc::new(handle), service };
    log.turn_until(|status| status.flushes_done == 1);
    for lsn in (1..40).step_by(2) {
        log.submit(lsn, &records(1), false).expect("is taken");
        log.turn_until(|status| status.written_lsn == lsn);
        log.handle.want_durable(lsn);
        log.turn_until(|status| status.durable_lsn == lsn);
        log.submit(lsn + 1, &records(1), true).expect("is taken");
        let number = log.handle.flush();
        log.turn_until(|status| status.flushes_done == number);
    }
    log.close().expect("closes");
}

#[test]
fn closing_twice_is_closing_once() {
    // Goal: close may be called by anyone. Method: again and again.
    let (sim, mut log) = log_of(options());
    log.submit(1, &records(1), true).expect("is taken");
    log.handle.close();
    log.turn(1);
    log.handle.close();
    log.close().expect("closes");
    must_hold(&sim, &records(1));
}

#[test]
fn locks_are_held_until_the_last_completion() {
    // Goal: rule 8: a closing log releases nothing while it has something at the disk. Method: stall the
    // disk under it, try to open.
    for is_failed in [false, true] {
        let (sim, mut log) = log_of(options());
        log.append_all(&records(1));
        log.turn(10);
        sim.stall(true);
        for (lsn, record) in (2..).zip(&records(4)[1..]) {
            log.submit(lsn, std::slice::from_ref(record), true).expect("is taken");
            log.turn(1);
        }
        if is_failed {
            // Something else fails meanwhile: a flush asks whether the segment still has its name.
            sim.fail(ringbolt_disk::sim::Fault::new(ringbolt_disk::sim::Call::Stat));
            log.handle.flush();
            log.turn_until(|status| status.phase == Phase::Failed);
        }
        log.handle.close();
        log.turn(20);
        let early = Log::open(&sim, options()).expect_err("it is still open");
        assert_eq!(early.code, Code::WalLocked, "{early}");
        sim.stall(false);
        assert_eq!(log.close().is_err(), is_failed);
        let log = Log::open(&sim, Options { lock_timeout: Duration::ZERO, ..options() }).expect("opens");
        let found = log.read(1).expect("reads");
        assert_eq!(found, records(found.len()));
        assert!(found.len() == 4 || is_failed);
    }
}

#[test]
fn a_handle_that_is_dropped_closes_its_log() {
    // Goal: nothing is lost by forgetting to close. Method: a log on a thread of its own; drop the handle.
    let sim = Sim::new(1);
    let handle = Handle::open(options(), sim.disk(), Box::new(|| {}));
    while handle.status().phase == Phase::Opening {
        std::thread::yield_now();
    }
    let record = &records(1)[0];
    let run = Run { epoch: 0, first_lsn: 1, records: Records::Apart(&[record]), durable: false };
    handle.submit(run).expect("is taken");
    drop(handle);
    assert_eq!(head(&sim).state, State::Closed);
    must_hold(&sim, &records(1));
}

#[test]
fn a_log_that_has_ended_serves_no_reads_and_says_that_it_is_closed() {
    // Goal: the last state is told. Method: a log on a thread of its own, closed and joined.
    let sim = Sim::new(1);
    let handle = Handle::open(options(), sim.disk(), Box::new(|| {}));
    while handle.status().phase == Phase::Opening {
        std::thread::yield_now();
    }
    handle.close();
    handle.join();
    let status = handle.status();
    assert_eq!((status.phase, status.ended), (Phase::Closed, true));
    assert!(handle.failure().is_none());
    assert_eq!(handle.read(1, 1).expect_err("it is closed").code, Code::WalClosed);
}

#[test]
fn head_follows_after_a_second_of_idleness_and_then_nothing_is_written() {
    // Goal: rot of the last batches goes unnoticed for a second at the most, and an idle log leaves its disk
    // in peace. Method: the simulator's clock and its count of steps.
    let (sim, mut log) = log_of(options());
    let fs = sim.fs();
    log.append_all(&records(3));
    let began = fs.now();
    assert_eq!(head(&sim).proven_lsn, 0);
    for _ in 0..100 {
        if head(&sim).proven_lsn > 0 {
            break;
        }
        assert!(fs.now().since(began) < Duration::from_millis(1100), "HEAD does not follow");
        log.turn(1);
    }
    let took = fs.now().since(began);
    assert_eq!((head(&sim).proven_lsn, head(&sim).state), (3, State::Open));
    assert!(took >= Duration::from_millis(990), "after {took:?}: this was not idleness yet");
    log.turn(5);
    let (steps, before) = (sim.steps(), sim.snapshot());
    log.turn(1000);
    assert_eq!(sim.steps(), steps, "an idle log touches its disk");
    assert_eq!(sim.snapshot(), before);
    log.append(4, &records(4)[3]).expect("it is not asleep for good");
}
