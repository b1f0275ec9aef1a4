//! Any sequence of calls, with reopening and power loss among them, against vectors and maps: what is read is what was
//! published, a group goes on where it was, and after a power loss what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod history;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Choices, open};
use history::check::contents;
use history::{Catalog, Entry, Id, Place, id_of, places, value_of};
use proptest::prelude::*;
use tailwater::storage::SimDisk;
use tailwater::{
    Appended, Broker, Consumer, Cursor, Durability, Error, Event, LogStats, Message, Offset, Receipt, Reset,
    SeekTo, TopicConfig, TopicPartition,
};

const GROUP: &str = "billing";
/// The second is not durable.
const TOPICS: [&str; 2] = ["orders", "lazy"];

#[derive(Clone, Debug)]
enum Operation {
    Publish { at: usize },
    Send { at: usize, count: usize },
    WaitForAll,
    Subscribe { is_latest: bool },
    Leave,
    Poll,
    Commit { is_awaited: bool },
    CommitTo { at: usize, part: f64, is_awaited: bool },
    Seek { at: usize, part: f64 },
    SeekToCursor { index: usize },
    SetPaused { at: usize, is_paused: bool },
    DeleteBefore { at: usize, part: f64 },
    Truncate { at: usize, part: f64 },
    ResetGroup { at: usize, part: f64 },
    DeleteGroup,
    CreateTopic { topic: usize },
    AddPartition { topic: usize },
    DeleteTopic { topic: usize },
    Maintain,
    Reopen,
    LosePower { seed: u64 },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let at = || 0..5_usize;
    let part = || 0.0..1.0_f64;
    let operation = prop_oneof![
        6 => at().prop_map(|at| Operation::Publish { at }),
        6 => (at(), 1..8_usize).prop_map(|(at, count)| Operation::Send { at, count }),
        1 => Just(Operation::WaitForAll),
        4 => any::<bool>().prop_map(|is_latest| Operation::Subscribe { is_latest }),
        1 => Just(Operation::Leave),
        7 => Just(Operation::Poll),
        5 => any::<bool>().prop_map(|is_awaited| Operation::Commit { is_awaited }),
        3 => (at(), part(), any::<bool>())
            .prop_map(|(at, part, is_awaited)| Operation::CommitTo { at, part, is_awaited }),
        3 => (at(), part()).prop_map(|(at, part)| Operation::Seek { at, part }),
        2 => (0..64_usize).prop_map(|index| Operation::SeekToCursor { index }),
        2 => (at(), any::<bool>()).prop_map(|(at, is_paused)| Operation::SetPaused { at, is_paused }),
        2 => (at(), part()).prop_map(|(at, part)| Operation::DeleteBefore { at, part }),
        3 => (at(), part()).prop_map(|(at, part)| Operation::Truncate { at, part }),
        2 => (at(), part()).prop_map(|(at, part)| Operation::ResetGroup { at, part }),
        1 => Just(Operation::DeleteGroup),
        2 => (0..2_usize).prop_map(|topic| Operation::CreateTopic { topic }),
        1 => (0..2_usize).prop_map(|topic| Operation::AddPartition { topic }),
        1 => (0..2_usize).prop_map(|topic| Operation::DeleteTopic { topic }),
        2 => Just(Operation::Maintain),
        1 => Just(Operation::Reopen),
        3 => any::<u64>().prop_map(|seed| Operation::LosePower { seed }),
    ];
    prop::collection::vec(operation, 1..70)
}

/// A place to read at, and up to where the history that it is of still holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    cursor: Cursor,
    limit: u64,
}

impl Position {
    fn new(cursor: Cursor) -> Self {
        Self { cursor, limit: u64::MAX }
    }

    fn offset(&self) -> u64 {
        self.cursor.offset.get()
    }

    fn cut(&mut self, offset: u64) {
        self.limit = self.limit.min(offset);
    }
}

