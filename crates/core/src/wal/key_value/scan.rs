//! Reading a key-value log's files in order, and what the first bad record means: the rules of docs/KEY-VALUE.md.
//! Reads only; recovery acts on what this finds.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ringbolt_disk::{Fs, OpenOptions};

use super::finding::{Finding, break_reason, look};
use super::names::{Names, damaged_file, reading};
use crate::error::{Code, Error, Result};
use crate::format::entry::RECORD_BYTES_MIN;
use crate::format::log_file_name;
use crate::format::synced::Synced;
use crate::planted::{self, Bug};
use crate::wal::batch::ENTRIES_BYTES_MAX;
use crate::wal::handle::{Check, Sequences};
use crate::wal::scan::Progress;
use crate::wal::window::Window;

/// Between two calls of `progress`.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) number: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// The least and the greatest LSN in it; `None` where it holds no record.
    pub(crate) lsns: Option<(u64, u64)>,
}

/// A log's files, oldest first.
#[derive(Clone)]
pub(crate) struct LogFiles<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) directory: &'a Path,
    pub(crate) sequences: Sequences,
    pub(crate) files: Vec<LogFile>,
    /// What SYNCED says, where there is one.
    pub(crate) synced: Option<Synced>,
}

/// How a log ends.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The index of the file that holds the first bad byte, or the last one.
    pub(crate) index: usize,
    /// Where in it.
    pub(crate) offset: u64,
    /// Whether something stands there, to be cut.
    pub(crate) is_torn: bool,
    /// The LSN due there.
    pub(crate) next_lsn: u64,
    pub(crate) records: u64,
    /// Where the first record is that SYNCED does not vouch for: file and offset.
    pub(crate) unsynced: (usize, u64),
}

impl<'a> LogFiles<'a> {
    /// The files of these numbers; where they were truncated away since they were listed, those that are there now.
    ///
    /// # Errors
    /// `ERR_WAL_IO`.
    pub(crate) fn open(
        fs: &'a dyn Fs,
        directory: &'a Path,
        sequences: Sequences,
        numbers: &[u64],
    ) -> Result<Self> {
        let mut listed = Cow::Borrowed(numbers);
        let files = loop {
            let files = sizes(fs, directory, &listed)?;
            if !files.is_empty() || listed.is_empty() {
                break files;
            }
            // All that was listed is gone: a writer rotated and truncated meanwhile, so there is a newer listing.
            let now = Names::look(fs, directory)?.files;
            if now.first() <= listed.first() {
                break files;
            }
            listed = Cow::Owned(now);
        };
        Ok(Self { fs, directory, sequences, files, synced: None })
    }

    pub(crate) fn path(&self, index: usize) -> PathBuf {
        self.directory.join(log_file_name(self.files[index].number))
    }

    /// The sequence due at the beginning of a file, where that is known without having read the file before it.
    pub(crate) fn first_due(&self, index: usize) -> Option<u64> {
        (self.sequences == Sequences::Strict && self.files[index].number == 0).then_some(0)
    }

    pub(crate) fn window(&self, index: usize) -> Result<Window> {
        Window::open(self.fs, &self.path(index), self.files[index].bytes, false)
    }

    /// What is at `offset` of a file, read through its `window`?
    pub(crate) fn look(
        &self,
        index: usize,
        window: &mut Window,
        offset: u64,
        due: Option<u64>,
    ) -> Result<Finding> {
        let due = due.filter(|_| self.sequences == Sequences::Strict);
        look(self.fs, window, offset, self.files[index].bytes - offset, due)
    }

    /// Read the files in order, note which LSNs each holds, and judge how the log ends.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED`, `ERR_WAL_UNSUPPORTED`, `ERR_WAL_IO`; what `progress` answers.
    pub(crate) fn scan(&mut self, check: Check, progress: Progress<'_>) -> Result<Scan> {
        self.check_numbers()?;
        let (start, mut due, mut records) = self.start(check)?;
        let total = self.files[start..].iter().map(|file| file.bytes).sum();
        let (mut passed, mut told) = (0, 0);
        let mut unsynced = None;
        let mut rest = None;
        for index in start..self.files.len() {
            let mut window = self.window(index)?.following(rest);
            let mut offset = 0;
            due = due.or(self.first_due(index));
            loop {
                if passed + offset >= told {
                    progress(passed + offset, total)?;
                    told = passed + offset + PROGRESS_BYTES;
                }
                match self.look(index, &mut window, offset, due)? {
                    Finding::Record { sequence, bytes } => {
                        if unsynced.is_none() && self.is_unsynced(index, offset + bytes) {
                            unsynced = Some((index, offset));
                        }
                        let lsns = &mut self.files[index].lsns;
                        let (first, last) = lsns.unwrap_or((sequence + 1, sequence + 1));
                        *lsns = Some((first.min(sequence + 1), last.max(sequence + 1)));
                        records += 1;
                        due = Some(sequence + 1);
                        offset += bytes;
                    }
                    Finding::End => break self.check_end(index, offset, due)?,
                    Finding::Bad(reason) => {
                        self.judge(index, offset, due, &reason)?;
                        return Ok(self.end(index, offset, true, records, unsynced));
                    }
                    finding => return Err(self.refused(index, offset, finding)),
                }
            }
            rest = Some(window.close());
            passed += self.files[index].bytes;
        }
        let last = self.files.len() - 1;
        let end = self.files[last].bytes;
        Ok(self.end(last, end, false, records, unsynced))
    }

