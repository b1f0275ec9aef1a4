//! Group stores and members to measure.

use std::path::Path;
use std::sync::Arc;

use tailwater_groups::coordinator::{MemberSpec, Subscription, TopicInfo, Topics};
use tailwater_groups::format::{Entry, StoredPosition};
use tailwater_groups::{Commit, GroupId, GroupLifetime, GroupStore, Member, Position};
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
