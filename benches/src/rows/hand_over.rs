//! How long is it from an append to its read in another thread, at 20,000 records a second?

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tailwater::{Broker, TopicConfig};
use tailwater_log::{Durability, FetchHint, FetchIsolation, FetchLimits, Fetched, Log, Offset, Signal};

use super::{VALUE_BYTES, value};
use crate::baseline::HEADER_BYTES;
use crate::baseline::hand_over::HandOver;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{Latencies, spin_until, thread_cpu_time};
use crate::subject;

/// Time between two appends.
const INTERVAL: Duration = Duration::from_micros(50);
/// How long a waiting consumer is left alone, to see what that costs.
const IDLE: Duration = Duration::from_millis(500);
/// A consumer that has waited for so long has missed something.
const GIVE_UP: Duration = Duration::from_secs(20);

/// The consumer looks again and again.
pub(super) const POLLING: Row = Row {
    name: "hand-over-polling",
    title: "append to read in another thread, 20 k/s, the consumer polls, 1 KiB",
    metrics: &[
        Metric::time("p50", "us"),
        Metric::time("p99", "us"),
        Metric::time("p99.9", "us"),
        Metric::time("max", "us"),
    ],
    targets: &[Target { metric: 0, bound: Bound::OfBare(1.05) }],
    prepare: polling,
};

/// The consumer sleeps until there is something.
pub(super) const WAITING: Row = Row {
    name: "hand-over-waiting",
    title: "append to read in another thread, 20 k/s, the consumer waits, 1 KiB",
    metrics: &[
        Metric::time("p50", "us"),
        Metric::time("p99", "us"),
        Metric::time("p99.9", "us"),
        Metric::time("max", "us"),
        Metric::time("CPU of the idle consumer", "ms a second"),
    ],
    targets: &[
        Target { metric: 0, bound: Bound::AtMost(25.0) },
        Target { metric: 4, bound: Bound::AtMost(1.0) },
    ],
    prepare: waiting,
};

fn polling(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(40_000);
    let bare_scale = scale.clone();
    let bare = move || {
        let directory = bare_scale.directory()?;
        let file = hand_over(directory.path(), count)?;
        let (mut buffer, mut position) = (Vec::new(), 0);
        let latencies = run(
            count,
            None,
            |value| Ok(file.append(value, &mut buffer)?),
            |_, take| Ok(file.next(&mut position).map_or(0, &mut *take)),
        )?;
        Ok(latencies.0)
    };
    let log_scale = scale.clone();
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Written)?;
        let mut place = (Offset::ZERO, None);
        let append = |value: &[u8]| Ok(subject::append(&log, value)?);
        Ok(run(count, None, append, |_, take| next(&log, &mut place, take))?.0)
    };
    Ok(vec![
        Contestant::new("bare", Role::Bare, "`pwrite`, an atomic, a map", bare),
        Contestant::new("tailwater", Role::Tailwater, "`written`; `Log::fetch` again and again", tailwater),
    ])
}

fn waiting(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(40_000);
    let bare_scale = scale.clone();
    let bare = move || {
        let directory = bare_scale.directory()?;
        let file = hand_over(directory.path(), count)?;
        let consumer = std::thread::current();
        let (mut buffer, mut position) = (Vec::new(), 0);
        let append = |value: &[u8]| {
            file.append(value, &mut buffer)?;
            consumer.unpark();
            Ok(())
        };
        with_idle(run(count, Some(IDLE), append, |deadline, take| {
            loop {
                if let Some(value) = file.next(&mut position) {
                    return Ok(take(value));
                }
                match deadline.checked_duration_since(Instant::now()) {
                    Some(left) => std::thread::park_timeout(left),
                    None => return Ok(0),
                }
            }
        })?)
    };
    let log_scale = scale.clone();
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Written)?;
        let signal = Arc::new(Signal::new());
        let _listening = log.add_listener(&signal, FetchIsolation::Visible);
        let mut place = (Offset::ZERO, None);
        let append = |value: &[u8]| Ok(subject::append(&log, value)?);
        with_idle(run(count, Some(IDLE), append, |deadline, take| {
            signal.arm();
            match next(&log, &mut place, take)? {
                0 if signal.wait_until(deadline) => next(&log, &mut place, take),
                taken => Ok(taken),
            }
        })?)
    };
    let facade_scale = scale.clone();
    Ok(vec![
        Contestant::new("bare", Role::Bare, "`pwrite`, an atomic, a map, `park`", bare),
        Contestant::new("tailwater", Role::Tailwater, "`written`; `Signal`, `Log::fetch`", tailwater),
        Contestant::new("tailwater, facade", Role::Shown, "`publish` to `Consumer::poll`", move || {
            facade(&facade_scale, count)
        }),
    ])
}

