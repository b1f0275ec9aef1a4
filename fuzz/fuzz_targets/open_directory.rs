//! A valid log with its files damaged: opening, reading, verifying, appending and reopening it never panics, never gives a
//! record that was not appended, and loses nothing below the durable mark without saying so.

#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tailwater_log::storage::SimDisk;
use tailwater_log::{
    Error, FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, PartitionId, PartitionIdentity, RecoveryOutcome,
    TopicId, WhenFull,
};

const DIRECTORY: &str = "/log";
const RECORDS: u64 = 40;

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
    let change = |file: u8, change: &dyn Fn(&mut Vec<u8>)| {
        let path = pick(file);
        let mut bytes = disk.read_file(&path).unwrap();
        change(&mut bytes);
        bytes.truncate(1 << 16);
        disk.write_file(&path, &bytes).unwrap();
    };
    match edit {
        Edit::Flip { file, bit } => change(*file, &|bytes| {
            if !bytes.is_empty() {
                let bit = *bit as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }),
        Edit::Set { file, at, bytes: new } => change(*file, &|bytes| {
            let at = usize::from(*at);
            if at + new.len() <= bytes.len() {
                bytes[at..at + new.len()].copy_from_slice(new);
            }
        }),
        Edit::ZeroSector { file, sector } => change(*file, &|bytes| {
            bytes.chunks_mut(512).nth(usize::from(*sector)).into_iter().for_each(|sector| sector.fill(0));
        }),
        Edit::SwapSectors { file, first, second } => change(*file, &|bytes| {
            let (first, second) = (usize::from(*first) * 512, usize::from(*second) * 512);
            if first.max(second) + 512 <= bytes.len() {
                (0..512).for_each(|at| bytes.swap(first + at, second + at));
            }
        }),
        Edit::Cut { file, length } => change(*file, &|bytes| bytes.truncate(usize::from(*length))),
        Edit::Extend { file, bytes: more } => change(*file, &|bytes| bytes.extend_from_slice(more)),
        Edit::Replace { file, bytes: new } => change(*file, &|bytes| bytes.clone_from(new)),
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

/// Reads everything that can be read; every record must be one that was appended there.
fn read(log: &Log, extra: Option<(u64, &[u8])>) {
    let mut from = log.log_start_offset();
    let end = log.log_end_offset();
    while from < end {
        match log.fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None) {
            Ok(fetched) => {
                for record in fetched.iter() {
                    let offset = record.offset().get();
                    let is_extra = extra.is_some_and(|(at, value)| at == offset && record.value() == Some(value));
                    assert!(is_extra || record.value() == Some(&value(offset)[..]), "a wrong record at {offset}");
                }
                if fetched.next_offset() == from {
                    return;
                }
                from = fetched.next_offset();
            }
            Err(Error::Corrupt(found)) => {
                assert!(found.offsets.end >= from, "damage at {from} ends at {}", found.offsets.end);
                if found.offsets.end == from {
                    return;
                }
                from = found.offsets.end;
            }
            Err(_) => return,
        }
    }
}

fuzz_target!(|input: (bool, Vec<Edit>)| {
    let (is_closed, edits) = input;
    let disk = originals()[usize::from(!is_closed)].crash(|_, _| true);
    edits.iter().take(6).for_each(|edit| apply(&disk, edit));

    let Ok(log) = Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()) else { return };
    read(&log, None);
    let _ = log.verify(&mut |_| {});
    let outcome = log.recovery_report().outcome;
    let end = log.log_end_offset().get();
    let appended = log.append(&[NewRecord::new(b"extra")], None, WhenFull::Wait).and_then(|receipt| receipt.wait());
    if outcome == RecoveryOutcome::Corrupt {
        assert!(appended.is_err(), "a damaged log takes no appends");
        return;
    }
    if let Ok(appended) = appended {
        assert_eq!(appended.offsets.start.get(), end);
        drop(log);
        let log = Log::open(Arc::new(disk), DIRECTORY.as_ref(), options()).expect("what was just used can be opened");
        read(&log, Some((end, b"extra")));
    }
});
