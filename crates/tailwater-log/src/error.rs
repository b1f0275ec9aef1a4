//! What can go wrong in one partition.
//!
//! - A failing disk is [`Error::Io`], damaged data is [`Error::Corrupt`]; neither is reported as the other.
//! - An error reaches many waiters at once, so it is cheap to clone.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::{Compression, FilePosition, Offset, OffsetRange, PartitionIdentity};

/// The result of an operation on a log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation: the disk or its permissions, not the data.
    #[error("cannot {operation} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: IoOperation,
        /// The file or directory.
        path: Arc<Path>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// There is no room for what was to be appended. Nothing was changed; it works again when there is room.
    #[error("no space left for {}: {source}", .path.display())]
    DiskFull {
        /// The file or directory that could not grow.
        path: Arc<Path>,
        /// What the operating system said: ENOSPC, EDQUOT or EFBIG.
        source: Arc<io::Error>,
    },
    /// A limit of disk space is reached. Nothing was appended; it works again when older records were deleted.
    #[error("{0}")]
    LogFull(Box<LogFull>),
    /// Stored bytes are not what was written.
    #[error("{0}")]
    Corrupt(Box<Corruption>),
    /// The file was written by a newer version, or with a feature that this build lacks. It was left as it is.
    #[error(
        "{}{} needs {feature}; this build reads format versions up to {newest_supported}: \
         use a newer tailwater, or one built with that feature", .path.display(), AtOffsets(.offsets)
    )]
    Unsupported {
        /// The file.
        path: Arc<Path>,
        /// What is needed.
        feature: UnsupportedFeature,
        /// The newest format version that this build reads.
        newest_supported: u16,
        /// Where one batch and not the whole file is meant, the offsets that cannot be read because of it; `end` is the
        /// next offset that can.
        offsets: Option<Box<OffsetRange>>,
    },
    /// This build was made without that compression. Nothing was changed.
    #[error("this build has no {compression} compression: build it with the cargo feature `{compression}`")]
    UnsupportedCompression {
        /// What was asked for.
        compression: Compression,
    },
    /// The offset is not in the log.
    #[error("offset {requested} is outside [{log_start_offset}, {log_end_offset}]")]
    OffsetOutOfRange {
        /// What was asked for.
        requested: Offset,
        /// First readable offset.
        log_start_offset: Offset,
        /// Next offset to assign.
        log_end_offset: Offset,
    },
    /// `append_if` expected another end. Nothing was appended.
    #[error("the log ends at offset {log_end_offset}, not at {expected}")]
    UnexpectedEnd {
        /// The end that the caller expected.
        expected: Offset,
        /// The end there is.
        log_end_offset: Offset,
    },
    /// The encoded batch is over the limit. Nothing was appended.
    #[error("batch of {size_bytes} bytes exceeds the limit of {max_bytes} bytes")]
    BatchTooLarge {
        /// Its encoded size, header included.
        size_bytes: u64,
        /// The limit: `max_batch_bytes` of the configuration.
        max_bytes: u32,
    },
    /// The batch cannot be stored whatever its size. Nothing was appended.
    #[error("invalid batch: {reason}")]
    InvalidBatch {
        /// What is wrong with it.
        reason: InvalidBatch,
    },
    /// A truncation would cut a batch whose records Tailwater cannot see. Nothing was changed.
    #[error("offset {offset} is inside the opaque batch {batch}; truncate to one of its ends")]
    InsideOpaqueBatch {
        /// Where the cut was to be.
        offset: Offset,
        /// The offsets that the batch spans.
        batch: Box<OffsetRange>,
    },
    /// The staging buffer is full, and the caller asked not to wait (any longer). Nothing was appended.
    #[error("staging is full: {staged_bytes} of {limit_bytes} bytes wait to be written")]
    StagingFull {
        /// Bytes that wait to be written.
        staged_bytes: u64,
        /// The limit: `staging_bytes` of the configuration.
        limit_bytes: u64,
    },
    /// An earlier write or sync failed, so that what reached the disk is unknown. Reopen the log to go on.
    #[error("the log stopped at an earlier error and must be reopened: {cause}")]
    Failed {
        /// The earlier error.
        cause: Arc<Error>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The record was removed by `truncate_to` before it was acknowledged.
    #[error("offset {offset} was truncated before it was acknowledged")]
    Truncated {
        /// The offset that the record had.
        offset: Offset,
    },
    /// The log was attached read-only.
    #[error("the log is attached read-only")]
    ReadOnly,
    /// Another process, or another handle in this one, writes to the directory.
    #[error("{0}")]
    Locked(Box<Locked>),
    /// The directory holds another partition than was asked for.
    #[error("{} holds {found}, not {expected}", .path.display())]
    WrongPartition {
        /// The file that says so.
        path: Arc<Path>,
        /// What it holds.
        found: Box<PartitionIdentity>,
        /// What was asked for.
        expected: Box<PartitionIdentity>,
    },
    /// A configuration field is out of its bounds.
    #[error("{0}")]
    InvalidConfig(Box<InvalidConfig>),
    /// The directory lies on a network file system, whose locks and syncs cannot be relied on.
    #[error("{} lies on {file_system}, a network file system: its locks and syncs cannot be relied on", .path.display())]
    NetworkFileSystem {
        /// The directory.
        path: Arc<Path>,
        /// The file system's name.
        file_system: &'static str,
    },
    /// Offsets or epochs have run out.
    #[error("no {what} are left in this log")]
    Exhausted {
        /// What ran out: `"offsets"` or `"epochs"`.
        what: &'static str,
    },
}

