//! What is asked of the key-value log beside appending, and what the helper thread does for it: go on in the next
//! file, remove old ones, tell what there is.
//!
//! ```text
//!   rotate:                 all durable ─▶ link check, SYNCED synced ─▶ next file made, its name durable ─▶ answered
//!   truncate_before(lsn):   durable up to lsn - 1 ─▶ SYNCED synced, in a later file ─▶ oldest file removed, directory
//!                           (durability rule 15)     synced, again and again ─▶ answered
//! ```
//!
//! Nothing but the files themselves says where a key-value log begins. So a truncation goes by whole files: what is
//! kept of the oldest is served too, before and after the next open.

use std::collections::VecDeque;

use ringbolt_disk::{Access, Create, Errno, File, Fs, Op, OpenOptions, Outcome, Time};

use super::LogFile;
use super::log::Log;
use crate::error::{Code, Error, Result};
use crate::format::log_file_name;
use crate::format::synced::Synced;
use crate::wal::handle::{Answer, Request, SegmentInfo};
use crate::wal::link;
use crate::wal::machine::{Asked, Machine, Step};

/// What is asked for and not yet answered, in the order of asking.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Rotations: their numbers, and the last LSN before them.
    rotations: VecDeque<(u64, u64)>,
    /// Truncations: their numbers, and the first LSN to keep.
    truncations: VecDeque<(u64, u64)>,
    /// A file was removed, and that is not known to be durable.
    removal_unsynced: bool,
    /// The write met a full disk, with this error: what it left is to be looked at.
    pub(super) look: Option<ringbolt_disk::Error>,
}

/// A job in flight.
#[derive(Debug)]
pub(super) enum JobKind {
    /// Does the file still have its name?
    LinkCheck { round: u64 },
    /// Make the next file.
    Rotate { number: u64 },
    /// Remove the oldest.
    Remove,
    /// Make that durable.
    SyncRemoval,
    /// Is the file as long as it was before this error?
    Look(ringbolt_disk::Error),
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.rotations.is_empty() && self.truncations.is_empty() && self.look.is_none()
    }

    /// Whether a rotation is asked for, and every record before the asking was sent.
    pub(super) fn wants_rotation(&self, next_lsn: u64) -> bool {
        self.rotations.front().is_some_and(|&(_, last_lsn)| last_lsn < next_lsn)
    }

    /// The records from `from_lsn` on were taken back: nothing waits for them any more.
    pub(super) fn take_back(&mut self, from_lsn: u64) {
        for (_, lsn) in &mut self.truncations {
            *lsn = from_lsn.min(*lsn);
        }
        for (_, last_lsn) in &mut self.rotations {
            *last_lsn = (from_lsn - 1).min(*last_lsn);
        }
    }
}

impl Log {
    pub(super) fn take_request(&mut self, Asked { number, request, last_lsn }: Asked) {
        match request {
            Request::Rotate => self.requests.rotations.push_back((number, last_lsn)),
            Request::TruncateBefore(lsn) => {
                let lsn = lsn.min(last_lsn + 1);
                self.want_durable(lsn.saturating_sub(1));
                self.requests.truncations.push_back((number, lsn));
            }
            Request::Segments => self.answer(number, Ok(Answer::Segments(self.infos()))),
        }
    }

    fn answer(&mut self, number: u64, answer: Result<Answer>) {
        self.answers.push((number, answer));
    }

    /// The files that hold a durable record, and the one that records go into.
    fn infos(&self) -> Vec<SegmentInfo> {
        let last = self.last().number;
        let shown = self.files.iter().filter(|file| file.lsns.is_some() || file.number == last);
        let info = |&LogFile { number, bytes, lsns }: &LogFile| {
            let (first_lsn, last_lsn) = lsns.unwrap_or((self.durable_lsn + 1, self.durable_lsn));
            let (path, is_sealed) = (self.path(number), number < last);
            SegmentInfo { segment: number, path, bytes, first_lsn, last_lsn, is_sealed }
        };
        shown.map(info).collect()
    }

    /// Whether the oldest file could go if only what SYNCED says were durable. Not once all that is due is: that
    /// may never be so while somebody appends.
    pub(super) fn removal_wants_mark(&self) -> bool {
        self.is_removal_due() && self.files.front().is_some_and(|oldest| self.mark.says_behind(oldest.number))
    }

    /// The next job, if one is due.
    pub(super) fn next_request(&mut self) -> Option<Step> {
        if let Some(error) = self.requests.look.take() {
            let (file, bytes, is) = (self.file.clone(), self.last().bytes, error.clone());
            return Some(self.job(JobKind::Look(error), move |fs| {
                if fs.len(&file)? == bytes { Ok(None) } else { Err(is) }
            }));
        }
        if self.link.is_due() {
            let round = self.link.ask();
            let check = link::check(vec![(self.file.clone(), self.path(self.last().number))]);
            return Some(self.job(JobKind::LinkCheck { round }, check));
        }
        self.next_rotation().or_else(|| self.next_removal())
    }

