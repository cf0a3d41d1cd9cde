//! The simulated machine does what its head promises: every fault it lists is seen to happen, and what it
//! rules out is seen not to. Most of these run over a few dozen seeds: "may" is "did, under some seed",
//! "only" is "under every seed".

#![cfg(feature = "sim")]

use std::path::Path;
use std::time::Duration;

use ringbolt_disk::sim::{Call, Fault, Lie, Sim};
use ringbolt_disk::{
    Buffer, Done, Driver, EntryKind, Error, File, Fs, Op, OpenOptions, Outcome, Time, Token, WriteMode,
};

const SEEDS: u64 = 64;
const EIO: i32 = 5;
const EINVAL: i32 = 22;

/// A file of `len` zeros, all of it durable, its name too.
fn make(sim: &Sim, path: &str, len: usize) -> File {
    sim.write_file(path, vec![0; len]);
    sim.fs().open(Path::new(path), OpenOptions::WRITE).expect("it was just made")
}

fn write(file: &File, at: u64, byte: u8, len: usize, mode: WriteMode) -> Op {
    Op::Write { file: file.clone(), at, buffer: Buffer::copy_of(&vec![byte; len]), mode }
}

fn sync(file: &File) -> Op {
    Op::Sync { file: file.clone() }
}

/// Wait for `count` completions.
fn wait(driver: &mut dyn Driver, count: usize) -> Vec<Done> {
    let mut done = Vec::new();
    while done.len() < count {
        driver.wait(None, &mut done);
    }
    assert_eq!(done.len(), count);
    done
}

/// Submit one operation and wait for its end.
fn run(driver: &mut dyn Driver, op: Op) -> Result<Outcome, Error> {
    driver.submit(Token(0), op);
    wait(driver, 1).remove(0).outcome
}

/// How many of the first `SEEDS` seeds the predicate holds for.
fn count(mut holds: impl FnMut(u64) -> bool) -> u64 {
    (0..SEEDS).filter(|&seed| holds(seed)).count() as u64
}

fn sometimes(holds: impl FnMut(u64) -> bool) {
    let count = count(holds);
    assert!(count > 0 && count < SEEDS, "{count} of {SEEDS}");
}

fn always(holds: impl FnMut(u64) -> bool) {
    assert_eq!(count(holds), SEEDS);
}

#[test]
fn a_dsync_write_makes_only_its_own_range_durable() {
    let both = |seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 8192);
        let mut driver = sim.driver();
        run(&mut *driver, write(&file, 0, 1, 4096, WriteMode::Plain)).unwrap();
        run(&mut *driver, write(&file, 4096, 2, 4096, WriteMode::Dsync)).unwrap();
        sim.power_cut(seed).read_file("/a")
    };
    always(|seed| both(seed)[4096..] == [2; 4096]);
    sometimes(|seed| both(seed)[..4096] == [1; 4096]);
}

#[test]
fn a_dsync_write_brings_the_length_it_needs() {
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 0);
        run(&mut *sim.driver(), write(&file, 4096, 2, 512, WriteMode::Alone)).unwrap();
        let bytes = sim.power_cut(seed).read_file("/a");
        bytes.len() == 4608 && bytes[4096..] == [2; 512]
    });
}

#[test]
fn a_dsync_write_is_not_cut_off_by_a_length_that_was_pending() {
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 0);
        sim.fs().set_len(&file, 100).unwrap();
        run(&mut *sim.driver(), write(&file, 4096, 2, 512, WriteMode::Dsync)).unwrap();
        sim.power_cut(seed).read_file("/a")[4096..] == [2; 512]
    });
}

#[test]
fn what_a_power_cut_left_beyond_the_end_never_shows() {
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 100);
        sim.fs().write_at(&file, 0, &Buffer::copy_of(&[1; 4096])).unwrap();
        let sim = sim.power_cut(seed);
        let len = sim.read_file("/a").len();
        let file = sim.fs().open(Path::new("/a"), OpenOptions::WRITE).unwrap();
        sim.fs().set_len(&file, 8192).unwrap();
        sim.read_file("/a")[len..].iter().all(|&byte| byte == 0)
    });
}

#[test]
fn a_power_cut_tears_writes_by_the_sector() {
    let torn = |seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 8192);
        sim.fs().write_at(&file, 100, &Buffer::copy_of(&[1; 6000])).unwrap();
        sim.fs().write_at(&file, 512, &Buffer::copy_of(&[2; 512])).unwrap();
        sim.power_cut(seed).read_file("/a")
    };
    // Sector 1 is any of the three it ever was; sector 0 is old or new, and its first bytes are neither's.
    for byte in 0..=2 {
        sometimes(|seed| torn(seed)[512..1024] == [byte; 512]);
    }
    always(|seed| matches!(torn(seed)[512..1024], [byte, .., last] if byte == last));
    always(|seed| torn(seed)[..100] == [0; 100]);
    // A later sector persists without an earlier one.
    sometimes(|seed| torn(seed)[1024] == 0 && torn(seed)[1536] == 1);
}

