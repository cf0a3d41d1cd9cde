//! A segment open for writing, and how one is made.

use std::path::{Path, PathBuf};

use ringbolt_disk::{Buffer, Errno, Error, File, Fs, GRAIN, OpenOptions, Result};

use crate::format::{LogId, segment, segment_name, temporary_name};

/// A segment that frames go into. Its file is flock'd, on the same open file description that every write
/// and every zeroing of it uses: the lock outlives a killed owner until its last write is done (durability
/// rule 8).
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// Where the next frame goes. Only moves forward.
    pub(crate) tail: u64,
    /// Blocks up to here were zeroed or written by this owner: an overwrite costs half of a first write.
    pub(crate) zeroed_to: u64,
    /// The range whose zeroing is in flight. No frame goes there until it is done: the zeros would land on it.
    pub(crate) zeroing: Option<(u64, u64)>,
}

impl Segment {
    /// A segment without frames.
    pub(crate) fn empty(file: File, path: PathBuf, number: u64, bytes: u64) -> Self {
        let tail = GRAIN as u64;
        Self { file, path, number, bytes, tail, zeroed_to: tail, zeroing: None }
    }

    /// Whether a batch's frame of `frame_bytes` fits. The last grain is the seal's.
    pub(crate) fn fits(&self, frame_bytes: u64) -> bool {
        self.tail + frame_bytes + GRAIN as u64 <= self.bytes
    }

    /// Whether `bytes` at the tail are clear of a zeroing in flight.
    pub(crate) fn is_clear(&self, bytes: u64) -> bool {
        self.zeroing.is_none_or(|(from, to)| self.tail + bytes <= from || to <= self.tail)
    }

    /// The next range to zero so that `distance` bytes ahead of the tail are ready, at most `chunk` at once.
    pub(crate) fn zero_ahead(&self, distance: u64, chunk: u64) -> Option<(u64, u64)> {
        let from = self.zeroed_to.max(self.tail);
        let wanted = from < self.bytes && from - self.tail < distance;
        (self.zeroing.is_none() && wanted).then(|| (from, (from + chunk).min(self.bytes)))
    }
}

/// What makes segments: the same for every one of a log.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) directory: PathBuf,
    pub(crate) log_id: LogId,
    pub(crate) bytes: u64,
    pub(crate) direct: bool,
    pub(crate) file_mode: u32,
}

impl Maker {
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.directory.join(segment_name(number))
    }

    /// Make segment `number`: reserved at its full size, its header durable, then its name (durability rules 5
    /// and 9). So a named segment always has a whole header, and running out of space shows here, before any
    /// record depends on it. Replaces a segment of that number that holds no frame. Where this fails, what
    /// was made of it is removed.
    pub(crate) fn make(&self, fs: &dyn Fs, number: u64) -> Result<Segment> {
        let path = self.path(number);
        let temporary = self.directory.join(temporary_name(&segment_name(number)));
        match self.make_temporary(fs, &temporary, number) {
            Ok(file) => {
                fs.rename(&temporary, &path)?;
                fs.sync_dir(&self.directory)?;
                Ok(Segment::empty(file, path, number, self.bytes))
            }
            Err(error) => {
                // Best effort: what cannot be removed now is removed by the next open.
                let _ = fs.remove(&temporary);
                Err(error)
            }
        }
    }

    fn make_temporary(&self, fs: &dyn Fs, temporary: &Path, number: u64) -> Result<File> {
        let file = fs.open(temporary, OpenOptions::replace(self.file_mode).with_direct(self.direct))?;
        lock_new(fs, &file)?;
        fs.allocate(&file, self.bytes)?;
        let header = segment::Header { log_id: self.log_id, number, bytes: self.bytes };
        let mut grain = Buffer::copy_of(&header.encode());
        grain.pad_to_grain();
        fs.write_at(&file, 0, &grain)?;
        fs.sync(&file)?;
        Ok(file)
    }
}

fn lock_new(fs: &dyn Fs, file: &File) -> Result<()> {
    if fs.try_lock(file)? {
        return Ok(());
    }
    // Only a program that does not follow LOCK can have it.
    Err(Error::new("flock", file.path(), Errno::AGAIN)
        .hint("another program locks this log's new files; stop it and open the log again"))
}
