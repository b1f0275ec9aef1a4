//! Rebuilding a lost or damaged catalog from the directories of partitions: looks, copies what is damaged, replaces.
//!
//! - Nothing is deleted: a damaged catalog is copied to `quarantine/` and synced before it is replaced.
//! - Nothing is changed in place: the new catalog is renamed over the old one, or there is none yet.
//! - Everything that the new catalog tells of is durable before it is. Interrupted anywhere, it is repeated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_log::error::UnsupportedFeature;
use tailwater_log::format::{
    self, Checkpoint, SEGMENT_PREFIX_BYTES, SegmentHeader, SegmentHeaderFault, SlotFault,
};
use tailwater_log::limits::SECTOR_BYTES;
use tailwater_log::storage::{
    DirectoryEntry, DirectoryLock, EntryKind, OpenMode, Storage, create_directory_durably,
};
use tailwater_log::{FilePosition, PartitionIdentity};

use super::directory::{is_own_name, is_segment, refuse_network};
use super::leftover::{self, CHECKPOINT_NAME};
use super::rebuild::{FoundDirectory, LeftOut, LeftOutReason, Rebuilt, RebuiltTopic, rebuild};
use crate::catalog::{CATALOG_NAME, CATALOG_TMP_NAME, Catalog, CatalogFault, QUARANTINE_NAME, name};
use crate::{Error, Result};

/// How much of a file is copied in one go, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// What [`Broker::repair_catalog`](crate::Broker::repair_catalog) found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CatalogRepair {
    /// What was wrong. `None` if the catalog is sound: nothing was done then.
    pub damage: Option<CatalogDamage>,
    /// The topics of the catalog that was rebuilt, Tailwater's own among them, ordered by name. Their settings are lost.
    pub topics: Vec<RebuiltTopic>,
    /// What else is in the data directory: it was left alone, and the catalog does not know it.
    pub left_out: Vec<LeftOut>,
    /// The files in `quarantine/` that hold what was damaged.
    pub quarantined: Vec<PathBuf>,
}

/// What was wrong with a catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogDamage {
    /// There was none.
    #[error("it was missing")]
    Missing,
    /// Its bytes were no catalog.
    #[error("it was damaged: {0}")]
    Damaged(CatalogFault),
}

/// Makes the catalog of `data` whole.
pub(crate) fn repair(storage: &Arc<dyn Storage>, data: &Path) -> Result<CatalogRepair> {
    match storage.entry_kind(data)? {
        None => return Err(Error::DirectoryMissing { path: data.into() }),
        Some(EntryKind::File) => return Err(foreign(data, "it is a file")),
        // A link may lead to a directory; the listing tells.
        Some(EntryKind::Directory | EntryKind::Other) => {}
    }
    if damage_of(storage, data)?.is_none() {
        return Ok(CatalogRepair::default());
    }
    refuse_network(storage, data)?;
    // Before a lock file is made in a directory that is somebody else's.
    look(storage, data)?;
    let _lock =
        DirectoryLock::acquire(storage, data).map_err(|error| Error::from(error).for_opening(data))?;
    // Whoever held the lock before may have changed everything since.
    let Some(damage) = damage_of(storage, data)? else { return Ok(CatalogRepair::default()) };
    let rebuilt = look(storage, data)?;
    let replaced = replaced_files(storage, data, damage)?;
    make_durable(storage, data, &rebuilt)?;
    let quarantined = set_aside(storage, data, &replaced)?;
    rebuilt.catalog().write(storage, data)?;
    let Rebuilt { topics, left_out } = rebuilt;
    Ok(CatalogRepair { damage: Some(damage), topics, left_out, quarantined })
}

fn foreign(data: &Path, reason: &'static str) -> Error {
    Error::NotATailwaterDirectory { path: data.into(), reason }
}

fn damage_of(storage: &Arc<dyn Storage>, data: &Path) -> Result<Option<CatalogDamage>> {
    match Catalog::read(storage, data) {
        Ok(Some(_)) => Ok(None),
        Ok(None) => Ok(Some(CatalogDamage::Missing)),
        Err(Error::CatalogDamaged { fault, .. }) => Ok(Some(CatalogDamage::Damaged(fault))),
        Err(error) => Err(error),
    }
}

