//! A member of a group.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tailwater_log::{Offset, PartitionIdentity, Receipt};

use super::{Inner, Starts, append, forget};
use crate::coordinator::{Assigned, Changes, Fenced, MemberEpoch, MemberId};
use crate::members::LiveGroup;
use crate::table::key_of;
use crate::{Commit, Committed, Error, GroupId, GroupKind, GroupLifetime, Position, Result};

/// One who reads as a member of a group, from [`GroupStore::join`](crate::GroupStore::join). Dropping it leaves the group:
/// nothing is committed or written, nothing is waited for, and those who gain by it are woken.
///
/// A consumer's poll goes like this:
///
/// 1. [`poll`](Member::poll), and do as it says: let go of what is lost or revoked; run the listener for what is to be
///    given up, [`commit`](Member::commit), [`release`](Member::release); find the [`starts`](Member::starts) of what is
///    assigned, and where it is the first to come, [note](Member::note_start) and commit one.
/// 2. Fetch, and [`deliver`](Member::deliver) what is to be returned, or nothing. What may not be delivered is put back.
/// 3. Or, to sleep: arm the signal, poll and fetch once more, [`wait`](Member::wait), and sleep until the signal or that
///    time; then begin again.
pub struct Member {
    store: Arc<Inner>,
    group: GroupId,
    live: Arc<LiveGroup>,
    id: MemberId,
    /// The epoch it had when it last did something, for when it is no member any more.
    last_epoch: AtomicU64,
    /// Whether a commit may be of a start that was noted.
    has_starts: AtomicBool,
}

/// Where a member begins to read a partition that it was assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// Where the group has come to.
    At(Committed),
    /// Where a member that came before found that the group starts, and did not come to commit. The log may have been
    /// truncated since.
    Noted(Position),
    /// At the log start, whatever the reset policy: the partition came after the group had met its topic.
    LogStart,
    /// Where the reset policy says: the group meets the topic.
    Reset,
}

impl Member {
    pub(super) fn new(store: Arc<Inner>, group: GroupId, live: Arc<LiveGroup>, id: MemberId) -> Self {
        let member = Self {
            store,
            group,
            live,
            id,
            last_epoch: AtomicU64::new(0),
            has_starts: AtomicBool::new(false),
        };
        member.note_epoch();
        member
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> GroupKind {
        self.live.kind
    }

    /// How long its positions last.
    #[must_use]
    pub fn lifetime(&self) -> GroupLifetime {
        self.live.lifetime
    }

    /// Which of the store's members this is.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The assignment epoch that it has reconciled to.
    #[must_use]
    pub fn epoch(&self) -> MemberEpoch {
        self.note_epoch();
        MemberEpoch::new(self.last_epoch.load(Ordering::Relaxed))
    }

    /// What has changed since the last poll. Costs next to nothing if nothing has. See [`Changes`].
    ///
    /// # Errors
    ///
    /// [`Error::FencedMemberEpoch`] if the member was removed from the group ([`GroupStore::evict`](crate::GroupStore::evict)).
    pub fn poll(&self) -> Result<Changes> {
        let now = self.store.monotonic.now();
        let (changes, woken) = self.live.run(|state| state.coordinator.poll(now, self.id));
        woken.wake();
        let changes = changes.map_err(|fenced| self.explain(fenced))?;
        if !changes.is_empty() {
            self.note_epoch();
        }
        Ok(changes)
    }

    /// Notes that records of these partitions are about to be handed out, up to those offsets (the next ones), and says of
    /// each whether they may be. What may not is not handed out; the next poll tells why.
    ///
    /// Called at the end of each poll of a consumer, also with nothing: from here on a `max_poll_interval_ms` counts.
    ///
    /// # Errors
    ///
    /// [`Error::FencedMemberEpoch`] if the member was removed from the group.
    pub fn deliver(&self, deliveries: &[(PartitionIdentity, Offset)]) -> Result<Vec<bool>> {
        let now = self.store.monotonic.now();
        let (may, woken) = self.live.run(|state| state.coordinator.deliver(now, self.id, deliveries));
        woken.wake();
        may.map_err(|fenced| self.explain(fenced))
    }

    /// Gives up partitions that a poll said are to be given up. Returns those that were taken from the member before that,
    /// since it took too long: commits in them were refused, and no poll will tell.
    pub fn release(&self, partitions: &[PartitionIdentity]) -> Vec<PartitionIdentity> {
        let (lost, woken) = self.live.run(|state| state.coordinator.release(self.id, partitions));
        woken.wake();
        self.note_epoch();
        lost
    }

    /// Notes that the member goes to sleep, and says for how long at most: it is to poll then, since a deadline of another
    /// one passes and nobody else may notice. `None` if nothing but its signal has to end the sleep. It is not evicted for
    /// not polling while it sleeps, that is until its next poll or delivery.
    ///
    /// A task that is dropped while it waits, and does something else from then on, calls [`deliver`](Member::deliver).
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        let (until, woken) = self.live.run(|state| state.coordinator.wait(self.id));
        woken.wake();
        until.map(|until| Duration::from_millis(until.since_ms(self.store.monotonic.now())))
    }

