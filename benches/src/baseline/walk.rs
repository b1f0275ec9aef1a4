//! A scan: a walk over all records of a map that checks each.

use super::decode;

/// Walks over the records of `bytes` and checks each. Returns how many there are and the size of their values in bytes.
///
/// # Panics
///
/// If one does not verify: the baselines read what they wrote.
#[must_use]
pub fn walk(mut bytes: &[u8]) -> (u64, u64) {
    let (mut count, mut size_bytes) = (0, 0);
    while !bytes.is_empty() {
        let (value, rest) = decode(bytes).expect("the baseline reads what it wrote");
        size_bytes += value.len() as u64;
        count += 1;
        bytes = rest;
    }
    (count, size_bytes)
}
