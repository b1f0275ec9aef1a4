//! What a member is when it joins, and what it is told.

use std::fmt;
use std::sync::Arc;

use tailwater_log::{PartitionIdentity, TopicId};

use super::assignor::Assignor;
use super::{MemberEpoch, TopicInfo, TopicPattern};

/// How long a member may take by default to give up a partition of which it has delivered records that are not committed.
pub const DEFAULT_REVOKE_TIMEOUT_MS: u64 = 30_000;

/// A member of a group. Whoever runs the coordinator gives out the ids, each once, rising in the order of joining.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(u64);

impl MemberId {
    /// The id of this number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a member reads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subscription {
    /// These topics.
    pub topics: Vec<TopicId>,
    /// All topics whose names match one of these, those too that are created later.
    pub patterns: Vec<TopicPattern>,
}

/// How a member joins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberSpec {
    /// Its name, which no other member of the group has. Members are served in the order of their names, so that the same
    /// names get the same partitions when all start again; those without a name come after them, in the order they joined.
    pub name: Option<Arc<str>>,
    /// What it reads.
    pub subscription: Subscription,
    /// How the partitions are divided: the same for all members of a group.
    pub assignor: Assignor,
    /// How long it may take to give up a partition of which it has delivered records that are not committed, from the
    /// moment the partition was assigned to another. Default [`DEFAULT_REVOKE_TIMEOUT_MS`].
    pub revoke_timeout_ms: u64,
    /// How long it may go without a poll before it is evicted, if there is a limit. It does not count while the member
    /// waits. Default none.
    pub max_poll_interval_ms: Option<u64>,
}

impl Default for MemberSpec {
    fn default() -> Self {
        Self {
            name: None,
            subscription: Subscription::default(),
            assignor: Assignor::default(),
            revoke_timeout_ms: DEFAULT_REVOKE_TIMEOUT_MS,
            max_poll_interval_ms: None,
        }
    }
}

/// Why a member cannot join. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A member has the group for itself, or wants to and there are others.
    #[error("the group is in use")]
    InUse,
    /// Another member has that name.
    #[error("the group has a member named {name:?} already")]
    DuplicateName {
        /// The name.
        name: Arc<str>,
    },
    /// The other members divide the partitions another way.
    #[error("the group's members use the {assignor} assignor, not {requested}")]
    AssignorMismatch {
        /// The group's.
        assignor: Assignor,
        /// The member's.
        requested: Assignor,
    },
    /// There is no such topic (any more).
    #[error("there is no topic with the id {topic_id}")]
    UnknownTopic {
        /// Its id.
        topic_id: TopicId,
    },
}

/// The member has been evicted, or does not own a partition. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the member is fenced")]
#[non_exhaustive]
pub struct Fenced {
    /// The first partition that it does not own; `None` if it is no member at all.
    pub partition: Option<PartitionIdentity>,
}

/// A partition that a member may read from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// Which.
    pub partition: PartitionIdentity,
    /// Whether it came after the group had met its topic, or with a topic that a pattern of a member who was there then
    /// picked up: if the group has committed nothing in it, it starts at the log start, whatever the reset policy.
    pub came_later: bool,
}

/// What has changed for a member since its last poll, in the order in which it is to be dealt with. Each list is ordered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Changes {
    /// Partitions that it had and that were taken from it: it was too slow to give them up, or was evicted, or their topic
    /// is gone. It can commit nothing in them any more.
    pub lost: Vec<PartitionIdentity>,
    /// Partitions that it had, with nothing delivered that is not committed, and that it has no more.
    pub revoked: Vec<PartitionIdentity>,
    /// Topics that it subscribed to and that are gone.
    pub deleted: Vec<TopicInfo>,
    /// Partitions that it is to give up: it may still commit in them, and then [`release`](super::Coordinator::release)s
    /// them. If it takes too long they are lost.
    pub revoking: Vec<PartitionIdentity>,
    /// Partitions that it may read from now on. Among them can be one that it was told to give up and has not released: a
    /// commit freed it, and it has become the member's own again.
    pub assigned: Vec<Assigned>,
    /// Whether it had been evicted, and is a member again by this poll.
    pub has_rejoined: bool,
}

impl Changes {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { lost, revoked, deleted, revoking, assigned, has_rejoined } = self;
        !has_rejoined
            && lost.is_empty()
            && revoked.is_empty()
            && deleted.is_empty()
            && revoking.is_empty()
            && assigned.is_empty()
    }
}

/// What is known of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemberListing {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// The assignment that it has reconciled to.
    pub epoch: MemberEpoch,
    /// Whether it has been evicted for not polling, and has not polled since.
    pub is_evicted: bool,
    /// The partitions that it owns, ordered.
    pub owned: Vec<PartitionIdentity>,
    /// The partitions that it is to own, ordered.
    pub target: Vec<PartitionIdentity>,
}
