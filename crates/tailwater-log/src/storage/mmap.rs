//! Read-only maps of files.
//!
//! - A map shows the file as it is, also bytes that were written after it was made. It may be longer than the file.
//! - No reference to the whole map is ever made, only to ranges that the caller knows to be published: bytes below a
//!   published end never change and are never cut off while the file is mapped.

#![expect(unsafe_code, reason = "a slice of a mapped file can be made in no other way")]

use std::fmt;
use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

/// A read-only map of the first bytes of a file, shared with the page cache.
///
/// Made by [`StorageFile::map`](super::StorageFile::map), unmapped when dropped. Bytes are reached through
/// [`FileSlice`](super::FileSlice), which keeps the map alive.
pub struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps `[0, length)` of `file`, which may be shorter.
    pub(crate) fn new(file: &File, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| isize::try_from(*length).is_ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a map must fit the address space"))?;
        Ok(Self { raw: MmapOptions::new().len(length).map_raw_read_only(file)? })
    }

    /// The length of the map in bytes, whatever the length of the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.raw.len() as u64
    }

    /// The `len` bytes from `start` on.
    ///
    /// The caller asks only for bytes below the published end of the file: bytes that were written before, and that
    /// nobody will change or cut off while the map lives.
    ///
    /// # Panics
    ///
    /// If the range ends beyond the map: the published end of a file is never past the length it was mapped with.
    pub(crate) fn slice(&self, start: u64, len: usize) -> &[u8] {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.raw.len()),
            "a slice of {len} bytes at {start} ends within the map of {} bytes",
            self.raw.len(),
        );
        // SAFETY: the range lies in the map, as the assertion above shows, and the map lives as long as `self`, which
        // the slice borrows. Its bytes lie below the published end, so they are initialised and never change while
        // the file is mapped: appends write past the end, recovery and truncation replace files by rename, deletion
        // unlinks, and the directory lock keeps other writers out. A process that ignores the lock could break this,
        // and a device that cannot read the page is a signal (SIGBUS), not undefined behaviour.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(start), len) }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("length", &self.length()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_map_longer_than_its_file_shows_bytes_written_later() {
        let file = tempfile::tempfile().unwrap();
        let map = Map::new(&file, 1 << 20).unwrap();
        assert_eq!(map.length(), 1 << 20);
        file.write_all_at(b"first", 0).unwrap();
        assert_eq!(map.slice(0, 5), b"first");
        file.write_all_at(b"far", 9000).unwrap();
        assert_eq!(map.slice(9000, 3), b"far");
        assert_eq!(map.slice(1 << 20, 0), b"");
    }

    #[test]
    fn an_empty_map_has_an_empty_slice() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Map::new(&file, 0).unwrap().slice(0, 0), b"");
    }

    #[test]
    fn a_map_that_cannot_fit_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(Map::new(&file, u64::MAX).is_err());
        assert!(Map::new(&file, 1 << 62).is_err());
    }

    #[test]
    #[should_panic(expected = "ends within the map")]
    fn a_slice_beyond_the_map_panics() {
        let file = tempfile::tempfile().unwrap();
        let map = Map::new(&file, 100).unwrap();
        let _ = map.slice(u64::MAX, 2);
    }
}