#[test]
fn a_length_is_pending_until_the_file_is_synced() {
    for extend in [
        |fs: &dyn Fs, file: &File| fs.set_len(file, 9000).unwrap(),
        |fs: &dyn Fs, file: &File| {
            fs.allocate(file, 9000).unwrap();
        },
    ] {
        let len = |seed, is_synced| {
            let sim = Sim::new(seed);
            let file = make(&sim, "/a", 10);
            extend(&*sim.fs(), &file);
            assert_eq!(sim.read_file("/a"), vec![0; 9000]);
            if is_synced {
                sim.fs().sync(&file).unwrap();
            }
            sim.power_cut(seed).read_file("/a").len()
        };
        sometimes(|seed| len(seed, false) == 10);
        always(|seed| matches!(len(seed, false), 10 | 9000));
        always(|seed| len(seed, true) == 9000);
    }
}

#[test]
fn what_is_cut_off_reads_as_zeros_when_the_file_grows_again() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a", 0);
    let fs = sim.fs();
    fs.write_at(&file, 0, &Buffer::copy_of(&[1; 5000])).unwrap();
    fs.set_len(&file, 700).unwrap();
    fs.set_len(&file, 5000).unwrap();
    let mut expected = vec![0; 5000];
    expected[..700].fill(1);
    assert_eq!(sim.read_file("/a"), expected);
    fs.sync(&file).unwrap();
    assert_eq!(sim.power_cut(2).read_file("/a"), expected);
}

#[test]
fn zeroing_is_pending_like_a_write() {
    let zeroed = |seed, is_synced| {
        let sim = Sim::new(seed);
        sim.write_file("/a", [7; 8192]);
        let file = sim.fs().open(Path::new("/a"), OpenOptions::WRITE).unwrap();
        sim.fs().zero(&file, 0, 4096).unwrap();
        assert_eq!(sim.read_file("/a")[..4096], [0; 4096]);
        if is_synced {
            sim.fs().sync(&file).unwrap();
        }
        sim.power_cut(seed).read_file("/a")
    };
    sometimes(|seed| zeroed(seed, false)[0] == 0);
    always(|seed| zeroed(seed, true)[..4096] == [0; 4096] && zeroed(seed, true)[4096..] == [7; 4096]);
}

#[test]
fn a_flush_covers_only_what_was_complete_when_it_was_submitted() {
    let is_kept = |seed, waits: bool| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 4096);
        let mut driver = sim.driver();
        driver.submit(Token(1), write(&file, 0, 1, 4096, WriteMode::Plain));
        if waits {
            wait(&mut *driver, 1);
        }
        driver.submit(Token(2), sync(&file));
        while sim.in_flight() == 2 {
            sim.fs().stat(Path::new("/a")).unwrap();
        }
        // Only where the flush happens after the write, which in the one case was in flight at its submission.
        let is_in_order = waits || sim.in_flight() == 1 && sim.read_file("/a") == [1; 4096];
        let done = wait(&mut *driver, if waits { 1 } else { 2 });
        assert!(done.iter().all(|done| done.outcome.is_ok()));
        !is_in_order || sim.power_cut(seed).read_file("/a") == [1; 4096]
    };
    always(|seed| is_kept(seed, true));
    sometimes(|seed| is_kept(seed, false));
}

#[test]
fn a_write_in_flight_may_have_landed_in_part_when_the_power_is_cut() {
    for mode in [WriteMode::Plain, WriteMode::Dsync] {
        let found = |seed| {
            let sim = Sim::new(seed);
            let file = make(&sim, "/a", 4096);
            let mut driver = sim.driver();
            driver.submit(Token(1), write(&file, 0, 1, 4096, mode));
            assert_eq!(sim.read_file("/a"), [0; 4096]);
            sim.power_cut(seed).read_file("/a")
        };
        sometimes(|seed| found(seed) == [0; 4096]);
        sometimes(|seed| found(seed) == [1; 4096]);
        sometimes(|seed| found(seed).contains(&0) && found(seed).contains(&1));
    }
}

#[test]
fn operations_happen_and_are_told_in_any_order() {
    let order = |seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 512);
        let mut driver = sim.driver();
        driver.submit(Token(1), write(&file, 0, 1, 512, WriteMode::Plain));
        driver.submit(Token(2), write(&file, 0, 2, 512, WriteMode::Plain));
        let done = wait(&mut *driver, 2);
        (sim.read_file("/a")[0], done[0].token.0)
    };
    for last in 1..=2 {
        for first in 1..=2 {
            sometimes(|seed| order(seed) == (last, first));
        }
    }
}

#[test]
fn operations_in_flight_happen_between_the_calls_of_blocking_code() {
    sometimes(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 512);
        let mut driver = sim.driver();
        driver.submit(Token(1), write(&file, 0, 1, 512, WriteMode::Plain));
        for _ in 0..4 {
            sim.fs().stat(Path::new("/a")).unwrap();
        }
        sim.read_file("/a")[0] == 1
    });
}

