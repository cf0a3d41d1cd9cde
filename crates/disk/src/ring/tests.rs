//! What cannot be seen from outside: the kernel's answers one by one, numbers of requests, a ring that breaks.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use io_uring_07::opcode;

use super::request::Verdict;
use super::sender::PER_ENTER;
use super::slots::Slots;
use super::*;
use crate::os::{OsFile, OsFs};
use crate::{Buffer, File, GRAIN, Job, OpenOptions, Outcome, WriteMode};

fn file_in(dir: &Path) -> File {
    OsFs.open(&dir.join("file"), OpenOptions::replace(0o600)).unwrap()
}

fn request(op: Op) -> Request {
    match Request::accept(Token(1), op) {
        Accepted::Request(request) => request,
        _ => panic!("it is for the disk"),
    }
}

fn read(file: &File, len: usize) -> Op {
    Op::Read { file: file.clone(), at: 0, buffer: Buffer::zeroed(len) }
}

fn write(file: &File, len: usize, mode: WriteMode) -> Op {
    Op::Write { file: file.clone(), at: 0, buffer: Buffer::zeroed(len), mode }
}

fn minus(errno: Errno) -> i32 {
    -errno.raw_os_error()
}

/// Answer the request's next entry.
fn answer(request: &mut Request, result: i32) -> Verdict {
    let _ = request.entry();
    request.complete(result)
}

fn error_of(verdict: Verdict) -> Error {
    match verdict {
        Verdict::Over(Err(error)) => error,
        verdict => panic!("it did not fail: {verdict:?}"),
    }
}

#[test]
fn a_transfer_goes_on_until_every_byte_is_moved_or_the_file_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let mut whole = request(read(&file, 1000));
    assert!(matches!(answer(&mut whole, 400), Verdict::Again));
    assert!(matches!(answer(&mut whole, 600), Verdict::Over(Ok(Outcome::Read(1000)))));
    let mut cut = request(read(&file, 1000));
    assert!(matches!(answer(&mut cut, 400), Verdict::Again));
    assert!(matches!(answer(&mut cut, 0), Verdict::Over(Ok(Outcome::Read(400)))));
    for mode in [WriteMode::Plain, WriteMode::Dsync, WriteMode::Alone] {
        let mut whole = request(write(&file, 1000, mode));
        assert!(matches!(answer(&mut whole, 400), Verdict::Again));
        assert!(matches!(answer(&mut whole, 600), Verdict::Over(Ok(Outcome::Written))));
        let mut cut = request(write(&file, 1000, mode));
        assert!(matches!(answer(&mut cut, 400), Verdict::Again));
        let error = error_of(answer(&mut cut, 0));
        assert_eq!((error.errno, error.offset), (Errno::IO.raw_os_error(), Some(400)));
    }
}

#[test]
fn what_was_not_done_is_tried_again_a_bounded_number_of_times() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    for op in [read(&file, 10), write(&file, 10, WriteMode::Plain), write(&file, 10, WriteMode::Dsync)] {
        let mut request = request(op);
        for round in 0..Request::RETRIES_MAX {
            let verdict = match round % 4 {
                0 => answer(&mut request, minus(Errno::INTR)),
                1 => answer(&mut request, minus(Errno::CANCELED)),
                2 => answer(&mut request, minus(Errno::FAULT)),
                _ => match answer(&mut request, minus(Errno::AGAIN)) {
                    Verdict::Later => Verdict::Again,
                    verdict => panic!("not at once: {verdict:?}"),
                },
            };
            assert!(matches!(verdict, Verdict::Again), "{verdict:?}");
        }
        let error = error_of(answer(&mut request, minus(Errno::AGAIN)));
        assert_eq!(error.errno, Errno::AGAIN.raw_os_error());
    }
}

