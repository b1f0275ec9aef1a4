//! Repairs a directory that is damaged in several places, its catalog, a partition and the log of the groups, and has that
//! cut off after each operation, or fail at each: whatever is left is repaired, and nothing is lost but what was damaged.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on fails")]

mod common;
mod damaged;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Choices, partition};
use damaged::{
    State, files_in, goes_on, open, path, places, positions, read, reference_with_history, repair_all,
    repair_catalog, topics, truth,
};
use tailwater::storage::SimDisk;
use tailwater::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater::{Broker, Error, TopicPartition};

/// What a repair has to come to.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    state: State,
    lost: BTreeMap<TopicPartition, Vec<Range<u64>>>,
}

/// A directory, what is damaged in it, and what was in it before.
struct Damaged {
    disk: SimDisk,
    /// Files that are damaged, as they are.
    files: Vec<(PathBuf, Vec<u8>)>,
    truth: State,
}

/// Where the batches of a segment begin.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (1024, Vec::new());
    while let Some(length) =
        bytes.get(at..at + 4).map(|length| u32::from_le_bytes(length.try_into().unwrap()))
    {
        // A batch has its magic at 12.
        if length == 0 || bytes.get(at + 12..at + 14) != Some(b"TW".as_slice()) {
            break;
        }
        found.push(at);
        at = (at + length as usize).next_multiple_of(8);
    }
    found
}

fn damaged(is_closed: bool) -> Damaged {
    let disk = reference_with_history(is_closed).0;
    let truth = truth(&disk);
    let segments: Vec<_> = files_in(&disk, &path("orders-0"))
        .into_iter()
        .filter(|(file, _)| damaged::is_segment(file))
        .collect();
    let mut files = BTreeSet::new();
    let mut flip = |file: &Path, byte: usize| {
        disk.flip_bit(file, 8 * byte as u64 + 3).unwrap();
        files.insert(file.to_owned());
    };
    flip(&path("catalog"), 60);
    // A record in the first segment, both headers of the second.
    flip(&segments[0].0, batches(&segments[0].1)[2] + 80);
    flip(&segments[1].0, 20);
    flip(&segments[1].0, 512 + 20);
    // A commit between others, and the slots of a checkpoint.
    let groups = path("__groups-0/00000000000000000000.log");
    let commits = batches(&disk.read_file(&groups).unwrap());
    assert!(commits.len() >= 4, "{commits:?}");
    flip(&groups, commits[1] + 70);
    flip(&path("mails-0/checkpoint"), 20);
    flip(&path("mails-0/checkpoint"), 512 + 20);
    let files = files.into_iter().map(|file| (file.clone(), disk.read_file(&file).unwrap())).collect();
    Damaged { disk: disk.crash(|_, _| true), files, truth }
}

fn outcome(broker: &Broker) -> Result<Outcome, String> {
    let (mut records, mut lost) = (BTreeMap::new(), BTreeMap::new());
    let topics = topics(broker);
    for at in places(&topics) {
        let found = read(broker, &at).map_err(|error| format!("{at}: {error}"))?;
        if !found.damaged.is_empty() {
            return Err(format!("{at} is still damaged: {:?}", found.damaged));
        }
        records.insert(at.clone(), found.records);
        lost.insert(at, found.lost);
    }
    let positions = positions(broker).map_err(|error| format!("groups: {error}"))?;
    Ok(Outcome { state: State { topics, records, positions }, lost })
}

/// Whether each damaged place is where it was, or kept: a checkpoint is made anew from the rest.
fn check_kept(disk: &SimDisk, damaged: &Damaged) -> Result<(), String> {
    for (file, bytes) in damaged.files.iter().filter(|(file, _)| !file.ends_with("checkpoint")) {
        let is_in_place = disk.read_file(file).as_ref() == Some(bytes);
        let quarantine = file.parent().unwrap().join("quarantine");
        let kept = files_in(disk, &quarantine);
        let is_part =
            |kept: &Vec<u8>| kept.len() > 40 && bytes.windows(kept.len()).any(|window| window == &kept[..]);
        if !is_in_place && !kept.values().any(is_part) {
            return Err(format!("what was damaged in {} is gone", file.display()));
        }
    }
    Ok(())
}

/// What an uninterrupted repair comes to, which is compared with what was there before the damage.
fn expected(damaged: &Damaged) -> Outcome {
    let disk = damaged.disk.crash(|_, _| true);
    let (broker, reports) = repair_all(&disk).unwrap();
    let found = outcome(&broker).unwrap();
    let orders = partition("orders", 0);
    assert_eq!(found.state.topics, damaged.truth.topics);
    // The third record, and the second segment.
    let told = &found.lost[&orders];
    assert_eq!((told[0].clone(), told.len()), (2..3, 2), "{told:?}");
    assert_eq!(told[1].start, 7, "{told:?}");
    for (at, records) in &damaged.truth.records {
        let lost = &found.lost[at];
        let left: BTreeMap<_, _> = records
            .iter()
            .filter(|(offset, _)| !lost.iter().any(|range| range.contains(offset)))
            .map(|(offset, value)| (*offset, value.clone()))
            .collect();
        assert_eq!(found.state.records[at], left, "{at}");
        assert!(*at == orders || lost.is_empty(), "{at}: {lost:?}");
    }
    // Of the commits a later one says the same again.
    assert_eq!(found.state.positions, damaged.truth.positions);
    assert_eq!(reports.values().filter(|report| !report.damage.is_empty()).count(), 2, "{reports:?}");
    drop(broker);
    found
}

