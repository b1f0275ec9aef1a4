//! What all handles of a broker share.
//!
//! - Lock order: administration, then the groups, then the opening of a log. No task is polled while either is held.
//! - The set of topics is read without a lock; whoever changes it holds the administration's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;

use arc_swap::ArcSwap;
use tailwater_log::storage::Storage;
use tailwater_log::{Clock, OpenFiles, Signal, SpaceBudget, TopicId};

use super::directory::{self, OpenedDirectory};
use super::groups_place::GroupsPlace;
use super::lazy_log::{LazyLog, Opener};
use super::options::{BrokerOptions, Maintenance};
use super::progress::Progress;
use super::stats::{CloseFailure, CloseReport, MaintenanceReport};
use super::topic::{Topic, TopicSet};
use crate::catalog::Catalog;
use crate::maintenance::{Flush, Threads, WorkQueues};
use crate::{Error, Result, TopicConfig, parallel};

/// The state of a broker.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) opener: Arc<Opener>,
    pub(super) topics: Arc<ArcSwap<TopicSet>>,
    pub(super) administration: Mutex<Administration>,
    pub(super) default_config: TopicConfig,
    pub(super) groups: Arc<GroupsPlace>,
    pub(super) progress: Arc<Progress>,
    threads: Threads,
    #[cfg(feature = "async")]
    alarms: crate::alarms::Alarms,
    watchers: Mutex<Vec<Weak<Signal>>>,
    closing: Mutex<Closing>,
    closed: Condvar,
    unknown_names: Vec<OsString>,
}

/// What creating, altering and deleting topics works on.
#[derive(Debug)]
pub(crate) struct Administration {
    pub(crate) catalog: Catalog,
    /// Why the catalog on disk may be another than this one, until the broker is reopened.
    pub(super) failure: Option<Arc<Error>>,
}

#[derive(Debug)]
enum Closing {
    Open,
    By(ThreadId),
    Done(Result<CloseReport>),
}

