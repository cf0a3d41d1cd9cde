//! What is done to the bytes of open blobs: reads, changes, flushes, and the end of a handle.

use ringbolt_disk::{Access, Buffer, Create, File, GRAIN, Op, OpenOptions, Outcome, WriteMode};

use crate::blob::calls::CallKey;
use crate::blob::failure;
use crate::blob::file::{Blob, Extent, Uncached};
use crate::blob::lane::Ticket;
use crate::blob::machine::names::Left;
use crate::blob::machine::{Machine, Pending, Slot, job_result};
use crate::blob::{Answer, OFFSET_MAX};
use crate::error::{Code, Error, Result};

/// What an operation on an open blob is for.
#[derive(Debug)]
pub(crate) enum DataOp {
    /// Straight into the caller's memory.
    Read(Read),
    /// Past the page cache, through memory that is aligned for it.
    ReadUncached {
        read: Read,
        /// The caller's memory.
        target: Buffer,
        /// Where the bytes asked for begin in the aligned ones.
        skip: usize,
    },
    /// The job that opens the file once more, past the page cache.
    OpenUncached {
        blob: usize,
        slot: Slot<Result<Option<File>>>,
    },
    Write {
        changing: Changing,
        offset: u64,
        length: u64,
        sync: bool,
    },
    /// After a write that failed, and may have written some: how large is the file?
    Measure {
        changing: Changing,
        error: Error,
        slot: Slot<Result<u64>>,
    },
    Resize {
        changing: Changing,
        length: u64,
    },
    Flush {
        blob: usize,
    },
}

/// A read under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    call: CallKey,
    blob: usize,
    offset: u64,
    length: usize,
}

/// A read that is to pass by the page cache.
#[derive(Debug)]
pub(crate) struct UncachedRead {
    read: Read,
    target: Buffer,
}

/// A change under way, and its place among the blob's others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changing {
    call: CallKey,
    blob: usize,
    ticket: Ticket,
}

/// A change that waits for its turn.
#[derive(Debug)]
pub(crate) enum Change {
    Write { call: CallKey, write: Write },
    Resize { call: CallKey, length: u64 },
}

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) offset: u64,
    pub(crate) buffer: Buffer,
    /// Answer only once it is durable.
    pub(crate) sync: bool,
    /// Whether it may stay in the page cache.
    pub(crate) cached: bool,
}

impl Machine {
    // Reads

    pub(super) fn read(&mut self, call: CallKey, blob: usize, offset: u64, target: Buffer, cached: bool) {
        let read = Read { call, blob, offset, length: target.len() };
        let open = &mut self.blobs[blob];
        if let Err(error) = check_range(open, offset, read.length as u64) {
            return self.answer_read(call, target, Err(error));
        }
        if offset + read.length as u64 > open.size {
            let error = failure::insufficient(&open.key, offset, read.length as u64, open.size);
            return self.answer_read(call, target, Err(error));
        }
        if read.length == 0 {
            return self.answer_read(call, target, Ok(()));
        }
        if cached {
            self.read_cached(read, target);
        } else {
            self.read_uncached(UncachedRead { read, target });
        }
    }

    fn read_cached(&mut self, read: Read, target: Buffer) {
        let blob = &self.blobs[read.blob];
        let op = Op::Read { file: blob.file.clone(), at: blob.data_at + read.offset, buffer: target };
        self.submit(Pending::Data(DataOp::Read(read)), op);
    }

