//! Removing the files of segments that are no longer part of the log.
//!
//! - A segment comes here when the log start that it lies below is durable: whenever its file is removed, or comes back,
//!   recovery takes no heed of it.
//! - Files are removed without the writer, so that nobody who appends waits for it.
//! - Whoever reads a removed file reads on: its handle keeps the bytes.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, Weak};

use super::Inner;
use super::commit::Leader;
use crate::Result;
use crate::segment::Segment;
use crate::storage::Map;
use crate::sync::MutexGuard;

/// Files to remove, and those that were removed and are still read.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    waiting: VecDeque<Arc<Segment>>,
    /// Whether files were removed since the directory was last synced.
    is_unsynced: bool,
    /// Whether a file could not be removed, so that a later recovery has to.
    is_littered: bool,
    /// Maps of files that were removed, and their size in bytes.
    pinned: Vec<(Weak<Map>, u64)>,
    removed_segments: u64,
    removed_bytes: u64,
}

/// The figures of removals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RemovalStats {
    /// Segment files removed since the open.
    pub removed_segments: u64,
    /// Their size in bytes.
    pub removed_bytes: u64,
    /// Segment files that are no longer part of the log and will be removed.
    pub waiting_segments: u64,
    /// Their size in bytes.
    pub waiting_bytes: u64,
    /// Removed segment files whose bytes are still held, by records that were read from them.
    pub pinned_segments: u64,
    /// Their size in bytes: disk space that comes back when those records are dropped.
    pub pinned_bytes: u64,
}

impl Inner {
    pub(crate) fn removals(&self) -> MutexGuard<'_, Removals> {
        // What a panic inside leaves is at worst a file that the next recovery removes.
        self.removals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the files of segments, lowest first, removed later.
    pub(crate) fn remove_later(&self, segments: Vec<Arc<Segment>>) {
        self.removals().waiting.extend(segments);
    }

    /// Whether there are files to remove.
    pub(crate) fn has_removals(&self) -> bool {
        !self.removals().waiting.is_empty()
    }

    /// Makes the removals durable if all are made. Returns whether there are more to make.
    pub(crate) fn finish_if_removed(&self) -> bool {
        let has_removals = self.has_removals();
        if !has_removals {
            // Where that fails, no clean mark is written.
            let _ = self.sync_removals();
        }
        has_removals
    }

    /// Removes one file, or makes durable that all were removed. Returns whether there was one.
    pub(crate) fn remove_one(&self) -> Result<bool> {
        match self.remove_next()? {
            true => Ok(true),
            false => self.sync_removals().map(|()| false),
        }
    }

    fn remove_next(&self) -> Result<bool> {
        let Some(segment) = self.removals().waiting.pop_front() else { return Ok(false) };
        let bytes = segment.known_length();
        let map = segment.take_open().and_then(|opened| opened.map_in_use());
        if let Err(error) = self.storage.remove_file(segment.path())
            && !error.is_not_found()
        {
            let mut removals = self.removals();
            removals.is_littered = true;
            tracing::warn!(%error, "a segment that is no longer needed stays until the next recovery");
            return Err(error);
        }
        let mut removals = self.removals();
        removals.is_unsynced = true;
        removals.removed_segments += 1;
        removals.removed_bytes += bytes;
        removals.pinned.retain(|(pinned, _)| pinned.strong_count() > 0);
        removals.pinned.extend(map.filter(|map| map.strong_count() > 0).map(|map| (map, bytes)));
        drop(removals);
        self.space.shrink(bytes);
        Ok(true)
    }

    /// Removes all files that wait for it, and makes that durable. Returns how many there were.
    pub(crate) fn remove_deleted(&self) -> Result<u64> {
        let mut count = 0;
        while self.remove_one()? {
            count += 1;
        }
        Ok(count)
    }

    /// Makes durable that files were removed. Until then one may be there again after a power cut.
    fn sync_removals(&self) -> Result<()> {
        if self.removals().is_unsynced {
            // As every sync of names: one that fails could take along the name of a segment that was just begun.
            let leader = self.commit.lead();
            self.sync_removals_leading(&leader)?;
        }
        Ok(())
    }

    fn sync_removals_leading(&self, _leader: &Leader<'_>) -> Result<()> {
        if std::mem::take(&mut self.removals().is_unsynced) {
            self.sync_names().inspect_err(|_| self.removals().is_littered = true)?;
        }
        Ok(())
    }

    /// Removes what is left to remove, before a clean mark. False if something may come back.
    pub(crate) fn finish_removals(&self, leader: &Leader<'_>) -> Result<bool> {
        loop {
            match self.remove_next() {
                Ok(true) => {}
                Ok(false) => break,
                // It was told, and is removed by a later recovery.
                Err(_) => {}
            }
        }
        self.sync_removals_leading(leader)?;
        Ok(!self.removals().is_littered)
    }

    pub(crate) fn removal_stats(&self) -> RemovalStats {
        let removals = self.removals();
        let pinned = removals.pinned.iter().filter(|(pinned, _)| pinned.strong_count() > 0);
        let (pinned_segments, pinned_bytes) =
            pinned.fold((0, 0), |(n, sum), (_, bytes)| (n + 1, sum + bytes));
        RemovalStats {
            removed_segments: removals.removed_segments,
            removed_bytes: removals.removed_bytes,
            waiting_segments: removals.waiting.len() as u64,
            waiting_bytes: removals.waiting.iter().map(|segment| segment.known_length()).sum(),
            pinned_segments,
            pinned_bytes,
        }
    }
}
