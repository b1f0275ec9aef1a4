//! A broker's figures for the [`metrics`](https://docs.rs/metrics) facade, and so for Prometheus and others. Needs the feature
//! `metrics`.
//!
//! Nothing is counted in the facade when messages are published or read: a [`Publisher`] takes the broker's
//! [`stats`](crate::Broker::stats) when it is told to, or at intervals, and hands on what has changed. What it costs is
//! what those cost, and a look-up in the recorder for each figure.
//!
//! | Name | Kind | Labels | Meaning |
//! |---|---|---|---|
//! | `tailwater_topics` | gauge | | topics, without Tailwater's own |
//! | `tailwater_partitions` | gauge | | their partitions |
//! | `tailwater_open_partitions` | gauge | | partitions that are open, Tailwater's own too |
//! | `tailwater_failed_partitions` | gauge | | partitions that take no appends until the broker is reopened |
//! | `tailwater_background_threads` | gauge | | background threads at work |
//! | `tailwater_background_panics_total` | counter | | panics in the background: anything but 0 is a bug |
//! | `tailwater_log_start_offset` | gauge | `topic`, `partition` | first offset that can be read |
//! | `tailwater_log_end_offset` | gauge | `topic`, `partition` | next offset to assign |
//! | `tailwater_log_written_offset` | gauge | `topic`, `partition` | end of what is written |
//! | `tailwater_log_durable_offset` | gauge | `topic`, `partition` | end of what is durable |
//! | `tailwater_log_size_bytes` | gauge | `topic`, `partition` | size of the segment files |
//! | `tailwater_log_staged_bytes` | gauge | `topic`, `partition` | bytes that wait in memory to be written |
//! | `tailwater_log_segments` | gauge | `topic`, `partition` | segment files |
//! | `tailwater_log_held_bytes` | gauge | `topic`, `partition` | bytes that retention would delete and groups hold |
//! | `tailwater_log_pinned_bytes` | gauge | `topic`, `partition` | bytes of removed files that records in use still hold |
//! | `tailwater_log_removed_segments_total` | counter | `topic`, `partition` | segment files removed |
//! | `tailwater_log_removed_bytes_total` | counter | `topic`, `partition` | their size |
//! | `tailwater_disk_used_bytes` | gauge | | what all partitions take up, if that is limited |
//! | `tailwater_log_records_written_total` | counter | `topic`, `partition` | records written |
//! | `tailwater_log_batches_written_total` | counter | `topic`, `partition` | batches written |
//! | `tailwater_log_bytes_written_total` | counter | `topic`, `partition` | bytes of batches written |
//! | `tailwater_log_writes_total` | counter | `topic`, `partition` | writes to a segment file |
//! | `tailwater_log_syncs_total` | counter | `topic`, `partition` | syncs; each makes durable what many sent |
//! | `tailwater_log_rolls_total` | counter | `topic`, `partition` | segments begun |
//! | `tailwater_log_sync_duration_seconds` | histogram | `topic`, `partition` | how long the syncs took, rounded up to the [bounds](crate::SyncTimes::BOUNDS) of the stats |
//! | `tailwater_log_sync_duration_max_seconds` | gauge | `topic`, `partition` | the longest sync since the partition was opened |
//! | `tailwater_log_failed` | gauge | `topic`, `partition` | 1 if it takes no appends until the broker is reopened, else 0 |
//! | `tailwater_group_members` | gauge | `group` | consumers of the group in this process |
//! | `tailwater_group_committed_offset` | gauge | `group`, `topic`, `partition` | next offset that the group reads |
//! | `tailwater_group_lag_records` | gauge | `group`, `topic`, `partition` | records that it is behind |
//! | `tailwater_publisher_seconds` | gauge | | how long it took to gather and publish the figures |
//!
//! What is labelled with a partition is told while that is open. Counters count what was done since the publisher was made,
//! and before it since the partition was opened. The facade forgets nothing, so gauges of what was deleted keep
//! their last value.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Label, SharedString, Unit};

use crate::broker::Inner;
use crate::{
    Broker, BrokerStats, Error, GroupStats, LogStats, PartitionStats, Result, SyncTimes, TopicId, TopicStats,
};

