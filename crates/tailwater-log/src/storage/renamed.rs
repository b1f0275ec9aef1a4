//! A file under the name that it was given after it was opened.

use std::path::Path;
use std::sync::Arc;

use super::{FileHandle, Map, StorageFile};
use crate::{Error, FilePosition, Result};

/// An open file whose errors tell of it by its new name: the one it was opened under leads to nothing any more.
#[derive(Debug)]
pub(crate) struct RenamedFile {
    file: FileHandle,
    path: Arc<Path>,
}

impl RenamedFile {
    pub(crate) fn new(file: FileHandle, path: &Path) -> Self {
        Self { file, path: path.into() }
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        let path = || Arc::clone(&self.path);
        result.map_err(|error| match error {
            Error::Io { operation, source, .. } => Error::Io { operation, path: path(), source },
            Error::DiskFull { source, .. } => Error::DiskFull { path: path(), source },
            other => other,
        })
    }
}

impl StorageFile for RenamedFile {
    fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        self.named(self.file.read_at(buffer, position))
    }

    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize> {
        self.named(self.file.write_at(bytes, position))
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.named(self.file.allocate(length))
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.named(self.file.set_length(length))
    }

    fn length(&self) -> Result<u64> {
        self.named(self.file.length())
    }

    fn sync_data(&self) -> Result<()> {
        self.named(self.file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.named(self.file.sync_all())
    }

    fn map(&self, length: u64) -> Result<Option<Map>> {
        self.named(self.file.map(length))
    }
}
