//! `export` and `import`: what comes out goes in as it was, and what is wrong is told.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Data, damage, json};
use proptest::collection::vec;
use proptest::prelude::*;
use tailwater::{Broker, Header, Message, PartitionId, Timestamp, TopicConfig};

const PARTITIONS: u32 = 3;

/// A record but for what an import makes anew: its offset and append time.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    partition: u32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    created_ms: i64,
}

fn publish(directory: &Path, records: &[Kept]) {
    let broker = Broker::open(directory).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(PARTITIONS)).unwrap();
    let orders = broker.producer("orders").unwrap();
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let message = match (&record.key, &record.value) {
            (Some(key), Some(value)) => Message::new(value).key(key),
            (Some(key), None) => Message::tombstone(key),
            (None, value) => Message::new(value.as_deref().unwrap()),
        };
        let message = message.headers(&headers).partition(PartitionId::new(record.partition));
        drop(orders.send(message.created_at(Timestamp::from_millis(record.created_ms))).unwrap());
    }
    broker.close().unwrap();
}

/// All records, those of a partition in order.
fn read(directory: &Path) -> Vec<Kept> {
    let broker = Broker::attach_read_only(directory).unwrap();
    let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
    let mut all = Vec::new();
    loop {
        let records = reader.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            all.sort_by_key(|record: &Kept| record.partition);
            return all;
        }
        all.extend(records.iter().map(|record| {
            Kept {
                partition: record.partition().get(),
                key: record.key().map(<[u8]>::to_vec),
                value: record.value().map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
                created_ms: record.created_at().as_millis(),
            }
        }));
    }
}

/// Text that JSON has to escape, bytes that are no text, and what only looks like JSON or Base64.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..40),
        any::<String>().prop_map(String::into_bytes),
        prop::sample::select(vec![
            &b""[..],
            b"\0",
            b"\n",
            b"\r\n",
            b"\"",
            b"\\",
            b"\\u0000",
            b"null",
            b"{}",
            b"AP8=",
            b"\xff",
            b"\xc3",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            "\u{2028}\u{feff}\u{10ffff}\u{7f}".as_bytes(),
        ])
        .prop_map(<[u8]>::to_vec),
    ]
}

fn record() -> impl Strategy<Value = Kept> {
    let headers = vec((any::<String>(), prop::option::of(bytes())), 0..4);
    let created_ms = prop_oneof![any::<i64>(), 0..2_000_000_000_000_i64];
    (0..PARTITIONS, prop::option::of(bytes()), prop::option::of(bytes()), headers, created_ms).prop_map(
        |(partition, key, value, mut headers, created_ms)| {
            // A name that is there twice, and a tombstone that has a key.
            let first = headers.first().cloned();
            headers.extend(first);
            let key = if value.is_none() { Some(key.unwrap_or_default()) } else { key };
            Kept { partition, key, value, headers, created_ms }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_record_comes_out_and_goes_in_as_it_was(records in vec(record(), 1..60)) {
        let (data, copy) = (Data::new(), Data::new());
        publish(&data.path(), &records);
        let file = data.root.path().join("orders.jsonl");
        let file = file.to_str().unwrap();
        data.ok(&["export", "orders", "--output", file]);
        // Lines are lines, whatever is in a record.
        prop_assert_eq!(fs::read_to_string(file).unwrap().matches('\n').count(), records.len());
        let count = records.len();
        let said = copy.ok(&["import", "orders", "--file", file, "--create", "--partitions", "3", "--keep-partitions"]);
        prop_assert_eq!(said, if count == 1 { "1 record is durable\n".to_owned() } else { format!("{count} records are durable\n") });
        let mut wanted = records;
        wanted.sort_by_key(|record| record.partition);
        prop_assert_eq!(read(&copy.path()), wanted);
    }
}

/// A topic of two partitions with the values `p0-0`, `p0-1`, ...
fn filled(count: u32) -> Data {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "2"]);
    for partition in ["0", "1"] {
        let lines: String = (0..count).map(|n| format!("p{partition}-{n}\n")).collect();
        data.ok_with(&["produce", "orders", "--partition", partition], lines.as_bytes());
    }
    data
}

fn values(lines: &str) -> Vec<String> {
    let mut values: Vec<_> =
        lines.lines().map(|line| json(line)["value"].as_str().unwrap().to_owned()).collect();
    values.sort();
    values
}

