//! `offsets`: where partitions begin and end.

use serde::Serialize;
use tailwater::{Clock, SystemClock};

use crate::args::OffsetsArgs;
use crate::directory::{Directory, embedded, partitions_of};
use crate::exit::Result;
use crate::output::{Column, print_json, print_table};

#[derive(Serialize)]
struct PartitionOffsets {
    partition: u32,
    log_start_offset: u64,
    log_end_offset: u64,
    /// Only with `--at`; null if nothing was appended then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_at: Option<Option<u64>>,
}

pub(crate) fn run(directory: &Directory, json: bool, args: &OffsetsArgs) -> Result<()> {
    let broker = directory.attach()?;
    let embedded = embedded(&broker)?;
    let time = args.at.map(|when| when.to_timestamp(SystemClock.now()));
    let mut partitions = Vec::new();
    for place in partitions_of(&broker, &args.topic)? {
        let offset_at = match time {
            Some(time) => Some(embedded.offset_for_time(&place, time)?.map(tailwater::Offset::get)),
            None => None,
        };
        let stats = embedded.stats(&place)?;
        partitions.push(PartitionOffsets {
            partition: place.partition.get(),
            log_start_offset: stats.log_start_offset.get(),
            log_end_offset: stats.log_end_offset.get(),
            offset_at,
        });
    }
    if json {
        return print_json(&partitions);
    }
    let mut columns = vec![Column::Number("PARTITION"), Column::Number("START"), Column::Number("END")];
    if time.is_some() {
        columns.push(Column::Number("AT"));
    }
    let rows = partitions.into_iter().map(|partition| {
        let mut row = vec![
            partition.partition.to_string(),
            partition.log_start_offset.to_string(),
            partition.log_end_offset.to_string(),
        ];
        row.extend(partition.offset_at.map(|at| at.map_or("-".to_owned(), |at| at.to_string())));
        row
    });
    print_table(&columns, rows.collect())
}
