//! The store's directory: made, locked, and flushed of what an earlier life left in it.

use std::path::Path;

use ringbolt_disk::{Access, Buffer, Create, File, Fs, OpenOptions};

use crate::blob::failure;
use crate::blob::options::Options;
use crate::directory;
use crate::error::{Code, Error, Result};
use crate::format::blob::{HOLD_CLEAN, HOLD_NAME};
use crate::lock;

/// A store's directory that is ours.
#[derive(Debug)]
pub(crate) struct Root {
    hold: File,
    /// Whether everything in it is durable, and nothing can come to it any more that is not ours: it is new, or who
    /// had it before has closed it so. Otherwise a header may be in the page cache whose flush failed, and writes may
    /// still land that a killed process had handed to a ring, as commonware-runtime does. So each blob's header is
    /// written again and flushed before it is shown.
    pub(crate) is_settled: bool,
}

impl Root {
    /// The store is closed and nothing is under way in it: let go of it. `is_durable` says whether nothing in it is
    /// left unflushed.
    pub(crate) fn close(self, fs: &dyn Fs, is_durable: bool) {
        // Nobody is to be told that this process has the store: commonware-runtime locks the same file and does not write
        // its own number over ours. Where it cannot be said to be clean, the next open flushes what it opens.
        let said: &[u8] = if is_durable { HOLD_CLEAN } else { b"" };
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
    let kind = fs.stat(root).map_err(opening)?;
    match kind {
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
    Ok(Root { hold, is_settled: kind.is_none() || was_clean })
}

/// The file, locked; and whether the store was closed with everything durable.
fn take_lock(fs: &dyn Fs, options: &Options, is_wanted: &dyn Fn() -> bool) -> Result<(File, bool)> {
    let path = options.directory.join(HOLD_NAME);
    let create = Create::IfMissing(options.file_mode);
    let file = fs.open(&path, OpenOptions { access: Access::ReadWrite, create, direct: false });
    let file = file.map_err(opening)?;
    if !lock::take(fs, &file, fs.now().after(options.lock_timeout), is_wanted).map_err(opening)? {
        let is_wanted = is_wanted();
        return Err(if is_wanted { locked(fs, &path) } else { failure::store_closed(&options.directory) });
    }
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
