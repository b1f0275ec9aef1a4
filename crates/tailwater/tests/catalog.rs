//! A data directory is opened only if it is Tailwater's, and whatever a crash leaves in it is cleaned up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Choices, DATA, open, partition};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{Broker, BrokerOptions, CatalogFault, Error, TopicConfig, UnsupportedFeature};

const EIO: i32 = 5;
const EROFS: i32 = 30;

/// All files below a directory with their bytes, and all directories.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// Asserts that `directory` is refused by both ways of opening it, and left as it is.
fn refused(directory: &Path) -> Error {
    let before = contents(directory);
    let error = Broker::open(directory).unwrap_err();
    assert_eq!(contents(directory), before, "{error}");
    Broker::attach_read_only(directory).unwrap_err();
    assert_eq!(contents(directory), before);
    error
}

fn directory_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    directory
}

#[test]
fn a_new_directory_is_made_with_its_parents_and_found_again() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("a/b/data");
    let broker = Broker::open(&data).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    broker.producer("orders").unwrap().publish("an espresso").unwrap();
    drop(broker);
    let broker = Broker::open(&data).unwrap();
    assert_eq!(broker.topics().unwrap(), ["orders"]);
    assert_eq!(broker.stats().unknown_names, Vec::<std::ffi::OsString>::new());
    for name in ["LOCK", "catalog", "orders-0", "orders-1", "__groups-0"] {
        assert!(data.join(name).exists(), "{name}");
    }
}

#[test]
fn a_link_to_a_directory_is_followed() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("real")).unwrap();
    std::os::unix::fs::symlink(root.path().join("real"), root.path().join("link")).unwrap();
    Broker::open(root.path().join("link")).unwrap().create_topic("orders", &TopicConfig::new()).unwrap();
    assert_eq!(Broker::open(root.path().join("real")).unwrap().topics().unwrap(), ["orders"]);
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    for files in [
        [("notes.txt", b"hello".as_slice())].as_slice(),
        &[("LOCK", b""), ("data.mdb", b"x")],
        &[("model-1/checkpoint", b"weights")],
        &[("sub/notes.txt", b"hello")],
    ] {
        let directory = directory_with(files);
        let error = refused(directory.path());
        assert!(matches!(error, Error::NotATailwaterDirectory { .. }), "{error}");
        assert!(error.to_string().contains("give an empty or a new directory"), "{error}");
    }
}

#[test]
fn a_file_is_no_directory() {
    let directory = directory_with(&[("file", b"x")]);
    let error = Broker::open(directory.path().join("file")).unwrap_err();
    assert!(matches!(error, Error::NotATailwaterDirectory { .. }), "{error}");
    assert!(Broker::open(directory.path().join("file/data")).is_err());
    assert_eq!(contents(directory.path()).len(), 1);
}

