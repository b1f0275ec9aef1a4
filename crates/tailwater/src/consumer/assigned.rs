//! A partition that a consumer reads: where it is, whether that place still holds, and the next records.
//!
//! - The position moves only past what was handed out: records, and events that tell why some are missing.
//! - A position is of the log's present history whenever records are fetched from it: it is checked whenever the log's
//!   epoch has changed, and the epoch is looked at on both sides of a fetch.

use std::sync::Arc;

use tailwater_groups::{Position, Resumption, resume};
use tailwater_log::{
    Clock, Error as LogError, FetchHint, FetchIsolation, FetchLimits, Fetched, ListenerGuard, LogEpoch,
    Offset, Signal,
};

use super::cursor::{Cursor, SeekTo};
use super::event::Event;
use super::open_partition::OpenPartition;
use super::options::{ConsumerOptions, OnDivergence, OnExpired, OnGap};
use crate::broker::{LazyLog, Topic};
use crate::{Error, Result, TopicPartition};

/// A partition that a consumer reads.
#[derive(Debug)]
pub(super) struct AssignedPartition {
    pub(super) open: OpenPartition,
    /// The next record to read.
    pub(super) position: Position,
    /// What this consumer last committed, or found committed.
    pub(super) committed: Option<Position>,
    /// Whether it goes on from another place than the one it committed: then it may commit an earlier offset.
    pub(super) has_sought: bool,
    pub(super) is_paused: bool,
    /// Whether the listener knows of it.
    pub(super) is_announced: bool,
    /// The log's epoch when the position was last found to be of its history.
    checked_epoch: Option<LogEpoch>,
    hint: Option<FetchHint>,
    listener: ListenerGuard,
    /// Of the partition, when its log was opened.
    generation: u64,
}

/// Where a consumer is in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    position: Position,
    checked_epoch: Option<LogEpoch>,
    has_sought: bool,
}

impl AssignedPartition {
    pub(super) fn new(
        topic: &Arc<Topic>,
        lazy: &Arc<LazyLog>,
        signal: &Arc<Signal>,
        isolation: FetchIsolation,
    ) -> Result<Self> {
        // Read first: a log that is exchanged after this is noticed.
        let generation = lazy.generation();
        let open = OpenPartition::new(topic, lazy)?;
        Ok(Self {
            position: Position { offset: open.log.log_start_offset(), epoch: open.log.epoch() },
            committed: None,
            has_sought: false,
            is_paused: false,
            is_announced: false,
            checked_epoch: None,
            hint: None,
            listener: open.log.add_listener(signal, isolation),
            generation,
            open,
        })
    }

    pub(super) fn place(&self) -> &Arc<TopicPartition> {
        self.open.place()
    }

    /// Goes to `position`, which is checked at the next fetch.
    pub(super) fn go_to(&mut self, position: Position) {
        self.position = position;
        self.checked_epoch = None;
        self.hint = None;
    }

    /// Where it is, to go back to.
    pub(super) fn reading_place(&self) -> Place {
        Place { position: self.position, checked_epoch: self.checked_epoch, has_sought: self.has_sought }
    }

    /// Goes back to where it was, as if nothing had been fetched since.
    pub(super) fn go_back(&mut self, before: Place) {
        self.position = before.position;
        self.checked_epoch = before.checked_epoch;
        self.has_sought = before.has_sought;
        self.hint = None;
    }

    /// Goes to what `to` means now.
    pub(super) fn seek(
        &mut self,
        to: SeekTo,
        isolation: FetchIsolation,
        clock: &Arc<dyn Clock>,
    ) -> Result<()> {
        let epoch = self.open.log.epoch();
        let position = self.open.resolve(to, isolation, clock)?;
        self.go_to(position);
        // All but a cursor were looked up in the present history, which damage may keep from being looked at again.
        if !matches!(to, SeekTo::Cursor(_)) && self.open.log.epoch() == epoch {
            self.checked_epoch = Some(epoch);
        }
        Ok(())
    }

    /// What can be read next, within `limits`; tells in `events` why the position moved, if it did.
    pub(super) fn fetch(
        &mut self,
        signal: &Arc<Signal>,
        limits: FetchLimits,
        options: &ConsumerOptions,
        events: &mut Vec<Event>,
    ) -> Result<Option<Fetched>> {
        self.reopen_if_exchanged(signal, options.isolation)?;
        let is_attached = options.broker.is_read_only();
        loop {
            let log = &self.open.log;
            let epoch = log.epoch();
            let from = self.position.offset;
            if self.checked_epoch != Some(epoch) || from < log.log_start_offset() {
                self.check_history(options, events)?;
                self.checked_epoch = Some(epoch);
                continue;
            }
            // Looking for more is what a fetch is for where another process writes.
            if !is_attached && from >= log.visible_end(options.isolation) {
                return Ok(None);
            }
            let fetched = log.fetch(from, limits, options.isolation, self.hint.take());
            if log.epoch() != epoch {
                // Another history has begun meanwhile: whether the position is of it comes first.
                continue;
            }
            match fetched {
                Ok(fetched) => {
                    if let Some(lost) = fetched.lost() {
                        self.note_gap(lost.start, lost.end, options, events)?;
                    }
                    self.advance(&fetched)?;
                    return Ok((!fetched.is_empty()).then_some(fetched));
                }
                // Removed just now: the next round tells.
                Err(tailwater_log::Error::OffsetOutOfRange { log_start_offset, .. })
                    if from < log_start_offset => {}
                // Known to the process that writes, and not shown as durable here yet.
                Err(tailwater_log::Error::OffsetOutOfRange { .. }) if is_attached => return Ok(None),
                Err(error) => return Err(self.open.explain(error)),
            }
        }
    }