#[derive(Debug, Default)]
struct Partition {
    start: u64,
    /// All that were ever there, from offset 0 on.
    ids: Vec<Id>,
    /// What was acknowledged as durable.
    durable: u64,
}

impl Partition {
    fn end(&self) -> u64 {
        self.ids.len() as u64
    }

    /// An offset of the partition, by what part of it lies below.
    fn offset_at(&self, part: f64) -> u64 {
        let count = self.end() - self.start;
        (0..=count).find(|n| *n as f64 >= part * (count + 1) as f64 - 1.0).unwrap_or(count) + self.start
    }
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    position: Position,
    /// What it committed last, or found committed.
    committed: Cursor,
    has_sought: bool,
    is_paused: bool,
}

/// Committed positions of the group; `None` if there is no such group.
type Committed = Option<BTreeMap<Place, Position>>;

struct Run {
    disk: SimDisk,
    broker: Broker,
    consumer: Option<Consumer>,
    receipts: Vec<(Place, Id, u64, Receipt<Appended>)>,

    catalog: Catalog,
    partitions: BTreeMap<Place, Partition>,
    readings: BTreeMap<Place, Reading>,
    /// Every state of the group that a power loss may leave, the present one last.
    committed: Vec<Committed>,
    remembered: Vec<(Place, Position)>,
    next_topic: u32,
    next_id: Id,
}