#[test]
fn what_is_exported_can_be_chosen() {
    let data = filled(4);
    let export = |arguments: &[&str]| values(&data.ok(&[&["export", "orders"][..], arguments].concat()));
    assert_eq!(export(&[]).len(), 8);
    assert_eq!(export(&["--partition", "1"]), ["p1-0", "p1-1", "p1-2", "p1-3"]);
    assert_eq!(export(&["--partition", "1", "--partition", "0"]).len(), 8);
    assert_eq!(export(&["--from", "3"]), ["p0-3", "p1-3"]);
    assert_eq!(export(&["--from", "-1"]), ["p0-3", "p1-3"]);
    assert_eq!(export(&["--until", "1"]), ["p0-0", "p1-0"]);
    assert_eq!(export(&["--from", "1", "--until", "2"]), ["p0-1", "p1-1"]);
    assert_eq!(export(&["--from", "2h"]).len(), 8);
    assert!(export(&["--until", "2h"]).is_empty());
    assert!(export(&["--from", "2200-01-01T00:00:00Z"]).is_empty());
    assert_eq!(export(&["--until", "2200-01-01T00:00:00Z"]).len(), 8);
    data.fails(1, &["there is no topic order", "did you mean orders?"], &["export", "order"]);
    data.fails(1, &["topic orders has no partition 2"], &["export", "orders", "--partition", "2"]);
    data.fails(2, &["a position is earliest"], &["export", "orders", "--from", "somewhere"]);
    // It is what `consume --json` prints.
    assert_eq!(data.ok(&["export", "orders"]), data.ok(&["consume", "orders", "--json"]));
}

#[test]
fn partitions_are_kept_or_made_anew() {
    let data = filled(4);
    let lines = data.ok(&["export", "orders"]);
    let import = |arguments: &[&str]| {
        let copy = Data::new();
        copy.ok_with(&[&["import", "orders", "--create"][..], arguments].concat(), lines.as_bytes());
        copy
    };
    let copy = import(&["--partitions", "2", "--keep-partitions"]);
    assert_eq!(copy.values("orders-1"), [b"p1-0", b"p1-1", b"p1-2", b"p1-3"]);
    assert_eq!(import(&[]).values("orders-0").len(), 8);
    let spread = import(&["--partitions", "4"]);
    assert_eq!((0..4).map(|n| spread.values(&format!("orders-{n}")).len()).sum::<usize>(), 8);
    let said = spread.ok_with(&["import", "orders", "--json"], lines.as_bytes());
    assert_eq!(json(&said)["durable_records"], 8);
    // A topic that is there stays as it is.
    spread.ok_with(&["import", "orders", "--create", "--partitions", "9"], b"");
    assert_eq!(json(&spread.ok(&["topic", "describe", "orders", "--json"]))["partitions"], 4);
}

#[test]
fn an_import_stops_at_the_first_line_that_is_wrong_and_says_what_is_durable() {
    let data = Data::new();
    let import = ["import", "orders", "--create", "--keep-partitions"];
    for (line, wanted) in [
        ("two espressos", "line 3: it is no JSON record"),
        ("{\"value\":\"x\"", "line 3: it is no JSON record: EOF"),
        ("{\"vaule\":\"x\"}", "line 3: it is no JSON record: unknown field `vaule`"),
        ("", "line 3: it is no JSON record"),
        ("{\"value\":null}", "line 3: a null `value` is a tombstone, and needs a `key`"),
        ("{\"value\":\"x\",\"value_base64\":\"eA==\"}", "line 3: `value` and `value_base64` exclude"),
        ("{\"value_base64\":\"x\"}", "line 3: `value_base64` is not base64"),
        ("{\"value\":\"x\",\"timestamp\":\"noon\"}", "line 3: `timestamp` must be"),
        ("{\"value\":\"x\",\"timestamp\":1e3}", "line 3: it is no JSON record: invalid type: floating point"),
        ("{\"value\":\"x\",\"partition\":1}", "line 3: topic orders has no partition 1"),
    ] {
        let input = format!("{{\"value\":\"a\"}}\n{{\"value\":\"b\"}}\n{line}\n{{\"value\":\"c\"}}\n");
        let before = if data.path().exists() { data.values("orders-0").len() } else { 0 };
        data.fails_with(1, &[wanted, "; 2 records were acknowledged"], &import, input.as_bytes());
        assert_eq!(data.values("orders-0").len(), before + 2, "{line}");
    }
    data.fails_with(1, &["line 1", "0 records were acknowledged"], &import, b"{\"value\":\"\xff\"}\n");
    data.fails(1, &["cannot read", "nosuch.jsonl"], &["import", "orders", "--file", "nosuch.jsonl"]);
    data.fails(1, &["there is no topic mails"], &["import", "mails"]);
    data.fails(2, &["--create"], &["import", "orders", "--partitions", "2"]);
    data.fails(2, &["topic"], &["import", "a/b", "--create"]);
    Data::new().fails(1, &["there is no directory"], &["import", "orders"]);
}

