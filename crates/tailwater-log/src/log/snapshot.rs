//! A durable prefix of a log that is to be copied while the log lives on.
//!
//! - What is copied does not change any more: segments that are sealed, and the others up to where they are durable.
//! - Nothing is held meanwhile. A segment that is removed or replaced before it was opened is noticed by whoever opens it.
//! - The copy is a log that was not closed in order: its first open begins a new epoch.

use std::sync::Arc;

use super::Inner;
use super::checkpoint_file::{ScanPoint, checkpoint_bytes};
use crate::error::CorruptionKind;
use crate::format::Checkpoint;
use crate::segment::{Segment, SegmentFault, file_name, read_footer, read_header};
use crate::storage::{FileHandle, OpenMode};
use crate::{Error, FilePosition, LogEpoch, Offset, Result, Timestamp};

/// What is durable of a log at one moment, to be copied: [`Log::snapshot`](crate::Log::snapshot).
///
/// # Examples
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use tailwater_log::storage::{OpenMode, SimDisk, Storage};
/// use tailwater_log::*;
///
/// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
/// let disk: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
/// let log = Log::create(Arc::clone(&disk), Path::new("/orders-0"), LogOptions::new(identity))?;
/// log.append(&[NewRecord::new(b"an espresso")], None, WhenFull::Wait)?.wait()?;
///
/// // All there is, into a directory of another name.
/// let snapshot = log.snapshot()?;
/// let copy = Path::new("/copy");
/// disk.create_directory(copy)?;
/// let write = |name: &str, bytes: &[u8]| {
///     disk.open_file(&copy.join(name), OpenMode::CreateNew)?.write_all_at(bytes, FilePosition::ZERO)
/// };
/// for index in 0..snapshot.segment_count() {
///     let segment = snapshot.segment(index)?;
///     let mut bytes = vec![0; segment.length_bytes as usize];
///     segment.file.read_full_at(&mut bytes, FilePosition::ZERO)?;
///     write(&segment.name, &bytes)?;
/// }
/// write(LogSnapshot::CHECKPOINT_NAME, &snapshot.checkpoint())?;
///
/// let copied = Log::open(disk, copy, LogOptions::new(identity))?;
/// assert_eq!(copied.log_end_offset(), log.log_end_offset());
/// assert!(copied.epoch() > log.epoch(), "what is appended to either is no history of the other");
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct LogSnapshot {
    log: Arc<Inner>,
    /// Up to the one in which the durable end lies.
    segments: Vec<Arc<Segment>>,
    checkpoint: Checkpoint,
}

/// A segment file of a [`LogSnapshot`].
#[derive(Debug)]
#[non_exhaustive]
pub struct SnapshotSegment {
    /// The name that it has in the directory of a log.
    pub name: String,
    /// The file, open. It stays readable when it is removed.
    pub file: FileHandle,
    /// How many bytes of it belong to the snapshot, from its start: all of a sealed one.
    pub length_bytes: u64,
    /// Whether it is sealed: such a file is never written to again, so that a second name of it is as good as a copy.
    pub is_sealed: bool,
    /// Tells it from every other segment file that ever had this name.
    pub salt: u64,
}

impl LogSnapshot {
    /// The name that [`LogSnapshot::checkpoint`] has in the directory of a log.
    pub const CHECKPOINT_NAME: &'static str = super::CHECKPOINT_NAME;

    pub(crate) fn take(log: &Arc<Inner>) -> Result<Self> {
        if log.attachment.is_some() {
            return Self::take_attached(log);
        }
        let slot = log.writer()?;
        // As the leader: no sync is between what it has published and what it has noted of it.
        let leader = log.commit.lead();
        log.failure.check()?;
        let (checkpoint, segments) = {
            let writer = slot.take();
            (writer.checkpoint_now(log, true), log.segments.load_full())
        };
        drop(leader);
        Ok(Self::new(log, checkpoint, segments.iter().cloned().collect()))
    }

