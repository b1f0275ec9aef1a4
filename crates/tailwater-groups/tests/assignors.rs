//! The assignors: valid, even, deterministic, and moving no more than they must.

#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use tailwater_groups::coordinator::assignor::{Assignor, Problem, assign};

/// A problem that owns what it is made of.
#[derive(Clone, Debug)]
struct Case {
    partition_counts: Vec<u32>,
    subscriptions: Vec<Vec<usize>>,
    members: Vec<usize>,
    previous: Vec<Option<usize>>,
}

impl Case {
    /// Of the topics of each member.
    fn new(partition_counts: Vec<u32>, topics: &[Vec<usize>], previous: Vec<Option<usize>>) -> Self {
        let mut subscriptions: Vec<Vec<usize>> = Vec::new();
        let mut members = Vec::new();
        for subscription in topics {
            let mut subscription = subscription.clone();
            subscription.sort_unstable();
            subscription.dedup();
            let known = subscriptions.iter().position(|known| *known == subscription);
            members.push(known.unwrap_or(subscriptions.len()));
            if known.is_none() {
                subscriptions.push(subscription);
            }
        }
        Self { partition_counts, subscriptions, members, previous }
    }

    fn problem(&self) -> Problem<'_> {
        Problem {
            partition_counts: &self.partition_counts,
            subscriptions: &self.subscriptions,
            members: &self.members,
            previous: &self.previous,
        }
    }

    fn total(&self) -> usize {
        self.partition_counts.iter().sum::<u32>() as usize
    }

    /// Who may have each partition.
    fn choices(&self) -> Vec<Vec<usize>> {
        let problem = self.problem();
        let members = 0..self.members.len();
        let may_have =
            |topic| members.clone().filter(|member| problem.is_subscribed(*member, topic)).collect();
        problem.topics().into_iter().map(may_have).collect()
    }

    fn counts(&self, owners: &[Option<usize>]) -> Vec<usize> {
        let mut counts = vec![0; self.members.len()];
        owners.iter().flatten().for_each(|owner| counts[*owner] += 1);
        counts
    }

    /// How many partitions are not where they were, of those that could have stayed.
    fn moves(&self, owners: &[Option<usize>]) -> usize {
        let choices = self.choices();
        let stayed = |at: &usize| self.previous[*at].is_some_and(|was| choices[*at].contains(&was));
        (0..owners.len()).filter(stayed).filter(|at| owners[*at] != self.previous[*at]).count()
    }

    fn check_valid(&self, owners: &[Option<usize>]) {
        assert_eq!(owners.len(), self.total());
        for (owner, choices) in owners.iter().zip(self.choices()) {
            match owner {
                Some(owner) => assert!(choices.contains(owner), "{self:?}: {owners:?}"),
                None => assert!(choices.is_empty(), "{self:?}: {owners:?}"),
            }
        }
    }
}

fn squares(counts: &[usize]) -> usize {
    counts.iter().map(|count| count * count).sum()
}

fn cases(topics: usize, partitions: u32, members: usize, are_equal: bool) -> impl Strategy<Value = Case> {
    let counts = prop::collection::vec(0..=partitions, 1..=topics);
    (counts, 1..=members).prop_flat_map(move |(counts, members)| {
        let topics = counts.len();
        let a_subscription = prop::collection::vec(0..topics, 0..=topics);
        let subscriptions = if are_equal {
            a_subscription.prop_map(move |topics| vec![topics; members]).boxed()
        } else {
            prop::collection::vec(a_subscription, members).boxed()
        };
        let total = counts.iter().sum::<u32>() as usize;
        // Also of members that have left.
        let previous = prop::collection::vec(prop::option::weighted(0.8, 0..members + 1), total);
        (Just(counts), subscriptions, previous)
            .prop_map(|(counts, topics, previous)| Case::new(counts, &topics, previous))
    })
}

