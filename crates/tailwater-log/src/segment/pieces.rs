//! A segment piece by piece: its good batches, and its damaged places with the offsets that are lost in them.

use super::inspect::look_into;
use super::{BatchFault, BatchWalk, OpenSegment, Step, WalkedBatch, read_footer};
use crate::error::CorruptionKind;
use crate::format::{Footer, SEGMENT_DATA_START, SegmentSummary};
use crate::log::kind_of;
use crate::{FilePosition, Offset, OffsetRange, Result};

/// A piece of a segment. Together the pieces span the offsets that were asked for, without a gap.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A batch whose checksums are right, and its records, unless this build cannot look into it.
    Batch(WalkedBatch),
    /// Bytes in which a batch should be and is not; none at all where the file ends too early.
    Damage(Damage),
}

/// A damaged place.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) position: FilePosition,
    /// Where the next good batch begins, or the data ends.
    pub(crate) end: FilePosition,
    /// What cannot be read because of it.
    pub(crate) offsets: OffsetRange,
    pub(crate) kind: CorruptionKind,
}

/// Walks over the pieces of a segment, reading and checking every byte of its batches by position.
#[derive(Debug)]
pub(crate) struct Pieces<'o> {
    walk: BatchWalk<'o>,
    footer: Option<(Footer, FilePosition)>,
    data_end: FilePosition,
    next_offset: Offset,
    end: Offset,
    /// The good batch behind the damage that was told last.
    behind: Option<WalkedBatch>,
    summary: SegmentSummary,
    is_whole: bool,
    is_unread: bool,
}

impl<'o> Pieces<'o> {
    /// The pieces of the segment that begins at `base`, up to offset `end`.
    pub(crate) fn new(opened: &'o OpenSegment, base: Offset, end: Offset) -> Result<Self> {
        let footer = read_footer(&*opened.file, base, opened.header.salt)?;
        let data_end = match &footer {
            Some((_, position)) => *position,
            None => FilePosition::new(opened.file.length()?),
        };
        Ok(Self {
            walk: BatchWalk::new(opened, SEGMENT_DATA_START, data_end),
            footer,
            data_end,
            next_offset: base,
            end,
            behind: None,
            summary: SegmentSummary { first_offset: base, next_offset: base, ..SegmentSummary::default() },
            is_whole: true,
            is_unread: false,
        })
    }

    /// The next piece; `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>> {
        if let Some(batch) = self.behind.take() {
            return self.batch(batch).map(Some);
        }
        if self.next_offset >= self.end {
            return Ok(None);
        }
        let position = self.walk.position();
        let fault = match self.walk.next(self.next_offset)? {
            Step::Batch(batch) => return self.batch(batch).map(Some),
            Step::Bad { fault, .. } => Some(fault),
            Step::End => None,
        };
        let kind = fault.as_ref().map_or(CorruptionKind::MissingBatch, kind_of_fault);
        if let Some(fault) = &fault {
            self.walk.skip(fault);
            while let Some(batch) = self.walk.find()? {
                if batch.header.base_offset > self.next_offset {
                    self.behind = Some(batch).filter(|batch| batch.header.base_offset < self.end);
                    break;
                }
            }
        }
        self.is_whole = false;
        let until = self.behind.map_or(self.end, |batch| batch.header.base_offset);
        let offsets = OffsetRange { start: self.next_offset, end: until };
        let end = self.behind.map_or(self.data_end, |batch| batch.position);
        self.next_offset = until;
        Ok(Some(Piece::Damage(Damage { position, end, offsets, kind })))
    }

    fn batch(&mut self, batch: WalkedBatch) -> Result<Piece> {
        let header = batch.header;
        self.next_offset = header.next_offset();
        let bytes = self.walk.batch_bytes(&batch)?;
        let looked = look_into(&header, bytes.get(header.header_bytes()..).unwrap_or_default());
        self.is_unread = looked.is_none();
        if let Some(Err(kind)) = looked {
            self.is_whole = false;
            let (position, end) = (batch.position, self.walk.position());
            return Ok(Piece::Damage(Damage { position, end, offsets: header.offsets(), kind }));
        }
        self.summary.add_batch(&header, batch.position);
        Ok(Piece::Batch(batch))
    }

    /// The whole encoded batch that was the last piece.
    pub(crate) fn batch_bytes(&mut self, batch: &WalkedBatch) -> Result<&[u8]> {
        self.walk.batch_bytes(batch)
    }

    /// Whether the last piece is a batch that this build cannot look into.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// The good batch behind the damage that was told last.
    pub(crate) fn behind(&self) -> Option<&WalkedBatch> {
        self.behind.as_ref()
    }

    /// Where the last piece ends.
    pub(crate) fn position(&self) -> FilePosition {
        self.walk.position()
    }

    /// Where the batches may end at most: at the footer, or with the file.
    pub(crate) fn data_end(&self) -> FilePosition {
        self.data_end
    }

    /// Whether there is a footer.
    pub(crate) fn has_footer(&self) -> bool {
        self.footer.is_some()
    }

    /// Behind the last piece: where the footer is, if it says something else than the batches do.
    pub(crate) fn wrong_footer(&self) -> Option<FilePosition> {
        let (footer, position) = self.footer.as_ref()?;
        let is_comparable = self.is_whole && self.next_offset == footer.summary.next_offset;
        (is_comparable && footer.summary != self.summary).then_some(*position)
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
