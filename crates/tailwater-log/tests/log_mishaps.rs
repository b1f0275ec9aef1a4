//! One partition when its disk is full or fails, and when its files are damaged.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::sync::Arc;

use tailwater_log::storage::{Disk, SimDisk, Storage};
use tailwater_log::{
    CorruptionKind, Durability, Error, FetchIsolation, FetchLimits, Log, NewRecord, Offset, RecoveryOutcome,
    Signal, Timestamp, WhenFull,
};

use common::{append, append_numbered, numbered, options, read_all, with};

// The end was taken from the checkpoint of a clean close alone. Records were appended behind a hole then, where the file
// had been cut short, and acknowledged; only a reader that came past found out. The file's length is looked at now.
#[test]
fn a_cleanly_closed_log_whose_last_segment_was_cut_short_takes_no_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p");
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let log = Log::create(Arc::clone(&storage), &path, options()).unwrap();
    append_numbered(&log, 0..3);
    log.close().unwrap();
    drop(log);
    let segment = path.join("00000000000000000000.log");
    let sound = std::fs::read(&segment).unwrap();
    let end = sound.iter().rposition(|byte| *byte != 0).unwrap();
    for length in [end - 40, 1030, 1024, 700, 100] {
        std::fs::write(&segment, &sound[..length]).unwrap();
        let log = Log::open(Arc::clone(&storage), &path, options()).unwrap();
        let report = log.recovery_report();
        assert!(matches!(report.corruption, Some(Error::Corrupt(_))), "{length} bytes: {report:?}");
        let refused = log.append(&[NewRecord::new(b"v")], None, WhenFull::Wait).unwrap_err();
        assert!(matches!(refused, Error::Corrupt(_)), "{length} bytes: {refused}");
        drop(log);
        assert_eq!(std::fs::read(&segment).unwrap(), sound[..length]);
    }
    std::fs::write(&segment, &sound).unwrap();
    let log = Log::open(storage, &path, options()).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(read_all(&log), numbered(0..3));
}

#[test]
fn verify_finds_nothing_in_a_sound_log_and_each_flipped_byte_in_a_damaged_one() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    append_numbered(&log, 0..100);
    log.maintain().unwrap();
    let report = log.verify(&mut |_| {}).unwrap();
    assert_eq!((report.records, report.damage.len()), (100, 0));
    log.close().unwrap();
    drop(log);
    let path = disk.file_paths().into_iter().find(|path| path.ends_with("00000000000000000000.log")).unwrap();
    let bytes = disk.read_file(&path).unwrap();
    for at in [1024, 1100, 3000] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        disk.write_file(&path, &damaged).unwrap();
        let log = Log::open(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
        let report = log.verify(&mut |_| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "byte {at}: {report:?}");
        let lost = report.damage[0].offsets;
        assert_eq!(report.records + lost.count(), 100);
        let mut readable = 0;
        let mut from = Offset::ZERO;
        while from < log.durable_offset() {
            match log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None) {
                Ok(fetched) => {
                    readable += fetched.record_count();
                    from = fetched.next_offset();
                }
                Err(Error::Corrupt(found)) => {
                    assert_eq!(found.offsets, lost);
                    from = found.offsets.end;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(readable as u64, report.records);
    }
}

#[test]
fn a_full_disk_refuses_appends_and_they_work_again_when_there_is_room() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    append_numbered(&log, 0..10);
    disk.set_capacity(Some(0));
    let mut accepted = 10;
    let error = loop {
        let value = &numbered(accepted..accepted + 1)[0].1;
        match log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait) {
            Ok(receipt) => drop(receipt.wait().unwrap()),
            Err(error) => break error,
        }
        accepted += 1;
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(read_all(&log), numbered(0..accepted));
    disk.set_capacity(None);
    append_numbered(&log, accepted..accepted + 50);
    assert_eq!(read_all(&log), numbered(0..accepted + 50));
}

