//! How fast are appends, one at a time and in batches, at each durability, beside a bare loop that does the same?
//!
//! For a look at one change; `--bin compare` measures the ratios.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tailwater_benches::baseline::single_writes::SingleWrites;
use tailwater_benches::baseline::staged::Staged;
use tailwater_benches::baseline::synced::Synced;
use tailwater_benches::subject::{append, create};
use tailwater_log::{Durability, NewRecord, WhenFull};
use tempfile::TempDir;

const RESERVED_BYTES: u64 = 1 << 30;

/// A directory on the disk that holds the sources, removed when dropped.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

fn buffered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append buffered");
    for size in [100, 1024] {
        let value = vec![7; size];
        group.throughput(Throughput::Elements(1));
        let directory = directory();
        let mut bare = Staged::create(&directory.path().join("bare"), RESERVED_BYTES).unwrap();
        group.bench_function(BenchmarkId::new("bare", size), |bencher| {
            bencher.iter(|| bare.append(&value).unwrap())
        });
        let log = create(directory.path(), Durability::Buffered).unwrap();
        group.bench_function(BenchmarkId::new("tailwater", size), |bencher| {
            bencher.iter(|| append(&log, &value).unwrap());
        });
    }
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append batches of 100");
    for size in [100, 1024] {
        let value = vec![7; size];
        let records = vec![NewRecord::new(&value); 100];
        group.throughput(Throughput::Elements(100));
        let directory = directory();
        let mut bare = Staged::create(&directory.path().join("bare"), RESERVED_BYTES).unwrap();
        group.bench_function(BenchmarkId::new("bare", size), |bencher| {
            bencher.iter(|| (0..100).for_each(|_| bare.append(&value).unwrap()));
        });
        let log = create(directory.path(), Durability::Buffered).unwrap();
        group.bench_function(BenchmarkId::new("tailwater", size), |bencher| {
            bencher.iter(|| log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap());
        });
    }
}

fn written(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append written");
    let value = vec![7; 100];
    let directory = directory();
    let mut bare = SingleWrites::create(&directory.path().join("bare"), RESERVED_BYTES).unwrap();
    group.bench_function("bare", |bencher| bencher.iter(|| bare.append(&value).unwrap()));
    let log = create(directory.path(), Durability::Written).unwrap();
    group.bench_function("tailwater", |bencher| bencher.iter(|| append(&log, &value).unwrap()));
}

fn durable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append durable");
    let value = vec![7; 1024];
    let directory = directory();
    let mut bare = Synced::create(&directory.path().join("bare"), RESERVED_BYTES).unwrap();
    let mut group_of = |count: usize| {
        (0..count).for_each(|_| bare.append(&value));
        bare.sync().unwrap();
    };
    group.bench_function("bare", |bencher| bencher.iter(|| group_of(1)));
    let log = create(directory.path(), Durability::Durable).unwrap();
    group.bench_function("tailwater", |bencher| bencher.iter(|| append(&log, &value).unwrap()));
    group.throughput(Throughput::Elements(256));
    group.bench_function("bare, 256 a sync", |bencher| bencher.iter(|| group_of(256)));
    group.bench_function("tailwater, 256 receipts", |bencher| {
        bencher.iter(|| {
            let receipts: Vec<_> = (0..256)
                .map(|_| log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap())
                .collect();
            for receipt in receipts {
                receipt.wait().unwrap();
            }
        });
    });
}

criterion_group!(benches, buffered, batches, written, durable);
criterion_main!(benches);
