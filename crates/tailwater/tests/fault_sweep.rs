//! Lets every storage operation of a workload fail, each in turn, with every error number, once and for ever; goes on with
//! what still works, crashes, and compares what is found with what was promised.
//!
//! A failure prints the fault. `FAULT_SWEEP='Syncs 17 5 once'` runs that one alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod history;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Choices, DATA, partition};
use history::check::{Loss, check, check_resumption, contents};
use history::{Catalog, Entry, Event, Model, Place, Positions, found_catalog, value_of};
use tailwater::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater::storage::{EntryKind, SimDisk, Storage};
use tailwater::{
    Broker, BrokerOptions, Consumer, Durability, Error, IoOperation, Maintenance, ManualClock, Message,
    Offset, PartitionId, Reset, Result, SeekTo, Timestamp, TopicConfig,
};

const ORDERS: u32 = 0;
const AUDIT: u32 = 1;
const NEW_AUDIT: u32 = 2;
const LAZY: u32 = 3;

/// EINTR, EIO, ENOMEM, ENOSPC, EMFILE, EFBIG, EROFS, EDQUOT.
const ERRNOS: [i32; 8] = [4, 5, 12, 28, 24, 27, 30, 122];

/// The faults that are tried, without their number.
fn kinds() -> Vec<(FaultTarget, FaultAction, bool)> {
    let mut kinds = Vec::new();
    for target in [FaultTarget::Changes, FaultTarget::Syncs, FaultTarget::Opens, FaultTarget::Reads] {
        for errno in ERRNOS {
            // What fails once there is a change that fails once.
            if target != FaultTarget::Syncs {
                kinds.push((target, FaultAction::Errno(errno), false));
            }
            kinds.push((target, FaultAction::Errno(errno), true));
        }
    }
    for is_lasting in [false, true] {
        kinds.push((FaultTarget::Changes, FaultAction::ShortWrite, is_lasting));
        for errno in [5, 28] {
            kinds.push((FaultTarget::Changes, FaultAction::TornWrite(errno), is_lasting));
        }
    }
    kinds
}

/// A fault as `FAULT_SWEEP` names it.
struct Named(Fault);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.0.action {
            FaultAction::Errno(errno) => errno.to_string(),
            FaultAction::TornWrite(errno) => format!("torn{errno}"),
            _ => "short".to_owned(),
        };
        let times = if self.0.is_lasting { "forever" } else { "once" };
        write!(f, "{:?} {} {action} {times}", self.0.target, self.0.nth)
    }
}

fn small() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096).staging_bytes(4096)
}

fn at(topic: u32, partition: u32) -> Place {
    Place { topic, partition }
}

/// A workload that takes errors as they come.
struct Sweep {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    broker: Option<Broker>,
    consumer: Option<Consumer>,
    events: Vec<Event>,
    /// As far as it is known.
    catalog: Catalog,
    sent: u64,
    errors: Vec<Error>,
}

