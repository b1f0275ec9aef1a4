//! Opening a partition: from whatever is in its directory to a log that can be used.
//!
//! - Nothing is repaired in place. What was not known to be durable is copied into a new segment with a higher epoch;
//!   the rename of that segment is the commit. A crash anywhere before repeats the same steps on the same input.
//! - Nothing is unlinked before the commit, and nothing at all when the log is found corrupt.
//! - An I/O error is never taken for damage.
//!
//! The rules and their order are those of `docs/durability.md`, section 4.

mod attach;
mod decide;
mod rebuild;
mod repair;
mod report;
mod scan;
mod survey;

use std::path::Path;
use std::sync::Arc;

pub(crate) use attach::{Attachment, attach};
pub use repair::RepairReport;
pub(crate) use repair::repair;
pub use report::{RecoveryOutcome, RecoveryReport, TornTail};

use crate::error::{Corruption, CorruptionKind};
use crate::format::{Checkpoint, SEGMENT_DATA_START, SegmentHeader, segment_names_checksum};
use crate::log::{CHECKPOINT_NAME, CheckpointFile, ScanPoint, kind_of};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{BatchFault, Segment, SegmentList};
use crate::storage::{FileHandle, Storage};
use crate::{
    Clock, Error, FilePosition, LogConfig, LogEpoch, Offset, OffsetRange, PartitionIdentity, Result,
    Timestamp,
};
use decide::{durable_mark, live_segments};
use scan::{LiveSegment, Place, Scan};
use survey::Survey;

/// What opening needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenContext<'c> {
    pub(crate) storage: &'c Arc<dyn Storage>,
    pub(crate) directory: &'c Path,
    pub(crate) identity: PartitionIdentity,
    pub(crate) config: &'c LogConfig,
    pub(crate) clock: &'c dyn Clock,
}

/// An opened partition.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segments: SegmentList,
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) epoch: LogEpoch,
    /// `None` for a corrupt log.
    pub(crate) active: Option<OpenedActive>,
    pub(crate) report: RecoveryReport,
}

/// The segment that takes appends, and what goes with it.
#[derive(Debug)]
pub(crate) struct OpenedActive {
    pub(crate) file: FileHandle,
    pub(crate) header: SegmentHeader,
    pub(crate) allocated: u64,
    pub(crate) checkpoint: CheckpointFile,
    pub(crate) is_dirty: bool,
    pub(crate) is_littered: bool,
    pub(crate) generation: u32,
    pub(crate) point: ScanPoint,
    pub(crate) latest_append_time: Timestamp,
    pub(crate) active_since: Option<Timestamp>,
}

/// Opens the partition in `context.directory`.
pub(crate) fn open(context: &OpenContext<'_>) -> Result<Opened> {
    let survey = Survey::read(context)?;
    if let Some(opened) = open_clean(context, &survey)? {
        return Ok(opened);
    }
    recover(context, survey)
}

