//! A coordinator, its members as they see themselves, and what is true: who may deliver what, kept by other means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_groups::coordinator::{
    Changes, Coordinator, GroupEpoch, MemberId, MemberSpec, MonotonicMs, TopicInfo, Topics,
};
use tailwater_log::{Offset, PartitionId, PartitionIdentity, TopicId};

/// Topic and partition.
pub type Place = (u8, u32);

pub fn identity((topic, number): Place) -> PartitionIdentity {
    PartitionIdentity { topic_id: topic_id(topic), partition: PartitionId::new(number) }
}

fn place(identity: PartitionIdentity) -> Place {
    (identity.topic_id.as_bytes()[0], identity.partition.get())
}

pub fn topic_id(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

/// A member as it sees itself.
#[derive(Clone, Debug)]
pub struct View {
    spec: MemberSpec,
    pub owned: BTreeSet<Place>,
    /// What it is to give up.
    pub told: BTreeSet<Place>,
    delivered: BTreeMap<Place, u64>,
    last_poll: MonotonicMs,
    is_woken: bool,
    /// While it sleeps: until when.
    sleeps: Option<Option<MonotonicMs>>,
}

/// What is true of a partition.
#[derive(Clone, Debug, Default)]
struct Truth {
    /// Who was last told that it may deliver, if it has not been told or said otherwise.
    holder: Option<MemberId>,
    /// Whether the holder has delivered what is not committed.
    is_outstanding: bool,
    /// Since when the holder is not the target.
    displaced_since: Option<MonotonicMs>,
    /// Whether it ever was not since it was told.
    was_displaced: bool,
    /// Whether it was not while it had nothing outstanding: the partition was revoked then.
    is_gone: bool,
    /// Whether its time was up at some moment: it may have been fenced.
    may_be_fenced: bool,
    committed: u64,
}

impl Truth {
    fn is_overdue(&self, now: MonotonicMs, timeout_ms: u64) -> bool {
        self.displaced_since.is_some_and(|since| now.since_ms(since) >= timeout_ms)
    }
}

#[derive(Clone, Debug)]
pub struct World {
    pub coordinator: Coordinator,
    pub now: MonotonicMs,
    pub members: BTreeMap<MemberId, View>,
    truths: BTreeMap<Place, Truth>,
    pub topics: BTreeMap<u8, (String, u32)>,
    version: u64,
    next_id: u64,
}

impl World {
    pub fn new(topics: &[(u8, &str, u32)]) -> Self {
        let mut world = Self {
            coordinator: Coordinator::new(GroupEpoch::default(), Arc::default()),
            now: MonotonicMs::ZERO,
            members: BTreeMap::new(),
            truths: BTreeMap::new(),
            topics: topics.iter().map(|(number, name, count)| (*number, ((*name).into(), *count))).collect(),
            version: 0,
            next_id: 0,
        };
        world.announce();
        world
    }

    /// Tells the coordinator of the topics.
    pub fn announce(&mut self) {
        self.version += 1;
        let info = |(number, (name, count)): (&u8, &(String, u32))| TopicInfo {
            id: topic_id(*number),
            name: name.as_str().into(),
            partition_count: *count,
        };
        let topics = Arc::new(Topics::new(self.version, self.topics.iter().map(info)));
        self.observing(|world| world.coordinator.set_topics(world.now, &topics));
        let exists = |(topic, _): &Place| self.topics.contains_key(topic);
        let gone: Vec<Place> = self.truths.keys().filter(|place| !exists(place)).copied().collect();
        for place in gone {
            self.truths.remove(&place);
        }
    }

    pub fn join(&mut self, spec: MemberSpec) -> Option<MemberId> {
        self.next_id += 1;
        let id = MemberId::new(self.next_id);
        let joined = spec.clone();
        let is_in = self.observing(|world| world.coordinator.join(world.now, id, joined, |_| false).is_ok());
        let view = View {
            spec,
            owned: BTreeSet::new(),
            told: BTreeSet::new(),
            delivered: BTreeMap::new(),
            last_poll: self.now,
            is_woken: true,
            sleeps: None,
        };
        is_in.then(|| {
            self.members.insert(id, view);
            id
        })
    }

    pub fn leave(&mut self, id: MemberId) {
        self.members.remove(&id);
        for truth in self.truths.values_mut().filter(|truth| truth.holder == Some(id)) {
            *truth = Truth { committed: truth.committed, ..Truth::default() };
        }
        self.observing(|world| assert!(world.coordinator.leave(world.now, id)));
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = self.now.saturating_add_ms(ms);
    }

    pub fn tick(&mut self) {
        self.observing(|world| world.coordinator.tick(world.now));
    }

    /// Polls, and believes what is said.
    pub fn poll(&mut self, id: MemberId) -> Changes {
        let is_due = self.coordinator.next_deadline().is_some_and(|due| due <= self.now);
        let was_evicted = self.is_evicted(id);
        let view = self.members.get_mut(&id).unwrap();
        let was_woken = view.is_woken;
        (view.is_woken, view.sleeps, view.last_poll) = (false, None, self.now);
        let changes = self.observing(|world| world.coordinator.poll(world.now, id).unwrap());
        let again = self.coordinator.clone().poll(self.now, id).unwrap();
        assert!(again.is_empty(), "{again:?} is told at the second of two polls at one moment");
        assert_eq!(changes.has_rejoined, was_evicted);
        // News are those that it was woken for, or time has made.
        assert!(changes.is_empty() || was_woken || is_due, "{id} was not woken: {changes:?}");
        for lost in changes.lost.iter().copied().map(place) {
            self.check_lost(id, lost, changes.has_rejoined);
        }
        for revoked in changes.revoked.iter().copied().map(place) {
            self.forget(id, revoked);
            let Some(truth) = self.truths.get_mut(&revoked) else { continue };
            if truth.holder == Some(id) {
                assert!(!truth.is_outstanding && truth.was_displaced, "{revoked:?} of {id}: {truth:?}");
                *truth = Truth { committed: truth.committed, ..Truth::default() };
            }
        }
        for revoking in changes.revoking.iter().copied().map(place) {
            let view = self.members.get_mut(&id).unwrap();
            assert!(view.owned.contains(&revoking));
            view.told.insert(revoking);
            assert!(self.truths[&revoking].is_outstanding, "{revoking:?} could have gone at once");
            assert_ne!(self.coordinator.target(identity(revoking)), Some(id));
        }
        for assigned in &changes.assigned {
            self.check_assigned(id, place(assigned.partition));
        }
        self.observe();
        changes
    }

    /// Polls, and goes back to work without having been given a record.
    pub fn poll_in_vain(&mut self, id: MemberId) -> Changes {
        let changes = self.poll(id);
        self.observing(|world| drop(world.coordinator.deliver(world.now, id, &[]).unwrap()));
        changes
    }

    fn check_lost(&mut self, id: MemberId, lost: Place, has_rejoined: bool) {
        let timeout_ms = self.members[&id].spec.revoke_timeout_ms;
        self.forget(id, lost);
        // Else its topic is gone.
        let Some(truth) = self.truths.get_mut(&lost) else { return };
        if truth.holder == Some(id) {
            let is_overdue = truth.may_be_fenced || truth.is_overdue(self.now, timeout_ms);
            assert!(has_rejoined || (truth.is_outstanding && is_overdue), "{lost:?} of {id}: {truth:?}");
            *truth = Truth { committed: truth.committed, ..Truth::default() };
        }
    }

    fn check_assigned(&mut self, id: MemberId, assigned: Place) {
        let view = self.members.get_mut(&id).unwrap();
        // What it is to give up, and has not, may have been freed by a commit and come back.
        let is_known = view.told.remove(&assigned);
        view.delivered.remove(&assigned);
        assert_eq!(view.owned.insert(assigned), !is_known, "{assigned:?} is {id}'s already");
        let holder = self.truths.get(&assigned).and_then(|truth| truth.holder);
        let truth = self.truths.entry(assigned).or_default();
        if let Some(holder) = holder {
            // It has been superseded, and with good reason.
            let view = &self.members[&holder];
            let is_overdue = truth.may_be_fenced || truth.is_overdue(self.now, view.spec.revoke_timeout_ms);
            let is_evicted =
                view.spec.max_poll_interval_ms.is_some_and(|ms| self.now.since_ms(view.last_poll) >= ms);
            let is_right = !truth.is_outstanding || is_overdue || is_evicted;
            assert!(is_right, "{assigned:?} goes from {holder} to {id}: {truth:?}");
        }
        *truth = Truth { holder: Some(id), committed: truth.committed, ..Truth::default() };
    }

    fn forget(&mut self, id: MemberId, gone: Place) {
        let view = self.members.get_mut(&id).unwrap();
        assert!(view.owned.remove(&gone), "{gone:?} was not {id}'s");
        view.told.remove(&gone);
        view.delivered.remove(&gone);
    }

    /// Delivers one record of everything that the member believes to own.
    pub fn deliver(&mut self, id: MemberId) {
        let view = &self.members[&id];
        let next = |place: &Place| {
            let committed = self.truths.get(place).map_or(0, |truth| truth.committed);
            (*place, view.delivered.get(place).copied().unwrap_or(committed) + 1)
        };
        let deliveries: Vec<(Place, u64)> = view.owned.iter().map(next).collect();
        let asked: Vec<_> =
            deliveries.iter().map(|(place, next)| (identity(*place), Offset::new(*next))).collect();
        let may = self.observing(|world| world.coordinator.deliver(world.now, id, &asked).unwrap());
        for ((place, next), may) in deliveries.into_iter().zip(may) {
            let is_target = self.coordinator.target(identity(place)) == Some(id);
            let truth = self.truths.get(&place).cloned().unwrap_or_default();
            let can_be = truth.holder == Some(id) && is_target && !truth.is_gone;
            let must_be = can_be && !truth.may_be_fenced;
            assert!((may || !must_be) && (can_be || !may), "{id} delivers {place:?}: {may}, {truth:?}");
            if may {
                self.truths.get_mut(&place).unwrap().is_outstanding = true;
                self.members.get_mut(&id).unwrap().delivered.insert(place, next);
            }
        }
    }

    fn is_evicted(&self, id: MemberId) -> bool {
        self.coordinator.members().iter().any(|listed| listed.id == id && listed.is_evicted)
    }

    /// Commits all that the member has delivered, if it may in all of it.
    pub fn commit(&mut self, id: MemberId) {
        let delivered: Vec<_> = self.members[&id].delivered.clone().into_iter().collect();
        let places = delivered.iter().map(|(place, _)| identity(*place));
        let may = self.coordinator.check_commit(id, places).is_ok();
        let is_holder =
            |(place, _): &(Place, u64)| self.truths.get(place).is_some_and(|truth| truth.holder == Some(id));
        // C1: one that was superseded may not.
        assert!(!may || delivered.iter().all(is_holder), "{id} commits {delivered:?}");
        if !may {
            // It holds on to what it owns no more until a poll tells.
            return;
        }
        let commits: Vec<_> =
            delivered.iter().map(|(place, next)| (identity(*place), Offset::new(*next))).collect();
        for (place, next) in &delivered {
            let truth = self.truths.get_mut(place).unwrap();
            (truth.committed, truth.is_outstanding) = (*next, false);
        }
        self.members.get_mut(&id).unwrap().delivered.clear();
        self.observing(|world| world.coordinator.commit(id, commits));
    }

    /// Gives up what the member was told to.
    pub fn release(&mut self, id: MemberId) {
        let told: Vec<Place> = self.members[&id].told.iter().copied().collect();
        let asked: Vec<_> = told.iter().copied().map(identity).collect();
        let is_evicted = self.is_evicted(id);
        let lost = self.observing(|world| world.coordinator.release(id, &asked));
        for given in told {
            self.forget(id, given);
            let Some(truth) = self.truths.get_mut(&given).filter(|truth| truth.holder == Some(id)) else {
                continue;
            };
            let timeout_ms = self.members[&id].spec.revoke_timeout_ms;
            if lost.contains(&identity(given)) {
                let is_overdue = truth.may_be_fenced || truth.is_overdue(self.now, timeout_ms);
                assert!(is_overdue || is_evicted, "{given:?} of {id}: {truth:?}");
            }
            *truth = Truth { committed: truth.committed, ..Truth::default() };
        }
    }

    /// Goes to sleep.
    pub fn wait(&mut self, id: MemberId) {
        let until = self.observing(|world| world.coordinator.wait(id));
        self.members.get_mut(&id).unwrap().sleeps = Some(until);
    }

    /// Does something, and sees what has become of the target and who is woken.
    fn observing<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let epoch = self.coordinator.group_epoch().get();
        let result = act(self);
        if self.coordinator.group_epoch().get() > epoch + 1 {
            // There were targets in between.
            for truth in self.truths.values_mut() {
                (truth.was_displaced, truth.may_be_fenced, truth.displaced_since) = (true, true, None);
            }
        }
        self.observe();
        result
    }

    fn observe(&mut self) {
        for id in self.coordinator.take_woken() {
            if let Some(view) = self.members.get_mut(&id) {
                assert!(!view.is_woken, "{id} is woken twice");
                view.is_woken = true;
            }
        }
        for (place, truth) in &mut self.truths {
            let Some(holder) = truth.holder else { continue };
            let timeout_ms = self.members.get(&holder).map_or(0, |view| view.spec.revoke_timeout_ms);
            truth.may_be_fenced |= truth.is_overdue(self.now, timeout_ms);
            if self.coordinator.target(identity(*place)) == Some(holder) {
                truth.displaced_since = None;
            } else {
                truth.was_displaced = true;
                truth.is_gone |= !truth.is_outstanding;
                truth.may_be_fenced |= timeout_ms == 0;
                let since = *truth.displaced_since.get_or_insert(self.now);
                // A2: it does not stay so for longer than its timeout.
                if self.coordinator.owner(identity(*place)) == Some(holder) {
                    let due = since.saturating_add_ms(timeout_ms);
                    assert!(self.coordinator.next_deadline().is_some_and(|next| next <= due), "{place:?}");
                }
            }
        }
        for listed in self.coordinator.members() {
            for owned in &listed.owned {
                assert_eq!(self.coordinator.owner(*owned), Some(listed.id));
                // What it owns it knows of; the other way round need not be.
                let is_known = self.members.get(&listed.id).is_none_or(|view| {
                    view.owned.contains(&place(*owned)) || view.is_woken || view.sleeps.is_none()
                });
                assert!(is_known, "{owned:?}");
            }
            assert!(!listed.is_evicted || listed.owned.len() + listed.target.len() == 0);
        }
    }

    /// Has all members but those that are `stuck` go round, polling when they are woken or their time is up, until nothing
    /// happens any more. Then everything is where it is to be.
    pub fn settle(mut self, stuck: &BTreeSet<MemberId>) {
        let start = self.now;
        let loopers: Vec<MemberId> = self.members.keys().filter(|id| !stuck.contains(id)).copied().collect();
        let longest_ms = |ms: fn(&MemberSpec) -> u64| self.members.values().map(|view| ms(&view.spec)).max();
        let longest_ms = longest_ms(|spec| spec.revoke_timeout_ms).unwrap_or(0)
            + longest_ms(|spec| spec.max_poll_interval_ms.unwrap_or(0)).unwrap_or(0);
        // Those who sleep already go on sleeping, but for those who were told and have done nothing.
        let is_up = |id: &&MemberId| self.members[id].sleeps.is_none() || !self.members[id].told.is_empty();
        for id in loopers.iter().filter(is_up).copied().collect::<Vec<_>>() {
            self.go_round(id);
        }
        let mut last_news = start;
        for round in 0.. {
            assert!(round < 1000, "it does not come to rest");
            let woken = loopers.iter().find(|id| self.members[id].is_woken);
            let first = || {
                let until = |id: &&MemberId| self.members[id].sleeps.flatten();
                loopers.iter().filter(|id| until(id).is_some()).min_by_key(until)
            };
            let Some(id) = woken.or_else(first) else { break };
            if !self.members[id].is_woken {
                let until = self.members[id].sleeps.flatten().unwrap();
                self.now = self.now.max(until);
            }
            if self.go_round(*id) {
                last_news = self.now;
            }
        }
        let took_ms = last_news.since_ms(start);
        assert!(took_ms <= longest_ms, "after {took_ms} ms of at most {longest_ms}");
        self.check_at_rest(stuck);
    }

    /// Returns whether there was news.
    fn go_round(&mut self, id: MemberId) -> bool {
        let has_news = !self.poll(id).is_empty();
        self.release(id);
        self.wait(id);
        has_news
    }

    fn check_at_rest(&self, stuck: &BTreeSet<MemberId>) {
        let listed = self.coordinator.members();
        for (topic, (_, count)) in &self.topics {
            for at in (0..*count).map(|number| identity((*topic, number))) {
                let (owner, target) = (self.coordinator.owner(at), self.coordinator.target(at));
                if target.is_none_or(|target| !stuck.contains(&target)) {
                    assert_eq!(owner, target, "{at}");
                }
            }
        }
        let has_looper = stuck.len() < self.members.len();
        for member in &listed {
            let view = &self.members[&member.id];
            if stuck.contains(&member.id) {
                let is_limited = view.spec.max_poll_interval_ms.is_some();
                // Watched from its last poll on, by whoever sleeps.
                assert!(!has_looper || !is_limited || member.is_evicted || view.sleeps.is_some());
                continue;
            }
            let owned: Vec<_> = view.owned.iter().copied().map(identity).collect();
            assert_eq!((&member.owned, &member.target), (&owned, &owned));
            // One that was not woken since has not heard of the assignment, which has nothing for it.
            assert!(member.epoch.get() <= self.coordinator.assignment_epoch().get(), "{}", member.id);
            for other in &listed {
                let is_same = self.members[&other.id].spec.subscription == view.spec.subscription;
                let is_uniform =
                    view.spec.assignor == tailwater_groups::coordinator::assignor::Assignor::Uniform;
                if is_same && is_uniform && !other.is_evicted {
                    assert!(member.target.len().abs_diff(other.target.len()) <= 1, "{listed:?}");
                }
            }
        }
    }
}