impl Sweep {
    fn new(disk: SimDisk) -> Self {
        Self {
            disk,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000))),
            broker: None,
            consumer: None,
            events: Vec::new(),
            catalog: Catalog::new(),
            sent: 0,
            errors: Vec::new(),
        }
    }

    fn model(&self) -> Model {
        Model::of(&self.events)
    }

    fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Keeps an error for a look at it in the end.
    fn done<T>(&mut self, outcome: Result<T>) -> Option<T> {
        outcome.map_err(|error| self.errors.push(error)).ok()
    }

    /// Opens the broker; after a directory could not be synced, on a machine that was restarted: before that nothing
    /// makes its names durable, whatever later syncs say.
    fn open(&mut self) {
        if self.errors.iter().any(|error| is_of_directory(&self.disk, error)) {
            self.disk = self.disk.kill().crash(|_, _| true);
        }
        let clock = Arc::clone(&self.clock);
        let options = BrokerOptions::new().maintenance(Maintenance::Manual).clock(clock);
        let opened = options.open_on(Arc::new(self.disk.clone()), DATA);
        self.broker = self.done(opened);
        let Some(broker) = &self.broker else { return };
        // What an interrupted change of topics came to is known from here on.
        self.catalog = found_catalog(broker, &self.model()).unwrap_or_else(|error| panic!("{error}"));
        self.note(Event::CatalogBegins { after: self.catalog.clone() });
        self.note(Event::CatalogEnds);
    }

    fn close(&mut self) {
        self.consumer = None;
        let Some(broker) = self.broker.take() else { return };
        if self.done(broker.close()).is_some() {
            self.note(Event::AllDurable);
        }
    }

    fn administer(
        &mut self,
        change: impl FnOnce(&mut Catalog) -> Option<Entry>,
        call: impl FnOnce(&Broker) -> Result<()>,
    ) {
        let Some(broker) = self.broker.clone() else { return };
        let mut after = self.catalog.clone();
        change(&mut after);
        self.note(Event::CatalogBegins { after: after.clone() });
        match call(&broker) {
            Ok(()) => {
                self.note(Event::CatalogEnds);
                self.catalog = after;
            }
            Err(error) => {
                self.errors.push(error);
                // Asks without touching the disk.
                match broker.alter_topic("nothing", &TopicConfig::new()) {
                    Err(Error::UnknownTopic { .. }) => self.note(Event::CatalogUnchanged),
                    Err(Error::Failed { .. }) => {}
                    other => panic!("a topic that there is not was altered: {other:?}"),
                }
            }
        }
    }

    fn create(&mut self, name: &str, topic: u32, config: &TopicConfig) {
        let entry = Entry { topic, partitions: config.partition_count().unwrap_or(1) };
        self.administer(
            |catalog| catalog.insert(name.to_owned(), entry),
            |broker| broker.create_topic(name, config),
        );
    }

    /// Sends messages and then waits for all of them.
    fn publish(&mut self, topic: &str, place: Place, count: u64) {
        let Some(broker) = self.broker.clone() else { return };
        let Some(entry) = self.catalog.get(topic) else { return };
        if entry.topic != place.topic || entry.partitions <= place.partition {
            return;
        }
        let Some(producer) = self.done(broker.producer(topic)) else { return };
        let mut receipts = Vec::new();
        for _ in 0..count {
            let id = self.sent;
            self.sent += 1;
            self.note(Event::Sent { at: place, id });
            let value = value_of(id);
            let sent =
                producer.send(Message::new(value.as_bytes()).partition(PartitionId::new(place.partition)));
            match self.done(sent) {
                Some(receipt) => receipts.push((id, receipt)),
                None => self.note(Event::NotAcknowledged { at: place, id }),
            }
        }
        for (id, receipt) in receipts {
            match self.done(receipt.wait()) {
                Some(appended) => {
                    let offset = appended.offset.get();
                    let is_durable = place.topic != LAZY;
                    self.note(Event::Acknowledged { at: place, id, offset, is_durable });
                }
                None => self.note(Event::NotAcknowledged { at: place, id }),
            }
        }
    }

    fn maintain(&mut self) {
        self.clock.advance_ms(70);
        let Some(broker) = self.broker.clone() else { return };
        let _ = self.done(broker.run_maintenance_once());
    }

    fn cut(&mut self, place: Place, keep_off: u64) {
        let Some(broker) = self.broker.clone() else { return };
        let embedded = broker.embedded().unwrap();
        let orders = partition("orders", place.partition);
        let Some(stats) = self.done(embedded.stats(&orders)) else { return };
        let offset = stats.log_end_offset.get().saturating_sub(keep_off).max(stats.log_start_offset.get());
        self.note(Event::CutBegins { at: place, offset });
        if self.done(embedded.truncate_to(&orders, Offset::new(offset))).is_some() {
            // Whatever an earlier one that failed came to, this one has decided.
            self.note(Event::CutEnds { at: place });
        }
    }

    fn delete_before(&mut self, place: Place, before: u64) {
        let Some(broker) = self.broker.clone() else { return };
        let embedded = broker.embedded().unwrap();
        let orders = partition("orders", place.partition);
        let Some(stats) = self.done(embedded.stats(&orders)) else { return };
        let before = before.min(stats.log_end_offset.get()).max(stats.log_start_offset.get());
        self.note(Event::DeleteBegins { at: place, before });
        if self.done(embedded.delete_records_before(&orders, Offset::new(before))).is_some() {
            self.note(Event::DeleteEnds { at: place });
        }
    }

    fn roll(&mut self, place: Place) {
        let Some(broker) = self.broker.clone() else { return };
        let _ = self.done(broker.embedded().unwrap().roll(&partition("orders", place.partition)));
    }

    fn set_group(
        &mut self,
        group: &str,
        positions: Option<Positions>,
        call: impl FnOnce(&Broker) -> Result<()>,
    ) {
        let Some(broker) = self.broker.clone() else { return };
        self.note(Event::GroupBegins { group: group.to_owned(), positions });
        let group = group.to_owned();
        match call(&broker) {
            Ok(()) => self.note(Event::GroupEnds { group }),
            Err(Error::UnknownGroup { .. } | Error::GroupExists { .. } | Error::UnknownTopic { .. }) => {
                self.note(Event::GroupUnchanged { group });
            }
            Err(error) => {
                self.errors.push(error);
                self.note(Event::GroupFailed { group });
            }
        }
    }

    /// Reads what there is and commits it.
    fn consume(&mut self) {
        let Some(broker) = self.broker.clone() else { return };
        let group = || "billing".to_owned();
        if self.consumer.is_none() {
            self.note(Event::GroupBegins { group: group(), positions: Some(Positions::new()) });
            let subscribed = broker.consumer("billing").subscribe(&["orders"]);
            self.consumer = self.done(subscribed);
            self.note(match self.consumer {
                Some(_) => Event::GroupEnds { group: group() },
                None => Event::GroupFailed { group: group() },
            });
        }
        let Some(mut consumer) = self.consumer.take() else { return };
        let _ = self.done(consumer.poll(Duration::ZERO));
        let positions: Positions = consumer
            .assignment()
            .iter()
            .map(|known| {
                let offset = consumer.position(known).unwrap().offset.get();
                (at(ORDERS, known.partition.get()), offset)
            })
            .collect();
        self.note(Event::GroupBegins { group: group(), positions: Some(positions) });
        let committed = self.done(consumer.commit().wait());
        self.note(match committed {
            Some(()) => Event::GroupEnds { group: group() },
            None => Event::GroupFailed { group: group() },
        });
        self.consumer = Some(consumer);
    }

    fn run(&mut self) {
        self.open();
        self.create("orders", ORDERS, &small().partitions(2));
        self.create("lazy", LAZY, &small().durability(Durability::Written));
        self.publish("orders", at(ORDERS, 0), 4);
        self.publish("orders", at(ORDERS, 1), 3);
        self.publish("lazy", at(LAZY, 0), 3);
        self.set_group("tail", Some([(at(LAZY, 0), 3)].into()), |broker| {
            let third = broker.create_group("tail", &["lazy"], Reset::Offset(Offset::new(3)));
            match third {
                Err(Error::OffsetOutOfRange { .. }) => Err(Error::UnknownGroup { group: "tail".into() }),
                other => other,
            }
        });
        self.consume();
        self.maintain();
        self.roll(at(ORDERS, 0));
        self.publish("orders", at(ORDERS, 0), 12);
        self.consume();
        self.delete_before(at(ORDERS, 0), 6);
        self.cut(at(ORDERS, 1), 1);
        self.publish("orders", at(ORDERS, 1), 2);
        self.create("audit", AUDIT, &small());
        self.publish("audit", at(AUDIT, 0), 2);
        self.set_group("shipping", Some([(at(AUDIT, 0), 1)].into()), |broker| {
            let first = broker.create_group("shipping", &["audit"], Reset::Offset(Offset::new(1)));
            match first {
                // Not all of the two messages came to be there.
                Err(Error::OffsetOutOfRange { .. }) => Err(Error::UnknownGroup { group: "shipping".into() }),
                other => other,
            }
        });
        let entry = Entry { topic: ORDERS, partitions: 3 };
        self.administer(
            |catalog| {
                catalog.contains_key("orders").then(|| catalog.insert("orders".into(), entry)).flatten()
            },
            |broker| broker.alter_topic("orders", &TopicConfig::new().partitions(3)),
        );
        self.publish("orders", at(ORDERS, 2), 2);
        self.consume();
        self.administer(|catalog| catalog.remove("audit"), |broker| broker.delete_topic("audit"));
        if !self.catalog.contains_key("audit") {
            self.create("audit", NEW_AUDIT, &small());
        }
        self.publish("audit", at(NEW_AUDIT, 0), 1);
        self.close();
        self.open();
        self.publish("orders", at(ORDERS, 1), 3);
        self.set_group("billing", Some([(at(ORDERS, 1), 1)].into()), |broker| {
            let to = SeekTo::Offset(Offset::new(1));
            match broker.reset_group("billing", &[partition("orders", 1)], to) {
                Err(Error::OffsetOutOfRange { .. }) => Err(Error::UnknownGroup { group: "billing".into() }),
                other => other.map(drop),
            }
        });
        self.consume();
        self.set_group("shipping", None, |broker| broker.delete_group("shipping"));
        self.publish("lazy", at(LAZY, 0), 1);
        self.maintain();
    }
}

