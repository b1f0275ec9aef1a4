//! A directory of files with any names and any contents, opened as a log.

#![no_main]

#[path = "../common/memory.rs"]
mod memory;
#[path = "../../crates/tailwater-log/tests/fuzz/open_directory.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory::run_bounded(data, target::run));
