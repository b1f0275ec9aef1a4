//! A slow input holds nothing back: each line is sent, and acknowledged, when it is there.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};

use common::Data;

#[test]
fn each_line_is_acknowledged_before_the_next_is_written() {
    for durability in ["buffered", "written", "durable"] {
        let data = Data::new();
        let mut child = data.start(&["produce", "orders", "--acks", "--durability", durability]);
        let mut input = child.stdin.take().unwrap();
        let mut acks = BufReader::new(child.stdout.take().unwrap());
        for n in 0..20 {
            writeln!(input, "line {n}").unwrap();
            let mut ack = String::new();
            acks.read_line(&mut ack).unwrap();
            assert_eq!(ack, format!("0\t{n}\n"));
        }
        // An unfinished line waits for its end, which is that of the input.
        write!(input, "last").unwrap();
        drop(input);
        let mut rest = String::new();
        acks.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "0\t20\n");
        assert!(child.wait().unwrap().success());
        assert_eq!(data.values("orders-0")[20], b"last");
    }
}

#[test]
fn what_was_sent_is_seen_by_others_while_the_input_waits() {
    let data = Data::new();
    let mut child = data.start(&["produce", "orders"]);
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "one").unwrap();
    let is_seen = || {
        let ran = data.run(&["offsets", "orders", "--json"]);
        ran.code == 0 && common::json(&ran.stdout)[0]["log_end_offset"] == 1
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_seen() {
        assert!(std::time::Instant::now() < deadline, "the record was held back");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_standard_output_ends_it_without_a_word() {
    let data = Data::new();
    let mut child = data.start(&["produce", "orders", "--acks"]);
    drop(child.stdout.take());
    // It ends although its input does not.
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "one").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(data.values("orders-0"), [b"one"]);
    drop(input);
}

#[test]
fn a_million_lines_arrive_in_order() {
    let data = Data::new();
    let mut text = Vec::new();
    for n in 0..1_000_000 {
        writeln!(text, "line {n} of a million, with some more in it").unwrap();
    }
    let acks = data.ok_with(&["produce", "orders", "--durability", "written", "--acks"], &text);
    assert!(acks.lines().enumerate().all(|(n, line)| line == format!("0\t{n}")));
    assert_eq!(acks.lines().count(), 1_000_000);
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    data.for_each_record("orders-0", |record| {
        let line = lines.next().unwrap();
        assert_eq!(record.value(), Some(&line[..line.len() - 1]));
    });
    assert_eq!(lines.next(), None);
}
