//! An embedded, durable message log with topics: what SQLite is to a database server, Tailwater is to a message broker.
//!
//! A program links it in, opens a directory, and publishes messages to topics. Any number of subscribers read them, now or
//! later, each at its own position. There is nothing to deploy.
//!
//! # Publish
//!
//! A [`Broker`] is a directory of topics; a [`Producer`] publishes to one of them.
//!
//! ```
//! use tailwater::{Broker, Message, TopicConfig};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path().join("data");
//! let broker = Broker::open(&directory)?;
//! broker.create_topic("orders", &TopicConfig::new().partitions(2))?;
//! let orders = broker.producer("orders")?;
//!
//! // Durable when it returns: it survives a power cut.
//! let at = orders.publish(Message::new(b"two espressos").key(b"table 4"))?;
//!
//! // The same key goes to the same partition, so what concerns table 4 stays in order.
//! let next = orders.publish(Message::new(b"and the bill").key(b"table 4"))?;
//! assert_eq!(next.partition, at.partition);
//! assert_eq!(next.offset.get(), at.offset.get() + 1);
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! # Publish much
//!
//! [`Producer::send`] hands a message over and returns a [`Receipt`]. One sync makes many messages durable.
//!
//! ```
//! # use tailwater::{Broker, TopicConfig};
//! # let broker = Broker::in_memory()?;
//! # broker.create_topic("orders", &TopicConfig::new())?;
//! # let orders = broker.producer("orders")?;
//! let receipts: Vec<_> = (0..1000).map(|n| orders.send(&format!("order {n}"))).collect::<Result<_, _>>()?;
//! for receipt in receipts {
//!     receipt.wait()?;
//! }
//! # let at = tailwater::TopicPartition::new("orders", tailwater::PartitionId::ZERO);
//! let stats = broker.embedded().expect("it is no remote broker").stats(&at)?;
//! assert_eq!(stats.durable_offset.get(), 1000);
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! In a task the same receipts are awaited: `orders.send_async(b"order").await?.await?`. No particular runtime is needed.
//!
//! # Subscribe
//!
//! A [`Consumer`] reads topics for a group. The group remembers how far it came; what was not committed is read again.
//!
//! ```
//! use std::time::Duration;
//! use tailwater::{Broker, TopicConfig};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path().join("data");
//! let broker = Broker::open(&directory)?;
//! broker.create_topic("orders", &TopicConfig::new())?;
//! broker.producer("orders")?.publish("an espresso")?;
//!
//! let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
//! for record in billing.poll(Duration::from_secs(10))?.iter() {
//!     assert_eq!(record.value(), Some(&b"an espresso"[..]));
//! }
//! billing.commit().wait()?;
//! broker.producer("orders")?.publish("the bill")?;
//! drop((billing, broker));
//!
//! // Tomorrow, or after a crash: the group goes on where it committed.
//! let broker = Broker::open(&directory)?;
//! let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
//! let records = billing.poll(Duration::from_secs(10))?;
//! assert_eq!(records.iter().next().and_then(|record| record.value()), Some(&b"the bill"[..]));
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! A loop polls, works, commits. It ends when another thread [interrupts](Interrupter) it or the broker is closed:
//!
//! ```
//! # use std::time::Duration;
//! # use tailwater::{Broker, Error, TopicConfig};
//! # let broker = Broker::in_memory()?;
//! # broker.create_topic("orders", &TopicConfig::new())?;
//! # broker.producer("orders")?.publish("an espresso")?;
//! # let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
//! # let interrupter = billing.interrupter();
//! # let mut work = |_: &[u8]| interrupter.interrupt();
//! loop {
//!     let records = match billing.poll(Duration::MAX) {
//!         Ok(records) => records,
//!         Err(Error::Interrupted | Error::Closed) => break,
//!         Err(error) => return Err(error),
//!     };
//!     for event in records.events() {
//!         // Records that were removed before they were read, a topic that was deleted: told once.
//!         eprintln!("{event:?}");
//!     }
//!     for record in records.iter() {
//!         work(record.value().unwrap_or_default());
//!     }
//!     // One sync for all of them. To commit record by record: `commit_to(&[record.next_cursor()])`.
//!     billing.commit().wait()?;
//! }
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! [`Broker::reader`] reads without a group: it starts where it is told and remembers nothing. A program that keeps what it
//! does in a database of its own keeps a [`Cursor`] there, as one string, and [seeks](Consumer::seek) to it. Other
//! processes read beside the one that writes: [`Broker::attach_read_only`].
//!
//! # In tasks
//!
//! A [`Receipt`] is a future, [`Producer::send_async`] waits for room, and with the feature `async` a [`Consumer`] is a
//! `Stream` of [`Records`]. That is all there is to it: no second set of types, and no particular runtime. Threads and
//! tasks can use the same broker.
//!
//! ```
//! # #[cfg(feature = "async")]
//! # smol::block_on(async {
//! use futures_lite::StreamExt;
//! # use tailwater::{Broker, TopicConfig};
//!
//! # let broker = Broker::in_memory()?;
//! # for name in ["orders", "mails"] { broker.create_topic(name, &TopicConfig::new())?; }
//! # broker.producer("orders")?.publish("an espresso")?;
//! # let (mut billing, mails) = (broker.consumer("billing").subscribe(&["orders"])?, broker.producer("mails")?);
//! while let Some(records) = billing.next().await {
//!     let records = records?;
//!     for record in records.iter() {
//!         mails.send_async(record.value().unwrap_or_default()).await?.await?;
//!     }
//!     billing.commit().await?;
//! #   break;
//! }
//! # Ok::<(), tailwater::Error>(())
//! # })?;
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! - **Futures never sync.** A thread of the broker does; with [`Maintenance::Manual`] the application's, in
//!   [`Broker::run_maintenance_once`]. What runs in the task is short: a copy into memory, at most a write to the page cache
//!   for a receipt that is `Written`, and reading. Three things sync on the thread that calls them, so that a task does
//!   them where it may block: opening the broker and creating topics; making a consumer of a group; and
//!   [`Consumer::commit`] on a topic that is not durable, unless [`Producer::flush`] was awaited first.
//! - **Cancellation.** Every future can be dropped at any time. A dropped receipt cancels nothing: the message is, or will
//!   be, published, the commit made. A dropped `send_async` has sent nothing. A dropped `next()` has taken nothing.
//! - **Waking**: a task is woken when what it waits for may be there. One that waits for records is not woken by what it
//!   does not read, nor at any time of a clock; an idle consumer costs nothing.
//!
//! # Typed messages
//!
//! A [`Codec`] turns the application's own types into bytes and back: [`Message::encoded`] when a message is made,
//! [`Record::decode`] when it is read. With the feature `serde` there is one for JSON. What cannot be decoded is told with
//! its place and its bytes, and stops nobody.
//!
//! ```
//! # #[cfg(feature = "serde")]
//! # {
//! use std::time::Duration;
//! use tailwater::{Broker, Json, Message, TopicConfig};
//!
//! let broker = Broker::in_memory()?;
//! broker.create_topic("prices", &TopicConfig::new())?;
//! let prices = broker.producer("prices")?;
//! prices.publish(Message::encoded(&Json, &("espresso".to_owned(), 220))?.message().key(b"espresso"))?;
//!
//! for record in broker.reader().subscribe(&["prices"])?.poll(Duration::from_secs(10))?.iter() {
//!     let (name, cents): (String, u32) = record.decode(&Json)?;
//!     assert_eq!((name.as_str(), cents), ("espresso", 220));
//! }
//! # }
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! # Choose what an acknowledgement means
//!
//! | [`Durability`] | Survives | Costs |
//! |---|---|---|
//! | `Durable` (default) | power loss | a sync, shared by all who wait at the same time |
//! | `Written` | death of the process | a write |
//! | `Buffered` | nothing yet | a copy in memory |
//!
//! A topic has one ([`TopicConfig::durability`]), and a producer may choose another ([`ProducerOptions::durability`]).
//!
//! # Keep readers close
//!
//! Where publishing is faster than reading for long, the log grows and readers read what is old. A [`LagLimit`] has a
//! producer fail, or wait, while a group is too far behind: by records, or by bytes.
//!
//! # Close, and come back
//!
//! Dropping the last clone of a broker closes it; [`Broker::close`] does, and tells how it went. After a crash each
//! partition is recovered at its first use.
//!
//! ```
//! use tailwater::{Broker, RecoveryOutcome, TopicConfig, TopicPartition, PartitionId};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path().join("data");
//! let broker = Broker::open(&directory)?;
//! broker.create_topic("orders", &TopicConfig::new())?;
//! broker.producer("orders")?.publish("an espresso")?;
//! broker.close()?;
//!
//! let broker = Broker::open(&directory)?;
//! let orders = TopicPartition::new("orders", PartitionId::ZERO);
//! let report = broker.embedded().expect("it is no remote broker").recovery_report(&orders)?;
//! assert_eq!(report.outcome, RecoveryOutcome::Clean);
//! assert_eq!(report.log_end_offset.get(), 1);
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! # Watch it
//!
//! [`Broker::stats`] tells of each topic, partition and group where it is and what was done: offsets, sizes, how long syncs
//! took, how far groups are behind, failures, how a partition was found when it was opened. It is cheap, and opens nothing.
//!
//! What an operator asks about is told to `tracing`, with fields: a broker opened and closed, a partition opened
//! (`debug`) or recovered (`info`, with `scanned_bytes` and `torn_bytes`), a topic created, altered, deleted, a group created,
//! reset, deleted (`info`), a segment rolled (`debug`), a sync that took half a second or more (`warn`, with `took_ms`), a
//! commit that was refused (`warn`), work in the background that failed and is tried again (`warn`), a log that stops
//! until it is reopened or is damaged (`error`).
//!
//! # Test
//!
//! [`Broker::in_memory`] runs on a simulated disk. [`BrokerOptions::open_on`] takes one of your own, which can lose power.
//! The example `crash_test` does that after every operation of a program that consumes, works and publishes.
//!
//! ```
//! use std::sync::Arc;
//! use tailwater::storage::SimDisk;
//! use tailwater::{Broker, BrokerOptions, PartitionId, TopicConfig, TopicPartition};
//!
//! let open = |disk: &SimDisk| BrokerOptions::new().open_on(Arc::new(disk.clone()), "/data");
//! let disk = SimDisk::new(1);
//! let broker = open(&disk)?;
//! broker.create_topic("orders", &TopicConfig::new())?;
//! broker.producer("orders")?.publish("acknowledged")?;
//!
//! let disk = disk.crash(|_, _| false);
//! let orders = TopicPartition::new("orders", PartitionId::ZERO);
//! let stats = open(&disk)?.embedded().expect("it is no remote broker").stats(&orders)?;
//! assert_eq!(stats.durable_offset.get(), 1);
//! # Ok::<(), tailwater::Error>(())
//! ```
//!
//! # Features
//!
//! All are off by default.
//!
//! | Feature | Brings | Depends on |
//! |---|---|---|
//! | `async` | a [`Consumer`] is a `Stream` | `futures-core` |
//! | `metrics` | the figures for the `metrics` facade: `metrics::Publisher` | `metrics` |
//! | `serde` | `Json`, a [`Codec`] of every type that `serde` knows | `serde`, `serde_json` |

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "async")]
mod alarms;
mod backup;
mod broker;
mod catalog;
mod codec;
mod consumer;
mod error;
mod maintenance;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod parallel;
mod partitioner;
mod producer;
mod receipt;
mod retention;
mod topic_config;
mod topic_partition;

