//! Where a group starts, and topics that come, grow and go under it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use common::members::{Notes, Told, all_places, committed, fill, of, places, poll};
use common::partition;
use common::reading::broker_with;
use tailwater::{Broker, Consumer, ConsumerOptions, Error, Event, Offset, Reset, TopicConfig};

fn options(broker: &Broker) -> ConsumerOptions {
    broker.consumer("billing")
}

fn events(consumer: &mut Consumer) -> Vec<Event> {
    consumer.poll(Duration::ZERO).unwrap().events().to_vec()
}

fn deleted(topic: &str) -> Event {
    Event::TopicDeleted { topic: topic.into() }
}

#[test]
fn a_group_that_starts_at_the_end_reads_what_is_added_later_from_its_start() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..3);
    let latest = || options(&broker).reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    let (mut first, mut second) = (latest(), latest());
    fill(&broker, "orders", 3..4);
    assert_eq!(poll(&mut first), ["orders-0:3"]);
    assert_eq!(poll(&mut second), ["orders-1:3"]);
    broker.alter_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    // Before anybody has polled.
    fill(&broker, "orders", 4..5);
    let mut values = poll(&mut first);
    values.extend(poll(&mut second));
    values.sort();
    assert_eq!(values, ["orders-0:4", "orders-1:4", "orders-2:4", "orders-3:4"]);
    assert_eq!((places(&first).len(), places(&second).len()), (2, 2));
    first.commit().wait().unwrap();
    second.commit().wait().unwrap();
    drop((first, second));
    // While nobody is there.
    broker.alter_topic("orders", &TopicConfig::new().partitions(5)).unwrap();
    fill(&broker, "orders", 5..6);
    let (mut first, mut second) = (latest(), latest());
    assert_eq!(poll(&mut first).len() + poll(&mut second).len(), 5);
}

#[test]
fn a_group_that_must_not_choose_says_so_and_leaves_nothing_behind() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..1);
    let error = options(&broker).reset(Reset::Error).subscribe(&["orders"]).unwrap_err();
    assert!(matches!(error, Error::NoCommittedOffset { .. }), "{error}");
    assert!(matches!(broker.describe_group("billing"), Err(Error::UnknownGroup { .. })));
    // Nor does it take anything from one that has chosen.
    let mut first = options(&broker).subscribe(&["orders"]).unwrap();
    let mut second = options(&broker).reset(Reset::Error).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len() + poll(&mut second).len(), 2);
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    let third = options(&broker).reset(Reset::Error).subscribe(&["orders", "mails"]);
    assert!(matches!(third, Err(Error::NoCommittedOffset { .. })));
    poll(&mut first);
    poll(&mut second);
    assert_eq!(all_places([&first, &second]), ["orders-0", "orders-1"]);
    // Partitions that come later are no choice.
    broker.alter_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    fill(&broker, "orders", 1..2);
    poll(&mut first);
    poll(&mut second);
    assert_eq!(all_places([&first, &second]).len(), 4);
}

#[test]
fn members_of_a_pattern_pick_up_what_is_created_and_let_go_of_what_is_deleted() {
    let broker = broker_with(1);
    let told = Told::default();
    let matching = || options(&broker).reset(Reset::Latest);
    let mut first = matching().listener(Notes::new(&told)).subscribe_matching(&["shop.*"]).unwrap();
    let mut second = matching().subscribe_matching(&["shop.*"]).unwrap();
    assert!(poll(&mut first).is_empty() && places(&first).is_empty());
    broker.create_topic("shop.eu", &TopicConfig::new().partitions(2)).unwrap();
    fill(&broker, "shop.eu", 0..2);
    assert_eq!(poll(&mut first), of("shop.eu-0", 0..2), "from its start, whatever the policy");
    assert_eq!(poll(&mut second), of("shop.eu-1", 0..2));
    assert_eq!(told.take(), ["+shop.eu-0"]);
    broker.alter_topic("shop.eu", &TopicConfig::new().partitions(4)).unwrap();
    fill(&broker, "shop.eu", 2..3);
    assert_eq!((poll(&mut first).len(), poll(&mut second).len()), (2, 2));
    told.take();

    broker.delete_topic("shop.eu").unwrap();
    broker.create_topic("Shop.EU", &TopicConfig::new().partitions(2)).unwrap();
    fill(&broker, "Shop.EU", 7..8);
    for member in [&mut first, &mut second] {
        let records = member.poll(Duration::ZERO).unwrap();
        assert_eq!(records.events(), [deleted("shop.eu")]);
        assert_eq!(records.count(), 1, "the new one, from its start");
    }
    assert_eq!(all_places([&first, &second]), ["Shop.EU-0", "Shop.EU-1"]);
    assert_eq!(told.take().len(), 3, "two lost, one assigned");
    // What is committed is in the new one.
    first.commit().wait().unwrap();
    second.commit().wait().unwrap();
    assert!(events(&mut first).is_empty() && events(&mut second).is_empty(), "told once");
    assert_eq!(committed(&broker, "billing", &partition("Shop.EU", 0)).unwrap().offset, Offset::new(1));
    assert_eq!(broker.describe_group("billing").unwrap().positions.len(), 2);
}