/// Finds out what the catalog has to say, changing nothing.
fn look(storage: &Arc<dyn Storage>, data: &Path) -> Result<Rebuilt> {
    let (mut found, mut given_up, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for entry in storage.list_directory(data)? {
        let name = entry.name.to_str().unwrap_or_default();
        let is_directory = entry.kind == EntryKind::Directory;
        if let (true, Some((id, _))) = (is_directory, name::parse_deleted_directory(name)) {
            given_up.push(id);
        } else if let (true, Some((topic, partition))) = (is_directory, name::parse_partition_directory(name))
        {
            let directory = data.join(name);
            let identity = identity_in(storage, &directory)?;
            let is_empty = leftover::obstacle(storage, &directory)?.is_none();
            found.push(FoundDirectory { topic: topic.to_owned(), partition, identity, is_empty });
        } else if !is_own_name(&entry) {
            left_out.push(LeftOut { name: entry.name, reason: LeftOutReason::Foreign });
        }
    }
    if found.iter().all(|directory| directory.identity.is_none()) {
        return Err(foreign(data, "no partition in it tells what a catalog could be rebuilt from"));
    }
    let mut rebuilt = rebuild(data, found, &given_up, leftover::new_topic_id(storage))?;
    rebuilt.left_out.append(&mut left_out);
    rebuilt.left_out.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(rebuilt)
}

/// Which partition the files of a directory are of: that of most segment headers and checkpoint slots which verify. `None`
/// if none does.
fn identity_in(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Option<PartitionIdentity>> {
    let mut votes = Vec::<(PartitionIdentity, u32)>::new();
    let mut entries = storage.list_directory(directory)?;
    // Where they are even, the first counts: segments have names that come before.
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        for identity in identities_of(storage, directory, entry)? {
            match votes.iter_mut().find(|(voted, _)| *voted == identity) {
                Some((_, count)) => *count += 1,
                None => votes.push((identity, 1)),
            }
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max();
    Ok(votes.iter().find(|(_, count)| Some(*count) == most).map(|(identity, _)| *identity))
}

fn identities_of(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    entry: &DirectoryEntry,
) -> Result<Vec<PartitionIdentity>> {
    let path = directory.join(&entry.name);
    let unsupported = |feature: UnsupportedFeature| Error::Unsupported {
        path: path.as_path().into(),
        feature,
        newest_supported: format::VERSION,
        offsets: None,
    };
    let mut bytes = [0; SEGMENT_PREFIX_BYTES];
    let mut read = || -> Result<usize> {
        let file = storage.open_file(&path, OpenMode::Read)?;
        Ok(file.read_full_at(&mut bytes, FilePosition::ZERO)?)
    };
    if is_segment(entry) {
        let count = read()?;
        return match SegmentHeader::decode_prefix(&bytes[..count]) {
            Ok((header, _)) => Ok(vec![header.identity]),
            Err(SegmentHeaderFault::Bad) => Ok(Vec::new()),
            Err(SegmentHeaderFault::Unsupported(feature)) => Err(unsupported(feature)),
        };
    }
    let mut identities = Vec::new();
    if entry.name == CHECKPOINT_NAME {
        let count = read()?;
        for slot in bytes[..count].chunks(SECTOR_BYTES) {
            match Checkpoint::decode(slot) {
                Ok(checkpoint) => identities.push(checkpoint.identity),
                Err(SlotFault::Bad) => {}
                Err(SlotFault::Unsupported(feature)) => return Err(unsupported(feature)),
            }
        }
    }
    Ok(identities)
}

/// Makes the names durable that the new catalog will rely on: a process that was killed may have left them otherwise.
fn make_durable(storage: &Arc<dyn Storage>, data: &Path, rebuilt: &Rebuilt) -> Result<()> {
    for topic in &rebuilt.topics {
        for partition in topic.present() {
            storage.sync_directory(&data.join(name::partition_directory(&topic.name, partition)))?;
        }
    }
    Ok(storage.sync_directory(data)?)
}

/// The files that are worth keeping and about to be replaced.
fn replaced_files(
    storage: &Arc<dyn Storage>,
    data: &Path,
    damage: CatalogDamage,
) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    if matches!(damage, CatalogDamage::Damaged(_)) {
        names.push(CATALOG_NAME);
    }
    // What an interrupted change was about to put in its place is the last to know the settings.
    match Catalog::read_file(storage, &data.join(CATALOG_TMP_NAME)) {
        Ok(Some(_)) => names.push(CATALOG_TMP_NAME),
        Ok(None) | Err(Error::CatalogDamaged { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(names)
}

/// Copies files of `data` to `quarantine/`, durably.
fn set_aside(storage: &Arc<dyn Storage>, data: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let quarantine = data.join(QUARANTINE_NAME);
    let mut kept = Vec::new();
    for name in names {
        create_directory_durably(storage, &quarantine)?;
        // Under a name that nothing ever had: after a sync that failed, only a new one can become durable.
        let to = quarantine.join(format!("{name}-{:016x}.bytes", storage.random()));
        copy(storage, &data.join(name), &to)?;
        kept.push(to);
    }
    if !kept.is_empty() {
        storage.sync_directory(&quarantine)?;
    }
    Ok(kept)
}

/// Copies a file, and syncs the copy.
fn copy(storage: &Arc<dyn Storage>, from: &Path, to: &Path) -> Result<()> {
    let source = storage.open_file(from, OpenMode::Read)?;
    let target = storage.open_file(to, OpenMode::CreateNew)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = FilePosition::ZERO;
    loop {
        let count = source.read_full_at(&mut buffer, position)?;
        target.write_all_at(&buffer[..count], position)?;
        position = position.plus(count as u64);
        if count < buffer.len() {
            return Ok(target.sync_all()?);
        }
    }
}
