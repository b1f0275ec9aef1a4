//! Cuts the power after every operation of whole workloads, in many of the ways a disk may be left, and in the recovery
//! that follows; and compares what is found with what was promised.
//!
//! A failure prints the seed, the operation and the choice of what survived. `POWER_CUT_SEEDS=100..200` runs others.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{
    Durability, Error, FetchIsolation, FetchLimits, Log, LogEpoch, LogOptions, ManualClock, NewRecord,
    Offset, PartitionId, PartitionIdentity, RecoveryOutcome, Timestamp, TopicId, WhenFull,
};

const DIRECTORY: &str = "/log";

/// A small deterministic source of choices (xorshift64*; Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled", ACM TOMS 2016).
struct Choices(u64);

impl Choices {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }
}

/// One history that may be found, and how much of it must be.
#[derive(Clone, Debug, Default)]
struct History {
    content: Vec<Vec<u8>>,
    /// What must be there after a power cut, and after the death of the process alone.
    durable: usize,
    written: usize,
}

/// What was promised so far.
#[derive(Clone, Debug, Default)]
struct Oracle {
    /// More than one while a truncation is under way.
    histories: Vec<History>,
    log_starts: Vec<u64>,
    epoch: u32,
    visible: usize,
}

fn options(durability: Durability, clock: &Arc<ManualClock>) -> LogOptions {
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([5; 16]), partition: PartitionId::ZERO };
    let mut options = LogOptions::new(identity);
    options.config.segment_bytes = 4096;
    options.config.staging_bytes = 4096;
    options.config.durability = durability;
    options.clock = clock.clone();
    options
}

fn open(disk: &SimDisk, options: LogOptions) -> Result<Log, Error> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let names = storage.list_directory(DIRECTORY.as_ref()).unwrap_or_default();
    let has_segment = names.iter().any(|entry| entry.name.to_string_lossy().ends_with(".log"));
    if has_segment {
        Log::open(storage, DIRECTORY.as_ref(), options)
    } else {
        Log::create(storage, DIRECTORY.as_ref(), options)
    }
}

/// Runs the workload of `seed` until it ends or the power is cut, keeping the oracle up to date.
fn run(disk: &SimDisk, seed: u64, oracle: &mut Oracle) -> Result<(), Error> {
    let mut choices = Choices::new(seed);
    let durability = if seed.is_multiple_of(3) { Durability::Written } else { Durability::Durable };
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    *oracle = Oracle { histories: vec![History::default()], log_starts: vec![0], epoch: 0, visible: 0 };
    let mut log = open(disk, options(durability, &clock))?;
    let mut number = 0u64;
    for _ in 0..24 + seed % 8 {
        clock.advance_ms(7);
        oracle.epoch = log.epoch().get();
        match choices.below(20) {
            0..=8 => {
                let count = 1 + choices.below(4);
                let values: Vec<Vec<u8>> = (0..count)
                    .map(|_| {
                        number += 1;
                        format!("{number}:{}", "v".repeat(choices.below(900) as usize)).into_bytes()
                    })
                    .collect();
                let records: Vec<_> = values.iter().map(|value| NewRecord::new(value)).collect();
                oracle.histories[0].content.extend(values.iter().cloned());
                let asked =
                    [None, Some(Durability::Buffered), Some(Durability::Written), Some(Durability::Durable)];
                let receipt = log.append(&records, asked[choices.below(4) as usize], WhenFull::Wait)?;
                let asked = receipt.durability();
                let end = receipt.wait()?.offsets.end.get() as usize;
                let history = &mut oracle.histories[0];
                if asked >= Durability::Written {
                    history.written = history.written.max(end);
                }
                if asked >= Durability::Durable {
                    history.durable = history.durable.max(end);
                }
            }
            9 | 10 => drop(log.sync()?),
            11 => drop(log.write_staged()?),
            12 => log.roll()?,
            13 | 14 => {
                clock.advance_ms(60);
                log.maintain()?;
            }
            15 | 16 => {
                let end = log.log_end_offset().get();
                let start = log.log_start_offset().get();
                let cut = start + choices.below(end - start + 1);
                let mut cut_history = oracle.histories[0].clone();
                cut_history.content.truncate(cut as usize);
                cut_history.durable = cut_history.durable.min(cut as usize);
                cut_history.written = cut_history.written.min(cut as usize);
                oracle.histories.push(cut_history);
                log.truncate_to(Offset::new(cut))?;
                oracle.histories.remove(0);
                oracle.histories[0].durable = cut as usize;
                oracle.histories[0].written = cut as usize;
                oracle.visible = oracle.visible.min(cut as usize);
            }
            17 => {
                let end = log.log_end_offset().get();
                let start = log.log_start_offset().get();
                let to = start + choices.below(end - start + 1);
                oracle.log_starts.push(to);
                log.delete_records_before(Offset::new(to))?;
                oracle.log_starts = vec![log.log_start_offset().get()];
                let history = &mut oracle.histories[0];
                history.durable = history.durable.max(to as usize);
                history.written = history.written.max(to as usize);
            }
            _ => {
                if choices.below(2) == 0 {
                    log.close()?;
                    let history = &mut oracle.histories[0];
                    history.durable = history.content.len();
                    history.written = history.content.len();
                }
                // Dropping closes too, and cannot say whether that worked; an open that works tells.
                drop(log);
                log = open(disk, options(durability, &clock))?;
                let history = &mut oracle.histories[0];
                history.durable = history.content.len();
                history.written = history.content.len();
            }
        }
        let history = &mut oracle.histories[0];
        history.durable = history.durable.max(log.durable_offset().get() as usize);
        history.written = history.written.max(log.written_offset().get() as usize);
        oracle.visible = oracle.visible.max(log.visible_end(FetchIsolation::Visible).get() as usize);
    }
    log.close()?;
    let history = &mut oracle.histories[0];
    history.durable = history.content.len();
    history.written = history.content.len();
    Ok(())
}

