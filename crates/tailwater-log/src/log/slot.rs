//! A value that one thread at a time takes out, works with, and puts back.
//!
//! Like a mutex, but waiting can have a deadline, and the value may be held across system calls without the
//! waiters spinning on it.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Instant;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// The place of one value.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    place: Mutex<Place<T>>,
    returned: Condvar,
}

#[derive(Debug)]
struct Place<T> {
    value: Option<Box<T>>,
    /// How many threads sleep until the value is back: waking nobody is a system call too.
    waiting: u32,
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        let place = Place { value: Some(Box::new(value)), waiting: 0 };
        Self { place: Mutex::new(place), returned: Condvar::new() }
    }

    /// Takes the value, waiting for it until `deadline` (for ever without one). `None` if the deadline passed.
    pub(crate) fn take_until(&self, deadline: Option<Instant>) -> Option<Taken<'_, T>> {
        let mut place = self.lock();
        loop {
            if let Some(value) = place.value.take() {
                return Some(Taken { slot: self, value: Some(value) });
            }
            let left = match deadline {
                None => None,
                Some(deadline) => {
                    Some(deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?)
                }
            };
            place.waiting += 1;
            place = match left {
                None => self.returned.wait(place).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.returned.wait_timeout(place, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            place.waiting -= 1;
        }
    }

    /// Takes the value, waiting for it as long as it takes.
    pub(crate) fn take(&self) -> Taken<'_, T> {
        self.take_until(None).expect("waiting without a deadline ends only with the value")
    }

    /// Takes the value, unless another thread has it.
    pub(crate) fn try_take(&self) -> Option<Taken<'_, T>> {
        let value = self.lock().value.take()?;
        Some(Taken { slot: self, value: Some(value) })
    }

    fn lock(&self) -> MutexGuard<'_, Place<T>> {
        // No panic comes between the changes to what the mutex guards.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value while it is out of its slot. Dropping this puts it back.
#[derive(Debug)]
pub(crate) struct Taken<'s, T> {
    slot: &'s Slot<T>,
    value: Option<Box<T>>,
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().expect("the value is here until this is dropped")
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect("the value is here until this is dropped")
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut place = self.slot.lock();
        place.value = self.value.take();
        let is_awaited = place.waiting > 0;
        drop(place);
        if is_awaited {
            self.slot.returned.notify_one();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_at_a_time_and_a_deadline_ends_the_wait() {
        let slot = Slot::new(1);
        let taken = slot.take();
        assert!(slot.take_until(Some(Instant::now() + Duration::from_millis(5))).is_none());
        drop(taken);
        *slot.take() += 1;
        assert_eq!(*slot.take(), 2);
    }

    #[test]
    fn a_waiter_gets_the_value_that_is_put_back() {
        let slot = Slot::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| *slot.take() += 1));
            }
        });
        assert_eq!(*slot.take(), 4000);
    }
}
