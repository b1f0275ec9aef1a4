//! Compaction while others append, read, verify and attach.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_log::storage::{Disk, SimDisk, Storage};
use tailwater_log::{
    CleanupPolicy, CompactionLimits, CompactionOutcome, Durability, Error, FetchIsolation, FetchLimits, Log,
    LogOptions, NewRecord, Offset, OpenFiles, PartitionId, PartitionIdentity, ReadMode, RecoveryOutcome,
    TopicId, WhenFull,
};

const APPENDERS: u64 = 3;
const RECORDS: u64 = 800;
const KEYS: u64 = 17;

fn options(read_mode: ReadMode) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([8; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 16 * 1024;
    options.config.cleanup_policy = CleanupPolicy::Compact;
    options.config.delete_retention_ms = 0;
    options.config.read_mode = read_mode;
    // So few that they are closed again and again, under everybody's feet.
    options.open_files = Some(Arc::new(OpenFiles::at_most(3)));
    options
}

fn on_each_storage(test: impl Fn(&Arc<dyn Storage>, &Path, LogOptions)) {
    for read_mode in [ReadMode::Mapped, ReadMode::Positional] {
        let directory = tempfile::tempdir().unwrap();
        test(&(Arc::new(Disk) as Arc<dyn Storage>), &directory.path().join("log"), options(read_mode));
        test(&(Arc::new(SimDisk::new(1)) as Arc<dyn Storage>), Path::new("/log"), options(read_mode));
    }
}

fn append(log: &Log, appender: u64, n: u64, durability: Option<Durability>) -> tailwater_log::Result<()> {
    let key = format!("{appender} {}", n % KEYS);
    let value = format!("{n} {}", "x".repeat(n as usize % 300));
    let is_tombstone = n.is_multiple_of(13);
    let record = NewRecord {
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()).filter(|_| !is_tombstone),
        ..NewRecord::default()
    };
    log.append(&[record], durability, WhenFull::Wait)?.wait().map(drop)
}

fn compact(log: &Log) -> CompactionOutcome {
    log.maintain().unwrap();
    let report = log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.left_alone.is_empty(), "{report:?}");
    report.outcome
}

/// Reads to the end: offsets rise, numbers of a key rise, and nothing fails. Returns the last value of each key.
fn read(log: &Log) -> BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> {
    let (mut from, mut hint) = (log.log_start_offset(), None);
    let mut last: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> = BTreeMap::new();
    let mut previous = None;
    let end = log.visible_end(FetchIsolation::Visible);
    while from < end {
        let limits = FetchLimits { max_records: 40, max_bytes: 8_000 };
        let fetched = log.fetch(from, limits, FetchIsolation::Visible, hint).unwrap();
        for record in fetched.iter() {
            let offset = record.offset().get();
            assert!(previous < Some(offset), "offset {offset} after {previous:?}");
            previous = Some(offset);
            let entry = (offset, record.value().map(<[u8]>::to_vec));
            last.insert(record.key().unwrap().to_vec(), entry);
        }
        assert!(fetched.next_offset() > from);
        (from, hint) = (fetched.next_offset(), fetched.hint());
    }
    last
}

fn value_number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn check_final(log: &Log) {
    let last = read(log);
    for appender in 0..APPENDERS {
        for key in 0..KEYS {
            let n = (0..RECORDS).rev().find(|n| n % KEYS == key).unwrap();
            let found = last.get(format!("{appender} {key}").as_bytes());
            match found {
                Some((_, Some(value))) => assert_eq!(value_number(value), n),
                _ => assert_eq!(n % 13, 0, "the last of key {key} is a tombstone"),
            }
        }
    }
}

