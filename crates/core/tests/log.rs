//! What the log promises, on a simulated machine where one thing at a time goes wrong. The runs where
//! everything does are in `crash.rs`.

mod support;

#[path = "log/acknowledge.rs"]
mod acknowledge;
#[path = "log/batch.rs"]
mod batch;
#[path = "log/close.rs"]
mod close;
#[path = "log/failure.rs"]
mod failure;
#[path = "log/limits.rs"]
mod limits;
#[path = "log/open.rs"]
mod open;
#[path = "log/read.rs"]
mod read;
#[path = "log/requests.rs"]
mod requests;
#[path = "log/rotation.rs"]
mod rotation;
#[path = "log/space.rs"]
mod space;
#[path = "log/stats.rs"]
mod stats;

use ringbolt_core::wal::{Options, SyncMode};
use ringbolt_disk::sim::Sim;
use support::{Log, options};

const SYNC_MODES: [SyncMode; 3] = [SyncMode::Auto, SyncMode::Dsync, SyncMode::Fdatasync];

fn with_sync(sync: SyncMode) -> Options {
    Options { sync, ..options() }
}

/// A new machine, and a new log on it.
fn log_of(options: Options) -> (Sim, Log) {
    let sim = Sim::new(1);
    let log = Log::open(&sim, options).expect("opens");
    (sim, log)
}

/// The log of this machine holds exactly these records.
fn must_hold(sim: &Sim, records: &[Vec<u8>]) {
    let log = Log::open(sim, options()).unwrap_or_else(|error| panic!("the log is refused: {error}"));
    let found = log.read(1).expect("reads");
    assert_eq!(found.len(), records.len(), "records are missing, or were invented");
    assert!(found == records, "a record is not the one that was appended");
    log.close().expect("closes");
}
