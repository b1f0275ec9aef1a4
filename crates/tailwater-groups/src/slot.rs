//! The position of one group in one partition: what is committed, and what of that is durable.
//!
//! - Changes that are not known to be durable are kept in the order they were appended, behind the newest that is.
//! - Between the first and the last of them, one is dropped if the one before it is not above it: neither the lowest
//!   position that a crash may leave nor a durable one is ever put too high by that, and as long as commits only go
//!   forward at most two are kept, however far syncs trail.

use std::collections::VecDeque;

use tailwater_log::Offset;

use crate::{Committed, Position};

/// The position of one group in one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// The newest that was known to be durable when this was last looked at.
    settled: Option<Committed>,
    /// What was appended after it.
    pending: VecDeque<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    /// Where in the groups log it is.
    log_offset: Offset,
    to: Option<Committed>,
}

impl Slot {
    /// Notes what was appended at `log_offset`; below `durable` the groups log is durable.
    pub(crate) fn set(&mut self, log_offset: Offset, to: Option<Committed>, durable: Offset) {
        self.settle(durable);
        if log_offset < durable {
            self.settled = to;
            return;
        }
        if self.is_last_dispensable() {
            self.pending.pop_back();
        }
        self.pending.push_back(Change { log_offset, to });
    }

    /// Lets go of what durable changes have replaced.
    pub(crate) fn settle(&mut self, durable: Offset) {
        while self.pending.front().is_some_and(|change| change.log_offset < durable) {
            self.settled = self.pending.pop_front().and_then(|change| change.to);
        }
    }

    /// What is committed.
    pub(crate) fn newest(&self) -> Option<&Committed> {
        self.pending.back().map_or(self.settled.as_ref(), |change| change.to.as_ref())
    }

    /// What is durable: the newest, or one before it.
    pub(crate) fn durable(&self, durable: Offset) -> Option<&Committed> {
        let is_durable = |change: &&Change| change.log_offset < durable;
        self.pending.iter().rfind(is_durable).map_or(self.settled.as_ref(), |change| change.to.as_ref())
    }

    /// The lowest offset that a power cut at this moment may leave.
    pub(crate) fn lowest(&self, durable: Offset) -> Option<Offset> {
        self.possible(durable).map(|position| position.offset).min()
    }

    /// The positions of which a power cut at this moment may leave any.
    pub(crate) fn possible(&self, durable: Offset) -> impl Iterator<Item = Position> {
        let pending = self.pending.iter().filter(move |change| change.log_offset >= durable);
        self.durable(durable)
            .into_iter()
            .chain(pending.filter_map(|change| change.to.as_ref()))
            .map(|committed| committed.position)
    }

    /// Whether nothing is committed, and nothing can come back.
    pub(crate) fn is_vacant(&self) -> bool {
        self.settled.is_none() && self.pending.is_empty()
    }

    /// Whether the last change says nothing that the one before it does not: see the invariants.
    fn is_last_dispensable(&self) -> bool {
        let mut latest = self.pending.iter().rev().map(|change| &change.to);
        match (latest.next(), latest.next()) {
            (Some(Some(last)), Some(Some(before))) => before.position.offset <= last.position.offset,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_log::{LogEpoch, Timestamp};

    use super::*;

    fn committed(log_offset: u64, offset: u64) -> Committed {
        Committed {
            position: Position { offset: Offset::new(offset), epoch: LogEpoch::FIRST },
            metadata: "".into(),
            committed_at: Timestamp::from_millis(0),
            log_offset: Offset::new(log_offset),
        }
    }

    fn set(slot: &mut Slot, log_offset: u64, offset: u64, durable: u64) {
        slot.set(Offset::new(log_offset), Some(committed(log_offset, offset)), Offset::new(durable));
    }

    fn durable(slot: &Slot, durable: u64) -> Option<u64> {
        slot.durable(Offset::new(durable)).map(|committed| committed.position.offset.get())
    }

    fn lowest(slot: &Slot, durable: u64) -> Option<u64> {
        slot.lowest(Offset::new(durable)).map(Offset::get)
    }

    #[test]
    fn the_durable_position_stays_until_a_newer_one_is_durable() {
        let mut slot = Slot::default();
        set(&mut slot, 3, 100, 4);
        set(&mut slot, 7, 200, 4);
        assert_eq!(slot.newest().map(|c| c.position.offset.get()), Some(200));
        assert_eq!(
            [durable(&slot, 4), durable(&slot, 7), durable(&slot, 8)],
            [Some(100), Some(100), Some(200)]
        );
        assert_eq!([lowest(&slot, 4), lowest(&slot, 8)], [Some(100), Some(200)]);
    }

    #[test]
    fn a_staged_step_back_is_held_though_it_is_not_durable() {
        let mut slot = Slot::default();
        set(&mut slot, 3, 100, 4);
        set(&mut slot, 7, 10, 4);
        set(&mut slot, 8, 300, 4);
        set(&mut slot, 9, 400, 4);
        assert_eq!(durable(&slot, 4), Some(100));
        assert_eq!([lowest(&slot, 4), lowest(&slot, 8), lowest(&slot, 10)], [Some(10), Some(10), Some(400)]);
        assert_eq!(durable(&slot, 8), Some(10));
    }

    #[test]
    fn commits_that_go_forward_take_no_more_room_however_far_syncs_trail() {
        let mut slot = Slot::default();
        for n in 0..10_000 {
            // The sync is always three commits behind.
            set(&mut slot, n, n * 10, n.saturating_sub(3));
            assert!(slot.pending.len() <= 3, "{n}: {}", slot.pending.len());
            let shown = durable(&slot, n.saturating_sub(3)).unwrap_or(0);
            assert!(shown + 80 >= n * 10, "{n}: {shown} is all that is known as durable");
        }
    }

    #[test]
    fn a_staged_removal_can_be_undone_by_a_power_cut() {
        let mut slot = Slot::default();
        set(&mut slot, 3, 100, 4);
        slot.set(Offset::new(5), None, Offset::new(4));
        assert_eq!((slot.newest(), durable(&slot, 4), lowest(&slot, 4)), (None, Some(100), Some(100)));
        assert!(!slot.is_vacant());
        assert_eq!((durable(&slot, 6), lowest(&slot, 6)), (None, None));
        slot.settle(Offset::new(6));
        assert!(slot.is_vacant());
    }
}
