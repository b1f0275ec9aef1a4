//! Consumers and readers: what they return, where they start, and what moves them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::reading::{broker_with, drain, numbers, publish, values};
use common::{DATA, open, open_with_threads, partition};
use tailwater::storage::SimDisk;
use tailwater::{
    Broker, Durability, Error, Event, FetchIsolation, Header, Message, Offset, OnDivergence, OnGap, Records,
    Reset, SeekTo, TopicConfig,
};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn groups_read_independently_and_resume_where_they_committed() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..10);
    let mut billing = broker.consumer("billing").max_records(4).subscribe(&["orders"]).unwrap();
    let mut kitchen = broker.consumer("kitchen").subscribe(&["orders"]).unwrap();
    assert_eq!(values(&billing.poll(LONG).unwrap()), numbers(0..4));
    billing.commit().wait().unwrap();
    assert_eq!(values(&billing.poll(LONG).unwrap()), numbers(4..8), "read, and not committed");
    assert_eq!(drain(&mut kitchen), numbers(0..10));
    kitchen.commit().wait().unwrap();
    drop((billing, kitchen));
    broker.close().unwrap();

    // The machine dies.
    let disk = disk.crash(|_, _| false);
    let broker = open(&disk).unwrap();
    publish(&broker, 10..12);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut billing), numbers(4..12));
    let mut kitchen = broker.consumer("kitchen").subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut kitchen), numbers(10..12));
    let mut archive = broker.consumer("archive").subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut archive), numbers(0..12));
}

#[test]
fn a_record_has_all_that_was_published_with_it() {
    let broker = broker_with(3);
    let headers = [Header { key: "trace", value: Some(b"7f") }, Header { key: "trace", value: None }];
    let at = tailwater::Timestamp::from_millis(-5);
    let message = Message::new(b"v").key(b"k").headers(&headers).created_at(at);
    let appended = broker.producer("orders").unwrap().publish(message).unwrap();
    let records = broker.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap();
    let record = records.iter().next().unwrap();
    assert_eq!(
        (record.topic(), record.partition(), record.offset()),
        ("orders", appended.partition, appended.offset)
    );
    assert_eq!((record.key(), record.value(), record.created_at()), (Some(&b"k"[..]), Some(&b"v"[..]), at));
    assert_eq!(record.headers().collect::<Vec<_>>(), headers);
    assert!(record.appended_at() > at);
    let owned = record.to_owned();
    assert_eq!((owned.key.as_deref(), owned.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(owned.cursor, record.cursor());
    assert_eq!((&*owned.headers[0].key, owned.headers[0].value.as_deref()), ("trace", Some(&b"7f"[..])));
    assert_eq!((owned.headers.len(), &owned.headers[1].value), (2, &None));

    let tombstone = broker.producer("orders").unwrap();
    tombstone.publish(Message::tombstone(b"k")).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let records = reader.poll(LONG).unwrap();
    assert_eq!(records.iter().map(|record| record.value()).collect::<Vec<_>>(), [Some(&b"v"[..]), None]);
}

#[test]
fn records_outlive_everything_they_came_from() {
    let broker = broker_with(1);
    publish(&broker, 0..100);
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let records = reader.poll(LONG).unwrap();
    let owned = records.iter().nth(50).unwrap().to_owned();
    drop(reader);
    let embedded = broker.embedded().unwrap();
    embedded.roll(&partition("orders", 0)).unwrap();
    embedded.delete_records_before(&partition("orders", 0), Offset::new(100)).unwrap();
    broker.close().unwrap();
    drop(broker);
    assert_eq!(values(&records), numbers(0..100));
    drop(records);
    assert_eq!(owned.value.as_deref(), Some(&b"50"[..]));
}

#[test]
fn dropping_and_closing_a_consumer_commit_nothing() {
    let broker = broker_with(1);
    publish(&broker, 0..3);
    for is_closed in [false, true] {
        let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        assert_eq!(drain(&mut billing), numbers(0..3));
        if is_closed {
            billing.close().unwrap();
        }
    }
}

#[test]
fn closing_makes_durable_what_was_committed_and_not_waited_for() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..3);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    drain(&mut billing);
    drop(billing.commit());
    billing.close().unwrap();
    let broker = open(&disk.crash(|_, _| false)).unwrap();
    assert!(drain(&mut broker.consumer("billing").subscribe(&["orders"]).unwrap()).is_empty());
}