/// What each figure is, for recorders that show it.
const GAUGES: [(&str, Unit, &str); 21] = [
    ("tailwater_topics", Unit::Count, "Topics, without Tailwater's own"),
    ("tailwater_partitions", Unit::Count, "Partitions of those topics"),
    ("tailwater_open_partitions", Unit::Count, "Partitions that are open, Tailwater's own too"),
    (
        "tailwater_failed_partitions",
        Unit::Count,
        "Partitions that take no appends until the broker is reopened",
    ),
    ("tailwater_background_threads", Unit::Count, "Background threads at work"),
    ("tailwater_log_start_offset", Unit::Count, "First offset that can be read"),
    ("tailwater_log_end_offset", Unit::Count, "Next offset to assign"),
    ("tailwater_log_written_offset", Unit::Count, "End of what is written"),
    ("tailwater_log_durable_offset", Unit::Count, "End of what is durable"),
    ("tailwater_log_size_bytes", Unit::Bytes, "Size of the segment files"),
    ("tailwater_log_held_bytes", Unit::Bytes, "Bytes that retention would delete and groups hold"),
    ("tailwater_log_pinned_bytes", Unit::Bytes, "Bytes of removed files that records in use still hold"),
    ("tailwater_disk_used_bytes", Unit::Bytes, "What all partitions take up, if that is limited"),
    ("tailwater_log_staged_bytes", Unit::Bytes, "Bytes that wait in memory to be written"),
    ("tailwater_log_segments", Unit::Count, "Segment files"),
    ("tailwater_log_sync_duration_max_seconds", Unit::Seconds, "Longest sync since the partition was opened"),
    ("tailwater_log_failed", Unit::Count, "1 if the partition takes no appends until the broker is reopened"),
    ("tailwater_group_members", Unit::Count, "Consumers of the group in this process"),
    ("tailwater_group_committed_offset", Unit::Count, "Next offset that the group reads"),
    ("tailwater_group_lag_records", Unit::Count, "Records that the group is behind"),
    ("tailwater_publisher_seconds", Unit::Seconds, "How long it took to gather and publish the figures"),
];

/// As [`GAUGES`].
const COUNTERS: [(&str, Unit, &str); 9] = [
    ("tailwater_background_panics_total", Unit::Count, "Panics in the background: anything but 0 is a bug"),
    ("tailwater_log_records_written_total", Unit::Count, "Records written"),
    ("tailwater_log_batches_written_total", Unit::Count, "Batches written"),
    ("tailwater_log_bytes_written_total", Unit::Bytes, "Bytes of batches written"),
    ("tailwater_log_writes_total", Unit::Count, "Writes to a segment file"),
    ("tailwater_log_syncs_total", Unit::Count, "Syncs"),
    ("tailwater_log_rolls_total", Unit::Count, "Segments begun"),
    ("tailwater_log_removed_segments_total", Unit::Count, "Segment files removed"),
    ("tailwater_log_removed_bytes_total", Unit::Bytes, "Size of the removed segment files"),
];

const SYNC_DURATION: &str = "tailwater_log_sync_duration_seconds";

/// Hands a broker's figures to the recorder of the `metrics` facade.
///
/// Does not keep the broker open. There is one for a broker: two would count everything twice.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, TopicConfig, metrics::Publisher};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// broker.producer("orders")?.publish("two espressos")?;
///
/// // When somebody asks for the figures, or ...
/// let mut publisher = Publisher::new(&broker).label("directory", "data");
/// publisher.publish();
/// // ... at intervals, as long as this is kept.
/// let at_intervals = publisher.every(Duration::from_secs(10))?;
/// # drop(at_intervals);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Debug)]
pub struct Publisher {
    broker: Weak<Inner>,
    labels: Vec<Label>,
    last_panics: u64,
    /// What was told of each partition last.
    last: HashMap<(TopicId, u32), LogStats>,
}

impl Publisher {
    /// Makes a publisher for a broker, and describes the figures to the recorder.
    #[must_use]
    pub fn new(broker: &Broker) -> Self {
        for (name, unit, description) in GAUGES {
            metrics::describe_gauge!(name, unit, description);
        }
        for (name, unit, description) in COUNTERS {
            metrics::describe_counter!(name, unit, description);
        }
        metrics::describe_histogram!(SYNC_DURATION, Unit::Seconds, "How long syncs took");
        let broker = Arc::downgrade(broker.inner());
        Self { broker, labels: Vec::new(), last_panics: 0, last: HashMap::new() }
    }

