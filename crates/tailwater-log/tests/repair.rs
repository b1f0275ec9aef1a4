//! Repair: every kind of damage, what is left of the log afterwards, and that it can be interrupted anywhere.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{append, append_numbered, numbered, options};
use tailwater_log::error::CorruptionKind;
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Error, FetchIsolation, FetchLimits, Log, Offset, OffsetRange, RecoveryOutcome, RepairReport,
};

const RECORDS: u64 = 140;

fn log_path() -> &'static Path {
    Path::new("/log")
}

fn open(disk: &SimDisk) -> Result<Log, Error> {
    Log::open(Arc::new(disk.clone()), log_path(), options())
}

fn repair(disk: &SimDisk) -> Result<RepairReport, Error> {
    Log::repair(Arc::new(disk.clone()), log_path(), options())
}

/// A log of several sealed segments and an active one, each record in a batch of its own.
fn reference(is_closed: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = Log::create(Arc::new(disk.clone()), log_path(), options()).unwrap();
    append_numbered(&log, 0..RECORDS);
    log.maintain().unwrap();
    if is_closed {
        log.close().unwrap();
    }
    disk.kill()
}

fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| {
        path.parent() == Some(log_path()) && path.extension().is_some_and(|extension| extension == "log")
    };
    let mut files: Vec<_> = disk.file_paths().into_iter().filter(is_segment).collect();
    files.sort();
    files
}

fn quarantined_bytes(disk: &SimDisk) -> Vec<Vec<u8>> {
    let quarantine = log_path().join("quarantine");
    let files = disk.file_paths().into_iter().filter(|path| path.parent() == Some(&*quarantine));
    files.map(|path| disk.read_file(&path).unwrap()).collect()
}

fn base_of(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// What can be read, and what readers are told is lost, from the log start to its end.
fn content(log: &Log) -> (Vec<(u64, String)>, Vec<OffsetRange>) {
    let (mut records, mut lost) = (Vec::new(), Vec::<OffsetRange>::new());
    let mut from = log.log_start_offset();
    let end = log.log_end_offset();
    while from < end {
        let limits = FetchLimits { max_records: 7, max_bytes: 3000 };
        let fetched = log.fetch(from, limits, FetchIsolation::Visible, None).unwrap();
        lost.extend(fetched.lost());
        records.extend(fetched.iter().map(|record| {
            (record.offset().get(), String::from_utf8(record.value().unwrap().to_vec()).unwrap())
        }));
        assert!(fetched.next_offset() > from, "it moves on");
        from = fetched.next_offset();
    }
    (records, lost)
}

fn offsets(start: u64, end: u64) -> OffsetRange {
    OffsetRange { start: Offset::new(start), end: Offset::new(end) }
}

fn without(lost: &[OffsetRange]) -> Vec<(u64, String)> {
    let is_lost =
        |offset: u64| lost.iter().any(|range| (range.start.get()..range.end.get()).contains(&offset));
    numbered(0..RECORDS).into_iter().filter(|(offset, _)| !is_lost(*offset)).collect()
}

/// Repairs, and checks what is true after every repair. Returns the report.
fn repair_and_check(disk: &SimDisk, context: &str) -> RepairReport {
    let report = repair(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let log = open(disk).unwrap();
    assert_ne!(log.recovery_report().outcome, RecoveryOutcome::Corrupt, "{context}");
    assert_eq!(log.verify(&mut |_| {}).unwrap().damage, [], "{context}");
    let (records, lost) = content(&log);
    let start = log.log_start_offset();
    assert!(start == Offset::ZERO || report.lost[0].start == Offset::ZERO, "{context}");
    let told: Vec<_> = report.lost.iter().copied().filter(|range| range.start >= start).collect();
    let told_in_full = lost.iter().fold(Vec::<OffsetRange>::new(), |mut all, range| {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(*range),
        }
        all
    });
    assert_eq!(told_in_full, told, "{context}: readers are told what the report says");
    assert_eq!(log.verify(&mut |_| {}).unwrap().lost, told, "{context}");
    // Not `assert_eq`: a failure would print some hundred kilobytes.
    assert!(records == without(&report.lost), "{context}: what is not lost is as it was");
    let end = log.log_end_offset();
    assert_eq!(append(&log, "after the repair"), end, "{context}");
    log.close().unwrap();
    let again = repair(disk).unwrap();
    assert!(again.damage.is_empty() && again.quarantined.is_empty(), "{context}: it stays repaired");
    report
}

fn damage(disk: &SimDisk, path: &Path, at: usize, count: usize) {
    let mut bytes = disk.read_file(path).unwrap();
    bytes[at..at + count].iter_mut().for_each(|byte| *byte ^= 0xa5);
    disk.write_file(path, &bytes).unwrap();
}

fn remove(disk: &SimDisk, path: &Path) {
    disk.remove_file(path).unwrap();
    disk.sync_directory(log_path()).unwrap();
}

#[test]
fn a_log_without_damage_is_left_alone() {
    for is_closed in [true, false] {
        let disk = reference(is_closed);
        let before = disk.content_hash();
        let report = repair(&disk).unwrap();
        assert!(report.damage.is_empty() && report.lost.is_empty() && report.rewritten.is_empty());
        assert_eq!(disk.content_hash(), before);
    }
}

#[test]
fn a_damaged_batch_costs_its_own_records_and_its_bytes_are_kept() {
    for is_closed in [true, false] {
        for (index, path) in segment_files(&reference(is_closed)).iter().enumerate() {
            let disk = reference(is_closed);
            damage(&disk, path, 1024 + 70, 1);
            let damaged = disk.read_file(path).unwrap();
            let report = repair_and_check(&disk, &format!("segment {index}, closed: {is_closed}"));
            let base = base_of(path);
            assert_eq!(report.lost, [offsets(base, base + 1)]);
            assert_eq!(report.rewritten, std::slice::from_ref(path));
            assert!(matches!(report.damage[0].kind, CorruptionKind::ChecksumMismatch { .. }));
            let kept = quarantined_bytes(&disk);
            assert!(kept.iter().any(|bytes| damaged[1024..].starts_with(bytes) && bytes.len() > 70));
        }
    }
}

#[test]
fn a_segment_whose_header_is_gone_is_set_aside_whole() {
    for is_closed in [true, false] {
        let files = segment_files(&reference(is_closed));
        assert!(files.len() >= 4, "{files:?}");
        for (index, path) in files.iter().enumerate() {
            let disk = reference(is_closed);
            damage(&disk, path, 0, 600);
            let damaged = disk.read_file(path).unwrap();
            let context = format!("segment {index}, closed: {is_closed}");
            let is_end_known = is_closed || index + 1 < files.len();
            let report = match is_end_known {
                true => repair_and_check(&disk, &context),
                false => repair(&disk).unwrap(),
            };
            let end = match files.get(index + 1) {
                Some(next) => base_of(next),
                None if is_closed => RECORDS,
                // Nothing tells how many records there were.
                None => base_of(path) + 1,
            };
            assert_eq!(report.lost, [offsets(base_of(path), end)], "{context}");
            assert_eq!(
                content(&open(&disk).unwrap()).0.len() as u64,
                match is_end_known {
                    true => RECORDS + 1 - (end - base_of(path)),
                    false => base_of(path),
                }
            );
            assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
            assert_eq!(report.damage[0].kind, CorruptionKind::BadSegmentHeader);
            let trimmed = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0);
            let whole = &damaged[..=trimmed(&damaged).unwrap()];
            assert!(quarantined_bytes(&disk).iter().any(|bytes| bytes == whole), "{index}");
        }
    }
}

