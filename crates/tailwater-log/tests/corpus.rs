//! Runs every input in `fuzz/corpus/` of this crate's fuzz targets, as the fuzzer would.
//!
//! The bodies of the targets are in `tests/fuzz/`; `cargo +nightly fuzz run TARGET` looks for more inputs.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod fuzz {
    pub(crate) mod decode;
    pub(crate) mod edit_valid_log;
    pub(crate) mod open_directory;
    pub(crate) mod operations_with_crashes;
}
#[path = "../../../fuzz/common/memory.rs"]
mod memory;
#[path = "../../../fuzz/common/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn decode() {
    replay("decode", fuzz::decode::run);
}

#[test]
fn edit_valid_log() {
    replay("edit_valid_log", fuzz::edit_valid_log::run);
}

#[test]
fn open_directory() {
    replay("open_directory", fuzz::open_directory::run);
}

#[test]
fn operations_with_crashes() {
    replay("operations_with_crashes", fuzz::operations_with_crashes::run);
}
