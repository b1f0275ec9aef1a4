//! Group stores and members to measure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tailwater_groups::coordinator::{MemberSpec, Subscription, TopicInfo, Topics};
use tailwater_groups::format::{Entry, StoredPosition};
use tailwater_groups::{Commit, GroupId, GroupLifetime, GroupStore, Member, Position, Start};
use tailwater_log::{
    Durability, LogEpoch, Offset, PartitionId, PartitionIdentity, Signal, SystemClock, Timestamp, TopicId,
};

use crate::contest::Result;
use crate::subject;

/// What the group of [`join`] is called.
const GROUP: &str = "billing";

/// The topic that [`join`] subscribes to.
fn topic() -> TopicId {
    TopicId::from_bytes([2; 16])
}

/// A partition of the topic.
#[must_use]
pub fn partition(number: u32) -> PartitionIdentity {
    PartitionIdentity { topic_id: topic(), partition: PartitionId::new(number) }
}

/// A commit of `offset` in a partition of the topic.
#[must_use]
pub fn commit(at: PartitionIdentity, offset: u64) -> Commit<'static> {
    Commit::new(at, Position { offset: Offset::new(offset), epoch: LogEpoch::FIRST })
}

/// The bytes that a commit of one position puts into the groups log, without those of its batch: key and value.
#[must_use]
pub fn entry_of_commit() -> Vec<u8> {
    let stored = StoredPosition {
        position: Position { offset: Offset::new(1), epoch: LogEpoch::FIRST },
        committed_at: Timestamp::from_millis(0),
        metadata: "",
    };
    let entry = Entry::Position { group: GROUP, partition: partition(0), value: Some(stored) };
    let mut bytes = Vec::new();
    entry.encode_key(&mut bytes);
    entry.encode_value(&mut bytes);
    bytes
}

/// A store in a new log in `directory`, which knows one topic.
///
/// # Errors
///
/// Those of [`Log::create`](tailwater_log::Log::create) and [`GroupStore::open`].
pub fn store(directory: &Path, partition_count: u32) -> Result<GroupStore> {
    let log = subject::create(directory, Durability::Durable)?;
    let store = GroupStore::open(log, Arc::new(SystemClock))?;
    let topic = TopicInfo { id: topic(), name: "orders".into(), partition_count };
    store.set_topics(&Arc::new(Topics::new(1, [topic])));
    Ok(store)
}

/// A member of the group, which subscribes to the topic, and what wakes it.
///
/// # Errors
///
/// Those of [`GroupStore::join`].
pub fn join(store: &GroupStore) -> Result<(Member, Arc<Signal>)> {
    let subscription = Subscription { topics: vec![topic()], patterns: Vec::new() };
    let spec = MemberSpec { subscription, ..MemberSpec::default() };
    let signal = Arc::new(Signal::new());
    let member = store.join(&GroupId::try_new(GROUP)?, spec, GroupLifetime::Lasting, &signal)?;
    Ok((member, signal))
}

/// A member, the partitions that it owns, and the offset that it delivers next in each: a consumer without records.
#[derive(Debug)]
pub struct Reader {
    /// The member.
    pub member: Member,
    /// Woken when a poll has news.
    pub signal: Arc<Signal>,
    /// All of them are of one topic.
    owned: BTreeMap<PartitionId, u64>,
}

/// What a poll of a [`Reader`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// How many partitions it owns from now on.
    pub gained: usize,
    /// How many it owned and does not any more.
    pub given_up: usize,
}

impl Reader {
    /// Joins the group.
    ///
    /// # Errors
    ///
    /// Those of [`join`].
    pub fn join(store: &GroupStore) -> Result<Self> {
        let (member, signal) = join(store)?;
        Ok(Self { member, signal, owned: BTreeMap::new() })
    }

    /// How many partitions it owns.
    #[must_use]
    pub fn owned_count(&self) -> usize {
        self.owned.len()
    }

    /// The partition at a place among those that it owns, if it owns any.
    #[must_use]
    pub fn nth_owned(&self, place: usize) -> Option<PartitionIdentity> {
        let place = place.checked_rem(self.owned.len())?;
        self.owned.keys().nth(place).map(|number| partition(number.get()))
    }

    /// Does what a consumer does about the news of a poll: commits what was delivered of partitions that it is to give up,
    /// and gives them up; goes on where the group is in those that it gains, and commits where it begins if that is nowhere.
    ///
    /// # Errors
    ///
    /// If a partition was lost, or the disk fails.
    pub fn poll(&mut self) -> Result<Moved> {
        let changes = self.member.poll()?;
        if changes.is_empty() {
            return Ok(Moved::default());
        }
        if !changes.lost.is_empty() {
            return Err("a member that polls loses nothing".into());
        }
        let settled = self.commits_of(&changes.revoking);
        if !settled.is_empty() {
            drop(self.member.commit(&settled)?);
            self.member.release(&changes.revoking);
        }
        for gone in changes.revoked.iter().chain(&changes.revoking) {
            self.owned.remove(&gone.partition);
        }
        let mut first = Vec::new();
        for (assigned, start) in changes.assigned.iter().zip(self.member.starts(&changes.assigned)) {
            let offset = match start {
                Start::At(committed) => committed.position.offset.get(),
                Start::Noted(_) | Start::LogStart | Start::Reset => {
                    first.push(commit(assigned.partition, 0));
                    0
                }
            };
            self.owned.insert(assigned.partition.partition, offset);
        }
        if !first.is_empty() {
            drop(self.member.commit(&first)?);
        }
        let given_up = changes.revoked.len() + changes.revoking.len();
        Ok(Moved { gained: changes.assigned.len(), given_up })
    }

    /// Delivers a record of each of these partitions, but of those that are to be another's by now. Returns of which it did.
    ///
    /// # Errors
    ///
    /// If it is no member any more.
    pub fn deliver(&mut self, partitions: &[PartitionIdentity]) -> Result<Vec<PartitionIdentity>> {
        let next = |at: &PartitionIdentity| self.owned.get(&at.partition).map_or(1, |offset| offset + 1);
        let deliveries: Vec<_> = partitions.iter().map(|at| (*at, Offset::new(next(at)))).collect();
        let may = self.member.deliver(&deliveries)?;
        let mut delivered = Vec::with_capacity(partitions.len());
        for ((at, next_offset), _) in deliveries.into_iter().zip(may).filter(|(_, may)| *may) {
            self.owned.insert(at.partition, next_offset.get());
            delivered.push(at);
        }
        Ok(delivered)
    }

    /// Delivers a record of each partition that it owns.
    ///
    /// # Errors
    ///
    /// If it is no member any more.
    pub fn deliver_all(&mut self) -> Result<Vec<PartitionIdentity>> {
        let all: Vec<_> = self.owned.keys().map(|number| partition(number.get())).collect();
        self.deliver(&all)
    }

    /// Commits, without waiting for the disk, what was delivered of those of these partitions that it owns.
    ///
    /// # Errors
    ///
    /// If it lost one, or the disk fails.
    pub fn commit(&self, partitions: &[PartitionIdentity]) -> Result<()> {
        let commits = self.commits_of(partitions);
        if !commits.is_empty() {
            drop(self.member.commit(&commits)?);
        }
        Ok(())
    }

    fn commits_of(&self, partitions: &[PartitionIdentity]) -> Vec<Commit<'static>> {
        partitions.iter().filter_map(|at| Some(commit(*at, *self.owned.get(&at.partition)?))).collect()
    }
}
