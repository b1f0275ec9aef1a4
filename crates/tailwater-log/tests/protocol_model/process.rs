//! What the process that uses the log holds in memory, and the steps that its operations share.

use super::disk::{Cell, Disk, File, Slot, Steps, Stop};
use super::rules::{Rule, Rules};

/// A process that has the log open.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Process {
    pub(crate) epoch: u8,
    pub(crate) epoch_start: u8,
    /// The base of the active segment, and the cell that is written next.
    pub(crate) active: u8,
    pub(crate) cell: u8,
    pub(crate) end: u8,
    pub(crate) durable: u8,
    pub(crate) log_start: u8,
    pub(crate) is_dirty: bool,
    /// A sync failed: nothing more is done before the log is opened again.
    pub(crate) is_failed: bool,
    /// The segment before the active one, if it may hold un-synced data.
    pub(crate) previous: Option<u8>,
    /// Rolled segments without a footer: base and end.
    pub(crate) unsealed: Vec<(u8, u8)>,
    pub(crate) is_name_synced: bool,
}

impl Process {
    /// A process whose log is as its checkpoint says.
    pub(crate) fn of_clean(segments: &[(u8, File)], slot: &Slot) -> Self {
        let active = segments.iter().find(|(base, _)| *base == slot.scan_base);
        let (base, file) = active.expect("a clean checkpoint names a segment");
        Self {
            epoch: file.epoch,
            epoch_start: file.epoch_start,
            active: *base,
            cell: slot.scan_cell,
            end: slot.scan_offset,
            durable: slot.scan_offset,
            log_start: slot.log_start,
            is_dirty: false,
            is_failed: false,
            previous: None,
            unsealed: Vec::new(),
            is_name_synced: true,
        }
    }

    /// The checkpoint as it would be written now. A scan begins at the durable offset if the active segment holds it.
    pub(crate) fn checkpoint(&self, is_dirty: bool) -> Slot {
        let is_in_active = self.durable >= self.active;
        Slot {
            is_dirty,
            epoch: self.epoch,
            log_start: self.log_start,
            durable: self.durable,
            scan_base: if is_in_active { self.active } else { u8::MAX },
            scan_cell: if is_in_active { self.cell - (self.end - self.durable) } else { 0 },
            scan_offset: self.durable,
            ..Slot::EMPTY
        }
    }

    pub(crate) fn set_dirty(&mut self, disk: &mut Disk, steps: &mut Steps) -> Result<(), Stop> {
        if !self.is_dirty {
            disk.write_checkpoint(self.checkpoint(true), steps)?;
            disk.sync_checkpoint(steps)?;
            self.is_dirty = true;
        }
        Ok(())
    }

    fn sync_previous(&mut self, disk: &mut Disk, steps: &mut Steps) -> Result<(), Stop> {
        if let Some(base) = self.previous {
            disk.sync_file(base, steps)?;
            self.previous = None;
        }
        Ok(())
    }

    /// Syncs the segment before the active one, then the active one's name.
    pub(crate) fn sync_names(&mut self, disk: &mut Disk, steps: &mut Steps) -> Result<(), Stop> {
        self.sync_previous(disk, steps)?;
        if !self.is_name_synced {
            disk.sync_directory(steps)?;
            self.is_name_synced = true;
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(crate) fn sync(&mut self, disk: &mut Disk, steps: &mut Steps) -> Result<(), Stop> {
        self.sync_names(disk, steps)?;
        if self.durable < self.end {
            disk.sync_file(self.active, steps)?;
        }
        self.durable = self.end;
        Ok(())
    }

    pub(crate) fn append(&mut self, disk: &mut Disk, id: u8, steps: &mut Steps) -> Result<(), Stop> {
        let batch = Cell::Batch { offset: self.end, epoch: self.epoch, mark: self.durable, id };
        disk.write(self.active, usize::from(self.cell), batch, steps)?;
        self.cell += 1;
        self.end += 1;
        Ok(())
    }

    /// Makes a new segment the active one.
    pub(crate) fn roll(&mut self, disk: &mut Disk, steps: &mut Steps, rules: Rules) -> Result<(), Stop> {
        if rules.has(Rule::RollBehindOwnName) {
            self.sync_names(disk, steps)?;
        } else {
            self.sync_previous(disk, steps)?;
        }
        disk.rename_in(self.end, File::whole(self.epoch, self.epoch_start, Vec::new()), steps)?;
        self.unsealed.push((self.active, self.end));
        self.previous = Some(self.active);
        self.active = self.end;
        self.cell = 0;
        self.is_name_synced = false;
        Ok(())
    }

    /// Writes the footer of the first rolled segment.
    pub(crate) fn seal(&mut self, disk: &mut Disk, steps: &mut Steps, rules: Rules) -> Result<(), Stop> {
        let (base, end) = self.unsealed[0];
        if rules.has(Rule::FooterBehindDurable) {
            if self.durable < end || !self.is_name_synced {
                self.sync_names(disk, steps)?;
            }
            self.durable = self.durable.max(end.min(self.active));
        }
        disk.sync_file(base, steps)?;
        if self.previous == Some(base) {
            self.previous = None;
        }
        let cell = disk.file(base).map_or(0, |file| file.live.len());
        disk.write(base, cell, Cell::Footer { end }, steps)?;
        disk.sync_file(base, steps)?;
        self.unsealed.remove(0);
        Ok(())
    }
}
