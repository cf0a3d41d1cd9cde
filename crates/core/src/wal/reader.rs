//! Reading records back, in order, on the reader's own thread. What is read is checked like at recovery: a
//! record that comes out is the one that went in.
//!
//! A log that is being written changes under its reader, who holds no lock. So nothing that is not a valid frame is
//! believed at first sight:
//!
//! ```text
//!   no valid frame at P ──▶ read HEAD, open the file anew, look at P ──▶ a frame after all ──▶ go on
//!                             │                        │
//!                             ▼                        ▼ still none
//!        begins above what is due: truncated   judge the rest of the log ──▶ nothing proves more: the end, for now
//!                                                      │
//!                                                      ▼ something proves that a record is missing at P
//!                                              HEAD and P once more: it was there before its proof ──▶ damage
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringbolt_disk::Fs;

use crate::error::{Code, Error, Result};
use crate::format::frame::{HEADER_BYTES, Held, Kind, RECORD_PREFIX_BYTES};
use crate::format::head::Head;
use crate::format::{GRAIN, Refusal, segment_name};
use crate::wal::handle::Opened;
use crate::wal::scan::{self, Chain, Finding};
use crate::wal::survey::{MISSING, Survey};
use crate::wal::window::{Rest, Window};

/// A writer that makes progress all the time could keep a reader in doubt. After so many looks it is told.
const LOOKS_MAX: u32 = 16;

