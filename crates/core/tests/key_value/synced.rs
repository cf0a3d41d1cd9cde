//! SYNCED, and what a bad record means before it, at it, behind it, and where there is none: one test a sentence of the
//! format.

use std::sync::atomic::{AtomicU64, Ordering};

use ringbolt_core::Code;
use ringbolt_core::format::synced::Synced;
use ringbolt_core::wal::{Options, Sequences, Verdict, key_value};
use ringbolt_disk::sim::Sim;

use crate::support::{DIRECTORY, Log, interrupted, path, without_lock};
use crate::{any_sequences, file, log_of, must_hold, options, put, record, with_files_of};

const MEBIBYTE: usize = 1 << 20;

/// Records of a hundred bytes each, from a sequence on.
fn records(sequences: std::ops::Range<u64>) -> Vec<u8> {
    sequences.flat_map(|sequence| record(sequence, &hundred(sequence))).collect()
}

fn hundred(sequence: u64) -> Vec<u8> {
    put(sequence.to_le_bytes(), vec![sequence as u8; 100 - 29 - 8])
}

fn hundreds(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(hundred).collect()
}

/// A log of these files, and of a SYNCED that names this place.
fn machine(files: &[Vec<u8>], synced: Option<(u64, u64)>) -> Sim {
    let sim = Sim::new(1);
    for (number, bytes) in (0..).zip(files) {
        sim.write_file(file(number), bytes);
    }
    if let Some((number, offset)) = synced {
        sim.write_file(path("SYNCED"), Synced { file: number, offset }.encode());
    }
    sim
}

/// It is damage, at this place: open refuses without changing a byte, and verify says the same.
fn must_be_damage(sim: &Sim, place: Option<(u64, u64)>) {
    must_be_damage_to(sim, place, options(), Sequences::Strict);
}

fn must_be_damage_to(sim: &Sim, place: Option<(u64, u64)>, options: Options, sequences: Sequences) {
    let before = sim.snapshot();
    let error = Log::open(sim, options).expect_err("it is damaged");
    assert_eq!(error.code, Code::WalDamaged, "{error}");
    assert_eq!(error.segment.zip(error.offset), place, "{error}");
    assert_eq!(without_lock(sim.snapshot()), without_lock(before), "a refusal changes nothing");
    let report = key_value::verify(&*sim.fs(), DIRECTORY, sequences, &|_, _| Ok(())).expect("verifies");
    assert_eq!(report.verdict, Verdict::Damage, "{report:?}");
    assert_eq!(report.damage[0].segment.zip(report.damage[0].offset), place, "{report:?}");
}

/// It is a torn tail from this place on, behind so many records: open cuts it, and records go on there.
fn must_be_torn(sim: &Sim, (number, offset): (u64, u64), count: u64) {
    let report =
        key_value::verify(&*sim.fs(), DIRECTORY, Sequences::Strict, &|_, _| Ok(())).expect("verifies");
    assert_eq!(report.verdict, Verdict::Torn, "{report:?}");
    let torn = sim.read_file(file(number)).split_off(offset as usize);
    let mut log = Log::open(sim, options()).expect("opens");
    let recovery = log.recovery();
    let at = recovery.torn_at.expect("it is torn");
    assert_eq!((at.segment, at.offset, at.lsn), (number, offset, count + 1));
    assert_eq!((recovery.records, recovery.torn_bytes), (count, torn.len() as u64));
    let aside = path(&format!("torn/{number:016x}-{offset}-1.bin"));
    assert!(sim.read_file(aside) == torn, "the torn bytes are kept");
    log.append(count + 1, &hundred(count)).expect("appends");
    log.close().expect("closes");
    must_hold(sim, &hundreds(count + 1));
}

#[test]
fn a_bad_record_before_synced_is_damage() {
    let sim = machine(&[records(0..3)], Some((0, 300)));
    sim.flip(file(0), 150, 0);
    must_be_damage(&sim, Some((0, 100)));
    // The last one too, although nothing is behind it.
    let sim = machine(&[records(0..3)], Some((0, 300)));
    sim.flip(file(0), 250, 0);
    must_be_damage(&sim, Some((0, 200)));
}

#[test]
fn an_unreadable_synced_is_damage() {
    for at in 0..28 {
        let sim = machine(&[records(0..3)], Some((0, 300)));
        sim.flip(path("SYNCED"), at, 0);
        must_be_damage(&sim, None);
    }
    let sim = machine(&[records(0..3)], None);
    sim.write_file(path("SYNCED"), b"");
    must_be_damage(&sim, None);
    // The last field is a later version's to use.
    let sim = machine(&[records(0..3)], Some((0, 300)));
    sim.flip(path("SYNCED"), 30, 0);
    assert_eq!(Log::open(&sim, options()).expect_err("refused").code, Code::WalUnsupported);
}

