//! Creating, altering and deleting topics: steps on disk, each of which a crash may be the last of.
//!
//! - Create: directories and first segments, all synced; the data directory; the catalog. Before the catalog there is no
//!   topic, and what is left of it is empty and made way for at the next attempt.
//! - Delete: directories renamed; the data directory; the catalog; removal. Once a new name is on disk the deletion will
//!   be finished, at the latest by the next open; where it fails before, the names are taken back, durably.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use tailwater_log::{Log, LogConfig, LogOptions, PartitionId, PartitionIdentity, TopicId};

use super::inner::{Administration, Inner};
use super::leftover;
use super::topic::Topic;
use crate::catalog::{Catalog, CatalogTopic, MAX_PARTITIONS, name};
use crate::{Error, Result, TopicConfig, parallel};

impl Inner {
    pub(super) fn create_topic(&self, name: &str, config: &TopicConfig) -> Result<()> {
        name::check(name)?;
        let config = config.or(&self.default_config);
        let partition_count = config.checked_partitions()?;
        let log_config = config.to_new_log_config()?;
        let mut administration = self.administer()?;
        if let Some(topic) = self.topics.load().by_name(name) {
            return Err(Error::TopicExists { topic: Arc::clone(&topic.name) });
        }
        let id = leftover::new_topic_id(&self.opener.storage);
        assert!(!administration.catalog.contains_id(id), "128 random bits do not come twice");
        self.make_partitions(id, name, 0..partition_count, &log_config)?;
        let mut catalog = administration.catalog.clone();
        catalog.topics.push(CatalogTopic {
            id,
            name: name.to_owned(),
            partition_count,
            config: stored_pairs(&config),
            origins: Vec::new(),
        });
        let committed = self.commit(&mut administration, catalog);
        committed.inspect_err(|_| self.unmake_partitions(&administration, name, 0..partition_count))?;
        tracing::info!(topic = name, topic_id = %id, partition_count, "created a topic");
        Ok(())
    }

    pub(super) fn alter_topic(&self, name: &str, changes: &TopicConfig) -> Result<()> {
        let mut administration = self.administer()?;
        let topic = self.topic(name)?;
        let (present, name) = (topic.partition_count(), topic.name.to_string());
        let config = changes.or(&topic.config());
        let log_config = config.to_new_log_config()?;
        let wanted = changes.partition_count().unwrap_or(present);
        if !(present..=MAX_PARTITIONS).contains(&wanted) {
            return Err(Error::InvalidPartitionCount {
                requested: wanted,
                min: present,
                max: MAX_PARTITIONS,
            });
        }
        self.make_partitions(topic.id, &name, present..wanted, &log_config)?;
        let mut catalog = administration.catalog.clone();
        for stored in catalog.topics.iter_mut().filter(|stored| stored.id == topic.id) {
            stored.partition_count = wanted;
            stored.config = stored_pairs(&config);
        }
        let committed = self.commit(&mut administration, catalog);
        committed.inspect_err(|_| self.unmake_partitions(&administration, &name, present..wanted))?;
        tracing::info!(topic = name, partition_count = wanted, "altered a topic");
        Ok(())
    }

    pub(super) fn delete_topic(&self, name: &str) -> Result<()> {
        let mut administration = self.administer()?;
        let topic = self.topic(name)?;
        // Whoever still has a handle is told so, and nothing is opened any more.
        topic.set_deleted(true);
        for partition in topic.partitions().iter() {
            if let Some(Err(error)) = partition.close() {
                tracing::warn!(partition = %partition.place(), %error, "a deleted partition was not closed cleanly");
            }
        }
        let mut catalog = administration.catalog.clone();
        catalog.topics.retain(|stored| stored.id != topic.id);
        let opener = &self.opener;
        let (storage, data) = (&opener.storage, &opener.directory);
        let partition_count = topic.partition_count();
        let renamed = leftover::give_up_partitions(storage, data, &topic.name, topic.id, partition_count);
        let committed = renamed.and_then(|()| self.commit(&mut administration, catalog));
        if let Err(error) = committed {
            if administration.failure.is_none() {
                self.bring_back(&mut administration, &topic);
            }
            return Err(error);
        }
        self.forget_topic(topic.id);
        for partition in (0..partition_count).map(PartitionId::new) {
            let given_up = data.join(name::deleted_directory(topic.id, partition));
            if matches!(storage.entry_kind(&given_up), Ok(Some(_))) {
                leftover::remove_given_up(storage, &given_up);
            }
        }
        tracing::info!(topic = %topic.name, topic_id = %topic.id, partition_count, "deleted a topic");
        Ok(())
    }

