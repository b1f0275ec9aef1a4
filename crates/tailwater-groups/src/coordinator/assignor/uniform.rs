//! The `uniform` assignor: as even as can be, moving as little as can be.

use std::collections::VecDeque;

use super::balance::Loads;
use super::{Problem, thrift};

pub(super) fn assign(problem: &Problem<'_>) -> Vec<Option<usize>> {
    let owners = problem.kept();
    match problem.subscriptions {
        _ if problem.members.is_empty() => owners,
        [topics] => assign_equally(problem, topics, owners),
        _ => {
            let mut loads = Loads::new(problem, &owners);
            loads.place_free();
            loads.balance();
            thrift::save_moves(&mut loads, &owners);
            loads.into_owners()
        }
    }
}

/// All members subscribe to the same topics: each gets the same number of partitions, give or take one.
///
/// A member gives up only what it has too much, and the ones to have one more are those that have it already, so that no
/// other such assignment moves fewer.
fn assign_equally(
    problem: &Problem<'_>,
    topics: &[usize],
    mut owners: Vec<Option<usize>>,
) -> Vec<Option<usize>> {
    let mut counts = vec![0_usize; problem.members.len()];
    owners.iter().flatten().for_each(|owner| counts[*owner] += 1);
    let total: usize = topics.iter().map(|topic| problem.partition_counts[*topic] as usize).sum();
    let (share, more) = (total / counts.len(), total % counts.len());
    let mut most_first: Vec<usize> = (0..counts.len()).collect();
    most_first.sort_by_key(|member| std::cmp::Reverse(counts[*member]));
    let mut quotas = vec![share; counts.len()];
    most_first.iter().take(more).for_each(|member| quotas[*member] += 1);

    give_up(&mut owners, &counts, &quotas);
    let mut waiting: VecDeque<(usize, usize)> = (0..counts.len())
        .filter(|member| counts[*member] < quotas[*member])
        .map(|member| (member, quotas[member] - counts[member]))
        .collect();
    let firsts = problem.first_partitions();
    for topic in topics {
        let first = firsts[*topic];
        for owner in &mut owners[first..first + problem.partition_counts[*topic] as usize] {
            if owner.is_some() {
                continue;
            }
            let (member, wanted) = waiting.pop_front().expect("the quotas add up to all partitions");
            *owner = Some(member);
            if wanted > 1 {
                waiting.push_back((member, wanted - 1));
            }
        }
    }
    owners
}

/// Takes from each member what is above its quota, spread over all that it has, so that no topic is given up as a whole.
fn give_up(owners: &mut [Option<usize>], counts: &[usize], quotas: &[usize]) {
    let mut seen = vec![0_usize; counts.len()];
    for owner in owners {
        let Some(member) = *owner else { continue };
        let (count, quota, at) = (counts[member], quotas[member], seen[member]);
        seen[member] += 1;
        // Of `count` places `quota` are kept, evenly spaced, the first among them.
        if count > quota && at * quota % count >= quota {
            *owner = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_gets_a_part_of_each_topic() {
        let problem = Problem {
            partition_counts: &[4, 4],
            subscriptions: &[vec![0, 1]],
            members: &[0, 0],
            previous: &[Some(0); 8],
        };
        let owners = assign(&problem);
        for topic in [&owners[..4], &owners[4..]] {
            assert_eq!(topic.iter().filter(|owner| **owner == Some(1)).count(), 2, "{owners:?}");
        }
    }
}
