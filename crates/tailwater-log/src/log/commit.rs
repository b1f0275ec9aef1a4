//! Group commit: many appends, one sync.
//!
//! - At most one thread leads at a time: it writes and syncs everything staged so far and publishes the durable offset.
//! - Whoever else waits is asleep on its own, and names the offset that it waits for. A leader that ends hands the lead to
//!   the first that it has not covered, then wakes all that it has: those find their answer without a lock, and while they
//!   are at it the next sync is under way.
//! - A leader that fails or unwinds hands the lead on too, so nobody waits for ever.
//! - A new leader waits a moment for those who were just woken: most of them append again at once, and a sync that begins
//!   without them makes them wait for the one after it. Without that, the waiters fall into two halves that take turns.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::Offset;
use crate::mistakes::{Mistake, is_planted};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, MutexGuard, park_until};

#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    state: Mutex<CommitState>,
    /// Up to where everything is durable, as the latest leader left it.
    reached: AtomicU64,
    /// Whether `wakers` may hold any, so that a write for which no task waits takes no lock.
    has_wakers: AtomicBool,
}

#[derive(Debug, Default)]
struct CommitState {
    is_led: bool,
    /// Threads that wait, in the order they came.
    waiters: VecDeque<Arc<Waiter>>,
    wakers: Vec<Waker>,
    /// How many will wait soon, if all come back who were woken last.
    expected: usize,
    /// How many new leaders do not wait for them, since they did not come when they were waited for.
    hurry: u32,
    last_sync: Duration,
}

/// How long a new leader waits for others, at most: a quarter of a sync, and this.
const LONGEST_GATHERING: Duration = Duration::from_micros(500);
/// How many leaders go on at once after one has waited in vain.
const HURRY_AFTER_WAITING_IN_VAIN: u32 = 32;

/// A thread that waits.
#[derive(Debug)]
struct Waiter {
    /// What it waits for: the durable offset, or more, at which it has its answer.
    until: Offset,
    /// One of the constants below.
    turn: AtomicU8,
    thread: Thread,
}

/// It sleeps.
const ASLEEP: u8 = 0;
/// It looks again.
const LOOK: u8 = 1;
/// It has the lead.
const LEAD: u8 = 2;

impl Waiter {
    fn wake(&self, turn: u8) {
        self.turn.store(turn, Ordering::SeqCst);
        self.thread.unpark();
    }

    /// Sleeps until it is woken or the deadline has passed. Returns its turn.
    fn sleep(&self, deadline: Option<Instant>) -> u8 {
        loop {
            let turn = self.turn.load(Ordering::SeqCst);
            if turn != ASLEEP || !park_until(deadline) {
                return turn;
            }
        }
    }
}

/// Leadership. Dropping it hands the lead on and wakes those who have what they waited for.
#[derive(Debug)]
pub(crate) struct Leader<'c>(&'c GroupCommit);

/// What a waiter is to do.
#[derive(Debug)]
pub(crate) enum Turn<'c, T> {
    Done(T),
    Lead(Leader<'c>),
    TimedOut,
}

