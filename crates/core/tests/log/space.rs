//! A disk that is full: durability rule 9.

use ringbolt_core::Code;
use ringbolt_core::format::is_temporary;
use ringbolt_core::wal::{Options, Phase};
use ringbolt_disk::sim::Sim;

use crate::support::{DIRECTORY, FRAMES, Log, RECORD_BYTES, options, path, records};
use crate::{SYNC_MODES, log_of, must_hold, with_sync};

const SEGMENT_BYTES: u64 = 64 << 10;

/// Room for one segment, LOCK, HEAD, and HEAD in the making, but not for a second segment.
const ONE_SEGMENT: Option<u64> = Some(SEGMENT_BYTES + 16 * 4096);

#[test]
fn without_room_for_the_next_segment_records_are_refused_and_the_log_works_on() {
    // Goal: rule 9, from end to end. Method: a disk that holds one segment; fill it, ask for more, make room.
    for sync in SYNC_MODES {
        let (sim, mut log) = log_of(with_sync(sync));
        sim.set_capacity(ONE_SEGMENT);
        let all = records(FRAMES + 4);
        log.append_all(&all[..FRAMES]);
        assert!(log.handle.refusal().is_none(), "{sync:?}: it is not needed yet");
        for lsn in FRAMES + 1..=FRAMES + 3 {
            log.submit(lsn as u64, &all[lsn - 1..lsn], true).expect("is taken");
        }
        log.turn_until(|status| status.epoch == 1);

        let refusal = log.handle.refusal().expect("there is no room");
        assert_eq!((refusal.epoch, refusal.from_lsn), (1, FRAMES as u64 + 1), "{sync:?}");
        assert_eq!(refusal.error.code, Code::WalNoSpace);
        assert_eq!((refusal.error.errno, refusal.error.syscall), (Some(28), Some("fallocate")));
        let status = log.handle.status();
        assert_eq!((status.phase, status.durable_lsn), (Phase::Open, FRAMES as u64));
        assert_eq!(
            status.queue_bytes_written,
            (FRAMES * RECORD_BYTES) as u64,
            "what was refused was not written"
        );
        assert!(!sim.list(DIRECTORY).iter().any(|name| is_temporary(name)), "{:?}", sim.list(DIRECTORY));

        sim.set_capacity(None);
        log.append_all(&all[FRAMES..]);
        log.close().expect("closes");
        must_hold(&sim, &all);
    }
}

#[test]
fn a_run_of_an_epoch_that_is_over_is_dropped() {
    // Goal: whoever has not heard of the refusal cannot leave a gap. Method: submit with the old epoch.
    let (sim, mut log) = log_of(options());
    sim.set_capacity(ONE_SEGMENT);
    let all = records(FRAMES + 1);
    log.append_all(&all[..FRAMES]);
    let submit = |log: &Log, epoch, first_lsn: usize| {
        let records = ringbolt_core::wal::Records::Apart(&[&all[FRAMES]]);
        let first_lsn = first_lsn as u64;
        log.handle.submit(ringbolt_core::wal::Run { epoch, first_lsn, records, durable: true })
    };
    submit(&log, 0, FRAMES + 1).expect("is taken");
    log.turn_until(|status| status.epoch == 1);
    sim.set_capacity(None);
    submit(&log, 0, FRAMES + 2).expect("is dropped without a word: the refusal answers for it");
    log.turn(20);
    assert_eq!(log.handle.status().written_lsn, FRAMES as u64);
    submit(&log, 1, FRAMES + 1).expect("is taken");
    log.turn_until(|status| status.durable_lsn == FRAMES as u64 + 1);
    log.close().expect("closes");
    must_hold(&sim, &all);
}

#[test]
fn what_is_refused_leaves_the_queue() {
    // Goal: the bytes add up, or the queue would fill with nothing. Method: a bound of one record; refuse
    // it again and again.
    let (sim, mut log) = log_of(Options { queue_bytes_max: RECORD_BYTES as u64, ..options() });
    sim.set_capacity(ONE_SEGMENT);
    let all = records(FRAMES + 2);
    log.append_all(&all[..FRAMES]);
    for epoch in 1..=5 {
        log.submit(FRAMES as u64 + 1, &all[FRAMES..=FRAMES], true).expect("the queue is empty");
        log.turn_until(|status| status.epoch == epoch);
    }
    assert_eq!(log.handle.stats().oldest_in_flight, std::time::Duration::ZERO);
    sim.set_capacity(None);
    log.append_all(&all[FRAMES..]);
    log.close().expect("closes");
    must_hold(&sim, &all);
}

