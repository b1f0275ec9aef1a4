//! Compaction, rule by rule (K1 to K8), and against a model of any sequence of calls.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod fixture;
mod model;
mod rules;
