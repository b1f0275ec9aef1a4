//! Logs to measure.

use std::path::Path;
use std::sync::Arc;

use tailwater_log::storage::Disk;
use tailwater_log::{
    Durability, FetchIsolation, FetchLimits, Log, LogConfig, LogOptions, NewRecord, Offset, PartitionId,
    PartitionIdentity, TopicId, WhenFull,
};

use crate::contest::Result;

/// How the logs are opened: the default configuration with this durability.
#[must_use]
pub fn options(durability: Durability) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config = LogConfig::default();
    options.config.durability = durability;
    options
}

/// A new log in `directory`.
///
/// # Errors
///
/// Those of [`Log::create`].
pub fn create(directory: &Path, durability: Durability) -> Result<Log> {
    create_with(directory, options(durability))
}

/// A new log in `directory`, with options.
///
/// # Errors
///
/// Those of [`Log::create`].
pub fn create_with(directory: &Path, options: LogOptions) -> Result<Log> {
    Ok(Log::create(Arc::new(Disk), &directory.join("log"), options)?)
}

/// Opens the log in `directory` that was made by [`create`].
///
/// # Errors
///
/// Those of [`Log::open`].
pub fn open(directory: &Path, durability: Durability) -> Result<Log> {
    Ok(Log::open(Arc::new(Disk), &directory.join("log"), options(durability))?)
}

/// Appends one record and waits for it to be as durable as the log is.
///
/// # Errors
///
/// Those of [`Log::append`] and of the receipt.
#[inline]
pub fn append(log: &Log, value: &[u8]) -> tailwater_log::Result<()> {
    log.append(&[NewRecord::new(value)], None, WhenFull::Wait)?.wait().map(drop)
}

/// Reads the whole log from its start, all that is visible. Returns how many records there are and the size of their values
/// in bytes.
///
/// # Errors
///
/// Those of [`Log::fetch`].
pub fn scan(log: &Log) -> tailwater_log::Result<(u64, u64)> {
    let (mut from, mut hint) = (log.log_start_offset(), None);
    let (mut count, mut size_bytes) = (0, 0);
    loop {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, hint)?;
        for record in fetched.iter() {
            size_bytes += record.value().map_or(0, <[u8]>::len) as u64;
            count += 1;
        }
        if fetched.next_offset() == from {
            return Ok((count, size_bytes));
        }
        (from, hint) = (fetched.next_offset(), fetched.hint());
    }
}

/// Reads the one record at `offset`. Returns the size of its value in bytes.
///
/// # Errors
///
/// Those of [`Log::fetch`].
#[inline]
pub fn read(log: &Log, offset: u64) -> tailwater_log::Result<usize> {
    let limits = FetchLimits { max_records: 1, max_bytes: 1 };
    let fetched = log.fetch(Offset::new(offset), limits, FetchIsolation::Visible, None)?;
    let value = fetched.iter().next().and_then(|record| record.value());
    Ok(std::hint::black_box(value).map_or(0, <[u8]>::len))
}
