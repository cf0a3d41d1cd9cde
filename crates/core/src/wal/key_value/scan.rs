//! Reading a key-value log's files in order, and what the first bad record means: the rules of docs/KEY-VALUE.md.
//! Reads only; recovery acts on what this finds.

use std::path::{Path, PathBuf};

use ringbolt_disk::{EntryKind, Fs, OpenOptions};

use crate::error::{Code, Error, Result};
use crate::format::entry::{self, Entry, MAGIC, MAGIC_AT, RECORD_BYTES_MIN};
use crate::format::synced::{SYNCED_BYTES, Synced};
use crate::format::{LOCK_NAME, Refusal, SYNCED_NAME, is_temporary, log_file_name, parse_log_file_name};
use crate::planted::{self, Bug};
use crate::wal::batch::ENTRIES_BYTES_MAX;
use crate::wal::handle::{Check, Sequences};
use crate::wal::scan::{Progress, Window};

/// Between two calls of `progress`.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Where a search for a record reads at once.
const SEARCH_BYTES: u64 = 64 << 10;

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Numbers of files, ascending.
    pub(crate) files: Vec<u64>,
    pub(crate) has_synced: bool,
    /// A SYNCED that never got its name.
    pub(crate) has_temporary: bool,
    /// Something that is no part of a log.
    pub(crate) stranger: Option<String>,
}

impl Names {
    /// # Errors
    /// `ERR_WAL_UNSUPPORTED` where what has a file's name is none (W17: amaters never comes back from that).
    pub(crate) fn look(fs: &dyn Fs, directory: &Path) -> Result<Self> {
        let mut names = Self::default();
        if fs.stat(directory).map_err(reading)?.is_none() {
            return Ok(names);
        }
        for entry in fs.list(directory).map_err(reading)? {
            let name = entry.name.to_string_lossy();
            match parse_log_file_name(&name) {
                Some(number) if entry.kind == EntryKind::File => names.files.push(number),
                Some(_) => return Err(not_a_file(&directory.join(&entry.name), entry.kind)),
                None if name == SYNCED_NAME => names.has_synced = true,
                None if is_temporary(&name) => {
                    names.has_temporary |= name.strip_suffix(".tmp") == Some(SYNCED_NAME);
                }
                None if name == LOCK_NAME || name == "lost+found" => {}
                None => {
                    names.stranger.get_or_insert(name.into_owned());
                }
            }
        }
        names.files.sort_unstable();
        Ok(names)
    }

    pub(crate) fn is_a_log(&self) -> bool {
        self.has_synced || !self.files.is_empty()
    }
}

fn not_a_file(path: &Path, kind: EntryKind) -> Error {
    let found = match kind {
        EntryKind::Directory => "a directory",
        EntryKind::File | EntryKind::Other => "something else",
    };
    let message = format!(
        "{}: {found} has the name of a log's file; move it away. No byte was changed",
        path.display()
    );
    Error::new(Code::WalUnsupported, message).path(path).with(|details| {
        details.found = Some(found.to_owned());
        details.expected = Some("a file".to_owned());
    })
}

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
pub(crate) struct Files<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) directory: &'a Path,
    pub(crate) sequences: Sequences,
    pub(crate) files: Vec<LogFile>,
    /// What SYNCED says, where there is one.
    pub(crate) synced: Option<Synced>,
}

