//! What was promised about a log, and whether what a crash left keeps it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Durability, Error, FetchIsolation, FetchLimits, Log, LogEpoch, LogOptions, ManualClock, NewRecord,
    PartitionId, PartitionIdentity, RecoveryOutcome, Timestamp, TopicId, WhenFull,
};

pub const DIRECTORY: &str = "/log";

/// How long tombstones stay, in milliseconds, where logs are compacted.
pub const DELETE_RETENTION_MS: u64 = 1_000;

/// A small deterministic source of choices (xorshift64*; Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled", ACM TOMS 2016).
pub struct Choices(u64);

impl Choices {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }
}

/// A record that was appended.
#[derive(Clone, Debug, Default, Hash)]
pub struct Entry {
    pub key: Vec<u8>,
    /// `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// A compaction may have removed it in favour of a later one of its key.
    may_be_superseded: bool,
    /// That later one was truncated since.
    is_orphaned: bool,
    /// When a compaction that may have kept it as a tombstone was begun first.
    kept_at: Option<i64>,
    /// A compaction may have removed it as a tombstone whose time was over.
    may_be_deleted: bool,
    /// It was found to be removed: it must not come back.
    is_gone: bool,
}

impl Entry {
    pub fn new(key: Vec<u8>, value: Option<Vec<u8>>) -> Self {
        Self { key, value, ..Self::default() }
    }
}

/// A record as it is read: its offset, key and value.
pub type Found = (u64, Vec<u8>, Option<Vec<u8>>);

/// One history that may be found, and how much of it must be.
#[derive(Clone, Debug, Default, Hash)]
pub struct History {
    /// From offset 0 on, whatever the log start.
    pub content: Vec<Entry>,
    /// What must be there after a power cut, and after the death of the process alone.
    pub durable: usize,
    pub written: usize,
}

impl History {
    /// What is left of it when it is cut there.
    pub fn cut_at(&self, end: usize) -> Self {
        let mut cut = self.clone();
        cut.content.truncate(end);
        cut.durable = cut.durable.min(end);
        cut.written = cut.written.min(end);
        cut
    }

    /// What a truncation leaves of it.
    pub fn truncated_at(&self, end: usize) -> Self {
        let mut cut = self.cut_at(end);
        for offset in 0..cut.content.len() {
            cut.content[offset].is_orphaned |=
                cut.content[offset].may_be_superseded && !cut.is_superseded(offset, end);
        }
        cut
    }

    /// Whether there is a later record of its key, below `end`.
    fn is_superseded(&self, offset: usize, end: usize) -> bool {
        let key = &self.content[offset].key;
        self.content[offset + 1..end.min(self.content.len())].iter().any(|later| later.key == *key)
    }

    /// Notes that a compaction begins now.
    pub fn begin_compaction(&mut self, now: i64) {
        let end = self.content.len();
        for offset in 0..end {
            let is_superseded = self.is_superseded(offset, end);
            let entry = &mut self.content[offset];
            entry.may_be_superseded |= is_superseded;
            if entry.value.is_none() {
                let is_over = entry.kept_at.is_some_and(|kept| now - kept >= DELETE_RETENTION_MS as i64);
                entry.may_be_deleted |= is_over;
                entry.kept_at.get_or_insert(now);
            }
        }
    }

    /// Compares what was found from `start` to `end` with what was appended.
    pub fn compare(&self, start: usize, end: usize, found: &[Found]) -> Result<(), String> {
        let mut rest = found.iter().peekable();
        for (offset, entry) in self.content.iter().enumerate().take(end).skip(start) {
            if let Some((_, key, value)) = rest.next_if(|found| found.0 == offset as u64) {
                if (key, value) != (&entry.key, &entry.value) || entry.is_gone {
                    return Err(format!("K3: offset {offset} is not what was appended, or is back"));
                }
                continue;
            }
            let may_be_gone = entry.is_gone
                || entry.is_orphaned
                || entry.may_be_superseded && self.is_superseded(offset, end);
            if !may_be_gone && !entry.may_be_deleted {
                return Err(format!(
                    "P2/K4: offset {offset} is missing, and is the last of its key: {entry:?}"
                ));
            }
            let is_older = |older: &&Found| older.0 < offset as u64 && older.1 == entry.key;
            if !may_be_gone && let Some(older) = found.iter().find(is_older) {
                return Err(format!("K5: the tombstone at {offset} is gone, and {} is there", older.0));
            }
        }
        match rest.next() {
            None => Ok(()),
            Some(extra) => Err(format!("P2: {extra:?} was not appended between {start} and {end}")),
        }
    }

