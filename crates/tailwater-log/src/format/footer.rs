//! Segment footers: `docs/format.md`, section "Footer".

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::{BatchHeader, BatchPlace, VERSION};
use crate::error::UnsupportedFeature;
use crate::{FilePosition, LogEpoch, Offset, OffsetRange, Timestamp};

const MAGIC: &[u8; 8] = b"TWFOOTER";
const TRAILER_MAGIC: &[u8; 8] = b"TWTRAILR";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + MAGIC.len();
const FLAGS_AT: usize = VERSION_AT + size_of::<u16>();
const EPOCH_COUNT_AT: usize = FLAGS_AT + size_of::<u16>();
const INDEX_COUNT_AT: usize = EPOCH_COUNT_AT + size_of::<u32>();
const PRODUCER_COUNT_AT: usize = INDEX_COUNT_AT + size_of::<u32>();
const ABORTED_COUNT_AT: usize = PRODUCER_COUNT_AT + size_of::<u32>();
const RESERVED_AT: usize = ABORTED_COUNT_AT + size_of::<u32>();
const FIRST_OFFSET_AT: usize = RESERVED_AT + size_of::<u32>();
const NEXT_OFFSET_AT: usize = FIRST_OFFSET_AT + size_of::<u64>();
const MIN_CREATE_TIME_AT: usize = NEXT_OFFSET_AT + size_of::<u64>();
const MAX_CREATE_TIME_AT: usize = MIN_CREATE_TIME_AT + size_of::<i64>();
const MIN_APPEND_TIME_AT: usize = MAX_CREATE_TIME_AT + size_of::<i64>();
const MAX_APPEND_TIME_AT: usize = MIN_APPEND_TIME_AT + size_of::<i64>();
const BATCH_COUNT_AT: usize = MAX_APPEND_TIME_AT + size_of::<i64>();
const RECORD_COUNT_AT: usize = BATCH_COUNT_AT + size_of::<u64>();
const COMPACTED_END_AT: usize = RECORD_COUNT_AT + size_of::<u64>();
const FIXED_BYTES: usize = COMPACTED_END_AT + size_of::<u64>();

const EPOCH_BYTES: usize = 16;
const INDEX_ENTRY_BYTES: usize = 16;
const PRODUCER_BYTES: usize = 32;
const ABORTED_BYTES: usize = 16;

const FOOTER_POSITION_AT: usize = 0;
const FOOTER_LENGTH_AT: usize = FOOTER_POSITION_AT + size_of::<u64>();
const FOOTER_CRC_AT: usize = FOOTER_LENGTH_AT + size_of::<u32>();
const TRAILER_RESERVED_AT: usize = FOOTER_CRC_AT + size_of::<u32>();
const TRAILER_CRC_AT: usize = TRAILER_RESERVED_AT + size_of::<u32>();
const TRAILER_MAGIC_AT: usize = TRAILER_CRC_AT + size_of::<u32>();

/// Size of the trailer, the last bytes of a sealed segment.
pub const TRAILER_BYTES: usize = TRAILER_MAGIC_AT + TRAILER_MAGIC.len();
const _: () = assert!(TRAILER_BYTES == 32);

/// Batches that begin at least this many bytes after the last indexed one are indexed.
pub const INDEX_INTERVAL_BYTES: u64 = 2048;

/// Where an epoch begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LogEpoch,
    /// Its first offset.
    pub start: Offset,
}

/// A batch in the sparse index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IndexEntry {
    /// Its base offset.
    pub offset: Offset,
    /// Where it begins in the file.
    pub position: FilePosition,
    /// Its append time.
    pub append_time: Timestamp,
}

/// The least and greatest times of a segment's batches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeBounds {
    /// Least base create time, of those that are one and no delete horizon.
    pub min_create: Timestamp,
    /// Greatest create time.
    pub max_create: Timestamp,
    /// Append time of the first batch.
    pub min_append: Timestamp,
    /// Append time of the last batch.
    pub max_append: Timestamp,
}

/// What is worth knowing of a segment without reading it: offsets, times, epochs, and the sparse index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentSummary {
    /// The segment's base offset.
    pub first_offset: Offset,
    /// The offset behind its last batch.
    pub next_offset: Offset,
    /// The times of its batches, if it has any.
    pub times: Option<TimeBounds>,
    /// How many batches it has.
    pub batch_count: u64,
    /// How many records they have.
    pub record_count: u64,
    /// The epochs of its batches, each with the first offset in this segment that has it.
    pub epochs: Vec<EpochStart>,
    /// The first batch, and then one every [`INDEX_INTERVAL_BYTES`].
    pub index: Vec<IndexEntry>,
}

