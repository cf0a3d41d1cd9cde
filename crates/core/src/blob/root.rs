//! The store's directory: made, locked, and flushed of what an earlier life left in it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringbolt_disk::{Access, Buffer, Create, File, Fs, OpenOptions};

use crate::blob::names::Key;
use crate::blob::options::Options;
use crate::blob::{failure, partition};
use crate::directory;
use crate::error::{Code, Error, Result};
use crate::format::blob::{HOLD_CLEAN, HOLD_NAME};
use crate::lock;
use crate::planted::{self, Bug};

/// A store's directory that is ours.
#[derive(Debug)]
pub(crate) struct Root {
    hold: File,
    directory: PathBuf,
    /// Whether everything in it is durable, and nothing can come to it any more that is not ours: no blob is in it, or
    /// who had it before has closed it so. Otherwise a header may be in the page cache whose flush failed, and writes may
    /// still land that a killed process had handed to a ring, as commonware-runtime does. So each blob's header is
    /// written again and flushed before it is shown.
    pub(crate) is_settled: bool,
}

/// What is known of the blobs of a store that is closed.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// Whether nothing that was done in it is left unflushed.
    pub(crate) is_durable: bool,
    /// Where it was not settled: the blobs that were flushed since. A header that an earlier life could not flush may
    /// still be that of any other.
    pub(crate) flushed: Option<HashSet<Arc<Key>>>,
}

impl Root {
    /// The store is closed and nothing is under way in it: let go of it.
    pub(crate) fn close(self, fs: &dyn Fs, leaving: &Leaving) {
        let Leaving { is_durable, flushed } = leaving;
        let is_settled =
            |flushed| planted::is(Bug::SettleUnseen) || partition::are_among(fs, &self.directory, flushed);
        let is_clean = *is_durable && flushed.as_ref().is_none_or(is_settled);
        // Nobody is to be told that this process has the store: commonware-runtime locks the same file and does not write
        // its own number over ours. Where it cannot be said to be clean, the next open flushes what it opens.
        let said: &[u8] = if is_clean { HOLD_CLEAN } else { b"" };
        let _ = fs.set_len(&self.hold, 0).and_then(|()| fs.write_at(&self.hold, 0, &Buffer::copy_of(said)));
    }
}

/// Open the store's directory. It is locked as long as what is returned is kept. Whether somebody still waits for it is
/// asked while its lock is waited for.
///
/// # Errors
/// `ERR_BLOB_STORE_NOT_FOUND`, `ERR_BLOB_STORE_LOCKED`, `ERR_BLOB_STORE_IO`; `ERR_BLOB_STORE_CLOSED` where it is not
/// wanted any more.
pub(crate) fn open(fs: &dyn Fs, options: &Options, is_wanted: &dyn Fn() -> bool) -> Result<Root> {
    let root = &options.directory;
    match fs.stat(root).map_err(opening)? {
        Some(_) => {}
        None if options.create => {
            directory::make(fs, root, directory::mode(options.file_mode)).map_err(opening)?;
        }
        None => {
            let message = format!("{}: there is no store here, and `create` is false", root.display());
            return Err(Error::new(Code::BlobStoreNotFound, message).path(root));
        }
    }
    let (hold, was_clean) = take_lock(fs, options, is_wanted)?;
    // Whatever an earlier life wrote and did not flush, names too, is flushed before anything of it is shown to anybody,
    // as nobody can tell it from what is durable. Names cannot come later: they are changed by plain calls, which end
    // with their process.
    fs.sync_all(root).map_err(|error| {
        failure::of_store(
            Code::BlobStoreIo,
            "flushing what was written before (what nobody flushed then may be lost; open the store again to go on)",
            error,
        )
    })?;
    directory::sync_ancestors(fs, root).map_err(opening)?;
    // Asked now that it is ours: while its lock was waited for, somebody else may have made it and filled it.
    let is_settled = was_clean || partition::are_among(fs, root, &HashSet::new());
    Ok(Root { hold, directory: root.clone(), is_settled })
}

/// The file, locked; and whether the store was closed with everything durable.
fn take_lock(fs: &dyn Fs, options: &Options, is_wanted: &dyn Fn() -> bool) -> Result<(File, bool)> {
    let path = options.directory.join(HOLD_NAME);
    let create = Create::IfMissing(options.file_mode);
    let deadline = fs.now().after(options.lock_timeout);
    let how = OpenOptions { access: Access::ReadWrite, create, direct: false };
    let file = if planted::is(Bug::NoStoreLock) {
        fs.open(&path, how).map(Some)
    } else {
        lock::open(fs, &path, how, deadline, is_wanted)
    };
    let Some(file) = file.map_err(opening)? else {
        return Err(if is_wanted() { locked(fs, &path) } else { failure::store_closed(&options.directory) });
    };
    let mut said = [0; HOLD_CLEAN.len() + 1];
    let count = fs.read_at(&file, 0, &mut said).map_err(opening)?;
    // From here on it is not clean, whatever becomes of us.
    fs.set_len(&file, 0).map_err(opening)?;
    // For people, and for the message below. The lock is the lock, also where there is no room for this.
    let _ = fs.write_at(&file, 0, &Buffer::copy_of(fs.pid().to_string().as_bytes()));
    Ok((file, &said[..count] == HOLD_CLEAN))
}

fn locked(fs: &dyn Fs, path: &Path) -> Error {
    let pid = lock::holder(fs, path);
    let holder = pid.map_or_else(|| "somebody else".to_owned(), |pid| format!("process {pid}"));
    let message = format!(
        "{}: {holder} has the store open; close it there, or wait longer with `lockTimeoutMs`",
        path.display()
    );
    Error::new(Code::BlobStoreLocked, message).path(path).with(|details| details.pid = pid)
}

fn opening(error: ringbolt_disk::Error) -> Error {
    failure::of_store(Code::BlobStoreIo, "opening the store", error)
}

#[cfg(test)]
mod tests;