#[test]
fn a_foreign_or_cut_catalog_is_damage_and_left_alone() {
    for bytes in [b"".as_slice(), b"some other program's catalog of things", &[0; 4096]] {
        let directory = directory_with(&[("catalog", bytes)]);
        let error = refused(directory.path());
        assert!(matches!(error, Error::CatalogDamaged { fault: CatalogFault::NotACatalog, .. }), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    Broker::open(directory.path()).unwrap().create_topic("orders", &TopicConfig::new()).unwrap();
    let catalog = directory.path().join("catalog");
    let bytes = std::fs::read(&catalog).unwrap();
    std::fs::write(&catalog, &bytes[..bytes.len() - 1]).unwrap();
    let error = refused(directory.path());
    assert!(error.to_string().contains("tailwater repair"), "{error}");
}

#[test]
fn a_newer_catalog_is_refused_by_its_version() {
    let directory = tempfile::tempdir().unwrap();
    drop(Broker::open(directory.path()).unwrap());
    let catalog = directory.path().join("catalog");
    let mut bytes = std::fs::read(&catalog).unwrap();
    bytes[8] = 9;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    std::fs::write(&catalog, &bytes).unwrap();
    let error = refused(directory.path());
    let Error::Unsupported { feature, newest_supported, .. } = &error else { panic!("{error}") };
    assert_eq!((*feature, *newest_supported), (UnsupportedFeature::Version(9), 1));
    assert!(error.to_string().contains("use a newer tailwater"), "{error}");
}

#[test]
fn partitions_without_a_catalog_point_to_repair() {
    let directory = tempfile::tempdir().unwrap();
    Broker::open(directory.path()).unwrap().create_topic("orders", &TopicConfig::new()).unwrap();
    std::fs::remove_file(directory.path().join("catalog")).unwrap();
    let error = refused(directory.path());
    assert!(matches!(error, Error::CatalogMissing { .. }), "{error}");
    assert!(error.to_string().contains("tailwater repair"), "{error}");
}

#[test]
fn a_missing_directory_is_made_only_with_leave() {
    let root = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new().create(false);
    let missing = options.open(root.path().join("data")).unwrap_err();
    assert!(matches!(missing, Error::DirectoryMissing { .. }), "{missing}");
    let missing = Broker::attach_read_only(root.path().join("data")).unwrap_err();
    assert!(matches!(missing, Error::DirectoryMissing { .. }), "{missing}");
    assert!(matches!(options.open(root.path()).unwrap_err(), Error::NotATailwaterDirectory { .. }));
    assert!(contents(root.path()).is_empty());
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let directory = tempfile::tempdir().unwrap();
    let first = Broker::open(directory.path()).unwrap();
    let error = Broker::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Locked(_)) && error.is_retriable(), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    first.close().unwrap();
    Broker::open(directory.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_written_to_says_so() {
    for is_new in [true, false] {
        let disk = SimDisk::new(1);
        if !is_new {
            drop(open(&disk).unwrap());
        }
        disk.fail_nth(1, EROFS, true);
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, Error::ReadOnlyDirectory { .. }), "{error}");
        assert!(error.to_string().contains("attach to it read-only"), "{error}");
        disk.clear_faults();
        open(&disk).unwrap();
    }
}

#[test]
fn unknown_names_are_left_alone_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    Broker::open(directory.path()).unwrap().create_topic("orders", &TopicConfig::new()).unwrap();
    let given_up = "0123456789abcdef0123456789abcdef-4.deleted";
    for name in ["orders-1", "backup", "0123456789ABCDEF0123456789ABCDEF-4.deleted", given_up] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    std::fs::create_dir(directory.path().join(given_up).join("quarantine")).unwrap();
    std::fs::write(directory.path().join(given_up).join("quarantine/x"), b"x").unwrap();
    std::fs::write(directory.path().join("notes.txt"), b"x").unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    let unknown = broker.stats().unknown_names;
    assert_eq!(unknown, ["0123456789ABCDEF0123456789ABCDEF-4.deleted", "backup", "notes.txt", "orders-1"]);
    assert!(directory.path().join("backup").exists());
    assert!(!directory.path().join(given_up).exists(), "a deletion that was interrupted is finished");
}

#[test]
fn an_empty_leftover_makes_way_and_records_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    let broker = Broker::open(source.path()).unwrap();
    broker.create_topic("empty", &TopicConfig::new()).unwrap();
    broker.create_topic("full", &TopicConfig::new()).unwrap();
    broker.producer("full").unwrap().publish("a record").unwrap();
    broker.close().unwrap();

    let broker = Broker::open(directory.path()).unwrap();
    for name in ["empty", "full"] {
        let (from, to) =
            (source.path().join(format!("{name}-0")), directory.path().join(format!("{name}-1")));
        std::fs::rename(from, to).unwrap();
    }
    broker.create_topic("empty", &TopicConfig::new().partitions(2)).unwrap();
    let before = contents(directory.path());
    let error = broker.create_topic("full", &TopicConfig::new().partitions(2)).unwrap_err();
    assert!(matches!(error, Error::DirectoryInTheWay { reason: "records", .. }), "{error}");
    assert_eq!(contents(directory.path()), before, "the first partition is taken back");
    assert_eq!(broker.topics().unwrap(), ["empty"]);
    assert_eq!(broker.embedded().unwrap().stats(&partition("empty", 1)).unwrap().log_end_offset.get(), 0);

    std::fs::create_dir(directory.path().join("mine-0")).unwrap();
    std::fs::write(directory.path().join("mine-0/notes.txt"), b"x").unwrap();
    let error = broker.create_topic("mine", &TopicConfig::new()).unwrap_err();
    assert!(matches!(error, Error::DirectoryInTheWay { .. }), "{error}");
    assert!(directory.path().join("mine-0/notes.txt").exists());
}

