//! Opening a key-value log: lock, scan, judge, and only then change anything (durability rule 6).
//!
//! ```text
//!   LOCK ─▶ files' locks ─▶ SYNCED, records ─▶ verdict ──▶ damage, unsupported: refused, no byte changed
//!                                                 │
//!            ┌────────────────────────────────────┘ clean or torn
//!            ▼
//!   set the torn bytes aside ─▶ sync the directory ─▶ cut, sync ─▶ write the records at or past SYNCED again, sync
//!     ─▶ sync the last file and the directory ─▶ SYNCED made anew ─▶ append
//! ```
//!
//! Everything before SYNCED can be repeated: a crash at any step leaves a log that the next open judges the same way
//! and brings to the same end.

use std::time::Duration;

use ringbolt_disk::{Buffer, Errno, File, Fs};

use super::finding::Finding;
use super::log::Start;
use super::names::{self, Names};
use super::requests::make_file;
use super::scan::{LogFiles, Scan};
use super::{LogFile, mark};
use crate::error::{Code, Error, Result};
use crate::format::entry::SEQUENCE_MAX;
use crate::format::synced::Synced;
use crate::format::{LOCK_NAME, SYNCED_NAME, TornName, log_file_name, temporary_name};
use crate::planted::{self, Bug};
use crate::wal::batch::ENTRIES_BYTES_MAX;
use crate::wal::directory::{Directory, opening};
use crate::wal::handle::{Options, Recovery, Sequences, TornAt};
use crate::wal::lock::Locks;
use crate::wal::log::Policy;
use crate::wal::scan::Progress;

/// An opened log: what the state machine starts from, and what is held for as long as it runs.
#[derive(Debug)]
pub(crate) struct Recovered {
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
pub(crate) fn recover(
    fs: &dyn Fs,
    options: &Options,
    sequences: Sequences,
    progress: Progress<'_>,
    check_wanted: &dyn Fn() -> Result<()>,
) -> Result<Recovered> {
    let began = fs.now();
    let place = Directory { fs, path: &options.directory, file_mode: options.file_mode };
    let opening = Opening { place, options };
    // Looked at before LOCK is touched: a directory that is somebody else's stays as it is.
    let exists = opening.look()?.is_a_log();
    place.check_wish(exists, options)?;
    place.make()?;
    let mut locks = Locks::new(fs, options.lock_timeout, options.file_mode, check_wanted);
    let lock = locks.take_owner(&options.directory.join(LOCK_NAME))?;
    // Looked at again: until the lock was ours somebody else may have written here.
    let names = opening.look()?;
    let (start, mut recovery) = if names.is_a_log() {
        opening.recover(&names, &mut locks, &lock, sequences, progress)?
    } else {
        locks.sign(&lock)?;
        place.sync_ancestors()?;
        opening.create(&names)?
    };
    recovery.duration = fs.now().since(began);
    Ok(Recovered { start, recovery, lock })
}

struct Opening<'a> {
    place: Directory<'a>,
    options: &'a Options,
}

