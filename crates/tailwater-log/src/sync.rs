//! What the parts that threads meet in are built on: the standard library's primitives, or those of a tester of interleavings.
//!
//! - loom tries every interleaving of the small parts: `RUSTFLAGS="--cfg loom" cargo test --release -p tailwater-log --lib loom`.
//! - shuttle tries random schedules of the whole log on a simulated disk (`tests/schedules.rs`):
//!   `RUSTFLAGS="--cfg shuttle" cargo test --release -p tailwater-log --test schedules`.

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};

/// Sleeps until this thread is unparked, or for no reason, or until the deadline. False if that has passed.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn park_until(deadline: Option<std::time::Instant>) -> bool {
    let Some(deadline) = deadline else {
        thread::park();
        return true;
    };
    let left = deadline.saturating_duration_since(std::time::Instant::now());
    if !left.is_zero() {
        thread::park_timeout(left);
    }
    !left.is_zero()
}

/// As without a tester; those have no time, so nothing times out.
#[cfg(any(loom, shuttle))]
pub(crate) fn park_until(_: Option<std::time::Instant>) -> bool {
    thread::park();
    true
}

/// Where another thread may get on, if schedules are tested: in the middle of what takes time on a real disk.
pub(crate) fn let_others_on() {
    #[cfg(shuttle)]
    thread::yield_now();
}
