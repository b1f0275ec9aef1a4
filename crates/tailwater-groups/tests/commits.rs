//! Commits: what they change, what they refuse, and that a refused one changes nothing.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;

use common::{commit, group, new_store, offset_of, open, partition, position};
use tailwater_groups::{Commit, Error, GroupKind, GroupLifetime, GroupStore, MAX_METADATA_BYTES, Position};
use tailwater_log::storage::SimDisk;
use tailwater_log::{Error as LogError, LogEpoch, Offset, Timestamp};

#[test]
fn a_commit_is_seen_at_once_and_found_again_after_a_power_cut_once_it_was_waited_for() {
    let (disk, store) = new_store();
    let billing = group("billing");
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let at = Position { offset: Offset::new(17), epoch: LogEpoch::new(3) };
    let set = [Commit { metadata: "node-4", ..Commit::new(partition(1, 0), at) }, commit(partition(1, 1), 5)];
    let receipt = member.commit(&set).unwrap();
    let committed = store.committed(&billing, partition(1, 0)).unwrap();
    assert_eq!((committed.position, committed.metadata.as_ref()), (at, "node-4"));
    assert_eq!(committed.committed_at, Timestamp::from_millis(1_700_000_000_000));
    assert!(!store.is_durable(&committed));
    receipt.unwrap().wait().unwrap();
    assert!(store.is_durable(&committed));

    let disk = disk.crash(|_, _| false);
    let store = open(&disk).unwrap();
    assert_eq!(store.committed(&billing, partition(1, 0)), Some(committed));
    assert_eq!(offset_of(&store, &billing, partition(1, 1)), Some(5));
    assert_eq!(offset_of(&store, &billing, partition(1, 2)), None);
    assert_eq!(offset_of(&store, &group("other"), partition(1, 0)), None);
}

