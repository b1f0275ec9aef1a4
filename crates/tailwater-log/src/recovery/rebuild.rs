//! Carries out a recovery: what may not be durable is copied into a new segment of a higher epoch.
//!
//! - The order is: quarantine, copy under a temporary name, sync, rename, directory sync, new checkpoint, directory
//!   sync; only then is anything unlinked.
//! - Bytes are never rewritten in place: after a failed sync a kernel can report success for pages that it has dropped
//!   (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use std::path::PathBuf;
use std::sync::Arc;

use super::scan::Place;
use super::survey::Survey;
use super::{Facts, OpenContext, TornTail};
use crate::format::{Checkpoint, SEGMENT_DATA_START, SegmentHeader, SegmentSummary};
use crate::limits::MIB;
use crate::log::{CheckpointFile, ScanPoint};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{BatchWalk, NewSegment, Segment, SegmentCopy, Step, file_name};
use crate::storage::{EntryKind, FileHandle, create_temporary};
use crate::{Error, FilePosition, LogEpoch, Offset, Result};

/// The directory for bytes that were cut off.
pub(crate) const QUARANTINE_NAME: &str = "quarantine";
const TEMPORARY_NAME: &str = "recovery.tmp";

/// Up to this size, in bytes, the whole segment that the durable mark falls in is copied, under its own name: a loop of
/// crashes then does not leave a file each.
const WHOLE_COPY_BYTES: u64 = 4 * MIB as u64;
/// How much is collected before it is written to the copy, in bytes.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// The log after its recovery was committed.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: FileHandle,
    pub(crate) header: SegmentHeader,
    pub(crate) allocated: u64,
    pub(crate) checkpoint: CheckpointFile,
    pub(crate) point: ScanPoint,
    pub(crate) torn_tail: Option<TornTail>,
    pub(crate) removed_files: Vec<PathBuf>,
    pub(crate) is_littered: bool,
}

/// Rebuilds the log that `facts` describe.
pub(crate) fn rebuild(context: &OpenContext<'_>, survey: &Survey, facts: &Facts) -> Result<Rebuilt> {
    let mut epoch = facts.highest_epoch.checked_next().ok_or(Error::Exhausted { what: "epochs" })?;
    if is_planted(Mistake::RecoveryKeepsEpoch) {
        epoch = facts.highest_epoch;
    }
    if is_planted(Mistake::RecoverInPlace) {
        return go_on_in_place(context, survey, facts);
    }
    let header = SegmentHeader {
        identity: context.identity,
        epoch,
        epoch_start: facts.scan.end.offset,
        salt: context.storage.random(),
        created: context.clock.now(),
        compacted: None,
    };
    let (torn_tail, kept) = keep_tail(context, facts, epoch.get())?;
    let is_quarantined = kept.is_ok();

    let mut copy = copy_tail(context, facts, header)?;
    let base = copy.base;
    let is_replacing = survey.bases.binary_search(&base).is_ok();
    if is_replacing && let Err(error) = kept {
        // The rename would destroy bytes of which there is no copy.
        return Err(copy.new.discard(context.storage, error));
    }
    let synced = if is_planted(Mistake::RecoveryForgetsSync) { Ok(()) } else { copy.new.sync() };
    let committed = synced
        .and_then(|()| copy.new.publish(context.storage, context.directory, base))
        .and_then(|()| match is_planted(Mistake::UnlinkBeforeCommit) {
            true => Ok(()),
            false => context.storage.sync_directory(context.directory),
        });
    committed.map_err(|error| copy.new.discard(context.storage, error))?;

    let point = ScanPoint { base, position: copy.end, offset: facts.scan.end.offset };
    let checkpoint = replace_checkpoint(context, survey, facts, epoch, point)?;

    // The log is recovered; what follows is housekeeping.
    let mut removed_files = survey.remove_temporaries(context);
    let is_live =
        |kept: Offset| kept == base || (kept < base && facts.live.iter().any(|live| live.named.base == kept));
    let garbage: Vec<PathBuf> = survey
        .bases
        .iter()
        .filter(|kept| !is_live(**kept))
        .map(|kept| context.directory.join(file_name(*kept)))
        .collect();
    let mut is_littered = false;
    if !garbage.is_empty() {
        let removed = match is_quarantined {
            true => garbage
                .iter()
                .try_for_each(|path| context.storage.remove_file(path))
                .and_then(|()| context.storage.sync_directory(context.directory)),
            false => Ok(()),
        };
        is_littered = removed.is_err() || !is_quarantined;
        match removed {
            Ok(()) if is_quarantined => removed_files.extend(garbage),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "superseded segments stay until the next recovery"),
        }
    }
    let (file, allocated) = (Arc::clone(&copy.new.file), copy.new.allocated.max(copy.end.get()));
    let read_mode = context.config.read_mode;
    let segment = copy.new.into_segment(context.directory, base, read_mode, copy.end, copy.summary);
    Ok(Rebuilt { segment, file, header, allocated, checkpoint, point, torn_tail, removed_files, is_littered })
}