    fn read_uncached(&mut self, UncachedRead { read, target }: UncachedRead) {
        let blob = &mut self.blobs[read.blob];
        match &mut blob.uncached {
            Uncached::Refused => self.read_cached(read, target),
            Uncached::Opening(waiting) => waiting.push(UncachedRead { read, target }),
            Uncached::Unknown => {
                blob.uncached = Uncached::Opening(vec![UncachedRead { read, target }]);
                let (path, file) = (blob.path.clone(), blob.file.clone());
                let pending = |slot| Pending::Data(DataOp::OpenUncached { blob: read.blob, slot });
                self.job(pending, move |fs| {
                    let options = OpenOptions { access: Access::Read, create: Create::Never, direct: true };
                    let opened = fs.open(&path, options).ok().filter(File::is_direct);
                    // Asked after opening: a name that leads to our file now did so then, as no file gets a name back.
                    Ok(opened.filter(|_| fs.is_linked(&file, &path).unwrap_or(false)))
                });
            }
            Uncached::Open(file) => {
                let (at, grain) = (blob.data_at + read.offset, GRAIN as u64);
                let start = at - at % grain;
                let end = (at + read.length as u64).next_multiple_of(grain);
                let skip = (at - start) as usize;
                let mut buffer = self.pool.take((end - start) as usize);
                buffer.resize((end - start) as usize);
                let op = Op::Read { file: file.clone(), at: start, buffer };
                self.submit(Pending::Data(DataOp::ReadUncached { read, target, skip }), op);
            }
        }
    }

    fn on_uncached_opened(&mut self, blob: usize, opened: Option<File>) {
        let found = opened.map_or(Uncached::Refused, Uncached::Open);
        let before = std::mem::replace(&mut self.blobs[blob].uncached, found);
        let Uncached::Opening(waiting) = before else { panic!("it was being opened") };
        for read in waiting {
            self.read_uncached(read);
        }
    }

    /// `count` bytes of those asked for are in the caller's memory. An engine that broke down keeps that: the kernel may
    /// still write to it.
    fn on_read(&mut self, read: Read, target: Option<Buffer>, count: Result<usize, ringbolt_disk::Error>) {
        let blob = &self.blobs[read.blob];
        let result = match count {
            Ok(count) if count >= read.length => Ok(()),
            Ok(_) => Err(failure::insufficient(&blob.key, read.offset, read.length as u64, blob.size)),
            Err(error) => Err(failure::of_blob(Code::BlobReadFailed, "reading", &blob.key, error)
                .with(|details| details.offset = Some(read.offset))),
        };
        match (target, result) {
            (Some(target), result) => self.answer_read(read.call, target, result),
            (None, result) => {
                let kept = || failure::bug("a read succeeded and its memory did not come back");
                self.answer(read.call, Err(result.err().unwrap_or_else(kept)));
            }
        }
    }

    /// Lent memory goes back before the answer does: who takes the answer may use it.
    fn answer_read(&mut self, call: CallKey, target: Buffer, result: Result<()>) {
        let answer = if target.is_lent() {
            drop(target);
            Answer::Done
        } else {
            Answer::Read(target)
        };
        self.answer(call, result.map(|()| answer));
    }

    // Changes

    pub(super) fn write(&mut self, call: CallKey, blob: usize, write: Write) {
        let open = &mut self.blobs[blob];
        let length = write.buffer.len() as u64;
        if let Err(error) = check_change(open, write.offset, length) {
            return self.answer(call, Err(error));
        }
        if length == 0 {
            return self.answer(call, Ok(Answer::Done));
        }
        let extent = Extent::Bytes(write.offset, write.offset + length);
        open.changes.push(extent, Change::Write { call, write });
        self.begin_changes(blob);
    }

    pub(super) fn resize(&mut self, call: CallKey, blob: usize, length: u64) {
        let open = &mut self.blobs[blob];
        if let Err(error) = check_change(open, length, 0) {
            return self.answer(call, Err(error));
        }
        open.changes.push(Extent::Whole, Change::Resize { call, length });
        self.begin_changes(blob);
    }

