//! Compacted topics: who has them compacted, and what is left.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{DATA, eventually, partition};
use tailwater::storage::SimDisk;
use tailwater::{
    Broker, BrokerOptions, CleanupPolicy, Error, LogStats, Maintenance, ManualClock, Message, SeekTo,
    Timestamp, TopicConfig,
};

fn compacted() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096).cleanup_policy(CleanupPolicy::Compact).delete_retention_ms(60_000)
}

fn by_hand(disk: &SimDisk) -> (Broker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let options = BrokerOptions::new().maintenance(Maintenance::Manual).clock(clock.clone());
    (options.open_on(Arc::new(disk.clone()), DATA).unwrap(), clock)
}

fn set(broker: &Broker, key: &str, value: &str) {
    broker.producer("prices").unwrap().publish(Message::new(value.as_bytes()).key(key.as_bytes())).unwrap();
}

/// Sets each of `keys` keys `times` times, so that all that came before ends in sealed segments.
fn set_often(broker: &Broker, keys: u32, times: u32) {
    for n in 0..times {
        for key in 0..keys {
            set(broker, &format!("k{key}"), &format!("{n} {}", "v".repeat(200)));
        }
    }
    broker.embedded().unwrap().roll(&partition("prices", 0)).unwrap();
    broker.embedded().unwrap().sync(&partition("prices", 0)).unwrap();
}

fn maintain(broker: &Broker) {
    while broker.run_maintenance_once().unwrap().did_work {}
}

fn stats(broker: &Broker) -> LogStats {
    broker.embedded().unwrap().stats(&partition("prices", 0)).unwrap()
}

/// Every record there is, by offset: its key and its value, if it has one.
fn records(broker: &Broker) -> BTreeMap<u64, (String, Option<String>)> {
    let mut reader = broker.reader().assign(&[partition("prices", 0)]).unwrap();
    reader.seek(&partition("prices", 0), SeekTo::Earliest).unwrap();
    let mut all = BTreeMap::new();
    loop {
        let records = reader.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return all;
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        all.extend(
            records
                .iter()
                .map(|r| (r.offset().get(), (text(r.key().unwrap_or_default()), r.value().map(text)))),
        );
    }
}

#[test]
fn the_last_value_of_each_key_is_kept_and_offsets_stay() {
    let (broker, _clock) = by_hand(&SimDisk::new(1));
    broker.create_topic("prices", &compacted()).unwrap();
    set_often(&broker, 5, 40);
    let before = records(&broker);
    assert_eq!(before.len(), 200);
    maintain(&broker);
    let after = records(&broker);
    assert_eq!(after.len(), 5, "{after:?}");
    assert!(after.iter().all(|(offset, record)| before.get(offset) == Some(record) && *offset >= 195));
    let stats = stats(&broker);
    assert_eq!((stats.compaction.records_removed, stats.compaction.dirty_bytes > 4096), (195, false));
    assert_eq!((stats.log_start_offset.get(), stats.log_end_offset.get()), (0, 200));
    assert!(!broker.run_maintenance_once().unwrap().did_work, "it is clean");
}

