//! Random schedules of the whole log on a simulated disk: appenders, readers, and whoever rolls, deletes and truncates, at
//! each other's every step, while the power goes or a sync fails; and then what is left is compared with what was promised.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --release -p tailwater-log --test schedules` tries some 10,000 schedules of each
//! scenario. `SCHEDULES=100000` tries so many, `SCHEDULE_SEED=7` other ones. A failure prints its schedule, which
//! `SCHEDULE=...` runs again. A thread that would sleep for ever is a failure.

#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[path = "common/oracle.rs"]
#[allow(dead_code, unreachable_pub, reason = "this file uses its part")]
mod oracle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Relaxing};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::{Config, FailurePersistence, Runner, thread};
use tailwater_log::storage::SimDisk;
use tailwater_log::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater_log::{
    Appended, Durability, Error, FetchIsolation, FetchLimits, Log, LogEpoch, ManualClock, NewRecord, Offset,
    Receipt, RecoveryOutcome, Signal, Timestamp, WhenFull,
};

use oracle::{open, options, read_to};

const APPENDERS: usize = 3;
const APPENDS: usize = 3;

/// What befalls the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mishap {
    Nothing,
    PowerCut,
    FailedSync,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Scenario {
    durability: Durability,
    mishap: Mishap,
    truncates: bool,
}

/// What was acknowledged: where, in which epoch, how durably, what.
type Acknowledged = (Appended, Durability, Vec<u8>);

struct Run {
    scenario: Scenario,
    disk: SimDisk,
    log: Log,
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// What a follower saw of a log that shows only what is durable.
    seen: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// Of each truncation the epoch that it began, at most, and the offset.
    truncations: Mutex<Vec<(LogEpoch, u64)>>,
    is_over: AtomicBool,
}

/// How many of the things that the search is there for have come about.
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static ROLLED: AtomicU64 = AtomicU64::new(0);
static SHARED_SYNCS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn value(thread: usize, n: usize) -> Vec<u8> {
    let size = [20, 700, 1500][thread_rng().gen_range(0..3)];
    format!("{thread}/{n}/{}", "s".repeat(size)).into_bytes()
}

/// Which thread appended a value, and which of its values it is.
fn origin(value: &[u8]) -> (usize, usize) {
    let text = std::str::from_utf8(value).unwrap();
    let mut parts = text.split('/');
    (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap())
}

fn run(scenario: Scenario) {
    let disk = SimDisk::new(thread_rng().r#gen());
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let mut options = options(scenario.durability, &clock);
    // Time passes outside of the schedule, and must not decide anything.
    options.config.max_block_ms = 86_400_000;
    let log = open(&disk, options).unwrap();
    let nth = thread_rng().gen_range(1..30);
    match scenario.mishap {
        Mishap::Nothing => {}
        Mishap::PowerCut => disk.cut_power_after(nth),
        Mishap::FailedSync => disk.plan_fault(Fault {
            target: FaultTarget::Syncs,
            nth: 1 + nth / 4,
            action: FaultAction::Errno(5),
            is_lasting: false,
        }),
    }
    let run = Run {
        scenario,
        disk,
        log,
        acknowledged: Mutex::default(),
        seen: Mutex::default(),
        truncations: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let run = &run;
        let mut follower = (!scenario.truncates).then(|| scope.spawn(|| run.follow()));
        let mut others: Vec<_> = (0..APPENDERS).map(|n| scope.spawn(move || run.append(n))).collect();
        others.push(scope.spawn(|| run.read_anywhere()));
        others.push(scope.spawn(|| run.keep_house(&clock)));
        others.into_iter().for_each(|other| other.join().unwrap());
        if scenario.mishap == Mishap::Nothing && !scenario.truncates {
            // Nothing wakes the follower from here on but that there is something to read.
            run.log.sync().unwrap();
            follower.take().into_iter().for_each(|follower| follower.join().unwrap());
        }
        run.is_over.store(true, Ordering::SeqCst);
        let closed = run.log.close();
        assert!(closed.is_ok() || scenario.mishap != Mishap::Nothing, "{closed:?}");
        follower.into_iter().for_each(|follower| follower.join().unwrap());
    });
    run.examine();
}

