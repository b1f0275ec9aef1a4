//! A consumer as the member of a group: taking partitions over, giving them up, and what the listener is told.
//!
//! - A partition is read only while it is in `partitions`, and it is there only while the group says that it is the
//!   member's. What was fetched is handed out only if that is still so ([`State::hand_out`]).
//! - Where the group has no committed offset, one is committed, durably, before a record is handed out.
//! - The listener runs with nothing locked and nothing half done: an error of it leaves a consumer that goes on.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tailwater_groups::coordinator::{Assigned, Changes, MemberSpec};
use tailwater_groups::{Commit, Committed, GroupKind, GroupLifetime, Member, Position, Start};
use tailwater_log::{FetchIsolation, Offset, PartitionIdentity, Signal};

use super::assigned::AssignedPartition;
use super::listener::{Rebalance, RebalanceListener};
use super::selection::Selection;
use super::state::{State, explain_commit, is_of_lost_partition, no_committed_offset};
use super::{ConsumerOptions, Event, SeekTo};
use crate::broker::{Groups, group_id};
use crate::{Error, Result, TopicPartition};

/// A group that a consumer is a member of.
pub(super) struct Membership {
    pub(super) member: Member,
    pub(super) groups: Arc<Groups>,
    /// Whether something was committed that may not be durable yet.
    pub(super) has_committed: bool,
    /// Of a member that shares its group with others.
    shared: Option<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Partitions that are the member's and could not be opened yet, or whose start is not committed.
    unopened: Vec<Assigned>,
    /// Partitions that are to be given up once the listener was told; left over if it panicked.
    revoking: Vec<PartitionIdentity>,
    listener: Option<Box<dyn RebalanceListener>>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("member", &self.member).finish_non_exhaustive()
    }
}

