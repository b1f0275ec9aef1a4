//! A store attached read-only follows the writer: commits, rewrites, crashes.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{
    DIRECTORY, attach, commit, group, log_options, new_store, offset_of, open, partition, state_of,
};
use tailwater_groups::{Error, GroupKind, GroupLifetime, GroupStore};
use tailwater_log::storage::SimDisk;
use tailwater_log::{Log, LogEpoch, ManualClock};

#[test]
fn it_shows_what_is_durable_and_changes_nothing() {
    let (disk, store) = new_store();
    let billing = group("billing");
    store.set_positions(&billing, &[commit(partition(1, 0), 5)]).unwrap().wait().unwrap();
    store.log().close().unwrap();
    let before = disk.operation_count();
    let attached = attach(&disk).unwrap();
    assert_eq!(state_of(&attached), state_of(&store));
    assert_eq!(
        attached.durable_committed(&billing, partition(1, 0)),
        store.committed(&billing, partition(1, 0))
    );
    let at = commit(partition(1, 0), 6);
    let refused = [
        attached.join_exclusively(&billing, GroupKind::Consumer, GroupLifetime::Lasting).map(drop),
        attached.set_positions(&billing, &[at]).map(drop),
        attached.delete_group(&billing).map(drop),
        attached.forget_topics(|_| true),
        attached.rewrite().map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::ReadOnly)), "{result:?}");
    }
    assert!(!attached.wants_rewrite());
    attached.forget_topics(|_| false).unwrap();
    attached.refresh().unwrap();
    assert_eq!(disk.operation_count(), before);
}

#[test]
fn it_follows_commits_and_rewrites_step_by_step() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::default());
    let mut options = log_options();
    options.clock = clock.clone();
    let log = Log::create(Arc::new(disk.clone()), DIRECTORY.as_ref(), options).unwrap();
    let store = GroupStore::open(log, clock.clone()).unwrap();
    let attached = attach(&disk).unwrap();
    let billing = group("billing");
    for offset in 1..400 {
        let set = [commit(partition(1, 0), offset), commit(partition(1, 1), offset)];
        store.set_positions(&billing, &set).unwrap().wait().unwrap();
        if offset % 40 == 0 {
            assert!(store.rewrite().unwrap());
        }
        if offset % 3 == 0 {
            // What is recorded as durable trails by a commit; after 50 idle milliseconds it does not.
            attached.refresh().unwrap();
            let seen = offset_of(&attached, &billing, partition(1, 0)).unwrap();
            assert!(seen == offset || seen + 1 == offset, "{seen} of {offset}");
            assert_eq!(offset_of(&attached, &billing, partition(1, 1)), Some(seen), "the whole set");
            clock.advance_ms(60);
            store.log().maintain().unwrap();
            attached.refresh().unwrap();
            assert_eq!(state_of(&attached), state_of(&store));
        }
    }
    store.delete_group(&billing).unwrap().wait().unwrap();
    store.log().close().unwrap();
    attached.refresh().unwrap();
    assert_eq!(attached.groups(), []);
}

#[test]
fn it_attaches_beside_a_log_that_was_rewritten_to_nothing() {
    let (disk, store) = new_store();
    for _ in 0..3 {
        drop(store.set_positions(&group("billing"), &[commit(partition(1, 0), 5)]).unwrap());
        drop(store.delete_group(&group("billing")).unwrap());
        assert!(store.rewrite().unwrap());
        assert_eq!(attach(&disk).unwrap().groups(), []);
    }
    assert_eq!(open(&disk.crash(|_, _| false)).unwrap().groups(), []);
}

#[test]
fn it_follows_a_writer_on_another_thread_and_never_shows_less_than_before() {
    let (disk, store) = new_store();
    let (billing, first) = (group("billing"), partition(1, 0));
    for _ in 0..2 {
        let set = [commit(first, 1), commit(partition(1, 1), 1)];
        drop(store.set_positions(&billing, &set).unwrap());
    }
    // A rewrite records what is durable; without it an attached reader may not see this yet.
    assert!(store.rewrite().unwrap());
    let attached = attach(&disk).unwrap();
    let (is_done, last) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 2..3000 {
                let set = [commit(first, offset), commit(partition(1, 1), offset)];
                store.set_positions(&billing, &set).unwrap().wait().unwrap();
                if offset % 7 == 0 {
                    store.rewrite().unwrap();
                }
            }
            last.store(2999, Ordering::SeqCst);
            store.log().close().unwrap();
            is_done.store(true, Ordering::SeqCst);
        });
        let (mut seen, mut steps) = (0, 0);
        while !is_done.load(Ordering::SeqCst) {
            attached.refresh().unwrap();
            let now = offset_of(&attached, &billing, first).expect("it was there");
            assert!(now >= seen, "{now} after {seen}");
            assert_eq!(offset_of(&attached, &billing, partition(1, 1)), Some(now), "the whole set");
            steps += u64::from(now > seen);
            seen = now;
            // And one that comes anew.
            let fresh = attach(&disk).map(|fresh| offset_of(&fresh, &billing, first));
            match fresh {
                Ok(found) => assert!(found.is_some_and(|found| found >= seen), "{found:?} after {seen}"),
                // A listing that is overtaken by a rewrite is reported as what it looks like; the next one is not.
                Err(Error::Log(tailwater_log::Error::Corrupt(_))) => {}
                Err(error) => panic!("{error}"),
            }
        }
        println!("{steps} steps seen");
    });
    attached.refresh().unwrap();
    assert_eq!(offset_of(&attached, &billing, first), Some(last.into_inner()));
}

