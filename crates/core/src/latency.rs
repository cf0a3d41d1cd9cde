//! How long calls took, in constant memory.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How long calls took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of them took at most so long.
    pub p50: Duration,
    /// All but one in a hundred took at most so long.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// Latencies of one kind of call, in microseconds of two significant digits: some 30 KiB, however much is recorded.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// What takes longer than an hour is an hour.
    const MAX_US: u64 = 3_600_000_000;

    /// So many calls took so long.
    pub(crate) fn record(&mut self, latency: Duration, count: u32) {
        self.0.saturating_record_n((latency.as_micros() as u64).max(1), u64::from(count));
    }

    /// Zeros where nothing was recorded.
    pub(crate) fn summary(&self) -> Latency {
        let quantile = |quantile| Duration::from_micros(self.0.value_at_quantile(quantile));
        Latency { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1.0) }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, Self::MAX_US, 2);
        Self(histogram.expect("the bounds are constants, and in order"))
    }
}
