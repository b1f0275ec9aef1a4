//! Any bytes as the catalog of a data directory.

#![no_main]

#[path = "../common/memory.rs"]
mod memory;
#[path = "../../crates/tailwater/tests/fuzz/open_catalog.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory::run_bounded(data, target::run));
