//! What can be tuned for one partition.

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
    /// Whether space is reserved ahead of the data, in steps from 64 KiB to 16 MiB: default true. Appends are slower
    /// without it, and a full disk is noticed only when a batch is written.
    pub preallocate: bool,
}

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
            preallocate: true,
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
        check("sync_bytes", self.sync_bytes, 4 * u64::from(KIB), u64::MAX, "bytes")
    }
}
