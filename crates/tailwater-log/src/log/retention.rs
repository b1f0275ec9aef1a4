//! Retention: which records may go, and moving the log start there.
//!
//! - Only whole segments go, oldest first, and never the active one, in which the next offset and the epoch live on.
//! - The log start is durable before the first file is removed, and the files are removed later, one at a time.
//! - What decides is the time of the append, which never goes back from one record to the next, and not that of the maker.

use super::Inner;
use crate::segment::SegmentList;
use crate::{Error, Offset, Result, Timestamp};

/// What [`Log::retain`](crate::Log::retain) did, and when it may have something to do again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RetentionReport {
    /// Whether the log start was moved.
    pub did_delete: bool,
    /// How many bytes the limits would let go of and somebody holds.
    pub held_bytes: u64,
    /// In how many milliseconds more records are old enough; `None` if that depends on appends, or on who holds them.
    pub next_due_ms: Option<u64>,
}

/// The limits that a decision goes by.
#[derive(Clone, Copy, Debug)]
struct Limits {
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    /// Records from here on are held.
    held: Offset,
}

/// One segment, for a decision.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    end: Offset,
    bytes: u64,
}

/// What a decision came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Decision {
    /// Where the log is to begin, if not where it does.
    start: Option<Offset>,
    held_bytes: u64,
    next_due_ms: Option<u64>,
    /// Whether everything in the active segment may go too, once it is rolled.
    is_active_due: bool,
}

/// Decides which segments may go. `active` is the end of the active segment and its size in bytes, or zero if it holds
/// nothing; `newest` tells when the last record of a segment was appended, the active one being the last.
fn decide(
    sealed: &[Candidate],
    active: Candidate,
    limits: &Limits,
    now: Timestamp,
    mut newest: impl FnMut(usize) -> Result<Option<Timestamp>>,
) -> Result<Decision> {
    let mut left = sealed.iter().fold(active.bytes, |sum, segment| sum + segment.bytes);
    let mut decision = Decision::default();
    let mut due_in = |index: usize| -> Result<Option<u64>> {
        let (Some(age), Some(newest)) = (limits.retention_ms, newest(index)?) else { return Ok(None) };
        Ok(Some(age.saturating_sub(now.since_ms(newest))))
    };
    for (index, segment) in sealed.iter().enumerate() {
        let is_over = limits.retention_bytes.is_some_and(|limit| left - segment.bytes >= limit);
        if !is_over {
            match due_in(index)? {
                Some(0) => {}
                due => return Ok(Decision { next_due_ms: due, ..decision }),
            }
        }
        left -= segment.bytes;
        if segment.end <= limits.held && decision.held_bytes == 0 {
            decision.start = Some(segment.end);
        } else {
            decision.held_bytes += segment.bytes;
        }
    }
    if active.bytes > 0 {
        match due_in(sealed.len())? {
            Some(0) if active.end <= limits.held => decision.is_active_due = true,
            Some(0) => decision.held_bytes += active.bytes,
            due => decision.next_due_ms = due,
        }
    }
    Ok(decision)
}

impl Inner {
    /// Moves the log start as far as the limits of the configuration allow.
    pub(crate) fn retain(&self, held: Option<Offset>) -> Result<RetentionReport> {
        let mut report = RetentionReport::default();
        let config = self.config.load_full();
        if !config.has_retention() {
            return Ok(report);
        }
        let held = held.unwrap_or(Offset::MAX);
        let limits =
            Limits { retention_ms: config.retention_ms, retention_bytes: config.retention_bytes, held };
        let mut decision = self.decide(&limits)?;
        if decision.is_active_due {
            let leader = self.commit.lead();
            self.roll_leading(&leader)?;
            self.sync_leading(&leader)?;
            drop(leader);
            decision = self.decide(&limits)?;
        }
        if let Some(start) = decision.start {
            self.move_start(start)?;
            report.did_delete = true;
        }
        report.held_bytes = decision.held_bytes;
        report.next_due_ms = decision.next_due_ms;
        Ok(report)
    }

    fn decide(&self, limits: &Limits) -> Result<Decision> {
        let (segments, active_end, active_bytes) = {
            // With the writer, so that the list and the end belong together.
            let writer = self.writer()?.take();
            self.failure.check()?;
            let bytes = writer.position.get() - crate::format::SEGMENT_DATA_START.get();
            (self.segments.load_full(), writer.written, bytes)
        };
        let sealed = self.candidates(&segments)?;
        let active = Candidate { end: active_end, bytes: active_bytes };
        decide(&sealed, active, limits, self.now(), |index| self.newest_append(&segments, index))
    }

    /// The sealed segments, oldest first.
    fn candidates(&self, segments: &SegmentList) -> Result<Vec<Candidate>> {
        let sealed = segments.iter().enumerate().take(segments.len() - 1);
        let candidate = |(index, segment): (usize, &std::sync::Arc<crate::segment::Segment>)| {
            let end = segments.end_of(index);
            let bytes = match segment.data_end() {
                Some(data_end) => data_end.get(),
                None => segment.length(&self.segment_context(end), true)?,
            };
            Ok(Candidate { end, bytes })
        };
        sealed.map(candidate).collect()
    }

