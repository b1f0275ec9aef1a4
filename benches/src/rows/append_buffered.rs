//! How fast are appends, one at a time, that end in the memory of the process?

use tailwater_log::Durability;

use super::value;
use crate::baseline::HEADER_BYTES;
use crate::baseline::staged::Staged;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{LONGEST_PEER_ROUND, rate, rate_within};
use crate::peer::{self, Workload};
use crate::subject;

/// 100-byte records.
pub(super) const SMALL: Row = Row {
    name: "append-buffered-100b",
    title: "append one at a time, `buffered`, 100 B",
    metrics: &[Metric::rate("records/s")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.85) }],
    prepare: |scale| contestants(scale, 100, 5_000_000),
};

/// 1 KiB records.
pub(super) const LARGE: Row = Row {
    name: "append-buffered-1kib",
    title: "append one at a time, `buffered`, 1 KiB",
    metrics: &[Metric::rate("records/s")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.9) }],
    prepare: |scale| contestants(scale, 1024, 800_000),
};

fn contestants(scale: &Scale, size_bytes: usize, full_count: u64) -> Result<Vec<Contestant>> {
    let count = scale.count(full_count);
    let value = value(size_bytes);
    let reserved_bytes = count * (size_bytes + HEADER_BYTES) as u64;
    let (bare_scale, bare_value) = (scale.clone(), value.clone());
    let bare = move || {
        let directory = bare_scale.directory()?;
        let mut file = Staged::create(&directory.path().join("bare"), reserved_bytes)?;
        Ok(vec![rate(count, || file.append(&bare_value))?])
    };
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Buffered)?;
        Ok(vec![rate(count, || subject::append(&log, &log_value))?])
    };
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "256 KiB buffer, `pwrite` into reserved space", bare),
        Contestant::new("tailwater", Role::Tailwater, "`buffered`: in memory; checksummed", tailwater),
    ];
    contestants.extend(peer::contestants(scale, Workload::Buffered, |kind| {
        let (scale, value) = (scale.clone(), value.clone());
        Ok(move || {
            let directory = scale.directory()?;
            let mut peer = (kind.open)(directory.path(), 2 * reserved_bytes)?;
            Ok(vec![rate_within(LONGEST_PEER_ROUND, count, || peer.append(&value))?])
        })
    })?);
    Ok(contestants)
}
