//! A member of a group.

use std::fmt;
use std::sync::Arc;

use tailwater_log::Receipt;

use super::{Inner, append};
use crate::{Commit, Error, GroupId, GroupKind, MemberEpoch, Result};

/// One who reads as a member of a group, from [`GroupStore::join`](crate::GroupStore::join). Dropping it leaves the
/// group: nothing is committed or written, and nothing is waited for.
pub struct Member {
    store: Arc<Inner>,
    group: GroupId,
    kind: GroupKind,
    epoch: MemberEpoch,
}

impl Member {
    pub(super) fn new(store: Arc<Inner>, group: GroupId, kind: GroupKind, epoch: MemberEpoch) -> Self {
        Self { store, group, kind, epoch }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> GroupKind {
        self.kind
    }

    /// Which of the group's members this is.
    #[must_use]
    pub fn epoch(&self) -> MemberEpoch {
        self.epoch
    }

    /// Commits a set of positions: all are there after a crash, or none. The first commit registers the group with them.
    ///
    /// Returns when they are staged, and are what the group has committed; the receipt completes when they are durable.
    /// That committed offsets are durable in their own partitions is the caller's to see to, before.
    ///
    /// # Errors
    ///
    /// Nothing was committed after any of these:
    /// - [`Error::FencedMemberEpoch`] if the member was evicted.
    /// - [`Error::CommitBackwards`] if a position is below what is committed and may not go back.
    /// - [`Error::EmptyCommit`], [`Error::RepeatedPartition`], [`Error::MetadataTooLong`].
    /// - [`Error::Log`] if the log takes no appends, or not this one.
    pub fn commit(&self, commits: &[Commit<'_>]) -> Result<Receipt> {
        append::check_set(commits)?;
        let mut cursor = self.store.lock_appending();
        if self.store.members.of(&self.group).is_none_or(|present| present.epoch != self.epoch) {
            return Err(Error::FencedMemberEpoch { group: self.group.clone(), epoch: self.epoch });
        }
        self.check_forward(commits)?;
        self.store.append_commits(&mut cursor, &self.group, self.kind, commits)
    }

    fn check_forward(&self, commits: &[Commit<'_>]) -> Result<()> {
        let table = self.store.read_table();
        let Some(group) = table.group(&self.group) else { return Ok(()) };
        for commit in commits.iter().filter(|commit| !commit.may_go_back) {
            let (partition, requested) = (commit.partition, commit.position.offset);
            let committed = group.committed(partition).map(|committed| committed.position.offset);
            if let Some(committed) = committed.filter(|committed| *committed > requested) {
                let partition = Box::new(partition);
                return Err(Error::CommitBackwards { partition, committed, requested });
            }
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.store.members.leave(&self.group, self.epoch);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Member");
        shown.field("group", &self.group).field("kind", &self.kind).field("epoch", &self.epoch);
        shown.finish_non_exhaustive()
    }
}
