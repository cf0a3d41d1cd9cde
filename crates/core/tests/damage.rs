//! A log of three segments, damaged in every way one step can: a bit turned over, a file cut short, removed,
//! swapped, or taken from elsewhere. Each case is opened on a copy of the same machine, and the outcome must
//! be the one that the place of the damage demands:
//!
//! * in what is proven: refused, with the place, and no byte of the log changed;
//! * in the last batch, which nothing proves: a torn tail that is reported and set aside;
//! * in bytes that are not read: the same records.
//!
//! Read without its lock, the log gives the records before the damage and then the same error; a check of the whole
//! log names the place; and what is saved of it is what is still whole, no less and no more.
//!
//! `cargo test -p ringbolt-core --release --test damage -- --ignored` turns over every bit there is and cuts
//! at every byte.

#[expect(dead_code, reason = "each test uses its part of what the tests share")]
mod craft;
mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use craft::{SEGMENT_BYTES, file, files, options, segment};
use ringbolt_core::format::frame::{HEADER_BYTES, Header, Kind, Place, padded_bytes};
use ringbolt_core::format::head::{HEAD_BYTES, Head};
use ringbolt_core::format::{GRAIN, HEAD_NAME, LOCK_NAME, TORN_NAME, TornName, segment_name};
use ringbolt_core::wal::{self, Check, Options, Salvager, Source, TornAt, Verdict};
use ringbolt_core::{Code, Error};
use ringbolt_disk::sim::{Image, Sim};
use support::{DIRECTORY, Log};

/// A frame of the log before it is damaged.
#[derive(Clone, Copy, Debug)]
struct Frame {
    segment: u64,
    from: u64,
    /// Behind its last byte that is read.
    to: u64,
    padded_to: u64,
    first_lsn: u64,
    next_lsn: u64,
    kind: Kind,
}

/// The machine that every case begins with.
struct Machine {
    image: Image,
    head: Head,
    frames: Vec<Frame>,
    records: Vec<Vec<u8>>,
    /// The segments as they were.
    bytes: Vec<Vec<u8>>,
    /// Where the log goes on, in segment 3.
    tail: u64,
    /// This case is one of several like it: it is opened, and not read in every other way too.
    only_opens: Cell<bool>,
}

/// What damage must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Refused at this place: a segment and an offset in it, or HEAD.
    Damage(Option<(u64, u64)>),
    /// Opened without the last batch, cut at its beginning.
    Torn,
    /// Opened with all records; what is behind the last was set aside.
    TornBehind,
    /// Opened with all records.
    Same,
    /// Opened without the last batch, of which nothing is left that could be reported.
    Gone,
}

impl Machine {
    /// Three segments of eight grains, one frame a submission: each frame says that the one before is
    /// durable, HEAD says so too, and nothing of the last frame.
    fn new() -> Self {
        let sim = Sim::new(1);
        let mut log = Log::open(&sim, options()).expect("opens");
        let mut records = Vec::new();
        // In grains: 1, 2, 1, 1, 1 and a seal; 3, 1, 1 and a seal that leaves one unused; 2 and 1.
        let shape = [
            (3, 90),
            (2, 2600),
            (1, 0),
            (1, 300),
            (1, 3800),
            (3, 3000),
            (2, 70),
            (1, 3000),
            (3, 1400),
            (2, 60),
        ];
        let total: u64 = shape.iter().map(|(count, _)| count).sum();
        for (count, bytes) in shape {
            let first_lsn = records.len() as u64 + 1;
            let run: Vec<Vec<u8>> = (first_lsn..first_lsn + count)
                .map(|lsn| (0..bytes).map(|at| (at * 13 + lsn * 101) as u8 | 1).collect())
                .collect();
            log.submit(first_lsn, &run, true).expect("is taken");
            records.extend(run);
            let last = records.len() as u64;
            log.turn_until(|status| status.durable_lsn >= last);
            // HEAD follows after a second of idleness; but of the last batch it is not to tell.
            while last < total && proven_by_head(&sim) < last {
                log.service.turn();
            }
        }
        sim.kill();
        drop(log);
        for name in sim.list(DIRECTORY) {
            // All of it on stable storage: the damage is the only thing wrong with the log.
            let bytes = sim.read_file(file(&name));
            sim.write_file(file(&name), bytes);
        }
        let head = Head::decode(&sim.read_file(file(HEAD_NAME))).expect("a whole HEAD");
        let frames = frames(&sim, &head);
        let tail = frames.last().expect("there are frames").padded_to;
        let bytes = segments().map(|(_, path)| sim.read_file(path)).collect();
        let machine =
            Self { image: sim.image(), head, frames, records, bytes, tail, only_opens: Cell::new(false) };
        machine.check_shape(&sim);
        machine
    }