/// What a step may leave behind, and what has to be there whatever happens.
struct Step {
    name: &'static str,
    before: fn(&Broker),
    act: fn(&Broker) -> tailwater::Result<()>,
    /// Checks the directory after a crash in the step, or after it when `was_done`.
    check: fn(&SimDisk, &Broker, was_done: bool),
}

fn make_kept(broker: &Broker) {
    broker.create_topic("kept", &TopicConfig::new()).unwrap();
    broker.producer("kept").unwrap().publish("a record").unwrap();
}

fn kept_is_there(disk: &SimDisk, broker: &Broker) {
    let stats = broker.embedded().unwrap().stats(&partition("kept", 0)).unwrap();
    assert_eq!(stats.durable_offset.get(), 1, "{:?}", disk.latest_operations());
}

const STEPS: [Step; 4] = [
    Step {
        name: "open a new directory",
        before: |_| {},
        act: |_| Ok(()),
        check: |_, broker, _| assert!(broker.topics().unwrap().is_empty()),
    },
    Step {
        name: "create a topic",
        before: make_kept,
        act: |broker| broker.create_topic("orders", &TopicConfig::new().partitions(2)),
        check: |disk, broker, was_done| {
            kept_is_there(disk, broker);
            let exists = broker.topics().unwrap().contains(&"orders".to_owned());
            assert!(exists || !was_done);
            if !exists {
                broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
            }
            for number in 0..2 {
                let at = partition("orders", number);
                assert_eq!(broker.embedded().unwrap().stats(&at).unwrap().log_end_offset.get(), 0);
            }
            broker.producer("orders").unwrap().publish("new").unwrap();
        },
    },
    Step {
        name: "add partitions",
        before: make_kept,
        act: |broker| broker.alter_topic("kept", &TopicConfig::new().partitions(3).segment_ms(7)),
        check: |disk, broker, was_done| {
            kept_is_there(disk, broker);
            let count = broker.describe_topic("kept").unwrap().partition_count;
            assert!(count == 3 || count == 1 && !was_done);
            broker.alter_topic("kept", &TopicConfig::new().partitions(3)).unwrap();
            let at = partition("kept", 2);
            assert_eq!(broker.embedded().unwrap().stats(&at).unwrap().log_end_offset.get(), 0);
        },
    },
    Step {
        name: "delete a topic",
        before: |broker| {
            make_kept(broker);
            broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
            for number in 0..2 {
                let message = tailwater::Message::new(b"old").partition(tailwater::PartitionId::new(number));
                broker.producer("orders").unwrap().publish(message).unwrap();
            }
        },
        act: |broker| broker.delete_topic("orders"),
        check: |disk, broker, was_done| {
            kept_is_there(disk, broker);
            let exists = broker.topics().unwrap().contains(&"orders".to_owned());
            assert!(!exists || !was_done);
            if exists {
                // A rename of a directory may lose both names in this model; then the partition is missing, aloud.
                for number in 0..2 {
                    if let Ok(stats) = broker.embedded().unwrap().stats(&partition("orders", number)) {
                        assert_eq!(stats.durable_offset.get(), 1);
                    }
                }
                broker.delete_topic("orders").unwrap();
            }
            broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
            for number in 0..2 {
                let at = partition("orders", number);
                assert_eq!(broker.embedded().unwrap().stats(&at).unwrap().log_end_offset.get(), 0);
            }
        },
    },
];

/// Which of the pending effects survive, in several ways for each power cut.
fn crashes(disk: &SimDisk, choices: &mut Choices) -> Vec<SimDisk> {
    let pending = disk.pending();
    let mut after = vec![disk.crash(|_, _| false), disk.crash(|_, _| true)];
    for index in 0..pending {
        after.push(disk.crash(|other, _| other == index));
        after.push(disk.crash(|other, _| other != index));
    }
    for _ in 0..8 {
        after.push(disk.crash(|_, _| choices.next() & 4 == 0));
    }
    after
}

/// Nothing that Tailwater made and gave up is left once all is well again.
fn nothing_is_left_over(disk: &SimDisk) {
    for entry in disk.list_directory(DATA.as_ref()).unwrap() {
        let name = entry.name.into_string().unwrap();
        assert!(!name.ends_with(".deleted"), "{name}");
    }
}

