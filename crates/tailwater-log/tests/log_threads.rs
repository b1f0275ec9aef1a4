//! The public contract of one partition while many threads use it.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use tailwater_log::storage::SimDisk;
use tailwater_log::{Durability, Error, Log, LogEpoch, NewRecord, Offset, WhenFull};

use common::{append, append_numbered, numbered, on_each_storage, options, read_all, with};

#[test]
fn threads_share_syncs_and_lose_nothing() {
    on_each_storage(|open| {
        let log = open(with(|config| config.segment_bytes = 64 * 1024));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..50 {
                        let value = format!("{thread} {n}");
                        let at = append(log, &value);
                        assert!(log.durable_offset() > at);
                    }
                });
            }
        });
        let all = read_all(&log);
        assert_eq!(all.len(), 400);
        for thread in 0..8 {
            let own: Vec<_> =
                all.iter().filter(|(_, value)| value.starts_with(&format!("{thread} "))).collect();
            assert!(own.iter().zip(0..).all(|((_, value), n)| *value == format!("{thread} {n}")), "in order");
        }
    });
}

#[test]
fn a_truncation_comes_through_while_threads_append() {
    // It once waited for a moment in which nothing was staged, which busy appenders never left it.
    on_each_storage(|open| {
        let log = open(with(|config| config.segment_bytes = 32 * 1024));
        append_numbered(&log, 0..20);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let receipt = log.append(
                            &[NewRecord::new(&[b'a'; 300])],
                            Some(Durability::Buffered),
                            WhenFull::Wait,
                        );
                        receipt.unwrap().wait().unwrap();
                    }
                });
            }
            for epoch in 2..12 {
                append(&log, "something to cut");
                log.truncate_to(Offset::new(20)).unwrap();
                assert!(log.epoch() >= LogEpoch::new(epoch));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        log.sync().unwrap();
        let all = read_all(&log);
        assert_eq!(all[..20], numbered(0..20));
        assert!(all.iter().zip(0..).all(|((offset, _), at)| *offset == at));
        assert_eq!(all.len() as u64, log.log_end_offset().get());
    });
}

#[test]
fn a_receipt_that_answers_closed_is_of_a_record_that_is_not_there() {
    // A close once counted as over before its last sync: who waited was told Closed, and the record became durable.
    for round in 0..300 {
        let disk = SimDisk::new(round);
        let log = Log::create(Arc::new(disk.clone()), "/log".as_ref(), options()).unwrap();
        let refused = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (log, refused) = (&log, &refused);
                scope.spawn(move || {
                    for n in 0.. {
                        let value = format!("{thread} {n}");
                        let Ok(receipt) =
                            log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait)
                        else {
                            return;
                        };
                        if let Err(error) = receipt.wait() {
                            assert!(matches!(error, Error::Closed), "{error}");
                            refused.lock().unwrap().push(value);
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_micros(50 + round * 3));
            log.close().unwrap();
        });
        drop(log);
        let found = read_all(&Log::open(Arc::new(disk), "/log".as_ref(), options()).unwrap());
        for value in refused.into_inner().unwrap() {
            assert!(
                found.iter().all(|(_, there)| *there != value),
                "round {round}: {value:?} was refused and is there"
            );
        }
    }
}

#[test]
fn a_sync_comes_back_although_a_truncation_takes_its_records() {
    // It once paired the end of the old history with the epoch of the new one, and waited for offsets that were gone.
    let (done, finished) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        let disk = SimDisk::new(1);
        let lazy = with(|config| config.durability = Durability::Buffered);
        let log = Log::create(Arc::new(disk), "/log".as_ref(), lazy).unwrap();
        append(&log, "kept");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (log, stop) = (&log, &stop);
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        log.sync().unwrap();
                    }
                });
            }
            for _ in 0..3000 {
                append(&log, "cut");
                log.truncate_to(Offset::new(1)).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(log.sync().unwrap(), Offset::new(1));
        done.send(()).unwrap();
    });
    let result = finished.recv_timeout(Duration::from_secs(60));
    assert!(!matches!(result, Err(std::sync::mpsc::RecvTimeoutError::Timeout)), "a sync waits for ever");
    worker.join().unwrap();
}
