//! One pass of a compaction: the last offset of each key is found out, and then segments are written anew, from the oldest up.
//!
//! - A segment is published before the next is begun: where a tombstone gets its time, all older records of its key are gone.
//! - A segment that cannot be read, or whose batches fail their checks, stays as it is, and so do the tombstones above it that
//!   have no time yet: an older record of their key may be in it.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::publish::Group;
use super::{CompactionReport, Halt, Halted, LeftAlone, horizon};
use crate::compaction::{
    Cleaner, Content, KeyMap, Outcome, Output, SegmentFacts, content, offset_of, records,
};
use crate::error::CorruptionKind;
use crate::format::{self, BatchHeader, HeaderFault, MalformedRecord, SEGMENT_DATA_START};
use crate::limits::{MAX_BATCH_BYTES, MAX_SEGMENT_BYTES};
use crate::log::inner::Inner;
use crate::log::kind_of;
use crate::segment::{BatchFault, BatchWalk, NewSegment, Segment, Step};
use crate::sync::atomic::Ordering;
use crate::{Error, FilePosition, LogConfig, Offset, OffsetRange, Timestamp};

/// The temporary name of the segment that is written.
const COMPACTED_SEGMENT_NAME: &str = "compaction.tmp";
/// How often the caller is asked whether to go on, in bytes.
const PACE_BYTES: u64 = 64 * crate::limits::KIB as u64;
/// How long a segment may become, in bytes, by what is noted in its batches.
const MOST_BYTES: u64 = MAX_SEGMENT_BYTES as u64 + MAX_BATCH_BYTES as u64;

/// A segment to be compacted.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) segment: Arc<Segment>,
    pub(super) facts: SegmentFacts,
    /// Why it is left alone, if that is known.
    pub(super) error: Option<Error>,
}

/// How the reading of a segment ended.
enum Read {
    /// With its end.
    Whole,
    /// Earlier, since the reader had enough.
    Enough,
    /// It is left alone.
    LeftAlone,
}

/// What ends the reading of a segment.
enum End {
    Enough,
    Malformed(MalformedRecord),
    Halt(Halt),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Halt(error.into())
    }
}

/// What the copying of a segment added.
#[derive(Default)]
struct Copied {
    records_removed: u64,
    tombstones_removed: u64,
}

pub(super) struct Pass<'p> {
    log: &'p Inner,
    config: &'p LogConfig,
    sources: &'p [Source],
    held: Offset,
    pace: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
    report: &'p mut CompactionReport,
    map: KeyMap,
    /// Up to here the map knows every key of what was dirty; of those that it knows it has the last offset of all.
    map_end: Offset,
    /// Whether all records below what is looked at could be looked at.
    is_complete: bool,
    /// Of the last segment that was copied and had been dirty: its size, and how much that became.
    sizes: (u64, u64),
    unpaced_bytes: u64,
}

impl<'p> Pass<'p> {
    pub(super) fn new(
        log: &'p Inner,
        config: &'p LogConfig,
        sources: &'p [Source],
        most_keys: u64,
        held: Offset,
        pace: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
        report: &'p mut CompactionReport,
    ) -> Self {
        let secret = [log.storage.random(), log.storage.random()];
        let map = KeyMap::new(secret, most_keys, config.compaction_map_bytes.into());
        let map_end = sources.last().map_or(Offset::ZERO, |source| source.facts.end);
        let (is_complete, sizes, unpaced_bytes) = (true, (1, 0), 0);
        Self { log, config, sources, held, pace, report, map, map_end, is_complete, sizes, unpaced_bytes }
    }

    /// Makes the pass. False if the map became full before all was in it, so that another pass is needed.
    pub(super) fn run(&mut self) -> Halted<bool> {
        let is_whole = self.read_keys()?;
        // What could not be read is met again where it stands.
        self.is_complete = true;
        // One that is small and needs nothing, to be joined with the next.
        let mut waiting: Option<usize> = None;
        let mut index = 0;
        while let Some(source) = self.sources.get(index) {
            let waited = waiting.take();
            if source.segment.is_left_alone() || source.facts.is_left_alone {
                self.is_complete = false;
                index += 1;
                continue;
            }
            let has_changes = self.becomes_clean(index) || self.has_changes(index)?;
            if !has_changes && (!self.is_small(index) || waited.is_none()) {
                waiting = Some(index).filter(|_| self.is_small(index));
                index += 1;
                continue;
            }
            let with_waited =
                |waited: &usize| self.size(*waited) + self.likely_size(index) <= self.most_size();
            let first = match waited.filter(with_waited) {
                Some(waited) => waited,
                None if has_changes => index,
                None => {
                    waiting = Some(index);
                    index += 1;
                    continue;
                }
            };
            index = self.rewrite_from(first)?;
        }
        Ok(is_whole)
    }