#[test]
fn a_failed_sync_is_final_for_every_waiter_until_the_log_is_reopened() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    append_numbered(&log, 0..10);
    let receipts: Vec<_> =
        (0..3).map(|_| log.append(&[NewRecord::new(b"lost")], None, WhenFull::Wait).unwrap()).collect();
    log.write_staged().unwrap();
    disk.fail_nth(1, 5, false);
    for receipt in receipts {
        receipt.wait().unwrap_err();
    }
    assert!(matches!(log.append(&[NewRecord::new(b"x")], None, WhenFull::Wait), Err(Error::Failed { .. })));
    assert_eq!(read_all(&log), numbered(0..10));
    assert!(log.close().is_err());
    drop(log);
    let log = Log::open(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Recovered);
    let end = log.log_end_offset().get();
    assert_eq!(end, 13, "the page cache still has them, and they are durable now");
    drop(log);
    let restarted = Log::open(Arc::new(disk.crash(|_, _| false)), "/log".as_ref(), options()).unwrap();
    assert_eq!(restarted.log_end_offset().get(), end);
}

#[test]
fn verify_calls_nothing_torn_that_a_truncation_superseded() {
    // It once looked for a torn tail in every segment without a footer, and took what a truncation had cut off for one.
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk), "/log".as_ref(), with(|c| c.segment_bytes = 1 << 20)).unwrap();
    append_numbered(&log, 0..50);
    log.truncate_to(Offset::new(20)).unwrap();
    append_numbered(&log, 20..30);
    let report = log.verify(&mut |_| {}).unwrap();
    assert_eq!((report.records, report.damage.len(), report.torn_tail), (30, 0, None));
}

// An append to a lazy log with a waiting reader writes at once. When that write found the disk full, the append answered
// `DiskFull` though the record was staged, with its offset: sent again, it was there twice.
#[test]
fn an_append_whose_write_for_a_waiting_reader_fails_is_still_an_append() {
    let disk = SimDisk::new(1);
    let options = with(|config| {
        config.durability = Durability::Written;
        config.preallocate = false;
    });
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options).unwrap();
    append(&log, "first");
    let signal = Arc::new(Signal::new());
    let _listener = log.add_listener(&signal, FetchIsolation::Visible);
    signal.arm();
    disk.fail_nth(1, 28, false);
    let receipt = log.append(&[NewRecord::new(b"second")], None, WhenFull::Wait);
    let appended = receipt.expect("it has an offset").wait().unwrap();
    assert_eq!(appended.offsets.start, Offset::new(1));
    assert_eq!(read_all(&log), [(0, "first".to_owned()), (1, "second".to_owned())]);
}

// A truncation had renamed its segment in when the write of the checkpoint found the disk full. It answered `DiskFull`, and
// staging still stood at the old end: the next append was staged for a place that was gone.
#[test]
fn a_truncation_is_whole_though_the_disk_has_no_room_for_its_checkpoint() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), with(|_| {})).unwrap();
    for value in ["a", "b", "c"] {
        append(&log, value);
    }
    let before = disk.operation_count();
    // Its segment's file, space and content, sync, rename, sync of the directory: then the checkpoint.
    disk.fail_nth(7, 28, false);
    log.truncate_to(Offset::new(1)).unwrap();
    let trace = disk.latest_operations().join("\n");
    assert!(trace.contains(&format!("{}: write /log/checkpoint", before + 7)), "{trace}");
    assert_eq!(append(&log, "d"), Offset::new(1));
    let expected = [(0, "a".to_owned()), (1, "d".to_owned())];
    assert_eq!(read_all(&log), expected);
    drop(log);
    let log = Log::open(Arc::new(disk.crash(|_, _| false)), "/log".as_ref(), with(|_| {})).unwrap();
    assert_eq!(read_all(&log), expected);
}

