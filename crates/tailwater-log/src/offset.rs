//! Offsets, log epochs and file positions: the numbers that everything else is told in.

use std::fmt;

/// The number of a record in its partition: 0 for the first ever appended, then one more for each.
///
/// Below 2^63, as in Apache Kafka, so that an offset fits a signed 64-bit integer wherever it is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(u64);

impl Offset {
    /// The offset of a partition's first record.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset, 2^63 - 1.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// Makes an offset of `value`, in `[0, 2^63)`.
    ///
    /// # Panics
    ///
    /// If `value` is 2^63 or more. For a number from outside the program use [`Offset::try_new`].
    #[must_use]
    #[inline]
    pub const fn new(value: u64) -> Self {
        assert!(value <= i64::MAX as u64, "an offset is below 2^63");
        Self(value)
    }

    /// Makes an offset of `value`, or `None` if it is 2^63 or more.
    #[must_use]
    #[inline]
    pub const fn try_new(value: u64) -> Option<Self> {
        if value <= i64::MAX as u64 { Some(Self(value)) } else { None }
    }

    /// The number itself.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `count` records later, or `None` past [`Offset::MAX`].
    #[must_use]
    #[inline]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(value) => Self::try_new(value),
            None => None,
        }
    }

    /// How many records lie in `[earlier, self)`; 0 if `earlier` is not earlier.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of offsets: `start` is in it, `end` is not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OffsetRange {
    /// First offset in the range.
    pub start: Offset,
    /// First offset after the range.
    pub end: Offset,
}

impl OffsetRange {
    /// How many offsets the range holds.
    #[must_use]
    #[inline]
    pub fn count(self) -> u64 {
        self.end.since(self.start)
    }

    /// Adds `range` to `ranges`, as a part of the last one where it begins at its end.
    pub(crate) fn push_joined(ranges: &mut Vec<Self>, range: Self) {
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// Which history of a partition a record belongs to.
///
/// Raised whenever offsets may have been lost and be given out again: at every open after an unclean stop, at every
/// truncation and repair. Two records with the same offset and the same epoch are the same record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogEpoch(u32);

impl LogEpoch {
    /// The epoch of a new partition.
    pub const FIRST: LogEpoch = LogEpoch(1);

    /// Makes an epoch of `value`.
    #[must_use]
    #[inline]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The number itself.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The epoch after this one, or `None` past the largest `u32`.
    #[must_use]
    #[inline]
    pub const fn checked_next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl fmt::Display for LogEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LogEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a file, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FilePosition(u64);

impl FilePosition {
    /// The start of a file.
    pub const ZERO: FilePosition = FilePosition(0);

    /// Makes a position of `bytes` from the start.
    #[must_use]
    #[inline]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the file.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` later.
    ///
    /// # Panics
    ///
    /// If the sum does not fit 64 bits: no file is that long.
    #[must_use]
    #[inline]
    pub const fn plus(self, bytes: u64) -> Self {
        match self.0.checked_add(bytes) {
            Some(sum) => Self(sum),
            None => panic!("a file position fits 64 bits"),
        }
    }
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
