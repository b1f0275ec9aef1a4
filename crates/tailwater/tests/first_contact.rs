//! Where a group starts is found out once: an attempt that fails half-way has settled it for whoever comes next.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use common::members::read;
use common::{open, partition};
use tailwater::storage::SimDisk;
use tailwater::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater::{Broker, Consumer, Error, Event, Message, Offset, PartitionId, Reset, Result, TopicConfig};

const EACCES: i32 = 13;
const ENOSPC: i32 = 28;

fn publish(broker: &Broker, value: &str) {
    let orders = broker.producer("orders").unwrap();
    for number in 0..broker.describe_topic("orders").unwrap().partition_count {
        let message = Message::new(value.as_bytes()).partition(PartitionId::new(number));
        orders.publish(message).unwrap();
    }
}

/// A broker with a topic of two partitions and three records in each, all open, so that faults hit what comes later.
fn broker_with_orders(disk: &SimDisk) -> Broker {
    let broker = open(disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    (0..3).for_each(|_| publish(&broker, "before"));
    assert_eq!(broker.groups().unwrap().len(), 0);
    broker
}

fn subscribe(broker: &Broker, reset: Reset) -> Result<Consumer> {
    broker.consumer("billing").reset(reset).subscribe(&["orders"])
}

fn poll(consumer: &mut Consumer) -> Vec<String> {
    read(&consumer.poll(Duration::ZERO).unwrap())
}

/// Has the group come to its topic on a full disk, and whether that failed. The log of the groups has `used_bytes` or a
/// little more by then: where that is about what is reserved for it, it is the staging of the commit that fails.
fn fails_to_commit(disk: &SimDisk, broker: &Broker, used_bytes: usize) -> bool {
    let filler = broker.consumer("filler").assign(&[partition("orders", 0)]).unwrap();
    let position = filler.position(&partition("orders", 0)).unwrap();
    let metadata = "m".repeat(4_000);
    for size_bytes in
        (0..used_bytes).step_by(metadata.len()).map(|from| metadata.len().min(used_bytes - from))
    {
        filler.commit_with_metadata(&[(position, &metadata[..size_bytes])]).wait().unwrap();
    }
    filler.close().unwrap();
    disk.fail_nth(1, ENOSPC, true);
    let refused = subscribe(broker, Reset::Latest);
    disk.clear_faults();
    refused.is_err()
}

/// A broker whose group has found out where it starts, behind three records, and could not commit it.
fn half_met() -> Vec<(SimDisk, Broker)> {
    let half_met = |used_bytes: usize| {
        let disk = SimDisk::new(1);
        let broker = broker_with_orders(&disk);
        let has_failed = fails_to_commit(&disk, &broker, used_bytes);
        (has_failed && broker.describe_group("billing").is_err()).then_some((disk, broker))
    };
    let found: Vec<_> = (58_000..65_000).step_by(100).filter_map(half_met).collect();
    assert!(!found.is_empty(), "the commit of the start never failed");
    found
}

fn starts(consumer: &Consumer) -> [Option<u64>; 2] {
    let committed = |number| consumer.committed(&partition("orders", number)).unwrap();
    [0, 1].map(|number| committed(number).map(|cursor| cursor.offset.get()))
}

// The first attempt found out where the group starts and failed to commit it. The second found it out anew, at the end of
// that time, and the group missed what had been published in between.
#[test]
fn what_is_published_after_a_first_contact_that_failed_is_not_missed() {
    for (_, broker) in half_met() {
        publish(&broker, "between");
        let mut consumer = subscribe(&broker, Reset::Latest).unwrap();
        assert_eq!(starts(&consumer), [Some(3); 2]);
        assert_eq!(poll(&mut consumer), ["between"; 2]);
    }
}

#[test]
fn whoever_comes_after_a_first_contact_that_failed_starts_there_whatever_its_own_policy() {
    let (_, broker) = half_met().remove(0);
    publish(&broker, "between");
    let mut consumer = subscribe(&broker, Reset::Earliest).unwrap();
    assert_eq!(poll(&mut consumer), ["between"; 2]);
    // Another group is another group, and what is committed counts from then on.
    let other = broker.consumer("kitchen").reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    assert_eq!(starts(&other), [Some(4); 2]);
    consumer.commit().wait().unwrap();
    drop(consumer);
    assert_eq!(starts(&subscribe(&broker, Reset::Latest).unwrap()), [Some(4); 2]);
}

#[test]
fn a_start_that_was_truncated_before_it_was_committed_is_never_beyond_the_end() {
    let (disk, broker) = half_met().remove(0);
    let embedded = broker.embedded().unwrap();
    embedded.truncate_to(&partition("orders", 0), Offset::new(1)).unwrap();
    embedded.truncate_to(&partition("orders", 1), Offset::new(1)).unwrap();
    // Their offsets are others' now.
    (0..3).for_each(|_| publish(&broker, "between"));
    let mut consumer = subscribe(&broker, Reset::Latest).unwrap();
    assert_eq!(starts(&consumer), [Some(1); 2]);
    assert_eq!(poll(&mut consumer), ["between"; 6]);
    let survivor = open(&disk.crash(|_, _| false)).unwrap();
    let described = survivor.describe_group("billing").unwrap();
    assert!(described.positions.iter().all(|known| known.committed.offset == Offset::new(1)));
}

#[test]
fn a_start_that_was_removed_before_it_was_committed_is_a_gap() {
    let (_, broker) = half_met().remove(0);
    publish(&broker, "between");
    publish(&broker, "behind it");
    broker.embedded().unwrap().delete_records_before(&partition("orders", 0), Offset::new(4)).unwrap();
    let mut consumer = subscribe(&broker, Reset::Latest).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(read(&records), ["behind it", "between", "behind it"]);
    let [Event::Gap { from, to, .. }] = records.events() else { panic!("{:?}", records.events()) };
    assert_eq!((from.get(), to.get()), (3, 4));
}

#[test]
fn a_start_is_forgotten_with_the_topic_and_by_an_administrator() {
    let (_, broker) = half_met().remove(0);
    broker.delete_topic("orders").unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    publish(&broker, "another topic's");
    assert_eq!(starts(&subscribe(&broker, Reset::Latest).unwrap()), [Some(1); 2]);

    let (_, broker) = half_met().remove(0);
    publish(&broker, "between");
    broker.create_group("billing", &["orders"], Reset::Latest).unwrap();
    assert_eq!(starts(&subscribe(&broker, Reset::Earliest).unwrap()), [Some(4); 2]);

    let (_, broker) = half_met().remove(0);
    publish(&broker, "between");
    assert!(matches!(broker.delete_group("billing"), Err(Error::UnknownGroup { .. })));
    assert_eq!(starts(&subscribe(&broker, Reset::Latest).unwrap()), [Some(4); 2]);

    let (disk, broker) = half_met().remove(0);
    publish(&broker, "between");
    drop(broker);
    // Nothing of it is on disk: the next process finds out anew.
    let broker = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(starts(&subscribe(&broker, Reset::Latest).unwrap()), [Some(4); 2]);
}

// Where one partition could not be opened, the others were met without it. The topic was known to the group then, and who
// came next read the one that was left from its start, as if it had been added since.
#[test]
fn a_topic_is_met_as_a_whole_or_not_at_all() {
    let disk = SimDisk::new(1);
    broker_with_orders(&disk).close().unwrap();
    let mut repeated = 0;
    for nth in 1..20 {
        let disk = disk.crash(|_, _| true);
        let broker = open(&disk).unwrap();
        assert_eq!(broker.groups().unwrap().len(), 0);
        let action = FaultAction::Errno(EACCES);
        disk.plan_fault(Fault { target: FaultTarget::Opens, nth, action, is_lasting: false });
        let first = subscribe(&broker, Reset::Latest);
        disk.clear_faults();
        if first.is_ok() {
            continue;
        }
        let met = broker.describe_group("billing").map_or(0, |described| described.positions.len());
        assert!([0, 2].contains(&met), "open {nth}: {met}");
        // The log of the groups itself may have failed.
        let Ok(mut consumer) = subscribe(&broker, Reset::Latest) else { continue };
        repeated += 1;
        assert_eq!(starts(&consumer), [Some(3); 2], "open {nth}");
        publish(&broker, "after");
        assert_eq!(poll(&mut consumer), ["after"; 2], "open {nth}");
    }
    assert!(repeated >= 2, "{repeated}");
}
