//! Every decoder of the format takes any bytes: no panic, and what is accepted encodes to the same bytes again.
//!
//! Bytes come as they are, and with their checksums made right, without which hardly any would be accepted; and values
//! are encoded, decoded, and changed under a right checksum.

use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use tailwater_log::format::{
    BatchAttributes, BatchHeader, BatchPlace, Checkpoint, Compacted, Control, EpochStart, Footer, IndexEntry,
    ProducerExtension, ProducerState, RecordFields, RecordIter, SEGMENT_HEADER_BYTES, SegmentHeader,
    SegmentSummary, TRAILER_BYTES, TimeBounds, Trailer, UnreadableBody, check_body, decode_slots, encode,
    encoded_bytes, plain_body, uncompressed_bytes,
};
use tailwater_log::storage::{OpenMode, SimDisk, Storage};
use tailwater_log::{
    Compression, FetchIsolation, FetchLimits, FilePosition, Log, LogEpoch, LogOptions, NewRecord, Offset,
    OffsetRange, PartitionId, PartitionIdentity, SegmentInspection, SegmentPart, Timestamp, TopicId,
    WhenFull,
};

const PLACE: BatchPlace = BatchPlace { salt: 7, position: FilePosition::new(1024) };
const SECTOR_BYTES: usize = 512;
const CHECKPOINT_BYTES: usize = 96;
const FOOTER_BYTES: usize = 104;

/// From this choice on it is a compressed body.
const COMPRESSED: u8 = 0xf8;

pub(crate) fn run(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    if *choice >= COMPRESSED {
        return compressed(bytes);
    }
    match choice % 8 {
        0 => any_bytes(bytes),
        1 => accept_batch_header(&sealed(Structure::BatchHeader, bytes)),
        2 => accept_checkpoint(&sealed(Structure::Checkpoint, bytes)),
        3 => accept_segment_header(&sealed(Structure::SegmentHeader, bytes)),
        4 => accept_trailer(&sealed(Structure::Trailer, bytes)),
        5 => accept_footer(bytes, Offset::ZERO),
        6 => accept_body(bytes),
        // What is not enough for a value is none.
        _ => drop(values(&mut Unstructured::new(bytes))),
    }
}

fn any_bytes(bytes: &[u8]) {
    accept_batch_header(bytes);
    accept_checkpoint(bytes);
    accept_segment_header(bytes);
    accept_trailer(bytes);
    accept_footer(bytes, Offset::ZERO);
    accept_body(bytes);
    if let Ok(slots) = decode_slots(bytes) {
        let slot = bytes.get(slots.newest_index * SECTOR_BYTES..).unwrap_or_default();
        assert_eq!(slots.newest, Checkpoint::decode(slot).ok());
    }
}

#[derive(Clone, Copy)]
enum Structure {
    BatchHeader,
    Checkpoint,
    SegmentHeader,
    Trailer,
}

/// `bytes` with the checksum that the structure needs where `docs/format.md` has it, if they are long enough.
fn sealed(structure: Structure, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let has_extension = bytes.get(14).is_some_and(|attributes| attributes & (1 << 5) != 0);
    let (crc_at, length, seed) = match structure {
        Structure::BatchHeader => (4, if has_extension { 80 } else { 64 }, &seed()[..]),
        Structure::Checkpoint => (44, SECTOR_BYTES, &[][..]),
        Structure::SegmentHeader => (36, SEGMENT_HEADER_BYTES, &[][..]),
        Structure::Trailer => (20, TRAILER_BYTES, &[][..]),
    };
    if matches!(structure, Structure::Checkpoint) {
        bytes.resize(SECTOR_BYTES, 0);
    }
    if let Some(covered) = bytes.get_mut(..length) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(seed);
        hasher.update(&covered[..crc_at]);
        hasher.update(&covered[crc_at + 4..]);
        covered[crc_at..crc_at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
    }
    bytes
}

