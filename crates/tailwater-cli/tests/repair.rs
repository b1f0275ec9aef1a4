//! `repair`: gives up what is damaged only when told so, keeps its bytes, and leaves a directory that verifies.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;

use common::{Data, damage, json, table};

fn damaged() -> Data {
    let data = Data::new();
    for n in 0..5 {
        data.ok_with(&["produce", "orders"], format!("record {n} {}\n", "x".repeat(200)).as_bytes());
    }
    data.ok(&["consume", "orders", "--group", "billing", "--max", "1"]);
    let segment = data.segment("orders-0");
    let parts = data.ok(&["dump", "--json", segment.to_str().unwrap()]);
    let third = parts.lines().map(json).filter(|part| part["part"] == "batch").nth(2).unwrap();
    damage(&segment, usize::try_from(third["position"].as_u64().unwrap()).unwrap() + 100);
    data
}

#[test]
fn what_is_damaged_is_given_up_only_when_that_is_said() {
    let data = damaged();
    let segment = fs::read(data.segment("orders-0")).unwrap();
    data.fails(2, &["--yes", "verify"], &["repair"]);
    assert_eq!(fs::read(data.segment("orders-0")).unwrap(), segment);
}

#[test]
fn a_repaired_directory_verifies_and_consumers_are_told_of_the_gap() {
    let data = damaged();
    data.fails(3, &["1 damaged place", "repair"], &["verify"]);
    let ran = data.run(&["repair", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("orders-0: the records at offsets [2, 3) are lost"), "{}", ran.stderr);
    assert!(ran.stderr.contains("quarantine"), "{}", ran.stderr);
    let rows = table(&ran.stdout);
    assert_eq!(rows[1], ["orders", "0", "1", "1", "1"]);
    assert_eq!(rows[2], ["__groups", "0", "0", "0", "0"]);
    data.ok(&["verify"]);
    data.ok_with(&["produce", "orders"], b"after\n");
    let ran = data.run(&["consume", "orders", "--group", "billing"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<_> = ran.stdout.lines().map(|line| &line[..8.min(line.len())]).collect();
    assert_eq!(lines, ["record 1", "record 3", "record 4", "after"]);
    assert!(ran.stderr.contains("offsets [2, 3)"), "the gap is told: {}", ran.stderr);
    let again = json(&data.ok(&["repair", "orders", "--yes", "--json"]));
    assert_eq!((&again[0]["damage"], &again[0]["lost"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn a_directory_in_use_or_missing_is_not_repaired() {
    let data = damaged();
    let mut writer = data.start(&["produce", "mails"]);
    while !data.path().join("mails-0").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    data.fails(4, &["in use"], &["repair", "--yes"]);
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    data.fails(1, &["mials", "mails"], &["repair", "mials", "--yes"]);
    let nothing = Data::new();
    nothing.fails(1, &["there is no directory"], &["repair", "--yes"]);
}
