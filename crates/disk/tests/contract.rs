//! One suite, every disk: what the floors above may believe of a [`Disk`], whatever is behind it.
//!
//! A case is a plain function of a disk and an empty directory on it. The macro at the end runs each case on
//! each disk, under the case's name; what only the operating system can show stands behind it.
//!
//! No case asserts how long something takes, and none sleeps to let something happen: waiting is by
//! completions, wakes and deadlines. A promise that is broken by waiting for ever fails in [`patience`] where
//! the case gets a turn again, and by name in the watchdog ([`run`]) where it does not.

#![expect(clippy::unwrap_used, reason = "these are tests, and unwrapping is how a case says it went wrong")]

mod machine;
#[path = "machine/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringbolt_disk::{
    Access, Buffer, Create, Disk, Done, Driver, EntryKind, Errno, Error, File, Fs, GRAIN, Op, OpenOptions,
    Outcome, Time, Token, WriteMode,
};

const MODES: [WriteMode; 3] = [WriteMode::Plain, WriteMode::Dsync, WriteMode::Alone];

/// A new file, empty, for reading and writing.
const NEW: OpenOptions = OpenOptions::replace(0o600);

fn build(disk: Disk) -> (Arc<dyn Fs>, Box<dyn Driver>) {
    let driver = (disk.driver)().expect("the driver is to be had on this machine");
    (disk.fs, driver)
}

/// Panics when called too late: a wait that does not end is reported, not suffered.
fn patience() -> impl FnMut() {
    let start = Instant::now();
    move || assert!(start.elapsed() < Duration::from_mins(1), "waited for a minute")
}

/// Wait for `count` completions and not one more.
fn finish(driver: &mut dyn Driver, count: usize) -> Vec<Done> {
    let (mut out, mut patience) = (Vec::new(), patience());
    while out.len() < count {
        patience();
        let until = driver.now().after(Duration::from_secs(1));
        driver.wait(Some(until), &mut out);
    }
    assert_eq!(out.len(), count, "more completions than operations: {out:?}");
    out
}

/// Do one operation.
fn perform(driver: &mut dyn Driver, op: Op) -> Done {
    driver.submit(Token(7), op);
    let done = finish(driver, 1).pop().unwrap();
    assert_eq!(done.token, Token(7));
    done
}

fn write(driver: &mut dyn Driver, file: &File, at: u64, bytes: &[u8], mode: WriteMode) -> Buffer {
    let buffer = Buffer::copy_of(bytes);
    let done = perform(driver, Op::Write { file: file.clone(), at, buffer, mode });
    assert!(matches!(done.outcome, Ok(Outcome::Written)), "{done:?}");
    done.buffer.unwrap()
}

fn read(driver: &mut dyn Driver, file: &File, at: u64, len: usize) -> Vec<u8> {
    let done = perform(driver, Op::Read { file: file.clone(), at, buffer: Buffer::zeroed(len) });
    let Ok(Outcome::Read(count)) = done.outcome else { panic!("{done:?}") };
    let buffer = done.buffer.unwrap();
    assert_eq!(buffer.len(), len, "the buffer's length is the caller's");
    buffer[..count].to_vec()
}

fn read_cold(fs: &dyn Fs, file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    let count = fs.read_at(file, at, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

/// Bytes that tell where they belong.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| ((index / 512) * 31 + index + seed * 101) as u8).collect()
}

fn error_of(done: Done) -> Error {
    match done.outcome {
        Err(error) => error,
        Ok(outcome) => panic!("it went well: {outcome:?}"),
    }
}

fn write_then_read_gives_the_same_bytes(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    for direct in [false, true] {
        let file = fs.open(&dir.join(format!("direct={direct}")), NEW.with_direct(direct)).unwrap();
        for (index, mode) in MODES.into_iter().enumerate() {
            let (bytes, at) = (pattern(index, 3 * GRAIN), (index * 4 * GRAIN) as u64);
            write(&mut *driver, &file, at, &bytes, mode);
            assert!(read(&mut *driver, &file, at, 3 * GRAIN) == bytes, "hot, {mode:?}, direct={direct}");
            assert!(read_cold(&*fs, &file, at, 3 * GRAIN) == bytes, "cold, {mode:?}, direct={direct}");
        }
        let bytes = pattern(9, 2 * GRAIN);
        fs.write_at(&file, GRAIN as u64, &Buffer::copy_of(&bytes)).unwrap();
        assert!(read(&mut *driver, &file, GRAIN as u64, 2 * GRAIN) == bytes, "written cold, direct={direct}");
        assert!(read_cold(&*fs, &file, 0, GRAIN) == pattern(0, GRAIN), "what lies before is untouched");
    }
}

fn cached_files_take_any_offset_and_length(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    let mut expected = vec![0; 20_000];
    for (index, (at, len)) in [(0, 1), (1, 511), (4095, 2), (777, 8192), (19_999, 1)].into_iter().enumerate()
    {
        let bytes = pattern(index, len);
        write(&mut *driver, &file, at as u64, &bytes, MODES[index % 3]);
        expected[at..at + len].copy_from_slice(&bytes);
    }
    assert!(read(&mut *driver, &file, 0, 20_000) == expected);
    assert!(read(&mut *driver, &file, 4001, 3003) == expected[4001..7004]);
}

fn cold_reads_take_any_offset_and_length_on_direct_files(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let file = fs.open(&dir.join("file"), NEW.with_direct(true)).unwrap();
    // Larger than one bounce buffer.
    let bytes = pattern(1, (1 << 20) + 3 * GRAIN);
    fs.write_at(&file, 0, &Buffer::copy_of(&bytes)).unwrap();
    fs.set_len(&file, bytes.len() as u64 - 1000).unwrap();
    let bytes = &bytes[..bytes.len() - 1000];
    for (at, len) in
        [(0, 1), (1, 1), (4095, 2), (4096, 4096), (5000, 100_000), (3, bytes.len()), (0, bytes.len() * 2)]
    {
        let end = bytes.len().min(at + len);
        assert!(read_cold(&*fs, &file, at as u64, len) == bytes[at..end], "{len} bytes from {at}");
    }
}

fn reads_are_short_only_at_the_end_of_the_file(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    for direct in [false, true] {
        let file = fs.open(&dir.join("file"), NEW.with_direct(direct)).unwrap();
        write(&mut *driver, &file, 0, &pattern(3, 2 * GRAIN), WriteMode::Plain);
        fs.set_len(&file, 5000).unwrap();
        assert!(read(&mut *driver, &file, 0, 4 * GRAIN) == pattern(3, 5000));
        assert!(read(&mut *driver, &file, GRAIN as u64, GRAIN) == pattern(3, 5000)[GRAIN..]);
        assert!(read(&mut *driver, &file, 2 * GRAIN as u64, GRAIN).is_empty());
        assert!(read_cold(&*fs, &file, 4990, 100) == pattern(3, 5000)[4990..]);
        assert!(read_cold(&*fs, &file, 5000, 100).is_empty());
        assert!(read_cold(&*fs, &file, 1 << 30, 100).is_empty());
    }
}

fn a_read_ahead_gives_what_a_read_would(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    for direct in [false, true] {
        let path = dir.join(format!("direct={direct}"));
        let file = fs.open(&path, NEW.with_direct(direct)).unwrap();
        let bytes = pattern(1, 3 * GRAIN);
        fs.write_at(&file, 0, &Buffer::copy_of(&bytes)).unwrap();
        fs.set_len(&file, 10_000).unwrap();
        for (at, skip, expected) in [(0, 0, 2 * GRAIN), (GRAIN, GRAIN, 10_000 - GRAIN), (3 * GRAIN, GRAIN, 0)]
        {
            let mut buffer = Buffer::with_capacity(4 * GRAIN);
            buffer.resize(skip + 2 * GRAIN);
            let address = buffer.as_ptr();
            let ahead = fs.read_ahead(&file, at as u64, buffer, skip);
            let (buffer, read) = ahead.wait(&*fs);
            assert_eq!((buffer.as_ptr(), buffer.len()), (address, skip + 2 * GRAIN), "the same memory");
            assert_eq!(read.unwrap(), expected, "{at}");
            assert!(buffer[skip..skip + expected] == bytes[at..at + expected], "{at}, direct={direct}");
        }
        let (buffer, read) = fs.read_ahead(&file, u64::MAX - 8191, Buffer::zeroed(GRAIN), 0).wait(&*fs);
        assert_eq!((buffer.len(), read.unwrap_err().errno), (GRAIN, Errno::INVAL.raw_os_error()));
        let unwanted = fs.read_ahead(&file, 0, Buffer::zeroed(2 * GRAIN), GRAIN);
        assert_eq!(unwanted.into_buffer().len(), 2 * GRAIN);
        // Nobody waits for this one, and the file goes first.
        let forgotten = fs.read_ahead(&file, 0, Buffer::zeroed(2 * GRAIN), 0);
        drop(file);
        drop(forgotten);
    }
}

fn owned_buffers_come_back_unchanged_from_a_write(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    for mode in MODES {
        let mut buffer = Buffer::with_capacity(8 * GRAIN);
        buffer.extend(&pattern(1, GRAIN));
        let address = buffer.as_ptr();
        let done = perform(&mut *driver, Op::Write { file: file.clone(), at: 0, buffer, mode });
        let buffer = done.buffer.unwrap();
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (address, 8 * GRAIN), "the same memory");
        assert!(*buffer == pattern(1, GRAIN)[..]);
    }
    // From one that failed too.
    let read_only = fs.open(&dir.join("file"), OpenOptions::READ).unwrap();
    for mode in MODES {
        let op = Op::Write { file: read_only.clone(), at: 0, buffer: Buffer::copy_of(b"bytes"), mode };
        assert_eq!(&*perform(&mut *driver, op).buffer.unwrap(), b"bytes");
    }
}

