//! Which segments a compaction looks at, and whether it is worth while: decided from what is known of them.

use crate::{LogConfig, Offset, Timestamp};

/// What a plan is made from: a segment that takes no appends any more and is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentFacts {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) size_bytes: u64,
    /// Up to here compaction has cleaned it; its base where that has not been.
    pub(crate) cleaned_end: Offset,
    /// From when on the first of its tombstones may go.
    pub(crate) next_horizon: Option<Timestamp>,
    /// When its first and its last record were appended. Known of what has not been cleaned, if it has any.
    pub(crate) append_times: Option<(Timestamp, Timestamp)>,
    /// How many records it has, where that is known.
    pub(crate) record_count: u64,
    /// It cannot be cleaned: it is damaged, or it spans more offsets than an index can tell apart.
    pub(crate) is_left_alone: bool,
}

impl SegmentFacts {
    /// Whether there is something that has not been cleaned.
    pub(crate) fn is_dirty(&self) -> bool {
        self.cleaned_end < self.end && !self.is_left_alone
    }

    fn has_tombstones_due(&self, now: Timestamp, held: Offset) -> bool {
        let is_due = self.next_horizon.is_some_and(|horizon| horizon <= now);
        is_due && self.base < held && !self.is_left_alone
    }
}

/// What an earlier pass found, so that what it could not do is not tried again for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastPass {
    pub(crate) at: Timestamp,
    pub(crate) held: Offset,
}

/// What there is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// How many of the segments, from the first on, may be cleaned.
    pub(crate) segment_count: usize,
    /// How many keys there may be in what has not been cleaned.
    pub(crate) most_keys: u64,
    pub(crate) dirty_bytes: u64,
    pub(crate) clean_bytes: u64,
    /// Whether there is anything to do.
    pub(crate) has_work: bool,
    /// Whether there is enough of it, or some of it has waited for long.
    pub(crate) is_due: bool,
}

