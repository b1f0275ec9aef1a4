//! The exact bytes of each structure of the format. A change here is a new format version: see `docs/format.md`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;

use tailwater_log::format::{
    BatchAttributes, BatchHeader, BatchPlace, Checkpoint, Compacted, EpochStart, Footer, Header,
    HeaderCopies, IndexEntry, ProducerExtension, ProducerState, RecordFields, RecordIter, SegmentHeader,
    SegmentSummary, TRAILER_BYTES, TimeBounds, Trailer, encode, segment_names_checksum,
};
use tailwater_log::{
    FilePosition, LogEpoch, Offset, OffsetRange, PartitionId, PartitionIdentity, Timestamp, TopicId,
};

const PLACE: BatchPlace = BatchPlace { salt: 0x0102_0304_0506_0708, position: FilePosition::new(1024) };

fn identity() -> PartitionIdentity {
    let topic_id = TopicId::from_bytes(*b"0123456789abcdef");
    PartitionIdentity { topic_id, partition: PartitionId::new(3) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn assert_golden(name: &str, bytes: &[u8], golden: &[&str]) {
    assert_eq!(hex(bytes), golden.concat(), "{name}");
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn batch_header(producer: Option<ProducerExtension>) -> BatchHeader {
    let plain = BatchAttributes::default();
    BatchHeader {
        length_bytes: 200,
        body_crc: 0xdead_beef,
        attributes: if producer.is_some() { plain.with_producer().with_transactional() } else { plain },
        compatible_attributes: 1,
        base_offset: Offset::new(1000),
        last_offset_delta: 4,
        record_count: 5,
        base_create_time: time(1_700_000_000_000),
        max_create_time: time(1_700_000_000_009),
        append_time: time(1_700_000_000_010),
        durable_back: 7,
        log_epoch: LogEpoch::new(2),
        producer,
    }
}

#[test]
fn batch_headers() {
    let plain = batch_header(None);
    let mut bytes = [0; 64];
    plain.encode(PLACE, &mut bytes);
    assert_golden(
        "plain",
        &bytes,
        &[
            "c8000000c386f650efbeadde54570001e8030000000000000400000005000000",
            "0068e5cf8b0100000968e5cf8b0100000a68e5cf8b0100000700000002000000",
        ],
    );
    assert_eq!(BatchHeader::decode(&bytes, PLACE), Ok(plain));

    let producer = ProducerExtension { producer_id: 0x1122, sequence: 33, producer_epoch: 4 };
    let extended = batch_header(Some(producer));
    let mut bytes = [0; 80];
    extended.encode(PLACE, &mut bytes);
    assert_golden(
        "extended",
        &bytes,
        &[
            "c800000071e5c63defbeadde54572801e8030000000000000400000005000000",
            "0068e5cf8b0100000968e5cf8b0100000a68e5cf8b0100000700000002000000",
            "22110000000000002100000004000000",
        ],
    );
    assert_eq!(BatchHeader::decode(&bytes, PLACE), Ok(extended));
}

#[test]
fn records() {
    let headers = [Header { key: "trace", value: Some(b"1") }, Header { key: "", value: None }];
    let mut body = Vec::new();
    encode(&RecordFields { key: Some(b"key"), value: Some(b"value"), headers: &headers }, 0, 0, &mut body);
    encode(&RecordFields { key: None, value: Some(b""), headers: &[] }, -300, 1, &mut body);
    encode(&RecordFields { key: Some(b""), value: None, headers: &[] }, 300, 4, &mut body);
    assert_golden(
        "records",
        &body,
        &["18000000046b65790676616c756502057472616365023100000700d704010001", "000700d80404010000"],
    );
    let header = BatchHeader { record_count: 3, ..batch_header(None) };
    assert_eq!(RecordIter::new(&header, &body).filter(Result::is_ok).count(), 3);
}

#[test]
fn segment_headers() {
    let header = SegmentHeader {
        identity: identity(),
        epoch: LogEpoch::new(2),
        epoch_start: Offset::new(900),
        salt: PLACE.salt,
        created: time(1_700_000_000_000),
        compacted: None,
    };
    let prefix = header.encode_prefix();
    assert_golden(
        "segment",
        &prefix[..64],
        &[
            "54575345474d4e54010000000300000030313233343536373839616263646566",
            "02000000f2ebf48c840300000000000008070605040302010068e5cf8b010000",
        ],
    );
    assert_eq!(prefix[512..576], prefix[..64]);
    assert!(prefix[64..512].iter().chain(&prefix[576..]).all(|byte| *byte == 0));
    assert_eq!(SegmentHeader::decode_prefix(&prefix), Ok((header, HeaderCopies::Both)));
}

#[test]
fn headers_of_segments_that_compaction_made() {
    let compacted = Compacted {
        end: Offset::new(1_000),
        cleaned_end: Offset::new(990),
        next_horizon: Some(time(1_700_000_000_000)),
    };
    let header = SegmentHeader {
        identity: identity(),
        epoch: LogEpoch::new(2),
        epoch_start: Offset::new(900),
        salt: PLACE.salt,
        created: time(1_700_000_000_000),
        compacted: Some(compacted),
    };
    let prefix = header.encode_prefix();
    assert_golden(
        "compacted segment",
        &prefix[..88],
        &[
            "54575345474d4e54010001000300000030313233343536373839616263646566",
            "020000000b6c57ca840300000000000008070605040302010068e5cf8b010000",
            "e803000000000000de030000000000000068e5cf8b010000",
        ],
    );
    assert_eq!(prefix[512..600], prefix[..88]);
    assert!(prefix[88..512].iter().chain(&prefix[600..]).all(|byte| *byte == 0));
    assert_eq!(SegmentHeader::decode_prefix(&prefix), Ok((header, HeaderCopies::Both)));
}

#[test]
fn footers() {
    let footer = Footer {
        summary: SegmentSummary {
            first_offset: Offset::new(900),
            next_offset: Offset::new(1005),
            times: Some(TimeBounds {
                min_create: time(1),
                max_create: time(9),
                min_append: time(2),
                max_append: time(10),
            }),
            batch_count: 3,
            record_count: 105,
            epochs: vec![EpochStart { epoch: LogEpoch::new(2), start: Offset::new(900) }],
            index: vec![IndexEntry {
                offset: Offset::new(900),
                position: FilePosition::new(1024),
                append_time: time(2),
            }],
        },
        producers: vec![ProducerState {
            producer_id: 1,
            producer_epoch: 2,
            last_sequence: 3,
            last_offset: Offset::new(4),
            last_time: time(5),
        }],
        aborted: vec![OffsetRange { start: Offset::new(901), end: Offset::new(902) }],
    };
    let bytes = footer.encode(Offset::new(900), PLACE);
    assert_golden(
        "footer",
        &bytes,
        &[
            "5457464f4f544552010000000100000001000000010000000100000000000000",
            "8403000000000000ed0300000000000001000000000000000900000000000000",
            "02000000000000000a0000000000000003000000000000006900000000000000",
            "0000000000000000020000000000000084030000000000000000000000040000",
            "0200000000000000010000000000000002000000030000000400000000000000",
            "0500000000000000850300000000000086030000000000000004000000000000",
            "b8000000343cc2d900000000f4f1132b5457545241494c52",
        ],
    );
    let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
    assert_eq!(Trailer::decode(trailer).unwrap().footer_crc, Footer::checksum(body, PLACE));
    assert_eq!(Footer::decode(body, Offset::new(900)), Ok(footer));
}

#[test]
fn checkpoint_slots() {
    let checkpoint = Checkpoint {
        identity: identity(),
        sequence: 17,
        is_dirty: true,
        epoch: LogEpoch::new(2),
        log_start: Offset::new(800),
        durable: Offset::new(1000),
        scan_base: Offset::new(900),
        scan_position: FilePosition::new(2048),
        scan_offset: Offset::new(1000),
        latest_append_time: time(1_700_000_000_010),
        segment_names_crc: segment_names_checksum([800, 900].map(Offset::new)),
        generation: 5,
    };
    let slot = checkpoint.encode();
    assert_golden(
        "checkpoint",
        &slot[..104],
        &[
            "545743484b504e54010001000300000030313233343536373839616263646566",
            "1100000000000000020000002b21aac72003000000000000e803000000000000",
            "84030000000000000008000000000000e8030000000000000a68e5cf8b010000",
            "eccb600c05000000",
        ],
    );
    assert!(slot[104..].iter().all(|byte| *byte == 0));
    assert_eq!(Checkpoint::decode(&slot), Ok(checkpoint));
}
