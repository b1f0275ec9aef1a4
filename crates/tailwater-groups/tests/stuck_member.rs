//! A member that is stuck in its handler holds up the others for no longer than its revoke timeout: threads, a real clock.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use common::{commit, group, new_store, offset_of, topic};
use tailwater_groups::coordinator::{MemberSpec, Subscription, TopicInfo, Topics};
use tailwater_groups::{Error, GroupLifetime, GroupStore, Member, Start};
use tailwater_log::{Offset, PartitionIdentity, Signal};

const PARTITIONS: u32 = 4;
const REVOKE_TIMEOUT: Duration = Duration::from_millis(250);
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(5);

fn store_with_orders() -> GroupStore {
    let (_disk, store) = new_store();
    let info = TopicInfo { id: topic(1), name: "orders".into(), partition_count: PARTITIONS };
    store.set_topics(&Arc::new(Topics::new(1, [info])));
    store
}

fn spec() -> MemberSpec {
    MemberSpec {
        subscription: Subscription { topics: vec![topic(1)], patterns: Vec::new() },
        revoke_timeout_ms: u64::try_from(REVOKE_TIMEOUT.as_millis()).unwrap(),
        ..MemberSpec::default()
    }
}

fn join(store: &GroupStore, of: &str) -> (Member, Arc<Signal>) {
    let signal = Arc::new(Signal::new());
    let member = store.join(&group(of), spec(), GroupLifetime::Lasting, &signal).unwrap();
    (member, signal)
}

fn assigned(member: &Member) -> Vec<PartitionIdentity> {
    member.poll().unwrap().assigned.into_iter().map(|new| new.partition).collect()
}

/// Polls and sleeps, as a consumer does, until it owns so many partitions.
fn take_over(member: &Member, signal: &Signal, wanted: usize) -> Vec<PartitionIdentity> {
    let mut owned = Vec::new();
    let give_up = Instant::now() + REVOKE_TIMEOUT + SLACK;
    loop {
        signal.arm();
        owned.extend(assigned(member));
        if owned.len() == wanted {
            return owned;
        }
        assert!(Instant::now() < give_up, "held up: {} of {wanted} are there", owned.len());
        let wait = member.wait();
        assert!(wait.is_some_and(|wait| wait <= REVOKE_TIMEOUT), "told to sleep for {wait:?}");
        signal.wait_until(Instant::now() + wait.unwrap_or_default());
    }
}

#[test]
fn a_member_that_is_stuck_in_its_handler_holds_up_the_others_for_its_revoke_timeout_at_most() {
    let store = store_with_orders();
    let (stuck, _stuck_signal) = join(&store, "billing");
    let all = assigned(&stuck);
    assert_eq!(all.len(), PARTITIONS as usize);
    // Its handler has a record of each partition.
    let deliveries: Vec<_> = all.iter().map(|at| (*at, Offset::new(1))).collect();
    assert_eq!(stuck.deliver(&deliveries).unwrap(), [true; PARTITIONS as usize]);

    let (stuck, all) = (&stuck, &all);
    let bystander_commits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Both end when this closure does, also by a panic.
        let (unblock, blocked) = mpsc::channel::<()>();
        let (_stop, stopped) = mpsc::channel::<()>();
        let handler = scope.spawn(move || {
            blocked.recv().unwrap();
            let commits: Vec<_> = all.iter().map(|at| stuck.commit(&[commit(*at, 1)]).map(drop)).collect();
            (stuck.poll().unwrap().lost, commits)
        });
        // A member of another group goes on meanwhile.
        let (store, bystander_commits) = (&store, &bystander_commits);
        scope.spawn(move || {
            let (bystander, _signal) = join(store, "shipping");
            let at = assigned(&bystander)[0];
            while stopped.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                let next = bystander_commits.fetch_add(1, Ordering::SeqCst) + 1;
                assert_eq!(bystander.deliver(&[(at, Offset::new(next))]).unwrap(), [true]);
                drop(bystander.commit(&[commit(at, next)]).unwrap());
            }
        });

        let begun = Instant::now();
        let (next, signal) = join(store, "billing");
        let taken = take_over(&next, &signal, PARTITIONS as usize / 2);
        let waited = begun.elapsed();
        println!("held up for {waited:?} by a member with a revoke timeout of {REVOKE_TIMEOUT:?}");
        assert!(!handler.is_finished(), "it is stuck all the while");
        assert!(waited <= REVOKE_TIMEOUT + SLACK, "held up for {waited:?}");
        // The clock of deadlines has whole milliseconds.
        assert!(waited + Duration::from_millis(2) >= REVOKE_TIMEOUT, "fenced after {waited:?} already");

        // They are its own from there on, and what the stuck one commits when it comes back changes nothing.
        for at in &taken {
            assert_eq!(next.deliver(&[(*at, Offset::new(7))]).unwrap(), [true]);
            drop(next.commit(&[commit(*at, 7)]).unwrap());
        }
        unblock.send(()).unwrap();
        let (lost, commits) = handler.join().unwrap();
        assert_eq!(lost, taken);
        for (at, committed) in all.iter().zip(commits) {
            match committed {
                Ok(()) => assert_eq!(offset_of(store, next.group(), *at), Some(1)),
                Err(Error::FencedMemberEpoch { partition, .. }) => {
                    assert_eq!(partition.as_deref(), Some(at));
                    assert!(taken.contains(at), "{at:?} is its own");
                    assert_eq!(offset_of(store, next.group(), *at), Some(7));
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    let commits = bystander_commits.load(Ordering::SeqCst);
    assert!(commits > 10, "the other group made {commits} commits meanwhile");
}

#[test]
fn a_member_that_comes_back_in_time_ends_the_wait() {
    let store = store_with_orders();
    let join = |signal: &Arc<Signal>| {
        let spec = MemberSpec { revoke_timeout_ms: 60_000, ..spec() };
        store.join(&group("billing"), spec, GroupLifetime::Lasting, signal).unwrap()
    };
    let slow = join(&Arc::new(Signal::new()));
    let all = assigned(&slow);
    let deliveries: Vec<_> = all.iter().map(|at| (*at, Offset::new(1))).collect();
    slow.deliver(&deliveries).unwrap();
    let signal = Arc::new(Signal::new());
    let next = join(&signal);
    signal.arm();
    assert_eq!(assigned(&next), []);
    assert!(next.wait().is_some_and(|wait| wait > Duration::from_secs(30)));
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            let set: Vec<_> = all.iter().map(|at| commit(*at, 1)).collect();
            drop(slow.commit(&set).unwrap());
        });
        assert!(signal.wait_until(Instant::now() + Duration::from_secs(30)), "it is woken by the commit");
        next.poll().unwrap().assigned
    });
    assert_eq!(taken.len(), PARTITIONS as usize / 2);
    let is_committed = |start: &Start| matches!(start, Start::At(at) if at.position.offset == Offset::new(1));
    assert!(next.starts(&taken).iter().all(is_committed), "nothing is delivered twice");
}
