//! Opening a log: lock, scan, judge, and only then change anything (durability rule 6).
//!
//! ```text
//!   LOCK ─▶ segment locks ─▶ HEAD, headers, frames ─▶ verdict ──▶ damage, unsupported: refused, no byte changed
//!                                                        │
//!            ┌───────────────────────────────────────────┘ clean or torn
//!            ▼
//!   set the torn bytes aside ─▶ sync the directory ─▶ remove what is left over ─▶ zero behind the last frame
//!     ─▶ write the frames above the proven LSN again ─▶ sync every file written to ─▶ read them once more
//!     ─▶ sync the directory ─▶ HEAD: next incarnation, open ─▶ append
//! ```
//!
//! Everything before HEAD can be repeated: a crash at any step leaves a log that the next open judges the
//! same way and brings to the same end. Until HEAD is replaced, nothing claims what was only read: after a
//! failed flush, or a kill in the same boot, the page cache shows frames and names that the disk does not
//! have, and no call tells.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringbolt_disk::{Buffer, Errno, File, Fs};

use crate::error::{Code, Error, Result};
use crate::format::head::{Head, State};
use crate::format::{
    GRAIN, HEAD_NAME, LOCK_NAME, LogId, TEMPORARY_SUFFIX, TornName, is_temporary, parse_segment_name,
    segment_name,
};
use crate::planted::{self, Bug};
use crate::wal::directory::{Directory, opening};
use crate::wal::handle::{Options, Recovery, TornAt};
use crate::wal::log::{Held, Policy, Start};
use crate::wal::scan::{Chain, Extent, Finding, Found, Progress, Scan};
use crate::wal::segment::{Maker, Segment};
use crate::wal::survey::Survey;
use crate::wal::window::Window;
use crate::wal::{head, lock};

/// Torn bytes are copied and frames written again through a buffer of at most this size.
const COPY_BYTES: u64 = 1 << 20;

/// An opened log: what the state machine starts from, and what is held for as long as it runs.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) start: Start,
    pub(crate) recovery: Recovery,
    /// LOCK, held until this is dropped.
    pub(crate) lock: File,
}

/// Open the log, or make it.
///
/// # Errors
/// `ERR_WAL_NOT_FOUND`, `ERR_WAL_NOT_EMPTY`, `ERR_WAL_LOCKED`, `ERR_WAL_DAMAGED`, `ERR_WAL_UNSUPPORTED`,
/// `ERR_WAL_NO_SPACE`, `ERR_WAL_IO`; what `progress` and `check_wanted`, asked while it waits for a lock, answer.
pub(crate) fn open(
    fs: &dyn Fs,
    options: &Options,
    progress: Progress<'_>,
    check_wanted: &dyn Fn() -> Result<()>,
) -> Result<Opened> {
    let began = fs.now();
    let opening = Opening { fs, options, directory: &options.directory };
    // Looked at before LOCK is touched: a directory that is somebody else's stays as it is.
    let exists = opening.look()?.is_a_log();
    opening.place().check_wish(exists, options)?;
    opening.place().make()?;
    let mut locks = lock::Locks::new(fs, options.lock_timeout, options.file_mode, check_wanted);
    let lock = locks.take_owner(&opening.directory.join(LOCK_NAME))?;
    // Looked at again: until the lock was ours somebody else may have written here.
    let files = opening.look()?;
    let mut opened = if files.is_a_log() {
        opening.recover(&files, &mut locks, lock, progress)?
    } else {
        locks.sign(&lock)?;
        opening.place().sync_ancestors()?;
        opening.create(lock, LogId(fs.random()), &[])?
    };
    opened.recovery.duration = fs.now().since(began);
    Ok(opened)
}

/// What a directory holds.
#[derive(Debug, Default)]
struct Files {
    head: bool,
    /// Ascending.
    segments: Vec<u64>,
    temporary: Vec<String>,
    stranger: Option<String>,
}

impl Files {
    fn is_a_log(&self) -> bool {
        self.head || !self.segments.is_empty()
    }
}

struct Opening<'a> {
    fs: &'a dyn Fs,
    options: &'a Options,
    directory: &'a Path,
}