    /// The log is the one that the tests mean.
    fn check_shape(&self, sim: &Sim) {
        let names: Vec<String> = (1..=3).map(segment_name).collect();
        assert_eq!(sim.list(DIRECTORY), [&[HEAD_NAME.to_owned(), LOCK_NAME.to_owned()], &names[..]].concat());
        let of = |number| self.frames.iter().filter(move |frame| frame.segment == number);
        assert!((1..=3).all(|number| of(number).any(|frame| frame.padded_to - frame.from > GRAIN)));
        assert!((1..=2).all(|number| of(number).count() > 2));
        assert!((1..=2).all(|number| of(number).next_back().expect("some").kind == Kind::Seal));
        assert!(of(3).count() == 2 && self.last().kind == Kind::Batch);
        // So an opening that checks the tail reads all of segment 3, and of the others the beginning.
        assert_eq!(self.head.proven_lsn, self.last().first_lsn - 1, "HEAD proves all but the last batch");
    }

    fn last(&self) -> Frame {
        *self.frames.last().expect("there are frames")
    }

    fn boot(&self) -> Sim {
        self.image.boot_with([], 1)
    }

    /// Turn one bit of a file over, and judge what opening it does.
    fn flip(&self, check: Check, path: &Path, at: u64, bit: u8) {
        let sim = self.boot();
        sim.flip(path, at, bit);
        let expected = if path.ends_with(HEAD_NAME) {
            Expected::Damage(None)
        } else {
            self.expected_of_flip(number_of(path), at)
        };
        self.judge(&sim, check, expected, &format!("bit {bit} at {at} of {}", path.display()));
    }

    fn expected_of_flip(&self, segment: u64, at: u64) -> Expected {
        if at < GRAIN {
            let is_read = at < HEADER_BYTES as u64;
            return if is_read { Expected::Damage(Some((segment, 0))) } else { Expected::Same };
        }
        let hit = self
            .frames
            .iter()
            .find(|frame| frame.segment == segment && frame.from <= at && at < frame.padded_to);
        match hit {
            Some(frame) if at >= frame.to => Expected::Same,
            Some(frame) if frame.first_lsn == self.last().first_lsn && frame.kind == Kind::Batch => {
                Expected::Torn
            }
            Some(frame) => Expected::Damage(Some((segment, frame.from))),
            None if segment == 3 => Expected::TornBehind,
            // Behind a seal nothing is read.
            None => Expected::Same,
        }
    }

    /// Cut a file short, and judge what opening it does.
    fn cut(&self, check: Check, path: &Path, len: u64) {
        let sim = self.boot();
        let bytes = sim.read_file(path);
        let (kept, lost) = bytes.split_at(len as usize);
        sim.write_file(path, kept);
        let expected = if path.ends_with(HEAD_NAME) {
            Expected::Damage(None)
        } else {
            self.expected_of_cut(number_of(path), kept, lost)
        };
        self.judge(&sim, check, expected, &format!("{} cut to {len} bytes", path.display()));
    }

