//! What a consumer reads and where it is: the partitions, their turns, and what is committed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_groups::coordinator::Assigned;
use tailwater_groups::{Commit, GroupId, Position};
use tailwater_log::{FetchLimits, Signal};

use super::assigned::{AssignedPartition, Place};
use super::membership::Membership;
use super::records::{Chunk, Records};
use super::selection::Selection;
use super::{AutoCommit, ConsumerOptions, Cursor, Event, Lag, Reset, SeekTo};
use crate::broker::TopicSet;
use crate::receipt::Receipt;
use crate::{Error, Result, TopicPartition};

/// How often a consumer of a broker that is attached read-only looks whether topics came or went.
const ATTACHED_CATALOG_LOOK: Duration = Duration::from_millis(500);

/// How long such a consumer waits for the catalog to say that a topic is gone whose files are: it is changed after them.
const DELETION_GRACE: Duration = Duration::from_secs(2);

/// A commit that is to be made: which partition, where, and a text.
pub(super) struct NewCommit<'m> {
    index: usize,
    position: Position,
    metadata: &'m str,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: ConsumerOptions,
    pub(super) membership: Option<Membership>,
    /// What a reader, or a member that has its group for itself, reads. A group says itself what its members read.
    chosen: Selection,
    /// In the order of topics as they were asked for, or of their names, then by number.
    pub(super) partitions: Vec<AssignedPartition>,
    /// Which of them has the next turn.
    turn: usize,
    /// Which of them was looked up last: who goes through all of them in order finds each at once.
    last_found: Cell<usize>,
    /// The set of topics that the assignment was made for.
    seen: Arc<TopicSet>,
    last_catalog_look: Instant,
    /// When files were first found missing, if they still were at the last poll.
    missing_since: Option<Instant>,
    /// Whether there was a poll: the listener is told of nothing before.
    pub(super) has_polled: bool,
    /// Whether the listener knows of all that is assigned.
    pub(super) is_announced: bool,
    /// Whether polls, if they are to commit, have something to commit.
    due: Due,
    /// An error that is told by the next poll, since this one had something to tell that is told once, too.
    untold: Option<Error>,
    /// Whether the error that the last poll answered is not there any more: the next one does not find it.
    has_passed: bool,
}

/// What was handed out and is not committed yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Nothing,
    /// The next poll commits it.
    NextPoll,
    /// A commit of it was refused, and that was told. It is part of the next one, or of that of `close`.
    NextHandOut,
}

/// What was fetched of a partition, and what there was before.
struct FetchedPart {
    index: usize,
    before: Place,
    events: Vec<Event>,
    /// `None` if all of it had expired.
    chunk: Option<Chunk>,
}

impl State {
    /// Joins the group, if there is one: to share `chosen` with its other members, or to have it alone.
    pub(super) fn new(
        mut options: ConsumerOptions,
        mut chosen: Selection,
        is_shared: bool,
        signal: &Arc<Signal>,
    ) -> Result<Self> {
        if chosen.is_empty() {
            return Err(Error::NothingToRead);
        }
        let membership = match options.group.clone() {
            None => None,
            Some(group) => Some(Membership::join(&group, &mut options, &chosen, is_shared, signal)?),
        };
        let seen = options.broker.topic_set();
        chosen.take_up(&seen);
        let mut state = Self {
            options,
            membership,
            chosen,
            partitions: Vec::new(),
            turn: 0,
            last_found: Cell::new(0),
            seen,
            last_catalog_look: Instant::now(),
            missing_since: None,
            has_polled: false,
            is_announced: true,
            due: Due::Nothing,
            untold: None,
            has_passed: false,
        };
        if state.is_shared() {
            match state.follow_group(signal, &mut Vec::new())? {
                None => {}
                Some(error) => return Err(error),
            }
        } else {
            state.add_partitions(signal, true)?;
        }
        Ok(state)
    }

    fn is_shared(&self) -> bool {
        self.membership.as_ref().is_some_and(Membership::is_shared)
    }

    /// Reads partitions in turn, until there is enough. `None` if there is neither a record nor an event.
    pub(super) fn poll(&mut self, signal: &Arc<Signal>) -> Result<Option<Records>> {
        self.has_polled = true;
        self.has_passed = self.untold.is_some();
        if let Some(error) = self.untold.take() {
            return Err(error);
        }
        let mut records = Records::default();
        // Before the group is asked: what is committed need not be given back.
        let committed = self.commit_handed_out(Due::NextPoll);
        let followed = if self.is_shared() {
            self.follow_group(signal, &mut records.events)
        } else {
            // It is tried again at each poll, and what is read already goes on.
            Ok(self.follow_topics(signal, &mut records.events).err())
        };
        let mut first_error = match (committed, followed) {
            (Ok(()), Ok(error)) => error,
            (Err(error), Ok(_)) | (Ok(()), Err(error)) if !records.events.is_empty() => {
                // What there is to tell is told now or never.
                self.untold = Some(error);
                None
            }
            (Err(error), followed) => {
                self.untold = followed.err();
                return self.answer(error, is_of_lost_partition);
            }
            (Ok(()), Err(error)) => return self.answer(error, |error| !is_of_lost_member(error)),
        };
        let parts = self.fetch(signal, &mut first_error, &mut records.events);
        self.hand_out(parts, &mut records)?;
        match first_error {
            Some(error) if records.is_empty() && records.events.is_empty() => self.explain(error, signal),
            _ => {
                self.missing_since = None;
                Ok((!records.is_empty() || !records.events.is_empty()).then_some(records))
            }
        }
    }