#[test]
fn a_synced_met_in_the_middle_of_being_rewritten_is_read_again() {
    // Goal: beside an owner at work a torn read is no damage; verify and a reader. Method: SYNCED is half an old and
    // half a new statement at the first looks, each time another, and whole behind them.
    for torn in [1, 2, 10] {
        for which in 0..2 {
            let sim = machine(&[records(0..3)], None);
            let (machine, looks) = (sim.clone(), AtomicU64::new(0));
            let fs = interrupted(&sim, move || {
                let look = looks.fetch_add(1, Ordering::SeqCst);
                let mut bytes = Synced { file: 0, offset: 200 }.encode();
                let new = Synced { file: 0, offset: 300 }.encode();
                bytes[16..].copy_from_slice(&new[16..]);
                if look / 2 < torn {
                    bytes[24] = look as u8 / 2;
                }
                machine.write_file(path("SYNCED"), bytes);
            });
            if which == 0 {
                let report = key_value::verify(&*fs, DIRECTORY, Sequences::Strict, &|_, _| Ok(()));
                assert_eq!(report.expect("verifies").verdict, Verdict::Clean, "{torn} torn");
            } else {
                let source =
                    key_value::read(fs, DIRECTORY, Sequences::Strict, None, u64::MAX).expect("begins");
                assert_eq!(crate::numbered(source).expect("reads").len(), 3, "{torn} torn");
            }
        }
    }
}

#[test]
fn a_log_that_ends_before_synced_is_damage() {
    must_be_damage(&machine(&[records(0..2)], Some((0, 300))), Some((0, 200)));
    must_be_damage(&machine(&[records(0..2)], Some((1, 0))), Some((1, 0)));
    must_be_damage(&machine(&[], Some((0, 0))), Some((0, 0)));
    // A file that is not the last, cut between two records.
    let cut = machine(&[records(0..2), records(3..4)], Some((0, 300)));
    must_be_damage_to(&cut, Some((0, 200)), any_sequences(), Sequences::Any);
}

#[test]
fn a_synced_that_names_a_file_truncated_away_means_the_start_of_the_log() {
    let sim = machine(&[], Some((0, 300)));
    sim.write_file(file(1), [records(3..5), vec![0; 50]].concat());
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!((log.handle.opened().expect("open").first_lsn, log.last_lsn()), (4, 5));
    assert_eq!(log.recovery().torn_bytes, 50);
}

#[test]
fn a_bad_record_at_or_behind_synced_is_a_torn_tail() {
    for (synced, bad) in [(100, 100), (0, 100), (100, 200)] {
        let sim = machine(&[records(0..3)], Some((0, synced)));
        sim.flip(file(0), bad + 50, 0);
        // A good record stands behind it, not further than one write reaches.
        must_be_torn(&sim, (0, bad), bad / 100);
    }
}

#[test]
fn a_record_that_follows_more_than_a_mebibyte_behind_is_damage() {
    // Goal: one write is 1 MiB at the most, so what stands further behind was begun after it was synced. Method: the
    // good record exactly there, and one byte further; of a sequence that can follow, and of ones that cannot.
    let with_gap = |gap: usize, sequence: u64| {
        let bytes = [records(0..1), vec![0; gap], record(sequence, &hundred(1))].concat();
        machine(&[bytes], Some((0, 100)))
    };
    must_be_damage(&with_gap(MEBIBYTE + 1, 2), Some((0, 100)));
    must_be_damage(&with_gap(MEBIBYTE + 1, 30_000), Some((0, 100)));
    must_be_torn(&with_gap(MEBIBYTE, 2), (0, 100), 1);
    must_be_torn(&with_gap(MEBIBYTE + 1, 1), (0, 100), 1);
    must_be_torn(&with_gap(MEBIBYTE + 1, 40_000), (0, 100), 1);
}

#[test]
fn a_large_record_is_one_write_and_what_stands_behind_its_end_is_damage() {
    // Goal: "or behind the end its length claims, where that is more". Method: a record of 3 MiB, its middle lost,
    // once with a record of the log's stored in it, once with one behind it.
    let inside = put("whole", [vec![0; 2 * MEBIBYTE], record(2, &hundred(2)), vec![0; MEBIBYTE]].concat());
    let large = record(1, &inside);
    let torn = [records(0..1), large.clone()].concat();
    let sim = machine(&[torn], Some((0, 100)));
    sim.flip(file(0), 1000, 0);
    must_be_torn(&sim, (0, 100), 1);
    let followed = [records(0..1), large, records(2..3)].concat();
    let sim = machine(&[followed], Some((0, 100)));
    sim.flip(file(0), 1000, 0);
    must_be_damage(&sim, Some((0, 100)));
}

