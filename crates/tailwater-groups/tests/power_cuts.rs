//! Cuts the power after every storage operation of whole workloads, in many of the ways a disk may be left, and in the
//! recovery that follows; and compares what is found with what was promised.
//!
//! A failure prints the seed, the operation and the choice of what survived. `POWER_CUT_SEEDS=100..200` runs others.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::collections::HashSet;

use common::{
    Choices, State, attach, commit, group, metadata_of, open, partition, state_of, survivals, topic,
};
use tailwater_groups::{Commit, Error, GroupKind, GroupLifetime, GroupStore};
use tailwater_log::storage::SimDisk;

/// Every state that there was, in order, and which of them must not be lost any more.
#[derive(Debug, Default)]
struct Oracle {
    states: Vec<State>,
    durable: usize,
    /// The one that the last rewrite put at the start of the log: no reader sees an earlier one.
    rewritten: usize,
}

impl Oracle {
    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.states.last().unwrap().clone();
        change(&mut state);
        self.states.push(state);
    }

    fn is_all_durable(&mut self) {
        self.durable = self.states.len() - 1;
    }
}

/// Runs the workload of `seed` until it ends or the power is cut, keeping the oracle up to date.
fn run(disk: &SimDisk, seed: u64, oracle: &mut Oracle) -> Result<(), Error> {
    let mut choices = Choices::new(seed);
    *oracle = Oracle { states: vec![State::new()], ..Oracle::default() };
    let mut store = open(disk)?;
    for _ in 0..26 + seed % 8 {
        let id = group(["billing", "shipping", "x"][choices.below(3) as usize]);
        match choices.below(20) {
            0..=8 => {
                // Up to six positions, each a step forward, so that small segments roll now and then.
                let current = oracle.states.last().unwrap().get(id.as_str()).cloned();
                let kind = current.as_ref().map_or(
                    [GroupKind::Consumer, GroupKind::Share][choices.below(2) as usize],
                    |(kind, _)| *kind,
                );
                let set: Vec<_> = (0..1 + choices.below(6))
                    .map(|n| {
                        let key = ((1 + n % 2) as u8, (n / 2) as u32);
                        let old = current.as_ref().and_then(|(_, offsets)| offsets.get(&key)).copied();
                        (key, old.unwrap_or(0) + choices.below(40))
                    })
                    .collect();
                commit_set(&store, &id, kind, &set, choices.below(3) == 0, oracle)?;
            }
            9 | 10 => {
                let key = (1, choices.below(3) as u32);
                let offset = choices.below(90);
                oracle.change(|state| {
                    let (_, offsets) =
                        state.entry(id.to_string()).or_insert((GroupKind::Consumer, [].into()));
                    offsets.insert(key, offset);
                });
                let metadata = metadata_of(offset);
                let reset = Commit { metadata: &metadata, ..commit(partition(key.0, key.1), offset) };
                let receipt = store.set_positions(&id, &[reset])?;
                if choices.below(2) == 0 {
                    receipt.wait()?;
                    oracle.is_all_durable();
                }
            }
            11 | 12 => {
                let is_there = oracle.states.last().unwrap().contains_key(id.as_str());
                if is_there {
                    oracle.change(|state| drop(state.remove(id.as_str())));
                }
                match store.delete_group(&id) {
                    Err(Error::UnknownGroup { .. }) if !is_there => {}
                    Err(error) => return Err(error),
                    Ok(receipt) => {
                        receipt.wait()?;
                        oracle.is_all_durable();
                    }
                }
            }
            13 => {
                let gone = 1 + choices.below(2) as u8;
                oracle.change(|state| {
                    state.values_mut().for_each(|(_, offsets)| offsets.retain(|key, _| key.0 != gone));
                });
                store.forget_topics(|id| id == topic(gone))?;
            }
            14..=16 => {
                if store.rewrite()? {
                    oracle.is_all_durable();
                    oracle.rewritten = oracle.durable;
                }
            }
            17 => {
                store.log().sync()?;
                oracle.is_all_durable();
            }
            18 => drop(store.log().maintain()?),
            _ => {
                if choices.below(2) == 0 {
                    store.log().close()?;
                    oracle.is_all_durable();
                }
                // Dropping closes too, and cannot say whether that worked: then it is the open that finds what is left.
                drop(store);
                store = open(disk)?;
                let found = state_of(&store);
                assert!(oracle.states[oracle.durable..].contains(&found), "seed {seed}: {found:?}");
                oracle.states.push(found);
                oracle.is_all_durable();
            }
        }
        assert_eq!(state_of(&store), *oracle.states.last().unwrap(), "seed {seed}: read your writes");
    }
    store.log().close()?;
    oracle.is_all_durable();
    Ok(())
}

