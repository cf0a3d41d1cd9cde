//! What an engine promises beyond the contract of a driver: callers on many threads, which may end; a listener that
//! submits, panics or drops the engine; queues far longer than its depth; an end that waits for all of it.
//!
//! A case is a plain function of an engine's disk. The macro at its end runs each on each engine, under the case's
//! name.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "these are tests, and unwrapping is how a case says it went wrong")]

#[cfg(feature = "ring")]
mod machine;
#[path = "machine/process.rs"]
mod process;
#[cfg(feature = "ring")]
#[path = "machine/seccomp.rs"]
mod seccomp;

use std::collections::BTreeSet;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

#[cfg(feature = "ring")]
use machine::lacks;
use process::{in_a_child, watched};
use ringbolt_disk::{
    Buffer, Done, Engine, EngineOptions, File, Fs, GRAIN, Job, OnDone, Op, OpenOptions, Outcome, SharedDisk,
    Token, WriteMode, pool,
};
#[cfg(feature = "ring")]
use ringbolt_disk::{disk, shared_disk};
use rustix::io::Errno;
#[cfg(feature = "ring")]
use seccomp::refuse;

/// A disk of the system.
type System = fn() -> SharedDisk;

#[cfg(feature = "ring")]
const SYSTEMS: [System; 2] = [shared_disk, pool::shared_disk];
#[cfg(not(feature = "ring"))]
const SYSTEMS: [System; 1] = [pool::shared_disk];

/// An engine, what its listener hears, and the disk's cold side.
struct Bench {
    engine: Box<dyn Engine>,
    hears: Receiver<Done>,
    fs: Arc<dyn Fs>,
}

impl Bench {
    /// With a listener that only tells.
    fn new(system: System, depth: usize, helpers: usize) -> Self {
        Self::with(system, depth, helpers, |_, _| {})
    }

    /// With one that looks at each completion first, and may add to what is submitted.
    fn with(
        system: System,
        depth: usize,
        helpers: usize,
        listen: impl Fn(&Done, &mut Vec<(Token, Op)>) + Send + Sync + 'static,
    ) -> Self {
        let (told, hears) = channel();
        let on_done: OnDone = Box::new(move |dones, next| {
            for done in dones.drain(..) {
                listen(&done, next);
                // Nobody listens any more where a test has ended.
                let _ = told.send(done);
            }
        });
        let disk = system();
        let engine = (disk.engine)(EngineOptions { depth, helpers }, on_done).unwrap();
        Self { engine, hears, fs: disk.fs }
    }

    fn submit(&self, ops: impl IntoIterator<Item = (Token, Op)>) {
        let mut ops = ops.into_iter().collect();
        self.engine.submit(&mut ops);
        assert!(ops.is_empty());
    }

    fn hear(&self) -> Done {
        self.hears.recv_timeout(Duration::from_mins(1)).expect("a completion within a minute")
    }

    /// Drop the engine, and hear what was not heard yet: each once.
    fn end(self) -> Vec<Done> {
        let Self { engine, hears, .. } = self;
        drop(engine);
        let dones: Vec<_> = hears.iter().collect();
        let tokens: BTreeSet<_> = dones.iter().map(|done| done.token).collect();
        assert_eq!(tokens.len(), dones.len(), "something ended twice");
        dones
    }
}

fn new_file(fs: &dyn Fs, dir: &Path, name: &str, direct: bool) -> File {
    fs.open(&dir.join(name), OpenOptions::replace(0o600).with_direct(direct)).unwrap()
}

fn grain_of(number: usize) -> [u8; GRAIN] {
    [(number % 251) as u8; GRAIN]
}

fn write(file: &File, number: usize, mode: WriteMode) -> Op {
    let buffer = Buffer::copy_of(&grain_of(number));
    Op::Write { file: file.clone(), at: (number * GRAIN) as u64, buffer, mode }
}

fn read(file: &File, number: usize) -> Op {
    Op::Read { file: file.clone(), at: (number * GRAIN) as u64, buffer: Buffer::zeroed(GRAIN) }
}

fn token(number: usize) -> Token {
    Token(number as u64)
}

