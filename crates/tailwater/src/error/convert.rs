//! What the errors of the crates below become.

use super::*;

impl From<tailwater_log::Error> for Error {
    fn from(error: tailwater_log::Error) -> Self {
        use tailwater_log::Error as Log;
        match error {
            Log::Io { operation, path, source } => Error::Io { operation, path, source },
            Log::DiskFull { path, source } => Error::DiskFull { path, source },
            Log::LogFull(full) => {
                Error::TopicFull(Box::new(TopicFull { partition: None, full: *full, holder: None }))
            }
            Log::Corrupt(corruption) => Error::Corrupt(corruption),
            Log::Unsupported { path, feature, newest_supported, offsets } => {
                Error::Unsupported { path, feature, newest_supported, offsets }
            }
            Log::UnsupportedCompression { compression } => Error::UnsupportedCompression { compression },
            Log::OffsetOutOfRange { requested, log_start_offset, log_end_offset } => {
                Error::OffsetOutOfRange { partition: None, requested, log_start_offset, log_end_offset }
            }
            Log::UnexpectedEnd { expected, log_end_offset } => {
                Error::UnexpectedEnd { partition: None, expected, log_end_offset }
            }
            Log::BatchTooLarge { size_bytes, max_bytes } => {
                Error::RecordTooLarge { partition: None, size_bytes, max_bytes }
            }
            Log::InvalidBatch { reason } => Error::InvalidBatch { partition: None, reason },
            Log::InsideOpaqueBatch { offset, batch } => Error::InsideOpaqueBatch { offset, batch },
            Log::StagingFull { staged_bytes, limit_bytes } => {
                Error::StagingFull { partition: None, staged_bytes, limit_bytes }
            }
            Log::Failed { cause } => {
                Error::Failed { partition: None, cause: Arc::new(Error::from(Log::clone(&cause))) }
            }
            Log::Closed => Error::Closed,
            Log::Truncated { offset } => Error::Truncated { partition: None, offset },
            Log::ReadOnly => Error::ReadOnly,
            Log::Locked(locked) => Error::Locked(locked),
            Log::WrongPartition { path, found, expected } => Error::WrongPartition { path, found, expected },
            Log::InvalidConfig(invalid) => Error::InvalidConfig(invalid),
            Log::NetworkFileSystem { path, file_system } => Error::NetworkFileSystem { path, file_system },
            Log::Exhausted { what } => Error::Exhausted { what },
            other => Error::Backend(Arc::new(other)),
        }
    }
}

impl From<tailwater_groups::Error> for Error {
    fn from(error: tailwater_groups::Error) -> Self {
        use tailwater_groups::Error as Groups;
        let named = |group: &tailwater_groups::GroupId| Arc::from(group.as_str());
        match error {
            Groups::Log(error) => error.into(),
            Groups::DamagedEntry { offset, damage } => {
                Error::GroupsLogDamaged { offset, reason: damage.to_string().into() }
            }
            Groups::IncompleteLog { log_start_offset } => Error::GroupsLogDamaged {
                offset: log_start_offset,
                reason: "its first entries are missing".into(),
            },
            Groups::UnknownGroup { group } => Error::UnknownGroup { group: named(&group) },
            Groups::GroupInUse { group } => Error::GroupInUse { group: named(&group) },
            Groups::GroupNotEmpty { group } => Error::GroupNotEmpty { group: named(&group) },
            Groups::GroupKindMismatch { group, kind, requested } => {
                Error::GroupKindMismatch { group: named(&group), found: kind, requested }
            }
            // Which partition it is of is told where the partitions are known.
            Groups::FencedMemberEpoch { group, .. } => {
                Error::FencedMemberEpoch { group: named(&group), partition: None }
            }
            Groups::DuplicateMemberName { group, name } => {
                Error::DuplicateMemberName { group: named(&group), name }
            }
            Groups::AssignorMismatch { group, assignor, requested } => {
                Error::AssignorMismatch { group: named(&group), assignor, requested }
            }
            Groups::GroupLifetimeMismatch { group, lifetime } => {
                Error::GroupLifetimeMismatch { group: named(&group), lifetime }
            }
            Groups::CommitBackwards { committed, requested, .. } => {
                Error::CommitBackwards { partition: None, committed, requested }
            }
            Groups::RepeatedPartition { .. } => Error::RepeatedPartition,
            Groups::MetadataTooLong { size_bytes } => {
                Error::MetadataTooLarge { size_bytes, max_bytes: MAX_METADATA_BYTES }
            }
            Groups::ReadOnly => Error::ReadOnly,
            other => Error::Backend(Arc::new(other)),
        }
    }
}
