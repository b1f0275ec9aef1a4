//! Topics: made, listed, changed and deleted, with names that follow Kafka's rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use common::{DATA, open, partition, values_of};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{
    Broker, BrokerOptions, Durability, Error, Message, PartitionId, TopicConfig, TopicNameFault,
    partition_for_key,
};

#[test]
fn topics_are_listed_in_order_without_tailwaters_own() {
    let broker = Broker::in_memory().unwrap();
    for name in ["orders", "Mails", "clicks"] {
        broker.create_topic(name, &TopicConfig::new()).unwrap();
    }
    assert_eq!(broker.topics().unwrap(), ["Mails", "clicks", "orders"]);
    assert!(matches!(broker.producer("__groups"), Err(Error::UnknownTopic { .. })));
    assert!(matches!(broker.delete_topic("__groups"), Err(Error::UnknownTopic { .. })));
    assert!(matches!(broker.describe_topic("__groups"), Err(Error::UnknownTopic { .. })));
    let stats = broker.stats();
    assert_eq!((stats.topic_count, stats.partition_count, stats.open_partitions), (3, 3, 0));
}

#[test]
fn names_are_compared_without_case() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("Orders", &TopicConfig::new()).unwrap();
    let error = broker.create_topic("oRDERS", &TopicConfig::new()).unwrap_err();
    assert_eq!(error.to_string(), "topic Orders exists already");
    assert_eq!(broker.describe_topic("orders").unwrap().name, "Orders");
    assert_eq!(broker.producer("ORDERS").unwrap().topic(), "Orders");
}

#[test]
fn what_is_no_name_is_refused_with_the_reason() {
    let broker = Broker::in_memory().unwrap();
    let error = broker.create_topic("caf\u{e9}", &TopicConfig::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"caf\u{e9}\" is no topic name: '\u{e9}' is not allowed: use ASCII letters, digits, `.`, `_` and `-`"
    );
    for name in ["", ".", "..", "../up", "__mine", &"x".repeat(250)] {
        let error = broker.create_topic(name, &TopicConfig::new()).unwrap_err();
        assert!(matches!(error, Error::InvalidTopicName { .. }), "{error}");
    }
    let error = broker.create_topic("__mine", &TopicConfig::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidTopicName { fault: TopicNameFault::Reserved, .. }));
    assert!(broker.topics().unwrap().is_empty());
}

#[test]
fn the_longest_name_with_the_most_partitions_fits_a_directory_entry() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::open(data.path()).unwrap();
    let name = "x".repeat(249);
    broker.create_topic(&name, &TopicConfig::new().partitions(2)).unwrap();
    broker.producer(&name).unwrap().publish("fits").unwrap();
    for count in [0, 100_001] {
        let error = broker.create_topic("many", &TopicConfig::new().partitions(count)).unwrap_err();
        assert!(matches!(error, Error::InvalidPartitionCount { min: 1, max: 100_000, .. }), "{error}");
    }
}

#[test]
fn settings_out_of_bounds_are_refused_before_anything_is_made() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    let before = disk.operation_count();
    let error = broker.create_topic("orders", &TopicConfig::new().segment_bytes(17)).unwrap_err();
    assert_eq!(error.to_string(), "segment_bytes is 17; it must be from 4096 to 2147483648 bytes");
    broker.create_topic("a b", &TopicConfig::new()).unwrap_err();
    assert_eq!(disk.operation_count(), before);
    let bad_default = BrokerOptions::new().default_topic_config(TopicConfig::new().sync_bytes(1));
    assert!(matches!(bad_default.in_memory(), Err(Error::InvalidConfig(_))));
}

#[test]
fn settings_are_kept_and_defaults_are_taken_over() {
    let disk = SimDisk::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = BrokerOptions::new().default_topic_config(TopicConfig::new().partitions(2).segment_ms(77));
    let broker = options.open_on(storage, DATA).unwrap();
    let config = TopicConfig::new().durability(Durability::Written).set("max.message.bytes", "2048").unwrap();
    broker.create_topic("orders", &config).unwrap();
    broker.close().unwrap();

    let described = open(&disk).unwrap().describe_topic("orders").unwrap();
    assert_eq!(described.partition_count, 2);
    let pairs = described.config.given_pairs();
    let expected = [("durability", "written"), ("max_batch_bytes", "2048"), ("segment_ms", "77")];
    assert_eq!(pairs, expected.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn altered_settings_reach_producers_that_are_at_work_and_last() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().segment_ms(77)).unwrap();
    let orders = broker.producer("orders").unwrap();
    let large = vec![b'x'; 4096];
    orders.publish(&large).unwrap();
    broker.alter_topic("Orders", &TopicConfig::new().max_batch_bytes(2048)).unwrap();
    let error = orders.publish(&large).unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { max_bytes: 2048, .. }), "{error}");
    assert!(error.to_string().contains("in orders-0"), "{error}");
    assert!(matches!(
        broker.alter_topic("orders", &TopicConfig::new().segment_bytes(1)),
        Err(Error::InvalidConfig(_))
    ));
    broker.close().unwrap();
    let described = open(&disk).unwrap().describe_topic("orders").unwrap();
    let pairs = described.config.given_pairs();
    assert_eq!(pairs, [("max_batch_bytes", "2048".to_owned()), ("segment_ms", "77".to_owned())]);
}

