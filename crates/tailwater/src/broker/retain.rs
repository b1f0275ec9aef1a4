//! Retention of topics: whom records are held for, and room for an append that finds none.

use std::collections::HashMap;
use std::sync::Arc;

use tailwater_groups::GroupId;
use tailwater_log::{FetchIsolation, Log, LogFull, Offset, RetentionReport};

use super::groups_place::GroupsPlace;
use super::inner::Inner;
use super::lazy_log::LazyLog;
use super::stats::RetentionStats;
use super::topic::Topic;
use crate::retention::{Hold, Holder, OnFull, TopicFull};
use crate::{Error, Result};

/// How often space is made for one append: others may take what was made.
const MOST_TRIES: u32 = 16;

impl Inner {
    /// The outcome of an append: of `first`, or, after space was made for it, of `again`.
    pub(crate) fn with_space<T>(
        &self,
        topic: &Topic,
        lazy: &LazyLog,
        log: &Log,
        first: tailwater_log::Result<T>,
        again: impl Fn() -> tailwater_log::Result<T>,
    ) -> Result<T> {
        let mut outcome = first;
        for _ in 0..MOST_TRIES {
            match outcome {
                Err(tailwater_log::Error::LogFull(full)) => self.groups.make_space(lazy, log, &full)?,
                outcome => return outcome.map_err(|error| topic.explain(error, lazy.place())),
            }
            outcome = again();
        }
        outcome.map_err(|error| topic.explain(error, lazy.place()))
    }
}

impl GroupsPlace {
    /// Deletes what the limits of the topic let go of and nobody holds.
    pub(crate) fn retain(&self, lazy: &LazyLog, log: &Log) -> Result<RetentionReport> {
        retain_for(self.holder(lazy, log)?, lazy, log)
    }

    /// Deletes records so that an append can be tried again that was refused for lack of space.
    ///
    /// # Errors
    ///
    /// [`Error::TopicFull`] if nothing may be deleted.
    pub(crate) fn make_space(&self, lazy: &LazyLog, log: &Log, full: &LogFull) -> Result<()> {
        let make = |wanted_bytes, up_to| {
            let made = log.make_space(wanted_bytes, up_to);
            made.map_err(|error| Error::from(error).in_partition(lazy.place()))
        };
        // What the limits let go of, and what was let go of and is still there.
        let holder = self.holder(lazy, log)?;
        retain_for(holder.clone(), lazy, log)?;
        if make(0, Offset::ZERO)? {
            return Ok(());
        }
        // Of a topic that keeps the last value of each key nothing is deleted for space.
        let may_delete = log.config().cleanup_policy.is_deleted();
        // With no other limit than this one, what every group has read is of no use any more.
        if let Some(holder) = holder.as_ref().filter(|_| may_delete)
            && !log.config().has_retention()
            && make(full.wanted_bytes, holder.offset)?
        {
            return Ok(());
        }
        if may_delete
            && lazy.topic_config().retention_policy().on_full == OnFull::DropOldest
            && make(full.wanted_bytes, Offset::MAX)?
        {
            return Ok(());
        }
        let partition = Some(Arc::clone(lazy.place()));
        Err(Error::TopicFull(Box::new(TopicFull { partition, full: *full, holder })))
    }

    /// From where on records are held.
    pub(crate) fn held_offset(&self, lazy: &LazyLog, log: &Log) -> Result<Offset> {
        Ok(self.holder(lazy, log)?.map_or(Offset::MAX, |holder| holder.offset))
    }

    /// The group that holds the oldest records, if any does.
    fn holder(&self, lazy: &LazyLog, log: &Log) -> Result<Option<Holder>> {
        let hold = lazy.topic_config().retention_policy().hold;
        if hold == Hold::None {
            return Ok(None);
        }
        let groups = self.open()?;
        let store = groups.store();
        let mut lowest: Option<(GroupId, Offset)> = None;
        // Nearly always of a few epochs.
        let mut epoch_ends = HashMap::new();
        for (group, position) in store.held_positions(lazy.identity(), |group| hold.is_by(group.as_str())) {
            // Where the log was cut since, the group goes on where the histories part.
            let epoch_end = match epoch_ends.get(&position.epoch) {
                Some(epoch_end) => *epoch_end,
                None => {
                    let found = match log.epoch_end(position.epoch) {
                        // It did not end below that.
                        Err(tailwater_log::Error::Corrupt(damage)) => damage.offsets.start,
                        found => found.map_err(|error| Error::from(error).in_partition(lazy.place()))?,
                    };
                    *epoch_ends.entry(position.epoch).or_insert(found)
                }
            };
            let offset = position.offset.min(epoch_end);
            if lowest.as_ref().is_none_or(|(_, least)| offset < *least) {
                lowest = Some((group, offset));
            }
        }
        Ok(lowest.map(|(group, offset)| {
            let committed = store.durable_committed(&group, lazy.identity());
            Holder {
                group: group.as_str().into(),
                offset,
                lag: log.visible_end(FetchIsolation::Visible).since(offset),
                committed_at: committed.map(|committed| committed.committed_at),
            }
        }))
    }
}

/// Deletes what the limits of the topic let go of and `holder` does not hold.
fn retain_for(holder: Option<Holder>, lazy: &LazyLog, log: &Log) -> Result<RetentionReport> {
    let retained = log.retain(holder.as_ref().map(|holder| holder.offset));
    let report = retained.map_err(|error| Error::from(error).in_partition(lazy.place()))?;
    if report.did_delete {
        let start = log.log_start_offset();
        tracing::debug!(partition = %lazy.place(), log_start_offset = %start, "deleted old records");
    }
    let holder = holder.filter(|_| report.held_bytes > 0);
    lazy.cleaning().stats = RetentionStats { held_bytes: report.held_bytes, holder };
    Ok(report)
}
