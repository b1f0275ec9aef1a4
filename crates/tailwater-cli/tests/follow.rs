//! Following: what is produced meanwhile is printed, signals end it in order, and time-outs are told.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use common::Data;

#[test]
fn what_another_process_produces_is_printed_until_a_signal() {
    for name in ["INT", "TERM"] {
        let data = Data::new();
        data.ok_with(&["produce", "orders"], b"0\n");
        let mut child = data.start(&["consume", "orders", "--follow"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        for n in 0..3 {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            assert_eq!(line, format!("{n}\n"));
            // The reader holds no lock.
            data.ok_with(&["produce", "orders"], format!("{}\n", n + 1).as_bytes());
        }
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        common::signal(&child, name);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice(), rest.as_str()), (Some(0), &b""[..], ""));
    }
}

#[test]
fn a_group_that_a_signal_ends_has_committed_what_it_printed() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n1\n");
    let mut child = data.start(&["consume", "orders", "--group", "billing", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    for n in 0..2 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{n}\n"));
    }
    common::signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    data.ok_with(&["produce", "orders"], b"2\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing"]), "2\n");
}

#[test]
fn a_time_out_before_enough_records_is_five() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n1\n");
    let start = Instant::now();
    let ran = data.run(&["consume", "orders", "--max", "3", "--timeout", "300ms"]);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "0\n1\n"), "{ran:?}");
    assert_eq!(ran.stderr, "error: --timeout passed when 2 of 3 records had been printed\n");
    assert_eq!(data.ok(&["consume", "orders", "--max", "2", "--timeout", "1m"]), "0\n1\n");
    // Without a number it is only an end.
    assert_eq!(data.ok(&["consume", "orders", "--follow", "--timeout", "300ms"]), "0\n1\n");
    assert_eq!(data.ok(&["consume", "orders", "--timeout", "1m"]), "0\n1\n");
    // What is there already is not missed by a time-out that passes before it can be looked at.
    assert_eq!(data.ok(&["consume", "orders", "--max", "2", "--timeout", "0"]), "0\n1\n");
    assert_eq!(data.ok(&["consume", "orders", "--timeout", "0"]), "0\n1\n");
    assert_eq!(data.run(&["consume", "orders", "--max", "3", "--timeout", "0"]).code, 5);
    // Records that come in time are enough.
    let waiting = data.start(&["consume", "orders", "--max", "3", "--timeout", "1m"]);
    data.ok_with(&["produce", "orders"], b"2\n");
    let output = waiting.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"0\n1\n2\n"[..]));
}

#[test]
fn a_time_to_end_at_ends_following_also_when_nothing_comes() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n1\n");
    assert_eq!(data.ok(&["consume", "orders", "--follow", "--until", "0s"]), "0\n1\n");
    assert_eq!(data.ok(&["consume", "orders", "--follow", "--until", "1h"]), "");
    let arguments =
        ["consume", "orders", "--group", "billing", "--from", "latest", "--follow", "--until", "0s"];
    assert_eq!(data.ok(&arguments), "");
}

#[test]
fn a_topic_that_is_deleted_ends_following() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n");
    let mut child = data.start(&["consume", "orders", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    data.ok(&["topic", "delete", "orders"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "warning: topic orders was deleted\nerror: there is nothing left to read\n");
}

#[test]
fn a_closed_standard_output_ends_following_also_when_nothing_comes() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n1\n");
    for more in [&[][..], &["--group", "billing"], &["--max", "9", "--timeout", "1m"]] {
        let mut child = data.start(&[&["consume", "orders", "--follow"][..], more].concat());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "0\n");
        let start = Instant::now();
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{more:?}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn what_a_closed_standard_output_did_not_take_is_not_committed() {
    let data = Data::new();
    // The first poll's records are more than a pipe holds.
    let lines: String = (0..10_000).map(|n| format!("{n} {}\n", "x".repeat(100))).collect();
    data.ok_with(&["produce", "orders"], lines.as_bytes());
    let mut child = data.start(&["consume", "orders", "--group", "billing"]);
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(line.starts_with("0 "));
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing", "--max", "1"]), line);
}