    fn end(
        &self,
        index: usize,
        offset: u64,
        is_torn: bool,
        records: u64,
        unsynced: Option<(usize, u64)>,
    ) -> Scan {
        let last_lsn = self.files.iter().filter_map(|file| file.lsns).map(|(_, last)| last).max();
        let next_lsn = last_lsn.unwrap_or(0) + 1;
        Scan { index, offset, is_torn, next_lsn, records, unsynced: unsynced.unwrap_or((index, offset)) }
    }

    /// Whether SYNCED does not vouch for a record that ends there.
    fn is_unsynced(&self, index: usize, end: u64) -> bool {
        let place = Synced { file: self.files[index].number, offset: end };
        self.synced.is_none_or(|synced| place > synced)
    }

    /// Files are numbered without gaps: only the front is ever removed.
    pub(crate) fn check_numbers(&self) -> Result<()> {
        match self.missing_file() {
            Some((number, reason)) => Err(damaged_file(self.directory, number, &reason)),
            None => Ok(()),
        }
    }

    /// A file that must be there and is not.
    pub(crate) fn missing_file(&self) -> Option<(u64, String)> {
        let Some(last) = self.files.last() else {
            let synced = self.synced.unwrap_or(Synced { file: 0, offset: 0 });
            return Some((synced.file, "SYNCED is there, and no file of the log is".to_owned()));
        };
        let gap = self.files.windows(2).find(|pair| pair[0].number + 1 != pair[1].number);
        if let Some(gap) = gap {
            return Some((gap[0].number + 1, "the file is missing, and there are later ones".to_owned()));
        }
        let synced = self.synced.filter(|synced| synced.file > last.number)?;
        let offset = synced.offset;
        Some((
            synced.file,
            format!("the file is missing, and SYNCED says that {offset} bytes of it are durable"),
        ))
    }

    /// Where reading begins, the sequence due there, and how many records are before it.
    fn start(&mut self, check: Check) -> Result<(usize, Option<u64>, u64)> {
        let beginning = (0, None, 0);
        let Some(synced) =
            self.synced.filter(|_| check == Check::Tail && self.sequences == Sequences::Strict)
        else {
            return Ok(beginning);
        };
        // The newest file up to SYNCED's that begins with a record, as long as all before it do: each by itself
        // and in order. What SYNCED vouches for in the files before is checked when it is read.
        let mut firsts: Vec<u64> = Vec::new();
        for index in 0..self.files.len() {
            if self.files[index].number > synced.file {
                break;
            }
            let due = self.first_due(index);
            let Finding::Record { sequence, .. } = self.look(index, &mut self.window(index)?, 0, due)? else {
                break;
            };
            if firsts.last().is_some_and(|&before| before >= sequence) {
                return Ok(beginning);
            }
            firsts.push(sequence);
        }
        let Some((&due, before)) = firsts.split_last() else { return Ok(beginning) };
        for (index, pair) in firsts.windows(2).enumerate() {
            self.files[index].lsns = Some((pair[0] + 1, pair[1]));
        }
        Ok((before.len(), Some(due), due - firsts[0]))
    }

    /// What a bad record means: damage is the error, and everything else is torn.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED`, `ERR_WAL_IO`.
    pub(crate) fn judge(&self, index: usize, offset: u64, due: Option<u64>, reason: &str) -> Result<()> {
        match self.damage(index, offset, due)? {
            Some((proof, last_lsn)) if !planted::is(Bug::CutAtDamage) => {
                let reason = format!("{reason}, and {proof}");
                Err(self.damaged(index, offset, due, last_lsn, &reason))
            }
            _ => Ok(()),
        }
    }

