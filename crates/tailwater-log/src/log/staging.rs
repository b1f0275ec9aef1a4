//! Records in memory that are not written yet.
//!
//! - Every batch here has its place in the active segment, and that place is allocated: an offset is given out only
//!   when its batch fits (admission before assignment).
//! - Only the last batch may be open, and only single plain records go into an open one. Taking the buffer closes it.
//! - The staging lock is held for copying and counting only: compression, checksums and writes happen on a taken buffer.
//! - A batch that is to be compressed has room for what it is uncompressed. What is staged behind it moves up when that is
//!   known ([`Staging::move_back`]), before anything of it is written.

use crate::error::InvalidBatch;
use crate::format::{
    self, ALIGNMENT, ALIGNMENT_BYTES, BATCH_HEADER_BYTES, BatchAttributes, BatchHeader, BatchPlace,
    RecordFields,
};
use crate::limits::{KIB, MAX_BATCH_OFFSETS};
use crate::{
    Compression, Durability, Error, FilePosition, LogConfig, LogEpoch, Offset, OffsetRange, Result, Timestamp,
};

use super::append::Staged;
use super::{Appended, NewRecord, OpaqueBatch};

/// Size at which an open batch takes no more records, in bytes. Large enough that a header costs 1 percent of it, small
/// enough that one record can be read without checking much else.
const OPEN_BATCH_BYTES: usize = 8 * KIB as usize;

/// The same for a batch that is to be compressed: what repeats is found only within a batch. Beyond this little is gained,
/// and each record that is read on its own costs the whole batch.
const OPEN_COMPRESSED_BATCH_BYTES: usize = 64 * KIB as usize;

/// What has to happen before a batch can be staged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// The staged bytes have to be written.
    Drain,
    /// The active segment has no room for this many bytes more.
    Space { batch_bytes: u64 },
}

/// Why a batch was not staged.
#[derive(Debug)]
pub(crate) enum Refusal {
    Need(Need),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Error(error)
    }
}

/// Bytes for one write, and the batches in them.
#[derive(Debug, Default)]
pub(crate) struct StagedBuffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) batches: Vec<StagedBatch>,
    /// Where `bytes` begins in the active segment.
    pub(crate) position: FilePosition,
    /// When its first record was staged.
    pub(crate) since: Timestamp,
}

/// A batch in a [`StagedBuffer`]: its header lacks the checksum and the durable mark until the buffer is taken, and says
/// until then how the batch is to be compressed, which it is not.
#[derive(Debug)]
pub(crate) struct StagedBatch {
    /// Where the batch begins in the buffer.
    pub(crate) start: usize,
    pub(crate) header: BatchHeader,
}

impl StagedBuffer {
    /// Fills in the headers: checksums, and how far behind each batch the durable offset is.
    pub(crate) fn finish(&mut self, salt: u64, durable: Offset) {
        for batch in &mut self.batches {
            let start = batch.start;
            let header = &mut batch.header;
            let body = start + header.header_bytes()..start + header.length_bytes as usize;
            header.body_crc = crc32fast::hash(&self.bytes[body]);
            header.durable_back = u32::try_from(header.base_offset.since(durable)).unwrap_or(u32::MAX);
            let place = BatchPlace { salt, position: self.position.plus(start as u64) };
            header.encode(place, &mut self.bytes[start..]);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.batches.clear();
    }
}

/// The staging state of a log: what the append lock guards.
#[derive(Debug)]
pub(crate) struct Staging {
    /// In a box, as it goes from hand to hand.
    buffer: Box<StagedBuffer>,
    spare: Option<Box<StagedBuffer>>,
    /// The last batch of the buffer takes more records.
    has_open_batch: bool,
    /// Where in the buffer the open batch may end at most; 0 where it takes nothing more, or there is none, or it is not
    /// compressed as the log's configuration says.
    open_end: usize,
    /// The same for an open batch at which there is more to look at: one that is compressed otherwise, or one of a log that
    /// takes records with a key only.
    other_open_end: usize,
    /// Whether records without a key are refused.
    is_keyed: bool,
    next_offset: Offset,
    epoch: LogEpoch,
    /// No batch may end past this position of the active segment: beyond it nothing is allocated.
    room_end: u64,
    /// No batch but the first of its segment may end past this position.
    roll_at: u64,
    limit_bytes: usize,
    max_batch_bytes: usize,
    durability: Durability,
    compression: Compression,
    /// Append times never decrease, whatever the clock does.
    latest_append_time: Timestamp,
    /// Why nothing more is taken.
    stopped: Option<Error>,
}

/// Where the next staged batch goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagingPlace {
    pub(crate) position: FilePosition,
    pub(crate) room_end: u64,
    pub(crate) roll_at: u64,
}

