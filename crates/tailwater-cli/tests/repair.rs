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

/// With a topic of two partitions, whose catalog is damaged.
fn without_catalog() -> Data {
    let data = damaged();
    data.ok(&["topic", "create", "mails", "--partitions", "2", "--set", "segment_bytes=65536"]);
    data.ok_with(&["produce", "mails", "--partition", "1"], b"a mail\n");
    damage(&data.path().join("catalog"), 40);
    data
}

#[test]
fn a_damaged_catalog_is_told_and_rebuilt_only_when_that_is_said() {
    let data = without_catalog();
    let catalog = data.path().join("catalog");
    let damaged = fs::read(&catalog).unwrap();
    data.fails(3, &["is damaged: checksum", "restore it from a backup", "`tailwater repair`"], &["verify"]);
    data.fails(3, &["`tailwater repair`"], &["produce", "mails"]);
    data.fails(2, &["--yes", "verify"], &["repair"]);
    assert_eq!(fs::read(&catalog).unwrap(), damaged);
    assert!(!data.path().join("quarantine").exists());

    let ran = data.run(&["repair", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in [
        "catalog was rebuilt: it was damaged: checksum",
        "what was there is kept in ",
        "mails: found with 2 partitions; its settings are lost",
        "orders: found with 1 partition; ",
        "orders-0: the records at offsets [2, 3) are lost",
    ] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("__groups"), "{}", ran.stderr);
    let kept = fs::read_dir(data.path().join("quarantine")).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(kept.path()).unwrap(), damaged);
    assert_eq!(table(&ran.stdout).len(), 5, "{}", ran.stdout);
    data.ok(&["verify"]);
    assert_eq!(data.ok(&["consume", "mails"]), "a mail\n");
    let ran = data.run(&["consume", "orders", "--group", "billing"]);
    assert!(ran.stdout.starts_with("record 1 "), "the group is where it was: {}", ran.stdout);
    let again = json(&data.ok(&["repair", "--yes", "--json"]));
    assert_eq!((again.as_array().unwrap().len(), &again[0]["topic"]), (4, &"mails".into()));
}

#[test]
fn a_missing_catalog_is_rebuilt_with_what_else_there_is() {
    let data = without_catalog();
    fs::remove_file(data.path().join("catalog")).unwrap();
    fs::remove_dir_all(data.path().join("mails-0")).unwrap();
    fs::create_dir(data.path().join("notes")).unwrap();
    data.fails(3, &["no catalog file", "`tailwater repair`"], &["verify"]);
    let ran = data.run(&["repair", "--yes", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("mails-0: there is no such directory"), "{}", ran.stderr);
    assert!(ran.stderr.contains("notes is not in the catalog: it is none of Tailwater's"), "{}", ran.stderr);
    let repaired = json(&ran.stdout);
    let catalog = &repaired[0]["catalog"];
    assert_eq!(
        (&catalog["damage"], &catalog["topics"][1]["topic"]),
        (&"it was missing".into(), &"mails".into())
    );
    assert_eq!(
        (&catalog["topics"][1]["missing"][0], &catalog["topics"][1]["partitions"]),
        (&0.into(), &2.into())
    );
    assert_eq!(catalog["left_out"][0]["name"], "notes");
    assert_eq!(repaired.as_array().unwrap().len(), 5);
    let ran = data.run(&["verify"]);
    assert_eq!(ran.code, 0, "what was missing was made anew: {}", ran.stderr);
}

#[test]
fn directories_that_contradict_each_other_are_named() {
    let data = without_catalog();
    fs::rename(data.path().join("mails-1"), data.path().join("mails-3")).unwrap();
    data.fails(3, &["mails-3 holds", "a directory was moved or renamed"], &["repair", "--yes"]);
    fs::rename(data.path().join("mails-3"), data.path().join("other-1")).unwrap();
    data.fails(3, &["mails-0 and ", "other-1 have the names of two topics", "move"], &["repair", "--yes"]);
    fs::rename(data.path().join("other-1"), data.path().join("mails-1")).unwrap();
    assert_eq!(data.run(&["repair", "--yes"]).code, 0);
    data.ok(&["verify"]);
}
