//! What open makes of a log, sentence by sentence of docs/FORMAT.md: the verdict table, HEAD, creation,
//! segment headers, frames. Each test writes a log by hand that one sentence is about, opens it on a
//! simulated machine, and compares verdict, place, records and files.

mod craft;
mod support;

use std::path::Path;

use craft::{
    Craft, LOG_ID, SEGMENT_BYTES, file, files, forge_header, opened, options, record, refused, segment,
};
use ringbolt_core::format::head::{HEAD_BYTES, Head, State};
use ringbolt_core::format::{
    GRAIN, HEAD_NAME, LOCK_NAME, LogId, TORN_NAME, TornName, is_temporary, segment_name,
};
use ringbolt_core::wal::{Check, Options, TornAt, read};
use ringbolt_core::{Code, Error};
use ringbolt_disk::sim::{Call, Fault, Sim};
use support::{DIRECTORY, Log};

fn place(error: &Error) -> (u64, u64) {
    error.segment.zip(error.offset).unwrap_or_else(|| panic!("no place: {error:?}"))
}

fn lsns(error: &Error) -> (u64, u64) {
    error.first_lsn.zip(error.last_lsn).unwrap_or_else(|| panic!("no LSNs: {error:?}"))
}

/// One segment: LSNs 1 and 2, 3, 4; nothing proven but 1 and 2, by the third batch.
fn three_batches() -> (Craft, [u64; 3]) {
    let mut log = Craft::new();
    let one = log.batch(2);
    let two = log.batch(1);
    log.next.durable_lsn = 2;
    let three = log.batch(1);
    (log, [one, two, three])
}

/// Two sealed segments and a third: LSNs 1 to 3, 4 to 6, 7 and 8. Proven up to 7.
fn three_segments() -> Craft {
    let mut log = Craft::new();
    log.batch(3);
    log.seal();
    log.batch(3);
    log.seal();
    log.batch(1);
    log.next.durable_lsn = 7;
    log.batch(1);
    log
}

/// How a kill leaves a log that flushes several batches at once: a whole batch, one torn in its payload, two
/// behind it that prove nothing of it, the last of them in the next segment.
fn several_in_flight() -> (Craft, u64) {
    let mut log = Craft::new();
    log.batch(3);
    log.next.durable_lsn = 3;
    let torn = log.batch(2);
    log.batch(1);
    // What no writer leaves, since a seal waits for what is before it, and the table covers all the same.
    let (number, crc) = (log.place.0, log.next.previous_crc);
    log.segment(number + 1);
    log.place = (number + 1, GRAIN);
    log.next.previous_crc = crc;
    log.batch(1);
    log.segment(number + 2);
    log.spoil(1, torn);
    (log, torn)
}

mod io_error {
    use super::*;

    #[test]
    fn while_reading_is_surfaced_and_never_taken_for_the_end_of_the_log() {
        // Every read of the opening fails once, in turn, in a clean log and in a torn one.
        for log in [three_segments(), several_in_flight().0] {
            let mut reads = 0;
            loop {
                let sim = log.machine();
                sim.fail(Fault::new(Call::Read).skip(reads));
                let before = sim.read_file(file(HEAD_NAME));
                let Err(error) = Log::open(&sim, options()) else { break };
                assert_eq!(error.code, Code::WalIo, "{error:?}");
                assert_eq!((error.errno, error.syscall), (Some(5), Some("pread")), "{error:?}");
                assert_eq!(sim.read_file(file(HEAD_NAME)), before, "read {reads}");
                // What was set aside and cut by then was judged before; the records are all there.
                let last = log.clone().next.first_lsn - 1;
                let log = Log::open(&sim, options()).expect("opens once the disk reads again");
                assert!(log.last_lsn() == last || log.last_lsn() == 3, "{:?}", log.recovery());
                reads += 1;
            }
            assert!(reads > 5, "the opening reads more than {reads} times");
        }
    }

    #[test]
    fn in_a_torn_place_is_no_torn_tail() {
        let (mut log, torn) = several_in_flight();
        log.head.proven_lsn = 3;
        let sim = log.machine();
        sim.fail(Fault::new(Call::Read).named(".seg").bytes(torn..torn + GRAIN).forever());
        refused(&sim, Code::WalIo);
        sim.clear_faults();
        assert_eq!(opened(&sim, 1, 3).torn_at.expect("torn").offset, torn);
    }

    #[test]
    fn of_opening_or_listing_is_surfaced() {
        for fault in [
            Fault::new(Call::Open).named(".seg"),
            Fault::new(Call::Open).named(HEAD_NAME),
            Fault::new(Call::List),
        ] {
            let sim = three_segments().machine();
            sim.fail(fault);
            let error = refused(&sim, Code::WalIo);
            assert_eq!(error.errno, Some(5), "{error:?}");
            opened(&sim, 1, 8);
        }
    }
}

mod unsupported {
    use super::*;

    #[test]
    fn kinds_and_flags_refuse_wherever_they_are() {
        for (at, field, found) in [(8, 3, "3"), (9, 1, "0x01")] {
            for index in 0..3 {
                let (mut log, offsets) = three_batches();
                log.forge(1, offsets[index], at, &[field]);
                let error = refused(&log.machine(), Code::WalUnsupported);
                assert_eq!(error.offset, Some(offsets[index]), "{error:?}");
                assert_eq!(error.path, Some(segment(1)));
                assert_eq!(error.found.as_deref(), Some(found), "{error:?}");
                assert!(error.expected.is_some() && error.reason.is_some());
            }
        }
    }

    #[test]
    fn kinds_outrank_damage_before_them() {
        // The first batch is damaged by every proof there is; a later segment holds a kind we do not know.
        let mut log = three_segments();
        log.spoil(1, GRAIN);
        log.head.proven_lsn = 8;
        assert_eq!(refused(&log.machine(), Code::WalDamaged).offset, Some(GRAIN));
        log.forge(3, GRAIN, 8, &[9]);
        let error = refused(&log.machine(), Code::WalUnsupported);
        assert_eq!((error.path.clone(), error.offset), (Some(segment(3)), Some(GRAIN)), "{error:?}");
    }

