//! What does compression cost, and what does it save, on JSON as services exchange it?

use std::rc::Rc;
use std::time::Instant;

use tailwater_log::{Compression, Durability, LogOptions};

use crate::contest::{Better, Contestant, Metric, Result, Role, Row, Scale};
use crate::measure::scattered;
use crate::subject;

/// JSON events appended one at a time, and read again.
pub(super) const ROW: Row = Row {
    name: "compressed-json",
    title: "JSON events of 340 B, appended one at a time, `buffered`, and read",
    metrics: &[
        Metric { name: "appended and written", unit: "MB/s", better: Better::Higher },
        Metric { name: "scanned", unit: "MB/s", better: Better::Higher },
        Metric::time("one record read", "us"),
        Metric { name: "smaller", unit: "times", better: Better::Higher },
    ],
    targets: &[],
    prepare: contestants,
};

const SMALL_BATCH_BYTES: u32 = 8 << 10;

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let events = Rc::new(events(scale.count(400_000)));
    let cases = [
        ("tailwater", Role::Tailwater, Compression::None, None, "not compressed"),
        ("lz4", Role::Shown, Compression::Lz4, None, "batches of 64 KiB"),
        ("lz4, 8 KiB", Role::Shown, Compression::Lz4, Some(SMALL_BATCH_BYTES), "batches of 8 KiB"),
        ("zstd", Role::Shown, Compression::Zstd, None, "batches of 64 KiB, level 3"),
        ("zstd, 8 KiB", Role::Shown, Compression::Zstd, Some(SMALL_BATCH_BYTES), "batches of 8 KiB, level 3"),
    ];
    let contestants = cases.into_iter().map(|(name, role, compression, max_batch_bytes, note)| {
        let (scale, events) = (scale.clone(), Rc::clone(&events));
        Contestant::new(name, role, note, move || {
            let mut options = subject::options(Durability::Buffered);
            options.config.compression = compression;
            if let Some(bytes) = max_batch_bytes {
                options.config.max_batch_bytes = bytes;
            }
            measure(&scale, &events, options)
        })
    });
    Ok(contestants.collect())
}

fn measure(scale: &Scale, events: &[String], options: LogOptions) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let size_bytes: u64 = events.iter().map(|event| event.len() as u64).sum();
    let log = subject::create_with(directory.path(), options)?;
    let megabytes = size_bytes as f64 / 1e6;

    let start = Instant::now();
    events.iter().try_for_each(|event| subject::append(&log, event.as_bytes()))?;
    log.write_staged()?;
    let appended = start.elapsed();

    let start = Instant::now();
    if subject::scan(&log)? != (events.len() as u64, size_bytes) {
        return Err("what is read is not what was appended".into());
    }
    let scanned = start.elapsed();

    let reads = scale.count(4_000);
    let mut next = scattered(events.len() as u64);
    let start = Instant::now();
    for _ in 0..reads {
        subject::read(&log, next())?;
    }
    let read = start.elapsed();
    Ok(vec![
        megabytes / appended.as_secs_f64(),
        megabytes / scanned.as_secs_f64(),
        read.as_secs_f64() * 1e6 / reads as f64,
        size_bytes as f64 / log.stats()?.bytes_written as f64,
    ])
}

/// Events of a shop, each with ids, times and numbers of its own, the same in every run.
fn events(count: u64) -> Vec<String> {
    const STATES: [&str; 5] = ["created", "authorized", "captured", "shipped", "refunded"];
    const CITIES: [&str; 6] = ["Lisbon", "Osaka", "Trondheim", "Guadalajara", "Nairobi", "Wellington"];
    const ITEMS: [&str; 6] = ["espresso cup", "grinder", "filter paper", "kettle", "beans 1 kg", "scale"];
    let mut number = scattered(1 << 32);
    let mut pick = |words: &[&'static str]| words[usize::try_from(number()).unwrap_or(0) % words.len()];
    let mut id = scattered(u64::MAX / 2);
    let mut amount = scattered(100_000);
    let event = |n: u64| {
        format!(
            "{{\"event_id\":\"{:016x}{:016x}\",\"type\":\"order.{}\",\"occurred_at\":\"2026-03-{:02}T{:02}:{:02}:{:02}.{:03}Z\",\
             \"customer\":{{\"id\":{},\"city\":\"{}\"}},\"items\":[{{\"sku\":\"{:08x}\",\"name\":\"{}\",\"quantity\":{},\
             \"price_cents\":{}}}],\"total_cents\":{},\"currency\":\"EUR\",\"source\":\"checkout-service\",\
             \"trace\":\"{:016x}\",\"version\":3}}",
            id(),
            id(),
            pick(&STATES),
            n / 86_400 % 28 + 1,
            n / 3600 % 24,
            n / 60 % 60,
            n % 60,
            amount() % 1000,
            amount(),
            pick(&CITIES),
            amount(),
            pick(&ITEMS),
            amount() % 5 + 1,
            amount(),
            amount(),
            id(),
        )
    };
    (0..count).map(event).collect()
}
