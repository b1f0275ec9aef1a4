//! Making a damaged log whole again: what is damaged is set aside, and the log says itself which offsets are lost.
//!
//! - Nothing is deleted: the bytes of every damaged place, and whole files whose header cannot be used, are copied to
//!   `quarantine/` and synced before anything else is changed.
//! - Nothing is changed in place: a damaged segment is written anew under a temporary name, its good batches copied, a
//!   control batch in the place of what is lost, and renamed over the old one.
//! - Every step leaves a log that is damaged in fewer places, or in none. A repair that is interrupted is repeated.

use std::path::{Path, PathBuf};

use super::decide::durable_mark;
use super::rebuild::QUARANTINE_NAME;
use super::scan::LiveSegment;
use super::survey::Survey;
use super::{OpenContext, damage_of, gather, open_all};
use crate::error::{Corruption, CorruptionKind};
use crate::format::{Checkpoint, SEGMENT_DATA_START, SegmentHeader};
use crate::log::CheckpointFile;
use crate::segment::{NewSegment, Piece, Pieces, SegmentCopy, WalkedBatch, file_name, first_nonzero};
use crate::storage::{EntryKind, FileHandle, OpenMode, create_temporary};
use crate::{Error, FilePosition, LogEpoch, Offset, OffsetRange, Result, Timestamp};

const TEMPORARY_NAME: &str = "repair.tmp";

/// The most offsets that a repair fills with what says that they are lost: far more than there are records in a log, far fewer
/// than a file with a senseless name could ask for.
const MAX_LOST_OFFSETS: u64 = 1 << 36;

/// How much is collected before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// What a repair found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was damaged, in the order of the offsets. Empty if there was nothing to repair.
    pub damage: Vec<Corruption>,
    /// The offsets whose records cannot be read any more. Readers are told of them as a gap.
    pub lost: Vec<OffsetRange>,
    /// The files in `quarantine/` that hold what was damaged.
    pub quarantined: Vec<PathBuf>,
    /// The segments that were written anew.
    pub rewritten: Vec<PathBuf>,
}

/// Repairs the log in `context.directory`, so that an open recovers it. Does nothing where nothing is damaged.
pub(crate) fn repair(context: &OpenContext<'_>) -> Result<RepairReport> {
    let survey = Survey::read(context)?;
    // What is seen from here on must not change under a later crash.
    if let Some(file) = &survey.checkpoint_file {
        file.sync_data()?;
    }
    context.storage.sync_directory(context.directory)?;

    let mut repair = Repair { context, report: RepairReport::default() };
    let files = repair.sort_files(&survey)?;
    if files.named.is_empty() {
        repair.begin_anew(&survey, &files.unusable)?;
    } else {
        repair.mend(&survey, &files)?;
    }
    Ok(repair.report)
}

/// The named files of a partition.
struct Files {
    /// Segments with a header that can be used.
    named: Vec<LiveSegment>,
    /// The base offsets of the others, and of those that one of them superseded.
    unusable: Vec<Offset>,
}

struct Repair<'c> {
    context: &'c OpenContext<'c>,
    report: RepairReport,
}

