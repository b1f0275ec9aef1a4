//! Bytes of a file that keep what they lie in alive.

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::Map;
use crate::FilePosition;

/// Bytes read from a file: a piece of a map, or memory of their own.
///
/// Cloning and slicing share the bytes and copy nothing. As long as one slice lives, so does the map under it, also
/// when the file has been removed.
///
/// # Examples
///
/// ```
/// use tailwater_log::storage::FileSlice;
///
/// let whole = FileSlice::from(b"key=value".to_vec());
/// let value = whole.slice(4..9);
/// assert_eq!(&value[..], b"value");
/// assert_eq!(value.into_bytes(), "value");
/// ```
#[derive(Clone)]
pub struct FileSlice {
    bytes: Source,
}

#[derive(Clone)]
enum Source {
    Mapped { map: Arc<Map>, start: u64, length: usize },
    Owned(Bytes),
}

impl FileSlice {
    /// The `length` bytes at `start` of a map. All of them lie below the published end of the file.
    ///
    /// # Panics
    ///
    /// If the range ends beyond the map: the published end of a file is never past the length it was mapped with.
    pub(crate) fn mapped(map: Arc<Map>, start: FilePosition, length: usize) -> Self {
        let start = start.get();
        // Asking once here makes a wrong range fail where it was made, not where it is first read.
        let _ = map.slice(start, length);
        Self { bytes: Source::Mapped { map, start, length } }
    }

    /// The bytes in `range` of this slice, shared with it.
    ///
    /// # Panics
    ///
    /// If the range ends beyond this slice or before it begins.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let range = bounded(&range, self.len());
        let bytes = match &self.bytes {
            Source::Mapped { map, start, .. } => Source::Mapped {
                map: Arc::clone(map),
                start: start + range.start as u64,
                length: range.end - range.start,
            },
            Source::Owned(bytes) => Source::Owned(bytes.slice(range)),
        };
        Self { bytes }
    }

    /// The same bytes as [`Bytes`], without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.bytes {
            Source::Owned(bytes) => bytes,
            Source::Mapped { .. } => Bytes::from_owner(self),
        }
    }
}

/// Turns `range` into start and end within `length`, or panics.
fn bounded(range: &impl RangeBounds<usize>, length: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => length,
    };
    assert!(
        start <= end && end <= length,
        "the range {start}..{end} lies within the slice of {length} bytes"
    );
    start..end
}

impl Deref for FileSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Source::Mapped { map, start, length } => map.slice(*start, *length),
            Source::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for FileSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for FileSlice {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: Source::Owned(bytes.into()) }
    }
}

impl From<Bytes> for FileSlice {
    fn from(bytes: Bytes) -> Self {
        Self { bytes: Source::Owned(bytes) }
    }
}

impl fmt::Debug for FileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_mapped = matches!(self.bytes, Source::Mapped { .. });
        f.debug_struct("FileSlice").field("length", &self.len()).field("is_mapped", &is_mapped).finish()
    }
}

// Readers hand slices to other threads.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<FileSlice>();
    is_shared::<Map>();
};

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn mapped() -> FileSlice {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let map = Arc::new(Map::new(&file, 4096).unwrap());
        FileSlice::mapped(map, FilePosition::new(2), 6)
    }

    #[test]
    fn slices_of_a_map_share_its_bytes_and_outlive_the_file() {
        let whole = mapped();
        assert_eq!(&whole[..], b"234567");
        let piece = whole.slice(1..4);
        assert_eq!(piece.as_ptr(), whole[1..].as_ptr());
        drop(whole);
        let pointer = piece.as_ptr();
        let bytes = piece.into_bytes();
        assert_eq!(bytes, "345");
        assert_eq!(bytes.as_ptr(), pointer);
    }

    #[test]
    fn slices_of_owned_bytes_share_them() {
        let whole = FileSlice::from(b"abcdef".to_vec());
        let piece = whole.slice(2..=3);
        assert_eq!(&piece[..], b"cd");
        assert_eq!(piece.as_ptr(), whole[2..].as_ptr());
        let pointer = whole.as_ptr();
        assert_eq!(whole.clone().into_bytes().as_ptr(), pointer);
        assert_eq!(&whole.slice(6..)[..], b"");
        assert_eq!(&FileSlice::from(Bytes::from_static(b"x"))[..], b"x");
    }

    #[test]
    #[should_panic(expected = "lies within the slice of 6 bytes")]
    fn a_slice_beyond_the_end_of_a_mapped_slice_panics() {
        // The map goes on, the slice does not: the bytes after it may not be published yet.
        let _ = mapped().slice(3..7);
    }
}
