//! The simulated disk as a [`Storage`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::state::{Effect, Fault, FaultAction, FaultTarget, Permit, State};
use crate::storage::{
    DirectoryEntry, EntryKind, FileHandle, Map, OpenMode, Storage, StorageFile, StorageLock,
};
use crate::{Error, FilePosition, IoOperation, Result};

/// A simulated machine's disk. Clones are the same disk. Deterministic: equal seeds and calls give equal bytes.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    sync_time: Duration,
}

impl SimDisk {
    /// An empty disk. The seed decides what [`Storage::random`] gives.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(State::new(seed))
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), sync_time: Duration::ZERO }
    }

    /// Has each sync take so long: a disk on which threads meet, as they do on a real one. What is made durable is what was
    /// written when the sync began. At first a sync takes no time.
    #[must_use]
    pub fn with_sync_time(mut self, time: Duration) -> Self {
        self.sync_time = time;
        self
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

    /// Plans a fault: for a changing operation, for opening, reading or syncing.
    pub fn plan_fault(&self, fault: Fault) {
        self.lock().plan(fault);
    }

    /// Has the `nth` changing operation from now, and if `is_lasting` all later ones, fail with an error number.
    pub fn fail_nth(&self, nth: u64, errno: i32, is_lasting: bool) {
        let target = FaultTarget::Changes;
        self.plan_fault(Fault { target, nth, action: FaultAction::Errno(errno), is_lasting });
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
    ///
    /// `survives` runs while the disk is locked and must not call it.
    #[must_use]
    pub fn crash(&self, survives: impl FnMut(usize, &Effect) -> bool) -> Self {
        Self::with(self.lock().after_crash(survives))
    }

    /// Another machine with this disk as it is at this moment, what is pending, handles, locks and planned faults included:
    /// to look later at how a power cut now would leave it, while this one runs on.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self::with(self.lock().clone())
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

    /// Flips a bit of a file, counted from the lowest of its first byte: damage for which no program is to blame.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is no such file, or if it is shorter.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> Result<()> {
        self.lock().flip_bit(path, bit).map_err(|error| Error::io(IoOperation::Write, path, error))
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
        crate::sync::let_others_on();
        let mut state = self.lock();
        let permit = state.begin(|| format!("{operation} {}", path.display()));
        permit.and_then(|permit| run(&mut state, permit)).map_err(|error| Error::io(operation, path, error))
    }

    /// Runs a sync, or lets it fail with all that a failure means.
    fn sync(
        &self,
        path: &Path,
        find: impl FnOnce(&State) -> io::Result<u64>,
        sync: fn(&mut State, u64),
        poison: fn(&mut State, u64),
    ) -> Result<()> {
        crate::sync::let_others_on();
        let mut state = self.lock();
        let run = || {
            state.check_alive()?;
            let node = find(&state)?;
            let permit = state.begin(|| format!("{} {}", IoOperation::Sync, path.display())).map(drop);
            // A fault for syncs counts this one also if another fault hit it.
            let fault = if state.dead.is_none() { state.check_fault(FaultTarget::Syncs) } else { Ok(()) };
            let result = permit.and(fault);
            if result.is_ok() {
                sync(&mut state, node)
            } else {
                poison(&mut state, node)
            }
            result
        };
        let result = run();
        drop(state);
        crate::sync::let_others_on();
        if !self.sync_time.is_zero() {
            std::thread::sleep(self.sync_time);
        }
        result.map_err(|error| Error::io(IoOperation::Sync, path, error))
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
        let existing = {
            let mut state = self.lock();
            let opened = state.check_fault(FaultTarget::Opens).map(|()| state.find(path));
            opened.map_err(|error| Error::io(IoOperation::Open, path, error))?
        };
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
        let is_writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { disk: self.clone(), file, path: path.into(), is_writable }))
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
            state.check_rename((from, node), to)?;
            if state.find(to) == Some(node) {
                // Two names of one file, or one name: nothing happens, as POSIX has it.
                return Ok(());
            }
            state.set_name(to_directory, to_name, Some(node));
            state.set_name(from_directory, from_name, None);
            Ok(())
        })
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> Result<()> {
        self.change(IoOperation::Link, existing, |state, _| {
            let node = state.find(existing).ok_or(io::ErrorKind::NotFound)?;
            if state.is_directory(node) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let (directory, name) = state.find_parent(link)?;
            if state.find(link).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.set_name(directory, name, Some(node));
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
        let find = |state: &State| {
            let node = state.find(directory).ok_or(io::ErrorKind::NotFound)?;
            if state.is_directory(node) { Ok(node) } else { Err(io::ErrorKind::NotADirectory.into()) }
        };
        self.sync(directory, find, State::sync_directory, State::poison_directory)
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn StorageLock>>> {
        let mut state = self.lock();
        let mut run = || {
            state.check_fault(FaultTarget::Opens)?;
            let file = match state.find(path) {
                Some(node) if state.is_directory(node) => return Err(io::ErrorKind::IsADirectory.into()),
                Some(file) => file,
                None => {
                    state.begin(|| format!("{} {}", IoOperation::Create, path.display()))?;
                    let (directory, name) = state.find_parent(path)?;
                    let file = state.new_file();
                    state.set_name(directory, name, Some(file));
                    file
                }
            };
            Ok(state.locked.insert(file).then_some(file))
        };
        let file = run().map_err(|error| Error::io(IoOperation::Lock, path, error))?;
        drop(state);
        let Some(file) = file else { return Ok(None) };
        let handle = SimFile { disk: self.clone(), file, path: path.into(), is_writable: true };
        Ok(Some(Box::new(SimLock { disk: self.clone(), file, handle: Arc::new(handle) })))
    }

    fn network_file_system(&self, _path: &Path) -> Result<Option<&'static str>> {
        Ok(None)
    }

    fn random(&self) -> u64 {
        self.lock().random()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what it holds: whatever is printed with a disk in it would drown in that.
        f.debug_struct("SimDisk").field("operations", &self.operation_count()).finish_non_exhaustive()
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
    is_writable: bool,
}

impl SimFile {
    fn sync(&self) -> Result<()> {
        self.disk.sync(&self.path, |_| Ok(self.file), State::sync_file, State::poison_file)
    }

    /// Refuses what a file opened for reading cannot do.
    fn check_writable(&self, operation: IoOperation) -> Result<()> {
        if self.is_writable {
            return Ok(());
        }
        let error = io::Error::from_raw_os_error(Errno::BADF.raw_os_error());
        Err(Error::io(operation, Arc::clone(&self.path), error))
    }
}

impl StorageFile for SimFile {
    fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        let mut state = self.disk.lock();
        let checked = state.check_fault(FaultTarget::Reads);
        checked.map_err(|error| Error::io(IoOperation::Read, Arc::clone(&self.path), error))?;
        Ok(state.live(self.file).map_or(0, |content| content.read(buffer, position.get())))
    }

    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize> {
        self.check_writable(IoOperation::Write)?;
        if bytes.is_empty() {
            return self.disk.look(IoOperation::Write, &self.path, |_| Ok(0));
        }
        self.disk.change(IoOperation::Write, &self.path, |state, permit| {
            let count = match permit {
                Permit::Whole => bytes.len(),
                Permit::Short | Permit::Torn(_) => bytes.len().div_ceil(2),
            };
            if !state.has_room(self.file, position.get() + count as u64) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.write(self.file, &bytes[..count], position.get());
            match permit {
                Permit::Torn(number) => Err(io::Error::from_raw_os_error(number)),
                Permit::Whole | Permit::Short => Ok(count),
            }
        })
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.check_writable(IoOperation::Allocate)?;
        self.disk.change(IoOperation::Allocate, &self.path, |state, _| {
            if !state.has_room(self.file, length) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.reserve(self.file, length);
            Ok(())
        })
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.check_writable(IoOperation::SetLength)?;
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
        self.handle.write_all_at(holder.as_bytes(), FilePosition::ZERO)?;
        self.handle.set_length(holder.len() as u64)
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