    fn expected_of_cut(&self, segment: u64, kept: &[u8], lost: &[u8]) -> Expected {
        let len = kept.len() as u64;
        if len < HEADER_BYTES as u64 {
            return Expected::Damage(Some((segment, 0)));
        }
        // What is missing reads as zeros: as long as only zeros are, nothing changed.
        let Some(missed) = lost.iter().position(|&byte| byte != 0) else { return Expected::Same };
        let of = |frame: &&Frame| frame.segment == segment && frame.to > len + missed as u64;
        let hit = self.frames.iter().find(of).expect("only frames are not zeros");
        if hit.first_lsn == self.last().first_lsn && hit.kind == Kind::Batch {
            return if len > hit.from { Expected::Torn } else { Expected::Gone };
        }
        Expected::Damage(Some((segment, hit.from)))
    }

    /// Open the damaged log, read all of it, and compare with what must come of it.
    fn judge(&self, sim: &Sim, check: Check, expected: Expected, case: &str) {
        let before = files(sim);
        if check == Check::All && !self.only_opens.get() {
            self.judge_reading(sim, expected, case);
            assert!(files(sim) == before, "{case}: reading changed the log");
        }
        let opening = Log::open(sim, Options { check, ..options() });
        let (log, place) = match (opening, expected) {
            (Ok(log), Expected::Damage(place)) => (log, place),
            (Ok(log), _) => return self.judge_opened(sim, &log, expected, case),
            (Err(error), Expected::Damage(place)) => {
                self.judge_error(&error, place, case);
                return assert!(files(sim) == before, "{case}: a refused open changed the log");
            }
            (Err(error), _) => panic!("{case}: refused, expected {expected:?}: {error:?}"),
        };
        // Only what open does not read may get so far, and then the read that meets it must tell.
        assert!(check == Check::Tail && place.is_some_and(|(segment, _)| segment < 3), "{case}: opened");
        match log.read(1) {
            Ok(_) => panic!("{case}: read, expected damage at {place:?}"),
            Err(error) => self.judge_error(&error, place, case),
        }
        let whole = self.frames.iter().find(|frame| frame.segment == 3).expect("some").first_lsn;
        let rest = log.read(whole).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert!(rest == self.records[whole as usize - 1..], "{case}: what is not damaged can be read");
    }

