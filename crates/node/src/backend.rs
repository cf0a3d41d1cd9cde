//! What a service may be run by.

use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Task};
use napi_derive::napi;
use ringbolt_disk::Preference;
use ringbolt_disk::probe::{Report, probe};

/// What the facade has checked.
pub(crate) fn preference(name: &str) -> Preference {
    Preference::named(name).expect("the facade names what there is")
}

/// What this machine says of `io_uring`.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeIoUring {
    /// Whether it can be had.
    pub available: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The kernel's release; elsewhere than on Linux the system's name.
    pub kernel: String,
    /// What it can do beyond what is needed.
    pub features: Vec<String>,
}

/// Asks the kernel, on the thread pool.
pub struct Probing;

impl Task for Probing {
    type Output = Report;
    type JsValue = NativeIoUring;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        crate::guard::guard(probe)
    }

    fn resolve(&mut self, _: Env, report: Report) -> napi::Result<NativeIoUring> {
        Ok(NativeIoUring {
            available: report.is_available(),
            reason: report.reason,
            kernel: report.kernel,
            features: report.features.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// Ask the kernel for `io_uring`.
#[napi(ts_return_type = "Promise<NativeIoUring>")]
pub fn probe_io_uring() -> AsyncTask<Probing> {
    AsyncTask::new(Probing)
}
