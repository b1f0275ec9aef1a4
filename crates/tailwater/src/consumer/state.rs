//! What a consumer reads and where it is: the partitions, their turns, and what is committed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_groups::{Commit, GroupId, GroupKind, GroupLifetime, Member, Position};
use tailwater_log::{FetchLimits, PartitionId, PartitionIdentity, Signal};

use super::assigned::AssignedPartition;
use super::records::{Chunk, Records};
use super::{ConsumerOptions, Cursor, Event, Lag, Reset, SeekTo};
use crate::broker::{Groups, Topic, TopicSet, group_id};
use crate::receipt::Receipt;
use crate::{Error, Result, TopicPartition};

/// How often a consumer of a broker that is attached read-only looks whether topics came or went.
const ATTACHED_CATALOG_LOOK: Duration = Duration::from_millis(500);

/// How long such a consumer waits for the catalog to say that a topic is gone whose files are: it is changed after them.
const DELETION_GRACE: Duration = Duration::from_secs(2);

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// By topic: its partitions, or all of them, later ones too.
    topics: Vec<(Arc<Topic>, Option<Vec<PartitionId>>)>,
}

impl Selection {
    /// All partitions of a topic. One that is named twice is read once.
    pub(super) fn add_topic(&mut self, topic: Arc<Topic>) {
        if !self.topics.iter().any(|(known, _)| known.id == topic.id) {
            self.topics.push((topic, None));
        }
    }

    pub(super) fn add_partition(&mut self, topic: Arc<Topic>, partition: PartitionId) {
        match self.topics.iter_mut().find(|(known, _)| known.id == topic.id) {
            Some((_, Some(partitions))) if partitions.contains(&partition) => {}
            Some((_, Some(partitions))) => partitions.push(partition),
            Some((_, None)) => {}
            None => self.topics.push((topic, Some(vec![partition]))),
        }
    }
}

/// A group that a consumer is a member of.
#[derive(Debug)]
struct Membership {
    member: Member,
    groups: Arc<Groups>,
    /// Whether something was committed that may not be durable yet.
    has_committed: bool,
}

impl Membership {
    /// Whether what the group has committed in a partition is durable, or nothing is committed.
    fn is_durable(&self, partition: PartitionIdentity) -> bool {
        let store = self.groups.store();
        let committed = store.committed(self.member.group(), partition);
        committed.is_none_or(|committed| store.is_durable(&committed))
    }
}

/// A commit that is to be made: which partition, where, and a text.
pub(super) struct NewCommit<'m> {
    index: usize,
    position: Position,
    metadata: &'m str,
}

#[derive(Debug)]
pub(super) struct State {
    options: ConsumerOptions,
    membership: Option<Membership>,
    chosen: Selection,
    /// Ordered by topic as it was asked for, then by number.
    partitions: Vec<AssignedPartition>,
    /// Which of them has the next turn.
    turn: usize,
    /// The set of topics that the assignment was made for.
    seen: Arc<TopicSet>,
    last_catalog_look: Instant,
    /// When files were first found missing, if they still were at the last poll.
    missing_since: Option<Instant>,
}

impl State {
    pub(super) fn new(options: ConsumerOptions, chosen: Selection, signal: &Arc<Signal>) -> Result<Self> {
        if chosen.topics.is_empty() {
            return Err(Error::NothingToRead);
        }
        let broker = &options.broker;
        let membership = match &options.group {
            None => None,
            Some(group) => {
                if broker.is_read_only() {
                    return Err(Error::ReadOnly);
                }
                let group = group_id(group)?;
                let groups = broker.groups()?;
                let member =
                    groups.store().join_exclusively(&group, GroupKind::Consumer, GroupLifetime::Lasting)?;
                Some(Membership { member, groups, has_committed: false })
            }
        };
        let seen = broker.topic_set();
        let mut state = Self {
            options,
            membership,
            chosen,
            partitions: Vec::new(),
            turn: 0,
            seen,
            last_catalog_look: Instant::now(),
            missing_since: None,
        };
        state.add_partitions(signal, true)?;
        Ok(state)
    }