    /// What proves that a bad record is damage, and the last LSN concerned where that is known.
    pub(crate) fn damage(
        &self,
        index: usize,
        offset: u64,
        due: Option<u64>,
    ) -> Result<Option<(String, Option<u64>)>> {
        let place = Synced { file: self.files[index].number, offset };
        if let Some(synced) = self.synced.filter(|&synced| synced > place) {
            let Synced { file, offset } = synced;
            return Ok(Some((
                format!("SYNCED says that everything before offset {offset} of file {file} was durable"),
                None,
            )));
        }
        if let Some(later) = self.files[index + 1..].iter().find(|file| file.bytes > 0) {
            let number = later.number;
            return Ok(Some((format!("the log has gone on in file {number}"), None)));
        }
        let from = if self.synced.is_some() {
            // One write has at most 1 MiB, or one record, and the next was not begun before it was synced.
            let claimed = self.claimed_bytes(index, offset)?;
            offset + claimed.max(ENTRIES_BYTES_MAX as u64 + 1)
        } else {
            offset + 1
        };
        let follows = |at: u64, sequence: u64| {
            let Some(due) = due.filter(|_| self.synced.is_some() && self.sequences == Sequences::Strict)
            else {
                return true;
            };
            sequence > due && sequence - due <= (at - offset) / RECORD_BYTES_MIN as u64
        };
        let found = self.find(index, from, follows)?;
        Ok(found.map(|(at, sequence)| {
            (format!("the record at offset {at}, sequence {sequence}, was written after it"), Some(sequence))
        }))
    }

    fn check_end(&self, index: usize, end: u64, due: Option<u64>) -> Result<()> {
        match self.lost_end(index, end) {
            Some(reason) => Err(self.damaged(index, end, due, None, &reason)),
            None => Ok(()),
        }
    }

    /// A file whose records end before the place that SYNCED names has lost some.
    pub(crate) fn lost_end(&self, index: usize, end: u64) -> Option<String> {
        let number = self.files[index].number;
        let synced = self.synced.filter(|synced| synced.file == number && synced.offset > end)?;
        let durable = synced.offset;
        Some(format!("the file ends, and SYNCED says that everything before offset {durable} was durable"))
    }

    /// A break in the sequences is never the mark of a torn write: damage; a sequence above all others: unsupported.
    pub(crate) fn refused(&self, index: usize, offset: u64, finding: Finding) -> Error {
        match finding {
            Finding::Break { sequence, due, .. } => {
                let reason = break_reason(sequence, due);
                self.damaged(index, offset, Some(due), Some(sequence), &reason)
            }
            Finding::Unsupported(refusal) => {
                crate::wal::scan::unsupported_at(&self.path(index), Some(offset), &refusal)
            }
            finding => unreachable!("{finding:?} is judged"),
        }
    }

    /// The same, by the number of the file.
    pub(crate) fn refused_at(&self, number: u64, offset: u64, finding: Finding) -> Error {
        match self.files.iter().position(|file| file.number == number) {
            Some(index) => self.refused(index, offset, finding),
            None => damaged_file(self.directory, number, "the file is missing"),
        }
    }

    pub(crate) fn damaged(
        &self,
        index: usize,
        offset: u64,
        due: Option<u64>,
        last_lsn: Option<u64>,
        reason: &str,
    ) -> Error {
        let LogFile { number, .. } = self.files[index];
        let path = self.path(index);
        let at = format!("file {number} at offset {offset} ({})", path.display());
        let first = due.map_or(String::new(), |due| format!("; sequences from {due} on cannot be served"));
        let message = format!("{at}: {reason}{first}. No byte was changed: restore the file from a copy");
        let first_lsn = due.map_or(1, |due| due + 1);
        Error::new(Code::WalDamaged, message).path(path).with(|details| {
            details.reason = Some(reason.to_owned());
            details.segment = Some(number);
            details.offset = Some(offset);
            details.first_lsn = Some(first_lsn);
            details.last_lsn = Some(last_lsn.unwrap_or(first_lsn).max(first_lsn));
        })
    }
}

/// The files of these numbers that are there, as far as they follow one another up to the last.
fn sizes(fs: &dyn Fs, directory: &Path, numbers: &[u64]) -> Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for &number in numbers {
        match file_bytes(fs, &directory.join(log_file_name(number))) {
            Ok(bytes) => files.push(LogFile { number, bytes, lsns: None }),
            // Truncated away since the directory was listed: then what was listed before it is too, by now.
            Err(error) if error.is_not_found() => files.clear(),
            Err(error) => return Err(reading(error)),
        }
    }
    Ok(files)
}

/// Whether an error means that a file was truncated away since `oldest` was the first to be listed. Only where that is
/// so by now: what is missing elsewhere is no truncation.
pub(crate) fn is_truncated_away(fs: &dyn Fs, directory: &Path, oldest: u64, error: &Error) -> Result<bool> {
    if error.code != Code::WalIo || !error.is_not_found() {
        return Ok(false);
    }
    Ok(Names::look(fs, directory)?.files.first().is_some_and(|&now| now > oldest))
}

fn file_bytes(fs: &dyn Fs, path: &Path) -> ringbolt_disk::Result<u64> {
    let file = fs.open(path, OpenOptions::READ)?;
    fs.len(&file)
}
