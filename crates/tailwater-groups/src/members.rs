//! Who is there, in this process: a coordinator for each group that has members. Nothing of it is on disk.
//!
//! - A group has an entry exactly while it has a member, but for the moment in which the last one leaves.
//! - The registry of the groups is never held while a group is: each is held for a look-up, or for as long as the
//!   coordinator computes. Neither is held during I/O, nor while anybody is woken.
//! - The epochs of a group rise, also when all its members leave and others come: they go on from the highest that any
//!   group had.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_log::Signal;

use crate::coordinator::{Coordinator, GroupEpoch, JoinError, MemberId, MonotonicMs, Topics};
use crate::store::Starts;
use crate::table::PartitionKey;
use crate::{Committed, GroupId, GroupKind, GroupLifetime};

/// The members of all groups.
#[derive(Debug, Default)]
pub(crate) struct Members {
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    last_epoch: GroupEpoch,
    topics: Arc<Topics>,
    groups: BTreeMap<GroupId, Arc<LiveGroup>>,
}

/// A group that has members.
#[derive(Debug)]
pub(crate) struct LiveGroup {
    pub(crate) kind: GroupKind,
    pub(crate) lifetime: GroupLifetime,
    state: Mutex<LiveState>,
}

pub(crate) struct LiveState {
    pub(crate) coordinator: Coordinator,
    /// What an ephemeral group has committed.
    pub(crate) positions: BTreeMap<PartitionKey, Committed>,
    /// Where an ephemeral group starts.
    pub(crate) starts: Starts,
    signals: BTreeMap<MemberId, Arc<Signal>>,
    /// Whether the last member has left: whoever joins makes another one.
    has_ended: bool,
}

/// Members to wake, once no lock is held: a task's waker is foreign code.
#[derive(Debug, Default)]
#[must_use = "whoever has news sleeps on"]
pub(crate) struct Woken(Vec<Arc<Signal>>);

impl Woken {
    pub(crate) fn wake(self) {
        self.0.iter().for_each(|signal| signal.wake());
    }
}

/// Why a member was not let in.
pub(crate) enum Refusal {
    Kind(GroupKind),
    Lifetime(GroupLifetime),
    Join(JoinError),
}

/// What a member is to be part of.
#[derive(Clone, Copy)]
pub(crate) struct GroupTerms<'g> {
    pub(crate) group: &'g GroupId,
    pub(crate) kind: GroupKind,
    pub(crate) lifetime: GroupLifetime,
}

impl Members {
    /// Adds a member to a group, by what `join` has its coordinator do.
    pub(crate) fn join(
        &self,
        terms: GroupTerms<'_>,
        signal: Option<Arc<Signal>>,
        join: impl FnOnce(&mut Coordinator, MemberId) -> Result<(), JoinError>,
    ) -> Result<(Arc<LiveGroup>, MemberId, Woken), Refusal> {
        loop {
            let (live, id) = self.enter(terms);
            let mut state = live.lock();
            if state.has_ended {
                // Its last member is just leaving.
                drop(state);
                self.forget(terms.group, &live);
                continue;
            }
            if live.kind != terms.kind {
                return Err(Refusal::Kind(live.kind));
            }
            if live.lifetime != terms.lifetime {
                return Err(Refusal::Lifetime(live.lifetime));
            }
            let joined = join(&mut state.coordinator, id);
            if joined.is_ok() {
                state.signals.extend(signal.map(|signal| (id, signal)));
            }
            let (has_ended, woken) = state.finish();
            drop(state);
            if has_ended {
                self.forget(terms.group, &live);
            }
            return joined.map_err(Refusal::Join).map(|()| (live, id, woken));
        }
    }

    /// The group's entry, new if need be, and an id for a member.
    fn enter(&self, terms: GroupTerms<'_>) -> (Arc<LiveGroup>, MemberId) {
        let mut registry = self.lock();
        registry.last_id += 1;
        let id = MemberId::new(registry.last_id);
        if let Some(live) = registry.groups.get(terms.group) {
            return (Arc::clone(live), id);
        }
        let state = LiveState {
            coordinator: Coordinator::new(registry.last_epoch, Arc::clone(&registry.topics)),
            positions: BTreeMap::new(),
            starts: Starts::new(),
            signals: BTreeMap::new(),
            has_ended: false,
        };
        let live =
            Arc::new(LiveGroup { kind: terms.kind, lifetime: terms.lifetime, state: Mutex::new(state) });
        registry.groups.insert(terms.group.clone(), Arc::clone(&live));
        (live, id)
    }

    /// Removes a member. False if it was not there (any more).
    pub(crate) fn leave(
        &self,
        now: MonotonicMs,
        group: &GroupId,
        live: &Arc<LiveGroup>,
        id: MemberId,
    ) -> bool {
        let mut state = live.lock();
        let was_there = state.coordinator.leave(now, id);
        state.signals.remove(&id);
        let (has_ended, woken) = state.finish();
        drop(state);
        if has_ended {
            self.forget(group, live);
        }
        woken.wake();
        was_there
    }

    fn forget(&self, group: &GroupId, live: &Arc<LiveGroup>) {
        let epoch = live.lock().coordinator.group_epoch();
        let mut registry = self.lock();
        registry.last_epoch = registry.last_epoch.max(epoch);
        if registry.groups.get(group).is_some_and(|known| Arc::ptr_eq(known, live)) {
            registry.groups.remove(group);
        }
    }

    /// The group, if it has members.
    pub(crate) fn of(&self, group: &GroupId) -> Option<Arc<LiveGroup>> {
        let live = self.lock().groups.get(group).cloned()?;
        let has_ended = live.lock().has_ended;
        (!has_ended).then_some(live)
    }

    /// All groups that have members.
    pub(crate) fn all(&self) -> BTreeMap<GroupId, Arc<LiveGroup>> {
        let mut all = self.lock().groups.clone();
        all.retain(|_, live| !live.lock().has_ended);
        all
    }

    /// Tells all groups of the topics there are.
    pub(crate) fn set_topics(&self, now: MonotonicMs, topics: &Arc<Topics>) {
        let groups: Vec<_> = {
            let mut registry = self.lock();
            if topics.version() <= registry.topics.version() {
                return;
            }
            registry.topics = Arc::clone(topics);
            registry.groups.values().cloned().collect()
        };
        for live in groups {
            live.run(|state| state.coordinator.set_topics(now, topics)).1.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A panic inside leaves at worst an id that was counted and not given out.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveGroup {
    /// Does something with the group, and says who is to be woken.
    pub(crate) fn run<T>(&self, act: impl FnOnce(&mut LiveState) -> T) -> (T, Woken) {
        let mut state = self.lock();
        let result = act(&mut state);
        (result, state.finish().1)
    }

    /// Looks at the group.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&LiveState) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, LiveState> {
        // Only the coordinator's own code runs inside, which panics only if an invariant of its own does not hold.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveState {
    /// After a change: whether the group has ended, and who is to be woken.
    fn finish(&mut self) -> (bool, Woken) {
        self.has_ended = self.coordinator.member_count() == 0;
        let woken = self.coordinator.take_woken();
        if woken.is_empty() {
            return (self.has_ended, Woken::default());
        }
        let signals = woken.iter().filter_map(|id| self.signals.get(id).cloned());
        (self.has_ended, Woken(signals.collect()))
    }
}

impl fmt::Debug for LiveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveState").field("members", &self.coordinator.members()).finish_non_exhaustive()
    }
}
