//! One writer: the lock on a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{OpenMode, Storage, StorageLock};
use crate::error::Locked;
use crate::{Error, FilePosition, Result};

/// The name of the lock file.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// How much of a holder's name is read, in bytes.
const MAX_HOLDER_BYTES: usize = 256;
/// How often the lock is taken again when its file was replaced meanwhile.
const MAX_TRIES: u32 = 10;

/// A held lock on a directory. Dropping it frees the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    lock: Box<dyn StorageLock>,
    process_id: u32,
}

impl DirectoryLock {
    /// Takes the lock of `directory`, and leaves the name of this process in it.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] names who holds it; [`Error::Io`] if the lock file cannot be opened or written.
    pub fn acquire(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK_NAME);
        for _ in 0..MAX_TRIES {
            let Some(lock) = storage.try_lock(&path)? else {
                let holder = read_holder(storage, &path);
                return Err(Error::Locked(Box::new(Locked { path, holder })));
            };
            // Somebody may have removed the file between its opening and its locking: then others would lock another.
            if lock.is_current()? {
                lock.set_holder(&own_name())?;
                return Ok(Self { lock, process_id: std::process::id() });
            }
        }
        Err(Error::Locked(Box::new(Locked { path, holder: None })))
    }

    /// Whether this process took the lock. A forked child shares it, and must not write.
    #[must_use]
    pub fn is_held_by_this_process(&self) -> bool {
        self.process_id == std::process::id()
    }

    /// Whether the lock file is still there under its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if that cannot be told.
    pub fn is_current(&self) -> Result<bool> {
        self.lock.is_current()
    }

    /// Who holds the lock of `directory` now, if anybody does; the empty string if the holder left no name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the lock file cannot be opened.
    pub fn holder(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Option<String>> {
        let path: PathBuf = directory.join(LOCK_NAME);
        if storage.entry_kind(&path)?.is_none() {
            return Ok(None);
        }
        match storage.try_lock(&path)? {
            Some(_free) => Ok(None),
            None => Ok(Some(read_holder(storage, &path).unwrap_or_default())),
        }
    }
}

fn own_name() -> String {
    let program = std::env::current_exe().ok();
    let program =
        program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    format!("process {} ({})", std::process::id(), program.as_deref().unwrap_or("unknown program"))
}

fn read_holder(storage: &Arc<dyn Storage>, path: &Path) -> Option<String> {
    let file = storage.open_file(path, OpenMode::Read).ok()?;
    let mut bytes = [0; MAX_HOLDER_BYTES];
    let count = file.read_full_at(&mut bytes, FilePosition::ZERO).ok()?;
    let name: String = String::from_utf8_lossy(&bytes[..count]).chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty()).then_some(name)
}