#[test]
fn a_group_that_starts_at_the_end_stays_registered_there() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..3);
    // It never polls: where it starts is committed all the same, durably.
    drop(broker.consumer("billing").reset(Reset::Latest).subscribe(&["orders"]).unwrap());
    publish(&broker, 3..5);
    drop(broker);
    let broker = open(&disk.crash(|_, _| false)).unwrap();
    let mut billing = broker.consumer("billing").reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut billing), numbers(3..5));
}

#[test]
fn every_reset_policy_starts_where_it_says() {
    let clock = Arc::new(tailwater::ManualClock::new(tailwater::Timestamp::from_millis(1_000)));
    let options =
        tailwater::BrokerOptions::new().clock(clock.clone()).maintenance(tailwater::Maintenance::Manual);
    let broker = options.in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    for n in 0..5 {
        publish(&broker, n..n + 1);
        clock.advance_ms(1_000);
    }
    // It is 6,000 now; record n was appended at 1,000 * (n + 1).
    let start = |reset| {
        let reader = broker.reader().reset(reset).subscribe(&["orders"]);
        reader.map(|reader| reader.position(&partition("orders", 0)).unwrap().offset.get())
    };
    let ms = tailwater::Timestamp::from_millis;
    assert_eq!(start(Reset::Earliest).unwrap(), 0);
    assert_eq!(start(Reset::Latest).unwrap(), 5);
    assert_eq!(start(Reset::Last(0)).unwrap(), 5);
    assert_eq!(start(Reset::Last(2)).unwrap(), 3);
    assert_eq!(start(Reset::Last(u64::MAX)).unwrap(), 0);
    assert_eq!(start(Reset::Offset(Offset::new(5))).unwrap(), 5);
    assert_eq!(start(Reset::Time(ms(2_001))).unwrap(), 2);
    assert_eq!(start(Reset::Time(ms(3_000))).unwrap(), 2);
    assert_eq!(start(Reset::Time(ms(9_000))).unwrap(), 5);
    assert_eq!(start(Reset::Ago(Duration::from_secs(2))).unwrap(), 3);
    assert_eq!(start(Reset::Ago(Duration::MAX)).unwrap(), 0);
    let error = start(Reset::Offset(Offset::new(6))).unwrap_err();
    assert_eq!(error.to_string(), "offset 6 is outside [0, 5] in orders-0");
    let error = broker.consumer("billing").reset(Reset::Error).subscribe(&["orders"]).unwrap_err();
    assert!(error.to_string().starts_with("group billing has no committed offset in orders-0"), "{error}");
    // Nothing was committed by the attempt.
    assert!(matches!(broker.describe_group("billing"), Err(Error::UnknownGroup { .. })));
}

#[test]
fn partitions_that_are_added_are_read_from_their_start() {
    let broker = broker_with(1);
    publish(&broker, 0..2);
    let mut billing = broker.consumer("billing").reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    assert!(drain(&mut billing).is_empty());
    broker.alter_topic("orders", &TopicConfig::new().partitions(3)).unwrap();
    let orders = broker.producer("orders").unwrap();
    orders.publish(Message::new(b"late").partition(partition("", 2).partition)).unwrap();
    assert_eq!(values(&billing.poll(LONG).unwrap()), ["late"]);
    assert_eq!(billing.assignment().len(), 3);
    billing.commit().wait().unwrap();
    drop(billing);
    // Also where nobody was there when they were added.
    broker.alter_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    orders.publish(Message::new(b"later").partition(partition("", 3).partition)).unwrap();
    let mut billing = broker.consumer("billing").reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut billing), ["later"]);
}

