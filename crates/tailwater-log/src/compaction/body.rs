//! From the body of a batch to its records and back: the only place that knows how bodies are stored.

use std::borrow::Cow;

use crate::Compression;
use crate::format::{self, BatchHeader, MalformedRecord, RecordFields, RecordIter, RecordView};
use crate::limits::MAX_BATCH_BYTES;

/// What is in a batch, for who wants to look at its records.
pub(crate) enum Content<'b> {
    /// Its records, as [`RecordIter`] reads them.
    Records(Cow<'b, [u8]>),
    /// No records: it stands for offsets, and says something about them or not at all what.
    NoRecords,
    /// Records that cannot be looked at here.
    Closed,
}

/// Looks into the body of a batch, whose checksum is right.
pub(crate) fn content<'b>(header: &BatchHeader, body: &'b [u8]) -> Content<'b> {
    let attributes = header.attributes;
    if attributes.is_opaque() || attributes.is_control() {
        Content::NoRecords
    } else if attributes.is_transactional() {
        Content::Closed
    } else {
        // What this build cannot decompress, or nobody can, stays as it is.
        format::plain_body(header, body).map_or(Content::Closed, Content::Records)
    }
}

/// A body under construction.
#[derive(Default)]
pub(crate) struct NewBody {
    bytes: Vec<u8>,
    record_count: u32,
}

impl NewBody {
    /// A body that begins with these records of another, as they are there.
    pub(crate) fn of_encoded(bytes: &[u8], record_count: u32) -> Self {
        Self { bytes: bytes.to_vec(), record_count }
    }

    /// Adds a record as it is in the body that `bytes` is a part of.
    pub(crate) fn add_encoded(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.record_count += 1;
    }

    /// Adds a record with another distance from the base create time.
    pub(crate) fn add(&mut self, record: &RecordView<'_>, time_delta: i64) {
        let headers: Vec<_> = record.headers().collect();
        let fields = RecordFields { key: record.key(), value: record.value(), headers: &headers };
        format::encode(&fields, time_delta, record.offset_delta(), &mut self.bytes);
        self.record_count += 1;
    }

    /// The header that goes with it, made of that of the batch whose records these are, and the stored body: compressed as
    /// that batch was, if it becomes smaller by that.
    pub(crate) fn finish(self, header: &BatchHeader, zstd_level: i32) -> (BatchHeader, Vec<u8>) {
        let plain_bytes = header.header_bytes() + self.bytes.len();
        let compression = header.attributes.compression();
        let is_compressed = compression != Compression::None && plain_bytes <= MAX_BATCH_BYTES as usize;
        let compressed =
            is_compressed.then(|| format::compress(compression, zstd_level, &self.bytes)).flatten();
        let (compression, stored) = match compressed {
            Some(compressed) => (compression, compressed),
            None => (Compression::None, self.bytes),
        };
        let length = header.header_bytes() + stored.len();
        let header = BatchHeader {
            // What is too long for the format is not used: see `Cleaner`.
            length_bytes: u32::try_from(length).unwrap_or(u32::MAX),
            body_crc: crc32fast::hash(&stored),
            attributes: header.attributes.with_compression(compression),
            record_count: self.record_count,
            ..*header
        };
        (header, stored)
    }

    /// The records so far, not compressed.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn record_count(&self) -> u32 {
        self.record_count
    }
}

/// The records of a body, each with its encoded bytes.
pub(crate) fn records<'b>(
    header: &BatchHeader,
    body: &'b [u8],
) -> impl Iterator<Item = Result<(RecordView<'b>, &'b [u8]), MalformedRecord>> {
    let mut records = RecordIter::new(header, body);
    let mut rest = body;
    std::iter::from_fn(move || {
        let record = records.next()?;
        Some(record.map(|record| {
            let (encoded, behind) = rest.split_at(rest.len() - records.bytes_left());
            rest = behind;
            (record, encoded)
        }))
    })
}
