//! Cuts the power after every storage operation of whole workloads, in many of the ways a disk may be left, and in the
//! recovery that follows; and compares what is found with what was promised.
//!
//! Four threads publish, and share syncs, while a consumer reads and commits and topics and groups come and go. How the
//! disk was after each operation is recorded as it happens, with what was acknowledged by then.
//!
//! A failure prints the seed, the operation and the choice of what survived. `POWER_CUT_SEEDS=7..8` runs one seed; with
//! `POWER_CUT_THREADS=1` the same calls are made on one thread, in the same order at every run. More ways to lose what was
//! not synced are tried with `POWER_CUT_SUBSETS=1000`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod history;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use common::{Choices, DATA, partition};
use history::check::{Loss, check, check_resumption, follow};
use history::recorder::{Recorder, Recording};
use history::{Catalog, Entry, Event, Id, Model, PRODUCER_IDS, Place, Positions, value_of};
use tailwater::storage::SimDisk;
use tailwater::{
    Broker, BrokerOptions, Consumer, Durability, Error, Maintenance, ManualClock, Message, Offset,
    PartitionId, Producer, ProducerOptions, Reset, Result, SeekTo, Timestamp, TopicConfig, TopicPartition,
};

const THREADS: u64 = 4;
const ORDERS: u32 = 0;
const LAZY: u32 = 1;
const AUDIT: u32 = 2;
const NEW_AUDIT: u32 = 3;
const BILLING: &str = "billing";

fn small() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096).staging_bytes(4096)
}

/// One workload as it runs.
struct Run {
    recorder: Recorder,
    threads: u64,
    choices: Mutex<Choices>,
    catalog: Mutex<Catalog>,
    /// Held by those who publish to `orders-0`, and by who truncates it.
    gate: RwLock<()>,
    /// How many messages each producer has sent.
    sent: [AtomicU64; 8],
    rolls: AtomicU64,
    acknowledged: AtomicU64,
    /// Where the group is, as its last commit said.
    committed: Mutex<Positions>,
}

impl Run {
    fn below(&self, end: u64) -> u64 {
        (self.choices.lock().unwrap().next() >> 33) % end
    }

    fn open(&self, seed: u64) -> Broker {
        let has_threads = self.threads > 1 && seed.is_multiple_of(2);
        let maintenance = if has_threads { Maintenance::Background } else { Maintenance::Manual };
        let mut options = BrokerOptions::new().maintenance(maintenance);
        if self.threads == 1 {
            options = options.clock(Arc::new(ManualClock::new(Timestamp::from_millis(1_000))));
        }
        options.open_on(Arc::new(self.recorder.clone()), DATA).unwrap()
    }

    fn administer(
        &self,
        change: impl FnOnce(&mut Catalog) -> Option<Entry>,
        call: impl FnOnce() -> Result<()>,
    ) {
        let mut catalog = self.catalog.lock().unwrap().clone();
        change(&mut catalog);
        self.recorder.note(Event::CatalogBegins { after: catalog.clone() });
        call().unwrap();
        self.recorder.note(Event::CatalogEnds);
        *self.catalog.lock().unwrap() = catalog;
    }

    fn create(&self, broker: &Broker, name: &str, topic: u32, config: &TopicConfig) {
        let partitions = config.partition_count().unwrap_or(1);
        let entry = Entry { topic, partitions };
        self.administer(
            |catalog| catalog.insert(name.to_owned(), entry),
            || broker.create_topic(name, config),
        );
    }

    fn next_id(&self, producer: u64) -> Id {
        let number = self.sent[usize::try_from(producer).unwrap()].fetch_add(1, Ordering::Relaxed);
        producer * PRODUCER_IDS + number
    }

