//! What can go wrong with groups.

use std::fmt;
use std::sync::Arc;

use tailwater_log::{Offset, PartitionIdentity, TopicId};

use crate::coordinator::assignor::Assignor;
use crate::coordinator::{JoinError, MemberEpoch};
use crate::format::EntryDamage;
use crate::position::MAX_METADATA_BYTES;
use crate::{GroupId, GroupIdFault, GroupKind, GroupLifetime};

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
    /// A member has the group for itself, or wants to and there are others.
    #[error(
        "group {group} is in use: a consumer with explicit partitions takes a group for itself; close the other first"
    )]
    GroupInUse {
        /// The group.
        group: GroupId,
    },
    /// Another member of the group has that name.
    #[error("group {group} has a member named {name:?} already: use another name, or close that one first")]
    DuplicateMemberName {
        /// The group.
        group: GroupId,
        /// The name.
        name: Arc<str>,
    },
    /// All members of a group divide its partitions the same way.
    #[error(
        "the members of group {group} use the {assignor} assignor, not {requested}: use the same for all of them"
    )]
    AssignorMismatch {
        /// The group.
        group: GroupId,
        /// What its members use.
        assignor: Assignor,
        /// What the one that joins asked for.
        requested: Assignor,
    },
    /// A member subscribes to a topic that is not there (any more).
    #[error("there is no topic with the id {topic_id}: it was deleted")]
    UnknownTopic {
        /// Its id.
        topic_id: TopicId,
    },
    /// A group is ephemeral for all its members or for none, and not if it is registered.
    #[error("group {group} is a {lifetime} one: join it as such, or use another group id")]
    GroupLifetimeMismatch {
        /// The group.
        group: GroupId,
        /// What it is.
        lifetime: GroupLifetime,
    },
    /// The group has members; its positions cannot be changed from outside, nor the group be deleted.
    #[error("group {group} has members: close them first")]
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
    /// The member is no longer its group's, or does not own the partition. Nothing was committed.
    #[error("{}", Fenced { group, epoch: *epoch, partition: partition.as_deref() })]
    FencedMemberEpoch {
        /// The group.
        group: GroupId,
        /// The epoch that the member was at.
        epoch: MemberEpoch,
        /// The partition that is another's, or nobody's; `None` if it is no member at all.
        partition: Option<Box<PartitionIdentity>>,
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

impl Error {
    /// Why a member was not let in.
    pub(crate) fn of_join(group: &GroupId, error: JoinError) -> Self {
        let group = group.clone();
        match error {
            JoinError::InUse => Error::GroupInUse { group },
            JoinError::DuplicateName { name } => Error::DuplicateMemberName { group, name },
            JoinError::AssignorMismatch { assignor, requested } => {
                Error::AssignorMismatch { group, assignor, requested }
            }
            JoinError::UnknownTopic { topic_id } => Error::UnknownTopic { topic_id },
        }
    }
}

/// What [`Error::FencedMemberEpoch`] says.
struct Fenced<'e> {
    group: &'e GroupId,
    epoch: MemberEpoch,
    partition: Option<&'e PartitionIdentity>,
}

impl fmt::Display for Fenced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, epoch, partition } = self;
        match partition {
            Some(partition) => {
                write!(
                    f,
                    "a member of group {group} at epoch {epoch} does not own {partition} (any more): poll to go on"
                )
            }
            None => write!(f, "the member at epoch {epoch} is no longer one of group {group}: join again"),
        }
    }
}

// An error travels in every `Result` of a commit.
const _: () = assert!(size_of::<Error>() <= 40);
