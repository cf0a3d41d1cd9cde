//! Checking a whole log: every byte of every frame, HEAD and the headers, without the lock and without changing a
//! byte.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_disk::Fs;

use crate::error::{Code, Error, Result};
use crate::format::frame::{Kind, RECORD_PREFIX_BYTES};
use crate::wal::report::{Damage, Report, Verdict};
use crate::wal::walk::{Place, Step, Walk};

/// Check every byte of a log and report what there is, what is damaged, and what an open would cut. Takes no lock and
/// changes nothing; a log that is being written is checked up to its last whole frame. `progress` is called with the
/// bytes read so far and in all, and may end it by an error. Takes some megabytes of memory, or two of a segment's largest
/// frames where that is more, and what the damaged places take that it lists.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND`, `ERR_WAL_IO`, and what `progress` answers. Damage is no error: the report names it.
pub fn verify(
    fs: Arc<dyn Fs>,
    directory: &Path,
    progress: &dyn Fn(u64, u64) -> Result<()>,
) -> Result<Report> {
    let began = fs.now();
    let clock = fs.clone();
    let mut walk = match Walk::begin(fs, directory) {
        Ok(walk) => walk,
        Err(error) if error.code == Code::WalUnsupported => return Ok(unsupported(&error)),
        Err(error) => return Err(error),
    };
    let mut count = Count::default();
    let mut damage = Vec::new();
    let mut verdict = Verdict::Clean;
    while let Some(step) = walk.next()? {
        match step {
            Step::Frame(frame) => count.add(&mut walk, &frame)?,
            Step::Damage(place) => damage.push(place),
            Step::Unsupported(place) => {
                verdict = Verdict::Unsupported;
                damage.push(place);
            }
            // What was read by now is not kept any more.
            Step::Restarted => {
                count = Count::default();
                damage.clear();
            }
        }
        let (passed, total) = walk.progress();
        progress(passed, total)?;
    }
    let (passed, total) = walk.progress();
    progress(passed, total)?;
    let first_lsn = count.first_lsn.unwrap_or(count.last_lsn + 1);
    if let Some(reason) = walk.headless.take() {
        let last_lsn = count.last_lsn.max(first_lsn);
        damage.push(Damage { segment: None, offset: None, first_lsn, last_lsn, reason });
    }
    damage.sort_by_key(|place| (place.segment, place.offset));
    if verdict != Verdict::Unsupported {
        verdict = match (damage.is_empty(), walk.torn) {
            (false, _) => Verdict::Damage,
            (true, Some(_)) => Verdict::Torn,
            (true, None) => Verdict::Clean,
        };
    }
    Ok(Report {
        verdict,
        records: count.records,
        bytes: count.bytes,
        segments: walk.segments_seen,
        first_lsn,
        last_lsn: count.last_lsn,
        torn: walk.torn,
        damage,
        duration: clock.now().since(began),
    })
}

/// What was found intact.
#[derive(Default)]
struct Count {
    records: u64,
    bytes: u64,
    first_lsn: Option<u64>,
    last_lsn: u64,
}

impl Count {
    fn add(&mut self, walk: &mut Walk, frame: &Place) -> Result<()> {
        let header = frame.held.header;
        self.last_lsn = header.last_lsn();
        let kept_from = walk.first_lsn.max(header.first_lsn);
        if header.kind == Kind::Seal || kept_from >= header.next_lsn() {
            return Ok(());
        }
        self.first_lsn.get_or_insert(kept_from);
        self.records += header.next_lsn() - kept_from;
        let prefixes = RECORD_PREFIX_BYTES as u64 * u64::from(header.count);
        self.bytes += u64::from(header.payload_bytes) - prefixes;
        if kept_from > header.first_lsn {
            // The frame that the log was truncated in.
            let payload = walk.payload(frame)?;
            let gone = (kept_from - header.first_lsn) as usize;
            let gone = header.records(payload).map_or(0, |records| records.take(gone).map(<[u8]>::len).sum());
            self.bytes -= gone as u64;
        }
        Ok(())
    }
}

/// Of a log that cannot be judged at all.
fn unsupported(error: &Error) -> Report {
    let reason = error.reason.clone().unwrap_or_else(|| error.message.clone());
    Report {
        verdict: Verdict::Unsupported,
        records: 0,
        bytes: 0,
        segments: 0,
        first_lsn: 1,
        last_lsn: 0,
        torn: None,
        damage: vec![Damage {
            segment: error.segment,
            offset: error.offset,
            first_lsn: 1,
            last_lsn: 1,
            reason,
        }],
        duration: Duration::ZERO,
    }
}
