//! What the key-value log promises while it is open, where one thing at a time goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringbolt_core::Code;
use ringbolt_core::format::entry;
use ringbolt_core::format::synced::Synced;
use ringbolt_core::wal::{Answer, Options, Phase, Records, Request, Run, SyncMode, Verdict, key_value};
use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Disk, Done, Driver, Op, Time, Token, Waker};

use crate::support::{DIRECTORY, Log, insomniac, interrupted, path, watched};
use crate::{
    Sequences, delete, file, from_sequence, log_of, must_hold, numbered, options, put, with_files_of,
};

const SYNC_MODES: [SyncMode; 3] = [SyncMode::Auto, SyncMode::Dsync, SyncMode::Fdatasync];

fn puts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| put(format!("key-{index}"), vec![index as u8; 200])).collect()
}

/// A batch of so many records of about a hundred KiB each.
fn large(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| put([], vec![index as u8; 100_000 + index])).collect()
}

/// A machine's disk that tells of a finished call on SYNCED only three writes of the log later, or when none come.
fn slow_syncs(sim: &Sim) -> Disk {
    let Disk { fs, driver, backend } = sim.disk();
    let slow = move || -> ringbolt_disk::Result<Box<dyn Driver>> {
        Ok(Box::new(SlowSyncs { driver: driver()?, slow: Vec::new(), held: Vec::new() }))
    };
    Disk { fs, driver: Box::new(slow), backend }
}

struct SlowSyncs {
    driver: Box<dyn Driver>,
    /// What is to be told late.
    slow: Vec<Token>,
    /// What is done and not told; and for how many writes, or else rounds, more.
    held: Vec<(u32, u32, Done)>,
}

impl Driver for SlowSyncs {
    fn submit(&mut self, token: Token, op: Op) {
        if format!("{op:?}").contains("SYNCED") {
            self.slow.push(token);
        } else if matches!(op, Op::Write { .. }) {
            self.held.iter_mut().for_each(|(writes, ..)| *writes = writes.saturating_sub(1));
        }
        self.driver.submit(token, op);
    }

    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>) {
        let mut done = Vec::new();
        let until = if self.held.is_empty() { until } else { Some(self.now()) };
        self.driver.wait(until, &mut done);
        self.held.iter_mut().for_each(|(_, rounds, _)| *rounds -= 1);
        let told = self.held.extract_if(.., |(writes, rounds, _)| *writes == 0 || *rounds == 0);
        out.extend(told.map(|(.., done)| done));
        for done in done {
            if self.slow.contains(&done.token) { self.held.push((3, 200, done)) } else { out.push(done) }
        }
    }

    fn waker(&self) -> Waker {
        self.driver.waker()
    }

    fn now(&self) -> Time {
        self.driver.now()
    }
}

// ---- acknowledging ----------------------------------------------------------------------------------------

#[test]
fn one_write_is_at_the_disk_and_synced_before_the_next() {
    // Goal: invariant 1. Method: twenty submissions, and every operation that the driver is handed, in order.
    let sim = Sim::new(1);
    let (disk, seen) = watched(&sim);
    let options = Options { sync: SyncMode::Fdatasync, ..with_files_of(1 << 20) };
    let mut log = Log::open_on(disk, options, |_| {}).expect("opens");
    let bodies = puts(20);
    for (index, body) in bodies.iter().enumerate() {
        log.submit(index as u64 + 1, std::slice::from_ref(body), index % 2 == 0).expect("is taken");
        log.turn(1 + index % 3);
    }
    log.turn_until(|status| status.written_lsn == 20);
    let seen = seen.lock().expect("nobody panics").clone();
    let of_the_file = |op: &&String| op.contains("wal_00000000.log");
    let operations: Vec<&String> = seen.iter().filter(of_the_file).collect();
    for (index, pair) in operations.windows(2).enumerate() {
        let is = |op: &str, kind: &str| op.starts_with(kind);
        assert!(is(pair[0], "Write") != is(pair[1], "Write"), "{index}: {pair:?}");
    }
}

