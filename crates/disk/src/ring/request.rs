//! One operation as the ring does it: an entry, its completion, and again as long as that is not the end.

use io_uring_07::{opcode, squeue, types};
use rustix::io::{Errno, ReadWriteFlags};

use crate::os::OsFile;
use crate::transfer::Transfer;
use crate::{Buffer, Done, Error, File, Job, Op, Outcome, Result, Token, WriteMode};

/// What becomes of an operation that is submitted.
pub(super) enum Accepted {
    /// It goes to the disk.
    Request(Request),
    /// It is for a helper thread.
    Job(Token, Job),
    /// There is nothing to do, or it cannot be done.
    Answer(Done),
}

/// An operation and all that its entries point at.
#[derive(Debug)]
pub(super) struct Request {
    token: Token,
    file: File,
    action: Action,
    /// How often it was sent again because the kernel asked for that.
    retries: u32,
}

#[derive(Debug)]
enum Action {
    Read { at: u64, buffer: Buffer, transfer: Transfer },
    Write { at: u64, buffer: Buffer, transfer: Transfer, way: Way },
    Sync,
}

/// How far the promise of a write reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Into the file.
    Plain,
    /// Onto the medium, each piece by itself (`RWF_DSYNC`).
    Dsync,
    /// Into the file, and then it is flushed: where the file system refuses `RWF_DSYNC`.
    BeforeFlush,
    /// All of it is in the file, which is being flushed.
    Flush,
}

impl Way {
    /// What stands for it on this file, by what its file system refused so far.
    fn that_is_taken(self, file: &OsFile) -> Self {
        match self {
            Self::Dsync if !file.takes_dsync() => Self::BeforeFlush,
            way => way,
        }
    }

    fn flags(self) -> ReadWriteFlags {
        match self {
            Self::Dsync => ReadWriteFlags::DSYNC,
            Self::Plain | Self::BeforeFlush | Self::Flush => ReadWriteFlags::empty(),
        }
    }
}

/// What a completion means for its request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It needs another entry.
    Again,
    /// The same, but not at once: it would fail for the same reason.
    Later,
    /// That was its last completion.
    Over(Result<Outcome>),
}

impl Request {
    /// A kernel that is short of memory gets over it, or never does.
    pub(super) const RETRIES_MAX: u32 = 100;

    /// Make a request of an operation, where it is one for the disk.
    ///
    /// # Panics
    /// Where its file is another disk's: a mistake of the caller, which it finds out by itself.
    pub(super) fn accept(token: Token, op: Op) -> Accepted {
        let (file, action) = match op {
            Op::Read { file, at, buffer } => {
                let transfer = Transfer::new(buffer.len(), file.is_direct());
                (file, Action::Read { at, buffer, transfer })
            }
            Op::Write { file, at, buffer, mode } => {
                let transfer = Transfer::new(buffer.len(), file.is_direct());
                let way = match mode {
                    WriteMode::Plain => Way::Plain,
                    WriteMode::Dsync | WriteMode::Alone => Way::Dsync,
                };
                (file, Action::Write { at, buffer, transfer, way })
            }
            Op::Sync { file } => (file, Action::Sync),
            Op::Job(job) => return Accepted::Job(token, job),
        };
        let request = Self { token, file, action, retries: 0 };
        match request.immediate() {
            Some(outcome) => Accepted::Answer(request.end(outcome)),
            None => Accepted::Request(request),
        }
    }

    /// Whether it is a read, or a plain write past the page cache. These end soon; a flush may take a disk's whole cache to
    /// end.
    pub(super) fn is_brief(&self) -> bool {
        match self.action {
            Action::Read { .. } => true,
            Action::Write { way, .. } => way == Way::Plain && self.file.is_direct(),
            Action::Sync => false,
        }
    }

    /// What it comes to without asking the disk.
    fn immediate(&self) -> Option<Result<Outcome>> {
        let (at, len, nothing) = match &self.action {
            Action::Read { at, buffer, .. } => (*at, buffer.len(), Outcome::Read(0)),
            Action::Write { at, buffer, .. } => (*at, buffer.len(), Outcome::Written),
            Action::Sync => {
                // Here, and not when its entry is built, a file of another disk is found out.
                self.file.os();
                return None;
            }
        };
        match self.file.os().check_range(self.syscall(), at, len) {
            Err(error) => Some(Err(error)),
            Ok(()) => (len == 0).then_some(Ok(nothing)),
        }
    }