/// What there is at a place where a record is due.
#[derive(Debug)]
pub(crate) enum Finding {
    /// A record: its sequence, and its length in the file.
    Record { sequence: u64, bytes: u64 },
    /// The file ends here.
    End,
    /// No record, for this reason.
    Bad(String),
    /// A record, and not the one that follows.
    Break { sequence: u64, due: u64, bytes: u64 },
    /// A record whose sequence nobody can count.
    Unsupported(Refusal),
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

impl<'a> Files<'a> {
    /// # Errors
    /// `ERR_WAL_IO`.
    pub(crate) fn open(
        fs: &'a dyn Fs,
        directory: &'a Path,
        sequences: Sequences,
        numbers: &[u64],
    ) -> Result<Self> {
        let mut files = Vec::new();
        for &number in numbers {
            match file_bytes(fs, &directory.join(log_file_name(number))) {
                Ok(bytes) => files.push(LogFile { number, bytes, lsns: None }),
                // Truncated away since the directory was listed: then what was listed before it is too.
                Err(error) if error.is_not_found() && files.is_empty() => {}
                Err(error) => return Err(reading(error)),
            }
        }
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
        for index in start..self.files.len() {
            let mut window = self.window(index)?;
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

    /// The length that a bad record claims; 0 where it is none that a record has.
    pub(crate) fn claimed_bytes(&self, index: usize, offset: u64) -> Result<u64> {
        if self.files[index].bytes - offset < 4 {
            return Ok(0);
        }
        let mut window = self.window(index)?;
        let length = window.get(self.fs, offset, 4)?.first_chunk().expect("four bytes");
        Ok(entry::claimed_bytes(*length).unwrap_or(0) as u64)
    }

    /// The first record that begins at or behind `from` of a file and whose place and sequence `accept` takes. Every
    /// offset is looked at: behind a torn write nothing says where a record begins.
    pub(crate) fn find(
        &self,
        index: usize,
        from: u64,
        accept: impl Fn(u64, u64) -> bool,
    ) -> Result<Option<(u64, u64)>> {
        let end = self.files[index].bytes;
        // One to search with, one to look far ahead with, so that neither moves the other's.
        let (mut near, mut far) = (self.window(index)?, self.window(index)?);
        let mut start = from;
        while start + (RECORD_BYTES_MIN as u64) <= end {
            let len = SEARCH_BYTES.min(end - start) as usize;
            let bytes = near.get(self.fs, start, len)?;
            let candidates: Vec<u64> = bytes[MAGIC_AT..]
                .windows(MAGIC.len())
                .enumerate()
                .filter(|(_, four)| *four == MAGIC)
                .map(|(at, _)| start + at as u64)
                .collect();
            for at in candidates {
                if let Ok(bytes) = record(self.fs, &mut far, at, end - at)?
                    && let Ok(Entry { sequence, .. }) = entry::parse(bytes)
                    && accept(at, sequence)
                {
                    return Ok(Some((at, sequence)));
                }
            }
            if start + len as u64 == end {
                break;
            }
            // A magic may lie across the border.
            start += (len - MAGIC_AT - MAGIC.len() + 1) as u64;
        }
        Ok(None)
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

    /// Where to go on behind a place that is bad: at the end that the record there claims, where that is the file's or
    /// another record begins there (so that a whole record stored as a value is not taken for one of ours), else at
    /// the next record, wherever it begins.
    pub(crate) fn resync(&self, index: usize, offset: u64) -> Result<Option<u64>> {
        let end = self.files[index].bytes;
        let claimed = self.claimed_bytes(index, offset)?;
        let claimed_end = offset + claimed;
        if claimed > 0 && claimed_end <= end {
            let mut window = self.window(index)?;
            let has_magic = window.get(self.fs, offset + MAGIC_AT as u64, MAGIC.len())? == MAGIC;
            if has_magic && claimed_end == end {
                return Ok(None);
            }
            if has_magic
                && matches!(self.look(index, &mut window, claimed_end, None)?, Finding::Record { .. })
            {
                return Ok(Some(claimed_end));
            }
        }
        Ok(self.find(index, offset + 1, |_, _| true)?.map(|(at, _)| at))
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

/// The error for a file that is wrong as a whole.
pub(crate) fn damaged_file(directory: &Path, number: u64, reason: &str) -> Error {
    let path = directory.join(log_file_name(number));
    let message = format!(
        "file {number} ({}): {reason}. No byte was changed: restore the file from a copy",
        path.display()
    );
    Error::new(Code::WalDamaged, message).path(path).with(|details| {
        details.reason = Some(reason.to_owned());
        details.segment = Some(number);
        details.offset = Some(0);
    })
}

/// Why a record is not the one that follows.
pub(crate) fn break_reason(sequence: u64, due: u64) -> String {
    format!(
        "a record of sequence {sequence}, expected {due} (if the sequences of this log are not to rise by one, open it \
         with `sequences: 'any'`)"
    )
}

/// What is at `offset` of a file with `left` bytes from there on, where the record of sequence `due`, if that is known,
/// should be?
pub(crate) fn look(
    fs: &dyn Fs,
    window: &mut Window,
    offset: u64,
    left: u64,
    due: Option<u64>,
) -> Result<Finding> {
    if left == 0 {
        return Ok(Finding::End);
    }
    let bytes = match record(fs, window, offset, left)? {
        Ok(bytes) => bytes,
        Err(reason) => return Ok(Finding::Bad(reason)),
    };
    let sequence = match entry::parse(bytes) {
        Ok(Entry { sequence, .. }) => sequence,
        Err(refusal @ Refusal::Unsupported { .. }) => return Ok(Finding::Unsupported(refusal)),
        Err(refusal) => return Ok(Finding::Bad(refusal.to_string())),
    };
    match due {
        Some(due) if due != sequence => Ok(Finding::Break { sequence, due, bytes: bytes.len() as u64 }),
        _ => Ok(Finding::Record { sequence, bytes: bytes.len() as u64 }),
    }
}

/// The bytes of what could be a record at `at`, with `left` bytes left in the file; or why none can be there.
pub(crate) fn record<'w>(
    fs: &dyn Fs,
    window: &'w mut Window,
    at: u64,
    left: u64,
) -> Result<Result<&'w [u8], String>> {
    if left < RECORD_BYTES_MIN as u64 {
        return Ok(Err(format!("{left} bytes, too few for a record")));
    }
    let head = window.get(fs, at, MAGIC_AT + MAGIC.len())?;
    let claimed = match entry::claimed_bytes(*head.first_chunk().expect("eight bytes")) {
        Ok(claimed) => claimed,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let magic = &head[MAGIC_AT..];
    if magic != MAGIC {
        let (found, expected) = (magic.escape_ascii().to_string(), MAGIC.escape_ascii());
        return Ok(Err(format!("record magic \"{found}\", expected \"{expected}\"")));
    }
    if claimed as u64 > left {
        return Ok(Err(format!("a record of {claimed} bytes, and the file ends after {left}")));
    }
    Ok(Ok(window.get(fs, at, claimed)?))
}

/// What SYNCED says; `None` where there is none.
///
/// # Errors
/// `ERR_WAL_IO`; in the inner result why its bytes say nothing.
pub(crate) fn read_synced(fs: &dyn Fs, directory: &Path) -> Result<Option<Result<Synced, Refusal>>> {
    let file = match fs.open(&directory.join(SYNCED_NAME), OpenOptions::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(reading(error)),
    };
    let mut bytes = [0; SYNCED_BYTES + 1];
    let read = fs.read_at(&file, 0, &mut bytes).map_err(reading)?;
    Ok(Some(Synced::decode(&bytes[..read])))
}

/// The error for a SYNCED that cannot be read.
pub(crate) fn bad_synced(directory: &Path, refusal: &Refusal) -> Error {
    let path = directory.join(SYNCED_NAME);
    if matches!(refusal, Refusal::Unsupported { .. }) {
        return crate::wal::scan::unsupported_at(&path, None, refusal);
    }
    let message = format!(
        "{}: {refusal}; without it nothing says how far the log must reach. No byte was changed: restore the file from \
         a copy, or remove it to have the log judged like one that amaters wrote",
        path.display()
    );
    Error::new(Code::WalDamaged, message)
        .path(path)
        .with(|details| details.reason = Some(refusal.to_string()))
}

fn file_bytes(fs: &dyn Fs, path: &Path) -> ringbolt_disk::Result<u64> {
    let file = fs.open(path, OpenOptions::READ)?;
    fs.len(&file)
}

/// The error where there is no log.
pub(crate) fn not_found(directory: &Path) -> Error {
    let message = format!("{}: there is no key-value log here", directory.display());
    Error::new(Code::WalNotFound, message).path(directory)
}

/// A failed system call while reading.
pub(crate) fn reading(error: ringbolt_disk::Error) -> Error {
    Error::io("reading the log", error)
}
