//! What is in a partition's directory, by names and the checkpoint alone.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::decide::NamedSegment;
use super::report::{RecoveryOutcome, RecoveryReport};
use super::scan::LiveSegment;
use super::{OpenContext, is_own_name};
use crate::log::FileBudget;
use crate::log::{CheckpointFile, FoundCheckpoint};
use crate::segment::{
    OpenSegment, Segment, SegmentContext, SegmentFault, file_name, parse_file_name, read_header,
};
use crate::storage::{EntryKind, FileHandle, OpenMode};
use crate::{Error, LogEpoch, Offset, Result};

/// The names in a directory, sorted by what they stand for, and the checkpoint.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The base offsets of the named segments, rising.
    pub(crate) bases: Vec<Offset>,
    pub(crate) temporaries: Vec<PathBuf>,
    pub(crate) unknown_names: Vec<OsString>,
    pub(crate) checkpoint_file: Option<FileHandle>,
    pub(crate) checkpoint: Option<FoundCheckpoint>,
}

impl Survey {
    pub(crate) fn read(context: &OpenContext<'_>) -> Result<Self> {
        Self::read_with(context, OpenMode::ReadWrite)
    }

    /// As [`Survey::read`], without the right to write.
    pub(crate) fn read_for_reading(context: &OpenContext<'_>) -> Result<Self> {
        Self::read_with(context, OpenMode::Read)
    }

    fn read_with(context: &OpenContext<'_>, mode: OpenMode) -> Result<Self> {
        let mut bases = Vec::new();
        let mut temporaries = Vec::new();
        let mut unknown_names = Vec::new();
        for entry in context.storage.list_directory(context.directory)? {
            match entry.name.to_str() {
                Some(name) if entry.kind == EntryKind::File && parse_file_name(name).is_some() => {
                    bases.extend(parse_file_name(name));
                }
                Some(name) if entry.kind == EntryKind::File && name.ends_with(".tmp") => {
                    temporaries.push(context.directory.join(name));
                }
                Some(name) if is_own_name(name) && entry.kind != EntryKind::Other => {}
                _ => unknown_names.push(entry.name),
            }
        }
        bases.sort_unstable();
        unknown_names.sort_unstable();
        let (checkpoint_file, checkpoint) =
            CheckpointFile::read(context.storage, context.directory, context.identity, mode)?;
        Ok(Self { bases, temporaries, unknown_names, checkpoint_file, checkpoint })
    }

    /// Removes what an interrupted operation left under temporary names. What cannot be removed does no harm.
    pub(crate) fn remove_temporaries(&self, context: &OpenContext<'_>) -> Vec<PathBuf> {
        let removed = |path: &&PathBuf| match context.storage.remove_file(path) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a temporary file stays");
                false
            }
        };
        self.temporaries.iter().filter(removed).cloned().collect()
    }

    /// A report that says nothing yet but what the names tell.
    pub(crate) fn report(&self, outcome: RecoveryOutcome) -> RecoveryReport {
        RecoveryReport {
            outcome,
            epoch: LogEpoch::FIRST,
            log_start_offset: Offset::ZERO,
            log_end_offset: Offset::ZERO,
            durable_mark: Offset::ZERO,
            scanned_bytes: 0,
            torn_tail: None,
            corruption: None,
            was_checkpoint_rebuilt: false,
            damaged_header_copies: Vec::new(),
            removed_files: Vec::new(),
            unknown_names: self.unknown_names.clone(),
        }
    }
}

/// Opens the segment that is to take appends, for writing. `None` if its header does not verify.
pub(crate) fn open_active(
    context: &OpenContext<'_>,
    base: Offset,
) -> Result<Option<(FileHandle, OpenSegment)>> {
    let path = context.directory.join(file_name(base));
    let file = context.storage.open_file(&path, OpenMode::ReadWrite)?;
    match read_header(&*file) {
        Ok((header, copies)) => {
            let opened =
                OpenSegment::new(Arc::clone(&file), header, copies, context.config.read_mode, u64::MAX);
            Ok(Some((file, opened)))
        }
        Err(SegmentFault::BadHeader) => Ok(None),
        Err(SegmentFault::Error(error)) => Err(error),
    }
}

/// Opens the segment at `base` for reading. The inner error is damage, the outer one anything else.
pub(crate) fn open_named(context: &OpenContext<'_>, base: Offset) -> Result<Result<LiveSegment, Error>> {
    let segment = Segment::unopened(context.directory, base);
    let end = Offset::MAX;
    let segment_context = SegmentContext {
        storage: context.storage,
        identity: context.identity,
        read_mode: context.config.read_mode,
        files: &FileBudget::default(),
        end,
    };
    let opened = match segment.open(&segment_context) {
        Ok(opened) => opened,
        Err(error @ Error::Corrupt(_)) => return Ok(Err(error)),
        Err(error) => return Err(error),
    };
    let header = opened.header;
    let covered_end = header.compacted.map(|compacted| compacted.end);
    let named = NamedSegment { base, epoch: header.epoch, epoch_start: header.epoch_start, covered_end };
    Ok(Ok(LiveSegment { named, segment: Arc::new(segment), opened, end }))
}
