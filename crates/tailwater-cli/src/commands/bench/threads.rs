//! Records from one thread to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tailwater::{Broker, Message, TopicConfig};
use tailwater_log::{Durability, FetchIsolation, NewRecord, Signal};

use super::bare::{Appender, Committed, End, Reader};
use super::measure::{Latencies, MeasureError, Result, Round, Sides, repeat};
use super::subject::Place;
use super::{Plan, subject};

/// Time between two appends that are handed over.
const INTERVAL: Duration = Duration::from_micros(50);
/// How long a consumer sleeps at most before it looks whether the other thread has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A consumer that has got nothing for so long, although there is something, has missed it.
const GIVE_UP: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 4;
/// How many keys there are.
const KEYS: u64 = 10_000;
const TOPIC: &str = "bench";

/// From an append to its read by a thread that sleeps until then.
pub(super) fn hand_over(plan: &Plan) -> Sides<'_> {
    let bare = || {
        let directory = plan.scratch.directory()?;
        let mut file = Appender::create(&directory.file())?;
        let (end, mut reader, consumer) = (End::default(), file.reader()?, thread::current());
        let append = |value: &[u8]| {
            file.stage(value);
            file.write()?;
            end.publish(file.written_bytes());
            consumer.unpark();
            Ok(())
        };
        handed_over(plan, append, |deadline, take| wait_and_read(&end, &mut reader, deadline, take))
    };
    let tailwater = || {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), Durability::Written)?;
        let signal = Arc::new(Signal::new());
        let _listening = log.add_listener(&signal, FetchIsolation::Visible);
        let mut place = Place::START;
        let append = |value: &[u8]| subject::append(&log, &[NewRecord::new(value)]);
        handed_over(plan, append, |deadline, take| {
            signal.arm();
            match place.fetch(&log, &mut *take)? {
                0 if signal.wait_until(deadline) => place.fetch(&log, take),
                taken => Ok(taken),
            }
        })
    };
    Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) }
}

/// Through a broker: by key to several partitions, to a group that commits.
pub(super) fn publish_consume(plan: &Plan) -> Sides<'_> {
    let value = plan.value();
    let bare_value = value.clone();
    let bare = move || {
        let directory = plan.scratch.directory()?;
        let mut file = Appender::create(&directory.file())?;
        let (end, mut reader, consumer) = (End::default(), file.reader()?, thread::current());
        let committed = Committed::create(&directory.path().join("committed"), &file)?;
        let produce = || {
            let publish = |file: &Appender| {
                if file.written_bytes() > end.get() {
                    end.publish(file.written_bytes());
                    consumer.unpark();
                }
            };
            let round = repeat(&plan.limit, 1, plan.clock_every(), || {
                file.stage_or_write(&bare_value)?;
                publish(&file);
                Ok(())
            })?;
            file.write()?;
            publish(&file);
            Ok(round.records)
        };
        between_threads(produce, |deadline| {
            let count = wait_and_read(&end, &mut reader, deadline, &mut |_| {})?;
            if count > 0 {
                committed.commit(reader.position())?;
            }
            Ok(count)
        })
    };
    let tailwater = move || {
        let directory = plan.scratch.directory()?;
        let broker = Broker::open(directory.path().join("data"))?;
        let config = TopicConfig::new().partitions(PARTITIONS).durability(Durability::Buffered);
        broker.create_topic(TOPIC, &config)?;
        let producer = broker.producer(TOPIC)?;
        let mut consumer = broker.consumer("group").max_records(10_000).subscribe(&[TOPIC])?;
        let produce = || {
            let mut number = 0_u64;
            let round = repeat(&plan.limit, 1, plan.clock_every(), || {
                number += 1;
                let key = (number % KEYS).to_le_bytes();
                producer.publish(Message::new(&value).key(&key))?;
                Ok(())
            });
            Ok(round?.records)
        };
        between_threads(produce, |deadline| {
            let records = consumer.poll(deadline.saturating_duration_since(Instant::now()))?;
            if !records.is_empty() {
                consumer.commit().wait()?;
            }
            Ok(records.count() as u64)
        })
    };
    Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) }
}

/// Reads what the other thread has written, and sleeps until the deadline if there is nothing.
fn wait_and_read(
    end: &End,
    reader: &mut Reader,
    deadline: Instant,
    take: &mut dyn FnMut(&[u8]),
) -> Result<u64> {
    loop {
        match reader.for_each(end.get(), &mut *take)? {
            0 => match deadline.checked_duration_since(Instant::now()) {
                Some(left) => thread::park_timeout(left),
                None => return Ok(0),
            },
            count => return Ok(count),
        }
    }
}

/// Appends records at their times, each with the time in it, and notes how old they are when they are taken.
fn handed_over(
    plan: &Plan,
    mut append: impl FnMut(&[u8]) -> Result<()> + Send,
    mut consume: impl FnMut(Instant, &mut dyn FnMut(&[u8])) -> Result<u64>,
) -> Result<Round> {
    let base = Instant::now();
    let now_ns = || u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let produce = || {
        let (mut value, mut due) = (plan.value(), Instant::now());
        let round = repeat(&plan.limit, 1, 1, || {
            due += INTERVAL;
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            value[..size_of::<u64>()].copy_from_slice(&now_ns().to_le_bytes());
            append(&value)
        });
        Ok(round?.records)
    };
    let mut latencies = Latencies::new()?;
    let mut take = |value: &[u8]| {
        let sent_ns = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        latencies.note(Duration::from_nanos(now_ns().saturating_sub(sent_ns)));
    };
    let round = between_threads(produce, |deadline| consume(deadline, &mut take))?;
    Ok(Round { latencies: Some(latencies), ..round })
}

/// Has another thread produce, which returns how many records it made, and this one consume them until it has got as many.
fn between_threads(
    produce: impl FnOnce() -> Result<u64> + Send,
    mut consume: impl FnMut(Instant) -> Result<u64>,
) -> Result<Round> {
    /// Before it is known how many there are.
    const UNKNOWN: u64 = u64::MAX;
    let total = AtomicU64::new(UNKNOWN);
    thread::scope(|scope| {
        let consumer = thread::current();
        let total = &total;
        let produce = move || {
            let produced = produce();
            // After a failure nobody waits for more.
            total.store(*produced.as_ref().unwrap_or(&0), Ordering::SeqCst);
            consumer.unpark();
            produced
        };
        let start = Instant::now();
        let cannot = |error| MeasureError::Other(format!("cannot start a thread: {error}"));
        let producer = thread::Builder::new().spawn_scoped(scope, produce).map_err(cannot)?;
        let (mut records, mut last) = (0, start);
        while records < total.load(Ordering::SeqCst) {
            let taken = consume(Instant::now() + LOOK_EVERY)?;
            let now = Instant::now();
            if taken > 0 {
                records += taken;
                last = now;
            } else if now > last + GIVE_UP {
                return Err(MeasureError::Other(format!("no record came after the first {records}")));
            }
        }
        let panicked = || MeasureError::Other("a thread of the benchmark panicked".to_owned());
        producer.join().unwrap_or_else(|_| Err(panicked()))?;
        Ok(Round { records, elapsed: last - start, latencies: None })
    })
}
