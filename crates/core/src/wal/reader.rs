//! Reading records back, in order, on the reader's own thread. What is read is checked like at recovery: a
//! record that comes out is the one that went in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ringbolt_disk::{EntryKind, Fs};

use crate::error::{Code, Error, Result};
use crate::format::frame::{HEADER_BYTES, Held, Kind, RECORD_PREFIX_BYTES};
use crate::format::{GRAIN, parse_segment_name, segment_name};
use crate::wal::handle::Opened;
use crate::wal::scan::{self, Chain, Finding, Window};

/// Reads the records of a range of LSNs. Blocks; belongs on a thread of its own. Independent of its handle's
/// life.
pub struct Reader {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    direct: bool,
    chain: Chain,
    /// The LSN due next.
    next: u64,
    to: u64,
    /// The segment and the offset of the next frame; `None` before the first.
    place: Option<(u64, u64)>,
    /// The segment that was read last, still open.
    window: Option<(u64, Window)>,
}

/// Records in order, a chunk at a time: whatever format, whichever range. Blocks; belongs on a thread of its own.
pub trait Source: Send + fmt::Debug {
    /// The next records, about `bytes` of them (one at least), or `None` at the end. Everything before damage is
    /// served before the error.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` at a record that is not what was written, `ERR_WAL_IO` where the disk will not read.
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>>;

    /// Go on up to `to`, which has become durable meanwhile.
    fn extend(&mut self, to: u64);
}

/// Consecutive records.
#[derive(Debug)]
pub struct Chunk {
    /// The LSN of the first.
    pub first_lsn: u64,
    /// How many.
    pub count: u32,
    /// Each behind its length as a little-endian u32.
    pub bytes: Vec<u8>,
}

impl Source for Reader {
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        if self.next > self.to {
            return Ok(None);
        }
        let mut chunk = Chunk { first_lsn: self.next, count: 0, bytes: Vec::new() };
        match self.fill(&mut chunk, bytes) {
            Ok(()) => Ok(Some(chunk)),
            // What is intact is served; the next call meets the error again.
            Err(_) if chunk.count > 0 => Ok(Some(chunk)),
            Err(error) => Err(error),
        }
    }

    fn extend(&mut self, to: u64) {
        self.to = self.to.max(to);
        if let Some((_, window)) = &mut self.window {
            window.forget();
        }
    }
}

impl Reader {
    pub(crate) fn new(fs: Arc<dyn Fs>, directory: PathBuf, log: &Opened, from: u64, to: u64) -> Self {
        let chain = Chain {
            log_id: log.log_id,
            incarnation_max: log.incarnation,
            next_lsn: None,
            previous_crc: None,
            incarnation: 0,
        };
        Self { fs, directory, direct: log.direct_io, chain, next: from, to, place: None, window: None }
    }

    /// Read frames into `chunk` until it has about `bytes`. Where this fails, the place stays before what failed.
    fn fill(&mut self, chunk: &mut Chunk, bytes: usize) -> Result<()> {
        while self.next <= self.to && (chunk.count == 0 || chunk.bytes.len() < bytes) {
            let (segment, offset) = match self.place {
                Some(place) => place,
                None => (self.first_segment()?, GRAIN),
            };
            let mut window = match self.window.take() {
                Some((open, window)) if open == segment => window,
                _ => self.open(segment)?,
            };
            let passed = self.pass(&mut window, segment, offset, chunk);
            self.window = Some((segment, window));
            self.place = Some(passed?);
        }
        Ok(())
    }

    /// Take the records of the frame at `offset` of `segment`, and tell where the one behind it is.
    fn pass(
        &mut self,
        window: &mut Window,
        segment: u64,
        offset: u64,
        chunk: &mut Chunk,
    ) -> Result<(u64, u64)> {
        let held = match self.chain.look(&*self.fs, window, segment, offset)? {
            Finding::Frame(held) => held,
            Finding::Bad(reason) | Finding::Damage(reason) => {
                return Err(self.damaged(segment, offset, &reason));
            }
            Finding::Unsupported(refusal) => {
                let path = self.directory.join(segment_name(segment));
                return Err(scan::unsupported_at(&path, Some(offset), &refusal));
            }
        };
        if self.chain.next_lsn.is_none() && held.header.first_lsn > self.next {
            let reason = format!("the segment begins with LSN {}", held.header.first_lsn);
            return Err(self.damaged(segment, offset, &reason));
        }
        let end = held.header.padded_end(offset);
        let end = end.ok_or_else(|| self.damaged(segment, offset, "the frame does not end"))?;
        self.collect(window, (segment, offset), &held, chunk)?;
        self.chain.pass(&held);
        Ok(if held.header.kind == Kind::Seal { (segment + 1, GRAIN) } else { (segment, end) })
    }