    #[test]
    fn kinds_outrank_a_contradiction_before_them() {
        let (mut log, offsets) = three_batches();
        log.forge(1, offsets[1], 24, &0_u32.to_le_bytes());
        refused(&log.machine(), Code::WalDamaged);
        log.forge(1, offsets[2], 8, &[9]);
        assert_eq!(refused(&log.machine(), Code::WalUnsupported).offset, Some(offsets[2]));
    }

    #[test]
    fn kinds_whose_checksum_does_not_hold_are_no_headers() {
        let (mut log, offsets) = three_batches();
        log.bytes(1)[offsets[2] as usize + 8] = 9;
        assert_eq!(opened(&log.machine(), 1, 3).torn_at.expect("torn").offset, offsets[2]);
    }

    #[test]
    fn kinds_of_a_lower_incarnation_are_junk() {
        let mut log = Craft::new();
        log.head.incarnation = 2;
        log.next.incarnation = 2;
        log.batch(2);
        log.next.incarnation = 1;
        let junk = log.batch(1);
        log.forge(1, junk, 8, &[9]);
        assert_eq!(opened(&log.machine(), 1, 2).torn_at.expect("torn").offset, junk);
    }

    #[test]
    fn segment_headers_refuse_and_outrank_damage() {
        // Version, grain, size, reserved field: of the last segment, while the first is damaged too.
        for (at, field) in
            [(12, 2_u16.to_le_bytes()), (14, [13, 0]), (40, [1, 0]), (48, [1, 0]), (62, [0, 1])]
        {
            let mut log = three_segments();
            log.bytes(1)[0] ^= 1;
            refused(&log.machine(), Code::WalDamaged);
            forge_header(log.bytes(3), at, &field);
            let error = refused(&log.machine(), Code::WalUnsupported);
            assert_eq!((error.path.clone(), error.offset), (Some(segment(3)), Some(0)), "{error:?}");
            assert!(error.found.is_some() && error.expected.is_some(), "{error:?}");
        }
    }

    #[test]
    fn kinds_outrank_a_bad_header_before_them() {
        let mut log = three_segments();
        log.bytes(2)[0] ^= 1;
        log.forge(3, GRAIN, 8, &[9]);
        refused(&log.machine(), Code::WalUnsupported);
    }

    #[test]
    fn states_versions_and_reserved_fields_of_head_refuse() {
        for (at, field, found) in [(14, 3_u16, "3"), (14, 0, "0"), (12, 2, "2"), (60, 1, "0x1")] {
            let sim = three_segments().machine();
            let mut head = sim.read_file(file(HEAD_NAME));
            forge_header(&mut head, at, &field.to_le_bytes());
            sim.write_file(file(HEAD_NAME), head);
            let error = refused(&sim, Code::WalUnsupported);
            assert_eq!(error.path, Some(file(HEAD_NAME)));
            assert_eq!(error.found.as_deref(), Some(found), "{error:?}");
        }
    }
}

mod damage {
    use super::*;

    #[test]
    fn is_a_later_header_whose_durable_lsn_reaches_the_record_due() {
        let (mut log, offsets) = three_batches();
        log.spoil(1, offsets[0]);
        let error = refused(&log.machine(), Code::WalDamaged);
        assert_eq!(place(&error), (1, offsets[0]));
        // Up to where the frame that proves it begins.
        assert_eq!(lsns(&error), (1, 3));
        assert_eq!(error.path, Some(segment(1)));
        assert!(
            error.reason.as_deref().is_some_and(|reason| reason.contains("LSN 2 was durable")),
            "{error}"
        );
    }

    #[test]
    fn is_a_later_header_whose_durable_lsn_is_the_record_due() {
        let mut log = Craft::new();
        log.batch(2);
        let due = log.batch(1);
        log.next.durable_lsn = 3;
        log.batch(1);
        log.spoil(1, due);
        let error = refused(&log.machine(), Code::WalDamaged);
        assert_eq!((place(&error), lsns(&error)), ((1, due), (3, 3)));
    }

    #[test]
    fn is_not_a_later_header_whose_durable_lsn_is_one_below() {
        let (mut log, offsets) = three_batches();
        log.spoil(1, offsets[1]);
        assert_eq!(opened(&log.machine(), 1, 2).torn_at.expect("torn").lsn, 3);
    }

