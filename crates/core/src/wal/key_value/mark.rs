//! SYNCED, as the log keeps it: rewritten after each sync, synced now and then; and how it is made.

use std::path::Path;

use ringbolt_disk::{Buffer, File, Fs, Op, OpenOptions, Time, Token, WriteMode};

use crate::format::synced::Synced;
use crate::format::{SYNCED_NAME, temporary_name};

/// Make SYNCED anew: written under another name, synced, renamed, the directory synced. Whatever step a crash comes at,
/// SYNCED is the old one or the new one, whole; and what a dead owner still writes to the old one is of no account.
pub(crate) fn make(
    fs: &dyn Fs,
    directory: &Path,
    synced: Synced,
    file_mode: u32,
) -> ringbolt_disk::Result<File> {
    let temporary = directory.join(temporary_name(SYNCED_NAME));
    let made = (|| {
        let file = fs.open(&temporary, OpenOptions::replace(file_mode))?;
        fs.write_at(&file, 0, &Buffer::copy_of(&synced.encode()))?;
        fs.sync(&file)?;
        Ok(file)
    })();
    if made.is_err() {
        // Best effort: what cannot be removed now is removed by the next open.
        let _ = fs.remove(&temporary);
    }
    let file = made?;
    fs.rename(&temporary, &directory.join(SYNCED_NAME))?;
    fs.sync_dir(directory)?;
    Ok(file)
}

/// The open SYNCED.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    /// Everything before this is durable: what SYNCED is to say.
    due: Synced,
    /// What it says, as far as reads of it show.
    said: Synced,
    /// The write in flight, one at a time: two could land in either order.
    writing: Option<(Token, Synced)>,
    /// What of it is durable, or was given up for want of space.
    synced: Synced,
    /// The sync in flight, and what it covers.
    syncing: Option<(Token, Synced)>,
    /// Since when it says more than is durable of it.
    behind_since: Option<Time>,
}

impl Mark {
    pub(super) fn new(file: File, synced: Synced) -> Self {
        Self { file, due: synced, said: synced, writing: None, synced, syncing: None, behind_since: None }
    }

    /// Everything before this place is durable.
    pub(super) fn move_to(&mut self, now: Time, place: Synced) {
        assert!(place >= self.due, "what is durable only grows");
        self.due = place;
        self.behind_since = Some(now);
    }

    /// The write that makes it say what is due.
    pub(super) fn next_write(&mut self, token: Token) -> Option<Op> {
        if self.writing.is_some() || self.said == self.due {
            return None;
        }
        self.writing = Some((token, self.due));
        let buffer = Buffer::copy_of(&self.due.encode());
        Some(Op::Write { file: self.file.clone(), at: 0, buffer, mode: WriteMode::Plain })
    }

    /// The sync of what it says, which may be less than what is due by now: a log that is always busy would else never
    /// come to it.
    pub(super) fn next_sync(&mut self, token: Token) -> Option<Op> {
        if self.syncing.is_some() || self.writing.is_some() || self.said <= self.synced {
            return None;
        }
        self.syncing = Some((token, self.said));
        Some(Op::Sync { file: self.file.clone() })
    }

    /// Whether everything that is due is durable.
    pub(super) fn is_synced(&self) -> bool {
        self.synced == self.due
    }

    /// Whether what is durable of it names a place behind this file, so that it outlives the file.
    pub(super) fn is_synced_behind(&self, file: u64) -> bool {
        self.synced.file > file
    }

    /// Whether a sync now would make that so.
    pub(super) fn says_behind(&self, file: u64) -> bool {
        self.said.file > file && !self.is_synced_behind(file)
    }

    /// Since when there is something to sync.
    pub(super) fn behind_since(&self) -> Option<Time> {
        self.behind_since.filter(|_| self.syncing.is_none() && !self.is_synced())
    }

    pub(super) fn is_at_the_disk(&self) -> bool {
        self.writing.is_some() || self.syncing.is_some()
    }

    /// Take the end of its write or sync in; `None` where `token` is neither.
    pub(super) fn on_done(
        &mut self,
        token: Token,
        outcome: &ringbolt_disk::Result<ringbolt_disk::Outcome>,
    ) -> Option<ringbolt_disk::Result<()>> {
        // No promise rests on it, and the old one stays true: a full disk may keep it from being written.
        let is_given_up = outcome.as_ref().is_err_and(ringbolt_disk::Error::is_no_space);
        let outcome = match outcome {
            Err(error) if !is_given_up => Err(error.clone()),
            _ => Ok(()),
        };
        if let Some((_, place)) = self.writing.take_if(|(writing, _)| *writing == token) {
            self.said = place;
        } else if let Some((_, place)) = self.syncing.take_if(|(syncing, _)| *syncing == token) {
            self.synced = place;
        } else {
            return None;
        }
        Some(outcome)
    }
}
