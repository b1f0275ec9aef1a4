//! `pwrite` and `fdatasync` after each record, or after each N of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{create, encode};

/// A file that is synced whenever its user says so.
#[derive(Debug)]
pub struct Synced {
    file: File,
    buffer: Vec<u8>,
    position: u64,
}

impl Synced {
    /// Makes the file at `path`, with `reserved_bytes` reserved for it. With 0 it grows with each write, so that each
    /// `fdatasync` has the length of the file to write too.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(path: &Path, reserved_bytes: u64) -> io::Result<Self> {
        Ok(Self { file: create(path, reserved_bytes)?, buffer: Vec::new(), position: 0 })
    }

    /// Stages a record.
    pub fn append(&mut self, value: &[u8]) {
        encode(value, &mut self.buffer);
    }

    /// Writes what is staged with one `pwrite`, and makes it durable with one `fdatasync`.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.position)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        self.file.sync_data()
    }
}
