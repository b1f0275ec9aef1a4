//! How the two sides of a workload are measured: limits, rounds that take turns, latencies, ratios.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::exit::Failure;

/// The longest latency that is told apart from longer ones, in nanoseconds.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// The result of a measurement.
pub(super) type Result<T> = std::result::Result<T, MeasureError>;

/// What went wrong in a measurement.
#[derive(Debug)]
pub(super) enum MeasureError {
    Tailwater(tailwater::Error),
    Bare(io::Error),
    Other(String),
}

impl MeasureError {
    /// As a failure of the command.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Tailwater(error) => error.into(),
            other => Failure::failed(other.to_string()),
        }
    }

    /// Whether the disk is full.
    pub(super) fn is_disk_full(&self) -> bool {
        match self {
            Self::Tailwater(error) => matches!(error, tailwater::Error::DiskFull { .. }),
            Self::Bare(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Other(_) => false,
        }
    }
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tailwater(error) => error.fmt(f),
            Self::Bare(error) => write!(f, "the bare loop failed: {error}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<tailwater::Error> for MeasureError {
    fn from(error: tailwater::Error) -> Self {
        Self::Tailwater(error)
    }
}

impl From<tailwater_log::Error> for MeasureError {
    fn from(error: tailwater_log::Error) -> Self {
        Self::Tailwater(error.into())
    }
}

impl From<io::Error> for MeasureError {
    fn from(error: io::Error) -> Self {
        Self::Bare(error)
    }
}

/// When a round of one side ends, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) records: u64,
    pub(super) time: Option<Duration>,
}

impl Limit {
    /// Whether a round that began at `start` has done enough.
    fn is_reached(&self, records: u64, start: Instant) -> bool {
        records >= self.records || self.time.is_some_and(|time| start.elapsed() >= time)
    }
}

/// What one side did in one round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) records: u64,
    pub(super) elapsed: Duration,
    pub(super) latencies: Option<Latencies>,
}

/// Runs a round of one side.
pub(super) type Side<'p> = Box<dyn FnMut() -> Result<Round> + 'p>;

/// The two sides of a workload.
pub(super) struct Sides<'p> {
    pub(super) bare: Side<'p>,
    pub(super) tailwater: Side<'p>,
}

/// Does `act`, which handles `each` records, until the limit is reached. The clock is looked at after every `clock_every`.
pub(super) fn repeat(
    limit: &Limit,
    each: u64,
    clock_every: u64,
    mut act: impl FnMut() -> Result<()>,
) -> Result<Round> {
    let (start, mut records) = (Instant::now(), 0);
    while !limit.is_reached(records, start) {
        for _ in 0..clock_every.min((limit.records - records).div_ceil(each)) {
            act()?;
            records += each;
        }
    }
    Ok(Round { records, elapsed: start.elapsed(), latencies: None })
}

/// Does `act`, which handles one record, until the limit is reached, and notes how long it takes each time.
pub(super) fn repeat_timed(limit: &Limit, mut act: impl FnMut() -> Result<()>) -> Result<Round> {
    let mut latencies = Latencies::new()?;
    let (start, mut records) = (Instant::now(), 0);
    while !limit.is_reached(records, start) {
        let begun = Instant::now();
        act()?;
        latencies.note(begun.elapsed());
        records += 1;
    }
    Ok(Round { records, elapsed: start.elapsed(), latencies: Some(latencies) })
}

/// Latencies, to three digits, from 1 ns to 60 s.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3);
        histogram.map(Self).map_err(|error| MeasureError::Other(error.to_string()))
    }

    pub(super) fn note(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds those of another thread or round.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).map_err(|error| MeasureError::Other(error.to_string()))
    }

    /// A quantile in microseconds.
    pub(super) fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub(super) fn p50_us(&self) -> f64 {
        self.quantile_us(0.5)
    }
}

/// What a workload compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compared {
    /// Records a second: more is faster.
    Rate,
    /// The median of the latencies: less is faster.
    Median,
}

/// What one side did in all rounds.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) records: u64,
    rates: Vec<f64>,
    medians_us: Vec<f64>,
    /// Those of all rounds together.
    pub(super) latencies: Option<Latencies>,
}

impl Figures {
    pub(super) fn add(&mut self, round: Round) -> Result<()> {
        self.records += round.records;
        self.rates.push(round.records as f64 / round.elapsed.max(Duration::from_nanos(1)).as_secs_f64());
        if let Some(latencies) = round.latencies {
            self.medians_us.push(latencies.p50_us());
            match &mut self.latencies {
                Some(all) => all.add(&latencies)?,
                none => *none = Some(latencies),
            }
        }
        Ok(())
    }