impl Error {
    /// Wraps what the operating system said; a full disk becomes [`Error::DiskFull`].
    #[must_use]
    pub fn io(operation: IoOperation, path: impl Into<Arc<Path>>, source: io::Error) -> Self {
        let path = path.into();
        let source = Arc::new(source);
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::DiskFull { path, source }
            }
            _ => Error::Io { operation, path, source },
        }
    }

    /// Whether the file or directory was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the process, or the system, has as many files open as it may. Nothing was changed then, and the same call
    /// works when there is room again; what was staged stays staged.
    #[must_use]
    pub fn is_out_of_files(&self) -> bool {
        let is_it = |code: i32| code == Errno::MFILE.raw_os_error() || code == Errno::NFILE.raw_os_error();
        // A sync is not one of these: what it has dropped stays dropped, whatever it answers.
        let Error::Io { operation: IoOperation::Open | IoOperation::Create, source, .. } = self else {
            return false;
        };
        source.raw_os_error().is_some_and(is_it)
    }
}

/// The offsets of a batch, for a message.
struct AtOffsets<'o>(&'o Option<Box<OffsetRange>>);

impl fmt::Display for AtOffsets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |offsets| write!(f, " at offsets {offsets}"))
    }
}

// An error travels in every `Result` of the append path.
const _: () = assert!(size_of::<Error>() <= 40);

/// A limit of disk space that an append would exceed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{used_bytes} bytes are in use and {wanted_bytes} more are wanted, but {scope} may take up {limit_bytes}"
)]
pub struct LogFull {
    /// What is limited.
    pub scope: SpaceScope,
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// Bytes of disk in use, space reserved ahead included.
    pub used_bytes: u64,
    /// How many bytes more the append needs.
    pub wanted_bytes: u64,
}

/// What a limit of disk space is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SpaceScope {
    /// One partition: `retention_hard_bytes` of its configuration.
    Partition,
    /// All that share a [`SpaceBudget`](crate::SpaceBudget).
    Budget,
}

impl fmt::Display for SpaceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpaceScope::Partition => "this partition",
            SpaceScope::Budget => "all partitions together",
        })
    }
}

/// What was tried when the operating system refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoOperation {
    /// Opening a file.
    Open,
    /// Creating a file or directory.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making a file or directory durable.
    Sync,
    /// Reserving space.
    Allocate,
    /// Changing the length of a file.
    SetLength,
    /// Renaming.
    Rename,
    /// Giving a file another name.
    Link,
    /// Removing a file or directory.
    Remove,
    /// Listing a directory.
    List,
    /// Asking for the kind, length or file system.
    Inspect,
    /// Taking the directory lock.
    Lock,
    /// Mapping a file.
    Map,
}

impl fmt::Display for IoOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoOperation::Open => "open",
            IoOperation::Create => "create",
            IoOperation::Read => "read",
            IoOperation::Write => "write",
            IoOperation::Sync => "sync",
            IoOperation::Allocate => "allocate space for",
            IoOperation::SetLength => "change the length of",
            IoOperation::Rename => "rename",
            IoOperation::Link => "give another name to",
            IoOperation::Remove => "remove",
            IoOperation::List => "list",
            IoOperation::Inspect => "inspect",
            IoOperation::Lock => "lock",
            IoOperation::Map => "map",
        })
    }
}

