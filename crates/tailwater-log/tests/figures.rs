//! A log's figures are what was done to it, and what lies on the disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use tailwater_log::storage::SimDisk;
use tailwater_log::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater_log::{
    Error, Log, LogOptions, NewRecord, Offset, PartitionId, PartitionIdentity, SyncTimes, TopicId, WhenFull,
};

const EMFILE: i32 = 24;

fn options(preallocate: bool) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([7; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 4096;
    options.config.max_batch_bytes = 2048;
    options.config.preallocate = preallocate;
    options
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        log.append(&[NewRecord::new(&[b'x'; 300])], None, WhenFull::Wait).unwrap().wait().unwrap();
    }
}

fn files_bytes(disk: &SimDisk) -> u64 {
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|ext| ext == "log");
    let paths = disk.file_paths().into_iter().filter(is_segment);
    paths.map(|path| disk.read_file(&path).unwrap().len() as u64).sum()
}

#[test]
fn the_size_is_that_of_the_files_whatever_was_done_to_them() {
    for preallocate in [true, false] {
        let disk = SimDisk::new(1);
        let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options(preallocate)).unwrap();
        let check = |log: &Log, what: &str| {
            assert_eq!(log.stats().unwrap().size_bytes, files_bytes(&disk), "{what}, {preallocate}");
        };
        check(&log, "empty");
        append(&log, 5);
        check(&log, "one segment");
        append(&log, 40);
        log.maintain().unwrap();
        check(&log, "sealed ones");
        log.truncate_to(Offset::new(17)).unwrap();
        check(&log, "truncated");
        append(&log, 30);
        log.delete_records_before(Offset::new(30)).unwrap();
        check(&log, "the first removed");
        log.close().unwrap();
        let log = Log::open(Arc::new(disk.clone()), "/log".as_ref(), options(preallocate)).unwrap();
        check(&log, "reopened");
        append(&log, 20);
        log.maintain().unwrap();
        check(&log, "appended to");
        drop(log);
        let killed = disk.kill();
        let log = Log::open(Arc::new(killed.clone()), "/log".as_ref(), options(preallocate)).unwrap();
        assert_eq!(log.stats().unwrap().size_bytes, files_bytes(&killed), "recovered");
    }
}

#[test]
fn the_figures_open_a_file_once_at_most() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options(true)).unwrap();
    append(&log, 40);
    log.maintain().unwrap();
    let action = FaultAction::Errno(EMFILE);
    let opens = Fault { target: FaultTarget::Opens, nth: 1, action, is_lasting: true };
    // What this process wrote it knows.
    disk.plan_fault(opens);
    assert!(log.stats().unwrap().segment_count > 3);
    disk.clear_faults();
    log.close().unwrap();
    // What another wrote it looks at once.
    let log = Log::open(Arc::new(disk.clone()), "/log".as_ref(), options(true)).unwrap();
    disk.plan_fault(opens);
    assert!(matches!(log.stats(), Err(Error::Io { .. })));
    disk.clear_faults();
    let stats = log.stats().unwrap();
    disk.plan_fault(opens);
    assert_eq!(log.stats().unwrap(), stats);
}

#[test]
fn what_was_written_and_synced_is_counted() {
    let disk = SimDisk::new(1).with_sync_time(Duration::from_micros(300));
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options(true)).unwrap();
    append(&log, 20);
    let batch = [NewRecord::new(b"one"), NewRecord::new(b"two"), NewRecord::new(b"three")];
    log.append(&batch, None, WhenFull::Wait).unwrap().wait().unwrap();
    let stats = log.stats().unwrap();
    assert_eq!((stats.records_written, stats.batches_written, stats.writes), (23, 21, 21));
    assert!(stats.bytes_written > 20 * 300 && stats.bytes_written < stats.size_bytes);
    assert!(stats.rolls >= 1 && stats.segment_count == stats.rolls + 1);
    let SyncTimes { count, total, max, last, buckets, .. } = stats.sync_times;
    assert_eq!(count, stats.syncs);
    assert!(count >= 21 && last <= max && max <= total && total >= Duration::from_micros(300) * 21);
    assert_eq!(buckets[..2], [0, 0], "none was faster than the disk");
    assert!(buckets.iter().sum::<u64>() <= count);
    // What is staged is not written.
    let receipt = log.append(&[NewRecord::new(b"four")], None, WhenFull::Wait).unwrap();
    assert_eq!(log.stats().unwrap().records_written, 23);
    receipt.wait().unwrap();
    assert_eq!(log.stats().unwrap().records_written, 24);
    assert!(log.failure().is_none());

    disk.fail_nth(1, 5, true);
    log.append(&[NewRecord::new(b"five")], None, WhenFull::Wait).unwrap().wait().unwrap_err();
    assert!(matches!(log.failure().as_deref(), Some(Error::Io { .. })));
    assert_eq!(log.stats().unwrap().records_written, 24);
}

#[test]
fn the_bytes_behind_an_offset_are_those_of_its_batch_and_of_all_behind_it() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options(true)).unwrap();
    assert_eq!(log.bytes_from(Offset::ZERO).unwrap(), 0);
    append(&log, 40);
    let batch_bytes = log.stats().unwrap().bytes_written / 40;
    let check = |log: &Log| {
        for offset in 0..=40 {
            let found = log.bytes_from(Offset::new(offset)).unwrap();
            let batches = (40 - offset) * batch_bytes;
            // A segment that another process sealed counts with its footer.
            assert!((batches..=batches + 4096).contains(&found), "{offset}: {found}, not {batches}");
        }
        assert_eq!(log.bytes_from(Offset::new(40)).unwrap(), 0);
        assert_eq!(log.bytes_from(Offset::new(39)).unwrap(), batch_bytes);
    };
    check(&log);
    log.close().unwrap();
    let log = Log::open(Arc::new(disk), "/log".as_ref(), options(true)).unwrap();
    check(&log);
    let receipt = log.append(&[NewRecord::new(b"staged")], None, WhenFull::Wait).unwrap();
    assert!(log.bytes_from(Offset::new(40)).unwrap() > 0);
    receipt.wait().unwrap();
}
