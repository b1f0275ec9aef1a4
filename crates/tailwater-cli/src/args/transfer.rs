//! The arguments of `export` and `import`.

use std::path::PathBuf;

use clap::Args;
use tailwater::PartitionId;
use tailwater_cli::time::{Position, parse_position};

use super::values::{parse_count, parse_partition};

/// Write the records of a topic as JSON, one object a line, as `import` reads them
///
/// Takes no lock, and ends with the last record that was there when it began. Records of a partition are in order. Those
/// whose time to live is over are written too.
#[derive(Debug, Args)]
#[command(
    after_help = "A position is `earliest`, `latest`, an offset such as 17, -10 for the last ten of each partition, a \
                  time such as 2026-11-22T18:30:00Z, or 2h for two hours ago.\n\n\
                  An object has `topic`, `partition`, `offset`, `timestamp` (when the record was made, in milliseconds), \
                  `appended` (when it was appended), `key`, `value` and `headers`, a list in order. No key, and the value of \
                  a tombstone, are null. What is not UTF-8 is in `key_base64` and `value_base64` instead.\n\n\
                  Examples:\n  \
                  tailwater export orders --output orders.jsonl\n  \
                  tailwater export orders --from 24h | zstd > orders.jsonl.zst"
)]
pub(crate) struct ExportArgs {
    /// The topic
    pub(crate) topic: String,
    /// Export this partition, instead of all. Can be repeated
    #[arg(long = "partition", value_name = "N", value_parser = parse_partition, allow_negative_numbers = true)]
    pub(crate) partitions: Vec<PartitionId>,
    /// Where to begin [default: earliest]
    #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
    pub(crate) from: Option<Position>,
    /// Where to end: that record is not exported any more [default: the end]
    #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
    pub(crate) until: Option<Position>,
    /// Write to this file instead of standard output. It appears, or is replaced, when all of it is on disk
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Append the records that `export` has written, one JSON object a line
///
/// Says at the end how many records are durable. It stops at the first line that is no record, or cannot be appended, and
/// says which that is, and how many records are durable: all before it. Offsets and append times are new, and with them a
/// time to live begins anew; everything else stays as it was.
#[derive(Debug, Args)]
#[command(
    after_help = "An object needs no more than `value`; `tailwater produce --help` says what else it may have.\n\n\
                  Examples:\n  \
                  tailwater import orders --file orders.jsonl --create --partitions 4 --keep-partitions\n  \
                  zstdcat orders.jsonl.zst | tailwater import orders --create"
)]
pub(crate) struct ImportArgs {
    /// The topic
    pub(crate) topic: String,
    /// Read this file instead of standard input
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Create the directory and the topic if they are missing
    #[arg(long)]
    pub(crate) create: bool,
    /// How many partitions a topic that is created has [default: 1]
    #[arg(long, value_name = "N", value_parser = parse_count::<u32>, requires = "create", allow_negative_numbers = true)]
    pub(crate) partitions: Option<u32>,
    /// Append each record to the partition that it says, instead of by key or in turn
    #[arg(long)]
    pub(crate) keep_partitions: bool,
}