    /// Read the damaged log without its lock, check it, and save what is left of it.
    fn judge_reading(&self, sim: &Sim, expected: Expected, case: &str) {
        let fs = sim.disk().fs;
        let directory = Path::new(DIRECTORY);
        let last = self.last();
        let end = match expected {
            Expected::Torn | Expected::Gone => last.first_lsn,
            _ => self.records.len() as u64 + 1,
        };

        // Read: what is before the damage, then what open says.
        let (records, error) = match wal::read(fs.clone(), directory, None, None) {
            Ok(source) => read_until(source),
            Err(error) => (Vec::new(), Some(error)),
        };
        let place = match (expected, error) {
            (Expected::Damage(place), Some(error)) => {
                self.judge_error(&error, place, case);
                Some(place)
            }
            (Expected::Damage(_), None) => panic!("{case}: read to an end"),
            (_, Some(error)) => panic!("{case}: {error:?}"),
            (_, None) => None,
        };
        let before = |frame: &&Frame| place.flatten().is_none_or(|place| (frame.segment, frame.from) < place);
        let readable = match place {
            Some(None) => 1,
            _ => self.frames.iter().filter(before).map(|frame| frame.next_lsn).max().unwrap_or(1).min(end),
        };
        assert!(records == self.records[..readable as usize - 1], "{case}: read {} records", records.len());

        // Save: the records of the frames that are whole, and of no others.
        let whole: Vec<Frame> =
            self.frames.iter().copied().filter(|frame| self.is_whole(sim, frame)).collect();
        let lsns = whole.iter().flat_map(|frame| frame.first_lsn..frame.next_lsn);
        let left: Vec<(u64, Vec<u8>)> =
            lsns.map(|lsn| (lsn, self.records[lsn as usize - 1].clone())).collect();
        let mut salvager =
            wal::salvage(fs.clone(), directory).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let saved = chunks(&mut salvager).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert!(saved == left, "{case}: saved {} records, {} are whole", saved.len(), left.len());
        let lost = expected != Expected::Gone && expected != Expected::Torn;
        let known = if lost && place != Some(None) { self.records.len() as u64 } else { 0 };
        let expected_last = salvager.last_lsn();
        // Of the last batch nothing but itself tells.
        assert!(expected_last >= known.min(last.first_lsn - 1), "{case}: {expected_last}");
        assert!(expected_last <= self.records.len() as u64, "{case}: {expected_last}");
        assert_eq!(salvager.segment_bytes(), SEGMENT_BYTES, "{case}");

        // Check: the place that open refuses with is named, and what is left is counted.
        let report =
            wal::verify(fs, directory, &|_, _| Ok(())).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(report.records, left.len() as u64, "{case}: {report:?}");
        assert_eq!(report.bytes, left.iter().map(|(_, record)| record.len() as u64).sum::<u64>(), "{case}");
        let named: Vec<_> = report.damage.iter().map(|damage| damage.segment.zip(damage.offset)).collect();
        let torn = report.torn.map(|torn| (torn.segment, torn.offset));
        match expected {
            Expected::Damage(place) => {
                assert_eq!(report.verdict, Verdict::Damage, "{case}: {report:?}");
                assert!(named.contains(&place), "{case}: {report:?}");
                let missing = (1..last.first_lsn).filter(|lsn| left.iter().all(|(found, _)| found != lsn));
                for lsn in missing.filter(|_| place.is_some()) {
                    let told = report.damage.iter().any(|it| it.first_lsn <= lsn && lsn <= it.last_lsn);
                    assert!(told, "{case}: LSN {lsn} is lost, {report:?}");
                }
            }
            Expected::Torn | Expected::TornBehind => {
                let offset = if expected == Expected::Torn { last.from } else { self.tail };
                assert_eq!((report.verdict, torn), (Verdict::Torn, Some((3, offset))), "{case}: {report:?}");
                assert!(report.damage.is_empty(), "{case}: {report:?}");
            }
            Expected::Same | Expected::Gone => {
                assert_eq!((report.verdict, torn), (Verdict::Clean, None), "{case}: {report:?}");
                assert!(report.damage.is_empty() && report.segments == 3, "{case}: {report:?}");
                assert_eq!((report.first_lsn, report.last_lsn), (1, end - 1), "{case}");
            }
        }
    }

    /// Whether every byte of a frame that is read is still there.
    fn is_whole(&self, sim: &Sim, frame: &Frame) -> bool {
        let name = segment_name(frame.segment);
        if !sim.list(DIRECTORY).contains(&name) {
            return false;
        }
        let range = frame.from as usize..frame.to as usize;
        let mut bytes = sim.read_file(file(&name));
        // What is missing at the end reads as zeros.
        bytes.resize(bytes.len().max(range.end), 0);
        bytes[range.clone()] == self.bytes[frame.segment as usize - 1][range]
    }

    fn judge_error(&self, error: &Error, place: Option<(u64, u64)>, case: &str) {
        assert_eq!(error.code, Code::WalDamaged, "{case}: {error:?}");
        let found = error.segment.zip(error.offset);
        assert_eq!(found, place, "{case}: {error:?}");
        let path = place.map_or_else(|| file(HEAD_NAME), |(number, _)| segment(number));
        assert_eq!(error.path.as_deref(), Some(&*path), "{case}: {error:?}");
        if let Some((number, offset)) = place.filter(|&(_, offset)| offset > 0) {
            let hit = |frame: &&Frame| (frame.segment, frame.from) == (number, offset);
            let first_lsn = self.frames.iter().find(hit).expect("damage begins at a frame").first_lsn;
            let named = error.first_lsn.zip(error.last_lsn).expect("damage names LSNs");
            assert!(named.0 <= first_lsn && first_lsn <= named.1, "{case}: {error:?}");
        }
    }

