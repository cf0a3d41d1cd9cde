//! Where a key-value log goes on behind a place that is bad: no header and no grain says it, so every offset is looked
//! at.

use ringbolt_disk::Fs;

use super::finding::{Finding, record};
use super::scan::LogFiles;
use crate::error::Result;
use crate::format::entry::{self, BODY_BYTES_MIN, Entry, HEAD_BYTES, MAGIC, MAGIC_AT, RECORD_BYTES_MIN};
use crate::wal::window::Window;

/// Where a record's sequence stands.
const SEQUENCE_AT: usize = MAGIC_AT + MAGIC.len();

/// Where a search reads at once.
const SEARCH_BYTES: u64 = 64 << 10;

impl LogFiles<'_> {
    /// The length that a bad record claims; 0 where it is none that a record has.
    pub(crate) fn claimed_bytes(&self, index: usize, offset: u64) -> Result<u64> {
        if self.files[index].bytes - offset < 4 {
            return Ok(0);
        }
        let mut window = self.window(index)?;
        let length = window.get(self.fs, offset, 4)?.first_chunk().expect("four bytes");
        Ok(entry::claimed_bytes(*length).unwrap_or(0) as u64)
    }

    /// The first record that begins at or behind `from` of a file and whose place and sequence `accept` takes. Every
    /// offset is looked at: behind a torn write nothing says where a record begins.
    pub(crate) fn find(
        &self,
        index: usize,
        from: u64,
        accept: impl Fn(u64, u64) -> bool,
    ) -> Result<Option<(u64, u64)>> {
        let end = self.files[index].bytes;
        // One to search with, one to look far ahead with, so that neither moves the other's.
        let (mut near, mut far) = (self.window(index)?, self.window(index)?);
        let mut start = from;
        while start + (RECORD_BYTES_MIN as u64) <= end {
            let len = SEARCH_BYTES.min(end - start) as usize;
            let bytes = near.get(self.fs, start, len)?;
            let candidates: Vec<u64> = bytes[MAGIC_AT..]
                .windows(MAGIC.len())
                .enumerate()
                .filter(|(_, four)| *four == MAGIC)
                .map(|(at, _)| start + at as u64)
                .collect();
            for at in candidates {
                if is_plausible(self.fs, &mut far, at, end - at, |sequence| accept(at, sequence))?
                    && let Ok(bytes) = record(self.fs, &mut far, at, end - at)?
                    && let Ok(Entry { sequence, .. }) = entry::parse(bytes)
                {
                    return Ok(Some((at, sequence)));
                }
            }
            if start + len as u64 == end {
                break;
            }
            // A magic may lie across the border.
            start += (len - MAGIC_AT - MAGIC.len() + 1) as u64;
        }
        Ok(None)
    }

    /// Where to go on behind a place that is bad: at the end that the record there claims, where that is the file's or
    /// another record begins there (so that a whole record stored as a value is not taken for one of ours), else at
    /// the next record, wherever it begins.
    pub(crate) fn resync(&self, index: usize, offset: u64) -> Result<Option<u64>> {
        let end = self.files[index].bytes;
        let claimed = self.claimed_bytes(index, offset)?;
        let claimed_end = offset + claimed;
        if claimed > 0 && claimed_end <= end {
            let mut window = self.window(index)?;
            let has_magic = window.get(self.fs, offset + MAGIC_AT as u64, MAGIC.len())? == MAGIC;
            if has_magic && claimed_end == end {
                return Ok(None);
            }
            if has_magic
                && matches!(self.look(index, &mut window, claimed_end, None)?, Finding::Record { .. })
            {
                return Ok(Some(claimed_end));
            }
        }
        Ok(self.find(index, offset + 1, |_, _| true)?.map(|(at, _)| at))
    }
}

/// Whether what could be a record has a sequence that will do, a type that there is, and lengths that agree. A search
/// looks at this first: a value full of what looks like the beginning of a long record would else be read again for
/// each of them. Still it is where all of them share the length of a value, and no sequence is known to follow.
fn is_plausible(
    fs: &dyn Fs,
    window: &mut Window,
    at: u64,
    left: u64,
    accept: impl Fn(u64) -> bool,
) -> Result<bool> {
    if left < RECORD_BYTES_MIN as u64 {
        return Ok(false);
    }
    let head: &[u8; RECORD_BYTES_MIN] = window.get(fs, at, RECORD_BYTES_MIN)?.first_chunk().expect("as long");
    let sequence = u64::from_le_bytes(*head[SEQUENCE_AT..].first_chunk().expect("eight bytes"));
    // A type with an empty key and an empty value is a body, if there is such a type.
    let mut body = [0; BODY_BYTES_MIN];
    body[0] = head[HEAD_BYTES];
    if !accept(sequence) || entry::parse_body(&body).is_err() {
        return Ok(false);
    }
    let lengths = entry::Lengths::of(head);
    let Some(value_at) = lengths.value_length_at().filter(|&value_at| value_at + 4 <= left) else {
        return Ok(false);
    };
    let value_bytes = window.get(fs, at + value_at, 4)?.first_chunk().expect("four bytes");
    Ok(lengths.agree_with(u32::from_le_bytes(*value_bytes)))
}
