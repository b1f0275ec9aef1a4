//! Kills `tailwater produce --acks` again and again on one directory, and looks for everything it acknowledged.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::thread;
use std::time::Duration;

use common::Data;
use tailwater::{Broker, Offset, PartitionId, RecoveryOutcome, TopicPartition};

const CYCLES: u64 = 200;

/// Numbers that look random, the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn line(cycle: u64, n: u64) -> String {
    format!("{cycle}/{n}/{}", "k".repeat(usize::try_from(n * 37 % 400).unwrap()))
}

/// Writes lines until nobody reads them any more: as fast as they are taken, or in bursts with pauses.
fn write_lines(input: ChildStdin, cycle: u64) {
    let mut input = BufWriter::new(input);
    for n in 0.. {
        if writeln!(input, "{}", line(cycle, n)).is_err() {
            return;
        }
        if cycle % 2 == 1 && n % 13 == 12 {
            if input.flush().is_err() {
                return;
            }
            thread::sleep(Duration::from_micros(100));
        }
    }
}

/// Journals acknowledgements until their stream ends, and tells of every one. The last line may be cut.
fn read_acks(acks: ChildStdout, told: &std::sync::mpsc::Sender<()>) -> Vec<u64> {
    let mut offsets = Vec::new();
    let mut acks = BufReader::new(acks);
    let mut text = String::new();
    while acks.read_line(&mut text).unwrap() > 0 && text.ends_with('\n') {
        offsets.push(text.trim_end().strip_prefix("0\t").unwrap().parse().unwrap());
        text.clear();
        let _ = told.send(());
    }
    offsets
}

fn read_warnings(mut warnings: ChildStderr) -> String {
    let mut text = String::new();
    warnings.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn whatever_was_acknowledged_before_a_kill_is_there() {
    let data = Data::on_disk();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=65536"]);
    let place = TopicPartition::new("orders", PartitionId::ZERO);
    let mut journal: BTreeMap<u64, String> = BTreeMap::new();
    let mut random = Random(17);
    let (mut kills_after_100, mut recoveries, mut torn_tails) = (0, 0, 0);
    for cycle in 0..CYCLES {
        let mut child = data.start(&["produce", "orders", "--acks"]);
        let input = child.stdin.take().unwrap();
        let acks = child.stdout.take().unwrap();
        let warnings = child.stderr.take().unwrap();
        let writing = thread::spawn(move || write_lines(input, cycle));
        let (told, heard) = std::sync::mpsc::channel();
        let reading = thread::spawn(move || read_acks(acks, &told));
        let warned = thread::spawn(move || read_warnings(warnings));
        // Some are killed before they have acknowledged anything.
        if cycle % 10 != 9 {
            for _ in 0..100 + random.below(500) {
                heard.recv_timeout(Duration::from_secs(60)).unwrap();
            }
        }
        thread::sleep(Duration::from_micros(random.below(3000)));
        child.kill().unwrap();
        child.wait().unwrap();
        writing.join().unwrap();
        let offsets = reading.join().unwrap();
        let warned = warned.join().unwrap();
        assert!(!warned.contains("error:"), "cycle {cycle}: {warned}");
        recoveries += u64::from(warned.contains("was not closed in order"));
        torn_tails += u64::from(warned.contains("unfinished appends"));

        kills_after_100 += u64::from(offsets.len() >= 100);
        assert!(
            offsets.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "cycle {cycle}: in order, without a gap"
        );
        let first_new = journal.last_key_value().map_or(0, |(last, _)| last + 1);
        assert!(
            offsets.first().is_none_or(|first| *first >= first_new),
            "cycle {cycle}: an offset was given twice"
        );
        journal.extend(offsets.iter().zip(0..).map(|(offset, n)| (*offset, line(cycle, n))));

        let verified = data.run(&["verify"]);
        assert_eq!(verified.code, 0, "cycle {cycle}: {verified:?}");
        // The others are left for the next process to recover, which is killed in its turn.
        if cycle % 2 == 0 || cycle == CYCLES - 1 {
            let broker = Broker::open(data.path()).unwrap();
            let report = broker.embedded().unwrap().recovery_report(&place).unwrap();
            recoveries += u64::from(report.outcome == RecoveryOutcome::Recovered);
            torn_tails += u64::from(report.torn_tail.is_some());
            broker.close().unwrap();
            let is_time_for_all = cycle % 20 == 18 || cycle == CYCLES - 1;
            let from = if is_time_for_all { 0 } else { report.log_end_offset.get().saturating_sub(3000) };
            check(&data, from, &journal);
        }
    }
    let segments = std::fs::read_dir(data.path().join("orders-0")).unwrap();
    let segments =
        segments.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|is| is == "log"));
    let segments = segments.count();
    println!(
        "{CYCLES} kills, {kills_after_100} after 100 or more acknowledgements; {} acknowledged records, {segments} \
         segments, {recoveries} recoveries, {torn_tails} torn tails",
        journal.len()
    );
    assert!(kills_after_100 >= 150 && recoveries >= CYCLES / 2 && segments > 20);
}

/// Every acknowledged record from `from` on is at its offset, and every other record is one that was written.
fn check(data: &Data, from: u64, journal: &BTreeMap<u64, String>) {
    let mut acknowledged = journal.range(from..).peekable();
    let mut next = from;
    data.for_each_record_from("orders-0", Offset::new(from), |record| {
        assert_eq!(record.offset().get(), next, "offsets follow each other");
        next += 1;
        let value = std::str::from_utf8(record.value().unwrap()).unwrap();
        if let Some((_, expected)) = acknowledged.next_if(|(offset, _)| **offset == record.offset().get()) {
            assert_eq!(value, expected, "offset {}", record.offset());
        } else {
            let mut parts = value.split('/').map(str::parse::<u64>);
            let (Some(Ok(cycle)), Some(Ok(n))) = (parts.next(), parts.next()) else { panic!("{value}") };
            assert_eq!(value, line(cycle, n), "offset {}", record.offset());
        }
    });
    assert_eq!(acknowledged.next(), None, "an acknowledged record is missing");
}
