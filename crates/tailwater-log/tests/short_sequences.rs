//! Every sequence of at most three public calls on a fresh directory, with the power cut at every operation of the last.
//!
//! Short sequences find most crash bugs (Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash
//! Testing", OSDI 2018). Each prefix of a sequence is a sequence too, so only the operations of the last call are cut.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;
#[path = "searches/short_sequences.rs"]
mod search;

#[test]
fn a_durable_log_keeps_its_promises_through_every_short_sequence() {
    search::a_durable_log_keeps_its_promises_through_every_short_sequence();
}

#[test]
fn a_lazy_log_keeps_its_promises_through_every_short_sequence() {
    search::a_lazy_log_keeps_its_promises_through_every_short_sequence();
}
