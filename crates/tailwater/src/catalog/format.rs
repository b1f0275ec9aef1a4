//! The bytes of the catalog file: bytes in, values out.
//!
//! All integers are little-endian; the checksum is CRC-32 (IEEE 802.3). The file is replaced as a whole, never changed.
//!
//! | At | Size | Field |
//! |---|---|---|
//! | 0 | 8 | magic, `TWCATLOG` |
//! | 8 | 2 | version: 1 |
//! | 10 | 2 | flags: 0 |
//! | 12 | 4 | CRC of every other byte of the file, in order; every version keeps it here |
//! | 16 | 8 | sequence: how often the catalog was written |
//! | 24 | 4 | number of topics |
//! | 28 | | the topics |
//!
//! A topic:
//!
//! | Size | Field |
//! |---|---|
//! | 16 | id |
//! | 4 | number of partitions, from 1 to 100,000 |
//! | 2 + n | name: length in bytes, UTF-8 |
//! | 2 | number of settings |
//! | each 2 + n, 2 + n | a setting: its name and its value, both as length and UTF-8 |
//! | 4 | number of origins |
//! | each 16 + 4 + 8 | an origin: topic id, partition, end offset |
//!
//! - No two topics have the same id, or names that differ only in case. Nothing follows the last topic.
//! - A decoder takes any bytes: it never panics, and allocates in proportion to the bytes that it was given.

use std::collections::HashSet;

use byteorder::{ByteOrder, LittleEndian};
use tailwater_log::error::UnsupportedFeature;
use tailwater_log::{Offset, PartitionId, TopicId};

use super::{Catalog, CatalogTopic, MAX_CATALOG_BYTES, MAX_PARTITIONS, Origin, name};

/// The version that this build writes, and the newest that it reads.
pub(crate) const VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"TWCATLOG";

const VERSION_AT: usize = MAGIC.len();
const FLAGS_AT: usize = VERSION_AT + size_of::<u16>();
const CRC_AT: usize = FLAGS_AT + size_of::<u16>();
const SEQUENCE_AT: usize = CRC_AT + size_of::<u32>();
const TOPIC_COUNT_AT: usize = SEQUENCE_AT + size_of::<u64>();
const TOPICS_AT: usize = TOPIC_COUNT_AT + size_of::<u32>();

/// Fewest bytes that a topic takes: bounds what a count can make the decoder allocate.
const MIN_TOPIC_BYTES: usize = 16 + 4 + 2 + 2 + 4;
const MIN_SETTING_BYTES: usize = 2 + 2;
const ORIGIN_BYTES: usize = 16 + 4 + 8;

/// Why bytes are not a catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogFault {
    /// It does not begin as a catalog does.
    #[error("it is not a catalog")]
    NotACatalog,
    /// It is longer than any catalog.
    #[error("it is longer than {MAX_CATALOG_BYTES} bytes, the most that a catalog can have")]
    TooLong,
    /// The checksum does not match.
    #[error("checksum {stored:08x} is stored, {computed:08x} computed")]
    ChecksumMismatch {
        /// In the file.
        stored: u32,
        /// Of the bytes as they are.
        computed: u32,
    },
    /// It verifies and needs something that this version does not know.
    #[error("it needs {0}")]
    Unsupported(UnsupportedFeature),
    /// It verifies and does not follow the format.
    #[error("malformed at position {position_bytes}")]
    Malformed {
        /// Where, in bytes from the start.
        position_bytes: u64,
    },
}

