//! Every intact record of a log, whatever lies between them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringbolt_disk::Fs;

use super::finding::Finding;
use super::names::{Names, not_found, read_synced};
use super::reader::push_body;
use super::scan::{LogFile, LogFiles, is_truncated_away};
use crate::error::{Error, Result};
use crate::wal::handle::Sequences;
use crate::wal::reader::{Chunk, Source};
use crate::wal::window::Window;

/// The intact records of a log. As a [`Source`] it yields chunks of consecutive LSNs: between two chunks there may be a
/// gap. Blocks; belongs on a thread of its own.
pub struct Salvage {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    files: Vec<LogFile>,
    /// Where to look next: an index into the files, and an offset.
    place: (usize, u64),
    /// The file that was read last, still open.
    window: Option<(usize, Window)>,
    /// How far SYNCED says that the log was durable: a file's number and an offset.
    synced: Option<(u64, u64)>,
    /// Behind the newest record served, likewise.
    end: (u64, u64),
    newest_lsn: u64,
}

impl Salvage {
    pub(super) fn new(fs: Arc<dyn Fs>, directory: &Path) -> Result<Self> {
        let names = Names::look(&*fs, directory)?;
        if !names.is_a_log() {
            return Err(not_found(directory));
        }
        let files = LogFiles::open(&*fs, directory, Sequences::Any, &names.files)?.files;
        let synced = read_synced(&*fs, directory)?.and_then(Result::ok);
        Ok(Self {
            directory: directory.to_owned(),
            files,
            place: (0, 0),
            window: None,
            synced: synced.map(|synced| (synced.file, synced.offset)),
            end: (0, 0),
            newest_lsn: 0,
            fs,
        })
    }

    /// Read records into `chunk` until it has about `bytes`, or the next does not follow.
    fn fill(&mut self, chunk: &mut Chunk, bytes: usize) -> Result<()> {
        let files = LogFiles {
            fs: &*self.fs,
            directory: &self.directory,
            sequences: Sequences::Any,
            files: self.files.clone(),
            synced: None,
        };
        while self.place.0 < files.files.len() {
            let (index, offset) = self.place;
            let mut window = match self.window.take() {
                Some((open, window)) if open == index => window,
                _ => files.window(index)?,
            };
            let next = match files.look(index, &mut window, offset, None)? {
                Finding::Record { sequence, bytes: record } => {
                    let place = (sequence + 1, offset, record);
                    if !push_body(&*self.fs, chunk, &mut window, place, bytes)? {
                        self.window = Some((index, window));
                        return Ok(());
                    }
                    self.end = (files.files[index].number, offset + record);
                    self.newest_lsn = self.newest_lsn.max(sequence + 1);
                    Some(offset + record)
                }
                Finding::End => None,
                Finding::Bad(_) | Finding::Break { .. } | Finding::Unsupported(_) => {
                    files.resync(index, offset)?
                }
            };
            self.window = Some((index, window));
            self.place = next.map_or((index + 1, 0), |next| (index, next));
        }
        Ok(())
    }
}

impl Salvage {
    /// The last LSN that there should be, as far as is known: the newest that was served, or one more where SYNCED says
    /// that records behind it had been durable; how many, nothing tells. Known at the end of the source.
    pub fn last_lsn(&self) -> u64 {
        self.newest_lsn + u64::from(self.synced.is_some_and(|synced| synced > self.end))
    }

    /// What becomes of an error where a writer truncates meanwhile: it goes on with what there is now.
    fn truncated(&mut self, error: Error) -> Result<()> {
        let Some(file) = self.files.get(self.place.0) else { return Err(error) };
        if !is_truncated_away(&*self.fs, &self.directory, file.number, &error)? {
            return Err(error);
        }
        let names = Names::look(&*self.fs, &self.directory)?;
        self.files = LogFiles::open(&*self.fs, &self.directory, Sequences::Any, &names.files)?.files;
        (self.place, self.window) = ((0, 0), None);
        Ok(())
    }
}

impl Source for Salvage {
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        let mut chunk = Chunk { first_lsn: 0, count: 0, bytes: Vec::new() };
        let filled = loop {
            match self.fill(&mut chunk, bytes) {
                Ok(()) => break Ok(()),
                Err(error) => {
                    if let Err(error) = self.truncated(error) {
                        break Err(error);
                    }
                }
            }
        };
        match filled {
            // What is intact is served; the next call meets the error again.
            Err(error) if chunk.count == 0 => Err(error),
            _ => Ok(Some(chunk).filter(|chunk| chunk.count > 0)),
        }
    }
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Salvage({}, {:?})", self.directory.display(), self.place)
    }
}
