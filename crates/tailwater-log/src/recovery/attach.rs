//! Read-only attachment: what another process writes, seen from outside, without a lock and without writing anything.
//!
//! Safe because the writer changes files only by appending and renaming: what was durable once stays where it is for
//! whoever holds the file. Shown is what lies below the recorded durable marks.

use super::decide::recorded_mark;
use super::scan::LiveSegment;
use super::survey::Survey;
use super::{Facts, OpenContext, Opened, RecoveryOutcome, damage_of, gather, survey};
use crate::error::{Corruption, CorruptionKind};
use crate::log::ScanPoint;
use crate::segment::SegmentList;
use crate::{Error, FilePosition, LogEpoch, Offset, OffsetRange, Result};

/// How often a listing is repeated when files vanish between it and their opening.
const MAX_TRIES: u32 = 20;
/// How often it is repeated when records that are recorded as durable are not in the files that were listed. Where they are
/// damaged, they are missing every time.
const MAX_SHORT_TRIES: u32 = 5;

/// What an attached reader remembers between two looks.
#[derive(Debug, Default)]
pub(crate) struct Attachment {
    segments: Vec<LiveSegment>,
    /// The epoch, and which files compaction has left, as the checkpoint tells.
    history: Option<(LogEpoch, u32)>,
    /// Where the last look ended, and the durable mark it found.
    point: Option<(ScanPoint, (LogEpoch, Offset))>,
}

/// What a look showed.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) segments: SegmentList,
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) epoch: LogEpoch,
}

/// Attaches to the partition in `context.directory`.
pub(crate) fn attach(context: &OpenContext<'_>) -> Result<(Opened, Attachment)> {
    let mut attachment = Attachment::default();
    let (survey, facts) = attachment.look(context)?;
    let mut report = survey.report(RecoveryOutcome::Attached);
    report.corruption = damage_of(context, &facts);
    let seen = attachment.remember(facts);
    report.epoch = seen.epoch;
    report.log_start_offset = seen.start;
    report.log_end_offset = seen.end;
    report.durable_mark = seen.end;
    let opened = Opened {
        segments: seen.segments,
        start: seen.start,
        end: seen.end,
        epoch: seen.epoch,
        active: None,
        report,
    };
    Ok((opened, attachment))
}

impl Attachment {
    /// Looks again.
    pub(crate) fn refresh(&mut self, context: &OpenContext<'_>) -> Result<Seen> {
        let (_, facts) = self.look(context)?;
        Ok(self.remember(facts))
    }

    fn look(&mut self, context: &OpenContext<'_>) -> Result<(Survey, Facts)> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.look_once(context) {
                // A file that vanished, or was replaced, between the listing and its opening: list again.
                Err(Error::Corrupt(found)) if tries < MAX_TRIES && is_vanished(&found) => {
                    self.segments.clear();
                    self.point = None;
                }
                Err(error) if tries < MAX_TRIES && error.is_not_found() => {
                    self.segments.clear();
                    self.point = None;
                }
                // The checkpoint was read after the files were listed: it may tell of one that was made in between.
                Ok((_, facts)) if tries < MAX_SHORT_TRIES && facts.scan.end.offset < facts.durable_mark => {
                    self.segments.clear();
                    self.point = None;
                }
                looked => return looked,
            }
        }
    }

    fn look_once(&mut self, context: &OpenContext<'_>) -> Result<(Survey, Facts)> {
        let survey = Survey::read_for_reading(context)?;
        let history = survey.checkpoint.map(|found| (found.newest.epoch, found.newest.generation));
        // Those below the first were deleted, which changes nothing about the others.
        let is_gone = |known: &LiveSegment| {
            let is_above = survey.bases.first().is_some_and(|first| *first < known.named.base);
            is_above && survey.bases.binary_search(&known.named.base).is_err()
        };
        if history != self.history || self.segments.iter().any(is_gone) {
            // Another history, or files that compaction has put in the place of others: those of the same name may be other
            // files now.
            self.segments.clear();
            self.point = None;
            self.history = history;
        }
        if survey.bases.is_empty() {
            let offsets = OffsetRange { start: Offset::ZERO, end: Offset::ZERO };
            return Err(Error::Corrupt(Box::new(Corruption {
                file: context.directory.to_owned(),
                position_bytes: FilePosition::ZERO,
                offsets,
                kind: CorruptionKind::MissingSegment,
            })));
        }
        let mut named = Vec::with_capacity(survey.bases.len());
        for base in &survey.bases {
            match self.segments.iter().find(|known| known.named.base == *base) {
                Some(known) => named.push(known.clone()),
                None => named.push(survey::open_named(context, *base)??),
            }
        }
        let facts = gather(&survey, &named, self.point, recorded_mark)?;
        self.segments = named;
        Ok((survey, facts))
    }

    fn remember(&mut self, facts: Facts) -> Seen {
        let end = facts.scan.end;
        let live = &facts.live[end.index];
        let point = ScanPoint { base: live.named.base, position: end.position, offset: end.offset };
        let epoch = facts.live.iter().map(|live| live.named.epoch).max().unwrap_or_default();
        self.point = Some((point, (epoch, facts.durable_mark)));
        let start = facts.log_start.max(facts.live[0].named.base);
        Seen {
            segments: SegmentList::new(facts.live.into_iter().map(|live| live.segment).collect()),
            start,
            end: facts.durable_mark.max(start),
            epoch: facts.highest_epoch,
        }
    }
}

fn is_vanished(found: &Corruption) -> bool {
    matches!(found.kind, CorruptionKind::MissingSegment | CorruptionKind::BadSegmentHeader)
}
