//! Publishing: in every way, at every durability, on disks that fail and fill up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{DATA, block_on, eventually, open, open_with_threads, partition, values_of};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{
    Broker, BrokerOptions, Durability, Error, InvalidBatch, ManualClock, Message, PartitionId, Producer,
    ProducerOptions, TopicConfig,
};

const EIO: i32 = 5;
const LIMIT: Duration = Duration::from_secs(30);

fn producer_on(broker: &Broker, config: &TopicConfig) -> Producer {
    broker.create_topic("orders", config).unwrap();
    broker.producer("orders").unwrap()
}

fn durable(broker: &Broker) -> u64 {
    broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap().durable_offset.get()
}

#[test]
fn what_is_acknowledged_as_durable_survives_a_power_cut() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    assert_eq!(orders.publish("one").unwrap().offset.get(), 0);
    let (second, third) = (orders.send("two").unwrap(), orders.send(b"three").unwrap());
    assert_eq!(block_on(third, LIMIT).expect("the sync thread completes it").unwrap().offset.get(), 2);
    second.wait().unwrap();

    let after = disk.crash(|_, _| false);
    let reopened = open(&after).unwrap();
    let durable_offset = reopened.embedded().unwrap().stats(&partition("orders", 0)).unwrap().durable_offset;
    assert_eq!(durable_offset.get(), 3);
    assert_eq!(values_of(&reopened, &after, "orders", 0), ["one", "two", "three"]);
}

#[test]
fn a_send_that_nobody_waits_for_is_synced_at_once() {
    let broker = Broker::in_memory().unwrap();
    let config = TopicConfig::new().sync_interval_ms(3_600_000).write_interval_ms(3_600_000);
    let orders = producer_on(&broker, &config);
    for n in 1..=20 {
        drop(orders.send("x").unwrap());
        eventually("it is durable", || durable(&broker) == n);
    }
}

#[test]
fn without_threads_a_task_waits_until_the_application_does_the_work() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    let mut receipt = orders.send("x").unwrap();
    assert!(block_on(&mut receipt, Duration::from_millis(20)).is_none());
    assert_eq!(durable(&broker), 0);
    assert!(broker.run_maintenance_once().unwrap().did_work);
    assert_eq!(block_on(receipt, Duration::ZERO).unwrap().unwrap().offset.get(), 0);
    assert_eq!(durable(&broker), 1);

    let mut flush = {
        orders.send("y").map(drop).unwrap();
        orders.flush()
    };
    assert!(block_on(&mut flush, Duration::from_millis(20)).is_none());
    broker.embedded().unwrap().run_maintenance_once().unwrap();
    block_on(flush, Duration::ZERO).unwrap().unwrap();
}

#[test]
fn lazy_records_are_written_and_synced_at_their_intervals_by_the_thread() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let config =
        TopicConfig::new().durability(Durability::Buffered).write_interval_ms(5).sync_interval_ms(10);
    let orders = producer_on(&broker, &config);
    for n in 1..=3 {
        orders.publish("x").unwrap();
        eventually("it is synced", || durable(&broker) == n);
        // Again when the thread has gone to sleep.
        std::thread::sleep(Duration::from_millis(120));
    }
    let stats = broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
    assert!(stats.syncs <= 6, "it does not sync without need: {stats:?}");
}

#[test]
fn the_maintenance_thread_sleeps_when_nothing_is_due() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    orders.publish("x").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let before = disk.operation_count();
    let report = broker.run_maintenance_once().unwrap();
    // Nothing but a roll by age, in seven days.
    assert!(!report.did_work);
    assert!(report.next_due.is_none_or(|due| due > Duration::from_secs(24 * 3600)), "{report:?}");
    assert_eq!(disk.operation_count(), before);
}

#[test]
fn a_manual_clock_decides_when_things_are_due() {
    let clock = Arc::new(ManualClock::default());
    let disk = SimDisk::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = BrokerOptions::new().maintenance(tailwater::Maintenance::Manual);
    let broker = options.clock(clock.clone()).open_on(storage, DATA).unwrap();
    let config =
        TopicConfig::new().durability(Durability::Buffered).sync_interval_ms(1000).write_interval_ms(100);
    producer_on(&broker, &config).publish("x").unwrap();
    let report = broker.run_maintenance_once().unwrap();
    assert!(!report.did_work);
    assert!(report.next_due.unwrap() <= Duration::from_millis(100));
    clock.advance_ms(100);
    assert!(broker.run_maintenance_once().unwrap().did_work);
    assert_eq!(durable(&broker), 0);
    clock.advance_ms(1000);
    broker.run_maintenance_once().unwrap();
    assert_eq!(durable(&broker), 1);
}

