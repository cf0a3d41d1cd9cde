//! Locks of files, tried for a while, and who holds them (durability rule 8).

use std::path::Path;
use std::time::Duration;

use ringbolt_disk::{File, Fs, OpenOptions, Result, Time};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// Take a file's lock; `false` where somebody else has it until then, or until it is not wanted any more. The same
/// description's writes, also those of a process that was killed, hold it until they are done.
///
/// # Errors
/// What locking answers.
pub(crate) fn take(fs: &dyn Fs, file: &File, deadline: Time, is_wanted: &dyn Fn() -> bool) -> Result<bool> {
    loop {
        if fs.try_lock(file)? {
            return Ok(true);
        }
        if fs.now() >= deadline || !is_wanted() {
            return Ok(false);
        }
        fs.sleep(PAUSE);
    }
}

/// Open a file by its name, made where `options` say so, and take its lock; `None` as [`take`] answers `false`. While it
/// was waited for, the file may have lost its name to another: the lock of such a file keeps nobody out, so then the other
/// is taken.
///
/// # Errors
/// What opening and locking answer.
pub(crate) fn open(
    fs: &dyn Fs,
    path: &Path,
    options: OpenOptions,
    deadline: Time,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Option<File>> {
    loop {
        let file = fs.open(path, options)?;
        if !take(fs, &file, deadline, is_wanted)? {
            return Ok(None);
        }
        if fs.is_linked(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// The process number that a lock's holder wrote into its file.
pub(crate) fn holder(fs: &dyn Fs, path: &Path) -> Option<u32> {
    let file = fs.open(path, OpenOptions::READ).ok()?;
    let mut text = [0; 16];
    let read = fs.read_at(&file, 0, &mut text).ok()?;
    std::str::from_utf8(&text[..read]).ok()?.trim().parse().ok()
}
