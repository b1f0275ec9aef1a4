//! Records that live for a time: who is returned them, and that nothing else changes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::members::read;
use common::reading::values;
use common::{block_on, partition};
use tailwater::{
    AutoCommit, Broker, BrokerOptions, Consumer, Header, ManualClock, Message, Offset, OnExpired,
    PartitionId, SeekTo, TTL_HEADER, Timestamp, TopicConfig,
};

const LONG: Duration = Duration::from_secs(20);
const T0: i64 = 1_000_000;

fn broker_with(partitions: u32) -> (Arc<ManualClock>, Broker) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(T0)));
    let broker = BrokerOptions::new().clock(clock.clone()).in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(partitions)).unwrap();
    (clock, broker)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Publishes records that live so many milliseconds, or for ever, named by their offsets.
fn publish(broker: &Broker, number: u32, ttls: &[Option<u64>]) {
    let orders = broker.producer("orders").unwrap();
    let first = broker.embedded().unwrap().stats(&partition("orders", number)).unwrap().log_end_offset.get();
    let names: Vec<_> = (first..).take(ttls.len()).map(|offset| offset.to_string()).collect();
    let message = |(name, ttl): (&'_ String, &Option<u64>)| {
        // Borrowed for as long as the names.
        let message = Message::new(Box::leak(name.clone().into_boxed_str()).as_bytes());
        ttl.map_or(message, |ttl| message.ttl(ms(ttl)))
    };
    let messages: Vec<_> = names.iter().zip(ttls).map(message).collect();
    orders.send_batch(PartitionId::new(number), &messages).unwrap().wait().unwrap();
}

fn poll(consumer: &mut Consumer) -> Vec<String> {
    let records = consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(records.events(), []);
    assert_eq!(records.count(), records.iter().count());
    assert_eq!(records.is_empty(), records.count() == 0);
    values(&records)
}

fn position(consumer: &Consumer) -> u64 {
    consumer.position(&partition("orders", 0)).unwrap().offset.get()
}

#[test]
fn an_expired_record_is_passed_over_and_nothing_else_changes() {
    let (clock, broker) = broker_with(1);
    publish(&broker, 0, &[None, Some(10), Some(20), None, Some(10)]);
    let read_all = |policy| {
        let mut reader = broker.reader().on_expired(policy).subscribe(&["orders"]).unwrap();
        let values = poll(&mut reader);
        assert_eq!((position(&reader), poll(&mut reader)), (5, vec![]));
        values.concat()
    };
    for (after_ms, live) in [(0, "01234"), (9, "01234"), (10, "023"), (19, "023"), (20, "03"), (-5, "01234")]
    {
        clock.set(Timestamp::from_millis(T0 + after_ms));
        assert_eq!(read_all(OnExpired::Skip), live, "after {after_ms} ms");
        assert_eq!(read_all(OnExpired::Return), "01234");
    }
    // Offsets and lag are those of the log.
    clock.set(Timestamp::from_millis(T0 + 100));
    let mut billing = broker.consumer("billing").max_records(1).subscribe(&["orders"]).unwrap();
    let lag = |billing: &Consumer| billing.lag(&partition("orders", 0)).unwrap().records;
    assert_eq!((poll(&mut billing), position(&billing), lag(&billing)), (vec!["0".to_owned()], 1, 5));
    billing.commit().wait().unwrap();
    assert_eq!(lag(&billing), 4);
    assert_eq!((poll(&mut billing), position(&billing)), (vec!["3".to_owned()], 4));
    billing.commit().wait().unwrap();
    assert_eq!((poll(&mut billing), position(&billing), lag(&billing)), (vec![], 5, 1));
    billing.commit().wait().unwrap();
    assert_eq!(lag(&billing), 0);
    let stats = broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap();
    assert_eq!((stats.log_start_offset, stats.log_end_offset), (Offset::ZERO, Offset::new(5)));
}

#[test]
fn what_was_returned_stays_when_its_time_is_over() {
    let (clock, broker) = broker_with(1);
    publish(&broker, 0, &[Some(10), Some(20), None]);
    clock.advance_ms(10);
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let records = reader.poll(LONG).unwrap();
    clock.advance_ms(1_000);
    assert_eq!((values(&records).concat(), records.count()), ("12".to_owned(), 2));
    reader.seek(&partition("orders", 0), SeekTo::Earliest).unwrap();
    assert_eq!(poll(&mut reader), ["2"]);
}

#[test]
fn a_poll_finds_what_comes_behind_any_number_of_expired_records() {
    let (clock, broker) = broker_with(1);
    (0..50).for_each(|_| publish(&broker, 0, &[Some(1); 100]));
    clock.advance_ms(1);
    let mut reader = broker.reader().max_records(7).subscribe(&["orders"]).unwrap();
    assert_eq!((poll(&mut reader), position(&reader)), (vec![], 5_000));
    publish(&broker, 0, &[None]);
    reader.seek(&partition("orders", 0), SeekTo::Earliest).unwrap();
    assert_eq!(poll(&mut reader), ["5000"]);
    // Within a batch too, and one that waits is woken by what lives.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| values(&reader.poll(LONG).unwrap()));
        publish(&broker, 0, &[Some(0)]);
        publish(&broker, 0, &[Some(0), None]);
        assert_eq!(waiting.join().unwrap(), ["5003"]);
    });
}

