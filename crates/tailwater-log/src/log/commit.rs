//! Group commit: many appends, one sync.
//!
//! - At most one thread leads at a time: it writes and syncs everything staged so far and publishes the durable offset.
//! - Everybody else who waits is woken once by the leader; whoever was not covered leads next.
//! - A leader that fails or unwinds gives the lead back, so nobody waits for ever.

use std::sync::PoisonError;
use std::task::{Context, Waker};
use std::time::Instant;

use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    state: Mutex<CommitState>,
    changed: Condvar,
    /// Whether `wakers` may hold any, so that a write for which no task waits takes no lock.
    has_wakers: AtomicBool,
}

#[derive(Debug, Default)]
struct CommitState {
    is_led: bool,
    wakers: Vec<Waker>,
}

/// Leadership. Dropping it hands the lead back and wakes those who wait.
#[derive(Debug)]
pub(crate) struct Leader<'c>(&'c GroupCommit);

impl GroupCommit {
    /// Becomes the leader, waiting for the present one to finish.
    pub(crate) fn lead(&self) -> Leader<'_> {
        let mut state = self.lock();
        while state.is_led {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_led = true;
        Leader(self)
    }

    /// Becomes the leader if nobody leads and `is_done` has no answer yet; else waits until it has one, or until the
    /// lead is free, or the deadline passes.
    pub(crate) fn lead_or_wait<T>(
        &self,
        deadline: Option<Instant>,
        mut is_done: impl FnMut() -> Option<T>,
    ) -> Turn<'_, T> {
        let mut state = self.lock();
        loop {
            if let Some(done) = is_done() {
                return Turn::Done(done);
            }
            if !state.is_led {
                state.is_led = true;
                return Turn::Lead(Leader(self));
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Turn::TimedOut;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Has the task woken when something was published; it must look again after this.
    pub(crate) fn register(&self, context: &Context<'_>) {
        let mut state = self.lock();
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        self.has_wakers.store(true, Ordering::SeqCst);
        // As in `Signal::arm`: registered before the task looks, published before the publisher looks for tasks.
        fence(Ordering::SeqCst);
    }

    /// Wakes the tasks that wait, if there are any; threads that wait for a write do it themselves.
    pub(crate) fn wake_tasks(&self) {
        fence(Ordering::SeqCst);
        if self.has_wakers.load(Ordering::SeqCst) {
            self.wake_all();
        }
    }

    /// Wakes all threads and tasks that wait.
    pub(crate) fn wake_all(&self) {
        let wakers = {
            let mut state = self.lock();
            self.has_wakers.store(false, Ordering::SeqCst);
            std::mem::take(&mut state.wakers)
        };
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, CommitState> {
        // No code that can panic runs while this is held but `is_done`, which only reads.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a waiter is to do.
#[derive(Debug)]
pub(crate) enum Turn<'c, T> {
    Done(T),
    Lead(Leader<'c>),
    TimedOut,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.lock().is_led = false;
        self.0.wake_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_leader_that_unwinds_hands_over() {
        let commit = GroupCommit::default();
        std::thread::scope(|scope| {
            let died = scope.spawn(|| {
                let _leader = commit.lead();
                panic!("the leader dies");
            });
            assert!(died.join().is_err());
        });
        assert!(matches!(commit.lead_or_wait(None, || None::<()>), Turn::Lead(_)));
    }

    #[test]
    fn waiters_share_the_leaders_work() {
        let commit = GroupCommit::default();
        let (wanted, done, syncs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mine = wanted.fetch_add(1, Ordering::SeqCst) + 1;
                        loop {
                            let is_done = || (done.load(Ordering::SeqCst) >= mine).then_some(());
                            match commit.lead_or_wait(None, is_done) {
                                Turn::Done(()) => break,
                                Turn::Lead(leader) => {
                                    let all = wanted.load(Ordering::SeqCst);
                                    std::thread::sleep(Duration::from_micros(50));
                                    done.fetch_max(all, Ordering::SeqCst);
                                    syncs.fetch_add(1, Ordering::SeqCst);
                                    drop(leader);
                                }
                                Turn::TimedOut => unreachable!("no deadline was given"),
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 400);
        assert!(syncs.load(Ordering::SeqCst) <= 400);
    }

    #[test]
    fn a_deadline_ends_the_wait_for_another_leader() {
        let commit = GroupCommit::default();
        let _leader = commit.lead();
        let deadline = Some(Instant::now() + Duration::from_millis(5));
        assert!(matches!(commit.lead_or_wait(deadline, || None::<()>), Turn::TimedOut));
    }
}
