//! How a driver runs a job, whichever driver it is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::errno::Errno;
use crate::{Error, File, Fs, Job, Result};

/// Run a job. One that panics fails; its driver and the jobs behind it go on.
pub(crate) fn run(job: Job, fs: &dyn Fs) -> Result<Option<File>> {
    caught("job", || job(fs))
}

/// Do `work`, which is a `what`; its panic is its failure.
pub(crate) fn caught<T>(what: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let error = Error::new(what, "", Errno::IO);
        Err(error.hint(format!("a {what} of ringbolt panicked ({message}); this is a bug, please report it")))
    })
}