impl Staging {
    pub(crate) fn new(
        next_offset: Offset,
        epoch: LogEpoch,
        place: StagingPlace,
        config: &LogConfig,
        latest_append_time: Timestamp,
    ) -> Self {
        Self {
            buffer: Box::new(StagedBuffer { position: place.position, ..StagedBuffer::default() }),
            spare: None,
            has_open_batch: false,
            open_end: 0,
            other_open_end: 0,
            is_keyed: config.cleanup_policy.is_compacted(),
            next_offset,
            epoch,
            room_end: place.room_end,
            roll_at: place.roll_at,
            limit_bytes: config.staging_bytes as usize,
            max_batch_bytes: config.max_batch_bytes as usize,
            durability: config.durability,
            compression: config.compression,
            latest_append_time,
            stopped: None,
        }
    }

    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The epoch of what is appended next.
    pub(crate) fn epoch(&self) -> LogEpoch {
        self.epoch
    }

    pub(crate) fn staged_bytes(&self) -> u64 {
        self.buffer.bytes.len() as u64
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes as u64
    }

    pub(crate) fn staged_since(&self) -> Option<Timestamp> {
        (!self.buffer.batches.is_empty()).then_some(self.buffer.since)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.batches.is_empty()
    }

    pub(crate) fn latest_append_time(&self) -> Timestamp {
        self.latest_append_time
    }

    /// Where the next batch would begin.
    pub(crate) fn next_position(&self) -> FilePosition {
        self.buffer.position.plus(format::aligned(self.buffer.bytes.len() as u64))
    }