#[test]
fn in_a_file_that_is_not_the_last_it_is_torn_only_if_all_later_files_are_empty() {
    let bad = |later: Vec<Vec<u8>>| {
        let first = [records(0..2), vec![7; 40]].concat();
        machine(&[vec![first], later].concat(), Some((0, 200)))
    };
    must_be_torn(&bad(vec![vec![], vec![]]), (0, 200), 2);
    must_be_damage(&bad(vec![records(2..3)]), Some((0, 200)));
    must_be_damage(&bad(vec![vec![], vec![1]]), Some((0, 200)));
}

#[test]
fn without_synced_a_bad_record_with_a_valid_one_anywhere_behind_it_is_damage() {
    // Goal: files that amaters wrote. Method: junk between two records, with whatever sequence the second has.
    for (junk, sequence) in [(1, 2), (40, 2), (40, 0), (40, 9_999_999), (2 * MEBIBYTE, 2)] {
        let bytes = [records(0..1), vec![0xee; junk], record(sequence, &hundred(1))].concat();
        must_be_damage(&machine(&[bytes], None), Some((0, 100)));
    }
    must_be_torn(&machine(&[[records(0..2), vec![0xee; 300]].concat()], None), (0, 200), 2);
    must_be_torn(&machine(&[records(0..3)[..250].to_vec()], None), (0, 200), 2);
}

#[test]
fn sequences_rise_by_one_or_it_is_damage_unless_any_will_do() {
    for files in [
        vec![records(1..3)],
        vec![[records(0..1), records(2..3)].concat()],
        vec![[records(0..2), records(1..2)].concat()],
        vec![records(0..2), records(3..4)],
        vec![records(0..2), records(0..1)],
    ] {
        for synced in [None, Some((0, 0))] {
            let sim = machine(&files, synced);
            assert_eq!(Log::open(&sim, options()).expect_err("strict").code, Code::WalDamaged);
            let report = key_value::verify(&*sim.fs(), DIRECTORY, Sequences::Strict, &|_, _| Ok(()))
                .expect("verifies");
            assert_eq!((report.verdict, report.damage.len()), (Verdict::Damage, 1), "{report:?}");
            assert_eq!(report.records * 100, files.concat().len() as u64, "and every record is counted");

            // Appended to behind the largest sequence, wherever that is.
            let mut log = Log::open(&sim, any_sequences()).expect("opens");
            let own = |log: &Log| {
                let source = log.handle.read(log.handle.status().first_lsn, u64::MAX).expect("begins");
                crate::numbered(source).expect("reads")
            };
            let before = own(&log);
            assert_eq!(before.len() as u64, report.records);
            let next = log.last_lsn() + 1;
            log.append(next, &put("next", "")).expect("appends");
            assert_eq!(own(&log), [before, vec![(next - 1, put("next", ""))]].concat());
            log.close().expect("closes");
            let source =
                key_value::read(sim.fs(), DIRECTORY, Sequences::Any, None, u64::MAX).expect("begins");
            let found: Vec<u64> =
                crate::numbered(source).expect("reads").iter().map(|(sequence, _)| *sequence).collect();
            assert_eq!(found.len() as u64, report.records + 1);
            assert_eq!(found.iter().max(), found.last());
        }
    }
}

#[test]
fn a_sequence_that_javascript_cannot_count_is_unsupported_by_name() {
    let mut far = record(1, &hundred(1));
    far[8..16].copy_from_slice(&(1_u64 << 53).to_le_bytes());
    let key: [u8; 8] = 1_u64.to_le_bytes();
    let covered = [&far[8..17], &key[..], &far[33..96]].concat();
    far[96..].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
    let sim = machine(&[[records(0..1), far].concat()], None);
    for options in [options(), any_sequences()] {
        let error = Log::open(&sim, options).expect_err("refused");
        assert_eq!((error.code, error.found.as_deref()), (Code::WalUnsupported, Some("9007199254740992")));
    }
    let report =
        key_value::verify(&*sim.fs(), DIRECTORY, Sequences::Strict, &|_, _| Ok(())).expect("verifies");
    assert_eq!((report.verdict, report.records), (Verdict::Unsupported, 1));
    // The highest that it can count is read, and leaves no number for another.
    let sim = machine(&[record((1 << 53) - 1, &hundred(1))], None);
    let error = Log::open(&sim, any_sequences()).expect_err("it takes no more");
    assert_eq!(error.code, Code::WalUnsupported, "{error}");
    let source = key_value::read(sim.fs(), DIRECTORY, Sequences::Any, None, u64::MAX).expect("begins");
    assert_eq!(crate::numbered(source).expect("reads").len(), 1);
}

