//! How fast are appends in batches of 100?

use tailwater_log::{Durability, NewRecord, WhenFull};

use super::value;
use crate::baseline::HEADER_BYTES;
use crate::baseline::staged::Staged;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{LONGEST_PEER_ROUND, rate, rate_within};
use crate::peer::{self, Workload};
use crate::subject;

const BATCH_RECORDS: u64 = 100;

/// Batches of 100-byte records.
pub(super) const SMALL: Row = Row {
    name: "append-batches-100b",
    title: "append in batches of 100, `buffered`, 100 B",
    metrics: &[Metric::rate("records/s")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.9) }],
    prepare: |scale| contestants(scale, 100, 50_000),
};

/// Batches of 1 KiB records.
pub(super) const LARGE: Row = Row {
    name: "append-batches-1kib",
    title: "append in batches of 100, `buffered`, 1 KiB",
    metrics: &[Metric::rate("records/s")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.9) }],
    prepare: |scale| contestants(scale, 1024, 8_000),
};

fn contestants(scale: &Scale, size_bytes: usize, full_batches: u64) -> Result<Vec<Contestant>> {
    let batches = scale.count(full_batches);
    let value = value(size_bytes);
    let reserved_bytes = batches * BATCH_RECORDS * (size_bytes + HEADER_BYTES) as u64;
    let records = BATCH_RECORDS as f64;
    let (bare_scale, bare_value) = (scale.clone(), value.clone());
    let bare = move || {
        let directory = bare_scale.directory()?;
        let mut file = Staged::create(&directory.path().join("bare"), reserved_bytes)?;
        let batch = || (0..BATCH_RECORDS).try_for_each(|_| file.append(&bare_value));
        Ok(vec![records * rate(batches, batch)?])
    };
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Buffered)?;
        let batch: Vec<_> = (0..BATCH_RECORDS).map(|_| NewRecord::new(&log_value)).collect();
        Ok(vec![records * rate(batches, || log.append(&batch, None, WhenFull::Wait)?.wait().map(drop))?])
    };
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "the same loop as for single records: no batches", bare),
        Contestant::new("tailwater", Role::Tailwater, "each batch there whole or not at all", tailwater),
    ];
    contestants.extend(peer::contestants(scale, Workload::Buffered, |kind| {
        let (scale, value) = (scale.clone(), value.clone());
        Ok(move || {
            let directory = scale.directory()?;
            let mut peer = (kind.open)(directory.path(), 2 * reserved_bytes)?;
            let batch: Vec<&[u8]> = (0..BATCH_RECORDS).map(|_| value.as_slice()).collect();
            Ok(vec![records * rate_within(LONGEST_PEER_ROUND, batches, || peer.append_batch(&batch))?])
        })
    })?);
    Ok(contestants)
}
