//! From one segment to the next.

use rand::Rng;
use ringbolt_core::format::GRAIN;
use ringbolt_core::wal::Options;
use ringbolt_disk::sim::Sim;

use crate::support::{DIRECTORY, FRAMES, Log, Model, options, path, records, rng};
use crate::{SYNC_MODES, log_of, must_hold, with_sync};

#[test]
fn rotation_over_many_segments_keeps_every_record() {
    // Goal: a log is more than its segments. Method: random runs, many of them in flight, in each mode and on
    // both kinds of device.
    for sync in SYNC_MODES {
        for is_cheap in [false, true] {
            let sim = Sim::new(7);
            sim.set_cheap_dsync(is_cheap);
            let mut log = Log::open(&sim, with_sync(sync)).expect("opens");
            let (mut rng, mut model) = (rng(7), Model::default());
            while model.last() < 400 {
                let first = model.last() + 1;
                let count = rng.random_range(1..4);
                let records = model.run(&mut rng, 0, count, 5000).to_vec();
                log.submit(first, &records, rng.random()).expect("is taken");
                log.turn(rng.random_range(0..3));
            }
            log.handle.want_durable(model.last());
            log.turn_until(|status| status.durable_lsn == model.last());
            let rotations = log.handle.stats().rotations;
            assert!(rotations > 10, "{sync:?}: {rotations} rotations");
            assert_eq!(log.read(1).expect("reads"), model.records);
            log.close().expect("closes");
            let log = Log::open(&sim, options()).expect("opens");
            assert_eq!(log.recovery().segments, rotations + 1);
            assert_eq!(log.read(1).expect("reads"), model.records, "{sync:?}");
        }
    }
}

#[test]
fn the_next_segment_is_made_when_this_one_is_half_full_and_not_before() {
    // Goal: rotation finds its segment ready, and a small log has one. Method: look at the directory.
    let (sim, mut log) = log_of(options());
    let next = "wal-0000000000000002.seg".to_owned();
    log.append_all(&records(FRAMES / 2));
    log.turn(20);
    assert!(!sim.list(DIRECTORY).contains(&next));
    log.append_all(&records(1));
    log.turn(20);
    assert!(sim.list(DIRECTORY).contains(&next));
    assert_eq!(log.handle.stats().rotations, 0);
}

#[test]
fn another_segment_size_replaces_what_holds_no_frame_and_nothing_else() {
    // Goal: the option holds for segments made from now on, the one that waits included. Method: change it
    // over a log whose next segment is prepared, and over an empty one.
    let larger = Options { segment_bytes: 32 * GRAIN, ..options() };
    let (sim, mut log) = log_of(options());
    let mut all = records(FRAMES - 2);
    log.append_all(&all);
    log.turn(20);
    log.close().expect("closes");

    let size = |number: u64| sim.read_file(path(&format!("wal-{number:016x}.seg"))).len() as u64;
    assert_eq!((size(1), size(2)), (16 * GRAIN, 16 * GRAIN));
    let mut log = Log::open(&sim, larger.clone()).expect("opens");
    assert_eq!((size(1), size(2)), (16 * GRAIN, 32 * GRAIN));
    let more = records(35);
    log.append_all(&more);
    all.extend(more);
    assert_eq!(log.read(1).expect("reads"), all);
    log.close().expect("closes");
    assert_eq!(size(3), 32 * GRAIN);
    must_hold(&sim, &all);

    let (sim, log) = log_of(options());
    log.close().expect("closes");
    let mut log = Log::open(&sim, larger).expect("opens");
    assert_eq!(sim.read_file(path("wal-0000000000000001.seg")).len() as u64, 32 * GRAIN);
    log.append_all(&records(1));
    log.close().expect("closes");
    must_hold(&sim, &records(1));
}
