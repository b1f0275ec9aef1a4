//! Compressed bodies: `docs/format.md`, section "Compressed body".
//!
//! - What is allocated for a body is what it says that it decompresses to, and that is bounded before.
//! - Contexts are kept from batch to batch for the whole process: to make one costs more than to compress a small batch.

use std::borrow::Cow;
#[cfg(any(feature = "lz4", feature = "zstd"))]
use std::sync::{Mutex, PoisonError};

use byteorder::{ByteOrder, LittleEndian};

use super::BatchHeader;
use crate::Compression;
use crate::error::{CompressionFault, UnsupportedFeature};
use crate::limits::MAX_BATCH_BYTES;
#[cfg(any(feature = "lz4", feature = "zstd"))]
use crate::limits::MIB;

/// Size of what stands in front of what was compressed, in bytes: how large that was.
const PREFIX_BYTES: usize = size_of::<u32>();

/// A shorter body is not compressed: it would hardly become smaller.
const LEAST_BYTES: usize = 64;

/// Why nobody can look into a body whose checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnreadableBody {
    /// This version, or this build of it, does not know how.
    Unsupported(UnsupportedFeature),
    /// It does not decompress.
    Bad(CompressionFault),
}

/// The size of a body when it is decompressed, in bytes, if it is compressed and says a size that it may have.
#[must_use]
pub fn uncompressed_bytes(header: &BatchHeader, body: &[u8]) -> Option<u32> {
    match header.attributes.compression() {
        Compression::None => None,
        _ => declared_bytes(header, body).ok(),
    }
}

fn declared_bytes(header: &BatchHeader, body: &[u8]) -> Result<u32, CompressionFault> {
    let prefix = body.get(..PREFIX_BYTES).ok_or(CompressionFault::Truncated)?;
    let declared_bytes = LittleEndian::read_u32(prefix);
    // No larger than it could be if it were not compressed.
    let header_bytes = u32::try_from(header.header_bytes()).unwrap_or(MAX_BATCH_BYTES);
    let max_bytes = MAX_BATCH_BYTES - header_bytes;
    match declared_bytes {
        0 => Err(CompressionFault::Malformed),
        _ if declared_bytes > max_bytes => Err(CompressionFault::TooLarge { declared_bytes, max_bytes }),
        _ => Ok(declared_bytes),
    }
}

/// The body as its appender gave it: decompressed if it is compressed. Its checksum is to be verified before.
///
/// Allocates at most what a batch may be large, whatever the bytes.
///
/// # Errors
///
/// Why it cannot be had.
pub fn plain_body<'b>(header: &BatchHeader, body: &'b [u8]) -> Result<Cow<'b, [u8]>, UnreadableBody> {
    let attributes = header.attributes;
    if attributes.is_encrypted() {
        return Err(UnreadableBody::Unsupported(UnsupportedFeature::Attributes(attributes.bits())));
    }
    let compression = attributes.compression();
    if compression == Compression::None {
        return Ok(Cow::Borrowed(body));
    }
    if !compression.is_supported() {
        return Err(UnreadableBody::Unsupported(UnsupportedFeature::Compression(compression)));
    }
    let declared_bytes = declared_bytes(header, body).map_err(UnreadableBody::Bad)?;
    let plain = decompress(compression, &body[PREFIX_BYTES..], declared_bytes as usize);
    let plain = plain.ok_or(UnreadableBody::Bad(CompressionFault::Malformed))?;
    match u32::try_from(plain.len()) {
        Ok(found_bytes) if found_bytes == declared_bytes => Ok(Cow::Owned(plain)),
        found => {
            let found_bytes = found.unwrap_or(u32::MAX);
            Err(UnreadableBody::Bad(CompressionFault::WrongSize { declared_bytes, found_bytes }))
        }
    }
}

/// Decompresses to `size_bytes` at most; `None` if these are not bytes that were compressed so, or are more.
fn decompress(compression: Compression, bytes: &[u8], size_bytes: usize) -> Option<Vec<u8>> {
    #[cfg(not(any(feature = "lz4", feature = "zstd")))]
    let _ = (bytes, size_bytes);
    match compression {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => {
            let mut plain = vec![0; size_bytes];
            let count = lz4_flex::block::decompress_into(bytes, &mut plain).ok()?;
            plain.truncate(count);
            Some(plain)
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            // One frame and nothing behind it: a decoder would pass over what can be passed over.
            if zstd::zstd_safe::find_frame_compressed_size(bytes).ok()? != bytes.len() {
                return None;
            }
            let mut plain = vec![0; size_bytes];
            let count = DECOMPRESSORS
                .with(|decompressor| decompressor.decompress_to_buffer(bytes, plain.as_mut_slice()).ok())?;
            plain.truncate(count);
            Some(plain)
        }
        _ => None,
    }
}

