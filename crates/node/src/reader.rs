//! Records on their way to JavaScript. A reader blocks, so each chunk is a task of libuv's thread pool; it is
//! independent of its log's life, which may close meanwhile.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{AsyncTask, BufferSlice};
use napi::{Env, ScopedTask};
use napi_derive::napi;
use ringbolt_core::wal::{Chunk, Salvager, Source, key_value};

use crate::error::{NativeFailure, number, whole};
use crate::guard::guard;
use crate::lifecycle;
use crate::wal::sequences;

/// A range of records being read.
#[napi]
pub struct NativeReader {
    state: Arc<Mutex<State>>,
}

type Open = Box<dyn FnOnce() -> ringbolt_core::Result<State> + Send>;

enum State {
    /// Opened by the first task: that reads files too.
    Ahead(Open),
    Open(Box<dyn Source>),
    /// What is intact of a damaged log.
    Salvage(Box<Salvager>),
    /// The same of entries.
    SalvageEntries(Box<key_value::Salvage>),
    /// It could not be opened; the first chunk tells.
    Refused(ringbolt_core::Error),
    /// At the end, failed, or let go of.
    Over,
}

/// Begin to read the records `from..=to`, those that are durable now. Opens no file yet, so it does not block; what
/// it reads is settled here, and the log may close meanwhile.
#[napi]
pub fn open_reader(wal: u32, from: f64, to: f64) -> napi::Result<NativeReader> {
    lifecycle::with_log(wal, |log| {
        let state = match log.read(whole(from), whole(to)) {
            Ok(reader) => State::Open(reader),
            Err(error) => State::Refused(error),
        };
        NativeReader { state: Arc::new(Mutex::new(state)) }
    })
}

/// Begin to read a log that somebody else may be writing: records `from..=to`, without `from` all that are kept.
#[napi]
pub fn open_whole_reader(
    directory: String,
    format: String,
    sequences: String,
    from: Option<f64>,
    to: f64,
) -> NativeReader {
    let (from, to) = (from.map(whole), whole(to));
    NativeReader::ahead(move || {
        let fs = ringbolt_disk::file_system();
        let source = if format == "entries" {
            key_value::read(fs, &directory, self::sequences(&sequences), from, to)
        } else {
            ringbolt_core::wal::read(fs, Path::new(&directory), from, Some(to))
        };
        source.map(State::Open)
    })
}

/// Begin to read what is intact of a log, damaged or not.
#[napi]
pub fn open_salvage(directory: String, format: String) -> NativeReader {
    NativeReader::ahead(move || {
        let fs = ringbolt_disk::file_system();
        if format == "entries" {
            key_value::salvage(fs, &directory).map(|salvage| State::SalvageEntries(Box::new(salvage)))
        } else {
            ringbolt_core::wal::salvage(fs, Path::new(&directory))
                .map(|salvager| State::Salvage(Box::new(salvager)))
        }
    })
}

/// What there should be in a log that is salvaged. Everything is known once the reading has ended.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeExtent {
    /// The first LSN, where something tells.
    pub first_lsn: Option<f64>,
    /// The last LSN that something tells of; 0 where nothing does.
    pub last_lsn: f64,
    /// The size of the largest segment; 0 where nothing tells.
    pub segment_bytes: f64,
}

impl NativeExtent {
    fn of(salvager: &Salvager) -> Self {
        Self {
            first_lsn: salvager.first_lsn().map(number),
            last_lsn: number(salvager.last_lsn()),
            segment_bytes: number(salvager.segment_bytes()),
        }
    }
}

impl NativeReader {
    /// One that is opened by its first task.
    fn ahead(open: impl FnOnce() -> ringbolt_core::Result<State> + Send + 'static) -> Self {
        Self { state: Arc::new(Mutex::new(State::Ahead(Box::new(open)))) }
    }
}

/// The next records, about `bytes` of them. One call at a time.
#[napi(ts_return_type = "Promise<NativeChunk>")]
pub fn read_chunk(reader: &NativeReader, bytes: u32) -> AsyncTask<ReadChunk> {
    AsyncTask::new(ReadChunk { state: Arc::clone(&reader.state), bytes: bytes as usize })
}

/// Go on up to `to`, which has become durable since. Not while a chunk is being read.
#[napi]
pub fn extend_reader(reader: &NativeReader, to: f64) -> napi::Result<()> {
    guard(|| {
        if let State::Open(source) = &mut *reader.state.lock().unwrap_or_else(PoisonError::into_inner) {
            source.extend(whole(to));
        }
    })
}

/// Let go of a reader's files without waiting for a garbage collection. Not while a chunk is being read.
#[napi]
pub fn close_reader(reader: &NativeReader) -> napi::Result<()> {
    guard(|| {
        *reader.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Over;
    })
}

/// Reads one chunk.
pub struct ReadChunk {
    state: Arc<Mutex<State>>,
    bytes: usize,
}

/// What was read: records, or why there are none, or neither at the end.
#[napi(object, object_from_js = false)]
pub struct NativeChunk<'env> {
    /// The LSN of the first record.
    pub first_lsn: f64,
    /// How many records.
    pub count: u32,
    /// Each behind its length as a little-endian u32. JavaScript's own memory: it was copied.
    pub bytes: Option<BufferSlice<'env>>,
    /// Why reading ended here.
    pub failure: Option<NativeFailure>,
    /// Of a salvage: what there should be, as far as it is known by now.
    pub extent: Option<NativeExtent>,
}

impl<'env> ScopedTask<'env> for ReadChunk {
    type Output = (ringbolt_core::Result<Option<Chunk>>, Option<NativeExtent>);
    type JsValue = NativeChunk<'env>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        guard(|| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let chunk = state.next(self.bytes);
            let extent = match &*state {
                State::Salvage(salvager) => Some(NativeExtent::of(salvager)),
                State::SalvageEntries(salvage) => Some(NativeExtent {
                    first_lsn: None,
                    last_lsn: number(salvage.last_lsn()),
                    segment_bytes: 0.0,
                }),
                _ => None,
            };
            if chunk.is_err() {
                *state = State::Over;
            }
            (chunk, extent)
        })
    }

    fn resolve(&mut self, env: &'env Env, (read, extent): Self::Output) -> napi::Result<NativeChunk<'env>> {
        let (chunk, failure) = match read {
            Ok(chunk) => (chunk, None),
            Err(error) => (None, Some(NativeFailure::from(&error))),
        };
        Ok(match chunk {
            Some(chunk) => NativeChunk {
                first_lsn: number(chunk.first_lsn),
                count: chunk.count,
                bytes: Some(BufferSlice::copy_from(env, &chunk.bytes)?),
                failure,
                extent,
            },
            None => NativeChunk { first_lsn: 0.0, count: 0, bytes: None, failure, extent },
        })
    }
}

impl State {
    fn next(&mut self, bytes: usize) -> ringbolt_core::Result<Option<Chunk>> {
        if matches!(self, Self::Ahead(_))
            && let Self::Ahead(open) = std::mem::replace(self, Self::Over)
        {
            *self = open().unwrap_or_else(Self::Refused);
        }
        match self {
            Self::Ahead(_) | Self::Over => Ok(None),
            Self::Open(reader) => reader.next(bytes),
            Self::Salvage(salvager) => salvager.next(bytes),
            Self::SalvageEntries(salvage) => salvage.next(bytes),
            Self::Refused(error) => Err(error.clone()),
        }
    }
}
