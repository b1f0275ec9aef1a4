//! What the tests of damage and repair share: a directory with something of everything in it, and all that is in one.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tailwater::storage::{SimDisk, Storage};
use tailwater::{
    Broker, BrokerOptions, CatalogRepair, Error, Event, Maintenance, ManualClock, Message, Offset,
    PartitionId, RepairReport, SeekTo, Timestamp, TopicConfig, TopicId, TopicPartition,
};
use tailwater_log::{Log, LogOptions, SegmentInspection};

use crate::common::{DATA, partition};

pub(crate) type Positions = BTreeMap<String, BTreeMap<TopicPartition, u64>>;

/// Opens without threads, at a time that stands still.
pub(crate) fn open(disk: &SimDisk) -> tailwater::Result<Broker> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(9_000)));
    let options = BrokerOptions::new().maintenance(Maintenance::Manual).clock(clock).create(false);
    options.open_on(Arc::new(disk.clone()), DATA)
}

pub(crate) fn repair_catalog(disk: &SimDisk) -> tailwater::Result<CatalogRepair> {
    Broker::repair_catalog_on(Arc::new(disk.clone()), DATA)
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

pub(crate) fn groups_log() -> TopicPartition {
    partition("__groups", 0)
}

/// Topics, records and positions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<String, (TopicId, u32)>,
    pub(crate) records: BTreeMap<TopicPartition, BTreeMap<u64, String>>,
    pub(crate) positions: Positions,
}

/// What a reader gets of a partition.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) records: BTreeMap<u64, String>,
    /// Offsets that damage, or a gap, was told of.
    pub(crate) lost: Vec<std::ops::Range<u64>>,
    /// The files that were named as damaged.
    pub(crate) damaged: Vec<PathBuf>,
}

/// A directory that was closed in order: `orders-0` of several sealed segments and an active one, `orders-1` and `mails-0`
/// of one segment each, `spare-0` without records, and a log of two groups.
pub(crate) fn reference() -> SimDisk {
    reference_with_history(true).0
}

/// The same, or as a process leaves it that is killed with everything synced; and all positions that there ever were.
pub(crate) fn reference_with_history(is_closed: bool) -> (SimDisk, Vec<Positions>) {
    let disk = SimDisk::new(7);
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let options = BrokerOptions::new().maintenance(Maintenance::Manual).clock(clock.clone());
    let broker = options.open_on(Arc::new(disk.clone()), DATA).unwrap();
    let small = TopicConfig::new().segment_bytes(4096).max_batch_bytes(2048).staging_bytes(4096);
    broker.create_topic("orders", &small.clone().partitions(2)).unwrap();
    broker.create_topic("mails", &small).unwrap();
    broker.create_topic("spare", &TopicConfig::new()).unwrap();
    let publish = |topic: &str, number: u32, count: u64| {
        let producer = broker.producer(topic).unwrap();
        for n in 0..count {
            let text = format!("{topic}-{number}/{n}:{}", "r".repeat(330));
            producer.publish(Message::new(text.as_bytes()).partition(PartitionId::new(number))).unwrap();
        }
    };
    publish("orders", 0, 24);
    publish("orders", 1, 3);
    publish("mails", 0, 2);
    let mut history = vec![Positions::new()];
    let mut billing = broker.consumer("billing").max_records(5).subscribe(&["orders"]).unwrap();
    history.push(positions(&broker).unwrap());
    for _ in 0..3 {
        billing.poll(Duration::ZERO).unwrap();
        billing.commit().wait().unwrap();
        history.push(positions(&broker).unwrap());
    }
    billing.close().unwrap();
    broker.create_group("shipping", &["mails"], tailwater::Reset::Latest).unwrap();
    history.push(positions(&broker).unwrap());
    clock.advance_ms(60);
    broker.run_maintenance_once().unwrap();
    if is_closed {
        broker.close().unwrap();
    }
    let disk = disk.crash(|_, _| true);
    let is_of_orders = |file: &PathBuf| is_segment(file) && file.starts_with(path("orders-0"));
    assert!(disk.file_paths().iter().filter(|file| is_of_orders(file)).count() >= 3);
    (disk, history)
}

pub(crate) fn is_segment(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "log")
}

/// Everything that is in the reference, as it has to be found.
pub(crate) fn truth(disk: &SimDisk) -> State {
    let state = whole(&open(&disk.crash(|_, _| true)).unwrap()).unwrap();
    assert_eq!(state.records[&partition("orders", 0)].len(), 24);
    assert_eq!(state.positions.len(), 2);
    assert!(state.positions["billing"].values().all(|offset| *offset > 0), "{:?}", state.positions);
    state
}

pub(crate) fn topics(broker: &Broker) -> BTreeMap<String, (TopicId, u32)> {
    let names = broker.topics().unwrap();
    let described = names.into_iter().map(|name| {
        let topic = broker.describe_topic(&name).unwrap();
        (name, (topic.id, topic.partition_count))
    });
    described.collect()
}

