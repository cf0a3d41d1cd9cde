//! A log's directory, whichever format lies in it: how it is made, and where its torn tails go.

use std::path::Path;

use ringbolt_disk::{EntryKind, File, Fs, OpenOptions};

use crate::directory;
use crate::error::{Code, Error, Result};
use crate::format::{TEMPORARY_SUFFIX, TORN_NAME, TornName, temporary_name};
use crate::wal::handle::Options;

/// The torn tails of so many recoveries are kept.
const TORN_KEPT: usize = 4;

/// A directory that is being opened for writing.
#[derive(Clone, Copy)]
pub(crate) struct Directory<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) path: &'a Path,
    /// Permission bits of files in it.
    pub(crate) file_mode: u32,
}

impl Directory<'_> {
    /// Make it, and its missing parents; each new name is durable in its parent (rule 5).
    pub(crate) fn make(&self) -> Result<()> {
        directory::make(self.fs, self.path, directory::mode(self.file_mode)).map_err(opening)
    }

    /// Make the names of its parents durable, where a creation before this one may have left them otherwise (rule 5).
    pub(crate) fn sync_ancestors(&self) -> Result<()> {
        directory::sync_ancestors(self.fs, self.path).map_err(opening)
    }

    /// Make its names durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.fs.sync_dir(self.path).map_err(opening)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.fs.remove(&self.path.join(name)).map_err(opening)
    }

    /// Whether the log that is there, or is not, is what the caller wants to open.
    pub(crate) fn check_wish(&self, exists: bool, options: &Options) -> Result<()> {
        if !exists && !options.create {
            return Err(self.not_found());
        }
        if exists && options.create_only {
            return Err(self.not_empty("a log"));
        }
        Ok(())
    }

    /// The error where there is no log and none is to be made.
    pub(crate) fn not_found(&self) -> Error {
        let message = format!("{}: there is no log here, and `create` is false", self.path.display());
        Error::new(Code::WalNotFound, message).path(self.path)
    }

    /// The error where there is no log and something else.
    pub(crate) fn not_empty(&self, name: &str) -> Error {
        let message = format!(
            "{}: a log is made in an empty directory only, and this one holds {name:?}; choose another",
            self.path.display()
        );
        Error::new(Code::WalNotEmpty, message)
            .path(self.path)
            .with(|details| details.found = Some(name.to_owned()))
    }

    // ---- torn tails ---------------------------------------------------------------------------------------

    /// Keep copies of what is about to be cut, durable before anything is: each by its name, made by what `copy`
    /// writes.
    pub(crate) fn set_aside<T: Copy>(
        &self,
        torn: &[(TornName, T)],
        copy: impl Fn(T, &File) -> Result<()>,
    ) -> Result<()> {
        if torn.is_empty() {
            return Ok(());
        }
        let directory = self.path.join(TORN_NAME);
        match self.fs.create_dir(&directory, directory::mode(self.file_mode)) {
            Ok(()) => {}
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(opening(error)),
        }
        for (name, tail) in torn {
            let name = name.to_string();
            let path = directory.join(&name);
            // A copy by this name was made whole by an opening that a crash ended before HEAD: what it cut
            // since is missing from the segment, so the copy is kept as it is.
            if self.fs.stat(&path).map_err(opening)?.is_none() {
                let temporary = directory.join(temporary_name(&name));
                let copied = self.copy_aside(&temporary, |file| copy(*tail, file));
                if let Err(error) = copied {
                    let _ = self.fs.remove(&temporary);
                    return Err(error);
                }
                self.fs.rename(&temporary, &path).map_err(opening)?;
            }
        }
        self.fs.sync_dir(&directory).map_err(opening)
    }

    fn copy_aside(&self, temporary: &Path, copy: impl Fn(&File) -> Result<()>) -> Result<()> {
        let options = OpenOptions::replace(self.file_mode);
        let file = self.fs.open(temporary, options).map_err(opening)?;
        copy(&file)?;
        self.fs.sync(&file).map_err(opening)
    }

    /// Keep the torn tails of the newest recoveries. They are for people, and no promise rests on them: what
    /// cannot be removed now is tried again by the next recovery.
    pub(crate) fn forget_old_torn_tails(&self) {
        let directory = self.path.join(TORN_NAME);
        let names = self.torn_files();
        // A copy that a crash cut short was made again by the recovery after it, or is not needed any more.
        for name in names.iter().filter(|name| {
            name.strip_suffix(TEMPORARY_SUFFIX).is_some_and(|name| TornName::parse(name).is_some())
        }) {
            let _ = self.fs.remove(&directory.join(name));
        }
        let torn: Vec<TornName> = names.iter().filter_map(|name| TornName::parse(name)).collect();
        let mut incarnations: Vec<u32> = torn.iter().map(|torn| torn.incarnation).collect();
        incarnations.sort_unstable();
        incarnations.dedup();
        let Some(&oldest_kept) = incarnations.iter().rev().nth(TORN_KEPT - 1) else { return };
        for torn in torn.iter().filter(|torn| torn.incarnation < oldest_kept) {
            let _ = self.fs.remove(&directory.join(torn.to_string()));
        }
    }

    /// The number for the next torn tails of a log that does not count its openings: one above those that are there.
    pub(crate) fn next_torn_number(&self) -> u32 {
        let names = self.torn_files();
        let torn = names.iter().filter_map(|name| TornName::parse(name));
        torn.map(|torn| torn.incarnation).max().unwrap_or(0).saturating_add(1)
    }

    fn torn_files(&self) -> Vec<String> {
        let entries = self.fs.list(&self.path.join(TORN_NAME)).unwrap_or_default();
        let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
        files.filter_map(|entry| entry.name.into_string().ok()).collect()
    }
}

/// A failed system call while opening.
pub(crate) fn opening(error: ringbolt_disk::Error) -> Error {
    if error.is_no_space() {
        // A segment is reserved whole before the log is open.
        return Error::of_disk(Code::WalNoSpace, "opening the log (free a segment's size of space)", error);
    }
    Error::io("opening the log", error)
}
