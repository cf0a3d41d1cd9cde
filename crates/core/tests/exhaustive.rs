//! Small workloads, all of them: up to three operations on a log, a power cut before each of its steps, and
//! of what was undecided then each subset kept (where that is more than can be tried, a draw from the
//! subsets). What chance finds late in large runs shows here in the smallest case there is.

mod support;

use ringbolt_core::wal::{Options, Phase, Request, Status, SyncMode};
use ringbolt_disk::sim::{Image, Lie, Sim};
use support::{Log, options};

/// Two batches to a segment: the third append rotates.
const SEGMENT_BYTES: u64 = 16 << 10;

/// Undecided units up to so many are kept and lost in every combination.
const UNITS_MAX: usize = 12;

/// Of more, so many subsets are drawn beside none, all, each alone and all but each.
const DRAWN: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// One record, awaited.
    Append,
    /// Three records in three batches, none awaited: they are in flight together, over a rotation too.
    Burst,
    Flush,
    /// Go on in the next segment, awaited.
    Rotate,
    /// Keep the newest record only, awaited.
    Truncate,
    /// Close and open.
    Reopen,
}

const STEPS: [Step; 6] = [Step::Append, Step::Burst, Step::Flush, Step::Rotate, Step::Truncate, Step::Reopen];

fn record(lsn: u64) -> Vec<u8> {
    vec![lsn as u8; 1000 + lsn as usize]
}

fn small(sync: SyncMode) -> Options {
    Options { segment_bytes: SEGMENT_BYTES, sync, ..options() }
}

/// The first LSN and the last one that were acknowledged, as a machine's marker.
fn acknowledged(marker: u64) -> (u64, u64) {
    (marker >> 32, marker & u64::from(u32::MAX))
}

/// Run a workload; the machine's marker always says which LSNs were acknowledged. Answers with the newest
/// LSN submitted.
fn run(sim: &Sim, steps: &[Step], sync: SyncMode) -> u64 {
    let open = || {
        let marker = sim.clone();
        let told = move |status: &Status| {
            if status.phase == Phase::Open {
                let (first, last) = acknowledged(marker.marker());
                marker.set_marker(status.first_lsn.max(first) << 32 | status.durable_lsn.max(last));
            }
        };
        Log::open_with(sim, small(sync), told).expect("opens")
    };
    let mut log = open();
    let mut last = 0;
    for step in steps {
        match step {
            Step::Append => {
                last += 1;
                log.append(last, &record(last)).expect("appends");
            }
            Step::Burst => {
                for _ in 0..3 {
                    last += 1;
                    log.submit(last, &[record(last)], true).expect("is taken");
                    log.service.turn();
                }
            }
            Step::Flush => {
                let number = log.handle.flush();
                log.turn_until(|status| status.flushes_done >= number);
            }
            Step::Rotate => {
                log.request(Request::Rotate).expect("rotates");
            }
            Step::Truncate => {
                log.request(Request::TruncateBefore(last)).expect("truncates");
            }
            Step::Reopen => {
                log.close().expect("closes");
                log = open();
            }
        }
    }
    log.close().expect("closes");
    last
}

/// The subsets of what is undecided that are tried.
fn subsets(units: &[u64], draw: u64) -> Vec<Vec<u64>> {
    let chosen = |mask: u64| -> Vec<u64> {
        units
            .iter()
            .enumerate()
            .filter(|(index, _)| mask >> (index % 64) & 1 == 1)
            .map(|(_, &unit)| unit)
            .collect()
    };
    if units.len() <= UNITS_MAX {
        return (0..1 << units.len()).map(chosen).collect();
    }
    let alone = units.iter().map(|&unit| vec![unit]);
    let all_but = units.iter().map(|&lost| units.iter().copied().filter(|&unit| unit != lost).collect());
    // Odd multiples of a large odd number: masks without a pattern that a log could share.
    let drawn = (0..DRAWN)
        .map(|index| chosen((draw * DRAWN + index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)));
    [Vec::new(), units.to_vec()].into_iter().chain(alone).chain(all_but).chain(drawn).collect()
}