    /// Records a second, by the median of the rounds.
    pub(super) fn rate(&self) -> f64 {
        Spread::of(self.rates.clone()).median
    }

    /// How fast this side was beside `bare`: 1 is as fast, 0.5 half as fast.
    pub(super) fn speed(&self, bare: &Self, compared: Compared) -> Speed {
        let ratios = |numerators: &[f64], denominators: &[f64]| {
            Spread::of(numerators.iter().zip(denominators).map(|(one, other)| one / other).collect())
        };
        let (of_all, rounds) = match compared {
            Compared::Rate => (self.rate() / bare.rate(), ratios(&self.rates, &bare.rates)),
            Compared::Median => (bare.p50_us() / self.p50_us(), ratios(&bare.medians_us, &self.medians_us)),
        };
        Speed { of_all, least: rounds.least, greatest: rounds.greatest }
    }

    /// The median of the latencies of all rounds; 0 if there are none.
    pub(super) fn p50_us(&self) -> f64 {
        self.latencies.as_ref().map_or(0.0, Latencies::p50_us)
    }

    /// How many times faster the best round was than the worst.
    pub(super) fn unsteadiness(&self) -> f64 {
        let rates = Spread::of(self.rates.clone());
        rates.greatest / rates.least
    }
}

/// A speed beside the bare loop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Speed {
    /// That of what is shown of all rounds.
    pub(super) of_all: f64,
    /// The least of a round.
    pub(super) least: f64,
    /// The greatest of a round.
    pub(super) greatest: f64,
}

/// Least, median and greatest of some figures.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

impl Spread {
    /// That of `figures`; 0 if there are none.
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or_default();
        let last = figures.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { least: at(0), median, greatest: at(last) }
    }
}

/// Numbers in `[0, end)` in an order that no cache foresees, the same in every run.
pub(super) fn scattered(end: u64) -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(records: u64, ms: u64) -> Round {
        Round { records, elapsed: Duration::from_millis(ms), latencies: None }
    }

    #[test]
    fn the_speed_is_that_of_the_medians_and_those_of_the_rounds_are_kept() {
        let (mut tailwater, mut bare) = (Figures::default(), Figures::default());
        for (own, other) in [(50, 100), (90, 100), (400, 500)] {
            tailwater.add(round(own, 1_000)).unwrap();
            bare.add(round(other, 1_000)).unwrap();
        }
        let speed = tailwater.speed(&bare, Compared::Rate);
        assert_eq!(speed, Speed { of_all: 0.9, least: 0.5, greatest: 0.9 });
        assert_eq!((tailwater.rate(), tailwater.records), (90.0, 540));
        assert_eq!((tailwater.unsteadiness(), bare.unsteadiness()), (8.0, 5.0));
    }

    #[test]
    fn a_shorter_median_is_a_higher_speed_and_latencies_of_all_rounds_count() {
        let side = |us: u64| {
            let mut figures = Figures::default();
            for us in [us, 3 * us] {
                let mut latencies = Latencies::new().unwrap();
                latencies.note(Duration::from_micros(us));
                figures.add(Round { latencies: Some(latencies), ..round(1, 1) }).unwrap();
            }
            figures
        };
        let (tailwater, bare) = (side(200), side(100));
        let speed = tailwater.speed(&bare, Compared::Median).of_all;
        assert!((speed - 0.5).abs() < 0.01, "{speed}");
        let all = tailwater.latencies.unwrap();
        assert!((all.quantile_us(1.0) / 600.0 - 1.0).abs() < 0.01 && all.p50_us() < 210.0);
    }

    #[test]
    fn a_round_ends_with_its_records_or_its_time() {
        let limit = Limit { records: 250, time: None };
        assert_eq!(repeat(&limit, 100, 64, || Ok(())).unwrap().records, 300, "whole batches");
        assert_eq!(repeat(&limit, 1, 64, || Ok(())).unwrap().records, 250);
        assert_eq!(repeat_timed(&limit, || Ok(())).unwrap().records, 250);
        let limit = Limit { records: u64::MAX, time: Some(Duration::from_millis(5)) };
        let round = repeat_timed(&limit, || Ok(())).unwrap();
        assert!(round.records > 0 && round.elapsed >= Duration::from_millis(5));
        assert!(round.latencies.unwrap().0.len() == round.records);
    }

    #[test]
    fn a_spread_has_the_middle_of_an_even_count_between_the_two() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(spread, Spread { least: 1.0, median: 2.5, greatest: 4.0 });
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
    }
}