/// The log, if it was closed in order: one directory listing, the checkpoint and one segment header tell.
fn open_clean(context: &OpenContext<'_>, survey: &Survey) -> Result<Option<Opened>> {
    let Some(found) = &survey.checkpoint else { return Ok(None) };
    let mark = found.newest;
    if mark.is_dirty || !found.is_whole || survey.bases.last() != Some(&mark.scan_base) {
        return Ok(None);
    }
    let Some((active_file, opened)) = survey::open_active(context, mark.scan_base)? else { return Ok(None) };
    let is_same = opened.header.identity == context.identity && opened.header.epoch == mark.epoch;
    let mut behind = [0; 64];
    let count = active_file.read_full_at(&mut behind, mark.scan_position)?;
    let is_end = behind[..count].iter().all(|byte| *byte == 0);
    let is_plausible = mark.scan_offset >= mark.scan_base
        && mark.scan_offset == mark.durable
        && mark.segment_names_crc == segment_names_checksum(survey.bases.iter().copied())
        && mark.log_start <= mark.durable
        && mark.scan_position >= SEGMENT_DATA_START
        && mark.scan_position.get() % crate::format::ALIGNMENT == 0;
    // What was closed in order reaches as far as it says: otherwise it was cut short since, and the scan tells what is lost.
    let allocated = active_file.length()?;
    let is_whole = mark.scan_position.get() <= allocated;
    if !is_same
        || !is_end
        || !is_whole
        || !is_plausible
        || survey.bases.first().is_some_and(|base| *base > mark.log_start)
    {
        return Ok(None);
    }
    let header = opened.header;
    let has_records = mark.scan_position > SEGMENT_DATA_START;
    let active = Arc::new(Segment::opened(
        context.directory,
        mark.scan_base,
        opened,
        mark.scan_position,
        (!has_records).then(|| crate::segment::NewSegment::empty_summary(mark.scan_base)),
    ));
    let first = survey.bases.partition_point(|base| *base <= mark.log_start).saturating_sub(1);
    let mut segments: Vec<_> = survey.bases[first..survey.bases.len() - 1]
        .iter()
        .map(|base| Arc::new(Segment::unopened(context.directory, *base)))
        .collect();
    segments.push(active);
    let removed = survey.remove_temporaries(context);
    let mut report = survey.report(RecoveryOutcome::Clean);
    report.epoch = mark.epoch;
    report.log_start_offset = mark.log_start;
    report.log_end_offset = mark.durable;
    report.durable_mark = mark.durable;
    report.removed_files = removed;
    Ok(Some(Opened {
        segments: SegmentList::new(segments),
        start: mark.log_start,
        end: mark.durable,
        epoch: mark.epoch,
        active: Some(OpenedActive {
            file: active_file,
            header,
            allocated,
            checkpoint: CheckpointFile::resume(context.directory, *found),
            is_dirty: false,
            is_littered: false,
            generation: mark.generation,
            point: ScanPoint { base: mark.scan_base, position: mark.scan_position, offset: mark.scan_offset },
            latest_append_time: mark.latest_append_time,
            active_since: has_records.then_some(header.created),
        }),
        report,
    }))
}

/// The log, after anything but a close in order.
fn recover(context: &OpenContext<'_>, survey: Survey) -> Result<Opened> {
    // What is seen from here on must not change under a later crash.
    if let Some(file) = &survey.checkpoint_file {
        file.sync_data()?;
    }
    context.storage.sync_directory(context.directory)?;

    let found = examine(context, &survey)?;
    let facts = match found {
        Examined::Corrupt(opened) => return Ok(*opened),
        Examined::Sound(facts) => facts,
    };
    let rebuilt = rebuild::rebuild(context, &survey, &facts)?;
    Ok(finish(context, &survey, &facts, rebuilt))
}

/// What is in the directory, as far as it can be told without changing anything.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) live: Vec<LiveSegment>,
    pub(crate) log_start: Offset,
    pub(crate) highest_epoch: LogEpoch,
    pub(crate) durable_mark: Offset,
    pub(crate) scan_from: Place,
    pub(crate) scan: Scan,
}

enum Examined {
    Sound(Box<Facts>),
    Corrupt(Box<Opened>),
}

/// Finds out what there is, and whether a log can be rebuilt from it. Changes nothing.
fn examine(context: &OpenContext<'_>, survey: &Survey) -> Result<Examined> {
    if survey.bases.is_empty() {
        return Err(no_segment(context));
    }
    let (named, damaged) = open_all(context, survey)?;
    if let Some((_, error)) = damaged.first() {
        let error = error.clone();
        let bases = damaged.into_iter().map(|(base, _)| base).collect();
        return Ok(Examined::Corrupt(Box::new(corrupt_by_header(context, survey, &named, bases, error)?)));
    }
    let facts = gather(survey, &named, None, durable_mark)?;
    match damage_of(context, &facts) {
        Some(error) => Ok(Examined::Corrupt(Box::new(corrupt(context, survey, facts, error)))),
        None => Ok(Examined::Sound(Box::new(facts))),
    }
}

/// The base of a segment whose header cannot be used, and why.
type DamagedSegment = (Offset, Error);

/// The error for a directory without any segment.
fn no_segment(context: &OpenContext<'_>) -> Error {
    let offsets = OffsetRange { start: Offset::ZERO, end: Offset::ZERO };
    corruption(context.directory, FilePosition::ZERO, offsets, CorruptionKind::MissingSegment)
}

