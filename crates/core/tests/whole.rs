//! A whole log checked, and what is left of a damaged one saved: neither takes the lock, changes a byte, or takes the
//! word of anything but the log. One bit, one cut and one missing file at a time are in `damage.rs`.

#[expect(dead_code, reason = "each test uses its part of what the tests share")]
mod craft;
mod support;

use std::cell::{Cell, RefCell};
use std::path::Path;

use craft::{Craft, SEGMENT_BYTES, file, files, record, segment};
use rand::Rng;
use ringbolt_core::format::segment::Header;
use ringbolt_core::format::{GRAIN, HEAD_NAME, LogId};
use ringbolt_core::wal::{self, Options, Report, Request, Salvager, Source, SyncMode, Torn, Verdict};
use ringbolt_core::{Code, Error};
use ringbolt_disk::sim::{Call, Fault, Sim};
use support::{DIRECTORY, Log, Model, interrupted, options, rng};

fn verify(sim: &Sim) -> Report {
    let before = files(sim);
    let report = wal::verify(sim.disk().fs, Path::new(DIRECTORY), &|_, _| Ok(())).expect("it can be read");
    assert!(files(sim) == before, "a check changes nothing");
    report
}

fn salvager(sim: &Sim) -> Salvager {
    wal::salvage(sim.disk().fs, Path::new(DIRECTORY)).expect("there is something to save")
}

/// The LSN ranges that can be saved, their records compared.
fn saved(sim: &Sim) -> Vec<(u64, u64)> {
    let before = files(sim);
    let mut salvager = salvager(sim);
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    while let Some(chunk) = salvager.next(1).expect("reads") {
        let last = chunk.first_lsn + u64::from(chunk.count) - 1;
        let mut rest = &chunk.bytes[..];
        for lsn in chunk.first_lsn..=last {
            let (prefix, behind) = rest.split_first_chunk::<4>().expect("a prefix");
            let (found, behind) = behind.split_at(u32::from_le_bytes(*prefix) as usize);
            assert!(found == record(lsn), "another record of LSN {lsn}");
            rest = behind;
        }
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == chunk.first_lsn => range.1 = last,
            Some(range) => {
                assert!(range.1 < chunk.first_lsn, "in LSN order, each once");
                ranges.push((chunk.first_lsn, last));
            }
            None => ranges.push((chunk.first_lsn, last)),
        }
    }
    assert!(files(sim) == before, "the source stays as it is");
    ranges
}

/// Segment, offset, first and last LSN of each damaged place.
fn places(report: &Report) -> Vec<(Option<u64>, Option<u64>, u64, u64)> {
    report.damage.iter().map(|it| (it.segment, it.offset, it.first_lsn, it.last_lsn)).collect()
}

/// Four segments of three batches each: LSNs 1 to 6, 7 to 12, 13 to 18, 19 to 24; every batch of two records in one
/// grain says that the one before is durable. HEAD says so of all but the last.
fn four_segments() -> (Craft, Vec<u64>) {
    let mut log = Craft::new();
    let mut offsets = Vec::new();
    for number in 1..=4 {
        for _ in 0..3 {
            log.next.durable_lsn = log.next.first_lsn - 1;
            offsets.push(log.batch(2));
        }
        if number < 4 {
            log.seal();
        }
    }
    log.head.proven_lsn = 22;
    (log, offsets)
}