#[test]
fn a_missing_segment_is_a_gap() {
    let files = segment_files(&reference(true));
    for (index, path) in files.iter().enumerate() {
        let disk = reference(true);
        remove(&disk, path);
        let report = repair_and_check(&disk, &format!("segment {index}"));
        let end = files.get(index + 1).map_or(RECORDS, |next| base_of(next));
        assert_eq!(report.lost, [offsets(base_of(path), end)]);
    }
}

#[test]
fn a_log_without_any_segment_begins_anew_behind_all_that_it_gave_out() {
    for is_closed in [true, false] {
        let disk = reference(is_closed);
        segment_files(&disk).iter().for_each(|path| remove(&disk, path));
        let report = repair(&disk).unwrap();
        let log = open(&disk).unwrap();
        assert_eq!(content(&log), (Vec::new(), report.lost.clone()));
        // Only the checkpoint knows how far it went, and one that was not closed trails.
        if is_closed {
            assert_eq!(report.lost, [offsets(0, RECORDS)]);
            assert_eq!(log.log_end_offset().get(), RECORDS);
        }
        assert_eq!(report.damage.len(), 1);
        assert!(log.epoch().get() > 1);

        let disk = reference(is_closed);
        segment_files(&disk).iter().for_each(|path| damage(&disk, path, 0, 600));
        let last = base_of(segment_files(&disk).last().unwrap());
        let report = repair(&disk).unwrap();
        let log = open(&disk).unwrap();
        assert!(log.log_end_offset().get() > last);
        assert_eq!(report.lost, [OffsetRange { start: Offset::ZERO, end: log.log_end_offset() }]);
        assert_eq!(quarantined_bytes(&disk).len(), segment_files(&reference(true)).len());
        append(&log, "anew");
    }
}

