//! Cutting a log at either end.

use std::sync::Arc;

use super::commit::Leader;
use super::inner::Inner;
use super::writer::{Writer, new_header, new_segment_file};
use crate::error::CorruptionKind;
use crate::format::{
    self, BATCH_HEADER_BYTES, BatchHeader, BatchPlace, RecordFields, RecordIter, SEGMENT_DATA_START,
};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{NewSegment, Segment};
use crate::sync::atomic::Ordering;
use crate::{Compression, Error, FilePosition, Offset, OffsetRange, Result, Timestamp};

/// The temporary name of the segment that begins where a log was cut.
const CUT_SEGMENT_NAME: &str = "truncate.tmp";

/// A batch that was encoded anew: its header, without checksums, and its body.
type EncodedBatch = (BatchHeader, Vec<u8>);

impl Inner {
    /// Removes the records from `offset` on, durably, and raises the epoch.
    pub(crate) fn truncate_to(&self, offset: Offset) -> Result<()> {
        let slot = self.writer()?;
        let leader = self.commit.lead();
        let mut writer = loop {
            if !is_planted(Mistake::TruncationForgetsKept) || slot.take().is_roll_blocked() {
                self.sync_leading(&leader)?;
            }
            let writer = slot.take();
            if !writer.is_roll_blocked() {
                break writer;
            }
        };
        if let Some(reason) = self.staging().stopped() {
            return Err(reason.clone());
        }
        // Nothing may be staged from here on: it would be staged for the old history. What is kept is durable before
        // anything supersedes it.
        let cut = writer
            .drain(self)
            .and_then(|()| match is_planted(Mistake::TruncationForgetsKept) {
                true => Ok(()),
                false => self.sync_holding(&mut writer),
            })
            .and_then(|()| self.cut_at(&mut writer, offset));
        if !matches!(cut, Ok(true)) {
            let room_end = writer.room_end(&self.config.load());
            self.staging().set_room_end(room_end);
        }
        drop(writer);
        drop(leader);
        cut.map(|_| ())
    }

    /// Cuts at `offset`, if that is within the log. False if it is the end: nothing is to be done then.
    fn cut_at(&self, writer: &mut Writer, offset: Offset) -> Result<bool> {
        let (start, end) = (self.ends.start(), writer.written);
        if offset < start || offset > end {
            return Err(self.out_of_range(offset, end));
        }
        if offset < end {
            self.cut(writer, offset)?;
        }
        Ok(offset < end)
    }

    /// Renames in a segment that begins at `offset` (or at the batch that it cuts through) and has a higher epoch.
    fn cut(&self, writer: &mut Writer, offset: Offset) -> Result<()> {
        let mut epoch = writer.header.epoch.checked_next().ok_or(Error::Exhausted { what: "epochs" })?;
        if is_planted(Mistake::TruncationKeepsEpoch) {
            epoch = writer.header.epoch;
        }
        let (base, kept) = self.kept_part(offset)?;
        writer.set_dirty(self)?;
        let mut header = new_header(self, epoch, offset);
        header.epoch_start = offset;
        let mut new = new_segment_file(self, CUT_SEGMENT_NAME, header)?;
        let mut summary = NewSegment::empty_summary(base);
        let mut data_end = SEGMENT_DATA_START;
        let filled = || -> Result<()> {
            if let Some((mut batch, body)) = kept {
                let place = BatchPlace { salt: header.salt, position: SEGMENT_DATA_START };
                batch.body_crc = crc32fast::hash(&body);
                let mut bytes = vec![0; batch.header_bytes()];
                batch.encode(place, &mut bytes);
                bytes.extend_from_slice(&body);
                new.file.write_all_at(&bytes, SEGMENT_DATA_START)?;
                summary.add_batch(&batch, SEGMENT_DATA_START);
                data_end = SEGMENT_DATA_START.plus(format::aligned(bytes.len() as u64));
            }
            new.sync()
        };
        filled().map_err(|error| new.discard(&self.storage, error))?;
        let _exchange = self.begin_exchange();
        // From the rename on either history may be found after a power cut; only the sync of the directory decides.
        let published = new
            .publish(&self.storage, &self.directory, base)
            .and_then(|()| self.storage.sync_directory(&self.directory));
        published.map_err(|error| self.fail(error))?;

        let (file, allocated) = (Arc::clone(&new.file), new.allocated.max(data_end.get()));
        let read_mode = self.config.load().read_mode;
        let segment = new.into_segment(&self.directory, base, read_mode, data_end, summary);
        let old = self.segments.load_full();
        self.truncations_lock().push((epoch, offset));
        self.ends.set_durable(offset);
        self.commit.note_durable(offset);
        self.ends.set_written(offset);
        self.ends.set_epoch(epoch);
        self.segments.store(Arc::new(old.cut_with(Arc::clone(&segment))));
        if let Some(next) = writer.next.take() {
            // It has the old epoch.
            let _ = next.discard(&self.storage, Error::Closed);
        }
        writer.unsealed.retain(|unsealed| unsealed.segment.base < base && unsealed.end <= base);
        writer.active = segment;
        writer.file = Some(file);
        writer.header = header;
        writer.position = data_end;
        writer.allocated = allocated;
        writer.active.note_length(allocated);
        writer.written = offset;
        writer.active_since = None;
        writer.previous = None;
        writer.is_name_synced = true;
        writer.durable_point = super::checkpoint_file::ScanPoint { base, position: data_end, offset };
        {
            let mut staging = self.staging();
            let place = writer.staging_place(&self.config.load());
            staging.move_to(place, offset, epoch);
        }
        // From here on staging and writer stand at the same place again, whatever fails.
        let advanced = writer.advance_checkpoint(self);
        if advanced.is_ok() {
            self.remove_segments(writer, old.iter().filter(|segment| segment.base > base).cloned().collect());
        }
        self.commit.wake_all();
        self.listeners.notify_all();
        advanced
    }