fn commit_set(
    store: &GroupStore,
    id: &tailwater_groups::GroupId,
    kind: GroupKind,
    set: &[((u8, u32), u64)],
    is_awaited: bool,
    oracle: &mut Oracle,
) -> Result<(), Error> {
    let member = store.join_exclusively(id, kind, GroupLifetime::Lasting)?;
    oracle.change(|state| {
        let (_, offsets) = state.entry(id.to_string()).or_insert((kind, [].into()));
        offsets.extend(set.iter().copied());
    });
    let texts: Vec<_> = set.iter().map(|(_, offset)| metadata_of(*offset)).collect();
    let commits: Vec<_> = set
        .iter()
        .zip(&texts)
        .map(|((key, offset), metadata)| Commit { metadata, ..commit(partition(key.0, key.1), *offset) })
        .collect();
    let receipt = member.commit(&commits)?;
    if let Some(receipt) = receipt.filter(|_| is_awaited) {
        receipt.wait()?;
        oracle.is_all_durable();
    }
    Ok(())
}

/// Opens what a crash left, and compares. Then commits and opens again. Also crashes within the recovery.
fn examine(
    disk: &SimDisk,
    oracle: &Oracle,
    choices: &mut Choices,
    depth: u32,
    is_recovery_cut: bool,
) -> Result<(), String> {
    if depth > 0 {
        let probe = disk.crash(|_, _| true);
        let before = probe.operation_count();
        drop(open(&probe));
        let steps = probe.operation_count() - before;
        if steps > 1 {
            let interrupted = disk.crash(|_, _| true);
            interrupted.cut_power_after(choices.below(steps));
            drop(open(&interrupted));
            let again = interrupted.crash(|_, _| choices.below(2) == 0);
            examine(&again, oracle, choices, depth - 1, true)
                .map_err(|error| format!("after a crash within recovery: {error}"))?;
        }
    }
    let has_log = disk.file_paths().iter().any(|path| path.extension().is_some_and(|e| e == "log"));
    if has_log {
        // A reader beside a writer that is not there any more: what was recorded as durable, so a state there was.
        match attach(disk).map(|attached| state_of(&attached)) {
            Ok(seen) if oracle.states[oracle.rewritten..].contains(&seen) => {}
            Ok(seen) => return Err(format!("an attached store shows what is gone, or never was: {seen:?}")),
            Err(Error::RecoveryPending { .. }) if is_recovery_cut => {}
            Err(error) => return Err(format!("cannot attach: {error}")),
        }
    }
    let store = open(disk).map_err(|error| format!("cannot open: {error}"))?;
    let found = state_of(&store);
    if !oracle.states[oracle.durable..].contains(&found) {
        let was_ever = oracle.states.contains(&found);
        return Err(format!(
            "found (was there ever: {was_ever}) {found:?}; promised {:?}",
            &oracle.states[oracle.durable..]
        ));
    }
    let id = group("after");
    let _ = store.set_positions(&id, &[commit(partition(1, 0), 1)]).unwrap().wait();
    store.rewrite().map_err(|error| format!("cannot rewrite: {error}"))?;
    let expected = state_of(&store);
    let store = open(&disk.crash(|_, _| false)).map_err(|error| format!("cannot open again: {error}"))?;
    if state_of(&store) != expected || !expected.contains_key("after") {
        return Err("a durable commit after the recovery is lost by the next power cut".to_owned());
    }
    Ok(())
}

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("POWER_CUT_SEEDS") else { return default };
    let (start, end) = text.split_once("..").expect("POWER_CUT_SEEDS is START..END");
    start.parse().expect("START is a number")..end.parse().expect("END is a number")
}

