//! Batches of 1 to 10,000 records.

use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::measure::rate;
use tailwater_benches::rows::value;
use tailwater_benches::series::{Column, Series};
use tailwater_benches::subject;
use tailwater_log::{Durability, NewRecord, WhenFull};

const COLUMNS: &[Column] = &[
    Column { name: "`buffered`", unit: "records/s" },
    Column { name: "`written`", unit: "records/s" },
    Column { name: "`durable`", unit: "durable records/s" },
];

const SIZE_BYTES: usize = 100;

pub(super) fn measure(scale: &Scale) -> Result<Series> {
    let mut series = Series::new("batch-size", "Batches of 100 B records", "records in a batch", COLUMNS);
    for batch in [1, 10, 100, 1_000, 10_000] {
        let figures = vec![
            appends(scale, batch, Durability::Buffered, scale.count(4_000_000))?,
            appends(scale, batch, Durability::Written, scale.count(2_000_000))?,
            appends(scale, batch, Durability::Durable, scale.count(2_000 * batch))?,
        ];
        series.add(batch as f64, figures);
    }
    Ok(series)
}

/// Appends at least `count` records in batches of `batch`. Returns the rate of records.
fn appends(scale: &Scale, batch: u64, durability: Durability, count: u64) -> Result<f64> {
    let directory = scale.directory()?;
    let log = subject::create(directory.path(), durability)?;
    let value = value(SIZE_BYTES);
    let records: Vec<_> = (0..batch).map(|_| NewRecord::new(&value)).collect();
    let batches = count.div_ceil(batch);
    let batch_rate = rate(batches, || log.append(&records, None, WhenFull::Wait)?.wait().map(drop))?;
    Ok(batch_rate * batch as f64)
}
