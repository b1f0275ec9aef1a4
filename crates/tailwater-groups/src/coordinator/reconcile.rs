//! Making the target assignment, and moving the owners towards it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_log::{PartitionId, TopicId};

use super::assignor::{Problem, assign};
use super::{
    AssignmentEpoch, Coordinator, GroupEpoch, Member, MemberEpoch, MemberId, MonotonicMs, Partition,
};
use crate::table::PartitionKey;

impl Coordinator {
    /// Begins a new group epoch, and makes and follows its target.
    pub(super) fn retarget(&mut self, now: MonotonicMs) {
        self.group_epoch = GroupEpoch::new(self.group_epoch.get() + 1);
        let targets = self.compute_targets();
        let topics: Vec<_> =
            self.tracked.iter().map(|(topic, tracked)| (*topic, tracked.partitions.len())).collect();
        let mut targets = targets.into_iter();
        for (topic, count) in topics {
            for number in (0..).take(count).map(PartitionId::new) {
                let target = targets.next().flatten();
                // Of any other, the owner is on its way to the target already, or a free one is offered to it.
                if self.target_of((topic, number)) != target {
                    self.change((topic, number), |partition| partition.target = target);
                    self.reconcile(now, (topic, number));
                }
            }
        }
        self.assignment_epoch = AssignmentEpoch::new(self.group_epoch.get());
    }

    fn target_of(&self, key: PartitionKey) -> Option<MemberId> {
        self.partition(key)?.target
    }

    /// For each partition of the tracked topics the member that is to have it.
    fn compute_targets(&self) -> Vec<Option<MemberId>> {
        let mut live: Vec<(&MemberId, &Member)> =
            self.members.iter().filter(|(_, member)| !member.is_evicted).collect();
        live.sort_by_key(|(id, member)| (member.spec.name.is_none(), member.spec.name.clone(), **id));
        let ids: Vec<MemberId> = live.iter().map(|(id, _)| **id).collect();
        let ranks: BTreeMap<MemberId, usize> = ids.iter().copied().zip(0..).collect();
        let (subscriptions, members) = self.subscriptions(&live);
        let partition_counts: Vec<u32> =
            self.tracked.values().map(|tracked| count_of(&tracked.partitions)).collect();
        // Where a partition is to be counts, else where it is: what is on its way already is not turned round.
        let previous = |(_, partition): (PartitionKey, &Partition)| {
            let rank = |member: Option<MemberId>| ranks.get(&member?).copied();
            rank(partition.target).or_else(|| rank(partition.owner))
        };
        let previous: Vec<_> = self.partitions().map(previous).collect();
        let problem = Problem {
            partition_counts: &partition_counts,
            subscriptions: &subscriptions,
            members: &members,
            previous: &previous,
        };
        let targets = assign(self.assignor().unwrap_or_default(), &problem);
        targets.into_iter().map(|rank| rank.map(|rank| ids[rank])).collect()
    }

    /// The different subscriptions of members, and which of them each has.
    fn subscriptions(&self, members: &[(&MemberId, &Member)]) -> (Vec<Vec<usize>>, Vec<usize>) {
        // Members with equal subscriptions share one: looked up by address, which tells nothing of the order.
        let mut known: BTreeMap<*const TopicId, usize> = BTreeMap::new();
        let mut subscriptions = Vec::new();
        let mut indexes = Vec::new();
        for (_, member) in members {
            let index = *known.entry(Arc::as_ptr(&member.subscribed).cast()).or_insert_with(|| {
                subscriptions.push(self.indexes_of(&member.subscribed));
                subscriptions.len() - 1
            });
            indexes.push(index);
        }
        (subscriptions, indexes)
    }

    /// Where topics are among the tracked ones. Both are ordered.
    fn indexes_of(&self, topics: &[TopicId]) -> Vec<usize> {
        let mut wanted = topics.iter().peekable();
        let is_wanted = |tracked: &TopicId| wanted.next_if(|topic| *topic == tracked).is_some();
        let mut is_wanted = is_wanted;
        self.tracked
            .keys()
            .enumerate()
            .filter(|(_, topic)| is_wanted(topic))
            .map(|(index, _)| index)
            .collect()
    }

