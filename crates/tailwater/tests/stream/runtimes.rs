//! The same under tokio, with one thread and with several, and under smol.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::{FutureExt, StreamExt, future};
use tailwater::{Broker, Consumer, Durability, Error, Message, PartitionId, TopicConfig};

use crate::common::partition;
use crate::common::reading::{broker_with, numbers, publish, values};

/// Runs `$body`, a function of no arguments that returns a future, under each runtime.
macro_rules! under_each_runtime {
    ($($name:ident: $body:expr;)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every body uses all of them")]
            use super::*;

            #[test]
            fn under_tokio_with_one_thread() {
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on($body());
            }

            #[test]
            fn under_tokio_with_several_threads() {
                let mut runtime = tokio::runtime::Builder::new_multi_thread();
                runtime.worker_threads(2).enable_time().build().unwrap().block_on($body());
            }

            #[test]
            fn under_smol() {
                smol::block_on($body());
            }
        }
    )*};
}

under_each_runtime! {
    what_was_committed_in_the_loop_is_not_read_again: commits_in_the_loop;
    futures_that_are_dropped_lose_nothing_and_double_nothing: drops_futures;
    a_dropped_receipt_cancels_nothing_and_a_dropped_send_sends_nothing: drops_sends;
    many_tasks_share_one_thread: many_tasks;
    a_pipeline_hands_every_record_on: pipeline;
}

/// Sleeps for about `wait`, whatever the runtime: smol's timer has a thread of its own.
async fn sleep(wait: Duration) {
    smol::Timer::after(wait).await;
}

/// What the stream has next, unless `wait` passes.
async fn next_within(consumer: &mut Consumer, wait: Duration) -> Option<tailwater::Records> {
    let next = async { consumer.next().await.map(|records| records.unwrap()) };
    next.or(async {
        sleep(wait).await;
        None
    })
    .await
}

async fn commits_in_the_loop() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let orders = broker.producer("orders").unwrap();
    let mut receipts = Vec::new();
    for n in 0..100 {
        receipts.push(orders.send_async(&n.to_string()).await.unwrap());
    }
    for (n, receipt) in (0..).zip(receipts) {
        assert_eq!(receipt.await.unwrap().offset.get(), n);
    }
    let mut billing = broker.consumer("billing").max_records(7).subscribe(&["orders"]).unwrap();
    let mut seen = Vec::new();
    while let Some(records) = billing.next().await {
        let records = records.unwrap();
        seen.extend(values(&records));
        if seen.len() >= 70 {
            // These are not committed.
            break;
        }
        billing.commit().await.unwrap();
    }
    assert_eq!(seen, numbers(0..70));
    drop(billing);
    broker.close().unwrap();

    let broker = Broker::open(directory.path()).unwrap();
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert_eq!(values(&billing.next().await.unwrap().unwrap()), numbers(63..100));
    billing.commit().await.unwrap();
    assert!(next_within(&mut billing, Duration::from_millis(20)).await.is_none());
}

async fn drops_futures() {
    const COUNT: u32 = 2000;
    let broker = broker_with(1);
    let publisher = {
        let broker = broker.clone();
        std::thread::spawn(move || {
            let orders = broker.producer("orders").unwrap();
            for n in 0..COUNT {
                let message = n.to_string();
                orders.send(Message::new(message.as_bytes())).unwrap().wait().unwrap();
            }
        })
    };
    let (mut seen, mut dropped, mut uncommitted) = (Vec::new(), 0, 0);
    let mut consumer = broker.consumer("billing").max_records(5).subscribe(&["orders"]).unwrap();
    let mut round = 0_u64;
    while seen.last() != Some(&(COUNT - 1).to_string()) {
        round += 1;
        // Dropped before it is polled, after one poll, or in the middle of a wait.
        drop(consumer.next());
        let polled = future::poll_once(consumer.next()).await;
        let records = match polled {
            Some(records) => records.map(Result::unwrap),
            None => {
                dropped += 1;
                next_within(&mut consumer, Duration::from_micros(round % 7 * 50)).await
            }
        };
        let Some(records) = records else {
            dropped += 1;
            continue;
        };
        seen.extend(values(&records));
        uncommitted += records.count();
        match round % 3 {
            0 => {
                consumer.commit().await.unwrap();
                uncommitted = 0;
            }
            // The commit is made, though nobody waits for it.
            1 => {
                drop(future::poll_once(consumer.commit()).await);
                uncommitted = 0;
            }
            _ => {}
        }
        if round.is_multiple_of(50) {
            drop(consumer);
            // What was read and not committed comes again, and nothing else does.
            seen.truncate(seen.len() - uncommitted);
            uncommitted = 0;
            consumer = broker.consumer("billing").max_records(5).subscribe(&["orders"]).unwrap();
        }
    }
    publisher.join().unwrap();
    assert_eq!(seen, numbers(0..COUNT));
    assert!(dropped > 0);
}

