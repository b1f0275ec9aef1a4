//! How to make a consumer.

use std::sync::Arc;

use tailwater_log::FetchIsolation;

use super::{Consumer, Reset};
use crate::broker::Inner;
use crate::{Result, TopicPartition};

/// What happens when the log has lost records that a position lies behind: after a truncation, after a crash on a topic
/// that is not durable, after a backup was restored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnDivergence {
    /// Reading goes on where the histories part, and [`Event::Diverged`](crate::Event::Diverged) says so.
    #[default]
    EpochEnd,
    /// Polls answer [`Error::Diverged`](crate::Error::Diverged) until the consumer is told where to
    /// [`seek`](Consumer::seek).
    Error,
}

/// How to make a consumer: [`Broker::consumer`](crate::Broker::consumer) for a group,
/// [`Broker::reader`](crate::Broker::reader) without one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, Reset, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let orders = broker.producer("orders")?;
/// orders.publish("before")?;
///
/// // A group that has never been here starts at the end, and from then on where it stopped.
/// let mut billing = broker.consumer("billing").reset(Reset::Latest).max_records(100).subscribe(&["orders"])?;
/// orders.publish("after")?;
/// let records = billing.poll(Duration::from_secs(10))?;
/// assert_eq!(records.iter().next().and_then(|record| record.value()), Some(&b"after"[..]));
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is read before `subscribe` or `assign`"]
pub struct ConsumerOptions {
    pub(super) broker: Arc<Inner>,
    pub(super) group: Option<String>,
    pub(super) reset: Reset,
    pub(super) max_records: u32,
    pub(super) max_bytes: u64,
    pub(super) on_divergence: OnDivergence,
    pub(super) isolation: FetchIsolation,
}

impl ConsumerOptions {
    pub(crate) fn new(broker: Arc<Inner>, group: Option<String>) -> Self {
        Self {
            broker,
            group,
            reset: Reset::default(),
            max_records: 1_000,
            max_bytes: 8 << 20,
            on_divergence: OnDivergence::default(),
            isolation: FetchIsolation::default(),
        }
    }

    /// Sets where a group starts in a partition in which it has no committed offset, and a reader in any: default
    /// [`Reset::Earliest`].
    pub fn reset(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Sets how many records a poll returns at most: default 1,000, at least 1.
    pub fn max_records(mut self, count: u32) -> Self {
        self.max_records = count.max(1);
        self
    }

    /// Sets how many bytes of batches a poll returns at most: default 8 MiB. One batch is returned however large it is.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets what happens when records that a position lies behind were lost: default [`OnDivergence::EpochEnd`].
    pub fn on_divergence(mut self, policy: OnDivergence) -> Self {
        self.on_divergence = policy;
        self
    }

    /// Sets how far it reads: default [`FetchIsolation::Visible`], what the topic's durability shows. With
    /// [`FetchIsolation::LogEnd`] records are returned that a crash can still take back; they cannot be committed before
    /// they are durable.
    pub fn isolation(mut self, isolation: FetchIsolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Reads all partitions of these topics, also those that are added later. In a group they are shared among its
    /// members.
    ///
    /// When it returns, the group has a committed offset in each partition.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownTopic`](crate::Error::UnknownTopic), [`Error::NothingToRead`](crate::Error::NothingToRead).
    /// - [`Error::InvalidGroupId`](crate::Error::InvalidGroupId),
    ///   [`Error::GroupKindMismatch`](crate::Error::GroupKindMismatch);
    ///   [`Error::GroupInUse`](crate::Error::GroupInUse) while the group has a member, since for now there can be one only.
    /// - [`Error::NoCommittedOffset`](crate::Error::NoCommittedOffset) with [`Reset::Error`],
    ///   [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) with [`Reset::Offset`].
    /// - [`Error::ReadOnly`](crate::Error::ReadOnly) for a group of a broker that is attached read-only,
    ///   [`Error::Closed`](crate::Error::Closed), and those of opening a partition.
    pub fn subscribe<T: AsRef<str>>(self, topics: &[T]) -> Result<Consumer> {
        Consumer::subscribe(self, topics)
    }

    /// Reads these partitions and no others. A group is then used by this consumer alone.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](ConsumerOptions::subscribe), and [`Error::UnknownPartition`](crate::Error::UnknownPartition).
    pub fn assign(self, partitions: &[TopicPartition]) -> Result<Consumer> {
        Consumer::assign(self, partitions)
    }
}
