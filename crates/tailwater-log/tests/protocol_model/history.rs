//! What was promised, and whether an opened log keeps it.

use super::disk::{Cell, File};
use super::process::Process;
use super::recovery::{is_superseded, walk};

/// One history that may be found. Offsets are indexes into `content`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct History {
    /// Id and epoch of each record.
    pub(crate) content: Vec<(u8, u8)>,
    /// Up to here records were visible.
    pub(crate) visible: u8,
    /// Up to here they were acknowledged as durable, by the last sync and by the one before.
    pub(crate) durable: u8,
    pub(crate) durable_before: u8,
    /// Up to here they must be there now.
    pub(crate) least: u8,
    /// The log starts that may be found.
    pub(crate) log_starts: (u8, u8),
    /// Positions that were visible and whose records are gone: offset and epoch.
    pub(crate) lost: Vec<(u8, u8)>,
}

impl History {
    /// That of a log to which nothing was appended.
    pub(crate) fn new() -> Self {
        Self {
            content: Vec::new(),
            visible: 0,
            durable: 0,
            durable_before: 0,
            least: 0,
            log_starts: (0, 0),
            lost: Vec::new(),
        }
    }

    /// The history after a truncation to `offset`.
    pub(crate) fn truncated(&self, offset: u8) -> Self {
        let mut cut = self.clone();
        let removed = offset..self.visible;
        cut.lost.extend(removed.map(|offset| (offset, self.content[usize::from(offset)].1)));
        cut.content.truncate(usize::from(offset));
        cut.visible = offset;
        for end in [&mut cut.durable, &mut cut.durable_before, &mut cut.least] {
            *end = (*end).min(offset);
        }
        cut
    }

    /// The history that goes on from an open that found `[log_start, end)`.
    fn continued(&self, log_start: u8, end: u8, is_clean: bool) -> Self {
        let mut next = self.clone();
        for offset in end..self.visible.max(end) {
            let position = (offset, self.content[usize::from(offset)].1);
            if !next.lost.contains(&position) {
                next.lost.push(position);
            }
        }
        next.lost.sort_unstable();
        next.content.truncate(usize::from(end));
        next.visible = end;
        next.durable = end;
        next.durable_before = if is_clean { next.durable_before.min(end) } else { end };
        next.log_starts = (log_start, log_start);
        next.least = end;
        next
    }
}

/// Damage that was done on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Rot {
    /// The offset of the rotten batch.
    pub(crate) batch: Option<u8>,
    pub(crate) slot: bool,
}

/// What an open is found to be.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// As promised; it goes on with this history.
    Kept(History),
    /// As promised, for a log with a rotten batch, in which more is not looked for.
    Damaged,
}

/// Compares an opened log with the histories that may be found.
pub(crate) fn check(
    process: &Process,
    all: &[(u8, File)],
    histories: &[History],
    rot: Rot,
    is_clean: bool,
) -> Result<Verdict, &'static str> {
    let (log_start, end) = (process.log_start, process.end);
    let live: Vec<_> =
        (0..all.len()).filter(|index| !is_superseded(all, *index)).map(|index| all[index].clone()).collect();
    let Some(first) = live.iter().rposition(|(base, _)| *base <= log_start) else {
        return Err("no segment holds the log start after an open");
    };
    let (readable, batches) = walk(&live, first, 0, live[first].0);
    if readable < end {
        let result = rot.batch.map(|_| Verdict::Damaged);
        return result.ok_or("a hole: readers stop below the end that was opened");
    }
    let found: Vec<_> = batches.iter().filter_map(|cell| record_within(cell, log_start, end)).collect();
    let mut reason = "";
    for history in histories {
        match fits(history, log_start, end, &found, rot) {
            Ok(Verdict::Damaged) => return Ok(Verdict::Damaged),
            Ok(Verdict::Kept(_)) => {
                let next = history.continued(log_start, end, is_clean);
                check_lost_positions(&next.lost, process, &live, &batches)?;
                return Ok(Verdict::Kept(next));
            }
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

fn record_within(cell: &Cell, start: u8, end: u8) -> Option<(u8, u8)> {
    match *cell {
        Cell::Batch { offset, epoch, id, .. } if (start..end).contains(&offset) => Some((id, epoch)),
        _ => None,
    }
}

fn fits(
    history: &History,
    log_start: u8,
    end: u8,
    found: &[(u8, u8)],
    rot: Rot,
) -> Result<Verdict, &'static str> {
    let (earlier, later) = history.log_starts;
    // With the newest slot gone the log start may be an older one.
    if log_start != earlier && log_start != later && !(rot.slot && log_start <= later) {
        return Err("the log start is one that was never set");
    }
    if end < history.least {
        return match rot.batch {
            // Rot within the last group that was synced cannot be told from a torn tail.
            Some(batch) if batch >= history.durable_before && end >= batch => Ok(Verdict::Damaged),
            _ if rot != Rot::default() => Err("damage: acknowledged records were cut in silence"),
            _ if end < history.durable => Err("records that were acknowledged as durable are lost"),
            _ => Err("records that were written are lost by a mere death of the process"),
        };
    }
    if usize::from(end) > history.content.len() {
        return Err("records that were not appended, or were truncated, are there");
    }
    if found != &history.content[usize::from(log_start)..usize::from(end)] {
        return Err("a record that was not appended there");
    }
    Ok(Verdict::Kept(history.clone()))
}

/// A position whose record is gone must lie beyond the end of its epoch.
fn check_lost_positions(
    lost: &[(u8, u8)],
    process: &Process,
    live: &[(u8, File)],
    batches: &[Cell],
) -> Result<(), &'static str> {
    for &(offset, epoch) in lost.iter().filter(|(offset, _)| *offset >= process.log_start) {
        let of_segments =
            live.iter().filter(|(_, file)| file.epoch > epoch).map(|(_, file)| file.epoch_start);
        let of_batches = batches.iter().filter_map(|cell| match *cell {
            Cell::Batch { offset, epoch: of, .. } if of > epoch && offset < process.end => Some(offset),
            _ => None,
        });
        match of_segments.chain(of_batches).min() {
            Some(epoch_end) if epoch_end.min(process.end) > offset => {
                return Err("a lost position still looks valid");
            }
            None if process.epoch == epoch => {
                return Err("visible records are lost and the epoch is the same");
            }
            _ => {}
        }
    }
    Ok(())
}