    /// Finds out the last offset of each key in what is dirty, of as many keys as there is room for. False if there are more.
    fn read_keys(&mut self) -> Halted<bool> {
        let (sources, mut is_whole) = (self.sources, true);
        for (index, source) in sources.iter().enumerate() {
            if !source.facts.is_dirty() {
                continue;
            }
            let from = source.facts.cleaned_end;
            self.read(index, |pass, header, body| {
                if header.next_offset() <= from {
                    return Ok(());
                }
                let Content::Records(body) = content(header, body) else { return Ok(()) };
                for record in records(header, &body) {
                    let (record, _) = record.map_err(End::Malformed)?;
                    let offset = offset_of(header, &record);
                    let Some(key) = record.key().filter(|_| offset >= from) else { continue };
                    let hash = pass.map.hash(key);
                    // From the first key on that finds no room, it goes on for those that have some.
                    if !pass.map.insert(hash, offset) && is_whole {
                        is_whole = false;
                        pass.map_end = offset;
                    }
                }
                Ok(())
            })?;
        }
        if !is_whole {
            tracing::debug!(keys = self.map.count(), "the keys of a log do not fit into one pass");
        }
        Ok(is_whole)
    }

    fn cleaner(&self, now: Timestamp, held: Offset) -> Cleaner<'_> {
        let zstd_level = i32::try_from(self.config.compression_zstd_level).unwrap_or(i32::MAX);
        Cleaner { map: &self.map, now, held, is_complete: self.is_complete, zstd_level }
    }

    /// Whether a segment is dirty and will be less so after this pass.
    fn becomes_clean(&self, index: usize) -> bool {
        let facts = &self.sources[index].facts;
        facts.is_dirty() && facts.cleaned_end < self.map_end
    }

    /// Whether anything of a segment has to go.
    fn has_changes(&mut self, index: usize) -> Halted<bool> {
        let horizon = self.sources[index].facts.next_horizon;
        let now = self.log.now();
        if self.map.is_empty() && horizon.is_none_or(|horizon| horizon > now) {
            return Ok(false);
        }
        let held = self.held;
        let read = self.read(index, |pass, header, body| {
            let cleaner = pass.cleaner(now, held);
            let cleaned = cleaner.clean(header, body, None, 0).map_err(End::Malformed)?;
            pass.is_complete &= !cleaned.is_closed;
            if cleaned.removed_records > 0 { Err(End::Enough) } else { Ok(()) }
        })?;
        Ok(matches!(read, Read::Enough))
    }

    /// Writes a segment anew, and those behind it that fit into the same file. Returns the first that is not in it.
    fn rewrite_from(&mut self, first: usize) -> Halted<usize> {
        let log = self.log;
        let open = self.sources[first].segment.open(&log.segment_context(self.sources[first].facts.end));
        let opened = match open {
            Ok(opened) => opened,
            Err(error) => {
                self.leave_alone(first, error)?;
                return Ok(first + 1);
            }
        };
        let header = super::publish::header_for(log, &opened.header);
        let temporary = log.directory.join(COMPACTED_SEGMENT_NAME);
        let new = log.files.open(|| NewSegment::create(&log.storage, &temporary, header, None))?;
        let discard = |halt: Halt| match halt {
            Halt::Failed(error) => Halt::Failed(new.discard(&log.storage, error)),
            halt => {
                let _ = new.discard(&log.storage, Error::Closed);
                halt
            }
        };
        let Some((group, next)) = self.fill(&new, first).map_err(discard)? else {
            let _ = new.discard(&log.storage, Error::Closed);
            return Ok(first + 1);
        };
        self.check_stop().map_err(discard)?;
        log.publish_compacted(new, &group)?;
        self.report.segments_in += group.inputs.len() as u64;
        self.report.segments_out += 1;
        self.report.bytes_before += group.bytes_before;
        self.report.bytes_after += group.bytes_after;
        self.report.records_removed += group.records_removed;
        self.report.tombstones_removed += group.tombstones_removed;
        Ok(next)
    }

    /// Fills a new segment. `None` if its first source is left alone.
    fn fill(&mut self, new: &NewSegment, first: usize) -> Halted<Option<(Group, usize)>> {
        let base = self.sources[first].facts.base;
        let mut output = Output::new(new, base);
        let mut group = Group::default();
        let mut next = first;
        while next < self.sources.len()
            && (next == first || self.may_join(next, base, output.size_bytes())?)
        {
            let mut before = None;
            if next > first {
                output.flush()?;
                before = Some(output.clone());
            }
            let start = output.size_bytes();
            let mut copied = Copied::default();
            let Source { segment, facts, .. } = &self.sources[next];
            // Held from here on, so that it is this file that is read and replaced.
            let opened = segment.open(&self.log.segment_context(facts.end));
            let (read, opened) = match opened {
                Ok(opened) => (self.copy(next, &mut output, before.is_some(), &mut copied)?, Some(opened)),
                Err(error) => (self.leave_alone(next, error)?, None),
            };
            let (Read::Whole, Some(opened)) = (&read, opened) else {
                let Some(before) = before else { return Ok(None) };
                output = before;
                // One that is left alone is passed over, one that does not fit begins the next file.
                next += usize::from(matches!(read, Read::LeftAlone));
                break;
            };
            if facts.is_dirty() {
                self.sizes = (facts.size_bytes, output.size_bytes() - start);
            }
            group.bytes_before += facts.size_bytes;
            group.records_removed += copied.records_removed;
            group.tombstones_removed += copied.tombstones_removed;
            group.end = facts.end;
            group.inputs.push((Arc::clone(segment), opened));
            next += 1;
        }
        let is_dirty =
            self.sources[first..first + group.inputs.len()].iter().any(|source| source.facts.is_dirty());
        group.cleaned_end = if is_dirty { group.end.min(self.map_end).max(base) } else { group.end };
        group.finish(new, output.finish()?)?;
        Ok(Some((group, next)))
    }

    /// Whether a segment may go into a file that begins at `base` and has so many bytes.
    fn may_join(&mut self, index: usize, base: Offset, size_bytes: u64) -> Halted<bool> {
        let Source { segment, facts, .. } = &self.sources[index];
        let span = facts.end.since(base);
        if facts.is_left_alone
            || segment.is_left_alone()
            || span > u64::from(u32::MAX)
            || size_bytes + self.likely_size(index) > self.most_size()
        {
            return Ok(false);
        }
        Ok(self.becomes_clean(index) || self.is_small(index) || self.has_changes(index)?)
    }

    /// Copies what stays of a segment. It is enough, if it need not fit, when it does not.
    fn copy(
        &mut self,
        index: usize,
        output: &mut Output<'_>,
        must_fit: bool,
        copied: &mut Copied,
    ) -> Halted<Read> {
        let facts = self.sources[index].facts;
        let now = self.log.now();
        let (held, most_size) = (self.held, self.most_size());
        let settled_at = horizon(now, self.config.delete_retention_ms);
        let mut left_bytes = facts.size_bytes;
        self.read(index, |pass, header, body| {
            left_bytes = left_bytes.saturating_sub(header.length_bytes.into());
            let is_new = header.base_offset >= facts.cleaned_end && header.next_offset() <= pass.map_end;
            let settled = Some(settled_at).filter(|_| is_new && pass.is_complete);
            let before_bytes = output.size_bytes();
            let most_bytes = MOST_BYTES.saturating_sub(before_bytes + left_bytes);
            let cleaner = pass.cleaner(now, held);
            let cleaned = cleaner.clean(header, body, settled, most_bytes).map_err(End::Malformed)?;
            match &cleaned.outcome {
                Outcome::Whole => output.add(header, body, cleaned.is_extensible)?,
                Outcome::Changed(header, body) => output.add(header, body, cleaned.is_extensible)?,
                Outcome::Nothing => output.span(header)?,
            }
            if let Some(horizon) = cleaned.horizon {
                output.note_horizon(horizon);
            }
            pass.unpaced_bytes += output.size_bytes().saturating_sub(before_bytes);
            copied.records_removed += cleaned.removed_records;
            copied.tombstones_removed += cleaned.removed_tombstones;
            pass.is_complete &= !cleaned.is_closed;
            if must_fit && output.size_bytes() > most_size { Err(End::Enough) } else { Ok(()) }
        })
    }

    /// Gives each batch of a segment, checked, to `each`, until that has enough.
    fn read(
        &mut self,
        index: usize,
        mut each: impl FnMut(&mut Self, &BatchHeader, &[u8]) -> Result<(), End>,
    ) -> Halted<Read> {
        let sources = self.sources;
        let Source { segment, facts, .. } = &sources[index];
        let opened = segment.open(&self.log.segment_context(facts.end));
        let opened = opened.and_then(|opened| opened.file.length().map(|length| (opened, length)));
        let (opened, length) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.leave_alone(index, error),
        };
        let mut walk = BatchWalk::new(&opened, SEGMENT_DATA_START, FilePosition::new(length));
        let mut offset = segment.base;
        while offset < facts.end {
            let position = walk.position();
            let batch = match walk.next(offset) {
                Ok(Step::Batch(batch)) if batch.header.next_offset() <= facts.end => batch,
                Ok(step) => {
                    let error =
                        why_damaged(segment, position, OffsetRange { start: offset, end: facts.end }, step);
                    return self.leave_alone(index, error);
                }
                Err(error) => return self.leave_alone(index, error),
            };
            let bytes = match walk.batch_bytes(&batch) {
                Ok(bytes) => bytes,
                Err(error) => return self.leave_alone(index, error),
            };
            match each(self, &batch.header, &bytes[batch.header.header_bytes()..]) {
                Ok(()) => {}
                Err(End::Enough) => return Ok(Read::Enough),
                Err(End::Halt(halt)) => return Err(halt),
                Err(End::Malformed(fault)) => {
                    let kind = CorruptionKind::MalformedRecord { index: fault.index };
                    return self
                        .leave_alone(index, segment.corrupt_range(position, batch.header.offsets(), kind));
                }
            }
            offset = batch.header.next_offset();
            self.keep_pace(format::aligned(batch.header.length_bytes.into()))?;
        }
        Ok(Read::Whole)
    }

    /// Notes that a segment stays as it is.
    fn leave_alone(&mut self, index: usize, error: Error) -> Halted<Read> {
        let segment = &self.sources[index].segment;
        if error.is_out_of_files() {
            return Err(error.into());
        }
        if matches!(error, Error::Corrupt(_)) && !self.log.settled_segments().contains(segment) {
            // Its file was removed, or replaced, by what came between.
            return Err(Halt::Overtaken);
        }
        if !matches!(error, Error::Io { .. }) {
            segment.set_left_alone();
        }
        tracing::warn!(file = %segment.path().display(), %error, "compaction leaves a segment alone");
        let file = segment.path().to_owned();
        if self.report.left_alone.iter().all(|left| left.file != file) {
            self.report.left_alone.push(LeftAlone { file, error });
        }
        self.is_complete = false;
        Ok(Read::LeftAlone)
    }

    /// Tells the caller of bytes that were read and written, and asks whether to go on.
    fn keep_pace(&mut self, bytes: u64) -> Halted<()> {
        self.unpaced_bytes += bytes;
        if self.unpaced_bytes < PACE_BYTES {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.unpaced_bytes);
        match (self.pace)(bytes) {
            ControlFlow::Continue(()) => self.check_stop(),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        }
    }

    fn check_stop(&self) -> Halted<()> {
        self.log.failure.check()?;
        match self.log.compaction.is_stopped.load(Ordering::SeqCst) {
            true => Err(Halt::Stopped),
            false => Ok(()),
        }
    }

    fn most_size(&self) -> u64 {
        self.config.roll_bytes().into()
    }

    fn size(&self, index: usize) -> u64 {
        self.sources[index].facts.size_bytes
    }

    /// How large what stays of a segment will be, if it is like the last.
    fn likely_size(&self, index: usize) -> u64 {
        let size = self.size(index);
        if !self.sources[index].facts.is_dirty() {
            return size;
        }
        let (before, after) = self.sizes;
        let likely = u128::from(size) * u128::from(after) / u128::from(before.max(1));
        u64::try_from(likely).unwrap_or(u64::MAX).min(size)
    }

    /// Whether a segment is worth being joined with others though nothing of it has to go.
    fn is_small(&self, index: usize) -> bool {
        self.size(index) <= self.most_size() / 2
    }
}

/// Why no good batch is where one must begin.
fn why_damaged(segment: &Segment, position: FilePosition, offsets: OffsetRange, step: Step) -> Error {
    let kind = match step {
        Step::Bad { fault: BatchFault::Header(HeaderFault::Unsupported(feature)), .. } => {
            return segment.unsupported(offsets, feature);
        }
        Step::Bad { fault: BatchFault::Header(fault), .. } => kind_of(&fault),
        Step::Bad { fault: BatchFault::Body { fault: Some(fault), .. }, .. } => {
            CorruptionKind::ChecksumMismatch { stored: fault.stored, computed: fault.computed }
        }
        Step::Bad { fault: BatchFault::Offset { header }, .. } => {
            CorruptionKind::UnexpectedOffset { found: header.base_offset }
        }
        Step::Batch(batch) => CorruptionKind::UnexpectedOffset { found: batch.header.base_offset },
        Step::Bad { .. } | Step::End => CorruptionKind::MissingBatch,
    };
    segment.corrupt_range(position, offsets, kind)
}
