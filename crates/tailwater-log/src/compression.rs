//! How the bodies of batches are compressed, by name.

use std::fmt;

/// How the body of a batch is compressed.
///
/// LZ4 and Zstandard are features of this crate, `lz4` and `zstd`, that are off by default. A build without one of them
/// refuses batches that are compressed with it, and reads the others of the same log.
///
/// # Examples
///
/// ```
/// use tailwater_log::Compression;
///
/// assert_eq!(Compression::Zstd.to_string(), "zstd");
/// assert_eq!(Compression::by_name("lz4"), Some(Compression::Lz4));
/// assert!(Compression::None.is_supported());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: fast, and costs readers next to nothing.
    Lz4,
    /// Zstandard: smaller, at more work.
    Zstd,
}

impl Compression {
    /// All there are.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    /// Whether this build can compress and decompress so.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        match self {
            Compression::None => true,
            Compression::Lz4 => cfg!(feature = "lz4"),
            Compression::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// Its name: `none`, `lz4` or `zstd`. That of the last two is the name of the feature, too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