/// Repairs what an interrupted repair left, and compares it with what has to come of it.
fn check(disk: &SimDisk, damaged: &Damaged, expected: &Outcome, is_deep: bool) -> Result<(), String> {
    check_kept(disk, damaged)?;
    let (broker, _) = repair_all(disk).map_err(|error| format!("cannot repair: {error}"))?;
    let found = outcome(&broker)?;
    if found != *expected {
        return Err(format!("found {:?} {:?} {:?}", found.state.topics, found.state.positions, found.lost));
    }
    check_kept(disk, damaged)?;
    if is_deep {
        goes_on(disk, &broker)?;
        // Nothing is found any more.
        let again = repair_catalog(disk).map_err(|error| error.to_string())?;
        if again.damage.is_some() {
            return Err(format!("the catalog is damaged again: {again:?}"));
        }
        let broker = open(disk).map_err(|error| error.to_string())?;
        for at in places(&topics(&broker)) {
            let report = broker.embedded().unwrap().repair(&at).map_err(|error| error.to_string())?;
            if !report.damage.is_empty() {
                return Err(format!("{at} is damaged again: {:?}", report.damage));
            }
        }
    } else {
        // Without power closing takes no time.
        disk.cut_power_after(0);
    }
    Ok(())
}

#[test]
fn a_repair_of_everything_can_be_cut_off_anywhere() {
    let started = Instant::now();
    let mut choices = Choices(0x7e9a);
    let (mut cuts, mut states, mut nested) = (0_u64, 0_u64, 0_u64);
    for is_closed in [true, false] {
        let damaged = damaged(is_closed);
        let expected = expected(&damaged);
        let disk = damaged.disk.crash(|_, _| true);
        let before = disk.operation_count();
        let (broker, _) = repair_all(&disk).unwrap();
        let operations = disk.operation_count() - before;
        drop(broker);
        for cut in 1..=operations {
            let disk = damaged.disk.crash(|_, _| true);
            disk.cut_power_after(cut);
            let repaired = repair_all(&disk);
            assert!(cut == operations || repaired.is_err(), "cut after {cut} of {operations}");
            drop(repaired);
            cuts += 1;
            let pending = disk.pending();
            let mut ways: Vec<Vec<bool>> = vec![vec![false; pending], vec![true; pending]];
            for chosen in 0..pending {
                ways.push((0..pending).map(|index| index == chosen).collect());
                ways.push((0..pending).map(|index| index != chosen).collect());
            }
            ways.extend((0..24).map(|_| (0..pending).map(|_| choices.next() >> 63 == 0).collect()));
            let mut seen = HashSet::new();
            for (number, way) in ways.iter().enumerate() {
                let crashed = disk.crash(|index, _| way[index]);
                if !seen.insert(crashed.content_hash()) {
                    continue;
                }
                let context =
                    format!("closed: {is_closed}, cut after {cut} of {operations}, {way:?} survives");
                // The repair that follows is cut off as well.
                if (number as u64 + cut).is_multiple_of(2) {
                    let again = crashed.crash(|_, _| true);
                    again.cut_power_after(1 + choices.next() % operations);
                    drop(repair_all(&again));
                    let again = again.crash(|_, _| choices.next() >> 63 == 0);
                    let checked = check(&again, &damaged, &expected, false);
                    checked.unwrap_or_else(|error| panic!("{context}, and again: {error}"));
                    nested += 1;
                }
                let is_deep = (number as u64 + cut).is_multiple_of(5);
                let checked = check(&crashed, &damaged, &expected, is_deep);
                checked.unwrap_or_else(|error| panic!("{context}: {error}"));
                states += 1;
            }
        }
    }
    println!("{cuts} cuts, {states} states, {nested} of them cut off again, {:?}", started.elapsed());
    assert!(cuts > 100 && states > 900 && nested > 400, "{cuts} cuts, {states} states, {nested} nested");
}

#[test]
fn a_repair_of_everything_that_meets_an_error_can_be_repeated() {
    let (mut faults, mut untouched) = (0_u64, 0_u64);
    let damaged = damaged(true);
    let expected = expected(&damaged);
    for target in [FaultTarget::Changes, FaultTarget::Opens, FaultTarget::Reads] {
        for action in [FaultAction::Errno(5), FaultAction::Errno(28), FaultAction::TornWrite(28)] {
            for is_lasting in [true, false] {
                for nth in 1.. {
                    let disk = damaged.disk.crash(|_, _| true);
                    disk.plan_fault(Fault { target, nth, action, is_lasting });
                    let before = disk.content_hash();
                    let failed = repair_all(&disk).map(drop);
                    disk.clear_faults();
                    let context = format!("{target:?} {nth} {action:?}, lasting: {is_lasting}: {failed:?}");
                    if let Err(error) = &failed {
                        assert!(matches!(error, Error::Io { .. } | Error::DiskFull { .. }), "{context}");
                        untouched += u64::from(disk.content_hash() == before);
                        faults += 1;
                    }
                    // After a directory could not be synced, only a restart makes sure of its names.
                    for survives in [true, false] {
                        let restarted = disk.crash(|_, _| survives);
                        let checked = check(&restarted, &damaged, &expected, nth % 16 == 0);
                        checked.unwrap_or_else(|error| panic!("{context}, {survives}: {error}"));
                    }
                    if failed.is_ok() && nth > 20 {
                        break;
                    }
                }
            }
        }
    }
    println!("{faults} faults, {untouched} of them before anything was changed");
    assert!(faults > 300 && untouched > 0, "{faults} faults");
}
