//! What a partition is called: topic ids and partition numbers.

use std::fmt;
use std::str::FromStr;

/// The identity of a topic: 128 random bits, new at every creation.
///
/// A topic that was deleted and created again under the same name has another id, so nothing of the old one is taken
/// for the new one's. Shown, and parsed, as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// Makes an id of its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a [`TopicId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a topic id is 32 hexadecimal digits")]
pub struct ParseTopicIdError;

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(ParseTopicIdError);
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            b'A'..=b'F' => Ok(byte - b'A' + 10),
            _ => Err(ParseTopicIdError),
        };
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// The number of a partition in its topic, from 0, below 2^31 as in Apache Kafka.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(u32);

impl PartitionId {
    /// The first partition of a topic.
    pub const ZERO: PartitionId = PartitionId(0);

    /// Makes a partition number of `value`, in `[0, 2^31)`.
    ///
    /// # Panics
    ///
    /// If `value` is 2^31 or more. For a number from outside the program use [`PartitionId::try_new`].
    #[must_use]
    pub const fn new(value: u32) -> Self {
        assert!(value <= i32::MAX as u32, "a partition number is below 2^31");
        Self(value)
    }

    /// Makes a partition number of `value`, or `None` if it is 2^31 or more.
    #[must_use]
    pub const fn try_new(value: u32) -> Option<Self> {
        if value <= i32::MAX as u32 { Some(Self(value)) } else { None }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which partition a directory holds: written into every segment and checkpoint, and compared at every open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PartitionIdentity {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition of the topic.
    pub partition: PartitionId,
}

impl fmt::Display for PartitionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of topic {}", self.partition, self.topic_id)
    }
}
