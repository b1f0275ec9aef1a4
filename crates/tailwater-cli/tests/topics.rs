//! Topics are created, listed, described, changed and deleted, and their records removed.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Data, json, table};

#[test]
fn a_topic_lives_from_creation_to_deletion() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "3", "--set", "segment.bytes=65536"]);
    data.ok(&["topic", "create", "mails"]);
    let listed = table(&data.ok(&["topic", "list"]));
    assert_eq!(listed[0], ["TOPIC", "PARTITIONS", "ID"]);
    assert_eq!(
        (&listed[1][..2], &listed[2][..2]),
        (&["mails".into(), "1".into()][..], &["orders".into(), "3".into()][..])
    );
    let listed = json(&data.ok(&["--json", "topic", "list"]));
    assert_eq!(listed[1]["name"], "orders");
    assert_eq!(listed[1]["partitions"], 3);

    data.ok(&["topic", "alter", "orders", "--partitions", "4", "--set", "durability=written"]);
    let described = json(&data.ok(&["topic", "describe", "orders", "--json"]));
    assert_eq!(described["partitions"], 4);
    let setting = |name: &str| {
        let settings = described["settings"].as_array().unwrap();
        let found = settings.iter().find(|setting| setting["name"] == name).unwrap();
        (found["value"].as_str().unwrap().to_owned(), found["is_default"].as_bool().unwrap())
    };
    assert_eq!(setting("durability"), ("written".to_owned(), false));
    assert_eq!(setting("segment_bytes"), ("65536".to_owned(), false));
    assert_eq!(setting("max_block_ms"), ("60000".to_owned(), true));

    data.ok(&["topic", "delete", "orders"]);
    assert_eq!(table(&data.ok(&["topic", "list"])).len(), 2);
    data.fails(1, &["there is no topic orders"], &["topic", "describe", "orders"]);
}

#[test]
fn a_description_tells_defaults_from_what_was_set() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=65536"]);
    let described = data.ok(&["topic", "describe", "orders"]);
    assert!(described.starts_with("topic orders, partitions 1, id "), "{described}");
    let described = table(&described);
    let is_there = |row: [&str; 3]| described.iter().any(|found| *found == row);
    assert!(is_there(["segment_bytes", "65536", "set"]), "{described:?}");
    assert!(is_there(["durability", "durable", "default"]), "{described:?}");
}

#[test]
fn records_are_removed_from_either_end() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n1\n2\n3\n4\n5\n");
    data.ok(&["topic", "truncate", "orders:0", "4"]);
    data.ok(&["topic", "delete-records", "orders:0", "1"]);
    assert_eq!(data.values("orders-0"), [b"1", b"2", b"3"]);
    assert_eq!(table(&data.ok(&["offsets", "orders"]))[1], ["0", "1", "4"]);
    data.fails(1, &["offset 9 is outside [1, 4]"], &["topic", "truncate", "orders:0", "9"]);
    data.fails(1, &["has no partition 1"], &["topic", "truncate", "orders:1", "0"]);
}

#[test]
fn nothing_to_change_is_a_wrong_use() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders"]);
    data.fails(2, &["--partitions, --set"], &["topic", "alter", "orders"]);
    data.fails(2, &["must be from 1 to 100000"], &["topic", "alter", "orders", "--partitions", "0"]);
}

#[test]
fn the_directory_can_come_from_the_environment() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders"]);
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("tailwater"));
    let ran = common::ran(command.env("TAILWATER_DATA", data.path()).args(["topic", "list"]));
    assert!(ran.code == 0 && ran.stdout.contains("orders"), "{ran:?}");
    // An empty one says nothing, and an argument says it before it.
    for (variable, arguments) in
        [("", &["topic", "list"][..]), ("nowhere", &["--data", "tailwater-data", "topic", "list"])]
    {
        let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("tailwater"));
        command.env("TAILWATER_DATA", variable).current_dir(data.root.path()).args(arguments);
        let ran = common::ran(&mut command);
        assert!(ran.code == 1 && ran.stderr.contains("/tailwater-data: check --data"), "{ran:?}");
    }
}

/// Between the first rename of a deletion and its end, everything that only looks at the directory failed: the catalog
/// still had the topic, and its partitions were not there.
#[test]
fn a_topic_whose_deletion_was_interrupted_is_gone_also_for_who_only_looks() {
    let data = Data::new();
    data.ok_with(&["produce", "mails"], b"a\n");
    data.ok(&["topic", "create", "orders", "--partitions", "2"]);
    let listed = json(&data.ok(&["topic", "list", "--json"]));
    let id = listed[1]["id"].as_str().unwrap();
    std::fs::rename(data.path().join("orders-1"), data.path().join(format!("{id}-1.deleted"))).unwrap();

    assert!(!data.ok(&["topic", "list"]).contains("orders"));
    data.ok(&["verify"]);
    data.ok(&["info"]);
    data.fails(1, &["there is no topic orders"], &["consume", "orders"]);
    data.fails(1, &["there is no topic orders"], &["verify", "orders"]);
    assert!(data.path().join("orders-0").exists(), "nothing was changed");
    assert_eq!(data.ok(&["consume", "mails"]), "a\n");
    // Who writes finishes it.
    data.ok_with(&["produce", "mails"], b"b\n");
    assert!(!data.path().join("orders-0").exists());
    assert!(!data.path().join(format!("{id}-1.deleted")).exists());
}
