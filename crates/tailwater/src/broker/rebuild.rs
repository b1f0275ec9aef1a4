//! Which catalog the directories of partitions tell of: found directories in, topics out.
//!
//! - A topic's name and the numbers of its partitions come from the names of directories, its id from what is in them.
//! - Where directories contradict each other nothing is guessed: it is an error, and a person moves one of them.
//! - A directory that is provably empty and belongs to nothing else is what an interrupted creation left, and no partition.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use tailwater_log::{PartitionId, PartitionIdentity, TopicId};

use super::directory::GROUPS_TOPIC;
use crate::catalog::{Catalog, CatalogTopic, name};
use crate::error::{Contradiction, ContradictionKind};
use crate::{Error, Result};

/// A topic of a catalog that was rebuilt.
///
/// Its settings are not known: they are the defaults now ([`Broker::alter_topic`](crate::Broker::alter_topic) sets them).
/// Nor is it known whether it had partitions with higher numbers than those of the directories that are there.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RebuiltTopic {
    /// Its name, from those of its directories.
    pub name: String,
    /// Its id, from the segments and checkpoints of its partitions.
    pub id: TopicId,
    /// How many partitions it has: the highest number of a directory, and one more.
    pub partition_count: u32,
    /// Partitions of which there is no directory. They cannot be opened until they are
    /// [repaired](crate::Embedded::repair), which makes them empty ones.
    pub missing: Vec<PartitionId>,
    /// Partitions in whose directory no segment header and no checkpoint verifies. They take no records until they are
    /// [repaired](crate::Embedded::repair).
    pub unreadable: Vec<PartitionId>,
    /// Whether its deletion was interrupted. The next open finishes it.
    pub is_being_deleted: bool,
}

impl RebuiltTopic {
    /// The partitions that have a directory.
    pub(super) fn present(&self) -> impl Iterator<Item = PartitionId> {
        let missing: HashSet<_> = self.missing.iter().collect();
        (0..self.partition_count).map(PartitionId::new).filter(move |number| !missing.contains(number))
    }
}

/// Something in the data directory that a rebuilt catalog leaves out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its name.
    pub name: OsString,
    /// Why.
    pub reason: LeftOutReason,
}

/// Why a directory is no partition of a rebuilt catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeftOutReason {
    /// It is empty, or what an interrupted creation left, and no other directory makes it a partition.
    #[error("it holds no records, and nothing makes it a partition")]
    Empty,
    /// It has the name of a partition, and neither it nor another directory of that topic tells the topic's id.
    #[error("nothing in it tells which topic it is of")]
    UnknownTopic,
    /// It has not the name of a partition.
    #[error("it is none of Tailwater's")]
    Foreign,
}

/// A directory with the name of a partition.
#[derive(Clone, Debug)]
pub(super) struct FoundDirectory {
    pub(super) topic: String,
    pub(super) partition: PartitionId,
    /// Which partition most of the headers and checkpoint slots in it are of; `None` if none verifies.
    pub(super) identity: Option<PartitionIdentity>,
    /// Whether it may be what an interrupted creation left: it holds no records.
    pub(super) is_empty: bool,
}

impl FoundDirectory {
    fn name(&self) -> String {
        name::partition_directory(&self.topic, self.partition)
    }

    fn has_id(&self, id: TopicId) -> bool {
        self.identity.is_some_and(|identity| identity.topic_id == id)
    }
}

/// The topics that were found, and what was left out.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    pub(super) topics: Vec<RebuiltTopic>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Rebuilt {
    pub(super) fn catalog(&self) -> Catalog {
        let topics = self.topics.iter().map(|topic| CatalogTopic {
            id: topic.id,
            name: topic.name.clone(),
            partition_count: topic.partition_count,
            config: Vec::new(),
            origins: Vec::new(),
        });
        Catalog { sequence: 1, topics: topics.collect() }
    }
}