/// The bytes of `catalog`.
///
/// # Panics
///
/// If a name or a setting is longer than 65,535 bytes: their own limits are far below.
pub(crate) fn encode(catalog: &Catalog) -> Vec<u8> {
    let mut out = Vec::with_capacity(TOPICS_AT + catalog.topics.len() * 128);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0_u16.to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&catalog.sequence.to_le_bytes());
    put_count(&mut out, catalog.topics.len());
    for topic in &catalog.topics {
        out.extend_from_slice(topic.id.as_bytes());
        out.extend_from_slice(&topic.partition_count.to_le_bytes());
        put_text(&mut out, &topic.name);
        let settings = u16::try_from(topic.config.len()).expect("a topic has a few dozen settings at most");
        out.extend_from_slice(&settings.to_le_bytes());
        for (key, value) in &topic.config {
            put_text(&mut out, key);
            put_text(&mut out, value);
        }
        put_count(&mut out, topic.origins.len());
        for origin in &topic.origins {
            out.extend_from_slice(origin.topic_id.as_bytes());
            out.extend_from_slice(&origin.partition.get().to_le_bytes());
            out.extend_from_slice(&origin.end.get().to_le_bytes());
        }
    }
    let crc = checksum(&out);
    LittleEndian::write_u32(&mut out[CRC_AT..], crc);
    out
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a catalog of at most 128 MiB lists fewer than 2^32 things");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names and settings are shorter than 65,536 bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads a catalog.
///
/// # Errors
///
/// Why the bytes are none.
pub(crate) fn decode(bytes: &[u8]) -> Result<Catalog, CatalogFault> {
    if bytes.len() < TOPICS_AT || !bytes.starts_with(MAGIC) {
        return Err(CatalogFault::NotACatalog);
    }
    let (stored, computed) = (LittleEndian::read_u32(&bytes[CRC_AT..]), checksum(bytes));
    if stored != computed {
        return Err(CatalogFault::ChecksumMismatch { stored, computed });
    }
    let version = LittleEndian::read_u16(&bytes[VERSION_AT..]);
    if version != VERSION {
        return Err(CatalogFault::Unsupported(UnsupportedFeature::Version(version)));
    }
    let flags = LittleEndian::read_u16(&bytes[FLAGS_AT..]);
    if flags != 0 {
        return Err(CatalogFault::Unsupported(UnsupportedFeature::Flags(flags)));
    }
    let mut reader = Reader { bytes, at: SEQUENCE_AT };
    let catalog = read_catalog(&mut reader);
    catalog.ok_or(CatalogFault::Malformed { position_bytes: reader.at as u64 })
}

/// `None` if the bytes do not follow the format; the reader then stands where that was noticed.
fn read_catalog(reader: &mut Reader<'_>) -> Option<Catalog> {
    let sequence = u64::from_le_bytes(reader.array()?);
    let mut topics = reader.list(MIN_TOPIC_BYTES)?;
    let mut ids = HashSet::new();
    let mut names = HashSet::new();
    for _ in 0..topics.count {
        let topic = read_topic(reader)?;
        if !ids.insert(topic.id) || !names.insert(topic.name.to_ascii_lowercase()) {
            return None;
        }
        topics.items.push(topic);
    }
    (reader.at == reader.bytes.len()).then_some(Catalog { sequence, topics: topics.items })
}

fn read_topic(reader: &mut Reader<'_>) -> Option<CatalogTopic> {
    let id = TopicId::from_bytes(reader.array()?);
    let partition_count = u32::from_le_bytes(reader.array()?);
    let name = reader.text()?;
    if !(1..=MAX_PARTITIONS).contains(&partition_count) || name::check_stored(&name).is_err() {
        return None;
    }
    let setting_count = u16::from_le_bytes(reader.array()?);
    if usize::from(setting_count) * MIN_SETTING_BYTES > reader.left() {
        return None;
    }
    let mut config = Vec::with_capacity(setting_count.into());
    for _ in 0..setting_count {
        config.push((reader.text()?, reader.text()?));
    }
    let mut origins = reader.list(ORIGIN_BYTES)?;
    for _ in 0..origins.count {
        origins.items.push(Origin {
            topic_id: TopicId::from_bytes(reader.array()?),
            partition: PartitionId::try_new(u32::from_le_bytes(reader.array()?))?,
            end: Offset::try_new(u64::from_le_bytes(reader.array()?))?,
        });
    }
    Some(CatalogTopic { id, name, partition_count, config, origins: origins.items })
}

/// The CRC of all bytes but the CRC's own.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[SEQUENCE_AT..]);
    hasher.finalize()
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

