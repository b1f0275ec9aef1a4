//! Compressing what was taken from staging, before it is written.

use super::staging::StagedBuffer;
use crate::format::{self, ALIGNMENT_BYTES};
use crate::{Compression, LogConfig};

impl StagedBuffer {
    /// Whether there are batches that are to be compressed.
    #[inline(always)]
    pub(crate) fn wants_compression(&self) -> bool {
        self.batches.iter().any(|batch| batch.header.attributes.is_compressed())
    }

    /// Compresses the batches that are to be compressed and get smaller by it; the others are marked as not compressed.
    /// Returns by how many bytes the buffer is shorter then.
    #[cold]
    pub(crate) fn compress(&mut self, config: &LogConfig) -> u64 {
        let level = i32::try_from(config.compression_zstd_level).unwrap_or(i32::MAX);
        let length_before = self.bytes.len();
        // What was done ends here. It is never ahead of what comes next.
        let mut end = 0;
        for batch in &mut self.batches {
            let header = &mut batch.header;
            let (start, header_bytes) = (batch.start, header.header_bytes());
            let body = start + header_bytes..start + header.length_bytes as usize;
            let compression = header.attributes.compression();
            let compressed = match compression {
                Compression::None => None,
                compression => format::compress(compression, level, &self.bytes[body.clone()]),
            };
            batch.start = end;
            // The header itself is filled in later.
            let body_at = end + header_bytes;
            let body_bytes = match &compressed {
                Some(compressed) => {
                    self.bytes[body_at..body_at + compressed.len()].copy_from_slice(compressed);
                    compressed.len()
                }
                None => {
                    header.attributes = header.attributes.with_compression(Compression::None);
                    self.bytes.copy_within(body.clone(), body_at);
                    body.len()
                }
            };
            header.length_bytes = u32::try_from(header_bytes + body_bytes)
                .expect("a batch does not grow: it is at most as long as it was admitted");
            end = (body_at + body_bytes).next_multiple_of(ALIGNMENT_BYTES);
            self.bytes[body_at + body_bytes..end].fill(0);
        }
        self.bytes.truncate(end);
        (length_before - end) as u64
    }
}
