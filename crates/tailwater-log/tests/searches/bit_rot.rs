//! Damages every bit, every length and every sector of a small log: never a wrong record, never a panic, never a silent
//! loss below the durable mark, and what is not damaged stays readable.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_log::format::{self, Checkpoint, SEGMENT_DATA_START, SEGMENT_HEADER_BYTES};
use tailwater_log::limits::SECTOR_BYTES;
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Durability, Error, FetchIsolation, FetchLimits, Log, LogOptions, ManualClock, NewRecord, Offset,
    RecoveryOutcome, Timestamp, WhenFull,
};

use crate::common::with;

const DIRECTORY: &str = "/log";
const SECTOR: u64 = SECTOR_BYTES as u64;

fn options(clock: &Arc<ManualClock>) -> LogOptions {
    let mut options = with(|config| config.segment_bytes = 8192);
    options.clock = clock.clone();
    options
}

/// A batch of the reference log: where it is, which records it holds, and below which offset it says that all is durable.
#[derive(Clone, Debug)]
struct Batch {
    file: usize,
    bytes: Range<u64>,
    offsets: Range<u64>,
    mark: u64,
}

#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    /// What its sectors held before, at one time or another.
    older: BTreeMap<u64, Vec<Vec<u8>>>,
}

/// A log as it was left, and what is in it.
struct Reference {
    disk: SimDisk,
    records: Vec<Vec<u8>>,
    batches: Vec<Batch>,
    files: Vec<File>,
}

/// Bytes of one file that are no longer what they were.
type Damage = (usize, Range<u64>);

impl Reference {
    /// Three segments with footers, an active one, and a checkpoint; closed, or left by a power cut with everything synced.
    fn new(is_closed: bool) -> Self {
        let (disk, clock) = (SimDisk::new(7), Arc::new(ManualClock::new(Timestamp::from_millis(1_000))));
        let log = Log::create(Arc::new(disk.clone()), DIRECTORY.as_ref(), options(&clock)).unwrap();
        let (mut records, mut versions) = (Vec::<Vec<u8>>::new(), Vec::new());
        for round in 0..29_u64 {
            let count = 1 + round % 3;
            let from = records.len();
            records.extend((0..count).map(|n| format!("{round}/{n}:{}", "r".repeat(310)).into_bytes()));
            let batch: Vec<_> = records[from..].iter().map(|value| NewRecord::new(value)).collect();
            // Several batches share a sync now and then.
            let durability = if round % 4 == 1 { Durability::Buffered } else { Durability::Durable };
            log.append(&batch, Some(durability), WhenFull::Wait).unwrap().wait().unwrap();
            if round % 9 == 8 {
                clock.advance_ms(60);
                log.maintain().unwrap();
            }
            versions.push(contents(&disk));
        }
        if is_closed {
            log.close().unwrap();
        }
        let disk = disk.crash(|_, _| true);
        let mut files = Vec::new();
        for (path, bytes) in contents(&disk) {
            let mut older = BTreeMap::<u64, Vec<Vec<u8>>>::new();
            for before in versions.iter().filter_map(|version| version.get(&path)) {
                for (index, (now, then)) in sectors(&bytes).zip(sectors(before)).enumerate() {
                    let known = older.entry(index as u64).or_default();
                    if now != then && now.len() == then.len() && !known.iter().any(|old| old == then) {
                        known.push(then.to_vec());
                    }
                }
            }
            files.push(File { path, bytes, older });
        }
        let mut reference = Self { disk, records, batches: Vec::new(), files };
        reference.find_batches();
        reference
    }

