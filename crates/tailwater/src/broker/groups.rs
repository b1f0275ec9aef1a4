//! Consumer groups as a broker knows them: the store of their positions, opened at first use, and their administration.

use std::collections::HashMap;
use std::sync::Arc;

use tailwater_groups::coordinator::MemberListing;
use tailwater_groups::{Commit, GroupId, GroupStore, Position};
use tailwater_log::{FetchIsolation, Offset, PartitionIdentity, RepairReport, TopicId};

use super::directory::GROUPS_TOPIC;
use super::group_description::{GroupDescription, GroupListing, GroupMember, GroupPosition, GroupReset};
use super::inner::Inner;
use super::lazy_log::LazyLog;
use super::progress::Progress;
use super::topic::Topic;
use crate::consumer::{Cursor, Lag, OpenPartition, Reset, SeekTo};
use crate::maintenance::WorkQueues;
use crate::receipt::Receipt;
use crate::{Error, Result, TopicPartition};

/// The positions of the groups, and the log that they are kept in.
#[derive(Debug)]
pub(crate) struct Groups {
    store: GroupStore,
    topic: Arc<Topic>,
    lazy: Arc<LazyLog>,
    queues: Arc<WorkQueues>,
    progress: Arc<Progress>,
}

impl Groups {
    pub(super) fn new(
        store: GroupStore,
        topic: Arc<Topic>,
        lazy: Arc<LazyLog>,
        queues: Arc<WorkQueues>,
        progress: Arc<Progress>,
    ) -> Self {
        Self { store, topic, lazy, queues, progress }
    }

    pub(crate) fn store(&self) -> &GroupStore {
        &self.store
    }

    /// The log that they are kept in.
    pub(crate) fn lazy(&self) -> &Arc<LazyLog> {
        &self.lazy
    }

    /// The receipt of a commit by a member: none of an ephemeral group, which has nothing to wait for.
    pub(crate) fn receipt_of_member(&self, receipt: Option<tailwater_log::Receipt>) -> Receipt<()> {
        let Some(receipt) = receipt else {
            self.progress.notify();
            return Receipt::done(Ok(()));
        };
        self.receipt(receipt)
    }

    /// The receipt of a commit. Has seen to it that it becomes durable, whoever waits for it.
    pub(crate) fn receipt(&self, receipt: tailwater_log::Receipt) -> Receipt<()> {
        self.queues.request_sync(&self.lazy);
        self.note_activity();
        self.progress.notify();
        Receipt::append(receipt, |_, _| (), &self.topic, &self.lazy)
    }

    /// Makes durable all that was committed.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.store.log().sync();
        synced.map(drop).map_err(|error| self.topic.explain(error, self.lazy.place()))
    }

    /// Drops what is kept for topics that are gone. What cannot be dropped now is dropped at the next open.
    pub(super) fn forget_topics(&self, is_gone: impl Fn(TopicId) -> bool) {
        if let Err(error) = self.store.forget_topics(is_gone) {
            tracing::warn!(%error, "the positions in a deleted topic are kept until the next open");
        }
        self.note_activity();
    }

    fn note_activity(&self) {
        self.queues.note_activity(&self.lazy);
        if self.store.wants_rewrite() {
            self.queues.request_rewrite(&self.store);
        }
    }
}

impl Inner {
    /// The positions of the groups; their log is opened, and read, at the first use.
    pub(crate) fn groups(&self) -> Result<Arc<Groups>> {
        self.groups.open()
    }

    /// Repairs a partition, Tailwater's own too.
    pub(super) fn repair(&self, place: &TopicPartition) -> Result<RepairReport> {
        self.check_writable()?;
        if &*place.topic != GROUPS_TOPIC {
            let topic = self.topic(&place.topic)?;
            return topic.repair(&topic.partition(place.partition)?);
        }
        self.groups.repair(place.partition)
    }

    /// Drops the positions in a topic that was deleted.
    pub(super) fn forget_topic(&self, id: TopicId) {
        // Where they were never read, the next open does it.
        if let Some(groups) = self.groups.opened() {
            groups.forget_topics(|known| known == id);
        }
    }

    /// The same, as the process that writes left them.
    fn fresh_groups(&self) -> Result<Arc<Groups>> {
        let groups = self.groups()?;
        if self.is_read_only() {
            groups.store.refresh()?;
            // After the positions, so that each topic which they are in is known.
            self.refresh_if_attached()?;
        }
        Ok(groups)
    }

    /// How far each partition is committed, at most, by any group, as the process that writes left it.
    pub(crate) fn committed_ends(&self) -> Result<HashMap<PartitionIdentity, Offset>> {
        let groups = self.fresh_groups()?;
        let mut ends = HashMap::new();
        for listed in groups.store.groups() {
            for (partition, committed) in groups.store.positions(&listed.id)? {
                let end: &mut Offset = ends.entry(partition).or_default();
                *end = committed.position.offset.max(*end);
            }
        }
        Ok(ends)
    }

    pub(super) fn list_groups(&self) -> Result<Vec<GroupListing>> {
        let listed = self.fresh_groups()?.store.groups();
        Ok(listed
            .into_iter()
            .map(|listed| GroupListing {
                id: listed.id.to_string(),
                has_member: listed.member_count > 0,
                position_count: listed.position_count,
            })
            .collect())
    }

