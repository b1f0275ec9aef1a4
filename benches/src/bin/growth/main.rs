//! Measures what becomes of speed and memory as logs, partitions, threads, records and batches grow.

mod batches;
mod compaction;
mod partitions;
mod records;
mod retention;
mod size;
mod tail;
mod threads;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use peak_alloc::PeakAlloc;
use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::host::{self, parse_size};
use tailwater_benches::series::Series;

/// Counts the bytes of the heap.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Measures what becomes of Tailwater as something grows, and writes a table (Markdown and CSV) and plots (SVG) of it.
///
/// Each measurement can be run alone. Run them on an idle machine.
#[derive(Debug, Parser)]
#[command(name = "growth", version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Directory for the results; made if it is missing
    #[arg(long, global = true, value_name = "DIR", default_value = "growth-results")]
    out: PathBuf,
    /// Directory on the disk to measure [default: the results' directory]
    #[arg(long, global = true, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Runs everything once and small, to see that it works: the figures mean nothing
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Appends to one partition and reads from it at random, warm and cold, as it grows from 1 MiB
    Size {
        /// How large it gets, such as 16GiB
        #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = parse_size)]
        max: u64,
    },
    /// Creates, opens and fills topics of 1 to 10,000 partitions: time, descriptors, heap, rate
    Partitions {
        /// The most partitions
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        max: u32,
    },
    /// Appends from 1 to 64 threads
    Producers,
    /// Scans from 1 to 64 threads
    Consumers,
    /// Appends and scans records from 16 B to 4 MiB
    RecordSize,
    /// Appends in batches of 1 to 10,000 records
    BatchSize,
    /// Latency of appends while segments roll, records are deleted and a reader scans cold data
    Tail,
    /// Latency of appends while retention deletes nearly all of a large partition
    Retention {
        /// How large it is, such as 10GiB
        #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = parse_size)]
        size: u64,
    },
    /// Compacts 10,000,000 records of 1,000,000 keys: what is left, memory, latency of appends beside it
    Compaction,
    /// All of these, with their defaults
    All,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let common = &arguments.common;
    std::fs::create_dir_all(&common.out)?;
    let work = std::fs::canonicalize(common.work.as_ref().unwrap_or(&common.out))?;
    let scale = Scale { is_quick: common.quick, work, open_bytes: vec![], peers: vec![] };
    let warning = if common.quick { "\n\n**A quick run: these figures mean nothing.**" } else { "" };
    let head = format!("# How Tailwater grows\n\n{}{warning}", host::describe(&scale.work));
    let all = [
        What::Size { max: 4 << 30 },
        What::Partitions { max: 10_000 },
        What::Producers,
        What::Consumers,
        What::RecordSize,
        What::BatchSize,
        What::Tail,
        What::Retention { size: 10 << 30 },
        What::Compaction,
    ];
    let chosen = std::slice::from_ref(&arguments.what);
    for what in if matches!(arguments.what, What::All) { &all } else { chosen } {
        let text = match measure(what, &scale)? {
            Some(series) => series.write(&common.out, &head)?,
            None => match what {
                What::Retention { size } => retention::write(&scale, &common.out, &head, *size)?,
                What::Compaction => compaction::write(&scale, &common.out, &head, &HEAP)?,
                _ => tail::write(&scale, &common.out, &head)?,
            },
        };
        writeln!(std::io::stdout(), "{text}")?;
    }
    Ok(())
}

/// The series that a measurement gives; `None` for those that are not over something that grows.
fn measure(what: &What, scale: &Scale) -> Result<Option<Series>> {
    match what {
        What::Size { max } => size::measure(scale, *max).map(Some),
        What::Partitions { max } => partitions::measure(scale, *max, &HEAP).map(Some),
        What::Producers => threads::producers(scale).map(Some),
        What::Consumers => threads::consumers(scale).map(Some),
        What::RecordSize => records::measure(scale).map(Some),
        What::BatchSize => batches::measure(scale).map(Some),
        What::Tail | What::Retention { .. } | What::Compaction | What::All => Ok(None),
    }
}