fn facade(scale: &Scale, count: u64) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let broker = Broker::open(directory.path().join("data"))?;
    broker.create_topic("bench", &TopicConfig::new().durability(Durability::Written))?;
    let producer = broker.producer("bench")?;
    let mut consumer = broker.reader().subscribe(&["bench"])?;
    let append = |value: &[u8]| Ok(producer.publish(value).map(drop)?);
    with_idle(run(count, Some(IDLE), append, |deadline, take| {
        let records = consumer.poll(deadline.saturating_duration_since(Instant::now()))?;
        Ok(records.iter().filter_map(|record| record.value()).map(take).sum())
    })?)
}

fn hand_over(directory: &Path, count: u64) -> Result<HandOver> {
    let reserved_bytes = usize::try_from(count)? * (VALUE_BYTES + HEADER_BYTES);
    Ok(HandOver::create(&directory.join("bare"), reserved_bytes)?)
}

/// Takes what there is at `place`, and moves it on. Returns how many records there were.
fn next(
    log: &Log,
    place: &mut (Offset, Option<FetchHint>),
    take: &mut dyn FnMut(&[u8]) -> u64,
) -> Result<u64> {
    let fetched: Fetched =
        log.fetch(place.0, FetchLimits::default(), FetchIsolation::Visible, place.1.take())?;
    *place = (fetched.next_offset(), fetched.hint());
    Ok(fetched.iter().filter_map(|record| record.value()).map(take).sum())
}

/// Has another thread append `count` records at their times, and this one take them. Returns the quantiles of the latency,
/// and the processor time of this thread in milliseconds a second while, at first, nothing came for `idle`.
///
/// `take` is given to the consumer for each record and returns 1; the consumer returns how many records it took, at the
/// latest at the time it is given.
fn run(
    count: u64,
    idle: Option<Duration>,
    mut append: impl FnMut(&[u8]) -> Result<()> + Send,
    mut consume: impl FnMut(Instant, &mut dyn FnMut(&[u8]) -> u64) -> Result<u64>,
) -> Result<(Vec<f64>, f64)> {
    let base = Instant::now();
    let mut latencies = Latencies::new()?;
    let mut take = |value: &[u8]| {
        let sent = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        latencies.note(base.elapsed().saturating_sub(Duration::from_nanos(sent)));
        1
    };
    let idle_cpu_ms = match idle {
        None => 0.0,
        Some(idle) => {
            let before = thread_cpu_time();
            let until = Instant::now() + idle;
            while Instant::now() < until {
                consume(until, &mut take)?;
            }
            (thread_cpu_time() - before).as_secs_f64() * 1e3 / idle.as_secs_f64()
        }
    };
    let has_failed = AtomicBool::new(false);
    let consumer = std::thread::current();
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let done = produce(count, base, &mut append);
            has_failed.store(done.is_err(), Ordering::SeqCst);
            consumer.unpark();
            done
        });
        let give_up = Instant::now() + GIVE_UP + INTERVAL * u32::try_from(count)?;
        let mut taken = 0;
        while taken < count && !has_failed.load(Ordering::SeqCst) {
            taken += consume(give_up.min(Instant::now() + Duration::from_secs(1)), &mut take)?;
            if Instant::now() > give_up {
                return Err(format!("{taken} of {count} records were read in time").into());
            }
        }
        producer.join().unwrap_or_else(|_| Err("the producer panicked".into()))
    })?;
    let quantiles = [0.5, 0.99, 0.999, 1.0].map(|quantile| latencies.quantile_us(quantile));
    Ok((quantiles.to_vec(), idle_cpu_ms))
}

fn produce(count: u64, base: Instant, append: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut value = value(VALUE_BYTES);
    let mut due = Instant::now();
    for _ in 0..count {
        due += INTERVAL;
        spin_until(due);
        let sent = u64::try_from(base.elapsed().as_nanos())?;
        value[..8].copy_from_slice(&sent.to_le_bytes());
        append(&value)?;
    }
    Ok(())
}

fn with_idle((mut figures, idle_cpu_ms): (Vec<f64>, f64)) -> Result<Vec<f64>> {
    figures.push(idle_cpu_ms);
    Ok(figures)
}
