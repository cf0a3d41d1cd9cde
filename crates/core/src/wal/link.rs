//! Whether the files that records go into still have their names (durability rule 14).

use std::path::PathBuf;

use ringbolt_disk::{Errno, Error, File, Job};

/// Asked in rounds: who needs to know starts a round, and a check submitted after that answers it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    wanted: u64,
    asked: u64,
    confirmed: u64,
}

impl Link {
    /// Start a round.
    pub(crate) fn begin(&mut self) -> u64 {
        self.wanted = self.asked + 1;
        self.wanted
    }

    /// Whether a check is to be submitted: one at a time.
    pub(crate) fn is_due(&self) -> bool {
        self.asked < self.wanted && self.confirmed == self.asked
    }

    /// A check is submitted now; returns the round that it answers.
    pub(crate) fn ask(&mut self) -> u64 {
        self.asked = self.wanted;
        self.asked
    }

    /// The check of this round found every file under its name.
    pub(crate) fn confirm(&mut self, round: u64) {
        self.confirmed = round;
    }

    /// Whether this round is answered.
    pub(crate) fn is_confirmed(&self, round: u64) -> bool {
        self.confirmed >= round
    }
}

/// A check of these files, for the helper thread. It fails where one of them is not what its path leads to.
pub(crate) fn check(files: Vec<(File, PathBuf)>) -> Job {
    Box::new(move |fs| {
        for (file, path) in files {
            if !fs.is_linked(&file, &path)? {
                return Err(Error::new("stat", path, Errno::NOENT).hint(
                    "a segment of the open log was removed or replaced by another program; what was appended to \
                     it since cannot be found again",
                ));
            }
        }
        Ok(None)
    })
}
