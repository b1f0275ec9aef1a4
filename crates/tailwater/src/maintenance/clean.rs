//! Keeping partitions small: retention, and compaction.
//!
//! - Both look at a log after it was written to, at most once a second, and at the times that it says. What they look at need
//!   not be open.
//! - A compaction runs on a thread of its own, one log after the other, so that nothing else waits for it. It is asked again and
//!   again whether it is to stop.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tailwater_log::{CompactionLimits, CompactionOutcome, Log, LogConfig};

use super::{CompactionQueue, Drive, WorkQueues};
use crate::broker::LazyLog;
use crate::{Error, Result};

/// Least time between two looks at what retention may delete from a log, where nothing makes it due at another time.
const RETENTION_PAUSE: Duration = Duration::from_secs(1);
/// Time after which retention that failed is tried again.
const RETENTION_RETRY: Duration = Duration::from_secs(30);
/// Least time between two looks whether a log that is written to is to be compacted.
const COMPACTION_PAUSE: Duration = Duration::from_secs(1);
/// Time after which a log that is not written to is looked at: what compaction has to do may come of age.
const COMPACTION_LOOK: Duration = Duration::from_secs(15);

/// Whether there is anything to do for a log that nobody uses.
pub(crate) fn wants_cleaning(config: &LogConfig) -> bool {
    config.has_retention() || config.cleanup_policy.is_compacted()
}

impl WorkQueues {
    /// Has retention and compaction look at `log`, which need not be open.
    pub(crate) fn request_cleaning(&self, log: &Arc<LazyLog>) {
        log.cleaning().last_look = None;
        self.schedule_by(log, Instant::now() + RETENTION_PAUSE);
    }

