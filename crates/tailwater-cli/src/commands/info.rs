//! `info`: what is in the directory, and who writes to it.

use std::sync::Arc;

use indicatif::HumanBytes;
use serde::Serialize;
use tailwater::storage::{DirectoryLock, Disk, Storage};
use tailwater::{Embedded, TopicPartition};
use tailwater_log::format::VERSION;

use crate::directory::{Directory, embedded, partitions_of};
use crate::exit::{Failure, Result, warn};
use crate::output::{Column, print, print_json, print_table};

#[derive(Serialize)]
struct DirectoryInfo {
    directory: String,
    format_version: u16,
    /// Who writes to the directory now, if anybody does.
    holder: Option<String>,
    partitions: Vec<PartitionInfo>,
}

#[derive(Serialize)]
struct PartitionInfo {
    topic: String,
    partition: u32,
    #[serde(flatten)]
    state: PartitionState,
}

/// Either the figures, or why there are none.
#[derive(Serialize)]
#[serde(untagged)]
enum PartitionState {
    Figures {
        log_start_offset: u64,
        log_end_offset: u64,
        durable_offset: u64,
        /// Whether it was closed in order; false while it is in use.
        is_clean: bool,
        epoch: u32,
        segments: u64,
        size_bytes: u64,
    },
    Error {
        error: String,
    },
}

pub(crate) fn run(directory: &Directory, json: bool) -> Result<()> {
    let broker = directory.attach()?;
    let embedded = embedded(&broker)?;
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    // A directory that cannot be written to has no writer of its own.
    let holder = DirectoryLock::holder(&storage, &directory.path).unwrap_or_default();
    let mut partitions = Vec::new();
    let mut failure = None;
    let mut failures = 0;
    for name in broker.topics()? {
        for place in partitions_of(&broker, &name)? {
            let state = match figures(directory, embedded, &place) {
                Ok(figures) => figures,
                Err(error) => {
                    let text = error.to_string();
                    warn(format_args!("{place}: {text}"));
                    failure.get_or_insert(error);
                    failures += 1;
                    PartitionState::Error { error: text }
                }
            };
            partitions.push(PartitionInfo { topic: name.clone(), partition: place.partition.get(), state });
        }
    }
    let partition_count = partitions.len();
    let info = DirectoryInfo {
        directory: directory.path.display().to_string(),
        format_version: VERSION,
        holder,
        partitions,
    };
    let shown = if json { print_json(&info) } else { print_info(info) };
    failure.map_or(shown, |error| {
        let text = format!("{failures} of {partition_count} partitions cannot be shown");
        Err(Failure::from(error).map_text(|_| text))
    })
}

fn figures(
    directory: &Directory,
    embedded: &Embedded,
    place: &TopicPartition,
) -> tailwater::Result<PartitionState> {
    let stats = embedded.stats(place)?;
    Ok(PartitionState::Figures {
        log_start_offset: stats.log_start_offset.get(),
        log_end_offset: stats.log_end_offset.get(),
        durable_offset: stats.durable_offset.get(),
        is_clean: directory.is_clean(&place.to_string()),
        epoch: stats.epoch.get(),
        segments: stats.segment_count,
        size_bytes: stats.size_bytes,
    })
}

fn print_info(info: DirectoryInfo) -> Result<()> {
    print(&format!("directory:       {}", info.directory))?;
    print(&format!("format version:  {}", info.format_version))?;
    print(&match info.holder.as_deref() {
        None => "in use by:       nobody\n".to_owned(),
        Some("") => "in use by:       an unnamed process\n".to_owned(),
        Some(holder) => format!("in use by:       {holder}\n"),
    })?;
    let rows = info.partitions.into_iter().map(|partition| {
        let mut row = vec![partition.topic, partition.partition.to_string()];
        match partition.state {
            PartitionState::Figures {
                log_start_offset,
                log_end_offset,
                durable_offset,
                is_clean,
                epoch,
                segments,
                size_bytes,
            } => row.extend([
                log_start_offset.to_string(),
                log_end_offset.to_string(),
                durable_offset.to_string(),
                if is_clean { "yes" } else { "no" }.to_owned(),
                epoch.to_string(),
                segments.to_string(),
                HumanBytes(size_bytes).to_string(),
            ]),
            PartitionState::Error { .. } => row.extend(std::iter::repeat_n("?".to_owned(), 7)),
        }
        row
    });
    print_table(
        &[
            Column::Text("TOPIC"),
            Column::Number("PARTITION"),
            Column::Number("START"),
            Column::Number("END"),
            Column::Number("DURABLE"),
            Column::Text("CLEAN"),
            Column::Number("EPOCH"),
            Column::Number("SEGMENTS"),
            Column::Number("SIZE"),
        ],
        rows.collect(),
    )
}