#[test]
fn records_without_a_key_are_refused_and_say_why() {
    let (broker, _clock) = by_hand(&SimDisk::new(1));
    broker.create_topic("prices", &compacted()).unwrap();
    let prices = broker.producer("prices").unwrap();
    let refused = prices.publish(b"2.50").unwrap_err();
    assert!(matches!(refused, Error::InvalidBatch { .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains("prices-0") && message.contains("key"), "{message}");
    let batch = [Message::new(b"1").key(b"tea"), Message::new(b"2")];
    assert!(prices.send_batch(partition("", 0).partition, &batch).is_err());
    assert_eq!(stats(&broker).log_end_offset.get(), 0);
    // A topic may become a compacted one; what it has stays.
    broker.create_topic("events", &TopicConfig::new()).unwrap();
    broker.producer("events").unwrap().publish(b"no key").unwrap();
    broker.alter_topic("events", &compacted()).unwrap();
    assert!(broker.producer("events").unwrap().publish(b"no key").is_err());
}

#[test]
fn a_tombstone_stays_for_its_time_and_for_who_has_not_read_it() {
    let (broker, clock) = by_hand(&SimDisk::new(1));
    broker.create_topic("prices", &compacted()).unwrap();
    let mut billing = broker.consumer("billing").subscribe(&["prices"]).unwrap();
    billing.poll(Duration::ZERO).unwrap();
    billing.commit().wait().unwrap();
    set(&broker, "gone", "1.00");
    broker.producer("prices").unwrap().publish(Message::tombstone(b"gone")).unwrap();
    set_often(&broker, 3, 30);
    maintain(&broker);
    let has_tombstone = |broker: &Broker| records(broker).get(&1) == Some(&("gone".to_owned(), None));
    assert!(has_tombstone(&broker) && records(&broker).len() == 4, "{:?}", records(&broker));
    clock.advance_ms(120_000);
    maintain(&broker);
    assert!(has_tombstone(&broker), "the group has yet to see it");
    while !billing.poll(Duration::ZERO).unwrap().is_empty() {}
    billing.commit().wait().unwrap();
    maintain(&broker);
    assert!(!has_tombstone(&broker) && records(&broker).len() == 3, "{:?}", records(&broker));
}

#[test]
fn a_record_whose_time_is_over_goes_with_all_that_came_before_it() {
    let (broker, clock) = by_hand(&SimDisk::new(1));
    broker.create_topic("prices", &compacted()).unwrap();
    set(&broker, "today", "1.00");
    let message = Message::new(b"0.80").key(b"today").ttl(Duration::from_secs(3_600));
    broker.producer("prices").unwrap().publish(message).unwrap();
    set_often(&broker, 3, 30);
    maintain(&broker);
    let today = |broker: &Broker| records(broker).values().filter(|(key, _)| key == "today").count();
    assert_eq!(today(&broker), 1);
    clock.advance_ms(3_600_000);
    assert_eq!(today(&broker), 0, "nobody is handed it any more");
    set_often(&broker, 3, 60);
    maintain(&broker);
    assert_eq!(stats(&broker).compaction.records_removed, 1 + 90 + 180 - 3 + 1, "and it is gone");
}

#[test]
fn the_background_compacts_by_itself_also_what_nobody_has_opened() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new().maintenance(Maintenance::Manual);
    let broker = options.open(directory.path()).unwrap();
    broker.create_topic("prices", &compacted()).unwrap();
    set_often(&broker, 5, 40);
    broker.close().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    let is_compacted = |broker: &Broker| {
        let stats = broker.stats();
        let log = stats.topic("prices").unwrap().partitions[0].log().copied();
        log.is_some_and(|log| log.compaction.records_removed == 195)
    };
    eventually("it is compacted", || is_compacted(&broker));
    assert_eq!(records(&broker).len(), 5);
    broker.close().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    assert_eq!(records(&broker).len(), 5);
}

#[test]
fn a_compaction_that_is_to_be_slow_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    // At this rate it would take a minute and more.
    let options = BrokerOptions::new().compaction_bytes_per_second(64 * 1024);
    let broker = options.open(directory.path()).unwrap();
    broker.create_topic("prices", &compacted().segment_bytes(256 * 1024)).unwrap();
    let prices = broker.producer("prices").unwrap();
    let value = vec![b'v'; 2_000];
    for n in 0..1_000_u32 {
        drop(prices.send(Message::new(&value).key(&(n % 7).to_le_bytes())).unwrap());
    }
    prices.flush().wait().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let start = Instant::now();
    for n in 0..50_u32 {
        prices.publish(Message::new(&value).key(&n.to_le_bytes())).unwrap();
    }
    broker.close().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
