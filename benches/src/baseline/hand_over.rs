//! A record from one thread to another: a `pwrite`, the new end in an atomic, and a map that the other thread reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::map::Map;
use super::{create, decode, encode};

/// A file that one thread appends to and another reads.
#[derive(Debug)]
pub struct HandOver {
    file: File,
    map: Map,
    end: AtomicUsize,
}

impl HandOver {
    /// Makes the file at `path`, with `reserved_bytes` reserved for it, and maps it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(path: &Path, reserved_bytes: usize) -> io::Result<Self> {
        let file = create(path, reserved_bytes as u64)?;
        let map = Map::new(&file, reserved_bytes)?;
        Ok(Self { file, map, end: AtomicUsize::new(0) })
    }

    /// Writes a record and lets the reader see it. For one thread only.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn append(&self, value: &[u8], buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        encode(value, buffer);
        let position = self.end.load(Ordering::Relaxed);
        self.file.write_all_at(buffer, position as u64)?;
        self.end.store(position + buffer.len(), Ordering::Release);
        Ok(())
    }

    /// The next record, checked, if there is one: `position` is moved behind it.
    ///
    /// # Panics
    ///
    /// If it does not verify: the baselines read what they wrote.
    #[must_use]
    pub fn next(&self, position: &mut usize) -> Option<&[u8]> {
        let end = self.end.load(Ordering::Acquire);
        if *position == end {
            return None;
        }
        let (value, rest) = decode(self.map.slice(*position, end)).expect("the baseline reads what it wrote");
        *position = end - rest.len();
        Some(value)
    }
}
