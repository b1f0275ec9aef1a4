//! What goes into a log and comes out of it, besides records that were fetched.

use super::{CompactionStats, RemovalStats, SyncTimes};
use crate::format::Header;
use crate::{LogEpoch, Offset, OffsetRange, Timestamp};

/// What an append was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// The offsets of its records, in the order they were given.
    pub offsets: OffsetRange,
    /// The log epoch they belong to.
    pub epoch: LogEpoch,
}

/// A record to append. Borrowed: it is copied once, into the staging buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'r> {
    /// The key, if it has one.
    pub key: Option<&'r [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'r [u8]>,
    /// Headers, kept in this order; keys may repeat.
    pub headers: &'r [Header<'r>],
    /// When it was made; the time of the append if absent.
    pub created_at: Option<Timestamp>,
}

impl<'r> NewRecord<'r> {
    /// A record with a value and nothing else.
    #[must_use]
    pub fn new(value: &'r [u8]) -> Self {
        Self { value: Some(value), ..Self::default() }
    }
}

/// A batch that Tailwater stores and does not look into: one body that stands for several offsets.
#[derive(Clone, Copy, Debug)]
pub struct OpaqueBatch<'b> {
    /// The bytes.
    pub body: &'b [u8],
    /// How many offsets it takes, at least 1.
    pub offset_count: u32,
    /// When it was made; the time of the append if absent.
    pub created_at: Option<Timestamp>,
}

/// What an append does when staging is full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum WhenFull {
    /// Waits for room, at most `max_block_ms`.
    #[default]
    Wait,
    /// Answers [`Error::StagingFull`](crate::Error::StagingFull) rather than wait for another thread or for a sync.
    Fail,
}

/// How far a reader sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum FetchIsolation {
    /// Up to the durable offset of a log whose durability is `Durable`, else up to what is written.
    #[default]
    Visible,
    /// Everything appended, also what a power cut may still take away.
    LogEnd,
}

/// How much one fetch returns at most. It always returns one record if there is one, however large.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FetchLimits {
    /// Most records: default 10,000.
    pub max_records: u32,
    /// Most bytes of batches: default 1 MiB. Only the first batch may be larger.
    pub max_bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { max_records: 10_000, max_bytes: 1 << 20 }
    }
}

/// What maintenance did, and when it is due again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// In how many milliseconds something will be due; `None` if nothing will be before a further append.
    pub next_due_ms: Option<u64>,
    /// Whether anything was due.
    pub did_work: bool,
}

/// A snapshot of a log's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LogStats {
    /// First readable offset.
    pub log_start_offset: Offset,
    /// Next offset to assign.
    pub log_end_offset: Offset,
    /// End of what is in the page cache.
    pub written_offset: Offset,
    /// End of what is synced.
    pub durable_offset: Offset,
    /// The log epoch.
    pub epoch: LogEpoch,
    /// Live segments.
    pub segment_count: u64,
    /// Size of the live segment files in bytes, space reserved ahead included.
    pub size_bytes: u64,
    /// Bytes that wait in memory to be written.
    pub staged_bytes: u64,
    /// Group commits since the open.
    pub syncs: u64,
    /// Writes of a staging buffer since the open.
    pub writes: u64,
    /// Segments rolled since the open.
    pub rolls: u64,
    /// Batches written since the open.
    pub batches_written: u64,
    /// Records written since the open; of an opaque batch, its offsets.
    pub records_written: u64,
    /// Bytes of batches written since the open.
    pub bytes_written: u64,
    /// How long the group commits took.
    pub sync_times: SyncTimes,
    /// What became of the files of deleted segments.
    pub removals: RemovalStats,
    /// How clean it is, and what compaction has done since the open.
    pub compaction: CompactionStats,
}
