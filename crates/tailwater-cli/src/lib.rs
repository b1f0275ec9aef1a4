//! What the command `tailwater` parses and prints, as pure functions: text and bytes in, values out.
//!
//! The command itself is in `main.rs`; nothing here opens a file or a directory. Every parser takes any input: it never
//! panics, and allocates no more than its input bounds.

#![forbid(unsafe_code)]

pub mod escapes;
pub mod format;
pub mod json;
pub mod lines;
pub mod pairs;
pub mod similar;
pub mod time;
