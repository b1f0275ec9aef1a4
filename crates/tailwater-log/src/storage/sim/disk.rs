//! The simulated disk as a [`Storage`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::{Effect, Fault, FaultAction, Permit, State};
use crate::storage::{
    DirectoryEntry, EntryKind, FileHandle, Map, OpenMode, Storage, StorageFile, StorageLock,
};
use crate::{Error, FilePosition, IoOperation, Result};

/// A simulated machine's disk. Clones are the same disk. Deterministic: equal seeds and calls give equal bytes.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk. The seed decides what [`Storage::random`] gives.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(State::new(seed))
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations have changed, or synced, something so far.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.lock().operations
    }

    /// The latest of them, for messages of failed tests.
    #[must_use]
    pub fn latest_operations(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Cuts the power once `count` more changing operations have taken effect: from then on every call fails.
    pub fn cut_power_after(&self, count: u64) {
        self.lock().cut_after(count);
    }

    /// Whether the machine still runs.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.lock().dead.is_none()
    }

    /// Plans a fault.
    pub fn plan_fault(&self, fault: Fault) {
        self.lock().plan(fault);
    }

    /// Has the `nth` changing operation from now, and if `is_lasting` all later ones, fail with an error number.
    pub fn fail_nth(&self, nth: u64, errno: i32, is_lasting: bool) {
        self.plan_fault(Fault { nth, action: FaultAction::Errno(errno), is_lasting });
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        self.lock().clear_faults();
    }

    /// Limits what files may take up, in bytes; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// How many effects are pending.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lock().effects().len()
    }

    /// The pending effects, in the order they were made.
    #[must_use]
    pub fn pending_effects(&self) -> Vec<Effect> {
        self.lock().effects().to_vec()
    }

    /// The disk after a power cut and a restart: what was durable, and those of the pending effects (numbered in their
    /// order) that `survives` picks. Of several effects on one sector, length or name the last that survives counts.
    #[must_use]
    pub fn crash(&self, survives: impl FnMut(usize, &Effect) -> bool) -> Self {
        Self::with(self.lock().after_crash(survives))
    }

    /// Ends the process and not the machine: everything written is still there, as pending as it was; handles and locks
    /// of the old process are dead.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.lock();
        let mut after = state.clone();
        state.dead = Some("simulated death of the process");
        after.revive();
        after.locked.clear();
        after.clear_faults();
        drop(state);
        Self::with(after)
    }

    /// A hash of all names and contents, as reads show them.
    #[must_use]
    pub fn content_hash(&self) -> u64 {
        self.lock().hash()
    }

    /// The bytes of a file, or `None` if there is none.
    #[must_use]
    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        Some(state.live(state.find(path)?)?.to_bytes())
    }

    /// Puts a file in place, durable at once. Its directory must exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it does not.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.lock().put_file(path, bytes).map_err(|error| Error::io(IoOperation::Write, path, error))
    }

    /// The paths of all files.
    #[must_use]
    pub fn file_paths(&self) -> Vec<PathBuf> {
        let state = self.lock();
        let found = state.reachable();
        found.into_iter().filter(|(_, node)| state.live(*node).is_some()).map(|(path, _)| path).collect()
    }

    /// Runs a changing operation on the state.
    fn change<T>(
        &self,
        operation: IoOperation,
        path: &Path,
        run: impl FnOnce(&mut State, Permit) -> io::Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        let permit = state.begin(|| format!("{operation} {}", path.display()));
        permit.and_then(|permit| run(&mut state, permit)).map_err(|error| Error::io(operation, path, error))
    }

    fn look<T>(
        &self,
        operation: IoOperation,
        path: &Path,
        run: impl FnOnce(&State) -> io::Result<T>,
    ) -> Result<T> {
        let state = self.lock();
        state.check_alive().and_then(|()| run(&state)).map_err(|error| Error::io(operation, path, error))
    }
}

