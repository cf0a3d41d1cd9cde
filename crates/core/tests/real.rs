//! The log on the machine's own disk: the same service, on its own thread, on each backend.

#[macro_use]
mod backends;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use ringbolt_core::wal::{self, Handle, Options, Phase, Records, Run, Source, Status, Verdict};
use ringbolt_disk::Disk;

/// A disk of this machine.
type System = fn() -> Disk;

on_each_backend! { disk:
    records_over_several_segments_are_there_after_a_close
    a_close_asked_for_while_the_log_opens_is_heard
    a_log_is_read_and_checked_beside_its_writer
}

/// A log, and a place to wait for its news.
struct Log {
    handle: Handle,
    news: Arc<(Mutex<bool>, Condvar)>,
}

impl Log {
    fn open(system: System, directory: &Path) -> Self {
        Self::open_with(system, Options { segment_bytes: 1 << 20, ..Options::new(directory) })
    }

    fn open_with(system: System, options: Options) -> Self {
        let news = Arc::new((Mutex::new(false), Condvar::new()));
        let told = news.clone();
        let listener = Box::new(move || {
            *told.0.lock().expect("not poisoned") = true;
            told.1.notify_all();
        });
        let log = Self { handle: Handle::open(options, system(), listener), news };
        log.wait(|status| status.phase != Phase::Opening);
        assert_eq!(log.handle.failure().map(|error| error.to_string()), None);
        log
    }

    fn wait(&self, reached: impl Fn(&Status) -> bool) {
        loop {
            if reached(&self.handle.status()) {
                return;
            }
            let mut fresh = self.news.0.lock().expect("not poisoned");
            while !*fresh {
                fresh = self.news.1.wait(fresh).expect("not poisoned");
            }
            *fresh = false;
        }
    }

    fn submit(&self, first_lsn: u64, records: &[&[u8]]) {
        let run = Run { epoch: 0, first_lsn, records: Records::Apart(records), durable: true };
        self.handle.submit(run).expect("accepted");
    }
}

fn records_over_several_segments_are_there_after_a_close(system: System) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = Log::open(system, &path);
    for lsn in 1..=2000_u64 {
        log.submit(lsn, &[&vec![lsn as u8; 1 + lsn as usize * 7 % 5000]]);
        if lsn % 7 == 0 {
            log.wait(|status| status.durable_lsn >= lsn);
        }
    }
    log.wait(|status| status.durable_lsn == 2000);
    assert!(log.handle.stats().rotations >= 4, "{:?}", log.handle.stats());
    log.handle.close();
    log.handle.join();
    assert_eq!(log.handle.failure().map(|error| error.to_string()), None);
    let log = Log::open(system, &path);
    let opened = log.handle.opened().expect("open");
    assert!(opened.recovery.clean_shutdown);
    assert_eq!(opened.backend, system().backend);
    assert_eq!((opened.recovery.records, opened.last_lsn), (2000, 2000));
    let mut reader = log.handle.read(1, u64::MAX).expect("reads");
    let mut lsn = 0_u64;
    while let Some(chunk) = reader.next(100_000).expect("reads") {
        let mut rest = &chunk.bytes[..];
        for _ in 0..chunk.count {
            lsn += 1;
            let len = 1 + lsn as usize * 7 % 5000;
            assert!(rest[4..4 + len].iter().all(|&byte| byte == lsn as u8));
            rest = &rest[4 + len..];
        }
    }
    assert_eq!(lsn, 2000);
}

fn a_close_asked_for_while_the_log_opens_is_heard(system: System) {
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..20 {
        let options = Options::new(directory.path().join("log"));
        let handle = Handle::open(options, system(), Box::new(|| {}));
        handle.close();
        handle.join();
        assert_eq!(handle.failure().map(|error| error.to_string()), None);
    }
}

