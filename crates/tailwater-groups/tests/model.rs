//! Any sequence of operations, with reopening and power loss among them, against a map: what is read is what was written,
//! and after a power loss what was acknowledged, or what came later.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::{Choices, State, commit, group, metadata_of, open, partition, state_of, topic};
use proptest::prelude::*;
use tailwater_groups::{Commit, Error, GroupKind, GroupLifetime, GroupStore};
use tailwater_log::storage::SimDisk;

const GROUPS: [&str; 3] = ["a", "billing", "zebra"];
const KEYS: [(u8, u32); 5] = [(1, 0), (1, 1), (2, 0), (2, 7), (3, 0)];

#[derive(Clone, Debug)]
enum Operation {
    /// A member commits: which partitions, and by how much from what is committed.
    Commit {
        group: usize,
        steps: BTreeMap<usize, i64>,
        may_go_back: bool,
        is_awaited: bool,
    },
    Set {
        group: usize,
        offsets: BTreeMap<usize, u64>,
        is_awaited: bool,
    },
    Delete {
        group: usize,
        is_awaited: bool,
    },
    Forget {
        topic: u8,
    },
    Rewrite,
    Sync,
    Maintain,
    Reopen,
    /// Some of what was not synced survives.
    LosePower {
        seed: u64,
    },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let a_group = 0..GROUPS.len();
    let steps = prop::collection::btree_map(0..KEYS.len(), -3_i64..30, 1..KEYS.len());
    let offsets = prop::collection::btree_map(0..KEYS.len(), 0_u64..200, 1..KEYS.len());
    let operation = prop_oneof![
        10 => (a_group.clone(), steps, any::<bool>(), prop::bool::weighted(0.3)).prop_map(
            |(group, steps, may_go_back, is_awaited)| Operation::Commit { group, steps, may_go_back, is_awaited }
        ),
        3 => (a_group.clone(), offsets, any::<bool>())
            .prop_map(|(group, offsets, is_awaited)| Operation::Set { group, offsets, is_awaited }),
        2 => (a_group, any::<bool>()).prop_map(|(group, is_awaited)| Operation::Delete { group, is_awaited }),
        1 => (1..4_u8).prop_map(|topic| Operation::Forget { topic }),
        2 => Just(Operation::Rewrite),
        1 => Just(Operation::Sync),
        1 => Just(Operation::Maintain),
        1 => Just(Operation::Reopen),
        2 => any::<u64>().prop_map(|seed| Operation::LosePower { seed }),
    ];
    prop::collection::vec(operation, 1..60)
}

/// The store under test, and every state that it went through with the end of the log at that time.
struct Run {
    disk: SimDisk,
    store: GroupStore,
    states: Vec<(State, u64)>,
    /// The first of them that a power loss may leave.
    durable: usize,
}