impl Inner {
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        directory: PathBuf,
        options: &BrokerOptions,
    ) -> Result<Arc<Self>> {
        options.check()?;
        let opened = directory::open(&storage, &directory, options.create, &options.clock)?;
        Self::new(storage, directory, options, opened)
    }

    pub(super) fn attach(
        storage: Arc<dyn Storage>,
        directory: PathBuf,
        options: &BrokerOptions,
    ) -> Result<Arc<Self>> {
        let opened = directory::attach(&storage, &directory)?;
        Self::new(storage, directory, options, opened)
    }

    fn new(
        storage: Arc<dyn Storage>,
        directory: PathBuf,
        options: &BrokerOptions,
        opened: OpenedDirectory,
    ) -> Result<Arc<Self>> {
        let queues = Arc::new(WorkQueues::default());
        let opener = Arc::new(Opener {
            storage,
            directory,
            clock: Arc::clone(&options.clock),
            is_read_only: opened.lock.is_none(),
            queues: Arc::clone(&queues),
            open_files: Arc::new(OpenFiles::at_most(options.max_open_files)),
            budget: match opened.lock {
                // Nothing is appended to a directory that is only attached to.
                None => None,
                Some(_) => options.max_disk_bytes.map(|bytes| Arc::new(SpaceBudget::new(bytes))),
            },
            is_closed: AtomicBool::new(false),
            lock: Mutex::new(opened.lock),
        });
        let topics = TopicSet::default().updated(&opened.catalog, &opener)?;
        tracing::info!(
            directory = %opener.directory.display(),
            topic_count = topics.all().filter(|topic| !topic.is_internal()).count(),
            is_read_only = opener.is_read_only,
            "opened a broker"
        );
        let topics = Arc::new(ArcSwap::from_pointee(topics));
        let progress = Arc::default();
        let groups =
            Arc::new(GroupsPlace::new(Arc::clone(&opener), Arc::clone(&topics), Arc::clone(&progress)));
        queues.set_groups(&groups);
        queues.limit_compactions(options.compaction_bytes_per_second);
        let threads = match options.maintenance {
            Maintenance::Background if !opener.is_read_only => Threads::start(queues)?,
            _ => Threads::none(queues),
        };
        Ok(Arc::new(Self {
            // Nobody does the work of a broker that is attached.
            #[cfg(feature = "async")]
            alarms: crate::alarms::Alarms::new(
                opener.is_read_only || options.maintenance == Maintenance::Background,
            ),
            opener,
            topics,
            administration: Mutex::new(Administration { catalog: opened.catalog, failure: None }),
            default_config: options.default_topic_config.clone(),
            groups,
            progress,
            threads,
            watchers: Mutex::default(),
            closing: Mutex::new(Closing::Open),
            closed: Condvar::new(),
            unknown_names: opened.unknown_names,
        }))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.opener.is_closed()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.opener.is_read_only
    }

    /// The disk.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.opener.storage
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.opener.directory
    }

    /// 64 random bits. Not for secrets.
    pub(crate) fn random(&self) -> u64 {
        self.opener.storage.random()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.opener.clock
    }

    /// The topic of this name; names are compared without case. Tailwater's own are not found.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.check_open()?;
        let is_usable = |topic: &&Arc<Topic>| !topic.is_internal() && !topic.is_deleted();
        let find = || self.topics.load().by_name(name).filter(is_usable).cloned();
        if let Some(topic) = find() {
            return Ok(topic);
        }
        self.refresh_if_attached()?;
        find().ok_or_else(|| Error::UnknownTopic { topic: name.into() })
    }

    /// The topics as they are now.
    pub(crate) fn topic_set(&self) -> Arc<TopicSet> {
        self.topics.load_full()
    }

    /// The topic with this id, Tailwater's own too. `None` if it does not exist, or not any more.
    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.topics.load().by_id(id).cloned()
    }

    /// Who waits for groups to commit.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// All topics but Tailwater's own, ordered by name.
    pub(crate) fn topics(&self) -> Result<Vec<Arc<Topic>>> {
        self.check_open()?;
        self.refresh_if_attached()?;
        let mut topics: Vec<_> =
            self.topics.load().all().filter(|topic| !topic.is_internal()).cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// The work of the background threads.
    pub(crate) fn queues(&self) -> &Arc<WorkQueues> {
        &self.opener.queues
    }

    /// Makes durable what was appended to these logs: the flush is run by the sync thread, or by whoever waits for it.
    pub(crate) fn flush(&self, logs: Vec<Arc<LazyLog>>) -> Arc<Flush> {
        let flush = Arc::new(Flush::new(logs));
        self.opener.queues.request_flush(&flush);
        if self.is_closed() {
            // Its last look at the queue may be over.
            self.opener.queues.finish_flushes();
        }
        flush
    }

    /// Has `signal` woken when the broker is closed, and when topics or partitions come or go.
    pub(crate) fn watch(&self, signal: &Arc<Signal>) {
        let mut watchers = self.watchers();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(signal));
    }

    pub(super) fn wake_watchers(&self) {
        let watchers = self.watchers().clone();
        watchers.iter().filter_map(Weak::upgrade).for_each(|signal| signal.wake());
    }

    /// Takes over the topics of the catalog in `administration`.
    pub(super) fn publish_topics(&self, catalog: &Catalog) -> Result<()> {
        let topics = Arc::new(self.topics.load().updated(catalog, &self.opener)?);
        let gone: Vec<_> =
            self.topics.load().all().filter(|known| topics.by_id(known.id).is_none()).cloned().collect();
        self.topics.store(Arc::clone(&topics));
        self.groups.set_topics(&topics);
        gone.iter().for_each(|topic| topic.set_deleted(true));
        self.wake_watchers();
        Ok(())
    }

    /// Looks whether the process that writes has changed the catalog.
    pub(crate) fn refresh_if_attached(&self) -> Result<()> {
        if !self.is_read_only() {
            return Ok(());
        }
        let mut administration = self.administration();
        let opener = &self.opener;
        let Some(catalog) = directory::read_catalog(&opener.storage, &opener.directory)? else {
            return Err(Error::CatalogMissing { path: opener.directory.as_path().into() });
        };
        if catalog != administration.catalog {
            self.publish_topics(&catalog)?;
            administration.catalog = catalog;
        }
        Ok(())
    }

    pub(crate) fn administration(&self) -> MutexGuard<'_, Administration> {
        // Changed by one assignment at the end of each operation only.
        self.administration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, Vec<Weak<Signal>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn run_maintenance_once(&self) -> Result<MaintenanceReport> {
        self.check_open()?;
        let (did_work, next_due) = self.opener.queues.run_once()?;
        let report = MaintenanceReport { did_work, next_due };
        #[cfg(feature = "async")]
        let report = self.ring_alarms(report);
        Ok(report)
    }

    #[cfg(feature = "async")]
    fn ring_alarms(&self, mut report: MaintenanceReport) -> MaintenanceReport {
        let (rang, next) = self.alarms.ring();
        let next = next.map(|due| due.saturating_duration_since(std::time::Instant::now()));
        report.did_work |= rang;
        report.next_due = report.next_due.into_iter().chain(next).min();
        report
    }

    /// What wakes tasks at a time.
    #[cfg(feature = "async")]
    pub(crate) fn alarms(&self) -> &crate::alarms::Alarms {
        &self.alarms
    }

    /// Names in the directory that nobody knows.
    pub(super) fn unknown_names(&self) -> &[OsString] {
        &self.unknown_names
    }

    /// How many background threads are at work.
    pub(super) fn thread_count(&self) -> usize {
        self.threads.count()
    }

    /// Closes everything, once. Whoever comes later waits for that and is told the same.
    pub(super) fn close(&self) -> Result<CloseReport> {
        let this_thread = std::thread::current().id();
        {
            let mut closing = self.closing();
            loop {
                match &*closing {
                    Closing::Open => break,
                    Closing::Done(outcome) => return outcome.clone(),
                    // A task that was woken by the closing closes too: waiting would be for itself.
                    Closing::By(closer) if *closer == this_thread => return Ok(CloseReport::default()),
                    Closing::By(_) => {
                        closing = self.closed.wait(closing).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
            *closing = Closing::By(this_thread);
        }
        let outcome = self.close_now();
        *self.closing() = Closing::Done(outcome.clone());
        self.closed.notify_all();
        outcome
    }

    fn close_now(&self) -> Result<CloseReport> {
        {
            // What is being created or deleted is finished first; from here on no topic comes or goes.
            let _administration = self.administration();
            self.opener.set_closed();
        }
        self.threads.stop();
        let mut report = CloseReport::default();
        let topics = self.topics.load_full();
        let all: Vec<_> = topics.all().flat_map(|topic| topic.partitions().to_vec()).collect();
        for (partition, closed) in all.iter().zip(parallel::map(&all, |partition| partition.close())) {
            match closed {
                None => {}
                Some(Ok(())) => report.closed_partitions += 1,
                Some(Err(error)) => {
                    report
                        .failures
                        .push(CloseFailure { partition: partition.place().as_ref().clone(), error });
                }
            }
        }
        self.opener.release_lock();
        self.opener.queues.finish_flushes();
        #[cfg(feature = "async")]
        self.alarms.stop();
        self.wake_watchers();
        for CloseFailure { partition, error } in &report.failures {
            tracing::error!(%partition, %error, "a partition was not closed in order");
        }
        tracing::info!(
            directory = %self.opener.directory.display(),
            closed_partitions = report.closed_partitions,
            failed_partitions = report.failures.len(),
            "closed a broker"
        );
        if report.failures.is_empty() { Ok(report) } else { Err(Error::NotClosedCleanly(Arc::new(report))) }
    }
}
