//! Putting a finished segment in the place of those that it was made from.
//!
//! - The order is: the segment synced under a temporary name, the dirty flag, the rename over the first of its inputs, the
//!   directory synced; then the other inputs unlinked, and the directory synced again.
//! - A power cut leaves the inputs, or the new segment, whose header tells that what is left of the inputs is garbage.
//! - The directory is synced by who leads the group commit: a sync that failed could else take another's names along unnoticed.

use std::sync::Arc;

use super::{Halt, Halted};
use crate::compaction::Written;
use crate::format::{BatchPlace, Compacted, Footer, SegmentHeader};
use crate::log::inner::Inner;
use crate::log::writer::{Writer, new_header};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{NewSegment, OpenSegment, Segment};
use crate::{FilePosition, Offset, Result};

/// Segments that one takes the place of.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Held open, so that what is unlinked takes no time to be given back while appends wait.
    pub(super) inputs: Vec<(Arc<Segment>, Arc<OpenSegment>)>,
    /// Where the last of them ends.
    pub(super) end: Offset,
    /// Up to here they have been cleaned.
    pub(super) cleaned_end: Offset,
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
    pub(super) records_removed: u64,
    pub(super) tombstones_removed: u64,
    header: Option<SegmentHeader>,
}

/// A header for a segment that is made from others, of which this is the first one's.
pub(super) fn header_for(log: &Inner, first: &SegmentHeader) -> SegmentHeader {
    new_header(log, first.epoch, first.epoch_start)
}

impl Group {
    /// Writes what is known only now that all batches are there: footer and header. Makes the file durable.
    pub(super) fn finish(&mut self, new: &NewSegment, written: Written) -> Result<()> {
        let Written { summary, data_end, next_horizon } = written;
        let base = summary.first_offset;
        let footer = Footer { summary, producers: Vec::new(), aborted: Vec::new() };
        let place = BatchPlace { salt: new.header.salt, position: data_end };
        let bytes = footer.encode(base, place);
        self.bytes_after = data_end.get() + bytes.len() as u64;
        // Epochs never fall from segment to segment: what has the last one's supersedes nothing that follows.
        let made_in = self.inputs.last().map_or(new.header, |(_, opened)| opened.header);
        let compacted = Compacted { end: self.end, cleaned_end: self.cleaned_end, next_horizon };
        let header = SegmentHeader {
            epoch: made_in.epoch,
            epoch_start: made_in.epoch_start,
            compacted: Some(compacted),
            ..new.header
        };
        self.header = Some(header);
        // What was written behind the end, and did not fit after all, is cut off.
        new.file.set_length(self.bytes_after)?;
        new.file.write_all_at(&bytes, data_end)?;
        new.file.write_all_at(&header.encode_prefix(), FilePosition::ZERO)?;
        if is_planted(Mistake::CompactionForgetsSync) { Ok(()) } else { new.sync() }
    }
}

impl Inner {
    /// Puts `new` in the place of the inputs of `group`, if they are still part of the log.
    pub(super) fn publish_compacted(&self, mut new: NewSegment, group: &Group) -> Halted<()> {
        let (Some((first, _)), Some(header)) = (group.inputs.first(), group.header) else { return Ok(()) };
        let leader = self.commit.lead();
        {
            let mut writer = self.writer()?.take();
            let published = self.replace_inputs(&mut writer, &mut new, group, first.base, &header);
            published.map_err(|halt| match halt {
                Halt::Failed(error) => Halt::Failed(new.discard(&self.storage, error)),
                halt => {
                    let _ = new.discard(&self.storage, crate::Error::Closed);
                    halt
                }
            })?;
        }
        if is_planted(Mistake::CompactionUnlinksBeforeSync) {
            self.unlink_inputs(group)?;
        }
        self.sync_names()?;
        drop(leader);
        first.forget_open();
        if group.inputs.len() > 1 {
            let leader = self.commit.lead();
            self.unlink_inputs(group)?;
            self.sync_names()?;
            self.writer()?.take().is_compacting = false;
            drop(leader);
        } else {
            self.writer()?.take().is_compacting = false;
        }
        Ok(())
    }

    fn replace_inputs(
        &self,
        writer: &mut Writer,
        new: &mut NewSegment,
        group: &Group,
        base: Offset,
        header: &SegmentHeader,
    ) -> Halted<()> {
        self.failure.check()?;
        let inputs: Vec<_> = group.inputs.iter().map(|(segment, _)| segment).collect();
        let segment = Arc::new(Segment::replacing(&self.directory, base, header, group.bytes_after));
        // Nobody else changes the list while the writer is held.
        let replaced = self.segments.load().replace(&inputs, group.end, segment);
        let replaced = replaced.ok_or(Halt::Overtaken)?;
        writer.set_dirty(self)?;
        let exchange = self.begin_exchange();
        new.publish(&self.storage, &self.directory, base)?;
        writer.is_compacting = true;
        writer.generation = writer.generation.wrapping_add(1);
        self.segments.store(Arc::new(replaced));
        drop(exchange);
        self.correct_space(writer);
        // Tells those who are attached. No power cut makes it wrong: it only says that files are to be opened anew.
        Ok(writer.advance_checkpoint(self)?)
    }

    /// Unlinks the inputs that were not replaced by name. What cannot be removed is garbage to any later open; until then the
    /// log cannot be marked clean.
    fn unlink_inputs(&self, group: &Group) -> Result<()> {
        let mut writer = self.writer()?.take();
        self.failure.check()?;
        let live = self.segments.load();
        for (input, _) in group.inputs.iter().skip(1) {
            input.forget_open();
            // A truncation may have given its name to another.
            if live.iter().any(|segment| segment.base == input.base) {
                continue;
            }
            match self.storage.remove_file(input.path()) {
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%error, "a segment that was compacted stays until the next recovery");
                    writer.is_littered = true;
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
