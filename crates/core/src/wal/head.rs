//! HEAD: read whole, replaced whole.

use std::path::Path;

use ringbolt_disk::{Buffer, Fs, OpenOptions, Result};

use crate::format::head::{HEAD_BYTES, Head};
use crate::format::{HEAD_NAME, temporary_name};

/// Replace HEAD: written under another name, synced, renamed, the directory synced. Whatever step a crash
/// comes at, HEAD is the old one or the new one, whole.
pub(crate) fn replace(fs: &dyn Fs, directory: &Path, head: &Head, file_mode: u32) -> Result<()> {
    let path = directory.join(HEAD_NAME);
    let temporary = directory.join(temporary_name(HEAD_NAME));
    let written = (|| {
        let file = fs.open(&temporary, OpenOptions::replace(file_mode))?;
        fs.write_at(&file, 0, &Buffer::copy_of(&head.encode()))?;
        fs.sync(&file)
    })();
    if let Err(error) = written {
        // Best effort: what cannot be removed now is removed by the next open.
        let _ = fs.remove(&temporary);
        return Err(error);
    }
    fs.rename(&temporary, &path)?;
    fs.sync_dir(directory)
}

/// The bytes of HEAD (one more than it may have, where there are more), or `None` where there is no HEAD.
pub(crate) fn read(fs: &dyn Fs, directory: &Path) -> Result<Option<Vec<u8>>> {
    let path = directory.join(HEAD_NAME);
    let file = match fs.open(&path, OpenOptions::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; HEAD_BYTES + 1];
    let read = fs.read_at(&file, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
