//! Reading a log's frames in order, and what the first bad one means: the verdict table of docs/FORMAT.md.
//! Reads only; recovery acts on what this finds.

use std::path::Path;

use ringbolt_disk::Fs;

use crate::error::{Code, Error, Result};
use crate::format::frame::{HEADER_BYTES, Header, Held, Kind, Place};
use crate::format::head::Head;
use crate::format::{GRAIN, LogId, Refusal, segment_name};
use crate::planted::{self, Bug};
use crate::wal::handle::Check;
use crate::wal::window::Window;

pub(crate) static ZEROS: [u8; GRAIN as usize] = [0; GRAIN as usize];

/// Calls with the bytes read so far and in all. An error ends the reading: nobody waits for it any more.
pub(crate) type Progress<'a> = &'a dyn Fn(u64, u64) -> Result<()>;

/// What the next frame must follow.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) log_id: LogId,
    /// HEAD's: no frame can be of a later one.
    pub(crate) incarnation_max: u32,
    /// `None` before the first frame of a log whose beginning was truncated, or of a read that begins later.
    pub(crate) next_lsn: Option<u64>,
    /// The same.
    pub(crate) previous_crc: Option<u32>,
    /// Of the frame before.
    pub(crate) incarnation: u32,
}

/// What there is at a place where a frame is due.
#[derive(Debug)]
pub(crate) enum Finding {
    /// A valid frame.
    Frame(Held),
    /// No frame, or not a whole one: for these reasons.
    Bad(String),
    /// Every checksum holds and something contradicts: never the mark of a torn write.
    Damage(String),
    /// A frame of a later version.
    Unsupported(Refusal),
}

impl Chain {
    /// Of a log's frames, from any of them on.
    pub(crate) fn of(head: &Head) -> Self {
        let Head { log_id, incarnation: incarnation_max, .. } = *head;
        Self { log_id, incarnation_max, next_lsn: None, previous_crc: None, incarnation: 0 }
    }

    /// What is at `offset` of segment `number`?
    pub(crate) fn look(&self, fs: &dyn Fs, window: &mut Window, number: u64, offset: u64) -> Result<Finding> {
        let Some(held) = self.held(fs, window, number, offset)? else {
            return Ok(Finding::Bad("no frame header".to_owned()));
        };
        if self.is_junk(&held) {
            let (found, expected) = (held.header.incarnation, self.incarnation);
            return Ok(Finding::Bad(format!(
                "a leftover of incarnation {found}, expected {expected} or later"
            )));
        }
        match self.check(&held, offset, window.bytes()) {
            Ok(()) => {}
            Err(refusal @ Refusal::Unsupported { .. }) => return Ok(Finding::Unsupported(refusal)),
            Err(refusal) => return Ok(Finding::Damage(refusal.to_string())),
        }
        let payload = window.get(fs, offset + HEADER_BYTES as u64, held.header.payload_bytes as usize)?;
        match held.header.records(payload) {
            Ok(_) => {}
            Err(refusal @ Refusal::NotWhole { .. }) => return Ok(Finding::Bad(refusal.to_string())),
            Err(refusal) => return Ok(Finding::Damage(refusal.to_string())),
        }
        Ok(match self.follows(&held) {
            Ok(()) => Finding::Frame(held),
            Err(reason) => Finding::Damage(reason),
        })
    }

    /// Go on behind this frame.
    pub(crate) fn pass(&mut self, held: &Held) {
        self.next_lsn = Some(held.header.next_lsn());
        self.previous_crc = Some(held.crc);
        self.incarnation = held.header.incarnation;
    }

    /// The header at `offset`, where one holds.
    pub(crate) fn held(
        &self,
        fs: &dyn Fs,
        window: &mut Window,
        number: u64,
        offset: u64,
    ) -> Result<Option<Held>> {
        if offset + GRAIN > window.bytes() {
            return Ok(None);
        }
        let place = Place { log_id: &self.log_id, segment: number, offset };
        Ok(Header::parse(window.get(fs, offset, HEADER_BYTES)?, place))
    }

    /// A frame of an earlier incarnation than the one before it was left behind by a zeroing that a crash
    /// undid: neither frame nor proof.
    pub(crate) fn is_junk(&self, held: &Held) -> bool {
        held.header.incarnation < self.incarnation && !planted::is(Bug::NoIncarnationRule)
    }

    pub(crate) fn check(&self, held: &Held, offset: u64, segment_bytes: u64) -> Result<(), Refusal> {
        held.check(offset, segment_bytes)?;
        let (found, max) = (held.header.incarnation, self.incarnation_max);
        if found > max {
            let reason = format!("a frame of incarnation {found}, and HEAD knows only {max}");
            return Err(Refusal::Inconsistent { reason });
        }
        Ok(())
    }