#[test]
fn every_power_cut_leaves_a_state_that_was_promised() {
    let (mut states, mut cuts) = (HashSet::new(), 0u64);
    for seed in seeds(0..16) {
        let whole = SimDisk::new(seed);
        run(&whole, seed, &mut Oracle::default()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let operations = whole.operation_count();
        for cut in 0..operations {
            let disk = SimDisk::new(seed);
            disk.cut_power_after(cut);
            let mut oracle = Oracle::default();
            let ended = run(&disk, seed, &mut oracle);
            assert!(ended.is_err() || !disk.is_powered() || cut + 1 >= operations, "seed {seed}, cut {cut}");
            cuts += 1;
            let mut choices = Choices::new(seed ^ cut << 20);
            let fail = |way: &dyn std::fmt::Debug, error: String| -> ! {
                let trace = disk.latest_operations().join("\n  ");
                panic!("seed {seed}, cut after operation {cut}, survived {way:?}: {error}\n  {trace}")
            };
            for way in survivals(disk.pending(), &mut choices, 4) {
                let image = disk.crash(|index, _| way[index]);
                if !states.insert(image.content_hash()) {
                    continue;
                }
                let depth = u32::from(choices.below(4) == 0);
                if let Err(error) = examine(&image, &oracle, &mut choices, depth, false) {
                    fail(&way, error);
                }
            }
            if let Err(error) = examine(&disk.kill(), &oracle, &mut choices, 0, false) {
                fail(&"everything: the process died", error);
            }
        }
    }
    println!("{} distinct states after {cuts} cuts", states.len());
    assert!(states.len() > 3_000 || std::env::var("POWER_CUT_SEEDS").is_ok(), "{} states", states.len());
}

#[test]
fn a_failing_operation_anywhere_acknowledges_nothing_that_is_then_lost() {
    let mut failed = 0;
    for (seed, errno) in (0..8).flat_map(|seed| [(seed, 5), (seed, 28)]) {
        let whole = SimDisk::new(seed);
        run(&whole, seed, &mut Oracle::default()).unwrap();
        for nth in 1..=whole.operation_count() {
            let disk = SimDisk::new(seed);
            disk.fail_nth(nth, errno, false);
            let mut oracle = Oracle::default();
            if run(&disk, seed, &mut oracle).is_ok() {
                continue;
            }
            failed += 1;
            let mut choices = Choices::new(nth);
            for way in survivals(disk.pending().min(24), &mut choices, 3) {
                let image = disk.crash(|index, _| way.get(index).copied().unwrap_or(index % 2 == 0));
                if let Err(error) = examine(&image, &oracle, &mut choices, 0, false) {
                    let trace = disk.latest_operations().join("\n  ");
                    panic!("seed {seed}, operation {nth} fails with {errno}, {way:?}: {error}\n  {trace}");
                }
            }
        }
    }
    assert!(failed > 500, "{failed} runs failed");
}

#[test]
fn a_rewrite_that_fails_at_any_operation_leaves_everything_as_it_was() {
    let (mut retried, mut stopped) = (0, 0);
    let prepared = |disk: &SimDisk| {
        let store = open(disk).unwrap();
        for offset in 1..30 {
            let set = [0, 1, 2, 3].map(|number| commit(partition(1, number), offset));
            drop(store.set_positions(&group("billing"), &set).unwrap());
            drop(store.set_positions(&group("gone"), &set).unwrap());
        }
        drop(store.delete_group(&group("gone")).unwrap());
        store
    };
    for errno in [5, 28] {
        for nth in 1.. {
            let disk = SimDisk::new(1);
            let store = prepared(&disk);
            let (before, end) = (state_of(&store), store.log().log_end_offset());
            disk.fail_nth(nth, errno, false);
            let rewritten = store.rewrite();
            assert_eq!(state_of(&store), before);
            if rewritten.is_ok() && store.log().log_start_offset() == end {
                break;
            }
            let is_durable = store.log().durable_offset() >= end;
            for survives in [false, true] {
                let found = open(&disk.crash(|_, _| survives)).unwrap();
                assert!(!is_durable || state_of(&found) == before, "operation {nth} fails with {errno}");
            }
            // Unless the log itself has stopped, the next try succeeds.
            if store.log().is_failed() {
                stopped += 1;
            } else {
                retried += 1;
                let disk = SimDisk::new(1);
                let store = prepared(&disk);
                disk.fail_nth(nth, errno, false);
                assert!(store.rewrite().is_err());
                assert!(store.rewrite().unwrap());
                assert_eq!(state_of(&open(&disk.crash(|_, _| false)).unwrap()), before);
            }
        }
    }
    println!("{retried} were tried again, {stopped} stopped the log");
    assert!(retried > 5 && stopped > 5, "{retried} were tried again, {stopped} stopped the log");
}
