//! Who owns which partition of a group: a state machine for one group, without I/O, threads, locks or a clock.
//!
//! It keeps a *target* assignment, which an [assignor] makes at once whenever a member comes or goes or the topics change,
//! and for each partition its *owner*, who may deliver and commit. Owners follow the target one partition at a time, and
//! only those whose target has changed take part:
//!
//! - A partition has at most one owner (A1). A member becomes the owner of a free partition that is to be its own by
//!   its own [`poll`](Coordinator::poll).
//! - An owner that is not the target, and has delivered nothing that is not committed, ceases to be the owner at once. Any
//!   other is told by its next poll, delivers no more of the partition, may commit, and is the owner until it has committed
//!   all that it delivered, [releases](Coordinator::release) the partition, or its revoke timeout is over, counted from
//!   when it ceased to be the target. So each partition is free for its target within the timeout (A2).
//! - A partition that becomes its owner's target again before that is its own as before.
//! - What a member that is not the owner wants to commit or deliver is refused (C1).
//!
//! Nobody beats: a member is there from [`join`](Coordinator::join) to [`leave`](Coordinator::leave), and one with a
//! `max_poll_interval_ms` also loses all it has when it does not poll for so long. Whoever runs the coordinator wakes the
//! members of [`take_woken`](Coordinator::take_woken) after each call: those for whom a poll has news, or a
//! [`wait`](Coordinator::wait) an earlier deadline.
//!
//! Equal calls in an equal order have equal effects: nothing depends on addresses or hashes.
//!
//! ```
//! use tailwater_groups::coordinator::{Coordinator, MemberId, MemberSpec, MonotonicMs, TopicInfo, Topics};
//! use tailwater_groups::coordinator::{GroupEpoch, Subscription};
//! use tailwater_log::TopicId;
//!
//! let orders = TopicInfo { id: TopicId::from_bytes([1; 16]), name: "orders".into(), partition_count: 4 };
//! let subscription = Subscription { topics: vec![orders.id], patterns: Vec::new() };
//! let mut group = Coordinator::new(GroupEpoch::default(), Topics::new(1, [orders]).into());
//! let (now, is_met) = (MonotonicMs::ZERO, |_| false);
//!
//! let (first, second) = (MemberId::new(1), MemberId::new(2));
//! group.join(now, first, MemberSpec { subscription: subscription.clone(), ..MemberSpec::default() }, is_met)?;
//! assert_eq!(group.poll(now, first)?.assigned.len(), 4);
//!
//! // It has delivered nothing yet: half of it goes to the second member at once.
//! group.join(now, second, MemberSpec { subscription, ..MemberSpec::default() }, is_met)?;
//! assert_eq!(group.take_woken(), [first]);
//! assert_eq!(group.poll(now, second)?.assigned.len(), 2);
//! assert_eq!(group.poll(now, first)?.revoked.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod assignor;
mod deadlines;
mod delivery;
mod epoch;
mod follow;
mod membership;
mod reconcile;
mod spec;
mod time;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_log::{Offset, PartitionIdentity, TopicId};

pub use epoch::{AssignmentEpoch, GroupEpoch, MemberEpoch};
pub use spec::{
    Assigned, Changes, DEFAULT_REVOKE_TIMEOUT_MS, Fenced, JoinError, MemberId, MemberListing, MemberSpec,
    Subscription,
};
pub use time::MonotonicMs;
pub use topics::{InvalidPattern, TopicInfo, TopicPattern, Topics};

use crate::table::{PartitionKey, key_of, partition_of};

/// The members of one group and what they own. See the [module](self).
#[derive(Clone, Debug)]
pub struct Coordinator {
    group_epoch: GroupEpoch,
    assignment_epoch: AssignmentEpoch,
    topics: Arc<Topics>,
    /// The topics that somebody subscribes to or has subscribed to, with their partitions.
    tracked: BTreeMap<TopicId, TrackedTopic>,
    members: BTreeMap<MemberId, Member>,
    /// Whether the only member has the group for itself, all partitions of all topics.
    is_exclusive: bool,
    /// When owners that are not the target cease to be owners.
    revocations: BTreeSet<(MonotonicMs, PartitionKey)>,
    /// When to look whether a member has polled since.
    intervals: BTreeSet<(MonotonicMs, MemberId)>,
    /// Members that are to be woken.
    woken: Vec<MemberId>,
}

#[derive(Clone, Debug)]
struct TrackedTopic {
    /// The group epoch at which it was first subscribed to.
    since: GroupEpoch,
    partitions: Vec<Partition>,
}

/// A partition of a tracked topic. A deadline is set exactly while there is an owner that is not the target.
#[derive(Clone, Copy, Debug)]
struct Partition {
    owner: Option<MemberId>,
    target: Option<MemberId>,
    /// Up to where records were delivered, if they are not all committed.
    delivered: Option<Offset>,
    deadline: Option<MonotonicMs>,
    /// Whether the owner knows that it is to give it up.
    is_told: bool,
    came_later: bool,
}

impl Partition {
    fn new(came_later: bool) -> Self {
        Self { owner: None, target: None, delivered: None, deadline: None, is_told: false, came_later }
    }
}

