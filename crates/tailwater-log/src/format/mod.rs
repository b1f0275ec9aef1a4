//! The bytes on disk, as `docs/format.md` describes them: bytes in, values out; no file, clock or lock.
//!
//! - A decoder takes any bytes: it never panics and allocates no more than the bytes given bound.
//! - Everything is little-endian; checksums are CRC-32 (IEEE 802.3), as `crc32fast` computes it.

mod batch;
mod checkpoint;
mod compressed;
mod control;
mod footer;
mod record;
mod segment_header;
mod varint;

pub(crate) use batch::ALIGNMENT_BYTES;
pub use batch::{
    ALIGNMENT, BATCH_HEADER_BYTES, BatchAttributes, BatchHeader, BatchPlace, BodyFault, DELETE_HORIZON,
    HeaderFault, PRODUCER_EXTENSION_BYTES, ProducerExtension, aligned, check_body,
};
pub use checkpoint::{Checkpoint, SlotFault, Slots, decode_slots, segment_names_checksum};
pub(crate) use compressed::compress;
pub use compressed::{UnreadableBody, plain_body, uncompressed_bytes};
pub use control::Control;
pub(crate) use control::encode_lost_offsets;
pub use footer::{
    EpochStart, Footer, FooterFault, INDEX_INTERVAL_BYTES, IndexEntry, ProducerState, SegmentSummary,
    TRAILER_BYTES, TimeBounds, Trailer,
};
pub(crate) use record::encode_within;
pub use record::{
    Header, HeaderIter, MalformedRecord, RecordFields, RecordIter, RecordView, encode, encoded_bytes,
};
pub use segment_header::{
    Compacted, HeaderCopies, SEGMENT_DATA_START, SEGMENT_HEADER_BYTES, SEGMENT_PREFIX_BYTES, SegmentHeader,
    SegmentHeaderFault,
};

/// The format version that this build writes, and the newest that it reads.
pub const VERSION: u16 = 1;
