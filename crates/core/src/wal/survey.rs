//! What a log's directory holds, and whether that is what HEAD says: the part of opening, reading and checking a
//! log that comes before its frames. Reads only.

use std::path::{Path, PathBuf};

use ringbolt_disk::{EntryKind, Fs, OpenOptions};

use crate::error::{Code, Error, Result};
use crate::format::frame::Place;
use crate::format::head::Head;
use crate::format::segment::{self, SEGMENT_HEADER_BYTES};
use crate::format::{GRAIN, HEAD_NAME, LogId, Refusal, frame, parse_segment_name, segment_name};
use crate::wal::head;
use crate::wal::scan::{Found, LogFiles, ZEROS, damaged, unsupported_at};
use crate::wal::window::Window;

/// The directory of a log.
#[derive(Clone, Copy)]
pub(crate) struct Survey<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) directory: &'a Path,
    /// Read past the page cache, where the file system takes it.
    pub(crate) direct: bool,
}

impl Survey<'_> {
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.directory.join(segment_name(number))
    }

    pub(crate) fn log_files<'a>(&'a self, head: &'a Head, segments: &'a [Found]) -> LogFiles<'a> {
        LogFiles { fs: self.fs, directory: self.directory, direct: self.direct, head, segments }
    }

    /// The numbers of the segments there are, ascending. None where there is no directory.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>> {
        if self.fs.stat(self.directory).map_err(reading)?.is_none() {
            return Ok(Vec::new());
        }
        let entries = self.fs.list(self.directory).map_err(reading)?;
        let mut numbers: Vec<u64> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| parse_segment_name(entry.name.to_str()?))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What HEAD says; `None` where there is no HEAD.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` where it is not whole, `ERR_WAL_UNSUPPORTED` where a later version wrote it.
    pub(crate) fn head(&self) -> Result<Option<Head>> {
        let path = self.directory.join(HEAD_NAME);
        let Some(bytes) = head::read(self.fs, self.directory).map_err(reading)? else { return Ok(None) };
        match Head::decode(&bytes) {
            Ok(head) => Ok(Some(head)),
            Err(refusal @ Refusal::Unsupported { .. }) => Err(unsupported_at(&path, None, &refusal)),
            Err(refusal) => Err(self.without_head(&refusal.to_string())),
        }
    }

    /// The error for a HEAD that is not there, or not whole.
    pub(crate) fn without_head(&self, reason: &str) -> Error {
        let path = self.directory.join(HEAD_NAME);
        damaged(&path, None, 1, 1, reason).with(|details| {
            // Without HEAD nothing says which records there should be.
            details.first_lsn = None;
            details.last_lsn = None;
            details.message = format!(
                "{}: {reason}; without it nothing says what the log must hold. No byte was changed: restore the \
                 file from a copy",
                path.display()
            );
        })
    }

    /// HEAD of a log that there must be.
    ///
    /// # Errors
    /// `ERR_WAL_NOT_FOUND` where there is none, or one in the making; what [`Survey::head`] and
    /// [`Survey::interrupted_creation`] answer.
    pub(crate) fn head_of_a_log(&self) -> Result<Head> {
        let mut is_certain = false;
        loop {
            let error = match self.head() {
                Ok(Some(head)) => return Ok(head),
                Ok(None) => match self.numbers()? {
                    numbers if numbers.is_empty() => self.not_found(),
                    numbers => match self.interrupted_creation(&numbers) {
                        Ok(_) => self.not_found(),
                        Err(error) => error,
                    },
                },
                Err(error) => return Err(self.later_header(&self.numbers()?)?.unwrap_or(error)),
            };
            // Once more: a log that was just being made gets its HEAD before its first record.
            if is_certain {
                return Err(error);
            }
            is_certain = true;
        }
    }

    fn not_found(&self) -> Error {
        let path = self.directory;
        let message =
            format!("{}: there is no log here; is this the directory it was made in?", path.display());
        Error::new(Code::WalNotFound, message).path(path)
    }

    /// Segments without HEAD: those of a creation that was interrupted, whose name this answers with where a header
    /// tells it, or what they are instead.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` where HEAD is missing beside records, or a header is not whole; `ERR_WAL_UNSUPPORTED` where
    /// a header is not whole and there are no frames: that file is not ours.
    pub(crate) fn interrupted_creation(&self, numbers: &[u64]) -> Result<Option<LogId>> {
        let mut headers = Vec::new();
        for &number in numbers {
            headers.push((number, self.header(number)?.0));
        }
        let log_id = headers.iter().find_map(|(_, header)| header.as_ref().ok()).map(|header| header.log_id);
        let (mut frames, mut anything) = (false, false);
        for &number in numbers {
            let found = self.holds_anything(number, log_id.as_ref())?;
            frames |= found.0;
            anything |= found.1;
        }
        for (number, header) in &headers {
            if let Err(refusal) = header {
                let path = self.path(*number);
                let ours = frames && !matches!(refusal, Refusal::Unsupported { .. });
                return Err(if ours {
                    damaged(&path, Some((*number, 0)), 1, 1, &refusal.to_string())
                } else {
                    unsupported_at(&path, Some(0), refusal)
                });
            }
        }
        if anything {
            return Err(self.without_head("HEAD is missing, and there are records"));
        }
        if numbers.first().is_some_and(|&first| first != 1) {
            return Err(self.without_head("HEAD is missing, and so is segment 1"));
        }
        Ok(log_id)
    }

    /// Whether a file without HEAD beside it holds frames of `log_id`, and whether it holds anything at all.
    fn holds_anything(&self, number: u64, log_id: Option<&LogId>) -> Result<(bool, bool)> {
        let path = self.path(number);
        let len = {
            let file = self.fs.open(&path, OpenOptions::READ).map_err(reading)?;
            self.fs.len(&file).map_err(reading)?
        };
        let mut window = Window::open(self.fs, &path, len, self.direct)?;
        let (mut frames, mut anything) = (false, false);
        for offset in (GRAIN..len).step_by(GRAIN as usize) {
            let bytes = window.get(self.fs, offset, GRAIN.min(len - offset) as usize)?;
            anything |= *bytes != ZEROS[..bytes.len()];
            frames |= log_id.is_some_and(|log_id| {
                frame::Header::parse(bytes, Place { log_id, segment: number, offset }).is_some()
            });
        }
        Ok((frames, anything))
    }

    /// What a segment's header says, and the length of its file. A file that is not there is one without a header:
    /// it may have gone between a listing and this.
    pub(crate) fn header(&self, number: u64) -> Result<(Result<segment::Header, Refusal>, u64)> {
        let file = match self.fs.open(&self.path(number), OpenOptions::READ) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => {
                return Ok((Err(Refusal::NotWhole { reason: MISSING.to_owned() }), 0));
            }
            Err(error) => return Err(reading(error)),
        };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = self.fs.read_at(&file, 0, &mut header).map_err(reading)?;
        Ok((segment::Header::decode(&header[..read]), self.fs.len(&file).map_err(reading)?))
    }

    /// A segment whose header is whole, this log's, and its own; else what is wrong with it.
    pub(crate) fn segment(&self, log_id: &LogId, number: u64) -> Result<Result<Found, Refusal>> {
        let (header, len) = self.header(number)?;
        let other = |reason| Ok(Err(Refusal::Inconsistent { reason }));
        match header {
            Ok(header) if header.log_id != *log_id => {
                other(format!("a segment of log {}, expected {log_id}", header.log_id))
            }
            Ok(header) if header.number != number => other(format!("a header of segment {}", header.number)),
            Ok(segment::Header { bytes, .. }) => Ok(Ok(Found { number, bytes, is_cut: len < bytes })),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// The segments with these numbers, which must be all from `oldest` on: each with a whole header, this log's,
    /// its own number.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` for what is not so; `ERR_WAL_UNSUPPORTED` where a later version wrote any of it.
    pub(crate) fn check_segments(&self, head: &Head, oldest: u64, numbers: &[u64]) -> Result<Vec<Found>> {
        let due = head.first_lsn;
        let last = head.proven_lsn.max(due);
        let damaged =
            |number: u64, reason: &str| damaged(&self.path(number), Some((number, 0)), due, last, reason);
        if let Some(error) = self.later_header(numbers)? {
            return Err(error);
        }
        let mut segments = Vec::new();
        let mut damage = None;
        let mut expected = oldest;
        for &number in numbers {
            if number != expected {
                damage.get_or_insert_with(|| damaged(expected, MISSING));
            }
            expected = number + 1;
            match self.segment(&head.log_id, number)? {
                Ok(found) => segments.push(found),
                Err(refusal) => {
                    damage.get_or_insert_with(|| damaged(number, &refusal.to_string()));
                }
            }
        }
        if numbers.is_empty() {
            damage = Some(damaged(oldest, MISSING));
        }
        match damage {
            None => Ok(segments),
            Some(damage) => Err(self.log_files(head, &segments).later_version()?.unwrap_or(damage)),
        }
    }

    /// The first segment header of a later version, as the error that it is: it outranks damage.
    pub(crate) fn later_header(&self, numbers: &[u64]) -> Result<Option<Error>> {
        for &number in numbers {
            if let (Err(refusal @ Refusal::Unsupported { .. }), _) = self.header(number)? {
                return Ok(Some(unsupported_at(&self.path(number), Some(0), &refusal)));
            }
        }
        Ok(None)
    }
}

/// The reason given for a segment that is not there.
pub(crate) const MISSING: &str = "the segment is missing";

pub(crate) fn reading(error: ringbolt_disk::Error) -> Error {
    Error::io("reading the log", error)
}
