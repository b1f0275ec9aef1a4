//! What is published.

use tailwater_log::format::Header;
use tailwater_log::{NewRecord, PartitionId, Timestamp};

/// What is published. Borrowed: it is copied once, into the memory that waits to be written.
///
/// Anything that is a slice of bytes or a string becomes a message with that value.
///
/// # Examples
///
/// ```
/// use tailwater::{Broker, Header, Message, PartitionId, TopicConfig, partition_for_key};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new().partitions(3))?;
/// let orders = broker.producer("orders")?;
///
/// let headers = [Header { key: "trace", value: Some(b"7f3a") }];
/// let at = orders.publish(Message::new(b"two espressos").key(b"table 4").headers(&headers))?;
/// assert_eq!(at.partition, partition_for_key(b"table 4", 3));
/// // A tombstone says that there is nothing under its key any more.
/// assert_eq!(orders.publish(Message::tombstone(b"table 4"))?.partition, at.partition);
/// assert_eq!(orders.publish(Message::new(b"to go").partition(PartitionId::new(2)))?.partition.get(), 2);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    value: Option<&'m [u8]>,
    key: Option<&'m [u8]>,
    headers: &'m [Header<'m>],
    partition: Option<PartitionId>,
    created_at: Option<Timestamp>,
}

impl<'m> Message<'m> {
    /// A message with a value and nothing else.
    #[must_use]
    pub fn new(value: &'m [u8]) -> Self {
        Self { value: Some(value), key: None, headers: &[], partition: None, created_at: None }
    }

    /// A message without a value: what was under `key` is gone.
    #[must_use]
    pub fn tombstone(key: &'m [u8]) -> Self {
        Self { value: None, key: Some(key), headers: &[], partition: None, created_at: None }
    }

    /// Gives it a key. Messages with the same key go to the same partition, and stay in order.
    #[must_use]
    pub fn key(mut self, key: &'m [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// Gives it headers, which are kept in this order.
    #[must_use]
    pub fn headers(mut self, headers: &'m [Header<'m>]) -> Self {
        self.headers = headers;
        self
    }

    /// Sends it to this partition, whatever its key.
    #[must_use]
    pub fn partition(mut self, partition: PartitionId) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Says when it was made; otherwise that is when it is appended.
    #[must_use]
    pub fn created_at(mut self, time: Timestamp) -> Self {
        self.created_at = Some(time);
        self
    }

    pub(crate) fn chosen_partition(&self) -> Option<PartitionId> {
        self.partition
    }

    pub(crate) fn key_bytes(&self) -> Option<&'m [u8]> {
        self.key
    }

    /// About how many bytes it has.
    pub(crate) fn size_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    pub(crate) fn to_record(self) -> NewRecord<'m> {
        NewRecord { key: self.key, value: self.value, headers: self.headers, created_at: self.created_at }
    }
}

impl<'m, B: AsRef<[u8]> + ?Sized> From<&'m B> for Message<'m> {
    fn from(value: &'m B) -> Self {
        Self::new(value.as_ref())
    }
}