/// Puts a dirty checkpoint in place, durably, that says that the log ends at `point`.
fn replace_checkpoint(
    context: &OpenContext<'_>,
    survey: &Survey,
    facts: &Facts,
    epoch: LogEpoch,
    point: ScanPoint,
) -> Result<CheckpointFile> {
    let latest = survey.checkpoint.map(|found| found.newest.latest_append_time);
    let checkpoint = Checkpoint {
        identity: context.identity,
        sequence: 0,
        is_dirty: true,
        epoch,
        log_start: facts.log_start,
        durable: point.offset,
        scan_base: point.base,
        scan_position: point.position,
        scan_offset: point.offset,
        latest_append_time: facts.scan.latest_append_time.max(latest).unwrap_or_default(),
        // It is dirty: no names go with it.
        segment_names_crc: 0,
        // So it is for the epoch.
        generation: 0,
    };
    let replaced = CheckpointFile::replace(context.storage, context.directory, checkpoint)?;
    context.storage.sync_directory(context.directory)?;
    Ok(replaced)
}

/// The log as it is, to be appended to behind its last good batch: [`Mistake::RecoverInPlace`].
#[cold]
fn go_on_in_place(context: &OpenContext<'_>, survey: &Survey, facts: &Facts) -> Result<Rebuilt> {
    let end = facts.scan.end;
    let base = facts.live[end.index].named.base;
    let Some((file, opened)) = super::survey::open_active(context, base)? else {
        return Err(Error::Closed);
    };
    let point = ScanPoint { base, position: end.position, offset: end.offset };
    let checkpoint = replace_checkpoint(context, survey, facts, facts.highest_epoch, point)?;
    let (header, allocated) = (opened.header, file.length()?);
    let segment = Arc::new(Segment::opened(context.directory, base, opened, end.position, None));
    Ok(Rebuilt {
        segment,
        file,
        header,
        allocated,
        checkpoint,
        point,
        torn_tail: None,
        removed_files: Vec::new(),
        is_littered: false,
    })
}

/// A copy of the end of the log under a temporary name.
struct Copy {
    new: NewSegment,
    base: Offset,
    end: FilePosition,
    summary: SegmentSummary,
}

/// Copies what may not be durable, and a little more where that saves a file.
fn copy_tail(context: &OpenContext<'_>, facts: &Facts, header: SegmentHeader) -> Result<Copy> {
    let mark = facts.durable_mark;
    let index = facts.live.iter().rposition(|live| live.named.base <= mark).unwrap_or(0);
    let start = Place { index, position: SEGMENT_DATA_START, offset: facts.live[index].named.base };
    if size_from(facts, start)? <= WHOLE_COPY_BYTES
        && let Some(copy) = copy_from(context, facts, header, start)?
    {
        return Ok(copy);
    }
    // Something below the durable mark is damaged. It stays where it is, to be reported to whoever reads it.
    let start = batch_at(facts, index, mark)?;
    match copy_from(context, facts, header, start)? {
        Some(copy) => Ok(copy),
        // The scan has verified these very bytes.
        None => {
            let live = &facts.live[start.index];
            let kind = crate::CorruptionKind::MissingBatch;
            let offsets = crate::OffsetRange { start: start.offset, end: facts.scan.end.offset };
            Err(super::corruption(live.segment.path(), start.position, offsets, kind))
        }
    }
}

/// How many bytes lie between `start` and the end of the log, at most.
fn size_from(facts: &Facts, start: Place) -> Result<u64> {
    let end = facts.scan.end;
    let mut size = end.position.get();
    for live in &facts.live[start.index..end.index.max(start.index)] {
        size += live.opened.file.length()?;
    }
    Ok(size - start.position.get().min(size))
}

/// The place of the batch that holds `offset`, or where it would begin, in the live segment at `index`.
fn batch_at(facts: &Facts, index: usize, offset: Offset) -> Result<Place> {
    let live = &facts.live[index];
    let mut place = Place { index, position: SEGMENT_DATA_START, offset: live.named.base };
    if facts.scan_from.index == index && facts.scan_from.offset <= offset {
        place = facts.scan_from;
    }
    let end = FilePosition::new(live.opened.file.length()?);
    let mut walk = BatchWalk::headers_only(&live.opened, place.position, end);
    while place.offset < offset {
        match walk.next(place.offset)? {
            Step::Batch(batch) if batch.header.next_offset() <= offset => {
                place.offset = batch.header.next_offset();
                place.position = walk.position();
            }
            _ => break,
        }
    }
    Ok(place)
}