    /// Brings a topic back whose deletion failed before the catalog was changed. A topic that cannot be brought back in
    /// full is gone at the next open, so nothing more is taken for it.
    fn bring_back(&self, administration: &mut Administration, topic: &Topic) {
        let opener = &self.opener;
        let (storage, data) = (&opener.storage, &opener.directory);
        let taken_back =
            leftover::take_back_partitions(storage, data, &topic.name, topic.id, topic.partition_count());
        match taken_back {
            Ok(()) => {
                topic.partitions().iter().for_each(|partition| partition.forget());
                topic.set_deleted(false);
                // Who sleeps listens to the logs that were closed.
                self.wake_watchers();
            }
            Err(error) => administration.failure = Some(Arc::new(error)),
        }
    }

    /// Makes the directories of new partitions, durably. After an error none of them is left, if the disk allows.
    fn make_partitions(
        &self,
        id: TopicId,
        name: &str,
        numbers: std::ops::Range<u32>,
        config: &LogConfig,
    ) -> Result<()> {
        let opener = &self.opener;
        let is_given_up = AtomicBool::new(false);
        let make = |number: &u32| {
            if is_given_up.load(Ordering::Relaxed) {
                return None;
            }
            let partition = PartitionId::new(*number);
            let directory_name = name::partition_directory(name, partition);
            let mut options = LogOptions::new(PartitionIdentity { topic_id: id, partition });
            options.config = config.clone();
            options.clock = Arc::clone(&opener.clock);
            options.lock = opener.lock();
            let way = leftover::make_way(&opener.storage, &opener.directory, &directory_name, partition);
            let made = way.and_then(|()| {
                let directory = opener.directory.join(&directory_name);
                let log = Log::create(Arc::clone(&opener.storage), &directory, options);
                // Opened at its first use, like those of an older topic.
                Ok(log.and_then(|log| log.close())?)
            });
            is_given_up.fetch_or(made.is_err(), Ordering::Relaxed);
            Some(made)
        };
        let numbers: Vec<u32> = numbers.collect();
        let made = parallel::map(&numbers, make);
        if is_given_up.load(Ordering::Relaxed) {
            let is_mine = |made: &Option<Result<()>>| match made {
                None | Some(Err(Error::DirectoryInTheWay { .. })) => false,
                Some(_) => true,
            };
            let mine = numbers.iter().zip(&made).filter(|(_, made)| is_mine(made));
            self.discard_partitions(name, mine.map(|(number, _)| *number));
        }
        made.into_iter().flatten().collect::<Result<()>>()?;
        Ok(opener.storage.sync_directory(&opener.directory)?)
    }

    /// Undoes [`Inner::make_partitions`], unless the catalog on disk may be the one that names them.
    fn unmake_partitions(&self, administration: &Administration, name: &str, numbers: std::ops::Range<u32>) {
        if administration.failure.is_none() {
            self.discard_partitions(name, numbers);
        }
    }

    fn discard_partitions(&self, name: &str, numbers: impl Iterator<Item = u32>) {
        let opener = &self.opener;
        for partition in numbers.map(PartitionId::new) {
            let directory_name = name::partition_directory(name, partition);
            let made_way = leftover::make_way(&opener.storage, &opener.directory, &directory_name, partition);
            if let Err(error) = made_way {
                tracing::warn!(directory = %directory_name, %error, "a new partition's directory stays");
            }
        }
    }

    /// Puts `catalog` on disk and takes it over. If that fails, finds out which of the two is there.
    fn commit(&self, administration: &mut Administration, mut catalog: Catalog) -> Result<()> {
        let opener = &self.opener;
        catalog.sequence = catalog.next_sequence();
        if let Err(error) = catalog.write(&opener.storage, &opener.directory) {
            let found = Catalog::read(&opener.storage, &opener.directory);
            if !matches!(found, Ok(Some(found)) if found == administration.catalog) {
                // The new one is there, and a power cut may bring the old one back.
                administration.failure = Some(Arc::new(error.clone()));
            }
            return Err(error);
        }
        self.publish_topics(&catalog)?;
        administration.catalog = catalog;
        Ok(())
    }

    /// The right to change topics.
    fn administer(&self) -> Result<MutexGuard<'_, Administration>> {
        let administration = self.administration();
        self.check_open()?;
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        if let Some(lock) = self.opener.lock() {
            lock.refuse_forked(&self.opener.directory)?;
        }
        match &administration.failure {
            Some(cause) => Err(Error::Failed { partition: None, cause: Arc::clone(cause) }),
            None => Ok(administration),
        }
    }
}

fn stored_pairs(config: &TopicConfig) -> Vec<(String, String)> {
    config.given_pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
