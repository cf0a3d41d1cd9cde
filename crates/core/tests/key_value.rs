//! The key-value log, on a simulated machine: what it promises, what it makes of amaters' files and of damage, and
//! what is left of it after crashes.

#[cfg(feature = "planted")]
mod planting;
mod support;

#[path = "key_value/amaters.rs"]
mod amaters;
#[path = "key_value/behaviour.rs"]
mod behaviour;
#[path = "key_value/crash.rs"]
mod crash;
#[path = "key_value/damage.rs"]
mod damage;
#[path = "key_value/exhaustive.rs"]
mod exhaustive;
#[cfg(feature = "planted")]
#[path = "key_value/planted.rs"]
mod planted;
#[path = "key_value/promises.rs"]
mod promises;
#[path = "key_value/synced.rs"]
mod synced;

use ringbolt_core::format::entry::{Entry, Kind};
use ringbolt_core::wal::{Format, Options, Sequences, Source};
use ringbolt_core::{Error, format};
use ringbolt_disk::sim::Sim;
use support::{Log, path};

/// Small files: many rotations in few records.
const FILE_BYTES: u64 = 4 << 10;

/// A key-value log's options.
fn options() -> Options {
    with_files_of(FILE_BYTES)
}

fn with_files_of(file_bytes_max: u64) -> Options {
    let format = Format::Entries { sequences: Sequences::Strict, file_bytes_max };
    Options { format, ..support::options() }
}

fn any_sequences() -> Options {
    let format = Format::Entries { sequences: Sequences::Any, file_bytes_max: FILE_BYTES };
    Options { format, ..support::options() }
}

/// An entry's body, as records cross into the log.
fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    Entry { sequence: 0, kind: Kind::Put, key: key.as_ref(), value: value.as_ref() }.body()
}

fn delete(key: impl AsRef<[u8]>) -> Vec<u8> {
    Entry { sequence: 0, kind: Kind::Delete, key: key.as_ref(), value: b"" }.body()
}

/// The bytes of a record in a file.
fn record(sequence: u64, body: &[u8]) -> Vec<u8> {
    let (kind, key, value) = format::entry::parse_body(body).expect("a body");
    Entry { sequence, kind, key, value }.encode()
}

/// The path of a file of the log.
fn file(number: u64) -> std::path::PathBuf {
    path(&format::log_file_name(number))
}

/// A new machine, and a new log on it.
fn log_of(options: Options) -> (Sim, Log) {
    let sim = Sim::new(1);
    let log = Log::open(&sim, options).expect("opens");
    (sim, log)
}

/// All that is left in a source, each record with its sequence.
fn numbered(mut source: impl Source) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let mut records = Vec::new();
    while let Some(chunk) = source.next(1000)? {
        let mut rest = &chunk.bytes[..];
        for index in 0..u64::from(chunk.count) {
            let (length, behind) = rest.split_first_chunk::<4>().expect("a prefix");
            let (body, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            records.push((chunk.first_lsn + index - 1, body.to_vec()));
            rest = behind;
        }
        assert!(rest.is_empty());
    }
    Ok(records)
}

/// Bodies, numbered from a sequence on.
fn from_sequence(first: u64, bodies: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
    (first..).zip(bodies.iter().cloned()).collect()
}

/// The log of this machine holds exactly these records, from sequence 0 on.
fn must_hold(sim: &Sim, bodies: &[Vec<u8>]) {
    let log = Log::open(sim, options()).unwrap_or_else(|error| panic!("the log is refused: {error}"));
    let found = log.read(1).expect("reads");
    assert_eq!(found.len(), bodies.len(), "records are missing, or were invented");
    assert!(found == bodies, "a record is not the one that was appended");
    log.close().expect("closes");
}
