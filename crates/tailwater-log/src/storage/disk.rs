//! The real disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{
    DirectoryEntry, EntryKind, FileHandle, Map, OpenMode, Storage, StorageFile, StorageLock, process_id,
};
use crate::{Error, FilePosition, IoOperation, Result};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "tailwater is built and tested for 64-bit Linux only: elsewhere its durability was never checked"
);

/// The file systems of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

#[derive(Debug)]
struct DiskFile {
    file: File,
    path: Arc<Path>,
}

/// The network file systems that can be told by their number (`statfs(2)`).
const NETWORK_FILE_SYSTEMS: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x6b41_4653, "AFS"),
    (0x5346_414f, "AFS"),
];

impl Storage for Disk {
    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<FileHandle> {
        let failed = |error| Error::io(operation_of(mode), path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => {}
            OpenMode::CreateNew => {
                options.create_new(true);
            }
        }
        let file = open_regular(path, &mut options).map_err(failed)?;
        Ok(Arc::new(DiskFile { file, path: path.into() }))
    }

    fn list_directory(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        let failed = |error| Error::io(IoOperation::List, directory, error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_type() {
                Ok(kind) => entries.push(DirectoryEntry { name: entry.file_name(), kind: kind_of(kind) }),
                // Removed since its name was read; some file systems give the kind only on asking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(entries)
    }

    fn entry_kind(&self, path: &Path) -> Result<Option<EntryKind>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io(IoOperation::Inspect, path, error)),
        }
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        fs::create_dir(directory).map_err(|error| Error::io(IoOperation::Create, directory, error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|error| Error::io(IoOperation::Rename, from, error))
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> Result<()> {
        fs::hard_link(existing, link).map_err(|error| Error::io(IoOperation::Link, existing, error))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|error| Error::io(IoOperation::Remove, path, error))
    }

    fn remove_directory(&self, directory: &Path) -> Result<()> {
        fs::remove_dir(directory).map_err(|error| Error::io(IoOperation::Remove, directory, error))
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        // Anything else than a directory is refused, and a fifo is not waited for.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed());
        // That it could not be opened is told apart: then nothing was tried.
        let failed = |operation| move |error| Error::io(operation, directory, error);
        let file = options.open(directory).map_err(failed(IoOperation::Open))?;
        file.sync_all().map_err(failed(IoOperation::Sync))
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn StorageLock>>> {
        let failed = |error| Error::io(IoOperation::Lock, path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_regular(path, &mut options).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock {
                file: DiskFile { file, path: path.into() },
                process_id: process_id(),
            }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn network_file_system(&self, path: &Path) -> Result<Option<&'static str>> {
        let stat =
            rustix::fs::statfs(path).map_err(|error| Error::io(IoOperation::Inspect, path, error.into()))?;
        let number = u64::from_le_bytes(stat.f_type.to_le_bytes()) & 0xffff_ffff;
        Ok(NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name))
    }

    fn random(&self) -> u64 {
        // Keyed by the operating system's randomness, and different at every call.
        RandomState::new().hash_one(std::time::Instant::now())
    }
}

impl StorageFile for DiskFile {
    fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        uninterrupted(|| self.file.read_at(buffer, position.get()))
            .map_err(|error| self.failed(IoOperation::Read, error))
    }

    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize> {
        let count = uninterrupted(|| self.file.write_at(bytes, position.get()))
            .map_err(|error| self.failed(IoOperation::Write, error))?;
        if count == 0 && !bytes.is_empty() {
            return Err(self.failed(IoOperation::Write, io::ErrorKind::WriteZero.into()));
        }
        Ok(count)
    }

    fn allocate(&self, length: u64) -> Result<()> {
        if length == 0 {
            // There is nothing to reserve, and `fallocate` takes no empty range.
            return Ok(());
        }
        let allocated = uninterrupted(|| {
            rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length).map_err(io::Error::from)
        });
        match allocated {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // The file system cannot reserve. A longer file at least spares the length's sync.
                if self.length()? < length {
                    self.set_length(length)?;
                }
                Ok(())
            }
            result => result.map_err(|error| self.failed(IoOperation::Allocate, error)),
        }
    }

    fn set_length(&self, length: u64) -> Result<()> {
        uninterrupted(|| self.file.set_len(length))
            .map_err(|error| self.failed(IoOperation::SetLength, error))
    }

    fn length(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|error| self.failed(IoOperation::Inspect, error))?;
        Ok(metadata.len())
    }

    fn sync_data(&self) -> Result<()> {
        // The standard library repeats it after EINTR, which speaks of no failed write. No other error is answered by
        // another try: what a failed sync dropped does not come back.
        self.file.sync_data().map_err(|error| self.failed(IoOperation::Sync, error))
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed(IoOperation::Sync, error))
    }

    fn map(&self, length: u64) -> Result<Option<Map>> {
        Map::new(&self.file, length).map(Some).map_err(|error| self.failed(IoOperation::Map, error))
    }
}

