//! What a user, and maintenance, do with an open log.

use std::fmt;

use super::disk::{Disk, File, Steps, Stop};
use super::history::History;
use super::process::Process;
use super::recovery::walk;
use super::rules::{Rule, Rules, Scope};

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// Appends this many records, each a batch.
    Append(u8),
    Sync,
    Roll,
    Seal,
    TruncateTo(u8),
    DeleteBefore(u8),
    /// Writes the durable offset to the checkpoint, without a sync.
    AdvanceCheckpoint,
    Close,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The operations that do something now.
pub(crate) fn possible(process: &Process, disk: &Disk, scope: &Scope) -> Vec<Operation> {
    let mut operations = vec![Operation::Append(1)];
    let mut add = |is_possible: bool, operation| operations.extend(is_possible.then_some(operation));
    add(!scope.is_about_rolls, Operation::Append(2));
    add(process.durable < process.end, Operation::Sync);
    add(process.cell > 0 && process.end > process.active, Operation::Roll);
    add(!process.unsealed.is_empty(), Operation::Seal);
    if scope.is_about_rolls {
        return operations;
    }
    for offset in process.log_start..process.end {
        add(true, Operation::TruncateTo(offset));
    }
    for offset in process.log_start + 1..=process.durable {
        add(offset == process.durable || disk.has_name(offset), Operation::DeleteBefore(offset));
    }
    add(process.is_dirty && process.durable >= process.active, Operation::AdvanceCheckpoint);
    add(true, Operation::Close);
    operations
}

/// An open log, what it was promised to hold, and the next record to append.
pub(crate) struct Opened<'s> {
    pub(crate) disk: &'s mut Disk,
    pub(crate) process: &'s mut Process,
    /// More than one while a truncation is under way.
    pub(crate) histories: &'s mut Vec<History>,
    pub(crate) next_id: &'s mut u8,
}

impl Opened<'_> {
    /// Runs an operation, and notes what it promises.
    pub(crate) fn run(
        &mut self,
        operation: Operation,
        steps: &mut Steps,
        rules: Rules,
        scope: &Scope,
    ) -> Result<(), Stop> {
        match operation {
            Operation::Append(count) => self.append(count, steps, rules),
            Operation::Sync => {
                self.process.sync(self.disk, steps)?;
                let history = &mut self.histories[0];
                history.durable_before = history.durable;
                history.durable = self.process.durable;
                Ok(())
            }
            Operation::Roll => self.process.roll(self.disk, steps, rules),
            Operation::Seal => self.process.seal(self.disk, steps, rules),
            Operation::TruncateTo(offset) => self.truncate_to(offset, steps, rules, scope),
            Operation::DeleteBefore(offset) => self.delete_before(offset, steps, rules),
            Operation::AdvanceCheckpoint => self.disk.write_checkpoint(self.process.checkpoint(true), steps),
            Operation::Close => self.close(steps, rules),
        }
    }

    fn append(&mut self, count: u8, steps: &mut Steps, rules: Rules) -> Result<(), Stop> {
        let ids = *self.next_id..*self.next_id + count;
        *self.next_id = ids.end;
        let history = &mut self.histories[0];
        history.content.extend(ids.clone().map(|id| (id, self.process.epoch)));
        if rules.has(Rule::DirtyBeforeAppend) {
            self.process.set_dirty(self.disk, steps)?;
        }
        let before = (self.process.cell, self.process.end);
        for id in ids {
            self.process.append(self.disk, id, steps)?;
        }
        if !rules.has(Rule::DirtyBeforeAppend) {
            let after = (self.process.cell, self.process.end);
            (self.process.cell, self.process.end) = before;
            let written = self.process.set_dirty(self.disk, steps);
            (self.process.cell, self.process.end) = after;
            written?;
        }
        history.visible = self.process.end;
        Ok(())
    }

    fn close(&mut self, steps: &mut Steps, rules: Rules) -> Result<(), Stop> {
        if rules.has(Rule::UnusedCloseWritesNothing) && !self.process.is_dirty {
            return Ok(());
        }
        self.process.sync(self.disk, steps)?;
        self.histories[0].durable = self.process.durable;
        self.disk.write_checkpoint(self.process.checkpoint(false), steps)?;
        let synced = self.disk.sync_checkpoint(steps);
        if synced == Err(Stop::SyncFailed) && rules.has(Rule::FailedCloseIsDirty) {
            let _ = self.disk.write_checkpoint(self.process.checkpoint(true), steps);
        }
        synced?;
        self.histories[0].durable_before = self.histories[0].durable;
        Ok(())
    }

    fn delete_before(&mut self, offset: u8, steps: &mut Steps, rules: Rules) -> Result<(), Stop> {
        self.histories[0].log_starts.1 = offset;
        let (disk, process) = (&mut *self.disk, &mut *self.process);
        if offset == process.end && process.cell > 0 {
            process.roll(disk, steps, rules)?;
        }
        if rules.has(Rule::DeleteSyncsNames) && !process.is_name_synced {
            process.sync_names(disk, steps)?;
        }
        process.log_start = offset;
        process.is_dirty |= rules.has(Rule::DeleteIsDirty);
        let slot = process.checkpoint(process.is_dirty);
        for _ in 0..if rules.has(Rule::BothSlots) { 2 } else { 1 } {
            disk.write_checkpoint(slot, steps)?;
            disk.sync_checkpoint(steps)?;
        }
        self.histories[0].log_starts.0 = offset;
        for pair in disk.bases().windows(2).filter(|pair| pair[1] <= offset) {
            process.unsealed.retain(|(base, _)| *base != pair[0]);
            disk.unlink(pair[0], steps)?;
        }
        disk.sync_directory(steps)?;
        process.is_name_synced = true;
        Ok(())
    }

    fn truncate_to(
        &mut self,
        offset: u8,
        steps: &mut Steps,
        rules: Rules,
        scope: &Scope,
    ) -> Result<(), Stop> {
        let (disk, process) = (&mut *self.disk, &mut *self.process);
        if rules.has(Rule::TruncateSyncs) {
            process.sync(disk, steps)?;
        }
        // From here on a crash may leave either history.
        self.histories.push(self.histories[0].truncated(offset));
        let segments = disk.segments();
        let index = segments.iter().rposition(|(base, _)| *base <= offset).unwrap_or(0);
        let mut base = offset;
        let mut cells = Vec::new();
        if scope.truncation_keeps_prefix {
            base = segments[index].0;
            cells = walk(&segments, index, 0, base).1;
            cells.truncate(usize::from(offset - base));
        }
        let cell = cells.len() as u8;
        disk.rename_in(base, File::whole(process.epoch + 1, offset, cells), steps)?;
        disk.sync_directory(steps)?;
        let old_active = process.active;
        process.epoch += 1;
        process.epoch_start = offset;
        process.end = offset;
        process.durable = process.durable.min(offset);
        process.active = base;
        process.cell = cell;
        process.is_name_synced = true;
        process.unsealed.retain(|(unsealed, _)| *unsealed < base);
        if process.durable < offset && process.previous.is_none() && old_active < base {
            process.previous = Some(old_active);
        }
        process.previous = process.previous.filter(|previous| *previous < base);
        self.histories.remove(0);
        if rules.has(Rule::TruncateSyncs) {
            self.histories[0].durable = offset;
        }
        for above in disk.bases().into_iter().filter(|above| *above > base) {
            disk.unlink(above, steps)?;
        }
        Ok(())
    }
}
