//! A lost or damaged catalog is rebuilt from the directories of partitions: what is found again, what is refused, and that it
//! can be interrupted anywhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod damaged;

use std::path::Path;
use std::sync::Arc;

use common::{Choices, DATA, partition};
use damaged::{
    State, files_in, goes_on, groups_log, is_kept, is_segment, open, path, positions, read, reference,
    repair_catalog, topics, truth, whole,
};
use tailwater::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{
    BrokerOptions, CatalogDamage, CatalogFault, ContradictionKind, Error, LeftOutReason, Message,
    PartitionId, RecoveryOutcome, TopicConfig, UnsupportedFeature,
};

/// The reference with its catalog damaged, or without it.
fn with_bad_catalog(is_missing: bool) -> SimDisk {
    let disk = reference();
    if is_missing {
        disk.remove_file(&path("catalog")).unwrap();
        disk.sync_directory(DATA.as_ref()).unwrap();
    } else {
        disk.flip_bit(&path("catalog"), 8 * 40 + 3).unwrap();
    }
    disk
}

fn rename(disk: &SimDisk, from: &str, to: &str) {
    disk.rename(&path(from), &path(to)).unwrap();
    disk.sync_directory(DATA.as_ref()).unwrap();
}

fn copy_directory(disk: &SimDisk, from: &str, to: &str) {
    disk.create_directory(&path(to)).unwrap();
    for (file, bytes) in files_in(disk, &path(from)) {
        disk.write_file(&path(to).join(file.file_name().unwrap()), &bytes).unwrap();
    }
    disk.sync_directory(DATA.as_ref()).unwrap();
}

fn remove_directory(disk: &SimDisk, name: &str) {
    files_in(disk, &path(name)).keys().for_each(|file| disk.remove_file(file).unwrap());
    disk.remove_directory(&path(name)).unwrap();
    disk.sync_directory(DATA.as_ref()).unwrap();
}

/// Makes the headers, or slots, of the files in a directory unreadable.
fn blind(disk: &SimDisk, name: &str) {
    for file in files_in(disk, &path(name)).keys() {
        [70, 8 * 512 + 70].into_iter().for_each(|bit| disk.flip_bit(file, bit).unwrap());
    }
}

/// Asserts that the catalog cannot be rebuilt, and that nothing is changed by the attempt but the lock file.
#[track_caller]
fn refused(disk: &SimDisk) -> Error {
    let before = disk.content_hash();
    let error = repair_catalog(disk).unwrap_err();
    assert_eq!(disk.content_hash(), before, "{error}");
    error
}

#[test]
fn a_sound_catalog_is_left_alone() {
    let disk = reference();
    let before = disk.content_hash();
    let report = repair_catalog(&disk).unwrap();
    assert_eq!((report.damage, report.topics.len(), report.quarantined.len()), (None, 0, 0));
    assert_eq!(disk.content_hash(), before);
}

#[test]
fn topics_records_and_positions_are_found_again() {
    let truth = truth(&reference());
    for is_missing in [true, false] {
        let disk = with_bad_catalog(is_missing);
        let refusal = open(&disk).unwrap_err();
        assert!(refusal.to_string().contains("tailwater repair"), "{refusal}");
        let damaged = disk.read_file(&path("catalog"));
        let report = repair_catalog(&disk).unwrap();
        match report.damage {
            Some(CatalogDamage::Missing) => assert!(is_missing && report.quarantined.is_empty()),
            Some(CatalogDamage::Damaged(CatalogFault::ChecksumMismatch { .. })) => {
                assert!(!is_missing && is_kept(&disk, &damaged.unwrap()));
                assert_eq!(report.quarantined.len(), 1);
            }
            other => panic!("{other:?}"),
        }
        let names: Vec<_> = report.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, ["__groups", "mails", "orders", "spare"]);
        let is_whole = |topic: &tailwater::RebuiltTopic| {
            topic.missing.is_empty() && topic.unreadable.is_empty() && !topic.is_being_deleted
        };
        assert!(report.topics.iter().all(is_whole) && report.left_out.is_empty(), "{report:?}");
        let broker = open(&disk).unwrap();
        assert_eq!(whole(&broker).unwrap(), truth);
        assert!(broker.stats().unknown_names.is_empty(), "the quarantine is Tailwater's own");
        // Its settings are lost, and can be given again.
        assert_eq!(broker.describe_topic("orders").unwrap().config, TopicConfig::new().partitions(2));
        broker.alter_topic("orders", &TopicConfig::new().segment_bytes(4096)).unwrap();
        goes_on(&disk, &broker).unwrap();
        assert_eq!(repair_catalog(&disk).unwrap().damage, None, "it stays repaired");
    }
}

