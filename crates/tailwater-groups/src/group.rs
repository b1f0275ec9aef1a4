//! What groups and their members are called.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::coordinator::assignor::Assignor;
use crate::coordinator::{AssignmentEpoch, GroupEpoch, MemberListing};
use crate::{Error, Result};

/// Longest group id, in bytes: its length is one byte in the groups log.
pub const MAX_GROUP_ID_BYTES: usize = 255;

/// The name of a group: 1 to 255 bytes of UTF-8 without control characters. Cheap to clone; ordered by its bytes.
///
/// # Examples
///
/// ```
/// use tailwater_groups::GroupId;
///
/// let group: GroupId = "billing".parse()?;
/// assert_eq!(group.as_str(), "billing");
/// assert!(GroupId::try_new("two\nlines").is_err());
/// # Ok::<(), tailwater_groups::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

impl GroupId {
    /// Makes an id of `text`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidGroupId`] says what is wrong with it.
    pub fn try_new(text: &str) -> Result<Self> {
        Self::check(text).map_err(|fault| Error::InvalidGroupId { fault })?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` can be an id.
    pub(crate) fn check(text: &str) -> Result<(), GroupIdFault> {
        if text.is_empty() {
            return Err(GroupIdFault::Empty);
        }
        if text.len() > MAX_GROUP_ID_BYTES {
            return Err(GroupIdFault::TooLong { size_bytes: text.len() as u64 });
        }
        match text.chars().find(|c| c.is_control()) {
            Some(found) => Err(GroupIdFault::ControlCharacter { found }),
            None => Ok(()),
        }
    }

    /// Makes an id of text that [`GroupId::check`] has passed.
    pub(crate) fn of_checked(text: &str) -> Self {
        Self(text.into())
    }
}

impl FromStr for GroupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::try_new(text)
    }
}

// `Ord` and `Hash` of an `Arc<str>` are those of the text, so that maps can be searched by it.
impl Borrow<str> for GroupId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a text is not a [`GroupId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupIdFault {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than 255 bytes.
    #[error("it has {size_bytes} bytes, and {MAX_GROUP_ID_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        size_bytes: u64,
    },
    /// It has a control character.
    #[error("it has the control character {found:?}")]
    ControlCharacter {
        /// The first such character.
        found: char,
    },
}

/// What kind of group it is: fixed when the group is registered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum GroupKind {
    /// Partitions are divided among the members, each with one committed offset.
    Consumer,
    /// Records are divided among the members, each acknowledged on its own.
    Share,
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupKind::Consumer => "consumer group",
            GroupKind::Share => "share group",
        })
    }
}

/// How long what a group has committed lasts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum GroupLifetime {
    /// Until it is deleted: in the groups log.
    #[default]
    Lasting,
    /// Until its last member leaves: in memory. The group is never registered, and holds no records.
    Ephemeral,
}

impl fmt::Display for GroupLifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupLifetime::Lasting => "lasting",
            GroupLifetime::Ephemeral => "ephemeral",
        })
    }
}

/// The members of a group in this process, from [`GroupStore::members`](crate::GroupStore::members).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupMembers {
    /// How long what the group has committed lasts.
    pub lifetime: GroupLifetime,
    /// Whether the only member has the group for itself.
    pub is_exclusive: bool,
    /// How the partitions are divided; `None` if one member has the group for itself.
    pub assignor: Option<Assignor>,
    /// The group's epoch.
    pub group_epoch: GroupEpoch,
    /// The epoch of the target assignment.
    pub assignment_epoch: AssignmentEpoch,
    /// The members, in the order in which they joined.
    pub members: Vec<MemberListing>,
}

/// What [`GroupStore::groups`](crate::GroupStore::groups) tells of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupListing {
    /// Its id.
    pub id: GroupId,
    /// Its kind.
    pub kind: GroupKind,
    /// How long what it has committed lasts.
    pub lifetime: GroupLifetime,
    /// Whether it is registered in the log. One that is not exists only as long as it has members.
    pub is_registered: bool,
    /// How many members are there, in this process.
    pub member_count: u64,
    /// In how many partitions it has a committed position.
    pub position_count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_1_to_255_bytes_and_no_control_characters() {
        let fault = |text: &str| GroupId::check(text).unwrap_err();
        assert_eq!(fault(""), GroupIdFault::Empty);
        assert_eq!(fault(&"ä".repeat(128)), GroupIdFault::TooLong { size_bytes: 256 });
        assert_eq!(fault("a\u{7f}"), GroupIdFault::ControlCharacter { found: '\u{7f}' });
        assert_eq!(fault("a\u{85}b"), GroupIdFault::ControlCharacter { found: '\u{85}' });
        for good in ["x", "Zahlungen für Köln", &"g".repeat(255)] {
            assert_eq!(GroupId::try_new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn an_invalid_id_says_what_is_wrong() {
        let error = GroupId::try_new("a\tb").unwrap_err();
        assert_eq!(error.to_string(), "invalid group id: it has the control character '\\t'");
    }
}
