//! A valid log with its files damaged.

#![no_main]

#[path = "../common/memory.rs"]
mod memory;
#[path = "../../crates/tailwater-log/tests/fuzz/edit_valid_log.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory::run_bounded(data, target::run));
