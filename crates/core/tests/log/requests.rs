//! Rotating, truncating, and what there is.

use ringbolt_core::Code;
use ringbolt_core::wal::{Answer, Check, Options, Phase, Request, SegmentInfo, SyncMode};
use ringbolt_disk::sim::{Call, Fault, Sim};

use crate::support::{DIRECTORY, Log, options, records};
use crate::{SYNC_MODES, log_of, must_hold, with_sync};

fn segments(log: &mut Log) -> Vec<SegmentInfo> {
    match log.request(Request::Segments) {
        Ok(Answer::Segments(segments)) => segments,
        answer => panic!("{answer:?}"),
    }
}

/// Number, first and last LSN, sealed or not.
fn ranges(log: &mut Log) -> Vec<(u64, u64, u64, bool)> {
    let segments = segments(log).into_iter();
    segments.map(|one| (one.segment, one.first_lsn, one.last_lsn, one.is_sealed)).collect()
}

fn truncate(log: &mut Log, lsn: u64) -> u64 {
    match log.request(Request::TruncateBefore(lsn)) {
        Ok(Answer::Truncated { first_lsn }) => first_lsn,
        answer => panic!("{answer:?}"),
    }
}

/// Three segments, ten one-grain frames in each, all durable; a fourth without any.
fn four_segments(sync: SyncMode) -> (Sim, Log) {
    let (sim, mut log) = log_of(with_sync(sync));
    for part in records(30).chunks(10) {
        log.append_all(part);
        assert_eq!(log.request(Request::Rotate), Ok(Answer::Rotated));
    }
    (sim, log)
}

#[test]
fn a_rotation_seals_the_segment_and_records_go_on_in_the_next() {
    // Goal: everything appended before is in sealed segments, durable. Method: rotate in each mode, look, append.
    for sync in SYNC_MODES {
        let (sim, mut log) = four_segments(sync);
        let expected = [(1, 1, 10, true), (2, 11, 20, true), (3, 21, 30, true), (4, 31, 30, false)];
        assert_eq!(ranges(&mut log), expected, "{sync:?}");
        assert_eq!(log.handle.stats().rotations, 3);
        let all = records(31);
        log.append(31, &all[30]).expect("appends");
        assert_eq!(ranges(&mut log)[3], (4, 31, 31, false));
        for info in segments(&mut log) {
            assert_eq!(info.bytes, sim.read_file(&info.path).len() as u64);
        }
        log.close().expect("closes");
        must_hold(&sim, &all);
    }
}