    /// The durability that the log is configured with.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn set_room_end(&mut self, room_end: u64) {
        self.room_end = room_end;
        self.limit_open_batch();
    }

    pub(crate) fn set_config(&mut self, config: &LogConfig) {
        self.limit_bytes = config.staging_bytes as usize;
        self.max_batch_bytes = config.max_batch_bytes as usize;
        self.durability = config.durability;
        self.compression = config.compression;
        self.roll_at = u64::from(config.roll_bytes());
        self.is_keyed = config.cleanup_policy.is_compacted();
        self.limit_open_batch();
    }

    pub(crate) fn stopped(&self) -> Option<&Error> {
        self.stopped.as_ref()
    }

    /// Takes nothing more; the first reason given stays.
    pub(crate) fn stop(&mut self, reason: Error) {
        self.stopped.get_or_insert(reason);
        self.limit_open_batch();
    }

    /// Begins to stage for another segment (or another history). Nothing may be staged.
    pub(crate) fn move_to(&mut self, place: StagingPlace, next_offset: Offset, epoch: LogEpoch) {
        assert!(self.is_empty(), "staging moves between segments only when it is empty");
        self.buffer.position = place.position;
        self.room_end = place.room_end;
        self.roll_at = place.roll_at;
        self.next_offset = next_offset;
        self.epoch = epoch;
    }

    /// Takes what is staged for one write, or `None` if there is nothing.
    pub(crate) fn take(&mut self) -> Option<Box<StagedBuffer>> {
        if self.is_empty() {
            return None;
        }
        self.close_batch();
        let mut next = self.spare.take().unwrap_or_default();
        next.position = self.buffer.position.plus(self.buffer.bytes.len() as u64);
        Some(std::mem::replace(&mut self.buffer, next))
    }

    /// Notes that what was taken last ends `saved_bytes` earlier in the segment than was reserved for it.
    pub(crate) fn move_back(&mut self, saved_bytes: u64) {
        self.buffer.position = FilePosition::new(self.buffer.position.get() - saved_bytes);
        self.limit_open_batch();
    }

    /// Gives a written buffer back for reuse, unless one large batch has made it larger than staging is meant to be.
    pub(crate) fn recycle(&mut self, mut buffer: Box<StagedBuffer>) {
        if buffer.bytes.capacity() <= 2 * self.limit_bytes {
            buffer.clear();
            self.spare = Some(buffer);
        }
    }

    /// How the log is configured to compress, or as `own` says.
    fn compression_of(&self, own: Option<Compression>) -> Compression {
        own.unwrap_or(self.compression)
    }

    /// Stages one record, into the open batch if there is one that takes it. It is compressed as the log is configured, or
    /// as `own` says.
    pub(crate) fn append_one(
        &mut self,
        record: &NewRecord<'_>,
        own: Option<Compression>,
        now: Timestamp,
    ) -> Result<Appended, Refusal> {
        let is_usual = self.compression_of(own) == self.compression;
        let staged = if is_usual { self.extend_open_batch(record, now) } else { Staged::nothing() };
        if staged.is_nothing() { self.open_batch(record, own, now) } else { Ok(staged.appended()) }
    }

    /// How the open batch is to be compressed.
    fn open_compression(&self) -> Option<Compression> {
        let open = self.buffer.batches.last().filter(|_| self.has_open_batch)?;
        Some(open.header.attributes.compression())
    }

    /// Puts a record that is compressed as the log is configured into the open batch, if there is one and the record fits.
    #[inline(always)]
    pub(crate) fn extend_open_batch(&mut self, record: &NewRecord<'_>, now: Timestamp) -> Staged {
        self.extend_within(self.open_end, record, now)
    }

    /// Puts a record into the open batch, if that may end at `open_end` and the record fits.
    #[inline(always)]
    fn extend_within(&mut self, open_end: usize, record: &NewRecord<'_>, now: Timestamp) -> Staged {
        if open_end == 0 {
            return Staged::nothing();
        }
        let (Some(next_offset), Some(batch)) =
            (self.next_offset.checked_add(1), self.buffer.batches.last_mut())
        else {
            return Staged::nothing();
        };
        let header = &mut batch.header;
        let created = record.created_at.unwrap_or(now);
        let time_delta = created.as_millis().wrapping_sub(header.base_create_time.as_millis());
        let offset_delta = header.last_offset_delta + 1;
        let bytes = &mut self.buffer.bytes;
        if !format::encode_within(&fields(record), time_delta, offset_delta, open_end, bytes) {
            return Staged::nothing();
        }
        header.last_offset_delta = offset_delta;
        header.record_count += 1;
        header.max_create_time = header.max_create_time.max(created);
        // The batch's time is that of its newest record: a reader who asks for a time then misses none.
        self.latest_append_time = self.latest_append_time.max(now);
        header.append_time = self.latest_append_time;
        let offsets = OffsetRange { start: self.next_offset, end: next_offset };
        self.next_offset = next_offset;
        Staged::new(Appended { offsets, epoch: self.epoch }, self.durability)
    }

    /// Puts a record into the open batch, if that is one at which there is more to look at, and takes this record.
    fn extend_other_batch(
        &mut self,
        record: &NewRecord<'_>,
        own: Option<Compression>,
        now: Timestamp,
    ) -> Staged {
        let is_taken = self.open_compression() == Some(self.compression_of(own))
            && (!self.is_keyed || record.key.is_some());
        if is_taken { self.extend_within(self.other_open_end, record, now) } else { Staged::nothing() }
    }

    /// Stages one record as a batch that takes more, unless there is one that is not tried for every record.
    pub(crate) fn open_batch(
        &mut self,
        record: &NewRecord<'_>,
        own: Option<Compression>,
        now: Timestamp,
    ) -> Result<Appended, Refusal> {
        if self.other_open_end > 0 {
            let staged = self.extend_other_batch(record, own, now);
            if !staged.is_nothing() {
                return Ok(staged.appended());
            }
        }
        let appended = self.append_batch(std::slice::from_ref(record), own, now)?;
        self.has_open_batch = true;
        self.limit_open_batch();
        Ok(appended)
    }

    /// Stages the records as a batch of their own: all of them or none. It is compressed as the log is configured, or as
    /// `own` says.
    pub(crate) fn append_batch(
        &mut self,
        records: &[NewRecord<'_>],
        own: Option<Compression>,
        now: Timestamp,
    ) -> Result<Appended, Refusal> {
        let Some(first) = records.first() else {
            return Err(Error::InvalidBatch { reason: InvalidBatch::Empty }.into());
        };
        let compression = self.compression_of(own);
        if !compression.is_supported() {
            return Err(Error::UnsupportedCompression { compression }.into());
        }
        let last_offset_delta = delta_of_last(records.len())?;
        if self.is_keyed
            && let Some(index) =
                (0..).zip(records).find_map(|(index, record)| record.key.is_none().then_some(index))
        {
            return Err(Error::InvalidBatch { reason: InvalidBatch::MissingKey { index } }.into());
        }
        let base = first.created_at.unwrap_or(now);
        let created = |record: &NewRecord<'_>| record.created_at.unwrap_or(now);
        let time_delta = |record: &NewRecord<'_>| created(record).as_millis().wrapping_sub(base.as_millis());
        let header = BatchHeader {
            attributes: BatchAttributes::default().with_compression(compression),
            record_count: last_offset_delta + 1,
            base_create_time: base,
            max_create_time: records.iter().map(created).fold(base, Ord::max),
            ..self.blank_header(last_offset_delta)
        };
        let write_body = |end: usize, bytes: &mut Vec<u8>| {
            let mut records = records.iter().zip(0..);
            records.all(|(record, delta)| {
                format::encode_within(&fields(record), time_delta(record), delta, end, bytes)
            })
        };
        let body_bytes = || {
            let sizes = records.iter().zip(0..);
            let sizes = sizes
                .map(|(record, delta)| format::encoded_bytes(&fields(record), time_delta(record), delta));
            sizes.fold(0, |sum, size| sum + size as u64)
        };
        self.stage(header, now, write_body, body_bytes)
    }

    /// Stages a body that Tailwater does not look into.
    pub(crate) fn append_opaque(
        &mut self,
        batch: &OpaqueBatch<'_>,
        now: Timestamp,
    ) -> Result<Appended, Refusal> {
        let last_offset_delta = delta_of_last(batch.offset_count as usize)?;
        let created = batch.created_at.unwrap_or(now);
        let header = BatchHeader {
            attributes: BatchAttributes::default().with_opaque(),
            record_count: batch.offset_count,
            base_create_time: created,
            max_create_time: created,
            ..self.blank_header(last_offset_delta)
        };
        let write_body = |end: usize, bytes: &mut Vec<u8>| {
            let fits = batch.body.len() <= end.saturating_sub(bytes.len());
            if fits {
                bytes.extend_from_slice(batch.body);
            }
            fits
        };
        self.stage(header, now, write_body, || batch.body.len() as u64)
    }

    fn blank_header(&self, last_offset_delta: u32) -> BatchHeader {
        BatchHeader {
            length_bytes: 0,
            body_crc: 0,
            attributes: BatchAttributes::default(),
            compatible_attributes: 0,
            base_offset: self.next_offset,
            last_offset_delta,
            record_count: 0,
            base_create_time: Timestamp::default(),
            max_create_time: Timestamp::default(),
            append_time: Timestamp::default(),
            durable_back: 0,
            log_epoch: self.epoch,
            producer: None,
        }
    }

    /// Stages a batch whose body `write_body` appends to the buffer, unless the buffer would end behind the place that it
    /// is given. `body_bytes` tells how long the body is, where that has to be known beforehand.
    fn stage(
        &mut self,
        mut header: BatchHeader,
        now: Timestamp,
        write_body: impl FnOnce(usize, &mut Vec<u8>) -> bool,
        body_bytes: impl FnOnce() -> u64,
    ) -> Result<Appended, Refusal> {
        if let Some(reason) = &self.stopped {
            return Err(reason.clone().into());
        }
        let Some(next_offset) = self.next_offset.checked_add(u64::from(header.last_offset_delta) + 1) else {
            return Err(Error::Exhausted { what: "offsets" }.into());
        };
        self.close_batch();
        let start = self.buffer.bytes.len();
        let end = self.end_of_batch_at_most(start);
        let fits = end >= start + BATCH_HEADER_BYTES && {
            self.buffer.bytes.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
            write_body(end, &mut self.buffer.bytes)
        };
        if !fits {
            self.buffer.bytes.truncate(start);
            return Err(self.refusal(BATCH_HEADER_BYTES as u64 + body_bytes()));
        }
        self.latest_append_time = self.latest_append_time.max(now);
        header.append_time = self.latest_append_time;
        header.length_bytes = batch_length(&self.buffer.bytes, start);
        if self.buffer.batches.is_empty() {
            self.buffer.since = now;
        }
        self.buffer.batches.push(StagedBatch { start, header });
        let offsets = OffsetRange { start: self.next_offset, end: next_offset };
        self.next_offset = next_offset;
        Ok(Appended { offsets, epoch: self.epoch })
    }

    /// Where in the buffer a batch that begins at `start` may end at most.
    fn end_of_batch_at_most(&self, start: usize) -> usize {
        let position = self.buffer.position.get();
        let room_end = match position + start as u64 == format::SEGMENT_DATA_START.get() {
            true => self.room_end,
            false => self.room_end.min(self.roll_at),
        };
        // The next batch may begin only at an aligned place, which is within these too.
        let room = room_end.saturating_sub(position) / ALIGNMENT * ALIGNMENT;
        let staged = match start {
            0 => usize::MAX,
            _ => self.limit_bytes / ALIGNMENT_BYTES * ALIGNMENT_BYTES,
        };
        usize::try_from(room).unwrap_or(usize::MAX).min(staged).min(start + self.max_batch_bytes)
    }

    /// Why a batch of `size` bytes, header included, does not fit.
    #[cold]
    fn refusal(&self, size: u64) -> Refusal {
        if size > self.max_batch_bytes as u64 {
            let max_bytes = u32::try_from(self.max_batch_bytes).unwrap_or(u32::MAX);
            return Error::BatchTooLarge { size_bytes: size, max_bytes }.into();
        }
        let start = self.buffer.bytes.len() as u64;
        if start > 0 && start + format::aligned(size) > self.limit_bytes as u64 {
            return Refusal::Need(Need::Drain);
        }
        Refusal::Need(Need::Space { batch_bytes: size })
    }

    /// Notes where the open batch may end, if there is one.
    fn limit_open_batch(&mut self) {
        (self.open_end, self.other_open_end) = match self.buffer.batches.last() {
            Some(batch) if self.has_open_batch && self.stopped.is_none() => {
                let room = self.room_end.min(self.roll_at).saturating_sub(self.buffer.position.get());
                let room = usize::try_from(room / ALIGNMENT * ALIGNMENT).unwrap_or(usize::MAX);
                let compression = batch.header.attributes.compression();
                let most_bytes = match compression {
                    Compression::None => OPEN_BATCH_BYTES,
                    _ => OPEN_COMPRESSED_BATCH_BYTES,
                };
                let end =
                    (batch.start + most_bytes.min(self.max_batch_bytes)).min(self.limit_bytes).min(room);
                if compression == self.compression && !self.is_keyed { (end, 0) } else { (0, end) }
            }
            _ => (0, 0),
        };
    }

    /// Closes the open batch, and pads the buffer to where the next batch may begin.
    fn close_batch(&mut self) {
        let bytes = &mut self.buffer.bytes;
        if let (true, Some(batch)) = (self.has_open_batch, self.buffer.batches.last_mut()) {
            batch.header.length_bytes = batch_length(bytes, batch.start);
        }
        self.has_open_batch = false;
        (self.open_end, self.other_open_end) = (0, 0);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
    }
}

fn fields<'r>(record: &NewRecord<'r>) -> RecordFields<'r> {
    RecordFields { key: record.key, value: record.value, headers: record.headers }
}

fn delta_of_last(count: usize) -> Result<u32> {
    match u32::try_from(count) {
        Ok(0) => Err(Error::InvalidBatch { reason: InvalidBatch::Empty }),
        Ok(count) if count <= MAX_BATCH_OFFSETS => Ok(count - 1),
        _ => Err(Error::InvalidBatch { reason: InvalidBatch::TooManyOffsets }),
    }
}

fn batch_length(bytes: &[u8], start: usize) -> u32 {
    u32::try_from(bytes.len() - start)
        .expect("a batch is at most MAX_BATCH_BYTES long, as was checked at admission")
}