    fn judge_opened(&self, sim: &Sim, log: &Log, expected: Expected, case: &str) {
        let last = self.last();
        let (offset, lsn) = match expected {
            Expected::Torn | Expected::Gone => (last.from, last.first_lsn),
            _ => (self.tail, self.records.len() as u64 + 1),
        };
        let torn = matches!(expected, Expected::Torn | Expected::TornBehind);
        let torn_at = torn.then_some(TornAt { segment: 3, offset, lsn });
        let recovery = log.recovery();
        assert_eq!(recovery.torn_at, torn_at, "{case}: {expected:?}");
        assert_eq!(recovery.records, lsn - 1, "{case}: {expected:?}");
        let read = log.read(1).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert!(read == self.records[..lsn as usize - 1], "{case}: a wrong record");
        let aside = sim.list(file(TORN_NAME));
        if torn {
            let incarnation = self.head.incarnation + 1;
            let name = TornName { segment: 3, offset, incarnation }.to_string();
            assert_eq!(aside, [&*name], "{case}");
            let len = sim.read_file(file(TORN_NAME).join(name)).len() as u64;
            assert!(len > 0 && len == recovery.torn_bytes, "{case}: {recovery:?}");
        } else {
            assert!(aside.is_empty() && recovery.torn_bytes == 0, "{case}: {recovery:?}");
        }
    }

    /// Every byte that is read, and some of those that are not.
    fn bytes_worth_a_flip(&self, number: u64) -> BTreeSet<u64> {
        let of = self.frames.iter().filter(|frame| frame.segment == number);
        let read = of.clone().flat_map(|frame| frame.from..frame.to);
        let padding = of.flat_map(|frame| [frame.to, frame.padded_to - 1]);
        let edges = padding.filter(|&at| at < SEGMENT_BYTES).chain([self.tail, SEGMENT_BYTES - 1]);
        (0..HEADER_BYTES as u64 + 2).chain(read).chain(edges).chain((0..SEGMENT_BYTES).step_by(331)).collect()
    }

    /// Around every place where something begins or ends, and some between.
    fn lengths_worth_a_cut(&self, number: u64) -> BTreeSet<u64> {
        let of = self.frames.iter().filter(|frame| frame.segment == number);
        let edges =
            of.flat_map(|frame| [frame.from, frame.from + HEADER_BYTES as u64, frame.to, frame.padded_to]);
        let around = edges.flat_map(|edge| edge - 70..(edge + 70).min(SEGMENT_BYTES));
        (0..200).chain(around).chain((0..SEGMENT_BYTES).step_by(61)).collect()
    }
}

fn proven_by_head(sim: &Sim) -> u64 {
    Head::decode(&sim.read_file(file(HEAD_NAME))).expect("a whole HEAD").proven_lsn
}

/// The frames of a log that is whole.
fn frames(sim: &Sim, head: &Head) -> Vec<Frame> {
    let mut frames = Vec::new();
    for number in 1..=3 {
        let bytes = sim.read_file(segment(number));
        let mut offset = GRAIN;
        while let Some(held) = bytes
            .get(offset as usize..)
            .and_then(|bytes| Header::parse(bytes, Place { log_id: &head.log_id, segment: number, offset }))
        {
            let Header { kind, first_lsn, payload_bytes, .. } = held.header;
            let to = offset + HEADER_BYTES as u64 + u64::from(payload_bytes);
            let padded_to = offset + padded_bytes(u64::from(payload_bytes));
            let next_lsn = held.header.next_lsn();
            frames.push(Frame { segment: number, from: offset, to, padded_to, first_lsn, next_lsn, kind });
            offset = padded_to;
        }
    }
    frames
}

