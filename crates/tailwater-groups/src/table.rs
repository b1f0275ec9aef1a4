//! What the groups log says, in memory: every group and its positions.

use std::collections::{BTreeMap, VecDeque};

use tailwater_log::{Offset, PartitionId, PartitionIdentity, TopicId};

use crate::format::{Entry, Registration, StoredPosition};
use crate::slot::Slot;
use crate::{Committed, GroupId, GroupKind, Position};

/// A partition, in an order.
pub(crate) type PartitionKey = (TopicId, PartitionId);

pub(crate) fn key_of(partition: PartitionIdentity) -> PartitionKey {
    (partition.topic_id, partition.partition)
}

pub(crate) fn partition_of((topic_id, partition): PartitionKey) -> PartitionIdentity {
    PartitionIdentity { topic_id, partition }
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Table {
    groups: BTreeMap<GroupId, Group>,
    /// How many keys of the log have a value.
    live_entries: u64,
    /// Positions that were removed by what is at that offset of the log: forgotten when that is durable.
    removed: VecDeque<(Offset, GroupId, PartitionKey)>,
}

/// One group. Without a registration it is only what a power cut could bring back.
#[derive(Debug, Default)]
pub(crate) struct Group {
    registration: Option<Registration>,
    positions: BTreeMap<PartitionKey, Slot>,
}

impl Group {
    /// What is registered; `None` once the group was deleted.
    pub(crate) fn registration(&self) -> Option<Registration> {
        self.registration
    }

    pub(crate) fn slot(&self, partition: PartitionIdentity) -> Option<&Slot> {
        self.positions.get(&key_of(partition))
    }

    pub(crate) fn committed(&self, partition: PartitionIdentity) -> Option<&Committed> {
        self.slot(partition)?.newest()
    }

    /// All committed positions, in the order of the partitions.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (PartitionIdentity, &Committed)> {
        self.positions.iter().filter_map(|(key, slot)| Some((partition_of(*key), slot.newest()?)))
    }

    /// Whether there is a position in any partition of the topic.
    pub(crate) fn has_met(&self, topic: TopicId) -> bool {
        let all = (topic, PartitionId::ZERO)..=(topic, PartitionId::new(i32::MAX as u32));
        self.positions.range(all).any(|(_, slot)| slot.newest().is_some())
    }
}

impl Table {
    pub(crate) fn live_entries(&self) -> u64 {
        self.live_entries
    }

    pub(crate) fn group(&self, group: &GroupId) -> Option<&Group> {
        self.groups.get(group)
    }

    /// What is registered of a group.
    pub(crate) fn registration(&self, group: &GroupId) -> Option<Registration> {
        self.group(group)?.registration
    }

    /// The registered groups, ordered by their ids.
    pub(crate) fn registered(&self) -> impl Iterator<Item = (&GroupId, Registration, &Group)> {
        self.groups.iter().filter_map(|(id, group)| Some((id, group.registration?, group)))
    }

    /// Where in the log a position is whose group is not registered, if there is one.
    pub(crate) fn find_unregistered(&self) -> Option<Offset> {
        let mut unregistered = self.groups.values().filter(|group| group.registration.is_none());
        unregistered.find_map(|group| group.positions().next()).map(|(_, committed)| committed.log_offset)
    }

    /// Registers the groups that have positions and no registration, since that was lost.
    pub(crate) fn register_orphans(&mut self) {
        for group in self.groups.values_mut().filter(|group| group.registration.is_none()) {
            let first = group.positions().map(|(_, committed)| committed.committed_at).min();
            group.registration =
                first.map(|registered_at| Registration { kind: GroupKind::Consumer, registered_at });
            self.live_entries += u64::from(group.registration.is_some());
        }
    }

    /// Where the groups that `is_held_by` names may go on in a partition after a power cut at this moment. Also those that
    /// were deleted, until that is durable.
    pub(crate) fn possible(
        &self,
        partition: PartitionIdentity,
        durable: Offset,
        is_held_by: impl Fn(&GroupId) -> bool,
    ) -> impl Iterator<Item = (&GroupId, Position)> {
        let held = self.groups.iter().filter(move |(id, _)| is_held_by(id));
        let slots = held.filter_map(move |(id, group)| Some((id, group.slot(partition)?)));
        slots.flat_map(move |(id, slot)| slot.possible(durable).map(move |position| (id, position)))
    }

    /// Notes an entry that was appended at `log_offset`; below `durable` the log is durable.
    pub(crate) fn apply(&mut self, entry: &Entry<'_>, log_offset: Offset, durable: Offset) {
        match *entry {
            Entry::Registration { group, value } => {
                let registration = &mut self.group_mut(group).registration;
                let old = std::mem::replace(registration, value);
                self.count(old.is_some(), value.is_some());
                self.forget_if_gone(group);
            }
            Entry::Position { group, partition, value } => {
                let key = key_of(partition);
                let slot = self.group_mut(group).positions.entry(key).or_default();
                let was_there = slot.newest().is_some();
                slot.set(log_offset, value.map(|stored| committed(&stored, log_offset)), durable);
                self.count(was_there, value.is_some());
                if value.is_none() {
                    self.removed.push_back((log_offset, GroupId::of_checked(group), key));
                }
            }
            Entry::RewriteEnd { .. } => {}
        }
        self.forget_removed(durable);
    }

    fn group_mut(&mut self, group: &str) -> &mut Group {
        if !self.groups.contains_key(group) {
            self.groups.insert(GroupId::of_checked(group), Group::default());
        }
        self.groups.get_mut(group).expect("it was there, or was put there")
    }

    fn count(&mut self, was_there: bool, is_there: bool) {
        self.live_entries = self.live_entries + u64::from(is_there) - u64::from(was_there);
    }

    /// Forgets positions whose removal is durable.
    fn forget_removed(&mut self, durable: Offset) {
        while self.removed.front().is_some_and(|(log_offset, ..)| *log_offset < durable) {
            let Some((_, id, key)) = self.removed.pop_front() else { return };
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if let Some(slot) = group.positions.get_mut(&key) {
                slot.settle(durable);
                if slot.is_vacant() {
                    group.positions.remove(&key);
                }
            }
            self.forget_if_gone(id.as_str());
        }
    }

    fn forget_if_gone(&mut self, group: &str) {
        let is_gone = |group: &Group| group.registration.is_none() && group.positions.is_empty();
        if self.groups.get(group).is_some_and(is_gone) {
            self.groups.remove(group);
        }
    }
}

fn committed(stored: &StoredPosition<'_>, log_offset: Offset) -> Committed {
    Committed {
        position: stored.position,
        metadata: stored.metadata.into(),
        committed_at: stored.committed_at,
        log_offset,
    }
}
