//! Checkpoint slots: `docs/format.md`, section "Checkpoint".

use byteorder::{ByteOrder, LittleEndian};

use super::VERSION;
use crate::error::UnsupportedFeature;
use crate::limits::SECTOR_BYTES;
use crate::{FilePosition, LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId};

const MAGIC: &[u8; 8] = b"TWCHKPNT";
const DIRTY_FLAG: u16 = 1;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + MAGIC.len();
const FLAGS_AT: usize = VERSION_AT + size_of::<u16>();
const PARTITION_AT: usize = FLAGS_AT + size_of::<u16>();
const TOPIC_ID_AT: usize = PARTITION_AT + size_of::<u32>();
const SEQUENCE_AT: usize = TOPIC_ID_AT + 16;
const EPOCH_AT: usize = SEQUENCE_AT + size_of::<u64>();
const CRC_AT: usize = EPOCH_AT + size_of::<u32>();
const LOG_START_AT: usize = CRC_AT + size_of::<u32>();
const DURABLE_AT: usize = LOG_START_AT + size_of::<u64>();
const SCAN_BASE_AT: usize = DURABLE_AT + size_of::<u64>();
const SCAN_POSITION_AT: usize = SCAN_BASE_AT + size_of::<u64>();
const SCAN_OFFSET_AT: usize = SCAN_POSITION_AT + size_of::<u64>();
const LATEST_APPEND_TIME_AT: usize = SCAN_OFFSET_AT + size_of::<u64>();
const SEGMENT_NAMES_CRC_AT: usize = LATEST_APPEND_TIME_AT + size_of::<i64>();
const GENERATION_AT: usize = SEGMENT_NAMES_CRC_AT + size_of::<u32>();
const END: usize = GENERATION_AT + size_of::<u32>();
const _: () = assert!(END <= SECTOR_BYTES);

/// What a checkpoint slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Whose checkpoint it is.
    pub identity: PartitionIdentity,
    /// Counts the writes; the slot with the larger one is the newer. At least 1.
    pub sequence: u64,
    /// Whether the log was in use when this was written.
    pub is_dirty: bool,
    /// The log epoch.
    pub epoch: LogEpoch,
    /// First readable offset.
    pub log_start: Offset,
    /// Everything below this was durable.
    pub durable: Offset,
    /// Base offset of the segment where a scan for the end may begin.
    pub scan_base: Offset,
    /// Where in that segment.
    pub scan_position: FilePosition,
    /// The offset of the batch that is there, or would be.
    pub scan_offset: Offset,
    /// The append time of the last record.
    pub latest_append_time: Timestamp,
    /// Which segment files there are: [`segment_names_checksum`]. A clean mark is believed only beside these.
    pub segment_names_crc: u32,
    /// Another number whenever a file has taken the place of others within the epoch, so that who is attached opens them
    /// anew.
    pub generation: u32,
}

/// The checksum of the names of a partition's segments: of their base offsets, rising, 8 bytes each.
#[must_use]
pub fn segment_names_checksum(bases: impl IntoIterator<Item = Offset>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for base in bases {
        hasher.update(&base.get().to_le_bytes());
    }
    hasher.finalize()
}

/// Why bytes are not a checkpoint slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotFault {
    /// They do not verify.
    Bad,
    /// They verify and need something that this version does not know.
    Unsupported(UnsupportedFeature),
}

