//! How long does one thread wait for each of its records to be durable?

use tailwater_log::Durability;

use super::{VALUE_BYTES, value};
use crate::baseline::synced::Synced;
use crate::contest::{Bound, Contestant, Result, Role, Row, Scale, Target};
use crate::measure::{LATENCY_METRICS, Latencies};
use crate::peer::{self, Workload};
use crate::subject;

/// One thread that waits.
pub(super) const ROW: Row = Row {
    name: "durable-one",
    title: "durable, one thread that waits, 1 KiB",
    metrics: LATENCY_METRICS,
    targets: &[
        Target { metric: 0, bound: Bound::OfBare(1.05) },
        Target { metric: 1, bound: Bound::OfBare(1.05) },
    ],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(4_000);
    let value = value(VALUE_BYTES);
    let bare = |reserved_bytes: u64| {
        let (scale, value) = (scale.clone(), value.clone());
        move || {
            let directory = scale.directory()?;
            let mut file = Synced::create(&directory.path().join("bare"), reserved_bytes)?;
            latencies(count, || {
                file.append(&value);
                Ok(file.sync()?)
            })
        }
    };
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        latencies(count, || Ok(subject::append(&log, &log_value)?))
    };
    let reserved_bytes = 2 * count * VALUE_BYTES as u64;
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "`pwrite`, `fdatasync`; reserved space", bare(reserved_bytes)),
        Contestant::new("bare, growing file", Role::Shown, "`pwrite`, `fdatasync`; growing file", bare(0)),
        Contestant::new("tailwater", Role::Tailwater, "`durable`: `fdatasync`; checksummed", tailwater),
    ];
    contestants.extend(peer::contestants(scale, Workload::Durable, |kind| {
        let (scale, value) = (scale.clone(), value.clone());
        Ok(move || {
            let directory = scale.directory()?;
            let peer = (kind.open)(directory.path(), reserved_bytes)?;
            latencies(count, || peer.append_durable(&value))
        })
    })?);
    Ok(contestants)
}

fn latencies(count: u64, mut act: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut latencies = Latencies::new()?;
    for _ in 0..count {
        latencies.time(&mut act)?;
    }
    Ok(latencies.figures())
}