#[test]
fn a_write_has_at_most_a_mebibyte_or_one_record() {
    // Goal: what the rule of torn tails rests on. Method: a batch of several MiB, and every write's length.
    let sim = Sim::new(1);
    let (disk, seen) = watched(&sim);
    let mut log = Log::open_on(disk, with_files_of(64 << 20), |_| {}).expect("opens");
    let bodies = [large(25), vec![put("huge", vec![9; 3 << 20])], large(3)].concat();
    log.submit(1, &bodies, true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == bodies.len() as u64);
    assert_eq!(log.handle.stats().runs, 1, "it is one run all the same");
    let seen = seen.lock().expect("nobody panics").clone();
    let writes = seen.iter().filter(|op| op.starts_with("Write") && op.contains(".log"));
    let bytes: Vec<usize> =
        writes.map(|op| op.split(", ").nth(2).expect("a length").parse().expect("a number")).collect();
    assert!(bytes.iter().filter(|&&bytes| bytes > 1 << 20).count() == 1, "{bytes:?}");
    assert!(bytes.len() >= 5 && bytes.iter().max() == Some(&(29 + 4 + (3 << 20))), "{bytes:?}");
    log.close().expect("closes");
    must_hold(&sim, &bodies);
}

#[test]
fn what_is_only_to_be_written_is_acknowledged_before_it_is_durable_and_durable_soon() {
    for sync in SYNC_MODES {
        let (sim, mut log) = log_of(Options { sync, ..options() });
        let began = sim.fs().now();
        log.submit(1, &puts(1), false).expect("is taken");
        log.turn_until(|status| status.written_lsn == 1);
        assert_eq!(log.handle.status().durable_lsn, 0, "{sync:?}: nobody asked for it");
        log.turn_until(|status| status.durable_lsn == 1);
        let took = sim.fs().now().since(began);
        assert!(took < Duration::from_secs(1), "{sync:?}: within the interval, not after {took:?}");
    }
}

#[test]
fn a_flush_is_answered_once_what_is_before_it_is_durable() {
    let (sim, mut log) = log_of(options());
    let first = log.handle.flush();
    log.turn_until(|status| status.flushes_done >= first);
    log.submit(1, &puts(3), false).expect("is taken");
    let second = log.handle.flush();
    log.turn_until(|status| status.flushes_done >= second);
    assert_eq!(log.handle.status().durable_lsn, 3);
    must_hold(&sim.image().boot_with([], 1), &puts(3));
}

#[test]
fn close_drains_syncs_and_releases() {
    // W12. Method: close with work queued that nobody waits for; then everything is durable and the lock is free.
    for sync in SYNC_MODES {
        let (sim, log) = log_of(Options { sync, ..options() });
        let bodies = puts(100);
        for (index, ten) in bodies.chunks(10).enumerate() {
            log.submit(index as u64 * 10 + 1, ten, false).expect("is taken");
        }
        log.handle.ask(Request::Rotate);
        log.close().expect("closes");
        must_hold(&sim.image().boot_with([], 1), &bodies);
        must_hold(&sim, &bodies);
    }
}

#[test]
fn nobody_sleeps_over_what_was_asked() {
    // Goal: no lost wake and no idle spin. Method: a driver that panics where nothing would wake it.
    let sim = Sim::new(1);
    let mut log = Log::open_on(insomniac(&sim), options(), |_| {}).expect("opens");
    log.append_all(&puts(60));
    log.request(Request::Rotate).expect("rotates");
    log.request(Request::TruncateBefore(30)).expect("truncates");
    let flush = log.handle.flush();
    log.turn_until(|status| status.flushes_done >= flush);
    log.close().expect("closes");
}

#[test]
fn two_owners_do_not_meet() {
    // W19: in the same process, and in another.
    let (sim, log) = log_of(options());
    let short = Options { lock_timeout: Duration::from_millis(20), ..options() };
    let error = Log::open(&sim, short).expect_err("it is taken");
    assert_eq!(error.code, Code::WalLocked, "{error}");
    assert!(error.pid.is_some());
    log.close().expect("closes");
    Log::open(&sim, options()).expect("opens");
}