    /// The entry that does what is to be done next. It stays valid as long as this request is kept, moved or
    /// not (moving a [`Buffer`] does not move its bytes), and is not asked for another.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let descriptor = types::Fd(self.file.os().raw());
        match &mut self.action {
            Action::Read { at, buffer, transfer } => {
                let piece = transfer.next().expect("a read that is not over");
                let from = *at + piece.start as u64;
                let bytes = &mut buffer[piece];
                opcode::Read::new(descriptor, bytes.as_mut_ptr(), bytes.len() as u32).offset(from).build()
            }
            Action::Write { way: Way::Flush, .. } | Action::Sync => {
                opcode::Fsync::new(descriptor).flags(types::FsyncFlags::DATASYNC).build()
            }
            Action::Write { at, buffer, transfer, way } => {
                *way = way.that_is_taken(self.file.os());
                let piece = transfer.next().expect("a write that is not over");
                let from = *at + piece.start as u64;
                let bytes = &buffer[piece];
                opcode::Write::new(descriptor, bytes.as_ptr(), bytes.len() as u32)
                    .offset(from)
                    .rw_flags(way.flags().bits().cast_signed())
                    .build()
            }
        }
    }

    /// The completion of its entry is in, with this result.
    pub(super) fn complete(&mut self, result: i32) -> Verdict {
        let Ok(count) = usize::try_from(result) else {
            return self.fail(Errno::from_raw_os_error(-result));
        };
        match &mut self.action {
            Action::Read { transfer, .. } => {
                let piece = transfer.next().expect("a read that is not over");
                if transfer.advance(piece.start, count) && transfer.next().is_some() {
                    return Verdict::Again;
                }
                Verdict::Over(Ok(Outcome::Read(transfer.done())))
            }
            Action::Write { way: Way::Flush, .. } => Verdict::Over(Ok(Outcome::Written)),
            Action::Write { at, transfer, way, .. } => {
                let piece = transfer.next().expect("a write that is not over");
                if !transfer.advance(piece.start, count) {
                    let from = *at + piece.start as u64;
                    return Verdict::Over(Err(self.file.os().wrote_nothing(self.syscall(), from)));
                }
                if transfer.next().is_some() {
                    return Verdict::Again;
                }
                if *way == Way::BeforeFlush {
                    *way = Way::Flush;
                    return Verdict::Again;
                }
                Verdict::Over(Ok(Outcome::Written))
            }
            Action::Sync => Verdict::Over(Ok(Outcome::Synced)),
        }
    }

    fn fail(&mut self, errno: Errno) -> Verdict {
        let is_flush = matches!(self.action, Action::Sync | Action::Write { way: Way::Flush, .. });
        let verdict = match errno {
            // The kernel's workers belong to the thread that submitted, and when that ends, what they have not
            // begun is cancelled. Nobody else cancels. A flush too has done nothing then, so it is not retried
            // here but tried for the first time.
            Errno::CANCELED => Verdict::Again,
            // So a read is answered whose page arrived in the cache when the thread that submitted had ended.
            // The memory is there: we own it.
            Errno::FAULT if !is_flush => Verdict::Again,
            // After any other failure of a flush the kernel calls the lost pages clean, and would say 0.
            _ if is_flush => return Verdict::Over(Err(self.file.os().error("fdatasync", errno))),
            Errno::INTR => Verdict::Again,
            Errno::AGAIN => Verdict::Later,
            Errno::OPNOTSUPP => return self.without_flag(errno),
            _ => return Verdict::Over(Err(self.error(errno))),
        };
        if self.retries == Self::RETRIES_MAX {
            return Verdict::Over(Err(self.error(errno)));
        }
        self.retries += 1;
        verdict
    }

    /// `EOPNOTSUPP`: where it is for the flag of a write, that begins anew without.
    fn without_flag(&mut self, errno: Errno) -> Verdict {
        if let Action::Write { buffer, transfer, way, .. } = &mut self.action {
            match way {
                Way::Dsync => self.file.os().refused_dsync(),
                Way::Plain | Way::BeforeFlush | Way::Flush => return Verdict::Over(Err(self.error(errno))),
            }
            *transfer = Transfer::new(buffer.len(), self.file.is_direct());
            return Verdict::Again;
        }
        Verdict::Over(Err(self.error(errno)))
    }

    /// What it is in plain calls.
    fn syscall(&self) -> &'static str {
        match &self.action {
            Action::Read { .. } => "pread",
            Action::Write { way: Way::Dsync, .. } => "pwritev2",
            Action::Write { way: Way::Flush, .. } | Action::Sync => "fdatasync",
            Action::Write { .. } => "pwrite",
        }
    }

    fn error(&self, errno: Errno) -> Error {
        let error = self.file.os().error(self.syscall(), errno);
        match &self.action {
            Action::Read { at, transfer, .. } | Action::Write { at, transfer, .. } => {
                let from = transfer.next().map_or(transfer.done(), |piece| piece.start);
                error.at(*at + from as u64)
            }
            Action::Sync => error,
        }
    }

    /// Its end, with the buffer: the kernel has no entry of it.
    pub(super) fn end(self, outcome: Result<Outcome>) -> Done {
        let buffer = match self.action {
            Action::Read { buffer, .. } | Action::Write { buffer, .. } => Some(buffer),
            Action::Sync => None,
        };
        Done { token: self.token, outcome, buffer }
    }

    /// Its end where the kernel may have an entry of it for ever: the file and the buffer are never let go of.
    pub(super) fn leak(self, error: Error) -> Done {
        let done = Done { token: self.token, outcome: Err(error), buffer: None };
        std::mem::forget(self);
        done
    }
}