#[test]
fn a_sound_log_is_clean_and_counted() {
    // Goal: the figures are right. Method: a log by hand, one by the log itself, closed and open, an empty one.
    let (log, _) = four_segments();
    let sim = log.machine();
    let report = verify(&sim);
    assert_eq!((report.verdict, report.torn, report.damage.len()), (Verdict::Clean, None, 0), "{report:?}");
    assert_eq!((report.records, report.segments, report.first_lsn, report.last_lsn), (24, 4, 1, 24));
    assert_eq!(report.bytes, (1..=24).map(|lsn| record(lsn).len() as u64).sum::<u64>());
    assert_eq!(saved(&sim), [(1, 24)]);
    let mut salvager = salvager(&sim);
    assert_eq!(salvager.next(usize::MAX).expect("reads").expect("there is").count, 24);
    assert!(salvager.next(1).expect("ends").is_none());
    assert_eq!((salvager.first_lsn(), salvager.last_lsn()), (Some(1), 24));
    assert_eq!(salvager.segment_bytes(), SEGMENT_BYTES);

    let sim = Sim::new(1);
    let log = Log::open(&sim, options()).expect("opens");
    let report = verify(&sim);
    assert_eq!((report.verdict, report.records, report.segments), (Verdict::Clean, 0, 1));
    assert_eq!((report.first_lsn, report.last_lsn), (1, 0));
    log.close().expect("closes");
    assert_eq!(verify(&sim).verdict, Verdict::Clean);
    assert_eq!(saved(&sim), []);
}

#[test]
fn every_damaged_place_is_listed_with_what_is_lost_there() {
    // Goal: one look tells the whole extent. Method: a payload, two headers in a row, a seal, a segment's header,
    // HEAD's promise of a batch that is not there; all at once.
    let (mut log, offsets) = four_segments();
    log.spoil(1, offsets[1]);
    log.bytes(2)[offsets[3] as usize + 20] ^= 1;
    log.bytes(2)[offsets[4] as usize + 20] ^= 1;
    log.bytes(2)[4 * GRAIN as usize + 4] ^= 1;
    log.bytes(3)[20] ^= 1;
    log.bytes(4)[offsets[10] as usize..].fill(0);
    let sim = log.machine();
    let report = verify(&sim);
    assert_eq!(report.verdict, Verdict::Damage);
    assert_eq!(
        places(&report),
        [
            (Some(1), Some(offsets[1]), 3, 4),
            (Some(2), Some(offsets[3]), 7, 10),
            (Some(2), Some(4 * GRAIN), 13, 13),
            (Some(3), Some(0), 13, 13),
            (Some(4), Some(offsets[10]), 21, 22),
        ],
        "{report:#?}"
    );
    assert_eq!((report.records, report.first_lsn, report.last_lsn), (14, 1, 20));
    assert_eq!(saved(&sim), [(1, 2), (5, 6), (11, 20)]);
    let mut salvager = salvager(&sim);
    while salvager.next(1).expect("reads").is_some() {}
    assert_eq!(salvager.last_lsn(), 22, "HEAD knows of it");
    assert_eq!(salvager.take_damage().len(), 5);
    // The same without HEAD: nobody knows of the end any more.
    sim.remove_file(file(HEAD_NAME));
    let report = verify(&sim);
    assert_eq!((report.verdict, places(&report)[0].0, report.damage.len()), (Verdict::Damage, None, 5));
    assert_eq!(saved(&sim), [(1, 2), (5, 6), (11, 20)]);
}

#[test]
fn missing_segments_and_segments_of_others_are_gaps() {
    // Goal: what is left on both sides is found. Method: the oldest, two in the middle, the newest; another log's.
    let remove = |numbers: &[u64]| {
        let sim = four_segments().0.machine();
        for &number in numbers {
            sim.remove_file(segment(number));
        }
        sim
    };
    for (missing, left, lost) in [
        (&[1][..], vec![(7, 24)], vec![(1, 1, 6)]),
        (&[2, 3], vec![(1, 6), (19, 24)], vec![(2, 7, 18)]),
        (&[4], vec![(1, 18)], vec![(4, 19, 22)]),
        (&[1, 4], vec![(7, 18)], vec![(1, 1, 6), (4, 19, 22)]),
        (&[1, 2, 3, 4], vec![], vec![(1, 1, 22)]),
    ] {
        let sim = remove(missing);
        let report = verify(&sim);
        let expected: Vec<_> =
            lost.iter().map(|&(number, first, last)| (Some(number), Some(0), first, last)).collect();
        assert_eq!(places(&report), expected, "{missing:?}: {report:?}");
        assert_eq!(saved(&sim), left, "{missing:?}");
    }
    let sim = four_segments().0.machine();
    let mut foreign = sim.read_file(segment(2));
    let header = Header { log_id: LogId(*b"another log's id"), number: 2, bytes: SEGMENT_BYTES }.encode();
    foreign[..header.len()].copy_from_slice(&header);
    foreign[GRAIN as usize..].fill(7);
    sim.write_file(segment(2), foreign);
    assert_eq!(saved(&sim), [(1, 6), (13, 24)]);
    let report = verify(&sim);
    assert!(places(&report).contains(&(Some(2), Some(0), 7, 7)), "{report:?}");
    assert!(places(&report).contains(&(Some(2), Some(GRAIN), 7, 12)), "{report:?}");
    // Only the header: the frames say whose they are.
    let (mut log, _) = four_segments();
    log.bytes(2)[..header.len()].copy_from_slice(&header);
    assert_eq!(saved(&log.machine()), [(1, 24)]);
}

