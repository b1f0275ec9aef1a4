//! Damage is named, costs exit code 3, and is never confused with a torn tail; nothing is changed by looking.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::{Data, damage, json, table};

/// A topic with a batch for each record, in one segment, closed in order.
fn batches(data: &Data, count: u32) {
    for n in 0..count {
        data.ok_with(&["produce", "orders"], format!("record {n} {}\n", "x".repeat(200)).as_bytes());
    }
}

/// The positions of the batches of a segment.
fn positions(data: &Data, segment: &Path) -> Vec<usize> {
    let lines = data.ok(&["dump", "--json", segment.to_str().unwrap()]);
    let lines = lines.lines().map(json).filter(|line| line["part"] == "batch");
    lines.map(|line| usize::try_from(line["position"].as_u64().unwrap()).unwrap()).collect()
}

/// Every file below a directory, with its bytes.
fn contents(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path))
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()))
        }
    }
    all.sort();
    all
}

#[test]
fn sound_data_verifies_and_is_not_touched() {
    let data = Data::new();
    batches(&data, 3);
    let before = contents(&data.path());
    let verified = table(&data.ok(&["verify"]));
    assert_eq!(verified[1][..5], ["orders", "0", "1", "3", "3"]);
    assert_eq!(verified[2][0], "__groups");
    assert_eq!(table(&data.ok(&["verify", "orders"])).len(), 2);
    let verified = json(&data.ok(&["verify", "--json"]));
    assert_eq!((&verified[0]["records"], &verified[0]["damage"]), (&3.into(), &serde_json::json!([])));
    assert_eq!(contents(&data.path()), before);
}

#[test]
fn each_damaged_place_is_named_and_the_code_is_three() {
    let data = Data::new();
    batches(&data, 5);
    let segment = data.segment("orders-0");
    let places = positions(&data, &segment);
    damage(&segment, places[1] + 100);
    damage(&segment, places[3]);
    let before = contents(&data.path());
    let first = format!("is corrupt at position {} (offsets [1, 2)): checksum ", places[1]);
    let second = format!("is corrupt at position {} (offsets [3, 4)): checksum ", places[3]);
    data.fails(3, &[&first, &second, "error: 2 damaged places"], &["verify"]);
    let ran = data.run(&["verify", "orders", "--json"]);
    assert_eq!(ran.code, 3);
    let verified = json(&ran.stdout);
    assert_eq!(verified[0]["records"], 3);
    assert_eq!(verified[0]["damage"][0]["first_offset"], 1);
    assert_eq!(verified[0]["damage"][1]["position_bytes"], places[3]);
    assert_eq!(contents(&data.path()), before);
}

#[test]
fn a_segment_that_is_gone_or_unreadable_is_damage() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=4096", "--set", "max_batch_bytes=1024"]);
    let lines: String = (0..100).map(|n| format!("record {n} {}\n", "x".repeat(300))).collect();
    data.ok_with(&["produce", "orders", "--acks"], lines.as_bytes());
    let first = data.segment("orders-0");
    let bytes = fs::read(&first).unwrap();
    damage(&first, 8);
    damage(&first, 520);
    data.fails(3, &["both copies of the segment header are damaged"], &["verify"]);
    data.fails(3, &["both copies of the segment header are damaged"], &["dump", first.to_str().unwrap()]);
    fs::remove_file(&first).unwrap();
    data.fails(3, &["a segment is missing"], &["verify"]);
    fs::write(&first, bytes).unwrap();
    data.ok(&["verify"]);
    fs::remove_dir_all(data.path().join("__groups-0")).unwrap();
    data.fails(1, &["__groups-0"], &["verify"]);
    fs::create_dir(data.path().join("__groups-0")).unwrap();
    data.fails(3, &["a segment is missing"], &["verify"]);
}

