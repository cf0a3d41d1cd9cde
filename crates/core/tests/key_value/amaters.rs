//! The files that amaters-core wrote (`fixtures/amaters`): each reads equal to its listing, is written again byte for
//! byte, and is judged as docs/KEY-VALUE.md says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringbolt_core::Code;
use ringbolt_core::format::entry::{self, Entry, Kind};
use ringbolt_core::wal::{Check, Options, Verdict, key_value};
use ringbolt_disk::sim::Sim;

use crate::support::{DIRECTORY, Log, path, without_lock};
use crate::{Sequences, any_sequences, file, numbered, options, put};

/// A line of the listing.
#[derive(Clone, Debug)]
struct Listed {
    offset: usize,
    bytes: usize,
    sequence: u64,
    kind: Kind,
    key: Vec<u8>,
    value: Vec<u8>,
    crc: u32,
}

impl Listed {
    fn entry(&self) -> Entry<'_> {
        Entry { sequence: self.sequence, kind: self.kind, key: &self.key, value: &self.value }
    }

    fn body(&self) -> (u64, Vec<u8>) {
        (self.sequence, self.entry().body())
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/amaters")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).expect("the fixture is there")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let hex = hex.trim_matches(['-', '.']);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

/// What each file holds.
fn listing() -> BTreeMap<String, Vec<Listed>> {
    let text = String::from_utf8(fixture("expected.txt")).expect("text");
    let mut files: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [file, offset, bytes, sequence, kind, key, value, crc] = fields[..] else { panic!("{line}") };
        files.entry(file.to_owned()).or_default().push(Listed {
            offset: offset.parse().expect("a number"),
            bytes: bytes.parse().expect("a number"),
            sequence: sequence.parse().expect("a number"),
            kind: if kind == "put" { Kind::Put } else { Kind::Delete },
            key: bytes_of(key),
            value: bytes_of(value),
            crc: u32::from_str_radix(crc, 16).expect("hex"),
        });
    }
    files
}

/// A machine whose log's directory holds these fixtures as files 0, 1 and so on.
fn machine(names: &[String]) -> Sim {
    let sim = Sim::new(1);
    for (number, name) in (0..).zip(names) {
        sim.write_file(file(number), fixture(name));
    }
    sim
}

fn rotated() -> Vec<String> {
    (0..7).map(|number| format!("rotated/wal_{number:08}.log")).collect()
}

const TORN: [usize; 5] = [1, 5, 10, 17, 30];

#[test]
fn every_listed_record_is_read_and_encodes_to_the_bytes_that_amaters_wrote() {
    // Goal: byte compatibility in both directions, record by record.
    let mut records = 0;
    for (name, listed) in listing() {
        let bytes = fixture(&name);
        for record in listed {
            let theirs = &bytes[record.offset..record.offset + record.bytes];
            assert_eq!(entry::parse(theirs), Ok(record.entry()), "{name} at {}", record.offset);
            assert_eq!(record.entry().encode(), theirs, "{name} at {}", record.offset);
            assert_eq!(theirs[record.bytes - 4..], record.crc.to_le_bytes());
            records += 1;
        }
    }
    assert_eq!(records, 760, "400 and 300 records, and five torn files with twelve lines each");
}

#[test]
fn logs_that_amaters_wrote_open_and_read_equal_to_their_listing() {
    // Goal: its logs are ours, with every way of reading. Method: the ring writer's file, and the blocking one's seven.
    let listing = listing();
    for names in
        [vec!["uring/wal_00000000.log".to_owned()], rotated(), vec!["empty/wal_00000000.log".to_owned()]]
    {
        let expected: Vec<_> =
            names.iter().filter_map(|name| listing.get(name)).flatten().map(Listed::body).collect();
        for check in [Check::All, Check::Tail] {
            let sim = machine(&names);
            let before = sim.snapshot();
            let fs = sim.fs();
            let read = key_value::read(fs.clone(), DIRECTORY, Sequences::Strict, None, u64::MAX);
            assert_eq!(numbered(read.expect("reads")).expect("reads"), expected);
            let salvaged = key_value::salvage(fs.clone(), DIRECTORY).expect("salvages");
            assert_eq!(numbered(salvaged).expect("salvages"), expected);
            let report =
                key_value::verify(&*fs, DIRECTORY, Sequences::Strict, &|_, _| Ok(())).expect("verifies");
            assert_eq!(
                (report.verdict, report.records),
                (Verdict::Clean, expected.len() as u64),
                "{report:?}"
            );
            assert_eq!((report.first_lsn, report.last_lsn), (1, expected.len() as u64));
            assert_eq!(sim.snapshot(), before, "reading changes nothing");

            let log = Log::open(&sim, Options { check, ..options() }).expect("opens");
            assert_eq!(log.recovery().records, expected.len() as u64);
            assert_eq!(log.recovery().torn_bytes, 0);
            let found = log.handle.read(1, u64::MAX).expect("reads");
            assert_eq!(numbered(found).expect("reads"), expected);
            log.close().expect("closes");
            for (number, name) in (0..).zip(&names) {
                assert_eq!(sim.read_file(file(number)), fixture(name), "opening changes no byte of it");
            }
        }
    }
}

#[test]
fn what_we_append_to_an_amaters_log_follows_its_largest_sequence() {
    // Goal: its reader finds ours behind its own, with nothing between. Method: append, and look at the file's bytes.
    let names = rotated();
    let sim = machine(&names);
    let mut log = Log::open(&sim, crate::with_files_of(8 << 10)).expect("opens");
    assert_eq!(log.last_lsn(), 300);
    log.append(301, &put("ours", "behind theirs")).expect("appends");
    log.close().expect("closes");
    let ours = Entry { sequence: 300, kind: Kind::Put, key: b"ours", value: b"behind theirs" }.encode();
    assert_eq!(sim.read_file(file(6)), [fixture(&names[6]), ours].concat());
}