#[test]
fn a_chosen_partition_is_read_alone() {
    let broker = broker_with(3);
    let orders = broker.producer("orders").unwrap();
    for n in 0..3 {
        let value = format!("p{n}");
        orders.publish(Message::new(value.as_bytes()).partition(partition("", n).partition)).unwrap();
    }
    let mut reader = broker.reader().assign(&[partition("orders", 2), partition("ORDERS", 0)]).unwrap();
    assert_eq!(reader.assignment(), [partition("orders", 0), partition("orders", 2)]);
    assert_eq!(drain(&mut reader), ["p0", "p2"]);
    let error = reader.position(&partition("orders", 1)).unwrap_err();
    assert_eq!(error.to_string(), "orders-1 is not assigned to this consumer");
    assert!(matches!(broker.reader().assign(&[partition("orders", 3)]), Err(Error::UnknownPartition { .. })));
    assert!(matches!(broker.reader().assign(&[]), Err(Error::NothingToRead)));
    assert!(matches!(broker.reader().subscribe::<&str>(&[]), Err(Error::NothingToRead)));
    assert!(matches!(broker.reader().subscribe(&["mails"]), Err(Error::UnknownTopic { .. })));
}

#[test]
fn a_poll_is_bounded_and_returns_at_least_one_record() {
    let broker = broker_with(1);
    publish(&broker, 0..100);
    let mut reader = broker.reader().max_records(7).subscribe(&["orders"]).unwrap();
    assert_eq!(values(&reader.poll(LONG).unwrap()), numbers(0..7));
    assert_eq!(values(&reader.poll(LONG).unwrap()), numbers(7..14));
    assert_eq!(drain(&mut reader), numbers(14..100));
    let mut reader = broker.reader().max_bytes(1).max_records(0).subscribe(&["orders"]).unwrap();
    assert_eq!(values(&reader.poll(LONG).unwrap()), numbers(0..1));
    assert_eq!(drain(&mut reader), numbers(1..100));
}

#[test]
fn partitions_take_turns() {
    let broker = broker_with(4);
    let orders = broker.producer("orders").unwrap();
    for number in 0..4 {
        for _ in 0..50 {
            drop(orders.send(Message::new(b"x").partition(partition("", number).partition)).unwrap());
        }
    }
    orders.flush().wait().unwrap();
    let mut reader = broker.reader().max_records(10).subscribe(&["orders"]).unwrap();
    let mut turns: HashMap<u32, u32> = HashMap::new();
    for _ in 0..8 {
        for record in reader.poll(LONG).unwrap().iter() {
            *turns.entry(record.partition().get()).or_default() += 1;
        }
    }
    assert_eq!(turns, HashMap::from([(0, 20), (1, 20), (2, 20), (3, 20)]));
}

#[test]
fn paused_partitions_are_not_read_until_they_are_resumed() {
    let broker = broker_with(2);
    let orders = broker.producer("orders").unwrap();
    let both = [partition("orders", 0), partition("orders", 1)];
    for number in 0..2 {
        orders.publish(Message::new(b"x").partition(partition("", number).partition)).unwrap();
    }
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    // None of them is paused if one is unknown.
    assert!(matches!(
        reader.pause(&[both[0].clone(), partition("orders", 2)]),
        Err(Error::NotAssigned { .. })
    ));
    reader.pause(&both[..1]).unwrap();
    let read = reader.poll(LONG).unwrap();
    assert_eq!(read.iter().map(|record| record.partition().get()).collect::<Vec<_>>(), [1]);
    reader.pause(&both).unwrap();
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());
    reader.resume(&both).unwrap();
    let read = reader.poll(LONG).unwrap();
    assert_eq!(read.iter().map(|record| record.partition().get()).collect::<Vec<_>>(), [0]);
}