    /// Adds a label to every figure, to tell several brokers of a process apart.
    #[must_use]
    pub fn label(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.labels.push(Label::new(key, value.into()));
        self
    }

    /// Publishes the figures as they are now. Does nothing once the broker is closed.
    pub fn publish(&mut self) {
        let Some(broker) = self.broker.upgrade().filter(|broker| !broker.is_closed()) else { return };
        let start = Instant::now();
        let stats = broker.stats();
        drop(broker);
        self.publish_broker(&stats);
        stats.topics.iter().for_each(|topic| self.publish_topic(topic));
        stats.groups.iter().flatten().for_each(|group| self.publish_group(group));
        self.gauge("tailwater_publisher_seconds", &[], start.elapsed().as_secs_f64());
    }

    /// Publishes the figures every `interval`, on a thread of its own, until what is returned is dropped or the broker is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the operating system gives no thread.
    pub fn every(self, interval: Duration) -> Result<AtIntervals> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("tailwater-metrics".to_owned());
        let spawned = thread.spawn(move || publish_until_stopped(self, interval, &stopped));
        let thread = spawned.map_err(|error| {
            let what = format!("cannot start a background thread: {error}");
            Error::Backend(Arc::new(std::io::Error::new(error.kind(), what)))
        })?;
        Ok(AtIntervals { stop, thread: Some(thread) })
    }

    fn publish_broker(&mut self, stats: &BrokerStats) {
        self.gauge("tailwater_topics", &[], float(stats.topic_count as u64));
        self.gauge("tailwater_partitions", &[], float(stats.partition_count as u64));
        self.gauge("tailwater_open_partitions", &[], float(stats.open_partitions as u64));
        self.gauge("tailwater_failed_partitions", &[], float(stats.failed_partitions as u64));
        self.gauge("tailwater_background_threads", &[], float(stats.background_threads as u64));
        if let Some(used) = stats.disk_used_bytes {
            self.gauge("tailwater_disk_used_bytes", &[], float(used));
        }
        let panics = stats.background_panics;
        self.count("tailwater_background_panics_total", &[], panics, self.last_panics);
        self.last_panics = panics;
    }

    fn publish_topic(&mut self, topic: &TopicStats) {
        for partition in &topic.partitions {
            let number = partition.partition.get();
            let labels = partition_labels(&topic.name, number);
            let Some(log) = partition.log() else { continue };
            let last = self.last.insert((topic.id, number), *log).unwrap_or_default();
            // Opened anew since: everything counts from 0.
            let last = if is_continued(&last, log) { last } else { LogStats::default() };
            self.publish_log(&labels, partition, log, &last);
        }
    }

    fn publish_log(&self, labels: &[Label], partition: &PartitionStats, log: &LogStats, last: &LogStats) {
        self.gauge("tailwater_log_start_offset", labels, float(log.log_start_offset.get()));
        self.gauge("tailwater_log_end_offset", labels, float(log.log_end_offset.get()));
        self.gauge("tailwater_log_written_offset", labels, float(log.written_offset.get()));
        self.gauge("tailwater_log_durable_offset", labels, float(log.durable_offset.get()));
        self.gauge("tailwater_log_size_bytes", labels, float(log.size_bytes));
        self.gauge("tailwater_log_staged_bytes", labels, float(log.staged_bytes));
        self.gauge("tailwater_log_segments", labels, float(log.segment_count));
        let held = partition.open.as_ref().map_or(0, |open| open.retention.held_bytes);
        self.gauge("tailwater_log_held_bytes", labels, float(held));
        self.gauge("tailwater_log_pinned_bytes", labels, float(log.removals.pinned_bytes));
        self.gauge("tailwater_log_sync_duration_max_seconds", labels, log.sync_times.max.as_secs_f64());
        self.gauge("tailwater_log_failed", labels, if partition.failure.is_some() { 1.0 } else { 0.0 });
        let count = |name, now, before| self.count(name, labels, now, before);
        count("tailwater_log_records_written_total", log.records_written, last.records_written);
        count("tailwater_log_batches_written_total", log.batches_written, last.batches_written);
        count("tailwater_log_bytes_written_total", log.bytes_written, last.bytes_written);
        count("tailwater_log_writes_total", log.writes, last.writes);
        count("tailwater_log_syncs_total", log.syncs, last.syncs);
        count("tailwater_log_rolls_total", log.rolls, last.rolls);
        let (removals, removed) = (&log.removals, &last.removals);
        count("tailwater_log_removed_segments_total", removals.removed_segments, removed.removed_segments);
        count("tailwater_log_removed_bytes_total", removals.removed_bytes, removed.removed_bytes);
        self.publish_syncs(labels, &log.sync_times, &last.sync_times);
    }

    /// Records the syncs since the last time, each with the bound of its bucket.
    fn publish_syncs(&self, labels: &[Label], now: &SyncTimes, before: &SyncTimes) {
        let histogram = metrics::histogram!(SYNC_DURATION, self.all_labels(labels));
        let record = |bound: Duration, now: u64, before: u64| {
            let count = usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
            if count > 0 {
                histogram.record_many(bound.as_secs_f64(), count);
            }
        };
        for (index, bound) in SyncTimes::BOUNDS.into_iter().enumerate() {
            record(bound, now.buckets[index], before.buckets[index]);
        }
        // The buckets and the count are not read at the same moment.
        let beyond = |times: &SyncTimes| times.count.saturating_sub(times.buckets.iter().sum());
        record(now.max, beyond(now), beyond(before));
    }

    fn publish_group(&self, group: &GroupStats) {
        let name = Label::new("group", SharedString::from(Arc::clone(&group.id)));
        let members = std::slice::from_ref(&name);
        self.gauge("tailwater_group_members", members, float(group.member_count as u64));
        for at in &group.partitions {
            let mut labels = partition_labels(&at.partition.topic, at.partition.partition.get());
            labels.push(name.clone());
            self.gauge("tailwater_group_committed_offset", &labels, float(at.committed.offset.get()));
            if let Some(lag) = at.lag {
                self.gauge("tailwater_group_lag_records", &labels, float(lag.records));
            }
        }
    }

    fn gauge(&self, name: &'static str, labels: &[Label], value: f64) {
        metrics::gauge!(name, self.all_labels(labels)).set(value);
    }

    fn count(&self, name: &'static str, labels: &[Label], now: u64, before: u64) {
        metrics::counter!(name, self.all_labels(labels)).increment(now.saturating_sub(before));
    }

    fn all_labels(&self, labels: &[Label]) -> Vec<Label> {
        self.labels.iter().chain(labels).cloned().collect()
    }
}

