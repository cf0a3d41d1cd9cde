//! A store as a state machine: requests go in, operations come out, completions go in, answers come out. No I/O, no
//! clock, no lock, so that a test can step it by hand.

pub(crate) mod data;
mod names;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringbolt_disk::{Done, File, Fs, Op, Outcome, Pool, Time, Token};
use slab::Slab;

use crate::blob::calls::{CallKey, Calls, Kind};
use crate::blob::failure;
use crate::blob::file::Blob;
use crate::blob::flush::Flush;
use crate::blob::names::Key;
use crate::blob::options::Options;
use crate::blob::root::Leaving;
use crate::blob::stats::Stats;
use crate::blob::{Answer, BlobRequest, Finished, Layout, Request};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};

use data::DataOp;
use names::{Left, NamesOp, Partition, RootWaiter, Waiting};

/// What a machine is told at its beginning.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The store's directory.
    pub(crate) root: PathBuf,
    /// Of blobs made from now on.
    pub(crate) layout: Layout,
    /// Permission bits of files made from now on.
    pub(crate) file_mode: u32,
    /// How long to try for the lock of a blob's file.
    pub(crate) lock_timeout: Duration,
}

/// Of so many blobs it is remembered that they were flushed since an unsettled store was opened. Others are flushed by
/// each open.
const FLUSHED_MAX: usize = 1 << 16;

impl Config {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            root: options.directory.clone(),
            layout: options.layout,
            file_mode: options.file_mode,
            lock_timeout: options.lock_timeout,
        }
    }
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    pool: Arc<Pool>,
    now: Time,
    is_closing: bool,
    /// A mistake of ours was found: completions are only counted.
    is_broken: bool,
    calls: Calls,
    handles: Slab<Handle>,
    blobs: Slab<Blob>,
    /// The open blobs that have their names.
    named: HashMap<Arc<Key>, usize>,
    /// What must be remembered about blobs that are closed.
    left: HashMap<Arc<Key>, Left>,
    /// Where the store was not settled when it was opened: the blobs that were flushed since, or made.
    flushed: Option<HashSet<Arc<Key>>>,
    /// Those that something is or was done in.
    partitions: HashMap<String, Partition>,
    /// Partitions in which something was queued or ended since [`Machine::begin_errands`] looked.
    restless: Vec<String>,
    /// Those of `left` that are being flushed now.
    flushing_left: HashSet<Arc<Key>>,
    /// Opens of these, which wait for that.
    behind_left: Vec<Waiting>,
    /// The names of the partitions.
    root_names: Flush<RootWaiter>,
    /// Blobs that are being changed now.
    changing: usize,
    /// Blobs in which a write ended that waits for a flush: one for all that are told of at once.
    unflushed: Vec<usize>,
    /// What every operation that is out is for. Its token is its place here.
    out: Slab<Pending>,
    /// Operations to be submitted.
    ops: Vec<(Token, Op)>,
}

/// One `open` of a blob.
#[derive(Debug)]
struct Handle {
    blob: usize,
    /// Calls through it that are not answered.
    pending: usize,
    is_closed: bool,
    /// Who closed it, and waits for those calls to be answered.
    closing: Option<CallKey>,
}

/// What an operation is for.
#[derive(Debug)]
enum Pending {
    Names(NamesOp),
    Data(DataOp),
}

