//! The limits of the format: what a file may contain at most, whatever the configuration says.

/// 1,024 bytes.
pub const KIB: u32 = 1024;
/// 1,048,576 bytes.
pub const MIB: u32 = 1024 * KIB;

/// Largest encoded batch, in bytes, header included. A damaged length field can ask for at most this much memory.
pub const MAX_BATCH_BYTES: u32 = 16 * MIB;

/// Largest value of `segment_bytes`. A segment is rolled when a batch would end past `segment_bytes`, so a file is at
/// most one batch (one that is larger than the segment) longer, plus its footer.
pub const MAX_SEGMENT_BYTES: u32 = 2048 * MIB;

/// Smallest value of `segment_bytes`: a header and a little data. Small ones are for tests.
pub const MIN_SEGMENT_BYTES: u32 = 4 * KIB;

/// Most offsets that one batch may span.
pub const MAX_BATCH_OFFSETS: u32 = 1 << 24;

// A batch at the last allowed position still has a position that fits an index entry's `u32`.
const _: () = assert!(MAX_SEGMENT_BYTES as u64 + MAX_BATCH_BYTES as u64 <= u32::MAX as u64);

/// What disks write whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