    /// Notes what was found from `start` on: that is so from now on.
    pub fn settle(&mut self, start: usize, found: &[Found]) {
        let is_there = |offset: usize| found.binary_search_by_key(&(offset as u64), |found| found.0).is_ok();
        for (offset, entry) in self.content.iter_mut().enumerate().skip(start) {
            let is_there = is_there(offset);
            entry.is_gone = !is_there;
            entry.may_be_superseded &= !is_there;
            entry.may_be_deleted &= !is_there;
        }
    }

    pub fn promise(&mut self, durability: Durability, end: usize) {
        if durability >= Durability::Written {
            self.written = self.written.max(end);
        }
        if durability >= Durability::Durable {
            self.durable = self.durable.max(end);
        }
    }

    pub fn promise_all(&mut self) {
        self.promise(Durability::Durable, self.content.len());
    }
}

/// What was promised so far.
#[derive(Clone, Debug, Hash)]
pub struct Oracle {
    /// More than one while a truncation is under way.
    pub histories: Vec<History>,
    pub log_starts: Vec<u64>,
    /// The epoch in which `visible` was shown to readers.
    pub epoch: u32,
    pub visible: usize,
    /// Whether readers are shown only what is durable.
    pub is_durable: bool,
}

impl Default for Oracle {
    fn default() -> Self {
        Self {
            histories: vec![History::default()],
            log_starts: vec![0],
            epoch: 0,
            visible: 0,
            is_durable: false,
        }
    }
}

impl Oracle {
    /// Compares an opened log with what was promised. Returns what is promised from then on: just what was found.
    pub fn check(&self, log: &Log, is_power_cut: bool) -> Result<Oracle, String> {
        let report = log.recovery_report();
        if report.outcome == RecoveryOutcome::Corrupt {
            return Err(format!("P3: taken for damage: {:?}", report.corruption));
        }
        let (start, end) = (log.log_start_offset().get(), log.log_end_offset().get() as usize);
        if !self.log_starts.contains(&start) {
            return Err(format!("log start {start} was never set: {:?}", self.log_starts));
        }
        let found = read_records(log, end as u64)?;
        let mut differences = Vec::new();
        let is_allowed = |history: &&History| {
            let least = if is_power_cut { history.durable } else { history.written };
            let is_long_enough = end >= least && end <= history.content.len() && start as usize <= end;
            let compared = history.compare(start as usize, end, &found);
            differences.extend(compared.as_ref().err().cloned());
            is_long_enough && compared.is_ok()
        };
        let Some(history) = self.histories.iter().find(is_allowed) else {
            let promised: Vec<_> =
                self.histories.iter().map(|h| (h.durable, h.written, h.content.len())).collect();
            return Err(format!(
                "P1/P2: offsets {start} to {end} found; (durable, written, appended): {promised:?}; {differences:?}"
            ));
        };
        // After a truncation that was under way, what is left was not shown as it is now.
        let is_shown = self.is_durable && self.histories.len() == 1;
        if is_shown && end < self.visible {
            return Err(format!("P1: readers were shown {} offsets, and {end} are left", self.visible));
        }
        if end < self.visible && log.epoch().get() <= self.epoch {
            return Err(format!(
                "P6: {} was visible, {end} is the end, the epoch is still {}",
                self.visible,
                log.epoch()
            ));
        }
        if end < self.visible && log.epoch_end(LogEpoch::new(self.epoch)).unwrap().get() as usize > end {
            return Err("P6: a lost position still looks valid".to_owned());
        }
        let mut history = history.cut_at(end);
        history.settle(start as usize, &found);
        history.promise_all();
        let (log_starts, epoch, visible) = (vec![start], self.epoch, self.visible);
        let is_durable = is_shown && end >= self.visible;
        Ok(Oracle { histories: vec![history], log_starts, epoch, visible, is_durable })
    }
}

