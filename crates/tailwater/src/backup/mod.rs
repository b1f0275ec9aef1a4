//! Copies of a whole directory, made while it is in use.
//!
//! - The end of the groups log is taken first, then what is durable of every partition: no position in the copy lies beyond
//!   its partition, and just these prefixes are copied.
//! - Nothing is held while files are copied. A sealed segment gets a second name where that can be had, since nobody writes
//!   to it any more; of the others the prefix is copied.
//! - The copy is made under another name, all of it synced, and renamed: there is a whole backup or none.
//! - It is a directory like any other, not closed in order: its first open begins a new epoch in each partition.

mod check;
mod copy;
mod manifest;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_log::storage::{DirectoryLock, Storage, create_directory_durably};
use tailwater_log::{LogSnapshot, Offset, PartitionId, PartitionIdentity, UnsupportedFeature};

pub(crate) use check::check;
pub use check::{BackupCheck, BackupProblem, BackupProblemKind};
use copy::{Copier, remove_tree};
pub(crate) use manifest::MANIFEST_NAME;
use manifest::Manifest;

use crate::broker::{GROUPS_TOPIC, Inner, LazyLog, Topic};
use crate::catalog::Catalog;
use crate::{Error, Result};

/// What an unfinished backup has behind its name.
const TEMPORARY_SUFFIX: &str = ".backup.tmp";

/// How often a partition is taken anew whose segments were removed or replaced while they were copied.
const MAX_TRIES: u32 = 20;

/// How long a process that is attached waits until what was committed is recorded as durable for it.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);
const RECORDED_LOOK: Duration = Duration::from_millis(20);

/// How a backup is made: [`Embedded::backup_with`](crate::Embedded::backup_with).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackupOptions {
    incremental_from: Option<PathBuf>,
    copies_all: bool,
}

impl BackupOptions {
    /// Everything, with second names for sealed segments where that can be.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes sealed segments that are in an earlier backup from there, by a second name: they are neither read nor copied.
    /// Where no second name can be had, as on another disk, they are copied from the directory itself. The earlier backup stays
    /// as it is, and either can be removed.
    #[must_use]
    pub fn incremental_from(mut self, earlier: impl Into<PathBuf>) -> Self {
        self.incremental_from = Some(earlier.into());
        self
    }

    /// Copies every file: default false. A second name costs no room and is no second copy of the bytes: what harms them on
    /// the disk harms both.
    #[must_use]
    pub fn copy_all(mut self, copies_all: bool) -> Self {
        self.copies_all = copies_all;
        self
    }
}

/// What a backup consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Partitions in it, Tailwater's own included.
    pub partitions: u64,
    /// Files in it.
    pub files: u64,
    /// Their size in bytes.
    pub size_bytes: u64,
    /// Of these files, those that are sealed segments with a second name.
    pub linked_files: u64,
    /// Of these, those that were in the earlier backup, and were not read again.
    pub reused_files: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
}

/// Why a backup's manifest cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupFault {
    /// It is shorter than any.
    #[error("it is too short")]
    TooShort,
    /// It is something else.
    #[error("it does not begin as a manifest does")]
    Magic,
    /// Its digest is another.
    #[error("its digest is wrong")]
    Digest,
    /// Its digest is right, and its content contradicts itself.
    #[error("it contradicts itself")]
    Malformed,
    /// A newer version wrote it.
    #[error("it needs {0}")]
    Unsupported(UnsupportedFeature),
}

/// A partition that is to be copied.
struct Part {
    topic: Arc<Topic>,
    lazy: Arc<LazyLog>,
    snapshot: LogSnapshot,
}

impl Part {
    fn take(topic: &Arc<Topic>, lazy: &Arc<LazyLog>) -> Result<Self> {
        let log = topic.open(lazy)?;
        // A log that is damaged would be copied with its damage, and nobody would know.
        if let Some(error) = &log.recovery_report().corruption {
            return Err(topic.explain(error.clone(), lazy.place()));
        }
        let snapshot = log.snapshot().map_err(|error| topic.explain(error, lazy.place()))?;
        Ok(Self { topic: Arc::clone(topic), lazy: Arc::clone(lazy), snapshot })
    }
}

/// Makes a backup of the directory of `broker`.
pub(crate) fn make(broker: &Inner, directory: &Path, options: &BackupOptions) -> Result<BackupReport> {
    broker.check_open()?;
    let storage = broker.storage();
    let earlier = match &options.incremental_from {
        None => None,
        Some(earlier) => match Manifest::read(storage, earlier)? {
            Some(manifest) => Some((earlier.clone(), manifest)),
            None => return Err(Error::NotABackup { path: earlier.as_path().into() }),
        },
    };
    if is_within(directory, broker.directory()) {
        return Err(Error::BackupInside { path: directory.into() });
    }
    let refuse_existing = || match storage.entry_kind(directory)? {
        None => Ok(()),
        Some(_) => Err(Error::BackupExists { path: directory.into() }),
    };
    refuse_existing()?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directory_durably(storage, parent)?;
    }
    let mut temporary = directory.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    let lock = prepare(storage, &temporary)?;
    let made = fill(broker, &temporary, earlier, options).and_then(|report| {
        // Who waited for the lock here may have been overtaken by one who has finished.
        refuse_existing()?;
        storage.rename(&temporary, directory)?;
        storage.sync_directory(parent_of(directory))?;
        Ok(report)
    });
    if made.is_err() {
        // What stays is removed by the next attempt.
        if let Err(error) = remove_tree(storage, &temporary) {
            tracing::debug!(%error, "an unfinished backup stays");
        }
    }
    drop(lock);
    let report = made?;
    tracing::info!(
        directory = %directory.display(),
        partitions = report.partitions,
        files = report.files,
        linked_files = report.linked_files,
        copied_bytes = report.copied_bytes,
        "made a backup"
    );
    Ok(report)
}

