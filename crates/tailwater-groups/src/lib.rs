//! Who reads what, and from where: the committed positions of consumer groups, in one durable log.
//!
//! A [`GroupStore`] keeps what groups have committed in a [`Log`](tailwater_log::Log) of its own, and in memory. A
//! program that reads joins a group ([`GroupStore::join`]) and commits as its [`Member`]; a set of positions is committed
//! as a whole or not at all. What was acknowledged is there after a power cut, or a later commit in its place.
//!
//! ```
//! use std::sync::Arc;
//! use tailwater_groups::{Commit, GroupId, GroupKind, GroupStore, Position};
//! use tailwater_log::storage::SimDisk;
//! use tailwater_log::{Log, LogEpoch, LogOptions, Offset, PartitionId, PartitionIdentity, SystemClock, TopicId};
//!
//! let of = |topic| PartitionIdentity { topic_id: TopicId::from_bytes([topic; 16]), partition: PartitionId::ZERO };
//! let disk = SimDisk::new(1);
//! let log = Log::create(Arc::new(disk.clone()), "/__groups-0".as_ref(), LogOptions::new(of(0)))?;
//! let groups = GroupStore::open(log, Arc::new(SystemClock))?;
//!
//! let billing = GroupId::try_new("billing")?;
//! let member = groups.join(&billing, GroupKind::Consumer)?;
//! let position = Position { offset: Offset::new(17), epoch: LogEpoch::FIRST };
//! member.commit(&[Commit::new(of(1), position)])?.wait()?;
//!
//! // The power fails: what was acknowledged is there.
//! let disk = disk.crash(|_, _| false);
//! let log = Log::open(Arc::new(disk), "/__groups-0".as_ref(), LogOptions::new(of(0)))?;
//! let groups = GroupStore::open(log, Arc::new(SystemClock))?;
//! assert_eq!(groups.committed(&billing, of(1)).map(|committed| committed.position), Some(position));
//! # Ok::<(), tailwater_groups::Error>(())
//! ```
//!
//! The crate knows no files, has no threads, and takes the time from its caller.

#![forbid(unsafe_code)]

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

pub use error::{Error, Result};
pub use group::{GroupId, GroupIdFault, GroupKind, GroupListing, MAX_GROUP_ID_BYTES, MemberEpoch};
pub use position::{Commit, Committed, MAX_METADATA_BYTES, Position, Resumption, resume};
pub use store::{GroupStore, Member, REWRITE_MIN_RECORDS, REWRITE_RECORDS_PER_ENTRY};
