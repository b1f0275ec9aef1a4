//! The rules of compaction, each by its name, and what happens around it.

use std::ops::ControlFlow;
use std::sync::Arc;

use tailwater_log::storage::{OpenMode, Storage};
use tailwater_log::{
    CleanupPolicy, CompactionLimits, CompactionOutcome, Durability, Error, FetchIsolation, FetchLimits,
    FilePosition, InvalidBatch, Log, NewRecord, Offset, OpaqueBatch, RecoveryOutcome, Timestamp, WhenFull,
};

use crate::fixture::{DELETE_RETENTION_MS, Fixture, read_all};

fn put_some(fixture: &Fixture, records: &[(&str, Option<&str>)]) {
    for (key, value) in records {
        fixture.put(key, *value);
    }
}

#[test]
fn of_each_key_the_last_record_is_kept_and_the_log_is_smaller() {
    let fixture = Fixture::new(|_| {});
    for round in 0..40 {
        for key in ["a", "b", "c"] {
            fixture.put(key, Some(&format!("{round} {}", "x".repeat(100))));
        }
    }
    fixture.seal();
    let before = fixture.read();
    let report = fixture.compact();
    assert_eq!((report.outcome, report.records_removed, report.passes), (CompactionOutcome::Done, 117, 1));
    assert!(report.segments_in > 3 && report.segments_out == 1, "{report:?}");
    assert!(report.bytes_after < report.bytes_before / 4, "{report:?}");
    assert_eq!(report.cleaned_end.get(), 120);
    assert_eq!(fixture.read(), before[117..]);
    assert_eq!(fixture.files().len(), 2, "the output, and what takes appends: {:?}", fixture.files());
    let stats = fixture.log.stats().unwrap().compaction;
    assert_eq!((stats.cleaned_end.get(), stats.compactions, stats.records_removed), (120, 1, 117));
    assert_eq!(stats.bytes_freed, report.bytes_before - report.bytes_after);
    assert!(fixture.log.verify(&mut |_| {}).unwrap().damage.is_empty());
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing, "all is clean");
}

#[test]
fn k1_readers_within_the_head_see_every_record() {
    let fixture = Fixture::new(|config| config.min_compaction_lag_ms = 100);
    put_some(&fixture, &[("a", Some("1")), ("a", Some("2"))]);
    fixture.seal();
    fixture.clock.advance_ms(60);
    put_some(&fixture, &[("a", Some("3")), ("a", Some("4"))]);
    fixture.seal();
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing);
    fixture.clock.advance_ms(40);
    assert_eq!(fixture.compact().records_removed, 1);
    let offsets: Vec<_> = fixture.read().iter().map(|seen| seen.0).collect();
    assert_eq!(offsets, [1, 2, 3], "the second segment is too young, and what it supersedes stays till then");
    fixture.clock.advance_ms(60);
    fixture.compact();
    assert_eq!(fixture.content(), [(3, "a".into(), Some("4".into()))]);
}

#[test]
fn k2_k3_order_offsets_and_times_never_change_and_no_offset_is_given_out_again() {
    let fixture = Fixture::new(|_| {});
    let batch = |keys: &[&str], created: i64| {
        let records: Vec<_> = keys
            .iter()
            .zip(0..)
            .map(|(key, n)| NewRecord {
                key: Some(key.as_bytes()),
                value: Some(b"v"),
                created_at: Some(Timestamp::from_millis(created - n * 7)),
                ..NewRecord::default()
            })
            .collect();
        fixture.log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        fixture.clock.advance_ms(3);
    };
    batch(&["a", "b", "c", "d"], 500);
    batch(&["x", "a", "y"], 20_000);
    batch(&["c", "e"], -4);
    batch(&["y"], 7);
    fixture.seal();
    let before = fixture.read();
    fixture.compact();
    let after = fixture.read();
    let kept: Vec<_> = [1, 3, 4, 5, 7, 8, 9].iter().map(|index| before[*index].clone()).collect();
    assert_eq!(after, kept);
    assert_eq!(fixture.put("z", Some("next")), 10);
}