    /// Where the new segment begins, and the part below `offset` of the batch that it cuts through.
    fn kept_part(&self, offset: Offset) -> Result<(Offset, Option<EncodedBatch>)> {
        let segments = self.segments.load_full();
        let index = segments.index_of(offset);
        let Some(segment) = segments.get(index) else { return Ok((offset, None)) };
        let context = self.segment_context(segments.end_of(index).min(self.ends.written()));
        let opened = segment.open(&context)?;
        let floor = segment.with_summary(&context, |summary| {
            summary.floor(offset).map(|entry| (entry.position, entry.offset))
        })?;
        let (mut position, mut at) = floor.unwrap_or((SEGMENT_DATA_START, segment.base));
        while at < offset {
            let header = opened.published_header(position)?.map_err(|fault| {
                damaged(segment, position, at, context.end, super::fetch::kind_of(&fault))
            })?;
            if header.next_offset() > offset {
                let body = opened
                    .published_bytes(position.plus(header.header_bytes() as u64), header.body_bytes())?;
                format::check_body(&header, &body).map_err(|fault| {
                    let kind =
                        CorruptionKind::ChecksumMismatch { stored: fault.stored, computed: fault.computed };
                    damaged(segment, position, at, context.end, kind)
                })?;
                let plain = format::plain_body(&header, &body)
                    .map_err(|body| segment.unreadable(position, header.offsets(), body))?;
                let zstd_level = self.config.load().compression_zstd_level;
                let kept = encode_anew(&header, &plain, offset, zstd_level)
                    .map_err(|kind| damaged(segment, position, at, context.end, kind))?
                    .ok_or_else(|| Error::InsideOpaqueBatch { offset, batch: Box::new(header.offsets()) })?;
                return Ok((header.base_offset, Some(kept)));
            }
            position = position.plus(format::aligned(u64::from(header.length_bytes)));
            at = header.next_offset();
        }
        Ok((offset, None))
    }

    /// Moves the log start to `offset`, durably, and removes the segments below it.
    pub(crate) fn delete_records_before(&self, offset: Offset) -> Result<()> {
        self.move_start(offset)?;
        // The records are gone; a file that cannot be removed now is removed by a later recovery.
        let _ = self.remove_deleted();
        Ok(())
    }

