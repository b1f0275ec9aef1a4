//! A segment as readers see it: a file that is opened at first use, its header, and a summary of its batches.
//!
//! - Bytes below a segment's published end never change while anybody can read them.
//! - The summary of the active segment grows with every write, before the written end is published. That of any other
//!   is read from its footer, or rebuilt by hopping over batch headers, at first use.

mod copy;
mod create;
mod inspect;
mod list;
mod open;
mod pieces;
mod probe;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

pub(crate) use copy::SegmentCopy;
pub(crate) use create::{NewSegment, file_name, parse_file_name};
pub use inspect::{SegmentInspection, SegmentPart, SegmentParts};
pub(crate) use list::SegmentList;
pub(crate) use open::{OpenSegment, SegmentFault, read_footer, read_header};
pub(crate) use pieces::{Damage, Piece, Pieces};
pub(crate) use walk::{BatchFault, BatchWalk, Step, WalkedBatch, first_nonzero};

use crate::error::{Corruption, CorruptionKind, UnsupportedFeature};
use crate::format::{
    BatchHeader, Compacted, SEGMENT_DATA_START, SegmentHeader, SegmentSummary, UnreadableBody, VERSION,
};
use crate::log::{FileBudget, Holder, Usage};
use crate::storage::Storage;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::{Error, FilePosition, Offset, OffsetRange, PartitionIdentity, ReadMode, Result, Timestamp};

/// How often something is looked for in a segment before an index is made of it.
const MOST_PROBES: u32 = 64;

/// One segment file of a partition.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    path: PathBuf,
    /// Where the readable batches end, as far as is known: grows while the segment is active, and is `u64::MAX` for a
    /// segment that was not looked into.
    data_end: AtomicU64,
    /// The length of the file, or 0 if that is not known.
    length: AtomicU64,
    place: Arc<OpenPlace>,
    summary: RwLock<Option<SegmentSummary>>,
    /// How often something was looked for while there was no summary.
    probes: AtomicU32,
    /// What the header says of its compaction, once that was asked for.
    compacted: OnceLock<Option<Compacted>>,
    figures: OnceLock<SegmentFigures>,
    /// Whether compaction found it to be damaged.
    is_left_alone: AtomicBool,
}

/// What compaction asks of a segment that takes no appends any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentFigures {
    /// When its first and its last record were appended.
    pub(crate) append_times: Option<(Timestamp, Timestamp)>,
    pub(crate) record_count: u64,
}

impl Segment {
    /// A segment that nobody has looked into yet.
    pub(crate) fn unopened(directory: &Path, base: Offset) -> Self {
        Self {
            base,
            path: directory.join(file_name(base)),
            data_end: AtomicU64::new(u64::MAX),
            length: AtomicU64::new(0),
            place: Arc::default(),
            summary: RwLock::new(None),
            probes: AtomicU32::new(0),
            compacted: OnceLock::new(),
            figures: OnceLock::new(),
            is_left_alone: AtomicBool::new(false),
        }
    }

    /// A segment whose file is open already. `summary` is `None` where its batches are not known yet.
    pub(crate) fn opened(
        directory: &Path,
        base: Offset,
        opened: OpenSegment,
        data_end: FilePosition,
        summary: Option<SegmentSummary>,
    ) -> Self {
        let segment = Self::unopened(directory, base);
        let _ = segment.place.salt.set(opened.header.salt);
        segment.place.opened.store(Some(Arc::new(opened)));
        segment.data_end.store(data_end.get(), Ordering::Release);
        Self { summary: RwLock::new(summary), ..segment }
    }

    /// A segment that compaction has made, of `length` bytes.
    pub(crate) fn replacing(directory: &Path, base: Offset, header: &SegmentHeader, length: u64) -> Self {
        let segment = Self::unopened(directory, base);
        let _ = segment.place.salt.set(header.salt);
        let _ = segment.compacted.set(header.compacted);
        segment.note_length(length);
        segment
    }

    /// What its header says of its compaction.
    pub(crate) fn compacted(&self, context: &SegmentContext<'_>) -> Result<Option<Compacted>> {
        match self.compacted.get() {
            Some(known) => Ok(*known),
            None => {
                let compacted = self.open(context)?.header.compacted;
                Ok(*self.compacted.get_or_init(|| compacted))
            }
        }
    }