/// What a named producer has appended, as of the end of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: u64,
    /// Which incarnation of it.
    pub producer_epoch: u16,
    /// The sequence number of its last record.
    pub last_sequence: u32,
    /// The offset of that record.
    pub last_offset: Offset,
    /// When it was appended.
    pub last_time: Timestamp,
}

/// The footer of a sealed segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Footer {
    /// What is in the segment.
    pub summary: SegmentSummary,
    /// The producers that had appended by its end.
    pub producers: Vec<ProducerState>,
    /// Ranges that aborted transactions left.
    pub aborted: Vec<OffsetRange>,
}

/// Why bytes are not a footer, or not a trailer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FooterFault {
    /// They do not verify.
    Bad,
    /// They verify and need something that this version does not know.
    Unsupported(UnsupportedFeature),
}

/// The last bytes of a sealed segment: where its footer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Where the footer begins.
    pub footer_position: FilePosition,
    /// Its size in bytes.
    pub footer_length: u32,
    /// Its checksum, bound to the segment's salt and its position.
    pub footer_crc: u32,
}

impl SegmentSummary {
    /// Takes a batch into account, which follows all those that were.
    pub fn add_batch(&mut self, header: &BatchHeader, position: FilePosition) {
        let is_indexed = self
            .index
            .last()
            .is_none_or(|last| position.get() >= last.position.get().saturating_add(INDEX_INTERVAL_BYTES));
        if is_indexed {
            let append_time = header.append_time;
            self.index.push(IndexEntry { offset: header.base_offset, position, append_time });
        }
        if self.epochs.last().is_none_or(|last| last.epoch != header.log_epoch) {
            self.epochs.push(EpochStart { epoch: header.log_epoch, start: header.base_offset });
        }
        let create = match header.delete_horizon() {
            Some(_) => header.max_create_time,
            None => header.base_create_time,
        };
        let times = self.times.get_or_insert(TimeBounds {
            min_create: create,
            max_create: header.max_create_time,
            min_append: header.append_time,
            max_append: header.append_time,
        });
        times.min_create = times.min_create.min(create);
        times.max_create = times.max_create.max(header.max_create_time);
        times.max_append = times.max_append.max(header.append_time);
        self.next_offset = header.next_offset();
        self.batch_count += 1;
        self.record_count += u64::from(header.record_count);
    }

    /// The last indexed batch that begins at or below `offset`.
    #[must_use]
    pub fn floor(&self, offset: Offset) -> Option<&IndexEntry> {
        let range = self.likely_range(offset);
        let after = range.start + self.index[range].partition_point(|entry| entry.offset <= offset);
        self.index[..after].last()
    }