fn read_all(log: &Log) -> Vec<Vec<u8>> {
    let mut from = log.log_start_offset();
    let mut all = Vec::new();
    while from < log.log_end_offset() {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::LogEnd, None).unwrap();
        all.extend(fetched.iter().map(|record| record.value().unwrap().to_vec()));
        assert!(fetched.next_offset() > from, "a fetch below the end moves on");
        from = fetched.next_offset();
    }
    all
}

/// Compares an opened log with what was promised. Returns what is wrong.
fn check(log: &Log, oracle: &Oracle, is_power_cut: bool) -> Result<(), String> {
    let report = log.recovery_report();
    if report.outcome == RecoveryOutcome::Corrupt {
        return Err(format!("P3: taken for damage: {:?}", report.corruption));
    }
    let (start, end) = (log.log_start_offset().get(), log.log_end_offset().get() as usize);
    if !oracle.log_starts.contains(&start) {
        return Err(format!("log start {start} was never set: {:?}", oracle.log_starts));
    }
    let found = read_all(log);
    let is_allowed = |history: &History| {
        let least = if is_power_cut { history.durable } else { history.written };
        end >= least
            && end <= history.content.len()
            && start as usize <= end
            && found[..] == history.content[start as usize..end]
    };
    if !oracle.histories.iter().any(is_allowed) {
        let promised: Vec<_> =
            oracle.histories.iter().map(|h| (h.durable, h.written, h.content.len())).collect();
        return Err(format!(
            "P1/P2: offsets {start} to {end} found; (durable, written, appended): {promised:?}"
        ));
    }
    if end < oracle.visible && log.epoch().get() <= oracle.epoch {
        return Err(format!(
            "P6: {} was visible, {end} is the end, the epoch is still {}",
            oracle.visible,
            log.epoch()
        ));
    }
    if end < oracle.visible && log.epoch_end(LogEpoch::new(oracle.epoch)).unwrap().get() as usize > end {
        return Err("P6: a lost position still looks valid".to_owned());
    }
    Ok(())
}

/// Opens what a crash left, checks it, appends to it, and opens it again. Also crashes within the recovery.
fn examine(
    disk: &SimDisk,
    oracle: &Oracle,
    is_power_cut: bool,
    choices: &mut Choices,
    depth: u32,
) -> Result<(), String> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(9_000)));
    let options = || options(Durability::Durable, &clock);
    if depth > 0 {
        // How many operations the recovery takes, and then a crash after some of them.
        let probe = disk.crash(|_, _| true);
        let before = probe.operation_count();
        drop(open(&probe, options()));
        let steps = probe.operation_count() - before;
        if steps > 1 {
            let interrupted = disk.crash(|_, _| true);
            interrupted.cut_power_after(choices.below(steps));
            drop(open(&interrupted, options()));
            let again = interrupted.crash(|_, _| choices.below(2) == 0);
            examine(&again, oracle, is_power_cut, choices, depth - 1).map_err(|error| {
                let trace = interrupted.latest_operations().join("\n    ");
                format!("after a crash within recovery: {error}\n    {trace}\n ")
            })?;
        }
    }
    let log = open(disk, options()).map_err(|error| format!("cannot open: {error}"))?;
    check(&log, oracle, is_power_cut)?;
    let end = log.log_end_offset();
    let appended = log.append(&[NewRecord::new(b"after")], None, WhenFull::Wait).and_then(|r| r.wait());
    match appended {
        Ok(appended) if appended.offsets.start == end => {}
        other => return Err(format!("an append after recovery gave {other:?}")),
    }
    let content = read_all(&log);
    let lost = disk.crash(|_, _| false);
    drop(log);
    let log = open(&lost, options()).map_err(|error| format!("cannot open again: {error}"))?;
    if read_all(&log) != content {
        return Err("a durable append after recovery is lost by the next power cut".to_owned());
    }
    Ok(())
}

/// Which of `pending` effects survive, one way after the other.
fn survivals(pending: usize, choices: &mut Choices, random: usize) -> Vec<Vec<bool>> {
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

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("POWER_CUT_SEEDS") else { return default };
    let (start, end) = text.split_once("..").expect("POWER_CUT_SEEDS is START..END");
    start.parse().expect("START is a number")..end.parse().expect("END is a number")
}

