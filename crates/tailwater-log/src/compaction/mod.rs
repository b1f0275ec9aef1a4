//! Compaction: of the records of each key the last one is kept, offsets and order unchanged.
//!
//! What is decided is decided here, from what is given: which segments are looked at (`plan`), which records of a batch stay
//! (`clean`, by what `key_map` knows and `body` reads), and how batches follow one another in what is written (`output`). Who
//! reads, writes and publishes is `log/compact`.

mod body;
mod clean;
mod key_map;
mod output;
mod plan;

pub(crate) use body::{Content, content, records};
pub(crate) use clean::{Cleaner, Outcome, offset_of};
pub(crate) use key_map::KeyMap;
pub(crate) use output::{Output, Written};
pub(crate) use plan::{LastPass, Plan, SegmentFacts, plan};
