//! One log through many power cuts, and power cuts in the middle of what a log does beside appending: recovery,
//! rotation, truncation, and the making of the next segment.

mod support;

use rand::Rng;
use ringbolt_core::format::is_temporary;
use ringbolt_core::wal::{Options, Phase, Request, Status, SyncMode};
use ringbolt_disk::sim::{Image, Sim};
use support::{DIRECTORY, FRAMES, Log, Model, any_sync_mode, options, records, rng};

/// A thousand rounds on one log. Each opens it, works it for a while and cuts the power at any step: of the opening
/// or of the work. What was acknowledged is there in every later round.
fn rounds(count: u64, seed: u64) -> (Sim, Model) {
    let mut rng = rng(seed);
    let mut sim = Sim::new(seed);
    let mut model = Model::default();
    let (mut first_due, mut last_due) = (1, 0);
    for round in 0..count {
        // Inside recovery often, late enough for some work else.
        let steps = if rng.random_bool(0.3) { rng.random_range(1..50) } else { rng.random_range(50..700) };
        sim.crash_at(sim.steps() + steps);
        sim.set_marker(first_due << 32 | last_due);
        let marker = sim.clone();
        let told = move |status: &Status| {
            if status.phase == Phase::Open {
                let (first, last) = (marker.marker() >> 32, marker.marker() & u64::from(u32::MAX));
                marker.set_marker(status.first_lsn.max(first) << 32 | status.durable_lsn.max(last));
            }
        };
        let options = Options { sync: any_sync_mode(&mut rng), segment_bytes: 16 << 10, ..options() };
        let mut log = Log::open_with(&sim, options, told)
            .unwrap_or_else(|error| panic!("round {round}: what a crash left is refused: {error:?}"));
        let (first, last) = (log.handle.opened().expect("it is open").first_lsn, log.last_lsn());
        assert!(first >= first_due, "round {round}: truncated up to {first_due}, {first} is back");
        assert!(last >= last_due, "round {round}: {last_due} was acknowledged, {last} is there");
        assert!(last <= model.last() && (last == 0 || model.ends.contains(&last)), "round {round}: {last}");
        let found = log.read(first).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        assert!(found == model.records[first as usize - 1..last as usize], "round {round}: other records");
        model.cut(last);
        for _ in 0..rng.random_range(1..60) {
            match rng.random_range(0..8) {
                0 => {
                    log.handle.ask(Request::Rotate);
                }
                1 => {
                    // Late enough to keep some, or the log would be empty most of the time.
                    log.handle.ask(Request::TruncateBefore(model.last().saturating_sub(20)));
                }
                _ => {
                    let first = model.last() + 1;
                    let run = model.run(&mut rng, round, 2, 800).to_vec();
                    log.submit(first, &run, rng.random_bool(0.7)).expect("is taken");
                }
            }
            log.turn(rng.random_range(0..4));
        }
        let image = sim.take_image().unwrap_or_else(|| sim.image());
        (first_due, last_due) = (image.marker >> 32, image.marker & u64::from(u32::MAX));
        sim = image.boot(rng.random());
    }
    (sim, model)
}

#[test]
fn a_log_outlives_a_thousand_power_cuts() {
    // Goal: nothing adds up over generations: incarnations, torn tails, segments and LSNs far from where they began.
    // Method: see `rounds`; three logs.
    for seed in 0..3 {
        let (sim, model) = rounds(1000, seed);
        let log = Log::open(&sim, options()).expect("opens");
        let opened = log.handle.opened().expect("it is open");
        assert!(opened.incarnation > 400 && opened.first_lsn > 1000, "{opened:?}, {}", model.last());
        assert!(sim.list(DIRECTORY).len() < 100, "nothing is left over: {:?}", sim.list(DIRECTORY));
    }
}

/// What a power cut at this moment may leave, in several ways: nothing of the undecided, all of it, each alone, all
/// but each, and chance.
fn outcomes(image: &Image, chances: u64) -> Vec<Sim> {
    let units = image.undecided();
    let alone = units.iter().map(|&unit| vec![unit]);
    let all_but = units.iter().map(|&lost| units.iter().copied().filter(|&unit| unit != lost).collect());
    let kept = [Vec::new(), units.clone()].into_iter().chain(alone).chain(all_but);
    let listed = kept.map(|kept: Vec<u64>| image.boot_with(kept, 1));
    listed.chain((0..chances).map(|seed| image.boot(seed))).collect()
}

/// Cut the power at each step of what `act` does to a log that `prepare` made, and hand each outcome to `check`. Answers
/// with the number of steps.
fn cut_everywhere(
    prepare: impl Fn(SyncMode) -> (Sim, Option<Log>),
    act: impl Fn(&Sim, Option<Log>, SyncMode),
    check: impl Fn(&Sim, &str),
) -> u64 {
    let mut cuts = 0;
    for sync in [SyncMode::Auto, SyncMode::Dsync, SyncMode::Fdatasync] {
        for step in 1.. {
            let (sim, log) = prepare(sync);
            sim.crash_at(sim.steps() + step);
            act(&sim, log, sync);
            let Some(image) = sim.take_image() else { break };
            for (index, outcome) in outcomes(&image, 4).iter().enumerate() {
                check(outcome, &format!("{sync:?}, cut before step {step}, outcome {index}"));
            }
            cuts += 1;
        }
    }
    cuts
}

fn open(sim: &Sim, sync: SyncMode) -> Log {
    Log::open(sim, Options { sync, ..options() })
        .unwrap_or_else(|error| panic!("a sound log is refused: {error:?}"))
}

