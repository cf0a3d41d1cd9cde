//! How much the log takes, and what it says when that is too much.

use ringbolt_core::Code;
use ringbolt_core::format::{frame_bytes_max, record_bytes_max};
use ringbolt_core::wal::{Options, Records, Run};

use crate::support::{Log, options};
use crate::{log_of, must_hold};

const SEGMENT_BYTES: u64 = 64 << 10;

#[test]
fn the_queue_has_a_bound_and_says_so() {
    // Goal: a slow disk does not become a full memory. Method: stall the disk; the run above the bound is
    // refused, its LSN is not used up, and it is taken once there is room.
    let (sim, mut log) = log_of(Options { queue_bytes_max: 10_000, ..options() });
    log.turn(10);
    sim.stall(true);
    let records: Vec<Vec<u8>> = (1..=3).map(|number| vec![number; 4000]).collect();
    log.submit(1, &records[..1], true).expect("is taken");
    log.turn(5);
    log.submit(2, &records[1..2], true).expect("is taken");
    let refused = log.submit(3, &records[2..], true).expect_err("8,000 bytes wait, at the disk or before it");
    assert_eq!(refused.code, Code::WalQueueFull);
    assert_eq!((refused.size, refused.limit), (Some(4000), Some(10_000)));
    // Exactly the bound is not above it.
    log.submit(3, &[vec![3; 2000]], true).expect("fits");
    sim.stall(false);
    log.turn_until(|status| status.written_lsn == 3);
    log.submit(4, &records[2..], true).expect("there is room again");
    log.turn_until(|status| status.durable_lsn == 4);
    log.close().expect("closes");
    must_hold(&sim, &[records[0].clone(), records[1].clone(), vec![3; 2000], records[2].clone()]);
}

#[test]
fn empty_records_have_a_bound_too() {
    // Goal: what counts no bytes takes memory all the same. Method: a queue of ten bytes, empty records.
    let (sim, mut log) = log_of(Options { queue_bytes_max: 10, ..options() });
    for lsn in 1..=10 {
        log.submit(lsn, &[Vec::new()], true).expect("is taken");
    }
    let refused = log.submit(11, &[Vec::new()], true).expect_err("ten wait");
    assert_eq!(refused.code, Code::WalQueueFull);
    log.turn_until(|status| status.durable_lsn == 10);
    let stats = log.handle.stats();
    assert_eq!((stats.records, stats.bytes), (10, 0));
    log.submit(11, &[Vec::new(), vec![1; 9]], true).expect("there is room again");
    log.close().expect("closes");
    let mut all = vec![Vec::new(); 11];
    all.push(vec![1; 9]);
    must_hold(&sim, &all);
}

#[test]
fn a_run_above_the_bound_is_taken_where_nothing_waits() {
    // Goal: no record is impossible only because the queue is small. Method: one, then another behind it.
    let (sim, mut log) = log_of(Options { queue_bytes_max: 1000, ..options() });
    log.submit(1, &[vec![1; 12_000]], true).expect("nothing waits");
    let refused = log.submit(2, &[vec![2]], true).expect_err("now something does");
    assert_eq!(refused.code, Code::WalQueueFull);
    log.turn_until(|status| status.durable_lsn == 1);
    log.submit(2, &[vec![2; 12_000]], true).expect("nothing waits");
    log.turn_until(|status| status.durable_lsn == 2);
    log.close().expect("closes");
    must_hold(&sim, &[vec![1; 12_000], vec![2; 12_000]]);
}

#[test]
fn a_record_is_at_most_a_quarter_of_a_segment() {
    // Goal: the limit is exact, and told. Method: one byte above it, and the limit itself, which comes back.
    let (sim, mut log) = log_of(options());
    let limit = record_bytes_max(SEGMENT_BYTES);
    assert_eq!(log.handle.record_bytes_max(), limit);
    let largest = vec![9; limit as usize];
    let too_large = vec![9; limit as usize + 1];
    let refused = log.submit(1, &[too_large], true).expect_err("too large");
    assert_eq!(refused.code, Code::WalRecordTooLarge);
    assert_eq!((refused.size, refused.limit), (Some(limit + 1), Some(limit)));
    log.append(1, &largest).expect("the LSN is still free, and this fits");
    log.close().expect("closes");
    must_hold(&sim, &[largest]);
}

#[test]
fn a_run_is_at_most_a_frame_of_half_a_segment() {
    // Goal: as for records. Method: two records that fill the largest frame, and one byte more.
    let (sim, mut log) = log_of(options());
    let limit = frame_bytes_max(SEGMENT_BYTES);
    let payload = limit as usize - 64 - 2 * 4;
    let largest = [vec![1; payload / 2], vec![2; payload - payload / 2]];
    let too_large = [largest[0].clone(), [largest[1].clone(), vec![2]].concat()];
    let refused = log.submit(1, &too_large, true).expect_err("too large");
    assert_eq!(refused.code, Code::WalRecordTooLarge);
    assert_eq!((refused.size, refused.limit), (Some(limit + 4096), Some(limit)));
    log.submit(1, &largest, true).expect("fits");
    log.turn_until(|status| status.durable_lsn == 2);
    log.close().expect("closes");
    must_hold(&sim, &largest);
}

