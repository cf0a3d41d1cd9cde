//! The blob store's functions, free ones over the store's number. Those on the path of a read and a write are cheap.
//!
//! A call that takes an `id` is answered under it, once: `takeFinished` tells the ids, and `takeAnswer` what there is to
//! tell beyond "done". Ids are the facade's, and small: an index of its table.

#![expect(clippy::needless_pass_by_value, reason = "arguments are handed over by the crossing, vectors too")]

use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::BufferSlice;
use napi_derive::napi;
use ringbolt_core::Latency;
use ringbolt_core::blob::{BlobRequest, Layout, Options, Request, State};

use crate::backend::preference;
use crate::error::{NativeFailure, number, whole};
use crate::guard::guard;
use crate::lifecycle::{self, with_store};
use crate::store::OpenStore;

/// How to open a store: checked and completed by the facade.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct NativeStoreOptions {
    /// Absolute.
    pub directory: String,
    /// Make one where there is none.
    pub create: bool,
    /// `v0` or `v1`, of new blobs.
    pub layout: String,
    /// Operations at the disk at a time.
    pub queue_depth: u32,
    /// For the locks.
    pub lock_timeout_ms: f64,
    /// Permission bits.
    pub file_mode: u32,
    /// `auto`, or a backend's name.
    pub backend: String,
}

impl NativeStoreOptions {
    fn into_core(self) -> Options {
        Options {
            create: self.create,
            layout: if self.layout == "v0" { Layout::V0 } else { Layout::V1 },
            queue_depth: self.queue_depth as usize,
            lock_timeout: Duration::from_millis(whole(self.lock_timeout_ms)),
            file_mode: self.file_mode,
            ..Options::new(self.directory)
        }
    }
}

/// Start to open a store; returns its number, under which its news are announced.
#[napi]
pub fn open_store(environment: u32, options: NativeStoreOptions) -> napi::Result<u32> {
    guard(|| {
        let backend = preference(&options.backend);
        lifecycle::open_store(environment, options.into_core(), backend)
    })
}

/// Begin to close. The end shows in `takeFinished`.
#[napi]
pub fn close_store(store: u32) -> napi::Result<()> {
    with_store(store, OpenStore::close)
}

/// What runs an open store, and why that is not `io_uring`, where it could not be had.
#[napi]
pub fn store_backend(store: u32) -> napi::Result<Vec<String>> {
    with_store(store, |open| match open.core().state() {
        State::Open { backend, reason } => std::iter::once(backend.name().to_owned()).chain(reason).collect(),
        _ => Vec::new(),
    })
}

/// Why the store could not be opened.
#[napi]
pub fn store_failure(store: u32) -> napi::Result<Option<NativeFailure>> {
    with_store(store, |open| match open.core().state() {
        State::Failed(error) => Some(NativeFailure::from(&error)),
        _ => None,
    })
}

/// Write what is new into `news`, as u32: where the store is in its life (0 opening, 1 open, 2 failed, 3 closed), then
/// the ids that are answered, those of which `takeAnswer` has more to tell with the top bit set. Returns how many ids;
/// as many as fit means that there may be more.
#[napi]
pub fn take_finished(store: u32, mut news: BufferSlice<'_>) -> napi::Result<u32> {
    with_store(store, |open| {
        let (words, _) = news.as_chunks_mut();
        open.take_finished(words)
    })
}

/// The end of a call of which there is more to tell than that it is done. Only what applies is there.
#[napi(object, object_from_js = false)]
#[derive(Debug, Default)]
pub struct NativeBlobAnswer {
    /// Why it was not done.
    pub failure: Option<NativeFailure>,
    /// Of an open: the number of the handle.
    pub blob: Option<u32>,
    /// Of an open: the blob's version.
    pub version: Option<u32>,
    /// Of a list of partitions.
    pub partitions: Option<Vec<String>>,
    /// Of a list of blobs: the bytes that `takeNames` writes.
    pub names_bytes: Option<f64>,
}

/// The answer to `id`. A list of names is left for `takeNames`.
#[napi]
pub fn take_answer(store: u32, id: u32) -> napi::Result<NativeBlobAnswer> {
    with_store(store, |open| open.take_answer(id))
}

