//! A broker: a directory of topics.

mod admin;
mod catalog_repair;
mod directory;
mod embedded;
mod gather_stats;
mod group_description;
mod groups;
mod groups_place;
mod inner;
mod lazy_log;
mod leftover;
mod options;
mod progress;
mod rebuild;
mod retain;
mod stats;
mod topic;

use std::path::Path;
use std::sync::Arc;

pub use catalog_repair::{CatalogDamage, CatalogRepair};
pub(crate) use directory::GROUPS_TOPIC;
pub use embedded::Embedded;
pub use group_description::{GroupDescription, GroupListing, GroupMember, GroupPosition, GroupReset};
pub(crate) use groups::{Groups, group_id};
pub(crate) use groups_place::GroupsPlace;
pub(crate) use inner::Inner;
pub(crate) use lazy_log::LazyLog;
pub use options::{BrokerOptions, Maintenance};
pub use rebuild::{LeftOut, LeftOutReason, RebuiltTopic};
pub use stats::{
    BrokerStats, CloseFailure, CloseReport, GroupPartitionStats, GroupStats, MaintenanceReport,
    OpenPartitionStats, PartitionStats, RetentionStats, TopicDescription, TopicStats,
};
pub(crate) use topic::{Topic, TopicSet};

use tailwater_log::storage::{Disk, Storage};

#[cfg(doc)]
use crate::Error;
use crate::backup::{self, BackupCheck};
use crate::{ConsumerOptions, Producer, ProducerOptions, Reset, Result, SeekTo, TopicConfig, TopicPartition};

/// A directory of topics, opened for publishing and subscribing.
///
/// `Clone + Send + Sync`: clones are the same broker. Producers, consumers and receipts do not keep it open: when
/// [`Broker::close`] is called, or the last clone is dropped, they answer [`Error::Closed`].
///
/// # Examples
///
/// ```
/// use tailwater::{Broker, TopicConfig};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path().join("data");
/// let broker = Broker::open(&directory)?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let at = broker.producer("orders")?.publish("order 17: two espressos")?;
/// assert_eq!(at.offset.get(), 0);
/// broker.close()?;
///
/// // Another day, another process.
/// let broker = Broker::open(&directory)?;
/// assert_eq!(broker.topics()?, ["orders"]);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Broker {
    handle: Arc<Handle>,
}

/// What all clones of a broker hold, and nobody else: the broker is closed when it goes.
#[derive(Debug)]
struct Handle {
    embedded: Embedded,
}

