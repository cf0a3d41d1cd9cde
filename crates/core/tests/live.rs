//! A log read without its lock, beside the process that writes it: whatever the writer is in the middle of, what is
//! read is a range of what was appended, without an error and without a gap.

mod support;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use ringbolt_core::format::{GRAIN, HEAD_NAME, segment_name};
use ringbolt_core::wal::{self, Answer, Options, Phase, Request, Source};
use ringbolt_core::{Code, Error};
use ringbolt_disk::Fs;
use ringbolt_disk::sim::{Call, Fault, Sim};
use support::{DIRECTORY, Log, Model, any_sync_mode, interrupted, options, path, read_all, records, rng};

fn source(fs: &Arc<dyn Fs>, from: Option<u64>, to: Option<u64>) -> Result<Box<dyn Source>, Error> {
    wal::read(fs.clone(), Path::new(DIRECTORY), from, to)
}

/// Every record there is.
fn read(fs: &Arc<dyn Fs>, from: Option<u64>, to: Option<u64>) -> Result<Vec<Vec<u8>>, Error> {
    read_all(source(fs, from, to)?)
}

/// A log of three segments with ten one-grain frames each, and a fourth with three; killed.
fn four_segments() -> (Sim, Vec<Vec<u8>>) {
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    let all = records(33);
    for part in all.chunks(10) {
        log.append_all(part);
        if part.len() == 10 {
            log.request(Request::Rotate).expect("rotates");
        }
    }
    sim.kill();
    (sim, all)
}

fn segment(number: u64) -> std::path::PathBuf {
    path(&segment_name(number))
}

/// What a reader makes of the log at any moment: records `first..=last`, as they were appended.
struct Witness<'a> {
    seed: u64,
    fs: &'a Arc<dyn Fs>,
    model: &'a Model,
}

impl Witness<'_> {
    fn compare(&self, first: u64, found: &[Vec<u8>], what: &str) {
        let seed = self.seed;
        let last = first + found.len() as u64 - 1;
        assert!(last <= self.model.last(), "seed {seed}, {what}: LSN {last} of {}", self.model.last());
        for (lsn, record) in (first..).zip(found) {
            let is_it = *record == self.model.records[lsn as usize - 1];
            assert!(is_it, "seed {seed}, {what}: another record of LSN {lsn}");
        }
    }

    /// Everything that is durable can be read, and nothing else than what was submitted.
    fn read(&self, durable: u64) {
        let seed = self.seed;
        let Some((first, found)) = Self::collect(seed, self.fs) else { return };
        self.compare(first, &found, "a reader");
        let last = first + found.len() as u64 - 1;
        assert!(last >= durable, "seed {seed}: read up to LSN {last}, and {durable} is durable");
    }

    /// The first LSN and the records of a reading; none where there were none, or the log was truncated behind the
    /// reader's back after it had begun.
    fn collect(seed: u64, fs: &Arc<dyn Fs>) -> Option<(u64, Vec<Vec<u8>>)> {
        let mut source = source(fs, None, None).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        let (mut first, mut found) = (None, Vec::new());
        loop {
            match source.next(3000) {
                Ok(Some(chunk)) => {
                    let next = first.get_or_insert(chunk.first_lsn);
                    assert_eq!(chunk.first_lsn, *next + found.len() as u64, "seed {seed}: a gap");
                    found.extend(split(&chunk.bytes));
                }
                Ok(None) => return first.map(|first| (first, found)),
                Err(error) if error.code == Code::WalTruncated && first.is_some() => return None,
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
        }
    }
}

fn split(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((prefix, behind)) = rest.split_first_chunk::<4>() {
        let (record, behind) = behind.split_at(u32::from_le_bytes(*prefix) as usize);
        records.push(record.to_vec());
        rest = behind;
    }
    records
}

/// A reader that stays, and asks again and again.
struct Follower {
    source: Option<Box<dyn Source>>,
    next: Option<u64>,
}

impl Follower {
    fn poll(&mut self, witness: &Witness<'_>) {
        for (first, records) in self.collect(witness.seed, witness.fs) {
            witness.compare(first, &records, "a follower");
        }
    }

