//! Counts the syncs of a real process with `strace`: what an acknowledgement costs, as the operating system sees it.
//!
//! The process is this test itself, run again under `strace`; it writes the name of each phase to its standard output,
//! where the trace shows it between the syncs.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tailwater_log::storage::Disk;
use tailwater_log::{
    Durability, Log, LogOptions, ManualClock, NewRecord, PartitionId, PartitionIdentity, Timestamp, TopicId,
    WhenFull,
};

const CHILD_DIRECTORY: &str = "TAILWATER_STRACE_DIRECTORY";
const MARK: &str = "phase ";

fn append(log: &Log, durability: Durability) {
    let receipt = log.append(&[NewRecord::new(&[b's'; 100])], Some(durability), WhenFull::Wait).unwrap();
    receipt.wait().unwrap();
}

fn append_together(log: &Log, count: usize) {
    let receipts: Vec<_> =
        (0..count).map(|_| log.append(&[NewRecord::new(b"s")], None, WhenFull::Wait).unwrap()).collect();
    receipts.into_iter().for_each(|receipt| assert!(receipt.wait().is_ok()));
}

/// What the child runs. The line end before a mark ends the line that the test harness has begun.
fn run_child(directory: &Path) -> ! {
    let begin = |phase: &str| print!("\n{MARK}{phase}\n");
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([3; 16]), partition: PartitionId::ZERO };
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let mut options = LogOptions::new(identity);
    options.clock = clock.clone();
    begin("open");
    let log = Log::create(Arc::new(Disk), directory, options).unwrap();
    begin("first append");
    append(&log, Durability::Durable);
    begin("durable");
    (0..20).for_each(|_| append(&log, Durability::Durable));
    begin("together");
    append_together(&log, 50);
    begin("threads");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| append(&log, Durability::Durable)));
        }
    });
    begin("lazy");
    for _ in 0..50 {
        append(&log, Durability::Buffered);
        append(&log, Durability::Written);
        log.maintain().unwrap();
    }
    clock.advance_ms(500);
    log.maintain().unwrap();
    begin("interval");
    clock.advance_ms(600);
    log.maintain().unwrap();
    begin("roll");
    log.roll().unwrap();
    append(&log, Durability::Durable);
    log.maintain().unwrap();
    begin("durable behind a roll");
    (0..20).for_each(|_| append(&log, Durability::Durable));
    begin("close");
    log.close().unwrap();
    std::process::exit(0)
}

/// Whether there is a `strace`. One that may not trace is a failure: a count that is not made must not pass for one.
fn is_strace_installed() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).output();
    match tried {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => panic!("cannot run strace: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "strace is installed and may not trace; allow ptrace: {said}");
            true
        }
    }
}

/// How many `fdatasync` and `fsync` each phase made.
fn count(trace: &str) -> BTreeMap<String, (u32, u32)> {
    let mut phase = String::new();
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        if let Some((_, rest)) = line.split_once(MARK).filter(|_| line.contains("write(1,")) {
            phase = rest.split("\\n").next().unwrap_or_default().to_owned();
            counts.entry(phase.clone()).or_insert((0, 0));
        }
        let entry = counts.entry(phase.clone()).or_insert((0, 0));
        entry.0 += u32::from(line.contains("fdatasync("));
        entry.1 += u32::from(line.contains(" fsync("));
    }
    counts
}

#[test]
fn a_durable_append_makes_at_most_one_sync_and_a_lazy_one_none() {
    if let Ok(directory) = std::env::var(CHILD_DIRECTORY) {
        run_child(directory.as_ref());
    }
    if !is_strace_installed() {
        // Past the harness, which shows only what failed tests print.
        writeln!(std::io::stderr(), "syncs were not counted: strace is not installed").unwrap();
        return;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trace = directory.path().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fdatasync,fsync,write", "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_durable_append_makes_at_most_one_sync_and_a_lazy_one_none", "--nocapture"])
        .env(CHILD_DIRECTORY, directory.path().join("log"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "the traced process ended with {status}");
    let counts = count(&std::fs::read_to_string(&trace).unwrap());
    println!("(fdatasync, fsync) of each phase: {counts:?}");
    let of = |phase: &str| *counts.get(phase).unwrap_or_else(|| panic!("no phase {phase:?}: {counts:?}"));

    // The dirty flag and the names of the log, once; then the record.
    assert_eq!(of("first append"), (2, 1));
    assert_eq!(of("durable"), (20, 0), "one each, and nothing else");
    assert_eq!(of("together"), (1, 0), "one for all that wait together");
    let (data_syncs, others) = of("threads");
    assert!((1..=100).contains(&data_syncs) && others == 0, "at most one each: {data_syncs}, {others}");
    assert_eq!(of("lazy"), (0, 0), "Buffered and Written sync nothing");
    assert_eq!(of("interval"), (1, 0), "one sync when sync_interval_ms is over");
    assert_eq!(of("durable behind a roll"), (20, 0));
    let (data_syncs, others) = of("roll");
    assert!(data_syncs + others <= 6, "header, name, both files, footer: {data_syncs}, {others}");
}
