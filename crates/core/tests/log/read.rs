//! Reading back.

use ringbolt_core::Code;
use ringbolt_core::format::GRAIN;
use ringbolt_core::format::head::Head;
use ringbolt_core::wal::{Handle, Request, SyncMode};
use ringbolt_disk::sim::{Call, Fault, Sim};

use crate::support::{FRAMES, Log, Model, options, path, read_all, records, rng};
use crate::{log_of, with_sync};

/// A log of some 60 records in runs of three, over several segments.
fn long_log() -> (Sim, Log, Vec<Vec<u8>>) {
    let (sim, mut log) = log_of(options());
    let (mut rng, mut model) = (rng(5), Model::default());
    while model.last() < 60 {
        let first = model.last() + 1;
        let run = model.run(&mut rng, 0, 3, 6000).to_vec();
        log.submit(first, &run, true).expect("is taken");
        log.turn_until(|status| status.durable_lsn == first + 2);
    }
    assert!(log.handle.stats().rotations >= 3);
    (sim, log, model.records)
}

#[test]
fn a_range_is_what_was_appended_there() {
    // Goal: from and to are LSNs, both included, wherever frames and segments begin. Method: every range.
    let (_sim, log, records) = long_log();
    for from in 1..=60 {
        for to in from..=60 {
            let found = read_all(log.handle.read(from, to).expect("reads")).expect("reads");
            assert!(found == records[from as usize - 1..to as usize], "{from}..={to}");
        }
    }
}

#[test]
fn a_segment_that_is_missing_is_damage_at_the_read_that_needs_it() {
    // Goal: the same answer as at open. Method: another program removes a segment of an open log.
    let (sim, log, records) = long_log();
    sim.remove_file(path("wal-0000000000000002.seg"));
    let error = log.read(1).expect_err("a segment is missing");
    assert_eq!((error.code, error.segment, error.offset), (Code::WalDamaged, Some(2), Some(0)), "{error}");
    let from = error.first_lsn.expect("damage names LSNs");
    assert!(
        read_all(log.handle.read(1, from - 1).expect("reads")).expect("reads")
            == records[..from as usize - 1]
    );
}

#[test]
fn a_range_that_is_empty_or_beyond_the_end_holds_nothing() {
    // Goal: neither an error nor a surprise. Method: behind the end, across it, backwards, in an empty log.
    let (_sim, log, records) = long_log();
    let read = |from, to| read_all(log.handle.read(from, to).expect("reads")).expect("reads");
    assert_eq!(read(61, u64::MAX), [] as [Vec<u8>; 0]);
    assert_eq!(read(1000, 2000), [] as [Vec<u8>; 0]);
    assert_eq!(read(10, 9), [] as [Vec<u8>; 0]);
    assert_eq!(read(59, 2000), records[58..]);
    let (_sim, log) = log_of(options());
    assert_eq!(log.read(1).expect("reads"), [] as [Vec<u8>; 0]);
}

#[test]
fn chunks_are_about_as_large_as_asked_for_and_never_empty() {
    // Goal: bounded memory, and progress. Method: the smallest and the largest wish.
    let (_sim, log, records) = long_log();
    for wish in [0, 1, 10_000, usize::MAX] {
        let mut reader = log.handle.read(2, 59).expect("reads");
        let (mut next, mut chunks) = (2, 0);
        while let Some(chunk) = reader.next(wish).expect("reads") {
            assert!(chunk.count > 0 && chunk.first_lsn == next, "{chunk:?}");
            // It ends with the frame that passed the wish.
            assert!(chunk.bytes.len() <= wish.saturating_add(3 * (6000 + 4)));
            next += u64::from(chunk.count);
            chunks += 1;
        }
        assert_eq!(next, 60);
        assert!(reader.next(wish).expect("reads").is_none(), "the end stays the end");
        assert!(chunks == 1 || wish < usize::MAX);
    }
    assert_eq!(records.len(), 60);
}