fn each_of_many_operations_in_flight_ends_once_with_its_token(disk: Disk, dir: &Path) {
    const COUNT: usize = 200;
    let (fs, mut driver) = build(disk);
    for direct in [false, true] {
        let file = fs.open(&dir.join("file"), NEW.with_direct(direct)).unwrap();
        for index in 0..COUNT {
            let (at, buffer) = ((index * GRAIN) as u64, Buffer::copy_of(&pattern(index, GRAIN)));
            let mode = if index % 5 == 0 { WriteMode::Dsync } else { WriteMode::Plain };
            driver.submit(Token(index as u64), Op::Write { file: file.clone(), at, buffer, mode });
        }
        let written: BTreeMap<_, _> = finish(&mut *driver, COUNT)
            .into_iter()
            .map(|done| (done.token.0 as usize, (done.outcome.unwrap(), done.buffer.unwrap())))
            .collect();
        assert!(written.keys().copied().eq(0..COUNT), "one completion for each token");
        assert!(written.iter().all(|(&index, (_, buffer))| **buffer == pattern(index, GRAIN)[..]));

        for index in 0..COUNT {
            let (at, buffer) = ((index * GRAIN) as u64, Buffer::zeroed(GRAIN));
            driver.submit(Token(index as u64), Op::Read { file: file.clone(), at, buffer });
        }
        for done in finish(&mut *driver, COUNT) {
            assert!(matches!(done.outcome, Ok(Outcome::Read(GRAIN))), "{done:?}");
            assert!(*done.buffer.unwrap() == pattern(done.token.0 as usize, GRAIN)[..]);
        }
    }
}

fn a_lone_write_is_answered_beside_queued_ones(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    for round in 0..20 {
        for (token, mode) in [(0, WriteMode::Plain), (1, WriteMode::Alone), (2, WriteMode::Dsync)] {
            let (at, buffer) = (token * GRAIN as u64, Buffer::copy_of(&pattern(round, GRAIN)));
            driver.submit(Token(token), Op::Write { file: file.clone(), at, buffer, mode });
        }
        let mut tokens: Vec<_> = finish(&mut *driver, 3).into_iter().map(|done| done.token.0).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2]);
        assert!(read_cold(&*fs, &file, GRAIN as u64, GRAIN) == pattern(round, GRAIN));
    }
}

fn a_sync_follows_the_writes_before_it(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    write(&mut *driver, &file, 0, &pattern(1, GRAIN), WriteMode::Plain);
    let done = perform(&mut *driver, Op::Sync { file: file.clone() });
    assert!(matches!(done.outcome, Ok(Outcome::Synced)) && done.buffer.is_none(), "{done:?}");
    fs.sync(&file).unwrap();
    assert!(read_cold(&*fs, &file, 0, GRAIN) == pattern(1, GRAIN));
}

fn jobs_run_in_order_and_what_they_open_travels_back(disk: Disk, dir: &Path) {
    const COUNT: u64 = 30;
    let (fs, mut driver) = build(disk);
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 0..COUNT {
        let (order, path) = (Arc::clone(&order), dir.join(format!("job {index}")));
        driver.submit(
            Token(index),
            Op::Job(Box::new(move |fs| {
                order.lock().unwrap().push(index);
                if index % 2 == 0 { Ok(None) } else { fs.open(&path, NEW).map(Some) }
            })),
        );
    }
    for done in finish(&mut *driver, COUNT as usize) {
        let Ok(Outcome::Job(file)) = done.outcome else { panic!("{done:?}") };
        assert_eq!(file.is_some(), done.token.0 % 2 == 1);
        let Some(file) = file else { continue };
        assert_eq!(file.path(), dir.join(format!("job {}", done.token.0)));
        fs.write_at(&file, 0, &Buffer::copy_of(b"it is open")).unwrap();
    }
    assert!(order.lock().unwrap().iter().copied().eq(0..COUNT));
}

fn the_end_of_a_job_always_ends_wait(disk: Disk, dir: &Path) {
    // Goal: it comes from another thread, at any moment of this one's way into and out of its sleep. Method:
    // without a deadline, so that one left lying is waited for without end.
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    write(&mut *driver, &file, 0, &pattern(1, GRAIN), WriteMode::Plain);
    let mut out = Vec::new();
    for round in 0..3000 {
        driver.submit(Token(0), Op::Job(Box::new(|_| Ok(None))));
        let beside = usize::from(round % 3 == 0);
        if beside > 0 {
            let buffer = Buffer::zeroed(GRAIN);
            driver.submit(Token(1), Op::Read { file: file.clone(), at: 0, buffer });
        }
        while out.len() < 1 + beside {
            driver.wait(None, &mut out);
        }
        assert_eq!(out.drain(..).map(|done| usize::from(done.token == Token(0))).sum::<usize>(), 1);
    }
}

