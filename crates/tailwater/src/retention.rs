//! Who holds records against retention, and what becomes of appends when a topic may not grow.

use std::fmt;
use std::sync::Arc;

use tailwater_log::{LogFull, Offset, SpaceScope, Timestamp};

use crate::TopicPartition;

/// Whose records retention keeps, however old or many they are: those that these groups have not committed, durably.
///
/// A group holds the records of a partition from its first commit there on, which a member makes when it is first given the
/// partition. Ephemeral groups hold nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Hold {
    /// Those of every registered group.
    #[default]
    AllGroups,
    /// Those of these groups.
    Groups(Vec<String>),
    /// Nobody's.
    None,
}

/// What becomes of an append that would make a partition larger than `retention_hard_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnFull {
    /// It answers [`Error::TopicFull`](crate::Error::TopicFull).
    #[default]
    RejectPublish,
    /// The oldest records are deleted for it, held or not.
    DropOldest,
}

/// What the facade decides of retention; the limits are the log's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RetentionPolicy {
    pub(crate) hold: Hold,
    pub(crate) on_full: OnFull,
}

const ALL_GROUPS: &str = "all_groups";
const NONE: &str = "none";
const GROUPS_PREFIX: &str = "groups:";

impl Hold {
    /// Of the text of a setting; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            ALL_GROUPS => Some(Hold::AllGroups),
            NONE => Some(Hold::None),
            _ => {
                let groups: Vec<_> =
                    text.strip_prefix(GROUPS_PREFIX)?.split(',').map(str::to_owned).collect();
                (!groups.iter().any(String::is_empty)).then_some(Hold::Groups(groups))
            }
        }
    }

    /// Whether the records of this group are kept.
    pub(crate) fn is_by(&self, group: &str) -> bool {
        match self {
            Hold::AllGroups => true,
            Hold::Groups(groups) => groups.iter().any(|held| held == group),
            Hold::None => false,
        }
    }
}

/// As in the setting `hold`: `all_groups`, `none`, or `groups:` and the names, separated by commas.
impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::AllGroups => f.write_str(ALL_GROUPS),
            Hold::None => f.write_str(NONE),
            Hold::Groups(groups) => write!(f, "{GROUPS_PREFIX}{}", groups.join(",")),
        }
    }
}

/// The group that holds the oldest records of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// The group.
    pub group: Arc<str>,
    /// Where it goes on: records from there on are held.
    pub offset: Offset,
    /// How many records it is behind.
    pub lag: u64,
    /// When it last committed in the partition, if that is known to be durable.
    pub committed_at: Option<Timestamp>,
}

/// A topic, or the directory, that may not take up more disk space.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicFull {
    /// The partition that was to grow.
    pub partition: Option<Arc<TopicPartition>>,
    /// The limit, and what is in use.
    pub full: LogFull,
    /// The group that holds its oldest records, if one does.
    pub holder: Option<Holder>,
}

impl fmt::Display for TopicFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogFull { scope, limit_bytes, used_bytes, wanted_bytes } = self.full;
        match (&self.partition, scope) {
            (Some(partition), SpaceScope::Partition) => write!(f, "{partition} is full")?,
            (None, SpaceScope::Partition) => f.write_str("the partition is full")?,
            (Some(partition), _) => write!(f, "no room for {partition}, the data directory is full")?,
            (None, _) => f.write_str("the data directory is full")?,
        }
        write!(f, ": {used_bytes} of {limit_bytes} bytes are in use and {wanted_bytes} more are needed")?;
        match &self.holder {
            Some(Holder { group, offset, lag, committed_at }) => {
                write!(f, "; group {group} holds the records from offset {offset} on, {lag} behind the end")?;
                if let Some(time) = committed_at {
                    write!(f, ", and last committed at {time}")?;
                }
                f.write_str(": let it catch up, delete it, or raise the limit")
            }
            None => f.write_str(": delete records, or raise the limit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_read_as_they_are_shown() {
        for text in ["all_groups", "none", "groups:billing", "groups:billing,a b"] {
            assert_eq!(Hold::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "all", "groups:", "groups:a,,b", "billing"] {
            assert_eq!(Hold::parse(text), None, "{text:?}");
        }
        let listed = Hold::parse("groups:a,b").unwrap();
        assert!(
            listed.is_by("a") && !listed.is_by("c") && Hold::AllGroups.is_by("c") && !Hold::None.is_by("a")
        );
    }
}
