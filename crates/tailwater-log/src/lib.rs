//! One partition of a durable, Kafka-style segmented log.
//!
//! A [`Log`] is a directory of segment files. [`Log::append`] stages records and gives them their offsets; the
//! [`Receipt`] it returns completes when they are as durable as was asked for. Appends that are waited for together share
//! one sync. [`Log::fetch`] reads from an offset on, every batch checked. After a crash [`Log::open`] finds the end of what
//! survived, and [`Log::recovery_report`] says what it found and did.
//!
//! ```
//! use std::sync::Arc;
//! use tailwater_log::storage::SimDisk;
//! use tailwater_log::*;
//!
//! let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
//! let disk = SimDisk::new(1);
//! let log = Log::create(Arc::new(disk.clone()), "/orders-0".as_ref(), LogOptions::new(identity))?;
//!
//! // Pipelined: offsets at once, durability when it is waited for.
//! let receipts = ["espresso", "flat white"]
//!     .map(|value| log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait));
//! for receipt in receipts {
//!     receipt?.wait()?;
//! }
//! log.append(&[NewRecord::new(b"never waited for")], None, WhenFull::Wait)?;
//!
//! // The power fails: what was acknowledged is there, what was not may be gone.
//! let disk = disk.crash(|_, _| false);
//! let log = Log::open(Arc::new(disk), "/orders-0".as_ref(), LogOptions::new(identity))?;
//! assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Recovered);
//! let fetched = log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None)?;
//! let values: Vec<_> = fetched.iter().filter_map(|record| record.value()).collect();
//! assert_eq!(values, [b"espresso".as_slice(), b"flat white"]);
//! # Ok::<(), Error>(())
//! ```
//!
//! Topics, consumers and threads are not this crate's business; `storage` and the `format` are open to those who want
//! to look into files or to crash-test their own programs.

#![deny(unsafe_code)]

mod compaction;
mod compression;
pub mod config;
pub mod error;
pub mod format;
pub mod limits;
mod log;
#[cfg(feature = "planted-mistakes")]
#[doc(hidden)]
pub mod mistakes;
#[cfg(not(feature = "planted-mistakes"))]
mod mistakes;
mod offset;
mod recovery;
mod segment;
pub mod storage;
mod sync;
mod time;
mod topic;
pub mod ttl;

pub use compression::Compression;
pub use config::{CleanupPolicy, Durability, LogConfig, ReadMode};
pub use error::{
    CompressionFault, Corruption, CorruptionKind, Error, InvalidBatch, InvalidConfig, IoOperation, Locked,
    LogFull, Result, SpaceScope, UnsupportedFeature,
};
pub use log::{
    Appended, CompactionLimits, CompactionOutcome, CompactionReport, CompactionStats, FetchHint,
    FetchIsolation, FetchLimits, Fetched, FetchedBatch, LeftAlone, ListenerGuard, Log, LogOptions,
    LogSnapshot, LogStats, MaintenanceReport, NewRecord, OpaqueBatch, OpenFiles, Receipt, Record,
    RemovalStats, RetentionReport, Signal, SnapshotSegment, SpaceBudget, SpaceShare, Staged, SyncTimes,
    VerifyReport, WhenFull,
};
pub use offset::{FilePosition, LogEpoch, Offset, OffsetRange};
pub use recovery::{RecoveryOutcome, RecoveryReport, RepairReport, TornTail};
pub use segment::{SegmentInspection, SegmentPart, SegmentParts};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use topic::{ParseTopicIdError, PartitionId, PartitionIdentity, TopicId};
