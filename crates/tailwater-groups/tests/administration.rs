//! Groups as an administrator sees them: listed, reset, deleted; and topics that go away.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{commit, group, new_store, offset_of, open, partition, state_of, topic};
use tailwater_groups::{Commit, Error, GroupKind, GroupLifetime};
use tailwater_log::Offset;

#[test]
fn positions_can_be_set_back_and_forth_while_no_member_is_there() {
    let (disk, store) = new_store();
    let billing = group("billing");
    let at = partition(1, 0);
    store.set_positions(&billing, &[commit(at, 50), commit(partition(1, 1), 5)]).unwrap().wait().unwrap();
    store.set_positions(&billing, &[commit(at, 10)]).unwrap().wait().unwrap();
    assert_eq!(offset_of(&store, &billing, at), Some(10));
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let end = store.log().log_end_offset();
    assert!(matches!(store.set_positions(&billing, &[commit(at, 60)]), Err(Error::GroupNotEmpty { .. })));
    assert!(matches!(store.delete_group(&billing), Err(Error::GroupNotEmpty { .. })));
    assert_eq!(store.log().log_end_offset(), end);
    drop(member);
    let store = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(offset_of(&store, &billing, at), Some(10));
    assert_eq!(store.groups()[0].kind, GroupKind::Consumer);
}

