//! Records from 16 B to 4 MiB, beside the bare baselines.

use std::time::Instant;

use tailwater_benches::baseline::HEADER_BYTES;
use tailwater_benches::baseline::offset_table::OffsetTable;
use tailwater_benches::baseline::staged::Staged;
use tailwater_benches::baseline::walk::walk;
use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::rows::value;
use tailwater_benches::series::{Column, Series};
use tailwater_benches::subject;
use tailwater_log::Durability;

const COLUMNS: &[Column] = &[
    Column { name: "append, `buffered`", unit: "MB/s" },
    Column { name: "append, bare", unit: "MB/s" },
    Column { name: "scan", unit: "GB/s" },
    Column { name: "scan, bare", unit: "GB/s" },
];

/// How much is written of each size, in bytes, and how many records at most.
const TOTAL_BYTES: u64 = 512 << 20;
const MOST_RECORDS: u64 = 4_000_000;

pub(super) fn measure(scale: &Scale) -> Result<Series> {
    let mut series = Series::new("record-size", "Records of all sizes", "size of a record, B", COLUMNS);
    for shift in (4..=22).step_by(2) {
        let size_bytes: usize = 1 << shift;
        let total_bytes = if scale.is_quick { 8 << 20 } else { TOTAL_BYTES };
        let count = (total_bytes / size_bytes as u64).min(scale.count(MOST_RECORDS)).max(2);
        series.add(size_bytes as f64, one(scale, size_bytes, count)?);
    }
    Ok(series)
}

fn one(scale: &Scale, size_bytes: usize, count: u64) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let value = value(size_bytes);
    let payload_bytes = count * size_bytes as u64;
    let log = subject::create(directory.path(), Durability::Buffered)?;
    let append = bytes_per_second(payload_bytes, || {
        (0..count).try_for_each(|_| subject::append(&log, &value))?;
        log.write_staged()?;
        Ok(())
    })?;
    let mut bare =
        Staged::create(&directory.path().join("bare"), payload_bytes + count * HEADER_BYTES as u64)?;
    let bare_append = bytes_per_second(payload_bytes, || {
        (0..count).try_for_each(|_| bare.append(&value))?;
        Ok(bare.write()?)
    })?;
    let scan = bytes_per_second(payload_bytes, || same(subject::scan(&log)?.0, count))?;
    let table = OffsetTable::create(&directory.path().join("table"), &value, usize::try_from(count)?)?;
    let bare_scan = bytes_per_second(payload_bytes, || same(walk(table.bytes()).0, count))?;
    Ok(vec![append / 1e6, bare_append / 1e6, scan / 1e9, bare_scan / 1e9])
}

fn bytes_per_second(bytes: u64, act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    act()?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

fn same(found: u64, expected: u64) -> Result<()> {
    if found == expected { Ok(()) } else { Err(format!("{found} of {expected} records were read").into()) }
}
