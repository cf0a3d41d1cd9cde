//! What stands on the calls of the system, shown on the simulated disk.

#![expect(clippy::unwrap_used, reason = "these are tests, and unwrapping is how a case says it went wrong")]

use std::path::Path;

use super::sync_tree;
use crate::sim::{Call, Fault, Sim};
use crate::{Buffer, Errno, Fs, OpenOptions, Result};

const FILES: [&str; 4] = ["/d/a", "/d/in/b", "/d/in/further/c", "/d/z"];

fn tree(sim: &Sim) -> std::sync::Arc<dyn Fs> {
    let fs = sim.fs();
    for directory in ["/d", "/d/in", "/d/in/further", "/d/empty"] {
        fs.create_dir(directory.as_ref(), 0o700).unwrap();
    }
    for path in FILES {
        let file = fs.open(path.as_ref(), OpenOptions::replace(0o600)).unwrap();
        fs.write_at(&file, 0, &Buffer::copy_of(path.as_bytes())).unwrap();
    }
    fs
}

fn sync(fs: &dyn Fs, directory: &str) -> Result<()> {
    sync_tree(fs, directory.as_ref(), &|path: &Path, kind| match kind {
        crate::EntryKind::Directory => fs.sync_dir(path),
        _ => fs.sync(&fs.open(path, OpenOptions::WRITE)?),
    })
}

#[test]
fn all_that_was_done_below_a_directory_is_durable_once_it_was_flushed_file_by_file() {
    // Goal: what `Fs::sync_all` promises holds where the system has no call for it. Method: the power is cut at once.
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let fs = tree(&sim);
        fs.sync_dir("/".as_ref()).unwrap();
        sync(&*fs, "/d").unwrap();
        let after = sim.power_cut(seed);
        for path in FILES {
            assert_eq!(after.read_file(path), path.as_bytes(), "seed {seed}");
        }
        assert_eq!(after.list("/d"), ["a", "empty", "in", "z"]);
    }
}

#[test]
fn what_cannot_be_flushed_fails_the_whole_but_for_what_is_gone() {
    for (call, name) in [(Call::Open, "b"), (Call::Sync, "c"), (Call::SyncDir, "empty"), (Call::List, "in")] {
        let sim = Sim::new(1);
        let fs = tree(&sim);
        for errno in [Errno::IO, Errno::ACCESS] {
            sim.fail(Fault::new(call).named(name).errno(errno.raw_os_error()));
            assert_eq!(sync(&*fs, "/d").unwrap_err().errno, errno.raw_os_error(), "{call:?}");
        }
        sim.fail(Fault::new(call).named(name).errno(Errno::NOENT.raw_os_error()));
        sync(&*fs, "/d").unwrap();
    }
    let sim = Sim::new(1);
    assert!(sync(&*tree(&sim), "/none").unwrap_err().is_not_found());
}
