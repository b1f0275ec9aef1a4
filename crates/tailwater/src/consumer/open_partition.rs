//! A partition whose log is open: what places in it mean, and that they are durable before they are committed.

use std::sync::Arc;
use std::time::Duration;

use tailwater_groups::{Position, Resumption, resume};
use tailwater_log::{FetchIsolation, Log, Offset, PartitionIdentity};

use super::SeekTo;
use crate::broker::{LazyLog, Topic};
use crate::{Clock, Durability, Error, Result, TopicPartition};

/// A partition whose log is open.
#[derive(Clone, Debug)]
pub(crate) struct OpenPartition {
    pub(crate) topic: Arc<Topic>,
    pub(crate) lazy: Arc<LazyLog>,
    pub(crate) log: Log,
}

impl OpenPartition {
    pub(crate) fn new(topic: &Arc<Topic>, lazy: &Arc<LazyLog>) -> Result<Self> {
        let log = topic.open(lazy)?;
        Ok(Self { topic: Arc::clone(topic), lazy: Arc::clone(lazy), log })
    }

    pub(crate) fn place(&self) -> &Arc<TopicPartition> {
        self.lazy.place()
    }

    pub(crate) fn identity(&self) -> PartitionIdentity {
        self.log.identity()
    }

    /// Where a reader at `isolation` stops for now.
    pub(crate) fn visible_end(&self, isolation: FetchIsolation) -> Result<Offset> {
        self.refresh()?;
        Ok(self.log.visible_end(isolation))
    }

    /// Where another process writes, looks what it has made durable since the last look.
    pub(crate) fn refresh(&self) -> Result<()> {
        match self.log.refresh() {
            // The directories of a topic go before the catalog says that it is deleted: until then, what was seen last.
            Err(error) if error.is_not_found() => Ok(()),
            refreshed => refreshed.map_err(|error| self.explain(error)),
        }
    }

    /// The position at `offset` of the present history.
    pub(crate) fn position_at(&self, offset: Offset) -> Result<Position> {
        let epoch = self.log.epoch_at(offset).map_err(|error| self.explain(error))?;
        Ok(Position { offset, epoch })
    }

    /// The position that `to` means now, for a reader at `isolation`.
    pub(crate) fn resolve(
        &self,
        to: SeekTo,
        isolation: FetchIsolation,
        clock: &Arc<dyn Clock>,
    ) -> Result<Position> {
        self.refresh()?;
        let log = &self.log;
        let at_time = |time| match log.offset_for_time(time) {
            Ok(found) => self.position_at(found.unwrap_or_else(|| log.visible_end(isolation))),
            Err(error) => Err(self.explain(error)),
        };
        match to {
            SeekTo::Earliest => self.position_at(log.log_start_offset()),
            SeekTo::Latest => self.position_at(log.visible_end(isolation)),
            SeekTo::Last(count) => {
                let at = Offset::new(log.visible_end(isolation).get().saturating_sub(count));
                self.position_at(at.max(log.log_start_offset()))
            }
            SeekTo::Offset(requested) => {
                let (log_start_offset, log_end_offset) = (log.log_start_offset(), log.log_end_offset());
                if requested < log_start_offset || requested > log_end_offset {
                    let partition = Some(Arc::clone(self.place()));
                    return Err(Error::OffsetOutOfRange {
                        partition,
                        requested,
                        log_start_offset,
                        log_end_offset,
                    });
                }
                self.position_at(requested)
            }
            SeekTo::Cursor(cursor) if cursor.identity() == self.identity() => Ok(cursor.position()),
            SeekTo::Cursor(cursor) => {
                Err(Error::ForeignCursor { partition: Arc::clone(self.place()), cursor: Box::new(cursor) })
            }
            SeekTo::Time(time) => at_time(time),
            SeekTo::Ago(ago) => at_time(clock.now().saturating_sub_ms(whole_ms(ago))),
        }
    }

    /// `position`, or where the log's history parts from that of the position, if it was truncated since.
    pub(crate) fn still_there(&self, position: Position) -> Result<Position> {
        let epoch_end = self.log.epoch_end(position.epoch).map_err(|error| self.explain(error))?;
        match resume(position, self.log.log_start_offset(), epoch_end) {
            // Of what was removed the reader is told.
            Resumption::At(_) | Resumption::Gap { .. } => Ok(position),
            Resumption::Diverged { epoch_end } => self.position_at(epoch_end),
        }
    }

    /// The position that `to` means now, as a group may commit it: durable.
    pub(crate) fn resolve_for_group(&self, to: SeekTo, clock: &Arc<dyn Clock>) -> Result<Position> {
        let position = self.resolve(to, FetchIsolation::Visible, clock)?;
        self.make_durable(position.offset)?;
        Ok(position)
    }

    /// Makes the partition durable up to `offset`, where that is not so yet, so that it can be committed.
    ///
    /// # Errors
    ///
    /// [`Error::CommitBeyondDurable`] on a topic whose readers see only what is durable.
    pub(crate) fn make_durable(&self, offset: Offset) -> Result<()> {
        let durable_offset = self.log.durable_offset();
        if durable_offset >= offset {
            return Ok(());
        }
        if self.log.config().durability == Durability::Durable {
            let partition = Arc::clone(self.place());
            return Err(Error::CommitBeyondDurable { partition, requested: offset, durable_offset });
        }
        self.log.sync_up_to(offset).map(drop).map_err(|error| self.explain(error))
    }

    pub(crate) fn explain(&self, error: tailwater_log::Error) -> Error {
        self.topic.explain(error, self.place())
    }
}

pub(super) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
