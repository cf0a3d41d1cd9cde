//! Files of a log, read in large pieces, the next one while the one before is looked at.

use std::path::Path;

use ringbolt_disk::{Buffer, File, Fs, OpenOptions, ReadAhead};

use crate::error::{Error, Result};
use crate::format::GRAIN;
use crate::planted::{self, Bug};

/// How much is read at once: twice as much as a log puts into a frame of many records, so that what is read ahead holds the
/// rest of the frame before it. 1, 4 and 8 MiB were as fast (ext4 on virtio, past the page cache).
const WINDOW_BYTES: u64 = if planted::IS_HERE { 4 * GRAIN } else { 2 << 20 };

/// How much is read first: who only wants to know how a segment begins asks for no more. Each read after it is four
/// times as large.
const WINDOW_BYTES_FIRST: u64 = if planted::IS_HERE { GRAIN } else { 16 << 10 };

/// Room before what is read ahead, for the part of a frame that lies before it. Of larger frames nothing is read ahead: it
/// would be read twice.
const ROOM: usize = if planted::IS_HERE { 2 * GRAIN as usize } else { 1 << 20 };

/// A segment's file, read through a window. Bytes missing at its end read as zeros, up to the segment's size.
///
/// It reads past the page cache where the log writes past it. What the cache shows need not be on the disk (rule
/// 6), and a direct write drops the cached pages around it: judged through the cache, a frame could be there
/// at the scan and gone when it is to be written again.
///
/// ```text
///   segment    ├──────────── held ───────────┤────────── ahead ──────────┤
///                               at ┆ a frame ┆ that goes on here
///   buffers    ├────────── looked at ────────┤
///                       ├─ room ───┆─────────┤──── being read ───────────┤
///                                  └ copied ─┘ once that is held
/// ```
pub(crate) struct Window {
    file: File,
    /// The segment's size, from its header.
    bytes: u64,
    /// What is held: the bytes of the buffer from `skip` on, of the segment from `start` on.
    start: u64,
    skip: usize,
    buffer: Buffer,
    /// Being read: what follows.
    ahead: Option<ReadAhead>,
    /// Whether that is to be forgotten. It is not waited for before something else is read: by then it is over, and who
    /// forgets may be a thread that must not wait for a disk.
    is_stale: bool,
    /// Not in use.
    spare: Option<Buffer>,
    /// How much the next read takes.
    wanted: u64,
}

/// What a window leaves to that of the file behind it: its memory, since each page of new memory costs a fault, a megabyte of
/// them as much as to read it; and how much it came to read at once.
pub(crate) struct Rest {
    buffer: Buffer,
    spare: Option<Buffer>,
    wanted: u64,
}

impl Window {
    pub(crate) fn open(fs: &dyn Fs, path: &Path, bytes: u64, direct: bool) -> Result<Self> {
        let file = fs
            .open(path, OpenOptions::READ.with_direct(direct))
            .map_err(|error| Error::io("reading the log", error))?;
        Ok(Self {
            file,
            bytes,
            start: 0,
            skip: 0,
            buffer: Buffer::with_capacity(0),
            ahead: None,
            is_stale: false,
            spare: None,
            wanted: WINDOW_BYTES_FIRST,
        })
    }

    /// The same, with what the window of the file before it left: reading goes on in order.
    pub(crate) fn following(self, rest: Option<Rest>) -> Self {
        match rest {
            Some(Rest { mut buffer, spare, wanted }) => {
                buffer.clear();
                Self { buffer, spare, wanted, ..self }
            }
            None => self,
        }
    }

    /// Let go of the file, after what is being read of it.
    pub(crate) fn close(self) -> Rest {
        let spare = self.ahead.map(ReadAhead::into_buffer).or(self.spare);
        Rest { buffer: self.buffer, spare, wanted: self.wanted }
    }

    /// The size of the segment.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The `len` bytes at `at`, both within the segment.
    pub(crate) fn get(&mut self, fs: &dyn Fs, at: u64, len: usize) -> Result<&[u8]> {
        let end = at + len as u64;
        assert!(end <= self.bytes, "only what lies in the segment is asked for");
        if at < self.start || end > self.end() {
            self.move_to(fs, at, end)?;
        }
        let from = self.skip + (at - self.start) as usize;
        Ok(&self.buffer[from..from + len])
    }

