//! Looking into one segment file on its own, damaged or not: for tools.
//!
//! Trusts nothing but what verifies, reads by position, and changes nothing. What the file means for its partition
//! (superseded, below the log start, a torn tail) is not asked here.

use std::path::Path;
use std::sync::Arc;

use super::{
    BatchFault, BatchWalk, OpenSegment, SegmentFault, Step, first_nonzero, parse_file_name, read_footer,
    read_header,
};
use crate::error::{Corruption, CorruptionKind, UnsupportedFeature};
use crate::format::{
    self, BatchHeader, Footer, HeaderCopies, HeaderFault, RecordIter, SEGMENT_DATA_START, SegmentHeader,
    UnreadableBody,
};
use crate::log::kind_of;
use crate::storage::{OpenMode, Storage};
use crate::{Error, FilePosition, Offset, OffsetRange, ReadMode, Result};

/// A segment file, opened to be looked into part by part.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use tailwater_log::storage::{SimDisk, Storage};
/// use tailwater_log::*;
///
/// let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
/// let storage: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
/// let log = Log::create(Arc::clone(&storage), "/orders-0".as_ref(), LogOptions::new(identity))?;
/// log.append(&[NewRecord::new(b"an espresso")], None, WhenFull::Wait)?.wait()?;
///
/// let file = "/orders-0/00000000000000000000.log";
/// let inspection = SegmentInspection::open(&storage, file.as_ref())?;
/// assert_eq!(inspection.header().identity, identity);
/// let mut records = 0;
/// for part in inspection.parts() {
///     if let SegmentPart::Batch { header, .. } = part? {
///         records += header.record_count;
///     }
/// }
/// assert_eq!(records, 1);
/// # Ok::<(), tailwater_log::Error>(())
/// ```
#[derive(Debug)]
pub struct SegmentInspection {
    opened: OpenSegment,
    base: Option<Offset>,
    length: u64,
    footer: Option<(Footer, FilePosition)>,
}

/// A part of a segment file, as [`SegmentInspection::parts`] comes to it. Together the parts are the file from
/// [`SEGMENT_DATA_START`] to its footer, or to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SegmentPart {
    /// A batch whose header and body verify.
    Batch {
        /// Where it begins.
        position: FilePosition,
        /// Its header.
        header: BatchHeader,
        /// The size of the body in bytes when it is decompressed, if it is compressed.
        uncompressed_bytes: Option<u32>,
        /// What is wrong in the body although the checksum is right.
        fault: Option<CorruptionKind>,
    },
    /// Bytes that are no good batch. The next part is a good batch, or there is none.
    Damage {
        /// Where they begin.
        position: FilePosition,
        /// How many they are.
        size_bytes: u64,
        /// The header of the batch that they should be, where it verifies.
        header: Option<BatchHeader>,
        /// What is wrong with them.
        kind: CorruptionKind,
    },
    /// A batch that needs something that this version does not know, and what follows it up to the next good batch.
    Unsupported {
        /// Where it begins.
        position: FilePosition,
        /// How many bytes they are.
        size_bytes: u64,
        /// What it needs.
        feature: UnsupportedFeature,
    },
    /// Zeros up to the end: space that was reserved and not written.
    Unwritten {
        /// Where they begin.
        position: FilePosition,
        /// How many they are.
        size_bytes: u64,
    },
}