    /// Where to begin in partitions that a poll has assigned. Waits for commits that are under way, so that none by the one
    /// who had a partition before is missed.
    ///
    /// Where this says [`Start::LogStart`] or [`Start::Reset`], the member [notes](Member::note_start) what this comes to
    /// as soon as it knows. That, and [`Start::Noted`], it commits before it delivers a record: from then on the group goes
    /// on from there.
    #[must_use]
    pub fn starts(&self, assigned: &[Assigned]) -> Vec<Start> {
        let _appending = (self.lifetime() == GroupLifetime::Lasting).then(|| self.store.lock_appending());
        let noted: Vec<_> = self.with_starts(|starts| {
            let noted = |assigned: &Assigned| starts.get(&key_of(assigned.partition)).copied();
            assigned.iter().map(noted).collect()
        });
        if noted.iter().any(Option::is_some) {
            self.has_starts.store(true, Ordering::Relaxed);
        }
        let start = |(assigned, noted): (&Assigned, Option<Position>)| {
            if let Some(committed) = self.committed(assigned.partition) {
                return Start::At(committed);
            }
            noted.map_or(if assigned.came_later { Start::LogStart } else { Start::Reset }, Start::Noted)
        };
        assigned.iter().zip(noted).map(start).collect()
    }

    /// Notes where the group starts in a partition in which it has not committed. From then on it starts there, whoever
    /// comes to commit it: so that nothing is skipped that is published until then. In memory only: after a crash it is
    /// found out anew.
    ///
    /// Returns where it starts: what was noted first.
    pub fn note_start(&self, partition: PartitionIdentity, position: Position) -> Position {
        self.has_starts.store(true, Ordering::Relaxed);
        self.with_starts(|starts| *starts.entry(key_of(partition)).or_insert(position))
    }

    fn with_starts<T>(&self, act: impl FnOnce(&mut Starts) -> T) -> T {
        match self.lifetime() {
            GroupLifetime::Lasting => self.store.starts.of(&self.group, act),
            GroupLifetime::Ephemeral => {
                let (done, woken) = self.live.run(|state| act(&mut state.starts));
                woken.wake();
                done
            }
        }
    }

    /// What the group has committed in a partition, whether it is durable yet or not.
    #[must_use]
    pub fn committed(&self, partition: PartitionIdentity) -> Option<Committed> {
        match self.lifetime() {
            GroupLifetime::Lasting => self.store.committed(&self.group, partition),
            GroupLifetime::Ephemeral => {
                self.live.look(|state| state.positions.get(&key_of(partition)).cloned())
            }
        }
    }

