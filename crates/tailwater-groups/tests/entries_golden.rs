//! The exact bytes of each kind of entry. A change here is a new version of it: see `docs/format.md`, "Groups log".

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fmt::Write;

use tailwater_groups::format::{Entry, Registration, StoredPosition};
use tailwater_groups::{GroupKind, GroupLifetime, GroupStore, Position};
use tailwater_log::storage::SimDisk;
use tailwater_log::{
    FetchIsolation, FetchLimits, LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn assert_golden(entry: Entry<'_>, golden_key: &str, golden_value: Option<&str>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    entry.encode_key(&mut key);
    let value = entry.encode_value(&mut value).then_some(value);
    assert_eq!(hex(&key), golden_key);
    assert_eq!(value.as_deref().map(hex).as_deref(), golden_value);
    assert_eq!(Entry::decode(Some(&key), value.as_deref()), Ok(entry));
}

#[test]
fn registrations() {
    let entry = |kind: Option<GroupKind>| {
        let registered_at = Timestamp::from_millis(1_700_000_000_000);
        let value = kind.map(|kind| Registration { kind, registered_at });
        Entry::Registration { group: "billing", value }
    };
    let key = "01010762696c6c696e67";
    assert_golden(entry(Some(GroupKind::Consumer)), key, Some("01010068e5cf8b010000"));
    assert_golden(entry(Some(GroupKind::Share)), key, Some("01020068e5cf8b010000"));
    assert_golden(entry(None), key, None);
}

#[test]
fn positions() {
    let topic_id = TopicId::from_bytes(*b"0123456789abcdef");
    let partition = PartitionIdentity { topic_id, partition: PartitionId::new(3) };
    let value = StoredPosition {
        position: Position { offset: Offset::new(0x12_3456_789a), epoch: LogEpoch::new(7) },
        committed_at: Timestamp::from_millis(1_700_000_000_001),
        metadata: "node-4",
    };
    let key = "02010762696c6c696e673031323334353637383961626364656603000000";
    let golden = "019a78563412000000070000000168e5cf8b01000006006e6f64652d34";
    let entry = |value| Entry::Position { group: "billing", partition, value };
    assert_golden(entry(Some(value)), key, Some(golden));
    assert_golden(entry(None), key, None);
}

#[test]
fn rewrite_ends() {
    let start = Offset::new(0x01_0203_0405);
    assert_golden(Entry::RewriteEnd { start }, "03010504030201000000", Some("01"));
}

#[test]
fn a_first_commit_and_a_deletion_leave_these_records() {
    let disk = SimDisk::new(1);
    let store: GroupStore = common::open(&disk).unwrap();
    let group = common::group("g");
    let member = store.join_exclusively(&group, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    drop(member.commit(&[common::commit(common::partition(0xaa, 1), 5)]).unwrap());
    drop(member);
    drop(store.delete_group(&group).unwrap());
    let fetched =
        store.log().fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::LogEnd, None).unwrap();
    let found: Vec<_> = fetched
        .iter()
        .map(|record| (hex(record.key().unwrap()), record.value().map(hex).unwrap_or("-".to_owned())))
        .collect();
    let position_key = format!("02010167{}01000000", "aa".repeat(16));
    let golden = [
        ("01010167", "01010068e5cf8b010000"),
        (&*position_key, "010500000000000000010000000068e5cf8b0100000000"),
        (&*position_key, "-"),
        ("01010167", "-"),
    ];
    assert_eq!(found, golden.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(fetched.batches().len(), 2, "a commit and a deletion are one batch each");
}
