//! How a producer publishes.

use std::time::Duration;

use tailwater_log::{Compression, Durability};

use super::LagLimit;

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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerOptions {
    pub(super) durability: Option<Durability>,
    pub(super) compression: Option<Compression>,
    pub(super) max_block: Option<Duration>,
    pub(super) lag_limit: Option<LagLimit>,
}

impl ProducerOptions {
    /// Whether each append is made as the topic says.
    pub(super) fn is_plain(&self) -> bool {
        self.compression.is_none() && self.max_block.is_none()
    }

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

    /// Sets how this producer's batches are compressed: default the topic's `compression`. Single messages share a batch with
    /// those of producers that compress alike, and close a batch of others.
    ///
    /// # Examples
    ///
    /// ```
    /// use tailwater::{Broker, Compression, Error, ProducerOptions, TopicConfig};
    ///
    /// let broker = Broker::in_memory()?;
    /// broker.create_topic("clicks", &TopicConfig::new())?;
    /// let options = ProducerOptions::new().compression(Compression::Zstd);
    /// match broker.producer_with("clicks", options) {
    ///     Ok(clicks) => drop(clicks.publish("click")?),
    ///     Err(Error::UnsupportedCompression { .. }) => println!("build it with the feature `zstd`"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets how far a group may be behind: default not at all limited. Here and not in the topic's settings, since it is this
    /// program's promise to itself; other limits, or none, are for other producers.
    #[must_use]
    pub fn lag_limit(mut self, limit: LagLimit) -> Self {
        self.lag_limit = Some(limit);
        self
    }

    /// Sets how long a `send` waits for room, or for a group: default the topic's `max_block_ms`. A write or sync that has been begun is
    /// finished first.
    #[must_use]
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.max_block = Some(wait);
        self
    }
}
