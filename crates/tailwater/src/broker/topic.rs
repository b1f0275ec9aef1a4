//! Topics as the handles of a broker share them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use tailwater_groups::coordinator::{TopicInfo, Topics};
use tailwater_log::{Log, PartitionId, PartitionIdentity, RepairReport, TopicId};

use super::lazy_log::{LazyLog, Opener};
use crate::catalog::{Catalog, CatalogTopic, name};
use crate::maintenance::wants_cleaning;
use crate::producer::LagGate;
use crate::{Error, Result, TopicConfig, TopicPartition};

/// A topic. Stays the same object while settings change and partitions are added, until the topic is deleted.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: Arc<str>,
    /// Shared with the partitions.
    config: Arc<ArcSwap<TopicConfig>>,
    partitions: ArcSwap<Vec<Arc<LazyLog>>>,
    is_deleted: AtomicBool,
    opener: Arc<Opener>,
    /// Of the producers that must not leave a group behind.
    gates: Mutex<Vec<Weak<LagGate>>>,
}

impl Topic {
    fn new(stored: &CatalogTopic, opener: Arc<Opener>) -> Result<Self> {
        let topic = Self {
            id: stored.id,
            name: stored.name.as_str().into(),
            config: Arc::new(ArcSwap::from_pointee(TopicConfig::new())),
            partitions: ArcSwap::from_pointee(Vec::new()),
            is_deleted: AtomicBool::new(false),
            opener,
            gates: Mutex::default(),
        };
        topic.update(stored)?;
        Ok(topic)
    }

    /// Takes over what the catalog says now. Open logs get the new settings.
    fn update(&self, stored: &CatalogTopic) -> Result<()> {
        let config = config_of(stored)?;
        let log_config = config.to_log_config()?;
        let is_changed = *self.config.load_full() != config;
        if is_changed {
            self.config.store(Arc::new(config));
            for partition in self.partitions.load().iter() {
                if let Some(log) = partition.opened() {
                    log.set_config(log_config.clone())?;
                }
            }
        }
        let known = self.partitions.load_full();
        if known.len() as u64 != u64::from(stored.partition_count) {
            let numbers = (0..stored.partition_count).map(PartitionId::new).skip(known.len());
            let added = numbers.map(|partition| {
                let identity = PartitionIdentity { topic_id: self.id, partition };
                let place = TopicPartition::new(Arc::clone(&self.name), partition);
                Arc::new(LazyLog::new(place, identity, &self.config, &self.opener))
            });
            self.partitions.store(Arc::new(known.iter().map(Arc::clone).chain(added).collect()));
        }
        let partitions = self.partitions.load();
        let is_new = partitions.len() > known.len();
        if (is_changed || is_new) && !self.opener.is_read_only && wants_cleaning(&log_config) {
            // Also of partitions that nobody uses.
            partitions.iter().for_each(|partition| self.opener.queues.request_cleaning(partition));
        }
        Ok(())
    }