#[test]
fn a_group_is_not_behind_for_good_because_of_what_has_expired() {
    let (clock, broker) = broker_with(1);
    publish(&broker, 0, &[Some(1), Some(1)]);
    clock.advance_ms(1);
    let options = || broker.consumer("billing");
    let committed = |consumer: &Consumer| {
        consumer.committed(&partition("orders", 0)).unwrap().map(|cursor| cursor.offset.get())
    };
    let mut billing = options().auto_commit(AutoCommit::OnNextPoll).subscribe(&["orders"]).unwrap();
    assert_eq!(committed(&billing), Some(0));
    assert_eq!((poll(&mut billing), poll(&mut billing), committed(&billing)), (vec![], vec![], Some(2)));
    drop(billing);
    publish(&broker, 0, &[Some(0)]);
    let mut billing = options().subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut billing), [""; 0]);
    billing.commit().wait().unwrap();
    assert_eq!(committed(&billing), Some(3));
}

#[test]
fn a_partition_of_which_all_was_passed_over_goes_to_another_like_any() {
    let (clock, broker) = broker_with(2);
    publish(&broker, 0, &[Some(1)]);
    publish(&broker, 1, &[Some(1)]);
    clock.advance_ms(1);
    let options = || broker.consumer("billing").auto_commit(AutoCommit::OnNextPoll);
    let mut first = options().member_name("a").subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first), [""; 0]);
    let mut second = options().member_name("b").subscribe(&["orders"]).unwrap();
    // No error of a partition that went: what was passed over is committed before it goes.
    assert_eq!(poll(&mut first), [""; 0]);
    assert_eq!(poll(&mut second), [""; 0]);
    assert_eq!((first.assignment().len(), second.assignment().len()), (1, 1));
    publish(&broker, 1, &[None]);
    assert_eq!(poll(&mut second), ["1"]);
    first.close().unwrap();
    second.close().unwrap();
    let described = broker.describe_group("billing").unwrap();
    assert_eq!(described.positions.iter().map(|position| position.lag.records).sum::<u64>(), 0);
}

#[test]
fn every_way_to_publish_says_how_long_it_lives_behind_the_other_headers() {
    let (_clock, broker) = broker_with(1);
    let orders = broker.producer("orders").unwrap();
    let headers = [Header { key: TTL_HEADER, value: Some(b"7") }, Header { key: "trace", value: None }];
    let message = Message::new(b"x").headers(&headers).ttl(Duration::from_nanos(1_000_001));
    orders.publish(message).unwrap();
    orders.send(message).unwrap().wait().unwrap();
    orders.try_send(message).unwrap().wait().unwrap();
    block_on(orders.send_async(message), LONG).unwrap().unwrap().wait().unwrap();
    orders.send_batch(PartitionId::ZERO, &[message, Message::new(b"y")]).unwrap().wait().unwrap();
    let embedded = broker.embedded().unwrap();
    embedded.append_if(&partition("orders", 0), Offset::new(6), &[message]).unwrap().wait().unwrap();
    orders.publish(Message::new(b"z").ttl(Duration::MAX)).unwrap();

    let records = broker.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap();
    let said: Vec<Vec<Header<'_>>> = records.iter().map(|record| record.headers().collect()).collect();
    let with_ttl = [&headers[..], &[Header { key: TTL_HEADER, value: Some(b"2") }]].concat();
    assert_eq!(said.len(), 8);
    assert!(said[..5].iter().chain([&said[6]]).all(|headers| *headers == with_ttl), "{said:?}");
    assert_eq!(said[5], []);
    assert_eq!(said[7], [Header { key: TTL_HEADER, value: Some(b"18446744073709551615") }]);
}

#[test]
fn a_header_that_says_no_time_says_nothing() {
    let (clock, broker) = broker_with(1);
    let orders = broker.producer("orders").unwrap();
    for value in [None, Some(&b""[..]), Some(b"soon"), Some(b"-1"), Some(b"99999999999999999999"), Some(b"5")]
    {
        orders.publish(Message::new(b"x").headers(&[Header { key: TTL_HEADER, value }])).unwrap();
    }
    orders.publish(Message::new(b"x").headers(&[Header { key: "ttl", value: Some(b"5") }])).unwrap();
    clock.advance_ms(i64::from(i32::MAX));
    let records = broker.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap();
    let offsets: Vec<_> = records.iter().map(|record| record.offset().get()).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 6]);
}

#[test]
fn an_attached_reader_passes_over_them_by_its_own_clock() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    publish(&broker, 0, &[Some(3_600_000), None]);
    broker.close().unwrap();
    let seen = |clock: Option<i64>| {
        let mut options = BrokerOptions::new();
        if let Some(ms) = clock {
            options = options.clock(Arc::new(ManualClock::new(Timestamp::from_millis(ms))));
        }
        let attached = options.attach_read_only(directory.path()).unwrap();
        read(&attached.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap())
    };
    assert_eq!(seen(None), ["0", "1"]);
    assert_eq!(seen(Some(i64::MAX)), ["1"]);
}
