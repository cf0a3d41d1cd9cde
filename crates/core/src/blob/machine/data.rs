//! What is done to the bytes of open blobs: reads, changes, flushes, and the end of a handle.

use std::ops::Range;

use ringbolt_disk::{Access, Buffer, Create, Errno, File, GRAIN, Op, OpenOptions, Outcome, WriteMode};

use crate::blob::calls::CallKey;
use crate::blob::change::{self, Change, Changed, End, What};
use crate::blob::failure;
use crate::blob::file::{Blob, Uncached};
use crate::blob::machine::names::Left;
use crate::blob::machine::{Machine, Pending, Slot, job_result};
use crate::blob::{Answer, OFFSET_MAX};
use crate::error::{Code, Error, Result};
use crate::planted::{self, Bug};

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
        slot: Slot<Result<Option<Opened>>>,
    },
    /// A write past the page cache.
    Direct(DirectWrite),
    /// The job that makes changes.
    Change {
        blob: usize,
        slot: Slot<Result<Changed>>,
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

/// A write past the page cache that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectWrite {
    call: CallKey,
    blob: usize,
    offset: u64,
    /// Its number among those of the blob.
    number: usize,
    /// Whether the page cache may keep it, where that is written after all.
    cached: bool,
}

/// The blob's file, opened once more.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    is_locked: bool,
    /// Up to where the file has no holes.
    written: u64,
}

/// What is done next to a blob's bytes.
enum Next {
    /// The changes that wait, in a job.
    Job,
    /// A write past the page cache.
    Direct { file: File, change: Change, place: Range<u64> },
}

/// A read that is to pass by the page cache.
#[derive(Debug)]
pub(crate) struct UncachedRead {
    read: Read,
    target: Buffer,
}

