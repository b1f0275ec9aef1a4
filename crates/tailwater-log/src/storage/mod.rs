//! The only door to the operating system: files, directories and locks.
//!
//! Everything the engine does to a disk goes through [`Storage`] and [`StorageFile`]. Behind them sits the real disk
//! ([`Disk`]) or a simulated one ([`SimDisk`]) that can lose power at any operation.
//!
//! What the contract promises after a power cut, and no more:
//! - a write is durable once a later [`StorageFile::sync_data`] or [`StorageFile::sync_all`] of the file returned
//!   `Ok`; before that any subset of its 512-byte sectors may be there, in any order;
//! - a created, renamed or removed name is durable once a later [`Storage::sync_directory`] of its directory returned
//!   `Ok`; before that each name may be there as before or as after, independently of the others;
//! - the length of a file is durable with its data.

#[cfg(test)]
mod conformance;
mod disk;
mod lock;
mod mmap;
mod process;
mod renamed;
mod replace;
pub mod sim;
mod slice;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use disk::Disk;
pub use lock::DirectoryLock;
pub(crate) use lock::{LOCK_NAME, LockOwner};
pub use mmap::Map;
pub(crate) use process::process_id;
pub(crate) use renamed::RenamedFile;
pub(crate) use replace::create_temporary;
pub use replace::{create_directory_durably, read_whole, replace};
pub use sim::SimDisk;
pub use slice::FileSlice;

use crate::{FilePosition, Result};

/// An open file, shared between threads. Dropping the last one closes it.
pub type FileHandle = Arc<dyn StorageFile>;

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; made new and empty. An existing file of that name is an error.
    CreateNew,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, fifo, socket or device: never opened, never removed.
    Other,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The name, without the directory. Any bytes.
    pub name: OsString,
    /// What it stands for.
    pub kind: EntryKind,
}

/// A file system as the engine needs it.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Opens a file. Never follows a symbolic link in the last component, never blocks on a fifo.
    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<FileHandle>;

    /// Lists a directory, in no particular order, without `.` and `..`.
    fn list_directory(&self, directory: &Path) -> Result<Vec<DirectoryEntry>>;

    /// What `path` stands for, or `None` if there is nothing. Does not follow a symbolic link in the last component.
    fn entry_kind(&self, path: &Path) -> Result<Option<EntryKind>>;

    /// Makes a directory. Its parent must exist; an existing directory of that name is an error.
    fn create_directory(&self, directory: &Path) -> Result<()>;

    /// Renames a file or directory within one file system, replacing an existing file of that name.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives a file another name, on the same file system: durable once the directory of `link` is synced. An existing file of
    /// that name is an error. A storage that has nothing of the kind answers [`Unsupported`](std::io::ErrorKind::Unsupported),
    /// and files are copied then.
    fn hard_link(&self, existing: &Path, _link: &Path) -> Result<()> {
        let error = std::io::ErrorKind::Unsupported.into();
        Err(crate::Error::io(crate::IoOperation::Link, existing, error))
    }

    /// Removes a file. Handles and maps of it stay usable.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes an empty directory.
    fn remove_directory(&self, directory: &Path) -> Result<()>;

    /// Makes the names in a directory durable. After an error those that were to become so may not, whatever later calls
    /// say, unless they are changed anew.
    fn sync_directory(&self, directory: &Path) -> Result<()>;

    /// Takes the exclusive advisory lock of the file at `path`, which is made if missing, or answers `None` if it is
    /// held elsewhere, in this process or another. Held until the box is dropped, at the latest when the process ends.
    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn StorageLock>>>;

    /// The name of the network file system that `path` lies on, or `None` if it is local or cannot be told.
    fn network_file_system(&self, path: &Path) -> Result<Option<&'static str>>;

    /// 64 random bits, for salts and ids. Not for secrets.
    fn random(&self) -> u64;
}

/// A held lock. Dropping it releases the lock.
pub trait StorageLock: fmt::Debug + Send + Sync {
    /// Replaces the text that tells others who holds the lock.
    fn set_holder(&self, holder: &str) -> Result<()>;

    /// Whether the locked file is still the one that its name stands for.
    fn is_current(&self) -> Result<bool>;
}

/// An open file of a [`Storage`]. Reads and writes give their position; there is no cursor.
pub trait StorageFile: fmt::Debug + Send + Sync + 'static {
    /// The path it was opened under. It may have been renamed since.
    fn path(&self) -> &Arc<Path>;

    /// Reads into `buffer` from `position`, as much as one system call gives: 0 only at the end of the file (or for
    /// an empty buffer). An interrupted call is repeated.
    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize>;

    /// Writes from `bytes` at `position`, as much as one system call takes: at least 1 byte. An interrupted call is
    /// repeated. After an error nothing is known about the bytes in the range.
    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize>;

    /// Reserves blocks for `[0, length)` and makes the file at least that long; new bytes read as zeros.
    fn allocate(&self, length: u64) -> Result<()>;

    /// Cuts or extends the file to `length` bytes; new bytes read as zeros.
    fn set_length(&self, length: u64) -> Result<()>;

    /// The length in bytes.
    fn length(&self) -> Result<u64>;

    /// Makes the written bytes durable, and the length (`fdatasync`). After an error the file must not be relied on
    /// before a restart of the machine, whatever later calls say.
    fn sync_data(&self) -> Result<()>;

    /// As [`StorageFile::sync_data`], with all metadata (`fsync`).
    fn sync_all(&self) -> Result<()>;

    /// Maps `[0, length)` for reading, also past the end of the file, or answers `None` where maps are not to be had.
    fn map(&self, length: u64) -> Result<Option<Map>>;

    /// Reads until `buffer` is full or the file ends; returns how many bytes there were.
    fn read_full_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], position.plus(done as u64))? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes`.
    fn write_all_at(&self, bytes: &[u8], position: FilePosition) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.write_at(&bytes[done..], position.plus(done as u64))?;
        }
        Ok(())
    }
}
