//! Checking a whole log, as a task of libuv's thread pool that tells how far it is and can be called off.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Task};
use napi_derive::napi;
use ringbolt_core::wal::{Report, key_value};
use ringbolt_core::{Code, Error};

use crate::error::{NativeFailure, number};
use crate::guard::guard;
use crate::wal::sequences;

/// How far a check is. JavaScript looks at it from time to time.
#[napi]
pub struct NativeWatch {
    shared: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    bytes: AtomicU64,
    total_bytes: AtomicU64,
    is_cancelled: AtomicBool,
}

thread_local! {
    /// The checks of this environment; `None` before the first.
    static WATCHES: RefCell<Option<Vec<Weak<Watch>>>> = const { RefCell::new(None) };
}

/// Something to watch one check with. Where the environment ends, its checks do too: it would wait for them.
#[napi]
pub fn create_watch(env: Env) -> napi::Result<NativeWatch> {
    let shared: Arc<Watch> = Arc::default();
    let is_first = WATCHES.with_borrow_mut(|watches| {
        let is_first = watches.is_none();
        let watches = watches.get_or_insert_default();
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(&shared));
        is_first
    });
    if is_first {
        env.add_env_cleanup_hook((), |()| cancel_watches())?;
    }
    Ok(NativeWatch { shared })
}

/// Nobody waits for any check of this environment any more.
#[napi]
pub fn cancel_watches() {
    WATCHES.with_borrow(|watches| {
        for watch in watches.iter().flatten().filter_map(Weak::upgrade) {
            watch.is_cancelled.store(true, Ordering::Relaxed);
        }
    });
}

/// Bytes read so far, and in all.
#[napi]
pub fn watch_progress(watch: &NativeWatch) -> Vec<f64> {
    let load = |bytes: &AtomicU64| number(bytes.load(Ordering::Relaxed));
    vec![load(&watch.shared.bytes), load(&watch.shared.total_bytes)]
}

/// Nobody waits any more: the check ends at its next step.
#[napi]
pub fn cancel_watch(watch: &NativeWatch) {
    watch.shared.is_cancelled.store(true, Ordering::Relaxed);
}

/// Check every byte of a log of `format` (`segments` or `entries`).
#[napi(ts_return_type = "Promise<NativeVerified>")]
pub fn verify_log(
    directory: String,
    format: String,
    sequences: String,
    watch: &NativeWatch,
) -> AsyncTask<Verify> {
    let watch = Arc::clone(&watch.shared);
    AsyncTask::new(Verify { directory: directory.into(), format, sequences, watch })
}

/// One check.
pub struct Verify {
    directory: PathBuf,
    format: String,
    sequences: String,
    watch: Arc<Watch>,
}

/// What came of a check: a report, or why there is none.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeVerified {
    /// The report.
    pub report: Option<NativeReport>,
    /// Why there is none.
    pub failure: Option<NativeFailure>,
}

/// What was found.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeReport {
    /// `clean`, `torn`, `damage` or `unsupported`.
    pub verdict: String,
    /// Intact records.
    pub records: f64,
    /// Their bytes.
    pub bytes: f64,
    /// Files with records.
    pub segments: f64,
    /// The oldest LSN served.
    pub first_lsn: f64,
    /// The newest found intact.
    pub last_lsn: f64,
    /// What an open would cut.
    pub torn: Option<NativeTorn>,
    /// Every damaged place.
    pub damage: Vec<NativeDamage>,
    /// How long it took.
    pub duration_ms: f64,
}

/// A torn tail.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeTorn {
    /// The number of the file.
    pub segment: f64,
    /// Where in it.
    pub offset: f64,
    /// How long it is.
    pub bytes: f64,
}

/// A damaged place.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeDamage {
    /// The number of the file, -1 for HEAD and what stands beside it.
    pub segment: f64,
    /// Where in it, -1 likewise.
    pub offset: f64,
    /// The first LSN that cannot be served for it.
    pub first_lsn: f64,
    /// The last one.
    pub last_lsn: f64,
    /// What is wrong.
    pub reason: String,
}

impl Task for Verify {
    type Output = ringbolt_core::Result<Report>;
    type JsValue = NativeVerified;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        guard(|| {
            let fs = ringbolt_disk::file_system();
            let progress = |bytes: u64, total: u64| {
                self.watch.bytes.store(bytes, Ordering::Relaxed);
                self.watch.total_bytes.store(total, Ordering::Relaxed);
                if self.watch.is_cancelled.load(Ordering::Relaxed) {
                    return Err(Error::new(Code::WalClosed, "the check was called off"));
                }
                Ok(())
            };
            if self.format == "entries" {
                key_value::verify(&*fs, &self.directory, sequences(&self.sequences), &progress)
            } else {
                ringbolt_core::wal::verify(fs, &self.directory, &progress)
            }
        })
    }

    fn resolve(&mut self, _: Env, report: Self::Output) -> napi::Result<NativeVerified> {
        Ok(match report {
            Ok(report) => NativeVerified { report: Some(NativeReport::from(report)), failure: None },
            Err(error) => NativeVerified { report: None, failure: Some(NativeFailure::from(&error)) },
        })
    }
}

impl From<Report> for NativeReport {
    fn from(report: Report) -> Self {
        let place = |place: Option<u64>| place.map_or(-1.0, number);
        Self {
            verdict: report.verdict.name().to_owned(),
            records: number(report.records),
            bytes: number(report.bytes),
            segments: number(report.segments),
            first_lsn: number(report.first_lsn),
            last_lsn: number(report.last_lsn),
            torn: report.torn.map(|torn| NativeTorn {
                segment: number(torn.segment),
                offset: number(torn.offset),
                bytes: number(torn.bytes),
            }),
            damage: report
                .damage
                .into_iter()
                .map(|damage| NativeDamage {
                    segment: place(damage.segment),
                    offset: place(damage.offset),
                    first_lsn: number(damage.first_lsn),
                    last_lsn: number(damage.last_lsn),
                    reason: damage.reason,
                })
                .collect(),
            duration_ms: report.duration.as_secs_f64() * 1e3,
        }
    }
}
