//! How to open a log, and the opening of it.

use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::checkpoint_file::CheckpointFile;
use super::commit::GroupCommit;
use super::compact::Compaction;
use super::counters::Counters;
use super::ends::Ends;
use super::inner::{Failure, Inner};
use super::open_files::{FileBudget, OpenFiles, Usage};
use super::signal::Listeners;
use super::slot::Slot;
use super::space::{Space, SpaceShare};
use super::staging::{Staging, StagingPlace};
use super::writer::Writer;
use crate::format::{Checkpoint, SEGMENT_DATA_START, SegmentHeader, segment_names_checksum};
use crate::recovery::{self, OpenContext, Opened, RepairReport};
use crate::segment::{NewSegment, parse_file_name};
use crate::storage::{DirectoryLock, Storage, create_directory_durably};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::{
    Clock, Durability, Error, IoOperation, LogConfig, LogEpoch, Offset, PartitionIdentity, Result,
    SystemClock, Timestamp,
};

const FIRST_SEGMENT_NAME: &str = "first.tmp";

/// How to open a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Which partition the directory holds, or is to hold.
    pub identity: PartitionIdentity,
    /// Its configuration.
    pub config: LogConfig,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// A held lock that covers the directory. Without one the log locks its own directory.
    pub lock: Option<Arc<DirectoryLock>>,
    /// What bounds how many files are open, shared with other logs. Without one they stay open. A log that is attached
    /// read-only takes no heed of it: it holds on to each file that it was shown.
    pub open_files: Option<Arc<OpenFiles>>,
    /// Its share of a budget of disk space. Without one it is bounded by its own configuration only.
    pub space: Option<Arc<SpaceShare>>,
}

impl LogOptions {
    /// The default configuration, the system's clock, and a lock of the log's own.
    #[must_use]
    pub fn new(identity: PartitionIdentity) -> Self {
        Self {
            identity,
            config: LogConfig::default(),
            clock: Arc::new(SystemClock),
            lock: None,
            open_files: None,
            space: None,
        }
    }
}

impl Inner {
    pub(crate) fn create(storage: Arc<dyn Storage>, directory: &Path, options: LogOptions) -> Result<Self> {
        options.config.validate()?;
        options.config.check_compression()?;
        create_directory_durably(&storage, directory)?;
        let options = options.locked(&storage, directory)?;
        let is_segment = |name: &std::ffi::OsStr| name.to_str().and_then(parse_file_name).is_some();
        if storage.list_directory(directory)?.iter().any(|entry| is_segment(&entry.name)) {
            let exists = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it holds a log already");
            return Err(Error::io(IoOperation::Create, directory, exists));
        }
        let checkpoint = Checkpoint {
            identity: options.identity,
            sequence: 0,
            is_dirty: false,
            epoch: LogEpoch::FIRST,
            log_start: Offset::ZERO,
            durable: Offset::ZERO,
            scan_base: Offset::ZERO,
            scan_position: SEGMENT_DATA_START,
            scan_offset: Offset::ZERO,
            latest_append_time: Timestamp::from_millis(i64::MIN),
            segment_names_crc: segment_names_checksum([Offset::ZERO]),
            generation: 0,
        };
        // The checkpoint is durable before the segment whose log start it holds has a name.
        CheckpointFile::replace(&storage, directory, checkpoint)?;
        let header = SegmentHeader {
            identity: options.identity,
            epoch: LogEpoch::FIRST,
            epoch_start: Offset::ZERO,
            salt: storage.random(),
            created: options.clock.now(),
            compacted: None,
        };
        let mut new = NewSegment::create(&storage, &directory.join(FIRST_SEGMENT_NAME), header, None)?;
        new.sync()
            .and_then(|()| new.publish(&storage, directory, Offset::ZERO))
            .map_err(|error| new.discard(&storage, error))?;
        storage.sync_directory(directory)?;
        drop(new);
        Self::open(storage, directory, options)
    }

    pub(crate) fn open(storage: Arc<dyn Storage>, directory: &Path, options: LogOptions) -> Result<Self> {
        options.config.validate()?;
        let options = options.locked(&storage, directory)?;
        let files = FileBudget::new(options.open_files.clone());
        let opened = files.open(|| recovery::open(&options.context(&storage, directory)))?;
        let log = Self::new(storage, directory, options, opened, None);
        if let Some(slot) = &log.writer {
            log.correct_space(&slot.take());
        }
        Ok(log)
    }

    pub(crate) fn repair(
        storage: Arc<dyn Storage>,
        directory: &Path,
        options: LogOptions,
    ) -> Result<RepairReport> {
        options.config.validate()?;
        let options = options.locked(&storage, directory)?;
        let report = recovery::repair(&options.context(&storage, directory))?;
        if report.damage.is_empty() {
            return Ok(report);
        }
        // Recovery begins a new epoch, and verification tells whether anything was missed.
        let log = Self::open(storage, directory, options)?;
        let left = log.verify(&mut |_| {})?.damage;
        log.close()?;
        match left.into_iter().next() {
            Some(damage) => Err(Error::Corrupt(Box::new(damage))),
            None => Ok(report),
        }
    }

