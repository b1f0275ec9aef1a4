//! Damages a whole data directory: every bit of its small files and of the log of the groups, every length, every sector of
//! every file, files missing. Never a panic, never a wrong record or position, never a loss without an error that names
//! where; what is not damaged stays readable; and a repair makes the directory whole.
//!
//! The bits of segments are flipped in `tailwater-log`.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on fails")]

mod common;
mod damaged;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::DATA;
use damaged::{
    Positions, Read, State, files_in, goes_on, is_segment, open, path, places, positions, read,
    reference_with_history, repair_all, topics, truth,
};
use tailwater::storage::{SimDisk, Storage};
use tailwater::{Broker, Error, RecoveryOutcome, TopicPartition};

const SECTOR: usize = 512;

/// A directory as it was left, and what is in it.
struct Reference {
    is_closed: bool,
    disk: SimDisk,
    truth: State,
    history: Vec<Positions>,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Which records are in each segment.
    segments: BTreeMap<PathBuf, Range<u64>>,
}

/// Bytes of one file that are no longer what they were.
type Damage = (usize, Range<usize>);

/// What is readable of a damaged directory; `None` if it cannot be opened.
type Readable = Option<BTreeMap<TopicPartition, BTreeMap<u64, String>>>;

#[derive(Default)]
struct Counts {
    refused: u64,
    errors: u64,
    torn_tails: u64,
}

impl Reference {
    fn new(is_closed: bool) -> Self {
        let (disk, history) = reference_with_history(is_closed);
        let truth = truth(&disk);
        assert_eq!(history.last(), Some(&truth.positions));
        let files: Vec<_> = files_in(&disk, DATA.as_ref()).into_iter().collect();
        let mut segments = BTreeMap::new();
        for (at, records) in &truth.records {
            let bases = files.iter().map(|(file, _)| file).filter(|file| is_segment(file));
            let bases: Vec<_> = bases.filter(|file| file.starts_with(path(&at.to_string()))).collect();
            for (index, file) in bases.iter().enumerate() {
                let end = bases.get(index + 1).map_or(records.len() as u64, |next| base_of(next));
                segments.insert(file.to_path_buf(), base_of(file)..end);
            }
        }
        Self { is_closed, disk, truth, history, files, segments }
    }

    fn index_of(&self, name: &str) -> usize {
        self.files.iter().position(|(file, _)| *file == path(name)).unwrap()
    }

    fn is_damaged_in(&self, damage: &[Damage], directory: &Path) -> bool {
        damage.iter().any(|(file, _)| self.files[*file].0.starts_with(directory))
    }

    /// Whether an error that names this file, or directory, names where the damage is.
    fn is_beside_damage(&self, damage: &[Damage], named: &Path) -> bool {
        let directories = damage.iter().filter_map(|(file, _)| self.files[*file].0.parent());
        directories.into_iter().any(|directory| named == directory || named.parent() == Some(directory))
    }

    /// Opens a damaged copy, and compares what is there with what has to be: where it is damaged, or, if `is_thorough`,
    /// everywhere.
    fn check(
        &self,
        disk: &SimDisk,
        damage: &[Damage],
        is_thorough: bool,
        counts: &mut Counts,
    ) -> Result<Readable, String> {
        let is_catalog_damaged = self.is_damaged_in(damage, &path("catalog"));
        let before = disk.content_hash();
        let broker = match open(disk) {
            Err(Error::CatalogDamaged { path: file, .. })
                if is_catalog_damaged && *file == *path("catalog") =>
            {
                counts.refused += 1;
                return if disk.content_hash() == before {
                    Ok(None)
                } else {
                    Err("it was changed".to_owned())
                };
            }
            Err(Error::CatalogMissing { path: file }) if is_catalog_damaged && *file == *Path::new(DATA) => {
                counts.refused += 1;
                return if disk.content_hash() == before {
                    Ok(None)
                } else {
                    Err("it was changed".to_owned())
                };
            }
            Err(error) => return Err(format!("cannot open: {error}")),
            Ok(_) if is_catalog_damaged => return Err("opens with a damaged catalog".to_owned()),
            Ok(broker) => broker,
        };
        if topics(&broker) != self.truth.topics {
            return Err(format!("other topics: {:?}", topics(&broker)));
        }
        let mut readable = BTreeMap::new();
        for (at, records) in &self.truth.records {
            if !is_thorough && !self.is_damaged_in(damage, &path(&at.to_string())) {
                continue;
            }
            let found = self.check_partition(&broker, at, records, damage, counts);
            readable.insert(at.clone(), found.map_err(|error| format!("{at}: {error}"))?.records);
        }
        if is_thorough || self.is_damaged_in(damage, &path("__groups-0")) {
            self.check_positions(disk, positions(&broker), damage, counts)?;
        }
        // Without power closing takes no time.
        disk.cut_power_after(0);
        Ok(Some(readable))
    }