#[test]
fn seeking_goes_to_every_kind_of_place() {
    let broker = broker_with(1);
    publish(&broker, 0..10);
    let orders = partition("orders", 0);
    broker.embedded().unwrap().delete_records_before(&orders, Offset::new(2)).unwrap();
    let mut reader = broker.reader().max_records(1).subscribe(&["orders"]).unwrap();
    let first = reader.poll(LONG).unwrap();
    let (here, next) = {
        let record = first.iter().next().unwrap();
        (record.cursor(), record.next_cursor())
    };
    let mut next_after = |to| {
        reader.seek(&orders, to).unwrap();
        reader.poll(Duration::ZERO).unwrap().iter().next().map(|record| record.offset().get())
    };
    assert_eq!(next_after(SeekTo::Offset(Offset::new(7))), Some(7));
    assert_eq!(next_after(SeekTo::Earliest), Some(2));
    assert_eq!(next_after(SeekTo::Latest), None);
    assert_eq!(next_after(SeekTo::Last(0)), None);
    assert_eq!(next_after(SeekTo::Last(3)), Some(7));
    assert_eq!(next_after(SeekTo::Last(9)), Some(2));
    assert_eq!(next_after(SeekTo::Cursor(next)), Some(3));
    assert_eq!(next_after(SeekTo::Cursor(here)), Some(2));
    assert_eq!(next_after(SeekTo::Time(tailwater::Timestamp::from_millis(0))), Some(2));
    // Longer than the clock may be behind, which a look-up by time makes up for.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(next_after(SeekTo::Ago(Duration::ZERO)), None);
    assert_eq!(next_after(SeekTo::Offset(Offset::new(10))), None);
    for outside in [1, 11] {
        let error = reader.seek(&orders, SeekTo::Offset(Offset::new(outside))).unwrap_err();
        assert_eq!(error.to_string(), format!("offset {outside} is outside [2, 10] in orders-0"));
    }
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    let mut other = broker.reader().subscribe(&["mails"]).unwrap();
    let error = other.seek(&partition("mails", 0), SeekTo::Cursor(here)).unwrap_err();
    assert!(matches!(error, Error::ForeignCursor { .. }), "{error}");
    assert_eq!(here.to_string().parse(), Ok(here));
}

#[test]
fn commits_go_forward_unless_the_consumer_went_back() {
    let broker = broker_with(1);
    publish(&broker, 0..10);
    let orders = partition("orders", 0);
    let mut billing = broker.consumer("billing").max_records(5).subscribe(&["orders"]).unwrap();
    let records = billing.poll(LONG).unwrap();
    let cursors: Vec<_> = records.iter().map(|record| record.next_cursor()).collect();
    billing.commit_to(&cursors[3..4]).wait().unwrap();
    assert_eq!(billing.lag(&orders).unwrap().records, 6);
    let error = billing.commit_to(&cursors[1..2]).wait().unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 is below the committed offset 4 in orders-0: seek there first to go back"
    );
    assert_eq!(billing.committed(&orders).unwrap(), Some(cursors[3]));
    billing.seek(&orders, SeekTo::Cursor(cursors[0])).unwrap();
    billing.commit().wait().unwrap();
    assert_eq!(billing.committed(&orders).unwrap(), Some(cursors[0]));
    let twice = billing.commit_to(&[cursors[0], cursors[4]]).wait();
    assert!(matches!(twice, Err(Error::RepeatedPartition)), "{twice:?}");
    billing.commit_to(&cursors[4..]).wait().unwrap();
    let error = billing.commit_to(&cursors[..1]).wait().unwrap_err();
    assert!(matches!(error, Error::CommitBackwards { .. }), "once a commit was made: {error}");
    // Several at once: all or none.
    let mut beyond = cursors[4];
    beyond.offset = Offset::new(11);
    assert!(billing.commit_to(&[beyond]).wait().is_err());
    assert_eq!(billing.committed(&orders).unwrap(), Some(cursors[4]));
    billing.commit_with_metadata(&[(cursors[4], "checked by hand")]).wait().unwrap();
    assert_eq!(&*broker.describe_group("billing").unwrap().positions[0].metadata, "checked by hand");
    assert!(matches!(
        billing.commit_with_metadata(&[(cursors[4], &"x".repeat(5_000))]).wait(),
        Err(Error::MetadataTooLarge { max_bytes: 4_096, .. })
    ));
}

