//! Appending to the groups log, and applying what was appended. The caller holds the appending lock.

use std::collections::BTreeSet;
use std::ops::Range;

use tailwater_log::{Durability, NewRecord, Offset, Receipt, WhenFull};

use super::Inner;
use crate::format::{Entry, Registration, StoredPosition};
use crate::position::MAX_METADATA_BYTES;
use crate::replay::Cursor;
use crate::table::key_of;
use crate::{Commit, Error, GroupId, GroupKind, Result};

/// What a record takes at most besides its key and value, in bytes: five varints of up to 5, one of up to 10, a byte.
const RECORD_OVERHEAD_BYTES: usize = 5 * 5 + 10 + 1;

/// What a batch takes besides its records, in bytes, with room to spare.
const BATCH_OVERHEAD_BYTES: usize = 128;

/// Checks what can be told of a set of commits without knowing the group.
pub(super) fn check_set(commits: &[Commit<'_>]) -> Result<()> {
    if commits.is_empty() {
        return Err(Error::EmptyCommit);
    }
    let mut seen = BTreeSet::new();
    for commit in commits {
        if commit.metadata.len() > MAX_METADATA_BYTES {
            return Err(Error::MetadataTooLong { size_bytes: commit.metadata.len() as u64 });
        }
        if commits.len() > 1 && !seen.insert(key_of(commit.partition)) {
            return Err(Error::RepeatedPartition { partition: commit.partition });
        }
    }
    Ok(())
}

impl Inner {
    /// Appends a checked set of commits as one batch, with the group's registration if it has none.
    pub(super) fn append_commits(
        &self,
        cursor: &mut Cursor,
        group: &GroupId,
        kind: GroupKind,
        commits: &[Commit<'_>],
    ) -> Result<Receipt> {
        let now = self.clock.now();
        let is_registered = self.read_table().registration(group).is_some();
        let group = group.as_str();
        let mut entries = Vec::with_capacity(commits.len() + 1);
        if !is_registered {
            entries
                .push(Entry::Registration { group, value: Some(Registration { kind, registered_at: now }) });
        }
        entries.extend(commits.iter().map(|commit| {
            let Commit { partition, position, metadata, .. } = *commit;
            let value = Some(StoredPosition { position, committed_at: now, metadata });
            Entry::Position { group, partition, value }
        }));
        self.append_and_apply(cursor, &entries)
    }

    /// Appends entries, `last` at the end, in as few batches as their limit allows. Returns the receipt of the last
    /// batch, which covers the others. After an error the batches before the one that failed are appended and applied.
    pub(super) fn append_all<'e>(
        &self,
        cursor: &mut Cursor,
        entries: impl Iterator<Item = Entry<'e>>,
        last: Entry<'e>,
    ) -> Result<Receipt> {
        let limit = self.log.config().max_batch_bytes as usize;
        let mut batch = Vec::new();
        let mut size = BATCH_OVERHEAD_BYTES;
        for entry in entries.chain([last]) {
            let entry_size = size_of_record(&entry);
            if size + entry_size > limit && !batch.is_empty() {
                // Covered by the receipt of the last batch.
                drop(self.append_and_apply(cursor, &batch)?);
                batch.clear();
                size = BATCH_OVERHEAD_BYTES;
            }
            size += entry_size;
            batch.push(entry);
        }
        self.append_and_apply(cursor, &batch)
    }

    /// Appends entries as one batch and applies them. If that fails, nothing has changed.
    fn append_and_apply(&self, cursor: &mut Cursor, entries: &[Entry<'_>]) -> Result<Receipt> {
        let batch = Encoded::of(entries);
        let (first, receipt) = self.append_encoded(cursor, &batch)?;
        let durable = self.log.durable_offset();
        let mut table = self.write_table();
        for (entry, index) in entries.iter().zip(0..) {
            let offset = first.checked_add(index).expect("the log has given this offset out");
            table.apply(entry, offset, durable);
        }
        Ok(receipt)
    }

    /// Appends encoded entries as one batch. Returns the offset of the first of them.
    pub(super) fn append_encoded(&self, cursor: &mut Cursor, batch: &Encoded) -> Result<(Offset, Receipt)> {
        let records = batch.records();
        let first = cursor.next();
        // If anybody else has appended to the log, the table is not what the log says: then nothing is appended any more.
        let receipt = self
            .log
            .append_if(first, &records, Some(Durability::Durable), WhenFull::Wait)
            .map_err(Error::Log)?;
        cursor.skip_own(records.len() as u64);
        Ok((first, receipt))
    }
}

/// Encoded entries, to be appended as one batch.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    bytes: Vec<u8>,
    /// Where keys and values are in `bytes`.
    spans: Vec<(Range<usize>, Option<Range<usize>>)>,
}

impl Encoded {
    /// All of `entries`, in buffers that need not grow.
    fn of(entries: &[Entry<'_>]) -> Self {
        let size = entries.iter().map(Entry::max_encoded_bytes).sum();
        let mut batch = Self { bytes: Vec::with_capacity(size), spans: Vec::with_capacity(entries.len()) };
        entries.iter().for_each(|entry| batch.add(entry));
        batch
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        let start = self.bytes.len();
        entry.encode_key(&mut self.bytes);
        let key_end = self.bytes.len();
        let has_value = entry.encode_value(&mut self.bytes);
        self.spans.push((start..key_end, has_value.then_some(key_end..self.bytes.len())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// How many bytes the batch takes at most.
    pub(super) fn size_bytes(&self) -> usize {
        BATCH_OVERHEAD_BYTES + self.bytes.len() + self.spans.len() * RECORD_OVERHEAD_BYTES
    }

    fn records(&self) -> Vec<NewRecord<'_>> {
        let record = |(key, value): &(Range<usize>, Option<Range<usize>>)| NewRecord {
            key: Some(&self.bytes[key.clone()]),
            value: value.clone().map(|value| &self.bytes[value]),
            ..NewRecord::default()
        };
        self.spans.iter().map(record).collect()
    }
}

/// How many bytes an entry takes at most as a record of a batch.
pub(super) fn size_of_record(entry: &Entry<'_>) -> usize {
    RECORD_OVERHEAD_BYTES + entry.max_encoded_bytes()
}