/// Whether `now` goes on where `last` was: of a partition that was closed and opened again the counters begin anew.
fn is_continued(last: &LogStats, now: &LogStats) -> bool {
    last.writes <= now.writes && last.syncs <= now.syncs && last.rolls <= now.rolls
}

fn partition_labels(topic: &Arc<str>, partition: u32) -> Vec<Label> {
    let topic = Label::new("topic", SharedString::from(Arc::clone(topic)));
    vec![topic, Label::new("partition", partition.to_string())]
}

/// A figure as gauges hold them: exact below 2^53.
#[allow(clippy::cast_precision_loss, reason = "a figure of that size is looked at, not counted with")]
fn float(figure: u64) -> f64 {
    figure as f64
}

/// Publishes at intervals; dropping it ends that. Made by [`Publisher::every`].
#[derive(Debug)]
#[must_use = "dropping it ends the publishing"]
pub struct AtIntervals {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

fn publish_until_stopped(mut publisher: Publisher, interval: Duration, stop: &(Mutex<bool>, Condvar)) {
    let (is_stopped, changed) = stop;
    while publisher.broker.upgrade().is_some_and(|broker| !broker.is_closed()) {
        publisher.publish();
        let guard = is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, interval, |is_stopped| !*is_stopped);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
    }
}

impl Drop for AtIntervals {
    fn drop(&mut self) {
        let (is_stopped, changed) = &*self.stop;
        *is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the recorder of the metrics panicked");
        }
    }
}
