//! Who reads what, and from where: the committed positions of consumer groups, in one durable log.
//!
//! A [`GroupStore`] keeps what groups have committed in a [`Log`](tailwater_log::Log) of its own, and in memory. A
//! program that reads joins a group ([`GroupStore::join`]), is told which partitions are its own, and commits as its
//! [`Member`]; a set of positions is committed as a whole or not at all. What was acknowledged is there after a power cut,
//! or a later commit in its place. Who owns what is decided by the [`coordinator`].
//!
//! ```
//! use std::sync::Arc;
//! use tailwater_groups::coordinator::{MemberSpec, Subscription, TopicInfo, Topics};
//! use tailwater_groups::{Commit, GroupId, GroupLifetime, GroupStore, Position, Start};
//! use tailwater_log::storage::SimDisk;
//! use tailwater_log::{Log, LogEpoch, LogOptions, Offset, PartitionId, PartitionIdentity, Signal, SystemClock, TopicId};
//!
//! let of = |topic| PartitionIdentity { topic_id: TopicId::from_bytes([topic; 16]), partition: PartitionId::ZERO };
//! let disk = SimDisk::new(1);
//! let log = Log::create(Arc::new(disk.clone()), "/__groups-0".as_ref(), LogOptions::new(of(0)))?;
//! let groups = GroupStore::open(log, Arc::new(SystemClock))?;
//!
//! let orders = TopicInfo { id: of(1).topic_id, name: "orders".into(), partition_count: 1 };
//! groups.set_topics(&Arc::new(Topics::new(1, [orders])));
//!
//! let billing = GroupId::try_new("billing")?;
//! let subscription = Subscription { topics: vec![of(1).topic_id], patterns: Vec::new() };
//! let spec = MemberSpec { subscription, ..MemberSpec::default() };
//! let member = groups.join(&billing, spec, GroupLifetime::Lasting, &Arc::new(Signal::new()))?;
//! let assigned = member.poll()?.assigned;
//! assert_eq!((assigned[0].partition, &member.starts(&assigned)[0]), (of(1), &Start::Reset));
//!
//! let position = Position { offset: Offset::new(17), epoch: LogEpoch::FIRST };
//! if let Some(receipt) = member.commit(&[Commit::new(of(1), position)])? {
//!     receipt.wait()?;
//! }
//!
//! // The power fails: what was acknowledged is there.
//! let disk = disk.crash(|_, _| false);
//! let log = Log::open(Arc::new(disk), "/__groups-0".as_ref(), LogOptions::new(of(0)))?;
//! let groups = GroupStore::open(log, Arc::new(SystemClock))?;
//! assert_eq!(groups.committed(&billing, of(1)).map(|committed| committed.position), Some(position));
//! # Ok::<(), tailwater_groups::Error>(())
//! ```
//!
//! The crate knows no files, has no threads, and takes the time from clocks that it is given.

#![forbid(unsafe_code)]

mod clock;
pub mod coordinator;
mod error;
pub mod format;
mod group;
mod members;
mod position;
mod replay;
mod slot;
mod store;
mod table;

pub use clock::{ManualMonotonicClock, MonotonicClock, SystemMonotonicClock};
pub use error::{Error, Result};
pub use group::{
    GroupId, GroupIdFault, GroupKind, GroupLifetime, GroupListing, GroupMembers, MAX_GROUP_ID_BYTES,
};
pub use position::{Commit, Committed, MAX_METADATA_BYTES, Position, Resumption, resume};
pub use store::{GroupStore, Member, REWRITE_MIN_RECORDS, REWRITE_RECORDS_PER_ENTRY, Start};
