//! The search: breadth first through all states of a scope, or along random walks.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::disk::hash;
use super::rules::{Rules, Scope};
use super::state::{Next, State};

/// What a search went through and found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Distinct states.
    pub(crate) states: usize,
    /// Events that were tried.
    pub(crate) transitions: usize,
    /// Each way in which a promise was broken, and the shortest trace that leads there.
    pub(crate) broken: BTreeMap<&'static str, Vec<String>>,
}

impl Found {
    fn note(&mut self, what: &'static str, trace: Vec<String>) {
        let known = self.broken.entry(what).or_insert_with(|| trace.clone());
        if trace.len() < known.len() {
            *known = trace;
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} transitions", self.states, self.transitions)?;
        for (what, trace) in &self.broken {
            write!(f, "\n  broken: {what}\n    {}", trace.join("\n    "))?;
        }
        Ok(())
    }
}

/// How a state was reached first: from which other, by what.
struct Step {
    from: usize,
    label: String,
}

/// Goes through every state of `scope`; with `is_first_enough` only until a promise is broken.
pub(crate) fn all_states(rules: Rules, scope: &Scope, is_first_enough: bool) -> Found {
    let mut found = Found::default();
    let first = State::first();
    let mut seen = HashSet::from([hash(&first)]);
    let mut steps = vec![Step { from: 0, label: String::new() }];
    let mut front = vec![(0, first)];
    while !front.is_empty() && (found.broken.is_empty() || !is_first_enough) {
        let mut next_front = Vec::new();
        for (number, state) in front {
            for (label, next) in state.successors(rules, scope) {
                found.transitions += 1;
                match next {
                    Next::End => {}
                    Next::State(next) => {
                        if seen.insert(hash(&next)) {
                            steps.push(Step { from: number, label });
                            next_front.push((steps.len() - 1, *next));
                        }
                    }
                    Next::Broken(what) => found.note(what, trace(&steps, number, label)),
                }
            }
        }
        front = next_front;
    }
    found.states = seen.len();
    found
}

fn trace(steps: &[Step], mut number: usize, last: String) -> Vec<String> {
    let mut labels = vec![last];
    while number != 0 {
        labels.push(steps[number].label.clone());
        number = steps[number].from;
    }
    labels.reverse();
    labels
}

/// Takes `walks` random ways through `scope`. The states that are counted are those on the ways.
pub(crate) fn random_walks(rules: Rules, scope: &Scope, walks: u32) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    // xorshift64 (Marsaglia, "Xorshift RNGs", Journal of Statistical Software, 2003).
    let mut random = 0x1234_5678_9abc_def1_u64;
    for _ in 0..walks {
        let mut state = State::first();
        let mut labels = Vec::new();
        loop {
            let mut successors = state.successors(rules, scope);
            found.transitions += successors.len();
            if successors.is_empty() {
                break;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (label, next) = successors.swap_remove((random % successors.len() as u64) as usize);
            labels.push(label);
            match next {
                Next::State(next) => state = *next,
                Next::End => break,
                Next::Broken(what) => {
                    found.note(what, labels);
                    break;
                }
            }
            seen.insert(hash(&state));
        }
    }
    found.states = seen.len();
    found
}