    #[test]
    fn is_proven_by_the_header_alone() {
        // The proof has a rotten payload itself.
        let (mut log, offsets) = three_batches();
        log.spoil(1, offsets[0]);
        log.spoil(1, offsets[2]);
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, offsets[0]));
    }

    #[test]
    fn is_proven_from_a_later_segment() {
        let mut log = three_segments();
        log.bytes(1)[GRAIN as usize..].fill(0);
        let error = refused(&log.machine(), Code::WalDamaged);
        assert_eq!((place(&error), error.first_lsn), ((1, GRAIN), Some(1)));
    }

    #[test]
    fn is_an_end_below_the_proven_lsn_of_head() {
        // Torn, and as clean as an end can be.
        let (log, offsets) = three_batches();
        for clean in [false, true] {
            let mut log = log.clone();
            log.head.proven_lsn = 4;
            opened(&log.machine(), 1, 4);
            if clean {
                log.bytes(1)[offsets[2] as usize..].fill(0);
            } else {
                log.spoil(1, offsets[2]);
            }
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!((place(&error), lsns(&error)), ((1, offsets[2]), (4, 4)), "{error:?}");
            log.head.proven_lsn = 3;
            assert_eq!(opened(&log.machine(), 1, 3).torn_at.is_none(), clean);
        }
    }

    #[test]
    fn is_a_sealed_segment_whose_next_is_missing() {
        let mut log = three_segments();
        log.seal();
        log.segments.remove(&4);
        let error = refused(&log.machine(), Code::WalDamaged);
        assert_eq!((place(&error), error.first_lsn), ((4, 0), Some(9)), "{error:?}");
    }

    #[test]
    fn is_a_gap_in_segment_numbers() {
        for missing in 1..=2 {
            let mut log = three_segments();
            log.segments.remove(&missing);
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!(
                (place(&error), error.path.clone()),
                ((missing, 0), Some(segment(missing))),
                "{error:?}"
            );
        }
        // A gap before a segment without frames, too.
        let mut log = three_segments();
        log.segment(5);
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (4, 0));
    }

    #[test]
    fn is_every_segment_missing() {
        let mut log = three_segments();
        log.segments.clear();
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, 0));
    }

    #[test]
    fn is_a_break_in_lsn_between_valid_frames() {
        for found in [1, 2, 4, 9] {
            let mut log = Craft::new();
            log.batch(2);
            log.next.first_lsn = found;
            let offset = log.batch(1);
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!((place(&error), error.first_lsn), ((1, offset), Some(3)), "{error:?}");
        }
    }

    #[test]
    fn is_a_break_in_the_previous_checksum_between_valid_frames() {
        for sealed in [false, true] {
            let mut log = Craft::new();
            log.batch(2);
            if sealed {
                log.seal();
            }
            log.next.previous_crc ^= 1;
            let offset = log.batch(1);
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!(place(&error), (1 + u64::from(sealed), offset), "{error:?}");
        }
    }

    #[test]
    fn is_a_first_frame_that_follows_something() {
        // The log's first frame is LSN 1 and follows no checksum.
        for (first_lsn, previous_crc) in [(2, 0), (1, 7)] {
            let mut log = Craft::new();
            (log.next.first_lsn, log.next.previous_crc) = (first_lsn, previous_crc);
            log.batch(1);
            assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, GRAIN));
        }
    }

    #[test]
    fn is_another_logs_segment() {
        let mut log = three_segments();
        forge_header(log.bytes(2), 16, &[7; 16]);
        let error = refused(&log.machine(), Code::WalDamaged);
        assert_eq!(place(&error), (2, 0));
        let reason = error.reason.as_deref().expect("a reason");
        assert!(
            reason.contains(&LOG_ID.to_string()) && reason.contains(&LogId([7; 16]).to_string()),
            "{reason}"
        );
    }

    #[test]
    fn is_a_segment_under_another_number() {
        let mut log = three_segments();
        forge_header(log.bytes(2), 32, &3_u64.to_le_bytes());
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (2, 0));
    }

    #[test]
    fn is_a_bad_first_frame_in_an_oldest_segment_above_the_first() {
        // Rotten; and not there at all, which in segment 1 would be an empty log.
        for missing in [false, true] {
            let mut log = Craft::from_segment(4, 17);
            log.batch(2);
            opened(&log.machine(), 17, 18);
            if missing {
                log.bytes(4)[GRAIN as usize..].fill(0);
            } else {
                log.spoil(4, GRAIN);
            }
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!((place(&error), error.first_lsn), ((4, GRAIN), Some(17)), "{error:?}");
        }
    }

    #[test]
    fn is_a_header_that_contradicts_itself() {
        // Reserved fields, first LSN, counts, durable LSN, incarnation: signed, and so never a torn write;
        // the last batch of the log, and one behind a torn one.
        let cases: [(usize, &[u8]); 9] = [
            (10, &[1, 0]),
            (56, &[1]),
            (63, &[1]),
            (16, &[0; 8]),
            (16, &(1_u64 << 53).to_le_bytes()),
            (24, &[0; 4]),
            (32, &4_u64.to_le_bytes()),
            (24, &[2, 0, 0, 0]),
            (44, &[0; 4]),
        ];
        for (at, field) in cases {
            let (mut log, offsets) = three_batches();
            log.forge(1, offsets[2], at, field);
            // An incarnation of 0 is lower than any other, and that is asked first.
            if at == 44 {
                opened(&log.machine(), 1, 3);
                continue;
            }
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!(place(&error), (1, offsets[2]), "{at}: {error:?}");
            // Only with its payload can the number of records be wrong.
            if field != [2, 0, 0, 0] {
                log.spoil(1, offsets[1]);
                assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, offsets[2]));
            }
        }
    }

    #[test]
    fn is_a_seal_that_contradicts_itself() {
        for (at, field) in [(24, 1_u32), (12, 4), (32, 1)] {
            let mut log = Craft::new();
            log.batch(2);
            let offset = log.seal();
            log.forge(1, offset, at, &field.to_le_bytes());
            assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, offset));
        }
    }

    #[test]
    fn is_an_end_outside_the_segment_or_in_the_grain_of_the_seal() {
        let (log, offsets) = three_batches();
        let room = SEGMENT_BYTES - offsets[2] - 64;
        for payload in [room - GRAIN + 1, room, room + 1, u64::from(u32::MAX)] {
            let mut log = log.clone();
            log.forge(1, offsets[2], 12, &u32::try_from(payload).expect("a length").to_le_bytes());
            let error = refused(&log.machine(), Code::WalDamaged);
            assert_eq!(place(&error), (1, offsets[2]), "{error:?}");
        }
        // One byte less leaves the seal its grain: a payload that does not hold, and no contradiction.
        let mut log = log;
        let payload = u32::try_from(room - GRAIN).expect("a length");
        log.forge(1, offsets[2], 12, &payload.to_le_bytes());
        assert_eq!(opened(&log.machine(), 1, 3).torn_at.expect("torn").offset, offsets[2]);
    }

    #[test]
    fn is_a_frame_of_an_incarnation_above_heads() {
        // In its turn, and behind a torn one.
        let mut log = Craft::new();
        log.batch(1);
        log.next.durable_lsn = 1;
        let two = log.batch(1);
        log.next.incarnation = 2;
        let three = log.batch(1);
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, three));
        log.spoil(1, two);
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, three));
        log.head.incarnation = 2;
        opened(&log.machine(), 1, 1);
    }
}

mod head {
    use super::*;

    fn with_head(sim: &Sim, at: usize, field: u64) {
        let mut head = sim.read_file(file(HEAD_NAME));
        forge_header(&mut head, at, &field.to_le_bytes());
        sim.write_file(file(HEAD_NAME), head);
    }

    #[test]
    fn with_a_first_lsn_above_the_proven_one_plus_one_is_damage() {
        let log = Craft { head: Head { proven_lsn: 4, ..three_segments().head }, ..three_segments() };
        for (first_lsn, is_sound) in [(4, true), (5, true), (6, false), (u64::MAX, false), (0, false)] {
            let sim = log.machine();
            with_head(&sim, 40, first_lsn);
            if is_sound {
                opened(&sim, first_lsn, 8);
            } else {
                assert_eq!(refused(&sim, Code::WalDamaged).path, Some(file(HEAD_NAME)));
            }
        }
    }

