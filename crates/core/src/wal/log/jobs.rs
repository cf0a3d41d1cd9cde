//! What the helper thread is asked to do beside the frames: make the next segment, zero ahead of the tail,
//! replace HEAD, look whether the segment still has its name.

use ringbolt_disk::{GRAIN, Job, Op, Outcome, Time};

use super::requests::Removal;
use super::{HEAD_IDLE, Log, Next, Step};
use crate::error::{Code, Error};
use crate::format::head::{Head, State};
use crate::wal::segment::Segment;
use crate::wal::{head, link};

/// Zeroing runs this far ahead of the tail, in chunks of a quarter of it: from the first bound at the start to
/// the second in a log that is written much. A log of a few records should not cost megabytes of zeros, and
/// the flush behind a chunk waits for it: 1.5 ms for 1 MiB on the disk this was measured on.
const ZERO_AHEAD_BYTES: (u64, u64) = (512 << 10, 4 << 20);

/// Frames above this size, on average, go into blocks that are merely allocated. A durable write there costs
/// some 100 µs more, whatever its size (the journal notes that the blocks are in use); zeroing costs 2.4 µs for
/// each KiB (ext4 on virtio, Linux 6.18). What is quicker changes at 40 KiB.
const ZERO_FRAME_BYTES_MAX: u64 = 32 << 10;

/// A job in flight, and what is known of it.
#[derive(Debug)]
pub(super) enum JobKind {
    Prepare { number: u64 },
    Zero { segment: u64 },
    Head(Head),
    Remove,
    LinkCheck { round: u64 },
}

impl Log {
    pub(super) fn next_job(&mut self, now: Time) -> Option<Step> {
        if self.link.is_due() {
            return Some(self.check_link());
        }
        if self.closing.is_none()
            && let Some(step) = self.zero_ahead()
        {
            return Some(step);
        }
        let past_half = self.segment.tail > self.segment.bytes / 2 && self.closing.is_none();
        let prepare = match self.next {
            Next::None => past_half || self.rotation.is_some(),
            Next::NoSpace { needed, .. } => !needed && self.rotation.is_some(),
            Next::Preparing | Next::Ready(_) => false,
        };
        if prepare {
            return Some(self.prepare());
        }
        self.next_truncation().or_else(|| self.next_head(now))
    }

    pub(super) fn job(&mut self, kind: JobKind, job: Job) -> Step {
        let token = self.token();
        self.jobs.push((token, kind));
        Step::Submit(token, Op::Job(job))
    }

    /// The segment that records go into, and the one that they may go into next: it can have lain there for as
    /// long as it took to fill this one.
    fn check_link(&mut self) -> Step {
        let next = match &self.next {
            Next::Ready(next) => Some(next),
            Next::None | Next::Preparing | Next::NoSpace { .. } => None,
        };
        let segments = std::iter::once(&self.segment).chain(next);
        let files: Vec<_> = segments.map(|open| (open.file.clone(), open.path.clone())).collect();
        let round = self.link.ask();
        self.job(JobKind::LinkCheck { round }, link::check(files))
    }

    fn zero_ahead(&mut self) -> Option<Step> {
        if self.frame_bytes > ZERO_FRAME_BYTES_MAX {
            return None;
        }
        let (first, most) = ZERO_AHEAD_BYTES;
        let distance = self.appended_bytes.clamp(first, most);
        let chunk = (distance / 4).next_multiple_of(GRAIN as u64);
        let next = match &mut self.next {
            Next::Ready(segment) => Some(segment),
            Next::None | Next::Preparing | Next::NoSpace { .. } => None,
        };
        let segment = std::iter::once(&mut self.segment)
            .chain(next)
            .find_map(|segment| segment.zero_ahead(distance, chunk).map(|range| (segment, range)));
        let (segment, (from, to)) = segment?;
        segment.zeroing = Some((from, to));
        let (number, file) = (segment.number, segment.file.clone());
        Some(self.job(
            JobKind::Zero { segment: number },
            Box::new(move |fs| fs.zero(&file, from, to - from).map(|()| None)),
        ))
    }

    /// The zeroing of a segment is over; where it is still open, `settle` hears how far it was to go.
    fn end_zeroing(&mut self, number: u64, settle: impl FnOnce(&mut Segment, u64)) {
        let next = match &mut self.next {
            Next::Ready(next) => Some(next),
            Next::None | Next::Preparing | Next::NoSpace { .. } => None,
        };
        let mut segments = std::iter::once(&mut self.segment).chain(next);
        if let Some(open) = segments.find(|open| open.number == number)
            && let Some((_, to)) = open.zeroing.take()
        {
            settle(open, to);
        }
    }

    fn prepare(&mut self) -> Step {
        self.next = Next::Preparing;
        let number = self.segment.number + 1;
        let maker = self.maker.clone();
        self.job(
            JobKind::Prepare { number },
            Box::new(move |fs| maker.make(fs, number).map(|segment| Some(segment.file))),
        )
    }

