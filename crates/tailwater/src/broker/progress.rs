//! Telling those who wait that a group has committed something.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tailwater_log::Signal;

/// Who waits for the next commit of any group.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Whether there is anybody, so that a commit for which nobody waits takes no lock.
    is_any: AtomicBool,
    waiting: Mutex<Vec<Weak<Signal>>>,
}

impl Progress {
    /// Has `signal`, which was armed, woken at the next commit. Whoever waits looks at what is committed after this.
    pub(crate) fn watch(&self, signal: &Arc<Signal>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .retain(|known| known.strong_count() > 0 && !std::ptr::eq(known.as_ptr(), Arc::as_ptr(signal)));
        waiting.push(Arc::downgrade(signal));
        self.is_any.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Wakes all who wait, after something was committed.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if !self.is_any.load(Ordering::SeqCst) {
            return;
        }
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.is_any.store(false, Ordering::SeqCst);
            std::mem::take(&mut *waiting)
        };
        waiting.iter().filter_map(Weak::upgrade).for_each(|signal| signal.wake());
    }
}
