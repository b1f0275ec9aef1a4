//! A program that the kernel kills in the middle of a write, because a file may not grow, with nothing to catch it.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tailwater::{Broker, Durability, PartitionId, ProducerOptions, Reset, TopicConfig, TopicPartition};

const SIGXFSZ: i32 = 25;

/// Names the directory of the child, and makes a process the child.
const DIRECTORY: &str = "TAILWATER_TEST_KILLED_BY_LIMIT";
const PREALLOCATE: &str = "TAILWATER_TEST_PREALLOCATE";

const MESSAGES: usize = 150;

fn message(n: usize) -> String {
    format!("message {n} {}", "m".repeat(n * 137 % 811))
}

/// Publishes and commits, and says each offset as soon as it is durable. It owns a directory and has a broker open, like
/// any program; where it comes to its limit, no code of its own runs any more.
fn publish_until_killed(directory: &Path) {
    let broker = Broker::open(directory).unwrap();
    let preallocate = std::env::var(PREALLOCATE).unwrap() == "true";
    if broker.topics().unwrap().is_empty() {
        let config = TopicConfig::new().segment_bytes(16 * 1024).preallocate(preallocate);
        broker.create_topic("orders", &config).unwrap();
    }
    let durable = ProducerOptions::new().durability(Durability::Durable);
    let producer = broker.producer_with("orders", durable).unwrap();
    let mut out = std::io::stdout().lock();
    for n in 0..MESSAGES {
        let appended = producer.publish(message(n).as_bytes()).unwrap();
        writeln!(out, "acknowledged {}", appended.offset).unwrap();
        out.flush().unwrap();
    }
    broker.close().unwrap();
}

fn in_child(directory: &Path, blocks: u32, preallocate: bool) -> Option<Output> {
    let program = std::env::current_exe().unwrap();
    let limit = format!("ulimit -c 0 && ulimit -f {blocks} && exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limit, "sh"]).arg(program);
    command.args(["--exact", "--nocapture", "a_program_killed_in_the_middle_of_a_write_has_lost_nothing"]);
    command.env(DIRECTORY, directory).env(PREALLOCATE, preallocate.to_string());
    match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        output => Some(output.unwrap()),
    }
}

/// The offsets that a child said were durable.
fn acknowledged(output: &Output) -> Vec<u64> {
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok()).collect()
}

/// Opens what a child left, checks that all that was acknowledged is there and nothing that was not sent, and goes on.
fn check(directory: &Path, acknowledged: &[u64], name: &str) {
    assert!(acknowledged.iter().copied().eq(0..acknowledged.len() as u64), "{name}: {acknowledged:?}");
    let broker = Broker::open(directory).unwrap_or_else(|error| panic!("{name}: {error}"));
    if broker.topics().unwrap().is_empty() {
        assert!(acknowledged.is_empty(), "{name}: the topic is gone");
        broker.create_topic("orders", &TopicConfig::new()).unwrap();
    }
    let place = TopicPartition::new("orders", PartitionId::ZERO);
    assert_eq!(broker.embedded().unwrap().verify(&place, &mut |_| {}).unwrap().damage, [], "{name}");
    broker.producer("orders").unwrap().publish(b"after it").unwrap();
    let mut reader = broker.reader().reset(Reset::Earliest).subscribe(&["orders"]).unwrap();
    let mut values = Vec::new();
    while values.last().is_none_or(|last| last != "after it") {
        let records = reader.poll(Duration::from_secs(1)).unwrap();
        assert!(!records.is_empty(), "{name}: {} records", values.len());
        values.extend(
            records.iter().map(|record| String::from_utf8(record.value().unwrap().to_vec()).unwrap()),
        );
    }
    values.pop();
    assert!(values.len() >= acknowledged.len(), "{name}: {} of {}", values.len(), acknowledged.len());
    for (n, value) in values.iter().enumerate() {
        assert_eq!(*value, message(n), "{name}: offset {n}");
    }
    broker.close().unwrap();
}

#[test]
fn a_program_killed_in_the_middle_of_a_write_has_lost_nothing() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        publish_until_killed(Path::new(&directory));
        return;
    }
    let (mut killed_at_once, mut killed_later, mut finished) = (0, 0, 0);
    for preallocate in [true, false] {
        // In units of 512 or 1,024 bytes, as the shell has it: from a file that may hold nothing to one that holds all.
        for blocks in (0..40).chain([200]) {
            let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let directory = root.path().join("data");
            let name = format!("{blocks} blocks, preallocate={preallocate}");
            let Some(output) = in_child(&directory, blocks, preallocate) else {
                eprintln!("skipped: there is no shell to set a limit with");
                return;
            };
            let acknowledged = acknowledged(&output);
            match output.status.signal() {
                Some(SIGXFSZ) if acknowledged.is_empty() => killed_at_once += 1,
                Some(SIGXFSZ) => killed_later += 1,
                None if output.status.success() && acknowledged.len() == MESSAGES => finished += 1,
                _ => panic!("{name}: {output:?}"),
            }
            check(&directory, &acknowledged, &name);
        }
    }
    eprintln!(
        "{killed_at_once} killed before the first message, {killed_later} later, {finished} not at all"
    );
    assert!(killed_at_once > 0 && killed_later > 0 && finished > 0);
}