    fn find_batches(&mut self) {
        let log = self.open(&self.disk.crash(|_, _| true)).unwrap();
        assert_eq!(log.log_end_offset().get() as usize, self.records.len());
        drop(log);
        for (file, File { path, bytes, .. }) in
            self.files.iter().enumerate().filter(|(_, f)| is_segment(&f.path))
        {
            let (header, _) = format::SegmentHeader::decode_prefix(bytes).unwrap();
            let mut position = SEGMENT_DATA_START;
            loop {
                let place = format::BatchPlace { salt: header.salt, position };
                let Some(rest) = bytes.get(position.get() as usize..) else { break };
                let Ok(batch) = format::BatchHeader::decode(rest, place) else { break };
                let end = position.get() + u64::from(batch.length_bytes);
                self.batches.push(Batch {
                    file,
                    bytes: position.get()..end,
                    offsets: batch.base_offset.get()..batch.next_offset().get(),
                    mark: batch.durable_mark().get(),
                });
                position = SEGMENT_DATA_START.plus(format::aligned(end) - SEGMENT_DATA_START.get());
            }
            assert!(self.batches.iter().any(|batch| batch.file == file), "{}", path.display());
        }
        let offsets: Vec<_> = self.batches.iter().flat_map(|batch| batch.offsets.clone()).collect();
        assert!(offsets.iter().copied().eq(0..self.records.len() as u64), "every record is in one batch");
        let segments = self.files.iter().filter(|file| is_segment(&file.path)).count();
        assert!(segments >= 3, "{segments} segments");
    }

    fn open(&self, disk: &SimDisk) -> Result<Log, Error> {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(9_000)));
        Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options(&clock))
    }

    /// Whether these bytes of a file are as they were.
    fn is_intact(damage: &[Damage], file: usize, bytes: &Range<u64>) -> bool {
        damage.iter().all(|(of, range)| *of != file || range.end <= bytes.start || range.start >= bytes.end)
    }

    /// Whether a batch and one of the header copies of its segment are as they were.
    fn is_readable(damage: &[Damage], batch: &Batch) -> bool {
        let header = SEGMENT_HEADER_BYTES as u64;
        let has_header =
            [0, SECTOR].iter().any(|start| Self::is_intact(damage, batch.file, &(*start..*start + header)));
        has_header && Self::is_intact(damage, batch.file, &batch.bytes)
    }

    /// Below this everything is known to have been durable, by what is not damaged.
    fn known_mark(&self, damage: &[Damage]) -> u64 {
        let batches = self.batches.iter().filter(|batch| Self::is_readable(damage, batch));
        let slots = self.files.iter().enumerate().filter(|(_, file)| file.path.ends_with("checkpoint"));
        let slots = slots.flat_map(|(file, File { bytes, .. })| {
            (0..2)
                .filter(move |slot| Self::is_intact(damage, file, &(slot * SECTOR..(slot + 1) * SECTOR)))
                .filter_map(|slot| {
                    Checkpoint::decode(bytes.get((slot * SECTOR) as usize..)?)
                        .ok()
                        .map(|slot| slot.durable.get())
                })
        });
        batches.map(|batch| batch.mark).chain(slots).max().unwrap_or_default()
    }

    /// Opens a damaged copy of the log and compares what can be read with what may be. `is_thorough` also goes on with it.
    fn check(&self, disk: &SimDisk, damage: &[Damage], is_thorough: bool) -> Result<(), String> {
        let log = self.open(disk).map_err(|error| format!("cannot open: {error}"))?;
        let known = self.known_mark(damage);
        // What a missing file held is missing behind the one before it.
        let is_file_missing = damage.iter().any(|(_, range)| *range == (0..u64::MAX));
        let is_damaged =
            |path: &Path| is_file_missing || damage.iter().any(|(file, _)| self.files[*file].path == path);
        let mut found = BTreeMap::new();
        let mut lost = Vec::new();
        let mut from = log.log_start_offset();
        if from != Offset::ZERO {
            return Err(format!("the log start is {from}"));
        }
        while from < log.log_end_offset() {
            match log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None) {
                Ok(fetched) => {
                    let before = found.len();
                    found.extend(
                        fetched
                            .iter()
                            .map(|record| (record.offset().get(), record.value().unwrap().to_vec())),
                    );
                    if (found.len() - before) as u64 != fetched.next_offset().since(from)
                        || found.len() == before
                    {
                        return Err(format!("offsets from {from} are passed over in silence"));
                    }
                    from = fetched.next_offset();
                }
                Err(Error::Corrupt(corruption)) if corruption.offsets.end > from => {
                    if !is_damaged(&corruption.file) {
                        return Err(format!("damage in the wrong file: {corruption}"));
                    }
                    lost.push(from.get()..corruption.offsets.end.get());
                    from = corruption.offsets.end;
                }
                Err(error) => return Err(format!("reading at {from}: {error}")),
            }
        }
        for (offset, value) in &found {
            if self.records.get(*offset as usize) != Some(value) {
                return Err(format!("a wrong record at {offset}"));
            }
        }
        if log.log_end_offset().get() < known {
            return Err(format!("the end is {}, {known} were durable", log.log_end_offset()));
        }
        let mut is_first_damaged = true;
        for batch in &self.batches {
            let is_readable = Self::is_readable(damage, batch);
            is_first_damaged &= is_readable;
            for offset in batch.offsets.clone() {
                let is_told = lost.iter().any(|range| range.contains(&offset));
                if found.contains_key(&offset) {
                    continue;
                }
                if is_readable && (is_first_damaged || batch.offsets.end <= known) {
                    return Err(format!(
                        "offset {offset} is not damaged and cannot be read: {lost:?}, {:?}",
                        log.recovery_report()
                    ));
                }
                if !is_told && offset < known {
                    return Err(format!("offset {offset} is lost in silence, below {known}"));
                }
            }
        }
        if is_thorough { self.go_on(disk, log) } else { Ok(()) }
    }

    /// Appends if the log takes that, and opens it again: everything is as it was.
    fn go_on(&self, disk: &SimDisk, log: Log) -> Result<(), String> {
        let end = log.log_end_offset();
        let is_corrupt = log.recovery_report().outcome == RecoveryOutcome::Corrupt;
        let appended = log.append(&[NewRecord::new(b"after")], None, WhenFull::Wait).and_then(|r| r.wait());
        match &appended {
            Ok(appended) if !is_corrupt && appended.offsets.start == end => {}
            Err(Error::Corrupt(_)) if is_corrupt => {}
            other => return Err(format!("an append gave {other:?}; corrupt: {is_corrupt}")),
        }
        let read_all = |log: &Log| {
            let mut found = Vec::new();
            for offset in log.log_start_offset().get()..log.log_end_offset().get() {
                let limits = FetchLimits { max_records: 1, ..FetchLimits::default() };
                let fetched = log.fetch(Offset::new(offset), limits, FetchIsolation::Visible, None);
                found.push(fetched.ok().and_then(|f| f.iter().next().map(|r| r.value().unwrap().to_vec())));
            }
            found
        };
        let before = read_all(&log);
        drop(log);
        let after = read_all(&self.open(disk).map_err(|error| format!("cannot open again: {error}"))?);
        if before != after {
            return Err(format!("opened again it holds {} and not {} records", after.len(), before.len()));
        }
        Ok(())
    }
}

