//! What an interrupted creation leaves behind: told apart from data, put aside, removed.
//!
//! - Nothing is removed but directories whose names say that they were given up: `<topic id>-<n>.deleted`.
//! - A directory is put aside only if every file in it is of Tailwater's making, no record is in any, and the checkpoint
//!   tells of none.

use std::path::Path;
use std::sync::Arc;

use tailwater_log::format::{Checkpoint, SEGMENT_DATA_START, SEGMENT_PREFIX_BYTES, SegmentHeader, SlotFault};
use tailwater_log::limits::SECTOR_BYTES;
use tailwater_log::storage::{EntryKind, OpenMode, Storage, StorageFile};
use tailwater_log::{FilePosition, Offset, PartitionId, TopicId};

use crate::catalog::name::{deleted_directory, partition_directory};
use crate::{Error, Result};

/// The segment that a new log begins with.
const FIRST_SEGMENT_NAME: &str = "00000000000000000000.log";
/// What else the creation of a log makes.
pub(super) const CHECKPOINT_NAME: &str = "checkpoint";
const OTHER_NAMES: [&str; 2] = ["checkpoint.tmp", "first.tmp"];
/// The deepest directory that is removed with its contents: a partition's `quarantine`.
const MAX_DEPTH: u32 = 2;
/// How much of a segment is looked at in one go.
const CHUNK_BYTES: usize = 64 * 1024;

/// A new topic id.
pub(crate) fn new_topic_id(storage: &Arc<dyn Storage>) -> TopicId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&storage.random().to_le_bytes());
    bytes[8..].copy_from_slice(&storage.random().to_le_bytes());
    TopicId::from_bytes(bytes)
}

/// Why a directory cannot be put aside, or `None` if it can: it is empty, or what an interrupted creation left.
pub(crate) fn obstacle(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Option<&'static str>> {
    for entry in storage.list_directory(directory)? {
        let name = entry.name.to_str().unwrap_or_default();
        let is_file = entry.kind == EntryKind::File;
        if is_file && name == FIRST_SEGMENT_NAME {
            let file = storage.open_file(&directory.join(name), OpenMode::Read)?;
            if let Some(obstacle) = obstacle_in_segment(&*file)? {
                return Ok(Some(obstacle));
            }
        } else if is_file && name == CHECKPOINT_NAME {
            let file = storage.open_file(&directory.join(name), OpenMode::Read)?;
            if let Some(obstacle) = obstacle_in_checkpoint(&*file)? {
                return Ok(Some(obstacle));
            }
        } else if !is_file || !OTHER_NAMES.contains(&name) {
            return Ok(Some("files that do not come from an interrupted creation"));
        }
    }
    Ok(None)
}

/// A checkpoint knows of records also where their segments are lost.
fn obstacle_in_checkpoint(file: &dyn StorageFile) -> Result<Option<&'static str>> {
    let mut slots = [0; 2 * SECTOR_BYTES];
    let count = file.read_full_at(&mut slots, FilePosition::ZERO)?;
    let mut of_records = slots[..count].chunks(SECTOR_BYTES).filter(|slot| match Checkpoint::decode(slot) {
        Ok(checkpoint) => checkpoint.durable > Offset::ZERO,
        Err(SlotFault::Unsupported(_)) => true,
        Err(SlotFault::Bad) => false,
    });
    Ok(of_records.next().map(|_| "the checkpoint of records"))
}

fn obstacle_in_segment(file: &dyn StorageFile) -> Result<Option<&'static str>> {
    let mut prefix = [0; SEGMENT_PREFIX_BYTES];
    let count = file.read_full_at(&mut prefix, FilePosition::ZERO)?;
    if SegmentHeader::decode_prefix(&prefix[..count]).is_err() {
        return Ok(Some("a segment that cannot be read"));
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = SEGMENT_DATA_START;
    loop {
        let count = file.read_full_at(&mut chunk, position)?;
        if count == 0 {
            return Ok(None);
        }
        if chunk[..count].iter().any(|byte| *byte != 0) {
            return Ok(Some("records"));
        }
        position = position.plus(count as u64);
    }
}