#[test]
fn what_was_truncated_stays_so_while_head_says_it() {
    // Goal: verify and salvage serve what open serves. Method: a HEAD in the middle of a frame, older segments left.
    let (mut log, _) = four_segments();
    log.head.oldest_segment = 2;
    log.head.first_lsn = 10;
    let sim = log.machine();
    let report = verify(&sim);
    assert_eq!((report.verdict, report.records, report.segments), (Verdict::Clean, 15, 3), "{report:?}");
    assert_eq!((report.first_lsn, report.last_lsn), (10, 24));
    assert_eq!(report.bytes, (10..=24).map(|lsn| record(lsn).len() as u64).sum::<u64>());
    assert_eq!(saved(&sim), [(10, 24)]);
    assert_eq!(salvager(&sim).first_lsn(), Some(10));
    sim.remove_file(file(HEAD_NAME));
    assert_eq!(saved(&sim), [(1, 24)], "without HEAD nothing says that they were truncated");
    assert_eq!(salvager(&sim).first_lsn(), None);
    // Where the first frame that is kept is gone, it is missed.
    log.bytes(2)[GRAIN as usize..3 * GRAIN as usize].fill(0);
    let report = verify(&log.machine());
    assert_eq!(places(&report), [(Some(2), Some(GRAIN), 10, 10)], "{report:?}");
}

#[test]
fn a_torn_tail_is_what_an_open_would_cut() {
    // Goal: the same verdict, the same bytes. Method: power cuts of a log with several batches in flight.
    let mut torn = 0;
    for seed in 0..300 {
        let sim = Sim::new(seed);
        let options = Options { sync: SyncMode::Fdatasync, segment_bytes: 16 << 10, ..options() };
        let mut log = Log::open(&sim, options).expect("opens");
        let (mut rng, mut model) = (rng(seed), Model::default());
        for _ in 0..8 {
            let first = model.last() + 1;
            let run = model.run(&mut rng, seed, 2, 1800).to_vec();
            log.submit(first, &run, rng.random_bool(0.6)).expect("is taken");
            log.service.turn();
        }
        let sim = sim.power_cut(seed);
        let report = verify(&sim);
        let recovery = Log::open(&sim, support::options()).expect("opens").recovery();
        assert_eq!(report.records, recovery.records, "seed {seed}");
        assert_eq!(report.segments, recovery.segments, "seed {seed}");
        let cut = recovery.torn_at.map(|at| Torn {
            segment: at.segment,
            offset: at.offset,
            bytes: recovery.torn_bytes,
        });
        assert_eq!(report.torn, cut, "seed {seed}");
        assert_eq!(report.verdict, if cut.is_some() { Verdict::Torn } else { Verdict::Clean });
        torn += u64::from(cut.is_some());
    }
    assert!(torn > 50, "{torn} of them are torn");
}

/// LSN 1; LSN 2 of the third incarnation, over another that a recovery had cut; behind it, never zeroed on the disk,
/// LSNs 3 and 4 of the first incarnation.
fn stale_frames() -> (Craft, u64) {
    let mut log = Craft::new();
    log.batch(1);
    let (offset, first_crc) = (log.place.1, log.next.previous_crc);
    log.next.durable_lsn = 1;
    for _ in 0..3 {
        log.batch(1);
    }
    log.place.1 = offset;
    log.next.first_lsn = 2;
    log.next.previous_crc = first_crc;
    log.next.incarnation = 3;
    log.batch(1);
    log.head.incarnation = 3;
    log.head.proven_lsn = 2;
    (log, offset)
}