    /// Read anew what was read before: it has changed since.
    pub(crate) fn forget(&mut self) {
        self.hold_nothing();
        self.is_stale = true;
        self.wanted = WINDOW_BYTES_FIRST;
    }

    /// Where what is held ends.
    fn end(&self) -> u64 {
        self.start + (self.buffer.len() - self.skip) as u64
    }

    fn hold_nothing(&mut self) {
        self.buffer.clear();
        self.skip = 0;
    }

    /// Hold whole grains from the one of `at` on, up to `end` at least.
    fn move_to(&mut self, fs: &dyn Fs, at: u64, end: u64) -> Result<()> {
        let start = at / GRAIN * GRAIN;
        if !self.move_on(fs, start, end)? {
            let wanted = end.max((start + self.wanted).min(self.bytes)).next_multiple_of(GRAIN) - start;
            self.wanted = if end - start > ROOM as u64 { WINDOW_BYTES_FIRST } else { self.wanted * 4 };
            self.wanted = self.wanted.min(WINDOW_BYTES);
            let mut buffer = std::mem::replace(&mut self.buffer, Buffer::with_capacity(0));
            if wanted as usize > buffer.capacity() {
                buffer = Buffer::with_capacity(wanted as usize);
            }
            buffer.resize_stale(wanted as usize);
            let read = fs.read_at(&self.file, start, &mut buffer);
            self.hold(start, 0, buffer, read)?;
        }
        self.read_ahead(fs);
        Ok(())
    }

    /// The same, with what was read ahead. `false` where it is not that.
    fn move_on(&mut self, fs: &dyn Fs, start: u64, end: u64) -> Result<bool> {
        let is_stale = std::mem::take(&mut self.is_stale);
        let Some(ahead) = self.ahead.take() else { return Ok(false) };
        let next = self.end();
        let is_next = !is_stale
            && (self.start..=next).contains(&start)
            && (next - start) as usize <= ROOM
            && end <= next + self.ahead_len(next) as u64;
        if !is_next {
            self.spare = Some(ahead.into_buffer());
            return Ok(false);
        }
        let (mut buffer, read) = ahead.wait(fs);
        let left = &self.buffer[self.skip + (start - self.start) as usize..];
        let skip = ROOM - left.len();
        buffer[skip..ROOM].copy_from_slice(left);
        self.spare = Some(std::mem::replace(&mut self.buffer, Buffer::with_capacity(0)));
        self.hold(start, skip, buffer, read.map(|count| ROOM - skip + count))?;
        Ok(true)
    }

    /// What was read from `start` on, as far as it came, is in the buffer from `skip` on.
    fn hold(
        &mut self,
        start: u64,
        skip: usize,
        mut buffer: Buffer,
        read: ringbolt_disk::Result<usize>,
    ) -> Result<()> {
        let count = match read {
            Ok(count) => count,
            Err(_) if planted::is(Bug::ReadErrorEndsLog) => 0,
            // Never taken for the end of the log.
            Err(error) => {
                self.hold_nothing();
                return Err(Error::io("reading the log", error));
            }
        };
        buffer[skip + count..].fill(0);
        (self.start, self.skip, self.buffer) = (start, skip, buffer);
        Ok(())
    }

    /// How much is read ahead from there on.
    fn ahead_len(&self, next: u64) -> usize {
        WINDOW_BYTES.min(self.bytes - next).next_multiple_of(GRAIN) as usize
    }

    /// Begin to read what follows, once whole windows are read.
    fn read_ahead(&mut self, fs: &dyn Fs) {
        let next = self.end();
        if self.wanted < WINDOW_BYTES || next - self.start < WINDOW_BYTES || next >= self.bytes {
            return;
        }
        let len = self.ahead_len(next);
        let mut buffer = self.spare.take().unwrap_or_else(|| Buffer::with_capacity(0));
        if ROOM + len > buffer.capacity() {
            buffer = Buffer::with_capacity(ROOM + len);
        }
        buffer.resize_stale(ROOM + len);
        self.ahead = Some(fs.read_ahead(&self.file, next, buffer, ROOM));
    }
}

#[cfg(test)]
mod tests;
