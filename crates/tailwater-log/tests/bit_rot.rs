//! Damages every bit, every length and every sector of a small log: never a wrong record, never a panic, never a silent
//! loss below the durable mark, and what is not damaged stays readable.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;
#[path = "searches/bit_rot.rs"]
mod search;

#[test]
fn no_flipped_bit_of_a_closed_log_is_taken_for_data() {
    search::no_flipped_bit_of_a_closed_log_is_taken_for_data();
}

#[test]
fn no_flipped_bit_of_a_log_that_lost_power_is_taken_for_data() {
    search::no_flipped_bit_of_a_log_that_lost_power_is_taken_for_data();
}

#[test]
fn a_file_cut_anywhere_costs_only_what_was_cut_off() {
    search::a_file_cut_anywhere_costs_only_what_was_cut_off();
}

#[test]
fn sectors_that_are_zeroed_or_swapped_or_older_are_never_taken_for_data() {
    search::sectors_that_are_zeroed_or_swapped_or_older_are_never_taken_for_data();
}

#[test]
fn a_missing_file_is_told_and_costs_only_what_was_in_it() {
    search::a_missing_file_is_told_and_costs_only_what_was_in_it();
}