impl Run {
    /// Appends a few records, and waits for each at once or for all at the end.
    fn append(&self, thread: usize) {
        let is_pipelined = thread_rng().gen_range(0..2) == 0;
        let mut open: Vec<(Receipt, Vec<u8>)> = Vec::new();
        for n in 0..APPENDS {
            let value = value(thread, n);
            let asked =
                [None, Some(Durability::Buffered), Some(Durability::Written), Some(Durability::Durable)];
            let asked = asked[thread_rng().gen_range(0..4)];
            match self.log.append(&[NewRecord::new(&value)], asked, WhenFull::Wait) {
                Ok(receipt) => open.push((receipt, value)),
                Err(error) => return self.expect(&error),
            }
            if !is_pipelined {
                self.wait(open.drain(..));
            }
        }
        self.wait(open);
    }

    fn wait(&self, receipts: impl IntoIterator<Item = (Receipt, Vec<u8>)>) {
        for (receipt, value) in receipts {
            let durability = receipt.durability();
            match receipt.wait() {
                Ok(appended) => self.acknowledged.lock().unwrap().push((appended, durability, value)),
                Err(Error::Truncated { .. }) if self.scenario.truncates => {}
                Err(error) => self.expect(&error),
            }
        }
    }

    /// An error comes only of a mishap.
    fn expect(&self, error: &Error) {
        FAILED.fetch_add(1, Relaxing::Relaxed);
        assert_ne!(self.scenario.mishap, Mishap::Nothing, "{error}");
        // A new file that cannot be synced under its temporary name is given up, and harms nothing.
        let is_harmless =
            matches!(error, Error::Io { path, .. } if path.extension().is_some_and(|it| it == "tmp"));
        let is_stopped = self.log.is_failed() || !self.disk.is_powered();
        assert!(is_stopped || is_harmless, "an error and the log goes on: {error}");
    }

    /// Reads from the start to the end, sleeping where there is nothing yet.
    fn follow(&self) {
        let signal = Arc::new(Signal::new());
        let _guard = self.log.add_listener(&signal, FetchIsolation::Visible);
        let mut next = self.log.log_start_offset();
        while next.get() < (APPENDERS * APPENDS) as u64 {
            signal.arm();
            let is_over = self.is_over.load(Ordering::SeqCst);
            match self.log.fetch(next, FetchLimits::default(), FetchIsolation::Visible, None) {
                Ok(fetched) if fetched.next_offset() > next => {
                    for record in fetched.iter() {
                        assert_eq!(record.offset(), next, "in order and without a hole");
                        next = record.offset().checked_add(1).unwrap();
                        let value = record.value().unwrap().to_vec();
                        self.seen.lock().unwrap().insert(record.offset().get(), value);
                    }
                    assert_eq!(next, fetched.next_offset());
                }
                Ok(_) if is_over || self.log.is_failed() || !self.disk.is_powered() => return,
                Ok(_) => signal.wait(),
                Err(Error::OffsetOutOfRange { log_start_offset, .. }) if next < log_start_offset => {
                    next = log_start_offset;
                }
                Err(error) => {
                    assert!(!self.disk.is_powered(), "reading at {next}: {error}");
                    return;
                }
            }
        }
    }

