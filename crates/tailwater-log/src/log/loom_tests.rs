//! Every interleaving of two or three threads where they meet: published ends and sleeping readers, the lead of the group
//! commit, a failure, the writer's slot. Run as `sync.rs` says.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use super::commit::{GroupCommit, Turn};
use super::ends::Ends;
use super::signal::Signal;
use super::slot::Slot;
use crate::{LogEpoch, Offset};

fn ends() -> Ends {
    Ends::new(Offset::ZERO, Offset::ZERO, LogEpoch::FIRST)
}

#[test]
fn loom_a_reader_that_arms_looks_and_sleeps_misses_nothing() {
    loom::model(|| {
        let shared = Arc::new((ends(), Signal::new()));
        let publisher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (ends, signal) = &*shared;
                for end in 1..=2 {
                    ends.set_durable(Offset::new(end));
                    signal.wake_if_armed();
                }
            })
        };
        let (ends, signal) = &*shared;
        let mut seen = 0;
        while seen < 2 {
            signal.arm();
            let end = ends.durable().get();
            assert!(end >= seen, "an end does not move back");
            if end == seen {
                // Nobody wakes this thread for what it has seen; that it comes back is what the model checks.
                signal.wait();
            }
            seen = end;
        }
        publisher.join().unwrap();
    });
}

/// What the log does around the lead: whoever leads covers all that was wanted by then.
fn wait_until_covered(commit: &GroupCommit, wanted: &AtomicU64, done: &AtomicU64, mine: u64) {
    loop {
        match commit
            .lead_or_wait(Offset::new(mine), None, || (done.load(Ordering::SeqCst) >= mine).then_some(()))
        {
            Turn::Done(()) => return,
            Turn::Lead(leader) => {
                let all = wanted.load(Ordering::SeqCst);
                done.store(all, Ordering::SeqCst);
                commit.note_durable(Offset::new(all));
                drop(leader);
            }
            Turn::TimedOut => unreachable!("no deadline was given"),
        }
    }
}

#[test]
fn loom_every_waiter_of_a_group_commit_is_covered_and_woken() {
    loom::model(|| {
        let shared = Arc::new((GroupCommit::default(), AtomicU64::new(0), AtomicU64::new(0)));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (commit, wanted, done) = &*shared;
                    let mine = wanted.fetch_add(1, Ordering::SeqCst) + 1;
                    wait_until_covered(commit, wanted, done, mine);
                })
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(shared.2.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn loom_a_failure_ends_every_wait() {
    loom::model(|| {
        let shared = Arc::new((GroupCommit::default(), AtomicBool::new(false)));
        let waiter = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (commit, has_failed) = &*shared;
                // It leads if it comes first, and then the failure is its own to find.
                match commit
                    .lead_or_wait(Offset::MAX, None, || has_failed.load(Ordering::SeqCst).then_some(()))
                {
                    Turn::Done(()) => assert!(has_failed.load(Ordering::SeqCst)),
                    Turn::Lead(leader) => drop(leader),
                    Turn::TimedOut => unreachable!("no deadline was given"),
                }
            })
        };
        let (commit, has_failed) = &*shared;
        let leader = commit.lead();
        has_failed.store(true, Ordering::SeqCst);
        commit.wake_all();
        drop(leader);
        waiter.join().unwrap();
    });
}

struct Woken(std::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn loom_a_task_that_registers_and_looks_again_is_woken() {
    loom::model(|| {
        let shared = Arc::new((GroupCommit::default(), ends()));
        let woken = Arc::new(Woken(std::sync::atomic::AtomicBool::new(false)));
        let publisher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.set_written(Offset::new(1));
                shared.0.wake_tasks();
            })
        };
        let (commit, ends) = &*shared;
        let waker = Waker::from(Arc::clone(&woken));
        commit.register(&Context::from_waker(&waker));
        let is_there = ends.written() == Offset::new(1);
        publisher.join().unwrap();
        let was_woken = woken.0.load(std::sync::atomic::Ordering::SeqCst);
        assert!(is_there || was_woken, "it would sleep for ever");
    });
}

#[test]
fn loom_a_slot_is_held_by_one_thread_at_a_time() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(0));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || *slot.take() += 1)
            })
            .collect();
        *slot.take() += 1;
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(*slot.take(), 3);
    });
}
