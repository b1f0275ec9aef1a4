//! Compressed batches: what goes in comes out, in every mixture; bodies that do not decompress are damage, and cost no more
//! memory than a batch may have.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{numbered, on_each_storage, options, read_all, with};
use proptest::prelude::*;
use tailwater_log::format::{
    BatchAttributes, BatchHeader, BatchPlace, RecordFields, RecordIter, SEGMENT_DATA_START, UnreadableBody,
    aligned, encode, plain_body, uncompressed_bytes,
};
use tailwater_log::limits::MAX_BATCH_BYTES;
use tailwater_log::storage::{OpenMode, SimDisk, Storage};
use tailwater_log::{
    Compression, CompressionFault, CorruptionKind, Durability, Error, FetchIsolation, FetchLimits, Log,
    LogEpoch, NewRecord, Offset, OffsetRange, SegmentInspection, SegmentPart, Timestamp, WhenFull,
};

const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

fn compressed_log(storage: Arc<dyn Storage>, compression: Compression) -> Log {
    Log::create(storage, Path::new("/log"), with(|config| config.compression = compression)).unwrap()
}

/// The batches of the log's first segment: their headers, and what they are decompressed.
fn batches(storage: &Arc<dyn Storage>, directory: &str) -> Vec<(BatchHeader, Option<u32>)> {
    let file = Path::new(directory).join("00000000000000000000.log");
    let inspection = SegmentInspection::open(storage, &file).unwrap();
    let batch = |part| match part {
        SegmentPart::Batch { header, uncompressed_bytes, fault: None, .. } => {
            Some((header, uncompressed_bytes))
        }
        SegmentPart::Unwritten { .. } => None,
        other => panic!("{other:?}"),
    };
    inspection.parts().map(Result::unwrap).filter_map(batch).collect()
}

fn header(compression: Compression) -> BatchHeader {
    BatchHeader {
        length_bytes: 64,
        body_crc: 0,
        attributes: BatchAttributes::default().with_compression(compression),
        compatible_attributes: 0,
        base_offset: Offset::ZERO,
        last_offset_delta: 2,
        record_count: 3,
        base_create_time: Timestamp::default(),
        max_create_time: Timestamp::default(),
        append_time: Timestamp::default(),
        durable_back: 0,
        log_epoch: LogEpoch::FIRST,
        producer: None,
    }
}

/// What three like records are, compressed: made by the reference implementations, with `lz4 -9` (the block of its frame) and
/// `zstd -19`, behind the size. What this crate makes may differ from version to version; all have to decompress these.
const GOLDEN_LZ4: &str = "9c000000ff0a330000000661206b6579296120666c61742077686974652c200e00075f00330000013400201f02340018506869746500";
const GOLDEN_ZSTD: &str = "9c00000028b52ffd209c5d0100f8330000000661206b6579296120666c61742077686974652c2000330000010203008148e0aa5317f61c03";

