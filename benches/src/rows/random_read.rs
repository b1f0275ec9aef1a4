//! How long does it take to read one record at a random offset of 1 GiB in the page cache?

use std::rc::Rc;
use std::time::Instant;

use tailwater_log::Durability;

use super::{VALUE_BYTES, value};
use crate::baseline::offset_table::OffsetTable;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::scattered;
use crate::peer::{self, Workload};
use crate::subject;

/// Reads of one record.
pub(super) const ROW: Row = Row {
    name: "random-read",
    title: "read one record at a random offset of 1 GiB, 1 KiB",
    metrics: &[Metric::time("mean", "us")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(1.05) }],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(1 << 20);
    let value = value(VALUE_BYTES);
    let directory = Rc::new(scale.directory()?);
    let table = OffsetTable::create(&directory.path().join("bare"), &value, usize::try_from(count)?)?;
    let reads = scale.count(500_000);
    let held = Rc::clone(&directory);
    let bare = move || {
        let _held = &held;
        timed(count, reads, |index| Ok(std::hint::black_box(table.read(usize::try_from(index)?)).len()))
    };
    let log = |durability: Durability| -> Result<_> {
        let directory = scale.directory()?;
        let log = subject::create(directory.path(), durability)?;
        (0..count).try_for_each(|_| subject::append(&log, &value))?;
        log.write_staged()?;
        Ok(move || {
            let _held = &directory;
            timed(count, reads, |offset| Ok(subject::read(&log, offset)?))
        })
    };
    let (together, alone) = (log(Durability::Buffered)?, log(Durability::Written)?);
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "a table of positions over a map; checked", bare),
        Contestant::new("tailwater", Role::Tailwater, "appended `buffered`: records share batches", together),
        Contestant::new(
            "tailwater, written",
            Role::Shown,
            "appended `written`: a batch for each record",
            alone,
        ),
    ];
    contestants.extend(peer::contestants(scale, Workload::Read, |kind| {
        let directory = scale.directory()?;
        let mut peer = (kind.open)(directory.path(), 2 * count * VALUE_BYTES as u64)?;
        peer.fill(&value, count)?;
        Ok(move || {
            let _held = &directory;
            timed(count, reads, |index| peer.read(index))
        })
    })?);
    Ok(contestants)
}

fn timed(count: u64, reads: u64, mut read: impl FnMut(u64) -> Result<usize>) -> Result<Vec<f64>> {
    let mut next = scattered(count);
    let start = Instant::now();
    for _ in 0..reads {
        let index = next();
        if read(index)? != VALUE_BYTES {
            return Err(format!("record {index} is not as long as it was written").into());
        }
    }
    Ok(vec![start.elapsed().as_secs_f64() * 1e6 / reads as f64])
}
