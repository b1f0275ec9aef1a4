//! How fast is a scan of 1 GiB from the page cache, with every checksum verified?

use std::rc::Rc;
use std::time::Instant;

use tailwater_log::Durability;

use super::{VALUE_BYTES, value};
use crate::baseline::offset_table::OffsetTable;
use crate::baseline::walk::walk;
use crate::contest::{Better, Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::peer::{self, Workload};
use crate::subject;

/// A scan of 1 GiB.
pub(super) const ROW: Row = Row {
    name: "scan",
    title: "scan 1 GiB from the page cache, checksums verified, 1 KiB",
    metrics: &[Metric { name: "rate", unit: "GB/s", better: Better::Higher }],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.85) }],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(1 << 20);
    let size_bytes = count * VALUE_BYTES as u64;
    let value = value(VALUE_BYTES);
    let directory = Rc::new(scale.directory()?);
    let table = OffsetTable::create(&directory.path().join("bare"), &value, usize::try_from(count)?)?;
    let log = subject::create(directory.path(), Durability::Buffered)?;
    (0..count).try_for_each(|_| subject::append(&log, &value))?;
    log.write_staged()?;
    let held = Rc::clone(&directory);
    let bare = move || {
        let _held = &held;
        timed(size_bytes, || Ok(walk(table.bytes()).1))
    };
    let tailwater = move || {
        let _held = &directory;
        timed(size_bytes, || Ok(subject::scan(&log)?.1))
    };
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "a walk over a map; each record checked", bare),
        Contestant::new("tailwater", Role::Tailwater, "borrowed records; each batch checked", tailwater),
    ];
    contestants.extend(peer::contestants(scale, Workload::Scan, |kind| {
        let directory = scale.directory()?;
        let mut peer = (kind.open)(directory.path(), 2 * size_bytes)?;
        peer.fill(&value, count)?;
        Ok(move || {
            let _held = &directory;
            timed(size_bytes, || peer.scan())
        })
    })?);
    Ok(contestants)
}

fn timed(size_bytes: u64, mut scan: impl FnMut() -> Result<u64>) -> Result<Vec<f64>> {
    let start = Instant::now();
    let read_bytes = scan()?;
    let elapsed = start.elapsed();
    if read_bytes != size_bytes {
        return Err(format!("a scan read {read_bytes} bytes of {size_bytes}").into());
    }
    Ok(vec![size_bytes as f64 / elapsed.as_secs_f64() / 1e9])
}
