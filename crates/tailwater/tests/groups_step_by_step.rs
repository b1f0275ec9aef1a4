//! The worked examples of `docs/groups.md`, section 6: what a group's members are told, in which order.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::partition;
use tailwater::{
    Broker, Consumer, ConsumerOptions, Error, Event, Message, PartitionId, Rebalance, RebalanceListener,
    Reset, Result, TopicConfig, TopicPartition,
};

type Told = Arc<Mutex<Vec<String>>>;

/// Writes down what it is told, and commits when it is to give something up, if it `commits`.
struct Listener {
    told: Told,
    commits: bool,
}

fn numbers(partitions: &[TopicPartition]) -> String {
    let numbers: Vec<_> = partitions.iter().map(|partition| partition.partition.to_string()).collect();
    numbers.join(" ")
}

impl RebalanceListener for Listener {
    fn on_assigned(&mut self, _: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.told.lock().unwrap().push(format!("assigned {}", numbers(partitions)));
        Ok(())
    }

    fn on_revoked(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.told.lock().unwrap().push(format!("revoked {}", numbers(partitions)));
        if self.commits { member.commit().wait() } else { Ok(()) }
    }

    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        self.told.lock().unwrap().push(format!("lost {}", numbers(partitions)));
    }
}

/// A member, and what it was told.
struct Member {
    consumer: Consumer,
    told: Told,
}

impl Member {
    fn join(broker: &Broker, options: impl FnOnce(ConsumerOptions) -> ConsumerOptions) -> Self {
        Self::join_by(broker, options, |options| options.subscribe(&["orders"]))
    }

    fn join_by(
        broker: &Broker,
        options: impl FnOnce(ConsumerOptions) -> ConsumerOptions,
        subscribe: impl FnOnce(ConsumerOptions) -> Result<Consumer>,
    ) -> Self {
        let told = Told::default();
        let listener = Listener { told: Arc::clone(&told), commits: true };
        let consumer = subscribe(options(broker.consumer("billing").listener(listener))).unwrap();
        Self { consumer, told }
    }

    /// A poll that does not wait: the partitions of what it returns, and what the listener was told in it.
    fn poll(&mut self) -> (String, Vec<String>) {
        self.poll_for(Duration::ZERO)
    }

    fn poll_for(&mut self, wait: Duration) -> (String, Vec<String>) {
        let records = self.consumer.poll(wait).unwrap();
        let mut from: Vec<_> = records.iter().map(|record| record.partition().to_string()).collect();
        from.sort_unstable();
        let events = records.events().iter().map(|event| match event {
            Event::TopicDeleted { topic } => format!(" deleted {topic}"),
            other => format!(" {other:?}"),
        });
        let returned = from.join(" ") + &events.collect::<String>();
        (returned, std::mem::take(&mut *self.told.lock().unwrap()))
    }

    fn owned(&self) -> String {
        numbers(&self.consumer.assignment())
    }
}

fn told<const N: usize>(told: [&str; N]) -> Vec<String> {
    told.iter().map(|text| (*text).to_owned()).collect()
}

/// A broker with a topic of four partitions.
fn broker() -> Broker {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    broker
}

/// A record in each partition of a topic.
fn publish(broker: &Broker, topic: &str) {
    let producer = broker.producer(topic).unwrap();
    for n in 0..broker.describe_topic(topic).unwrap().partition_count {
        producer.publish(Message::new(b"two espressos").partition(PartitionId::new(n))).unwrap();
    }
}

fn epochs(broker: &Broker) -> Vec<u64> {
    broker.describe_group("billing").unwrap().members.iter().map(|member| member.epoch).collect()
}

#[test]
fn what_nobody_works_on_goes_at_once() {
    let broker = broker();
    let mut a = Member::join(&broker, |options| options);
    assert_eq!(a.owned(), "0 1 2 3");
    assert_eq!(broker.describe_group("billing").unwrap().positions.len(), 4);
    publish(&broker, "orders");
    assert_eq!(a.poll(), ("0 1 2 3".into(), told(["assigned 0 1 2 3"])));
    a.consumer.commit().wait().unwrap();
    assert_eq!(epochs(&broker), [1]);

    let mut b = Member::join(&broker, |options| options);
    assert_eq!(b.owned(), "1 3");
    assert_eq!(epochs(&broker), [1, 2]);
    publish(&broker, "orders");
    assert_eq!(b.poll(), ("1 3".into(), told(["assigned 1 3"])));
    assert_eq!(a.poll(), ("0 2".into(), told(["revoked 1 3"])));
    assert_eq!(epochs(&broker), [2, 2]);

    // It leaves in order: the listener commits.
    let Member { consumer, told: last } = b;
    consumer.close().unwrap();
    assert_eq!(*last.lock().unwrap(), ["revoked 1 3"]);
    a.consumer.commit().wait().unwrap();
    assert_eq!(a.poll(), (String::new(), told(["assigned 1 3"])));
}

