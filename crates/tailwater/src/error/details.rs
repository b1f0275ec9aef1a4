//! What errors tell in more than a few fields.

use std::path::PathBuf;

/// Two directories of which a catalog cannot know both.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} and {} {kind}", .first.display(), .second.display())]
pub struct Contradiction {
    /// One of them.
    pub first: PathBuf,
    /// The other.
    pub second: PathBuf,
    /// Why not.
    pub kind: ContradictionKind,
}

/// Why a catalog cannot know two directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContradictionKind {
    /// By their names they are of one topic, and they hold partitions of two.
    #[error("have the name of one topic, and are of two")]
    OneNameOfTwoTopics,
    /// By their names they are of two topics, and they hold partitions of one.
    #[error("have the names of two topics, and are of one")]
    TwoNamesOfOneTopic,
    /// The names of their topics differ only in case, so that they count as the same.
    #[error("have names of topics that differ only in case")]
    NamesDifferInCase,
}

/// A setting whose value cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key} cannot be {value:?}: it must be {expected}")]
pub struct InvalidSetting {
    /// The setting.
    pub key: &'static str,
    /// The text that it was to be.
    pub value: String,
    /// What it must look like.
    pub expected: Expected,
}

/// What a setting's text must look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Expected {
    /// A whole number in this unit.
    Number {
        /// The unit, such as `bytes`.
        unit: &'static str,
    },
    /// A whole number in this unit, or `none`.
    Limit {
        /// The unit, such as `bytes`.
        unit: &'static str,
    },
    /// One of a few words.
    Word {
        /// The words, separated by `|`.
        words: &'static str,
    },
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Number { unit } => write!(f, "a whole number of {unit}, without a unit"),
            Expected::Limit { unit } => write!(f, "a whole number of {unit}, without a unit, or none"),
            Expected::Word { words } => write!(f, "one of {}", words.replace('|', ", ")),
        }
    }
}
