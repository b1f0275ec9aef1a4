//! The table of what an open does (`docs/durability.md`, section 4), row by row and in its order, against logs in every
//! combination of what can be wrong with them: exactly what the first row that fits says has to happen, some row has to fit
//! each, and no row may be there for nothing.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_log::format::{
    self, BatchHeader, BatchPlace, Checkpoint, SEGMENT_DATA_START, SegmentHeader, SegmentHeaderFault,
    SlotFault, Trailer, segment_names_checksum,
};
use tailwater_log::limits::SECTOR_BYTES;
use tailwater_log::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater_log::storage::{SimDisk, Storage as _};
use tailwater_log::{
    CorruptionKind, Durability, Error, FilePosition, Log, LogEpoch, NewRecord, Offset, PartitionId,
    PartitionIdentity, RecoveryOutcome, WhenFull,
};

use common::options;

const DIRECTORY: &str = "/log";

/// What an open came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Result {
    Io,
    Unsupported,
    NoSegment,
    Clean,
    CorruptHeader,
    CorruptBelowMark,
    TornTail,
    Recovered,
}

/// A row of the table: what is found, as the documentation puts it, and what comes of it.
struct Row {
    found: &'static str,
    fits: fn(&Facts) -> bool,
    result: Result,
}

const TABLE: &[Row] = &[
    Row { found: "a read, sync or rename fails", fits: |facts| facts.is_unreadable, result: Result::Io },
    Row {
        found: "a verified header needs a newer version",
        fits: |facts| facts.is_newer,
        result: Result::Unsupported,
    },
    Row { found: "no segment", fits: |facts| facts.segments.is_empty(), result: Result::NoSegment },
    Row { found: "checkpoint clean, ", fits: Facts::is_clean, result: Result::Clean },
    Row {
        found: "a segment with both headers bad, or of another partition",
        fits: |facts| facts.segments.iter().any(|segment| segment.header.is_none()),
        result: Result::CorruptHeader,
    },
    Row {
        found: "the end found by scanning lies below the durable mark, or the first segment begins above the log start",
        fits: |facts| facts.end() < facts.durable_mark() || facts.first_base() > facts.log_start(),
        result: Result::CorruptBelowMark,
    },
    Row {
        found: "bytes that are not zero behind the end",
        fits: Facts::has_bytes_behind_end,
        result: Result::TornTail,
    },
    Row {
        found: "only zeros behind the end",
        fits: |facts| !facts.has_bytes_behind_end(),
        result: Result::Recovered,
    },
];

/// What a directory holds, decoded without the help of what is tested.
#[derive(Debug)]
struct Facts {
    is_unreadable: bool,
    is_newer: bool,
    /// The newest slot that verifies and is of this partition, and whether both do.
    checkpoint: Option<(Checkpoint, bool)>,
    /// Rising.
    segments: Vec<FoundSegment>,
}

#[derive(Debug)]
struct FoundSegment {
    base: u64,
    header: Option<SegmentHeader>,
    bytes: Vec<u8>,
    batches: Vec<FoundBatch>,
    footer_at: Option<u64>,
}

/// A batch that verifies, wherever it is in its file.
#[derive(Clone, Copy, Debug)]
struct FoundBatch {
    position: u64,
    end_position: u64,
    base: u64,
    next: u64,
    mark: u64,
}

