//! The log of one partition, opened when it is first used.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tailwater_log::storage::{DirectoryLock, EntryKind, OpenMode, Storage, create_directory_durably};
use tailwater_log::{
    Clock, Log, LogConfig, LogOptions, OpenFiles, PartitionIdentity, RepairReport, SpaceBudget, SpaceShare,
};

use super::stats::RetentionStats;
use crate::catalog::name;
use crate::maintenance::WorkQueues;
use crate::{Error, Result, TopicConfig, TopicPartition};

/// How much space the log of the groups keeps reserved, in bytes: room for some ten thousand commits on a full disk.
const RESERVE_BYTES: u32 = 1024 * 1024;

/// What it takes to open the logs of a directory.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) directory: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) is_read_only: bool,
    pub(crate) queues: Arc<WorkQueues>,
    pub(crate) open_files: Arc<OpenFiles>,
    /// The bound of the disk space that all of them take up.
    pub(crate) budget: Option<Arc<SpaceBudget>>,
    /// Set before the logs are closed, and looked at under each log's own lock: no log is opened after that.
    pub(super) is_closed: AtomicBool,
    pub(super) lock: Mutex<Option<Arc<DirectoryLock>>>,
}

impl Opener {
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    pub(crate) fn set_closed(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// The directory's lock; `None` after it was let go of, and where there never was one.
    pub(crate) fn lock(&self) -> Option<Arc<DirectoryLock>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a partition takes up of the budget, if there is one: from what its files take up now.
    fn share(&self, place: &TopicPartition) -> Option<Arc<SpaceShare>> {
        let budget = self.budget.as_ref()?;
        let bytes = self.file_bytes(place).unwrap_or_else(|error| {
            // It is told again when the partition is opened, which also finds out.
            tracing::warn!(partition = %place, %error, "cannot tell what a partition takes up");
            0
        });
        let spared_bytes = match name::is_internal(&place.topic) {
            true => 0,
            false => (budget.limit_bytes() / 64).clamp(64 * 1024, 16 * 1024 * 1024),
        };
        Some(Arc::new(SpaceShare::new(budget, bytes, spared_bytes)))
    }

    /// The size of all files of a partition.
    fn file_bytes(&self, place: &TopicPartition) -> tailwater_log::Result<u64> {
        let directory = self.partition_directory(place);
        let entries = self.storage.list_directory(&directory)?;
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let length = |name| self.storage.open_file(&directory.join(name), OpenMode::Read)?.length();
        files.map(|entry| length(&entry.name)).sum()
    }

    fn partition_directory(&self, place: &TopicPartition) -> PathBuf {
        self.directory.join(name::partition_directory(&place.topic, place.partition))
    }

    /// Lets go of the directory, once every log did.
    pub(crate) fn release_lock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The log of one partition: opened at first use, or not at all.
#[derive(Debug)]
pub(crate) struct LazyLog {
    place: Arc<TopicPartition>,
    identity: PartitionIdentity,
    /// Tells it from every other in the queues of the background threads.
    pub(crate) key: u64,
    log: ArcSwapOption<Log>,
    /// How often the log was forgotten.
    generation: AtomicU64,
    opening: Mutex<()>,
    /// Why nothing works any more, if a background thread met a bug while it worked on this log.
    failure: OnceLock<Error>,
    /// Whether it waits in the queue of the sync thread.
    pub(crate) is_sync_queued: AtomicBool,
    /// Whether it was appended to since it was last maintained.
    pub(crate) is_active: AtomicBool,
    /// Whether it waits in the queue of the thread that compacts.
    pub(crate) is_compaction_queued: AtomicBool,
    /// The settings of its topic, as they are at the moment.
    config: Arc<ArcSwap<TopicConfig>>,
    space: Option<Arc<SpaceShare>>,
    cleaning: Mutex<CleaningState>,
}

/// When retention and compaction last looked at a partition, and what retention found.
#[derive(Debug, Default)]
pub(crate) struct CleaningState {
    pub(crate) last_look: Option<Instant>,
    pub(crate) last_compaction_look: Option<Instant>,
    pub(crate) stats: RetentionStats,
}

impl LazyLog {
    pub(crate) fn new(
        place: TopicPartition,
        identity: PartitionIdentity,
        config: &Arc<ArcSwap<TopicConfig>>,
        opener: &Opener,
    ) -> Self {
        let space = opener.share(&place);
        Self::with_share(place, identity, Arc::clone(config), space)
    }

    /// The same, with a share of the disk space that is known.
    pub(crate) fn with_share(
        place: TopicPartition,
        identity: PartitionIdentity,
        config: Arc<ArcSwap<TopicConfig>>,
        space: Option<Arc<SpaceShare>>,
    ) -> Self {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
        Self {
            place: Arc::new(place),
            identity,
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            log: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            opening: Mutex::new(()),
            failure: OnceLock::new(),
            is_sync_queued: AtomicBool::new(false),
            is_active: AtomicBool::new(false),
            is_compaction_queued: AtomicBool::new(false),
            config,
            space,
            cleaning: Mutex::default(),
        }
    }

    /// The settings of its topic.
    pub(crate) fn topic_config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    /// Which partition it is.
    pub(crate) fn identity(&self) -> PartitionIdentity {
        self.identity
    }

    /// What retention and compaction remember.
    pub(crate) fn cleaning(&self) -> MutexGuard<'_, CleaningState> {
        // Changed by assignments only.
        self.cleaning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn retention_stats(&self) -> RetentionStats {
        self.cleaning().stats.clone()
    }

    /// The partition by name, for errors.
    pub(crate) fn place(&self) -> &Arc<TopicPartition> {
        &self.place
    }

    /// The log, if it is open.
    pub(crate) fn opened(&self) -> Option<Log> {
        self.log.load().as_deref().cloned()
    }

    /// Does something with the log if it is open and works; otherwise gives `act` back. Counts nobody who has the log: one
    /// who holds on to a deleted topic must not hold on to its files.
    #[inline(always)]
    pub(crate) fn with_opened<T, F: FnOnce(&Log) -> T>(&self, act: F) -> Result<T, F> {
        match &*self.log.load() {
            Some(log) if self.failure.get().is_none() => Ok(act(log)),
            _ => Err(act),
        }
    }

    /// The log; opens it first if need be.
    pub(crate) fn open(
        self: &Arc<Self>,
        opener: &Opener,
        config: impl FnOnce() -> Result<LogConfig>,
    ) -> Result<Log> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        if let Some(log) = &*self.log.load() {
            return Ok(Log::clone(log));
        }
        let _opening = self.opening();
        if let Some(log) = &*self.log.load() {
            return Ok(Log::clone(log));
        }
        if opener.is_closed() {
            return Err(Error::Closed);
        }
        let directory = self.directory(opener);
        let options = self.options(opener, config()?);
        let storage = Arc::clone(&opener.storage);
        let _span = tracing::debug_span!("open_partition", partition = %self.place).entered();
        let start = Instant::now();
        let opened = if opener.is_read_only {
            Log::attach_read_only(storage, &directory, options)
        } else {
            Log::open(storage, &directory, options)
        };
        let log = opened.map_err(|error| Error::from(error).in_partition(&self.place))?;
        let report = log.recovery_report();
        tracing::debug!(
            outcome = ?report.outcome,
            log_start_offset = %report.log_start_offset,
            log_end_offset = %report.log_end_offset,
            epoch = %report.epoch,
            scanned_bytes = report.scanned_bytes,
            elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "opened a partition"
        );
        self.log.store(Some(Arc::new(log.clone())));
        if !opener.is_read_only {
            // A segment may be old enough to be rolled, and what a crash left wants a checkpoint.
            opener.queues.note_activity(self);
        }
        Ok(log)
    }

    fn directory(&self, opener: &Opener) -> PathBuf {
        opener.partition_directory(&self.place)
    }

    fn options(&self, opener: &Opener, config: LogConfig) -> LogOptions {
        let mut options = LogOptions::new(self.identity);
        options.config = config;
        options.clock = Arc::clone(&opener.clock);
        options.lock = opener.lock();
        options.open_files = Some(Arc::clone(&opener.open_files));
        options.space = self.space.clone();
        if name::is_internal(&self.place.topic) {
            options.config.reserve_bytes = RESERVE_BYTES;
        }
        options
    }

    /// Closes the log, repairs it, and has the next use open it again.
    pub(crate) fn repair(&self, opener: &Opener, config: LogConfig) -> Result<RepairReport> {
        let _opening = self.opening();
        if opener.is_closed() {
            return Err(Error::Closed);
        }
        if let Some(log) = self.opened() {
            // One that has failed says so again here; what it left is what is repaired.
            let _ = log.close();
            self.exchange();
        }
        let directory = self.directory(opener);
        if opener.storage.entry_kind(&directory)?.is_none() {
            // It is gone with all that was in it: an empty one is repaired like any other.
            create_directory_durably(&opener.storage, &directory)?;
        }
        let storage = Arc::clone(&opener.storage);
        let repaired = Log::repair(storage, &directory, self.options(opener, config));
        repaired.map_err(|error| Error::from(error).in_partition(&self.place))
    }

    /// Closes the log if it is open. `None` if it was not. No log is opened meanwhile.
    pub(crate) fn close(&self) -> Option<Result<()>> {
        let _opening = self.opening();
        let log = self.opened()?;
        Some(log.close().map_err(|error| Error::from(error).in_partition(&self.place)))
    }

    /// Forgets the log, which was closed, so that the next use opens it again.
    pub(crate) fn forget(&self) {
        let _opening = self.opening();
        self.exchange();
    }

    fn exchange(&self) {
        self.log.store(None);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Another number when the log that was opened is not the partition's any more.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Has every later use fail with `error`.
    pub(crate) fn fail(&self, error: Error) {
        let cause = Arc::new(error.in_partition(&self.place));
        let failed = Error::Failed { partition: Some(Arc::clone(&self.place)), cause };
        // The first failure is the one that tells.
        let _ = self.failure.set(failed);
    }

    /// Why it takes no appends until the broker is reopened, if so.
    pub(crate) fn failure(&self) -> Option<Error> {
        if let Some(failure) = self.failure.get() {
            return Some(failure.clone());
        }
        let cause = self.opened()?.failure()?;
        let cause = Arc::new(Error::from(tailwater_log::Error::clone(&cause)));
        Some(Error::Failed { partition: Some(Arc::clone(&self.place)), cause })
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failure.get().is_some() || self.opened().is_some_and(|log| log.is_failed())
    }

    fn opening(&self) -> MutexGuard<'_, ()> {
        // It guards no data, so a panic under it has broken none.
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
