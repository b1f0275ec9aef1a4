//! Reads and checks everything, changing nothing.

use std::sync::Arc;

use super::Inner;
use crate::error::{Corruption, CorruptionKind};
use crate::format::{BatchHeader, Control};
use crate::recovery::TornTail;
use crate::segment::{Damage, OpenSegment, Piece, Pieces, Segment, SegmentFault, SegmentList, first_nonzero};
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
    /// Good batches of which only the checksums could be checked, since this build cannot look into them.
    pub unread_batches: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Every damaged place, in the order of the offsets.
    pub damage: Vec<Corruption>,
    /// Offsets whose records an earlier repair has taken out. They are no damage any more.
    pub lost: Vec<OffsetRange>,
    /// Bytes behind the durable end: a crash's torn tail, or what a live writer has not synced.
    pub torn_tail: Option<TornTail>,
}

impl Inner {
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport> {
        let (mut end, mut segments) = self.segments_to_verify()?;
        let mut report = VerifyReport::default();
        let mut index = 0;
        while let Some(segment) = segments.get(index).filter(|segment| segment.base <= end) {
            let segment_end = segments.end_of(index).min(end);
            match self.open_to_verify(segment, segment_end) {
                Ok(opened) => {
                    report.segments += 1;
                    let is_last = index + 1 == segments.len();
                    let end = segment_end;
                    let mut check =
                        SegmentCheck { report: &mut report, segment, opened: &opened, end, is_last };
                    check.run(progress)?;
                }
                Err(error @ Error::Corrupt(_)) => {
                    let base = segment.base;
                    let (new_end, new_segments) = self.segments_to_verify()?;
                    if !new_segments.contains(segment) {
                        // Removed, or replaced by compaction, while this came to it.
                        (end, segments) = (new_end, new_segments);
                        index = segments.index_of(base);
                        continue;
                    }
                    report.segments += 1;
                    report.note(error);
                }
                Err(error) => return Err(error),
            }
            index += 1;
        }
        Ok(report)
    }

    /// The segments as they are now, and up to where they are to be verified.
    fn segments_to_verify(&self) -> Result<(Offset, Arc<SegmentList>)> {
        if self.attachment.is_some() {
            self.refresh()?;
        }
        let end = self.ends.durable();
        let segments = self.settled_segments();
        Ok((end.min(self.ends.durable()), segments))
    }

    /// Opens a segment anew, to be read by position, so that it is the disk that answers, with error values.
    fn open_to_verify(&self, segment: &Segment, end: Offset) -> Result<OpenSegment> {
        let corrupt = |kind| segment.corrupt(FilePosition::ZERO, end, kind);
        let file = match self.storage.open_file(segment.path(), OpenMode::Read) {
            Err(error) if error.is_not_found() => return Err(corrupt(CorruptionKind::MissingSegment)),
            opened => opened?,
        };
        let (header, copies) = match crate::segment::read_header(&*file) {
            Err(SegmentFault::BadHeader) => return Err(corrupt(CorruptionKind::BadSegmentHeader)),
            Err(SegmentFault::Error(error)) => return Err(error),
            Ok(read) => read,
        };
        if segment.is_other(header.salt) {
            return Err(corrupt(CorruptionKind::MissingSegment));
        }
        Ok(OpenSegment::new(file, header, copies, crate::ReadMode::Positional, 0))
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
        let mut pieces = Pieces::new(self.opened, base, self.end)?;
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Batch(batch) => {
                    let read = pieces.position().get() - batch.position.get();
                    self.report.bytes += read;
                    progress(read);
                    self.report.unread_batches += u64::from(pieces.is_unread());
                    self.note_batch(&batch.header, pieces.batch_bytes(&batch)?);
                }
                Piece::Damage(Damage { position, offsets, kind, .. }) => {
                    self.report.note(self.segment.corrupt_range(position, offsets, kind));
                }
            }
        }
        if let Some(position) = pieces.wrong_footer() {
            let kind = CorruptionKind::MissingBatch;
            let range = OffsetRange { start: base, end: base };
            self.report.note(self.segment.corrupt_range(position, range, kind));
        }
        if self.is_last && !pieces.has_footer() {
            self.look_for_tail(pieces.position(), pieces.data_end())?;
        }
        Ok(())
    }

    fn note_batch(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.report.batches += 1;
        if !header.attributes.is_control() {
            self.report.records += u64::from(header.record_count);
            return;
        }
        if Control::decode(header, &bytes[header.header_bytes()..]) == Some(Control::LostOffsets) {
            OffsetRange::push_joined(&mut self.report.lost, header.offsets());
        }
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
}
