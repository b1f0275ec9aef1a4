//! Records as a poll returns them: owned together, borrowed one by one.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_groups::Position;
use tailwater_log::format::Header;
use tailwater_log::{Fetched, LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp};

use super::{Cursor, Event};
use crate::TopicPartition;

/// What a poll returned: records, and events that come before them.
///
/// Owned, `Send + Sync + 'static`: it keeps the bytes that its records lie in alive, also when their segment is removed,
/// the consumer dropped and the broker closed. Records of one partition follow each other, in the order of their offsets.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, Message, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// broker.producer("orders")?.publish(Message::new(b"two espressos").key(b"table 4"))?;
///
/// let records = broker.reader().subscribe(&["orders"])?.poll(Duration::from_secs(10))?;
/// let record = records.iter().next().expect("one was published");
/// assert_eq!((record.topic(), record.offset().get()), ("orders", 0));
/// assert_eq!((record.key(), record.value()), (Some(&b"table 4"[..]), Some(&b"two espressos"[..])));
/// assert!(records.events().is_empty());
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub(super) events: Vec<Event>,
    pub(super) chunks: Vec<Chunk>,
}

/// Records of one partition.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) place: Arc<TopicPartition>,
    pub(super) identity: PartitionIdentity,
    pub(super) fetched: Fetched,
}

impl Records {
    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.chunks.iter().flat_map(|chunk| chunk.fetched.iter().map(move |record| Record { chunk, record }))
    }

    /// What happened besides: to be looked at before the records.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.fetched.record_count()).sum()
    }

    /// Whether there are no records. There may be events all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// A record, borrowed from [`Records`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    chunk: &'r Chunk,
    record: tailwater_log::Record<'r>,
}

impl<'r> Record<'r> {
    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &'r str {
        &self.chunk.place.topic
    }

    /// The partition of the topic.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.chunk.place.partition
    }

    /// The topic's name and the partition.
    #[must_use]
    pub fn topic_partition(&self) -> &'r TopicPartition {
        &self.chunk.place
    }

    /// Its offset: its number in the partition.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.record.offset()
    }

    /// The log epoch in which it was appended. Offset and epoch name it for good.
    #[must_use]
    pub fn epoch(&self) -> LogEpoch {
        self.record.epoch()
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&'r [u8]> {
        self.record.key()
    }

    /// Its value; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'r [u8]> {
        self.record.value()
    }

    /// Its headers, in the order in which they were given.
    pub fn headers(&self) -> impl Iterator<Item = Header<'r>> + use<'r> {
        self.record.headers()
    }

    /// When it was made: what its producer said, or when it was appended.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.record.created_at()
    }

    /// When its batch was appended: never less than that of an earlier record.
    #[must_use]
    pub fn appended_at(&self) -> Timestamp {
        self.record.appended_at()
    }

    /// The place of the record itself: its identity, and where to seek to have it read again.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor_at(self.offset())
    }

    /// The place behind it: what to commit when it is done, or to store beside its effect.
    #[must_use]
    pub fn next_cursor(&self) -> Cursor {
        // Offsets are below 2^63 with room for the end behind the last.
        self.cursor_at(self.offset().checked_add(1).unwrap_or(Offset::MAX))
    }

    fn cursor_at(&self, offset: Offset) -> Cursor {
        Cursor::new(self.chunk.identity, Position { offset, epoch: self.epoch() })
    }

    /// The record on its own. Key and value are not copied: they keep the bytes they lie in alive.
    #[must_use]
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            topic_partition: Arc::clone(&self.chunk.place),
            cursor: self.cursor(),
            key: self.record.key_bytes(),
            value: self.record.value_bytes(),
            headers: self
                .headers()
                .map(|header| OwnedHeader {
                    key: header.key.into(),
                    value: header.value.map(Bytes::copy_from_slice),
                })
                .collect(),
            created_at: self.created_at(),
            appended_at: self.appended_at(),
        }
    }
}

/// A record on its own, made by [`Record::to_owned`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OwnedRecord {
    /// The topic's name and the partition.
    pub topic_partition: Arc<TopicPartition>,
    /// Where it is.
    pub cursor: Cursor,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in the order in which they were given.
    pub headers: Vec<OwnedHeader>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its batch was appended.
    pub appended_at: Timestamp,
}

/// A header of an [`OwnedRecord`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OwnedHeader {
    /// The name. Names may repeat.
    pub key: Box<str>,
    /// The value.
    pub value: Option<Bytes>,
}

const _: () = {
    const fn outlives_its_consumer<T: Clone + Send + Sync + 'static>() {}
    outlives_its_consumer::<Records>();
    outlives_its_consumer::<OwnedRecord>();
};