/// Each of the first `count` grains is what [`write`] wrote.
fn check(fs: &dyn Fs, file: &File, count: usize) {
    let mut bytes = vec![0; count * GRAIN];
    assert_eq!(fs.read_at(file, 0, &mut bytes), Ok(bytes.len()));
    for (number, bytes) in bytes.chunks(GRAIN).enumerate() {
        assert!(*bytes == grain_of(number), "grain {number}");
    }
}

fn thousands_in_the_queue_of_a_shallow_engine_end_once_each(system: System) {
    const COUNT: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    for depth in [1, 2] {
        for direct in [false, true] {
            let bench = Bench::new(system, depth, 1);
            let file = new_file(&*bench.fs, dir.path(), "file", direct);
            bench.submit((0..COUNT).map(|number| (token(number), write(&file, number, WriteMode::Plain))));
            for number in 0..COUNT {
                let done = bench.hear();
                assert!(matches!(done.outcome, Ok(Outcome::Written)), "{done:?}");
                // One at a time leaves no choice of order.
                assert!(depth > 1 || done.token == token(number));
            }
            check(&*bench.fs, &file, COUNT);
            // And all at the end, while it is being dropped.
            bench.submit((0..COUNT).map(|number| (token(number), read(&file, number))));
            let dones = bench.end();
            assert_eq!(dones.len(), COUNT);
            for done in dones {
                assert!(matches!(done.outcome, Ok(Outcome::Read(GRAIN))), "{done:?}");
                assert!(*done.buffer.unwrap() == grain_of(done.token.0 as usize));
            }
        }
    }
}

fn many_threads_submit_at_once(system: System) {
    const THREADS: usize = 8;
    const EACH: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    for depth in [1, 3, 64] {
        let bench = Bench::new(system, depth, 2);
        let file = new_file(&*bench.fs, dir.path(), "file", false);
        let begin = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (bench, file, begin) = (&*bench.engine, &file, &begin);
                scope.spawn(move || {
                    begin.wait();
                    for number in (0..EACH).map(|number| thread * EACH + number) {
                        let op = match number % 10 {
                            0 => Op::Sync { file: file.clone() },
                            1 => Op::Job(Box::new(|_| Ok(None))),
                            2 | 3 => write(file, number, WriteMode::Dsync),
                            4 => Op::Read { file: file.clone(), at: u64::MAX, buffer: Buffer::zeroed(1) },
                            5 => Op::Read { file: file.clone(), at: 0, buffer: Buffer::zeroed(0) },
                            6 => read(file, number),
                            _ => write(file, number, WriteMode::Plain),
                        };
                        bench.submit(&mut vec![(token(number), op)]);
                    }
                });
            }
        });
        let dones = bench.end();
        assert_eq!(dones.len(), THREADS * EACH);
        for done in dones {
            let is_right = match (done.token.0 % 10, &done.outcome) {
                (0, Ok(Outcome::Synced))
                | (1, Ok(Outcome::Job(None)))
                | (2 | 3 | 7.., Ok(Outcome::Written))
                | (5, Ok(Outcome::Read(0)))
                | (6, Ok(Outcome::Read(_))) => true,
                (4, Err(error)) => error.errno == Errno::INVAL.raw_os_error(),
                _ => false,
            };
            assert!(is_right, "{done:?}");
        }
    }
}

fn what_a_thread_left_behind_completes_though_the_thread_has_ended(system: System) {
    // Goal: the kernel's workers end with the thread that submitted and cancel what they have not begun; none of it
    // fails, and none is lost. Method: what workers do (cached writes one after another, flushes), more of
    // it than they get done before the thread that submits it ends.
    const THREADS: usize = 60;
    const EACH: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(system, 4096, 1);
    let files: Vec<_> =
        (0..THREADS).map(|number| new_file(&*bench.fs, dir.path(), &number.to_string(), false)).collect();
    for (index, file) in files.iter().enumerate() {
        let first = index * (EACH + 1);
        let mut ops: Vec<_> =
            (0..EACH).map(|number| (token(first + number), write(file, number, WriteMode::Dsync))).collect();
        ops.push((token(first + EACH), Op::Sync { file: file.clone() }));
        std::thread::scope(|scope| {
            scope.spawn(|| bench.engine.submit(&mut ops));
        });
    }
    for _ in 0..THREADS * (EACH + 1) {
        let done = bench.hear();
        assert!(done.outcome.is_ok(), "{done:?}");
    }
    for file in &files {
        check(&*bench.fs, file, EACH);
    }
    assert!(bench.end().is_empty());
}

