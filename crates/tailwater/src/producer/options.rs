//! How a producer publishes.

use std::time::Duration;

use tailwater_log::Durability;

/// How a producer publishes.
///
/// # Examples
///
/// ```
/// use tailwater::{Broker, Durability, ProducerOptions, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("clicks", &TopicConfig::new())?;
/// let clicks = broker.producer_with("clicks", ProducerOptions::new().durability(Durability::Buffered))?;
/// // Acknowledged at once. Readers see it when it is durable, as on every durable topic.
/// clicks.publish("click")?;
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProducerOptions {
    pub(super) durability: Option<Durability>,
    pub(super) max_block: Option<Duration>,
}

impl ProducerOptions {
    /// What the topic says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what receipts wait for: default the topic's `durability`. What readers see is the topic's business.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets how long a `send` waits for room: default the topic's `max_block_ms`. A write or sync that has been begun is
    /// finished first.
    #[must_use]
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.max_block = Some(wait);
        self
    }
}
