//! Groups go on where they stopped, and are moved, shown and deleted.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Data, json, table};

fn with_orders(count: u32) -> Data {
    let data = Data::new();
    let lines: String = (0..count).map(|n| format!("{n}\n")).collect();
    data.ok_with(&["produce", "orders"], lines.as_bytes());
    data
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let data = with_orders(5);
    let billing = |arguments: &[&str]| {
        data.ok(&[&["consume", "orders", "--group", "billing", "--format", "%s,"][..], arguments].concat())
    };
    assert_eq!(billing(&["--max", "2"]), "0,1,");
    assert_eq!(billing(&["--until", "3"]), "2,");
    assert_eq!(billing(&["--no-commit"]), "3,4,");
    assert_eq!(billing(&["--from", "earliest"]), "3,4,");
    assert_eq!(billing(&[]), "");
    data.ok_with(&["produce", "orders"], b"5\n");
    assert_eq!(billing(&[]), "5,");
    // Another group, at another place; `--from` is for where it has not been.
    assert_eq!(data.ok(&["consume", "orders", "--group", "kitchen", "--from", "4", "--max", "1"]), "4\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "kitchen", "--from", "0"]), "5\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "new", "--no-commit", "--from", "-1"]), "5\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "other", "--from", "-2", "--max", "1"]), "4\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "other", "--from", "-1"]), "5\n");
    let listed = table(&data.ok(&["groups", "list"]));
    assert_eq!(listed, [["GROUP", "PARTITIONS"], ["billing", "1"], ["kitchen", "1"], ["other", "1"]]);
}

#[test]
fn a_description_shows_positions_and_lag() {
    let data = with_orders(5);
    data.ok(&["consume", "orders", "--group", "billing", "--max", "2"]);
    let described = table(&data.ok(&["groups", "describe", "billing"]));
    assert_eq!(described[0], ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "COMMITTED_AT", "METADATA"]);
    assert_eq!(described[1][..5], ["orders", "0", "2", "5", "3"]);
    let described = json(&data.ok(&["groups", "describe", "billing", "--json"]));
    assert_eq!((&described[0]["committed_offset"], &described[0]["lag"]), (&2.into(), &3.into()));
    assert_eq!(
        json(&data.ok(&["groups", "list", "--json"])),
        json(r#"[{"group":"billing","partitions":1}]"#)
    );
}

#[test]
fn a_group_is_created_moved_and_forgotten() {
    let data = with_orders(10);
    data.ok(&["topic", "alter", "orders", "--partitions", "2"]);
    data.ok(&["groups", "create", "billing", "orders", "--at", "latest"]);
    data.ok_with(&["produce", "orders", "--partition", "0"], b"10\n");
    let lag = || json(&data.ok(&["groups", "describe", "billing", "--json"]))[0]["lag"].as_u64().unwrap();
    assert_eq!(lag(), 1);
    let parts = ["group billing has committed offsets in topic orders already"];
    data.fails(1, &parts, &["groups", "create", "billing", "orders", "--at", "earliest"]);

    let reset = |to: &str, more: &[&str]| {
        table(
            &data.ok(&[&["groups", "reset", "billing", "--topic", "orders", "--to", to][..], more].concat()),
        )
    };
    assert_eq!(reset("earliest", &["--dry-run"])[1], ["orders", "0", "10", "0"]);
    assert_eq!(lag(), 1);
    assert_eq!(reset("earliest", &[])[1], ["orders", "0", "10", "0"]);
    assert_eq!(lag(), 11);
    assert_eq!(reset("-3", &[])[1..], [["orders", "0", "0", "8"], ["orders", "1", "0", "0"]]);
    assert_eq!(lag(), 3);
    assert_eq!(reset("1h", &[])[1], ["orders", "0", "8", "0"]);
    let one = table(&data.ok(&["groups", "reset", "billing", "--topic", "orders:0", "--to", "4"]));
    assert_eq!(one[1..], [["orders", "0", "0", "4"]]);
    let arguments = ["groups", "reset", "billing", "--topic", "orders:0", "--to", "99", "--json"];
    data.fails(1, &["offset 99 is outside [0, 11]"], &arguments);

    data.ok(&["groups", "delete", "billing"]);
    assert_eq!(table(&data.ok(&["groups", "list"])).len(), 1);
    for command in [
        &["groups", "describe", "billing"][..],
        &["groups", "delete", "billing"],
        &["groups", "reset", "billing", "--topic", "orders", "--to", "0"],
    ] {
        data.fails(1, &["there is no group billing"], command);
    }
    data.fails(1, &["there is no topic mails"], &["groups", "create", "billing", "mails", "--at", "0"]);
    data.ok(&["groups", "create", "kitchen", "orders", "--at", "-2"]);
    assert_eq!(json(&data.ok(&["groups", "describe", "kitchen", "--json"]))[0]["lag"], 2);
    data.fails(2, &["is no group name"], &["groups", "create", "", "orders", "--at", "0"]);
}

#[test]
fn a_second_consumer_with_a_group_is_told_of_the_first_and_readers_are_not_kept_out() {
    let data = with_orders(2);
    let mut first = data.start(&["consume", "orders", "--group", "billing", "--follow"]);
    let mut lines = std::io::BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    let holder = format!("process {} (tailwater)", first.id());
    data.fails(4, &[&holder], &["consume", "orders", "--group", "kitchen"]);
    data.fails(4, &[&holder], &["groups", "reset", "billing", "--topic", "orders", "--to", "0"]);
    assert_eq!(data.ok(&["consume", "orders"]), "0\n1\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "kitchen", "--no-commit"]), "0\n1\n");
    assert_eq!(data.run(&["groups", "describe", "billing"]).code, 0);
    data.ok(&["groups", "reset", "billing", "--topic", "orders", "--to", "0", "--dry-run"]);
    first.kill().unwrap();
    first.wait().unwrap();
}
