//! Clocks, histograms and offsets that the measurements share.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::contest::{Metric, Result};

/// How many records a crate takes between two looks at the clock.
const CLOCK_EVERY: u64 = 64;
/// How long a published crate may take in a round of a row that counts records, so that a slow one holds nobody up.
pub const LONGEST_PEER_ROUND: Duration = Duration::from_secs(4);

/// The metrics of [`Latencies::figures`].
pub const LATENCY_METRICS: &[Metric] = &[
    Metric::time("p50", "us"),
    Metric::time("p99", "us"),
    Metric::time("p99.9", "us"),
    Metric::time("max", "us"),
    Metric::rate("records/s"),
];

/// How often `act` can be done in a second, by doing it `count` times.
///
/// # Errors
///
/// Those of `act`.
#[inline]
pub fn rate<E>(
    count: u64,
    mut act: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<f64, E> {
    let start = Instant::now();
    for _ in 0..count {
        act()?;
    }
    Ok(per_second(count, start.elapsed()))
}

/// How often `act` can be done in a second, by doing it `count` times or until `longest` has passed.
///
/// # Errors
///
/// Those of `act`.
pub fn rate_within<E>(
    longest: Duration,
    count: u64,
    mut act: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<f64, E> {
    let (start, mut done) = (Instant::now(), 0);
    while done < count && start.elapsed() < longest {
        // The clock is asked now and then only.
        for _ in 0..(count - done).min(CLOCK_EVERY) {
            act()?;
            done += 1;
        }
    }
    Ok(per_second(done, start.elapsed()))
}

/// A count in a time, as a rate.
#[must_use]
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Latencies, to three digits, from 1 ns to 60 s.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    since: Instant,
}

impl Latencies {
    /// None yet; the rate counts from now on.
    ///
    /// # Errors
    ///
    /// None that a program can cause.
    pub fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Self { histogram, since: Instant::now() })
    }

    /// Notes one.
    #[inline]
    pub fn note(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Does something and notes how long it took. Returns what it made.
    ///
    /// # Errors
    ///
    /// Those of `act`.
    #[inline]
    pub fn time<T, E>(
        &mut self,
        act: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let start = Instant::now();
        let made = act()?;
        self.note(start.elapsed());
        Ok(made)
    }

    /// Adds those of another thread.
    ///
    /// # Errors
    ///
    /// None: all have the same bounds.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        Ok(self.histogram.add(&other.histogram)?)
    }

    /// A quantile in microseconds.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The figures for [`LATENCY_METRICS`].
    #[must_use]
    pub fn figures(&self) -> Vec<f64> {
        let rate = per_second(self.histogram.len(), self.since.elapsed());
        let quantiles = [0.5, 0.99, 0.999, 1.0];
        quantiles.iter().map(|quantile| self.quantile_us(*quantile)).chain([rate]).collect()
    }
}

/// Numbers in `[0, end)` in an order that no cache foresees, the same in every run.
pub fn scattered(end: u64) -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end.max(1)
    }
}

/// The processor time that the calling thread has used.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Waits, without giving the processor away, until `due`.
pub fn spin_until(due: Instant) {
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_in_microseconds() {
        let mut latencies = Latencies::new().unwrap();
        for us in 1..=1_000 {
            latencies.note(Duration::from_micros(us));
        }
        let figures = latencies.figures();
        for (figure, wanted) in figures.iter().zip([500.0, 990.0, 999.0, 1_000.0]) {
            assert!((figure / wanted - 1.0).abs() < 0.01, "{figure} for {wanted}");
        }
    }

    #[test]
    fn scattered_numbers_stay_below_their_end_and_differ() {
        let mut next = scattered(1_000);
        let numbers: std::collections::BTreeSet<u64> = (0..500).map(|_| next()).collect();
        assert!(numbers.len() > 300 && numbers.last() < Some(&1_000));
    }
}