    fn publish(&self, orders: &Producer, producer: u64, at: Place, is_durable: bool) {
        let _open = self.gate.read().unwrap();
        let id = self.next_id(producer);
        self.recorder.note(Event::Sent { at, id });
        let value = value_of(id);
        let message = Message::new(value.as_bytes()).partition(PartitionId::new(at.partition));
        let appended = orders.publish(message).unwrap();
        assert_eq!(appended.partition.get(), at.partition);
        let offset = appended.offset.get();
        self.recorder.note(Event::Acknowledged { at, id, offset, is_durable });
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Publishes with all threads at once, while `billing` reads and commits and `meanwhile` runs.
    fn publish_together(&self, broker: &Broker, count: u64, partitions: u64, meanwhile: impl FnOnce()) {
        let orders = broker.producer("orders").unwrap();
        let publish = |thread: u64, n: u64| {
            let number = u32::try_from((thread + n + self.below(2)) % partitions).unwrap();
            self.publish(&orders, thread, Place { topic: ORDERS, partition: number }, true);
        };
        let mut billing = self.subscribe(broker);
        if self.threads == 1 {
            for n in 0..count / 2 {
                (0..THREADS).for_each(|thread| publish(thread, n));
                self.consume(&mut billing);
            }
            meanwhile();
            for n in count / 2..count {
                (0..THREADS).for_each(|thread| publish(thread, n));
                self.consume(&mut billing);
            }
        } else {
            let is_done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let publishers: Vec<_> = (0..THREADS)
                    .map(|thread| scope.spawn(move || (0..count).for_each(|n| publish(thread, n))))
                    .collect();
                let (billing, is_done) = (&mut billing, &is_done);
                scope.spawn(move || {
                    while !is_done.load(Ordering::SeqCst) {
                        self.consume(billing);
                    }
                });
                meanwhile();
                let ended: Vec<_> = publishers.into_iter().map(|publisher| publisher.join()).collect();
                is_done.store(true, Ordering::SeqCst);
                ended.into_iter().for_each(|ended| ended.unwrap());
            });
        }
        self.consume(&mut billing);
        billing.consumer.close().unwrap();
    }

    fn subscribe(&self, broker: &Broker) -> Following {
        let positions = Some(self.committed.lock().unwrap().clone());
        self.recorder.note(Event::GroupBegins { group: BILLING.to_owned(), positions });
        let consumer = broker.consumer(BILLING).max_records(9).subscribe(&["orders"]).unwrap();
        self.recorder.note(Event::GroupEnds { group: BILLING.to_owned() });
        let known = self.committed.lock().unwrap();
        let next = known.iter().map(|(place, offset)| (partition("orders", place.partition), *offset));
        Following { next: next.collect(), consumer }
    }

    /// One poll, and a commit of what it returned.
    fn consume(&self, billing: &mut Following) {
        let records = billing.consumer.poll(Duration::from_millis(u64::from(self.threads > 1))).unwrap();
        if let Err(error) = follow(&mut billing.next, &records) {
            panic!("a consumer is {error}");
        }
        if records.is_empty() && records.events().is_empty() {
            return;
        }
        let place = |at: TopicPartition| Place { topic: ORDERS, partition: at.partition.get() };
        let offset_of = |at: &TopicPartition| billing.consumer.position(at).unwrap().offset.get();
        let all = billing.consumer.assignment().into_iter();
        let positions: Positions = all.map(|at| (place(at.clone()), offset_of(&at))).collect();
        let group = BILLING.to_owned();
        self.recorder.note(Event::GroupBegins { group: group.clone(), positions: Some(positions.clone()) });
        match billing.consumer.commit().wait() {
            Ok(()) => {
                self.recorder.note(Event::GroupEnds { group });
                *self.committed.lock().unwrap() = positions;
            }
            // What was read was truncated before it was committed.
            Err(Error::OffsetOutOfRange { .. } | Error::CommitBeyondDurable { .. }) => {
                self.recorder.note(Event::GroupUnchanged { group });
            }
            Err(error) => panic!("a commit failed: {error}"),
        }
    }

    /// A group reads what is there of the topic that is not durable, and commits it.
    fn read_lazy(&self, broker: &Broker) {
        let (group, lazy) = ("lazy-readers", partition("lazy", 0));
        let begin = |positions| {
            let group = group.to_owned();
            self.recorder.note(Event::GroupBegins { group, positions: Some(positions) });
        };
        begin(Positions::new());
        let mut consumer = broker.consumer(group).subscribe(&["lazy"]).unwrap();
        self.recorder.note(Event::GroupEnds { group: group.to_owned() });
        consumer.poll(Duration::ZERO).unwrap();
        let offset = consumer.position(&lazy).unwrap().offset.get();
        begin([(Place { topic: LAZY, partition: 0 }, offset)].into());
        consumer.commit().wait().unwrap();
        self.recorder.note(Event::GroupEnds { group: group.to_owned() });
    }

    /// Truncates `orders-0`, which nobody publishes to meanwhile.
    fn truncate(&self, broker: &Broker) {
        let _closed = self.gate.write().unwrap();
        let (at, orders) = (Place { topic: ORDERS, partition: 0 }, partition("orders", 0));
        let embedded = broker.embedded().unwrap();
        let stats = embedded.stats(&orders).unwrap();
        let (start, end) = (stats.log_start_offset.get(), stats.log_end_offset.get());
        let offset = end - self.below((end - start).min(4) + 1);
        self.recorder.note(Event::CutBegins { at, offset });
        embedded.truncate_to(&orders, Offset::new(offset)).unwrap();
        self.recorder.note(Event::CutEnds { at });
    }

    fn delete_before(&self, broker: &Broker, number: u32) {
        let (at, orders) = (Place { topic: ORDERS, partition: number }, partition("orders", number));
        let embedded = broker.embedded().unwrap();
        let stats = embedded.stats(&orders).unwrap();
        let (start, end) = (stats.log_start_offset.get(), stats.durable_offset.get());
        let before = start + self.below(end - start + 1);
        self.recorder.note(Event::DeleteBegins { at, before });
        embedded.delete_records_before(&orders, Offset::new(before)).unwrap();
        self.recorder.note(Event::DeleteEnds { at });
    }

    fn set_group(&self, group: &str, positions: Option<Positions>, call: impl FnOnce() -> Result<()>) {
        self.recorder.note(Event::GroupBegins { group: group.to_owned(), positions });
        call().unwrap();
        self.recorder.note(Event::GroupEnds { group: group.to_owned() });
    }

    /// Moves `billing`, which has no consumer now.
    fn reset(&self, broker: &Broker) {
        let at = Place { topic: ORDERS, partition: 1 };
        let stats = broker.embedded().unwrap().stats(&partition("orders", 1)).unwrap();
        let (start, end) = (stats.log_start_offset.get(), stats.log_end_offset.get());
        let to = start + self.below(end - start + 1);
        self.set_group(BILLING, Some([(at, to)].into()), || {
            let to = SeekTo::Offset(Offset::new(to));
            broker.reset_group(BILLING, &[partition("orders", 1)], to).map(drop)
        });
        self.committed.lock().unwrap().insert(at, to);
    }

    fn publish_some(&self, broker: &Broker, topic: &str, producer: u64, at: Place, count: u64) {
        let publisher = broker.producer(topic).unwrap();
        (0..count).for_each(|_| self.publish(&publisher, producer, at, at.topic != LAZY));
    }

    fn maintain(&self, broker: &Broker) {
        broker.run_maintenance_once().unwrap();
    }

    fn close(&self, broker: &Broker) {
        let embedded = broker.embedded().unwrap();
        for (name, entry) in self.catalog.lock().unwrap().iter() {
            for number in 0..entry.partitions {
                let stats = embedded.stats(&partition(name, number)).unwrap();
                self.rolls.fetch_add(stats.rolls, Ordering::Relaxed);
            }
        }
        broker.close().unwrap();
        self.recorder.note(Event::AllDurable);
    }
}

