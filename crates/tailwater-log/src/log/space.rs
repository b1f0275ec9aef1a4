//! Limits of disk space: of one log, and of several that share a budget.
//!
//! - What is counted is what the files take up, with the space that is reserved ahead of the data.
//! - Space is asked for before it is reserved, and an append gets an offset only after that. What is staged, written or
//!   acknowledged is never refused later.
//! - Only appends are limited: what makes room (a roll to delete what is before it, a checkpoint) is not.

use std::sync::Arc;

use super::Inner;
use super::writer::Writer;
use crate::error::{LogFull, SpaceScope};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Error, Result};

/// A bound of the disk space that several logs take up together.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use tailwater_log::storage::SimDisk;
/// use tailwater_log::{
///     Error, Log, LogOptions, NewRecord, PartitionId, PartitionIdentity, SpaceBudget, SpaceShare, TopicId, WhenFull,
/// };
///
/// let budget = Arc::new(SpaceBudget::new(256 * 1024));
/// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([7; 16]), partition: PartitionId::ZERO };
/// let mut options = LogOptions::new(identity);
/// options.space = Some(Arc::new(SpaceShare::new(&budget, 0, 0)));
/// let log = Log::create(Arc::new(SimDisk::new(1)), "/orders-0".as_ref(), options)?;
/// let value = vec![0; 100 * 1024];
/// log.append(&[NewRecord::new(&value)], None, WhenFull::Wait)?.wait()?;
/// log.append(&[NewRecord::new(&value)], None, WhenFull::Wait)?.wait()?;
/// let refused = log.append(&[NewRecord::new(&value)], None, WhenFull::Wait);
/// assert!(matches!(refused, Err(Error::LogFull(_))));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct SpaceBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl SpaceBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// How many bytes its shares take up.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::SeqCst)
    }

    /// Takes up to `most` bytes and at least `least`, leaving `spared` for others.
    fn take(&self, least: u64, most: u64, spared: u64) -> Result<u64, LogFull> {
        let limit_bytes = self.limit_bytes.saturating_sub(spared);
        let mut taken = 0;
        let update = |used: u64| {
            let room = limit_bytes.saturating_sub(used);
            taken = most.min(room);
            (room >= least).then_some(used + taken)
        };
        match self.used_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update) {
            Ok(_) => Ok(taken),
            Err(used_bytes) => {
                let scope = SpaceScope::Budget;
                Err(LogFull { scope, limit_bytes, used_bytes, wanted_bytes: least })
            }
        }
    }
}

/// What one log takes up of a [`SpaceBudget`]. Given back when it is dropped.
#[derive(Debug)]
pub struct SpaceShare {
    budget: Arc<SpaceBudget>,
    bytes: AtomicU64,
    spared_bytes: u64,
}

impl SpaceShare {
    /// A share of `budget` that takes up `bytes` already, whatever the limit. Appends leave `spared_bytes` of the budget
    /// for those who spare less.
    #[must_use]
    pub fn new(budget: &Arc<SpaceBudget>, bytes: u64, spared_bytes: u64) -> Self {
        budget.used_bytes.fetch_add(bytes, Ordering::SeqCst);
        Self { budget: Arc::clone(budget), bytes: AtomicU64::new(bytes), spared_bytes }
    }

    /// How many bytes it takes up.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    fn grow(&self, least: u64, most: u64) -> Result<u64, LogFull> {
        let taken = self.budget.take(least, most, self.spared_bytes)?;
        self.bytes.fetch_add(taken, Ordering::SeqCst);
        Ok(taken)
    }

    fn shrink(&self, bytes: u64) {
        let given_back = |held: u64| Some(held.saturating_sub(bytes));
        let held =
            self.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, given_back).unwrap_or_default();
        self.budget.used_bytes.fetch_sub(held.min(bytes), Ordering::SeqCst);
    }
}

impl Drop for SpaceShare {
    fn drop(&mut self) {
        let bytes = self.bytes();
        self.shrink(bytes);
    }
}