    /// Its figures, looked up once. It takes no appends any more.
    pub(crate) fn figures(&self, context: &SegmentContext<'_>) -> Result<SegmentFigures> {
        if let Some(known) = self.figures.get() {
            return Ok(*known);
        }
        let of = |summary: &SegmentSummary| SegmentFigures {
            append_times: summary.times.map(|times| (times.min_append, times.max_append)),
            record_count: summary.record_count,
        };
        let known = self.read_summary().as_ref().map(of);
        let figures = match known {
            Some(figures) => figures,
            // Not kept: the index of a segment that nobody reads is not worth its memory.
            None => of(&self.load_summary(&*self.open(context)?, context)?.0),
        };
        Ok(*self.figures.get_or_init(|| figures))
    }

    /// Whether compaction has found it to be damaged.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.is_left_alone.load(Ordering::Relaxed)
    }

    pub(crate) fn set_left_alone(&self) {
        self.is_left_alone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the readable batches end, or `None` if that is not known.
    pub(crate) fn data_end(&self) -> Option<FilePosition> {
        Some(self.data_end.load(Ordering::Acquire)).filter(|end| *end != u64::MAX).map(FilePosition::new)
    }

    /// The length of the file in bytes. That of a file which this process does not write to is asked for, once if it is
    /// final; what this process writes to is not used for it.
    pub(crate) fn length(&self, context: &SegmentContext<'_>, is_final: bool) -> Result<u64> {
        let known = self.length.load(Ordering::Relaxed);
        match self.data_end() {
            Some(end) => Ok(known.max(end.get())),
            None if known > 0 => Ok(known),
            None => {
                let length = self.open(context)?.file.length()?;
                if is_final {
                    self.note_length(length);
                }
                Ok(length)
            }
        }
    }

    /// The length of the file in bytes as far as it is known, without looking.
    pub(crate) fn known_length(&self) -> u64 {
        let data_end = self.data_end().map_or(0, FilePosition::get);
        self.length.load(Ordering::Relaxed).max(data_end)
    }

    /// Notes the length that this process has given the file.
    pub(crate) fn note_length(&self, length: u64) {
        self.length.store(length, Ordering::Relaxed);
    }

    /// What tells its file from others of the same name, once it was opened.
    pub(crate) fn known_salt(&self) -> Option<u64> {
        self.place.salt.get().copied()
    }

    /// The open file, opened now if need be.
    pub(crate) fn open(&self, context: &SegmentContext<'_>) -> Result<Arc<OpenSegment>> {
        if let Some(opened) = &*self.place.opened.load() {
            self.place.usage.note();
            return Ok(Arc::clone(opened));
        }
        self.open_now(context)
    }

    #[cold]
    fn open_now(&self, context: &SegmentContext<'_>) -> Result<Arc<OpenSegment>> {
        // What is known to grow, or to have grown, is mapped as far as it may ever reach.
        let map_bytes = self.data_end().map(|_| u64::MAX);
        let open = || OpenSegment::open(context.storage, &self.path, context.read_mode, map_bytes);
        let opened = context.files.open(open).map_err(|fault| self.error_of(fault, context.end))?;
        let found = opened.header.identity;
        if found != context.identity {
            let kind = CorruptionKind::ForeignSegment { found: Box::new(found) };
            return Err(self.corrupt(FilePosition::ZERO, context.end, kind));
        }
        // Another file of that name has taken this one's place: a truncation, and whoever reads this has an old list.
        let salt = self.place.salt.get_or_init(|| opened.header.salt);
        if *salt != opened.header.salt {
            return Err(self.corrupt(FilePosition::ZERO, context.end, CorruptionKind::MissingSegment));
        }
        let opened = Arc::new(opened);
        self.place.opened.store(Some(Arc::clone(&opened)));
        self.list_open(context.files);
        Ok(opened)
    }

    /// Whether a file with this salt is not the one that this stands for, as far as that is known.
    pub(crate) fn is_other(&self, salt: u64) -> bool {
        self.place.salt.get().is_some_and(|known| *known != salt)
    }

    /// Forgets the open file; handles and maps that readers still hold stay usable.
    pub(crate) fn forget_open(&self) {
        self.place.opened.store(None);
    }

    /// Takes the open file, if there is one, so that only those who read it still have it.
    pub(crate) fn take_open(&self) -> Option<Arc<OpenSegment>> {
        self.place.opened.swap(None)
    }

    /// Counts the open file.
    pub(crate) fn list_open(&self, files: &FileBudget) {
        files.list(&self.place);
    }

    /// Tells readers of batches that were just written, in order. The written end is published after this.
    pub(crate) fn add_batches<'b>(
        &self,
        batches: impl Iterator<Item = (&'b BatchHeader, FilePosition)>,
        data_end: FilePosition,
    ) {
        let mut summary = self.write_summary();
        if let Some(summary) = summary.as_mut() {
            batches.for_each(|(header, position)| summary.add_batch(header, position));
        }
        self.data_end.store(data_end.get(), Ordering::Release);
    }

    /// A batch at or below `wanted` to hop from: where it is, and its first offset.
    pub(crate) fn floor(
        &self,
        context: &SegmentContext<'_>,
        wanted: Offset,
    ) -> Result<(FilePosition, Offset)> {
        let first = (SEGMENT_DATA_START, self.base);
        let floor = |summary: &SegmentSummary| {
            summary.floor(wanted).map_or(first, |entry| (entry.position, entry.offset))
        };
        if let Some(summary) = self.read_summary().as_ref() {
            return Ok(floor(summary));
        }
        // To make an index of what has no footer takes a walk over the whole segment. Whoever looks for one place does
        // without, and whoever looks for many gets one.
        if let Some(end) = self.data_end()
            && self.probes.fetch_add(1, Ordering::Relaxed) < MOST_PROBES
        {
            return probe::floor(&*self.open(context)?, first, end, wanted);
        }
        self.with_summary(context, floor)
    }

    /// Runs `look` on the summary, which is made now if need be. `end` is where the segment's offsets end.
    pub(crate) fn with_summary<T>(
        &self,
        context: &SegmentContext<'_>,
        look: impl FnOnce(&SegmentSummary) -> T,
    ) -> Result<T> {
        if let Some(summary) = self.read_summary().as_ref() {
            return Ok(look(summary));
        }
        let opened = self.open(context)?;
        // Without the lock, which writes to the segment wait for; what is written meanwhile is added under it.
        let loaded = self.load_summary(&opened, context)?;
        let mut place = self.write_summary();
        let summary = match &mut *place {
            Some(summary) => summary,
            none => none.insert(self.catch_up(loaded, &opened)?),
        };
        Ok(look(summary))
    }

    /// Reads the footer, or hops over the batch headers: to where the data ends, or up to `context.end` in a segment of
    /// which another takes over there. Returns where it came to, if there may be more.
    fn load_summary(
        &self,
        opened: &OpenSegment,
        context: &SegmentContext<'_>,
    ) -> Result<(SegmentSummary, Option<FilePosition>)> {
        // An active segment has no footer, and its file may be longer than its data.
        if self.data_end().is_none()
            && let Some((footer, _)) = read_footer(&*opened.file, self.base, opened.header.salt)?
        {
            return Ok((footer.summary, None));
        }
        let summary = NewSegment::empty_summary(self.base);
        match self.data_end() {
            // What is not visible yet is part of it all the same.
            Some(end) => extend(summary, opened, SEGMENT_DATA_START, end, Offset::MAX),
            None => {
                let end = FilePosition::new(opened.file.length()?);
                extend(summary, opened, SEGMENT_DATA_START, end, context.end)
            }
        }
    }

    /// Adds to a summary what was written while it was made.
    fn catch_up(
        &self,
        (summary, position): (SegmentSummary, Option<FilePosition>),
        opened: &OpenSegment,
    ) -> Result<SegmentSummary> {
        match (position, self.data_end()) {
            (Some(position), Some(end)) if position < end => {
                extend(summary, opened, position, end, Offset::MAX).map(|(summary, _)| summary)
            }
            _ => Ok(summary),
        }
    }

    /// A copy of the summary, made now if need be.
    pub(crate) fn summary(&self, context: &SegmentContext<'_>) -> Result<SegmentSummary> {
        self.with_summary(context, SegmentSummary::clone)
    }

    /// An error that says that `[self.base, end)` cannot be read because of what is at `position`.
    pub(crate) fn corrupt(&self, position: FilePosition, end: Offset, kind: CorruptionKind) -> Error {
        self.corrupt_range(position, OffsetRange { start: self.base, end }, kind)
    }

    pub(crate) fn corrupt_range(
        &self,
        position_bytes: FilePosition,
        offsets: OffsetRange,
        kind: CorruptionKind,
    ) -> Error {
        Error::Corrupt(Box::new(Corruption { file: self.path.clone(), position_bytes, offsets, kind }))
    }

    /// An error that says that `offsets` cannot be read by this build.
    pub(crate) fn unsupported(&self, offsets: OffsetRange, feature: UnsupportedFeature) -> Error {
        let (path, offsets) = (self.path.as_path().into(), Some(Box::new(offsets)));
        Error::Unsupported { path, feature, newest_supported: VERSION, offsets }
    }

    /// The error for a batch of `offsets` at `position` whose body cannot be looked into.
    pub(crate) fn unreadable(
        &self,
        position: FilePosition,
        offsets: OffsetRange,
        body: UnreadableBody,
    ) -> Error {
        match body {
            UnreadableBody::Unsupported(feature) => self.unsupported(offsets, feature),
            UnreadableBody::Bad(fault) => {
                self.corrupt_range(position, offsets, CorruptionKind::BadCompression { fault })
            }
        }
    }

    fn error_of(&self, fault: SegmentFault, end: Offset) -> Error {
        match fault {
            SegmentFault::Error(error) if error.is_not_found() => {
                self.corrupt(FilePosition::ZERO, end, CorruptionKind::MissingSegment)
            }
            SegmentFault::Error(error) => error,
            SegmentFault::BadHeader => {
                self.corrupt(FilePosition::ZERO, end, CorruptionKind::BadSegmentHeader)
            }
        }
    }

    fn read_summary(&self) -> RwLockReadGuard<'_, Option<SegmentSummary>> {
        // A panic inside leaves at worst a summary without its last batches, which is rebuilt at the next open.
        self.summary.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_summary(&self) -> RwLockWriteGuard<'_, Option<SegmentSummary>> {
        self.summary.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the batches of `[position, end)`, up to the offset `until`. Returns where it came to, unless it met damage.
fn extend(
    mut summary: SegmentSummary,
    opened: &OpenSegment,
    position: FilePosition,
    end: FilePosition,
    until: Offset,
) -> Result<(SegmentSummary, Option<FilePosition>)> {
    let mut walk = BatchWalk::headers_only(opened, position, end);
    while summary.next_offset < until {
        match walk.next(summary.next_offset)? {
            Step::Batch(batch) => summary.add_batch(&batch.header, batch.position),
            Step::End => break,
            // What is damaged is found, and reported, by whoever reads it; the index then ends early.
            Step::Bad { .. } => return Ok((summary, None)),
        }
    }
    Ok((summary, Some(walk.position())))
}

/// The place of a segment's open file.
#[derive(Debug, Default)]
struct OpenPlace {
    opened: ArcSwapOption<OpenSegment>,
    /// Tells the file from another of the same name; known once it was opened.
    salt: OnceLock<u64>,
    usage: Usage,
}

impl Holder for OpenPlace {
    fn usage(&self) -> &Usage {
        &self.usage
    }

    fn let_go(&self) -> bool {
        self.opened.store(None);
        true
    }
}

/// What a segment needs to know of its log to open itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentContext<'c> {
    pub(crate) storage: &'c Arc<dyn Storage>,
    pub(crate) identity: PartitionIdentity,
    pub(crate) read_mode: ReadMode,
    pub(crate) files: &'c FileBudget,
    /// Where this segment's live offsets end: the base of the next live one, or the visible end.
    pub(crate) end: Offset,
}