#[test]
fn what_a_recovery_cut_does_not_come_back() {
    // Goal: no record that was not in the log, whatever is damaged. Method: stale frames, and the frame that tells
    // them from the log's is itself rotten, in its payload or in its header, with HEAD and without.
    let (log, offset) = stale_frames();
    assert_eq!(saved(&log.machine()), [(1, 2)]);
    assert_eq!(verify(&log.machine()).verdict, Verdict::Torn);
    for at in [64, 20, 0] {
        let mut log = log.clone();
        log.bytes(1)[(offset + at) as usize] ^= 1;
        let sim = log.machine();
        assert_eq!(saved(&sim), [(1, 1)], "byte {at}");
        let report = verify(&sim);
        assert_eq!(places(&report), [(Some(1), Some(offset), 2, 2)], "byte {at}: {report:?}");
        assert_eq!((report.records, report.last_lsn), (1, 1));
        sim.remove_file(file(HEAD_NAME));
        assert_eq!(saved(&sim), [(1, 1)], "byte {at}, without HEAD");
    }
}

#[test]
fn what_the_newest_opening_cut_does_not_come_back_where_the_record_before_it_rots() {
    // Goal: the same where nothing has been appended since. Method: LSNs 3 and 4 in flight on LSN 2 which is durable;
    // LSN 3 is lost, an opening cuts the rest and says so in HEAD, its zeros are lost again, and LSN 2 rots.
    let mut log = Craft::new();
    log.batch(1);
    let second = log.batch(1);
    log.next.durable_lsn = 2;
    let third = log.batch(1);
    log.batch(1);
    log.bytes(1)[third as usize..third as usize + GRAIN as usize].fill(0);
    log.head.incarnation = 2;
    log.head.proven_lsn = 2;
    assert_eq!(saved(&log.machine()), [(1, 2)]);
    log.bytes(1)[second as usize + 20] ^= 1;
    assert_eq!(saved(&log.machine()), [(1, 1)], "LSN 4 is none of the log's");
    assert_eq!(places(&verify(&log.machine())), [(Some(1), Some(second), 2, 2)]);
}

#[test]
fn frames_that_go_on_behind_the_gap_count_whoever_proves_them() {
    // Goal: of four batches in flight the last proves the first. Method: all with the same durable LSN but the last.
    let mut log = Craft::new();
    log.batch(1);
    let offset = log.place.1;
    log.next.durable_lsn = 1;
    for _ in 0..3 {
        log.batch(1);
    }
    log.bytes(1)[offset as usize + 30] ^= 1;
    assert_eq!(
        saved(&log.machine()),
        [(1, 1)],
        "nothing proves that LSN 2 was durable: open would cut it all"
    );
    assert_eq!(verify(&log.machine()).verdict, Verdict::Torn);
    log.next.durable_lsn = 3;
    log.batch(1);
    assert_eq!(saved(&log.machine()), [(1, 1), (3, 5)]);
    assert_eq!(places(&verify(&log.machine())), [(Some(1), Some(offset), 2, 2)]);
}

#[test]
fn a_head_that_is_older_than_the_log_is_told_and_the_frames_count() {
    // Goal: a restored HEAD loses nothing. Method: HEAD of incarnation 1, frames of 2.
    let (mut log, _) = four_segments();
    log.next.incarnation = 2;
    log.next.durable_lsn = 24;
    let offset = log.batch(2);
    let sim = log.machine();
    assert_eq!(saved(&sim), [(1, 26)]);
    let report = verify(&sim);
    assert_eq!(places(&report), [(Some(4), Some(offset), 25, 25)], "{report:?}");
    assert_eq!(report.records, 26);
}

