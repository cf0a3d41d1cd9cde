//! Reading entries back, in order, on the reader's own thread. What is read is checked like at recovery: a record
//! that comes out is the one that went in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringbolt_disk::{Fs, OpenOptions};

use super::finding::{Finding, look};
use super::names::{self, Names, not_found, read_synced, reading};
use super::scan::{LogFiles, is_truncated_away};
use crate::error::{Code, Error, Result};
use crate::format::entry::{CRC_BYTES, HEAD_BYTES};
use crate::format::log_file_name;
use crate::format::synced::Synced;
use crate::wal::handle::{Opened, Sequences};
use crate::wal::reader::{Chunk, Source};
use crate::wal::window::{Rest, Window};

/// Reads the records of a range of LSNs. Blocks; belongs on a thread of its own. Independent of its handle's life.
pub(crate) struct Reader {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    sequences: Sequences,
    from: u64,
    to: u64,
    end: End,
    /// The sequence due next, where that is known.
    due: Option<u64>,
    /// A file's number and the offset in it of the next record.
    place: (u64, u64),
    /// The file that was read last, still open, and its length then.
    window: Option<(u64, u64, Window)>,
    /// What is left of the window of the file before.
    rest: Option<Rest>,
    is_done: bool,
}

/// How far a reader may go.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Of an open log: everything up to this place was there when it was opened, with LSNs up to the second, in
    /// whatever order; what is behind rises by one.
    Handle { place: (u64, u64), last_lsn: u64 },
    /// Of a directory: to the end of its files, which another process may be writing to.
    Files,
}

/// What to do at a place.
enum Next {
    /// The record there: its LSN and length.
    Take(u64, u64),
    /// Go on there instead.
    Move(u64, u64),
    /// Nothing more is to be read.
    Done,
}

impl Reader {
    /// Of an open log. `to` is durable.
    pub(crate) fn of_handle(
        fs: Arc<dyn Fs>,
        directory: PathBuf,
        sequences: Sequences,
        opened: &Opened,
        from: u64,
        to: u64,
    ) -> Self {
        let end = End::Handle { place: opened.end, last_lsn: opened.last_lsn };
        Self::new(fs, directory, sequences, (from, to), end)
    }

    /// Of a directory, whoever has the log open.
    pub(super) fn of_directory(
        fs: Arc<dyn Fs>,
        directory: &Path,
        sequences: Sequences,
        from: Option<u64>,
        to: u64,
    ) -> Result<Self> {
        let names = Names::look(&*fs, directory)?;
        if !names.is_a_log() {
            return Err(not_found(directory));
        }
        let mut reader = Self::new(fs, directory.to_owned(), sequences, (from.unwrap_or(1), to), End::Files);
        reader.start(from.is_some())?;
        Ok(reader)
    }

    fn new(
        fs: Arc<dyn Fs>,
        directory: PathBuf,
        sequences: Sequences,
        (from, to): (u64, u64),
        end: End,
    ) -> Self {
        let (place, is_done) = ((u64::MAX, 0), from > to);
        Self { fs, directory, sequences, from, to, end, due: None, place, window: None, rest: None, is_done }
    }

