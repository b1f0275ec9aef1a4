//! Members of a group in threads of their own: wake-ups, stuck members, starting at once, closing the broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::members::{Notes, Told, all_places, fill, of, places, poll, read};
use common::reading::broker_with;
use common::{eventually, open_with_threads, partition};
use tailwater::storage::SimDisk;
use tailwater::{AutoCommit, Broker, Consumer, Error, Offset, Reset, TopicConfig};

const LONG: Duration = Duration::from_secs(20);
/// Long enough for a thread to go to sleep.
const A_WHILE: Duration = Duration::from_millis(30);

fn member(broker: &Broker) -> Consumer {
    broker.consumer("billing").subscribe(&["orders"]).unwrap()
}

/// A member that sleeps in one poll after another, and tells what each returned. Ends with the broker.
fn sleeping(mut consumer: Consumer) -> mpsc::Receiver<Vec<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(records) = consumer.poll(Duration::MAX) {
            consumer.commit().wait().unwrap();
            let mut values = read(&records);
            values.sort();
            sender.send(values).unwrap();
        }
    });
    std::thread::sleep(A_WHILE);
    receiver
}

#[test]
fn a_sleeping_member_is_woken_when_partitions_come_to_it() {
    for way in ["drop", "close", "commit", "fence", "evict", "grow"] {
        let broker = broker_with(2);
        fill(&broker, "orders", 0..1);
        let mut options = broker.consumer("billing");
        options = match way {
            "fence" => options.revoke_timeout(Duration::from_millis(50)),
            "evict" => options.max_poll_interval(Duration::from_millis(50)),
            _ => options,
        };
        let mut first = options.subscribe(&["orders"]).unwrap();
        assert_eq!(poll(&mut first).len(), 2);
        let started = Instant::now();
        let second = sleeping(member(&broker));
        let mut expected = vec!["orders-0:0".to_owned(), "orders-1:0".to_owned()];
        let kept = match way {
            "drop" => {
                drop(first);
                None
            }
            "close" => {
                first.close().unwrap();
                None
            }
            "commit" => {
                first.commit().wait().unwrap();
                fill(&broker, "orders", 1..2);
                expected = of("orders-1", 1..2);
                Some(first)
            }
            "fence" => {
                expected = of("orders-1", 0..1);
                Some(first)
            }
            "evict" => Some(first),
            _ => {
                drop(first);
                assert_eq!(second.recv_timeout(LONG).unwrap().len(), 2);
                broker.alter_topic("orders", &TopicConfig::new().partitions(3)).unwrap();
                fill(&broker, "orders", 1..2);
                expected = vec!["orders-0:1".to_owned(), "orders-1:1".to_owned(), "orders-2:1".to_owned()];
                None
            }
        };
        // What is fenced or grown may come in several goes.
        let mut values = BTreeSet::new();
        while values.len() < expected.len() {
            values.extend(second.recv_timeout(LONG).unwrap_or_else(|_| panic!("it sleeps on: {way}")));
        }
        assert_eq!(values.into_iter().collect::<Vec<_>>(), expected, "{way}");
        assert!(started.elapsed() < Duration::from_secs(5), "{way}: {:?}", started.elapsed());
        drop(kept);
        broker.close().unwrap();
    }
}

#[test]
fn a_stuck_member_holds_up_others_no_longer_than_its_timeout() {
    let broker = broker_with(4);
    fill(&broker, "orders", 0..1);
    let timeout = Duration::from_millis(150);
    let told = Told::default();
    let options = broker.consumer("billing").revoke_timeout(timeout).listener(Notes::new(&told));
    let mut stuck = options.subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut stuck).len(), 4);
    let started = Instant::now();
    let second = sleeping(member(&broker));
    fill(&broker, "orders", 1..2);
    let mut values = second.recv_timeout(LONG).unwrap();
    let took = started.elapsed();
    while values.len() < 4 {
        values.extend(second.recv_timeout(LONG).unwrap());
    }
    assert!(took >= timeout && took < timeout * 4, "{took:?}");
    let moved: BTreeSet<_> = values.iter().map(|value| value[..8].to_owned()).collect();
    assert_eq!(moved.len(), 2, "both records of each of the two that moved: {values:?}");
    let error = stuck.commit().wait().unwrap_err();
    assert!(matches!(error, Error::FencedMemberEpoch { partition: Some(_), .. }));
    told.take();
    let kept = poll(&mut stuck);
    assert!(kept.len() == 2 && kept.iter().all(|value| !moved.contains(&value[..8])), "{kept:?}");
    let lost: Vec<_> = moved.iter().map(|place| format!("!{place}")).collect();
    assert_eq!(told.take(), lost);
    stuck.commit().wait().unwrap();
    broker.close().unwrap();
}