#[test]
fn a_reader_cannot_commit_and_partitions_are_assigned_to_one_consumer_of_a_group() {
    let broker = broker_with(1);
    publish(&broker, 0..1);
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    drain(&mut reader);
    assert_eq!(reader.group(), None);
    assert_eq!(reader.committed(&partition("orders", 0)).unwrap(), None);
    assert!(matches!(reader.commit().wait(), Err(Error::NoGroup)));

    let billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert_eq!(billing.group().as_deref(), Some("billing"));
    let orders = [partition("orders", 0)];
    let error = broker.consumer("billing").assign(&orders).unwrap_err();
    assert!(matches!(error, Error::GroupInUse { .. }), "{error}");
    assert!(matches!(broker.delete_group("billing"), Err(Error::GroupNotEmpty { .. })));
    drop(billing);
    let alone = broker.consumer("billing").assign(&orders).unwrap();
    let error = broker.consumer("billing").subscribe(&["orders"]).unwrap_err();
    assert!(matches!(error, Error::GroupInUse { .. }), "{error}");
    drop(alone);
    let error = broker.consumer("bil\nling").subscribe(&["orders"]).unwrap_err();
    assert!(matches!(error, Error::InvalidGroupId { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn a_gap_stops_a_consumer_that_was_to_stop_there() {
    let broker = broker_with(1);
    publish(&broker, 0..10);
    let orders = partition("orders", 0);
    let mut billing = broker.consumer("billing").on_gap(OnGap::Error).subscribe(&["orders"]).unwrap();
    broker.embedded().unwrap().delete_records_before(&orders, Offset::new(3)).unwrap();
    for _ in 0..2 {
        let error = billing.poll(Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::Gap { from, to, .. } if (from.get(), to.get()) == (0, 3)), "{error}");
        assert!(error.to_string().contains("seek to 3"), "{error}");
    }
    billing.seek(&orders, SeekTo::Offset(Offset::new(3))).unwrap();
    let records = billing.poll(LONG).unwrap();
    assert!(records.events().is_empty());
    assert_eq!(records.iter().next().unwrap().offset(), Offset::new(3));
}

#[test]
fn a_gap_is_told_once_and_reading_goes_on_behind_it() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..10);
    let orders = partition("orders", 0);
    let mut billing = broker.consumer("billing").max_records(2).subscribe(&["orders"]).unwrap();
    billing.poll(LONG).unwrap();
    billing.commit().wait().unwrap();
    let overtake =
        |offset| broker.embedded().unwrap().delete_records_before(&orders, Offset::new(offset)).unwrap();
    overtake(6);
    let gap = |records: &Records| match records.events() {
        [Event::Gap { partition, from, to }] => {
            assert_eq!(partition.to_string(), "orders-0");
            (from.get(), to.get())
        }
        other => panic!("{other:?}"),
    };
    let records = billing.poll(LONG).unwrap();
    assert_eq!((gap(&records), values(&records)), ((2, 6), numbers(6..8)));
    assert!(billing.poll(LONG).unwrap().events().is_empty());
    billing.commit().wait().unwrap();
    drop(billing);
    // Also when it was away, and when nothing is left to read.
    publish(&broker, 10..12);
    overtake(12);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let records = billing.poll(Duration::ZERO).unwrap();
    assert_eq!((gap(&records), records.count()), ((10, 12), 0));
    assert!(records.is_empty());
    billing.commit().wait().unwrap();
    assert!(drain(&mut billing).is_empty());
}

#[test]
fn a_truncation_below_the_position_is_noticed() {
    let broker = broker_with(1);
    publish(&broker, 0..10);
    let orders = partition("orders", 0);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    let mut strict =
        broker.consumer("strict").on_divergence(OnDivergence::Error).subscribe(&["orders"]).unwrap();
    for consumer in [&mut billing, &mut strict] {
        assert_eq!(drain(consumer).len(), 10);
        consumer.commit().wait().unwrap();
    }
    let before = billing.position(&orders).unwrap();
    broker.embedded().unwrap().truncate_to(&orders, Offset::new(4)).unwrap();
    // The same offsets, given to other records.
    publish(&broker, 100..120);
    let records = billing.poll(LONG).unwrap();
    match records.events() {
        [Event::Diverged { position, epoch_end, .. }] => {
            assert_eq!((*position, epoch_end.get()), (before, 4));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(values(&records), numbers(100..120));
    billing.commit().wait().unwrap();

    for _ in 0..2 {
        let error = strict.poll(LONG).unwrap_err();
        assert!(
            error.to_string().ends_with("beyond the end of its epoch, offset 4: seek there to go on"),
            "{error}"
        );
    }
    strict.seek(&orders, SeekTo::Offset(Offset::new(4))).unwrap();
    assert_eq!(values(&strict.poll(LONG).unwrap()), numbers(100..120));
    strict.commit().wait().unwrap();
    drop(billing);

    // A cursor that was stored elsewhere, and one that still holds.
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    reader.seek(&orders, SeekTo::Cursor(before)).unwrap();
    assert!(matches!(reader.poll(LONG).unwrap().events(), [Event::Diverged { .. }]));
    let mut held = before;
    held.offset = Offset::new(3);
    reader.seek(&orders, SeekTo::Cursor(held)).unwrap();
    let records = reader.poll(LONG).unwrap();
    assert_eq!((records.events(), &*values(&records)[0]), ([].as_slice(), "3"));
}

#[test]
fn a_deleted_topic_leaves_the_assignment_and_a_new_one_of_its_name_inherits_nothing() {
    let broker = broker_with(1);
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    publish(&broker, 0..3);
    let mut billing = broker.consumer("billing").subscribe(&["orders", "mails"]).unwrap();
    drain(&mut billing);
    billing.commit().wait().unwrap();
    let old = billing.position(&partition("orders", 0)).unwrap();
    broker.delete_topic("orders").unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0..2);
    let records = billing.poll(LONG).unwrap();
    assert_eq!(records.events(), [Event::TopicDeleted { topic: "orders".into() }]);
    assert_eq!(billing.assignment(), [partition("mails", 0)]);
    assert!(matches!(billing.commit_to(&[old]).wait(), Err(Error::NotAssigned { .. })));
    assert!(drain(&mut billing).is_empty());
    drop(billing);
    let described = broker.describe_group("billing").unwrap();
    assert_eq!(described.positions.iter().map(|p| p.partition.to_string()).collect::<Vec<_>>(), ["mails-0"]);
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut billing), numbers(0..2));
    assert!(matches!(
        billing.seek(&partition("orders", 0), SeekTo::Cursor(old)),
        Err(Error::ForeignCursor { .. })
    ));
}