    /// Moves the log start to `offset`, durably. The segments below it are removed later.
    pub(crate) fn move_start(&self, offset: Offset) -> Result<()> {
        let slot = self.writer()?;
        let leader = self.commit.lead();
        let (start, end) = (self.ends.start(), self.log_end_offset());
        if offset > end {
            return Err(self.out_of_range(offset, end));
        }
        if offset <= start {
            return Ok(());
        }
        if offset > self.ends.durable() {
            self.sync_leading(&leader)?;
        }
        if offset == slot.take().written {
            // The next offset and the epoch must outlive the records: they live in a segment.
            self.roll_leading(&leader)?;
        }
        // The names of all that stays are durable before anything goes. What is staged may be waiting for just that room.
        self.sync_what_has_room(&leader)?;
        let mut writer = slot.take();
        self.failure.check()?;
        writer.set_dirty(self)?;
        let checkpoint_file = self.sticky(writer.checkpoint.open(self))?;
        self.ends.set_start(offset);
        if is_planted(Mistake::UnlinkBeforeLogStart) {
            let (removed, _) = self.segments.load().split_below(offset);
            self.remove_segments(&mut writer, removed);
        }
        let checkpoint = writer.checkpoint_now(self, true);
        for _ in 0..2 {
            let written = writer.checkpoint.write(&checkpoint_file, checkpoint);
            written.and_then(|()| checkpoint_file.sync_data()).map_err(|error| self.fail(error))?;
        }
        let (removed, kept) = self.segments.load().split_below(offset);
        self.segments.store(Arc::new(kept));
        writer
            .unsealed
            .retain(|unsealed| removed.iter().all(|segment| segment.base != unsealed.segment.base));
        self.remove_later(removed);
        self.listeners.notify_all();
        Ok(())
    }

    /// Starts a new segment, unless the active one is empty.
    pub(crate) fn roll_leading(&self, leader: &Leader<'_>) -> Result<()> {
        let slot = self.writer()?;
        loop {
            let mut writer = slot.take();
            self.failure.check()?;
            if writer.is_active_empty(self) {
                return Ok(());
            }
            if !writer.is_roll_blocked() {
                return writer.roll(self);
            }
            drop(writer);
            self.sync_leading(leader)?;
        }
    }

    /// Unlinks segments that are no longer part of the log, lowest first, and makes that durable. What cannot be
    /// removed now is removed by a later recovery; until then the log cannot be marked clean.
    fn remove_segments(&self, writer: &mut Writer, segments: Vec<Arc<Segment>>) {
        if segments.is_empty() {
            return;
        }
        let removed = segments
            .iter()
            .try_for_each(|segment| self.storage.remove_file(segment.path()))
            .and_then(|()| self.storage.sync_directory(&self.directory));
        if let Err(error) = removed {
            tracing::warn!(%error, "segments that are no longer needed stay until the next recovery");
            writer.is_littered = true;
        }
        segments.iter().for_each(|segment| segment.forget_open());
    }

    fn truncations_lock(&self) -> crate::sync::MutexGuard<'_, Vec<(crate::LogEpoch, Offset)>> {
        self.truncations.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the log was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }
}

fn damaged(
    segment: &Segment,
    position: FilePosition,
    start: Offset,
    end: Offset,
    kind: CorruptionKind,
) -> Error {
    segment.corrupt_range(position, OffsetRange { start, end }, kind)
}

/// The records of a batch with the plain body `body` that lie below `offset`, as a batch of their own that is compressed as
/// that one is. `None` if Tailwater does not look into it.
fn encode_anew(
    header: &BatchHeader,
    body: &[u8],
    offset: Offset,
    zstd_level: u32,
) -> Result<Option<EncodedBatch>, CorruptionKind> {
    let mut attributes = header.attributes;
    if attributes.is_opaque() {
        return Ok(None);
    }
    let mut kept = Vec::with_capacity(body.len());
    let (mut count, mut max_create_time) = (0, header.base_create_time);
    for view in RecordIter::new(header, body) {
        let view = view.map_err(|fault| CorruptionKind::MalformedRecord { index: fault.index })?;
        if header.base_offset.get() + u64::from(view.offset_delta()) >= offset.get() {
            break;
        }
        let headers: Vec<_> = view.headers().collect();
        let fields = RecordFields { key: view.key(), value: view.value(), headers: &headers };
        format::encode(&fields, view.time_delta(), view.offset_delta(), &mut kept);
        let created = header.base_create_time.as_millis().wrapping_add(view.time_delta());
        max_create_time = max_create_time.max(Timestamp::from_millis(created));
        count += 1;
    }
    let compression = attributes.compression();
    if compression != Compression::None {
        match format::compress(compression, i32::try_from(zstd_level).unwrap_or(i32::MAX), &kept) {
            Some(compressed) => kept = compressed,
            None => attributes = attributes.with_compression(Compression::None),
        }
    }
    let length =
        (BATCH_HEADER_BYTES + kept.len()) as u64 + (header.header_bytes() - BATCH_HEADER_BYTES) as u64;
    let span = offset.since(header.base_offset);
    let header = BatchHeader {
        length_bytes: u32::try_from(length).unwrap_or(u32::MAX),
        attributes,
        last_offset_delta: u32::try_from(span - 1).unwrap_or(u32::MAX),
        record_count: count,
        max_create_time,
        ..*header
    };
    Ok(Some((header, kept)))
}
