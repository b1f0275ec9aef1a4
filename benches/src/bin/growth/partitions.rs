//! Topics of 1 to 10,000 partitions: how long they take to make and to open, what they hold, how fast they take records.

use std::time::Instant;

use peak_alloc::PeakAlloc;
use tailwater::{Broker, Message, PartitionId, Producer, ProducerOptions, TopicConfig};
use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::measure::per_second;
use tailwater_benches::rows::value;
use tailwater_benches::series::{Column, Series};
use tailwater_log::Durability;

const COLUMNS: &[Column] = &[
    Column { name: "create the topic", unit: "s" },
    Column { name: "open the broker", unit: "s" },
    Column { name: "first append to each partition", unit: "s" },
    Column { name: "close", unit: "s" },
    Column { name: "descriptors", unit: "descriptors" },
    Column { name: "heap, all partitions open", unit: "MiB" },
    Column { name: "round-robin `buffered` appends", unit: "records/s" },
    Column { name: "`durable`, one in flight for each partition", unit: "durable records/s" },
];

const SIZE_BYTES: usize = 100;
/// Most durable messages in flight at once.
const MOST_IN_FLIGHT: u32 = 1_000;

pub(super) fn measure(scale: &Scale, max: u32, heap: &PeakAlloc) -> Result<Series> {
    let mut series =
        Series::new("partitions", "Topics of many partitions, 100 B records", "partitions", COLUMNS);
    let max = if scale.is_quick { 10 } else { max };
    let counts =
        std::iter::successors(Some(1_u32), |count| count.checked_mul(10)).take_while(|count| *count <= max);
    for partitions in counts {
        series.add(partitions.into(), one(scale, partitions, heap)?);
    }
    Ok(series)
}

fn one(scale: &Scale, partitions: u32, heap: &PeakAlloc) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let path = directory.path().join("data");
    let broker = Broker::open(&path)?;
    let config = TopicConfig::new().partitions(partitions).durability(Durability::Buffered);
    let create = timed(|| Ok(broker.create_topic("bench", &config)?))?;
    broker.close()?;
    drop(broker);

    let heap_before = heap.current_usage();
    let descriptors_before = descriptors()?;
    let start = Instant::now();
    let broker = Broker::open(&path)?;
    let open = start.elapsed().as_secs_f64();
    let producer = broker.producer("bench")?;
    let value = value(SIZE_BYTES);
    let first = timed(|| round_robin(&producer, partitions, partitions.into(), &value))?;
    let held = descriptors()?.saturating_sub(descriptors_before) as f64;
    let heap_held = heap.current_usage().saturating_sub(heap_before) as f64 / f64::from(1 << 20);

    let count = scale.count(500_000).max(2 * u64::from(partitions));
    let lazy = timed(|| round_robin(&producer, partitions, count, &value))?;
    let waves = scale.count(2_000).div_ceil(u64::from(partitions));
    let in_flight = partitions.min(MOST_IN_FLIGHT);
    let durable_producer =
        broker.producer_with("bench", ProducerOptions::new().durability(Durability::Durable))?;
    let durable = timed(|| (0..waves).try_for_each(|_| wave(&durable_producer, in_flight, &value)))?;
    let close = timed(|| {
        broker.close()?;
        Ok(())
    })?;
    let durable_count = waves * u64::from(in_flight);
    let rate = |count: u64, seconds: f64| per_second(count, std::time::Duration::from_secs_f64(seconds));
    Ok(vec![create, open, first, close, held, heap_held, rate(count, lazy), rate(durable_count, durable)])
}

/// Sends `count` messages to one partition after the other.
fn round_robin(producer: &Producer, partitions: u32, count: u64, value: &[u8]) -> Result<()> {
    for number in 0..count {
        let partition = PartitionId::new(u32::try_from(number % u64::from(partitions))?);
        drop(producer.send(Message::new(value).partition(partition))?);
    }
    Ok(())
}

/// Sends a message to each of `in_flight` partitions, and waits until all are durable.
fn wave(producer: &Producer, in_flight: u32, value: &[u8]) -> Result<()> {
    let mut receipts = Vec::new();
    for number in 0..in_flight {
        receipts.push(producer.send(Message::new(value).partition(PartitionId::new(number)))?);
    }
    for receipt in receipts {
        receipt.wait()?;
    }
    Ok(())
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed().as_secs_f64())
}

/// How many files this process has open.
fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
