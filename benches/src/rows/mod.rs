//! The rows of the comparison: one question a file.

mod append_batches;
mod append_buffered;
mod append_written;
mod commit;
mod compressed;
mod durable_one;
mod durable_pipelined;
mod durable_threads;
mod facade;
mod hand_over;
pub mod open;
mod random_read;
mod rebalance;
mod scan;
mod tried_map;
mod tried_sync;

use crate::contest::Row;

/// All rows, in the order in which they are run and shown.
pub const ALL: &[Row] = &[
    append_buffered::SMALL,
    append_buffered::LARGE,
    append_written::ROW,
    append_batches::SMALL,
    append_batches::LARGE,
    durable_one::ROW,
    durable_threads::SIXTEEN,
    durable_threads::SIXTY_FOUR,
    durable_pipelined::ROW,
    commit::ONE,
    commit::SIXTEEN,
    commit::SIXTY_FOUR,
    rebalance::ROW,
    scan::ROW,
    compressed::ROW,
    random_read::ROW,
    hand_over::POLLING,
    hand_over::WAITING,
    open::CLEAN,
    open::KILLED,
    facade::ROW,
];

/// What else was tried, in place of what is done: without Tailwater.
pub const TRIED: &[Row] = &[tried_sync::ROW, tried_map::ROW];

/// Size of a record's value where a row does not say otherwise, in bytes.
pub const VALUE_BYTES: usize = 1024;

/// A value that compresses badly and is the same in every run.
#[must_use]
pub fn value(size_bytes: usize) -> Vec<u8> {
    let mut next = crate::measure::scattered(256);
    (0..size_bytes).map(|_| u8::try_from(next()).unwrap_or(0)).collect()
}