fn what_a_thread_wanted_to_read_comes_though_the_thread_has_ended(system: System) {
    // Goal: as above, for reads of what the page cache does not have, which the kernel takes up again on the thread
    // that submitted once the page is there.
    const COUNT: usize = 256;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(system, 4096, 1);
    for direct in [false, true] {
        let file = new_file(&*bench.fs, dir.path(), "file", direct);
        for number in 0..COUNT {
            let bytes = Buffer::copy_of(&grain_of(number));
            bench.fs.write_at(&file, (number * GRAIN) as u64, &bytes).unwrap();
        }
        bench.fs.sync(&file).unwrap();
        let same = std::fs::File::open(dir.path().join("file")).unwrap();
        for round in 0..10 {
            rustix::fs::fadvise(&same, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            // One each, far apart, so that no reading ahead spoils it.
            for number in 0..COUNT {
                let number = (number * 37 + round) % COUNT;
                let mut ops = vec![(token(number), read(&file, number))];
                std::thread::scope(|scope| {
                    scope.spawn(|| bench.engine.submit(&mut ops));
                });
            }
            for _ in 0..COUNT {
                let done = bench.hear();
                assert!(matches!(done.outcome, Ok(Outcome::Read(GRAIN))), "{done:?}");
                assert!(*done.buffer.unwrap() == grain_of(done.token.0 as usize));
            }
        }
    }
}

fn what_the_listener_adds_is_submitted_also_while_the_engine_is_dropped(system: System) {
    // Goal: the drop waits for the last of a chain that it does not know. Method: each completion adds the next
    // operation, by turns for the disk, for a helper, and one that is answered by nobody of both.
    const CHAIN: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    for helpers in [1, 3] {
        let file = new_file(&*system().fs, dir.path(), "file", false);
        let added = file.clone();
        let bench = Bench::with(system, 2, helpers, move |done, next| {
            let number = done.token.0 as usize + 1;
            if number < CHAIN {
                let op = match number % 3 {
                    0 => write(&added, number, WriteMode::Plain),
                    1 => Op::Job(Box::new(|_| Ok(None))),
                    _ => Op::Read { file: added.clone(), at: 0, buffer: Buffer::zeroed(0) },
                };
                next.push((token(number), op));
            }
        });
        bench.submit([(token(0), write(&file, 0, WriteMode::Plain))]);
        let dones = bench.end();
        assert!(dones.iter().map(|done| done.token).eq((0..CHAIN).map(token)), "in turn");
        assert!(dones.iter().all(|done| done.outcome.is_ok()));
    }
}

fn a_listener_that_panics_loses_what_it_was_told_and_nothing_else(system: System) {
    const COUNT: usize = 90;
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let file = new_file(&*system().fs, dir.path(), "file", false);
    let added = file.clone();
    let bench = Bench::with(system, 1, 2, move |done, next| {
        counter.fetch_add(1, Ordering::Relaxed);
        let number = done.token.0 as usize;
        if number < COUNT && number.is_multiple_of(5) {
            // What it added before it panicked is submitted.
            next.push((token(COUNT + number), read(&added, 0)));
            panic!("on purpose");
        }
    });
    // From the reaper and from helpers.
    bench.submit((0..COUNT).map(|number| {
        let job: Job = Box::new(|_| Ok(None));
        (token(number), if number % 2 == 0 { write(&file, number, WriteMode::Plain) } else { Op::Job(job) })
    }));
    let heard = bench.end().len();
    let (panics, added) = (COUNT / 5, COUNT / 5);
    // One call for each completion: at a depth of one there is one at a time.
    assert_eq!(told.load(Ordering::Relaxed), COUNT + added);
    assert_eq!(heard, COUNT + added - panics);
}

fn an_engine_dropped_by_its_own_listener_does_not_wait_for_itself(system: System) {
    // Goal: no deadlock, and the rest still comes to its end. Method: by the reaper, and by a helper.
    const COUNT: usize = 100;
    type Place = Arc<Mutex<Option<Box<dyn Engine>>>>;
    let dir = tempfile::tempdir().unwrap();
    for by_helper in [false, true] {
        let place = Place::default();
        let taken = Arc::clone(&place);
        let Bench { engine, hears, fs } = Bench::with(system, 4, 1, move |done, _| {
            if done.token == token(0) {
                drop(taken.lock().unwrap().take());
            }
        });
        let file = new_file(&*fs, dir.path(), "file", false);
        let job: Job = Box::new(|_| Ok(None));
        let first = if by_helper { Op::Job(job) } else { write(&file, 0, WriteMode::Plain) };
        let rest = (1..COUNT).map(|number| (token(number), write(&file, number, WriteMode::Plain)));
        let mut place = place.lock().unwrap();
        engine.submit(&mut std::iter::once((token(0), first)).chain(rest).collect());
        *place = Some(engine);
        drop(place);
        // Until the listener, which the engine's last thread drops, is gone.
        assert_eq!(hears.iter().count(), COUNT);
    }
}

fn lent_memory_anywhere_is_read_into_and_given_back_with_the_completion(system: System) {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(system, 4, 1);
    let file = new_file(&*bench.fs, dir.path(), "file", false);
    bench.submit([(token(0), write(&file, 1, WriteMode::Plain))]);
    assert!(bench.hear().outcome.is_ok());
    let mut memory = vec![0_u8; 3 * GRAIN];
    let lent = Arc::new(());
    let start = NonNull::new(memory[13..].as_mut_ptr()).unwrap();
    // SAFETY: `memory` outlives the completion, which is waited for below, and is not touched before it.
    let buffer = unsafe { Buffer::lent(start, 1000, Box::new(Arc::clone(&lent))) };
    bench.submit([(token(1), Op::Read { file, at: GRAIN as u64 + 5, buffer })]);
    let done = bench.hear();
    assert!(matches!(done.outcome, Ok(Outcome::Read(1000))), "{done:?}");
    assert_eq!(Arc::strong_count(&lent), 2);
    drop(done);
    assert_eq!(Arc::strong_count(&lent), 1);
    assert!(memory[13..1013] == grain_of(1)[..1000]);
    assert!(memory[..13].iter().chain(&memory[1013..]).all(|&byte| byte == 0), "and nowhere else");
}

fn jobs_run_beside_each_other_on_as_many_threads_as_there_are_helpers(system: System) {
    // Goal: all of them work, and no more. Method: jobs that wait for each other.
    const HELPERS: usize = 4;
    let bench = Bench::new(system, 1, HELPERS);
    let (meeting, at_work) = (Arc::new(Barrier::new(HELPERS)), Arc::new(AtomicUsize::new(0)));
    bench.submit((0..3 * HELPERS).map(|number| {
        let (meeting, at_work) = (Arc::clone(&meeting), Arc::clone(&at_work));
        let job: Job = Box::new(move |_| {
            assert!(at_work.fetch_add(1, Ordering::SeqCst) < HELPERS);
            meeting.wait();
            at_work.fetch_sub(1, Ordering::SeqCst);
            // None leaves before all have been counted out.
            meeting.wait();
            Ok(None)
        });
        (token(number), Op::Job(job))
    }));
    assert!(bench.end().iter().all(|done| done.outcome.is_ok()));
}

/// Runs every case on every engine.
macro_rules! suite {
    ($($case:ident)*) => {
        #[cfg(feature = "ring")]
        mod on_the_ring {
            $(#[test] fn $case() {
                super::watched(stringify!($case), || super::$case(ringbolt_disk::shared_disk));
            })*
        }

        mod on_the_pool {
            $(#[test] fn $case() {
                super::watched(stringify!($case), || super::$case(ringbolt_disk::pool::shared_disk));
            })*
        }
    };
}