/// A log's share of a budget, if it has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space(Option<Arc<SpaceShare>>);

impl Space {
    pub(crate) fn new(share: Option<Arc<SpaceShare>>) -> Self {
        Self(share)
    }

    pub(crate) fn shrink(&self, bytes: u64) {
        if let Some(share) = &self.0 {
            share.shrink(bytes);
        }
    }

    /// Corrects the share to what the files of the log really take up.
    fn correct(&self, bytes: u64) {
        let Some(share) = &self.0 else { return };
        let held = share.bytes();
        if bytes < held {
            share.shrink(held - bytes);
        } else {
            share.budget.used_bytes.fetch_add(bytes - held, Ordering::SeqCst);
            share.bytes.fetch_add(bytes - held, Ordering::SeqCst);
        }
    }
}

impl Inner {
    /// Takes up to `most` bytes of disk and at least `least`. What is not used is to be given back.
    ///
    /// # Errors
    ///
    /// [`Error::LogFull`]. Nothing was taken then.
    pub(crate) fn take_space(&self, writer: &Writer, least: u64, most: u64) -> Result<u64> {
        let mut most = most;
        if let Some(limit_bytes) = self.config.load().retention_hard_bytes {
            let used_bytes = self.disk_bytes(writer)?;
            let room = limit_bytes.saturating_sub(used_bytes);
            if room < least {
                let scope = SpaceScope::Partition;
                let full = LogFull { scope, limit_bytes, used_bytes, wanted_bytes: least };
                return Err(Error::LogFull(Box::new(full)));
            }
            most = most.min(room);
        }
        match &self.space.0 {
            None => Ok(most),
            Some(share) => share.grow(least, most).map_err(|full| Error::LogFull(Box::new(full))),
        }
    }

    /// Has the budget know what the files of the log take up now.
    pub(crate) fn correct_space(&self, writer: &Writer) {
        if self.space.0.is_some()
            && let Ok(bytes) = self.disk_bytes(writer)
        {
            self.space.correct(bytes);
        }
    }

    /// How many bytes have to go so that so many more may be taken up under `retention_hard_bytes`; of a log without that
    /// limit, just those.
    pub(crate) fn missing_space(&self, wanted_bytes: u64) -> Result<u64> {
        let writer = self.writer()?.take();
        self.failure.check()?;
        let Some(limit) = self.config.load().retention_hard_bytes else { return Ok(wanted_bytes) };
        Ok((self.disk_bytes(&writer)? + wanted_bytes).saturating_sub(limit))
    }

    /// What the files of the log take up, in bytes.
    pub(crate) fn disk_bytes(&self, writer: &Writer) -> Result<u64> {
        let segments = self.segments.load();
        let mut bytes = writer.next.as_ref().map_or(0, |next| next.allocated);
        for (index, segment) in segments.iter().enumerate().take(segments.len() - 1) {
            bytes += segment.length(&self.segment_context(segments.end_of(index)), true)?;
        }
        bytes += writer.allocated.max(writer.position.get());
        Ok(bytes + self.removal_stats().waiting_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_give_back_what_they_had() {
        let budget = Arc::new(SpaceBudget::new(1_000));
        let topic = SpaceShare::new(&budget, 300, 100);
        let groups = SpaceShare::new(&budget, 50, 0);
        assert_eq!(topic.grow(100, 400), Ok(400));
        assert_eq!(budget.used_bytes(), 750);
        // 150 are left for it: the last hundred are spared.
        assert_eq!(topic.grow(100, 400), Ok(150));
        let full = topic.grow(1, 400).unwrap_err();
        assert_eq!((full.limit_bytes, full.used_bytes, full.wanted_bytes), (900, 900, 1));
        assert_eq!(groups.grow(100, 100), Ok(100));
        assert!(groups.grow(1, 1).is_err());
        topic.shrink(5_000);
        assert_eq!((topic.bytes(), budget.used_bytes()), (0, 150));
        drop(groups);
        assert_eq!(budget.used_bytes(), 0);
    }
}