    pub(super) fn has_head_job(&self) -> bool {
        self.jobs.iter().any(|(_, kind)| matches!(kind, JobKind::Head(_)))
    }

    fn next_head(&mut self, now: Time) -> Option<Step> {
        if self.has_head_job() {
            return None;
        }
        let idle = self.head_behind_since.is_some_and(|since| now >= since.after(HEAD_IDLE));
        let last = self.is_drained() && self.closing.is_some_and(|round| self.link.is_confirmed(round));
        if !self.head_wanted && !idle && !last {
            return None;
        }
        let head = Head {
            state: if last { State::Closed } else { State::Open },
            proven_lsn: self.durable_lsn,
            ..self.head
        };
        self.head_wanted = false;
        self.head_behind_since = None;
        Some(self.replace_head(head, None))
    }

    /// `too_early` is a planted bug: what is to be removed after HEAD is removed before it.
    pub(super) fn replace_head(&mut self, head: Head, too_early: Option<Removal>) -> Step {
        let (directory, file_mode) = (self.maker.directory.clone(), self.maker.file_mode);
        self.job(
            JobKind::Head(head),
            Box::new(move |fs| {
                if let Some(removal) = too_early {
                    removal.run(fs)?;
                }
                head::replace(fs, &directory, &head, file_mode).map(|()| None)
            }),
        )
    }

    /// Told to close, and nothing is left to do but HEAD.
    pub(super) fn is_drained(&self) -> bool {
        self.batch.is_none()
            && self.frames.is_empty()
            && self.flush.is_none()
            && self.jobs.is_empty()
            && self.flushes.is_empty()
            && self.requests.is_empty()
    }

    pub(super) fn on_job(&mut self, now: Time, kind: JobKind, outcome: ringbolt_disk::Result<Outcome>) {
        match (kind, outcome) {
            (JobKind::Prepare { number }, Ok(Outcome::Job(Some(file)))) => {
                let path = self.maker.path(number);
                self.next = Next::Ready(Segment::empty(file, path, number, self.maker.bytes));
            }
            // Rule 9: the next segment cannot be had (no room, no descriptor), known before this one is full.
            // Nothing is lost yet.
            (JobKind::Prepare { .. }, Err(error)) if error.is_no_space() || error.changed_nothing() => {
                self.counters.errors += 1;
                let doing = if error.is_no_space() {
                    "reserving the next segment (free some space)"
                } else {
                    "reserving the next segment"
                };
                let error = Error::of_disk(Code::WalNoSpace, doing, error);
                self.next = Next::NoSpace { error, needed: self.rotation.is_some() };
            }
            (JobKind::Zero { segment }, Ok(_)) => {
                self.end_zeroing(segment, |open, to| open.zeroed_to = to);
            }
            (JobKind::Head(head), Ok(_)) => {
                assert!(head.proven_lsn >= self.head.proven_lsn, "HEAD's fields only grow");
                self.closed = head.state == State::Closed;
                self.head = head;
                self.head_replaced();
            }
            (JobKind::Remove, outcome) => self.removed(outcome.map(|_| ())),
            // No promise rests on HEAD, and the old one stays true: a full disk, or a want of descriptors, may
            // keep it from being replaced. It is tried again when HEAD is next due; until then an open reads more.
            (JobKind::Head(head), Err(error)) if error.is_no_space() || error.changed_nothing() => {
                self.counters.errors += 1;
                self.head_behind_since.get_or_insert(now);
                self.closed = head.state == State::Closed;
                self.head_not_replaced(error);
            }
            // Zeros only make the writes that follow quicker.
            (JobKind::Zero { segment }, Err(error)) if error.is_no_space() => {
                self.counters.errors += 1;
                self.end_zeroing(segment, |open, _| open.zeroed_to = open.bytes);
            }
            (JobKind::LinkCheck { round }, Ok(_)) => self.link.confirm(round),
            (kind, Err(error)) => {
                let error = match kind {
                    JobKind::Zero { segment } => self.named(error, segment),
                    JobKind::Prepare { .. }
                    | JobKind::Head(_)
                    | JobKind::LinkCheck { .. }
                    | JobKind::Remove => error,
                };
                let doing = match kind {
                    JobKind::Prepare { .. } => "preparing the next segment",
                    JobKind::Zero { .. } => "zeroing ahead of the log's tail",
                    JobKind::Head(_) => "replacing HEAD",
                    JobKind::Remove => unreachable!("handled before"),
                    JobKind::LinkCheck { .. } => "checking that the segment still has its name",
                };
                self.fail(&Error::io(doing, error));
            }
            (kind, Ok(outcome)) => unreachable!("{kind:?} ended in {outcome:?}"),
        }
    }
}