/// A consumer, and where it must go on.
struct Following {
    consumer: Consumer,
    next: BTreeMap<TopicPartition, u64>,
}

/// The figures of a run.
struct Done {
    recording: Recording,
    rolls: u64,
    acknowledged: u64,
}

fn run(seed: u64, threads: u64) -> Done {
    let sync_time = if threads > 1 { Duration::from_micros(20) } else { Duration::ZERO };
    let run = Run {
        recorder: Recorder::new(seed, sync_time),
        threads,
        choices: Mutex::new(Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)),
        catalog: Mutex::default(),
        gate: RwLock::default(),
        sent: Default::default(),
        rolls: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        committed: Mutex::default(),
    };
    let audit = Place { topic: AUDIT, partition: 0 };
    let lazy = Place { topic: LAZY, partition: 0 };

    let broker = run.open(seed);
    run.create(&broker, "orders", ORDERS, &small().partitions(3));
    run.create(&broker, "lazy", LAZY, &small().durability(Durability::Written));
    run.create(&broker, "audit", AUDIT, &small().partitions(2));
    run.publish_together(&broker, 7, 3, || {
        run.publish_some(&broker, "audit", 4, audit, 3);
        run.publish_some(&broker, "lazy", 5, lazy, 6);
        run.read_lazy(&broker);
        run.set_group("shipping", Some([(audit, 3)].into()), || {
            let only = broker.create_group("shipping", &["audit"], Reset::Latest);
            only.map(drop)
        });
        run.delete_before(&broker, 1);
        run.truncate(&broker);
    });
    run.reset(&broker);
    run.maintain(&broker);
    run.publish_together(&broker, 5, 3, || {
        run.administer(|catalog| catalog.remove("audit"), || broker.delete_topic("audit"));
        run.create(&broker, "audit", NEW_AUDIT, &small());
        run.publish_some(&broker, "audit", 4, Place { topic: NEW_AUDIT, partition: 0 }, 2);
        let entry = Entry { topic: ORDERS, partitions: 4 };
        run.administer(
            |catalog| catalog.insert("orders".to_owned(), entry),
            || broker.alter_topic("orders", &TopicConfig::new().partitions(4)),
        );
    });
    if run.below(2) == 0 {
        run.truncate(&broker);
    }
    run.close(&broker);
    drop(broker);

    let broker = run.open(seed);
    run.publish_together(&broker, 4, 4, || {
        run.set_group("shipping", None, || broker.delete_group("shipping"));
        run.publish_some(&broker, "lazy", 5, lazy, 4);
        run.read_lazy(&broker);
        run.delete_before(&broker, 2);
        run.truncate(&broker);
    });
    run.maintain(&broker);
    run.publish_some(&broker, "lazy", 5, lazy, 3);
    run.close(&broker);
    drop(broker);
    let (rolls, acknowledged) = (run.rolls.into_inner(), run.acknowledged.into_inner());
    Done { recording: run.recorder.finish(), rolls, acknowledged }
}