fn a_job_that_fails_is_its_own_completion_and_others_go_on(disk: Disk, dir: &Path) {
    let (_, mut driver) = build(disk);
    let missing = dir.join("missing");
    let path = missing.clone();
    driver.submit(Token(1), Op::Job(Box::new(move |fs| fs.remove(&path).map(|()| None))));
    driver.submit(Token(2), Op::Job(Box::new(|_| Ok(None))));
    for done in finish(&mut *driver, 2) {
        if done.token == Token(2) {
            assert!(done.outcome.is_ok());
        } else {
            let error = error_of(done);
            assert!(error.is_not_found() && error.path == missing && error.syscall == "unlink", "{error:?}");
        }
    }
}

fn a_job_that_panics_fails_and_the_next_one_runs(disk: Disk, _: &Path) {
    let (_, mut driver) = build(disk);
    driver.submit(Token(1), Op::Job(Box::new(|_| panic!("on purpose"))));
    driver.submit(Token(2), Op::Job(Box::new(|_| Ok(None))));
    for done in finish(&mut *driver, 2) {
        if done.token == Token(2) {
            assert!(done.outcome.is_ok());
        } else {
            let error = error_of(done);
            assert_eq!((error.syscall, error.errno), ("job", Errno::IO.raw_os_error()));
            assert!(error.to_string().contains("on purpose"), "{error}");
        }
    }
}

/// Goal: nothing is freed under the kernel, and nothing that was submitted is forgotten. Method: drop the driver
/// after so many waits, with jobs among what it has.
fn drop_the_driver_after(waits: usize, disk: Disk, dir: &Path) {
    const COUNT: usize = 100;
    let (fs, mut driver) = build(disk);
    let files = [false, true].map(|direct| {
        let path = dir.join(format!("direct={direct}"));
        fs.open(&path, NEW.with_direct(direct)).unwrap()
    });
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tokens = (0..).map(Token);
    for index in 0..COUNT {
        for file in &files {
            let (at, buffer) = ((index * GRAIN) as u64, Buffer::copy_of(&pattern(index, GRAIN)));
            let op = Op::Write { file: file.clone(), at, buffer, mode: MODES[index % 2] };
            driver.submit(tokens.next().unwrap(), op);
        }
        if index % 10 == 0 {
            let (name, order) = (dir.join(format!("job {index}")), Arc::clone(&order));
            let job = move |fs: &dyn Fs| {
                order.lock().unwrap().push(index);
                fs.open(&name, NEW).map(Some)
            };
            driver.submit(tokens.next().unwrap(), Op::Job(Box::new(job)));
        }
    }
    for _ in 0..waits {
        // A wake, so that it returns with most of it still under way.
        driver.waker().wake();
        driver.wait(None, &mut Vec::new());
    }
    drop(driver);
    for (index, file) in (0..COUNT).flat_map(|index| files.iter().map(move |file| (index, file))) {
        assert!(read_cold(&*fs, file, (index * GRAIN) as u64, GRAIN) == pattern(index, GRAIN));
    }
    assert!(order.lock().unwrap().iter().copied().eq((0..COUNT).step_by(10)));
    for index in (0..COUNT).step_by(10) {
        assert!(fs.stat(&dir.join(format!("job {index}"))).unwrap().is_some());
    }
}

fn dropping_the_driver_completes_what_is_queued(disk: Disk, dir: &Path) {
    drop_the_driver_after(0, disk, dir);
}

fn dropping_the_driver_completes_what_is_in_flight(disk: Disk, dir: &Path) {
    drop_the_driver_after(1, disk, dir);
}

fn dropping_the_driver_completes_what_is_left(disk: Disk, dir: &Path) {
    drop_the_driver_after(2, disk, dir);
}

fn dropping_the_driver_while_unwinding_completes_what_is_in_flight(disk: Disk, dir: &Path) {
    let (fs, driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW.with_direct(true)).unwrap();
    let clone = file.clone();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let mut driver = driver;
        let (at, buffer, mode) = (0, Buffer::copy_of(&pattern(1, GRAIN)), WriteMode::Dsync);
        driver.submit(Token(1), Op::Write { file: clone, at, buffer, mode });
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    assert!(read_cold(&*fs, &file, 0, GRAIN) == pattern(1, GRAIN));
}

fn an_offset_that_the_kernel_cannot_name_is_refused(disk: Disk, dir: &Path) {
    // Goal: -1 would be "the current position" to the ring.
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    let is = |error: Error, syscall, at| {
        assert_eq!((error.syscall, error.errno), (syscall, Errno::INVAL.raw_os_error()), "{at}");
        assert_eq!(error.offset, Some(at));
    };
    for at in [u64::MAX, i64::MAX as u64, u64::MAX - 1] {
        for (mode, syscall) in MODES.into_iter().zip(["pwrite", "pwritev2", "pwritev2"]) {
            let op = Op::Write { file: file.clone(), at, buffer: Buffer::copy_of(b"bytes"), mode };
            is(error_of(perform(&mut *driver, op)), syscall, at);
        }
        let op = Op::Read { file: file.clone(), at, buffer: Buffer::zeroed(5) };
        is(error_of(perform(&mut *driver, op)), "pread", at);
        is(fs.write_at(&file, at, &Buffer::copy_of(b"bytes")).unwrap_err(), "pwrite", at);
        is(fs.read_at(&file, at, &mut [0; 5]).unwrap_err(), "pread", at);
    }
    for len in [u64::MAX, 1 << 63] {
        assert_eq!(fs.set_len(&file, len).unwrap_err().errno, Errno::INVAL.raw_os_error());
        assert_eq!(fs.allocate(&file, len).unwrap_err().errno, Errno::INVAL.raw_os_error());
    }
    let error = fs.zero(&file, 1 << 63, GRAIN as u64).unwrap_err();
    assert_eq!(error.errno, Errno::INVAL.raw_os_error());
    assert_eq!(fs.len(&file).unwrap(), 0);
}

fn a_wake_ends_wait_also_ahead_of_time(disk: Disk, _: &Path) {
    let (_, mut driver) = build(disk);
    let waker = driver.waker();
    // Ahead of time, and more than once: both are one wake.
    waker.wake();
    waker.clone().wake();
    driver.wait(None, &mut Vec::new());
    // From another thread, whenever it comes: without it this wait would never end.
    let thread = std::thread::spawn(move || waker.wake());
    driver.wait(None, &mut Vec::new());
    thread.join().unwrap();
}

