//! Appending: from a call to an offset.

use std::fmt;
use std::time::{Duration, Instant};

use super::commit::Turn;
use super::staging::{Need, Refusal, Staging};
use super::{Appended, Inner, NewRecord, WhenFull};
use crate::limits::MAX_BATCH_OFFSETS;
use crate::{Compression, Durability, Error, LogEpoch, Offset, OffsetRange, Result};

/// Records that were staged: their offsets and epoch, and the durability that their log is configured with.
///
/// Two words, which are returned in registers. What is returned through memory is put there in pieces of one size and taken
/// in pieces of another, for which the processor waits longer than all of an append takes.
#[derive(Clone, Copy)]
pub struct Staged {
    /// The end of their offsets; 0 if nothing was staged, since no record's offset ends there.
    end: u64,
    terms: Terms,
}

/// The epoch, the durability and the count of records, in one word.
#[derive(Clone, Copy)]
pub(crate) struct Terms(u64);

impl Terms {
    const EPOCH_AT: u32 = 8;
    const COUNT_AT: u32 = 40;

    /// Terms of `count` records: 1 to [`MAX_BATCH_OFFSETS`].
    #[inline]
    pub(crate) fn new(epoch: LogEpoch, durability: Durability, count: u64) -> Self {
        Self((count - 1) << Self::COUNT_AT | u64::from(epoch.get()) << Self::EPOCH_AT | durability as u64)
    }

    #[inline]
    fn count(self) -> u64 {
        (self.0 >> Self::COUNT_AT) + 1
    }

    #[inline]
    pub(crate) fn epoch(self) -> LogEpoch {
        const MASK: u64 = u32::MAX as u64;
        LogEpoch::new(u32::try_from(self.0 >> Self::EPOCH_AT & MASK).unwrap_or(u32::MAX))
    }

    #[inline]
    pub(crate) fn durability(self) -> Durability {
        const BUFFERED: u64 = Durability::Buffered as u64;
        const WRITTEN: u64 = Durability::Written as u64;
        match self.0 & 0xff {
            BUFFERED => Durability::Buffered,
            WRITTEN => Durability::Written,
            _ => Durability::Durable,
        }
    }
}

const _: () = assert!(MAX_BATCH_OFFSETS as u64 - 1 < 1 << (u64::BITS - Terms::COUNT_AT));

impl Staged {
    #[inline]
    pub(crate) fn nothing() -> Self {
        Self { end: 0, terms: Terms(0) }
    }

    /// Records that were staged in a log with this durability.
    #[inline]
    pub(crate) fn new(appended: Appended, configured: Durability) -> Self {
        let Appended { offsets, epoch } = appended;
        Self { end: offsets.end.get(), terms: Terms::new(epoch, configured, offsets.count()) }
    }

    #[inline]
    pub(crate) fn is_nothing(self) -> bool {
        self.end == 0
    }

    /// Where the records are.
    #[inline]
    #[must_use]
    pub fn appended(self) -> Appended {
        let start = Offset::new(self.end - self.terms.count());
        let offsets = OffsetRange { start, end: Offset::new(self.end) };
        Appended { offsets, epoch: self.terms.epoch() }
    }

    /// The durability that the log is configured with.
    #[inline]
    #[must_use]
    pub fn durability(self) -> Durability {
        self.terms.durability()
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("appended", &self.appended())
            .field("durability", &self.durability())
            .finish()
    }
}

impl Inner {
    /// Stages what `stage` makes, making room as long as it asks for it. Returns, beside what it made, the durability that
    /// the log is configured with.
    #[inline]
    pub(crate) fn append_with(
        &self,
        when_full: WhenFull,
        mut stage: impl FnMut(&mut Staging) -> Result<Appended, Refusal>,
    ) -> Result<(Appended, Durability)> {
        let (staged, configured) = {
            let mut staging = self.staging();
            (stage(&mut staging), staging.durability())
        };
        let appended = match staged {
            Ok(appended) => appended,
            Err(refused) => self.append_after_making_room(when_full, refused, stage)?,
        };
        self.write_if_awaited(configured);
        Ok((appended, configured))
    }

