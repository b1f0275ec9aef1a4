//! What a consumer is told besides records.

use std::sync::Arc;

use tailwater_log::Offset;

use super::Cursor;
use crate::TopicPartition;

/// Something that happened to what a consumer reads. Told once, before the records that follow it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Records were removed before they were read, or damaged and taken out by a repair. Reading goes on behind them.
    Gap {
        /// Where.
        partition: Arc<TopicPartition>,
        /// The next offset that would have been read.
        from: Offset,
        /// The next offset that there is.
        to: Offset,
    },
    /// Records below the position were lost or truncated, and their offsets may be given to others. Reading goes on where
    /// the histories part.
    Diverged {
        /// Where.
        partition: Arc<TopicPartition>,
        /// The position, which does not hold any more.
        position: Cursor,
        /// Up to where it and the log have the same history: the next offset that is read.
        epoch_end: Offset,
    },
    /// The topic was deleted. Its partitions are not read any more, also if a topic of that name is created again.
    TopicDeleted {
        /// Its name.
        topic: Arc<str>,
    },
}

/// How far behind a consumer is in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Lag {
    /// How many records can be read and are not done: those from `offset` on.
    pub records: u64,
    /// The group's committed offset; a reader's position, since it has none.
    pub offset: Offset,
    /// The end of what can be read.
    pub end: Offset,
}

impl Lag {
    pub(crate) fn new(offset: Offset, end: Offset) -> Self {
        Self { records: end.since(offset), offset, end }
    }
}
