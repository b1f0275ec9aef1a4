//! A directory of files with any names and any contents, opened as a log: no panic, no hang, every record that is handed
//! out verifies, and a second open finds what the first did.
//!
//! Most contents are built from the structures of the format, under right checksums: else nothing would be looked into.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use tailwater_log::format::{
    BatchAttributes, BatchHeader, BatchPlace, Checkpoint, Compacted, Footer, RecordFields,
    SEGMENT_DATA_START, SegmentHeader, SegmentSummary, aligned, check_body, encode, segment_names_checksum,
};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Error, FetchIsolation, FetchLimits, FilePosition, Log, LogEpoch, LogOptions, ManualClock, NewRecord,
    Offset, OffsetRange, PartitionId, PartitionIdentity, RecoveryOutcome, Timestamp, TopicId, WhenFull,
};

const DIRECTORY: &str = "/log";
const MAX_FILES: usize = 8;
const EXTRA: &[u8] = b"extra";
/// A repair says of each offset that is lost that it is: of a file named after a distant one, for long.
const MAX_REPAIRED_OFFSETS: u64 = 1 << 32;

/// The files, in the order in which they are made: a segment can follow the one before it.
pub(crate) fn run(data: &[u8]) {
    let Ok(files) = <Vec<File>>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let disk = SimDisk::new(1);
    disk.create_directory(DIRECTORY.as_ref()).unwrap();
    let mut built = Built::default();
    for file in files.iter().take(MAX_FILES) {
        let name = built.name(&file.name);
        let path = Path::new(DIRECTORY).join(&name);
        let bytes = built.content(&file.content);
        // A name that is taken by a directory, or that cannot be one.
        let _ = match file.content {
            Content::Directory => disk.create_directory(&path),
            _ => disk.write_file(&path, &bytes),
        };
    }
    attach(&disk);
    if built.greatest < MAX_REPAIRED_OFFSETS {
        repair(&disk.crash(|_, _| true));
    }
    open(&disk);
}

/// Attaching reads, and changes nothing.
fn attach(disk: &SimDisk) {
    let before = disk.content_hash();
    if let Ok(log) = Log::attach_read_only(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()) {
        read(&log);
    }
    assert_eq!(disk.content_hash(), before, "attaching changes nothing");
}

fn open(disk: &SimDisk) {
    let open = || Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options());
    let log = match open() {
        Ok(log) => log,
        Err(error) => {
            let again = open().expect_err("what could not be opened cannot be opened again").to_string();
            assert_eq!(again, error.to_string());
            return;
        }
    };
    let found = read(&log);
    let _ = log.verify(&mut |_| {});
    let _ = log.stats();
    let end = log.log_end_offset();
    let is_corrupt = log.recovery_report().outcome == RecoveryOutcome::Corrupt;
    let appended = append_extra(&log);
    assert!(appended.is_err() || !is_corrupt, "a damaged log takes no appends");
    let mut expected = found;
    if let Ok(offset) = &appended {
        assert_eq!(*offset, end);
    }
    // Behind what this build cannot read nothing is read.
    if appended.is_ok() && !matches!(expected.last(), Some(Found::Other(_))) {
        expected.push(Found::Record(end.get(), log.epoch(), None, Some(EXTRA.to_vec())));
    }
    let closed = log.close();
    assert!(closed.is_ok() || is_corrupt, "{closed:?}");
    drop(log);
    let log = open().expect("what was just used can be opened");
    assert_eq!(log.recovery_report().outcome == RecoveryOutcome::Corrupt, is_corrupt);
    assert_eq!(read(&log), expected, "the second open is not equal to the first");
}

/// A repair leaves a log that can be used, or says why it cannot.
fn repair(disk: &SimDisk) {
    if Log::repair(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()).is_err() {
        return;
    }
    let Ok(log) = Log::open(Arc::new(disk.clone()), DIRECTORY.as_ref(), options()) else { return };
    read(&log);
}

fn append_extra(log: &Log) -> Result<Offset, Error> {
    let receipt = log.append(&[NewRecord::new(EXTRA)], None, WhenFull::Wait)?;
    receipt.wait().map(|appended| appended.offsets.start)
}

