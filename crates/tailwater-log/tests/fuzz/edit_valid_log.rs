//! A valid log with its files damaged: opening, reading, verifying, repairing, appending and reopening it never panics,
//! never gives a record that was not appended, and loses nothing below the durable mark without saying so.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use tailwater_log::storage::SimDisk;
use tailwater_log::{
    Error, FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, Offset, OffsetRange, PartitionId,
    PartitionIdentity, RecoveryOutcome, TopicId, WhenFull,
};

const DIRECTORY: &str = "/log";
const RECORDS: u64 = 40;
const EXTRA: &[u8] = b"extra";

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip { file: u8, bit: u32 },
    Set { file: u8, at: u16, bytes: [u8; 8] },
    ZeroSector { file: u8, sector: u8 },
    SwapSectors { file: u8, first: u8, second: u8 },
    Cut { file: u8, length: u16 },
    Extend { file: u8, bytes: Vec<u8> },
    Replace { file: u8, bytes: Vec<u8> },
    CopyFile { from: u8, to: u8 },
    Add { base: u16, bytes: Vec<u8> },
}

/// Whether the log was closed, and what then happened to its files.
pub(crate) fn run(data: &[u8]) {
    let Ok((is_closed, edits)) = <(bool, Vec<Edit>)>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let disk = originals()[usize::from(!is_closed)].kill();
    let checkpoint = Path::new(DIRECTORY).join("checkpoint");
    let before = disk.read_file(&checkpoint);
    edits.iter().take(6).for_each(|edit| apply(&disk, edit));
    // What a checkpoint of a log that was closed says is known to be durable.
    let is_end_known = is_closed && disk.read_file(&checkpoint) == before;
    repair(&disk.kill(), is_end_known);
    open(&disk, is_end_known);
}

/// Opens the damaged log, reads it, appends to it, and opens it again.
fn open(disk: &SimDisk, is_end_known: bool) {
    let Ok(log) = Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()) else { return };
    let read = Read::all(&log, None);
    let end = log.log_end_offset().get();
    let is_corrupt = log.recovery_report().outcome == RecoveryOutcome::Corrupt;
    assert!(end >= RECORDS || !is_end_known || is_corrupt, "{end} is the end, and nobody says why");
    let verified = log.verify(&mut |_| {}).expect("a disk without faults can be read");
    let is_damaged = !verified.damage.is_empty();
    assert!(
        is_damaged || read.damaged.is_empty(),
        "a verification finds nothing, a reader {:?}",
        read.damaged
    );
    let appended =
        log.append(&[NewRecord::new(EXTRA)], None, WhenFull::Wait).and_then(|receipt| receipt.wait());
    if is_corrupt {
        assert!(appended.is_err(), "a damaged log takes no appends");
        drop(log);
        let log =
            Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()).expect("it could be opened");
        assert!(Read::all(&log, None) == read, "the second open is not equal to the first");
        return;
    }
    if let Ok(appended) = appended {
        assert_eq!(appended.offsets.start.get(), end);
        drop(log);
        let log = Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options())
            .expect("what was just used can be opened");
        let again = Read::all(&log, Some(end));
        assert!(again.readable.contains(&end), "what was acknowledged is gone");
        let kept: Vec<_> = again.readable.iter().copied().filter(|offset| *offset != end).collect();
        assert!(kept == read.readable, "the second open is not equal to the first");
    }
}

/// Repairs the damaged log: what is not called lost can be read and is as it was.
fn repair(disk: &SimDisk, is_end_known: bool) {
    let Ok(report) = Log::repair(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()) else { return };
    let log = Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options())
        .unwrap_or_else(|error| panic!("after {report:?}: {error}"));
    assert_ne!(log.recovery_report().outcome, RecoveryOutcome::Corrupt, "after {report:?}");
    assert_eq!(
        log.verify(&mut |_| {}).expect("a disk without faults can be read").damage,
        [],
        "after {report:?}"
    );
    let read = Read::all(&log, None);
    assert_eq!(read.damaged, [], "after {report:?}");
    let (start, end) = (log.log_start_offset().get(), log.log_end_offset().get());
    let is_lost = |offset: &u64| report.lost.iter().any(|range| range_of(range).contains(offset));
    assert!((0..start).all(|offset| is_lost(&offset)), "it begins at {start} after {report:?}");
    assert!(end >= RECORDS || !is_end_known, "it ends at {end} after {report:?}");
    // What lies behind the end is the torn tail of a log that was not closed.
    let expected: Vec<_> = (start..end.min(RECORDS)).filter(|offset| !is_lost(offset)).collect();
    assert_eq!(read.readable, expected, "after {report:?}");
    let appended =
        log.append(&[NewRecord::new(EXTRA)], None, WhenFull::Wait).and_then(|receipt| receipt.wait());
    assert_eq!(appended.expect("a repaired log takes appends").offsets.start.get(), end);
}

