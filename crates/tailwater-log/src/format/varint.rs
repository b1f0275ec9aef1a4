//! Unsigned LEB128 varints, and zigzag for signed numbers.

/// Longest encoding of a `u64`.
pub(super) const MAX_BYTES: usize = 10;

/// How many bytes `value` takes.
#[inline]
pub(super) const fn length(value: u64) -> usize {
    // Seven bits a byte, at least one byte: a seventh, rounded up, without a division; exact up to 64 bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Writes `value` to the front of `out`, which is long enough, and returns how many bytes it took.
#[inline]
pub(super) fn write(value: u64, out: &mut [u8]) -> usize {
    let bytes = value.to_le_bytes();
    if value < 0x80 {
        out[0] = bytes[0];
        1
    } else if value < 0x4000 {
        let (high, low) = ((value >> 7).to_le_bytes()[0], bytes[0] | 0x80);
        out[..2].copy_from_slice(&[low, high]);
        2
    } else {
        write_long(value, out)
    }
}

fn write_long(mut value: u64, out: &mut [u8]) -> usize {
    let mut count = 0;
    while value >= 0x80 {
        out[count] = value.to_le_bytes()[0] | 0x80;
        value >>= 7;
        count += 1;
    }
    out[count] = value.to_le_bytes()[0];
    count + 1
}

/// Reads a varint from the front of `bytes` and steps over it. `None` if it is cut off, too long, or not the shortest
/// encoding of its value.
#[inline(always)]
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    match *bytes {
        [first, rest @ ..] if *first < 0x80 => {
            *bytes = rest;
            Some(u64::from(*first))
        }
        // Most lengths that one byte does not hold fit two. A second byte of 0 is one too many.
        [first, second, rest @ ..] if *second < 0x80 && *second > 0 => {
            *bytes = rest;
            Some(u64::from(*first & 0x7f) | u64::from(*second) << 7)
        }
        _ => read_long(bytes),
    }
}

fn read_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == MAX_BYTES - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if *byte < 0x80 {
            // One encoding for each value, so that equal records are equal bytes.
            if *byte == 0 && index > 0 {
                return None;
            }
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads a varint that fits 32 bits.
#[inline(always)]
pub(super) fn read_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(read(bytes)?).ok()
}

/// Small numbers of either sign to small unsigned ones.
#[inline]
pub(super) const fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

/// The inverse of [`zigzag`].
#[inline]
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_those_of_the_encodings_at_every_boundary() {
        let mut out = [0; MAX_BYTES];
        for bits in 0..64 {
            for value in [1u64 << bits, (1u64 << bits) - 1, (1u64 << bits) | 1] {
                let count = write(value, &mut out);
                assert_eq!(count, length(value), "{value}");
                let mut bytes = &out[..count];
                assert_eq!(read(&mut bytes), Some(value));
                assert!(bytes.is_empty());
            }
        }
        assert_eq!(length(u64::MAX), MAX_BYTES);
    }

    #[test]
    fn cut_off_overlong_and_overflowing_ones_are_refused() {
        for bytes in [&[][..], &[0x80], &[0x80, 0x00], &[0xff; 10], &[0x80, 0x80, 0x80]] {
            assert_eq!(read(&mut &*bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn zigzag_is_undone(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            if read(&mut rest).is_some() {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