#[test]
fn a_waiting_poll_is_ended_by_records_interrupts_and_closing() {
    let disk = SimDisk::new(1);
    let broker = open_with_threads(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let started = Instant::now();
    assert!(reader.poll(Duration::from_millis(30)).unwrap().is_empty());
    assert!(started.elapsed() >= Duration::from_millis(30));

    let later = |act: Box<dyn FnOnce() + Send>| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            act();
        })
    };
    let publisher = broker.clone();
    let other = later(Box::new(move || publish(&publisher, 0..1)));
    assert_eq!(values(&reader.poll(Duration::MAX).unwrap()), ["0"]);
    other.join().unwrap();

    let interrupter = reader.interrupter();
    let other = later(Box::new(move || interrupter.interrupt()));
    assert!(matches!(reader.poll(Duration::MAX), Err(Error::Interrupted)));
    other.join().unwrap();
    // One that came before the poll ends it too, once.
    reader.interrupter().interrupt();
    reader.interrupter().interrupt();
    assert!(matches!(reader.poll(Duration::MAX), Err(Error::Interrupted)));
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());

    let closer = broker.clone();
    let other = later(Box::new(move || drop(closer.close().unwrap())));
    assert!(matches!(reader.poll(Duration::MAX), Err(Error::Closed)));
    other.join().unwrap();
}