pub fn options(durability: Durability, clock: &Arc<ManualClock>) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([5; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 4096;
    options.config.staging_bytes = 4096;
    options.config.durability = durability;
    options.clock = clock.clone();
    options
}

/// Opens the log, or makes one where there is none yet.
pub fn open(disk: &SimDisk, options: LogOptions) -> Result<Log, Error> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let names = match storage.list_directory(DIRECTORY.as_ref()) {
        Err(error) if error.is_not_found() => Vec::new(),
        listed => listed?,
    };
    let has_segment = names.iter().any(|entry| entry.name.to_string_lossy().ends_with(".log"));
    if has_segment {
        Log::open(storage, DIRECTORY.as_ref(), options)
    } else {
        Log::create(storage, DIRECTORY.as_ref(), options)
    }
}

/// The values from the log start to `end`.
pub fn read_to(log: &Log, end: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut from = log.log_start_offset();
    let mut all = Vec::new();
    while from.get() < end {
        let fetched = log
            .fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None)
            .map_err(|error| format!("cannot read at {from}: {error}"))?;
        for record in fetched.iter() {
            assert_eq!(record.offset().get(), log.log_start_offset().get() + all.len() as u64);
            all.push(record.value().unwrap().to_vec());
        }
        if fetched.next_offset() <= from {
            return Err(format!("a fetch at {from} below the end {end} does not move on"));
        }
        from = fetched.next_offset();
    }
    Ok(all)
}

/// The records from the log start to `end`. Compaction may have removed some.
pub fn read_records(log: &Log, end: u64) -> Result<Vec<Found>, String> {
    let mut from = log.log_start_offset();
    let mut all: Vec<Found> = Vec::new();
    while from.get() < end {
        let fetched = log
            .fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None)
            .map_err(|error| format!("cannot read at {from}: {error}"))?;
        for record in fetched.iter() {
            let offset = record.offset().get();
            assert!(offset >= from.get() && all.last().is_none_or(|last| last.0 < offset), "offsets rise");
            let key = record.key().unwrap_or_default().to_vec();
            all.push((offset, key, record.value().map(<[u8]>::to_vec)));
        }
        if fetched.next_offset() <= from {
            return Err(format!("a fetch at {from} below the end {end} does not move on"));
        }
        from = fetched.next_offset();
    }
    Ok(all)
}

/// Which of `pending` effects survive, one way after the other.
pub fn survivals(pending: usize, choices: &mut Choices, random: usize) -> Vec<Vec<bool>> {
    let mut ways = vec![vec![false; pending], vec![true; pending]];
    for index in 0..pending {
        ways.push((0..pending).map(|at| at == index).collect());
        ways.push((0..pending).map(|at| at != index).collect());
    }
    for _ in 0..random {
        ways.push((0..pending).map(|_| choices.below(2) == 0).collect());
    }
    ways
}

/// What an open may find, and do about it, after a crash alone.
const RULES: [&str; 7] = [
    "closed in order",
    "only zeros behind the end",
    "a torn tail kept in quarantine",
    "records above the durable mark copied",
    "a checkpoint made anew",
    "temporary files removed",
    "superseded segments removed",
];

/// The states that a search has been to.
#[derive(Debug, Default)]
pub struct Search {
    /// Each state with its promises, and to which depth the recoveries from it were interrupted. The image alone will
    /// not do: what a lost acknowledgement leaves looks just like the state before it was given.
    seen: HashMap<u64, u32>,
    images: HashSet<u64>,
    /// How often each thing was found, and each rule of recovery followed.
    found: BTreeMap<&'static str, u64>,
}

