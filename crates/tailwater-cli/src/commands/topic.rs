//! `topic`: create, list, describe, alter, delete, truncate, delete-records.

use serde::Serialize;
use tailwater::{Embedded, TopicConfig};

use crate::args::{AtOffset, TopicCommand};
use crate::directory::{Directory, Missing, close, embedded, warn_of_recovery};
use crate::exit::{Failure, Result};
use crate::output::{Column, print, print_json, print_table};

pub(crate) fn run(directory: &Directory, json: bool, command: TopicCommand) -> Result<()> {
    match command {
        TopicCommand::Create { name, partitions, settings } => {
            let config = with_settings(TopicConfig::new().partitions(partitions), &settings)?;
            config.check(&name)?;
            let broker = directory.open(Missing::Create)?;
            broker.create_topic(&name, &config)?;
            close(&broker)
        }
        TopicCommand::List => list(directory, json),
        TopicCommand::Describe { name } => describe(directory, json, &name),
        TopicCommand::Alter { name, partitions, settings } => {
            if partitions.is_none() && settings.is_empty() {
                return Err(Failure::usage("nothing to change: give --partitions, --set, or both"));
            }
            let mut config = TopicConfig::new();
            if let Some(partitions) = partitions {
                config = config.partitions(partitions);
            }
            let config = with_settings(config, &settings)?;
            let broker = directory.open(Missing::Fail)?;
            broker.alter_topic(&name, &config)?;
            close(&broker)
        }
        TopicCommand::Delete { name } => {
            let broker = directory.open(Missing::Fail)?;
            broker.delete_topic(&name)?;
            close(&broker)
        }
        TopicCommand::Truncate(at) => {
            on_partition(directory, &at, |embedded| embedded.truncate_to(&at.partition, at.offset))
        }
        TopicCommand::DeleteRecords(at) => {
            on_partition(directory, &at, |embedded| embedded.delete_records_before(&at.partition, at.offset))
        }
    }
}

/// Works on one partition, whose recovery, if there was one, is told.
fn on_partition(
    directory: &Directory,
    at: &AtOffset,
    act: impl FnOnce(&Embedded) -> tailwater::Result<()>,
) -> Result<()> {
    let broker = directory.open(Missing::Fail)?;
    let embedded = embedded(&broker)?;
    warn_of_recovery(&at.partition, &embedded.recovery_report(&at.partition)?);
    act(embedded)?;
    close(&broker)
}

/// Adds settings to a configuration, before anything is opened.
fn with_settings(mut config: TopicConfig, settings: &[(String, String)]) -> Result<TopicConfig> {
    for (key, value) in settings {
        config = config.set(key, value)?;
    }
    Ok(config)
}

#[derive(Serialize)]
struct ListedTopic {
    name: String,
    id: String,
    partitions: u32,
}

fn list(directory: &Directory, json: bool) -> Result<()> {
    let broker = directory.attach()?;
    let mut topics = Vec::new();
    for name in broker.topics()? {
        let described = broker.describe_topic(&name)?;
        let (id, partitions) = (described.id.to_string(), described.partition_count);
        topics.push(ListedTopic { name, id, partitions });
    }
    if json {
        return print_json(&topics);
    }
    let rows = topics.into_iter().map(|topic| vec![topic.name, topic.partitions.to_string(), topic.id]);
    print_table(&[Column::Text("TOPIC"), Column::Number("PARTITIONS"), Column::Text("ID")], rows.collect())
}

#[derive(Serialize)]
struct DescribedTopic {
    name: String,
    id: String,
    partitions: u32,
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    name: &'static str,
    value: String,
    is_default: bool,
}

fn describe(directory: &Directory, json: bool, name: &str) -> Result<()> {
    let broker = directory.attach()?;
    let topic = broker.describe_topic(name)?;
    let given = topic.config.given_pairs();
    let settings = topic.config.to_pairs().into_iter().map(|(name, value)| {
        let is_default = !given.iter().any(|(given, _)| *given == name);
        Setting { name, value, is_default }
    });
    let described = DescribedTopic {
        id: topic.id.to_string(),
        partitions: topic.partition_count,
        settings: settings.collect(),
        name: topic.name,
    };
    if json {
        return print_json(&described);
    }
    print(&format!("topic {}, partitions {}, id {}\n", described.name, described.partitions, described.id))?;
    let rows = described.settings.into_iter().map(|setting| {
        let source = if setting.is_default { "default" } else { "set" };
        vec![setting.name.to_owned(), setting.value, source.to_owned()]
    });
    print_table(&[Column::Text("SETTING"), Column::Number("VALUE"), Column::Text("SOURCE")], rows.collect())
}
