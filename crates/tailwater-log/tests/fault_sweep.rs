//! Fails the n-th operation on the disk, for every n and every error number, once and for ever: what was acknowledged is
//! there, nothing is there twice, and the error says what the disk said. (The method is SQLite's: "How SQLite Is
//! Tested", section 3.)

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;
#[path = "searches/fault_sweep.rs"]
mod search;

#[test]
fn a_failed_change_loses_nothing_that_was_acknowledged() {
    search::a_failed_change_loses_nothing_that_was_acknowledged();
}

#[test]
fn a_failed_open_loses_nothing_that_was_acknowledged() {
    search::a_failed_open_loses_nothing_that_was_acknowledged();
}

#[test]
fn a_failed_read_loses_nothing_that_was_acknowledged() {
    search::a_failed_read_loses_nothing_that_was_acknowledged();
}
