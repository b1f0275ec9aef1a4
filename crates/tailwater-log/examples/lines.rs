//! Appends each line of a text file durably, stops without closing the log, recovers it, and compares every line.
//!
//! `cargo run --release -p tailwater-log --example lines -- README.md` (`-` reads standard input). Exits with 1 if a
//! line is missing, changed or out of order.

use std::error::Error;
use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tailwater_log::storage::Disk;
use tailwater_log::{
    Durability, FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, PartitionId, PartitionIdentity,
    TopicId, WhenFull,
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(source) = std::env::args().nth(1) else {
        eprintln!("usage: lines FILE (or - for standard input)");
        return Ok(ExitCode::from(2));
    };
    let mut text = Vec::new();
    if source == "-" {
        std::io::stdin().read_to_end(&mut text)?;
    } else {
        text = std::fs::read(&source).map_err(|error| format!("cannot read {source}: {error}"))?;
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();

    let directory = tempfile::tempdir()?;
    let identity = PartitionIdentity {
        topic_id: TopicId::from_bytes(*b"an example topic"),
        partition: PartitionId::ZERO,
    };
    let log = Log::create(Arc::new(Disk), directory.path(), LogOptions::new(identity))?;
    let start = Instant::now();
    // Each append is acknowledged when it is durable; many share one sync because they are waited for together.
    let receipts = lines
        .iter()
        .map(|line| log.append(&[NewRecord::new(line)], Some(Durability::Durable), WhenFull::Wait))
        .collect::<Result<Vec<_>, _>>()?;
    for receipt in receipts {
        receipt.wait()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("appended {} lines durably, {:.0} a second", lines.len(), lines.len() as f64 / seconds);

    // A copy of the directory is what another process would find had this one died here.
    let crashed = tempfile::tempdir()?;
    for entry in std::fs::read_dir(directory.path())? {
        let entry = entry?;
        std::fs::copy(entry.path(), crashed.path().join(entry.file_name()))?;
    }
    log.close()?;

    let log = Log::open(Arc::new(Disk), crashed.path(), LogOptions::new(identity))?;
    let report = log.recovery_report();
    println!(
        "recovered {:?}: offsets {} to {}",
        report.outcome, report.log_start_offset, report.log_end_offset
    );
    let start = Instant::now();
    let mut read = Vec::with_capacity(lines.len());
    let mut from = log.log_start_offset();
    while from < log.durable_offset() {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None)?;
        read.extend(fetched.iter().map(|record| record.value().unwrap_or_default().to_vec()));
        from = fetched.next_offset();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("read {} lines back, {:.0} a second", read.len(), read.len() as f64 / seconds);
    if read.len() != lines.len() || read.iter().zip(&lines).any(|(read, line)| read != line) {
        eprintln!("what was read is not what was appended");
        return Ok(ExitCode::FAILURE);
    }
    println!("every line is there, in order");
    Ok(ExitCode::SUCCESS)
}
