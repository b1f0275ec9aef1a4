//! Memory under load is bounded by the configuration, whatever is appended and however slow a reader is.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};

use peak_alloc::PeakAlloc;
use tailwater_benches::subject;
use tailwater_log::{Durability, FetchIsolation, FetchLimits, Log, NewRecord, WhenFull};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const STAGING_BYTES: u32 = 256 * 1024;
const RECORD_BYTES: usize = 4096;
const APPENDED_BYTES: usize = 96 << 20;
const THREADS: usize = 4;
/// What there is beside staging: threads, the list of segments, their indexes.
const BESIDE_BYTES: usize = 1 << 20;

/// Appends from several threads without waiting, while a reader keeps a fetch of the largest size.
fn load(log: &Log, durability: Durability) {
    let value = vec![7; RECORD_BYTES];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appending: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..APPENDED_BYTES / RECORD_BYTES / THREADS {
                        let records = [NewRecord::new(&value)];
                        drop(log.append(&records, Some(durability), WhenFull::Wait).unwrap());
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let from = log.log_start_offset();
                let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None).unwrap();
                std::thread::yield_now();
                drop(fetched);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                log.maintain().unwrap();
                std::thread::yield_now();
            }
        });
        for thread in appending {
            thread.join().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn heap_stays_within_twice_the_staging_buffer_under_load() {
    for durability in [Durability::Buffered, Durability::Durable] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut options = subject::options(Durability::Buffered);
        options.config.staging_bytes = STAGING_BYTES;
        options.config.segment_bytes = 8 << 20;
        let log = subject::create_with(directory.path(), options).unwrap();
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        load(&log, durability);
        let used_bytes = HEAP.peak_usage() - before;
        println!("{durability:?}: {used_bytes} bytes of heap for {APPENDED_BYTES} appended");
        // One buffer fills while the other is written.
        assert!(
            used_bytes <= 2 * STAGING_BYTES as usize + BESIDE_BYTES,
            "{durability:?}: {used_bytes} bytes"
        );
    }
}