/// What was searched.
#[derive(Default)]
struct Searched {
    cuts: AtomicU64,
    states: AtomicU64,
    nested: AtomicU64,
    resumed: AtomicU64,
    distinct: Mutex<HashSet<u64>>,
}

fn open(disk: &SimDisk) -> Result<Broker> {
    common::open(disk)
}

/// Opens what a crash left, checks it, and now and then goes on with it.
fn examine(
    disk: &SimDisk,
    model: &Model,
    loss: Loss,
    is_deep: bool,
    searched: &Searched,
) -> Result<(), String> {
    searched.states.fetch_add(1, Ordering::Relaxed);
    let broker = open(disk).map_err(|error| format!("cannot open: {error}"))?;
    let found = check(&broker, model, loss)?;
    if !is_deep {
        // Without power closing takes no time.
        disk.cut_power_after(0);
        return Ok(());
    }
    searched.resumed.fetch_add(1, Ordering::Relaxed);
    // What was found is durable by now, and found again.
    let again = open(&disk.crash(|_, _| false)).map_err(|error| format!("cannot open again: {error}"))?;
    let found_again = check(&again, model, loss).map_err(|error| format!("the second time: {error}"))?;
    if found_again != found {
        return Err(format!("found {found:?}, and the second time {found_again:?}"));
    }
    check_resumption(&broker, &found)?;
    for (at, content) in &found.partitions {
        let durable = ProducerOptions::new().durability(Durability::Durable);
        let producer = broker.producer_with(&at.topic, durable);
        let producer = producer.map_err(|error| format!("no producer: {error}"))?;
        let appended = producer.publish(Message::new(b"after").partition(at.partition));
        match appended {
            Ok(appended) if appended.offset.get() == content.end() => {}
            other => return Err(format!("{at} ends at {}, publishing gave {other:?}", content.end())),
        }
    }
    for name in ["orders", "lazy", "audit"] {
        if found.catalog.contains_key(name) {
            continue;
        }
        broker.create_topic(name, &small()).map_err(|error| format!("cannot create {name}: {error}"))?;
        let end = broker.embedded().unwrap().stats(&partition(name, 0)).unwrap().log_end_offset.get();
        let groups = broker.groups().unwrap();
        let has_position = |id: &str| {
            let positions = broker.describe_group(id).unwrap().positions;
            positions.iter().any(|position| &*position.partition.topic == name)
        };
        if end != 0 || groups.iter().any(|group| has_position(&group.id)) {
            return Err(format!("the new {name} is not empty: it ends at {end}"));
        }
    }
    let last = open(&disk.crash(|_, _| false)).map_err(|error| format!("cannot open at last: {error}"))?;
    for (at, content) in &found.partitions {
        let end = last.embedded().unwrap().stats(at).map_err(|error| error.to_string())?.log_end_offset;
        if end.get() != content.end() + 1 {
            return Err(format!("{at}: what was published after the recovery is lost"));
        }
    }
    Ok(())
}