async fn drops_sends() {
    let broker = Broker::in_memory().unwrap();
    let config = TopicConfig::new().segment_bytes(4096).staging_bytes(4096).durability(Durability::Buffered);
    broker.create_topic("orders", &config).unwrap();
    let orders = broker.producer("orders").unwrap();
    let value = vec![b'x'; 1000];
    let (mut sent, mut dropped) = (0, 0);
    while dropped < 20 {
        match future::poll_once(orders.send_async(&value)).await {
            // Its receipt is dropped, and it is published all the same.
            Some(receipt) => {
                drop(receipt.unwrap());
                sent += 1;
            }
            // It waited for room, and is dropped while it does.
            None => {
                dropped += 1;
                drop(orders.send_async("never polled"));
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(sent < 100_000, "staging is never full");
    }
    orders.flush().await.unwrap();
    let stats = broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
    assert_eq!(stats.durable_offset.get(), sent);
}

async fn many_tasks() {
    const TASKS: u32 = 40;
    const EACH: u32 = 25;
    let broker = broker_with(4);
    // A local executor: all of them on this thread, whatever the runtime has.
    let executor = smol::LocalExecutor::new();
    let waiting = Rc::new(Cell::new(0));
    let readers: Vec<_> = (0..TASKS)
        .map(|n| {
            let mut consumer = broker.consumer(&format!("group {n}")).subscribe(&["orders"]).unwrap();
            let waiting = Rc::clone(&waiting);
            executor.spawn(async move {
                waiting.set(waiting.get() + 1);
                let mut seen = BTreeMap::new();
                let mut count = 0;
                while count < TASKS * EACH {
                    let records = consumer.next().await.unwrap().unwrap();
                    for record in records.iter() {
                        let next = seen.entry(record.partition()).or_insert(0);
                        assert_eq!(record.offset().get(), *next, "in order, none missing, none doubled");
                        *next += 1;
                        count += 1;
                    }
                    consumer.commit().await.unwrap();
                }
                count
            })
        })
        .collect();
    let writers: Vec<_> = (0..TASKS)
        .map(|n| {
            let orders = broker.producer("orders").unwrap();
            let waiting = Rc::clone(&waiting);
            executor.spawn(async move {
                // They begin when all readers wait.
                while waiting.get() < TASKS {
                    future::yield_now().await;
                }
                for _ in 0..EACH {
                    let message = Message::new(b"x").partition(PartitionId::new(n % 4));
                    orders.send_async(message).await.unwrap().await.unwrap();
                }
            })
        })
        .collect();
    let all = async {
        for writer in writers {
            writer.await;
        }
        for reader in readers {
            assert_eq!(reader.await, TASKS * EACH);
        }
    };
    executor.run(all).await;
}

async fn pipeline() {
    let broker = broker_with(1);
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    publish(&broker, 0..200);
    let mails = broker.producer("mails").unwrap();
    let mut billing = broker.consumer("billing").max_records(50).subscribe(&["orders"]).unwrap();
    let interrupter = billing.interrupter();
    let mut handed_on = 0;
    loop {
        let records = match billing.next().await.unwrap() {
            Err(Error::Interrupted) => break,
            records => records.unwrap(),
        };
        let mut receipts = Vec::new();
        for record in records.iter() {
            receipts.push(mails.send_async(record.value().unwrap_or_default()).await.unwrap());
        }
        for receipt in receipts {
            receipt.await.unwrap();
            handed_on += 1;
        }
        billing.commit().await.unwrap();
        if handed_on == 200 {
            interrupter.interrupt();
        }
    }
    broker.close().unwrap();
    assert!(matches!(billing.next().await, Some(Err(Error::Closed))));
    assert!(billing.next().await.is_none());
    assert_eq!(handed_on, 200);
}

#[test]
fn tasks_of_tokio_are_spawned_selected_and_shut_down() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    runtime.unwrap().block_on(async {
        let broker = broker_with(3);
        let (stop, _) = tokio::sync::broadcast::channel::<()>(1);
        let mut tasks = Vec::new();
        for n in 0..3 {
            let orders = partition("orders", n);
            let mut consumer = broker.consumer(&format!("group {n}")).assign(&[orders]).unwrap();
            let mut stopped = stop.subscribe();
            let mut tick = tokio::time::interval(Duration::from_micros(300));
            tasks.push(tokio::spawn(async move {
                let (mut seen, mut ticks) = (Vec::new(), 0);
                loop {
                    tokio::select! {
                        records = consumer.next() => {
                            seen.extend(values(&records.unwrap().unwrap()));
                            consumer.commit().await.unwrap();
                        }
                        _ = tick.tick() => ticks += 1,
                        _ = stopped.recv() => {
                            consumer.close().unwrap();
                            break (seen, ticks);
                        }
                    }
                }
            }));
        }
        let orders = broker.producer("orders").unwrap();
        for n in 0..600_u32 {
            let message = n.to_string();
            let message = Message::new(message.as_bytes()).partition(PartitionId::new(n % 3));
            orders.send_async(message).await.unwrap().await.unwrap();
        }
        let is_done = || {
            (0..3).all(|n| {
                let group = broker.describe_group(&format!("group {n}"));
                group.is_ok_and(|group| group.positions.iter().all(|position| position.lag.records == 0))
            })
        };
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.send(()).unwrap();
        for (n, task) in (0_u32..).zip(tasks) {
            let (seen, ticks) = task.await.unwrap();
            assert_eq!(seen, (0..200).map(|m| (3 * m + n).to_string()).collect::<Vec<_>>());
            assert!(ticks > 0);
        }
    });
}