#[test]
fn it_follows_a_writer_that_fails_and_begins_new_epochs() {
    let disk = SimDisk::new(1);
    let (billing, first) = (group("billing"), partition(1, 0));
    let store = open(&disk).unwrap();
    store.set_positions(&billing, &[commit(first, 1)]).unwrap().wait().unwrap();
    store.log().close().unwrap();
    drop(store);
    let attached = attach(&disk).unwrap();
    let (is_done, epochs) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut offset = 1;
            for round in 0..60 {
                let store = open(&disk).unwrap();
                for _ in 0..round % 5 {
                    offset += 1;
                    store.set_positions(&billing, &[commit(first, offset)]).unwrap().wait().unwrap();
                }
                if round % 3 == 0 {
                    store.rewrite().unwrap();
                }
                // A failed sync: the log is not closed in order, and the next open begins an epoch.
                offset += 1;
                let receipt = store.set_positions(&billing, &[commit(first, offset)]).unwrap();
                disk.fail_nth(2, 5, true);
                let _ = receipt.wait();
                disk.clear_faults();
                epochs.store(store.log().epoch().get().into(), Ordering::SeqCst);
            }
            is_done.store(true, Ordering::SeqCst);
        });
        let mut seen = 0;
        while !is_done.load(Ordering::SeqCst) {
            attached.refresh().unwrap();
            let now = offset_of(&attached, &billing, first).expect("it was there");
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
        }
    });
    assert!(epochs.into_inner() > 10);
    let store = open(&disk).unwrap();
    assert!(store.log().epoch() > LogEpoch::FIRST);
    store.log().close().unwrap();
    attached.refresh().unwrap();
    assert_eq!(state_of(&attached), state_of(&store));
}

/// What fresh readers found while a recovery was interrupted at each of its operations.
#[derive(Default)]
struct Found {
    pending: u32,
    shown: u32,
}

fn interrupt_recoveries(is_rewritten: bool) -> Found {
    let (billing, first) = (group("billing"), partition(1, 0));
    let mut found = Found::default();
    for nth in 1.. {
        let disk = SimDisk::new(1);
        let store = open(&disk).unwrap();
        let commit_all = |offsets: std::ops::Range<u64>| {
            for offset in offsets {
                store.set_positions(&billing, &[commit(first, offset)]).unwrap().wait().unwrap();
            }
        };
        commit_all(1..4);
        let early = attach(&disk).unwrap();
        let seen_early = offset_of(&early, &billing, first).unwrap();
        if is_rewritten {
            assert!(store.rewrite().unwrap());
        } else {
            store.log().roll().unwrap();
        }
        commit_all(4..9);
        let late = attach(&disk).unwrap();
        let seen_late = offset_of(&late, &billing, first).unwrap();
        assert!(seen_early >= 2 && seen_late >= 7, "{seen_early}, {seen_late}");
        // The writer stops at an error, and its next open too, after `nth` operations.
        let receipt = store.set_positions(&billing, &[commit(first, 9)]).unwrap();
        disk.fail_nth(2, 5, true);
        assert!(receipt.wait().is_err());
        drop(store);
        disk.clear_faults();
        disk.fail_nth(nth, 5, false);
        let opened = open(&disk);
        disk.clear_faults();
        for (follower, seen) in [(&early, seen_early), (&late, seen_late)] {
            follower.refresh().unwrap();
            assert!(offset_of(follower, &billing, first) >= Some(seen), "operation {nth}");
        }
        match attach(&disk) {
            Ok(fresh) => {
                // A log that was never rewritten may be shown as it was at any time.
                assert!(!is_rewritten || offset_of(&fresh, &billing, first) >= Some(3), "operation {nth}");
                found.shown += 1;
            }
            Err(Error::RecoveryPending { .. }) => found.pending += 1,
            Err(error) => panic!("operation {nth}: {error}"),
        }
        if let Ok(store) = opened {
            store.log().close().unwrap();
            for follower in [&early, &late] {
                follower.refresh().unwrap();
                assert_eq!(state_of(follower), state_of(&store));
            }
            break;
        }
    }
    found
}

#[test]
fn it_shows_no_less_while_the_writer_recovers_however_far_that_came() {
    let plain = interrupt_recoveries(false);
    assert!(plain.pending == 0 && plain.shown > 5, "{} pending, {} shown", plain.pending, plain.shown);
    let rewritten = interrupt_recoveries(true);
    assert!(rewritten.pending > 0 && rewritten.shown > 5, "{} pending", rewritten.pending);
}
