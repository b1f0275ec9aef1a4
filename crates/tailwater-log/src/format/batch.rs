//! Batch headers: `docs/format.md`, section "Batch".

use byteorder::{ByteOrder, LittleEndian};

use crate::error::UnsupportedFeature;
use crate::limits::{MAX_BATCH_BYTES, MAX_BATCH_OFFSETS};
use crate::{Compression, FilePosition, LogEpoch, Offset, OffsetRange, Timestamp};

/// Size of the salt and the position that a header's checksum begins with, in bytes.
const SEED_BYTES: usize = 2 * size_of::<u64>();

const LENGTH_AT: usize = 0;
const HEADER_CRC_AT: usize = LENGTH_AT + size_of::<u32>();
const BODY_CRC_AT: usize = HEADER_CRC_AT + size_of::<u32>();
const MAGIC_AT: usize = BODY_CRC_AT + size_of::<u32>();
const ATTRIBUTES_AT: usize = MAGIC_AT + size_of::<u16>();
const COMPATIBLE_ATTRIBUTES_AT: usize = ATTRIBUTES_AT + size_of::<u8>();
const BASE_OFFSET_AT: usize = COMPATIBLE_ATTRIBUTES_AT + size_of::<u8>();
const LAST_OFFSET_DELTA_AT: usize = BASE_OFFSET_AT + size_of::<u64>();
const RECORD_COUNT_AT: usize = LAST_OFFSET_DELTA_AT + size_of::<u32>();
const BASE_CREATE_TIME_AT: usize = RECORD_COUNT_AT + size_of::<u32>();
const MAX_CREATE_TIME_AT: usize = BASE_CREATE_TIME_AT + size_of::<i64>();
const APPEND_TIME_AT: usize = MAX_CREATE_TIME_AT + size_of::<i64>();
const DURABLE_BACK_AT: usize = APPEND_TIME_AT + size_of::<i64>();
const LOG_EPOCH_AT: usize = DURABLE_BACK_AT + size_of::<u32>();

/// Size of a batch header without an extension, in bytes.
pub const BATCH_HEADER_BYTES: usize = LOG_EPOCH_AT + size_of::<u32>();
const _: () = assert!(BATCH_HEADER_BYTES == 64);

const PRODUCER_ID_AT: usize = BATCH_HEADER_BYTES;
const SEQUENCE_AT: usize = PRODUCER_ID_AT + size_of::<u64>();
const PRODUCER_EPOCH_AT: usize = SEQUENCE_AT + size_of::<u32>();
const PRODUCER_RESERVED_AT: usize = PRODUCER_EPOCH_AT + size_of::<u16>();

/// Size of the producer extension, in bytes.
pub const PRODUCER_EXTENSION_BYTES: usize = PRODUCER_RESERVED_AT + size_of::<u16>() - BATCH_HEADER_BYTES;
const _: () = assert!(PRODUCER_EXTENSION_BYTES == 16);

/// In the compatible attributes: the base create time is the delete horizon of the batch's tombstones.
pub const DELETE_HORIZON: u8 = 1 << 1;

/// Batches begin at multiples of this, in bytes.
pub const ALIGNMENT: u64 = 8;

/// [`ALIGNMENT`] as a length in memory.
pub(crate) const ALIGNMENT_BYTES: usize = 8;
const _: () = assert!(ALIGNMENT_BYTES as u64 == ALIGNMENT);

/// "TW", read as a little-endian number.
const MAGIC: u16 = u16::from_le_bytes(*b"TW");

/// `length` rounded up to where the next batch may begin.
#[must_use]
pub const fn aligned(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT)
}

/// Where a batch is. Its header's checksum is bound to both, so that bytes of another file or place never pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchPlace {
    /// The salt in the header of its segment.
    pub salt: u64,
    /// Where it begins in the file.
    pub position: FilePosition,
}

impl BatchPlace {
    /// A checksum that has taken in the salt and the position.
    pub(super) fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.seed());
        hasher
    }

    /// The salt and the position, which a checksum takes in first.
    #[inline]
    fn seed(&self) -> [u8; SEED_BYTES] {
        let mut seed = [0; SEED_BYTES];
        LittleEndian::write_u64(&mut seed[..8], self.salt);
        LittleEndian::write_u64(&mut seed[8..], self.position.get());
        seed
    }
}

/// What a reader must understand to make sense of a batch: one byte of flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct BatchAttributes(u8);