fn contents(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let of = |path: PathBuf| disk.read_file(&path).map(|bytes| (path, bytes));
    disk.file_paths().into_iter().filter_map(of).collect()
}

fn sectors(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(SECTOR_BYTES)
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn flip_every_bit(is_closed: bool) {
    let reference = Reference::new(is_closed);
    let mut flips = 0_u64;
    for (index, file) in reference.files.iter().enumerate() {
        for bit in 0..file.bytes.len() as u64 * 8 {
            let disk = reference.disk.crash(|_, _| true);
            disk.flip_bit(&file.path, bit).unwrap();
            let damage = [(index, bit / 8..bit / 8 + 1)];
            if let Err(error) = reference.check(&disk, &damage, bit % 61 == 0) {
                panic!(
                    "closed: {is_closed}, bit {} of byte {} of {} flipped: {error}",
                    bit % 8,
                    bit / 8,
                    file.path.display()
                );
            }
            flips += 1;
        }
    }
    println!("{flips} bits flipped");
    assert!(flips >= 131_072, "{flips}");
}

pub(crate) fn no_flipped_bit_of_a_closed_log_is_taken_for_data() {
    flip_every_bit(true);
}

pub(crate) fn no_flipped_bit_of_a_log_that_lost_power_is_taken_for_data() {
    flip_every_bit(false);
}

pub(crate) fn a_file_cut_anywhere_costs_only_what_was_cut_off() {
    for is_closed in [true, false] {
        let reference = Reference::new(is_closed);
        let mut cuts = 0;
        for (index, file) in reference.files.iter().enumerate() {
            for length in 0..file.bytes.len() {
                let disk = reference.disk.crash(|_, _| true);
                disk.write_file(&file.path, &file.bytes[..length]).unwrap();
                let damage = [(index, length as u64..u64::MAX)];
                if let Err(error) = reference.check(&disk, &damage, length % 61 == 0) {
                    panic!("closed: {is_closed}, {} cut to {length} bytes: {error}", file.path.display());
                }
                cuts += 1;
            }
        }
        println!("{cuts} cuts");
        assert!(cuts > 16_384);
    }
}

/// Puts these bytes in the place of a sector.
fn set_sector(disk: &SimDisk, path: &Path, sector: u64, bytes: &[u8]) {
    let mut content = disk.read_file(path).unwrap();
    let start = (sector * SECTOR) as usize;
    content[start..start + bytes.len()].copy_from_slice(bytes);
    disk.write_file(path, &content).unwrap();
}

/// Checks the log with each of these sectors, `(file, sector)`, holding other bytes.
fn check_with_sectors(reference: &Reference, what: &str, changes: &[(usize, u64, &[u8])]) {
    let disk = reference.disk.crash(|_, _| true);
    for (file, sector, bytes) in changes {
        set_sector(&disk, &reference.files[*file].path, *sector, bytes);
    }
    let damaged = |file: usize, sector: u64, bytes: &[u8]| {
        // Two header copies that verify and differ contradict each other: neither is used.
        let is_header =
            sector < 2 && is_segment(&reference.files[file].path) && bytes.starts_with(b"TWSEGMNT");
        if is_header { 0..u64::MAX } else { sector * SECTOR..sector * SECTOR + bytes.len() as u64 }
    };
    let damage: Vec<Damage> =
        changes.iter().map(|(file, sector, bytes)| (*file, damaged(*file, *sector, bytes))).collect();
    if let Err(error) = reference.check(&disk, &damage, true) {
        let places: Vec<_> =
            damage.iter().map(|(file, range)| (&reference.files[*file].path, range)).collect();
        panic!("{what} {places:?}: {error}");
    }
}

/// All sectors that have any byte but zeros: file, index, bytes.
fn used_sectors(reference: &Reference) -> Vec<(usize, u64, &[u8])> {
    let mut used = Vec::new();
    for (file, content) in reference.files.iter().enumerate() {
        let all = (0..).zip(sectors(&content.bytes));
        let with_data = all.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
        used.extend(with_data.map(|(sector, bytes)| (file, sector, bytes)));
    }
    used
}

pub(crate) fn sectors_that_are_zeroed_or_swapped_or_older_are_never_taken_for_data() {
    for is_closed in [true, false] {
        let reference = Reference::new(is_closed);
        let used = used_sectors(&reference);
        let (mut swaps, mut older) = (0, 0);
        for (at, (file, sector, bytes)) in used.iter().enumerate() {
            check_with_sectors(&reference, "zeroed", &[(*file, *sector, &vec![0; bytes.len()])]);
            for (other_file, other_sector, other) in &used[at + 1..] {
                if bytes.len() == other.len() && bytes != other {
                    let changes = [(*file, *sector, *other), (*other_file, *other_sector, *bytes)];
                    check_with_sectors(&reference, "swapped", &changes);
                    swaps += 1;
                }
            }
            for old in reference.files[*file].older.get(sector).into_iter().flatten() {
                check_with_sectors(&reference, "older", &[(*file, *sector, old)]);
                older += 1;
            }
        }
        println!("{} sectors zeroed, {swaps} swaps, {older} older versions", used.len());
        assert!(used.len() > 40 && swaps > 800 && older > 40);
    }
}

pub(crate) fn a_missing_file_is_told_and_costs_only_what_was_in_it() {
    for is_closed in [true, false] {
        let reference = Reference::new(is_closed);
        for (index, file) in reference.files.iter().enumerate() {
            let disk = reference.disk.crash(|_, _| true);
            disk.remove_file(&file.path).unwrap();
            disk.sync_directory(DIRECTORY.as_ref()).unwrap();
            if let Err(error) = reference.check(&disk, &[(index, 0..u64::MAX)], true) {
                panic!("closed: {is_closed}, without {}: {error}", file.path.display());
            }
        }
    }
}