impl Broker {
    /// Opens the broker in `directory`, which is made if it is missing. Topics are read from the catalog; each partition
    /// is opened, and recovered if need be, at its first use.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] if another process, or another broker in this one, has it open for writing.
    /// - [`Error::NotATailwaterDirectory`], [`Error::CatalogMissing`], [`Error::CatalogDamaged`],
    ///   [`Error::Unsupported`], [`Error::UnsupportedSetting`]: nothing was changed.
    /// - [`Error::ReadOnlyDirectory`], [`Error::NetworkFileSystem`], [`Error::DiskFull`], [`Error::Io`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        BrokerOptions::new().open(directory)
    }

    /// Opens a broker that keeps everything in memory, for tests: it runs on a simulated disk.
    ///
    /// # Errors
    ///
    /// None that a program can cause.
    ///
    /// # Examples
    ///
    /// ```
    /// use tailwater::{Broker, TopicConfig};
    ///
    /// let broker = Broker::in_memory()?;
    /// broker.create_topic("mails", &TopicConfig::new())?;
    /// broker.producer("mails")?.publish(b"hello")?;
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    pub fn in_memory() -> Result<Self> {
        BrokerOptions::new().in_memory()
    }

    /// Shows the broker in `directory` without a lock and without changing anything, also while another process writes
    /// to it: what is durable there.
    ///
    /// # Errors
    ///
    /// As [`Broker::open`], and [`Error::DirectoryMissing`]. Everything that would change something answers
    /// [`Error::ReadOnly`].
    pub fn attach_read_only(directory: impl AsRef<Path>) -> Result<Self> {
        BrokerOptions::new().attach_read_only(directory)
    }

    /// Rebuilds the catalog of `directory` if it is missing or damaged, from the directories of the partitions; a sound one
    /// is left as it is. Then the directory can be opened again, and its partitions
    /// [verified](Embedded::verify) and [repaired](Embedded::repair).
    ///
    /// Topics, their ids and their partitions are found again, and with them all records and the groups' positions. The
    /// settings of the topics are lost: they are the defaults until [`Broker::alter_topic`] sets them. A directory in which
    /// nothing tells which topic it is of is left out and reported; groups forget their positions in such a topic
    /// once the broker is used. To have its records back, restore it before that.
    ///
    /// Nothing is deleted: the damaged file is copied to `quarantine/` in `directory` first. The new one is put in
    /// its place whole, and a repair that is interrupted can be repeated.
    ///
    /// # Errors
    ///
    /// All but the last leave everything as it was.
    ///
    /// - [`Error::Unsupported`] if a newer version wrote the catalog or one of the partitions.
    /// - [`Error::ContradictingDirectories`], [`Error::WrongPartition`] if directories were copied, moved or renamed, so
    ///   that it cannot be told which topics there are.
    /// - [`Error::Locked`], [`Error::DirectoryMissing`], [`Error::NotATailwaterDirectory`],
    ///   [`Error::ReadOnlyDirectory`], [`Error::NetworkFileSystem`].
    /// - [`Error::DiskFull`], [`Error::Io`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tailwater::{Broker, Error, TopicConfig};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let directory = directory.path().join("data");
    /// let broker = Broker::open(&directory)?;
    /// broker.create_topic("orders", &TopicConfig::new().partitions(2))?;
    /// broker.producer("orders")?.publish("an espresso")?;
    /// broker.close()?;
    ///
    /// std::fs::write(directory.join("catalog"), "no catalog").unwrap();
    /// assert!(matches!(Broker::open(&directory), Err(Error::CatalogDamaged { .. })));
    /// let repaired = Broker::repair_catalog(&directory)?;
    /// assert!(repaired.damage.is_some() && repaired.quarantined.len() == 1);
    /// assert_eq!(Broker::open(&directory)?.describe_topic("orders")?.partition_count, 2);
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    pub fn repair_catalog(directory: impl AsRef<Path>) -> Result<CatalogRepair> {
        Self::repair_catalog_on(Arc::new(Disk), directory)
    }

    /// The same on any storage.
    ///
    /// # Errors
    ///
    /// As [`Broker::repair_catalog`].
    pub fn repair_catalog_on(
        storage: Arc<dyn Storage>,
        directory: impl AsRef<Path>,
    ) -> Result<CatalogRepair> {
        catalog_repair::repair(&storage, directory.as_ref())
    }

    /// Reads every file of a backup and compares it with what it was when [`Embedded::backup_to`] made it. `progress` is told how
    /// many bytes more were read. `None` if `directory` is no backup, or was opened since.
    ///
    /// # Errors
    ///
    /// [`Error::BackupDamaged`] if the list of its files cannot be used, [`Error::Unsupported`], [`Error::Io`].
    pub fn check_backup(
        directory: impl AsRef<Path>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<BackupCheck>> {
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        Self::check_backup_on(&storage, directory, progress)
    }

    /// The same on any storage.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn check_backup_on(
        storage: &Arc<dyn Storage>,
        directory: impl AsRef<Path>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<BackupCheck>> {
        backup::check(storage, directory.as_ref(), progress)
    }

    /// Creates a topic. When it returns, the topic is durable.
    ///
    /// Names are Apache Kafka's: 1 to 249 ASCII letters, digits, `.`, `_` and `-`, not `.` or `..`; those that begin with
    /// `__` are reserved. They are compared without case.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidTopicName`], [`Error::TopicExists`], [`Error::InvalidPartitionCount`],
    ///   [`Error::InvalidConfig`], [`Error::UnsupportedCompression`], [`Error::DirectoryInTheWay`]: nothing was changed.
    /// - [`Error::DiskFull`], [`Error::Io`]: there is no such topic. If that cannot be told, every further change of topics
    ///   answers [`Error::Failed`] until the broker is reopened.
    /// - [`Error::ReadOnly`], [`Error::Closed`].
    pub fn create_topic(&self, name: &str, config: &TopicConfig) -> Result<()> {
        self.inner().create_topic(name, config)
    }

    /// The names of all topics, in alphabetical order.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; those of reading the catalog, if the broker is attached read-only.
    pub fn topics(&self) -> Result<Vec<String>> {
        Ok(self.inner().topics()?.iter().map(|topic| topic.name.to_string()).collect())
    }

    /// Describes a topic.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], and those of [`Broker::topics`].
    pub fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        let topic = self.inner().topic(name)?;
        Ok(TopicDescription {
            id: topic.id,
            name: topic.name.to_string(),
            partition_count: topic.partition_count(),
            config: TopicConfig::clone(&topic.config()),
        })
    }

    /// Changes the settings of a topic that are given in `changes`, durably, and adds partitions if it gives more of
    /// them. Producers and consumers that are at work go on with the new settings.
    ///
    /// With more partitions, a key may go to another partition than before.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], and those of [`Broker::create_topic`].
    pub fn alter_topic(&self, name: &str, changes: &TopicConfig) -> Result<()> {
        self.inner().alter_topic(name, changes)
    }

    /// Deletes a topic with all its records. When it returns, that is durable. A topic created later under the same name
    /// is another one: producers of the old one answer [`Error::UnknownTopic`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`]; [`Error::DiskFull`], [`Error::Io`]: the topic is still there. If that cannot be had, every
    /// further change of topics answers [`Error::Failed`] until the broker is reopened.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.inner().delete_topic(name)
    }

    /// Makes a producer for a topic.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::ReadOnly`], [`Error::Closed`].
    pub fn producer(&self, topic: &str) -> Result<Producer> {
        self.producer_with(topic, ProducerOptions::new())
    }

    /// Makes a producer for a topic, with options.
    ///
    /// # Errors
    ///
    /// As [`Broker::producer`]; [`Error::UnsupportedCompression`] if this build does not have the one that is asked for.
    pub fn producer_with(&self, topic: &str, options: ProducerOptions) -> Result<Producer> {
        Producer::new(Arc::clone(self.inner()), topic, options)
    }

    /// How to make a consumer of a group: `broker.consumer("billing").subscribe(&["orders"])`. The group remembers, over
    /// restarts and crashes, what its consumers have done. Any text of 1 to 255 bytes without control characters names
    /// one.
    pub fn consumer(&self, group: &str) -> ConsumerOptions {
        ConsumerOptions::new(Arc::clone(self.inner()), Some(group.to_owned()))
    }

    /// How to make a reader: a consumer without a group, which can do everything but commit.
    pub fn reader(&self) -> ConsumerOptions {
        ConsumerOptions::new(Arc::clone(self.inner()), None)
    }

    /// All groups that have committed something, ordered by name.
    ///
    /// # Errors
    ///
    /// [`Error::GroupsLogDamaged`], [`Error::Corrupt`] and those of the disk.
    pub fn groups(&self) -> Result<Vec<GroupListing>> {
        self.inner().list_groups()
    }

    /// Describes a group: where it is in each partition, and how far behind.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::InvalidGroupId`], and those of [`Broker::groups`].
    pub fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.inner().describe_group(group)
    }

    /// Has a group start in all partitions of these topics at `start`, durably, before it has a consumer: from then on no
    /// record is missed.
    ///
    /// # Errors
    ///
    /// - [`Error::GroupExists`] if it has committed offsets in one of the topics: [`Broker::reset_group`] moves those.
    /// - [`Error::UnknownTopic`], [`Error::InvalidGroupId`], [`Error::OffsetOutOfRange`], [`Error::NothingToRead`].
    /// - [`Error::GroupNotEmpty`], [`Error::ReadOnly`], and those of [`Broker::groups`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tailwater::{Broker, Reset, TopicConfig};
    ///
    /// let broker = Broker::in_memory()?;
    /// broker.create_topic("orders", &TopicConfig::new())?;
    /// let orders = broker.producer("orders")?;
    /// orders.publish("yesterday's")?;
    /// broker.create_group("billing", &["orders"], Reset::Latest)?;
    /// orders.publish("today's")?;
    /// assert_eq!(broker.describe_group("billing")?.positions[0].lag.records, 1);
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    pub fn create_group(&self, group: &str, topics: &[&str], start: Reset) -> Result<()> {
        self.inner().create_group(group, topics, start)
    }

    /// Moves a group to another place in these partitions, durably and in all of them at once. It must have no consumer
    /// in this process.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownGroup`], [`Error::GroupNotEmpty`], [`Error::UnknownTopic`], [`Error::UnknownPartition`],
    ///   [`Error::OffsetOutOfRange`], [`Error::ForeignCursor`], [`Error::NothingToRead`]: nothing was changed.
    /// - [`Error::ReadOnly`], and those of [`Broker::groups`].
    pub fn reset_group(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        to: SeekTo,
    ) -> Result<Vec<GroupReset>> {
        self.inner().reset_group(group, partitions, to, false)
    }

    /// Tells what [`Broker::reset_group`] would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// As there; works read-only too.
    pub fn preview_group_reset(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        to: SeekTo,
    ) -> Result<Vec<GroupReset>> {
        self.inner().reset_group(group, partitions, to, true)
    }

    /// Forgets a group and all that it committed, durably.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`]; [`Error::GroupNotEmpty`] while a consumer is a member of it; [`Error::ReadOnly`], and
    /// those of [`Broker::groups`].
    pub fn delete_group(&self, group: &str) -> Result<()> {
        self.inner().delete_group(group)
    }

    /// What only an embedded log can do, such as to append if nobody else did; `None` if this is a remote broker.
    #[must_use]
    pub fn embedded(&self) -> Option<&Embedded> {
        Some(&self.handle.embedded)
    }

    /// The broker's figures: of each topic, partition and group. Opens nothing, and waits for nobody who appends, syncs or
    /// opens, so that it can be asked for every few seconds. What it costs grows with the partitions and the groups'
    /// positions: a few hundred nanoseconds for each that is open or committed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tailwater::{Broker, TopicConfig};
    ///
    /// let broker = Broker::in_memory()?;
    /// broker.create_topic("orders", &TopicConfig::new().partitions(2))?;
    /// let orders = broker.producer("orders")?;
    /// for n in 0..10 {
    ///     orders.publish(&format!("order {n}"))?;
    /// }
    /// let mut billing = broker.consumer("billing").max_records(4).subscribe(&["orders"])?;
    /// billing.poll(Duration::from_secs(10))?;
    /// billing.commit().wait()?;
    ///
    /// let stats = broker.stats();
    /// let topic = stats.topic("orders").expect("it was created");
    /// let figures = topic.partitions.iter().filter_map(|partition| partition.log());
    /// assert_eq!(figures.clone().map(|log| log.records_written).sum::<u64>(), 10);
    /// for log in figures {
    ///     assert!(log.durable_offset == log.log_end_offset && log.sync_times.max >= log.sync_times.mean());
    /// }
    /// assert_eq!(stats.group("billing").expect("it has committed").lag_records(), 6);
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        self.inner().stats()
    }

    /// Does on this thread all work that waits or is due: syncs that were asked for and not waited for, writes and syncs
    /// at their intervals, timed rolls. For [`Maintenance::Manual`]; does no harm beside background threads.
    ///
    /// # Errors
    ///
    /// The first error; the rest of the work was done all the same.
    pub fn run_maintenance_once(&self) -> Result<MaintenanceReport> {
        self.inner().run_maintenance_once()
    }

    /// Makes everything durable, marks the partitions as closed in order, and lets go of the directory. All handles
    /// answer [`Error::Closed`] from then on, and whoever waits is woken. Closing again tells the same and does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotClosedCleanly`] says which partitions could not be made durable. The broker is closed all the same.
    pub fn close(&self) -> Result<CloseReport> {
        self.inner().close()
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.embedded.inner
    }
}

impl From<Arc<Inner>> for Broker {
    fn from(inner: Arc<Inner>) -> Self {
        Self { handle: Arc::new(Handle { embedded: Embedded { inner } }) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.embedded.inner.close() {
            tracing::error!(%error, "a dropped broker was not closed in order");
        }
    }
}

const _: () = {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    is_shared::<Broker>();
    is_shared::<Embedded>();
};
