//! The clock that deadlines of members are counted on.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::coordinator::MonotonicMs;

/// Where a store takes the time of its deadlines from: never the wall clock, which jumps.
pub trait MonotonicClock: fmt::Debug + Send + Sync + 'static {
    /// The moment now. Never earlier than one that was returned before.
    fn now(&self) -> MonotonicMs;
}

/// The monotonic clock of the operating system, from when this was made on.
#[derive(Clone, Copy, Debug)]
pub struct SystemMonotonicClock {
    start: Instant,
}

impl Default for SystemMonotonicClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl MonotonicClock for SystemMonotonicClock {
    fn now(&self) -> MonotonicMs {
        MonotonicMs::new(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is moved on, for tests.
#[derive(Debug, Default)]
pub struct ManualMonotonicClock(AtomicU64);

impl ManualMonotonicClock {
    /// Moves the clock `ms` milliseconds on.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl MonotonicClock for ManualMonotonicClock {
    fn now(&self) -> MonotonicMs {
        MonotonicMs::new(self.0.load(Ordering::SeqCst))
    }
}
