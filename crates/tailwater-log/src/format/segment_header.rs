//! Segment headers: `docs/format.md`, section "Segment header".

use byteorder::{ByteOrder, LittleEndian};

use super::VERSION;
use crate::error::UnsupportedFeature;
use crate::limits::SECTOR_BYTES;
use crate::{FilePosition, LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId};

const MAGIC: &[u8; 8] = b"TWSEGMNT";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + MAGIC.len();
const FLAGS_AT: usize = VERSION_AT + size_of::<u16>();
const PARTITION_AT: usize = FLAGS_AT + size_of::<u16>();
const TOPIC_ID_AT: usize = PARTITION_AT + size_of::<u32>();
const EPOCH_AT: usize = TOPIC_ID_AT + 16;
const CRC_AT: usize = EPOCH_AT + size_of::<u32>();
const EPOCH_START_AT: usize = CRC_AT + size_of::<u32>();
const SALT_AT: usize = EPOCH_START_AT + size_of::<u64>();
const CREATED_AT: usize = SALT_AT + size_of::<u64>();

const COMPACTED_END_AT: usize = SEGMENT_HEADER_BYTES;
const CLEANED_END_AT: usize = COMPACTED_END_AT + size_of::<u64>();
const NEXT_HORIZON_AT: usize = CLEANED_END_AT + size_of::<u64>();
/// Size of the header of a segment that compaction made, in bytes.
const COMPACTED_HEADER_BYTES: usize = NEXT_HORIZON_AT + size_of::<i64>();

/// The segment was made by compaction, and what that says of it follows the header.
const COMPACTED_FLAG: u16 = 1;
/// Stands for no horizon.
const NO_HORIZON: i64 = i64::MAX;

/// Size of a segment header, in bytes.
pub const SEGMENT_HEADER_BYTES: usize = CREATED_AT + size_of::<i64>();
const _: () = assert!(SEGMENT_HEADER_BYTES == 64);

/// Size of what stands before the data: two sectors, each beginning with a copy of the header.
pub const SEGMENT_PREFIX_BYTES: usize = 2 * SECTOR_BYTES;

/// Where the first batch of a segment begins.
pub const SEGMENT_DATA_START: FilePosition = FilePosition::new(SEGMENT_PREFIX_BYTES as u64);

/// The header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Which partition the segment belongs to.
    pub identity: PartitionIdentity,
    /// The log epoch that the segment was made in.
    pub epoch: LogEpoch,
    /// Where that epoch began.
    pub epoch_start: Offset,
    /// Random bits that the checksums of its batches are bound to.
    pub salt: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Set if compaction made it.
    pub compacted: Option<Compacted>,
}

/// What a segment that compaction made says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Compacted {
    /// The end of the offsets that it stands for: segments of its epoch that begin between its base and this are what it
    /// took the place of.
    pub end: Offset,
    /// Up to here none of its records has a later one of the same key that was there when it was cleaned.
    pub cleaned_end: Offset,
    /// From when on compaction may remove the first of its tombstones, if it has any of which that is settled.
    pub next_horizon: Option<Timestamp>,
}

/// Which copies of a header verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderCopies {
    /// Both.
    Both,
    /// The one at 0.
    OnlyFirst,
    /// The one at 512.
    OnlySecond,
}

/// Why bytes are not the beginning of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentHeaderFault {
    /// No copy verifies, or they contradict each other.
    Bad,
    /// A copy verifies and needs something that this version does not know.
    Unsupported(UnsupportedFeature),
}

impl SegmentHeader {
    /// The first [`SEGMENT_PREFIX_BYTES`] of the file.
    #[must_use]
    pub fn encode_prefix(&self) -> [u8; SEGMENT_PREFIX_BYTES] {
        let mut bytes = [0; SEGMENT_PREFIX_BYTES];
        let (first, second) = bytes.split_at_mut(SECTOR_BYTES);
        self.encode(first);
        self.encode(second);
        bytes
    }