#[test]
fn groups_and_positions_are_listed_in_order() {
    let (_disk, store) = new_store();
    for name in ["m", "a", "z"] {
        let set = [commit(partition(2, 1), 3), commit(partition(2, 0), 2), commit(partition(1, 9), 1)];
        drop(store.set_positions(&group(name), &set).unwrap());
    }
    let _member = store.join_exclusively(&group("k"), GroupKind::Share, GroupLifetime::Lasting).unwrap();
    let _other = store.join_exclusively(&group("z"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let listed: Vec<_> = store
        .groups()
        .iter()
        .map(|listing| (listing.id.to_string(), listing.member_count, listing.position_count))
        .collect();
    let expected = [("a", 0, 3), ("k", 1, 0), ("m", 0, 3), ("z", 1, 3)];
    assert_eq!(listed, expected.map(|(id, members, positions)| (id.to_owned(), members, positions)));
    let positions = store.positions(&group("m")).unwrap();
    let offsets: Vec<_> = positions.iter().map(|(_, committed)| committed.position.offset.get()).collect();
    assert_eq!(offsets, [1, 2, 3]);
}

#[test]
fn a_deleted_group_is_gone_and_can_be_made_anew() {
    let (disk, store) = new_store();
    let billing = group("billing");
    assert!(matches!(store.delete_group(&billing), Err(Error::UnknownGroup { .. })));
    drop(store.set_positions(&billing, &[commit(partition(1, 0), 50)]).unwrap());
    store.delete_group(&billing).unwrap().wait().unwrap();
    assert!(matches!(store.delete_group(&billing), Err(Error::UnknownGroup { .. })));
    assert!(matches!(store.positions(&billing), Err(Error::UnknownGroup { .. })));
    let store = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(store.groups(), []);
    drop(store.set_positions(&billing, &[commit(partition(1, 1), 1)]).unwrap());
    assert_eq!(offset_of(&store, &billing, partition(1, 0)), None, "nothing of the old one");
}

#[test]
fn a_group_too_large_for_one_batch_is_deleted_in_several_the_registration_last() {
    let (disk, store) = new_store();
    let mut config = (*store.log().config()).clone();
    config.max_batch_bytes = 1024;
    store.log().set_config(config).unwrap();
    let (large, small) = (group(&"large".repeat(20)), group("small"));
    for number in 0..40 {
        drop(store.set_positions(&large, &[commit(partition(1, number), 7)]).unwrap());
    }
    drop(store.set_positions(&small, &[commit(partition(1, 0), 9)]).unwrap());
    let before = store.log().log_end_offset();
    store.delete_group(&large).unwrap().wait().unwrap();
    assert_eq!(store.log().log_end_offset().since(before), 41);
    let fetched = store.log().fetch(before, Default::default(), Default::default(), None).unwrap();
    let batches = fetched.batches().len();
    assert!((8..=16).contains(&batches), "{batches} batches of 1,024 bytes for 41 keys of 100 to 123 bytes");
    let store = open(&disk.crash(|_, _| false)).unwrap();
    let names: Vec<_> = store.groups().into_iter().map(|listing| listing.id).collect();
    assert_eq!(names, [small]);
}

#[test]
fn positions_of_topics_that_are_gone_are_forgotten_and_groups_stay() {
    let (disk, store) = new_store();
    for name in ["a", "b"] {
        let set = [commit(partition(1, 0), 1), commit(partition(2, 0), 2), commit(partition(2, 7), 3)];
        drop(store.set_positions(&group(name), &set).unwrap());
    }
    assert!(store.has_met(&group("a"), topic(2)) && !store.has_met(&group("a"), topic(3)));
    let end = store.log().log_end_offset();
    store.forget_topics(|id| id == topic(9)).unwrap();
    assert_eq!(store.log().log_end_offset(), end, "nothing to forget, nothing to write");
    // A member may be there; and it may look at the store from within.
    let _member = store.join_exclusively(&group("a"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    store.forget_topics(|id| id == topic(2) && store.groups().len() == 2).unwrap();
    store.log().sync().unwrap();
    let store = open(&disk.crash(|_, _| false)).unwrap();
    for name in ["a", "b"] {
        assert!(!store.has_met(&group(name), topic(2)));
        assert_eq!(offset_of(&store, &group(name), partition(1, 0)), Some(1));
    }
    store.forget_topics(|_| true).unwrap();
    assert_eq!(store.groups().iter().map(|listing| listing.position_count).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn a_rewrite_is_due_when_most_records_say_nothing_any_more_and_keeps_everything() {
    let (disk, store) = new_store();
    let billing = group("billing");
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    assert!(!store.rewrite().unwrap(), "there is nothing");
    let mut offset = 0;
    while !store.wants_rewrite() {
        offset += 1;
        let set =
            [0, 1, 2].map(|number| Commit { may_go_back: true, ..commit(partition(1, number), offset) });
        drop(member.commit(&set).unwrap());
    }
    assert_eq!(store.log().log_end_offset(), Offset::new(1 + 3 * offset));
    assert!(1 + 3 * offset > 1024 && 3 * offset - 2 <= 1024);
    let before = state_of(&store);
    let end = store.log().log_end_offset();
    assert!(store.rewrite().unwrap());
    assert_eq!(store.log().log_start_offset(), end);
    assert_eq!(store.log().log_end_offset().since(end), 5, "a registration, three positions, the mark");
    assert_eq!(store.log().stats().unwrap().segment_count, 1);
    assert!(!store.wants_rewrite());
    assert!(!store.rewrite().unwrap());
    assert_eq!(state_of(&store), before);
    member.commit(&[commit(partition(1, 0), offset + 1)]).unwrap().unwrap().wait().unwrap();
    let store = open(&disk.crash(|_, _| false)).unwrap();
    assert_eq!(offset_of(&store, &billing, partition(1, 0)), Some(offset + 1));
    assert_eq!(offset_of(&store, &billing, partition(1, 2)), Some(offset));
}

#[test]
fn a_rewrite_on_a_full_disk_fails_and_changes_nothing() {
    let (disk, store) = new_store();
    for number in 0..60 {
        for offset in 1..4 {
            drop(store.set_positions(&group("billing"), &[commit(partition(1, number), offset)]).unwrap());
        }
    }
    store.log().sync().unwrap();
    let before = state_of(&store);
    disk.set_capacity(Some(0));
    assert!(store.rewrite().is_err());
    assert_eq!(state_of(&store), before);
    disk.set_capacity(None);
    assert!(store.rewrite().unwrap(), "there is room again");
    assert_eq!(state_of(&store), before);
    assert_eq!(state_of(&open(&disk.crash(|_, _| false)).unwrap()), before);
}
