//! What recovery decides, as pure functions of what it found.

use crate::mistakes::{Mistake, is_planted};
use crate::{LogEpoch, Offset};

/// A named segment whose header verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NamedSegment {
    pub(crate) base: Offset,
    pub(crate) epoch: LogEpoch,
    pub(crate) epoch_start: Offset,
    /// Set if compaction made it: up to here it has taken the place of others.
    pub(crate) covered_end: Option<Offset>,
}

/// How a durable mark is worked out: [`durable_mark`] or [`recorded_mark`].
pub(crate) type MarkRule =
    fn(&[NamedSegment], Offset, &mut dyn Iterator<Item = (LogEpoch, Offset)>) -> Offset;

/// Which segments make up the log: indexes into `named`, which is in rising order of the bases.
///
/// The higher epoch wins: a segment with one supersedes, from its base on, all with lower ones. Of equal epochs one that
/// compaction made covers those that it has taken the place of. Segments that lie wholly below `log_start` are left out too.
pub(crate) fn live_segments(named: &[NamedSegment], log_start: Offset) -> Vec<usize> {
    let is_superseded = |segment: &NamedSegment| {
        named.iter().any(|other| other.epoch > segment.epoch && other.base <= segment.base)
    };
    let is_covered = |segment: &NamedSegment| {
        named.iter().any(|other| {
            other.epoch == segment.epoch
                && other.base < segment.base
                && other.covered_end.is_some_and(|end| segment.base < end)
        })
    };
    let is_live = |segment: &NamedSegment| {
        !is_superseded(segment) && (is_planted(Mistake::RecoveryForgetsCovered) || !is_covered(segment))
    };
    let mut live: Vec<usize> = (0..named.len()).filter(|index| is_live(&named[*index])).collect();
    let first = live.partition_point(|index| named[*index].base <= log_start).saturating_sub(1);
    live.drain(..first);
    live
}

/// The durable mark: everything below it was synced, so that damage there is no torn tail.
///
/// `marks` are those of the checkpoint, of footers and of batches, each with the epoch it was made in. Those of an
/// older epoch than the highest are ignored: they may speak of records that a later history replaced.
pub(crate) fn durable_mark(
    live: &[NamedSegment],
    log_start: Offset,
    marks: &mut dyn Iterator<Item = (LogEpoch, Offset)>,
) -> Offset {
    let highest = highest_epoch(live);
    let epoch_start = live.iter().find(|segment| segment.epoch == highest).map(|segment| segment.epoch_start);
    recorded_mark(live, log_start, marks).max(epoch_start.unwrap_or_default())
}

/// As [`durable_mark`], for readers beside a writer: they may see a segment of a new epoch before the sync that makes
/// its start a mark.
pub(crate) fn recorded_mark(
    live: &[NamedSegment],
    log_start: Offset,
    marks: &mut dyn Iterator<Item = (LogEpoch, Offset)>,
) -> Offset {
    let highest = highest_epoch(live);
    let first_base = live.first().map_or(Offset::ZERO, |segment| segment.base);
    marks
        .filter(|(epoch, _)| *epoch >= highest)
        .map(|(_, mark)| mark)
        .fold(first_base.max(log_start), Ord::max)
}

fn highest_epoch(live: &[NamedSegment]) -> LogEpoch {
    live.iter().map(|segment| segment.epoch).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(segments: &[(u64, u32, u64)]) -> Vec<NamedSegment> {
        segments
            .iter()
            .map(|&(base, epoch, start)| NamedSegment {
                base: Offset::new(base),
                epoch: LogEpoch::new(epoch),
                epoch_start: Offset::new(start),
                covered_end: None,
            })
            .collect()
    }

    #[test]
    fn the_higher_epoch_supersedes_from_its_base_on() {
        let segments = named(&[(0, 1, 0), (40, 2, 45), (50, 1, 0), (80, 1, 0), (90, 2, 45)]);
        assert_eq!(live_segments(&segments, Offset::ZERO), [0, 1, 4]);
    }

    #[test]
    fn what_compaction_made_covers_what_it_took_the_place_of() {
        let mut segments = named(&[(0, 2, 45), (30, 1, 0), (50, 2, 45), (70, 2, 45), (90, 2, 45)]);
        assert_eq!(live_segments(&segments, Offset::ZERO), [0, 2, 3, 4]);
        segments[0].covered_end = Some(Offset::new(90));
        assert_eq!(live_segments(&segments, Offset::ZERO), [0, 4]);
        // A later history took over from 50 on.
        let mut segments = named(&[(0, 2, 45), (30, 2, 45), (50, 3, 50), (70, 2, 45), (90, 3, 50)]);
        segments[0].covered_end = Some(Offset::new(90));
        assert_eq!(live_segments(&segments, Offset::ZERO), [0, 2, 4]);
    }

    #[test]
    fn segments_wholly_below_the_log_start_are_left_out() {
        let segments = named(&[(0, 1, 0), (40, 1, 0), (50, 1, 0)]);
        assert_eq!(live_segments(&segments, Offset::new(49)), [1, 2]);
        assert_eq!(live_segments(&segments, Offset::new(50)), [2]);
        assert_eq!(live_segments(&named(&[(50, 1, 0)]), Offset::new(10)), [0]);
    }

    #[test]
    fn only_marks_of_the_highest_epoch_count() {
        let live = named(&[(0, 1, 0), (40, 2, 45)]);
        let mark = |marks: &[(u32, u64)]| {
            let mut marks = marks.iter().map(|&(epoch, mark)| (LogEpoch::new(epoch), Offset::new(mark)));
            durable_mark(&live, Offset::ZERO, &mut marks).get()
        };
        assert_eq!(mark(&[]), 45, "what lies below the start of an epoch was synced before it began");
        assert_eq!(mark(&[(1, 70)]), 45);
        assert_eq!(mark(&[(2, 60), (1, 70), (2, 50)]), 60);
        assert_eq!(durable_mark(&live, Offset::new(47), &mut std::iter::empty()), Offset::new(47));
    }
}