    fn encode(&self, out: &mut [u8]) {
        out[MAGIC_AT..VERSION_AT].copy_from_slice(MAGIC);
        LittleEndian::write_u16(&mut out[VERSION_AT..], VERSION);
        LittleEndian::write_u16(&mut out[FLAGS_AT..], self.compacted.map_or(0, |_| COMPACTED_FLAG));
        LittleEndian::write_u32(&mut out[PARTITION_AT..], self.identity.partition.get());
        out[TOPIC_ID_AT..EPOCH_AT].copy_from_slice(self.identity.topic_id.as_bytes());
        LittleEndian::write_u32(&mut out[EPOCH_AT..], self.epoch.get());
        LittleEndian::write_u64(&mut out[EPOCH_START_AT..], self.epoch_start.get());
        LittleEndian::write_u64(&mut out[SALT_AT..], self.salt);
        LittleEndian::write_i64(&mut out[CREATED_AT..], self.created.as_millis());
        let mut length = SEGMENT_HEADER_BYTES;
        if let Some(compacted) = self.compacted {
            length = COMPACTED_HEADER_BYTES;
            let horizon = compacted.next_horizon.map_or(NO_HORIZON, Timestamp::as_millis);
            LittleEndian::write_u64(&mut out[COMPACTED_END_AT..], compacted.end.get());
            LittleEndian::write_u64(&mut out[CLEANED_END_AT..], compacted.cleaned_end.get());
            LittleEndian::write_i64(&mut out[NEXT_HORIZON_AT..], horizon);
        }
        let crc = checksum(&out[..length]);
        LittleEndian::write_u32(&mut out[CRC_AT..], crc);
    }

    /// Reads the header from the first bytes of a file, and tells which copies of it verify.
    ///
    /// # Errors
    ///
    /// Why no copy can be used.
    pub fn decode_prefix(bytes: &[u8]) -> Result<(Self, HeaderCopies), SegmentHeaderFault> {
        let first = Self::decode(bytes);
        let second = Self::decode(bytes.get(SECTOR_BYTES..).unwrap_or_default());
        match (first, second) {
            (Ok(first), Ok(second)) if first == second => Ok((first, HeaderCopies::Both)),
            (Ok(first), Err(SegmentHeaderFault::Bad)) => Ok((first, HeaderCopies::OnlyFirst)),
            (Err(SegmentHeaderFault::Bad), Ok(second)) => Ok((second, HeaderCopies::OnlySecond)),
            (Err(SegmentHeaderFault::Unsupported(feature)), _)
            | (_, Err(SegmentHeaderFault::Unsupported(feature))) => {
                Err(SegmentHeaderFault::Unsupported(feature))
            }
            _ => Err(SegmentHeaderFault::Bad),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderFault> {
        let short = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(SegmentHeaderFault::Bad)?;
        let is_compacted = LittleEndian::read_u16(&short[FLAGS_AT..]) & COMPACTED_FLAG != 0;
        let bytes = match is_compacted {
            true => bytes.get(..COMPACTED_HEADER_BYTES).ok_or(SegmentHeaderFault::Bad)?,
            false => short,
        };
        let is_intact = LittleEndian::read_u32(&bytes[CRC_AT..]) == checksum(bytes);
        if !is_intact || &bytes[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(SegmentHeaderFault::Bad);
        }
        let version = LittleEndian::read_u16(&bytes[VERSION_AT..]);
        if version != VERSION {
            return Err(SegmentHeaderFault::Unsupported(UnsupportedFeature::Version(version)));
        }
        let flags = LittleEndian::read_u16(&bytes[FLAGS_AT..]);
        if flags & !COMPACTED_FLAG != 0 {
            return Err(SegmentHeaderFault::Unsupported(UnsupportedFeature::Flags(flags)));
        }
        let mut topic_id = [0; 16];
        topic_id.copy_from_slice(&bytes[TOPIC_ID_AT..EPOCH_AT]);
        let offset =
            |at: usize| Offset::try_new(LittleEndian::read_u64(&bytes[at..])).ok_or(SegmentHeaderFault::Bad);
        let partition = PartitionId::try_new(LittleEndian::read_u32(&bytes[PARTITION_AT..]));
        let partition = partition.ok_or(SegmentHeaderFault::Bad)?;
        let epoch_start = offset(EPOCH_START_AT)?;
        let compacted = match is_compacted {
            false => None,
            true => Some(Compacted {
                end: offset(COMPACTED_END_AT)?,
                cleaned_end: offset(CLEANED_END_AT)?,
                next_horizon: Some(LittleEndian::read_i64(&bytes[NEXT_HORIZON_AT..]))
                    .filter(|horizon| *horizon != NO_HORIZON)
                    .map(Timestamp::from_millis),
            }),
        };
        Ok(Self {
            identity: PartitionIdentity { topic_id: TopicId::from_bytes(topic_id), partition },
            epoch: LogEpoch::new(LittleEndian::read_u32(&bytes[EPOCH_AT..])),
            epoch_start,
            salt: LittleEndian::read_u64(&bytes[SALT_AT..]),
            created: Timestamp::from_millis(LittleEndian::read_i64(&bytes[CREATED_AT..])),
            compacted,
        })
    }
}

fn checksum(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CRC_AT]);
    hasher.update(&header[EPOCH_START_AT..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: PartitionIdentity {
                topic_id: TopicId::from_bytes([9; 16]),
                partition: PartitionId::new(3),
            },
            epoch: LogEpoch::new(2),
            epoch_start: Offset::new(77),
            salt: 0xfeed,
            created: Timestamp::from_millis(1_700_000_000_000),
            compacted: None,
        }
    }

