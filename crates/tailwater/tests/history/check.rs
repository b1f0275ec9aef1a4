//! Compares what a broker shows with what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tailwater::{Broker, Error, Event, FetchIsolation, RecoveryOutcome, TopicPartition};

use crate::common;

use super::{
    Catalog, Course, Id, Model, PRODUCER_IDS, PartitionModel, Place, Positions, found_catalog, id_of, places,
};

/// What happened before the broker was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// The power went: what was not synced may be lost.
    PowerCut,
    /// The process died: what was written is there.
    ProcessDeath,
}

/// What is in a partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Content {
    pub(crate) start: u64,
    pub(crate) ids: Vec<Id>,
}

impl Content {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.ids.len() as u64
    }
}

/// All that a broker shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    pub(crate) catalog: BTreeMap<String, u32>,
    pub(crate) partitions: BTreeMap<TopicPartition, Content>,
    pub(crate) groups: BTreeMap<String, BTreeMap<TopicPartition, u64>>,
}

/// Compares everything. Returns what was found, or what is wrong with it.
pub(crate) fn check(broker: &Broker, model: &Model, loss: Loss) -> Result<Found, String> {
    let mut catalog = found_catalog(broker, model)?;
    finish_deletion(broker, model, &mut catalog)?;
    let partitions = contents(broker, &catalog)?;
    for (place, at) in places(&catalog) {
        let content = &partitions[&at];
        let default = PartitionModel::default();
        let promised = model.partitions.get(&place).unwrap_or(&default);
        promised.check(content, loss).map_err(|error| format!("{at}: {error}"))?;
    }
    let groups = check_groups(broker, model, &catalog, &partitions)?;
    let catalog = catalog.into_iter().map(|(name, entry)| (name, entry.partitions)).collect();
    Ok(Found { catalog, partitions, groups })
}

/// Deletes a topic whose deletion was interrupted, if it is there without one of its partitions: of the two names that a
/// rename changes, a power cut may leave none. It is missed aloud then, and the deletion can be repeated.
fn finish_deletion(broker: &Broker, model: &Model, catalog: &mut Catalog) -> Result<(), String> {
    let is_deleted = |name: &String| model.catalogs.iter().any(|possible| !possible.contains_key(name));
    let deleted: Vec<String> = catalog.keys().filter(|name| is_deleted(name)).cloned().collect();
    for name in deleted {
        let embedded = broker.embedded().expect("it is no remote broker");
        let is_whole = |number| match embedded.stats(&common::partition(&name, number)) {
            Err(Error::Io { source, .. }) => source.kind() != std::io::ErrorKind::NotFound,
            _ => true,
        };
        if !(0..catalog[&name].partitions).all(is_whole) {
            broker.delete_topic(&name).map_err(|error| format!("cannot delete {name} again: {error}"))?;
            catalog.remove(&name);
        }
    }
    Ok(())
}

