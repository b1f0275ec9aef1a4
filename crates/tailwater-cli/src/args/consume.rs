//! The arguments of `consume`.

use std::time::Duration;

use clap::Args;
use tailwater::PartitionId;
use tailwater_cli::format::Format;
use tailwater_cli::time::{Position, parse_duration, parse_position};

use super::values::{parse_count, parse_partition};

/// Print the records of topics, and go on from where a group stopped
///
/// Ends with the last record that was there when it began, unless told to follow. Without a group it takes no lock, and
/// reads while another process writes. With one it starts behind what the group has committed, and commits what it has
/// printed once standard output has taken it; records that were printed and not committed are printed again next time.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "A position is `earliest`, `latest`, an offset such as 17, -10 for the last ten of each partition, a \
                  time such as 2026-11-22T18:30:00Z, or 2h for two hours ago.\n\n\
                  In a format `%t` is the topic, `%p` the partition, `%o` the offset, `%k` the key, `%K` its length, \
                  `%s` the value, `%S` its length, `%T` the create time in milliseconds, `%h` the headers and `%%` a \
                  percent sign; a length is -1 where there is nothing. `\\n`, `\\t`, `\\r`, `\\\\` and `\\xNN` stand \
                  for that byte.\n\n\
                  Examples:\n  \
                  tailwater consume orders --from -10\n  \
                  tailwater consume orders --group billing --follow --format '%p/%o %k: %s\\n'\n  \
                  tailwater consume orders --json | tailwater --data ./copy produce orders --json"
)]
pub(crate) struct ConsumeArgs {
    /// The topics
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Go on behind what this group has committed, and commit what was printed. Its members share partitions within one
    /// process only: a second command for the same data is refused meanwhile
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Where to begin; with --group, where the group has not been yet [default: earliest]
    #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
    pub(crate) from: Option<Position>,
    /// Where to end: that record is not printed any more [default: the end, or never with --follow]
    #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
    pub(crate) until: Option<Position>,
    /// Read this partition of each topic, instead of all. Can be repeated
    #[arg(long = "partition", value_name = "N", value_parser = parse_partition, allow_negative_numbers = true)]
    pub(crate) partitions: Vec<PartitionId>,
    /// Wait for more records at the end; SIGINT or SIGTERM ends it
    #[arg(long)]
    pub(crate) follow: bool,
    /// End after N records
    #[arg(long, value_name = "N", value_parser = parse_count::<u64>, allow_negative_numbers = true)]
    pub(crate) max: Option<u64>,
    /// End after this time; with --max, wait so long for N records, and exit with 5 if there are fewer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print records whose time to live is over too, as long as they are there
    #[arg(long)]
    pub(crate) expired: bool,
    /// Commit nothing: the group stays where it is, and needs no lock
    #[arg(long, requires = "group")]
    pub(crate) no_commit: bool,
    /// How to print a record [default: %s\n]
    #[arg(long, value_name = "F", allow_hyphen_values = true)]
    pub(crate) format: Option<Format>,
    /// Print JSON records, one a line, as `tailwater produce --json` reads them
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// End each record with a zero byte instead of a line end
    #[arg(short = '0', conflicts_with = "format")]
    pub(crate) zero: bool,
}
