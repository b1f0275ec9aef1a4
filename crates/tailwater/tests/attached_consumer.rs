//! Readers beside the process that writes: what they see of it, and what they are told when it goes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::partition;
use common::reading::{numbers, publish, values};
use tailwater::{Broker, Consumer, Error, Event, Offset, SeekTo, TopicConfig};

const LONG: Duration = Duration::from_secs(20);

// The directories of a deleted topic are renamed before the catalog says that it is gone, and the reader looked at the
// catalog every now and then only: in between it answered that a directory cannot be listed, as if a disk had failed.
#[test]
fn an_attached_reader_of_a_deleted_topic_is_told_so_and_no_file_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    for round in 0..20 {
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        publish(&broker, 0..2);
        let attached = Broker::attach_read_only(directory.path()).unwrap();
        let mut reader = attached.reader().subscribe(&["orders"]).unwrap();
        // That the first is durable may be seen before the second is.
        let mut seen = values(&reader.poll(LONG).unwrap());
        if seen.len() == 1 {
            seen.extend(values(&reader.poll(LONG).unwrap()));
        }
        assert_eq!(seen, numbers(0..2));
        let deleter = broker.clone();
        let deleting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * 500));
            deleter.delete_topic("orders").unwrap();
        });
        let deadline = Instant::now() + LONG;
        let events = loop {
            assert!(Instant::now() < deadline, "round {round}");
            let records = reader.poll(Duration::from_millis(1)).unwrap();
            if !records.events().is_empty() {
                break records.events().to_vec();
            }
        };
        assert_eq!(events, [Event::TopicDeleted { topic: "orders".into() }]);
        assert!(reader.assignment().is_empty());
        deleting.join().unwrap();
    }
}

#[test]
fn an_attached_reader_tells_of_a_directory_that_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..2);
    broker.close().unwrap();
    let attached = Broker::attach_read_only(directory.path()).unwrap();
    let mut reader = attached.reader().subscribe(&["orders"]).unwrap();
    assert_eq!(values(&reader.poll(LONG).unwrap()), numbers(0..2));
    std::fs::rename(directory.path().join("orders-0"), directory.path().join("elsewhere")).unwrap();
    let error = reader.poll(LONG).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("orders-0"), "{error}");
}

#[test]
fn an_attached_reader_follows_the_writer_and_its_groups() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..2);
    let attached = Broker::attach_read_only(directory.path()).unwrap();
    let mut reader = attached.reader().subscribe(&["orders"]).unwrap();
    let mut seen = Vec::new();
    let mut read_until = |reader: &mut Consumer, count| {
        let deadline = Instant::now() + LONG;
        while seen.len() < count {
            assert!(Instant::now() < deadline, "{seen:?}");
            seen.extend(values(&reader.poll(Duration::from_millis(200)).unwrap()));
        }
        seen.clone()
    };
    assert_eq!(read_until(&mut reader, 2), numbers(0..2));
    publish(&broker, 2..5);
    assert_eq!(read_until(&mut reader, 5), numbers(0..5));
    assert!(matches!(attached.consumer("billing").subscribe(&["orders"]), Err(Error::ReadOnly)));
    assert!(attached.groups().unwrap().is_empty());

    let mut billing = broker.consumer("billing").max_records(3).subscribe(&["orders"]).unwrap();
    billing.poll(LONG).unwrap();
    billing.commit().wait().unwrap();
    common::eventually("the commit is seen", || {
        attached.describe_group("billing").is_ok_and(|group| group.positions[0].lag.records == 2)
    });
    assert!(matches!(attached.delete_group("billing"), Err(Error::ReadOnly)));
    assert_eq!(
        attached.preview_group_reset("billing", &[partition("orders", 0)], SeekTo::Earliest).unwrap()[0]
            .to
            .offset,
        Offset::ZERO
    );
}