impl Facts {
    fn read(disk: &SimDisk, is_unreadable: bool) -> Self {
        let identity = options().identity;
        let mut is_newer = false;
        let mut segments = Vec::new();
        for path in disk.file_paths() {
            let base = path.file_name().unwrap().to_str().unwrap().strip_suffix(".log");
            let Some(base) = base.and_then(|digits| digits.parse().ok()) else { continue };
            let bytes = disk.read_file(&path).unwrap();
            let header = SegmentHeader::decode_prefix(&bytes);
            is_newer |= matches!(header, Err(SegmentHeaderFault::Unsupported(_)));
            let header = header.ok().map(|(header, _)| header).filter(|header| header.identity == identity);
            let (batches, footer_at) =
                header.map_or((Vec::new(), None), |header| find_batches(&bytes, &header));
            segments.push(FoundSegment { base, header, bytes, batches, footer_at });
        }
        segments.sort_by_key(|segment| segment.base);
        let bytes = disk.read_file(&Path::new(DIRECTORY).join("checkpoint"));
        let mut slots = Vec::new();
        for slot in 0..2 {
            match bytes.as_deref().and_then(|bytes| bytes.get(slot * SECTOR_BYTES..)).map(Checkpoint::decode)
            {
                Some(Ok(found)) if found.identity == identity => slots.push(found),
                Some(Err(SlotFault::Unsupported(_))) => is_newer = true,
                _ => {}
            }
        }
        let newest = slots.iter().max_by_key(|slot| slot.sequence).map(|newest| (*newest, slots.len() == 2));
        let is_anything_there = !segments.is_empty() || bytes.is_some();
        Self { is_unreadable: is_unreadable && is_anything_there, is_newer, checkpoint: newest, segments }
    }

    fn is_clean(&self) -> bool {
        let (Some((mark, true)), Some(last)) = (self.checkpoint, self.segments.last()) else { return false };
        let names = segment_names_checksum(self.segments.iter().map(|segment| Offset::new(segment.base)));
        let scan_position = mark.scan_position.get() as usize;
        !mark.is_dirty
            && mark.segment_names_crc == names
            && mark.scan_base.get() == last.base
            && last.header.is_some_and(|header| header.epoch == mark.epoch)
            && last.bytes.get(scan_position..).is_some_and(|rest| rest.iter().take(64).all(|byte| *byte == 0))
    }

    fn first_base(&self) -> u64 {
        self.segments[0].base
    }

    fn log_start(&self) -> u64 {
        match self.checkpoint {
            Some((mark, true)) => mark.log_start.get(),
            Some((mark, false)) => mark.log_start.get().max(self.first_base()),
            None => self.first_base(),
        }
    }

    fn highest_epoch(&self) -> LogEpoch {
        self.segments.iter().filter_map(|segment| segment.header).map(|header| header.epoch).max().unwrap()
    }

    /// The live segments, each with the offset at which the next begins.
    fn live(&self) -> Vec<(&FoundSegment, u64)> {
        let epoch = |segment: &FoundSegment| segment.header.unwrap().epoch;
        let is_live = |segment: &&FoundSegment| {
            let supersedes =
                |other: &FoundSegment| epoch(other) > epoch(segment) && other.base <= segment.base;
            !self.segments.iter().any(supersedes)
        };
        let live: Vec<_> = self.segments.iter().filter(is_live).collect();
        let ends = live.iter().skip(1).map(|segment| segment.base).chain([u64::MAX]).collect::<Vec<_>>();
        live.into_iter().zip(ends).collect()
    }

    /// Where the scan for the end begins: index of the live segment, position, offset.
    fn scan_start(&self, live: &[(&FoundSegment, u64)]) -> (usize, u64, u64) {
        let first = (0, SEGMENT_DATA_START.get(), live[0].0.base);
        let Some((mark, _)) = self.checkpoint else { return first };
        let named = live.iter().position(|(segment, _)| segment.base == mark.scan_base.get());
        let reaches = |index: &usize| mark.scan_position.get() <= live[*index].0.bytes.len() as u64;
        match named.filter(reaches) {
            Some(index) if mark.epoch >= self.highest_epoch() => {
                (index, mark.scan_position.get(), mark.scan_offset.get())
            }
            _ => first,
        }
    }

