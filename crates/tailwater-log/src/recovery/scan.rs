//! Finds the end of a log: the first offset that does not verify contiguously.

use std::sync::Arc;

use super::decide::NamedSegment;
use crate::format::{BatchHeader, HeaderFault, SEGMENT_DATA_START};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{BatchFault, BatchWalk, OpenSegment, Segment, Step, first_nonzero, read_footer};
use crate::{FilePosition, LogEpoch, Offset, Result, Timestamp};

/// A live segment as recovery works with it.
#[derive(Clone, Debug)]
pub(crate) struct LiveSegment {
    pub(crate) named: NamedSegment,
    pub(crate) segment: Arc<Segment>,
    pub(crate) opened: Arc<OpenSegment>,
    /// Where its live offsets end: the base of the next live segment.
    pub(crate) end: Offset,
}

/// A place in the live segments where a batch begins, or would.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) position: FilePosition,
    pub(crate) offset: Offset,
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The end, and where it is.
    pub(crate) end: Place,
    /// What stands there instead of a batch, if it is not just the end of the file or of the data.
    pub(crate) fault: Option<BatchFault>,
    /// Durable marks of the batches and footers that were met, also behind the end.
    pub(crate) marks: Vec<(LogEpoch, Offset)>,
    /// Where bytes that are not zero begin behind the end, for each segment that has any.
    pub(crate) tails: Vec<(usize, FilePosition)>,
    pub(crate) scanned_bytes: u64,
    pub(crate) latest_append_time: Option<Timestamp>,
    /// The highest offset that a good batch behind the end ends at.
    pub(crate) highest_seen: Offset,
}

/// Scans from `from` to the end of the log, and what lies behind it.
pub(crate) fn scan(live: &[LiveSegment], from: Place) -> Result<Scan> {
    let mut scan = Scan {
        end: from,
        fault: None,
        marks: Vec::new(),
        tails: Vec::new(),
        scanned_bytes: 0,
        latest_append_time: None,
        highest_seen: from.offset,
    };
    while scan.step_through(&live[scan.end.index])? {
        match live.get(scan.end.index + 1) {
            Some(next) if next.named.base == scan.end.offset => {
                scan.end = Place {
                    index: scan.end.index + 1,
                    position: SEGMENT_DATA_START,
                    offset: next.named.base,
                };
            }
            _ => break,
        }
    }
    scan.look_behind_end(live)?;
    scan.highest_seen = scan.highest_seen.max(scan.end.offset);
    Ok(scan)
}

impl Scan {
    /// Moves the end through one segment. True if it came to where the segment's offsets end.
    fn step_through(&mut self, live: &LiveSegment) -> Result<bool> {
        let mut data_end = FilePosition::new(live.opened.file.length()?);
        if let Some((footer, position)) =
            read_footer(&*live.opened.file, live.named.base, live.opened.header.salt)?
        {
            // A footer is written only when what it covers is durable: no need to look at the batches.
            let covered = footer.summary.next_offset.min(live.end);
            self.marks.push((live.named.epoch, covered));
            self.latest_append_time =
                self.latest_append_time.max(footer.summary.times.map(|times| times.max_append));
            if self.end.position == SEGMENT_DATA_START {
                self.end.offset = covered;
                self.end.position = position;
                return Ok(covered == live.end);
            }
            data_end = position;
        }
        let mut walk = match is_planted(Mistake::ScanWithoutBodies) {
            true => BatchWalk::headers_only(&live.opened, self.end.position, data_end),
            false => BatchWalk::new(&live.opened, self.end.position, data_end),
        };
        while self.end.offset < live.end {
            match walk.next(self.end.offset)? {
                Step::Batch(batch) if batch.header.next_offset() <= live.end => {
                    self.note(&batch.header);
                    self.end.offset = batch.header.next_offset();
                    self.end.position = walk.position();
                }
                Step::Batch(batch) => {
                    self.fault = Some(BatchFault::Offset { header: batch.header });
                    return Ok(false);
                }
                Step::Bad { fault, .. } => {
                    if fault != BatchFault::Header(HeaderFault::Zero) {
                        self.fault = Some(fault);
                    }
                    return Ok(false);
                }
                Step::End => return Ok(false),
            }
        }
        Ok(true)
    }

    fn note(&mut self, header: &BatchHeader) {
        self.scanned_bytes += u64::from(header.length_bytes);
        self.marks.push((header.log_epoch, header.durable_mark()));
        if self.marks.len() > 4096 {
            // Only the greatest of each epoch matters, and batches of one epoch follow each other.
            self.marks.sort_unstable();
            self.marks.dedup_by(|later, kept| {
                let is_same = later.0 == kept.0;
                if is_same {
                    kept.1 = kept.1.max(later.1);
                }
                is_same
            });
        }
        self.latest_append_time = self.latest_append_time.max(Some(header.append_time));
    }

    /// Collects the marks and the non-zero bytes behind the end: batches there may tell that what is missing before
    /// them was durable.
    fn look_behind_end(&mut self, live: &[LiveSegment]) -> Result<()> {
        let (first, position) = (self.end.index, self.end.position);
        for (index, live) in live.iter().enumerate().skip(first) {
            let mut data_end = FilePosition::new(live.opened.file.length()?);
            let mut start = SEGMENT_DATA_START;
            if index == first {
                if self.end.offset >= live.end {
                    continue;
                }
                start = position;
            }
            if let Some((footer, footer_position)) =
                read_footer(&*live.opened.file, live.named.base, live.opened.header.salt)?
            {
                self.marks.push((live.named.epoch, footer.summary.next_offset.min(live.end)));
                self.highest_seen = self.highest_seen.max(footer.summary.next_offset.min(live.end));
                data_end = footer_position;
            }
            if start >= data_end {
                continue;
            }
            let Some(nonzero) = first_nonzero(&*live.opened.file, start, data_end)? else { continue };
            self.tails.push((index, nonzero.min(start.max(aligned_down(nonzero)))));
            let mut walk = BatchWalk::new(&live.opened, start, data_end);
            while let Some(batch) = walk.find()? {
                if batch.header.base_offset >= self.end.offset && batch.header.next_offset() <= live.end {
                    self.marks.push((batch.header.log_epoch, batch.header.durable_mark()));
                    self.highest_seen = self.highest_seen.max(batch.header.next_offset());
                }
            }
        }
        Ok(())
    }
}

fn aligned_down(position: FilePosition) -> FilePosition {
    FilePosition::new(position.get() / crate::format::ALIGNMENT * crate::format::ALIGNMENT)
}