#[test]
fn appends_reads_verifications_and_attached_readers_go_on_beside_compactions() {
    on_each_storage(|storage, path, options| {
        let log = Log::create(Arc::clone(storage), path, options.clone()).unwrap();
        let is_over = AtomicBool::new(false);
        let until_over = |act: &mut dyn FnMut()| {
            while !is_over.load(Ordering::SeqCst) {
                act();
            }
        };
        let mut compactions = 0;
        std::thread::scope(|scope| {
            let appending: Vec<_> = (0..APPENDERS)
                .map(|appender| {
                    let log = &log;
                    scope.spawn(move || (0..RECORDS).for_each(|n| append(log, appender, n, None).unwrap()))
                })
                .collect();
            scope.spawn(|| until_over(&mut || drop(read(&log))));
            scope.spawn(|| {
                until_over(&mut || {
                    assert_eq!(log.verify(&mut |_| {}).unwrap().damage, []);
                    let stats = log.stats().unwrap();
                    assert!(stats.compaction.segments_left_alone == 0);
                    let at = Offset::new(stats.durable_offset.get() / 2);
                    assert_eq!(log.epoch_at(at).unwrap(), log.epoch());
                    assert_eq!(log.epoch_end(tailwater_log::LogEpoch::new(0)).unwrap(), Offset::ZERO);
                    log.bytes_from(at).unwrap();
                    log.offset_for_time(tailwater_log::Timestamp::from_millis(5)).unwrap();
                });
            });
            scope.spawn(|| {
                let attached = Log::attach_read_only(Arc::clone(storage), path, options.clone()).unwrap();
                until_over(&mut || {
                    let end = attached.visible_end(FetchIsolation::Visible);
                    drop(attached.fetch(end, FetchLimits::default(), FetchIsolation::Visible, None).unwrap());
                    read(&attached);
                });
            });
            let compacting = scope.spawn(|| {
                let mut count = 0;
                until_over(&mut || count += u64::from(compact(&log) == CompactionOutcome::Done));
                count
            });
            appending.into_iter().for_each(|thread| thread.join().unwrap());
            is_over.store(true, Ordering::SeqCst);
            compactions = compacting.join().unwrap();
        });
        assert!(compactions > 0);
        log.roll().unwrap();
        compact(&log);
        check_final(&log);
        log.close().unwrap();
        drop(log);
        let log = Log::open(Arc::clone(storage), path, options.clone()).unwrap();
        assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean);
        check_final(&log);
    });
}

#[test]
fn truncations_and_deletions_come_through_beside_compactions() {
    on_each_storage(|storage, path, options| {
        let log = Log::create(Arc::clone(storage), path, options.clone()).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    compact(&log);
                }
            });
            for round in 0..60u64 {
                (0..40).for_each(|n| append(&log, round % 3, n, Some(Durability::Buffered)).unwrap());
                log.sync().unwrap();
                let (start, end) = (log.log_start_offset().get(), log.log_end_offset().get());
                match round % 4 {
                    // Also below what was compacted.
                    1 => log.truncate_to(Offset::new(end - (end - start) / 3)).unwrap(),
                    2 => log.delete_records_before(Offset::new(start + (end - start) / 7)).unwrap(),
                    _ => log.roll().unwrap(),
                }
                read(&log);
            }
            is_over.store(true, Ordering::SeqCst);
        });
        assert_eq!(log.verify(&mut |_| {}).unwrap().damage, []);
        log.roll().unwrap();
        compact(&log);
        let last = read(&log);
        log.close().unwrap();
        drop(log);
        let log = Log::open(Arc::clone(storage), path, options.clone()).unwrap();
        assert_eq!(read(&log), last);
    });
}

#[test]
fn a_compaction_that_fails_at_any_operation_stops_no_append_unless_a_sync_failed() {
    let mut failed = 0;
    for nth in 1..60 {
        let disk = SimDisk::new(1);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let log =
            Log::create(Arc::clone(&storage), Path::new("/log"), options(ReadMode::Positional)).unwrap();
        for n in 0..120 {
            append(&log, 0, n, None).unwrap();
        }
        log.roll().unwrap();
        log.sync().unwrap();
        log.maintain().unwrap();
        let before = read(&log);
        disk.fail_nth(nth, 28, false);
        let compacted = log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(()));
        disk.clear_faults();
        assert_eq!(read(&log), before, "operation {nth}");
        match compacted {
            Ok(report) if report.outcome == CompactionOutcome::Done => {}
            Ok(report) => panic!("{report:?}"),
            Err(error) => {
                failed += 1;
                assert!(matches!(error, Error::DiskFull { .. } | Error::Failed { .. }), "{error}");
                assert!(log.compaction_error().is_some());
                assert_eq!(log.stats().unwrap().compaction.failures, 1);
            }
        }
        match append(&log, 0, 120, None) {
            Ok(()) => {}
            Err(Error::Failed { .. }) => assert!(log.is_failed(), "operation {nth}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failed > 5, "{failed}");
}