#[test]
fn an_empty_record_is_a_record() {
    // Goal: it has an LSN and comes back. Method: alone, and among others.
    let (sim, mut log) = log_of(options());
    log.append(1, b"").expect("appends");
    let run = [vec![], b"x".to_vec(), vec![]];
    log.submit(2, &run, true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == 4);
    assert_eq!(log.handle.stats().bytes, 1);
    log.close().expect("closes");
    must_hold(&sim, &[vec![], vec![], b"x".to_vec(), vec![]]);
}

#[test]
fn staged_records_are_the_same_as_records_apart() {
    // Goal: the two ways in are one. Method: both, and compare.
    let (sim, mut log) = log_of(options());
    let staged = [3, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 1, 0, 0, 0, b'd'];
    let records = Records::Staged { count: 3, bytes: &staged };
    log.handle.submit(Run { epoch: 0, first_lsn: 1, records, durable: true }).expect("is taken");
    log.submit(4, &[b"abc".to_vec(), vec![], b"d".to_vec()], true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == 6);
    log.close().expect("closes");
    let half = [b"abc".to_vec(), vec![], b"d".to_vec()];
    must_hold(&sim, &[half.clone(), half].concat());
}

#[test]
fn a_staged_record_has_the_same_limit() {
    // Goal: no way in is wider than another. Method: a record above a quarter of a segment, staged, in a run
    // below half of one; then the largest there may be.
    let (sim, mut log) = log_of(options());
    let limit = record_bytes_max(SEGMENT_BYTES) as usize;
    let staged =
        |len: usize| [&[1, 0, 0, 0, b'a'], &(len as u32).to_le_bytes()[..], &vec![b'b'; len]].concat();
    let submit = |bytes: &[u8]| {
        let records = Records::Staged { count: 2, bytes };
        log.handle.submit(Run { epoch: 0, first_lsn: 1, records, durable: true })
    };
    let refused = submit(&staged(limit + 1)).expect_err("too large");
    assert_eq!(refused.code, Code::WalRecordTooLarge);
    assert_eq!((refused.size, refused.limit), (Some(limit as u64 + 1), Some(limit as u64)));
    submit(&staged(limit)).expect("fits");
    log.turn_until(|status| status.durable_lsn == 2);
    log.close().expect("closes");
    must_hold(&sim, &[b"a".to_vec(), vec![b'b'; limit]]);
}

fn submit_wrongly(first_lsn: u64, records: Records<'_>) {
    let (_sim, log) = log_of(options());
    let _ = log.handle.submit(Run { epoch: 0, first_lsn, records, durable: true });
}

#[test]
#[should_panic(expected = "runs come in LSN order")]
fn a_run_that_does_not_follow_is_the_callers_mistake() {
    submit_wrongly(2, Records::Apart(&[b"x"]));
}

#[test]
#[should_panic(expected = "at least one record")]
fn a_run_without_records_is_the_callers_mistake() {
    submit_wrongly(1, Records::Apart(&[]));
}

#[test]
#[should_panic(expected = "the staged bytes are 2 records")]
fn staged_bytes_that_are_not_the_records_are_the_callers_mistake() {
    submit_wrongly(1, Records::Staged { count: 2, bytes: &[1, 0, 0, 0, b'x'] });
}

#[test]
fn the_bytes_are_taken_at_the_call() {
    // Goal: rule 10. Method: write over the caller's memory before the log gets a turn.
    let (sim, mut log) = log_of(options());
    let mut memory = b"as it was".to_vec();
    let run = Run { epoch: 0, first_lsn: 1, records: Records::Apart(&[&memory]), durable: true };
    log.handle.submit(run).expect("is taken");
    memory.fill(b'!');
    log.turn_until(|status| status.durable_lsn == 1);
    log.close().expect("closes");
    must_hold(&sim, &[b"as it was".to_vec()]);
}

#[test]
fn a_log_takes_records_only_while_it_is_open() {
    // Goal: no record is taken that nobody would write. Method: before, and after close began.
    let sim = ringbolt_disk::sim::Sim::new(1);
    let (handle, _starting) = ringbolt_core::wal::Handle::stepped(options(), sim.disk(), Box::new(|| {}));
    let run = Run { epoch: 0, first_lsn: 1, records: Records::Apart(&[b"x"]), durable: true };
    assert_eq!(handle.submit(run).expect_err("not open yet").code, Code::WalClosed);
    let log = Log::open(&sim, options()).expect("opens");
    log.handle.close();
    assert_eq!(log.handle.submit(run).expect_err("closing").code, Code::WalClosed);
}
