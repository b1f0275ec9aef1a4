//! The `range` assignor.

use super::Problem;

/// Of each topic a range to each of its subscribers: the first ones get one more where it does not come out even.
pub(super) fn assign(problem: &Problem<'_>) -> Vec<Option<usize>> {
    let mut owners = Vec::with_capacity(problem.previous.len());
    for (subscribers, count) in problem.subscribers().into_iter().zip(problem.partition_counts) {
        let count = *count as usize;
        if subscribers.is_empty() {
            owners.extend(std::iter::repeat_n(None, count));
            continue;
        }
        let (share, more) = (count / subscribers.len(), count % subscribers.len());
        for (rank, member) in subscribers.into_iter().enumerate() {
            owners.extend(std::iter::repeat_n(Some(member), share + usize::from(rank < more)));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_with_as_many_partitions_go_together() {
        let problem = Problem {
            partition_counts: &[5, 5, 2],
            subscriptions: &[vec![0, 1, 2], vec![0, 1]],
            members: &[0, 1],
            previous: &[None; 12],
        };
        let (a, b) = (Some(0), Some(1));
        assert_eq!(assign(&problem), [a, a, a, b, b, a, a, a, b, b, a, a]);
    }
}
