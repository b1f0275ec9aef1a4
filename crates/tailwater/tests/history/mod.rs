//! What the searches through crashes and faults share: what was asked for and acknowledged, and what may be found then.
//!
//! A [`Model`] is what follows from a list of [`Event`]s. Where a call had not returned, or failed, what it was to change may
//! be found as before and as after; what was acknowledged must be found.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod check;
pub(crate) mod recorder;

use std::collections::{BTreeMap, BTreeSet};

use tailwater::{Broker, TopicPartition};

use crate::common;

/// Messages of one producer have the numbers from `producer * PRODUCER_IDS` on.
pub(crate) const PRODUCER_IDS: u64 = 1_000_000;

/// A message: unlike all others, and its bytes follow from its number.
pub(crate) type Id = u64;

pub(crate) fn value_of(id: Id) -> String {
    let length = usize::try_from(id * 7919 % 700).unwrap();
    format!("{id}:{}", "v".repeat(length))
}

/// The number of a message, if these are its bytes.
pub(crate) fn id_of(value: &[u8]) -> Option<Id> {
    let text = std::str::from_utf8(value).ok()?;
    let id = text.split_once(':')?.0.parse().ok()?;
    (value_of(id) == text).then_some(id)
}

/// A partition of a topic; the topic by a number that is new whenever one is created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Place {
    pub(crate) topic: u32,
    pub(crate) partition: u32,
}

/// A topic in the catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) topic: u32,
    pub(crate) partitions: u32,
}

pub(crate) type Catalog = BTreeMap<String, Entry>;

/// Committed offsets of a group.
pub(crate) type Positions = BTreeMap<Place, u64>;

/// Something that was asked for, or answered.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A message is handed over.
    Sent {
        at: Place,
        id: Id,
    },
    /// It was not taken, or what became of it is unknown.
    NotAcknowledged {
        at: Place,
        id: Id,
    },
    /// It has this offset, and is durable, or written.
    Acknowledged {
        at: Place,
        id: Id,
        offset: u64,
        is_durable: bool,
    },
    /// Everything that was sent is there for good.
    AllDurable,
    CutBegins {
        at: Place,
        offset: u64,
    },
    CutEnds {
        at: Place,
    },
    DeleteBegins {
        at: Place,
        before: u64,
    },
    DeleteEnds {
        at: Place,
    },
    CatalogBegins {
        after: Catalog,
    },
    CatalogEnds,
    /// It failed, and what it was to change is as it was.
    CatalogUnchanged,
    /// These positions of a group are set; without any, the group is deleted.
    GroupBegins {
        group: String,
        positions: Option<Positions>,
    },
    GroupEnds {
        group: String,
    },
    /// It was refused, and nothing was committed.
    GroupUnchanged {
        group: String,
    },
    /// Whether it was committed is unknown.
    GroupFailed {
        group: String,
    },
}

/// One course of a partition that may be found.
#[derive(Clone, Debug, Default)]
struct Course {
    /// Messages of which the offset is known.
    acknowledged: BTreeMap<u64, Id>,
    /// All messages that may be there, and those of them that later ones may be there without.
    sent: BTreeSet<Id>,
    optional: BTreeSet<Id>,
    /// What must be there after a power cut, and after the death of the process alone.
    durable_end: u64,
    written_end: u64,
}

#[derive(Clone, Debug)]
struct PartitionModel {
    courses: Vec<Course>,
    log_starts: BTreeSet<u64>,
    /// The lowest offset that it was ever cut to.
    lowest_cut: Option<u64>,
}

impl Default for PartitionModel {
    fn default() -> Self {
        Self { courses: vec![Course::default()], log_starts: [0].into(), lowest_cut: None }
    }
}

#[derive(Clone, Debug, Default)]
struct GroupModel {
    /// Any of these may be found; `None` if there is no such group.
    states: Vec<Option<Positions>>,
    /// What is being done.
    pending: Option<Option<Positions>>,
}

/// What may be found, and what must be.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    catalogs: Vec<Catalog>,
    partitions: BTreeMap<Place, PartitionModel>,
    groups: BTreeMap<String, GroupModel>,
}

impl Default for Model {
    fn default() -> Self {
        Self { catalogs: vec![Catalog::new()], partitions: BTreeMap::new(), groups: BTreeMap::new() }
    }
}

