//! Runs every input in `fuzz/corpus/` of this crate's fuzz targets, as the fuzzer would.
//!
//! The bodies of the targets are in `tests/fuzz/`; `cargo +nightly fuzz run TARGET` looks for more inputs.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod fuzz {
    pub(crate) mod command_line;
}
#[path = "../../../fuzz/common/memory.rs"]
mod memory;
#[path = "../../../fuzz/common/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn command_line() {
    replay("command_line", fuzz::command_line::run);
}
