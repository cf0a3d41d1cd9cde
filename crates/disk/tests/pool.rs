//! What the pool of threads promises beyond what every engine does: its bounds, who waits for whom, and what becomes of
//! it where threads are refused.

#![expect(clippy::unwrap_used, reason = "these are tests, and unwrapping is how a case says it went wrong")]

#[cfg(target_os = "linux")]
mod machine;
#[path = "machine/process.rs"]
mod process;
#[cfg(target_os = "linux")]
#[path = "machine/seccomp.rs"]
mod seccomp;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use process::watched;
use ringbolt_disk::{
    Buffer, Done, Engine, EngineOptions, File, Job, OnDone, Op, OpenOptions, Outcome, Token, pool,
};

/// A pool whose listener holds up what it is told of, and with it the thread that tells.
struct Held {
    /// Each message lets one of those go that are held; without the sender nothing is.
    gate: Sender<()>,
    engine: Box<dyn Engine>,
    /// What has come to its end and is held, or was.
    ended: Receiver<Token>,
    hears: Receiver<Done>,
    file: File,
    /// Removed at the end.
    _dir: tempfile::TempDir,
}

impl Held {
    /// One that holds what `holds` says.
    fn new(depth: usize, helpers: usize, holds: fn(Token) -> bool) -> Self {
        let ((gate, passes), (end, ended), (told, hears)) = (channel(), channel(), channel());
        let passes = Mutex::new(passes);
        let on_done: OnDone = Box::new(move |dones, _| {
            for done in dones.drain(..) {
                let _ = end.send(done.token);
                if holds(done.token) {
                    // Whoever has the lock waits for the others too.
                    let _: Result<(), _> = passes.lock().unwrap().recv();
                }
                let _ = told.send(done);
            }
        });
        let disk = pool::shared_disk();
        let dir = tempfile::tempdir().unwrap();
        let file = disk.fs.open(&dir.path().join("file"), OpenOptions::replace(0o600)).unwrap();
        let engine = (disk.engine)(EngineOptions { depth, helpers }, on_done).unwrap();
        Self { gate, engine, ended, hears, file, _dir: dir }
    }

    fn submit(&self, ops: impl IntoIterator<Item = (u64, Op)>) {
        self.engine.submit(&mut ops.into_iter().map(|(token, op)| (Token(token), op)).collect());
    }

    fn read(&self) -> Op {
        Op::Read { file: self.file.clone(), at: 0, buffer: Buffer::zeroed(1) }
    }

    fn end(&self) -> u64 {
        self.ended.recv_timeout(Duration::from_mins(1)).expect("an end within a minute").0
    }

    /// Nothing more ends, as far as a moment shows it.
    fn nothing_ends(&self) {
        assert_eq!(self.ended.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    }
}

fn job(work: impl FnOnce() + Send + 'static) -> Op {
    let job: Job = Box::new(move |_| {
        work();
        Ok(None)
    });
    Op::Job(job)
}

/// A job that has begun when it says so, and ends when it is told to or nobody is left to tell it.
fn endless_job() -> (Op, Receiver<()>, Sender<()>) {
    let ((begin, begun), (end, told)) = (channel(), channel::<()>());
    let work = move || {
        let _ = begin.send(());
        let _ = told.recv();
    };
    (job(work), begun, end)
}

#[test]
fn no_more_than_depth_are_under_way_and_the_rest_waits_in_line() {
    watched("no_more_than_depth_are_under_way_and_the_rest_waits_in_line", || {
        let held = Held::new(2, 1, |_| true);
        held.submit((0..6).map(|token| (token, held.read())));
        let mut first = [held.end(), held.end()];
        first.sort_unstable();
        assert_eq!(first, [0, 1]);
        held.nothing_ends();
        for next in 2..6 {
            held.gate.send(()).unwrap();
            assert_eq!(held.end(), next);
        }
    });
}

#[test]
fn neither_transfers_nor_jobs_keep_out_the_other() {
    watched("neither_transfers_nor_jobs_keep_out_the_other", || {
        // As many transfers as may be, and more; each keeps its thread.
        let held = Held::new(2, 1, |token| token.0 < 100);
        held.submit((0..10).map(|token| (token, held.read())));
        held.submit((100..110).map(|token| (token, job(|| {}))));
        let mut jobs: Vec<_> = (0..12).map(|_| held.end()).filter(|&token| token >= 100).collect();
        assert!(jobs.iter().copied().eq(100..110), "all of them, and in order: {jobs:?}");
        drop(held);
        // And as many jobs.
        let held = Held::new(1, 2, |_| false);
        let ends: Vec<_> = (100..103)
            .map(|token| {
                let (job, begun, end) = endless_job();
                held.submit([(token, job)]);
                if token < 102 {
                    begun.recv().unwrap();
                }
                end
            })
            .collect();
        held.submit((0..20).map(|token| (token, held.read())));
        assert!((0..20).all(|token| held.end() == token));
        held.nothing_ends();
        drop(ends);
        jobs = (0..3).map(|_| held.end()).collect();
        jobs.sort_unstable();
        assert_eq!(jobs, [100, 101, 102]);
    });
}

#[test]
fn the_drop_waits_for_what_is_under_way_and_for_what_is_queued() {
    watched("the_drop_waits_for_what_is_under_way_and_for_what_is_queued", || {
        let held = Held::new(1, 1, |token| token == Token(0));
        held.submit((0..5).map(|token| (token, held.read())));
        assert_eq!(held.end(), 0);
        let Held { gate, engine, hears, .. } = held;
        let dropping = std::thread::spawn(move || drop(engine));
        // It would be quick, were it not to wait.
        assert!(hears.recv_timeout(Duration::from_millis(50)).is_err());
        assert!(!dropping.is_finished());
        drop(gate);
        dropping.join().unwrap();
        assert!(hears.iter().map(|done| done.token.0).eq(0..5), "the listener is gone with the pool");
    });
}

#[test]
#[cfg(feature = "sim")]
fn a_transfer_that_panics_fails_and_those_behind_it_go_on() {
    // Goal: its owner hears of it, and the thread lives. Method: a file that is another disk's.
    watched("a_transfer_that_panics_fails_and_those_behind_it_go_on", || {
        let held = Held::new(1, 1, |_| false);
        let other = ringbolt_disk::sim::Sim::new(1).disk().fs;
        let file = other.open("/file".as_ref(), OpenOptions::replace(0o600)).unwrap();
        held.submit([(0, Op::Sync { file }), (1, held.read())]);
        let hear = || held.hears.recv_timeout(Duration::from_mins(1)).unwrap();
        let error = hear().outcome.unwrap_err();
        assert_eq!((error.syscall, error.errno), ("transfer", ringbolt_disk::Errno::IO.raw_os_error()));
        assert!(error.to_string().contains("simulated"), "{error}");
        assert!(matches!(hear().outcome, Ok(Outcome::Read(0))));
    });
}

/// What only Linux lets us do to ourselves.
#[cfg(target_os = "linux")]
mod on_linux {
    use ringbolt_disk::SharedDisk;
    use rustix::io::Errno;