    #[test]
    fn with_a_first_lsn_below_the_first_frame_kept_is_damage() {
        let mut log = Craft::from_segment(3, 7);
        log.batch(2);
        let sim = log.machine();
        with_head(&sim, 40, 6);
        let error = refused(&sim, Code::WalDamaged);
        assert_eq!(place(&error), (3, GRAIN), "{error:?}");
        let error = craft::refused_with(&sim, Options { check: Check::Tail, ..options() }, Code::WalDamaged);
        assert_eq!(place(&error), (3, GRAIN), "{error:?}");
    }

    #[test]
    fn with_a_first_lsn_inside_a_segment_serves_from_there() {
        let mut log = three_segments();
        log.head.first_lsn = 5;
        log.head.proven_lsn = 6;
        log.head.oldest_segment = 2;
        log.segments.remove(&1);
        let sim = log.machine();
        opened(&sim, 5, 8);
        let log = Log::open(&sim, options()).expect("opens");
        assert_eq!(log.read(4).expect_err("is truncated").code, Code::WalTruncated);
        assert_eq!(log.read(6).expect("reads"), (6..=8).map(record).collect::<Vec<_>>());
    }

    #[test]
    fn does_not_check_what_the_first_frame_after_a_truncation_follows() {
        let mut log = Craft::from_segment(9, 100);
        log.next.previous_crc = 0xdead_beef;
        log.batch(2);
        opened(&log.machine(), 100, 101);
    }

    #[test]
    fn that_is_not_whole_is_damage() {
        let sim = three_segments().machine();
        let head = sim.read_file(file(HEAD_NAME));
        let longer = [&head[..], &[0]].concat();
        for len in (0..HEAD_BYTES).chain([HEAD_BYTES + 1]) {
            sim.write_file(file(HEAD_NAME), &longer[..len]);
            let error = refused(&sim, Code::WalDamaged);
            assert_eq!(error.path, Some(file(HEAD_NAME)), "{error:?}");
            assert_eq!((error.segment, error.first_lsn, error.last_lsn), (None, None, None), "{error:?}");
        }
        for at in [0, 7, 8, 11, 12, 63] {
            let mut head = head.clone();
            head[at] ^= 0x40;
            sim.write_file(file(HEAD_NAME), head);
            assert_eq!(refused(&sim, Code::WalDamaged).path, Some(file(HEAD_NAME)));
        }
    }

    #[test]
    fn that_is_missing_beside_frames_is_damage() {
        let error = refused(&three_segments().machine_without_head(), Code::WalDamaged);
        assert!(error.message.contains("HEAD is missing"), "{error}");
        // Anything but zeros: not only frames.
        let mut log = Craft::new();
        log.bytes(1)[SEGMENT_BYTES as usize - 1] = 1;
        refused(&log.machine_without_head(), Code::WalDamaged);
        let mut log = Craft::new();
        log.segment(2);
        log.bytes(2)[GRAIN as usize] = 1;
        refused(&log.machine_without_head(), Code::WalDamaged);
    }

    #[test]
    fn names_an_oldest_segment_that_is_missing() {
        let mut log = three_segments();
        log.head.oldest_segment = 4;
        let error = refused(&log.machine(), Code::WalDamaged);
        assert_eq!(place(&error), (4, 0));
    }

    #[test]
    fn knows_of_the_last_opening_that_could_be_counted() {
        let mut log = three_segments();
        log.head.incarnation = u32::MAX;
        refused(&log.machine(), Code::WalUnsupported);
    }

    #[test]
    fn that_says_closed_tells_a_clean_shutdown() {
        let mut log = three_segments();
        assert!(!opened(&log.machine(), 1, 8).clean_shutdown);
        log.head = Head { state: State::Closed, proven_lsn: 8, ..log.head };
        assert!(opened(&log.machine(), 1, 8).clean_shutdown);
    }
}

mod creation {
    use super::*;

    #[test]
    fn that_was_interrupted_is_completed() {
        // After each of its steps, and with the one that prepared the next segment.
        let whole = Craft::new();
        let mut with_next = whole.clone();
        with_next.segment(2);
        let only_temporary = Craft { segments: [].into(), ..whole.clone() }.machine_without_head();
        only_temporary.write_file(file("wal-0000000000000001.seg.tmp"), b"RING");
        let with_temporary = whole.machine_without_head();
        with_temporary.write_file(file("HEAD.tmp"), b"RBHEAD");
        let mut short = whole.clone();
        short.bytes(1).truncate(64);
        let machines = [
            whole.machine_without_head(),
            with_next.machine_without_head(),
            only_temporary,
            with_temporary,
            short.machine_without_head(),
        ];
        for sim in machines {
            let mut log = Log::open(&sim, options()).expect("opens");
            assert!(log.recovery().created, "{:?}", log.recovery());
            assert_eq!(log.last_lsn(), 0);
            log.append(1, &record(1)).expect("appends");
            log.close().expect("closes");
            opened(&sim, 1, 1);
            assert_eq!(sim.list(DIRECTORY), [HEAD_NAME, LOCK_NAME, &segment_name(1)]);
            assert_eq!(sim.read_file(segment(1)).len() as u64, SEGMENT_BYTES);
        }
    }

    #[test]
    fn is_in_an_empty_directory_only() {
        for (name, is_taken) in [
            ("notes.txt", true),
            ("wal-1.seg", true),
            (TORN_NAME, true),
            ("notes.tmp", false),
            ("LOCK", false),
            ("lost+found/x", false),
        ] {
            let sim = Sim::new(1);
            sim.write_file(file(name), b"somebody's");
            if is_taken {
                let error = refused(&sim, Code::WalNotEmpty);
                assert_eq!(error.found.as_deref(), Some(name), "{error:?}");
                assert_eq!(sim.list(DIRECTORY), [name], "not even LOCK is made");
            } else {
                Log::open(&sim, options()).expect("opens");
            }
        }
    }

