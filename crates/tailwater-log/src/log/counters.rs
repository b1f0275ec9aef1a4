//! What a log has done since it was opened, in numbers.
//!
//! - They are read without a lock, so that one may be ahead of another.
//! - Writes are counted by whoever has the writer, so that a counter costs a load and a store.

use std::time::Duration;

use super::inner::Inner;
use crate::OffsetRange;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Time after which a sync is told of as slow.
const SLOW_SYNC: Duration = Duration::from_millis(500);

/// How long syncs took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SyncTimes {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub total: Duration,
    /// The longest.
    pub max: Duration,
    /// The latest.
    pub last: Duration,
    /// How many took at most as long as the bound of the same index in [`SyncTimes::BOUNDS`], and longer than the one
    /// before it. What took longer than the last bound is in `count` only.
    pub buckets: [u64; SyncTimes::BOUNDS.len()],
}

impl SyncTimes {
    /// The bounds of [`SyncTimes::buckets`], inclusive: from 100 microseconds to 5 seconds.
    pub const BOUNDS: [Duration; 15] = [
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2_500),
        Duration::from_secs(5),
    ];

    /// The mean; zero if there were none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        self.total.checked_div(count).unwrap_or_default()
    }
}

/// What has been done since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syncs: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) rolls: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    sync_total_ns: AtomicU64,
    sync_max_ns: AtomicU64,
    sync_last_ns: AtomicU64,
    sync_buckets: [AtomicU64; SyncTimes::BOUNDS.len()],
}

impl Counters {
    /// Notes that batches were written.
    pub(crate) fn note_write(&self, batches: usize, offsets: OffsetRange, bytes: u64) {
        add(&self.writes, 1);
        add(&self.batches, batches as u64);
        add(&self.records, offsets.count());
        add(&self.bytes, bytes);
    }

    fn note_sync(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sync_total_ns.fetch_add(took_ns, Ordering::Relaxed);
        self.sync_last_ns.store(took_ns, Ordering::Relaxed);
        self.sync_max_ns.fetch_max(took_ns, Ordering::Relaxed);
        if let Some(bucket) = SyncTimes::BOUNDS.iter().position(|bound| took <= *bound) {
            self.sync_buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the syncs took so far.
    pub(crate) fn sync_times(&self) -> SyncTimes {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SyncTimes {
            count: load(&self.syncs),
            total: Duration::from_nanos(load(&self.sync_total_ns)),
            max: Duration::from_nanos(load(&self.sync_max_ns)),
            last: Duration::from_nanos(load(&self.sync_last_ns)),
            buckets: std::array::from_fn(|bucket| load(&self.sync_buckets[bucket])),
        }
    }
}

/// Adds to a counter that no other thread adds to now.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Inner {
    /// Notes a sync and how long it took.
    pub(crate) fn note_sync(&self, took: Duration) {
        self.counters.note_sync(took);
        self.commit.note_sync(took);
        if took >= SLOW_SYNC {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(directory = %self.directory.display(), took_ms, "a sync was slow");
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_in_the_bucket_of_the_least_bound_that_it_kept() {
        let counters = Counters::default();
        let micros = [100, 101, 250, 4_999_999, 5_000_000, 5_000_001];
        micros.map(Duration::from_micros).into_iter().for_each(|took| counters.note_sync(took));
        let times = counters.sync_times();
        assert_eq!((times.count, times.buckets[0], times.buckets[1]), (6, 1, 2));
        assert_eq!(times.buckets[14], 2);
        assert_eq!(times.buckets.iter().sum::<u64>(), 5);
        assert_eq!(times.max, Duration::from_micros(5_000_001));
        assert_eq!(times.last, times.max);
        assert_eq!(times.mean(), Duration::from_micros(micros.iter().sum::<u64>()) / 6);
        assert_eq!(SyncTimes::default().mean(), Duration::ZERO);
        assert!(SyncTimes::BOUNDS.is_sorted());
    }
}