/// Makes room for a new partition's directory of this name, if what is there is an empty leftover.
///
/// # Errors
///
/// [`Error::DirectoryInTheWay`] if it is not; nothing was changed then.
pub(crate) fn make_way(
    storage: &Arc<dyn Storage>,
    data: &Path,
    name: &str,
    partition: PartitionId,
) -> Result<()> {
    let directory = data.join(name);
    let reason = match storage.entry_kind(&directory)? {
        None => return Ok(()),
        Some(EntryKind::Directory) => obstacle(storage, &directory)?,
        Some(_) => Some("no directory"),
    };
    if let Some(reason) = reason {
        return Err(Error::DirectoryInTheWay { path: directory.into(), reason });
    }
    tracing::info!(directory = %directory.display(), "removing what an interrupted creation left");
    // Under an id that no topic has, so that the next open goes on if this is interrupted.
    discard(storage, data, name, new_topic_id(storage), partition)
}

/// Gives a partition's directory up and removes it. What cannot be removed is removed at a later open.
pub(crate) fn discard(
    storage: &Arc<dyn Storage>,
    data: &Path,
    name: &str,
    id: TopicId,
    partition: PartitionId,
) -> Result<()> {
    let aside = data.join(deleted_directory(id, partition));
    storage.rename(&data.join(name), &aside)?;
    storage.sync_directory(data)?;
    remove_given_up(storage, &aside);
    Ok(())
}

/// Gives all partitions of a topic up, durably. One that is missing is gone already.
pub(crate) fn give_up_partitions(
    storage: &Arc<dyn Storage>,
    data: &Path,
    topic: &str,
    id: TopicId,
    partition_count: u32,
) -> Result<()> {
    rename_partitions(storage, data, partition_count, |partition| {
        let mut given_up = deleted_directory(id, partition);
        if storage.entry_kind(&data.join(&given_up))?.is_some() {
            // A power cut within an earlier rename can leave both names for one directory, and to rename one to the other
            // then does nothing.
            given_up = deleted_directory(new_topic_id(storage), partition);
        }
        Ok((partition_directory(topic, partition), given_up))
    })
}

/// Undoes [`give_up_partitions`], durably.
pub(crate) fn take_back_partitions(
    storage: &Arc<dyn Storage>,
    data: &Path,
    topic: &str,
    id: TopicId,
    partition_count: u32,
) -> Result<()> {
    rename_partitions(storage, data, partition_count, |partition| {
        Ok((deleted_directory(id, partition), partition_directory(topic, partition)))
    })
}

/// Renames the directory of each partition, from the first name to the second, and makes that durable.
fn rename_partitions(
    storage: &Arc<dyn Storage>,
    data: &Path,
    partition_count: u32,
    names: impl Fn(PartitionId) -> Result<(String, String)>,
) -> Result<()> {
    for partition in (0..partition_count).map(PartitionId::new) {
        let (from, to) = names(partition)?;
        match storage.rename(&data.join(from), &data.join(to)) {
            Err(error) if error.is_not_found() => {}
            renamed => renamed?,
        }
    }
    Ok(storage.sync_directory(data)?)
}

/// Removes a directory that was given up, and says in the log what stays of it.
pub(crate) fn remove_given_up(storage: &Arc<dyn Storage>, directory: &Path) {
    if let Err(error) = remove_tree(storage, directory, 0) {
        tracing::warn!(directory = %directory.display(), %error, "a deleted partition is removed at a later open");
    }
}

fn remove_tree(storage: &Arc<dyn Storage>, directory: &Path, depth: u32) -> Result<()> {
    for entry in storage.list_directory(directory)? {
        let path = directory.join(&entry.name);
        if entry.kind == EntryKind::Directory && depth < MAX_DEPTH {
            remove_tree(storage, &path, depth + 1)?;
        } else {
            // A link is removed, not what it leads to.
            storage.remove_file(&path)?;
        }
    }
    Ok(storage.remove_directory(directory)?)
}