impl Membership {
    /// Joins the group, to share its partitions with others or, where partitions were chosen, to have it alone.
    pub(super) fn join(
        group: &str,
        options: &mut ConsumerOptions,
        chosen: &Selection,
        is_shared: bool,
        signal: &Arc<Signal>,
    ) -> Result<Self> {
        if options.broker.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let group = group_id(group)?;
        let groups = options.broker.groups()?;
        let lifetime = if options.is_ephemeral { GroupLifetime::Ephemeral } else { GroupLifetime::Lasting };
        let store = groups.store();
        let joined = if is_shared {
            let spec = MemberSpec {
                name: options.member_name.clone(),
                subscription: chosen.subscription(),
                assignor: options.assignor,
                revoke_timeout_ms: options.revoke_timeout_ms,
                max_poll_interval_ms: options.max_poll_interval_ms,
            };
            store.join(&group, spec, lifetime, signal)
        } else {
            store.join_exclusively(&group, GroupKind::Consumer, lifetime)
        };
        let member = joined.map_err(|error| match error {
            // It was there when it was looked up.
            tailwater_groups::Error::UnknownTopic { topic_id } => Error::UnknownTopic {
                topic: chosen.name_of(topic_id).unwrap_or_else(|| topic_id.to_string().into()),
            },
            error => error.into(),
        })?;
        let shared = is_shared.then(|| Shared { listener: options.listener.take(), ..Shared::default() });
        Ok(Self { member, groups, has_committed: false, shared })
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    fn is_lasting(&self) -> bool {
        self.member.lifetime() == GroupLifetime::Lasting
    }

    /// Whether what the group has committed in a partition is durable, as far as it ever will be, or nothing is committed.
    pub(super) fn is_durable(&self, partition: PartitionIdentity) -> bool {
        let committed = self.member.committed(partition).filter(|_| self.is_lasting());
        committed.is_none_or(|committed| self.groups.store().is_durable(&committed))
    }

    /// Makes a partition durable up to `offset`, if that is what a commit of it needs.
    pub(super) fn prepare(&self, partition: &AssignedPartition, offset: Offset) -> Result<()> {
        if self.is_lasting() { partition.open.make_durable(offset) } else { Ok(()) }
    }

    /// Makes durable what was committed.
    pub(super) fn sync(&self) -> Result<()> {
        if self.has_committed && self.is_lasting() { self.groups.sync() } else { Ok(()) }
    }

    /// Finds out where the group starts in partitions that are new to this member. What the reset policy says is noted as
    /// soon as it is known, for all members: where anything fails from here on, whoever comes next starts there too.
    pub(super) fn find_starts(
        &self,
        came: &[Assigned],
        added: &[AssignedPartition],
        options: &ConsumerOptions,
    ) -> Result<Vec<Found>> {
        let starts = self.member.starts(came).into_iter().zip(added);
        // All of them, before any error is looked at.
        let found: Vec<_> =
            starts.map(|(start, partition)| self.find_start(start, partition, options)).collect();
        found.into_iter().collect()
    }

    /// Has the member begin where that is. Where the group has never been, this is committed, for all of them at once, before
    /// a record is handed out.
    pub(super) fn begin(&self, added: &mut [AssignedPartition], found: &[Found]) -> Result<()> {
        let mut commits = Vec::new();
        let mut is_durable = true;
        for (partition, found) in added.iter_mut().zip(found) {
            match found {
                Found::Committed(committed) => {
                    is_durable &= !self.is_lasting() || self.groups.store().is_durable(committed);
                }
                Found::New(position) => {
                    self.prepare(partition, position.offset)?;
                    commits.push(Commit::new(partition.open.identity(), *position));
                }
            }
            partition.go_to(found.position());
            partition.committed = Some(found.position());
        }
        if !commits.is_empty() {
            let receipt = self.member.commit(&commits).map_err(|error| explain_commit(error, added))?;
            self.groups.receipt_of_member(receipt).wait()?;
        } else if !is_durable {
            // An attempt before this one may have failed half-way: a group that starts anew would start elsewhere.
            self.groups.sync()?;
        }
        Ok(())
    }

    fn find_start(
        &self,
        start: Start,
        partition: &AssignedPartition,
        options: &ConsumerOptions,
    ) -> Result<Found> {
        let place = match start {
            Start::At(committed) => return Ok(Found::Committed(committed)),
            Start::Noted(position) => return partition.open.still_there(position).map(Found::New),
            Start::LogStart => SeekTo::Earliest,
            Start::Reset => {
                let place = options.reset.place();
                place.ok_or_else(|| no_committed_offset(partition, Some(self.member.group())))?
            }
        };
        let isolation = if self.is_lasting() { FetchIsolation::Visible } else { options.isolation };
        let position = partition.open.resolve(place, isolation, options.broker.clock())?;
        let noted = self.member.note_start(partition.open.identity(), position);
        if noted == position {
            Ok(Found::New(position))
        } else {
            partition.open.still_there(noted).map(Found::New)
        }
    }
}

/// Where a group starts in a partition.
#[derive(Debug)]
pub(super) enum Found {
    /// Where it has come to.
    Committed(Committed),
    /// Where it has never been: to be committed.
    New(Position),
}

impl Found {
    fn position(&self) -> Position {
        match self {
            Found::Committed(committed) => committed.position,
            Found::New(position) => *position,
        }
    }
}

impl State {
    /// Does what the group says: lets go, gives up, takes over. An error that is answered at once is of the listener, or
    /// says that the consumer is no member any more; the one that is returned is of partitions that could not be opened,
    /// which is tried again.
    pub(super) fn follow_group(
        &mut self,
        signal: &Arc<Signal>,
        events: &mut Vec<Event>,
    ) -> Result<Option<Error>> {
        self.release_revoking();
        let (mut listened, mut refused) = (Ok(()), None);
        loop {
            let Some(membership) = &self.membership else { return Ok(None) };
            let changes = membership.member.poll()?;
            let has_unopened = membership.shared.as_ref().is_some_and(|shared| !shared.unopened.is_empty());
            if changes.is_empty() && (refused.is_some() || (!has_unopened && self.is_announced)) {
                listened.and(self.announce())?;
                return Ok(refused);
            }
            listened = listened.and(self.let_go(changes, events));
            match self.open_assigned(signal) {
                // One of them has become another's meanwhile. The group says which, and the rest is opened.
                Err(error) if is_of_lost_partition(&error) => refused = Some(error),
                opened => {
                    listened.and(self.announce())?;
                    return Ok(opened.err());
                }
            }
        }
    }

