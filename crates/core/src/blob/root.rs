//! The store's directory: made, locked, and flushed of what an earlier life left in it.

use std::path::Path;

use ringbolt_disk::{Access, Buffer, Create, File, Fs, OpenOptions};

use crate::blob::failure;
use crate::blob::lock;
use crate::blob::options::Options;
use crate::directory;
use crate::error::{Code, Error, Result};

/// The file whose lock is the store's: no partition can take the name, and commonware-runtime locks the same one.
const HOLD_NAME: &str = ".hold";

/// Open the store's directory; answers the lock, which is held as long as the file is.
///
/// # Errors
/// `ERR_BLOB_STORE_NOT_FOUND`, `ERR_BLOB_STORE_LOCKED`, `ERR_BLOB_STORE_IO`.
pub(crate) fn open(fs: &dyn Fs, options: &Options) -> Result<File> {
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
    let hold = take_lock(fs, options)?;
    // The names above and in the root, and whatever an earlier life wrote and did not flush: before anything of it is
    // shown to anybody, as nobody can tell it from what is durable. One call for all is cheaper than one for each blob
    // that is ever opened, and names a store's parents too where they are on the same file system.
    fs.sync_all(root).map_err(|error| {
        failure::of_store(
            Code::BlobStoreIo,
            "flushing what was written before (what nobody flushed then may be lost; open the store again to go on)",
            error,
        )
    })?;
    directory::sync_ancestors(fs, root).map_err(opening)?;
    Ok(hold)
}

fn take_lock(fs: &dyn Fs, options: &Options) -> Result<File> {
    let path = options.directory.join(HOLD_NAME);
    let create = Create::IfMissing(options.file_mode);
    let file = fs.open(&path, OpenOptions { access: Access::ReadWrite, create, direct: false });
    let file = file.map_err(opening)?;
    if !lock::take(fs, &file, options.lock_timeout).map_err(opening)? {
        return Err(locked(fs, &path));
    }
    // For people, and for the message below. The lock is the lock, also where there is no room for this.
    let pid = Buffer::copy_of(fs.pid().to_string().as_bytes());
    let _ = fs.set_len(&file, 0).and_then(|()| fs.write_at(&file, 0, &pid));
    Ok(file)
}

/// Let go of the lock. Nobody is to be told that this process has the store: commonware-runtime locks the same file and
/// does not write its own number over ours.
pub(crate) fn leave(fs: &dyn Fs, hold: File) {
    let _ = fs.set_len(&hold, 0);
    drop(hold);
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