#[test]
fn k4_the_final_value_of_each_key_is_there_for_who_reads_from_the_start() {
    let fixture = Fixture::new(|config| config.compaction_map_bytes = 1024);
    for n in 0..4_000u32 {
        fixture.put(&format!("key {}", n % 130), Some(&n.to_string()));
    }
    fixture.seal();
    let report = fixture.compact();
    // Each time as many keys as fit, however often they recur.
    assert!((4..=8).contains(&report.passes), "{report:?}");
    let content = fixture.content();
    assert_eq!(content.len(), 130);
    assert!(content.iter().all(|(offset, key, value)| {
        *offset >= 3_870 && *key == format!("key {}", offset % 130) && *value == Some(offset.to_string())
    }));
}

#[test]
fn k5_tombstones_stay_until_their_time_is_over() {
    let fixture = Fixture::new(|_| {});
    put_some(&fixture, &[("a", Some("1")), ("b", Some("1")), ("a", None)]);
    fixture.seal();
    let both = [(1, "b".to_owned(), Some("1".to_owned())), (2, "a".to_owned(), None)];
    // However long it was there before: its time begins when what it deletes is gone.
    fixture.clock.advance_ms(1_000_000);
    fixture.compact();
    assert_eq!(fixture.content(), both);
    fixture.clock.advance_ms(DELETE_RETENTION_MS as i64 - 1);
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing);
    assert!(!fixture.log.is_compaction_due(Offset::MAX).unwrap());
    fixture.clock.advance_ms(1);
    assert!(fixture.log.is_compaction_due(Offset::MAX).unwrap());
    let report = fixture.compact();
    assert_eq!((report.records_removed, report.tombstones_removed), (1, 1));
    assert_eq!(fixture.content(), both[..1]);
    assert!(!fixture.log.is_compaction_due(Offset::MAX).unwrap());
}

#[test]
fn k6_tombstones_stay_until_held_groups_have_passed_them() {
    let fixture = Fixture::new(|_| {});
    put_some(&fixture, &[("a", None), ("b", None), ("c", None)]);
    fixture.seal();
    fixture.compact();
    fixture.clock.advance_ms(DELETE_RETENTION_MS as i64);
    assert_eq!(fixture.compact_below(Offset::new(1)).tombstones_removed, 1);
    assert_eq!(fixture.read().iter().map(|seen| seen.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(fixture.compact_below(Offset::new(1)).outcome, CompactionOutcome::Nothing);
    assert_eq!(fixture.compact_below(Offset::new(3)).tombstones_removed, 2);
    assert_eq!(fixture.read(), []);
}

#[test]
fn k7_only_sealed_synced_segments_are_cleaned() {
    let fixture = Fixture::new(|config| config.durability = Durability::Written);
    put_some(&fixture, &[("a", Some("1")), ("a", Some("2"))]);
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing, "it takes appends");
    fixture.log.roll().unwrap();
    put_some(&fixture, &[("a", Some("3"))]);
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing, "it is not durable");
    fixture.log.sync().unwrap();
    assert_eq!(fixture.compact().records_removed, 1);
    let offsets: Vec<_> = fixture.read().iter().map(|seen| seen.0).collect();
    assert_eq!(offsets, [1, 2], "what supersedes the second is in the segment that takes appends");
}

#[test]
fn k8_the_end_of_a_cleaned_range_stays_visible() {
    let fixture = Fixture::new(|_| {});
    for _ in 0..30 {
        fixture.put("a", None);
    }
    fixture.seal();
    fixture.compact();
    fixture.clock.advance_ms(DELETE_RETENTION_MS as i64);
    fixture.compact();
    assert_eq!(fixture.read(), [], "nothing is left");
    for from in 0..30 {
        let fetched =
            fixture.log.fetch(Offset::new(from), FetchLimits::default(), FetchIsolation::Visible, None);
        let fetched = fetched.unwrap();
        assert!(fetched.is_empty());
        assert_eq!(fetched.next_offset().get(), 30, "from {from}");
    }
    assert_eq!(fixture.log.epoch_at(Offset::new(17)).unwrap(), fixture.log.epoch());
    assert_eq!(fixture.log.offset_for_time(Timestamp::from_millis(0)).unwrap(), None);
    assert_eq!(fixture.put("b", Some("1")), 30);
    assert_eq!(fixture.content(), [(30, "b".into(), Some("1".into()))]);
}