    fn job(
        &mut self,
        kind: JobKind,
        job: impl FnOnce(&dyn Fs) -> ringbolt_disk::Result<Option<File>> + Send + 'static,
    ) -> Step {
        let token = self.token();
        self.jobs.push((token, kind));
        Step::Submit(token, Op::Job(Box::new(job)))
    }

    // ---- rotation -----------------------------------------------------------------------------------------

    /// Begin to go on in the next file where that is due: everything before is durable, and a batch does not fit or
    /// somebody asked for it.
    pub(super) fn begin_rotation(&mut self) {
        if self.rotation.is_some() || !self.is_settled() {
            return;
        }
        while self.last().bytes == 0 && self.requests.wants_rotation(self.next_lsn) {
            // Nothing is in the file, so it is the next one already.
            if let Some((number, _)) = self.requests.rotations.pop_front() {
                self.answer(number, Ok(Answer::Rotated));
            }
        }
        if self.requests.wants_rotation(self.next_lsn) || self.is_full() {
            self.rotation = Some(self.link.begin());
        }
    }

    /// Rule 14: not before the file is known to have its name; and SYNCED vouches for all of it by then.
    fn next_rotation(&mut self) -> Option<Step> {
        let is_linked = self.rotation.is_some_and(|round| self.link.is_confirmed(round));
        let is_making = self.jobs.iter().any(|(_, kind)| matches!(kind, JobKind::Rotate { .. }));
        if !is_linked || is_making || !self.mark.is_synced() {
            return None;
        }
        assert!(self.is_settled(), "every file before the last is durable");
        let number = self.last().number + 1;
        let (directory, path, file_mode) = (self.directory.clone(), self.path(number), self.file_mode);
        Some(self.job(JobKind::Rotate { number }, move |fs| {
            let file = make_file(fs, &path, file_mode)?;
            fs.sync_dir(&directory)?;
            Ok(Some(file))
        }))
    }

    /// Records go into the next file from here on.
    fn rotated(&mut self, now: Time, number: u64, file: File) {
        self.file = file;
        self.files.push_back(LogFile { number, bytes: 0, lsns: None });
        self.rotation = None;
        self.counters.rotations += 1;
        self.mark.move_to(now, Synced { file: number, offset: 0 });
        // Rule 14: who waits to know that records have a file with a name means the files they are in by then.
        self.flushes.check_again(&mut self.link);
        if let Some(round) = &mut self.closing {
            *round = self.link.begin();
        }
        while self.requests.wants_rotation(self.next_lsn) {
            if let Some((number, _)) = self.requests.rotations.pop_front() {
                self.answer(number, Ok(Answer::Rotated));
            }
        }
    }

    /// The next file cannot be had (no room, no descriptor): nothing is lost, what needs it is refused (rule 9).
    fn not_rotated(&mut self, error: ringbolt_disk::Error) {
        self.counters.errors += 1;
        self.rotation = None;
        let doing = "making the log's next file";
        let error = if error.is_exists() {
            // Somebody else writes here: no room that is made would help.
            Error::io(doing, error)
        } else if error.is_no_space() {
            Error::of_disk(Code::WalNoSpace, &format!("{doing} (free some space)"), error)
        } else {
            Error::of_disk(Code::WalNoSpace, doing, error)
        };
        for (number, _) in std::mem::take(&mut self.requests.rotations) {
            self.answer(number, Err(error.clone()));
        }
        match &self.batch {
            // The beginning of its first run is in the file before: nobody could be told the truth about that one.
            Some(batch) if self.is_full() && batch.is_continued => self.fail(&error),
            Some(_) if self.is_full() => self.refused = Some(error),
            _ => {}
        }
    }

    // ---- truncation ---------------------------------------------------------------------------------------

    /// Whether the oldest file holds nothing that the oldest truncation keeps, and what is below is durable.
    fn is_removal_due(&self) -> bool {
        let Some(&(_, lsn)) = self.requests.truncations.front() else { return false };
        let (Some(oldest), true) = (self.files.front(), self.durable_lsn + 1 >= lsn) else { return false };
        let is_obsolete = oldest.lsns.is_none_or(|(_, last)| last < lsn);
        // The newest file that holds a record stays: without it nothing would tell the next sequence.
        is_obsolete && self.files.iter().skip(1).any(|file| file.lsns.is_some())
    }

