//! How many records become durable in a second when many threads each wait for theirs?

use tailwater_log::Durability;

use super::{VALUE_BYTES, value};
use crate::baseline::group_commit::GroupCommit;
use crate::baseline::synced::Synced;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{Latencies, per_second};
use crate::peer::{self, Workload};
use crate::subject;

const METRICS: &[Metric] = &[
    Metric::rate("records/s"),
    Metric::time("p50", "us"),
    Metric::time("p99", "us"),
    Metric::time("p99.9", "us"),
    Metric::time("max", "us"),
];
const TARGETS: &[Target] = &[Target { metric: 0, bound: Bound::OfBestCrate(1.5) }];

/// 16 threads.
pub(super) const SIXTEEN: Row = Row {
    name: "durable-16-threads",
    title: "durable, 16 threads that each wait, 1 KiB",
    metrics: METRICS,
    targets: TARGETS,
    prepare: |scale| contestants(scale, 16),
};

/// 64 threads.
pub(super) const SIXTY_FOUR: Row = Row {
    name: "durable-64-threads",
    title: "durable, 64 threads that each wait, 1 KiB",
    metrics: METRICS,
    targets: TARGETS,
    prepare: |scale| contestants(scale, 64),
};

fn contestants(scale: &Scale, threads: u64) -> Result<Vec<Contestant>> {
    let count = scale.count(32_000) / threads;
    let value = value(VALUE_BYTES);
    let reserved_bytes = 2 * threads * count.max(1) * VALUE_BYTES as u64;
    let (bare_scale, bare_value) = (scale.clone(), value.clone());
    let bare = move || {
        let directory = bare_scale.directory()?;
        let file = GroupCommit::create(&directory.path().join("bare"), reserved_bytes)?;
        waiting(threads, count, &|_| Ok(file.append(&bare_value)?))
    };
    let (device_scale, device_value) = (scale.clone(), value.clone());
    let device = move || {
        let directory = device_scale.directory()?;
        let mut file = Synced::create(&directory.path().join("bare"), reserved_bytes)?;
        groups(threads, count, || {
            (0..threads).for_each(|_| file.append(&device_value));
            Ok(file.sync()?)
        })
    };
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        waiting(threads, count, &|_| Ok(subject::append(&log, &log_value)?))
    };
    let of_device = format!("one thread, {threads} records a `pwrite` and `fdatasync`");
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "a mutex, a leader that syncs for all", bare),
        Contestant::new("bare, the device", Role::Shown, of_device, device),
        Contestant::new("tailwater", Role::Tailwater, "`durable`: `fdatasync`; checksummed", tailwater),
    ];
    contestants.extend(peer::contestants(scale, Workload::Durable, |kind| {
        let (scale, value) = (scale.clone(), value.clone());
        Ok(move || {
            let directory = scale.directory()?;
            let peer = (kind.open)(directory.path(), reserved_bytes)?;
            waiting(threads, count, &|_| peer.append_durable(&value))
        })
    })?);
    Ok(contestants)
}

/// Has each of `threads` do `act`, which is told the number of the thread, `count` times. Returns the rate and the
/// latencies.
pub(super) fn waiting(
    threads: u64,
    count: u64,
    act: &(dyn Fn(usize) -> Result<()> + Sync),
) -> Result<Vec<f64>> {
    let mut all = Latencies::new()?;
    let start = std::time::Instant::now();
    let done: Vec<Result<Latencies>> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .zip(0..)
            .map(|(_, thread)| scope.spawn(move || timed(count, &|| act(thread))))
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
            .collect()
    });
    let elapsed = start.elapsed();
    for latencies in done {
        all.add(&latencies?)?;
    }
    Ok(figures(per_second(threads * count, elapsed), &all))
}

fn timed(count: u64, act: &dyn Fn() -> Result<()>) -> Result<Latencies> {
    let mut latencies = Latencies::new()?;
    for _ in 0..count {
        latencies.time(act)?;
    }
    Ok(latencies)
}

/// Does `count` times what makes a group of records durable.
fn groups(group: u64, count: u64, mut act: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut latencies = Latencies::new()?;
    let start = std::time::Instant::now();
    for _ in 0..count {
        latencies.time(&mut act)?;
    }
    Ok(figures(per_second(group * count, start.elapsed()), &latencies))
}

fn figures(rate: f64, latencies: &Latencies) -> Vec<f64> {
    std::iter::once(rate)
        .chain([0.5, 0.99, 0.999, 1.0].map(|quantile| latencies.quantile_us(quantile)))
        .collect()
}