/// What a reader is given, or told.
#[derive(PartialEq, Eq, Debug)]
enum Found {
    Record(u64, LogEpoch, Option<Vec<u8>>, Option<Vec<u8>>),
    Opaque(OffsetRange),
    Lost(OffsetRange),
    Corrupt(OffsetRange),
    Other(String),
}

fn read(log: &Log) -> Vec<Found> {
    let mut all = Vec::new();
    let mut from = log.log_start_offset();
    let end = log.log_end_offset();
    while from < end {
        match log.fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None) {
            Ok(fetched) => {
                all.extend(fetched.lost().map(Found::Lost));
                for batch in fetched.batches() {
                    check_body(batch.header(), batch.body())
                        .expect("the checksum of what is handed out is right");
                    if batch.header().attributes.is_opaque() {
                        all.push(Found::Opaque(batch.header().offsets()));
                    }
                    for record in batch.records() {
                        let offset = record.offset();
                        // A forged durable mark can lie within a batch, which is then handed out whole.
                        let is_asked_for = offset >= from && batch.header().base_offset < end;
                        assert!(is_asked_for, "{offset} is not in {from} to {end}");
                        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                        let (key, value) = (owned(record.key()), owned(record.value()));
                        all.push(Found::Record(offset.get(), record.epoch(), key, value));
                    }
                }
                assert!(
                    fetched.next_offset() > from,
                    "a fetch at {from} below the end {end} does not move on"
                );
                from = fetched.next_offset();
            }
            Err(Error::Corrupt(found)) => {
                let range = OffsetRange { start: from, end: found.offsets.end };
                assert!(range.end > from, "damage at {from} ends at {}", range.end);
                from = range.end;
                all.push(Found::Corrupt(range));
            }
            Err(error) => {
                all.push(Found::Other(error.to_string()));
                break;
            }
        }
    }
    all
}

fn options() -> LogOptions {
    let mut options = LogOptions::new(identity());
    options.config.segment_bytes = 4096;
    options.clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    options
}

fn identity() -> PartitionIdentity {
    PartitionIdentity { topic_id: TopicId::from_bytes([3; 16]), partition: PartitionId::ZERO }
}

#[derive(Arbitrary, Debug)]
struct File {
    name: Name,
    content: Content,
}