    /// Where the log ends: index of the live segment, position, offset.
    fn end_place(&self) -> (usize, u64, u64) {
        let live = self.live();
        let (mut index, mut position, mut offset) = self.scan_start(&live);
        loop {
            let (segment, end) = live[index];
            let follows = |batch: &&FoundBatch| {
                (batch.position, batch.base) == (position, offset) && batch.next <= end && offset < end
            };
            if let Some(batch) = segment.batches.iter().find(follows) {
                (position, offset) = (batch.end_position, batch.next);
            } else if offset == end {
                (index, position) = (index + 1, SEGMENT_DATA_START.get());
            } else {
                return (index, position, offset);
            }
        }
    }

    fn end(&self) -> u64 {
        self.end_place().2
    }

    fn durable_mark(&self) -> u64 {
        let live = self.live();
        let highest = self.highest_epoch();
        let of_highest = |segment: &&FoundSegment| segment.header.unwrap().epoch == highest;
        let epoch_start = self.segments.iter().find(of_highest).unwrap().header.unwrap().epoch_start.get();
        let in_files = live.iter().filter(|(segment, _)| of_highest(segment)).flat_map(|(segment, end)| {
            let visible = segment.batches.iter().filter(|batch| batch.next <= *end);
            let covered = segment.footer_at.and_then(|_| segment.batches.last()).map(|last| last.next);
            visible.map(|batch| batch.mark).chain(covered.map(|covered| covered.min(*end)))
        });
        let slot =
            self.checkpoint.filter(|(mark, _)| mark.epoch >= highest).map(|(mark, _)| mark.durable.get());
        in_files.chain(slot).fold(self.first_base().max(self.log_start()).max(epoch_start), Ord::max)
    }

    fn has_bytes_behind_end(&self) -> bool {
        let live = self.live();
        let (index, position, offset) = self.end_place();
        live.iter().enumerate().skip(index).any(|(at, (segment, end))| {
            let from = if at == index { position } else { SEGMENT_DATA_START.get() };
            let until = segment.footer_at.unwrap_or(segment.bytes.len() as u64).max(from);
            let is_behind = at > index || offset < *end;
            is_behind
                && segment
                    .bytes
                    .get(from as usize..until as usize)
                    .is_some_and(|rest| rest.iter().any(|b| *b != 0))
        })
    }
}