fn no_wake_is_lost_between_threads(disk: Disk, dir: &Path) {
    const THREADS: usize = 3;
    const MESSAGES: usize = 2000;
    let (fs, mut driver) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    write(&mut *driver, &file, 0, &pattern(1, GRAIN), WriteMode::Plain);
    // Idle, and with operations in flight: the thread sleeps in different places.
    for in_flight in [0, 3] {
        let mailbox = Arc::new(Mutex::new(0));
        let posting = (0..THREADS).map(|_| {
            let (mailbox, waker) = (Arc::clone(&mailbox), driver.waker());
            std::thread::spawn(move || {
                for message in 0..MESSAGES {
                    *mailbox.lock().unwrap() += 1;
                    waker.wake();
                    // Now and then let the other side fall asleep.
                    if message % 7 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        });
        let posting: Vec<_> = posting.collect();
        let (mut received, mut out, mut reading, mut patience) = (0, Vec::new(), 0, patience());
        let mut tokens = (0..).map(Token);
        loop {
            received += std::mem::take(&mut *mailbox.lock().unwrap());
            if received == THREADS * MESSAGES {
                break;
            }
            patience();
            while reading < in_flight {
                let buffer = Buffer::zeroed(GRAIN);
                let token = tokens.next().unwrap();
                driver.submit(token, Op::Read { file: file.clone(), at: 0, buffer });
                reading += 1;
            }
            driver.wait(None, &mut out);
            reading -= out.drain(..).count();
        }
        for thread in posting {
            thread.join().unwrap();
        }
        if reading > 0 {
            finish(&mut *driver, reading);
        }
    }
}

fn operations_complete_also_where_a_reason_to_return_is_always_there(disk: Disk, dir: &Path) {
    const COUNT: usize = 20;
    let (fs, mut driver) = build(disk);
    let waker = driver.waker();
    for hurry in ["a wake", "a deadline in the past", "a lone write"] {
        let file = fs.open(&dir.join("file"), NEW.with_direct(true)).unwrap();
        for index in 0..COUNT {
            let (at, buffer) = ((index * GRAIN) as u64, Buffer::copy_of(&pattern(index, GRAIN)));
            let op = Op::Write { file: file.clone(), at, buffer, mode: WriteMode::Plain };
            driver.submit(Token(index as u64), op);
        }
        let (mut out, mut ended, mut alone, mut patience) = (Vec::new(), 0, 0, patience());
        let mut tokens = (COUNT as u64..).map(Token);
        while ended < COUNT || alone > 0 {
            patience();
            let mut until = Some(driver.now().after(Duration::from_secs(1)));
            match hurry {
                "a wake" => waker.wake(),
                "a lone write" if ended < COUNT => {
                    let buffer = Buffer::copy_of(&pattern(COUNT, GRAIN));
                    let (at, mode) = ((COUNT * GRAIN) as u64, WriteMode::Alone);
                    let token = tokens.next().unwrap();
                    driver.submit(token, Op::Write { file: file.clone(), at, buffer, mode });
                    alone += 1;
                }
                "a lone write" => {}
                _ => until = Some(driver.now()),
            }
            driver.wait(until, &mut out);
            for done in out.drain(..) {
                assert!(done.outcome.is_ok(), "{done:?}");
                if done.token.0 < COUNT as u64 { ended += 1 } else { alone -= 1 }
            }
        }
    }
}

fn a_deadline_ends_wait(disk: Disk, _: &Path) {
    let (fs, mut driver) = build(disk);
    let (mut out, mut patience) = (Vec::new(), patience());
    let until = driver.now().after(Duration::from_millis(20));
    while driver.now() < until {
        patience();
        driver.wait(Some(until), &mut out);
    }
    assert!(out.is_empty());
    // One that has passed: at once.
    driver.wait(Some(Time::default()), &mut out);
    // The two sides read one clock.
    let (earlier, between, later) = (driver.now(), fs.now(), driver.now());
    assert!(earlier <= between && between <= later);
    fs.sleep(Duration::from_millis(1));
    assert!(driver.now().since(earlier) >= Duration::from_millis(1));
}

fn a_locked_file_refuses_other_descriptions_until_the_last_user_is_gone(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let path = dir.join("file");
    let mine = fs.open(&path, NEW).unwrap();
    let other = fs.open(&path, OpenOptions::WRITE).unwrap();
    assert!(fs.try_lock(&mine).unwrap());
    assert!(fs.try_lock(&mine.clone()).unwrap(), "a clone is the same description");
    assert!(!fs.try_lock(&other).unwrap());

    let (at, buffer, mode) = (0, Buffer::copy_of(&pattern(1, GRAIN)), WriteMode::Plain);
    driver.submit(Token(1), Op::Write { file: mine.clone(), at, buffer, mode });
    drop(mine);
    // In flight it holds the lock, which only a driver that waits to be asked lets us see for certain: below.
    let is_free = fs.try_lock(&other).unwrap();
    drop(finish(&mut *driver, 1));
    if is_free {
        return;
    }
    // The kernel lets go of the file a moment after it has posted the completion.
    let mut patience = patience();
    while !fs.try_lock(&other).unwrap() {
        patience();
        fs.sleep(Duration::from_millis(1));
    }
}

fn a_lock_that_is_shared_is_free_when_both_descriptions_are_gone(disk: Disk, dir: &Path) {
    let (fs, _driver) = build(disk);
    let path = dir.join("file");
    let mine = fs.open(&path, NEW).unwrap();
    let again = fs.open(&path, OpenOptions::WRITE.with_direct(true)).unwrap();
    let other = fs.open(&path, OpenOptions::WRITE).unwrap();
    assert!(fs.try_lock(&mine).unwrap());
    let is_shared = fs.share_lock(&mine, &again).unwrap();
    assert!(is_shared || cfg!(windows));
    assert!(!fs.try_lock(&other).unwrap());
    drop(mine);
    assert!(!is_shared || !fs.try_lock(&other).unwrap(), "the second one holds it still");
    drop(again);
    assert!(fs.try_lock(&other).unwrap());
}

fn what_was_written_is_told_up_to_the_first_hole_at_most(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    assert_eq!(fs.written_len(&file), Ok(0));
    fs.write_at(&file, 0, &Buffer::copy_of(&[1; 2 * GRAIN])).unwrap();
    assert!(fs.written_len(&file).unwrap() <= 2 * GRAIN as u64);
    fs.set_len(&file, 4 << 20).unwrap();
    // A file system that has no holes, or knows of none, has all of it.
    assert!(fs.written_len(&file).unwrap() <= 4 << 20);
}

fn lengths_zeros_and_reservations_are_what_was_asked(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let grain = GRAIN as u64;
    for direct in [false, true] {
        let file = fs.open(&dir.join("file"), NEW.with_direct(direct)).unwrap();
        assert_eq!(fs.len(&file).unwrap(), 0);
        fs.write_at(&file, 0, &Buffer::copy_of(&pattern(1, 4 * GRAIN))).unwrap();
        fs.allocate(&file, 8 * grain).unwrap();
        assert_eq!(fs.len(&file).unwrap(), 8 * grain);
        fs.allocate(&file, grain).unwrap();
        fs.allocate(&file, 0).unwrap();
        assert_eq!(fs.len(&file).unwrap(), 8 * grain, "reserving never cuts");
        assert!(read_cold(&*fs, &file, 0, 4 * GRAIN) == pattern(1, 4 * GRAIN), "nor changes what is there");
        assert!(read_cold(&*fs, &file, 4 * grain, 4 * GRAIN) == vec![0; 4 * GRAIN]);

        fs.zero(&file, grain, 2 * grain).unwrap();
        fs.zero(&file, 0, 0).unwrap();
        let mut expected = pattern(1, 4 * GRAIN);
        expected[GRAIN..3 * GRAIN].fill(0);
        assert!(read_cold(&*fs, &file, 0, 4 * GRAIN) == expected, "zeros in their place only");
        // Past the end, and more than one piece.
        fs.zero(&file, 8 * grain, (3 << 20) + grain).unwrap();
        assert_eq!(fs.len(&file).unwrap(), 9 * grain + (3 << 20));
        assert!(read_cold(&*fs, &file, 8 * grain, 4 << 20) == vec![0; (3 << 20) + GRAIN]);

        fs.set_len(&file, 100).unwrap();
        fs.set_len(&file, 300).unwrap();
        let mut expected = pattern(1, 100);
        expected.resize(300, 0);
        assert!(read_cold(&*fs, &file, 0, 1000) == expected, "what was cut reads as zeros when it is back");
        fs.sync(&file).unwrap();
        // Any answer will do; asking is safe.
        let _ = fs.has_cheap_dsync(&file);
    }
}

fn a_write_that_wishes_to_leave_nothing_in_the_cache_is_a_write(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let path = dir.join("file");
    let file = fs.open(&path, NEW).unwrap();
    let mut expected = vec![0; 30_000];
    for (index, (at, len)) in [(0, 8192), (777, 8192), (20_000, 10_000)].into_iter().enumerate() {
        let bytes = pattern(index, len);
        fs.write_uncached_at(&file, at as u64, &Buffer::copy_of(&bytes)).unwrap();
        expected[at..at + len].copy_from_slice(&bytes);
    }
    assert!(read_cold(&*fs, &file, 0, 40_000) == expected);
    let file = fs.open(&path, OpenOptions::READ).unwrap();
    let error = fs.write_uncached_at(&file, 4096, &Buffer::copy_of(b"bytes")).unwrap_err();
    assert_eq!((error.errno, error.offset), (Errno::BADF.raw_os_error(), Some(4096)));
}

fn what_the_cache_holds_is_read_without_a_gap(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let file = fs.open(&dir.join("file"), NEW).unwrap();
    let bytes = pattern(1, 20_000);
    fs.write_at(&file, 0, &Buffer::copy_of(&bytes)).unwrap();
    for (at, len) in [(0, 20_000), (777, 1), (4095, 2), (19_999, 100), (20_000, 5), (30_000, 5), (5, 0)] {
        let mut into = vec![0xee; len];
        let count = fs.read_cached(&file, at as u64, &mut into).unwrap();
        let behind = bytes.get(at..).unwrap_or_default();
        assert!(count <= len.min(behind.len()), "{count} of {len} bytes from {at}");
        assert!(into[..count] == behind[..count], "{count} of {len} bytes from {at}");
        assert!(into[count..].iter().all(|&byte| byte == 0xee), "the rest is left alone");
    }
    let error = fs.read_cached(&file, u64::MAX, &mut [0; 8]).unwrap_err();
    assert_eq!((error.syscall, error.errno), ("preadv2", Errno::INVAL.raw_os_error()));
}

fn an_empty_directory_is_removed_and_no_other(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let (inner, file) = (dir.join("inner"), dir.join("inner/file"));
    fs.create_dir(&inner, 0o700).unwrap();
    drop(fs.open(&file, NEW).unwrap());
    fs.sync_all(dir).unwrap();
    let error = fs.remove_dir(&inner).unwrap_err();
    assert_eq!((error.syscall, error.errno), ("rmdir", Errno::NOTEMPTY.raw_os_error()));
    assert_eq!(fs.remove_dir(&file).unwrap_err().errno, Errno::NOTDIR.raw_os_error());
    fs.remove(&file).unwrap();
    fs.remove_dir(&inner).unwrap();
    assert_eq!(fs.stat(&inner).unwrap(), None);
    assert!(fs.remove_dir(&inner).unwrap_err().is_not_found());
    fs.sync_dir(dir).unwrap();
    assert!(fs.sync_all(&inner).unwrap_err().is_not_found());
}

fn opening_makes_cuts_or_leaves_alone_as_asked(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let path = dir.join("file");
    let keep = OpenOptions { access: Access::ReadWrite, create: Create::IfMissing(0o600), direct: false };
    assert!(fs.open(&path, OpenOptions::WRITE).unwrap_err().is_not_found());
    let file = fs.open(&path, keep).unwrap();
    assert_eq!(file.path(), path);
    assert!(!file.is_direct());
    fs.write_at(&file, 0, &Buffer::copy_of(b"bytes")).unwrap();
    assert_eq!(read_cold(&*fs, &fs.open(&path, keep).unwrap(), 0, 10), b"bytes");
    assert_eq!(read_cold(&*fs, &fs.open(&path, OpenOptions::READ).unwrap(), 0, 10), b"bytes");
    assert_eq!(fs.len(&fs.open(&path, NEW).unwrap()).unwrap(), 0);
}

fn a_directory_is_no_file_to_open(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    let keep = OpenOptions { access: Access::Read, create: Create::IfMissing(0o600), direct: false };
    for options in [OpenOptions::READ, OpenOptions::WRITE, NEW, keep] {
        for direct in [false, true] {
            let error = fs.open(dir, options.with_direct(direct)).unwrap_err();
            assert_eq!((error.syscall, &*error.path), ("open", dir), "{options:?}");
            assert_eq!(error.errno, Errno::ISDIR.raw_os_error(), "{options:?}");
        }
    }
}

fn names_are_listed_in_order_with_their_kinds(disk: Disk, dir: &Path) {
    let (fs, _) = build(disk);
    assert_eq!(fs.list(dir).unwrap(), []);
    for name in ["b", "a.2", "a.10", "Z"] {
        fs.open(&dir.join(name), NEW).unwrap();
    }
    fs.create_dir(&dir.join("c"), 0o700).unwrap();
    let listed = fs.list(dir).unwrap();
    let expected = [("Z", false), ("a.10", false), ("a.2", false), ("b", false), ("c", true)];
    assert_eq!(listed.len(), expected.len());
    for (entry, (name, is_directory)) in listed.iter().zip(expected) {
        let kind = if is_directory { EntryKind::Directory } else { EntryKind::File };
        assert_eq!((entry.name.to_str(), entry.kind), (Some(name), kind));
        assert_eq!(fs.stat(&dir.join(name)).unwrap(), Some(kind));
    }
    assert_eq!(fs.stat(&dir.join("missing")).unwrap(), None);
    assert!(fs.list(&dir.join("missing")).unwrap_err().is_not_found());
    fs.sync_dir(dir).unwrap();
}

fn renaming_replaces_and_removing_takes_the_name_only(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let (old, new) = (dir.join("old"), dir.join("new"));
    let replaced = fs.open(&new, NEW).unwrap();
    let file = fs.open(&old, NEW).unwrap();
    fs.write_at(&file, 0, &Buffer::copy_of(b"moved")).unwrap();
    assert!(fs.is_linked(&file, &old).unwrap() && fs.is_linked(&replaced, &new).unwrap());

    fs.rename(&old, &new).unwrap();
    assert!(fs.is_linked(&file, &new).unwrap());
    assert!(!fs.is_linked(&file, &old).unwrap(), "its old name leads nowhere");
    assert!(!fs.is_linked(&replaced, &new).unwrap(), "its name leads to another file");
    assert_eq!(read_cold(&*fs, &fs.open(&new, OpenOptions::READ).unwrap(), 0, 10), b"moved");

    fs.open(&old, NEW).unwrap();
    assert!(!fs.is_linked(&file, &old).unwrap(), "its old name leads to another file, and it has one itself");

    fs.remove(&new).unwrap();
    assert!(!fs.is_linked(&file, &new).unwrap());
    assert_eq!(fs.stat(&new).unwrap(), None);
    assert_eq!(read(&mut *driver, &file, 0, 10), b"moved", "the open file lives on without a name");
    fs.sync_dir(dir).unwrap();
}

fn errors_name_the_call_the_path_and_the_errno(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let missing = dir.join("missing");
    let is = |error: Error, syscall, path: &Path, errno: Errno| {
        assert_eq!((error.syscall, &*error.path, error.errno), (syscall, path, errno.raw_os_error()));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    };
    is(fs.open(&missing, OpenOptions::READ).unwrap_err(), "open", &missing, Errno::NOENT);
    is(fs.open(&missing.join("below"), NEW).unwrap_err(), "open", &missing.join("below"), Errno::NOENT);
    is(fs.remove(&missing).unwrap_err(), "unlink", &missing, Errno::NOENT);
    is(fs.rename(&missing, dir).unwrap_err(), "rename", &missing, Errno::NOENT);
    let error = fs.sync_dir(&missing).unwrap_err();
    assert!(error.is_not_found() && error.path == missing, "{error:?}");
    let taken = dir.join("taken");
    fs.create_dir(&taken, 0o700).unwrap();
    let error = fs.create_dir(&taken, 0o700).unwrap_err();
    assert!(error.is_exists());
    is(error, "mkdir", &taken, Errno::EXIST);

    let path = dir.join("file");
    drop(fs.open(&path, NEW).unwrap());
    let file = fs.open(&path, OpenOptions::READ).unwrap();
    let buffer = || Buffer::copy_of(&pattern(1, GRAIN));
    let error = fs.write_at(&file, 8192, &buffer()).unwrap_err();
    assert_eq!(error.offset, Some(8192));
    is(error, "pwrite", &path, Errno::BADF);
    for (mode, syscall) in MODES.into_iter().zip(["pwrite", "pwritev2", "pwritev2"]) {
        let op = Op::Write { file: file.clone(), at: 4096, buffer: buffer(), mode };
        let error = error_of(perform(&mut *driver, op));
        assert_eq!(error.offset, Some(4096));
        is(error, syscall, &path, Errno::BADF);
    }
}

fn the_world_outside_is_asked_for_through_the_disk(disk: Disk, _: &Path) {
    let (fs, _) = build(disk);
    assert_ne!(fs.random(), fs.random());
    assert!(fs.wall_clock() > 0);
    assert_ne!(fs.pid(), 0);
}

// What each disk is brought to in a way of its own.

/// Of a driver that does nothing before it is waited for.
fn an_operation_in_flight_holds_the_lock_of_its_file(disk: Disk, dir: &Path) {
    let (fs, mut driver) = build(disk);
    let path = dir.join("file");
    let mine = fs.open(&path, NEW).unwrap();
    let other = fs.open(&path, OpenOptions::WRITE).unwrap();
    assert!(fs.try_lock(&mine).unwrap());
    driver.submit(Token(1), Op::Sync { file: mine });
    assert!(!fs.try_lock(&other).unwrap());
    drop(finish(&mut *driver, 1));
}

/// `file` has no room for another grain.
fn no_room_is_its_own_error_on_every_way(fs: &dyn Fs, driver: &mut dyn Driver, file: &File) {
    for mode in MODES {
        let op = Op::Write { file: file.clone(), at: 0, buffer: Buffer::copy_of(&[1; GRAIN]), mode };
        let error = error_of(perform(driver, op));
        assert!(error.is_no_space(), "{error}");
    }
    assert!(fs.write_at(file, 0, &Buffer::copy_of(&[1; GRAIN])).unwrap_err().is_no_space());
    assert!(fs.write_uncached_at(file, 0, &Buffer::copy_of(&[1; GRAIN])).unwrap_err().is_no_space());
}

/// After `arm`, the next write of two grains to a new file writes some of it, and what is tried then fails with
/// `EFBIG`. Answers the files and how far each was written.
fn short_writes_are_not_taken_for_whole_ones(
    (fs, driver): (&dyn Fs, &mut dyn Driver),
    dir: &Path,
    arm: impl Fn(),
) -> Vec<(File, u64)> {
    let mut files = Vec::new();
    for direct in [false, true] {
        for way in 0..MODES.len() + 2 {
            let path = dir.join(format!("{direct} {way}"));
            let file = fs.open(&path, NEW.with_direct(direct)).unwrap();
            let buffer = Buffer::copy_of(&pattern(way, 2 * GRAIN));
            arm();
            let error = match MODES.get(way) {
                Some(&mode) => {
                    let op = Op::Write { file: file.clone(), at: 0, buffer, mode };
                    error_of(perform(driver, op))
                }
                None if way == MODES.len() => fs.write_at(&file, 0, &buffer).unwrap_err(),
                None => fs.write_uncached_at(&file, 0, &buffer).unwrap_err(),
            };
            assert_eq!((error.errno, &*error.path), (Errno::FBIG.raw_os_error(), &*path));
            let written = error.offset.unwrap() as usize;
            assert!((1..2 * GRAIN).contains(&written), "{written}");
            assert!(
                read_cold(fs, &file, 0, written) == pattern(way, written),
                "what came before was written"
            );
            files.push((file, written as u64));
        }
    }
    files
}

/// A disk of the system.
type System = fn() -> Disk;

/// Run a case in a new directory on the file system of `base`.
fn run<C: Fn(Disk, &Path) + Send + 'static>(system: System, base: &Path, case: C) {
    if !base.is_dir() {
        let capability = if base == Path::new("/dev/shm") { "memory" } else { "temporary" };
        return machine::lacks(capability, &format!("there is no {}", base.display()));
    }
    let dir = tempfile::tempdir_in(base).unwrap();
    // Under the case's own name, or that of the test whose closure it is.
    process::watched(std::any::type_name::<C>(), move || case(system(), dir.path()));
}

/// Runs every case on every disk.
macro_rules! suite {
    ($($case:ident)*) => {
        /// The operating system, in its directory for temporary files.
        #[cfg(all(target_os = "linux", feature = "ring"))]
        mod on_the_system {
            $(#[test] fn $case() { super::run(super::os::log, &std::env::temp_dir(), super::$case); })*
        }

        /// The operating system again, on a file system in memory: it answers before one can ask.
        #[cfg(all(target_os = "linux", feature = "ring"))]
        mod on_tmpfs {
            $(#[test] fn $case() { super::run(super::os::log, super::os::MEMORY.as_ref(), super::$case); })*
        }

        /// The same two by the engine, as a driver.
        #[cfg(all(target_os = "linux", feature = "ring"))]
        mod on_the_ring {
            $(#[test] fn $case() { super::run(super::os::shared, &std::env::temp_dir(), super::$case); })*
        }

        #[cfg(all(target_os = "linux", feature = "ring"))]
        mod on_the_ring_on_tmpfs {
            $(#[test] fn $case() {
                super::run(super::os::shared, super::os::MEMORY.as_ref(), super::$case);
            })*
        }

        /// And by the pool of threads.
        mod on_the_pool {
            $(#[test] fn $case() {
                super::run(ringbolt_disk::pool::disk, &std::env::temp_dir(), super::$case);
            })*
        }

        #[cfg(target_os = "linux")]
        mod on_the_pool_on_tmpfs {
            $(#[test] fn $case() {
                super::run(ringbolt_disk::pool::disk, super::os::MEMORY.as_ref(), super::$case);
            })*
        }

        /// The simulated disk, in a few of its moods.
        #[cfg(feature = "sim")]
        mod on_sim {
            $(#[test] fn $case() { super::run_on_sim(super::$case); })*
        }
    };
}

suite! {
    write_then_read_gives_the_same_bytes
    cached_files_take_any_offset_and_length
    cold_reads_take_any_offset_and_length_on_direct_files
    a_read_ahead_gives_what_a_read_would
    reads_are_short_only_at_the_end_of_the_file
    owned_buffers_come_back_unchanged_from_a_write
    each_of_many_operations_in_flight_ends_once_with_its_token
    a_lone_write_is_answered_beside_queued_ones
    a_sync_follows_the_writes_before_it
    jobs_run_in_order_and_what_they_open_travels_back
    the_end_of_a_job_always_ends_wait
    a_job_that_fails_is_its_own_completion_and_others_go_on
    a_job_that_panics_fails_and_the_next_one_runs
    dropping_the_driver_completes_what_is_queued
    dropping_the_driver_completes_what_is_in_flight
    dropping_the_driver_completes_what_is_left
    dropping_the_driver_while_unwinding_completes_what_is_in_flight
    an_offset_that_the_kernel_cannot_name_is_refused
    a_wake_ends_wait_also_ahead_of_time
    no_wake_is_lost_between_threads
    operations_complete_also_where_a_reason_to_return_is_always_there
    a_deadline_ends_wait
    a_locked_file_refuses_other_descriptions_until_the_last_user_is_gone
    a_lock_that_is_shared_is_free_when_both_descriptions_are_gone
    what_was_written_is_told_up_to_the_first_hole_at_most
    lengths_zeros_and_reservations_are_what_was_asked
    a_write_that_wishes_to_leave_nothing_in_the_cache_is_a_write
    what_the_cache_holds_is_read_without_a_gap
    an_empty_directory_is_removed_and_no_other
    opening_makes_cuts_or_leaves_alone_as_asked
    a_directory_is_no_file_to_open
    names_are_listed_in_order_with_their_kinds
    renaming_replaces_and_removing_takes_the_name_only
    errors_name_the_call_the_path_and_the_errno
    the_world_outside_is_asked_for_through_the_disk
}

#[cfg(feature = "sim")]
fn run_on_sim(case: fn(Disk, &Path)) {
    for seed in 0..8 {
        eprintln!("seed {seed}");
        let disk = ringbolt_disk::sim::Sim::new(seed).disk();
        let dir = Path::new("/log");
        disk.fs.create_dir(dir, 0o700).unwrap();
        case(disk, dir);
    }
}

/// What the simulated disk is brought to by its switches.
#[cfg(feature = "sim")]
mod simulated {
    use ringbolt_disk::sim::{Call, Fault, Sim};

    use super::*;

    #[test]
    fn an_operation_in_flight_holds_the_lock_of_its_file() {
        run_on_sim(super::an_operation_in_flight_holds_the_lock_of_its_file);
    }

    #[test]
    fn a_full_device_is_its_own_error_on_every_way() {
        for seed in 0..8 {
            let sim = Sim::new(seed);
            let (fs, mut driver) = build(sim.disk());
            let file = fs.open("/file".as_ref(), NEW).unwrap();
            sim.set_capacity(Some(0));
            no_room_is_its_own_error_on_every_way(&*fs, &mut *driver, &file);
        }
    }

    #[test]
    fn a_short_write_is_never_taken_for_a_whole_one() {
        for seed in 0..8 {
            let sim = Sim::new(seed);
            let (fs, mut driver) = build(sim.disk());
            let cut_short = || {
                sim.fail(Fault::short_write());
                sim.fail(Fault::new(Call::Write).skip(1).errno(Errno::FBIG.raw_os_error()));
            };
            short_writes_are_not_taken_for_whole_ones((&*fs, &mut *driver), "/".as_ref(), cut_short);
        }
    }
}

/// What only the operating system can show.
#[cfg(target_os = "linux")]
mod os {
    use ringbolt_disk::pool;
    use rustix::process::{Resource, getrlimit, setrlimit};

    use super::process::in_a_child;
    use super::*;

    /// The file system in memory that Linux has everywhere, or nearly.
    pub(crate) const MEMORY: &str = "/dev/shm";

    /// With the driver of the log.
    #[cfg(feature = "ring")]
    pub(crate) fn log() -> Disk {
        ringbolt_disk::disk()
    }

    /// With the engine of services that have many threads, as the driver of one. A driver's jobs run in order.
    #[cfg(feature = "ring")]
    pub(crate) fn shared() -> Disk {
        ringbolt_disk::shared_disk().into_disk(ringbolt_disk::EngineOptions { depth: 64, helpers: 1 })
    }

    #[cfg(feature = "ring")]
    const RINGS: [System; 2] = [log, shared];
    #[cfg(feature = "ring")]
    const SYSTEMS: [System; 3] = [log, shared, pool::disk];
    #[cfg(not(feature = "ring"))]
    const SYSTEMS: [System; 1] = [pool::disk];

    /// Run a case with each driver on both kinds of file system.
    fn run_everywhere<C: Fn(Disk, &Path) + Copy + Send + 'static>(case: C) {
        for system in SYSTEMS {
            run(system, &std::env::temp_dir(), case);
            run(system, MEMORY.as_ref(), case);
        }
    }

    fn limit(resource: Resource, current: u64) {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, rustix::process::Rlimit { current: Some(current), maximum }).unwrap();
    }

    #[test]
    fn a_symbolic_link_is_never_followed() {
        run_everywhere(|disk, dir| {
            let (target, link) = (dir.join("target"), dir.join("link"));
            let file = disk.fs.open(&target, NEW).unwrap();
            std::os::unix::fs::symlink(&target, &link).unwrap();
            for options in [OpenOptions::READ, OpenOptions::WRITE, NEW, NEW.with_direct(true)] {
                let error = disk.fs.open(&link, options).unwrap_err();
                assert_eq!((error.syscall, error.errno), ("open", Errno::LOOP.raw_os_error()));
            }
            assert_eq!(disk.fs.stat(&link).unwrap(), Some(EntryKind::Other));
            assert!(!disk.fs.is_linked(&file, &link).unwrap());
        });
    }

    #[test]
    fn a_file_system_without_direct_access_gives_a_cached_file() {
        // procfs is at hand everywhere and refuses O_DIRECT.
        let fs = pool::disk().fs;
        let file = fs.open("/proc/version".as_ref(), OpenOptions::READ.with_direct(true)).unwrap();
        assert!(!file.is_direct());
        assert!(read_cold(&*fs, &file, 1, 100).starts_with(b"inux"));
    }

    #[test]
    fn direct_access_is_had_wherever_the_file_system_gives_it() {
        // Goal: it is not given up without anybody noticing, and what `is_direct` says is what the descriptor
        // does. Method: ask the file system ourselves.
        use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};

        run_everywhere(|disk, dir| {
            let path = dir.join("file");
            drop(disk.fs.open(&path, NEW).unwrap());
            let opened = open(&path, OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
            let is_given = opened.as_ref().is_ok_and(|descriptor| {
                let stat = statx(descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).unwrap();
                let fits = |alignment: u32| (1..=GRAIN).contains(&(alignment as usize));
                stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0
                    || fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align)
            });
            drop(opened);
            for options in [OpenOptions::READ, OpenOptions::WRITE, NEW] {
                for asked in [true, false] {
                    let file = disk.fs.open(&path, options.with_direct(asked)).unwrap();
                    assert_eq!(file.is_direct(), asked && is_given, "{options:?}");
                    let flags = OFlags::from_bits_retain(flags_of(&path));
                    assert_eq!(flags.contains(OFlags::DIRECT), file.is_direct(), "{options:?}");
                    assert!(!flags.contains(OFlags::NONBLOCK), "the ring would answer EAGAIN");
                }
            }
        });
    }

    /// The flags of the one descriptor that this process has of `path`.
    fn flags_of(path: &Path) -> u32 {
        let path = std::fs::canonicalize(path).unwrap();
        let mut descriptors = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            let leads_there = std::fs::read_link(entry.path()).is_ok_and(|target| target == path);
            leads_there.then(|| entry.file_name())
        });
        let descriptor = descriptors.next().expect("it is open");
        assert_eq!(descriptors.next(), None);
        flags_in(&std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(descriptor)).unwrap())
    }

    /// What a descriptor's information says of its flags.
    fn flags_in(info: &str) -> u32 {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        u32::from_str_radix(flags, 8).unwrap()
    }

    #[cfg(feature = "ring")]
    #[test]
    fn an_operation_in_flight_holds_the_lock_of_its_file() {
        run(log, &std::env::temp_dir(), super::an_operation_in_flight_holds_the_lock_of_its_file);
    }

    #[test]
    fn a_full_device_is_its_own_error_on_every_way() {
        for system in SYSTEMS {
            let (fs, mut driver) = build(system());
            let file = fs.open("/dev/full".as_ref(), OpenOptions::WRITE).unwrap();
            no_room_is_its_own_error_on_every_way(&*fs, &mut *driver, &file);
        }
    }

    #[test]
    fn a_short_write_is_never_taken_for_a_whole_one() {
        // Goal: a limit on the size of files cuts the first write short; the rest fails, and is reported.
        // Method: the limit lies in the middle of the write, on every way to write.
        in_a_child("os::a_short_write_is_never_taken_for_a_whole_one", || {
            limit(Resource::Fsize, GRAIN as u64);
            run_everywhere(|disk, dir| {
                let (fs, mut driver) = build(disk);
                let files = short_writes_are_not_taken_for_whole_ones((&*fs, &mut *driver), dir, || {});
                for (file, written) in files {
                    assert_eq!((written, fs.len(&file).unwrap()), (GRAIN as u64, GRAIN as u64));
                }
            });
        });
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_refused_ring_is_an_error_with_advice() {
        in_a_child("os::a_refused_ring_is_an_error_with_advice", || {
            limit(Resource::Nofile, 3);
            for system in RINGS {
                let Err(error) = (system().driver)() else { panic!("it was to be had") };
                assert_eq!((error.syscall, error.errno), ("io_uring_setup", Errno::MFILE.raw_os_error()));
                assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
            }
        });
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_ring_that_finds_room_for_some_of_its_descriptors_fails_without_a_panic() {
        // Goal: the runtime has descriptors of its own. Method: one more each time, until it fits.
        in_a_child("os::a_ring_that_finds_room_for_some_of_its_descriptors_fails_without_a_panic", || {
            for system in RINGS {
                let fits = (3..100).any(|descriptors| {
                    limit(Resource::Nofile, descriptors);
                    match (system().driver)() {
                        Ok(_) => true,
                        Err(error) => {
                            assert_eq!(error.errno, Errno::MFILE.raw_os_error(), "{error}");
                            false
                        }
                    }
                });
                assert!(fits, "each refusal kept some of the room it was given");
            }
        });
    }

    #[test]
    fn no_descriptor_is_inherited_by_a_program_that_is_started() {
        // Goal: a program started meanwhile holds no lock and no file of ours. Method: the close-on-exec bit of
        // every descriptor that was not there before.
        in_a_child("os::no_descriptor_is_inherited_by_a_program_that_is_started", || {
            let all = || -> Vec<_> {
                let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
                entries.map(|entry| entry.unwrap().path()).collect()
            };
            let before = all();
            let dir = tempfile::tempdir().unwrap();
            let open = SYSTEMS.map(|system| {
                let (fs, mut driver) = build(system());
                // The number of the listing before, which is among those that were there, is taken by one of them.
                let other = fs.open(&dir.path().join("other"), NEW).unwrap();
                let file = fs.open(&dir.path().join("file"), NEW.with_direct(true)).unwrap();
                write(&mut *driver, &file, 0, &pattern(1, GRAIN), WriteMode::Dsync);
                (file, other, driver)
            });
            let mut seen = 0;
            for path in all() {
                // The descriptor of the listing itself is gone by now.
                let Ok(info) = std::fs::read_to_string(&path) else { continue };
                if before.contains(&path) {
                    continue;
                }
                assert_ne!(
                    flags_in(&info) & rustix::fs::OFlags::CLOEXEC.bits(),
                    0,
                    "{}: {info}",
                    path.display()
                );
                seen += 1;
            }
            let least = if cfg!(feature = "ring") { 7 } else { 1 };
            assert!(seen >= least, "six files and two rings, or two files, less one: not {seen}");
            drop(open);
        });
    }

    #[test]
    fn many_drivers_in_turn_leave_no_descriptor_behind() {
        in_a_child("os::many_drivers_in_turn_leave_no_descriptor_behind", || {
            let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let dir = tempfile::tempdir().unwrap();
            let turn = || {
                for system in SYSTEMS {
                    let (fs, mut driver) = build(system());
                    let file = fs.open(&dir.path().join("file"), NEW).unwrap();
                    write(&mut *driver, &file, 0, b"bytes", WriteMode::Plain);
                }
            };
            turn();
            let before = count();
            (0..50).for_each(|_| turn());
            assert_eq!(count(), before);
        });
    }
}
