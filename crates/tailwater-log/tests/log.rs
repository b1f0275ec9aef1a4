//! The public contract of one partition, on the real disk and the simulated one.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_log::format::Header;
use tailwater_log::storage::{Disk, SimDisk, Storage};
use tailwater_log::{
    Durability, Error, FetchIsolation, FetchLimits, Log, LogEpoch, ManualClock, NewRecord, Offset,
    OpaqueBatch, RecoveryOutcome, Signal, Timestamp, WhenFull,
};

use common::{append, append_numbered, numbered, on_each_storage, options, read_all, with};

#[test]
fn records_are_read_back_across_rolls_and_reopening() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..200);
        assert!(log.stats().unwrap().segment_count > 3);
        assert_eq!(read_all(&log), numbered(0..200));
        log.close().unwrap();
        drop(log);
        let log = open(options());
        assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean);
        assert_eq!(log.epoch(), LogEpoch::FIRST);
        append_numbered(&log, 200..300);
        assert_eq!(read_all(&log), numbered(0..300));
    });
}

#[test]
fn a_batch_is_appended_whole_and_read_with_everything_it_has() {
    on_each_storage(|open| {
        let log = open(options());
        let headers = [Header { key: "trace", value: Some(b"1") }, Header { key: "trace", value: None }];
        let records = [
            NewRecord {
                key: Some(b"k"),
                headers: &headers,
                created_at: Some(Timestamp::from_millis(-7)),
                value: Some(b"v"),
            },
            NewRecord { key: Some(b"gone"), ..NewRecord::default() },
        ];
        let appended = log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        assert_eq!(appended.offsets.count(), 2);
        let fetched = log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        assert_eq!(fetched.batches().len(), 1);
        let read: Vec<_> = fetched.iter().collect();
        assert_eq!((read[0].key(), read[0].value()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!(read[0].headers().collect::<Vec<_>>(), headers);
        assert_eq!(read[0].created_at(), Timestamp::from_millis(-7));
        assert_eq!((read[1].key(), read[1].value()), (Some(&b"gone"[..]), None));
        assert_eq!(read[1].key_bytes().unwrap(), "gone");
    });
}

#[test]
fn a_fetch_starts_and_stops_inside_a_batch() {
    on_each_storage(|open| {
        let log = open(options());
        let values: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let records: Vec<_> = values.iter().map(|value| NewRecord::new(value.as_bytes())).collect();
        log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        let limits = FetchLimits { max_records: 4, max_bytes: 1 };
        let fetched = log.fetch(Offset::new(10), limits, FetchIsolation::Visible, None).unwrap();
        assert_eq!(fetched.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [10, 11, 12, 13]);
        assert_eq!((fetched.record_count(), fetched.next_offset()), (4, Offset::new(14)));
        let rest = log.fetch(Offset::new(14), FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        assert_eq!(rest.record_count(), 36);
    });
}

#[test]
fn offsets_outside_the_log_are_told_with_its_ends() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..100);
        log.delete_records_before(Offset::new(60)).unwrap();
        for from in [59, 101] {
            let error = log
                .fetch(Offset::new(from), FetchLimits::default(), FetchIsolation::Visible, None)
                .unwrap_err();
            assert_eq!(error.to_string(), format!("offset {from} is outside [60, 100]"));
        }
        assert!(
            log.fetch(Offset::new(100), FetchLimits::default(), FetchIsolation::Visible, None)
                .unwrap()
                .is_empty()
        );
        assert_eq!(read_all(&log), numbered(60..100));
        drop(log);
        assert_eq!(read_all(&open(options())), numbered(60..100));
    });
}

#[test]
fn all_records_can_be_deleted_and_offsets_go_on() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..30);
        log.delete_records_before(Offset::new(30)).unwrap();
        assert_eq!(read_all(&log), []);
        assert_eq!(log.stats().unwrap().segment_count, 1);
        log.close().unwrap();
        drop(log);
        let log = open(options());
        append_numbered(&log, 30..40);
        assert_eq!(read_all(&log), numbered(30..40));
    });
}