    fn begin_changes(&mut self, blob: usize) {
        // Its last handle may be gone by the answer that led here; then no change waits either.
        while let Some(open) = self.blobs.get_mut(blob)
            && let Some((ticket, change)) = open.changes.begin()
        {
            let file = open.file.clone();
            match change {
                Change::Write { call, write: Write { offset, buffer, sync, cached } } => {
                    let (changing, length) = (Changing { call, blob, ticket }, buffer.len() as u64);
                    let mode = if cached { WriteMode::Plain } else { WriteMode::Uncached };
                    let op = Op::Write { file, at: open.data_at + offset, buffer, mode };
                    self.submit(Pending::Data(DataOp::Write { changing, offset, length, sync }), op);
                }
                Change::Resize { call, length } => {
                    let op = Op::SetLen { file, len: open.data_at + length };
                    let changing = Changing { call, blob, ticket };
                    self.submit(Pending::Data(DataOp::Resize { changing, length }), op);
                }
            }
        }
    }

    fn on_written(
        &mut self,
        changing: Changing,
        (offset, length): (u64, u64),
        sync: bool,
        outcome: ringbolt_disk::Result<Outcome>,
    ) {
        let blob = &mut self.blobs[changing.blob];
        // Also where it failed: some of it may have been written.
        blob.flush.changed();
        match outcome {
            Ok(_) => {
                blob.size = blob.size.max(offset + length);
                blob.changes.finish(changing.ticket);
                if !sync {
                    self.answer(changing.call, Ok(Answer::Done));
                } else if let Some(first) = &blob.failure {
                    let error = failure::poisoned(&blob.key, first);
                    self.answer(changing.call, Err(error));
                } else {
                    blob.flush.join(changing.call);
                    self.begin_flush(changing.blob);
                }
                self.begin_changes(changing.blob);
            }
            Err(error) => {
                let written = error.offset.map_or(0, |at| at.saturating_sub(blob.data_at + offset));
                let error = failure::of_blob(Code::BlobWriteFailed, "writing", &blob.key, error);
                let error = error.with(|details| {
                    details.offset = Some(offset);
                    details.length = Some(length);
                    details.bytes_done = Some(written);
                });
                let file = blob.file.clone();
                let pending = |slot| Pending::Data(DataOp::Measure { changing, error, slot });
                let doing = "measuring";
                let key = blob.key.clone();
                self.job(pending, move |fs| {
                    fs.len(&file).map_err(|error| failure::of_blob(Code::BlobWriteFailed, doing, &key, error))
                });
            }
        }
    }

    fn on_measured(&mut self, changing: Changing, error: Error, len: Option<u64>) {
        let blob = &mut self.blobs[changing.blob];
        if let Some(len) = len {
            blob.size = len.saturating_sub(blob.data_at);
        }
        blob.changes.finish(changing.ticket);
        self.answer(changing.call, Err(error));
        self.begin_changes(changing.blob);
    }

    fn on_resized(&mut self, changing: Changing, length: u64, outcome: ringbolt_disk::Result<Outcome>) {
        let blob = &mut self.blobs[changing.blob];
        blob.changes.finish(changing.ticket);
        let result = match outcome {
            Ok(_) => {
                blob.flush.changed();
                blob.size = length;
                Ok(Answer::Done)
            }
            Err(error) => Err(failure::of_blob(Code::BlobResizeFailed, "resizing", &blob.key, error)
                .with(|details| details.length = Some(length))),
        };
        self.answer(changing.call, result);
        self.begin_changes(changing.blob);
    }

    // Flushes

    pub(super) fn sync(&mut self, call: CallKey, blob: usize) {
        let open = &mut self.blobs[blob];
        if let Some(first) = &open.failure {
            let error = failure::poisoned(&open.key, first);
            return self.answer(call, Err(error));
        }
        if open.flush.is_clean() {
            return self.answer(call, Ok(Answer::Done));
        }
        open.flush.join(call);
        self.begin_flush(blob);
    }

    fn begin_flush(&mut self, blob: usize) {
        // As in `begin_changes`: the answers before may have been the end of it.
        let Some(open) = self.blobs.get_mut(blob) else { return };
        if open.flush.begin() {
            let op = Op::Sync { file: open.file.clone() };
            self.calls.count_flush();
            self.submit(Pending::Data(DataOp::Flush { blob }), op);
        }
    }