/// Write a list of names into `into`: each behind its length, which fits one byte.
#[napi]
pub fn take_names(store: u32, id: u32, mut into: BufferSlice<'_>) -> napi::Result<()> {
    with_store(store, |open| open.take_names(id, &mut into))
}

/// Open a blob.
#[napi]
pub fn open_blob(
    store: u32,
    id: u32,
    partition: String,
    name: &[u8],
    least: u16,
    most: u16,
    create: bool,
) -> napi::Result<()> {
    let name = name.to_vec();
    ask(store, id, Request::Open { partition, name, versions: (least, most), create })
}

/// Remove a blob.
#[napi]
pub fn remove_blob(store: u32, id: u32, partition: String, name: &[u8]) -> napi::Result<()> {
    ask(store, id, Request::Remove { partition, name: Some(name.to_vec()) })
}

/// Remove a partition and all that is in it.
#[napi]
pub fn remove_partition(store: u32, id: u32, partition: String) -> napi::Result<()> {
    ask(store, id, Request::Remove { partition, name: None })
}

/// List the blobs of a partition.
#[napi]
pub fn scan_partition(store: u32, id: u32, partition: String) -> napi::Result<()> {
    ask(store, id, Request::Scan { partition })
}

/// List the partitions.
#[napi]
pub fn list_partitions(store: u32, id: u32) -> napi::Result<()> {
    ask(store, id, Request::Partitions)
}

/// The size of an open blob.
#[napi]
pub fn blob_size(store: u32, blob: u32) -> napi::Result<f64> {
    with_store(store, |open| number(open.core().size(blob)))
}

/// Fill `into` from the page cache, now: `false` where that cannot be.
#[napi]
pub fn read_blob_now(store: u32, blob: u32, offset: f64, mut into: BufferSlice<'_>) -> napi::Result<bool> {
    with_store(store, |open| open.core().read_now(blob, whole(offset), &mut into))
}

/// Fill several buffers, which nobody else may have seen, nor may see before each is answered. `plan` has four doubles
/// for each: the blob's number, the offset, the id, and whether the page cache is used.
#[napi]
pub fn read_blobs(
    env: Env,
    store: u32,
    plan: BufferSlice<'_>,
    mut buffers: Vec<BufferSlice<'_>>,
) -> napi::Result<()> {
    with_store(store, |open| {
        let (words, _) = plan.as_chunks::<{ size_of::<f64>() }>();
        let mut requests = Vec::with_capacity(buffers.len());
        for (read, into) in words.chunks_exact(4).zip(&mut buffers) {
            let [blob, offset, id, cached] = [0, 1, 2, 3].map(|place| whole(f64::from_ne_bytes(read[place])));
            let (blob, id) = (blob as u32, id as u32);
            requests.push((id, open.reading(env, id, blob, offset, into, cached != 0)?));
        }
        open.core().request_all(requests);
        Ok(())
    })?
}

/// Fill several buffers from one blob. `plan` has two doubles for each: its offset and its id. The first `in_place` of them
/// are first tried as `readBlobNow` does; the id of each that this filled becomes -1 and is not answered.
#[napi]
pub fn read_blob_many(
    env: Env,
    store: u32,
    blob: u32,
    mut plan: BufferSlice<'_>,
    mut buffers: Vec<BufferSlice<'_>>,
    in_place: u32,
    cached: bool,
) -> napi::Result<()> {
    with_store(store, |open| {
        let (words, _) = plan.as_chunks_mut::<{ size_of::<f64>() }>();
        let mut requests = Vec::with_capacity(buffers.len());
        for (index, (range, into)) in words.chunks_exact_mut(2).zip(&mut buffers).enumerate() {
            let (offset, id) =
                (whole(f64::from_ne_bytes(range[0])), whole(f64::from_ne_bytes(range[1])) as u32);
            if index < in_place as usize && open.core().read_now(blob, offset, into) {
                range[1] = (-1.0_f64).to_ne_bytes();
            } else {
                requests.push((id, open.reading(env, id, blob, offset, into, cached)?));
            }
        }
        open.core().request_all(requests);
        Ok(())
    })?
}

/// Write `bytes`, which are copied before this returns.
#[napi]
pub fn write_blob(
    store: u32,
    id: u32,
    blob: u32,
    offset: f64,
    bytes: &[u8],
    sync: bool,
    cached: bool,
) -> napi::Result<()> {
    write(store, id, blob, offset, &[bytes], sync, cached)
}

