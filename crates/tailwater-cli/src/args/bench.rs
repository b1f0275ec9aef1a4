//! The arguments of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tailwater_cli::time::parse_duration;

/// Smallest record: the time at which it was sent is in it.
const MIN_RECORD_BYTES: usize = 8;
/// Largest record: more do not fit a batch of several.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// Most threads: each keeps a histogram of its own.
const MAX_THREADS: usize = 256;

/// What is measured, and what beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Append one at a time, into memory. Bare: a 256 KiB buffer, and a pwrite when it is full
    AppendBuffered,
    /// Append one at a time, into the page cache. Bare: a pwrite each
    AppendWritten,
    /// Append in batches of 100, into memory. Bare: as for append-buffered
    AppendBatches,
    /// Append and wait until the record is durable. Bare: a pwrite and an fdatasync each
    DurableOne,
    /// The same with --threads. Bare: a mutex, and one of the threads calls pwrite and fdatasync for all that wait
    DurableThreads,
    /// One thread waits only when 256 records are on their way. Bare: 256 records a pwrite and an fdatasync
    DurablePipelined,
    /// Read all records in order, from the page cache. Bare: a pread of 256 KiB after another, each record checked
    Scan,
    /// Read single records anywhere, from the page cache. Bare: a pread each, checked
    RandomRead,
    /// From an append to its read in a thread that sleeps until then, 20,000 a second. Bare: pwrite, unpark, pread
    HandOver,
    /// Publish by key to 4 partitions, and a group consumes and commits. Bare: one file without keys; the position is synced too
    PublishConsume,
}

impl Workload {
    /// All that there are, in the order in which they are run.
    pub(crate) const ALL: &[Self] = &[
        Self::AppendBuffered,
        Self::AppendWritten,
        Self::AppendBatches,
        Self::DurableOne,
        Self::DurableThreads,
        Self::DurablePipelined,
        Self::Scan,
        Self::RandomRead,
        Self::HandOver,
        Self::PublishConsume,
    ];

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AppendBuffered => "append-buffered",
            Self::AppendWritten => "append-written",
            Self::AppendBatches => "append-batches",
            Self::DurableOne => "durable-one",
            Self::DurableThreads => "durable-threads",
            Self::DurablePipelined => "durable-pipelined",
            Self::Scan => "scan",
            Self::RandomRead => "random-read",
            Self::HandOver => "hand-over",
            Self::PublishConsume => "publish-consume",
        }
    }
}

/// Measure this disk: Tailwater beside bare loops over the same system calls
///
/// Shows at once whether Tailwater or the disk is the limit: the bar of a workload is full where Tailwater is as fast as
/// the bare loop, which keeps nothing but the length and the CRC-32 of each record. The two take turns, in 10 rounds.
/// Rates are medians of the rounds, and percentiles are of all that was measured. The speed compares the p50 for
/// durable-one and hand-over, and the rate for the others.
///
/// It works in a directory of its own in DIRECTORY, named tailwater-bench-*, and removes it at the end, also when SIGINT or
/// SIGTERM ends it. Topics are not touched. It takes up to 288 MiB of disk, and about half a minute.
#[derive(Debug, Args)]
#[command(
    after_help = "With --json there is an object for each workload: `workload`, `record_bytes`, `threads`, `rounds`, \
                  `compared` (`records_per_second` or `p50_us`), `speed` (1 is that of the bare loop), `least_speed` and \
                  `greatest_speed` of a round, and for `tailwater` and `bare` `records`, `records_per_second` and \
                  `latency_us`, which is null or has `p50`, `p99`, `p99_9` and `max`.\n\n\
                  Examples:\n  \
                  tailwater bench\n  \
                  tailwater bench /mnt/disk --workload durable-threads --threads 64\n  \
                  tailwater bench --record-size 100 --json"
)]
pub(crate) struct BenchArgs {
    /// Directory on the disk to measure [default: the one that holds the directory of --data]
    pub(crate) directory: Option<PathBuf>,
    /// Measure this workload instead of all. Can be repeated
    #[arg(long = "workload", value_name = "NAME", value_enum)]
    pub(crate) workloads: Vec<Workload>,
    /// Size of a record's value in bytes, from 8 to 1048576
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = parse_record_size, allow_negative_numbers = true)]
    pub(crate) record_size: usize,
    /// How long to measure each of the two in each workload; less if 32 MiB were written in a round
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_time)]
    pub(crate) time: Duration,
    /// Measure so many records a round, however long it takes
    #[arg(long, value_name = "N", value_parser = parse_records, conflicts_with = "time", allow_negative_numbers = true)]
    pub(crate) records: Option<u64>,
    /// How many threads append in durable-threads
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_threads, allow_negative_numbers = true)]
    pub(crate) threads: usize,
    /// Measure a little, once: shows that it works, and not how fast
    #[arg(long, conflicts_with_all = ["time", "records"])]
    pub(crate) quick: bool,
}

fn parse_record_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (MIN_RECORD_BYTES..=MAX_RECORD_BYTES).contains(size));
    size.ok_or_else(|| {
        format!(
            "the size of a record is a whole number of bytes, from {MIN_RECORD_BYTES} to {MAX_RECORD_BYTES}"
        )
    })
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("it must be longer than 0".to_owned()) } else { Ok(time) }
}

fn parse_records(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "it must be a whole number from 1, and not too large".to_owned())
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_THREADS).contains(count));
    count.ok_or_else(|| format!("the number of threads is from 1 to {MAX_THREADS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workloads_have_the_names_that_the_command_line_takes() {
        assert_eq!(Workload::ALL, Workload::value_variants());
        for workload in Workload::ALL {
            let value = workload.to_possible_value().unwrap();
            assert_eq!(workload.name(), value.get_name());
        }
    }

    #[test]
    fn sizes_and_counts_have_bounds_that_are_told() {
        assert_eq!(parse_record_size("8"), Ok(8));
        assert_eq!(parse_record_size("1048576"), Ok(1 << 20));
        for text in ["7", "1048577", "1KiB", "-8", "", "99999999999999999999"] {
            assert!(parse_record_size(text).unwrap_err().contains("from 8 to 1048576"), "{text}");
        }
        assert_eq!((parse_threads("1"), parse_threads("256")), (Ok(1), Ok(256)));
        assert!(parse_threads("0").is_err() && parse_threads("257").is_err());
        assert!(parse_records("0").unwrap_err().contains("from 1"));
        assert!(parse_time("0").is_err() && parse_time("2").unwrap_err().contains("has a unit"));
    }
}