fn seed() -> [u8; 16] {
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&PLACE.salt.to_le_bytes());
    seed[8..].copy_from_slice(&PLACE.position.get().to_le_bytes());
    seed
}

fn accept_batch_header(bytes: &[u8]) {
    let Ok(header) = BatchHeader::decode(bytes, PLACE) else { return };
    let mut again = vec![0; header.header_bytes()];
    header.encode(PLACE, &mut again);
    let mut expected = bytes[..header.header_bytes()].to_vec();
    if let Some(reserved) = expected.get_mut(78..80) {
        reserved.fill(0);
        expected = sealed(Structure::BatchHeader, &expected);
    }
    assert_eq!(again, expected);
    assert_eq!(BatchHeader::decode(&again, PLACE), Ok(header));
    let elsewhere = BatchPlace { position: FilePosition::new(1032), ..PLACE };
    assert!(BatchHeader::decode(bytes, elsewhere).is_err(), "a header is bound to its place");
    let body = &bytes[header.header_bytes()..];
    let _ = check_body(&header, body);
    let _ = Control::decode(&header, body);
    assert!(header.offsets().count() <= 1 << 24 && header.durable_mark() <= header.base_offset);
    assert!(header.body_bytes() <= 16 << 20, "a length asks for no more memory than a batch may take");
}

fn accept_checkpoint(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::decode(bytes) else { return };
    let again = checkpoint.encode();
    // What follows the fields is for later versions.
    assert_eq!(again[..44], bytes[..44]);
    assert_eq!(again[48..CHECKPOINT_BYTES], bytes[48..CHECKPOINT_BYTES]);
    assert_eq!(Checkpoint::decode(&again), Ok(checkpoint));
}

fn accept_segment_header(bytes: &[u8]) {
    let Ok((header, _)) = SegmentHeader::decode_prefix(bytes) else { return };
    let prefix = header.encode_prefix();
    assert_eq!(SegmentHeader::decode_prefix(&prefix).map(|(header, _)| header), Ok(header));
    let is_copy = |start: usize| {
        bytes.get(start..start + SEGMENT_HEADER_BYTES) == Some(&prefix[..SEGMENT_HEADER_BYTES])
    };
    assert!(is_copy(0) || is_copy(SECTOR_BYTES), "one of the copies is what was accepted");
}

fn accept_trailer(bytes: &[u8]) {
    let Ok(trailer) = Trailer::decode(bytes) else { return };
    let fields = [
        &trailer.footer_position.get().to_le_bytes()[..],
        &trailer.footer_length.to_le_bytes()[..],
        &trailer.footer_crc.to_le_bytes()[..],
    ];
    assert_eq!(fields.concat(), bytes[..16]);
    for length in [0, u64::MAX, trailer.footer_position.get()] {
        let _ = trailer.check_place(length);
    }
}

fn accept_footer(bytes: &[u8], base: Offset) {
    let Ok(footer) = Footer::decode(bytes, base) else { return };
    let again = footer.encode(base, PLACE);
    let (again, trailer) = again.split_at(again.len() - TRAILER_BYTES);
    assert_eq!(again, without_reserved(bytes, &footer));
    assert_eq!(Footer::decode(again, base), Ok(footer));
    let trailer = Trailer::decode(trailer).expect("what was encoded is decoded");
    assert_eq!(trailer.footer_crc, Footer::checksum(again, PLACE));
    assert_eq!(trailer.footer_length as usize, again.len());
}

/// A footer's bytes, with zeroes where the format has nothing yet.
fn without_reserved(bytes: &[u8], footer: &Footer) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[28..32].fill(0);
    bytes[96..FOOTER_BYTES].fill(0);
    if footer.summary.times.is_none() {
        // Of a segment without batches.
        bytes[48..80].fill(0);
    }
    let epochs = footer.summary.epochs.len() * 16;
    let producers_at = FOOTER_BYTES + epochs + footer.summary.index.len() * 16;
    bytes[FOOTER_BYTES..][..epochs].chunks_mut(16).for_each(|entry| entry[4..8].fill(0));
    let producers = bytes[producers_at..][..footer.producers.len() * 32].chunks_mut(32);
    producers.for_each(|entry| entry[10..12].fill(0));
    bytes
}

