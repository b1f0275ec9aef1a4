//! Measures Tailwater: beside bare loops over the same system calls, beside published crates, and as it grows.
//!
//! | Command | Answers |
//! |---|---|
//! | `cargo run --release -p tailwater-benches --bin compare -- RESULTS` | each workload as a ratio to its bare baseline, in rounds that are interleaved |
//! | the same with `--features peers`, `--peers all` | the same workloads over published crates, side by side in one run |
//! | `cargo run --release -p tailwater-benches --bin growth -- --out RESULTS all` | what becomes of speed and memory as logs, partitions, threads, records and batches grow |
//! | `cargo bench -p tailwater-benches` | the same baselines under criterion, for a look at a change |
//!
//! Each takes `--help`. They write Markdown, CSV and SVG; results are never written by hand.

pub mod baseline;
pub mod contest;
pub mod groups;
pub mod host;
pub mod measure;
pub mod peer;
pub mod peers;
pub mod plot;
pub mod report;
pub mod rows;
pub mod series;
pub mod subject;
