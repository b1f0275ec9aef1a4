//! The log of one partition, as its users see it.

mod append;
mod checkpoint_file;
mod close;
mod commit;
mod compact;
mod compress;
mod counters;
mod ends;
mod fetch;
mod inner;
mod lookup;
#[cfg(all(test, loom))]
mod loom_tests;
mod maintain;
mod open_files;
mod options;
mod receipt;
mod removal;
mod retention;
mod signal;
mod slot;
mod snapshot;
mod space;
mod staging;
mod truncate;
mod types;
mod verify;
mod writer;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

pub use append::Staged;
pub(crate) use checkpoint_file::{CHECKPOINT_NAME, CheckpointFile, FoundCheckpoint, ScanPoint};
pub use compact::{CompactionLimits, CompactionOutcome, CompactionReport, CompactionStats, LeftAlone};
pub use counters::SyncTimes;
pub(crate) use fetch::kind_of;
pub use fetch::{FetchHint, Fetched, FetchedBatch, Record};
pub(crate) use inner::Inner;
pub use open_files::OpenFiles;
pub(crate) use open_files::{AsError, FileBudget, Holder, Usage};
pub use options::LogOptions;
pub use receipt::Receipt;
pub use removal::RemovalStats;
pub use retention::RetentionReport;
pub use signal::{ListenerGuard, Signal};
pub use snapshot::{LogSnapshot, SnapshotSegment};
pub use space::{SpaceBudget, SpaceShare};
use staging::{Refusal, Staging};
pub use types::{
    Appended, FetchIsolation, FetchLimits, LogStats, MaintenanceReport, NewRecord, OpaqueBatch, WhenFull,
};
pub use verify::VerifyReport;

use crate::recovery::{RecoveryReport, RepairReport};
use crate::storage::Storage;
use crate::sync::atomic::Ordering;
use crate::{
    Compression, Durability, Error, LogConfig, LogEpoch, Offset, OffsetRange, PartitionIdentity, Result,
    Timestamp,
};

/// One partition of a durable log.
///
/// `Clone + Send + Sync`: clones are handles to the same log. Appends from many threads share syncs (group commit);
/// reads take no lock below the published end. The log has no thread of its own: see [`Log::maintain`].
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use tailwater_log::storage::SimDisk;
/// use tailwater_log::{
///     FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, Offset, PartitionId, PartitionIdentity, TopicId, WhenFull,
/// };
///
/// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([7; 16]), partition: PartitionId::ZERO };
/// let disk = Arc::new(SimDisk::new(1));
/// let log = Log::create(disk.clone(), "/orders-0".as_ref(), LogOptions::new(identity))?;
///
/// let receipt = log.append(&[NewRecord::new(b"two espressos")], None, WhenFull::Wait)?;
/// let appended = receipt.wait()?;
/// assert_eq!(appended.offsets.start, Offset::ZERO);
/// assert_eq!(log.durable_offset(), Offset::new(1));
///
/// let fetched = log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None)?;
/// let values: Vec<_> = fetched.iter().map(|record| record.value()).collect();
/// assert_eq!(values, [Some(b"two espressos".as_slice())]);
/// log.close()?;
/// # Ok::<(), tailwater_log::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

impl Log {
    /// Makes a log in `directory`, which is made too, with its parents, if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with `AlreadyExists` if there is a log already, [`Error::UnsupportedCompression`] if it is to be compressed
    /// as this build cannot, and those of [`Log::open`].
    pub fn create(storage: Arc<dyn Storage>, directory: &Path, options: LogOptions) -> Result<Self> {
        Inner::create(storage, directory, options).map(Self::from)
    }