/// Plans a compaction of `segments`, which follow one another.
pub(crate) fn plan(
    segments: &[SegmentFacts],
    now: Timestamp,
    held: Offset,
    config: &LogConfig,
    last_pass: Option<LastPass>,
) -> Plan {
    let is_young = |segment: &SegmentFacts| {
        segment.append_times.is_some_and(|(_, last)| now.since_ms(last) < config.min_compaction_lag_ms)
    };
    // Append times never decrease: behind one that is too young all are.
    let segment_count = segments.iter().position(is_young).unwrap_or(segments.len());
    let mut plan = Plan { segment_count, ..Plan::default() };
    let (mut is_late, mut has_tombstones) = (false, false);
    for segment in &segments[..segment_count] {
        if segment.is_dirty() {
            plan.dirty_bytes += segment.size_bytes;
            plan.most_keys += segment.record_count.min(segment.end.since(segment.cleaned_end));
            is_late |= segment.append_times.is_some_and(|(first, _)| {
                config.max_compaction_lag_ms.is_some_and(|lag_ms| now.since_ms(first) >= lag_ms)
            });
        } else if !segment.is_left_alone {
            plan.clean_bytes += segment.size_bytes;
        }
        if segment.has_tombstones_due(now, held) {
            // Those that an earlier pass has seen due it has removed, or a group held them.
            let was_due = |last: LastPass| segment.has_tombstones_due(last.at, Offset::MAX);
            has_tombstones |= last_pass.is_none_or(|last| !was_due(last) || last.held < held);
        }
    }
    let all_bytes = plan.dirty_bytes + plan.clean_bytes;
    let is_dirty_enough = u128::from(plan.dirty_bytes) * 100
        >= u128::from(all_bytes) * u128::from(config.min_cleanable_dirty_percent);
    plan.has_work = plan.dirty_bytes > 0 || has_tombstones;
    plan.is_due = has_tombstones || is_late || (plan.dirty_bytes > 0 && is_dirty_enough);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(base: u64, end: u64, cleaned: u64, times: (i64, i64)) -> SegmentFacts {
        SegmentFacts {
            base: Offset::new(base),
            end: Offset::new(end),
            size_bytes: 100,
            cleaned_end: Offset::new(cleaned),
            next_horizon: None,
            append_times: Some((Timestamp::from_millis(times.0), Timestamp::from_millis(times.1))),
            record_count: end - base,
            is_left_alone: false,
        }
    }

    fn config(change: impl FnOnce(&mut LogConfig)) -> LogConfig {
        let mut config = LogConfig::default();
        change(&mut config);
        config
    }

    fn at(now: i64, segments: &[SegmentFacts], config: &LogConfig) -> Plan {
        plan(segments, Timestamp::from_millis(now), Offset::MAX, config, None)
    }

    #[test]
    fn what_is_younger_than_the_lag_is_left_alone() {
        let segments =
            [segment(0, 10, 10, (0, 9)), segment(10, 20, 10, (10, 19)), segment(20, 30, 20, (20, 29))];
        let config = config(|config| config.min_compaction_lag_ms = 100);
        for (now, count) in [(109, 1), (118, 1), (119, 2), (128, 2), (129, 3)] {
            assert_eq!(at(now, &segments, &config).segment_count, count, "at {now}");
        }
        assert_eq!(
            at(-5, &segments, &LogConfig::default()).segment_count,
            3,
            "no lag, whatever the clock says"
        );
    }

    #[test]
    fn enough_of_it_must_be_dirty() {
        let clean = [segment(0, 10, 10, (0, 9)); 3];
        let is_due = |dirty: usize, percent| {
            let dirty = vec![segment(30, 40, 30, (30, 39)); dirty];
            let segments = [&clean[..], &dirty].concat();
            let plan = at(1_000, &segments, &config(|config| config.min_cleanable_dirty_percent = percent));
            assert_eq!((plan.has_work, plan.dirty_bytes), (!dirty.is_empty(), 100 * dirty.len() as u64));
            plan.is_due
        };
        assert!(!is_due(2, 50));
        assert!(is_due(3, 50));
        assert!(is_due(1, 25));
        assert!(is_due(1, 0));
        assert!(!is_due(0, 0), "nothing to do is never due");
    }

    #[test]
    fn what_has_waited_for_long_is_due_however_little_it_is() {
        let segments = [segment(0, 10, 10, (0, 9)), segment(10, 11, 10, (10, 19))];
        let config = config(|config| {
            config.min_cleanable_dirty_percent = 100;
            config.max_compaction_lag_ms = Some(50);
        });
        assert!(!at(59, &segments, &config).is_due);
        assert!(at(60, &segments, &config).is_due);
    }

    #[test]
    fn tombstones_are_due_once_and_again_when_groups_have_moved() {
        let horizon = Some(Timestamp::from_millis(100));
        let segments = [SegmentFacts { next_horizon: horizon, ..segment(10, 20, 20, (0, 9)) }];
        let config = LogConfig::default();
        let plan = |now, held, last: Option<(i64, u64)>| {
            let last =
                last.map(|(at, held)| LastPass { at: Timestamp::from_millis(at), held: Offset::new(held) });
            super::plan(&segments, Timestamp::from_millis(now), Offset::new(held), &config, last)
        };
        assert!(!plan(99, 50, None).has_work);
        assert!(plan(100, 50, None).is_due);
        assert!(!plan(100, 10, None).is_due, "held by a group");
        assert!(plan(100, 50, Some((99, 50))).is_due);
        assert!(!plan(200, 50, Some((150, 50))).is_due, "what could go has gone");
        assert!(plan(200, 60, Some((150, 50))).is_due);
    }

    #[test]
    fn what_is_left_alone_makes_no_work() {
        let segments = [SegmentFacts { is_left_alone: true, ..segment(0, 10, 0, (0, 9)) }];
        let plan = at(1_000, &segments, &LogConfig::default());
        assert_eq!((plan.has_work, plan.dirty_bytes, plan.clean_bytes), (false, 0, 0));
    }
}
