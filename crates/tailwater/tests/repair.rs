//! Repair under a broker: producers and consumers at work, and the groups log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Choices, DATA, open, partition};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{Broker, Consumer, Error, Event, Offset, TopicConfig};

const FIRST_SEGMENT: &str = "00000000000000000000.log";

fn damage(disk: &SimDisk, partition: &str, at: std::ops::Range<usize>) {
    let path = Path::new(DATA).join(partition).join(FIRST_SEGMENT);
    // In place, under whoever has the file open.
    for byte in at {
        disk.flip_bit(&path, 8 * byte as u64 + 3).unwrap();
    }
}

fn publish(broker: &Broker, values: &[&str]) {
    let producer = broker.producer("orders").unwrap();
    for value in values {
        producer.publish(*value).unwrap();
    }
}

fn poll(consumer: &mut Consumer) -> Result<(Vec<Event>, Vec<String>), Error> {
    let records = consumer.poll(Duration::ZERO)?;
    let values = records.iter().map(|record| String::from_utf8_lossy(record.value().unwrap()).into_owned());
    let values = values.collect();
    Ok((records.events().to_vec(), values))
}

#[test]
fn a_repair_turns_damage_into_a_gap_while_consumers_are_at_work() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, &["a", "b", "c"]);
    let orders = partition("orders", 0);
    let mut billing = broker.consumer("billing").max_records(1).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut billing).unwrap().1, ["a"]);
    billing.commit().wait().unwrap();

    // Each is a batch of its own, of a header of 64 bytes and a record of fewer than 16.
    damage(&disk, "orders-0", 1024 + 80..1024 + 100);
    let report = broker.embedded().unwrap().verify(&orders, &mut |_| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    for _ in 0..2 {
        let damaged = poll(&mut billing);
        assert!(matches!(damaged, Err(Error::Corrupt { .. })), "until somebody does something: {damaged:?}");
    }

    let repaired = broker.embedded().unwrap().repair(&orders).unwrap();
    assert_eq!((repaired.lost.len(), repaired.quarantined.len()), (1, 1));
    let (events, values) = poll(&mut billing).unwrap();
    assert!(
        matches!(&events[..], [Event::Gap { from, to, .. }] if from.get() == 1 && to.get() == 2),
        "{events:?}"
    );
    assert_eq!(values, ["c"]);
    billing.commit().wait().unwrap();
    publish(&broker, &["d"]);
    assert_eq!(poll(&mut billing).unwrap(), (Vec::new(), vec!["d".to_owned()]));
    assert!(broker.embedded().unwrap().verify(&orders, &mut |_| {}).unwrap().damage.is_empty());
    let mut other = broker.reader().subscribe(&["orders"]).unwrap();
    let (events, values) = poll(&mut other).unwrap();
    assert_eq!((events.len(), values), (0, vec!["a".to_owned()]), "a gap is told where it is");
    let (events, values) = poll(&mut other).unwrap();
    assert_eq!((events.len(), values), (1, vec!["c".to_owned(), "d".to_owned()]));
    assert!(broker.embedded().unwrap().repair(&orders).unwrap().damage.is_empty());
}