    /// What is new since the last time.
    fn collect(&mut self, seed: u64, fs: &Arc<dyn Fs>) -> Vec<(u64, Vec<Vec<u8>>)> {
        let mut found = Vec::new();
        if self.source.is_none() {
            self.source = Some(source(fs, None, None).expect("there is a log"));
            self.next = None;
        }
        let source = self.source.as_mut().expect("there is one");
        loop {
            match source.next(5000) {
                Ok(Some(chunk)) => {
                    let next = self.next.unwrap_or(chunk.first_lsn);
                    assert_eq!(chunk.first_lsn, next, "seed {seed}: a gap");
                    found.push((next, split(&chunk.bytes)));
                    self.next = Some(next + u64::from(chunk.count));
                }
                Ok(None) => return found,
                Err(error) if error.code == Code::WalTruncated => {
                    let first = error.first_lsn.expect("it says where the log begins");
                    assert!(self.next.is_some_and(|next| next < first), "seed {seed}: {error:?}");
                    self.source = None;
                    return found;
                }
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
        }
    }
}

/// One seed: a few owners of one log in turn, each of them closed or killed, and readers after every turn.
fn live_run(seed: u64) {
    let mut rng = rng(seed);
    let sim = Sim::new(seed);
    let fs = sim.disk().fs;
    let mut model = Model::default();
    let mut follower = Follower { source: None, next: None };
    for owner in 0..rng.random_range(1..4) {
        let options = Options {
            sync: any_sync_mode(&mut rng),
            segment_bytes: [16 << 10, 32 << 10][rng.random_range(0..2)],
            ..options()
        };
        let mut log = Log::open(&sim, options).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        let last = log.last_lsn();
        assert!(follower.next.is_none_or(|next| next <= last + 1), "seed {seed}: read, and lost by a kill");
        model.cut(last);
        for _ in 0..rng.random_range(5..40) {
            act(&mut log, &mut rng, &mut model, owner);
            for _ in 0..rng.random_range(0..3) {
                log.service.turn();
            }
            let durable = log.handle.status().durable_lsn;
            let witness = Witness { seed, fs: &fs, model: &model };
            witness.read(durable);
            follower.poll(&witness);
        }
        if rng.random_bool(0.5) {
            log.close().unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        } else {
            sim.kill();
        }
        Witness { seed, fs: &fs, model: &model }.read(0);
    }
}

fn act(log: &mut Log, rng: &mut SmallRng, model: &mut Model, owner: u64) {
    match rng.random_range(0..10) {
        0..7 => {
            let first = model.last() + 1;
            let count = rng.random_range(1..4);
            let run = model.run(rng, owner, count, 1200).to_vec();
            log.submit(first, &run, rng.random_bool(0.7)).expect("is taken");
        }
        7 => {
            log.handle.ask(Request::Rotate);
        }
        8 => {
            log.handle.ask(Request::TruncateBefore(rng.random_range(0..=model.last() + 1)));
        }
        _ => {
            log.handle.flush();
        }
    }
}

#[test]
fn a_reader_beside_a_writer_sees_a_whole_prefix_at_every_step() {
    // Goal: no lock is needed to read. Method: owners that append, rotate, truncate, close and die, and after
    // every turn of theirs a new reader and one that stays.
    if let Ok(seed) = std::env::var("RINGBOLT_SEED") {
        return live_run(seed.parse().expect("a number"));
    }
    for seed in 0..400 {
        let run = std::panic::catch_unwind(|| live_run(seed));
        assert!(run.is_ok(), "seed {seed} fails: RINGBOLT_SEED={seed} runs it alone");
    }
}

/// A writer that acts between any two calls of a reader. On this thread: a log's service never leaves it.
struct Writer {
    log: Log,
    rng: SmallRng,
    model: Model,
    /// How much more it has to say: a reader must come to an end.
    acts: u32,
}

std::thread_local! {
    static WRITER: RefCell<Option<Writer>> = const { RefCell::new(None) };
}

fn write_a_little() {
    WRITER.with_borrow_mut(|writer| {
        let Some(Writer { log, rng, model, acts }) = writer else { return };
        if *acts > 0 && rng.random_bool(0.3) {
            *acts -= 1;
            act(log, rng, model, 1);
        }
        for _ in 0..rng.random_range(0..4) {
            log.service.turn();
        }
    });
}

#[test]
fn a_writer_may_do_anything_between_two_calls_of_a_reader() {
    // Goal: what a reader saw first may be long past when it sees the next: no proof is older than what it belies.
    // Method: the writer appends, rotates and truncates before every call of the reader's.
    for seed in 0..500 {
        let sim = Sim::new(seed);
        let fs = interrupted(&sim, write_a_little);
        let mut rng = rng(seed);
        let options = Options { sync: any_sync_mode(&mut rng), segment_bytes: 16 << 10, ..options() };
        let mut log = Log::open(&sim, options).expect("opens");
        let mut model = Model::default();
        let run = model.run(&mut rng, 0, 1, 300).to_vec();
        log.submit(1, &run, true).expect("is taken");
        log.turn(10);
        WRITER.set(Some(Writer { log, rng, model, acts: 0 }));
        let mut follower = Follower { source: None, next: None };
        for _ in 0..4 {
            let durable = WRITER.with_borrow_mut(|writer| {
                let writer = writer.as_mut().expect("it is there");
                writer.acts = writer.rng.random_range(10..60);
                writer.log.handle.status().durable_lsn
            });
            let found = Witness::collect(seed, &fs);
            let polled = follower.collect(seed, &fs);
            WRITER.with_borrow(|writer| {
                let model = &writer.as_ref().expect("it is there").model;
                let witness = Witness { seed, fs: &fs, model };
                if let Some((first, records)) = found {
                    witness.compare(first, &records, "a reader");
                    let last = first + records.len() as u64 - 1;
                    assert!(last >= durable, "seed {seed}: read up to LSN {last}, and {durable} is durable");
                }
                for (first, records) in polled {
                    witness.compare(first, &records, "a follower");
                }
            });
        }
        WRITER.set(None);
    }
}

#[test]
fn a_reader_goes_on_where_the_log_was_recovered_after_a_power_cut() {
    // Goal: what a torn tail ends, is read on once the log is recovered. Method: torn tails of many kinds.
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let mut log = Log::open(&sim, options()).expect("opens");
        log.append_all(&records(3));
        for lsn in 4..8 {
            log.submit(lsn, &records(8)[lsn as usize - 1..lsn as usize], false).expect("is taken");
            log.service.turn();
        }
        let sim = sim.power_cut(seed);
        let before = sim.snapshot();
        let fs = sim.disk().fs;
        let mut source = source(&fs, None, None).expect("a log");
        let mut found = Vec::new();
        while let Some(chunk) = source.next(1).expect("a torn tail is an end") {
            found.extend(split(&chunk.bytes));
        }
        assert!(found.len() >= 3 && found == records(7)[..found.len()]);
        assert!(sim.snapshot() == before, "not a byte was changed");
        let mut log = Log::open(&sim, options()).expect("recovers");
        assert_eq!(log.last_lsn(), found.len() as u64, "a reader and recovery agree on the end");
        let next = vec![99; 100];
        log.append(log.last_lsn() + 1, &next).expect("appends");
        let chunk = source.next(1).expect("goes on").expect("there is more");
        assert_eq!((chunk.first_lsn, split(&chunk.bytes)), (log.last_lsn() + 1, vec![next]));
    }
}