    /// Of a log that another process writes to: what is recorded there as durable.
    fn take_attached(log: &Arc<Inner>) -> Result<Self> {
        log.refresh()?;
        let durable = log.ends.durable();
        let segments = log.segments.load_full();
        let index = match segments.index_of(durable) {
            // It may begin there, and its name need not be durable.
            index if index > 0 && segments.get(index).is_some_and(|segment| segment.base == durable) => {
                index - 1
            }
            index => index,
        };
        let Some(segment) = segments.get(index) else { return Err(Error::Closed) };
        let context = log.segment_context(durable);
        let position = log.position_of(durable, segment, &context)?;
        let point = ScanPoint { base: segment.base, position, offset: durable };
        let checkpoint = Checkpoint {
            identity: log.identity,
            sequence: 0,
            is_dirty: true,
            epoch: log.ends.epoch(),
            log_start: log.ends.start(),
            durable,
            scan_base: point.base,
            scan_position: point.position,
            scan_offset: point.offset,
            latest_append_time: Timestamp::from_millis(i64::MIN),
            segment_names_crc: 0,
            generation: 0,
        };
        Ok(Self::new(log, checkpoint, segments.iter().cloned().collect()))
    }
}

impl LogSnapshot {
    fn new(log: &Arc<Inner>, checkpoint: Checkpoint, mut segments: Vec<Arc<Segment>>) -> Self {
        // What lies behind is not durable, nor need its name be.
        segments.retain(|segment| segment.base <= checkpoint.scan_base);
        Self { log: Arc::clone(log), segments, checkpoint }
    }

    /// First readable offset.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.checkpoint.log_start
    }

    /// End of what is in the snapshot: the log end offset of a copy.
    #[must_use]
    pub fn durable_offset(&self) -> Offset {
        self.checkpoint.durable
    }

    /// The log epoch. A copy has a higher one, from its first open on.
    #[must_use]
    pub fn epoch(&self) -> LogEpoch {
        self.checkpoint.epoch
    }

    /// Whether the log was cut at either end since, so that segments of the snapshot may be gone: another one is to be taken
    /// then. What was opened until then is good all the same.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        // What another process did is not known before it is looked for; where it cannot be, another snapshot tells why.
        if self.log.attachment.is_some() && self.log.refresh().is_err() {
            return true;
        }
        self.log.ends.epoch() != self.checkpoint.epoch || self.log.ends.start() > self.checkpoint.log_start
    }

    /// How many segments there are: at least 1.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Opens a segment, counted from 0 for the lowest.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`], with `NotFound` if it was removed since.
    /// - [`Error::Corrupt`] if its header cannot be used, or if it was replaced since.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn segment(&self, index: usize) -> Result<SnapshotSegment> {
        let segment = &self.segments[index];
        let log = &self.log;
        let file = log.files.open(|| log.storage.open_file(segment.path(), OpenMode::Read))?;
        let is_last = index + 1 == self.segments.len();
        let end = self.segments.get(index + 1).map_or(self.checkpoint.durable, |next| next.base);
        let corrupt = |kind| segment.corrupt(FilePosition::ZERO, end, kind);
        let header = match read_header(&*file) {
            Ok((header, _)) => header,
            Err(SegmentFault::Error(error)) => return Err(error),
            Err(SegmentFault::BadHeader) => return Err(corrupt(CorruptionKind::BadSegmentHeader)),
        };
        if header.identity != log.identity {
            return Err(corrupt(CorruptionKind::ForeignSegment { found: Box::new(header.identity) }));
        }
        // A truncation or a repair has put another file in its place.
        if segment.known_salt().is_some_and(|salt| salt != header.salt)
            || header.epoch > self.checkpoint.epoch
        {
            return Err(corrupt(CorruptionKind::MissingSegment));
        }
        let is_sealed = !is_last && read_footer(&*file, segment.base, header.salt)?.is_some();
        let length_bytes = match segment.data_end() {
            _ if is_last => self.checkpoint.scan_position.get(),
            Some(end) if !is_sealed => end.get(),
            _ => file.length()?,
        };
        let name = file_name(segment.base);
        Ok(SnapshotSegment { name, file, length_bytes, is_sealed, salt: header.salt })
    }

    /// The bytes of the checkpoint that goes with the segments. It says that the log is in use, so that a copy is recovered,
    /// and everything in it durable, so that what is missing from a copy is damage and no torn tail.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        checkpoint_bytes(self.checkpoint).to_vec()
    }
}
