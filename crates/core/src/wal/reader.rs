//! Reading records back, in order, on the reader's own thread. What is read is checked like at recovery: a
//! record that comes out is the one that went in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ringbolt_disk::{EntryKind, Fs};

use crate::error::{Error, Result};
use crate::format::frame::{HEADER_BYTES, Held, Kind, RECORD_PREFIX_BYTES};
use crate::format::{GRAIN, Refusal, parse_segment_name, segment_name};
use crate::wal::handle::Opened;
use crate::wal::scan::{self, Chain, Finding, Window};

/// Reads the records of a range of LSNs. Blocks; belongs on a thread of its own. Independent of its handle's
/// life.
pub struct Reader {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    chain: Chain,
    /// The LSN due next.
    next: u64,
    to: u64,
    place: Option<(u64, u64)>,
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

impl Reader {
    pub(crate) fn new(fs: Arc<dyn Fs>, directory: PathBuf, log: &Opened, from: u64, to: u64) -> Self {
        let chain = Chain {
            log_id: log.log_id,
            incarnation_max: log.incarnation,
            next_lsn: None,
            previous_crc: None,
            incarnation: 0,
        };
        Self { fs, directory, chain, next: from, to, place: None }
    }

    /// The next records, about `bytes` of them (one at least), or `None` at the end.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED` at a record that is not what was written, `ERR_WAL_IO` where the disk will not read.
    pub fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        if self.next > self.to {
            return Ok(None);
        }
        let (mut segment, mut offset) = match self.place {
            Some(place) => place,
            None => (self.first_segment()?, GRAIN),
        };
        let fs = self.fs.clone();
        let mut window = self.window(&*fs, segment)?;
        let mut chunk = Chunk { first_lsn: self.next, count: 0, bytes: Vec::new() };
        while self.next <= self.to && (chunk.count == 0 || chunk.bytes.len() < bytes) {
            let held = match self.chain.look(&mut window, segment, offset)? {
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
            self.collect(&mut window, offset, &held, &mut chunk)?;
            self.chain.pass(&held);
            if held.header.kind == Kind::Seal {
                segment += 1;
                offset = GRAIN;
                if self.next <= self.to {
                    window = self.window(&*fs, segment)?;
                }
            } else {
                let end = held.header.padded_end(offset);
                offset = end.ok_or_else(|| self.damaged(segment, offset, "the frame does not end"))?;
            }
            self.place = Some((segment, offset));
        }
        Ok(Some(chunk))
    }

    /// Copy what is asked for out of a valid frame.
    fn collect(&mut self, window: &mut Window<'_>, at: u64, held: &Held, chunk: &mut Chunk) -> Result<()> {
        let header = &held.header;
        if header.kind == Kind::Seal || header.last_lsn() < self.next {
            return Ok(());
        }
        let payload = window.get(at + HEADER_BYTES as u64, header.payload_bytes as usize)?;
        if header.first_lsn == self.next && header.last_lsn() <= self.to {
            chunk.bytes.extend_from_slice(payload);
            chunk.count += header.count;
            self.next = header.next_lsn();
            return Ok(());
        }
        let records = header.records(payload).map_err(|refusal: Refusal| {
            // It held a moment ago: the file is changing under us.
            let path = self.directory.join("");
            scan::damaged(&path, None, header.first_lsn, header.last_lsn(), &refusal.to_string())
        })?;
        for (lsn, record) in (header.first_lsn..).zip(records) {
            if lsn == self.next && lsn <= self.to {
                let start = chunk.bytes.len();
                chunk.bytes.reserve(RECORD_PREFIX_BYTES + record.len());
                chunk.bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
                chunk.bytes.extend_from_slice(record);
                debug_assert_eq!(chunk.bytes.len() - start, RECORD_PREFIX_BYTES + record.len());
                chunk.count += 1;
                self.next += 1;
            }
        }
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
                let finding = self.chain.look(&mut self.window(&*self.fs, number)?, number, GRAIN)?;
                if let Finding::Frame(held) = finding {
                    begins = Some((index, held.header.first_lsn));
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

    fn window<'a>(&self, fs: &'a dyn Fs, number: u64) -> Result<Window<'a>> {
        let path = self.directory.join(segment_name(number));
        match scan::segment_header(fs, &path)?.0 {
            Ok(header) => Window::open(fs, &path, header.bytes),
            Err(refusal) => Err(self.damaged(number, 0, &refusal.to_string())),
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
