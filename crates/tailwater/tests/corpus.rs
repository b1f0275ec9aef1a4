//! Runs every input in `fuzz/corpus/` of this crate's fuzz targets, as the fuzzer would.
//!
//! The bodies of the targets are in `tests/fuzz/`; `cargo +nightly fuzz run TARGET` looks for more inputs.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod fuzz {
    pub(crate) mod open_catalog;
}
#[path = "../../../fuzz/common/memory.rs"]
mod memory;
#[path = "../../../fuzz/common/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn open_catalog() {
    replay("open_catalog", fuzz::open_catalog::run);
}
