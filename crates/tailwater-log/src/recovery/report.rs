//! What an open found and did, for the user.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::{Error, FilePosition, LogEpoch, Offset};

/// How an open found the directory, and what it did about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The case.
    pub outcome: RecoveryOutcome,
    /// The epoch that the log is in now.
    pub epoch: LogEpoch,
    /// First readable offset.
    pub log_start_offset: Offset,
    /// Next offset to assign.
    pub log_end_offset: Offset,
    /// Everything below this was known to be durable before the scan.
    pub durable_mark: Offset,
    /// Bytes that were read and checked to find the end.
    pub scanned_bytes: u64,
    /// What was cut off the end, if anything was.
    pub torn_tail: Option<TornTail>,
    /// The damage that keeps the log from taking appends, for [`RecoveryOutcome::Corrupt`].
    pub corruption: Option<Error>,
    /// The checkpoint was missing or unreadable and was made anew.
    pub was_checkpoint_rebuilt: bool,
    /// Segments of which one of the two header copies is damaged.
    pub damaged_header_copies: Vec<PathBuf>,
    /// Temporary and superseded files that were removed.
    pub removed_files: Vec<PathBuf>,
    /// Names in the directory that are none of Tailwater's; they were left alone.
    pub unknown_names: Vec<OsString>,
}

/// How an open found the directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RecoveryOutcome {
    /// Closed in order: nothing was scanned.
    Clean,
    /// Not closed in order: the end was found by scanning, and a new epoch begun.
    Recovered,
    /// Damaged below the durable mark: what is good can be read, nothing can be appended, nothing was changed.
    Corrupt,
    /// Attached read-only: nothing was changed.
    Attached,
}

/// Bytes behind the last good batch: of an append that a crash interrupted, and that nobody was told is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment in which the tail begins.
    pub file: PathBuf,
    /// Where it begins, in bytes from the start of the file.
    pub position: FilePosition,
    /// Its size in bytes, in all segments together.
    pub size_bytes: u64,
    /// The files in `quarantine/` that hold a copy; empty if none could be made (the bytes then stay where they were).
    pub quarantined: Vec<PathBuf>,
}
