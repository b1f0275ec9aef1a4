//! The child: looks for what was acknowledged before, and then publishes, reads and deletes until it is killed.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tailwater::{
    BackupOptions, Broker, BrokerOptions, Error, Maintenance, Message, PartitionId, Producer, Reset, SeekTo,
    TopicConfig, TopicPartition,
};
use tailwater_benches::contest::Result;

use crate::content;
use crate::journal::Journal;

const EVENTS: &str = "events";
const STATES: &str = "states";
const GROUPS: [&str; 2] = ["billing", "audit"];
const PARTITIONS: u32 = 2;
const SEGMENT_BYTES: u32 = 4 << 20;
/// What retention keeps of each partition of the events, and what they may become while a group is behind.
const KEPT_BYTES: u64 = 48 << 20;
const HARD_BYTES: u64 = 96 << 20;
const BATCH: u64 = 64;
const KEYS: u64 = 5_000;
const STATES_PER_SECOND: u64 = 2_000;
const BACKUP_INTERVAL: Duration = Duration::from_secs(15);
/// The part of the disk that the broker may take; the rest is for backups, and for the file system's own.
const BROKER_PART: u64 = 2;

/// What all threads of a child share.
struct Shared {
    broker: Broker,
    is_over: AtomicBool,
    told: Mutex<std::io::Stdout>,
    refused: AtomicU64,
    backups: PathBuf,
}

/// Works until standard input ends.
pub(crate) fn run(directory: &Path, disk: u64, rate: u64) -> Result<()> {
    let mut found = Journal::default();
    let mut input = std::io::stdin().lock().lines();
    for line in &mut input {
        match line? {
            go if go == "go" => break,
            line => found.note(&line)?,
        }
    }
    let options = BrokerOptions::new().max_disk_bytes(disk / BROKER_PART);
    let states = {
        // Without threads, so that nothing is deleted while it is looked for.
        let broker = options.clone().maintenance(Maintenance::Manual).open(directory)?;
        create_topics(&broker)?;
        check(&broker, &found)?;
        let states = check_states(&broker, &found)?;
        broker.close()?;
        states
    };
    let shared = Shared {
        broker: options.open(directory)?,
        is_over: AtomicBool::new(false),
        told: Mutex::new(std::io::stdout()),
        refused: AtomicU64::new(0),
        backups: directory.with_file_name("backups"),
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        let mut threads = Vec::new();
        for partition in 0..PARTITIONS {
            threads.push(scope.spawn(move || publish(shared, partition, rate / u64::from(PARTITIONS))));
        }
        threads.push(scope.spawn(move || publish_states(shared, states)));
        threads.push(scope.spawn(move || back_up(shared)));
        for group in GROUPS {
            threads.push(scope.spawn(move || consume(shared, group)));
        }
        // Ends when the parent closes it, or is gone.
        let waited = input.try_for_each(|line| line.map(drop));
        shared.is_over.store(true, Ordering::SeqCst);
        for thread in threads {
            thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))?;
        }
        waited?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    let removed: u64 = shared
        .broker
        .stats()
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .filter_map(|partition| partition.log())
        .map(|log| log.removals.removed_bytes >> 20)
        .sum();
    shared.tell(&format!("did MiB removed by the child that was left alone {removed}"))?;
    shared.tell(&format!(
        "did appends refused until a group had read more {}",
        shared.refused.load(Ordering::SeqCst)
    ))?;
    shared.broker.close()?;
    Ok(())
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut told = self.told.lock().map_err(|_| "a thread panicked")?;
        writeln!(told, "{line}")?;
        told.flush()?;
        Ok(())
    }
}