/// Finds the topics of `found` in the data directory `data`. `given_up` are the topics of which a directory has the name
/// of a deleted one. The log of the groups gets `new_id` if nothing tells its own.
///
/// # Errors
///
/// [`Error::ContradictingDirectories`], [`Error::WrongPartition`].
pub(super) fn rebuild(
    data: &Path,
    found: Vec<FoundDirectory>,
    given_up: &[TopicId],
    new_id: TopicId,
) -> Result<Rebuilt> {
    let mut by_topic = BTreeMap::<String, Vec<FoundDirectory>>::new();
    for directory in found {
        by_topic.entry(directory.topic.clone()).or_default().push(directory);
    }
    // Every broker has this topic.
    by_topic.entry(GROUPS_TOPIC.to_owned()).or_default();
    let mut rebuilt = Rebuilt::default();
    for (name, mut directories) in by_topic {
        directories.sort_unstable_by_key(|directory| directory.partition);
        let known = id_of(data, &mut directories, &mut rebuilt)?;
        let id = known.or((name == GROUPS_TOPIC).then_some(new_id));
        match id {
            Some(id) => {
                let topic = topic_of(data, name, id, &directories, &mut rebuilt)?;
                rebuilt.topics.push(RebuiltTopic { is_being_deleted: given_up.contains(&id), ..topic });
            }
            None => directories.iter().for_each(|directory| leave_out(&mut rebuilt, directory)),
        }
    }
    check_unique(data, &rebuilt.topics)?;
    Ok(rebuilt)
}

/// The id that a topic's directories have, if any has one. Takes out those of another number than they are named by.
fn id_of(
    data: &Path,
    directories: &mut Vec<FoundDirectory>,
    rebuilt: &mut Rebuilt,
) -> Result<Option<TopicId>> {
    for directory in directories.iter() {
        if let Some(found) = directory.identity
            && found.partition != directory.partition
            && !directory.is_empty
        {
            let expected = PartitionIdentity { partition: directory.partition, ..found };
            return Err(Error::WrongPartition {
                path: data.join(directory.name()).into(),
                found: Box::new(found),
                expected: Box::new(expected),
            });
        }
    }
    directories.retain(|directory| {
        let is_own = directory.identity.is_none_or(|found| found.partition == directory.partition);
        if !is_own {
            leave_out(rebuilt, directory);
        }
        is_own
    });
    let telling: Vec<_> =
        directories.iter().filter_map(|found| Some((found, found.identity?.topic_id))).collect();
    let with_records: Vec<_> = telling.iter().filter(|(found, _)| !found.is_empty).collect();
    if let Some(pair) = with_records.windows(2).find(|pair| pair[0].1 != pair[1].1) {
        return Err(contradiction(data, pair[0].0, pair[1].0, ContradictionKind::OneNameOfTwoTopics));
    }
    // Of topics without records the latest creation counts: it has made way for itself from the first partition on.
    Ok(with_records.first().copied().or(telling.first()).map(|(_, id)| *id))
}

/// The topic `id`, whose name these directories have.
fn topic_of(
    data: &Path,
    name: String,
    id: TopicId,
    directories: &[FoundDirectory],
    rebuilt: &mut Rebuilt,
) -> Result<RebuiltTopic> {
    // What holds something that cannot be read may well be a partition; what holds nothing, and says nothing, need not be.
    let counts = |found: &&FoundDirectory| found.has_id(id) || found.identity.is_none() && !found.is_empty;
    let last = directories.iter().filter(counts).map(|found| found.partition.get()).max();
    let partition_count = last.map_or(1, |last| last + 1);
    let mut topic = RebuiltTopic {
        name,
        id,
        partition_count,
        missing: Vec::new(),
        unreadable: Vec::new(),
        is_being_deleted: false,
    };
    let mut next = 0;
    for directory in directories {
        let number = directory.partition.get();
        if number >= partition_count {
            leave_out(rebuilt, directory);
            continue;
        }
        topic.missing.extend((next..number).map(PartitionId::new));
        next = number + 1;
        if directory.identity.is_none() {
            topic.unreadable.push(directory.partition);
        } else if !directory.has_id(id) {
            let own = directories.iter().find(|found| found.has_id(id)).unwrap_or(directory);
            return Err(contradiction(data, own, directory, ContradictionKind::OneNameOfTwoTopics));
        }
    }
    topic.missing.extend((next..partition_count).map(PartitionId::new));
    Ok(topic)
}