#[derive(Arbitrary, Debug)]
enum Name {
    /// The segment at the end of what was built before.
    NextSegment,
    Segment(u8),
    SegmentAt(u64),
    Checkpoint,
    Lock,
    Temporary(u8),
    Quarantine,
    InQuarantine(u8),
    AlmostSegment {
        offset: u64,
        digits: u8,
        is_upper: bool,
    },
    Foreign(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Content {
    Segment(SegmentContent),
    Checkpoint(Box<[CheckpointContent; 2]>),
    Bytes(Vec<u8>),
    Directory,
}

#[derive(Arbitrary, Debug)]
struct SegmentContent {
    epoch: u8,
    /// Where the epoch began, before the base offset.
    epoch_start_back: u8,
    is_foreign: bool,
    batches: Vec<BatchContent>,
    footer: Option<FooterContent>,
    tail: Vec<u8>,
    cut: u8,
}

#[derive(Arbitrary, Debug)]
struct BatchContent {
    values: Vec<Option<u8>>,
    skipped_offsets: u8,
    attributes: u8,
    durable_back: u8,
    epoch_step: u8,
    more_offsets: u8,
    is_body_damaged: bool,
    is_record_malformed: bool,
    /// Sets the length in the header, so that the batch ends elsewhere.
    length: Option<u32>,
}

#[derive(Arbitrary, Debug)]
struct FooterContent {
    is_elsewhere: bool,
    next_offset: Option<u8>,
    index_entries: u8,
}

#[derive(Arbitrary, Debug)]
struct CheckpointContent {
    is_damaged: bool,
    sequence: u8,
    is_dirty: bool,
    epoch: u8,
    log_start: u8,
    /// Before the end of what was built, or far behind it.
    durable_back: i8,
    scan_batch: u8,
    scan_position: Option<u64>,
    latest_append_time: i64,
}

/// What was built so far: so that a file can refer to others.
#[derive(Default)]
struct Built {
    /// The greatest base offset in a name, and all of them.
    greatest: u64,
    bases: BTreeSet<u64>,
    base: u64,
    end: u64,
    /// The places of the batches: base of the segment, position, offset.
    places: Vec<(u64, u64, u64)>,
}

impl Built {
    fn name(&mut self, name: &Name) -> OsString {
        let segment = |offset: u64| format!("{offset:020}.log");
        let name = match name {
            Name::NextSegment => segment(self.begin(self.end)),
            Name::Segment(base) => segment(self.begin((*base).into())),
            Name::SegmentAt(base) => segment(self.begin(*base)),
            Name::Checkpoint => "checkpoint".to_owned(),
            Name::Lock => "LOCK".to_owned(),
            Name::Temporary(number) => format!("{number}.tmp"),
            Name::Quarantine => "quarantine".to_owned(),
            Name::InQuarantine(number) => format!("quarantine/{number}.bytes"),
            Name::AlmostSegment { offset, digits, is_upper } => {
                let digits = usize::from(*digits) % 24;
                self.greatest = self.greatest.max(*offset);
                format!("{offset:0digits$}.{}", if *is_upper { "LOG" } else { "log" })
            }
            Name::Foreign(bytes) => return foreign_name(bytes),
        };
        name.into()
    }

    fn begin(&mut self, base: u64) -> u64 {
        self.base = base % (Offset::MAX.get() - (1 << 32));
        self.greatest = self.greatest.max(self.base);
        self.bases.insert(self.base);
        self.base
    }

    fn content(&mut self, content: &Content) -> Vec<u8> {
        match content {
            Content::Segment(segment) => self.segment(segment),
            Content::Checkpoint(slots) => slots.iter().flat_map(|slot| self.checkpoint(slot)).collect(),
            Content::Bytes(bytes) => bytes.clone(),
            Content::Directory => Vec::new(),
        }
    }

    fn segment(&mut self, content: &SegmentContent) -> Vec<u8> {
        let mut identity = identity();
        if content.is_foreign {
            identity.partition = PartitionId::new(1);
        }
        let base = Offset::new(self.base);
        // Where the epoch is said to have begun far below, compaction is said to have made it.
        let compacted = (content.epoch_start_back > 127).then(|| Compacted {
            end: Offset::new(self.base + u64::from(content.epoch_start_back - 127)),
            cleaned_end: Offset::new(self.base),
            next_horizon: None,
        });
        let header = SegmentHeader {
            identity,
            epoch: LogEpoch::new(content.epoch.into()),
            epoch_start: Offset::new(self.base.saturating_sub(content.epoch_start_back.into())),
            salt: 7,
            created: Timestamp::from_millis(5),
            compacted,
        };
        let mut bytes = header.encode_prefix().to_vec();
        let mut summary =
            SegmentSummary { first_offset: base, next_offset: base, ..SegmentSummary::default() };
        self.end = self.base;
        for batch in content.batches.iter().take(16) {
            self.batch(batch, &header, &mut bytes, &mut summary);
        }
        if let Some(footer) = &content.footer {
            put_footer(footer, base, summary, &mut bytes);
        }
        bytes.extend_from_slice(&content.tail);
        bytes.truncate(bytes.len() - usize::from(content.cut) % bytes.len());
        bytes
    }

    fn batch(
        &mut self,
        content: &BatchContent,
        segment: &SegmentHeader,
        bytes: &mut Vec<u8>,
        summary: &mut SegmentSummary,
    ) {
        let position = FilePosition::new(bytes.len() as u64);
        let mut body = Vec::new();
        for (value, delta) in content.values.iter().take(8).zip(0..) {
            let value = value.map(|length| vec![b'v'; length.into()]);
            let fields = RecordFields { key: Some(b"key"), value: value.as_deref(), headers: &[] };
            encode(&fields, 0, delta, &mut body);
        }
        if let Some(last) = body.last_mut().filter(|_| content.is_record_malformed) {
            *last ^= 1;
        }
        let count = content.values.len().min(8) as u32;
        let mut header = BatchHeader {
            length_bytes: 0,
            body_crc: crc32fast::hash(&body) ^ u32::from(content.is_body_damaged),
            // Mostly none: what sets them all is refused at once.
            attributes: match content.attributes {
                0..200 => BatchAttributes::default(),
                200.. => BatchAttributes::from_bits(content.attributes << 3).unwrap_or_default(),
            },
            compatible_attributes: 0,
            base_offset: Offset::new(self.end + u64::from(content.skipped_offsets / 16)),
            last_offset_delta: count.saturating_sub(1) + u32::from(content.more_offsets / 16),
            record_count: count,
            base_create_time: Timestamp::from_millis(3),
            max_create_time: Timestamp::from_millis(3),
            append_time: Timestamp::from_millis(4),
            durable_back: content.durable_back.into(),
            log_epoch: LogEpoch::new(segment.epoch.get().saturating_sub(u32::from(content.epoch_step / 64))),
            producer: None,
        };
        header.length_bytes =
            content.length.unwrap_or((header.header_bytes() + body.len()) as u32).clamp(80, 16 << 20);
        let place = BatchPlace { salt: segment.salt, position };
        let mut encoded = vec![0; header.header_bytes()];
        header.encode(place, &mut encoded);
        bytes.extend_from_slice(&encoded);
        bytes.extend_from_slice(&body);
        bytes.resize(aligned(bytes.len() as u64) as usize, 0);
        summary.add_batch(&header, position);
        self.places.push((self.base, position.get(), header.base_offset.get()));
        self.end = header.next_offset().get();
    }

    fn checkpoint(&self, content: &CheckpointContent) -> [u8; 512] {
        let behind = (self.base, SEGMENT_DATA_START.get(), self.base);
        let index = usize::from(content.scan_batch) % (self.places.len() + 1);
        let (base, position, offset) = self.places.get(index).copied().unwrap_or(behind);
        let checkpoint = Checkpoint {
            identity: identity(),
            sequence: u64::from(content.sequence) + 1,
            is_dirty: content.is_dirty,
            epoch: LogEpoch::new(content.epoch.into()),
            log_start: Offset::new(content.log_start.into()),
            durable: Offset::new(self.end.saturating_add_signed(-i64::from(content.durable_back))),
            scan_base: Offset::new(base),
            scan_position: FilePosition::new(content.scan_position.unwrap_or(position)),
            scan_offset: Offset::new(offset),
            latest_append_time: Timestamp::from_millis(content.latest_append_time),
            // Mostly what was built, so that clean marks are believed.
            segment_names_crc: segment_names_checksum(self.bases.iter().copied().map(Offset::new)),
            generation: 0,
        };
        let mut slot = checkpoint.encode();
        slot[100] ^= u8::from(content.is_damaged);
        slot
    }
}

fn put_footer(content: &FooterContent, base: Offset, mut summary: SegmentSummary, bytes: &mut Vec<u8>) {
    if let Some(count) = content.next_offset {
        summary.next_offset = Offset::new(base.get() + u64::from(count));
    }
    if content.index_entries > 128 {
        summary.index.truncate(usize::from(content.index_entries % 4));
    }
    let position = FilePosition::new(bytes.len() as u64 + 8 * u64::from(content.is_elsewhere));
    let footer = Footer { summary, ..Footer::default() };
    bytes.extend_from_slice(&footer.encode(base, BatchPlace { salt: 7, position }));
}

/// A name of bytes, without those that no name can have.
fn foreign_name(bytes: &[u8]) -> OsString {
    let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| !matches!(byte, 0 | b'/')).take(32).collect();
    match &bytes[..] {
        [] | [b'.'] | [b'.', b'.'] => "foreign".into(),
        bytes => OsStr::from_bytes(bytes).to_owned(),
    }
}
