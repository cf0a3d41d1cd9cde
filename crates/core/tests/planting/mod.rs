//! Bugs on purpose, and the tests that must notice them: what the tests of both logs share.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use ringbolt_core::planted::{Bug, with};
use ringbolt_disk::sim::{Lie, Sim};

/// A promise, worked out on machines made here. Where it wants to be lied to, it calls the function it is
/// given with the machine.
pub(crate) type Scenario = fn(&dyn Fn(&Sim));

/// Where a bug sits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plant {
    Log(Bug),
    Disk(Lie),
}

/// A planted bug, the test that catches it, the scenario that test runs.
pub(crate) type Row = (Plant, &'static str, &'static str);

/// One test a bug, and the table of them all: `test: bug => scenario, "what its failure says"`.
macro_rules! planted {
    ($($test:ident: $plant:expr => $scenario:ident, $says:literal;)*) => {
        $(
            #[test]
            fn $test() {
                crate::planting::caught($plant, $scenario, $says);
            }
        )*

        const TABLE: &[crate::planting::Row] = &[$(($plant, stringify!($test), stringify!($scenario)),)*];
    };
}
pub(crate) use planted;

/// Print the table, which is what gets published, and see that each of `bugs` is in it.
pub(crate) fn publish(table: &[Row], bugs: &[Bug]) {
    println!("planted bug → caught by (scenario)");
    for (plant, test, scenario) in table {
        println!("{plant:?} → {test} ({scenario})");
    }
    for bug in bugs {
        let is_there = |plant: &Plant| matches!(plant, Plant::Log(planted) if planted == bug);
        assert!(table.iter().any(|(plant, ..)| is_there(plant)), "{bug:?} is caught by nothing");
    }
}

/// The scenario holds, and with the bug it fails as it should: for the reason that `says` is part of.
pub(crate) fn caught(plant: Plant, scenario: Scenario, says: &str) {
    scenario(&|_| {});
    let run = || match plant {
        Plant::Log(bug) => with(bug, || scenario(&|_| {})),
        Plant::Disk(lie) => scenario(&move |sim| sim.lie(lie)),
    };
    let failure = silently(|| catch_unwind(AssertUnwindSafe(run)));
    let failure = failure.expect_err("the bug is planted, and nothing noticed");
    let text = failure.downcast_ref::<String>().map(String::as_str);
    let text = text.or(failure.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
    assert!(text.contains(says), "{plant:?} shows as {text:?}, expected {says:?}");
}

std::thread_local! {
    static IS_SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Run `body` with its panics, which are expected, kept out of the test's output.
fn silently<R>(body: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_SILENT.get() {
                loud(info);
            }
        }));
    });
    IS_SILENT.set(true);
    let result = body();
    IS_SILENT.set(false);
    result
}
