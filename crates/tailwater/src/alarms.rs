//! Waking tasks at a time: what a thread does by sleeping until then.
//!
//! - Three things need it: a consumer of a broker that is attached read-only, where nobody in this process could tell
//!   that there is more; one that was told of an error which may pass; and a member of a group that waits for another's
//!   deadline.
//! - One thread for a broker, started at the first alarm; without one nothing ever is. It sleeps until the next is due.
//! - With [`Maintenance::Manual`](crate::Maintenance::Manual) there is no thread: whoever does the work rings them.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use tailwater_log::Signal;

use crate::{Error, Result};

/// Signals to be woken at a time.
#[derive(Debug)]
pub(crate) struct Alarms {
    shared: Arc<Shared>,
    /// Whether a thread rings them.
    has_thread: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Whose thread it is.
    process_id: u32,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A signal is in both maps or in neither, by its address.
#[derive(Debug, Default)]
struct State {
    queue: BTreeMap<(Instant, usize), Weak<Signal>>,
    due: HashMap<usize, Instant>,
    is_stopped: bool,
}

impl State {
    /// Has the signal woken at `due`, or earlier if that was to be.
    fn put(&mut self, signal: &Arc<Signal>, due: Instant) {
        let key = Arc::as_ptr(signal).addr();
        let due = match self.due.get(&key).copied() {
            Some(known) => {
                // Perhaps that of another signal, which is gone and was at the same address.
                self.queue.remove(&(known, key));
                known.min(due)
            }
            None => due,
        };
        self.due.insert(key, due);
        self.queue.insert((due, key), Arc::downgrade(signal));
    }

    fn first_due(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&mut self, now: Instant) -> Vec<Weak<Signal>> {
        let mut taken = Vec::new();
        while let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= now) {
            self.due.remove(&first.key().1);
            taken.push(first.remove());
        }
        taken
    }
}

impl Alarms {
    pub(crate) fn new(has_thread: bool) -> Self {
        Self { shared: Arc::default(), has_thread, thread: Mutex::default(), process_id: std::process::id() }
    }

    /// Has `signal` woken at `due`, unless the broker is closed by then, or was: that wakes everybody.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the operating system gives no thread.
    pub(crate) fn set(&self, signal: &Arc<Signal>, due: Instant) -> Result<()> {
        {
            let mut state = self.shared.lock();
            let first = state.first_due();
            state.put(signal, due);
            if state.is_stopped || !self.has_thread {
                return Ok(());
            }
            if first.is_none_or(|first| due < first) {
                self.shared.changed.notify_one();
            }
        }
        let mut thread = self.thread();
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("tailwater-look".to_owned());
            let started = builder.spawn(move || shared.run()).map_err(|error| {
                let what = format!("cannot start a background thread: {error}");
                Error::Backend(Arc::new(std::io::Error::new(error.kind(), what)))
            })?;
            *thread = Some(started);
        }
        Ok(())
    }

    /// Wakes on this thread those whose time has come. Returns whether there were any, and when the next will be due.
    pub(crate) fn ring(&self) -> (bool, Option<Instant>) {
        let (due, next) = {
            let mut state = self.shared.lock();
            (state.take_due(Instant::now()), state.first_due())
        };
        due.iter().for_each(wake);
        (!due.is_empty(), next)
    }

    /// Ends the thread, if there is one, and waits for that; not on that thread itself, nor in a forked child.
    pub(crate) fn stop(&self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_all();
        let handle = self.thread().take();
        if let Some(handle) = handle
            && self.process_id == std::process::id()
            && handle.thread().id() != std::thread::current().id()
        {
            // It catches every panic of a task that it wakes.
            let _ = handle.join();
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.lock();
        while !state.is_stopped {
            let now = Instant::now();
            let due = state.take_due(now);
            if !due.is_empty() {
                drop(state);
                due.iter().for_each(wake);
                state = self.lock();
                continue;
            }
            state = match state.first_due() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let sleep = due.saturating_duration_since(now);
                    self.changed.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while this is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a signal, and so perhaps runs code of the application's runtime.
fn wake(signal: &Weak<Signal>) {
    let Some(signal) = signal.upgrade() else { return };
    if catch_unwind(AssertUnwindSafe(|| signal.wake())).is_err() {
        tracing::error!("a task panicked while it was woken");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn armed() -> Arc<Signal> {
        let signal = Arc::new(Signal::new());
        signal.arm();
        signal
    }

    #[test]
    fn a_signal_is_woken_once_at_the_earliest_time_it_was_given() {
        let (alarms, signal, other) = (Alarms::new(false), armed(), armed());
        let now = Instant::now();
        alarms.set(&signal, now + Duration::from_secs(900)).unwrap();
        alarms.set(&signal, now).unwrap();
        alarms.set(&signal, now + Duration::from_secs(700)).unwrap();
        alarms.set(&other, now + Duration::from_secs(800)).unwrap();
        let (rang, next) = alarms.ring();
        assert!(rang && signal.wait_until(now));
        assert!(!other.wait_until(now));
        assert_eq!(next, Some(now + Duration::from_secs(800)));
        assert!(!alarms.ring().0);
        assert!(alarms.thread().is_none());
    }

    #[test]
    fn a_signal_that_is_gone_is_forgotten_and_its_address_may_be_anothers() {
        let (alarms, signal) = (Alarms::new(false), armed());
        let now = Instant::now();
        alarms.set(&signal, now).unwrap();
        // As if the allocator had put another signal at the place of one that is gone.
        alarms.shared.lock().queue.values_mut().for_each(|known| *known = Weak::new());
        alarms.set(&signal, now + Duration::from_secs(1)).unwrap();
        assert!(alarms.ring().0 && signal.wait_until(now));
    }

    #[test]
    fn the_thread_wakes_in_time_and_ends() {
        let (alarms, signal, late) = (Alarms::new(true), armed(), armed());
        assert!(alarms.thread().is_none());
        alarms.set(&late, Instant::now() + Duration::from_secs(3600)).unwrap();
        alarms.set(&signal, Instant::now() + Duration::from_millis(5)).unwrap();
        assert!(signal.wait_until(Instant::now() + Duration::from_secs(20)));
        assert!(!late.wait_until(Instant::now()));
        alarms.stop();
        alarms.stop();
        alarms.set(&signal, Instant::now()).unwrap();
        assert!(alarms.thread().is_none());
    }
}
