//! What has to be done now and then: called by a background thread or by the application.

use super::{Inner, MaintenanceReport};
use crate::{Result, Timestamp};

/// Time without appends after which the checkpoint is advanced, in milliseconds.
const IDLE_CHECKPOINT_MS: u64 = 50;
/// Time between the removal of one deleted segment and the next, in milliseconds.
const REMOVAL_PAUSE_MS: u64 = 10;

impl Inner {
    pub(crate) fn maintain(&self) -> Result<MaintenanceReport> {
        let Some(slot) = self.writer.as_ref().filter(|_| !self.is_closed() && !self.failure.is_set()) else {
            return Ok(MaintenanceReport::default());
        };
        self.refuse_forked()?;
        let config = self.config.load_full();
        let now = self.now();
        let mut report = MaintenanceReport::default();
        // The clock may stand behind what was appended; then nothing is due yet.
        let due_in = |since: Timestamp, ms: u64| ms.saturating_sub(now.since_ms(since));

        let staged_since = self.staging().staged_since();
        if staged_since.is_some_and(|since| due_in(since, config.write_interval_ms) == 0) {
            self.write_staged(None)?;
            report.did_work = true;
        }
        let (since, bytes) = {
            let writer = slot.take();
            (writer.unsynced_since, writer.unsynced_bytes)
        };
        if since.is_some_and(|since| due_in(since, config.sync_interval_ms) == 0)
            || bytes >= config.sync_bytes
        {
            let leader = self.commit.lead();
            self.sync_leading(&leader)?;
            report.did_work = true;
        }
        let is_old = slot.take().active_since.is_some_and(|since| due_in(since, config.roll_ms()) == 0);
        if is_old {
            let leader = self.commit.lead();
            self.roll_leading(&leader)?;
            self.sync_leading(&leader)?;
            report.did_work = true;
        }
        // One at a time: what removing a large file costs the file system is not to add up for those who sync meanwhile.
        if self.has_removals() {
            report.did_work = true;
            // A failure was told, and tries the other files no less.
            let _ = self.remove_one();
        }
        let has_removals = self.finish_if_removed();
        let mut writer = slot.take();
        self.failure.check()?;
        let mut due = None;
        let mut is_due_in = |ms: u64| due = Some(due.map_or(ms, |due: u64| due.min(ms)));
        if writer.is_dirty && writer.durable_point.offset > writer.checkpoint.latest().durable {
            let idle_since = writer.last_write.unwrap_or(now);
            match due_in(idle_since, IDLE_CHECKPOINT_MS) {
                0 => {
                    writer.advance_checkpoint(self)?;
                    report.did_work = true;
                }
                ms => is_due_in(ms),
            }
        }
        // These take room. A disk that has none must not keep others from seeing what is durable, so they come last.
        if writer.is_dirty && writer.seal_rolled(self)? > 0 {
            report.did_work = true;
        }
        if has_removals {
            is_due_in(REMOVAL_PAUSE_MS);
        }
        writer.keep_reserve(self, &config);
        if writer.next.is_none() && writer.position.get() >= u64::from(config.roll_bytes()) / 4 * 3 {
            report.did_work |= writer.prepare_next_within_limits(self)?;
        }
        if let Some(since) = self.staging().staged_since() {
            is_due_in(due_in(since, config.write_interval_ms));
        }
        if let Some(since) = writer.unsynced_since {
            is_due_in(due_in(since, config.sync_interval_ms));
            // Bytes can pile up faster than the interval: look again soon.
            is_due_in(config.write_interval_ms);
            is_due_in(IDLE_CHECKPOINT_MS);
        }
        if let Some(since) = writer.active_since {
            is_due_in(due_in(since, config.roll_ms()));
        }
        report.next_due_ms = due;
        Ok(report)
    }
}
