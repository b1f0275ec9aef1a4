//! How fast are appends, one at a time and in batches, at each durability, beside a bare loop that does the same?

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tailwater_benches::{Baseline, directory, log};
use tailwater_log::{Durability, NewRecord, WhenFull};

fn buffered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append buffered");
    for size in [100, 1024] {
        let value = vec![7; size];
        group.throughput(Throughput::Elements(1));
        let directory = directory();
        let mut bare = Baseline::new(&directory).unwrap();
        group.bench_function(BenchmarkId::new("bare", size), |bencher| {
            bencher.iter(|| bare.append(&value).unwrap())
        });
        let log = log(&directory, Durability::Buffered);
        group.bench_function(BenchmarkId::new("tailwater", size), |bencher| {
            bencher.iter(|| {
                log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap().wait().unwrap()
            });
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
        let mut bare = Baseline::new(&directory).unwrap();
        group.bench_function(BenchmarkId::new("bare", size), |bencher| {
            bencher.iter(|| (0..100).for_each(|_| bare.append(&value).unwrap()));
        });
        let log = log(&directory, Durability::Buffered);
        group.bench_function(BenchmarkId::new("tailwater", size), |bencher| {
            bencher.iter(|| log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap());
        });
    }
}

fn written(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append written");
    let value = vec![7; 100];
    let directory = directory();
    let mut bare = Baseline::new(&directory).unwrap();
    group.bench_function("bare", |bencher| {
        bencher.iter(|| bare.append(&value).and_then(|()| bare.write()).unwrap());
    });
    let log = log(&directory, Durability::Written);
    group.bench_function("tailwater", |bencher| {
        bencher.iter(|| log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap().wait().unwrap());
    });
}

fn durable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append durable");
    let value = vec![7; 1024];
    let directory = directory();
    let mut bare = Baseline::new(&directory).unwrap();
    group.bench_function("bare", |bencher| {
        bencher.iter(|| bare.append(&value).and_then(|()| bare.sync()).unwrap());
    });
    let log = log(&directory, Durability::Durable);
    group.bench_function("tailwater", |bencher| {
        bencher.iter(|| log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap().wait().unwrap());
    });
    group.throughput(Throughput::Elements(256));
    group.bench_function("bare, 256 a sync", |bencher| {
        bencher.iter(|| {
            (0..256).for_each(|_| bare.append(&value).unwrap());
            bare.sync().unwrap();
        });
    });
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