    /// Where to begin: the newest file that does not begin above the first LSN asked for, where the sequences rise;
    /// else the oldest. Found by halving: in a long log most files are not even opened.
    fn start(&mut self, is_asked: bool) -> Result<()> {
        let numbers = self.numbers()?;
        let Some(&oldest) = numbers.first() else {
            return Err(self.damaged_file(0, "SYNCED is there, and no file of the log is"));
        };
        self.place = (oldest, 0);
        if self.sequences == Sequences::Any {
            return Ok(());
        }
        let first = self.first_lsn(oldest)?.filter(|&first| is_asked && first > self.from);
        if let Some(first) = first {
            return Err(self.truncated(first));
        }
        let (mut low, mut high) = (0, numbers.len());
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            // A file that does not begin with a record says nothing: then reading begins before it, and meets it.
            match self.first_lsn(numbers[middle])? {
                Some(first) if first <= self.from => low = middle,
                _ => high = middle,
            }
        }
        self.place = (numbers[low], 0);
        // The first file of all begins with sequence 0, also where nothing is left in it.
        self.due = (numbers[low] == 0).then_some(0);
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        Ok(Names::look(&*self.fs, &self.directory)?.files)
    }

    /// The LSN that a file begins with; `None` where it does not begin with a record.
    fn first_lsn(&self, number: u64) -> Result<Option<u64>> {
        let Some((bytes, mut window)) = self.open(number)? else { return Ok(None) };
        Ok(match look(&*self.fs, &mut window, 0, bytes, None)? {
            Finding::Record { sequence, .. } => Some(sequence + 1),
            _ => None,
        })
    }

    /// A file as it is now; `None` where there is none.
    fn open(&self, number: u64) -> Result<Option<(u64, Window)>> {
        let path = self.directory.join(log_file_name(number));
        let bytes = match self.fs.open(&path, OpenOptions::READ) {
            Ok(file) => self.fs.len(&file).map_err(reading)?,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(reading(error)),
        };
        match Window::open(&*self.fs, &path, bytes, false) {
            Ok(window) => Ok(Some((bytes, window))),
            // Truncated away between the two.
            Err(error) if self.fs.stat(&path).map_err(reading)?.is_some() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Read records into `chunk` until it has about `bytes`. Where this fails, the place stays before what failed.
    fn fill(&mut self, chunk: &mut Chunk, bytes: usize) -> Result<()> {
        if self.place.0 == u64::MAX {
            self.start(true)?;
        }
        while !self.is_done {
            let (number, offset) = self.place;
            if self.is_at_the_end() {
                self.is_done = true;
                break;
            }
            let (len, mut window) = match self.window.take() {
                Some((open, len, window)) if open == number => (len, window),
                _ => match self.open(number)? {
                    Some((len, window)) => (len, window.following(self.rest.take())),
                    None => return Err(self.missing(number)?),
                },
            };
            let next = self.next_at(number, offset, len, &mut window)?;
            match next {
                Next::Done => self.is_done = true,
                Next::Move(number, offset) => {
                    self.rest = Some(window.close());
                    self.place = (number, offset);
                    continue;
                }
                Next::Take(lsn, record) => {
                    let is_wanted = (self.from..=self.to).contains(&lsn);
                    let place = (lsn, offset, record);
                    if is_wanted && !push_body(&*self.fs, chunk, &mut window, place, bytes)? {
                        self.window = Some((number, len, window));
                        break;
                    }
                    self.due = Some(lsn);
                    self.place = (number, offset + record);
                }
            }
            self.window = Some((number, len, window));
        }
        Ok(())
    }

    /// Whether nothing that is asked for can stand at the place or behind it.
    fn is_at_the_end(&self) -> bool {
        let is_past = |after: u64| after > self.to;
        match (self.sequences, self.end) {
            (Sequences::Strict, _) => self.due.is_some_and(|due| is_past(due + 1)),
            (Sequences::Any, End::Handle { place, last_lsn }) if self.place >= place => {
                is_past(self.due.filter(|_| self.place > place).map_or(last_lsn + 1, |due| due + 1))
            }
            (Sequences::Any, _) => false,
        }
    }

    fn next_at(&self, number: u64, offset: u64, len: u64, window: &mut Window) -> Result<Next> {
        let due = self.due.filter(|_| self.sequences == Sequences::Strict);
        match look(&*self.fs, window, offset, len.saturating_sub(offset), due)? {
            Finding::Record { sequence, bytes } => Ok(Next::Take(sequence + 1, bytes)),
            Finding::End => self.end_of(number, offset),
            Finding::Bad(reason) => self.bad(number, offset, &reason),
            finding => Err(self.files()?.refused_at(number, offset, finding)),
        }
    }

    /// A file ends: it may have grown meanwhile, and if not, the log goes on in the next.
    fn end_of(&self, number: u64, offset: u64) -> Result<Next> {
        // In this order: what SYNCED vouches for was in the files before it said so, and once there is a next file, this
        // one does not grow any more.
        let synced = self.synced()?.filter(|&synced| synced > Synced { file: number, offset });
        let numbers = self.numbers()?;
        match self.open(number)? {
            Some((len, _)) if len > offset => Ok(Next::Move(number, offset)),
            Some(_) if synced.is_some_and(|synced| synced.file == number) => self.lost_end(number, offset),
            None if numbers.contains(&(number + 1)) => self.behind_a_gone(number),
            Some(_) if numbers.contains(&(number + 1)) => Ok(Next::Move(number + 1, 0)),
            Some(_)
                if matches!(self.end, End::Files) && numbers.last() == Some(&number) && synced.is_none() =>
            {
                Ok(Next::Done)
            }
            _ => Err(self.missing(number + 1)?),
        }
    }

    /// A file was truncated away behind the reader's back; it may have grown before that.
    fn behind_a_gone(&self, number: u64) -> Result<Next> {
        let next = self.due.map(|due| due + 1).filter(|_| self.sequences == Sequences::Strict);
        match (next, self.first_lsn(number + 1)?) {
            (Some(next), Some(first)) if first > next => Err(self.truncated(first)),
            _ => Ok(Next::Move(number + 1, 0)),
        }
    }

    /// A file ends before the place in it that SYNCED names.
    fn lost_end(&self, number: u64, offset: u64) -> Result<Next> {
        let files = self.files()?;
        let Some(index) = files.files.iter().position(|file| file.number == number) else {
            return Err(self.missing(number)?);
        };
        match files.lost_end(index, offset) {
            Some(reason) => Err(files.damaged(index, offset, self.due, None, &reason)),
            None => Ok(Next::Move(number, offset)),
        }
    }

    /// What is not a record is damage, or, at the end of a log that somebody else writes, not whole yet.
    fn bad(&self, number: u64, offset: u64, reason: &str) -> Result<Next> {
        // SYNCED and the lengths first, the place again after them: a record that they vouch for was whole by then.
        let files = self.files()?;
        let Some(index) = files.files.iter().position(|file| file.number == number) else {
            return Err(self.missing(number)?);
        };
        if let Some((len, mut window)) = self.open(number)?
            && let Finding::Record { .. } =
                look(&*self.fs, &mut window, offset, len.saturating_sub(offset), None)?
        {
            return Ok(Next::Move(number, offset));
        }
        let damage = match files.damage(index, offset, self.due) {
            Err(error) if is_truncated_away(&*self.fs, &self.directory, number, &error)? => {
                return Err(self.missing(number)?);
            }
            damage => damage?,
        };
        match (self.end, damage) {
            (End::Files, None) => Ok(Next::Done),
            (_, damage) => {
                let proof = damage.map(|(proof, _)| format!(", and {proof}")).unwrap_or_default();
                Err(files.damaged(index, offset, self.due, None, &format!("{reason}{proof}")))
            }
        }
    }

    /// The log as it is now.
    fn files(&self) -> Result<LogFiles<'_>> {
        let synced = self.synced()?;
        let files = LogFiles::open(&*self.fs, &self.directory, self.sequences, &self.numbers()?)?;
        Ok(LogFiles { synced, ..files })
    }

    /// What SYNCED says, where there is one.
    fn synced(&self) -> Result<Option<Synced>> {
        let said = read_synced(&*self.fs, &self.directory)?.transpose();
        said.map_err(|refusal| names::bad_synced(&self.directory, &refusal))
    }

    /// The error for a file that is not there: truncated away, or lost.
    fn missing(&self, number: u64) -> Result<Error> {
        let numbers = self.numbers()?;
        Ok(match numbers.first() {
            Some(&oldest) if oldest > number => self.truncated(self.first_lsn(oldest)?.unwrap_or(self.from)),
            _ => self.damaged_file(number, "the file is missing"),
        })
    }

    fn truncated(&self, first: u64) -> Error {
        truncated(&self.directory, self.due.map_or(self.from, |due| self.from.max(due + 1)), first)
    }

    fn damaged_file(&self, number: u64, reason: &str) -> Error {
        names::damaged_file(&self.directory, number, reason)
    }
}

