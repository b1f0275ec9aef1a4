//! The coordinator against its invariants: all short interleavings, and long random ones.
//!
//! - A1: nobody delivers or commits but who was last told that it may; it is superseded only if it had nothing
//!   outstanding, or its time was up, or it gave the partition up, or was evicted.
//! - A2: a partition whose owner is not its target has a deadline within the revoke timeout; when members go round, woken
//!   by nothing but what the coordinator says, everything comes to rest where it is to be, whoever is stuck.
//! - C1: one that was superseded commits nothing.
//! - Nobody loses a partition that was to be its own all the time.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::collections::BTreeSet;

use common::Choices;
use tailwater_groups::coordinator::assignor::Assignor;
use tailwater_groups::coordinator::{MemberId, MemberSpec, Subscription, TopicPattern};
use world::{World, topic_id};

const TIMEOUT_MS: u64 = 100;

/// Something that happens to the first, second, third ... member, or to all.
#[derive(Clone, Copy, Debug)]
enum Event {
    Join,
    Leave(usize),
    Poll(usize),
    Deliver(usize),
    Commit(usize),
    Release(usize),
    Wait(usize),
    Pass(u64),
    AddPartition,
    DeleteTopic,
}

fn spec(max_poll_interval_ms: Option<u64>) -> MemberSpec {
    MemberSpec {
        subscription: Subscription { topics: Vec::new(), patterns: vec![TopicPattern::new("*").unwrap()] },
        revoke_timeout_ms: TIMEOUT_MS,
        max_poll_interval_ms,
        ..MemberSpec::default()
    }
}

/// What can happen now.
fn possible(world: &World, max_members: usize) -> Vec<Event> {
    let mut events = vec![Event::Pass(TIMEOUT_MS / 2), Event::Pass(TIMEOUT_MS)];
    if world.members.len() < max_members {
        events.push(Event::Join);
    }
    for (index, view) in world.members.values().enumerate() {
        events.extend([Event::Leave(index), Event::Poll(index), Event::Wait(index)]);
        if !view.owned.is_empty() {
            events.extend([Event::Deliver(index), Event::Commit(index)]);
        }
        if !view.told.is_empty() {
            events.push(Event::Release(index));
        }
    }
    if world.topics.get(&1).is_some_and(|(_, count)| *count < 3) {
        events.push(Event::AddPartition);
    }
    if world.topics.len() > 1 {
        events.push(Event::DeleteTopic);
    }
    events
}

fn member(world: &World, index: usize) -> MemberId {
    *world.members.keys().nth(index).unwrap()
}

fn apply(world: &mut World, event: Event, spec: &MemberSpec) {
    match event {
        Event::Join => assert!(world.join(spec.clone()).is_some()),
        Event::Leave(index) => world.leave(member(world, index)),
        Event::Poll(index) => drop(world.poll_in_vain(member(world, index))),
        Event::Deliver(index) => world.deliver(member(world, index)),
        Event::Commit(index) => world.commit(member(world, index)),
        Event::Release(index) => world.release(member(world, index)),
        Event::Wait(index) => world.wait(member(world, index)),
        Event::Pass(ms) => world.pass(ms),
        Event::AddPartition => {
            world.topics.get_mut(&1).unwrap().1 += 1;
            world.announce();
        }
        Event::DeleteTopic => {
            world.topics.remove(&2);
            world.announce();
        }
    }
}

/// All that can happen in `depth` steps. Returns how many sequences that are.
fn explore(world: &World, depth: usize, max_members: usize, spec: &MemberSpec, path: &mut Vec<Event>) -> u64 {
    if depth == 0 {
        let show = || format!("{path:?}");
        let guard = Tell(&show);
        world.clone().settle(&BTreeSet::new());
        for id in world.members.keys() {
            world.clone().settle(&BTreeSet::from([*id]));
        }
        std::mem::forget(guard);
        return 1;
    }
    let mut count = 0;
    for event in possible(world, max_members) {
        path.push(event);
        let mut next = world.clone();
        {
            let show = || format!("{path:?}");
            let guard = Tell(&show);
            apply(&mut next, event, spec);
            std::mem::forget(guard);
        }
        count += explore(&next, depth - 1, max_members, spec, path);
        path.pop();
    }
    count
}

/// Says what led to a panic.
struct Tell<'t>(&'t dyn Fn() -> String);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        eprintln!("after {}", (self.0)());
    }
}

/// A group with two members that have polled.
fn two_members(spec: &MemberSpec) -> World {
    let mut world = World::new(&[(1, "a", 2), (2, "b", 1)]);
    for _ in 0..2 {
        let id = world.join(spec.clone()).unwrap();
        world.poll(id);
    }
    world
}

#[test]
fn every_short_interleaving_of_two_members_from_nothing() {
    let spec = spec(None);
    let count = explore(&World::new(&[(1, "a", 2), (2, "b", 1)]), 6, 2, &spec, &mut Vec::new());
    assert!(count > 50_000, "{count} sequences");
}

