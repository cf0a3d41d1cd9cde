//! The key-value log on the machine's own disk: the same service, on its own thread, on each backend.

#[macro_use]
mod backends;

use std::path::Path;
use std::time::{Duration, Instant};

use ringbolt_core::format::entry::{Entry, Kind};
use ringbolt_core::wal::{
    Format, Handle, Options, Phase, Records, Request, Run, Sequences, Status, key_value,
};
use ringbolt_disk::Disk;

/// A disk of this machine.
type System = fn() -> Disk;

on_each_backend! { disk:
    entries_over_several_files_are_there_after_a_close_and_are_the_files_bytes
}

fn options(directory: &Path) -> Options {
    let format = Format::Entries { sequences: Sequences::Strict, file_bytes_max: 64 << 10 };
    Options { format, ..Options::new(directory) }
}

fn open(system: System, directory: &Path) -> Handle {
    let handle = Handle::open(options(directory), system(), Box::new(|| {}));
    wait(&handle, |status| status.phase != Phase::Opening);
    assert_eq!(handle.failure().map(|error| error.to_string()), None);
    handle
}

fn wait(handle: &Handle, reached: impl Fn(&Status) -> bool) {
    let began = Instant::now();
    while !reached(&handle.status()) {
        assert!(began.elapsed() < Duration::from_mins(1), "{:?}", handle.status());
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn body(lsn: u64) -> Vec<u8> {
    let key = lsn.to_le_bytes();
    Entry { sequence: 0, kind: Kind::Put, key: &key, value: &vec![lsn as u8; lsn as usize * 7 % 3000] }.body()
}

fn entries_over_several_files_are_there_after_a_close_and_are_the_files_bytes(system: System) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let handle = open(system, &path);
    for lsn in 1..=500_u64 {
        let body = body(lsn);
        let run = Run { epoch: 0, first_lsn: lsn, records: Records::Apart(&[&body]), durable: lsn % 3 > 0 };
        handle.submit(run).expect("is taken");
        if lsn % 7 == 0 {
            handle.want_durable(lsn);
            wait(&handle, |status| status.durable_lsn >= lsn);
        }
    }
    let flush = handle.flush();
    wait(&handle, |status| status.flushes_done >= flush);
    assert!(handle.stats().rotations >= 5, "{:?}", handle.stats());
    handle.ask(Request::TruncateBefore(250));
    wait(&handle, |status| status.answers == 1);
    let first = handle.status().first_lsn;
    assert!(first > 1 && first <= 250, "{first}");
    handle.close();
    handle.join();
    assert_eq!(handle.failure().map(|error| error.to_string()), None);

    let fs = system().fs;
    let report = key_value::verify(&*fs, &path, Sequences::Strict, &|_, _| Ok(())).expect("verifies");
    assert_eq!((report.verdict.name(), report.first_lsn, report.last_lsn), ("clean", first, 500));
    let mut source = key_value::read(fs, &path, Sequences::Strict, None, u64::MAX).expect("begins");
    let mut next = first;
    while let Some(chunk) = source.next(10_000).expect("reads") {
        assert_eq!(chunk.first_lsn, next);
        let mut rest = &chunk.bytes[..];
        for _ in 0..chunk.count {
            let expected = body(next);
            assert_eq!(rest[4..4 + expected.len()], expected);
            rest = &rest[4 + expected.len()..];
            next += 1;
        }
    }
    assert_eq!(next, 501);

    let handle = open(system, &path);
    let opened = handle.opened().expect("open");
    assert_eq!((opened.first_lsn, opened.last_lsn, opened.recovery.clean_shutdown), (first, 500, true));
}
