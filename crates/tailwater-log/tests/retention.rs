//! Retention and the limits of disk space, on the real disk and the simulated one.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{append, append_numbered, numbered, on_each_storage, options, read_all, with};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Error, FetchIsolation, FetchLimits, Log, LogEpoch, LogOptions, ManualClock, NewRecord, Offset,
    PartitionId, RecoveryOutcome, SpaceBudget, SpaceScope, SpaceShare, Timestamp, WhenFull,
};

const SECOND: i64 = 1_000;

fn with_clock(mut options: LogOptions) -> (LogOptions, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    options.clock = clock.clone();
    (options, clock)
}

fn file_count(log: &Log) -> usize {
    let stats = log.stats().unwrap();
    (stats.segment_count + stats.removals.waiting_segments) as usize
}

fn full(error: &Error) -> tailwater_log::LogFull {
    let Error::LogFull(full) = error else { panic!("{error}") };
    **full
}

#[test]
fn by_age_records_go_when_they_are_old_and_no_later_than_a_quarter_after() {
    on_each_storage(|open| {
        let (options, clock) = with_clock(with(|config| config.retention_ms = Some(100_000)));
        let log = open(options);
        for _ in 0..60 {
            append(&log, "a record every ten seconds");
            clock.advance_ms(10 * SECOND);
            log.maintain().unwrap();
            log.retain(None).unwrap();
            let kept = read_all(&log);
            let oldest = kept[0].0;
            let kept_ms = (log.log_end_offset().get() - oldest) * 10_000;
            assert!(kept_ms <= 100_000 + 25_000 + 10_000, "{kept_ms} ms are kept");
            assert!(kept_ms + 10_000 >= 100_000 || oldest == 0, "{kept_ms} ms are kept");
        }
        // Nobody appends any more: the last records become old all the same, and the next offset lives on.
        for _ in 0..14 {
            clock.advance_ms(10 * SECOND);
            log.retain(None).unwrap();
        }
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset::new(60), Offset::new(60)));
        assert_eq!(append(&log, "after"), Offset::new(60));
    });
}

#[test]
fn what_is_due_next_is_told() {
    let (options, clock) = with_clock(with(|config| config.retention_ms = Some(60_000)));
    let log = Log::create(Arc::new(SimDisk::new(1)), Path::new("/log"), options).unwrap();
    assert_eq!(log.retain(None).unwrap().next_due_ms, None, "there is nothing");
    append(&log, "a");
    clock.advance_ms(20 * SECOND);
    assert_eq!(log.retain(None).unwrap().next_due_ms, Some(40_000));
    clock.advance_ms(40 * SECOND);
    let held = log.retain(Some(Offset::ZERO)).unwrap();
    assert_eq!((held.did_delete, held.next_due_ms), (false, None));
    assert!(held.held_bytes > 0);
    assert!(log.retain(Some(Offset::new(1))).unwrap().did_delete);
}

#[test]
fn by_size_the_oldest_segments_go_and_their_files_one_at_a_time() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..400);
        let before = log.stats().unwrap();
        assert_eq!(log.retain(None).unwrap(), Default::default(), "nothing is deleted unless configured");
        let mut config = (*log.config()).clone();
        config.retention_bytes = Some(20_000);
        log.set_config(config).unwrap();
        assert!(log.retain(None).unwrap().did_delete);
        let after = log.stats().unwrap();
        assert!(after.segment_count < before.segment_count / 2, "{after:?}");
        let waiting = after.removals.waiting_segments;
        assert_eq!(waiting, before.segment_count - after.segment_count);
        let start = log.log_start_offset().get();
        assert_eq!(read_all(&log), numbered(start..400));

        let report = log.maintain().unwrap();
        assert!(report.did_work && report.next_due_ms.is_some_and(|ms| ms <= 10));
        assert_eq!(log.stats().unwrap().removals.waiting_segments, waiting - 1);
        while log.maintain().unwrap().did_work {}
        let removals = log.stats().unwrap().removals;
        assert_eq!((removals.removed_segments, removals.waiting_segments), (waiting, 0));
        assert!(removals.removed_bytes > 8_000 * (waiting - 1));
        assert!(!log.retain(None).unwrap().did_delete, "there is nothing more to delete");
    });
}

#[test]
fn a_close_removes_what_waits_for_it_and_the_next_open_is_clean() {
    on_each_storage(|open| {
        let options = with(|config| config.retention_bytes = Some(0));
        let log = open(options.clone());
        append_numbered(&log, 0..200);
        log.retain(None).unwrap();
        let start = log.log_start_offset();
        assert!(file_count(&log) > 3);
        log.close().unwrap();
        drop(log);
        let log = open(options);
        assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean);
        assert_eq!((log.epoch(), log.log_start_offset()), (LogEpoch::FIRST, start));
        assert_eq!(file_count(&log), 1);
        assert_eq!(read_all(&log), numbered(start.get()..200));
    });
}

#[test]
fn a_reader_that_holds_records_of_a_deleted_segment_reads_on() {
    on_each_storage(|open| {
        let log = open(with(|config| config.retention_bytes = Some(0)));
        append_numbered(&log, 0..100);
        let limits = FetchLimits { max_records: 50, max_bytes: 1 << 20 };
        let fetched = log.fetch(Offset::ZERO, limits, FetchIsolation::Visible, None).unwrap();
        // Bytes that were copied pin nothing, and the simulated disk has no maps.
        let is_mapped =
            log.config().read_mode == tailwater_log::ReadMode::Mapped && log.directory() != Path::new("/log");
        log.retain(None).unwrap();
        assert!(log.make_space(0, Offset::ZERO).unwrap(), "the files go now");
        append_numbered(&log, 100..200);
        let values: Vec<_> = fetched
            .iter()
            .map(|record| {
                (record.offset().get(), String::from_utf8(record.value().unwrap().to_vec()).unwrap())
            })
            .collect();
        assert_eq!(values, numbered(0..values.len() as u64));
        let pinned = log.stats().unwrap().removals;
        assert_eq!(pinned.pinned_segments > 0 && pinned.pinned_bytes > 0, is_mapped, "{pinned:?}");
        drop(fetched);
        assert_eq!(log.stats().unwrap().removals.pinned_segments, 0);
        let gone = log.fetch(Offset::ZERO, limits, FetchIsolation::Visible, None);
        assert!(matches!(gone, Err(Error::OffsetOutOfRange { .. })), "{gone:?}");
    });
}