#[test]
fn groups_go_on_after_their_log_was_repaired() {
    // Whatever single entry of the groups log is damaged: registration, first contact, any commit.
    let mut refused = 0;
    for at in (1024..1024 + 900).step_by(20) {
        let disk = SimDisk::new(1);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        publish(&broker, &["a", "b", "c"]);
        let mut billing = broker.consumer("billing").max_records(1).subscribe(&["orders"]).unwrap();
        for _ in 0..3 {
            billing.poll(Duration::ZERO).unwrap();
            billing.commit().wait().unwrap();
        }
        drop(billing);
        broker.close().unwrap();
        damage(&disk, "__groups-0", at..at + 1);

        let broker = open(&disk).unwrap();
        if broker.groups().is_err() {
            refused += 1;
            assert!(broker.consumer("billing").subscribe(&["orders"]).is_err(), "never as if it had none");
        }
        let report = broker.embedded().unwrap().repair(&partition("__groups", 0)).unwrap();
        let groups = broker.groups().unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        let offset = billing.position(&partition("orders", 0)).unwrap().offset;
        assert!(offset <= Offset::new(3));
        if report.damage.is_empty() {
            assert_eq!((groups.len(), offset.get()), (1, 3), "byte {at}");
        }
        poll(&mut billing).unwrap();
        billing.commit().wait().unwrap();
        assert_eq!(billing.committed(&partition("orders", 0)).unwrap().unwrap().offset.get(), 3);
        drop(billing);
        broker.close().unwrap();
        let broker = open(&disk).unwrap();
        assert_eq!(broker.describe_group("billing").unwrap().positions[0].lag.records, 0, "byte {at}");
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_broker_that_is_attached_repairs_nothing() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let attached =
        tailwater::BrokerOptions::new().attach_read_only_on(std::sync::Arc::new(disk.clone()), DATA).unwrap();
    let repaired = attached.embedded().unwrap().repair(&partition("orders", 0));
    assert!(matches!(repaired, Err(Error::ReadOnly)), "{repaired:?}");
    let unknown = broker.embedded().unwrap().repair(&partition("mails", 0));
    assert!(matches!(unknown, Err(Error::UnknownTopic { .. })), "{unknown:?}");
}

// Whatever a power cut leaves of a repair that makes a lost directory anew, another finishes it; what is acknowledged in it
// from then on is durable.
#[test]
fn a_directory_that_is_made_anew_can_be_cut_off_anywhere() {
    let lost = partition("orders", 1);
    let damaged = {
        let disk = SimDisk::new(1);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
        publish(&broker, &["a", "b", "c", "d"]);
        broker.close().unwrap();
        let directory = Path::new(DATA).join("orders-1");
        let storage: &dyn Storage = &disk;
        for entry in storage.list_directory(&directory).unwrap() {
            storage.remove_file(&directory.join(entry.name)).unwrap();
        }
        storage.remove_directory(&directory).unwrap();
        disk.crash(|_, _| true)
    };
    let kept = read_all(&damaged.crash(|_, _| true), 0);
    assert!(!kept.is_empty());
    let whole = damaged.crash(|_, _| true);
    let broker = open(&whole).unwrap();
    let before = whole.operation_count();
    broker.embedded().unwrap().repair(&lost).unwrap();
    let operations = whole.operation_count() - before;
    drop(broker);
    let mut states = 0;
    for cut in 0..operations {
        for way in 0..6 {
            let disk = damaged.crash(|_, _| true);
            let broker = open(&disk).unwrap();
            disk.cut_power_after(cut);
            let _ = broker.embedded().unwrap().repair(&lost);
            drop(broker);
            let mut choices = Choices(cut * 8 + way + 1);
            let left = disk.crash(|_, _| way == 0 || way > 1 && choices.next().is_multiple_of(2));
            let broker = open(&left).unwrap();
            broker.embedded().unwrap().repair(&lost).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
            let producer = broker.producer("orders").unwrap();
            producer.publish(tailwater::Message::new(b"new").partition(lost.partition)).unwrap();
            // The power goes again, and takes what it may.
            let after = left.crash(|_, _| false);
            assert_eq!(read_all(&after.crash(|_, _| true), 1), ["new"], "cut {cut}, way {way}");
            assert_eq!(read_all(&after, 0), kept, "cut {cut}, way {way}");
            states += 1;
        }
    }
    assert!(states > 40, "{states}");
}

fn read_all(disk: &SimDisk, number: u32) -> Vec<String> {
    let broker = open(disk).unwrap();
    let mut reader = broker.reader().assign(&[partition("orders", number)]).unwrap();
    poll(&mut reader).unwrap().1
}