impl Storage for SimDisk {
    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<FileHandle> {
        let existing = self.look(IoOperation::Open, path, |state| Ok(state.find(path)))?;
        let file = match (mode, existing) {
            (OpenMode::Read | OpenMode::ReadWrite, Some(file)) => {
                self.look(IoOperation::Open, path, |state| {
                    if state.is_directory(file) { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(file) }
                })?
            }
            (OpenMode::Read | OpenMode::ReadWrite, None) => {
                return Err(Error::io(IoOperation::Open, path, io::ErrorKind::NotFound.into()));
            }
            (OpenMode::CreateNew, Some(_)) => {
                return Err(Error::io(IoOperation::Create, path, io::ErrorKind::AlreadyExists.into()));
            }
            (OpenMode::CreateNew, None) => self.change(IoOperation::Create, path, |state, _| {
                let (directory, name) = state.find_parent(path)?;
                let file = state.new_file();
                state.set_name(directory, name, Some(file));
                Ok(file)
            })?,
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file, path: path.into() }))
    }

    fn list_directory(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.look(IoOperation::List, directory, |state| {
            let node = state.find(directory).ok_or(io::ErrorKind::NotFound)?;
            let entries = state.entries(node).ok_or(io::ErrorKind::NotADirectory)?;
            Ok(entries
                .iter()
                .map(|(name, node)| DirectoryEntry { name: name.clone(), kind: kind_of(state, *node) })
                .collect())
        })
    }

    fn entry_kind(&self, path: &Path) -> Result<Option<EntryKind>> {
        self.look(IoOperation::Inspect, path, |state| Ok(state.find(path).map(|node| kind_of(state, node))))
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        self.change(IoOperation::Create, directory, |state, _| {
            if state.find(directory).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let (parent, name) = state.find_parent(directory)?;
            let node = state.new_directory();
            state.set_name(parent, name, Some(node));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change(IoOperation::Rename, from, |state, _| {
            let node = state.find(from).ok_or(io::ErrorKind::NotFound)?;
            let (from_directory, from_name) = state.find_parent(from)?;
            let (to_directory, to_name) = state.find_parent(to)?;
            state.set_name(to_directory, to_name, Some(node));
            state.set_name(from_directory, from_name, None);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.change(IoOperation::Remove, path, |state, _| {
            let node = state.find(path).ok_or(io::ErrorKind::NotFound)?;
            if state.is_directory(node) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let (directory, name) = state.find_parent(path)?;
            state.set_name(directory, name, None);
            Ok(())
        })
    }

    fn remove_directory(&self, directory: &Path) -> Result<()> {
        self.change(IoOperation::Remove, directory, |state, _| {
            let node = state.find(directory).ok_or(io::ErrorKind::NotFound)?;
            match state.entries(node) {
                None => Err(io::ErrorKind::NotADirectory.into()),
                Some(entries) if !entries.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
                Some(_) => {
                    let (parent, name) = state.find_parent(directory)?;
                    state.set_name(parent, name, None);
                    Ok(())
                }
            }
        })
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        let node = self.look(IoOperation::Sync, directory, |state| {
            state.find(directory).ok_or(io::ErrorKind::NotFound.into())
        })?;
        let synced = self.change(IoOperation::Sync, directory, |state, _| {
            state.sync_directory(node);
            Ok(())
        });
        if synced.is_err() && self.is_powered() {
            self.lock().poison_directory(node);
        }
        synced
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn StorageLock>>> {
        let mode = match self.entry_kind(path)? {
            Some(_) => OpenMode::ReadWrite,
            None => OpenMode::CreateNew,
        };
        let handle = self.open_file(path, mode)?;
        let mut state = self.lock();
        let Some(file) = state.find(path) else { return Ok(None) };
        if !state.locked.insert(file) {
            return Ok(None);
        }
        drop(state);
        Ok(Some(Box::new(SimLock { disk: self.clone(), file, handle })))
    }

    fn network_file_system(&self, _path: &Path) -> Result<Option<&'static str>> {
        Ok(None)
    }

    fn random(&self) -> u64 {
        self.lock().random()
    }
}

fn kind_of(state: &State, node: u64) -> EntryKind {
    if state.is_directory(node) { EntryKind::Directory } else { EntryKind::File }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    path: Arc<Path>,
}

impl SimFile {
    fn sync(&self) -> Result<()> {
        let synced = self.disk.change(IoOperation::Sync, &self.path, |state, _| {
            state.sync_file(self.file);
            Ok(())
        });
        if synced.is_err() && self.disk.is_powered() {
            self.disk.lock().poison_file(self.file);
        }
        synced
    }
}

impl StorageFile for SimFile {
    fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        self.disk.look(IoOperation::Read, &self.path, |state| {
            Ok(state.live(self.file).map_or(0, |content| content.read(buffer, position.get())))
        })
    }

    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize> {
        self.disk.change(IoOperation::Write, &self.path, |state, permit| {
            let count = match permit {
                Permit::Whole => bytes.len(),
                Permit::Short => bytes.len().div_ceil(2),
            };
            if !state.has_room(self.file, position.get() + count as u64) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.write(self.file, &bytes[..count], position.get());
            Ok(count)
        })
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.disk.change(IoOperation::Allocate, &self.path, |state, _| {
            if !state.has_room(self.file, length) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.reserve(self.file, length);
            Ok(())
        })
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.disk.change(IoOperation::SetLength, &self.path, |state, _| {
            state.set_length(self.file, length);
            Ok(())
        })
    }

    fn length(&self) -> Result<u64> {
        self.disk.look(IoOperation::Inspect, &self.path, |state| {
            Ok(state.live(self.file).map_or(0, super::content::Content::length))
        })
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn map(&self, _length: u64) -> Result<Option<Map>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    file: u64,
    handle: FileHandle,
}

impl StorageLock for SimLock {
    fn set_holder(&self, holder: &str) -> Result<()> {
        self.handle.set_length(0)?;
        self.handle.write_all_at(holder.as_bytes(), FilePosition::ZERO)
    }

    fn is_current(&self) -> Result<bool> {
        let path = self.handle.path();
        self.disk.look(IoOperation::Inspect, path, |state| Ok(state.find(path) == Some(self.file)))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(disk: &SimDisk, path: &str) -> FileHandle {
        disk.open_file(path.as_ref(), OpenMode::CreateNew).unwrap()
    }

    fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        disk.read_file(path.as_ref())
    }

    const EIO: i32 = 5;

    #[test]
    fn a_name_needs_a_directory_sync_and_bytes_a_file_sync() {
        let disk = SimDisk::new(0);
        let handle = file(&disk, "/a");
        handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
        handle.sync_data().unwrap();
        assert_eq!(content(&disk.crash(|_, _| false), "/a"), None);
        disk.sync_directory("/".as_ref()).unwrap();
        assert_eq!(content(&disk.crash(|_, _| false), "/a").unwrap(), b"x");
        disk.rename("/a".as_ref(), "/b".as_ref()).unwrap();
        let neither_synced = disk.crash(|_, effect| !matches!(effect, Effect::Name { target: None, .. }));
        assert_eq!(neither_synced.file_paths().len(), 2, "each name on its own");
    }

    #[test]
    fn sectors_survive_each_on_its_own_and_in_each_version() {
        let disk = SimDisk::new(0);
        let handle = file(&disk, "/a");
        disk.sync_directory("/".as_ref()).unwrap();
        handle.set_length(1024).unwrap();
        handle.sync_all().unwrap();
        handle.write_all_at(&[1; 1024], FilePosition::ZERO).unwrap();
        handle.write_all_at(&[2; 512], FilePosition::ZERO).unwrap();
        assert_eq!(disk.pending(), 3);
        let bytes = |survivors: &[usize]| {
            let after = content(&disk.crash(|index, _| survivors.contains(&index)), "/a").unwrap();
            (after[0], after[512])
        };
        assert_eq!(bytes(&[]), (0, 0));
        assert_eq!(bytes(&[0]), (1, 0));
        assert_eq!(bytes(&[1]), (0, 1));
        assert_eq!(bytes(&[0, 1, 2]), (2, 1));
    }

    #[test]
    fn bytes_beyond_a_length_that_did_not_survive_are_gone() {
        let disk = SimDisk::new(0);
        let handle = file(&disk, "/a");
        disk.sync_directory("/".as_ref()).unwrap();
        handle.write_all_at(&[1; 700], FilePosition::ZERO).unwrap();
        let after = disk.crash(|_, effect| matches!(effect, Effect::Sector { .. }));
        assert_eq!(content(&after, "/a").unwrap(), b"");
        let after = disk.crash(|_, effect| matches!(effect, Effect::Length { .. }));
        assert_eq!(content(&after, "/a").unwrap(), [0; 700]);
    }

    #[test]
    fn what_a_failed_sync_dropped_becomes_durable_only_after_a_restart() {
        let disk = SimDisk::new(0);
        let handle = file(&disk, "/a");
        disk.sync_directory("/".as_ref()).unwrap();
        handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
        disk.fail_nth(1, EIO, false);
        assert!(handle.sync_data().is_err());
        handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
        handle.sync_data().unwrap();
        assert_eq!(content(&disk, "/a").unwrap(), b"x", "reads show the page cache");
        assert_eq!(content(&disk.crash(|_, _| false), "/a").unwrap(), [0]);
        let killed = disk.kill();
        let handle = killed.open_file("/a".as_ref(), OpenMode::ReadWrite).unwrap();
        handle.sync_data().unwrap();
        assert_eq!(content(&killed.crash(|_, _| false), "/a").unwrap(), [0], "the machine goes on");
        let restarted = killed.crash(|_, _| false);
        let handle = restarted.open_file("/a".as_ref(), OpenMode::ReadWrite).unwrap();
        handle.write_all_at(b"y", FilePosition::ZERO).unwrap();
        handle.sync_data().unwrap();
        assert_eq!(content(&restarted.crash(|_, _| false), "/a").unwrap(), b"y");
    }

    #[test]
    fn after_a_power_cut_nothing_works() {
        let disk = SimDisk::new(0);
        let handle = file(&disk, "/a");
        disk.cut_power_after(1);
        handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
        let error = handle.write_all_at(b"y", FilePosition::ZERO).unwrap_err();
        assert!(error.to_string().contains("simulated power cut"), "{error}");
        assert!(handle.read_at(&mut [0], FilePosition::ZERO).is_err());
        assert!(!disk.is_powered());
    }

    #[test]
    fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
        let disk = SimDisk::new(0);
        let (first, second) = (file(&disk, "/a"), file(&disk, "/b"));
        disk.set_capacity(Some(2048));
        first.allocate(1024).unwrap();
        second.write_all_at(&[1; 1024], FilePosition::ZERO).unwrap();
        assert!(matches!(second.write_at(&[1], FilePosition::new(1024)), Err(Error::DiskFull { .. })));
        first.write_all_at(&[1; 1024], FilePosition::ZERO).unwrap();
        disk.remove_file("/a".as_ref()).unwrap();
        second.write_all_at(&[1; 1024], FilePosition::new(1024)).unwrap();
    }

    #[test]
    fn a_lock_is_held_once_and_freed_by_dropping_or_killing() {
        let disk = SimDisk::new(0);
        let lock = disk.try_lock("/LOCK".as_ref()).unwrap();
        assert!(lock.is_some());
        assert!(disk.try_lock("/LOCK".as_ref()).unwrap().is_none());
        assert!(disk.kill().try_lock("/LOCK".as_ref()).unwrap().is_some());
    }
}
