//! `verify`: reads and checks every byte, changing nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;
use serde::Serialize;
use tailwater::storage::{Disk, Storage};
use tailwater::{
    Broker, Corruption, CorruptionKind, Embedded, Error, Offset, OffsetRange, PartitionId, TopicPartition,
    VerifyReport,
};
use tailwater_log::{FilePosition, Log, LogOptions, SegmentInspection};

use crate::args::VerifyArgs;
use crate::directory::{Directory, GROUPS_DIRECTORY, GROUPS_TOPIC, embedded, partitions_of};
use crate::exit::{Failure, Result, complain_of, warn};
use crate::output::{Column, print_json, print_table, progress};

#[derive(Serialize)]
struct VerifiedPartition {
    topic: String,
    partition: u32,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    damage: Vec<Damage>,
    torn_tail_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Damage {
    file: String,
    position_bytes: u64,
    first_offset: u64,
    next_offset: u64,
    what: String,
}

impl From<&Corruption> for Damage {
    fn from(found: &Corruption) -> Self {
        Self {
            file: found.file.display().to_string(),
            position_bytes: found.position_bytes.get(),
            first_offset: found.offsets.start.get(),
            next_offset: found.offsets.end.get(),
            what: found.kind.to_string(),
        }
    }
}

pub(crate) fn run(directory: &Directory, json: bool, args: &VerifyArgs) -> Result<()> {
    let changed = if args.topic.is_none() { check_backup(directory)? } else { 0 };
    let broker = directory.attach()?;
    let embedded = embedded(&broker)?;
    let places = places(&broker, args.topic.as_deref())?;
    let bar = progress(size_bytes(embedded, &places));
    let mut verified = Vec::new();
    let mut failure = None;
    for place in &places {
        let report = verify(embedded, place, &bar);
        note(place, report, &bar, &mut verified, &mut failure);
    }
    if args.topic.is_none() {
        let place = TopicPartition::new(GROUPS_TOPIC, PartitionId::ZERO);
        note(&place, verify_groups(&directory.path), &bar, &mut verified, &mut failure);
    }
    bar.finish_and_clear();
    let damage: usize = verified.iter().map(|partition| partition.damage.len()).sum();
    let shown = if json { print_json(&verified) } else { print_verified(verified) };
    match failure {
        // What was found is told by the code, also where nobody reads the table.
        Some(failure) => Err(failure),
        None if damage > 0 => Err(Failure::corrupt(format!(
            "{damage} damaged {}: what lies around can be read; restore the rest from a backup, or give it up with `repair`",
            if damage == 1 { "place" } else { "places" }
        ))),
        None if changed > 0 => Err(Failure::corrupt(format!(
            "{changed} {} not as when the backup was made: use another backup",
            if changed == 1 { "file is" } else { "files are" }
        ))),
        None => shown,
    }
}

/// Compares the files of a backup with its manifest, and says which are not as they were. Returns how many.
fn check_backup(directory: &Directory) -> Result<usize> {
    let bar = progress(0);
    let checked = Broker::check_backup(&directory.path, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let Some(check) = checked? else { return Ok(0) };
    check.problems.iter().for_each(complain_of);
    Ok(check.problems.len())
}

/// The partitions of a topic, or of all.
pub(super) fn places(broker: &Broker, topic: Option<&str>) -> Result<Vec<TopicPartition>> {
    let names = match topic {
        Some(topic) => vec![topic.to_owned()],
        None => broker.topics()?,
    };
    let mut places = Vec::new();
    for name in names {
        places.extend(partitions_of(broker, &name)?);
    }
    Ok(places)
}

/// What the bar counts up to. Space that was reserved counts too, so the bar may end early.
fn size_bytes(embedded: &Embedded, places: &[TopicPartition]) -> u64 {
    places.iter().filter_map(|place| embedded.stats(place).ok()).map(|stats| stats.size_bytes).sum()
}

fn verify(embedded: &Embedded, place: &TopicPartition, bar: &ProgressBar) -> tailwater::Result<VerifyReport> {
    let mut report = embedded.verify(place, &mut |bytes| bar.inc(bytes))?;
    // What keeps the partition from taking appends may lie behind the end that was verified.
    if let Some(tailwater_log::Error::Corrupt(found)) = embedded.recovery_report(place)?.corruption
        && report.damage.is_empty()
    {
        report.damage.push(*found);
    }
    Ok(report)
}

/// Notes what a verification found, and says it. An error of the disk ends the command, once the rest was looked at.
fn note(
    place: &TopicPartition,
    report: tailwater::Result<VerifyReport>,
    bar: &ProgressBar,
    verified: &mut Vec<VerifiedPartition>,
    failure: &mut Option<Failure>,
) {
    let (report, damage) = match report {
        Ok(report) => {
            let damage = report.damage.clone();
            (report, damage)
        }
        // So damaged that it cannot even be attached to.
        Err(Error::Corrupt(found)) => (VerifyReport::default(), vec![*found]),
        Err(error) => {
            let error = Failure::from(error).map_text(|text| format!("{place} was not verified: {text}"));
            if failure.is_none() {
                *failure = Some(error);
            } else if let Failure::Message { text, .. } = error {
                bar.suspend(|| complain_of(text));
            }
            return;
        }
    };
    bar.suspend(|| {
        damage.iter().for_each(complain_of);
        if report.unread_batches > 0 {
            warn(format_args!(
                "{place}: only the checksums of {} batches could be checked: this build cannot decompress or decrypt them",
                report.unread_batches
            ));
        }
        if let Some(tail) = &report.torn_tail {
            warn(format_args!(
                "{}: {} bytes from position {} on are not known to be durable, and were not checked",
                tail.file.display(),
                tail.size_bytes,
                tail.position
            ));
        }
    });
    verified.push(VerifiedPartition {
        topic: place.topic.to_string(),
        partition: place.partition.get(),
        segments: report.segments,
        batches: report.batches,
        records: report.records,
        bytes: report.bytes,
        damage: damage.iter().map(Damage::from).collect(),
        torn_tail_bytes: report.torn_tail.map_or(0, |tail| tail.size_bytes),
    });
}

/// Verifies the log of the consumer groups. Its id is in each of its segments.
fn verify_groups(data: &Path) -> tailwater::Result<VerifyReport> {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let directory = data.join(GROUPS_DIRECTORY);
    let mut unreadable = None;
    for entry in storage.list_directory(&directory)? {
        if Path::new(&entry.name).extension() != Some(OsStr::new("log")) {
            continue;
        }
        match SegmentInspection::open(&storage, &directory.join(&entry.name)) {
            Ok(segment) => {
                let options = LogOptions::new(segment.header().identity);
                let log = Log::attach_read_only(storage, &directory, options)?;
                return Ok(log.verify(&mut |_| {})?);
            }
            Err(error) => unreadable = Some(error),
        }
    }
    let missing = || {
        let offsets = OffsetRange { start: Offset::ZERO, end: Offset::ZERO };
        let kind = CorruptionKind::MissingSegment;
        Error::Corrupt(Box::new(Corruption {
            file: directory,
            position_bytes: FilePosition::ZERO,
            offsets,
            kind,
        }))
    };
    Err(unreadable.map_or_else(missing, Error::from))
}

fn print_verified(verified: Vec<VerifiedPartition>) -> Result<()> {
    let rows = verified.into_iter().map(|partition| {
        let numbers = [
            u64::from(partition.partition),
            partition.segments,
            partition.batches,
            partition.records,
            partition.bytes,
            partition.damage.len() as u64,
            partition.torn_tail_bytes,
        ];
        let numbers = numbers.into_iter().map(|number| number.to_string());
        std::iter::once(partition.topic).chain(numbers).collect()
    });
    print_table(
        &[
            Column::Text("TOPIC"),
            Column::Number("PARTITION"),
            Column::Number("SEGMENTS"),
            Column::Number("BATCHES"),
            Column::Number("RECORDS"),
            Column::Number("BYTES"),
            Column::Number("DAMAGED"),
            Column::Number("TORN_TAIL_BYTES"),
        ],
        rows.collect(),
    )
}