#[test]
fn a_key_keeps_its_partition_and_keyless_messages_spread() {
    let broker = Broker::in_memory().unwrap();
    let orders = producer_on(&broker, &TopicConfig::new().partitions(4).durability(Durability::Buffered));
    let keyed = |key: &'static str| orders.publish(Message::new(b"x").key(key.as_bytes())).unwrap().partition;
    // murmur2 of Apache Kafka, its sign bit cleared, modulo 4.
    assert_eq!([keyed("21"), keyed("foobar"), keyed("abc")].map(PartitionId::get), [0, 2, 3]);
    let mut counts = [0; 4];
    let large = vec![0; 4000];
    for _ in 0..160 {
        counts[orders.publish(&large).unwrap().partition.get() as usize] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
}

#[test]
fn a_batch_is_there_whole_and_in_order() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new().partitions(2));
    let messages = ["a", "b", "c"].map(|value| Message::new(value.as_bytes()));
    let at = orders.send_batch(PartitionId::new(1), &messages).unwrap().wait().unwrap();
    assert_eq!((at.partition.get(), at.offset.get()), (1, 0));
    let again = orders.send_batch(PartitionId::new(1), &messages).unwrap().wait().unwrap();
    assert_eq!(again.offset.get(), 3);
    let error = orders.send_batch(PartitionId::ZERO, &[]).unwrap_err();
    assert!(matches!(error, Error::InvalidBatch { reason: InvalidBatch::Empty, .. }), "{error}");
    assert!(orders.send_batch(PartitionId::new(2), &messages).is_err());
    assert_eq!(values_of(&broker, &disk, "orders", 1), ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_record_over_the_limit_is_refused_and_nothing_else_is() {
    let broker = Broker::in_memory().unwrap();
    let orders = producer_on(&broker, &TopicConfig::new().max_batch_bytes(4096));
    let error = orders.publish(&vec![0; 5000]).unwrap_err();
    let Error::RecordTooLarge { size_bytes, max_bytes, .. } = error else { panic!("{error}") };
    assert!(size_bytes > 5000 && max_bytes == 4096);
    assert_eq!(orders.publish(&vec![0; 3000]).unwrap().offset.get(), 0);
}

#[test]
fn the_epoch_and_the_offset_name_the_record_that_was_acknowledged() {
    let broker = Broker::in_memory().unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    let first = orders.publish("x").unwrap();
    broker.embedded().unwrap().truncate_to(&partition("orders", 0), first.offset).unwrap();
    let second = orders.publish("y").unwrap();
    assert_eq!(first.offset, second.offset);
    assert!(first.epoch < second.epoch);
}

#[test]
fn a_failed_sync_is_told_to_all_who_wait_and_to_all_who_come() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    orders.publish("x").unwrap();
    disk.fail_nth(1, EIO, true);
    let awaited = orders.send("y").and_then(|receipt| block_on(receipt, LIMIT).expect("it is told"));
    assert!(matches!(awaited, Err(Error::Failed { .. } | Error::Io { .. })), "{awaited:?}");
    disk.clear_faults();
    let later = orders.publish("z").unwrap_err();
    assert!(matches!(later, Error::Failed { .. }) && !later.is_retriable(), "{later}");
    assert!(later.to_string().contains("in orders-0: close the broker and open it again"), "{later}");
    assert_eq!(broker.stats().failed_partitions, 1);
    assert!(orders.flush().wait().is_err());
}

#[test]
fn a_full_disk_refuses_and_what_was_taken_is_synced_when_there_is_room() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new().segment_bytes(1 << 20));
    orders.publish("x").unwrap();
    disk.set_capacity(Some(1));
    let value = vec![b'y'; 8192];
    let mut taken = 0;
    let error = loop {
        match orders.send(&value) {
            Ok(_receipt) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000);
    };
    assert!(matches!(error, Error::DiskFull { .. }) && error.is_retriable(), "{error}");
    disk.set_capacity(None);
    orders.publish("z").unwrap();
    eventually("all is durable", || durable(&broker) == taken + 2);
}