    /// Reads partitions in turn, until there is enough. `None` if there is neither a record nor an event.
    pub(super) fn poll(&mut self, signal: &Arc<Signal>) -> Result<Option<Records>> {
        let mut records = Records::default();
        // It is tried again at each poll, and what is read already goes on.
        let mut first_error = self.follow_topics(signal, &mut records.events).err();
        let (mut record_count, mut size_bytes) = (0, 0);
        let (first, partition_count) = (self.turn, self.partitions.len());
        for index in (first..partition_count).chain(0..first) {
            let partition = &mut self.partitions[index];
            if partition.is_paused {
                continue;
            }
            let limits = FetchLimits {
                max_records: self.options.max_records - record_count,
                max_bytes: self.options.max_bytes - size_bytes,
            };
            let fetched = match partition.fetch(signal, limits, &self.options, &mut records.events) {
                Ok(None) => continue,
                Ok(Some(fetched)) => fetched,
                Err(error) => {
                    // It stalls this partition alone; if there is nothing else, it is told.
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            self.turn = (index + 1) % partition_count;
            // Bounded by what was asked for.
            record_count += u32::try_from(fetched.record_count()).unwrap_or(u32::MAX);
            size_bytes +=
                fetched.batches().iter().map(|batch| u64::from(batch.header().length_bytes)).sum::<u64>();
            records.chunks.push(Chunk {
                place: Arc::clone(partition.place()),
                identity: partition.open.identity(),
                fetched,
            });
            if record_count >= self.options.max_records || size_bytes >= self.options.max_bytes {
                break;
            }
        }
        match first_error {
            Some(error) if records.is_empty() && records.events.is_empty() => self.explain(error, signal),
            _ => {
                self.missing_since = None;
                Ok((!records.is_empty() || !records.events.is_empty()).then_some(records))
            }
        }
    }

    /// What to answer to an error. Where another process writes, the topic may have been deleted since the last look at
    /// the catalog; or it is being deleted just now, and its files went first.
    fn explain(&mut self, error: Error, signal: &Arc<Signal>) -> Result<Option<Records>> {
        if !self.options.broker.is_read_only() {
            return Err(error);
        }
        self.options.broker.refresh_if_attached()?;
        let mut records = Records::default();
        self.follow_topics(signal, &mut records.events)?;
        if !records.events.is_empty() {
            self.missing_since = None;
            return Ok(Some(records));
        }
        if !matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound) {
            return Err(error);
        }
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < DELETION_GRACE { Ok(None) } else { Err(error) }
    }

    /// Takes over what became of the topics since the last look.
    fn follow_topics(&mut self, signal: &Arc<Signal>, events: &mut Vec<Event>) -> Result<()> {
        let broker = &self.options.broker;
        if broker.is_read_only() && self.last_catalog_look.elapsed() >= ATTACHED_CATALOG_LOOK {
            self.last_catalog_look = Instant::now();
            broker.refresh_if_attached()?;
        }
        let present = broker.topic_set();
        if Arc::ptr_eq(&present, &self.seen) {
            return Ok(());
        }
        self.chosen.topics.retain(|(topic, _)| {
            let is_there = present.by_id(topic.id).is_some();
            if !is_there {
                events.push(Event::TopicDeleted { topic: Arc::clone(&topic.name) });
            }
            is_there
        });
        self.partitions.retain(|partition| present.by_id(partition.open.topic.id).is_some());
        if self.turn >= self.partitions.len() {
            self.turn = 0;
        }
        self.add_partitions(signal, false)?;
        self.seen = present;
        Ok(())
    }

    /// Assigns the partitions that were chosen and are not assigned yet, and finds out where to start in each.
    fn add_partitions(&mut self, signal: &Arc<Signal>, is_first: bool) -> Result<()> {
        let mut added = Vec::new();
        for (topic, numbers) in &self.chosen.topics {
            let known: Vec<_> =
                self.partitions.iter().filter(|known| known.open.topic.id == topic.id).collect();
            for lazy in topic.partitions().iter() {
                let number = lazy.place().partition;
                let is_chosen = numbers.as_ref().is_none_or(|numbers| numbers.contains(&number));
                if is_chosen && !known.iter().any(|known| known.place().partition == number) {
                    added.push(AssignedPartition::new(topic, lazy, signal, self.options.isolation)?);
                }
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        // Partitions that came later are read from their start, so that nothing is missed.
        let reset = if is_first { self.options.reset } else { Reset::Earliest };
        match &self.membership {
            Some(membership) => first_contact(membership, reset, &mut added, &self.options)?,
            None => {
                for partition in &mut added {
                    let place = reset.place().ok_or_else(|| no_committed_offset(partition, None))?;
                    let clock = self.options.broker.clock();
                    partition.seek(place, self.options.isolation, clock)?;
                }
            }
        }
        self.partitions.append(&mut added);
        let order: BTreeMap<_, _> =
            self.chosen.topics.iter().enumerate().map(|(rank, (topic, _))| (topic.id, rank)).collect();
        self.partitions
            .sort_by_key(|known| (order.get(&known.open.topic.id).copied(), known.place().partition));
        Ok(())
    }

    /// All positions that are not committed.
    pub(super) fn uncommitted(&self) -> Vec<NewCommit<'static>> {
        let moved = |known: &AssignedPartition| {
            known.committed != Some(known.position) && !known.open.topic.is_deleted()
        };
        let moved = self.partitions.iter().enumerate().filter(|(_, known)| moved(known));
        moved.map(|(index, known)| NewCommit { index, position: known.position, metadata: "" }).collect()
    }

    /// These places as commits.
    pub(super) fn chosen_commits<'m>(&self, cursors: &[(Cursor, &'m str)]) -> Result<Vec<NewCommit<'m>>> {
        let commit = |(cursor, metadata): &(Cursor, &'m str)| {
            let found = self.partitions.iter().position(|known| known.open.identity() == cursor.identity());
            let index = found.ok_or_else(|| Error::NotAssigned { partition: cursor.to_string().into() })?;
            Ok(NewCommit { index, position: cursor.position(), metadata })
        };
        cursors.iter().map(commit).collect()
    }

    pub(super) fn commit(&mut self, commits: &[NewCommit<'_>]) -> Result<Receipt<()>> {
        self.options.broker.check_open()?;
        let Some(membership) = &mut self.membership else { return Err(Error::NoGroup) };
        if commits.is_empty() {
            // What was committed before may not be durable: nobody waited for it, or it failed.
            let is_durable = self.partitions.iter().all(|known| membership.is_durable(known.open.identity()));
            return Ok(if is_durable {
                Receipt::done(Ok(()))
            } else {
                Receipt::flush(self.options.broker.flush(vec![Arc::clone(membership.groups.lazy())]))
            });
        }
        let mut entries = Vec::with_capacity(commits.len());
        for commit in commits {
            let partition = &self.partitions[commit.index];
            partition.open.make_durable(commit.position.offset)?;
            entries.push(Commit {
                partition: partition.open.identity(),
                position: commit.position,
                metadata: commit.metadata,
                may_go_back: partition.has_sought,
            });
        }
        let committed = membership.member.commit(&entries);
        let receipt = committed.map_err(|error| explain_commit(error, &self.partitions))?;
        membership.has_committed = true;
        for commit in commits {
            let partition = &mut self.partitions[commit.index];
            partition.committed = Some(commit.position);
            partition.has_sought = false;
        }
        Ok(membership.groups.receipt_of_member(receipt))
    }

    pub(super) fn seek(&mut self, place: &TopicPartition, to: SeekTo) -> Result<()> {
        let index = self.find(place)?;
        let partition = &mut self.partitions[index];
        partition.seek(to, self.options.isolation, self.options.broker.clock())?;
        partition.has_sought = true;
        Ok(())
    }

    pub(super) fn set_paused(&mut self, places: &[TopicPartition], is_paused: bool) -> Result<()> {
        let indexes: Vec<_> = places.iter().map(|place| self.find(place)).collect::<Result<_>>()?;
        for index in indexes {
            self.partitions[index].is_paused = is_paused;
        }
        Ok(())
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let mut places: Vec<_> =
            self.partitions.iter().map(|known| TopicPartition::clone(known.place())).collect();
        places.sort_unstable();
        places
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.membership.as_ref().map(|membership| membership.member.group().as_str())
    }

    pub(super) fn position(&self, place: &TopicPartition) -> Result<Cursor> {
        let partition = &self.partitions[self.find(place)?];
        Ok(Cursor::new(partition.open.identity(), partition.position))
    }

    pub(super) fn committed(&self, place: &TopicPartition) -> Result<Option<Cursor>> {
        let partition = &self.partitions[self.find(place)?];
        Ok(self
            .committed_position(partition)
            .map(|position| Cursor::new(partition.open.identity(), position)))
    }

    pub(super) fn lag(&self, place: &TopicPartition) -> Result<Lag> {
        let partition = &self.partitions[self.find(place)?];
        let done = self.committed_position(partition).unwrap_or(partition.position);
        Ok(Lag::new(done.offset, partition.open.log.visible_end(self.options.isolation)))
    }

    /// What the store says: an administrator may have changed it.
    fn committed_position(&self, partition: &AssignedPartition) -> Option<Position> {
        let membership = self.membership.as_ref()?;
        let committed =
            membership.groups.store().committed(membership.member.group(), partition.open.identity());
        committed.map(|committed| committed.position)
    }

    /// Leaves the group once what was committed is durable.
    pub(super) fn close(self) -> Result<()> {
        match &self.membership {
            Some(membership) if membership.has_committed => membership.groups.sync(),
            _ => Ok(()),
        }
    }

    fn find(&self, place: &TopicPartition) -> Result<usize> {
        let is_it = |known: &AssignedPartition| {
            known.place().partition == place.partition
                && known.place().topic.eq_ignore_ascii_case(&place.topic)
        };
        let found = self.partitions.iter().position(is_it);
        found.ok_or_else(|| Error::NotAssigned { partition: place.to_string().into() })
    }
}

