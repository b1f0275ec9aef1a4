//! Kills `tailwater consume --group` again and again: no record is missed, and what was committed was printed.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::thread;
use std::time::Duration;

use common::Data;

const CYCLES: u64 = 60;
const RECORDS: u64 = 1_000_000;

/// What the consumers printed, one after the other.
#[derive(Default)]
struct Printed {
    /// Below this every record was printed.
    next: u64,
    /// What this consumer printed last.
    last: Option<u64>,
    repeated: u64,
    resumptions: u64,
}

impl Printed {
    fn see(&mut self, line: &str) {
        let n: u64 = line.trim_end().parse().unwrap();
        match self.last {
            Some(last) => assert_eq!(n, last + 1, "records follow each other"),
            None => {
                assert!(n <= self.next, "a consumer begins at {n}, and {} was not printed", self.next);
                self.repeated += self.next - n;
                self.resumptions += u64::from(n > 0);
            }
        }
        self.last = Some(n);
        self.next = self.next.max(n + 1);
    }
}

#[test]
fn each_record_is_printed_by_a_consumer_or_by_the_next_one() {
    let data = Data::on_disk();
    let lines: String = (0..RECORDS).map(|n| format!("{n}\n")).collect();
    data.ok_with(&["produce", "orders"], lines.as_bytes());

    let mut printed = Printed::default();
    for cycle in 0..CYCLES {
        let mut child = data.start(&["consume", "orders", "--group", "billing", "--follow"]);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        printed.last = None;
        let mut line = String::new();
        for _ in 0..(cycle * 7919 * 13) % 120_000 {
            // Who has read everything prints nothing more.
            if printed.next == RECORDS {
                break;
            }
            line.clear();
            output.read_line(&mut line).unwrap();
            printed.see(&line);
        }
        thread::sleep(Duration::from_micros(cycle * 997 % 5000));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        // The last line may be cut.
        rest.split_inclusive('\n').filter(|line| line.ends_with('\n')).for_each(|line| printed.see(line));
        let mut warned = String::new();
        child.stderr.take().unwrap().read_to_string(&mut warned).unwrap();
        assert!(!warned.contains("error:"), "cycle {cycle}: {warned}");
    }
    printed.last = None;
    let rest = data.run(&["consume", "orders", "--group", "billing"]);
    assert_eq!(rest.code, 0, "{rest:?}");
    rest.stdout.lines().for_each(|line| printed.see(line));
    assert_eq!(printed.next, RECORDS);
    assert_eq!(data.run(&["verify"]).code, 0);
    println!(
        "{CYCLES} kills, {} resumptions, {} records printed again",
        printed.resumptions, printed.repeated
    );
    assert!(printed.resumptions > 0);
}
