//! What the benchmarks share: a bare baseline for each question, and logs to compare with it.
//!
//! The baseline is the simplest loop over system calls that does the same work with no features: records with an 8-byte
//! header (length and `crc32fast` checksum), staged in a 256 KiB buffer, written by `pwrite` into a preallocated file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tailwater_log::storage::Disk;
use tailwater_log::{Durability, Log, LogOptions, PartitionId, PartitionIdentity, TopicId};
use tempfile::TempDir;

const BUFFER_BYTES: usize = 256 * 1024;
const FILE_BYTES: u64 = 1 << 30;
const HEADER_BYTES: usize = 8;

/// A directory on the disk that holds the build, removed when dropped.
///
/// # Panics
///
/// If it cannot be made.
#[must_use]
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("the benchmarks need a directory to write to")
}

/// A new log in `directory`.
///
/// # Panics
///
/// If it cannot be made.
#[must_use]
pub fn log(directory: &TempDir, durability: Durability) -> Log {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.durability = durability;
    options.config.staging_bytes = 256 * 1024;
    Log::create(Arc::new(Disk), &directory.path().join("log"), options)
        .expect("a new log in an empty directory")
}

/// The bare baseline: a buffer in front of a preallocated file, which is begun again when it is full.
#[derive(Debug)]
pub struct Baseline {
    file: File,
    buffer: Vec<u8>,
    position: u64,
}

impl Baseline {
    /// Makes the file in `directory`.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn new(directory: &TempDir) -> io::Result<Self> {
        let file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(directory.path().join("bare"))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES)?;
        Ok(Self { file, buffer: Vec::with_capacity(BUFFER_BYTES), position: 0 })
    }

    /// Stages a record, and writes the buffer when it is full.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn append(&mut self, value: &[u8]) -> io::Result<()> {
        if self.buffer.len() + HEADER_BYTES + value.len() > BUFFER_BYTES {
            self.write()?;
        }
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
        self.buffer.extend_from_slice(value);
        Ok(())
    }

    /// Writes what is staged.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn write(&mut self) -> io::Result<()> {
        if self.position + self.buffer.len() as u64 > FILE_BYTES {
            self.position = 0;
        }
        self.file.write_all_at(&self.buffer, self.position)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is staged, and syncs the file.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        self.file.sync_data()
    }
}

/// Walks over the records of `bytes` and checks each. Returns how many there are.
///
/// # Panics
///
/// If one does not verify.
#[must_use]
pub fn walk(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let (value, rest) = rest.split_at(length);
        assert_eq!(crc32fast::hash(value), crc, "the baseline reads what it wrote");
        bytes = rest;
        count += 1;
    }
    count
}