    /// A part of the index that the last entry at or below `offset` is in, or just before: a small one where offsets and
    /// entries grow alike, as they do when records are about of a size. Each entry that a search need not look at is a wait
    /// for memory less.
    fn likely_range(&self, offset: Offset) -> Range<usize> {
        let index = &self.index[..];
        let (Some(first), Some(last)) = (index.first(), index.last()) else { return 0..0 };
        let span = last.offset.since(first.offset);
        if offset <= first.offset || offset >= last.offset || span == 0 {
            return 0..index.len();
        }
        let share = u128::from(offset.since(first.offset)) * (index.len() - 1) as u128 / u128::from(span);
        let guess = usize::try_from(share).unwrap_or(0);
        // The bounds move away from the guess in growing steps until they hold the offset between them.
        let (mut low, mut high, mut step) = (guess, guess + 1, 1);
        while index.get(low).is_some_and(|entry| entry.offset > offset) {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 1;
        while index.get(high).is_some_and(|entry| entry.offset <= offset) {
            high += step;
            step *= 2;
        }
        low..high.min(index.len())
    }

    /// The last indexed batch before which no batch was appended at or after `time`.
    #[must_use]
    pub fn floor_by_time(&self, time: Timestamp) -> Option<&IndexEntry> {
        let after = self.index.partition_point(|entry| entry.append_time < time);
        self.index[..after].last()
    }
}

impl Footer {
    /// The footer at `place`, of the segment with this base offset, and the trailer behind it.
    ///
    /// # Panics
    ///
    /// If an indexed batch lies beyond 4 GiB or 2^32 offsets from the base: a segment is smaller than that.
    #[must_use]
    pub fn encode(&self, base: Offset, place: BatchPlace) -> Vec<u8> {
        let summary = &self.summary;
        let count =
            |count: usize| u32::try_from(count).expect("a segment is below 4 GiB, so its lists are shorter");
        let mut out = vec![0; FIXED_BYTES];
        out[MAGIC_AT..VERSION_AT].copy_from_slice(MAGIC);
        LittleEndian::write_u16(&mut out[VERSION_AT..], VERSION);
        LittleEndian::write_u32(&mut out[EPOCH_COUNT_AT..], count(summary.epochs.len()));
        LittleEndian::write_u32(&mut out[INDEX_COUNT_AT..], count(summary.index.len()));
        LittleEndian::write_u32(&mut out[PRODUCER_COUNT_AT..], count(self.producers.len()));
        LittleEndian::write_u32(&mut out[ABORTED_COUNT_AT..], count(self.aborted.len()));
        LittleEndian::write_u64(&mut out[FIRST_OFFSET_AT..], summary.first_offset.get());
        LittleEndian::write_u64(&mut out[NEXT_OFFSET_AT..], summary.next_offset.get());
        if let Some(times) = summary.times {
            LittleEndian::write_i64(&mut out[MIN_CREATE_TIME_AT..], times.min_create.as_millis());
            LittleEndian::write_i64(&mut out[MAX_CREATE_TIME_AT..], times.max_create.as_millis());
            LittleEndian::write_i64(&mut out[MIN_APPEND_TIME_AT..], times.min_append.as_millis());
            LittleEndian::write_i64(&mut out[MAX_APPEND_TIME_AT..], times.max_append.as_millis());
        }
        LittleEndian::write_u64(&mut out[BATCH_COUNT_AT..], summary.batch_count);
        LittleEndian::write_u64(&mut out[RECORD_COUNT_AT..], summary.record_count);
        for begun in &summary.epochs {
            let mut entry = [0; EPOCH_BYTES];
            LittleEndian::write_u32(&mut entry, begun.epoch.get());
            LittleEndian::write_u64(&mut entry[8..], begun.start.get());
            out.extend_from_slice(&entry);
        }
        for indexed in &summary.index {
            let mut entry = [0; INDEX_ENTRY_BYTES];
            let delta =
                u32::try_from(indexed.offset.since(base)).expect("a segment spans less than 2^32 offsets");
            let position = u32::try_from(indexed.position.get()).expect("a segment is below 4 GiB");
            LittleEndian::write_u32(&mut entry, delta);
            LittleEndian::write_u32(&mut entry[4..], position);
            LittleEndian::write_i64(&mut entry[8..], indexed.append_time.as_millis());
            out.extend_from_slice(&entry);
        }
        for producer in &self.producers {
            let mut entry = [0; PRODUCER_BYTES];
            LittleEndian::write_u64(&mut entry, producer.producer_id);
            LittleEndian::write_u16(&mut entry[8..], producer.producer_epoch);
            LittleEndian::write_u32(&mut entry[12..], producer.last_sequence);
            LittleEndian::write_u64(&mut entry[16..], producer.last_offset.get());
            LittleEndian::write_i64(&mut entry[24..], producer.last_time.as_millis());
            out.extend_from_slice(&entry);
        }
        for range in &self.aborted {
            let mut entry = [0; ABORTED_BYTES];
            LittleEndian::write_u64(&mut entry, range.start.get());
            LittleEndian::write_u64(&mut entry[8..], range.end.get());
            out.extend_from_slice(&entry);
        }
        let trailer = Trailer {
            footer_position: place.position,
            footer_length: count(out.len()),
            footer_crc: Self::checksum(&out, place),
        };
        out.extend_from_slice(&trailer.encode());
        out
    }

    /// The checksum of a footer's bytes at `place`.
    #[must_use]
    pub fn checksum(footer: &[u8], place: BatchPlace) -> u32 {
        let mut hasher = place.hasher();
        hasher.update(footer);
        hasher.finalize()
    }

