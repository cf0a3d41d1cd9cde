//! What the log counts.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use ringbolt_core::wal::{Handle, SyncMode};
use ringbolt_disk::sim::Sim;
use ringbolt_disk::{Op, WriteMode};

use crate::support::{FRAMES, Log, RECORD_BYTES, on_submit, options, records};
use crate::{log_of, with_sync};

#[test]
fn the_figures_add_up() {
    // Goal: what is counted is what was done. Method: a known load, one run in flight at a time.
    let (_sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    let stats = log.handle.stats();
    assert_eq!((stats.runs, stats.records, stats.bytes, stats.batches, stats.syncs), (0, 0, 0, 0, 0));
    assert_eq!((stats.latency_p50, stats.latency_max), (Duration::ZERO, Duration::ZERO));

    log.append_all(&records(FRAMES));
    log.submit(FRAMES as u64 + 1, &records(3), true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == FRAMES as u64 + 3);
    let stats = log.handle.stats();
    assert_eq!(stats.runs, FRAMES as u64 + 1);
    assert_eq!(stats.records, FRAMES as u64 + 3);
    assert_eq!(stats.bytes, (stats.records * RECORD_BYTES as u64));
    assert_eq!(stats.bytes, log.handle.status().queue_bytes_written);
    assert_eq!(stats.batches, FRAMES as u64 + 1, "a seal is no batch");
    // One flush a batch, and the seal's own: either may have been covered by the other's where both are in
    // the same segment, which they are not.
    assert_eq!(stats.syncs, stats.batches + 1);
    assert_eq!(stats.rotations, 1);
    assert_eq!((stats.in_flight, stats.errors), (0, 0));
    assert_eq!(stats.oldest_in_flight, Duration::ZERO);
}

#[test]
fn latencies_are_told_from_submit_to_acknowledgement() {
    // Goal: what a caller waits shows. Method: a fast disk, then one that stalls for two seconds of the
    // simulator's clock.
    let (sim, mut log) = log_of(options());
    for lsn in 1..=98 {
        log.append(lsn, b"quick").expect("appends");
    }
    let quick = log.handle.stats();
    assert!(quick.latency_p50 > Duration::ZERO && quick.latency_p50 <= quick.latency_p99);
    assert!(quick.latency_p99 <= quick.latency_max && quick.latency_max < Duration::from_millis(100));

    sim.stall(true);
    log.submit(99, &[b"slow".to_vec(), b"slow".to_vec()], true).expect("is taken");
    log.turn(3);
    sim.fs().sleep(Duration::from_secs(2));
    sim.stall(false);
    log.turn_until(|status| status.durable_lsn == 100);
    let slow = log.handle.stats();
    assert!(slow.latency_p99 >= Duration::from_millis(1980), "{slow:?}: each record counts");
    assert!(slow.latency_p50 < Duration::from_millis(100));
    assert!(slow.latency_max >= slow.latency_p99);
}

#[test]
fn a_disk_that_never_answers_shows() {
    // Goal: rule 12. Method: stall the disk under one record, with others behind it in the queue; let time
    // pass.
    for is_durable in [true, false] {
        let (sim, mut log) = log_of(options());
        log.turn(10);
        sim.stall(true);
        log.submit(1, &records(1), is_durable).expect("is taken");
        log.turn(3);
        sim.fs().sleep(Duration::from_secs(5));
        log.submit(2, &records(2)[1..], is_durable).expect("is taken");
        log.turn(1);
        let stats = log.handle.stats();
        assert!(stats.oldest_in_flight >= Duration::from_secs(5), "{stats:?}");
        assert!(stats.in_flight > 0);
        sim.stall(false);
        log.turn_until(|status| status.written_lsn == 2 && (status.durable_lsn == 2 || !is_durable));
        let stats = log.handle.stats();
        assert_eq!(stats.oldest_in_flight, Duration::ZERO, "acknowledged as asked for");
        assert_eq!(stats.in_flight, 0);
    }
}

#[test]
fn a_lone_write_shows_before_it_blocks_its_thread() {
    // Goal: rule 12 where the thread that would tell is the one that waits. Method: look at the figures from
    // within the driver, as another thread could.
    let sim = Sim::new(1);
    let slot = Arc::new(OnceLock::<Weak<Handle>>::new());
    let (found, looking) = (Arc::new(Mutex::new(Vec::new())), slot.clone());
    let seen = found.clone();
    let clock = sim.fs();
    let disk = on_submit(&sim, move |op| {
        if let Op::Write { mode: WriteMode::Alone, .. } = op
            && let Some(handle) = looking.get().and_then(Weak::upgrade)
        {
            clock.sleep(Duration::from_secs(30));
            seen.lock().expect("nobody panics").push(handle.stats());
        }
    });
    let mut log = Log::open_on(disk, options(), |_| {}).expect("opens");
    slot.set(Arc::downgrade(&log.handle)).expect("set once");
    log.turn(10);
    log.append_all(&records(3));
    let found = found.lock().expect("nobody panics");
    assert!(!found.is_empty(), "a lone record is written alone");
    for stats in &*found {
        assert!(stats.oldest_in_flight >= Duration::from_secs(30), "{stats:?}");
        assert_eq!(stats.in_flight, 1);
    }
}

#[test]
fn a_flush_that_never_ends_shows() {
    // Goal: rule 12 where every record was acknowledged as its owner asked. Method: a record that is written, a
    // disk that stalls under the flush.
    let (sim, mut log) = log_of(with_sync(SyncMode::Fdatasync));
    log.submit(1, &records(1), false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 1);
    assert_eq!(log.handle.stats().oldest_in_flight, Duration::ZERO);
    sim.stall(true);
    log.handle.flush();
    log.turn(3);
    sim.fs().sleep(Duration::from_mins(1));
    log.turn(1);
    assert!(log.handle.stats().oldest_in_flight >= Duration::from_mins(1));
}

#[test]
fn what_waits_in_the_queue_ages_too() {
    // Goal: a record is as old as its submission, wherever it waits. Method: submit, and give the log no turn.
    let (sim, log) = log_of(options());
    log.submit(1, &records(1), true).expect("is taken");
    sim.fs().sleep(Duration::from_secs(3));
    assert!(log.handle.stats().oldest_in_flight >= Duration::from_secs(3));
}
