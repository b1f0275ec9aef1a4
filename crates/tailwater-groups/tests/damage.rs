//! What cannot be read is an error, never a store without the positions it holds.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{DIRECTORY, attach, commit, group, log_options, open, open_log, partition, state_of};
use tailwater_groups::format::{Entry, EntryDamage, StoredPosition};
use tailwater_groups::{Error, GroupStore};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{Error as LogError, Log, NewRecord, Offset, OpaqueBatch, Timestamp, WhenFull};

/// A log with a good entry or two, then what `append` adds, closed.
fn disk_with(append: impl FnOnce(&Log)) -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    drop(store.set_positions(&group("billing"), &[commit(partition(1, 0), 5)]).unwrap());
    append(store.log());
    store.log().close().unwrap();
    disk
}

fn append_record(log: &Log, key: Option<&[u8]>, value: Option<&[u8]>) {
    let record = NewRecord { key, value, ..NewRecord::default() };
    drop(log.append(&[record], None, WhenFull::Wait).unwrap());
}

/// The error of an open, which must be that of an attached reader too.
fn error_of(disk: &SimDisk) -> Error {
    let (error, seen) = (open(disk).unwrap_err(), attach(disk).unwrap_err());
    // Seen from outside, entries that are missing may be entries that are not shown yet.
    let is_pending = matches!((&error, &seen), (Error::IncompleteLog { .. }, Error::RecoveryPending { .. }));
    assert!(is_pending || seen.to_string() == error.to_string(), "{seen}, not {error}");
    error
}

#[test]
fn an_entry_that_does_not_parse_is_reported_with_its_offset() {
    let damage_of = |disk: &SimDisk| match error_of(disk) {
        Error::DamagedEntry { offset, damage } => (offset.get(), damage),
        other => panic!("{other:?}"),
    };
    let no_key = disk_with(|log| append_record(log, None, Some(b"x")));
    assert_eq!(damage_of(&no_key), (2, EntryDamage::NoKey));
    let no_group = disk_with(|log| append_record(log, Some(&[1, 1, 0]), None));
    assert_eq!(damage_of(&no_group), (2, EntryDamage::Key { at: 3 }));
    let short = disk_with(|log| append_record(log, Some(&[1, 1, 1, b'g']), Some(&[1, 1, 0])));
    assert_eq!(damage_of(&short), (2, EntryDamage::Value { at: 2 }));
    let opaque = disk_with(|log| {
        let batch = OpaqueBatch { body: b"sealed", offset_count: 3, created_at: None };
        drop(log.append_opaque(&batch, None, WhenFull::Wait).unwrap());
    });
    assert_eq!(damage_of(&opaque), (2, EntryDamage::Opaque));
}

#[test]
fn an_entry_of_a_newer_version_is_refused_and_left_alone() {
    let disk = disk_with(|log| append_record(log, Some(&[9, 4, 0]), Some(b"?")));
    let before = disk.content_hash();
    match error_of(&disk) {
        Error::UnsupportedEntry { offset, entry_type, version } => {
            assert_eq!((offset.get(), entry_type, version), (2, 9, 4));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.content_hash(), before);
}

#[test]
fn a_position_without_a_registered_group_is_damage() {
    let value = StoredPosition {
        position: common::position(3),
        committed_at: Timestamp::from_millis(0),
        metadata: "",
    };
    let disk = disk_with(|log| {
        let entry = Entry::Position { group: "lost", partition: partition(1, 0), value: Some(value) };
        let (mut key, mut bytes) = (Vec::new(), Vec::new());
        entry.encode_key(&mut key);
        assert!(entry.encode_value(&mut bytes));
        append_record(log, Some(&key), Some(&bytes));
    });
    match error_of(&disk) {
        Error::DamagedEntry { offset, damage: EntryDamage::Unregistered } => assert_eq!(offset.get(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_that_lost_its_beginning_is_not_taken_for_one_with_fewer_positions() {
    let disk = disk_with(|log| {
        log.roll().unwrap();
        append_record(log, Some(&[1, 1, 1, b'g']), Some(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]));
        log.delete_records_before(Offset::new(2)).unwrap();
    });
    match error_of(&disk) {
        Error::IncompleteLog { log_start_offset } => assert_eq!(log_start_offset.get(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_whose_first_segment_is_missing_is_an_error() {
    let disk = disk_with(|log| {
        log.roll().unwrap();
        append_record(log, Some(&[1, 1, 1, b'g']), Some(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]));
    });
    let first: PathBuf = [DIRECTORY, "00000000000000000000.log"].iter().collect();
    disk.remove_file(&first).unwrap();
    assert!(matches!(open(&disk), Err(Error::Log(LogError::Corrupt(_)))));
    // Nor if what would tell is lost too.
    disk.remove_file(&[DIRECTORY, "checkpoint"].iter().collect::<PathBuf>()).unwrap();
    assert!(matches!(open(&disk), Err(Error::IncompleteLog { .. })));
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_or_changes_nothing() {
    let whole = SimDisk::new(1);
    let store = open(&whole).unwrap();
    for number in 0..12 {
        let name = ["billing", "shipping"][number % 2];
        let at = partition(1, u32::try_from(number).unwrap());
        drop(store.set_positions(&group(name), &[commit(at, 7)]).unwrap());
        if number == 5 {
            store.log().roll().unwrap();
        }
    }
    let expected = state_of(&store);
    store.log().close().unwrap();
    drop(store);
    let (mut errors, mut same) = (0, 0);
    for path in whole.file_paths() {
        // Behind the data is reserved space only.
        let length = whole.read_file(&path).unwrap().len().min(3000) as u64;
        for byte in 0..length {
            let disk = whole.crash(|_, _| true);
            disk.flip_bit(&path, byte * 8 + byte % 8).unwrap();
            match open(&disk) {
                Ok(store) => {
                    assert_eq!(state_of(&store), expected, "{} byte {byte}", path.display());
                    same += 1;
                }
                Err(Error::Log(LogError::Corrupt(_) | LogError::Unsupported { .. })) => errors += 1,
                Err(other) => panic!("{} byte {byte}: {other}", path.display()),
            }
        }
    }
    assert!(errors > 500 && same > 500, "{errors} errors, {same} the same");
}

#[test]
fn a_disk_that_fails_is_an_error_and_the_next_open_finds_everything() {
    let disk = disk_with(|_| {});
    let log = open_log(&disk).unwrap();
    let fault = tailwater_log::storage::sim::Fault {
        target: tailwater_log::storage::sim::FaultTarget::Reads,
        nth: 1,
        action: tailwater_log::storage::sim::FaultAction::Errno(5),
        is_lasting: true,
    };
    disk.plan_fault(fault);
    let refused = GroupStore::open(log, common::clock());
    assert!(matches!(refused, Err(Error::Log(LogError::Io { .. }))), "{refused:?}");
    disk.clear_faults();
    assert_eq!(state_of(&open(&disk).unwrap()).len(), 1);
}

#[test]
fn opening_writes_nothing() {
    let disk = disk_with(|_| {});
    let log = Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), log_options()).unwrap();
    let before = disk.operation_count();
    let store = GroupStore::open(log, common::clock()).unwrap();
    assert_eq!((store.groups().len(), disk.operation_count()), (1, before));
}