impl Checkpoint {
    /// The slot: one sector.
    #[must_use]
    pub fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut out = [0; SECTOR_BYTES];
        out[MAGIC_AT..VERSION_AT].copy_from_slice(MAGIC);
        LittleEndian::write_u16(&mut out[VERSION_AT..], VERSION);
        LittleEndian::write_u16(&mut out[FLAGS_AT..], if self.is_dirty { DIRTY_FLAG } else { 0 });
        LittleEndian::write_u32(&mut out[PARTITION_AT..], self.identity.partition.get());
        out[TOPIC_ID_AT..SEQUENCE_AT].copy_from_slice(self.identity.topic_id.as_bytes());
        LittleEndian::write_u64(&mut out[SEQUENCE_AT..], self.sequence);
        LittleEndian::write_u32(&mut out[EPOCH_AT..], self.epoch.get());
        LittleEndian::write_u64(&mut out[LOG_START_AT..], self.log_start.get());
        LittleEndian::write_u64(&mut out[DURABLE_AT..], self.durable.get());
        LittleEndian::write_u64(&mut out[SCAN_BASE_AT..], self.scan_base.get());
        LittleEndian::write_u64(&mut out[SCAN_POSITION_AT..], self.scan_position.get());
        LittleEndian::write_u64(&mut out[SCAN_OFFSET_AT..], self.scan_offset.get());
        LittleEndian::write_i64(&mut out[LATEST_APPEND_TIME_AT..], self.latest_append_time.as_millis());
        LittleEndian::write_u32(&mut out[SEGMENT_NAMES_CRC_AT..], self.segment_names_crc);
        LittleEndian::write_u32(&mut out[GENERATION_AT..], self.generation);
        let crc = checksum(&out);
        LittleEndian::write_u32(&mut out[CRC_AT..], crc);
        out
    }

    /// Reads a slot.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn decode(slot: &[u8]) -> Result<Self, SlotFault> {
        let slot = slot.first_chunk::<SECTOR_BYTES>().ok_or(SlotFault::Bad)?;
        let is_intact = LittleEndian::read_u32(&slot[CRC_AT..]) == checksum(slot);
        if !is_intact || &slot[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(SlotFault::Bad);
        }
        let version = LittleEndian::read_u16(&slot[VERSION_AT..]);
        if version != VERSION {
            return Err(SlotFault::Unsupported(UnsupportedFeature::Version(version)));
        }
        let flags = LittleEndian::read_u16(&slot[FLAGS_AT..]);
        if flags & !DIRTY_FLAG != 0 {
            return Err(SlotFault::Unsupported(UnsupportedFeature::Flags(flags)));
        }
        let mut topic_id = [0; 16];
        topic_id.copy_from_slice(&slot[TOPIC_ID_AT..SEQUENCE_AT]);
        let offset = |at| Offset::try_new(LittleEndian::read_u64(&slot[at..])).ok_or(SlotFault::Bad);
        let sequence = LittleEndian::read_u64(&slot[SEQUENCE_AT..]);
        if sequence == 0 {
            return Err(SlotFault::Bad);
        }
        Ok(Self {
            identity: PartitionIdentity {
                topic_id: TopicId::from_bytes(topic_id),
                partition: PartitionId::try_new(LittleEndian::read_u32(&slot[PARTITION_AT..]))
                    .ok_or(SlotFault::Bad)?,
            },
            sequence,
            is_dirty: flags & DIRTY_FLAG != 0,
            epoch: LogEpoch::new(LittleEndian::read_u32(&slot[EPOCH_AT..])),
            log_start: offset(LOG_START_AT)?,
            durable: offset(DURABLE_AT)?,
            scan_base: offset(SCAN_BASE_AT)?,
            scan_position: FilePosition::new(LittleEndian::read_u64(&slot[SCAN_POSITION_AT..])),
            scan_offset: offset(SCAN_OFFSET_AT)?,
            latest_append_time: Timestamp::from_millis(LittleEndian::read_i64(
                &slot[LATEST_APPEND_TIME_AT..],
            )),
            segment_names_crc: LittleEndian::read_u32(&slot[SEGMENT_NAMES_CRC_AT..]),
            generation: LittleEndian::read_u32(&slot[GENERATION_AT..]),
        })
    }
}

/// What the two slots of a checkpoint file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    /// The newer one that verifies.
    pub newest: Option<Checkpoint>,
    /// Which slot that is: 0 or 1.
    pub newest_index: usize,
    /// Whether both verify, and are of the same partition.
    pub all_verify: bool,
}

/// Reads the slots of a checkpoint file.
///
/// # Errors
///
/// If one of them verifies and needs something that this version does not know.
pub fn decode_slots(bytes: &[u8]) -> Result<Slots, UnsupportedFeature> {
    let slot = |index: usize| match Checkpoint::decode(bytes.get(index * SECTOR_BYTES..).unwrap_or_default())
    {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(SlotFault::Bad) => Ok(None),
        Err(SlotFault::Unsupported(feature)) => Err(feature),
    };
    let (first, second) = (slot(0)?, slot(1)?);
    let all_verify =
        matches!((&first, &second), (Some(first), Some(second)) if first.identity == second.identity);
    let is_second_newer = match (&first, &second) {
        (Some(first), Some(second)) => second.sequence > first.sequence,
        (first, _) => first.is_none(),
    };
    let (newest, newest_index) = if is_second_newer { (second, 1) } else { (first, 0) };
    Ok(Slots { newest, newest_index, all_verify })
}

/// Of the whole slot but the checksum itself.
fn checksum(slot: &[u8; SECTOR_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..CRC_AT]);
    hasher.update(&slot[LOG_START_AT..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checkpoint(sequence: u64) -> Checkpoint {
        Checkpoint {
            identity: PartitionIdentity {
                topic_id: TopicId::from_bytes([1; 16]),
                partition: PartitionId::ZERO,
            },
            sequence,
            generation: 3,
            is_dirty: true,
            epoch: LogEpoch::new(4),
            log_start: Offset::new(10),
            durable: Offset::new(20),
            scan_base: Offset::new(15),
            scan_position: FilePosition::new(2048),
            scan_offset: Offset::new(20),
            latest_append_time: Timestamp::from_millis(99),
            segment_names_crc: 7,
        }
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_noticed() {
        let bytes = checkpoint(5).encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint(5)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&damaged), Err(SlotFault::Bad), "bit {bit}");
        }
    }

    #[test]
    fn the_newer_slot_wins_and_a_bad_one_is_told() {
        let both = |first: &[u8], second: &[u8]| decode_slots(&[first, second].concat()).unwrap();
        let (old, new, bad) = (checkpoint(5).encode(), checkpoint(6).encode(), [7; SECTOR_BYTES]);
        let newest =
            |slots: Slots| (slots.newest.map(|newest| newest.sequence), slots.newest_index, slots.all_verify);
        assert_eq!(newest(both(&old, &new)), (Some(6), 1, true));
        assert_eq!(newest(both(&new, &old)), (Some(6), 0, true));
        assert_eq!(newest(both(&bad, &old)), (Some(5), 1, false));
        assert_eq!(newest(both(&old, &bad)), (Some(5), 0, false));
        assert_eq!(newest(both(&bad, &bad)).0, None);
        assert_eq!(newest(decode_slots(&old).unwrap()), (Some(5), 0, false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let _ = decode_slots(&bytes);
        }
    }
}
