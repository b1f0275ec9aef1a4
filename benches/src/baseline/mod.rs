//! Bare baselines: for each question the simplest loop over system calls and checksums that does the same work with no
//! features.
//!
//! A record is an 8-byte header (length and `crc32fast` checksum, both `u32` little-endian) and its value. Nothing else is
//! kept: no offsets, no times, no keys, no recovery. What a baseline leaves out is what it is there to show the price of;
//! what it does, it does as a careful C programmer would: one buffer, positional writes into space reserved beforehand,
//! no allocation per record.
//!
//! | Module | Question |
//! |---|---|
//! | [`staged`] | appends that end in a 256 KiB buffer, which is written when it is full |
//! | [`single_writes`] | one `pwrite` for each record |
//! | [`synced`] | `fdatasync` after each record, or after each N, in a preallocated or in a growing file |
//! | [`group_commit`] | threads that each wait for their record's `fdatasync`, which one of them makes for all |
//! | [`walk`] | a scan of a map that checks each record |
//! | [`offset_table`] | one record at a random offset: a table of positions over a map |
//! | [`hand_over`] | a record from one thread to another, through a file and a map |

pub mod group_commit;
pub mod hand_over;
pub mod map;
pub mod offset_table;
pub mod single_writes;
pub mod staged;
pub mod synced;
pub mod walk;

use std::fs::File;
use std::io;
use std::path::Path;

/// Size of a record's header in bytes.
pub const HEADER_BYTES: usize = 8;

/// Appends a record to `buffer`: length, checksum, value.
#[inline]
pub fn encode(value: &[u8], buffer: &mut Vec<u8>) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    buffer.extend_from_slice(value);
}

/// Splits the first record off `bytes`: its value, if the checksum holds, and what follows.
#[inline]
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let stored = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let (value, rest) = rest.split_at_checked(length)?;
    (crc32fast::hash(value) == stored).then_some((value, rest))
}

/// Makes a new file with `reserved_bytes` reserved for it: 0 for one that grows as it is written.
pub(crate) fn create(path: &Path, reserved_bytes: u64) -> io::Result<File> {
    let file = File::options().create_new(true).read(true).write(true).open(path)?;
    if reserved_bytes > 0 {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, reserved_bytes)?;
    }
    // As for Tailwater, the file itself is there before anything is measured.
    file.sync_all()?;
    Ok(file)
}
