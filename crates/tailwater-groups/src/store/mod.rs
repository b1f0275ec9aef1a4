//! Groups and their committed positions, kept in one log.
//!
//! - State in memory changes in the order in which the log was appended to: one lock is held around both.
//! - Lock order: rewriting, appending, the registry of the groups with members, one such group, table. Appending is held
//!   during I/O; the others never are, but for reading (the table, by a rewrite), so that no reader and nobody who polls,
//!   delivers or leaves waits for the disk.
//! - Whether a member owns what it commits is looked at with appending held, and whoever takes a partition over reads what
//!   is committed with appending held: it sees every commit of the one before it.
//! - What was appended is committed: readers in this process see it before it is durable.
//! - Where a group starts in a partition is found out once, and noted before anything that can fail: what a member noted and
//!   did not come to commit, the next one commits.

mod append;
mod member;
mod rewrite;
mod starts;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tailwater_log::{Clock, Log, Offset, PartitionIdentity, Receipt, RecoveryOutcome, Signal, TopicId};

pub use member::{Member, Start};
pub use rewrite::{REWRITE_MIN_RECORDS, REWRITE_RECORDS_PER_ENTRY};
use starts::LastingStarts;
pub(crate) use starts::Starts;

use crate::clock::{MonotonicClock, SystemMonotonicClock};
use crate::coordinator::{Coordinator, JoinError, MemberId, MemberSpec, Topics};
use crate::format::{Entry, Registration};
use crate::members::{GroupTerms, LiveGroup, Members, Refusal};
use crate::replay::{self, Cursor, News};
use crate::table::{Group, PartitionKey, Table, key_of, partition_of};
use crate::{
    Commit, Committed, Error, GroupId, GroupKind, GroupLifetime, GroupListing, GroupMembers, Position, Result,
};

/// The groups of a directory of topics, in a log of their own.
///
/// `Clone + Send + Sync`: clones are handles to the same store. There is one store for a log in a process, and nothing
/// else appends to that log. Reads never wait for the disk. See the [crate] for an example.
#[derive(Clone)]
pub struct GroupStore {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    clock: Arc<dyn Clock>,
    monotonic: Arc<dyn MonotonicClock>,
    is_read_only: bool,
    table: RwLock<Table>,
    members: Members,
    starts: LastingStarts,
    /// Held around every append and what it changes in `table`: how much of the log the table has.
    appending: Mutex<Cursor>,
    /// Held by a rewrite.
    rewriting: Mutex<()>,
}

impl GroupStore {
    /// Reads the groups that `log` holds. Nothing is written. Of a log that was attached read-only, what is recorded as
    /// durable is shown: the groups as they were a moment ago.
    ///
    /// The log should be one whose durability is `Durable`, the default.
    ///
    /// # Errors
    ///
    /// A log that cannot be read as a whole is an error, never a store without the positions it holds:
    /// - [`Error::Log`] if it is damaged, or the disk fails.
    /// - [`Error::DamagedEntry`], [`Error::UnsupportedEntry`] for an entry that cannot be read.
    /// - [`Error::IncompleteLog`] if its first entries are missing.
    /// - [`Error::RecoveryPending`] for an attached log whose writer has died, or recovers it just now, if less is shown
    ///   than the last rewrite put there.
    pub fn open(log: Log, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with_monotonic(log, clock, Arc::new(SystemMonotonicClock::default()))
    }

