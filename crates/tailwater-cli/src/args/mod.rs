//! The arguments, and what `--help` says about them.

mod bench;
mod consume;
mod groups;
mod produce;
mod topic;
mod transfer;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use tailwater_cli::time::{When, parse_duration, parse_when};

pub(crate) use bench::{BenchArgs, Workload};
pub(crate) use consume::ConsumeArgs;
pub(crate) use groups::{GroupsCommand, TopicOrPartition};
pub(crate) use produce::ProduceArgs;
pub(crate) use topic::{AtOffset, TopicCommand};
pub(crate) use transfer::{ExportArgs, ImportArgs};

/// Says where the data is, unless `--data` does.
const DATA_VARIABLE: &str = "TAILWATER_DATA";

/// An embedded, durable message log: topics, records, consumers, on local files.
///
/// Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 stored
/// data is corrupt, 4 another process writes to the directory, 5 --timeout passed before --max.
#[derive(Debug, Parser)]
#[command(
    name = "tailwater",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Example:\n  echo 'two espressos' | tailwater --data ./shop produce orders"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory that holds the topics
    #[arg(
        long,
        value_name = "DIR",
        env = DATA_VARIABLE,
        default_value = "./tailwater-data",
        global = true
    )]
    pub(crate) data: PathBuf,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to wait for another process that writes to the directory, such as 10s
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration, global = true)]
    pub(crate) lock_timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe, change and delete topics
    Topic {
        #[command(subcommand)]
        command: TopicCommand,
    },
    Produce(ProduceArgs),
    Consume(ConsumeArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    /// List, describe, create, reset and delete consumer groups
    Groups {
        #[command(subcommand)]
        command: GroupsCommand,
    },
    Offsets(OffsetsArgs),
    /// Show what is in the directory, and who writes to it
    ///
    /// Waits for nobody and recovers nothing, also while another process writes.
    #[command(after_help = "Example:\n  tailwater info --json")]
    Info,
    Verify(VerifyArgs),
    Repair(RepairArgs),
    Backup(BackupArgs),
    Dump(DumpArgs),
    Bench(BenchArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  tailwater completions bash > ~/.local/share/bash-completion/completions/tailwater"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Show where the partitions of a topic begin and end
///
/// Takes no lock and recovers nothing: beside another process that writes, and after a crash, the end is that of what is
/// known to be durable.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tailwater offsets orders --at 2026-11-22T18:30:00Z")]
pub(crate) struct OffsetsArgs {
    /// The topic
    pub(crate) topic: String,
    /// Show the first offset appended at or after this time too: RFC 3339, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub(crate) at: Option<When>,
}

/// Read and check every byte, changing nothing
///
/// Takes no lock and never recovers. While another process writes, everything up to the durable offset is checked. Each
/// damaged place is named on standard error, and the exit code is 3. A torn tail, as a crash leaves it, is no damage. Every
/// file of a backup is compared with what it was when the backup was made.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tailwater verify orders")]
pub(crate) struct VerifyArgs {
    /// The topic [default: all, and Tailwater's own]
    pub(crate) topic: Option<String>,
}

/// Set aside what verify finds damaged, so that the rest can be written to again
///
/// Deletes nothing: damaged bytes are kept in the quarantine directory of their partition. The records in them are lost, and
/// consumers are told of the gap. Offsets stay as they are. A repair that is interrupted can be repeated.
///
/// A missing or damaged catalog is rebuilt first, from the directories of the partitions. It does not know the settings of the
/// topics any more: they are the defaults until `topic alter` sets them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tailwater repair orders --yes")]
pub(crate) struct RepairArgs {
    /// The topic [default: all, and Tailwater's own]
    pub(crate) topic: Option<String>,
    /// Go on, although records may be given up
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Copy the whole directory, also while another process writes to it
///
/// The copy is a directory like any other: to restore it is to use it, or a copy of it, as --data. It holds what was durable of
/// each topic at one moment, and all committed positions. Until then `tailwater --data DIR verify` compares every file with what
/// it was. The directory must not exist; it is there whole, or not at all.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tailwater backup /backups/tuesday --incremental-from /backups/monday")]
pub(crate) struct BackupArgs {
    /// The directory to make
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Take sealed segments that are in this earlier backup from there, by a hard link
    #[arg(long, value_name = "DIR", conflicts_with = "copy")]
    pub(crate) incremental_from: Option<PathBuf>,
    /// Copy sealed segments too, where a hard link would do: a link is no second copy of the bytes
    #[arg(long)]
    pub(crate) copy: bool,
}

/// Show what a segment file holds, batch by batch, also when it is damaged
///
/// With --json each part is an object on a line of its own. The exit code is 3 if what is damaged was sealed, or was known
/// to be durable when a later batch was written.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tailwater dump tailwater-data/orders-0/00000000000000000000.log")]
pub(crate) struct DumpArgs {
    /// The file
    pub(crate) file: PathBuf,
}

impl Arguments {
    /// Reads the arguments of this process.
    pub(crate) fn read() -> clap::error::Result<Self> {
        let mut command = Self::command();
        // An empty variable is as good as none.
        if std::env::var_os(DATA_VARIABLE).is_some_and(|value| value.is_empty()) {
            command = command.mut_arg("data", |data| data.env(None::<&str>));
        }
        let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
