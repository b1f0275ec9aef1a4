//! A partition by name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tailwater_log::PartitionId;

/// A partition of a topic, by the topic's name.
///
/// # Examples
///
/// ```
/// use tailwater::{PartitionId, TopicPartition};
///
/// let partition = TopicPartition::new("orders", PartitionId::new(3));
/// assert_eq!(partition.to_string(), "orders-3");
/// assert_eq!("orders:3".parse(), Ok(partition));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Names a partition. Whether it exists is found out when it is used.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: PartitionId) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// As its directory is called: `orders-3`.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Why a text does not name a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a partition is written as TOPIC:NUMBER, such as orders:3")]
pub struct ParseTopicPartitionError;

/// Reads `orders:3`.
impl FromStr for TopicPartition {
    type Err = ParseTopicPartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (topic, number) = text.rsplit_once(':').ok_or(ParseTopicPartitionError)?;
        let number = number.parse().ok().and_then(PartitionId::try_new).ok_or(ParseTopicPartitionError)?;
        if topic.is_empty() {
            return Err(ParseTopicPartitionError);
        }
        Ok(Self::new(topic, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_partition_is_refused() {
        for text in ["", "orders", "orders:", ":3", "orders:-1", "orders:2147483648", "orders:x"] {
            assert_eq!(text.parse::<TopicPartition>(), Err(ParseTopicPartitionError), "{text}");
        }
    }
}
