//! Putting the files of a backup in place.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_log::format::{SEGMENT_PREFIX_BYTES, SegmentHeader};
use tailwater_log::storage::{EntryKind, FileHandle, OpenMode, Storage};
use tailwater_log::{Error as LogError, FilePosition, IoOperation, LogSnapshot, SnapshotSegment, Timestamp};

use super::BackupReport;
use super::manifest::{MANIFEST_NAME, Manifest, ManifestFile};
use crate::catalog::{CATALOG_NAME, Catalog, name};
use crate::{Error, Result};

/// How much is read and written at a time, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// A backup that is being filled.
pub(super) struct Copier<'b> {
    storage: &'b Arc<dyn Storage>,
    /// Where the files are.
    source: &'b Path,
    /// Where they go.
    target: &'b Path,
    earlier: Option<(PathBuf, Manifest)>,
    copies_all: bool,
    /// What is in place, by its path.
    files: BTreeMap<String, (ManifestFile, How)>,
    buffer: Vec<u8>,
}

/// How a file came to be in the backup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Copied,
    Linked,
    Reused,
}

impl<'b> Copier<'b> {
    pub(super) fn new(
        storage: &'b Arc<dyn Storage>,
        source: &'b Path,
        target: &'b Path,
        earlier: Option<(PathBuf, Manifest)>,
        copies_all: bool,
    ) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { storage, source, target, earlier, copies_all, files: BTreeMap::new(), buffer }
    }

    /// Puts a partition in place, durably but for its own name. After an error some of it may be there.
    pub(super) fn partition(&mut self, name: &str, snapshot: &LogSnapshot) -> Result<()> {
        let directory = self.target.join(name);
        self.storage.create_directory(&directory)?;
        for index in 0..snapshot.segment_count() {
            let segment = snapshot.segment(index)?;
            let path = format!("{name}/{}", segment.name);
            self.segment(path, &segment)?;
        }
        let path = format!("{name}/{}", LogSnapshot::CHECKPOINT_NAME);
        self.write(path, &snapshot.checkpoint())?;
        Ok(self.storage.sync_directory(&directory)?)
    }

    /// Takes a partition out again, whole or not.
    pub(super) fn forget(&mut self, name: &str) -> Result<()> {
        remove_tree(self.storage, &self.target.join(name))?;
        let prefix = format!("{name}/");
        self.files.retain(|path, _| !path.starts_with(&prefix));
        Ok(())
    }

    /// Puts the catalog and the manifest in place: then the backup is whole and durable, but for its name. Partitions of topics
    /// that are not in the catalog are taken out.
    pub(super) fn finish(mut self, catalog: &Catalog, created: Timestamp) -> Result<BackupReport> {
        let is_known = |directory: &str| {
            let (topic, partition) = name::parse_partition_directory(directory)?;
            let topic = catalog.topics.iter().find(|known| known.name == topic)?;
            (partition.get() < topic.partition_count).then_some(())
        };
        let mut partitions: Vec<_> = self
            .files
            .keys()
            .filter_map(|path| path.split_once('/'))
            .map(|(name, _)| name.to_owned())
            .collect();
        partitions.dedup();
        for partition in &partitions {
            if is_known(partition).is_none() {
                self.forget(partition)?;
            }
        }
        partitions.retain(|partition| is_known(partition).is_some());
        self.write(CATALOG_NAME.to_owned(), &catalog.encode())?;
        let mut report = BackupReport { partitions: partitions.len() as u64, ..BackupReport::default() };
        for (file, how) in self.files.values() {
            report.files += 1;
            report.size_bytes += file.length_bytes;
            report.linked_files += u64::from(*how != How::Copied);
            report.reused_files += u64::from(*how == How::Reused);
            report.copied_bytes += if *how == How::Copied { file.length_bytes } else { 0 };
        }
        let files = std::mem::take(&mut self.files).into_values().map(|(file, _)| file).collect();
        let manifest = Manifest { created, files };
        let file = self.storage.open_file(&self.target.join(MANIFEST_NAME), OpenMode::CreateNew)?;
        file.write_all_at(&manifest.encode(), FilePosition::ZERO)?;
        file.sync_all()?;
        self.storage.sync_directory(self.target)?;
        Ok(report)
    }

    /// Puts a segment in place: one that is sealed by a second name, if it can have one.
    fn segment(&mut self, path: String, segment: &SnapshotSegment) -> Result<()> {
        let target = self.target.join(&path);
        if segment.is_sealed && !self.copies_all {
            if let Some(digest) = self.link_earlier(&path, segment, &target)? {
                return self.note(path, segment.length_bytes, digest, How::Reused);
            }
            if self.link(&self.source.join(&path), &target, segment.salt)? {
                // Read all the same: what is not as it was written is not to be found out when it is needed.
                let digest = self.read(&segment.file, segment.length_bytes, None)?;
                return self.note(path, segment.length_bytes, digest, How::Linked);
            }
        }
        let file = self.storage.open_file(&target, OpenMode::CreateNew)?;
        let digest = self.read(&segment.file, segment.length_bytes, Some(&file))?;
        file.sync_all()?;
        self.note(path, segment.length_bytes, digest, How::Copied)
    }

    /// Gives the same segment of the earlier backup a second name. `None` if it is not there, or cannot have one.
    fn link_earlier(
        &self,
        path: &str,
        segment: &SnapshotSegment,
        target: &Path,
    ) -> Result<Option<blake3::Hash>> {
        let Some((directory, manifest)) = &self.earlier else { return Ok(None) };
        let Some(known) = manifest.file(path).filter(|known| known.length_bytes == segment.length_bytes)
        else {
            return Ok(None);
        };
        let is_linked = self.link(&directory.join(path), target, segment.salt)?;
        Ok(is_linked.then_some(known.digest))
    }

    /// Gives the segment file at `existing` the name `target` too, if it has this salt. False if it cannot have it.
    fn link(&self, existing: &Path, target: &Path, salt: u64) -> Result<bool> {
        match self.storage.hard_link(existing, target) {
            Err(LogError::Io { source, .. }) if is_no_link(source.kind()) => return Ok(false),
            linked => linked?,
        }
        // It may have been replaced since it was looked at, and the earlier one may be of another history.
        let file = self.storage.open_file(target, OpenMode::Read)?;
        let mut prefix = [0; SEGMENT_PREFIX_BYTES];
        let count = file.read_full_at(&mut prefix, FilePosition::ZERO)?;
        let header = SegmentHeader::decode_prefix(&prefix[..count]);
        if header.is_ok_and(|(header, _)| header.salt == salt) {
            return Ok(true);
        }
        self.storage.remove_file(target)?;
        Ok(false)
    }

    /// Reads the first bytes of a file, and copies them. Returns their digest.
    fn read(
        &mut self,
        file: &FileHandle,
        length_bytes: u64,
        copy: Option<&FileHandle>,
    ) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let mut position = FilePosition::ZERO;
        while position.get() < length_bytes {
            let wanted =
                usize::try_from(length_bytes - position.get()).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let count = file.read_full_at(&mut self.buffer[..wanted], position)?;
            if count < wanted {
                let error = std::io::Error::new(ErrorKind::UnexpectedEof, "it is shorter than it was");
                return Err(LogError::io(IoOperation::Read, Arc::clone(file.path()), error).into());
            }
            hasher.update(&self.buffer[..count]);
            if let Some(copy) = copy {
                copy.write_all_at(&self.buffer[..count], position)?;
            }
            position = position.plus(count as u64);
        }
        Ok(hasher.finalize())
    }

    /// Writes a small file.
    fn write(&mut self, path: String, bytes: &[u8]) -> Result<()> {
        let file = self.storage.open_file(&self.target.join(&path), OpenMode::CreateNew)?;
        file.write_all_at(bytes, FilePosition::ZERO)?;
        file.sync_all()?;
        self.note(path, bytes.len() as u64, blake3::hash(bytes), How::Copied)
    }

    fn note(&mut self, path: String, length_bytes: u64, digest: blake3::Hash, how: How) -> Result<()> {
        self.files.insert(path.clone(), (ManifestFile { path, length_bytes, digest }, how));
        Ok(())
    }
}

/// Whether a second name was refused for what the file or its file system is, so that a copy will do.
fn is_no_link(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::CrossesDevices
            | ErrorKind::PermissionDenied
            | ErrorKind::TooManyLinks
            | ErrorKind::Unsupported
            // Removed since it was opened, which keeps it readable; or missing in an earlier backup.
            | ErrorKind::NotFound
    )
}

/// Removes a directory with all that is in it, but for what is neither a file nor a directory.
pub(super) fn remove_tree(storage: &Arc<dyn Storage>, directory: &Path) -> Result<()> {
    for entry in storage.list_directory(directory)? {
        let path = directory.join(&entry.name);
        match entry.kind {
            EntryKind::Directory => remove_tree(storage, &path)?,
            EntryKind::File => storage.remove_file(&path)?,
            EntryKind::Other => return Err(Error::BackupExists { path: path.as_path().into() }),
        }
    }
    Ok(storage.remove_directory(directory)?)
}
