//! Closing a log in order, so that its next open need not scan.

use std::sync::PoisonError;

use super::Inner;
use super::commit::Leader;
use super::writer::Writer;
use crate::mistakes::{Mistake, is_planted};
use crate::sync::atomic::Ordering;
use crate::{Error, Offset, Result};

impl Inner {
    pub(crate) fn close(&self) -> Result<()> {
        // A forked child has a copy of what its parent goes on with, staged records among them.
        self.refuse_forked()?;
        // A compaction ends first: the clean mark is not for names that are just being changed.
        let compaction = self.compaction.stop();
        let leader = self.commit.lead();
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.staging().stop(Error::Closed);
        let closed = match &self.writer {
            None => Ok(()),
            Some(slot) if is_planted(Mistake::CleanMarkBeforeSync) => {
                let written = self.write_staged(None);
                let marked = written.and_then(|()| self.mark_clean(&mut slot.take(), &leader));
                marked.and_then(|()| self.sync_leading(&leader).map(drop))
            }
            Some(slot) => match self.sync_leading(&leader) {
                Ok(_) => self.mark_clean(&mut slot.take(), &leader),
                Err(full @ Error::DiskFull { .. }) => {
                    // What is durable is recorded all the same, for who reads it before it can be recovered.
                    slot.take().advance_checkpoint(self).and(Err(full))
                }
                Err(error) => Err(error),
            },
        };
        self.is_settled.store(true, Ordering::SeqCst);
        // The lock goes last: another process may open the directory from here on.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(leader);
        drop(compaction);
        self.commit.wake_all();
        self.listeners.notify_all();
        closed
    }

    /// Writes the clean mark. A log that failed, that was not written to, or that has garbage which could come back,
    /// gets none.
    fn mark_clean(&self, writer: &mut Writer, leader: &Leader<'_>) -> Result<()> {
        self.failure.check()?;
        if let Some(next) = writer.next.take() {
            let _ = next.discard(&self.storage, Error::Closed);
        }
        if !writer.is_dirty {
            return Ok(());
        }
        match writer.seal_rolled(self) {
            // A footer saves scanning and nothing else. The clean mark takes no room, and without it the next open would
            // have to recover, which does.
            Err(Error::DiskFull { .. }) => {}
            sealed => drop(sealed?),
        }
        if !self.finish_removals(leader)? || writer.is_littered || writer.is_compacting {
            return Ok(());
        }
        let file = writer.checkpoint.open(self)?;
        let clean = writer.checkpoint_now(self, false);
        writer.checkpoint.write(&file, clean).map_err(|error| self.fail(error))?;
        if let Err(error) = file.sync_data() {
            // The mark may or may not be on disk; a dirty one over it is the best that can be done.
            let dirty = writer.checkpoint_now(self, true);
            let _ = writer.checkpoint.write(&file, dirty);
            return Err(self.fail(error));
        }
        writer.is_dirty = false;
        Ok(())
    }

    pub(crate) fn log_end_offset(&self) -> Offset {
        self.staging().next_offset()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.writer.is_some()
            && !self.is_closed.load(Ordering::SeqCst)
            && !std::thread::panicking()
            && let Err(error) = self.close()
        {
            tracing::error!(directory = %self.directory.display(), %error, "a dropped log could not be closed");
        }
    }
}
