//! Joining, leaving and fencing: in memory only.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;

use common::{Gate, commit, group, new_store, offset_of, open_log, partition, topic};
use tailwater_groups::{Error, GroupKind, GroupLifetime, GroupStore};
use tailwater_log::Offset;
use tailwater_log::storage::SimDisk;

#[test]
fn a_group_takes_one_member_until_it_leaves() {
    let (_disk, store) = new_store();
    let billing = group("billing");
    let first = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let refused = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap_err();
    assert!(matches!(&refused, Error::GroupInUse { group } if *group == billing));
    let other =
        store.join_exclusively(&group("shipping"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    assert_eq!(other.group().as_str(), "shipping");
    let epoch = first.epoch();
    drop(first);
    let second = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    assert!(second.epoch() > epoch);
}

#[test]
fn a_group_stays_of_its_kind() {
    let (_disk, store) = new_store();
    let billing = group("billing");
    let member = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let mismatch = |result: Result<_, Error>| match result {
        Err(Error::GroupKindMismatch { kind, requested, .. }) => {
            assert_eq!((kind, requested), (GroupKind::Consumer, GroupKind::Share));
        }
        other => panic!("{other:?}"),
    };
    mismatch(store.join_exclusively(&billing, GroupKind::Share, GroupLifetime::Lasting));
    drop(member.commit(&[commit(partition(1, 0), 1)]).unwrap());
    drop(member);
    mismatch(store.join_exclusively(&billing, GroupKind::Share, GroupLifetime::Lasting));
    drop(store.delete_group(&billing).unwrap());
    assert_eq!(
        store.join_exclusively(&billing, GroupKind::Share, GroupLifetime::Lasting).unwrap().kind(),
        GroupKind::Share
    );
}

#[test]
fn joining_and_leaving_write_nothing_and_leave_nothing() {
    let (disk, store) = new_store();
    let before = disk.operation_count();
    let member =
        store.join_exclusively(&group("billing"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    assert_eq!(store.groups()[0].member_count, 1);
    assert_eq!(store.positions(member.group()).unwrap(), []);
    drop(member);
    assert_eq!(store.groups(), []);
    assert_eq!((disk.operation_count(), store.log().log_end_offset()), (before, Offset::ZERO));
    assert!(matches!(store.positions(&group("billing")), Err(Error::UnknownGroup { .. })));
}

#[test]
fn commits_of_an_evicted_member_are_refused_and_its_drop_leaves_the_next_one_alone() {
    let (_disk, store) = new_store();
    let billing = group("billing");
    let stuck = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    drop(stuck.commit(&[commit(partition(1, 0), 1)]).unwrap());
    assert!(store.evict(&billing, stuck.id()));
    assert!(!store.evict(&billing, stuck.id()));
    let fenced = |result: Result<_, Error>| match result {
        Err(Error::FencedMemberEpoch { epoch, .. }) => assert_eq!(epoch, stuck.epoch()),
        other => panic!("{other:?}"),
    };
    fenced(stuck.commit(&[commit(partition(1, 0), 2)]));
    let next = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    fenced(stuck.commit(&[commit(partition(1, 0), 3)]));
    let id = stuck.id();
    drop(stuck);
    assert!(!store.evict(&billing, id));
    drop(next.commit(&[commit(partition(1, 0), 4)]).unwrap());
    assert_eq!(offset_of(&store, &billing, partition(1, 0)), Some(4));
}

#[test]
fn leaving_and_reading_do_not_wait_for_a_commit_that_is_held_up() {
    let gate = Arc::new(Gate::default());
    let store = GroupStore::open(open_log(&SimDisk::new(1)).unwrap(), gate.clone()).unwrap();
    let (billing, at) = (group("billing"), partition(1, 0));
    let slow = store.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    let other = store.join_exclusively(&group("other"), GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
    drop(slow.commit(&[commit(at, 1)]).unwrap());
    gate.set_shut(true);
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| drop(slow.commit(&[commit(at, 2)]).unwrap()));
        gate.wait_until_asked(2);
        drop(other);
        assert_eq!(offset_of(&store, &billing, at), Some(1));
        assert_eq!(store.held_offset(&billing, at), Some(Offset::new(1)));
        assert!(store.has_met(&billing, topic(1)));
        assert_eq!(store.positions(&billing).unwrap().len(), 1);
        let names: Vec<_> = store.groups().into_iter().map(|listing| listing.id).collect();
        assert_eq!(names, std::slice::from_ref(&billing));
        assert!(!store.wants_rewrite());
        assert!(!committing.is_finished());
        gate.set_shut(false);
    });
    assert_eq!(offset_of(&store, &billing, at), Some(2));
}
