//! What compaction remembers of keys: of each its hash and the last offset, in memory that is bounded.
//!
//! Hashes are SipHash-2-4 of 128 bits under a key that is drawn anew for each pass (Aumasson and Bernstein, "SipHash: a
//! fast short-input PRF", INDOCRYPT 2012). Two keys that are taken for one would cost a record. With n keys in a map the
//! chance of that is n² / 2^129, below 10^-20 for a billion, and whoever chooses keys cannot raise it without the pass's key.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::Offset;

/// Size of an entry, in bytes.
const ENTRY_BYTES: u64 = (size_of::<KeyHash>() + size_of::<u32>()) as u64;

/// The hash of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyHash([u64; 2]);

/// The last offset of each key.
#[derive(Debug)]
pub(crate) struct KeyMap {
    hasher: SipHasher24,
    hashes: Vec<KeyHash>,
    /// Offsets minus the first, plus one; 0 where there is no entry.
    offsets: Vec<u32>,
    first: Option<Offset>,
    count: usize,
}

impl KeyMap {
    /// A map with room for `expected_keys` in at most `most_bytes`. `secret` is what hashes depend on.
    pub(crate) fn new(secret: [u64; 2], expected_keys: u64, most_bytes: u64) -> Self {
        // A fifth stays empty, or looking for an entry would take long.
        let wanted = expected_keys.saturating_add(expected_keys / 4).saturating_add(2);
        let slots = usize::try_from(wanted.min(most_bytes / ENTRY_BYTES).max(2)).unwrap_or(2);
        Self {
            hasher: SipHasher24::new_with_keys(secret[0], secret[1]),
            hashes: vec![KeyHash([0; 2]); slots],
            offsets: vec![0; slots],
            first: None,
            count: 0,
        }
    }

    /// The hash of `key` in this map.
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher;
        hasher.write(key);
        let hash = hasher.finish128();
        KeyHash([hash.h1, hash.h2])
    }

    /// Notes that the key with this hash is at `offset`, which is above all that were noted. False if there is no room.
    pub(crate) fn insert(&mut self, hash: KeyHash, offset: Offset) -> bool {
        let first = *self.first.get_or_insert(offset);
        let Some(stored) = u32::try_from(offset.since(first)).ok().and_then(|delta| delta.checked_add(1))
        else {
            return false;
        };
        let slot = self.slot(hash);
        if self.offsets[slot] == 0 {
            let empty = (self.offsets.len() / 5).max(1);
            if self.count + empty >= self.offsets.len() {
                return false;
            }
            self.count += 1;
            self.hashes[slot] = hash;
        }
        self.offsets[slot] = stored;
        true
    }

    /// The last offset that was noted for the key with this hash.
    pub(crate) fn last(&self, hash: KeyHash) -> Option<Offset> {
        let stored = self.offsets[self.slot(hash)];
        self.first.filter(|_| stored > 0).map(|first| Offset::new(first.get() + u64::from(stored - 1)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where the entry is, or would be: there is always an empty one.
    fn slot(&self, hash: KeyHash) -> usize {
        let slots = self.offsets.len();
        // The upper bits of a product spread evenly over any number of slots.
        let start = (u128::from(hash.0[0]) * slots as u128) >> u64::BITS;
        let mut slot = usize::try_from(start).unwrap_or(0);
        while self.offsets[slot] != 0 && self.hashes[slot] != hash {
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn map(expected_keys: u64, most_bytes: u64) -> KeyMap {
        KeyMap::new([1, 2], expected_keys, most_bytes)
    }

    #[test]
    fn a_full_map_says_so_and_takes_keys_that_it_has() {
        let mut map = map(1_000_000, 200);
        let taken: Vec<_> = (0..20u64)
            .filter(|n| {
                let hash = map.hash(&n.to_le_bytes());
                map.insert(hash, Offset::new(*n))
            })
            .collect();
        assert_eq!(taken, (0..8).collect::<Vec<_>>(), "ten slots, two of them always empty");
        let first = map.hash(&0u64.to_le_bytes());
        assert!(map.insert(first, Offset::new(30)));
        assert_eq!(map.last(first), Some(Offset::new(30)));
        assert_eq!(map.last(map.hash(b"unknown")), None);
        assert_eq!(map.count(), 8);
    }

    #[test]
    fn memory_is_taken_for_the_keys_that_are_expected_and_no_more_than_allowed() {
        assert_eq!(map(100, 1 << 20).offsets.len(), 127);
        assert_eq!(map(u64::MAX, 1 << 20).offsets.len(), (1 << 20) / 20);
        let mut least = map(0, 0);
        let hash = least.hash(b"a");
        assert!(least.insert(hash, Offset::new(7)), "any map has room for one key");
    }

    #[test]
    fn offsets_too_far_apart_for_one_map_are_refused() {
        let mut map = map(10, 1000);
        let (a, b) = (map.hash(b"a"), map.hash(b"b"));
        assert!(map.insert(a, Offset::new(5)));
        assert!(map.insert(b, Offset::new(5 + u64::from(u32::MAX) - 1)));
        assert!(!map.insert(a, Offset::new(5 + u64::from(u32::MAX))));
        assert_eq!(map.last(a), Some(Offset::new(5)));
    }

    #[test]
    fn a_hash_depends_on_the_secret() {
        assert_ne!(KeyMap::new([1, 2], 1, 100).hash(b"a"), KeyMap::new([1, 3], 1, 100).hash(b"a"));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_hash_map_knows(keys in proptest::collection::vec(0u16..300, 1..600)) {
            let mut map = map(300, 1 << 20);
            let mut model = HashMap::new();
            for (key, offset) in keys.iter().zip(100..) {
                let hash = map.hash(&key.to_le_bytes());
                prop_assert!(map.insert(hash, Offset::new(offset)));
                model.insert(*key, Offset::new(offset));
            }
            for key in 0..300u16 {
                prop_assert_eq!(map.last(map.hash(&key.to_le_bytes())), model.get(&key).copied());
            }
            prop_assert_eq!(map.count(), model.len());
        }
    }
}