/// Records with their LSNs, up to the end or an error.
fn numbered(source: &mut dyn Source) -> (Vec<(u64, Vec<u8>)>, Option<Error>) {
    let mut records = Vec::new();
    loop {
        let chunk = match source.next(4000) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return (records, None),
            Err(error) => return (records, Some(error)),
        };
        let mut rest = &chunk.bytes[..];
        for lsn in (chunk.first_lsn..).take(chunk.count as usize) {
            let (prefix, behind) = rest.split_first_chunk::<4>().expect("a prefix");
            let (record, behind) = behind.split_at(u32::from_le_bytes(*prefix) as usize);
            records.push((lsn, record.to_vec()));
            rest = behind;
        }
        assert!(rest.is_empty());
    }
}

fn read_until(mut source: Box<dyn Source>) -> (Vec<Vec<u8>>, Option<Error>) {
    let (records, error) = numbered(&mut *source);
    assert!((1..).zip(&records).all(|(due, (lsn, _))| due == *lsn), "a reader leaves nothing out");
    (records.into_iter().map(|(_, record)| record).collect(), error)
}

fn chunks(salvager: &mut Salvager) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let (records, error) = numbered(salvager);
    error.map_or(Ok(records), Err)
}

fn number_of(path: &Path) -> u64 {
    (1..=3).find(|&number| path == segment(number)).expect("a segment")
}

fn segments() -> impl Iterator<Item = (u64, PathBuf)> {
    (1..=3).map(|number| (number, segment(number)))
}

#[test]
fn one_bit_of_head_is_damage() {
    // HEAD: every bit there is.
    let machine = Machine::new();
    for check in [Check::All, Check::Tail] {
        for at in 0..HEAD_BYTES as u64 {
            (0..8).for_each(|bit| machine.flip(check, &file(HEAD_NAME), at, bit));
        }
    }
}

#[test]
fn one_bit_of_a_segment_is_refused_or_a_reported_torn_tail_or_not_read() {
    // Every bit of headers and of short payloads; of long ones, of padding and of zeros a sample. Read, checked and
    // saved with one bit of every byte.
    let machine = Machine::new();
    for (number, path) in segments() {
        for at in machine.bytes_worth_a_flip(number) {
            let in_payload = at % GRAIN > 512;
            let bits = if in_payload { (at % 8) as u8..(at % 8) as u8 + 1 } else { 0..8 };
            for bit in bits {
                machine.only_opens.set(u64::from(bit) != at % 8);
                machine.flip(Check::All, &path, at, bit);
            }
        }
    }
}

#[test]
fn one_bit_that_open_does_not_read_is_found_by_the_read_that_meets_it() {
    let machine = Machine::new();
    for (number, path) in segments() {
        for at in machine.bytes_worth_a_flip(number) {
            machine.flip(Check::Tail, &path, at, (at * 5 % 8) as u8);
        }
    }
}

#[test]
fn a_head_cut_short_is_damage() {
    let machine = Machine::new();
    for check in [Check::All, Check::Tail] {
        (0..HEAD_BYTES as u64).for_each(|len| machine.cut(check, &file(HEAD_NAME), len));
    }
}

#[test]
fn a_segment_cut_short_is_refused_or_a_torn_tail_or_not_missed() {
    // One outcome is beyond any checksum: where the cut takes all of the last batch, which nothing proves,
    // the log is the one before that batch.
    let machine = Machine::new();
    for (number, path) in segments() {
        for len in machine.lengths_worth_a_cut(number) {
            machine.cut(Check::All, &path, len);
        }
    }
}

#[test]
fn a_cut_that_open_does_not_read_is_found_by_the_read_that_meets_it() {
    let machine = Machine::new();
    for (number, path) in segments() {
        for len in machine.lengths_worth_a_cut(number).into_iter().step_by(3) {
            machine.cut(Check::Tail, &path, len);
        }
    }
}

#[test]
#[ignore = "minutes: every bit and every length there is"]
fn every_bit_and_every_length() {
    let machine = Machine::new();
    for (_, path) in segments() {
        for at in 0..SEGMENT_BYTES {
            (0..8).for_each(|bit| machine.flip(Check::All, &path, at, bit));
            machine.flip(Check::Tail, &path, at, (at % 8) as u8);
            machine.cut(Check::All, &path, at);
            machine.cut(Check::Tail, &path, at);
        }
    }
}

