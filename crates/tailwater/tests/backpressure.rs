//! Publishing stops while a group is too far behind, and goes on when it is not; nobody waits for himself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::reading::{broker_with, drain};
use common::{block_on, eventually, open, partition};
use tailwater::storage::SimDisk;
use tailwater::{
    Broker, Consumer, Error, LagLimit, LagUnit, Message, Offset, PartitionId, Producer, ProducerOptions,
    Reset, TopicConfig,
};

const LONG: Duration = Duration::from_secs(20);

fn producer(broker: &Broker, limit: LagLimit) -> Producer {
    broker.producer_with("orders", ProducerOptions::new().lag_limit(limit)).unwrap()
}

fn to(number: u32) -> Message<'static> {
    Message::new(b"x").partition(PartitionId::new(number))
}

fn lagging<T: std::fmt::Debug>(published: tailwater::Result<T>) -> (u64, u64, LagUnit) {
    match published {
        Err(Error::GroupLagging { group, lag, limit, unit }) => {
            assert_eq!(&*group, "billing");
            (lag, limit, unit)
        }
        other => panic!("{other:?}"),
    }
}

fn read(consumer: &mut Consumer) -> usize {
    let count = drain(consumer).len();
    consumer.commit().wait().unwrap();
    count
}

#[test]
fn the_whole_topic_counts_and_what_is_committed_makes_room() {
    let broker = broker_with(3);
    let mut billing = broker.consumer("billing").max_records(4).subscribe(&["orders"]).unwrap();
    let orders = producer(&broker, LagLimit::new("billing").max_records(10));
    for n in 0..10 {
        orders.publish(to(n % 3)).unwrap();
    }
    for refused in
        [orders.publish(to(0)).map(drop), orders.send(to(1)).map(drop), orders.try_send(to(2)).map(drop)]
    {
        assert!(refused.as_ref().unwrap_err().is_retriable());
        assert_eq!(lagging(refused), (10, 10, LagUnit::Records));
    }
    let error = orders.publish(to(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "group billing is 10 records behind, and 10 are allowed: wait until it has committed more, or raise the limit"
    );
    // Read is not done.
    let records = billing.poll(LONG).unwrap();
    assert_eq!(records.count(), 4);
    lagging(orders.publish(to(0)));
    billing.commit().wait().unwrap();
    for n in 0..4 {
        orders.publish(to(n % 3)).unwrap();
    }
    lagging(orders.publish(to(0)));
    assert_eq!(broker.stats().group("billing").unwrap().lag_records(), 10);
    // The lag of others is no matter, and a producer without a limit is not stopped.
    broker.producer("orders").unwrap().publish(to(0)).unwrap();
    assert_eq!(lagging(orders.publish(to(0))), (11, 10, LagUnit::Records));
    // What was not durable yet counts too.
    assert_eq!(read(&mut billing), 11);
    let receipts: Vec<_> = (0..10).map(|n| orders.send(to(n % 3)).unwrap()).collect();
    lagging(orders.send(to(0)));
    for receipt in receipts {
        receipt.wait().unwrap();
    }
}

#[test]
fn a_batch_counts_as_a_whole_and_one_of_any_size_is_taken_when_nothing_is_behind() {
    let broker = broker_with(1);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let orders = producer(&broker, LagLimit::new("billing").max_records(5));
    let batch = [Message::new(b"x"); 8];
    orders.send_batch(PartitionId::ZERO, &batch).unwrap().wait().unwrap();
    assert_eq!(lagging(orders.publish("y")), (8, 5, LagUnit::Records));
    read(&mut billing);
    orders.send_batch(PartitionId::ZERO, &batch[..3]).unwrap().wait().unwrap();
    assert_eq!(lagging(orders.send_batch(PartitionId::ZERO, &batch[..3])), (3, 5, LagUnit::Records));
    orders.send_batch(PartitionId::ZERO, &batch[..2]).unwrap().wait().unwrap();
    lagging(orders.publish("y"));
}

#[test]
fn bytes_are_counted_as_they_lie_on_the_disk() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new().segment_bytes(16 * 1024)).unwrap();
    let mut billing = broker.consumer("billing").max_records(10).subscribe(&["orders"]).unwrap();
    let orders = producer(&broker, LagLimit::new("billing").max_bytes(100_000));
    let value = vec![b'x'; 1000];
    let publish_all = || {
        let mut count = 0_u64;
        loop {
            match orders.publish(&value) {
                Ok(_) => count += 1,
                refused => return (count, lagging(refused)),
            }
        }
    };
    let (count, (lag, limit, unit)) = publish_all();
    let stats = broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
    assert_eq!((limit, unit), (100_000, LagUnit::Bytes));
    // Each is in a batch of its own, and segments that were sealed have a footer.
    assert!((80..=95).contains(&count), "{count}");
    assert!((95_000..=100_000).contains(&lag), "{lag}");
    assert!(lag >= stats.bytes_written && lag - stats.bytes_written < 8 * 512, "{lag} {stats:?}");
    billing.poll(LONG).unwrap();
    billing.commit().wait().unwrap();
    let (more, _) = publish_all();
    assert!((8..=12).contains(&more), "{more}");
}

