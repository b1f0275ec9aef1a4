//! What an embedded log can do and a remote broker cannot.

use std::path::Path;
use std::sync::Arc;

use tailwater_log::{
    Durability, LogStats, Offset, RecoveryReport, RepairReport, Timestamp, VerifyReport, WhenFull,
};

use super::inner::Inner;
use super::lazy_log::LazyLog;
use super::stats::MaintenanceReport;
use super::topic::Topic;
use crate::backup::{self, BackupOptions, BackupReport};
use crate::consumer::OpenPartition;
use crate::receipt::{Appended, Receipt};
use crate::{Message, Result, TopicPartition};

/// What only an embedded log can do: [`Broker::embedded`](crate::Broker::embedded).
///
/// Each call names a partition. Partitions are opened at their first use.
///
/// # Examples
///
/// ```
/// use tailwater::{Broker, Message, Offset, PartitionId, TopicConfig, TopicPartition};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("votes", &TopicConfig::new())?;
/// let embedded = broker.embedded().expect("it is no remote broker");
/// let votes = TopicPartition::new("votes", PartitionId::ZERO);
///
/// // A compare-and-append: only one of two writers that saw the same end gets through.
/// embedded.append_if(&votes, Offset::ZERO, &[Message::new(b"yes")])?.wait()?;
/// assert!(embedded.append_if(&votes, Offset::ZERO, &[Message::new(b"no")]).is_err());
///
/// embedded.truncate_to(&votes, Offset::ZERO)?;
/// assert_eq!(embedded.stats(&votes)?.log_end_offset, Offset::ZERO);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Embedded {
    pub(super) inner: Arc<Inner>,
}

impl Embedded {
    /// Appends `messages` as one batch if the partition ends at `expected_end`: a compare-and-append. The messages' own
    /// choice of a partition is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::UnexpectedEnd`](crate::Error::UnexpectedEnd) if it ends elsewhere; nothing was appended then. Otherwise as
    /// [`Producer::send_batch`](crate::Producer::send_batch).
    pub fn append_if(
        &self,
        partition: &TopicPartition,
        expected_end: Offset,
        messages: &[Message<'_>],
    ) -> Result<Receipt<Appended>> {
        let (topic, lazy) = self.find(partition)?;
        let log = topic.open(&lazy)?;
        let receipt = Message::with_records(messages, |records| {
            let append = || log.append_if(expected_end, records, None, WhenFull::Wait);
            self.inner.with_space(&topic, &lazy, &log, append(), append)
        })?;
        if receipt.durability() == Durability::Durable {
            self.inner.queues().request_sync(&lazy);
        }
        self.inner.queues().note_activity(&lazy);
        Ok(Receipt::appended(receipt, &topic, &lazy))
    }

    /// Removes every record from `offset` on, durably. Positions beyond it are noticed as diverged, since the log epoch
    /// is raised.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange),
    /// [`Error::InsideOpaqueBatch`](crate::Error::InsideOpaqueBatch): nothing was changed. Those of the disk.
    pub fn truncate_to(&self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        let done = self.on_log(partition, |log| log.truncate_to(offset));
        // A group may be less far behind now.
        self.inner.progress().notify();
        done
    }

    /// Moves the start of the partition to `offset`, durably, and removes the segments below it.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) beyond the end; an offset below the start changes
    /// nothing. Those of the disk.
    pub fn delete_records_before(&self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        let done = self.on_log(partition, |log| log.delete_records_before(offset));
        // A group may be less far behind now.
        self.inner.progress().notify();
        done
    }

    /// Starts a new segment file, if the present one holds records.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn roll(&self, partition: &TopicPartition) -> Result<()> {
        self.on_log(partition, tailwater_log::Log::roll)
    }

    /// Makes everything appended so far to the partition durable. Returns the durable offset.
    ///
    /// # Errors
    ///
    /// As [`Receipt::wait`].
    pub fn sync(&self, partition: &TopicPartition) -> Result<Offset> {
        self.on_log(partition, tailwater_log::Log::sync)
    }

