//! What the parts that threads meet in are built on: the standard library's primitives, or loom's, which try every
//! interleaving (`RUSTFLAGS="--cfg loom" cargo test --release -p tailwater-log --lib loom`).

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
