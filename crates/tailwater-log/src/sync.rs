//! What the parts that threads meet in are built on: the standard library's primitives, or loom's, which try every
//! interleaving (`RUSTFLAGS="--cfg loom" cargo test --release -p tailwater-log --lib loom`).

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

/// Sleeps until this thread is unparked, or for no reason, or until the deadline. False if that has passed.
#[cfg(not(loom))]
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

/// As without loom; it has no time, so nothing times out.
#[cfg(loom)]
pub(crate) fn park_until(_: Option<std::time::Instant>) -> bool {
    thread::park();
    true
}