#[test]
fn a_commit_below_the_committed_offset_is_refused_unless_the_reader_has_sought() {
    let (_disk, store) = new_store();
    let billing = group("billing");
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let (first, second) = (partition(1, 0), partition(1, 1));
    drop(member.commit(&[commit(first, 10), commit(second, 20)]).unwrap());
    let end = store.log().log_end_offset();
    match member.commit(&[commit(first, 11), commit(second, 19)]) {
        Err(Error::CommitBackwards { partition, committed, requested }) => {
            assert_eq!((*partition, committed, requested), (second, Offset::new(20), Offset::new(19)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(offset_of(&store, &billing, first), Some(10), "nothing of the set is committed");
    assert_eq!(store.log().log_end_offset(), end, "nothing was appended");

    drop(member.commit(&[commit(first, 10)]).unwrap());
    drop(member.commit(&[Commit { may_go_back: true, ..commit(second, 19) }]).unwrap());
    assert_eq!(offset_of(&store, &billing, second), Some(19));
}

#[test]
fn a_set_must_not_be_empty_or_name_a_partition_twice_or_carry_long_metadata() {
    let (_disk, store) = new_store();
    let member =
        store.join_exclusively(&group("billing"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let at = partition(1, 0);
    let long = "x".repeat(MAX_METADATA_BYTES + 1);
    let refused = [
        member.commit(&[]).unwrap_err(),
        member.commit(&[commit(at, 1), commit(partition(2, 0), 1), commit(at, 2)]).unwrap_err(),
        member.commit(&[Commit { metadata: &long, ..commit(at, 1) }]).unwrap_err(),
    ];
    assert!(matches!(refused[0], Error::EmptyCommit));
    assert!(matches!(refused[1], Error::RepeatedPartition { partition } if partition == at));
    assert!(matches!(refused[2], Error::MetadataTooLong { size_bytes: 4097 }));
    assert_eq!(store.log().log_end_offset(), Offset::ZERO);
    assert!(matches!(store.set_positions(&group("x"), &[]), Err(Error::EmptyCommit)));

    let longest = "x".repeat(MAX_METADATA_BYTES);
    drop(member.commit(&[Commit { metadata: &longest, ..commit(at, 1) }]).unwrap());
    assert_eq!(store.committed(member.group(), at).unwrap().metadata.as_ref(), longest);
}

#[test]
fn the_first_commit_registers_the_group_in_the_same_batch() {
    let (disk, store) = new_store();
    let mailers = group("mailers");
    let member = store.join_exclusively(&mailers, GroupKind::Share, GroupLifetime::Lasting).unwrap();
    let listing = |store: &GroupStore| {
        let listed = store.groups();
        listed
            .iter()
            .map(|g| (g.id.to_string(), g.kind, g.is_registered, g.position_count))
            .collect::<Vec<_>>()
    };
    assert_eq!(listing(&store), [("mailers".to_owned(), GroupKind::Share, false, 0)]);
    let receipt = member.commit(&[commit(partition(1, 0), 1)]).unwrap();
    assert_eq!(listing(&store), [("mailers".to_owned(), GroupKind::Share, true, 1)]);
    assert_eq!(receipt.unwrap().wait().unwrap().offsets.count(), 2, "the registration and the position");
    let again = member.commit(&[commit(partition(1, 0), 2)]).unwrap();
    assert_eq!(again.unwrap().wait().unwrap().offsets.count(), 1);
    let store = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(listing(&store), [("mailers".to_owned(), GroupKind::Share, true, 1)]);
}

#[test]
fn a_full_disk_refuses_a_commit_and_changes_nothing_and_takes_it_when_there_is_room() {
    let (disk, store) = new_store();
    let billing = group("billing");
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let at = partition(1, 0);
    member.commit(&[commit(at, 1)]).unwrap().unwrap().wait().unwrap();
    disk.set_capacity(Some(0));
    let mut offset = 2;
    let refused = loop {
        match member.commit(&[commit(at, offset)]) {
            Ok(receipt) => drop(receipt.unwrap().wait()),
            Err(error) => break error,
        }
        offset += 1;
        assert!(offset < 1000, "the space that is allocated comes to an end");
    };
    assert!(matches!(refused, Error::Log(LogError::DiskFull { .. })), "{refused}");
    assert_eq!(offset_of(&store, &billing, at), Some(offset - 1));
    disk.set_capacity(None);
    member.commit(&[commit(at, offset)]).unwrap().unwrap().wait().unwrap();
    let store = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(offset_of(&store, &billing, at), Some(offset));
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays() {
    let (disk, store) = new_store();
    let billing = group("billing");
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let at = partition(1, 0);
    member.commit(&[commit(at, 1)]).unwrap().unwrap().wait().unwrap();
    let receipt = member.commit(&[commit(at, 2)]).unwrap();
    disk.fail_nth(1, 5, true);
    assert!(receipt.unwrap().wait().is_err());
    disk.clear_faults();
    assert!(matches!(member.commit(&[commit(at, 3)]), Err(Error::Log(LogError::Failed { .. }))));
    assert_eq!(offset_of(&store, &billing, at), Some(2), "what was appended, durable or not");
    assert_eq!(store.durable_committed(&billing, at).unwrap().position, position(1));
    let store = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(offset_of(&store, &billing, at), Some(1));
}

#[test]
fn an_append_to_the_log_behind_the_stores_back_stops_it() {
    let (_disk, store) = new_store();
    let member =
        store.join_exclusively(&group("billing"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let other = GroupStore::open(store.log().clone(), common::clock()).unwrap();
    drop(other.set_positions(&group("reset"), &[commit(partition(1, 0), 7)]).unwrap());
    let refused = member.commit(&[commit(partition(1, 0), 1)]);
    assert!(matches!(refused, Err(Error::Log(LogError::UnexpectedEnd { .. }))), "{refused:?}");
}

#[test]
fn a_store_opened_on_a_log_with_staged_commits_shows_them_and_knows_that_they_are_not_durable() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let billing = group("billing");
    let at = partition(1, 0);
    store.set_positions(&billing, &[commit(at, 1)]).unwrap().wait().unwrap();
    drop(store.set_positions(&billing, &[commit(at, 2)]).unwrap());
    let again = GroupStore::open(store.log().clone(), Arc::new(tailwater_log::SystemClock)).unwrap();
    assert_eq!(offset_of(&again, &billing, at), Some(2));
    assert_eq!(again.durable_committed(&billing, at).unwrap().position, position(1));
    again.log().sync().unwrap();
    assert_eq!(again.durable_committed(&billing, at).unwrap().position, position(2));
}
