//! A consumer whose disk fails for a moment misses nothing, and is told of no commit that can still be lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use common::{open, partition};
use tailwater::storage::SimDisk;
use tailwater::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater::{Broker, Error, Event, Message, PartitionId, Reset, TopicConfig};

const EACCES: i32 = 13;
const ENOSPC: i32 = 28;

fn committed(disk: &SimDisk, group: &str) -> Option<u64> {
    let described = open(disk).unwrap().describe_group(group);
    match described {
        Ok(described) => described.positions.first().map(|position| position.committed.offset.get()),
        Err(Error::UnknownGroup { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn publish(broker: &Broker, number: u32, value: &str) {
    let message = Message::new(value.as_bytes()).partition(PartitionId::new(number));
    broker.producer("orders").unwrap().publish(message).unwrap();
}

#[test]
fn a_commit_with_nothing_new_is_acknowledged_when_the_one_before_is_durable() {
    // The receipt of the first commit is dropped. The second found nothing new, and was acknowledged at once; a power cut
    // then took both. Now it waits for whatever of the consumer's commits is not durable.
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0, "an espresso");
    let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 1);
    drop(consumer.commit());
    consumer.commit().wait().unwrap();
    assert_eq!(committed(&disk.crash(|_, _| false), "billing"), Some(1));
    // There is nothing to wait for now, and nothing is written.
    let operations = disk.operation_count();
    consumer.commit().wait().unwrap();
    assert_eq!(disk.operation_count(), operations);
}

#[test]
fn a_commit_that_is_repeated_after_an_error_is_not_acknowledged_before_it_is_durable() {
    let (mut failed, mut repeated) = (0, 0);
    for nth in 1..12 {
        let disk = SimDisk::new(2);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        publish(&broker, 0, "an espresso");
        let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 1);
        disk.fail_nth(nth, ENOSPC, false);
        if consumer.commit().wait().is_ok() {
            continue;
        }
        failed += 1;
        if consumer.commit().wait().is_ok() {
            repeated += 1;
            assert_eq!(committed(&disk.crash(|_, _| false), "billing"), Some(1), "operation {nth}");
        }
    }
    assert!(failed >= 2 && repeated >= 1, "{failed} failed, {repeated} of them were repeated");
}

#[test]
fn a_group_is_handed_no_record_before_its_start_is_durable() {
    // The first attempt to subscribe staged the start, and failed. The second found it committed, and read on; a power cut
    // took it, and the group would have started at the end of that time: behind records that it was never handed.
    let mut repeated = 0;
    for nth in 1..12 {
        let disk = SimDisk::new(3);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        for _ in 0..3 {
            publish(&broker, 0, "before");
        }
        let subscribe = || broker.consumer("billing").reset(Reset::Latest).subscribe(&["orders"]);
        disk.fail_nth(nth, ENOSPC, false);
        if subscribe().is_ok() {
            continue;
        }
        let Ok(mut consumer) = subscribe() else { continue };
        repeated += 1;
        publish(&broker, 0, "after");
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 1);
        assert_eq!(committed(&disk.crash(|_, _| false), "billing"), Some(3), "operation {nth}");
    }
    assert!(repeated >= 1);
}

#[test]
fn a_partition_that_could_not_be_added_is_added_at_a_later_poll() {
    // An added partition that could not be opened was forgotten: its records were never read, and nothing told so.
    for is_group in [false, true] {
        let disk = SimDisk::new(4);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        broker.create_topic("mails", &TopicConfig::new()).unwrap();
        let options = if is_group { broker.consumer("billing") } else { broker.reader() };
        let mut consumer = options.subscribe(&["orders", "mails"]).unwrap();
        broker.alter_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
        broker.delete_topic("mails").unwrap();
        publish(&broker, 0, "to the old one");
        let action = FaultAction::Errno(EACCES);
        disk.plan_fault(Fault { target: FaultTarget::Opens, nth: 1, action, is_lasting: true });
        // The others go on meanwhile, and nothing is lost of what there is to tell.
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert_eq!((records.count(), records.events().len()), (1, 1));
        assert!(matches!(&records.events()[0], Event::TopicDeleted { topic } if &**topic == "mails"));
        assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Io { .. })));
        disk.clear_faults();
        publish(&broker, 1, "to the new one");
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 1);
        assert_eq!(consumer.assignment(), [partition("orders", 0), partition("orders", 1)]);
    }
}
