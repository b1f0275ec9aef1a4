//! What can be tuned for one partition.

use crate::Compression;
use crate::error::{Error, InvalidConfig, Result};
use crate::limits::{KIB, MAX_BATCH_BYTES, MAX_SEGMENT_BYTES, MIB, MIN_SEGMENT_BYTES};

/// What an acknowledgement means, from the weakest to the strongest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// In this process's memory: lost when the process dies.
    Buffered,
    /// In the kernel's page cache: survives the death of the process, not of the machine.
    Written,
    /// Synced: survives power loss, under the assumptions in `docs/durability.md`, section 2.
    #[default]
    Durable,
}

/// How readers get at the bytes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a read-only map: no copy. A read error of the disk is a signal (SIGBUS), not an error value.
    #[default]
    Mapped,
    /// Through `pread` into memory: one copy, and read errors are error values.
    Positional,
}

/// What becomes of records that are no longer wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum CleanupPolicy {
    /// Old segments are deleted, where a limit is set.
    #[default]
    Delete,
    /// Of the records of each key the last one is kept: [`Log::compact`](crate::Log::compact). Records without a key are
    /// refused.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl CleanupPolicy {
    /// Whether old segments are deleted, where a limit is set.
    #[must_use]
    pub fn is_deleted(self) -> bool {
        matches!(self, CleanupPolicy::Delete | CleanupPolicy::CompactAndDelete)
    }

    /// Whether the log is compacted, and so takes only records with a key.
    #[must_use]
    pub fn is_compacted(self) -> bool {
        matches!(self, CleanupPolicy::Compact | CleanupPolicy::CompactAndDelete)
    }
}

/// The configuration of a partition.
///
/// # Examples
///
/// ```
/// use tailwater_log::LogConfig;
///
/// let mut config = LogConfig::default();
/// config.segment_bytes = 64 * 1024 * 1024;
/// config.validate()?;
/// config.segment_bytes = 17;
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "segment_bytes is 17; it must be from 4096 to 2147483648 bytes",
/// );
/// # Ok::<(), tailwater_log::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogConfig {
    /// What readers see, and what an append's receipt waits for unless it asks for another: default `Durable`.
    pub durability: Durability,
    /// Size, in bytes, at which a segment is rolled: default 1 GiB, from 4 KiB to 2 GiB.
    pub segment_bytes: u32,
    /// Age, in milliseconds, at which a segment that holds records is rolled: default 7 days, at least 1.
    pub segment_ms: u64,
    /// Largest encoded batch, in bytes, header included: default and maximum 16 MiB, at least 1 KiB.
    pub max_batch_bytes: u32,
    /// Most bytes that wait in memory to be written: default 1 MiB, from 4 KiB to 1 GiB. A single larger batch is
    /// still taken when nothing else waits.
    pub staging_bytes: u32,
    /// How long an append waits for room in staging, in milliseconds: default 60,000.
    pub max_block_ms: u64,
    /// Longest time, in milliseconds, that staged records of a topic that is not `Durable` wait to be written:
    /// default 100, at least 1.
    pub write_interval_ms: u64,
    /// Longest time, in milliseconds, that written records wait for a sync that nobody asked for: default 1,000, at
    /// least 1.
    pub sync_interval_ms: u64,
    /// Most bytes that are written and not yet synced, beyond which a sync is due: default 16 MiB, at least 4 KiB.
    pub sync_bytes: u64,
    /// How readers get at the bytes: default `Mapped`.
    pub read_mode: ReadMode,
    /// How batches are compressed: default `None`. Batches that do not get smaller are stored as they are, and so are
    /// opaque ones. Single records share an open batch of up to 64 KiB then, which is decompressed for each that is
    /// read on its own. Other batches in the same log stay as they are.
    ///
    /// A build without that compression opens the log all the same, and refuses appends.
    pub compression: Compression,
    /// The level of Zstandard: default 3, from 1 (fast) to 22 (small).
    pub compression_zstd_level: u32,
    /// Whether space is reserved ahead of the data, in steps from 64 KiB to 16 MiB: default true. Appends are slower
    /// without it, and a full disk is noticed only when a batch is written.
    pub preallocate: bool,
    /// Age, in milliseconds since the append, from which [`Log::retain`](crate::Log::retain) deletes records: default none,
    /// for never; at least 1.
    pub retention_ms: Option<u64>,
    /// Size, in bytes, over which [`Log::retain`](crate::Log::retain) deletes the oldest records: default none, for never. With
    /// 0 everything goes that nobody holds.
    pub retention_bytes: Option<u64>,
    /// Most bytes of disk that the partition takes up: default none, for no limit; at least 64 KiB, and no less than
    /// `retention_bytes`. Appends that would take more answer [`Error::LogFull`].
    pub retention_hard_bytes: Option<u64>,
    /// Bytes that [`Log::maintain`](crate::Log::maintain) keeps reserved behind the data for when the disk is full: default 0,
    /// at most 1 GiB.
    pub reserve_bytes: u32,
    /// What becomes of records that are no longer wanted: default `Delete`.
    pub cleanup_policy: CleanupPolicy,
    /// Age, in milliseconds since its append, up to which compaction leaves a record alone: default 0.
    pub min_compaction_lag_ms: u64,
    /// Age, in milliseconds since its append, at which a record is to be compacted however little there is to gain, and at
    /// which the segment that takes appends is rolled for it, at least 1: default none.
    pub max_compaction_lag_ms: Option<u64>,
    /// Time, in milliseconds, for which a tombstone stays after compaction has removed all older records of its key:
    /// default 24 hours.
    pub delete_retention_ms: u64,
    /// Share, in percent, of what could be compacted that has not been, from which on compaction is due: default 50, from
    /// 0 to 100.
    pub min_cleanable_dirty_percent: u32,
    /// Most memory, in bytes, that compaction takes to remember keys, 20 for each and a quarter more: default 16 MiB, from
    /// 1 KiB to 2 GiB. Where there are more keys it takes several passes.
    pub compaction_map_bytes: u32,
}