// ---- limits -----------------------------------------------------------------------------------------------

#[test]
fn a_record_that_no_reader_would_take_is_refused_and_nothing_is_written() {
    // W13: amaters writes more than 100 MiB, acknowledges it, and refuses to read it.
    let (sim, mut log) = log_of(options());
    assert_eq!(log.handle.record_bytes_max(), entry::BODY_BYTES_MAX as u64);
    let mut body = put([], vec![1; entry::KEY_VALUE_BYTES_MAX]);
    assert_eq!(body.len(), entry::BODY_BYTES_MAX);
    body.push(0);
    body[5..9].copy_from_slice(&(entry::KEY_VALUE_BYTES_MAX as u32 + 1).to_le_bytes());
    let error = log.submit(1, &[body], true).expect_err("refused");
    assert_eq!(error.code, Code::WalRecordTooLarge, "{error}");
    assert_eq!((error.size, error.limit), (Some(104_857_585), Some(104_857_584)));
    log.append_all(&[put("a", "1")]);
    log.close().expect("closes");
    must_hold(&sim, &[put("a", "1")]);
}

#[test]
fn a_batch_above_the_limit_is_refused_and_one_at_it_is_taken() {
    let (_, log) = log_of(Options { queue_bytes_max: 1 << 30, ..with_files_of(1 << 30) });
    let quarter = put([], vec![1; entry::LENGTH_MAX as usize / 4]);
    let four = vec![quarter.clone(); 4];
    let error = log.submit(1, &four, true).expect_err("refused");
    assert_eq!(error.code, Code::WalRecordTooLarge, "{error}");
    log.submit(1, &four[..3], true).expect("is taken");
}

#[test]
#[should_panic(expected = "each record is an entry's body")]
fn a_body_that_is_none_is_the_callers_mistake() {
    let (_, log) = log_of(options());
    let mut body = delete("key");
    body.push(1);
    let _ = log.submit(1, &[body], true);
}

#[test]
fn staged_bodies_are_as_good_as_bodies_apart() {
    let (sim, mut log) = log_of(options());
    let bodies = puts(40);
    let staged: Vec<u8> =
        bodies.iter().flat_map(|body| [&(body.len() as u32).to_le_bytes()[..], body].concat()).collect();
    let records = Records::Staged { count: 40, bytes: &staged };
    log.handle.submit(Run { epoch: 0, first_lsn: 1, records, durable: true }).expect("is taken");
    log.turn_until(|status| status.durable_lsn == 40);
    let stats = log.handle.stats();
    assert_eq!((stats.records, stats.runs, stats.bytes), (40, 1, bodies.concat().len() as u64));
    log.close().expect("closes");
    must_hold(&sim, &bodies);
}

// ---- failures ---------------------------------------------------------------------------------------------

#[test]
fn a_failed_write_or_flush_ends_the_log_and_reopening_recovers() {
    // W2, W3: durability rule 2. Method: fail each kind of operation once; nothing is acknowledged any more.
    for sync in SYNC_MODES {
        for (call, name) in [(Call::Write, ".log"), (Call::Sync, ".log"), (Call::Write, "SYNCED")] {
            let (sim, mut log) = log_of(Options { sync, ..options() });
            log.append(1, &put("a", "1")).expect("appends");
            sim.fail(Fault::new(call).named(name));
            log.submit(2, &[put("b", "2")], false).expect("is taken");
            let flush = log.handle.flush();
            log.turn_until(|status| status.phase == Phase::Failed || status.flushes_done >= flush);
            for _ in 0..100 {
                log.service.turn();
            }
            if sync != SyncMode::Fdatasync && call == Call::Sync && log.handle.failure().is_none() {
                // Every write carried its own durability.
                continue;
            }
            let failure = log.handle.failure().expect("it failed");
            assert_eq!((failure.code, failure.errno), (Code::WalIo, Some(5)), "{failure}");
            let error = log.submit(3, &[put("c", "3")], true).expect_err("poisoned");
            assert_eq!(error.code, Code::WalPoisoned, "{error}");
            assert_eq!(log.close().expect_err("it failed").code, Code::WalIo);
            let log = Log::open(&sim, options()).expect("opens again");
            assert!(log.last_lsn() >= 1, "what was acknowledged is there");
        }
    }
}

