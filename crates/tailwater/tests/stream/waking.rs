//! Polled by hand: who wakes the task, how often, and what it is told.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tailwater::storage::SimDisk;
use tailwater::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater::{Broker, BrokerOptions, Error, Event, Message, Offset, SeekTo, TopicConfig};

use crate::Task;
use crate::common::reading::{broker_with, numbers, publish, values};
use crate::common::{DATA, eventually, open, open_with_threads, partition};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn an_idle_consumer_is_never_woken_and_a_waiting_one_once_for_each_publication() {
    let broker = broker_with(4);
    let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let task = Task::new();
    assert!(task.poll(&mut consumer).is_pending());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(task.wakes.count(), 0);
    for n in 0..50 {
        publish(&broker, n..n + 1);
        eventually("it is woken", || task.wakes.count() == u64::from(n) + 1);
        assert_eq!(values(&task.next(&mut consumer).unwrap()), numbers(n..n + 1));
        assert!(task.poll(&mut consumer).is_pending());
    }
    // What is published while nobody waits wakes nobody.
    publish(&broker, 50..51);
    eventually("it is woken", || task.wakes.count() == 51);
    publish(&broker, 51..99);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(task.wakes.count(), 51);
    assert_eq!(values(&task.next(&mut consumer).unwrap()), numbers(50..99));
}

#[test]
fn a_task_that_is_polled_for_other_reasons_is_woken_once_by_its_latest_waker() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let (first, second) = (Task::new(), Task::new());
    for _ in 0..10 {
        assert!(first.poll(&mut consumer).is_pending());
    }
    assert!(second.poll(&mut consumer).is_pending());
    publish(&broker, 0..1);
    eventually("it is woken", || second.wakes.count() == 1);
    assert_eq!(first.wakes.count(), 0);
    assert_eq!(second.next(&mut consumer).unwrap().count(), 1);
}

#[test]
fn the_stream_tells_once_that_the_broker_is_closed_and_then_ends() {
    let broker = broker_with(1);
    let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let task = Task::new();
    assert!(task.poll(&mut consumer).is_pending());
    consumer.interrupter().interrupt();
    assert_eq!(task.wakes.count(), 1);
    assert!(matches!(task.next(&mut consumer), Err(Error::Interrupted)));
    // Once, and then it goes on.
    assert!(task.poll(&mut consumer).is_pending());
    broker.close().unwrap();
    assert!(task.wakes.count() >= 2);
    assert!(matches!(task.next(&mut consumer), Err(Error::Closed)));
    for _ in 0..3 {
        assert!(matches!(task.poll(&mut consumer), Poll::Ready(None)));
    }
    assert!(futures_core::stream::FusedStream::is_terminated(&consumer));
}

#[test]
fn polling_and_streaming_take_turns() {
    let broker = broker_with(1);
    let mut consumer = broker.consumer("billing").max_records(1).subscribe(&["orders"]).unwrap();
    let task = Task::new();
    assert!(task.poll(&mut consumer).is_pending());
    publish(&broker, 0..4);
    assert_eq!(values(&consumer.poll(Duration::ZERO).unwrap()), ["0"]);
    assert_eq!(values(&task.next(&mut consumer).unwrap()), ["1"]);
    assert_eq!(values(&consumer.poll(LONG).unwrap()), ["2"]);
    consumer.commit().wait().unwrap();
    consumer.pause(&[partition("orders", 0)]).unwrap();
    assert!(task.poll(&mut consumer).is_pending());
    // There is no news; that it may read again is known all the same.
    consumer.resume(&[partition("orders", 0)]).unwrap();
    assert_eq!(values(&task.next(&mut consumer).unwrap()), ["3"]);
    assert!(task.poll(&mut consumer).is_pending());
    consumer.seek(&partition("orders", 0), SeekTo::Offset(Offset::new(1))).unwrap();
    assert_eq!(values(&task.next(&mut consumer).unwrap()), ["1"]);
    let committed = consumer.committed(&partition("orders", 0)).unwrap().unwrap();
    assert_eq!(committed.offset, Offset::new(3));
}