#[test]
fn added_partitions_are_used_by_producers_that_are_at_work() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let orders = broker.producer("orders").unwrap();
    let keyed = Message::new(b"x").key(b"table 4");
    assert_eq!(orders.publish(keyed).unwrap().partition, PartitionId::ZERO);
    let beyond = Message::new(b"x").partition(PartitionId::new(4));
    let error = orders.publish(beyond).unwrap_err();
    assert_eq!(error.to_string(), "topic orders has no partition 4: its 1 are numbered from 0");

    broker.alter_topic("orders", &TopicConfig::new().partitions(5)).unwrap();
    assert_eq!(orders.publish(keyed).unwrap().partition, partition_for_key(b"table 4", 5));
    assert_eq!(orders.publish(beyond).unwrap().offset.get(), 0);
    let fewer = broker.alter_topic("orders", &TopicConfig::new().partitions(4)).unwrap_err();
    assert!(matches!(fewer, Error::InvalidPartitionCount { requested: 4, min: 5, .. }), "{fewer}");
    assert_eq!(broker.describe_topic("orders").unwrap().partition_count, 5);
}

#[test]
fn a_deleted_topic_is_gone_for_its_handles_and_a_new_one_inherits_nothing() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    let old_id = broker.describe_topic("orders").unwrap().id;
    let old = broker.producer("orders").unwrap();
    old.publish("old").unwrap();
    let unfinished = old.send("never synced").unwrap();
    broker.delete_topic("ORDERS").unwrap();

    assert!(matches!(old.publish("x"), Err(Error::UnknownTopic { .. })));
    assert!(matches!(broker.producer("orders"), Err(Error::UnknownTopic { .. })));
    assert!(matches!(broker.delete_topic("orders"), Err(Error::UnknownTopic { .. })));
    // The closing made it durable before it went.
    unfinished.wait().unwrap();
    assert!(disk.file_paths().iter().all(|path| !path.to_string_lossy().contains("orders")));

    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    assert_ne!(broker.describe_topic("orders").unwrap().id, old_id);
    assert!(
        matches!(old.publish("x"), Err(Error::UnknownTopic { .. })),
        "it is bound to the topic, not the name"
    );
    let at = broker.producer("orders").unwrap().publish("new").unwrap();
    assert_eq!(at.offset.get(), 0);
    assert_eq!(values_of(&broker, &disk, "orders", 0), ["new"]);
}

#[test]
fn threads_that_publish_while_their_topic_is_deleted_get_one_clear_answer() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(3)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let orders = broker.producer("orders").unwrap();
            scope.spawn(move || {
                let error = loop {
                    if let Err(error) = orders.publish("x") {
                        break error;
                    }
                };
                assert!(matches!(error, Error::UnknownTopic { .. }), "{error}");
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        broker.delete_topic("orders").unwrap();
    });
    assert_eq!(broker.stats().failed_partitions, 0);
}

#[test]
fn what_embedded_offers_names_the_place_in_its_errors() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let (embedded, orders) = (broker.embedded().unwrap(), partition("orders", 0));
    let five = (0..5).map(|_| Message::new(b"x")).collect::<Vec<_>>();
    embedded.append_if(&orders, tailwater::Offset::ZERO, &five).unwrap().wait().unwrap();
    let error = embedded.append_if(&orders, tailwater::Offset::ZERO, &five).unwrap_err();
    assert_eq!(error.to_string(), "the log ends at offset 5, not at 0 in orders-0");
    let error = embedded.truncate_to(&orders, tailwater::Offset::new(9)).unwrap_err();
    assert_eq!(error.to_string(), "offset 9 is outside [0, 5] in orders-0");
    embedded.roll(&orders).unwrap();
    embedded.delete_records_before(&orders, tailwater::Offset::new(3)).unwrap();
    embedded.truncate_to(&orders, tailwater::Offset::new(4)).unwrap();
    assert_eq!(embedded.sync(&orders).unwrap().get(), 4);
    let report = embedded.verify(&orders, &mut |_| {}).unwrap();
    assert!(report.damage.is_empty());
    let stats = embedded.stats(&orders).unwrap();
    assert_eq!((stats.log_start_offset.get(), stats.log_end_offset.get()), (3, 4));
    assert!(matches!(embedded.stats(&partition("orders", 1)), Err(Error::UnknownPartition { .. })));
    assert!(matches!(embedded.stats(&partition("mails", 0)), Err(Error::UnknownTopic { .. })));
}

#[test]
fn a_lost_partition_is_an_error_when_it_is_used_and_its_topic_can_be_deleted() {
    let data = tempfile::tempdir().unwrap();
    Broker::open(data.path()).unwrap().create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    std::fs::remove_dir_all(data.path().join("orders-1")).unwrap();
    let broker = Broker::open(data.path()).unwrap();
    let stats = |number| broker.embedded().unwrap().stats(&partition("orders", number));
    stats(0).unwrap();
    let error = stats(1).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("orders-1"), "{error}");
    assert!(!data.path().join("orders-1").exists(), "nothing is made up");
    broker.delete_topic("orders").unwrap();
}