    use super::machine::lacks;
    use super::process::in_a_child;
    use super::seccomp::refuse;
    use super::*;

    /// Run `case` on a thread that can start none. A filter is for its thread, and for life. `None` where this machine
    /// has no such filters.
    fn without_threads<T: Send + 'static>(case: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let work = move || {
            let refused = [libc::SYS_clone3, libc::SYS_clone].map(|call| refuse(call, Errno::AGAIN));
            if refused != [true; 2] {
                lacks("seccomp", "system calls cannot be filtered here");
                return None;
            }
            Some(case())
        };
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn a_pool_that_cannot_start_a_thread_is_an_error_with_advice() {
        without_threads(|| {
            let SharedDisk { engine, .. } = pool::shared_disk();
            let engine = engine(EngineOptions { depth: 8, helpers: 1 }, Box::new(|_, _| {})).err();
            let driver = (pool::disk().driver)().err();
            for error in [engine.unwrap(), driver.unwrap()] {
                assert_eq!((error.syscall, error.errno), ("pthread_create", Errno::AGAIN.raw_os_error()));
                assert!(error.to_string().contains("ulimit -u"), "{error}");
            }
        });
    }

    #[test]
    fn one_thread_does_everything_by_turns_where_no_other_is_to_be_had() {
        watched("one_thread_does_everything_by_turns_where_no_other_is_to_be_had", || {
            let held = Held::new(8, 8, |_| false);
            let (first, begun, end) = endless_job();
            let held = without_threads(move || {
                held.submit([(0, first)]);
                begun.recv().unwrap();
                held.submit((100..104).map(|token| (token, job(|| {}))));
                held.submit((1..7).map(|token| (token, held.read())));
                held.nothing_ends();
                end.send(()).unwrap();
                let order: Vec<_> = (0..11).map(|_| held.end()).collect();
                assert_eq!(order, [0, 1, 100, 2, 101, 3, 102, 4, 103, 5, 6]);
                held
            });
            let Some(held) = held else { return };
            // From a thread that may, it is tried again.
            let (job, begun, _end) = endless_job();
            held.submit([(200, job)]);
            begun.recv().unwrap();
            held.submit([(201, held.read())]);
            assert_eq!(held.end(), 201);
        });
    }

    #[test]
    fn there_are_no_more_threads_than_can_be_busy() {
        in_a_child("on_linux::there_are_no_more_threads_than_can_be_busy", || {
            // All that there are, as a thread has its name only once it runs.
            let tasks = || std::fs::read_dir("/proc/self/task").unwrap().count();
            let others = tasks();
            let count = || tasks() - others;
            let held = Held::new(3, 2, |_| false);
            assert_eq!(count(), 1, "the others are started when there is work for them");
            for round in 0..200 {
                held.submit((0..10).map(|token| (token, held.read())));
                held.submit((10..20).map(|token| (token, job(|| {}))));
                for _ in 0..20 {
                    held.end();
                }
                assert!((1..=5).contains(&count()), "{} threads in round {round}", count());
            }
        });
    }
}
