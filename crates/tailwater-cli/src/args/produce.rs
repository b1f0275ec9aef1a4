//! The arguments of `produce`.

use std::path::PathBuf;

use std::time::Duration;

use clap::{Args, ValueEnum};
use tailwater::{Durability, PartitionId};
use tailwater_cli::pairs::parse_pair;
use tailwater_cli::time::parse_duration;

use super::values::{Separator, parse_partition, parse_separator};

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DurabilityName {
    /// In memory: lost when the process dies
    Buffered,
    /// Handed to the kernel: survives the process
    Written,
    /// Synced to the disk: survives power loss
    Durable,
}

impl From<DurabilityName> for Durability {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Buffered => Durability::Buffered,
            DurabilityName::Written => Durability::Written,
            DurabilityName::Durable => Durability::Durable,
        }
    }
}

/// Append records from standard input, one a line, as they arrive
///
/// An empty line is an empty record, `\r` is kept, and a last line without an end is a record. A topic that is missing is
/// created with one partition. If it fails, standard error says how many records were acknowledged.
#[derive(Debug, Args)]
#[command(after_help = "In separators `\\n`, `\\t`, `\\r`, `\\\\` and `\\xNN` stand for that byte.\n\
                  A JSON record has `value` (text, or null for a tombstone), and may have `key`, `headers`\n\
                  ([{\"key\": \"trace\", \"value\": \"7f3a\"}]), `partition` and `timestamp` (milliseconds, or RFC 3339).\n\
                  `key_base64` and `value_base64` take bytes that are not text. `topic`, `offset` and `appended` are\n\
                  ignored, so that the output of `tailwater consume --json` can be read.\n\n\
                  Examples:\n  \
                  journalctl -f | tailwater produce syslog --durability written\n  \
                  printf 'table 4:two espressos\\n' | tailwater produce orders --key-separator : --acks\n  \
                  find . -type f -print0 | tailwater produce files -0")]
pub(crate) struct ProduceArgs {
    /// The topic
    pub(crate) topic: String,
    /// What an acknowledgement means [default: what the topic says, durable unless set otherwise]
    #[arg(long, value_enum, value_name = "LEVEL", hide_possible_values = false)]
    pub(crate) durability: Option<DurabilityName>,
    #[arg(long, help = "Print PARTITION<TAB>OFFSET for each record as it is acknowledged, in order")]
    pub(crate) acks: bool,
    /// Send to this partition, instead of by key or in turn
    #[arg(long, value_name = "N", value_parser = parse_partition, allow_negative_numbers = true)]
    pub(crate) partition: Option<PartitionId>,
    /// Give every record this key
    #[arg(long, conflicts_with_all = ["key_separator", "json"], allow_hyphen_values = true)]
    pub(crate) key: Option<String>,
    /// What precedes the first S in a line is the record's key
    #[arg(long, value_name = "S", value_parser = parse_separator, conflicts_with = "json", allow_hyphen_values = true)]
    pub(crate) key_separator: Option<Separator>,
    /// Give every record this header. Can be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_pair, conflicts_with = "json", allow_hyphen_values = true)]
    pub(crate) headers: Vec<(String, String)>,
    /// Let every record expire so long after it is appended, such as 10m: consumers pass over it then
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// What ends a record [default: a line end]
    #[arg(long, value_name = "S", value_parser = parse_separator, allow_hyphen_values = true)]
    pub(crate) delimiter: Option<Separator>,
    /// A zero byte ends a record
    #[arg(short = '0', conflicts_with = "delimiter")]
    pub(crate) zero: bool,
    /// A value that is exactly S makes a tombstone: the record needs a key then
    #[arg(long, value_name = "S", conflicts_with = "json", allow_hyphen_values = true)]
    pub(crate) null_value: Option<String>,
    /// Read JSON records, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this file instead of standard input
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Fail if the topic is missing
    #[arg(long)]
    pub(crate) no_create: bool,
}