/// A body of records: its header is made to fit, so that the walk gets somewhere.
fn accept_body(bytes: &[u8]) {
    let Some((counts, body)) = bytes.split_first_chunk::<4>() else { return };
    let header = BatchHeader {
        record_count: u32::from(counts[0]),
        last_offset_delta: u32::from(u16::from_le_bytes([counts[1], counts[2]])),
        ..plain_header()
    };
    let _ = Control::decode(&header, body);
    let mut again = Vec::new();
    for view in RecordIter::new(&header, body) {
        let Ok(view) = view else { return };
        let headers: Vec<_> = view.headers().collect();
        assert_eq!(headers.len(), view.header_count() as usize);
        let fields = RecordFields { key: view.key(), value: view.value(), headers: &headers };
        let before = again.len();
        encode(&fields, view.time_delta(), view.offset_delta(), &mut again);
        assert_eq!(again.len() - before, encoded_bytes(&fields, view.time_delta(), view.offset_delta()));
    }
    assert_eq!(again, body, "one encoding for each record");
}

/// A compressed body: any bytes, with a size in front that is within reach or as it comes, or what was compressed with a few
/// bytes changed. What is made of it is as large as it says, and no larger than a batch may be.
fn compressed(bytes: &[u8]) {
    let Some((&[compression, change, at, size], rest)) = bytes.split_first_chunk::<4>() else { return };
    let compression = [Compression::Lz4, Compression::Zstd][usize::from(compression % 2)];
    let attributes = BatchAttributes::default().with_compression(compression);
    let header = BatchHeader { attributes, record_count: 1, ..plain_header() };
    let body = match change % 4 {
        0 => rest.to_vec(),
        1 => [&u32::from(size).to_le_bytes(), rest].concat(),
        _ => {
            let Some(mut body) = compressed_by_a_log(rest, compression) else { return };
            let at = usize::from(at) % body.len();
            body[at] ^= change >> 2;
            body
        }
    };
    match plain_body(&header, &body) {
        Ok(plain) => {
            let declared = uncompressed_bytes(&header, &body);
            assert_eq!(declared, u32::try_from(plain.len()).ok(), "it is as large as it says");
            assert!(plain.len() <= 16 << 20, "no larger than a batch may be");
            for view in RecordIter::new(&header, &plain) {
                let _ = view.map(|view| view.headers().count());
            }
        }
        Err(UnreadableBody::Unsupported(_)) => assert!(!compression.is_supported()),
        Err(_) => assert!(compression.is_supported()),
    }
}

/// The body of a batch with a value that repeats `bytes`, as a log stores it. `None` if it does not get smaller.
fn compressed_by_a_log(bytes: &[u8], compression: Compression) -> Option<Vec<u8>> {
    let value = bytes.repeat(8);
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
    let storage: Arc<dyn Storage> = Arc::new(SimDisk::new(1));
    let log = Log::create(Arc::clone(&storage), "/log".as_ref(), LogOptions::new(identity)).ok()?;
    // Refused by a build that cannot compress so.
    let staged = log.append_staged_with(&[NewRecord::new(&value)], compression, WhenFull::Wait).ok()?;
    log.receipt_of(staged, None).wait().expect("there is room");
    let path = "/log/00000000000000000000.log".as_ref();
    let inspection = SegmentInspection::open(&storage, path).expect("it was just written");
    let Some(Ok(SegmentPart::Batch { position, header, uncompressed_bytes: Some(_), fault: None })) =
        inspection.parts().next()
    else {
        return None;
    };
    let fetched = log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None);
    let fetched = fetched.expect("it was just written");
    assert_eq!(fetched.iter().next().and_then(|record| record.value()), Some(&value[..]));
    let mut body = vec![0; header.body_bytes()];
    let file = storage.open_file(path, OpenMode::Read).expect("it is there");
    file.read_full_at(&mut body, position.plus(header.header_bytes() as u64)).expect("it can be read");
    Some(body)
}

