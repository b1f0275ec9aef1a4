//! Many groups commit at once while the log is rewritten, and the power fails somewhere in between.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use common::{Choices, commit, group, offset_of, open, partition, survivals};
use tailwater_groups::{GroupKind, GroupLifetime};
use tailwater_log::storage::SimDisk;

const THREADS: usize = 4;

/// Commits on all threads, rewrites on these now and then and on one more all the time, until `commits` or the power
/// ends. Returns what was acknowledged, and how many rewrites there were.
fn run(disk: &SimDisk, commits: u64) -> (Vec<u64>, u64) {
    let Ok(store) = open(disk) else { return (vec![0; THREADS], 0) };
    let acknowledged: Vec<_> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let (running, rewrites) = (AtomicUsize::new(THREADS), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (number, acknowledged) in acknowledged.iter().enumerate() {
            let (store, running, rewrites) = (&store, &running, &rewrites);
            scope.spawn(move || {
                let id = group(&format!("group-{number}"));
                let member =
                    store.join_exclusively(&id, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
                for offset in 1..=commits {
                    let set =
                        [0, 1, 2].map(|partition_number| commit(partition(1, partition_number), offset));
                    let Ok(receipt) = member.commit(&set) else { break };
                    assert_eq!(offset_of(store, &id, partition(1, 2)), Some(offset));
                    if offset % 16 == 0 {
                        let Ok(did) = store.rewrite() else { break };
                        rewrites.fetch_add(did.into(), Ordering::SeqCst);
                    }
                    // Some are waited for together.
                    if offset % 3 != 0 {
                        if receipt.unwrap().wait().is_err() {
                            break;
                        }
                        acknowledged.store(offset, Ordering::SeqCst);
                    }
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let (store, running, rewrites) = (&store, &running, &rewrites);
        scope.spawn(move || {
            while running.load(Ordering::SeqCst) > 0 {
                match store.rewrite() {
                    Ok(did) => rewrites.fetch_add(did.into(), Ordering::SeqCst),
                    Err(_) => break,
                };
            }
        });
    });
    (acknowledged.into_iter().map(AtomicU64::into_inner).collect(), rewrites.into_inner())
}

fn check(disk: &SimDisk, acknowledged: &[u64], what: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (number, acknowledged) in acknowledged.iter().enumerate() {
        let id = group(&format!("group-{number}"));
        let found = offset_of(&store, &id, partition(1, 0)).unwrap_or(0);
        assert!(found >= *acknowledged, "{what}: {id} is at {found}, {acknowledged} was acknowledged");
        for other in 1..3 {
            let other = offset_of(&store, &id, partition(1, other)).unwrap_or(0);
            assert_eq!(other, found, "{what}: {id} has a part of a set");
        }
    }
}

#[test]
fn groups_commit_at_once_while_rewrites_run() {
    let disk = SimDisk::new(1);
    let (acknowledged, rewrites) = run(&disk, 1000);
    assert_eq!(acknowledged, [1000; THREADS]);
    assert!(rewrites > 10, "{rewrites} rewrites");
    check(&disk.crash(|_, _| false), &acknowledged, "at the end");
}

#[test]
fn a_power_cut_in_the_middle_loses_no_acknowledged_commit_and_splits_none() {
    let mut rewrites = 0;
    for round in 0..120 {
        let disk = SimDisk::new(round);
        disk.cut_power_after(15 + 7 * round);
        let (acknowledged, rewritten) = run(&disk, u64::MAX);
        rewrites += rewritten;
        let mut choices = Choices::new(round);
        for way in survivals(disk.pending(), &mut choices, 8) {
            let image = disk.crash(|index, _| way[index]);
            check(&image, &acknowledged, &format!("round {round}, {way:?}"));
        }
    }
    assert!(rewrites > 100, "{rewrites} rewrites");
}
