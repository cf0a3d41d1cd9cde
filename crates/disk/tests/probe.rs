//! Which backend is chosen, and why: on a machine that has `io_uring`, and where its calls are refused as a sandbox
//! does it.

#![cfg(all(target_os = "linux", feature = "ring"))]
#![expect(clippy::unwrap_used, reason = "these are tests, and unwrapping is how a case says it went wrong")]

mod machine;
#[path = "machine/process.rs"]
mod process;
#[path = "machine/seccomp.rs"]
mod seccomp;

use machine::lacks;
use process::{in_a_child, watched};
use ringbolt_disk::probe::probe;
use ringbolt_disk::{
    Backend, Buffer, Choice, Disk, Done, EngineOptions, NewDisk, Op, OpenOptions, Outcome, Preference,
    Result, SharedDisk, Token, WriteMode, choose,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccomp::refuse;

/// A write and a read by each of its two disks.
fn use_it(choice: &Choice) {
    let dir = tempfile::tempdir().unwrap();
    let shared = choice.shared_disk();
    assert_eq!(shared.backend, choice.backend);
    for disk in [choice.disk(), shared.into_disk(EngineOptions { depth: 4, helpers: 1 })] {
        assert_eq!(disk.backend, choice.backend);
        let Disk { fs, driver, .. } = disk;
        let file = fs.open(&dir.path().join("file"), OpenOptions::replace(0o600)).unwrap();
        let mut driver = driver().unwrap();
        let mut perform = |op| {
            driver.submit(Token(1), op);
            let mut out: Vec<Done> = Vec::new();
            while out.is_empty() {
                driver.wait(None, &mut out);
            }
            out.remove(0)
        };
        for mode in [WriteMode::Plain, WriteMode::Dsync, WriteMode::Alone] {
            let (file, buffer) = (file.clone(), Buffer::copy_of(b"bytes"));
            let done = perform(Op::Write { file, at: 0, buffer, mode });
            assert!(matches!(done.outcome, Ok(Outcome::Written)), "{done:?}");
        }
        let done = perform(Op::Read { file, at: 1, buffer: Buffer::zeroed(10) });
        assert!(matches!(done.outcome, Ok(Outcome::Read(4))), "{done:?}");
        assert!(done.buffer.unwrap().starts_with(b"ytes\0"));
    }
}

/// Threads are chosen with this advice, and `io_uring` is refused with it.
fn is_refused(syscall: &str, errno: Errno, advice: &str) {
    let choice = choose(Preference::Auto).unwrap();
    let reason = choice.reason.clone().unwrap();
    assert_eq!(choice.backend, Backend::Threads, "{reason}");
    assert!(reason.contains(advice) && reason.contains(syscall), "{reason}");
    let error = choose(Preference::IoUring).unwrap_err();
    assert_eq!((error.syscall, error.errno), (syscall, errno.raw_os_error()));
    assert!(error.to_string().contains(advice), "{error}");
    let report = probe();
    assert_eq!((report.is_available(), report.reason, report.features), (false, Some(reason), vec![]));
    use_it(&choice);
    // Who wants threads is not told why they are not something else.
    let choice = choose(Preference::Threads).unwrap();
    assert_eq!(choice, Choice { backend: Backend::Threads, reason: None });
}

#[test]
fn io_uring_is_chosen_where_it_works_and_threads_where_they_are_wanted() {
    watched("io_uring_is_chosen_where_it_works_and_threads_where_they_are_wanted", || {
        let report = probe();
        assert!(!report.kernel.is_empty());
        let Some(reason) = report.reason else {
            assert!(report.features.contains(&"nodrop"), "{report:?}");
            for preference in [Preference::Auto, Preference::IoUring] {
                let choice = choose(preference).unwrap();
                assert_eq!(choice, Choice { backend: Backend::IoUring, reason: None });
                use_it(&choice);
            }
            return use_it(&choose(Preference::Threads).unwrap());
        };
        lacks("io_uring", &reason);
    });
}

#[test]
fn a_sandbox_is_a_reason_for_threads_and_against_io_uring() {
    // Goal: each of the three calls refused, in each way that is in use; a reason comes, and nothing hangs.
    watched("a_sandbox_is_a_reason_for_threads_and_against_io_uring", || {
        for (errno, advice) in [
            (Errno::PERM, "blocked by a seccomp filter"),
            (Errno::ACCESS, "blocked by a seccomp filter"),
            (Errno::NOSYS, "hidden by a seccomp filter"),
            (Errno::NOMEM, "RLIMIT_MEMLOCK is "),
        ] {
            for (number, syscall) in [
                (libc::SYS_io_uring_setup, "io_uring_setup"),
                (libc::SYS_io_uring_register, "io_uring_register"),
                (libc::SYS_io_uring_enter, "io_uring_enter"),
            ] {
                // A filter is for its thread and those that it starts, and for life.
                let refused = std::thread::spawn(move || {
                    if !refuse(number, errno) {
                        return lacks("seccomp", "system calls cannot be filtered here");
                    }
                    is_refused(syscall, errno, advice);
                });
                refused.join().unwrap();
            }
        }
    });
}

#[test]
fn a_ring_is_tried_also_where_there_are_no_files_in_memory() {
    let tried = std::thread::spawn(|| {
        let Some(reason) = probe().reason else {
            if refuse(libc::SYS_memfd_create, Errno::PERM) {
                assert_eq!(probe().reason, None);
            } else {
                lacks("seccomp", "system calls cannot be filtered here");
            }
            return;
        };
        lacks("io_uring", &reason);
    });
    tried.join().unwrap();
}

#[test]
fn a_ring_that_can_be_had_but_does_not_write_is_a_reason() {
    // Goal: more is asked of it than that it is there. Method: no file may grow.
    in_a_child("a_ring_that_can_be_had_but_does_not_write_is_a_reason", || {
        if let Some(reason) = probe().reason {
            return lacks("io_uring", &reason);
        }
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: Some(0), maximum }).unwrap();
        let choice = choose(Preference::Auto).unwrap();
        let error = choose(Preference::IoUring).unwrap_err();
        assert_eq!((error.syscall, error.errno), ("pwrite", Errno::FBIG.raw_os_error()));
        assert!(choice.reason.unwrap().starts_with("io_uring is here, but not for"), "{error}");
    });
}

