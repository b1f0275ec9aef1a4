//! Records whose content is made of their place.

use std::ops::Range;

/// The value of the record at `offset` of a partition: of a length that differs from one to the next.
pub(crate) fn value(partition: u32, offset: u64) -> Vec<u8> {
    let mut choices = fastrand::Rng::with_seed(offset << 8 | u64::from(partition));
    let length = choices.usize(LENGTHS);
    let mut value = format!("{partition}:{offset}:").into_bytes();
    // Text that compresses about as well as text does.
    value.extend(std::iter::repeat_with(|| b'a' + choices.u8(0..8)).take(length));
    value
}

/// How long the part behind the place is, in bytes.
const LENGTHS: Range<usize> = 100..1_900;

/// The mean size of a record, in bytes.
pub(crate) const MEAN_BYTES: u64 = 1_010;

/// Whether this is the record of that place.
pub(crate) fn is_right(partition: u32, offset: u64, found: Option<&[u8]>) -> bool {
    found == Some(&value(partition, offset)[..])
}

/// The value of a key the `n`-th time that it is set.
pub(crate) fn state(key: u64, n: u64) -> String {
    format!("{key}:{n}:{}", "s".repeat(usize::try_from((key + n) % 200).unwrap_or(0)))
}

/// How often the key had been set when this was its value; `None` if it is no value of it.
pub(crate) fn state_number(key: u64, value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let n = text.split(':').nth(1)?.parse().ok()?;
    (text == state(key, n)).then_some(n)
}