impl SegmentInspection {
    /// Opens the segment file at `path`, which may have any name.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if neither copy of its header verifies: it is no segment, or nothing in it can be checked.
    /// - [`Error::Unsupported`] if a newer version wrote it.
    /// - [`Error::Io`].
    pub fn open(storage: &Arc<dyn Storage>, path: &Path) -> Result<Self> {
        let file = storage.open_file(path, OpenMode::Read)?;
        let (header, copies) = read_header(&*file).map_err(|fault| match fault {
            SegmentFault::Error(error) => error,
            SegmentFault::BadHeader => Error::Corrupt(Box::new(Corruption {
                file: path.to_owned(),
                position_bytes: FilePosition::ZERO,
                offsets: OffsetRange { start: Offset::ZERO, end: Offset::ZERO },
                kind: CorruptionKind::BadSegmentHeader,
            })),
        })?;
        let length = file.length()?;
        let opened = OpenSegment::new(file, header, copies, ReadMode::Positional, 0);
        let name = path.file_name().and_then(|name| name.to_str());
        let mut inspection = Self { opened, base: name.and_then(parse_file_name), length, footer: None };
        if inspection.base.is_none() {
            // The first batch begins at the base, unless compaction took it away.
            let end = FilePosition::new(length);
            let first = BatchWalk::new(&inspection.opened, SEGMENT_DATA_START, end).find()?;
            inspection.base = first.map(|batch| batch.header.base_offset);
        }
        if let Some(base) = inspection.base {
            inspection.footer = read_footer(&*inspection.opened.file, base, header.salt)?;
        }
        Ok(inspection)
    }

    /// The segment's header.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.opened.header
    }

    /// Which of its two copies verify.
    #[must_use]
    pub fn header_copies(&self) -> HeaderCopies {
        self.opened.header_copies
    }

    /// The offset that the segment begins at: from the name of the file, or else from its first good batch.
    #[must_use]
    pub fn base_offset(&self) -> Option<Offset> {
        self.base
    }

    /// The length of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.length
    }

    /// The footer and where it begins, if the segment was sealed and its footer verifies.
    #[must_use]
    pub fn footer(&self) -> Option<(&Footer, FilePosition)> {
        self.footer.as_ref().map(|(footer, position)| (footer, *position))
    }

    /// The parts of the file, in order. Reads, and checks, every byte.
    #[must_use]
    pub fn parts(&self) -> SegmentParts<'_> {
        let end = self.footer.as_ref().map_or(FilePosition::new(self.length), |(_, position)| *position);
        let walk = BatchWalk::new(&self.opened, SEGMENT_DATA_START, end);
        SegmentParts { opened: &self.opened, walk, end, next: None, is_over: false }
    }
}

/// The parts of a segment file: [`SegmentInspection::parts`]. An error, which is the disk's, is the last item.
#[derive(Debug)]
pub struct SegmentParts<'i> {
    opened: &'i OpenSegment,
    walk: BatchWalk<'i>,
    end: FilePosition,
    /// The batch behind the damage that was told last.
    next: Option<SegmentPart>,
    is_over: bool,
}

impl SegmentParts<'_> {
    fn read(&mut self) -> Result<Option<SegmentPart>> {
        if let Some(batch) = self.next.take() {
            return Ok(Some(batch));
        }
        let position = self.walk.position();
        if position >= self.end {
            return Ok(None);
        }
        let found = self.walk.find()?;
        let gap_end = found.map_or(self.end, |batch| batch.position);
        if let Some(batch) = found {
            let header = batch.header;
            let bytes = self.walk.batch_bytes(&batch)?;
            let body = bytes.get(header.header_bytes()..).unwrap_or_default();
            self.next = Some(SegmentPart::Batch {
                position: batch.position,
                header,
                uncompressed_bytes: format::uncompressed_bytes(&header, body),
                fault: look_into(&header, body).and_then(Result::err),
            });
        }
        if gap_end == position {
            return Ok(self.next.take());
        }
        self.gap(position, gap_end).map(Some)
    }

    /// What the bytes `[position, end)`, in which no good batch begins, are.
    fn gap(&self, position: FilePosition, end: FilePosition) -> Result<SegmentPart> {
        let size_bytes = end.get() - position.get();
        if end == self.end && first_nonzero(&*self.opened.file, position, end)?.is_none() {
            return Ok(SegmentPart::Unwritten { position, size_bytes });
        }
        // No batch begins at this offset: the step says what else is there, and nothing is stepped over.
        let (header, kind) = match BatchWalk::new(self.opened, position, self.end).next(Offset::MAX)? {
            Step::Bad { fault: BatchFault::Header(HeaderFault::Unsupported(feature)), .. } => {
                return Ok(SegmentPart::Unsupported { position, size_bytes, feature });
            }
            Step::Bad { fault: BatchFault::Header(fault), .. } => (None, kind_of(&fault)),
            Step::Bad { fault: BatchFault::Body { header, fault: Some(fault) }, .. } => {
                let kind =
                    CorruptionKind::ChecksumMismatch { stored: fault.stored, computed: fault.computed };
                (Some(header), kind)
            }
            Step::Bad { fault: BatchFault::Body { header, .. } | BatchFault::Offset { header }, .. } => {
                (Some(header), CorruptionKind::MissingBatch)
            }
            Step::Batch(_) | Step::End => (None, CorruptionKind::MissingBatch),
        };
        Ok(SegmentPart::Damage { position, size_bytes, header, kind })
    }
}