    #[test]
    fn is_not_what_a_bad_header_without_frames_and_head_comes_from() {
        // Somebody else's file by our name.
        let mut log = Craft::new();
        log.bytes(1)[..8].copy_from_slice(b"NOTOURS!");
        let error = refused(&log.machine_without_head(), Code::WalUnsupported);
        assert_eq!((error.path.clone(), error.offset), (Some(segment(1)), Some(0)), "{error:?}");
        let sim = Sim::new(1);
        sim.write_file(segment(1), b"some text");
        refused(&sim, Code::WalUnsupported);
    }

    #[test]
    fn is_not_what_a_bad_header_beside_frames_comes_from() {
        let mut log = three_segments();
        log.bytes(2)[0] ^= 1;
        assert_eq!(place(&refused(&log.machine_without_head(), Code::WalDamaged)), (2, 0));
        // With HEAD it is damage whether there are frames or not.
        let mut log = Craft::new();
        log.bytes(1)[0] ^= 1;
        assert_eq!(place(&refused(&log.machine(), Code::WalDamaged)), (1, 0));
    }

    #[test]
    fn does_not_begin_above_the_first_segment() {
        let log = Craft::from_segment(2, 5);
        refused(&log.machine_without_head(), Code::WalDamaged);
    }
}

mod torn {
    use super::*;

    fn aside(sim: &Sim, number: u64, offset: u64, incarnation: u32) -> Vec<u8> {
        let name = TornName { segment: number, offset, incarnation }.to_string();
        sim.read_file(file(TORN_NAME).join(name))
    }

    #[test]
    fn batches_in_flight_are_set_aside_and_cut_with_the_segments_behind() {
        let (log, torn) = several_in_flight();
        let sim = log.machine();
        let recovery = opened(&sim, 1, 3);
        assert_eq!(recovery.torn_at, Some(TornAt { segment: 1, offset: torn, lsn: 4 }));
        assert_eq!(recovery.segments, 1);
        let (one, two) = (aside(&sim, 1, torn, 2), aside(&sim, 2, GRAIN, 2));
        assert_eq!(one, log.segments[&1][torn as usize..][..one.len()]);
        assert_eq!(two, log.segments[&2][GRAIN as usize..][..two.len()]);
        assert_eq!(recovery.torn_bytes, (one.len() + two.len()) as u64);
        assert_eq!(sim.list(DIRECTORY), [HEAD_NAME, LOCK_NAME, TORN_NAME, &segment_name(1)]);
        assert!(sim.read_file(segment(1))[torn as usize..].iter().all(|&byte| byte == 0));
        let head = Head::decode(&sim.read_file(file(HEAD_NAME))).expect("whole");
        assert_eq!((head.incarnation, head.proven_lsn, head.state), (2, 3, State::Open));
    }

    #[test]
    fn seal_with_a_frame_behind_that_proves_nothing_is_cut() {
        // A seal is durable before anything behind it is acknowledged; until then it may be the torn one.
        let mut log = Craft::new();
        log.batch(3);
        let seal = log.seal();
        log.batch(1);
        log.bytes(1)[seal as usize + 20] ^= 1;
        let sim = log.machine();
        assert_eq!(opened(&sim, 1, 3).torn_at, Some(TornAt { segment: 1, offset: seal, lsn: 4 }));
        assert_eq!(sim.list(DIRECTORY), [HEAD_NAME, LOCK_NAME, TORN_NAME, &segment_name(1)]);
    }

    #[test]
    fn segment_behind_a_lost_seal_is_not_read_without_the_lock_either() {
        // Truncated to where that segment begins, so that a reader is tempted to begin there.
        let mut log = Craft::new();
        log.batch(3);
        let seal = log.seal();
        log.batch(1);
        log.bytes(1)[seal as usize + 20] ^= 1;
        (log.head.first_lsn, log.head.proven_lsn) = (4, 3);
        let sim = log.machine();
        let mut source = read(sim.disk().fs, Path::new(DIRECTORY), None, None).expect("there is a log");
        assert!(source.next(1 << 20).expect("reads").is_none());
        assert_eq!(opened(&sim, 4, 3).torn_at, Some(TornAt { segment: 1, offset: seal, lsn: 4 }));
    }

