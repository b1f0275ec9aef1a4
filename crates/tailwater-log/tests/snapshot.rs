//! A durable prefix of a log that is copied while the log lives on.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{append, append_numbered, numbered, options, read_all, with};
use tailwater_log::storage::{OpenMode, SimDisk, Storage};
use tailwater_log::{
    Durability, Error, FilePosition, Log, LogSnapshot, NewRecord, Offset, RecoveryOutcome, WhenFull,
};

fn new_log(disk: &SimDisk) -> Log {
    Log::create(Arc::new(disk.clone()), Path::new("/log"), options()).unwrap()
}

/// Copies a snapshot into `directory` and opens that.
fn copy(disk: &SimDisk, snapshot: &LogSnapshot, directory: &str) -> Log {
    let directory = Path::new(directory);
    disk.create_directory(directory).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = disk.open_file(&directory.join(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, FilePosition::ZERO).unwrap();
    };
    for index in 0..snapshot.segment_count() {
        let segment = snapshot.segment(index).unwrap();
        let mut bytes = vec![0; segment.length_bytes as usize];
        assert_eq!(segment.file.read_full_at(&mut bytes, FilePosition::ZERO).unwrap(), bytes.len());
        write(&segment.name, &bytes);
    }
    write(LogSnapshot::CHECKPOINT_NAME, &snapshot.checkpoint());
    Log::open(Arc::new(disk.clone()), directory, options()).unwrap()
}

#[test]
fn a_copy_holds_just_what_was_durable_and_goes_its_own_way() {
    let disk = SimDisk::new(1);
    let log = new_log(&disk);
    append_numbered(&log, 0..100);
    log.append(&[NewRecord::new(b"not durable")], Some(Durability::Written), WhenFull::Wait)
        .unwrap()
        .wait()
        .unwrap();
    let snapshot = log.snapshot().unwrap();
    assert_eq!((snapshot.log_start_offset().get(), snapshot.durable_offset().get()), (0, 100));
    assert!(snapshot.segment_count() > 1 && !snapshot.is_outdated());
    append(&log, "later");
    let copied = copy(&disk, &snapshot, "/copy");
    assert_eq!(copied.recovery_report().outcome, RecoveryOutcome::Recovered);
    assert_eq!(read_all(&copied), numbered(0..100));
    assert!(copied.epoch() > snapshot.epoch());
    assert_eq!(copied.epoch_end(snapshot.epoch()).unwrap(), Offset::new(100));
    append(&copied, "of the copy");
    assert_eq!(log.log_end_offset(), Offset::new(102));
}

#[test]
fn at_every_moment_of_a_log_a_snapshot_is_its_durable_prefix() {
    // Also right behind a roll, when the new segment's name is not durable, and with rolled segments that have no footer yet.
    let disk = SimDisk::new(1);
    let log = Log::create(
        Arc::new(disk.clone()),
        Path::new("/log"),
        with(|config| {
            config.durability = Durability::Written;
            config.segment_bytes = 4096;
        }),
    )
    .unwrap();
    for (step, (_, value)) in numbered(0..40).iter().enumerate() {
        append(&log, value);
        match step % 9 {
            2 => drop(log.sync().unwrap()),
            4 => log.roll().unwrap(),
            6 => drop(log.maintain().unwrap()),
            _ => {}
        }
        if step == 20 {
            log.truncate_to(Offset::new(18)).unwrap();
            append(&log, &numbered(18..19)[0].1);
            append(&log, &numbered(19..20)[0].1);
            append(&log, &numbered(20..21)[0].1);
        }
        if step == 30 {
            log.delete_records_before(Offset::new(9)).unwrap();
        }
        let snapshot = log.snapshot().unwrap();
        assert_eq!(snapshot.durable_offset(), log.durable_offset());
        let copied = copy(&disk, &snapshot, &format!("/copy-{step}"));
        let (start, end) = (log.log_start_offset().get(), log.durable_offset().get());
        assert_eq!(read_all(&copied), numbered(start..end), "step {step}");
        assert_eq!(copied.log_end_offset().get(), end);
        assert!(copied.verify(&mut |_| {}).unwrap().damage.is_empty());
    }
}

