//! A compacted log on a simulated disk, with a clock that is moved by hand.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    CleanupPolicy, CompactionLimits, CompactionReport, FetchIsolation, FetchLimits, Log, LogConfig,
    LogOptions, ManualClock, NewRecord, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId, WhenFull,
};

pub(crate) const DELETE_RETENTION_MS: u64 = 1_000;

/// A record as a reader sees it: offset, key, value, create time, append time.
pub(crate) type Seen = (u64, Vec<u8>, Option<Vec<u8>>, i64, i64);

pub(crate) struct Fixture {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: LogConfig,
    pub(crate) log: Log,
}

impl Fixture {
    pub(crate) fn new(change: impl FnOnce(&mut LogConfig)) -> Self {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(10_000)));
        let mut config = LogConfig::default();
        config.segment_bytes = 4096;
        config.staging_bytes = 4096;
        config.cleanup_policy = CleanupPolicy::Compact;
        config.delete_retention_ms = DELETE_RETENTION_MS;
        change(&mut config);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let log = Log::create(storage, "/log".as_ref(), options(&config, &clock)).unwrap();
        Self { disk, clock, config, log }
    }

    pub(crate) fn options(&self) -> LogOptions {
        options(&self.config, &self.clock)
    }

    pub(crate) fn put(&self, key: &str, value: Option<&str>) -> u64 {
        let record =
            NewRecord { key: Some(key.as_bytes()), value: value.map(str::as_bytes), ..NewRecord::default() };
        let receipt = self.log.append(&[record], None, WhenFull::Wait).unwrap();
        receipt.wait().unwrap().offsets.start.get()
    }

    /// Has everything appended so far in sealed segments.
    pub(crate) fn seal(&self) {
        self.log.roll().unwrap();
        self.log.sync().unwrap();
    }

    pub(crate) fn compact(&self) -> CompactionReport {
        self.compact_below(Offset::MAX)
    }

    pub(crate) fn compact_below(&self, held: Offset) -> CompactionReport {
        let mut limits = CompactionLimits::default();
        limits.held = held;
        self.log.compact(&limits, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    pub(crate) fn read(&self) -> Vec<Seen> {
        read_all(&self.log)
    }

    /// What a reader from the start finds, without times.
    pub(crate) fn content(&self) -> Vec<(u64, String, Option<String>)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        self.read().into_iter().map(|seen| (seen.0, text(seen.1), seen.2.map(text))).collect()
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .disk
            .list_directory(Path::new("/log"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name.into_string().unwrap())
            .filter(|name| name.ends_with(".log") || name.ends_with(".tmp"))
            .collect();
        names.sort_unstable();
        names
    }
}

pub(crate) fn options(config: &LogConfig, clock: &Arc<ManualClock>) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([6; 16]), partition: PartitionId::ZERO };
    LogOptions { config: config.clone(), clock: clock.clone(), ..LogOptions::new(identity) }
}

/// Reads from the log start to the end, in small steps; every step has to get on.
pub(crate) fn read_all(log: &Log) -> Vec<Seen> {
    let limits = FetchLimits { max_records: 3, max_bytes: 500 };
    let (mut from, mut hint, mut all) = (log.log_start_offset(), None, Vec::new());
    let end = log.visible_end(FetchIsolation::Visible);
    while from < end {
        let fetched = log.fetch(from, limits, FetchIsolation::Visible, hint).unwrap();
        all.extend(fetched.iter().map(|record| {
            (
                record.offset().get(),
                record.key().unwrap_or_default().to_vec(),
                record.value().map(<[u8]>::to_vec),
                record.created_at().as_millis(),
                record.appended_at().as_millis(),
            )
        }));
        assert!(fetched.next_offset() > from, "a fetch at {from} does not get on");
        (from, hint) = (fetched.next_offset(), fetched.hint());
    }
    assert_eq!(from, end);
    all
}