#[test]
fn what_still_fits_is_taken_after_a_refusal() {
    // Goal: one large run does not keep small ones from using what is left. Method: leave one grain.
    let (sim, mut log) = log_of(options());
    sim.set_capacity(ONE_SEGMENT);
    let all = records(FRAMES);
    log.append_all(&all[..FRAMES - 1]);
    log.submit(FRAMES as u64, &[vec![1; 9000]], true).expect("is taken");
    log.turn_until(|status| status.epoch == 1);
    log.append_all(&all[FRAMES - 1..]);
    log.close().expect("closes");
    must_hold(&sim, &all);
}

#[test]
fn a_flush_of_refused_records_is_answered_for_what_is_left() {
    // Goal: no flush hangs on records that are not there any more. Method: flush, then let it be refused.
    let (sim, mut log) = log_of(options());
    sim.set_capacity(ONE_SEGMENT);
    log.append_all(&records(FRAMES));
    log.submit(FRAMES as u64 + 1, &records(1), true).expect("is taken");
    let number = log.handle.flush();
    log.turn_until(|status| status.flushes_done == number);
    assert_eq!(log.handle.status().epoch, 1);
    log.close().expect("closes");
    must_hold(&sim, &records(FRAMES));
}

#[test]
fn closing_a_log_that_has_no_room_for_what_waits_refuses_it_and_closes() {
    // Goal: close ends on a full disk too. Method: submit what does not fit, close at once.
    let (sim, mut log) = log_of(options());
    sim.set_capacity(ONE_SEGMENT);
    log.append_all(&records(FRAMES));
    log.submit(FRAMES as u64 + 1, &records(1), true).expect("is taken");
    let handle = log.handle.clone();
    log.close().expect("closes");
    assert_eq!(handle.refusal().expect("it was refused").from_lsn, FRAMES as u64 + 1);
    drop(handle);
    must_hold(&sim, &records(FRAMES));
}

#[test]
fn a_head_that_cannot_be_replaced_on_a_full_disk_stays_true() {
    // Goal: no promise rests on a fresh HEAD, so a full disk may keep it from coming. Method: no room at all
    // while the log is idle, is appended to, and closes.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(1));
    let before = sim.read_file(path("HEAD"));
    sim.set_capacity(Some(0));
    log.turn(100);
    log.append_all(&records(3)[1..]);
    assert!(log.handle.stats().errors > 0, "it is counted");
    log.close().expect("closes");
    assert_eq!(sim.read_file(path("HEAD")), before);
    sim.set_capacity(None);
    let log = Log::open(&sim, options()).expect("opens");
    assert!(!log.recovery().clean_shutdown, "nothing says so");
    assert_eq!(log.read(1).expect("reads"), records(3));
}

#[test]
fn opening_on_a_full_disk_loses_nothing_and_says_so() {
    // Goal: the code for it, and a log as it was. Method: no room for anything, then room again.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(3));
    log.close().expect("closes");
    sim.set_capacity(Some(0));
    let refused = Log::open(&sim, options()).expect_err("HEAD cannot be replaced");
    assert_eq!((refused.code, refused.errno), (Code::WalNoSpace, Some(28)), "{refused}");
    sim.set_capacity(None);
    must_hold(&sim, &records(3));

    let sim = Sim::new(1);
    sim.set_capacity(Some(SEGMENT_BYTES / 2));
    let refused = Log::open(&sim, options()).expect_err("no segment can be made");
    assert_eq!(refused.code, Code::WalNoSpace, "{refused}");
    sim.set_capacity(None);
    must_hold(&sim, &[]);
}

#[test]
fn a_torn_tail_that_cannot_be_set_aside_is_not_cut() {
    // Goal: nothing is cut before its copy is durable. Method: a torn tail, and no room for the copy.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(2));
    log.submit(3, &records(3)[2..], false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 3);
    sim.kill();
    drop(log);
    sim.flip(path("wal-0000000000000001.seg"), 3 * 4096 + 2000, 0);
    let before = sim.snapshot();
    sim.set_capacity(Some(0));
    let refused = Log::open(&sim, options()).expect_err("there is no room for the copy");
    assert_eq!(refused.code, Code::WalNoSpace, "{refused}");
    let segment = path("wal-0000000000000001.seg");
    assert_eq!(sim.snapshot()[&segment], before[&segment]);

    sim.set_capacity(None);
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.recovery().torn_at.expect("it was cut").lsn, 3);
    assert_eq!(log.read(1).expect("reads"), records(2));
    let torn = sim.list(path("torn"));
    assert_eq!(torn, ["0000000000000001-12288-2.bin"]);
    let copy = sim.read_file(path("torn").join(&torn[0]));
    assert_eq!(copy, before[&segment][3 * 4096..][..copy.len()], "set aside as it was");
}
