//! Keeping the groups log small: everything that is so is said again at its end, and the rest goes.
//!
//! - Before the log start moves, all that was said again, and the mark that ends it, are durable. Until then every entry
//!   that it repeats is there as well, with the same value: a rewrite that ends early, in whatever way, changes nothing.
//! - Commits by other threads wait while entries are repeated, and go on behind them while those are synced.

use tailwater_log::Offset;

use super::append::{Encoded, size_of_record};
use super::{GroupStore, Inner};
use crate::Result;
use crate::format::{Entry, StoredPosition};
use crate::replay::Cursor;
use crate::table::Table;

/// How many records the groups log may hold for each entry that counts before a rewrite is due.
pub const REWRITE_RECORDS_PER_ENTRY: u64 = 4;

/// How many records the groups log holds at least when a rewrite is due.
pub const REWRITE_MIN_RECORDS: u64 = 1024;

/// Size of the batches of a rewrite, in bytes: large enough that headers cost nothing, small enough that they fit the
/// staging buffer.
const REWRITE_BATCH_BYTES: usize = 64 * 1024;

impl GroupStore {
    /// Whether the groups log holds many more records than it needs: more than [`REWRITE_RECORDS_PER_ENTRY`] for each
    /// registration and position there is, and more than [`REWRITE_MIN_RECORDS`].
    #[must_use]
    pub fn wants_rewrite(&self) -> bool {
        let live_entries = self.inner.read_table().live_entries();
        let limit = live_entries.saturating_mul(REWRITE_RECORDS_PER_ENTRY).max(REWRITE_MIN_RECORDS);
        !self.inner.is_read_only && self.inner.record_count() > limit
    }

    /// Rewrites the groups log to what it needs: starts a segment, appends all registrations and positions again, syncs,
    /// and removes what came before. False if there was nothing to gain. Other threads may commit meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`](crate::Error::ReadOnly); [`Error::Log`](crate::Error::Log), for instance if the disk is full.
    /// All groups and positions are as they were then, on disk too.
    pub fn rewrite(&self) -> Result<bool> {
        self.inner.check_writable()?;
        let _rewriting = self.inner.lock_rewriting();
        let Some(start) = self.inner.append_everything()? else { return Ok(false) };
        self.inner.log.sync()?;
        self.inner.log.delete_records_before(start)?;
        Ok(true)
    }
}

impl Inner {
    /// How many records the log holds.
    fn record_count(&self) -> u64 {
        self.log.log_end_offset().since(self.log.log_start_offset())
    }

    /// Appends everything that counts to a new segment. Returns where that begins, or `None` if it would be no less.
    fn append_everything(&self) -> Result<Option<Offset>> {
        let mut cursor = self.lock_appending();
        // No append, so no change: nobody waits for the table to write to it.
        let table = self.read_table();
        // The mark counts too.
        if self.record_count() <= table.live_entries() + 1 {
            return Ok(None);
        }
        self.log.roll()?;
        let start = cursor.next();
        let max_batch_bytes = (self.log.config().max_batch_bytes as usize).min(REWRITE_BATCH_BYTES);
        let mut batch = Encoded::default();
        for entry in everything(&table).chain([Entry::RewriteEnd { start }]) {
            if !batch.is_empty() && batch.size_bytes() + size_of_record(&entry) > max_batch_bytes {
                self.flush(&mut cursor, &mut batch)?;
            }
            batch.add(&entry);
        }
        self.flush(&mut cursor, &mut batch)?;
        Ok(Some(start))
    }

    fn flush(&self, cursor: &mut Cursor, batch: &mut Encoded) -> Result<()> {
        // A position stays where it was said first: durable there or not, it is the same.
        let (_, receipt) = self.append_encoded(cursor, batch)?;
        drop(receipt);
        batch.clear();
        Ok(())
    }
}

/// An entry for everything that is so, each group's registration before its positions.
fn everything(table: &Table) -> impl Iterator<Item = Entry<'_>> {
    table.registered().flat_map(|(id, registration, group)| {
        let group_id = id.as_str();
        let registration = Entry::Registration { group: group_id, value: Some(registration) };
        let positions = group.positions().map(move |(partition, committed)| Entry::Position {
            group: group_id,
            partition,
            value: Some(StoredPosition {
                position: committed.position,
                committed_at: committed.committed_at,
                metadata: &committed.metadata,
            }),
        });
        std::iter::once(registration).chain(positions)
    })
}