    fn on_flushed(&mut self, blob: usize, outcome: ringbolt_disk::Result<Outcome>) {
        let open = &mut self.blobs[blob];
        let error = match outcome {
            Ok(_) => {
                for call in open.flush.succeeded() {
                    self.answer(call, Ok(Answer::Done));
                }
                return self.begin_flush(blob);
            }
            Err(error) => failure::of_blob(Code::BlobSyncFailed, "flushing", &open.key, error),
        };
        open.failure = Some(error.clone());
        let poisoned = failure::poisoned(&open.key, &error);
        let failed = open.flush.failed();
        let mut refused = open.flush.give_up();
        let changes = open.changes.give_up();
        refused.extend(changes.into_iter().map(|change| match change {
            Change::Write { call, .. } | Change::Resize { call, .. } => call,
        }));
        for call in failed {
            self.answer(call, Err(error.clone()));
        }
        for call in refused {
            self.answer(call, Err(poisoned.clone()));
        }
    }

    // The end

    /// A handle that is closed goes once its calls are answered, and with the last handle goes the blob.
    pub(super) fn settle_handle(&mut self, handle: usize) {
        let open = &self.handles[handle];
        if !open.is_closed || open.pending > 0 {
            return;
        }
        let gone = self.handles.remove(handle);
        let blob = &mut self.blobs[gone.blob];
        blob.handles -= 1;
        if blob.handles == 0 {
            let Blob { key, flush, failure, is_named, .. } = self.blobs.remove(gone.blob);
            if is_named {
                self.named.remove(&key);
                if let Some(failure) = failure {
                    self.left.insert(key, Left::Failed(failure));
                } else if !flush.is_clean() {
                    self.leave_unflushed(key);
                }
            }
        }
        if let Some(call) = gone.closing {
            self.answer(call, Ok(Answer::Done));
        }
    }

    pub(super) fn on_data(
        &mut self,
        op: DataOp,
        outcome: ringbolt_disk::Result<Outcome>,
        buffer: Option<Buffer>,
    ) {
        match op {
            DataOp::Read(read) => {
                self.on_read(read, buffer, outcome.map(|outcome| count_of(&outcome)));
            }
            DataOp::ReadUncached { read, mut target, skip } => {
                let count = outcome.map(|outcome| count_of(&outcome).saturating_sub(skip).min(read.length));
                if let Some(aligned) = buffer {
                    if let Ok(count) = count {
                        target[..count].copy_from_slice(&aligned[skip..skip + count]);
                    }
                    self.pool.give(aligned);
                }
                self.on_read(read, Some(target), count);
            }
            DataOp::OpenUncached { blob, slot } => {
                let opened = job_result(&slot, outcome).unwrap_or(None);
                self.on_uncached_opened(blob, opened);
            }
            DataOp::Write { changing, offset, length, sync } => {
                if let Some(buffer) = buffer {
                    self.pool.give(buffer);
                }
                self.on_written(changing, (offset, length), sync, outcome);
            }
            DataOp::Measure { changing, error, slot } => {
                let len = job_result(&slot, outcome);
                self.on_measured(changing, error, len.ok());
            }
            DataOp::Resize { changing, length } => self.on_resized(changing, length, outcome),
            DataOp::Flush { blob } => self.on_flushed(blob, outcome),
        }
    }
}

fn count_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Read(count) => *count,
        other => panic!("a read ended as {other:?}"),
    }
}

fn check_range(blob: &Blob, offset: u64, length: u64) -> Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= OFFSET_MAX => Ok(()),
        _ => Err(failure::overflow(&blob.key, offset, length)),
    }
}

/// Whether a change may be taken in.
fn check_change(blob: &Blob, offset: u64, length: u64) -> Result<()> {
    check_range(blob, offset, length)?;
    match &blob.failure {
        Some(first) => Err(failure::poisoned(&blob.key, first)),
        None => Ok(()),
    }
}