/// Compresses a body. `None` if it does not become smaller: then it is stored as it is.
///
/// `level` is for Zstandard.
///
/// # Panics
///
/// If this build does not have the compression: a batch that is to be compressed so is refused when it is appended.
pub(crate) fn compress(compression: Compression, level: i32, body: &[u8]) -> Option<Vec<u8>> {
    let _ = level;
    assert!(compression.is_supported(), "what cannot be compressed is not appended");
    if body.len() < LEAST_BYTES {
        return None;
    }
    let mut out: Vec<u8> = match compression {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => COMPRESSORS.with(|compressor| compressor.lz4(body)),
        #[cfg(feature = "zstd")]
        Compression::Zstd => COMPRESSORS.with(|compressor| compressor.zstd(body, level)),
        _ => None,
    }?;
    LittleEndian::write_u32(&mut out[..PREFIX_BYTES], u32::try_from(body.len()).ok()?);
    (out.len() < body.len()).then_some(out)
}

/// What compressing reuses.
#[cfg(any(feature = "lz4", feature = "zstd"))]
#[derive(Default)]
struct Compressor {
    #[cfg(feature = "lz4")]
    table: lz4_flex::block::CompressTable,
    #[cfg(feature = "zstd")]
    zstd: zstd::bulk::Compressor<'static>,
    /// Where the output is made.
    scratch: Vec<u8>,
}

/// Beyond this size, in bytes, the place for outputs is not kept.
#[cfg(any(feature = "lz4", feature = "zstd"))]
const KEPT_SCRATCH_BYTES: usize = MIB as usize;

#[cfg(any(feature = "lz4", feature = "zstd"))]
impl Compressor {
    #[cfg(feature = "lz4")]
    fn lz4(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let most_bytes = lz4_flex::block::get_maximum_output_size(body.len());
        let out = room(&mut self.scratch, most_bytes);
        let count = lz4_flex::block::compress_into_with_table(body, out, &mut self.table).ok()?;
        self.output(count)
    }

    #[cfg(feature = "zstd")]
    fn zstd(&mut self, body: &[u8], level: i32) -> Option<Vec<u8>> {
        // What is not smaller is not wanted, so there is no room for it.
        let out = room(&mut self.scratch, body.len() - PREFIX_BYTES);
        self.zstd.set_compression_level(level).ok()?;
        let count = self.zstd.compress_to_buffer(body, out).ok()?;
        self.output(count)
    }

    fn output(&mut self, count: usize) -> Option<Vec<u8>> {
        let output = self.scratch[..PREFIX_BYTES + count].to_vec();
        if self.scratch.capacity() > KEPT_SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        Some(output)
    }
}

/// Room for `size_bytes` behind the prefix. What an earlier output left there is written over, or not looked at.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn room(scratch: &mut Vec<u8>, size_bytes: usize) -> &mut [u8] {
    let end = PREFIX_BYTES + size_bytes;
    if scratch.len() < end {
        scratch.resize(end, 0);
    }
    &mut scratch[PREFIX_BYTES..end]
}

/// Contexts that nobody uses at the moment.
#[cfg(any(feature = "lz4", feature = "zstd"))]
struct Pool<T>(Mutex<Vec<T>>);

#[cfg(any(feature = "lz4", feature = "zstd"))]
impl<T: Default> Pool<T> {
    /// How many are kept: as many threads compress at once on most machines.
    const MOST: usize = 16;

    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        // A panic inside loses a context, and leaves the others as they were.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut context = { lock().pop() }.unwrap_or_default();
        let result = act(&mut context);
        let mut kept = lock();
        if kept.len() < Self::MOST {
            kept.push(context);
        }
        result
    }
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
static COMPRESSORS: Pool<Compressor> = Pool::new();
#[cfg(feature = "zstd")]
static DECOMPRESSORS: Pool<zstd::bulk::Decompressor<'static>> = Pool::new();