    /// Reads here and there; what is found is whole, in place, and what one thread appended is in its order.
    fn read_anywhere(&self) {
        for _ in 0..3 {
            let isolation = match thread_rng().gen_range(0..2) {
                0 => FetchIsolation::Visible,
                _ => FetchIsolation::LogEnd,
            };
            let (start, end) = (self.log.log_start_offset().get(), self.log.visible_end(isolation).get());
            if start >= end {
                thread::yield_now();
                continue;
            }
            let from = Offset::new(thread_rng().gen_range(start..end));
            match self.log.fetch(from, FetchLimits::default(), isolation, None) {
                Ok(fetched) => {
                    let mut latest = [None; APPENDERS];
                    for (record, offset) in fetched.iter().zip(from.get()..) {
                        assert_eq!(record.offset().get(), offset);
                        let (thread, n) = origin(record.value().unwrap());
                        assert!(latest[thread].is_none_or(|before| before < n), "out of order");
                        latest[thread] = Some(n);
                    }
                }
                // Deleted or truncated since the look.
                Err(Error::OffsetOutOfRange { .. }) => {}
                Err(error) => assert!(!self.disk.is_powered(), "reading at {from}: {error}"),
            }
        }
    }

    /// Rolls, syncs, deletes what is old, truncates.
    fn keep_house(&self, clock: &ManualClock) {
        for _ in 0..2 {
            let (start, end) = (self.log.log_start_offset().get(), self.log.log_end_offset().get());
            let somewhere = Offset::new(thread_rng().gen_range(start..=end));
            let done = match thread_rng().gen_range(0..6) {
                0 => self.log.roll(),
                1 => self.log.sync().map(drop),
                2 => self.log.write_staged().map(drop),
                3 => {
                    clock.advance_ms(2_000);
                    self.log.maintain().map(drop)
                }
                4 if self.scenario.truncates => {
                    // Before the call: what it removes may be gone whatever it answers.
                    self.truncations.lock().unwrap().push((self.log.epoch(), somewhere.get()));
                    self.log.truncate_to(somewhere)
                }
                _ => self.log.delete_records_before(somewhere),
            };
            match done {
                // Cut shorter by nobody else, and deleted by nobody else.
                Ok(()) => {}
                Err(error) => self.expect(&error),
            }
        }
    }

    /// Looks at what a crash now would leave.
    fn examine(&self) {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        if let Ok(stats) = self.log.stats() {
            ROLLED.fetch_add(stats.rolls, Relaxing::Relaxed);
            let durable = acknowledged.iter().filter(|(_, durability, _)| *durability == Durability::Durable);
            SHARED_SYNCS.fetch_add((durable.count() as u64).saturating_sub(stats.syncs), Relaxing::Relaxed);
        }
        ACKNOWLEDGED.fetch_add(acknowledged.len() as u64, Relaxing::Relaxed);
        SEEN.fetch_add(self.seen.lock().unwrap().len() as u64, Relaxing::Relaxed);
        for way in 0..4 {
            let after = match way {
                0 => self.disk.kill(),
                1 => self.disk.crash(|_, _| false),
                2 => self.disk.crash(|_, _| true),
                _ => self.disk.crash(|_, _| thread_rng().gen_range(0..2) == 0),
            };
            // The process died alone, unless the machine had before.
            let least =
                if way == 0 && self.disk.is_powered() { Durability::Written } else { Durability::Durable };
            self.compare(&after, &acknowledged, least);
            if way == 0 && !self.disk.is_powered() {
                break;
            }
        }
    }

