//! Backups of a directory that is in use: consistent, whole or absent, restored by opening them, and nothing to the source.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Choices, DATA, open, partition};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{
    BackupOptions, BackupProblemKind, Broker, BrokerOptions, Error, Event, Maintenance, Message, Offset,
    OffsetRange, PartitionId, Reset, SeekTo, TopicConfig,
};

const COPY: &str = "/backups/copy";

fn small() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096).staging_bytes(4096)
}

fn shared(disk: &SimDisk) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

fn open_at(disk: &SimDisk, directory: impl Into<PathBuf>) -> Broker {
    BrokerOptions::new().maintenance(Maintenance::Manual).open_on(shared(disk), directory).unwrap()
}

fn value(n: u64) -> String {
    format!("{n} {}", "x".repeat(usize::try_from(n * 7 % 300).unwrap()))
}

fn publish(broker: &Broker, number: u32, range: std::ops::Range<u64>) {
    let orders = broker.producer("orders").unwrap();
    let send = |n: u64| {
        let value = value(n);
        orders.send(Message::new(value.as_bytes()).partition(PartitionId::new(number))).unwrap()
    };
    let receipts: Vec<_> = range.map(send).collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
}

/// The values of a partition, from its start.
fn values(broker: &Broker, number: u32) -> Vec<String> {
    let place = partition("orders", number);
    let mut reader = broker.reader().reset(Reset::Earliest).assign(&[place]).unwrap();
    let mut values = Vec::new();
    loop {
        let records = reader.poll(Duration::ZERO).unwrap();
        if records.is_empty() && records.events().is_empty() {
            return values;
        }
        values.extend(
            records.iter().map(|record| String::from_utf8(record.value().unwrap().to_vec()).unwrap()),
        );
    }
}

fn numbered(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(value).collect()
}

/// Two partitions with several segments each, some of them sealed, and a group that has committed.
fn filled(disk: &SimDisk) -> Broker {
    let broker = open(disk).unwrap();
    broker.create_topic("orders", &small().partitions(2)).unwrap();
    publish(&broker, 0, 0..60);
    publish(&broker, 1, 0..10);
    broker.run_maintenance_once().unwrap();
    commit(&broker, 40);
    broker
}

fn commit(broker: &Broker, offset: u64) {
    let place = partition("orders", 0);
    let mut billing = broker.consumer("billing").assign(std::slice::from_ref(&place)).unwrap();
    billing.seek(&place, SeekTo::Offset(Offset::new(offset))).unwrap();
    billing.commit().wait().unwrap();
}

fn committed(broker: &Broker) -> Option<u64> {
    let group = broker.describe_group("billing").ok()?;
    group
        .positions
        .iter()
        .find(|position| position.partition == partition("orders", 0))
        .map(|position| position.committed.offset.get())
}

/// All files in a directory, with what is in them.
fn files(disk: &SimDisk, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let inside = disk.file_paths().into_iter().filter(|path| path.starts_with(directory));
    inside.map(|path| (path.clone(), disk.read_file(&path).unwrap())).collect()
}

fn check(disk: &SimDisk, directory: &str) -> Vec<(PathBuf, BackupProblemKind)> {
    let found = Broker::check_backup_on(&shared(disk), directory, &mut |_| {}).unwrap().unwrap();
    found.problems.into_iter().map(|problem| (problem.path, problem.kind)).collect()
}

#[test]
fn a_backup_is_a_directory_that_is_opened_as_any_other() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let report = broker.embedded().unwrap().backup_to(COPY).unwrap();
    assert_eq!(report.partitions, 3);
    assert!(report.linked_files >= 2 && report.reused_files == 0, "{report:?}");
    assert!(report.copied_bytes < report.size_bytes, "{report:?}");
    assert_eq!(check(&disk, COPY), []);
    // What comes later is in the source alone.
    publish(&broker, 0, 60..70);
    commit(&broker, 65);

    let before = files(&disk, DATA);
    let copy = open_at(&disk, COPY);
    assert_eq!(copy.describe_topic("orders").unwrap().id, broker.describe_topic("orders").unwrap().id);
    assert_eq!((values(&copy, 0), values(&copy, 1)), (numbered(0..60), numbered(0..10)));
    assert_eq!(committed(&copy), Some(40));
    // It is no backup any more, and goes its own way.
    assert!(Broker::check_backup_on(&shared(&disk), COPY, &mut |_| {}).unwrap().is_none());
    publish(&copy, 0, 500..540);
    copy.embedded().unwrap().truncate_to(&partition("orders", 0), Offset::new(20)).unwrap();
    copy.embedded().unwrap().delete_records_before(&partition("orders", 0), Offset::new(10)).unwrap();
    copy.embedded().unwrap().verify(&partition("orders", 0), &mut |_| {}).unwrap();
    copy.close().unwrap();
    assert!(files(&disk, DATA) == before, "the source has the same bytes");
    assert_eq!(values(&broker, 0), numbered(0..70));
    for number in [0, 1] {
        let report = broker.embedded().unwrap().verify(&partition("orders", number), &mut |_| {}).unwrap();
        assert_eq!(report.damage, []);
    }
    broker.close().unwrap();
}

