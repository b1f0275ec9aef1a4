//! Gathering a broker's figures.
//!
//! - Nothing is opened for it, and nothing read but the sizes of files that were not looked at before.
//! - No lock is held for longer than it takes to copy what is behind it. What another thread is about to open counts as not
//!   open: it is not waited for.

use tailwater_log::FetchIsolation;

use super::groups::Groups;
use super::inner::Inner;
use super::lazy_log::LazyLog;
use super::stats::{
    BrokerStats, GroupPartitionStats, GroupStats, OpenPartitionStats, PartitionStats, TopicStats,
};
use super::topic::Topic;
use crate::TopicPartition;
use crate::consumer::{Cursor, Lag};

impl Inner {
    pub(crate) fn stats(&self) -> BrokerStats {
        let mut topics: Vec<_> = self.topic_set().all().map(|topic| stats_of_topic(topic)).collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut stats = BrokerStats {
            unknown_names: self.unknown_names().to_vec(),
            background_threads: self.thread_count(),
            background_panics: self.queues().panic_count(),
            disk_used_bytes: self.opener.budget.as_ref().map(|budget| budget.used_bytes()),
            disk_limit_bytes: self.opener.budget.as_ref().map(|budget| budget.limit_bytes()),
            groups: self.groups.opened_now().map(|groups| self.stats_of_groups(&groups)),
            ..BrokerStats::default()
        };
        for topic in &topics {
            stats.open_partitions += topic.partitions.iter().filter(|known| known.open.is_some()).count();
            stats.failed_partitions +=
                topic.partitions.iter().filter(|known| known.failure.is_some()).count();
            if !topic.is_internal {
                stats.topic_count += 1;
                stats.partition_count += topic.partitions.len();
            }
        }
        stats.topics = topics;
        stats
    }

    fn stats_of_groups(&self, groups: &Groups) -> Vec<GroupStats> {
        let listed = groups.store().groups();
        let topics = self.topic_set();
        let of_group = |listed: tailwater_groups::GroupListing| {
            // One that was deleted meanwhile has none.
            let committed = groups.store().positions(&listed.id).unwrap_or_default();
            let of_partition = |(identity, committed): (_, tailwater_groups::Committed)| {
                let identity: tailwater_log::PartitionIdentity = identity;
                let topic = topics.by_id(identity.topic_id)?;
                let lazy = topic.partition(identity.partition).ok()?;
                let offset = committed.position.offset;
                let end = lazy.opened().map(|log| log.visible_end(FetchIsolation::Visible));
                Some(GroupPartitionStats {
                    partition: TopicPartition::clone(lazy.place()),
                    committed: Cursor::new(identity, committed.position),
                    committed_at: committed.committed_at,
                    lag: end.map(|end| Lag::new(offset, end)),
                })
            };
            let mut partitions: Vec<_> = committed.into_iter().filter_map(of_partition).collect();
            partitions.sort_unstable_by(|a, b| a.partition.cmp(&b.partition));
            GroupStats {
                id: listed.id.as_str().into(),
                kind: listed.kind,
                member_count: usize::try_from(listed.member_count).unwrap_or(usize::MAX),
                partitions,
            }
        };
        listed.into_iter().map(of_group).collect()
    }
}

fn stats_of_topic(topic: &Topic) -> TopicStats {
    TopicStats {
        id: topic.id,
        name: std::sync::Arc::clone(&topic.name),
        is_internal: topic.is_internal(),
        partitions: topic.partitions().iter().map(|partition| stats_of_partition(partition)).collect(),
    }
}

fn stats_of_partition(lazy: &LazyLog) -> PartitionStats {
    let open = lazy.opened().map(|log| {
        Box::new(OpenPartitionStats {
            log: log.stats().map_err(|error| crate::Error::from(error).in_partition(lazy.place())),
            recovery: log.recovery_report().clone(),
            retention: lazy.retention_stats(),
        })
    });
    PartitionStats { partition: lazy.place().partition, failure: lazy.failure(), open }
}
