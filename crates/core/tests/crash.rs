//! Crash runs: a log on a simulated machine is worked, broken and cut off at any step, from a seed, over
//! several generations. What was acknowledged is there, what is there was submitted, in order, whole runs.
//!
//! `RINGBOLT_SEEDS=100000 cargo test -p ringbolt-core --release --test crash` runs more of them,
//! `RINGBOLT_SEED=17` a single one.

mod support;

use rand::Rng;
use rand::rngs::SmallRng;
use ringbolt_core::wal::{Check, Options, Phase};
use ringbolt_disk::sim::{Call, Fault, Sim};
use support::{Log, Model, any_sync_mode, options, rng};

/// How a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerCut,
    Kill,
    Close,
}

/// One seed: some generations on one disk. Panics where a promise is broken.
fn crash_run(seed: u64) {
    let mut rng = rng(seed);
    let mut sim = Sim::new(seed);
    sim.set_cheap_dsync(rng.random_bool(0.3));
    let mut model = Model::default();
    // What must be there: the durable LSN at a power cut, the written one at a kill.
    let mut promised = 0;
    for generation in 0..rng.random_range(2..6) {
        let end = [End::PowerCut, End::PowerCut, End::Kill, End::Close][rng.random_range(0..4)];
        // Early enough to strike recovery often, late enough for some rotations.
        let cut = sim.steps()
            + if rng.random_bool(0.3) { rng.random_range(1..60) } else { rng.random_range(1..900) };
        if std::env::var_os("RINGBOLT_SEED").is_some() {
            eprintln!("generation {generation}: {end:?} at step {cut}, promised {promised}");
        }
        sim.set_marker(promised);
        match end {
            End::PowerCut => sim.crash_at(cut),
            End::Kill => sim.kill_at(cut),
            End::Close => {}
        }
        if rng.random_bool(0.3) {
            plant_fault(&sim, &mut rng);
        }
        let options = Options {
            sync: any_sync_mode(&mut rng),
            segment_bytes: [32 << 10, 64 << 10, 128 << 10][rng.random_range(0..3)],
            check: if rng.random_bool(0.7) { Check::All } else { Check::Tail },
            ..options()
        };
        work(&sim, options, &mut rng, &mut model, &mut promised, generation, end);
        let after = match end {
            End::PowerCut => sim.take_image().unwrap_or_else(|| sim.image()).boot(rng.random()),
            End::Kill => sim.take_kill().unwrap_or_else(|| {
                sim.kill();
                sim.clone()
            }),
            End::Close => {
                sim.kill();
                sim.clone()
            }
        };
        promised = after.marker().max(promised);
        sim = after;
        // What was not reached is not to strike later.
        sim.crash_at(u64::MAX);
        sim.kill_at(u64::MAX);
        sim.clear_faults();
        verify(&sim, &mut model, promised, seed);
        promised = model.last();
    }
}

fn plant_fault(sim: &Sim, rng: &mut SmallRng) {
    let fault = match rng.random_range(0..6) {
        0 | 1 => Fault::new(Call::Sync),
        2 => Fault::new(Call::Write),
        3 => Fault::new(Call::SyncDir),
        4 => Fault::new(Call::Read),
        _ => Fault::short_write(),
    };
    sim.fail(fault.skip(rng.random_range(0..40)));
}

/// Open the log and work it until the cut has come, a while has passed, or it failed.
fn work(
    sim: &Sim,
    options: Options,
    rng: &mut SmallRng,
    model: &mut Model,
    promised: &mut u64,
    generation: u64,
    end: End,
) {
    let marker = sim.clone();
    let told = move |status: &ringbolt_core::wal::Status| {
        let promised = if end == End::Kill { status.written_lsn } else { status.durable_lsn };
        if status.phase == Phase::Open {
            marker.set_marker(promised);
        }
    };
    // A fault may end it; so may a machine that was cut off a moment ago in the same run.
    let Ok(mut log) = Log::open_with(sim, options, told) else { return };
    let last = log.last_lsn();
    if std::env::var_os("RINGBOLT_SEED").is_some() {
        eprintln!("opened at step {}: {:?}", sim.steps(), log.recovery());
    }
    assert!(last >= *promised && last <= model.last(), "open found {last}, promised {promised}");
    model.cut(last);
    let large = rng.random_bool(0.2);
    for _ in 0..rng.random_range(1..120) {
        match rng.random_range(0..10) {
            0..5 => {
                let first = model.last() + 1;
                let count = rng.random_range(1..5);
                let bytes_max = if large { 1900 } else { 300 };
                let records = model.run(rng, generation, count, bytes_max).to_vec();
                if log.submit(first, &records, rng.random_bool(0.7)).is_err() {
                    model.cut(first - 1);
                    break;
                }
            }
            5 => log.handle.want_durable(model.last()),
            6 => {
                log.handle.flush();
            }
            _ => {
                for _ in 0..rng.random_range(1..6) {
                    log.service.turn();
                }
            }
        }
    }
    if end == End::Close || rng.random_bool(0.3) {
        let closed = log.close();
        if end == End::Close && closed.is_ok() {
            *promised = model.last();
        }
    } else {
        for _ in 0..rng.random_range(0..60) {
            log.service.turn();
        }
    }
    if end == End::Close {
        *promised = (*promised).max(sim.marker());
    }
}

/// Open what is left and compare.
fn verify(sim: &Sim, model: &mut Model, promised: u64, seed: u64) {
    let log = Log::open(sim, options()).unwrap_or_else(|error| {
        panic!("seed {seed}: what a crash leaves is refused: {error}");
    });
    let last = log.last_lsn();
    if std::env::var_os("RINGBOLT_SEED").is_some() {
        eprintln!("verified: {:?}, {promised} promised, {} submitted", log.recovery(), model.last());
    }
    assert!(last >= promised, "seed {seed}: LSN {promised} was acknowledged, and the log ends with {last}");
    assert!(last <= model.last(), "seed {seed}: LSN {last} was invented, {} submitted", model.last());
    assert!(last == 0 || model.ends.contains(&last), "seed {seed}: a run was torn at LSN {last}");
    let records = log.read(1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(records.len() as u64, last, "seed {seed}");
    for (index, (found, submitted)) in records.iter().zip(&model.records).enumerate() {
        assert!(found == submitted, "seed {seed}: the record of LSN {} is another", index + 1);
    }
    model.cut(last);
    log.close().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn two_thousand_seeded_crash_runs_lose_nothing_and_invent_nothing() {
    if let Some(seed) = number("RINGBOLT_SEED") {
        return crash_run(seed);
    }
    for seed in 0..number("RINGBOLT_SEEDS").unwrap_or(2000) {
        let run = std::panic::catch_unwind(|| crash_run(seed));
        assert!(run.is_ok(), "seed {seed} fails: RINGBOLT_SEED={seed} runs it alone");
    }
}
