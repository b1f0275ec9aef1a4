//! The checkpoint of a partition: two slots, written alternately.
//!
//! - A slot is never the only source of the log's end or epoch; it saves scanning, and keeps the log start.
//! - The older slot is overwritten, so that a torn write leaves the newer one.
//! - The file is open only while it is written: that is seldom, and there may be thousands of partitions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inner::Inner;
use crate::format::{self, Checkpoint};
use crate::limits::SECTOR_BYTES;
use crate::storage::{FileHandle, OpenMode, Storage, create_temporary};
use crate::{Error, FilePosition, Offset, PartitionIdentity, Result};

/// The name of the file.
pub(crate) const CHECKPOINT_NAME: &str = "checkpoint";
const TEMPORARY_NAME: &str = "checkpoint.tmp";

/// The sequence of the newer slot of a new file.
const LATEST_SEQUENCE: u64 = 2;

/// The bytes of a new checkpoint file with `first` in both slots.
pub(crate) fn checkpoint_bytes(first: Checkpoint) -> [u8; 2 * SECTOR_BYTES] {
    let mut bytes = [0; 2 * SECTOR_BYTES];
    let older = Checkpoint { sequence: LATEST_SEQUENCE - 1, ..first };
    let latest = Checkpoint { sequence: LATEST_SEQUENCE, ..first };
    bytes[..SECTOR_BYTES].copy_from_slice(&older.encode());
    bytes[SECTOR_BYTES..].copy_from_slice(&latest.encode());
    bytes
}

/// Where a scan for the end of the log may begin: a batch boundary with everything below it durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ScanPoint {
    /// The base offset of the segment.
    pub(crate) base: Offset,
    pub(crate) position: FilePosition,
    pub(crate) offset: Offset,
}

/// The checkpoint file, and what was last written to it.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    path: PathBuf,
    latest: Checkpoint,
    newest_slot: usize,
}

/// What a checkpoint file was found to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FoundCheckpoint {
    pub(crate) newest: Checkpoint,
    pub(crate) newest_slot: usize,
    /// Both slots verify.
    pub(crate) is_whole: bool,
}

impl CheckpointFile {
    /// Reads the checkpoint of `directory`, and says whether there is a file. `None` if there is none, or neither slot is one
    /// of this partition.
    pub(crate) fn read(
        storage: &Arc<dyn Storage>,
        directory: &Path,
        identity: PartitionIdentity,
        mode: OpenMode,
    ) -> Result<(Option<FileHandle>, Option<FoundCheckpoint>)> {
        let path = directory.join(CHECKPOINT_NAME);
        let file = match storage.open_file(&path, mode) {
            Err(error) if error.is_not_found() => return Ok((None, None)),
            opened => opened?,
        };
        let found = Self::read_slots(&file, identity)?;
        Ok((Some(file), found))
    }

    /// Reads the slots of an open checkpoint file.
    pub(crate) fn read_slots(
        file: &FileHandle,
        identity: PartitionIdentity,
    ) -> Result<Option<FoundCheckpoint>> {
        let mut bytes = [0; 2 * SECTOR_BYTES];
        let count = file.read_full_at(&mut bytes, FilePosition::ZERO)?;
        let slots = format::decode_slots(&bytes[..count]).map_err(|feature| Error::Unsupported {
            path: Arc::clone(file.path()),
            feature,
            newest_supported: format::VERSION,
            offsets: None,
        })?;
        Ok(slots.newest.filter(|newest| newest.identity == identity).map(|newest| FoundCheckpoint {
            newest,
            newest_slot: slots.newest_index,
            is_whole: slots.all_verify,
        }))
    }

    /// Goes on with the file of `directory`, which was read.
    pub(crate) fn resume(directory: &Path, found: FoundCheckpoint) -> Self {
        Self { path: directory.join(CHECKPOINT_NAME), latest: found.newest, newest_slot: found.newest_slot }
    }

    /// Puts a new file with `first` in both slots in the place of whatever is there: written aside, synced, renamed.
    /// The caller syncs the directory.
    pub(crate) fn replace(
        storage: &Arc<dyn Storage>,
        directory: &Path,
        first: Checkpoint,
    ) -> Result<CheckpointFile> {
        let temporary: PathBuf = directory.join(TEMPORARY_NAME);
        let file = create_temporary(storage, &temporary)?;
        file.write_all_at(&checkpoint_bytes(first), FilePosition::ZERO)?;
        file.sync_all()?;
        let path = directory.join(CHECKPOINT_NAME);
        storage.rename(&temporary, &path)?;
        Ok(Self { path, latest: Checkpoint { sequence: LATEST_SEQUENCE, ..first }, newest_slot: 1 })
    }

    /// What was last written.
    pub(crate) fn latest(&self) -> &Checkpoint {
        &self.latest
    }

    /// Opens the file for [`CheckpointFile::write`].
    pub(crate) fn open(&self, log: &Inner) -> Result<FileHandle> {
        log.files.open(|| log.storage.open_file(&self.path, OpenMode::ReadWrite))
    }

    /// Writes `next` (its sequence is set here) over the older slot. Durable once `file` is synced, by the same handle: an
    /// error that the system meets in between is told to those who have the file open.
    pub(crate) fn write(&mut self, file: &FileHandle, next: Checkpoint) -> Result<()> {
        let next = Checkpoint { sequence: self.latest.sequence + 1, ..next };
        let slot = 1 - self.newest_slot;
        file.write_all_at(&next.encode(), FilePosition::new((slot * SECTOR_BYTES) as u64))?;
        self.latest = next;
        self.newest_slot = slot;
        Ok(())
    }
}
