//! Looks of an attached process between the steps of the one that writes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tailwater_log::storage::{DirectoryEntry, FileHandle, OpenMode, SimDisk, Storage};
use tailwater_log::{
    CleanupPolicy, CompactionLimits, FetchIsolation, FetchLimits, Log, NewRecord, Result, WhenFull,
};

use common::with;

type Hook = Box<dyn FnOnce() + Send>;

/// A disk on which something happens right after a directory was listed.
struct Interrupted {
    disk: SimDisk,
    after_listing: Mutex<Option<Hook>>,
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Storage for Interrupted {
    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<FileHandle> {
        self.disk.open_file(path, mode)
    }

    fn list_directory(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        let listed = self.disk.list_directory(directory);
        if let Some(hook) = { self.after_listing.lock().unwrap().take() } {
            hook();
        }
        listed
    }

    forward_to_disk!();
}

fn append(log: &Log, key: &str) {
    let value = "v".repeat(400);
    let record = NewRecord { key: Some(key.as_bytes()), ..NewRecord::new(value.as_bytes()) };
    log.append(&[record], None, WhenFull::Wait).unwrap().wait().unwrap();
}

/// Rolls, appends, and has the checkpoint tell of it.
fn roll_and_append(log: &Log) {
    log.roll().unwrap();
    append(log, "a");
    append(log, "b");
    log.maintain().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(60));
    log.maintain().unwrap();
}

fn compact(log: &Log) {
    log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
}

fn read(log: &Log) -> Vec<u64> {
    let (mut from, mut offsets) = (log.log_start_offset(), Vec::new());
    while from < log.visible_end(FetchIsolation::Visible) {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        offsets.extend(fetched.iter().map(|record| record.offset().get()));
        from = fetched.next_offset();
    }
    offsets
}

/// Lets `meanwhile` happen between the listing of the directory and what follows, at an attachment and at a later look.
fn look_while(meanwhile: fn(&Log)) {
    for is_at_attachment in [true, false] {
        let options = || with(|config| config.cleanup_policy = CleanupPolicy::Compact);
        let disk = SimDisk::new(1);
        let log = Log::create(Arc::new(disk.clone()), Path::new("/log"), options()).unwrap();
        ["a", "b", "a"].iter().for_each(|key| append(&log, key));
        let storage = Arc::new(Interrupted { disk, after_listing: Mutex::default() });
        let attach = || Log::attach_read_only(storage.clone(), Path::new("/log"), options()).unwrap();
        let writer = log.clone();
        let hook: Hook = Box::new(move || meanwhile(&writer));
        let attached = if is_at_attachment {
            *storage.after_listing.lock().unwrap() = Some(hook);
            attach()
        } else {
            let attached = attach();
            *storage.after_listing.lock().unwrap() = Some(hook);
            let end = attached.visible_end(FetchIsolation::Visible);
            attached.fetch(end, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
            attached
        };
        assert!(storage.after_listing.lock().unwrap().is_none(), "it has happened");
        // Whatever is shown can be read.
        let all = read(&log);
        let end = attached.visible_end(FetchIsolation::Visible).get();
        let shown = read(&attached);
        assert!(all.iter().filter(|offset| **offset < end).all(|offset| shown.contains(offset)));
        assert_eq!(attached.recovery_report().corruption.as_ref().map(ToString::to_string), None);
    }
}

#[test]
fn a_roll_between_the_listing_and_the_checkpoint_shows_nothing_that_cannot_be_read() {
    // The checkpoint told of records in a segment that was not listed; they were taken for missing.
    look_while(roll_and_append);
}

#[test]
fn a_compaction_between_the_listing_and_the_checkpoint_shows_nothing_that_cannot_be_read() {
    look_while(|log| {
        roll_and_append(log);
        compact(log);
        roll_and_append(log);
    });
    look_while(|log| {
        log.roll().unwrap();
        compact(log);
        append(log, "c");
    });
}