fn range_of(range: &OffsetRange) -> std::ops::Range<u64> {
    range.start.get()..range.end.get()
}

/// What readers are given and told.
#[derive(PartialEq, Eq, Debug)]
struct Read {
    readable: Vec<u64>,
    /// Offsets that are told to be damaged.
    damaged: Vec<OffsetRange>,
}

impl Read {
    /// Reads everything that can be read; every record must be one that was appended there, or the extra one.
    fn all(log: &Log, extra: Option<u64>) -> Self {
        let mut read = Self { readable: Vec::new(), damaged: Vec::new() };
        let mut from = log.log_start_offset();
        let end = log.log_end_offset();
        while from < end {
            let next = read.next(log, from, extra);
            assert!(next > from, "a fetch at {from} below the end {end} does not move on");
            from = next;
        }
        read
    }

    fn next(&mut self, log: &Log, from: Offset, extra: Option<u64>) -> Offset {
        match log.fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None) {
            Ok(fetched) => {
                for record in fetched.iter() {
                    let offset = record.offset().get();
                    let expected = if extra == Some(offset) { EXTRA.to_vec() } else { value(offset) };
                    assert!(record.value() == Some(&expected[..]), "a wrong record at {offset}");
                    self.readable.push(offset);
                }
                fetched.next_offset()
            }
            Err(Error::Corrupt(found)) => {
                let range = OffsetRange { start: from, end: found.offsets.end };
                self.damaged.push(range);
                range.end
            }
            Err(error) => panic!("a fetch at {from} gives {error}"),
        }
    }
}

fn options() -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([3; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 4096;
    options
}

fn value(offset: u64) -> Vec<u8> {
    format!("record {offset} {}", "f".repeat((offset * 53 % 400) as usize)).into_bytes()
}

/// The files of a log that was closed in order, and of one whose process died.
fn originals() -> &'static [SimDisk; 2] {
    static DISKS: OnceLock<[SimDisk; 2]> = OnceLock::new();
    DISKS.get_or_init(|| {
        [true, false].map(|is_closed| {
            let disk = SimDisk::new(1);
            let log = Log::create(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()).unwrap();
            for offset in 0..RECORDS {
                log.append(&[NewRecord::new(&value(offset))], None, WhenFull::Wait).unwrap().wait().unwrap();
                if offset % 8 == 7 {
                    log.maintain().unwrap();
                }
            }
            if is_closed {
                log.close().unwrap();
            }
            disk.crash(|_, _| true)
        })
    })
}

fn apply(disk: &SimDisk, edit: &Edit) {
    let paths = disk.file_paths();
    let pick = |file: u8| paths[usize::from(file) % paths.len()].clone();
    match edit {
        Edit::Flip { file, bit } => change(disk, &pick(*file), |bytes| {
            if !bytes.is_empty() {
                let bit = *bit as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }),
        Edit::Set { file, at, bytes: new } => change(disk, &pick(*file), |bytes| {
            if let Some(old) = bytes.get_mut(usize::from(*at)..).and_then(|rest| rest.first_chunk_mut()) {
                *old = *new;
            }
        }),
        Edit::ZeroSector { file, sector } => change(disk, &pick(*file), |bytes| {
            bytes.chunks_mut(512).nth(usize::from(*sector)).into_iter().for_each(|sector| sector.fill(0));
        }),
        Edit::SwapSectors { file, first, second } => change(disk, &pick(*file), |bytes| {
            let (first, second) = (usize::from(*first) * 512, usize::from(*second) * 512);
            if first.max(second) + 512 <= bytes.len() {
                (0..512).for_each(|at| bytes.swap(first + at, second + at));
            }
        }),
        Edit::Cut { file, length } => {
            change(disk, &pick(*file), |bytes| bytes.truncate(usize::from(*length)))
        }
        Edit::Extend { file, bytes: more } => {
            change(disk, &pick(*file), |bytes| bytes.extend_from_slice(more))
        }
        Edit::Replace { file, bytes: new } => change(disk, &pick(*file), |bytes| bytes.clone_from(new)),
        Edit::CopyFile { from, to } => {
            let bytes = disk.read_file(&pick(*from)).unwrap();
            disk.write_file(&pick(*to), &bytes).unwrap();
        }
        Edit::Add { base, bytes } => {
            let path = Path::new(DIRECTORY).join(format!("{base:020}.log"));
            disk.write_file(&path, bytes).unwrap();
        }
    }
}

fn change(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read_file(path).unwrap();
    change(&mut bytes);
    bytes.truncate(1 << 16);
    disk.write_file(path, &bytes).unwrap();
}
