//! Cuts the power after every operation of whole workloads, in many of the ways a disk may be left, and in the recovery
//! that follows; and compares what is found with what was promised.
//!
//! A failure prints the seed, the operation and the choice of what survived. `POWER_CUT_SEEDS=100..200` runs others.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;
#[path = "searches/power_cuts.rs"]
mod search;

#[test]
fn every_power_cut_leaves_what_was_promised() {
    search::every_power_cut_leaves_what_was_promised();
}

#[test]
#[cfg(all(feature = "lz4", feature = "zstd"))]
fn every_power_cut_leaves_what_was_promised_of_compressed_batches() {
    search::every_power_cut_leaves_what_was_promised_of_compressed_batches();
}

#[test]
fn group_commits_from_several_threads_keep_every_acknowledged_record() {
    search::group_commits_from_several_threads_keep_every_acknowledged_record();
}

#[test]
fn a_failed_sync_anywhere_acknowledges_nothing_that_is_then_lost() {
    search::a_failed_sync_anywhere_acknowledges_nothing_that_is_then_lost();
}
