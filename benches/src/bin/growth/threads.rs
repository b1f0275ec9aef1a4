//! Many producers and many consumers of one partition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::measure::per_second;
use tailwater_benches::rows::{VALUE_BYTES, value};
use tailwater_benches::series::{Column, Series};
use tailwater_benches::subject;
use tailwater_log::Durability;

const COUNTS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

pub(super) fn producers(scale: &Scale) -> Result<Series> {
    const COLUMNS: &[Column] = &[
        Column { name: "`buffered`", unit: "records/s" },
        Column { name: "`written`", unit: "records/s" },
        Column { name: "`durable`", unit: "durable records/s" },
    ];
    let mut series =
        Series::new("producers", "Producers of one partition, 1 KiB records", "producers", COLUMNS);
    for threads in COUNTS {
        let rate = |durability, count| appends(scale, threads, durability, scale.count(count));
        let figures = vec![
            rate(Durability::Buffered, 500_000)?,
            rate(Durability::Written, 300_000)?,
            rate(Durability::Durable, 1_000 * u64::from(threads))?,
        ];
        series.add(threads.into(), figures);
    }
    Ok(series)
}

fn appends(scale: &Scale, threads: u32, durability: Durability, count: u64) -> Result<f64> {
    let directory = scale.directory()?;
    let log = subject::create(directory.path(), durability)?;
    let value = value(VALUE_BYTES);
    let each = count.div_ceil(threads.into());
    let start = Instant::now();
    on_threads(threads, &|| Ok((0..each).try_for_each(|_| subject::append(&log, &value))?))?;
    Ok(per_second(each * u64::from(threads), start.elapsed()))
}

pub(super) fn consumers(scale: &Scale) -> Result<Series> {
    const COLUMNS: &[Column] =
        &[Column { name: "all together", unit: "GB/s" }, Column { name: "each", unit: "GB/s" }];
    let mut series =
        Series::new("consumers", "Consumers of one partition, 1 KiB records", "consumers", COLUMNS);
    let directory = scale.directory()?;
    let log = subject::create(directory.path(), Durability::Buffered)?;
    let value = value(VALUE_BYTES);
    (0..scale.count(256 * 1024)).try_for_each(|_| subject::append(&log, &value))?;
    log.write_staged()?;
    for threads in COUNTS {
        let read_bytes = AtomicU64::new(0);
        let start = Instant::now();
        on_threads(threads, &|| {
            read_bytes.fetch_add(subject::scan(&log)?.1, Ordering::Relaxed);
            Ok(())
        })?;
        let all = read_bytes.into_inner() as f64 / start.elapsed().as_secs_f64() / 1e9;
        series.add(threads.into(), vec![all, all / f64::from(threads)]);
    }
    Ok(series)
}

/// Does something on each of some threads at once.
fn on_threads(threads: u32, act: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(act)).collect();
        started
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}
