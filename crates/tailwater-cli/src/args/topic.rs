//! The arguments of `topic`.

use clap::{Args, Subcommand};
use tailwater::{Offset, TopicPartition};
use tailwater_cli::pairs::parse_pair;

use super::values::{parse_count, parse_offset};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic, and the directory if it is missing
    #[command(
        after_help = "Example:\n  tailwater topic create orders --partitions 4 --set segment_bytes=67108864"
    )]
    Create {
        /// Name: letters, digits, `.`, `_` and `-`, at most 249
        name: String,
        /// Number of partitions, at most 100,000
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_count::<u32>, allow_negative_numbers = true)]
        partitions: u32,
        /// A setting, as `tailwater topic describe` shows them. Can be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
        settings: Vec<(String, String)>,
    },
    /// List the topics
    #[command(after_help = "Example:\n  tailwater topic list --json")]
    List,
    /// Show the settings of a topic, and which of them are defaults
    #[command(after_help = "Example:\n  tailwater topic describe orders")]
    Describe {
        /// The topic
        name: String,
    },
    /// Change settings of a topic, or add partitions
    ///
    /// With more partitions a key may go to another partition than before.
    #[command(after_help = "Example:\n  tailwater topic alter orders --set durability=written")]
    Alter {
        /// The topic
        name: String,
        /// New number of partitions: as many as there are, or more
        #[arg(long, value_name = "N", value_parser = parse_count::<u32>, allow_negative_numbers = true)]
        partitions: Option<u32>,
        /// A setting, as `tailwater topic describe` shows them. Can be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
        settings: Vec<(String, String)>,
    },
    /// Delete a topic with all its records
    #[command(after_help = "Example:\n  tailwater topic delete orders")]
    Delete {
        /// The topic
        name: String,
    },
    /// Remove the records of a partition from an offset on
    #[command(
        after_help = "Example:\n  tailwater topic truncate orders:0 1000   # keeps the records below 1000"
    )]
    Truncate(AtOffset),
    /// Remove the records of a partition below an offset
    ///
    /// They are out of sight at once. Disk space comes back segment by segment.
    #[command(
        after_help = "Example:\n  tailwater topic delete-records orders:0 1000   # keeps 1000 and what follows"
    )]
    DeleteRecords(AtOffset),
}

#[derive(Debug, Args)]
pub(crate) struct AtOffset {
    /// The partition
    #[arg(value_name = "TOPIC:PARTITION")]
    pub(crate) partition: TopicPartition,
    /// The offset
    #[arg(value_parser = parse_offset, allow_negative_numbers = true)]
    pub(crate) offset: Offset,
}
