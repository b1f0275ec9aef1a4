//! The protocol by which a partition is written, closed, recovered and cut, as a model that is small enough to go
//! through every state: one partition, every operation cut after every step, every subset of what was not synced,
//! failed syncs, rot, and crashes within recoveries.
//!
//! The model is the specification that the engine is held to by the other tests; here the specification is held to its
//! own promises, and each of its rules ([`rules::Rule`]) is shown to be there for a reason: left out, the search finds
//! the sequence that breaks a promise.
//!
//! A batch is one cell of a file and holds one record. Not modelled: batches of several records, read-only
//! attachment, quarantine, full disks, directory syncs that fail and later lie.
//!
//! `PROTOCOL_MODEL_MORE=1 cargo test -p tailwater-log --test protocol_model -- --nocapture` goes one operation further
//! in each scope, which takes minutes and some GB of memory, and takes a hundred times as many random walks.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod disk;
mod history;
mod operations;
mod process;
mod recovery;
mod rules;
mod search;
mod state;

use rules::{Rule, Rules, Scope};

/// How many operations more than by default.
fn more() -> u8 {
    std::env::var("PROTOCOL_MODEL_MORE").map_or(0, |text| text.parse().expect("a number of operations"))
}

fn scope(operations: u8, crashes: u8) -> Scope {
    Scope { operations, crashes, ..Scope::default() }
}

fn keeps_its_promises(name: &str, scope: Scope) {
    let scope = Scope { operations: scope.operations + more(), ..scope };
    let found = search::all_states(Rules::all(), &scope, false);
    println!("{name}: {found}");
    assert!(found.broken.is_empty(), "{name}: {found}");
    assert!(found.states > 10_000, "{name}: a search of so little shows nothing: {found}");
}

#[test]
fn the_protocol_survives_torn_writes_and_two_crashes() {
    let scope = Scope { has_torn_batches: true, copies_whole_segment: true, ..scope(4, 2) };
    keeps_its_promises("torn writes", scope);
}

#[test]
fn the_protocol_survives_three_crashes() {
    keeps_its_promises("three crashes", Scope { has_torn_batches: true, ..scope(3, 3) });
}

#[test]
fn the_protocol_survives_a_failed_sync() {
    keeps_its_promises("failed sync", Scope { failed_syncs: 1, copies_whole_segment: true, ..scope(4, 2) });
    let prefix = Scope { truncation_keeps_prefix: true, has_torn_batches: true, ..scope(4, 1) };
    keeps_its_promises("failed sync, truncation within a segment", Scope { failed_syncs: 1, ..prefix });
}

#[test]
fn the_protocol_reports_a_rotten_batch_and_survives_a_rotten_slot() {
    keeps_its_promises(
        "rotten batch",
        Scope { has_rotten_batch: true, copies_whole_segment: true, ..scope(4, 2) },
    );
    keeps_its_promises("rotten slot", Scope { has_rotten_slot: true, ..scope(4, 1) });
}

#[test]
fn the_protocol_survives_many_rolls() {
    keeps_its_promises("rolls", Scope { is_about_rolls: true, failed_syncs: 1, ..scope(7, 2) });
    keeps_its_promises("more rolls", Scope { is_about_rolls: true, ..scope(9, 1) });
}

#[test]
fn the_protocol_survives_random_walks_with_four_crashes() {
    let scope = Scope { failed_syncs: 2, has_torn_batches: true, copies_whole_segment: true, ..scope(12, 4) };
    let walks = if more() > 0 { 100_000 } else { 1_000 };
    let found = search::random_walks(Rules::all(), &scope, walks);
    println!("{walks} random walks: {found}");
    assert!(found.broken.is_empty() && found.states > 5_000, "{found}");
}

/// The rules to leave out, together, and the smallest scope in which the search then finds a broken promise.
fn needed_rules() -> Vec<(&'static [Rule], Scope)> {
    let whole_copy = |scope: Scope| Scope { copies_whole_segment: true, ..scope };
    let failed_sync = |scope: Scope| Scope { failed_syncs: 1, ..scope };
    let rotten_slot = |scope: Scope| Scope { has_rotten_slot: true, ..scope };
    let rolls = |scope: Scope| Scope { is_about_rolls: true, ..scope };
    vec![
        (&[Rule::SyncBeforeRecovery], failed_sync(scope(2, 2))),
        (&[Rule::UnlinkAfterCommit], whole_copy(failed_sync(scope(3, 2)))),
        (&[Rule::CleanNamesLast], scope(3, 1)),
        (&[Rule::ScanStartIsCurrent], scope(2, 2)),
        (&[Rule::MarksOfHighestEpoch], whole_copy(scope(4, 2))),
        (&[Rule::DirtyBeforeAppend], scope(2, 2)),
        (&[Rule::TruncateSyncs], scope(2, 1)),
        (&[Rule::DeleteSyncsNames], scope(2, 2)),
        (&[Rule::DeleteIsDirty], scope(3, 2)),
        (&[Rule::BothSlots], rotten_slot(scope(4, 2))),
        (&[Rule::FreshCheckpoint], failed_sync(scope(4, 2))),
        (&[Rule::RecoveredIsDirty], whole_copy(failed_sync(scope(3, 2)))),
        (&[Rule::FailedCloseIsDirty], failed_sync(scope(4, 2))),
        (&[Rule::WholeCopyToEnd], whole_copy(scope(3, 1))),
        (&[Rule::BadSlotIsDirty], rotten_slot(scope(2, 1))),
        // These are needed only in pairs: each keeps what the other is for. It takes nine operations to miss the first two.
        (&[Rule::FooterBehindDurable, Rule::RollBehindOwnName], rolls(scope(9, 1))),
        // A close that rewrites a clean mark does harm once marks that may not be durable count as clean.
        (&[Rule::UnusedCloseWritesNothing, Rule::FailedCloseIsDirty], failed_sync(scope(3, 2))),
    ]
}

#[test]
fn every_rule_left_out_breaks_a_promise() {
    for (left_out, scope) in needed_rules() {
        let found = search::all_states(Rules::without(left_out), &scope, true);
        println!("without {left_out:?}: {found}");
        assert!(!found.broken.is_empty(), "nothing breaks without {left_out:?} in {scope:?}: {found}");
        for rule in left_out.iter().filter(|_| left_out.len() > 1) {
            let found = search::all_states(Rules::without(&[*rule]), &scope, true);
            assert!(found.broken.is_empty(), "{rule:?} is needed by itself: {found}");
        }
    }
    // No trace needs the last one: epochs of checkpoints that outlive their segments are not met in the model.
    let is_needed = |rule: &Rule| needed_rules().iter().any(|(left_out, _)| left_out.contains(rule));
    let unneeded: Vec<_> = Rule::ALL.iter().filter(|rule| !is_needed(rule)).collect();
    assert_eq!(unneeded, [&Rule::EpochAboveCheckpoint]);
}