#[test]
fn a_group_that_is_not_there_stops_nobody_and_one_that_was_created_counts() {
    let broker = broker_with(2);
    let orders = producer(&broker, LagLimit::new("billing").max_records(2));
    for _ in 0..50 {
        orders.publish(to(0)).unwrap();
    }
    broker.create_group("billing", &["orders"], Reset::Latest).unwrap();
    // What was allowed while nobody was behind is used up first: here nothing was, so the lag is looked at.
    orders.publish(to(1)).unwrap();
    orders.publish(to(1)).unwrap();
    lagging(orders.publish(to(0)));
    broker.delete_group("billing").unwrap();
    orders.publish(to(0)).unwrap();
    let bad = broker.producer_with("orders", ProducerOptions::new().lag_limit(LagLimit::new("")));
    assert!(matches!(bad, Err(Error::InvalidGroupId { .. })));
}

#[test]
fn the_lag_of_an_earlier_run_counts_from_the_first_message() {
    let disk = SimDisk::new(1);
    {
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
        broker.create_group("billing", &["orders"], Reset::Earliest).unwrap();
        for n in 0..7 {
            broker.producer("orders").unwrap().publish(to(n % 2)).unwrap();
        }
    }
    let broker = open(&disk).unwrap();
    let orders = producer(&broker, LagLimit::new("billing").max_records(5));
    assert_eq!(lagging(orders.publish(to(0))), (7, 5, LagUnit::Records));
    // Records that are gone are nobody's lag.
    let embedded = broker.embedded().unwrap();
    embedded.delete_records_before(&partition("orders", 0), Offset::new(4)).unwrap();
    orders.publish(to(0)).unwrap();
}

#[test]
fn who_waits_is_let_through_by_a_commit_and_no_more_are_behind_than_allowed() {
    const PER_THREAD: u64 = 500;
    const THREADS: u64 = 3;
    let broker = broker_with(2);
    let mut billing = broker.consumer("billing").max_records(7).subscribe(&["orders"]).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let highest = AtomicU64::new(0);
    let read = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let orders = producer(&broker, LagLimit::new("billing").max_records(20).waiting());
            scope.spawn(move || {
                for n in 0..PER_THREAD {
                    orders.send(to(u32::try_from(n % 2).unwrap())).unwrap().wait().unwrap();
                }
            });
        }
        let mut read = 0;
        let deadline = Instant::now() + LONG;
        while read < PER_THREAD * THREADS {
            assert!(Instant::now() < deadline, "{read} read");
            let records = billing.poll(Duration::from_millis(200)).unwrap();
            read += records.count() as u64;
            let lag: u64 = billing.assignment().iter().map(|at| billing.lag(at).unwrap().records).sum();
            highest.fetch_max(lag, Ordering::Relaxed);
            billing.commit().wait().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        read
    });
    assert_eq!(read, PER_THREAD * THREADS);
    let highest = highest.load(Ordering::Relaxed);
    assert!(highest > 10 && highest <= 20 + THREADS, "{highest}");
}