fn golden_body() -> Vec<u8> {
    let mut body = Vec::new();
    for delta in 0..3 {
        let fields = RecordFields {
            key: Some(b"a key"),
            value: Some(b"a flat white, a flat white, a flat white"),
            headers: &[],
        };
        encode(&fields, 0, delta, &mut body);
    }
    body
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn golden_bodies_decompress() {
    for (compression, golden) in [(Compression::Lz4, GOLDEN_LZ4), (Compression::Zstd, GOLDEN_ZSTD)] {
        let header = header(compression);
        let bytes = unhex(golden);
        assert_eq!(plain_body(&header, &bytes).as_deref(), Ok(&golden_body()[..]), "{compression}");
        assert_eq!(uncompressed_bytes(&header, &bytes), Some(golden_body().len() as u32));
        assert_eq!(RecordIter::new(&header, &golden_body()).filter(Result::is_ok).count(), 3);
    }
}

/// A body that says that it has `declared_bytes`, and is `plain` compressed.
fn body(compression: Compression, declared_bytes: u32, plain: &[u8]) -> Vec<u8> {
    let mut bytes = declared_bytes.to_le_bytes().to_vec();
    bytes.extend(match compression {
        Compression::Lz4 => lz4_flex::block::compress(plain),
        _ => zstd::bulk::compress(plain, 3).unwrap(),
    });
    bytes
}

#[test]
fn bodies_that_do_not_decompress_are_told_apart() {
    use CompressionFault::{Malformed, TooLarge, Truncated, WrongSize};
    let plain = vec![7; 5000];
    for compression in BOTH {
        let header = header(compression);
        let fault = |bytes: &[u8]| match plain_body(&header, bytes) {
            Err(UnreadableBody::Bad(fault)) => fault,
            other => panic!("{other:?}"),
        };
        let good = body(compression, 5000, &plain);
        assert_eq!(plain_body(&header, &good).as_deref(), Ok(&plain[..]));
        for length in 0..4 {
            assert_eq!(fault(&good[..length]), Truncated);
        }
        for length in 4..good.len() {
            // An LZ4 block may end early and be one all the same: then it is too short.
            let found = fault(&good[..length]);
            assert!(matches!(found, Malformed | WrongSize { .. }), "{length} bytes: {found:?}");
        }
        assert_eq!(fault(&body(compression, 0, &plain)), Malformed);
        assert_eq!(fault(&body(compression, 4999, &plain)), Malformed, "more than it says");
        let short = WrongSize { declared_bytes: 5001, found_bytes: 5000 };
        assert_eq!(fault(&body(compression, 5001, &plain)), short);
        let max_bytes = MAX_BATCH_BYTES - 64;
        for declared_bytes in [max_bytes + 1, u32::MAX] {
            assert_eq!(
                fault(&body(compression, declared_bytes, &plain)),
                TooLarge { declared_bytes, max_bytes }
            );
        }
    }
    // A decoder of Zstandard passes over frames that can be skipped, and joins those that follow each other.
    let header = header(Compression::Zstd);
    let mut two = body(Compression::Zstd, 5000, &plain[..2500]);
    two.extend_from_slice(&body(Compression::Zstd, 0, &plain[..2500])[4..]);
    let mut skippable = body(Compression::Zstd, 5000, &plain);
    skippable.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    for bytes in [two, skippable] {
        assert_eq!(plain_body(&header, &bytes), Err(UnreadableBody::Bad(Malformed)));
    }
}

/// Puts `body` with a right checksum in the place of the second batch of a log of three; returns the log.
fn with_body(compression: Compression, make_body: impl Fn(&BatchHeader) -> Vec<u8>) -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let log = compressed_log(Arc::clone(&storage), compression);
    for n in 0..3 {
        let values: Vec<_> = (0..10).map(|m| format!("{n} {m} {}", "x".repeat(100))).collect();
        let records: Vec<_> = values.iter().map(|value| NewRecord::new(value.as_bytes())).collect();
        log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
    }
    log.close().unwrap();
    let file = Path::new("/log/00000000000000000000.log");
    let inspection = SegmentInspection::open(&storage, file).unwrap();
    let salt = inspection.header().salt;
    let all: Vec<_> = batches(&storage, "/log").into_iter().map(|(header, _)| header).collect();
    let handle = disk.open_file(file, OpenMode::ReadWrite).unwrap();
    let mut position = SEGMENT_DATA_START;
    // All of them anew, each behind the other.
    let mut old_position = SEGMENT_DATA_START;
    let mut out = Vec::new();
    for (n, old) in all.iter().enumerate() {
        let mut kept = vec![0; old.body_bytes()];
        handle.read_full_at(&mut kept, old_position.plus(64)).unwrap();
        old_position = old_position.plus(aligned(old.length_bytes.into()));
        let bytes = if n == 1 { make_body(old) } else { kept };
        let header = BatchHeader {
            length_bytes: 64 + bytes.len() as u32,
            body_crc: crc32fast::hash(&bytes),
            attributes: old.attributes.with_compression(compression),
            ..*old
        };
        let start = out.len();
        out.resize(start + 64, 0);
        header.encode(BatchPlace { salt, position }, &mut out[start..]);
        out.extend_from_slice(&bytes);
        out.resize(out.len().next_multiple_of(8), 0);
        position = position.plus(aligned(header.length_bytes.into()));
    }
    handle.write_all_at(&out, SEGMENT_DATA_START).unwrap();
    let log = Log::open(storage, Path::new("/log"), options()).unwrap();
    (disk, log)
}

