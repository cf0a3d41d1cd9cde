//! What is asked of the log beside appending: go on in the next segment, forget what is old, tell what there is.
//!
//! ```text
//!   truncate_before(lsn):  durable up to lsn - 1 ─▶ HEAD: first LSN, oldest segment ─▶ older segments removed ─▶ answered
//!                          (durability rule 15)     (replaced durably)                  (directory synced)
//! ```
//!
//! A crash at any step leaves a log that begins at or before `lsn`: until HEAD is durable nothing is removed, and
//! what is left over then is removed by the next open.

use std::collections::VecDeque;
use std::path::PathBuf;

use ringbolt_disk::Fs;

use super::jobs::JobKind;
use super::{Log, Step};
use crate::error::{Code, Error, Result};
use crate::format::GRAIN;
use crate::format::frame::Kind;
use crate::format::head::Head;
use crate::planted::{self, Bug};
use crate::wal::handle::{Answer, Request, SegmentInfo};
use crate::wal::machine::{Asked, Machine};

/// A segment that holds a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) number: u64,
    /// Its size, in bytes.
    pub(crate) bytes: u64,
    /// The LSN of its first frame.
    pub(crate) first_lsn: u64,
}

/// What is asked for and not yet answered, in the order of asking.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Rotations that wait until everything before them is framed: their numbers, and the last LSN before them.
    rotations: VecDeque<(u64, u64)>,
    /// Rotations that wait until the seal of this segment is durable.
    sealing: Vec<(u64, u64)>,
    /// Truncations: their numbers, and the first LSN to keep. The one in front is under way.
    truncations: VecDeque<(u64, u64)>,
    truncating: Truncating,
}

/// How far the truncation in front is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Truncating {
    /// For the records before it to be durable, or for a HEAD on its way.
    #[default]
    Waiting,
    /// Its HEAD is on its way.
    ReplacingHead,
    /// Its HEAD is durable.
    RemovalDue,
    /// What HEAD does not name any more is being removed.
    Removing,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.rotations.is_empty() && self.sealing.is_empty() && self.truncations.is_empty()
    }
}

impl Log {
    pub(super) fn take_request(&mut self, Asked { number, request, last_lsn }: Asked) {
        match request {
            Request::Rotate => self.requests.rotations.push_back((number, last_lsn)),
            Request::TruncateBefore(lsn) => {
                let lsn = lsn.min(last_lsn + 1);
                if !planted::is(Bug::TruncateAheadOfDurability) {
                    self.want_durable(lsn.saturating_sub(1));
                }
                self.requests.truncations.push_back((number, lsn));
            }
            Request::Segments => self.answer(number, Ok(Answer::Segments(self.segment_infos()))),
        }
    }

    pub(super) fn answer(&mut self, number: u64, answer: Result<Answer>) {
        self.answers.push((number, answer));
    }

    fn segment_infos(&self) -> Vec<SegmentInfo> {
        let mut infos: Vec<SegmentInfo> = Vec::new();
        let empty = Held { number: self.segment.number, bytes: self.segment.bytes, first_lsn: self.next_lsn };
        let current = (self.segment.tail == GRAIN).then_some(empty);
        // Those below are on their way out.
        let kept = self.held.iter().filter(|held| held.number >= self.head.oldest_segment);
        let all: Vec<Held> = kept.copied().chain(current).collect();
        for (index, held) in all.iter().enumerate() {
            let next = all.get(index + 1).map_or(self.next_lsn, |next| next.first_lsn);
            infos.push(SegmentInfo {
                segment: held.number,
                path: self.maker.path(held.number),
                bytes: held.bytes,
                first_lsn: held.first_lsn.max(self.head.first_lsn),
                last_lsn: next - 1,
                is_sealed: held.number < self.segment.number,
            });
        }
        infos
    }

    // ---- rotation -----------------------------------------------------------------------------------------

    /// Whether somebody asked for a rotation, and every record before the asking is framed.
    pub(super) fn is_rotation_due(&mut self) -> bool {
        while let Some(&(number, last_lsn)) = self.requests.rotations.front()
            && last_lsn < self.next_lsn
        {
            if self.segment.tail > GRAIN {
                return true;
            }
            // Nothing is in the segment, so it is the next one already: as soon as the seal before it is durable.
            self.requests.rotations.pop_front();
            let before = self.segment.number - 1;
            if self.frames.iter().any(|frame| frame.kind == Kind::Seal && frame.segment == before) {
                self.requests.sealing.push((number, before));
            } else {
                self.answer(number, Ok(Answer::Rotated));
            }
        }
        false
    }

    /// The seal of `segment` is on its way: whoever asked for it before waits for it.
    pub(super) fn sealing(&mut self, segment: u64) {
        while let Some(&(number, last_lsn)) = self.requests.rotations.front()
            && last_lsn < self.next_lsn
        {
            self.requests.rotations.pop_front();
            self.requests.sealing.push((number, segment));
        }
    }

    /// The seal of `segment` is durable.
    pub(super) fn sealed(&mut self, segment: u64) {
        let (sealed, waiting) = std::mem::take(&mut self.requests.sealing)
            .into_iter()
            .partition::<Vec<_>, _>(|&(_, waits_for)| waits_for <= segment);
        self.requests.sealing = waiting;
        for (number, _) in sealed {
            self.answer(number, Ok(Answer::Rotated));
        }
    }

