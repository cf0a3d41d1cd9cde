//! Who shares a frame, and how frames travel.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use ringbolt_core::wal::{Handle, Options, Records, Run, SyncMode};
use ringbolt_disk::sim::Sim;
use ringbolt_disk::{Op, WriteMode};

use crate::support::{Log, RECORD_BYTES, on_submit, options, watched};
use crate::with_sync;

/// The frames handed to the disk.
fn writes(seen: &Mutex<Vec<String>>) -> Vec<String> {
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

/// The first LSN that a [`slow_log`] has to give.
const SLOW_FROM: u64 = 7;

/// A log that has seen that its disk is slow, whose first blocks are zeroed and which has nothing to do. `watch` hears how
/// each frame is sent.
fn slow_log(sim: &Sim, sync: SyncMode, watch: impl Fn(WriteMode) + Send + Sync + 'static) -> Log {
    let clock = sim.fs();
    let disk = on_submit(sim, move |op| {
        if let Op::Write { mode, .. } = op {
            watch(*mode);
            if *mode == WriteMode::Alone {
                clock.sleep(Duration::from_millis(2));
            }
        }
    });
    let mut log = Log::open_on(disk, with_sync(sync), |_| {}).expect("opens");
    for record in vec![vec![0; 50]; SLOW_FROM as usize - 1] {
        log.append_all(&[record]);
        log.turn(10);
    }
    log
}

#[test]
fn what_queues_up_behind_a_busy_disk_becomes_few_frames() {
    // Goal: group commit. Method: the disk answers nothing while a hundred records come in; four frames are
    // at the disk, all the others share the fifth.
    for sync in crate::SYNC_MODES {
        let sim = Sim::new(1);
        let mut log = slow_log(&sim, sync, |_| {});
        let before = log.handle.stats().batches;
        sim.stall(true);
        let mut most = 0;
        for lsn in SLOW_FROM..SLOW_FROM + 100 {
            log.submit(lsn, &[vec![lsn as u8; 50]], true).expect("is taken");
            log.turn(1);
            most = most.max(log.handle.stats().in_flight);
        }
        assert_eq!(most, 4, "{sync:?}: several overlap, and not too many");
        assert_eq!(log.handle.stats().batches, before + 4);
        sim.stall(false);
        log.turn_until(|status| status.durable_lsn == SLOW_FROM + 99);
        assert_eq!(log.handle.stats().batches, before + 5, "{sync:?}");
        let expected: Vec<Vec<u8>> = (SLOW_FROM..SLOW_FROM + 100).map(|lsn| vec![lsn as u8; 50]).collect();
        assert_eq!(log.read(SLOW_FROM).expect("reads"), expected);
    }
}

#[test]
fn overlapping_frames_are_not_written_alone() {
    // Goal: a blocking write would keep what could overlap from overlapping. Method: records come while others
    // are at the disk.
    for (is_cheap, expected) in [(true, WriteMode::Dsync), (false, WriteMode::Plain)] {
        let sim = Sim::new(1);
        sim.set_cheap_dsync(is_cheap);
        let modes = Arc::new(Mutex::new(Vec::new()));
        let seen = modes.clone();
        let mut log =
            slow_log(&sim, SyncMode::Auto, move |mode| seen.lock().expect("nobody panics").push(mode));
        let before = modes.lock().expect("nobody panics").len();
        sim.stall(true);
        for lsn in SLOW_FROM..SLOW_FROM + 3 {
            log.submit(lsn, &[vec![1; 50]], true).expect("is taken");
            log.turn(1);
        }
        let modes = &modes.lock().expect("nobody panics")[before..];
        assert_eq!(modes, [WriteMode::Alone, expected, expected], "nothing was in flight at first");
    }
}

/// Append with somebody always waiting behind, on a disk whose lone write takes so long; how frames were sent.
fn modes_with_more_waiting(alone: impl Fn(usize) -> Duration + Send + Sync + 'static) -> Vec<WriteMode> {
    modes_of_frames(1500, b"a record", options(), alone)
}

/// The same of so many frames of one record each.
fn modes_of_frames(
    frames: usize,
    record: &'static [u8],
    options: Options,
    alone: impl Fn(usize) -> Duration + Send + Sync + 'static,
) -> Vec<WriteMode> {
    let sim = Sim::new(1);
    sim.set_cheap_dsync(false);
    sim.set_step_micros_max(1);
    sim.set_alone_at_once(1.0);
    let slot = Arc::new(OnceLock::<Weak<Handle>>::new());
    let modes = Arc::new(Mutex::new(Vec::new()));
    let (seen, clock, submitting) = (modes.clone(), sim.fs(), slot.clone());
    let submit = move |handle: &Handle, lsn: u64| {
        let records = Records::Apart(&[record]);
        handle.submit(Run { epoch: 0, first_lsn: lsn, records, durable: true }).expect("is taken");
    };
    let disk = on_submit(&sim, move |op| {
        let Op::Write { mode, .. } = op else { return };
        let mut seen = seen.lock().expect("nobody panics");
        if *mode == WriteMode::Alone {
            clock.sleep(alone(seen.len()));
        }
        seen.push(*mode);
        let handle = submitting.get().and_then(Weak::upgrade).expect("the log is open");
        submit(&handle, seen.len() as u64 + 1);
    });
    let mut log = Log::open_on(disk, options, |_| {}).expect("opens");
    slot.set(Arc::downgrade(&log.handle)).expect("set once");
    log.turn(10);
    submit(&log.handle, 1);
    log.turn_until(|status| status.durable_lsn >= frames as u64);
    let modes = modes.lock().expect("nobody panics");
    modes.clone()
}

#[test]
fn on_a_quick_disk_batches_go_alone_although_more_wait_behind() {
    // Goal: who hands over in the middle of a tick does not pay for it with the dearer road.
    let modes = modes_with_more_waiting(|_| Duration::from_micros(150));
    assert!(!modes.contains(&WriteMode::Plain), "{modes:?}");
}

#[test]
fn on_a_slow_disk_batches_overlap_while_more_wait_behind() {
    // Goal: what waits does not wait for a whole flush first; and whether the disk is still slow is asked now and then.
    let modes = modes_with_more_waiting(|_| Duration::from_millis(2));
    let alone = modes.iter().filter(|mode| **mode == WriteMode::Alone).count();
    assert!((2..50).contains(&alone), "{alone} of {}: {modes:?}", modes.len());
}

#[test]
fn a_frame_that_takes_long_because_it_is_large_does_not_make_the_disk_slow() {
    // Goal: what a write takes beyond the transfer of its bytes is what another could overlap with.
    const RECORD: &[u8] = &[7; 500_000];
    let options = Options { segment_bytes: 64 << 20, ..options() };
    let modes = modes_of_frames(100, RECORD, options.clone(), |_| Duration::from_micros(700));
    assert!(!modes.contains(&WriteMode::Plain), "{modes:?}");
    let modes = modes_of_frames(100, RECORD, options, |_| Duration::from_millis(3));
    assert!(modes.contains(&WriteMode::Plain), "that is more than its transfer: {modes:?}");
}

#[test]
fn a_disk_that_stumbled_is_not_held_for_slow() {
    let modes = modes_with_more_waiting(|index| Duration::from_micros(if index < 5 { 20_000 } else { 100 }));
    assert!(modes[..100].contains(&WriteMode::Plain), "it was slow for a while: {modes:?}");
    assert!(!modes[modes.len() - 100..].contains(&WriteMode::Plain), "{modes:?}");
}

#[test]
fn who_waits_for_a_lone_write_is_told_before_what_came_meanwhile_goes() {
    // Goal: the write is over as its call returns, so what came in that time overlaps with nothing. Method: a record
    // comes during each lone write; how far the log had told when the next frame was sent.
    let sim = Sim::new(1);
    sim.set_alone_at_once(1.0);
    sim.set_step_micros_max(1);
    let slot = Arc::new(OnceLock::<Weak<Handle>>::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let (seen, open) = (told.clone(), slot.clone());
    let disk = on_submit(&sim, move |op| {
        let Op::Write { mode, .. } = op else { return };
        let Some(handle) = open.get().and_then(Weak::upgrade) else { return };
        let mut seen = seen.lock().expect("nobody panics");
        seen.push(handle.status().durable_lsn);
        if *mode == WriteMode::Alone {
            let (first_lsn, records) = (seen.len() as u64 + 1, Records::Apart(&[b"a record"]));
            handle.submit(Run { epoch: 0, first_lsn, records, durable: false }).expect("is taken");
        }
    });
    let mut log = Log::open_on(disk, options(), |_| {}).expect("opens");
    log.turn(10);
    slot.set(Arc::downgrade(&log.handle)).expect("set once");
    for _ in 0..5 {
        let lsn = log.handle.status().written_lsn + 1;
        log.append(lsn, b"a record").expect("appends");
        log.turn_until(|status| status.written_lsn > lsn);
        log.handle.flush();
        log.turn_until(|status| status.durable_lsn > lsn);
    }
    let told = told.lock().expect("nobody panics");
    assert_eq!(*told, (0..10).collect::<Vec<u64>>(), "each frame was sent when all before it was told");
}

#[test]
fn a_log_with_nothing_to_do_says_so_and_how_long_a_write_takes() {
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    log.append_all(&vec![vec![7; 100]; 5]);
    log.turn(10);
    assert!(log.handle.idle().is_some_and(|time| time > Duration::ZERO), "{:?}", log.handle.idle());
    sim.stall(true);
    log.submit(6, &[vec![7; 100]], true).expect("is taken");
    assert_eq!(log.handle.idle(), None, "it was just handed something");
    log.turn(3);
    assert_eq!(log.handle.idle(), None, "it is waiting for the disk");
    sim.stall(false);
    log.turn_until(|status| status.durable_lsn == 6);
    log.turn(10);
    assert!(log.handle.idle().is_some());
}

#[test]
fn a_disk_that_is_slow_is_not_handed_a_part_of_a_tick() {
    // Goal: what follows a part waits for the flush of that part and then for its own. Method: a disk whose writes take
    // longer than what is counted of each, and a log that writes nothing alone, so knows of no time.
    for sync in [SyncMode::Auto, SyncMode::Fdatasync] {
        let mut log = slow_log(&Sim::new(1), sync, |_| {});
        log.append_all(&vec![vec![7; 100]; 30]);
        log.turn(10);
        assert_eq!(log.handle.idle(), None, "{sync:?}");
    }
}

#[test]
fn what_nobody_needs_durable_is_not_held_back_for_what_is_on_its_way() {
    // Goal: a batch is held back only to go alone, which one that is merely to be written never does. Method: behind a
    // write that the disk does not answer, once as it is and once with somebody who waits.
    for sync in crate::SYNC_MODES {
        for durable in [false, true] {
            let sim = Sim::new(1);
            sim.set_alone_at_once(0.0);
            sim.set_step_micros_max(1);
            let mut log = Log::open(&sim, with_sync(sync)).expect("opens");
            log.append_all(&vec![vec![7; 50]; 5]);
            log.turn(10);
            sim.stall(true);
            for (lsn, durable) in [(6, true), (7, durable)] {
                log.submit(lsn, &[vec![7; 50]], durable).expect("is taken");
                log.turn(3);
            }
            let held = durable && sync != SyncMode::Fdatasync;
            assert_eq!(log.handle.stats().in_flight, if held { 1 } else { 2 }, "{sync:?}, {durable}");
            sim.stall(false);
            log.turn_until(|status| status.written_lsn == 7);
        }
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