#[test]
fn a_read_returns_the_bytes_up_to_the_end_of_the_file() {
    let sim = Sim::new(1);
    sim.write_file("/a", [3; 1000]);
    let file = sim.fs().open(Path::new("/a"), OpenOptions::READ).unwrap();
    let mut driver = sim.driver();
    driver.submit(Token(9), Op::Read { file: file.clone(), at: 700, buffer: Buffer::zeroed(500) });
    let done = wait(&mut *driver, 1).remove(0);
    assert_eq!(done.token, Token(9));
    assert!(matches!(done.outcome, Ok(Outcome::Read(300))));
    assert_eq!(done.buffer.unwrap()[..301], [[3; 300].as_slice(), &[0]].concat());
    let mut into = [0; 500];
    assert_eq!(sim.fs().read_at(&file, 1000, &mut into).unwrap(), 0);
    assert_eq!(sim.fs().write_at(&file, 0, &Buffer::copy_of(b"x")).unwrap_err().errno, 9);
}

#[test]
fn a_synced_file_is_lost_unless_its_directory_is_synced() {
    let is_there = |seed, syncs_directory| {
        let sim = Sim::new(seed);
        let fs = sim.fs();
        let file = fs.open(Path::new("/a"), OpenOptions::replace(0o600)).unwrap();
        fs.sync(&file).unwrap();
        if syncs_directory {
            fs.sync_dir(Path::new("/")).unwrap();
        }
        !sim.power_cut(seed).list("/").is_empty()
    };
    sometimes(|seed| is_there(seed, false));
    always(|seed| is_there(seed, true));
}

#[test]
fn a_new_directory_is_lost_with_what_is_in_it_unless_its_parent_is_synced() {
    let found = |seed, syncs_parent| {
        let sim = Sim::new(seed);
        let fs = sim.fs();
        fs.create_dir(Path::new("/log"), 0o700).unwrap();
        fs.open(Path::new("/log/a"), OpenOptions::replace(0o600)).unwrap();
        fs.sync_dir(Path::new("/log")).unwrap();
        if syncs_parent {
            fs.sync_dir(Path::new("/")).unwrap();
        }
        sim.power_cut(seed).list("/log")
    };
    sometimes(|seed| found(seed, false) == ["a"]);
    always(|seed| found(seed, true) == ["a"]);
}

#[test]
fn a_rename_may_persist_without_the_unlink_before_it() {
    let names = |seed| {
        let sim = Sim::new(seed);
        sim.write_file("/old", b"old");
        sim.write_file("/head", b"1");
        sim.write_file("/tmp", b"2");
        let fs = sim.fs();
        fs.remove(Path::new("/old")).unwrap();
        fs.rename(Path::new("/tmp"), Path::new("/head")).unwrap();
        assert_eq!(sim.list("/"), ["head"]);
        let sim = sim.power_cut(seed);
        (
            sim.list("/").contains(&"old".into()),
            sim.read_file("/head")[0],
            sim.list("/").contains(&"tmp".into()),
        )
    };
    for old in [true, false] {
        for (head, tmp) in [(b'1', true), (b'2', false)] {
            sometimes(|seed| names(seed) == (old, head, tmp));
        }
    }
    // A rename is whole or absent.
    always(|seed| (names(seed).1 == b'1') == names(seed).2);
}

#[test]
fn a_chain_of_renames_never_gives_a_file_two_names() {
    always(|seed| {
        let sim = Sim::new(seed);
        sim.write_file("/a", b"1");
        sim.fs().rename(Path::new("/a"), Path::new("/b")).unwrap();
        sim.fs().rename(Path::new("/b"), Path::new("/c")).unwrap();
        sim.power_cut(seed).list("/").len() == 1
    });
}

#[test]
fn what_is_done_from_outside_is_stable_whatever_was_pending() {
    // A name that was made, removed, renamed away or renamed to, and the directory it is in.
    always(|seed| {
        let sim = Sim::new(seed);
        let fs = sim.fs();
        let new = |path: &str| fs.open(Path::new(path), OpenOptions::replace(0o600)).map(drop).unwrap();
        let rename = |from: &str, to: &str| fs.rename(Path::new(from), Path::new(to)).unwrap();
        for name in ["removed", "away", "to"] {
            sim.write_file(name, b"old");
        }
        new("made");
        fs.remove(Path::new("removed")).unwrap();
        rename("away", "away to");
        new("other");
        rename("other", "to");
        fs.create_dir(Path::new("directory"), 0o700).unwrap();
        for name in ["made", "removed", "away", "to", "directory/made"] {
            sim.write_file(name, b"planted");
        }
        let cut = sim.power_cut(seed);
        let planted = |name| cut.read_file(name) == b"planted";
        assert!(["made", "removed", "away", "to", "directory/made"].into_iter().all(planted));
        assert_eq!(cut.read_file("away to"), b"old");
        cut.snapshot() == sim.snapshot()
    });
    always(|seed| {
        let sim = Sim::new(seed);
        let fs = sim.fs();
        sim.write_file("old", b"old");
        fs.open(Path::new("made"), OpenOptions::replace(0o600)).unwrap();
        fs.rename(Path::new("old"), Path::new("renamed")).unwrap();
        sim.remove_file("made");
        sim.remove_file("renamed");
        sim.power_cut(seed).list("/").is_empty()
    });
}

