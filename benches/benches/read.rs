//! How fast are scans and single reads from the page cache, beside a bare walk that checks each record?
//!
//! For a look at one change; `--bin compare` measures the ratios.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailwater_benches::baseline::offset_table::OffsetTable;
use tailwater_benches::baseline::walk::walk;
use tailwater_benches::measure::scattered;
use tailwater_benches::subject::{append, create, read, scan};
use tailwater_log::Durability;

const RECORDS: u32 = 64 * 1024;
const SIZE: usize = 1024;

fn reads(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let value = vec![7; SIZE];
    let table = OffsetTable::create(&directory.path().join("bare"), &value, RECORDS as usize).unwrap();
    let log = create(directory.path(), Durability::Buffered).unwrap();
    (0..RECORDS).for_each(|_| append(&log, &value).unwrap());
    log.write_staged().unwrap();

    let mut group = criterion.benchmark_group("scan 64 MiB");
    let whole = (u64::from(RECORDS), u64::from(RECORDS) * SIZE as u64);
    group.throughput(Throughput::Bytes(whole.1));
    group.sample_size(20);
    group.bench_function("bare", |bencher| bencher.iter(|| assert_eq!(walk(table.bytes()), whole)));
    group.bench_function("tailwater", |bencher| bencher.iter(|| assert_eq!(scan(&log).unwrap(), whole)));
    group.finish();

    let mut group = criterion.benchmark_group("read one record");
    let mut next = scattered(RECORDS.into());
    group.bench_function("bare", |bencher| {
        bencher.iter(|| assert_eq!(table.read(usize::try_from(next()).unwrap()).len(), SIZE));
    });
    let mut next = scattered(RECORDS.into());
    group.bench_function("tailwater", |bencher| {
        bencher.iter(|| assert_eq!(read(&log, next()).unwrap(), SIZE));
    });
}

criterion_group!(benches, reads);
criterion_main!(benches);
