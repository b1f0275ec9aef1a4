//! Comparing a backup with its manifest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_log::storage::{EntryKind, OpenMode, Storage};
use tailwater_log::{FilePosition, Timestamp};

use super::manifest::{MANIFEST_NAME, Manifest, ManifestFile};
use crate::Result;

const BUFFER_BYTES: usize = 1 << 20;

/// What a comparison of a backup with its manifest found: [`Broker::check_backup`](crate::Broker::check_backup).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackupCheck {
    /// When the backup was made.
    pub created: Timestamp,
    /// Files in the manifest.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files that are not as they were when the backup was made.
    pub problems: Vec<BackupProblem>,
}

/// A file of a backup that is not as it was when the backup was made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackupProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: BackupProblemKind,
}

/// What is wrong with a file of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BackupProblemKind {
    /// It is not there.
    Missing,
    /// Its length is another.
    Length {
        /// In bytes, as it is.
        found: u64,
        /// In bytes, as it was.
        expected: u64,
    },
    /// Its bytes are others.
    Changed,
    /// The manifest does not know it.
    Unknown,
}

impl fmt::Display for BackupProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            BackupProblemKind::Missing => write!(f, "{path} is missing from the backup"),
            BackupProblemKind::Length { found, expected } => {
                write!(f, "{path} has {found} bytes, and had {expected} when the backup was made")
            }
            BackupProblemKind::Changed => write!(f, "{path} is not as it was when the backup was made"),
            BackupProblemKind::Unknown => write!(f, "{path} is no part of the backup"),
        }
    }
}

/// Compares the backup in `directory` with its manifest. `None` if it has none.
pub(crate) fn check(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<BackupCheck>> {
    let Some(manifest) = Manifest::read(storage, directory)? else { return Ok(None) };
    let files = manifest.files.len() as u64;
    let mut check = BackupCheck { created: manifest.created, files, bytes: 0, problems: Vec::new() };
    for file in &manifest.files {
        if let Some(kind) = compare(storage, directory, file, &mut |bytes| {
            check.bytes += bytes;
            progress(bytes);
        })? {
            check.problems.push(BackupProblem { path: directory.join(&file.path), kind });
        }
    }
    find_unknown(storage, directory, "", &manifest, &mut check.problems)?;
    check.problems.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Some(check))
}

fn compare(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    known: &ManifestFile,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<BackupProblemKind>> {
    let file = match storage.open_file(&directory.join(&known.path), OpenMode::Read) {
        Err(error) if error.is_not_found() => return Ok(Some(BackupProblemKind::Missing)),
        opened => opened?,
    };
    let (found, expected) = (file.length()?, known.length_bytes);
    if found != expected {
        return Ok(Some(BackupProblemKind::Length { found, expected }));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = FilePosition::ZERO;
    loop {
        let count = file.read_full_at(&mut buffer, position)?;
        hasher.update(&buffer[..count]);
        progress(count as u64);
        position = position.plus(count as u64);
        if count < buffer.len() {
            break;
        }
    }
    Ok((hasher.finalize() != known.digest).then_some(BackupProblemKind::Changed))
}

/// Looks for files that the manifest does not know.
fn find_unknown(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    prefix: &str,
    manifest: &Manifest,
    problems: &mut Vec<BackupProblem>,
) -> Result<()> {
    for entry in storage.list_directory(&directory.join(prefix))? {
        let name = entry.name.to_string_lossy();
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") };
        let is_own = prefix.is_empty() && [MANIFEST_NAME, "LOCK"].contains(&&*name);
        if entry.kind == EntryKind::Directory {
            find_unknown(storage, directory, &path, manifest, problems)?;
        } else if !is_own && manifest.file(&path).is_none() {
            problems.push(BackupProblem { path: directory.join(path), kind: BackupProblemKind::Unknown });
        }
    }
    Ok(())
}