#[test]
fn every_power_cut_leaves_what_was_promised() {
    let (mut states, mut cuts) = (HashSet::new(), 0u64);
    for seed in seeds(0..14) {
        let whole = SimDisk::new(seed);
        let mut oracle = Oracle::default();
        run(&whole, seed, &mut oracle).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let operations = whole.operation_count();
        for cut in 0..operations {
            let disk = SimDisk::new(seed);
            disk.cut_power_after(cut);
            let mut oracle = Oracle::default();
            let ended = run(&disk, seed, &mut oracle);
            assert!(ended.is_err() || !disk.is_powered() || cut + 1 >= operations, "seed {seed} cut {cut}");
            if oracle.histories.is_empty() {
                continue;
            }
            cuts += 1;
            let mut choices = Choices::new(seed ^ cut << 20);
            let fail = |way: &dyn std::fmt::Debug, error: String| -> ! {
                let trace = disk.latest_operations().join("\n  ");
                panic!("seed {seed}, cut after operation {cut}, survived {way:?}: {error}\n  {trace}")
            };
            for way in survivals(disk.pending(), &mut choices, 6) {
                let image = disk.crash(|index, _| way[index]);
                if !states.insert(image.content_hash()) {
                    continue;
                }
                let depth = u32::from(choices.below(4) == 0);
                if let Err(error) = examine(&image, &oracle, true, &mut choices, depth) {
                    fail(&way, error);
                }
            }
            if let Err(error) = examine(&disk.kill(), &oracle, false, &mut choices, 0) {
                fail(&"everything: the process died", error);
            }
        }
    }
    println!("{} distinct states after {cuts} cuts", states.len());
    assert!(states.len() > 3_000 || std::env::var("POWER_CUT_SEEDS").is_ok(), "{} states", states.len());
}

#[test]
fn group_commits_from_several_threads_keep_every_acknowledged_record() {
    for round in 0..60u64 {
        let disk = SimDisk::new(round);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        let log = open(&disk, options(Durability::Durable, &clock)).unwrap();
        let acknowledged = Mutex::new(Vec::new());
        disk.cut_power_after(5 + round);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (log, acknowledged) = (&log, &acknowledged);
                scope.spawn(move || {
                    for n in 0..40 {
                        let value = format!("{thread}/{n}/{}", "w".repeat(200));
                        let receipt = log.append(&[NewRecord::new(value.as_bytes())], None, WhenFull::Wait);
                        let Ok(appended) = receipt.and_then(|receipt| receipt.wait()) else { return };
                        acknowledged.lock().unwrap().push((appended.offsets.start, value));
                    }
                });
            }
        });
        let acknowledged = acknowledged.into_inner().unwrap();
        let mut choices = Choices::new(round);
        for way in survivals(disk.pending(), &mut choices, 8) {
            let image = disk.crash(|index, _| way[index]);
            let log = open(&image, options(Durability::Durable, &clock)).unwrap();
            assert_ne!(log.recovery_report().outcome, RecoveryOutcome::Corrupt, "round {round}");
            let found = read_all(&log);
            for (offset, value) in &acknowledged {
                let at = found.get(offset.get() as usize);
                assert_eq!(
                    at.map(Vec::as_slice),
                    Some(value.as_bytes()),
                    "round {round}, offset {offset}, {way:?}"
                );
            }
            for thread in 0..4 {
                let own: Vec<_> =
                    found.iter().filter(|v| v.starts_with(format!("{thread}/").as_bytes())).collect();
                let is_prefix =
                    own.iter().zip(0..).all(|(v, n)| v.starts_with(format!("{thread}/{n}/").as_bytes()));
                assert!(is_prefix, "round {round}: in order and without a hole");
            }
        }
    }
}

#[test]
fn a_failed_sync_anywhere_acknowledges_nothing_that_is_then_lost() {
    let mut failed = 0;
    for seed in 0..6 {
        let whole = SimDisk::new(seed);
        run(&whole, seed, &mut Oracle::default()).unwrap();
        for nth in 1..=whole.operation_count() {
            let disk = SimDisk::new(seed);
            disk.fail_nth(nth, 5, false);
            let mut oracle = Oracle::default();
            if run(&disk, seed, &mut oracle).is_ok() || oracle.histories.is_empty() {
                continue;
            }
            failed += 1;
            let mut choices = Choices::new(nth);
            for way in survivals(disk.pending().min(24), &mut choices, 3) {
                let image = disk.crash(|index, _| way.get(index).copied().unwrap_or(index % 2 == 0));
                if let Err(error) = examine(&image, &oracle, true, &mut choices, 0) {
                    let trace = disk.latest_operations().join("\n  ");
                    panic!("seed {seed}, operation {nth} fails, {way:?}: {error}\n  {trace}");
                }
            }
        }
    }
    assert!(failed > 100, "{failed} runs failed");
}