#[test]
fn direct_files_refuse_what_is_not_in_whole_grains_where_the_file_system_takes_them() {
    let sim = Sim::new(1);
    let (fs, mut driver) = (sim.fs(), sim.driver());
    let open = |name: &str| fs.open(Path::new(name), OpenOptions::replace(0o600).with_direct(true)).unwrap();
    let file = open("direct");
    assert!(file.is_direct());
    for (at, len) in [(512, 4096), (0, 512), (1, 1)] {
        for mode in [WriteMode::Plain, WriteMode::Dsync, WriteMode::Alone] {
            let error = run(&mut *driver, write(&file, at, 1, len, mode)).unwrap_err();
            assert_eq!((error.errno, error.offset), (EINVAL, Some(at)));
        }
        let read = Op::Read { file: file.clone(), at, buffer: Buffer::zeroed(len) };
        assert_eq!(run(&mut *driver, read).unwrap_err().errno, EINVAL);
        let error = fs.write_at(&file, at, &Buffer::copy_of(&vec![1; len])).unwrap_err();
        assert_eq!((error.errno, error.offset), (EINVAL, Some(at)));
        assert_eq!(fs.read_at(&file, at, &mut vec![0; len]), Ok(0), "cold reads take any");
    }
    assert_eq!(fs.len(&file), Ok(0));
    run(&mut *driver, write(&file, 4096, 1, 4096, WriteMode::Plain)).unwrap();

    sim.set_direct(false);
    let file = open("cached");
    assert!(!file.is_direct());
    run(&mut *driver, write(&file, 1, 1, 1, WriteMode::Plain)).unwrap();
    assert!(!fs.open(Path::new("cached"), OpenOptions::WRITE).unwrap().is_direct());
}

#[test]
fn a_driver_that_is_dropped_completes_nothing_where_its_process_is_dead_or_the_device_stalled() {
    use std::sync::atomic::{AtomicBool, Ordering};

    for is_killed in [true, false] {
        always(|seed| {
            let sim = Sim::new(seed);
            let file = make(&sim, "/a", 4096);
            let mut driver = sim.driver();
            let ran = std::sync::Arc::new(AtomicBool::new(false));
            let runs = std::sync::Arc::clone(&ran);
            driver.submit(Token(1), write(&file, 0, 1, 4096, WriteMode::Plain));
            driver.submit(
                Token(2),
                Op::Job(Box::new(move |_| {
                    runs.store(true, Ordering::Relaxed);
                    Ok(None)
                })),
            );
            if is_killed {
                sim.kill();
            } else {
                sim.stall(true);
            }
            drop(driver);
            // The dead one's write lands some time, as the head says; a job is a thread of the process.
            sim.in_flight() == 1
                && sim.read_file("/a") == [0; 4096]
                && ran.load(Ordering::Relaxed) != is_killed
        });
    }
}

#[test]
fn a_failed_flush_loses_the_data_while_reads_still_show_it() {
    for by_driver in [false, true] {
        let lost = |seed, rewrites: bool| {
            let sim = Sim::new(seed);
            let file = make(&sim, "/a", 4096);
            let (fs, mut driver) = (sim.fs(), sim.driver());
            let mut flush = || {
                if by_driver { run(&mut *driver, sync(&file)).map(drop) } else { fs.sync(&file) }
            };
            fs.write_at(&file, 0, &Buffer::copy_of(&[1; 4096])).unwrap();
            sim.fail(Fault::new(Call::Sync).named("a"));
            assert_eq!(flush().unwrap_err().errno, EIO);
            assert_eq!(sim.read_file("/a"), [1; 4096]);
            if rewrites {
                fs.write_at(&file, 0, &Buffer::copy_of(&[1; 4096])).unwrap();
            }
            flush().unwrap();
            sim.power_cut(seed).read_file("/a") != [1; 4096]
        };
        sometimes(|seed| lost(seed, false));
        always(|seed| !lost(seed, true));
    }
}

#[test]
fn a_failed_write_may_leave_some_of_its_sectors() {
    let left = |seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 4096);
        sim.fail(Fault::new(Call::Write).bytes(4000..4001).errno(28));
        let error = run(&mut *sim.driver(), write(&file, 0, 1, 4096, WriteMode::Dsync)).unwrap_err();
        assert_eq!((error.errno, error.syscall, error.offset), (28, "pwritev2", Some(0)));
        sim.read_file("/a")
    };
    sometimes(|seed| left(seed) == [0; 4096]);
    sometimes(|seed| left(seed).contains(&0) && left(seed).contains(&1));
}