#[derive(Clone, Debug)]
struct Member {
    spec: MemberSpec,
    /// What its subscription comes to, ordered. Members with the same share it.
    subscribed: Arc<[TopicId]>,
    epoch: MemberEpoch,
    /// The group epoch at its last poll.
    polled_epoch: GroupEpoch,
    last_poll: MonotonicMs,
    is_evicted: bool,
    /// Whether an entry of `intervals` is for it.
    is_watched: bool,
    /// While it sleeps: until when.
    waiting_until: Option<Option<MonotonicMs>>,
    /// Whether it was woken since its last poll, or is in it.
    is_woken: bool,
    /// How many partitions are or were to be others' and it still owns.
    revoking_count: u32,
    /// How many partitions are to be its own and others still own.
    awaited_count: u32,
    news: News,
}

/// What a member's next poll tells it, if it is still so then.
#[derive(Clone, Debug, Default)]
struct News {
    lost: BTreeSet<PartitionKey>,
    revoked: BTreeSet<PartitionKey>,
    revoking: BTreeSet<PartitionKey>,
    offered: BTreeSet<PartitionKey>,
    deleted: Vec<TopicInfo>,
}

impl Coordinator {
    /// A group without members, for those `topics`. Its epochs rise from `epoch` on.
    #[must_use]
    pub fn new(epoch: GroupEpoch, topics: Arc<Topics>) -> Self {
        Self {
            group_epoch: epoch,
            assignment_epoch: AssignmentEpoch::new(epoch.get()),
            topics,
            tracked: BTreeMap::new(),
            members: BTreeMap::new(),
            is_exclusive: false,
            revocations: BTreeSet::new(),
            intervals: BTreeSet::new(),
            woken: Vec::new(),
        }
    }

    /// The group's epoch.
    #[must_use]
    pub fn group_epoch(&self) -> GroupEpoch {
        self.group_epoch
    }

    /// The epoch of the target assignment. The same as the group's: the target is made at once.
    #[must_use]
    pub fn assignment_epoch(&self) -> AssignmentEpoch {
        self.assignment_epoch
    }

    /// How the members divide the partitions; `None` if there is no member.
    #[must_use]
    pub fn assignor(&self) -> Option<assignor::Assignor> {
        self.members.values().next().map(|member| member.spec.assignor)
    }

    /// How many members there are, evicted ones too.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Whether one member has the group for itself.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// The epoch of a member; `None` if it is none.
    #[must_use]
    pub fn member_epoch(&self, member: MemberId) -> Option<MemberEpoch> {
        self.members.get(&member).map(|member| member.epoch)
    }

    /// The members, in the order in which they joined, with what they own and are to own. Looks at all partitions.
    #[must_use]
    pub fn members(&self) -> Vec<MemberListing> {
        let listing = |(id, member): (&MemberId, &Member)| MemberListing {
            id: *id,
            name: member.spec.name.clone(),
            epoch: member.epoch,
            is_evicted: member.is_evicted,
            owned: Vec::new(),
            target: Vec::new(),
        };
        let mut listings: Vec<_> = self.members.iter().map(listing).collect();
        let ranks: BTreeMap<MemberId, usize> = self.members.keys().copied().zip(0..).collect();
        let rank = |member: Option<MemberId>| ranks.get(&member?).copied();
        for (key, partition) in self.partitions() {
            if let Some(owner) = rank(partition.owner) {
                listings[owner].owned.push(partition_of(key));
            }
            if let Some(target) = rank(partition.target) {
                listings[target].target.push(partition_of(key));
            }
        }
        listings
    }

    /// Who owns a partition.
    #[must_use]
    pub fn owner(&self, partition: PartitionIdentity) -> Option<MemberId> {
        self.partition(key_of(partition))?.owner
    }

    /// Who is to own a partition.
    #[must_use]
    pub fn target(&self, partition: PartitionIdentity) -> Option<MemberId> {
        self.partition(key_of(partition))?.target
    }

    /// The members to wake, each once, and forgets them.
    pub fn take_woken(&mut self) -> Vec<MemberId> {
        std::mem::take(&mut self.woken)
    }

    fn partition(&self, (topic, number): PartitionKey) -> Option<&Partition> {
        self.tracked.get(&topic)?.partitions.get(number.get() as usize)
    }

    fn partition_mut(&mut self, (topic, number): PartitionKey) -> Option<&mut Partition> {
        self.tracked.get_mut(&topic)?.partitions.get_mut(number.get() as usize)
    }

    /// All partitions, ordered.
    fn partitions(&self) -> impl Iterator<Item = (PartitionKey, &Partition)> {
        self.tracked.iter().flat_map(|(topic, tracked)| {
            let numbers = (0..).map(tailwater_log::PartitionId::new);
            numbers.zip(&tracked.partitions).map(|(number, partition)| ((*topic, number), partition))
        })
    }

    /// Those that a member owns.
    fn owned_by(&self, member: MemberId) -> Vec<PartitionKey> {
        let owned = self.partitions().filter(|(_, partition)| partition.owner == Some(member));
        owned.map(|(key, _)| key).collect()
    }

    /// Has a member woken, unless it was since its last poll.
    fn wake(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id).filter(|member| !member.is_woken) {
            member.is_woken = true;
            self.woken.push(id);
        }
    }

    /// Adds a partition to a list of a member's news, and has the member woken.
    fn tell(&mut self, id: MemberId, list: fn(&mut News) -> &mut BTreeSet<PartitionKey>, key: PartitionKey) {
        if let Some(member) = self.members.get_mut(&id) {
            list(&mut member.news).insert(key);
        }
        self.wake(id);
    }
}
