//! Groups with several members: who has what, what a listener is told, and records that say where they are from.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater::{
    Broker, Consumer, Cursor, Message, PartitionId, Rebalance, RebalanceListener, Records, Result,
    TopicPartition,
};

/// Publishes records of those numbers to each partition of a topic: their values are `topic-partition:number`.
pub(crate) fn fill(broker: &Broker, topic: &str, numbers: std::ops::Range<u32>) {
    let count = broker.describe_topic(topic).unwrap().partition_count;
    let producer = broker.producer(topic).unwrap();
    let mut receipts = Vec::new();
    for partition in 0..count {
        for number in numbers.clone() {
            let value = format!("{topic}-{partition}:{number}");
            let message = Message::new(value.as_bytes()).partition(PartitionId::new(partition));
            receipts.push(producer.send(message).unwrap());
        }
    }
    for receipt in receipts {
        receipt.wait().unwrap();
    }
}

/// Those values of one partition.
pub(crate) fn of(partition: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{partition}:{number}")).collect()
}

/// What was returned, ordered by partition; within one, as it was returned.
pub(crate) fn read(records: &Records) -> Vec<String> {
    let mut values: Vec<_> = records
        .iter()
        .map(|r| (r.topic_partition().to_string(), String::from_utf8_lossy(r.value().unwrap()).into_owned()))
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values.into_iter().map(|(_, value)| value).collect()
}

/// One poll that does not wait.
pub(crate) fn poll(consumer: &mut Consumer) -> Vec<String> {
    read(&consumer.poll(Duration::ZERO).unwrap())
}

/// What a consumer reads, as text.
pub(crate) fn places(consumer: &Consumer) -> Vec<String> {
    texts(&consumer.assignment())
}

pub(crate) fn texts(places: &[TopicPartition]) -> Vec<String> {
    places.iter().map(ToString::to_string).collect()
}

/// What all of them read, ordered: a partition that two of them have is there twice.
pub(crate) fn all_places<'c>(consumers: impl IntoIterator<Item = &'c Consumer>) -> Vec<String> {
    let mut all: Vec<_> = consumers.into_iter().flat_map(places).collect();
    all.sort();
    all
}

/// What a listener was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    /// All since this was last asked.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

type Act = Box<dyn FnMut(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send>;

/// A listener that notes what it is told, as `+orders-0`, `-orders-0` and `!orders-0`, and does what the test says.
pub(crate) struct Notes {
    told: Told,
    assigned: Act,
    revoked: Act,
    lost: Box<dyn FnMut() + Send>,
}

impl Notes {
    pub(crate) fn new(told: &Told) -> Self {
        Self {
            told: told.clone(),
            assigned: Box::new(|_, _| Ok(())),
            revoked: Box::new(|_, _| Ok(())),
            lost: Box::new(|| {}),
        }
    }

    pub(crate) fn on_assigned(
        mut self,
        act: impl FnMut(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send + 'static,
    ) -> Self {
        self.assigned = Box::new(act);
        self
    }

    pub(crate) fn on_revoked(
        mut self,
        act: impl FnMut(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send + 'static,
    ) -> Self {
        self.revoked = Box::new(act);
        self
    }

    pub(crate) fn on_lost(mut self, act: impl FnMut() + Send + 'static) -> Self {
        self.lost = Box::new(act);
        self
    }

    fn note(&self, sign: char, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|partition| self.told.note(format!("{sign}{partition}")));
    }
}

impl RebalanceListener for Notes {
    fn on_assigned(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.note('+', partitions);
        (self.assigned)(member, partitions)
    }

    fn on_revoked(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.note('-', partitions);
        (self.revoked)(member, partitions)
    }

    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        self.note('!', partitions);
        (self.lost)();
    }
}

/// Where the group has come to in a partition, as an administrator sees it.
pub(crate) fn committed(broker: &Broker, group: &str, place: &TopicPartition) -> Option<Cursor> {
    let described = broker.describe_group(group).unwrap();
    described.positions.into_iter().find(|known| known.partition == *place).map(|known| known.committed)
}
