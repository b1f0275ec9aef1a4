//! Places to resume at: cursors, and what to seek to.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tailwater_groups::Position;
use tailwater_log::{LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId};

/// A place to resume at. One string, to be put into a database beside the effect of what was read.
///
/// It names the next record to read: `offset`, and by `epoch` the history in which that was so. If a crash or a
/// truncation has taken records below it since, the consumer notices ([`Event::Diverged`](crate::Event::Diverged))
/// instead of reading on as if nothing had happened. A topic that was deleted and created again has another id.
///
/// # Examples
///
/// ```
/// use tailwater::Cursor;
///
/// let text = "000102030405060708090a0b0c0d0e0f:3:184467:2";
/// let cursor: Cursor = text.parse().unwrap();
/// assert_eq!((cursor.partition.get(), cursor.offset.get(), cursor.epoch.get()), (3, 184_467, 2));
/// assert_eq!(cursor.to_string(), text);
/// assert!("orders:3:184467".parse::<Cursor>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition of the topic.
    pub partition: PartitionId,
    /// The next offset to read.
    pub offset: Offset,
    /// The log epoch of the record before it.
    pub epoch: LogEpoch,
}

impl Cursor {
    pub(crate) fn new(identity: PartitionIdentity, position: Position) -> Self {
        Self {
            topic_id: identity.topic_id,
            partition: identity.partition,
            offset: position.offset,
            epoch: position.epoch,
        }
    }

    pub(crate) fn identity(&self) -> PartitionIdentity {
        PartitionIdentity { topic_id: self.topic_id, partition: self.partition }
    }

    pub(crate) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch }
    }
}

/// Topic id, partition, offset and epoch, separated by colons.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.topic_id, self.partition, self.offset, self.epoch)
    }
}

/// Why a text is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cursor is written as TOPIC_ID:PARTITION:OFFSET:EPOCH, the topic id as 32 hexadecimal digits")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or(ParseCursorError)
    }
}

fn parse(text: &str) -> Option<Cursor> {
    // A sign or an empty part is not what `Display` writes.
    let number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok())?;
    let mut parts = text.split(':');
    let topic_id = parts.next()?.parse().ok()?;
    let partition = u32::try_from(number(parts.next()?)?).ok().and_then(PartitionId::try_new)?;
    let offset = Offset::try_new(number(parts.next()?)?)?;
    let epoch = LogEpoch::new(u32::try_from(number(parts.next()?)?).ok()?);
    parts.next().is_none().then_some(Cursor { topic_id, partition, offset, epoch })
}

/// Where [`Consumer::seek`](crate::Consumer::seek) goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SeekTo {
    /// The first record that is there.
    Earliest,
    /// Behind the last record that can be read.
    Latest,
    /// So many records before [`SeekTo::Latest`]; the first record that is there, if there are fewer.
    Last(u64),
    /// The record with this offset, or the place where it will be.
    Offset(Offset),
    /// A place that was remembered. Whether it is still of this history is found out at the next poll.
    Cursor(Cursor),
    /// The first record that was appended at or after this time, or up to some milliseconds earlier
    /// ([`Clock::behind_ms`](crate::Clock::behind_ms)); the end, if there is none.
    Time(Timestamp),
    /// The first record that was appended at most this long ago; the end, if there is none.
    Ago(Duration),
}

/// Where a group starts in a partition in which it has no committed offset, and a reader in any.
///
/// A group asks once: where it starts is committed before it is handed a record. Partitions that are added later are
/// read from their start, whatever this says, so that nothing is missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Reset {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// Behind the last record that can be read.
    Latest,
    /// So many records before [`Reset::Latest`]; at the first record that is there, if there are fewer.
    Last(u64),
    /// At this offset.
    Offset(Offset),
    /// At the first record that was appended at or after this time, or up to some milliseconds earlier
    /// ([`Clock::behind_ms`](crate::Clock::behind_ms)); at the end, if there is none.
    Time(Timestamp),
    /// At the first record that was appended at most this long ago; at the end, if there is none.
    Ago(Duration),
    /// Nowhere: subscribing fails with [`Error::NoCommittedOffset`](crate::Error::NoCommittedOffset).
    Error,
}

impl Reset {
    /// The same place as something to seek to; `None` for [`Reset::Error`].
    pub(crate) fn place(self) -> Option<SeekTo> {
        Some(match self {
            Reset::Earliest => SeekTo::Earliest,
            Reset::Latest => SeekTo::Latest,
            Reset::Last(count) => SeekTo::Last(count),
            Reset::Offset(offset) => SeekTo::Offset(offset),
            Reset::Time(time) => SeekTo::Time(time),
            Reset::Ago(ago) => SeekTo::Ago(ago),
            Reset::Error => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cursor_is_refused() {
        let id = "000102030405060708090a0b0c0d0e0f";
        for text in [
            String::new(),
            id.to_owned(),
            format!("{id}:1:2"),
            format!("{id}:1:2:3:4"),
            format!("{id}:1:2:3 "),
            format!("{id}:+1:2:3"),
            format!("{id}:1::3"),
            format!("{id}:2147483648:2:3"),
            format!("{id}:1:9223372036854775808:3"),
            format!("{id}:1:2:4294967296"),
            format!("x{id}:1:2:3"),
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text}");
        }
        assert!(format!("{id}:2147483647:9223372036854775807:4294967295").parse::<Cursor>().is_ok());
    }
}
