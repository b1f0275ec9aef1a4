//! Publishes, reads, deletes and kills for a long time, and counts what is lost.
//!
//! - A child process publishes to topics that retention keeps small, and reads them as two groups. It is killed at random
//!   and started again, on a file system of 1 GiB where that can be had.
//! - What the child was acknowledged it tells the parent, who hands it on to the next child: that looks for all of it before
//!   it goes on. A record's content is made of its place, so that a wrong one is noticed wherever it turns up.
//! - For the last part of the time one child is left alone, so that what grows with time shows.

mod content;
mod journal;
mod place;
mod process;
mod worker;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use journal::Journal;
use place::Place;
use process::{Child, Sample};
use tailwater_benches::contest::Result;
use tailwater_benches::host::parse_size;

/// Publishes, reads, deletes and kills for a long time, and counts what is lost: which must be nothing.
#[derive(Debug, Parser)]
#[command(name = "soak", version)]
struct Arguments {
    /// How long, in minutes
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// What disk may be taken up. Root gets a file system of this size; others a limit of the broker
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    disk: u64,
    /// Bytes to publish in a second, in each topic
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    rate: u64,
    /// Where the random choices begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where to work, instead of a directory that is made for it and removed
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The child
    #[command(hide = true)]
    Work { directory: PathBuf, disk: u64, rate: u64 },
}

/// How much of the time one child is left alone.
const ALONE: f64 = 0.4;
/// Part of its time in which a child comes to its full size, in percent.
const WARM_UP_PERCENT: usize = 30;
/// How much larger than then it may become: a quarter, or so many bytes. Buffers come and go.
const GROWTH_BYTES: u64 = 32 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.role {
        Some(Role::Work { directory, disk, rate }) => worker::run(directory, *disk, *rate),
        None => soak(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments) -> Result<()> {
    let place = Place::make(arguments.directory.as_deref(), arguments.disk)?;
    let mut journal = Journal::default();
    let mut choices = fastrand::Rng::with_seed(arguments.seed);
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let start = Instant::now();
    let killing_ends = start + length.mul_f64(1.0 - ALONE);
    let (mut kills, mut disk_peak) = (0_u32, 0);
    let mut watch = |child: &mut Child, until: Instant, journal: &mut Journal| -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while Instant::now() < until {
            child.listen(journal, until.min(Instant::now() + Duration::from_millis(250)))?;
            samples.push(child.sample()?);
            disk_peak = disk_peak.max(place.used_bytes()?);
        }
        Ok(samples)
    };
    while Instant::now() < killing_ends {
        let mut child = Child::start(place.data(), arguments.disk, arguments.rate, &journal)?;
        let life = Duration::from_millis(choices.u64(1_000..20_000));
        watch(&mut child, (Instant::now() + life).min(killing_ends), &mut journal)?;
        child.kill(&mut journal)?;
        kills += 1;
    }
    let mut child = Child::start(place.data(), arguments.disk, arguments.rate, &journal)?;
    let samples = watch(&mut child, start + length, &mut journal)?;
    child.finish(&mut journal)?;
    // Once more from the start: everything is looked for.
    Child::start(place.data(), arguments.disk, arguments.rate, &journal)?.finish(&mut journal)?;
    let growth = growth(&samples);
    let text = report(arguments, &place, &journal, kills, disk_peak, &samples);
    write!(std::io::stdout(), "{text}")?;
    growth?;
    if disk_peak > arguments.disk {
        return Err(
            format!("{disk_peak} bytes of disk were in use, and {} are allowed", arguments.disk).into()
        );
    }
    journal.check_progress()
}

/// Whether a child that is left alone stays as large as it was when it had begun.
fn growth(samples: &[Sample]) -> Result<()> {
    let warm = samples.len() * WARM_UP_PERCENT / 100;
    let (early, late) = samples.split_at(warm);
    let most = |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
    let (rss, rss_late) = (most(early, |s| s.memory_bytes), most(late, |s| s.memory_bytes));
    let (files, files_late) = (most(early, |s| s.descriptors), most(late, |s| s.descriptors));
    let allowed = rss + (rss / 4).max(GROWTH_BYTES);
    if rss_late > allowed {
        return Err(format!("memory grew from {rss} to {rss_late} bytes").into());
    }
    if files_late > files + files / 4 + 8 {
        return Err(format!("open files grew from {files} to {files_late}").into());
    }
    Ok(())
}

fn report(
    arguments: &Arguments,
    place: &Place,
    journal: &Journal,
    kills: u32,
    disk_peak: u64,
    samples: &[Sample],
) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
    format!(
        "soak of {} minutes, seed {}, on {}\n{journal}\
         killed {kills} times\n\
         disk: at most {:.0} MiB of {:.0} MiB\n\
         the child that was left alone: at most {:.1} MiB of memory of its own, {} descriptors\n",
        arguments.minutes,
        arguments.seed,
        place.describe(),
        mib(disk_peak),
        mib(arguments.disk),
        mib(most(|sample| sample.memory_bytes)),
        most(|sample| sample.descriptors),
    )
}
