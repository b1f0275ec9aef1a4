//! What can go wrong, for users of the facade.
//!
//! - One flat enum: what the lower crates report is translated, so that they can change.
//! - An error reaches many waiters at once, so it is cheap to clone.

mod convert;
mod details;

pub use details::{Contradiction, ContradictionKind, Expected, InvalidSetting};

use std::io;
use std::path::Path;
use std::sync::Arc;

use tailwater_groups::coordinator::assignor::Assignor;
use tailwater_groups::{GroupKind, GroupLifetime, MAX_METADATA_BYTES};
use tailwater_log::error::{
    Corruption, InvalidBatch, InvalidConfig, IoOperation, Locked, UnsupportedFeature,
};
use tailwater_log::{Compression, Offset, PartitionId, PartitionIdentity};

use crate::backup::BackupFault;
use crate::broker::CloseReport;
use crate::catalog::{CatalogFault, TopicNameFault};
use crate::codec::DecodeError;
use crate::consumer::Cursor;
use crate::retention::TopicFull;
use crate::{LagUnit, OffsetRange, TopicPartition};

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
///
/// `partition` is absent where an error came up outside of any, or where it is not known any more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no topic of that name, or it was deleted since.
    #[error("there is no topic {topic}: create it first, or check the name")]
    UnknownTopic {
        /// The name.
        topic: Arc<str>,
    },
    /// There is a topic of that name already; names are compared without case.
    #[error("topic {topic} exists already")]
    TopicExists {
        /// The name of the topic that exists.
        topic: Arc<str>,
    },
    /// The text is no topic name.
    #[error("{name:?} is no topic name: {fault}")]
    InvalidTopicName {
        /// The text, cut short if it is long.
        name: Arc<str>,
        /// What is wrong with it.
        fault: TopicNameFault,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}: its {partition_count} are numbered from 0")]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition that was asked for.
        partition: PartitionId,
        /// How many partitions there are.
        partition_count: u32,
    },
    /// A topic cannot have that many partitions, or lose some.
    #[error(
        "a topic cannot have {requested} partitions: it must be from {min} to {max}, and never fewer than it has"
    )]
    InvalidPartitionCount {
        /// What was asked for.
        requested: u32,
        /// The least allowed.
        min: u32,
        /// The most allowed.
        max: u32,
    },
    /// There is no setting of that name.
    #[error("there is no topic setting {key:?}; there are {}", crate::topic_config::names())]
    UnknownSetting {
        /// The name.
        key: Arc<str>,
    },
    /// A setting's value cannot be read.
    #[error("{0}")]
    InvalidSetting(Box<InvalidSetting>),
    /// The catalog has a setting that this version does not know. Nothing was changed.
    #[error("topic {topic} was given {setting}, which this version does not know: use a newer tailwater")]
    UnsupportedSetting {
        /// The topic.
        topic: Arc<str>,
        /// The setting, as `key=value`.
        setting: Arc<str>,
    },
    /// A setting is out of its bounds.
    #[error("{0}")]
    InvalidConfig(Box<InvalidConfig>),

    /// The directory does not exist, and was not to be made.
    #[error("there is no directory {}: check the path, or open it with leave to create it", .path.display())]
    DirectoryMissing {
        /// The directory.
        path: Arc<Path>,
    },
    /// The path holds something else than Tailwater's data. Nothing was changed.
    #[error("{} is not a Tailwater directory: {reason}; give an empty or a new directory", .path.display())]
    NotATailwaterDirectory {
        /// The path.
        path: Arc<Path>,
        /// What tells.
        reason: &'static str,
    },
    /// There are partitions but no catalog that names them. Nothing was changed;
    /// [`Broker::repair_catalog`](crate::Broker::repair_catalog) rebuilds it.
    #[error(
        "{} holds partitions and no catalog file: restore it from a backup, or have it rebuilt with \
         `tailwater repair`", .path.display()
    )]
    CatalogMissing {
        /// The directory.
        path: Arc<Path>,
    },
    /// The catalog file is damaged. Nothing was changed;
    /// [`Broker::repair_catalog`](crate::Broker::repair_catalog) rebuilds it.
    #[error(
        "the catalog {} is damaged: {fault}; restore it from a backup, or have it rebuilt with `tailwater repair`",
        .path.display()
    )]
    CatalogDamaged {
        /// The file.
        path: Arc<Path>,
        /// What is wrong with it.
        fault: CatalogFault,
    },
    /// The catalog cannot be rebuilt, since directories contradict each other. Nothing was changed.
    #[error("the catalog cannot be rebuilt: {0}; move what does not belong here elsewhere, and repair again")]
    ContradictingDirectories(Box<Contradiction>),
    /// A directory has the name that a new partition is to have, and it is not provably an empty leftover of
    /// Tailwater's own. Nothing was changed.
    #[error("{} is in the way: it holds {reason}; move it elsewhere first", .path.display())]
    DirectoryInTheWay {
        /// The directory.
        path: Arc<Path>,
        /// What it holds.
        reason: &'static str,
    },
    /// The directory cannot be written to.
    #[error("{} cannot be written to: {source}; make it writable, or attach to it read-only", .path.display())]
    ReadOnlyDirectory {
        /// The directory.
        path: Arc<Path>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Another process, or another broker in this one, writes to the directory.
    #[error("{0}")]
    Locked(Box<Locked>),
    /// The directory lies on a network file system, whose locks and syncs cannot be relied on.
    #[error(
        "{} lies on {file_system}, a network file system: its locks and syncs cannot be relied on; \
         use a local disk", .path.display()
    )]
    NetworkFileSystem {
        /// The directory.
        path: Arc<Path>,
        /// The file system's name.
        file_system: &'static str,
    },
    /// A file was written by a newer version, or with a feature that this build lacks. It was left as it is.
    #[error(
        "{}{} needs {feature}; this build reads format versions up to {newest_supported}: use a newer tailwater, or \
         one built with that feature", .path.display(), AtOffsets(.offsets)
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
    /// A backup is to be made where something is already. It was left as it is.
    #[error("{} exists already: a backup is made in a new directory", .path.display())]
    BackupExists {
        /// What is there.
        path: Arc<Path>,
    },
    /// A backup is to be made within the directory that it is to be of.
    #[error("{} lies in the data directory: a backup has to be made elsewhere", .path.display())]
    BackupInside {
        /// Where it was to be.
        path: Arc<Path>,
    },
    /// A directory is no backup, or not any more: whoever opens a backup for writing makes it a directory like any other.
    #[error("{} is no backup, or was opened since: use one that was only copied", .path.display())]
    NotABackup {
        /// The directory.
        path: Arc<Path>,
    },
    /// The list of a backup's files cannot be used.
    #[error("{} cannot be used: {fault}", .path.display())]
    BackupDamaged {
        /// The list.
        path: Arc<Path>,
        /// What is wrong with it.
        fault: BackupFault,
    },
    /// A partition was cut at either end again and again while it was copied.
    #[error(
        "{partition} was truncated, or lost old records, whenever it was copied: try again when it is quieter"
    )]
    BackupOvertaken {
        /// The partition.
        partition: Arc<str>,
    },
    /// Another process writes, and has not recorded as durable what a group of its own has committed.
    #[error(
        "{partition} is committed up to offset {committed}, and that is not recorded as durable by the process that writes yet: \
         try again, or make the backup from that process"
    )]
    NotRecorded {
        /// The partition.
        partition: Arc<str>,
        /// Up to where it is committed.
        committed: Offset,
    },
    /// The broker was attached read-only.
    #[error("the directory is attached read-only: open it for writing instead")]
    ReadOnly,

    /// The offset is not in the partition.
    #[error("offset {requested} is outside [{log_start_offset}, {log_end_offset}]{}", In(.partition))]
    OffsetOutOfRange {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// What was asked for.
        requested: Offset,
        /// First readable offset.
        log_start_offset: Offset,
        /// Next offset to assign.
        log_end_offset: Offset,
    },
    /// `append_if` expected another end. Nothing was appended.
    #[error("the log ends at offset {log_end_offset}, not at {expected}{}", In(.partition))]
    UnexpectedEnd {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// The end that the caller expected.
        expected: Offset,
        /// The end there is.
        log_end_offset: Offset,
    },
    /// The record, or the batch, is over the limit. Nothing was appended.
    #[error(
        "{size_bytes} bytes of records and their batch exceed the limit of {max_bytes} bytes{}: send less at once, or \
         raise max_batch_bytes", In(.partition)
    )]
    RecordTooLarge {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// The encoded size of the batch, its header included.
        size_bytes: u64,
        /// The limit: `max_batch_bytes` of the topic.
        max_bytes: u32,
    },
    /// The batch cannot be stored whatever its size. Nothing was appended.
    #[error("invalid batch: {reason}{}", In(.partition))]
    InvalidBatch {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// What is wrong with it.
        reason: InvalidBatch,
    },
    /// A truncation would cut a batch whose records Tailwater cannot see. Nothing was changed.
    #[error(
        "offset {offset} is inside the batch {batch}, which can only go as a whole: truncate to one of its ends"
    )]
    InsideOpaqueBatch {
        /// Where the cut was to be.
        offset: Offset,
        /// The offsets that the batch spans.
        batch: Box<OffsetRange>,
    },
    /// Too much waits to be written, and the caller asked not to wait (any longer). Nothing was appended.
    #[error("{staged_bytes} of {limit_bytes} bytes wait to be written{}: send slower, or raise staging_bytes", In(.partition))]
    StagingFull {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// Bytes that wait.
        staged_bytes: u64,
        /// The limit: `staging_bytes` of the topic.
        limit_bytes: u64,
    },
    /// A group is too far behind for the producer's [`LagLimit`](crate::LagLimit). Nothing was published.
    #[error(
        "group {group} is {lag} {unit} behind, and {limit} are allowed: wait until it has committed more, or raise the limit"
    )]
    GroupLagging {
        /// The group.
        group: Arc<str>,
        /// How far it is behind.
        lag: u64,
        /// How far it may be.
        limit: u64,
        /// What both are counted in.
        unit: LagUnit,
    },
    /// A limit of disk space is reached: `retention_hard_bytes` of the topic, or `max_disk_bytes` of the broker. Nothing was
    /// published; it works again when older records were deleted.
    #[error("{0}")]
    TopicFull(Box<TopicFull>),
    /// The record was removed by a truncation before it was acknowledged.
    #[error("offset {offset} was truncated before it was acknowledged{}", In(.partition))]
    Truncated {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// The offset that the record had.
        offset: Offset,
    },
    /// An earlier write or sync failed, so that what reached the disk is unknown. Close the broker and open it again.
    #[error("an earlier error stopped the log{}: close the broker and open it again; it was: {cause}", In(.partition))]
    Failed {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// The earlier error.
        cause: Arc<Error>,
    },
    /// The text names no group.
    #[error("{name:?} is no group name: {reason}")]
    InvalidGroupId {
        /// The text, cut short if it is long.
        name: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// There is no group of that name: nothing was ever committed under it, or it was deleted.
    #[error("there is no group {group}: check the name, or create it")]
    UnknownGroup {
        /// The name.
        group: Arc<str>,
    },
    /// A consumer has the group for itself, or wants to and there are others.
    #[error(
        "group {group} is in use: a consumer that is assigned partitions has its group for itself; drop the others, or use another group"
    )]
    GroupInUse {
        /// The group.
        group: Arc<str>,
    },
    /// The group has a member, and cannot be changed behind its back.
    #[error("group {group} has a consumer: drop it first")]
    GroupNotEmpty {
        /// The group.
        group: Arc<str>,
    },
    /// The group has committed offsets in the topic already.
    #[error("group {group} has committed offsets in topic {topic} already: reset them instead")]
    GroupExists {
        /// The group.
        group: Arc<str>,
        /// The topic.
        topic: Arc<str>,
    },
    /// The name is that of a group of another kind.
    #[error("{group} is a {found}, not a {requested}: use another name")]
    GroupKindMismatch {
        /// The group.
        group: Arc<str>,
        /// What it is.
        found: GroupKind,
        /// What was asked for.
        requested: GroupKind,
    },
    /// The consumer is not the group's member any more, or does not have the partition any more: it was taken for stuck, or
    /// was too slow to give it up. Nothing was committed; the next poll tells more.
    #[error("this consumer is fenced: {} group {group} any more", Fence(.partition))]
    FencedMemberEpoch {
        /// The group.
        group: Arc<str>,
        /// The first of the partitions that it does not have; `None` if it is no member at all.
        partition: Option<Arc<TopicPartition>>,
    },
    /// Another member of the group has that name.
    #[error("group {group} has a member named {name:?} already: give each member a name of its own")]
    DuplicateMemberName {
        /// The group.
        group: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
    /// The group's members divide its partitions another way.
    #[error(
        "the members of group {group} use the {assignor} assignor, not {requested}: use the same for all"
    )]
    AssignorMismatch {
        /// The group.
        group: Arc<str>,
        /// What they use.
        assignor: Assignor,
        /// What was asked for.
        requested: Assignor,
    },
    /// The group is kept in memory only and was asked for as one that lasts, or the reverse.
    #[error("group {group} is {lifetime}: join it as such, or use another name")]
    GroupLifetimeMismatch {
        /// The group.
        group: Arc<str>,
        /// What it is: lasting or ephemeral.
        lifetime: GroupLifetime,
    },
    /// The text is no pattern of topic names.
    #[error("invalid topic pattern {pattern:?}: {reason}")]
    InvalidTopicPattern {
        /// The text.
        pattern: Arc<str>,
        /// What is wrong with it, and where.
        reason: Arc<str>,
    },
    /// The offset is below what is committed. Nothing was committed; to go back on purpose, seek first.
    #[error("{requested} is below the committed offset {committed}{}: seek there first to go back", In(.partition))]
    CommitBackwards {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// What is committed.
        committed: Offset,
        /// What was to be.
        requested: Offset,
    },
    /// The records below the offset can still be lost. Nothing was committed; it works when they are durable.
    #[error(
        "{requested} cannot be committed in {partition} yet: only what is below {durable_offset} is durable"
    )]
    CommitBeyondDurable {
        /// Where.
        partition: Arc<TopicPartition>,
        /// What was to be committed.
        requested: Offset,
        /// The end of what is durable.
        durable_offset: Offset,
    },
    /// The text to be kept with a committed offset is too long. Nothing was committed.
    #[error("metadata of {size_bytes} bytes exceeds the limit of {max_bytes} bytes")]
    MetadataTooLarge {
        /// Its length in bytes.
        size_bytes: u64,
        /// The limit.
        max_bytes: usize,
    },
    /// There is no committed offset, and the consumer was not to start without.
    #[error(
        "{reader} has no committed offset in {partition}, and its reset policy is to fail: create the group, or choose another policy"
    )]
    NoCommittedOffset {
        /// Who it is: a group, or a reader.
        reader: Arc<str>,
        /// Where.
        partition: Arc<TopicPartition>,
    },
    /// A partition was named twice in one commit. Nothing was committed.
    #[error("a partition appears twice in one commit: give its last place only")]
    RepeatedPartition,
    /// A reader has no group to commit for.
    #[error("a reader belongs to no group and cannot commit: make a consumer of a group")]
    NoGroup,
    /// No topic or partition was given.
    #[error("no topic or partition was given, or no place to start at")]
    NothingToRead,
    /// The consumer does not read that partition.
    #[error("{partition} is not assigned to this consumer")]
    NotAssigned {
        /// The partition, as it was named.
        partition: Arc<str>,
    },
    /// The cursor is of another topic or partition; a topic that was created anew is another one.
    #[error("cursor {cursor} is not of {partition}, which may have been deleted and created anew")]
    ForeignCursor {
        /// Where it was to be used.
        partition: Arc<TopicPartition>,
        /// The cursor.
        cursor: Box<Cursor>,
    },
    /// Records below the position were lost or truncated, and the consumer was to fail then. Seek to go on.
    #[error(
        "position {position} in {partition} is beyond the end of its epoch, offset {epoch_end}: seek there to go on"
    )]
    Diverged {
        /// Where.
        partition: Arc<TopicPartition>,
        /// The position.
        position: Box<Cursor>,
        /// Up to where its history and the log's are the same.
        epoch_end: Offset,
    },
    /// Records were removed before they were read, and the consumer was to fail then. Seek to go on.
    #[error(
        "the records [{from}, {to}) of {partition} were removed before they were read: seek to {to} to go on"
    )]
    Gap {
        /// Where.
        partition: Arc<TopicPartition>,
        /// The next offset that would have been read.
        from: Offset,
        /// The next offset that there is.
        to: Offset,
    },
    /// The codec could not encode a value. Nothing was published.
    #[error("the value cannot be encoded: {source}")]
    NotEncoded {
        /// What the codec said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A record's value could not be decoded; the consumer goes on all the same.
    #[error(transparent)]
    NotDecoded(Box<DecodeError>),
    /// The poll was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The log of the groups holds something that this version cannot read. Nothing was changed.
    #[error("the log of the groups cannot be read at offset {offset}: {reason}")]
    GroupsLogDamaged {
        /// Where in that log.
        offset: Offset,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The broker was closed.
    #[error("the broker is closed")]
    Closed,
    /// The broker was closed, and not everything could be made durable or marked as closed.
    #[error("the broker is closed, but {0}")]
    NotClosedCleanly(Arc<CloseReport>),

    /// Stored bytes are not what was written.
    #[error("{0}: `tailwater verify` lists all damage")]
    Corrupt(Box<Corruption>),
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
    /// There is no room for what was to be written. Nothing was changed; it works again when there is room.
    #[error("no space left for {}: {source}; make room and try again", .path.display())]
    DiskFull {
        /// The file or directory that could not grow.
        path: Arc<Path>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A directory holds another partition than its name says.
    #[error("{} holds {found}, not {expected}: a directory was moved or renamed; undo that", .path.display())]
    WrongPartition {
        /// The file that says so.
        path: Arc<Path>,
        /// What it holds.
        found: Box<PartitionIdentity>,
        /// What was expected.
        expected: Box<PartitionIdentity>,
    },
    /// Offsets or epochs have run out.
    #[error("no {what} are left in this partition")]
    Exhausted {
        /// What ran out: `"offsets"` or `"epochs"`.
        what: &'static str,
    },
    /// A background thread met a bug. The partition that it worked on takes no appends until the broker is reopened.
    #[error("background maintenance panicked{}: {message}", In(.partition))]
    MaintenancePanicked {
        /// Where.
        partition: Option<Arc<TopicPartition>>,
        /// What the panic said.
        message: Arc<str>,
    },
    /// Something that this version of the facade has no name for.
    #[error("{0}")]
    Backend(Arc<dyn std::error::Error + Send + Sync>),
}

/// Names the partition in a message, if it is known.
struct In<'e>(&'e Option<Arc<TopicPartition>>);

impl std::fmt::Display for In<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(partition) => write!(f, " in {partition}"),
            None => Ok(()),
        }
    }
}

