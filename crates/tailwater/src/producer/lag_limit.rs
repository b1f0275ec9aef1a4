//! How far behind a group may be before publishing stops.

use std::sync::Arc;

/// How far a group may be behind in a topic, for [`ProducerOptions::lag_limit`](crate::ProducerOptions::lag_limit):
/// backpressure as a contract between who publishes and who reads.
///
/// A message that would leave the group more than the limit behind is not taken: `send` and `publish` answer
/// [`Error::GroupLagging`](crate::Error::GroupLagging), and so nothing was published; or, if the limit
/// [waits](LagLimit::waiting), they wait for the group to commit, at most as long as for room in memory (`max_block`), and
/// then answer it. It is checked once for each message, or batch, when it is taken.
///
/// - The lag is that of the whole topic: of all records behind the group's committed offsets, whether they are durable yet or
///   not. A group that is not behind at all is sent one message, or batch, of any size.
/// - A partition in which the group has committed nothing does not count, so a group that does not exist stops nobody.
///   [`Broker::create_group`](crate::Broker::create_group) has one count from the start.
/// - Producers of one topic with the same limit share it, and what they send at the same time is counted once it is sent:
///   together they may pass the limit by a message for each thread. What is published without a limit is counted when the
///   lag is next looked at.
/// - The lag is looked at only when as much was sent as was allowed then: until that, a message costs a few
///   instructions more.
/// - A thread that both publishes to a topic and is the group that reads it must not wait for itself. Without
///   [`waiting`](LagLimit::waiting) it is told to read on; with it, it is told after `max_block`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, Error, LagLimit, ProducerOptions, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
///
/// let limit = LagLimit::new("billing").max_records(100);
/// let orders = broker.producer_with("orders", ProducerOptions::new().lag_limit(limit))?;
/// for n in 0..1000 {
///     match orders.publish(&format!("order {n}")) {
///         Ok(_) => {}
///         // This thread is the group, so it reads on before it publishes more.
///         Err(Error::GroupLagging { lag, limit, .. }) => {
///             assert_eq!((lag, limit), (100, 100));
///             billing.poll(Duration::ZERO)?;
///             billing.commit().wait()?;
///             orders.publish(&format!("order {n}"))?;
///         }
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a limit is given to a producer"]
pub struct LagLimit {
    pub(super) group: Arc<str>,
    pub(super) max_records: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    pub(super) waits: bool,
}

impl LagLimit {
    /// A limit for the group of this name, which limits nothing yet.
    pub fn new(group: &str) -> Self {
        Self { group: group.into(), max_records: None, max_bytes: None, waits: false }
    }

    /// Sets by how many records the group may be behind.
    pub fn max_records(mut self, count: u64) -> Self {
        self.max_records = Some(count);
        self
    }

    /// Sets by how many bytes, as they are on disk, the group may be behind. Of a batch that it has read a part of, all
    /// counts.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Has whoever publishes wait for the group rather than fail at once.
    pub fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Whether it stops at the same lag.
    pub(super) fn is_as_far(&self, other: &Self) -> bool {
        (&self.group, self.max_records, self.max_bytes) == (&other.group, other.max_records, other.max_bytes)
    }
}

/// What a lag is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum LagUnit {
    /// Records.
    Records,
    /// Bytes.
    Bytes,
}

impl std::fmt::Display for LagUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LagUnit::Records => "records",
            LagUnit::Bytes => "bytes",
        })
    }
}