impl BatchAttributes {
    const COMPRESSION: u8 = 0b0000_0111;
    const TRANSACTIONAL: u8 = 1 << 3;
    const CONTROL: u8 = 1 << 4;
    const PRODUCER: u8 = 1 << 5;
    const ENCRYPTED: u8 = 1 << 6;
    const OPAQUE: u8 = 1 << 7;

    /// Makes attributes of their byte, or `None` if it names a compression that this version does not know.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & Self::COMPRESSION <= 2 { Some(Self(bits)) } else { None }
    }

    /// The byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// How the body is compressed.
    #[must_use]
    pub const fn compression(self) -> Compression {
        match self.0 & Self::COMPRESSION {
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Whether the body is compressed.
    #[must_use]
    pub const fn is_compressed(self) -> bool {
        self.0 & Self::COMPRESSION != 0
    }

    /// Whether the body is stored as it is: neither compressed nor encrypted.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.0 & (Self::COMPRESSION | Self::ENCRYPTED) == 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker of the engine's and not the user's data.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether a producer extension follows the header.
    #[must_use]
    pub const fn has_producer(self) -> bool {
        self.0 & Self::PRODUCER != 0
    }

    /// Whether the body is encrypted.
    #[must_use]
    pub const fn is_encrypted(self) -> bool {
        self.0 & Self::ENCRYPTED != 0
    }

    /// Whether the body is not made of records.
    #[must_use]
    pub const fn is_opaque(self) -> bool {
        self.0 & Self::OPAQUE != 0
    }

    /// These, for a body that is compressed so.
    #[must_use]
    pub const fn with_compression(self, compression: Compression) -> Self {
        let bits = match compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
        };
        Self(self.0 & !Self::COMPRESSION | bits)
    }

    /// These, for a body that is not made of records.
    #[must_use]
    pub const fn with_opaque(self) -> Self {
        Self(self.0 | Self::OPAQUE)
    }

    /// These, for a batch of a transaction.
    #[must_use]
    pub const fn with_transactional(self) -> Self {
        Self(self.0 | Self::TRANSACTIONAL)
    }

    /// These, for a marker of the engine's.
    #[must_use]
    pub const fn with_control(self) -> Self {
        Self(self.0 | Self::CONTROL)
    }

    /// These, for a batch with a producer extension.
    #[must_use]
    pub const fn with_producer(self) -> Self {
        Self(self.0 | Self::PRODUCER)
    }

    /// These, for an encrypted body.
    #[must_use]
    pub const fn with_encrypted(self) -> Self {
        Self(self.0 | Self::ENCRYPTED)
    }
}

/// Who produced a batch, and as which of their batches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProducerExtension {
    /// The producer.
    pub producer_id: u64,
    /// The sequence number of the batch's first record.
    pub sequence: u32,
    /// Which incarnation of the producer.
    pub producer_epoch: u16,
}

/// The header of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Bytes from the start of the batch to the end of its body, header and extension included, padding not.
    pub length_bytes: u32,
    /// Plain CRC-32 of the body.
    pub body_crc: u32,
    /// What a reader must understand. Says that there is an extension exactly if `producer` is there.
    pub attributes: BatchAttributes,
    /// What a reader may ignore: bit 0 is the timestamp type, [`DELETE_HORIZON`] tells what the base create time is.
    pub compatible_attributes: u8,
    /// Offset of the first record that the batch had when it was appended.
    pub base_offset: Offset,
    /// Last offset of the batch minus its base offset.
    pub last_offset_delta: u32,
    /// How many records are in it; less than the offsets it spans only after compaction.
    pub record_count: u32,
    /// The create time that the records' times are told from.
    pub base_create_time: Timestamp,
    /// The largest create time.
    pub max_create_time: Timestamp,
    /// When the last of its records was appended. Never decreases from batch to batch.
    pub append_time: Timestamp,
    /// Base offset minus the durable offset when it was written, or `u32::MAX` if that is more.
    pub durable_back: u32,
    /// The log epoch that it was appended in.
    pub log_epoch: LogEpoch,
    /// The producer extension.
    pub producer: Option<ProducerExtension>,
}

/// Why bytes are not a batch header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// They are fewer than a header has.
    Truncated,
    /// They are all zero, as space that was never written is.
    Zero,
    /// They do not have a header's magic number.
    Magic,
    /// The checksum is another.
    Checksum {
        /// In the header.
        stored: u32,
        /// Of the header, where it is.
        computed: u32,
    },
    /// The checksum is right, and the fields contradict each other or the limits.
    Invalid,
    /// The checksum is right, and the batch needs something that this version does not know.
    Unsupported(UnsupportedFeature),
}