/// Counts the records of a source, which must begin with `next` and follow each other; answers with what is next.
fn follow(source: &mut dyn Source, mut next: u64) -> u64 {
    while let Some(chunk) = source.next(200_000).expect("a sound log") {
        assert_eq!(chunk.first_lsn, next, "a gap");
        let mut rest = &chunk.bytes[..];
        for _ in 0..chunk.count {
            let len = 1 + next as usize * 7 % 5000;
            assert!(rest[4..4 + len].iter().all(|&byte| byte == next as u8), "LSN {next}");
            rest = &rest[4 + len..];
            next += 1;
        }
    }
    next
}

fn a_log_is_read_and_checked_beside_its_writer(system: System) {
    // Goal: direct I/O on both sides, or the page cache on the writer's, shows a reader whole frames and never a hole.
    // Method: a writer on its own thread, over several segments; a reader that follows, and one check after another.
    for direct_io in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let log =
            Log::open_with(system, Options { segment_bytes: 1 << 20, direct_io, ..Options::new(&path) });
        let fs = system().fs;
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for lsn in 1..=3000_u64 {
                    log.submit(lsn, &[&vec![lsn as u8; 1 + lsn as usize * 7 % 5000]]);
                    if lsn % 5 == 0 {
                        log.wait(|status| status.durable_lsn >= lsn);
                    }
                }
            });
            let mut source = wal::read(fs.clone(), &path, None, None).expect("there is a log");
            let mut next = 1;
            while next <= 3000 {
                let durable = log.handle.status().durable_lsn;
                next = follow(&mut *source, next);
                assert!(next > durable, "LSN {durable} is durable, and {next} is next");
                let report = wal::verify(fs.clone(), &path, &|_, _| Ok(())).expect("it can be read");
                assert!(report.damage.is_empty() && report.last_lsn >= durable, "{report:?}");
            }
        });
        log.handle.close();
        log.handle.join();
        let report = wal::verify(fs.clone(), &path, &|_, _| Ok(())).expect("it can be read");
        assert_eq!((report.verdict, report.records, report.last_lsn), (Verdict::Clean, 3000, 3000));
    }
}

/// Rights are Unix's.
#[cfg(unix)]
mod rights {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    on_each_backend! { disk:
        a_log_is_read_without_the_right_to_write
    }

    fn a_log_is_read_without_the_right_to_write(system: System) {
        // Goal: reading, checking and saving need no more than to read. Method: everything is read-only, and stays as it is.
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let log = Log::open(system, &path);
        for lsn in 1..=500_u64 {
            log.submit(lsn, &[&vec![lsn as u8; 1 + lsn as usize * 7 % 5000]]);
        }
        log.handle.close();
        log.handle.join();
        let set = |mode: u32| {
            for entry in std::fs::read_dir(&path).expect("lists") {
                let file = entry.expect("lists").path();
                std::fs::set_permissions(file, Permissions::from_mode(mode)).expect("it is ours");
            }
            std::fs::set_permissions(&path, Permissions::from_mode(mode | (mode & 0o444) >> 2))
                .expect("it is ours");
        };
        set(0o400);
        let modified = || {
            let entries = std::fs::read_dir(&path).expect("lists").map(|entry| entry.expect("lists"));
            let mut entries: Vec<_> = entries
                .map(|entry| {
                    (entry.file_name(), entry.metadata().expect("is there").modified().expect("a time"))
                })
                .collect();
            entries.sort();
            entries
        };
        let before = modified();
        let fs = system().fs;
        let mut source = wal::read(fs.clone(), &path, None, None).expect("there is a log");
        assert_eq!(follow(&mut *source, 1), 501);
        let mut salvager = wal::salvage(fs.clone(), &path).expect("there is a log");
        assert_eq!(follow(&mut salvager, 1), 501);
        let report = wal::verify(fs, &path, &|_, _| Ok(())).expect("it can be read");
        assert_eq!((report.verdict, report.records), (Verdict::Clean, 500));
        assert_eq!(modified(), before);
        set(0o600);
    }
}