/// Finds out where a group starts in partitions that are new to this member. Where it has never been, what `reset` says
/// is committed, for all of them at once, before a record is handed out.
fn first_contact(
    membership: &Membership,
    reset: Reset,
    added: &mut [AssignedPartition],
    options: &ConsumerOptions,
) -> Result<()> {
    let (store, group) = (membership.groups.store(), membership.member.group());
    let mut commits = Vec::new();
    let mut is_durable = true;
    for partition in added.iter_mut() {
        let identity = partition.open.identity();
        let position = match store.committed(group, identity) {
            Some(committed) => {
                is_durable &= store.is_durable(&committed);
                committed.position
            }
            None => {
                // A partition that was added to a topic which the group knows.
                let reset = if store.has_met(group, identity.topic_id) { Reset::Earliest } else { reset };
                let place = reset.place().ok_or_else(|| no_committed_offset(partition, Some(group)))?;
                let position = partition.open.resolve_for_group(place, options.broker.clock())?;
                commits.push(Commit { partition: identity, position, metadata: "", may_go_back: false });
                position
            }
        };
        partition.go_to(position);
        partition.committed = Some(position);
    }
    if !commits.is_empty() {
        let receipt = membership.member.commit(&commits).map_err(|error| explain_commit(error, added))?;
        membership.groups.receipt_of_member(receipt).wait()?;
    } else if !is_durable {
        // An attempt before this one may have failed half-way: a group that starts anew would start elsewhere.
        membership.groups.sync()?;
    }
    Ok(())
}

fn no_committed_offset(partition: &AssignedPartition, group: Option<&GroupId>) -> Error {
    let reader = group.map_or_else(|| "a reader".into(), |group| format!("group {group}").into());
    Error::NoCommittedOffset { reader, partition: Arc::clone(partition.place()) }
}

/// Names the partition of a commit that was refused.
fn explain_commit(error: tailwater_groups::Error, partitions: &[AssignedPartition]) -> Error {
    match error {
        tailwater_groups::Error::CommitBackwards { partition, committed, requested } => {
            let known = partitions.iter().find(|known| known.open.identity() == *partition);
            let partition = known.map(|known| Arc::clone(known.place()));
            Error::CommitBackwards { partition, committed, requested }
        }
        other => other.into(),
    }
}