    /// The gate that `is_it`, which all who have it share; made now if there is none.
    pub(crate) fn gate(
        &self,
        is_it: impl Fn(&LagGate) -> bool,
        make: impl FnOnce() -> Result<LagGate>,
    ) -> Result<Arc<LagGate>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|gate| gate.strong_count() > 0);
        if let Some(found) = gates.iter().filter_map(Weak::upgrade).find(|gate| is_it(gate)) {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        gates.push(Arc::downgrade(&made));
        Ok(made)
    }

    /// Whether it is one of Tailwater's own.
    pub(crate) fn is_internal(&self) -> bool {
        name::is_internal(&self.name)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::SeqCst)
    }

    pub(crate) fn set_deleted(&self, is_deleted: bool) {
        self.is_deleted.store(is_deleted, Ordering::SeqCst);
    }

    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    pub(crate) fn partition_count(&self) -> u32 {
        // At most 100,000.
        u32::try_from(self.partitions.load().len()).unwrap_or(u32::MAX)
    }

    /// The partitions, by number.
    pub(crate) fn partitions(&self) -> Arc<Vec<Arc<LazyLog>>> {
        self.partitions.load_full()
    }

    /// One partition, which need not be open.
    pub(crate) fn partition(&self, partition: PartitionId) -> Result<Arc<LazyLog>> {
        self.with_partition(|_| partition, |found| Ok(Arc::clone(found)))
    }

    /// Does something with the partition, which need not be open, that `choose` names when it is told how many there are.
    #[inline(always)]
    pub(crate) fn with_partition<T>(
        &self,
        choose: impl FnOnce(u32) -> PartitionId,
        act: impl FnOnce(&Arc<LazyLog>) -> Result<T>,
    ) -> Result<T> {
        let partitions = self.partitions.load();
        // At most 100,000.
        let partition_count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        let partition = choose(partition_count);
        match partitions.get(partition.get() as usize) {
            Some(found) => act(found),
            None => {
                let topic = Arc::clone(&self.name);
                Err(Error::UnknownPartition { topic, partition, partition_count })
            }
        }
    }

    /// Does something with the log of one of the topic's partitions.
    #[inline(always)]
    pub(crate) fn with_log<T>(
        &self,
        partition: &Arc<LazyLog>,
        act: impl FnOnce(&Log) -> Result<T>,
    ) -> Result<T> {
        if self.is_deleted() {
            return Err(self.unknown());
        }
        match partition.with_opened(act) {
            Ok(done) => done,
            Err(act) => act(&self.open(partition)?),
        }
    }

    /// The log of one of the topic's partitions.
    pub(crate) fn open(&self, partition: &Arc<LazyLog>) -> Result<Log> {
        if self.is_deleted() {
            return Err(self.unknown());
        }
        partition.open(&self.opener, || self.config().to_log_config())
    }

    /// Repairs one of the topic's logs, which is closed for it.
    pub(crate) fn repair(&self, partition: &Arc<LazyLog>) -> Result<RepairReport> {
        if self.is_deleted() {
            return Err(self.unknown());
        }
        partition.repair(&self.opener, self.config().to_log_config()?)
    }

    /// The error for whoever still has a handle to a deleted topic.
    pub(crate) fn unknown(&self) -> Error {
        Error::UnknownTopic { topic: Arc::clone(&self.name) }
    }

    /// What an operation on one of the topic's logs really failed of.
    pub(crate) fn explain(&self, error: tailwater_log::Error, place: &Arc<TopicPartition>) -> Error {
        match error {
            // The log was closed under the caller's feet, since the topic went.
            tailwater_log::Error::Closed if self.is_deleted() => self.unknown(),
            error => Error::from(error).in_partition(place),
        }
    }
}

fn config_of(stored: &CatalogTopic) -> Result<TopicConfig> {
    let mut config = TopicConfig::new().partitions(stored.partition_count);
    for (key, value) in &stored.config {
        config = config.set(key, value).map_err(|_| Error::UnsupportedSetting {
            topic: stored.name.as_str().into(),
            setting: format!("{key}={value}").into(),
        })?;
    }
    Ok(config)
}

/// All topics of a broker, by name and by id.
#[derive(Debug, Default)]
pub(crate) struct TopicSet {
    /// Rises with each change.
    version: u64,
    by_name: HashMap<String, Arc<Topic>>,
    /// Ordered, so that equal brokers do equal things in an equal order.
    by_id: BTreeMap<TopicId, Arc<Topic>>,
}

impl TopicSet {
    /// The topics of `catalog`: those that are here already stay the same objects.
    pub(crate) fn updated(&self, catalog: &Catalog, opener: &Arc<Opener>) -> Result<Self> {
        let mut updated = Self { version: self.version + 1, ..Self::default() };
        for stored in &catalog.topics {
            let topic = match self.by_id.get(&stored.id) {
                Some(known) => {
                    known.update(stored)?;
                    Arc::clone(known)
                }
                None => Arc::new(Topic::new(stored, Arc::clone(opener))?),
            };
            updated.by_name.insert(name::folded(&stored.name), Arc::clone(&topic));
            updated.by_id.insert(stored.id, topic);
        }
        Ok(updated)
    }

    /// The same as groups see them: without Tailwater's own.
    pub(crate) fn for_groups(&self) -> Arc<Topics> {
        let subscribable = self.all().filter(|topic| !topic.is_internal());
        let infos = subscribable.map(|topic| TopicInfo {
            id: topic.id,
            name: Arc::clone(&topic.name),
            partition_count: topic.partition_count(),
        });
        Arc::new(Topics::new(self.version, infos))
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(&name::folded(name))
    }

    pub(crate) fn by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All of them, Tailwater's own too, ordered by their ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_id.values()
    }
}