#[test]
fn on_a_topic_that_is_not_durable_what_is_written_is_read_and_made_durable_by_a_commit() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let lazy = TopicConfig::new().durability(Durability::Buffered);
    broker.create_topic("orders", &lazy).unwrap();
    let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    publish(&broker, 0..3);
    broker.embedded().unwrap().sync(&partition("orders", 0)).unwrap();
    publish(&broker, 3..6);
    // A poll that finds nothing waits, and then appends are written at once.
    assert_eq!(drain(&mut billing), numbers(0..3));
    let waits = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| values(&billing.poll(LONG).unwrap()));
        std::thread::sleep(Duration::from_millis(30));
        publish(&broker, 6..7);
        waiter.join().unwrap()
    });
    assert_eq!(waits, numbers(3..7));
    assert!(broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap().durable_offset.get() < 7);
    billing.commit().wait().unwrap();
    publish(&broker, 7..9);
    let broker = open(&disk.crash(|_, _| false)).unwrap();
    let stats = broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
    assert!(stats.log_end_offset.get() >= 7, "a commit is never ahead of its records");
    let billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert_eq!(billing.position(&partition("orders", 0)).unwrap().offset.get(), 7);
}

#[test]
fn what_is_not_durable_can_be_read_on_demand_and_not_be_committed() {
    let broker = Broker::in_memory().unwrap();
    let slow = TopicConfig::new().set("sync_interval_ms", "3600000").unwrap();
    broker.create_topic("orders", &slow).unwrap();
    let options = tailwater::ProducerOptions::new().durability(Durability::Written);
    broker.producer_with("orders", options).unwrap().publish("x").unwrap();
    assert!(drain(&mut broker.consumer("a").subscribe(&["orders"]).unwrap()).is_empty());
    let mut eager = broker.consumer("b").isolation(FetchIsolation::LogEnd).subscribe(&["orders"]).unwrap();
    assert_eq!(drain(&mut eager), ["x"]);
    let error = eager.commit().wait().unwrap_err();
    assert_eq!(error.to_string(), "1 cannot be committed in orders-0 yet: only what is below 0 is durable");
    broker.embedded().unwrap().sync(&partition("orders", 0)).unwrap();
    eager.commit().wait().unwrap();
}

#[test]
fn damage_stalls_its_partition_alone_until_the_consumer_seeks_past_it() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    let orders = broker.producer("orders").unwrap();
    for n in 0..6 {
        orders
            .publish(Message::new(format!("record {n}").as_bytes()).partition(partition("", 0).partition))
            .unwrap();
    }
    broker.close().unwrap();
    let path = std::path::Path::new(DATA).join("orders-0/00000000000000000000.log");
    let bytes = disk.read_file(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"record 3").unwrap();
    disk.flip_bit(&path, at as u64 * 8 + 1).unwrap();

    let broker = open(&disk).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    assert_eq!(values(&reader.poll(LONG).unwrap()), ["record 0", "record 1", "record 2"]);
    for _ in 0..2 {
        let Err(Error::Corrupt(corruption)) = reader.poll(LONG) else { panic!("it is damaged") };
        assert_eq!((corruption.offsets.start.get(), corruption.offsets.end.get()), (3, 4));
    }
    let other = broker.producer("orders").unwrap();
    other.publish(Message::new(b"elsewhere").partition(partition("", 1).partition)).unwrap();
    assert_eq!(values(&reader.poll(LONG).unwrap()), ["elsewhere"]);
    reader.seek(&partition("orders", 0), SeekTo::Offset(Offset::new(4))).unwrap();
    assert_eq!(drain(&mut reader), ["record 4", "record 5"]);
}

#[test]
fn a_consumer_goes_on_when_a_deletion_is_taken_back() {
    let mut taken_back = 0;
    for nth in 1..=20 {
        let disk = SimDisk::new(1);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        publish(&broker, 0..1);
        assert_eq!(drain(&mut billing), ["0"]);
        disk.fail_nth(nth, 5, false);
        let deleted = broker.delete_topic("orders");
        disk.clear_faults();
        // Where the deletion's own undoing failed, or its last step, the topic is gone or its state unknown.
        if deleted.is_err() && broker.describe_topic("orders").is_ok() {
            publish(&broker, 1..2);
            assert_eq!(drain(&mut billing), ["1"], "{nth}");
            billing.commit().wait().unwrap();
            taken_back += 1;
        }
    }
    assert!(taken_back > 0);
}
