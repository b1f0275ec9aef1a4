//! How fast are scans and single reads from the page cache, beside a bare walk that checks each record?

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailwater_benches::{Baseline, directory, log, walk};
use tailwater_log::{Durability, FetchIsolation, FetchLimits, NewRecord, Offset, WhenFull};

const RECORDS: u64 = 64 * 1024;
const SIZE: usize = 1024;

fn read(criterion: &mut Criterion) {
    let directory = directory();
    let value = vec![7; SIZE];
    let mut bare = Baseline::new(&directory).unwrap();
    let log = log(&directory, Durability::Buffered);
    for _ in 0..RECORDS {
        bare.append(&value).unwrap();
        log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap().wait().unwrap();
    }
    log.write_staged().unwrap();
    // The bare walk is over memory: what a map of the file is, once its pages are there.
    let mut bytes = Vec::new();
    for _ in 0..RECORDS {
        bytes.extend_from_slice(&u32::try_from(SIZE).unwrap().to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&value).to_le_bytes());
        bytes.extend_from_slice(&value);
    }

    let mut group = criterion.benchmark_group("scan 64 MiB");
    group.throughput(Throughput::Bytes(RECORDS * SIZE as u64));
    group.sample_size(20);
    group.bench_function("bare", |bencher| bencher.iter(|| assert_eq!(walk(&bytes) as u64, RECORDS)));
    group.bench_function("tailwater", |bencher| {
        bencher.iter(|| {
            let (mut from, mut hint, mut size) = (Offset::ZERO, None, 0);
            while from.get() < RECORDS {
                let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, hint).unwrap();
                size += fetched.iter().map(|record| record.value().unwrap().len()).sum::<usize>();
                (from, hint) = (fetched.next_offset(), fetched.hint());
            }
            assert_eq!(size as u64, RECORDS * SIZE as u64);
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("read one record");
    let limits = FetchLimits { max_records: 1, max_bytes: 1 };
    let mut at = 0;
    group.bench_function("tailwater", |bencher| {
        bencher.iter(|| {
            at = (at + 40_503) % RECORDS;
            let fetched = log.fetch(Offset::new(at), limits, FetchIsolation::Visible, None).unwrap();
            assert_eq!(fetched.iter().next().unwrap().offset().get(), at);
        });
    });
}

criterion_group!(benches, read);
criterion_main!(benches);