    /// The log, which is opened to be kept small if nobody uses it.
    pub(super) fn opened(&self, log: &Arc<LazyLog>) -> Result<Option<Log>> {
        if let Some(opened) = log.opened() {
            return Ok(Some(opened));
        }
        let Some(groups) = self.groups.get().and_then(Weak::upgrade) else { return Ok(None) };
        let config = log.topic_config().to_log_config()?;
        if !wants_cleaning(&config) || groups.opener.is_closed() {
            return Ok(None);
        }
        match log.open(&groups.opener, || Ok(config)) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => {
                // Whoever uses it is told; one that is damaged is not opened again and again.
                tracing::warn!(partition = %log.place(), %error, "a partition that is to be kept small cannot be opened");
                Err(error)
            }
        }
    }

    /// Lets retention work, if it is time. Returns whether it deleted something.
    pub(super) fn retain(&self, log: &Arc<LazyLog>, opened: &Log, drive: Drive) -> Result<bool> {
        if !opened.config().has_retention() || opened.is_failed() {
            return Ok(false);
        }
        let Some(groups) = self.groups.get().and_then(Weak::upgrade) else { return Ok(false) };
        let now = Instant::now();
        {
            let mut state = log.cleaning();
            let next = state.last_look.map(|last| last + RETENTION_PAUSE);
            if drive == Drive::Time
                && let Some(next) = next.filter(|next| *next > now)
            {
                drop(state);
                self.schedule_in(log, next - now);
                return Ok(false);
            }
            state.last_look = Some(now);
        }
        let mut outcome = Err(Error::Closed);
        let guarded = self.guarded(log, || {
            outcome = groups.retain(log, opened);
            Ok(())
        });
        match guarded.and(outcome) {
            Ok(report) => {
                if report.held_bytes > 0 {
                    // A group may commit any time.
                    self.schedule_in(log, RETENTION_PAUSE);
                }
                if let Some(ms) = report.next_due_ms {
                    self.schedule_in(log, Duration::from_millis(ms));
                }
                Ok(report.did_delete)
            }
            // On its way out; or its topic is.
            Err(Error::Closed | Error::UnknownTopic { .. }) => Ok(false),
            Err(error) => {
                tracing::warn!(partition = %log.place(), %error, "retention failed");
                log.cleaning().last_look = Some(now + RETENTION_RETRY);
                self.schedule_in(log, RETENTION_RETRY);
                Err(error)
            }
        }
    }

    /// Has a log compacted if that is due: at once if it is driven by hand. Returns whether something was done at once.
    pub(super) fn compact_if_due(&self, log: &Arc<LazyLog>, opened: &Log, drive: Drive) -> Result<bool> {
        if !opened.config().cleanup_policy.is_compacted() || opened.is_failed() {
            return Ok(false);
        }
        if drive == Drive::Hand {
            self.schedule_in(log, COMPACTION_LOOK);
            return self.compact(log);
        }
        let now = Instant::now();
        {
            let mut cleaning = log.cleaning();
            let next = cleaning.last_compaction_look.map(|last| last + COMPACTION_PAUSE);
            if let Some(next) = next.filter(|next| *next > now) {
                drop(cleaning);
                self.schedule_in(log, next - now);
                return Ok(false);
            }
            cleaning.last_compaction_look = Some(now);
        }
        self.schedule_in(log, COMPACTION_LOOK);
        let Some(groups) = self.groups.get().and_then(Weak::upgrade) else { return Ok(false) };
        let held = groups.held_offset(log, opened)?;
        if self.guarded(log, || opened.is_compaction_due(held))?
            && !log.is_compaction_queued.swap(true, Ordering::SeqCst)
        {
            self.compactions().logs.push_back(Arc::clone(log));
            self.compactions_changed.notify_one();
        }
        Ok(false)
    }

    /// Compacts the logs that wait for it, until the threads are stopped.
    pub(super) fn run_compactions(&self) {
        loop {
            let log = {
                let mut queue = self.compactions();
                loop {
                    if queue.is_stopped {
                        return;
                    }
                    match queue.logs.pop_front() {
                        Some(log) => break log,
                        None => {
                            queue =
                                self.compactions_changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                        }
                    }
                }
            };
            // A failure was logged, and is in the stats.
            let _ = self.compact(&log);
            // What came meanwhile may be due already.
            self.schedule_in(&log, COMPACTION_PAUSE);
        }
    }

    /// Compacts a log if that is due. Returns whether it was.
    fn compact(&self, log: &Arc<LazyLog>) -> Result<bool> {
        log.is_compaction_queued.store(false, Ordering::SeqCst);
        let Some(opened) = log.opened() else { return Ok(false) };
        let Some(groups) = self.groups.get().and_then(Weak::upgrade) else { return Ok(false) };
        let mut limits = CompactionLimits::default();
        limits.held = groups.held_offset(log, &opened)?;
        limits.only_if_due = true;
        drop(groups);
        let start = Instant::now();
        let mut done_bytes = 0;
        let mut pace = |bytes| {
            done_bytes += bytes;
            self.keep_pace(start, done_bytes)
        };
        match self.guarded(log, || opened.compact(&limits, &mut pace)) {
            Ok(report) => Ok(matches!(report.outcome, CompactionOutcome::Done)),
            // On its way out; or its topic is.
            Err(Error::Closed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sleeps until so many bytes may have been read and written since `start`.
    fn keep_pace(&self, start: Instant, done_bytes: u64) -> ControlFlow<()> {
        let mut queue = self.compactions();
        loop {
            if queue.is_stopped {
                return ControlFlow::Break(());
            }
            let due = match self.compaction_bytes_per_second.load(Ordering::SeqCst) {
                0 => Duration::ZERO,
                per_second => {
                    let nanos = u128::from(done_bytes) * 1_000_000_000 / u128::from(per_second);
                    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
                }
            };
            let left = due.saturating_sub(start.elapsed());
            if left.is_zero() {
                return ControlFlow::Continue(());
            }
            let waited = self.compactions_changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn stop_compactions(&self) {
        self.compactions().is_stopped = true;
        self.compactions_changed.notify_all();
    }

    fn compactions(&self) -> MutexGuard<'_, CompactionQueue> {
        // No code that can panic runs while this is held.
        self.compactions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