#[test]
fn a_file_that_lost_its_name_is_no_place_to_acknowledge_into() {
    // Rule 14: flush, rotation and close look.
    type Ask = fn(&mut Log);
    let asks: [Ask; 3] = [
        |log| {
            log.handle.flush();
        },
        |log| {
            log.handle.ask(Request::Rotate);
        },
        |log| log.handle.close(),
    ];
    for ask in asks {
        let (sim, mut log) = log_of(options());
        log.append(1, &put("a", "1")).expect("appends");
        sim.remove_file(file(0));
        ask(&mut log);
        log.turn_until(|status| status.phase == Phase::Failed);
        let failure = log.handle.failure().expect("it failed");
        assert_eq!((failure.code, failure.errno), (Code::WalIo, Some(2)), "{failure}");
    }
}

#[test]
fn a_full_disk_refuses_what_it_has_no_room_for_and_the_log_works_on() {
    // Rule 9. Method: room for LOCK, SYNCED and one grain of records; then for more.
    for sync in SYNC_MODES {
        let (sim, mut log) = log_of(Options { sync, ..with_files_of(1 << 20) });
        log.append(1, &put("a", vec![1; 4000])).expect("appends");
        log.turn(20);
        sim.set_capacity(Some(0));
        let body = put("b", vec![2; 4096]);
        log.submit(2, std::slice::from_ref(&body), true).expect("is taken");
        log.turn_until(|status| status.epoch == 1 || status.phase == Phase::Failed);
        if log.handle.failure().is_some() {
            // A part of it was written: then nobody can say that nothing was.
            assert!(sim.read_file(file(0)).len() > 29 + 4001);
            continue;
        }
        let refusal = log.handle.refusal().expect("there is no room");
        assert_eq!((refusal.from_lsn, refusal.error.code), (2, Code::WalNoSpace));
        assert_eq!(refusal.error.errno, Some(28));
        sim.set_capacity(None);
        let epoch = log.handle.status().epoch;
        let records: &[&[u8]] = &[&body];
        let run = Run { epoch, first_lsn: 2, records: Records::Apart(records), durable: true };
        log.handle.submit(run).expect("is taken");
        log.turn_until(|status| status.durable_lsn == 2);
        log.close().expect("closes");
        must_hold(&sim, &[put("a", vec![1; 4000]), body]);
    }
}

#[test]
fn a_full_disk_that_took_a_part_ends_the_log_and_one_that_took_nothing_does_not() {
    // Goal: refused means that nothing was written, or it is not said. Method: many seeds decide how much of the write
    // landed before ENOSPC; the file's length tells which it must be.
    let (mut refused, mut failed) = (0, 0);
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let mut log = Log::open(&sim, options()).expect("opens");
        log.append(1, &put("a", "1")).expect("appends");
        let before = sim.read_file(file(0));
        sim.fail(Fault::new(Call::Write).named(".log").errno([28, 122, 27][seed as usize % 3]));
        log.submit(2, &[put("b", vec![2; 600])], true).expect("is taken");
        log.turn_until(|status| status.epoch == 1 || status.phase == Phase::Failed);
        let is_untouched = sim.read_file(file(0)) == before;
        assert_eq!(log.handle.failure().is_none(), is_untouched, "seed {seed}");
        if is_untouched {
            refused += 1;
            log.append(2, &put("c", "3")).expect("works on");
        } else {
            failed += 1;
        }
        let last = log.handle.status().durable_lsn;
        drop(log.close());
        let log = Log::open(&sim, options()).expect("opens");
        assert!(log.last_lsn() >= last);
    }
    assert!(refused > 10 && failed > 10, "{refused} refused, {failed} failed");
}

