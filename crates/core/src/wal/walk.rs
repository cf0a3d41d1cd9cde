//! Going over a log from its beginning to its end, whatever is wrong with it on the way: what there is of frames,
//! and where there should be more. For a check of the whole log, and for saving what is left of one.
//!
//! ```text
//!   frame ─▶ frame ─▶ P: no valid frame
//!                     │ HEAD and P once more: the log may be written just now
//!                     ├─ nothing proves that there was more ─▶ the end: clean, or a torn tail
//!                     └─ HEAD does, or a later header ─▶ damage
//!                          ├─ its header holds ─▶ these records are lost; on behind it, in the chain
//!                          └─ it does not ─▶ a gap, up to the next frame that is of this log: a stale one, which a
//!                                            recovery had cut and whose zeroing a crash undid, is not
//! ```
//!
//! Stale frames stand at the end only: whatever is appended goes over them. So behind a gap a frame counts where its
//! incarnation is not lower than the one before the gap, and it or a later one says that what is missing was durable
//! (what a recovery cut was built while that was not), or HEAD says that the log went so far. And where HEAD is of a
//! later incarnation and proves less, the opening that wrote it had cut the frame.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringbolt_disk::Fs;

use crate::error::{Code, Result};
use crate::format::frame::{HEADER_BYTES, Held, Kind};
use crate::format::head::{Head, State};
use crate::format::{GRAIN, LogId, Refusal};
use crate::wal::report::{Damage, Torn};
use crate::wal::scan::{Chain, Finding, Found};
use crate::wal::survey::{MISSING, Survey};
use crate::wal::window::Window;

/// How often files may go while they are looked at.
const RETRIES_MAX: u32 = 1000;

/// What a walk comes by.
#[derive(Debug)]
pub(crate) enum Step {
    /// A frame that is whole, and the log's.
    Frame(Place),
    /// A place where something is missing or wrong.
    Damage(Damage),
    /// A place that a later version wrote.
    Unsupported(Damage),
    /// The log was truncated meanwhile, beyond this place: it begins anew with a later segment.
    Restarted,
}

/// Where a frame is, and its header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) held: Held,
}

/// Goes over a log, step by step.
pub(crate) struct Walk {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    /// As it was read last. Where none is whole, one that demands nothing.
    pub(crate) head: Head,
    /// The first LSN that was kept when this began, or began anew.
    pub(crate) first_lsn: u64,
    /// Why there is no HEAD to go by.
    pub(crate) headless: Option<String>,
    /// The segments from this one on.
    segments: Vec<Found>,
    /// What is wrong with the headers of some of them.
    faults: Vec<(u64, Refusal)>,
    chain: Chain,
    /// Where the next frame is due.
    place: (u64, u64),
    window: Option<(u64, Window)>,
    gap: Option<Gap>,
    steps: VecDeque<Step>,
    is_over: bool,
    retries: u32,
    pub(crate) torn: Option<Torn>,
    /// The segment that was begun last.
    entered: u64,
    /// How many there were since the beginning.
    pub(crate) segments_seen: u64,
    /// Bytes of segments that are behind us, and of all of them as they were at the beginning.
    passed: u64,
    total: u64,
    /// The newest LSN that anything says was durable, or was found.
    pub(crate) expected_lsn: u64,
    /// The size of the largest segment seen.
    pub(crate) segment_bytes: u64,
}

/// A place behind which nothing is known until the next frame.
#[derive(Debug)]
struct Gap {
    place: (u64, u64),
    /// The LSN due there.
    due: u64,
    /// At least up to here there were records.
    last_lsn: u64,
    reason: String,
    is_unsupported: bool,
}

/// Why a bad place is not the end of the log.
struct Proof {
    reason: String,
    last_lsn: u64,
}

