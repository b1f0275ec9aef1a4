//! The logs that are measured: one partition in a directory, as a broker has it by default.

use std::path::Path;
use std::sync::Arc;

use tailwater::storage::Disk;
use tailwater_log::{
    Durability, FetchHint, FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, Offset, PartitionId,
    PartitionIdentity, TopicId, WhenFull,
};

use super::measure::Result;

/// A new log in `directory`, with the default configuration and this durability.
pub(super) fn create(directory: &Path, durability: Durability) -> Result<Log> {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.durability = durability;
    Ok(Log::create(Arc::new(Disk), &directory.join("log"), options)?)
}

/// Appends records as one batch and waits until they are as durable as the log is.
pub(super) fn append(log: &Log, batch: &[NewRecord<'_>]) -> Result<()> {
    log.append(batch, None, WhenFull::Wait)?.wait()?;
    Ok(())
}

/// Where a reader is.
pub(super) struct Place {
    offset: Offset,
    hint: Option<FetchHint>,
}

impl Place {
    pub(super) const START: Self = Self { offset: Offset::ZERO, hint: None };

    /// Hands out the next records, if there are any. Returns how many there were.
    pub(super) fn fetch(&mut self, log: &Log, mut take: impl FnMut(&[u8])) -> Result<u64> {
        let fetched =
            log.fetch(self.offset, FetchLimits::default(), FetchIsolation::Visible, self.hint.take())?;
        *self = Self { offset: fetched.next_offset(), hint: fetched.hint() };
        let mut count = 0;
        for record in fetched.iter() {
            take(record.value().unwrap_or_default());
            count += 1;
        }
        Ok(count)
    }
}

/// Reads the one record at `offset`. Returns the size of its value.
pub(super) fn read(log: &Log, offset: u64) -> Result<usize> {
    let limits = FetchLimits { max_records: 1, max_bytes: 1 };
    let fetched = log.fetch(Offset::new(offset), limits, FetchIsolation::Visible, None)?;
    Ok(fetched.iter().next().and_then(|record| record.value()).map_or(0, <[u8]>::len))
}