    /// As [`fetch`](AssignedPartition::fetch), without the records that have expired. Where that is all, they are passed over,
    /// and so is said.
    pub(super) fn fetch_live(
        &mut self,
        signal: &Arc<Signal>,
        limits: FetchLimits,
        options: &ConsumerOptions,
        events: &mut Vec<Event>,
        has_passed_over: &mut bool,
    ) -> Result<Option<Fetched>> {
        while let Some(mut fetched) = self.fetch(signal, limits, options, events)? {
            if options.on_expired == OnExpired::Return
                || fetched.take_out_expired(|| options.broker.clock().now()) == 0
                || fetched.record_count() > 0
            {
                return Ok(Some(fetched));
            }
            *has_passed_over = true;
        }
        Ok(None)
    }

    /// Takes the new log of a partition that was closed and opened again: a deletion that was taken back.
    fn reopen_if_exchanged(&mut self, signal: &Arc<Signal>, isolation: FetchIsolation) -> Result<()> {
        let generation = self.open.lazy.generation();
        if generation != self.generation {
            self.open = OpenPartition::new(&self.open.topic, &self.open.lazy)?;
            self.listener = self.open.log.add_listener(signal, isolation);
            self.generation = generation;
            self.go_to(self.position);
        }
        Ok(())
    }

    /// Moves the position past what was fetched.
    fn advance(&mut self, fetched: &Fetched) -> Result<()> {
        self.hint = fetched.hint();
        let offset = fetched.next_offset();
        self.position = match fetched.batches().last() {
            _ if offset == self.position.offset => self.position,
            Some(last) if offset <= last.header().next_offset() => {
                Position { offset, epoch: last.header().log_epoch }
            }
            // The last batches hold no records; the position is behind them all the same.
            _ => self.open.position_at(offset)?,
        };
        Ok(())
    }

    /// Finds out whether the position is of the log's history and still there. Where it is not, moves it and tells so.
    fn check_history(&mut self, options: &ConsumerOptions, events: &mut Vec<Event>) -> Result<()> {
        self.hint = None;
        loop {
            let (log, position) = (&self.open.log, self.position);
            // Where another process writes, the end of the present epoch is not known here.
            let is_open_ended = options.broker.is_read_only() && position.epoch >= log.epoch();
            let epoch_end = if is_open_ended {
                Offset::MAX
            } else {
                match log.epoch_end(position.epoch) {
                    // What cannot be read may hide where the epoch ended, which was not in front of it.
                    Err(LogError::Corrupt(found)) if position.offset <= found.offsets.start => {
                        found.offsets.start
                    }
                    ended => ended.map_err(|error| self.open.explain(error))?,
                }
            };
            match resume(position, log.log_start_offset(), epoch_end) {
                Resumption::At(_) => return Ok(()),
                Resumption::Gap { from, to } => {
                    self.note_gap(from, to, options, events)?;
                    self.move_to(to)?;
                }
                Resumption::Diverged { epoch_end } => {
                    let partition = Arc::clone(self.place());
                    let position = Cursor::new(self.open.identity(), position);
                    if options.on_divergence == OnDivergence::Error {
                        return Err(Error::Diverged { partition, position: Box::new(position), epoch_end });
                    }
                    events.push(Event::Diverged { partition, position, epoch_end });
                    self.move_to(epoch_end)?;
                }
            }
        }
    }

    /// Tells of records that are missing, or stops at them.
    fn note_gap(
        &self,
        from: Offset,
        to: Offset,
        options: &ConsumerOptions,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let partition = Arc::clone(self.place());
        match options.on_gap {
            OnGap::Event => events.push(Event::Gap { partition, from, to }),
            OnGap::Error => return Err(Error::Gap { partition, from, to }),
        }
        Ok(())
    }

    /// Moves to `offset` of the present history.
    fn move_to(&mut self, offset: Offset) -> Result<()> {
        self.position = self.open.position_at(offset)?;
        // That an earlier offset is committed next is not the consumer's doing.
        self.has_sought = true;
        Ok(())
    }
}
