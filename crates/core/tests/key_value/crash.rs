//! Crash runs of the key-value log, from a seed, over several generations, like those of the native log in
//! `tests/crash.rs`: what was acknowledged is there, what is there was submitted, in order; rotations and truncations
//! happen meanwhile.
//!
//! `RINGBOLT_SEEDS=100000 cargo test -p ringbolt-core --release --test key_value crash` runs more of them,
//! `RINGBOLT_SEED=17` a single one.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore};
use ringbolt_core::wal::{Check, Format, Options, Phase, Request, Sequences, Status};
use ringbolt_disk::sim::{Call, Fault, Sim};

use crate::support::{Log, any_sync_mode, rng};
use crate::{delete, options, put, with_files_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerCut,
    Kill,
    Close,
}

/// What the log must hold, and how far it may have been truncated.
#[derive(Default)]
struct Model {
    bodies: Vec<Vec<u8>>,
    truncated: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// Bodies told apart from every other generation's.
    fn run(&mut self, rng: &mut SmallRng, generation: u64, bytes_max: usize) -> Vec<Vec<u8>> {
        let first = self.bodies.len();
        for _ in 0..rng.random_range(1..5) {
            let mut value = vec![0; rng.random_range(0..=bytes_max)];
            rng.fill_bytes(&mut value);
            let key = format!("{generation}/{}", self.bodies.len());
            self.bodies.push(if rng.random_bool(0.2) { delete(key) } else { put(key, value) });
        }
        self.bodies[first..].to_vec()
    }

    fn cut(&mut self, last: u64) {
        self.bodies.truncate(last as usize);
    }
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
        let cut = sim.steps()
            + if rng.random_bool(0.3) { rng.random_range(1..60) } else { rng.random_range(1..600) };
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
            check: if rng.random_bool(0.7) { Check::All } else { Check::Tail },
            format: Format::Entries {
                sequences: if rng.random_bool(0.2) { Sequences::Any } else { Sequences::Strict },
                file_bytes_max: [1 << 10, 4 << 10, 64 << 10][rng.random_range(0..3)],
            },
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
    let fault = match rng.random_range(0..7) {
        0 | 1 => Fault::new(Call::Sync),
        2 => Fault::new(Call::Write),
        3 => Fault::new(Call::SyncDir),
        4 => Fault::new(Call::Read),
        5 => Fault::new(Call::Write).errno(28),
        // Of the log's own files: SYNCED is 32 bytes in one sector, which a file system takes whole or not at all.
        _ => Fault::short_write().named("wal_"),
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
    let told = move |status: &Status| {
        let promised = if end == End::Kill { status.written_lsn } else { status.durable_lsn };
        if status.phase == Phase::Open {
            marker.set_marker(promised);
        }
    };
    // A fault may end it; so may a machine that was cut off a moment ago in the same run.
    let Ok(mut log) = Log::open_with(sim, options, told) else { return };
    let last = log.last_lsn();
    assert!(last >= *promised && last <= model.last(), "open found {last}, promised {promised}");
    model.cut(last);
    let bytes_max = if rng.random_bool(0.2) { 3000 } else { 200 };
    for _ in 0..rng.random_range(1..120) {
        if let Some(refusal) = log.handle.refusal() {
            // No space: what was refused was not written. One such fault strikes a generation at most.
            model.cut(refusal.from_lsn - 1);
            break;
        }
        match rng.random_range(0..12) {
            0..5 => {
                let first = model.last() + 1;
                let bodies = model.run(rng, generation, bytes_max);
                if log.submit(first, &bodies, rng.random_bool(0.7)).is_err() {
                    model.cut(first - 1);
                    break;
                }
            }
            5 => log.handle.want_durable(model.last()),
            6 => {
                log.handle.flush();
            }
            7 => {
                log.handle.ask(Request::Rotate);
            }
            8 if rng.random_bool(0.3) => {
                let lsn = rng.random_range(1..=model.last() + 1);
                model.truncated = model.truncated.max(lsn);
                log.handle.ask(Request::TruncateBefore(lsn));
            }
            _ => log.turn(rng.random_range(1..6)),
        }
    }
    if end == End::Close || rng.random_bool(0.3) {
        let refused = |log: &Log| log.handle.refusal().map(|refusal| refusal.from_lsn);
        let handle = log.handle.clone();
        let before = refused(&log);
        let closed = log.close();
        let from = handle.refusal().map(|refusal| refusal.from_lsn);
        if let Some(from) = from.or(before) {
            model.cut(from - 1);
        }
        if end == End::Close && closed.is_ok() {
            *promised = model.last();
        }
    } else {
        log.turn(rng.random_range(0..60));
    }
    if end == End::Close {
        *promised = (*promised).max(sim.marker());
    }
}

/// Open what is left and compare.
fn verify(sim: &Sim, model: &mut Model, promised: u64, seed: u64) {
    let log = Log::open(sim, with_files_of(4 << 10)).unwrap_or_else(|error| {
        panic!("seed {seed}: what a crash leaves is refused: {error}");
    });
    let last = log.last_lsn();
    assert!(last >= promised, "seed {seed}: LSN {promised} was acknowledged, and the log ends with {last}");
    assert!(last <= model.last(), "seed {seed}: LSN {last} was invented, {} submitted", model.last());
    let first = log.handle.opened().expect("it is open").first_lsn;
    assert!(first <= model.truncated.max(1), "seed {seed}: the log begins with LSN {first}");
    let bodies = log.read(first).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(bodies.len() as u64, last + 1 - first, "seed {seed}");
    for (lsn, body) in (first..).zip(&bodies) {
        assert!(*body == model.bodies[lsn as usize - 1], "seed {seed}: the record of LSN {lsn} is another");
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

#[cfg(feature = "planted")]
#[test]
fn crash_runs_notice_bugs_that_are_planted() {
    // Goal: a harness that cannot fail shows nothing. Method: seeds until one fails, with each bug in turn.
    use ringbolt_core::planted::{self, Bug};
    for bug in [Bug::SyncedBeforeSync, Bug::TrustCachedFrames] {
        let is_caught = |seed| {
            let run = || planted::with(bug, || crash_run(seed));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        };
        assert!((0..2000).any(is_caught), "{bug:?}");
    }
}
