//! How a driver runs a job, whichever driver it is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

use crate::{Error, File, Fs, Job, Result};

/// Run a job. One that panics fails; its driver and the jobs behind it go on.
pub(crate) fn run(job: Job, fs: &dyn Fs) -> Result<Option<File>> {
    catch_unwind(AssertUnwindSafe(|| job(fs))).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let error = Error::new("job", "", Errno::IO.raw_os_error());
        Err(error.hint(format!("a job of ringbolt panicked ({message}); this is a bug, please report it")))
    })
}