#[test]
fn a_gap_in_the_file_numbers_is_damage_but_at_the_front() {
    let sim = machine(&[records(0..1), records(1..2), records(2..3)], None);
    sim.remove_file(file(1));
    must_be_damage(&sim, Some((1, 0)));
    let sim = machine(&[records(0..1), records(1..2), records(2..3)], None);
    sim.remove_file(file(0));
    let log = Log::open(&sim, options()).expect("opens");
    assert_eq!((log.handle.opened().expect("open").first_lsn, log.last_lsn()), (2, 3));
}

#[test]
fn a_directory_with_a_files_name_is_an_error_and_no_loop() {
    // W17: amaters never comes back from this.
    let sim = machine(&[records(0..1)], None);
    sim.make_dir(file(1));
    let before = sim.snapshot();
    let error = Log::open(&sim, options()).expect_err("refused");
    assert_eq!((error.code, error.path.as_deref()), (Code::WalUnsupported, Some(&*file(1))), "{error}");
    assert_eq!(sim.snapshot(), before);
    let verified = key_value::verify(&*sim.fs(), DIRECTORY, Sequences::Strict, &|_, _| Ok(()));
    assert_eq!(verified.expect_err("refused").code, Code::WalUnsupported);
    assert_eq!(key_value::salvage(sim.fs(), DIRECTORY).expect_err("refused").code, Code::WalUnsupported);
}

#[test]
fn a_log_is_made_where_there_is_nothing_else() {
    // Foreign files where there is no log; beside one they are left alone.
    let sim = Sim::new(1);
    sim.write_file(path("notes.txt"), b"mine");
    let before = sim.snapshot();
    let error = Log::open(&sim, options()).expect_err("refused");
    assert_eq!((error.code, error.found.as_deref()), (Code::WalNotEmpty, Some("notes.txt")));
    assert_eq!(sim.snapshot(), before, "LOCK is not even made");
    sim.remove_file(path("notes.txt"));
    sim.write_file(path("other.tmp"), b"");
    let log = Log::open(&sim, options()).expect("opens");
    log.close().expect("closes");
    sim.write_file(path("notes.txt"), b"mine");
    Log::open(&sim, options()).expect("opens").close().expect("closes");
    assert_eq!(sim.read_file(path("notes.txt")), b"mine");
    // Neither format opens the other's.
    assert_eq!(Log::open(&sim, crate::support::options()).expect_err("refused").code, Code::WalNotEmpty);
    let sim = Sim::new(1);
    Log::open(&sim, crate::support::options()).expect("a native log").close().expect("closes");
    assert_eq!(Log::open(&sim, options()).expect_err("refused").code, Code::WalNotEmpty);
}

#[test]
fn synced_follows_the_log_and_a_log_that_was_closed_is_known_for_it() {
    let (sim, mut log) = log_of(with_files_of(250));
    let said = |sim: &Sim| Synced::decode(&sim.read_file(path("SYNCED"))).expect("it is whole");
    assert_eq!(said(&sim), Synced { file: 0, offset: 0 });
    for lsn in 1..=5 {
        log.append(lsn, &hundred(lsn - 1)).expect("appends");
        log.turn(20);
        let place = (lsn - 1) / 2;
        assert_eq!(said(&sim), Synced { file: place, offset: 100 * (1 + (lsn - 1) % 2) });
    }
    log.close().expect("closes");
    let closed = sim.power_cut(3);
    assert_eq!(said(&closed), Synced { file: 2, offset: 100 }, "it is durable at close");
    assert!(Log::open(&closed, options()).expect("opens").recovery().clean_shutdown);
}

#[test]
fn a_second_without_work_makes_synced_durable() {
    let (sim, mut log) = log_of(options());
    log.append(1, &hundred(0)).expect("appends");
    for _ in 0..100 {
        log.turn(1);
    }
    let cut = sim.image().boot_with([], 1);
    assert_eq!(Synced::decode(&cut.read_file(path("SYNCED"))), Ok(Synced { file: 0, offset: 100 }));
}

#[test]
fn torn_tails_of_the_newest_four_recoveries_are_kept() {
    let sim = machine(&[records(0..1)], None);
    for recovery in 1..=6_u8 {
        let good = records(0..1);
        sim.write_file(file(0), [good, vec![recovery; 10]].concat());
        Log::open(&sim, options()).expect("opens").close().expect("closes");
    }
    let kept: Vec<_> = (3..=6).map(|number| format!("0000000000000000-100-{number}.bin")).collect();
    assert_eq!(sim.list(path("torn")), kept);
}