#[test]
fn descriptors_that_are_used_up_are_a_reason() {
    in_a_child("descriptors_that_are_used_up_are_a_reason", || {
        let limits = getrlimit(Resource::Nofile);
        let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
        limit(Some(3));
        let (choice, refused) = (choose(Preference::Auto).unwrap(), choose(Preference::IoUring));
        limit(limits.current);
        assert_eq!(choice.backend, Backend::Threads);
        assert!(choice.reason.unwrap().contains("RLIMIT_NOFILE is 3"));
        assert_eq!(refused.unwrap_err().errno, Errno::MFILE.raw_os_error());
        // Nothing of it is remembered.
        assert_eq!(choose(Preference::Auto).unwrap().reason, probe().reason);
    });
}

#[test]
fn a_ring_that_is_refused_after_it_was_tried_is_a_reason_too() {
    // Goal: where anything will do, a service has a backend also if others take what the trial has just given back.
    // Method: once a disk was chosen, and before its ring is made, there are no descriptors any more.
    in_a_child("a_ring_that_is_refused_after_it_was_tried_is_a_reason_too", || {
        if let Some(reason) = probe().reason {
            return lacks("io_uring", &reason);
        }
        let limits = getrlimit(Resource::Nofile);
        let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
        let log = |disk: Disk| {
            limit(Some(3));
            let driver = (disk.driver)();
            limit(limits.current);
            driver.map(|_| disk.backend)
        };
        let store = |disk: SharedDisk| {
            limit(Some(3));
            let engine = (disk.engine)(EngineOptions { depth: 4, helpers: 1 }, Box::new(|_, _| {}));
            limit(limits.current);
            engine.map(|_| disk.backend)
        };
        let both = |preference| -> [Result<(Backend, Option<String>)>; 2] {
            [NewDisk::from(preference).build(log), NewDisk::from(preference).build(store)]
        };
        for built in both(Preference::Auto) {
            let (backend, reason) = built.unwrap();
            assert_eq!(backend, Backend::Threads);
            assert!(reason.unwrap().contains("RLIMIT_NOFILE is 3"));
        }
        for refused in both(Preference::IoUring) {
            assert_eq!(refused.unwrap_err().errno, Errno::MFILE.raw_os_error());
        }
        for built in both(Preference::Threads) {
            assert_eq!(built, Ok((Backend::Threads, None)));
        }
    });
}
