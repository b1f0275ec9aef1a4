//! How readers sleep until there is something to read.
//!
//! - No news is lost: a reader arms its signal, looks, and only then sleeps; whatever is published after the arming
//!   ends the sleep.
//! - An unarmed signal costs the publisher one load.

use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::{FetchIsolation, Inner};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Something that sleeps until one of several logs has news.
///
/// A consumer makes one and registers it with each log that it reads ([`Log::add_listener`](crate::Log::add_listener)).
/// It then goes round: [`arm`](Signal::arm), look for records, and if there are none
/// [`wait_until`](Signal::wait_until) or [`poll_news`](Signal::poll_news).
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use tailwater_log::Signal;
///
/// let signal = Signal::new();
/// signal.arm();
/// assert!(!signal.wait_until(Instant::now() + Duration::from_millis(1)));
/// signal.wake();
/// assert!(signal.wait_until(Instant::now() + Duration::from_secs(60)));
/// ```
#[derive(Debug, Default)]
pub struct Signal {
    is_armed: AtomicBool,
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    has_news: bool,
    waker: Option<Waker>,
}

impl Signal {
    /// Makes a signal that is not armed and has no news.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets earlier news; from here on any news is remembered. Called before looking for records.
    pub fn arm(&self) {
        self.lock().has_news = false;
        self.is_armed.store(true, Ordering::SeqCst);
        // Armed before the reader looks, as it is published before the publisher looks whether anybody is armed: one of
        // the two sees the other.
        fence(Ordering::SeqCst);
    }

    /// Sleeps until there was news since [`arm`](Signal::arm) or `deadline` has passed. Returns whether there was news.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while !state.has_news {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.is_armed.store(false, Ordering::SeqCst);
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.has_news
    }

    /// Sleeps until there was news since [`arm`](Signal::arm).
    pub fn wait(&self) {
        let mut state = self.lock();
        while !state.has_news {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`wait_until`](Signal::wait_until) for a task: `Ready` if there was news since [`arm`](Signal::arm), else the
    /// task is woken when there is.
    pub fn poll_news(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.has_news {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Wakes whoever waits, or will wait before the next [`arm`](Signal::arm).
    pub fn wake(&self) {
        self.is_armed.store(false, Ordering::SeqCst);
        let mut state = self.lock();
        state.has_news = true;
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes whoever sleeps, or is about to, after something was published.
    pub(crate) fn wake_if_armed(&self) {
        fence(Ordering::SeqCst);
        if self.is_armed() {
            self.wake();
        }
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, SignalState> {
        // A panic between two assignments of the state is impossible; waking runs after the lock is gone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signals of those who read a log.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// How many there are, so that appends and writes that nobody reads look at nothing else.
    count: AtomicUsize,
    list: ArcSwap<Vec<Listener>>,
    next_id: AtomicU64,
}

#[derive(Clone, Debug)]
struct Listener {
    id: u64,
    isolation: FetchIsolation,
    signal: Arc<Signal>,
}

impl Listeners {
    pub(crate) fn add(&self, signal: &Arc<Signal>, isolation: FetchIsolation) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Before it can be armed, as everything that it will look at is published before this is looked at.
        self.count.fetch_add(1, Ordering::SeqCst);
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            list.push(Listener { id, isolation, signal: Arc::clone(signal) });
            list
        });
        id
    }

    fn remove(&self, id: u64) {
        self.list.rcu(|list| list.iter().filter(|listener| listener.id != id).cloned().collect::<Vec<_>>());
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    #[inline]
    fn is_any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Whether somebody sleeps, or is about to, that records up to the log end would wake.
    #[inline]
    pub(crate) fn is_any_armed(&self) -> bool {
        self.is_any() && self.list.load().iter().any(|listener| listener.signal.is_armed())
    }

    /// Wakes the armed signals of those who see what was just published.
    pub(crate) fn notify(&self, is_for: impl Fn(FetchIsolation) -> bool) {
        fence(Ordering::SeqCst);
        if !self.is_any() {
            return;
        }
        for listener in self.list.load().iter() {
            if is_for(listener.isolation) {
                listener.signal.wake_if_armed();
            }
        }
    }

    /// Wakes everybody: the log has closed or failed.
    pub(crate) fn notify_all(&self) {
        self.list.load().iter().for_each(|listener| listener.signal.wake());
    }
}

/// Keeps a [`Signal`] registered with a log. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it unregisters the signal"]
pub struct ListenerGuard {
    pub(super) log: Weak<Inner>,
    pub(super) id: u64,
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        if let Some(log) = self.log.upgrade() {
            log.listeners.remove(self.id);
        }
    }
}
