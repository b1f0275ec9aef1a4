//! A signal that ends `produce` leaves a directory that was closed in order.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;

use common::Data;

#[test]
fn a_signal_closes_the_directory_before_it_ends_the_process() {
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let data = Data::new();
        let mut child = data.start(&["produce", "orders", "--acks"]);
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "one").unwrap();
        let mut acks = BufReader::new(child.stdout.take().unwrap());
        let mut ack = String::new();
        acks.read_line(&mut ack).unwrap();
        assert_eq!(ack, "0\t0\n");
        common::signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.signal(), output.stderr.as_slice()), (Some(number), &b""[..]));
        let info = common::json(&data.ok(&["info", "--json"]));
        assert_eq!(info["partitions"][0]["is_clean"], true);
        // Nothing was recovered, which would be a warning.
        assert_eq!(data.ok_with(&["produce", "orders", "--acks"], b"two\n"), "0\t1\n");
        drop(input);
    }
}

#[test]
fn a_signal_in_the_middle_of_the_stream_loses_nothing_that_was_acknowledged() {
    let data = Data::new();
    for round in 0..5_u64 {
        let mut child = data.start(&["produce", "orders", "--acks"]);
        let mut input = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || while writeln!(input, "a line of some length").is_ok() {});
        let mut acks = BufReader::new(child.stdout.take().unwrap());
        let mut last = String::new();
        acks.read_line(&mut last).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(7 * round));
        common::signal(&child, "TERM");
        let mut rest = String::new();
        acks.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.signal(), output.stderr.as_slice()), (Some(15), &b""[..]));
        writing.join().unwrap();
        // The last line may be cut, since the signal ended its printing.
        let whole = &rest[..rest.rfind('\n').map_or(0, |at| at + 1)];
        let last = whole.lines().last().unwrap_or(last.trim_end());
        let acknowledged: u64 = last.split('\t').nth(1).unwrap().parse().unwrap();
        let offsets = common::json(&data.ok(&["offsets", "orders", "--json"]));
        let end = offsets[0]["log_end_offset"].as_u64().unwrap();
        assert!(end > acknowledged, "round {round}: {acknowledged} was acknowledged, and the end is {end}");
        let info = common::json(&data.ok(&["info", "--json"]));
        assert_eq!(info["partitions"][0]["is_clean"], true, "round {round}");
    }
}