    /// As [`open`](GroupStore::open), with another clock for the deadlines of members.
    ///
    /// # Errors
    ///
    /// As [`open`](GroupStore::open).
    pub fn open_with_monotonic(
        log: Log,
        clock: Arc<dyn Clock>,
        monotonic: Arc<dyn MonotonicClock>,
    ) -> Result<Self> {
        let report = log.recovery_report();
        if let Some(corruption) = &report.corruption {
            return Err(corruption.clone().into());
        }
        let is_read_only = report.outcome == RecoveryOutcome::Attached;
        let (cursor, table) =
            if is_read_only { replay::replay_attached(&log)? } else { replay::replay_own(&log)? };
        let inner = Inner {
            log,
            clock,
            monotonic,
            is_read_only,
            table: RwLock::new(table),
            members: Members::default(),
            starts: LastingStarts::default(),
            appending: Mutex::new(cursor),
            rewriting: Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads what another process has appended to an attached log since; also after it has rewritten the log, or begun a
    /// new history. Does nothing for a log that this process writes.
    ///
    /// # Errors
    ///
    /// As [`GroupStore::open`]. The store then shows what it did before.
    pub fn refresh(&self) -> Result<()> {
        if !self.inner.is_read_only {
            return Ok(());
        }
        let log = &self.inner.log;
        let mut cursor = self.inner.lock_appending();
        loop {
            let durable = log.durable_offset();
            match cursor.fetch(log) {
                Ok(News::Entries(fetched)) => {
                    cursor.apply(&fetched, &mut self.inner.write_table(), durable)?;
                }
                Ok(News::None) => return Ok(()),
                Ok(News::StartOver) => break,
                // Removed while it was read, by a rewrite: what it was rewritten to is found from the start.
                Err(Error::Log(_)) => break,
                Err(error) => return Err(error),
            }
        }
        match replay::replay_attached(log) {
            Ok((new_cursor, new_table)) if new_cursor.next() >= cursor.next() => {
                *cursor = new_cursor;
                *self.inner.write_table() = new_table;
                Ok(())
            }
            // While the writer recovers the log, less is shown for a moment. What was durable is so still.
            Ok(_) | Err(Error::RecoveryPending { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells all groups, those too that members join later, of the topics there are. Called before the first join, and
    /// whenever topics or partitions come or go; what is no newer than what is known is ignored.
    pub fn set_topics(&self, topics: &Arc<Topics>) {
        self.inner.members.set_topics(self.inner.monotonic.now(), topics);
    }

    /// Joins a consumer group as one of its members, among which its partitions are divided. `signal` is woken when a poll
    /// has news for it. In memory only: the group is registered by its first commit.
    ///
    /// Waits for appends that are under way.
    ///
    /// # Errors
    ///
    /// - [`Error::GroupKindMismatch`], [`Error::GroupLifetimeMismatch`] if it is another group than that.
    /// - [`Error::GroupInUse`] while a member has it for itself.
    /// - [`Error::DuplicateMemberName`], [`Error::AssignorMismatch`], [`Error::UnknownTopic`].
    /// - [`Error::ReadOnly`].
    pub fn join(
        &self,
        group: &GroupId,
        spec: MemberSpec,
        lifetime: GroupLifetime,
        signal: &Arc<Signal>,
    ) -> Result<Member> {
        let now = self.inner.monotonic.now();
        let terms = GroupTerms { group, kind: GroupKind::Consumer, lifetime };
        self.enter(terms, Some(Arc::clone(signal)), |coordinator, id| {
            coordinator.join(now, id, spec, |topic| self.has_met(group, topic))
        })
    }

    /// Joins a group and has it for itself: the member may read and commit in any partition, and polls have no news.
    ///
    /// # Errors
    ///
    /// As [`join`](GroupStore::join); [`Error::GroupInUse`] if there is a member already.
    pub fn join_exclusively(
        &self,
        group: &GroupId,
        kind: GroupKind,
        lifetime: GroupLifetime,
    ) -> Result<Member> {
        let now = self.inner.monotonic.now();
        let terms = GroupTerms { group, kind, lifetime };
        self.enter(terms, None, |coordinator, id| coordinator.join_exclusively(now, id, None))
    }

    fn enter(
        &self,
        terms: GroupTerms<'_>,
        signal: Option<Arc<Signal>>,
        join: impl FnOnce(&mut Coordinator, MemberId) -> Result<(), JoinError>,
    ) -> Result<Member> {
        self.inner.check_writable()?;
        let group = terms.group;
        // No commit or reset is under way when the member arrives: what it reads first is what it can rely on.
        let appending = self.inner.lock_appending();
        let registered = self.inner.read_table().registration(group).map(|registration| registration.kind);
        let mismatch = |kind| Error::GroupKindMismatch { group: group.clone(), kind, requested: terms.kind };
        if let Some(kind) = registered.filter(|kind| *kind != terms.kind) {
            return Err(mismatch(kind));
        }
        if registered.is_some() && terms.lifetime == GroupLifetime::Ephemeral {
            return Err(Error::GroupLifetimeMismatch {
                group: group.clone(),
                lifetime: GroupLifetime::Lasting,
            });
        }
        let joined = self.inner.members.join(terms, signal, join);
        drop(appending);
        let (live, id, woken) = joined.map_err(|refusal| match refusal {
            Refusal::Kind(kind) => mismatch(kind),
            Refusal::Lifetime(lifetime) => Error::GroupLifetimeMismatch { group: group.clone(), lifetime },
            Refusal::Join(error) => Error::of_join(group, error),
        })?;
        woken.wake();
        Ok(Member::new(Arc::clone(&self.inner), group.clone(), live, id))
    }

    /// Ends the membership of a member, which need not know: its polls and commits answer [`Error::FencedMemberEpoch`] from
    /// then on, and what it had goes to the others. False if it was gone.
    pub fn evict(&self, group: &GroupId, member: MemberId) -> bool {
        let live = self.inner.members.of(group);
        live.is_some_and(|live| self.inner.members.leave(self.inner.monotonic.now(), group, &live, member))
    }

    /// The members of a group, with what they own; `None` if there are none. Looks at all of the group's partitions.
    #[must_use]
    pub fn members(&self, group: &GroupId) -> Option<GroupMembers> {
        let live = self.inner.members.of(group)?;
        Some(live.look(|state| GroupMembers {
            lifetime: live.lifetime,
            is_exclusive: state.coordinator.is_exclusive(),
            assignor: state.coordinator.assignor().filter(|_| !state.coordinator.is_exclusive()),
            group_epoch: state.coordinator.group_epoch(),
            assignment_epoch: state.coordinator.assignment_epoch(),
            members: state.coordinator.members(),
        }))
    }

    /// What the group has committed in a partition, whether it is durable yet or not.
    #[must_use]
    pub fn committed(&self, group: &GroupId, partition: PartitionIdentity) -> Option<Committed> {
        self.inner.committed(group, partition).or_else(|| {
            let live = self.inner.members.of(group)?;
            live.look(|state| state.positions.get(&key_of(partition)).cloned())
        })
    }

    /// What the group has committed in a partition as known to be durable on disk: the newest, or, while commits follow
    /// each other faster than syncs, a lower one shortly before it. Also of a group that was deleted, until that is
    /// durable.
    #[must_use]
    pub fn durable_committed(&self, group: &GroupId, partition: PartitionIdentity) -> Option<Committed> {
        let durable = self.inner.log.durable_offset();
        self.inner.read_table().group(group)?.slot(partition)?.durable(durable).cloned()
    }

    /// The lowest offset at which the group may go on in a partition after a power cut at this moment: where it is
    /// durably, or where something that is not durable yet put it back to. Retention keeps the records from there on.
    #[must_use]
    pub fn held_offset(&self, group: &GroupId, partition: PartitionIdentity) -> Option<Offset> {
        let durable = self.inner.log.durable_offset();
        self.inner.read_table().group(group)?.slot(partition)?.lowest(durable)
    }

    /// The positions in a partition of which a power cut at this moment may leave any, of the groups that `is_held_by` names:
    /// of each what [`held_offset`](GroupStore::held_offset) is the lowest offset of. Where one lies in a history that was
    /// given up, its group goes on below it. Looks at every group.
    #[must_use]
    pub fn held_positions(
        &self,
        partition: PartitionIdentity,
        is_held_by: impl Fn(&GroupId) -> bool,
    ) -> Vec<(GroupId, Position)> {
        let durable = self.inner.log.durable_offset();
        let table = self.inner.read_table();
        let held = table.possible(partition, durable, is_held_by);
        held.map(|(group, position)| (group.clone(), position)).collect()
    }

    /// Whether it is durable that this was committed.
    #[must_use]
    pub fn is_durable(&self, committed: &Committed) -> bool {
        committed.log_offset < self.inner.log.durable_offset()
    }

    /// Whether the group has a position in any partition of the topic.
    #[must_use]
    pub fn has_met(&self, group: &GroupId, topic: TopicId) -> bool {
        self.inner.read_table().group(group).is_some_and(|group| group.has_met(topic))
    }

    /// All groups that are registered or have a member, ordered by their ids.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupListing> {
        let mut present = self.inner.members.all();
        let count = |live: &LiveGroup| live.look(|state| state.coordinator.member_count() as u64);
        let mut listings: Vec<_> = {
            let table = self.inner.read_table();
            let listing = |(id, registration, group): (&GroupId, Registration, &Group)| GroupListing {
                id: id.clone(),
                kind: registration.kind,
                lifetime: GroupLifetime::Lasting,
                is_registered: true,
                member_count: 0,
                position_count: group.positions().count() as u64,
            };
            table.registered().map(listing).collect()
        };
        for listing in &mut listings {
            listing.member_count = present.remove(&listing.id).map_or(0, |live| count(&live));
        }
        listings.extend(present.into_iter().map(|(id, live)| GroupListing {
            id,
            kind: live.kind,
            lifetime: live.lifetime,
            is_registered: false,
            member_count: count(&live),
            position_count: live.look(|state| state.positions.len() as u64),
        }));
        listings.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        listings
    }

    /// All positions that the group has committed, ordered by topic id and partition.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`] if it is neither registered nor has a member.
    pub fn positions(&self, group: &GroupId) -> Result<Vec<(PartitionIdentity, Committed)>> {
        {
            let table = self.inner.read_table();
            if let Some(known) = table.group(group).filter(|known| known.registration().is_some()) {
                return Ok(known.positions().map(|(at, committed)| (at, committed.clone())).collect());
            }
        }
        let live =
            self.inner.members.of(group).ok_or_else(|| Error::UnknownGroup { group: group.clone() })?;
        let position =
            |(key, committed): (&PartitionKey, &Committed)| (partition_of(*key), committed.clone());
        Ok(live.look(|state| state.positions.iter().map(position).collect()))
    }

    /// Sets positions of a group without members, as an administrator: they may go back. A group that does not exist is
    /// made, a consumer group. All are there after a crash, or none.
    ///
    /// # Errors
    ///
    /// Nothing was changed after any of these: [`Error::GroupNotEmpty`], [`Error::EmptyCommit`],
    /// [`Error::RepeatedPartition`], [`Error::MetadataTooLong`], [`Error::ReadOnly`], [`Error::Log`].
    pub fn set_positions(&self, group: &GroupId, commits: &[Commit<'_>]) -> Result<Receipt> {
        self.inner.check_writable()?;
        append::check_set(commits)?;
        let mut cursor = self.inner.lock_appending();
        self.inner.check_empty(group)?;
        let receipt = self.inner.append_commits(&mut cursor, group, GroupKind::Consumer, commits)?;
        self.inner.starts.of(group, |starts| forget(starts, commits));
        Ok(receipt)
    }

    /// Deletes a group and all its positions. The receipt completes when that is durable.
    ///
    /// A group with so many positions that their removal takes several batches may be found with a part of them after a
    /// crash, or an error, in the middle: it still exists then, and can be deleted again.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::GroupNotEmpty`], [`Error::ReadOnly`], [`Error::Log`].
    pub fn delete_group(&self, group: &GroupId) -> Result<Receipt> {
        self.inner.check_writable()?;
        let mut cursor = self.inner.lock_appending();
        self.inner.check_empty(group)?;
        self.inner.starts.forget_group(group);
        let partitions: Vec<_> = {
            let table = self.inner.read_table();
            let known = table.group(group).filter(|known| known.registration().is_some());
            let known = known.ok_or_else(|| Error::UnknownGroup { group: group.clone() })?;
            known.positions().map(|(partition, _)| partition).collect()
        };
        let group = group.as_str();
        let positions =
            partitions.into_iter().map(|partition| Entry::Position { group, partition, value: None });
        let registration = Entry::Registration { group, value: None };
        self.inner.append_all(&mut cursor, positions, registration)
    }

    /// Forgets the positions in topics that are gone, in all groups: staged, and not waited for. Writes nothing if there
    /// are none. The groups stay.
    ///
    /// `is_gone` is called once for each topic, with no lock held; a topic that is gone never comes back.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], [`Error::Log`].
    pub fn forget_topics(&self, is_gone: impl Fn(TopicId) -> bool) -> Result<()> {
        let mut topics: BTreeSet<TopicId> = {
            let table = self.inner.read_table();
            let positions = table.registered().flat_map(|(_, _, group)| group.positions());
            positions.map(|(partition, _)| partition.topic_id).collect()
        };
        topics.extend(self.inner.starts.topics());
        let gone: BTreeSet<TopicId> = topics.into_iter().filter(|topic| is_gone(*topic)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.inner.check_writable()?;
        self.inner.starts.forget_topics(|topic| gone.contains(&topic));
        let mut cursor = self.inner.lock_appending();
        let mut forgotten: Vec<(GroupId, PartitionIdentity)> = {
            let table = self.inner.read_table();
            let of_group = |(id, _, group): (&GroupId, _, &Group)| {
                let partitions = group.positions().map(|(partition, _)| partition);
                let lost = partitions.filter(|partition| gone.contains(&partition.topic_id));
                lost.map(|partition| (id.clone(), partition)).collect::<Vec<_>>()
            };
            table.registered().flat_map(of_group).collect()
        };
        let Some((last_group, last_partition)) = forgotten.pop() else { return Ok(()) };
        let removal = |group, partition| Entry::Position { group, partition, value: None };
        let all = forgotten.iter().map(|(group, partition)| removal(group.as_str(), *partition));
        // Nobody waits: the log's own interval brings it to disk.
        self.inner.append_all(&mut cursor, all, removal(last_group.as_str(), last_partition)).map(drop)
    }

    /// The log that the groups are kept in, for syncs, maintenance and figures. Appending to it by other ways than the
    /// store's makes the store lie.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.log
    }
}

/// Forgets where a group was to start, where it has committed.
fn forget(starts: &mut Starts, commits: &[Commit<'_>]) {
    for commit in commits {
        starts.remove(&key_of(commit.partition));
    }
}

impl Inner {
    /// What the log says that a group has committed.
    fn committed(&self, group: &GroupId, partition: PartitionIdentity) -> Option<Committed> {
        self.read_table().group(group)?.committed(partition).cloned()
    }

    fn check_writable(&self) -> Result<()> {
        if self.is_read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Whether no member is there, and none can come while `appending` is held.
    fn check_empty(&self, group: &GroupId) -> Result<()> {
        match self.members.of(group) {
            Some(_) => Err(Error::GroupNotEmpty { group: group.clone() }),
            None => Ok(()),
        }
    }

    fn lock_appending(&self) -> MutexGuard<'_, Cursor> {
        // It guards an order, not a value that a panic could leave half changed.
        self.appending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_rewriting(&self) -> MutexGuard<'_, ()> {
        self.rewriting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_table(&self) -> RwLockReadGuard<'_, Table> {
        // A panic while it was written to can come from exhausted memory only; what was applied is as appended.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_table(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GroupStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupStore").field("log", &self.inner.log.directory()).finish_non_exhaustive()
    }
}

const _: () = {
    const fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<GroupStore>();
    is_shared::<Member>();
};