#[test]
fn a_missing_file_is_damage() {
    // HEAD, a segment in the middle, the oldest, and the newest, which a seal promised.
    let machine = Machine::new();
    for check in [Check::All, Check::Tail] {
        for (number, _) in segments() {
            let sim = machine.boot();
            sim.remove_file(segment(number));
            let missing = Expected::Damage(Some((number, 0)));
            machine.judge(&sim, check, missing, &format!("segment {number} removed"));
        }
        let sim = machine.boot();
        sim.remove_file(file(HEAD_NAME));
        let error = craft::refused_with(&sim, Options { check, ..options() }, Code::WalDamaged);
        assert!(error.message.contains("HEAD is missing"), "{error}");
    }
}

#[test]
fn swapped_segments_are_damage() {
    let machine = Machine::new();
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        for check in [Check::All, Check::Tail] {
            let sim = machine.boot();
            let bytes = sim.read_file(segment(one));
            sim.write_file(segment(one), sim.read_file(segment(other)));
            sim.write_file(segment(other), bytes);
            machine.judge(
                &sim,
                check,
                Expected::Damage(Some((one, 0))),
                &format!("{one} and {other} swapped"),
            );
        }
    }
}

#[test]
fn a_segment_of_another_log_is_damage() {
    // Another log of the same history: only its name, which is random, differs.
    let machine = Machine::new();
    let other = Sim::new(2);
    let mut log = Log::open(&other, options()).expect("opens");
    log.append(1, b"of another log").expect("appends");
    drop(log);
    for (number, path) in segments() {
        for check in [Check::All, Check::Tail] {
            let sim = machine.boot();
            let mut bytes = other.read_file(segment(1));
            craft::forge_header(&mut bytes, 32, &number.to_le_bytes());
            sim.write_file(&path, bytes);
            machine.judge(&sim, check, Expected::Damage(Some((number, 0))), "a segment of another log");
        }
    }
}

#[test]
fn frames_of_another_place_are_no_frames() {
    // A whole frame, copied over another one: of another offset, and of the same offset in another segment.
    let machine = Machine::new();
    let hit = machine.frames[2];
    for (number, from) in [(1, machine.frames[0].from), (2, hit.from)] {
        let sim = machine.boot();
        let mut bytes = sim.read_file(segment(1));
        let copied = sim.read_file(segment(number));
        bytes[hit.from as usize..][..GRAIN as usize]
            .copy_from_slice(&copied[from as usize..][..GRAIN as usize]);
        sim.write_file(segment(1), bytes);
        machine.judge(&sim, Check::All, Expected::Damage(Some((1, hit.from))), "a frame in another place");
    }
}

#[test]
fn an_older_copy_of_a_segment_is_damage() {
    // Restored from when it ended before its last frames: what is missing was durable, and others know it.
    let machine = Machine::new();
    for number in 1..=2 {
        let of = machine.frames.iter().filter(|frame| frame.segment == number);
        for frame in of {
            for check in [Check::All, Check::Tail] {
                let sim = machine.boot();
                let mut bytes = sim.read_file(segment(number));
                bytes[frame.from as usize..].fill(0);
                sim.write_file(segment(number), bytes);
                let expected = Expected::Damage(Some((number, frame.from)));
                machine.judge(&sim, check, expected, &format!("a copy from before {frame:?}"));
            }
        }
    }
}

#[test]
fn a_head_from_before_the_last_opening_is_damage() {
    let machine = Machine::new();
    let sim = machine.boot();
    let old = sim.read_file(file(HEAD_NAME));
    let mut log = Log::open(&sim, options()).expect("opens");
    log.append(machine.records.len() as u64 + 1, b"of the next incarnation").expect("appends");
    drop(log);
    sim.write_file(file(HEAD_NAME), old);
    let error = craft::refused(&sim, Code::WalDamaged);
    assert_eq!((error.segment, error.offset), (Some(3), Some(machine.tail)), "{error}");
}