#[test]
fn a_range_is_read_and_what_is_not_kept_is_refused() {
    // Goal: from and to, as Handle::read has them. Method: ranges over segment boundaries; a truncated log.
    let (sim, all) = four_segments();
    let fs = sim.disk().fs;
    for (from, to) in [(1, 33), (1, 1), (10, 11), (5, 25), (20, 40), (33, 33), (34, 40), (9, 3)] {
        let expected = all.get(from as usize - 1..(to as usize).min(33)).unwrap_or_default();
        assert!(read(&fs, Some(from), Some(to)).expect("reads") == expected, "{from}..={to}");
    }
    let mut log = Log::open(&sim, options()).expect("opens");
    assert_eq!(log.request(Request::TruncateBefore(15)), Ok(Answer::Truncated { first_lsn: 15 }));
    assert!(read(&fs, None, None).expect("reads") == all[14..]);
    let refused = source(&fs, Some(14), None).expect_err("it is gone");
    assert_eq!((refused.code, refused.first_lsn), (Code::WalTruncated, Some(15)));
}

#[test]
fn a_reader_beside_a_truncation_is_told_so() {
    // Goal: what was truncated is never damage. Method: truncate when it has begun, and when it has not.
    let (sim, all) = four_segments();
    let fs = sim.disk().fs;
    let mut begun = source(&fs, Some(1), None).expect("reads");
    assert_eq!(begun.next(1).expect("reads").expect("there is").first_lsn, 1);
    let named = source(&fs, Some(2), None).expect("reads");
    let from_the_first = source(&fs, None, None).expect("reads");
    let mut log = Log::open(&sim, options()).expect("opens");
    log.request(Request::TruncateBefore(25)).expect("truncates");
    // It has its file open.
    assert_eq!(begun.next(40_000).expect("reads").expect("there is").count, 9);
    for source in [begun, named] {
        let error = read_all(source).expect_err("it is gone");
        assert_eq!((error.code, error.first_lsn), (Code::WalTruncated, Some(25)), "{error}");
    }
    assert!(read_all(from_the_first).expect("nobody said 1") == all[24..]);
}