#[test]
fn a_place_behind_the_backup_is_noticed_in_what_was_restored() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    broker.embedded().unwrap().backup_to(COPY).unwrap();
    let epoch = broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap().epoch;
    publish(&broker, 0, 60..70);
    let place = partition("orders", 0);
    let mut reader = broker.reader().assign(std::slice::from_ref(&place)).unwrap();
    reader.seek(&place, SeekTo::Offset(Offset::new(64))).unwrap();
    let read = reader.poll(Duration::ZERO).unwrap();
    let cursor = read.iter().next().unwrap().next_cursor();
    drop(reader);
    broker.close().unwrap();

    let copy = open_at(&disk, COPY);
    assert!(copy.embedded().unwrap().stats(&place).unwrap().epoch > epoch);
    // The same offsets again, with other records.
    publish(&copy, 0, 900..920);
    let mut reader = copy.reader().assign(std::slice::from_ref(&place)).unwrap();
    reader.seek(&place, SeekTo::Cursor(cursor)).unwrap();
    let records = reader.poll(Duration::ZERO).unwrap();
    let Some(Event::Diverged { epoch_end, .. }) = records.events().first() else {
        panic!("{:?}", records.events())
    };
    assert_eq!(*epoch_end, Offset::new(60));
    let first = records.iter().next().map(|record| record.offset().get());
    assert!(first.is_none_or(|first| first == 60), "{first:?}");
}

#[test]
fn an_incremental_backup_takes_sealed_segments_from_the_one_before() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let embedded = broker.embedded().unwrap();
    let first = embedded.backup_to("/backups/1").unwrap();
    publish(&broker, 0, 60..120);
    broker.run_maintenance_once().unwrap();
    let options = BackupOptions::new().incremental_from("/backups/1");
    let second = embedded.backup_with("/backups/2", &options).unwrap();
    assert_eq!(second.reused_files, first.linked_files);
    assert!(second.linked_files > first.linked_files, "{second:?}");
    assert_eq!(check(&disk, "/backups/2"), []);
    // One of another history, under the same name, is not taken.
    embedded.truncate_to(&partition("orders", 0), Offset::new(5)).unwrap();
    publish(&broker, 0, 1000..1060);
    broker.run_maintenance_once().unwrap();
    let options = BackupOptions::new().incremental_from("/backups/2");
    embedded.backup_with("/backups/3", &options).unwrap();
    assert_eq!(check(&disk, "/backups/3"), []);
    // Neither needs the other.
    for path in files(&disk, "/backups/2").into_keys() {
        disk.remove_file(&path).unwrap();
    }
    let all = [numbered(0..5), numbered(1000..1060)].concat();
    assert_eq!(values(&open_at(&disk, "/backups/3"), 0), all);
    assert_eq!(values(&open_at(&disk, "/backups/1"), 0), numbered(0..60));
    // What was opened is no backup any more.
    let options = BackupOptions::new().incremental_from("/backups/3");
    assert!(matches!(embedded.backup_with("/backups/4", &options), Err(Error::NotABackup { .. })));
    // Every byte a second time, if that is wanted.
    let copied = embedded.backup_with("/backups/5", &BackupOptions::new().copy_all(true)).unwrap();
    assert_eq!((copied.linked_files, copied.copied_bytes), (0, copied.size_bytes));
}

