//! Where the groups are: opened at their first use, by whoever needs them, also the background threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwap;
use tailwater_groups::GroupStore;
use tailwater_log::{PartitionId, RepairReport};

use super::directory::GROUPS_TOPIC;
use super::groups::Groups;
use super::lazy_log::{LazyLog, Opener};
use super::progress::Progress;
use super::topic::{Topic, TopicSet};
use crate::{Error, Result};

/// The groups of a broker, opened or not yet.
#[derive(Debug)]
pub(crate) struct GroupsPlace {
    pub(crate) opener: Arc<Opener>,
    topics: Arc<ArcSwap<TopicSet>>,
    progress: Arc<Progress>,
    /// Absent until a group is first asked for.
    groups: Mutex<Option<Arc<Groups>>>,
}

impl GroupsPlace {
    pub(super) fn new(opener: Arc<Opener>, topics: Arc<ArcSwap<TopicSet>>, progress: Arc<Progress>) -> Self {
        Self { opener, topics, progress, groups: Mutex::default() }
    }

    /// The groups; their log is opened, and read, at the first use.
    pub(crate) fn open(&self) -> Result<Arc<Groups>> {
        let opener = &self.opener;
        if opener.is_closed() {
            return Err(Error::Closed);
        }
        let mut groups = self.lock();
        if let Some(groups) = &*groups {
            return Ok(Arc::clone(groups));
        }
        let (topic, lazy) = self.find(PartitionId::ZERO)?;
        let log = topic.open(&lazy)?;
        let store = GroupStore::open(log, Arc::clone(&opener.clock))?;
        let (queues, progress) = (Arc::clone(&opener.queues), Arc::clone(&self.progress));
        let opened = Groups::new(store, topic, lazy, queues, progress);
        let topics = self.topics.load_full();
        if !opener.is_read_only {
            // A deletion may have been interrupted before it came to this.
            opened.forget_topics(|id| topics.by_id(id).is_none());
        }
        opened.store().set_topics(&topics.for_groups());
        Ok(Arc::clone(groups.insert(Arc::new(opened))))
    }

    /// The groups, if they were opened. Waits for whoever opens them.
    pub(super) fn opened(&self) -> Option<Arc<Groups>> {
        self.lock().clone()
    }

    /// The groups, if they were opened and nobody is about to open them.
    pub(super) fn opened_now(&self) -> Option<Arc<Groups>> {
        match self.groups.try_lock() {
            Ok(groups) => groups.clone(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clone(),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Tells the groups, if they were opened, of the topics that there are. Whoever opens them meanwhile does so, or is
    /// waited for.
    pub(super) fn set_topics(&self, topics: &TopicSet) {
        if let Some(groups) = &*self.lock() {
            groups.store().set_topics(&topics.for_groups());
        }
    }

    /// Repairs their log. Nobody reads the positions meanwhile, and whoever comes later reads what is left of them.
    pub(super) fn repair(&self, partition: PartitionId) -> Result<RepairReport> {
        let mut groups = self.lock();
        let (topic, lazy) = self.find(partition)?;
        let repaired = topic.repair(&lazy)?;
        *groups = None;
        Ok(repaired)
    }

    fn find(&self, partition: PartitionId) -> Result<(Arc<Topic>, Arc<LazyLog>)> {
        let topic = self.topics.load().by_name(GROUPS_TOPIC).cloned();
        let topic = topic.ok_or_else(|| Error::UnknownTopic { topic: GROUPS_TOPIC.into() })?;
        let lazy = topic.partition(partition)?;
        Ok((topic, lazy))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Groups>>> {
        // Changed by one assignment only.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