#[test]
fn a_fault_strikes_the_calls_it_names_and_no_other() {
    let sim = Sim::new(1);
    let (a, b) = (make(&sim, "/log-1/a.seg", 4096), make(&sim, "/log-1/b", 4096));
    let fs = sim.fs();
    sim.fail(Fault::new(Call::Read).named(".seg").bytes(512..1024).skip(1).times(2));
    let mut into = [0; 512];
    let mut read = |file: &File, at| fs.read_at(file, at, &mut into).is_ok();
    assert!(read(&b, 512) && read(&a, 0) && read(&a, 1024), "other calls");
    assert!(read(&a, 512), "skipped");
    assert!(!read(&a, 600) && !read(&a, 1));
    assert!(read(&a, 512), "over");
    sim.fail(Fault::new(Call::Lock).forever());
    assert!(fs.try_lock(&a).is_err() && fs.try_lock(&a).is_err());
    sim.clear_faults();
    assert!(fs.try_lock(&a).unwrap());
}

#[test]
fn a_fault_goes_by_the_name_a_file_has_now() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a.tmp", 0);
    sim.fail(Fault::new(Call::SetLen).named(".seg"));
    sim.fs().set_len(&file, 1).unwrap();
    sim.fs().rename(Path::new("/a.tmp"), Path::new("/a.seg")).unwrap();
    assert_eq!(sim.fs().set_len(&file, 2).unwrap_err().errno, EIO);
}

#[test]
fn every_call_on_names_can_fail_and_then_has_done_nothing() {
    let sim = Sim::new(1);
    sim.write_file("/d/a", b"1");
    let (fs, before) = (sim.fs(), sim.snapshot());
    for call in
        [Call::Open, Call::Stat, Call::List, Call::CreateDir, Call::Rename, Call::Remove, Call::SyncDir]
    {
        sim.fail(Fault::new(call).forever());
    }
    let (a, d) = (Path::new("/d/a"), Path::new("/d"));
    assert_eq!(fs.open(a, OpenOptions::replace(0o600)).unwrap_err().syscall, "open");
    assert_eq!(fs.stat(a).unwrap_err().syscall, "lstat");
    assert_eq!(fs.list(d).unwrap_err().syscall, "readdir");
    assert_eq!(fs.create_dir(Path::new("/e"), 0o700).unwrap_err().syscall, "mkdir");
    assert_eq!(fs.rename(a, Path::new("/d/b")).unwrap_err().syscall, "rename");
    assert_eq!(fs.remove(a).unwrap_err().syscall, "unlink");
    assert_eq!(fs.sync_dir(d).unwrap_err().syscall, "fsync");
    assert_eq!(sim.snapshot(), before);
}

#[test]
fn a_short_write_is_finished_in_further_steps() {
    let bytes: Vec<u8> = (0..4096_u32).map(|at| (at / 7 + at) as u8).collect();
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 4096);
        let before = sim.steps();
        for at in [0, 100] {
            sim.fail(Fault::short_write().times(2));
            let buffer = Buffer::copy_of(&bytes);
            run(&mut *sim.driver(), Op::Write { file: file.clone(), at, buffer, mode: WriteMode::Plain })
                .unwrap();
            assert_eq!(sim.read_file("/a")[at as usize..], bytes);
            sim.fail(Fault::short_write().times(2));
            sim.fs().write_at(&file, at + 50, &Buffer::copy_of(&bytes[..300])).unwrap();
            assert_eq!(sim.read_file("/a")[at as usize + 50..][..300], bytes[..300]);
        }
        sim.steps() >= before + 4
    });
}

#[test]
fn a_full_disk_refuses_to_allocate_to_grow_and_to_create() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a", 8192);
    let fs = sim.fs();
    sim.set_capacity(Some(16384));
    assert!(fs.allocate(&file, 16385).unwrap_err().is_no_space());
    fs.allocate(&file, 16384).unwrap();
    run(&mut *sim.driver(), write(&file, 8192, 1, 8192, WriteMode::Dsync)).unwrap();
    let error = run(&mut *sim.driver(), write(&file, 12288, 1, 8192, WriteMode::Dsync)).unwrap_err();
    assert!(error.is_no_space());
    assert_eq!(sim.read_file("/a").len(), 16384);
    assert!(fs.open(Path::new("/b"), OpenOptions::replace(0o600)).unwrap_err().is_no_space());
    // Space comes back when the last that holds the file is gone.
    fs.remove(Path::new("/a")).unwrap();
    assert!(fs.create_dir(Path::new("/b"), 0o700).unwrap_err().is_no_space());
    drop(file);
    fs.create_dir(Path::new("/b"), 0o700).unwrap();
}

#[test]
fn rot_is_below_the_page_cache_too() {
    let sim = Sim::new(1);
    sim.write_file("/a", [0; 10]);
    sim.flip("/a", 9, 7);
    assert_eq!(sim.read_file("/a")[9], 0x80);
    assert_eq!(sim.power_cut(1).read_file("/a")[9], 0x80);
}