impl Run {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let broker = open(&disk).unwrap();
        let mut run = Self {
            disk,
            broker,
            consumer: None,
            receipts: Vec::new(),
            catalog: Catalog::new(),
            partitions: BTreeMap::new(),
            readings: BTreeMap::new(),
            committed: vec![None],
            remembered: Vec::new(),
            next_topic: 0,
            next_id: 0,
        };
        run.create_topic(0);
        run
    }

    fn is_durable(&self, place: Place) -> bool {
        self.catalog.iter().any(|(name, entry)| entry.topic == place.topic && name == TOPICS[0])
    }

    /// One of the partitions there are.
    fn pick(&self, at: usize) -> Option<(Place, TopicPartition)> {
        let all: Vec<_> = places(&self.catalog).collect();
        (!all.is_empty()).then(|| all[at % all.len()].clone())
    }

    fn stats(&self, at: &TopicPartition) -> LogStats {
        self.broker.embedded().unwrap().stats(at).unwrap()
    }

    /// Up to where readers see.
    fn visible(&self, place: Place, at: &TopicPartition) -> u64 {
        let stats = self.stats(at);
        let end = if self.is_durable(place) { stats.durable_offset } else { stats.written_offset };
        end.get()
    }

    fn present(&self) -> &Committed {
        self.committed.last().unwrap()
    }

    /// Notes a change of what is committed.
    fn commit(&mut self, change: impl FnOnce(&mut Committed), is_durable: bool) {
        let mut state = self.present().clone();
        change(&mut state);
        self.committed.push(state);
        if is_durable {
            self.commits_are_durable();
        }
    }

    fn commits_are_durable(&mut self) {
        self.committed.drain(..self.committed.len() - 1);
    }

    /// A history ended at `offset`.
    fn cut_positions(&mut self, place: Place, offset: u64) {
        self.readings.get_mut(&place).into_iter().for_each(|reading| reading.position.cut(offset));
        for state in self.committed.iter_mut().flatten() {
            state.get_mut(&place).into_iter().for_each(|position| position.cut(offset));
        }
        for (_, position) in self.remembered.iter_mut().filter(|(at, _)| *at == place) {
            position.cut(offset);
        }
    }

    fn cursor(&self, at: &TopicPartition) -> Cursor {
        self.consumer.as_ref().unwrap().position(at).unwrap()
    }

    fn create_topic(&mut self, topic: usize) {
        let name = TOPICS[topic];
        let durability = if topic == 0 { Durability::Durable } else { Durability::Written };
        let config = TopicConfig::new().segment_bytes(4096).staging_bytes(4096).durability(durability);
        let partitions = 2 - u32::try_from(topic).unwrap();
        let created = self.broker.create_topic(name, &config.partitions(partitions));
        if self.catalog.contains_key(name) {
            assert!(matches!(created, Err(Error::TopicExists { .. })), "{created:?}");
            return;
        }
        created.unwrap();
        let entry = Entry { topic: self.next_topic, partitions };
        self.next_topic += 1;
        self.catalog.insert(name.to_owned(), entry);
        self.make_partitions();
    }

    fn make_partitions(&mut self) {
        for (place, _) in places(&self.catalog) {
            self.partitions.entry(place).or_default();
        }
    }

    fn send(&mut self, at: usize, count: usize) {
        let Some((place, at)) = self.pick(at) else { return };
        let producer = self.broker.producer(&at.topic).unwrap();
        for _ in 0..count {
            let id = self.next_id;
            self.next_id += 1;
            let value = value_of(id);
            let receipt = producer.send(Message::new(value.as_bytes()).partition(at.partition)).unwrap();
            let known = self.partitions.get_mut(&place).unwrap();
            self.receipts.push((place, id, known.end(), receipt));
            known.ids.push(id);
        }
    }

    fn wait_for_all(&mut self) {
        for (place, id, offset, receipt) in std::mem::take(&mut self.receipts) {
            let is_durable = self.is_durable(place);
            let is_there = self.partitions.get(&place).and_then(|known| known.ids.get(to_usize(offset)));
            let is_there = is_there == Some(&id);
            match receipt.wait() {
                Ok(appended) => {
                    assert_eq!(appended.offset.get(), offset);
                    let known = self.partitions.get_mut(&place);
                    if let Some(known) = known.filter(|_| is_durable && is_there) {
                        known.durable = known.durable.max(offset + 1);
                    }
                }
                Err(Error::Truncated { .. } | Error::UnknownTopic { .. }) => assert!(!is_there),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn subscribe(&mut self, is_latest: bool) {
        self.leave();
        let names: Vec<String> = self.catalog.keys().cloned().collect();
        let reset = if is_latest { Reset::Latest } else { Reset::Earliest };
        let ends: BTreeMap<Place, u64> =
            places(&self.catalog).map(|(place, at)| (place, self.visible(place, &at))).collect();
        let consumer = self.broker.consumer(GROUP).reset(reset).subscribe(&names);
        if names.is_empty() {
            assert!(matches!(consumer, Err(Error::NothingToRead)));
            return;
        }
        self.consumer = Some(consumer.unwrap());
        let met: Vec<u32> = self.present().iter().flatten().map(|(place, _)| place.topic).collect();
        self.meet_partitions(
            |place, start| {
                if is_latest && !met.contains(&place.topic) { ends[&place] } else { start }
            },
        );
        let second = self.broker.consumer(GROUP).subscribe(&names);
        assert!(matches!(second, Err(Error::GroupInUse { .. })), "{second:?}");
    }

    /// Takes up the partitions that the consumer reads since its last poll.
    fn meet_partitions(&mut self, start_of: impl Fn(Place, u64) -> u64) {
        let topics: Vec<u32> = if self.readings.is_empty() {
            self.catalog.values().map(|entry| entry.topic).collect()
        } else {
            self.readings.keys().map(|place| place.topic).collect()
        };
        let (mut starts, mut has_met) = (BTreeMap::new(), false);
        for (place, at) in places(&self.catalog) {
            if self.readings.contains_key(&place) || !topics.contains(&place.topic) {
                continue;
            }
            has_met = true;
            let cursor = self.consumer.as_ref().unwrap().committed(&at).unwrap().unwrap();
            let known = self.present().as_ref().and_then(|state| state.get(&place)).copied();
            let position = known.unwrap_or_else(|| {
                let offset = start_of(place, self.partitions[&place].start);
                assert_eq!(cursor.offset.get(), offset, "{at}: the first contact");
                starts.insert(place, Position::new(cursor));
                let known = self.partitions.get_mut(&place).unwrap();
                known.durable = known.durable.max(offset);
                Position::new(cursor)
            });
            assert_eq!(cursor.offset.get(), position.offset(), "{at}: what is committed");
            let reading =
                Reading { position, committed: position.cursor, has_sought: false, is_paused: false };
            self.readings.insert(place, reading);
        }
        if !starts.is_empty() {
            self.commit(|state| state.get_or_insert_default().extend(starts), true);
        }
        if has_met {
            // What it goes on from is durable.
            self.commits_are_durable();
        }
    }

    fn leave(&mut self) {
        self.consumer = None;
        self.readings.clear();
    }

    fn poll(&mut self) {
        if self.consumer.is_none() {
            return;
        }
        let deleted: Vec<Place> =
            self.readings.keys().filter(|place| !self.partitions.contains_key(place)).copied().collect();
        let mut next: BTreeMap<TopicPartition, u64> = BTreeMap::new();
        let mut is_told = deleted.is_empty();
        let (mut seen, mut events) = (Vec::new(), Vec::new());
        loop {
            let records = self.consumer.as_mut().unwrap().poll(Duration::ZERO).unwrap();
            if records.is_empty() && records.events().is_empty() {
                break;
            }
            events.extend(records.events().iter().cloned());
            seen.extend(records.iter().map(|record| {
                let id = id_of(record.value().unwrap()).unwrap();
                (record.topic_partition().clone(), record.offset().get(), id)
            }));
        }
        for place in deleted {
            self.readings.remove(&place);
            is_told |= events.iter().any(|event| matches!(event, Event::TopicDeleted { .. }));
        }
        assert!(is_told, "a deleted topic is told");
        let was_reading: Vec<Place> = self.readings.keys().copied().collect();
        if !was_reading.is_empty() {
            self.meet_partitions(|_, start| start);
        }
        for (place, at) in places(&self.catalog) {
            let Some(reading) = self.readings.get(&place).copied() else { continue };
            let known = &self.partitions[&place];
            let visible = self.visible(place, &at);
            assert!((known.durable.min(visible)..=known.end()).contains(&visible));
            let told: Vec<_> = events.iter().filter_map(|event| told_of(event, &at)).collect();
            let mut expected = Vec::new();
            let mut offset = reading.position.offset();
            if !reading.is_paused {
                // A known limit: when every segment that knows where the position's history ended is gone, a position up to
                // the start of the log is taken for one of this history.
                let is_unknown = reading.position.limit < known.start && offset <= known.start;
                let is_told = told.first().is_some_and(|told| told.0 == "diverged");
                if offset > reading.position.limit && (is_told || !is_unknown) {
                    // Where the removed records were those of a later history, it is the log start that is told at last.
                    let epoch_end = match told.first() {
                        Some(("diverged", _, told)) if reading.position.limit < known.start => {
                            (*told).clamp(reading.position.limit, known.start)
                        }
                        _ => reading.position.limit,
                    };
                    expected.push(("diverged", offset, epoch_end));
                    offset = epoch_end;
                }
                if offset < known.start {
                    expected.push(("gap", offset, known.start));
                    offset = known.start;
                }
            }
            assert_eq!(told, expected, "{at}");
            let end = if reading.is_paused { offset } else { visible.max(offset) };
            let records: Vec<_> = (offset..end).map(|at| (at, known.ids[to_usize(at)])).collect();
            let read: Vec<_> =
                seen.iter().filter(|(from, ..)| *from == at).map(|(_, offset, id)| (*offset, *id)).collect();
            assert_eq!(read, records, "{at}");
            next.insert(at.clone(), end);
            let cursor = self.cursor(&at);
            assert_eq!(cursor.offset.get(), end, "{at}");
            let has_moved = end > reading.position.offset() || !told.is_empty();
            let position = if has_moved { Position::new(cursor) } else { reading.position };
            let reading = self.readings.get_mut(&place).unwrap();
            reading.has_sought |= !told.is_empty();
            reading.position = position;
            // A place beyond what can be read, where a record will be, is of no history yet.
            if end <= visible {
                self.remembered.push((place, position));
            }
        }
    }

    /// What becomes of a commit of these places: whether it is made.
    fn expect_commit(
        &mut self,
        outcome: Result<(), Error>,
        moves: &[(Place, Position)],
        before: &BTreeMap<Place, (u64, u64)>,
        is_awaited: bool,
    ) {
        for (place, position) in moves {
            let (durable, end) = before[place];
            let limit = if self.is_durable(*place) { durable } else { end };
            if position.offset() > limit {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, Error::CommitBeyondDurable { .. } | Error::OffsetOutOfRange { .. }),
                    "{error}"
                );
                return;
            }
        }
        let is_backwards = moves.iter().any(|(place, position)| {
            let committed = self.present().as_ref().and_then(|state| state.get(place));
            !self.readings[place].has_sought
                && committed.is_some_and(|committed| committed.offset() > position.offset())
        });
        if is_backwards {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::CommitBackwards { .. }), "{error}");
            return;
        }
        outcome.unwrap();
        for (place, position) in moves {
            let known = self.partitions.get_mut(place).unwrap();
            known.durable = known.durable.max(position.offset());
            let reading = self.readings.get_mut(place).unwrap();
            reading.committed = position.cursor;
            reading.has_sought = false;
        }
        if !moves.is_empty() {
            let moves = moves.to_vec();
            self.commit(|state| state.get_or_insert_default().extend(moves), false);
        }
        if is_awaited {
            self.commits_are_durable();
        }
    }

    fn ends(&self) -> BTreeMap<Place, (u64, u64)> {
        places(&self.catalog)
            .map(|(place, at)| {
                let stats = self.stats(&at);
                (place, (stats.durable_offset.get(), stats.log_end_offset.get()))
            })
            .collect()
    }

    fn commit_all(&mut self, is_awaited: bool) {
        let Some(consumer) = &self.consumer else { return };
        let ends = self.ends();
        let receipt = consumer.commit();
        let outcome = outcome_of(receipt, is_awaited);
        let moves: Vec<_> = self
            .readings
            .iter()
            .filter(|(_, reading)| reading.committed != reading.position.cursor)
            .map(|(place, reading)| (*place, reading.position))
            .collect();
        self.expect_commit(outcome, &moves, &ends, is_awaited);
    }

    fn commit_to(&mut self, at: usize, part: f64, is_awaited: bool) {
        let Some((place, at)) = self.pick(at) else { return };
        let Some(reading) = self.readings.get(&place).copied() else { return };
        let all = Partition { start: 0, ids: vec![0; to_usize(reading.position.offset())], durable: 0 };
        let mut position = reading.position;
        position.cursor.offset = Offset::new(all.offset_at(part));
        let ends = self.ends();
        let receipt = self.consumer.as_ref().unwrap().commit_to(&[position.cursor]);
        let outcome = outcome_of(receipt, is_awaited);
        assert!(self.catalog.contains_key(&*at.topic));
        self.expect_commit(outcome, &[(place, position)], &ends, is_awaited);
    }

    fn seek(&mut self, at: usize, part: f64) {
        let Some((place, at)) = self.pick(at) else { return };
        if !self.readings.contains_key(&place) {
            return;
        }
        let offset = self.partitions[&place].offset_at(part);
        self.consumer.as_mut().unwrap().seek(&at, SeekTo::Offset(Offset::new(offset))).unwrap();
        let position = Position::new(self.cursor(&at));
        assert_eq!(position.offset(), offset);
        let reading = self.readings.get_mut(&place).unwrap();
        (reading.position, reading.has_sought) = (position, true);
    }

    fn seek_to_cursor(&mut self, index: usize) {
        let Some(position) = self.remembered.get(index % self.remembered.len().max(1)).copied() else {
            return;
        };
        for (place, at) in places(&self.catalog) {
            if !self.readings.contains_key(&place) || place.partition != position.0.partition {
                continue;
            }
            let sought = self.consumer.as_mut().unwrap().seek(&at, SeekTo::Cursor(position.1.cursor));
            if place != position.0 {
                assert!(matches!(sought, Err(Error::ForeignCursor { .. })), "{sought:?}");
                continue;
            }
            sought.unwrap();
            let reading = self.readings.get_mut(&place).unwrap();
            (reading.position, reading.has_sought) = (position.1, true);
        }
    }

    fn set_paused(&mut self, at: usize, is_paused: bool) {
        let Some((place, at)) = self.pick(at) else { return };
        let Some(reading) = self.readings.get_mut(&place) else { return };
        reading.is_paused = is_paused;
        let consumer = self.consumer.as_mut().unwrap();
        if is_paused { consumer.pause(&[at]).unwrap() } else { consumer.resume(&[at]).unwrap() }
    }

    fn delete_before(&mut self, at: usize, part: f64) {
        let Some((place, at)) = self.pick(at) else { return };
        let before = self.partitions[&place].offset_at(part);
        self.broker.embedded().unwrap().delete_records_before(&at, Offset::new(before)).unwrap();
        let known = self.partitions.get_mut(&place).unwrap();
        known.start = before;
        known.durable = known.durable.max(before);
    }

    fn truncate(&mut self, at: usize, part: f64) {
        let Some((place, at)) = self.pick(at) else { return };
        let known = &self.partitions[&place];
        let (offset, end) = (known.offset_at(part), known.end());
        self.broker.embedded().unwrap().truncate_to(&at, Offset::new(offset)).unwrap();
        let known = self.partitions.get_mut(&place).unwrap();
        known.ids.truncate(to_usize(offset));
        known.durable = offset;
        if offset < end {
            self.cut_positions(place, offset);
        }
    }

    fn reset_group(&mut self, at: usize, part: f64) {
        let Some((place, at)) = self.pick(at) else { return };
        let offset = self.partitions[&place].offset_at(part);
        let (durable, _) = self.ends()[&place];
        let to = SeekTo::Offset(Offset::new(offset));
        let reset = self.broker.reset_group(GROUP, std::slice::from_ref(&at), to);
        let is_member = self.consumer.is_some();
        if self.present().is_none() && !is_member {
            assert!(matches!(reset, Err(Error::UnknownGroup { .. })), "{reset:?}");
            return;
        }
        if self.is_durable(place) && offset > durable {
            assert!(matches!(reset, Err(Error::CommitBeyondDurable { .. })), "{reset:?}");
            return;
        }
        let known = self.partitions.get_mut(&place).unwrap();
        known.durable = known.durable.max(offset);
        if is_member {
            assert!(matches!(reset, Err(Error::GroupNotEmpty { .. })), "{reset:?}");
            return;
        }
        let reset = reset.unwrap();
        assert_eq!(reset[0].to.offset.get(), offset);
        let position = Position::new(reset[0].to);
        self.commit(|state| state.get_or_insert_default().extend([(place, position)]), true);
    }

    fn delete_group(&mut self) {
        let deleted = self.broker.delete_group(GROUP);
        if self.consumer.is_some() {
            assert!(matches!(deleted, Err(Error::GroupNotEmpty { .. })), "{deleted:?}");
        } else if self.present().is_none() {
            assert!(matches!(deleted, Err(Error::UnknownGroup { .. })), "{deleted:?}");
        } else {
            deleted.unwrap();
            self.commit(|state| *state = None, true);
        }
    }

    fn add_partition(&mut self, topic: usize) {
        let name = TOPICS[topic];
        let count = self.catalog.get(name).map_or(1, |entry| entry.partitions) + 1;
        if count > 3 {
            return;
        }
        let altered = self.broker.alter_topic(name, &TopicConfig::new().partitions(count));
        match self.catalog.get_mut(name) {
            None => assert!(matches!(altered, Err(Error::UnknownTopic { .. })), "{altered:?}"),
            Some(entry) => {
                altered.unwrap();
                entry.partitions = count;
                self.make_partitions();
                self.poll();
            }
        }
    }

    fn delete_topic(&mut self, topic: usize) {
        let deleted = self.broker.delete_topic(TOPICS[topic]);
        let Some(entry) = self.catalog.remove(TOPICS[topic]) else {
            assert!(matches!(deleted, Err(Error::UnknownTopic { .. })), "{deleted:?}");
            return;
        };
        deleted.unwrap();
        self.partitions.retain(|place, _| place.topic != entry.topic);
        for state in self.committed.iter_mut().flatten() {
            state.retain(|place, _| place.topic != entry.topic);
        }
        self.poll();
    }

    fn reopen(&mut self) {
        self.leave();
        self.broker.close().unwrap();
        self.wait_for_all();
        self.broker = open(&self.disk).unwrap();
        for known in self.partitions.values_mut() {
            known.durable = known.end();
        }
        self.commits_are_durable();
        self.compare_contents();
    }

    fn lose_power(&mut self, seed: u64) {
        let durable: BTreeMap<Place, u64> =
            self.ends().into_iter().map(|(place, (durable, _))| (place, durable)).collect();
        self.leave();
        self.receipts.clear();
        let mut choices = Choices(seed | 1);
        let is_all_lost = seed.is_multiple_of(3);
        self.disk = self.disk.crash(|_, _| !is_all_lost && choices.next() >> 63 == 0);
        self.broker = open(&self.disk).unwrap();
        let found = contents(&self.broker, &self.catalog).unwrap();
        let before = self.committed.clone();
        for (place, at) in places(&self.catalog).collect::<Vec<_>>() {
            let known = self.partitions.get_mut(&place).unwrap();
            let end = found[&at].end();
            assert!(durable[&place] >= known.durable, "{at}: what was acknowledged is durable");
            assert!(end >= durable[&place], "{at}: ends at {end}, durable was {}", durable[&place]);
            known.ids.truncate(to_usize(end));
            known.durable = end;
            self.cut_positions(place, end);
        }
        self.compare_contents();
        let shown = self.shown_group();
        let is_it = |state: &Committed| cursors_of(state, &self.catalog) == shown;
        let index = self.committed.iter().rposition(is_it);
        let index = index.unwrap_or_else(|| panic!("{shown:?} is committed, possible {:?}", self.committed));
        for (place, position) in before[index].iter().flatten() {
            let end = self.partitions[place].end();
            let is_noticed = position.limit < position.offset();
            assert!(position.offset() <= end || is_noticed, "{position:?} is committed, {end} is the end");
        }
        let state = self.committed.swap_remove(index);
        self.committed = vec![state];
    }

    fn compare_contents(&self) {
        let found = contents(&self.broker, &self.catalog).unwrap();
        for (place, at) in places(&self.catalog) {
            let (known, content) = (&self.partitions[&place], &found[&at]);
            assert_eq!(content.start, known.start, "{at}");
            assert_eq!(content.ids, known.ids[to_usize(known.start)..], "{at}");
        }
    }

    fn shown_group(&self) -> Option<BTreeMap<TopicPartition, Cursor>> {
        match self.broker.describe_group(GROUP) {
            Err(Error::UnknownGroup { .. }) => None,
            described => {
                let positions = described.unwrap().positions.into_iter();
                Some(positions.map(|known| (known.partition, known.committed)).collect())
            }
        }
    }

    /// What can be told of at any time.
    fn check(&self) {
        let found = self.broker.topics().unwrap();
        assert_eq!(found, self.catalog.keys().cloned().collect::<Vec<_>>());
        for (place, at) in places(&self.catalog) {
            let (stats, known) = (self.stats(&at), &self.partitions[&place]);
            assert_eq!(
                (stats.log_start_offset.get(), stats.log_end_offset.get()),
                (known.start, known.end())
            );
            assert!(stats.durable_offset.get() >= known.durable, "{at}: {stats:?}");
        }
        let shown = self.shown_group();
        // A group whose only member has committed nothing is shown, without positions.
        let is_only_member = shown.as_ref().is_some_and(BTreeMap::is_empty) && self.consumer.is_some();
        if !(is_only_member && self.present().is_none()) {
            assert_eq!(shown, cursors_of(self.present(), &self.catalog));
        }
    }

    fn run(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Publish { at } => {
                self.send(at, 1);
                self.wait_for_all();
            }
            Operation::Send { at, count } => self.send(at, count),
            Operation::WaitForAll => self.wait_for_all(),
            Operation::Subscribe { is_latest } => self.subscribe(is_latest),
            Operation::Leave => self.leave(),
            Operation::Poll => self.poll(),
            Operation::Commit { is_awaited } => self.commit_all(is_awaited),
            Operation::CommitTo { at, part, is_awaited } => self.commit_to(at, part, is_awaited),
            Operation::Seek { at, part } => self.seek(at, part),
            Operation::SeekToCursor { index } => self.seek_to_cursor(index),
            Operation::SetPaused { at, is_paused } => self.set_paused(at, is_paused),
            Operation::DeleteBefore { at, part } => self.delete_before(at, part),
            Operation::Truncate { at, part } => self.truncate(at, part),
            Operation::ResetGroup { at, part } => self.reset_group(at, part),
            Operation::DeleteGroup => self.delete_group(),
            Operation::CreateTopic { topic } => self.create_topic(topic),
            Operation::AddPartition { topic } => self.add_partition(topic),
            Operation::DeleteTopic { topic } => self.delete_topic(topic),
            Operation::Maintain => drop(self.broker.run_maintenance_once().unwrap()),
            Operation::Reopen => self.reopen(),
            Operation::LosePower { seed } => self.lose_power(seed),
        }
        self.check();
    }
}

