//! Wall-clock timestamps, and the clock that they come from.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
#[cfg(not(target_os = "linux"))]
use std::time::{SystemTime, UNIX_EPOCH};

/// A wall-clock time: milliseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes a timestamp of `ms` milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    #[inline]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    #[inline]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time `ms` milliseconds earlier, or the earliest there is.
    #[must_use]
    #[inline]
    pub const fn saturating_sub_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 if `earlier` is later.
    #[must_use]
    #[inline]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        if self.0 <= earlier.0 { 0 } else { self.0.abs_diff(earlier.0) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Where the engine takes the time from.
///
/// Offsets and recovery never depend on it; only ages and the times stored with records do.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall-clock time now. May jump in either direction.
    fn now(&self) -> Timestamp;

    /// How many milliseconds [`now`](Clock::now) may be behind the time. Who asks for the records of a time is given those
    /// of that much before it too, so that none is missing.
    fn behind_ms(&self) -> u64 {
        0
    }
}

/// The clock of the operating system.
///
/// On Linux it is the one that the kernel moves on with its ticks, `CLOCK_REALTIME_COARSE`: each append asks for the time,
/// and this one costs a fifth of the precise one. It is behind by at most a tick, which is 1 to 10 ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[cfg(target_os = "linux")]
impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Timestamp(time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000))
    }

    fn behind_ms(&self) -> u64 {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse);
        // One more where a time of this clock is rounded to whole milliseconds and the other is not.
        u64::try_from(tick.tv_sec * 1_000 + tick.tv_nsec / 1_000_000 + 1).unwrap_or(0)
    }
}

#[cfg(not(target_os = "linux"))]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Before 1970 and beyond the year 292,000,000 the clock is broken; either end of the range says so.
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Timestamp(i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms)),
        }
    }
}

/// A clock that stands still until it is told otherwise, for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Makes a clock that shows `now`.
    #[must_use]
    #[inline]
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millis()))
    }

    /// Sets the clock to `now`, which may be earlier than it was.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Moves the clock `ms` milliseconds on.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