#[test]
fn every_short_interleaving_of_three_members_where_two_are_there() {
    let spec = spec(None);
    let count = explore(&two_members(&spec), 4, 3, &spec, &mut Vec::new());
    assert!(count > 10_000, "{count} sequences");
}

#[test]
fn every_short_interleaving_where_a_member_has_delivered_all_and_another_comes() {
    let spec = spec(None);
    let mut world = World::new(&[(1, "a", 2), (2, "b", 1)]);
    let first = world.join(spec.clone()).unwrap();
    world.poll(first);
    world.deliver(first);
    world.join(spec.clone()).unwrap();
    let count = explore(&world, 5, 2, &spec, &mut Vec::new());
    assert!(count > 50_000, "{count} sequences");
}

#[test]
fn every_short_interleaving_of_members_that_are_evicted_when_they_do_not_poll() {
    let spec = spec(Some(TIMEOUT_MS));
    let count = explore(&two_members(&spec), 5, 2, &spec, &mut Vec::new());
    assert!(count > 50_000, "{count} sequences");
}

/// A member of a random kind.
fn random_spec(choices: &mut Choices, assignor: Assignor, topic_count: u64) -> MemberSpec {
    let subscription = match choices.below(4) {
        0 => Subscription { topics: Vec::new(), patterns: vec![TopicPattern::new("T*").unwrap()] },
        1 => Subscription { topics: vec![topic_id(1)], patterns: vec![TopicPattern::new("t[2-9]").unwrap()] },
        _ => {
            let some = (1..=topic_count).filter(|_| choices.below(2) == 0);
            Subscription {
                topics: some.map(|number| topic_id(u8::try_from(number).unwrap())).collect(),
                patterns: Vec::new(),
            }
        }
    };
    MemberSpec {
        name: (choices.below(2) == 0).then(|| format!("m{}", choices.below(8)).into()),
        subscription,
        assignor,
        revoke_timeout_ms: [0, 50, TIMEOUT_MS][usize::try_from(choices.below(3)).unwrap()],
        max_poll_interval_ms: (choices.below(3) == 0).then(|| 50 + choices.below(200)),
    }
}

fn random_run(seed: u64, steps: u64) {
    let choices = &mut Choices::new(seed);
    let assignor = if seed.is_multiple_of(3) { Assignor::Range } else { Assignor::Uniform };
    let mut world = World::new(&[(1, "t1", 5), (2, "t2", 5), (3, "t3", 1)]);
    let (mut next_topic, mut deletions) = (4_u8, 0);
    for step in 0..steps {
        let show = || format!("step {step} of seed {seed}");
        let guard = Tell(&show);
        let count = world.members.len() as u64;
        let some = |choices: &mut Choices, world: &World| {
            (count > 0).then(|| member(world, usize::try_from(choices.below(count)).unwrap()))
        };
        match (choices.below(100), some(choices, &world)) {
            (0..4, _) if count < 8 => {
                // Refused if the name is taken.
                let _ = world.join(random_spec(choices, assignor, 3));
            }
            (4..7, Some(id)) => world.leave(id),
            (7, _) if next_topic < 200 => {
                world.topics.insert(
                    next_topic,
                    (format!("t{next_topic}"), 1 + u32::try_from(choices.below(4)).unwrap()),
                );
                next_topic += 1;
                world.announce();
            }
            // The first three stay, so that there is something to name.
            (8, _) => {
                let last = *world.topics.keys().last().unwrap();
                if last > 3 {
                    deletions += 1;
                    world.topics.remove(&last);
                    world.announce();
                }
            }
            (9, _) => {
                let (_, partitions) = world.topics.values_mut().next_back().unwrap();
                *partitions += u32::from(*partitions < 6);
                world.announce();
            }
            (10..40, Some(id)) => {
                let changes = world.poll_in_vain(id);
                // One who is told mostly commits and gives up, sometimes one of it, sometimes nothing.
                if !changes.revoking.is_empty() && choices.below(4) > 0 {
                    if choices.below(2) == 0 {
                        world.commit(id);
                    }
                    world.release(id);
                }
            }
            (40..60, Some(id)) => world.deliver(id),
            (60..75, Some(id)) => world.commit(id),
            (75..80, Some(id)) => world.release(id),
            (80..85, Some(id)) => world.wait(id),
            (85..95, _) => world.pass(choices.below(60)),
            (95, _) => world.tick(),
            _ => {}
        }
        if step % 37 == 0 {
            let stuck = world.members.keys().filter(|_| choices.below(3) == 0).copied().collect();
            world.clone().settle(&stuck);
        }
        std::mem::forget(guard);
    }
    assert!(steps < 1000 || (deletions > 0 && next_topic > 4), "seed {seed}");
}

#[test]
fn long_random_runs() {
    for seed in 0..100 {
        random_run(seed, 3000);
    }
}
