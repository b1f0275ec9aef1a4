//! Control batches, which say something about the log itself: `docs/format.md`, section "Control batch".

use byteorder::{ByteOrder, LittleEndian};

use super::batch::{ALIGNMENT_BYTES, BatchAttributes, BatchHeader, BatchPlace};
use super::record::{RecordFields, RecordIter, encode};
use crate::limits::MAX_BATCH_OFFSETS;
use crate::{LogEpoch, OffsetRange, Timestamp};

const VERSION: u16 = 1;
const LOST_OFFSETS: u16 = 1;

/// What a control batch says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Control {
    /// The records of the offsets that the batch spans were damaged and were taken out by a repair.
    LostOffsets,
}

impl Control {
    /// Reads what a control batch says. `None` if this version does not know.
    #[must_use]
    pub fn decode(header: &BatchHeader, body: &[u8]) -> Option<Self> {
        let record = RecordIter::new(header, body).next()?.ok()?;
        let key = record.key().filter(|key| key.len() == 4)?;
        match (LittleEndian::read_u16(key), LittleEndian::read_u16(&key[2..])) {
            (LOST_OFFSETS, VERSION) => Some(Control::LostOffsets),
            _ => None,
        }
    }
}

/// Appends a batch to `out` that says that the first of `lost` are lost, as many as one batch can span. Returns its
/// header; the next batch begins behind its last offset. `place` is where the batch will be.
pub(crate) fn encode_lost_offsets(
    lost: OffsetRange,
    append_time: Timestamp,
    log_epoch: LogEpoch,
    place: BatchPlace,
    out: &mut Vec<u8>,
) -> BatchHeader {
    let mut key = [0; 4];
    LittleEndian::write_u16(&mut key, LOST_OFFSETS);
    LittleEndian::write_u16(&mut key[2..], VERSION);
    let start = out.len();
    let header_bytes = super::BATCH_HEADER_BYTES;
    out.resize(start + header_bytes, 0);
    encode(&RecordFields { key: Some(&key), ..RecordFields::default() }, 0, 0, out);
    let body = &out[start + header_bytes..];
    let count = u32::try_from(lost.count()).unwrap_or(u32::MAX).min(MAX_BATCH_OFFSETS);
    let header = BatchHeader {
        // A header and a record of a few bytes.
        length_bytes: u32::try_from(header_bytes + body.len()).unwrap_or(u32::MAX),
        body_crc: crc32fast::hash(body),
        attributes: BatchAttributes::default().with_control(),
        compatible_attributes: 0,
        base_offset: lost.start,
        last_offset_delta: count - 1,
        record_count: 1,
        base_create_time: append_time,
        max_create_time: append_time,
        append_time,
        // It knows nothing of what was durable.
        durable_back: u32::MAX,
        log_epoch,
        producer: None,
    };
    header.encode(place, &mut out[start..]);
    out.resize(out.len().next_multiple_of(ALIGNMENT_BYTES), 0);
    header
}
