//! A build without a compression: it refuses batches by name, tells where to go on, and reads the rest; and it refuses to
//! append so. The fixture was written by `tests/compression.rs`.

#![cfg(not(any(feature = "lz4", feature = "zstd")))]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{numbered, options, with};
use tailwater_log::storage::{Disk, OpenMode, SimDisk, Storage};
use tailwater_log::{
    Compression, Error, FetchIsolation, FilePosition, Log, LogOptions, NewRecord, Offset, OffsetRange,
    RecoveryOutcome, SegmentInspection, SegmentPart, Timestamp, UnsupportedFeature, WhenFull,
};

/// Four batches of five records each: plain, LZ4, Zstandard, plain.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/compressed");

/// The fixture on a disk where it can be changed, without the checkpoint if it is not to look as if it was closed in order.
fn copy(is_clean: bool) -> Arc<dyn Storage> {
    let disk: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
    disk.create_directory(Path::new("/log")).unwrap();
    for name in ["00000000000000000000.log", "checkpoint"] {
        if name == "checkpoint" && !is_clean {
            continue;
        }
        let file = disk.open_file(&Path::new("/log").join(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(&std::fs::read(Path::new(FIXTURE).join(name)).unwrap(), FilePosition::ZERO)
            .unwrap();
    }
    disk
}

fn open(storage: &Arc<dyn Storage>, options: LogOptions) -> Log {
    Log::open(Arc::clone(storage), Path::new("/log"), options).unwrap()
}

/// Reads to `end`, going on where errors say; returns the offsets read, and what was refused.
fn read_around(log: &Log, end: u64) -> (Vec<u64>, Vec<(OffsetRange, UnsupportedFeature)>) {
    let (mut from, mut read, mut refused) = (Offset::ZERO, Vec::new(), Vec::new());
    while from.get() < end {
        match log.fetch(from, Default::default(), FetchIsolation::Visible, None) {
            Ok(fetched) => {
                for record in fetched.iter() {
                    let expected = &numbered(100..105)[(record.offset().get() % 5) as usize].1;
                    assert_eq!(record.value().unwrap(), expected.as_bytes());
                    read.push(record.offset().get());
                }
                from = fetched.next_offset();
            }
            Err(Error::Unsupported { feature, offsets: Some(offsets), .. }) => {
                assert!(offsets.start == from && offsets.end > from);
                from = offsets.end;
                refused.push((*offsets, feature));
            }
            Err(error) => panic!("{error}"),
        }
    }
    (read, refused)
}

fn range(start: u64, end: u64) -> OffsetRange {
    OffsetRange { start: Offset::new(start), end: Offset::new(end) }
}

#[test]
fn batches_are_refused_by_name_and_the_rest_is_read() {
    for is_clean in [true, false] {
        let storage = copy(is_clean);
        let log = open(&storage, options());
        let outcome = if is_clean { RecoveryOutcome::Clean } else { RecoveryOutcome::Recovered };
        assert_eq!(log.recovery_report().outcome, outcome);
        let (read, refused) = read_around(&log, 20);
        assert_eq!(read, [0, 1, 2, 3, 4, 15, 16, 17, 18, 19]);
        let lz4 = UnsupportedFeature::Compression(Compression::Lz4);
        let zstd = UnsupportedFeature::Compression(Compression::Zstd);
        assert_eq!(refused, [(range(5, 10), lz4), (range(10, 15), zstd)]);
        // From within a batch, too.
        let Err(error) = log.fetch(Offset::new(12), Default::default(), FetchIsolation::Visible, None) else {
            panic!("it cannot be read")
        };
        let text = error.to_string();
        assert!(
            text.contains("at offsets [12, 15) needs zstd compression (the cargo feature `zstd`)"),
            "{text}"
        );
        assert!(log.offset_for_time(Timestamp::from_millis(0)).unwrap().is_some());
        // And it goes on as any other.
        common::append(&log, "behind");
        log.close().unwrap();
    }
}

#[test]
fn verification_says_what_it_could_not_look_into_and_a_repair_leaves_it() {
    let storage = copy(true);
    let log = open(&storage, options());
    let report = log.verify(&mut |_| {}).unwrap();
    assert_eq!((report.batches, report.unread_batches, report.damage.len()), (4, 2, 0));
    drop(log);
    let repaired = Log::repair(Arc::clone(&storage), Path::new("/log"), options()).unwrap();
    assert!(repaired.damage.is_empty());
    let inspection = SegmentInspection::open(&storage, Path::new("/log/00000000000000000000.log")).unwrap();
    let compressed = inspection.parts().filter(|part| {
        matches!(part, Ok(SegmentPart::Batch { uncompressed_bytes: Some(bytes), fault: None, .. }) if *bytes > 500)
    });
    assert_eq!(compressed.count(), 2);
}

#[test]
fn a_truncation_within_such_a_batch_is_refused_and_one_at_its_ends_is_not() {
    let log = open(&copy(true), options());
    match log.truncate_to(Offset::new(12)) {
        Err(Error::Unsupported { offsets: Some(offsets), .. }) => assert_eq!(*offsets, range(10, 15)),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.log_end_offset(), Offset::new(20));
    log.truncate_to(Offset::new(10)).unwrap();
    assert_eq!(log.log_end_offset(), Offset::new(10));
}

#[test]
fn nothing_is_appended_with_a_compression_that_is_not_there() {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    for compression in [Compression::Lz4, Compression::Zstd] {
        assert!(!compression.is_supported());
        let text = format!(
            "this build has no {compression} compression: build it with the cargo feature `{compression}`"
        );
        let refused = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::UnsupportedCompression { .. }));
            assert_eq!(error.to_string(), text);
        };
        let compressed = || with(|config| config.compression = compression);
        refused(Log::create(Arc::clone(&storage), &path, compressed()).map(drop));
        assert!(!path.exists(), "nothing was made");
        // One that is configured so is there to be read.
        let log = open(&copy(true), compressed());
        let record = [NewRecord::new(b"x")];
        refused(log.append(&record, None, WhenFull::Wait).map(drop));
        refused(log.append(&[record[0]; 2], None, WhenFull::Fail).map(drop));
        refused(log.append_if(Offset::new(20), &record, None, WhenFull::Wait).map(drop));
        assert_eq!(read_around(&log, 20).0.len(), 10);
        // As it may be appended to otherwise.
        log.append_staged_with(&record, Compression::None, WhenFull::Wait).unwrap();
        log.set_config(options().config).unwrap();
        refused(log.set_config(compressed().config));
        common::append(&log, "plain");
        assert_eq!(log.log_end_offset(), Offset::new(22));
        refused(
            log.append_staged_with(&record, compression, WhenFull::Wait).map(drop).map_err(|error| *error),
        );
    }
}