    pub(crate) fn attach(storage: Arc<dyn Storage>, directory: &Path, options: LogOptions) -> Result<Self> {
        options.config.validate()?;
        let (opened, attachment) = recovery::attach(&options.context(&storage, directory))?;
        Ok(Self::new(storage, directory, options, opened, Some(attachment)))
    }

    fn new(
        storage: Arc<dyn Storage>,
        directory: &Path,
        options: LogOptions,
        opened: Opened,
        attachment: Option<recovery::Attachment>,
    ) -> Self {
        let config = options.config;
        let ends = Ends::new(opened.start, opened.end, opened.epoch);
        let active = Arc::clone(opened.segments.active());
        let nowhere = StagingPlace {
            position: SEGMENT_DATA_START,
            room_end: 0,
            roll_at: u64::from(config.roll_bytes()),
        };
        let earliest = Timestamp::from_millis(i64::MIN);
        let mut staging = Staging::new(opened.end, opened.epoch, nowhere, &config, earliest);
        let writer = match opened.active {
            None => {
                staging.stop(opened.report.corruption.clone().unwrap_or(Error::ReadOnly));
                None
            }
            Some(parts) => {
                let writer = Writer {
                    active,
                    file: Some(parts.file),
                    header: parts.header,
                    position: parts.point.position,
                    allocated: parts.allocated,
                    written: opened.end,
                    active_since: parts.active_since,
                    checkpoint: parts.checkpoint,
                    is_dirty: parts.is_dirty,
                    is_littered: parts.is_littered,
                    is_compacting: false,
                    generation: parts.generation,
                    durable_point: parts.point,
                    previous: None,
                    is_name_synced: true,
                    next: None,
                    unsealed: std::collections::VecDeque::new(),
                    unwritten: None,
                    unsynced_bytes: 0,
                    unsynced_since: None,
                    bytes_since_checkpoint: 0,
                    last_write: None,
                    is_budgeted: options.space.is_some(),
                };
                writer.active.note_length(parts.allocated);
                let place = writer.staging_place(&config);
                staging = Staging::new(opened.end, opened.epoch, place, &config, parts.latest_append_time);
                Some(Slot::new(writer))
            }
        };
        if attachment.is_some() {
            // Also for a damaged log: the way to append is another open.
            staging.stop(Error::ReadOnly);
        }
        Self {
            storage,
            directory: directory.to_owned(),
            identity: options.identity,
            shows_durable: AtomicBool::new(config.durability == Durability::Durable),
            config: ArcSwap::from_pointee(config),
            clock: options.clock,
            owner: options.lock.as_ref().map(|lock| lock.owner()),
            lock: Mutex::new(options.lock),
            staging: Mutex::new(staging),
            writer,
            ends,
            segments: ArcSwap::from_pointee(opened.segments),
            commit: GroupCommit::default(),
            listeners: Listeners::default(),
            failure: Failure::default(),
            is_closed: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            truncations: Mutex::default(),
            report: opened.report,
            counters: Counters::default(),
            removals: Mutex::default(),
            space: Space::new(options.space),
            files: FileBudget::new(options.open_files),
            usage: Usage::default(),
            me: Weak::new(),
            is_exchanging: AtomicBool::new(false),
            compaction: Compaction::default(),
            attachment: attachment.map(Mutex::new),
        }
    }

    /// Looks what the writing process has made durable since the last look.
    pub(crate) fn refresh(&self) -> Result<()> {
        let Some(attachment) = &self.attachment else { return Ok(()) };
        let mut attachment = attachment.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.config.load_full();
        let seen = attachment.refresh(&OpenContext {
            storage: &self.storage,
            directory: &self.directory,
            identity: self.identity,
            config: &config,
            clock: &*self.clock,
        })?;
        let has_moved = seen.end != self.ends.durable();
        if seen.epoch != self.ends.epoch() || seen.end < self.ends.durable() {
            // Another history: the end goes back before the list changes, as for a truncation.
            self.ends.set_durable(seen.end);
            self.ends.set_written(seen.end);
        }
        self.ends.set_epoch(seen.epoch);
        self.segments.store(Arc::new(seen.segments));
        self.ends.set_written(seen.end);
        self.ends.set_durable(seen.end);
        self.ends.set_start(seen.start);
        {
            let mut staging = self.staging();
            let place = StagingPlace { position: SEGMENT_DATA_START, room_end: 0, roll_at: 0 };
            staging.move_to(place, seen.end, seen.epoch);
        }
        if has_moved {
            self.listeners.notify_all();
        }
        Ok(())
    }
}

impl LogOptions {
    fn locked(mut self, storage: &Arc<dyn Storage>, directory: &Path) -> Result<Self> {
        if let Some(lock) = &self.lock {
            lock.refuse_forked(directory)?;
        } else {
            if let Some(file_system) = storage.network_file_system(directory)? {
                return Err(Error::NetworkFileSystem { path: directory.into(), file_system });
            }
            self.lock = Some(Arc::new(DirectoryLock::acquire(storage, directory)?));
        }
        Ok(self)
    }

    fn context<'c>(&'c self, storage: &'c Arc<dyn Storage>, directory: &'c Path) -> OpenContext<'c> {
        OpenContext { storage, directory, identity: self.identity, config: &self.config, clock: &*self.clock }
    }
}
