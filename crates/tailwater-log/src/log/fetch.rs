//! Reading by offset: lock-free below the published end, every batch checked before its records are handed out.

use std::sync::Arc;

use bytes::Bytes;

use super::{FetchIsolation, FetchLimits, Inner};
use crate::error::CorruptionKind;
use crate::format::{
    self, BatchHeader, Control, Header, HeaderFault, MalformedRecord, RecordIter, RecordView,
    SEGMENT_DATA_START,
};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{BatchFault, BatchWalk, OpenSegment, Segment, SegmentList};
use crate::storage::FileSlice;
use crate::{FilePosition, LogEpoch, Offset, OffsetRange, Result, Timestamp, ttl};

/// What one fetch read. Owned: it keeps the bytes it refers to alive, also when their segment is removed.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    batches: Vec<FetchedBatch>,
    lost: Option<OffsetRange>,
    record_count: usize,
    next_offset: Offset,
    hint: Option<FetchHint>,
}

impl Fetched {
    /// The batches, in the order of their offsets.
    #[must_use]
    pub fn batches(&self) -> &[FetchedBatch] {
        &self.batches
    }

    /// How many records there are.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.record_count
    }

    /// Takes out the records whose time to live ([`ttl`](mod@crate::ttl)) is over at the time that `now` says: they are not counted, and not
    /// among the records, from here on. Returns how many that are. Asks for the time, and looks at records, only where some
    /// have headers.
    pub fn take_out_expired(&mut self, now: impl FnOnce() -> Timestamp) -> usize {
        let mut taken_out = 0;
        if self.batches.iter().any(|batch| batch.has_headers) {
            let now = now();
            for batch in self.batches.iter_mut().filter(|batch| batch.has_headers) {
                let expired = batch.records().filter(|record| record.is_expired(now)).count();
                if expired > 0 {
                    // What was taken out before stays out, should the clock have been put back since.
                    batch.expired_at = batch.expired_at.max(Some(now));
                    taken_out += expired;
                }
            }
        }
        self.record_count -= taken_out;
        taken_out
    }

    /// Whether there is neither a record nor an opaque batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Offsets before the first batch whose records a repair has taken out: what this fetch asked for begins in them.
    #[must_use]
    pub fn lost(&self) -> Option<OffsetRange> {
        self.lost
    }

    /// The offset to fetch from next. It can move on even when there are no records, past batches that carry none.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Lets the fetch that continues at [`next_offset`](Fetched::next_offset) skip its look-up.
    #[must_use]
    pub fn hint(&self) -> Option<FetchHint> {
        self.hint.clone()
    }

    /// The records, in the order of their offsets. Opaque batches have none.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        AllRecords { batches: self.batches.iter(), records: None }
    }
}

/// The records of several batches.
struct AllRecords<'f> {
    batches: std::slice::Iter<'f, FetchedBatch>,
    /// Those of the batch that it is at.
    records: Option<Records<'f>>,
}

impl<'f> Iterator for AllRecords<'f> {
    type Item = Record<'f>;

    #[inline(always)]
    fn next(&mut self) -> Option<Record<'f>> {
        loop {
            if let Some(record) = self.records.as_mut().and_then(Records::next) {
                return Some(record);
            }
            self.records = Some(Records::of(self.batches.next()?));
        }
    }
}

/// The records of one batch that were asked for.
struct Records<'f> {
    batch: &'f FetchedBatch,
    views: RecordIter<'f>,
    /// From here on all are wanted, and none has expired: one comparison for the records of most batches.
    plain_from: Offset,
}

impl<'f> Records<'f> {
    fn of(batch: &'f FetchedBatch) -> Self {
        let views = match batch.header.attributes.is_opaque() {
            true => RecordIter::empty(),
            false => RecordIter::new(&batch.header, &batch.body),
        };
        let plain_from = if batch.expired_at.is_none() { batch.wanted.start } else { Offset::MAX };
        Self { batch, views, plain_from }
    }
}

impl<'f> Iterator for Records<'f> {
    type Item = Record<'f>;

