//! How fast is publishing through the facade, by key over 8 partitions, to a group that consumes and commits, beside the
//! log's own appends?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tailwater::{Broker, Consumer, Message, Producer, TopicConfig};
use tailwater_log::{Durability, NewRecord, WhenFull};

use super::{VALUE_BYTES, value};
use crate::contest::{Better, Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{per_second, rate};
use crate::subject;

const PARTITIONS: u32 = 8;
/// How many keys there are.
const KEYS: u64 = 10_000;
const GIVE_UP: Duration = Duration::from_secs(120);

/// Publishing while a group consumes and commits.
pub(super) const ROW: Row = Row {
    name: "facade",
    title: "publish by key over 8 partitions, a group consumes and commits, `buffered`, 1 KiB",
    metrics: &[
        Metric { name: "published", unit: "records/s", better: Better::Higher },
        Metric { name: "consumed and committed", unit: "records/s", better: Better::Higher },
    ],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.7) }],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(500_000);
    let value = value(VALUE_BYTES);
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let own = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Buffered)?;
        let mut number = 0;
        let own = rate(count, || {
            number += 1;
            let key = key(number);
            let record = NewRecord { key: Some(&key), ..NewRecord::new(&log_value) };
            log.append(&[record], None, WhenFull::Wait)?.wait().map(drop)
        })?;
        Ok(vec![own, own])
    };
    let facade_scale = scale.clone();
    Ok(vec![
        Contestant::new("the log itself", Role::Bare, "`Log::append`, one partition, nobody reads", own),
        Contestant::new(
            "tailwater, facade",
            Role::Tailwater,
            "`send`; `poll`, `commit().wait()`",
            move || publish_and_consume(&facade_scale, count, &value),
        ),
    ])
}

fn key(number: u64) -> [u8; 8] {
    (number % KEYS).to_le_bytes()
}

fn publish_and_consume(scale: &Scale, count: u64, value: &[u8]) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let broker = Broker::open(directory.path().join("data"))?;
    let config = TopicConfig::new().partitions(PARTITIONS).durability(Durability::Buffered);
    broker.create_topic("bench", &config)?;
    let producer = broker.producer("bench")?;
    let mut consumer = broker.consumer("group").max_records(10_000).subscribe(&["bench"])?;
    let has_failed = AtomicBool::new(false);
    let start = Instant::now();
    let (published, consumed) = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let done = publish(&producer, count, value);
            has_failed.store(done.is_err(), Ordering::SeqCst);
            done
        });
        let consumed = consume(&mut consumer, count, &has_failed);
        (publishing.join().unwrap_or_else(|_| Err("the publisher panicked".into())), consumed)
    });
    let published = published?;
    consumed?;
    Ok(vec![published, per_second(count, start.elapsed())])
}

fn publish(producer: &Producer, count: u64, value: &[u8]) -> Result<f64> {
    let mut number = 0;
    Ok(rate(count, || {
        number += 1;
        producer.send(Message::new(value).key(&key(number))).map(drop)
    })?)
}

fn consume(consumer: &mut Consumer, count: u64, has_failed: &AtomicBool) -> Result<()> {
    let give_up = Instant::now() + GIVE_UP;
    let mut consumed = 0;
    while consumed < count && !has_failed.load(Ordering::SeqCst) {
        let records = consumer.poll(Duration::from_secs(1))?;
        consumed += records.iter().filter(|record| record.value().is_some()).count() as u64;
        consumer.commit().wait()?;
        if Instant::now() > give_up {
            return Err(format!("{consumed} of {count} records were consumed in {GIVE_UP:?}").into());
        }
    }
    Ok(())
}
