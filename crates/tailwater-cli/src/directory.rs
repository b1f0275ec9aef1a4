//! Getting at the data directory: for writing, for reading, or only looking.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tailwater::storage::{Disk, Storage, read_whole};
use tailwater::{
    Broker, BrokerOptions, CatalogRepair, Embedded, Error, PartitionId, RecoveryOutcome, RecoveryReport,
    TopicPartition,
};
use tailwater_cli::similar::most_similar;
use tailwater_log::format::decode_slots;

use crate::exit::{Failure, Result, Unknown, warn};

/// How long to sleep before the lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Within this time who takes the lock has left its name in it; before that the name of the holder before it is there.
const NAMED_WITHIN: Duration = Duration::from_millis(10);

/// The topic that is the log of the groups, which no command leads to, and the directory of its one partition.
pub(crate) const GROUPS_TOPIC: &str = "__groups";
pub(crate) const GROUPS_DIRECTORY: &str = "__groups-0";

/// A checkpoint has two slots of 512 bytes; what is longer is none.
const MAX_CHECKPOINT_BYTES: u64 = 64 * 1024;

/// Within this time a process that writes records for others what is durable, once nothing more is appended: twice the 50 ms
/// of idleness after which it does.
const RECORDED_WITHIN: Duration = Duration::from_millis(100);

/// Where the data is, and how long to wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) lock_timeout: Duration,
}

/// Whether a missing directory is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Fail,
}

impl Directory {
    /// Opens it for writing. Waits for another writer as long as was asked for.
    pub(crate) fn open(&self, missing: Missing) -> Result<Broker> {
        let options = BrokerOptions::new().create(missing == Missing::Create);
        let broker = self.wait_for_lock(|| options.open(&self.path))?;
        for name in broker.stats().unknown_names {
            let path = self.path.join(name);
            warn(format_args!("{} is none of Tailwater's files, and was left alone", path.display()));
        }
        Ok(broker)
    }

    /// Rebuilds its catalog if that is missing or damaged. Waits for another writer as long as was asked for.
    pub(crate) fn repair_catalog(&self) -> Result<CatalogRepair> {
        self.wait_for_lock(|| Broker::repair_catalog(&self.path))
    }

