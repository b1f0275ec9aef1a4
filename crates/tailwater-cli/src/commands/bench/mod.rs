//! `bench`: Tailwater on this disk, beside bare loops over the same system calls.
//!
//! The two sides of a workload take turns, A B A B, so that a machine or a disk that grows slower does so for both. Each
//! round of a side begins with an empty directory, which is removed behind it.

mod append;
mod bare;
mod durable;
mod measure;
mod place;
mod read;
mod report;
mod subject;
mod threads;

use std::io::{self, Write};

use indicatif::{BinaryBytes, ProgressBar};

use crate::args::{BenchArgs, Workload};
use crate::directory::Directory;
use crate::exit::Result;
use crate::output::progress_of_steps;
use crate::signals;
use measure::{Compared, Figures, Limit, Sides, scattered};
use place::Scratch;
use report::Measured;

/// How often the two sides of a workload take turns: often, since what else uses a disk comes and goes.
const ROUNDS: u32 = 10;
/// What a round of one side writes at most, unless a number of records is given: closing a log syncs it, which takes as long
/// as the disk takes.
const MAX_ROUND_BYTES: u64 = 32 << 20;
/// The size of what is read, likewise.
const READ_BYTES: u64 = 128 << 20;
/// What a record takes beside its value at most, in a batch of its own, on both sides.
const MAX_OVERHEAD_BYTES: u64 = 96;
/// What is reserved and not yet used, and the files beside the segments.
const SLACK_BYTES: u64 = 32 << 20;
/// Records a round of `--quick`.
const QUICK_RECORDS: u64 = 256;

/// What is measured, and how long.
struct Plan {
    record_bytes: usize,
    threads: usize,
    rounds: u32,
    limit: Limit,
    /// How many records there are to be read by the workloads that only read.
    read_records: u64,
    scratch: Scratch,
}

pub(crate) fn run(data: &Directory, json: bool, args: &BenchArgs) -> Result<()> {
    let parent = args.directory.clone().map_or_else(|| place::beside(&data.path), Ok)?;
    let mut workloads = args.workloads.clone();
    if workloads.is_empty() {
        workloads.extend(Workload::ALL);
    }
    workloads.sort_unstable();
    workloads.dedup();
    let size = Size::of(args);
    let disk_bytes = size.disk_bytes(&workloads);
    place::check(&parent, disk_bytes)?;
    let path = Scratch::choose(&parent);
    let ending = signals::remove_and_end(path.clone())?;
    let plan = size.plan(args, Scratch::create(path)?);
    let bar = progress_of_steps(u64::from(plan.rounds) * workloads.len() as u64);
    if !bar.is_hidden() {
        // Nobody else needs to know that all went well.
        let text = format!("takes up to {} in {}", BinaryBytes(disk_bytes), parent.display());
        let _ = writeln!(io::stderr(), "{text}");
    }
    let (mut done, mut failure) = (Vec::new(), None);
    for workload in workloads {
        match measure(workload, &plan, &bar) {
            Ok(measured) => done.push(measured),
            Err(error) => {
                ending.give_way();
                let hint = if error.is_disk_full() {
                    format!("; a run takes up to {} of disk", BinaryBytes(disk_bytes))
                } else {
                    String::new()
                };
                let told = |text| format!("{}: {text}{hint}", workload.name());
                failure = Some(error.into_failure().map_text(told));
                break;
            }
        }
    }
    bar.finish_and_clear();
    ending.give_way();
    let rounds = plan.rounds;
    drop(plan);
    // What was measured before it failed is shown all the same.
    let shown = match (done.is_empty(), json) {
        (true, _) => Ok(()),
        (false, true) => report::print_json(&done),
        (false, false) => report::print(&parent, args, rounds, &done),
    };
    failure.map_or(shown, Err)
}

/// How much is done in a round.
struct Size {
    limit: Limit,
    rounds: u32,
    read_records: u64,
    on_disk_bytes: u64,
}

impl Size {
    fn of(args: &BenchArgs) -> Self {
        let on_disk_bytes = args.record_size as u64 + MAX_OVERHEAD_BYTES;
        let records = args.records.or(args.quick.then_some(QUICK_RECORDS));
        let rounds = if args.quick { 1 } else { ROUNDS };
        let limit = match records {
            Some(records) => Limit { records, time: None },
            None => Limit { records: MAX_ROUND_BYTES / on_disk_bytes, time: Some(args.time / rounds) },
        };
        Self { limit, rounds, read_records: records.unwrap_or(READ_BYTES / on_disk_bytes), on_disk_bytes }
    }