/// Cuts the power within the recovery of what a crash left: after each of its operations.
fn examine_recovery(
    disk: &SimDisk,
    model: &Model,
    loss: Loss,
    choices: &mut Choices,
    searched: &Searched,
) -> Result<(), String> {
    let probe = disk.crash(|_, _| true);
    let before = probe.operation_count();
    drop(open(&probe).map(|broker| check(&broker, model, loss)));
    let steps = probe.operation_count() - before;
    for step in 1..steps {
        let interrupted = disk.crash(|_, _| true);
        interrupted.cut_power_after(step);
        drop(open(&interrupted).map(|broker| check(&broker, model, loss)));
        for way in 0..3 {
            let again = interrupted.crash(|_, _| match way {
                0 => false,
                1 => true,
                _ => choices.next() >> 63 == 0,
            });
            searched.nested.fetch_add(1, Ordering::Relaxed);
            let is_deep = way == 2 && step % 8 == 0;
            examine(&again, model, Loss::PowerCut, is_deep, searched).map_err(|error| {
                let trace = interrupted.latest_operations().join("\n    ");
                format!(
                    "after a cut behind operation {step} of the recovery, way {way}: {error}\n    {trace}\n "
                )
            })?;
        }
    }
    Ok(())
}

/// What of the pending effects survives: none, all, each alone, all but each, and some subsets.
fn survivals(pending: usize, choices: &mut Choices, subsets: usize) -> Vec<Vec<bool>> {
    let mut ways = vec![vec![false; pending]];
    if pending == 0 {
        return ways;
    }
    ways.push(vec![true; pending]);
    for index in 0..pending {
        ways.push((0..pending).map(|at| at == index).collect());
        ways.push((0..pending).map(|at| at != index).collect());
    }
    ways.extend((0..subsets).map(|_| (0..pending).map(|_| choices.next() >> 63 == 0).collect()));
    ways
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("POWER_CUT_SEEDS") else { return default };
    let (start, end) = text.split_once("..").expect("POWER_CUT_SEEDS is START..END");
    start.parse().expect("START is a number")..end.parse().expect("END is a number")
}

/// Cuts the power at every moment of a recording.
fn search(seed: u64, recording: &Recording, searched: &Searched) {
    let subsets = usize::try_from(number("POWER_CUT_SUBSETS", 64)).unwrap();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<String>> = Mutex::default();
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(moment) = recording.moments.get(at) else { return };
            if failure.lock().unwrap().is_some() {
                return;
            }
            searched.cuts.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = search_moment(seed, at, recording, subsets, searched) {
                let trace = moment.disk.latest_operations().join("\n  ");
                let events = &recording.events[..moment.event_count];
                let latest: Vec<_> = events.iter().rev().take(30).rev().collect();
                *failure.lock().unwrap() = Some(format!(
                    "seed {seed}, power cut after operation {at}: {error}\n  {trace}\nbefore that:\n{latest:#?}\n\
                     to search this seed again: POWER_CUT_SEEDS={seed}..{} cargo test -p tailwater --test power_cuts",
                    seed + 1
                ));
                return;
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(worker))));
    if let Some(failure) = failure.into_inner().unwrap() {
        panic!("{failure}");
    }
}