/// A damaged place: which file, where in it, which records it costs, and what is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} is corrupt at position {position_bytes} (offsets {offsets}): {kind}", .file.display())]
pub struct Corruption {
    /// The file.
    pub file: PathBuf,
    /// Where the damage begins, in bytes from the start of the file.
    pub position_bytes: FilePosition,
    /// The offsets that cannot be read because of it; `end` is the next offset that can.
    pub offsets: OffsetRange,
    /// What is wrong.
    pub kind: CorruptionKind,
}

/// What is wrong with stored bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// A checksum does not match.
    #[error("checksum {stored:08x} is stored, {computed:08x} computed")]
    ChecksumMismatch {
        /// In the file.
        stored: u32,
        /// Of the bytes as they are.
        computed: u32,
    },
    /// Both copies of a segment header are unreadable.
    #[error("both copies of the segment header are damaged")]
    BadSegmentHeader,
    /// A segment of another topic or partition.
    #[error("the segment belongs to {found}")]
    ForeignSegment {
        /// Whose it is.
        found: Box<PartitionIdentity>,
    },
    /// No batch begins where one must.
    #[error("no batch where one must begin")]
    MissingBatch,
    /// A segment that must be there is not.
    #[error("a segment is missing")]
    MissingSegment,
    /// A batch with the wrong offset.
    #[error("a batch begins at offset {found}")]
    UnexpectedOffset {
        /// The offset it begins at.
        found: Offset,
    },
    /// Records inside a batch whose checksum is right do not follow the format.
    #[error("malformed record {index} of a batch")]
    MalformedRecord {
        /// Which one, from 0.
        index: u32,
    },
    /// The compressed body of a batch whose checksum is right does not decompress.
    #[error("the compressed body of a batch {fault}")]
    BadCompression {
        /// Why not.
        fault: CompressionFault,
    },
}

/// Why a compressed body does not decompress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionFault {
    /// It is too short to say how large it is when it is decompressed.
    #[error("ends before the size in front of it")]
    Truncated,
    /// It says that it is larger than a batch may be.
    #[error("says that it has {declared_bytes} bytes, more than the {max_bytes} bytes that it may have")]
    TooLarge {
        /// What it says, in bytes.
        declared_bytes: u32,
        /// The limit, in bytes.
        max_bytes: u32,
    },
    /// It is not what its compression makes, or decompresses to more than it says.
    #[error("does not decompress")]
    Malformed,
    /// It decompresses to less than it says.
    #[error("says that it has {declared_bytes} bytes and has {found_bytes} bytes")]
    WrongSize {
        /// What it says, in bytes.
        declared_bytes: u32,
        /// What it decompresses to, in bytes.
        found_bytes: u32,
    },
}

/// Why a batch cannot be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBatch {
    /// It has no records.
    #[error("it has no records")]
    Empty,
    /// It has more records than a batch may span.
    #[error("it spans more than {} offsets", crate::limits::MAX_BATCH_OFFSETS)]
    TooManyOffsets,
    /// A record has no key, and the log is compacted: of which records is it to be the last?
    #[error("record {index} of it has no key, which cleanup_policy asks for, since it is set to compact")]
    MissingKey {
        /// Which of the records that were given, from 0.
        index: u32,
    },
}

/// What a file needs that this build does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnsupportedFeature {
    /// A newer format.
    #[error("format version {0}")]
    Version(u16),
    /// Flags of a file that this version does not know.
    #[error("file flags {0:#06x}")]
    Flags(u16),
    /// Attributes of a batch that this version does not know, or that it was built without.
    #[error("batch attributes {0:#04x}")]
    Attributes(u8),
    /// A compression that this build was made without.
    #[error("{0} compression (the cargo feature `{0}`)")]
    Compression(Compression),
}

/// Who holds a directory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} is in use by {}; close it there first, or attach read-only", .path.display(),
    .holder.as_deref().unwrap_or("another process"))]
pub struct Locked {
    /// The lock file.
    pub path: PathBuf,
    /// The holder as it named itself, such as `process 4711 (tailwater)`; absent if it left no name. One that has taken the
    /// lock this moment may not have named itself yet: then this is who held it before.
    pub holder: Option<String>,
}

/// A configuration field and its bounds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} is {value}; it must be from {min} to {max} {unit}")]
pub struct InvalidConfig {
    /// The field's name.
    pub field: &'static str,
    /// What it was set to.
    pub value: u64,
    /// The least allowed.
    pub min: u64,
    /// The most allowed.
    pub max: u64,
    /// What it counts, such as `bytes`.
    pub unit: &'static str,
}
