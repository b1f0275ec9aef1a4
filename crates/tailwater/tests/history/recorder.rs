//! A disk that keeps how it was after each operation, and what was acknowledged by then.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater::storage::{
    DirectoryEntry, EntryKind, FileHandle, Map, OpenMode, SimDisk, Storage, StorageFile, StorageLock,
};
use tailwater_log::{FilePosition, Result};

use super::Event;

/// How the disk was between two operations.
#[derive(Debug)]
pub(crate) struct Moment {
    /// With what is pending.
    pub(crate) disk: SimDisk,
    /// How many events there were at the latest moment at which it was so.
    pub(crate) event_count: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) events: Vec<Event>,
    pub(crate) moments: Vec<Moment>,
}

/// A [`SimDisk`] that is recorded. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    disk: SimDisk,
    recording: Arc<Mutex<Recording>>,
    /// How long a sync takes, so that others have time to join the next.
    sync_time: Duration,
}

impl Recorder {
    pub(crate) fn new(seed: u64, sync_time: Duration) -> Self {
        Self { disk: SimDisk::new(seed), recording: Arc::default(), sync_time }
    }

    pub(crate) fn note(&self, event: Event) {
        self.recording.lock().unwrap().events.push(event);
    }

    /// What was recorded. Nothing is recorded after that.
    pub(crate) fn finish(self) -> Recording {
        let mut recording = std::mem::take(&mut *self.recording.lock().unwrap());
        if let Some(last) = recording.moments.last_mut() {
            last.event_count = recording.events.len();
        }
        recording
    }

    /// Runs an operation, alone, and keeps how the disk is then.
    fn record<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut recording = self.recording.lock().unwrap();
        let event_count = recording.events.len();
        let before = self.disk.operation_count();
        let done = operation();
        if self.disk.operation_count() != before {
            if let Some(previous) = recording.moments.last_mut() {
                previous.event_count = event_count;
            }
            recording.moments.push(Moment { disk: self.disk.snapshot(), event_count });
        }
        done
    }

    fn pause(&self) {
        if !self.sync_time.is_zero() {
            std::thread::sleep(self.sync_time);
        }
    }
}

impl Storage for Recorder {
    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<FileHandle> {
        let file = self.record(|| self.disk.open_file(path, mode))?;
        Ok(Arc::new(RecordedFile { file, recorder: self.clone() }))
    }

    fn list_directory(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.disk.list_directory(directory)
    }

    fn entry_kind(&self, path: &Path) -> Result<Option<EntryKind>> {
        self.disk.entry_kind(path)
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        self.record(|| self.disk.create_directory(directory))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.record(|| self.disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.record(|| self.disk.remove_file(path))
    }

    fn remove_directory(&self, directory: &Path) -> Result<()> {
        self.record(|| self.disk.remove_directory(directory))
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.record(|| self.disk.sync_directory(directory))
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn StorageLock>>> {
        let lock = self.record(|| self.disk.try_lock(path))?;
        Ok(lock.map(|lock| Box::new(RecordedLock { lock, recorder: self.clone() }) as Box<dyn StorageLock>))
    }

    fn network_file_system(&self, path: &Path) -> Result<Option<&'static str>> {
        self.disk.network_file_system(path)
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }
}

#[derive(Debug)]
struct RecordedFile {
    file: FileHandle,
    recorder: Recorder,
}

impl StorageFile for RecordedFile {
    fn path(&self) -> &Arc<Path> {
        self.file.path()
    }

    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize> {
        self.recorder.record(|| self.file.write_at(bytes, position))
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.recorder.record(|| self.file.allocate(length))
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.recorder.record(|| self.file.set_length(length))
    }

    fn length(&self) -> Result<u64> {
        self.file.length()
    }

    fn sync_data(&self) -> Result<()> {
        self.recorder.pause();
        self.recorder.record(|| self.file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.recorder.pause();
        self.recorder.record(|| self.file.sync_all())
    }

    fn map(&self, length: u64) -> Result<Option<Map>> {
        self.file.map(length)
    }
}

#[derive(Debug)]
struct RecordedLock {
    lock: Box<dyn StorageLock>,
    recorder: Recorder,
}

impl StorageLock for RecordedLock {
    fn set_holder(&self, holder: &str) -> Result<()> {
        self.recorder.record(|| self.lock.set_holder(holder))
    }

    fn is_current(&self) -> Result<bool> {
        self.lock.is_current()
    }
}