#[test]
fn a_checkpoint_that_is_gone_as_well_is_no_hindrance() {
    let disk = reference(true);
    let files = segment_files(&disk);
    remove(&disk, &log_path().join("checkpoint"));
    damage(&disk, &files[1], 2000, 3);
    damage(&disk, &files[2], 0, 600);
    let report = repair_and_check(&disk, "no checkpoint");
    assert_eq!(report.damage.len(), 2);
}

#[test]
fn a_first_segment_is_called_lost_also_where_the_checkpoint_is_damaged() {
    // Without a whole checkpoint the lowest file tells where the log begins. One whose header was damaged did not count,
    // so the log began behind it, and what it had held was not called lost. Found by the fuzz target `edit_valid_log`.
    let checkpoint = log_path().join("checkpoint");
    for slot in [Some(0), Some(512), None] {
        let disk = reference(true);
        match slot {
            Some(at) => damage(&disk, &checkpoint, at + 70, 1),
            None => remove(&disk, &checkpoint),
        }
        let files = segment_files(&disk);
        damage(&disk, &files[0], 0, 600);
        let report = repair_and_check(&disk, &format!("slot at {slot:?}"));
        assert_eq!(report.lost, [offsets(0, base_of(&files[1]))], "slot at {slot:?}");
    }
}

#[test]
fn a_segment_of_another_partition_is_set_aside() {
    let other = SimDisk::new(2);
    let mut foreign = options();
    foreign.identity.partition = tailwater_log::PartitionId::new(3);
    let log = Log::create(Arc::new(other.clone()), log_path(), foreign).unwrap();
    append_numbered(&log, 0..3);
    log.close().unwrap();
    let bytes = other.read_file(&segment_files(&other)[0]).unwrap();

    let disk = reference(true);
    let path = &segment_files(&disk)[1];
    disk.write_file(path, &bytes).unwrap();
    let report = repair_and_check(&disk, "foreign");
    assert!(matches!(report.damage[0].kind, CorruptionKind::ForeignSegment { .. }), "{:?}", report.damage);
}

#[test]
fn a_lost_position_is_told_to_a_reader_wherever_it_begins() {
    let disk = reference(true);
    let path = &segment_files(&disk)[1];
    let base = base_of(path);
    damage(&disk, path, 0, 600);
    repair(&disk).unwrap();
    let log = open(&disk).unwrap();
    let fetch = |from| log.fetch(Offset::new(from), FetchLimits::default(), FetchIsolation::Visible, None);
    let before = fetch(base - 1).unwrap();
    assert_eq!((before.lost(), before.record_count(), before.next_offset().get()), (None, 1, base));
    let inside = fetch(base + 2).unwrap();
    assert_eq!(inside.lost().unwrap().start.get(), base + 2);
    assert_eq!(inside.iter().next().unwrap().offset(), inside.lost().unwrap().end);
}