/// A log of several segments that lost power; its checkpoint was not advanced since it was made.
fn powerless_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), with(|_| {})).unwrap();
    append_numbered(&log, 0..120);
    assert!(log.stats().unwrap().segment_count >= 3);
    disk.crash(|_, _| true)
}

// Where a segment's header was damaged the others were not looked into: the log ended at what the checkpoint said, or at
// the base of the last segment, and durable records behind that could not be read.
#[test]
fn a_damaged_segment_header_hides_no_record_of_other_segments() {
    let disk = powerless_disk();
    let first = "/log/00000000000000000000.log".as_ref();
    disk.flip_bit(first, 0).unwrap();
    disk.flip_bit(first, 512 * 8).unwrap();
    let log = Log::open(Arc::new(disk), "/log".as_ref(), with(|_| {})).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Corrupt);
    assert_eq!(log.log_end_offset(), Offset::new(120));
    let fetch = |from| log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None);
    let Err(Error::Corrupt(damage)) = fetch(Offset::ZERO) else { panic!("it has no header") };
    assert_eq!(damage.kind, CorruptionKind::BadSegmentHeader);
    let mut from = damage.offsets.end;
    while from < Offset::new(120) {
        from = fetch(from).unwrap().next_offset();
    }
}

// The log began at the first segment that was there: to a reader that was behind it looked as if retention had removed
// what it had not read.
#[test]
fn a_missing_first_segment_is_damage_to_whoever_reads_there() {
    let disk = powerless_disk();
    disk.remove_file("/log/00000000000000000000.log".as_ref()).unwrap();
    let log = Log::open(Arc::new(disk), "/log".as_ref(), with(|_| {})).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Corrupt);
    assert_eq!(log.log_start_offset(), Offset::ZERO);
    let fetch = |from| log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None);
    let Err(Error::Corrupt(damage)) = fetch(Offset::ZERO) else { panic!("it is missing") };
    assert_eq!((damage.kind, damage.offsets.start), (CorruptionKind::MissingSegment, Offset::ZERO));
    let behind = fetch(damage.offsets.end).unwrap();
    assert_eq!(behind.iter().next().unwrap().offset(), damage.offsets.end);
}

// A directory sync that failed had dropped the removal of a superseded segment, and a later one that succeeded did not bring
// it back. The file was there again after a power cut, beside a clean mark, and its records were read twice. A clean mark
// names the segments that it stands for now.
#[test]
fn a_superseded_segment_that_comes_back_beside_a_clean_mark_is_seen_through() {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    append_numbered(&log, 0..70);
    let path = log.directory().join("00000000000000000062.log");
    let superseded = disk.read_file(&path).unwrap();
    log.truncate_to(Offset::new(3)).unwrap();
    append_numbered(&log, 3..66);
    log.close().unwrap();
    assert_eq!(disk.read_file(&path), None);
    disk.write_file(&path, &superseded).unwrap();
    let log = Log::open(Arc::new(disk.kill()), "/log".as_ref(), options()).unwrap();
    assert_ne!(log.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(read_all(&log), numbered(0..66));
}

#[test]
fn an_index_that_is_made_while_a_sync_is_due_misses_nothing() {
    // It ended at the durable offset: the footer said less than the batches do, and `verify` called that damage.
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    append(&log, "before");
    log.close().unwrap();
    drop(log);
    let log = Log::open(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
    append(&log, "durable");
    let written =
        log.append(&[NewRecord::new(b"written")], Some(Durability::Written), WhenFull::Wait).unwrap();
    written.wait().unwrap();
    assert!(log.durable_offset() < log.written_offset());
    log.fetch(Offset::new(1), FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
    assert!(log.offset_for_time(Timestamp::from_millis(0)).unwrap().is_some());
    append(&log, "behind");
    log.roll().unwrap();
    append(&log, "in the next one");
    log.close().unwrap();
    let report = log.verify(&mut |_| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}
