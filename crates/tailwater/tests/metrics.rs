//! The figures as a recorder of the `metrics` facade gets them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::reading::publish;
use common::{eventually, open, partition};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tailwater::metrics::Publisher;
use tailwater::storage::SimDisk;
use tailwater::{Broker, BrokerOptions, TopicConfig};

/// What was recorded since the last time, by name and labels.
fn recorded(snapshotter: &Snapshotter) -> BTreeMap<String, DebugValue> {
    let of_key = |key: &metrics_util::CompositeKey| {
        let labels: Vec<_> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        format!("{}{{{}}}", key.key().name(), labels.join(","))
    };
    let snapshot = snapshotter.snapshot().into_vec();
    snapshot.into_iter().map(|(key, _, _, value)| (of_key(&key), value)).collect()
}

fn gauge(recorded: &BTreeMap<String, DebugValue>, name: &str) -> f64 {
    match recorded.get(name) {
        Some(DebugValue::Gauge(value)) => value.0,
        other => panic!("{name}: {other:?} of {:#?}", recorded.keys()),
    }
}

fn counter(recorded: &BTreeMap<String, DebugValue>, name: &str) -> u64 {
    match recorded.get(name) {
        Some(DebugValue::Counter(value)) => *value,
        other => panic!("{name}: {other:?} of {:#?}", recorded.keys()),
    }
}

const ORDERS: &str = "{topic=orders,partition=0}";

fn of_orders(name: &str) -> String {
    format!("{name}{ORDERS}")
}

#[test]
fn each_figure_is_published_with_its_labels_and_counters_count_on() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let disk = SimDisk::new(1).with_sync_time(Duration::from_micros(120));
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
        publish(&broker, 0..10);
        let mut billing = broker.consumer("billing").max_records(4).subscribe(&["orders"]).unwrap();
        billing.poll(Duration::ZERO).unwrap();
        billing.commit().wait().unwrap();

        let mut publisher = Publisher::new(&broker);
        publisher.publish();
        let first = recorded(&snapshotter);
        assert_eq!(gauge(&first, "tailwater_partitions{}").to_string(), "2");
        assert_eq!(gauge(&first, &of_orders("tailwater_log_durable_offset")).to_string(), "10");
        assert!(gauge(&first, &of_orders("tailwater_log_size_bytes")) > 1000.0);
        assert_eq!(gauge(&first, &of_orders("tailwater_log_failed")).to_string(), "0");
        assert!(gauge(&first, &of_orders("tailwater_log_sync_duration_max_seconds")) >= 0.000_12);
        assert_eq!(counter(&first, &of_orders("tailwater_log_records_written_total")), 10);
        let lag = "tailwater_group_lag_records{topic=orders,partition=0,group=billing}";
        assert_eq!(gauge(&first, lag).to_string(), "6");
        assert_eq!(gauge(&first, "tailwater_group_members{group=billing}").to_string(), "1");
        let syncs = counter(&first, &of_orders("tailwater_log_syncs_total"));
        let DebugValue::Histogram(durations) = &first[&of_orders("tailwater_log_sync_duration_seconds")]
        else {
            panic!("a histogram")
        };
        assert_eq!(durations.len() as u64, syncs);
        assert!(durations.iter().all(|seconds| seconds.0 >= 0.000_25));

        publish(&broker, 10..13);
        publisher.publish();
        let second = recorded(&snapshotter);
        let records = counter(&second, &of_orders("tailwater_log_records_written_total"));
        // The recorder forgets what it has shown: this is what came since.
        assert_eq!(records, 3);
        assert_eq!(gauge(&second, lag).to_string(), "9");

        // A log that is opened anew counts from 0.
        broker.embedded().unwrap().repair(&partition("orders", 0)).unwrap();
        publish(&broker, 13..14);
        publisher.publish();
        let third = recorded(&snapshotter);
        assert_eq!(counter(&third, &of_orders("tailwater_log_records_written_total")), 1);

        broker.close().unwrap();
        publisher.publish();
    });
}

#[test]
fn all_that_is_published_is_in_the_table_and_described() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let broker = BrokerOptions::new().max_disk_bytes(64 << 20).in_memory().unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        publish(&broker, 0..1);
        let mut billing = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        billing.poll(Duration::ZERO).unwrap();
        billing.commit().wait().unwrap();
        Publisher::new(&broker).label("directory", "data").publish();
    });
    let table = include_str!("../src/metrics.rs");
    let mut names = std::collections::BTreeSet::new();
    for (key, _, description, _) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        assert!(table.contains(&format!("//! | `{name}` |")), "{name} is not in the table");
        assert!(description.is_some(), "{name} is not described");
        assert_eq!(
            key.key().labels().next().map(|label| (label.key(), label.value())),
            Some(("directory", "data"))
        );
        names.insert(name);
    }
    let documented = table.lines().filter(|line| line.starts_with("//! | `tailwater_")).count();
    assert_eq!(names.len(), documented, "all of the table is published: {names:?}");
}

#[test]
fn at_intervals_until_it_is_dropped_or_the_broker_is_gone() {
    // The thread has the global recorder.
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let at_intervals = Publisher::new(&broker).every(Duration::from_millis(5)).unwrap();
    publish(&broker, 0..7);
    let mut seen = 0;
    eventually("all are counted", || {
        let recorded = recorded(&snapshotter);
        if recorded.contains_key(&of_orders("tailwater_log_records_written_total")) {
            seen += counter(&recorded, &of_orders("tailwater_log_records_written_total"));
        }
        seen == 7
    });
    drop(at_intervals);
    // One that is kept keeps no broker open.
    let _kept = Publisher::new(&broker).every(Duration::from_millis(1)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let on_disk = Broker::open(directory.path()).unwrap();
    let _kept = Publisher::new(&on_disk).every(Duration::from_secs(3600)).unwrap();
    drop(on_disk);
    eventually("its directory is free", || Broker::open(directory.path()).is_ok());
}
