//! Appending: from a call to an offset.

use std::time::{Duration, Instant};

use super::commit::Turn;
use super::staging::{Need, Refusal, Staging};
use super::{Appended, Inner, WhenFull};
use crate::{Durability, Error, Offset, Result};

impl Inner {
    /// Stages what `stage` makes, making room as long as it asks for it.
    pub(crate) fn append_with(
        &self,
        when_full: WhenFull,
        mut stage: impl FnMut(&mut Staging) -> Result<Appended, Refusal>,
    ) -> Result<Appended> {
        let staged = stage(&mut self.staging());
        let appended = match staged {
            Ok(appended) => appended,
            Err(refused) => self.append_after_making_room(when_full, refused, stage)?,
        };
        self.write_if_awaited();
        Ok(appended)
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
        let (end, first, segment_bytes) = {
            let staging = self.staging();
            if let Some(reason) = staging.stopped() {
                return Err(reason.clone());
            }
            let first = staging.next_position();
            (first.get() + crate::format::aligned(batch_bytes), first, self.config.load().segment_bytes)
        };
        if end <= u64::from(segment_bytes) || first == crate::format::SEGMENT_DATA_START {
            return writer.allocate(self, end);
        }
        if !writer.is_roll_blocked() {
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

    /// Where readers see what is written, and one of them sleeps: writes at once instead of at the next interval.
    #[inline]
    fn write_if_awaited(&self) {
        if self.listeners.is_any_armed() && self.config.load().durability != Durability::Durable {
            // The append is made, whatever comes of this: a full disk is tried again, any other failure is sticky.
            let _ = self.write_staged(None);
        }
    }
}