/// Reads every partition from its start to its end.
pub(crate) fn contents(
    broker: &Broker,
    catalog: &Catalog,
) -> Result<BTreeMap<TopicPartition, Content>, String> {
    let embedded = broker.embedded().expect("it is no remote broker");
    let (mut found, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for (_, at) in places(catalog) {
        let stats = embedded.stats(&at).map_err(|error| format!("cannot open {at}: {error}"))?;
        let report = embedded.recovery_report(&at).map_err(|error| format!("{at}: {error}"))?;
        if report.outcome == RecoveryOutcome::Corrupt {
            return Err(format!("{at}: a crash is taken for damage: {:?}", report.corruption));
        }
        ends.insert(at.clone(), stats.log_end_offset.get());
        found.insert(at, Content { start: stats.log_start_offset.get(), ids: Vec::new() });
    }
    if found.is_empty() {
        return Ok(found);
    }
    let all: Vec<TopicPartition> = found.keys().cloned().collect();
    let reader = broker.reader().isolation(FetchIsolation::LogEnd).assign(&all);
    let mut reader = reader.map_err(|error| format!("cannot make a reader: {error}"))?;
    loop {
        let records = reader.poll(Duration::ZERO).map_err(|error| format!("cannot read: {error}"))?;
        if !records.events().is_empty() {
            return Err(format!("a reader at the start is told {:?}", records.events()));
        }
        if records.is_empty() {
            break;
        }
        for record in records.iter() {
            let content = found.get_mut(record.topic_partition()).unwrap();
            let (offset, at) = (record.offset().get(), record.topic_partition());
            if offset != content.end() {
                return Err(format!("{at}: offset {offset} where {} is next", content.end()));
            }
            let value = record.value().unwrap_or_default();
            let id = id_of(value).ok_or_else(|| format!("{at}: nobody sent what is at offset {offset}"))?;
            content.ids.push(id);
        }
    }
    for (at, content) in &found {
        if content.end() != ends[at] {
            return Err(format!("{at}: ends at offset {}, and {} can be read", ends[at], content.end()));
        }
    }
    Ok(found)
}

impl PartitionModel {
    fn check(&self, content: &Content, loss: Loss) -> Result<(), String> {
        if !self.log_starts.contains(&content.start) {
            return Err(format!("starts at {}, promised {:?}", content.start, self.log_starts));
        }
        let mut wrong = Vec::new();
        for course in &self.courses {
            match course.check(content, loss) {
                Ok(()) => return Ok(()),
                Err(error) => wrong.push(error),
            }
        }
        Err(wrong.join("; or: "))
    }
}

impl Course {
    fn check(&self, content: &Content, loss: Loss) -> Result<(), String> {
        let least = match loss {
            Loss::PowerCut => self.durable_end,
            Loss::ProcessDeath => self.written_end,
        };
        if content.end() < least {
            return Err(format!("ends at offset {}; acknowledged below {least}", content.end()));
        }
        for (offset, id) in self.acknowledged.range(content.start..content.end()) {
            let found = content.ids[usize::try_from(offset - content.start).unwrap()];
            if found != *id {
                return Err(format!("message {found} at offset {offset}, acknowledged there was {id}"));
            }
        }
        let mut seen = BTreeSet::new();
        let mut latest: BTreeMap<u64, Id> = BTreeMap::new();
        for (id, offset) in content.ids.iter().zip(content.start..) {
            if !self.sent.contains(id) {
                return Err(format!("message {id} at offset {offset} was never sent here, or was removed"));
            }
            if !seen.insert(*id) {
                return Err(format!("message {id} is there twice, the second time at offset {offset}"));
            }
            // A producer's messages are there in their order, and without a hole.
            let producer = id / PRODUCER_IDS;
            let before = latest.insert(producer, *id);
            let from = match before {
                Some(before) if before > *id => return Err(format!("message {id} comes after {before}")),
                Some(before) => before + 1,
                None if content.start > 0 => *id,
                None => producer * PRODUCER_IDS,
            };
            if let Some(missing) = self.sent.range(from..*id).find(|sent| !self.optional.contains(sent)) {
                return Err(format!("message {id} is there, and {missing}, sent before it, is not"));
            }
        }
        Ok(())
    }
}

fn check_groups(
    broker: &Broker,
    model: &Model,
    catalog: &Catalog,
    partitions: &BTreeMap<TopicPartition, Content>,
) -> Result<BTreeMap<String, BTreeMap<TopicPartition, u64>>, String> {
    let at_place: BTreeMap<Place, TopicPartition> = places(catalog).collect();
    let place_of: BTreeMap<TopicPartition, Place> = places(catalog).map(|(place, at)| (at, place)).collect();
    let listed = broker.groups().map_err(|error| format!("cannot list the groups: {error}"))?;
    let mut found = BTreeMap::new();
    for listing in listed {
        let described = broker.describe_group(&listing.id);
        let described = described.map_err(|error| format!("cannot describe {}: {error}", listing.id))?;
        if described.positions.len() as u64 != listing.position_count {
            return Err(format!("{} has {} positions: {described:?}", listing.id, listing.position_count));
        }
        let mut positions = BTreeMap::new();
        for position in described.positions {
            positions.insert(position.partition, position.committed.offset.get());
        }
        found.insert(listing.id, positions);
    }
    let ids: BTreeSet<&String> = found.keys().chain(model.groups.keys()).collect();
    for id in ids {
        // Where nothing was read yet, no position and the start of a partition are the same.
        let shown = found.get(id).map(|positions| {
            let positions = positions.iter().filter(|(_, offset)| **offset > 0);
            positions.map(|(at, offset)| (place_of[at], *offset)).collect::<Positions>()
        });
        let possible = model.groups.get(id).map_or_else(|| vec![None], |known| known.possible());
        let is_it = |state: &Option<Positions>| {
            let state = state.as_ref().map(|positions| {
                let is_there = |(at, offset): &(&Place, &u64)| **offset > 0 && at_place.contains_key(at);
                positions.iter().filter(is_there).map(|(at, offset)| (*at, *offset)).collect::<Positions>()
            });
            state == shown
        };
        if !possible.iter().any(is_it) {
            return Err(format!("group {id} is at {shown:?}, promised {possible:?}"));
        }
    }
    for (id, positions) in &found {
        for (at, offset) in positions {
            let end = partitions[at].end();
            let lowest_cut = model.partitions.get(&place_of[at]).and_then(|known| known.lowest_cut);
            if *offset > end && lowest_cut.is_none_or(|cut| cut >= *offset) {
                return Err(format!("group {id} has committed {offset} in {at}, which ends at {end}"));
            }
        }
    }
    Ok(found)
}

/// Has each group go on: every record from its position on comes, or an event tells why not.
pub(crate) fn check_resumption(broker: &Broker, found: &Found) -> Result<(), String> {
    for (group, positions) in &found.groups {
        let topics: BTreeSet<&str> = positions.keys().map(|at| &*at.topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        if topics.is_empty() {
            continue;
        }
        let consumer = broker.consumer(group).subscribe(&topics);
        let mut consumer = consumer.map_err(|error| format!("{group} cannot subscribe: {error}"))?;
        let mut next: BTreeMap<TopicPartition, u64> = consumer
            .assignment()
            .into_iter()
            .map(|at| {
                let start = found.partitions[&at].start;
                let next = positions.get(&at).copied().unwrap_or(start);
                (at, next)
            })
            .collect();
        loop {
            let records = consumer.poll(Duration::ZERO);
            let records = records.map_err(|error| format!("{group} cannot poll: {error}"))?;
            if records.is_empty() && records.events().is_empty() {
                break;
            }
            follow(&mut next, &records).map_err(|error| format!("group {group}: {error}"))?;
        }
        for (at, next) in next {
            let end = found.partitions[&at].end();
            if next != end {
                return Err(format!("group {group} stops at {next} in {at}, which ends at {end}"));
            }
        }
        // It reads on where it was, also after this look.
        drop(consumer);
    }
    Ok(())
}

/// Moves on past what a poll returned; an error if a record is skipped or comes again without an event that says so.
pub(crate) fn follow(
    next: &mut BTreeMap<TopicPartition, u64>,
    records: &tailwater::Records,
) -> Result<(), String> {
    for event in records.events() {
        let (partition, expected, to) = match event {
            Event::Gap { partition, from, to } => (partition, from.get(), to.get()),
            Event::Diverged { partition, position, epoch_end } => {
                (partition, position.offset.get(), epoch_end.get())
            }
            _ => continue,
        };
        let known = next.entry(TopicPartition::clone(partition)).or_default();
        if *known != expected {
            return Err(format!("at {known}, and is told {event:?}"));
        }
        *known = to;
    }
    for record in records.iter() {
        let known = next.entry(record.topic_partition().clone()).or_default();
        if record.offset().get() != *known {
            return Err(format!("{} where {known} is next in {}", record.offset(), record.topic_partition()));
        }
        id_of(record.value().unwrap_or_default()).ok_or("nobody sent what was read")?;
        *known += 1;
    }
    Ok(())
}