    /// Stages one record, into the batch that is open or into a new one; nothing if something has to be done before, or it
    /// cannot be.
    pub(crate) fn append_one(&self, record: &NewRecord<'_>) -> Staged {
        let now = self.now();
        let staged = {
            let mut staging = self.staging();
            let staged = staging.extend_open_batch(record, now);
            match staged.is_nothing() {
                true => staging
                    .open_batch(record, None, now)
                    .map_or(Staged::nothing(), |appended| Staged::new(appended, staging.durability())),
                false => staged,
            }
        };
        if !staged.is_nothing() {
            self.write_if_awaited(staged.durability());
        }
        staged
    }

    /// Stages records, whatever has to be done first: compressed as the log is configured, or as `own` says.
    #[cold]
    pub(crate) fn append_records(
        &self,
        records: &[NewRecord<'_>],
        own: Option<Compression>,
        when_full: WhenFull,
    ) -> Result<Staged, Box<Error>> {
        let now = self.now();
        let (appended, configured) = self.append_with(when_full, |staging| match records {
            [record] => staging.append_one(record, own, now),
            records => staging.append_batch(records, own, now),
        })?;
        Ok(Staged::new(appended, configured))
    }

    /// Where readers see what is written, and one of them sleeps: writes at once instead of at the next interval.
    #[inline]
    fn write_if_awaited(&self, configured: Durability) {
        if configured != Durability::Durable && self.listeners.is_any_armed() {
            // The append is made, whatever comes of this: a full disk is tried again, any other failure is sticky.
            let _ = self.write_staged(None);
        }
    }

    #[cold]
    fn append_after_making_room(
        &self,
        when_full: WhenFull,
        mut refused: Refusal,
        mut stage: impl FnMut(&mut Staging) -> Result<Appended, Refusal>,
    ) -> Result<Appended> {
        let deadline = match when_full {
            WhenFull::Fail => Some(Instant::now()),
            WhenFull::Wait => {
                Instant::now().checked_add(Duration::from_millis(self.config.load().max_block_ms))
            }
        };
        loop {
            match refused {
                Refusal::Error(error) => return Err(error),
                Refusal::Need(need) => self.make_room(need, when_full, deadline)?,
            }
            let staged = stage(&mut self.staging());
            match staged {
                Ok(appended) => return Ok(appended),
                Err(refusal) => refused = refusal,
            }
        }
    }

    /// Does what a batch needs before it can be staged.
    fn make_room(&self, need: Need, when_full: WhenFull, deadline: Option<Instant>) -> Result<()> {
        let Some(mut writer) = self.writer()?.take_until(deadline) else { return Err(self.staging_full()) };
        self.failure.check()?;
        let Need::Space { batch_bytes } = need else { return writer.write_staged(self) };
        let (end, first, roll_bytes) = {
            let staging = self.staging();
            if let Some(reason) = staging.stopped() {
                return Err(reason.clone());
            }
            let first = staging.next_position();
            (first.get() + crate::format::aligned(batch_bytes), first, self.config.load().roll_bytes())
        };
        if end <= u64::from(roll_bytes) || first == crate::format::SEGMENT_DATA_START {
            return writer.allocate(self, end);
        }
        if !writer.is_roll_blocked() {
            writer.take_space_for_next(self)?;
            return writer.roll(self);
        }
        // The one before the active segment, or the active one's name, has to be durable first.
        drop(writer);
        if when_full == WhenFull::Fail {
            return Err(self.staging_full());
        }
        match self.commit.lead_or_wait(Offset::MAX, deadline, || self.failure.check().err()) {
            Turn::Lead(leader) => self.sync_leading(&leader).map(drop),
            Turn::Done(failed) => Err(failed),
            Turn::TimedOut => Err(self.staging_full()),
        }
    }

    fn staging_full(&self) -> Error {
        let staging = self.staging();
        Error::StagingFull { staged_bytes: staging.staged_bytes(), limit_bytes: staging.limit_bytes() }
    }
}
