//! A consumer as a stream, under two runtimes and under none: what it returns, when it wakes, how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;
mod runtimes;
mod waking;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use tailwater::{Consumer, Records, Result};

/// Counts how often a task was woken.
#[derive(Default)]
struct Wakes(AtomicU64);

impl Wakes {
    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A task that is polled by hand.
struct Task {
    wakes: Arc<Wakes>,
    waker: Waker,
}

impl Task {
    fn new() -> Self {
        let wakes = Arc::new(Wakes::default());
        Self { waker: Waker::from(Arc::clone(&wakes)), wakes }
    }

    fn poll(&self, consumer: &mut Consumer) -> Poll<Option<Result<Records>>> {
        Pin::new(consumer).poll_next(&mut Context::from_waker(&self.waker))
    }

    /// What is there now, which must be something.
    fn next(&self, consumer: &mut Consumer) -> Result<Records> {
        match self.poll(consumer) {
            Poll::Ready(Some(item)) => item,
            other => panic!("{other:?}"),
        }
    }
}
