//! Receipts: the completion of an append.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::append::Terms;
use super::commit::Turn;
use super::{Appended, Inner};
use crate::{Durability, Offset, OffsetRange, Result};

/// Completion of an append: [`wait`](Receipt::wait) for it on a thread, or `.await` it in a task.
///
/// Dropping a receipt cancels nothing. A thread that waits may write and sync on behalf of all; a task never does, so
/// somebody else has to (a thread that waits, [`Log::sync`](crate::Log::sync), [`Log::maintain`](crate::Log::maintain)).
#[must_use = "an append is acknowledged only when its receipt completes"]
pub struct Receipt {
    /// Whole words: a receipt that is taken apart byte by byte costs more than the append.
    start: Offset,
    end: Offset,
    terms: Terms,
    /// The log that has to do something for it: none if it is `Buffered`, which is complete from the start.
    log: Option<Arc<Inner>>,
}

impl Receipt {
    #[inline]
    pub(crate) fn new(log: &Arc<Inner>, appended: Appended, durability: Durability) -> Self {
        let log = (durability != Durability::Buffered).then(|| Arc::clone(log));
        let Appended { offsets: OffsetRange { start, end }, epoch } = appended;
        Self { start, end, terms: Terms::new(epoch, durability, 1), log }
    }

    #[inline]
    fn appended(&self) -> Appended {
        Appended { offsets: OffsetRange { start: self.start, end: self.end }, epoch: self.terms.epoch() }
    }

    /// What the receipt will say the records have reached.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.terms.durability()
    }

    /// Blocks until the records are as durable as was asked for.
    ///
    /// # Errors
    ///
    /// - [`Error::Failed`](crate::Error::Failed), or the error itself, if a write or sync failed: whether the records are on disk is unknown.
    /// - [`Error::DiskFull`](crate::Error::DiskFull) if they could not be written yet; they stay staged, and a later write may succeed.
    /// - [`Error::Truncated`](crate::Error::Truncated) if `truncate_to` removed them first.
    #[inline]
    pub fn wait(self) -> Result<Appended> {
        match self.log {
            None => Ok(self.appended()),
            Some(_) => self.wait_for_log(),
        }
    }

    fn wait_for_log(self) -> Result<Appended> {
        let Some(log) = &self.log else { return Ok(self.appended()) };
        if self.durability() == Durability::Written && !log.has_reached(self.appended(), Durability::Written)
        {
            log.write_staged(None)?;
        }
        if log.has_reached(self.appended(), self.durability()) {
            return Ok(self.appended());
        }
        match log.wait_for(self.appended(), self.terms.durability(), None) {
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
        let Some(log) = &self.log else { return Some(Ok(self.appended())) };
        log.wait_for(self.appended(), self.terms.durability(), Instant::now().checked_add(wait))
    }

    /// The outcome, if it is known. Does no work and does not block.
    ///
    /// # Errors
    ///
    /// As [`wait`](Receipt::wait).
    pub fn try_get(&mut self) -> Option<Result<Appended>> {
        match &self.log {
            Some(log) => log.outcome(self.appended(), self.terms.durability()),
            None => Some(Ok(self.appended())),
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("appended", &self.appended())
            .field("durability", &self.durability())
            .finish_non_exhaustive()
    }
}

impl Future for Receipt {
    type Output = Result<Appended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(log) = &self.log else { return Poll::Ready(Ok(self.appended())) };
        if let Some(outcome) = log.outcome(self.appended(), self.terms.durability()) {
            return Poll::Ready(outcome);
        }
        log.commit.register(context);
        if self.terms.durability() == Durability::Written {
            // Only the page cache is written to, and only if no other thread is at it: that does not hold the task up.
            if let Err(error) = log.write_staged(Some(Instant::now())) {
                return Poll::Ready(Err(error));
            }
        }
        // What was published between the look and the registration has woken nobody: look again.
        match log.outcome(self.appended(), self.terms.durability()) {
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
                    self.commit.gather(&leader);
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