    fn compacted(next_horizon: Option<Timestamp>) -> SegmentHeader {
        let (end, cleaned_end) = (Offset::new(900), Offset::new(800));
        SegmentHeader { compacted: Some(Compacted { end, cleaned_end, next_horizon }), ..header() }
    }

    #[test]
    fn either_copy_serves() {
        let horizon = Some(Timestamp::from_millis(5));
        let (short, long) = (SEGMENT_HEADER_BYTES, COMPACTED_HEADER_BYTES);
        for (header, length) in [(header(), short), (compacted(horizon), long), (compacted(None), long)] {
            let bytes = header.encode_prefix();
            assert_eq!(SegmentHeader::decode_prefix(&bytes), Ok((header, HeaderCopies::Both)));
            for bit in 0..length * 8 {
                for (start, copies) in
                    [(0, HeaderCopies::OnlySecond), (SECTOR_BYTES, HeaderCopies::OnlyFirst)]
                {
                    let mut damaged = bytes;
                    damaged[start + bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(SegmentHeader::decode_prefix(&damaged), Ok((header, copies)), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn two_copies_that_contradict_each_other_are_bad() {
        let mut bytes = header().encode_prefix();
        let other = SegmentHeader { salt: 1, ..header() }.encode_prefix();
        bytes[SECTOR_BYTES..].copy_from_slice(&other[SECTOR_BYTES..]);
        assert_eq!(SegmentHeader::decode_prefix(&bytes), Err(SegmentHeaderFault::Bad));
        for length in 0..SEGMENT_HEADER_BYTES {
            assert_eq!(SegmentHeader::decode_prefix(&bytes[..length]), Err(SegmentHeaderFault::Bad));
        }
    }

    #[test]
    fn a_newer_version_is_named_only_if_the_header_verifies() {
        let mut bytes = header().encode_prefix();
        for start in [0, SECTOR_BYTES] {
            bytes[start + VERSION_AT] = 9;
        }
        assert_eq!(SegmentHeader::decode_prefix(&bytes), Err(SegmentHeaderFault::Bad));
        for start in [0, SECTOR_BYTES] {
            let crc = checksum(&bytes[start..start + SEGMENT_HEADER_BYTES]);
            LittleEndian::write_u32(&mut bytes[start + CRC_AT..], crc);
        }
        let unsupported = SegmentHeaderFault::Unsupported(UnsupportedFeature::Version(9));
        assert_eq!(SegmentHeader::decode_prefix(&bytes), Err(unsupported));
    }
}
