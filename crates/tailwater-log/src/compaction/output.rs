//! The segment that compaction writes: batches without a gap between them, whatever was removed.
//!
//! - Offsets whose records are gone are spanned by the batch before them, or by a batch without records where there is none
//!   that may: so recovery, scans and readers need to know nothing of compaction.
//! - A batch spans offsets of one log epoch.

use crate::format::{BatchAttributes, BatchHeader, SegmentSummary};
use crate::limits::MAX_BATCH_OFFSETS;
use crate::segment::{NewSegment, SegmentCopy, WalkedBatch};
use crate::{FilePosition, Offset, Result, Timestamp};

/// A segment under construction. A clone is a place to go back to.
#[derive(Clone)]
pub(crate) struct Output<'n> {
    copy: SegmentCopy<'n>,
    /// The last batch, which may come to span more offsets.
    last: Option<LastBatch>,
    /// Its bytes, with room for the header.
    bytes: Vec<u8>,
    next_horizon: Option<Timestamp>,
}

#[derive(Clone)]
struct LastBatch {
    header: BatchHeader,
    is_extensible: bool,
}

/// What was written.
pub(crate) struct Written {
    pub(crate) summary: SegmentSummary,
    pub(crate) data_end: FilePosition,
    /// From when on the first of its tombstones may go.
    pub(crate) next_horizon: Option<Timestamp>,
}

impl<'n> Output<'n> {
    /// A segment that begins at `base`.
    pub(crate) fn new(new: &'n NewSegment, base: Offset) -> Self {
        Self { copy: SegmentCopy::new(new, base), last: None, bytes: Vec::new(), next_horizon: None }
    }

    /// Adds a batch, which begins where the last one ends.
    pub(crate) fn add(&mut self, header: &BatchHeader, body: &[u8], is_extensible: bool) -> Result<()> {
        self.write_last()?;
        self.bytes.clear();
        self.bytes.resize(header.header_bytes(), 0);
        self.bytes.extend_from_slice(body);
        self.last = Some(LastBatch { header: *header, is_extensible });
        Ok(())
    }

    /// Notes from when on tombstones of the last batch may go.
    pub(crate) fn note_horizon(&mut self, horizon: Timestamp) {
        self.next_horizon = Some(self.next_horizon.map_or(horizon, |earliest| earliest.min(horizon)));
    }

    /// Spans the offsets of a batch of which nothing is left.
    pub(crate) fn span(&mut self, removed: &BatchHeader) -> Result<()> {
        if let Some(last) = &mut self.last
            && last.is_extensible
            && last.header.log_epoch == removed.log_epoch
        {
            let span = removed.next_offset().since(last.header.base_offset);
            if let Some(delta) = u32::try_from(span - 1).ok().filter(|delta| *delta < MAX_BATCH_OFFSETS) {
                last.header.last_offset_delta = delta;
                if last.header.record_count == 0 {
                    last.header.append_time = removed.append_time;
                }
                return Ok(());
            }
        }
        let empty = BatchHeader {
            body_crc: crc32fast::hash(&[]),
            attributes: BatchAttributes::default(),
            compatible_attributes: 0,
            record_count: 0,
            base_create_time: removed.max_create_time,
            producer: None,
            ..*removed
        };
        // A header alone is below 2^32 bytes.
        let length_bytes = u32::try_from(empty.header_bytes()).unwrap_or(u32::MAX);
        self.add(&BatchHeader { length_bytes, ..empty }, &[], true)
    }

    /// How long the file is so far, without a footer.
    pub(crate) fn size_bytes(&self) -> u64 {
        let last = if self.last.is_some() { crate::format::aligned(self.bytes.len() as u64) } else { 0 };
        self.copy.end().get() + last
    }

    /// Writes all that is final, so that a clone is small.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.copy.flush()
    }

    /// Writes the rest.
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.write_last()?;
        let (summary, data_end) = self.copy.finish()?;
        Ok(Written { summary, data_end, next_horizon: self.next_horizon })
    }

    fn write_last(&mut self) -> Result<()> {
        let Some(last) = self.last.take() else { return Ok(()) };
        // Where it is in the segment that it comes from plays no part.
        let batch = WalkedBatch { header: last.header, position: FilePosition::ZERO };
        self.copy.add_batch(&batch, &self.bytes)
    }
}