    /// The error of a poll that reads nothing.
    fn answer(&mut self, error: Error, has_passed: impl Fn(&Error) -> bool) -> Result<Option<Records>> {
        self.hand_out(Vec::new(), &mut Records::default())?;
        self.has_passed = has_passed(&error);
        Err(error)
    }

    /// Whether the error that the last poll answered is not there any more.
    #[cfg(feature = "async")]
    pub(super) fn has_passed(&self) -> bool {
        self.has_passed
    }

    /// Fetches from the partitions in turn. Events of those that have no records go to `events`.
    fn fetch(
        &mut self,
        signal: &Arc<Signal>,
        first_error: &mut Option<Error>,
        events: &mut Vec<Event>,
    ) -> Vec<FetchedPart> {
        let mut parts = Vec::new();
        let (mut record_count, mut size_bytes) = (0, 0);
        let partition_count = self.partitions.len();
        let first = if self.turn < partition_count { self.turn } else { 0 };
        for index in (first..partition_count).chain(0..first) {
            let partition = &mut self.partitions[index];
            if partition.is_paused {
                continue;
            }
            let limits = FetchLimits {
                max_records: self.options.max_records - record_count,
                max_bytes: self.options.max_bytes - size_bytes,
            };
            let before = partition.reading_place();
            let mut told = Vec::new();
            let mut has_passed_over = false;
            let fetched =
                partition.fetch_live(signal, limits, &self.options, &mut told, &mut has_passed_over);
            let fetched = match fetched {
                Ok(Some(fetched)) => fetched,
                nothing => {
                    match nothing {
                        // Its files are about to go. That is told once they have, or it is read on if the deletion fails.
                        Err(_) if partition.open.topic.is_deleted() => {}
                        // It stalls this partition alone; if there is nothing else, it is told.
                        Err(error) => drop(first_error.get_or_insert(error)),
                        Ok(_) => {}
                    }
                    if has_passed_over {
                        parts.push(FetchedPart { index, before, events: told, chunk: None });
                    } else {
                        events.append(&mut told);
                    }
                    continue;
                }
            };
            self.turn = (index + 1) % partition_count;
            size_bytes +=
                fetched.batches().iter().map(|batch| u64::from(batch.header().length_bytes)).sum::<u64>();
            // Bounded by what was asked for.
            record_count += u32::try_from(fetched.record_count()).unwrap_or(u32::MAX);
            let place = Arc::clone(partition.place());
            let chunk = Chunk { place, identity: partition.open.identity(), fetched };
            parts.push(FetchedPart { index, before, events: told, chunk: Some(chunk) });
            if record_count >= self.options.max_records || size_bytes >= self.options.max_bytes {
                break;
            }
        }
        parts
    }

    /// Hands out what was fetched, where the partition is still the member's: one that the group has taken back meanwhile
    /// is as it was before.
    fn hand_out(&mut self, parts: Vec<FetchedPart>, records: &mut Records) -> Result<()> {
        let may = match self.membership.as_ref().filter(|membership| membership.is_shared()) {
            None => None,
            Some(membership) => {
                let next = |part: &FetchedPart| {
                    let partition = &self.partitions[part.index];
                    (partition.open.identity(), partition.position.offset)
                };
                let deliveries: Vec<_> = parts.iter().map(next).collect();
                Some(membership.member.deliver(&deliveries)?)
            }
        };
        for (number, part) in parts.into_iter().enumerate() {
            if may.as_ref().is_none_or(|may| may[number]) {
                self.due = Due::NextPoll;
                records.events.extend(part.events);
                records.chunks.extend(part.chunk);
            } else {
                self.partitions[part.index].go_back(part.before);
            }
        }
        Ok(())
    }

    /// Commits what earlier polls have returned, if polls are to do that and it is due by now. Not waited for.
    fn commit_handed_out(&mut self, by: Due) -> Result<()> {
        if self.options.auto_commit != AutoCommit::OnNextPoll || self.due == Due::Nothing || self.due > by {
            return Ok(());
        }
        let commits = self.uncommitted();
        let committed = self.commit(&commits).map(drop);
        self.due = match &committed {
            Ok(()) => Due::Nothing,
            // Nothing of the set was committed. The group says which partitions are lost, and the others go on.
            Err(error) if is_of_lost_partition(error) => Due::NextPoll,
            Err(_) => Due::NextHandOut,
        };
        committed
    }

