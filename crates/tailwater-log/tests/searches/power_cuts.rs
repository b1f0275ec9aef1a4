//! Cuts the power after every operation of whole workloads, in many of the ways a disk may be left, and in the recovery
//! that follows; and compares what is found with what was promised.
//!
//! A failure prints the seed, the operation and the choice of what survived. `POWER_CUT_SEEDS=100..200` runs others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_log::storage::SimDisk;
use tailwater_log::{
    Compression, Durability, Error, ManualClock, NewRecord, RecoveryOutcome, Timestamp, WhenFull,
};

use crate::common::oracle::{Choices, Oracle, Search, open, options, read_to, survivals};
use crate::common::workload::{At, Call, Driven};

/// Runs the workload of `seed` until it ends or the power is cut. Returns what was promised, and how it ended.
fn run(disk: &SimDisk, seed: u64, is_faulty: bool) -> (Oracle, Result<(), Error>) {
    run_compressed(disk, seed, Compression::None, is_faulty)
}

fn run_compressed(
    disk: &SimDisk,
    seed: u64,
    compression: Compression,
    is_faulty: bool,
) -> (Oracle, Result<(), Error>) {
    let mut choices = Choices::new(seed);
    let durability = if seed.is_multiple_of(3) { Durability::Written } else { Durability::Durable };
    let mut driven = Driven::new(disk.clone(), durability);
    driven.is_faulty = is_faulty;
    driven.compression = compression;
    for _ in 0..24 + seed % 8 {
        if let Err(error) = driven.perform(&random_call(&mut choices)) {
            return (driven.oracle, Err(error));
        }
    }
    let ended = driven.perform(&Call::Reopen);
    (driven.oracle, ended)
}

fn random_call(choices: &mut Choices) -> Call {
    match choices.below(26) {
        0..=8 => {
            let sizes = (0..1 + choices.below(4)).map(|_| choices.below(900) as usize).collect();
            let asked =
                [None, Some(Durability::Buffered), Some(Durability::Written), Some(Durability::Durable)];
            Call::Append(sizes, asked[choices.below(4) as usize])
        }
        9 | 10 => Call::Sync,
        11 => Call::WriteStaged,
        12 => Call::Roll,
        13 | 14 => Call::Maintain { after_ms: 60 },
        15 | 16 => Call::TruncateTo(At::Nth(choices.next() >> 33)),
        17 | 18 => Call::CloseFiles,
        20 => Call::Retain { bytes: choices.below(8) * 1_000, held: At::Nth(choices.next() >> 33) },
        21 => Call::MakeSpace { bytes: choices.below(8_000), up_to: At::Nth(choices.next() >> 33) },
        19 => Call::DeleteBefore(At::Nth(choices.next() >> 33)),
        22 | 23 => Call::Compact { after_ms: 600 },
        _ if choices.below(2) == 0 => Call::Reopen,
        _ => Call::DropAndReopen,
    }
}

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("POWER_CUT_SEEDS") else { return default };
    let (start, end) = text.split_once("..").expect("POWER_CUT_SEEDS is START..END");
    start.parse().expect("START is a number")..end.parse().expect("END is a number")
}

pub(crate) fn every_power_cut_leaves_what_was_promised() {
    let search = cut_everywhere(seeds(0..10), |_| Compression::None);
    println!("rules: {}", search.rules());
    assert!(search.images() > 100_000 || std::env::var("POWER_CUT_SEEDS").is_ok(), "too few");
}

/// Batches are cut short between staging and disk when they are compressed; half of them are not, since they would not get
/// smaller.
#[cfg(all(feature = "lz4", feature = "zstd"))]
#[cfg_attr(
    feature = "planted-mistakes",
    allow(dead_code, reason = "not one of the searches that find those")
)]
pub(crate) fn every_power_cut_leaves_what_was_promised_of_compressed_batches() {
    let both = [Compression::Lz4, Compression::Zstd];
    let search = cut_everywhere(seeds(0..6), |seed| both[(seed % 2) as usize]);
    println!("rules: {}", search.rules());
    assert!(search.images() > 30_000 || std::env::var("POWER_CUT_SEEDS").is_ok(), "too few");
}

/// Cuts the power at each operation of the workloads of `seeds`.
fn cut_everywhere(seeds: std::ops::Range<u64>, compression: impl Fn(u64) -> Compression) -> Search {
    let (mut search, mut cuts) = (Search::default(), 0u64);
    for seed in seeds {
        let run = |disk: &SimDisk| run_compressed(disk, seed, compression(seed), false);
        let whole = SimDisk::new(seed);
        run(&whole).1.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let operations = whole.operation_count();
        let (states, images) = (search.states(), search.images());
        for cut in 0..operations {
            let disk = SimDisk::new(seed);
            disk.cut_power_after(cut);
            let (oracle, ended) = run(&disk);
            assert!(ended.is_err() || !disk.is_powered() || cut + 1 >= operations, "seed {seed} cut {cut}");
            cuts += 1;
            let mut choices = Choices::new(seed ^ cut << 20);
            let fail = |way: &dyn std::fmt::Debug, error: String| -> ! {
                let trace = disk.latest_operations().join("\n  ");
                panic!("seed {seed}, cut after operation {cut}, survived {way:?}: {error}\n  {trace}")
            };
            for way in survivals(disk.pending(), &mut choices, 6) {
                let image = disk.crash(|index, _| way[index]);
                let depth = [3, 2, 1, 1, 0, 0, 0, 0][choices.below(8) as usize];
                if let Err(error) = search.examine(&image, &oracle, true, &mut choices, depth) {
                    fail(&way, error);
                }
            }
            if let Err(error) = search.examine(&disk.kill(), &oracle, false, &mut choices, 0) {
                fail(&"everything: the process died", error);
            }
        }
        let (states, images) = (search.states() - states, search.images() - images);
        println!("seed {seed}: {operations} cuts, {states} new states, {images} new disks");
        assert!(images > 500, "seed {seed}: too few");
    }
    println!("{} states, {} of them different disks, after {cuts} cuts", search.states(), search.images());
    search
}

pub(crate) fn group_commits_from_several_threads_keep_every_acknowledged_record() {
    for round in 0..60u64 {
        // Others append while one syncs.
        let disk = SimDisk::new(round).with_sync_time(Duration::from_micros(200));
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
            let found = read_to(&log, log.log_end_offset().get()).unwrap();
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

pub(crate) fn a_failed_sync_anywhere_acknowledges_nothing_that_is_then_lost() {
    let (mut search, mut failed) = (Search::default(), 0_u64);
    for seed in 0..6 {
        let whole = SimDisk::new(seed);
        run(&whole, seed, false).1.unwrap();
        for nth in 1..=whole.operation_count() {
            let disk = SimDisk::new(seed);
            disk.fail_nth(nth, 5, false);
            let (oracle, ended) = run(&disk, seed, true);
            // Also where nobody was told of it: then nothing may come of it either.
            failed += u64::from(ended.is_err());
            let mut choices = Choices::new(nth);
            for way in survivals(disk.pending().min(24), &mut choices, 3) {
                let image = disk.crash(|index, _| way.get(index).copied().unwrap_or(index % 2 == 0));
                if let Err(error) = search.examine(&image, &oracle, true, &mut choices, 0) {
                    let trace = disk.latest_operations().join("\n  ");
                    panic!("seed {seed}, operation {nth} fails, {way:?}: {error}\n  {trace}");
                }
            }
        }
    }
    assert!(failed > 100, "{failed} runs failed");
}
