//! What a key-value log's directory holds, what its SYNCED says, and the errors about either.

use std::path::Path;

use ringbolt_disk::{EntryKind, Fs, OpenOptions};

use crate::error::{Code, Error, Result};
use crate::format::synced::{SYNCED_BYTES, Synced};
use crate::format::{LOCK_NAME, Refusal, SYNCED_NAME, is_temporary, log_file_name, parse_log_file_name};

/// So many looks at a SYNCED that says nothing, and each time another nothing, are enough.
const LOOKS_MAX: u32 = 100;

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

/// What SYNCED says; `None` where there is none.
///
/// Its owner rewrites it in place, and a reader without the lock may meet the middle of that. So bytes that say nothing
/// are believed only once a second look shows the same.
///
/// # Errors
/// `ERR_WAL_IO`; in the inner result why its bytes say nothing.
pub(crate) fn read_synced(fs: &dyn Fs, directory: &Path) -> Result<Option<Result<Synced, Refusal>>> {
    let mut before = None;
    let mut looks = 1;
    loop {
        // Opened again each time: the next owner makes it anew, under the same name.
        let file = match fs.open(&directory.join(SYNCED_NAME), OpenOptions::READ) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(reading(error)),
        };
        let mut bytes = [0; SYNCED_BYTES + 1];
        let read = fs.read_at(&file, 0, &mut bytes).map_err(reading)?;
        let said = Synced::decode(&bytes[..read]);
        let seen = Some((read, bytes));
        if said.is_ok() || seen == before || looks == LOOKS_MAX {
            return Ok(Some(said));
        }
        (before, looks) = (seen, looks + 1);
    }
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

/// The error where there is no log.
pub(crate) fn not_found(directory: &Path) -> Error {
    let message = format!("{}: there is no key-value log here", directory.display());
    Error::new(Code::WalNotFound, message).path(directory)
}

/// A failed system call while reading.
pub(crate) fn reading(error: ringbolt_disk::Error) -> Error {
    Error::io("reading the log", error)
}
