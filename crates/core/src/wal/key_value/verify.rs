//! Every byte of a log, checked; each place that is wrong, named.

use std::path::Path;
use std::time::Duration;

use ringbolt_disk::Fs;

use super::finding::{Finding, break_reason};
use super::names::{self, Names};
use super::scan::{LogFiles, is_truncated_away};
use crate::error::Result;
use crate::format::Refusal;
use crate::format::entry::{CRC_BYTES, HEAD_BYTES};
use crate::wal::handle::Sequences;
use crate::wal::report::{Damage, Report, Torn, Verdict};

/// Between two calls of `progress`.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Read all of it and report.
pub(super) fn verify(
    fs: &dyn Fs,
    directory: &Path,
    sequences: Sequences,
    progress: &dyn Fn(u64, u64) -> Result<()>,
) -> Result<Report> {
    let began = fs.now();
    loop {
        // SYNCED first: whatever it claims is in the files that are looked at after it.
        let synced = names::read_synced(fs, directory)?;
        let names = Names::look(fs, directory)?;
        if !names.is_a_log() {
            return Err(names::not_found(directory));
        }
        let mut files = LogFiles::open(fs, directory, sequences, &names.files)?;
        let mut check = Check::default();
        match synced {
            Some(Ok(synced)) => files.synced = Some(synced),
            Some(Err(refusal)) => check.synced(&refusal),
            None => {}
        }
        check.numbers(&files);
        match check.records(&files, progress) {
            Ok(()) => return Ok(check.report(fs.now().since(began))),
            Err(error) => {
                // A writer truncated faster than this reads: what there is now is checked, from its beginning, so that
                // the report is of one log. That ends: each time the log begins later.
                let oldest = files.files.first().map_or(u64::MAX, |file| file.number);
                if !is_truncated_away(fs, directory, oldest, &error)? {
                    return Err(error);
                }
            }
        }
    }
}

/// What was found so far.
#[derive(Default)]
struct Check {
    is_unsupported: bool,
    records: u64,
    bytes: u64,
    segments: u64,
    lsns: Option<(u64, u64)>,
    torn: Option<Torn>,
    damage: Vec<Damage>,
}

impl Check {
    fn synced(&mut self, refusal: &Refusal) {
        self.is_unsupported |= matches!(refusal, Refusal::Unsupported { .. });
        let reason = refusal.to_string();
        self.damage.push(Damage { segment: None, offset: None, first_lsn: 1, last_lsn: 1, reason });
    }

    fn numbers(&mut self, files: &LogFiles<'_>) {
        if let Some((number, reason)) = files.missing_file() {
            self.damaged(number, 0, (1, 1), reason);
        }
    }

    /// What is due where nothing tells but what was found.
    fn next_lsn(&self) -> u64 {
        self.lsns.map_or(1, |(_, last_lsn)| last_lsn + 1)
    }

    fn damaged(&mut self, segment: u64, offset: u64, (first_lsn, last_lsn): (u64, u64), reason: String) {
        let last_lsn = last_lsn.max(first_lsn);
        let damage = Damage { segment: Some(segment), offset: Some(offset), first_lsn, last_lsn, reason };
        self.damage.push(damage);
    }

    fn records(&mut self, files: &LogFiles<'_>, progress: &dyn Fn(u64, u64) -> Result<()>) -> Result<()> {
        let total = files.files.iter().map(|file| file.bytes).sum();
        let (mut passed, mut told) = (0, 0);
        // Whether the newest damage goes on until the next record.
        let (mut due, mut is_lost) = (None, false);
        let mut rest = None;
        for index in 0..files.files.len() {
            let file = files.files[index];
            let mut window = files.window(index)?.following(rest);
            let (mut offset, records_before) = (0, self.records);
            due = due.or(files.first_due(index));
            loop {
                if passed + offset >= told {
                    progress(passed + offset, total)?;
                    told = passed + offset + PROGRESS_BYTES;
                }
                let first_lsn = due.map_or_else(|| self.next_lsn(), |due| due + 1);
                let record = match files.look(index, &mut window, offset, due)? {
                    Finding::End => break,
                    Finding::Record { sequence, bytes } => Some((sequence, bytes)),
                    Finding::Break { sequence, due, bytes } => {
                        let reason = break_reason(sequence, due);
                        self.damaged(file.number, offset, (first_lsn, sequence), reason);
                        Some((sequence, bytes))
                    }
                    Finding::Unsupported(refusal) => {
                        self.is_unsupported = true;
                        self.damaged(file.number, offset, (first_lsn, first_lsn), refusal.to_string());
                        None
                    }
                    Finding::Bad(reason) => {
                        let Some((proof, last_lsn)) = files.damage(index, offset, due)? else {
                            let bytes = file.bytes - offset;
                            self.torn = Some(Torn { segment: file.number, offset, bytes });
                            break;
                        };
                        let last_lsn = last_lsn.unwrap_or(first_lsn);
                        self.damaged(
                            file.number,
                            offset,
                            (first_lsn, last_lsn),
                            format!("{reason}, and {proof}"),
                        );
                        None
                    }
                };
                let Some((sequence, bytes)) = record else {
                    // What is due behind a damaged place is not known; the next record tells.
                    (due, is_lost) = (None, true);
                    let Some(next) = files.resync(index, offset)? else { break };
                    offset = next;
                    continue;
                };
                if std::mem::take(&mut is_lost)
                    && let Some(damage) = self.damage.last_mut()
                {
                    damage.last_lsn = sequence.max(damage.first_lsn);
                }
                self.record(sequence + 1, bytes);
                due = Some(sequence + 1);
                offset += bytes;
            }
            // Where the file's end is lost already, this is the same loss.
            if let Some(reason) = files.lost_end(index, file.bytes).filter(|_| !is_lost) {
                let first_lsn = due.map_or_else(|| self.next_lsn(), |due| due + 1);
                self.damaged(file.number, file.bytes, (first_lsn, first_lsn), reason);
            }
            rest = Some(window.close());
            self.segments += u64::from(self.records > records_before || index + 1 == files.files.len());
            passed += file.bytes;
        }
        Ok(())
    }

    fn record(&mut self, lsn: u64, bytes: u64) {
        self.records += 1;
        self.bytes += bytes - (HEAD_BYTES + CRC_BYTES) as u64;
        let (first, last) = self.lsns.unwrap_or((lsn, lsn));
        self.lsns = Some((first.min(lsn), last.max(lsn)));
    }

    fn report(self, duration: Duration) -> Report {
        let verdict = match () {
            () if self.is_unsupported => Verdict::Unsupported,
            () if !self.damage.is_empty() => Verdict::Damage,
            () if self.torn.is_some() => Verdict::Torn,
            () => Verdict::Clean,
        };
        let (first_lsn, last_lsn) = self.lsns.unwrap_or((1, 0));
        Report {
            verdict,
            records: self.records,
            bytes: self.bytes,
            segments: self.segments,
            first_lsn,
            last_lsn,
            torn: self.torn,
            damage: self.damage,
            duration,
        }
    }
}