    /// What the workload that takes most takes at most.
    fn disk_bytes(&self, workloads: &[Workload]) -> u64 {
        // What only reads keeps the files of both sides. Batches and groups are done whole.
        let count = |workload: &Workload| match workload {
            Workload::Scan | Workload::RandomRead => self.read_records.saturating_mul(2),
            _ => self.limit.records.saturating_add(durable::IN_FLIGHT as u64),
        };
        let most = workloads.iter().map(count).max().unwrap_or_default();
        most.saturating_mul(self.on_disk_bytes).saturating_add(SLACK_BYTES)
    }

    fn plan(self, args: &BenchArgs, scratch: Scratch) -> Plan {
        let Self { limit, rounds, read_records, .. } = self;
        Plan { record_bytes: args.record_size, threads: args.threads, rounds, limit, read_records, scratch }
    }
}

impl Plan {
    /// A value that compresses badly and is the same in every run.
    fn value(&self) -> Vec<u8> {
        let mut next = scattered(256);
        (0..self.record_bytes).map(|_| u8::try_from(next()).unwrap_or_default()).collect()
    }

    /// How many records make a batch of `wanted`, which is to be of 4 MiB at most.
    fn batch_records(&self, wanted: usize) -> usize {
        wanted.min((4 << 20) / self.record_bytes).max(1)
    }

    /// After how many appends the clock is looked at: 64, or fewer large ones.
    fn clock_every(&self) -> u64 {
        ((64 << 10) / self.record_bytes as u64).clamp(1, 64)
    }

    /// When a round of reading ends: what there is may be read more than once in its time.
    fn read_limit(&self) -> Limit {
        Limit { records: if self.limit.time.is_some() { u64::MAX } else { self.read_records }, ..self.limit }
    }
}

fn measure(workload: Workload, plan: &Plan, bar: &ProgressBar) -> measure::Result<Measured> {
    bar.set_message(workload.name());
    let Sides { mut bare, mut tailwater } = sides(workload, plan)?;
    let mut measured = Measured {
        workload,
        record_bytes: plan.record_bytes,
        threads: if workload == Workload::DurableThreads { plan.threads } else { 1 },
        rounds: plan.rounds,
        compared: match workload {
            Workload::DurableOne | Workload::HandOver => Compared::Median,
            _ => Compared::Rate,
        },
        bare: Figures::default(),
        tailwater: Figures::default(),
    };
    for _ in 0..plan.rounds {
        measured.bare.add(bare()?)?;
        measured.tailwater.add(tailwater()?)?;
        bar.inc(1);
    }
    Ok(measured)
}

fn sides(workload: Workload, plan: &Plan) -> measure::Result<Sides<'_>> {
    Ok(match workload {
        Workload::AppendBuffered => append::buffered(plan),
        Workload::AppendWritten => append::written(plan),
        Workload::AppendBatches => append::batches(plan),
        Workload::DurableOne => durable::one(plan),
        Workload::DurableThreads => durable::threads(plan),
        Workload::DurablePipelined => durable::pipelined(plan),
        Workload::Scan => read::scan(plan)?,
        Workload::RandomRead => read::random(plan)?,
        Workload::HandOver => threads::hand_over(plan),
        Workload::PublishConsume => threads::publish_consume(plan),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_read_is_there_until_all_rounds_are_done_and_what_is_written_only_in_its_round() {
        let parent = tempfile::tempdir().unwrap();
        let path = Scratch::choose(parent.path());
        let limit = Limit { records: 100, time: None };
        let scratch = Scratch::create(path.clone()).unwrap();
        let plan = Plan { record_bytes: 100, threads: 2, rounds: 1, limit, read_records: 100, scratch };
        let count = || fs::read_dir(&path).unwrap().count();
        for workload in Workload::ALL {
            let held = if matches!(workload, Workload::Scan | Workload::RandomRead) { 2 } else { 0 };
            let mut sides = sides(*workload, &plan).unwrap();
            for side in [&mut sides.bare, &mut sides.tailwater] {
                assert_eq!(count(), held, "{workload:?}");
                let round = side().unwrap();
                assert!((100..=256).contains(&round.records), "{workload:?}: {round:?}");
            }
            drop(sides);
            assert_eq!(count(), 0, "{workload:?}");
        }
    }

    #[test]
    fn the_default_takes_what_the_help_says() {
        let arguments = |records, quick| BenchArgs {
            directory: None,
            workloads: vec![],
            record_size: 1024,
            time: std::time::Duration::from_secs(2),
            records,
            threads: 16,
            quick,
        };
        let needed = |records, quick| Size::of(&arguments(records, quick)).disk_bytes(Workload::ALL);
        assert_eq!(needed(None, false).div_ceil(1 << 20), 288);
        assert!(needed(None, true) < 33 << 20);
        assert_eq!(needed(Some(u64::MAX), false), u64::MAX);
    }
}