#[test]
fn a_lock_belongs_to_the_open_file_and_lives_as_long_as_its_last_operation() {
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 512);
        let (fs, mut driver) = (sim.fs(), sim.driver());
        let other = fs.open(Path::new("/a"), OpenOptions::WRITE).unwrap();
        assert!(fs.try_lock(&file).unwrap() && fs.try_lock(&file).unwrap());
        assert!(!fs.try_lock(&other).unwrap());
        let clone = file.clone();
        drop(file);
        assert!(!fs.try_lock(&other).unwrap());
        driver.submit(Token(1), write(&clone, 0, 1, 512, WriteMode::Plain));
        drop(clone);
        let is_free = fs.try_lock(&other).unwrap();
        assert!(!is_free, "the driver holds the file until it has told of the write");
        wait(&mut *driver, 1);
        fs.try_lock(&other).unwrap()
    });
}

#[test]
fn a_dead_process_has_no_handles_and_no_locks() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a", 512);
    let (fs, mut driver) = (sim.fs(), sim.driver());
    assert!(fs.try_lock(&file).unwrap());
    sim.kill();
    assert_eq!(fs.stat(Path::new("/a")).unwrap_err().errno, EIO);
    assert_eq!(fs.len(&file).unwrap_err().errno, EIO);
    driver.submit(Token(1), write(&file, 0, 1, 512, WriteMode::Plain));
    let mut done = Vec::new();
    driver.wait(None, &mut done);
    assert!(done.is_empty());
    let disk = sim.disk();
    assert_ne!(disk.fs.pid(), fs.pid());
    let again = disk.fs.open(Path::new("/a"), OpenOptions::WRITE).unwrap();
    assert!(disk.fs.try_lock(&again).unwrap());
    assert_eq!(sim.read_file("/a"), [0; 512]);
}

#[test]
fn a_dead_owners_write_lands_late_and_holds_its_lock_until_then() {
    let mut overwritten = 0;
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 512);
        assert!(sim.fs().try_lock(&file).unwrap());
        let mut driver = sim.driver();
        driver.submit(Token(1), write(&file, 0, 1, 512, WriteMode::Dsync));
        sim.kill();
        let fs = sim.disk().fs;
        let again = fs.open(Path::new("/a"), OpenOptions::WRITE).unwrap();
        // A new owner that does not wait for the lock is written over.
        fs.write_at(&again, 0, &Buffer::copy_of(&[2; 512])).unwrap();
        let mut sleeps = 0;
        while !fs.try_lock(&again).unwrap() {
            fs.sleep(Duration::from_millis(50));
            sleeps += 1;
            assert!(sleeps <= 40, "it lands within two seconds");
        }
        overwritten += u64::from(sim.read_file("/a") == [1; 512]);
        let landed = sim.read_file("/a");
        fs.sleep(Duration::from_secs(10));
        assert_eq!(sim.read_file("/a"), landed, "nothing lands once the lock is free");
    }
    assert!(overwritten > 0 && overwritten < SEEDS, "{overwritten}");
}

#[test]
fn a_dead_owners_write_lands_within_a_bounded_number_of_steps() {
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 512);
        sim.driver().submit(Token(1), write(&file, 0, 1, 512, WriteMode::Plain));
        sim.kill();
        let fs = sim.disk().fs;
        for _ in 0..=300 {
            fs.stat(Path::new("/a")).unwrap();
        }
        sim.read_file("/a") == [1; 512]
    });
}

#[test]
fn a_stalled_device_answers_nothing_and_lets_the_clock_run() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a", 512);
    assert!(sim.fs().try_lock(&file).unwrap());
    let mut driver = sim.driver();
    driver.submit(Token(1), write(&file, 0, 1, 512, WriteMode::Alone));
    driver.submit(Token(2), write(&file, 0, 1, 512, WriteMode::Plain));
    wait(&mut *driver, 2);
    sim.stall(true);
    driver.submit(Token(1), write(&file, 0, 2, 512, WriteMode::Alone));
    let (mut out, until) = (Vec::new(), driver.now().after(Duration::from_mins(1)));
    driver.wait(Some(until), &mut out);
    assert_eq!((out.len(), driver.now(), sim.in_flight()), (0, until, 1));
    sim.kill();
    let fs = sim.fs();
    let again = fs.open(Path::new("/a"), OpenOptions::WRITE).unwrap();
    fs.sleep(Duration::from_mins(1));
    assert!(!fs.try_lock(&again).unwrap(), "its owner is dead, its write is not");
    assert_eq!(sim.read_file("/a"), [1; 512]);
    sim.stall(false);
    fs.sleep(Duration::from_secs(1));
    assert!(fs.try_lock(&again).unwrap());
    assert_eq!((sim.read_file("/a"), sim.in_flight()), (vec![2; 512], 0));
}

