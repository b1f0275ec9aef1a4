//! A broker's figures: what they tell, and that asking for them disturbs nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::reading::publish;
use common::{open, open_with_threads, partition};
use tailwater::storage::SimDisk;
use tailwater::{Broker, Durability, Error, GroupKind, Message, PartitionId, RecoveryOutcome, TopicConfig};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn nothing_is_opened_or_read_for_them() {
    let disk = SimDisk::new(1);
    {
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(3)).unwrap();
        publish(&broker, 0..5);
        let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        billing.poll(LONG).unwrap();
        billing.commit().wait().unwrap();
    }
    let broker = open(&disk).unwrap();
    let before = disk.operation_count();
    let stats = broker.stats();
    assert_eq!((stats.topic_count, stats.partition_count, stats.open_partitions), (1, 3, 0));
    let names: Vec<_> = stats.topics.iter().map(|topic| (&*topic.name, topic.is_internal)).collect();
    assert_eq!(names, [("__groups", true), ("orders", false)]);
    assert!(stats.topics.iter().flat_map(|topic| &topic.partitions).all(|known| known.open.is_none()));
    assert!(stats.groups.is_none());
    assert_eq!(disk.operation_count(), before);

    // The groups are read by who uses them. Where a partition is not open its end is not known.
    assert_eq!(broker.groups().unwrap().len(), 1);
    let stats = broker.stats();
    let billing = stats.group("billing").unwrap();
    assert_eq!((billing.kind, billing.member_count, billing.partitions.len()), (GroupKind::Consumer, 0, 3));
    assert_eq!(billing.partitions[0].committed.offset.get(), 5);
    assert!(billing.partitions.iter().all(|known| known.lag.is_none()));
    assert_eq!(stats.open_partitions, 1);
}

#[test]
fn they_tell_of_each_partition_and_group_what_was_done_and_where_it_is() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    broker.create_topic("clicks", &TopicConfig::new().durability(Durability::Buffered)).unwrap();
    publish(&broker, 0..10);
    let clicks = broker.producer("clicks").unwrap();
    drop(clicks.send("a click").unwrap());
    let mut billing = broker.consumer("billing").max_records(3).subscribe(&["orders"]).unwrap();
    billing.poll(LONG).unwrap();
    billing.commit().wait().unwrap();
    broker.embedded().unwrap().roll(&partition("orders", 0)).unwrap();
    broker
        .embedded()
        .unwrap()
        .delete_records_before(&partition("orders", 0), tailwater::Offset::new(2))
        .unwrap();

    let stats = broker.stats();
    let orders = stats.topic("ORDERS").unwrap();
    let [first, second] = &orders.partitions[..] else { panic!("{orders:?}") };
    let log = first.log().unwrap();
    let ends = [log.log_start_offset, log.durable_offset, log.written_offset, log.log_end_offset];
    assert_eq!(ends.map(tailwater::Offset::get), [2, 10, 10, 10]);
    assert_eq!((log.records_written, log.rolls, log.segment_count), (10, 1, 2));
    assert!(log.bytes_written > 0 && log.size_bytes > log.bytes_written);
    assert!(log.batches_written >= log.writes && log.sync_times.count == log.syncs);
    assert_eq!(first.open.as_ref().unwrap().recovery.outcome, RecoveryOutcome::Clean);
    assert_eq!(second.log().unwrap().records_written, 0);
    let clicks = *stats.topic("clicks").unwrap().partitions[0].log().unwrap();
    assert_eq!((clicks.log_end_offset.get(), clicks.durable_offset.get()), (1, 0));
    assert!(clicks.staged_bytes > 0 || clicks.records_written == 1);

    let group = stats.group("billing").unwrap();
    assert_eq!((group.member_count, group.lag_records()), (1, 7));
    let at: Vec<_> = group.partitions.iter().map(|known| known.partition.to_string()).collect();
    assert_eq!(at, ["orders-0", "orders-1"]);
    let lag = group.partitions[0].lag.unwrap();
    assert_eq!((lag.offset.get(), lag.end.get(), lag.records), (3, 10, 7));
    assert!(stats.group("kitchen").is_none() && stats.topic("mails").is_none());
    drop(billing);
    broker.delete_topic("orders").unwrap();
    let stats = broker.stats();
    assert!(stats.topic("orders").is_none());
    assert_eq!(stats.group("billing").unwrap().member_count, 0);
    assert!(stats.group("billing").unwrap().partitions.is_empty());
}

#[test]
fn a_failure_and_a_recovery_are_told() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..3);
    disk.fail_nth(1, 5, true);
    broker.producer("orders").unwrap().publish("lost").unwrap_err();
    let stats = broker.stats();
    assert_eq!(stats.failed_partitions, 1);
    let failure = stats.topic("orders").unwrap().partitions[0].failure.clone().unwrap();
    assert!(matches!(&failure, Error::Failed { partition: Some(at), .. } if **at == partition("orders", 0)));
    assert!(failure.to_string().contains("it was: cannot"), "{failure}");
    disk.clear_faults();
    let _ = broker.close();

    let broker = open(&disk.crash(|_, _| false)).unwrap();
    publish(&broker, 3..4);
    let stats = broker.stats();
    let open = stats.topic("orders").unwrap().partitions[0].open.clone().unwrap();
    assert_eq!((open.recovery.outcome, stats.failed_partitions), (RecoveryOutcome::Recovered, 0));
}

#[test]
fn they_can_be_asked_for_while_others_publish_commit_and_open() {
    let disk = SimDisk::new(1).with_sync_time(Duration::from_millis(2));
    let broker = open_with_threads(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(4).segment_bytes(8192)).unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (asking, done) = (broker.clone(), Arc::clone(&is_done));
        let asked = scope.spawn(move || {
            let (mut count, mut last) = (0, 0);
            while !done.load(Ordering::SeqCst) {
                let stats = asking.stats();
                let written =
                    stats.topic("orders").unwrap().partitions.iter().filter_map(|known| known.log());
                let written = written
                    .inspect(|log| {
                        assert!(log.durable_offset <= log.log_end_offset);
                    })
                    .map(|log| log.records_written)
                    .sum();
                assert!(last <= written);
                (last, count) = (written, count + 1);
            }
            count
        });
        let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        let orders = broker.producer("orders").unwrap();
        for n in 0..100 {
            let message = Message::new(&[b'x'; 500]).partition(PartitionId::new(n % 4));
            orders.publish(message).unwrap();
            consumer.poll(LONG).unwrap();
            consumer.commit().wait().unwrap();
        }
        is_done.store(true, Ordering::SeqCst);
        assert!(asked.join().unwrap() > 20);
    });
    let stats = broker.stats();
    assert_eq!(stats.group("billing").unwrap().lag_records(), 0);
    // A closed broker tells what it was.
    broker.close().unwrap();
    assert_eq!(broker.stats().topic_count, 1);
}
