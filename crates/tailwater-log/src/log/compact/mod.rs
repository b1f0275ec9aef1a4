//! Compacting a log: one at a time, beside appends and readers.
//!
//! - Segments are read and written without the writer; publishing what was written takes it for a rename, and again for the
//!   unlinking of what that took the place of.
//! - Nothing is published but in the place of segments that are still part of the log.
//! - The clean mark of a close comes after the compaction that was under way has ended.

mod pass;
mod publish;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::Log;
use super::inner::Inner;
use crate::compaction::{LastPass, Plan, SegmentFacts, plan};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::Segment;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Offset, Result, Timestamp};
use pass::{Pass, Source};

/// What a compaction may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CompactionLimits {
    /// Tombstones from this offset on stay: to be the lowest position, as durable on disk, of those readers that have to see
    /// every tombstone. Default: no such reader.
    pub held: Offset,
    /// Whether nothing is done unless it is due by `min_cleanable_dirty_percent`, `max_compaction_lag_ms`, or tombstones
    /// whose time is over: default false.
    pub only_if_due: bool,
}

impl Default for CompactionLimits {
    fn default() -> Self {
        Self { held: Offset::MAX, only_if_due: false }
    }
}

/// How a compaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum CompactionOutcome {
    /// There was nothing to do: all is clean, nothing was due, or the log is not compacted by its configuration.
    #[default]
    Nothing,
    /// All that may be cleaned is clean.
    Done,
    /// The caller asked it to stop, or the log was closed. What was finished by then stays.
    Stopped,
    /// A truncation or a deletion came between. What was finished by then stays; the next one goes on.
    Overtaken,
    /// Another compaction of this log is under way.
    Busy,
}

/// What a compaction did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CompactionReport {
    /// How it ended.
    pub outcome: CompactionOutcome,
    /// How often it went through the log: once, unless there were more keys than `compaction_map_bytes` has room for.
    pub passes: u64,
    /// Segments that others took the place of.
    pub segments_in: u64,
    /// Those others.
    pub segments_out: u64,
    /// Size of the former, in bytes.
    pub bytes_before: u64,
    /// Size of the latter, in bytes.
    pub bytes_after: u64,
    /// Records that were removed, tombstones included.
    pub records_removed: u64,
    /// Tombstones that were removed because their time was over.
    pub tombstones_removed: u64,
    /// Below this, no record has a later one of its key, but for what was left alone.
    pub cleaned_end: Offset,
    /// Segments that could not be read, or whose batches fail their checks. They stay as they are.
    pub left_alone: Vec<LeftAlone>,
}

/// A segment that a compaction has left as it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeftAlone {
    /// Its file.
    pub file: PathBuf,
    /// Why: [`Error::Corrupt`], [`Error::Unsupported`] or [`Error::Io`].
    pub error: Error,
}

/// How clean a log is, and what compaction has done since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Size of the segments that have not been cleaned, in bytes; of one that has been in part, all of it. 0 for a log that
    /// is not compacted by its configuration.
    pub dirty_bytes: u64,
    /// Below this, everything has been cleaned, or was left alone.
    pub cleaned_end: Offset,
    /// Segments that are left alone since they are damaged or need a newer version.
    pub segments_left_alone: u64,
    /// Compactions that did something.
    pub compactions: u64,
    /// Compactions that ended with an error: see [`Log::compaction_error`](crate::Log::compaction_error).
    pub failures: u64,
    /// Records removed.
    pub records_removed: u64,
    /// Bytes by which segments have become smaller.
    pub bytes_freed: u64,
}

/// What a log remembers of its compactions.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Held by the one that is under way.
    running: Mutex<Memory>,
    /// Asks it to stop.
    is_stopped: AtomicBool,
    told: Mutex<Told>,
}

/// What one compaction leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    last_pass: Option<LastPass>,
}

#[derive(Debug, Default)]
struct Told {
    stats: CompactionStats,
    error: Option<Arc<Error>>,
}

