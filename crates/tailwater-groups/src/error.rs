//! What can go wrong with groups.

use tailwater_log::{Offset, PartitionIdentity};

use crate::format::EntryDamage;
use crate::position::MAX_METADATA_BYTES;
use crate::{GroupId, GroupIdFault, GroupKind, MemberEpoch};

/// The result of an operation on groups.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The groups log failed, or cannot be read.
    #[error(transparent)]
    Log(#[from] tailwater_log::Error),
    /// An entry of the groups log does not follow the format. Which positions it held is unknown, so none are shown.
    #[error(
        "the entry at offset {offset} of the groups log is damaged: {damage}; restore the log from a backup, \
         or repair it and set the groups' positions anew"
    )]
    DamagedEntry {
        /// Its offset in the groups log.
        offset: Offset,
        /// What is wrong with it.
        damage: EntryDamage,
    },
    /// An entry of the groups log was written by a newer version.
    #[error(
        "the entry at offset {offset} of the groups log is of type {entry_type}, version {version}, which this build \
         does not know: use a newer tailwater"
    )]
    UnsupportedEntry {
        /// Its offset in the groups log.
        offset: Offset,
        /// Its type.
        entry_type: u8,
        /// The version of its type.
        version: u8,
    },
    /// The first entries of the groups log are missing: which positions they held is unknown, so none are shown.
    #[error(
        "the groups log begins at offset {log_start_offset}, and not with what a rewrite leaves there: entries are \
         missing; restore the log from a backup"
    )]
    IncompleteLog {
        /// Where it begins.
        log_start_offset: Offset,
    },
    /// What an attached groups log shows is not all there is: whoever writes it has not recovered it yet.
    #[error(
        "the groups log, which begins at offset {log_start_offset}, shows only a part of what it holds until its writer \
         has recovered it: attach again later, or open it for writing"
    )]
    RecoveryPending {
        /// Where it begins.
        log_start_offset: Offset,
    },
    /// The text is no group id.
    #[error("invalid group id: {fault}")]
    InvalidGroupId {
        /// What is wrong with it.
        fault: GroupIdFault,
    },
    /// There is no such group.
    #[error("there is no group {group}: check the name")]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// The group has a member already, and takes one.
    #[error("group {group} has a member already: close that one first")]
    GroupInUse {
        /// The group.
        group: GroupId,
    },
    /// The group has a member; its positions cannot be changed from outside, nor the group be deleted.
    #[error("group {group} has a member: close it first")]
    GroupNotEmpty {
        /// The group.
        group: GroupId,
    },
    /// A group stays of the kind it was first used as.
    #[error("{group} is a {kind}, not a {requested}: use another group id")]
    GroupKindMismatch {
        /// The group.
        group: GroupId,
        /// What it is.
        kind: GroupKind,
        /// What it was to be used as.
        requested: GroupKind,
    },
    /// The member is no longer its group's. Nothing was committed.
    #[error("the member with epoch {epoch} is no longer one of group {group}: join again")]
    FencedMemberEpoch {
        /// The group.
        group: GroupId,
        /// The member's epoch.
        epoch: MemberEpoch,
    },
    /// The commit lies below what is committed, and the reader has not sought. Nothing was committed.
    #[error(
        "cannot commit offset {requested} in {partition}: {committed} is committed; seek first to go back"
    )]
    CommitBackwards {
        /// The partition.
        partition: Box<PartitionIdentity>,
        /// What is committed.
        committed: Offset,
        /// What was to be committed.
        requested: Offset,
    },
    /// There is nothing to commit.
    #[error("a commit needs at least one position")]
    EmptyCommit,
    /// A set of positions has two for one partition. Nothing was committed.
    #[error("{partition} appears twice in one commit")]
    RepeatedPartition {
        /// The partition.
        partition: PartitionIdentity,
    },
    /// The metadata of a commit is too long. Nothing was committed.
    #[error("metadata of {size_bytes} bytes exceeds the limit of {MAX_METADATA_BYTES} bytes")]
    MetadataTooLong {
        /// Its length in bytes.
        size_bytes: u64,
    },
    /// The groups log was attached read-only: another process has the groups.
    #[error("the groups are attached read-only: join and commit in the process that writes")]
    ReadOnly,
}

// An error travels in every `Result` of a commit.
const _: () = assert!(size_of::<Error>() <= 40);