#[test]
fn what_is_outstanding_goes_when_the_listener_has_committed() {
    let broker = broker();
    publish(&broker, "orders");
    let mut a = Member::join(&broker, |options| options);
    assert_eq!(a.poll(), ("0 1 2 3".into(), told(["assigned 0 1 2 3"])));
    let mut b = Member::join(&broker, |options| options);
    assert_eq!((a.owned(), b.owned()), ("0 1 2 3".into(), String::new()));
    publish(&broker, "orders");
    assert_eq!(b.poll(), (String::new(), told([])));
    assert_eq!(a.poll(), ("0 2".into(), told(["revoked 1 3"])));
    // Only what `a` has not committed.
    assert_eq!(b.poll(), ("1 3".into(), told(["assigned 1 3"])));
}

#[test]
fn a_commit_of_all_that_is_outstanding_gives_a_partition_up() {
    let broker = broker();
    publish(&broker, "orders");
    let mut a = Member::join(&broker, |options| options);
    a.poll();
    let mut b = Member::join(&broker, |options| options);
    a.consumer.commit().wait().unwrap();
    assert_eq!(b.poll(), (String::new(), told(["assigned 1 3"])));
    assert_eq!(a.poll(), (String::new(), told(["revoked 1 3"])));
}

#[test]
fn a_member_that_is_too_slow_is_fenced_where_it_is_slow() {
    let broker = broker();
    publish(&broker, "orders");
    let mut a = Member::join(&broker, |options| options.revoke_timeout(Duration::from_millis(30)));
    a.poll();
    let mut b = Member::join(&broker, |options| options);
    assert_eq!(b.poll_for(Duration::from_secs(20)), ("1 3".into(), told(["assigned 1 3"])));
    let refused = a.consumer.commit().wait().unwrap_err();
    let Error::FencedMemberEpoch { partition: fenced, .. } = &refused else { panic!("{refused}") };
    assert_eq!(**fenced.as_ref().unwrap(), partition("orders", 1));
    let committed = a.consumer.committed(&partition("orders", 0)).unwrap().unwrap();
    assert_eq!(committed.offset.get(), 0, "a commit is refused as a whole");
    assert_eq!(a.poll(), (String::new(), told(["lost 1 3"])));
    a.consumer.commit().wait().unwrap();
    b.consumer.commit().wait().unwrap();
    let described = broker.describe_group("billing").unwrap();
    assert!(described.positions.iter().all(|position| position.lag.records == 0));
}

#[test]
fn a_member_that_does_not_poll_is_evicted_and_its_next_poll_joins() {
    let broker = broker();
    publish(&broker, "orders");
    let mut a = Member::join(&broker, |options| options.max_poll_interval(Duration::from_millis(30)));
    a.poll();
    let mut b = Member::join(&broker, |options| options);
    assert_eq!(b.poll_for(Duration::from_secs(20)), ("0 1 2 3".into(), told(["assigned 0 1 2 3"])));
    assert!(broker.describe_group("billing").unwrap().members[0].is_evicted);
    b.consumer.commit().wait().unwrap();
    let (returned, heard) = a.poll();
    assert_eq!((returned, heard.len()), (String::new(), 2));
    assert_eq!(heard[0], "lost 0 1 2 3");
    assert_eq!(heard[1], format!("assigned {}", a.owned()));
    assert_eq!(a.consumer.assignment().len(), 2);
}

#[test]
fn a_deleted_topic_is_lost_and_told_and_only_a_pattern_picks_up_its_successor() {
    let broker = broker();
    let mut by_name = Member::join(&broker, |options| options);
    by_name.poll();
    broker.delete_topic("orders").unwrap();
    assert_eq!(by_name.poll(), (" deleted orders".into(), told(["lost 0 1 2 3"])));
    drop(by_name);

    broker.create_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    let latest = |options: ConsumerOptions| options.reset(Reset::Latest);
    let mut matching = Member::join_by(&broker, latest, |options| options.subscribe_matching(&["ord*"]));
    assert_eq!(matching.poll(), (String::new(), told(["assigned 0 1 2 3"])));
    broker.delete_topic("orders").unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    publish(&broker, "orders");
    // From its start, whatever the policy says.
    assert_eq!(matching.poll(), ("0 1 deleted orders".into(), told(["lost 0 1 2 3", "assigned 0 1"])));
    broker.create_topic("bills", &TopicConfig::new()).unwrap();
    assert_eq!(matching.poll(), (String::new(), told([])));
}

#[test]
fn added_partitions_and_new_topics_of_a_pattern_are_read_from_their_start() {
    let broker = broker();
    publish(&broker, "orders");
    let latest = |options: ConsumerOptions| options.reset(Reset::Latest);
    let mut a = Member::join_by(&broker, latest, |options| options.subscribe_matching(&["orders*"]));
    assert_eq!(a.poll(), (String::new(), told(["assigned 0 1 2 3"])));
    broker.alter_topic("orders", &TopicConfig::new().partitions(6)).unwrap();
    publish(&broker, "orders");
    assert_eq!(a.poll(), ("0 1 2 3 4 5".into(), told(["assigned 4 5"])));
    broker.create_topic("orders.eu", &TopicConfig::new()).unwrap();
    publish(&broker, "orders.eu");
    assert_eq!(a.poll(), ("0".into(), told(["assigned 0"])));
}
