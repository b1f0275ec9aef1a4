//! What goes in comes out, byte for byte.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::Write;

use common::Data;

/// Bytes that look random, the same at every run, zeros among them.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 17_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn output(data: &Data, arguments: &[&str]) -> Vec<u8> {
    let output = data.command(arguments).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

#[test]
fn a_million_lines_come_out_byte_for_byte() {
    let data = Data::new();
    let mut text = Vec::new();
    for n in 0..1_000_000_u64 {
        writeln!(text, "{n} {}", "x".repeat(usize::try_from(n * 31 % 97).unwrap())).unwrap();
    }
    data.ok_with(&["produce", "orders", "--durability", "written"], &text);
    assert!(output(&data, &["consume", "orders"]) == text);
    assert!(output(&data, &["consume", "orders", "--group", "billing"]) == text);
    assert!(output(&data, &["consume", "orders", "--group", "billing"]).is_empty());
    data.ok(&["verify"]);
}

#[test]
fn binary_data_between_zero_bytes_comes_out_as_it_went_in() {
    let data = Data::new();
    let mut bytes = noise(300_000);
    bytes.push(0);
    data.ok_with(&["produce", "orders", "-0"], &bytes);
    assert!(output(&data, &["consume", "orders", "-0"]) == bytes);
}

#[test]
fn binary_data_travels_as_json_from_one_directory_to_another() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "2"]);
    data.ok_with(&["produce", "orders", "-0", "--header", "h=\u{e9}", "--partition", "1"], &noise(100_000));
    data.ok_with(
        &["produce", "orders", "--key-separator", ":", "--null-value", "-"],
        b"k:\"v\"\nk:-\n\xff:\xfe\n",
    );
    let records = output(&data, &["consume", "orders", "--json"]);
    let copy = Data::new();
    copy.ok(&["topic", "create", "orders", "--partitions", "2"]);
    copy.ok_with(&["produce", "orders", "--json"], &records);
    let again = output(&copy, &["consume", "orders", "--json"]);
    // All is the same but when it was appended.
    let without_time = |records: &[u8]| -> Vec<serde_json::Value> {
        let lines = std::str::from_utf8(records).unwrap().lines().map(common::json);
        let lines = lines.map(|mut record| {
            record.as_object_mut().unwrap().remove("appended");
            record
        });
        lines.collect()
    };
    assert!(without_time(&again) == without_time(&records));
    assert!(data.records("orders-0") == copy.records("orders-0"));
    assert!(data.records("orders-1") == copy.records("orders-1"));
}

#[test]
fn a_pipe_of_two_commands_ends_with_its_input() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\nb\n");
    let printed = data.ok(&["consume", "orders"]);
    data.ok_with(&["produce", "copies"], printed.as_bytes());
    assert_eq!(data.ok(&["consume", "copies"]), "a\nb\n");
}

#[test]
fn what_was_acknowledged_before_a_crash_is_printed_after_it() {
    let data = Data::new();
    let mut child = data.start(&["produce", "orders", "--acks"]);
    let mut input = child.stdin.take().unwrap();
    let mut acks = std::io::BufReader::new(child.stdout.take().unwrap());
    for n in 0..10 {
        writeln!(input, "{n}").unwrap();
        std::io::BufRead::read_line(&mut acks, &mut String::new()).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = data.run(&["consume", "orders", "--format", "%s,"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0,1,2,3,4,5,6,7,8,9,"), "{ran:?}");
    assert!(ran.stderr.starts_with("warning: orders-0 was not closed in order"), "{ran:?}");
    assert_eq!(data.ok(&["consume", "orders", "--max", "1"]), "0\n");
}
