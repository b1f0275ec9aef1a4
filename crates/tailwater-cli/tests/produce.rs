//! Each line of the input becomes the record that it should.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Data, KeyAndValue};

fn field(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

fn pair(key: &[u8], value: &[u8]) -> KeyAndValue {
    (field(key), field(value))
}

#[test]
fn a_line_is_a_record_whatever_is_in_it() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"one\r\n\n\xff\0\tx\nlast, without an end");
    assert_eq!(data.values("orders-0"), [&b"one\r"[..], b"", b"\xff\0\tx", b"last, without an end"]);
    data.ok_with(&["produce", "empty"], b"");
    assert_eq!(data.values("empty-0"), [b""; 0]);
}

#[test]
fn acknowledgements_are_partition_and_offset_in_order() {
    let data = Data::new();
    for durability in ["buffered", "written", "durable"] {
        let topic = format!("t-{durability}");
        let arguments = ["produce", topic.as_str(), "--acks", "--durability", durability];
        assert_eq!(data.ok_with(&arguments, b"a\nb\nc"), "0\t0\n0\t1\n0\t2\n");
        assert_eq!(data.ok_with(&arguments, b"d\n"), "0\t3\n");
        assert_eq!(data.values(&format!("{topic}-0")), [b"a", b"b", b"c", b"d"]);
    }
}

#[test]
fn keys_come_from_the_line_or_the_command() {
    let data = Data::new();
    data.ok_with(&["produce", "by-line", "--key-separator", ":"], b"k:v\n:w\nx:a:b\n");
    assert_eq!(data.records("by-line-0"), [pair(b"k", b"v"), pair(b"", b"w"), pair(b"x", b"a:b")]);
    data.ok_with(&["produce", "tab", "--key-separator", r"\t--"], b"k\t--v\n");
    assert_eq!(data.records("tab-0"), [pair(b"k", b"v")]);
    data.ok_with(&["produce", "fixed", "--key", "k"], b"v\n");
    assert_eq!(data.records("fixed-0"), [pair(b"k", b"v")]);
}

#[test]
fn the_same_key_goes_to_the_same_partition() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "3"]);
    let acks =
        data.ok_with(&["produce", "orders", "--key-separator", "=", "--acks"], b"a=1\nb=2\nc=3\na=4\n");
    let partition = |key: &[u8]| tailwater::partition_for_key(key, 3).to_string();
    let partitions: Vec<_> = acks.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(partitions, [b"a", b"b", b"c", b"a"].map(|key| partition(key)));
    let acks = data.ok_with(&["produce", "orders", "--partition", "2", "--acks", "--key", "a"], b"x\n");
    assert!(acks.starts_with("2\t"), "{acks}");
}

#[test]
fn headers_are_given_to_every_record_in_order() {
    let data = Data::new();
    data.ok_with(&["produce", "orders", "--header", "a=1", "--header", "a=x=y", "--header", "b="], b"v\nw\n");
    let mut seen = 0;
    data.for_each_record("orders-0", |record| {
        let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
        assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", Some(b"x=y")), ("b", Some(b""))]);
        seen += 1;
    });
    assert_eq!(seen, 2);
}

#[test]
fn any_delimiter_ends_a_record() {
    let data = Data::new();
    data.ok_with(&["produce", "zero", "-0"], b"a\nb\0\0c");
    assert_eq!(data.values("zero-0"), [&b"a\nb"[..], b"", b"c"]);
    data.ok_with(&["produce", "long", "--delimiter", r"\x1e--"], b"a\nb\x1e--c\x1e--");
    assert_eq!(data.values("long-0"), [&b"a\nb"[..], b"c"]);
}