#[test]
fn a_truncation_removes_the_end_and_raises_the_epoch() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..120);
        let values: Vec<_> = numbered(120..130);
        let records: Vec<_> = values.iter().map(|(_, value)| NewRecord::new(value.as_bytes())).collect();
        log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        for (cut, epoch) in [(124, 2), (90, 3), (90, 3), (0, 4)] {
            log.truncate_to(Offset::new(cut)).unwrap();
            assert_eq!(log.epoch().get(), epoch);
            assert_eq!(read_all(&log), numbered(0..cut), "cut at {cut}");
        }
        assert_eq!(log.epoch_end(LogEpoch::new(1)).unwrap(), Offset::ZERO);
        append_numbered(&log, 0..20);
        drop(log);
        assert_eq!(read_all(&open(options())), numbered(0..20));
    });
}

#[test]
fn epochs_tell_which_history_a_position_is_of() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..50);
        log.truncate_to(Offset::new(30)).unwrap();
        append_numbered(&log, 30..60);
        log.truncate_to(Offset::new(55)).unwrap();
        for (epoch, end) in [(1, 30), (2, 55), (3, 55)] {
            assert_eq!(log.epoch_end(LogEpoch::new(epoch)).unwrap().get(), end, "epoch {epoch}");
        }
        for (offset, epoch) in [(1, 1), (30, 1), (31, 2), (55, 2)] {
            assert_eq!(log.epoch_at(Offset::new(offset)).unwrap().get(), epoch, "offset {offset}");
        }
    });
}

#[test]
fn a_receipt_of_a_truncated_record_says_so() {
    let log = Log::create(
        Arc::new(SimDisk::new(1)),
        "/log".as_ref(),
        with(|c| c.durability = Durability::Buffered),
    )
    .unwrap();
    let mut receipt = log.append(&[NewRecord::new(b"x")], Some(Durability::Durable), WhenFull::Wait).unwrap();
    assert!(receipt.try_get().is_none());
    log.truncate_to(Offset::ZERO).unwrap();
    assert!(matches!(receipt.wait(), Err(Error::Truncated { .. })));
}

#[test]
fn a_compare_and_append_appends_only_at_the_expected_end() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..3);
        let refused =
            log.append_if(Offset::new(2), &[NewRecord::new(b"x")], None, WhenFull::Wait).unwrap_err();
        assert_eq!(refused.to_string(), "the log ends at offset 3, not at 2");
        let receipt = log.append_if(Offset::new(3), &[NewRecord::new(b"x")], None, WhenFull::Wait).unwrap();
        assert_eq!(receipt.wait().unwrap().offsets.start, Offset::new(3));
    });
}

#[test]
fn an_opaque_batch_spans_offsets_and_is_never_cut() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..2);
        let batch = OpaqueBatch { body: b"not records", offset_count: 10, created_at: None };
        log.append_opaque(&batch, None, WhenFull::Wait).unwrap().wait().unwrap();
        let fetched =
            log.fetch(Offset::new(2), FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        assert_eq!(&fetched.batches()[0].body()[..], b"not records");
        assert_eq!((fetched.iter().count(), fetched.next_offset()), (0, Offset::new(12)));
        assert!(matches!(log.truncate_to(Offset::new(5)), Err(Error::InsideOpaqueBatch { .. })));
        log.truncate_to(Offset::new(2)).unwrap();
        assert_eq!(read_all(&log), numbered(0..2));
    });
}

#[test]
fn records_over_the_limit_are_refused_and_change_nothing() {
    on_each_storage(|open| {
        let log = open(with(|config| config.max_batch_bytes = 2000));
        let error = log.append(&[NewRecord::new(&[0; 2000])], None, WhenFull::Wait).unwrap_err();
        assert!(error.to_string().ends_with("bytes exceeds the limit of 2000 bytes"), "{error}");
        assert!(matches!(log.append(&[], None, WhenFull::Wait), Err(Error::InvalidBatch { .. })));
        append_numbered(&log, 0..1);
    });
}