    fn wait_for_lock<T>(&self, act: impl Fn() -> tailwater::Result<T>) -> Result<T> {
        // Also who does not want to wait is told the right name.
        let timeout = self.lock_timeout.max(NAMED_WITHIN);
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match act() {
                Err(Error::Locked(_)) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    thread::sleep(LOCK_RETRY.min(timeout));
                }
                Err(Error::Locked(locked)) => return Err(Failure::locked(&locked, self.lock_timeout)),
                acted => return Ok(acted?),
            }
        }
    }

    /// Attaches to it for reading topics for long, without keeping others from writing. Where a partition of `topics` was
    /// not closed in order and nobody writes, it is recovered first: all that was acknowledged is there then.
    pub(crate) fn read(&self, topics: &[String]) -> Result<Broker> {
        let attached = self.attach()?;
        let mut places = Vec::new();
        for topic in topics {
            places.extend(partitions_of(&attached, topic)?);
        }
        places.retain(|place| !self.is_clean(&place.to_string()));
        if places.is_empty() {
            return Ok(attached);
        }
        let Some(broker) = self.open_recovered(&places)? else { return self.attach_beside_writer() };
        for place in &places {
            warn_of_recovery(place, &embedded(&broker)?.recovery_report(place)?);
        }
        close(&broker)?;
        self.attach()
    }

    /// As it is now, for a moment: attached to if everything was closed in order or somebody writes, else opened, so that
    /// what is used is recovered.
    pub(crate) fn read_now(&self) -> Result<Broker> {
        let attached = self.attach()?;
        let mut places = Vec::new();
        for topic in attached.topics()? {
            places.extend(partitions_of(&attached, &topic)?);
        }
        places.retain(|place| !self.is_clean(&place.to_string()));
        if places.is_empty() && self.is_clean(GROUPS_DIRECTORY) {
            return Ok(attached);
        }
        match self.open_recovered(&places)? {
            Some(broker) => Ok(broker),
            None => self.attach_beside_writer(),
        }
    }

    /// Attaches beside a process that writes, when what it has acknowledged until now is recorded for others.
    fn attach_beside_writer(&self) -> Result<Broker> {
        thread::sleep(RECORDED_WITHIN);
        self.attach()
    }

    /// Opens it and recovers `places`, unless somebody else writes to it, nobody may, or there is no room for that.
    fn open_recovered(&self, places: &[TopicPartition]) -> Result<Option<Broker>> {
        let Some(broker) = self.open_if_free()? else { return Ok(None) };
        for place in places {
            // It is recovered when it is first used. What else is wrong with it is told by whoever uses it.
            if let Err(error @ Error::DiskFull { .. }) = embedded(&broker)?.recovery_report(place) {
                warn(format_args!(
                    "{place} was not closed in order and cannot be recovered, so its last records may not be shown: {error}"
                ));
                close(&broker)?;
                return Ok(None);
            }
        }
        Ok(Some(broker))
    }

    /// Opens it, unless somebody else writes to it or nobody may.
    fn open_if_free(&self) -> Result<Option<Broker>> {
        match BrokerOptions::new().create(false).open(&self.path) {
            Err(Error::Locked(_) | Error::ReadOnlyDirectory { .. } | Error::NetworkFileSystem { .. }) => {
                Ok(None)
            }
            opened => Ok(Some(opened?)),
        }
    }

    /// Whether the checkpoint of a partition says that it was closed in order: both slots verify, and the newer one is
    /// not dirty.
    pub(crate) fn is_clean(&self, partition: &str) -> bool {
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let file = self.path.join(partition).join("checkpoint");
        let bytes = read_whole(&storage, &file, MAX_CHECKPOINT_BYTES).ok().flatten().unwrap_or_default();
        let slots = decode_slots(&bytes).ok();
        slots.is_some_and(|slots| slots.all_verify && slots.newest.is_some_and(|newest| !newest.is_dirty))
    }

    /// The name that was meant by one that nothing has, if there is a similar one.
    pub(crate) fn similar_to(&self, unknown: &Unknown) -> Option<String> {
        let broker = self.attach().ok()?;
        match unknown {
            Unknown::Topic(name) => most_similar(name, broker.topics().ok()?),
            Unknown::Group(name) => {
                most_similar(name, broker.groups().ok()?.into_iter().map(|listed| listed.id))
            }
        }
    }

    /// Attaches to it: nothing is locked, recovered or written.
    pub(crate) fn attach(&self) -> Result<Broker> {
        Ok(Broker::attach_read_only(&self.path)?)
    }
}

/// The partitions of a topic, by its name as it was written when it was created: that of their directories.
pub(crate) fn partitions_of(broker: &Broker, topic: &str) -> Result<Vec<TopicPartition>> {
    let topic = broker.describe_topic(topic)?;
    let name: Arc<str> = topic.name.into();
    let numbers = (0..topic.partition_count).map(PartitionId::new);
    Ok(numbers.map(|number| TopicPartition::new(Arc::clone(&name), number)).collect())
}

/// What a broker in a local directory can do beyond others.
pub(crate) fn embedded(broker: &Broker) -> Result<&Embedded> {
    broker.embedded().ok_or_else(|| Failure::failed("this is only possible with a local directory"))
}

/// Closes the broker; a failure comes before whatever the command itself has to say.
pub(crate) fn close(broker: &Broker) -> Result<()> {
    broker.close()?;
    Ok(())
}

/// Says what a recovery did that somebody should know.
pub(crate) fn warn_of_recovery(partition: &TopicPartition, report: &RecoveryReport) {
    if let Some(tail) = &report.torn_tail {
        let kept = match tail.quarantined.first() {
            Some(file) => format!("kept in {}", file.display()),
            None => "left where they are".to_owned(),
        };
        warn(format_args!(
            "{partition} was not closed in order: {} bytes of unfinished appends behind offset {} were cut off ({kept})",
            tail.size_bytes, report.log_end_offset
        ));
    } else if report.outcome == RecoveryOutcome::Recovered {
        warn(format_args!(
            "{partition} was not closed in order: it was recovered up to offset {}",
            report.log_end_offset
        ));
    }
    if report.was_checkpoint_rebuilt {
        warn(format_args!("the checkpoint of {partition} was missing or damaged, and was made anew"));
    }
    for file in &report.damaged_header_copies {
        warn(format_args!("one of the two header copies of {} is damaged", file.display()));
    }
    for name in &report.unknown_names {
        warn(format_args!(
            "{} in {partition} is none of Tailwater's files, and was left alone",
            name.display()
        ));
    }
}