/// The offsets of a batch, for a message.
struct AtOffsets<'e>(&'e Option<Box<OffsetRange>>);

impl std::fmt::Display for AtOffsets<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |offsets| write!(f, " at offsets {offsets}"))
    }
}

/// Whether it is a member that is fenced, or a member in one partition.
struct Fence<'e>(&'e Option<Arc<TopicPartition>>);

impl std::fmt::Display for Fence<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(partition) => write!(f, "{partition} is not its own in"),
            None => f.write_str("it is no member of"),
        }
    }
}

impl Error {
    /// A text that is no group name.
    pub(crate) fn invalid_group_id(name: &str, error: tailwater_groups::Error) -> Self {
        match error {
            tailwater_groups::Error::InvalidGroupId { fault } => {
                let name = crate::catalog::name::shown(name).into();
                Error::InvalidGroupId { name, reason: fault.to_string().into() }
            }
            other => other.into(),
        }
    }

    /// Whether the same call can succeed later, without anybody repairing or reopening anything: when there is room in
    /// memory or on the disk, when a group has read more, or when another process lets go of the directory.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = tailwater::Broker::in_memory()?.producer("orders").unwrap_err();
    /// assert!(!error.is_retriable());
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            Error::StagingFull { .. }
                | Error::GroupLagging { .. }
                | Error::DiskFull { .. }
                | Error::TopicFull(_)
                | Error::Locked(_)
        )
    }

    /// The same error with the partition where it came up.
    pub(crate) fn in_partition(self, place: &Arc<TopicPartition>) -> Self {
        let mut error = self;
        match &mut error {
            Error::TopicFull(full) => {
                full.partition.get_or_insert_with(|| Arc::clone(place));
            }
            Error::OffsetOutOfRange { partition, .. }
            | Error::UnexpectedEnd { partition, .. }
            | Error::RecordTooLarge { partition, .. }
            | Error::InvalidBatch { partition, .. }
            | Error::StagingFull { partition, .. }
            | Error::Truncated { partition, .. }
            | Error::MaintenancePanicked { partition, .. }
            | Error::CommitBackwards { partition, .. }
            | Error::Failed { partition, .. } => {
                partition.get_or_insert_with(|| Arc::clone(place));
            }
            _ => {}
        }
        error
    }

    /// Turns the operating system's refusal to write into an error that says what to do.
    pub(crate) fn for_opening(self, directory: &Path) -> Self {
        match self {
            Error::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Error::ReadOnlyDirectory { path: directory.into(), source }
            }
            other => other,
        }
    }
}