#[test]
fn the_null_value_makes_a_tombstone() {
    let data = Data::new();
    let arguments = ["produce", "orders", "--key-separator", ":", "--null-value", "NULL"];
    data.ok_with(&arguments, b"a:NULL\nb:NULLS\nc:\n");
    assert_eq!(data.records("orders-0"), [(field(b"a"), None), pair(b"b", b"NULLS"), pair(b"c", b"")]);
    let arguments = ["produce", "orders", "--null-value", "-"];
    data.fails_with(1, &["line 2: ", "needs a key", "1 record was acknowledged"], &arguments, b"x\n-\n");
}

#[test]
fn json_records_say_everything_themselves() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--partitions", "2"]);
    let lines = br#"{"value":"v","key":"k","partition":1,"timestamp":1000,"headers":[{"key":"h","value_base64":"AP8="}]}
{"key_base64":"/w==","value":null,"partition":1}
"#;
    assert_eq!(data.ok_with(&["produce", "orders", "--json", "--acks"], lines), "1\t0\n1\t1\n");
    assert_eq!(data.records("orders-1"), [pair(b"k", b"v"), (field(b"\xff"), None)]);
    let mut times = Vec::new();
    data.for_each_record("orders-1", |record| times.push(record.created_at().as_millis()));
    assert_eq!(times[0], 1000);
    let arguments = ["--json", "produce", "orders", "--partition", "0"];
    data.ok_with(&arguments, br#"{"value":"w","partition":1}"#);
    assert_eq!(data.values("orders-0"), [b"w"]);
    let parts = ["line 2: it is no JSON record: unknown field `vaule`", "1 record was acknowledged"];
    data.fails_with(1, &parts, &arguments, b"{\"value\":\"x\"}\n{\"vaule\":\"x\"}\n");
}

#[test]
fn a_line_without_the_separator_is_named_and_what_was_before_is_kept() {
    let data = Data::new();
    let arguments = ["produce", "orders", "--key-separator", "\\t", "--acks"];
    let ran = data.run_with(&arguments, b"a\t1\nb\t2\nc 3\nd\t4\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "0\t0\n0\t1\n"));
    assert_eq!(
        ran.stderr,
        "error: line 3: there is no key separator \"\\t\" in it; 2 records were acknowledged\n"
    );
    assert_eq!(data.records("orders-0"), [pair(b"a", b"1"), pair(b"b", b"2")]);
}

#[test]
fn a_file_is_read_like_the_input() {
    let data = Data::new();
    let file = data.root.path().join("lines");
    std::fs::write(&file, "a\nb").unwrap();
    data.ok(&["produce", "orders", "--file", file.to_str().unwrap()]);
    assert_eq!(data.values("orders-0"), [b"a", b"b"]);
    data.fails(1, &["cannot read ", "missing"], &["produce", "orders", "--file", "missing"]);
}

#[test]
fn a_missing_topic_is_created_unless_told_otherwise() {
    let data = Data::new();
    data.fails_with(1, &["there is no directory "], &["produce", "orders", "--no-create"], b"a\n");
    assert!(!data.path().exists());
    data.ok_with(&["produce", "orders"], b"a\n");
    data.fails_with(1, &["there is no topic mails"], &["produce", "mails", "--no-create"], b"a\n");
    data.ok_with(&["produce", "orders", "--no-create"], b"b\n");
    assert_eq!(data.values("orders-0"), [b"a", b"b"]);
}

#[test]
fn a_record_over_the_limit_is_named_and_what_was_before_is_kept() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--set", "max_batch_bytes=1024"]);
    let input = [b"a\nb\n", &[b'x'; 2000][..], b"\nc\n"].concat();
    let parts = ["line 3: ", "exceed the limit of 1024 bytes in orders-0", "2 records were acknowledged"];
    data.fails_with(1, &parts, &["produce", "orders"], &input);
    assert_eq!(data.values("orders-0"), [b"a", b"b"]);
    let parts = ["topic orders has no partition 7", "0 records were acknowledged"];
    data.fails_with(1, &parts, &["produce", "orders", "--partition", "7"], b"a\n");
}