    /// When the last record of a segment was appended, or, where that cannot be read, one that came later. `None` if there
    /// is no later one.
    fn newest_append(&self, segments: &SegmentList, index: usize) -> Result<Option<Timestamp>> {
        for (index, segment) in segments.iter().enumerate().skip(index) {
            let end = segments.end_of(index).min(self.ends.written());
            let newest = segment.with_summary(&self.segment_context(end), |summary| {
                summary.times.map(|times| times.max_append)
            });
            match newest {
                Ok(Some(newest)) => return Ok(Some(newest)),
                Ok(None) | Err(Error::Corrupt(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Deletes the oldest records until so many bytes more may be taken up under `retention_hard_bytes`, whole segments and
    /// nothing from `up_to` on. Returns whether there was anything to delete.
    pub(crate) fn make_space(&self, wanted_bytes: u64, up_to: Offset) -> Result<bool> {
        let missing = self.missing_space(wanted_bytes)?;
        let (mut start, mut is_enough) = self.start_for_space(missing, up_to)?;
        if !is_enough && up_to >= self.ends.written() {
            // What is in the active segment may go too.
            let leader = self.commit.lead();
            self.roll_leading(&leader)?;
            self.sync_leading(&leader)?;
            drop(leader);
            (start, is_enough) = self.start_for_space(missing, up_to)?;
        }
        tracing::debug!(directory = %self.directory.display(), missing, is_enough, "deleting the oldest records for space");
        if let Some(start) = start {
            self.move_start(start)?;
        }
        // Also what was on the way already.
        Ok(self.remove_deleted()? > 0 || start.is_some())
    }

    /// Where the log has to begin so that so many bytes go, and whether that is enough. Nothing from `up_to` on goes.
    fn start_for_space(&self, mut missing: u64, up_to: Offset) -> Result<(Option<Offset>, bool)> {
        let mut start = None;
        for candidate in self.candidates(&self.segments.load_full())? {
            if missing == 0 || candidate.end > up_to {
                break;
            }
            missing = missing.saturating_sub(candidate.bytes);
            start = Some(candidate.end);
        }
        Ok((start, missing == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    /// Segments of ten offsets and a hundred bytes each, the last one active, appended to until `ages` milliseconds ago.
    fn decide_for(ages: &[u64], limits: Limits) -> Decision {
        let all: Vec<_> =
            (1..).map(|n| Candidate { end: Offset::new(10 * n), bytes: 100 }).take(ages.len()).collect();
        let (active, sealed) = all.split_last().unwrap();
        decide(sealed, *active, &limits, NOW, |index| {
            Ok(ages.get(index).map(|age| Timestamp::from_millis(NOW.as_millis() - *age as i64)))
        })
        .unwrap()
    }

    fn limits(retention_ms: Option<u64>, retention_bytes: Option<u64>, held: u64) -> Limits {
        Limits { retention_ms, retention_bytes, held: Offset::new(held) }
    }

    #[test]
    fn by_size_goes_what_is_over_and_never_the_active_segment() {
        let start = |bytes| decide_for(&[9, 8, 7, 6], limits(None, Some(bytes), 1_000)).start;
        assert_eq!(start(500), None);
        assert_eq!(start(301), None);
        assert_eq!(start(300), Some(Offset::new(10)));
        assert_eq!(start(100), Some(Offset::new(30)));
        assert_eq!(start(0), Some(Offset::new(30)));
    }

    #[test]
    fn by_age_goes_what_is_wholly_old_and_the_next_time_is_told() {
        let decision = decide_for(&[900, 700, 500, 100], limits(Some(600), None, 1_000));
        assert_eq!((decision.start, decision.next_due_ms), (Some(Offset::new(20)), Some(100)));
        assert!(!decision.is_active_due);
        let idle = decide_for(&[900, 800, 700], limits(Some(600), None, 1_000));
        assert_eq!((idle.start, idle.is_active_due, idle.next_due_ms), (Some(Offset::new(20)), true, None));
    }

    #[test]
    fn what_is_held_stays_and_is_told() {
        let decision = decide_for(&[900, 800, 700, 650], limits(Some(600), None, 15));
        assert_eq!((decision.start, decision.held_bytes), (Some(Offset::new(10)), 300));
        assert!(!decision.is_active_due, "its records are held");
        let nothing = decide_for(&[900, 800], limits(None, Some(0), 9));
        assert_eq!((nothing.start, nothing.held_bytes), (None, 100));
    }

    #[test]
    fn either_limit_is_enough() {
        let decision = decide_for(&[900, 500, 400], limits(Some(600), Some(200), 1_000));
        assert_eq!((decision.start, decision.next_due_ms), (Some(Offset::new(10)), Some(100)));
    }

    #[test]
    fn a_clock_that_went_back_deletes_nothing_early() {
        let decision = decide(
            &[Candidate { end: Offset::new(10), bytes: 100 }],
            Candidate { end: Offset::new(20), bytes: 100 },
            &limits(Some(600), None, 1_000),
            NOW,
            |_| Ok(Some(Timestamp::from_millis(NOW.as_millis() + 5_000))),
        );
        assert_eq!(decision.unwrap(), Decision { next_due_ms: Some(600), ..Decision::default() });
    }
}
