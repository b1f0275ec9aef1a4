//! Admission of messages to a topic that a group must not fall behind in.
//!
//! - What is allowed is the limit less the lag when that was last looked at. Each message takes its part of it; only one that
//!   finds too little has the lag looked at again.
//! - Nothing is locked while somebody waits, and nobody who appends waits for one who waits here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tailwater_groups::GroupId;
use tailwater_log::{NewRecord, PartitionIdentity};

use super::lag_limit::{LagLimit, LagUnit};
use crate::broker::{Inner, Topic, group_id};
use crate::{Error, Result};

/// What a batch takes up on disk besides its records, in bytes.
const BATCH_BYTES: usize = 88;
/// What a record takes up besides key, value and headers, in bytes: about.
const RECORD_BYTES: usize = 8;

/// The gate of a topic for one limit, shared by all producers that have it.
#[derive(Debug)]
pub(crate) struct LagGate {
    limit: LagLimit,
    group: GroupId,
    /// How many records may still be sent before the lag is looked at again.
    records: AtomicU64,
    bytes: AtomicU64,
    /// Held while the lag is looked at.
    looking: Mutex<()>,
}

/// What is to be admitted.
#[derive(Clone, Copy)]
struct Load {
    records: u64,
    bytes: u64,
}

impl Load {
    fn of(records: &[NewRecord<'_>]) -> Self {
        let size = |record: &NewRecord<'_>| {
            let headers =
                record.headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len));
            record.key.map_or(0, <[u8]>::len)
                + record.value.map_or(0, <[u8]>::len)
                + headers.sum::<usize>()
                + RECORD_BYTES
        };
        let bytes = BATCH_BYTES + records.iter().map(size).sum::<usize>();
        Self { records: records.len() as u64, bytes: bytes as u64 }
    }
}

impl LagGate {
    pub(super) fn new(limit: &LagLimit) -> Result<Self> {
        Ok(Self {
            limit: limit.clone(),
            group: group_id(&limit.group)?,
            // The first message has the lag looked at.
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            looking: Mutex::new(()),
        })
    }

    pub(super) fn is_for(&self, limit: &LagLimit) -> bool {
        self.limit.is_as_far(limit)
    }

    /// Admits records, or answers [`Error::GroupLagging`].
    #[inline(never)]
    pub(super) fn admit(&self, broker: &Inner, topic: &Topic, records: &[NewRecord<'_>]) -> Result<()> {
        let load = Load::of(records);
        if self.take(load) {
            return Ok(());
        }
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have looked meanwhile.
        if self.take(load) {
            return Ok(());
        }
        let lag = self.lag(broker, topic)?;
        self.refuse(LagUnit::Records, self.limit.max_records, lag.records, load.records)?;
        self.refuse(LagUnit::Bytes, self.limit.max_bytes, lag.bytes, load.bytes)?;
        let left = |limit: Option<u64>, lag, load| {
            limit.unwrap_or(u64::MAX).saturating_sub(lag).saturating_sub(load)
        };
        self.records.store(left(self.limit.max_records, lag.records, load.records), Ordering::Relaxed);
        self.bytes.store(left(self.limit.max_bytes, lag.bytes, load.bytes), Ordering::Relaxed);
        Ok(())
    }

    /// Takes from what is allowed, if there is enough of it.
    fn take(&self, load: Load) -> bool {
        let take = |allowed: &AtomicU64, count| {
            allowed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
        };
        if !take(&self.records, load.records) {
            return false;
        }
        if !take(&self.bytes, load.bytes) {
            self.records.fetch_add(load.records, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// How far behind the group is, in all partitions in which it has committed something.
    fn lag(&self, broker: &Inner, topic: &Topic) -> Result<Load> {
        let groups = broker.groups()?;
        let mut lag = Load { records: 0, bytes: 0 };
        for lazy in topic.partitions().iter() {
            let identity = PartitionIdentity { topic_id: topic.id, partition: lazy.place().partition };
            let Some(committed) = groups.store().committed(&self.group, identity) else { continue };
            let log = topic.open(lazy)?;
            let offset = committed.position.offset.max(log.log_start_offset());
            lag.records += log.log_end_offset().get().saturating_sub(offset.get());
            if self.limit.max_bytes.is_some() {
                lag.bytes += log.bytes_from(offset).map_err(|error| topic.explain(error, lazy.place()))?;
            }
        }
        Ok(lag)
    }

    fn refuse(&self, unit: LagUnit, limit: Option<u64>, lag: u64, load: u64) -> Result<()> {
        match limit {
            // One who is not behind at all gets what would be refused for ever otherwise.
            Some(limit) if lag > 0 && lag.saturating_add(load) > limit => {
                Err(Error::GroupLagging { group: std::sync::Arc::clone(&self.limit.group), lag, limit, unit })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_taken_as_a_whole_or_not_at_all() {
        let gate = LagGate::new(&LagLimit::new("billing").max_records(1)).unwrap();
        gate.records.store(5, Ordering::Relaxed);
        gate.bytes.store(100, Ordering::Relaxed);
        assert!(gate.take(Load { records: 2, bytes: 60 }));
        assert!(!gate.take(Load { records: 2, bytes: 60 }));
        assert!(!gate.take(Load { records: 4, bytes: 1 }));
        assert!(gate.take(Load { records: 3, bytes: 40 }));
        assert!(!gate.take(Load { records: 1, bytes: 0 }));
    }

    #[test]
    fn a_name_that_is_no_groups_is_refused() {
        assert!(matches!(LagGate::new(&LagLimit::new("two\nlines")), Err(Error::InvalidGroupId { .. })));
    }
}
