//! What the tests share: group stores on simulated disks, and a look at what is in them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tailwater_groups::{Commit, Committed, Error, GroupId, GroupKind, GroupStore, Position};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Clock, Error as LogError, Log, LogEpoch, LogOptions, ManualClock, Offset, PartitionId, PartitionIdentity,
    Timestamp, TopicId,
};

pub const DIRECTORY: &str = "/__groups-0";

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

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)))
}

/// Tiny segments, so that a few dozen commits roll.
pub fn log_options() -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([0; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 4096;
    options.config.staging_bytes = 4096;
    options.clock = clock();
    options
}

/// Opens the log, or makes it.
pub fn open_log(disk: &SimDisk) -> Result<Log, LogError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let names = storage.list_directory(DIRECTORY.as_ref()).unwrap_or_default();
    let has_segment = names.iter().any(|entry| entry.name.to_string_lossy().ends_with(".log"));
    if has_segment {
        Log::open(storage, DIRECTORY.as_ref(), log_options())
    } else {
        Log::create(storage, DIRECTORY.as_ref(), log_options())
    }
}

pub fn open(disk: &SimDisk) -> Result<GroupStore, Error> {
    GroupStore::open(open_log(disk)?, clock())
}

pub fn attach(disk: &SimDisk) -> Result<GroupStore, Error> {
    let log = Log::attach_read_only(Arc::new(disk.clone()), DIRECTORY.as_ref(), log_options())?;
    GroupStore::open(log, clock())
}

/// A store on a disk of its own.
pub fn new_store() -> (SimDisk, GroupStore) {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    (disk, store)
}

pub fn group(name: &str) -> GroupId {
    GroupId::try_new(name).unwrap()
}

pub fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

pub fn partition(topic_number: u8, partition: u32) -> PartitionIdentity {
    PartitionIdentity { topic_id: topic(topic_number), partition: PartitionId::new(partition) }
}

pub fn position(offset: u64) -> Position {
    Position { offset: Offset::new(offset), epoch: LogEpoch::FIRST }
}

pub fn commit(at: PartitionIdentity, offset: u64) -> Commit<'static> {
    Commit::new(at, position(offset))
}

/// The committed offset.
pub fn offset_of(store: &GroupStore, group: &GroupId, at: PartitionIdentity) -> Option<u64> {
    store.committed(group, at).map(|committed: Committed| committed.position.offset.get())
}

/// The committed offsets of a group, by topic number and partition.
pub type Offsets = BTreeMap<(u8, u32), u64>;

/// Everything that counts: the registered groups and their committed offsets.
pub type State = BTreeMap<String, (GroupKind, Offsets)>;

pub fn state_of(store: &GroupStore) -> State {
    let registered = store.groups().into_iter().filter(|listing| listing.is_registered);
    registered
        .map(|listing| {
            let positions = store.positions(&listing.id).unwrap();
            assert_eq!(positions.len() as u64, listing.position_count);
            let offsets = positions.iter().map(|(at, committed)| {
                let key = (at.topic_id.as_bytes()[0], at.partition.get());
                let metadata = committed.metadata.as_ref();
                assert!(metadata.is_empty() || metadata == metadata_of(committed.position.offset.get()));
                (key, committed.position.offset.get())
            });
            (listing.id.to_string(), (listing.kind, offsets.collect()))
        })
        .collect()
}

/// Metadata that belongs to an offset.
pub fn metadata_of(offset: u64) -> String {
    "m".repeat(usize::try_from(offset % 100).unwrap())
}

/// Which of `pending` effects survive, one way after the other: none, all, each alone, all but each, and some more.
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

/// A clock that can hold up whoever asks it, as a slow disk would: the store asks while it appends.
#[derive(Debug, Default)]
pub struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    asked: AtomicUsize,
}

impl Gate {
    pub fn set_shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.opened.notify_all();
    }
}

impl Gate {
    /// Waits until it was asked so many times in all.
    pub fn wait_until_asked(&self, times: usize) {
        while self.asked.load(Ordering::SeqCst) < times {
            std::thread::yield_now();
        }
    }
}

impl Clock for Gate {
    fn now(&self) -> Timestamp {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let open = self.opened.wait_while(self.is_shut.lock().unwrap(), |is_shut| *is_shut).unwrap();
        drop(open);
        Timestamp::from_millis(1)
    }
}