/// Opens all named segments. Those whose header cannot be used come with the error that says why.
fn open_all(context: &OpenContext<'_>, survey: &Survey) -> Result<(Vec<LiveSegment>, Vec<DamagedSegment>)> {
    let (mut named, mut damaged) = (Vec::with_capacity(survey.bases.len()), Vec::new());
    for base in &survey.bases {
        match survey::open_named(context, *base)? {
            Ok(opened) => named.push(opened),
            Err(error) => damaged.push((*base, error)),
        }
    }
    Ok((named, damaged))
}

/// Works out the live segments, the log start, the end and the durable mark (by the rule `mark`). The scan begins where
/// `resume` says, which also knows a mark of an earlier look, or where the checkpoint does.
fn gather(
    survey: &Survey,
    named: &[LiveSegment],
    resume: Option<(ScanPoint, (LogEpoch, Offset))>,
    mark: decide::MarkRule,
) -> Result<Facts> {
    // Also of a file that cannot be used: what was in it is lost, and not below the log start.
    let lowest = survey.bases[0];
    let checkpoint = survey.checkpoint.map(|found| found.newest);
    let is_whole = survey.checkpoint.is_some_and(|found| found.is_whole);
    let recorded_start = checkpoint.map_or(lowest, |mark| mark.log_start);
    // The slot that cannot be read may have recorded a later log start; the files that are left tell.
    let log_start = if is_whole { recorded_start } else { recorded_start.max(lowest) };
    let marks: Vec<_> = named.iter().map(|segment| segment.named).collect();
    let mut live: Vec<LiveSegment> =
        live_segments(&marks, log_start).into_iter().map(|index| named[index].clone()).collect();
    for index in 1..live.len() {
        live[index - 1].end = live[index].named.base;
    }
    if let Some(last) = live.last_mut() {
        last.end = Offset::MAX;
    }
    let highest_epoch = marks
        .iter()
        .map(|segment| segment.epoch)
        .chain(checkpoint.map(|mark| mark.epoch))
        .max()
        .unwrap_or_default();
    let resumed = resume.and_then(|(point, _)| {
        let index = live.iter().position(|segment| segment.named.base == point.base)?;
        Some(Place { index, position: point.position, offset: point.offset })
    });
    let scan_from = match resumed {
        Some(place) => place,
        None => scan_start(&live, checkpoint.as_ref(), &marks)?,
    };
    let scan = scan::scan(&live, scan_from)?;
    let live_marks: Vec<_> = live.iter().map(|segment| segment.named).collect();
    let recorded =
        checkpoint.map(|mark| (mark.epoch, mark.durable)).into_iter().chain(resume.map(|(_, mark)| mark));
    let durable_mark = mark(&live_marks, log_start, &mut scan.marks.iter().copied().chain(recorded));
    Ok(Facts { live, log_start, highest_epoch, durable_mark, scan_from, scan })
}

/// What keeps the log from being rebuilt: records that were durable and are not there.
fn damage_of(context: &OpenContext<'_>, facts: &Facts) -> Option<Error> {
    let first = facts.live[0].named.base;
    if first > facts.log_start {
        let offsets = OffsetRange { start: facts.log_start, end: first };
        let path = context.directory.join(crate::segment::file_name(facts.log_start));
        return Some(corruption(&path, FilePosition::ZERO, offsets, CorruptionKind::MissingSegment));
    }
    let is_cut = facts.scan.end.offset < facts.durable_mark && !is_planted(Mistake::ForgetDurableMark);
    is_cut.then(|| missing_below_mark(facts))
}

