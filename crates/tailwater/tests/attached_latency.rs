//! How soon a process beside the one that writes sees what became durable, and how far groups have come.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Choices, partition};
use tailwater::{Broker, GroupPosition, Reset, SeekTo, TopicConfig};

/// Names the directory of a process that is attached to it, and makes a process one.
const DIRECTORY: &str = "TAILWATER_TEST_ATTACHED_LATENCY";

const RECORDS: usize = 300;
const LONG: Duration = Duration::from_secs(20);
/// From when a record is durable to when a process beside sees it, at the 99th percentile.
const TARGET: Duration = Duration::from_millis(200);

/// A clock that all processes of a machine share.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// This program, run again to do what the test of that name does in a process that is attached to `directory`.
struct Attached {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Attached {
    fn start(test: &str, directory: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    /// What follows `word` in the next line that begins with it.
    fn answer(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it has ended before it said {word:?}");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, question: &str) {
        writeln!(self.input, "{question}").unwrap();
        self.input.flush().unwrap();
    }

    fn end(mut self) {
        drop(self.input);
        // What it still says must not fill the pipe.
        std::io::copy(&mut self.output, &mut std::io::sink()).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

/// Says when it saw each record.
fn follow(directory: &Path) {
    let attached = Broker::attach_read_only(directory).unwrap();
    let mut reader = attached.reader().subscribe(&["orders"]).unwrap();
    // Begins a line: the test harness may have begun one.
    println!("\nattached");
    let mut seen = Vec::new();
    let deadline = Instant::now() + 3 * LONG;
    while seen.len() < RECORDS {
        assert!(Instant::now() < deadline, "{} records", seen.len());
        let records = reader.poll(LONG).unwrap();
        let at = now();
        assert_eq!(records.events(), []);
        seen.extend(records.iter().map(|record| (record.offset().get(), at)));
    }
    for (offset, at) in seen {
        println!("seen {offset} {}", at.as_nanos());
    }
}

#[test]
fn an_attached_process_sees_a_record_within_200_ms_of_its_being_durable() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return follow(Path::new(&directory));
    }
    // On a real disk: a sync takes its time.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = root.path().join("data");
    let broker = Broker::open(&directory).unwrap();
    broker.create_topic("orders", &TopicConfig::new()).unwrap();
    let orders = broker.producer("orders").unwrap();
    let mut attached =
        Attached::start("an_attached_process_sees_a_record_within_200_ms_of_its_being_durable", &directory);
    attached.answer("attached");

    let mut choices = Choices(0x2545_f491_4f6c_dd1d);
    let mut durable_at = Vec::new();
    for _ in 0..RECORDS {
        // Mostly within the time after which a log counts as idle, now and then beyond it; and some at once.
        let pause_us = match choices.next() % 10 {
            0 => 0,
            1 => 50_000 + choices.next() % 50_000,
            _ => choices.next() % 20_000,
        };
        std::thread::sleep(Duration::from_micros(pause_us));
        orders.publish("two espressos").unwrap();
        durable_at.push(now());
    }
    let mut latencies: Vec<Duration> = (0..RECORDS)
        .map(|number| {
            let said = attached.answer("seen");
            let (offset, nanos) = said.split_once(' ').unwrap();
            assert_eq!(offset.parse(), Ok(number));
            // It may be seen before its publisher runs again.
            Duration::from_nanos(nanos.parse().unwrap()).saturating_sub(durable_at[number])
        })
        .collect();
    attached.end();
    latencies.sort();
    let percentile = |percent: usize| latencies[(RECORDS * percent).div_ceil(100) - 1];
    eprintln!(
        "{RECORDS} records, seen by an attached process after p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        percentile(50).as_secs_f64() * 1e3,
        percentile(90).as_secs_f64() * 1e3,
        percentile(99).as_secs_f64() * 1e3,
        percentile(100).as_secs_f64() * 1e3,
    );
    assert!(percentile(99) < TARGET, "{latencies:?}");
}

/// Says, whenever it is asked, how far the groups have come and how far they are behind.
fn look_at_groups(directory: &Path) {
    let attached = Broker::attach_read_only(directory).unwrap();
    for question in std::io::stdin().lines() {
        let group = question.unwrap();
        let listed = attached.groups().unwrap().iter().any(|listed| listed.id == group);
        let shown = attached.describe_group(&group).map(|described| {
            let position = |known: &GroupPosition| {
                format!("{}@{}-{}", known.partition, known.committed.offset, known.lag.records)
            };
            described.positions.iter().map(position).collect::<Vec<_>>().join(",")
        });
        println!("\ngroup {listed} {}", shown.unwrap_or_else(|error| error.to_string()));
    }
}

#[test]
fn an_attached_process_sees_groups_come_commit_and_go() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return look_at_groups(Path::new(&directory));
    }
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = root.path().join("data");
    let broker = Broker::open(&directory).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
    common::members::fill(&broker, "orders", 0..10);
    let mut attached = Attached::start("an_attached_process_sees_groups_come_commit_and_go", &directory);
    let mut eventually = |wanted: &str| {
        let deadline = Instant::now() + LONG;
        loop {
            attached.ask("billing");
            let shown = attached.answer("group");
            if shown == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{shown:?} in place of {wanted:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    eventually("false there is no group billing: check the name, or create it");

    // First contact is committed before anything is read.
    let mut billing = broker.consumer("billing").max_records(4).subscribe(&["orders"]).unwrap();
    eventually("true orders-0@0-10,orders-1@0-10");
    assert_eq!(billing.poll(LONG).unwrap().count(), 4);
    billing.commit().wait().unwrap();
    eventually("true orders-0@4-6,orders-1@0-10");
    assert_eq!(billing.poll(LONG).unwrap().count(), 4);
    billing.commit().wait().unwrap();
    eventually("true orders-0@4-6,orders-1@4-6");
    // What is published adds to the lag of those who do not read.
    common::members::fill(&broker, "orders", 10..13);
    eventually("true orders-0@4-9,orders-1@4-9");
    drop(billing);
    broker.reset_group("billing", &[partition("orders", 1)], SeekTo::Latest).unwrap();
    eventually("true orders-0@4-9,orders-1@13-0");
    // A topic that the attached process has not heard of.
    broker.create_topic("parcels", &TopicConfig::new()).unwrap();
    common::members::fill(&broker, "parcels", 0..2);
    broker.create_group("billing", &["parcels"], Reset::Earliest).unwrap();
    eventually("true orders-0@4-9,orders-1@13-0,parcels-0@0-2");
    broker.delete_group("billing").unwrap();
    eventually("false there is no group billing: check the name, or create it");
    attached.end();
}