/// Why a pass ends before its end.
#[derive(Debug)]
enum Halt {
    Stopped,
    Overtaken,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Failed(error)
    }
}

type Halted<T> = Result<T, Halt>;

impl Compaction {
    /// Has the compaction that is under way stop, and keeps others from starting as long as what is returned lives.
    pub(crate) fn stop(&self) -> MutexGuard<'_, Memory> {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Only numbers are changed while this is held.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Removes records that have a later one of the same key, and tombstones whose time is over, where `cleanup_policy` says
    /// so. Offsets, order and times of what stays are unchanged; readers see the end of what was cleaned as before, and
    /// appends go on meanwhile.
    ///
    /// Cleaned are segments that take no appends any more, are durable, and whose newest record is older than
    /// `min_compaction_lag_ms`. A tombstone stays until `delete_retention_ms` have passed since all older records of its key
    /// were removed, and it lies below [`CompactionLimits::held`].
    ///
    /// `pace` is told again and again how many bytes more were read and written; it may sleep, and stops the compaction with
    /// `Break`. It must not close the log. One compaction at a time: the others answer [`CompactionOutcome::Busy`].
    ///
    /// A segment that cannot be read, or whose batches fail their checks, is left as it is and reported. Batches that cannot
    /// be looked into (opaque ones, unknown codecs) stay, and so do records without a key.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`], [`Error::Io`]: what was finished by then stays, and appends go on. [`Error::Failed`] where a sync
    /// of names failed, as for any log. [`Error::Closed`], [`Error::ReadOnly`], [`Error::Corrupt`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::sync::Arc;
    /// use tailwater_log::storage::SimDisk;
    /// use tailwater_log::*;
    ///
    /// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
    /// let mut options = LogOptions::new(identity);
    /// options.config.cleanup_policy = CleanupPolicy::Compact;
    /// let log = Log::create(Arc::new(SimDisk::new(1)), "/prices-0".as_ref(), options)?;
    /// for (product, price) in [("espresso", "2.00"), ("tea", "2.50"), ("espresso", "2.20")] {
    ///     let record = NewRecord { key: Some(product.as_bytes()), ..NewRecord::new(price.as_bytes()) };
    ///     log.append(&[record], None, WhenFull::Wait)?;
    /// }
    /// log.roll()?;
    /// log.sync()?;
    ///
    /// let report = log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(()))?;
    /// assert_eq!((report.outcome, report.records_removed), (CompactionOutcome::Done, 1));
    /// let fetched = log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None)?;
    /// let left: Vec<_> = fetched.iter().map(|record| (record.offset().get(), record.value())).collect();
    /// assert_eq!(left, [(1, Some(b"2.50".as_slice())), (2, Some(b"2.20".as_slice()))]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn compact(
        &self,
        limits: &CompactionLimits,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<CompactionReport> {
        self.inner.compact(limits, pace)
    }

    /// Whether [`Log::compact`] with [`CompactionLimits::only_if_due`] would do something now. `held` is as there. False
    /// while a compaction is under way.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and why this log is not written to.
    pub fn is_compaction_due(&self, held: Offset) -> Result<bool> {
        self.inner.is_compaction_due(held)
    }

    /// Why the latest compaction that did something failed, or left a segment alone; `None` if it did neither.
    #[must_use]
    pub fn compaction_error(&self) -> Option<Arc<Error>> {
        self.inner.compaction_error()
    }
}