#[test]
fn events_are_items_and_a_topic_that_comes_and_goes_wakes_the_task() {
    let broker = broker_with(1);
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    let mut reader = broker.reader().subscribe(&["orders", "mails"]).unwrap();
    let task = Task::new();
    assert!(task.poll(&mut reader).is_pending());
    broker.delete_topic("mails").unwrap();
    assert!(task.wakes.count() >= 1);
    let records = task.next(&mut reader).unwrap();
    assert_eq!(records.events(), [Event::TopicDeleted { topic: "mails".into() }]);
    assert!(task.poll(&mut reader).is_pending());
    broker.alter_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    assert!(task.poll(&mut reader).is_pending());
    let message = Message::new(b"to the new one").partition(partition("", 1).partition);
    broker.producer("orders").unwrap().publish(message).unwrap();
    assert_eq!(values(&task.next(&mut reader).unwrap()), ["to the new one"]);
}

/// `orders-0` with six records, the fourth damaged, and `orders-1`.
fn damaged() -> SimDisk {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    let orders = broker.producer("orders").unwrap();
    for n in 0..6 {
        let value = format!("record {n}");
        orders.publish(Message::new(value.as_bytes()).partition(partition("", 0).partition)).unwrap();
    }
    broker.close().unwrap();
    let path = std::path::Path::new(DATA).join("orders-0/00000000000000000000.log");
    let bytes = disk.read_file(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"record 3").unwrap();
    disk.flip_bit(&path, at as u64 * 8 + 1).unwrap();
    disk
}

#[test]
fn damage_is_told_once_and_the_task_sleeps_until_there_is_news_or_it_seeks() {
    let broker = open_with_threads(&damaged()).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let task = Task::new();
    assert_eq!(values(&task.next(&mut reader).unwrap()), ["record 0", "record 1", "record 2"]);
    let Err(Error::Corrupt(found)) = task.next(&mut reader) else { panic!("it is damaged") };
    // A loop without `?` would come back at once, for ever.
    assert!(task.poll(&mut reader).is_pending());
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(task.wakes.count(), 0);
    assert!(task.poll(&mut reader).is_pending());

    // It stalls its partition alone.
    let message = Message::new(b"elsewhere").partition(partition("", 1).partition);
    broker.producer("orders").unwrap().publish(message).unwrap();
    eventually("it is woken", || task.wakes.count() == 1);
    assert_eq!(values(&task.next(&mut reader).unwrap()), ["elsewhere"]);
    // Told again, since there was news.
    assert!(matches!(task.next(&mut reader), Err(Error::Corrupt(_))));
    assert!(task.poll(&mut reader).is_pending());

    reader.seek(&partition("orders", 0), SeekTo::Offset(found.offsets.end)).unwrap();
    assert_eq!(values(&task.next(&mut reader).unwrap()), ["record 4", "record 5"]);
    assert!(task.poll(&mut reader).is_pending());
}

#[test]
fn a_repair_wakes_the_task_that_was_told_of_damage() {
    let broker = open_with_threads(&damaged()).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let task = Task::new();
    assert_eq!(task.next(&mut reader).unwrap().count(), 3);
    assert!(matches!(task.next(&mut reader), Err(Error::Corrupt(_))));
    assert!(task.poll(&mut reader).is_pending());
    broker.embedded().unwrap().repair(&partition("orders", 0)).unwrap();
    assert!(task.wakes.count() >= 1);
    let records = task.next(&mut reader).unwrap();
    assert!(matches!(records.events(), [Event::Gap { .. }]), "{records:?}");
    assert_eq!(values(&records), ["record 4", "record 5"]);
}

/// A broker with a partition that cannot be opened for now, and a reader that was told so.
fn short_of_files(disk: &SimDisk, broker: &Broker, task: &Task) -> tailwater::Consumer {
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    assert!(task.poll(&mut reader).is_pending());
    broker.alter_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    let action = FaultAction::Errno(24);
    disk.plan_fault(Fault { target: FaultTarget::Opens, nth: 1, action, is_lasting: true });
    assert!(matches!(task.next(&mut reader), Err(Error::Io { .. })));
    assert!(task.poll(&mut reader).is_pending());
    reader
}

#[test]
fn an_error_that_may_pass_is_looked_at_every_second() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    let task = Task::new();
    let mut reader = short_of_files(&disk, &broker, &task);
    let (before, started) = (task.wakes.count(), Instant::now());
    eventually("it is woken by nobody else", || task.wakes.count() > before);
    assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
    assert!(matches!(task.next(&mut reader), Err(Error::Io { .. })));
    assert!(task.poll(&mut reader).is_pending());
    disk.clear_faults();
    let before = task.wakes.count();
    eventually("it is woken again", || task.wakes.count() > before);
    assert!(task.poll(&mut reader).is_pending());
    assert_eq!(reader.assignment().len(), 2);
}

