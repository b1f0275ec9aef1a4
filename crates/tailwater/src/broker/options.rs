//! How to open a broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_log::storage::{Disk, SimDisk, Storage};
use tailwater_log::{Clock, SystemClock};

use super::inner::Inner;
use super::{Broker, TopicConfig};
use crate::Result;
use crate::error::Error;

/// Who does the work that is due now and then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Maintenance {
    /// Three threads of the broker: one syncs what is sent and not waited for, one does what is due, and one compacts.
    #[default]
    Background,
    /// The application, by [`Broker::run_maintenance_once`]. Until it calls that, a receipt that is awaited in a task
    /// does not complete; one that is waited for on a thread does.
    Manual,
}

/// How to open a broker.
///
/// # Examples
///
/// ```
/// use tailwater::{BrokerOptions, Error, Maintenance, TopicConfig};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path().join("data");
/// let options = BrokerOptions::new()
///     .maintenance(Maintenance::Manual)
///     .default_topic_config(TopicConfig::new().partitions(4));
/// assert!(matches!(options.clone().create(false).open(&directory), Err(Error::DirectoryMissing { .. })));
/// let broker = options.open(&directory)?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// assert_eq!(broker.describe_topic("orders")?.partition_count, 4);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) maintenance: Maintenance,
    pub(super) default_topic_config: TopicConfig,
    pub(super) create: bool,
    pub(super) max_open_files: usize,
    pub(super) max_disk_bytes: Option<u64>,
    pub(super) compaction_bytes_per_second: u64,
}

/// Least value of `max_disk_bytes`.
const LEAST_DISK_BYTES: u64 = 1024 * 1024;

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            maintenance: Maintenance::Background,
            default_topic_config: TopicConfig::new(),
            create: true,
            max_open_files: 512,
            max_disk_bytes: None,
            compaction_bytes_per_second: 0,
        }
    }
}

impl BrokerOptions {
    /// The system's clock, background threads, default topics; a missing directory is made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where the time comes from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets who does the work that is due now and then.
    #[must_use]
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// Sets what a new topic gets where its own configuration says nothing.
    #[must_use]
    pub fn default_topic_config(mut self, config: TopicConfig) -> Self {
        self.default_topic_config = config;
        self
    }

    /// Sets whether a missing directory is made, and an empty one taken: default true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets how many files of partitions are open at most: default 512, at least 1. Each partition that is written to has
    /// one open, and one for each segment that is read; what was not used for the longest time is closed, after it was made
    /// durable. The catalog and the lock are not counted, nor what is open for a moment: leave room below what the system
    /// allows (`ulimit -n`).
    ///
    /// A broker that is attached read-only takes no heed of it: it keeps each segment open that it was shown.
    #[must_use]
    pub fn max_open_files(mut self, count: usize) -> Self {
        self.max_open_files = count;
        self
    }

    /// Sets how many bytes of disk all partitions together take up at most: default none, for no limit; at least 1 MiB. What
    /// is counted is the size of the segment files, space reserved ahead of the data included; what records in use still hold
    /// of deleted files is not. Publishing beyond it answers [`Error::TopicFull`], and works again when retention, or the
    /// application, has deleted records. A 64th of it, from 64 KiB to 16 MiB, is spared for the positions of groups.
    ///
    /// With a limit the size of every partition is looked up when the broker is opened.
    #[must_use]
    pub fn max_disk_bytes(mut self, bytes: u64) -> Self {
        self.max_disk_bytes = Some(bytes);
        self
    }

    /// Sets how many bytes compaction reads and writes in a second at most, all partitions together: default 0, for no limit.
    #[must_use]
    pub fn compaction_bytes_per_second(mut self, bytes: u64) -> Self {
        self.compaction_bytes_per_second = bytes;
        self
    }

    /// Checks what is not checked elsewhere.
    pub(super) fn check(&self) -> Result<()> {
        // A bad default would otherwise come up at the first topic only.
        self.default_topic_config.to_new_log_config()?;
        match self.max_disk_bytes {
            Some(bytes) if bytes < LEAST_DISK_BYTES => {
                Err(Error::InvalidConfig(Box::new(tailwater_log::InvalidConfig {
                    field: "max_disk_bytes",
                    value: bytes,
                    min: LEAST_DISK_BYTES,
                    max: u64::MAX,
                    unit: "bytes",
                })))
            }
            _ => Ok(()),
        }
    }

    /// Opens the broker in `directory`, on the disk of the operating system. See [`Broker::open`].
    ///
    /// # Errors
    ///
    /// As [`Broker::open`]; [`Error::DirectoryMissing`] if the directory is not to be made.
    pub fn open(&self, directory: impl AsRef<Path>) -> Result<Broker> {
        self.open_on(Arc::new(Disk), absolute(directory.as_ref())?)
    }

    /// Opens the broker in `directory` of any storage, such as a simulated disk that tests can cut the power of.
    ///
    /// # Errors
    ///
    /// As [`BrokerOptions::open`].
    pub fn open_on(&self, storage: Arc<dyn Storage>, directory: impl Into<PathBuf>) -> Result<Broker> {
        Inner::open(storage, directory.into(), self).map(Broker::from)
    }

    /// Opens a broker that keeps everything in memory, on a simulated disk of its own. See [`Broker::in_memory`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the default configuration is out of its bounds.
    pub fn in_memory(&self) -> Result<Broker> {
        self.open_on(Arc::new(SimDisk::new(0)), "/data")
    }

    /// Attaches to `directory` read-only. See [`Broker::attach_read_only`].
    ///
    /// # Errors
    ///
    /// As [`Broker::attach_read_only`].
    pub fn attach_read_only(&self, directory: impl AsRef<Path>) -> Result<Broker> {
        self.attach_read_only_on(Arc::new(Disk), absolute(directory.as_ref())?)
    }

    /// Attaches to `directory` of any storage read-only.
    ///
    /// # Errors
    ///
    /// As [`Broker::attach_read_only`].
    pub fn attach_read_only_on(
        &self,
        storage: Arc<dyn Storage>,
        directory: impl Into<PathBuf>,
    ) -> Result<Broker> {
        Inner::attach(storage, directory.into(), self).map(Broker::from)
    }
}

/// The path from the root, since partitions are opened later, when the process may work in another directory.
fn absolute(directory: &Path) -> Result<PathBuf> {
    std::path::absolute(directory).map_err(|source| Error::Io {
        operation: tailwater_log::error::IoOperation::Inspect,
        path: directory.into(),
        source: Arc::new(source),
    })
}