// The commit of where a group starts was refused for a partition that had gone to the other meanwhile, and `subscribe`
// failed with it.
#[test]
fn members_that_start_at_once_all_start() {
    for round in 0..40 {
        let broker = open_with_threads(&SimDisk::new(round)).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(16)).unwrap();
        fill(&broker, "orders", 0..2);
        let barrier = Barrier::new(4);
        let mut members: Vec<Consumer> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                broker.consumer("billing").reset(Reset::Latest).subscribe(&["orders"]).unwrap()
            };
            let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            starting.into_iter().map(|starting| starting.join().unwrap()).collect()
        });
        fill(&broker, "orders", 2..3);
        let mut values = Vec::new();
        for _ in 0..3 {
            members.iter_mut().for_each(|member| values.extend(poll(member)));
        }
        assert_eq!(all_places(&members).len(), 16);
        assert_eq!(values.len(), 16, "all that was published since, and nothing before: {values:?}");
        assert!(values.iter().all(|value| value.ends_with(":2")), "{values:?}");
    }
}

#[test]
fn closing_the_broker_ends_the_polls_of_all_members() {
    let broker = broker_with(4);
    let waits: Vec<_> = (0..4)
        .map(|_| {
            let mut consumer = member(&broker);
            std::thread::spawn(move || {
                loop {
                    match consumer.poll(Duration::MAX) {
                        Ok(_) => {}
                        Err(error) => return (error, consumer),
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(A_WHILE);
    broker.close().unwrap();
    for waiting in waits {
        let (error, consumer) = waiting.join().unwrap();
        assert!(matches!(error, Error::Closed), "{error}");
        let committed = consumer.commit().wait();
        assert!(matches!(committed, Err(Error::Closed)), "{committed:?}");
        drop(consumer.close());
    }
}

#[test]
fn an_idle_group_costs_no_wake_ups() {
    let broker = broker_with(4);
    let members: Vec<_> = (0..3).map(|_| sleeping(member(&broker))).collect();
    let told = Told::default();
    let mut watched = broker.consumer("billing").listener(Notes::new(&told)).subscribe(&["orders"]).unwrap();
    let interrupter = watched.interrupter();
    let waiting = std::thread::spawn(move || {
        assert!(matches!(watched.poll(Duration::MAX), Err(Error::Interrupted)));
    });
    std::thread::sleep(A_WHILE * 3);
    assert_eq!(told.take().len(), 1);
    interrupter.interrupt();
    waiting.join().unwrap();
    for members in &members {
        assert!(members.try_recv().is_err());
    }
    broker.close().unwrap();
}

/// What the members of a storm have seen: by partition the offsets, in the order in which they were returned.
type Seen = Mutex<BTreeMap<String, Vec<(u64, u32)>>>;

/// Reads until `is_over`: commits some of the time, listens, closes or drops itself now and then, is stuck sometimes.
fn be_restless(broker: &Broker, thread: u32, is_over: &AtomicBool, seen: &Seen) {
    let mut choices = common::Choices(u64::from(thread) * 7_919 + 1);
    while !is_over.load(Ordering::SeqCst) {
        let mut options =
            broker.consumer("billing").max_records(20).revoke_timeout(Duration::from_millis(20));
        if choices.next().is_multiple_of(2) {
            let notes = Notes::new(&Told::default()).on_revoked(|member, _| {
                // It may have been too slow.
                drop(member.commit().wait());
                Ok(())
            });
            options = options.listener(notes);
        }
        if choices.next().is_multiple_of(3) {
            options = options.auto_commit(AutoCommit::OnNextPoll);
        }
        if choices.next().is_multiple_of(3) {
            options = options.max_poll_interval(Duration::from_millis(10));
        }
        let mut consumer = options.subscribe(&["orders"]).unwrap();
        for _ in 0..choices.next() % 40 {
            match consumer.poll(Duration::from_millis(3)) {
                Ok(records) => {
                    assert!(records.events().is_empty());
                    let mut seen = seen.lock().unwrap();
                    for record in records.iter() {
                        let values = seen.entry(record.topic_partition().to_string()).or_default();
                        values.push((record.offset().get(), thread));
                    }
                }
                Err(Error::FencedMemberEpoch { partition: Some(_), .. }) => {}
                Err(error) => panic!("{error}"),
            }
            if choices.next().is_multiple_of(25) {
                std::thread::sleep(Duration::from_millis(25));
            }
            if choices.next().is_multiple_of(2) {
                match consumer.commit().wait() {
                    Ok(()) | Err(Error::FencedMemberEpoch { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        if choices.next().is_multiple_of(2) {
            match consumer.close() {
                Ok(()) | Err(Error::FencedMemberEpoch { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn in_a_storm_of_members_each_record_is_read_and_none_is_skipped() {
    const PARTITIONS: u32 = 12;
    let broker = broker_with(PARTITIONS);
    let (is_over, seen) = (AtomicBool::new(false), Seen::default());
    let mut published = 0;
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (broker, is_over, seen) = (&broker, &is_over, &seen);
            scope.spawn(move || be_restless(broker, thread, is_over, seen));
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(2_500) {
            fill(&broker, "orders", published..published + 10);
            published += 10;
            std::thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let mut last = member(&broker);
    eventually("all is read", || {
        let records = last.poll(Duration::from_millis(1)).unwrap();
        let mut seen = seen.lock().unwrap();
        for record in records.iter() {
            let values = seen.entry(record.topic_partition().to_string()).or_default();
            values.push((record.offset().get(), 99));
        }
        drop(seen);
        let is_there =
            |n| last.position(&partition("orders", n)).unwrap().offset >= Offset::new(published.into());
        (0..PARTITIONS).all(is_there)
    });
    let mut repeated = 0;
    for (place, offsets) in seen.into_inner().unwrap() {
        let all: BTreeSet<u64> = offsets.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(all.len(), usize::try_from(published).unwrap(), "{place}");
        repeated += offsets.len() - all.len();
        // Whoever takes over goes on behind what is committed, and so never above what was read.
        let mut end = 0;
        for (offset, _) in offsets {
            assert!(offset <= end, "{place}: {offset} was returned before {end}");
            end = end.max(offset + 1);
        }
    }
    let published = published * PARTITIONS;
    println!("{published} records, {repeated} of them returned again");
}

#[test]
fn a_topic_deleted_under_members_with_much_to_read_is_an_event_and_no_error() {
    for round in 0..10 {
        let broker = broker_with(1);
        broker.create_topic("mails", &TopicConfig::new().partitions(4)).unwrap();
        fill(&broker, "mails", 0..300);
        let mut consumer = broker.consumer("billing").max_records(1).subscribe(&["orders", "mails"]).unwrap();
        let mut reader = broker.reader().max_records(1).subscribe(&["orders", "mails"]).unwrap();
        std::thread::scope(|scope| {
            for consumer in [&mut consumer, &mut reader] {
                scope.spawn(move || {
                    loop {
                        let records = consumer.poll(LONG).unwrap();
                        if !records.events().is_empty() {
                            break;
                        }
                        assert_eq!(records.count(), 1);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(round));
            broker.delete_topic("mails").unwrap();
        });
        assert_eq!(places(&consumer), ["orders-0"]);
        assert_eq!(places(&reader), ["orders-0"]);
    }
}