    /// Reads a footer whose checksum the caller has compared with the trailer's.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn decode(bytes: &[u8], base: Offset) -> Result<Self, FooterFault> {
        let fixed = bytes.get(..FIXED_BYTES).ok_or(FooterFault::Bad)?;
        if &fixed[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(FooterFault::Bad);
        }
        let version = LittleEndian::read_u16(&fixed[VERSION_AT..]);
        if version != VERSION {
            return Err(FooterFault::Unsupported(UnsupportedFeature::Version(version)));
        }
        let flags = LittleEndian::read_u16(&fixed[FLAGS_AT..]);
        if flags != 0 {
            return Err(FooterFault::Unsupported(UnsupportedFeature::Flags(flags)));
        }
        let mut rest = &bytes[FIXED_BYTES..];
        let epochs = entries(&mut rest, LittleEndian::read_u32(&fixed[EPOCH_COUNT_AT..]), EPOCH_BYTES)?;
        let index = entries(&mut rest, LittleEndian::read_u32(&fixed[INDEX_COUNT_AT..]), INDEX_ENTRY_BYTES)?;
        let producers =
            entries(&mut rest, LittleEndian::read_u32(&fixed[PRODUCER_COUNT_AT..]), PRODUCER_BYTES)?;
        let aborted = entries(&mut rest, LittleEndian::read_u32(&fixed[ABORTED_COUNT_AT..]), ABORTED_BYTES)?;
        if !rest.is_empty() {
            return Err(FooterFault::Bad);
        }
        let time = |bytes: &[u8]| Timestamp::from_millis(LittleEndian::read_i64(bytes));
        let batch_count = LittleEndian::read_u64(&fixed[BATCH_COUNT_AT..]);
        let summary = SegmentSummary {
            first_offset: offset(&fixed[FIRST_OFFSET_AT..])?,
            next_offset: offset(&fixed[NEXT_OFFSET_AT..])?,
            times: (batch_count > 0).then(|| TimeBounds {
                min_create: time(&fixed[MIN_CREATE_TIME_AT..]),
                max_create: time(&fixed[MAX_CREATE_TIME_AT..]),
                min_append: time(&fixed[MIN_APPEND_TIME_AT..]),
                max_append: time(&fixed[MAX_APPEND_TIME_AT..]),
            }),
            batch_count,
            record_count: LittleEndian::read_u64(&fixed[RECORD_COUNT_AT..]),
            epochs: epochs
                .map(|entry| {
                    let epoch = LogEpoch::new(LittleEndian::read_u32(entry));
                    Ok(EpochStart { epoch, start: offset(&entry[8..])? })
                })
                .collect::<Result<_, _>>()?,
            index: index
                .map(|entry| {
                    let delta = LittleEndian::read_u32(entry);
                    Ok(IndexEntry {
                        offset: base.checked_add(delta.into()).ok_or(FooterFault::Bad)?,
                        position: FilePosition::new(LittleEndian::read_u32(&entry[4..]).into()),
                        append_time: time(&entry[8..]),
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        if summary.first_offset != base || summary.next_offset < base {
            return Err(FooterFault::Bad);
        }
        Ok(Self {
            summary,
            producers: producers
                .map(|entry| {
                    Ok(ProducerState {
                        producer_id: LittleEndian::read_u64(entry),
                        producer_epoch: LittleEndian::read_u16(&entry[8..]),
                        last_sequence: LittleEndian::read_u32(&entry[12..]),
                        last_offset: offset(&entry[16..])?,
                        last_time: time(&entry[24..]),
                    })
                })
                .collect::<Result<_, _>>()?,
            aborted: aborted
                .map(|entry| Ok(OffsetRange { start: offset(entry)?, end: offset(&entry[8..])? }))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Trailer {
    fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        LittleEndian::write_u64(&mut out[FOOTER_POSITION_AT..], self.footer_position.get());
        LittleEndian::write_u32(&mut out[FOOTER_LENGTH_AT..], self.footer_length);
        LittleEndian::write_u32(&mut out[FOOTER_CRC_AT..], self.footer_crc);
        out[TRAILER_MAGIC_AT..].copy_from_slice(TRAILER_MAGIC);
        let crc = trailer_checksum(&out);
        LittleEndian::write_u32(&mut out[TRAILER_CRC_AT..], crc);
        out
    }

    /// Reads the last [`TRAILER_BYTES`] of a file.
    ///
    /// # Errors
    ///
    /// [`FooterFault::Bad`] if they are not a trailer.
    pub fn decode(bytes: &[u8]) -> Result<Self, FooterFault> {
        let bytes: &[u8; TRAILER_BYTES] = bytes.try_into().map_err(|_| FooterFault::Bad)?;
        let is_intact = LittleEndian::read_u32(&bytes[TRAILER_CRC_AT..]) == trailer_checksum(bytes);
        if !is_intact || &bytes[TRAILER_MAGIC_AT..] != TRAILER_MAGIC {
            return Err(FooterFault::Bad);
        }
        Ok(Self {
            footer_position: FilePosition::new(LittleEndian::read_u64(&bytes[FOOTER_POSITION_AT..])),
            footer_length: LittleEndian::read_u32(&bytes[FOOTER_LENGTH_AT..]),
            footer_crc: LittleEndian::read_u32(&bytes[FOOTER_CRC_AT..]),
        })
    }

    /// Whether the footer ends where the trailer of a file of this length begins.
    #[must_use]
    pub fn check_place(&self, file_length: u64) -> bool {
        self.footer_position.get().checked_add(u64::from(self.footer_length) + TRAILER_BYTES as u64)
            == Some(file_length)
    }
}

fn trailer_checksum(trailer: &[u8; TRAILER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&trailer[..TRAILER_CRC_AT]);
    hasher.update(&trailer[TRAILER_MAGIC_AT..]);
    hasher.finalize()
}

/// Takes `count` entries of `size` bytes from the front of `rest`.
fn entries<'a>(
    rest: &mut &'a [u8],
    count: u32,
    size: usize,
) -> Result<std::slice::ChunksExact<'a, u8>, FooterFault> {
    let bytes = (count as usize).checked_mul(size).ok_or(FooterFault::Bad)?;
    let (taken, left) = rest.split_at_checked(bytes).ok_or(FooterFault::Bad)?;
    *rest = left;
    Ok(taken.chunks_exact(size))
}

fn offset(bytes: &[u8]) -> Result<Offset, FooterFault> {
    Offset::try_new(LittleEndian::read_u64(bytes)).ok_or(FooterFault::Bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn footer() -> Footer {
        let time = Timestamp::from_millis;
        Footer {
            summary: SegmentSummary {
                first_offset: Offset::new(100),
                next_offset: Offset::new(300),
                times: Some(TimeBounds {
                    min_create: time(-1),
                    max_create: time(9),
                    min_append: time(3),
                    max_append: time(8),
                }),
                batch_count: 20,
                record_count: 200,
                epochs: vec![
                    EpochStart { epoch: LogEpoch::new(1), start: Offset::new(100) },
                    EpochStart { epoch: LogEpoch::new(4), start: Offset::new(250) },
                ],
                index: (0..10)
                    .map(|n| IndexEntry {
                        offset: Offset::new(100 + 20 * n),
                        position: FilePosition::new(1024 + 5000 * n),
                        append_time: time(3 + n.cast_signed() / 2),
                    })
                    .collect(),
            },
            producers: vec![ProducerState {
                producer_id: 1,
                producer_epoch: 2,
                last_sequence: 3,
                last_offset: Offset::new(4),
                last_time: time(5),
            }],
            aborted: vec![OffsetRange { start: Offset::new(1), end: Offset::new(2) }],
        }
    }

    const PLACE: BatchPlace = BatchPlace { salt: 77, position: FilePosition::new(60_000) };

    #[test]
    fn what_was_encoded_is_found_through_the_trailer() {
        let bytes = footer().encode(Offset::new(100), PLACE);
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        let trailer = Trailer::decode(trailer).unwrap();
        assert!(trailer.check_place(60_000 + bytes.len() as u64));
        assert!(!trailer.check_place(60_001 + bytes.len() as u64));
        assert_eq!(trailer.footer_crc, Footer::checksum(body, PLACE));
        assert_eq!(Footer::decode(body, Offset::new(100)), Ok(footer()));
        assert_eq!(Footer::decode(body, Offset::new(99)), Err(FooterFault::Bad));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = footer().encode(Offset::new(100), PLACE);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (body, trailer) = damaged.split_at(bytes.len() - TRAILER_BYTES);
            let is_noticed = Trailer::decode(trailer)
                .map_or(true, |trailer| trailer.footer_crc != Footer::checksum(body, PLACE));
            assert!(is_noticed, "bit {bit}");
        }
    }

    #[test]
    fn lookups_find_the_last_entry_before() {
        let summary = footer().summary;
        assert_eq!(summary.floor(Offset::new(99)), None);
        assert_eq!(summary.floor(Offset::new(139)).unwrap().offset, Offset::new(120));
        assert_eq!(summary.floor(Offset::new(140)).unwrap().offset, Offset::new(140));
        // Entries 0 and 1 have time 3, 2 and 3 have time 4: the first batch at 4 may lie behind entry 1.
        assert_eq!(summary.floor_by_time(Timestamp::from_millis(4)).unwrap().offset, Offset::new(120));
        assert_eq!(summary.floor_by_time(Timestamp::from_millis(3)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Footer::decode(&bytes, Offset::ZERO);
            let _ = Trailer::decode(&bytes);
            let mut plausible = footer().encode(Offset::new(100), PLACE);
            for (byte, other) in plausible.iter_mut().skip(VERSION_AT + 4).zip(&bytes) {
                *byte = *other;
            }
            let _ = Footer::decode(&plausible, Offset::new(100));
        }
    }
}