pub(crate) fn places(topics: &BTreeMap<String, (TopicId, u32)>) -> Vec<TopicPartition> {
    let of = |(name, (_, count)): (&String, &(TopicId, u32))| {
        (0..*count).map(|number| partition(name, number)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}

pub(crate) fn positions(broker: &Broker) -> tailwater::Result<Positions> {
    let mut found = Positions::new();
    for group in broker.groups()? {
        let described = broker.describe_group(&group.id)?;
        let positions = described.positions.into_iter();
        found.insert(group.id, positions.map(|at| (at.partition, at.committed.offset.get())).collect());
    }
    Ok(found)
}

/// Reads a partition from its start to its end, past whatever is damaged.
pub(crate) fn read(broker: &Broker, at: &TopicPartition) -> tailwater::Result<Read> {
    let mut reader = broker.reader().assign(std::slice::from_ref(at))?;
    let mut found = Read::default();
    loop {
        match reader.poll(Duration::ZERO) {
            Ok(records) if records.is_empty() && records.events().is_empty() => return Ok(found),
            Ok(records) => {
                for event in records.events() {
                    let Event::Gap { from, to, .. } = event else { panic!("{at}: {event:?}") };
                    found.lost.push(from.get()..to.get());
                }
                for record in records.iter() {
                    let value = String::from_utf8_lossy(record.value().unwrap()).into_owned();
                    assert_eq!(found.records.insert(record.offset().get(), value), None, "{at}: twice");
                }
            }
            Err(Error::Corrupt(corruption)) => {
                let start = reader.position(at)?.offset;
                found.damaged.push(corruption.file.clone());
                if corruption.offsets.end <= start {
                    return Ok(found);
                }
                found.lost.push(start.get()..corruption.offsets.end.get());
                reader.seek(at, SeekTo::Offset(corruption.offsets.end))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// All that is in a directory without damage.
pub(crate) fn whole(broker: &Broker) -> Result<State, String> {
    let topics = topics(broker);
    let mut records = BTreeMap::new();
    for at in places(&topics) {
        let found = read(broker, &at).map_err(|error| format!("{at} cannot be read: {error}"))?;
        if !found.lost.is_empty() || !found.damaged.is_empty() {
            return Err(format!("{at} is damaged: {found:?}"));
        }
        records.insert(at, found.records);
    }
    let positions = positions(broker).map_err(|error| format!("groups cannot be read: {error}"))?;
    Ok(State { topics, records, positions })
}

/// The damage in the log of the groups, whose id each of its segments tells.
fn verify_groups(disk: &SimDisk) -> Result<(), String> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let directory = path("__groups-0");
    let segment = files_in(disk, &directory).into_keys().find(|file| is_segment(file)).unwrap();
    let segment = SegmentInspection::open(&storage, &segment).map_err(|error| error.to_string())?;
    let options = LogOptions::new(segment.header().identity);
    let log = Log::attach_read_only(storage, &directory, options).map_err(|error| error.to_string())?;
    let damage = log.verify(&mut |_| {}).map_err(|error| error.to_string())?.damage;
    if damage.is_empty() { Ok(()) } else { Err(format!("the log of the groups does not verify: {damage:?}")) }
}

/// Whether every partition verifies, Tailwater's own too, and takes a record or a commit.
pub(crate) fn goes_on(disk: &SimDisk, broker: &Broker) -> Result<(), String> {
    let topics = topics(broker);
    verify_groups(disk)?;
    for at in places(&topics) {
        let embedded = broker.embedded().unwrap();
        let report = embedded.verify(&at, &mut |_| {}).map_err(|error| format!("{at}: {error}"))?;
        if !report.damage.is_empty() {
            return Err(format!("{at} does not verify: {:?}", report.damage));
        }
        let end = embedded.stats(&at).map_err(|error| error.to_string())?.log_end_offset;
        let producer = broker.producer(&at.topic).unwrap();
        let appended = producer.publish(Message::new(b"after").partition(at.partition));
        let appended = appended.map_err(|error| format!("{at} takes no records: {error}"))?;
        if appended.offset != end {
            return Err(format!("{at}: {} and not {end}", appended.offset));
        }
        let end = Offset::new(end.get() + 1);
        let group = broker.create_group("checking", &[&at.topic], tailwater::Reset::Latest);
        match group {
            Ok(()) | Err(Error::GroupExists { .. }) => {}
            Err(error) => return Err(format!("no commit in {at}: {error}")),
        }
        let moved = broker.reset_group("checking", std::slice::from_ref(&at), SeekTo::Offset(end));
        moved.map_err(|error| format!("no commit in {at}: {error}"))?;
    }
    broker.close().map_err(|error| format!("cannot close: {error}"))?;
    // What was acknowledged now is there, and nothing more is wrong.
    let again = open(&disk.crash(|_, _| false)).map_err(|error| format!("cannot open again: {error}"))?;
    let found = positions(&again).map_err(|error| format!("groups cannot be read again: {error}"))?;
    for at in places(&topics) {
        let stats = again.embedded().unwrap().stats(&at).map_err(|error| format!("{at}: {error}"))?;
        if found["checking"].get(&at) != Some(&stats.log_end_offset.get()) {
            return Err(format!("{at} ends at {}, committed is {found:?}", stats.log_end_offset));
        }
    }
    Ok(())
}

/// Repairs whatever is damaged: the catalog, then every partition, the log of the groups last. Says what was lost where.
pub(crate) fn repair_all(
    disk: &SimDisk,
) -> tailwater::Result<(Broker, BTreeMap<TopicPartition, RepairReport>)> {
    repair_catalog(disk)?;
    let broker = open(disk)?;
    let mut reports = BTreeMap::new();
    for at in places(&topics(&broker)).into_iter().chain([groups_log()]) {
        let report = broker.embedded().unwrap().repair(&at)?;
        reports.insert(at, report);
    }
    Ok((broker, reports))
}

/// The bytes of the files in a directory, by their paths.
pub(crate) fn files_in(disk: &SimDisk, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.file_paths().into_iter().filter(|file| file.starts_with(directory));
    files.map(|file| (file.clone(), disk.read_file(&file).unwrap())).collect()
}

/// Whether a file with these bytes is kept in `quarantine/` of the data directory.
pub(crate) fn is_kept(disk: &SimDisk, bytes: &[u8]) -> bool {
    files_in(disk, &path("quarantine")).values().any(|kept| kept == bytes)
}