#[test]
fn a_topic_that_comes_and_goes_between_two_polls_is_not_told_of() {
    let broker = broker_with(1);
    let told = Told::default();
    let options = options(&broker).listener(Notes::new(&told));
    let mut member = options.subscribe_matching(&["shop.*"]).unwrap();
    let mut reader = broker.reader().subscribe_matching(&["shop.*"]).unwrap();
    for _ in 0..3 {
        broker.create_topic("shop.eu", &TopicConfig::new()).unwrap();
        broker.delete_topic("shop.eu").unwrap();
    }
    assert!(events(&mut member).is_empty() && events(&mut reader).is_empty());
    assert_eq!(told.take(), [""; 0]);
}

#[test]
fn a_reader_of_a_pattern_follows_it_too() {
    let broker = broker_with(1);
    broker.create_topic("shop.eu", &TopicConfig::new()).unwrap();
    fill(&broker, "shop.eu", 0..2);
    let mut reader = broker.reader().reset(Reset::Latest).subscribe_matching(&["SHOP.*", "x"]).unwrap();
    assert!(poll(&mut reader).is_empty());
    broker.create_topic("shop.us", &TopicConfig::new().partitions(2)).unwrap();
    broker.alter_topic("shop.eu", &TopicConfig::new().partitions(2)).unwrap();
    fill(&broker, "shop.us", 0..1);
    fill(&broker, "shop.eu", 2..3);
    assert_eq!(poll(&mut reader), ["shop.eu-0:2", "shop.eu-1:2", "shop.us-0:0", "shop.us-1:0"]);
    broker.delete_topic("shop.us").unwrap();
    broker.create_topic("shop.us", &TopicConfig::new()).unwrap();
    fill(&broker, "shop.us", 5..6);
    let records = reader.poll(Duration::ZERO).unwrap();
    assert_eq!((records.events(), records.count()), (&[deleted("shop.us")][..], 1));
    assert_eq!(places(&reader), ["shop.eu-0", "shop.eu-1", "shop.us-0"]);
    assert!(matches!(broker.reader().subscribe_matching(&["a[b"]), Err(Error::InvalidTopicPattern { .. })));
}

#[test]
fn a_topic_that_was_named_and_is_created_again_is_another_one() {
    let broker = broker_with(1);
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    let mut member = options(&broker).subscribe(&["orders", "mails"]).unwrap();
    fill(&broker, "mails", 0..1);
    assert_eq!(poll(&mut member), ["mails-0:0"]);
    broker.delete_topic("mails").unwrap();
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    fill(&broker, "mails", 1..2);
    // What was returned of the old one is committed nowhere, and keeps nothing else from being committed.
    fill(&broker, "orders", 0..1);
    member.commit().wait().unwrap();
    let records = member.poll(Duration::ZERO).unwrap();
    assert_eq!(records.events(), [deleted("mails")]);
    assert_eq!(records.count(), 1);
    member.commit().wait().unwrap();
    assert_eq!(places(&member), ["orders-0"]);
    let mut again = options(&broker).reset(Reset::Latest).subscribe(&["mails"]).unwrap();
    assert!(poll(&mut again).is_empty(), "the group meets it for the first time");
}