/// Where the scan begins: where the checkpoint says, if that is still part of the log, else at the first segment. A file
/// that does not reach so far was cut short, and the scan tells what is lost. Where compaction has made a file since, it
/// begins with that file, which has a footer.
fn scan_start(
    live: &[LiveSegment],
    checkpoint: Option<&Checkpoint>,
    all: &[decide::NamedSegment],
) -> Result<Place> {
    let first = Place { index: 0, position: SEGMENT_DATA_START, offset: live[0].named.base };
    let Some(mark) = checkpoint else { return Ok(first) };
    let is_current =
        all.iter().all(|segment| segment.epoch <= mark.epoch) || is_planted(Mistake::TrustOldScanPoint);
    let covers = |segment: &LiveSegment| {
        let covered = segment.named.base..segment.named.covered_end.unwrap_or_default();
        covered.contains(&mark.scan_base) && !is_planted(Mistake::TrustCompactedScanPoint)
    };
    if is_current && let Some(index) = live.iter().position(covers) {
        return Ok(Place { index, position: SEGMENT_DATA_START, offset: live[index].named.base });
    }
    let index = live.iter().position(|segment| segment.named.base == mark.scan_base);
    Ok(match index {
        Some(index)
            if is_current
                && mark.scan_position.get() <= live[index].opened.file.length()?
                && mark.scan_position >= SEGMENT_DATA_START
                && mark.scan_position.get() % crate::format::ALIGNMENT == 0
                && (mark.scan_base..=live[index].end).contains(&mark.scan_offset) =>
        {
            Place { index, position: mark.scan_position, offset: mark.scan_offset }
        }
        _ => first,
    })
}

/// The error for records below the durable mark that do not verify.
fn missing_below_mark(facts: &Facts) -> Error {
    let end = facts.scan.end;
    let live = &facts.live[end.index];
    let (kind, next) = match &facts.scan.fault {
        Some(BatchFault::Header(fault)) => (kind_of(fault), None),
        Some(BatchFault::Body { header, fault: Some(fault) }) => (
            CorruptionKind::ChecksumMismatch { stored: fault.stored, computed: fault.computed },
            Some(header.next_offset()),
        ),
        Some(BatchFault::Body { header, fault: None }) => {
            (CorruptionKind::MissingBatch, Some(header.next_offset()))
        }
        Some(BatchFault::Offset { header }) => {
            (CorruptionKind::UnexpectedOffset { found: header.base_offset }, None)
        }
        None => (CorruptionKind::MissingBatch, None),
    };
    let until = next.unwrap_or(facts.durable_mark.min(live.end)).max(end.offset);
    let offsets = OffsetRange { start: end.offset, end: until };
    corruption(live.segment.path(), end.position, offsets, kind)
}

fn corruption(
    path: &Path,
    position_bytes: FilePosition,
    offsets: OffsetRange,
    kind: CorruptionKind,
) -> Error {
    Error::Corrupt(Box::new(Corruption { file: path.to_owned(), position_bytes, offsets, kind }))
}

/// A log that is left as it is, since something below its durable mark is damaged.
fn corrupt(context: &OpenContext<'_>, survey: &Survey, facts: Facts, error: Error) -> Opened {
    let mut report = survey.report(RecoveryOutcome::Corrupt);
    report.epoch = facts.highest_epoch;
    report.log_start_offset = facts.log_start;
    report.log_end_offset = facts.scan.highest_seen.max(facts.durable_mark);
    report.durable_mark = facts.durable_mark;
    report.scanned_bytes = facts.scan.scanned_bytes;
    tracing::error!(
        directory = %context.directory.display(),
        %error,
        "the log is damaged and takes no appends"
    );
    report.corruption = Some(error);
    // Where the first segment is missing, whoever reads there is told so: to a reader that is behind, a later log start
    // would look like retention.
    let missing = (facts.live[0].named.base > facts.log_start)
        .then(|| Arc::new(Segment::unopened(context.directory, facts.log_start)));
    let segments = missing.into_iter().chain(facts.live.iter().map(|live| Arc::clone(&live.segment)));
    Opened {
        segments: SegmentList::new(segments.collect()),
        start: report.log_start_offset,
        end: report.log_end_offset,
        epoch: report.epoch,
        active: None,
        report,
    }
}

