//! Finds a batch in a segment whose index is not in memory, by bisection of the file.
//!
//! A batch header verifies only where it was written, so any place will do to begin: the first header behind it that
//! verifies tells on which side of it to go on.

use super::OpenSegment;
use crate::format::{ALIGNMENT, ALIGNMENT_BYTES, BATCH_HEADER_BYTES, BatchHeader, PRODUCER_EXTENSION_BYTES};
use crate::{FilePosition, Offset, Result};

/// How far behind a place a header is looked for, in bytes. Where batches are larger there are few of them, and hopping
/// from one to the next finds the way as fast.
const REACH_BYTES: u64 = 32 * crate::limits::KIB as u64;

/// A batch that begins at or below `wanted`, most often shortly before it: where it is, and its first offset. `first` is
/// one, and `end` where the batches end.
pub(crate) fn floor(
    opened: &OpenSegment,
    first: (FilePosition, Offset),
    end: FilePosition,
    wanted: Offset,
) -> Result<(FilePosition, Offset)> {
    let (mut low, mut high) = (first, end);
    while high.get() - low.0.get() > 2 * REACH_BYTES {
        let middle = FilePosition::new(u64::midpoint(low.0.get(), high.get()) / ALIGNMENT * ALIGNMENT);
        match next_header(opened, middle, high)? {
            Some((position, header)) if (low.1..=wanted).contains(&header.base_offset) => {
                low = (position, header.base_offset);
            }
            Some((_, header)) if header.base_offset > wanted => high = middle,
            // A large batch, or damage: whoever hops from here finds out.
            _ => break,
        }
    }
    Ok(low)
}

/// The first header that verifies at or behind `from`, within reach and below `end`.
fn next_header(
    opened: &OpenSegment,
    from: FilePosition,
    end: FilePosition,
) -> Result<Option<(FilePosition, BatchHeader)>> {
    let most = BATCH_HEADER_BYTES + PRODUCER_EXTENSION_BYTES;
    let length = (end.get() - from.get()).min(REACH_BYTES + most as u64);
    // Below `REACH_BYTES` and a header.
    let bytes = opened.published_bytes(from, usize::try_from(length).unwrap_or(0))?;
    for start in (0..bytes.len()).step_by(ALIGNMENT_BYTES) {
        let position = from.plus(start as u64);
        let header = &bytes[start..bytes.len().min(start + most)];
        if let Ok(header) = BatchHeader::decode(header, opened.place(position)) {
            return Ok(Some((position, header)));
        }
    }
    Ok(None)
}