#[test]
fn a_kill_leaves_the_page_cache() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a", 0);
    sim.fs().write_at(&file, 0, &Buffer::copy_of(b"unsynced")).unwrap();
    sim.kill();
    assert_eq!(sim.read_file("/a"), b"unsynced");
}

#[test]
fn a_captured_kill_is_another_machine_and_the_run_goes_on() {
    let sim = Sim::new(3);
    let file = make(&sim, "/a", 512);
    let fs = sim.fs();
    assert!(fs.try_lock(&file).unwrap());
    let mut driver = sim.driver();
    driver.submit(Token(1), write(&file, 0, 1, 512, WriteMode::Plain));
    sim.kill_at(sim.steps() + 1);
    assert!(matches!(wait(&mut *driver, 1).remove(0).outcome, Ok(Outcome::Written)));
    let killed = sim.take_kill().unwrap();
    assert!(sim.take_kill().is_none());
    fs.write_at(&file, 0, &Buffer::copy_of(&[2; 512])).unwrap();
    assert_eq!((killed.read_file("/a"), sim.read_file("/a")), (vec![0; 512], vec![2; 512]));
    let again = killed.fs().open(Path::new("/a"), OpenOptions::WRITE).unwrap();
    killed.fs().sleep(Duration::from_secs(3));
    assert!(killed.fs().try_lock(&again).unwrap());
    assert_eq!(killed.read_file("/a"), [1; 512]);
    assert!(fs.try_lock(&file).unwrap());
}

#[test]
fn a_captured_image_boots_again_and_again_and_the_run_goes_on() {
    let sim = Sim::new(3);
    let file = make(&sim, "/a", 4096);
    let fs = sim.fs();
    assert!(fs.try_lock(&file).unwrap());
    fs.write_at(&file, 0, &Buffer::copy_of(&[1; 4096])).unwrap();
    sim.set_marker(17);
    sim.crash_at(sim.steps() + 1);
    fs.sync(&file).unwrap();
    sim.set_marker(18);
    let image = sim.take_image().unwrap();
    assert!(sim.take_image().is_none());
    assert_eq!((image.marker, image.step), (17, sim.steps()));
    // Captured before the flush: anything may be left, and the same seed leaves the same.
    let found = |seed| image.boot(seed).read_file("/a");
    sometimes(|seed| found(seed) == [1; 4096]);
    always(|seed| found(seed) == found(seed));
    let booted = image.boot(1);
    assert_eq!((booted.steps(), booted.marker()), (0, 17));
    let again = booted.fs().open(Path::new("/a"), OpenOptions::WRITE).unwrap();
    assert!(booted.fs().try_lock(&again).unwrap());
    always(|seed| sim.power_cut(seed).read_file("/a") == [1; 4096]);
    assert!(fs.try_lock(&file).unwrap());
}

#[test]
fn a_machine_is_the_same_to_the_byte_after_a_second_power_cut() {
    always(|seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 4096);
        sim.fs().write_at(&file, 0, &Buffer::copy_of(&[1; 9000])).unwrap();
        let once = sim.power_cut(seed);
        once.power_cut(seed + 1).snapshot() == once.snapshot()
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let history = |seed| {
        let sim = Sim::new(seed);
        let file = make(&sim, "/a", 65536);
        let mut driver = sim.driver();
        let mut history = Vec::new();
        for round in 0..50 {
            driver.submit(Token(2 * round), write(&file, round * 1024, round as u8, 4096, WriteMode::Plain));
            driver.submit(Token(2 * round + 1), sync(&file));
            let mut done = Vec::new();
            driver.wait(None, &mut done);
            history.extend(done.iter().map(|done| done.token.0));
        }
        (history, sim.steps(), driver.now(), sim.fs().random(), sim.power_cut(5).snapshot())
    };
    assert!(history(8) == history(8));
    assert!(history(8) != history(9));
}

#[test]
fn wait_never_blocks_and_its_clock_jumps_to_the_deadline() {
    let sim = Sim::new(1);
    let mut driver = sim.driver();
    let (mut out, until) = (Vec::new(), driver.now().after(Duration::from_secs(5)));
    driver.wait(None, &mut out);
    driver.waker().wake();
    driver.wait(Some(until), &mut out);
    assert!(driver.now() < until, "a wake ends the wait");
    driver.wait(Some(until), &mut out);
    assert_eq!((driver.now(), sim.fs().now()), (until, until));
    driver.wait(Some(Time::default()), &mut out);
    assert_eq!(driver.now(), until, "the clock never goes back");
    assert!(out.is_empty());
}