    /// There is no room for the next segment: the rotations that wait for it are refused, and those of records that
    /// are taken back wait for what is left.
    pub(super) fn refuse_rotations(&mut self, error: &Error) {
        for (number, _) in std::mem::take(&mut self.requests.rotations) {
            self.answer(number, Err(error.clone()));
        }
    }

    // ---- truncation ---------------------------------------------------------------------------------------

    /// The records from `from_lsn` on were taken back: nothing waits for them any more.
    pub(super) fn take_back(&mut self, from_lsn: u64) {
        for (_, lsn) in &mut self.requests.truncations {
            *lsn = from_lsn.min(*lsn);
        }
    }

    /// The next step of the oldest truncation.
    pub(super) fn next_truncation(&mut self) -> Option<Step> {
        if self.requests.truncating == Truncating::RemovalDue {
            return Some(self.remove_segments());
        }
        while self.requests.truncating == Truncating::Waiting
            && let Some(&(number, lsn)) = self.requests.truncations.front()
        {
            if lsn > self.head.first_lsn {
                let is_durable = self.durable_lsn + 1 >= lsn || planted::is(Bug::TruncateAheadOfDurability);
                return (is_durable && !self.has_head_job()).then(|| self.replace_head_from(lsn));
            }
            self.requests.truncations.pop_front();
            self.answer(number, Ok(Answer::Truncated { first_lsn: self.head.first_lsn }));
        }
        None
    }

    fn replace_head_from(&mut self, lsn: u64) -> Step {
        self.requests.truncating = Truncating::ReplacingHead;
        // Where the bug is planted, HEAD says of records that are not durable that they are: else it would not even
        // let itself be encoded.
        let proven_lsn = if planted::is(Bug::TruncateAheadOfDurability) { lsn - 1 } else { self.durable_lsn };
        let oldest_segment = self.oldest_kept(lsn);
        let head = Head { first_lsn: lsn, oldest_segment, proven_lsn, ..self.head };
        let too_early = planted::is(Bug::UnlinkBeforeHead).then(|| self.removal(head.oldest_segment));
        self.replace_head(head, too_early)
    }

    /// The segment that holds `lsn`, or the newest that holds a durable frame: without one nothing would tell the
    /// LSN that is due.
    fn oldest_kept(&self, lsn: u64) -> u64 {
        let last = lsn.min(self.durable_lsn);
        let kept = self.held.iter().rfind(|held| held.first_lsn <= last);
        kept.map_or(self.head.oldest_segment, |held| held.number.max(self.head.oldest_segment))
    }

    fn removal(&self, oldest_kept: u64) -> Removal {
        let removed = self.held.iter().take_while(|held| held.number < oldest_kept);
        let paths = removed.map(|held| self.maker.path(held.number)).collect();
        Removal { directory: self.maker.directory.clone(), paths }
    }

    fn remove_segments(&mut self) -> Step {
        self.requests.truncating = Truncating::Removing;
        let removal = self.removal(self.head.oldest_segment);
        self.job(JobKind::Remove, Box::new(move |fs| removal.run(fs).map(|()| None)))
    }

    /// A HEAD is durable; where it was a truncation's, what it does not name any more may go.
    pub(super) fn head_replaced(&mut self) {
        if self.requests.truncating == Truncating::ReplacingHead {
            self.requests.truncating = Truncating::RemovalDue;
        }
    }

    /// A HEAD could not be replaced, and the old one stays true: where it was a truncation's, nothing was truncated.
    pub(super) fn head_not_replaced(&mut self, error: ringbolt_disk::Error) {
        if self.requests.truncating == Truncating::ReplacingHead {
            let code = if error.is_no_space() { Code::WalNoSpace } else { Code::WalIo };
            let doing = "truncating the log (nothing was removed): replacing HEAD";
            self.end_truncation(Err(Error::of_disk(code, doing, error)));
        }
    }

    /// The segments are removed; or could not be, and then the next open removes them.
    pub(super) fn removed(&mut self, outcome: ringbolt_disk::Result<()>) {
        let oldest_kept = self.head.oldest_segment;
        self.held.retain(|held| held.number >= oldest_kept);
        self.counters.errors += u64::from(outcome.is_err());
        let doing = "removing segments (the log was truncated all the same, and the next open removes them)";
        self.end_truncation(outcome.map_err(|error| Error::io(doing, error)));
    }

    fn end_truncation(&mut self, outcome: Result<()>) {
        self.requests.truncating = Truncating::Waiting;
        if let Some((number, _)) = self.requests.truncations.pop_front() {
            self.answer(number, outcome.map(|()| Answer::Truncated { first_lsn: self.head.first_lsn }));
        }
    }
}

/// Files that HEAD does not name any more.
pub(super) struct Removal {
    directory: PathBuf,
    paths: Vec<PathBuf>,
}

impl Removal {
    /// In any order: what a crash leaves of them is older than what HEAD names.
    pub(super) fn run(&self, fs: &dyn Fs) -> ringbolt_disk::Result<()> {
        for path in &self.paths {
            match fs.remove(path) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        if self.paths.is_empty() { Ok(()) } else { fs.sync_dir(&self.directory) }
    }
}
