//! Who shares a frame, and how frames travel.

use ringbolt_core::wal::SyncMode;
use ringbolt_disk::sim::Sim;

use crate::support::{Log, RECORD_BYTES, options, watched};
use crate::with_sync;

/// The frames handed to the disk.
fn writes(seen: &std::sync::Mutex<Vec<String>>) -> Vec<String> {
    let seen = seen.lock().expect("nobody panics");
    seen.iter().filter(|op| op.starts_with("Write")).cloned().collect()
}

#[test]
fn a_lone_batch_goes_alone_and_carries_its_own_flush() {
    // Goal: the shortest way for the commonest case. Method: one append after another, each awaited; watch
    // what the driver is handed.
    for (sync, is_cheap, mode) in [
        (SyncMode::Auto, false, "Alone"),
        (SyncMode::Auto, true, "Alone"),
        (SyncMode::Dsync, false, "Alone"),
        (SyncMode::Fdatasync, true, "Plain"),
    ] {
        let sim = Sim::new(1);
        sim.set_cheap_dsync(is_cheap);
        let (disk, seen) = watched(&sim);
        let mut log = Log::open_on(disk, with_sync(sync), |_| {}).expect("opens");
        log.append_all(&vec![vec![7; 100]; 5]);
        let writes = writes(&seen);
        assert_eq!(writes.len(), 5);
        assert!(writes.iter().all(|write| write.ends_with(&format!("{mode})"))), "{sync:?}: {writes:?}");
        assert_eq!(log.handle.stats().syncs, 5, "one each, whoever carries it");
    }
}

#[test]
fn what_queues_up_behind_a_busy_disk_becomes_few_frames() {
    // Goal: group commit. Method: the disk answers nothing while a hundred records come in; four frames are
    // at the disk, all the others share the fifth.
    for sync in crate::SYNC_MODES {
        let sim = Sim::new(1);
        let mut log = Log::open(&sim, with_sync(sync)).expect("opens");
        sim.stall(true);
        let mut most = 0;
        for lsn in 1..=100 {
            log.submit(lsn, &[vec![lsn as u8; 50]], true).expect("is taken");
            log.turn(1);
            most = most.max(log.handle.stats().in_flight);
        }
        assert_eq!(most, 4, "{sync:?}: several overlap, and not too many");
        assert_eq!(log.handle.stats().batches, 4);
        sim.stall(false);
        log.turn_until(|status| status.durable_lsn == 100);
        assert_eq!(log.handle.stats().batches, 5, "{sync:?}");
        let expected: Vec<Vec<u8>> = (1..=100).map(|lsn| vec![lsn; 50]).collect();
        assert_eq!(log.read(1).expect("reads"), expected);
    }
}

#[test]
fn overlapping_frames_are_not_written_alone() {
    // Goal: a blocking write would keep what could overlap from overlapping. Method: records come while others
    // are at the disk.
    for (is_cheap, mode) in [(true, "Dsync"), (false, "Plain")] {
        let sim = Sim::new(1);
        sim.set_cheap_dsync(is_cheap);
        let (disk, seen) = watched(&sim);
        let mut log = Log::open_on(disk, options(), |_| {}).expect("opens");
        // Until the first blocks are zeroed: nothing is written into those in flight.
        log.turn(10);
        sim.stall(true);
        for lsn in 1..=3 {
            log.submit(lsn, &[vec![1; 50]], true).expect("is taken");
            log.turn(1);
        }
        let writes = writes(&seen);
        assert!(writes[0].ends_with("Alone)"), "nothing was in flight then: {writes:?}");
        assert!(writes[1..].iter().all(|write| write.ends_with(&format!("{mode})"))), "{writes:?}");
    }
}

#[test]
fn runs_that_come_together_share_a_frame_up_to_half_a_segment() {
    // Goal: no frame is larger than the format takes, however much waits. Method: queue up more than that.
    let sim = Sim::new(1);
    let (disk, seen) = watched(&sim);
    let mut log = Log::open_on(disk, options(), |_| {}).expect("opens");
    let records = vec![vec![3; RECORD_BYTES]; 12];
    for (lsn, record) in (1..).zip(&records) {
        log.submit(lsn, std::slice::from_ref(record), true).expect("is taken");
    }
    log.turn_until(|status| status.durable_lsn == 12);
    let writes = writes(&seen);
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(log.read(1).expect("reads"), records);
}