    fn follows(&self, held: &Held) -> Result<(), String> {
        let found = held.header.first_lsn;
        if let Some(expected) = self.next_lsn
            && found != expected
        {
            return Err(format!("a frame of LSN {found}, expected {expected}"));
        }
        if let Some(expected) = self.previous_crc
            && held.header.previous_crc != expected
        {
            let found = held.header.previous_crc;
            return Err(format!("a frame that follows {found:#010x}, expected {expected:#010x}"));
        }
        Ok(())
    }
}

/// A segment as it was found: whole header, right log, right number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) number: u64,
    /// Its size, as its header says.
    pub(crate) bytes: u64,
    /// Whether bytes are missing at the end of its file. They read as zeros.
    pub(crate) is_cut: bool,
}

/// Part of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) segment: Found,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// Add what follows the last extent to it: thousands of small frames are one extent.
fn extend(extents: &mut Vec<Extent>, more: Extent) {
    match extents.last_mut() {
        Some(last) if last.segment.number == more.segment.number && last.to == more.from => last.to = more.to,
        _ => extents.push(more),
    }
}

/// How a log ends.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The segment that the next frame belongs into: an index into the segments given.
    pub(crate) last: usize,
    /// Where in it.
    pub(crate) tail: u64,
    /// The LSN due there.
    pub(crate) next_lsn: u64,
    pub(crate) previous_crc: u32,
    /// The LSN of the first frame of each segment that holds one.
    pub(crate) first_lsns: Vec<u64>,
    /// Valid frames above the proven LSN, in order.
    pub(crate) unproven: Vec<Extent>,
    /// What is behind the tail and not zero: the torn tail, to be set aside.
    pub(crate) torn: Vec<Extent>,
}

/// A log's files, to be read from the oldest segment kept on.
#[derive(Clone, Copy)]
pub(crate) struct LogFiles<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) directory: &'a Path,
    /// Read past the page cache, where the file system takes it.
    pub(crate) direct: bool,
    pub(crate) head: &'a Head,
    pub(crate) segments: &'a [Found],
}

/// What lies behind the first bad place.
#[derive(Default)]
pub(crate) struct Behind {
    /// A header of a later version.
    pub(crate) unsupported: Option<(usize, u64, Refusal)>,
    /// A header that contradicts itself.
    pub(crate) damage: Option<(usize, u64, String)>,
    /// The header that proves most: its durable LSN, its first LSN.
    pub(crate) proof: Option<(u64, u64)>,
    /// What is not zero, or stands before something that is not.
    pub(crate) torn: Vec<Extent>,
}