impl Inner {
    fn compact(
        &self,
        limits: &CompactionLimits,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<CompactionReport> {
        self.writer()?;
        let mut memory = match self.compaction.running.try_lock() {
            Ok(memory) => memory,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                return Ok(CompactionReport {
                    outcome: CompactionOutcome::Busy,
                    ..CompactionReport::default()
                });
            }
        };
        self.failure.check()?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let mut report = CompactionReport::default();
        let ended = self.run_passes(limits, &mut memory, pace, &mut report);
        let mut told = self.compaction.told();
        told.stats.compactions += u64::from(report.passes > 0);
        told.stats.records_removed += report.records_removed;
        told.stats.bytes_freed += report.bytes_before.saturating_sub(report.bytes_after);
        let error = match ended {
            Ok(()) => None,
            Err(Halt::Stopped) => {
                report.outcome = CompactionOutcome::Stopped;
                None
            }
            Err(Halt::Overtaken) => {
                report.outcome = CompactionOutcome::Overtaken;
                None
            }
            Err(Halt::Failed(error)) => Some(error),
        };
        told.stats.failures += u64::from(error.is_some());
        if report.passes > 0 || error.is_some() {
            let left_alone = || report.left_alone.first().map(|left| left.error.clone());
            told.error = error.clone().or_else(left_alone).map(Arc::new);
        }
        drop(told);
        match error {
            Some(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "a compaction failed");
                Err(error)
            }
            None => {
                if report.passes > 0 {
                    tracing::debug!(directory = %self.directory.display(), ?report, "compacted");
                }
                Ok(report)
            }
        }
    }

    fn run_passes(
        &self,
        limits: &CompactionLimits,
        memory: &mut Memory,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
        report: &mut CompactionReport,
    ) -> Halted<()> {
        let config = self.config.load_full();
        if !config.cleanup_policy.is_compacted() {
            return Ok(());
        }
        self.seal_for_compaction()?;
        loop {
            let sources = self.sources()?;
            let now = self.now();
            let facts = facts_in(&sources);
            let plan = plan(&facts, now, limits.held, &config, memory.last_pass);
            report.cleaned_end = cleaned_end(&facts);
            if !plan.has_work || (report.passes == 0 && limits.only_if_due && !plan.is_due) {
                break;
            }
            report.passes += 1;
            for source in &sources[..plan.segment_count] {
                let file = source.segment.path();
                if let Some(error) = source.error.clone()
                    && report.left_alone.iter().all(|left| left.file != file)
                {
                    report.left_alone.push(LeftAlone { file: file.to_owned(), error });
                }
            }
            let Plan { segment_count, most_keys, .. } = plan;
            let sources = &sources[..segment_count];
            let mut pass = Pass::new(self, &config, sources, most_keys, limits.held, pace, report);
            let is_whole = pass.run()?;
            memory.last_pass = Some(LastPass { at: now, held: limits.held });
            if is_whole {
                report.cleaned_end = cleaned_end(&facts_in(&self.sources()?));
                break;
            }
        }
        if report.passes > 0 {
            report.outcome = CompactionOutcome::Done;
        }
        Ok(())
    }

    /// Seals what was rolled, where all of it is durable.
    fn seal_for_compaction(&self) -> Result<()> {
        let slot = self.writer()?;
        let lacks_name = {
            let writer = slot.take();
            !writer.unsealed.is_empty() && writer.is_roll_blocked() && writer.written <= self.ends.durable()
        };
        if lacks_name {
            // Nothing but the name of its successor, which the next append would see to.
            let leader = self.commit.lead();
            self.sync_leading(&leader)?;
        }
        slot.take().seal_rolled(self).map(drop)
    }

    /// The segments that take no appends any more and are durable, with what is known of them.
    fn sources(&self) -> Result<Vec<Source>> {
        let sealed_end = {
            let writer = self.writer()?.take();
            let unsealed = writer.unsealed.front().map(|unsealed| unsealed.segment.base);
            unsealed.unwrap_or(writer.active.base)
        };
        self.sources_up_to(sealed_end.min(self.ends.durable()))
    }

    fn sources_up_to(&self, sealed_end: Offset) -> Result<Vec<Source>> {
        let segments = self.segments.load_full();
        let mut sources = Vec::with_capacity(segments.len());
        for (index, segment) in segments.iter().enumerate().take(segments.len() - 1) {
            let end = segments.end_of(index);
            if end > sealed_end && !is_planted(Mistake::CompactionTrustsUnsynced) {
                break;
            }
            let (facts, error) = self.facts_of(segment, end)?;
            sources.push(Source { segment: Arc::clone(segment), facts, error });
        }
        Ok(sources)
    }

    /// What is known of a segment, or why it is to be left alone.
    fn facts_of(&self, segment: &Segment, end: Offset) -> Result<(SegmentFacts, Option<Error>)> {
        let context = self.segment_context(end);
        let mut facts = SegmentFacts {
            base: segment.base,
            end,
            size_bytes: 0,
            cleaned_end: segment.base,
            next_horizon: None,
            append_times: None,
            record_count: 0,
            // An index tells so many offsets apart.
            is_left_alone: segment.is_left_alone() || end.since(segment.base) > u64::from(u32::MAX),
        };
        let looked = segment.compacted(&context).and_then(|compacted| {
            facts.size_bytes = segment.length(&context, true)?;
            if let Some(compacted) = compacted {
                facts.cleaned_end = compacted.cleaned_end.clamp(segment.base, end);
                facts.next_horizon = compacted.next_horizon;
            }
            if facts.is_dirty() {
                let figures = segment.figures(&context)?;
                (facts.append_times, facts.record_count) = (figures.append_times, figures.record_count);
            }
            Ok(())
        });
        match looked {
            // Whoever reads it is told; here it only is in nobody's way.
            Err(error @ (Error::Corrupt(_) | Error::Unsupported { .. })) => {
                facts.is_left_alone = true;
                Ok((facts, Some(error)))
            }
            looked => looked.map(|()| (facts, None)),
        }
    }

    /// Whether [`Inner::compact`] with `only_if_due` would do anything.
    fn is_compaction_due(&self, held: Offset) -> Result<bool> {
        let config = self.config.load_full();
        if !config.cleanup_policy.is_compacted() {
            return Ok(false);
        }
        let Ok(memory) = self.compaction.running.try_lock() else { return Ok(false) };
        // What is rolled and durable is sealed then.
        let sources = self.sources_up_to(self.ends.durable())?;
        Ok(plan(&facts_in(&sources), self.now(), held, &config, memory.last_pass).is_due)
    }

    pub(crate) fn compaction_stats(&self) -> Result<CompactionStats> {
        let mut stats = self.compaction.told().stats;
        if self.config.load().cleanup_policy.is_compacted() {
            let segments = self.segments.load_full();
            let mut facts = Vec::with_capacity(segments.len());
            for (index, segment) in segments.iter().enumerate() {
                let end = segments.end_of(index);
                let context = self.segment_context(end);
                if end == Offset::MAX {
                    stats.dirty_bytes += segment.data_end().map_or(0, |end| end.get());
                    continue;
                }
                facts.push(self.facts_of(segment, end)?.0);
                if facts.last().is_some_and(SegmentFacts::is_dirty) {
                    stats.dirty_bytes += segment.length(&context, true)?;
                }
            }
            stats.segments_left_alone = facts.iter().filter(|facts| facts.is_left_alone).count() as u64;
            stats.cleaned_end = cleaned_end(&facts);
        }
        Ok(stats)
    }

    fn compaction_error(&self) -> Option<Arc<Error>> {
        self.compaction.told().error.clone()
    }
}

fn facts_in(sources: &[Source]) -> Vec<SegmentFacts> {
    sources.iter().map(|source| source.facts).collect()
}

/// Up to where all is clean, or was left alone.
fn cleaned_end(segments: &[SegmentFacts]) -> Offset {
    let dirty = segments.iter().find(|segment| segment.is_dirty()).map(|segment| segment.cleaned_end);
    dirty.or_else(|| segments.last().map(|segment| segment.end)).unwrap_or_default()
}

/// Tombstones that are settled now stay until this time.
fn horizon(now: Timestamp, delete_retention_ms: u64) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add_unsigned(delete_retention_ms))
}