/// With a limit of size there are at least so many segments, since only whole ones are deleted.
const LEAST_SEGMENTS: u64 = 8;
/// A limit of size that is soft makes no smaller segments than this, in bytes.
const LEAST_SEGMENT_BYTES: u64 = MIB as u64;
/// A segment holds records of at most a quarter of the age at which they are deleted.
const LEAST_SEGMENTS_OF_AGE: u64 = 4;
/// A limit of age makes no shorter-lived segments than this, in milliseconds.
const LEAST_SEGMENT_MS: u64 = 1_000;
const LEAST_HARD_BYTES: u64 = 64 * KIB as u64;

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Durable,
            segment_bytes: 1024 * MIB,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            max_batch_bytes: MAX_BATCH_BYTES,
            staging_bytes: MIB,
            max_block_ms: 60_000,
            write_interval_ms: 100,
            sync_interval_ms: 1_000,
            sync_bytes: 16 * u64::from(MIB),
            read_mode: ReadMode::Mapped,
            compression: Compression::None,
            compression_zstd_level: 3,
            preallocate: true,
            retention_ms: None,
            retention_bytes: None,
            retention_hard_bytes: None,
            reserve_bytes: 0,
            cleanup_policy: CleanupPolicy::Delete,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
            delete_retention_ms: 24 * 60 * 60 * 1000,
            min_cleanable_dirty_percent: 50,
            compaction_map_bytes: 16 * MIB,
        }
    }
}

