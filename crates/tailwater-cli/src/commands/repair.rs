//! `repair`: sets aside what is damaged, so that the rest can be written to again.

use serde::Serialize;
use tailwater::{CatalogDamage, CatalogRepair, PartitionId, RepairReport, TopicPartition};

use super::verify::{Damage, places};
use crate::args::RepairArgs;
use crate::directory::{Directory, GROUPS_TOPIC, Missing, close, embedded};
use crate::exit::{Failure, Result, complain_of, warn};
use crate::output::{Column, print_json, print_table};

/// What `--json` lists: the catalog, if it was rebuilt, and then the partitions.
#[derive(Serialize)]
#[serde(untagged)]
enum Repaired {
    Catalog { catalog: RebuiltCatalog },
    Partition(RepairedPartition),
}

#[derive(Serialize)]
struct RebuiltCatalog {
    damage: String,
    topics: Vec<RebuiltTopic>,
    left_out: Vec<LeftOut>,
    quarantined: Vec<String>,
}

#[derive(Serialize)]
struct RebuiltTopic {
    topic: String,
    id: String,
    partitions: u32,
    missing: Vec<u32>,
    unreadable: Vec<u32>,
    is_being_deleted: bool,
}

#[derive(Serialize)]
struct LeftOut {
    name: String,
    reason: String,
}

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
    let rebuilt = directory.repair_catalog()?;
    let rebuilt = rebuilt.damage.map(|damage| told_of_catalog(directory, damage, &rebuilt));
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
    let shown = if json {
        let catalog = rebuilt.into_iter().map(|catalog| Repaired::Catalog { catalog });
        print_json(&catalog.chain(repaired.into_iter().map(Repaired::Partition)).collect::<Vec<_>>())
    } else {
        print_repaired(repaired)
    };
    match failure {
        Some(failure) => Err(failure),
        None => shown.and_then(|()| close(&broker)),
    }
}

/// What a catalog was rebuilt to; says it.
fn told_of_catalog(directory: &Directory, damage: CatalogDamage, report: &CatalogRepair) -> RebuiltCatalog {
    let file = directory.path.join("catalog");
    warn(format_args!("the catalog {} was rebuilt: {damage}", file.display()));
    for path in &report.quarantined {
        warn(format_args!("what was there is kept in {}", path.display()));
    }
    let numbers = |partitions: &[PartitionId]| partitions.iter().map(|number| number.get()).collect();
    let mut topics = Vec::new();
    for topic in &report.topics {
        if topic.is_being_deleted {
            warn(format_args!("{}: its deletion was interrupted, and is finished now", topic.name));
        } else if topic.name != GROUPS_TOPIC {
            warn(format_args!(
                "{}: found with {} {}; its settings are lost, and are the defaults now: set them with \
                 `tailwater topic alter`",
                topic.name,
                topic.partition_count,
                if topic.partition_count == 1 { "partition" } else { "partitions" }
            ));
        }
        for number in &topic.missing {
            warn(format_args!("{}-{number}: there is no such directory", topic.name));
        }
        for number in &topic.unreadable {
            warn(format_args!("{}-{number}: nothing in it can be read", topic.name));
        }
        topics.push(RebuiltTopic {
            topic: topic.name.clone(),
            id: topic.id.to_string(),
            partitions: topic.partition_count,
            missing: numbers(&topic.missing),
            unreadable: numbers(&topic.unreadable),
            is_being_deleted: topic.is_being_deleted,
        });
    }
    let mut left_out = Vec::new();
    for left in &report.left_out {
        let path = directory.path.join(&left.name);
        warn(format_args!("{} is not in the catalog: {}", path.display(), left.reason));
        left_out.push(LeftOut { name: left.name.display().to_string(), reason: left.reason.to_string() });
    }
    let quarantined = report.quarantined.iter().map(|path| path.display().to_string()).collect();
    RebuiltCatalog { damage: damage.to_string(), topics, left_out, quarantined }
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
