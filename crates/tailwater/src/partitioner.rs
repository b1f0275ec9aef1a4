//! Which partition a message goes to.
//!
//! - A key always goes to the same partition, and to the one that Apache Kafka's default partitioner would choose:
//!   murmur2 of the key, its sign bit cleared, modulo the number of partitions. This must never change.
//! - Messages without a key stay with one partition for a while and then go on to the next, so that batches fill.

use std::sync::atomic::{AtomicU64, Ordering};

use tailwater_log::PartitionId;

/// The seed that Apache Kafka uses.
const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// How many bytes without a key go to one partition before the next one's turn: Kafka's `batch.size`.
const STICKY_BYTES: u64 = 16 * 1024;
/// What a message counts beyond its own bytes, so that small ones move on too.
const MESSAGE_OVERHEAD_BYTES: u64 = 16;

/// The partition, of `partition_count` (at least 1), of messages with this key.
///
/// The same as that of Apache Kafka's default partitioner, so that keys stay where they are when a program moves there.
///
/// # Panics
///
/// If `partition_count` is 0.
///
/// # Examples
///
/// ```
/// use tailwater::{PartitionId, partition_for_key};
///
/// assert_eq!(partition_for_key(b"foobar", 1000), PartitionId::new(166));
/// ```
#[must_use]
pub fn partition_for_key(key: &[u8], partition_count: u32) -> PartitionId {
    // The sign bit of Kafka's 32-bit hash is cleared, so the result is below 2^31.
    PartitionId::new((murmur2(key) & 0x7fff_ffff) % partition_count)
}

/// 32-bit MurmurHash2 with Kafka's seed (Austin Appleby's algorithm, in the public domain).
fn murmur2(bytes: &[u8]) -> u32 {
    // Keys beyond 4 GiB do not exist; the length only seeds the hash.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> 15
}

/// Chooses for messages without a key, for all threads that share a producer.
#[derive(Debug)]
pub(crate) struct StickyPartitioner {
    bytes: AtomicU64,
}

impl StickyPartitioner {
    /// Starts anywhere, so that many short-lived producers do not all favour the first partition.
    pub(crate) fn new(seed: u64) -> Self {
        // Far from the largest value, which a sum would wrap around.
        Self { bytes: AtomicU64::new(seed >> 16) }
    }

    /// The partition, of `partition_count` (at least 1), for the next message, which has this many bytes.
    pub(crate) fn next(&self, message_bytes: usize, partition_count: u32) -> PartitionId {
        if partition_count == 1 {
            return PartitionId::ZERO;
        }
        let step = (message_bytes as u64).saturating_add(MESSAGE_OVERHEAD_BYTES);
        let turn = self.bytes.fetch_add(step, Ordering::Relaxed) / STICKY_BYTES;
        let number = u32::try_from(turn % u64::from(partition_count));
        PartitionId::new(number.expect("a remainder is less than the 32-bit divisor"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_kafkas_published_values() {
        // From Apache Kafka's `UtilsTest.testMurmur2`.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107_i32),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn every_length_of_key_gets_a_partition() {
        let key = [0xff; 67];
        for length in 0..key.len() {
            for count in [1, 2, 3, 100_000] {
                assert!(partition_for_key(&key[..length], count).get() < count);
            }
        }
    }

    #[test]
    fn keyless_messages_stay_a_while_and_then_move_to_every_partition_in_turn() {
        let sticky = StickyPartitioner::new(0);
        let chosen: Vec<_> = (0..3 * 16).map(|_| sticky.next(1024 - 16, 3).get()).collect();
        let expected: Vec<_> = [0, 1, 2].into_iter().flat_map(|turn| [turn; 16]).collect();
        assert_eq!(chosen, expected);
        let sticky = StickyPartitioner::new(u64::MAX);
        let mut counts = [0; 4];
        (0..8192).for_each(|_| counts[sticky.next(0, 4).get() as usize] += 1);
        assert!(counts.iter().all(|count| (1024..=3072).contains(count)), "{counts:?}");
    }
}
