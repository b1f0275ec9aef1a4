//! A consumer that sleeps goes on when the log that it reads is exchanged under it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::reading::{numbers, publish, values};
use common::{open, open_with_threads, partition};
use tailwater::storage::SimDisk;
use tailwater::{Broker, TopicConfig};

const LONG: Duration = Duration::from_secs(20);
/// Long enough for a thread to go to sleep.
const A_WHILE: Duration = Duration::from_millis(50);

/// Has a consumer sleep in a poll while `meanwhile` runs; then publishes, and expects it to wake up.
fn sleeps_while(broker: &Broker, meanwhile: impl FnOnce() -> bool) -> bool {
    let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let interrupter = consumer.interrupter();
    let (sender, receiver) = mpsc::channel();
    let polling = std::thread::spawn(move || sender.send(consumer.poll(Duration::MAX).map(|r| values(&r))));
    std::thread::sleep(A_WHILE);
    let is_to_wake = meanwhile();
    if is_to_wake {
        std::thread::sleep(A_WHILE);
        publish(broker, 0..1);
        let woken = receiver.recv_timeout(LONG).expect("the consumer is woken").unwrap();
        assert_eq!(woken, numbers(0..1));
    }
    interrupter.interrupt();
    polling.join().unwrap().unwrap();
    is_to_wake
}

// A repair closes the log, which woke the consumer: it found the old log still in place, and went to sleep on it. Whoever
// opened the new one told nobody.
#[test]
fn a_consumer_that_sleeps_reads_on_in_a_partition_that_was_repaired_meanwhile() {
    let broker = open_with_threads(&SimDisk::new(1)).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    sleeps_while(&broker, || {
        broker.embedded().unwrap().repair(&partition("orders", 0)).unwrap();
        true
    });
}

// As above: the log was closed, then forgotten, when the deletion was undone.
#[test]
fn a_consumer_that_sleeps_goes_on_when_a_deletion_is_taken_back() {
    let mut taken_back = 0;
    for nth in 1..=12 {
        let disk = SimDisk::new(1);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        let is_to_wake = sleeps_while(&broker, || {
            disk.fail_nth(nth, 5, false);
            let deleted = broker.delete_topic("orders");
            disk.clear_faults();
            deleted.is_err() && broker.describe_topic("orders").is_ok()
        });
        taken_back += u32::from(is_to_wake);
    }
    assert!(taken_back > 0);
}
