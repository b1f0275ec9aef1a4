//! What an operator asks about is told to `tracing`, with the fields that answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::reading::publish;
use common::{DATA, open, partition};
use tailwater::storage::SimDisk;
use tailwater::{Cursor, Reset, SeekTo, TopicConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// An event: its level, its message and its fields; in which spans it was.
#[derive(Clone, Debug)]
struct Told {
    level: Level,
    message: String,
    fields: BTreeMap<&'static str, String>,
    spans: Vec<String>,
}

/// Keeps all events of a thread.
#[derive(Clone, Default)]
struct Keeper {
    told: Arc<Mutex<Vec<Told>>>,
    spans: Arc<Mutex<(Vec<String>, Vec<usize>)>>,
}

struct Fields<'f>(&'f mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tailwater")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::new();
        span.record(&mut Fields(&mut fields));
        let mut spans = self.spans.lock().unwrap();
        spans.0.push(format!("{} {fields:?}", span.metadata().name()));
        Id::from_u64(spans.0.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let message = fields.remove("message").unwrap_or_default();
        let spans = self.spans.lock().unwrap();
        let spans = spans.1.iter().map(|index| spans.0[*index].clone()).collect();
        self.told.lock().unwrap().push(Told { level: *event.metadata().level(), message, fields, spans });
    }

    fn enter(&self, span: &Id) {
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        self.spans.lock().unwrap().1.push(index);
    }

    fn exit(&self, _: &Id) {
        self.spans.lock().unwrap().1.pop();
    }
}

impl Keeper {
    /// The one event with that message.
    fn told(&self, message: &str) -> Told {
        let told = self.told.lock().unwrap();
        let found: Vec<_> = told.iter().filter(|told| told.message == message).collect();
        assert_eq!(found.len(), 1, "{message}: {told:#?}");
        found[0].clone()
    }
}

/// Runs `work`, and returns what it told.
fn listening(work: impl FnOnce()) -> Keeper {
    let keeper = Keeper::default();
    tracing::subscriber::with_default(keeper.clone(), work);
    keeper
}

#[test]
fn a_broker_its_topics_and_its_groups() {
    let disk = SimDisk::new(1);
    let told = listening(|| {
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
        broker.create_group("billing", &["orders"], Reset::Latest).unwrap();
        publish(&broker, 0..3);
        broker.reset_group("billing", &[partition("orders", 0)], SeekTo::Earliest).unwrap();
        let mut consumer = broker.consumer("billing").subscribe(&["orders"]).unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        consumer.commit().wait().unwrap();
        let first: Cursor = {
            let mut cursor = consumer.position(&partition("orders", 0)).unwrap();
            cursor.offset = tailwater::Offset::new(1);
            cursor
        };
        consumer.commit_to(&[first]).wait().unwrap_err();
        drop(consumer);
        broker.embedded().unwrap().roll(&partition("orders", 0)).unwrap();
        broker.alter_topic("orders", &TopicConfig::new().partitions(3)).unwrap();
        broker.delete_group("billing").unwrap();
        broker.delete_topic("orders").unwrap();
        broker.close().unwrap();
    });
    let opened = told.told("opened a broker");
    assert_eq!((opened.level, opened.fields["directory"].as_str()), (Level::INFO, DATA));
    assert_eq!(opened.fields["topic_count"], "0");
    let created = told.told("created a topic");
    assert_eq!(
        (created.fields["topic"].as_str(), created.fields["partition_count"].as_str()),
        ("orders", "2")
    );
    assert_eq!(told.told("altered a topic").fields["partition_count"], "3");
    assert_eq!(told.told("deleted a topic").fields["topic"], "orders");
    for message in ["created a group", "reset a group", "deleted a group"] {
        let event = told.told(message);
        assert_eq!((event.level, event.fields["group"].as_str()), (Level::INFO, "billing"));
    }
    let refused = told.told("a commit was refused");
    assert_eq!((refused.level, refused.fields["group"].as_str()), (Level::WARN, "billing"));
    assert!(refused.fields["error"].contains("in orders-0"), "{refused:?}");
    let rolled = told.told("rolled to a new segment");
    assert_eq!((rolled.level, rolled.fields["base_offset"].as_str()), (Level::DEBUG, "3"));
    let closed = told.told("closed a broker");
    assert_eq!((closed.level, closed.fields["failed_partitions"].as_str()), (Level::INFO, "0"));
}

#[test]
fn a_recovery_and_a_failure() {
    let disk = SimDisk::new(1);
    let told = listening(|| {
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
        publish(&broker, 0..3);
        disk.fail_nth(1, 5, true);
        broker.producer("orders").unwrap().publish("lost").unwrap_err();
        broker.close().unwrap_err();
        disk.clear_faults();
    });
    let stopped = told.told("the log stops until it is reopened");
    assert!(
        stopped.level == Level::ERROR && stopped.fields["directory"].ends_with("orders-0"),
        "{stopped:?}"
    );
    let left = told.told("a partition was not closed in order");
    assert_eq!((left.level, left.fields["partition"].as_str()), (Level::ERROR, "orders-0"));

    let disk = disk.crash(|_, _| false);
    let told = listening(|| {
        let broker = open(&disk).unwrap();
        broker.reader().subscribe(&["orders"]).unwrap();
        broker.close().unwrap();
    });
    let recovered = told.told("recovered a log that was not closed");
    assert_eq!((recovered.level, recovered.fields["end"].as_str()), (Level::INFO, "3"));
    assert!(
        recovered.fields["scanned_bytes"].parse::<u64>().is_ok()
            && recovered.fields.contains_key("torn_bytes")
    );
    // Which partition it was is known from where it was told.
    assert_eq!(recovered.spans.len(), 1);
    assert!(recovered.spans[0].contains("open_partition") && recovered.spans[0].contains("orders-0"));
    let opened = told.told("opened a partition");
    assert_eq!((opened.level, opened.fields["outcome"].as_str()), (Level::DEBUG, "Recovered"));
}

#[test]
fn a_slow_sync_tells_how_long_it_took() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    broker.close().unwrap();
    let slow = disk.with_sync_time(Duration::from_millis(510));
    let told = listening(|| publish(&open(&slow).unwrap(), 0..1));
    let told = told.told.lock().unwrap();
    let sync = told.iter().find(|told| told.message == "a sync was slow").unwrap();
    assert!(sync.level == Level::WARN && sync.fields["took_ms"].parse::<u64>().unwrap() >= 510, "{sync:?}");
}
