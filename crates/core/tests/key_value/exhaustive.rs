//! Small workloads, all of them: up to two operations on a key-value log (three where asked), a power cut before each
//! of its steps, and of what was undecided then each subset kept; where that is more than can be tried, a draw from
//! the subsets. Like `tests/exhaustive.rs`, with rotations and truncations among the operations.

use ringbolt_core::wal::{Options, Phase, Request, Status, SyncMode};
use ringbolt_disk::sim::{Image, Lie, Sim};

use crate::support::Log;
use crate::{put, with_files_of};

/// Two records to a file: the third append rotates.
const FILE_BYTES: u64 = 2500;

/// Undecided units up to so many are kept and lost in every combination.
const UNITS_MAX: usize = 7;

/// Of more, so many subsets are drawn beside none, all, each alone and all but each.
const DRAWN: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// One record, awaited.
    Append,
    /// Three records, none awaited: over a rotation too.
    Burst,
    Flush,
    Rotate,
    /// Before the newest record.
    Truncate,
    /// Close and open.
    Reopen,
}

const STEPS: [Step; 6] = [Step::Append, Step::Burst, Step::Flush, Step::Rotate, Step::Truncate, Step::Reopen];

fn body(lsn: u64) -> Vec<u8> {
    put([lsn as u8], vec![lsn as u8; 1000 + lsn as usize])
}

fn small(sync: SyncMode) -> Options {
    Options { sync, ..with_files_of(FILE_BYTES) }
}

/// What a workload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ran {
    /// The newest LSN submitted.
    last: u64,
    /// The highest LSN that was truncated to.
    truncated: u64,
}

/// Run a workload; the machine's marker always says which LSN was acknowledged.
fn run(sim: &Sim, steps: &[Step], sync: SyncMode) -> Ran {
    let open = || {
        let marker = sim.clone();
        let told = move |status: &Status| {
            if status.phase == Phase::Open {
                marker.set_marker(status.durable_lsn.max(marker.marker()));
            }
        };
        Log::open_with(sim, small(sync), told).expect("opens")
    };
    let mut log = open();
    let mut ran = Ran { last: 0, truncated: 1 };
    for step in steps {
        match step {
            Step::Append => {
                ran.last += 1;
                log.append(ran.last, &body(ran.last)).expect("appends");
            }
            Step::Burst => {
                for _ in 0..3 {
                    ran.last += 1;
                    log.submit(ran.last, &[body(ran.last)], true).expect("is taken");
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
                ran.truncated = ran.last.max(1);
                log.request(Request::TruncateBefore(ran.truncated)).expect("truncates");
            }
            Step::Reopen => {
                log.close().expect("closes");
                log = open();
            }
        }
    }
    log.close().expect("closes");
    ran
}

/// The subsets of what is undecided that are tried.
fn subsets(units: &[u64], draw: u64) -> Vec<Vec<u64>> {
    let chosen = |mask: u64| -> Vec<u64> {
        let kept = units.iter().enumerate().filter(|(index, _)| mask >> (index % 64) & 1 == 1);
        kept.map(|(_, &unit)| unit).collect()
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
fn check(image: &Image, kept: &[u64], ran: Ran, case: &str) {
    let sim = image.boot_with(kept.iter().copied(), 1);
    let log = Log::open(&sim, small(SyncMode::Auto)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let (first, last) = (log.handle.opened().expect("it is open").first_lsn, log.last_lsn());
    assert!(image.marker <= last, "{case}: {last} recovered, {} acknowledged", image.marker);
    assert!(last <= ran.last, "{case}: {last} recovered, {} submitted", ran.last);
    assert!(first <= ran.truncated, "{case}: begins with {first}");
    let expected: Vec<_> = (first..=last).map(body).collect();
    let found = log.read(first).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert!(found == expected, "{case}: other records");
}

fn explore(steps: &[Step], sync: SyncMode) -> u64 {
    explore_on(&Sim::new(1), steps, sync)
}

/// Cut the power of a copy of this machine, whose disk is empty, at every step of the workload. Answers with the
/// number of boots.
fn explore_on(empty: &Sim, steps: &[Step], sync: SyncMode) -> u64 {
    let machine = || empty.power_cut(1);
    let whole = machine();
    let ran = run(&whole, steps, sync);
    let mut tried = 0;
    for step in 1..=whole.steps() {
        let sim = machine();
        sim.crash_at(step);
        assert_eq!(run(&sim, steps, sync), ran);
        let image = sim.take_image().expect("the step was reached");
        for kept in subsets(&image.undecided(), step) {
            let case = format!("{steps:?}, {sync:?}, cut before step {step}, kept {kept:?}");
            check(&image, &kept, ran, &case);
            tried += 1;
        }
    }
    tried
}

fn explore_all(operations: usize) {
    let workloads = (0..operations).fold(vec![Vec::new()], |shorter: Vec<Vec<Step>>, _| {
        let longer = |steps: Vec<Step>| STEPS.map(|step| [&steps[..], &[step]].concat());
        shorter.into_iter().flat_map(longer).collect()
    });
    let mut tried = 0;
    for sync in [SyncMode::Dsync, SyncMode::Fdatasync] {
        for steps in &workloads {
            tried += explore(steps, sync);
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
#[ignore = "minutes: all workloads of three operations"]
fn a_workload_of_three_operations_survives_a_cut_at_every_step() {
    explore_all(3);
}

#[test]
fn a_disk_that_lies_about_a_flush_is_caught() {
    // What is caught here is planted below the waist; it shows that a harness of this size can catch anything.
    for (lie, steps) in
        [(Lie::SkipSync, [Step::Append, Step::Flush]), (Lie::SkipDirectorySync, [Step::Append; 2])]
    {
        let sim = Sim::new(1);
        sim.lie(lie);
        let explored = || explore_on(&sim, &steps, SyncMode::Fdatasync);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(explored)).is_err();
        assert!(caught, "{lie:?}");
    }
}
