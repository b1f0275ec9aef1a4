//! Compaction, rule by rule (K1 to K8), and against a model of any sequence of calls.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tailwater_log::storage::{OpenMode, SimDisk, Storage};
use tailwater_log::{
    CleanupPolicy, CompactionLimits, CompactionOutcome, CompactionReport, Durability, Error, FetchIsolation,
    FetchLimits, FilePosition, InvalidBatch, Log, LogConfig, LogOptions, ManualClock, NewRecord, Offset,
    OpaqueBatch, PartitionId, PartitionIdentity, RecoveryOutcome, Timestamp, TopicId, WhenFull,
};

const DELETE_RETENTION_MS: u64 = 1_000;

/// A record as a reader sees it: offset, key, value, create time, append time.
type Seen = (u64, Vec<u8>, Option<Vec<u8>>, i64, i64);

struct Fixture {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    config: LogConfig,
    log: Log,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut LogConfig)) -> Self {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(10_000)));
        let mut config = LogConfig::default();
        config.segment_bytes = 4096;
        config.staging_bytes = 4096;
        config.cleanup_policy = CleanupPolicy::Compact;
        config.delete_retention_ms = DELETE_RETENTION_MS;
        change(&mut config);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let log = Log::create(storage, "/log".as_ref(), options(&config, &clock)).unwrap();
        Self { disk, clock, config, log }
    }

    fn options(&self) -> LogOptions {
        options(&self.config, &self.clock)
    }

    fn put(&self, key: &str, value: Option<&str>) -> u64 {
        let record =
            NewRecord { key: Some(key.as_bytes()), value: value.map(str::as_bytes), ..NewRecord::default() };
        let receipt = self.log.append(&[record], None, WhenFull::Wait).unwrap();
        receipt.wait().unwrap().offsets.start.get()
    }

    /// Has everything appended so far in sealed segments.
    fn seal(&self) {
        self.log.roll().unwrap();
        self.log.sync().unwrap();
    }

    fn compact(&self) -> CompactionReport {
        self.compact_below(Offset::MAX)
    }

    fn compact_below(&self, held: Offset) -> CompactionReport {
        let mut limits = CompactionLimits::default();
        limits.held = held;
        self.log.compact(&limits, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    fn read(&self) -> Vec<Seen> {
        read_all(&self.log)
    }

    /// What a reader from the start finds, without times.
    fn content(&self) -> Vec<(u64, String, Option<String>)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        self.read().into_iter().map(|seen| (seen.0, text(seen.1), seen.2.map(text))).collect()
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .disk
            .list_directory(Path::new("/log"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name.into_string().unwrap())
            .filter(|name| name.ends_with(".log") || name.ends_with(".tmp"))
            .collect();
        names.sort_unstable();
        names
    }
}

fn options(config: &LogConfig, clock: &Arc<ManualClock>) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([6; 16]), partition: PartitionId::ZERO };
    LogOptions { config: config.clone(), clock: clock.clone(), ..LogOptions::new(identity) }
}

