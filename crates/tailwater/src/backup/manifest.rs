//! What a backup consists of: `docs/format.md`, section "Backup manifest".
//!
//! A decoder takes any bytes: it never panics, and allocates in proportion to the bytes that it was given.

use std::path::{Component, Path};
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian};
use tailwater_log::storage::{Storage, read_whole};
use tailwater_log::{Timestamp, UnsupportedFeature};

use super::BackupFault;
use crate::{Error, Result};

/// The name of the manifest's file.
pub(crate) const MANIFEST_NAME: &str = "backup.manifest";

/// Largest manifest, in bytes: room for some millions of files. A damaged directory can ask for at most this much memory.
const MAX_MANIFEST_BYTES: u64 = 512 << 20;

const MAGIC: &[u8; 8] = b"TWBACKUP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const DIGEST_BYTES: usize = blake3::OUT_LEN;

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ManifestFile {
    /// From the backup's directory on, with `/` between names.
    pub(crate) path: String,
    pub(crate) length_bytes: u64,
    pub(crate) digest: blake3::Hash,
}

/// What a backup consists of, but for the manifest itself and the lock file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) created: Timestamp,
    /// Ordered by their paths, each once.
    pub(crate) files: Vec<ManifestFile>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + 100 * self.files.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&u32::try_from(self.files.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.created.as_millis().to_le_bytes());
        for file in &self.files {
            // Names of topics and segments, far below this.
            out.extend_from_slice(&u16::try_from(file.path.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(file.path.as_bytes());
            out.extend_from_slice(&file.length_bytes.to_le_bytes());
            out.extend_from_slice(file.digest.as_bytes());
        }
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BackupFault> {
        let header = bytes.get(..HEADER_BYTES).ok_or(BackupFault::TooShort)?;
        if &header[..8] != MAGIC {
            return Err(BackupFault::Magic);
        }
        let (content, digest) = bytes
            .split_last_chunk::<DIGEST_BYTES>()
            .filter(|(content, _)| content.len() >= HEADER_BYTES)
            .ok_or(BackupFault::TooShort)?;
        if blake3::hash(content) != *digest {
            return Err(BackupFault::Digest);
        }
        let version = LittleEndian::read_u16(&header[8..]);
        if version != VERSION {
            return Err(BackupFault::Unsupported(UnsupportedFeature::Version(version)));
        }
        let flags = LittleEndian::read_u16(&header[10..]);
        if flags != 0 {
            return Err(BackupFault::Unsupported(UnsupportedFeature::Flags(flags)));
        }
        let count = LittleEndian::read_u32(&header[12..]);
        let created = Timestamp::from_millis(LittleEndian::read_i64(&header[16..]));
        let mut rest = &content[HEADER_BYTES..];
        let mut files: Vec<ManifestFile> = Vec::new();
        for _ in 0..count {
            let file = read_file(&mut rest).ok_or(BackupFault::Malformed)?;
            if !is_inside(&file.path) || files.last().is_some_and(|last| last.path >= file.path) {
                return Err(BackupFault::Malformed);
            }
            files.push(file);
        }
        if rest.is_empty() { Ok(Self { created, files }) } else { Err(BackupFault::Malformed) }
    }

    /// Reads the manifest of `directory`, or answers `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`Error::BackupDamaged`], [`Error::Unsupported`], [`Error::Io`].
    pub(crate) fn read(storage: &Arc<dyn Storage>, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(MANIFEST_NAME);
        let Some(bytes) = read_whole(storage, &path, MAX_MANIFEST_BYTES)? else { return Ok(None) };
        match Self::decode(&bytes) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(BackupFault::Unsupported(feature)) => {
                let path = path.as_path().into();
                Err(Error::Unsupported { path, feature, newest_supported: VERSION, offsets: None })
            }
            Err(fault) => Err(Error::BackupDamaged { path: path.as_path().into(), fault }),
        }
    }

    /// The file with this path.
    pub(crate) fn file(&self, path: &str) -> Option<&ManifestFile> {
        let found = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        Some(&self.files[found])
    }
}

fn read_file(bytes: &mut &[u8]) -> Option<ManifestFile> {
    let length = usize::from(LittleEndian::read_u16(take(bytes, 2)?));
    let path = std::str::from_utf8(take(bytes, length)?).ok()?.to_owned();
    let length_bytes = LittleEndian::read_u64(take(bytes, 8)?);
    let digest = take(bytes, DIGEST_BYTES)?.first_chunk().copied().map(blake3::Hash::from_bytes)?;
    Some(ManifestFile { path, length_bytes, digest })
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Whether a path leads to something within the backup, whatever it was made of.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        let file = |path: &str, bytes: &[u8]| ManifestFile {
            path: path.to_owned(),
            length_bytes: bytes.len() as u64,
            digest: blake3::hash(bytes),
        };
        Manifest {
            created: Timestamp::from_millis(1_700_000_000_000),
            files: vec![file("catalog", b"abc"), file("orders-0/checkpoint", b"")],
        }
    }

    /// The digest made right.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - DIGEST_BYTES;
        let digest = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_bytes());
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = manifest().encode();
        assert_eq!(&bytes[..12], b"TWBACKUP\x01\0\0\0");
        assert_eq!(bytes[12..24], [&2_u32.to_le_bytes()[..], &1_700_000_000_000_i64.to_le_bytes()].concat());
        assert_eq!(&bytes[24..33], b"\x07\0catalog");
        // BLAKE3 of "abc", from its test vectors.
        let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(blake3::Hash::from_bytes(*bytes[41..73].first_chunk().unwrap()).to_string(), abc);
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        assert_eq!(manifest().file("catalog"), Some(&manifest().files[0]));
        assert_eq!(manifest().file("nothing"), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = manifest().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_though_its_digest_is_right() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = manifest().encode();
            change(&mut bytes);
            Manifest::decode(&sealed(bytes))
        };
        let malformed = Err(BackupFault::Malformed);
        assert_eq!(with(&|bytes| bytes[12] = 3), malformed);
        assert_eq!(with(&|bytes| bytes[12] = 1), malformed);
        assert_eq!(with(&|bytes| bytes[15] = 0xff), malformed, "and nothing is allocated for them");
        assert_eq!(
            with(&|bytes| bytes[8] = 2),
            Err(BackupFault::Unsupported(UnsupportedFeature::Version(2)))
        );
        assert_eq!(with(&|bytes| bytes[10] = 1), Err(BackupFault::Unsupported(UnsupportedFeature::Flags(1))));
        for path in ["../x", "/x", "", "a/../b", "catalog"] {
            let mut twice = manifest();
            twice.files[1].path = path.to_owned();
            assert_eq!(Manifest::decode(&twice.encode()), malformed, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::decode(&bytes);
            let all = [&b"TWBACKUP\x01\0\0\0"[..], &bytes, &[0; 32]].concat();
            if let Ok(decoded) = Manifest::decode(&sealed(all.clone())) {
                prop_assert_eq!(decoded.encode(), sealed(all));
            }
        }
    }
}