#[test]
fn what_a_newer_version_wrote_is_not_touched() {
    let sealed = |disk: &SimDisk, name: &str| {
        let mut bytes = disk.read_file(&path("catalog")).unwrap();
        bytes[8] = 9;
        let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.write_file(&path(name), &bytes).unwrap();
    };
    let is_newer = |error: &Error| {
        matches!(
            error,
            Error::Unsupported { feature: UnsupportedFeature::Version(9), newest_supported: 1, .. }
        )
    };
    let disk = reference();
    sealed(&disk, "catalog");
    assert!(is_newer(&refused(&disk)));
    // What a newer version was about to put in the place of a damaged one.
    let disk = reference();
    sealed(&disk, "catalog.tmp");
    disk.flip_bit(&path("catalog"), 300).unwrap();
    disk.write_file(&path("LOCK"), &disk.read_file(&path("LOCK")).unwrap()).unwrap();
    assert!(is_newer(&repair_catalog(&disk).unwrap_err()));
    assert!(files_in(&disk, &path("quarantine")).is_empty());
    // A segment, or a checkpoint, of one.
    for (name, at) in [("00000000000000000000.log", 36), ("checkpoint", 44)] {
        let disk = with_bad_catalog(false);
        let file = path("mails-0").join(name);
        let mut bytes = disk.read_file(&file).unwrap();
        bytes[8] = 9;
        let length = if at == 36 { 64 } else { 512 };
        let crc = crc32fast::hash(&[&bytes[..at], &bytes[at + 4..length]].concat());
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        disk.write_file(&file, &bytes).unwrap();
        let error = refused(&disk);
        assert!(is_newer(&error), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn an_unfinished_catalog_that_verifies_is_kept_too() {
    let disk = reference();
    let settings = disk.read_file(&path("catalog")).unwrap();
    disk.write_file(&path("catalog.tmp"), &settings).unwrap();
    disk.write_file(&path("catalog"), b"none").unwrap();
    assert_eq!(repair_catalog(&disk).unwrap().quarantined.len(), 2);
    assert!(is_kept(&disk, &settings) && is_kept(&disk, b"none"));
    open(&disk).unwrap();
}

#[test]
fn a_catalog_of_absurd_length_is_damage() {
    let disk = reference();
    let file = disk.open_file(&path("catalog"), tailwater::storage::OpenMode::ReadWrite).unwrap();
    file.set_length((128 << 20) + 1).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, Error::CatalogDamaged { fault: CatalogFault::TooLong, .. }), "{error}");
    assert_eq!(repair_catalog(&disk).unwrap().damage, Some(CatalogDamage::Damaged(CatalogFault::TooLong)));
    assert_eq!(topics(&open(&disk).unwrap()).len(), 3);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let disk = SimDisk::new(1);
    assert!(matches!(repair_catalog(&disk), Err(Error::DirectoryMissing { .. })));
    disk.create_directory(DATA.as_ref()).unwrap();
    assert!(matches!(refused(&disk), Error::NotATailwaterDirectory { .. }), "empty");
    disk.write_file(&path("catalog"), b"some other program's catalog of things").unwrap();
    assert!(matches!(refused(&disk), Error::NotATailwaterDirectory { .. }));
    disk.create_directory(&path("model-1")).unwrap();
    disk.write_file(&path("model-1/checkpoint"), b"weights").unwrap();
    assert!(matches!(refused(&disk), Error::NotATailwaterDirectory { .. }));
    assert_eq!(disk.file_paths().len(), 2);
}

#[test]
fn a_directory_in_use_is_not_repaired() {
    let disk = reference();
    let broker = open(&disk).unwrap();
    disk.flip_bit(&path("catalog"), 300).unwrap();
    assert!(matches!(refused(&disk), Error::Locked(_)));
    broker.close().unwrap();
    assert!(repair_catalog(&disk).unwrap().damage.is_some());
}

#[test]
fn a_partition_that_cannot_be_read_is_found_by_its_name() {
    let truth = truth(&reference());
    let disk = with_bad_catalog(true);
    blind(&disk, "orders-1");
    let report = repair_catalog(&disk).unwrap();
    let orders = &report.topics[2];
    assert_eq!((&*orders.name, orders.partition_count), ("orders", 2));
    assert_eq!(orders.unreadable, [PartitionId::new(1)]);
    let broker = open(&disk).unwrap();
    assert_eq!(
        read(&broker, &partition("orders", 0)).unwrap().records,
        truth.records[&partition("orders", 0)]
    );
    let orders = partition("orders", 1);
    let outcome = broker.embedded().unwrap().recovery_report(&orders).unwrap().outcome;
    assert_eq!(outcome, RecoveryOutcome::Corrupt);
    let message = Message::new(b"new").partition(PartitionId::new(1));
    let published = broker.producer("orders").unwrap().publish(message);
    assert!(matches!(published, Err(Error::Corrupt(_))), "{published:?}");
    let repaired = broker.embedded().unwrap().repair(&orders).unwrap();
    assert_eq!((repaired.damage.len(), repaired.quarantined.len()), (1, 1));
    goes_on(&disk, &broker).unwrap();
}

#[test]
fn a_missing_partition_is_a_gap_that_a_repair_fills() {
    let truth = truth(&reference());
    let disk = with_bad_catalog(true);
    remove_directory(&disk, "orders-0");
    let report = repair_catalog(&disk).unwrap();
    assert_eq!(report.topics[2].missing, [PartitionId::ZERO]);
    let broker = open(&disk).unwrap();
    let orders = partition("orders", 0);
    assert!(matches!(read(&broker, &orders), Err(Error::Io { .. })), "aloud");
    let repaired = broker.embedded().unwrap().repair(&orders).unwrap();
    assert_eq!(repaired.damage.len(), 1, "{repaired:?}");
    assert!(read(&broker, &orders).unwrap().records.is_empty());
    // Who was in it is told that what it read is not there.
    assert_eq!(positions(&broker).unwrap(), truth.positions);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let records = billing.poll(std::time::Duration::ZERO).unwrap();
    let is_told = |event: &tailwater::Event| matches!(event, tailwater::Event::Diverged { partition, .. } if **partition == orders);
    assert!(records.events().iter().any(is_told), "{:?}", records.events());
    billing.close().unwrap();
    goes_on(&disk, &broker).unwrap();
}

#[test]
fn a_missing_partition_is_repaired_beside_a_sound_catalog_too() {
    let disk = reference();
    remove_directory(&disk, "mails-0");
    let broker = open(&disk).unwrap();
    let mails = partition("mails", 0);
    assert!(matches!(read(&broker, &mails), Err(Error::Io { .. })), "aloud");
    assert_eq!(broker.embedded().unwrap().repair(&mails).unwrap().damage.len(), 1);
    goes_on(&disk, &broker).unwrap();
}

#[test]
fn a_groups_log_that_is_lost_or_cannot_be_read_begins_anew() {
    for is_missing in [true, false] {
        let disk = with_bad_catalog(true);
        match is_missing {
            true => remove_directory(&disk, "__groups-0"),
            false => blind(&disk, "__groups-0"),
        }
        let report = repair_catalog(&disk).unwrap();
        let groups = &report.topics[0];
        assert_eq!(
            (groups.missing.len(), groups.unreadable.len()),
            (usize::from(is_missing), usize::from(!is_missing))
        );
        let broker = open(&disk).unwrap();
        assert!(broker.groups().is_err(), "never as if there were none");
        assert!(broker.consumer("billing").subscribe(&["orders"]).is_err());
        let repaired = broker.embedded().unwrap().repair(&groups_log()).unwrap();
        assert_eq!(repaired.damage.len(), 1, "{repaired:?}");
        assert!(broker.groups().unwrap().is_empty());
        goes_on(&disk, &broker).unwrap();
    }
}

#[test]
fn what_tells_no_topic_is_left_alone_and_told() {
    let disk = with_bad_catalog(true);
    blind(&disk, "mails-0");
    disk.create_directory(&path("notes")).unwrap();
    // What an interrupted creation left.
    disk.create_directory(&path("orders-7")).unwrap();
    let before = files_in(&disk, &path("mails-0"));
    let report = repair_catalog(&disk).unwrap();
    let left: Vec<_> =
        report.left_out.iter().map(|left| (left.name.to_str().unwrap(), left.reason)).collect();
    let expected = [
        ("mails-0", LeftOutReason::UnknownTopic),
        ("notes", LeftOutReason::Foreign),
        ("orders-7", LeftOutReason::Empty),
    ];
    assert_eq!(left, expected);
    let broker = open(&disk).unwrap();
    assert_eq!(broker.stats().unknown_names, ["mails-0", "notes", "orders-7"]);
    assert_eq!(broker.describe_topic("orders").unwrap().partition_count, 2);
    assert!(matches!(
        broker.create_topic("mails", &TopicConfig::new()),
        Err(Error::DirectoryInTheWay { .. })
    ));
    assert_eq!(files_in(&disk, &path("mails-0")), before);
    goes_on(&disk, &broker).unwrap();
}

#[test]
fn directories_that_contradict_each_other_are_refused_until_one_is_moved() {
    let truth = truth(&reference());
    let disk = with_bad_catalog(false);
    copy_directory(&disk, "orders-0", "backup-0");
    let error = refused(&disk);
    let Error::ContradictingDirectories(found) = &error else { panic!("{error}") };
    assert_eq!((&found.first, &found.second), (&path("backup-0"), &path("orders-0")));
    assert_eq!(found.kind, ContradictionKind::TwoNamesOfOneTopic);
    assert!(error.to_string().contains("move what does not belong here elsewhere"), "{error}");
    disk.create_directory(Path::new("/elsewhere")).unwrap();
    disk.rename(&path("backup-0"), Path::new("/elsewhere/backup-0")).unwrap();
    repair_catalog(&disk).unwrap();
    assert_eq!(whole(&open(&disk).unwrap()).unwrap(), truth);

    let disk = with_bad_catalog(false);
    rename(&disk, "mails-0", "orders-2");
    let Error::WrongPartition { found, expected, .. } = refused(&disk) else { panic!("of another number") };
    assert_eq!((found.partition, expected.partition), (PartitionId::ZERO, PartitionId::new(2)));
    remove_directory(&disk, "orders-0");
    rename(&disk, "orders-2", "orders-0");
    let Error::ContradictingDirectories(found) = refused(&disk) else { panic!("of two topics") };
    assert_eq!(found.kind, ContradictionKind::OneNameOfTwoTopics);
}

#[test]
fn a_deletion_that_was_interrupted_is_finished_behind_the_repair() {
    let truth = truth(&reference());
    let disk = with_bad_catalog(true);
    let id = truth.topics["orders"].0;
    rename(&disk, "orders-0", &format!("{id}-0.deleted"));
    let report = repair_catalog(&disk).unwrap();
    assert!(report.topics[2].is_being_deleted, "{report:?}");
    let broker = open(&disk).unwrap();
    assert_eq!(broker.topics().unwrap(), ["mails", "spare"]);
    assert!(files_in(&disk, &path("orders-1")).is_empty());
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    goes_on(&disk, &broker).unwrap();
}

#[test]
fn a_directory_without_topics_is_repaired() {
    let disk = SimDisk::new(1);
    BrokerOptions::new().open_on(Arc::new(disk.clone()), DATA).unwrap().close().unwrap();
    let id = disk.read_file(&path("catalog")).unwrap()[28..44].to_vec();
    disk.write_file(&path("catalog"), b"x").unwrap();
    let report = repair_catalog(&disk).unwrap();
    assert_eq!(report.topics.len(), 1);
    assert_eq!(report.topics[0].id.as_bytes()[..], id);
    open(&disk).unwrap().create_topic("orders", &TopicConfig::new()).unwrap();
}

#[test]
fn a_groups_log_whose_segments_are_gone_is_not_taken_for_a_new_directory() {
    // The checkpoint alone was taken for what an interrupted creation leaves. With the catalog missing too, the directory
    // was taken for a new one, and the groups were gone without a word.
    let disk = SimDisk::new(1);
    let broker = BrokerOptions::new().open_on(Arc::new(disk.clone()), DATA).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    broker.create_group("billing", &["orders"], tailwater::Reset::Latest).unwrap();
    broker.delete_topic("orders").unwrap();
    broker.close().unwrap();
    let gone = disk.file_paths().into_iter().filter(|file| is_segment(file) || file.ends_with("catalog"));
    gone.for_each(|file| disk.remove_file(&file).unwrap());
    let opened = BrokerOptions::new().open_on(Arc::new(disk.clone()), DATA);
    assert!(matches!(opened, Err(Error::CatalogMissing { .. })), "{opened:?}");
    repair_catalog(&disk).unwrap();
    let broker = open(&disk).unwrap();
    assert!(broker.groups().is_err());
    broker.embedded().unwrap().repair(&groups_log()).unwrap();
    assert!(broker.groups().unwrap().is_empty());
}

/// A directory that lost more than its catalog, so that the repair has many steps; and what it has to come to.
fn badly_damaged() -> (SimDisk, Vec<u8>, State) {
    let disk = reference();
    let mut expected = truth(&disk);
    let id = expected.topics["spare"].0;
    // Half deleted: the next open finishes that.
    rename(&disk, "spare-0", &format!("{id}-0.deleted"));
    expected.topics.remove("spare");
    expected.records.remove(&partition("spare", 0));
    disk.create_directory(&path("orders-7")).unwrap();
    disk.sync_directory(DATA.as_ref()).unwrap();
    disk.flip_bit(&path("catalog"), 300).unwrap();
    let damaged = disk.read_file(&path("catalog")).unwrap();
    disk.write_file(&path("catalog.tmp"), b"unfinished").unwrap();
    (disk, damaged, expected)
}

#[track_caller]
fn assert_is_repaired(disk: &SimDisk, damaged: &[u8], expected: &State, context: &str) {
    let is_in_place = disk.read_file(&path("catalog")).is_some_and(|bytes| bytes == damaged);
    assert!(is_in_place || is_kept(disk, damaged), "{context}: the damaged catalog is gone");
    repair_catalog(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(is_kept(&disk.crash(|_, _| false), damaged), "{context}: the damaged catalog is gone");
    let broker = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(whole(&broker).as_ref() == Ok(expected), "{context}: {:?}", topics(&broker));
    // It is durable: what comes from here on can rely on it.
    let again = open(&disk.crash(|_, _| false)).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(topics(&again), expected.topics, "{context}");
}

#[test]
fn a_repair_can_be_cut_off_anywhere() {
    let (origin, damaged, expected) = badly_damaged();
    let mut choices = Choices(0x5eed);
    let disk = origin.kill();
    let before = disk.operation_count();
    repair_catalog(&disk).unwrap();
    let operations = disk.operation_count() - before;
    let mut states = 0;
    for cut in 1..=operations {
        let disk = origin.kill();
        disk.cut_power_after(cut);
        let interrupted = repair_catalog(&disk);
        assert!(cut == operations || interrupted.is_err(), "cut after {cut} of {operations}");
        let pending = disk.pending();
        let mut ways: Vec<Vec<bool>> = vec![vec![false; pending], vec![true; pending]];
        for chosen in 0..pending {
            ways.push((0..pending).map(|index| index == chosen).collect());
            ways.push((0..pending).map(|index| index != chosen).collect());
        }
        ways.extend((0..8).map(|_| (0..pending).map(|_| choices.next() >> 63 == 0).collect()));
        for way in ways {
            let crashed = disk.crash(|index, _| way[index]);
            let context = format!("cut after {cut} of {operations}, {way:?} survives");
            // The second attempt is cut off as well, before one gets through.
            let again = crashed.snapshot();
            again.cut_power_after(choices.next() % operations);
            drop(repair_catalog(&again));
            let again = again.crash(|_, _| choices.next() >> 63 == 0);
            assert_is_repaired(&again, &damaged, &expected, &context);
            assert_is_repaired(&crashed, &damaged, &expected, &context);
            states += 2;
        }
    }
    println!("{operations} operations, {states} states");
    assert!(operations > 12 && states > 400, "{operations} operations, {states} states");
}

#[test]
fn a_repair_that_meets_an_error_can_be_repeated() {
    let (origin, damaged, expected) = badly_damaged();
    let mut faults = 0;
    for target in [FaultTarget::Changes, FaultTarget::Opens, FaultTarget::Reads, FaultTarget::Syncs] {
        for action in [
            FaultAction::Errno(5),
            FaultAction::Errno(28),
            FaultAction::TornWrite(5),
            FaultAction::ShortWrite,
        ] {
            for is_lasting in [true, false] {
                for nth in 1.. {
                    let disk = origin.kill();
                    disk.plan_fault(Fault { target, nth, action, is_lasting });
                    let failed = repair_catalog(&disk);
                    let context = format!("{target:?} {nth} {action:?}, lasting: {is_lasting}: {failed:?}");
                    disk.clear_faults();
                    if let Err(error) = &failed {
                        faults += 1;
                        assert!(matches!(error, Error::Io { .. } | Error::DiskFull { .. }), "{context}");
                    }
                    // After a directory could not be synced, only a restart makes sure of its names.
                    let has_restarted = disk.crash(|_, _| true);
                    assert_is_repaired(&has_restarted, &damaged, &expected, &context);
                    let nothing_survived = disk.crash(|_, _| false);
                    assert_is_repaired(&nothing_survived, &damaged, &expected, &context);
                    if failed.is_ok() && nth > 40 {
                        break;
                    }
                }
            }
        }
    }
    println!("{faults} faults");
    assert!(faults > 100, "{faults}");
}

#[test]
fn what_a_failed_repair_left_named_is_not_relied_on() {
    // Every sync fails once; the same process repairs again, and then the power goes.
    let (origin, damaged, expected) = badly_damaged();
    let mut repeated = 0;
    for nth in 1.. {
        let disk = origin.kill();
        disk.plan_fault(Fault {
            target: FaultTarget::Syncs,
            nth,
            action: FaultAction::Errno(5),
            is_lasting: false,
        });
        if repair_catalog(&disk).is_ok() {
            break;
        }
        repeated += 1;
        let again = repair_catalog(&disk).unwrap();
        let disk = disk.crash(|_, _| false);
        let context = format!("sync {nth} failed");
        if again.damage.is_some() {
            assert!(is_kept(&disk, &damaged), "{context}");
            assert_eq!(topics(&open(&disk).unwrap()), expected.topics, "{context}");
        } else {
            assert_is_repaired(&disk, &damaged, &expected, &context);
        }
    }
    assert!(repeated > 5, "{repeated}");
}
