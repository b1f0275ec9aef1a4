//! One `pwrite` for each record, into reserved space.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{create, encode};

/// A file that takes each record in a write of its own.
#[derive(Debug)]
pub struct SingleWrites {
    file: File,
    buffer: Vec<u8>,
    position: u64,
}

impl SingleWrites {
    /// Makes the file at `path`, with `reserved_bytes` reserved for it: 0 for one that grows.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(path: &Path, reserved_bytes: u64) -> io::Result<Self> {
        Ok(Self { file: create(path, reserved_bytes)?, buffer: Vec::new(), position: 0 })
    }

    /// Writes a record to the page cache.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    #[inline]
    pub fn append(&mut self, value: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        encode(value, &mut self.buffer);
        self.file.write_all_at(&self.buffer, self.position)?;
        self.position += self.buffer.len() as u64;
        Ok(())
    }
}
