//! Kills a real process that appends to a real disk, again and again, and looks for everything it was told is durable.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tailwater_log::storage::Disk;
use tailwater_log::{
    FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, PartitionId, PartitionIdentity, RecoveryOutcome,
    TopicId, WhenFull,
};

const CYCLES: u64 = 200;
const CHILD_DIRECTORY: &str = "TAILWATER_KILL_DIRECTORY";
const CHILD_CYCLE: &str = "TAILWATER_KILL_CYCLE";

fn options() -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([9; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 64 * 1024;
    options
}

/// What the child runs: two threads append and report each acknowledgement on standard output, until they are killed.
fn run_child(directory: &str, cycle: &str) -> ! {
    let log = Log::open(Arc::new(Disk), directory.as_ref(), options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let log = &log;
            scope.spawn(move || {
                for n in 0u64.. {
                    let value = format!("{cycle}/{thread}/{n}/{}", "k".repeat((n * 37 % 400) as usize));
                    let receipt =
                        log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait).unwrap();
                    let offset = receipt.wait().unwrap().offsets.start;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {offset} {value}").unwrap();
                    out.flush().unwrap();
                    drop(out);
                    if n % 64 == 63 {
                        log.maintain().unwrap();
                    }
                }
            });
        }
    });
    unreachable!("the threads append until the process is killed")
}

#[test]
fn every_acknowledged_record_survives_kill_9() {
    if let (Ok(directory), Ok(cycle)) = (std::env::var(CHILD_DIRECTORY), std::env::var(CHILD_CYCLE)) {
        run_child(&directory, &cycle);
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    Log::create(Arc::new(Disk), directory.path(), options()).unwrap().close().unwrap();

    let mut journal: BTreeMap<u64, String> = BTreeMap::new();
    let (mut kills_after_100, mut recoveries, mut torn_tails, mut random) =
        (0, 0, 0, 0x2545_f491_4f6c_dd1d_u64);
    let mut segments = 0;
    for cycle in 0..CYCLES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "every_acknowledged_record_survives_kill_9", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIRECTORY, directory.path())
            .env(CHILD_CYCLE, cycle.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let wanted = if cycle % 5 == 4 { random % 20 } else { 100 + random % 100 };
        let mut seen = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while seen < wanted {
            let line = lines.next().expect("the child appends until it is killed").unwrap();
            seen += u64::from(note(&line, &mut journal));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had written to the pipe before it died was acknowledged too; its last line may be cut.
        for line in lines.map_while(Result::ok) {
            note(&line, &mut journal);
        }
        kills_after_100 += u64::from(seen >= 100);

        let log = Log::open(Arc::new(Disk), directory.path(), options()).unwrap();
        let report = log.recovery_report();
        recoveries += u64::from(report.outcome == RecoveryOutcome::Recovered);
        torn_tails += u64::from(report.torn_tail.is_some());
        let verified = log.verify(&mut |_| {}).unwrap();
        assert!(verified.damage.is_empty(), "cycle {cycle}: {:?}", verified.damage);
        segments = verified.segments;
        // All of it now and then, the records of this cycle always.
        let from = if cycle % 20 == 19 { 0 } else { log.log_end_offset().get().saturating_sub(600) };
        check(&log, from, &journal);
        if cycle % 2 == 0 {
            log.close().unwrap();
        }
    }
    println!(
        "{CYCLES} kills, {kills_after_100} after 100 or more acknowledgements; {} records, {segments} segments, \
         {recoveries} recoveries, {torn_tails} torn tails",
        journal.len()
    );
    assert!(kills_after_100 >= 150 && recoveries >= CYCLES / 2 && segments > 20);
}

/// Notes an acknowledgement. False for other lines, such as those of the test harness.
fn note(line: &str, journal: &mut BTreeMap<u64, String>) -> bool {
    // The harness writes the test's name without a line end before the first acknowledgement.
    let Some(at) = line.find("ack ") else { return false };
    let mut parts = line[at..].splitn(3, ' ').skip(1);
    let (Some(offset), Some(value)) = (parts.next().and_then(|text| text.parse().ok()), parts.next()) else {
        return false;
    };
    journal.insert(offset, value.to_owned());
    true
}

fn check(log: &Log, from: u64, journal: &BTreeMap<u64, String>) {
    let mut at = tailwater_log::Offset::new(from);
    let mut acknowledged = journal.range(from..).peekable();
    while at < log.durable_offset() {
        let fetched = log.fetch(at, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        for record in fetched.iter() {
            if let Some((_, value)) = acknowledged.next_if(|(offset, _)| **offset == record.offset().get()) {
                assert!(record.value() == Some(value.as_bytes()), "offset {}", record.offset());
            }
        }
        at = fetched.next_offset();
    }
    assert_eq!(acknowledged.next(), None, "an acknowledged record is missing");
}