/// Makes the directory for an unfinished backup, in the place of whatever an interrupted one left, and locks it.
fn prepare(storage: &Arc<dyn Storage>, temporary: &Path) -> Result<Arc<DirectoryLock>> {
    if storage.entry_kind(temporary)?.is_some() {
        // Unless somebody is at it just now.
        drop(DirectoryLock::acquire(storage, temporary)?);
        remove_tree(storage, temporary)?;
    }
    storage.create_directory(temporary)?;
    Ok(Arc::new(DirectoryLock::acquire(storage, temporary)?))
}

fn fill(
    broker: &Inner,
    temporary: &Path,
    earlier: Option<(PathBuf, Manifest)>,
    options: &BackupOptions,
) -> Result<BackupReport> {
    let (mut catalog, parts) = take_all(broker)?;
    let mut copier =
        Copier::new(broker.storage(), broker.directory(), temporary, earlier, options.copies_all);
    for part in parts {
        broker.check_open()?;
        let id = part.topic.id;
        if !copy_part(&mut copier, part)? {
            catalog.topics.retain(|topic| topic.id != id);
        }
    }
    copier.finish(&catalog, broker.clock().now())
}

/// Takes what is durable of all partitions at one moment: the groups log first.
fn take_all(broker: &Inner) -> Result<(Catalog, Vec<Part>)> {
    broker.refresh_if_attached()?;
    // Opened beforehand, so that no topic is kept from being made for long.
    let topics = broker.topic_set();
    for topic in topics.all() {
        topic.partitions().iter().try_for_each(|partition| topic.open(partition).map(drop))?;
    }
    let (catalog, groups, topics) = {
        let administration = broker.administration();
        let topics = broker.topic_set();
        let groups = topics.by_name(GROUPS_TOPIC).cloned();
        let groups = groups.ok_or_else(|| Error::UnknownTopic { topic: GROUPS_TOPIC.into() })?;
        let groups = Part::take(&groups, &groups.partition(PartitionId::ZERO)?)?;
        let mut parts = Vec::new();
        for topic in topics.all().filter(|topic| !topic.is_internal()) {
            for partition in topic.partitions().iter() {
                parts.push(Part::take(topic, partition)?);
            }
        }
        (administration.catalog.clone(), groups, parts)
    };
    let mut parts = topics;
    if broker.is_read_only() {
        await_committed(broker, &mut parts)?;
    }
    parts.insert(0, groups);
    Ok((catalog, parts))
}

/// Where another process writes, a partition's records may be recorded as durable later than positions behind them: waits until
/// they are.
fn await_committed(broker: &Inner, parts: &mut [Part]) -> Result<()> {
    // As they are now, which is no earlier than in what was taken of the groups log.
    let committed = broker.committed_ends()?;
    let deadline = Instant::now() + RECORDED_WITHIN;
    for part in parts {
        let identity = PartitionIdentity { topic_id: part.topic.id, partition: part.lazy.place().partition };
        let Some(end) = committed.get(&identity).copied() else { continue };
        while is_behind(&part.snapshot, end) {
            if Instant::now() >= deadline {
                let place = part.lazy.place().to_string().into();
                return Err(Error::NotRecorded { partition: place, committed: end });
            }
            std::thread::sleep(RECORDED_LOOK);
            *part = Part::take(&part.topic, &part.lazy)?;
        }
    }
    Ok(())
}

fn is_behind(snapshot: &LogSnapshot, committed: Offset) -> bool {
    snapshot.durable_offset() < committed
}

/// Copies a partition, anew if its segments were removed meanwhile. False if its topic was deleted.
fn copy_part(copier: &mut Copier<'_>, mut part: Part) -> Result<bool> {
    for _ in 0..MAX_TRIES {
        let place = part.lazy.place();
        let name = place.to_string();
        match copier.partition(&name, &part.snapshot) {
            Ok(()) => return Ok(true),
            Err(_) if part.topic.is_deleted() => {
                copier.forget(&name)?;
                return Ok(false);
            }
            Err(error) if !part.snapshot.is_outdated() => return Err(error.in_partition(place)),
            Err(error) => {
                tracing::debug!(partition = %place, %error, "taken anew: it was cut while it was copied");
                copier.forget(&name)?;
                part = match Part::take(&part.topic, &part.lazy) {
                    Err(_) if part.topic.is_deleted() => return Ok(false),
                    taken => taken?,
                };
            }
        }
    }
    Err(Error::BackupOvertaken { partition: part.lazy.place().to_string().into() })
}

/// Whether `path` is `directory` or lies in it, as far as the names tell.
fn is_within(path: &Path, directory: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute(path).starts_with(absolute(directory))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
