//! `offsets`, `info` and `completions`: what they print, and that nobody needs to read it.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Data, json, table};

#[test]
fn offsets_are_looked_up_by_time() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "2"]);
    data.ok_with(&["produce", "orders", "--partition", "1"], b"a\nb\n");
    assert_eq!(table(&data.ok(&["offsets", "orders"]))[1..], [["0", "0", "0"], ["1", "0", "2"]]);
    let at = |time: &str| table(&data.ok(&["offsets", "orders", "--at", time]));
    assert_eq!(at("1h")[0], ["PARTITION", "START", "END", "AT"]);
    assert_eq!(at("1h")[1..], [["0", "0", "0", "-"], ["1", "0", "2", "0"]]);
    assert_eq!(at("1970-01-01T00:00:00Z")[2], ["1", "0", "2", "0"]);
    assert_eq!(at("2200-01-01T00:00:00+01:00")[2], ["1", "0", "2", "-"]);
    let shown = json(&data.ok(&["--json", "offsets", "orders", "--at", "1h"]));
    let expected = serde_json::json!([
        {"partition": 0, "log_start_offset": 0, "log_end_offset": 0, "offset_at": null},
        {"partition": 1, "log_start_offset": 0, "log_end_offset": 2, "offset_at": 0},
    ]);
    assert_eq!(shown, expected);
}

#[test]
fn info_shows_every_partition() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "2", "--set", "segment_bytes=65536"]);
    data.ok_with(&["produce", "orders", "--partition", "1"], b"a\nb\n");
    let info = data.ok(&["info"]);
    assert!(info.contains("format version:  1\n") && info.contains("in use by:       nobody\n"), "{info}");
    let rows = table(&info);
    let row = rows.iter().find(|row| row.len() > 1 && row[0] == "orders" && row[1] == "1").unwrap();
    assert_eq!(row[2..8], ["0", "2", "2", "yes", "1", "1"]);
    let info = json(&data.ok(&["info", "--json"]));
    assert_eq!(info["partitions"][1]["durable_offset"], 2);
    assert_eq!(info["partitions"][1]["is_clean"], true);
    assert_eq!(info["directory"], data.path().to_str().unwrap());
}

#[test]
fn a_partition_that_cannot_be_shown_does_not_hide_the_others() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "2"]);
    std::fs::remove_file(data.segment("orders-0")).unwrap();
    let ran = data.run(&["info", "--json"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let told: Vec<_> = ran.stderr.lines().collect();
    assert!(
        told[0].starts_with("warning: orders-0: ") && told[0].contains("a segment is missing"),
        "{told:?}"
    );
    assert_eq!(told[1..], ["error: 1 of 2 partitions cannot be shown"]);
    let info = json(&ran.stdout);
    assert!(info["partitions"][0]["error"].as_str().unwrap().contains("a segment is missing"));
    assert_eq!(info["partitions"][1]["log_end_offset"], 0);
}

#[test]
fn every_shell_gets_its_completions() {
    let data = Data::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = data.ok(&["completions", shell]);
        assert!(script.contains("delete-records") && script.contains("no-create"), "{shell}");
    }
    data.fails(2, &["invalid value 'tcsh'"], &["completions", "tcsh"]);
    assert!(!data.path().exists());
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\n");
    let segment = data.segment("orders-0");
    for arguments in [
        &["topic", "list"][..],
        &["topic", "describe", "orders"],
        &["offsets", "orders"],
        &["info", "--json"],
        &["verify"],
        &["completions", "bash"],
        &["dump", segment.to_str().unwrap()],
        &["--help"],
    ] {
        let mut child = data.start(arguments);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
}