/// Reads from the log start to the end, in small steps; every step has to get on.
fn read_all(log: &Log) -> Vec<Seen> {
    let limits = FetchLimits { max_records: 3, max_bytes: 500 };
    let (mut from, mut hint, mut all) = (log.log_start_offset(), None, Vec::new());
    let end = log.visible_end(FetchIsolation::Visible);
    while from < end {
        let fetched = log.fetch(from, limits, FetchIsolation::Visible, hint).unwrap();
        all.extend(fetched.iter().map(|record| {
            (
                record.offset().get(),
                record.key().unwrap_or_default().to_vec(),
                record.value().map(<[u8]>::to_vec),
                record.created_at().as_millis(),
                record.appended_at().as_millis(),
            )
        }));
        assert!(fetched.next_offset() > from, "a fetch at {from} does not get on");
        (from, hint) = (fetched.next_offset(), fetched.hint());
    }
    assert_eq!(from, end);
    all
}

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
    for n in 0..400u32 {
        fixture.put(&format!("key {}", n % 130), Some(&n.to_string()));
    }
    fixture.seal();
    let report = fixture.compact();
    assert!(report.passes > 2, "more keys than fit into the map: {report:?}");
    let content = fixture.content();
    assert_eq!(content.len(), 130);
    assert!(content.iter().all(|(offset, key, value)| {
        *offset >= 270 && *key == format!("key {}", offset % 130) && *value == Some(offset.to_string())
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

#[derive(Clone, Debug)]
enum Step {
    /// Keys and values of one batch; no value is a tombstone.
    Append(Vec<(u8, Option<u16>)>, bool),
    Seal,
    Advance(u16),
    Compact {
        held: Option<u8>,
        stop_after: Option<u8>,
    },
    Truncate(u8),
    DeleteBefore(u8),
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0..12u8, proptest::option::weighted(0.75, 0..900u16));
    prop_oneof![
        6 => (proptest::collection::vec(record, 1..6), any::<bool>()).prop_map(|(records, alone)| Step::Append(records, alone)),
        3 => Just(Step::Seal),
        2 => (0..2_000u16).prop_map(Step::Advance),
        4 => (proptest::option::of(any::<u8>()), proptest::option::weighted(0.2, 0..4u8))
            .prop_map(|(held, stop_after)| Step::Compact { held, stop_after }),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::DeleteBefore),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

#[derive(Clone, Debug)]
struct ModelRecord {
    seen: Seen,
    /// A compaction may have removed it, in favour of a later one.
    may_be_superseded: bool,
    /// When a compaction first kept it as a tombstone.
    kept_at: Option<i64>,
    /// It is a tombstone that a compaction may have removed.
    may_be_deleted: bool,
}

/// What was appended, at its offset, and what compaction may have removed of it.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<ModelRecord>,
    start: usize,
}

impl Model {
    /// Notes that a compaction begins that may see everything below `end`.
    fn begin_compaction(&mut self, end: usize, now: i64, held: u64, lag_ms: i64) {
        let mut last = BTreeMap::new();
        for (offset, record) in self.records[..end].iter_mut().enumerate().rev() {
            if now - record.seen.4 < lag_ms {
                continue;
            }
            let key = record.seen.1.clone();
            let is_last = *last.entry(key).or_insert(offset) == offset;
            record.may_be_superseded |= !is_last;
            if record.seen.2.is_none() && is_last {
                let is_over = record.kept_at.is_some_and(|kept| now - kept >= DELETE_RETENTION_MS as i64);
                record.may_be_deleted |= is_over && (offset as u64) < held;
                record.kept_at.get_or_insert(now);
            }
        }
    }

    /// Compares what is found with what was appended.
    fn check(&self, found: &[Seen]) -> Result<(), TestCaseError> {
        let mut found = found.iter().peekable();
        for record in &self.records[self.start..] {
            if found.peek().is_some_and(|seen| seen.0 == record.seen.0) {
                // K2, K3: as it was appended.
                prop_assert_eq!(found.next(), Some(&record.seen));
            } else {
                // K1, K4 to K7: it is gone only if it may be.
                prop_assert!(record.may_be_superseded || record.may_be_deleted, "{:?} is missing", record);
            }
        }
        prop_assert_eq!(found.next(), None, "nothing else is there");
        Ok(())
    }

    /// Below `cleaned` each key is there once at most.
    fn check_cleaned(found: &[Seen], cleaned: u64) -> Result<(), TestCaseError> {
        let mut keys = BTreeMap::new();
        for seen in found.iter().filter(|seen| seen.0 < cleaned) {
            let other = keys.insert(seen.1.clone(), seen.0);
            prop_assert!(other.is_none(), "{:?} is at {:?} and {}, below {}", seen.1, other, seen.0, cleaned);
        }
        Ok(())
    }
}

fn run_model(steps: &[Step], lag_ms: u64, map_bytes: u32) -> Result<(), TestCaseError> {
    let mut fixture = Fixture::new(|config| {
        config.min_compaction_lag_ms = lag_ms;
        config.compaction_map_bytes = map_bytes;
    });
    let mut model = Model::default();
    for step in steps {
        fixture.clock.advance_ms(1);
        let now = tailwater_log::Clock::now(&*fixture.clock).as_millis();
        match step {
            Step::Append(records, alone) => {
                let values: Vec<_> = records
                    .iter()
                    .map(|(key, size)| {
                        let number = model.records.len();
                        let value =
                            size.map(|size| format!("{number} {}", "v".repeat(size.into())).into_bytes());
                        (format!("key {key}").into_bytes(), value)
                    })
                    .collect();
                let created = |n: usize| Timestamp::from_millis(now - 500 + 333 * n as i64);
                let new: Vec<_> = values
                    .iter()
                    .enumerate()
                    .map(|(n, (key, value))| NewRecord {
                        key: Some(key),
                        value: value.as_deref(),
                        created_at: Some(created(n)),
                        ..NewRecord::default()
                    })
                    .collect();
                for chunk in new.chunks(if *alone { 1 } else { new.len() }) {
                    let staged =
                        fixture.log.append(chunk, Some(Durability::Buffered), WhenFull::Wait).unwrap();
                    staged.wait().unwrap();
                }
                fixture.log.sync().unwrap();
                for (n, (key, value)) in values.into_iter().enumerate() {
                    let seen = (model.records.len() as u64, key, value, created(n).as_millis(), now);
                    let record =
                        ModelRecord { seen, may_be_superseded: false, kept_at: None, may_be_deleted: false };
                    model.records.push(record);
                }
            }
            Step::Seal => fixture.seal(),
            Step::Advance(ms) => fixture.clock.advance_ms((*ms).into()),
            Step::Compact { held, stop_after } => {
                let end = model.records.len();
                let held = held.map_or(u64::MAX >> 1, |held| u64::from(held) % (end as u64 + 1));
                model.begin_compaction(end, now, held, lag_ms as i64);
                let mut limits = CompactionLimits::default();
                limits.held = Offset::new(held);
                let mut left = stop_after.map(i32::from);
                let report = fixture.log.compact(&limits, &mut |_| match &mut left {
                    Some(0) => ControlFlow::Break(()),
                    Some(left) => {
                        *left -= 1;
                        ControlFlow::Continue(())
                    }
                    None => ControlFlow::Continue(()),
                });
                let report = report.unwrap();
                prop_assert!(report.left_alone.is_empty());
                if matches!(report.outcome, CompactionOutcome::Done | CompactionOutcome::Nothing) {
                    Model::check_cleaned(&fixture.read(), report.cleaned_end.get())?;
                }
            }
            Step::Truncate(at) => {
                let span = model.records.len() - model.start;
                let to = model.start + usize::from(*at) % (span + 1);
                fixture.log.truncate_to(Offset::new(to as u64)).unwrap();
                model.records.truncate(to);
            }
            Step::DeleteBefore(at) => {
                let span = model.records.len() - model.start;
                model.start += usize::from(*at) % (span / 3 + 1);
                fixture.log.delete_records_before(Offset::new(model.start as u64)).unwrap();
            }
            Step::Reopen | Step::Crash => {
                let is_crash = matches!(step, Step::Crash);
                let (disk, options) = (fixture.disk.clone(), fixture.options());
                if !is_crash {
                    fixture.log.close().unwrap();
                }
                fixture.disk = if is_crash { disk.crash(|_, _| false) } else { disk };
                let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
                fixture.log = Log::open(storage, "/log".as_ref(), options).unwrap();
            }
        }
        let found = fixture.read();
        prop_assert_eq!(fixture.log.log_end_offset().get() as usize, model.records.len());
        model.check(&found)?;
        // From any offset a reader comes to the same records.
        for from in (model.start..model.records.len()).step_by(5) {
            let limits = FetchLimits { max_records: 1, max_bytes: 1 };
            let from = Offset::new(from as u64);
            let fetched = fixture.log.fetch(from, limits, FetchIsolation::Visible, None).unwrap();
            let next = found.iter().find(|seen| seen.0 >= from.get()).map(|seen| seen.0);
            prop_assert_eq!(fetched.iter().next().map(|record| record.offset().get()), next);
        }
        // Where a time is asked for, no record that was appended since is missed.
        for seen in found.iter().step_by(7) {
            let offset = fixture.log.offset_for_time(Timestamp::from_millis(seen.4)).unwrap();
            prop_assert!(
                offset.is_some_and(|offset| offset.get() <= seen.0),
                "{:?} for {:?}",
                offset,
                seen.0
            );
        }
    }
    let report = fixture.log.verify(&mut |_| {}).unwrap();
    prop_assert!(report.damage.is_empty(), "{:?}", report.damage);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_keeps_what_has_to_be_kept(
        steps in proptest::collection::vec(step(), 1..40),
        lag_ms in prop_oneof![Just(0u64), Just(1_500)],
        map_bytes in prop_oneof![Just(1024u32), Just(1 << 20)],
    ) {
        run_model(&steps, lag_ms, map_bytes)?;
    }
}
