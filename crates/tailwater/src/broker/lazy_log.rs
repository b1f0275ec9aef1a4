//! The log of one partition, opened when it is first used.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tailwater_log::storage::{DirectoryLock, Storage, create_directory_durably};
use tailwater_log::{Clock, Log, LogConfig, LogOptions, OpenFiles, PartitionIdentity, RepairReport};

use crate::maintenance::WorkQueues;
use crate::{Error, Result, TopicPartition};

/// What it takes to open the logs of a directory.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) directory: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) is_read_only: bool,
    pub(crate) queues: Arc<WorkQueues>,
    pub(crate) open_files: Arc<OpenFiles>,
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
}

impl LazyLog {
    pub(crate) fn new(place: TopicPartition, identity: PartitionIdentity) -> Self {
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
        }
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
        let name = crate::catalog::name::partition_directory(&self.place.topic, self.place.partition);
        opener.directory.join(name)
    }

    fn options(&self, opener: &Opener, config: LogConfig) -> LogOptions {
        let mut options = LogOptions::new(self.identity);
        options.config = config;
        options.clock = Arc::clone(&opener.clock);
        options.lock = opener.lock();
        options.open_files = Some(Arc::clone(&opener.open_files));
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