#[test]
fn a_bomb_is_damage_with_its_place_and_what_lies_around_is_read() {
    let ten_megabytes = vec![0; 10 << 20];
    type MakeBody<'m> = &'m dyn Fn(Compression) -> Vec<u8>;
    let bombs: [(&str, MakeBody<'_>); 3] = [
        ("says too much", &|compression| body(compression, u32::MAX, b"xxxx")),
        ("is more than it says", &|compression| body(compression, 1000, &ten_megabytes)),
        ("is no records", &|compression| body(compression, 10 << 20, &ten_megabytes)),
    ];
    for compression in BOTH {
        for (what, bomb) in bombs {
            let (disk, log) = with_body(compression, |_| bomb(compression));
            let fetch =
                |from| log.fetch(Offset::new(from), Default::default(), FetchIsolation::Visible, None);
            let first = fetch(0).unwrap();
            assert_eq!((first.record_count(), first.next_offset().get()), (10, 10), "{compression} {what}");
            let Err(Error::Corrupt(found)) = fetch(10) else { panic!("{compression} {what}") };
            assert_eq!(found.offsets, OffsetRange { start: Offset::new(10), end: Offset::new(20) });
            let is_bad = matches!(
                found.kind,
                CorruptionKind::BadCompression { .. } | CorruptionKind::MalformedRecord { .. }
            );
            assert!(is_bad, "{compression} {what}: {found}");
            assert_eq!(fetch(20).unwrap().record_count(), 10);
            let report = log.verify(&mut |_| {}).unwrap();
            assert_eq!((report.damage.len(), report.records, report.unread_batches), (1, 20, 0));
            assert_eq!(report.damage[0].kind, found.kind);
            assert!(matches!(log.truncate_to(Offset::new(15)), Err(Error::Corrupt(_))));
            log.close().unwrap();
            drop(log);
            // A repair takes it out and leaves the rest compressed.
            let storage: Arc<dyn Storage> = Arc::new(disk);
            let repaired = Log::repair(Arc::clone(&storage), Path::new("/log"), options()).unwrap();
            assert_eq!(repaired.lost, [OffsetRange { start: Offset::new(10), end: Offset::new(20) }]);
            let log = Log::open(storage, Path::new("/log"), options()).unwrap();
            assert!(log.verify(&mut |_| {}).unwrap().damage.is_empty());
            assert_eq!(
                log.fetch(Offset::new(20), Default::default(), FetchIsolation::Visible, None)
                    .unwrap()
                    .record_count(),
                10
            );
        }
    }
}

#[test]
fn what_repeats_is_compressed_and_what_does_not_is_stored_as_it_is() {
    for compression in BOTH {
        let storage: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
        let log = compressed_log(Arc::clone(&storage), compression);
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..1000).map(|_| noise()).collect();
        let text = "the same again, ".repeat(60);
        for value in [text.as_bytes(), &noise, b"short"] {
            log.append(&[NewRecord::new(value)], None, WhenFull::Wait).unwrap().wait().unwrap();
        }
        let found: Vec<_> = batches(&storage, "/log")
            .iter()
            .map(|(header, bytes)| (header.attributes.compression(), bytes.is_some()))
            .collect();
        let plain = (Compression::None, false);
        assert_eq!(found, [(compression, true), plain, plain]);
        assert!(batches(&storage, "/log")[0].0.length_bytes < 250);
        assert_eq!(log.stats().unwrap().bytes_written, {
            let sizes = batches(&storage, "/log");
            sizes.iter().map(|(header, _)| aligned(header.length_bytes.into())).sum::<u64>()
        });
        let fetched = log.fetch(Offset::ZERO, Default::default(), FetchIsolation::Visible, None).unwrap();
        let values: Vec<_> = fetched.iter().map(|record| record.value().unwrap().to_vec()).collect();
        assert_eq!(values, [text.as_bytes(), &noise, b"short"]);
    }
}