#[test]
fn what_a_later_version_wrote_is_unsupported_and_left_out() {
    // Goal: the worst finding is the verdict. Method: a kind, a segment's version, HEAD's version, no log at all.
    let (mut log, offsets) = four_segments();
    log.spoil(1, offsets[0]);
    log.forge(2, offsets[4], 8, &[9]);
    let report = verify(&log.machine());
    assert_eq!(report.verdict, Verdict::Unsupported, "{report:?}");
    assert_eq!(
        places(&report),
        [(Some(1), Some(offsets[0]), 1, 2), (Some(2), Some(offsets[4]), 9, 10)],
        "{report:?}"
    );
    assert_eq!(saved(&log.machine()), [(3, 8), (11, 24)]);

    let (mut log, _) = four_segments();
    craft::forge_header(log.bytes(2), 12, &2_u16.to_le_bytes());
    let report = verify(&log.machine());
    assert_eq!(
        (report.verdict, places(&report)),
        (Verdict::Unsupported, vec![(Some(2), Some(0), 7, 12)]),
        "{report:?}"
    );
    assert_eq!(saved(&log.machine()), [(1, 6), (13, 24)]);

    let (log, _) = four_segments();
    let sim = log.machine();
    let mut head = log.head.encode();
    craft::forge_header(&mut head, 12, &2_u16.to_le_bytes());
    sim.write_file(file(HEAD_NAME), head);
    assert_eq!(verify(&sim).verdict, Verdict::Unsupported);
    let refused = wal::salvage(sim.disk().fs, Path::new(DIRECTORY)).expect_err("a later version's");
    assert_eq!(refused.code, Code::WalUnsupported);

    let sim = Sim::new(1);
    let not_found = wal::verify(sim.disk().fs, Path::new(DIRECTORY), &|_, _| Ok(())).expect_err("nothing");
    assert_eq!(not_found.code, Code::WalNotFound);
    let not_found = wal::salvage(sim.disk().fs, Path::new(DIRECTORY)).expect_err("nothing");
    assert_eq!(not_found.code, Code::WalNotFound);
}

#[test]
fn progress_goes_from_nothing_to_everything_and_can_end_it() {
    // Goal: a long check can be watched and given up. Method: listen; then answer with an error.
    let sim = four_segments().0.machine();
    let last = Cell::new((0, 0));
    let told = |passed, total| {
        assert!(passed >= last.get().0 && passed <= total, "{passed} of {total}");
        last.set((passed, total));
        Ok(())
    };
    wal::verify(sim.disk().fs, Path::new(DIRECTORY), &told).expect("reads");
    assert_eq!(last.get(), (4 * SEGMENT_BYTES, 4 * SEGMENT_BYTES));
    let given_up = |passed, _| {
        if passed > SEGMENT_BYTES { Err(Error::new(Code::WalClosed, "nobody waits")) } else { Ok(()) }
    };
    let error = wal::verify(sim.disk().fs, Path::new(DIRECTORY), &given_up).expect_err("it was given up");
    assert_eq!(error.code, Code::WalClosed);
}

#[test]
fn an_error_of_the_disk_is_no_finding() {
    // Goal: EIO is EIO. Method: every read of a check fails once, in turn. One that was made ahead and turns out not to be
    // needed is of no concern: in each segment there is one at most.
    let sim = four_segments().0.machine();
    let (mut errors, mut unneeded, mut clean) = (0, 0, 0);
    for skip in 0..100 {
        sim.fail(Fault::new(Call::Read).skip(skip));
        match wal::verify(sim.disk().fs, Path::new(DIRECTORY), &|_, _| Ok(())) {
            Ok(report) => {
                assert_eq!(report.verdict, Verdict::Clean);
                clean += 1;
            }
            Err(error) => {
                assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error:?}");
                unneeded += std::mem::take(&mut clean);
                errors += 1;
            }
        }
        sim.clear_faults();
    }
    assert!(
        errors > 10 && unneeded <= 4 && clean > 0,
        "{errors} told, {unneeded} unneeded, {clean} behind the last"
    );
}

