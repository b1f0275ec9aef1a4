//! Ending a poll from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_log::Signal;

/// Ends a consumer's [`poll`](crate::Consumer::poll) from another thread: Kafka's `wakeup`.
///
/// `Clone + Send + Sync`; made by [`Consumer::interrupter`](crate::Consumer::interrupter).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, Error, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let mut consumer = broker.consumer("billing").subscribe(&["orders"])?;
/// let interrupter = consumer.interrupter();
/// let stop = std::thread::spawn(move || interrupter.interrupt());
/// assert!(matches!(consumer.poll(Duration::MAX), Err(Error::Interrupted)));
/// stop.join().expect("it only interrupts");
/// // Once: the next poll waits again.
/// assert!(consumer.poll(Duration::ZERO)?.is_empty());
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Interrupter {
    pub(super) signal: Arc<Signal>,
    is_set: Arc<AtomicBool>,
}

impl Interrupter {
    pub(super) fn new(signal: &Arc<Signal>) -> Self {
        Self { signal: Arc::clone(signal), is_set: Arc::default() }
    }

    /// Has the poll that waits, or the next one if none does, answer
    /// [`Error::Interrupted`](crate::Error::Interrupted). Several interrupts before that are one. Safe to call from a
    /// thread that handles signals.
    pub fn interrupt(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        self.signal.wake();
    }

    /// Whether there was an interrupt since this was last asked.
    pub(super) fn take(&self) -> bool {
        self.is_set.load(Ordering::Relaxed) && self.is_set.swap(false, Ordering::SeqCst)
    }
}
