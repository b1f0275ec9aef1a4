//! What is published.

use std::time::Duration;

use tailwater_log::format::Header;
use tailwater_log::ttl::TTL_HEADER;
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
    ttl_ms: Option<u64>,
}

impl<'m> Message<'m> {
    /// A message with a value and nothing else.
    #[must_use]
    pub fn new(value: &'m [u8]) -> Self {
        Self { value: Some(value), ..Self::empty() }
    }

    /// A message without a value: what was under `key` is gone.
    #[must_use]
    pub fn tombstone(key: &'m [u8]) -> Self {
        Self { key: Some(key), ..Self::empty() }
    }

    const fn empty() -> Self {
        Self { value: None, key: None, headers: &[], partition: None, created_at: None, ttl_ms: None }
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

    /// Lets it expire: so long after it was appended no consumer is returned it any more, by the clock of the broker that
    /// the consumer is of. Nothing tells so; offsets and lag are as if it were there, and until it is removed, a consumer with
    /// [`OnExpired::Return`](crate::OnExpired::Return) is returned it. Rounded up to whole milliseconds.
    ///
    /// It is kept as a header, [`TTL_HEADER`](crate::TTL_HEADER), behind the others: of several the last one counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use tailwater::{BrokerOptions, ManualClock, Message, Timestamp, TopicConfig};
    ///
    /// let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    /// let broker = BrokerOptions::new().clock(clock.clone()).in_memory()?;
    /// broker.create_topic("offers", &TopicConfig::new())?;
    /// let offers = broker.producer("offers")?;
    /// offers.publish(Message::new(b"free cake").ttl(Duration::from_secs(60)))?;
    /// offers.publish(Message::new(b"two espressos"))?;
    ///
    /// clock.set(Timestamp::from_millis(60_000));
    /// let records = broker.reader().subscribe(&["offers"])?.poll(Duration::from_secs(10))?;
    /// let values: Vec<_> = records.iter().filter_map(|record| record.value()).collect();
    /// assert_eq!(values, [b"two espressos"]);
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        let ms = ttl.as_nanos().div_ceil(1_000_000);
        self.ttl_ms = Some(u64::try_from(ms).unwrap_or(u64::MAX));
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

    /// Whether it has a time to live.
    #[inline(always)]
    pub(crate) fn expires(&self) -> bool {
        self.ttl_ms.is_some()
    }

    /// The record that it is appended as, if it has no time to live.
    #[inline(always)]
    pub(crate) fn to_record(self) -> NewRecord<'m> {
        NewRecord { key: self.key, value: self.value, headers: self.headers, created_at: self.created_at }
    }

    /// Does something with the records that these are appended as: each with its headers, and behind them that of its time to
    /// live.
    pub(crate) fn with_records<T>(messages: &[Self], act: impl FnOnce(&[NewRecord<'_>]) -> T) -> T {
        let ttls: Vec<_> = messages.iter().map(|message| message.ttl_ms.map(|ms| ms.to_string())).collect();
        let headers = messages.iter().zip(&ttls).map(|(message, ttl)| {
            let ttl = ttl.as_ref()?;
            let ttl = Header { key: TTL_HEADER, value: Some(ttl.as_bytes()) };
            Some(message.headers.iter().copied().chain([ttl]).collect::<Vec<_>>())
        });
        let headers: Vec<_> = headers.collect();
        let records = messages.iter().zip(&headers).map(|(message, all)| {
            let record = message.to_record();
            all.as_deref().map_or(record, |headers| NewRecord { headers, ..record })
        });
        act(&records.collect::<Vec<_>>())
    }
}

impl<'m, B: AsRef<[u8]> + ?Sized> From<&'m B> for Message<'m> {
    fn from(value: &'m B) -> Self {
        Self::new(value.as_ref())
    }
}
