//! One writer: a second one is told who the first is; readers do not mind.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use common::{Data, json};

#[test]
fn a_second_writer_is_told_who_the_first_is_and_readers_are_let_in() {
    let data = Data::new();
    let mut first = data.start(&["produce", "orders", "--acks"]);
    let mut input = first.stdin.take().unwrap();
    let mut acks = BufReader::new(first.stdout.take().unwrap());
    writeln!(input, "one").unwrap();
    let mut ack = String::new();
    acks.read_line(&mut ack).unwrap();
    assert_eq!(ack, "0\t0\n");

    let holder = format!("process {} (tailwater)", first.id());
    let parts = ["is in use by ", holder.as_str(), "--lock-timeout 10s"];
    for command in [
        &["produce", "orders"][..],
        &["topic", "create", "mails"],
        &["topic", "alter", "orders", "--partitions", "2"],
        &["topic", "delete", "orders"],
        &["topic", "truncate", "orders:0", "0"],
        &["topic", "delete-records", "orders:0", "0"],
        &["groups", "create", "billing", "orders", "--at", "latest"],
        &["groups", "reset", "billing", "--topic", "orders", "--to", "latest"],
        &["groups", "delete", "billing"],
        &["consume", "orders", "--group", "billing"],
    ] {
        data.fails(4, &parts, command);
    }
    let told =
        data.fails(4, &["add --no-commit to read beside it"], &["consume", "orders", "--group", "billing"]);
    assert_eq!(told.lines().count(), 1);
    assert_eq!(data.ok(&["consume", "orders"]), "one\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing", "--no-commit"]), "one\n");
    data.ok(&["groups", "list"]);
    let info = json(&data.ok(&["info", "--json"]));
    assert_eq!(info["holder"], holder);
    assert_eq!(info["partitions"][0]["is_clean"], false);
    assert!(data.ok(&["info"]).contains(&holder));
    assert!(data.ok(&["topic", "list"]).contains("orders"));
    data.ok(&["topic", "describe", "orders"]);
    data.ok(&["offsets", "orders"]);
    assert_eq!(data.run(&["verify"]).code, 0);

    // A writer that waits gets its turn.
    let start = Instant::now();
    let parts = ["is still in use by ", holder.as_str(), " after 300ms"];
    data.fails(4, &parts, &["--lock-timeout", "300ms", "topic", "create", "mails"]);
    assert!(start.elapsed() >= Duration::from_millis(300));
    let waiting = data.start(&["topic", "create", "mails", "--lock-timeout", "1m"]);
    drop(input);
    assert!(first.wait().unwrap().success());
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success(), "{waited:?}");
    let info = json(&data.ok(&["info", "--json"]));
    assert_eq!(info["holder"], serde_json::Value::Null);
    assert!(info["partitions"].as_array().unwrap().iter().all(|partition| partition["is_clean"] == true));
}
