//! The topics that there are, as a group sees them, and patterns of their names.

use std::fmt;
use std::sync::Arc;

use glob::{MatchOptions, Pattern};
use tailwater_log::TopicId;

/// A topic that groups can subscribe to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// Its id. A topic that is created again under the same name has another one.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has. Never goes down.
    pub partition_count: u32,
}

/// All topics at one time. Shared by the groups, which keep only what they subscribe to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topics {
    version: u64,
    /// Ordered by id.
    all: Vec<TopicInfo>,
}

impl Topics {
    /// Those topics. A higher `version` is a later time; one with no topics at version 0 is what a group begins with.
    ///
    /// Topics that are not for subscribers, such as Tailwater's own, are left out by the caller: patterns match any name.
    /// Of several with the same id the first one counts.
    #[must_use]
    pub fn new(version: u64, topics: impl IntoIterator<Item = TopicInfo>) -> Self {
        let mut all: Vec<_> = topics.into_iter().collect();
        all.sort_by_key(|topic| topic.id);
        all.dedup_by_key(|topic| topic.id);
        Self { version, all }
    }

    /// The version that they were made with.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The topic of this id.
    #[must_use]
    pub fn get(&self, id: TopicId) -> Option<&TopicInfo> {
        let at = self.all.binary_search_by_key(&id, |topic| topic.id).ok()?;
        self.all.get(at)
    }

    /// All of them, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &TopicInfo> {
        self.all.iter()
    }
}

/// A glob pattern of topic names: `*` any characters, `?` any one, `[ab]`, `[a-c]`, `[!a]` one of a set. Compared without
/// regard to case, as topic names are.
///
/// # Examples
///
/// ```
/// use tailwater_groups::coordinator::TopicPattern;
///
/// let pattern = TopicPattern::new("orders.*")?;
/// assert!(pattern.matches("Orders.eu"));
/// assert!(!pattern.matches("orders"));
/// assert!(TopicPattern::new("orders.[").is_err());
/// # Ok::<(), tailwater_groups::coordinator::InvalidPattern>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPattern(Pattern);

/// Why a text is not a [`TopicPattern`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid topic pattern {pattern:?}: {reason}, at position {position}")]
#[non_exhaustive]
pub struct InvalidPattern {
    /// The text.
    pub pattern: Arc<str>,
    /// What is wrong with it.
    pub reason: &'static str,
    /// Where, in characters from the start.
    pub position: usize,
}

impl TopicPattern {
    /// Makes a pattern of `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`] says what is wrong with it, and where.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let fault = |fault: glob::PatternError| InvalidPattern {
            pattern: text.into(),
            reason: fault.msg,
            position: fault.pos,
        };
        Pattern::new(text).map(Self).map_err(fault)
    }

    /// Whether it matches a topic's name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let options = MatchOptions {
            case_sensitive: false,
            require_literal_separator: false,
            require_literal_leading_dot: false,
        };
        self.0.matches_with(name, options)
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