// An error travels in every `Result` of the publishing path.
const _: () = assert!(size_of::<Error>() <= 40);

const _: () = {
    const fn reaches_every_waiter<T: Clone + Send + Sync + 'static>() {}
    reaches_every_waiter::<Error>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_once_and_kept() {
        let first = Arc::new(TopicPartition::new("orders", PartitionId::new(3)));
        let second = Arc::new(TopicPartition::new("mails", PartitionId::ZERO));
        let error = Error::from(tailwater_log::Error::StagingFull { staged_bytes: 5, limit_bytes: 4 });
        let error = error.in_partition(&first).in_partition(&second);
        assert_eq!(
            error.to_string(),
            "5 of 4 bytes wait to be written in orders-3: send slower, or raise staging_bytes"
        );
        assert!(error.is_retriable());
    }

    #[test]
    fn a_failure_keeps_its_cause() {
        let cause = Arc::new(tailwater_log::Error::Exhausted { what: "epochs" });
        let error = Error::from(tailwater_log::Error::Failed { cause });
        assert!(error.to_string().ends_with("it was: no epochs are left in this partition"), "{error}");
        assert!(!error.is_retriable());
    }

    #[test]
    fn a_refusal_to_write_says_what_to_do() {
        let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let error = Error::from(tailwater_log::Error::io(IoOperation::Lock, Path::new("/d/LOCK"), source));
        let error = error.for_opening(Path::new("/d"));
        assert!(matches!(&error, Error::ReadOnlyDirectory { path, .. } if &**path == Path::new("/d")));
        assert!(error.to_string().contains("attach to it read-only"), "{error}");
    }
}