    #[inline(always)]
    fn next(&mut self) -> Option<Record<'f>> {
        loop {
            // Fetching has walked over them all: a malformed one was refused there.
            let record = Record { batch: self.batch, view: self.views.next()?.ok()? };
            let offset = record.offset();
            if offset >= self.batch.wanted.end {
                self.views = RecordIter::empty();
                return None;
            }
            if offset >= self.plain_from {
                return Some(record);
            }
            if offset >= self.batch.wanted.start && !record.is_taken_out() {
                return Some(record);
            }
        }
    }
}

/// Where a fetch ended, for the one that continues it. Where it ended within a compressed batch, it keeps that decompressed.
#[derive(Clone, Debug)]
pub struct FetchHint {
    /// Where the fetch that continues it begins.
    from: Offset,
    segment: Arc<Segment>,
    /// The batch that has this offset, or the place behind all batches.
    position: FilePosition,
    /// Where that batch begins: `from`, or below it.
    offset: Offset,
    decompressed: Option<Box<FileSlice>>,
}

/// A batch that was fetched: its checksums and the structure of its records have been checked.
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    header: BatchHeader,
    body: FileSlice,
    /// The records asked for: the batch may hold earlier and later ones.
    wanted: OffsetRange,
    /// Whether any of them may have headers.
    has_headers: bool,
    /// Those that had expired at this time are left out.
    expired_at: Option<Timestamp>,
}

impl FetchedBatch {
    /// The header, as stored.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The bytes behind the header: records, or what the appender of an opaque batch gave. Those of a compressed batch are
    /// decompressed, so the header tells another length and another checksum.
    #[must_use]
    pub fn body(&self) -> &FileSlice {
        &self.body
    }

    /// The records that were asked for. None for an opaque batch.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        Records::of(self)
    }
}

/// A record in a [`FetchedBatch`], which it borrows.
#[derive(Clone, Copy, Debug)]
pub struct Record<'f> {
    batch: &'f FetchedBatch,
    view: RecordView<'f>,
}

impl<'f> Record<'f> {
    /// Its offset.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> Offset {
        // Checked when the batch's header was: base and last offset are below 2^63.
        Offset::new(self.batch.header.base_offset.get() + u64::from(self.view.offset_delta()))
    }

    /// The log epoch that it was appended in.
    #[must_use]
    pub fn epoch(&self) -> LogEpoch {
        self.batch.header.log_epoch
    }

    /// Its key, if it has one.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<&'f [u8]> {
        self.view.key()
    }

    /// Its value; `None` for a tombstone.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Option<&'f [u8]> {
        self.view.value()
    }

    /// Its headers, in the order they were given.
    pub fn headers(&self) -> impl Iterator<Item = Header<'f>> + use<'f> {
        self.view.headers()
    }

    #[cold]
    #[inline(never)]
    fn is_taken_out(self) -> bool {
        self.batch.expired_at.is_some_and(|now| self.is_expired(now))
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        ttl::is_expired(self.headers(), self.appended_at(), now)
    }

    /// When it was made: what its producer said, or the time of the append.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_millis(
            self.batch.header.base_create_time.as_millis().wrapping_add(self.view.time_delta()),
        )
    }

    /// When its batch was appended: never less than that of an earlier record.
    #[must_use]
    pub fn appended_at(&self) -> Timestamp {
        self.batch.header.append_time
    }

    /// Its key as owned bytes that keep the batch alive. Not copied.
    #[must_use]
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key().map(|key| self.owned(key))
    }

    /// Its value as owned bytes that keep the batch alive. Not copied.
    #[must_use]
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value().map(|value| self.owned(value))
    }

    fn owned(&self, part: &'f [u8]) -> Bytes {
        let start = part.as_ptr().addr() - self.batch.body.as_ptr().addr();
        self.batch.body.slice(start..start + part.len()).into_bytes()
    }
}