/// Read a log without its lock and without changing a byte, also while another process writes to it: the records
/// `from..=to`, without `from` all that are kept, without `to` all there are, the newest of them perhaps not
/// durable yet. Ends behind the last whole frame; asked again, goes on with what was appended since.
///
/// Reads past the page cache, where the file system lets it. A log is written past it by default, and then each
/// write drops what the cache holds of its place, as well as the kernel can: read through the cache, a place
/// read ahead of the writer could go on showing zeros where by now there is a frame, and the reader would drive the
/// writer out of its way again and again. Of a log that is written through the cache such a read has the kernel
/// write out first what is read, which costs its writer little: nothing but the tail is not on its way already.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND`, `ERR_WAL_TRUNCATED` where `from` is below the first LSN kept, `ERR_WAL_DAMAGED` and
/// `ERR_WAL_UNSUPPORTED` for HEAD, `ERR_WAL_IO`. The records are read by the source, which has errors of its own.
pub fn read(
    fs: Arc<dyn Fs>,
    directory: &Path,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<Box<dyn Source>> {
    let head = Survey { fs: &*fs, directory, direct: true }.head_of_a_log()?;
    let next = from.unwrap_or(head.first_lsn);
    if next < head.first_lsn {
        return Err(truncated(directory, next, head.first_lsn));
    }
    Ok(Box::new(Reader {
        directory: directory.to_owned(),
        direct: true,
        chain: Chain::of(&head),
        next,
        to: to.unwrap_or(u64::MAX),
        begins_with_the_log: from.is_none(),
        reach: Reach::Whole { head, end: None },
        place: None,
        window: None,
        rest: None,
        fs,
    }))
}

/// Reads the records of a range of LSNs. Blocks; belongs on a thread of its own. Independent of its handle's
/// life.
pub struct Reader {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    direct: bool,
    chain: Chain,
    /// The LSN due next.
    next: u64,
    to: u64,
    /// Nothing was served yet, and nobody said with which LSN to begin: where the log is truncated meanwhile, it
    /// begins later.
    begins_with_the_log: bool,
    reach: Reach,
    /// The segment and the offset of the next frame; `None` before the first.
    place: Option<(u64, u64)>,
    /// The segment that was read last, still open.
    window: Option<(u64, Window)>,
    /// What is left of the window of the segment before.
    rest: Option<Rest>,
}

/// How far there must be records.
enum Reach {
    /// Up to the last one asked for: it was durable when it was asked for. What is not there is damage.
    Durable,
    /// As far as there are whole frames.
    Whole {
        /// HEAD as it was read last.
        head: Head,
        /// The place of the last end, and whether the rest of the log was looked through for what belies it.
        end: Option<((u64, u64), bool)>,
    },
}

/// What a place came to.
enum Met {
    Frame,
    /// The last whole frame is behind us.
    End,
}

/// Why a place was looked at again.
#[derive(Clone, Copy)]
struct Doubt {
    /// Where the damage is said to be, once that was looked into.
    place: Option<(Option<u64>, Option<u64>)>,
    /// HEAD's incarnation then: a new owner may have judged differently.
    incarnation: Option<u32>,
    looks: u32,
}

/// Records in order, a chunk at a time: whatever format, whichever range. Blocks; belongs on a thread of its own.
pub trait Source: Send + fmt::Debug {
    /// The next records, about `bytes` of them (one at least), or `None` at the end. Everything before damage is
    /// served before the error. What a log has grown by since, a source that has no other end serves when it is
    /// asked again.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` at a record that is not what was written, `ERR_WAL_IO` where the disk will not read.
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>>;

    /// Go on up to `to`, which has become durable meanwhile: for who follows an open log. Other sources end where they
    /// end.
    fn extend(&mut self, to: u64) {
        let _ = to;
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        (**self).next(bytes)
    }

    fn extend(&mut self, to: u64) {
        (**self).extend(to);
    }
}

/// Consecutive records.
#[derive(Debug)]
pub struct Chunk {
    /// The LSN of the first.
    pub first_lsn: u64,
    /// How many.
    pub count: u32,
    /// Each behind its length as a little-endian u32.
    pub bytes: Vec<u8>,
}

impl Source for Reader {
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        if self.next > self.to {
            return Ok(None);
        }
        let mut chunk = Chunk { first_lsn: self.next, count: 0, bytes: Vec::new() };
        match self.fill(&mut chunk, bytes) {
            // What is intact is served; the next call meets the error again.
            Ok(()) | Err(_) if chunk.count > 0 => Ok(Some(chunk)),
            Ok(()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn extend(&mut self, to: u64) {
        self.to = self.to.max(to);
        if let Some((_, window)) = &mut self.window {
            window.forget();
        }
    }
}

impl Reader {
    /// Of an open log: everything asked for is durable.
    pub(crate) fn new(fs: Arc<dyn Fs>, directory: PathBuf, log: &Opened, from: u64, to: u64) -> Self {
        let chain = Chain {
            log_id: log.log_id,
            incarnation_max: log.incarnation,
            next_lsn: None,
            previous_crc: None,
            incarnation: 0,
        };
        Self {
            fs,
            directory,
            direct: log.direct_io,
            chain,
            next: from,
            to,
            begins_with_the_log: false,
            reach: Reach::Durable,
            place: None,
            window: None,
            rest: None,
        }
    }

    /// Read frames into `chunk` until it has about `bytes`, or there are no more. Where this fails, the place stays
    /// before what failed.
    fn fill(&mut self, chunk: &mut Chunk, bytes: usize) -> Result<()> {
        let mut doubt: Option<Doubt> = None;
        while self.next <= self.to && (chunk.count == 0 || chunk.bytes.len() < bytes) {
            let error = match self.pass(chunk, doubt.is_some()) {
                Ok(Met::Frame) => {
                    doubt = None;
                    continue;
                }
                Ok(Met::End) => return Ok(()),
                Err(error) if is_doubtful(&error) => error,
                Err(error) => return Err(error),
            };
            let place = (error.segment, error.offset);
            let incarnation = self.incarnation();
            let looks = doubt.map_or(0, |doubt| doubt.looks) + 1;
            let is_certain = match (&self.reach, doubt) {
                (_, None) => false,
                (Reach::Durable, Some(_)) => true,
                (Reach::Whole { .. }, Some(doubt)) => {
                    doubt.place == Some(place) && doubt.incarnation == incarnation || looks > LOOKS_MAX
                }
            };
            if is_certain {
                return Err(error);
            }
            // The first look went no further than the place itself.
            let place = doubt.is_some().then_some(place);
            doubt = Some(Doubt { place, incarnation, looks });
            self.look_at_head(error)?;
        }
        Ok(())
    }

    fn incarnation(&self) -> Option<u32> {
        match &self.reach {
            Reach::Durable => None,
            Reach::Whole { head, .. } => Some(head.incarnation),
        }
    }

    /// Something is not there or not what it should be. Before that is told: does HEAD say that it was truncated?
    /// And what was read of the file is forgotten.
    fn look_at_head(&mut self, met: Error) -> Result<()> {
        self.window = None;
        let survey = Survey { fs: &*self.fs, directory: &self.directory, direct: self.direct };
        let Some(head) = survey.head()? else { return Err(met) };
        if head.log_id != self.chain.log_id {
            let reason = format!("HEAD is of log {} now, expected {}", head.log_id, self.chain.log_id);
            return Err(survey.without_head(&reason));
        }
        if head.first_lsn > self.next {
            if !self.begins_with_the_log {
                return Err(truncated(&self.directory, self.next, head.first_lsn));
            }
            self.next = head.first_lsn;
            self.place = None;
        }
        if self.place.is_none_or(|(segment, _)| segment < head.oldest_segment) {
            // Or its segment was sealed and removed while we were at its end: what is due begins a later one.
            self.place = None;
            self.chain = Chain { incarnation: self.chain.incarnation, ..Chain::of(&head) };
        }
        if let Reach::Whole { head: known, .. } = &mut self.reach {
            self.chain.incarnation_max = head.incarnation;
            *known = head;
        }
        Ok(())
    }

    /// Take the records of the next frame. `is_fresh` where this place was looked at before, and HEAD since.
    fn pass(&mut self, chunk: &mut Chunk, is_fresh: bool) -> Result<Met> {
        let (segment, offset) = match self.place {
            Some(place) => place,
            None => self.begin()?,
        };
        let mut window = match self.window.take() {
            Some((open, window)) if open == segment => window,
            _ => self.open(segment)?.following(self.rest.take()),
        };
        let held = match self.chain.look(&*self.fs, &mut window, segment, offset)? {
            Finding::Frame(held) => held,
            finding if is_fresh && matches!(self.reach, Reach::Whole { .. }) => {
                return self.judge(segment, offset, finding);
            }
            Finding::Bad(reason) | Finding::Damage(reason) => {
                return Err(self.damaged(segment, offset, &reason));
            }
            Finding::Unsupported(refusal) => {
                let path = self.directory.join(segment_name(segment));
                return Err(scan::unsupported_at(&path, Some(offset), &refusal));
            }
        };
        if self.chain.next_lsn.is_none() && held.header.first_lsn > self.next {
            let reason = format!("the segment begins with LSN {}", held.header.first_lsn);
            return Err(self.damaged(segment, offset, &reason));
        }
        let end = held.header.padded_end(offset);
        let end = end.ok_or_else(|| self.damaged(segment, offset, "the frame does not end"))?;
        self.collect(&mut window, (segment, offset), &held, chunk)?;
        self.chain.pass(&held);
        self.place = Some(if held.header.kind == Kind::Seal {
            self.rest = Some(window.close());
            (segment + 1, GRAIN)
        } else {
            self.window = Some((segment, window));
            (segment, end)
        });
        self.begins_with_the_log &= chunk.count == 0;
        Ok(Met::Frame)
    }

    /// There is no valid frame, and HEAD was read before it was found so: is this the end of the log, or is something
    /// missing?
    fn judge(&mut self, segment: u64, offset: u64, finding: Finding) -> Result<Met> {
        let Reach::Whole { head, end } = &mut self.reach else { unreachable!("what is durable has no end") };
        // To look through the rest of the log costs its reading. Once is enough for a place; and where the log has
        // grown since the last end its writer is at work, and will have more to say about this one.
        let is_plain = matches!(finding, Finding::Bad(_));
        let due = self.chain.next_lsn.unwrap_or(head.first_lsn);
        if is_plain && head.proven_lsn < due {
            match end {
                Some((place, true)) if *place == (segment, offset) => return Ok(Met::End),
                Some((place, _)) if *place != (segment, offset) => {
                    *end = Some(((segment, offset), false));
                    return Ok(Met::End);
                }
                _ => {}
            }
        }
        let survey = Survey { fs: &*self.fs, directory: &self.directory, direct: self.direct };
        let mut numbers = survey.numbers()?;
        numbers.retain(|&number| number >= segment);
        let segments = survey.check_segments(head, segment, &numbers)?;
        survey.log_files(head, &segments).judge(&self.chain, 0, offset, finding)?;
        *end = Some(((segment, offset), true));
        Ok(Met::End)
    }

    /// Copy what is asked for out of a valid frame.
    fn collect(
        &mut self,
        window: &mut Window,
        (segment, offset): (u64, u64),
        held: &Held,
        chunk: &mut Chunk,
    ) -> Result<()> {
        let header = &held.header;
        if header.kind == Kind::Seal || header.last_lsn() < self.next {
            return Ok(());
        }
        if chunk.count == 0 {
            chunk.first_lsn = self.next;
        }
        let payload = window.get(&*self.fs, offset + HEADER_BYTES as u64, header.payload_bytes as usize)?;
        if header.first_lsn == self.next && header.last_lsn() <= self.to {
            chunk.bytes.extend_from_slice(payload);
            chunk.count += header.count;
            self.next = header.next_lsn();
            return Ok(());
        }
        let records = match header.records(payload) {
            Ok(records) => records,
            // It held a moment ago: the file is changing under us.
            Err(refusal) => return Err(self.damaged(segment, offset, &refusal.to_string())),
        };
        let mut next = self.next;
        for (lsn, record) in (header.first_lsn..=self.to).zip(records) {
            if lsn == next {
                chunk.bytes.reserve(RECORD_PREFIX_BYTES + record.len());
                chunk.bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
                chunk.bytes.extend_from_slice(record);
                chunk.count += 1;
                next += 1;
            }
        }
        self.next = next;
        Ok(())
    }

    /// Where to begin to read: in the newest segment that begins neither above the first record asked for, which is or
    /// will be there or behind it, nor above what is known to be durable. Found by halving: in a long log most segments are not even opened.
    fn begin(&mut self) -> Result<(u64, u64)> {
        let survey = Survey { fs: &*self.fs, directory: &self.directory, direct: self.direct };
        let mut numbers = survey.numbers()?;
        if let Reach::Whole { head, .. } = &self.reach {
            // Older ones are left over from a truncation that was interrupted.
            numbers.retain(|&number| number >= head.oldest_segment);
            if numbers.first().is_none_or(|&oldest| oldest > head.oldest_segment) {
                return Err(self.damaged(head.oldest_segment, 0, MISSING));
            }
        }
        // Beyond what is known to be durable, a segment that begins well may follow one whose end was lost, and is not of the
        // log then: so it is walked to, not jumped to.
        let known = match &self.reach {
            Reach::Durable => self.next,
            Reach::Whole { head, .. } => self.next.min(head.proven_lsn),
        };
        let (mut low, mut high) = (0, numbers.len());
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            // A segment whose first frame is not valid says nothing: the next one that does decides. Where none
            // does, it is the one without frames at the end, or the read runs into what is wrong and tells.
            let mut begins = None;
            for (index, &number) in numbers.iter().enumerate().take(high).skip(middle) {
                begins = self.first_lsn(number)?.map(|first_lsn| (index, first_lsn));
                if begins.is_some() {
                    break;
                }
            }
            match begins {
                Some((index, first_lsn)) if first_lsn <= known => low = index,
                _ => high = middle,
            }
        }
        let Some(&number) = numbers.get(low) else {
            let reason = "there is no segment any more";
            return Err(scan::damaged(&self.directory, None, self.next, self.to, reason));
        };
        if number == 1 {
            self.chain.next_lsn = Some(1);
            self.chain.previous_crc = Some(0);
        }
        Ok((number, GRAIN))
    }

    /// The LSN that a segment begins with; `None` where its header or its first frame is not valid.
    fn first_lsn(&self, segment: u64) -> Result<Option<u64>> {
        let mut window = match self.open(segment) {
            Ok(window) => window,
            Err(error) if matches!(error.code, Code::WalDamaged | Code::WalUnsupported) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match self.chain.look(&*self.fs, &mut window, segment, GRAIN)? {
            Finding::Frame(held) => Some(held.header.first_lsn),
            Finding::Bad(_) | Finding::Damage(_) | Finding::Unsupported(_) => None,
        })
    }

    fn open(&self, segment: u64) -> Result<Window> {
        let survey = Survey { fs: &*self.fs, directory: &self.directory, direct: self.direct };
        match survey.segment(&self.chain.log_id, segment)? {
            Ok(found) => {
                match Window::open(&*self.fs, &survey.path(segment), found.bytes, self.direct) {
                    // Gone since its header was read: as if it had not been there.
                    Err(error) if error.is_not_found() => Err(self.damaged(segment, 0, MISSING)),
                    opened => opened,
                }
            }
            Err(refusal @ Refusal::Unsupported { .. }) => {
                Err(scan::unsupported_at(&survey.path(segment), Some(0), &refusal))
            }
            Err(refusal) => Err(self.damaged(segment, 0, &refusal.to_string())),
        }
    }

    fn damaged(&self, segment: u64, offset: u64, reason: &str) -> Error {
        let path = self.directory.join(segment_name(segment));
        scan::damaged(&path, Some((segment, offset)), self.next, self.to, reason)
    }
}

/// Whether a log that is being written can show this while it is sound. An error of the disk is none of it, but for
/// a file that went between a listing and its opening.
fn is_doubtful(error: &Error) -> bool {
    match error.code {
        Code::WalDamaged | Code::WalUnsupported => true,
        _ => error.is_not_found(),
    }
}

/// The error for records that are not kept any more.
pub(crate) fn truncated(directory: &Path, from: u64, first_lsn: u64) -> Error {
    let message = format!("reading from LSN {from}: the log was truncated and begins with LSN {first_lsn}");
    Error::new(Code::WalTruncated, message)
        .path(directory)
        .with(|details| details.first_lsn = Some(first_lsn))
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}, {}..={})", self.directory.display(), self.next, self.to)
    }
}