#[test]
fn records_without_a_key_are_refused_on_compacted_logs_only() {
    let fixture = Fixture::new(|_| {});
    let (with, without) = (NewRecord { key: Some(b"k"), ..NewRecord::new(b"v") }, NewRecord::new(b"v"));
    let missing = |index| InvalidBatch::MissingKey { index };
    let reason = |appended: tailwater_log::Result<tailwater_log::Receipt>| match appended {
        Err(Error::InvalidBatch { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let log = &fixture.log;
    for _ in 0..2 {
        // Alone, also behind others in an open batch, in a batch, and by compare-and-append.
        assert_eq!(reason(log.append(&[without], None, WhenFull::Wait)), missing(0));
        assert_eq!(reason(log.append(&[with, with, without], None, WhenFull::Wait)), missing(2));
        assert_eq!(reason(log.append_if(log.log_end_offset(), &[without], None, WhenFull::Wait)), missing(0));
        log.append(&[with], Some(Durability::Buffered), WhenFull::Wait).unwrap().wait().unwrap();
    }
    assert_eq!(log.log_end_offset().get(), 2);
    let mut config = fixture.config.clone();
    config.cleanup_policy = CleanupPolicy::Delete;
    log.set_config(config.clone()).unwrap();
    log.append(&[without], Some(Durability::Buffered), WhenFull::Wait).unwrap().wait().unwrap();
    config.cleanup_policy = CleanupPolicy::CompactAndDelete;
    log.set_config(config).unwrap();
    let error = log.append(&[without], None, WhenFull::Wait).unwrap_err();
    let text =
        "invalid batch: record 0 of it has no key, which cleanup_policy asks for, since it is set to compact";
    assert_eq!(error.to_string(), text);
    // Keyed records still share a batch.
    log.append(&[with], Some(Durability::Buffered), WhenFull::Wait).unwrap().wait().unwrap();
    log.append(&[with], None, WhenFull::Wait).unwrap().wait().unwrap();
    let fetched = log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
    assert_eq!((fetched.record_count(), fetched.batches().len()), (5, 1));
    assert!(fetched.iter().any(|record| record.key().is_none()), "what was appended before stays");
}

#[test]
fn what_cannot_be_looked_into_and_what_has_no_key_stays() {
    let fixture = Fixture::new(|config| config.cleanup_policy = CleanupPolicy::Delete);
    fixture.log.append(&[NewRecord::new(b"no key")], None, WhenFull::Wait).unwrap().wait().unwrap();
    fixture.put("a", Some("1"));
    let opaque = OpaqueBatch { body: b"who knows", offset_count: 5, created_at: None };
    fixture.log.append_opaque(&opaque, None, WhenFull::Wait).unwrap().wait().unwrap();
    put_some(&fixture, &[("a", Some("2")), ("b", Some("3"))]);
    fixture.seal();
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing, "it is not a compacted log");
    let mut config = fixture.config.clone();
    config.cleanup_policy = CleanupPolicy::Compact;
    fixture.log.set_config(config).unwrap();
    assert_eq!(fixture.compact().records_removed, 1);
    let fetched =
        fixture.log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
    let bodies = fetched.batches().iter().filter(|batch| batch.header().attributes.is_opaque());
    assert_eq!(bodies.map(|batch| batch.body().to_vec()).collect::<Vec<_>>(), [b"who knows"]);
    assert_eq!(fixture.read().iter().map(|seen| seen.0).collect::<Vec<_>>(), [0, 7, 8]);
}

#[test]
fn a_damaged_segment_is_left_alone_and_reported_and_appends_go_on() {
    let fixture = Fixture::new(|config| config.segment_bytes = 1 << 20);
    let mut files = Vec::new();
    for _ in 0..4 {
        put_some(&fixture, &[("a", Some("1")), ("b", None), ("b", Some("2")), ("a", None)]);
        files.push(fixture.log.directory().join(fixture.files().last().unwrap()));
        fixture.seal();
    }
    let file = fixture.disk.open_file(&files[1], OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[0xee; 9], FilePosition::new(1024 + 64 + 30)).unwrap();
    let report = fixture.compact();
    let before = file.length().unwrap();
    assert_eq!(report.outcome, CompactionOutcome::Done);
    assert_eq!(report.left_alone.len(), 1);
    assert_eq!(report.left_alone[0].file, files[1]);
    assert!(matches!(report.left_alone[0].error, Error::Corrupt(_)));
    let stats = fixture.log.stats().unwrap().compaction;
    assert_eq!((stats.segments_left_alone, stats.cleaned_end.get()), (1, 16));
    assert!(matches!(fixture.log.compaction_error().as_deref(), Some(Error::Corrupt(_))));
    assert_eq!(fixture.put("a", Some("after")), 16);
    // The older records of a tombstone's key may be in what is damaged: it stays, however long.
    fixture.clock.advance_ms(DELETE_RETENTION_MS as i64);
    fixture.seal();
    fixture.compact();
    fixture.clock.advance_ms(DELETE_RETENTION_MS as i64);
    fixture.compact();
    let same = fixture.disk.open_file(&files[1], OpenMode::Read).unwrap();
    assert_eq!((file.length().unwrap(), same.length().unwrap()), (before, before));
    let found: Vec<_> = [8, 12, 16]
        .iter()
        .flat_map(|from| {
            let limits = FetchLimits::default();
            let fetched =
                fixture.log.fetch(Offset::new(*from), limits, FetchIsolation::Visible, None).unwrap();
            fetched.iter().map(|record| record.offset().get()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, [14, 16, 14, 16, 16], "nothing of the segments behind the damage is there twice");
}

#[test]
fn a_segment_whose_header_is_damaged_is_left_alone_and_reported() {
    let mut fixture = Fixture::new(|_| {});
    let mut damaged = None;
    for _ in 0..3 {
        put_some(&fixture, &[("a", Some("1")), ("a", Some("2"))]);
        damaged.get_or_insert(fixture.log.directory().join(fixture.files().last().unwrap()));
        fixture.seal();
    }
    fixture.log.close().unwrap();
    let file = fixture.disk.open_file(damaged.as_deref().unwrap(), OpenMode::ReadWrite).unwrap();
    for copy in [0, 512] {
        file.write_all_at(&[0xee; 9], FilePosition::new(copy + 30)).unwrap();
    }
    let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
    fixture.log = Log::open(storage, "/log".as_ref(), fixture.options()).unwrap();
    let report = fixture.compact();
    assert_eq!((report.left_alone.len(), report.records_removed), (1, 3));
    assert_eq!(Some(&report.left_alone[0].file), damaged.as_ref());
    assert_eq!(fixture.put("a", Some("after")), 6);
}

#[test]
fn tombstones_above_what_is_damaged_get_no_time() {
    let fixture = Fixture::new(|_| {});
    fixture.put("a", Some("1"));
    let damaged = fixture.log.directory().join(fixture.files().last().unwrap());
    fixture.seal();
    fixture.put("a", None);
    fixture.seal();
    let file = fixture.disk.open_file(&damaged, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[0xee; 4], FilePosition::new(1024 + 64)).unwrap();
    assert_eq!(fixture.compact().left_alone.len(), 1);
    for _ in 0..3 {
        fixture.clock.advance_ms(DELETE_RETENTION_MS as i64);
        put_some(&fixture, &[("other", Some("1"))]);
        fixture.seal();
        fixture.compact();
        let fetched =
            fixture.log.fetch(Offset::new(1), FetchLimits::default(), FetchIsolation::Visible, None);
        assert_eq!(fetched.unwrap().iter().next().unwrap().offset().get(), 1);
    }
}

#[test]
fn a_compaction_can_be_stopped_and_what_it_has_finished_stays() {
    let fixture = Fixture::new(|config| config.segment_bytes = 70_000);
    for round in 0..40 {
        for key in 0..20 {
            fixture.put(&format!("{round} {}", key / 2), Some(&"x".repeat(1_000)));
        }
    }
    fixture.seal();
    let before = fixture.read();
    let expected: Vec<_> = before.iter().filter(|seen| seen.0 % 2 == 1).cloned().collect();
    let mut stopped = 0;
    for most in 0..200 {
        let mut left = most;
        let report = fixture.log.compact(&CompactionLimits::default(), &mut |bytes| {
            assert!(bytes > 0);
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let report = report.unwrap();
        assert!(fixture.files().iter().all(|name| name.ends_with(".log")), "{:?}", fixture.files());
        if report.outcome != CompactionOutcome::Stopped {
            break;
        }
        stopped += 1;
        let now = fixture.read();
        assert!(now.iter().all(|seen| before.contains(seen)));
        assert!(expected.iter().all(|seen| now.contains(seen)), "the last of each key is there");
    }
    assert!(stopped > 10, "{stopped}");
    assert_eq!(fixture.read(), expected);
}

#[test]
fn it_is_due_when_enough_is_dirty() {
    let fixture = Fixture::new(|config| config.min_cleanable_dirty_percent = 60);
    let value = "x".repeat(600);
    let mut limits = CompactionLimits::default();
    limits.only_if_due = true;
    let compact = || fixture.log.compact(&limits, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(!fixture.log.is_compaction_due(Offset::MAX).unwrap());
    for n in 0..20 {
        fixture.put(&format!("{n}"), Some(&value));
    }
    fixture.seal();
    assert!(fixture.log.is_compaction_due(Offset::MAX).unwrap());
    assert_eq!(compact().outcome, CompactionOutcome::Done);
    put_some(&fixture, &[("a", Some(&value)), ("a", Some(&value))]);
    fixture.seal();
    assert_eq!(compact().outcome, CompactionOutcome::Nothing);
    let mut config = fixture.config.clone();
    config.max_compaction_lag_ms = Some(500);
    fixture.log.set_config(config).unwrap();
    assert_eq!(compact().outcome, CompactionOutcome::Nothing);
    fixture.clock.advance_ms(500);
    assert_eq!(compact().outcome, CompactionOutcome::Done);
    // What takes appends is rolled for it.
    put_some(&fixture, &[("b", Some("1"))]);
    fixture.clock.advance_ms(499);
    assert_eq!(fixture.log.maintain().unwrap().next_due_ms, Some(1));
    fixture.clock.advance_ms(1);
    fixture.log.maintain().unwrap();
    fixture.log.maintain().unwrap();
    assert_eq!(compact().outcome, CompactionOutcome::Done);
}

#[test]
fn it_goes_on_where_it_was_after_a_restart_and_the_log_opens_clean() {
    let mut fixture = Fixture::new(|_| {});
    put_some(&fixture, &[("a", Some("1")), ("a", Some("2")), ("b", None)]);
    fixture.seal();
    fixture.compact();
    fixture.log.close().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
    fixture.log = Log::open(storage, "/log".as_ref(), fixture.options()).unwrap();
    assert_eq!(fixture.log.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(fixture.compact().outcome, CompactionOutcome::Nothing, "what is clean is known to be");
    fixture.clock.advance_ms(DELETE_RETENTION_MS as i64);
    assert_eq!(fixture.compact().tombstones_removed, 1, "and so is when its tombstones may go");
    assert_eq!(fixture.log.stats().unwrap().compaction.cleaned_end.get(), 3);
    // Its first change after a clean open was not an append.
    let storage: Arc<dyn Storage> = Arc::new(fixture.disk.crash(|_, _| true));
    let log = Log::open(storage, "/log".as_ref(), fixture.options()).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Recovered);
    assert_eq!(read_all(&log), fixture.read());
}

#[test]
fn segments_of_several_epochs_become_one_and_epochs_stay_where_they_were() {
    let fixture = Fixture::new(|_| {});
    put_some(&fixture, &[("a", Some("1")), ("b", Some("1")), ("c", Some("cut"))]);
    fixture.log.truncate_to(Offset::new(2)).unwrap();
    put_some(&fixture, &[("a", Some("2")), ("b", Some("cut"))]);
    fixture.log.truncate_to(Offset::new(3)).unwrap();
    put_some(&fixture, &[("a", Some("3")), ("d", Some("1"))]);
    fixture.seal();
    let log = &fixture.log;
    let epochs = || -> Vec<_> {
        let at = (0..=5).map(|offset| log.epoch_at(Offset::new(offset)).unwrap().get());
        let ends =
            (0..4).map(|epoch| log.epoch_end(tailwater_log::LogEpoch::new(epoch)).unwrap().get() as u32);
        at.chain(ends).collect()
    };
    let before = epochs();
    let report = fixture.compact();
    assert_eq!((report.segments_in, report.segments_out, report.records_removed), (3, 1, 2));
    assert_eq!(epochs(), before);
    let content: Vec<_> = fixture.read().iter().map(|seen| seen.0).collect();
    assert_eq!(content, [1, 3, 4]);
    log.close().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
    let log = Log::open(storage, "/log".as_ref(), fixture.options()).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(read_all(&log).len(), 3);
}

#[test]
fn retention_deletes_where_the_policy_says_so_and_then_also_what_was_cleaned() {
    let fixture = Fixture::new(|config| config.retention_ms = Some(500));
    put_some(&fixture, &[("a", Some("1")), ("a", Some("2")), ("b", Some("1"))]);
    fixture.seal();
    fixture.compact();
    fixture.clock.advance_ms(1_000);
    assert!(!fixture.log.retain(None).unwrap().did_delete, "only what is superseded goes");
    let mut config = fixture.config.clone();
    config.cleanup_policy = CleanupPolicy::CompactAndDelete;
    fixture.log.set_config(config).unwrap();
    assert!(fixture.log.retain(None).unwrap().did_delete);
    assert_eq!(fixture.log.log_start_offset().get(), 3);
    assert_eq!(fixture.read(), []);
    assert_eq!(fixture.put("a", Some("3")), 3);
}

#[test]
fn a_reader_that_has_fetched_keeps_what_it_has_and_goes_on_in_the_new_files() {
    let fixture = Fixture::new(|_| {});
    for n in 0..60 {
        fixture.put(&format!("{}", n % 4), Some(&format!("{n} {}", "x".repeat(200))));
    }
    fixture.seal();
    let limits = FetchLimits { max_records: 5, max_bytes: 1 << 20 };
    let fetched = fixture.log.fetch(Offset::new(20), limits, FetchIsolation::Visible, None).unwrap();
    let before: Vec<_> = fetched.iter().map(|record| record.value().unwrap().to_vec()).collect();
    fixture.compact();
    let after: Vec<_> = fetched.iter().map(|record| record.value().unwrap().to_vec()).collect();
    assert_eq!(before, after);
    let next = fixture
        .log
        .fetch(fetched.next_offset(), FetchLimits::default(), FetchIsolation::Visible, fetched.hint())
        .unwrap();
    assert_eq!(next.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [56, 57, 58, 59]);
}

#[test]
fn an_attached_process_notices_files_that_were_put_in_the_place_of_others() {
    let fixture = Fixture::new(|_| {});
    let fill = |from: u64| {
        for n in from..from + 60 {
            fixture.put(&format!("{}", n % 4), Some(&format!("{n} {}", "x".repeat(200))));
        }
        fixture.seal();
        fixture.clock.advance_ms(60);
        fixture.log.maintain().unwrap();
    };
    fill(0);
    let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
    let attached = Log::attach_read_only(storage, "/log".as_ref(), fixture.options()).unwrap();
    let refresh = || {
        let end = attached.visible_end(FetchIsolation::Visible);
        drop(attached.fetch(end, FetchLimits::default(), FetchIsolation::Visible, None).unwrap());
    };
    assert_eq!(read_all(&attached).len(), 60);
    fixture.compact();
    refresh();
    assert_eq!(read_all(&attached), fixture.read());
    fill(60);
    refresh();
    // Many become one, under the name of the first, and one is replaced by itself.
    fixture.compact();
    refresh();
    assert_eq!(read_all(&attached), fixture.read());
    fixture.put("0", Some("last"));
    fixture.seal();
    fixture.compact();
    fixture.clock.advance_ms(60);
    fixture.log.maintain().unwrap();
    refresh();
    assert_eq!(read_all(&attached), fixture.read());
    assert!(attached.verify(&mut |_| {}).unwrap().damage.is_empty());
}

#[test]
fn one_compaction_at_a_time_and_a_close_ends_it() {
    let fixture = Fixture::new(|config| config.segment_bytes = 300_000);
    for n in 0..300 {
        fixture.put(&format!("{}", n % 4), Some(&"x".repeat(1_000)));
    }
    fixture.seal();
    let log = fixture.log.clone();
    let mut others = Vec::new();
    let report = log.compact(&CompactionLimits::default(), &mut |_| {
        let other = fixture.log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(()));
        others.push(other.unwrap().outcome);
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().outcome, CompactionOutcome::Done);
    assert!(others.len() > 2 && others.iter().all(|outcome| *outcome == CompactionOutcome::Busy));

    for n in 0..300 {
        fixture.put(&format!("{}", n % 4), Some(&"x".repeat(1_000)));
    }
    fixture.seal();
    let (started, is_started) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| {
            log.compact(&CompactionLimits::default(), &mut |_| {
                let _ = started.send(());
                std::thread::sleep(std::time::Duration::from_millis(5));
                ControlFlow::Continue(())
            })
        });
        is_started.recv().unwrap();
        fixture.log.close().unwrap();
        assert_eq!(compaction.join().unwrap().unwrap().outcome, CompactionOutcome::Stopped);
    });
    let refused = log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(Error::Closed)));
    let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
    let log = Log::open(storage, "/log".as_ref(), fixture.options()).unwrap();
    assert_eq!(log.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(read_all(&log).last().unwrap().0, 599);
}

#[test]
fn what_a_truncation_or_a_deletion_has_changed_is_not_replaced() {
    // While the keys are read, while the first file is written, and later.
    for (is_truncation, most) in
        [true, false].into_iter().flat_map(|first| [5, 14, 16, 20].map(|most| (first, most)))
    {
        let fixture = Fixture::new(|config| config.segment_bytes = 200_000);
        for n in 0..800 {
            fixture.put(&format!("{}", n % 4), Some(&"x".repeat(1_000)));
        }
        fixture.seal();
        let log = &fixture.log;
        let mut calls = 0;
        let report = log.compact(&CompactionLimits::default(), &mut |_| {
            calls += 1;
            if calls == most {
                match is_truncation {
                    true => log.truncate_to(Offset::new(550)).unwrap(),
                    false => log.delete_records_before(Offset::new(550)).unwrap(),
                }
            }
            ControlFlow::Continue(())
        });
        assert!(calls >= most);
        assert_eq!(report.unwrap().outcome, CompactionOutcome::Overtaken);
        let offsets: Vec<_> = fixture.read().iter().map(|seen| seen.0).collect();
        let expected: Vec<_> = if is_truncation { (0..550).collect() } else { (550..800).collect() };
        assert_eq!(offsets, expected);
        assert!(fixture.files().iter().all(|name| name.ends_with(".log")));
        fixture.seal();
        assert_eq!(fixture.compact().outcome, CompactionOutcome::Done);
        let end = expected.last().unwrap() + 1;
        let offsets: Vec<_> = fixture.read().iter().map(|seen| seen.0).collect();
        assert_eq!(offsets, (end - 4..end).collect::<Vec<_>>());
    }
}
