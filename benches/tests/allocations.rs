//! Counts allocations: none for a record when reading, at most one for a batch when appending.

#![allow(clippy::unwrap_used, missing_docs)]

use allocation_counter::measure;
use tailwater_benches::subject;
use tailwater_log::{Durability, FetchIsolation, FetchLimits, Fetched, Log, NewRecord, Offset, WhenFull};
use tempfile::TempDir;

fn log(durability: Durability) -> (TempDir, Log) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = subject::create(directory.path(), durability).unwrap();
    (directory, log)
}

fn append_batches(log: &Log, batches: usize, records: usize) {
    let batch = vec![NewRecord::new(&[7; 100]); records];
    for _ in 0..batches {
        log.append(&batch, None, WhenFull::Wait).unwrap().wait().unwrap();
    }
}

fn fetch_all(log: &Log, from: Offset) -> Fetched {
    let limits = FetchLimits { max_records: u32::MAX, max_bytes: u64::MAX };
    log.fetch(from, limits, FetchIsolation::Visible, None).unwrap()
}

#[test]
fn reading_allocates_nothing_for_a_record() {
    let counts = [10, 100, 1_000].map(|records| {
        let (_directory, log) = log(Durability::Buffered);
        append_batches(&log, 64, records);
        log.write_staged().unwrap();
        // The first fetch maps the segment.
        drop(fetch_all(&log, Offset::ZERO));
        let mut fetched = None;
        let fetching = measure(|| fetched = Some(fetch_all(&log, Offset::ZERO)));
        let fetched = fetched.unwrap();
        let mut read_bytes = 0;
        let reading = measure(|| {
            for record in fetched.iter() {
                read_bytes += record.value().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
                assert_eq!(record.headers().count(), 0);
            }
        });
        assert_eq!(read_bytes, 64 * records * 100);
        assert_eq!(reading.count_total, 0, "going through {records} records a batch allocates");
        fetching.count_total
    });
    println!("allocations of a fetch of 64 batches of 10, 100 and 1,000 records: {counts:?}");
    assert!(counts.iter().all(|count| *count == counts[0]), "more records, more allocations: {counts:?}");
    assert!(counts[0] <= 64, "at most one for a batch: {counts:?}");
}

#[test]
fn appending_allocates_at_most_once_for_a_batch() {
    for durability in [Durability::Buffered, Durability::Written, Durability::Durable] {
        let (_directory, log) = log(durability);
        append_batches(&log, 50, 100);
        let appending = measure(|| append_batches(&log, 500, 100));
        // One more for the vector of the loop itself.
        println!("500 {durability:?} batches of 100: {} allocations", appending.count_total);
        assert!(appending.count_total <= 501, "{durability:?}: {appending:?}");
    }
}

#[test]
fn appending_records_one_at_a_time_allocates_at_most_once_for_the_batch_they_share() {
    let (_directory, log) = log(Durability::Buffered);
    let append = |count: usize| (0..count).for_each(|_| subject::append(&log, &[7; 100]).unwrap());
    append(50_000);
    let from = log.log_end_offset();
    let appending = measure(|| append(200_000));
    log.write_staged().unwrap();
    let batches = fetch_all(&log, from).batches().len() as u64;
    println!("200,000 records in {batches} batches: {} allocations", appending.count_total);
    assert!(appending.count_total <= batches, "{batches} batches: {appending:?}");
}