#[test]
fn what_is_intact_before_an_error_of_the_disk_is_saved_before_it_is_told() {
    // Goal: records are not thrown away because the disk fails behind them. Method: the frames of the third segment
    // cannot be read; everything before them comes in one large chunk, then the error, again and again.
    let (craft, _) = four_segments();
    let sim = craft.machine();
    let third = segment(3).file_name().expect("a name").to_string_lossy().into_owned();
    sim.fail(Fault::new(Call::Read).named(third).bytes(GRAIN..2 * GRAIN).forever());
    let mut salvager = salvager(&sim);
    let mut records = 0;
    let error = loop {
        match salvager.next(usize::MAX) {
            Ok(chunk) => records += chunk.expect("the disk fails before the end").count,
            Err(error) => break error,
        }
    };
    assert!(records > 0, "nothing was saved");
    assert_eq!((error.code, error.errno), (Code::WalIo, Some(5)), "{error:?}");
    assert_eq!(salvager.next(1).expect_err("it fails still"), error);
}

/// Who writes while the log is looked at.
struct Writer {
    sim: Sim,
    options: Options,
    log: Log,
    model: Model,
    rng: rand::rngs::SmallRng,
    acts: u32,
}

std::thread_local! {
    static WRITER: RefCell<Option<Writer>> = const { RefCell::new(None) };
}

fn write_a_little() {
    WRITER.with_borrow_mut(|slot| {
        let Some(mut writer) = slot.take() else { return };
        if writer.acts > 0 && writer.rng.random_bool(0.03) {
            // The log gets another owner: one incarnation more, and another HEAD.
            writer.log.close().expect("closes");
            writer.log = Log::open(&writer.sim, writer.options.clone()).expect("opens");
        }
        let Writer { log, model, rng, acts, .. } = &mut writer;
        if *acts > 0 && rng.random_bool(0.3) {
            *acts -= 1;
            match rng.random_range(0..8) {
                0 => drop(log.handle.ask(Request::Rotate)),
                1 => drop(log.handle.ask(Request::TruncateBefore(rng.random_range(0..=model.last() + 1)))),
                _ => {
                    let first = model.last() + 1;
                    let run = model.run(rng, 0, 2, 900).to_vec();
                    log.submit(first, &run, rng.random_bool(0.7)).expect("is taken");
                }
            }
        }
        for _ in 0..rng.random_range(0..4) {
            log.service.turn();
        }
        *slot = Some(writer);
    });
}

#[test]
fn a_log_that_is_being_written_is_sound_up_to_its_last_whole_frame() {
    // Goal: no false alarm. Method: the writer appends, rotates, truncates, closes and opens again before every call of
    // the check.
    for seed in 0..500 {
        let sim = Sim::new(seed);
        let fs = interrupted(&sim, write_a_little);
        let mut rng = rng(seed);
        let sync = support::any_sync_mode(&mut rng);
        let options = Options { sync, segment_bytes: 16 << 10, ..options() };
        let log = Log::open(&sim, options.clone()).expect("opens");
        WRITER.set(Some(Writer { sim: sim.clone(), options, log, model: Model::default(), rng, acts: 0 }));
        for _ in 0..4 {
            let durable = WRITER.with_borrow_mut(|writer| {
                let Writer { log, rng, acts, .. } = writer.as_mut().expect("it is there");
                *acts = rng.random_range(10..60);
                log.handle.status().durable_lsn
            });
            let report =
                wal::verify(fs.clone(), Path::new(DIRECTORY), &|_, _| Ok(())).expect("it can be read");
            assert!(report.damage.is_empty(), "seed {seed}: {report:?}");
            assert!(report.last_lsn >= durable, "seed {seed}: {durable} is durable, {report:?}");
            assert_eq!(report.records, report.last_lsn + 1 - report.first_lsn, "seed {seed}: {report:?}");
            WRITER.with_borrow(|writer| {
                let model = &writer.as_ref().expect("it is there").model;
                assert!(report.last_lsn <= model.last(), "seed {seed}: {report:?}");
                let records = &model.records[report.first_lsn as usize - 1..report.last_lsn as usize];
                let bytes: usize = records.iter().map(Vec::len).sum();
                assert_eq!(report.bytes, bytes as u64, "seed {seed}: {report:?}");
            });
        }
        WRITER.set(None);
    }
}