impl LogFiles<'_> {
    /// Read the segments in order and judge how the log ends.
    ///
    /// # Errors
    /// `ERR_WAL_DAMAGED`, `ERR_WAL_UNSUPPORTED`, `ERR_WAL_IO`; what `progress` answers.
    pub(crate) fn scan(&self, check: Check, progress: Progress<'_>) -> Result<Scan> {
        let Self { fs, head, segments, .. } = *self;
        let (start, mut chain, mut first_lsns) = self.start(check)?;
        let total = segments[start..].iter().map(|segment| segment.bytes).sum();
        let mut unproven = Vec::new();
        let mut passed = 0;
        let mut last = start;
        let mut rest = None;
        loop {
            let segment = segments[last];
            let mut window = self.window(last)?.following(rest);
            let mut tail = GRAIN;
            let finding = loop {
                progress(passed + tail, total)?;
                let held = match chain.look(fs, &mut window, segment.number, tail)? {
                    Finding::Frame(held) => held,
                    finding => break Some(finding),
                };
                if (last, tail) == (0, GRAIN) && held.header.first_lsn > head.first_lsn {
                    let (found, kept) = (held.header.first_lsn, head.first_lsn);
                    break Some(Finding::Damage(format!(
                        "the log begins with LSN {found}, expected {kept} or less"
                    )));
                }
                if tail == GRAIN {
                    first_lsns.push(held.header.first_lsn);
                }
                let end = held.header.padded_end(tail).expect("a valid frame ends in its segment");
                if held.header.first_lsn > head.proven_lsn {
                    extend(&mut unproven, Extent { segment, from: tail, to: end });
                }
                chain.pass(&held);
                tail = end;
                if held.header.kind == Kind::Seal {
                    break None;
                }
            };
            if let Some(finding) = finding {
                let torn = self.judge(&chain, last, tail, finding)?;
                // A first frame that is missing was judged above; what is left is an empty log, from LSN 1 on.
                let next_lsn = chain.next_lsn.unwrap_or(1);
                let previous_crc = chain.previous_crc.unwrap_or(0);
                return Ok(Scan { last, tail, next_lsn, previous_crc, first_lsns, unproven, torn });
            }
            rest = Some(window.close());
            passed += segment.bytes;
            last += 1;
            if last == segments.len() {
                let reason = "the segment before it is sealed, and this one is missing";
                let next = chain.next_lsn.unwrap_or(1);
                let number = segment.number + 1;
                let path = self.directory.join(segment_name(number));
                return Err(damaged(&path, Some((number, 0)), next, next.max(head.proven_lsn), reason));
            }
        }
    }

    /// The first frame of a later version in these segments, as the error that it is: it outranks damage, since
    /// what we take for damage may be what that version writes.
    pub(crate) fn later_version(&self) -> Result<Option<Error>> {
        let found = self.behind(&Chain::of(self.head), 0, 0, &|_| false)?.unsupported;
        Ok(found.map(|(index, at, refusal)| {
            let path = self.directory.join(segment_name(self.segments[index].number));
            unsupported_at(&path, Some(at), &refusal)
        }))
    }

    fn window(&self, index: usize) -> Result<Window> {
        let Found { number, bytes, .. } = self.segments[index];
        Window::open(self.fs, &self.directory.join(segment_name(number)), bytes, self.direct)
    }

    /// Where reading begins, what the first frame there must follow, and the first LSN of each segment before.
    fn start(&self, check: Check) -> Result<(usize, Chain, Vec<u64>)> {
        let from_the_first = self.segments[0].number == 1;
        let first = Chain {
            next_lsn: from_the_first.then_some(1),
            previous_crc: from_the_first.then_some(0),
            ..Chain::of(self.head)
        };
        if check == Check::All {
            return Ok((0, first, Vec::new()));
        }
        // The newest segment whose first frame is not above the proven LSN, as long as all before it begin
        // with a frame that is valid by itself.
        let mut start = (0, first.clone());
        let mut first_lsns = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let chain = if index == 0 {
                first.clone()
            } else {
                Chain { next_lsn: None, previous_crc: None, ..start.1.clone() }
            };
            let finding = chain.look(self.fs, &mut self.window(index)?, segment.number, GRAIN)?;
            let Finding::Frame(held) = finding else { break };
            if held.header.first_lsn > self.head.proven_lsn {
                break;
            }
            // A beginning that is not the one HEAD knows is for the reading in order to find.
            if index == 0 && held.header.first_lsn > self.head.first_lsn {
                break;
            }
            start = (index, Chain { incarnation: held.header.incarnation, ..chain });
            first_lsns.push(held.header.first_lsn);
        }
        let (index, chain) = start;
        first_lsns.truncate(index);
        Ok((index, chain, first_lsns))
    }

    /// What the first place without a valid frame means. Answers with what is to be set aside: nothing, where
    /// the log ends cleanly.
    pub(crate) fn judge(
        &self,
        chain: &Chain,
        index: usize,
        at: u64,
        finding: Finding,
    ) -> Result<Vec<Extent>> {
        let behind = self.behind(chain, index, at, &|_| false)?;
        let due = chain.next_lsn.unwrap_or(self.head.first_lsn);
        let unsupported = match &finding {
            Finding::Unsupported(refusal) => Some((index, at, refusal.clone())),
            _ => behind.unsupported,
        };
        if let Some((index, at, refusal)) = unsupported {
            let path = self.directory.join(segment_name(self.segments[index].number));
            return Err(unsupported_at(&path, Some(at), &refusal));
        }
        let reason = match finding {
            Finding::Damage(reason) => return Err(self.damage(index, at, due, due, &reason)),
            Finding::Bad(reason) => reason,
            Finding::Frame(_) | Finding::Unsupported(_) => unreachable!("handled before"),
        };
        if planted::is(Bug::CutAtDamage) {
            return Ok(behind.torn);
        }
        if let Some((index, at, reason)) = behind.damage {
            return Err(self.damage(index, at, due, due, &reason));
        }
        if let Some((durable, first)) = behind.proof
            && durable >= due
        {
            let reason = format!("{reason}, and a later frame says that LSN {durable} was durable");
            return Err(self.damage(index, at, due, first.saturating_sub(1).max(due), &reason));
        }
        if self.head.proven_lsn >= due {
            let proven = self.head.proven_lsn;
            let reason = format!("{reason}, and HEAD says that LSN {proven} was durable");
            return Err(self.damage(index, at, due, proven, &reason));
        }
        if chain.next_lsn.is_none() {
            let reason = format!("{reason}, and records before this segment were truncated");
            return Err(self.damage(index, at, due, due, &reason));
        }
        Ok(behind.torn)
    }

    /// Look through the rest of the log for headers that hold. The header alone is proof. Goes no further than it
    /// takes to find what `is_enough`.
    pub(crate) fn behind(
        &self,
        chain: &Chain,
        index: usize,
        at: u64,
        is_enough: &dyn Fn(&Behind) -> bool,
    ) -> Result<Behind> {
        let mut behind = Behind::default();
        let mut chain = chain.clone();
        let mut rest = None;
        for (later, segment) in self.segments.iter().enumerate().skip(index) {
            let mut window = self.window(later)?.following(rest);
            let from = if later == index { at } else { GRAIN };
            let mut torn_to = from;
            let mut offset = from;
            while offset < segment.bytes {
                let held = chain
                    .held(self.fs, &mut window, segment.number, offset)?
                    .filter(|held| !chain.is_junk(held));
                let mut end = offset + GRAIN;
                if let Some(held) = held {
                    if (later, offset) != (index, at) {
                        behind.count(&chain, &held, (later, offset), segment.bytes);
                        if is_enough(&behind) {
                            return Ok(behind);
                        }
                    }
                    chain.incarnation = held.header.incarnation;
                    let padded_end = held.header.padded_end(offset).filter(|&end| end <= segment.bytes);
                    end = padded_end.unwrap_or(end);
                }
                for grain in (offset..end).step_by(GRAIN as usize) {
                    let len = GRAIN.min(segment.bytes - grain) as usize;
                    let bytes = window.get(self.fs, grain, len)?;
                    if bytes != &ZEROS[..len] {
                        let last = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
                        torn_to = grain + last as u64 + 1;
                    }
                }
                offset = end;
            }
            if torn_to > from {
                behind.torn.push(Extent { segment: *segment, from, to: torn_to });
            }
            rest = Some(window.close());
        }
        Ok(behind)
    }

    fn damage(&self, index: usize, at: u64, first_lsn: u64, last_lsn: u64, reason: &str) -> Error {
        let number = self.segments[index].number;
        damaged(&self.directory.join(segment_name(number)), Some((number, at)), first_lsn, last_lsn, reason)
    }
}