#[test]
fn a_record_larger_than_a_segment_and_than_staging_is_taken() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..5);
        let large = "y".repeat(100_000);
        append(&log, &large);
        append(&log, "after");
        let all = read_all(&log);
        assert_eq!(all[5].1, large);
        assert_eq!(all[6].1, "after");
    });
}

#[test]
fn the_first_record_at_or_after_a_time_is_found() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1000)));
    let mut options = options();
    options.clock = clock.clone();
    let log = Log::create(Arc::new(SimDisk::new(1)), "/log".as_ref(), options).unwrap();
    for n in 0..300u64 {
        append(&log, &format!("record {n} {}", "z".repeat(100)));
        // Every tenth step the clock jumps back; append times do not.
        clock.advance_ms(if n % 10 == 9 { -25 } else { 10 });
    }
    let mut times = Vec::new();
    let mut from = Offset::ZERO;
    while from < Offset::new(300) {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        times.extend(fetched.iter().map(|record| record.appended_at()));
        from = fetched.next_offset();
    }
    assert!(times.is_sorted());
    for time in [0, 1000, 1001, 1500, 2000, 2500, times[299].as_millis(), times[299].as_millis() + 1] {
        let time = Timestamp::from_millis(time);
        let expected = times.iter().position(|at| *at >= time).map(|offset| Offset::new(offset as u64));
        assert_eq!(log.offset_for_time(time).unwrap(), expected, "{time}");
    }
}

#[test]
fn lazy_logs_show_what_is_written_and_sync_when_it_is_due() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1000)));
    let mut options = with(|config| config.durability = Durability::Buffered);
    options.clock = clock.clone();
    let log = Log::create(Arc::new(SimDisk::new(1)), "/log".as_ref(), options).unwrap();
    append(&log, "a");
    assert_eq!((log.log_end_offset().get(), log.written_offset().get()), (1, 0));
    assert!(!log.maintain().unwrap().did_work);
    clock.advance_ms(100);
    assert!(log.maintain().unwrap().did_work);
    assert_eq!((log.written_offset().get(), log.durable_offset().get()), (1, 0));
    assert_eq!(read_all(&log).len(), 1);
    clock.advance_ms(1000);
    log.maintain().unwrap();
    assert_eq!(log.durable_offset().get(), 1);
    clock.advance_ms(50);
    log.maintain().unwrap();
    clock.advance_ms(7 * 24 * 3600 * 1000);
    let due = log.maintain().unwrap();
    assert!(due.did_work, "an old segment is rolled");
    assert_eq!(log.stats().unwrap().segment_count, 2);
    assert_eq!(log.maintain().unwrap().next_due_ms, None);
}

#[test]
fn an_armed_signal_is_woken_by_what_becomes_visible() {
    on_each_storage(|open| {
        let log = open(options());
        let signal = Arc::new(Signal::new());
        let guard = log.add_listener(&signal, FetchIsolation::Visible);
        signal.arm();
        assert!(!signal.wait_until(Instant::now()));
        signal.arm();
        std::thread::scope(|scope| {
            scope.spawn(|| append(&log, "news"));
            assert!(signal.wait_until(Instant::now() + Duration::from_secs(30)));
        });
        drop(guard);
        signal.arm();
        append(&log, "unheard");
        assert!(!signal.wait_until(Instant::now()));
    });
}

#[test]
fn a_waiting_reader_of_a_lazy_log_gets_records_at_once() {
    on_each_storage(|open| {
        let log = open(with(|config| config.durability = Durability::Written));
        let signal = Arc::new(Signal::new());
        let _guard = log.add_listener(&signal, FetchIsolation::Visible);
        signal.arm();
        let _receipt =
            log.append(&[NewRecord::new(b"x")], Some(Durability::Buffered), WhenFull::Wait).unwrap();
        assert!(signal.wait_until(Instant::now()));
        assert_eq!(read_all(&log).len(), 1);
    });
}

#[test]
fn a_second_writer_is_refused_and_told_who_holds_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::create(Arc::new(Disk), directory.path(), options()).unwrap();
    let error = Log::open(Arc::new(Disk), directory.path(), options()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    log.close().unwrap();
    Log::open(Arc::new(Disk), directory.path(), options()).unwrap();
}