/// A body whose checksum is not the one in its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyFault {
    /// In the header.
    pub stored: u32,
    /// Of the body.
    pub computed: u32,
}

impl BatchHeader {
    /// Size of the header with its extension, in bytes: 64 or 80.
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        if self.attributes.has_producer() {
            BATCH_HEADER_BYTES + PRODUCER_EXTENSION_BYTES
        } else {
            BATCH_HEADER_BYTES
        }
    }

    /// Size of the body in bytes.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        (self.length_bytes as usize).saturating_sub(self.header_bytes())
    }

    /// The offset behind the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        // Checked by `decode`; an appended batch was given its offsets from below the largest.
        Offset::new(self.base_offset.get() + u64::from(self.last_offset_delta) + 1)
    }

    /// The offsets that the batch spans.
    #[must_use]
    pub fn offsets(&self) -> OffsetRange {
        OffsetRange { start: self.base_offset, end: self.next_offset() }
    }

    /// From when on compaction may remove the tombstones of the batch, if that is settled: all older records of their keys
    /// are gone. The base create time says so then, and the records' times are told from it as from any other.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        (self.compatible_attributes & DELETE_HORIZON != 0).then_some(self.base_create_time)
    }

    /// An offset that was durable when the batch was written.
    #[must_use]
    pub fn durable_mark(&self) -> Offset {
        Offset::new(self.base_offset.get().saturating_sub(u64::from(self.durable_back)))
    }

    /// Writes the header, with the checksum for `place`, to the front of `out`.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than [`header_bytes`](BatchHeader::header_bytes).
    pub fn encode(&self, place: BatchPlace, out: &mut [u8]) {
        let out = &mut out[..self.header_bytes()];
        LittleEndian::write_u32(&mut out[LENGTH_AT..], self.length_bytes);
        LittleEndian::write_u32(&mut out[BODY_CRC_AT..], self.body_crc);
        LittleEndian::write_u16(&mut out[MAGIC_AT..], MAGIC);
        out[ATTRIBUTES_AT] = self.attributes.bits();
        out[COMPATIBLE_ATTRIBUTES_AT] = self.compatible_attributes;
        LittleEndian::write_u64(&mut out[BASE_OFFSET_AT..], self.base_offset.get());
        LittleEndian::write_u32(&mut out[LAST_OFFSET_DELTA_AT..], self.last_offset_delta);
        LittleEndian::write_u32(&mut out[RECORD_COUNT_AT..], self.record_count);
        LittleEndian::write_i64(&mut out[BASE_CREATE_TIME_AT..], self.base_create_time.as_millis());
        LittleEndian::write_i64(&mut out[MAX_CREATE_TIME_AT..], self.max_create_time.as_millis());
        LittleEndian::write_i64(&mut out[APPEND_TIME_AT..], self.append_time.as_millis());
        LittleEndian::write_u32(&mut out[DURABLE_BACK_AT..], self.durable_back);
        LittleEndian::write_u32(&mut out[LOG_EPOCH_AT..], self.log_epoch.get());
        if self.attributes.has_producer() {
            let producer =
                self.producer.unwrap_or(ProducerExtension { producer_id: 0, sequence: 0, producer_epoch: 0 });
            LittleEndian::write_u64(&mut out[PRODUCER_ID_AT..], producer.producer_id);
            LittleEndian::write_u32(&mut out[SEQUENCE_AT..], producer.sequence);
            LittleEndian::write_u16(&mut out[PRODUCER_EPOCH_AT..], producer.producer_epoch);
            LittleEndian::write_u16(&mut out[PRODUCER_RESERVED_AT..], 0);
        }
        let crc = checksum(out, place);
        LittleEndian::write_u32(&mut out[HEADER_CRC_AT..], crc);
    }

    /// Reads the header at the front of `bytes`, which lie at `place`.
    ///
    /// # Errors
    ///
    /// What is wrong with them. With [`HeaderFault::Truncated`] more bytes may make a header of them.
    pub fn decode(bytes: &[u8], place: BatchPlace) -> Result<Self, HeaderFault> {
        let Some(fixed) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            let is_zero = !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0);
            return Err(if is_zero { HeaderFault::Zero } else { HeaderFault::Truncated });
        };
        if LittleEndian::read_u16(&fixed[MAGIC_AT..]) != MAGIC {
            let is_zero = fixed.iter().all(|byte| *byte == 0);
            return Err(if is_zero { HeaderFault::Zero } else { HeaderFault::Magic });
        }
        let bits = fixed[ATTRIBUTES_AT];
        let header_bytes = if bits & BatchAttributes::PRODUCER != 0 {
            BATCH_HEADER_BYTES + PRODUCER_EXTENSION_BYTES
        } else {
            BATCH_HEADER_BYTES
        };
        let bytes = bytes.get(..header_bytes).ok_or(HeaderFault::Truncated)?;
        let stored = LittleEndian::read_u32(&bytes[HEADER_CRC_AT..]);
        let computed = checksum(bytes, place);
        if stored != computed {
            return Err(HeaderFault::Checksum { stored, computed });
        }
        let attributes = BatchAttributes::from_bits(bits)
            .ok_or(HeaderFault::Unsupported(UnsupportedFeature::Attributes(bits)))?;
        let producer = attributes.has_producer().then(|| ProducerExtension {
            producer_id: LittleEndian::read_u64(&bytes[PRODUCER_ID_AT..]),
            sequence: LittleEndian::read_u32(&bytes[SEQUENCE_AT..]),
            producer_epoch: LittleEndian::read_u16(&bytes[PRODUCER_EPOCH_AT..]),
        });
        let time = |at| Timestamp::from_millis(LittleEndian::read_i64(&bytes[at..]));
        let header = Self {
            length_bytes: LittleEndian::read_u32(&bytes[LENGTH_AT..]),
            body_crc: LittleEndian::read_u32(&bytes[BODY_CRC_AT..]),
            attributes,
            compatible_attributes: bytes[COMPATIBLE_ATTRIBUTES_AT],
            base_offset: Offset::try_new(LittleEndian::read_u64(&bytes[BASE_OFFSET_AT..]))
                .ok_or(HeaderFault::Invalid)?,
            last_offset_delta: LittleEndian::read_u32(&bytes[LAST_OFFSET_DELTA_AT..]),
            record_count: LittleEndian::read_u32(&bytes[RECORD_COUNT_AT..]),
            base_create_time: time(BASE_CREATE_TIME_AT),
            max_create_time: time(MAX_CREATE_TIME_AT),
            append_time: time(APPEND_TIME_AT),
            durable_back: LittleEndian::read_u32(&bytes[DURABLE_BACK_AT..]),
            log_epoch: LogEpoch::new(LittleEndian::read_u32(&bytes[LOG_EPOCH_AT..])),
            producer,
        };
        if header.is_valid() { Ok(header) } else { Err(HeaderFault::Invalid) }
    }

    fn is_valid(&self) -> bool {
        self.length_bytes as usize >= self.header_bytes()
            && self.length_bytes <= MAX_BATCH_BYTES
            && self.last_offset_delta < MAX_BATCH_OFFSETS
            && self.base_offset.checked_add(u64::from(self.last_offset_delta) + 1).is_some()
            && self.record_count <= self.last_offset_delta + 1
    }
}

