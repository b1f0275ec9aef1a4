//! Who is there, in this process. Nothing of it is on disk.
//!
//! - A group has at most one member.
//! - The epochs of a group's members rise: one counter serves all groups.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{GroupId, GroupKind, MemberEpoch};

/// The members of all groups, behind a lock that is held for a look-up only: leaving never waits for the disk.
#[derive(Debug, Default)]
pub(crate) struct Members {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_epoch: u64,
    present: BTreeMap<GroupId, Present>,
}

/// A member that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present {
    pub(crate) epoch: MemberEpoch,
    pub(crate) kind: GroupKind,
}

impl Members {
    /// Adds a member, or says who is there already.
    pub(crate) fn join(&self, group: &GroupId, kind: GroupKind) -> Result<MemberEpoch, Present> {
        let mut state = self.lock();
        if let Some(present) = state.present.get(group) {
            return Err(*present);
        }
        state.last_epoch += 1;
        let epoch = MemberEpoch::new(state.last_epoch);
        state.present.insert(group.clone(), Present { epoch, kind });
        Ok(epoch)
    }

    /// Removes the member of that epoch. False if it was not there (any more).
    pub(crate) fn leave(&self, group: &GroupId, epoch: MemberEpoch) -> bool {
        let mut state = self.lock();
        let is_there = state.present.get(group).is_some_and(|present| present.epoch == epoch);
        if is_there {
            state.present.remove(group);
        }
        is_there
    }

    /// The member that is there.
    pub(crate) fn of(&self, group: &GroupId) -> Option<Present> {
        self.lock().present.get(group).copied()
    }

    /// All members.
    pub(crate) fn all(&self) -> BTreeMap<GroupId, Present> {
        self.lock().present.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside leaves at worst an epoch that was counted and not given out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
