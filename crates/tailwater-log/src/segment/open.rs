//! A segment file that is open: its header, its map, its footer.

use std::path::Path;
use std::sync::{Arc, Weak};

use crate::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchPlace, Footer, FooterFault, HeaderCopies, HeaderFault,
    PRODUCER_EXTENSION_BYTES, SEGMENT_DATA_START, SEGMENT_PREFIX_BYTES, SegmentHeader, SegmentHeaderFault,
    TRAILER_BYTES, Trailer, VERSION,
};
use crate::log::AsError;
use crate::storage::{FileHandle, FileSlice, Map, OpenMode, Storage, StorageFile};
use crate::{Error, FilePosition, Offset, ReadMode, Result};

/// The largest address range that a segment is mapped over, in bytes: a segment at its largest, a batch, a footer.
const MAP_BYTES: u64 = crate::limits::MAX_SEGMENT_BYTES as u64 + crate::limits::MAX_BATCH_BYTES as u64;

/// Why a segment file cannot be used.
#[derive(Debug)]
pub(crate) enum SegmentFault {
    /// The disk failed, or the file needs a newer version.
    Error(Error),
    /// Neither copy of the header verifies.
    BadHeader,
}

impl AsError for SegmentFault {
    fn is_out_of_files(&self) -> bool {
        matches!(self, SegmentFault::Error(error) if error.is_out_of_files())
    }
}

impl From<Error> for SegmentFault {
    fn from(error: Error) -> Self {
        SegmentFault::Error(error)
    }
}

/// An open segment file.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: FileHandle,
    pub(crate) header: SegmentHeader,
    pub(crate) header_copies: HeaderCopies,
    map: Option<Arc<Map>>,
}

impl OpenSegment {
    /// Opens the file at `path` for reading. `map_bytes` is how much of it may ever be read: as much as there is, if `None`.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        path: &Path,
        read_mode: ReadMode,
        map_bytes: Option<u64>,
    ) -> Result<Self, SegmentFault> {
        let file = storage.open_file(path, OpenMode::Read)?;
        let (header, header_copies) = read_header(&*file)?;
        let map_bytes = map_bytes.map_or_else(|| file.length(), Ok)?;
        Ok(Self::new(file, header, header_copies, read_mode, map_bytes))
    }

    /// Wraps an open file whose header is known. `map_bytes` is how much of it may ever be read.
    pub(crate) fn new(
        file: FileHandle,
        header: SegmentHeader,
        header_copies: HeaderCopies,
        read_mode: ReadMode,
        map_bytes: u64,
    ) -> Self {
        let map = match read_mode {
            ReadMode::Positional => None,
            // A map that cannot be had (address space, limits) is no reason not to read.
            ReadMode::Mapped => file.map(map_bytes.min(MAP_BYTES)).unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot map a segment; reading it by position");
                None
            }),
        };
        Self { file, header, header_copies, map: map.map(Arc::new) }
    }

    /// Tells whether somebody still has bytes of the map, once this is dropped. `None` if there is no map.
    pub(crate) fn map_in_use(&self) -> Option<Weak<Map>> {
        self.map.as_ref().map(Arc::downgrade)
    }

    /// Where a batch at `position` of this file is.
    pub(crate) fn place(&self, position: FilePosition) -> BatchPlace {
        BatchPlace { salt: self.header.salt, position }
    }

    /// Reads the batch header at `position`. The caller knows that a published batch begins there.
    pub(crate) fn published_header(
        &self,
        position: FilePosition,
    ) -> Result<Result<BatchHeader, HeaderFault>> {
        const MOST_BYTES: usize = BATCH_HEADER_BYTES + PRODUCER_EXTENSION_BYTES;
        let place = self.place(position);
        if let Some(map) = self.map.as_deref().filter(|map| fits(map, position, BATCH_HEADER_BYTES)) {
            let header = map.slice(position.get(), BATCH_HEADER_BYTES);
            match BatchHeader::decode(header, place) {
                Err(HeaderFault::Truncated) if fits(map, position, MOST_BYTES) => {
                    return Ok(BatchHeader::decode(map.slice(position.get(), MOST_BYTES), place));
                }
                decoded => return Ok(decoded),
            }
        }
        let mut bytes = [0; MOST_BYTES];
        let count = self.file.read_full_at(&mut bytes, position)?;
        Ok(BatchHeader::decode(&bytes[..count], place))
    }

    /// The bytes `[position, position + length)`, which the caller knows to be published; shorter if the file ends.
    pub(crate) fn published_bytes(&self, position: FilePosition, length: usize) -> Result<FileSlice> {
        if let Some(map) = self.map.as_ref().filter(|map| fits(map, position, length)) {
            return Ok(FileSlice::mapped(Arc::clone(map), position, length));
        }
        let mut bytes = vec![0; length];
        let count = self.file.read_full_at(&mut bytes, position)?;
        bytes.truncate(count);
        Ok(bytes.into())
    }
}

fn fits(map: &Map, position: FilePosition, length: usize) -> bool {
    position.get().checked_add(length as u64).is_some_and(|end| end <= map.length())
}

/// Reads and checks the header of a segment file.
pub(crate) fn read_header(file: &dyn StorageFile) -> Result<(SegmentHeader, HeaderCopies), SegmentFault> {
    let mut prefix = [0; SEGMENT_PREFIX_BYTES];
    let count = file.read_full_at(&mut prefix, FilePosition::ZERO)?;
    SegmentHeader::decode_prefix(&prefix[..count]).map_err(|fault| match fault {
        SegmentHeaderFault::Bad => SegmentFault::BadHeader,
        SegmentHeaderFault::Unsupported(feature) => SegmentFault::Error(Error::Unsupported {
            path: Arc::clone(file.path()),
            feature,
            newest_supported: VERSION,
            offsets: None,
        }),
    })
}

/// Reads and checks the footer of a segment file, and where it begins. `None` if there is none that verifies: it is
/// then rebuilt from the batches.
pub(crate) fn read_footer(
    file: &dyn StorageFile,
    base: Offset,
    salt: u64,
) -> Result<Option<(Footer, FilePosition)>> {
    let length = file.length()?;
    let trailer_bytes = TRAILER_BYTES as u64;
    if length < SEGMENT_DATA_START.get() + trailer_bytes {
        return Ok(None);
    }
    let mut trailer = [0; TRAILER_BYTES];
    let count = file.read_full_at(&mut trailer, FilePosition::new(length - trailer_bytes))?;
    let Ok(trailer) = Trailer::decode(&trailer[..count]) else { return Ok(None) };
    if !trailer.check_place(length) || trailer.footer_position < SEGMENT_DATA_START {
        return Ok(None);
    }
    // The trailer's checksum and the file's length bound what is allocated here.
    let mut bytes = vec![0; trailer.footer_length as usize];
    let count = file.read_full_at(&mut bytes, trailer.footer_position)?;
    let place = BatchPlace { salt, position: trailer.footer_position };
    if count < bytes.len() || trailer.footer_crc != Footer::checksum(&bytes, place) {
        return Ok(None);
    }
    match Footer::decode(&bytes, base) {
        Ok(footer) => Ok(Some((footer, trailer.footer_position))),
        Err(FooterFault::Unsupported(feature)) => {
            let path = Arc::clone(file.path());
            Err(Error::Unsupported { path, feature, newest_supported: VERSION, offsets: None })
        }
        Err(FooterFault::Bad) => Ok(None),
    }
}
