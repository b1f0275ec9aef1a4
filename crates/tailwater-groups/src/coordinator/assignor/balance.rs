//! Unequal subscriptions: the loads of the members, and evening them out along augmenting paths.
//!
//! A path leads from a member over a partition that it has to one that may have it, and on from there. Handing each
//! partition on along a path takes one from its first member and gives one to its last; all between keep their loads. If no
//! path leads to a member with at least two fewer, the sum of the squares of the loads is the lowest there is (Harvey,
//! Ladner, Lovász, Tamir, "Semi-matchings for bipartite graphs and load balancing", J. Algorithms 59, 2006).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Problem;

/// Who has which partitions.
#[derive(Debug)]
pub(super) struct Loads {
    owners: Vec<Option<usize>>,
    topics: Vec<usize>,
    /// For each topic: who may have its partitions.
    pub(super) subscribers: Vec<Vec<usize>>,
    /// For each member: the partitions that it has, by topic. No topic without one.
    pub(super) held: Vec<BTreeMap<usize, BTreeSet<usize>>>,
    /// For each member: how many they are.
    pub(super) counts: Vec<usize>,
}

/// One partition that goes from a member to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) partition: usize,
    pub(super) to: usize,
}

impl Loads {
    pub(super) fn new(problem: &Problem<'_>, owners: &[Option<usize>]) -> Self {
        let members = problem.members.len();
        let mut loads = Self {
            owners: vec![None; owners.len()],
            topics: problem.topics(),
            subscribers: problem.subscribers(),
            held: vec![BTreeMap::new(); members],
            counts: vec![0; members],
        };
        for (partition, owner) in owners.iter().enumerate() {
            if let Some(owner) = *owner {
                loads.give(Move { partition, to: owner });
            }
        }
        loads
    }

    pub(super) fn into_owners(self) -> Vec<Option<usize>> {
        self.owners
    }

    pub(super) fn owners(&self) -> &[Option<usize>] {
        &self.owners
    }

    pub(super) fn topic_of(&self, partition: usize) -> usize {
        self.topics[partition]
    }

    /// Hands a partition over.
    pub(super) fn give(&mut self, Move { partition, to }: Move) {
        let topic = self.topics[partition];
        if let Some(from) = self.owners[partition].replace(to) {
            self.counts[from] -= 1;
            if let Some(held) = self.held[from].get_mut(&topic) {
                held.remove(&partition);
                if held.is_empty() {
                    self.held[from].remove(&topic);
                }
            }
        }
        self.counts[to] += 1;
        self.held[to].entry(topic).or_default().insert(partition);
    }

    /// Gives each partition without an owner to the subscriber with the fewest. Topics with few subscribers come first.
    pub(super) fn place_free(&mut self) {
        let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (partition, owner) in self.owners.iter().enumerate() {
            let topic = self.topics[partition];
            if owner.is_none() && !self.subscribers[topic].is_empty() {
                free.entry(topic).or_default().push(partition);
            }
        }
        let mut free: Vec<_> = free.into_iter().collect();
        free.sort_by_key(|(topic, _)| self.subscribers[*topic].len());
        for (topic, partitions) in free {
            let mut ranking: BTreeSet<_> =
                self.subscribers[topic].iter().map(|member| (self.counts[*member], *member)).collect();
            for partition in partitions {
                let Some((count, to)) = ranking.pop_first() else { break };
                self.give(Move { partition, to });
                ranking.insert((count + 1, to));
            }
        }
    }

    /// Hands partitions on along augmenting paths until there is none.
    ///
    /// From the most loaded member down: what one of them reaches without finding such a path is never looked at again,
    /// since nobody with as many or fewer finds one there.
    pub(super) fn balance(&mut self) {
        let mut is_done = vec![false; self.counts.len()];
        loop {
            let open = (0..self.counts.len()).filter(|member| !is_done[*member]);
            let Some(first) = open.max_by_key(|member| (self.counts[*member], std::cmp::Reverse(*member)))
            else {
                return;
            };
            let fewest = self.counts.iter().min().copied().unwrap_or(0);
            if self.counts[first] < fewest + 2 {
                return;
            }
            match self.find_path(first, &is_done) {
                Ok(path) => path.into_iter().for_each(|step| self.give(step)),
                Err(reached) => reached.into_iter().for_each(|member| is_done[member] = true),
            }
        }
    }

    /// The shortest path from `first` to one of the least loaded members that it reaches, or all that it reaches if none
    /// of them has at least two fewer.
    fn find_path(&self, first: usize, is_done: &[bool]) -> Result<Vec<Move>, Vec<usize>> {
        let mut came_over: Vec<Option<(usize, usize)>> = vec![None; self.counts.len()];
        let mut is_topic_seen = vec![false; self.subscribers.len()];
        let (mut reached, mut next) = (vec![first], VecDeque::from([first]));
        while let Some(from) = next.pop_front() {
            for topic in self.held[from].keys() {
                if std::mem::replace(&mut is_topic_seen[*topic], true) {
                    continue;
                }
                for to in &self.subscribers[*topic] {
                    if *to != first && !is_done[*to] && came_over[*to].is_none() {
                        came_over[*to] = Some((from, *topic));
                        reached.push(*to);
                        next.push_back(*to);
                    }
                }
            }
        }
        // The first of them in `reached` is the nearest.
        let last = reached.iter().copied().min_by_key(|member| self.counts[*member]);
        let Some(mut to) = last.filter(|last| self.counts[*last] + 2 <= self.counts[first]) else {
            return Err(reached);
        };
        let mut path = Vec::new();
        while let Some((from, topic)) = came_over[to] {
            let partition = self.held[from][&topic].last().copied();
            path.push(Move { partition: partition.expect("no topic without a partition"), to });
            to = from;
        }
        Ok(path)
    }
}