impl GroupCommit {
    /// Becomes the leader, waiting for those who asked before.
    pub(crate) fn lead(&self) -> Leader<'_> {
        loop {
            if let Turn::Lead(leader) = self.lead_or_wait(Offset::MAX, None, || None::<()>) {
                return leader;
            }
        }
    }

    /// Becomes the leader, unless another thread leads.
    pub(crate) fn try_lead(&self) -> Option<Leader<'_>> {
        let was_led = std::mem::replace(&mut self.lock().is_led, true);
        // Only one that leads may be dropped.
        if was_led { None } else { Some(Leader(self)) }
    }

    /// Becomes the leader if nobody leads and `is_done` has no answer yet; else waits until it has one, which is looked for
    /// when the durable offset has come to `until` and after [`GroupCommit::wake_all`], or until it is its turn to lead, or
    /// the deadline passes.
    pub(crate) fn lead_or_wait<T>(
        &self,
        until: Offset,
        deadline: Option<Instant>,
        mut is_done: impl FnMut() -> Option<T>,
    ) -> Turn<'_, T> {
        loop {
            let waiter = {
                let mut state = self.lock();
                // Under the lock: whoever publishes later finds this thread among those who wait.
                if let Some(done) = is_done() {
                    return Turn::Done(done);
                }
                if !state.is_led {
                    state.is_led = true;
                    return Turn::Lead(Leader(self));
                }
                let waiter = Waiter { until, turn: AtomicU8::new(ASLEEP), thread: thread::current() };
                let waiter = Arc::new(waiter);
                state.waiters.push_back(Arc::clone(&waiter));
                waiter
            };
            let turn = match waiter.sleep(deadline) {
                ASLEEP => {
                    let mut state = self.lock();
                    state.waiters.retain(|other| !Arc::ptr_eq(other, &waiter));
                    // It may have been its turn just now.
                    waiter.turn.load(Ordering::SeqCst)
                }
                turn => turn,
            };
            let leader = (turn == LEAD).then(|| Leader(self));
            match (is_done(), leader) {
                (Some(done), _) => return Turn::Done(done),
                (None, Some(leader)) => return Turn::Lead(leader),
                (None, None) if turn == ASLEEP => return Turn::TimedOut,
                (None, None) => {}
            }
        }
    }

    /// Waits, as the new leader, for those who were woken last to come back: not for long, and not if they did not do so
    /// lately.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn gather(&self, _leader: &Leader<'_>) {
        let mut deadline = None;
        loop {
            let mut state = self.lock();
            if state.waiters.len() >= state.expected {
                return;
            }
            if state.hurry > 0 {
                state.hurry -= 1;
                return;
            }
            let now = Instant::now();
            let deadline =
                *deadline.get_or_insert_with(|| now + (state.last_sync / 4).min(LONGEST_GATHERING));
            if now >= deadline {
                // Half of them are enough to have been worth it.
                if state.waiters.len() < state.expected / 2 {
                    state.hurry = HURRY_AFTER_WAITING_IN_VAIN;
                }
                return;
            }
            drop(state);
            thread::yield_now();
        }
    }

    /// As without a tester; those have no time, so nothing is waited for.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn gather(&self, _leader: &Leader<'_>) {}

    /// Notes how long a sync took.
    pub(crate) fn note_sync(&self, took: Duration) {
        self.lock().last_sync = took;
    }

    /// Notes that everything below `durable` is durable, for when the leader ends.
    pub(crate) fn note_durable(&self, durable: Offset) {
        self.reached.store(durable.get(), Ordering::SeqCst);
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
            let wakers = self.take_wakers(&mut self.lock());
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Has all threads and tasks that wait look again.
    pub(crate) fn wake_all(&self) {
        let (waiters, wakers) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.waiters), self.take_wakers(&mut state))
        };
        waiters.iter().for_each(|waiter| waiter.wake(LOOK));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn take_wakers(&self, state: &mut CommitState) -> Vec<Waker> {
        self.has_wakers.store(false, Ordering::SeqCst);
        std::mem::take(&mut state.wakers)
    }

    fn lock(&self) -> MutexGuard<'_, CommitState> {
        // No code that can panic runs while this is held but `is_done`, which only reads.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let reached = self.0.reached.load(Ordering::SeqCst);
        let (covered, next, wakers) = {
            let mut state = self.0.lock();
            let (covered, mut waiting): (VecDeque<_>, VecDeque<_>) =
                state.waiters.drain(..).partition(|waiter| waiter.until.get() <= reached);
            let next = waiting.pop_front();
            // Those who are woken, those who wait on, and this thread, unless the next leader is of them.
            state.expected = covered.len() + waiting.len() + usize::from(next.is_some());
            state.waiters = waiting;
            state.is_led = next.is_some();
            (covered, next, self.0.take_wakers(&mut state))
        };
        // The next leader first: its sync runs while the others are woken.
        if !is_planted(Mistake::ForgetNextLeader) {
            next.iter().for_each(|waiter| waiter.wake(LEAD));
        }
        covered.iter().for_each(|waiter| waiter.wake(LOOK));
        wakers.into_iter().for_each(Waker::wake);
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
        assert!(matches!(commit.lead_or_wait(Offset::MAX, None, || None::<()>), Turn::Lead(_)));
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
                            match commit.lead_or_wait(Offset::new(mine), None, is_done) {
                                Turn::Done(()) => break,
                                Turn::Lead(leader) => {
                                    let all = wanted.load(Ordering::SeqCst);
                                    std::thread::sleep(Duration::from_micros(50));
                                    done.fetch_max(all, Ordering::SeqCst);
                                    commit.note_durable(Offset::new(all));
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
        assert!(matches!(commit.lead_or_wait(Offset::MAX, deadline, || None::<()>), Turn::TimedOut));
    }
}