#[test]
fn a_torn_tail_is_a_warning_and_recovery_keeps_it() {
    let data = Data::new();
    batches(&data, 2);
    let segment = data.segment("orders-0");
    let places = positions(&data, &segment);
    let end = places[1] + (places[1] - places[0]);
    let mut bytes = fs::read(&segment).unwrap();
    // What an append leaves that a crash interrupted, in a partition that was in use.
    bytes[end..end + 50].fill(0xaa);
    fs::write(&segment, &bytes).unwrap();
    let ran = data.run(&["verify"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.starts_with("warning: ") && ran.stderr.contains("not known to be durable"), "{ran:?}");
    let ran = data.run(&["dump", segment.to_str().unwrap()]);
    assert!(ran.code == 0 && ran.stdout.contains("DAMAGED"), "{ran:?}");

    let ran = data.run_with(&["produce", "orders", "--acks"], b"next\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0\t2\n"), "{ran:?}");
    assert!(ran.stderr.contains("warning: orders-0 was not closed in order"), "{ran:?}");
    assert!(ran.stderr.contains("quarantine"), "{ran:?}");
    data.ok(&["verify"]);
    assert_eq!(data.values("orders-0").len(), 3);
}

#[test]
fn a_damaged_partition_takes_no_records_and_says_why() {
    let data = Data::new();
    batches(&data, 3);
    let segment = data.segment("orders-0");
    let places = positions(&data, &segment);
    damage(&segment, places[1] + 100);
    // Both slots of the checkpoint are damaged too, so that the open has to look at everything.
    for slot in [0, 512] {
        damage(&data.path().join("orders-0").join("checkpoint"), slot + 20);
    }
    let parts = ["line 1: ", "is corrupt at position", "0 records were acknowledged"];
    data.fails_with(3, &parts, &["produce", "orders"], b"x\n");
}

#[test]
fn a_dump_goes_on_behind_damage() {
    let data = Data::new();
    batches(&data, 4);
    let segment = data.segment("orders-0");
    let file = segment.to_str().unwrap();
    let places = positions(&data, &segment);
    let sound = data.ok(&["dump", file]);
    assert!(sound.contains("both copies verify"), "{sound}");
    assert_eq!(sound.matches("[3, 4)").count(), 1);
    damage(&segment, places[1] + 100);
    let ran = data.run(&["dump", file]);
    assert_eq!(ran.code, 3, "later batches say that it was durable");
    let line = ran.stdout.lines().find(|line| line.contains("DAMAGED: checksum")).unwrap();
    assert!(line.contains(&places[1].to_string()) && line.contains("[1, 2)"), "{line}");
    assert_eq!(ran.stdout.matches("[3, 4)").count(), 1);
    let parts: Vec<_> = data.run(&["dump", "--json", file]).stdout.lines().map(json).collect();
    let kinds: Vec<_> = parts.iter().map(|part| part["part"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["segment", "batch", "damage", "batch", "batch", "unwritten"]);
    assert_eq!(parts[2]["base_offset"], 1);
}

#[test]
fn a_sealed_segment_is_dumped_with_its_footer() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=4096", "--set", "max_batch_bytes=1024"]);
    let lines: String = (0..100).map(|n| format!("record {n} {}\n", "x".repeat(300))).collect();
    data.ok_with(&["produce", "orders"], lines.as_bytes());
    let segment = data.segment("orders-0");
    let file = segment.to_str().unwrap();
    let dumped = data.ok(&["dump", file]);
    assert!(dumped.contains("footer: offsets [0, "), "{dumped}");
    let last = json(data.ok(&["dump", "--json", file]).lines().last().unwrap());
    assert_eq!(last["part"], "footer");
    // The last batch of a sealed segment was durable, whatever follows.
    let places = positions(&data, &segment);
    damage(&segment, places[places.len() - 1] + 80);
    data.fails(3, &["is damaged from position", "was durable"], &["dump", file]);
}

#[test]
fn damage_is_told_by_the_code_also_where_nobody_reads_the_table() {
    let data = Data::new();
    batches(&data, 2);
    let segment = data.segment("orders-0");
    let places = positions(&data, &segment);
    damage(&segment, places[0] + 100);
    for arguments in [&["verify"][..], &["dump", segment.to_str().unwrap()]] {
        let mut child = data.start(arguments);
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(3), "{arguments:?}");
    }
}