/// The same for bytes that lie apart, one behind the other.
#[napi]
pub fn write_blob_chunks(
    store: u32,
    id: u32,
    blob: u32,
    offset: f64,
    chunks: Vec<&[u8]>,
    sync: bool,
    cached: bool,
) -> napi::Result<()> {
    write(store, id, blob, offset, &chunks, sync, cached)
}

fn write(
    store: u32,
    id: u32,
    blob: u32,
    offset: f64,
    chunks: &[&[u8]],
    sync: bool,
    cached: bool,
) -> napi::Result<()> {
    with_store(store, |open| {
        let mut buffer = open.core().pool().take(chunks.iter().map(|chunk| chunk.len()).sum());
        for chunk in chunks {
            buffer.extend(chunk);
        }
        let work = BlobRequest::Write { offset: whole(offset), buffer, sync, cached };
        open.core().request(id, Request::Blob { blob, work });
    })
}

/// Cut or extend a blob.
#[napi]
pub fn resize_blob(store: u32, id: u32, blob: u32, length: f64) -> napi::Result<()> {
    ask(store, id, Request::Blob { blob, work: BlobRequest::Resize { length: whole(length) } })
}

/// Make a blob's changes durable.
#[napi]
pub fn sync_blob(store: u32, id: u32, blob: u32) -> napi::Result<()> {
    ask(store, id, Request::Blob { blob, work: BlobRequest::Sync })
}

/// Close a handle.
#[napi]
pub fn close_blob(store: u32, id: u32, blob: u32) -> napi::Result<()> {
    ask(store, id, Request::Blob { blob, work: BlobRequest::Close })
}

fn ask(store: u32, id: u32, request: Request) -> napi::Result<()> {
    with_store(store, |open| open.core().request(id, request))
}

/// Figures since open.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeBlobStats {
    /// Reads that succeeded.
    pub reads: f64,
    /// The bytes they read.
    pub read_bytes: f64,
    /// Those served in place from the page cache.
    pub cached_reads: f64,
    /// Writes that succeeded.
    pub writes: f64,
    /// The bytes they wrote.
    pub write_bytes: f64,
    /// Syncs and durable writes that succeeded.
    pub syncs: f64,
    /// Flushes the disk was asked for.
    pub flushes: f64,
    /// Resizes that succeeded.
    pub resizes: f64,
    /// Calls that failed.
    pub errors: f64,
    /// Open handles.
    pub open_blobs: f64,
    /// Calls not answered yet.
    pub pending: f64,
    /// The age of the oldest of them.
    pub oldest_pending_ms: f64,
    /// Operations at the disk at a time.
    pub queue_depth: f64,
    /// Of reads that went to the disk.
    pub read_latency_ms: NativeLatency,
    /// Of writes that are not durable by themselves.
    pub write_latency_ms: NativeLatency,
    /// Of syncs and durable writes.
    pub sync_latency_ms: NativeLatency,
}

/// How long calls took, in milliseconds.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeLatency {
    /// Half of them at most.
    pub p50: f64,
    /// All but one in a hundred at most.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl From<Latency> for NativeLatency {
    fn from(latency: Latency) -> Self {
        Self {
            p50: milliseconds(latency.p50),
            p99: milliseconds(latency.p99),
            max: milliseconds(latency.max),
        }
    }
}

/// Figures since open.
#[napi]
pub fn store_stats(store: u32) -> napi::Result<NativeBlobStats> {
    with_store(store, |open| {
        let stats = open.core().stats();
        NativeBlobStats {
            reads: number(stats.reads),
            read_bytes: number(stats.read_bytes),
            cached_reads: number(stats.cached_reads),
            writes: number(stats.writes),
            write_bytes: number(stats.write_bytes),
            syncs: number(stats.syncs),
            flushes: number(stats.flushes),
            resizes: number(stats.resizes),
            errors: number(stats.errors),
            open_blobs: number(stats.open_blobs),
            pending: number(stats.pending),
            oldest_pending_ms: milliseconds(stats.oldest_pending),
            queue_depth: number(stats.queue_depth),
            read_latency_ms: stats.read_latency.into(),
            write_latency_ms: stats.write_latency.into(),
            sync_latency_ms: stats.sync_latency.into(),
        }
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
