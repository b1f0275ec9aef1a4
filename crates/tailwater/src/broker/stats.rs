//! What a broker says about itself.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tailwater_groups::GroupKind;
use tailwater_log::{LogStats, PartitionId, RecoveryReport, Timestamp, TopicId};

use crate::consumer::{Cursor, Lag};
use crate::retention::Holder;
use crate::{Error, Result, TopicConfig, TopicPartition};

/// A snapshot of a broker's figures: [`Broker::stats`](crate::Broker::stats).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BrokerStats {
    /// How many topics there are, without Tailwater's own.
    pub topic_count: usize,
    /// How many partitions those have.
    pub partition_count: usize,
    /// How many partitions are open, Tailwater's own too: each is opened at its first use.
    pub open_partitions: usize,
    /// How many partitions take no appends until the broker is reopened.
    pub failed_partitions: usize,
    /// Background threads that are at work.
    pub background_threads: usize,
    /// How often the work of a background thread panicked: anything but 0 is a bug.
    pub background_panics: u64,
    /// What all partitions together take up on disk, in bytes, if that is limited
    /// ([`BrokerOptions::max_disk_bytes`](crate::BrokerOptions::max_disk_bytes)).
    pub disk_used_bytes: Option<u64>,
    /// How much that may be, in bytes.
    pub disk_limit_bytes: Option<u64>,
    /// Names in the directory that neither the catalog nor Tailwater knows; they were left alone.
    pub unknown_names: Vec<OsString>,
    /// All topics, Tailwater's own too, ordered by name.
    pub topics: Vec<TopicStats>,
    /// All groups that have committed something or have a member, ordered by name. `None` as long as nobody has used a
    /// group: what is on disk was not read then. Where the broker is attached read-only, they are as they were last
    /// [listed](crate::Broker::groups).
    pub groups: Option<Vec<GroupStats>>,
}

impl BrokerStats {
    /// The figures of the topic of that name; names are compared without case.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicStats> {
        self.topics.iter().find(|topic| topic.name.eq_ignore_ascii_case(name))
    }

    /// The figures of the group of that name.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<&GroupStats> {
        self.groups.as_ref()?.iter().find(|group| &*group.id == id)
    }
}

/// The figures of a topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicStats {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is one of Tailwater's own.
    pub is_internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionStats>,
}

/// The figures of a partition.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionStats {
    /// Its number.
    pub partition: PartitionId,
    /// Why it takes no appends until the broker is reopened, if so.
    pub failure: Option<Error>,
    /// What is known while it is open; `None` before its first use.
    pub open: Option<Box<OpenPartitionStats>>,
}

impl PartitionStats {
    /// The figures of its log, if it is open and they could be had.
    #[must_use]
    pub fn log(&self) -> Option<&LogStats> {
        self.open.as_ref()?.log.as_ref().ok()
    }
}

/// The figures of a partition that is open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenPartitionStats {
    /// Offsets, sizes, and what was done since it was opened. An error if the size of a segment could not be had.
    pub log: Result<LogStats>,
    /// How it was found when it was opened.
    pub recovery: RecoveryReport,
    /// What keeps its old records.
    pub retention: RetentionStats,
}

/// What keeps the old records of a partition, as retention found it when it last looked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RetentionStats {
    /// How many bytes the limits of the topic would let go of and groups hold.
    pub held_bytes: u64,
    /// The group that holds the oldest of them.
    pub holder: Option<Holder>,
}

/// The figures of a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub id: Arc<str>,
    /// Its kind.
    pub kind: GroupKind,
    /// How many consumers in this process are members of it. Always 0 where the broker is attached read-only.
    pub member_count: usize,
    /// Where it is, in each partition in which it has committed something, ordered by topic and number.
    pub partitions: Vec<GroupPartitionStats>,
}

impl GroupStats {
    /// How many records it is behind, in all partitions together that are open.
    #[must_use]
    pub fn lag_records(&self) -> u64 {
        self.partitions.iter().filter_map(|partition| partition.lag).map(|lag| lag.records).sum()
    }
}

/// Where a group is in a partition, in figures.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupPartitionStats {
    /// The partition.
    pub partition: TopicPartition,
    /// The next record to read.
    pub committed: Cursor,
    /// When that was committed.
    pub committed_at: Timestamp,
    /// How far behind it is; `None` if the partition is not open, and so its end not known.
    pub lag: Option<Lag>,
}

/// A topic as [`Broker::describe_topic`](crate::Broker::describe_topic) shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its id: 128 random bits, new at every creation.
    pub id: TopicId,
    /// Its name, as it was written when it was created.
    pub name: String,
    /// How many partitions it has.
    pub partition_count: u32,
    /// Its settings.
    pub config: TopicConfig,
}

/// What [`Broker::run_maintenance_once`](crate::Broker::run_maintenance_once) did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// Whether there was anything to do.
    pub did_work: bool,
    /// When there will be something to do; `None` if not before a further append.
    pub next_due: Option<Duration>,
}

/// How a broker was closed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Partitions that were open and are closed in order.
    pub closed_partitions: usize,
    /// Partitions that could not be made durable or marked as closed. They are recovered at the next open; what was
    /// acknowledged as durable is there then.
    pub failures: Vec<CloseFailure>,
}

/// A partition that was not closed in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloseFailure {
    /// The partition.
    pub partition: TopicPartition,
    /// What was wrong.
    pub error: Error,
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.closed_partitions + self.failures.len();
        write!(f, "{} of {open} open partitions could not be closed in order", self.failures.len())?;
        match self.failures.first() {
            Some(first) => write!(f, ", the first being {}: {}", first.partition, first.error),
            None => Ok(()),
        }
    }
}