/// What, at which segment and offset, and how it is done.
type Case<'a> = (&'a str, u64, u64, &'a dyn Fn(&Sim));

#[test]
fn damage_is_told_behind_the_records_before_it() {
    // Goal: rule 7 for readers. Method: rot, a hole, a header, a missing segment; the tail is proven by HEAD.
    let (sim, all) = four_segments();
    let log = Log::open(&sim, options()).expect("opens");
    log.close().expect("closes");
    let cases: [Case<'_>; 6] = [
        ("rot", 1, 5 * GRAIN, &|sim| sim.flip(segment(1), 5 * GRAIN + 1000, 1)),
        ("a header", 2, 5 * GRAIN, &|sim| sim.flip(segment(2), 5 * GRAIN + 20, 1)),
        ("a lost write at the end", 4, 3 * GRAIN, &|sim| {
            let bytes = sim.read_file(segment(4));
            sim.write_file(segment(4), &bytes[..3 * GRAIN as usize]);
        }),
        ("the seal", 1, 11 * GRAIN, &|sim| sim.flip(segment(1), 11 * GRAIN, 1)),
        ("a missing segment", 3, 0, &|sim| sim.remove_file(segment(3))),
        ("a segment's header", 2, 0, &|sim| sim.flip(segment(2), 20, 1)),
    ];
    for (what, number, offset, damage) in cases {
        let sim = sim.power_cut(1);
        let fs = sim.disk().fs;
        damage(&sim);
        let before = sim.snapshot();
        let mut source = source(&fs, None, None).expect("reads");
        let mut found = Vec::new();
        let error = loop {
            match source.next(1) {
                Ok(chunk) => found.extend(split(&chunk.unwrap_or_else(|| panic!("{what}: an end")).bytes)),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code, Code::WalDamaged, "{what}: {error:?}");
        assert_eq!((error.segment, error.offset), (Some(number), Some(offset)), "{what}: {error:?}");
        let frames = if offset == 0 { 0 } else { (offset / GRAIN - 1) as usize };
        assert!(found == all[..(number as usize - 1) * 10 + frames], "{what}: {} records", found.len());
        assert_eq!(source.next(1).expect_err("still").code, Code::WalDamaged);
        assert!(sim.snapshot() == before, "{what}: not a byte was changed");
    }
}

#[test]
fn nothing_is_not_found_and_another_products_files_are_unsupported() {
    // Goal: a clear answer. Method: no directory, an empty one, a creation that was cut; files of others.
    let sim = Sim::new(1);
    let fs = sim.disk().fs;
    let code = || source(&fs, None, None).expect_err("there is no log").code;
    assert_eq!(code(), Code::WalNotFound);
    sim.make_dir(DIRECTORY);
    assert_eq!(code(), Code::WalNotFound);
    sim.write_file(path("notes.txt"), "not a log");
    assert_eq!(code(), Code::WalNotFound);
    sim.write_file(segment(1), [b"somebody else's file".as_slice(), &[7; 9000]].concat());
    assert_eq!(code(), Code::WalUnsupported);

    let sim = Sim::new(1);
    let fs = sim.disk().fs;
    for step in 1..40 {
        let sim = Sim::new(1);
        sim.crash_at(step);
        drop(Log::open(&sim, options()).expect("opens"));
        let Some(image) = sim.take_image() else { break };
        let sim = image.boot(step);
        match source(&sim.disk().fs, None, None) {
            Ok(source) => assert!(read_all(source).expect("it is whole").is_empty()),
            Err(error) => assert_eq!(error.code, Code::WalNotFound, "step {step}: {error:?}"),
        }
    }
    let (killed, _) = four_segments();
    let head = killed.read_file(path(HEAD_NAME));
    sim.write_file(path(HEAD_NAME), &head[..63]);
    assert_eq!(source(&fs, None, None).expect_err("HEAD is cut").code, Code::WalDamaged);
}

#[test]
fn an_error_of_the_disk_is_surfaced_and_the_next_call_goes_on() {
    // Goal: EIO is EIO. Method: every read of a reading fails once, in turn.
    let (sim, all) = four_segments();
    let fs = sim.disk().fs;
    for skip in 0.. {
        sim.fail(Fault::new(Call::Read).skip(skip));
        let source = match source(&fs, None, None) {
            Ok(source) => source,
            Err(error) => {
                assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)));
                continue;
            }
        };
        match read_all(source) {
            Ok(found) => {
                assert!(found == all && skip > 5);
                break;
            }
            Err(error) => assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error:?}"),
        }
        sim.clear_faults();
    }
}