#[test]
fn an_attached_reader_follows_the_writer() {
    on_each_storage(|open| {
        let log = open(options());
        append_numbered(&log, 0..100);
        let inner = log.directory().to_owned();
        let storage: Arc<dyn Storage> = if inner.starts_with("/log") { return } else { Arc::new(Disk) };
        let attached = Log::attach_read_only(storage, &inner, options()).unwrap();
        assert!(matches!(
            attached.append(&[NewRecord::new(b"x")], None, WhenFull::Wait),
            Err(Error::ReadOnly)
        ));
        let seen = read_all(&attached);
        assert!(seen.len() >= 99, "all but the last group: {}", seen.len());
        append_numbered(&log, 100..150);
        std::thread::sleep(Duration::from_millis(60));
        log.maintain().unwrap();
        let from = Offset::new(seen.len() as u64);
        assert!(
            !attached.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None).unwrap().is_empty()
        );
        assert_eq!(read_all(&attached), numbered(0..150));
        log.truncate_to(Offset::new(20)).unwrap();
        log.close().unwrap();
        let _ =
            attached.fetch(attached.durable_offset(), FetchLimits::default(), FetchIsolation::Visible, None);
        assert_eq!(read_all(&attached), numbered(0..20));
    });
}

#[test]
fn a_durable_append_costs_one_write_and_one_sync() {
    let disk = SimDisk::new(1);
    let log =
        Log::create(Arc::new(disk.clone()), "/log".as_ref(), with(|c| c.segment_bytes = 1 << 20)).unwrap();
    // The first append after an open also makes the dirty flag durable, and space is reserved.
    append(&log, "first");
    let before = disk.operation_count();
    for n in 0..20 {
        append(&log, &n.to_string());
    }
    assert_eq!(disk.operation_count() - before, 40, "{:?}", disk.latest_operations());
    let receipts: Vec<_> =
        (0..50).map(|_| log.append(&[NewRecord::new(b"x")], None, WhenFull::Wait).unwrap()).collect();
    receipts.into_iter().for_each(|receipt| assert!(receipt.wait().is_ok()));
    assert_eq!(disk.operation_count() - before, 42, "receipts that wait together share a sync");
}

#[test]
fn places_are_found_in_a_segment_that_has_no_index_yet() {
    // Small records and batches much larger than the reach of a look, in turn and mixed.
    let mixes: [&[usize]; 4] = [&[10], &[100, 900, 30_000], &[200_000], &[1, 50, 70_000, 300, 5, 150_000]];
    for (seed, sizes) in (0_u64..).zip(mixes) {
        on_each_storage(|open| {
            let wide = || {
                with(|config| {
                    config.segment_bytes = 64 << 20;
                    config.staging_bytes = 16 << 20;
                })
            };
            let log = open(wide());
            let start = log.log_end_offset().get();
            let value = |offset: u64| {
                let size = sizes[(offset % sizes.len() as u64) as usize];
                [offset.to_le_bytes().to_vec(), vec![b'.'; size]].concat()
            };
            let count = 4_000_000 / sizes.iter().map(|size| size + 100).sum::<usize>() * sizes.len();
            for offset in start..start + count as u64 {
                let value = value(offset);
                drop(log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap());
            }
            log.close().unwrap();
            drop(log);
            let log = open(wide());
            let end = log.log_end_offset().get();
            // More of them than are made without an index.
            for step in 0..100_u64 {
                let offset = (step * 7_919 + seed) * end / 791_900 % end;
                let limits = FetchLimits { max_records: 1, max_bytes: 1 };
                let fetched = log.fetch(Offset::new(offset), limits, FetchIsolation::Visible, None).unwrap();
                let record = fetched.iter().next().unwrap();
                assert_eq!(record.offset(), Offset::new(offset));
                assert_eq!(record.value(), Some(&value(offset)[..]));
            }
            log.close().unwrap();
        });
    }
}
