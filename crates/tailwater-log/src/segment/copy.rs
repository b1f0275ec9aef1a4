//! Copying batches into a new segment, where each gets a header for its new place.

use super::{NewSegment, WalkedBatch};
use crate::format::{self, BatchPlace, SEGMENT_DATA_START, SegmentSummary};
use crate::{FilePosition, LogEpoch, Offset, OffsetRange, Result, Timestamp};

/// How much is collected before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// The batches that are copied into a new segment, in the order of their offsets. A clone is a place to go back to.
#[derive(Clone)]
pub(crate) struct SegmentCopy<'n> {
    new: &'n NewSegment,
    position: FilePosition,
    buffer: Vec<u8>,
    summary: SegmentSummary,
}

impl<'n> SegmentCopy<'n> {
    /// A copy that begins at offset `base`.
    pub(crate) fn new(new: &'n NewSegment, base: Offset) -> Self {
        let summary = NewSegment::empty_summary(base);
        Self { new, position: SEGMENT_DATA_START, buffer: Vec::new(), summary }
    }

    /// Adds a batch that was checked. Its log epoch and durable mark stay what they were when it was appended.
    pub(crate) fn add_batch(&mut self, batch: &WalkedBatch, bytes: &[u8]) -> Result<()> {
        let (place, start) = (self.place(), self.buffer.len());
        self.buffer.extend_from_slice(bytes);
        batch.header.encode(place, &mut self.buffer[start..]);
        self.buffer.resize(self.buffer.len().next_multiple_of(format::ALIGNMENT_BYTES), 0);
        self.summary.add_batch(&batch.header, place.position);
        self.flush_if_full()
    }

    /// Adds what says that the records of these offsets are lost.
    pub(crate) fn add_lost(
        &mut self,
        mut lost: OffsetRange,
        append_time: Timestamp,
        epoch: LogEpoch,
    ) -> Result<()> {
        while lost.start < lost.end {
            let place = self.place();
            let header = format::encode_lost_offsets(lost, append_time, epoch, place, &mut self.buffer);
            self.summary.add_batch(&header, place.position);
            lost.start = header.next_offset();
            self.flush_if_full()?;
        }
        Ok(())
    }

    /// Writes the rest. Returns where the data ends, and the summary of it.
    pub(crate) fn finish(mut self) -> Result<(SegmentSummary, FilePosition)> {
        self.flush()?;
        Ok((self.summary, self.position))
    }

    fn place(&self) -> BatchPlace {
        BatchPlace { salt: self.new.header.salt, position: self.position.plus(self.buffer.len() as u64) }
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Where the data ends so far.
    pub(crate) fn end(&self) -> FilePosition {
        self.position.plus(self.buffer.len() as u64)
    }

    /// Writes what is collected.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.new.file.write_all_at(&self.buffer, self.position)?;
        self.position = self.position.plus(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}