    /// Reads and checks every byte of the partition up to its durable offset, changing nothing. `progress` is told how
    /// many bytes more were read.
    ///
    /// # Errors
    ///
    /// Those of the disk. Damage is no error but in the report.
    pub fn verify(&self, partition: &TopicPartition, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport> {
        self.on_log(partition, |log| log.verify(progress))
    }

    /// Makes a damaged partition whole again. Nothing is deleted: what is damaged is set aside in the partition's
    /// `quarantine/`, and what cannot be read any more is a gap from then on, which consumers are told of
    /// ([`Event::Gap`](crate::Event::Gap)). The partition is closed for it and opened again at its next use; what was
    /// being appended meanwhile answers [`Error::Closed`](crate::Error::Closed). Changes nothing where
    /// [`verify`](Embedded::verify) finds no damage. `__groups-0`, where groups keep their positions, is repaired likewise:
    /// groups whose latest commits are lost go on where an earlier one was. A partition whose directory is gone is made
    /// anew, without records.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) for a broker that is attached;
    /// [`Error::Unsupported`](crate::Error::Unsupported) if a newer version wrote the partition; those of the disk. What was repaired by then stays repaired, and a repair can be repeated.
    pub fn repair(&self, partition: &TopicPartition) -> Result<RepairReport> {
        let repaired = self.inner.repair(partition);
        match &repaired {
            Ok(report) => tracing::info!(%partition, lost = ?report.lost, "repaired a partition"),
            Err(error) => tracing::warn!(%partition, %error, "a repair failed"),
        }
        // Who sleeps listens to the log that was closed for it.
        self.inner.wake_watchers();
        repaired
    }

    /// The first visible offset that was appended at or after `time`, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) and those of the disk.
    pub fn offset_for_time(&self, partition: &TopicPartition, time: Timestamp) -> Result<Option<Offset>> {
        self.on_log(partition, |log| log.offset_for_time(time))
    }

    /// The partition's figures.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn stats(&self, partition: &TopicPartition) -> Result<LogStats> {
        self.on_log(partition, tailwater_log::Log::stats)
    }

    /// How the partition was found when it was opened.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn recovery_report(&self, partition: &TopicPartition) -> Result<RecoveryReport> {
        self.on_log(partition, |log| Ok(log.recovery_report().clone()))
    }

    /// Makes a backup of the whole directory while it is in use: [`backup_with`](Embedded::backup_with) with the default
    /// options.
    ///
    /// # Errors
    ///
    /// The same.
    ///
    /// # Examples
    ///
    /// ```
    /// use tailwater::{Broker, TopicConfig};
    ///
    /// let there = tempfile::tempdir()?;
    /// let broker = Broker::open(there.path().join("data"))?;
    /// broker.create_topic("orders", &TopicConfig::new())?;
    /// broker.producer("orders")?.publish("two espressos")?;
    ///
    /// let backup = there.path().join("backup");
    /// broker.embedded().expect("it is local").backup_to(&backup)?;
    /// assert!(Broker::check_backup(&backup, &mut |_| {})?.expect("it is one").problems.is_empty());
    ///
    /// // To restore it is to open it, or a copy of it.
    /// let restored = Broker::open(&backup)?;
    /// assert_eq!(restored.topics()?, ["orders"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup_to(&self, directory: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_with(directory, &BackupOptions::default())
    }

    /// Makes a backup of the whole directory while it is in use: all topics, with what is durable of each partition at one
    /// moment, and all committed positions, none of which lies beyond what is copied of its partition. Nobody waits meanwhile.
    ///
    /// `directory` must not exist; its parents are made. It is there, durable and whole, when this returns, and there is
    /// nothing of that name before. Sealed segments get a second name where the file system can do that, unless the options say
    /// otherwise; they are read for their digests all the same.
    ///
    /// To restore a backup is to open it, or a copy of it: everything is there as it was, with a higher epoch, so that a
    /// position in records that are not in the backup is noticed as diverged. From then on it is no backup any more.
    ///
    /// A broker that is attached read-only backs up what is recorded as durable for it, and waits up to two seconds for what
    /// was committed to be so.
    ///
    /// # Errors
    ///
    /// There is no backup after any of these:
    /// - [`Error::BackupExists`](crate::Error::BackupExists), [`Error::BackupInside`](crate::Error::BackupInside),
    ///   [`Error::NotABackup`](crate::Error::NotABackup), [`Error::BackupDamaged`](crate::Error::BackupDamaged).
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if a partition was found damaged: its damage is not to spread.
    /// - [`Error::BackupOvertaken`](crate::Error::BackupOvertaken),
    ///   [`Error::NotRecorded`](crate::Error::NotRecorded): it can be tried again.
    /// - [`Error::Locked`](crate::Error::Locked) if another backup of that name is being made.
    /// - Those of the disk.
    pub fn backup_with(&self, directory: impl AsRef<Path>, options: &BackupOptions) -> Result<BackupReport> {
        backup::make(&self.inner, directory.as_ref(), options)
    }

    /// As [`Broker::run_maintenance_once`](crate::Broker::run_maintenance_once).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn run_maintenance_once(&self) -> Result<MaintenanceReport> {
        self.inner.run_maintenance_once()
    }

    fn find(&self, partition: &TopicPartition) -> Result<(Arc<Topic>, Arc<LazyLog>)> {
        let topic = self.inner.topic(&partition.topic)?;
        let lazy = topic.partition(partition.partition)?;
        Ok((topic, lazy))
    }

    fn on_log<T>(
        &self,
        partition: &TopicPartition,
        act: impl FnOnce(&tailwater_log::Log) -> tailwater_log::Result<T>,
    ) -> Result<T> {
        let (topic, lazy) = self.find(partition)?;
        let open = OpenPartition::new(&topic, &lazy)?;
        open.refresh()?;
        let done = act(&open.log).map_err(|error| open.explain(error));
        if !self.inner.is_read_only() {
            self.inner.queues().note_activity(&lazy);
        }
        done
    }
}