impl Opening<'_> {
    fn look(&self) -> Result<Names> {
        let names = Names::look(self.place.fs, self.place.path)?;
        match names.stranger.as_ref().filter(|_| !names.is_a_log()) {
            Some(stranger) => Err(self.place.not_empty(stranger)),
            None => Ok(names),
        }
    }

    /// File 0 durable, its name too, then SYNCED.
    fn create(&self, names: &Names) -> Result<(Start, Recovery)> {
        let fs = self.place.fs;
        self.place.sync()?;
        self.remove_temporary(names)?;
        let path = self.place.path.join(log_file_name(0));
        let file = make_file(fs, &path, self.options.file_mode).map_err(opening)?;
        self.place.sync()?;
        let files = vec![LogFile { number: 0, bytes: 0, lsns: None }];
        let start = self.start(files, file, 1)?;
        let recovery = Recovery { segments: 1, clean_shutdown: true, created: true, ..Recovery::default() };
        Ok((start, recovery))
    }

    fn remove_temporary(&self, names: &Names) -> Result<()> {
        if names.has_temporary { self.place.remove(&temporary_name(SYNCED_NAME)) } else { Ok(()) }
    }

    /// Everything is durable: SYNCED may say so.
    fn start(&self, files: Vec<LogFile>, file: File, next_lsn: u64) -> Result<Start> {
        let Options { directory, file_mode, sync_interval, sync, .. } = self.options;
        let fs = self.place.fs;
        let last = files.last().expect("a log has a file");
        let synced = Synced { file: last.number, offset: last.bytes };
        let synced = mark::make(fs, directory, synced, *file_mode).map_err(opening)?;
        Ok(Start {
            directory: directory.clone(),
            file_mode: *file_mode,
            policy: Policy::resolve(*sync, fs.has_cheap_dsync(&file)),
            sync_interval: *sync_interval,
            files,
            file,
            synced,
            next_lsn,
        })
    }

    fn recover(
        &self,
        names: &Names,
        locks: &mut Locks<'_>,
        lock: &File,
        sequences: Sequences,
        progress: Progress<'_>,
    ) -> Result<(Start, Recovery)> {
        let Directory { fs, path: directory, .. } = self.place;
        // Rule 8: a killed owner's writes may still be on their way. Nobody else can begin to write now that
        // LOCK is ours, so a lock that was had once says that the file is quiet.
        for &number in &names.files {
            locks.take_segment(&directory.join(log_file_name(number)), false)?;
        }
        locks.sign(lock)?;
        let mut files = LogFiles::open(fs, directory, sequences, &names.files)?;
        files.synced = match names::read_synced(fs, directory)? {
            Some(Ok(synced)) => Some(synced),
            Some(Err(refusal)) => return Err(names::bad_synced(directory, &refusal)),
            None => None,
        };
        let scan = files.scan(self.options.check, progress)?;
        if scan.next_lsn > SEQUENCE_MAX + 1 {
            let message = format!(
                "{}: the log holds sequence {SEQUENCE_MAX}, the highest there can be, and takes no more",
                directory.display()
            );
            return Err(Error::new(Code::WalUnsupported, message).path(directory));
        }
        // From here on the log is sound; now it may be changed.
        self.repair(names, locks, files, &scan)
    }

    fn repair(
        &self,
        names: &Names,
        locks: &mut Locks<'_>,
        mut files: LogFiles<'_>,
        scan: &Scan,
    ) -> Result<(Start, Recovery)> {
        let torn = files.files[scan.index];
        let torn_bytes = if scan.is_torn { torn.bytes - scan.offset } else { 0 };
        let was_closed = files.synced == Some(Synced { file: torn.number, offset: scan.offset });
        if scan.is_torn {
            self.set_aside(&files, scan)?;
        }
        // What the page cache shows as renamed or removed may not be so on disk: first make the names that the log was
        // judged by durable.
        self.place.sync()?;
        self.remove_temporary(names)?;
        if scan.is_torn {
            let file = self.file(locks, torn.number)?;
            self.place.fs.set_len(&file, scan.offset).map_err(opening)?;
            if !planted::is(Bug::CutWithoutSync) {
                self.place.fs.sync(&file).map_err(opening)?;
            }
            files.files[scan.index].bytes = scan.offset;
        }
        self.write_again(locks, &files, scan)?;
        let last = *files.files.last().expect("a log has a file");
        let file = self.file(locks, last.number)?;
        if !(scan.is_torn && planted::is(Bug::CutWithoutSync)) {
            self.place.fs.sync(&file).map_err(opening)?;
        }
        self.place.sync()?;

        let recovery = Recovery {
            records: scan.records,
            segments: files.files.len() as u64,
            torn_bytes,
            torn_at: scan.is_torn.then_some(TornAt {
                segment: torn.number,
                offset: scan.offset,
                lsn: scan.next_lsn,
            }),
            clean_shutdown: was_closed && !scan.is_torn,
            created: false,
            duration: Duration::ZERO,
        };
        let start = self.start(files.files, file, scan.next_lsn)?;
        self.place.forget_old_torn_tails();
        Ok((start, recovery))
    }

    fn file(&self, locks: &mut Locks<'_>, number: u64) -> Result<File> {
        locks.take_segment(&self.place.path.join(log_file_name(number)), false)
    }

    /// Keep a copy of what is about to be cut. This format does not count its openings: the copies count themselves,
    /// and an opening that a crash ends may leave one that the next makes again.
    fn set_aside(&self, files: &LogFiles<'_>, scan: &Scan) -> Result<()> {
        let LogFile { number: segment, bytes, .. } = files.files[scan.index];
        let incarnation = self.place.next_torn_number();
        let name = TornName { segment, offset: scan.offset, incarnation };
        self.place.set_aside(&[(name, scan.offset)], |from, copy| {
            let mut window = files.window(scan.index)?;
            let mut at = from;
            while at < bytes {
                let len = (bytes - at).min(ENTRIES_BYTES_MAX as u64) as usize;
                let piece = Buffer::copy_of(window.get(self.place.fs, at, len)?);
                self.place.fs.write_at(copy, at - from, &piece).map_err(opening)?;
                at += len as u64;
            }
            Ok(())
        })
    }

    /// Write every record that SYNCED does not vouch for again, where it is, and sync its file (rule 6): what was read
    /// may be in the page cache only, clean after a flush that failed, and gone with the power. Each is checked once
    /// more on its way: the cache can have dropped it since, and shown what the disk has.
    fn write_again(&self, locks: &mut Locks<'_>, files: &LogFiles<'_>, scan: &Scan) -> Result<()> {
        if planted::is(Bug::TrustCachedFrames) {
            return Ok(());
        }
        let fs = self.place.fs;
        let (first, from) = scan.unsynced;
        for index in first..=scan.index {
            let LogFile { number, bytes, .. } = files.files[index];
            let mut at = if index == first { from } else { 0 };
            if at == bytes {
                continue;
            }
            let file = self.file(locks, number)?;
            let mut window = files.window(index)?;
            let mut piece: Vec<u8> = Vec::new();
            let write = |piece: &mut Vec<u8>, end: u64| -> Result<()> {
                let at = end - piece.len() as u64;
                fs.write_at(&file, at, &Buffer::copy_of(piece)).map_err(opening)?;
                piece.clear();
                Ok(())
            };
            while at < bytes {
                let Finding::Record { bytes: record, .. } = files.look(index, &mut window, at, None)? else {
                    return Err(lost_in_cache(files, index, at));
                };
                piece.extend_from_slice(window.get(fs, at, record as usize)?);
                at += record;
                if piece.len() >= ENTRIES_BYTES_MAX || at == bytes {
                    write(&mut piece, at)?;
                }
            }
            if !(scan.is_torn && index == scan.index && planted::is(Bug::CutWithoutSync)) {
                fs.sync(&file).map_err(opening)?;
            }
        }
        Ok(())
    }
}

fn lost_in_cache(files: &LogFiles<'_>, index: usize, at: u64) -> Error {
    opening(ringbolt_disk::Error::new("pread", files.path(index), Errno::IO).at(at).hint(
        "the disk does not have what the page cache showed; nothing acknowledged is lost, open the log again",
    ))
}