impl Search {
    /// How many different states, each a disk and what was promised about it.
    pub fn states(&self) -> usize {
        self.seen.len()
    }

    /// How many different disks.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// How often each rule of recovery was followed. A rule that no state calls for is not tested.
    ///
    /// # Panics
    ///
    /// If there is such a rule.
    pub fn rules(&self) -> String {
        let counts = RULES.iter().map(|rule| {
            let count = self.found.get(rule).copied().unwrap_or(0);
            assert_ne!(count, 0, "never found: {rule}");
            format!("{count} {rule}")
        });
        counts.collect::<Vec<_>>().join(", ")
    }

    fn count(&mut self, log: &Log) {
        let report = log.recovery_report();
        let is_segment =
            |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let found = [
            report.outcome == RecoveryOutcome::Clean,
            report.outcome == RecoveryOutcome::Recovered && report.torn_tail.is_none(),
            report.torn_tail.is_some(),
            report.durable_mark < report.log_end_offset,
            report.was_checkpoint_rebuilt,
            report.removed_files.iter().any(|path| !is_segment(path)),
            report.removed_files.iter().any(is_segment),
        ];
        for (rule, _) in RULES.iter().zip(found).filter(|(_, is_found)| *is_found) {
            *self.found.entry(rule).or_default() += 1;
        }
    }

    fn is_new(&mut self, disk: &SimDisk, oracle: &Oracle, is_power_cut: bool, depth: u32) -> bool {
        let mut hasher = DefaultHasher::new();
        let image = disk.content_hash();
        self.images.insert(image);
        (image, oracle, is_power_cut).hash(&mut hasher);
        let before = self.seen.insert(hasher.finish(), depth);
        if let Some(before) = before.filter(|before| *before >= depth) {
            self.seen.insert(hasher.finish(), before);
            return false;
        }
        true
    }

    /// Opens what a crash left, checks it, appends to it, and opens it again. Also cuts the power within the recovery, and
    /// within the recovery from that, `depth` times.
    pub fn examine(
        &mut self,
        disk: &SimDisk,
        oracle: &Oracle,
        is_power_cut: bool,
        choices: &mut Choices,
        depth: u32,
    ) -> Result<(), String> {
        if !self.is_new(disk, oracle, is_power_cut, depth) {
            return Ok(());
        }
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(9_000)));
        let options = || options(Durability::Durable, &clock);
        let restarted = disk.crash(|_, _| true);
        let before = disk.operation_count();
        let log = open(disk, options()).map_err(|error| format!("cannot open: {error}"))?;
        self.count(&log);
        let steps = disk.operation_count() - before;
        let found = oracle.check(&log, is_power_cut)?;
        // Interrupted as often as may be, it ends with the same content.
        for _ in 0..if steps > 1 { 2 * depth } else { 0 } {
            let interrupted = restarted.crash(|_, _| true);
            interrupted.cut_power_after(choices.below(steps));
            drop(open(&interrupted, options()));
            for way in 0..3 {
                let again = interrupted.crash(|_, _| way == 0 || way == 1 && choices.below(2) == 0);
                self.examine(&again, &found, true, choices, depth - 1).map_err(|error| {
                    let trace = interrupted.latest_operations().join("\n    ");
                    format!("after a crash within recovery: {error}\n    {trace}\n ")
                })?;
            }
        }
        let end = log.log_end_offset();
        let appended = log.append(&[NewRecord::new(b"after")], None, WhenFull::Wait).and_then(|r| r.wait());
        match appended {
            Ok(appended) if appended.offsets.start == end => {}
            other => return Err(format!("an append after recovery gave {other:?}")),
        }
        let content = read_records(&log, end.get() + 1)?;
        let lost = disk.crash(|_, _| false);
        drop(log);
        let log = open(&lost, options()).map_err(|error| format!("cannot open again: {error}"))?;
        if read_records(&log, log.log_end_offset().get())? != content {
            return Err("a durable append after recovery is lost by the next power cut".to_owned());
        }
        Ok(())
    }
}