    /// Moves a partition one step towards its target, if that takes nobody else.
    pub(super) fn reconcile(&mut self, now: MonotonicMs, key: PartitionKey) {
        let Some(partition) = self.partition(key).copied() else { return };
        match (partition.owner, partition.target) {
            (None, None) => {}
            (None, Some(target)) => self.tell(target, |news| &mut news.offered, key),
            (Some(owner), Some(target)) if owner == target => self.withdraw(key),
            (Some(owner), _) if partition.delivered.is_none() => {
                self.free(key);
                if !partition.is_told {
                    self.tell(owner, |news| &mut news.revoked, key);
                }
            }
            (Some(owner), _) => self.revoke(now, key, owner, partition),
        }
    }

    /// Gives the owner until its revoke timeout.
    fn revoke(&mut self, now: MonotonicMs, key: PartitionKey, owner: MemberId, partition: Partition) {
        if partition.deadline.is_none() {
            let timeout_ms = self.members.get(&owner).map_or(0, |member| member.spec.revoke_timeout_ms);
            let deadline = now.saturating_add_ms(timeout_ms);
            self.revocations.insert((deadline, key));
            self.change(key, |partition| partition.deadline = Some(deadline));
        }
        if !partition.is_told {
            self.tell(owner, |news| &mut news.revoking, key);
        }
        if let Some(target) = partition.target {
            // It has a deadline to wait for.
            self.wake(target);
        }
    }

    /// The owner is the target again.
    fn withdraw(&mut self, key: PartitionKey) {
        self.clear_deadline(key);
        self.change(key, |partition| partition.is_told = false);
    }

    /// Takes a partition from its owner, and offers it to its target.
    pub(super) fn free(&mut self, key: PartitionKey) {
        self.clear_deadline(key);
        self.change(key, |partition| {
            partition.owner = None;
            partition.delivered = None;
            partition.is_told = false;
        });
        if let Some(target) = self.partition(key).and_then(|partition| partition.target) {
            self.tell(target, |news| &mut news.offered, key);
        }
    }

    /// Raises a member's epoch once it knows of the assignment and has given up what it is to.
    pub(super) fn note_reconciled(&mut self, id: MemberId) {
        let (group_epoch, assignment_epoch) = (self.group_epoch, self.assignment_epoch);
        let is_reconciled =
            |member: &&mut Member| member.revoking_count == 0 && member.polled_epoch == group_epoch;
        if let Some(member) = self.members.get_mut(&id).filter(is_reconciled) {
            member.epoch = MemberEpoch::new(assignment_epoch.get());
        }
    }

    fn clear_deadline(&mut self, key: PartitionKey) {
        let deadline = self.partition_mut(key).and_then(|partition| partition.deadline.take());
        if let Some(deadline) = deadline {
            self.revocations.remove(&(deadline, key));
        }
    }

    /// Changes a partition, and what is counted of it.
    pub(super) fn change(&mut self, key: PartitionKey, change: impl FnOnce(&mut Partition)) {
        let Some(partition) = self.partition_mut(key) else { return };
        let before = (partition.owner, partition.target);
        change(partition);
        let after = (partition.owner, partition.target);
        if before != after {
            self.count(before, false);
            self.count(after, true);
        }
    }

    fn count(&mut self, (owner, target): (Option<MemberId>, Option<MemberId>), is_so: bool) {
        let step = |count: &mut u32| *count = if is_so { *count + 1 } else { *count - 1 };
        if owner.is_none() || owner == target {
            return;
        }
        if let Some(member) = owner.and_then(|owner| self.members.get_mut(&owner)) {
            step(&mut member.revoking_count);
        }
        if let Some(member) = target.and_then(|target| self.members.get_mut(&target)) {
            step(&mut member.awaited_count);
        }
    }
}

fn count_of(partitions: &[Partition]) -> u32 {
    u32::try_from(partitions.len()).expect("partitions are counted by a u32")
}