impl Walk {
    /// Look at the directory.
    ///
    /// # Errors
    /// `ERR_WAL_NOT_FOUND` where there is no log; `ERR_WAL_UNSUPPORTED` where HEAD is of a later version, or where
    /// there is no HEAD and a segment is not ours; `ERR_WAL_IO`.
    pub(crate) fn begin(fs: Arc<dyn Fs>, directory: &Path) -> Result<Self> {
        let survey = Survey { fs: &*fs, directory, direct: true };
        let (head, headless) = match survey.head_of_a_log() {
            Ok(head) => (head, None),
            Err(error) if error.code == Code::WalDamaged => {
                let reason = error.reason.clone().unwrap_or_default();
                (assumed_head(&survey)?, Some(reason))
            }
            Err(error) => return Err(error),
        };
        let mut walk = Self {
            directory: directory.to_owned(),
            first_lsn: head.first_lsn,
            headless,
            segments: Vec::new(),
            faults: Vec::new(),
            chain: Chain::of(&head),
            place: (0, GRAIN),
            window: None,
            gap: None,
            steps: VecDeque::new(),
            is_over: false,
            retries: 0,
            torn: None,
            entered: 0,
            segments_seen: 0,
            passed: 0,
            total: 0,
            expected_lsn: head.proven_lsn,
            segment_bytes: 0,
            head,
            fs,
        };
        walk.start();
        walk.look_at_segments()?;
        walk.total = walk.segments.iter().map(|segment| segment.bytes).sum();
        Ok(walk)
    }