impl Inner {
    pub(crate) fn fetch(
        &self,
        from: Offset,
        limits: FetchLimits,
        isolation: FetchIsolation,
        mut hint: Option<FetchHint>,
    ) -> Result<Fetched> {
        if isolation == FetchIsolation::LogEnd && self.writer.is_some() && !self.failure.is_set() {
            // What is only staged cannot be read; failing to write it is the appender's error, not the reader's.
            let _ = self.write_staged(None);
        }
        self.look_at_segments(|_| self.fetch_from(from, limits, isolation, hint.take()))
    }

    fn fetch_from(
        &self,
        from: Offset,
        limits: FetchLimits,
        isolation: FetchIsolation,
        hint: Option<FetchHint>,
    ) -> Result<Fetched> {
        // The end is read on both sides of the list: a roll lists the new segment before it moves the end on, and a
        // truncation moves the end back before it changes the list. The smaller one is within the list either way.
        let end = self.visible_end(isolation);
        let segments = self.segments.load_full();
        let end = end.min(self.visible_end(isolation));
        // Read after the list: a removal moves the log start first.
        let start = self.ends.start();
        if from < start || (from > end && from > self.log_end_offset()) {
            return Err(self.out_of_range(from, self.log_end_offset()));
        }
        let mut fetch = Fetch {
            log: self,
            segments: &segments,
            from,
            end,
            limits,
            size_bytes: 0,
            at: None,
            decompressed: None,
            out: Fetched::default(),
        };
        fetch.out.next_offset = from;
        if from < end {
            fetch.run(hint)?;
        }
        let (from, decompressed) = (fetch.out.next_offset, fetch.decompressed);
        let hint = fetch.at.map(|(segment, position, offset)| FetchHint {
            from,
            segment: Arc::clone(segment),
            position,
            offset,
            decompressed,
        });
        Ok(Fetched { hint, ..fetch.out })
    }
}

/// One fetch under way.
struct Fetch<'l> {
    log: &'l Inner,
    segments: &'l SegmentList,
    from: Offset,
    end: Offset,
    limits: FetchLimits,
    size_bytes: u64,
    /// Behind the last batch that was read whole, or where one begins of which there is more to read.
    at: Option<(&'l Arc<Segment>, FilePosition, Offset)>,
    /// The batch that begins where this fetch does, or the one in which it ends, decompressed.
    decompressed: Option<Box<FileSlice>>,
    out: Fetched,
}

impl<'l> Fetch<'l> {
    fn run(&mut self, hint: Option<FetchHint>) -> Result<()> {
        let mut index = self.segments.index_of(self.from);
        // The first batch is to be found; from then on each is where the one before ends.
        let mut place = hint.filter(|hint| {
            hint.from == self.from
                && hint.offset <= self.from
                && self.segments.get(index).is_some_and(|segment| Arc::ptr_eq(segment, &hint.segment))
        });
        while let Some(segment) = self.segments.get(index) {
            let segment_end = self.segments.end_of(index).min(self.end);
            let (position, offset) = match place.take() {
                Some(hint) => {
                    self.decompressed = hint.decompressed;
                    (hint.position, hint.offset)
                }
                None => self.find(segment, segment_end)?,
            };
            let stopped = match self.read_segment(segment, segment_end, position, offset) {
                Ok(stopped) => stopped,
                // Good batches come first; the damage is met again by the fetch that continues.
                Err(_) if !self.out.batches.is_empty() => true,
                Err(error) => return Err(error),
            };
            if stopped || segment_end >= self.end {
                return Ok(());
            }
            index += 1;
        }
        Ok(())
    }

    /// Where to start in `segment`: the last indexed batch at or below what is wanted, or its first.
    fn find(&self, segment: &Arc<Segment>, segment_end: Offset) -> Result<(FilePosition, Offset)> {
        if self.out.next_offset <= segment.base {
            return Ok((SEGMENT_DATA_START, segment.base));
        }
        segment.floor(&self.log.segment_context(segment_end), self.out.next_offset)
    }

