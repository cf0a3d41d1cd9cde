//! One writer, and its locks live as long as its last write (durability rule 8).
//!
//! LOCK alone is not enough: a killed process's LOCK is free within a millisecond, while writes it handed to
//! the ring may land seconds later, over a new owner's. Each segment open for writing is locked too, on the
//! open file description that its writes use, and the kernel holds that until they are done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringbolt_disk::{Access, Buffer, Create, File, Fs, OpenOptions, Time};

use crate::error::{Code, Error, Result};
use crate::lock;
use crate::planted::{self, Bug};

/// The newest segments whose locks were taken stay open: recovery is about to write to them.
const SEGMENTS_HELD: usize = 3;

/// Takes locks, all within one bound of time.
pub(crate) struct Locks<'a> {
    fs: &'a dyn Fs,
    deadline: Time,
    file_mode: u32,
    /// Whether somebody still waits for the log; asked between two attempts.
    check_wanted: &'a dyn Fn() -> Result<()>,
    owner: PathBuf,
    segments: Vec<(PathBuf, File)>,
}

impl<'a> Locks<'a> {
    pub(crate) fn new(
        fs: &'a dyn Fs,
        timeout: Duration,
        file_mode: u32,
        check_wanted: &'a dyn Fn() -> Result<()>,
    ) -> Self {
        let deadline = fs.now().after(timeout);
        Self { fs, deadline, file_mode, check_wanted, owner: PathBuf::new(), segments: Vec::new() }
    }

    /// Take LOCK. It goes on naming the owner before us until [`Locks::sign`].
    pub(crate) fn take_owner(&mut self, path: &Path) -> Result<File> {
        path.clone_into(&mut self.owner);
        let create = Create::IfMissing(self.file_mode);
        let options = OpenOptions { access: Access::ReadWrite, create, direct: false };
        let is_wanted = || (self.check_wanted)().is_ok();
        let file = lock::open(self.fs, path, options, self.deadline, &is_wanted).map_err(locking)?;
        self.taken(file, path)
    }

    /// Write our pid into LOCK: every lock is ours. Not before, or an open that finds a dead owner's segment
    /// still locked would name itself, and so would the next one.
    pub(crate) fn sign(&self, lock: &File) -> Result<()> {
        let pid = Buffer::copy_of(self.fs.pid().to_string().as_bytes());
        let told = self.fs.set_len(lock, 0).and_then(|()| self.fs.write_at(lock, 0, &pid));
        match told {
            Ok(()) => Ok(()),
            // The pid is for people: a full disk need not keep a log from being read out.
            Err(error) if error.is_no_space() => Ok(()),
            Err(error) => Err(locking(error)),
        }
    }

    /// A segment, open for writing, locked. All writes to it must go through this file.
    pub(crate) fn take_segment(&mut self, path: &Path, direct: bool) -> Result<File> {
        if let Some((_, file)) = self.segments.iter().find(|(held, _)| held == path) {
            return Ok(file.clone());
        }
        let file = self.fs.open(path, OpenOptions::WRITE.with_direct(direct)).map_err(locking)?;
        if !planted::is(Bug::NoSegmentLocks) {
            self.take(&file)?;
        }
        if self.segments.len() == SEGMENTS_HELD {
            self.segments.remove(0);
        }
        self.segments.push((path.to_owned(), file.clone()));
        Ok(file)
    }

    fn take(&self, file: &File) -> Result<()> {
        let is_wanted = || (self.check_wanted)().is_ok();
        let is_taken = lock::take(self.fs, file, self.deadline, &is_wanted).map_err(locking)?;
        self.taken(is_taken.then_some(()), file.path())
    }

    /// What was taken, or why it was not.
    fn taken<T>(&self, taken: Option<T>, path: &Path) -> Result<T> {
        if taken.is_none() {
            (self.check_wanted)()?;
        }
        taken.ok_or_else(|| self.locked(path))
    }

    fn locked(&self, path: &Path) -> Error {
        let pid = lock::holder(self.fs, &self.owner);
        let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        let message = format!(
            "{}: {holder} has the log open for writing; close it there, or wait longer with `lockTimeoutMs`",
            path.display()
        );
        Error::new(Code::WalLocked, message).path(path).with(|details| details.pid = pid)
    }
}

fn locking(error: ringbolt_disk::Error) -> Error {
    let code = if error.is_no_space() { Code::WalNoSpace } else { Code::WalIo };
    Error::of_disk(code, "locking the log", error)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ringbolt_disk::sim::Sim;

    use super::*;

    #[test]
    fn the_lock_of_a_file_that_lost_its_name_is_not_the_logs() {
        let sim = Sim::new(1);
        let (first, second, third) = (sim.disk().fs, sim.disk().fs, sim.disk().fs);
        let path = Path::new("/LOCK");
        let patience = Duration::from_millis(20);
        let wanted = || Ok(());
        let take = |fs, check_wanted| Locks::new(fs, patience, 0o600, check_wanted).take_owner(path);
        let held = RefCell::new(Some(take(&*first, &wanted).expect("it is free")));
        let made_again = RefCell::new(None);
        // While the second waits, the log is removed, and made again by a third.
        let look = || {
            if held.take().is_some() {
                sim.remove_file(path);
                *made_again.borrow_mut() = Some(take(&*third, &wanted).expect("it is free"));
            }
            Ok(())
        };
        let error = take(&*second, &look).expect_err("the third has it");
        assert_eq!(error.code, Code::WalLocked, "{error:?}");
    }
}