#[test]
fn our_files_hold_what_the_entries_of_the_fixtures_encode_to() {
    // Goal: what we write is what amaters would have written. Method: append the entries of its log to one of ours.
    let listed = &listing()["uring/wal_00000000.log"];
    let (sim, mut log) = crate::log_of(crate::with_files_of(1 << 20));
    let bodies: Vec<_> = listed.iter().map(|record| record.entry().body()).collect();
    log.append_all(&bodies[..100]);
    log.submit(101, &bodies[100..], true).expect("is taken");
    log.turn_until(|status| status.durable_lsn == 400);
    log.close().expect("closes");
    assert_eq!(sim.read_file(file(0)), fixture("uring/wal_00000000.log"));
}

#[test]
fn a_fragment_at_the_end_is_a_torn_tail_and_the_record_before_it_survives() {
    // Goal: W1, first half: the tail that a crash of amaters left is cut, set aside and reported; records go on behind
    // the good one.
    for torn in TORN {
        let sim = Sim::new(1);
        let name = format!("torn-{torn:02}/before-reopen.bin");
        sim.write_file(file(0), fixture(&name));
        let report =
            key_value::verify(&*sim.fs(), DIRECTORY, Sequences::Strict, &|_, _| Ok(())).expect("verifies");
        assert_eq!(report.verdict, Verdict::Torn, "{report:?}");
        let found = report.torn.expect("it is torn");
        assert_eq!((found.segment, found.offset, found.bytes), (0, 39, torn as u64));

        let mut log = Log::open(&sim, options()).expect("opens");
        let recovery = log.recovery();
        assert_eq!((recovery.records, recovery.torn_bytes), (1, torn as u64));
        let at = recovery.torn_at.expect("it was cut");
        assert_eq!((at.segment, at.offset, at.lsn), (0, 39, 2));
        assert_eq!(sim.read_file(path("torn/0000000000000000-39-1.bin")), fixture(&name)[39..]);
        log.append(2, &put("behind", "the cut")).expect("appends");
        log.close().expect("closes");
        crate::must_hold(&sim, &[put("hello", "world"), put("behind", "the cut")]);
    }
}

#[test]
fn records_behind_a_fragment_are_damage_and_salvage_returns_all_eleven() {
    // Goal: W1, second half: what amaters wrote behind a fragment is neither lost in silence nor a panic (W15, W17).
    let listing = listing();
    for torn in TORN {
        let name = format!("torn-{torn:02}/wal_00000000.log");
        let expected: Vec<_> = listing[&name].iter().map(Listed::body).collect();
        assert_eq!(expected.len(), 11);
        for options in [options(), any_sequences()] {
            let sim = machine(std::slice::from_ref(&name));
            let before = sim.snapshot();
            let error = Log::open(&sim, options).expect_err("it is damaged");
            assert_eq!(error.code, Code::WalDamaged, "{error}");
            assert_eq!((error.segment, error.offset), (Some(0), Some(39)), "{error}");
            assert_eq!(without_lock(sim.snapshot()), before, "a refusal changes nothing");
        }
        let sim = machine(std::slice::from_ref(&name));
        let salvaged = key_value::salvage(sim.fs(), DIRECTORY).expect("salvages");
        assert_eq!(numbered(salvaged).expect("salvages"), expected, "{name}");

        let fs = sim.fs();
        let report = key_value::verify(&*fs, DIRECTORY, Sequences::Strict, &|_, _| Ok(())).expect("verifies");
        assert_eq!((report.verdict, report.records), (Verdict::Damage, 11), "{report:?}");
        let damage = &report.damage[0];
        assert_eq!((damage.segment, damage.offset), (Some(0), Some(39)));
        assert_eq!((damage.first_lsn, damage.last_lsn), (2, 10), "sequences 1 to 9 are lost");

        // Read in order, it is what amaters' reader should have said: the good record, then the damage.
        let mut read = key_value::read(fs, DIRECTORY, Sequences::Strict, None, u64::MAX).expect("begins");
        assert_eq!(read.next(1).expect("reads").expect("a record").count, 1);
        assert_eq!(read.next(1).expect_err("damage").code, Code::WalDamaged);
    }
}

#[test]
fn a_whole_record_stored_as_a_value_is_never_taken_for_one() {
    // Goal: values hold what they like. Method: the ring writer's file has such values; break the record around each
    // one and salvage: everything but that record comes out.
    let name = "uring/wal_00000000.log".to_owned();
    let listed = &listing()[&name];
    let holds_one = |record: &&Listed| record.value.windows(4).any(|four| *four == entry::MAGIC);
    let holders: Vec<&Listed> = listed.iter().filter(holds_one).collect();
    assert!(holders.len() > 5, "{} values hold the magic", holders.len());
    for holder in holders {
        let sim = machine(std::slice::from_ref(&name));
        sim.flip(file(0), (holder.offset + holder.bytes - 1) as u64, 0);
        let salvaged =
            numbered(key_value::salvage(sim.fs(), DIRECTORY).expect("salvages")).expect("salvages");
        let expected: Vec<_> =
            listed.iter().filter(|it| it.sequence != holder.sequence).map(Listed::body).collect();
        assert_eq!(salvaged, expected, "sequence {} is broken", holder.sequence);
    }
}