    fn check_partition(
        &self,
        broker: &Broker,
        at: &TopicPartition,
        records: &BTreeMap<u64, String>,
        damage: &[Damage],
        counts: &mut Counts,
    ) -> Result<Read, String> {
        let directory = path(&at.to_string());
        let is_damaged = self.is_damaged_in(damage, &directory);
        let found = match read(broker, at) {
            Ok(found) => found,
            Err(Error::Corrupt(found)) if is_damaged && found.file.starts_with(&directory) => {
                counts.errors += 1;
                return Ok(Read::default());
            }
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        for (offset, value) in &found.records {
            if records.get(offset) != Some(value) {
                return Err(format!("a wrong record at {offset}"));
            }
        }
        if let Some(file) = found.damaged.iter().find(|file| !is_damaged || !file.starts_with(&directory)) {
            return Err(format!("damage in the wrong file: {}", file.display()));
        }
        counts.errors += found.damaged.len() as u64;
        let report = broker.embedded().unwrap().recovery_report(at).map_err(|error| error.to_string())?;
        let is_told = report.outcome == RecoveryOutcome::Corrupt || report.torn_tail.is_some();
        for offset in records.keys().filter(|offset| !found.records.contains_key(offset)) {
            if !self.is_in_damaged_segment(damage, at, *offset) {
                return Err(format!(
                    "offset {offset} is not damaged and cannot be read: {found:?}, {report:?}"
                ));
            }
            if !is_told && !found.lost.iter().any(|range| range.contains(offset)) {
                return Err(format!("offset {offset} is lost in silence: {report:?}"));
            }
        }
        Ok(found)
    }

    fn is_in_damaged_segment(&self, damage: &[Damage], at: &TopicPartition, offset: u64) -> bool {
        let directory = path(&at.to_string());
        let files = damage.iter().map(|(file, _)| &self.files[*file].0);
        let mut damaged = files.filter(|file| file.parent() == Some(&directory));
        damaged.any(|file| self.segments.get(file).is_some_and(|records| records.contains(&offset)))
    }

    fn check_positions(
        &self,
        disk: &SimDisk,
        found: tailwater::Result<Positions>,
        damage: &[Damage],
        counts: &mut Counts,
    ) -> Result<(), String> {
        let is_damaged = self.is_damaged_in(damage, &path("__groups-0"));
        match found {
            Ok(found) if found == self.truth.positions => Ok(()),
            Ok(found) if !is_damaged || !self.history.contains(&found) => {
                Err(format!("wrong positions: {found:?}"))
            }
            // Where both the end of the log and the checkpoint that tells of it are damaged, that cannot be told from a torn
            // tail (`docs/durability.md`, section 6). It is kept.
            Ok(found) => {
                let is_damaged = |name: &str| damage.iter().any(|(file, _)| *file == self.index_of(name));
                let is_mark_lost =
                    is_damaged("__groups-0/checkpoint") && is_damaged("__groups-0/00000000000000000000.log");
                counts.torn_tails += 1;
                match is_mark_lost && !files_in(disk, &path("__groups-0/quarantine")).is_empty() {
                    true => Ok(()),
                    false => Err(format!("positions are lost in silence: {found:?}")),
                }
            }
            Err(error) => {
                counts.errors += 1;
                match &error {
                    Error::GroupsLogDamaged { .. } if is_damaged => Ok(()),
                    // To describe a group is to open the partitions that it reads.
                    Error::Corrupt(found) if self.is_beside_damage(damage, &found.file) => Ok(()),
                    _ => Err(format!("positions cannot be read: {error}")),
                }
            }
        }
    }

    /// Repairs a damaged copy: it verifies and goes on, and has what was readable before.
    fn check_repair(&self, disk: &SimDisk, damage: &[Damage], readable: &Readable) -> Result<(), String> {
        let (broker, reports) = repair_all(disk).map_err(|error| format!("cannot repair: {error}"))?;
        if topics(&broker) != self.truth.topics {
            return Err(format!("other topics after the repair: {:?}", topics(&broker)));
        }
        for at in places(&self.truth.topics) {
            let records = &self.truth.records[&at];
            let found = read(&broker, &at).map_err(|error| format!("{at}, repaired: {error}"))?;
            if !found.damaged.is_empty() {
                return Err(format!("{at} is not repaired: {:?}", found.damaged));
            }
            for (offset, value) in records {
                let was_readable = match readable {
                    Some(readable) => readable[&at].contains_key(offset),
                    None => !self.is_in_damaged_segment(damage, &at, *offset),
                };
                if was_readable && found.records.get(offset) != Some(value) {
                    return Err(format!("{at}: offset {offset} was readable before the repair: {reports:?}"));
                }
            }
            if let Some((offset, _)) =
                found.records.iter().find(|(offset, value)| records.get(offset) != Some(*value))
            {
                return Err(format!("{at}: a wrong record at {offset} after the repair"));
            }
        }
        let found = positions(&broker).map_err(|error| format!("groups, repaired: {error}"))?;
        if !self.is_damaged_in(damage, &path("__groups-0")) && found != self.truth.positions {
            return Err(format!("positions are lost in the repair: {found:?}"));
        }
        for (group, positions) in &found {
            for (at, offset) in positions {
                let was_so =
                    |state: &Positions| state.get(group).and_then(|known| known.get(at)) == Some(offset);
                if !self.history.iter().any(was_so) {
                    return Err(format!("{group} was never at {offset} in {at}"));
                }
            }
        }
        goes_on(disk, &broker)
    }

    /// Damages a copy, checks it, and, if `is_thorough`, repairs it.
    fn search(
        &self,
        what: &str,
        damage: &[Damage],
        inflict: impl Fn(&SimDisk),
        is_thorough: bool,
        counts: &mut Counts,
    ) {
        let disk = self.disk.crash(|_, _| true);
        inflict(&disk);
        let damaged = disk.crash(|_, _| true);
        let checked = self.check(&disk, damage, is_thorough, counts).and_then(|readable| {
            if is_thorough { self.check_repair(&damaged, damage, &readable) } else { Ok(()) }
        });
        if let Err(error) = checked {
            let places: Vec<_> = damage.iter().map(|(file, range)| (&self.files[*file].0, range)).collect();
            panic!("closed: {}, {what} {places:?}: {error}", self.is_closed);
        }
    }
}

fn base_of(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// The length of what is not zeros, rounded up to a sector, and a sector more.
fn used_bytes(bytes: &[u8]) -> usize {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (used.next_multiple_of(SECTOR) + SECTOR).min(bytes.len())
}

/// Whether the bits of a file are flipped here: those of partitions' segments are in the search of the log.
fn has_its_bits_flipped(file: &Path) -> bool {
    !is_segment(file) || file.starts_with(path("__groups-0"))
}

#[test]
fn no_flipped_bit_is_taken_for_data() {
    let started = Instant::now();
    let (mut flips, mut repairs, mut counts) = (0_u64, 0_u64, Counts::default());
    for reference in [Reference::new(true), Reference::new(false)] {
        for (index, (file, bytes)) in reference.files.iter().enumerate() {
            if !has_its_bits_flipped(file) {
                continue;
            }
            for bit in 0..used_bytes(bytes) as u64 * 8 {
                let byte = (bit / 8) as usize;
                let is_thorough = bit % 61 == 0;
                let flip = |disk: &SimDisk| disk.flip_bit(file, bit).unwrap();
                reference.search("flipped", &[(index, byte..byte + 1)], flip, is_thorough, &mut counts);
                flips += 1;
                repairs += u64::from(is_thorough);
            }
        }
    }
    let Counts { refused, errors, .. } = counts;
    println!(
        "{flips} bits flipped, {refused} refusals, {errors} errors, {repairs} repairs, {:?}",
        started.elapsed()
    );
    assert!(flips > 80_000 && repairs > 1_000, "{flips} bits flipped, {repairs} repairs");
    assert!(refused > 4_000 && errors > 10_000, "{refused} refusals, {errors} errors");
}

#[test]
fn a_file_cut_anywhere_costs_only_what_was_cut_off() {
    let started = Instant::now();
    let (mut cuts, mut repairs, mut counts) = (0_u64, 0_u64, Counts::default());
    for reference in [Reference::new(true), Reference::new(false)] {
        for (index, (file, bytes)) in reference.files.iter().enumerate() {
            let step = if has_its_bits_flipped(file) { 1 } else { 13 };
            for length in (0..used_bytes(bytes)).step_by(step) {
                let is_thorough = length % 39 == 0;
                let cut = |disk: &SimDisk| disk.write_file(file, &bytes[..length]).unwrap();
                reference.search("cut", &[(index, length..usize::MAX)], cut, is_thorough, &mut counts);
                cuts += 1;
                repairs += u64::from(is_thorough);
            }
        }
    }
    println!(
        "{cuts} cuts, {} refusals, {} errors, {repairs} repairs, {:?}",
        counts.refused,
        counts.errors,
        started.elapsed()
    );
    assert!(cuts > 15_000 && repairs > 500, "{cuts} cuts, {repairs} repairs");
    assert!(counts.refused > 500 && counts.errors > 1_000);
}

/// All sectors that have any byte but zeros: file, index, bytes.
fn used_sectors(reference: &Reference) -> Vec<(usize, usize, &[u8])> {
    let mut used = Vec::new();
    for (file, (_, bytes)) in reference.files.iter().enumerate() {
        let with_data =
            bytes.chunks(SECTOR).enumerate().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
        used.extend(with_data.map(|(sector, bytes)| (file, sector, bytes)));
    }
    used
}

/// Checks, and repairs, the directory with each of these sectors, `(file, sector)`, holding other bytes.
fn search_sectors(reference: &Reference, what: &str, changes: &[(usize, usize, &[u8])], counts: &mut Counts) {
    let damage: Vec<Damage> = changes
        .iter()
        .map(|(file, sector, bytes)| (*file, sector * SECTOR..sector * SECTOR + bytes.len()))
        .collect();
    let inflict = |disk: &SimDisk| {
        for (file, sector, bytes) in changes {
            let file = &reference.files[*file].0;
            let mut content = disk.read_file(file).unwrap();
            let start = sector * SECTOR;
            content.resize(content.len().max(start + bytes.len()), 0);
            content[start..start + bytes.len()].copy_from_slice(bytes);
            disk.write_file(file, &content).unwrap();
        }
    };
    reference.search(what, &damage, inflict, true, counts);
}

#[test]
fn sectors_that_are_zeroed_or_swapped_are_never_taken_for_data() {
    let started = Instant::now();
    let (mut zeroed, mut swaps, mut counts) = (0_u64, 0_u64, Counts::default());
    for reference in [Reference::new(true), Reference::new(false)] {
        let used = used_sectors(&reference);
        for (at, (file, sector, bytes)) in used.iter().enumerate() {
            search_sectors(&reference, "zeroed", &[(*file, *sector, &vec![0; bytes.len()])], &mut counts);
            zeroed += 1;
            for (other_file, other_sector, other) in &used[at + 1..] {
                if bytes == other {
                    continue;
                }
                // What is in the other's place may be shorter, or longer.
                let changes = [(*file, *sector, *other), (*other_file, *other_sector, *bytes)];
                search_sectors(&reference, "swapped", &changes, &mut counts);
                swaps += 1;
            }
        }
    }
    println!(
        "{zeroed} sectors zeroed, {swaps} swaps, {} refusals, {} errors, {} torn tails, each repaired, {:?}",
        counts.refused,
        counts.errors,
        counts.torn_tails,
        started.elapsed()
    );
    assert!(zeroed > 80 && swaps > 2_000, "{zeroed} sectors zeroed, {swaps} swaps");
    assert!(counts.refused > 80 && counts.errors > 1_000 && counts.torn_tails < 5);
}

#[test]
fn a_missing_file_is_told_and_costs_only_what_was_in_it() {
    let (mut missing, mut counts) = (0_u64, Counts::default());
    let mut names = BTreeSet::new();
    for reference in [Reference::new(true), Reference::new(false)] {
        for (index, (file, _)) in reference.files.iter().enumerate() {
            let remove = |disk: &SimDisk| {
                disk.remove_file(file).unwrap();
                disk.sync_directory(file.parent().unwrap()).unwrap();
            };
            reference.search("missing", &[(index, 0..usize::MAX)], remove, true, &mut counts);
            missing += 1;
            names.insert(file.file_name().unwrap().to_owned());
        }
    }
    println!("{missing} files missing, {} refusals, {} errors, each repaired", counts.refused, counts.errors);
    assert!(missing >= 30 && names.len() > 5, "{missing} files missing");
    assert_eq!(counts.refused, 2);
    assert!(counts.errors > 4);
}