impl Model {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut model = Self::default();
        events.iter().for_each(|event| model.apply(event));
        model
    }

    /// Whether a change of topics had not returned.
    pub(crate) fn is_changing_topics(&self) -> bool {
        self.catalogs.len() > 1
    }

    fn partition(&mut self, at: Place) -> &mut PartitionModel {
        self.partitions.entry(at).or_default()
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Sent { at, id } => {
                for course in &mut self.partition(*at).courses {
                    course.sent.insert(*id);
                }
            }
            Event::NotAcknowledged { at, id } => {
                for course in &mut self.partition(*at).courses {
                    course.optional.insert(*id);
                }
            }
            Event::Acknowledged { at, id, offset, is_durable } => {
                for course in &mut self.partition(*at).courses {
                    course.acknowledged.insert(*offset, *id);
                    course.written_end = course.written_end.max(offset + 1);
                    if *is_durable {
                        course.durable_end = course.durable_end.max(offset + 1);
                    }
                }
            }
            Event::AllDurable => {
                for course in self.partitions.values_mut().flat_map(|partition| &mut partition.courses) {
                    course.durable_end = course.written_end;
                }
            }
            Event::CutBegins { at, offset } => self.partition(*at).begin_cut(*offset),
            Event::CutEnds { at } => drop(self.partition(*at).courses.remove(0)),
            Event::DeleteBegins { at, before } => {
                self.partition(*at).log_starts.insert(*before);
            }
            Event::DeleteEnds { at } => {
                let partition = self.partition(*at);
                let start = *partition.log_starts.last().unwrap();
                partition.log_starts = [start].into();
                for course in &mut partition.courses {
                    // What moves the start makes durable what is below.
                    course.durable_end = course.durable_end.max(start);
                    course.written_end = course.written_end.max(start);
                }
            }
            Event::CatalogBegins { after } => self.catalogs.push(after.clone()),
            Event::CatalogEnds => drop(self.catalogs.drain(..self.catalogs.len() - 1)),
            Event::CatalogUnchanged => drop(self.catalogs.pop()),
            Event::GroupBegins { group, positions } => {
                let known = self.groups.entry(group.clone()).or_default();
                if known.states.is_empty() {
                    known.states.push(None);
                }
                known.pending = Some(positions.clone());
            }
            Event::GroupEnds { group } => {
                let known = self.groups.get_mut(group).unwrap();
                known.states = known.after();
                known.pending = None;
            }
            Event::GroupUnchanged { group } => self.groups.get_mut(group).unwrap().pending = None,
            Event::GroupFailed { group } => {
                let known = self.groups.get_mut(group).unwrap();
                known.states = known.possible();
                known.pending = None;
            }
        }
    }
}

impl PartitionModel {
    fn begin_cut(&mut self, offset: u64) {
        self.lowest_cut = Some(self.lowest_cut.map_or(offset, |lowest| lowest.min(offset)));
        let cut: Vec<_> = self.courses.iter().map(|course| course.cut_to(offset)).collect();
        self.courses.extend(cut);
    }
}

impl Course {
    fn cut_to(&self, offset: u64) -> Self {
        let mut cut = self.clone();
        for id in cut.acknowledged.split_off(&offset).into_values() {
            cut.sent.remove(&id);
        }
        // Those of unknown offset may be gone.
        let known: BTreeSet<Id> = cut.acknowledged.values().copied().collect();
        cut.optional = cut.sent.difference(&known).copied().collect();
        // A cut makes durable what it keeps.
        cut.durable_end = offset;
        cut.written_end = offset;
        cut
    }
}

impl GroupModel {
    /// What there is when what is being done is done.
    fn after(&self) -> Vec<Option<Positions>> {
        let Some(pending) = &self.pending else { return self.states.clone() };
        let mut after: Vec<_> = self
            .states
            .iter()
            .map(|state| {
                pending.as_ref().map(|positions| {
                    let mut state = state.clone().unwrap_or_default();
                    state.extend(positions);
                    state
                })
            })
            .collect();
        after.dedup();
        after
    }

    fn possible(&self) -> Vec<Option<Positions>> {
        let mut possible = self.states.clone();
        for state in self.after() {
            if !possible.contains(&state) {
                possible.push(state);
            }
        }
        possible
    }
}

/// All partitions of these topics, with where they are.
pub(crate) fn places(catalog: &Catalog) -> impl Iterator<Item = (Place, TopicPartition)> {
    catalog.iter().flat_map(|(name, entry)| {
        (0..entry.partitions)
            .map(|number| (Place { topic: entry.topic, partition: number }, common::partition(name, number)))
    })
}

/// The catalog as it is found, if it is one of those that may be.
pub(crate) fn found_catalog(broker: &Broker, model: &Model) -> Result<Catalog, String> {
    let names = broker.topics().map_err(|error| format!("cannot list the topics: {error}"))?;
    let mut found = BTreeMap::new();
    for name in names {
        let described = broker.describe_topic(&name).map_err(|error| format!("cannot describe: {error}"))?;
        found.insert(name, described.partition_count);
    }
    let is_it =
        |catalog: &&Catalog| catalog.iter().map(|(name, entry)| (name, &entry.partitions)).eq(found.iter());
    let candidate = model.catalogs.iter().rev().find(is_it);
    candidate.cloned().ok_or_else(|| format!("catalog: found {found:?}, possible are {:?}", model.catalogs))
}