/// What was acknowledged is there, and what is there was submitted.
fn check(image: &Image, kept: &[u64], submitted: u64, case: &str) {
    let sim = image.boot_with(kept.iter().copied(), 1);
    let log = Log::open(&sim, small(SyncMode::Auto)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let (first, last) = (log.handle.opened().expect("it is open").first_lsn, log.last_lsn());
    let (first_due, last_due) = acknowledged(image.marker);
    assert!(last_due <= last, "{case}: {last} recovered, {last_due} acknowledged");
    assert!(last <= submitted, "{case}: {last} recovered, {submitted} submitted");
    assert!(
        first >= first_due && first <= last + 1,
        "{case}: {first} is the first, {first_due} acknowledged"
    );
    let expected: Vec<_> = (first..=last).map(record).collect();
    let found = log.read(first).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert!(found == expected, "{case}: other records");
}

fn explore(steps: &[Step], sync: SyncMode) -> u64 {
    explore_on(&Sim::new(1), steps, sync)
}

/// Cut the power of a copy of this machine, whose disk is empty, at every step of the workload. Answers with
/// the number of boots.
fn explore_on(empty: &Sim, steps: &[Step], sync: SyncMode) -> u64 {
    let machine = || empty.power_cut(1);
    let whole = machine();
    let submitted = run(&whole, steps, sync);
    let mut tried = 0;
    for step in 1..=whole.steps() {
        let sim = machine();
        sim.crash_at(step);
        assert_eq!(run(&sim, steps, sync), submitted);
        let image = sim.take_image().expect("the step was reached");
        for kept in subsets(&image.undecided(), step) {
            let case = format!("{steps:?}, {sync:?}, cut before step {step}, kept {kept:?}");
            check(&image, &kept, submitted, &case);
            tried += 1;
        }
    }
    tried
}

fn workloads(operations: usize) -> Vec<Vec<Step>> {
    (0..operations).fold(vec![Vec::new()], |shorter, _| {
        let longer = |steps: Vec<Step>| STEPS.map(|step| [&steps[..], &[step]].concat());
        shorter.into_iter().flat_map(longer).collect()
    })
}

fn explore_all(operations: usize) {
    let mut tried = 0;
    for sync in [SyncMode::Dsync, SyncMode::Fdatasync, SyncMode::Auto] {
        for steps in workloads(operations) {
            tried += explore(&steps, sync);
        }
    }
    println!("{operations} operations: {tried} boots");
}

#[test]
fn a_workload_of_one_operation_survives_a_cut_at_every_step() {
    explore_all(0);
    explore_all(1);
}

#[test]
fn a_workload_of_two_operations_survives_a_cut_at_every_step() {
    explore_all(2);
}

#[test]
#[ignore = "a minute: all workloads of three operations"]
fn a_workload_of_three_operations_survives_a_cut_at_every_step() {
    explore_all(3);
}

#[test]
fn a_disk_that_lies_about_a_flush_is_caught() {
    // What is caught here is planted below the waist; it shows that a harness of this size can catch anything.
    for lie in [Lie::SkipSync, Lie::SkipDirectorySync] {
        let sim = Sim::new(1);
        sim.lie(lie);
        assert!(is_caught(|| explore_on(&sim, &[Step::Append], SyncMode::Fdatasync)), "{lie:?}");
    }
}

#[cfg(feature = "planted")]
#[test]
fn a_flush_that_is_not_awaited_or_proves_too_much_is_caught() {
    use ringbolt_core::planted::{self, Bug};
    for (bug, steps) in [
        (Bug::AcknowledgeBeforeFlush, [Step::Append, Step::Append]),
        (Bug::FlushProvesOtherSegments, [Step::Burst, Step::Reopen]),
    ] {
        let explored = || planted::with(bug, || explore(&steps, SyncMode::Fdatasync));
        assert!(is_caught(explored), "{bug:?}");
    }
}

fn is_caught(explored: impl FnOnce() -> u64) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(explored)).is_err()
}