#[test]
fn a_reader_asks_for_nothing_but_to_read() {
    // Goal: it works on a read-only file system. Method: a machine where everything that changes one fails.
    let (sim, all) = four_segments();
    let fs = sim.disk().fs;
    for call in [
        Call::SetLen,
        Call::Write,
        Call::Sync,
        Call::Allocate,
        Call::Zero,
        Call::Lock,
        Call::CreateDir,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
    ] {
        sim.fail(Fault::new(call).errno(30).forever());
    }
    sim.set_capacity(Some(0));
    assert!(read(&fs, None, None).expect("reads") == all);
}

#[test]
fn an_end_that_stays_is_not_judged_again_and_a_hole_in_it_is_found() {
    // Goal: to follow a log costs little, and hides nothing. Method: count the machine's steps while polling;
    // then let HEAD, and a frame behind, say that there is more.
    let sim = Sim::new(1);
    let fs = sim.disk().fs;
    let mut log = Log::open(&sim, options()).expect("opens");
    log.append_all(&records(3));
    let mut source = source(&fs, None, None).expect("reads");
    assert_eq!(source.next(1 << 20).expect("reads").expect("there is").count, 3);
    assert!(source.next(1).expect("ends").is_none());
    let steps = sim.steps();
    assert!(source.next(1).expect("ends").is_none());
    assert!(sim.steps() - steps < 20, "a few calls, not the whole segment");
    log.append_all(&records(5)[3..]);
    assert_eq!(log.handle.status().phase, Phase::Open);
    let mut bytes = sim.read_file(segment(1));
    bytes[4 * GRAIN as usize..5 * GRAIN as usize].fill(0);
    sim.write_file(segment(1), bytes);
    let mut polls = 0;
    let error = loop {
        match source.next(1) {
            Ok(None) => polls += 1,
            Ok(Some(chunk)) => panic!("{chunk:?}"),
            Err(error) => break error,
        }
        assert!(polls < 3, "the hole shows");
        log.turn(20);
    };
    assert_eq!((error.code, error.offset), (Code::WalDamaged, Some(4 * GRAIN)));
}