#[test]
fn segments_that_were_removed_or_replaced_since_are_noticed() {
    for is_truncated in [true, false] {
        let disk = SimDisk::new(1);
        let log = new_log(&disk);
        append_numbered(&log, 0..100);
        log.roll().unwrap();
        append_numbered(&log, 100..101);
        let attached = Log::attach_read_only(Arc::new(disk.clone()), Path::new("/log"), options()).unwrap();
        let (snapshot, seen) = (log.snapshot().unwrap(), attached.snapshot().unwrap());
        assert!(!snapshot.is_outdated() && !seen.is_outdated());
        let last = snapshot.segment_count() - 1;
        // What is open stays what it was.
        let held = snapshot.segment(0).unwrap();
        let mut before = vec![0; held.length_bytes as usize];
        held.file.read_full_at(&mut before, FilePosition::ZERO).unwrap();
        if is_truncated {
            log.truncate_to(Offset::ZERO).unwrap();
            append_numbered(&log, 0..100);
        } else {
            log.delete_records_before(Offset::new(90)).unwrap();
        }
        assert!(snapshot.is_outdated() && seen.is_outdated());
        match snapshot.segment(0) {
            Err(Error::Corrupt(_)) => assert!(is_truncated),
            Err(error) if error.is_not_found() => assert!(!is_truncated),
            other => panic!("{other:?}"),
        }
        assert_eq!(snapshot.segment(last).is_ok(), !is_truncated);
        assert!(seen.segment(0).is_err());
        let mut after = vec![0; before.len()];
        held.file.read_full_at(&mut after, FilePosition::ZERO).unwrap();
        assert!(before == after);
        assert!(!log.snapshot().unwrap().is_outdated());
    }
}

#[test]
fn what_is_missing_from_a_copy_is_damage_and_no_torn_tail() {
    let disk = SimDisk::new(1);
    let log = new_log(&disk);
    append_numbered(&log, 0..60);
    let snapshot = log.snapshot().unwrap();
    drop(copy(&disk, &snapshot, "/copy"));
    // The same with the last bytes missing.
    let again = SimDisk::new(1);
    let log = new_log(&again);
    append_numbered(&log, 0..60);
    let snapshot = log.snapshot().unwrap();
    again.create_directory(Path::new("/cut")).unwrap();
    for index in 0..snapshot.segment_count() {
        let segment = snapshot.segment(index).unwrap();
        let is_last = index + 1 == snapshot.segment_count();
        let mut bytes = vec![0; segment.length_bytes as usize - if is_last { 100 } else { 0 }];
        segment.file.read_full_at(&mut bytes, FilePosition::ZERO).unwrap();
        again.write_file(&Path::new("/cut").join(&segment.name), &bytes).unwrap();
    }
    again.write_file(Path::new("/cut/checkpoint"), &snapshot.checkpoint()).unwrap();
    let cut = Log::open(Arc::new(again.clone()), Path::new("/cut"), options()).unwrap();
    assert_eq!(cut.recovery_report().outcome, RecoveryOutcome::Corrupt);
}

#[test]
fn beside_the_process_that_writes_what_is_recorded_is_copied() {
    let disk = SimDisk::new(1);
    let log = new_log(&disk);
    append_numbered(&log, 0..60);
    let attach = || Log::attach_read_only(Arc::new(disk.clone()), Path::new("/log"), options()).unwrap();
    let attached = attach();
    let snapshot = attached.snapshot().unwrap();
    // The mark of the last batch tells of those before it.
    assert_eq!(snapshot.durable_offset().get(), 59);
    assert_eq!(read_all(&copy(&disk, &snapshot, "/copy")), numbered(0..59));
    append_numbered(&log, 60..70);
    assert_eq!(attached.snapshot().unwrap().durable_offset().get(), 69);
    log.close().unwrap();
    for (name, attached) in [("/seen", attached), ("/anew", attach())] {
        let snapshot = attached.snapshot().unwrap();
        assert_eq!(read_all(&copy(&disk, &snapshot, name)), numbered(0..70), "{name}");
    }
}