    /// Opens the log in `directory`. One that was not closed is recovered: see [`Log::recovery_report`].
    ///
    /// A log whose damage keeps it from being recovered is opened all the same, for reading; appends answer
    /// [`Error::Corrupt`].
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] if another process, or another handle, writes to it.
    /// - [`Error::Corrupt`] if there is no segment at all.
    /// - [`Error::Unsupported`] if a newer version wrote it.
    /// - [`Error::InvalidConfig`], [`Error::NetworkFileSystem`], [`Error::Io`].
    pub fn open(storage: Arc<dyn Storage>, directory: &Path, options: LogOptions) -> Result<Self> {
        Inner::open(storage, directory, options).map(Self::from)
    }

    /// Shows the log in `directory` without a lock and without changing anything, also while another process writes
    /// to it: what is recorded there as durable. [`Log::fetch`] at the end looks whether there is more.
    ///
    /// # Errors
    ///
    /// As [`Log::open`], but for the lock.
    pub fn attach_read_only(
        storage: Arc<dyn Storage>,
        directory: &Path,
        options: LogOptions,
    ) -> Result<Self> {
        Inner::attach(storage, directory, options).map(Self::from)
    }

    /// Makes a damaged log whole again, so that it can be opened and appended to. Nothing is deleted: what is damaged is
    /// set aside in `quarantine/`, and what cannot be read any more is from then on a gap that readers are told of
    /// ([`Fetched::lost`]). Changes nothing where [`Log::verify`] finds no damage. A repair that is interrupted is repeated.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] while the log is open for writing.
    /// - [`Error::Unsupported`] if a newer version wrote it; [`Error::Io`], [`Error::DiskFull`]: what was repaired by then
    ///   stays repaired.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tailwater_log::storage::{OpenMode, SimDisk, Storage};
    /// use tailwater_log::*;
    ///
    /// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
    /// let disk: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
    /// let log = Log::create(Arc::clone(&disk), "/orders-0".as_ref(), LogOptions::new(identity))?;
    /// for order in ["an espresso", "a tea", "the bill"] {
    ///     log.append(&[NewRecord::new(order.as_bytes())], None, WhenFull::Wait)?.wait()?;
    /// }
    /// log.close()?;
    /// // A byte of the second record rots.
    /// let file = disk.open_file("/orders-0/00000000000000000000.log".as_ref(), OpenMode::ReadWrite)?;
    /// file.write_all_at(&[0xff], FilePosition::new(1024 + 88 + 72))?;
    ///
    /// let report = Log::repair(Arc::clone(&disk), "/orders-0".as_ref(), LogOptions::new(identity))?;
    /// assert_eq!(report.lost, [OffsetRange { start: Offset::new(1), end: Offset::new(2) }]);
    /// let log = Log::open(disk, "/orders-0".as_ref(), LogOptions::new(identity))?;
    /// assert!(log.verify(&mut |_| {})?.damage.is_empty());
    /// # Ok::<(), tailwater_log::Error>(())
    /// ```
    pub fn repair(storage: Arc<dyn Storage>, directory: &Path, options: LogOptions) -> Result<RepairReport> {
        Inner::repair(storage, directory, options)
    }

    /// How the open found the directory.
    #[must_use]
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Which partition this is.
    #[must_use]
    pub fn identity(&self) -> PartitionIdentity {
        self.inner.identity
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Its present configuration.
    #[must_use]
    pub fn config(&self) -> Arc<LogConfig> {
        self.inner.config.load_full()
    }

    /// Changes the configuration, from the next append on.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the field that is out of its bounds, [`Error::UnsupportedCompression`] the feature that
    /// this build lacks; nothing is changed then.
    pub fn set_config(&self, config: LogConfig) -> Result<()> {
        config.validate()?;
        // Whoever only reads does not need it.
        if self.inner.attachment.is_none() {
            config.check_compression()?;
        }
        self.inner.staging().set_config(&config);
        self.inner.shows_durable.store(config.durability == Durability::Durable, Ordering::SeqCst);
        self.inner.config.store(Arc::new(config));
        // What was invisible may be visible now.
        self.inner.listeners.notify_all();
        Ok(())
    }

    /// Appends `records` as one batch: all of them are there after a crash, or none.
    ///
    /// Returns when they are staged and have their offsets; the receipt tells when they have reached `durability`
    /// (`None`: the log's own). Single records may share a batch with others.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any of these:
    /// - [`Error::InvalidBatch`], [`Error::BatchTooLarge`].
    /// - [`Error::StagingFull`] if there was no room, with [`WhenFull::Wait`] for `max_block_ms`.
    /// - [`Error::DiskFull`] if no space could be reserved.
    /// - [`Error::UnsupportedCompression`] if the log is configured to compress as this build cannot.
    /// - [`Error::Failed`], [`Error::Closed`], [`Error::ReadOnly`], [`Error::Corrupt`].
    #[inline(always)]
    pub fn append(
        &self,
        records: &[NewRecord<'_>],
        durability: Option<Durability>,
        when_full: WhenFull,
    ) -> Result<Receipt> {
        match self.append_staged(records, when_full) {
            Ok(staged) => Ok(self.receipt_of(staged, durability)),
            Err(error) => Err(*error),
        }
    }

    /// As [`Log::append`] without a receipt, in a form that costs less for who waits for nothing.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    #[inline(always)]
    pub fn append_staged(
        &self,
        records: &[NewRecord<'_>],
        when_full: WhenFull,
    ) -> Result<Staged, Box<Error>> {
        // Inlined where it is called, as are those around it: what is handed on through memory costs as much as an append.
        let staged = match records {
            [record] => self.inner.append_one(record),
            _ => Staged::nothing(),
        };
        if staged.is_nothing() { self.inner.append_records(records, None, when_full) } else { Ok(staged) }
    }

    /// As [`Log::append_staged`], compressed as said and not as the log is configured. A single record shares a batch only with
    /// those that are compressed as it is.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedCompression`] if this build does not have it, and those of [`Log::append`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tailwater_log::storage::SimDisk;
    /// use tailwater_log::*;
    ///
    /// # let identity = PartitionIdentity { topic_id: TopicId::from_bytes([7; 16]), partition: PartitionId::ZERO };
    /// # let log = Log::create(Arc::new(SimDisk::new(1)), "/orders-0".as_ref(), LogOptions::new(identity))?;
    /// let orders = [NewRecord::new(b"two espressos"), NewRecord::new(b"two flat whites")];
    /// match log.append_staged_with(&orders, Compression::Lz4, WhenFull::Wait) {
    ///     Ok(staged) => drop(log.receipt_of(staged, None).wait()?),
    ///     Err(error) => assert_eq!(
    ///         error.to_string(),
    ///         "this build has no lz4 compression: build it with the cargo feature `lz4`",
    ///     ),
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn append_staged_with(
        &self,
        records: &[NewRecord<'_>],
        compression: Compression,
        when_full: WhenFull,
    ) -> Result<Staged, Box<Error>> {
        self.inner.append_records(records, Some(compression), when_full)
    }

    /// The receipt of what [`Log::append_staged`] of this log has staged.
    #[inline(always)]
    pub fn receipt_of(&self, staged: Staged, durability: Option<Durability>) -> Receipt {
        self.receipt(staged.appended(), durability.unwrap_or(staged.durability()))
    }

    /// As [`Log::append`], if the log end offset is `expected_end`: a compare-and-append.
    ///
    /// # Errors
    ///
    /// [`Error::UnexpectedEnd`] if it is not, and those of [`Log::append`]. Nothing was appended then.
    pub fn append_if(
        &self,
        expected_end: Offset,
        records: &[NewRecord<'_>],
        durability: Option<Durability>,
        when_full: WhenFull,
    ) -> Result<Receipt> {
        self.stage(durability, when_full, |staging, now| {
            let log_end_offset = staging.next_offset();
            if log_end_offset != expected_end {
                return Err(Error::UnexpectedEnd { expected: expected_end, log_end_offset }.into());
            }
            staging.append_batch(records, None, now)
        })
    }

    /// Appends a batch that Tailwater does not look into.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn append_opaque(
        &self,
        batch: &OpaqueBatch<'_>,
        durability: Option<Durability>,
        when_full: WhenFull,
    ) -> Result<Receipt> {
        self.stage(durability, when_full, |staging, now| staging.append_opaque(batch, now))
    }

    /// For a task whose append answered [`Error::StagingFull`]: `Ready` when there may be room again. The task is woken
    /// by the next write or sync, which somebody else has to make.
    ///
    /// # Errors
    ///
    /// Why there will be no room: [`Error::Failed`], [`Error::Closed`].
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let has_room = || {
            let staging = self.inner.staging();
            match staging.stopped() {
                Some(reason) => Some(Err(reason.clone())),
                None => (staging.staged_bytes() < staging.limit_bytes() / 2).then_some(Ok(())),
            }
        };
        if let Some(room) = has_room() {
            return Poll::Ready(room);
        }
        self.inner.commit.register(context);
        has_room().map_or(Poll::Pending, Poll::Ready)
    }

    /// Writes everything staged to the page cache. Returns the end of what is written.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] (what could not be written stays staged), [`Error::Failed`], [`Error::Io`].
    pub fn write_staged(&self) -> Result<Offset> {
        self.inner.write_staged(None)?;
        Ok(self.inner.ends.written())
    }

    /// Makes everything appended so far durable. Returns the durable offset.
    ///
    /// # Errors
    ///
    /// As [`Receipt::wait`].
    pub fn sync(&self) -> Result<Offset> {
        loop {
            match self.sync_up_to(self.log_end_offset()) {
                // A truncation came between: once it is over there is another end.
                Err(Error::Truncated { .. } | Error::OffsetOutOfRange { .. }) => {
                    drop(self.inner.commit.lead());
                }
                synced => return synced,
            }
        }
    }

    /// Makes every record below `upper` durable and returns the durable offset, which can be higher: concurrent callers
    /// share one sync. Blocks for one device sync; costs nothing if `upper` is durable.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] if `upper` is beyond the log end offset, and those of [`Receipt::wait`].
    pub fn sync_up_to(&self, upper: Offset) -> Result<Offset> {
        if upper <= self.inner.ends.durable() {
            return Ok(self.inner.ends.durable());
        }
        // Both at once: a receipt of the new epoch for records that a truncation removed would never complete.
        let (log_end_offset, epoch) = {
            let staging = self.inner.staging();
            (staging.next_offset(), staging.epoch())
        };
        if upper > log_end_offset {
            return Err(self.inner.out_of_range(upper, log_end_offset));
        }
        let appended = Appended { offsets: OffsetRange { start: self.durable_offset(), end: upper }, epoch };
        self.receipt(appended, Durability::Durable).wait()?;
        Ok(self.inner.ends.durable())
    }

    /// Looks what the process that writes has made durable since the last look; a [fetch](Log::fetch) at the end does so
    /// itself. Does nothing for a log that this process writes.
    ///
    /// What is durable is seen once it is recorded: with the next append, or when the writer has been idle for 50 ms.
    ///
    /// # Errors
    ///
    /// Those of [`Log::attach_read_only`]. The log then shows what it did before.
    pub fn refresh(&self) -> Result<()> {
        self.inner.refresh()
    }

    /// Whether something was appended that is not durable yet.
    #[must_use]
    pub fn has_unsynced(&self) -> bool {
        self.inner.writer.is_some() && self.log_end_offset() > self.durable_offset()
    }

    /// First readable offset.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.inner.ends.start()
    }

    /// Next offset to assign.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.inner.log_end_offset()
    }

    /// End of what is in the page cache.
    #[must_use]
    pub fn written_offset(&self) -> Offset {
        self.inner.ends.written()
    }

    /// End of what is synced.
    #[must_use]
    pub fn durable_offset(&self) -> Offset {
        self.inner.ends.durable()
    }

    /// Where a reader at `isolation` stops for now.
    #[must_use]
    pub fn visible_end(&self, isolation: FetchIsolation) -> Offset {
        match isolation {
            FetchIsolation::LogEnd => self.log_end_offset(),
            FetchIsolation::Visible => self.inner.visible_end(isolation),
        }
    }

    /// The log epoch.
    #[must_use]
    pub fn epoch(&self) -> LogEpoch {
        self.inner.ends.epoch()
    }

    /// Where `epoch` ended: the start of the next higher epoch that there was, or the log end offset. A position
    /// `(offset, epoch)` is of this history if `offset` is at or below it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Corrupt`] if the segment that knows cannot be read; `epoch` did not end below the start of
    /// the offsets which that error names.
    pub fn epoch_end(&self, epoch: LogEpoch) -> Result<Offset> {
        self.inner.epoch_end(epoch)
    }

    /// The epoch of the record before `offset`; that of the log where there is no such record, or where the segment that it
    /// is in cannot be read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn epoch_at(&self, offset: Offset) -> Result<LogEpoch> {
        self.inner.epoch_at(offset)
    }

    /// How many bytes the batches take up on disk, or will, from the one that holds `offset` to the log end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the segment of `offset` cannot be used; [`Error::Io`].
    pub fn bytes_from(&self, offset: Offset) -> Result<u64> {
        self.inner.bytes_from(offset.max(self.log_start_offset()))
    }

    /// Reads records from `from` on. Empty at the end of what is visible.
    ///
    /// Each batch is checked before its records are handed out. Good batches before a damaged one are returned first;
    /// the fetch that continues then answers [`Error::Corrupt`].
    ///
    /// # Errors
    ///
    /// - [`Error::OffsetOutOfRange`] below the log start or beyond the log end.
    /// - [`Error::Corrupt`], whose `offsets.end` is where reading can go on.
    /// - [`Error::Unsupported`] for a batch that needs a feature this build lacks, whose `offsets.end` is where reading can
    ///   go on.
    /// - [`Error::Io`].
    pub fn fetch(
        &self,
        from: Offset,
        limits: FetchLimits,
        isolation: FetchIsolation,
        hint: Option<FetchHint>,
    ) -> Result<Fetched> {
        if self.inner.attachment.is_some() && from >= self.inner.visible_end(isolation) {
            self.inner.refresh()?;
        }
        self.inner.fetch(from, limits, isolation, hint)
    }

    /// The first visible offset that was appended at or after `time`, or `None` if there is none. It never comes too late;
    /// by what the clock may be behind ([`Clock::behind_ms`](crate::Clock::behind_ms)) and the records that share its batch, it may come early.
    ///
    /// # Errors
    ///
    /// As [`Log::fetch`].
    pub fn offset_for_time(&self, time: Timestamp) -> Result<Option<Offset>> {
        self.inner.offset_for_time(time)
    }

    /// Has `signal` woken, while it is armed, whenever more can be read at `isolation`, and when the log is closed or
    /// fails. A log attached read-only wakes nobody but by [`Log::fetch`].
    pub fn add_listener(&self, signal: &Arc<Signal>, isolation: FetchIsolation) -> ListenerGuard {
        let id = self.inner.listeners.add(signal, isolation);
        ListenerGuard { log: Arc::downgrade(&self.inner), id }
    }

    /// Removes every record from `offset` on, durably, and raises the epoch, so that positions beyond it are noticed.
    ///
    /// What compaction has removed stays removed, also where the records that superseded it are cut off.
    /// Receipts of removed records that nobody has waited for complete with [`Error::Truncated`].
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`], [`Error::InsideOpaqueBatch`], [`Error::Unsupported`] inside a batch that this build cannot
    /// look into: nothing was changed. [`Error::DiskFull`], [`Error::Failed`], [`Error::Io`].
    pub fn truncate_to(&self, offset: Offset) -> Result<()> {
        self.inner.truncate_to(offset)
    }

    /// Moves the log start to `offset`, durably, and removes the segments below it.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] beyond the log end offset; an offset below the log start changes nothing.
    /// [`Error::DiskFull`], [`Error::Failed`], [`Error::Io`].
    pub fn delete_records_before(&self, offset: Offset) -> Result<()> {
        self.inner.delete_records_before(offset)
    }

    /// Deletes the oldest records as far as `retention_ms` and `retention_bytes` of the configuration allow: whole segments,
    /// and nothing from `held` on, where somebody has yet to read. An active segment whose records are all too old is rolled
    /// first. The log start is durable when this returns; [`Log::maintain`] removes the files, one at a time.
    ///
    /// Nothing is deleted but by this, [`Log::make_space`] and [`Log::delete_records_before`].
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::Io`], [`Error::ReadOnly`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tailwater_log::storage::SimDisk;
    /// use tailwater_log::*;
    ///
    /// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([7; 16]), partition: PartitionId::ZERO };
    /// let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    /// let mut options = LogOptions::new(identity);
    /// options.config.retention_ms = Some(60_000);
    /// options.clock = clock.clone();
    /// let log = Log::create(Arc::new(SimDisk::new(1)), "/orders-0".as_ref(), options)?;
    /// log.append(&[NewRecord::new(b"an espresso")], None, WhenFull::Wait)?.wait()?;
    ///
    /// assert!(!log.retain(None)?.did_delete);
    /// clock.advance_ms(60_000);
    /// assert!(log.retain(Some(Offset::ZERO))?.held_bytes > 0, "somebody has yet to read it");
    /// assert!(log.retain(None)?.did_delete);
    /// assert_eq!(log.log_start_offset(), Offset::new(1));
    /// # Ok::<(), tailwater_log::Error>(())
    /// ```
    pub fn retain(&self, held: Option<Offset>) -> Result<RetentionReport> {
        self.inner.retain(held)
    }

    /// Deletes the oldest records until so many bytes more may be taken up under `retention_hard_bytes` of the configuration
    /// (without that limit: until so many bytes are free again): whole segments, and nothing from `up_to` on. Their files are
    /// removed when this returns, and those that were waiting for it. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// As [`Log::retain`].
    pub fn make_space(&self, wanted_bytes: u64, up_to: Offset) -> Result<bool> {
        self.inner.make_space(wanted_bytes, up_to)
    }

    /// Starts a new segment, if the active one holds records.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`], [`Error::Failed`], [`Error::Io`].
    pub fn roll(&self) -> Result<()> {
        let leader = self.inner.commit.lead();
        self.inner.roll_leading(&leader)
    }

    /// Does what is due: interval writes and syncs, timed rolls, footers of rolled segments, the next segment made
    /// ready, the checkpoint after 50 ms without appends. To be called again as the report says, by a background thread
    /// or by the application.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`], [`Error::Failed`], [`Error::Io`].
    pub fn maintain(&self) -> Result<MaintenanceReport> {
        self.inner.maintain()
    }

    /// Reads and checks every byte up to the durable offset, with `pread`, changing nothing. `progress` is told how many
    /// bytes more were read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Unsupported`]. Damage is no error but in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport> {
        self.inner.verify(progress)
    }

    /// What is durable now, to be copied while the log lives on. Waits for a sync that is under way and for nothing else; no
    /// append waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for a log that was found damaged; [`Error::Failed`]; [`Error::Io`], where the log is attached.
    pub fn snapshot(&self) -> Result<LogSnapshot> {
        LogSnapshot::take(&self.inner)
    }

    /// The log's figures. Waits for no I/O of others; the size of a segment from before the open is looked up
    /// the first time.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the size of a segment cannot be had.
    pub fn stats(&self) -> Result<LogStats> {
        let inner = &*self.inner;
        // Another process may write to what this one has only looked at.
        let is_final = inner.attachment.is_none();
        let (size_bytes, segment_count) = inner.look_at_segments(|segments| {
            let mut size_bytes = 0;
            for (index, segment) in segments.iter().enumerate() {
                size_bytes += segment.length(&inner.segment_context(segments.end_of(index)), is_final)?;
            }
            Ok((size_bytes, segments.len() as u64))
        })?;
        Ok(LogStats {
            log_start_offset: inner.ends.start(),
            log_end_offset: inner.log_end_offset(),
            written_offset: inner.ends.written(),
            durable_offset: inner.ends.durable(),
            epoch: inner.ends.epoch(),
            segment_count,
            size_bytes,
            staged_bytes: inner.staging().staged_bytes(),
            syncs: inner.counters.syncs.load(Ordering::Relaxed),
            writes: inner.counters.writes.load(Ordering::Relaxed),
            rolls: inner.counters.rolls.load(Ordering::Relaxed),
            batches_written: inner.counters.batches.load(Ordering::Relaxed),
            records_written: inner.counters.records.load(Ordering::Relaxed),
            bytes_written: inner.counters.bytes.load(Ordering::Relaxed),
            sync_times: inner.counters.sync_times(),
            removals: inner.removal_stats(),
            compaction: inner.compaction_stats()?,
        })
    }

    /// Whether nothing more is acknowledged until the log is reopened.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.inner.failure.is_set()
    }

    /// Why nothing more is acknowledged until the log is reopened.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.inner.failure.cause().cloned()
    }

    /// Makes everything durable, marks the log as closed in order, and refuses appends from then on. Handles can still
    /// read. Closing again does nothing.
    ///
    /// # Errors
    ///
    /// As [`Log::sync`]. The log is closed all the same, and recovered at its next open.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// Stages what `stage` makes, at one time however often it is asked.
    #[inline]
    fn stage(
        &self,
        durability: Option<Durability>,
        when_full: WhenFull,
        stage: impl Fn(&mut Staging, Timestamp) -> Result<Appended, Refusal>,
    ) -> Result<Receipt> {
        let now = self.inner.now();
        let (appended, configured) = self.inner.append_with(when_full, |staging| stage(staging, now))?;
        Ok(self.receipt(appended, durability.unwrap_or(configured)))
    }

    #[inline]
    fn receipt(&self, appended: Appended, durability: Durability) -> Receipt {
        Receipt::new(&self.inner, appended, durability)
    }
}

impl From<Inner> for Log {
    fn from(mut inner: Inner) -> Self {
        let inner = Arc::new_cyclic(|me| {
            inner.me = Weak::clone(me);
            inner
        });
        if inner.attachment.is_none() {
            // Recovery has looked into all segments; from now on they are open while they are read.
            inner.segments.load().iter().rev().skip(1).for_each(|segment| segment.forget_open());
        }
        if inner.writer.is_some() {
            inner.list_open();
        }
        Self { inner }
    }
}

const _: () = {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    assert!(size_of::<Receipt>() < size_of::<Error>());
    is_shared::<Log>();
    is_shared::<Fetched>();
};