/// While so many blobs are being changed, the next job does not flush by itself: the ring flushes more of them at a time
/// than there are helpers.
const CHANGING_WITH_FLUSH_MAX: usize = 2;

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
            Uncached::Unknown => self.open_uncached(read.blob, vec![UncachedRead { read, target }]),
            Uncached::Open { file, .. } => {
                let (at, grain) = (blob.data_at + read.offset, GRAIN as u64);
                let start = at - at % grain;
                let end = (at + read.length as u64).next_multiple_of(grain);
                let skip = (at - start) as usize;
                let mut buffer = self.pool.take((end - start) as usize);
                // What the read does not fill nobody is given.
                buffer.resize_stale((end - start) as usize);
                let op = Op::Read { file: file.clone(), at: start, buffer };
                self.submit(Pending::Data(DataOp::ReadUncached { read, target, skip }), op);
            }
        }
    }

    /// Open the file once more; these wait for it.
    fn open_uncached(&mut self, blob: usize, waiting: Vec<UncachedRead>) {
        let open = &mut self.blobs[blob];
        open.uncached = Uncached::Opening(waiting);
        let (path, file) = (open.path.clone(), open.file.clone());
        let pending = |slot| Pending::Data(DataOp::OpenUncached { blob, slot });
        let is_lock_skipped = planted::is(Bug::DirectUnlocked);
        self.job(pending, move |fs| {
            let options = OpenOptions { access: Access::ReadWrite, create: Create::Never, direct: true };
            let opened = fs.open(&path, options).ok().filter(File::is_direct);
            // Asked after opening: a name that leads to our file now did so then, as no file gets a name back.
            let Some(direct) = opened.filter(|_| fs.is_linked(&file, &path).unwrap_or(false)) else {
                return Ok(None);
            };
            // Others are kept out by the store's lock.
            let is_locked = is_lock_skipped || fs.share_lock(&file, &direct).unwrap_or(false);
            let written = fs.written_len(&file).unwrap_or(0);
            Ok(Some(Opened { file: direct, is_locked, written }))
        });
    }

    fn on_uncached_opened(&mut self, blob: usize, opened: Option<Opened>) {
        let open = &mut self.blobs[blob];
        let found = match opened {
            Some(Opened { file, is_locked, written }) => {
                open.direct.found_written(written);
                Uncached::Open { file, is_locked }
            }
            None => Uncached::Refused,
        };
        let before = std::mem::replace(&mut open.uncached, found);
        let Uncached::Opening(waiting) = before else { panic!("it was being opened") };
        for read in waiting {
            self.read_uncached(read);
        }
        // Nobody may have waited for it, and every handle be closed.
        self.settle_blob(blob);
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

    pub(super) fn write(
        &mut self,
        call: CallKey,
        blob: usize,
        offset: u64,
        buffer: Buffer,
        (sync, cached): (bool, bool),
    ) {
        let length = buffer.len() as u64;
        if let Err(error) = check_change(&self.blobs[blob], offset, length) {
            return self.answer(call, Err(error));
        }
        if length == 0 {
            return self.answer(call, Ok(Answer::Done));
        }
        self.change(blob, Change { call, what: What::Write { offset, buffer }, sync, cached });
    }

    pub(super) fn resize(&mut self, call: CallKey, blob: usize, length: u64) {
        if let Err(error) = check_change(&self.blobs[blob], length, 0) {
            return self.answer(call, Err(error));
        }
        self.change(blob, Change { call, what: What::Resize { length }, sync: false, cached: true });
    }

    fn change(&mut self, blob: usize, change: Change) {
        self.blobs[blob].changes.push_back(change);
        self.begin_changes(blob);
    }

    /// Send what waits to be changed, as far as it may be made beside what is under way: what comes meanwhile is the next.
    fn begin_changes(&mut self, blob: usize) {
        while let Some(next) = self.next_change(blob) {
            match next {
                Next::Job => self.begin_job(blob),
                Next::Direct { file, change, place } => self.begin_direct(blob, file, change, place),
            }
        }
    }

    fn next_change(&mut self, blob: usize) -> Option<Next> {
        // Its last handle may be gone by the answer that led here; then no change waits either.
        let open = self.blobs.get_mut(blob)?;
        if open.is_changing {
            return None;
        }
        let place = direct_place(open, open.changes.front()?);
        if place.is_some() && matches!(open.uncached, Uncached::Unknown) {
            // It is not waited for.
            self.open_uncached(blob, Vec::new());
        }
        let open = &mut self.blobs[blob];
        if let (Some(place), Uncached::Open { file, is_locked: true }) = (place, &open.uncached)
            && open.direct.is_written(&place)
        {
            if !open.direct.has_room(&place) {
                return None;
            }
            let (file, change) = (file.clone(), open.changes.pop_front()?);
            return Some(Next::Direct { file, change, place });
        }
        (open.direct.is_idle() || planted::is(Bug::DirectBesideChanges)).then_some(Next::Job)
    }

    /// Begin a job that makes changes; no other is under way.
    fn begin_job(&mut self, blob: usize) {
        let open = &mut self.blobs[blob];
        let batch = change::take_batch(&mut open.changes);
        // Where all of them wait for a flush, and none is under way that it would have to follow, the same job does it:
        // that spares the way back and forth.
        let with_flush = batch.iter().all(|change| change.sync)
            && !open.flush.is_running()
            && self.changing < CHANGING_WITH_FLUSH_MAX;
        if with_flush {
            self.calls.count_flush();
        }
        open.is_changing = true;
        open.is_flushed_by_change = with_flush;
        self.changing += 1;
        let (file, data_at) = (open.file.clone(), open.data_at);
        let pending = |slot| Pending::Data(DataOp::Change { blob, slot });
        self.job(pending, move |fs| Ok(change::make(fs, &file, data_at, batch, with_flush)));
    }

    /// Send a write past the page cache.
    fn begin_direct(&mut self, blob: usize, file: File, change: Change, place: Range<u64>) {
        let Change { call, what: What::Write { offset, buffer }, cached, .. } = change else {
            panic!("a resize has no bytes")
        };
        let at = place.start;
        let number = self.blobs[blob].direct.begin(place);
        let write = DirectWrite { call, blob, offset, number, cached };
        let op = Op::Write { file, at, buffer, mode: WriteMode::Plain };
        self.submit(Pending::Data(DataOp::Direct(write)), op);
    }

    fn on_direct(
        &mut self,
        DirectWrite { call, blob, offset, number, cached }: DirectWrite,
        buffer: Option<Buffer>,
        written: ringbolt_disk::Result<()>,
    ) {
        let open = &mut self.blobs[blob];
        open.direct.end(number);
        // Also where it failed: some of it may have been made.
        open.flush.changed();
        let Some(buffer) = buffer else {
            // An engine that broke down: the kernel may still have it, and write it over what comes after.
            let lost = || failure::bug("a write succeeded and its memory did not come back");
            let failed = |error| failure::of_blob(Code::BlobWriteFailed, "writing", &open.key, error);
            let error = written.err().map_or_else(lost, failed).with(|details| details.offset = Some(offset));
            let refused = self.poison(blob, &error);
            self.answer(call, Err(error));
            return self.answer_all(refused);
        };
        let what = What::Write { offset, buffer };
        let answer = match (written, &open.failure) {
            (Ok(()), None) if planted::is(Bug::DirectBeforeFlush) => Some(Ok(Answer::Done)),
            (Ok(()), None) => {
                open.flush.join(call);
                None
            }
            (Err(error), None) if is_refusal(&error) => {
                // The file system takes files past the page cache, and no such write. It is still the first of those it
                // is in the way of.
                open.uncached = Uncached::Refused;
                open.changes.push_front(Change { call, what, sync: true, cached });
                return self.begin_changes(blob);
            }
            (Err(error), _) => Some(Err(what.failure(&open.key, open.data_at, error))),
            (Ok(()), Some(first)) => Some(Err(failure::poisoned(&open.key, first))),
        };
        if let What::Write { buffer, .. } = what {
            self.pool.give(buffer);
        }
        self.unflushed.push(blob);
        if let Some(answer) = answer {
            self.answer(call, answer);
        }
        self.begin_changes(blob);
    }

    fn on_changed(&mut self, blob: usize, changed: Result<Changed>) {
        self.changing -= 1;
        let open = &mut self.blobs[blob];
        open.is_changing = false;
        open.is_flushed_by_change = false;
        let Changed { ends, flushed } = match changed {
            Ok(changed) => changed,
            // Nobody knows any more whose calls it had.
            Err(error) => panic!("changing the blob {}: {error}", open.key),
        };
        // Answered behind the last of them: that may be the end of the blob.
        let mut answers = Vec::new();
        for End { change: Change { call, what, sync, .. }, result, len } in ends {
            // Also where it failed: some of it may have been made.
            open.flush.changed();
            match (&what, result) {
                (_, Err(error)) => {
                    open.size = len.map_or(open.size, |len| len.saturating_sub(open.data_at));
                    answers.push((call, Err(what.failure(&open.key, open.data_at, error))));
                }
                (done, Ok(())) => {
                    open.size = match done {
                        What::Write { offset, buffer } => {
                            let (start, end) = (*offset, offset + buffer.len() as u64);
                            open.direct.wrote(&(open.data_at + start..open.data_at + end));
                            open.size.max(end)
                        }
                        What::Resize { length } => {
                            open.direct.resized(open.data_at + length);
                            *length
                        }
                    };
                    match &open.failure {
                        Some(first) if sync => answers.push((call, Err(failure::poisoned(&open.key, first)))),
                        None if sync => open.flush.join(call),
                        _ => answers.push((call, Ok(Answer::Done))),
                    }
                }
            }
            if let What::Write { buffer, .. } = what {
                self.pool.give(buffer);
            }
        }
        if let Some(flushed) = flushed {
            // It covers all that was complete when it began: what the job changed, and what was changed before it.
            open.flush.begin_anyway();
            self.flush_ended(blob, flushed);
        }
        self.answer_all(answers);
        self.begin_changes(blob);
        self.begin_flush(blob);
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
        if planted::is(Bug::SyncBeforeFlush) {
            return self.answer(call, Ok(Answer::Done));
        }
        open.flush.join(call);
        self.begin_flush(blob);
    }

    pub(super) fn begin_flush(&mut self, blob: usize) {
        // As in `begin_changes`: the answers before may have been the end of it.
        let Some(open) = self.blobs.get_mut(blob) else { return };
        // A job that will flush does so for these too: what they wait for was complete before it began.
        if !open.is_flushed_by_change && open.flush.begin() {
            let op = Op::Sync { file: open.file.clone() };
            self.calls.count_flush();
            self.submit(Pending::Data(DataOp::Flush { blob }), op);
        }
    }

    fn flush_ended(&mut self, blob: usize, flushed: ringbolt_disk::Result<()>) {
        let open = &mut self.blobs[blob];
        let error = match flushed {
            Ok(()) => {
                let calls = open.flush.succeeded();
                open.direct.flushed(calls.len() + open.waiting());
                for call in calls {
                    self.answer(call, Ok(Answer::Done));
                }
                return;
            }
            Err(error) => failure::of_blob(Code::BlobSyncFailed, "flushing", &open.key, error),
        };
        let failed = open.flush.failed();
        let refused = self.poison(blob, &error);
        for call in failed {
            self.answer(call, Err(error.clone()));
        }
        self.answer_all(refused);
    }

    /// A blob takes no more changes, for this reason. Takes out the calls that wait, with what they are to be answered: not
    /// here, as the last answer may be the end of the blob.
    fn poison(&mut self, blob: usize, error: &Error) -> Vec<(CallKey, Result<Answer>)> {
        let open = &mut self.blobs[blob];
        if !planted::is(Bug::ForgetFailedFlush) {
            open.failure.get_or_insert_with(|| error.clone());
        }
        let poisoned = failure::poisoned(&open.key, error);
        let waiting =
            open.flush.give_up().into_iter().chain(open.changes.drain(..).map(|change| change.call));
        waiting.map(|call| (call, Err(poisoned.clone()))).collect()
    }

    fn answer_all(&mut self, answers: Vec<(CallKey, Result<Answer>)>) {
        for (call, result) in answers {
            self.answer(call, result);
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
        self.blobs[gone.blob].handles -= 1;
        self.settle_blob(gone.blob);
        if let Some(call) = gone.closing {
            self.answer(call, Ok(Answer::Done));
        }
    }

    /// A blob that no handle is left of goes. Not while a job opens its file once more, which holds the file and with it the
    /// lock: whoever opens the blob meanwhile would find it locked, and gets a handle of this one.
    fn settle_blob(&mut self, blob: usize) {
        let open = &self.blobs[blob];
        if open.handles > 0 || matches!(open.uncached, Uncached::Opening(_)) {
            return;
        }
        let Blob { key, flush, failure, is_named, .. } = self.blobs.remove(blob);
        if is_named {
            self.named.remove(&key);
            if let Some(failure) = failure {
                self.left.insert(key, Left::Failed(failure));
            } else if !flush.is_clean() {
                self.leave_unflushed(key);
            }
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
            DataOp::Direct(write) => self.on_direct(write, buffer, outcome.map(drop)),
            DataOp::Change { blob, slot } => {
                let changed = job_result(&slot, outcome);
                self.on_changed(blob, changed);
            }
            DataOp::Flush { blob } => {
                self.flush_ended(blob, outcome.map(drop));
                self.begin_flush(blob);
            }
        }
    }
}

fn count_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Read(count) => *count,
        other => panic!("a read ended as {other:?}"),
    }
}

/// Where a change goes in the file, if it may pass by the page cache there.
fn direct_place(blob: &Blob, change: &Change) -> Option<Range<u64>> {
    let What::Write { offset, buffer } = &change.what else { return None };
    let (start, length) = (blob.data_at + offset, buffer.len() as u64);
    let is_whole = start.is_multiple_of(GRAIN as u64) && length.is_multiple_of(GRAIN as u64);
    let is_inside = offset + length <= blob.size;
    // Lent memory is not aligned.
    let is_fit = change.sync && is_whole && is_inside && !buffer.is_lent();
    (is_fit && blob.direct.is_crowded(blob.waiting())).then(|| start..start + length)
}

/// Whether it says that the file takes no such write, rather than that this one failed.
fn is_refusal(error: &ringbolt_disk::Error) -> bool {
    [Errno::INVAL, Errno::NOTSUP].iter().any(|refusal| error.errno == refusal.raw_os_error())
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