    #[test]
    fn tail_is_whatever_is_not_zero() {
        // The first byte, the last of the segment, a sector in a later grain, a header without its payload.
        let mut log = Craft::new();
        log.batch(2);
        let tail = log.place.1 as usize;
        for at in [tail, tail + 511, tail + 3 * 4096 + 512, SEGMENT_BYTES as usize - 1] {
            let mut log = log.clone();
            log.bytes(1)[at] = 1;
            let sim = log.machine();
            let recovery = opened(&sim, 1, 2);
            assert_eq!(recovery.torn_at, Some(TornAt { segment: 1, offset: tail as u64, lsn: 3 }));
            assert_eq!(aside(&sim, 1, tail as u64, 2), log.bytes(1)[tail..=at]);
            assert!(sim.read_file(segment(1))[tail..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn first_batch_of_a_log_leaves_an_empty_one() {
        let mut log = Craft::new();
        log.batch(2);
        log.spoil(1, GRAIN);
        let sim = log.machine();
        assert_eq!(opened(&sim, 1, 0).torn_at, Some(TornAt { segment: 1, offset: GRAIN, lsn: 1 }));
        assert_eq!(opened(&sim, 1, 0).torn_at, None);
    }

    #[test]
    fn tail_of_a_lower_incarnation_is_neither_frame_nor_proof() {
        // It would follow, and its durable LSN reaches the record due, and yet it is a zeroing's leftover.
        let mut log = Craft::new();
        log.head.incarnation = 3;
        log.next.incarnation = 3;
        log.batch(2);
        let tail = log.place.1;
        log.next.incarnation = 2;
        log.batch(1);
        log.next.durable_lsn = 3;
        log.batch(1);
        let sim = log.machine();
        assert_eq!(opened(&sim, 1, 2).torn_at.expect("torn").offset, tail);
        assert_eq!(opened(&sim, 1, 2).torn_at, None);
    }

    #[test]
    fn tail_of_a_lower_incarnation_than_the_torn_frame_before_it_is_no_proof() {
        // The frame in P's place has a rotten payload; its header holds, and says which incarnation is due.
        let mut log = Craft::new();
        log.head.incarnation = 3;
        log.batch(2);
        log.next.incarnation = 3;
        let torn = log.batch(1);
        log.spoil(1, torn);
        log.next.incarnation = 2;
        log.next.durable_lsn = 3;
        log.batch(1);
        assert_eq!(opened(&log.machine(), 1, 2).torn_at.expect("torn").offset, torn);
        // Of the same incarnation it is one.
        log.forge(1, log.place.1 - GRAIN, 44, &3_u32.to_le_bytes());
        refused(&log.machine(), Code::WalDamaged);
    }

    #[test]
    fn frame_covers_what_looks_like_a_header_in_its_payload() {
        // The header in P's place holds, and its payload of two grains does not. What is in there is not
        // looked for: it may be anything that was there before.
        let mut log = Craft::new();
        log.batch(2);
        let torn = log.batch(8);
        assert!(log.place.1 - torn > GRAIN, "a batch of several grains");
        log.place.1 = torn + GRAIN;
        log.next.durable_lsn = 10;
        log.batch(1);
        assert_eq!(opened(&log.machine(), 1, 2).torn_at.expect("torn").offset, torn);
    }

    #[test]
    fn frames_of_a_lower_incarnation_before_those_of_a_higher_are_frames() {
        let mut log = Craft::new();
        log.head.incarnation = 3;
        log.batch(2);
        log.next.incarnation = 3;
        log.batch(1);
        assert_eq!(opened(&log.machine(), 1, 3).torn_at, None);
    }

    #[test]
    fn tails_of_the_newest_four_recoveries_are_kept() {
        let mut log = Craft::new();
        log.batch(2);
        let tail = log.place.1;
        let sim = log.machine();
        sim.write_file(file(TORN_NAME).join("notes.txt"), b"a person's");
        for _ in 0..6 {
            let mut bytes = sim.read_file(segment(1));
            bytes[tail as usize] = 1;
            sim.write_file(segment(1), bytes);
            opened(&sim, 1, 2);
        }
        let kept = (4..=7).map(|incarnation| TornName { segment: 1, offset: tail, incarnation }.to_string());
        let expected: Vec<String> = kept.chain(["notes.txt".to_owned()]).collect();
        assert_eq!(sim.list(file(TORN_NAME)), expected);
    }

    #[test]
    fn tail_without_room_to_set_it_aside_is_refused_and_left() {
        // No room for the directory, none for the copy's name, none for its bytes.
        let (log, torn) = several_in_flight();
        for grains in 0..3 {
            let sim = log.machine();
            let used = used(&sim) + GRAIN;
            sim.set_capacity(Some(used + grains * GRAIN));
            let before = files(&sim);
            let error = Log::open(&sim, options()).map(drop).expect_err("there is no room");
            assert_eq!(error.code, Code::WalNoSpace, "{grains}: {error:?}");
            assert_eq!(error.errno, Some(28), "{error:?}");
            for (path, bytes) in before {
                assert!(sim.read_file(&path) == bytes, "{} was changed", path.display());
            }
            assert!(sim.list(file(TORN_NAME)).iter().all(|name| !is_temporary(name)));
            sim.set_capacity(None);
            assert_eq!(opened(&sim, 1, 3).torn_at.expect("torn").offset, torn);
            aside(&sim, 2, GRAIN, 2);
        }
    }

    #[test]
    fn log_restored_without_lock_to_a_full_disk_is_refused_for_want_of_space() {
        let sim = three_segments().machine();
        sim.set_capacity(Some(used(&sim)));
        refused(&sim, Code::WalNoSpace);
    }

    /// The room that the files of a machine take.
    fn used(sim: &Sim) -> u64 {
        sim.snapshot().values().map(|bytes| (bytes.len() as u64).next_multiple_of(GRAIN)).sum()
    }
}

mod clean_end {
    use super::*;

    #[test]
    fn is_zeros_with_only_frameless_segments_after() {
        let mut log = three_segments();
        assert_eq!(opened(&log.machine(), 1, 8).torn_at, None);
        log.segment(4);
        let sim = log.machine();
        assert_eq!(opened(&sim, 1, 8).torn_at, None);
        assert!(sim.list(DIRECTORY).contains(&segment_name(4)), "the prepared segment is kept");
    }

    #[test]
    fn may_be_the_beginning_of_a_segment() {
        let mut log = Craft::new();
        log.batch(2);
        log.seal();
        assert_eq!(opened(&log.machine(), 1, 2).torn_at, None);
    }

    #[test]
    fn in_frameless_segments_of_another_size_replaces_them() {
        let mut log = three_segments();
        log.segment(4);
        let sim = log.machine();
        let options = Options { segment_bytes: 2 * SEGMENT_BYTES, ..options() };
        let log = Log::open(&sim, options).expect("opens");
        assert_eq!(log.last_lsn(), 8);
        assert_eq!(sim.read_file(segment(4)).len() as u64, 2 * SEGMENT_BYTES);
        assert_eq!(sim.read_file(segment(3)).len() as u64, SEGMENT_BYTES, "it holds frames");
        drop(log);
        opened(&sim, 1, 8);
    }

    #[test]
    fn restores_bytes_missing_at_the_end_of_a_file() {
        // A copy that leaves out zeros at the end, of every file.
        let mut log = three_segments();
        for number in 1..=3 {
            let bytes = log.bytes(number);
            let len = bytes.iter().rposition(|&byte| byte != 0).expect("a header") + 1;
            bytes.truncate(len);
        }
        let sim = log.machine();
        opened(&sim, 1, 8);
        assert_eq!(sim.read_file(segment(3)).len() as u64, SEGMENT_BYTES);
        let mut log = Log::open(&sim, options()).expect("opens");
        for lsn in 9..40 {
            log.append(lsn, &record(lsn)).expect("appends");
        }
        log.close().expect("closes");
        opened(&sim, 1, 39);
    }

    #[test]
    fn restores_bytes_missing_at_the_end_of_a_sealed_segment() {
        let mut log = three_segments();
        let len = SEGMENT_BYTES as usize - 1;
        log.bytes(1).truncate(len);
        // Nothing of segment 1 is written again, which would restore it by the way.
        log.head.proven_lsn = 7;
        let sim = log.machine();
        opened(&sim, 1, 8);
        assert_eq!(sim.read_file(segment(1)).len() as u64, SEGMENT_BYTES);
    }

    #[test]
    fn ignores_bytes_past_the_segment_size() {
        let mut log = three_segments();
        for number in 1..=3 {
            log.bytes(number).extend([7; 5000]);
        }
        assert_eq!(opened(&log.machine(), 1, 8).torn_at, None);
    }

    #[test]
    fn does_not_read_padding() {
        let mut log = three_segments();
        log.bytes(1)[GRAIN as usize - 1] = 9;
        log.bytes(1)[64] = 9;
        let seal = (GRAIN..).step_by(GRAIN as usize).find(|&at| log.segments[&1][at as usize + 8] == 2);
        let seal = seal.expect("a seal") as usize;
        log.bytes(1)[seal + 100] = 9;
        // Behind the seal is no padding, and it is not read either.
        log.bytes(1)[SEGMENT_BYTES as usize - 1] = 9;
        assert_eq!(opened(&log.machine(), 1, 8).torn_at, None);
    }
}

mod names {
    use super::*;

    /// A log whose truncation was interrupted: segments 1 and 2 are below the oldest kept.
    fn with_leftovers() -> Craft {
        let mut log = three_segments();
        log.head = Head { oldest_segment: 3, first_lsn: 7, proven_lsn: 7, ..log.head };
        log.bytes(1).fill(0xaa);
        log
    }

    #[test]
    fn below_the_oldest_kept_are_removed_once_the_verdict_is_in() {
        let sim = with_leftovers().machine();
        opened(&sim, 7, 8);
        assert_eq!(sim.list(DIRECTORY), [HEAD_NAME, LOCK_NAME, &segment_name(3)]);
        // A gap among them is none.
        let mut log = with_leftovers();
        log.segments.remove(&2);
        opened(&log.machine(), 7, 8);
    }

    #[test]
    fn below_the_oldest_kept_stay_where_the_log_is_refused() {
        let mut log = with_leftovers();
        log.spoil(3, GRAIN);
        refused(&log.machine(), Code::WalDamaged);
    }

    #[test]
    fn of_files_in_the_making_are_removed_and_no_others() {
        let sim = three_segments().machine();
        let ours = ["HEAD.tmp", "wal-0000000000000001.seg.tmp", "wal-0000000000000004.seg.tmp"];
        let others = ["LOCK.tmp", "notes", "notes.tmp", "wal-4.seg.tmp", "wal-000000000000000A.seg"];
        for name in ours.iter().chain(&others) {
            sim.write_file(file(name), b"something");
        }
        opened(&sim, 1, 8);
        let left = sim.list(DIRECTORY);
        assert!(ours.iter().all(|name| !left.contains(&(*name).to_owned())), "{left:?}");
        for name in others {
            assert_eq!(sim.read_file(file(name)), b"something", "{name}");
        }
    }

    #[test]
    fn of_files_in_the_making_stay_where_the_log_is_refused() {
        let mut log = three_segments();
        log.spoil(1, GRAIN);
        let sim = log.machine();
        sim.write_file(file("HEAD.tmp"), b"something");
        refused(&sim, Code::WalDamaged);
    }
}

mod recovery {
    use super::*;

    /// Logs that recovery has something to do with, and the LSNs they hold.
    fn logs() -> Vec<(Craft, u64, u64)> {
        let unproven = three_segments();
        let (torn, _) = several_in_flight();
        let mut with_leftovers = three_segments();
        with_leftovers.head = Head { oldest_segment: 2, first_lsn: 4, proven_lsn: 5, ..unproven.head };
        with_leftovers.segment(4);
        let mut short = unproven.clone();
        let len = short.place.1 as usize;
        short.bytes(3).truncate(len - 3000);
        vec![(unproven, 1, 8), (torn, 1, 3), (with_leftovers, 4, 8), (short, 1, 8)]
    }

    #[test]
    fn cut_off_at_any_step_gives_the_same_records() {
        for (log, first, last) in logs() {
            let machine = || {
                let sim = log.machine();
                sim.write_file(file("HEAD.tmp"), b"something");
                sim
            };
            let sim = machine();
            Log::open(&sim, options()).expect("opens");
            let steps = sim.steps();
            for step in 1..=steps {
                let sim = machine();
                sim.crash_at(step);
                Log::open(&sim, options()).expect("opens");
                let image = sim.take_image().expect("the step was reached");
                for seed in 0..8 {
                    let sim = image.boot(seed);
                    opened(&sim, first, last);
                    // And what the interrupted one left behind does not come back.
                    let recovery = opened(&sim.power_cut(seed), first, last);
                    assert_eq!(recovery.torn_at, None, "step {step}, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn killed_at_any_step_gives_the_same_records() {
        for (log, first, last) in logs() {
            let sim = log.machine();
            Log::open(&sim, options()).expect("opens");
            for step in 1..=sim.steps() {
                let sim = log.machine();
                sim.kill_at(step);
                Log::open(&sim, options()).expect("opens");
                let sim = sim.take_kill().expect("the step was reached");
                opened(&sim, first, last);
            }
        }
    }

    #[test]
    fn with_any_call_failing_once_loses_nothing() {
        let calls = [
            Call::Open,
            Call::Len,
            Call::SetLen,
            Call::Read,
            Call::Write,
            Call::Sync,
            Call::Allocate,
            Call::Zero,
            Call::Lock,
            Call::Stat,
            Call::List,
            Call::CreateDir,
            Call::Rename,
            Call::Remove,
            Call::SyncDir,
        ];
        for (log, first, last) in logs() {
            for call in calls {
                for skip in 0..200 {
                    let sim = log.machine();
                    sim.fail(Fault::new(call).skip(skip));
                    let failed = Log::open(&sim, options()).map(drop);
                    sim.clear_faults();
                    // The disk after a power cut, where what a failed flush forgot is gone.
                    opened(&sim.power_cut(skip), first, last);
                    opened(&sim, first, last);
                    match failed {
                        Err(error) => assert_eq!(error.code, Code::WalIo, "{call:?}: {error:?}"),
                        Ok(()) => break,
                    }
                }
            }
        }
    }

    #[test]
    fn twice_in_a_row_changes_nothing_but_the_incarnation() {
        for (log, first, last) in logs() {
            let sim = log.machine();
            let one = opened(&sim, first, last);
            let before = files(&sim);
            let two = opened(&sim, first, last);
            assert_eq!((two.records, two.segments), (one.records, one.segments));
            assert_eq!((two.torn_at, two.torn_bytes), (None, 0));
            let mut after = files(&sim);
            let head = Head::decode(&before[&file(HEAD_NAME)]).expect("whole");
            let head = Head { incarnation: head.incarnation + 1, ..head };
            assert_eq!(
                after.insert(file(HEAD_NAME), before[&file(HEAD_NAME)].clone()),
                Some(head.encode().to_vec())
            );
            assert!(after == before, "a second recovery changed the log");
        }
    }

    #[test]
    fn removes_no_segment_before_the_head_that_allows_it_is_durable() {
        // A truncation was killed when its HEAD had its name in the page cache only. Cut the power at each
        // step of the opening that removes what this HEAD leaves over.
        let log = three_segments();
        let machine = || {
            let sim = log.machine();
            let head = Head { oldest_segment: 3, first_lsn: 7, proven_lsn: 7, ..log.head };
            sim.write_file(file("HEAD.tmp"), head.encode());
            sim.fs().rename(&file("HEAD.tmp"), &file(HEAD_NAME)).expect("renames");
            sim.kill();
            sim
        };
        let sim = machine();
        let begin = sim.steps();
        opened(&sim, 7, 8);
        for step in begin + 1..=sim.steps() {
            let sim = machine();
            sim.crash_at(step);
            Log::open(&sim, options()).expect("opens");
            let Some(image) = sim.take_image() else { break };
            // Every subset of the names and writes that are undecided then.
            let units = image.undecided();
            assert!(units.len() < 12, "{} undecided units", units.len());
            for mask in 0..1_u32 << units.len() {
                let kept = units.iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1);
                let sim = image.boot_with(kept.map(|(_, &unit)| unit), 1);
                let head = Head::decode(&sim.read_file(file(HEAD_NAME))).expect("whole");
                opened(&sim, head.first_lsn, 8);
            }
        }
    }

    #[test]
    fn makes_what_it_found_durable_before_head_says_so() {
        // What a kill in the same boot leaves: frames in the page cache, and nothing of them on disk.
        let log = three_segments();
        let sim = Sim::new(1);
        for (&number, bytes) in &log.segments {
            let mut header = bytes.clone();
            header[GRAIN as usize..].fill(0);
            sim.write_file(segment(number), header);
        }
        sim.write_file(file(HEAD_NAME), log.head.encode());
        let fs = sim.fs();
        for (&number, bytes) in &log.segments {
            let path = segment(number);
            let open = fs.open(&path, ringbolt_disk::OpenOptions::WRITE).expect("opens");
            fs.write_at(&open, 0, &ringbolt_disk::Buffer::copy_of(bytes)).expect("writes");
        }
        // Their flush failed: the pages are clean, and lost.
        sim.fail(Fault::new(Call::Sync).times(3));
        for number in 1..=3 {
            let open = fs.open(&segment(number), ringbolt_disk::OpenOptions::WRITE).expect("opens");
            fs.sync(&open).expect_err("fails");
        }
        sim.kill();
        opened(&sim, 1, 8);
        for seed in 0..20 {
            opened(&sim.power_cut(seed), 1, 8);
        }
    }
}

mod reading {
    use super::*;

    #[test]
    fn meets_rot_that_came_after_the_opening() {
        let sim = three_segments().machine();
        let log = Log::open(&sim, options()).expect("opens");
        sim.flip(segment(2), GRAIN + 70, 0);
        let error = log.read(1).expect_err("is damaged");
        assert_eq!((error.code, place(&error)), (Code::WalDamaged, (2, GRAIN)), "{error:?}");
        // Before it nothing changed.
        let before = support::read_all(log.handle.read(1, 3).expect("opens")).expect("reads");
        assert_eq!(before, (1..=3).map(record).collect::<Vec<_>>());
    }

    #[test]
    fn is_not_kept_from_what_it_asked_for_by_rot_before_that() {
        let mut log = three_segments();
        log.seal();
        log.batch(2);
        let sim = log.machine();
        let log = Log::open(&sim, options()).expect("opens");
        // The segment that halving the four looks at first.
        sim.flip(segment(3), GRAIN + 70, 0);
        assert_eq!(log.read(9).expect("is whole"), [record(9), record(10)]);
    }
}

mod golden {
    use super::*;
    use std::fs;

    #[test]
    fn log_of_version_1_is_read_back_as_its_listing_says() {
        // The bytes in fixtures/log-v1, which stay as they are for good, as found on a disk.
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/log-v1");
        let long: Vec<u8> = (0..5000_u32).map(|at| (at % 251) as u8).collect();
        let expected: [&[u8]; 6] = [b"hello", b"", b"ringbolt", &long, b"the last of its segment", b"across"];
        for check in [Check::All, Check::Tail] {
            let sim = Sim::new(1);
            for name in [HEAD_NAME, &segment_name(1), &segment_name(2)] {
                sim.write_file(file(name), fs::read(from.join(name)).expect("a golden file"));
            }
            let options = Options { segment_bytes: 64 << 10, check, ..options() };
            let mut log = Log::open(&sim, options.clone()).expect("opens");
            let recovery = log.recovery();
            assert!(recovery.clean_shutdown && recovery.torn_at.is_none());
            assert_eq!((recovery.records, recovery.segments), (6, 2));
            assert_eq!(log.handle.opened().expect("open").log_id, LogId(*b"ringbolt log v1!"));
            assert_eq!(log.read(1).expect("reads"), expected);
            log.append(7, b"of today").expect("appends");
            log.close().expect("closes");
            let log = Log::open(&sim, options).expect("opens");
            assert_eq!(log.read(6).expect("reads"), [&b"across"[..], b"of today"]);
        }
    }
}
