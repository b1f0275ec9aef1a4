//! Looking up offsets by time, and where log epochs begin and end.

use super::{FetchIsolation, FetchLimits, Inner};
use crate::error::Corruption;
use crate::format::{EpochStart, SEGMENT_DATA_START};
use crate::segment::{Segment, SegmentContext, SegmentList};
use crate::{Error, FilePosition, LogEpoch, Offset, Result, Timestamp};

/// Where the epochs of a log begin.
struct EpochStarts {
    /// In rising order.
    known: Vec<EpochStart>,
    /// The damage of the first segment that may hide some, from its base offset on.
    damaged: Option<Box<Corruption>>,
}

impl Inner {
    /// The first visible offset that may have been appended at or after `time`: what was appended then has at least this
    /// time, less what the clock may have been behind.
    pub(crate) fn offset_for_time(&self, time: Timestamp) -> Result<Option<Offset>> {
        let time = time.saturating_sub_ms(self.clock.behind_ms());
        self.look_at_segments(|segments| self.find_time(time, segments))
    }

    fn find_time(&self, time: Timestamp, segments: &SegmentList) -> Result<Option<Offset>> {
        let end = self.visible_end(FetchIsolation::Visible);
        let start = self.ends.start();
        // Append times never decrease, so whole segments can be passed over.
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let Some(segment) = segments.get(middle) else { break };
            let context = self.segment_context(segments.end_of(middle).min(end));
            let latest =
                segment.with_summary(&context, |summary| summary.times.map(|times| times.max_append))?;
            if latest.is_some_and(|latest| latest < time) { low = middle + 1 } else { high = middle }
        }
        let Some(segment) = segments.get(low) else { return Ok(None) };
        let context = self.segment_context(segments.end_of(low).min(end));
        let floor = segment
            .with_summary(&context, |summary| summary.floor_by_time(time).map(|entry| entry.offset))?;
        let mut from = floor.unwrap_or(segment.base).max(start);
        let limits = FetchLimits { max_records: u32::MAX, max_bytes: 1 << 20 };
        while from < end {
            let fetched = match self.fetch(from, limits, FetchIsolation::Visible, None) {
                // Nobody can look into that batch here; it is not far from the one that is looked for, if not that one.
                Err(Error::Unsupported { offsets: Some(offsets), .. }) => return Ok(Some(offsets.start)),
                fetched => fetched?,
            };
            for batch in fetched.batches() {
                if batch.header().append_time >= time {
                    return Ok(Some(batch.header().base_offset.max(from)));
                }
            }
            if fetched.next_offset() == from {
                break;
            }
            from = fetched.next_offset();
        }
        Ok(None)
    }

    /// How many bytes the batches take up from the one that holds `offset` to the log end, staged ones too.
    pub(crate) fn bytes_from(&self, offset: Offset) -> Result<u64> {
        self.look_at_segments(|segments| self.count_bytes(offset, segments))
    }

    fn count_bytes(&self, offset: Offset, segments: &SegmentList) -> Result<u64> {
        let written = self.ends.written();
        let mut bytes = self.staging().staged_bytes();
        if offset >= written {
            return Ok(bytes);
        }
        let first = segments.index_of(offset);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            let context = self.segment_context(segments.end_of(index).min(written));
            let end = match segment.data_end() {
                Some(end) => end.get(),
                None => segment.length(&context, self.attachment.is_none())?,
            };
            let start = if index == first {
                self.position_of(offset, segment, &context)?
            } else {
                SEGMENT_DATA_START
            };
            bytes += end.saturating_sub(start.get());
        }
        Ok(bytes)
    }

    /// Where in its segment the batch begins that holds `offset`, or, if one before it is damaged, that one.
    pub(crate) fn position_of(
        &self,
        offset: Offset,
        segment: &Segment,
        context: &SegmentContext<'_>,
    ) -> Result<FilePosition> {
        let opened = segment.open(context)?;
        let floor = segment.with_summary(context, |summary| summary.floor(offset).copied())?;
        let mut position = floor.map_or(SEGMENT_DATA_START, |entry| entry.position);
        while let Ok(header) = opened.published_header(position)? {
            if header.next_offset() > offset {
                break;
            }
            position = position.plus(crate::format::aligned(u64::from(header.length_bytes)));
        }
        Ok(position)
    }

    /// Where each epoch of the log begins, as far as that can still be told.
    fn epoch_starts(&self, segments: &SegmentList) -> Result<EpochStarts> {
        let mut starts = Vec::new();
        let mut damaged = None;
        for (index, segment) in segments.iter().enumerate() {
            let end = segments.end_of(index);
            let context = self.segment_context(end.min(self.ends.written()));
            let looked = segment.open(&context).and_then(|opened| {
                let header = opened.header;
                starts.push(EpochStart { epoch: header.epoch, start: header.epoch_start });
                segment.with_summary(&context, |summary| {
                    starts.extend(summary.epochs.iter().filter(|begun| begun.start < end).copied());
                })
            });
            match looked {
                Err(Error::Corrupt(mut corruption)) => {
                    corruption.offsets.start = corruption.offsets.start.min(segment.base);
                    damaged.get_or_insert(corruption);
                }
                looked => looked?,
            }
        }
        Ok(EpochStarts { known: starts, damaged })
    }

    /// Where `epoch` ended: the lowest start of a higher one, or the log end.
    ///
    /// It did not end below the segment whose damage an error names.
    pub(crate) fn epoch_end(&self, epoch: LogEpoch) -> Result<Offset> {
        let end = self.log_end_offset();
        if epoch >= self.ends.epoch() {
            return Ok(end);
        }
        self.look_at_segments(|segments| self.find_epoch_end(epoch, end, segments))
    }

    fn find_epoch_end(&self, epoch: LogEpoch, end: Offset, segments: &SegmentList) -> Result<Offset> {
        let starts = self.epoch_starts(segments)?;
        let later = starts.known.into_iter().filter(|begun| begun.epoch > epoch).map(|begun| begun.start);
        let found = later.min().unwrap_or(end);
        match starts.damaged {
            Some(corruption) if corruption.offsets.start < found => Err(Error::Corrupt(corruption)),
            _ => Ok(found),
        }
    }

    /// The epoch of the record before `offset`; of the log, where there is no such record, or where the segment that it is
    /// in cannot be read: whatever epoch it has, it ends later than `offset`, and a history that begins from now on is of a
    /// higher one.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Result<LogEpoch> {
        let start = self.ends.start();
        if offset <= start || offset > self.ends.written() {
            return Ok(self.ends.epoch());
        }
        let before = Offset::new(offset.get() - 1);
        match self.look_at_segments(|segments| self.find_epoch(before, segments)) {
            Err(Error::Corrupt(_)) => Ok(self.ends.epoch()),
            found => found,
        }
    }

    /// The epoch of the record at `before`.
    fn find_epoch(&self, before: Offset, segments: &SegmentList) -> Result<LogEpoch> {
        let index = segments.index_of(before);
        let Some(segment) = segments.get(index) else { return Ok(self.ends.epoch()) };
        let context = self.segment_context(segments.end_of(index).min(self.ends.written()));
        let opened = segment.open(&context)?;
        let floor = segment.with_summary(&context, |summary| summary.floor(before).copied())?;
        let floor = floor.map(|entry| (entry.position, entry.offset));
        let (mut position, mut at) = floor.unwrap_or((SEGMENT_DATA_START, segment.base));
        while at <= before {
            let Ok(header) = opened.published_header(position)? else { break };
            if header.next_offset() > before {
                return Ok(header.log_epoch);
            }
            position = position.plus(crate::format::aligned(u64::from(header.length_bytes)));
            at = header.next_offset();
        }
        // The record is damaged; the epoch its segment began with is the best bound there is.
        Ok(opened.header.epoch)
    }
}
