//! Topics of numbers, and reading them.

use std::time::Duration;

use tailwater::{Broker, Consumer, Message, Records, TopicConfig};

pub(crate) fn broker_with(partitions: u32) -> Broker {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(partitions)).unwrap();
    broker
}

pub(crate) fn publish(broker: &Broker, values: std::ops::Range<u32>) {
    let orders = broker.producer("orders").unwrap();
    let receipts: Vec<_> = values
        .map(|n| {
            orders
                .send(Message::new(n.to_string().as_bytes()).partition(super::partition("", 0).partition))
                .unwrap()
        })
        .collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
}

pub(crate) fn values(records: &Records) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(r.value().unwrap_or_default()).into_owned()).collect()
}

/// Polls until there is nothing more.
pub(crate) fn drain(consumer: &mut Consumer) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert!(records.events().is_empty(), "{:?}", records.events());
        if records.is_empty() {
            return all;
        }
        all.extend(values(&records));
    }
}

pub(crate) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