#[test]
fn a_flush_that_began_is_never_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let flush = || request(Op::Sync { file: file.clone() });
    for errno in [Errno::IO, Errno::INTR, Errno::AGAIN, Errno::FAULT, Errno::NOSPC] {
        let error = error_of(answer(&mut flush(), minus(errno)));
        assert_eq!((error.syscall, error.errno), ("fdatasync", errno.raw_os_error()));
    }
    // Never begun: the thread that it belonged to ended.
    let mut flush = flush();
    assert!(matches!(answer(&mut flush, minus(Errno::CANCELED)), Verdict::Again));
    assert!(matches!(answer(&mut flush, 0), Verdict::Over(Ok(Outcome::Synced))));
}

#[test]
fn a_file_system_without_a_flag_gets_the_write_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let refusal = minus(Errno::OPNOTSUPP);
    // Durable: from the beginning once more, then a flush, whose failure is the write's.
    for flushed in [0, minus(Errno::IO)] {
        let mut durable = request(write(&file, 10, WriteMode::Dsync));
        if file.os().takes_dsync() {
            assert!(matches!(answer(&mut durable, 4), Verdict::Again));
            assert!(matches!(answer(&mut durable, refusal), Verdict::Again));
        }
        assert!(!file.os().takes_dsync(), "it is remembered");
        assert!(matches!(answer(&mut durable, 10), Verdict::Again), "the flush");
        match answer(&mut durable, flushed) {
            Verdict::Over(Ok(Outcome::Written)) if flushed == 0 => {}
            verdict => assert_eq!(error_of(verdict).syscall, "fdatasync"),
        }
    }
    // Where there was no flag it is an error.
    for op in [read(&file, 10), write(&file, 10, WriteMode::Plain)] {
        let error = error_of(answer(&mut request(op), refusal));
        assert_eq!(error.errno, Errno::OPNOTSUPP.raw_os_error());
    }
}

#[test]
fn a_number_finds_its_own_request_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let mut slots = Slots::new(2);
    let one = slots.insert(request(read(&file, 1)));
    let two = slots.insert(request(read(&file, 2)));
    assert!(slots.is_full());
    let (old, other) = (slots.get(one).1, slots.get(two).1);
    assert_eq!((slots.find(old), slots.find(other)), (Some(one), Some(two)));
    let _ = slots.remove(one).end(Ok(Outcome::Read(0)));
    assert_eq!(slots.find(old), None, "it is gone");
    let again = slots.insert(request(read(&file, 3)));
    assert_eq!(again, one, "the slot is used again");
    assert_eq!(slots.find(old), None, "by another");
    assert_ne!(slots.get(again).1, old);
    for number in [Slots::NONE, 2, u64::from(u32::MAX), 1 << 63] {
        assert_eq!(slots.find(number), None, "{number:#x}");
    }
    // Around the last generation.
    slots.set_generation(again, u32::MAX);
    let last = slots.get(again).1;
    let _ = slots.remove(again).end(Ok(Outcome::Read(0)));
    let first = slots.insert(request(read(&file, 4)));
    assert_eq!((first, slots.find(last)), (again, None));
    let number = slots.get(first).1;
    assert_eq!((number, slots.find(number)), (u64::from(first), Some(first)));
    for request in slots.remove_all() {
        let _ = request.end(Ok(Outcome::Read(0)));
    }
    assert_eq!(slots.len(), 0);
}

/// A ring, and what its listener hears. One whose end does not come ends the process, by its test's name.
fn ring(depth: usize) -> (Ring, Receiver<Done>) {
    const PATIENCE: Duration = Duration::from_mins(5);
    let (told, hears) = channel();
    let (alive, end) = channel::<()>();
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // Past the test's captured output, which is lost with the process.
            let _ = writeln!(std::io::stderr(), "{name} did not end within {PATIENCE:?}");
            std::process::abort();
        }
    });
    let on_done: OnDone = Box::new(move |dones, _| {
        // Dropped with the ring.
        let _ = &alive;
        dones.drain(..).for_each(|done| told.send(done).unwrap());
    });
    let options = EngineOptions { depth, helpers: 1 };
    (Ring::new(Arc::new(OsFs), options, on_done).unwrap(), hears)
}