#[test]
fn a_log_that_fails_while_it_meets_a_full_disk_closes() {
    // Goal: nothing is awaited that was never begun. Method: a write meets a full disk, and in the same turn SYNCED an
    // error, so that nobody looks any more at what the write left; many seeds decide which of them is told first.
    for sync in SYNC_MODES {
        for seed in 0..50 {
            let sim = Sim::new(seed);
            let mut log = Log::open(&sim, Options { sync, ..options() }).expect("opens");
            log.append(1, &put("a", "1")).expect("appends");
            sim.fail(Fault::new(Call::Write).named(".log").errno(28));
            sim.fail(Fault::new(Call::Write).named("SYNCED"));
            log.submit(2, &[put("b", "2")], true).expect("is taken");
            log.turn_until(|status| status.phase == Phase::Failed);
            assert_eq!(log.close().expect_err("it failed").code, Code::WalIo);
            sim.clear_faults();
            let log = Log::open(&sim, options()).expect("opens again");
            assert!(log.last_lsn() >= 1, "what was acknowledged is there");
        }
    }
}

#[test]
fn a_full_disk_in_the_middle_of_a_batch_ends_the_log() {
    // Goal: a batch of several writes is refused whole or not at all. Method: the second of them meets ENOSPC, and
    // nothing of it is written.
    let mut failed = 0;
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let mut log = Log::open(&sim, with_files_of(64 << 20)).expect("opens");
        sim.fail(Fault::new(Call::Write).named(".log").errno(28).skip(1));
        log.submit(1, &large(25), true).expect("is taken");
        log.turn_until(|status| status.phase == Phase::Failed || status.durable_lsn == 25);
        assert!(log.handle.refusal().is_none());
        failed += usize::from(log.handle.failure().is_some());
    }
    assert_eq!(failed, 20);
}

#[test]
fn without_room_for_the_next_file_records_are_refused_and_the_log_works_on() {
    for sync in SYNC_MODES {
        let (sim, mut log) = log_of(Options { sync, ..options() });
        let bodies = puts(40);
        log.append_all(&bodies[..15]);
        sim.fail(Fault::new(Call::Open).named("wal_00000001.log").errno(28).forever());
        for lsn in 16..=30 {
            log.submit(lsn, &bodies[lsn as usize - 1..lsn as usize], true).expect("is taken");
        }
        log.turn_until(|status| status.epoch == 1);
        let refusal = log.handle.refusal().expect("there is no room");
        assert_eq!(refusal.error.code, Code::WalNoSpace, "{}", refusal.error);
        assert_eq!(log.request(Request::Rotate).expect_err("no room either").code, Code::WalNoSpace);
        sim.clear_faults();
        let mut next = refusal.from_lsn;
        while next <= 40 {
            log.append(next, &bodies[next as usize - 1]).expect("appends");
            next += 1;
        }
        log.close().expect("closes");
        must_hold(&sim, &bodies);
    }
}

#[test]
fn why_the_next_file_cannot_be_had_is_told_as_it_is() {
    // Goal: nobody is sent to free some space where space is not what is missing. Method: no room, no descriptor, and
    // a file of somebody else's in the next one's place.
    for (errno, code, advice) in
        [(28, Code::WalNoSpace, true), (24, Code::WalNoSpace, false), (17, Code::WalIo, false)]
    {
        let (sim, mut log) = log_of(options());
        log.append_all(&puts(1));
        if errno == 17 {
            sim.write_file(file(1), "another's");
        } else {
            sim.fail(Fault::new(Call::Open).named("wal_00000001.log").errno(errno));
        }
        let error = log.request(Request::Rotate).expect_err("it cannot be had");
        assert_eq!((error.code, error.errno), (code, Some(errno)), "{error}");
        assert_eq!(error.message.contains("free some space"), advice, "{error}");
        log.append(2, &put("b", "2")).expect("works on");
    }
}

