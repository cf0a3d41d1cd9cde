//! A log of three files, broken in every way that one bit or one cut can: refused, reported torn, or harmless; never a
//! wrong record, never a panic, and a refusal changes nothing.

use ringbolt_core::Code;
use ringbolt_core::format::synced::Synced;
use ringbolt_core::wal::{Options, Verdict, key_value};
use ringbolt_disk::sim::Sim;

use crate::support::{DIRECTORY, Log, path, without_lock};
use crate::{Sequences, any_sequences, delete, file, numbered, options, put, with_files_of};

/// What became of a broken log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    refused: u64,
    torn: u64,
    harmless: u64,
}

fn bodies() -> Vec<Vec<u8>> {
    (0..12_u8)
        .map(|index| match index % 3 {
            0 => put(format!("key-{index}"), vec![index; 30]),
            1 => delete(format!("key-{index}")),
            _ => put([], []),
        })
        .collect()
}

/// Three files and their SYNCED.
fn machine() -> Sim {
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, with_files_of(200)).expect("opens");
    log.append_all(&bodies());
    log.close().expect("closes");
    assert!(!sim.read_file(file(2)).is_empty());
    assert!(!sim.list(DIRECTORY).contains(&"wal_00000003.log".to_owned()));
    sim
}

/// Look at a broken log in every way there is.
fn judge(sim: &Sim, options: Options, sequences: Sequences, tally: &mut Tally, case: &str) {
    let all: Vec<(u64, Vec<u8>)> = (0..).zip(bodies()).collect();
    let is_ours = |found: &[(u64, Vec<u8>)]| found.iter().all(|record| all.contains(record));
    let fs = sim.fs();
    let salvaged = numbered(key_value::salvage(fs.clone(), DIRECTORY).expect("begins")).expect("salvages");
    assert!(is_ours(&salvaged), "{case}: salvage invents {salvaged:?}");
    let mut read = key_value::read(fs.clone(), DIRECTORY, sequences, None, u64::MAX).expect("begins");
    let refusal = loop {
        match read.next(1) {
            Ok(Some(chunk)) => {
                let first = chunk.first_lsn as usize - 1;
                assert_eq!(chunk.bytes[4..], *all[first].1, "{case}");
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let report = key_value::verify(&*fs, DIRECTORY, sequences, &|_, _| Ok(())).expect("verifies");
    let before = sim.snapshot();
    match Log::open(sim, options) {
        Err(error) => {
            assert!([Code::WalDamaged, Code::WalUnsupported].contains(&error.code), "{case}: {error}");
            let expected =
                if error.code == Code::WalDamaged { Verdict::Damage } else { Verdict::Unsupported };
            assert_eq!(report.verdict, expected, "{case}: {report:?}, {error}");
            let refusal =
                refusal.unwrap_or_else(|| panic!("{case}: a reader ends as if nothing were missing"));
            assert_eq!(refusal.code, error.code, "{case}: {refusal}");
            assert_eq!(without_lock(sim.snapshot()), without_lock(before), "{case}");
            tally.refused += 1;
        }
        Ok(log) => {
            let is_torn = log.recovery().torn_bytes > 0;
            assert_eq!(
                report.verdict,
                if is_torn { Verdict::Torn } else { Verdict::Clean },
                "{case}: {report:?}"
            );
            let found = numbered(log.handle.read(1, u64::MAX).expect("begins")).expect("reads");
            assert_eq!(found, all[..found.len()], "{case}");
            assert_eq!(report.records, found.len() as u64, "{case}");
            tally.torn += u64::from(is_torn);
            tally.harmless += u64::from(!is_torn);
        }
    }
}

fn both() -> [(Options, Sequences); 2] {
    [(options(), Sequences::Strict), (any_sequences(), Sequences::Any)]
}

#[test]
fn each_bit_of_each_file_is_refused_or_torn() {
    // Goal: SYNCED vouches for everything, so every flip is refused; without SYNCED a flip in the last record is torn.
    for (options, sequences) in both() {
        for with_synced in [true, false] {
            let mut tally = Tally::default();
            let whole = machine();
            for number in 0..3 {
                for at in 0..whole.read_file(file(number)).len() as u64 {
                    let sim = whole.power_cut(1);
                    if !with_synced {
                        sim.remove_file(path("SYNCED"));
                    }
                    sim.flip(file(number), at, (at % 8) as u8);
                    let case = format!("{sequences:?}, SYNCED {with_synced}, file {number} at {at}");
                    judge(&sim, options.clone(), sequences, &mut tally, &case);
                }
            }
            println!("{sequences:?}, SYNCED {with_synced}: {tally:?}");
            assert_eq!(tally.harmless, 0, "every bit counts");
            assert_eq!(tally.torn > 0, !with_synced, "{tally:?}");
        }
    }
}

#[test]
fn each_bit_of_synced_is_refused() {
    let whole = machine();
    let mut tally = Tally::default();
    for at in 0..32 {
        for bit in 0..8 {
            let sim = whole.power_cut(1);
            sim.flip(path("SYNCED"), at, bit);
            judge(&sim, options(), Sequences::Strict, &mut tally, &format!("SYNCED at {at}, bit {bit}"));
        }
    }
    assert_eq!(tally, Tally { refused: 256, ..Tally::default() });
}

#[test]
fn each_truncation_of_each_file_is_refused_or_torn() {
    for (options, sequences) in both() {
        for with_synced in [true, false] {
            let mut tally = Tally::default();
            let whole = machine();
            for number in 0..3 {
                let bytes = whole.read_file(file(number));
                for len in 0..bytes.len() {
                    let sim = whole.power_cut(1);
                    if !with_synced {
                        sim.remove_file(path("SYNCED"));
                    }
                    sim.write_file(file(number), &bytes[..len]);
                    let case = format!("{sequences:?}, SYNCED {with_synced}, file {number} cut at {len}");
                    if sequences == Sequences::Any && number < 2 {
                        // Where any sequence will do, nothing in a later file says that a record is missing between
                        // two; within a record the cut shows.
                        if let Ok(log) = Log::open(&sim, options.clone()) {
                            assert_eq!(log.recovery().torn_bytes, 0, "{case}");
                        }
                        continue;
                    }
                    judge(&sim, options.clone(), sequences, &mut tally, &case);
                }
            }
            println!("{sequences:?}, SYNCED {with_synced}: {tally:?}");
            assert!(tally.refused > 0 || !with_synced);
        }
    }
}

#[test]
fn each_file_that_is_missing_is_refused_but_for_those_at_the_front() {
    for missing in 0..3 {
        for with_synced in [true, false] {
            let sim = machine();
            if !with_synced {
                sim.remove_file(path("SYNCED"));
            }
            sim.remove_file(file(missing));
            let read = key_value::read(sim.fs(), DIRECTORY, Sequences::Strict, None, u64::MAX);
            let read = numbered(read.expect("begins")).map_err(|error| error.code);
            let opened = Log::open(&sim, options());
            assert_eq!(
                read.err(),
                opened.as_ref().err().map(|error| error.code),
                "a reader sees what open sees"
            );
            match missing {
                // As after a truncation.
                0 => assert!(opened.is_ok_and(|log| log.last_lsn() == 12)),
                1 => assert_eq!(opened.expect_err("refused").code, Code::WalDamaged),
                // Without SYNCED nobody knows that there was one.
                _ => assert_eq!(opened.is_err(), with_synced),
            }
        }
    }
}

#[test]
fn a_file_of_another_log_in_place_of_ours_is_refused_in_a_strict_log() {
    let sim = machine();
    let (first, second) = (sim.read_file(file(0)), sim.read_file(file(1)));
    sim.write_file(file(0), second);
    sim.write_file(file(1), first);
    assert_eq!(Log::open(&sim, options()).expect_err("refused").code, Code::WalDamaged);
}

#[test]
fn a_value_full_of_what_looks_like_records_is_searched_in_bounded_time() {
    // Goal: no time without a bound for a hostile value. Method: a value of 8 MiB, made of beginnings of records that
    // claim to reach to its end; its own record is broken. Each of them read in full would be some terabytes.
    let (length, magic) = ((6_u32 << 20).to_le_bytes(), ringbolt_core::format::entry::MAGIC);
    let beginning = [&length[..], &magic, &[0; 8], &[1], &[0; 4]].concat();
    let value = beginning.repeat((8 << 20) / beginning.len());
    let bytes = [crate::record(0, &put("hostile", value)), crate::record(1, &put("next", ""))].concat();
    let sim = Sim::new(1);
    sim.write_file(file(0), bytes);
    sim.flip(file(0), 0, 3);
    let began = std::time::Instant::now();
    let salvaged = numbered(key_value::salvage(sim.fs(), DIRECTORY).expect("begins")).expect("salvages");
    assert_eq!(salvaged, [(1, put("next", ""))]);
    assert_eq!(Log::open(&sim, options()).expect_err("refused").code, Code::WalDamaged);
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn heads_of_records_that_cannot_follow_are_not_read_to_their_ends() {
    // Goal: an open is not kept by a hostile value, either. Method: a torn record whose value of 6 MiB is made of heads
    // that all share one length of a value at its end, and agree with it; none has a sequence that can follow.
    let (head_bytes, value_bytes) = (21, (6 << 20) / 21 * 21);
    let mut value = Vec::with_capacity(value_bytes + 8);
    for at in (0..value_bytes).step_by(head_bytes) {
        let key_bytes = (value_bytes - at - head_bytes) as u32;
        value.extend_from_slice(&(key_bytes + 25).to_le_bytes());
        value.extend_from_slice(&ringbolt_core::format::entry::MAGIC);
        value.extend_from_slice(&[0; 8]);
        value.push(1);
        value.extend_from_slice(&key_bytes.to_le_bytes());
    }
    value.extend_from_slice(&[0; 8]);
    let sim = Sim::new(1);
    sim.write_file(file(0), crate::record(0, &put("hostile", value)));
    sim.write_file(path("SYNCED"), Synced { file: 0, offset: 0 }.encode());
    sim.flip(file(0), 3, 7);
    let began = std::time::Instant::now();
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!((log.last_lsn(), log.recovery().torn_at.map(|at| at.offset)), (0, Some(0)));
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}
