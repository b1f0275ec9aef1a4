//! Unequal subscriptions: of all the assignments that are equally even, one that moves the fewest partitions.
//!
//! An assignment is a flow of partitions to members, at a cost: first the squares of the loads, then the partitions that
//! are not where they were. A flow is the cheapest there is if no cycle in its residual graph costs less than nothing
//! (Klein, "A primal method for minimal cost flows", Management Science 14, 1967). The loads are the best there are before
//! this, so the cycles to look for are those that leave their squares alone and save moves: partitions that are handed
//! round, or along a path from a member to one that has one fewer.

use std::collections::BTreeSet;

use super::MAX_THRIFT_STEPS;
use super::balance::{Loads, Move};

/// A place in the residual graph.
#[derive(Clone, Copy, Debug)]
enum Hop {
    /// A member gives away a partition of this topic.
    Gives { topic: usize },
    /// A partition of the topic goes to a member.
    Takes { topic: usize },
    /// A member gives this partition back to who had it.
    Returns { partition: usize },
    /// From a member to the loads one above its own, or from there to a member: loads change places.
    Swaps,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: usize,
    cost: i64,
    hop: Hop,
}

/// Hands partitions back to who had them in `previous`, as far as the loads stay as even as they are.
pub(super) fn save_moves(loads: &mut Loads, previous: &[Option<usize>]) {
    let mut steps = 0;
    while has_moved(loads, previous) && steps < MAX_THRIFT_STEPS {
        let edges = residual_edges(loads, previous);
        steps += previous.len() as u64;
        let nodes = edges.iter().map(|edge| edge.from.max(edge.to) + 1).max().unwrap_or(0);
        let Some(cycle) = find_negative_cycle(nodes, &edges, &mut steps) else { return };
        for step in moves_along(loads, previous, &cycle) {
            loads.give(step);
        }
    }
}

fn has_moved(loads: &Loads, previous: &[Option<usize>]) -> bool {
    loads.owners().iter().zip(previous).any(|(owner, previous)| previous.is_some() && owner != previous)
}

/// The nodes are the members, then the topics, then the loads.
fn residual_edges(loads: &Loads, previous: &[Option<usize>]) -> Vec<Edge> {
    let members = loads.counts.len();
    let node_of_topic = |topic: usize| members + topic;
    let node_of_load = |load: usize| members + loads.subscribers.len() + load;
    let mut edges = Vec::new();
    for (from, held) in loads.held.iter().enumerate() {
        for (topic, partitions) in held {
            let has_foreign = partitions.iter().any(|partition| previous[*partition] != Some(from));
            let hop = Hop::Gives { topic: *topic };
            edges.push(Edge { from, to: node_of_topic(*topic), cost: i64::from(!has_foreign), hop });
            for partition in partitions {
                if let Some(to) = previous[*partition].filter(|to| *to != from) {
                    edges.push(Edge { from, to, cost: -1, hop: Hop::Returns { partition: *partition } });
                }
            }
        }
    }
    for (topic, subscribers) in loads.subscribers.iter().enumerate() {
        let hop = Hop::Takes { topic };
        edges.extend(subscribers.iter().map(|to| Edge { from: node_of_topic(topic), to: *to, cost: 0, hop }));
    }
    for (member, count) in loads.counts.iter().enumerate() {
        edges.push(Edge { from: member, to: node_of_load(count + 1), cost: 0, hop: Hop::Swaps });
        edges.push(Edge { from: node_of_load(*count), to: member, cost: 0, hop: Hop::Swaps });
    }
    edges
}

/// A cycle that costs less than nothing, by the algorithm of Bellman and Ford. `None` if there is none, or the steps run out.
fn find_negative_cycle(nodes: usize, edges: &[Edge], steps: &mut u64) -> Option<Vec<Edge>> {
    let mut distances = vec![0_i64; nodes];
    let mut came_by: Vec<Option<usize>> = vec![None; nodes];
    while *steps < MAX_THRIFT_STEPS {
        *steps += edges.len() as u64;
        let mut has_changed = false;
        for (index, edge) in edges.iter().enumerate() {
            let distance = distances[edge.from] + edge.cost;
            if distance < distances[edge.to] {
                distances[edge.to] = distance;
                came_by[edge.to] = Some(index);
                has_changed = true;
            }
        }
        if !has_changed {
            return None;
        }
        // A cycle of edges that nodes were reached by costs less than nothing.
        if let Some(cycle) = find_cycle(edges, &came_by) {
            return Some(cycle);
        }
    }
    None
}

fn find_cycle(edges: &[Edge], came_by: &[Option<usize>]) -> Option<Vec<Edge>> {
    let mut seen_from: Vec<Option<usize>> = vec![None; came_by.len()];
    for start in 0..came_by.len() {
        let mut node = start;
        while seen_from[node].is_none() {
            seen_from[node] = Some(start);
            match came_by[node] {
                Some(index) => node = edges[index].from,
                None => break,
            }
        }
        if seen_from[node] != Some(start) || came_by[node].is_none() {
            continue;
        }
        let (end, mut cycle) = (node, Vec::new());
        while let Some(index) = came_by[node] {
            cycle.push(edges[index]);
            node = edges[index].from;
            if node == end {
                cycle.reverse();
                return Some(cycle);
            }
        }
    }
    None
}

/// Which partitions are handed over along a cycle.
fn moves_along(loads: &Loads, previous: &[Option<usize>], cycle: &[Edge]) -> Vec<Move> {
    let mut moves = Vec::new();
    for (at, edge) in cycle.iter().enumerate() {
        match edge.hop {
            Hop::Returns { partition } => moves.push(Move { partition, to: edge.to }),
            Hop::Gives { topic } => {
                let next = cycle[(at + 1) % cycle.len()];
                debug_assert!(matches!(next.hop, Hop::Takes { topic: taken } if taken == topic));
                let partition = cheapest(&loads.held[edge.from][&topic], previous, edge.from, next.to);
                moves.push(Move { partition, to: next.to });
            }
            Hop::Takes { .. } | Hop::Swaps => {}
        }
    }
    debug_assert!(
        moves.iter().all(|step| loads.subscribers[loads.topic_of(step.partition)].contains(&step.to))
    );
    moves
}

/// The partition that `from` hands to `to` at the lowest cost.
fn cheapest(held: &BTreeSet<usize>, previous: &[Option<usize>], from: usize, to: usize) -> usize {
    let cost = |partition: &usize| match previous[*partition] {
        Some(had) if had == to => 0,
        Some(had) if had == from => 2,
        _ => 1,
    };
    held.iter().copied().min_by_key(cost).expect("no topic without a partition")
}