impl Run {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let store = open(&disk).unwrap();
        Self { disk, store, states: vec![(State::new(), 0)], durable: 0 }
    }

    fn state(&self) -> &State {
        &self.states.last().unwrap().0
    }

    fn note(&mut self, state: State, is_durable: bool) {
        self.states.push((state, self.store.log().log_end_offset().get()));
        if is_durable {
            self.durable = self.states.len() - 1;
        }
    }

    fn run(&mut self, operation: &Operation) {
        let mut state = self.state().clone();
        match operation {
            Operation::Commit { group: index, steps, may_go_back, is_awaited } => {
                let id = group(GROUPS[*index]);
                let (kind, offsets) = state.entry(id.to_string()).or_insert((GroupKind::Consumer, [].into()));
                let old = offsets.clone();
                let mut is_backwards = false;
                for (key, step) in steps {
                    let committed = old.get(&KEYS[*key]).copied();
                    let offset = committed.unwrap_or(5).saturating_add_signed(*step);
                    is_backwards |= committed.is_some_and(|committed| offset < committed);
                    offsets.insert(KEYS[*key], offset);
                }
                let member = self.store.join_exclusively(&id, *kind, GroupLifetime::Lasting).unwrap();
                let offsets = offsets.clone();
                let texts: Vec<_> = steps.keys().map(|key| metadata_of(offsets[&KEYS[*key]])).collect();
                let set: Vec<_> = steps
                    .keys()
                    .zip(&texts)
                    .map(|(key, metadata)| {
                        let (topic_number, number) = KEYS[*key];
                        let commit = commit(partition(topic_number, number), offsets[&KEYS[*key]]);
                        Commit { metadata, may_go_back: *may_go_back, ..commit }
                    })
                    .collect();
                match member.commit(&set) {
                    Err(Error::CommitBackwards { .. }) => assert!(is_backwards && !may_go_back),
                    Err(error) => panic!("{error}"),
                    Ok(receipt) => {
                        assert!(!is_backwards || *may_go_back);
                        if *is_awaited {
                            receipt.unwrap().wait().unwrap();
                        }
                        self.note(state, *is_awaited);
                    }
                }
            }
            Operation::Set { group: index, offsets, is_awaited } => {
                let id = group(GROUPS[*index]);
                let (_, known) = state.entry(id.to_string()).or_insert((GroupKind::Consumer, [].into()));
                known.extend(offsets.iter().map(|(key, offset)| (KEYS[*key], *offset)));
                let set: Vec<_> = offsets
                    .iter()
                    .map(|(key, offset)| commit(partition(KEYS[*key].0, KEYS[*key].1), *offset))
                    .collect();
                let receipt = self.store.set_positions(&id, &set).unwrap();
                if *is_awaited {
                    receipt.wait().unwrap();
                }
                self.note(state, *is_awaited);
            }
            Operation::Delete { group: index, is_awaited } => {
                let id = group(GROUPS[*index]);
                let was_there = state.remove(id.as_str()).is_some();
                match self.store.delete_group(&id) {
                    Err(Error::UnknownGroup { .. }) => assert!(!was_there),
                    Err(error) => panic!("{error}"),
                    Ok(receipt) => {
                        assert!(was_there);
                        if *is_awaited {
                            receipt.wait().unwrap();
                        }
                        self.note(state, *is_awaited);
                    }
                }
            }
            Operation::Forget { topic: number } => {
                state.values_mut().for_each(|(_, offsets)| offsets.retain(|key, _| key.0 != *number));
                self.store.forget_topics(|id| id == topic(*number)).unwrap();
                self.note(state, false);
            }
            Operation::Rewrite => {
                let is_durable = self.store.rewrite().unwrap();
                self.note(state, is_durable);
            }
            Operation::Sync => {
                self.store.log().sync().unwrap();
                self.note(state, true);
            }
            Operation::Maintain => drop(self.store.log().maintain().unwrap()),
            Operation::Reopen => {
                self.store.log().close().unwrap();
                self.store = open(&self.disk).unwrap();
                self.note(state, true);
            }
            Operation::LosePower { seed } => {
                let mut choices = Choices::new(*seed);
                let odds = 1 + choices.below(4);
                self.disk = self.disk.crash(|_, _| choices.below(4) < odds);
                self.store = open(&self.disk).unwrap();
                let found = state_of(&self.store);
                let allowed = &self.states[self.durable..];
                assert!(allowed.iter().any(|(state, _)| *state == found), "{found:?} is none of {allowed:?}");
                self.states.clear();
                self.note(found, true);
            }
        }
    }

    /// Compares everything that can be read with the map, and what is said to be durable with what is.
    fn check(&self) {
        assert_eq!(state_of(&self.store), *self.state());
        let durable_end = self.store.log().durable_offset().get();
        // The newest state that is durable for certain. A rewrite, or a forgetting of nothing, adds no other state.
        let durable = self.states.iter().rposition(|(_, end)| *end <= durable_end).unwrap_or(0);
        assert!(durable >= self.durable, "what was waited for is durable");
        let offset_in = |state: &State, name: &str, key: (u8, u32)| {
            state.get(name).and_then(|(_, offsets)| offsets.get(&key)).copied()
        };
        for name in GROUPS {
            for key in KEYS {
                let (id, at) = (group(name), partition(key.0, key.1));
                let exact = offset_in(&self.states[durable].0, name, key);
                let said = self.store.durable_committed(&id, at).map(|found| found.position.offset.get());
                assert!(
                    said <= exact && said.is_some() == exact.is_some(),
                    "{name} {key:?}: {said:?}, {exact:?}"
                );
                let held = self.store.held_offset(&id, at).map(|offset| offset.get());
                let possible =
                    self.states[durable..].iter().filter_map(|(state, _)| offset_in(state, name, key)).min();
                assert!(held <= possible && held.is_some() == possible.is_some(), "{held:?}, {possible:?}");
                let newest = self.store.committed(&id, at);
                assert_eq!(
                    newest.as_ref().is_some_and(|newest| self.store.is_durable(newest)),
                    newest.as_ref().is_some_and(|newest| newest.log_offset.get() < durable_end),
                );
                assert_eq!(self.store.has_met(&id, at.topic_id), {
                    let offsets = self.state().get(name).map(|(_, offsets)| offsets);
                    offsets.is_some_and(|offsets| offsets.keys().any(|known| known.0 == key.0))
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn positions_are_what_was_committed_across_reopening_and_power_loss(operations in operations()) {
        let mut run = Run::new();
        for operation in &operations {
            run.run(operation);
            run.check();
        }
    }
}
