//! Topics that come, grow and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use tailwater_log::{PartitionId, TopicId};

use super::{Coordinator, MemberId, MonotonicMs, Partition, TopicInfo, Topics};

impl Coordinator {
    /// Takes over what became of the topics: does nothing if `topics` are no newer than what it knows.
    ///
    /// Partitions that were added, and topics that a pattern picks up, are divided; topics that are gone are taken out of
    /// all subscriptions, and their partitions are lost.
    pub fn set_topics(&mut self, now: MonotonicMs, topics: &Arc<Topics>) {
        if topics.version() <= self.topics.version() {
            return;
        }
        let old = std::mem::replace(&mut self.topics, Arc::clone(topics));
        let gone: Vec<TopicId> =
            self.tracked.keys().filter(|topic| topics.get(**topic).is_none()).copied().collect();
        let mut has_changed = !gone.is_empty();
        for id in gone {
            self.drop_topic(id, old.get(id));
        }
        has_changed |= self.grow_topics();
        has_changed |= self.pick_up(topics.iter().filter(|topic| old.get(topic.id).is_none()));
        if has_changed {
            self.retarget(now);
        }
    }

    /// Forgets a topic that is gone.
    fn drop_topic(&mut self, id: TopicId, topic: Option<&TopicInfo>) {
        let Some(tracked) = self.tracked.get(&id) else { return };
        let (since, count) = (tracked.since, tracked.partitions.len());
        for key in (0..).take(count).map(|number| (id, PartitionId::new(number))) {
            if let Some(owner) = self.partition(key).and_then(|partition| partition.owner) {
                self.tell(owner, |news| &mut news.lost, key);
            }
            self.change(key, |partition| partition.target = None);
            self.free(key);
        }
        self.tracked.remove(&id);
        let is_it = |topic: &TopicId| *topic == id;
        let subscribers: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| member.subscribed.iter().any(is_it))
            .map(|(id, _)| *id)
            .collect();
        for subscriber in subscribers {
            let rest = self.subscribed_without(subscriber, id);
            let subscribed = self.shared(rest);
            let Some(member) = self.members.get_mut(&subscriber) else { continue };
            member.subscribed = subscribed;
            let named = &mut member.spec.subscription.topics;
            let is_named = named.contains(&id);
            named.retain(|topic| *topic != id);
            // One that a pattern has picked up since its last poll has come and gone without its knowing.
            if is_named || since <= member.polled_epoch {
                member.news.deleted.extend(topic.cloned());
                self.wake(subscriber);
            }
        }
    }

    fn subscribed_without(&self, member: MemberId, topic: TopicId) -> BTreeSet<TopicId> {
        let subscribed = self.members.get(&member).map(|member| &member.subscribed);
        subscribed.into_iter().flat_map(|topics| topics.iter()).filter(|id| **id != topic).copied().collect()
    }

    /// Adds partitions that were added. Whether there were any.
    fn grow_topics(&mut self) -> bool {
        let mut has_grown = false;
        for (id, tracked) in &mut self.tracked {
            let count = self.topics.get(*id).map_or(0, |topic| topic.partition_count as usize);
            if count > tracked.partitions.len() {
                tracked.partitions.resize(count, Partition::new(true));
                has_grown = true;
            }
        }
        has_grown
    }

    /// Subscribes members to new topics that match their patterns. Whether there were any.
    fn pick_up<'t>(&mut self, new: impl Iterator<Item = &'t TopicInfo>) -> bool {
        let matchers: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| !member.spec.subscription.patterns.is_empty())
            .map(|(id, _)| *id)
            .collect();
        if matchers.is_empty() {
            return false;
        }
        let mut has_any = false;
        for topic in new {
            for id in &matchers {
                let Some(member) = self.members.get(id) else { continue };
                if member.spec.subscription.patterns.iter().any(|pattern| pattern.matches(&topic.name)) {
                    has_any = true;
                    self.track(topic.id, || true);
                    let mut subscribed: BTreeSet<_> = member_topics(self, *id);
                    subscribed.insert(topic.id);
                    let subscribed = self.shared(subscribed);
                    if let Some(member) = self.members.get_mut(id) {
                        member.subscribed = subscribed;
                    }
                }
            }
        }
        has_any
    }
}

fn member_topics(coordinator: &Coordinator, id: MemberId) -> BTreeSet<TopicId> {
    let member = coordinator.members.get(&id);
    member.into_iter().flat_map(|member| member.subscribed.iter().copied()).collect()
}