/// The lowest sum of squares, and the fewest moves of the assignments that have it, by trying all of them.
fn best_by_trial(case: &Case) -> (usize, usize) {
    fn go(case: &Case, choices: &[Vec<usize>], owners: &mut Vec<Option<usize>>, best: &mut (usize, usize)) {
        let at = owners.len();
        if at == choices.len() {
            *best = (squares(&case.counts(owners)), case.moves(owners)).min(*best);
            return;
        }
        if choices[at].is_empty() {
            owners.push(None);
            go(case, choices, owners, best);
            owners.pop();
        }
        for member in &choices[at] {
            owners.push(Some(*member));
            go(case, choices, owners, best);
            owners.pop();
        }
    }
    let mut best = (usize::MAX, usize::MAX);
    go(case, &case.choices(), &mut Vec::new(), &mut best);
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_partition_of_a_subscribed_topic_has_one_subscribed_owner(case in cases(6, 12, 8, false)) {
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let owners = assign(assignor, &case.problem());
            case.check_valid(&owners);
            prop_assert_eq!(&assign(assignor, &case.problem()), &owners);
        }
    }

    #[test]
    fn members_with_equal_subscriptions_have_equal_loads_and_no_more_moves_than_that_takes(
        case in cases(6, 12, 8, true)
    ) {
        let owners = assign(Assignor::Uniform, &case.problem());
        case.check_valid(&owners);
        let counts = case.counts(&owners);
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        // What each had, from the most: the first ones may keep one more than the others.
        let choices = case.choices();
        let could_stay = |at: usize| case.previous[at].filter(|was| choices[at].contains(was));
        let kept: Vec<_> = (0..case.total()).map(could_stay).collect();
        let mut had = case.counts(&kept);
        had.sort_unstable_by(|a, b| b.cmp(a));
        let total = choices.iter().filter(|choices| !choices.is_empty()).count();
        let (share, more) = (total / had.len(), total % had.len());
        let least: usize =
            had.iter().enumerate().map(|(rank, had)| had.saturating_sub(share + usize::from(rank < more))).sum();
        prop_assert_eq!(case.moves(&owners), least);
    }

    #[test]
    fn members_with_the_same_subscription_among_others_have_the_same_load_within_one(case in cases(6, 12, 8, false)) {
        let counts = case.counts(&assign(Assignor::Uniform, &case.problem()));
        for (member, subscription) in case.members.iter().enumerate() {
            for (other, other_subscription) in case.members.iter().enumerate() {
                if subscription == other_subscription {
                    prop_assert!(counts[member].abs_diff(counts[other]) <= 1, "{:?}", counts);
                }
            }
        }
    }

    #[test]
    fn with_unequal_subscriptions_the_balance_is_the_best_and_the_moves_are_the_fewest_for_it(
        case in cases(3, 3, 4, false).prop_filter("small", |case| case.total() <= 7)
    ) {
        let owners = assign(Assignor::Uniform, &case.problem());
        case.check_valid(&owners);
        let found = (squares(&case.counts(&owners)), case.moves(&owners));
        prop_assert_eq!(found, best_by_trial(&case), "{:?}", owners);
    }

    #[test]
    fn an_assignment_of_its_own_is_left_alone(mut case in cases(6, 12, 8, false)) {
        let owners = assign(Assignor::Uniform, &case.problem());
        case.previous.clone_from(&owners);
        prop_assert_eq!(assign(Assignor::Uniform, &case.problem()), owners);
    }

    #[test]
    fn only_what_the_newcomer_gets_and_the_leaver_had_moves(
        partitions in 1_u32..60, members in 1_usize..9, leaver in 0_usize..9
    ) {
        let leaver = leaver % members;
        let counts = vec![partitions];
        let case = Case::new(counts.clone(), &vec![vec![0]; members], vec![None; partitions as usize]);
        let before = assign(Assignor::Uniform, &case.problem());
        let joined = Case::new(counts.clone(), &vec![vec![0]; members + 1], before.clone());
        for (was, is) in before.iter().zip(assign(Assignor::Uniform, &joined.problem())) {
            prop_assert!(*was == is || is == Some(members));
        }
        // Whoever comes behind the leaver moves up by one.
        let moved_up = |owner: &Option<usize>| match *owner {
            Some(owner) if owner == leaver => None,
            Some(owner) => Some(owner - usize::from(owner > leaver)),
            None => None,
        };
        let previous: Vec<_> = before.iter().map(moved_up).collect();
        let left = Case::new(counts, &vec![vec![0]; members - 1], previous.clone());
        for (was, is) in previous.iter().zip(assign(Assignor::Uniform, &left.problem())) {
            prop_assert!(was.is_none() || *was == is);
        }
    }

    #[test]
    fn ranges_are_contiguous_even_and_the_same_for_topics_of_a_size(
        partitions in 0_u32..40, topics in 1_usize..4, members in 1_usize..9
    ) {
        let case = Case::new(
            vec![partitions; topics],
            &vec![(0..topics).collect(); members],
            vec![None; partitions as usize * topics],
        );
        let owners = assign(Assignor::Range, &case.problem());
        let (first, rest) = owners.split_at(partitions as usize);
        prop_assert!(first.is_sorted());
        let counts = case.counts(first);
        prop_assert!(counts.is_sorted_by(|a, b| a >= b));
        prop_assert!(counts[0] - counts[members - 1] <= 1);
        prop_assert!(rest.chunks(partitions.max(1) as usize).all(|other| other == first));
    }
}