impl LogConfig {
    /// Checks every field against its bounds.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the first field that is out of bounds, and the bounds.
    pub fn validate(&self) -> Result<()> {
        let check = |field, value: u64, min: u64, max: u64, unit| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::InvalidConfig(Box::new(InvalidConfig { field, value, min, max, unit })))
            }
        };
        let ms = u64::from(u32::MAX) * 1000;
        check(
            "segment_bytes",
            self.segment_bytes.into(),
            MIN_SEGMENT_BYTES.into(),
            MAX_SEGMENT_BYTES.into(),
            "bytes",
        )?;
        check("segment_ms", self.segment_ms, 1, ms, "milliseconds")?;
        check("max_batch_bytes", self.max_batch_bytes.into(), KIB.into(), MAX_BATCH_BYTES.into(), "bytes")?;
        check(
            "staging_bytes",
            self.staging_bytes.into(),
            4 * u64::from(KIB),
            1024 * u64::from(MIB),
            "bytes",
        )?;
        check("max_block_ms", self.max_block_ms, 0, ms, "milliseconds")?;
        check("write_interval_ms", self.write_interval_ms, 1, ms, "milliseconds")?;
        check("sync_interval_ms", self.sync_interval_ms, 1, ms, "milliseconds")?;
        check("sync_bytes", self.sync_bytes, 4 * u64::from(KIB), u64::MAX, "bytes")?;
        if let Some(age) = self.retention_ms {
            check("retention_ms", age, 1, u64::MAX, "milliseconds")?;
        }
        if let Some(hard) = self.retention_hard_bytes {
            check("retention_hard_bytes", hard, LEAST_HARD_BYTES, u64::MAX, "bytes")?;
        }
        if let Some(size) = self.retention_bytes {
            check("retention_bytes", size, 0, self.retention_hard_bytes.unwrap_or(u64::MAX), "bytes")?;
        }
        check("reserve_bytes", self.reserve_bytes.into(), 0, 1024 * u64::from(MIB), "bytes")?;
        check("compression_zstd_level", self.compression_zstd_level.into(), 1, 22, "(a level of Zstandard)")?;
        check("min_compaction_lag_ms", self.min_compaction_lag_ms, 0, ms, "milliseconds")?;
        if let Some(lag_ms) = self.max_compaction_lag_ms {
            check("max_compaction_lag_ms", lag_ms, self.min_compaction_lag_ms.max(1), ms, "milliseconds")?;
        }
        check("delete_retention_ms", self.delete_retention_ms, 0, ms, "milliseconds")?;
        check("min_cleanable_dirty_percent", self.min_cleanable_dirty_percent.into(), 0, 100, "percent")?;
        let map_bytes = u64::from(self.compaction_map_bytes);
        check("compaction_map_bytes", map_bytes, KIB.into(), MAX_SEGMENT_BYTES.into(), "bytes")
    }

    /// Whether [`Log::retain`](crate::Log::retain) may have anything to delete.
    #[must_use]
    pub fn has_retention(&self) -> bool {
        self.cleanup_policy.is_deleted() && (self.retention_ms.is_some() || self.retention_bytes.is_some())
    }

    /// Size, in bytes, at which a segment is rolled: `segment_bytes`, or less where limits of size would otherwise leave
    /// too few segments, of which only whole ones are deleted: an eighth of `retention_bytes` (but not under 1 MiB), an eighth of
    /// `retention_hard_bytes`.
    #[must_use]
    pub fn roll_bytes(&self) -> u32 {
        let soft = self.retention_bytes.map(|bytes| (bytes / LEAST_SEGMENTS).max(LEAST_SEGMENT_BYTES));
        let hard = self.retention_hard_bytes.map(|bytes| bytes / LEAST_SEGMENTS);
        let least = soft.into_iter().chain(hard).fold(u64::from(self.segment_bytes), u64::min);
        u32::try_from(least).unwrap_or(self.segment_bytes).max(MIN_SEGMENT_BYTES)
    }

    /// Age, in milliseconds, at which a segment that holds records is rolled: `segment_ms`, or if that is less a quarter of
    /// `retention_ms`, but not under a second for that, or on compacted logs `max_compaction_lag_ms`.
    #[must_use]
    pub fn roll_ms(&self) -> u64 {
        let retention =
            self.retention_ms.map(|age| (age / LEAST_SEGMENTS_OF_AGE).max(LEAST_SEGMENT_MS.min(age)));
        let compaction = self.max_compaction_lag_ms.filter(|_| self.cleanup_policy.is_compacted());
        retention.into_iter().chain(compaction).fold(self.segment_ms, u64::min)
    }

    /// Checks that this build has the compression.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedCompression`] names the feature.
    pub fn check_compression(&self) -> Result<()> {
        match self.compression {
            compression if !compression.is_supported() => Err(Error::UnsupportedCompression { compression }),
            _ => Ok(()),
        }
    }
}
