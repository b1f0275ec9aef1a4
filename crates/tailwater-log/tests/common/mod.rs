//! Logs to test with, on each kind of storage, and records that tell where they belong.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod oracle;
pub mod workload;

use std::sync::Arc;

use tailwater_log::storage::{Disk, SimDisk, Storage};
use tailwater_log::{
    Error, FetchIsolation, FetchLimits, Log, LogConfig, LogOptions, NewRecord, Offset, PartitionId,
    PartitionIdentity, ReadMode, TopicId, WhenFull,
};

pub fn options() -> LogOptions {
    let identity =
        PartitionIdentity { topic_id: TopicId::from_bytes([5; 16]), partition: PartitionId::new(2) };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 8192;
    options.config.staging_bytes = 16 * 1024;
    options
}

pub fn with(change: impl FnOnce(&mut LogConfig)) -> LogOptions {
    let mut options = options();
    change(&mut options.config);
    options
}

/// Runs `test` on a new log on each kind of storage, through maps and through `pread`.
pub fn on_each_storage(test: impl Fn(&dyn Fn(LogOptions) -> Log)) {
    for read_mode in [ReadMode::Mapped, ReadMode::Positional] {
        let directory = tempfile::tempdir().unwrap();
        let real: Arc<dyn Storage> = Arc::new(Disk);
        for (storage, path) in
            [(real, directory.path().join("log")), (Arc::new(SimDisk::new(1)), "/log".into())]
        {
            test(&|mut options| {
                options.config.read_mode = read_mode;
                match Log::create(Arc::clone(&storage), &path, options.clone()) {
                    Err(Error::Io { .. }) => Log::open(Arc::clone(&storage), &path, options).unwrap(),
                    created => created.unwrap(),
                }
            });
        }
    }
}

pub fn append(log: &Log, value: &str) -> Offset {
    let receipt = log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait).unwrap();
    receipt.wait().unwrap().offsets.start
}

pub fn read_all(log: &Log) -> Vec<(u64, String)> {
    let mut from = log.log_start_offset();
    let mut hint = None;
    let mut all = Vec::new();
    loop {
        let limits = FetchLimits { max_records: 7, max_bytes: 3000 };
        let fetched = log.fetch(from, limits, FetchIsolation::Visible, hint).unwrap();
        all.extend(fetched.iter().map(|record| {
            (record.offset().get(), String::from_utf8(record.value().unwrap().to_vec()).unwrap())
        }));
        if fetched.next_offset() == from {
            return all;
        }
        hint = fetched.hint();
        from = fetched.next_offset();
    }
}

pub fn numbered(range: std::ops::Range<u64>) -> Vec<(u64, String)> {
    range.map(|n| (n, format!("record {n} {}", "x".repeat(n as usize % 300)))).collect()
}

pub fn append_numbered(log: &Log, range: std::ops::Range<u64>) {
    for (offset, value) in numbered(range) {
        assert_eq!(append(log, &value).get(), offset);
    }
}

/// Within the storage of a test: the calls that go on as they are to the one in its field `disk`.
#[macro_export]
macro_rules! forward_to_disk {
    () => {
        fn entry_kind(
            &self,
            path: &std::path::Path,
        ) -> tailwater_log::Result<Option<tailwater_log::storage::EntryKind>> {
            self.disk.entry_kind(path)
        }

        fn create_directory(&self, directory: &std::path::Path) -> tailwater_log::Result<()> {
            self.disk.create_directory(directory)
        }

        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> tailwater_log::Result<()> {
            self.disk.rename(from, to)
        }

        fn remove_file(&self, path: &std::path::Path) -> tailwater_log::Result<()> {
            self.disk.remove_file(path)
        }

        fn remove_directory(&self, directory: &std::path::Path) -> tailwater_log::Result<()> {
            self.disk.remove_directory(directory)
        }

        fn sync_directory(&self, directory: &std::path::Path) -> tailwater_log::Result<()> {
            self.disk.sync_directory(directory)
        }

        fn try_lock(
            &self,
            path: &std::path::Path,
        ) -> tailwater_log::Result<Option<Box<dyn tailwater_log::storage::StorageLock>>> {
            self.disk.try_lock(path)
        }

        fn network_file_system(&self, path: &std::path::Path) -> tailwater_log::Result<Option<&'static str>> {
            self.disk.network_file_system(path)
        }

        fn random(&self) -> u64 {
            self.disk.random()
        }
    };
}
