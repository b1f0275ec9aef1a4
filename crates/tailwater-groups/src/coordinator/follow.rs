//! Topics that come, grow and go.

use std::sync::Arc;

use tailwater_log::{PartitionId, TopicId};

use super::{Coordinator, Member, MemberId, MonotonicMs, Partition, TopicInfo, Topics};

/// A list of topics that members share, and what it becomes.
struct Changed {
    from: Arc<[TopicId]>,
    to: Arc<[TopicId]>,
}

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
        let has_it = |member: &Member| member.subscribed.binary_search(&id).is_ok();
        let subscribers = self.members_that(has_it);
        self.resubscribe(&subscribers, |topics| topics.retain(|topic| *topic != id));
        for subscriber in subscribers {
            let Some(member) = self.members.get_mut(&subscriber) else { continue };
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

    fn members_that(&self, is_one: impl Fn(&Member) -> bool) -> Vec<MemberId> {
        self.members.iter().filter(|(_, member)| is_one(member)).map(|(id, _)| *id).collect()
    }

    /// Changes what members subscribe to: once for all those that share it.
    fn resubscribe(&mut self, members: &[MemberId], change: impl Fn(&mut Vec<TopicId>)) {
        let mut changed: Vec<Changed> = Vec::new();
        for id in members {
            let Some(old) = self.members.get(id).map(|member| Arc::clone(&member.subscribed)) else {
                continue;
            };
            let known = changed.iter().find(|changed| Arc::ptr_eq(&changed.from, &old));
            let new = known.map(|known| Arc::clone(&known.to)).unwrap_or_else(|| {
                let mut topics = old.to_vec();
                change(&mut topics);
                self.shared(topics)
            });
            if known.is_none() {
                changed.push(Changed { from: old, to: Arc::clone(&new) });
            }
            if let Some(member) = self.members.get_mut(id) {
                member.subscribed = new;
            }
        }
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
        let mut has_any = false;
        for topic in new {
            let matches = |member: &Member| {
                member.spec.subscription.patterns.iter().any(|pattern| pattern.matches(&topic.name))
            };
            let matchers = self.members_that(matches);
            if matchers.is_empty() {
                continue;
            }
            has_any = true;
            self.track(topic.id, || true);
            self.resubscribe(&matchers, |topics| {
                if let Err(at) = topics.binary_search(&topic.id) {
                    topics.insert(at, topic.id);
                }
            });
        }
        has_any
    }
}
