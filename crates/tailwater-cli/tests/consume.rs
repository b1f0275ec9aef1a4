//! `consume` prints the records that it should, from where to where it is told.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Data, json};

/// A topic of one partition with the records `0`, `1`, ...
fn numbered(data: &Data, topic: &str, count: u32) {
    let lines: String = (0..count).map(|n| format!("{n}\n")).collect();
    data.ok_with(&["produce", topic], lines.as_bytes());
}

#[test]
fn everything_is_printed_once_and_in_order() {
    let data = Data::new();
    numbered(&data, "orders", 1000);
    let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(data.ok(&["consume", "orders"]), expected);
    assert_eq!(data.ok(&["consume", "ORDERS", "--max", "2"]), "0\n1\n");
    data.ok(&["topic", "create", "empty"]);
    assert_eq!(data.ok(&["consume", "empty"]), "");
}

#[test]
fn where_it_begins_and_ends_can_be_said() {
    let data = Data::new();
    numbered(&data, "orders", 10);
    let consume = |arguments: &[&str]| {
        let all = [&["consume", "orders", "--format", "%s,"][..], arguments].concat();
        data.ok(&all)
    };
    assert_eq!(consume(&["--from", "earliest"]), "0,1,2,3,4,5,6,7,8,9,");
    assert_eq!(consume(&["--from", "latest"]), "");
    assert_eq!(consume(&["--from", "7"]), "7,8,9,");
    assert_eq!(consume(&["--from", "10"]), "");
    assert_eq!(consume(&["--from", "-3"]), "7,8,9,");
    assert_eq!(consume(&["--from", "-100"]), "0,1,2,3,4,5,6,7,8,9,");
    assert_eq!(consume(&["--from", "1h"]), "0,1,2,3,4,5,6,7,8,9,");
    assert_eq!(consume(&["--from", "2200-01-01T00:00:00Z"]), "");
    assert_eq!(consume(&["--until", "3"]), "0,1,2,");
    assert_eq!(consume(&["--until", "-8"]), "0,1,");
    assert_eq!(consume(&["--until", "earliest"]), "");
    assert_eq!(consume(&["--until", "latest"]), "0,1,2,3,4,5,6,7,8,9,");
    assert_eq!(consume(&["--until", "1h"]), "");
    assert_eq!(consume(&["--until", "2200-01-01T00:00:00Z", "--max", "1"]), "0,");
    assert_eq!(consume(&["--from", "2", "--until", "5", "--max", "2"]), "2,3,");
    assert_eq!(consume(&["--from", "5", "--until", "2"]), "");
    assert_eq!(consume(&["--max", "0"]), "");
    // An end that is given ends following too.
    assert_eq!(consume(&["--from", "2", "--until", "5", "--follow"]), "2,3,4,");
    assert_eq!(consume(&["--follow", "--max", "3"]), "0,1,2,");
    data.fails(1, &["offset 11 is outside [0, 10] in orders-0"], &["consume", "orders", "--from", "11"]);
}

#[test]
fn partitions_and_topics_are_chosen() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "3"]);
    for partition in ["0", "1", "2"] {
        data.ok_with(
            &["produce", "orders", "--partition", partition],
            format!("p{partition}\nq{partition}\n").as_bytes(),
        );
    }
    data.ok_with(&["produce", "mails"], b"mail\n");
    let lines = |arguments: &[&str]| {
        let printed = data.ok(&[&["consume", "--format", "%t-%p/%o:%s\n"][..], arguments].concat());
        let mut lines: Vec<_> = printed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&["orders", "--partition", "1"]), ["orders-1/0:p1", "orders-1/1:q1"]);
    assert_eq!(
        lines(&["orders", "--partition", "2", "--partition", "0", "--from", "-1"]),
        ["orders-0/1:q0", "orders-2/1:q2"]
    );
    assert_eq!(lines(&["orders", "mails"]).len(), 7);
    assert_eq!(lines(&["mails", "mails"]), ["mails-0/0:mail"]);
    data.fails(1, &["topic orders has no partition 3"], &["consume", "orders", "--partition", "3"]);
    data.fails(1, &["there is no topic nosuch"], &["consume", "nosuch"]);
}

#[test]
fn a_format_prints_every_part() {
    let data = Data::new();
    data.ok_with(
        &["produce", "orders", "--key-separator", ":", "--header", "h=1", "--null-value", "-"],
        b"k:v\nx:-\n",
    );
    let format = r"%t %p %o [%k] %K [%s] %S %h %%\n";
    assert_eq!(
        data.ok(&["consume", "orders", "--format", format]),
        "orders 0 0 [k] 1 [v] 1 h=1 %\norders 0 1 [x] 1 [] -1 h=1 %\n"
    );
    let record = json(data.ok(&["consume", "orders", "--json"]).lines().next().unwrap());
    let times: Vec<_> =
        data.ok(&["consume", "orders", "--format", r"%T\n"]).lines().map(str::to_owned).collect();
    assert_eq!(record["timestamp"].to_string(), times[0]);
    assert_eq!((&record["key"], &record["value"]), (&"k".into(), &"v".into()));
    data.fails(2, &["there is no token `%q`"], &["consume", "orders", "--format", "%q"]);
    data.fails(2, &["a position is earliest"], &["consume", "orders", "--from", "somewhere"]);
    data.fails(2, &["cannot be used with"], &["consume", "orders", "--format", "%s", "-0"]);
}

#[test]
fn damage_ends_it_after_the_good_records_before_it() {
    let data = Data::new();
    for n in 0..3 {
        data.ok_with(&["produce", "orders"], format!("{n}{}\n", "x".repeat(100)).as_bytes());
    }
    let segment = data.segment("orders-0");
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(4).position(|window| window == b"1xxx").unwrap();
    common::damage(&segment, at);
    let ran = data.run(&["consume", "orders", "--format", "%o,"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "0,"), "{ran:?}");
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("(offsets [1, 2))"), "{ran:?}");
    assert_eq!(data.ok(&["consume", "orders", "--format", "%o,", "--from", "2"]), "2,");
}

#[test]
fn records_that_were_removed_are_missed_loudly() {
    let data = Data::new();
    numbered(&data, "orders", 5);
    data.ok(&["groups", "create", "billing", "orders", "--at", "earliest"]);
    data.ok(&["topic", "delete-records", "orders:0", "3"]);
    let ran = data.run(&["consume", "orders", "--group", "billing"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "3\n4\n"), "{ran:?}");
    assert_eq!(ran.stderr, "warning: orders-0: offsets [0, 3) were removed before they were read\n");
    // Once.
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing"]), "");
    assert_eq!(data.ok(&["consume", "orders"]), "3\n4\n");
}
