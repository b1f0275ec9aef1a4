//! `groups`: list, describe, create, reset, delete.

use serde::Serialize;
use tailwater::{Broker, GroupReset};
use tailwater_cli::time::{Position, show_time};

use crate::args::{GroupsCommand, TopicOrPartition};
use crate::directory::{Directory, Missing, close, partitions_of};
use crate::exit::Result;
use crate::output::{Column, print_json, print_table};

pub(crate) fn run(directory: &Directory, json: bool, command: GroupsCommand) -> Result<()> {
    match command {
        GroupsCommand::List => list(directory, json),
        GroupsCommand::Describe { group } => describe(directory, json, &group),
        GroupsCommand::Create { group, topic, at } => {
            let broker = directory.open(Missing::Fail)?;
            broker.create_group(&group, &[topic.as_str()], at.to_reset())?;
            close(&broker)
        }
        GroupsCommand::Reset { group, topics, to, dry_run } => {
            let broker = if dry_run { directory.read_now()? } else { directory.open(Missing::Fail)? };
            let resets = reset(&broker, &group, &topics, to, dry_run)?;
            close(&broker)?;
            print_resets(json, resets)
        }
        GroupsCommand::Delete { group } => {
            let broker = directory.open(Missing::Fail)?;
            broker.delete_group(&group)?;
            close(&broker)
        }
    }
}

#[derive(Serialize)]
struct ListedGroup {
    group: String,
    partitions: u64,
}

fn list(directory: &Directory, json: bool) -> Result<()> {
    let broker = directory.read_now()?;
    let listed = broker.groups()?;
    close(&broker)?;
    let groups: Vec<_> = listed
        .into_iter()
        .map(|listed| ListedGroup { group: listed.id, partitions: listed.position_count })
        .collect();
    if json {
        return print_json(&groups);
    }
    let rows = groups.into_iter().map(|group| vec![group.group, group.partitions.to_string()]);
    print_table(&[Column::Text("GROUP"), Column::Number("PARTITIONS")], rows.collect())
}

#[derive(Serialize)]
struct DescribedPosition {
    topic: String,
    partition: u32,
    committed_offset: u64,
    epoch: u32,
    log_start_offset: u64,
    log_end_offset: u64,
    lag: u64,
    /// Milliseconds since 1970.
    committed: i64,
    metadata: String,
}

fn describe(directory: &Directory, json: bool, group: &str) -> Result<()> {
    let broker = directory.read_now()?;
    let described = broker.describe_group(group)?;
    close(&broker)?;
    let positions: Vec<_> = described
        .positions
        .into_iter()
        .map(|position| DescribedPosition {
            topic: position.partition.topic.to_string(),
            partition: position.partition.partition.get(),
            committed_offset: position.committed.offset.get(),
            epoch: position.committed.epoch.get(),
            log_start_offset: position.log_start_offset.get(),
            log_end_offset: position.lag.end.get(),
            lag: position.lag.records,
            committed: position.committed_at.as_millis(),
            metadata: position.metadata.to_string(),
        })
        .collect();
    if json {
        return print_json(&positions);
    }
    let rows = positions.into_iter().map(|position| {
        vec![
            position.topic,
            position.partition.to_string(),
            position.committed_offset.to_string(),
            position.log_end_offset.to_string(),
            position.lag.to_string(),
            show_time(tailwater::Timestamp::from_millis(position.committed)),
            position.metadata,
        ]
    });
    print_table(
        &[
            Column::Text("TOPIC"),
            Column::Number("PARTITION"),
            Column::Number("COMMITTED"),
            Column::Number("END"),
            Column::Number("LAG"),
            Column::Text("COMMITTED_AT"),
            Column::Text("METADATA"),
        ],
        rows.collect(),
    )
}

fn reset(
    broker: &Broker,
    group: &str,
    topics: &[TopicOrPartition],
    to: Position,
    is_dry_run: bool,
) -> Result<Vec<GroupReset>> {
    let mut places = Vec::new();
    for topic in topics {
        match topic {
            TopicOrPartition::Partition(place) => places.push(place.clone()),
            TopicOrPartition::Topic(name) => places.extend(partitions_of(broker, name)?),
        }
    }
    let to = to.to_seek();
    let resets = if is_dry_run {
        broker.preview_group_reset(group, &places, to)
    } else {
        broker.reset_group(group, &places, to)
    };
    Ok(resets?)
}

#[derive(Serialize)]
struct ShownReset {
    topic: String,
    partition: u32,
    /// Null if the group has not been there.
    from_offset: Option<u64>,
    to_offset: u64,
}

fn print_resets(json: bool, resets: Vec<GroupReset>) -> Result<()> {
    let resets: Vec<_> = resets
        .into_iter()
        .map(|reset| ShownReset {
            topic: reset.partition.topic.to_string(),
            partition: reset.partition.partition.get(),
            from_offset: reset.from.map(|from| from.offset.get()),
            to_offset: reset.to.offset.get(),
        })
        .collect();
    if json {
        return print_json(&resets);
    }
    let rows = resets.into_iter().map(|reset| {
        vec![
            reset.topic,
            reset.partition.to_string(),
            reset.from_offset.map_or("-".to_owned(), |from| from.to_string()),
            reset.to_offset.to_string(),
        ]
    });
    print_table(
        &[Column::Text("TOPIC"), Column::Number("PARTITION"), Column::Number("FROM"), Column::Number("TO")],
        rows.collect(),
    )
}