    fn compare(&self, disk: &SimDisk, acknowledged: &[Acknowledged], least: Durability) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(9_000)));
        let log = open(disk, options(self.scenario.durability, &clock)).unwrap();
        assert_ne!(log.recovery_report().outcome, RecoveryOutcome::Corrupt);
        let (start, end) = (log.log_start_offset().get(), log.log_end_offset().get());
        let found = read_to(&log, end).unwrap();
        let at = |offset: u64| found.get(offset.checked_sub(start)? as usize);
        let truncations = self.truncations.lock().unwrap();
        for (appended, durability, value) in acknowledged {
            let offset = appended.offsets.start.get();
            let is_cut = truncations.iter().any(|(epoch, cut)| *epoch >= appended.epoch && *cut <= offset);
            if *durability >= least && offset >= start && !is_cut {
                assert_eq!(at(offset), Some(value), "acknowledged at {offset} as {durability:?}");
            }
        }
        for (offset, value) in self.seen.lock().unwrap().iter() {
            if self.scenario.durability == Durability::Durable && *offset >= start {
                assert_eq!(at(*offset), Some(value), "readers saw offset {offset}");
            }
        }
        let mut latest = [None; APPENDERS];
        for (thread, n) in found.iter().map(|value| origin(value)) {
            assert!(latest[thread].is_none_or(|before| before < n), "out of order: {thread}/{n}");
            latest[thread] = Some(n);
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn check(name: &str, scheduler: impl Scheduler + 'static, scenario: Scenario) {
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::Print;
    let started = std::time::Instant::now();
    let count = Runner::new(scheduler, config).run(move || run(scenario));
    println!("{count} {name} schedules of {scenario:?} in {:.1} s", started.elapsed().as_secs_f64());
}

/// Tries random schedules, and those that need few but ill-timed changes between threads to go wrong (Burckhardt et al., "A
/// Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).
fn search(scenario: Scenario) {
    if let Ok(schedule) = std::env::var("SCHEDULE") {
        return check("replayed", ReplayScheduler::new_from_encoded(&schedule), scenario);
    }
    let (count, seed) = (number("SCHEDULES", 10_000) as usize, number("SCHEDULE_SEED", 0));
    check("random", RandomScheduler::new_from_seed(seed, count / 2), scenario);
    check("few-changes", PctScheduler::new_from_seed(seed, 3, count / 2), scenario);
    let [acknowledged, failed, rolled, shared, seen] =
        [&ACKNOWLEDGED, &FAILED, &ROLLED, &SHARED_SYNCS, &SEEN].map(|count| count.load(Relaxing::Relaxed));
    println!(
        "{acknowledged} appends acknowledged, {shared} by another's sync, {failed} calls failed, {rolled} rolls, {seen} \
         records followed"
    );
    assert!(acknowledged > 0, "nothing was searched");
}

/// The scenarios, by name.
macro_rules! scenarios {
    ($($name:ident: $durability:ident, $mishap:ident, $truncates:literal;)*) => {
        #[cfg(feature = "planted-mistakes")]
        const SCENARIOS: &[Scenario] = &[$(Scenario {
            durability: Durability::$durability, mishap: Mishap::$mishap, truncates: $truncates,
        }),*];

        $(#[cfg(not(feature = "planted-mistakes"))]
        #[test]
        fn $name() {
            let (durability, mishap) = (Durability::$durability, Mishap::$mishap);
            search(Scenario { durability, mishap, truncates: $truncates });
        })*
    };
}

scenarios! {
    a_durable_log_without_mishaps: Durable, Nothing, false;
    a_durable_log_that_loses_power: Durable, PowerCut, false;
    a_durable_log_with_a_failed_sync: Durable, FailedSync, false;
    a_durable_log_that_is_truncated: Durable, Nothing, true;
    a_durable_log_that_is_truncated_and_loses_power: Durable, PowerCut, true;
    a_lazy_log_without_mishaps: Written, Nothing, false;
    a_lazy_log_that_loses_power: Written, PowerCut, false;
    a_lazy_log_with_a_failed_sync: Written, FailedSync, false;
    a_lazy_log_that_is_truncated_and_loses_power: Written, PowerCut, true;
}

/// Mistakes that only some schedules bring to light, made in the engine on purpose: each has to be found.
#[cfg(feature = "planted-mistakes")]
#[test]
fn mistakes_between_threads_are_found() {
    use tailwater_log::mistakes::{Mistake, plant};
    let finds = |scenario: &Scenario| {
        std::panic::catch_unwind(|| search(*scenario)).is_err().then(|| println!("found in {scenario:?}"))
    };
    for mistake in [None].into_iter().chain(Mistake::BETWEEN_THREADS.iter().copied().map(Some)) {
        println!("{mistake:?}");
        plant(mistake);
        let found = SCENARIOS.iter().find_map(finds);
        assert_eq!(found.is_some(), mistake.is_some(), "{mistake:?}");
    }
}