    pub(super) fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let id = group_id(group)?;
        let groups = self.fresh_groups()?;
        let positions = groups.store.positions(&id)?;
        let listed = groups.store.groups();
        let mut described = GroupDescription {
            id: id.to_string(),
            has_member: listed.iter().any(|listed| listed.id == id && listed.member_count > 0),
            members: self.members_of(&groups, &id),
            positions: Vec::with_capacity(positions.len()),
        };
        for (identity, committed) in positions {
            // A topic that was deleted meanwhile has no positions any more.
            let Some(partition) = self.open_by_identity(identity)? else { continue };
            let end = partition.visible_end(FetchIsolation::Visible)?;
            described.positions.push(GroupPosition {
                partition: TopicPartition::clone(partition.place()),
                committed: Cursor::new(identity, committed.position),
                lag: Lag::new(committed.position.offset, end),
                log_start_offset: partition.log.log_start_offset(),
                metadata: committed.metadata,
                committed_at: committed.committed_at,
            });
        }
        described.positions.sort_unstable_by(|a, b| a.partition.cmp(&b.partition));
        Ok(described)
    }

    fn members_of(&self, groups: &Groups, id: &GroupId) -> Vec<GroupMember> {
        let places = |identities: Vec<PartitionIdentity>| {
            let place = |identity: PartitionIdentity| {
                let topic = self.topic_by_id(identity.topic_id)?;
                topic.partition(identity.partition).ok().map(|lazy| TopicPartition::clone(lazy.place()))
            };
            let mut places: Vec<_> = identities.into_iter().filter_map(place).collect();
            places.sort_unstable();
            places
        };
        let members = groups.store.members(id).map(|members| members.members).unwrap_or_default();
        let member = |listed: MemberListing| GroupMember {
            name: listed.name,
            epoch: listed.epoch.get(),
            is_evicted: listed.is_evicted,
            partitions: places(listed.owned),
            target: places(listed.target),
        };
        members.into_iter().map(member).collect()
    }

    pub(super) fn create_group(&self, group: &str, topics: &[&str], start: Reset) -> Result<()> {
        let id = group_id(group)?;
        self.check_writable()?;
        let groups = self.groups()?;
        let start = start.place().ok_or(Error::NothingToRead)?;
        let mut starts = Vec::new();
        for name in topics {
            let topic = self.topic(name)?;
            if groups.store.has_met(&id, topic.id) {
                return Err(Error::GroupExists { group: group.into(), topic: Arc::clone(&topic.name) });
            }
            for lazy in topic.partitions().iter() {
                let partition = OpenPartition::new(&topic, lazy)?;
                starts.push((partition.identity(), partition.resolve_for_group(start, self.clock())?));
            }
        }
        if starts.is_empty() {
            return Err(Error::NothingToRead);
        }
        self.set_positions(&groups, &id, &starts)?;
        tracing::info!(group, partition_count = starts.len(), "created a group");
        Ok(())
    }

    /// Where the group would be; moves it there unless `is_dry_run`.
    pub(super) fn reset_group(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        to: SeekTo,
        is_dry_run: bool,
    ) -> Result<Vec<GroupReset>> {
        let id = group_id(group)?;
        if !is_dry_run {
            self.check_writable()?;
        }
        let groups = self.fresh_groups()?;
        // An unknown group is most likely a slip of the pen.
        groups.store.positions(&id)?;
        let (mut moves, mut resets) = (Vec::new(), Vec::new());
        for place in partitions {
            let topic = self.topic(&place.topic)?;
            let partition = OpenPartition::new(&topic, &topic.partition(place.partition)?)?;
            let identity = partition.identity();
            let position = if is_dry_run {
                partition.resolve(to, FetchIsolation::Visible, self.clock())?
            } else {
                partition.resolve_for_group(to, self.clock())?
            };
            let committed = groups.store.committed(&id, identity);
            moves.push((identity, position));
            resets.push(GroupReset {
                partition: TopicPartition::clone(partition.place()),
                from: committed.map(|committed| Cursor::new(identity, committed.position)),
                to: Cursor::new(identity, position),
            });
        }
        if moves.is_empty() {
            return Err(Error::NothingToRead);
        }
        if !is_dry_run {
            self.set_positions(&groups, &id, &moves)?;
            tracing::info!(group, partition_count = moves.len(), "reset a group");
        }
        Ok(resets)
    }

    pub(super) fn delete_group(&self, group: &str) -> Result<()> {
        let id = group_id(group)?;
        self.check_writable()?;
        let groups = self.groups()?;
        let receipt = groups.store.delete_group(&id)?;
        groups.receipt(receipt).wait()?;
        tracing::info!(group, "deleted a group");
        Ok(())
    }

    fn set_positions(
        &self,
        groups: &Groups,
        group: &GroupId,
        positions: &[(PartitionIdentity, Position)],
    ) -> Result<()> {
        let commits: Vec<_> = positions
            .iter()
            .map(|(partition, position)| Commit {
                partition: *partition,
                position: *position,
                metadata: "",
                may_go_back: true,
            })
            .collect();
        groups.receipt(groups.store.set_positions(group, &commits)?).wait()
    }

    fn open_by_identity(&self, identity: PartitionIdentity) -> Result<Option<OpenPartition>> {
        let Some(topic) = self.topic_by_id(identity.topic_id) else { return Ok(None) };
        OpenPartition::new(&topic, &topic.partition(identity.partition)?).map(Some)
    }

    fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

/// The group of this name, which need not exist.
pub(crate) fn group_id(name: &str) -> Result<GroupId> {
    GroupId::try_new(name).map_err(|error| Error::invalid_group_id(name, error))
}