/// A log with segments whose headers cannot be used, at `damaged`: what the others hold can be read, to the end.
fn corrupt_by_header(
    context: &OpenContext<'_>,
    survey: &Survey,
    named: &[LiveSegment],
    damaged: Vec<Offset>,
    error: Error,
) -> Result<Opened> {
    let mut report = survey.report(RecoveryOutcome::Corrupt);
    let mark = survey.checkpoint.map(|found| found.newest);
    let first = survey.bases[0];
    let last = survey.bases[survey.bases.len() - 1];
    report.epoch = mark.map_or(LogEpoch::FIRST, |mark| mark.epoch);
    report.log_start_offset = mark.map_or(first, |mark| mark.log_start.max(first));
    report.durable_mark = mark.map_or(last, |mark| mark.durable);
    let mut segments: Vec<_> =
        damaged.iter().map(|base| Arc::new(Segment::unopened(context.directory, *base))).collect();
    let mut end = last;
    if !named.is_empty() {
        let facts = gather(survey, named, None, durable_mark)?;
        report.epoch = facts.highest_epoch;
        report.durable_mark = report.durable_mark.max(facts.durable_mark);
        report.scanned_bytes = facts.scan.scanned_bytes;
        end = end.max(facts.scan.highest_seen);
        segments.extend(facts.live.iter().map(|live| Arc::clone(&live.segment)));
        segments.sort_unstable_by_key(|segment| segment.base);
    }
    report.log_end_offset = end.max(report.durable_mark).max(report.log_start_offset);
    tracing::error!(
        directory = %context.directory.display(),
        %error,
        "the log is damaged and takes no appends"
    );
    report.corruption = Some(error);
    Ok(Opened {
        segments: SegmentList::new(segments),
        start: report.log_start_offset,
        end: report.log_end_offset,
        epoch: report.epoch,
        active: None,
        report,
    })
}

/// A log as it is after [`rebuild::rebuild`].
fn finish(context: &OpenContext<'_>, survey: &Survey, facts: &Facts, rebuilt: rebuild::Rebuilt) -> Opened {
    let mut report = survey.report(RecoveryOutcome::Recovered);
    report.epoch = rebuilt.header.epoch;
    report.log_start_offset = facts.log_start;
    report.log_end_offset = facts.scan.end.offset;
    report.durable_mark = facts.durable_mark;
    report.scanned_bytes = facts.scan.scanned_bytes;
    report.torn_tail = rebuilt.torn_tail;
    report.was_checkpoint_rebuilt = survey.checkpoint.is_none_or(|found| !found.is_whole);
    report.damaged_header_copies = facts
        .live
        .iter()
        .filter(|live| live.opened.header_copies != crate::format::HeaderCopies::Both)
        .map(|live| live.segment.path().to_owned())
        .collect();
    report.removed_files = rebuilt.removed_files;
    tracing::info!(
        directory = %context.directory.display(),
        end = %report.log_end_offset,
        epoch = %report.epoch,
        scanned_bytes = report.scanned_bytes,
        torn_bytes = report.torn_tail.as_ref().map_or(0, |tail| tail.size_bytes),
        "recovered a log that was not closed"
    );
    let point = rebuilt.point;
    let kept =
        facts.live.iter().filter(|live| live.named.base < point.base).map(|live| Arc::clone(&live.segment));
    let segments = SegmentList::new(kept.chain([rebuilt.segment]).collect());
    let latest_mark = survey.checkpoint.map(|found| found.newest.latest_append_time);
    Opened {
        segments,
        start: facts.log_start,
        end: point.offset,
        epoch: rebuilt.header.epoch,
        active: Some(OpenedActive {
            file: rebuilt.file,
            header: rebuilt.header,
            allocated: rebuilt.allocated,
            checkpoint: rebuilt.checkpoint,
            is_dirty: true,
            is_littered: rebuilt.is_littered,
            generation: 0,
            point,
            latest_append_time: facts
                .scan
                .latest_append_time
                .max(latest_mark)
                .unwrap_or(Timestamp::from_millis(i64::MIN)),
            active_since: (point.position > SEGMENT_DATA_START).then_some(rebuilt.header.created),
        }),
        report,
    }
}

/// The name of the checkpoint, which is not a segment's.
pub(crate) fn is_own_name(name: &str) -> bool {
    name == CHECKPOINT_NAME
        || name == crate::storage::LOCK_NAME
        || name == rebuild::QUARANTINE_NAME
        || name.ends_with(".tmp")
        || crate::segment::parse_file_name(name).is_some()
}