/// Copies the batches from `start` to the end of the log into a new file, checking each. `None` if one does not verify.
fn copy_from(
    context: &OpenContext<'_>,
    facts: &Facts,
    header: SegmentHeader,
    start: Place,
) -> Result<Option<Copy>> {
    let new = NewSegment::create(context.storage, &context.directory.join(TEMPORARY_NAME), header, None)?;
    match fill_copy(facts, &new, start) {
        Ok(Some((summary, end))) => Ok(Some(Copy { new, base: start.offset, end, summary })),
        Ok(None) => Ok(None),
        Err(error) => Err(new.discard(context.storage, error)),
    }
}

fn fill_copy(
    facts: &Facts,
    new: &NewSegment,
    start: Place,
) -> Result<Option<(SegmentSummary, FilePosition)>> {
    let end = facts.scan.end;
    let mut copy = SegmentCopy::new(new, start.offset);
    let mut place = start;
    while place.offset < end.offset {
        let live = &facts.live[place.index];
        let until = FilePosition::new(live.opened.file.length()?);
        let mut walk = BatchWalk::new(&live.opened, place.position, until);
        while place.offset < live.end.min(end.offset) {
            let Step::Batch(batch) = walk.next(place.offset)? else { return Ok(None) };
            copy.add_batch(&batch, walk.batch_bytes(&batch)?)?;
            place.offset = batch.header.next_offset();
        }
        place = Place { index: place.index + 1, position: SEGMENT_DATA_START, offset: place.offset };
    }
    copy.finish().map(Some)
}

/// Copies the bytes behind the end of the log to `quarantine/`. The second of the pair tells why that failed: nothing may
/// then be unlinked.
fn keep_tail(context: &OpenContext<'_>, facts: &Facts, epoch: u32) -> Result<(Option<TornTail>, Result<()>)> {
    let Some((first, position)) = facts.scan.tails.first().copied() else { return Ok((None, Ok(()))) };
    let mut torn = TornTail {
        file: facts.live[first].segment.path().to_owned(),
        position,
        size_bytes: 0,
        quarantined: Vec::new(),
    };
    for (index, position) in &facts.scan.tails {
        let (_, size) = tail_bytes(facts, *index, *position, None)?;
        torn.size_bytes += size;
    }
    let kept = write_quarantine(context, facts, epoch, &mut torn.quarantined);
    if let Err(error) = &kept {
        tracing::warn!(%error, "the torn tail could not be copied; its segments stay");
        torn.quarantined.clear();
    }
    Ok((Some(torn), kept))
}

fn write_quarantine(
    context: &OpenContext<'_>,
    facts: &Facts,
    epoch: u32,
    quarantined: &mut Vec<PathBuf>,
) -> Result<()> {
    let directory = context.directory.join(QUARANTINE_NAME);
    if context.storage.entry_kind(&directory)? != Some(EntryKind::Directory) {
        context.storage.create_directory(&directory)?;
    }
    for (index, position) in &facts.scan.tails {
        let base = facts.live[*index].named.base.get();
        // The name tells where the bytes were; a recovery that is repeated writes the same file again.
        let path = directory.join(format!("{base:020}-{position}-epoch-{epoch}.bytes"));
        let file = create_temporary(context.storage, &path)?;
        tail_bytes(facts, *index, *position, Some(&file))?;
        file.sync_all()?;
        quarantined.push(path);
    }
    context.storage.sync_directory(&directory)?;
    context.storage.sync_directory(context.directory)
}

/// The size of a tail without the zeros at its end, and its bytes copied to `copy`.
fn tail_bytes(
    facts: &Facts,
    index: usize,
    start: FilePosition,
    copy: Option<&FileHandle>,
) -> Result<(FilePosition, u64)> {
    let file = &facts.live[index].opened.file;
    let mut window = vec![0; COPY_BUFFER_BYTES];
    let (mut position, mut end) = (start, start);
    loop {
        let count = file.read_full_at(&mut window, position)?;
        if let Some(last) = window[..count].iter().rposition(|byte| *byte != 0) {
            end = position.plus(last as u64 + 1);
            if let Some(copy) = copy {
                let at = FilePosition::new(position.get() - start.get());
                copy.write_all_at(&window[..=last], at)?;
            }
        }
        if count < window.len() {
            return Ok((end, end.get() - start.get()));
        }
        position = position.plus(count as u64);
    }
}