fn hear(hears: &Receiver<Done>) -> Done {
    hears.recv_timeout(Duration::from_mins(1)).expect("a completion within a minute")
}

/// A read that ends when something is written to the other side.
fn endless(token: u64) -> ((Token, Op), std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let file = OsFile::of_descriptor(reader.into(), "a pipe");
    ((Token(token), read(&file, 5)), writer)
}

#[test]
fn no_more_than_depth_are_at_the_disk_and_the_rest_waits_in_line() {
    // Goal: what is beyond is queued, and moves up in order. Method: reads that end when we say so.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let (ring, hears) = ring(2);
    let (first, mut one) = endless(1);
    let (second, mut two) = endless(2);
    let mut ops = vec![first, second];
    ops.extend((3..=5).map(|token| (Token(token), read(&file, 1))));
    ring.submit(&mut ops);
    assert!(ops.is_empty());
    {
        let state = ring.shared.lock();
        assert_eq!((state.slots.len(), state.queue.len(), state.outstanding), (2, 3, 5));
    }
    assert!(hears.recv_timeout(Duration::from_millis(50)).is_err(), "there is no room for them");
    one.write_all(b"bytes").unwrap();
    let order: Vec<_> = (0..4).map(|_| hear(&hears).token.0).collect();
    assert_eq!(order, [1, 3, 4, 5]);
    two.write_all(b"bytes").unwrap();
    let done = hear(&hears);
    assert!(matches!(done.outcome, Ok(Outcome::Read(5))), "{done:?}");
    assert_eq!(done.buffer.as_deref(), Some(&b"bytes"[..]));
}

#[test]
fn a_disk_with_reads_enough_is_brought_more_by_the_reaper() {
    // Goal: a busy caller does not enter the kernel for each of many reads. Method: reads that end when we say so.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let (ring, hears) = ring(2 * ENOUGH);
    let (mut ops, mut writers): (Vec<_>, Vec<_>) = (0..ENOUGH as u64).map(endless).unzip();
    ring.submit(&mut ops);
    ring.submit(&mut vec![(Token(100), read(&file, 1))]);
    {
        let state = ring.shared.lock();
        assert_eq!((state.slots.len(), state.queue.len()), (ENOUGH, 1));
    }
    writers[0].write_all(b"bytes").unwrap();
    assert_eq!([0; 2].map(|_| hear(&hears).token), [Token(0), Token(100)]);
    for writer in &mut writers[1..] {
        writer.write_all(b"bytes").unwrap();
        hear(&hears);
    }
}

#[test]
fn flushes_at_the_disk_do_not_keep_a_read_from_it() {
    // Goal: what may take long is not waited for. A flush does not last as long as a test says, so: they do not count.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let mut slots = Slots::new(3);
    let sync = || request(Op::Sync { file: file.clone() });
    let (_, _) = (slots.insert(sync()), slots.insert(sync()));
    assert_eq!((slots.len(), slots.brief()), (2, 0));
    let index = slots.insert(request(read(&file, 1)));
    assert_eq!((slots.len(), slots.brief()), (3, 1));
    let _ = slots.remove(index).end(Ok(Outcome::Read(0)));
    assert_eq!((slots.len(), slots.brief()), (2, 0));
    for request in slots.remove_all() {
        let _ = request.end(Ok(Outcome::Synced));
    }
}

#[test]
fn writes_past_the_page_cache_count_as_brief_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    for direct in [false, true] {
        let options = OpenOptions::replace(0o600).with_direct(direct);
        let file = OsFs.open(&dir.path().join("direct"), options).unwrap();
        for (mode, is_brief) in [(WriteMode::Plain, file.is_direct()), (WriteMode::Dsync, false)] {
            let buffer = Buffer::copy_of(&[1; GRAIN]);
            let request = request(Op::Write { file: file.clone(), at: 0, buffer, mode });
            assert_eq!(request.is_brief(), is_brief, "{direct}, {mode:?}");
            let _ = request.end(Ok(Outcome::Written));
        }
    }
}