#[test]
fn a_full_disk_does_not_keep_a_log_from_closing() {
    // No promise rests on SYNCED: what it cannot be told now the next open finds out.
    let (sim, mut log) = log_of(options());
    log.append(1, &put("a", "1")).expect("appends");
    sim.fail(Fault::new(Call::Write).named("SYNCED").errno(28).forever());
    log.append(2, &put("b", "2")).expect("appends");
    log.close().expect("closes");
    sim.clear_faults();
    must_hold(&sim, &[put("a", "1"), put("b", "2")]);
}

#[test]
fn errors_while_opening_keep_their_errno_and_change_nothing_acknowledged() {
    // W4, W21. Method: fail each kind of call in turn while an unclean log is opened, then open it.
    let calls = [
        (Call::Open, 24),
        (Call::Len, 5),
        (Call::SetLen, 5),
        (Call::Read, 5),
        (Call::Write, 28),
        (Call::Sync, 5),
        (Call::Lock, 5),
        (Call::List, 13),
        (Call::Rename, 5),
        (Call::SyncDir, 5),
        (Call::CreateDir, 30),
    ];
    for (call, errno) in calls {
        for skip in 0..8 {
            let sim = Sim::new(1);
            let bodies = puts(3);
            let bytes: Vec<u8> =
                (0..).zip(&bodies).flat_map(|(sequence, body)| crate::record(sequence, body)).collect();
            sim.write_file(file(0), [&bytes[..], b"torn"].concat());
            sim.fail(Fault::new(call).errno(errno).skip(skip));
            match Log::open(&sim, options()) {
                Ok(log) => drop(log),
                Err(error) => {
                    let code = if errno == 28 { Code::WalNoSpace } else { Code::WalIo };
                    assert_eq!((error.code, error.errno), (code, Some(errno)), "{call:?} {skip}: {error}");
                }
            }
            sim.clear_faults();
            must_hold(&sim, &bodies);
        }
    }
}

// ---- requests ---------------------------------------------------------------------------------------------

#[test]
fn a_rotation_goes_on_in_the_next_file_and_an_empty_file_is_one() {
    let (sim, mut log) = log_of(options());
    assert_eq!(log.request(Request::Rotate).expect("rotates"), Answer::Rotated);
    assert_eq!(sim.list(DIRECTORY), ["LOCK", "SYNCED", "wal_00000000.log"]);
    log.append(1, &put("a", "1")).expect("appends");
    assert_eq!(log.request(Request::Rotate).expect("rotates"), Answer::Rotated);
    log.append(2, &put("b", "2")).expect("appends");
    assert_eq!(sim.read_file(file(1)), crate::record(1, &put("b", "2")));
    let cut = sim.image().boot_with([], 1);
    let said = Synced::decode(&cut.read_file(path("SYNCED"))).expect("whole");
    assert!(said >= Synced { file: 0, offset: 31 }, "a rotation makes SYNCED durable: {said:?}");
    must_hold(&cut, &[put("a", "1"), put("b", "2")]);
}

#[test]
fn a_truncation_waits_for_the_records_before_it() {
    // Rule 15.
    let (sim, mut log) = log_of(with_files_of(300));
    for lsn in 1..=9 {
        log.submit(lsn, &puts(9)[lsn as usize - 1..lsn as usize], false).expect("is taken");
    }
    log.request(Request::TruncateBefore(10)).expect("truncates");
    assert_eq!(log.handle.status().durable_lsn, 9);
    let log = Log::open(&sim.image().boot_with([], 1), options()).expect("opens");
    assert_eq!(log.last_lsn(), 9, "the next sequence is not lost");
}

