//! Receipts: the completion of an append.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::commit::Turn;
use super::{Appended, Inner};
use crate::{Durability, Result};

/// Completion of an append: [`wait`](Receipt::wait) for it on a thread, or `.await` it in a task.
///
/// Dropping a receipt cancels nothing. A thread that waits may write and sync on behalf of all; a task never does, so
/// somebody else has to (a thread that waits, [`Log::sync`](crate::Log::sync), [`Log::maintain`](crate::Log::maintain)).
#[derive(Debug)]
#[must_use = "an append is acknowledged only when its receipt completes"]
pub struct Receipt {
    log: Arc<Inner>,
    appended: Appended,
    durability: Durability,
}

impl Receipt {
    pub(crate) fn new(log: Arc<Inner>, appended: Appended, durability: Durability) -> Self {
        Self { log, appended, durability }
    }

    /// What the receipt will say the records have reached.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Blocks until the records are as durable as was asked for.
    ///
    /// # Errors
    ///
    /// - [`Error::Failed`](crate::Error::Failed), or the error itself, if a write or sync failed: whether the records are on disk is unknown.
    /// - [`Error::DiskFull`](crate::Error::DiskFull) if they could not be written yet; they stay staged, and a later write may succeed.
    /// - [`Error::Truncated`](crate::Error::Truncated) if `truncate_to` removed them first.
    pub fn wait(self) -> Result<Appended> {
        match self.log.wait_for(self.appended, self.durability, None) {
            Some(outcome) => outcome,
            None => unreachable!("waiting without a deadline ends only with an outcome"),
        }
    }

    /// As [`wait`](Receipt::wait), for at most about `wait` (a sync that this thread has begun is finished first).
    /// `None` if the outcome is still open.
    ///
    /// # Errors
    ///
    /// As [`wait`](Receipt::wait).
    pub fn wait_timeout(&mut self, wait: Duration) -> Option<Result<Appended>> {
        let deadline = Instant::now().checked_add(wait);
        self.log.wait_for(self.appended, self.durability, deadline)
    }

    /// The outcome, if it is known. Does no work and does not block.
    ///
    /// # Errors
    ///
    /// As [`wait`](Receipt::wait).
    pub fn try_get(&mut self) -> Option<Result<Appended>> {
        self.log.outcome(self.appended, self.durability)
    }
}

impl Future for Receipt {
    type Output = Result<Appended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.log.outcome(self.appended, self.durability) {
            return Poll::Ready(outcome);
        }
        self.log.commit.register(context);
        if self.durability == Durability::Written {
            // Only the page cache is written to, and only if no other thread is at it: that does not hold the task up.
            if let Err(error) = self.log.write_staged(Some(Instant::now())) {
                return Poll::Ready(Err(error));
            }
        }
        // What was published between the look and the registration has woken nobody: look again.
        match self.log.outcome(self.appended, self.durability) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Inner {
    /// Waits until `appended` has reached `durability`, leading the group commit if nobody does. `None` if the deadline
    /// passed first.
    pub(crate) fn wait_for(
        &self,
        appended: Appended,
        durability: Durability,
        deadline: Option<Instant>,
    ) -> Option<Result<Appended>> {
        if let Some(outcome) = self.outcome(appended, durability) {
            return Some(outcome);
        }
        if durability == Durability::Written {
            return match self.write_staged(deadline) {
                Err(error) => Some(Err(error)),
                Ok(()) => self.outcome(appended, durability),
            };
        }
        loop {
            let is_done = || self.outcome(appended, durability);
            match self.commit.lead_or_wait(appended.offsets.end, deadline, is_done) {
                Turn::Done(outcome) => return Some(outcome),
                Turn::TimedOut => return None,
                Turn::Lead(leader) => {
                    let synced = self.sync_leading(&leader);
                    drop(leader);
                    if let Err(error) = synced {
                        return Some(
                            self.outcome(appended, durability).filter(Result::is_ok).unwrap_or(Err(error)),
                        );
                    }
                }
            }
        }
    }
}