#[test]
fn a_file_is_there_whole_or_as_it_was() {
    let data = Data::new();
    for n in 0..3 {
        data.ok_with(&["produce", "orders"], format!("{n}{}\n", "x".repeat(100)).as_bytes());
    }
    let path = data.root.path().join("orders.jsonl");
    let file = path.to_str().unwrap();
    data.ok(&["export", "orders", "--output", file]);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 3);

    let segment = data.segment("orders-0");
    let at = fs::read(&segment).unwrap().windows(4).position(|window| window == b"1xxx").unwrap();
    damage(&segment, at);
    data.fails(3, &["(offsets [1, 2))"], &["export", "orders", "--output", file]);
    assert_eq!(fs::read(&path).unwrap(), whole);
    // The good records before it are printed; those behind it can be asked for.
    let ran = data.run(&["export", "orders"]);
    assert_eq!(
        (ran.code, ran.stdout.as_bytes()),
        (3, &whole[..=whole.iter().position(|b| *b == b'\n').unwrap()])
    );
    data.ok(&["export", "orders", "--from", "2", "--output", file]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);

    let names: Vec<_> =
        fs::read_dir(data.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing else is left: {names:?}");
    data.fails(1, &["cannot write", "/nosuch/o.jsonl"], &["export", "orders", "--output", "/nosuch/o.jsonl"]);
    let directory = data.root.path().to_str().unwrap();
    data.fails(1, &["cannot write"], &["export", "orders", "--from", "2", "--output", directory]);
    // What is no file is written to.
    data.ok(&["export", "orders", "--from", "2", "--output", "/dev/null"]);
    assert!(!Path::new("/dev/null.partial").exists());
}

#[test]
fn an_export_goes_on_beside_a_writer_and_an_import_waits_for_it() {
    let data = filled(2);
    let broker = Broker::open(data.path()).unwrap();
    assert_eq!(data.ok(&["export", "orders"]).lines().count(), 4);
    data.fails_with(4, &["is in use by"], &["import", "orders"], b"{\"value\":\"x\"}\n");
    broker.close().unwrap();
    data.ok_with(&["import", "orders", "--lock-timeout", "10s"], b"{\"value\":\"x\"}\n");
}

#[test]
fn what_has_expired_is_exported_and_consumed_only_if_asked_for() {
    let data = Data::new();
    data.ok_with(&["produce", "orders", "--ttl", "1ms"], b"an offer\n");
    data.ok_with(&["produce", "orders", "--ttl", "1h"], b"two espressos\n");
    data.ok_with(&["produce", "orders", "--json", "--ttl", "0"], b"{\"value\":\"over at once\"}\n");
    // Ticks of the clock are up to 10 ms apart.
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(data.ok(&["consume", "orders"]), "two espressos\n");
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing"]), "two espressos\n");
    assert_eq!(data.ok(&["consume", "orders", "--expired"]), "an offer\ntwo espressos\nover at once\n");
    let lag = json(&data.ok(&["groups", "describe", "billing", "--json"]))[0]["lag"].clone();
    assert_eq!(lag, 0);
    let exported = data.ok(&["export", "orders"]);
    assert_eq!(exported.lines().count(), 3);
    let header = &json(exported.lines().nth(1).unwrap())["headers"][0];
    assert_eq!((&header["key"], &header["value"]), (&"tailwater-ttl-ms".into(), &"3600000".into()));
    data.fails(2, &["a duration has a unit"], &["produce", "orders", "--ttl", "soon"]);
}
