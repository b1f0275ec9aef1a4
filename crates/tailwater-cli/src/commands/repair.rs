//! `repair`: sets aside what is damaged, so that the rest can be written to again.

use serde::Serialize;
use tailwater::{PartitionId, RepairReport, TopicPartition};

use super::verify::{Damage, places};
use crate::args::RepairArgs;
use crate::directory::{Directory, GROUPS_TOPIC, Missing, close, embedded};
use crate::exit::{Failure, Result, complain_of, warn};
use crate::output::{Column, print_json, print_table};

#[derive(Serialize)]
struct RepairedPartition {
    topic: String,
    partition: u32,
    damage: Vec<Damage>,
    lost: Vec<Lost>,
    quarantined: Vec<String>,
}

#[derive(Serialize)]
struct Lost {
    first_offset: u64,
    next_offset: u64,
}

pub(crate) fn run(directory: &Directory, json: bool, args: &RepairArgs) -> Result<()> {
    if !args.yes {
        return Err(Failure::usage(
            "a repair gives up records that cannot be read any more: see what `verify` says, restore them from a backup \
             if there is one, and then say --yes",
        ));
    }
    let broker = directory.open(Missing::Fail)?;
    let embedded = embedded(&broker)?;
    let mut places = places(&broker, args.topic.as_deref())?;
    if args.topic.is_none() {
        places.push(TopicPartition::new(GROUPS_TOPIC, PartitionId::ZERO));
    }
    let (mut repaired, mut failure) = (Vec::new(), None);
    for place in &places {
        match embedded.repair(place) {
            Ok(report) => repaired.push(told(place, &report)),
            Err(error) => {
                let error = Failure::from(error).map_text(|text| format!("{place} was not repaired: {text}"));
                if failure.is_none() {
                    failure = Some(error);
                } else if let Failure::Message { text, .. } = error {
                    complain_of(text);
                }
            }
        }
    }
    let shown = if json { print_json(&repaired) } else { print_repaired(repaired) };
    match failure {
        Some(failure) => Err(failure),
        None => shown.and_then(|()| close(&broker)),
    }
}

/// What was done to a partition; says the most important of it.
fn told(place: &TopicPartition, report: &RepairReport) -> RepairedPartition {
    for range in &report.lost {
        warn(format_args!("{place}: the records at offsets {range} are lost"));
    }
    for path in &report.quarantined {
        warn(format_args!("{place}: what was damaged is kept in {}", path.display()));
    }
    RepairedPartition {
        topic: place.topic.to_string(),
        partition: place.partition.get(),
        damage: report.damage.iter().map(Damage::from).collect(),
        lost: report
            .lost
            .iter()
            .map(|range| Lost { first_offset: range.start.get(), next_offset: range.end.get() })
            .collect(),
        quarantined: report.quarantined.iter().map(|path| path.display().to_string()).collect(),
    }
}

fn print_repaired(repaired: Vec<RepairedPartition>) -> Result<()> {
    let rows = repaired.into_iter().map(|partition| {
        let lost = partition.lost.iter().map(|range| range.next_offset - range.first_offset).sum::<u64>();
        vec![
            partition.topic,
            partition.partition.to_string(),
            partition.damage.len().to_string(),
            lost.to_string(),
            partition.quarantined.len().to_string(),
        ]
    });
    print_table(
        &[
            Column::Text("TOPIC"),
            Column::Number("PARTITION"),
            Column::Number("DAMAGED"),
            Column::Number("LOST_RECORDS"),
            Column::Number("QUARANTINED_FILES"),
        ],
        rows.collect(),
    )
}