#[test]
fn whatever_byte_is_damaged_a_repair_makes_the_log_whole() {
    let mut repairs = 0;
    let mut kinds = BTreeSet::new();
    for is_closed in [true, false] {
        let origin = reference(is_closed);
        for path in segment_files(&origin) {
            let length = origin.read_file(&path).unwrap().len().min(9000);
            // A step that hits every field of headers, records, footers and trailers sooner or later.
            for at in (0..length - 1).step_by(13) {
                let disk = origin.kill();
                damage(&disk, &path, at, 2);
                let context = format!("{} byte {at}, closed: {is_closed}", path.display());
                // What a torn tail cannot be told from is recovered, not repaired.
                let found = repair(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                let log = open(&disk).unwrap();
                assert_eq!(log.verify(&mut |_| {}).unwrap().damage, [], "{context}");
                let (records, _) = content(&log);
                let expected = without(&found.lost);
                if is_closed {
                    assert!(records == expected, "{context}");
                } else {
                    assert!(expected.starts_with(&records), "{context}");
                    assert!(records.len() + 2 >= expected.len(), "{context}");
                }
                assert!(found.lost.iter().map(|range| range.count()).sum::<u64>() <= 2, "{context}");
                repairs += u64::from(!found.damage.is_empty());
                kinds.extend(found.damage.iter().map(|damage| {
                    format!("{:?}", damage.kind.clone()).split_whitespace().next().map(str::to_owned)
                }));
            }
        }
    }
    assert!(repairs > 2_000, "{repairs}");
    assert!(kinds.len() >= 2, "{kinds:?}");
}

/// Three kinds of damage at once, so that a repair has several steps.
fn badly_damaged() -> (SimDisk, Vec<Vec<u8>>) {
    let disk = reference(true);
    let files = segment_files(&disk);
    damage(&disk, &files[0], 1024 + 70, 1);
    damage(&disk, &files[1], 0, 600);
    damage(&disk, &files[3], 1024, 200);
    let damaged = [0, 1, 3].map(|index| disk.read_file(&files[index]).unwrap());
    (disk.kill(), damaged.to_vec())
}

/// The damaged bytes themselves are in their old place or in `quarantine/`.
fn assert_nothing_is_gone(disk: &SimDisk, damaged: &[Vec<u8>], context: &str) {
    let kept = quarantined_bytes(disk);
    let files = segment_files(disk);
    for bytes in damaged {
        let is_in_place = files.iter().any(|path| disk.read_file(path).as_ref() == Some(bytes));
        let is_kept = kept
            .iter()
            .any(|kept| !kept.is_empty() && bytes.windows(kept.len()).any(|window| window == &kept[..]));
        assert!(is_in_place || is_kept, "{context}");
    }
}

#[test]
fn a_repair_can_be_interrupted_anywhere() {
    let (origin, damaged) = badly_damaged();
    let whole = origin.kill();
    let expected = repair_and_check(&whole, "uninterrupted").lost;
    assert_eq!(expected.len(), 3);
    let disk = origin.kill();
    let before = disk.operation_count();
    repair(&disk).unwrap();
    let operations = disk.operation_count() - before;
    assert!(operations > 40, "{operations}");
    let mut states = 0;
    for cut in 1..=operations {
        let disk = origin.kill();
        disk.cut_power_after(cut);
        let interrupted = repair(&disk);
        assert!(cut == operations || interrupted.is_err(), "cut after {cut} of {operations}");
        let pending = disk.pending();
        let one_each = (0..pending).flat_map(|chosen| [(chosen, true), (chosen, false)]);
        for (chosen, is_alone) in one_each.chain([(usize::MAX, true), (usize::MAX, false)]) {
            let crashed = disk.crash(|index, _| (index == chosen) == is_alone);
            let context = format!("cut after {cut} of {operations}, {chosen} alone: {is_alone}");
            assert_nothing_is_gone(&crashed, &damaged, &context);
            repair(&crashed).unwrap_or_else(|error| panic!("{context}: {error}"));
            let log = open(&crashed).unwrap();
            assert_eq!(log.verify(&mut |_| {}).unwrap().damage, [], "{context}");
            assert!(content(&log).0 == without(&expected), "{context}");
            assert_nothing_is_gone(&crashed, &damaged, &context);
            states += 1;
        }
    }
    assert!(states > 400, "{states}");
}

#[test]
fn a_repair_that_meets_an_error_can_be_repeated() {
    let (origin, damaged) = badly_damaged();
    let whole = origin.kill();
    let expected = repair_and_check(&whole, "uninterrupted").lost;
    for errno in [5, 28] {
        for is_lasting in [true, false] {
            let mut nth = 0;
            loop {
                nth += 1;
                let disk = origin.kill();
                disk.fail_nth(nth, errno, is_lasting);
                let failed = repair(&disk);
                disk.clear_faults();
                let context = format!("fault {errno} at {nth}, lasting: {is_lasting}");
                assert_nothing_is_gone(&disk, &damaged, &context);
                repair(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                let log = open(&disk).unwrap();
                assert!(content(&log).0 == without(&expected), "{context}");
                if failed.is_ok() && nth > 60 {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_log_that_is_in_use_is_not_repaired() {
    let disk = reference(true);
    let log = open(&disk).unwrap();
    assert!(matches!(repair(&disk), Err(Error::Locked(_))));
    drop(log);
    assert!(repair(&disk).is_ok());
}

// A file with a senseless name had a repair write batches without end.
#[test]
fn a_file_with_a_senseless_name_ends_no_repair() {
    let distant = log_path().join(format!("{:020}.log", 1_u64 << 62));
    // Without a header that can be used it is set aside.
    let disk = reference(true);
    disk.write_file(&distant, b"none of a segment's bytes").unwrap();
    let report = repair_and_check(&disk, "distant and damaged");
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    // If it is all there is, the log begins behind it.
    let disk = reference(true);
    segment_files(&disk).iter().for_each(|path| remove(&disk, path));
    disk.write_file(&distant, b"none of a segment's bytes").unwrap();
    repair(&disk).unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(log.log_start_offset(), log.log_end_offset());
    append(&log, "behind it");
    // A segment under a name far behind the end is no part of the log: its bytes are kept by the next open.
    let disk = reference(true);
    let files = segment_files(&disk);
    disk.write_file(&distant, &disk.read_file(&files[1]).unwrap()).unwrap();
    assert!(repair(&disk).unwrap().damage.is_empty());
    let log = open(&disk).unwrap();
    assert!(content(&log).0 == numbered(0..RECORDS));
    assert!(log.recovery_report().torn_tail.as_ref().is_some_and(|torn| !torn.quarantined.is_empty()));
}