/// The log holds the records from its first LSN on: `first` or before, up to `last` or behind.
fn must_hold(sim: &Sim, first: u64, last: u64, all: &[Vec<u8>], case: &str) {
    let log = Log::open(sim, options()).unwrap_or_else(|error| panic!("{case}: refused: {error:?}"));
    let opened = log.handle.opened().expect("it is open");
    assert!(opened.first_lsn <= first && opened.last_lsn >= last, "{case}: {opened:?}");
    let found = log.read(opened.first_lsn).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert!(found == all[opened.first_lsn as usize - 1..opened.last_lsn as usize], "{case}: other records");
    assert!(!sim.list(DIRECTORY).iter().any(|name| is_temporary(name)), "{case}: left over");
}

/// Three records durable, four more in flight, and the power cut: a torn tail for most seeds.
fn torn(sync: SyncMode, seed: u64) -> (Sim, Vec<Vec<u8>>) {
    let sim = Sim::new(seed);
    let mut log = open(&sim, sync);
    let all = records(7);
    log.append_all(&all[..3]);
    for lsn in 4..8 {
        log.submit(lsn, &all[lsn as usize - 1..lsn as usize], false).expect("is taken");
        log.service.turn();
    }
    (sim.power_cut(seed), all)
}

#[test]
fn a_crash_inside_recovery_changes_nothing_about_the_next_one() {
    // Goal: durability rule 6, last sentence. Method: recover a torn log, cut at each step, recover what that left and
    // cut again at some step, and open.
    for seed in 0..6 {
        let cuts = cut_everywhere(
            |sync| (torn(sync, seed).0, None),
            |sim, _, sync| drop(open(sim, sync)),
            |sim, case| {
                let all = torn(SyncMode::Auto, seed).1;
                // The second recovery is cut too, somewhere else each time.
                let again = sim.power_cut(1);
                again.crash_at(again.steps() + 1 + seed * 7 % 40);
                drop(open(&again, SyncMode::Auto));
                if let Some(image) = again.take_image() {
                    must_hold(&image.boot(seed), 1, 3, &all, case);
                }
                must_hold(sim, 1, 3, &all, case);
            },
        );
        assert!(cuts > 60, "{cuts} cuts");
    }
}

#[test]
fn a_crash_inside_a_rotation_loses_nothing_and_leaves_a_log_that_goes_on() {
    // Goal: seal, next segment and HEAD come in an order that any cut is fair to. Method: see `cut_everywhere`.
    let cuts = cut_everywhere(
        |sync| {
            let sim = Sim::new(1);
            let mut log = open(&sim, sync);
            log.append_all(&records(3));
            log.turn(20);
            (sim, Some(log))
        },
        |_, log, _| {
            let mut log = log.expect("it was prepared");
            log.request(Request::Rotate).expect("rotates");
            log.append(4, &records(4)[3]).expect("appends");
            log.turn(20);
        },
        |sim, case| {
            must_hold(sim, 1, 3, &records(4), case);
            let mut log = open(sim, SyncMode::Auto);
            log.append(log.last_lsn() + 1, b"more").expect("goes on");
            log.request(Request::Rotate).expect("rotates");
        },
    );
    assert!(cuts > 30, "{cuts} cuts");
}

#[test]
fn a_crash_inside_a_truncation_leaves_a_log_that_begins_before_it_or_with_it() {
    // Goal: never after the LSN asked for, and never a hole. Method: see `cut_everywhere`; two segments go.
    let all = records(31);
    let cuts = cut_everywhere(
        |sync| {
            let sim = Sim::new(1);
            let mut log = open(&sim, sync);
            for part in records(30).chunks(10) {
                log.append_all(part);
                log.request(Request::Rotate).expect("rotates");
            }
            log.turn(20);
            (sim, Some(log))
        },
        |_, log, _| {
            log.expect("it was prepared").request(Request::TruncateBefore(25)).expect("truncates");
        },
        |sim, case| {
            must_hold(sim, 25, 30, &all, case);
            let mut log = open(sim, SyncMode::Auto);
            let first = log.handle.status().first_lsn;
            assert!([1, 25].contains(&first), "{case}: it begins with LSN {first}");
            log.request(Request::TruncateBefore(28)).expect("again");
            log.append(31, &all[30]).expect("goes on");
            log.close().expect("closes");
            must_hold(sim, 28, 31, &all, case);
        },
    );
    assert!(cuts > 15, "{cuts} cuts");
}

#[test]
fn a_crash_inside_the_making_of_the_next_segment_leaves_no_half_of_it() {
    // Goal: a named segment is whole. Method: past half of a segment the next one is made; cut at each step of that.
    let half = FRAMES / 2 + 1;
    let cuts = cut_everywhere(
        |sync| {
            let sim = Sim::new(1);
            let mut log = open(&sim, sync);
            log.append_all(&records(half - 1));
            log.turn(20);
            assert!(!sim.list(DIRECTORY).contains(&"wal-0000000000000002.seg".to_owned()));
            (sim, Some(log))
        },
        |sim, log, _| {
            let mut log = log.expect("it was prepared");
            log.append_all(&records(half + 1)[half - 1..]);
            log.turn(20);
            assert!(sim.list(DIRECTORY).contains(&"wal-0000000000000002.seg".to_owned()), "it was made");
        },
        |sim, case| {
            must_hold(sim, 1, half as u64 - 1, &records(FRAMES + 4), case);
            let mut log = open(sim, SyncMode::Auto);
            let all = records(FRAMES + 4);
            log.append_all(&all[log.last_lsn() as usize..]);
            log.close().expect("closes");
            must_hold(sim, 1, FRAMES as u64 + 4, &all, case);
        },
    );
    assert!(cuts > 20, "{cuts} cuts");
}