/// The batches of a file that verify, and where its footer begins, if it has one.
fn find_batches(bytes: &[u8], header: &SegmentHeader) -> (Vec<FoundBatch>, Option<u64>) {
    let trailer = bytes.len().checked_sub(32).and_then(|at| Trailer::decode(&bytes[at..]).ok());
    let footer_at = trailer.map(|trailer| trailer.footer_position.get());
    let data_end = footer_at.unwrap_or(bytes.len() as u64);
    let mut batches = Vec::new();
    for position in (SEGMENT_DATA_START.get()..data_end).step_by(format::ALIGNMENT as usize) {
        let place = BatchPlace { salt: header.salt, position: FilePosition::new(position) };
        let Ok(batch) = BatchHeader::decode(&bytes[position as usize..], place) else { continue };
        let end = position + u64::from(batch.length_bytes);
        let body = bytes.get(position as usize + format::BATCH_HEADER_BYTES..end as usize);
        if body.is_some_and(|body| format::check_body(&batch, body).is_ok()) {
            batches.push(FoundBatch {
                position,
                end_position: format::aligned(end),
                base: batch.base_offset.get(),
                next: batch.next_offset().get(),
                mark: batch.durable_mark().get(),
            });
        }
    }
    (batches, footer_at)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    /// Closed in order.
    Closed,
    /// By the death of the process, with records written that were not synced.
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slots {
    AsLeft,
    NoFile,
    NewestDamaged,
    OlderDamaged,
    BothDamaged,
    Newer,
    OfAnother,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Files {
    All,
    None,
    NoFirst,
    NoneBetween,
    /// One more, of a new epoch, that supersedes the end of the last.
    NewEpoch,
    /// And one that an interrupted operation left.
    Temporary,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LastHeader {
    AsLeft,
    OneCopyDamaged,
    BothDamaged,
    OfAnother,
    Newer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    AsLeft,
    BytesBehindEnd,
    CutInWhatWasDurable,
    CutInWhatWasNot,
    DamageInWhatWasDurable,
    DamageInWhatWasNot,
}

type Combination = (Left, Slots, Files, LastHeader, Tail, bool);

fn combinations() -> Vec<Combination> {
    let mut all = Vec::new();
    for left in [Left::Closed, Left::Dead] {
        for slots in [
            Slots::AsLeft,
            Slots::NoFile,
            Slots::NewestDamaged,
            Slots::OlderDamaged,
            Slots::BothDamaged,
            Slots::Newer,
            Slots::OfAnother,
        ] {
            for files in [
                Files::All,
                Files::None,
                Files::NoFirst,
                Files::NoneBetween,
                Files::NewEpoch,
                Files::Temporary,
            ] {
                for header in [
                    LastHeader::AsLeft,
                    LastHeader::OneCopyDamaged,
                    LastHeader::BothDamaged,
                    LastHeader::OfAnother,
                    LastHeader::Newer,
                ] {
                    for tail in [
                        Tail::AsLeft,
                        Tail::BytesBehindEnd,
                        Tail::CutInWhatWasDurable,
                        Tail::CutInWhatWasNot,
                        Tail::DamageInWhatWasDurable,
                        Tail::DamageInWhatWasNot,
                    ] {
                        all.extend([false, true].map(|fails| (left, slots, files, header, tail, fails)));
                    }
                }
            }
        }
    }
    all
}

/// A log with four segments and more.
fn left(how: Left) -> SimDisk {
    let disk = SimDisk::new(3);
    let log = Log::create(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()).unwrap();
    let append = |n: usize, durability| {
        let value = format!("{n}:{}", "t".repeat(700));
        log.append(&[NewRecord::new(value.as_bytes())], Some(durability), WhenFull::Wait)
            .unwrap()
            .wait()
            .unwrap();
    };
    (0..34).for_each(|n| append(n, Durability::Durable));
    if how == Left::Closed {
        log.close().unwrap();
        return disk.crash(|_, _| true);
    }
    (34..36).for_each(|n| append(n, Durability::Written));
    disk.kill()
}

/// The named segments, rising.
fn segment_paths(disk: &SimDisk) -> Vec<PathBuf> {
    let mut paths = disk.file_paths();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

fn edit(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read_file(path).unwrap();
    change(&mut bytes);
    disk.write_file(path, &bytes).unwrap();
}

/// A disk that holds what `from` does, but for the files in `without`.
fn copy_without(from: &SimDisk, without: &[PathBuf]) -> SimDisk {
    let disk = SimDisk::new(4);
    disk.create_directory(DIRECTORY.as_ref()).unwrap();
    for path in from.file_paths().into_iter().filter(|path| !without.contains(path)) {
        disk.write_file(&path, &from.read_file(&path).unwrap()).unwrap();
    }
    disk.crash(|_, _| true)
}

fn another() -> PartitionIdentity {
    PartitionIdentity { partition: PartitionId::new(9), ..options().identity }
}

/// Gives a header or slot at `at` another version, and the checksum at `crc_at` of its `length` bytes that goes with it.
fn make_newer(bytes: &mut [u8], at: usize, length: usize, crc_at: usize) {
    bytes[at + 8] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[at..at + crc_at]);
    hasher.update(&bytes[at + crc_at + 4..at + length]);
    bytes[at + crc_at..at + crc_at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
}

fn change_slots(disk: &SimDisk, slots: Slots) {
    let path = Path::new(DIRECTORY).join("checkpoint");
    let bytes = disk.read_file(&path).unwrap();
    let found = [0, SECTOR_BYTES].map(|at| Checkpoint::decode(&bytes[at..]).unwrap());
    let newest = usize::from(found[1].sequence > found[0].sequence);
    let damage = |bytes: &mut Vec<u8>, slot: usize| bytes[slot * SECTOR_BYTES + 70] ^= 4;
    edit(disk, &path, |bytes| match slots {
        Slots::AsLeft | Slots::NoFile => {}
        Slots::NewestDamaged => damage(bytes, newest),
        Slots::OlderDamaged => damage(bytes, 1 - newest),
        Slots::BothDamaged => [0, 1].into_iter().for_each(|slot| damage(bytes, slot)),
        Slots::Newer => make_newer(bytes, newest * SECTOR_BYTES, SECTOR_BYTES, 44),
        Slots::OfAnother => {
            for (slot, found) in found.iter().enumerate() {
                let of_another = Checkpoint { identity: another(), ..*found }.encode();
                bytes[slot * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(&of_another);
            }
        }
    });
}

fn change_header(disk: &SimDisk, path: &Path, header: LastHeader) {
    edit(disk, path, |bytes| match header {
        LastHeader::AsLeft => {}
        LastHeader::OneCopyDamaged => bytes[20] ^= 1,
        LastHeader::BothDamaged => {
            bytes[20] ^= 1;
            bytes[SECTOR_BYTES + 50] ^= 8;
        }
        LastHeader::OfAnother => {
            let (header, _) = SegmentHeader::decode_prefix(bytes).unwrap();
            let prefix = SegmentHeader { identity: another(), ..header }.encode_prefix();
            bytes[..prefix.len()].copy_from_slice(&prefix);
        }
        LastHeader::Newer => [0, SECTOR_BYTES].into_iter().for_each(|at| make_newer(bytes, at, 64, 36)),
    });
}

fn change_tail(disk: &SimDisk, path: &Path, tail: Tail) {
    edit(disk, path, |bytes| {
        let Ok((header, _)) = SegmentHeader::decode_prefix(bytes) else { return };
        let (batches, _) = find_batches(bytes, &header);
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return };
        match tail {
            Tail::AsLeft => {}
            Tail::BytesBehindEnd => {
                bytes.resize(last.end_position as usize + 4096, 0);
                bytes[last.end_position as usize + 16] = 0xee;
            }
            Tail::CutInWhatWasDurable => bytes.truncate(first.position as usize + 100),
            Tail::CutInWhatWasNot => bytes.truncate(last.position as usize + 100),
            Tail::DamageInWhatWasDurable => bytes[first.position as usize + 100] ^= 1,
            Tail::DamageInWhatWasNot => bytes[last.position as usize + 100] ^= 1,
        }
    });
}

fn make((_, slots, files, header, tail, _): Combination, left: &SimDisk) -> SimDisk {
    let paths = segment_paths(left);
    let mut without = match files {
        Files::All | Files::NewEpoch | Files::Temporary => Vec::new(),
        Files::None => paths.clone(),
        Files::NoFirst => paths[..1].to_vec(),
        Files::NoneBetween => paths[1..paths.len() - 1].to_vec(),
    };
    if slots == Slots::NoFile {
        without.push(Path::new(DIRECTORY).join("checkpoint"));
    }
    let disk = copy_without(left, &without);
    if slots != Slots::NoFile {
        change_slots(&disk, slots);
    }
    if files != Files::None {
        let last = paths.last().unwrap();
        // The last but one batch of those that were durable is where the new epoch begins.
        let (found, _) = SegmentHeader::decode_prefix(&left.read_file(last).unwrap()).unwrap();
        let (batches, _) = find_batches(&left.read_file(last).unwrap(), &found);
        change_tail(&disk, last, tail);
        change_header(&disk, last, header);
        if files == Files::NewEpoch {
            let base = Offset::new(batches[1].base);
            let header = SegmentHeader { epoch: LogEpoch::new(2), epoch_start: base, salt: 77, ..found };
            let path = Path::new(DIRECTORY).join(format!("{:020}.log", base.get()));
            disk.write_file(&path, &header.encode_prefix()).unwrap();
        }
    }
    if files == Files::Temporary {
        disk.write_file(&Path::new(DIRECTORY).join("recovery.tmp"), b"half").unwrap();
    }
    disk
}

/// Opens it, and tells what came of it.
fn open(disk: &SimDisk) -> std::result::Result<Result, Error> {
    let log = match Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()) {
        Ok(log) => log,
        Err(Error::Io { .. }) => return Ok(Result::Io),
        Err(Error::Unsupported { .. }) => return Ok(Result::Unsupported),
        Err(Error::Corrupt(found)) if found.kind == CorruptionKind::MissingSegment => {
            return Ok(Result::NoSegment);
        }
        Err(error) => return Err(error),
    };
    let report = log.recovery_report();
    Ok(match (report.outcome, &report.corruption) {
        (RecoveryOutcome::Clean, None) if report.scanned_bytes == 0 => Result::Clean,
        (RecoveryOutcome::Recovered, None) if report.torn_tail.is_some() => Result::TornTail,
        (RecoveryOutcome::Recovered, None) => Result::Recovered,
        (RecoveryOutcome::Corrupt, Some(Error::Corrupt(found))) => match found.kind {
            CorruptionKind::BadSegmentHeader | CorruptionKind::ForeignSegment { .. } => Result::CorruptHeader,
            _ => Result::CorruptBelowMark,
        },
        other => panic!("an open came to {other:?}"),
    })
}

/// The files that an open must not change when it says that the log is damaged or not for it.
fn files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = disk.file_paths().into_iter().filter(|path| !path.ends_with("LOCK"));
    paths.map(|path| (path.clone(), disk.read_file(&path).unwrap())).collect()
}

#[test]
fn the_first_row_that_fits_is_what_happens_and_some_row_fits_everything() {
    let disks = [left(Left::Closed), left(Left::Dead)];
    assert!(disks.iter().all(|disk| segment_paths(disk).len() >= 4));
    let mut counts = BTreeMap::new();
    let combinations = combinations();
    for combination in &combinations {
        let disk = make(*combination, &disks[usize::from(combination.0 == Left::Dead)]);
        let facts = Facts::read(&disk, combination.5);
        let row = TABLE.iter().find(|row| (row.fits)(&facts));
        let row = row.unwrap_or_else(|| panic!("no row fits {combination:?}"));
        if combination.5 {
            let target = FaultTarget::Reads;
            disk.plan_fault(Fault { target, nth: 1, action: FaultAction::Errno(5), is_lasting: true });
        }
        let before = files(&disk);
        let result = open(&disk).unwrap_or_else(|error| panic!("{combination:?}: {error}"));
        assert_eq!(result, row.result, "{combination:?}: {}", row.found);
        if !matches!(result, Result::Clean | Result::TornTail | Result::Recovered) {
            assert!(files(&disk) == before, "{combination:?}: changed");
        }
        *counts.entry(result).or_insert(0) += 1;
    }
    for row in TABLE {
        println!("{:>5} {:?}: {}", counts.get(&row.result).copied().unwrap_or(0), row.result, row.found);
    }
    assert_eq!(counts.len(), TABLE.len(), "a row that nothing comes to: {counts:?}");
    assert_eq!(counts.values().sum::<usize>(), combinations.len());
}

#[test]
fn the_documentation_has_the_same_rows_in_the_same_order() {
    let text = include_str!("../../../docs/durability.md").replace('\n', " ");
    let places: Vec<_> = TABLE
        .iter()
        .map(|row| text.find(row.found).unwrap_or_else(|| panic!("not documented: {}", row.found)))
        .collect();
    assert!(places.is_sorted(), "in another order: {places:?}");
}
