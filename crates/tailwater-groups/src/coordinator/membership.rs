//! Joining, polling, leaving.

use std::collections::BTreeSet;
use std::sync::Arc;

use tailwater_log::TopicId;

use super::{
    Assigned, Changes, Coordinator, Fenced, GroupEpoch, JoinError, Member, MemberEpoch, MemberId, MemberSpec,
    MonotonicMs, News, Partition, Subscription, TrackedTopic,
};
use crate::table::{PartitionKey, partition_of};

impl Coordinator {
    /// Adds a member. What it is to own it is told by its first poll.
    ///
    /// `has_met` says whether the group has a position in a topic: it is asked for each topic that nobody has subscribed to
    /// before. Costs about as much as sorting the partitions that the group subscribes to.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: nothing has changed then.
    pub fn join(
        &mut self,
        now: MonotonicMs,
        id: MemberId,
        spec: MemberSpec,
        has_met: impl Fn(TopicId) -> bool,
    ) -> Result<(), JoinError> {
        self.check_join(&spec)?;
        let subscribed = self.resolve(&spec);
        for topic in subscribed.iter() {
            self.track(*topic, || has_met(*topic));
        }
        let subscribed = self.shared(subscribed);
        self.add(now, id, spec, subscribed);
        self.retarget(now);
        Ok(())
    }

    /// Adds a member that has the group for itself: it may deliver and commit in all partitions of all topics, and polls
    /// have no news for it.
    ///
    /// # Errors
    ///
    /// [`JoinError::InUse`] if there is a member.
    pub fn join_exclusively(
        &mut self,
        now: MonotonicMs,
        id: MemberId,
        name: Option<Arc<str>>,
    ) -> Result<(), JoinError> {
        if !self.members.is_empty() {
            return Err(JoinError::InUse);
        }
        self.is_exclusive = true;
        self.add(now, id, MemberSpec { name, ..MemberSpec::default() }, Arc::new([]));
        self.retarget(now);
        // There is nothing to reconcile.
        if let Some(member) = self.members.get_mut(&id) {
            member.epoch = MemberEpoch::new(self.assignment_epoch.get());
        }
        Ok(())
    }

    fn check_join(&self, spec: &MemberSpec) -> Result<(), JoinError> {
        if self.is_exclusive {
            return Err(JoinError::InUse);
        }
        if let Some(assignor) = self.assignor().filter(|assignor| *assignor != spec.assignor) {
            return Err(JoinError::AssignorMismatch { assignor, requested: spec.assignor });
        }
        let has_name =
            |name: &&Arc<str>| self.members.values().any(|member| member.spec.name.as_ref() == Some(*name));
        if let Some(name) = spec.name.as_ref().filter(has_name) {
            return Err(JoinError::DuplicateName { name: Arc::clone(name) });
        }
        match spec.subscription.topics.iter().find(|topic| self.topics.get(**topic).is_none()) {
            Some(topic_id) => Err(JoinError::UnknownTopic { topic_id: *topic_id }),
            None => Ok(()),
        }
    }

    fn add(&mut self, now: MonotonicMs, id: MemberId, spec: MemberSpec, subscribed: Arc<[TopicId]>) {
        let member = Member {
            spec,
            subscribed,
            epoch: MemberEpoch::default(),
            polled_epoch: self.group_epoch,
            last_poll: now,
            is_evicted: false,
            is_watched: false,
            waiting_until: None,
            // Its first poll is to come.
            is_woken: true,
            revoking_count: 0,
            awaited_count: 0,
            news: News::default(),
        };
        let old = self.members.insert(id, member);
        assert!(old.is_none(), "the id of a member is given out once");
        self.watch(now, id);
    }

