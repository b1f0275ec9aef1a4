//! Public calls on a disk that fails and loses power, compared with what was promised.

#![no_main]

#[path = "../common/memory.rs"]
mod memory;
#[path = "../../crates/tailwater-log/tests/fuzz/operations_with_crashes.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory::run_bounded(data, target::run));