#[test]
fn what_is_there_is_left_alone_and_a_place_within_the_data_is_refused() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let embedded = broker.embedded().unwrap();
    embedded.backup_to(COPY).unwrap();
    let before = files(&disk, "/");
    assert!(matches!(embedded.backup_to(COPY), Err(Error::BackupExists { .. })));
    for within in [DATA, "/data/backup", "/data/orders-0/x"] {
        assert!(matches!(embedded.backup_to(within), Err(Error::BackupInside { .. })), "{within}");
    }
    for no_backup in [DATA, "/nowhere"] {
        let options = BackupOptions::new().incremental_from(no_backup);
        let refused = embedded.backup_with("/backups/other", &options);
        assert!(matches!(refused, Err(Error::NotABackup { .. })), "{refused:?}");
    }
    assert!(files(&disk, "/") == before);
    // A damaged partition would be copied with its damage.
    broker.close().unwrap();
    let segment = Path::new(DATA).join("orders-0/00000000000000000000.log");
    [70, 8 * 512 + 70].into_iter().for_each(|bit| disk.flip_bit(&segment, bit).unwrap());
    let disk = disk.kill();
    let checkpoint = Path::new(DATA).join("orders-0/checkpoint");
    disk.remove_file(&checkpoint).unwrap();
    let broker = open(&disk).unwrap();
    let refused = broker.embedded().unwrap().backup_to("/backups/damaged");
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    assert_eq!(files(&disk, "/backups/damaged").len() + files(&disk, "/backups/damaged.backup.tmp").len(), 0);
}

#[test]
fn every_change_of_a_backup_is_found() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let options = BackupOptions::new().copy_all(true);
    broker.embedded().unwrap().backup_with(COPY, &options).unwrap();
    broker.close().unwrap();
    for path in files(&disk, COPY).into_keys() {
        if path.ends_with("LOCK") {
            continue;
        }
        let length = u64::try_from(disk.read_file(&path).unwrap().len()).unwrap();
        for bit in [0, length * 8 / 2, length * 8 - 1] {
            disk.flip_bit(&path, bit).unwrap();
            let found = Broker::check_backup_on(&shared(&disk), COPY, &mut |_| {});
            if path.ends_with("backup.manifest") {
                assert!(matches!(found, Err(Error::BackupDamaged { .. })), "{found:?}");
            } else {
                let found = found.unwrap().unwrap().problems;
                assert_eq!((found.len(), found[0].kind), (1, BackupProblemKind::Changed));
                assert_eq!(found[0].path, path);
            }
            disk.flip_bit(&path, bit).unwrap();
        }
    }
    let checkpoint = Path::new(COPY).join("orders-1/checkpoint");
    let bytes = disk.read_file(&checkpoint).unwrap();
    disk.remove_file(&checkpoint).unwrap();
    assert_eq!(check(&disk, COPY), [(checkpoint.clone(), BackupProblemKind::Missing)]);
    disk.write_file(&checkpoint, &bytes[1..]).unwrap();
    assert_eq!(
        check(&disk, COPY),
        [(checkpoint.clone(), BackupProblemKind::Length { found: 1023, expected: 1024 })]
    );
    disk.write_file(&checkpoint, &bytes).unwrap();
    let stranger = Path::new(COPY).join("orders-1/00000000000000009999.log");
    disk.write_file(&stranger, b"x").unwrap();
    assert_eq!(check(&disk, COPY), [(stranger, BackupProblemKind::Unknown)]);
}

#[test]
fn a_log_start_and_lost_records_are_in_the_copy_too() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let embedded = broker.embedded().unwrap();
    embedded.delete_records_before(&partition("orders", 0), Offset::new(25)).unwrap();
    embedded.delete_records_before(&partition("orders", 1), Offset::new(10)).unwrap();
    embedded.backup_to(COPY).unwrap();
    let copy = open_at(&disk, COPY);
    let stats = copy.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
    assert_eq!((stats.log_start_offset.get(), stats.log_end_offset.get()), (25, 60));
    assert_eq!(values(&copy, 0), numbered(25..60));
    let stats = copy.embedded().unwrap().stats(&partition("orders", 1)).unwrap();
    assert_eq!((stats.log_start_offset.get(), stats.log_end_offset.get()), (10, 10));
    let range = OffsetRange { start: Offset::new(10), end: Offset::new(14) };
    publish(&copy, 1, 10..14);
    assert_eq!(values(&copy, 1).len() as u64, range.count());
}

