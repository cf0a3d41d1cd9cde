//! The log on the machine's own disk: the same service, on its own thread, over the ring.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use ringbolt_core::wal::{Handle, Options, Phase, Records, Run, Status};

/// A log, and a place to wait for its news.
struct Log {
    handle: Handle,
    news: Arc<(Mutex<bool>, Condvar)>,
}

impl Log {
    fn open(directory: &Path) -> Self {
        let news = Arc::new((Mutex::new(false), Condvar::new()));
        let told = news.clone();
        let listener = Box::new(move || {
            *told.0.lock().expect("not poisoned") = true;
            told.1.notify_all();
        });
        let options = Options { segment_bytes: 1 << 20, ..Options::new(directory) };
        let log = Self { handle: Handle::open(options, ringbolt_disk::disk(), listener), news };
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

#[test]
fn records_over_several_segments_are_there_after_a_close() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = Log::open(&path);
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
    let log = Log::open(&path);
    let opened = log.handle.opened().expect("open");
    assert!(opened.recovery.clean_shutdown);
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

#[test]
fn a_close_asked_for_while_the_log_opens_is_heard() {
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..20 {
        let options = Options::new(directory.path().join("log"));
        let handle = Handle::open(options, ringbolt_disk::disk(), Box::new(|| {}));
        handle.close();
        handle.join();
        assert_eq!(handle.failure().map(|error| error.to_string()), None);
    }
}