#[test]
fn without_threads_the_application_has_it_looked_at_again() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let task = Task::new();
    let mut reader = short_of_files(&disk, &broker, &task);
    disk.clear_faults();
    let before = task.wakes.count();
    let report = broker.run_maintenance_once().unwrap();
    assert!(report.next_due.is_some_and(|due| due <= Duration::from_secs(1)), "{report:?}");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(task.wakes.count(), before);
    assert!(broker.run_maintenance_once().unwrap().did_work);
    assert!(task.wakes.count() > before);
    assert!(task.poll(&mut reader).is_pending());
    assert_eq!(reader.assignment().len(), 2);
}

#[test]
fn a_commit_in_a_task_is_synced_by_others() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..1);
    let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let task = Task::new();
    assert_eq!(task.next(&mut consumer).unwrap().count(), 1);
    let before = disk.operation_count();
    let mut receipt = std::pin::pin!(consumer.commit());
    let mut context = std::task::Context::from_waker(&task.waker);
    for _ in 0..3 {
        assert!(receipt.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(disk.operation_count(), before, "the future neither writes nor syncs");
    broker.run_maintenance_once().unwrap();
    assert_eq!(task.wakes.count(), 1);
    assert!(matches!(receipt.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
}

#[test]
fn a_task_with_much_to_read_lets_others_on() {
    let broker = broker_with(1);
    publish(&broker, 0..100);
    let mut reader = broker.reader().max_records(1).subscribe(&["orders"]).unwrap();
    let task = Task::new();
    let (mut seen, mut turns) = (Vec::new(), Vec::new());
    while seen.len() < 100 {
        match task.poll(&mut reader) {
            Poll::Ready(Some(records)) => seen.extend(values(&records.unwrap())),
            Poll::Ready(None) => panic!("it has not ended"),
            Poll::Pending => {
                turns.push(seen.len());
                assert_eq!(task.wakes.count(), turns.len() as u64, "it is woken at once");
            }
        }
    }
    assert_eq!(seen, numbers(0..100));
    assert_eq!(turns, [32, 64, 96]);
}

#[test]
fn a_consumer_of_an_attached_broker_follows_the_writer_and_nobody_looks_for_those_who_do_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let attached = Broker::attach_read_only(directory.path()).unwrap();
    let mut reader = attached.reader().subscribe(&["orders"]).unwrap();
    let task = Task::new();
    for n in 0..5 {
        assert!(task.poll(&mut reader).is_pending());
        publish(&broker, n..n + 1);
        let deadline = Instant::now() + LONG;
        let records = loop {
            let before = task.wakes.count();
            match task.poll(&mut reader) {
                Poll::Ready(records) => break records.unwrap().unwrap(),
                Poll::Pending => eventually("somebody looks", || task.wakes.count() > before),
            }
            assert!(Instant::now() < deadline);
        };
        assert_eq!(values(&records), numbers(n..n + 1));
    }
    // At most one alarm is left, and nothing sets another.
    std::thread::sleep(Duration::from_millis(100));
    let before = task.wakes.count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(task.wakes.count(), before);
    assert!(task.poll(&mut reader).is_pending());
    attached.close().unwrap();
    assert!(matches!(task.next(&mut reader), Err(Error::Closed)));
}

#[test]
fn a_broker_may_be_dropped_by_the_task_that_its_looking_thread_wakes() {
    struct DropsBroker(std::sync::Mutex<Option<Broker>>);
    impl std::task::Wake for DropsBroker {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let attached = BrokerOptions::new().attach_read_only(directory.path()).unwrap();
    let mut reader = attached.reader().subscribe(&["orders"]).unwrap();
    let holder = Arc::new(DropsBroker(std::sync::Mutex::new(Some(attached))));
    let waker = std::task::Waker::from(Arc::clone(&holder));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(futures_core::Stream::poll_next(std::pin::Pin::new(&mut reader), &mut context).is_pending());
    eventually("the looking thread dropped it", || holder.0.lock().unwrap().is_none());
    eventually("it is closed", || matches!(reader.poll(Duration::ZERO), Err(Error::Closed)));
}