impl Repair<'_> {
    /// Opens all named files.
    fn sort_files(&mut self, survey: &Survey) -> Result<Files> {
        let (named, damaged) = open_all(self.context, survey)?;
        let mut files = Files { named, unusable: Vec::new() };
        for (base, error) in damaged {
            let Error::Corrupt(corruption) = error else { return Err(error) };
            files.unusable.push(base);
            self.report.damage.push(*corruption);
        }
        // The epoch of the first that is unusable is not known. If no other has the checkpoint's epoch, it is the one
        // that had it, and has superseded what follows.
        let highest = files.named.iter().map(|segment| segment.named.epoch).max();
        if let (Some(first), Some(found)) = (files.unusable.first().copied(), survey.checkpoint)
            && highest < Some(found.newest.epoch)
        {
            files
                .unusable
                .extend(files.named.iter().map(|segment| segment.named.base).filter(|base| *base >= first));
            files.named.retain(|segment| segment.named.base < first);
        }
        Ok(files)
    }

    /// Repairs a log of which there is something.
    fn mend(&mut self, survey: &Survey, files: &Files) -> Result<()> {
        let facts = gather(survey, &files.named, None, durable_mark)?;
        let first = facts.live[0].named.base;
        let mut end = match facts.scan.end.offset < facts.durable_mark {
            true => facts.scan.highest_seen.max(facts.durable_mark),
            false => facts.scan.end.offset,
        };
        if files.unusable.last() == Some(&end) {
            // It had a record at least; how many more, nothing tells. Whoever read them finds their epoch ended here.
            end = end.checked_add(1).ok_or(Error::Exhausted { what: "offsets" })?;
        }
        // What lies behind the end is a torn tail, which the next open sets aside.
        let mut live: Vec<_> = facts.live.iter().filter(|live| live.named.base <= end).cloned().collect();
        live.iter_mut().for_each(|live| live.end = live.end.min(end));
        self.cut_ranges(&live);
        if first > facts.log_start
            && let Some(Error::Corrupt(corruption)) = damage_of(self.context, &facts)
        {
            self.report.lost.push(OffsetRange { start: facts.log_start, end: first });
            // What is missing because its file cannot be used was noted with the file.
            if !files.unusable.iter().any(|base| *base < first) {
                self.report.damage.push(*corruption);
            }
        }
        let mut damaged = Vec::new();
        for segment in &live {
            if self.examine(segment, &files.unusable)? {
                damaged.push(segment);
            }
        }
        self.report.damage.sort_by_key(|corruption| corruption.offsets.start);
        if self.report.damage.is_empty() {
            return Ok(());
        }

        // From here on nobody takes the log for one that was closed in order.
        let base = facts.live[0].named.base;
        let latest = survey.checkpoint.map(|found| found.newest.latest_append_time);
        let checkpoint = Checkpoint {
            identity: self.context.identity,
            sequence: 0,
            is_dirty: true,
            epoch: facts.highest_epoch,
            log_start: facts.log_start,
            durable: facts.durable_mark,
            scan_base: base,
            scan_position: SEGMENT_DATA_START,
            scan_offset: base,
            latest_append_time: facts.scan.latest_append_time.max(latest).unwrap_or_default(),
            segment_names_crc: 0,
            generation: 0,
        };
        self.replace_checkpoint(checkpoint)?;
        for segment in damaged {
            self.rewrite(segment)?;
        }
        self.set_aside(&files.unusable)?;
        let lost = OffsetRange { start: facts.log_start, end: first };
        self.fill_front(lost, facts.live[0].opened.header, checkpoint)
    }

    /// Says of files that cannot be used up to where they reach, now that it is known.
    fn cut_ranges(&mut self, live: &[LiveSegment]) {
        let log_end = live.last().map_or(Offset::ZERO, |last| last.end);
        for corruption in &mut self.report.damage {
            let start = corruption.offsets.start;
            let next = live.iter().map(|segment| segment.named.base).find(|base| *base > start);
            corruption.offsets.end = next.unwrap_or(log_end).max(start);
        }
    }

    /// Notes what is damaged in a segment. True if anything is.
    fn examine(&mut self, segment: &LiveSegment, unusable: &[Offset]) -> Result<bool> {
        let mut pieces = Pieces::new(&segment.opened, segment.named.base, segment.end)?;
        let mut is_damaged = false;
        while let Some(piece) = pieces.next()? {
            let Piece::Damage(damage) = piece else { continue };
            is_damaged = true;
            if damage.offsets.count() > MAX_LOST_OFFSETS {
                // A file has this partition's header and a name that cannot be right. Which it should be, a person has to say.
                return Err(super::corruption(
                    segment.segment.path(),
                    damage.position,
                    damage.offsets,
                    damage.kind,
                ));
            }
            OffsetRange::push_joined(&mut self.report.lost, damage.offsets);
            // As above.
            if !unusable.contains(&damage.offsets.start) {
                self.note(segment.segment.path(), damage.position, damage.offsets, damage.kind);
            }
        }
        if let Some(position) = pieces.wrong_footer() {
            is_damaged = true;
            let nothing = OffsetRange { start: segment.named.base, end: segment.named.base };
            self.note(segment.segment.path(), position, nothing, CorruptionKind::MissingBatch);
        }
        Ok(is_damaged)
    }

    fn note(
        &mut self,
        file: &Path,
        position_bytes: FilePosition,
        offsets: OffsetRange,
        kind: CorruptionKind,
    ) {
        self.report.damage.push(Corruption { file: file.to_owned(), position_bytes, offsets, kind });
    }

    fn replace_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        CheckpointFile::replace(self.context.storage, self.context.directory, checkpoint)?;
        self.context.storage.sync_directory(self.context.directory)
    }

    /// Makes a segment that says that `lost` is lost, in front of the segment with the header `next`. Where that would be
    /// senselessly many, the log begins behind them.
    fn fill_front(&mut self, lost: OffsetRange, next: SegmentHeader, checkpoint: Checkpoint) -> Result<()> {
        if lost.start >= lost.end {
            return Ok(());
        }
        if lost.count() > MAX_LOST_OFFSETS {
            return self.replace_checkpoint(Checkpoint { log_start: lost.end, ..checkpoint });
        }
        // It stands for nothing but what is lost.
        let header = SegmentHeader { salt: self.context.storage.random(), compacted: None, ..next };
        self.write_segment(lost.start, header, |_, new| {
            let mut copy = SegmentCopy::new(new, lost.start);
            // Times and epochs never decrease, and what follows may have any.
            copy.add_lost(lost, Timestamp::from_millis(i64::MIN), LogEpoch::FIRST)?;
            copy.finish().map(drop)
        })
    }

    /// Makes the segment at `base`: filled, synced, renamed into place, durable.
    fn write_segment(
        &mut self,
        base: Offset,
        header: SegmentHeader,
        fill: impl FnOnce(&mut Self, &NewSegment) -> Result<()>,
    ) -> Result<()> {
        let context = self.context;
        let temporary = context.directory.join(TEMPORARY_NAME);
        let mut new = NewSegment::create(context.storage, &temporary, header, None)?;
        let committed = fill(self, &new)
            .and_then(|()| new.sync())
            .and_then(|()| new.publish(context.storage, context.directory, base))
            .and_then(|()| context.storage.sync_directory(context.directory));
        committed.map_err(|error| new.discard(context.storage, error))
    }

    /// Puts a segment in the place of a damaged one: its good batches, and what says which offsets are lost.
    fn rewrite(&mut self, segment: &LiveSegment) -> Result<()> {
        let header = SegmentHeader { salt: self.context.storage.random(), ..segment.opened.header };
        self.write_segment(segment.named.base, header, |repair, new| repair.fill(segment, new))?;
        self.report.rewritten.push(segment.segment.path().to_owned());
        Ok(())
    }

    fn fill(&mut self, segment: &LiveSegment, new: &NewSegment) -> Result<()> {
        let mut copy = SegmentCopy::new(new, segment.named.base);
        let mut pieces = Pieces::new(&segment.opened, segment.named.base, segment.end)?;
        let mut last: Option<WalkedBatch> = None;
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Batch(batch) => {
                    copy.add_batch(&batch, pieces.batch_bytes(&batch)?)?;
                    last = Some(batch);
                }
                Piece::Damage(damage) => {
                    self.keep_bytes(segment, damage.position, damage.end)?;
                    // Times and epochs never decrease from batch to batch.
                    let neighbour = last.as_ref().or(pieces.behind()).map(|batch| batch.header);
                    let time = neighbour.map_or(segment.opened.header.created, |header| header.append_time);
                    let epoch = neighbour.map_or(segment.named.epoch, |header| header.log_epoch);
                    copy.add_lost(damage.offsets, time, epoch)?;
                }
            }
        }
        let behind = pieces.position();
        self.keep_bytes(segment, behind, pieces.data_end())?;
        copy.finish()?;
        self.sync_quarantine()
    }

    /// Copies the bytes `[position, end)` of a segment to `quarantine/`, but for zeros at their end.
    fn keep_bytes(&mut self, segment: &LiveSegment, position: FilePosition, end: FilePosition) -> Result<()> {
        let file = &segment.opened.file;
        if first_nonzero(&**file, position, end)?.is_none() {
            return Ok(());
        }
        // The salt is another in every file that ever had this name.
        let (base, salt) = (segment.named.base.get(), segment.opened.header.salt);
        let name = format!("{base:020}-{position}-{salt:016x}.bytes");
        self.keep(file, position, end, &name)
    }

    fn keep(&mut self, file: &FileHandle, start: FilePosition, end: FilePosition, name: &str) -> Result<()> {
        let context = self.context;
        let directory = context.directory.join(QUARANTINE_NAME);
        if context.storage.entry_kind(&directory)? != Some(EntryKind::Directory) {
            context.storage.create_directory(&directory)?;
        }
        let path = directory.join(name);
        let copy = create_temporary(context.storage, &path)?;
        let mut window = vec![0; BUFFER_BYTES];
        let mut position = start;
        while position < end {
            let wanted = usize::try_from(end.get() - position.get()).unwrap_or(usize::MAX).min(window.len());
            let count = file.read_full_at(&mut window[..wanted], position)?;
            let at = FilePosition::new(position.get() - start.get());
            let used = window[..count].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            copy.write_all_at(&window[..used], at)?;
            if count < wanted {
                break;
            }
            position = position.plus(count as u64);
        }
        copy.sync_all()?;
        self.report.quarantined.push(path);
        Ok(())
    }

    /// Makes the names in `quarantine/` durable.
    fn sync_quarantine(&self) -> Result<()> {
        let directory = self.context.directory.join(QUARANTINE_NAME);
        if self.context.storage.entry_kind(&directory)? == Some(EntryKind::Directory) {
            self.context.storage.sync_directory(&directory)?;
            self.context.storage.sync_directory(self.context.directory)?;
        }
        Ok(())
    }

    /// Moves whole files to `quarantine/`. Their names there are durable before those here go.
    fn set_aside(&mut self, bases: &[Offset]) -> Result<()> {
        let context = self.context;
        let mut paths = Vec::new();
        for base in bases {
            let path = context.directory.join(file_name(*base));
            let file = context.storage.open_file(&path, OpenMode::Read)?;
            let end = FilePosition::new(file.length()?);
            let name = format!("{:020}-{:016x}.segment", base.get(), context.storage.random());
            self.keep(&file, FilePosition::ZERO, end, &name)?;
            paths.push(path);
        }
        if paths.is_empty() {
            return Ok(());
        }
        self.sync_quarantine()?;
        paths.iter().try_for_each(|path| context.storage.remove_file(path))?;
        context.storage.sync_directory(context.directory)
    }

    /// Begins a log behind everything that is known of one of which there is no segment left.
    fn begin_anew(&mut self, survey: &Survey, unusable: &[Offset]) -> Result<()> {
        let context = self.context;
        let mark = survey.checkpoint.map(|found| found.newest);
        // Behind the base of the last file too, which had a record at least, and whose name is taken.
        let last = unusable.last().and_then(|base| base.checked_add(1));
        let base = mark.map_or(Offset::ZERO, |mark| mark.durable).max(last.unwrap_or_default());
        let start = mark.map_or(unusable.first().copied().unwrap_or_default(), |mark| mark.log_start);
        let lost = OffsetRange { start: start.min(base), end: base };
        for corruption in &mut self.report.damage {
            corruption.offsets.end = base;
        }
        if self.report.damage.is_empty() {
            let path = context.directory.join(file_name(lost.start));
            self.note(&path, FilePosition::ZERO, lost, CorruptionKind::MissingSegment);
        }
        if lost.start < lost.end {
            self.report.lost.push(lost);
        }
        let epoch = mark.map_or(LogEpoch::FIRST, |mark| mark.epoch);
        let epoch = epoch.checked_next().ok_or(Error::Exhausted { what: "epochs" })?;
        let checkpoint = Checkpoint {
            identity: context.identity,
            sequence: 0,
            is_dirty: true,
            epoch,
            log_start: lost.start,
            durable: base,
            scan_base: base,
            scan_position: SEGMENT_DATA_START,
            scan_offset: base,
            latest_append_time: mark.map_or(Timestamp::from_millis(i64::MIN), |mark| mark.latest_append_time),
            segment_names_crc: 0,
            generation: 0,
        };
        let header = SegmentHeader {
            identity: context.identity,
            epoch,
            epoch_start: base,
            salt: context.storage.random(),
            created: context.clock.now(),
            compacted: None,
        };
        self.write_segment(base, header, |_, _| Ok(()))?;
        self.set_aside(unusable)?;
        self.replace_checkpoint(checkpoint)?;
        self.fill_front(lost, header, checkpoint)
    }
}
