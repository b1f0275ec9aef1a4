//! A data directory with any bytes as its catalog: opening it gives a broker or says what is wrong, changes nothing, and
//! what is written of it later is what was read.

use std::path::Path;
use std::sync::Arc;

use tailwater::storage::{SimDisk, Storage};
use tailwater::{Broker, BrokerOptions, Maintenance, Message, TopicConfig};

const DIRECTORY: &str = "/data";
const NEW: &str = "made-anew";

// The fields of a catalog, as `src/catalog/format.rs` has them.
const CRC_AT: usize = 12;
const TOPICS_AT: usize = 28;

/// Each partition is something in memory, also before its first use: what a topic may have is not what is looked for.
const MAX_PARTITIONS: u64 = 20_000;

/// The first byte tells whether the checksum is made right, as it has to be for the rest to be looked at.
pub(crate) fn run(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let bytes = if choice % 4 > 0 { sealed(bytes) } else { bytes.to_vec() };
    if partition_count(&bytes) > MAX_PARTITIONS {
        return;
    }
    let path = Path::new(DIRECTORY).join("catalog");
    // Not always the same random numbers: the fuzzer would find out which topic ids they make, and use them first.
    let disk = SimDisk::new(crc32fast::hash(data).into());
    disk.create_directory(DIRECTORY.as_ref()).unwrap();
    disk.write_file(&path, &bytes).unwrap();

    let opened = open(&disk);
    assert_eq!(disk.read_file(&path), Some(bytes), "opening changes the catalog: {opened:?}");
    let Ok(broker) = opened else { return };
    let mut expected = topics(&broker);
    if let Some((name, ..)) = expected.first() {
        // What its settings say may be in the way.
        let _ = broker.producer(name).and_then(|producer| producer.publish(Message::new(b"first")));
    }
    if broker.create_topic(NEW, &TopicConfig::new()).is_ok() {
        let made = broker.describe_topic(NEW).expect("it was just made");
        expected.push((made.name, made.partition_count, made.config));
    }
    broker.close().unwrap();
    drop(broker);
    let broker = open(&disk).expect("what was just used can be opened");
    let mut found = topics(&broker);
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, expected, "the second open is not equal to the first");
}

fn open(disk: &SimDisk) -> tailwater::Result<Broker> {
    BrokerOptions::new().maintenance(Maintenance::Manual).open_on(Arc::new(disk.clone()), DIRECTORY)
}

fn topics(broker: &Broker) -> Vec<(String, u32, TopicConfig)> {
    let describe = |name: String| {
        let topic = broker.describe_topic(&name).expect("it is there");
        (name, topic.partition_count, topic.config)
    };
    broker.topics().expect("the broker is open").into_iter().map(describe).collect()
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(covered) = bytes.get(CRC_AT + 4..) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..CRC_AT]);
        hasher.update(covered);
        let crc = hasher.finalize();
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// How many partitions the topics have together, as far as there are any.
fn partition_count(bytes: &[u8]) -> u64 {
    let mut total = 0;
    let mut rest = bytes.get(TOPICS_AT..).unwrap_or_default();
    while let Some(count) = read_topic(&mut rest) {
        total += u64::from(count);
    }
    total
}

/// Takes a topic from the front of `rest`. Returns how many partitions it has.
fn read_topic(rest: &mut &[u8]) -> Option<u32> {
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at_checked(count)?;
        *rest = after;
        Some(taken)
    };
    let length = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    take(16)?;
    let count = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let name = length(take(2)?);
    take(name)?;
    let settings = length(take(2)?);
    for _ in 0..2 * settings {
        let text = length(take(2)?);
        take(text)?;
    }
    let origins = u32::from_le_bytes(take(4)?.try_into().ok()?);
    take(usize::try_from(origins).ok()?.checked_mul(28)?)?;
    Some(count)
}
