//! The arguments of `groups`.

use std::str::FromStr;

use clap::Subcommand;
use tailwater::{ParseTopicPartitionError, TopicPartition};
use tailwater_cli::time::{Position, parse_position};

const POSITIONS: &str = "A position is `earliest`, `latest`, an offset such as 17, -10 for the last ten of each partition, a time such as \
     2026-11-22T18:30:00Z, or 2h for two hours ago.";

#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// List the groups that have committed something
    #[command(after_help = "Example:\n  tailwater groups list --json")]
    List,
    /// Show where a group is in each partition, and how far behind
    #[command(after_help = "Example:\n  tailwater groups describe billing")]
    Describe {
        /// The group
        group: String,
    },
    /// Have a new group begin somewhere in a topic, before it has a consumer
    #[command(after_help = format!("{POSITIONS}\n\nExample:\n  tailwater groups create billing orders --at latest"))]
    Create {
        /// The group
        group: String,
        /// The topic
        topic: String,
        /// Where it begins
        #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
        at: Position,
    },
    /// Move a group to another place
    #[command(after_help = format!(
        "{POSITIONS}\n\nExamples:\n  \
         tailwater groups reset billing --topic orders --to 2h --dry-run\n  \
         tailwater groups reset billing --topic orders:3 --to 1000"
    ))]
    Reset {
        /// The group
        group: String,
        /// The topic, or one partition of it. Can be repeated
        #[arg(long = "topic", value_name = "TOPIC[:PARTITION]", required = true)]
        topics: Vec<TopicOrPartition>,
        /// Where it goes
        #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
        to: Position,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Forget a group and all that it committed
    #[command(after_help = "Example:\n  tailwater groups delete billing")]
    Delete {
        /// The group
        group: String,
    },
}

/// `orders`, or `orders:3`.
#[derive(Clone, Debug)]
pub(crate) enum TopicOrPartition {
    Topic(String),
    Partition(TopicPartition),
}

impl FromStr for TopicOrPartition {
    type Err = ParseTopicPartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // No topic's name has a colon.
        if text.contains(':') { text.parse().map(Self::Partition) } else { Ok(Self::Topic(text.to_owned())) }
    }
}