#[test]
fn the_drop_waits_for_what_is_in_flight() {
    let (ring, hears) = ring(4);
    let (op, mut writer) = endless(1);
    ring.submit(&mut vec![op]);
    let dropping = std::thread::spawn(move || drop(ring));
    // It would be quick, were it not to wait.
    assert!(hears.recv_timeout(Duration::from_millis(50)).is_err());
    assert!(!dropping.is_finished());
    writer.write_all(b"bytes").unwrap();
    assert_eq!(hear(&hears).token, Token(1));
    dropping.join().unwrap();
    assert!(hears.recv().is_err(), "the listener is gone with the ring");
}

#[test]
fn a_locked_file_stays_locked_until_the_last_operation_on_it_has_ended() {
    // Goal: the owner's late operations hold its lock, whatever the owner did with its own handle. Method: a lock on
    // a pipe, which another description of the same pipe is refused.
    let (ring, hears) = ring(4);
    let (op, mut writer) = endless(1);
    let Op::Read { file, .. } = &op.1 else { unreachable!() };
    assert!(OsFs.try_lock(file).unwrap());
    let path = format!("/proc/self/fd/{}", file.os().raw());
    let other = OsFile::of_descriptor(std::fs::File::open(path).unwrap().into(), "the same pipe");
    ring.submit(&mut vec![op]);
    assert!(!OsFs.try_lock(&other).unwrap());
    writer.write_all(b"bytes").unwrap();
    drop(hear(&hears));
    // The kernel lets go of the file a moment after it has posted the completion.
    let start = std::time::Instant::now();
    while !OsFs.try_lock(&other).unwrap() {
        assert!(start.elapsed() < Duration::from_mins(1), "it is held for ever");
        std::thread::yield_now();
    }
}

/// A completion of no request comes to the ring.
fn complete_nobodys(ring: &Ring, number: u64) {
    let mut state = ring.shared.lock();
    ring.shared.push(&mut state, &opcode::Nop::new().build().user_data(number));
    drop(ring.shared.send(state));
}

#[test]
fn a_stale_completion_touches_nobody_and_is_a_mistake_that_tests_find() {
    // Goal: it ends no other request. In a build with debug assertions it breaks the ring, and that is a second
    // goal: everybody is answered then, and what the kernel still has is not freed.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let (ring, hears) = ring(1);
    ring.submit(&mut vec![(Token(1), write(&file, 10, WriteMode::Plain))]);
    assert!(hear(&hears).outcome.is_ok());
    // The one slot was used once: this was that request's number, and now another's turn.
    let (op, mut writer) = endless(2);
    let Op::Read { file: pipe, .. } = &op.1 else { unreachable!() };
    let pipe = pipe.clone();
    ring.submit(&mut vec![op, (Token(3), read(&file, 10))]);
    complete_nobodys(&ring, 0);
    if cfg!(debug_assertions) {
        let mut heard = [hear(&hears), hear(&hears)];
        heard.sort_by_key(|done| done.token);
        for (done, token) in heard.iter().zip([2, 3]) {
            assert_eq!(done.token, Token(token));
            let error = done.outcome.as_ref().unwrap_err();
            assert_eq!(error.errno, Errno::IO.raw_os_error());
            assert!(error.to_string().contains("broke down"), "{error}");
        }
        assert!(heard[0].buffer.is_none(), "the kernel may write to it for ever");
        assert!(heard[1].buffer.is_some(), "the kernel never had it");
        // Later ones hear the same; jobs still run.
        let job: Job = Box::new(|_| Ok(None));
        ring.submit(&mut vec![(Token(4), read(&file, 10)), (Token(5), Op::Job(job))]);
        assert_eq!(hear(&hears).outcome.unwrap_err().errno, Errno::IO.raw_os_error());
        assert!(matches!(hear(&hears).outcome, Ok(Outcome::Job(None))));
        drop(ring);
        let descriptor = pipe.os().raw();
        drop(pipe);
        // SAFETY: the request that was leaked keeps it open.
        let kept = unsafe { BorrowedFd::borrow_raw(descriptor) };
        assert!(rustix::fs::fstat(kept).is_ok(), "its file is not let go of either");
        writer.write_all(b"bytes").unwrap();
    } else {
        writer.write_all(b"bytes").unwrap();
        assert_eq!(hear(&hears).token, Token(2));
        assert_eq!(hear(&hears).token, Token(3));
    }
}