/// A value of some structure: decoded from its encoding it is the same, and so are the bytes of changed ones.
fn values(u: &mut Unstructured<'_>) -> Result<()> {
    match u8::arbitrary(u)? % 4 {
        0 => {
            let header = batch_header(u)?;
            let mut bytes = vec![0; header.header_bytes()];
            header.encode(PLACE, &mut bytes);
            if header.record_count <= header.last_offset_delta + 1 {
                assert_eq!(BatchHeader::decode(&bytes, PLACE), Ok(header));
            }
            accept_batch_header(&sealed(Structure::BatchHeader, &changed(bytes, u)?));
        }
        1 => {
            let checkpoint = checkpoint(u)?;
            let bytes = checkpoint.encode();
            assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
            accept_checkpoint(&sealed(Structure::Checkpoint, &changed(bytes.to_vec(), u)?));
        }
        2 => {
            let header = segment_header(u)?;
            let bytes = header.encode_prefix();
            assert_eq!(SegmentHeader::decode_prefix(&bytes).map(|(header, _)| header), Ok(header));
            accept_segment_header(&sealed(Structure::SegmentHeader, &changed(bytes.to_vec(), u)?));
        }
        _ => {
            let base = Offset::new(u.int_in_range(0..=1 << 40)?);
            let footer = footer(u, base)?;
            let bytes = footer.encode(base, PLACE);
            let (bytes, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
            assert_eq!(Footer::decode(bytes, base), Ok(footer));
            accept_trailer(&sealed(Structure::Trailer, &changed(trailer.to_vec(), u)?));
            accept_footer(&changed(bytes.to_vec(), u)?, base);
        }
    }
    Ok(())
}

fn changed(mut bytes: Vec<u8>, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    for _ in 0..u8::arbitrary(u)? % 4 {
        let at = u.choose_index(bytes.len())?;
        bytes[at] = u8::arbitrary(u)?;
    }
    Ok(bytes)
}

fn offset(u: &mut Unstructured<'_>) -> Result<Offset> {
    Ok(Offset::new(u.int_in_range(0..=Offset::MAX.get())?))
}

fn time(u: &mut Unstructured<'_>) -> Result<Timestamp> {
    i64::arbitrary(u).map(Timestamp::from_millis)
}

fn identity(u: &mut Unstructured<'_>) -> Result<PartitionIdentity> {
    let topic_id = TopicId::from_bytes(<[u8; 16]>::arbitrary(u)?);
    Ok(PartitionIdentity { topic_id, partition: PartitionId::new(u.int_in_range(0..=i32::MAX as u32)?) })
}

fn plain_header() -> BatchHeader {
    BatchHeader {
        length_bytes: 64,
        body_crc: 0,
        attributes: BatchAttributes::default(),
        compatible_attributes: 0,
        base_offset: Offset::ZERO,
        last_offset_delta: 0,
        record_count: 0,
        base_create_time: Timestamp::default(),
        max_create_time: Timestamp::default(),
        append_time: Timestamp::default(),
        durable_back: 0,
        log_epoch: LogEpoch::default(),
        producer: None,
    }
}

fn batch_header(u: &mut Unstructured<'_>) -> Result<BatchHeader> {
    let attributes = BatchAttributes::from_bits(u8::arbitrary(u)?).unwrap_or_default();
    let has_producer = attributes.has_producer();
    Ok(BatchHeader {
        length_bytes: u.int_in_range(80..=16 << 20)?,
        body_crc: u.arbitrary()?,
        attributes,
        compatible_attributes: u.arbitrary()?,
        base_offset: Offset::new(u.int_in_range(0..=Offset::MAX.get() - (1 << 24))?),
        last_offset_delta: u.int_in_range(0..=(1 << 24) - 1)?,
        record_count: u.int_in_range(0..=1 << 24)?,
        base_create_time: time(u)?,
        max_create_time: time(u)?,
        append_time: time(u)?,
        durable_back: u.arbitrary()?,
        log_epoch: LogEpoch::new(u.arbitrary()?),
        producer: match has_producer {
            true => Some(ProducerExtension {
                producer_id: u.arbitrary()?,
                sequence: u.arbitrary()?,
                producer_epoch: u.arbitrary()?,
            }),
            false => None,
        },
    })
}

fn checkpoint(u: &mut Unstructured<'_>) -> Result<Checkpoint> {
    Ok(Checkpoint {
        identity: identity(u)?,
        sequence: u.int_in_range(1..=u64::MAX)?,
        is_dirty: u.arbitrary()?,
        epoch: LogEpoch::new(u.arbitrary()?),
        log_start: offset(u)?,
        durable: offset(u)?,
        scan_base: offset(u)?,
        scan_position: FilePosition::new(u.arbitrary()?),
        scan_offset: offset(u)?,
        latest_append_time: time(u)?,
        segment_names_crc: u.arbitrary()?,
        generation: u.arbitrary()?,
    })
}

fn segment_header(u: &mut Unstructured<'_>) -> Result<SegmentHeader> {
    Ok(SegmentHeader {
        identity: identity(u)?,
        epoch: LogEpoch::new(u.arbitrary()?),
        epoch_start: offset(u)?,
        salt: u.arbitrary()?,
        created: time(u)?,
        compacted: match u.arbitrary()? {
            false => None,
            true => Some(Compacted {
                end: offset(u)?,
                cleaned_end: offset(u)?,
                // The greatest stands for none.
                next_horizon: Some(time(u)?).filter(|horizon| *horizon != Timestamp::from_millis(i64::MAX)),
            }),
        },
    })
}

fn footer(u: &mut Unstructured<'_>, base: Offset) -> Result<Footer> {
    let batch_count = u.arbitrary()?;
    let times =
        TimeBounds { min_create: time(u)?, max_create: time(u)?, min_append: time(u)?, max_append: time(u)? };
    let mut summary = SegmentSummary {
        first_offset: base,
        next_offset: Offset::new(u.int_in_range(base.get()..=Offset::MAX.get())?),
        times: (batch_count > 0).then_some(times),
        batch_count,
        record_count: u.arbitrary()?,
        ..SegmentSummary::default()
    };
    for _ in 0..u8::arbitrary(u)? % 4 {
        summary.epochs.push(EpochStart { epoch: LogEpoch::new(u.arbitrary()?), start: offset(u)? });
    }
    for _ in 0..u8::arbitrary(u)? % 4 {
        summary.index.push(IndexEntry {
            offset: Offset::new(base.get() + u64::from(u32::arbitrary(u)?)),
            position: FilePosition::new(u32::arbitrary(u)?.into()),
            append_time: time(u)?,
        });
    }
    let (mut producers, mut aborted) = (Vec::new(), Vec::new());
    for _ in 0..u8::arbitrary(u)? % 4 {
        producers.push(ProducerState {
            producer_id: u.arbitrary()?,
            producer_epoch: u.arbitrary()?,
            last_sequence: u.arbitrary()?,
            last_offset: offset(u)?,
            last_time: time(u)?,
        });
    }
    for _ in 0..u8::arbitrary(u)? % 4 {
        aborted.push(OffsetRange { start: offset(u)?, end: offset(u)? });
    }
    Ok(Footer { summary, producers, aborted })
}