    /// Lets go of what the group has taken, gives up what it wants back, and notes what it has assigned.
    fn let_go(&mut self, changes: Changes, events: &mut Vec<Event>) -> Result<()> {
        if !changes.is_empty() {
            tracing::debug!(
                group = self.group(),
                assigned = changes.assigned.len(),
                revoked = changes.revoked.len(),
                revoking = changes.revoking.len(),
                lost = changes.lost.len(),
                has_rejoined = changes.has_rejoined,
                "the group's partitions were divided anew"
            );
        }
        let Changes { lost, revoked, deleted, revoking, assigned, .. } = changes;
        events.extend(deleted.into_iter().map(|topic| Event::TopicDeleted { topic: topic.name }));
        let lost = self.drop_partitions(&lost);
        let mut given_up = self.drop_partitions(&revoked);
        given_up.extend(self.announced(&revoking.iter().copied().collect()));
        given_up.sort_unstable();
        // All is noted before the listener is called, which may panic.
        if let Some(shared) = self.shared() {
            shared.unopened.extend(assigned);
            shared.revoking = revoking;
        }
        self.tell_lost(&lost);
        let mut listened = Ok(());
        if !given_up.is_empty() {
            listened = self.listen(|listener, member| listener.on_revoked(member, &given_up));
        }
        self.release_revoking();
        listened
    }

    /// Gives up what the listener was told of.
    fn release_revoking(&mut self) {
        let revoking = self.shared().map(|shared| std::mem::take(&mut shared.revoking)).unwrap_or_default();
        let Some(membership) = self.membership.as_ref().filter(|_| !revoking.is_empty()) else { return };
        let late = membership.member.release(&revoking);
        let late = self.announced(&late.into_iter().collect());
        self.drop_partitions(&revoking);
        self.tell_lost(&late);
    }

    /// Before a consumer that is closed leaves: lets go of what the group has taken. Returns what the listener is still to
    /// be told of. A poll would do as well, but for one that was evicted, which would join again for a moment.
    pub(super) fn let_go_of_gone(&mut self) -> Vec<TopicPartition> {
        let Some(membership) = self.membership.as_ref().filter(|membership| membership.is_shared()) else {
            return Vec::new();
        };
        let id = membership.member.id();
        let members = membership.groups.store().members(membership.member.group());
        let members = members.map(|members| members.members).unwrap_or_default();
        let own = members.into_iter().find(|member| member.id == id);
        let owned: HashSet<_> = own.map(|own| own.owned).unwrap_or_default().into_iter().collect();
        let all = self.partitions.iter().map(|partition| partition.open.identity());
        let gone: Vec<_> = all.filter(|partition| !owned.contains(partition)).collect();
        let lost = membership.member.release(&gone);
        let lost = self.drop_partitions(&lost);
        self.tell_lost(&lost);
        self.drop_partitions(&gone)
    }

