//! Any sequence of calls, with reopening and power loss among them, against vectors and maps: what is read is what was
//! published, a group goes on where it was, and after a power loss what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;
mod consuming;
#[path = "../history/mod.rs"]
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