#[test]
fn a_truncation_settles_beside_somebody_who_never_stops_appending() {
    // Goal: a truncation does not wait for a pause. Method: an appender that has the next record ready in the same turn
    // in which the one before is durable, syncs that take several of its appends, and no rotation, which would pause it.
    for sync in SYNC_MODES {
        let sim = Sim::new(1);
        let options = Options { sync, ..with_files_of(1 << 20) };
        let mut log = Log::open_on(slow_syncs(&sim), options, |_| {}).expect("opens");
        for _ in 0..3 {
            log.append_all(&puts(5));
            log.request(Request::Rotate).expect("rotates");
        }
        log.append_all(&puts(1));
        let asked = log.handle.ask(Request::TruncateBefore(16));
        let mut last = 16;
        let answer = loop {
            assert!(last < 1000, "{sync:?}: it waits for ever");
            if let Some((number, answer)) = log.handle.take_answers().pop() {
                assert_eq!(number, asked);
                break answer.expect("truncates");
            }
            if log.handle.status().durable_lsn == last {
                log.submit(last + 1, &puts(1), true).expect("is taken");
                last += 1;
            }
            log.turn(1);
        };
        assert_eq!(answer, Answer::Truncated { first_lsn: 16 }, "{sync:?}");
        assert_eq!(sim.list(DIRECTORY), ["LOCK", "SYNCED", "wal_00000003.log"]);
    }
}

#[test]
fn a_file_that_cannot_be_removed_is_told_and_stays_the_first() {
    let (sim, mut log) = log_of(with_files_of(300));
    log.append_all(&puts(5));
    for call in [Call::Remove, Call::SyncDir, Call::SyncDir] {
        sim.fail(Fault::new(call));
        let error = log.request(Request::TruncateBefore(4)).expect_err("it fails");
        assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error}");
        // The log begins where its first file does: what has no file any more is promised to nobody.
        let first = log.handle.status().first_lsn;
        assert_eq!(log.read(first).expect("reads"), puts(5)[first as usize - 1..], "{call:?}");
    }
    assert_eq!(
        log.request(Request::TruncateBefore(4)).expect("truncates"),
        Answer::Truncated { first_lsn: 4 }
    );
    log.close().expect("closes");
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.read(4).expect("reads"), puts(5)[3..]);
}

// ---- reading ----------------------------------------------------------------------------------------------

#[test]
fn a_range_is_read_from_wherever_it_begins() {
    let (sim, mut log) = log_of(with_files_of(1000));
    let bodies = puts(50);
    log.append_all(&bodies);
    for (from, to) in [(1, 50), (1, 1), (7, 8), (20, 19), (33, 50), (50, 50), (50, 60), (51, 60)] {
        let last = (to as usize).min(50);
        let expected = from_sequence(from - 1, bodies.get(from as usize - 1..last).unwrap_or_default());
        let own = numbered(log.handle.read(from, to).expect("begins")).expect("reads");
        assert_eq!(own, expected, "{from}..={to}");
        let source = key_value::read(sim.fs(), DIRECTORY, Sequences::Strict, Some(from), to).expect("begins");
        assert_eq!(numbered(source).expect("reads"), expected, "{from}..={to}");
    }
}

#[test]
fn a_handle_serves_what_is_durable_and_no_more() {
    let (_, mut log) = log_of(options());
    log.append_all(&puts(2));
    log.submit(3, &puts(3)[2..], false).expect("is taken");
    log.turn_until(|status| status.written_lsn == 3);
    assert_eq!(log.handle.status().durable_lsn, 2);
    assert_eq!(log.read(1).expect("reads"), puts(2));
}

#[test]
fn a_log_is_read_without_its_lock_while_it_is_written_rotated_and_truncated() {
    // Goal: every record comes in order, whatever happens meanwhile, or the read says that it was truncated. Method:
    // readers that go on a little at a time beside a log at work, on many seeds.
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let mut log = Log::open(&sim, with_files_of(700)).expect("opens");
        let bodies = puts(120);
        let mut readers = Vec::new();
        let mut overtaken = None;
        for (index, body) in bodies.iter().enumerate() {
            log.submit(index as u64 + 1, std::slice::from_ref(body), index % 3 == 0).expect("is taken");
            log.turn(1 + index % 4);
            if index % 10 == 5 {
                let source = key_value::read(sim.fs(), DIRECTORY, Sequences::Strict, None, u64::MAX);
                readers.push((source.expect("begins"), None::<u64>));
            }
            if index == 20 {
                let mut source =
                    key_value::read(sim.fs(), DIRECTORY, Sequences::Strict, None, u64::MAX).expect("begins");
                assert_eq!(source.next(1).expect("reads").expect("a record").first_lsn, 1);
                overtaken = Some(source);
            }
            if index == 60 {
                log.handle.ask(Request::TruncateBefore(40));
            }
            readers.retain_mut(|(source, last)| match source.next(1) {
                Ok(Some(chunk)) => {
                    assert!(last.is_none_or(|last| chunk.first_lsn == last + 1), "seed {seed}");
                    *last = Some(chunk.first_lsn + u64::from(chunk.count) - 1);
                    let body = &bodies[chunk.first_lsn as usize - 1];
                    assert_eq!(chunk.bytes[4..4 + body.len()], *body, "seed {seed}");
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    assert_eq!(error.code, Code::WalTruncated, "seed {seed}: {error}");
                    false
                }
            });
        }
        // Who reads so slowly that the files go is told, behind what it had in hand.
        let rest = numbered(overtaken.expect("it began"));
        assert_eq!(rest.expect_err("the files are gone").code, Code::WalTruncated, "seed {seed}");
    }
}

