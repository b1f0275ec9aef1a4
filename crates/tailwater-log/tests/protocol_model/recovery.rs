//! Opening: from what is on the disk to a process that has the log open.

use super::disk::{Cell, CheckpointFile, Disk, File, Slot, Steps, Stop};
use super::process::Process;
use super::rules::{Rule, Rules, Scope};

type Segments = [(u8, File)];

/// Whether a segment of a higher epoch begins at or below this one.
pub(crate) fn is_superseded(segments: &Segments, index: usize) -> bool {
    let (base, file) = &segments[index];
    segments.iter().any(|(other, by)| by.epoch > file.epoch && other <= base)
}

/// Walks over contiguous batches from a cell of a segment on. Returns where that ends, and the batches.
pub(crate) fn walk(
    segments: &Segments,
    mut index: usize,
    mut cell: usize,
    mut offset: u8,
) -> (u8, Vec<Cell>) {
    let mut batches = Vec::new();
    loop {
        match segments.get(index + 1) {
            Some((next, _)) if *next < offset => return (offset, batches),
            Some((next, _)) if *next == offset => {
                index += 1;
                cell = 0;
                continue;
            }
            _ => {}
        }
        match segments[index].1.cell(cell) {
            batch @ Cell::Batch { offset: at, .. } if at == offset => batches.push(batch),
            _ => return (offset, batches),
        }
        offset += 1;
        cell += 1;
    }
}

/// Opens the log. Also says whether it was found clean.
pub(crate) fn open(
    disk: &mut Disk,
    steps: &mut Steps,
    rules: Rules,
    scope: &Scope,
) -> Result<(Process, bool), Stop> {
    let all = disk.segments();
    let slot = usable_slot(disk, &all, rules);
    let highest = all.iter().map(|(_, file)| file.epoch).max().unwrap_or(0);
    let garbage = garbage(&all, slot.log_start);
    let is_clean = is_clean(&all, &garbage, &slot, highest, rules);
    if rules.has(Rule::UnlinkAfterCommit) && is_clean {
        return Ok((Process::of_clean(&all, &slot), true));
    }
    if rules.has(Rule::SyncBeforeRecovery) {
        disk.sync_checkpoint(steps)?;
        disk.sync_directory(steps)?;
    }
    if !rules.has(Rule::UnlinkAfterCommit) {
        for base in &garbage {
            disk.unlink(*base, steps)?;
        }
        if is_clean {
            return Ok((Process::of_clean(&all, &slot), true));
        }
    }
    let segments: Vec<_> = all.into_iter().filter(|(base, _)| !garbage.contains(base)).collect();
    if segments.is_empty() {
        return Err(Stop::Corrupt("no segment"));
    }
    let mark = durable_mark(&segments, &slot, rules).max(segments[0].0);
    let (index, cell, offset) = scan_start(&segments, &slot, rules);
    let (end, _) = walk(&segments, index, cell, offset);
    if segments[0].0 > slot.log_start {
        return Err(Stop::Corrupt("the first segment begins above the log start"));
    }
    if end < mark {
        return Err(Stop::Corrupt("the end lies below the durable mark"));
    }
    if end < slot.log_start {
        return Err(Stop::Corrupt("the end lies below the log start"));
    }
    let (base, cells) = copied(&segments, mark, end, rules, scope)?;
    let epoch = if rules.has(Rule::EpochAboveCheckpoint) { highest.max(slot.epoch) } else { highest } + 1;
    let process = commit(disk, (base, File::whole(epoch, end, cells)), slot.log_start, steps, rules)?;
    Ok((process, false))
}

/// The checkpoint as far as it can be relied on.
fn usable_slot(disk: &Disk, all: &Segments, rules: Rules) -> Slot {
    let first = all.first().map_or(0, |(base, _)| *base);
    let nothing = Slot { log_start: first, scan_base: u8::MAX, ..Slot::EMPTY };
    let mut slot = disk.read_checkpoint().unwrap_or(nothing);
    if rules.has(Rule::BadSlotIsDirty) && disk.has_damaged_slot() {
        slot.is_dirty = true;
        slot.log_start = slot.log_start.max(first);
    }
    slot
}

/// The segments that are superseded, or lie wholly below the log start.
fn garbage(all: &Segments, log_start: u8) -> Vec<u8> {
    let is_superseded: Vec<bool> = (0..all.len()).map(|index| is_superseded(all, index)).collect();
    let live: Vec<u8> =
        all.iter().zip(&is_superseded).filter(|(_, is)| !**is).map(|((base, _), _)| *base).collect();
    let is_below = |base: u8| live.iter().any(|next| *next > base && *next <= log_start);
    let garbage = all.iter().zip(is_superseded).filter(|((base, _), is)| *is || is_below(*base));
    garbage.map(|((base, _), _)| *base).collect()
}

fn is_clean(all: &Segments, garbage: &[u8], slot: &Slot, highest: u8, rules: Rules) -> bool {
    let named = all.iter().find(|(base, _)| *base == slot.scan_base && !garbage.contains(base));
    let (false, Some((base, file))) = (slot.is_dirty, named) else { return false };
    let is_last = all.last().is_some_and(|(last, _)| last == base);
    let is_current = is_last && file.epoch == highest && slot.epoch == highest;
    (is_current || !rules.has(Rule::CleanNamesLast)) && file.cell(usize::from(slot.scan_cell)) == Cell::Zero
}

