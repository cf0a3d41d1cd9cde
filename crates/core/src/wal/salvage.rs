//! Reading what is left of a damaged log. The source stays as it is; where the records go is the caller's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ringbolt_disk::Fs;

use crate::error::Result;
use crate::format::frame::{Kind, RECORD_PREFIX_BYTES};
use crate::wal::reader::{Chunk, Source};
use crate::wal::report::Damage;
use crate::wal::walk::{Place, Step, Walk};

/// Read every intact record of a log, damaged or not, in LSN order, without its lock and without changing a byte.
/// Skips frames that rotted, segments that are missing, and what is not this log's; goes by the frames alone where
/// HEAD or a segment's header is lost. Never answers with a record that was not appended, or was cut by a recovery:
/// behind what is lost a frame counts only where the log itself proves it.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND` where there is no log; `ERR_WAL_UNSUPPORTED` where a later version or another product wrote
/// what would have to say whose it is; `ERR_WAL_IO`.
pub fn salvage(fs: Arc<dyn Fs>, directory: &Path) -> Result<Salvager> {
    let walk = Walk::begin(fs, directory)?;
    let next = walk.first_lsn;
    Ok(Salvager { walk, next, waiting: None, damage: Vec::new() })
}

/// The intact records of a log. As a [`Source`] it yields chunks of consecutive LSNs: between two chunks there may be
/// a gap, and its records are lost.
pub struct Salvager {
    walk: Walk,
    /// Records below are behind us, or not kept.
    next: u64,
    /// A frame behind a gap: the next chunk begins with it.
    waiting: Option<Place>,
    damage: Vec<Damage>,
}

impl Salvager {
    /// The first LSN that there should be; `None` where HEAD, which would tell, is lost.
    pub fn first_lsn(&self) -> Option<u64> {
        self.walk.headless.is_none().then_some(self.walk.first_lsn)
    }

    /// The last LSN that there should be, as far as is known by now: the newest that HEAD or any frame says was
    /// durable, or that was found. At the end of the source everything is known.
    pub fn last_lsn(&self) -> u64 {
        self.walk.expected_lsn
    }

    /// The size of the largest segment seen, in bytes; 0 where no header tells. In a log of such segments every record
    /// has room.
    pub fn segment_bytes(&self) -> u64 {
        self.walk.segment_bytes
    }

    /// The damaged places that were come by since the last call.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// The next frame with records that were not served yet.
    fn frame(&mut self) -> Result<Option<Place>> {
        if let Some(frame) = self.waiting.take() {
            return Ok(Some(frame));
        }
        while let Some(step) = self.walk.next()? {
            match step {
                Step::Frame(frame) => {
                    let header = frame.held.header;
                    if header.kind == Kind::Batch && header.last_lsn() >= self.next {
                        return Ok(Some(frame));
                    }
                }
                Step::Damage(damage) | Step::Unsupported(damage) => self.damage.push(damage),
                Step::Restarted => self.next = self.next.max(self.walk.first_lsn),
            }
        }
        Ok(None)
    }
}

impl Source for Salvager {
    fn next(&mut self, bytes: usize) -> Result<Option<Chunk>> {
        let mut chunk = Chunk { first_lsn: self.next, count: 0, bytes: Vec::new() };
        while chunk.count == 0 || chunk.bytes.len() < bytes {
            let frame = match self.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                // What is intact is served; the next call meets the error again.
                Err(_) if chunk.count > 0 => break,
                Err(error) => return Err(error),
            };
            let header = frame.held.header;
            if chunk.count > 0 && header.first_lsn > self.next {
                self.waiting = Some(frame);
                break;
            }
            let first = header.first_lsn.max(self.next);
            let payload = match self.walk.payload(&frame) {
                Ok(payload) => payload,
                Err(error) => {
                    self.waiting = Some(frame);
                    if chunk.count > 0 {
                        break;
                    }
                    return Err(error);
                }
            };
            // It was looked at a moment ago, or before the last chunk: what has gone since is lost.
            let Ok(records) = header.records(payload) else { continue };
            if chunk.count == 0 {
                chunk.first_lsn = first;
            }
            for record in records.skip((first - header.first_lsn) as usize) {
                chunk.bytes.reserve(RECORD_PREFIX_BYTES + record.len());
                chunk.bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
                chunk.bytes.extend_from_slice(record);
                chunk.count += 1;
            }
            self.next = header.next_lsn();
        }
        Ok((chunk.count > 0).then_some(chunk))
    }
}

impl fmt::Debug for Salvager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Salvager(at LSN {})", self.next)
    }
}