    /// The next step; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.advance() {
                // A segment that was listed has gone: as likely as not it was truncated.
                Err(error) if error.is_not_found() && self.retries < RETRIES_MAX => {
                    self.retries += 1;
                    self.look_again()?;
                }
                advanced => advanced?,
            }
        }
    }

    /// The payload of a frame that the last step or the one before it came by; nothing where its segment has gone since.
    pub(crate) fn payload(&mut self, place: &Place) -> Result<&[u8]> {
        if !self.open(place.segment)? {
            return Ok(&[]);
        }
        let (at, len) = (place.offset + HEADER_BYTES as u64, place.held.header.payload_bytes as usize);
        let (_, window) = self.window.as_mut().expect("it was opened a moment ago");
        window.get(&*self.fs, at, len)
    }

    /// Bytes behind us, and in all.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let passed = if self.is_over { self.total } else { self.passed + self.place.1 };
        (passed.min(self.total), self.total)
    }

    fn survey(&self) -> Survey<'_> {
        Survey { fs: &*self.fs, directory: &self.directory, direct: true }
    }

    /// At the oldest segment that HEAD says is kept.
    fn start(&mut self) {
        let oldest = self.head.oldest_segment;
        self.place = (oldest, GRAIN);
        self.first_lsn = self.head.first_lsn;
        let is_first = oldest == 1;
        self.chain = Chain {
            next_lsn: is_first.then_some(1),
            previous_crc: is_first.then_some(0),
            incarnation: self.chain.incarnation,
            ..Chain::of(&self.head)
        };
        self.gap = None;
        self.entered = 0;
        self.segments_seen = 0;
    }

    /// See which segments there are from this one on. One whose header is not whole is as long as its file: its frames
    /// tell by themselves whose they are.
    fn look_at_segments(&mut self) -> Result<()> {
        let survey = Survey { fs: &*self.fs, directory: &self.directory, direct: true };
        let (mut segments, mut faults) = (Vec::new(), Vec::new());
        for number in survey.numbers()?.into_iter().filter(|&number| number >= self.place.0) {
            let refusal = match survey.segment(&self.head.log_id, number)? {
                Ok(found) => {
                    self.segment_bytes = self.segment_bytes.max(found.bytes);
                    segments.push(found);
                    continue;
                }
                Err(refusal) => refusal,
            };
            let len = survey.header(number)?.1;
            if len == 0 && refusal.to_string() == MISSING {
                continue;
            }
            // A grain more than there is, which reads as zeros: the last one of a segment is not a batch's.
            let is_ours = !matches!(refusal, Refusal::Unsupported { .. });
            let bytes = if is_ours { len.next_multiple_of(GRAIN) + GRAIN } else { GRAIN };
            segments.push(Found { number, bytes, is_cut: false });
            faults.push((number, refusal));
        }
        self.segments = segments;
        self.faults = faults;
        Ok(())
    }

    /// Before something is called damaged: HEAD and the segments once more, and nothing that was read of them is
    /// believed any more. `true` where the log was truncated beyond this place.
    fn look_again(&mut self) -> Result<bool> {
        self.window = None;
        if self.headless.is_none() {
            match self.survey().head() {
                Ok(Some(head)) if head.log_id == self.head.log_id => {
                    if self.chain.incarnation_max == self.head.incarnation {
                        self.chain.incarnation_max = head.incarnation;
                    }
                    self.expected_lsn = self.expected_lsn.max(head.proven_lsn);
                    self.head = head;
                }
                Err(error) if error.code == Code::WalIo => return Err(error),
                // It was there; what it said then is what there is to go by.
                Ok(_) | Err(_) => {}
            }
        }
        let is_truncated = self.head.oldest_segment > self.place.0;
        if is_truncated {
            self.start();
            self.steps.push_back(Step::Restarted);
        }
        self.look_at_segments()?;
        Ok(is_truncated)
    }

    fn found(&self, number: u64) -> Option<Found> {
        let index = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        Some(self.segments[index])
    }

    fn open(&mut self, number: u64) -> Result<bool> {
        if self.window.as_ref().is_some_and(|(open, _)| *open == number) {
            return Ok(true);
        }
        let Some(found) = self.found(number) else { return Ok(false) };
        match Window::open(&*self.fs, &self.survey().path(number), found.bytes, true) {
            Ok(window) => {
                let rest = self.window.take().map(|(_, before)| before.close());
                self.window = Some((number, window.following(rest)));
            }
            // Gone since it was listed.
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// The LSN that is due.
    fn due(&self) -> u64 {
        let known = self.gap.as_ref().map(|gap| gap.due).or(self.chain.next_lsn);
        known.unwrap_or(self.head.first_lsn)
    }

    fn advance(&mut self) -> Result<()> {
        let (number, offset) = self.place;
        if !self.open(number)? {
            // Twice: a HEAD that was read before the segment went does not know why.
            for _ in 0..2 {
                if self.look_again()? || self.open(number)? {
                    return Ok(());
                }
            }
            return self.pass_missing(number);
        }
        let found = self.found(number).expect("it is open");
        if self.entered != number {
            self.entered = number;
            self.segments_seen += 1;
            let later = self.faults.iter().find(|(faulty, refusal)| {
                *faulty == number && matches!(refusal, Refusal::Unsupported { .. })
            });
            match later.map(|(_, refusal)| refusal.to_string()) {
                Some(reason) => self.gap_at((number, 0), self.due(), &reason, true),
                None => self.tell_fault(number),
            }
        }
        if offset + GRAIN > found.bytes {
            // Without a seal: what would have told is lost too.
            self.gap_at((number, offset), self.due(), "the segment is not sealed", false);
            self.leave(number + 1);
            return Ok(());
        }
        match self.look()? {
            Finding::Frame(held) => self.meet(held),
            finding if self.gap.is_some() => self.pass_in_gap(&found, finding),
            _ => self.judge(&found),
        }
    }

    fn look(&mut self) -> Result<Finding> {
        let (number, offset) = self.place;
        self.open(number)?;
        let Some((_, window)) = &mut self.window else { return Ok(Finding::Bad(MISSING.to_owned())) };
        self.chain.look(&*self.fs, window, number, offset)
    }

    /// The header at this place, where one holds that is no leftover.
    fn held(&mut self) -> Result<Option<Held>> {
        let (number, offset) = self.place;
        let Some((_, window)) = &mut self.window else { return Ok(None) };
        let held = self.chain.held(&*self.fs, window, number, offset)?;
        Ok(held.filter(|held| !self.chain.is_junk(held)))
    }

    // ---- frames -------------------------------------------------------------------------------------------

    /// A valid frame, which follows what is before it where that is known.
    fn meet(&mut self, held: Held) -> Result<()> {
        let header = held.header;
        if self.gap.is_some() {
            if header.first_lsn < self.due() {
                // It repeats what is behind us: none of the log's.
                self.place.1 = header.padded_end(self.place.1).expect("a valid frame ends in its segment");
                return Ok(());
            }
            if !self.is_of_this_log(&held)? {
                return self.end();
            }
            self.close_gap(header.first_lsn - 1);
        } else if self.chain.next_lsn.is_none()
            && self.headless.is_none()
            && header.first_lsn > self.head.first_lsn
        {
            if self.look_again()? {
                return Ok(());
            }
            let reason = format!("the log begins with LSN {}", header.first_lsn);
            self.damage(self.place, (self.head.first_lsn, header.first_lsn - 1), reason);
        }
        self.take(held);
        Ok(())
    }

    /// Whether a frame behind a gap was not cut long ago: it or a later one proves that what is missing was durable.
    fn is_of_this_log(&mut self, held: &Held) -> Result<bool> {
        let due = self.due();
        let is_older = held.header.incarnation < self.head.incarnation;
        if self.headless.is_none() && is_older && held.header.last_lsn() > self.head.proven_lsn {
            // The opening that HEAD is of found the log to end before it, and said so.
            return Ok(false);
        }
        if held.header.durable_lsn >= due || self.head.proven_lsn >= held.header.first_lsn {
            return Ok(true);
        }
        Ok(self.later_proof(due)?.is_some())
    }

    fn take(&mut self, held: Held) {
        let (segment, offset) = self.place;
        self.steps.push_back(Step::Frame(Place { segment, offset, held }));
        self.pass(&held);
    }

    /// Go on behind this frame, in the chain.
    fn pass(&mut self, held: &Held) {
        let header = &held.header;
        self.expected_lsn = self.expected_lsn.max(header.durable_lsn).max(header.last_lsn());
        self.chain.pass(held);
        if header.kind == Kind::Seal {
            self.leave(self.place.0 + 1);
        } else {
            self.place.1 = header.padded_end(self.place.1).expect("its end was checked");
        }
    }

    fn leave(&mut self, next: u64) {
        self.passed += self.found(self.place.0).map_or(0, |segment| segment.bytes);
        self.place = (next, GRAIN);
    }

    // ---- bad places ---------------------------------------------------------------------------------------

    /// No valid frame, for the first time: the end, or damage?
    fn judge(&mut self, found: &Found) -> Result<()> {
        // What the file shows may have been written since it was read, and HEAD since then.
        if self.look_again()? {
            return Ok(());
        }
        let (number, offset) = self.place;
        let mut finding = self.look()?;
        if matches!(finding, Finding::Damage(_) | Finding::Unsupported(_)) {
            // A new owner may have written it since HEAD was read, in an incarnation that HEAD did not know.
            if self.look_again()? {
                return Ok(());
            }
            finding = self.look()?;
        }
        let proof = match finding {
            Finding::Frame(held) => return self.meet(held),
            Finding::Damage(reason) => return self.contradiction(found, reason),
            Finding::Unsupported(refusal) => {
                self.gap_at((number, offset), self.due(), &refusal.to_string(), true);
                return self.skip(found);
            }
            Finding::Bad(reason) => {
                let Some(proof) = self.proof()? else { return self.end() };
                Proof { reason: format!("{reason}, and {}", proof.reason), ..proof }
            }
        };
        // The proof is newer than the look at this place.
        if self.look_again()? {
            return Ok(());
        }
        if let Finding::Frame(held) = self.look()? {
            return self.meet(held);
        }
        if !self.pass_rotten(found, &proof.reason)? {
            let due = self.due();
            self.gap_at((number, offset), due, &proof.reason, false);
            self.gap.as_mut().expect("it was opened").last_lsn = proof.last_lsn;
            return self.skip(found);
        }
        Ok(())
    }

    /// Behind a damaged place, on the way to the next frame.
    fn pass_in_gap(&mut self, found: &Found, finding: Finding) -> Result<()> {
        match finding {
            Finding::Frame(held) => return self.meet(held),
            Finding::Bad(reason) => {
                if let Some(held) = self.held()?
                    && self.chain.check(&held, self.place.1, found.bytes).is_ok()
                    && held.header.first_lsn >= self.due()
                {
                    if !self.is_of_this_log(&held)? {
                        return self.end();
                    }
                    self.close_gap(held.header.first_lsn - 1);
                    self.pass_rotten(found, &reason)?;
                    return Ok(());
                }
            }
            Finding::Damage(reason) => return self.contradiction(found, reason),
            Finding::Unsupported(refusal) => {
                let due = self.due();
                let damage = damage_at(self.place, (due, due), refusal.to_string());
                self.steps.push_back(Step::Unsupported(damage));
            }
        }
        self.skip(found)
    }

    /// A frame whose header holds and whose payload does not: exactly its records are lost. `false` where there is no
    /// such header.
    fn pass_rotten(&mut self, found: &Found, reason: &str) -> Result<bool> {
        let offset = self.place.1;
        let Some(held) = self.held()? else { return Ok(false) };
        let follows = self.chain.next_lsn.is_none_or(|next| next == held.header.first_lsn);
        if self.chain.check(&held, offset, found.bytes).is_err() || !follows {
            return Ok(false);
        }
        let lsns = (held.header.first_lsn, held.header.last_lsn());
        self.damage(self.place, lsns, reason.to_owned());
        self.pass(&held);
        Ok(true)
    }

    /// Every checksum holds, and something contradicts.
    fn contradiction(&mut self, found: &Found, reason: String) -> Result<()> {
        let (place, due) = (self.place, self.due());
        let held = self.held()?;
        if held.is_some_and(|held| held.header.incarnation > self.chain.incarnation_max) {
            // HEAD is older than the log. Told once, here; what the frames say counts.
            self.damage(place, (due, due), reason);
            self.chain.incarnation_max = u32::MAX;
            return Ok(());
        }
        // Valid by itself, and not what follows?
        let alone = Chain { next_lsn: None, previous_crc: None, ..self.chain.clone() };
        let (number, offset) = place;
        let (_, window) = self.window.as_mut().expect("it is open");
        if let Finding::Frame(held) = alone.look(&*self.fs, window, number, offset)?
            && held.header.first_lsn >= due
        {
            self.damage(place, (due, held.header.first_lsn - 1), reason);
            self.take(held);
            return Ok(());
        }
        if self.gap.is_some() {
            self.damage(place, (due, due), reason);
        } else {
            self.gap_at(place, due, &reason, false);
        }
        self.skip(found)
    }

    /// Go on behind a place that is no frame: behind its end, where a header tells it, else with the next grain.
    fn skip(&mut self, found: &Found) -> Result<()> {
        let offset = self.place.1;
        let end = self.held()?.and_then(|held| held.header.padded_end(offset));
        self.place.1 = end.filter(|&end| end <= found.bytes).unwrap_or(offset + GRAIN);
        Ok(())
    }

    /// What proves that this place is not the end of the log.
    fn proof(&mut self) -> Result<Option<Proof>> {
        let (due, proven) = (self.due(), self.head.proven_lsn);
        if proven >= due {
            let reason = format!("HEAD says that LSN {proven} was durable");
            return Ok(Some(Proof { reason, last_lsn: proven }));
        }
        if self.chain.next_lsn.is_none() {
            let reason = "records before this segment were truncated".to_owned();
            return Ok(Some(Proof { reason, last_lsn: due }));
        }
        self.later_proof(due)
    }

    /// The same, from later headers.
    fn later_proof(&self, due: u64) -> Result<Option<Proof>> {
        let proves = |proof: Option<(u64, u64)>| proof.filter(|&(durable, _)| durable >= due);
        let survey = self.survey();
        let files = survey.log_files(&self.head, &self.segments);
        let Some(index) = self.segments.iter().position(|segment| segment.number == self.place.0) else {
            return Ok(None);
        };
        let behind = files.behind(&self.chain, index, self.place.1, &|behind| {
            proves(behind.proof).is_some() || behind.damage.is_some() || behind.unsupported.is_some()
        })?;
        if let Some((durable, first)) = proves(behind.proof) {
            let reason = format!("a later frame says that LSN {durable} was durable");
            return Ok(Some(Proof { reason, last_lsn: first.saturating_sub(1) }));
        }
        let is_more = behind.damage.is_some() || behind.unsupported.is_some();
        Ok(is_more.then(|| Proof { reason: "there is more behind it".to_owned(), last_lsn: due }))
    }

    // ---- what is missing ----------------------------------------------------------------------------------

    fn pass_missing(&mut self, number: u64) -> Result<()> {
        let due = self.due();
        let reason = if self.chain.previous_crc.is_some() && self.gap.is_none() && number > 1 {
            "the segment before it is sealed, and this one is missing"
        } else {
            MISSING
        };
        if self.gap.is_none() {
            self.gap_at((number, 0), due, reason, false);
        } else if self.segments.iter().any(|segment| segment.number > number) {
            self.damage((number, 0), (due, due), MISSING.to_owned());
        }
        match self.segments.iter().map(|segment| segment.number).find(|&later| later > number) {
            Some(later) => self.place = (later, GRAIN),
            None => return self.finish(),
        }
        Ok(())
    }

    fn tell_fault(&mut self, number: u64) {
        let due = self.due();
        let Some((_, refusal)) = self.faults.iter().find(|(faulty, _)| *faulty == number) else { return };
        let damage = damage_at((number, 0), (due, due), refusal.to_string());
        self.steps.push_back(match refusal {
            Refusal::Unsupported { .. } => Step::Unsupported(damage),
            Refusal::NotWhole { .. } | Refusal::Inconsistent { .. } => Step::Damage(damage),
        });
    }

    fn damage(&mut self, place: (u64, u64), lsns: (u64, u64), reason: String) {
        self.steps.push_back(Step::Damage(damage_at(place, lsns, reason)));
    }

    /// From here on nothing is known until the next frame.
    fn gap_at(&mut self, place: (u64, u64), due: u64, reason: &str, is_unsupported: bool) {
        if self.gap.is_none() {
            self.gap = Some(Gap { place, due, last_lsn: 0, reason: reason.to_owned(), is_unsupported });
            self.chain.next_lsn = None;
            self.chain.previous_crc = None;
        }
    }

    fn close_gap(&mut self, last_lsn: u64) {
        let Some(gap) = self.gap.take() else { return };
        let damage = damage_at(gap.place, (gap.due, last_lsn), gap.reason);
        let step = if gap.is_unsupported { Step::Unsupported(damage) } else { Step::Damage(damage) };
        self.steps.push_back(step);
    }

    /// Nothing of the log is behind this place.
    fn end(&mut self) -> Result<()> {
        let (number, offset) = self.place;
        let index = self.segments.iter().position(|segment| segment.number == number);
        if let Some(index) = index {
            let survey = self.survey();
            let files = survey.log_files(&self.head, &self.segments);
            let torn = files.behind(&self.chain, index, offset, &|_| false)?.torn;
            let bytes = torn.iter().map(|extent| extent.to - extent.from).sum();
            self.torn = (bytes > 0).then_some(Torn { segment: number, offset, bytes });
        }
        self.finish()
    }

    /// Tell what is still to be told.
    fn finish(&mut self) -> Result<()> {
        let is_whole =
            |segments: &[Found]| segments.windows(2).all(|pair| pair[1].number == pair[0].number + 1);
        if !is_whole(&self.segments) && self.look_again()? {
            return Ok(());
        }
        let due = self.due();
        if let Some(gap) = &self.gap {
            self.close_gap(self.head.proven_lsn.max(gap.last_lsn));
        }
        let numbers: Vec<u64> = self.segments.iter().map(|segment| segment.number).collect();
        for pair in numbers.windows(2) {
            let (before, number) = (pair[0], pair[1]);
            if number <= self.place.0 {
                continue;
            }
            if number != before + 1 {
                self.damage((before + 1, 0), (due, due), MISSING.to_owned());
            }
            self.tell_fault(number);
        }
        self.is_over = true;
        Ok(())
    }
}

fn damage_at((segment, offset): (u64, u64), lsns: (u64, u64), reason: String) -> Damage {
    let (first_lsn, last_lsn) = (lsns.0, lsns.1.max(lsns.0));
    Damage { segment: Some(segment), offset: Some(offset), first_lsn, last_lsn, reason }
}

/// What to go by without HEAD: the name that most of the segments have, and no demands.
fn assumed_head(survey: &Survey<'_>) -> Result<Head> {
    let numbers = survey.numbers()?;
    let mut ids: Vec<LogId> = Vec::new();
    for &number in &numbers {
        ids.extend(survey.header(number)?.0.ok().map(|header| header.log_id));
    }
    let count = |id: &LogId| ids.iter().filter(|other| *other == id).count();
    // Of several the first: `max_by_key` would take the last.
    let log_id = ids.iter().rev().max_by_key(|id| count(id)).copied().unwrap_or(LogId([0; 16]));
    let oldest_segment = numbers.first().copied().unwrap_or(1);
    Ok(Head {
        state: State::Open,
        log_id,
        oldest_segment,
        first_lsn: 1,
        proven_lsn: 0,
        incarnation: u32::MAX,
    })
}
