//! A ring with the flags that this kernel knows, or the reason why there is none.

use io_uring_07::{IoUring, Probe, opcode};
use rustix::io::Errno;

use crate::Result;
use crate::error::errno_of;
use crate::probe::{explained, must_know};

/// Entries of the submission queue. Two are there at a time; but the kernel also takes this number for a bound
/// of how many workers it starts for a thread's buffered writes and flushes.
const ENTRIES: u32 = 256;

/// What the kernel must know.
const NEEDED: [(u8, &str); 4] = [
    (opcode::Nop::CODE, "nop"),
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Fsync::CODE, "fsync"),
];

/// A flag of the ring that older kernels do not know.
type Flag = fn(&mut io_uring_07::Builder);

/// Newest first: each is given up after all before it were.
const WISHES: [Flag; 2] = [
    // 6.6: spares the kernel the indirection between the queue and its entries.
    |ring| {
        ring.setup_no_sqarray();
    },
    // 5.18: an entry that the kernel refuses outright does not keep back the one behind it.
    |ring| {
        ring.setup_submit_all();
    },
];

/// A ring for at most `in_flight` entries in the kernel, from any thread.
///
/// Not among the flags are those that bind the ring to one thread (`SINGLE_ISSUER`, `DEFER_TASKRUN`), and
/// `COOP_TASKRUN`: a completion is made by the thread that submitted, which may be busy with JavaScript for long,
/// and is interrupted for it only without that flag.
///
/// # Errors
/// What the kernel answers, with advice.
pub(super) fn set_up(in_flight: usize) -> Result<IoUring> {
    let mut given_up = 0;
    loop {
        let mut ring = IoUring::builder();
        for wish in &WISHES[given_up..] {
            wish(&mut ring);
        }
        // 5.5. Room for all of them: a completion queue that overflows would want its own care.
        let completions = (in_flight as u32).next_power_of_two().max(2 * ENTRIES);
        ring.setup_cqsize(completions);
        match try_out(&ring) {
            Err(error) if error.errno == Errno::INVAL.raw_os_error() && given_up < WISHES.len() => {
                given_up += 1;
            }
            answer => return answer,
        }
    }
}

/// Make such a ring and ask it for all that we need.
fn try_out(builder: &io_uring_07::Builder) -> Result<IoUring> {
    let failed = |syscall| move |error: std::io::Error| explained(syscall, errno_of(&error));
    let ring = builder.build(ENTRIES).map_err(failed("io_uring_setup"))?;
    let mut probe = Probe::new();
    let unknown = ring.submitter().register_probe(&mut probe).map(|()| {
        NEEDED.into_iter().filter(|&(code, _)| !probe.is_supported(code)).map(|(_, name)| name).collect()
    });
    must_know(unknown)?;
    ring.submitter().submit().map_err(failed("io_uring_enter"))?;
    Ok(ring)
}