impl Iterator for SegmentParts<'_> {
    type Item = Result<SegmentPart>;

    fn next(&mut self) -> Option<Result<SegmentPart>> {
        if self.is_over {
            return None;
        }
        let part = self.read();
        self.is_over = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}

/// What is wrong in the body of a batch whose checksums are right. `None` if this build cannot look into it.
pub(super) fn look_into(header: &BatchHeader, body: &[u8]) -> Option<Result<(), CorruptionKind>> {
    let body = match format::plain_body(header, body) {
        Ok(body) => body,
        Err(UnreadableBody::Unsupported(_)) => return None,
        Err(UnreadableBody::Bad(fault)) => return Some(Err(CorruptionKind::BadCompression { fault })),
    };
    if header.attributes.is_opaque() {
        return Some(Ok(()));
    }
    let checked = RecordIter::new(header, &body).check();
    Some(checked.map(drop).map_err(|malformed| CorruptionKind::MalformedRecord { index: malformed.index }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimDisk;
    use crate::{Log, LogOptions, NewRecord, PartitionId, PartitionIdentity, TopicId, WhenFull};

    const FILE: &str = "/log/00000000000000000000.log";
    const IDENTITY: PartitionIdentity =
        PartitionIdentity { topic_id: TopicId::from_bytes([3; 16]), partition: PartitionId::ZERO };

    /// A log whose first segment has four batches of three records each, and where they begin.
    fn written(disk: &SimDisk, is_sealed: bool) -> (Arc<dyn Storage>, Vec<FilePosition>) {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let log = Log::create(Arc::clone(&storage), Path::new("/log"), LogOptions::new(IDENTITY)).unwrap();
        for n in 0..4 {
            let values: Vec<_> = (0..3).map(|m| format!("record {n} {m} {}", "x".repeat(100))).collect();
            let records: Vec<_> = values.iter().map(|value| NewRecord::new(value.as_bytes())).collect();
            log.append(&records, None, WhenFull::Wait).unwrap().wait().unwrap();
        }
        if is_sealed {
            log.roll().unwrap();
            log.sync().unwrap();
            log.maintain().unwrap();
        }
        log.close().unwrap();
        let inspection = SegmentInspection::open(&storage, Path::new(FILE)).unwrap();
        assert_eq!(inspection.footer().is_some(), is_sealed);
        let positions = inspection
            .parts()
            .filter_map(|part| match part.unwrap() {
                SegmentPart::Batch { position, .. } => Some(position),
                _ => None,
            })
            .collect();
        (storage, positions)
    }

    fn parts_of(storage: &Arc<dyn Storage>) -> Vec<SegmentPart> {
        let inspection = SegmentInspection::open(storage, Path::new(FILE)).unwrap();
        inspection.parts().collect::<Result<_>>().unwrap()
    }

    fn change(disk: &SimDisk, position: u64) {
        let file = disk.open_file(Path::new(FILE), OpenMode::ReadWrite).unwrap();
        let mut byte = [0];
        file.read_full_at(&mut byte, FilePosition::new(position)).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], FilePosition::new(position)).unwrap();
    }

    fn base_of(part: &SegmentPart) -> Option<u64> {
        match part {
            SegmentPart::Batch { header, fault: None, .. } => Some(header.base_offset.get()),
            _ => None,
        }
    }

    #[test]
    fn a_sealed_segment_is_its_batches_and_its_footer() {
        let (storage, _) = written(&SimDisk::new(1), true);
        let inspection = SegmentInspection::open(&storage, Path::new(FILE)).unwrap();
        assert_eq!(inspection.header().identity, IDENTITY);
        assert_eq!(inspection.header_copies(), HeaderCopies::Both);
        assert_eq!(inspection.base_offset(), Some(Offset::ZERO));
        let (footer, position) = inspection.footer().unwrap();
        assert_eq!((footer.summary.batch_count, footer.summary.record_count), (4, 12));
        assert!(position.get() < inspection.file_bytes());
        let bases: Vec<_> = parts_of(&storage).iter().map(base_of).collect();
        assert_eq!(bases, [Some(0), Some(3), Some(6), Some(9)]);
    }

    #[test]
    fn an_active_segment_ends_with_space_that_was_not_written() {
        let (storage, _) = written(&SimDisk::new(1), false);
        let parts = parts_of(&storage);
        assert_eq!(parts.len(), 5);
        assert!(matches!(parts[4], SegmentPart::Unwritten { size_bytes, .. } if size_bytes > 0));
    }

    #[test]
    fn damage_is_told_with_its_place_and_the_next_good_batch_follows() {
        for (at, has_header) in [(0, false), (80, true)] {
            let disk = SimDisk::new(1);
            let (storage, positions) = written(&disk, true);
            change(&disk, positions[1].get() + at);
            let parts = parts_of(&storage);
            assert_eq!(parts.len(), 4, "{parts:?}");
            match &parts[1] {
                SegmentPart::Damage { position, size_bytes, header, kind } => {
                    assert_eq!(*position, positions[1]);
                    assert_eq!(*size_bytes, positions[2].get() - positions[1].get());
                    assert_eq!(header.map(|header| header.base_offset.get()), has_header.then_some(3));
                    assert!(matches!(kind, CorruptionKind::ChecksumMismatch { .. }), "{kind:?}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(base_of(&parts[2]), Some(6));
        }
    }

    #[test]
    fn damage_at_the_end_is_told_too() {
        let disk = SimDisk::new(1);
        let (storage, positions) = written(&disk, false);
        change(&disk, positions[3].get() + 70);
        let parts = parts_of(&storage);
        assert!(matches!(parts[3], SegmentPart::Damage { .. }), "{parts:?}");
        assert_eq!(parts.len(), 4);
    }

    #[test]
    fn one_header_copy_is_enough_and_none_is_corruption() {
        let disk = SimDisk::new(1);
        let (storage, _) = written(&disk, false);
        change(&disk, 8);
        let inspection = SegmentInspection::open(&storage, Path::new(FILE)).unwrap();
        assert_eq!(inspection.header_copies(), HeaderCopies::OnlySecond);
        change(&disk, 512 + 8);
        match SegmentInspection::open(&storage, Path::new(FILE)) {
            Err(Error::Corrupt(found)) => assert_eq!(found.kind, CorruptionKind::BadSegmentHeader),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_of_another_name_is_known_by_its_first_batch() {
        let (storage, _) = written(&SimDisk::new(1), true);
        storage.rename(Path::new(FILE), Path::new("/log/copy")).unwrap();
        let inspection = SegmentInspection::open(&storage, Path::new("/log/copy")).unwrap();
        assert_eq!(inspection.base_offset(), Some(Offset::ZERO));
        assert!(inspection.footer().is_some());
    }

    #[test]
    fn any_single_changed_byte_costs_at_most_one_batch() {
        let disk = SimDisk::new(1);
        let (storage, positions) = written(&disk, true);
        let end = positions[3].get() + 300;
        for at in SEGMENT_DATA_START.get()..end {
            change(&disk, at);
            let good = parts_of(&storage).iter().filter_map(base_of).count();
            assert!((3..=4).contains(&good), "{good} good batches with a change at {at}");
            change(&disk, at);
        }
    }
}