impl Opening<'_> {
    fn look(&self) -> Result<Files> {
        let mut files = Files::default();
        if self.fs.stat(self.directory).map_err(opening)?.is_none() {
            return Ok(files);
        }
        for entry in self.fs.list(self.directory).map_err(opening)? {
            let name = entry.name.to_string_lossy();
            match parse_segment_name(&name) {
                Some(number) => files.segments.push(number),
                None if name == HEAD_NAME => files.head = true,
                None if is_ours_in_the_making(&name) => files.temporary.push(name.into_owned()),
                None if is_temporary(&name) => {}
                None if name == LOCK_NAME || name == "lost+found" => {}
                None => {
                    files.stranger.get_or_insert(name.into_owned());
                }
            }
        }
        files.segments.sort_unstable();
        if let Some(name) = files.stranger.as_ref().filter(|_| !files.is_a_log()) {
            return Err(self.place().not_empty(name));
        }
        Ok(files)
    }

    fn place(&self) -> Directory<'_> {
        Directory { fs: self.fs, path: self.directory, file_mode: self.options.file_mode }
    }

    fn survey(&self) -> Survey<'_> {
        Survey { fs: self.fs, directory: self.directory, direct: self.options.direct_io }
    }

    fn maker(&self, log_id: LogId) -> Maker {
        Maker {
            directory: self.directory.to_owned(),
            log_id,
            bytes: self.options.segment_bytes,
            direct: self.options.direct_io,
            file_mode: self.options.file_mode,
        }
    }

    // ---- creation -----------------------------------------------------------------------------------------

    /// Segment 1 durable, its name too, then HEAD; only then frames.
    fn create(&self, lock: File, log_id: LogId, leftovers: &[String]) -> Result<Opened> {
        let maker = self.maker(log_id);
        self.place().sync()?;
        for name in leftovers {
            self.place().remove(name)?;
        }
        let segment = maker.make(self.fs, 1).map_err(opening)?;
        let head = Head {
            state: State::Open,
            log_id,
            oldest_segment: 1,
            first_lsn: 1,
            proven_lsn: 0,
            incarnation: 1,
        };
        head::replace(self.fs, self.directory, &head, self.options.file_mode).map_err(opening)?;
        let recovery = Recovery { segments: 1, clean_shutdown: true, created: true, ..Recovery::default() };
        let start = Start {
            maker,
            policy: self.policy(&segment),
            sync_interval: self.options.sync_interval,
            segment,
            next: None,
            head,
            held: Vec::new(),
            next_lsn: 1,
            previous_crc: 0,
        };
        Ok(Opened { start, recovery, lock })
    }

    fn policy(&self, segment: &Segment) -> Policy {
        Policy::resolve(self.options.sync, self.fs.has_cheap_dsync(&segment.file))
    }

    // ---- recovery -----------------------------------------------------------------------------------------

    fn recover(
        &self,
        files: &Files,
        locks: &mut lock::Locks<'_>,
        lock: File,
        progress: Progress<'_>,
    ) -> Result<Opened> {
        // Rule 8: a killed owner's writes may still be on their way. Nobody else can begin to write now that
        // LOCK is ours, so a lock that was had once says that the segment is quiet.
        for &number in &files.segments {
            locks.take_segment(&self.path(number), self.options.direct_io)?;
        }
        locks.sign(&lock)?;
        let survey = self.survey();
        let head = match survey.head() {
            Ok(Some(head)) => head,
            Ok(None) => return self.complete_creation(files, lock),
            Err(error) => return Err(survey.later_header(&files.segments)?.unwrap_or(error)),
        };
        let kept: Vec<u64> =
            files.segments.iter().copied().filter(|&number| number >= head.oldest_segment).collect();
        let segments = survey.check_segments(&head, head.oldest_segment, &kept)?;
        let found = survey.log_files(&head, &segments).scan(self.options.check, progress)?;
        // From here on the log is sound; now it may be changed.
        self.repair(files, locks, lock, head, &segments, &found)
    }

    /// Segments without HEAD: an interrupted creation is completed, everything else is refused.
    fn complete_creation(&self, files: &Files, lock: File) -> Result<Opened> {
        let log_id = self.survey().interrupted_creation(&files.segments)?;
        if !self.options.create {
            return Err(self.place().not_found());
        }
        let log_id = log_id.unwrap_or_else(|| LogId(self.fs.random()));
        let mut leftovers = files.temporary.clone();
        leftovers.extend(files.segments[1..].iter().rev().map(|&number| segment_name(number)));
        self.create(lock, log_id, &leftovers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(segment_name(number))
    }

    // ---- repair -------------------------------------------------------------------------------------------

    fn repair(
        &self,
        files: &Files,
        locks: &mut lock::Locks<'_>,
        lock: File,
        head: Head,
        segments: &[Found],
        scan: &Scan,
    ) -> Result<Opened> {
        let incarnation = head.incarnation.checked_add(1).ok_or_else(|| {
            Error::new(Code::WalUnsupported, "the log was opened 4,294,967,295 times, which is its limit")
        })?;
        let torn = !scan.torn.is_empty();
        let torn_bytes = scan.torn.iter().map(|extent| extent.to - extent.from).sum();
        let torn_tails: Vec<_> =
            scan.torn.iter().map(|extent| (extent.torn_name(incarnation), *extent)).collect();
        self.place().set_aside(&torn_tails, |extent, file| {
            self.copy(extent, |at, bytes| self.fs.write_at(file, at - extent.from, bytes))
        })?;
        if !planted::is(Bug::RemoveBeforeDirectorySync) {
            // What the page cache shows as renamed or removed may not be so on disk, and what is removed now
            // could persist before it: first make the names we judged by durable.
            self.place().sync()?;
        }
        let (before, from) = segments.split_at(scan.last);
        let (tail, after) = from.split_first().expect("the scan ends in a segment");
        // Kept: the segments up to the tail's and, at a clean end, the one that was prepared behind it.
        let next = after.first().filter(|_| !torn);
        for segment in after.iter().skip(usize::from(next.is_some())).rev() {
            self.place().remove(&segment_name(segment.number))?;
            self.place().sync()?;
        }
        for &number in files.segments.iter().filter(|&&number| number < head.oldest_segment) {
            self.place().remove(&segment_name(number))?;
        }
        for name in &files.temporary {
            self.place().remove(name)?;
        }

        let maker = self.maker(head.log_id);
        let head_early = Head { state: State::Open, proven_lsn: scan.next_lsn - 1, incarnation, ..head };
        if planted::is(Bug::HeadBeforeSync) {
            self.replace_head(&head_early)?;
        }
        for cut in before.iter().filter(|segment| segment.is_cut) {
            let file = locks.take_segment(&self.path(cut.number), self.options.direct_io)?;
            self.restore_length(&file, cut.bytes)?;
            self.fs.sync(&file).map_err(opening)?;
        }
        let segment = self.repair_tail(locks, &maker, tail, scan, torn)?;
        self.write_again(locks, &segment, before, scan)?;
        self.sync_tail(&segment.file, torn)?;
        self.read_again(&head, scan)?;
        let next = next.map(|next| self.frameless(locks, &maker, *next)).transpose()?;
        self.place().sync()?;
        if !planted::is(Bug::HeadBeforeSync) {
            self.replace_head(&head_early)?;
        }
        self.place().forget_old_torn_tails();

        let recovery = Recovery {
            records: scan.next_lsn - head.first_lsn,
            segments: before.len() as u64 + 1,
            torn_bytes,
            torn_at: torn.then_some(TornAt { segment: tail.number, offset: scan.tail, lsn: scan.next_lsn }),
            clean_shutdown: head.state == State::Closed && !torn,
            created: false,
            duration: Duration::ZERO,
        };
        let held = segments.iter().zip(&scan.first_lsns);
        let held = held.map(|(&Found { number, bytes, .. }, &first_lsn)| Held { number, bytes, first_lsn });
        let start = Start {
            maker,
            policy: self.policy(&segment),
            sync_interval: self.options.sync_interval,
            segment,
            next,
            head: head_early,
            held: held.collect(),
            next_lsn: scan.next_lsn,
            previous_crc: scan.previous_crc,
        };
        Ok(Opened { start, recovery, lock })
    }

    /// The segment that goes on: restored to its full length, zeros behind its last frame.
    fn repair_tail(
        &self,
        locks: &mut lock::Locks<'_>,
        maker: &Maker,
        found: &Found,
        scan: &Scan,
        torn: bool,
    ) -> Result<Segment> {
        if scan.tail == GRAIN && !torn {
            return self.frameless(locks, maker, *found);
        }
        let file = locks.take_segment(&self.path(found.number), self.options.direct_io)?;
        self.restore_length(&file, found.bytes)?;
        let mut segment = Segment::empty(file, self.path(found.number), found.number, found.bytes);
        segment.tail = scan.tail;
        segment.zeroed_to = scan.tail;
        if torn {
            self.fs.zero(&segment.file, scan.tail, found.bytes - scan.tail).map_err(opening)?;
            self.sync_tail(&segment.file, torn)?;
            segment.zeroed_to = found.bytes;
        }
        Ok(segment)
    }

    fn sync_tail(&self, file: &File, torn: bool) -> Result<()> {
        if torn && planted::is(Bug::ZeroWithoutSync) {
            return Ok(());
        }
        self.fs.sync(file).map_err(opening)
    }

    /// A segment without frames, replaced where its size is not today's.
    fn frameless(&self, locks: &mut lock::Locks<'_>, maker: &Maker, found: Found) -> Result<Segment> {
        if found.bytes != maker.bytes {
            return maker.make(self.fs, found.number).map_err(opening);
        }
        let path = self.path(found.number);
        let file = locks.take_segment(&path, self.options.direct_io)?;
        self.restore_length(&file, found.bytes)?;
        self.fs.sync(&file).map_err(opening)?;
        Ok(Segment::empty(file, path, found.number, found.bytes))
    }

    fn restore_length(&self, file: &File, bytes: u64) -> Result<()> {
        if self.fs.len(file).map_err(opening)? < bytes {
            self.fs.allocate(file, bytes).map_err(opening)?;
        }
        Ok(())
    }

    /// Write every frame that HEAD does not vouch for again, where it is, and sync its file (rule 6): what was
    /// read may be in the page cache only, clean after a flush that failed, and gone with the power.
    fn write_again(
        &self,
        locks: &mut lock::Locks<'_>,
        tail: &Segment,
        before: &[Found],
        scan: &Scan,
    ) -> Result<()> {
        if planted::is(Bug::TrustCachedFrames) {
            return Ok(());
        }
        for segment in before.iter().map(|found| found.number).chain([tail.number]) {
            let mut extents =
                scan.unproven.iter().filter(|extent| extent.segment.number == segment).peekable();
            if extents.peek().is_none() {
                continue;
            }
            let file = if segment == tail.number {
                tail.file.clone()
            } else {
                locks.take_segment(&self.path(segment), self.options.direct_io)?
            };
            for extent in extents {
                self.copy(*extent, |at, bytes| self.fs.write_at(&file, at, bytes))?;
            }
            if !planted::is(Bug::HeadBeforeSync) {
                self.fs.sync(&file).map_err(opening)?;
            }
        }
        Ok(())
    }

    /// Read once more what HEAD is about to vouch for. What the scan saw in the page cache can have been dropped
    /// before it was written again, and then it is the disk's older bytes that were.
    fn read_again(&self, head: &Head, scan: &Scan) -> Result<()> {
        let mut chain = Chain::of(head);
        for extent in &scan.unproven {
            let Found { number, bytes, .. } = extent.segment;
            let path = self.path(number);
            let mut window = Window::open(self.fs, &path, bytes, self.options.direct_io)?;
            let mut at = extent.from;
            while at < extent.to {
                let Finding::Frame(held) = chain.look(self.fs, &mut window, number, at)? else {
                    return Err(opening(ringbolt_disk::Error::new("pread", path, Errno::IO).at(at).hint(
                        "the disk does not have what the page cache showed; nothing acknowledged is lost, open \
                         the log again",
                    )));
                };
                at = held.header.padded_end(at).expect("a valid frame ends in its segment");
                chain.pass(&held);
            }
        }
        Ok(())
    }

    /// Hand the bytes of an extent to `write`, piece by piece.
    fn copy(&self, extent: Extent, write: impl Fn(u64, &Buffer) -> ringbolt_disk::Result<()>) -> Result<()> {
        let Found { number, bytes, .. } = extent.segment;
        let mut window = Window::open(self.fs, &self.path(number), bytes, self.options.direct_io)?;
        let mut at = extent.from;
        while at < extent.to {
            let len = (extent.to - at).min(COPY_BYTES) as usize;
            write(at, &Buffer::copy_of(window.get(self.fs, at, len)?)).map_err(opening)?;
            at += len as u64;
        }
        Ok(())
    }

    fn replace_head(&self, head: &Head) -> Result<()> {
        head::replace(self.fs, self.directory, head, self.options.file_mode).map_err(opening)
    }
}

impl Extent {
    /// What a copy of it is called.
    fn torn_name(&self, incarnation: u32) -> TornName {
        TornName { segment: self.segment.number, offset: self.from, incarnation }
    }
}

/// Whether this is HEAD or a segment that never got its name. Another program's temporary file is not ours
/// to remove.
fn is_ours_in_the_making(name: &str) -> bool {
    let Some(name) = name.strip_suffix(TEMPORARY_SUFFIX) else { return false };
    name == HEAD_NAME || parse_segment_name(name).is_some()
}
