//! What a broker says about itself.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use tailwater_log::TopicId;

use crate::{Error, TopicConfig, TopicPartition};

/// A snapshot of a broker's figures.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Topics, without Tailwater's own.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// Partitions that are open, Tailwater's own too: each is opened at its first use.
    pub open_partitions: usize,
    /// Partitions that take no appends until the broker is reopened.
    pub failed_partitions: usize,
    /// Background threads that are at work.
    pub background_threads: usize,
    /// How often the work of a background thread panicked: anything but 0 is a bug.
    pub background_panics: u64,
    /// Names in the directory that neither the catalog nor Tailwater knows; they were left alone.
    pub unknown_names: Vec<OsString>,
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