    /// Opens what was assigned and is not open yet, and finds out where to start.
    fn open_assigned(&mut self, signal: &Arc<Signal>) -> Result<()> {
        let Some(shared) = self.shared() else { return Ok(()) };
        let unopened = std::mem::take(&mut shared.unopened);
        let (mut came, mut added, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let mut outcome = Ok(());
        for assigned in unopened {
            match self.open(assigned.partition, signal) {
                // The next poll says that the topic is gone, or it stays: a deletion may fail.
                Ok(None) => left.push(assigned),
                Ok(Some(partition)) => {
                    came.push(assigned);
                    added.push(partition);
                }
                Err(error) => {
                    left.push(assigned);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        if let Some(membership) = self.membership.as_ref().filter(|_| !added.is_empty()) {
            let begun = membership.find_starts(&came, &added, &self.options).and_then(|mut found| {
                if outcome.is_err() {
                    // A topic is met as a whole: in what is left of it the group would not start where the policy says.
                    let is_met = |(start, assigned): (&Found, &Assigned)| {
                        assigned.came_later || matches!(start, Found::Committed(_))
                    };
                    let is_met: Vec<bool> = found.iter().zip(&came).map(is_met).collect();
                    left.extend(
                        came.iter().zip(&is_met).filter(|(_, is_met)| !**is_met).map(|(came, _)| *came),
                    );
                    keep(&mut came, &is_met);
                    keep(&mut added, &is_met);
                    keep(&mut found, &is_met);
                }
                membership.begin(&mut added, &found)
            });
            match begun {
                Ok(()) => {
                    self.is_announced = false;
                    self.partitions.append(&mut added);
                    self.partitions.sort_by(|a, b| a.place().cmp(b.place()));
                }
                Err(error) => {
                    left.extend(came);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        if let Some(shared) = self.shared() {
            shared.unopened = left;
        }
        outcome
    }

    /// `None` if the topic is gone, or about to go.
    fn open(&self, partition: PartitionIdentity, signal: &Arc<Signal>) -> Result<Option<AssignedPartition>> {
        let Some(topic) = self.options.broker.topic_by_id(partition.topic_id) else { return Ok(None) };
        if topic.is_deleted() {
            return Ok(None);
        }
        let lazy = topic.partition(partition.partition)?;
        match AssignedPartition::new(&topic, &lazy, signal, self.options.isolation) {
            Err(_) if topic.is_deleted() => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Tells the listener what is new; not before the first poll.
    fn announce(&mut self) -> Result<()> {
        if !self.has_polled {
            return Ok(());
        }
        self.is_announced = true;
        let mut new = Vec::new();
        for partition in self.partitions.iter_mut().filter(|partition| !partition.is_announced) {
            partition.is_announced = true;
            new.push(TopicPartition::clone(partition.place()));
        }
        if new.is_empty() {
            return Ok(());
        }
        self.listen(|listener, member| listener.on_assigned(member, &new))
    }

    /// Before a consumer that is closed leaves: its listener may commit.
    pub(super) fn announce_closing(&mut self, given_up: Vec<TopicPartition>) -> Result<()> {
        if !self.membership.as_ref().is_some_and(Membership::is_shared) {
            return Ok(());
        }
        let mut all = given_up;
        let kept = self.partitions.iter().filter(|partition| partition.is_announced);
        all.extend(kept.map(|partition| TopicPartition::clone(partition.place())));
        all.sort_unstable();
        if all.is_empty() {
            Ok(())
        } else {
            self.listen(|listener, member| listener.on_revoked(member, &all))
        }
    }

    fn tell_lost(&mut self, lost: &[TopicPartition]) {
        if !lost.is_empty() {
            tracing::warn!(group = self.group(), partitions = lost.len(), "partitions were lost");
            // It returns nothing.
            let _ = self.listen(|listener, _| {
                listener.on_lost(lost);
                Ok(())
            });
        }
    }

    fn listen(
        &mut self,
        tell: impl FnOnce(&mut dyn RebalanceListener, &mut Rebalance<'_>) -> Result<()>,
    ) -> Result<()> {
        // Taken out, so that the consumer can be lent to it. One that panics is not called again.
        let Some(mut listener) = self.shared().and_then(|shared| shared.listener.take()) else {
            return Ok(());
        };
        let told = tell(&mut *listener, &mut Rebalance::new(self));
        if let Some(shared) = self.shared() {
            shared.listener = Some(listener);
        }
        told
    }

    /// Stops reading these partitions. Returns those that the listener knows of.
    fn drop_partitions(&mut self, gone: &[PartitionIdentity]) -> Vec<TopicPartition> {
        let gone: HashSet<_> = gone.iter().copied().collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let announced = self.announced(&gone);
        self.partitions.retain(|partition| !gone.contains(&partition.open.identity()));
        if let Some(shared) = self.shared() {
            shared.unopened.retain(|assigned| !gone.contains(&assigned.partition));
        }
        announced
    }

    /// Those of them that the listener knows of.
    fn announced(&self, of: &HashSet<PartitionIdentity>) -> Vec<TopicPartition> {
        let known = self.partitions.iter().filter(|partition| partition.is_announced);
        let known = known.filter(|partition| of.contains(&partition.open.identity()));
        known.map(|partition| TopicPartition::clone(partition.place())).collect()
    }

    fn shared(&mut self) -> Option<&mut Shared> {
        self.membership.as_mut()?.shared.as_mut()
    }
}

/// Keeps those elements of which `is_kept` says so.
fn keep<T>(elements: &mut Vec<T>, is_kept: &[bool]) {
    let mut is_kept = is_kept.iter();
    elements.retain(|_| is_kept.next().is_some_and(|is_kept| *is_kept));
}