suite! {
    thousands_in_the_queue_of_a_shallow_engine_end_once_each
    many_threads_submit_at_once
    what_a_thread_left_behind_completes_though_the_thread_has_ended
    what_a_thread_wanted_to_read_comes_though_the_thread_has_ended
    what_the_listener_adds_is_submitted_also_while_the_engine_is_dropped
    a_listener_that_panics_loses_what_it_was_told_and_nothing_else
    an_engine_dropped_by_its_own_listener_does_not_wait_for_itself
    lent_memory_anywhere_is_read_into_and_given_back_with_the_completion
    jobs_run_beside_each_other_on_as_many_threads_as_there_are_helpers
}

#[test]
fn many_engines_in_turn_leave_no_descriptor_and_no_thread_behind() {
    in_a_child("many_engines_in_turn_leave_no_descriptor_and_no_thread_behind", || {
        let threads = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let names =
                tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
            names.filter(|name| name.starts_with("ringbolt")).count()
        };
        let dir = tempfile::tempdir().unwrap();
        let turn = |system| {
            let bench = Bench::new(system, 8, 3);
            let file = new_file(&*bench.fs, dir.path(), "file", false);
            bench.submit((0..20).map(|number| {
                let job: Job = Box::new(|_| Ok(None));
                (token(number), if number % 2 == 0 { read(&file, number) } else { Op::Job(job) })
            }));
            assert_eq!(bench.end().len(), 20);
        };
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        SYSTEMS.into_iter().for_each(turn);
        let before = descriptors();
        (0..200).for_each(|number| turn(SYSTEMS[number % SYSTEMS.len()]));
        assert_eq!(descriptors(), before);
        // A thread that was joined leaves the list a moment later.
        let start = std::time::Instant::now();
        while threads() > 0 {
            assert!(start.elapsed() < Duration::from_mins(1), "{} threads are left", threads());
            std::thread::yield_now();
        }
    });
}

