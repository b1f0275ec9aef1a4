//! Any text to the parsers of the command.

#![no_main]

#[path = "../common/memory.rs"]
mod memory;
#[path = "../../crates/tailwater-cli/tests/fuzz/command_line.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory::run_bounded(data, target::run));