#[test]
fn single_records_share_a_batch_only_with_those_that_are_compressed_alike() {
    let storage: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
    let log = compressed_log(Arc::clone(&storage), Compression::Lz4);
    let value = "the same again, ".repeat(20);
    let record = [NewRecord::new(value.as_bytes())];
    let own = [None, None, Some(Compression::Zstd), Some(Compression::Zstd), Some(Compression::Lz4), None];
    for own in own.into_iter().chain([Some(Compression::None), Some(Compression::None), None]) {
        match own {
            None => log.append_staged(&record, WhenFull::Wait).unwrap(),
            Some(own) => log.append_staged_with(&record, own, WhenFull::Wait).unwrap(),
        };
    }
    // A configuration that changes closes the batch too.
    log.set_config(with(|config| config.compression = Compression::Zstd).config).unwrap();
    log.append_staged(&record, WhenFull::Wait).unwrap();
    log.sync().unwrap();
    let found: Vec<_> = batches(&storage, "/log")
        .iter()
        .map(|(header, _)| (header.record_count, header.attributes.compression()))
        .collect();
    use Compression::{Lz4, None as Plain, Zstd};
    assert_eq!(found, [(2, Lz4), (2, Zstd), (2, Lz4), (2, Plain), (1, Lz4), (1, Zstd)]);
    assert_eq!(read_all(&log).len(), 10);
}

#[test]
fn a_batch_that_is_read_in_parts_is_decompressed_once() {
    for compression in BOTH {
        let log = compressed_log(Arc::new(SimDisk::new(1)), compression);
        let values = numbered(0..40);
        let records: Vec<_> = values.iter().map(|(_, value)| NewRecord::new(value.as_bytes())).collect();
        log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        let one = FetchLimits { max_records: 1, ..FetchLimits::default() };
        let (mut from, mut hint, mut bodies) = (Offset::ZERO, None, Vec::new());
        for n in 0..80 {
            let fetched = log.fetch(from, one, FetchIsolation::Visible, hint).unwrap();
            let record = fetched.iter().next().unwrap();
            assert_eq!(record.offset().get(), n);
            assert_eq!(record.value().unwrap(), values[n as usize % 40].1.as_bytes());
            bodies.push(fetched.batches()[0].body().as_ptr());
            // Also a clone of the bytes outlives the fetch.
            assert_eq!(record.value_bytes().unwrap(), values[n as usize % 40].1.as_bytes());
            (from, hint) = (fetched.next_offset(), fetched.hint());
        }
        assert!(bodies[..40].iter().all(|body| *body == bodies[0]), "{compression}");
        assert!(bodies[40..].iter().all(|body| *body == bodies[40]), "{compression}");
        // A hint of another place is of no use, and does no harm.
        let hint = log.fetch(Offset::new(50), one, FetchIsolation::Visible, None).unwrap().hint();
        assert!(hint.is_some());
        let fetched = log.fetch(Offset::new(3), one, FetchIsolation::Visible, hint);
        assert_eq!(fetched.unwrap().iter().next().unwrap().value(), Some(values[3].1.as_bytes()));
    }
}

#[test]
fn limits_of_a_fetch_count_what_is_decompressed() {
    for compression in BOTH {
        let log = compressed_log(Arc::new(SimDisk::new(1)), compression);
        let value = vec![b'x'; 4000];
        for _ in 0..10 {
            log.append(&[NewRecord::new(&value)], None, WhenFull::Wait).unwrap().wait().unwrap();
        }
        let limits = FetchLimits { max_bytes: 10_000, ..FetchLimits::default() };
        let (mut from, mut hint, mut counts) = (Offset::ZERO, None, Vec::new());
        while from.get() < 10 {
            let fetched = log.fetch(from, limits, FetchIsolation::Visible, hint).unwrap();
            counts.push(fetched.record_count());
            (from, hint) = (fetched.next_offset(), fetched.hint());
        }
        assert_eq!(counts, [2; 5], "{compression}");
    }
}

