//! Groups as a broker shows them.

use std::sync::Arc;

use tailwater_log::{Offset, Timestamp};

use crate::TopicPartition;
use crate::consumer::{Cursor, Lag};

/// A group in a list: [`Broker::groups`](crate::Broker::groups).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupListing {
    /// Its name.
    pub id: String,
    /// Whether a consumer in this process is a member of it. Always false where the broker is attached read-only.
    pub has_member: bool,
    /// In how many partitions it has a committed offset.
    pub position_count: u64,
}

/// A group in full: [`Broker::describe_group`](crate::Broker::describe_group).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub id: String,
    /// Whether a consumer in this process is a member of it. Always false where the broker is attached read-only.
    pub has_member: bool,
    /// The consumers in this process that are members of it, in the order in which they joined.
    pub members: Vec<GroupMember>,
    /// Where it is in each partition, ordered by topic and number.
    pub positions: Vec<GroupPosition>,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// The assignment epoch that it has reconciled to.
    pub epoch: u64,
    /// Whether it was taken for stuck, and has not polled since.
    pub is_evicted: bool,
    /// The partitions that it has, ordered. None are told of a member that has its group for itself.
    pub partitions: Vec<TopicPartition>,
    /// The partitions that it is to have, ordered.
    pub target: Vec<TopicPartition>,
}

/// Where a group is in a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The next record to read.
    pub committed: Cursor,
    /// How far that is from the end.
    pub lag: Lag,
    /// The first offset that is there. If the group is below it, it has lost records.
    pub log_start_offset: Offset,
    /// The text that was committed with it.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub committed_at: Timestamp,
}

/// What a reset does in a partition: [`Broker::reset_group`](crate::Broker::reset_group).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupReset {
    /// The partition.
    pub partition: TopicPartition,
    /// Where the group was, if it has been there.
    pub from: Option<Cursor>,
    /// Where it is now, or would be.
    pub to: Cursor,
}