impl Behind {
    fn count(&mut self, chain: &Chain, held: &Held, (index, at): (usize, u64), segment_bytes: u64) {
        match chain.check(held, at, segment_bytes) {
            Ok(()) => {}
            Err(refusal @ Refusal::Unsupported { .. }) => {
                self.unsupported.get_or_insert((index, at, refusal));
                return;
            }
            Err(refusal) => {
                self.damage.get_or_insert((index, at, refusal.to_string()));
            }
        }
        let Header { durable_lsn, first_lsn, .. } = held.header;
        if self.proof.is_none_or(|(durable, _)| durable < durable_lsn) {
            self.proof = Some((durable_lsn, first_lsn));
        }
    }
}

/// The error for damage: at `place` (segment and offset) of a file, concerning these LSNs.
pub(crate) fn damaged(
    path: &Path,
    place: Option<(u64, u64)>,
    first_lsn: u64,
    last_lsn: u64,
    reason: &str,
) -> Error {
    let at = place.map_or_else(
        || format!("{}", path.display()),
        |(number, offset)| format!("segment {number} at offset {offset} ({})", path.display()),
    );
    let lsns = if first_lsn == last_lsn {
        format!("LSN {first_lsn}")
    } else {
        format!("LSNs {first_lsn} to {last_lsn}")
    };
    Error::new(
        Code::WalDamaged,
        format!("{at}: {reason}; {lsns} cannot be served. No byte was changed: restore the file from a copy"),
    )
    .path(path)
    .with(|details| {
        details.reason = Some(reason.to_owned());
        details.segment = place.map(|(number, _)| number);
        details.offset = place.map(|(_, offset)| offset);
        details.first_lsn = Some(first_lsn);
        details.last_lsn = Some(last_lsn);
    })
}

/// The error for what a later version, or another product, wrote.
pub(crate) fn unsupported_at(path: &Path, offset: Option<u64>, refusal: &Refusal) -> Error {
    let at = offset.map_or_else(String::new, |offset| format!(" at offset {offset}"));
    let what = match refusal {
        Refusal::Unsupported { .. } => "a newer version of ringbolt may read it",
        Refusal::NotWhole { .. } | Refusal::Inconsistent { .. } => "this is not a file of a ringbolt log",
    };
    Error::new(
        Code::WalUnsupported,
        format!("{}{at}: {refusal}; {what}. No byte was changed", path.display()),
    )
    .path(path)
    .with(|details| {
        details.offset = offset;
        details.reason = Some(refusal.to_string());
        if let Refusal::Unsupported { found, expected, .. } = refusal {
            details.found = Some(found.clone());
            details.expected = Some(expected.clone());
        }
    })
}