#[test]
fn only_what_is_durable_is_copied() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let embedded = broker.embedded().unwrap();
    let lazy = small().durability(tailwater::Durability::Written).set("sync_interval_ms", "600000").unwrap();
    broker.create_topic("lazy", &lazy).unwrap();
    broker.producer("lazy").unwrap().publish("written").unwrap();
    embedded.backup_to("/backups/1").unwrap();
    embedded.sync(&partition("lazy", 0)).unwrap();
    embedded.backup_to("/backups/2").unwrap();
    let end = |directory: &str| {
        let copy = open_at(&disk, directory);
        copy.embedded().unwrap().stats(&partition("lazy", 0)).unwrap().log_end_offset.get()
    };
    assert_eq!((end("/backups/1"), end("/backups/2")), (0, 1));
}

#[test]
fn a_backup_beside_the_process_that_writes_is_as_good() {
    let disk = SimDisk::new(1);
    let broker = filled(&disk);
    let attached = BrokerOptions::new().attach_read_only_on(shared(&disk), DATA).unwrap();
    let embedded = attached.embedded().unwrap();
    // What was committed is not recorded as durable for others yet.
    publish(&broker, 0, 60..61);
    commit(&broker, 61);
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            publish(&broker, 0, 61..62);
            publish(&broker, 0, 62..63);
        });
        embedded.backup_to(COPY).unwrap();
        recording.join().unwrap();
    });
    assert_eq!(check(&disk, COPY), []);
    broker.close().unwrap();
    // Of one that was closed all is there.
    embedded.backup_with("/backups/2", &BackupOptions::new().incremental_from(COPY)).unwrap();
    let copy = open_at(&disk, COPY);
    let end = copy.embedded().unwrap().stats(&partition("orders", 0)).unwrap().log_end_offset.get();
    assert!(committed(&copy).unwrap() <= end && end >= 60, "{:?} of {end}", committed(&copy));
    let copy = open_at(&disk, "/backups/2");
    assert_eq!((values(&copy, 0), committed(&copy)), (numbered(0..63), Some(61)));
}