#[test]
fn a_power_cut_at_any_operation_is_cleaned_up_at_the_next_open() {
    let mut choices = Choices(0x5eed);
    for step in STEPS {
        let prepared = SimDisk::new(7);
        let is_opening = step.name == "open a new directory";
        if !is_opening {
            let broker = open(&prepared).unwrap();
            (step.before)(&broker);
            broker.close().unwrap();
        }
        let prepared = prepared.crash(|_, _| true);
        let (mut cut, mut checked) = (0, 0);
        loop {
            let disk = prepared.crash(|_, _| true);
            let broker = (!is_opening).then(|| open(&disk).unwrap());
            disk.cut_power_after(cut);
            let acted = match &broker {
                Some(broker) => (step.act)(broker),
                None => open(&disk).map(|broker| drop(broker.close())),
            };
            let was_done = acted.is_ok();
            for crashed in crashes(&disk, &mut choices) {
                // The next open is cut short too, at some operation, before one gets through.
                crashed.cut_power_after(choices.next() % 12);
                drop(open(&crashed));
                let crashed = crashed.crash(|_, _| choices.next() & 4 == 0);
                let reopened =
                    open(&crashed).unwrap_or_else(|error| panic!("{}: cut after {cut}: {error}", step.name));
                (step.check)(&crashed, &reopened, was_done);
                reopened.close().unwrap();
                drop(open(&crashed).unwrap());
                nothing_is_left_over(&crashed);
                checked += 1;
            }
            if disk.is_powered() {
                break;
            }
            cut += 1;
        }
        assert!(cut > 10 && checked > 100, "{}: {cut} cuts, {checked} crashes", step.name);
    }
}

#[test]
fn an_operation_that_fails_changes_nothing_or_says_that_it_is_not_known() {
    for step in STEPS.into_iter().skip(1) {
        for nth in 1.. {
            let disk = SimDisk::new(9);
            let broker = open(&disk).unwrap();
            (step.before)(&broker);
            let topics = broker.topics().unwrap();
            let before = disk.operation_count();
            disk.fail_nth(nth, EIO, false);
            let acted = (step.act)(&broker);
            let was_hit = disk.operation_count() - before >= nth;
            disk.clear_faults();
            if acted.is_err() {
                match broker.create_topic("probe", &TopicConfig::new()) {
                    // What is not known stays so until the broker is opened again.
                    Err(Error::Failed { .. }) => {}
                    Err(error) => panic!("{} {nth}: {error}", step.name),
                    Ok(()) => {
                        broker.delete_topic("probe").unwrap();
                        assert_eq!(broker.topics().unwrap(), topics, "{} {nth}", step.name);
                    }
                }
            }
            let _ = broker.close();
            let reopened = open(&disk).unwrap();
            (step.check)(&disk, &reopened, acted.is_ok());
            if !was_hit {
                assert!(nth > 5);
                break;
            }
        }
    }
}

#[test]
fn an_attached_broker_follows_the_catalog_of_the_one_that_writes() {
    let directory = tempfile::tempdir().unwrap();
    let writer = Broker::open(directory.path()).unwrap();
    writer.create_topic("orders", &TopicConfig::new()).unwrap();
    let reader = Broker::attach_read_only(directory.path()).unwrap();
    let files = contents(directory.path());
    assert_eq!(reader.topics().unwrap(), ["orders"]);
    for refused in [
        reader.create_topic("mails", &TopicConfig::new()),
        reader.delete_topic("orders"),
        reader.alter_topic("orders", &TopicConfig::new()),
        reader.producer("orders").map(drop),
        reader.embedded().unwrap().roll(&partition("orders", 0)),
    ] {
        assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    }
    assert_eq!(contents(directory.path()), files);

    writer.create_topic("mails", &TopicConfig::new()).unwrap();
    assert_eq!(reader.describe_topic("mails").unwrap().partition_count, 1);
    writer.delete_topic("orders").unwrap();
    writer.alter_topic("mails", &TopicConfig::new().partitions(2)).unwrap();
    assert_eq!(reader.topics().unwrap(), ["mails"]);
    assert_eq!(reader.describe_topic("mails").unwrap().partition_count, 2);
    assert!(matches!(reader.producer("orders"), Err(Error::UnknownTopic { .. })));
    writer.producer("mails").unwrap().publish("x").unwrap();
    writer.close().unwrap();
    let durable =
        |number| reader.embedded().unwrap().stats(&partition("mails", number)).unwrap().durable_offset;
    assert_eq!(durable(0).get() + durable(1).get(), 1);
}