/// Where a job leaves what it came to; what travels in its `Done` is only whether it ran.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    fn new() -> (Self, Self) {
        let slot = Arc::new(Mutex::new(None));
        (Self(Arc::clone(&slot)), Self(slot))
    }

    fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Machine {
    pub(crate) fn new(config: Config, pool: Arc<Pool>) -> Self {
        Self {
            config,
            pool,
            now: Time::default(),
            is_closing: false,
            is_broken: false,
            calls: Calls::default(),
            handles: Slab::new(),
            blobs: Slab::new(),
            named: HashMap::new(),
            left: HashMap::new(),
            flushed: None,
            partitions: HashMap::new(),
            restless: Vec::new(),
            flushing_left: HashSet::new(),
            behind_left: Vec::new(),
            root_names: Flush::default(),
            changing: 0,
            unflushed: Vec::new(),
            out: Slab::new(),
            ops: Vec::new(),
        }
    }

    /// What lies in the store may not be durable, and more of it may come: see [`crate::blob::root::Root`].
    pub(crate) fn distrust(&mut self) {
        if planted::is(Bug::TrustUnsettled) {
            return;
        }
        self.flushed = Some(HashSet::new());
    }

    /// Whether everything that was done in the store is durable.
    fn is_durable(&self) -> bool {
        !self.is_broken
            && self.left.is_empty()
            && self.root_names.is_clean()
            && self.partitions.values().all(|partition| partition.names.is_clean())
            && self.blobs.iter().all(|(_, blob)| blob.failure.is_none() && blob.flush.is_clean())
    }

    /// Take a request in. It is answered once, in [`Machine::finished`], whatever happens.
    pub(crate) fn request(&mut self, now: Time, id: u32, request: Request) {
        self.now = now;
        let kind = request.kind();
        if self.is_closing {
            let call = self.calls.begin(now, id, kind, None);
            return self.answer(call, Err(failure::store_closed(&self.config.root)));
        }
        let call = match request {
            // Through a handle, which knows of it.
            Request::Blob { blob, work } => return self.blob_request(id, kind, blob as usize, work),
            _ => self.calls.begin(now, id, kind, None),
        };
        match request {
            Request::Open { partition, name, versions, create } => {
                self.open(call, partition, name, versions, create);
            }
            Request::Remove { partition, name } => self.remove(call, partition, name),
            Request::Scan { partition } => self.scan(call, &partition),
            Request::Partitions => self.list_partitions(call),
            Request::Blob { .. } => unreachable!("it was taken above"),
        }
        self.begin_errands();
    }

    fn blob_request(&mut self, id: u32, kind: Kind, handle: usize, work: BlobRequest) {
        let Some(open) = self.handles.get_mut(handle).filter(|handle| !handle.is_closed) else {
            let call = self.calls.begin(self.now, id, kind, None);
            return self.answer(call, Err(failure::closed()));
        };
        let blob = open.blob;
        // Closing waits for the calls before it, and not for itself.
        if matches!(work, BlobRequest::Close) {
            let call = self.calls.begin(self.now, id, kind, None);
            open.is_closed = true;
            open.closing = Some(call);
            return self.settle_handle(handle);
        }
        open.pending += 1;
        let call = self.calls.begin(self.now, id, kind, Some(handle));
        match work {
            BlobRequest::Read { offset, buffer, cached } => self.read(call, blob, offset, buffer, cached),
            BlobRequest::Write { offset, buffer, sync, cached } => {
                self.write(call, blob, offset, buffer, (sync, cached));
            }
            BlobRequest::Resize { length } => self.resize(call, blob, length),
            BlobRequest::Sync => self.sync(call, blob),
            BlobRequest::Close => unreachable!("it was taken above"),
        }
    }

    /// Take a completion in.
    pub(crate) fn on_done(&mut self, now: Time, done: Done) {
        self.now = now;
        let Done { token, outcome, buffer } = done;
        let pending = self.out.remove(token.0 as usize);
        if self.is_broken {
            return;
        }
        match pending {
            Pending::Names(op) => self.on_names(op, outcome),
            Pending::Data(op) => self.on_data(op, outcome, buffer),
        }
        self.begin_errands();
    }

    /// Move out what is to be submitted.
    pub(crate) fn take_ops(&mut self, ops: &mut Vec<(Token, Op)>) {
        while let Some(blob) = self.unflushed.pop() {
            self.begin_flush(blob);
        }
        ops.append(&mut self.ops);
    }

    /// The answers since they were last taken.
    pub(crate) fn finished(&mut self) -> &mut Vec<Finished> {
        self.calls.finished()
    }

    /// From now on requests are refused; those under way are answered as they end.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Closed, and nothing is under way any more: files and locks may go.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_closing && self.calls.is_empty() && self.out.is_empty()
    }

    /// Let go of every file. Nothing is under way any more.
    pub(crate) fn let_go(&mut self) -> Leaving {
        assert!(self.is_finished(), "operations have files of their own, and answers need their handles");
        let leaving = Leaving { is_durable: self.is_durable(), flushed: self.flushed.take() };
        self.handles.clear();
        self.blobs.clear();
        self.named.clear();
        leaving
    }

    /// A mistake of ours was found: everybody is told, and nothing more is done.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.is_closing = true;
        self.is_broken = true;
        self.calls.answer_all(error);
        self.unflushed.clear();
        for (token, _) in self.ops.drain(..) {
            self.out.remove(token.0 as usize);
        }
    }

    /// The file of a handle, the place of its data in it and the size: for a read in place.
    pub(crate) fn file(&self, handle: u32) -> Option<(&File, u64, u64)> {
        let handle = self.handles.get(handle as usize).filter(|handle| !handle.is_closed)?;
        let blob = &self.blobs[handle.blob];
        Some((&blob.file, blob.data_at, blob.size))
    }

    /// A read was served in place.
    pub(crate) fn count_cached_read(&mut self, bytes: u64) {
        self.calls.count_cached_read(bytes);
    }

    pub(crate) fn stats(&self, now: Time) -> Stats {
        let open = self.handles.iter().filter(|(_, handle)| !handle.is_closed).count();
        Stats { open_blobs: open as u64, ..self.calls.stats(now) }
    }

    // What both halves use.

    fn answer(&mut self, call: CallKey, result: Result<Answer>) {
        let Some(handle) = self.calls.answer(self.now, call, result) else { return };
        self.handles[handle].pending -= 1;
        self.settle_handle(handle);
    }

    fn submit(&mut self, pending: Pending, op: Op) {
        let token = Token(self.out.insert(pending) as u64);
        self.ops.push((token, op));
    }

    /// Submit a job; `pending` makes of the place where it will leave its value what it is for.
    fn job<T: Send + 'static>(
        &mut self,
        pending: impl FnOnce(Slot<T>) -> Pending,
        work: impl FnOnce(&dyn Fs) -> T + Send + 'static,
    ) {
        let (mine, its) = Slot::new();
        let job = move |fs: &dyn Fs| {
            its.put(work(fs));
            Ok(None)
        };
        self.submit(pending(mine), Op::Job(Box::new(job)));
    }
}

/// What a job came to. One that panicked left nothing.
fn job_result<T>(slot: &Slot<Result<T>>, outcome: ringbolt_disk::Result<Outcome>) -> Result<T> {
    match slot.take() {
        Some(result) => result,
        None => Err(failure::job(outcome.err())),
    }
}

impl Request {
    fn kind(&self) -> Kind {
        match self {
            Self::Blob { work: BlobRequest::Read { buffer, .. }, .. } => {
                Kind::Read { bytes: buffer.len() as u64 }
            }
            Self::Blob { work: BlobRequest::Write { buffer, sync, .. }, .. } => {
                Kind::Write { bytes: buffer.len() as u64, is_durable: *sync }
            }
            Self::Blob { work: BlobRequest::Resize { .. }, .. } => Kind::Resize,
            Self::Blob { work: BlobRequest::Sync, .. } => Kind::Sync,
            _ => Kind::Name,
        }
    }
}