/// The checksum of a header (all of it but the checksum itself) at `place`.
fn checksum(header: &[u8], place: BatchPlace) -> u32 {
    // In one piece: three short ones take twice as long.
    let mut bytes = [0; SEED_BYTES + BATCH_HEADER_BYTES + PRODUCER_EXTENSION_BYTES - size_of::<u32>()];
    bytes[..SEED_BYTES].copy_from_slice(&place.seed());
    let (before, after) = (&header[..HEADER_CRC_AT], &header[BODY_CRC_AT..]);
    let after_at = SEED_BYTES + before.len();
    bytes[SEED_BYTES..after_at].copy_from_slice(before);
    bytes[after_at..after_at + after.len()].copy_from_slice(after);
    crc32fast::hash(&bytes[..after_at + after.len()])
}

/// Checks `body` against the checksum in its header.
///
/// # Errors
///
/// Both checksums, if they differ.
pub fn check_body(header: &BatchHeader, body: &[u8]) -> Result<(), BodyFault> {
    let computed = crc32fast::hash(body);
    if computed == header.body_crc { Ok(()) } else { Err(BodyFault { stored: header.body_crc, computed }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: BatchPlace = BatchPlace { salt: 0x1122_3344_5566_7788, position: FilePosition::new(1024) };

    fn header() -> BatchHeader {
        BatchHeader {
            length_bytes: 100,
            body_crc: 7,
            attributes: BatchAttributes::default(),
            compatible_attributes: 1,
            base_offset: Offset::new(1000),
            last_offset_delta: 9,
            record_count: 10,
            base_create_time: Timestamp::from_millis(-5),
            max_create_time: Timestamp::from_millis(5),
            append_time: Timestamp::from_millis(6),
            durable_back: 100,
            log_epoch: LogEpoch::new(3),
            producer: None,
        }
    }

    fn with_producer() -> BatchHeader {
        let producer = ProducerExtension { producer_id: 1, sequence: 2, producer_epoch: 3 };
        BatchHeader {
            attributes: BatchAttributes::default().with_producer(),
            producer: Some(producer),
            ..header()
        }
    }

    fn encoded(header: &BatchHeader, place: BatchPlace) -> Vec<u8> {
        let mut bytes = vec![0; header.header_bytes()];
        header.encode(place, &mut bytes);
        bytes
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for header in [header(), with_producer()] {
            assert_eq!(BatchHeader::decode(&encoded(&header, PLACE), PLACE), Ok(header));
        }
        assert_eq!(header().durable_mark(), Offset::new(900));
        assert_eq!(header().next_offset(), Offset::new(1010));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for header in [header(), with_producer()] {
            let bytes = encoded(&header, PLACE);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(BatchHeader::decode(&damaged, PLACE).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_header_passes_only_where_it_was_written() {
        let bytes = encoded(&header(), PLACE);
        let moved = BatchPlace { position: FilePosition::new(1032), ..PLACE };
        let other_file = BatchPlace { salt: PLACE.salt + 1, ..PLACE };
        for place in [moved, other_file] {
            assert!(matches!(BatchHeader::decode(&bytes, place), Err(HeaderFault::Checksum { .. })));
        }
    }

    #[test]
    fn zeros_and_short_bytes_are_told_apart() {
        assert_eq!(BatchHeader::decode(&[0; 64], PLACE), Err(HeaderFault::Zero));
        assert_eq!(BatchHeader::decode(&[0; 10], PLACE), Err(HeaderFault::Zero));
        assert_eq!(BatchHeader::decode(&[], PLACE), Err(HeaderFault::Truncated));
        assert_eq!(
            BatchHeader::decode(&encoded(&with_producer(), PLACE)[..64], PLACE),
            Err(HeaderFault::Truncated)
        );
        assert_eq!(BatchHeader::decode(&[1; 64], PLACE), Err(HeaderFault::Magic));
    }

    #[test]
    fn fields_out_of_bounds_are_refused_though_the_checksum_is_right() {
        let cases = [
            BatchHeader { length_bytes: 63, ..header() },
            BatchHeader { length_bytes: MAX_BATCH_BYTES + 1, ..header() },
            BatchHeader { base_offset: Offset::MAX, ..header() },
            BatchHeader { record_count: 11, ..header() },
            BatchHeader { last_offset_delta: MAX_BATCH_OFFSETS, ..header() },
            BatchHeader { length_bytes: 79, ..with_producer() },
        ];
        for case in cases {
            assert_eq!(
                BatchHeader::decode(&encoded(&case, PLACE), PLACE),
                Err(HeaderFault::Invalid),
                "{case:?}"
            );
        }
    }

    #[test]
    fn an_unknown_compression_is_named_if_the_header_verifies() {
        let header = BatchHeader { attributes: BatchAttributes(5), ..header() };
        let unsupported = HeaderFault::Unsupported(UnsupportedFeature::Attributes(5));
        assert_eq!(BatchHeader::decode(&encoded(&header, PLACE), PLACE), Err(unsupported));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = BatchHeader::decode(&bytes, PLACE);
        }

        #[test]
        fn accepted_headers_encode_to_the_same_bytes(
            base in 0..1u64 << 62, delta in 0..1000u32, times: (i64, i64, i64), epoch: u32, back: u32, crc: u32,
        ) {
            let header = BatchHeader {
                base_offset: Offset::new(base),
                last_offset_delta: delta,
                record_count: delta / 2,
                base_create_time: Timestamp::from_millis(times.0),
                max_create_time: Timestamp::from_millis(times.1),
                append_time: Timestamp::from_millis(times.2),
                log_epoch: LogEpoch::new(epoch),
                durable_back: back,
                body_crc: crc,
                ..with_producer()
            };
            prop_assert_eq!(BatchHeader::decode(&encoded(&header, PLACE), PLACE), Ok(header));
        }
    }
}
