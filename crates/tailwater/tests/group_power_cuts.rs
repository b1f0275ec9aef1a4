//! The power goes while partitions change hands: no position is ahead of what was done, and what was promised is kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::members::fill;
use common::{Choices, open};
use tailwater::storage::SimDisk;
use tailwater::{AutoCommit, Broker, Consumer, Error, Reset, TopicConfig};

const GROUP: &str = "billing";

/// By partition: the offset that a group has come to.
type Positions = BTreeMap<String, u64>;

/// What a run has done by now.
#[derive(Default)]
struct Done {
    /// Up to where each partition was returned to some member, without a hole.
    returned: Positions,
    /// The highest that was committed, or tried to be.
    asked: Positions,
    /// The lowest that a crash may leave: what a receipt has told to be durable.
    durable: Positions,
    published: Positions,
    /// Whether anybody has joined: the group is registered from then on.
    has_begun: bool,
}

fn positions(consumer: &Consumer) -> Positions {
    let place =
        |at: &tailwater::TopicPartition| (at.to_string(), consumer.position(at).unwrap().offset.get());
    consumer.assignment().iter().map(place).collect()
}

fn raise(all: &mut Positions, to: &Positions) {
    for (place, offset) in to {
        let known = all.entry(place.clone()).or_default();
        *known = (*known).max(*offset);
    }
}

impl Done {
    /// One poll. What it returned continues what was returned before, by whomever.
    fn poll(&mut self, consumer: &mut Consumer, is_committing: bool) {
        if is_committing {
            // What earlier polls returned.
            raise(&mut self.asked, &positions(consumer));
        }
        match consumer.poll(Duration::ZERO) {
            Ok(records) => {
                for record in records.iter() {
                    let place = record.topic_partition().to_string();
                    let known = self.returned.entry(place).or_default();
                    let offset = record.offset().get();
                    assert!(offset <= *known, "{} was skipped", record.topic_partition());
                    *known = (*known).max(offset + 1);
                }
            }
            Err(Error::FencedMemberEpoch { partition: Some(_), .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn commit(&mut self, consumer: &mut Consumer, is_waited_for: bool) {
        let at = positions(consumer);
        raise(&mut self.asked, &at);
        let receipt = consumer.commit();
        if is_waited_for {
            match receipt.wait() {
                Ok(()) => raise(&mut self.durable, &at),
                Err(Error::FencedMemberEpoch { partition: Some(_), .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Cuts the power and looks at what is left.
    fn check(&self, disk: &SimDisk, survives: u64) {
        let mut choices = Choices(survives | 1);
        let broker = open(&disk.crash(|_, _| choices.next().is_multiple_of(3))).unwrap();
        let described = match broker.describe_group(GROUP) {
            Ok(described) => described.positions,
            Err(Error::UnknownGroup { .. }) => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        let mut found = Positions::new();
        for position in described {
            assert!(position.committed.offset <= position.lag.end, "{position:?} is not there");
            found.insert(position.partition.to_string(), position.committed.offset.get());
        }
        for (place, offset) in &found {
            let asked = self.asked.get(place).copied().unwrap_or(0);
            assert!(*offset <= asked, "{place} is at {offset}, and nobody asked for more than {asked}");
            let returned = self.returned.get(place).copied().unwrap_or(0);
            assert!(*offset <= returned, "{place} is at {offset}, ahead of what was returned: {returned}");
        }
        for (place, offset) in &self.durable {
            assert!(found.get(place) >= Some(offset), "{place}: {found:?} has lost {offset}");
        }
        // Whoever comes goes on from there, and has all that was published.
        assert_eq!(!found.is_empty(), self.has_begun);
        let reset = if self.has_begun { Reset::Latest } else { Reset::Earliest };
        let mut member = broker.consumer(GROUP).reset(reset).subscribe(&["orders"]).unwrap();
        let mut next = found.clone();
        loop {
            let records = member.poll(Duration::ZERO).unwrap();
            assert!(records.events().is_empty());
            if records.is_empty() {
                break;
            }
            for record in records.iter() {
                let expected = next.entry(record.topic_partition().to_string()).or_insert(0);
                assert_eq!(record.offset().get(), *expected, "{}", record.topic_partition());
                *expected += 1;
            }
        }
        for (place, count) in &self.published {
            assert!(next.get(place).copied().unwrap_or(0) >= *count, "{place}: {next:?}");
        }
    }
}

fn join(broker: &Broker, roll: u64) -> Consumer {
    let options = broker.consumer(GROUP).max_records(7).revoke_timeout(Duration::from_millis(1));
    let committing = if roll.is_multiple_of(3) { AutoCommit::OnNextPoll } else { AutoCommit::Off };
    options.auto_commit(committing).subscribe(&["orders"]).unwrap()
}

fn run(seed: u64) -> u32 {
    let disk = SimDisk::new(seed);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    let mut choices = Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut done, mut moves) = (Done::default(), 0);
    let mut members: Vec<(Consumer, bool)> = Vec::new();
    let (mut partitions, mut number) = (4, 0);
    for step in 0..120 {
        let roll = choices.next() >> 8;
        let count = members.len();
        let at = usize::try_from(choices.next() % 4).unwrap().min(count.saturating_sub(1));
        match roll % 16 {
            0..=2 if count < 4 => {
                let is_committing = (roll >> 8).is_multiple_of(3);
                let consumer = join(&broker, roll >> 8);
                done.has_begun = true;
                members.push((consumer, is_committing));
                moves += 1;
            }
            3 if count > 0 => drop(members.swap_remove(at)),
            4 if count > 0 => {
                let (consumer, is_committing) = members.swap_remove(at);
                let at = positions(&consumer);
                if is_committing {
                    raise(&mut done.asked, &at);
                }
                match consumer.close() {
                    Ok(()) if is_committing => raise(&mut done.durable, &at),
                    Ok(()) | Err(Error::FencedMemberEpoch { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            5 if partitions < 8 && step > 40 => {
                partitions += 1;
                broker.alter_topic("orders", &TopicConfig::new().partitions(partitions)).unwrap();
            }
            6 => std::thread::sleep(Duration::from_millis(2)),
            7 => drop(broker.run_maintenance_once().unwrap()),
            8 | 9 => {
                fill(&broker, "orders", number..number + 5);
                number += 5;
                for partition in 0..partitions {
                    *done.published.entry(format!("orders-{partition}")).or_default() += 5;
                }
            }
            10..=12 if count > 0 => {
                let (consumer, is_committing) = &mut members[at];
                done.poll(consumer, *is_committing);
            }
            _ if count > 0 => {
                let (consumer, _) = &mut members[at];
                done.commit(consumer, roll & 256 == 0);
            }
            _ => {}
        }
        done.check(&disk, choices.next());
    }
    moves
}

#[test]
fn a_power_cut_in_the_middle_of_take_overs_loses_nothing_and_runs_ahead_of_nobody() {
    let moves: u32 = (1..=12).map(run).sum();
    assert!(moves > 50, "{moves}");
}