#[test]
fn a_rotation_takes_what_was_submitted_before_and_waits_for_it() {
    // Goal: rotate follows append in the order of calls. Method: records nobody waits for, rotate, one more.
    let (sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    log.submit(1, &records(3), false).expect("is taken");
    let number = log.handle.ask(Request::Rotate);
    log.turn_until(|status| status.answers == 1);
    assert_eq!(log.handle.take_answers(), [(number, Ok(Answer::Rotated))]);
    assert_eq!(log.handle.status().durable_lsn, 3);
    assert_eq!(ranges(&mut log), [(1, 1, 3, true), (2, 4, 3, false)]);
    must_hold(&sim.power_cut(1), &records(3));
}

#[test]
fn an_empty_segment_is_not_rotated() {
    // Goal: asking again and again makes no files. Method: rotate an empty log, and twice in a row at once.
    let (sim, mut log) = log_of(options());
    assert_eq!(log.request(Request::Rotate), Ok(Answer::Rotated));
    assert_eq!(ranges(&mut log), [(1, 1, 0, false)]);
    log.append_all(&records(1));
    let numbers = [log.handle.ask(Request::Rotate), log.handle.ask(Request::Rotate)];
    log.turn_until(|status| status.answers >= 4);
    let mut answers = log.handle.take_answers();
    answers.sort_by_key(|&(number, _)| number);
    assert_eq!(answers, numbers.map(|number| (number, Ok(Answer::Rotated))));
    assert_eq!(ranges(&mut log), [(1, 1, 1, true), (2, 2, 1, false)]);
    must_hold(&sim.power_cut(1), &records(1));
}

#[test]
fn a_rotation_without_room_is_refused_and_takes_nothing_along() {
    // Goal: rule 9. Method: a disk with room for one segment only; records that still fit are written.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(2));
    sim.fail(Fault::new(Call::Allocate).errno(28).forever());
    let number = log.handle.ask(Request::Rotate);
    log.submit(3, &records(3)[2..], true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == 3 && status.answers == 1);
    let [(answered, answer)] = &log.handle.take_answers()[..] else { panic!("one answer") };
    assert_eq!(*answered, number);
    assert_eq!(answer.as_ref().expect_err("no room").code, Code::WalNoSpace);
    assert_eq!(log.handle.status().epoch, 0, "no record was refused");
    sim.clear_faults();
    assert_eq!(log.request(Request::Rotate), Ok(Answer::Rotated));
    log.append(4, &records(4)[3]).expect("appends");
    log.close().expect("closes");
    must_hold(&sim, &records(4));
}

#[test]
fn a_truncation_keeps_the_segment_of_its_lsn_and_serves_nothing_below() {
    // Goal: whole segments go, reads begin at the LSN. Method: every LSN, and opening again.
    for lsn in 1..=31 {
        let (sim, mut log) = four_segments(SyncMode::Auto);
        assert_eq!(truncate(&mut log, lsn), lsn);
        let oldest = (lsn.min(30) - 1) / 10 + 1;
        assert_eq!(ranges(&mut log)[0].0, oldest, "LSN {lsn}: the newest with a durable frame stays");
        assert_eq!(ranges(&mut log)[0].1, lsn.min(31));
        let names = sim.list(DIRECTORY);
        for number in 1..=3 {
            assert_eq!(names.contains(&format!("wal-{number:016x}.seg")), number >= oldest, "{names:?}");
        }
        for check in [Check::Tail, Check::All] {
            let status = log.handle.status();
            assert_eq!((status.first_lsn, status.durable_lsn), (lsn, 30));
            assert_eq!(log.read(lsn).expect("reads"), records(30)[lsn as usize - 1..]);
            if lsn > 1 {
                let error = log.read(lsn - 1).expect_err("it was truncated");
                assert_eq!((error.code, error.first_lsn), (Code::WalTruncated, Some(lsn)));
            }
            log.close().expect("closes");
            log = Log::open(&sim, Options { check, ..options() }).expect("opens");
        }
        assert_eq!(log.recovery().records, 31 - lsn);
        log.append(31, &records(31)[30]).expect("the next LSN is not lost");
    }
}

#[test]
fn a_truncation_behind_the_beginning_changes_nothing() {
    // Goal: it never goes back. Method: twice, the second time lower.
    let (_sim, mut log) = four_segments(SyncMode::Auto);
    assert_eq!(truncate(&mut log, 15), 15);
    let steps = log.handle.stats().syncs;
    assert_eq!(truncate(&mut log, 0), 15);
    assert_eq!(truncate(&mut log, 15), 15);
    assert_eq!(log.handle.stats().syncs, steps);
    assert_eq!(ranges(&mut log)[0], (2, 15, 20, true));
}

#[test]
fn a_truncation_waits_until_what_it_keeps_follows_on_something_durable() {
    // Goal: rule 15. Method: a record that nobody waits for, and truncation right behind it.
    let (sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    log.submit(1, &records(1), false).expect("is taken");
    assert_eq!(truncate(&mut log, 2), 2);
    assert_eq!(log.handle.status().durable_lsn, 1);
    let log = Log::open(&sim.power_cut(1), options()).expect("opens");
    let opened = log.handle.opened().expect("it is open");
    assert_eq!((opened.first_lsn, opened.last_lsn), (2, 1));
}

#[test]
fn a_truncation_without_room_for_head_truncates_nothing() {
    // Goal: a clear answer, and a log that works on. Method: no room, no descriptor.
    for errno in [28, 24] {
        let (sim, mut log) = four_segments(SyncMode::Auto);
        log.turn(50);
        sim.fail(Fault::new(Call::Open).named("HEAD").errno(errno));
        let error = log.request(Request::TruncateBefore(25)).expect_err("no HEAD");
        let code = if errno == 28 { Code::WalNoSpace } else { Code::WalIo };
        assert_eq!((error.code, error.errno), (code, Some(errno)), "{error}");
        assert_eq!((log.handle.status().phase, log.handle.status().first_lsn), (Phase::Open, 1));
        assert_eq!(log.read(1).expect("reads"), records(30));
        assert_eq!(truncate(&mut log, 25), 25);
    }
}

#[test]
fn segments_that_cannot_be_removed_go_at_the_next_open() {
    // Goal: the log begins later all the same, and says what went wrong. Method: unlink fails.
    let (sim, mut log) = four_segments(SyncMode::Auto);
    sim.fail(Fault::new(Call::Remove).errno(13));
    let error = log.request(Request::TruncateBefore(25)).expect_err("the segment stays");
    assert_eq!((error.code, error.errno, error.syscall), (Code::WalIo, Some(13), Some("unlink")));
    assert_eq!((log.handle.status().phase, log.handle.status().first_lsn), (Phase::Open, 25));
    log.append(31, &records(31)[30]).expect("appends");
    log.close().expect("closes");
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.read(25).expect("reads"), records(31)[24..]);
    assert!(!sim.list(DIRECTORY).contains(&"wal-0000000000000001.seg".to_owned()));
}

#[test]
fn what_was_asked_before_close_is_answered() {
    // Goal: close settles everything. Method: ask, close at once.
    let (sim, mut log) = log_of(options());
    log.submit(1, &records(3), true).expect("is taken");
    log.handle.ask(Request::Rotate);
    log.handle.ask(Request::TruncateBefore(3));
    log.handle.ask(Request::Segments);
    log.handle.close();
    while log.service.turn() {}
    let mut answers = log.handle.take_answers();
    answers.sort_by_key(|&(number, _)| number);
    assert_eq!(answers[0].1, Ok(Answer::Rotated));
    assert_eq!(answers[1].1, Ok(Answer::Truncated { first_lsn: 3 }));
    assert!(matches!(&answers[2].1, Ok(Answer::Segments(_))));
    drop(log);
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.read(3).expect("reads"), records(3)[2..]);
}

#[test]
fn a_log_fails_where_head_cannot_be_made_durable_under_a_truncation() {
    // Goal: rule 2. Method: the sync of the directory fails under HEAD's new name.
    let (sim, mut log) = four_segments(SyncMode::Auto);
    log.turn(50);
    sim.fail(Fault::new(Call::SyncDir));
    log.request(Request::TruncateBefore(25)).expect_err("HEAD may be either");
    assert_eq!(log.handle.status().phase, Phase::Failed);
    let log = Log::open(&sim.power_cut(3), options()).expect("opens");
    let first = log.handle.opened().expect("it is open").first_lsn;
    assert!([1, 25].contains(&first));
    assert_eq!(log.read(first).expect("reads"), records(30)[first as usize - 1..]);
}