#[test]
fn full_staging_is_an_error_for_those_who_do_not_wait_and_a_wait_for_the_others() {
    // Nothing is synced without threads, so that the second roll has to wait for a sync.
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let config = TopicConfig::new().segment_bytes(4096).staging_bytes(4096).durability(Durability::Buffered);
    let orders = producer_on(&broker, &config);
    let value = vec![b'x'; 1000];
    let mut full = None;
    for _ in 0..100 {
        if let Err(error) = orders.try_send(&value) {
            full = Some(error);
            break;
        }
    }
    let full = full.expect("at most two segments hold records that are not synced");
    assert!(matches!(full, Error::StagingFull { .. }) && full.is_retriable(), "{full}");

    // A producer with a limit of its own makes the room itself.
    let patient = broker.producer_with("orders", ProducerOptions::new().max_block(LIMIT)).unwrap();
    for _ in 0..50 {
        patient.publish(&value).unwrap();
    }
    let hasty = broker.producer_with("orders", ProducerOptions::new().max_block(Duration::ZERO)).unwrap();
    let started = Instant::now();
    assert!((0..100).any(|_| matches!(hasty.send(&value), Err(Error::StagingFull { .. }))));
    assert!(started.elapsed() < Duration::from_secs(10));
    // The one without waits as the topic says, and gets through.
    for _ in 0..50 {
        orders.send(&value).unwrap().wait().unwrap();
    }
}

#[test]
fn tasks_get_through_when_staging_is_full() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let config = TopicConfig::new().segment_bytes(4096).staging_bytes(4096).durability(Durability::Buffered);
    let orders = producer_on(&broker, &config);
    let value = vec![b'x'; 1000];
    for n in 0..300 {
        let receipt = block_on(orders.send_async(&value), LIMIT).expect("there is room in time").unwrap();
        assert_eq!(block_on(receipt, LIMIT).expect("it is acknowledged").unwrap().offset.get(), n);
    }
    block_on(orders.flush(), LIMIT).expect("it is flushed").unwrap();
    assert_eq!(durable(&broker), 300);
}

#[test]
fn the_future_of_a_send_does_nothing_before_it_is_polled() {
    let broker = Broker::in_memory().unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    drop(orders.send_async("never"));
    let at = block_on(async { orders.send_async("x").await?.await }, LIMIT).unwrap().unwrap();
    assert_eq!(at.offset.get(), 0);
}

#[test]
fn many_threads_publish_and_every_acknowledgement_names_its_own_record() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new().partitions(2).segment_bytes(16 * 1024));
    let mut acknowledged: Vec<(u32, u64, String)> = std::thread::scope(|scope| {
        let publish = |thread: u32| {
            let orders = orders.clone();
            move || {
                let value = |n| format!("{thread}-{n}");
                (0..100)
                    .map(|n| {
                        let at = match n % 3 {
                            0 => orders.publish(&value(n)).unwrap(),
                            1 => orders.send(&value(n)).unwrap().wait().unwrap(),
                            _ => block_on(orders.send(&value(n)).unwrap(), LIMIT).unwrap().unwrap(),
                        };
                        (at.partition.get(), at.offset.get(), value(n))
                    })
                    .collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(publish(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    acknowledged.sort();
    let id = broker.describe_topic("orders").unwrap().id;
    broker.close().unwrap();
    let found: Vec<_> = (0..2)
        .flat_map(|number| {
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let values = common::values(storage, id, DATA.as_ref(), &partition("orders", number));
            (0..).zip(values).map(move |(offset, value)| (number, offset, value))
        })
        .collect();
    assert_eq!(found, acknowledged);
}

#[test]
fn receipts_can_be_asked_for_a_while_and_again() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let orders = producer_on(&broker, &TopicConfig::new());
    let mut receipt = orders.send("x").unwrap();
    // A thread that waits leads the sync itself.
    assert_eq!(receipt.wait_timeout(LIMIT).expect("it is synced").unwrap().offset.get(), 0);
    assert_eq!(receipt.wait().unwrap().offset.get(), 0);
    assert_eq!(durable(&broker), 1);
}

#[test]
fn a_compacted_topic_takes_messages_with_a_key_only() {
    let broker = Broker::in_memory().unwrap();
    let config = TopicConfig::new().cleanup_policy(tailwater::CleanupPolicy::Compact);
    broker.create_topic("prices", &config).unwrap();
    let prices = broker.producer("prices").unwrap();
    prices.publish(Message::new(b"2.50").key(b"tea")).unwrap();
    let refused = |error: Error| {
        let text = error.to_string();
        assert!(
            matches!(error, Error::InvalidBatch { reason: InvalidBatch::MissingKey { .. }, .. }),
            "{text}"
        );
        assert!(text.contains("prices-0") && text.contains("cleanup_policy"), "{text}");
    };
    refused(prices.publish("no key").unwrap_err());
    refused(prices.send("no key").map(drop).unwrap_err());
    refused(prices.try_send("no key").map(drop).unwrap_err());
    let batch = [Message::new(b"2").key(b"espresso"), Message::new(b"no key")];
    refused(prices.send_batch(PartitionId::ZERO, &batch).map(drop).unwrap_err());
    // Tombstones have one. Nothing of what was refused has an offset.
    assert_eq!(prices.publish(Message::tombstone(b"tea")).unwrap().offset.get(), 1);
}