#[test]
fn a_setting_of_a_newer_version_is_refused_by_name() {
    let disk = SimDisk::new(3);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().segment_bytes(65_536)).unwrap();
    broker.close().unwrap();
    let path = Path::new("/data/catalog");
    let mut bytes = disk.read_file(path).unwrap();
    let at = bytes.windows(13).position(|window| window == b"segment_bytes").unwrap();
    bytes[at..at + 7].copy_from_slice(b"qegment");
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.write_file(path, &bytes).unwrap();
    let error = open(&disk).unwrap_err();
    let expected =
        "topic orders was given qegment_bytes=65536, which this version does not know: use a newer tailwater";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn an_error_of_the_disk_is_not_taken_for_damage() {
    let disk = SimDisk::new(4);
    drop(open(&disk).unwrap());
    disk.fail_nth(1, EIO, true);
    assert!(matches!(open(&disk), Err(Error::Io { .. })));
    disk.clear_faults();
    let storage: Arc<dyn Storage> = Arc::new(disk);
    BrokerOptions::new().open_on(storage, DATA).unwrap();
}

#[test]
fn what_is_promised_after_a_killed_creation_is_kept_through_a_power_cut() {
    // The catalog's new name may be there and not be durable when the process dies. The next one took the topic for
    // created and acknowledged records, and a power cut brought the old catalog back. Opening syncs the directory now.
    let mut published = 0;
    for cut in 0.. {
        let disk = SimDisk::new(11);
        let broker = open(&disk).unwrap();
        disk.cut_power_after(cut);
        let was_done = broker.create_topic("orders", &TopicConfig::new()).is_ok();
        let disk = disk.kill();
        let broker = open(&disk).unwrap();
        if let Ok(orders) = broker.producer("orders") {
            orders.publish("acknowledged").unwrap();
            let disk = disk.crash(|_, _| false);
            let reopened = open(&disk).unwrap();
            let stats = reopened.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
            assert_eq!(stats.durable_offset.get(), 1, "killed after {cut}");
            published += 1;
        }
        if was_done {
            break;
        }
    }
    assert!(published > 1, "some creations were interrupted after the catalog had its name");
}

#[test]
fn a_catalog_that_was_written_as_often_as_can_be_counted_is_written_again() {
    // The count overflowed. Found by the fuzz target `open_catalog`.
    let path = Path::new(DATA).join("catalog");
    let disk = SimDisk::new(1);
    open(&disk).unwrap().close().unwrap();
    let mut bytes = disk.read_file(&path).unwrap();
    bytes[16..24].fill(0xff);
    let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.write_file(&path, &bytes).unwrap();
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    broker.close().unwrap();
    assert_eq!(open(&disk).unwrap().topics().unwrap(), ["orders"]);
}

// A power cut within the rename that gives a partition up can leave both names for one directory. The open that finished the
// deletion renamed one to the other, which does nothing then; after another power cut the old name was there, with records,
// and in the way of a new topic. Found by the search through power cuts.
#[test]
fn a_deletion_that_left_both_names_of_a_partition_is_finished() {
    use tailwater::storage::sim::Effect;
    let prepared = SimDisk::new(1);
    let broker = open(&prepared).unwrap();
    broker.create_topic("audit", &TopicConfig::new()).unwrap();
    broker.producer("audit").unwrap().publish("kept until it is deleted").unwrap();
    broker.close().unwrap();
    let (mut finished, mut cut) = (0, 0);
    loop {
        let disk = prepared.kill();
        let broker = open(&disk).unwrap();
        disk.cut_power_after(cut);
        let deleted = broker.delete_topic("audit");
        let is_given_up = |effect: &Effect, is_there: bool| matches!(effect, Effect::Name { name, target, .. } if target.is_some() == is_there && name.to_string_lossy().ends_with(".deleted"));
        // The new name is there, and the old one is not gone.
        let disk = disk.crash(|_, effect| is_given_up(effect, true));
        drop(open(&disk).unwrap());
        // The new name is gone, and what was removed under it is not.
        let disk = disk.crash(|_, effect| is_given_up(effect, false));
        let broker = open(&disk).unwrap();
        if broker.describe_topic("audit").is_err() {
            broker
                .create_topic("audit", &TopicConfig::new())
                .unwrap_or_else(|error| panic!("{cut}: {error}"));
            finished += 1;
        }
        if deleted.is_ok() {
            break;
        }
        cut += 1;
    }
    assert!(finished > 1, "{finished}");
}