#[test]
fn a_hard_limit_refuses_appends_and_not_what_makes_room() {
    for preallocate in [true, false] {
        on_each_storage(|open| {
            let options = with(|config| {
                config.retention_hard_bytes = Some(128 * 1024);
                config.preallocate = preallocate;
            });
            let log = open(options.clone());
            let value = "v".repeat(1_000);
            let refused = loop {
                match log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait) {
                    Ok(receipt) => drop(receipt.wait().unwrap()),
                    Err(error) => break error,
                }
            };
            let full = full(&refused);
            assert_eq!((full.scope, full.limit_bytes), (SpaceScope::Partition, 128 * 1024));
            let end = log.log_end_offset();
            assert!(end.get() > 90, "only {end} kilobytes fit");
            assert!(log.stats().unwrap().size_bytes <= 128 * 1024);
            let message = refused.to_string();
            assert!(message.contains("this partition may take up 131072"), "{message}");
            // Another try is refused too, and everything else works.
            assert!(log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Fail).is_err());
            assert_eq!(log.log_end_offset(), end);
            log.sync().unwrap();
            log.maintain().unwrap();
            assert!(!log.make_space(full.wanted_bytes, Offset::ZERO).unwrap(), "all of it is held");
            assert!(log.make_space(full.wanted_bytes, Offset::MAX).unwrap());
            assert!(log.log_start_offset() > Offset::ZERO && log.log_start_offset().get() < 20);
            assert_eq!(append(&log, &value), end);
            log.close().unwrap();
            drop(log);
            let log = open(options);
            assert_eq!(log.log_end_offset().get(), end.get() + 1);
            assert!(log.stats().unwrap().size_bytes <= 128 * 1024);
        });
    }
}

#[test]
fn a_limited_log_takes_records_for_ever_if_the_oldest_go() {
    let options = with(|config| config.retention_hard_bytes = Some(64 * 1024));
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), Path::new("/log"), options).unwrap();
    let value = "v".repeat(700);
    for n in 0..1_000u64 {
        let offset = loop {
            match log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait) {
                Ok(receipt) => break receipt.wait().unwrap().offsets.start,
                Err(error) => assert!(log.make_space(full(&error).wanted_bytes, Offset::MAX).unwrap()),
            }
        };
        assert_eq!(offset.get(), n);
        let used: u64 = disk.file_paths().iter().map(|path| disk.read_file(path).unwrap().len() as u64).sum();
        assert!(used <= 64 * 1024 + 4_096, "{used} bytes after {n}");
    }
    assert!(log.log_end_offset().get() - log.log_start_offset().get() > 50);
}

#[test]
fn logs_share_a_budget_and_one_is_spared_for() {
    let disk: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
    let budget = Arc::new(SpaceBudget::new(300 * 1024));
    let open = |number: u32, spared: u64| {
        let mut options = options();
        options.identity.partition = PartitionId::new(number);
        options.space = Some(Arc::new(SpaceShare::new(&budget, 0, spared)));
        Log::create(Arc::clone(&disk), format!("/log-{number}").as_ref(), options).unwrap()
    };
    let (first, second, spared_for) = (open(0, 40_000), open(1, 40_000), open(2, 0));
    let value = "v".repeat(1_000);
    let fill = |log: &Log| loop {
        if let Err(error) = log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait) {
            return full(&error);
        }
    };
    append_numbered(&second, 0..20);
    let refused = fill(&first);
    assert_eq!((refused.scope, refused.limit_bytes), (SpaceScope::Budget, 300 * 1024 - 40_000));
    fill(&second);
    append_numbered(&spared_for, 0..50);
    let size = |log: &Log| log.stats().unwrap().size_bytes;
    let used: u64 = size(&first) + size(&second) + size(&spared_for);
    assert!(used <= 300 * 1024 && used > 250 * 1024, "{used}");
    assert!(budget.used_bytes().abs_diff(used) <= 8192, "{used} of {budget:?}");
    // What one gives back the other gets.
    let end = second.log_end_offset();
    first.sync().unwrap();
    first.delete_records_before(first.log_end_offset()).unwrap();
    assert_eq!(append(&second, &value), end);
    let before = budget.used_bytes();
    first.close().unwrap();
    drop(first);
    assert!(budget.used_bytes() < before);
}

#[test]
fn a_reserve_takes_small_records_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = with(|config| {
        config.segment_bytes = 1024 * 1024;
        config.reserve_bytes = 200 * 1024;
    });
    let log = Log::create(Arc::clone(&storage), Path::new("/log"), options).unwrap();
    append(&log, "makes it active");
    log.maintain().unwrap();
    let taken: u64 = disk.file_paths().iter().map(|path| disk.read_file(path).unwrap().len() as u64).sum();
    disk.set_capacity(Some(taken));
    for n in 0..190 {
        let value = format!("{n:>1000}");
        append(&log, &value);
        log.maintain().unwrap();
    }
    log.sync().unwrap();
}
