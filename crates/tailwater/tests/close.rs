//! Closing: once, in order, whoever does it, and told to everybody who waits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{block_on, eventually, open, open_with_threads, partition, values_of};
use tailwater::storage::SimDisk;
use tailwater::{Broker, Durability, Error, ProducerOptions, RecoveryOutcome, TopicConfig};

const EIO: i32 = 5;

fn with_orders(broker: Broker) -> Broker {
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    broker
}

fn outcome(broker: &Broker) -> RecoveryOutcome {
    broker.embedded().unwrap().recovery_report(&partition("orders", 0)).unwrap().outcome
}

#[test]
fn a_close_makes_everything_durable_and_the_next_open_need_not_recover() {
    let disk = SimDisk::new(1);
    let broker = with_orders(open(&disk).unwrap());
    let buffered = ProducerOptions::new().durability(Durability::Buffered);
    broker.producer_with("orders", buffered).unwrap().publish("x").unwrap();
    let report = broker.close().unwrap();
    assert_eq!((report.closed_partitions, report.failures.len()), (1, 0));

    let disk = disk.crash(|_, _| false);
    let broker = open(&disk).unwrap();
    assert_eq!(outcome(&broker), RecoveryOutcome::Clean);
    assert_eq!(values_of(&broker, &disk, "orders", 0), ["x"]);
}

#[test]
fn closing_again_tells_the_same_and_handles_answer_closed() {
    let broker = with_orders(Broker::in_memory().unwrap());
    let orders = broker.producer("orders").unwrap();
    let receipt = orders.send("x").unwrap();
    let clone = broker.clone();
    assert_eq!(broker.close().unwrap().closed_partitions, 1);
    assert_eq!(clone.close().unwrap().closed_partitions, 1);
    assert_eq!(receipt.wait().unwrap().offset.get(), 0, "the close made it durable");

    assert!(matches!(orders.publish("y"), Err(Error::Closed)));
    assert!(matches!(orders.try_send("y"), Err(Error::Closed)));
    assert!(matches!(block_on(orders.send_async("y"), Duration::from_secs(10)), Some(Err(Error::Closed))));
    orders.flush().wait().unwrap();
    block_on(orders.flush(), Duration::from_secs(10)).expect("it is finished").unwrap();
    assert!(matches!(clone.topics(), Err(Error::Closed)));
    assert!(matches!(clone.producer("orders"), Err(Error::Closed)));
    assert!(matches!(clone.create_topic("mails", &TopicConfig::new()), Err(Error::Closed)));
    assert!(matches!(clone.run_maintenance_once(), Err(Error::Closed)));
    assert_eq!(clone.stats().background_threads, 0);
}

#[test]
fn the_last_clone_closes_and_producers_do_not_keep_a_broker_open() {
    let disk = SimDisk::new(1);
    let broker = with_orders(open_with_threads(&disk).unwrap());
    let orders = broker.producer("orders").unwrap();
    let clone = broker.clone();
    drop(broker);
    orders.publish("x").unwrap();
    let receipt = orders.send("y").unwrap();
    drop(clone);
    assert!(matches!(orders.publish("z"), Err(Error::Closed)));
    receipt.wait().unwrap();
    let broker = open(&disk).unwrap();
    assert_eq!(outcome(&broker), RecoveryOutcome::Clean);
    assert_eq!(values_of(&broker, &disk, "orders", 0), ["x", "y"]);
}

#[test]
fn tasks_that_wait_are_woken_by_the_close() {
    let disk = SimDisk::new(1);
    // Without threads nobody else would complete them.
    let broker = with_orders(open(&disk).unwrap());
    let orders = broker.producer("orders").unwrap();
    let (receipt, flush) = (orders.send("x").unwrap(), orders.flush());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(receipt, Duration::from_secs(30)));
        let flushing = scope.spawn(|| block_on(flush, Duration::from_secs(30)));
        std::thread::sleep(Duration::from_millis(20));
        broker.close().unwrap();
        waiting.join().unwrap().expect("it is woken").unwrap();
        flushing.join().unwrap().expect("it is woken").unwrap();
    });
}

#[test]
fn threads_that_close_and_publish_at_once_all_come_to_an_end() {
    for _ in 0..20 {
        let disk = SimDisk::new(1);
        let broker = with_orders(open_with_threads(&disk).unwrap());
        let acknowledged = Mutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let orders = broker.producer("orders").unwrap();
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    loop {
                        match orders.publish("x") {
                            Ok(_) => *acknowledged.lock().unwrap() += 1,
                            Err(error) => break assert!(matches!(error, Error::Closed), "{error}"),
                        }
                    }
                });
            }
            eventually("something is published", || *acknowledged.lock().unwrap() > 10);
            for _ in 0..2 {
                let broker = broker.clone();
                scope.spawn(move || broker.close().unwrap());
            }
        });
        let broker = open(&disk).unwrap();
        let kept = values_of(&broker, &disk, "orders", 0).len();
        assert!(kept >= *acknowledged.lock().unwrap());
    }
}

#[test]
fn a_close_that_cannot_sync_says_where_and_frees_the_directory() {
    let disk = SimDisk::new(1);
    let broker = with_orders(open(&disk).unwrap());
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    for topic in ["orders", "mails"] {
        drop(broker.producer(topic).unwrap().send("x").unwrap());
    }
    disk.fail_nth(1, EIO, true);
    let error = broker.close().unwrap_err();
    let Error::NotClosedCleanly(report) = &error else { panic!("{error}") };
    assert_eq!((report.closed_partitions, report.failures.len()), (0, 2));
    let text = error.to_string();
    assert!(
        text.starts_with("the broker is closed, but 2 of 2 open partitions could not be closed"),
        "{text}"
    );
    assert!(matches!(broker.close(), Err(Error::NotClosedCleanly(_))));
    disk.clear_faults();
    let broker = open(&disk).unwrap();
    broker.producer("orders").unwrap().publish("y").unwrap();
}

/// A task that holds the last clone of a broker, and drops it where it is woken.
struct DropsBroker {
    broker: Mutex<Option<Broker>>,
    was_woken: AtomicBool,
}

impl Wake for DropsBroker {
    fn wake(self: Arc<Self>) {
        drop(self.broker.lock().unwrap().take());
        self.was_woken.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_broker_can_be_dropped_by_a_task_that_its_own_thread_wakes() {
    let disk = SimDisk::new(1);
    let broker = with_orders(open_with_threads(&disk).unwrap());
    let orders = broker.producer("orders").unwrap();
    orders.publish("x").unwrap();
    let mut flush = {
        // Something to flush that no thread is at yet.
        drop(orders.send("y").unwrap());
        Box::pin(orders.flush())
    };
    let task = Arc::new(DropsBroker { broker: Mutex::new(Some(broker)), was_woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&task));
    let polled = flush.as_mut().poll(&mut Context::from_waker(&waker));
    match polled {
        // The sync thread was faster: drop it here then.
        Poll::Ready(done) => {
            done.unwrap();
            drop(task.broker.lock().unwrap().take());
        }
        Poll::Pending => eventually("the task is woken", || task.was_woken.load(Ordering::SeqCst)),
    }
    eventually("the directory is free", || open(&disk).is_ok());
    assert!(matches!(orders.publish("z"), Err(Error::Closed)));
}

#[test]
fn threads_are_started_and_stopped_with_the_broker() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    assert_eq!(broker.stats().background_threads, 3);
    broker.close().unwrap();
    assert_eq!(broker.stats().background_threads, 0);
    assert_eq!(open(&disk).unwrap().stats().background_threads, 0);
}
