//! Delivering, committing, giving up.

use tailwater_log::{Offset, PartitionIdentity};

use super::{Coordinator, Fenced, MemberId, MonotonicMs, Partition};
use crate::table::{key_of, partition_of};

impl Coordinator {
    /// Notes that a member is about to hand out records of these partitions, up to those offsets. Says of each whether it
    /// may: of the others nothing is handed out, and the next poll tells why.
    ///
    /// A member with a `max_poll_interval_ms` is looked after from here on: every poll that does not wait ends with it, also
    /// if there is nothing to deliver. From then on the partition is not revoked without the member's help, until it commits up to there.
    ///
    /// # Errors
    ///
    /// [`Fenced`] if it is no member any more.
    pub fn deliver(
        &mut self,
        now: MonotonicMs,
        id: MemberId,
        deliveries: &[(PartitionIdentity, Offset)],
    ) -> Result<Vec<bool>, Fenced> {
        let Some(member) = self.members.get_mut(&id) else { return Err(Fenced { partition: None }) };
        (member.waiting_until, member.last_poll) = (None, now);
        self.watch(now, id);
        if self.is_exclusive {
            return Ok(vec![true; deliveries.len()]);
        }
        let may_deliver = |(partition, next_offset): &(PartitionIdentity, Offset)| {
            let owned =
                |partition: &&mut Partition| partition.owner == Some(id) && partition.target == Some(id);
            let partition = self.partition_mut(key_of(*partition)).filter(owned);
            partition.map(|partition| partition.delivered = Some(*next_offset)).is_some()
        };
        Ok(deliveries.iter().map(may_deliver).collect())
    }

    /// Whether a member may commit in these partitions now: it owns all of them.
    ///
    /// # Errors
    ///
    /// [`Fenced`] with the first that it does not own.
    pub fn check_commit(
        &self,
        id: MemberId,
        partitions: impl IntoIterator<Item = PartitionIdentity>,
    ) -> Result<(), Fenced> {
        if !self.members.contains_key(&id) {
            return Err(Fenced { partition: None });
        }
        let is_foreign = |partition: &PartitionIdentity| self.owner(*partition) != Some(id);
        let mut foreign = partitions.into_iter().filter(is_foreign);
        match foreign.next().filter(|_| !self.is_exclusive) {
            Some(partition) => Err(Fenced { partition: Some(partition) }),
            None => Ok(()),
        }
    }

    /// Notes what a member has committed. A partition of which all that was delivered is committed can be revoked at once,
    /// and is if it is to be another's.
    pub fn commit(&mut self, id: MemberId, commits: impl IntoIterator<Item = (PartitionIdentity, Offset)>) {
        for (partition, committed) in commits {
            let key = key_of(partition);
            let settled = |partition: &&mut Partition| {
                let is_settled = partition.delivered.is_none_or(|delivered| delivered <= committed);
                partition.owner == Some(id) && is_settled
            };
            let Some(partition) = self.partition_mut(key).filter(settled) else { continue };
            partition.delivered = None;
            let (is_kept, is_told) = (partition.target == Some(id), partition.is_told);
            if !is_kept {
                self.free(key);
                // One who knows already gives it up by itself.
                if !is_told {
                    self.tell(id, |news| &mut news.revoked, key);
                }
            }
        }
        self.note_reconciled(id);
    }

    /// Gives up partitions that a poll said are `revoking`. Returns those that were taken from the member meanwhile, since
    /// it took too long: no poll will tell. If one is to be the member's own again by now, its next poll assigns it anew.
    pub fn release(&mut self, id: MemberId, partitions: &[PartitionIdentity]) -> Vec<PartitionIdentity> {
        let mut lost = Vec::new();
        for key in partitions.iter().map(|partition| key_of(*partition)) {
            if let Some(member) = self.members.get_mut(&id) {
                member.news.revoked.remove(&key);
                if member.news.lost.remove(&key) {
                    lost.push(partition_of(key));
                }
            }
            if self.partition(key).is_some_and(|partition| partition.owner == Some(id)) {
                self.free(key);
            }
        }
        self.note_reconciled(id);
        lost
    }
}