#[test]
fn what_is_not_durable_is_not_served() {
    // Goal: what was read once is never lost. Method: one record durable, one written.
    let (_sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    let records = records(2);
    log.append_all(&records[..1]);
    log.submit(2, &records[1..], false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 2);
    assert_eq!(log.read(1).expect("reads"), records[..1]);
    log.handle.want_durable(2);
    log.turn_until(|status| status.durable_lsn == 2);
    assert_eq!(log.read(1).expect("reads"), records);
}

#[test]
fn a_reader_ends_where_the_log_ended_when_it_was_made_and_outlives_it() {
    // Goal: a reader is independent of the handle's life. Method: append and close in the middle of it.
    let (_sim, mut log) = log_of(options());
    let records = records(FRAMES + 4);
    log.append_all(&records[..4]);
    let mut reader = log.handle.read(1, u64::MAX).expect("reads");
    assert_eq!(reader.next(1).expect("reads").expect("there are some").count, 1);
    log.append_all(&records[4..]);
    log.close().expect("closes");
    assert_eq!(read_all(reader).expect("reads"), records[1..4]);
}

#[test]
fn what_was_truncated_is_refused_and_the_rest_is_served() {
    // Goal: a gap is told, not skipped. Method: a HEAD that keeps the log from LSN 5 on, as a truncation
    // writes it; the records below are still in their segment.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(8));
    log.close().expect("closes");
    let head = Head::decode(&sim.read_file(path("HEAD"))).expect("a head");
    sim.write_file(path("HEAD"), Head { first_lsn: 5, ..head }.encode());
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.handle.opened().expect("it is open").first_lsn, 5);
    assert_eq!(log.recovery().records, 4);
    let refused = log.handle.read(4, 8).expect_err("truncated");
    assert_eq!((refused.code, refused.first_lsn), (Code::WalTruncated, Some(5)));
    assert_eq!(log.read(5).expect("reads"), records(8)[4..]);
}

#[test]
fn what_is_truncated_behind_a_reader_is_truncated_and_not_damaged() {
    // Goal: a reader is not told of damage where there is none. Method: three segments, a reader in the first and
    // one that has not begun, and the first two go.
    let (_sim, mut log) = log_of(options());
    let all = records(30);
    for part in all.chunks(10) {
        log.append_all(part);
        log.request(Request::Rotate).expect("rotates");
    }
    let mut begun = log.handle.read(1, 30).expect("reads");
    assert_eq!(begun.next(1).expect("reads").expect("there is").first_lsn, 1);
    let waiting = log.handle.read(15, 30).expect("reads");
    let kept = log.handle.read(25, 30).expect("reads");
    log.request(Request::TruncateBefore(25)).expect("truncates");
    // The file it has open is there for it.
    assert_eq!(begun.next(1 << 20).expect("reads").expect("there is").count, 9);
    for source in [begun, waiting] {
        let error = read_all(source).expect_err("it is gone");
        assert_eq!((error.code, error.first_lsn), (Code::WalTruncated, Some(25)), "{error}");
    }
    assert_eq!(read_all(kept).expect("reads"), all[24..]);
}

#[test]
fn damage_met_while_reading_is_told_with_its_place_and_what_comes_before_is_served() {
    // Goal: every read checks what it reads. Method: a bit turns over under an open log.
    let (sim, mut log) = log_of(options());
    let records = records(5);
    log.append_all(&records);
    sim.flip(path("wal-0000000000000001.seg"), 3 * GRAIN + 500, 7);
    let mut reader = log.handle.read(1, u64::MAX).expect("reads");
    for lsn in 1..=2 {
        assert_eq!(reader.next(1).expect("sound").expect("there").first_lsn, lsn);
    }
    let damage = reader.next(1).expect_err("the third is not what it was");
    assert_eq!(damage.code, Code::WalDamaged);
    assert_eq!((damage.segment, damage.offset, damage.first_lsn), (Some(1), Some(3 * GRAIN), Some(3)));
    assert_eq!(damage.path, Some(path("wal-0000000000000001.seg")));
    let behind = read_all(log.handle.read(5, 5).expect("reads")).expect_err("the way there is damaged");
    assert_eq!(behind.code, Code::WalDamaged);
}

#[test]
fn an_error_of_the_disk_while_reading_is_not_the_end_of_the_log() {
    // Goal: rule 7's sister: EIO is EIO. Method: one read fails; the next reader gets everything.
    let (sim, mut log) = log_of(options());
    log.append_all(&records(5));
    sim.fail(Fault::new(Call::Read).named(".seg").bytes(GRAIN..2 * GRAIN));
    let error = log.read(1).expect_err("the disk says so");
    assert_eq!((error.code, error.errno, error.syscall), (Code::WalIo, Some(5), Some("pread")));
    assert_eq!(log.read(1).expect("it was a passing fault"), records(5));
}

#[test]
fn a_log_that_is_not_open_yet_serves_nothing() {
    // Goal: a plain answer instead of a wait. Method: ask before the service begins.
    let sim = Sim::new(1);
    let (handle, _starting) = Handle::stepped(options(), sim.disk(), Box::new(|| {}));
    assert_eq!(handle.read(1, 1).expect_err("not open").code, Code::WalClosed);
}
