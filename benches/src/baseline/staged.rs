//! Appends that end in a 256 KiB buffer, which one `pwrite` empties when it is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{HEADER_BYTES, create, encode};

/// Size of the buffer in bytes.
pub const BUFFER_BYTES: usize = 256 * 1024;

/// A buffer in front of a file whose space is reserved.
#[derive(Debug)]
pub struct Staged {
    file: File,
    buffer: Vec<u8>,
    position: u64,
    reserved_bytes: u64,
}

impl Staged {
    /// Makes the file at `path`, with `reserved_bytes` reserved for it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(path: &Path, reserved_bytes: u64) -> io::Result<Self> {
        let file = create(path, reserved_bytes)?;
        Ok(Self { file, buffer: Vec::with_capacity(BUFFER_BYTES), position: 0, reserved_bytes })
    }

    /// Stages a record; writes the buffer first if there is no room for it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    #[inline]
    pub fn append(&mut self, value: &[u8]) -> io::Result<()> {
        if self.buffer.len() + HEADER_BYTES + value.len() > BUFFER_BYTES {
            self.write()?;
        }
        encode(value, &mut self.buffer);
        Ok(())
    }

    /// Writes what is staged, from the start of the file again when the reserved space is used up.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn write(&mut self) -> io::Result<()> {
        if self.position + self.buffer.len() as u64 > self.reserved_bytes {
            self.position = 0;
        }
        self.file.write_all_at(&self.buffer, self.position)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The file, after everything staged was written.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn finish(mut self) -> io::Result<File> {
        self.write()?;
        Ok(self.file)
    }
}
