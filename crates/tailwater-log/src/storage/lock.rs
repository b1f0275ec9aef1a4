//! One writer: the lock on a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{OpenMode, Storage, StorageLock, process_id};
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
                return Ok(Self { lock, process_id: process_id() });
            }
        }
        Err(Error::Locked(Box::new(Locked { path, holder: None })))
    }

    /// Whether this process took the lock. A forked child shares it, and must not write.
    #[must_use]
    pub fn is_held_by_this_process(&self) -> bool {
        self.owner().is_this_process()
    }

    /// The process that took the lock.
    pub(crate) fn owner(&self) -> LockOwner {
        LockOwner { process_id: self.process_id }
    }

    /// Refuses to go on in a process that was forked since the lock of `directory` was taken.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] names the process that took it.
    pub fn refuse_forked(&self, directory: &Path) -> Result<()> {
        self.owner().refuse_forked(directory)
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

/// The process that took a lock, also after the lock is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockOwner {
    process_id: u32,
}

impl LockOwner {
    pub(crate) fn is_this_process(self) -> bool {
        self.process_id == process_id()
    }

    #[inline]
    pub(crate) fn refuse_forked(self, directory: &Path) -> Result<()> {
        if self.is_this_process() {
            return Ok(());
        }
        self.forked(directory)
    }

    #[cold]
    fn forked(self, directory: &Path) -> Result<()> {
        let holder = format!("process {}, which this one was forked from", self.process_id);
        Err(Error::Locked(Box::new(Locked { path: directory.join(LOCK_NAME), holder: Some(holder) })))
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

#[cfg(test)]
mod tests {
    use super::super::{Disk, SimDisk};
    use super::*;

    fn on_both(test: impl Fn(&Arc<dyn Storage>, &Path)) {
        let directory = tempfile::tempdir().unwrap();
        test(&(Arc::new(Disk) as Arc<dyn Storage>), directory.path());
        test(&(Arc::new(SimDisk::new(1)) as Arc<dyn Storage>), Path::new("/"));
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        on_both(|storage, directory| {
            let first = DirectoryLock::acquire(storage, directory).unwrap();
            assert!(first.is_held_by_this_process());
            assert!(first.is_current().unwrap());
            match DirectoryLock::acquire(storage, directory) {
                Err(Error::Locked(locked)) => {
                    assert_eq!(locked.path, directory.join(LOCK_NAME));
                    assert_eq!(locked.holder, Some(own_name()));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(DirectoryLock::holder(storage, directory).unwrap(), Some(own_name()));
            drop(first);
            assert_eq!(DirectoryLock::holder(storage, directory).unwrap(), None);
            assert!(DirectoryLock::acquire(storage, directory).is_ok());
        });
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_not_current() {
        on_both(|storage, directory| {
            let first = DirectoryLock::acquire(storage, directory).unwrap();
            storage.remove_file(&directory.join(LOCK_NAME)).unwrap();
            assert!(!first.is_current().unwrap());
            let second = DirectoryLock::acquire(storage, directory).unwrap();
            assert!(second.is_current().unwrap());
            assert!(!first.is_current().unwrap());
        });
    }

    #[test]
    fn a_long_or_unprintable_holder_is_cut_and_cleaned() {
        let disk = SimDisk::new(1);
        let mut bytes = b"\x1b[31mevil\n\xff\0".to_vec();
        bytes.resize(10_000, b'x');
        disk.write_file("/LOCK".as_ref(), &bytes).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let holder = read_holder(&storage, Path::new("/LOCK")).unwrap();
        assert!(holder.starts_with("[31mevil\u{fffd}xxx"), "{holder}");
        assert!(holder.len() <= 2 * MAX_HOLDER_BYTES, "{} bytes", holder.len());
    }

    #[test]
    fn a_lock_in_a_missing_directory_is_an_io_error() {
        on_both(|storage, directory| {
            let error = DirectoryLock::acquire(storage, &directory.join("absent")).unwrap_err();
            assert!(error.is_not_found(), "{error:?}");
        });
    }
}
