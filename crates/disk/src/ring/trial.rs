//! A ring put to use once, alone: what the kernel says of it is not what it does.

use std::time::Duration;

use io_uring_07::{IoUring, Parameters, types};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::io::Errno;

use super::request::{Accepted, Request, Verdict};
use super::setup;
use crate::error::errno_of;
use crate::os::OsFile;
use crate::probe::explained;
use crate::{Buffer, Done, Error, File, GRAIN, Op, Outcome, Result, Token, WriteMode};

/// As many as a service has at the disk: the ring is as large as the one that is to come.
const DEPTH: usize = 64;

/// A file in memory answers at once. A ring that does not within this is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the kernel says so.
type Has = fn(&Parameters) -> bool;

/// What a kernel's `io_uring` can do, by the kernel's names.
const FEATURES: [(&str, Has); 12] = [
    ("single_mmap", Parameters::is_feature_single_mmap),
    ("nodrop", Parameters::is_feature_nodrop),
    ("submit_stable", Parameters::is_feature_submit_stable),
    ("rw_cur_pos", Parameters::is_feature_rw_cur_pos),
    ("fast_poll", Parameters::is_feature_fast_poll),
    ("ext_arg", Parameters::is_feature_ext_arg),
    ("native_workers", Parameters::is_feature_native_workers),
    ("rsrc_tags", Parameters::is_feature_resource_tagging),
    ("cqe_skip", Parameters::is_feature_skip_cqe_on_success),
    ("linked_file", Parameters::is_feature_linked_file),
    ("min_timeout", Parameters::is_feature_min_timeout),
    ("no_iowait", Parameters::is_feature_no_iowait),
];

/// Set a ring up, and write, flush and read back a grain through it. What it can do besides.
///
/// # Errors
/// The first thing that was refused, with advice.
pub(crate) fn run() -> Result<Vec<&'static str>> {
    let mut ring = setup::set_up(DEPTH + 1)?;
    let file = file()?;
    let bytes = Buffer::copy_of(&std::array::from_fn::<u8, GRAIN, _>(|index| index as u8));
    let write = Op::Write { file: file.clone(), at: 0, buffer: bytes, mode: WriteMode::Plain };
    let bytes = perform(&mut ring, write, PATIENCE)?.buffer;
    perform(&mut ring, Op::Sync { file: file.clone() }, PATIENCE)?;
    let read = Op::Read { file, at: 0, buffer: Buffer::zeroed(GRAIN) };
    let done = perform(&mut ring, read, PATIENCE)?;
    if !matches!(done.outcome, Ok(Outcome::Read(GRAIN))) || done.buffer.as_deref() != bytes.as_deref() {
        let error = Error::new("io_uring_enter", "", Errno::IO.raw_os_error());
        return Err(
            error.hint("the io_uring of this kernel read back other bytes than were written through it")
        );
    }
    let parameters = ring.params();
    Ok(FEATURES.into_iter().filter(|(_, has)| has(parameters)).map(|(name, _)| name).collect())
}

/// A file without a name: in memory, or where that is not to be had among the temporary ones.
fn file() -> Result<File> {
    if let Ok(descriptor) = memfd_create("ringbolt-probe", MemfdFlags::CLOEXEC) {
        return Ok(OsFile::of_descriptor(descriptor, "memfd:ringbolt-probe"));
    }
    let directory = std::env::temp_dir();
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let descriptor = open(&directory, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::new("open", directory, errno.raw_os_error()))?;
    Ok(OsFile::of_descriptor(descriptor, "a temporary file"))
}

/// Do one operation through a ring that has no other.
fn perform(ring: &mut IoUring, op: Op, patience: Duration) -> Result<Done> {
    let Accepted::Request(mut request) = Request::accept(Token(0), op) else {
        unreachable!("there is something for the ring to do");
    };
    loop {
        let entry = request.entry();
        // SAFETY: the request owns what the entry points at, and is kept until the entry's completion is here, or
        // leaked.
        let pushed = unsafe { ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "there is room for the only entry");
        let result = match complete(ring, patience) {
            Ok(result) => result,
            Err(errno) => {
                let mut error = explained("io_uring_enter", errno.raw_os_error());
                if errno == Errno::TIME {
                    error = error.hint("the io_uring of this kernel took an operation and does not end it");
                }
                let _ = request.leak(error.clone());
                return Err(error);
            }
        };
        if let Verdict::Over(outcome) = request.complete(result) {
            let done = request.end(outcome);
            return match &done.outcome {
                Ok(_) => Ok(done),
                Err(error) => {
                    Err(error.clone().hint("io_uring is here, but not for reads, writes and flushes"))
                }
            };
        }
    }
}

/// Hand over what was pushed and wait for a completion: its result. `ETIME` where it does not come.
fn complete(ring: &mut IoUring, patience: Duration) -> Result<i32, Errno> {
    let timeout = types::Timespec::from(patience);
    let arguments = types::SubmitArgs::new().timespec(&timeout);
    loop {
        let waited = if ring.params().is_feature_ext_arg() {
            ring.submitter().submit_with_args(1, &arguments)
        } else {
            // Before Linux 5.11 one can only wait.
            ring.submit_and_wait(1)
        };
        match waited.map_err(|error| Errno::from_raw_os_error(errno_of(&error))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(completion) = ring.completion().next() {
            return Ok(completion.result());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_ring_that_does_not_answer_is_not_waited_for() {
        let mut ring = setup::set_up(2).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let file = OsFile::of_descriptor(reader.into(), "a pipe");
        let read = Op::Read { file, at: 0, buffer: Buffer::zeroed(5) };
        let error = perform(&mut ring, read, Duration::from_millis(10)).unwrap_err();
        assert_eq!((error.syscall, error.errno), ("io_uring_enter", Errno::TIME.raw_os_error()));
        assert!(error.to_string().contains("does not end it"), "{error}");
        // What the kernel may still write to was not freed.
        writer.write_all(b"bytes").unwrap();
    }

    #[test]
    fn an_operation_that_fails_in_the_ring_is_a_reason() {
        let mut ring = setup::set_up(2).unwrap();
        let file = OsFile::of_descriptor(std::fs::File::open("/proc/version").unwrap().into(), "no flush");
        let error = perform(&mut ring, Op::Sync { file }, PATIENCE).unwrap_err();
        assert_eq!((error.syscall, error.errno), ("fdatasync", Errno::INVAL.raw_os_error()));
        assert!(error.to_string().contains("io_uring is here"), "{error}");
    }
}