fn create_topics(broker: &Broker) -> Result<()> {
    let events = TopicConfig::new()
        .partitions(PARTITIONS)
        .segment_bytes(SEGMENT_BYTES)
        .retention_bytes(KEPT_BYTES)
        .retention_hard_bytes(HARD_BYTES);
    let states = TopicConfig::new().segment_bytes(SEGMENT_BYTES).set("cleanup.policy", "compact")?;
    for (name, config) in [(EVENTS, events), (STATES, states)] {
        match broker.create_topic(name, &config) {
            Ok(()) | Err(Error::TopicExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Looks for every record and position that was acknowledged.
fn check(broker: &Broker, found: &Journal) -> Result<()> {
    let embedded = broker.embedded().ok_or("an embedded broker")?;
    let mut reader = broker.reader().assign(&places(EVENTS, PARTITIONS))?;
    for partition in 0..PARTITIONS {
        reader.seek(&place(EVENTS, partition), SeekTo::Earliest)?;
    }
    let mut next = HashMap::new();
    loop {
        let records = reader.poll(Duration::ZERO)?;
        if !records.events().is_empty() {
            return Err(format!("{:?}", records.events()).into());
        }
        if records.is_empty() {
            break;
        }
        for record in records.iter() {
            let (partition, offset) = (record.partition().get(), record.offset().get());
            let expected = next.insert(partition, offset + 1);
            if expected.is_some_and(|expected| expected != offset)
                || !content::is_right(partition, offset, record.value())
            {
                return Err(
                    format!("the record at {offset} of {EVENTS}-{partition} is not what it was").into()
                );
            }
        }
    }
    for partition in 0..PARTITIONS {
        let stats = embedded.stats(&place(EVENTS, partition))?;
        let (start, end) = (stats.log_start_offset.get(), stats.log_end_offset.get());
        let acknowledged = found.ends.get(&partition).copied().unwrap_or(0);
        if end < acknowledged {
            return Err(format!("{EVENTS}-{partition} ends at {end}; {acknowledged} was acknowledged").into());
        }
        if start != end && next.get(&partition) != Some(&end) {
            return Err(format!(
                "{EVENTS}-{partition} can be read to {:?} and ends at {end}",
                next.get(&partition)
            )
            .into());
        }
        // Two segments less, since whole ones go, and records differ in size.
        let kept = (end - start) * content::MEAN_BYTES + 2 * u64::from(SEGMENT_BYTES);
        if start > 0 && kept < KEPT_BYTES {
            return Err(format!("{EVENTS}-{partition} holds [{start}, {end}): too much was deleted").into());
        }
    }
    for ((group, partition), acknowledged) in &found.positions {
        let described = broker.describe_group(group)?;
        let position = described.positions.iter().find(|at| at.partition == place(EVENTS, *partition));
        let position =
            position.ok_or_else(|| format!("{group} has lost its position in {EVENTS}-{partition}"))?;
        let (committed, start) = (position.committed.offset.get(), position.log_start_offset.get());
        if committed < *acknowledged || committed < start {
            return Err(format!("{group} is at {committed} of {EVENTS}-{partition}, which begins at {start}; {acknowledged} was acknowledged").into());
        }
    }
    Ok(())
}

/// Looks for the value of every key. Returns how often each was set.
fn check_states(broker: &Broker, found: &Journal) -> Result<HashMap<u64, u64>> {
    let mut reader = broker.reader().assign(&places(STATES, 1))?;
    reader.seek(&place(STATES, 0), SeekTo::Earliest)?;
    let mut states = HashMap::new();
    loop {
        let records = reader.poll(Duration::ZERO)?;
        if records.is_empty() {
            break;
        }
        for record in records.iter() {
            let key = u64::from_le_bytes(record.key().unwrap_or_default().try_into()?);
            let n = content::state_number(key, record.value().unwrap_or_default());
            let n =
                n.ok_or_else(|| format!("the record at {} of {STATES} is not what it was", record.offset()))?;
            let before = states.insert(key, n);
            if before.is_some_and(|before| before >= n) {
                return Err(format!("key {key} was set to number {n} after number {before:?}").into());
            }
        }
    }
    for (key, acknowledged) in &found.states {
        let last = states.get(key).copied().unwrap_or(0);
        if last < *acknowledged {
            return Err(format!("key {key} has value {last}; {acknowledged} was acknowledged").into());
        }
    }
    Ok(states)
}

/// Publishes to one partition of the events, whose offsets follow each other, since nobody else does.
fn publish(shared: &Shared, partition: u32, bytes_per_second: u64) -> Result<()> {
    let producer = shared.broker.producer(EVENTS)?;
    let embedded = shared.broker.embedded().ok_or("an embedded broker")?;
    let mut offset = embedded.stats(&place(EVENTS, partition))?.log_end_offset.get();
    let mut due = Instant::now();
    while !shared.is_over() {
        let mut receipts = Vec::new();
        while (receipts.len() as u64) < BATCH && !shared.is_over() {
            let value = content::value(partition, offset);
            match producer.send(Message::new(&value).partition(PartitionId::new(partition))) {
                Ok(receipt) => receipts.push(receipt),
                Err(Error::TopicFull(_)) => {
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            offset += 1;
        }
        for receipt in receipts {
            receipt.wait()?;
        }
        shared.tell(&format!("end {partition} {offset}"))?;
        due = pace(due, BATCH * content::MEAN_BYTES, bytes_per_second);
    }
    Ok(())
}

/// Sets keys at random.
fn publish_states(shared: &Shared, mut states: HashMap<u64, u64>) -> Result<()> {
    let producer: Producer = shared.broker.producer(STATES)?;
    let mut choices = fastrand::Rng::new();
    let mut due = Instant::now();
    while !shared.is_over() {
        let mut sent = Vec::new();
        for _ in 0..BATCH {
            let key = choices.u64(0..KEYS);
            let n = states.entry(key).or_default();
            let value = content::state(key, *n + 1);
            match producer.send(Message::new(value.as_bytes()).key(&key.to_le_bytes())) {
                Ok(receipt) => sent.push((key, *n + 1, receipt)),
                Err(Error::TopicFull(_)) => {
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            *n += 1;
        }
        for (key, n, receipt) in sent {
            receipt.wait()?;
            shared.tell(&format!("state {key} {n}"))?;
        }
        due = pace(due, BATCH, STATES_PER_SECOND);
    }
    Ok(())
}

/// Makes a backup again and again, each from the one before, and looks at every byte of it. The latest is kept.
fn back_up(shared: &Shared) -> Result<()> {
    let embedded = shared.broker.embedded().ok_or("an embedded broker")?;
    std::fs::create_dir_all(&shared.backups)?;
    let mut due = Instant::now();
    while !shared.is_over() {
        if Instant::now() < due {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        due = Instant::now() + BACKUP_INTERVAL;
        // What a child that was killed has left of one is no backup.
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&shared.backups)? {
            let entry = entry?;
            match entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
                Some(number) => numbers.push(number),
                None => std::fs::remove_dir_all(entry.path())?,
            }
        }
        let latest = numbers.iter().max().copied();
        let next = shared.backups.join((latest.unwrap_or(0) + 1).to_string());
        let mut options = BackupOptions::new();
        if let Some(latest) = latest {
            options = options.incremental_from(shared.backups.join(latest.to_string()));
        }
        embedded.backup_with(&next, &options)?;
        let checked = Broker::check_backup(&next, &mut |_| {})?.ok_or("it is no backup")?;
        if !checked.problems.is_empty() {
            return Err(format!("{}: {:?}", next.display(), checked.problems).into());
        }
        for number in numbers {
            std::fs::remove_dir_all(shared.backups.join(number.to_string()))?;
        }
        shared.tell("did backups made and verified 1")?;
    }
    Ok(())
}

/// Reads the events as a group: each in its place, none left out.
fn consume(shared: &Shared, group: &str) -> Result<()> {
    let mut consumer = shared.broker.consumer(group).reset(Reset::Earliest).subscribe(&[EVENTS])?;
    let mut choices = fastrand::Rng::new();
    let mut next: HashMap<u32, u64> = HashMap::new();
    while !shared.is_over() {
        let records = consumer.poll(Duration::from_millis(100))?;
        if !records.events().is_empty() {
            return Err(format!("{group} was told of {:?}", records.events()).into());
        }
        for record in records.iter() {
            let (partition, offset) = (record.partition().get(), record.offset().get());
            let expected = next.insert(partition, offset + 1);
            if expected.is_some_and(|expected| expected != offset)
                || !content::is_right(partition, offset, record.value())
            {
                return Err(format!("{group} read a wrong record at {offset} of {EVENTS}-{partition}").into());
            }
        }
        if !records.is_empty() {
            consumer.commit().wait()?;
            for (partition, at) in &next {
                shared.tell(&format!("position {group} {partition} {at}"))?;
            }
        }
        if choices.u32(0..200) == 0 {
            // A reader that falls behind, so that what it has not read is held.
            std::thread::sleep(Duration::from_millis(choices.u64(0..4_000)));
        }
    }
    consumer.close()?;
    Ok(())
}

/// Sleeps so that no more than so many of something are done in a second. What was missed by far is not made up for.
fn pace(due: Instant, count: u64, per_second: u64) -> Instant {
    let due = due.max(Instant::now() - Duration::from_millis(100))
        + Duration::from_secs_f64(count as f64 / per_second as f64);
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    due
}

fn place(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, PartitionId::new(partition))
}

fn places(topic: &str, count: u32) -> Vec<TopicPartition> {
    (0..count).map(|partition| place(topic, partition)).collect()
}