/// Copy the body of a record into `chunk`, unless that has `bytes` already, or the record does not follow.
pub(super) fn push_body(
    fs: &dyn Fs,
    chunk: &mut Chunk,
    window: &mut Window,
    (lsn, offset, record): (u64, u64, u64),
    bytes: usize,
) -> Result<bool> {
    if chunk.count == 0 {
        chunk.first_lsn = lsn;
    } else if chunk.bytes.len() >= bytes || lsn != chunk.first_lsn + u64::from(chunk.count) {
        return Ok(false);
    }
    let record = window.get(fs, offset, record as usize)?;
    let body = &record[HEAD_BYTES..record.len() - CRC_BYTES];
    chunk.bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    chunk.bytes.extend_from_slice(body);
    chunk.count += 1;
    Ok(true)
}

impl Source for Reader {
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        let mut chunk = Chunk { first_lsn: 0, count: 0, bytes: Vec::new() };
        match self.fill(&mut chunk, bytes) {
            // What is intact is served; the next call meets the error again.
            Err(error) if chunk.count == 0 => Err(error),
            _ => Ok(Some(chunk).filter(|chunk| chunk.count > 0)),
        }
    }
}

/// The records from LSN `from` on are not all kept. Messages speak of sequences, which are one less.
pub(crate) fn truncated(directory: &Path, from: u64, first_lsn: u64) -> Error {
    let (from, first) = (from.saturating_sub(1), first_lsn.saturating_sub(1));
    let message =
        format!("reading from sequence {from}: the log was truncated and begins with sequence {first}");
    Error::new(Code::WalTruncated, message)
        .path(directory)
        .with(|details| details.first_lsn = Some(first_lsn))
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}, {}..={})", self.directory.display(), self.from, self.to)
    }
}
