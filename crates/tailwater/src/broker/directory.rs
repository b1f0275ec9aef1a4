//! Opening a data directory: is it ours, may we write to it, what did a crash leave in it.
//!
//! - Nothing is changed in a directory that is not Tailwater's.
//! - The catalog decides. A directory that it does not know is left alone and reported, unless its name says that it was
//!   given up: then it is removed. If the catalog still knows the topic, the deletion was interrupted and is finished
//!   first, in its own order: no directory is removed before the catalog without the topic is durable.
//! - A new directory becomes Tailwater's with its first catalog: whatever an interrupted attempt left before that is
//!   empty, and made anew.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use tailwater_log::storage::{DirectoryEntry, DirectoryLock, EntryKind, Storage, create_directory_durably};
use tailwater_log::{Clock, Log, LogOptions, PartitionId, PartitionIdentity, TopicId};

use super::leftover;
use crate::backup::MANIFEST_NAME;
use crate::catalog::{CATALOG_NAME, CATALOG_TMP_NAME, Catalog, CatalogTopic, QUARANTINE_NAME, name};
use crate::{Error, Result};

/// The internal topic of the consumer groups.
pub(crate) const GROUPS_TOPIC: &str = "__groups";
const GROUPS_DIRECTORY: &str = "__groups-0";

const LOCK_NAME: &str = "LOCK";

/// A directory that may be worked in.
#[derive(Debug)]
pub(crate) struct OpenedDirectory {
    /// Absent if it was attached to read-only.
    pub(crate) lock: Option<Arc<DirectoryLock>>,
    pub(crate) catalog: Catalog,
    /// Names that neither the catalog nor Tailwater knows.
    pub(crate) unknown_names: Vec<OsString>,
}

/// What is at the path.
enum Found {
    Nothing,
    /// An empty directory, or what an interrupted first opening left.
    Empty,
    Tailwater,
}

/// Opens `directory` for writing; makes it if it is missing and `create` says so.
pub(crate) fn open(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    create: bool,
    clock: &Arc<dyn Clock>,
) -> Result<OpenedDirectory> {
    match look(storage, directory)? {
        Found::Nothing if !create => return Err(Error::DirectoryMissing { path: directory.into() }),
        Found::Empty if !create => {
            return Err(Error::NotATailwaterDirectory { path: directory.into(), reason: "it is empty" });
        }
        Found::Nothing => {
            refuse_network(storage, directory)?;
            let created = create_directory_durably(storage, directory);
            created.map_err(|error| Error::from(error).for_opening(directory))?;
        }
        Found::Empty => refuse_network(storage, directory)?,
        Found::Tailwater => {
            refuse_network(storage, directory)?;
            // A file of that name need not be ours: find out before a lock file is made beside it.
            Catalog::read(storage, directory)?;
        }
    }
    let lock = DirectoryLock::acquire(storage, directory);
    let lock = Arc::new(lock.map_err(|error| Error::from(error).for_opening(directory))?);
    // Whoever held the lock before may have changed everything since the first look.
    let catalog = match look(storage, directory)? {
        Found::Tailwater => Catalog::read(storage, directory)?,
        Found::Nothing | Found::Empty => None,
    };
    let mut catalog = match catalog {
        Some(catalog) => {
            // It is no backup any more.
            if storage.entry_kind(&directory.join(MANIFEST_NAME))?.is_some() {
                storage.remove_file(&directory.join(MANIFEST_NAME))?;
            }
            // A process that was killed may have left it named and its name not durable: what is promised from here on
            // must not go with it.
            storage.sync_directory(directory)?;
            catalog
        }
        None => initialize(storage, directory, &lock, clock).map_err(|error| error.for_opening(directory))?,
    };
    let unknown_names = clean_up(storage, directory, &mut catalog)?;
    Ok(OpenedDirectory { lock: Some(lock), catalog, unknown_names })
}

/// Looks into `directory` without a lock and without changing anything.
pub(crate) fn attach(storage: &Arc<dyn Storage>, directory: &Path) -> Result<OpenedDirectory> {
    let reason = match look(storage, directory)? {
        Found::Nothing => return Err(Error::DirectoryMissing { path: directory.into() }),
        Found::Empty => "it is empty",
        Found::Tailwater => "its catalog has just been removed",
    };
    match read_catalog(storage, directory)? {
        Some(catalog) => Ok(OpenedDirectory { lock: None, catalog, unknown_names: Vec::new() }),
        None => Err(Error::NotATailwaterDirectory { path: directory.into(), reason }),
    }
}

