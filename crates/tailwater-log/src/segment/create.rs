//! How a segment comes to be: prepared under a temporary name, synced, renamed.

use std::path::Path;
use std::sync::Arc;

use crate::format::{HeaderCopies, SegmentHeader};
use crate::mistakes::{Mistake, is_planted};
use crate::storage::{FileHandle, RenamedFile, Storage, create_temporary};
use crate::{FilePosition, Offset, ReadMode, Result};

use super::{OpenSegment, Segment};
use crate::format::SegmentSummary;

const EXTENSION: &str = ".log";
const DIGITS: usize = 20;

/// The file name of the segment that begins at `base`: 20 digits and `.log`.
pub(crate) fn file_name(base: Offset) -> String {
    format!("{:0DIGITS$}{EXTENSION}", base.get())
}

/// The base offset that a file name stands for, or `None` if it is not the name of a segment.
pub(crate) fn parse_file_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(EXTENSION)?;
    if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Offset::try_new(digits.parse().ok()?)
}

/// A segment under a temporary name: nobody sees it before [`NewSegment::publish`], and an open removes what is left.
#[derive(Debug)]
pub(crate) struct NewSegment {
    pub(crate) file: FileHandle,
    pub(crate) header: SegmentHeader,
    /// Up to here space is reserved.
    pub(crate) allocated: u64,
    temporary: std::path::PathBuf,
}

impl NewSegment {
    /// Makes the file `temporary` with `header`, and reserves `allocate` bytes. Nothing is synced yet.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        temporary: &Path,
        header: SegmentHeader,
        allocate: Option<u64>,
    ) -> Result<Self> {
        let file = create_temporary(storage, temporary)?;
        let new = Self { file, header, allocated: 0, temporary: temporary.to_owned() };
        new.fill(allocate).map_err(|error| new.discard(storage, error))?;
        Ok(Self { allocated: allocate.unwrap_or(0), ..new })
    }

    fn fill(&self, allocate: Option<u64>) -> Result<()> {
        if let Some(length) = allocate {
            self.file.allocate(length)?;
        }
        self.file.write_all_at(&self.header.encode_prefix(), FilePosition::ZERO)
    }

    /// Makes what is in the file durable; needed before [`NewSegment::publish`].
    pub(crate) fn sync(&self) -> Result<()> {
        if is_planted(Mistake::RenameBeforeSync) {
            return Ok(());
        }
        self.file.sync_all()
    }

    /// Removes the temporary file after `error`, which is returned.
    pub(crate) fn discard(&self, storage: &Arc<dyn Storage>, error: crate::Error) -> crate::Error {
        if let Err(remove) = storage.remove_file(&self.temporary) {
            tracing::debug!(error = %remove, "a temporary segment stays until the next open");
        }
        error
    }

    /// Renames the file to the name of the segment at `base`, which its errors tell from then on. Durable once the
    /// directory is synced.
    pub(crate) fn publish(
        &mut self,
        storage: &Arc<dyn Storage>,
        directory: &Path,
        base: Offset,
    ) -> Result<()> {
        let path = directory.join(file_name(base));
        storage.rename(&self.temporary, &path)?;
        self.file = Arc::new(RenamedFile::new(Arc::clone(&self.file), &path));
        Ok(())
    }

    /// The segment for readers. `summary` tells of the batches written before publishing.
    pub(crate) fn into_segment(
        self,
        directory: &Path,
        base: Offset,
        read_mode: ReadMode,
        data_end: FilePosition,
        summary: SegmentSummary,
    ) -> Arc<Segment> {
        let opened = OpenSegment::new(self.file, self.header, HeaderCopies::Both, read_mode, u64::MAX);
        Arc::new(Segment::opened(directory, base, opened, data_end, Some(summary)))
    }

    /// A summary for a segment without batches.
    pub(crate) fn empty_summary(base: Offset) -> SegmentSummary {
        SegmentSummary { first_offset: base, next_offset: base, ..SegmentSummary::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimDisk;
    use crate::{LogEpoch, PartitionId, PartitionIdentity, Timestamp, TopicId};

    #[test]
    fn after_its_rename_a_segment_fails_under_its_new_name() {
        // A write that failed told of `next.tmp`, long after the file had become a segment.
        let disk = SimDisk::new(1);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let header = SegmentHeader {
            identity: PartitionIdentity {
                topic_id: TopicId::from_bytes([7; 16]),
                partition: PartitionId::ZERO,
            },
            epoch: LogEpoch::FIRST,
            epoch_start: Offset::ZERO,
            salt: 1,
            created: Timestamp::from_millis(0),
            compacted: None,
        };
        let mut new = NewSegment::create(&storage, Path::new("/next.tmp"), header, None).unwrap();
        disk.fail_nth(1, 5, true);
        let before = new.sync().unwrap_err().to_string();
        assert!(before.contains("/next.tmp"), "{before}");
        disk.clear_faults();
        new.publish(&storage, Path::new("/"), Offset::new(17)).unwrap();
        disk.fail_nth(1, 5, true);
        for error in [
            new.file.write_all_at(b"x", FilePosition::ZERO).unwrap_err(),
            new.file.set_length(9).unwrap_err(),
            new.file.allocate(9).unwrap_err(),
            new.sync().unwrap_err(),
            new.file.sync_data().unwrap_err(),
        ] {
            assert!(error.to_string().contains("/00000000000000000017.log: "), "{error}");
        }
        assert!(new.file.path().ends_with("00000000000000000017.log"));
    }

    #[test]
    fn only_twenty_digits_and_log_name_a_segment() {
        assert_eq!(file_name(Offset::new(184_467)), "00000000000000184467.log");
        assert_eq!(parse_file_name("00000000000000184467.log"), Some(Offset::new(184_467)));
        for name in
            ["184467.log", "0000000000000018446x.log", "00000000000000184467.tmp", "+0000000000000184467.log"]
        {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
        assert_eq!(parse_file_name("09223372036854775808.log"), None, "2^63 is not an offset");
        assert_eq!(parse_file_name("09223372036854775807.log"), Some(Offset::MAX));
    }
}