#[test]
fn a_truncation_at_any_moment_is_no_error_to_who_looks_without_the_lock() {
    // Goal: a writer that rotates and truncates is met at each call that looks, by verify, salvage and a reader; none
    // of them takes what is gone for an error or for damage. Method: that call waits until the writer has gone on,
    // once as far as to leave no file that was listed.
    for goes_on in [0, 5] {
        let mut met = [0; 3];
        for call in 0..400 {
            for (which, met) in met.iter_mut().enumerate() {
                let (sim, mut log) = log_of(with_files_of(700));
                let bodies = puts(20);
                log.append_all(&bodies);
                log.close().expect("closes");
                let (calls, machine) = (Arc::new(AtomicU32::new(0)), sim.clone());
                let called = calls.clone();
                let fs = interrupted(&sim, move || {
                    if calls.fetch_add(1, Ordering::SeqCst) == call {
                        let mut log = Log::open(&machine, with_files_of(700)).expect("opens");
                        log.append_all(&puts(goes_on));
                        log.request(Request::TruncateBefore(15 + goes_on as u64)).expect("truncates");
                        log.close().expect("closes");
                    }
                });
                let case = format!("{which}, call {call}, {goes_on} more");
                match which {
                    0 => {
                        let report = key_value::verify(&*fs, DIRECTORY, Sequences::Strict, &|_, _| Ok(()));
                        let report = report.unwrap_or_else(|error| panic!("{case}: {error}"));
                        assert_eq!(report.verdict, Verdict::Clean, "{case}: {report:?}");
                    }
                    1 => {
                        let found = key_value::salvage(fs, DIRECTORY).and_then(numbered);
                        let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
                        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{case}");
                        assert!(found.last().is_some_and(|(sequence, _)| *sequence >= 19), "{case}");
                    }
                    _ => match key_value::read(fs, DIRECTORY, Sequences::Strict, Some(1), u64::MAX)
                        .and_then(numbered)
                    {
                        Ok(found) => assert!(found.len() >= 20, "{case}: {}", found.len()),
                        Err(error) => assert_eq!(error.code, Code::WalTruncated, "{case}: {error}"),
                    },
                }
                *met += u32::from(called.load(Ordering::SeqCst) > call);
            }
        }
        assert!(met.iter().all(|&met| (20..400).contains(&met)), "each moment was met: {met:?}");
    }
}

#[test]
fn a_reader_serves_what_is_before_damage_and_then_tells() {
    let (sim, mut log) = log_of(with_files_of(1000));
    let bodies = puts(20);
    log.append_all(&bodies);
    sim.flip(file(2), 300, 0);
    let mut source = log.handle.read(1, 20).expect("begins");
    let mut found = Vec::new();
    let error = loop {
        match source.next(1) {
            Ok(Some(chunk)) => found.push(chunk.first_lsn),
            Ok(None) => panic!("it ended"),
            Err(error) => break error,
        }
    };
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    assert_eq!((error.code, error.segment), (Code::WalDamaged, Some(2)), "{error}");
    assert_eq!(error.first_lsn, Some(found.len() as u64 + 1));
}
