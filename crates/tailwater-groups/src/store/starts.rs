//! Where groups start in partitions that they have met and not committed in yet: found out once, by whichever member came
//! first, and kept in memory until it is committed. What a process that dies has not committed, the next finds out anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tailwater_log::TopicId;

use crate::table::PartitionKey;
use crate::{GroupId, Position};

/// Where one group starts. An ephemeral group has it among its members, and it ends with them.
pub(crate) type Starts = BTreeMap<PartitionKey, Position>;

/// Where lasting groups start. No more is kept than would be committed; a group without any has no entry.
#[derive(Debug, Default)]
pub(crate) struct LastingStarts(Mutex<BTreeMap<GroupId, Starts>>);

impl LastingStarts {
    /// Does something with where one group starts. Nothing else is locked meanwhile.
    pub(super) fn of<T>(&self, group: &GroupId, act: impl FnOnce(&mut Starts) -> T) -> T {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(group) {
            let done = act(known);
            if known.is_empty() {
                all.remove(group);
            }
            return done;
        }
        let mut new = Starts::new();
        let done = act(&mut new);
        if !new.is_empty() {
            all.insert(group.clone(), new);
        }
        done
    }

    pub(super) fn forget_group(&self, group: &GroupId) {
        self.lock().remove(group);
    }

    pub(super) fn topics(&self) -> Vec<TopicId> {
        self.lock().values().flat_map(|starts| starts.keys().map(|(topic, _)| *topic)).collect()
    }

    pub(super) fn forget_topics(&self, is_gone: impl Fn(TopicId) -> bool) {
        self.lock().retain(|_, starts| {
            starts.retain(|(topic, _), _| !is_gone(*topic));
            !starts.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Starts>> {
        // A panic inside can come from exhausted memory only, and leaves what was there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