    fn next_removal(&mut self) -> Option<Step> {
        if self.jobs.iter().any(|(_, kind)| matches!(kind, JobKind::Remove | JobKind::SyncRemoval)) {
            return None;
        }
        if self.requests.removal_unsynced && !self.requests.truncations.is_empty() {
            // Before the next one goes, and before anybody is answered: a log with a gap would be refused.
            let directory = self.directory.clone();
            return Some(self.job(JobKind::SyncRemoval, move |fs| fs.sync_dir(&directory).map(|()| None)));
        }
        while let Some(&(number, lsn)) = self.requests.truncations.front()
            && self.durable_lsn + 1 >= lsn
            && !self.is_removal_due()
        {
            self.requests.truncations.pop_front();
            self.answer(number, Ok(Answer::Truncated { first_lsn: self.first_lsn() }));
        }
        let oldest = self.files.front()?.number;
        if !self.is_removal_due() || !self.mark.is_synced_behind(oldest) {
            return None;
        }
        let path = self.path(oldest);
        Some(self.job(JobKind::Remove, move |fs| match fs.remove(&path) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(None),
        }))
    }

    /// The oldest file has no name any more, or it could not be removed, and whoever asked is told.
    fn removed(&mut self, outcome: ringbolt_disk::Result<Outcome>) {
        match outcome {
            Ok(_) => {
                self.files.pop_front();
                self.requests.removal_unsynced = true;
            }
            Err(error) => self.not_removed(error, |path| {
                format!("removing {path} (the log begins there, or before it after a crash; try again)")
            }),
        }
    }

    /// That is durable; or it is not known to be, and whoever asked is told. What has no name is served no more either
    /// way.
    fn removal_synced(&mut self, outcome: ringbolt_disk::Result<Outcome>) {
        match outcome {
            Ok(_) => self.requests.removal_unsynced = false,
            Err(error) => self.not_removed(error, |path| {
                format!("removing what is before {path} (the log begins there, or before it after a crash; try again)")
            }),
        }
    }

    fn not_removed(&mut self, error: ringbolt_disk::Error, doing: impl Fn(&str) -> String) {
        self.counters.errors += 1;
        if let Some((number, _)) = self.requests.truncations.pop_front() {
            let path = self.files.front().map(|file| log_file_name(file.number)).unwrap_or_default();
            self.answer(number, Err(Error::io(&doing(&path), error)));
        }
    }

    // ---- back up ------------------------------------------------------------------------------------------

    pub(super) fn on_job(&mut self, now: Time, kind: JobKind, outcome: ringbolt_disk::Result<Outcome>) {
        match (kind, outcome) {
            (JobKind::LinkCheck { round }, Ok(_)) => self.link.confirm(round),
            (JobKind::Rotate { number }, Ok(Outcome::Job(Some(file)))) => self.rotated(now, number, file),
            (JobKind::Rotate { .. }, Err(error)) if error.is_no_space() || error.changed_nothing() => {
                self.not_rotated(error);
            }
            (JobKind::Remove, outcome) => self.removed(outcome),
            (JobKind::SyncRemoval, outcome) => self.removal_synced(outcome),
            (JobKind::Look(error), Ok(_)) if self.failure().is_none() => self.nothing_was_written(error),
            (JobKind::Look(_), Ok(_)) => {}
            (kind, Err(error)) => {
                let doing = match kind {
                    JobKind::LinkCheck { .. } => "checking that the log's file still has its name",
                    JobKind::Rotate { .. } => "making the log's next file",
                    JobKind::Look(_) => "writing to the log",
                    JobKind::Remove | JobKind::SyncRemoval => unreachable!("handled before"),
                };
                self.fail(&Error::io(doing, error));
            }
            (kind, Ok(outcome)) => unreachable!("{kind:?} ended in {outcome:?}"),
        }
        self.forget_looked_at();
    }
}

/// Make an empty file of the log, locked (rule 8). Its name is durable once its directory is synced.
pub(super) fn make_file(fs: &dyn Fs, path: &std::path::Path, file_mode: u32) -> ringbolt_disk::Result<File> {
    let create = Create::IfMissing(file_mode);
    let file = fs.open(path, OpenOptions { access: Access::ReadWrite, create, direct: false })?;
    if !fs.try_lock(&file)? {
        // Only a program that does not follow LOCK can have it.
        return Err(ringbolt_disk::Error::new("flock", path, Errno::AGAIN)
            .hint("another program locks this log's new files; stop it and open the log again"));
    }
    if fs.len(&file)? > 0 {
        return Err(ringbolt_disk::Error::new("open", path, Errno::EXIST)
            .hint("another program wrote into this log; stop it and open the log again"));
    }
    fs.sync(&file)?;
    Ok(file)
}