#[test]
fn a_truncation_within_a_compressed_batch_keeps_what_is_below() {
    for compression in BOTH {
        on_each_storage(|open| {
            let log = open(with(|config| config.compression = compression));
            let values = numbered(0..40);
            let records: Vec<_> = values.iter().map(|(_, value)| NewRecord::new(value.as_bytes())).collect();
            log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
            log.truncate_to(Offset::new(31)).unwrap();
            assert_eq!(read_all(&log), values[..31]);
            log.truncate_to(Offset::new(1)).unwrap();
            common::append(&log, "behind");
            drop(log);
            let log = open(options());
            assert_eq!(read_all(&log), [values[0].clone(), (1, "behind".to_owned())]);
            assert!(log.verify(&mut |_| {}).unwrap().damage.is_empty());
        });
    }
    let storage: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
    let log = compressed_log(Arc::clone(&storage), Compression::Lz4);
    let values = numbered(100..140);
    let records: Vec<_> = values.iter().map(|(_, value)| NewRecord::new(value.as_bytes())).collect();
    log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
    log.truncate_to(Offset::new(20)).unwrap();
    assert_eq!(batches(&storage, "/log")[0].0.attributes.compression(), Compression::Lz4);
}

#[test]
fn threads_that_append_while_others_write_lose_nothing() {
    // What is staged moves up when what is before it was compressed: also while others append, roll and read.
    for round in 0..6 {
        let directory = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(tailwater_log::storage::Disk);
        let options = with(|config| {
            config.compression = BOTH[round % 2];
            config.preallocate = round % 3 > 0;
            config.segment_bytes = if round < 3 { 8192 } else { 1 << 20 };
        });
        let log = Log::create(storage, directory.path(), options).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..300 {
                        let value = format!("{thread}/{n}/{}", "w".repeat(n % 500));
                        let durability = [None, Some(Durability::Written), Some(Durability::Buffered)][n % 3];
                        let own = [None, Some(Compression::None), Some(BOTH[0]), Some(BOTH[1])][n % 4];
                        let record = [NewRecord::new(value.as_bytes())];
                        let staged = match own {
                            None => log.append_staged(&record, WhenFull::Wait),
                            Some(own) => log.append_staged_with(&record, own, WhenFull::Wait),
                        };
                        log.receipt_of(staged.unwrap(), durability).wait().unwrap();
                    }
                });
            }
        });
        log.sync().unwrap();
        let all = read_all(&log);
        assert_eq!(all.len(), 1200);
        for thread in 0..4 {
            let own: Vec<_> =
                all.iter().filter(|(_, value)| value.starts_with(&format!("{thread}/"))).collect();
            let is_in_order =
                own.iter().zip(0..).all(|((_, value), n)| value.starts_with(&format!("{thread}/{n}/")));
            assert!(is_in_order && own.len() == 300, "round {round}, thread {thread}");
        }
        assert!(log.verify(&mut |_| {}).unwrap().damage.is_empty());
    }
}

#[test]
fn a_level_that_zstandard_does_not_have_is_refused() {
    for (level, is_good) in [(0, false), (1, true), (22, true), (23, false)] {
        let options = with(|config| {
            config.compression = Compression::Zstd;
            config.compression_zstd_level = level;
        });
        let created = Log::create(Arc::new(SimDisk::new(1)), Path::new("/log"), options);
        assert_eq!(created.is_ok(), is_good, "{level}");
        if let Ok(log) = created {
            common::append_numbered(&log, 0..5);
            assert_eq!(read_all(&log), numbered(0..5));
        }
    }
}

/// What a build without the features is to find: `tests/compression_missing.rs`.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compressed")
}

#[test]
#[ignore = "writes the fixture anew: only for another version of the format"]
fn write_the_fixture() {
    let storage: Arc<dyn Storage> = Arc::new(tailwater_log::storage::Disk);
    let options = with(|config| config.preallocate = false);
    let log = Log::create(storage, &fixture(), options).unwrap();
    let values = numbered(100..105);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd, Compression::None] {
        let records: Vec<_> = values.iter().map(|(_, value)| NewRecord::new(value.as_bytes())).collect();
        let staged = log.append_staged_with(&records, compression, WhenFull::Wait).unwrap();
        log.receipt_of(staged, None).wait().unwrap();
    }
    log.close().unwrap();
    std::fs::remove_file(fixture().join("LOCK")).unwrap();
}