/// The catalog as who does not write is to see it: without the topics whose deletion was begun. Some of their partitions
/// may be gone, and the next open for writing finishes it.
pub(crate) fn read_catalog(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Option<Catalog>> {
    let Some(mut catalog) = Catalog::read(storage, directory)? else { return Ok(None) };
    let entries = storage.list_directory(directory)?;
    catalog.topics.retain(|topic| !entries.iter().filter_map(given_up).any(|id| id == topic.id));
    Ok(Some(catalog))
}

/// The topic that a directory was given up with, by its name.
fn given_up(entry: &DirectoryEntry) -> Option<TopicId> {
    match entry.kind {
        EntryKind::Directory => name::parse_deleted_directory(entry.name.to_str()?).map(|(id, _)| id),
        _ => None,
    }
}

/// Looks at what there is, changing nothing.
fn look(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Found> {
    let foreign = |reason| Err(Error::NotATailwaterDirectory { path: directory.into(), reason });
    match storage.entry_kind(directory)? {
        None => return Ok(Found::Nothing),
        Some(EntryKind::File) => return foreign("it is a file"),
        // A link may lead to a directory; the listing tells.
        Some(EntryKind::Directory | EntryKind::Other) => {}
    }
    let entries = storage.list_directory(directory)?;
    if entries.iter().any(|entry| entry.name == CATALOG_NAME) {
        return Ok(Found::Tailwater);
    }
    let mut has_other_files = false;
    for entry in &entries {
        let name = entry.name.to_str().unwrap_or_default();
        let path = directory.join(&entry.name);
        match entry.kind {
            EntryKind::Directory
                if name == GROUPS_DIRECTORY || name::parse_deleted_directory(name).is_some() =>
            {
                if leftover::obstacle(storage, &path)?.is_some() {
                    return Err(Error::CatalogMissing { path: directory.into() });
                }
            }
            EntryKind::Directory if holds_partition(storage, name, &path)? => {
                return Err(Error::CatalogMissing { path: directory.into() });
            }
            _ if is_own_name(entry) => {}
            _ => has_other_files = true,
        }
    }
    if has_other_files { foreign("it holds other files, and no catalog") } else { Ok(Found::Empty) }
}

/// Whether a directory is a partition's, by its name and by what is in it.
fn holds_partition(storage: &Arc<dyn Storage>, name: &str, directory: &Path) -> Result<bool> {
    if name::parse_partition_directory(name).is_none() {
        return Ok(false);
    }
    Ok(storage.list_directory(directory)?.iter().any(is_segment))
}

/// Whether an entry of a partition's directory has the name of a segment.
pub(super) fn is_segment(entry: &DirectoryEntry) -> bool {
    let digits = entry.name.to_str().and_then(|name| name.strip_suffix(".log")).unwrap_or_default();
    digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether an entry of the data directory is Tailwater's own, and no partition's.
pub(super) fn is_own_name(entry: &DirectoryEntry) -> bool {
    match entry.kind {
        EntryKind::File => {
            [CATALOG_NAME, CATALOG_TMP_NAME, LOCK_NAME, MANIFEST_NAME].iter().any(|own| entry.name == *own)
        }
        EntryKind::Directory => entry.name == QUARANTINE_NAME,
        EntryKind::Other => false,
    }
}

/// Refuses a network file system, also before the directory is made.
pub(super) fn refuse_network(storage: &Arc<dyn Storage>, directory: &Path) -> Result<()> {
    let mut existing = directory;
    while storage.entry_kind(existing)?.is_none() {
        match existing.parent() {
            Some(parent) if parent.as_os_str().is_empty() => existing = Path::new("."),
            Some(parent) => existing = parent,
            None => return Ok(()),
        }
    }
    match storage.network_file_system(existing)? {
        None => Ok(()),
        Some(file_system) => Err(Error::NetworkFileSystem { path: directory.into(), file_system }),
    }
}

/// Makes an empty directory a Tailwater one: the internal log first, and last, as the commit, the catalog.
fn initialize(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    lock: &Arc<DirectoryLock>,
    clock: &Arc<dyn Clock>,
) -> Result<Catalog> {
    leftover::make_way(storage, directory, GROUPS_DIRECTORY, PartitionId::ZERO)?;
    let id = leftover::new_topic_id(storage);
    let mut options = LogOptions::new(PartitionIdentity { topic_id: id, partition: PartitionId::ZERO });
    options.clock = Arc::clone(clock);
    options.lock = Some(Arc::clone(lock));
    Log::create(Arc::clone(storage), &directory.join(GROUPS_DIRECTORY), options)?.close()?;
    storage.sync_directory(directory)?;
    let groups = CatalogTopic {
        id,
        name: GROUPS_TOPIC.to_owned(),
        partition_count: 1,
        config: Vec::new(),
        origins: Vec::new(),
    };
    let catalog = Catalog { sequence: 1, topics: vec![groups] };
    catalog.write(storage, directory)?;
    Ok(catalog)
}

/// Finishes the deletions that a crash interrupted. Returns the names that nobody knows.
fn clean_up(storage: &Arc<dyn Storage>, directory: &Path, catalog: &mut Catalog) -> Result<Vec<OsString>> {
    let entries = storage.list_directory(directory)?;
    let (unfinished, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut catalog.topics)
        .into_iter()
        .partition(|topic| entries.iter().filter_map(given_up).any(|id| id == topic.id));
    catalog.topics = kept;
    if !unfinished.is_empty() {
        for topic in &unfinished {
            tracing::info!(topic = topic.name, "finishing a deletion that was interrupted");
            leftover::give_up_partitions(storage, directory, &topic.name, topic.id, topic.partition_count)?;
        }
        catalog.sequence = catalog.next_sequence();
        catalog.write(storage, directory)?;
    }
    let mut unknown = Vec::new();
    for entry in storage.list_directory(directory)? {
        let name = entry.name.to_str().unwrap_or_default();
        let is_directory = entry.kind == EntryKind::Directory;
        // By now no topic of the catalog has such directories.
        if given_up(&entry).is_some() {
            leftover::remove_given_up(storage, &directory.join(name));
            continue;
        }
        let is_partition = is_directory
            && name::parse_partition_directory(name).is_some_and(|(topic, partition)| {
                let known = catalog.topics.iter().find(|known| known.name == topic);
                known.is_some_and(|known| partition.get() < known.partition_count)
            });
        if !is_partition && !is_own_name(&entry) {
            tracing::warn!(directory = %directory.display(), name, "left alone: the catalog does not know it");
            unknown.push(entry.name);
        }
    }
    unknown.sort_unstable();
    Ok(unknown)
}
