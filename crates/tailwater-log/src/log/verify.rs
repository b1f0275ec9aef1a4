//! Reads and checks everything, changing nothing.

use super::Inner;
use super::fetch::kind_of;
use crate::error::{Corruption, CorruptionKind};
use crate::format::{RecordIter, SEGMENT_DATA_START, SegmentSummary};
use crate::recovery::TornTail;
use crate::segment::{BatchFault, BatchWalk, OpenSegment, SegmentFault, Step, first_nonzero, read_footer};
use crate::storage::OpenMode;
use crate::{Error, FilePosition, Offset, OffsetRange, Result};

/// What a verification read and found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Good batches.
    pub batches: u64,
    /// Records in good batches.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Every damaged place, in the order of the offsets.
    pub damage: Vec<Corruption>,
    /// Bytes behind the durable end: a crash's torn tail, or what a live writer has not synced.
    pub torn_tail: Option<TornTail>,
}

impl Inner {
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport> {
        if self.attachment.is_some() {
            self.refresh()?;
        }
        let end = self.ends.durable();
        let segments = self.segments.load_full();
        let end = end.min(self.ends.durable());
        let mut report = VerifyReport::default();
        for (index, segment) in segments.iter().enumerate() {
            let segment_end = segments.end_of(index).min(end);
            if segment.base > end {
                break;
            }
            report.segments += 1;
            // Opened anew and read by position, so that it is the disk that answers, with error values.
            let file = match self.storage.open_file(segment.path(), OpenMode::Read) {
                Ok(file) => file,
                Err(error) if error.is_not_found() && segment.base < self.ends.start() => continue,
                Err(error) if error.is_not_found() => {
                    let kind = CorruptionKind::MissingSegment;
                    report.note(segment.corrupt(FilePosition::ZERO, segment_end, kind));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (header, copies) = match crate::segment::read_header(&*file) {
                Ok(read) => read,
                Err(SegmentFault::BadHeader) => {
                    let kind = CorruptionKind::BadSegmentHeader;
                    report.note(segment.corrupt(FilePosition::ZERO, segment_end, kind));
                    continue;
                }
                Err(SegmentFault::Error(error)) => return Err(error),
            };
            let opened = OpenSegment::new(file, header, copies, crate::ReadMode::Positional, 0);
            let is_last = index + 1 == segments.len();
            let mut check =
                SegmentCheck { report: &mut report, segment, opened: &opened, end: segment_end, is_last };
            check.run(progress)?;
        }
        Ok(report)
    }
}

impl VerifyReport {
    fn note(&mut self, error: Error) {
        if let Error::Corrupt(corruption) = error {
            self.damage.push(*corruption);
        }
    }
}

struct SegmentCheck<'c> {
    report: &'c mut VerifyReport,
    segment: &'c crate::segment::Segment,
    opened: &'c OpenSegment,
    end: Offset,
    /// Behind the end of any other segment may be what a later one superseded.
    is_last: bool,
}

impl SegmentCheck<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let base = self.segment.base;
        let length = FilePosition::new(self.opened.file.length()?);
        let footer = read_footer(&*self.opened.file, base, self.opened.header.salt)?;
        let data_end = footer.as_ref().map_or(length, |(_, position)| *position);
        let mut walk = BatchWalk::new(self.opened, SEGMENT_DATA_START, data_end);
        let mut summary =
            SegmentSummary { first_offset: base, next_offset: base, ..SegmentSummary::default() };
        let mut offset = base;
        let mut is_whole = true;
        while offset < self.end {
            let before = walk.position();
            let fault = match walk.next(offset)? {
                Step::Batch(batch) => {
                    offset = batch.header.next_offset();
                    self.report.batches += 1;
                    self.check_records(&batch, &mut walk)?;
                    summary.add_batch(&batch.header, batch.position);
                    let read = walk.position().get() - before.get();
                    self.report.bytes += read;
                    progress(read);
                    continue;
                }
                Step::Bad { fault, .. } => Some(fault),
                Step::End => None,
            };
            is_whole = false;
            let position = walk.position();
            let kind = fault.as_ref().map_or(CorruptionKind::MissingBatch, kind_of_fault);
            let mut next = None;
            if let Some(fault) = &fault {
                walk.skip(fault);
                while let Some(batch) = walk.find()? {
                    if batch.header.base_offset > offset {
                        next = Some(batch).filter(|batch| batch.header.base_offset < self.end);
                        break;
                    }
                }
            }
            let until = next.map_or(self.end, |batch| batch.header.base_offset);
            let range = OffsetRange { start: offset, end: until };
            self.report.note(self.segment.corrupt_range(position, range, kind));
            let Some(batch) = next else { return Ok(()) };
            self.report.batches += 1;
            self.check_records(&batch, &mut walk)?;
            offset = batch.header.next_offset();
        }
        match footer {
            Some((footer, position))
                if is_whole && offset == footer.summary.next_offset && footer.summary != summary =>
            {
                let kind = CorruptionKind::MissingBatch;
                let range = OffsetRange { start: base, end: base };
                self.report.note(self.segment.corrupt_range(position, range, kind));
            }
            None if self.is_last => self.look_for_tail(walk.position(), length)?,
            _ => {}
        }
        Ok(())
    }

    fn look_for_tail(&mut self, from: FilePosition, length: FilePosition) -> Result<()> {
        if let Some(position) = first_nonzero(&*self.opened.file, from, length)? {
            let size_bytes = length.get() - position.get();
            let file = self.segment.path().to_owned();
            self.report.torn_tail.get_or_insert(TornTail {
                file,
                position,
                size_bytes,
                quarantined: Vec::new(),
            });
        }
        Ok(())
    }

    fn check_records(&mut self, batch: &crate::segment::WalkedBatch, walk: &mut BatchWalk<'_>) -> Result<()> {
        let attributes = batch.header.attributes;
        if attributes.is_opaque()
            || attributes.codec() != crate::format::Codec::None
            || attributes.is_encrypted()
        {
            self.report.records += u64::from(batch.header.record_count);
            return Ok(());
        }
        let header = batch.header;
        let bytes = walk.batch_bytes(batch)?;
        let mut malformed = None;
        let mut count = 0;
        for view in RecordIter::new(&header, &bytes[header.header_bytes()..]) {
            match view {
                Ok(_) => count += 1,
                Err(fault) => malformed = Some(fault.index),
            }
        }
        self.report.records += count;
        if let Some(index) = malformed {
            let kind = CorruptionKind::MalformedRecord { index };
            self.report.note(self.segment.corrupt_range(batch.position, header.offsets(), kind));
        }
        Ok(())
    }
}

fn kind_of_fault(fault: &BatchFault) -> CorruptionKind {
    match fault {
        BatchFault::Header(fault) => kind_of(fault),
        BatchFault::Body { fault: Some(fault), .. } => {
            CorruptionKind::ChecksumMismatch { stored: fault.stored, computed: fault.computed }
        }
        BatchFault::Body { fault: None, .. } => CorruptionKind::MissingBatch,
        BatchFault::Offset { header } => CorruptionKind::UnexpectedOffset { found: header.base_offset },
    }
}