#[test]
fn jobs_run_one_after_another_and_give_back_what_they_opened() {
    let sim = Sim::new(1);
    let disk = sim.disk();
    let mut driver = (disk.driver)().unwrap();
    driver.submit(
        Token(1),
        Op::Job(Box::new(|fs| {
            fs.create_dir(Path::new("/log"), 0o700)?;
            fs.open(Path::new("/log/a"), OpenOptions::replace(0o600)).map(Some)
        })),
    );
    driver.submit(Token(2), Op::Job(Box::new(|fs| fs.create_dir(Path::new("/log"), 0o700).map(|()| None))));
    let mut done = wait(&mut *driver, 2);
    assert_eq!(done[0].token, Token(1));
    let Ok(Outcome::Job(Some(file))) = done.remove(0).outcome else { panic!("the job opened a file") };
    assert!(done.remove(0).outcome.unwrap_err().is_exists());
    assert!(disk.fs.is_linked(&file, Path::new("/log/a")).unwrap());
    assert_eq!(disk.fs.stat(Path::new("/log")).unwrap(), Some(EntryKind::Directory));
    disk.fs.remove(Path::new("/log/a")).unwrap();
    assert!(!disk.fs.is_linked(&file, Path::new("/log/a")).unwrap());
}

#[test]
fn a_lie_about_flushes_loses_what_was_flushed() {
    sometimes(|seed| {
        let sim = Sim::new(seed);
        sim.lie(Lie::SkipSync);
        let file = make(&sim, "/a", 512);
        sim.fs().write_at(&file, 0, &Buffer::copy_of(&[1; 512])).unwrap();
        sim.fs().sync(&file).unwrap();
        run(&mut *sim.driver(), sync(&file)).unwrap();
        sim.power_cut(seed).read_file("/a") == [1; 512]
    });
}

#[test]
fn a_lie_about_directory_flushes_loses_names_in_every_generation() {
    sometimes(|seed| {
        let sim = Sim::new(seed);
        sim.lie(Lie::SkipDirectorySync);
        let sim = sim.power_cut(seed);
        sim.fs().open(Path::new("/a"), OpenOptions::replace(0o600)).unwrap();
        sim.fs().sync_dir(Path::new("/")).unwrap();
        sim.power_cut(seed).list("/").is_empty()
    });
}

#[test]
fn a_lie_about_short_writes_leaves_the_end_unwritten() {
    always(|seed| {
        let sim = Sim::new(seed);
        sim.lie(Lie::IgnoreShortWrite);
        sim.fail(Fault::short_write());
        let file = make(&sim, "/a", 4096);
        run(&mut *sim.driver(), write(&file, 0, 1, 4096, WriteMode::Plain)).unwrap();
        let bytes = sim.read_file("/a");
        bytes[0] == 1 && bytes[4095] == 0
    });
}

#[test]
fn a_lie_about_completions_acknowledges_what_is_not_there_yet() {
    sometimes(|seed| {
        let sim = Sim::new(seed);
        sim.lie(Lie::DoneBeforeWrite);
        let file = make(&sim, "/a", 512);
        run(&mut *sim.driver(), write(&file, 0, 1, 512, WriteMode::Dsync)).unwrap();
        sim.power_cut(seed).read_file("/a") == [1; 512]
    });
}

#[test]
fn a_lie_about_segment_locks_lets_two_owners_in() {
    let sim = Sim::new(1);
    sim.lie(Lie::NoSegmentLocks);
    for (path, is_free) in [("/a.seg", true), ("/LOCK", false)] {
        let file = make(&sim, path, 0);
        let other = sim.fs().open(Path::new(path), OpenOptions::WRITE).unwrap();
        assert!(sim.fs().try_lock(&file).unwrap());
        assert_eq!(sim.fs().try_lock(&other).unwrap(), is_free);
    }
}

#[test]
fn a_boot_keeps_exactly_the_writes_and_names_it_is_told() {
    let sim = Sim::new(1);
    let file = make(&sim, "/a", 1024);
    let (fs, mut driver) = (sim.fs(), sim.driver());
    fs.write_at(&file, 0, &Buffer::copy_of(&[1; 1024])).unwrap();
    fs.write_at(&file, 512, &Buffer::copy_of(&[2; 512])).unwrap();
    fs.rename(Path::new("/a"), Path::new("/b")).unwrap();
    driver.submit(Token(1), write(&file, 0, 3, 512, WriteMode::Dsync));
    let image = sim.image();
    let units = image.undecided();
    assert_eq!(units.len(), 4);
    for subset in 0..16_u32 {
        let kept: Vec<bool> = (0..4).map(|unit| subset >> unit & 1 == 1).collect();
        let booted = image.boot_with((0..4).filter(|&unit| kept[unit]).map(|unit| units[unit]), 1);
        let first = if kept[3] { 3 } else { u8::from(kept[0]) };
        let second = if kept[1] { 2 } else { u8::from(kept[0]) };
        let bytes = [[first; 512], [second; 512]].concat();
        assert_eq!(
            booted.snapshot().into_iter().collect::<Vec<_>>(),
            [(Path::new(if kept[2] { "/b" } else { "/a" }).to_owned(), bytes)]
        );
    }
    // What was decided is no unit.
    fs.sync(&file).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    wait(&mut *driver, 1);
    assert_eq!(sim.image().undecided(), []);
}
