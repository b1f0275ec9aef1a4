//! A read-only map of a file: the only unsafe code of the benchmarks.

#![expect(unsafe_code, reason = "a slice of a mapped file can be made in no other way")]

use std::fs::File;
use std::io;

use memmap2::{Advice, MmapOptions, MmapRaw};

/// A map of the first bytes of a file.
#[derive(Debug)]
pub struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps the first `length_bytes` of `file`.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn new(file: &File, length_bytes: usize) -> io::Result<Self> {
        Ok(Self { raw: MmapOptions::new().len(length_bytes).map_raw_read_only(file)? })
    }

    /// As [`Map::new`], with advice to the kernel where it takes any: a map that it does not take it for is as good as one
    /// without.
    ///
    /// # Errors
    ///
    /// What the operating system says to the mapping.
    pub fn advised(file: &File, length_bytes: usize, advice: Advice) -> io::Result<Self> {
        let map = Self::new(file, length_bytes)?;
        let _ = map.raw.advise(advice);
        Ok(map)
    }

    /// The bytes in `[start, end)`, all of which were written before.
    ///
    /// # Panics
    ///
    /// If the range is not within the map.
    #[inline]
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> &[u8] {
        assert!(start <= end && end <= self.raw.len(), "a slice lies within its map");
        // SAFETY: the range is within the map, as was just checked, and the map lives as long as the slice borrows it.
        // The baselines write each byte of their files once, before they give its position to whoever reads it, and
        // never shorten them; the files lie in directories of their own that nobody else writes to.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(start), end - start) }
    }
}
