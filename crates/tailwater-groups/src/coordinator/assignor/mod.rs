//! Who gets which partition: pure functions from what is there to a target assignment.
//!
//! - Every partition of a topic that somebody subscribes to gets an owner who does; every other one gets none.
//! - The same problem has the same answer: nothing depends on addresses, hashes or chance.

mod balance;
mod range;
mod thrift;
mod uniform;

use std::fmt;

/// How the partitions of a group are divided among its members. All members of a group have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Assignor {
    /// As evenly as the subscriptions allow, and of all such assignments one that moves the fewest partitions.
    ///
    /// Members with the same subscriptions have as many partitions as each other, give or take one. If all members have
    /// the same, the number of partitions that move is the lowest there is. If not, the sum of the squares of the loads
    /// is the lowest there is, and the number of moves is the lowest for that, as long as finding it takes no more than
    /// [`MAX_THRIFT_STEPS`]; beyond that some may move that need not have.
    #[default]
    Uniform,
    /// Of each topic a contiguous range to each member, in the order of the members: topics with as many partitions and
    /// the same subscribers go together, partition by partition. Partitions move whenever a member comes or goes.
    Range,
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        })
    }
}

/// Most steps along edges that the search for fewer moves takes with unequal subscriptions: some ten milliseconds.
pub const MAX_THRIFT_STEPS: u64 = 4_000_000;

/// What is to be divided. Members, topics and subscriptions are known by their indexes; partitions by their index in all
/// the partitions of all the topics, one topic behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'p> {
    /// How many partitions each topic has.
    pub partition_counts: &'p [u32],
    /// The subscriptions that there are, all different: topics, ascending.
    pub subscriptions: &'p [Vec<usize>],
    /// For each member, in the order of their names: which of the subscriptions it has.
    pub members: &'p [usize],
    /// For each partition: the member that had it. One that is not subscribed to it counts as none.
    pub previous: &'p [Option<usize>],
}

impl Problem<'_> {
    /// Whether a member may have the partitions of a topic.
    #[must_use]
    pub fn is_subscribed(&self, member: usize, topic: usize) -> bool {
        let subscription = self.members.get(member).map(|subscription| &self.subscriptions[*subscription]);
        subscription.is_some_and(|topics| topics.binary_search(&topic).is_ok())
    }

    /// For each partition: its topic.
    #[must_use]
    pub fn topics(&self) -> Vec<usize> {
        let of_topic = |(topic, count): (usize, &u32)| std::iter::repeat_n(topic, *count as usize);
        self.partition_counts.iter().enumerate().flat_map(of_topic).collect()
    }

    /// For each topic: its first partition.
    fn first_partitions(&self) -> Vec<usize> {
        let mut next = 0;
        let mut first = |count: &u32| {
            let first = next;
            next += *count as usize;
            first
        };
        self.partition_counts.iter().map(&mut first).collect()
    }

    /// For each topic: the members that subscribe to it, in their order.
    fn subscribers(&self) -> Vec<Vec<usize>> {
        let mut subscribers = vec![Vec::new(); self.partition_counts.len()];
        for (member, subscription) in self.members.iter().enumerate() {
            for topic in &self.subscriptions[*subscription] {
                subscribers[*topic].push(member);
            }
        }
        subscribers
    }

    /// For each partition: the member that had it, if it is there and subscribed.
    fn kept(&self) -> Vec<Option<usize>> {
        let topics = self.topics();
        assert_eq!(topics.len(), self.previous.len(), "each partition has an entry");
        // Who had one partition of a topic often had the one before it: it is looked up once.
        let mut known = None;
        let mut is_subscribed = |member, topic| match known {
            Some((at, is_subscribed)) if at == (member, topic) => is_subscribed,
            _ => known.insert(((member, topic), self.is_subscribed(member, topic))).1,
        };
        let kept =
            |(owner, topic): (&Option<usize>, usize)| owner.filter(|owner| is_subscribed(*owner, topic));
        self.previous.iter().zip(topics).map(kept).collect()
    }
}

/// For each partition the member that is to have it.
///
/// # Panics
///
/// If the problem is not one: an index that leads nowhere, or another number of partitions in `previous` than in the
/// topics.
#[must_use]
pub fn assign(assignor: Assignor, problem: &Problem<'_>) -> Vec<Option<usize>> {
    match assignor {
        Assignor::Uniform => uniform::assign(problem),
        Assignor::Range => range::assign(problem),
    }
}
