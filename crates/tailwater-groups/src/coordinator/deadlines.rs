//! What time does: owners that take too long lose a partition, members that do not poll lose all.

use super::{Coordinator, Member, MemberId, MonotonicMs};
use crate::table::PartitionKey;

impl Coordinator {
    /// Evaluates the deadlines that have passed. Polls do it as well.
    pub fn tick(&mut self, now: MonotonicMs) {
        loop {
            // Evicting a member may begin revocations that are due at once.
            if let Some((deadline, key)) = self.revocations.first().copied().filter(|(due, _)| *due <= now) {
                self.revocations.remove(&(deadline, key));
                self.fence(key);
            } else if let Some((due, id)) = self.intervals.first().copied().filter(|(due, _)| *due <= now) {
                self.intervals.remove(&(due, id));
                self.check_interval(now, id);
            } else {
                return;
            }
        }
    }

    /// Takes a partition from its owner, whatever that has delivered.
    fn fence(&mut self, key: PartitionKey) {
        if let Some(owner) = self.partition(key).and_then(|partition| partition.owner) {
            self.tell(owner, |news| &mut news.lost, key);
            self.free(key);
        }
    }

    /// Evicts a member if it has not polled for too long, else looks again later.
    fn check_interval(&mut self, now: MonotonicMs, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.is_watched = false;
        let Some(interval_ms) = member.spec.max_poll_interval_ms else { return };
        // While it waits it is in a poll, and begins to be watched again when it has something to do.
        if member.is_evicted || member.waiting_until.is_some() {
            return;
        }
        let last_poll = member.last_poll;
        if last_poll.saturating_add_ms(interval_ms.max(1)) > now {
            self.watch(last_poll, id);
            return;
        }
        member.is_evicted = true;
        self.wake(id);
        self.owned_by(id).into_iter().for_each(|key| self.fence(key));
        self.retarget(now);
    }

    /// Sees to it that a member that was last heard of at `last_poll`, and has a limit, is looked at when that is reached.
    pub(super) fn watch(&mut self, last_poll: MonotonicMs, id: MemberId) {
        let is_free = |member: &&mut Member| !member.is_watched && !member.is_evicted;
        let Some(member) = self.members.get_mut(&id).filter(is_free) else { return };
        let Some(interval_ms) = member.spec.max_poll_interval_ms else { return };
        member.is_watched = true;
        let due = last_poll.saturating_add_ms(interval_ms.max(1));
        self.intervals.insert((due, id));
        // Whoever sleeps for longer would not see it. This happens at most once in the time that the limit says.
        let sleeps_longer = |until: Option<MonotonicMs>| until.is_none_or(|until| until > due);
        let late: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| member.waiting_until.is_some_and(sleeps_longer))
            .map(|(id, _)| *id)
            .collect();
        late.into_iter().for_each(|id| self.wake(id));
    }

    /// Notes that a member sleeps until there is news for it, and returns when it is to poll at the latest: there is a
    /// deadline then that nobody else may be there to evaluate. It sleeps until its next poll, and is not evicted meanwhile.
    ///
    /// `None` if it need not: it waits for nothing, or is no member.
    pub fn wait(&mut self, id: MemberId) -> Option<MonotonicMs> {
        let member = self.members.get(&id)?;
        let revocation = self.revocations.first().filter(|_| member.awaited_count > 0).map(|(due, _)| *due);
        let interval = self.intervals.iter().find(|(_, watched)| *watched != id).map(|(due, _)| *due);
        let until = revocation.into_iter().chain(interval).min();
        if let Some(member) = self.members.get_mut(&id) {
            member.waiting_until = Some(until);
        }
        until
    }

    /// The next moment at which [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        let revocation = self.revocations.first().map(|(due, _)| *due);
        let interval = self.intervals.first().map(|(due, _)| *due);
        revocation.into_iter().chain(interval).min()
    }
}
