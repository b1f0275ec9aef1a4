//! Every decoder takes any bytes: no panic, and what is accepted encodes to the same bytes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailwater_log::format::{
    BatchHeader, BatchPlace, Checkpoint, Footer, RecordFields, RecordIter, SegmentHeader, Trailer, decode_slots, encode,
};
use tailwater_log::{FilePosition, Offset};

const PLACE: BatchPlace = BatchPlace { salt: 7, position: FilePosition::new(1024) };

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = BatchHeader::decode(bytes, PLACE) {
        let mut again = vec![0; header.header_bytes()];
        header.encode(PLACE, &mut again);
        assert_eq!(BatchHeader::decode(&again, PLACE), Ok(header));
    }
    if let Ok(checkpoint) = Checkpoint::decode(bytes) {
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }
    if let Ok((header, _)) = SegmentHeader::decode_prefix(bytes) {
        let prefix = header.encode_prefix();
        assert_eq!(SegmentHeader::decode_prefix(&prefix).map(|(header, _)| header), Ok(header));
    }
    let _ = decode_slots(bytes);
    let _ = Trailer::decode(bytes);
    let _ = Footer::decode(bytes, Offset::ZERO);

    // A body of records: its header is made to fit, so that the walk gets somewhere.
    if let Some((counts, body)) = bytes.split_first_chunk::<4>() {
        let mut header = plain_header();
        header.record_count = u32::from(counts[0]);
        header.last_offset_delta = u32::from(u16::from_le_bytes([counts[1], counts[2]]));
        let mut again = Vec::new();
        for view in RecordIter::new(&header, body) {
            let Ok(view) = view else { return };
            let headers: Vec<_> = view.headers().collect();
            assert_eq!(headers.len(), view.header_count() as usize);
            let fields = RecordFields { key: view.key(), value: view.value(), headers: &headers };
            encode(&fields, view.time_delta(), view.offset_delta(), &mut again);
        }
        assert_eq!(again, body, "one encoding for each record");
    }
});

fn plain_header() -> BatchHeader {
    BatchHeader {
        length_bytes: 64,
        body_crc: 0,
        attributes: Default::default(),
        compatible_attributes: 0,
        base_offset: Offset::ZERO,
        last_offset_delta: 0,
        record_count: 0,
        base_create_time: Default::default(),
        max_create_time: Default::default(),
        append_time: Default::default(),
        durable_back: 0,
        log_epoch: Default::default(),
        producer: None,
    }
}