#[test]
fn a_ring_that_the_kernel_does_not_know_any_more_answers_everybody() {
    // Goal: an answer of `io_uring_enter` that does not pass. Method: another file under the ring's number. The
    // reaper sleeps in the old one and cannot be reached, the submission is what finds out.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let (ring, hears) = ring(2);
    ring.submit(&mut vec![(Token(1), write(&file, 10, WriteMode::Plain))]);
    assert!(hear(&hears).outcome.is_ok());
    // Into its sleep, as far as one can tell from here.
    std::thread::sleep(Duration::from_millis(20));
    let null = std::fs::File::open("/dev/null").unwrap();
    let number = ring.shared.ring.as_raw_fd();
    // SAFETY: the ring owns this number; it goes on owning it, with another file behind it.
    let mut descriptor = unsafe { rustix::fd::FromRawFd::from_raw_fd(number) };
    rustix::io::dup2(&null, &mut descriptor).unwrap();
    let _: i32 = std::os::fd::IntoRawFd::into_raw_fd(descriptor);
    ring.submit(&mut (2..6).map(|token| (Token(token), write(&file, GRAIN, WriteMode::Plain))).collect());
    for _ in 2..6 {
        let error = hear(&hears).outcome.unwrap_err();
        assert_eq!((error.syscall, error.errno), ("io_uring_enter", Errno::IO.raw_os_error()));
    }
    drop(ring);
}

#[test]
fn who_finds_a_sender_leaves_the_operation_to_it_and_the_reaper_relieves_it() {
    // Goal: no caller waits for another's system call, and none sends for all as long as they come. Method: we are
    // the one who is in the kernel, for as long as we say.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let (ring, hears) = ring(1);
    let (op, mut writer) = endless(1);
    ring.submit(&mut vec![op]);
    ring.shared.lock().sender = Sender::Somebody;
    ring.submit(&mut vec![(Token(2), read(&file, 1))]);
    assert_eq!(ring.shared.lock().queue.len(), 1, "it is ours to send");
    // Room is made, by the reaper; it tells before it asks.
    writer.write_all(b"bytes").unwrap();
    assert_eq!(hear(&hears).token, Token(1));
    let start = std::time::Instant::now();
    loop {
        let mut state = ring.shared.lock();
        assert_eq!(state.queue.len(), 1);
        if state.sender == Sender::Relieved {
            // Back from the kernel.
            state.sender = Sender::Nobody;
            ring.shared.turn.notify_all();
            break;
        }
        drop(state);
        assert!(start.elapsed() < Duration::from_mins(1), "nobody relieves us");
        std::thread::yield_now();
    }
    assert_eq!(hear(&hears).token, Token(2));
}

#[test]
fn what_the_kernel_refuses_for_a_while_is_sent_by_a_helper() {
    // Goal: nothing is lost, though nobody submits or reaps meanwhile. Method: one entry that is not there, which
    // the kernel does not take; a moment later it is no longer asked for.
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let (ring, hears) = ring(4);
    let mut state = ring.shared.lock();
    state.unsent = PER_ENTER;
    let state = ring.shared.send(state);
    assert!(state.is_resending);
    drop(state);
    ring.submit(&mut vec![(Token(1), read(&file, 10))]);
    assert!(hears.recv_timeout(Duration::from_millis(30)).is_err(), "the kernel takes nothing");
    let mut state = ring.shared.lock();
    while state.sender != Sender::Nobody {
        drop(state);
        state = ring.shared.lock();
    }
    state.unsent = 0;
    drop(state);
    assert_eq!(hear(&hears).token, Token(1));
}