    /// Reads batches of one segment. True when the limits are reached.
    fn read_segment(
        &mut self,
        segment: &'l Arc<Segment>,
        segment_end: Offset,
        mut position: FilePosition,
        mut offset: Offset,
    ) -> Result<bool> {
        let opened = segment.open(&self.log.segment_context(segment_end))?;
        while offset < segment_end {
            let (fault, kind) = match opened.published_header(position)? {
                Ok(header) if header.base_offset == offset => {
                    let next = position.plus(format::aligned(u64::from(header.length_bytes)));
                    if header.next_offset() > self.from
                        && (self.is_full(&header) || self.take(segment, &opened, position, header)?)
                    {
                        return Ok(true);
                    }
                    (position, offset) = (next, header.next_offset());
                    self.at = Some((segment, position, offset));
                    self.out.next_offset = self.out.next_offset.max(offset.min(segment_end));
                    continue;
                }
                Ok(header) => {
                    let kind = CorruptionKind::UnexpectedOffset { found: header.base_offset };
                    (BatchFault::Offset { header }, kind)
                }
                Err(fault) => (BatchFault::Header(fault), kind_of(&fault)),
            };
            // Damage on the way to what is wanted is passed over; damage in it is an error that says where it ends.
            let next =
                next_good(&opened, segment, position, offset, &fault).filter(|(_, next)| *next < segment_end);
            match next {
                Some((next_position, next_offset)) if next_offset <= self.from => {
                    (position, offset) = (next_position, next_offset);
                }
                next => {
                    let end = next.map_or(segment_end, |(_, next)| next);
                    let offsets = OffsetRange { start: offset.max(self.from), end };
                    if let BatchFault::Header(HeaderFault::Unsupported(feature)) = fault {
                        return Err(segment.unsupported(offsets, feature));
                    }
                    return Err(segment.corrupt_range(position, offsets, kind));
                }
            }
        }
        Ok(false)
    }

    /// Whether a further batch would go over a limit.
    fn is_full(&self, header: &BatchHeader) -> bool {
        !self.out.batches.is_empty()
            && (self.size_bytes + u64::from(header.length_bytes) > self.limits.max_bytes
                || self.out.record_count >= self.limits.max_records as usize)
    }

    /// How many batches the fetch will return, if they are of the usual size and there are as many.
    fn likely_batches(&self) -> usize {
        const USUAL_BATCH_BYTES: u64 = 4096;
        const MOST: u64 = 256;
        let by_size = self.limits.max_bytes / USUAL_BATCH_BYTES;
        let least_per_batch = self.limits.max_records.into();
        usize::try_from(by_size.min(least_per_batch).min(self.end.since(self.from)).min(MOST)).unwrap_or(0)
            + 1
    }

    /// The plain body of a batch whose stored one is `body`. `None` if it is so large that it goes over the limits.
    #[cold]
    fn decode(
        &self,
        segment: &Segment,
        position: FilePosition,
        header: &BatchHeader,
        body: &[u8],
    ) -> Result<Option<FileSlice>> {
        let plain_bytes = format::uncompressed_bytes(header, body).map_or(0, u64::from);
        if !self.out.batches.is_empty() && self.size_bytes + plain_bytes > self.limits.max_bytes {
            return Ok(None);
        }
        match format::plain_body(header, body) {
            Ok(plain) => Ok(Some(plain.into_owned().into())),
            Err(unreadable) => {
                let start = self.from.max(header.base_offset);
                let offsets = OffsetRange { start, end: header.next_offset() };
                Err(segment.unreadable(position, offsets, unreadable))
            }
        }
    }