    /// Notes that a poll ends with nothing: from here on the member is looked after.
    pub(super) fn end_poll(&mut self) -> Result<()> {
        self.hand_out(Vec::new(), &mut Records::default())
    }

    /// How long the consumer may sleep at most, if its group has a deadline.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.membership.as_ref().filter(|membership| membership.is_shared())?.member.wait()
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
        self.chosen.follow(&present, events);
        self.partitions.retain(|partition| present.by_id(partition.open.topic.id).is_some());
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
        match &self.membership {
            Some(membership) => {
                let has_met = |partition: &AssignedPartition| {
                    membership.groups.store().has_met(membership.member.group(), partition.open.topic.id)
                };
                let came = |partition: &AssignedPartition| Assigned {
                    partition: partition.open.identity(),
                    came_later: !is_first || has_met(partition),
                };
                let came: Vec<_> = added.iter().map(came).collect();
                let found = membership.find_starts(&came, &added, &self.options)?;
                membership.begin(&mut added, &found)?;
            }
            None => {
                // Partitions that came later are read from their start, so that nothing is missed.
                let reset = if is_first { self.options.reset } else { Reset::Earliest };
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
            let found = self.look_up(|known| known.open.identity() == cursor.identity());
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
            membership.prepare(partition, commit.position.offset)?;
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
        Ok(Lag::new(done.offset, partition.open.visible_end(self.options.isolation)?))
    }

    /// What the store says: an administrator may have changed it.
    fn committed_position(&self, partition: &AssignedPartition) -> Option<Position> {
        let membership = self.membership.as_ref()?;
        membership.member.committed(partition.open.identity()).map(|committed| committed.position)
    }

    /// Commits what was handed out, if polls are to do that, lets the listener commit, and leaves the group once what was
    /// committed is durable.
    pub(super) fn close(mut self) -> Result<()> {
        let mut committed = self.commit_handed_out(Due::NextHandOut);
        let given_up = self.let_go_of_gone();
        if committed.as_ref().is_err_and(is_of_lost_partition) {
            let rest = self.commit_handed_out(Due::NextHandOut);
            committed = committed.and(rest);
        }
        let listened = self.announce_closing(given_up);
        let synced = self.membership.as_ref().map_or(Ok(()), Membership::sync);
        committed.and(listened).and(synced)
    }

    fn find(&self, place: &TopicPartition) -> Result<usize> {
        let is_it = |known: &AssignedPartition| {
            known.place().partition == place.partition
                && known.place().topic.eq_ignore_ascii_case(&place.topic)
        };
        let found = self.look_up(is_it);
        found.ok_or_else(|| Error::NotAssigned { partition: place.to_string().into() })
    }

    fn look_up(&self, is_it: impl Fn(&AssignedPartition) -> bool) -> Option<usize> {
        let count = self.partitions.len();
        let first = self.last_found.get().min(count);
        let found = (first..count).chain(0..first).find(|index| is_it(&self.partitions[*index]))?;
        self.last_found.set(found);
        Some(found)
    }
}

/// Whether a set of commits was refused for a partition that is not the member's any more.
pub(super) fn is_of_lost_partition(error: &Error) -> bool {
    matches!(error, Error::FencedMemberEpoch { partition: Some(_), .. })
}

/// Whether the consumer is no member any more.
fn is_of_lost_member(error: &Error) -> bool {
    matches!(error, Error::FencedMemberEpoch { partition: None, .. })
}

pub(super) fn no_committed_offset(partition: &AssignedPartition, group: Option<&GroupId>) -> Error {
    let reader = group.map_or_else(|| "a reader".into(), |group| format!("group {group}").into());
    Error::NoCommittedOffset { reader, partition: Arc::clone(partition.place()) }
}

/// Names the partition of a commit that was refused.
pub(super) fn explain_commit(error: tailwater_groups::Error, partitions: &[AssignedPartition]) -> Error {
    match error {
        tailwater_groups::Error::CommitBackwards { partition, committed, requested } => {
            let known = partitions.iter().find(|known| known.open.identity() == *partition);
            let partition = known.map(|known| Arc::clone(known.place()));
            Error::CommitBackwards { partition, committed, requested }
        }
        tailwater_groups::Error::FencedMemberEpoch { group, partition, .. } => {
            let partition = partition.and_then(|fenced| {
                let known = partitions.iter().find(|known| known.open.identity() == *fenced);
                known.map(|known| Arc::clone(known.place()))
            });
            Error::FencedMemberEpoch { group: group.as_str().into(), partition }
        }
        other => other.into(),
    }
}