/// Everything below this was synced: damage there is no torn tail.
fn durable_mark(segments: &Segments, slot: &Slot, rules: Rules) -> u8 {
    let mut marks = vec![(slot.epoch, slot.durable)];
    for (_, file) in segments {
        marks.extend(file.live.iter().filter_map(|cell| match *cell {
            Cell::Batch { epoch, mark, .. } => Some((epoch, mark)),
            Cell::Footer { end } => Some((file.epoch, end)),
            Cell::Zero | Cell::Torn => None,
        }));
    }
    if rules.has(Rule::MarksOfHighestEpoch) {
        let highest = segments.iter().map(|(_, file)| file.epoch).max().unwrap_or(0);
        let begun = segments.iter().find(|(_, file)| file.epoch == highest).map(|(_, file)| file.epoch_start);
        let current = marks.iter().filter(|(epoch, _)| *epoch >= highest).map(|(_, mark)| *mark);
        return current.chain(begun).max().unwrap_or(0);
    }
    // An earlier rule: a mark counts up to where the next higher epoch begins.
    let limited = |&(epoch, mark): &(u8, u8)| {
        let later = segments.iter().filter(|(_, file)| file.epoch > epoch);
        let next = later.map(|(_, file)| (file.epoch, file.epoch_start)).min();
        next.map_or(mark, |(_, start)| mark.min(start))
    };
    marks.iter().map(limited).max().unwrap_or(0)
}

/// Where the scan for the end begins: index of the segment, cell, offset.
fn scan_start(segments: &Segments, slot: &Slot, rules: Rules) -> (usize, usize, u8) {
    let named = segments.iter().position(|(base, _)| *base == slot.scan_base);
    let recorded = |index| (index, usize::from(slot.scan_cell), slot.scan_offset);
    if !rules.has(Rule::ScanStartIsCurrent) {
        // As one may read it: if the segment is gone, the next one above, else the last.
        return named.map_or_else(
            || {
                let above = segments.iter().position(|(base, _)| *base >= slot.scan_offset);
                let index = above.unwrap_or(segments.len() - 1);
                (index, 0, segments[index].0)
            },
            recorded,
        );
    }
    let is_current = |index: usize| {
        let own = segments[index].1.epoch;
        own <= slot.epoch
            && !segments
                .iter()
                .any(|(base, file)| file.epoch > slot.epoch.min(own) && *base < slot.scan_offset)
    };
    named.filter(|index| is_current(*index)).map_or((0, 0, segments[0].0), recorded)
}

/// What the new segment holds, and its base: everything from the durable mark to the end, or from the start of the
/// segment that the mark falls in.
fn copied(
    segments: &Segments,
    mark: u8,
    end: u8,
    rules: Rules,
    scope: &Scope,
) -> Result<(u8, Vec<Cell>), Stop> {
    let holder = |from: u8| segments.iter().rposition(|(base, _)| *base <= from);
    let batches_from = |from: u8| {
        let index = holder(from)?;
        let (to, batches) = walk(segments, index, usize::from(from - segments[index].0), from);
        (to == end).then_some(batches)
    };
    if scope.copies_whole_segment
        && let Some(index) = holder(mark)
        && let Some(mut batches) = batches_from(segments[index].0)
    {
        if !rules.has(Rule::WholeCopyToEnd) {
            let next = segments.get(index + 1).map_or(u8::MAX, |(base, _)| *base);
            batches.retain(|cell| matches!(cell, Cell::Batch { offset, .. } if *offset < next));
        }
        return Ok((segments[index].0, batches));
    }
    let batches = batches_from(mark).ok_or(Stop::Corrupt("a batch that was scanned does not verify"))?;
    Ok((mark, batches))
}

/// Renames the new segment in, replaces the checkpoint, and unlinks what is garbage then.
fn commit(
    disk: &mut Disk,
    (base, file): (u8, File),
    log_start: u8,
    steps: &mut Steps,
    rules: Rules,
) -> Result<Process, Stop> {
    let (epoch, end) = (file.epoch, file.epoch_start);
    disk.rename_in(base, file, steps)?;
    disk.sync_directory(steps)?;
    let named = disk.segments();
    let cell = disk.file(base).map_or(0, |file| file.live.len() as u8);
    let is_dirty = rules.has(Rule::RecoveredIsDirty);
    let slot = Slot {
        sequence: 1,
        is_damaged: false,
        is_dirty,
        epoch,
        log_start,
        durable: end,
        scan_base: base,
        scan_cell: cell,
        scan_offset: end,
    };
    if rules.has(Rule::FreshCheckpoint) {
        let second = if rules.has(Rule::BothSlots) { Slot { sequence: 2, ..slot } } else { Slot::EMPTY };
        disk.replace_checkpoint(CheckpointFile::new([slot, second]), steps)?;
        disk.sync_directory(steps)?;
    } else {
        disk.write_checkpoint(slot, steps)?;
        disk.sync_checkpoint(steps)?;
    }
    for base in garbage(&named, log_start) {
        disk.unlink(base, steps)?;
    }
    Ok(Process {
        epoch,
        epoch_start: end,
        active: base,
        cell,
        end,
        durable: end,
        log_start,
        is_dirty,
        is_failed: false,
        previous: None,
        unsealed: Vec::new(),
        is_name_synced: true,
    })
}