    /// Checks a batch and adds it. True if not all of its records were wanted because of the limits.
    fn take(
        &mut self,
        segment: &'l Arc<Segment>,
        opened: &OpenSegment,
        position: FilePosition,
        header: BatchHeader,
    ) -> Result<bool> {
        let corrupt = |kind| segment.corrupt_range(position, header.offsets(), kind);
        let attributes = header.attributes;
        let body = match self.decompressed.take() {
            Some(decompressed) => *decompressed,
            None => {
                let body_position = position.plus(header.header_bytes() as u64);
                let body = opened.published_bytes(body_position, header.body_bytes())?;
                if body.len() < header.body_bytes() {
                    return Err(corrupt(CorruptionKind::MissingBatch));
                }
                let checked = format::check_body(&header, &body).map_err(|fault| {
                    corrupt(CorruptionKind::ChecksumMismatch {
                        stored: fault.stored,
                        computed: fault.computed,
                    })
                });
                if !is_planted(Mistake::ReadWithoutChecksum) {
                    checked?;
                }
                match attributes.is_plain() {
                    true => body,
                    false => match self.decode(segment, position, &header, &body)? {
                        Some(plain) => plain,
                        None => return Ok(true),
                    },
                }
            }
        };
        if attributes.is_control() {
            return Ok(self.take_control(&header, &body));
        }
        let mut wanted = OffsetRange { start: self.from.max(header.base_offset), end: header.next_offset() };
        let room = (self.limits.max_records as usize).saturating_sub(self.out.record_count).max(1);
        let malformed =
            |fault: MalformedRecord| corrupt(CorruptionKind::MalformedRecord { index: fault.index });
        let (mut count, mut has_headers) = (0, false);
        if attributes.is_opaque() {
            count = header.record_count as usize;
        } else if wanted.start == header.base_offset && header.record_count as usize <= room {
            has_headers = RecordIter::new(&header, &body).check().map_err(malformed)?;
            count = header.record_count as usize;
        } else {
            for view in RecordIter::new(&header, &body) {
                let view = view.map_err(malformed)?;
                has_headers |= view.header_count() > 0;
                let offset = Offset::new(header.base_offset.get() + u64::from(view.offset_delta()));
                if offset < wanted.start || offset >= wanted.end {
                    continue;
                }
                if count == room {
                    // The rest was asked for by nobody, but is checked all the same before any of it is shown.
                    wanted.end = offset;
                } else {
                    count += 1;
                }
            }
        }
        let is_clipped = wanted.end < header.next_offset();
        if is_clipped {
            self.at = Some((segment, position, header.base_offset));
            self.decompressed = (!attributes.is_plain()).then(|| Box::new(body.clone()));
        }
        if count > 0 {
            self.size_bytes += (header.header_bytes() + body.len()) as u64;
            self.out.record_count += count;
            if self.out.batches.capacity() == 0 {
                self.out.batches.reserve(self.likely_batches());
            }
            self.out.batches.push(FetchedBatch { header, body, wanted, has_headers, expired_at: None });
            self.out.next_offset = wanted.end;
        }
        Ok(is_clipped)
    }
}

impl Fetch<'_> {
    /// Notes what a control batch says. True if that is to be told by a fetch that begins there.
    fn take_control(&mut self, header: &BatchHeader, body: &[u8]) -> bool {
        if Control::decode(header, body) != Some(Control::LostOffsets) {
            return false;
        }
        let is_next = self.out.lost.is_none_or(|lost| lost.end == header.base_offset);
        if !self.out.batches.is_empty() || !is_next {
            return true;
        }
        let start = self.out.lost.map_or(self.from.max(header.base_offset), |lost| lost.start);
        self.out.lost = Some(OffsetRange { start, end: header.next_offset() });
        false
    }
}

/// The first good batch behind damage at `position`, above `offset`, in the same segment: where it is.
fn next_good(
    opened: &OpenSegment,
    segment: &Segment,
    position: FilePosition,
    offset: Offset,
    fault: &BatchFault,
) -> Option<(FilePosition, Offset)> {
    let end = match segment.data_end() {
        Some(end) => end,
        None => FilePosition::new(opened.file.length().ok()?),
    };
    let mut walk = BatchWalk::new(opened, position, end);
    walk.skip(fault);
    loop {
        let batch = walk.find().ok()??;
        if batch.header.base_offset > offset {
            return Some((batch.position, batch.header.base_offset));
        }
    }
}

/// How damage of a batch header is reported.
pub(crate) fn kind_of(fault: &HeaderFault) -> CorruptionKind {
    match fault {
        HeaderFault::Checksum { stored, computed } => {
            CorruptionKind::ChecksumMismatch { stored: *stored, computed: *computed }
        }
        _ => CorruptionKind::MissingBatch,
    }
}