    /// The topics that a subscription means now, ordered.
    fn resolve(&self, spec: &MemberSpec) -> Vec<TopicId> {
        let Subscription { topics, patterns } = &spec.subscription;
        let mut topics = topics.clone();
        if !patterns.is_empty() {
            let matching = self.topics.iter().filter(|topic| patterns.iter().any(|p| p.matches(&topic.name)));
            topics.extend(matching.map(|topic| topic.id));
        }
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// An ordered list of topics; the one of another member, if it has the same.
    pub(super) fn shared(&self, topics: Vec<TopicId>) -> Arc<[TopicId]> {
        let same = self.members.values().find(|member| member.subscribed[..] == topics);
        same.map_or_else(|| topics.into(), |member| Arc::clone(&member.subscribed))
    }

    /// Keeps the partitions of a topic from now on.
    pub(super) fn track(&mut self, id: TopicId, came_later: impl FnOnce() -> bool) {
        if self.tracked.contains_key(&id) {
            return;
        }
        let Some(topic) = self.topics.get(id) else { return };
        let partitions = vec![Partition::new(came_later()); topic.partition_count as usize];
        // It is about to begin.
        let since = GroupEpoch::new(self.group_epoch.get() + 1);
        self.tracked.insert(id, TrackedTopic { since, partitions });
    }

    /// What has changed for a member since its last poll. After that it either [`wait`](Self::wait)s or
    /// [`deliver`](Self::deliver)s, if only nothing. It owns what is `assigned`, until a poll says otherwise or it
    /// leaves; an evicted one is a member again. Evaluates deadlines first. Costs nothing if there is no news.
    ///
    /// # Errors
    ///
    /// [`Fenced`] if it has left, or was removed.
    pub fn poll(&mut self, now: MonotonicMs, id: MemberId) -> Result<Changes, Fenced> {
        let Some(member) = self.members.get_mut(&id) else { return Err(Fenced { partition: None }) };
        // Whoever is in its poll need not be woken.
        member.is_woken = true;
        member.waiting_until = None;
        member.last_poll = now;
        let mut changes = Changes::default();
        if std::mem::take(&mut member.is_evicted) {
            changes.has_rejoined = true;
            self.retarget(now);
        }
        self.tick(now);
        self.take_news(id, &mut changes);
        let group_epoch = self.group_epoch;
        if let Some(member) = self.members.get_mut(&id) {
            member.is_woken = false;
            member.polled_epoch = group_epoch;
        }
        self.note_reconciled(id);
        if !changes.is_empty() {
            // It has something to do before it delivers or waits.
            self.watch(now, id);
        }
        Ok(changes)
    }

    fn take_news(&mut self, id: MemberId, changes: &mut Changes) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let news = &mut member.news;
        changes.lost = identities(&mut news.lost);
        changes.revoked = identities(&mut news.revoked);
        changes.deleted.append(&mut news.deleted);
        let (revoking, offered) = (std::mem::take(&mut news.revoking), std::mem::take(&mut news.offered));
        for key in revoking {
            let is_to_go = |partition: &&Partition| {
                partition.owner == Some(id) && partition.target != Some(id) && !partition.is_told
            };
            if self.partition(key).filter(is_to_go).is_some() {
                self.change(key, |partition| partition.is_told = true);
                changes.revoking.push(partition_of(key));
            }
        }
        for key in offered {
            let Some(partition) = self.partition(key).copied() else { continue };
            if partition.owner.is_none() && partition.target == Some(id) {
                self.change(key, |partition| partition.owner = Some(id));
                let came_later = partition.came_later;
                changes.assigned.push(Assigned { partition: partition_of(key), came_later });
            }
        }
    }

    /// Removes a member, whether it knows or not: what it owned is free at once. False if it was none.
    pub fn leave(&mut self, now: MonotonicMs, id: MemberId) -> bool {
        if !self.members.contains_key(&id) {
            return false;
        }
        for key in self.owned_by(id) {
            self.free(key);
        }
        self.members.remove(&id);
        self.intervals.retain(|(_, member)| *member != id);
        self.woken.retain(|member| *member != id);
        self.is_exclusive = false;
        self.retarget(now);
        true
    }
}

fn identities(keys: &mut BTreeSet<PartitionKey>) -> Vec<tailwater_log::PartitionIdentity> {
    std::mem::take(keys).into_iter().map(partition_of).collect()
}