impl DiskFile {
    fn failed(&self, operation: IoOperation, error: io::Error) -> Error {
        Error::io(operation, Arc::clone(&self.path), error)
    }
}

/// A held `flock(2)`. Dropping it frees it, also while a child that was forked since still has the file open, if only until
/// it runs another program. Where nobody is left to drop it, the kernel frees it with the last who has the file open.
#[derive(Debug)]
struct DiskLock {
    file: DiskFile,
    process_id: u32,
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // A child that drops its copy frees nothing of its parent's. Where it fails, closing the file still does it.
        if self.process_id == process_id() {
            let _ = self.file.file.unlock();
        }
    }
}

impl StorageLock for DiskLock {
    fn set_holder(&self, holder: &str) -> Result<()> {
        // The cut comes last, so that nobody who asks in between finds the file empty.
        self.file.write_all_at(holder.as_bytes(), FilePosition::ZERO)?;
        self.file.set_length(holder.len() as u64)
    }

    fn is_current(&self) -> Result<bool> {
        let failed = |error| self.file.failed(IoOperation::Inspect, error);
        let mine = self.file.file.metadata().map_err(failed)?;
        match fs::symlink_metadata(&self.file.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (mine.dev(), mine.ino())),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Opens a regular file and nothing else.
fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    // A link could lead out of the directory, and opening a fifo would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path).map_err(|error| {
        // This is how a link is refused; the number alone would speak of too many of them.
        if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) { not_regular() } else { error }
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Whether nothing has the name: it is not there, or what should be its directory is a file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn operation_of(mode: OpenMode) -> IoOperation {
    match mode {
        OpenMode::Read | OpenMode::ReadWrite => IoOperation::Open,
        OpenMode::CreateNew => IoOperation::Create,
    }
}

fn kind_of(kind: fs::FileType) -> EntryKind {
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else {
        EntryKind::Other
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    /// A link to a file, a link to nothing, and a fifo.
    fn irregular(directory: &Path) -> [PathBuf; 3] {
        let [link, dangling, fifo] = ["link", "dangling", "fifo"].map(|name| directory.join(name));
        fs::write(directory.join("target"), b"kept").unwrap();
        symlink("target", &link).unwrap();
        symlink("absent", &dangling).unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        [link, dangling, fifo]
    }

    #[test]
    fn links_and_fifos_are_neither_opened_nor_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        for path in irregular(directory.path()) {
            assert_eq!(Disk.entry_kind(&path).unwrap(), Some(EntryKind::Other), "{path:?}");
            for mode in [OpenMode::Read, OpenMode::ReadWrite] {
                let error = Disk.open_file(&path, mode).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!("cannot open {}: it is not a regular file", path.display()),
                    "{mode:?}"
                );
            }
            assert!(Disk.open_file(&path, OpenMode::CreateNew).is_err(), "{path:?}");
            assert!(Disk.try_lock(&path).is_err(), "{path:?}");
            assert!(Disk.sync_directory(&path).is_err(), "{path:?}");
        }
        assert_eq!(fs::read(directory.path().join("target")).unwrap(), b"kept");
        assert!(!directory.path().join("absent").exists(), "nothing is made behind a link");
    }

    #[test]
    fn a_map_shows_what_is_written_after_it_was_made_and_outlives_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = Disk.open_file(&directory.path().join("file"), OpenMode::CreateNew).unwrap();
        file.allocate(4096).unwrap();
        let map = file.map(1 << 16).unwrap().unwrap();
        file.write_all_at(b"published", FilePosition::new(100)).unwrap();
        Disk.remove_file(file.path()).unwrap();
        drop(file);
        assert_eq!(map.slice(100, 9), b"published");
    }

    #[test]
    fn a_full_device_is_told_apart_from_a_broken_one() {
        // Writing to this device fails as on a full disk; it is a device, so it is opened past `open_file`.
        let file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let file = DiskFile { file, path: Path::new("/dev/full").into() };
        let error = file.write_at(b"x", FilePosition::ZERO).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    }
}
