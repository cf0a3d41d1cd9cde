//! Directories on their way to being durable, for logs and for stores.

use std::path::Path;

use ringbolt_disk::{Fs, Result};

/// Make a directory and its missing parents; each new name is durable in its parent (rule 5).
///
/// # Errors
/// What the calls answer; a directory that somebody else made meanwhile is none.
pub(crate) fn make(fs: &dyn Fs, path: &Path, mode: u32) -> Result<()> {
    let mut missing = Vec::new();
    let mut next = path;
    while fs.stat(next)?.is_none() {
        missing.push(next);
        let Some(parent) = next.parent() else { break };
        next = parent;
    }
    for path in missing.into_iter().rev() {
        match fs.create_dir(path, mode) {
            Ok(()) => {}
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = path.parent() {
            fs.sync_dir(parent)?;
        }
    }
    Ok(())
}

/// A creation that was killed, or whose directory sync failed, may have left directories whose names are not
/// durable. A parent that we have no right to sync was not made by us; any other failure is one (rule 5).
///
/// # Errors
/// What the syncs answer.
pub(crate) fn sync_ancestors(fs: &dyn Fs, path: &Path) -> Result<()> {
    for parent in path.ancestors().skip(1) {
        match fs.sync_dir(parent) {
            Ok(()) => {}
            Err(error) if error.is_refused() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The permission bits of a directory for files of `file_mode`: who may read may enter.
pub(crate) fn mode(file_mode: u32) -> u32 {
    file_mode | (file_mode & 0o444) >> 2
}