fn search_moment(
    seed: u64,
    at: usize,
    recording: &Recording,
    subsets: usize,
    searched: &Searched,
) -> Result<(), String> {
    let moment = &recording.moments[at];
    let model = Model::of(&recording.events[..moment.event_count]);
    let mut choices = Choices((seed << 32 ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut seen = HashSet::new();
    let pending = moment.disk.pending();
    for (number, way) in survivals(pending, &mut choices, subsets).into_iter().enumerate() {
        let image = moment.disk.crash(|index, _| way[index]);
        let hash = image.content_hash();
        if !seen.insert(hash) {
            continue;
        }
        searched.distinct.lock().unwrap().insert(hash);
        let with_place = |error: String| {
            let survived: Vec<_> = (0..pending).filter(|index| way[*index]).collect();
            let effects = moment.disk.pending_effects();
            let shown: Vec<_> = effects.iter().map(short).collect();
            format!("{error}\nsurvived: {survived:?} of\n{shown:#?}")
        };
        // Few of the states are gone on with, and fewer are cut again: that is where the time goes.
        // What is left of a change of topics is gone on with more often.
        let is_deep = (number + at).is_multiple_of(if model.is_changing_topics() { 4 } else { 24 });
        let is_all = pending == 0 || number == 1;
        let loss = if is_all { Loss::ProcessDeath } else { Loss::PowerCut };
        let is_root =
            number < 2 && at % 32 == number || number >= 2 && (number * 31 + at).is_multiple_of(1501);
        let root = is_root.then(|| image.snapshot());
        examine(&image, &model, loss, is_deep, searched).map_err(with_place)?;
        if let Some(root) = root {
            examine_recovery(&root, &model, loss, &mut choices, searched).map_err(with_place)?;
        }
    }
    Ok(())
}

/// An effect without its bytes.
fn short(effect: &tailwater::storage::sim::Effect) -> String {
    use tailwater::storage::sim::Effect;
    match effect {
        Effect::Sector { file, index, bytes } => {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            format!("sector {index} of file {file}, hash {:x}", hasher.finish() >> 40)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn one_thread_does_the_same_at_every_run() {
    let ends = [(); 2].map(|()| {
        let recording = run(5, 1).recording;
        let last = recording.moments.last().unwrap();
        (recording.moments.len(), last.event_count, last.disk.content_hash())
    });
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn every_power_cut_leaves_what_was_promised() {
    let started = Instant::now();
    let threads = number("POWER_CUT_THREADS", THREADS);
    let searched = Searched::default();
    let (mut rolls, mut fewest_rolls, mut acknowledged, mut syncs) = (0, u64::MAX, 0, 0);
    for seed in seeds(0..4) {
        let done = run(seed, threads);
        rolls += done.rolls;
        fewest_rolls = fewest_rolls.min(done.rolls);
        acknowledged += done.acknowledged;
        syncs += done.recording.moments.len();
        search(seed, &done.recording, &searched);
    }
    let (cuts, states) = (searched.cuts.into_inner(), searched.states.into_inner());
    let distinct = searched.distinct.into_inner().unwrap().len();
    println!(
        "{cuts} cuts, {states} states ({distinct} distinct at first, {} within a recovery, {} gone on with), {rolls} \
         rolls, {acknowledged} messages acknowledged in {syncs} operations, {:?}",
        searched.nested.into_inner(),
        searched.resumed.into_inner(),
        started.elapsed()
    );
    assert!(fewest_rolls >= 3, "a run rolled {fewest_rolls} times");
    if std::env::var("POWER_CUT_SEEDS").is_err() && threads > 1 {
        assert!(states >= 100_000, "{states} states");
    }
}
