//! Names: of topics, and of the directories that hold their partitions.

use tailwater_log::{PartitionId, TopicId};

use super::MAX_PARTITIONS;
use crate::{Error, Result};

/// Longest topic name, in bytes: as in Apache Kafka.
pub(crate) const MAX_NAME_BYTES: usize = 249;

/// What names of Tailwater's own topics begin with.
pub(crate) const RESERVED_PREFIX: &str = "__";

/// How the directory of a deleted partition ends.
const DELETED_SUFFIX: &str = ".deleted";

/// Why a text is no topic name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicNameFault {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than 249 bytes.
    #[error("it has {size_bytes} bytes, and {MAX_NAME_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        size_bytes: u32,
    },
    /// It is `.` or `..`.
    #[error("`.` and `..` mean directories")]
    Dots,
    /// It has a character other than ASCII letters, digits, `.`, `_` and `-`.
    #[error("{found:?} is not allowed: use ASCII letters, digits, `.`, `_` and `-`")]
    Character {
        /// The first such character.
        found: char,
    },
    /// It begins with `__`, as Tailwater's own topics do.
    #[error("names that begin with `{RESERVED_PREFIX}` are reserved")]
    Reserved,
}

/// Checks a name that a user gives to a topic.
///
/// # Errors
///
/// [`Error::InvalidTopicName`] says what is wrong with it.
pub(crate) fn check(name: &str) -> Result<()> {
    let fault = match check_stored(name) {
        Err(fault) => fault,
        Ok(()) if is_internal(name) => TopicNameFault::Reserved,
        Ok(()) => return Ok(()),
    };
    Err(Error::InvalidTopicName { name: shown(name).into(), fault })
}

/// The same for a name that is in the catalog already, where Tailwater's own topics are too.
pub(crate) fn check_stored(name: &str) -> Result<(), TopicNameFault> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        return Err(TopicNameFault::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(TopicNameFault::TooLong { size_bytes: u32::try_from(name.len()).unwrap_or(u32::MAX) });
    }
    if matches!(name, "." | "..") {
        return Err(TopicNameFault::Dots);
    }
    match name.chars().find(|c| !is_allowed(*c)) {
        Some(found) => Err(TopicNameFault::Character { found }),
        None => Ok(()),
    }
}

/// Whether the topic is one of Tailwater's own.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// What two names that are the same topic's have in common.
pub(crate) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// A name cut short, for an error that shows it.
pub(crate) fn shown(name: &str) -> String {
    let kept: String = name.chars().take(64).collect();
    if kept.len() < name.len() { format!("{kept}...") } else { kept }
}

/// The name of a partition's directory.
pub(crate) fn partition_directory(topic: &str, partition: PartitionId) -> String {
    format!("{topic}-{partition}")
}

/// The topic and partition whose directory has this name, if it can be one.
pub(crate) fn parse_partition_directory(name: &str) -> Option<(&str, PartitionId)> {
    let (topic, number) = name.rsplit_once('-')?;
    check_stored(topic).ok()?;
    Some((topic, parse_number(number)?))
}

/// The name of the directory of a deleted topic's partition, which is on its way out.
pub(crate) fn deleted_directory(id: TopicId, partition: PartitionId) -> String {
    format!("{id}-{partition}{DELETED_SUFFIX}")
}

/// What was deleted under this name, if it has exactly that form.
pub(crate) fn parse_deleted_directory(name: &str) -> Option<(TopicId, PartitionId)> {
    let (id, number) = name.strip_suffix(DELETED_SUFFIX)?.split_once('-')?;
    let id: TopicId = id.parse().ok()?;
    let partition = parse_number(number)?;
    // Upper-case digits, for one, are not how these names are written.
    (deleted_directory(id, partition) == name).then_some((id, partition))
}

/// A partition number written as Tailwater writes it: no sign, no leading zero.
fn parse_number(text: &str) -> Option<PartitionId> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = text.parse().ok().filter(|number| is_plain && *number < MAX_PARTITIONS)?;
    PartitionId::try_new(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        for name in ["a", "orders", "Orders.v2_final-1", &"x".repeat(249), "...", "_a", "-"] {
            assert!(check(name).is_ok(), "{name}");
        }
        let fault = |name: &str| match check(name) {
            Err(Error::InvalidTopicName { fault, .. }) => fault,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(fault(""), TopicNameFault::Empty);
        assert_eq!(fault("."), TopicNameFault::Dots);
        assert_eq!(fault(".."), TopicNameFault::Dots);
        assert_eq!(fault("a/b"), TopicNameFault::Character { found: '/' });
        assert_eq!(fault("caf\u{e9}"), TopicNameFault::Character { found: '\u{e9}' });
        assert_eq!(fault("a\0"), TopicNameFault::Character { found: '\0' });
        assert_eq!(fault("__groups"), TopicNameFault::Reserved);
        assert_eq!(fault(&"x".repeat(250)), TopicNameFault::TooLong { size_bytes: 250 });
    }

    #[test]
    fn an_error_shows_a_long_name_cut_short() {
        let error = check(&"x".repeat(70_000)).unwrap_err().to_string();
        assert!(error.len() < 250, "{error}");
    }

    #[test]
    fn directories_are_read_back_as_they_are_named() {
        let partition = PartitionId::new(17);
        assert_eq!(partition_directory("a-b", partition), "a-b-17");
        assert_eq!(parse_partition_directory("a-b-17"), Some(("a-b", partition)));
        for name in ["orders", "orders-", "orders-01", "orders-+1", "-1", "orders-100000", "or ders-1"] {
            assert_eq!(parse_partition_directory(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_exact_form_counts_as_deleted() {
        let id = TopicId::from_bytes([0xab; 16]);
        let name = deleted_directory(id, PartitionId::new(3));
        assert_eq!(name, "abababababababababababababababab-3.deleted");
        assert_eq!(parse_deleted_directory(&name), Some((id, PartitionId::new(3))));
        for other in [
            "orders-3.deleted",
            "ABABABABABABABABABABABABABABABAB-3.deleted",
            "abababababababababababababababab-03.deleted",
            "abababababababababababababababab-3.deleted.deleted",
            "abababababababababababababababab-3",
            "abababababababababababababababab.deleted",
            "abababababababababababababababab--3.deleted",
            "abababababababababababababababab-100000.deleted",
        ] {
            assert_eq!(parse_deleted_directory(other), None, "{other}");
        }
        // No topic's directory can look like one: it ends with its number.
        assert_eq!(parse_partition_directory(&name), None);
    }
}
