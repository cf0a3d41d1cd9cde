//! What there is at a place where a record is due.

use ringbolt_disk::Fs;

use crate::error::Result;
use crate::format::Refusal;
use crate::format::entry::{self, Entry, MAGIC, MAGIC_AT, RECORD_BYTES_MIN};
use crate::wal::window::Window;

/// What there is at a place where a record is due.
#[derive(Debug)]
pub(crate) enum Finding {
    /// A record: its sequence, and its length in the file.
    Record { sequence: u64, bytes: u64 },
    /// The file ends here.
    End,
    /// No record, for this reason.
    Bad(String),
    /// A record, and not the one that follows.
    Break { sequence: u64, due: u64, bytes: u64 },
    /// A record whose sequence nobody can count.
    Unsupported(Refusal),
}

/// Why a record is not the one that follows.
pub(crate) fn break_reason(sequence: u64, due: u64) -> String {
    format!(
        "a record of sequence {sequence}, expected {due} (if the sequences of this log are not to rise by one, open it \
         with `sequences: 'any'`)"
    )
}

/// What is at `offset` of a file with `left` bytes from there on, where the record of sequence `due`, if that is known,
/// should be?
pub(crate) fn look(
    fs: &dyn Fs,
    window: &mut Window,
    offset: u64,
    left: u64,
    due: Option<u64>,
) -> Result<Finding> {
    if left == 0 {
        return Ok(Finding::End);
    }
    let bytes = match record(fs, window, offset, left)? {
        Ok(bytes) => bytes,
        Err(reason) => return Ok(Finding::Bad(reason)),
    };
    let sequence = match entry::parse(bytes) {
        Ok(Entry { sequence, .. }) => sequence,
        Err(refusal @ Refusal::Unsupported { .. }) => return Ok(Finding::Unsupported(refusal)),
        Err(refusal) => return Ok(Finding::Bad(refusal.to_string())),
    };
    match due {
        Some(due) if due != sequence => Ok(Finding::Break { sequence, due, bytes: bytes.len() as u64 }),
        _ => Ok(Finding::Record { sequence, bytes: bytes.len() as u64 }),
    }
}

/// The bytes of what could be a record at `at`, with `left` bytes left in the file; or why none can be there.
pub(crate) fn record<'w>(
    fs: &dyn Fs,
    window: &'w mut Window,
    at: u64,
    left: u64,
) -> Result<Result<&'w [u8], String>> {
    if left < RECORD_BYTES_MIN as u64 {
        return Ok(Err(format!("{left} bytes, too few for a record")));
    }
    let head = window.get(fs, at, MAGIC_AT + MAGIC.len())?;
    let claimed = match entry::claimed_bytes(*head.first_chunk().expect("eight bytes")) {
        Ok(claimed) => claimed,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let magic = &head[MAGIC_AT..];
    if magic != MAGIC {
        let (found, expected) = (magic.escape_ascii().to_string(), MAGIC.escape_ascii());
        return Ok(Err(format!("record magic \"{found}\", expected \"{expected}\"")));
    }
    if claimed as u64 > left {
        return Ok(Err(format!("a record of {claimed} bytes, and the file ends after {left}")));
    }
    Ok(Ok(window.get(fs, at, claimed)?))
}