    /// Copy what is asked for out of a valid frame.
    fn collect(
        &mut self,
        window: &mut Window,
        (segment, offset): (u64, u64),
        held: &Held,
        chunk: &mut Chunk,
    ) -> Result<()> {
        let header = &held.header;
        if header.kind == Kind::Seal || header.last_lsn() < self.next {
            return Ok(());
        }
        let payload = window.get(&*self.fs, offset + HEADER_BYTES as u64, header.payload_bytes as usize)?;
        if header.first_lsn == self.next && header.last_lsn() <= self.to {
            chunk.bytes.extend_from_slice(payload);
            chunk.count += header.count;
            self.next = header.next_lsn();
            return Ok(());
        }
        let records = match header.records(payload) {
            Ok(records) => records,
            // It held a moment ago: the file is changing under us.
            Err(refusal) => return Err(self.damaged(segment, offset, &refusal.to_string())),
        };
        let mut next = self.next;
        for (lsn, record) in (header.first_lsn..=self.to).zip(records) {
            if lsn == next {
                chunk.bytes.reserve(RECORD_PREFIX_BYTES + record.len());
                chunk.bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
                chunk.bytes.extend_from_slice(record);
                chunk.count += 1;
                next += 1;
            }
        }
        self.next = next;
        Ok(())
    }

    /// The newest segment that does not begin above the first LSN asked for. Found by halving: in a long log
    /// most segments are not even opened.
    fn first_segment(&self) -> Result<u64> {
        let io = |error| Error::io("reading the log", error);
        let entries = self.fs.list(&self.directory).map_err(io)?;
        let mut numbers: Vec<u64> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| parse_segment_name(entry.name.to_str()?))
            .collect();
        numbers.sort_unstable();
        let (mut low, mut high) = (0, numbers.len());
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            // A segment whose first frame is not valid says nothing: the next one that does decides. Where none
            // does, it is the one without frames at the end, or the read runs into what is wrong and tells.
            let mut begins = None;
            for (index, &number) in numbers.iter().enumerate().take(high).skip(middle) {
                begins = self.first_lsn(number)?.map(|first_lsn| (index, first_lsn));
                if begins.is_some() {
                    break;
                }
            }
            match begins {
                Some((index, first_lsn)) if first_lsn <= self.next => low = index,
                _ => high = middle,
            }
        }
        numbers.get(low).copied().ok_or_else(|| {
            scan::damaged(&self.directory, None, self.next, self.to, "there is no segment any more")
        })
    }

    /// The LSN that a segment begins with; `None` where its header or its first frame is not valid.
    fn first_lsn(&self, segment: u64) -> Result<Option<u64>> {
        let mut window = match self.open(segment) {
            Ok(window) => window,
            Err(error) if error.code == Code::WalDamaged => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match self.chain.look(&*self.fs, &mut window, segment, GRAIN)? {
            Finding::Frame(held) => Some(held.header.first_lsn),
            Finding::Bad(_) | Finding::Damage(_) | Finding::Unsupported(_) => None,
        })
    }

    fn open(&self, segment: u64) -> Result<Window> {
        let path = self.directory.join(segment_name(segment));
        if self.fs.stat(&path).map_err(|error| Error::io("reading the log", error))?.is_none() {
            return Err(self.damaged(segment, 0, "the segment is missing"));
        }
        match scan::segment_header(&*self.fs, &path)?.0 {
            Ok(header) => Window::open(&*self.fs, &path, header.bytes, self.direct),
            Err(refusal) => Err(self.damaged(segment, 0, &refusal.to_string())),
        }
    }

    fn damaged(&self, segment: u64, offset: u64, reason: &str) -> Error {
        let path = self.directory.join(segment_name(segment));
        scan::damaged(&path, Some((segment, offset)), self.next, self.to, reason)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}, {}..={})", self.directory.display(), self.next, self.to)
    }
}