#[test]
fn a_wait_ends_in_time_so_a_thread_that_reads_what_it_publishes_is_told_and_reads_on() {
    let broker = broker_with(1);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let options = ProducerOptions::new().max_block(Duration::from_millis(40));
    let limit = LagLimit::new("billing").max_records(3).waiting();
    let orders = broker.producer_with("orders", options.lag_limit(limit)).unwrap();
    let (mut published, mut told) = (0, 0);
    while published < 10 {
        let started = Instant::now();
        match orders.publish("x") {
            Ok(_) => published += 1,
            refused => {
                lagging(refused);
                assert!(started.elapsed() >= Duration::from_millis(40));
                assert!(started.elapsed() < LONG);
                told += 1;
                assert_eq!(read(&mut billing), 3);
            }
        }
    }
    assert_eq!(told, 3);
    // Without a limit of its own it is as long as the topic says.
    broker.alter_topic("orders", &TopicConfig::new().max_block_ms(30)).unwrap();
    let orders = producer(&broker, LagLimit::new("billing").max_records(1).waiting());
    let started = Instant::now();
    lagging(orders.publish("x"));
    assert!((Duration::from_millis(30)..LONG).contains(&started.elapsed()));
    // A call that must not wait does not.
    let hasty = producer(&broker, LagLimit::new("billing").max_records(1).waiting());
    broker.alter_topic("orders", &TopicConfig::new().max_block_ms(3_600_000)).unwrap();
    lagging(hasty.try_send("x"));
}

#[test]
fn who_waits_is_told_that_the_topic_or_the_broker_is_gone() {
    for is_deleted in [true, false] {
        let broker = broker_with(1);
        broker.create_group("billing", &["orders"], Reset::Earliest).unwrap();
        let orders = producer(&broker, LagLimit::new("billing").max_records(1).waiting());
        orders.publish("x").unwrap();
        let waiting = std::thread::spawn(move || orders.publish("y"));
        std::thread::sleep(Duration::from_millis(30));
        if is_deleted {
            broker.delete_topic("orders").unwrap();
        } else {
            broker.close().unwrap();
        }
        let told = waiting.join().unwrap().unwrap_err();
        match is_deleted {
            true => assert!(matches!(told, Error::UnknownTopic { .. }), "{told}"),
            false => assert!(matches!(told, Error::Closed), "{told}"),
        }
    }
}

#[test]
fn a_task_waits_for_the_group_and_can_be_cancelled_while_it_does() {
    let broker = broker_with(1);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let orders = producer(&broker, LagLimit::new("billing").max_records(2).waiting());
    for _ in 0..2 {
        block_on(orders.send_async("x"), LONG).unwrap().unwrap().wait().unwrap();
    }
    // Dropped while it waits: nothing is sent.
    assert!(block_on(orders.send_async("never"), Duration::from_millis(20)).is_none());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let receipt = block_on(orders.send_async("y"), LONG).expect("the group has committed").unwrap();
            block_on(receipt, LONG).expect("it is synced").unwrap().offset.get()
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!sending.is_finished());
        assert_eq!(read(&mut billing), 2);
        assert_eq!(sending.join().unwrap(), 2);
    });
    // Where it was not to wait, it is told at once.
    let hasty = producer(&broker, LagLimit::new("billing").max_records(1));
    lagging(block_on(hasty.send_async("z"), LONG).unwrap());
    // A task that waits is woken by the closing.
    let closing = broker.clone();
    orders.publish("fills it").unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| block_on(orders.send_async("late"), LONG).expect("it is told"));
        std::thread::sleep(Duration::from_millis(20));
        closing.close().unwrap();
        assert!(matches!(sending.join().unwrap(), Err(Error::Closed)));
    });
}

#[test]
fn a_reset_of_the_group_and_the_removal_of_records_let_those_through_who_wait() {
    let all = [partition("orders", 0)];
    let relieve: [&dyn Fn(&Broker); 3] = [
        &|broker| drop(broker.reset_group("billing", &all, tailwater::SeekTo::Latest).unwrap()),
        &|broker| broker.embedded().unwrap().delete_records_before(&all[0], Offset::new(1)).unwrap(),
        &|broker| broker.embedded().unwrap().truncate_to(&all[0], Offset::ZERO).unwrap(),
    ];
    for relieve in relieve {
        let broker = broker_with(1);
        broker.create_group("billing", &["orders"], Reset::Earliest).unwrap();
        let orders = producer(&broker, LagLimit::new("billing").max_records(1).waiting());
        orders.publish("x").unwrap();
        let waiting = std::thread::spawn(move || orders.publish("y").unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        relieve(&broker);
        eventually("it is let through", || waiting.is_finished());
        waiting.join().unwrap();
    }
}