fn outcome_of(receipt: Receipt<()>, is_awaited: bool) -> Result<(), Error> {
    if is_awaited {
        return receipt.wait();
    }
    // A refusal is known at once; nobody waits for the rest.
    let mut receipt = receipt;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(&mut receipt).poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => Ok(()),
    }
}

fn told_of(event: &Event, at: &TopicPartition) -> Option<(&'static str, u64, u64)> {
    match event {
        Event::Gap { partition, from, to } if **partition == *at => Some(("gap", from.get(), to.get())),
        Event::Diverged { partition, position, epoch_end } if **partition == *at => {
            Some(("diverged", position.offset.get(), epoch_end.get()))
        }
        _ => None,
    }
}

fn cursors_of(state: &Committed, catalog: &Catalog) -> Option<BTreeMap<TopicPartition, Cursor>> {
    let at_place: BTreeMap<Place, TopicPartition> = places(catalog).collect();
    let state = state.as_ref()?;
    Some(
        state
            .iter()
            .filter_map(|(place, position)| Some((at_place.get(place)?.clone(), position.cursor)))
            .collect(),
    )
}

fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// 3,000, unless `PROPTEST_CASES` says otherwise.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(3_000, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_broker_does_what_vectors_and_maps_do(operations in operations()) {
        let mut run = Run::new();
        for operation in &operations {
            run.run(operation);
        }
        run.reopen();
    }
}