/// How the ways of going on from a fault ended.
#[derive(Default)]
struct Counts {
    faults: AtomicUsize,
    with_errors: AtomicUsize,
    went_on: AtomicUsize,
    reopened: AtomicUsize,
    crashed: AtomicUsize,
}

impl Counts {
    fn add(count: &AtomicUsize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the workload with one fault, and looks at what it leaves. False if the fault hit nothing.
fn sweep(fault: Fault, counts: &Counts) -> std::result::Result<bool, String> {
    let disk = SimDisk::new(3);
    disk.plan_fault(fault);
    let mut sweep = Sweep::new(disk);
    sweep.run();
    let disk = sweep.disk.clone();
    // One that is still planned has not struck: what follows would meet it.
    let has_struck = !sweep.errors.is_empty() || !is_pending(&disk, fault);
    disk.clear_faults();
    Counts::add(&counts.faults);
    for error in &sweep.errors {
        is_clear(error)?;
    }
    if !sweep.errors.is_empty() {
        Counts::add(&counts.with_errors);
    }
    let model = sweep.model();

    // The power goes.
    let mut choices = Choices(fault.nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for way in 0..4 {
        let image = disk.crash(|_, _| match way {
            0 => false,
            1 => true,
            _ => choices.next() >> 63 == 0,
        });
        let broker = common::open(&image).map_err(|error| format!("after a power cut {way}: {error}"))?;
        let found = check(&broker, &model, Loss::PowerCut);
        found.map_err(|error| format!("after a power cut {way}: {error}"))?;
        Counts::add(&counts.crashed);
    }
    // The process dies.
    let image = disk.snapshot().kill();
    let broker = common::open(&image).map_err(|error| format!("after the death of the process: {error}"))?;
    let found = check(&broker, &model, Loss::ProcessDeath)
        .map_err(|error| format!("after the death of the process: {error}"))?;
    check_resumption(&broker, &found).map_err(|error| format!("after the death of the process: {error}"))?;
    drop(broker);

    // It goes on, now that the fault is over.
    go_on(&mut sweep, counts)?;
    sweep.close();
    let model = sweep.model();
    let needs_restart = sweep.errors.iter().any(|error| is_of_directory(&disk, error));
    let disk = if needs_restart { disk.crash(|_, _| true) } else { disk };
    let broker = common::open(&disk).map_err(|error| format!("cannot be opened again: {error}"))?;
    check(&broker, &model, Loss::ProcessDeath).map_err(|error| format!("opened again: {error}"))?;
    Counts::add(&counts.reopened);
    drop(broker);
    let broker = common::open(&disk.crash(|_, _| false));
    let broker = broker.map_err(|error| format!("cannot be opened after all: {error}"))?;
    check(&broker, &model, Loss::PowerCut).map_err(|error| format!("after all: {error}"))?;
    Ok(has_struck)
}

/// Whether a fault of this kind still waits for its operation.
fn is_pending(disk: &SimDisk, fault: Fault) -> bool {
    // A fault for changes strikes at an operation that is counted; of the others there are fewer.
    fault.target == FaultTarget::Changes && disk.operation_count() < fault.nth
}

/// Publishes to every partition: it works, or says that the partition has failed.
fn go_on(sweep: &mut Sweep, counts: &Counts) -> std::result::Result<(), String> {
    let Some(broker) = sweep.broker.clone() else { return Ok(()) };
    let mut has_failed = false;
    for (name, entry) in sweep.catalog.clone() {
        for number in 0..entry.partitions {
            let before = sweep.errors.len();
            sweep.publish(&name, at(entry.topic, number), 1);
            for error in &sweep.errors[before..] {
                has_failed = true;
                let is_said = matches!(
                    error,
                    Error::Failed { .. } | Error::UnknownTopic { .. } | Error::UnknownPartition { .. }
                );
                if !is_said {
                    return Err(format!("{name}-{number}, when the fault is over: {error:?}"));
                }
            }
        }
    }
    if !has_failed {
        Counts::add(&counts.went_on);
        // All that is there can be read, by the broker that met the fault.
        if let Ok(catalog) = found_catalog(&broker, &sweep.model()) {
            contents(&broker, &catalog).map_err(|error| format!("when the fault is over: {error}"))?;
        }
    }
    Ok(())
}

/// Whether a directory could not be synced.
fn is_of_directory(disk: &SimDisk, error: &Error) -> bool {
    match error {
        Error::Io { operation: IoOperation::Sync, path, .. } => {
            matches!(disk.snapshot().entry_kind(path), Ok(Some(EntryKind::Directory)))
        }
        Error::DiskFull { path, .. } => matches!(disk.entry_kind(path), Ok(Some(EntryKind::Directory))),
        // Told when a directory is opened, without the operation.
        Error::ReadOnlyDirectory { .. } => true,
        Error::Failed { cause, .. } => is_of_directory(disk, cause),
        Error::NotClosedCleanly(report) => {
            report.failures.iter().any(|failure| is_of_directory(disk, &failure.error))
        }
        _ => false,
    }
}

/// An error says what is wrong, and is none of those that a disk cannot cause.
fn is_clear(error: &Error) -> std::result::Result<(), String> {
    let is_expected = matches!(
        error,
        Error::Io { .. }
            | Error::DiskFull { .. }
            | Error::Failed { .. }
            | Error::ReadOnlyDirectory { .. }
            | Error::NotClosedCleanly(_)
            | Error::UnknownTopic { .. }
            | Error::UnknownPartition { .. }
            | Error::TopicExists { .. }
            | Error::CommitBeyondDurable { .. }
    );
    if is_expected && error.to_string().len() > 10 { Ok(()) } else { Err(format!("unexpected: {error:?}")) }
}

/// The one fault that `FAULT_SWEEP` names.
fn chosen() -> Option<String> {
    std::env::var("FAULT_SWEEP").ok()
}

#[test]
fn a_fault_at_any_operation_loses_nothing_that_was_acknowledged() {
    let started = Instant::now();
    let totals = totals();
    let all: Vec<Fault> = kinds()
        .into_iter()
        .flat_map(|(target, action, is_lasting)| {
            (1..=totals[&format!("{target:?}")]).map(move |nth| Fault { target, nth, action, is_lasting })
        })
        .filter(|fault| chosen().is_none_or(|chosen| chosen == Named(*fault).to_string()))
        .collect();
    let (counts, next) = (Counts::default(), AtomicUsize::new(0));
    let failures: Mutex<Vec<String>> = Mutex::default();
    let worker = || {
        loop {
            let Some(fault) = all.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let swept = catch_unwind(AssertUnwindSafe(|| sweep(*fault, &counts)));
            let failure = match swept {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error,
                Err(_) => "it panicked".to_owned(),
            };
            let mut failures = failures.lock().unwrap();
            failures.push(format!("FAULT_SWEEP='{}': {failure}", Named(*fault)));
            if failures.len() > 20 {
                return;
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(worker))));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    let faults = counts.faults.into_inner();
    println!(
        "{faults} faults ({totals:?} operations), {} with errors, {} went on, {} reopened, {} power cuts, {:?}",
        counts.with_errors.into_inner(),
        counts.went_on.into_inner(),
        counts.reopened.into_inner(),
        counts.crashed.into_inner(),
        started.elapsed()
    );
    assert!(faults > 5_000 || chosen().is_some(), "{faults} faults");
}

/// How many operations of each kind the workload has: the number of the last fault that makes a difference.
fn totals() -> BTreeMap<String, u64> {
    [FaultTarget::Changes, FaultTarget::Syncs, FaultTarget::Opens, FaultTarget::Reads]
        .into_iter()
        .map(|target| {
            let strikes = |nth: u64| {
                let disk = SimDisk::new(3);
                disk.plan_fault(Fault { target, nth, action: FaultAction::Errno(5), is_lasting: true });
                let mut sweep = Sweep::new(disk);
                sweep.run();
                !sweep.errors.is_empty()
            };
            let (mut low, mut high) = (1, 4096);
            assert!(strikes(low) && !strikes(high));
            while high - low > 1 {
                let middle = u64::midpoint(low, high);
                if strikes(middle) { low = middle } else { high = middle }
            }
            (format!("{target:?}"), low)
        })
        .collect()
}

#[test]
fn the_workload_is_the_same_at_every_run() {
    let disks = [(); 2].map(|()| {
        let disk = SimDisk::new(3);
        let mut sweep = Sweep::new(disk.clone());
        sweep.run();
        assert!(sweep.errors.is_empty(), "{:?}", sweep.errors);
        (disk.operation_count(), disk.content_hash())
    });
    assert_eq!(disks[0], disks[1]);
}
