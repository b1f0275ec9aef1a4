//! A disk that stays full: a log is closed in order on it, and gives room back.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{append, read_all, with};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{Error, Log, LogOptions, NewRecord, Offset, RecoveryOutcome, WhenFull};

const DIRECTORY: &str = "/log";

/// Appends values of this length until the disk is full. Returns how many records were acknowledged.
fn append_until_full(log: &Log, length: usize) -> u64 {
    for n in 0.. {
        let value = format!("{n:>length$}");
        let appended = log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait);
        match appended.and_then(|receipt| receipt.wait()) {
            Ok(_) => {}
            Err(Error::DiskFull { .. }) => return n,
            Err(error) => panic!("{n}: {error}"),
        }
    }
    unreachable!()
}

/// Room to grow by for what is there now.
fn leave_room(disk: &SimDisk, bytes: u64) {
    let taken: u64 = disk.file_paths().iter().map(|path| disk.read_file(path).unwrap().len() as u64).sum();
    disk.set_capacity(Some(taken + bytes));
}

/// A log that was closed on a full disk once had no clean mark, since there was no room for the footer of a rolled
/// segment: its next open had to recover, and had no room for that.
#[test]
fn a_log_is_closed_in_order_on_a_full_disk_and_opened_and_read_there() {
    let options: LogOptions = with(|config| config.segment_bytes = 4096);
    // The footer of a segment that is filled to its last byte makes it longer.
    for length in 100..400 {
        let disk = SimDisk::new(1);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let log = Log::create(Arc::clone(&storage), Path::new(DIRECTORY), options.clone()).unwrap();
        append(&log, "before");
        leave_room(&disk, 10_000);
        let count = append_until_full(&log, length);
        leave_room(&disk, 0);
        log.close().unwrap();
        drop(log);
        let log = Log::open(storage, Path::new(DIRECTORY), options.clone()).unwrap();
        assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean, "values of {length} bytes");
        assert_eq!(read_all(&log).len() as u64, count + 1, "values of {length} bytes");
        assert_eq!(log.verify(&mut |_| {}).unwrap().damage, []);
        disk.set_capacity(None);
        assert_eq!(append(&log, "after").get(), count + 1);
    }
}

/// Without space reserved ahead a batch can be taken and then find no room. The removal of records, which makes some,
/// once waited for that batch to be written.
#[test]
fn records_are_removed_from_a_full_disk_while_others_wait_for_room() {
    let options = with(|config| {
        config.segment_bytes = 4096;
        config.preallocate = false;
    });
    let disk = SimDisk::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let log = Log::create(Arc::clone(&storage), Path::new(DIRECTORY), options.clone()).unwrap();
    for n in 0..55 {
        append(&log, &format!("{n:>200}"));
    }
    leave_room(&disk, 100);
    assert_eq!(append_until_full(&log, 200), 0);
    // Nothing that is staged is said to be durable by this, and nothing is lost.
    log.delete_records_before(Offset::new(50)).unwrap();
    assert_eq!(log.durable_offset().get(), 55);
    let next = append(&log, "in the room of those");
    // What was refused had its offset, and is written before what comes after it.
    assert_eq!(next.get(), 56);
    log.close().unwrap();
    drop(log);
    let log = Log::open(storage, Path::new(DIRECTORY), options).unwrap();
    let offsets: Vec<_> = read_all(&log).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, (50..57).collect::<Vec<_>>());
    assert_eq!(log.verify(&mut |_| {}).unwrap().damage, []);
}