#[test]
#[cfg(feature = "ring")]
fn a_forbidden_ring_is_an_error_with_advice() {
    for (errno, advice) in [
        (Errno::PERM, "blocked by a seccomp filter"),
        (Errno::NOSYS, "hidden by a seccomp filter"),
        (Errno::NOMEM, "RLIMIT_MEMLOCK"),
    ] {
        for (number, syscall) in [
            (libc::SYS_io_uring_setup, "io_uring_setup"),
            (libc::SYS_io_uring_register, "io_uring_register"),
            (libc::SYS_io_uring_enter, "io_uring_enter"),
        ] {
            // A filter is for its thread, and for life.
            let refused = std::thread::spawn(move || {
                if !refuse(number, errno) {
                    return lacks("seccomp", "system calls cannot be filtered here");
                }
                let options = EngineOptions { depth: 8, helpers: 1 };
                let engine = (shared_disk().engine)(options, Box::new(|_, _| {}));
                let driver = (disk().driver)();
                for error in [engine.err().unwrap(), driver.err().unwrap()] {
                    assert_eq!((error.syscall, error.errno), (syscall, errno.raw_os_error()));
                    assert!(error.to_string().contains(advice), "{error}");
                }
            });
            refused.join().unwrap();
        }
    }
}

#[test]
#[cfg(feature = "ring")]
fn a_thread_that_may_not_enter_the_ring_has_its_operations_sent_by_another() {
    // Goal: a filter on one thread, or a kernel that is short of something for it, is not the end of the ring.
    watched("a_thread_that_may_not_enter_the_ring_has_its_operations_sent_by_another", || {
        const COUNT: usize = 50;
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::new(shared_disk, 8, 1);
        let file = new_file(&*bench.fs, dir.path(), "file", false);
        let refused = std::thread::spawn(move || {
            if !refuse(libc::SYS_io_uring_enter, Errno::PERM) {
                return lacks("seccomp", "system calls cannot be filtered here");
            }
            for number in 0..COUNT {
                bench.submit([(token(number), write(&file, number, WriteMode::Plain))]);
                // By turns alone, and before the one ahead is done.
                if number % 2 == 0 {
                    bench.submit([(token(COUNT + number), Op::Sync { file: file.clone() })]);
                }
            }
            for _ in 0..COUNT + COUNT / 2 {
                assert!(bench.hear().outcome.is_ok());
            }
            check(&*bench.fs, &file, COUNT);
            // The end is one more thing to send.
            assert!(bench.end().is_empty());
        });
        refused.join().unwrap();
    });
}