struct List<T> {
    count: u32,
    items: Vec<T>,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.bytes[self.at..].first_chunk::<N>()?;
        self.at += N;
        Some(array)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let text = self.bytes[self.at..].get(..length)?;
        let text = std::str::from_utf8(text).ok()?.to_owned();
        self.at += length;
        Some(text)
    }

    /// Reads a count, and makes a list for that many; `None` if the bytes that are left cannot hold them.
    fn list<T>(&mut self, min_item_bytes: usize) -> Option<List<T>> {
        let count = u32::from_le_bytes(self.array()?);
        let fitting = self.left() / min_item_bytes;
        let capacity = usize::try_from(count).ok().filter(|count| *count <= fitting)?;
        Some(List { count, items: Vec::with_capacity(capacity) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Catalog {
        Catalog {
            sequence: 3,
            topics: vec![
                CatalogTopic {
                    id: TopicId::from_bytes([1; 16]),
                    name: "orders".to_owned(),
                    partition_count: 2,
                    config: vec![("segment_bytes".to_owned(), "65536".to_owned())],
                    origins: Vec::new(),
                },
                CatalogTopic {
                    id: TopicId::from_bytes([2; 16]),
                    name: "__groups".to_owned(),
                    partition_count: 1,
                    config: Vec::new(),
                    origins: vec![Origin {
                        topic_id: TopicId::from_bytes([1; 16]),
                        partition: PartitionId::new(1),
                        end: Offset::new(258),
                    }],
                },
            ],
        }
    }

    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = checksum(&bytes);
        LittleEndian::write_u32(&mut bytes[CRC_AT..], crc);
        bytes
    }

    #[test]
    fn the_bytes_of_a_catalog_are_these() {
        let golden: Vec<u8> = [
            b"TWCATLOG".as_slice(),
            &[1, 0, 0, 0],
            &GOLDEN_CRC.to_le_bytes(),
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            // orders
            &[1; 16],
            &[2, 0, 0, 0],
            &[6, 0],
            b"orders",
            &[1, 0],
            &[13, 0],
            b"segment_bytes",
            &[5, 0],
            b"65536",
            &[0, 0, 0, 0],
            // __groups
            &[2; 16],
            &[1, 0, 0, 0],
            &[8, 0],
            b"__groups",
            &[0, 0],
            &[1, 0, 0, 0],
            &[1; 16],
            &[1, 0, 0, 0],
            &[2, 1, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&example()), golden);
        assert_eq!(decode(&golden), Ok(example()));
    }

    /// Computed with another implementation (zlib).
    const GOLDEN_CRC: u32 = 0xca32_388e;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(&example());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed_even_under_a_right_checksum() {
        let bytes = encode(&example());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
            if length >= TOPICS_AT {
                let cut = with_checksum(bytes[..length].to_vec());
                assert!(matches!(decode(&cut), Err(CatalogFault::Malformed { .. })), "{length} bytes");
            }
        }
        let longer = with_checksum([bytes.as_slice(), &[0]].concat());
        assert!(matches!(decode(&longer), Err(CatalogFault::Malformed { .. })));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = encode(&example());
        bytes[VERSION_AT] = 7;
        assert_eq!(
            decode(&with_checksum(bytes)),
            Err(CatalogFault::Unsupported(UnsupportedFeature::Version(7)))
        );
    }

    #[test]
    fn names_that_differ_only_in_case_are_malformed() {
        let mut catalog = example();
        catalog.topics[1].name = "ORDERS".to_owned();
        assert!(matches!(decode(&encode(&catalog)), Err(CatalogFault::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[0; 6], &body].concat();
            let bytes = if bytes.len() >= SEQUENCE_AT { with_checksum(bytes) } else { bytes };
            if let Ok(catalog) = decode(&bytes) {
                prop_assert_eq!(encode(&catalog), bytes);
            }
        }

        #[test]
        fn a_damaged_catalog_under_a_right_checksum_never_panics(at in SEQUENCE_AT..200_usize, value: u8) {
            let mut bytes = encode(&example());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Ok(catalog) = decode(&with_checksum(bytes.clone())) {
                prop_assert_eq!(encode(&catalog), with_checksum(bytes));
            }
        }
    }
}