#[test]
fn backups_beside_threads_that_publish_commit_and_delete_are_consistent() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path().join("data")).unwrap();
    broker.create_topic("orders", &small().partitions(2)).unwrap();
    broker.create_topic("doomed", &small()).unwrap();
    let (is_done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let (broker, is_done, acknowledged) = (&broker, &is_done, &acknowledged);
        scope.spawn(move || {
            let orders = broker.producer("orders").unwrap();
            for n in 0.. {
                let value = value(n);
                orders.publish(Message::new(value.as_bytes()).partition(PartitionId::ZERO)).unwrap();
                acknowledged.store(n + 1, Ordering::SeqCst);
                if is_done.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        scope.spawn(move || {
            let place = partition("orders", 0);
            let mut billing = broker.consumer("billing").reset(Reset::Earliest).assign(&[place]).unwrap();
            while !is_done.load(Ordering::SeqCst) {
                billing.poll(Duration::from_millis(5)).unwrap();
                billing.commit().wait().unwrap();
            }
        });
        scope.spawn(move || {
            let embedded = broker.embedded().unwrap();
            let place = partition("orders", 0);
            while !is_done.load(Ordering::SeqCst) {
                let durable = embedded.stats(&place).unwrap().durable_offset.get();
                // Never what the group has not read.
                let read = committed(broker).unwrap_or(0).min(durable);
                embedded.delete_records_before(&place, Offset::new(read.saturating_sub(30))).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for round in 0..15 {
            let before = acknowledged.load(Ordering::SeqCst);
            let mut options = BackupOptions::new();
            if let Some((earlier, _)) = taken.last() {
                options = options.incremental_from(earlier);
            }
            let path = directory.path().join(format!("backup-{round}"));
            broker.embedded().unwrap().backup_with(&path, &options).unwrap();
            taken.push((path, before));
            if round == 7 {
                broker.delete_topic("doomed").unwrap();
            }
        }
        is_done.store(true, Ordering::SeqCst);
    });
    broker.close().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(tailwater::storage::Disk);
    for (path, before) in taken {
        let found = Broker::check_backup_on(&storage, &path, &mut |_| {}).unwrap().unwrap();
        assert_eq!(found.problems, []);
        let copy = Broker::open(&path).unwrap();
        let stats = copy.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
        let (start, end) = (stats.log_start_offset.get(), stats.log_end_offset.get());
        assert!(end >= before, "what was acknowledged before is in it: {end} of {before}");
        assert_eq!(values(&copy, 0), numbered(start..end));
        assert!(committed(&copy).unwrap_or(0) <= end, "{:?} of {end}", committed(&copy));
        assert_eq!(copy.embedded().unwrap().verify(&partition("orders", 0), &mut |_| {}).unwrap().damage, []);
        copy.close().unwrap();
    }
}

/// Whether the backup is whole: then it opens, with all that was there when it was made.
fn is_whole(disk: &SimDisk, what: &str) -> bool {
    if disk.entry_kind(Path::new(COPY)).unwrap().is_none() {
        return false;
    }
    assert_eq!(check(disk, COPY), [], "{what}");
    let copy = open_at(disk, COPY);
    assert_eq!((values(&copy, 0), values(&copy, 1)), (numbered(0..60), numbered(0..10)), "{what}");
    assert_eq!(committed(&copy), Some(40), "{what}");
    copy.close().unwrap();
    true
}

/// The source is as it was, and a backup can be made.
fn check_source(disk: &SimDisk, what: &str) {
    let broker = open(disk).unwrap();
    assert_eq!((values(&broker, 0), values(&broker, 1)), (numbered(0..60), numbered(0..10)), "{what}");
    assert_eq!(committed(&broker), Some(40), "{what}");
    broker.close().unwrap();
}

#[test]
fn a_power_cut_at_any_step_leaves_the_source_and_a_whole_backup_or_none() {
    let mut counts = [0; 2];
    for copies_all in [false, true] {
        let options = BackupOptions::new().copy_all(copies_all);
        let steps = {
            let disk = SimDisk::new(3);
            let broker = filled(&disk);
            let before = disk.operation_count();
            broker.embedded().unwrap().backup_with(COPY, &options).unwrap();
            disk.operation_count() - before
        };
        assert!(steps > 20, "{steps}");
        for cut in 0..=steps {
            let disk = SimDisk::new(3);
            let broker = filled(&disk);
            disk.cut_power_after(cut);
            let made = broker.embedded().unwrap().backup_with(COPY, &options);
            assert!(made.is_err() || cut >= steps);
            let mut choices = Choices(cut + 1);
            for way in 0..6 {
                let image = disk.crash(|_, _| match way {
                    0 => false,
                    1 => true,
                    _ => choices.next() >> 33 & 1 == 0,
                });
                let what = format!("cut after {cut} of {steps}, way {way}, copies {copies_all}");
                let is_whole = is_whole(&image, &what);
                assert!(is_whole || made.is_err(), "{what}: a backup that was made is lost");
                counts[usize::from(is_whole)] += 1;
                check_source(&image, &what);
                // Whatever an unfinished one left does not keep the next from being made.
                if !is_whole && way < 2 {
                    let broker = open(&image).unwrap();
                    broker.embedded().unwrap().backup_with(COPY, &options).unwrap();
                    broker.close().unwrap();
                    assert_eq!(check(&image, COPY), [], "{what}");
                    let left = files(&image, "/backups/copy.backup.tmp");
                    assert!(left.is_empty(), "{what}: {:?}", left.keys());
                }
            }
        }
    }
    assert!(counts[0] > 100 && counts[1] > 3, "{counts:?}");
}

#[test]
fn an_error_at_any_step_leaves_the_source_and_no_part_of_a_backup() {
    let steps = {
        let disk = SimDisk::new(3);
        let broker = filled(&disk);
        let before = disk.operation_count();
        broker.embedded().unwrap().backup_to(COPY).unwrap();
        disk.operation_count() - before
    };
    for nth in 1..=steps {
        let disk = SimDisk::new(3);
        let broker = filled(&disk);
        disk.fail_nth(nth, 28, false);
        let made = broker.embedded().unwrap().backup_to(COPY);
        let what = format!("operation {nth} of {steps}: {made:?}");
        disk.clear_faults();
        if made.is_err() && nth < steps {
            assert!(!is_whole(&disk, &what), "{what}");
            broker.embedded().unwrap().backup_to(COPY).unwrap();
        }
        broker.close().unwrap();
        assert!(is_whole(&disk, &what));
        check_source(&disk, &what);
    }
}