#[test]
fn the_fixture_is_read_whole_with_both_features() {
    let storage: Arc<dyn Storage> = Arc::new(tailwater_log::storage::Disk);
    let log = Log::attach_read_only(storage, &fixture(), options()).unwrap();
    let values: Vec<_> = numbered(100..105).into_iter().map(|(_, value)| value).collect();
    let found: Vec<_> = read_all(&log).into_iter().map(|(_, value)| value).collect();
    assert_eq!(found, [&values[..]; 4].concat());
    assert_eq!(log.verify(&mut |_| {}).unwrap().unread_batches, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, u16, bool)>, Option<Compression>),
    Configure(Compression),
    Sync,
    Roll,
    Reopen,
    Truncate(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let compression =
        || prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)];
    let records = proptest::collection::vec((any::<u8>(), 0..2000_u16, any::<bool>()), 1..6);
    prop_oneof![
        8 => (records, proptest::option::of(compression())).prop_map(|(records, own)| Step::Append(records, own)),
        1 => compression().prop_map(Step::Configure),
        2 => Just(Step::Sync),
        1 => Just(Step::Roll),
        1 => Just(Step::Reopen),
        1 => any::<u8>().prop_map(Step::Truncate),
    ]
}

/// A value that compresses well, or does not.
fn value((byte, length, is_noise): (u8, u16, bool)) -> Vec<u8> {
    let mut state = u32::from(byte) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if is_noise { (state >> 24) as u8 } else { byte }
    };
    (0..length).map(|_| next()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_mixed_is_read_as_it_was_appended(steps in proptest::collection::vec(step(), 1..40), reads in 1..9_u32) {
        let storage: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
        let mut log = compressed_log(Arc::clone(&storage), Compression::None);
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Append(records, own) => {
                    let values: Vec<_> = records.into_iter().map(value).collect();
                    let records: Vec<_> = values.iter().map(|value| NewRecord::new(value)).collect();
                    match own {
                        None => log.append_staged(&records, WhenFull::Wait).unwrap(),
                        Some(own) => log.append_staged_with(&records, own, WhenFull::Wait).unwrap(),
                    };
                    expected.extend(values);
                }
                Step::Configure(compression) => {
                    log.set_config(with(|config| config.compression = compression).config).unwrap();
                }
                Step::Sync => drop(log.sync().unwrap()),
                Step::Roll => log.roll().unwrap(),
                Step::Reopen => {
                    let config = log.config();
                    log.close().unwrap();
                    drop(log);
                    let mut options = options();
                    options.config = (*config).clone();
                    log = Log::open(Arc::clone(&storage), Path::new("/log"), options).unwrap();
                }
                Step::Truncate(at) => {
                    let kept = expected.len() * usize::from(at) / 255;
                    log.truncate_to(Offset::new(kept as u64)).unwrap();
                    expected.truncate(kept);
                }
            }
        }
        log.sync().unwrap();
        let limits = FetchLimits { max_records: reads, ..FetchLimits::default() };
        let (mut from, mut hint, mut found) = (Offset::ZERO, None, Vec::new());
        loop {
            let fetched = log.fetch(from, limits, FetchIsolation::Visible, hint).unwrap();
            found.extend(fetched.iter().map(|record| record.value().unwrap().to_vec()));
            if fetched.next_offset() == from {
                break;
            }
            (from, hint) = (fetched.next_offset(), fetched.hint());
        }
        prop_assert!(found == expected);
        let report = log.verify(&mut |_| {}).unwrap();
        prop_assert!(report.damage.is_empty(), "{:?}", report.damage);
    }

    #[test]
    fn any_bytes_are_refused_or_give_what_they_say(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 0..300_u32) {
        for compression in BOTH {
            let header = header(compression);
            let mut body = size.to_le_bytes().to_vec();
            body.extend_from_slice(&bytes);
            if let Ok(plain) = plain_body(&header, &body) {
                prop_assert_eq!(plain.len(), size as usize);
            }
        }
    }
}
