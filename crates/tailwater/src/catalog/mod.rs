//! The catalog: which topics there are. In memory here, as bytes in [`format`], names in [`name`].

pub(crate) mod format;
pub(crate) mod name;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tailwater_log::storage::{Storage, read_whole, replace};
use tailwater_log::{Error as LogError, Offset, PartitionId, TopicId};

pub use format::CatalogFault;
pub use name::TopicNameFault;

use crate::{Error, Result};

/// The name of the catalog's file.
pub(crate) const CATALOG_NAME: &str = "catalog";

/// What an interrupted replacement of the catalog leaves.
pub(crate) const CATALOG_TMP_NAME: &str = "catalog.tmp";

/// The directory for copies of damaged catalogs.
pub(crate) const QUARANTINE_NAME: &str = "quarantine";

/// Largest catalog file, in bytes: room for 100,000 topics with long names and many settings. A damaged directory can
/// ask for at most this much memory.
pub(crate) const MAX_CATALOG_BYTES: u64 = 128 << 20;

/// Most partitions of a topic: with the longest name, a partition's directory still has a name of 255 bytes.
pub(crate) const MAX_PARTITIONS: u32 = 100_000;

/// Digits of the largest partition number.
const MAX_PARTITION_DIGITS: usize = (MAX_PARTITIONS - 1).ilog10() as usize + 1;

// 249 bytes of topic name, a hyphen, and the digits of the largest partition number.
const _: () = assert!(name::MAX_NAME_BYTES + 1 + MAX_PARTITION_DIGITS <= 255);

/// What the catalog file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Catalog {
    /// Counts the writes of the file.
    pub(crate) sequence: u64,
    /// The topics, in the order of their creation.
    pub(crate) topics: Vec<CatalogTopic>,
}

/// A topic as the catalog knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CatalogTopic {
    pub(crate) id: TopicId,
    pub(crate) name: String,
    pub(crate) partition_count: u32,
    /// The settings that were given, as names and values.
    pub(crate) config: Vec<(String, String)>,
    /// The partitions whose segments a fork shares. Kept as they are found; nothing makes any yet.
    pub(crate) origins: Vec<Origin>,
}

/// A partition that this topic was forked from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionId,
    /// Up to where its records are shared.
    pub(crate) end: Offset,
}

impl Catalog {
    /// Reads the catalog of `directory`, or answers `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// - [`Error::CatalogDamaged`] if the bytes are not a catalog.
    /// - [`Error::Unsupported`] if a newer version wrote it.
    /// - [`Error::Io`].
    pub(crate) fn read(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Option<Self>> {
        Self::read_file(storage, &directory.join(CATALOG_NAME))
    }

    /// The same for a file of any name.
    pub(crate) fn read_file(storage: &Arc<dyn Storage>, path: &Path) -> Result<Option<Self>> {
        let decoded = match read_whole(storage, path, MAX_CATALOG_BYTES) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => format::decode(&bytes),
            // That it is too long says nothing about the disk.
            Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::InvalidData => {
                Err(CatalogFault::TooLong)
            }
            Err(error) => return Err(error.into()),
        };
        match decoded {
            Ok(catalog) => Ok(Some(catalog)),
            Err(CatalogFault::Unsupported(feature)) => {
                let newest_supported = format::VERSION;
                Err(Error::Unsupported { path: path.into(), feature, newest_supported, offsets: None })
            }
            Err(fault) => Err(Error::CatalogDamaged { path: path.into(), fault }),
        }
    }

    /// Puts this catalog in the place of the one in `directory`, atomically and durably.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::DiskFull`]. [`Catalog::read`] then tells which of the two is there now; if it is the
    /// new one, a power cut may bring the old one back.
    pub(crate) fn write(&self, storage: &Arc<dyn Storage>, directory: &Path) -> Result<()> {
        Ok(replace(storage, &directory.join(CATALOG_NAME), &self.encode())?)
    }

    /// The bytes of its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        format::encode(self)
    }

    /// The sequence of the catalog that is written after this one. It begins anew behind the last number there is, which
    /// only a file that others made can have reached.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.wrapping_add(1)
    }

    pub(crate) fn contains_id(&self, id: TopicId) -> bool {
        self.topics.iter().any(|topic| topic.id == id)
    }
}