fn leave_out(rebuilt: &mut Rebuilt, directory: &FoundDirectory) {
    let reason = if directory.is_empty { LeftOutReason::Empty } else { LeftOutReason::UnknownTopic };
    rebuilt.left_out.push(LeftOut { name: directory.name().into(), reason });
}

/// Checks what holds in every catalog: no two topics have the same id, or names that differ only in case.
fn check_unique(data: &Path, topics: &[RebuiltTopic]) -> Result<()> {
    let (mut ids, mut names) = (HashMap::new(), HashMap::new());
    for topic in topics {
        let (same_id, same_name) =
            (ids.insert(topic.id, topic), names.insert(name::folded(&topic.name), topic));
        let (other, kind) = match (same_id, same_name) {
            (Some(other), _) => (other, ContradictionKind::TwoNamesOfOneTopic),
            (None, Some(other)) => (other, ContradictionKind::NamesDifferInCase),
            (None, None) => continue,
        };
        let directory = |topic: &RebuiltTopic| {
            let first = topic.present().next().unwrap_or(PartitionId::ZERO);
            data.join(name::partition_directory(&topic.name, first))
        };
        let (first, second) = (directory(other), directory(topic));
        return Err(Error::ContradictingDirectories(Box::new(Contradiction { first, second, kind })));
    }
    Ok(())
}