pub use backup::{BackupCheck, BackupFault, BackupOptions, BackupProblem, BackupProblemKind, BackupReport};
pub use broker::{
    Broker, BrokerOptions, BrokerStats, CatalogDamage, CatalogRepair, CloseFailure, CloseReport, Embedded,
    GroupDescription, GroupListing, GroupMember, GroupPartitionStats, GroupPosition, GroupReset, GroupStats,
    LeftOut, LeftOutReason, Maintenance, MaintenanceReport, OpenPartitionStats, PartitionStats, RebuiltTopic,
    RetentionStats, TopicDescription, TopicStats,
};
pub use catalog::{CatalogFault, TopicNameFault};
#[cfg(feature = "serde")]
pub use codec::Json;
pub use codec::{Codec, CodecError, DecodeError, DecodeFault, EncodedMessage};
pub use consumer::{
    AutoCommit, Consumer, ConsumerOptions, Cursor, Event, Interrupter, Lag, OnDivergence, OnExpired, OnGap,
    OwnedHeader, OwnedRecord, ParseCursorError, Rebalance, RebalanceListener, Record, Records, Reset, SeekTo,
};
pub use error::{Contradiction, ContradictionKind, Error, Expected, InvalidSetting, Result};
pub use partitioner::partition_for_key;
pub use producer::{LagLimit, LagUnit, Message, Producer, ProducerOptions, SendAsync};
pub use receipt::{Appended, Receipt};
pub use retention::{Hold, Holder, OnFull, TopicFull};
pub use tailwater_groups::coordinator::assignor::Assignor;
pub use tailwater_groups::{GroupKind, GroupLifetime};
pub use tailwater_log::error::{
    CompressionFault, Corruption, CorruptionKind, InvalidBatch, InvalidConfig, IoOperation, Locked, LogFull,
    SpaceScope, UnsupportedFeature,
};
pub use tailwater_log::format::Header;
pub use tailwater_log::ttl::TTL_HEADER;
pub use tailwater_log::{
    CleanupPolicy, Clock, Compression, Durability, FetchIsolation, LogEpoch, LogStats, ManualClock, Offset,
    OffsetRange, PartitionId, PartitionIdentity, ReadMode, RecoveryOutcome, RecoveryReport, RemovalStats,
    RepairReport, SyncTimes, SystemClock, Timestamp, TopicId, VerifyReport, storage,
};
pub use topic_config::TopicConfig;
pub use topic_partition::{ParseTopicPartitionError, TopicPartition};

/// Keeps the examples of the README true.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Keeps those of the guide to groups true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/groups.md")]
struct Groups;