    /// Commits a set of positions: all are there after a crash, or none. The first commit registers the group with them. A
    /// partition of which all that was delivered is committed can be given to another at once.
    ///
    /// Returns when they are staged, and are what the group has committed; the receipt completes when they are durable.
    /// `None` for an ephemeral group, whose positions never are. That committed offsets are durable in their own partitions
    /// is the caller's to see to, before.
    ///
    /// # Errors
    ///
    /// Nothing was committed after any of these:
    /// - [`Error::FencedMemberEpoch`] if the member does not own one of the partitions (any more).
    /// - [`Error::CommitBackwards`] if a position is below what is committed and may not go back.
    /// - [`Error::EmptyCommit`], [`Error::RepeatedPartition`], [`Error::MetadataTooLong`].
    /// - [`Error::Log`] if the log takes no appends, or not this one.
    pub fn commit(&self, commits: &[Commit<'_>]) -> Result<Option<Receipt>> {
        append::check_set(commits)?;
        let (receipt, woken) = match self.lifetime() {
            GroupLifetime::Lasting => self.commit_to_log(commits)?,
            GroupLifetime::Ephemeral => self.commit_in_memory(commits)?,
        };
        woken.wake();
        if self.has_starts.load(Ordering::Relaxed) {
            let has_more = self.with_starts(|starts| {
                forget(starts, commits);
                !starts.is_empty()
            });
            self.has_starts.store(has_more, Ordering::Relaxed);
        }
        self.note_epoch();
        Ok(receipt)
    }

    fn commit_to_log(&self, commits: &[Commit<'_>]) -> Result<(Option<Receipt>, crate::members::Woken)> {
        // Whoever takes a partition over waits for this lock before it reads what is committed: see `starts`.
        let mut cursor = self.store.lock_appending();
        let owned = self.live.look(|state| {
            state.coordinator.check_commit(self.id, commits.iter().map(|commit| commit.partition))
        });
        owned.map_err(|fenced| self.explain(fenced))?;
        {
            let table = self.store.read_table();
            let group = table.group(&self.group);
            check_forward(commits, |partition| group?.committed(partition))?;
        }
        let receipt = self.store.append_commits(&mut cursor, &self.group, self.kind(), commits)?;
        let settled = commits.iter().map(|commit| (commit.partition, commit.position.offset));
        let ((), woken) = self.live.run(|state| state.coordinator.commit(self.id, settled));
        Ok((Some(receipt), woken))
    }

    fn commit_in_memory(&self, commits: &[Commit<'_>]) -> Result<(Option<Receipt>, crate::members::Woken)> {
        let committed_at = self.store.clock.now();
        let (result, woken) = self.live.run(|state| {
            let partitions = commits.iter().map(|commit| commit.partition);
            state.coordinator.check_commit(self.id, partitions).map_err(|fenced| self.explain(fenced))?;
            check_forward(commits, |partition| state.positions.get(&key_of(partition)))?;
            for Commit { partition, position, metadata, .. } in commits {
                let metadata = Arc::from(*metadata);
                let committed =
                    Committed { position: *position, metadata, committed_at, log_offset: Offset::MAX };
                state.positions.insert(key_of(*partition), committed);
            }
            let settled = commits.iter().map(|commit| (commit.partition, commit.position.offset));
            state.coordinator.commit(self.id, settled);
            Ok(())
        });
        result.map(|()| (None, woken))
    }

    fn explain(&self, fenced: Fenced) -> Error {
        Error::FencedMemberEpoch {
            group: self.group.clone(),
            epoch: MemberEpoch::new(self.last_epoch.load(Ordering::Relaxed)),
            partition: fenced.partition.map(Box::new),
        }
    }

    fn note_epoch(&self) {
        if let Some(epoch) = self.live.look(|state| state.coordinator.member_epoch(self.id)) {
            self.last_epoch.store(epoch.get(), Ordering::Relaxed);
        }
    }
}

fn check_forward<'c>(
    commits: &[Commit<'_>],
    committed: impl Fn(PartitionIdentity) -> Option<&'c Committed>,
) -> Result<()> {
    for commit in commits.iter().filter(|commit| !commit.may_go_back) {
        let (partition, requested) = (commit.partition, commit.position.offset);
        let committed = committed(partition).map(|committed| committed.position.offset);
        if let Some(committed) = committed.filter(|committed| *committed > requested) {
            return Err(Error::CommitBackwards { partition: Box::new(partition), committed, requested });
        }
    }
    Ok(())
}

impl Drop for Member {
    fn drop(&mut self) {
        self.store.members.leave(self.store.monotonic.now(), &self.group, &self.live, self.id);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Member");
        shown.field("group", &self.group).field("kind", &self.kind()).field("id", &self.id);
        shown.field("last_epoch", &self.last_epoch).finish_non_exhaustive()
    }
}