fn contradiction(
    data: &Path,
    first: &FoundDirectory,
    second: &FoundDirectory,
    kind: ContradictionKind,
) -> Error {
    let (first, second) = (data.join(first.name()), data.join(second.name()));
    Error::ContradictingDirectories(Box::new(Contradiction { first, second, kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: TopicId = TopicId::from_bytes([9; 16]);

    fn id(byte: u8) -> TopicId {
        TopicId::from_bytes([byte; 16])
    }

    /// A directory of this name, with records of the topic with this id, or without any that can be read.
    fn with_records(name: &str, topic_id: Option<u8>) -> FoundDirectory {
        let (topic, partition) = name::parse_partition_directory(name).unwrap();
        let identity = topic_id.map(|byte| PartitionIdentity { topic_id: id(byte), partition });
        FoundDirectory { topic: topic.to_owned(), partition, identity, is_empty: false }
    }

    fn empty(name: &str, topic_id: Option<u8>) -> FoundDirectory {
        FoundDirectory { is_empty: true, ..with_records(name, topic_id) }
    }

    fn rebuilt(found: &[FoundDirectory]) -> Result<Rebuilt> {
        let found = [found, &[with_records("__groups-0", Some(7))]].concat();
        rebuild("/data".as_ref(), found, &[id(5)], NEW)
    }

    /// The only topic but that of the groups, and the names that were left out.
    fn only(found: &[FoundDirectory]) -> (RebuiltTopic, Vec<OsString>) {
        let rebuilt = rebuilt(found).unwrap();
        assert_eq!(rebuilt.topics.len(), 2, "{:?}", rebuilt.topics);
        assert_eq!((&*rebuilt.topics[0].name, rebuilt.topics[0].id), (GROUPS_TOPIC, id(7)));
        (rebuilt.topics[1].clone(), rebuilt.left_out.into_iter().map(|left| left.name).collect())
    }

    fn contradiction_of(found: &[FoundDirectory]) -> String {
        match rebuilt(found) {
            Err(error @ (Error::ContradictingDirectories(_) | Error::WrongPartition { .. })) => {
                error.to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_give_topics_and_numbers_and_headers_the_id() {
        let (topic, left) = only(&[with_records("a-b-1", Some(1)), empty("a-b-0", Some(1))]);
        assert_eq!((&*topic.name, topic.id, topic.partition_count), ("a-b", id(1), 2));
        assert!(topic.missing.is_empty() && topic.unreadable.is_empty() && left.is_empty());
        assert!(!topic.is_being_deleted);
    }

    #[test]
    fn a_partition_that_says_nothing_belongs_to_the_topic_that_its_name_says() {
        let (topic, left) = only(&[with_records("a-0", Some(1)), with_records("a-2", None)]);
        assert_eq!((topic.partition_count, topic.unreadable), (3, vec![PartitionId::new(2)]));
        assert_eq!((topic.missing, left.len()), (vec![PartitionId::new(1)], 0));
        // A gap is a partition too, also where there is nothing but an empty directory.
        let (topic, _) = only(&[empty("a-0", None), with_records("a-1", Some(1))]);
        assert_eq!((topic.partition_count, topic.unreadable), (2, vec![PartitionId::ZERO]));
    }

    #[test]
    fn what_an_interrupted_creation_left_is_no_partition() {
        for leftover in [empty("a-1", None), empty("a-1", Some(2))] {
            let (topic, left) = only(&[with_records("a-0", Some(1)), leftover]);
            assert_eq!((topic.partition_count, topic.id), (1, id(1)));
            assert_eq!(left, ["a-1"]);
        }
        // The latest creation made way for itself from the first partition on.
        let (topic, left) = only(&[empty("a-0", Some(1)), empty("a-1", Some(2))]);
        assert_eq!((topic.id, topic.partition_count, left), (id(1), 1, vec!["a-1".into()]));
        let rebuilt = rebuilt(&[empty("a-0", None)]).unwrap();
        assert_eq!((rebuilt.topics.len(), rebuilt.left_out[0].reason), (1, LeftOutReason::Empty));
    }

    #[test]
    fn a_topic_whose_id_nothing_tells_is_left_out_and_told() {
        let rebuilt = rebuilt(&[with_records("a-0", None), with_records("a-1", None)]).unwrap();
        assert_eq!(rebuilt.topics.len(), 1);
        let reasons: Vec<_> = rebuilt.left_out.iter().map(|left| left.reason).collect();
        assert_eq!(reasons, [LeftOutReason::UnknownTopic; 2]);
    }

    #[test]
    fn the_log_of_the_groups_is_always_there() {
        for (found, missing, unreadable) in [(vec![], 1, 0), (vec![with_records("__groups-0", None)], 0, 1)] {
            let rebuilt = rebuild("/data".as_ref(), found, &[], NEW).unwrap();
            let groups = &rebuilt.topics[0];
            assert_eq!((&*groups.name, groups.id, groups.partition_count), (GROUPS_TOPIC, NEW, 1));
            assert_eq!((groups.missing.len(), groups.unreadable.len()), (missing, unreadable));
            assert!(rebuilt.left_out.is_empty());
        }
    }

    #[test]
    fn a_deletion_that_was_interrupted_is_told() {
        assert!(only(&[with_records("a-1", Some(5))]).0.is_being_deleted);
    }

    #[test]
    fn what_contradicts_itself_is_not_guessed() {
        let two_topics = contradiction_of(&[with_records("a-0", Some(1)), with_records("a-1", Some(2))]);
        assert!(two_topics.contains("/data/a-0 and /data/a-1"), "{two_topics}");
        assert!(two_topics.contains("move"), "{two_topics}");
        let within = contradiction_of(&[empty("a-0", Some(2)), with_records("a-1", Some(1))]);
        assert!(within.contains("a-1 and /data/a-0"), "{within}");
        let copied = contradiction_of(&[with_records("a-0", Some(1)), with_records("copy-0", Some(1))]);
        assert!(copied.contains("a-0 and /data/copy-0"), "{copied}");
        let case = contradiction_of(&[with_records("A-0", Some(1)), with_records("a-0", Some(2))]);
        assert!(case.contains("A-0 and /data/a-0"), "{case}");
        let mut renamed = with_records("a-0", Some(1));
        renamed.identity = Some(PartitionIdentity { topic_id: id(1), partition: PartitionId::new(3) });
        assert!(contradiction_of(&[renamed.clone()]).contains("/data/a-0 holds"));
        // Without a record in it, it is left where it is.
        renamed.is_empty = true;
        assert_eq!(rebuilt(&[renamed]).unwrap().left_out.len(), 1);
    }

    #[test]
    fn a_rebuilt_catalog_is_one_that_is_read_back() {
        let found = [with_records("a-0", Some(1)), with_records("b-4", Some(2)), empty("c-0", Some(3))];
        let catalog = rebuilt(&found).unwrap().catalog();
        assert_eq!(catalog.topics.len(), 4);
        let bytes = crate::catalog::format::encode(&catalog);
        assert_eq!(crate::catalog::format::decode(&bytes), Ok(catalog));
    }
}
