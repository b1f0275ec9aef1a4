//! What happens behind the callers' backs: syncs that nobody waits for on a thread, and what is due now and then.
//!
//! - Three threads: one syncs as soon as it is asked to, again and again while there is more; one does what is due and
//!   sleeps until the next thing is; and one compacts, which takes long.
//! - The threads know the work and not the broker, so a broker can be dropped anywhere, on these threads too.
//! - Without threads ([`Maintenance::Manual`](crate::Maintenance::Manual)) the application drives the same work.
//! - A flag of a log is cleared before the log is worked on. Whoever sets it afterwards queues the log again, so nothing
//!   that was appended is forgotten.

mod clean;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tailwater_groups::GroupStore;

pub(crate) use clean::wants_cleaning;

use crate::broker::{GroupsPlace, LazyLog};
use crate::{Error, Result, parallel};

/// Longest time from an append to the look at what it makes due, in milliseconds: the shortest interval that a log has
/// of its own (its checkpoint is advanced after 50 ms of idleness).
const MAX_LOOK_MS: u64 = 50;
/// Time after which something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Least time between two looks at a log, so that an interval that has just passed makes no busy loop.
const MIN_PAUSE: Duration = Duration::from_millis(1);
/// How many logs are looked at before it is asked again whether to stop.
const MOST_AT_ONCE: usize = 256;

/// The work that waits, shared by the broker and its threads.
#[derive(Debug, Default)]
pub(crate) struct WorkQueues {
    syncs: Mutex<SyncQueue>,
    syncs_changed: Condvar,
    schedule: Mutex<Schedule>,
    schedule_changed: Condvar,
    panics: AtomicU64,
    compactions: Mutex<CompactionQueue>,
    compactions_changed: Condvar,
    /// Most bytes that a compaction reads and writes in a second; 0 for no limit.
    compaction_bytes_per_second: AtomicU64,
    /// Who holds records against retention. Absent as long as nobody can.
    groups: OnceLock<Weak<GroupsPlace>>,
}

/// What brings a log to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drive {
    /// A background thread, at its time.
    Time,
    /// The application, which wants all done that can be.
    Hand,
}

#[derive(Debug, Default)]
struct SyncQueue {
    logs: VecDeque<Arc<LazyLog>>,
    flushes: VecDeque<Arc<Flush>>,
    /// The log of the groups, if it has grown to a multiple of what it holds.
    rewrite: Option<GroupStore>,
    is_stopped: bool,
}

impl SyncQueue {
    fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.flushes.is_empty() && self.rewrite.is_none()
    }

    fn take(&mut self) -> Self {
        let is_stopped = self.is_stopped;
        std::mem::replace(self, Self { is_stopped, ..Self::default() })
    }
}

/// Logs to compact.
#[derive(Debug, Default)]
struct CompactionQueue {
    logs: VecDeque<Arc<LazyLog>>,
    is_stopped: bool,
}

/// When each log is to be looked at. A log is in both maps or in neither.
#[derive(Debug, Default)]
struct Schedule {
    queue: BTreeMap<(Instant, u64), Arc<LazyLog>>,
    due: HashMap<u64, Instant>,
    is_stopped: bool,
}

impl Schedule {
    /// Has the log looked at by `due`, if it would not be earlier.
    fn put(&mut self, log: &Arc<LazyLog>, due: Instant) {
        match self.due.get(&log.key) {
            Some(earlier) if *earlier <= due => return,
            Some(later) => drop(self.queue.remove(&(*later, log.key))),
            None => {}
        }
        self.due.insert(log.key, due);
        self.queue.insert((due, log.key), Arc::clone(log));
    }

    fn first_due(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the next log out whose time has come.
    fn take_due(&mut self, now: Instant) -> Option<Arc<LazyLog>> {
        let first = self.queue.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let log = first.remove();
        self.due.remove(&log.key);
        Some(log)
    }

    fn take_all(&mut self) -> Vec<Arc<LazyLog>> {
        self.due.clear();
        std::mem::take(&mut self.queue).into_values().collect()
    }
}

impl WorkQueues {
    /// Has the sync thread make durable what was appended to `log` before this call.
    pub(crate) fn request_sync(&self, log: &Arc<LazyLog>) {
        if !log.is_sync_queued.swap(true, Ordering::SeqCst) {
            self.syncs().logs.push_back(Arc::clone(log));
            self.syncs_changed.notify_one();
        }
    }

    /// Has the sync thread run `flush`.
    pub(crate) fn request_flush(&self, flush: &Arc<Flush>) {
        self.syncs().flushes.push_back(Arc::clone(flush));
        self.syncs_changed.notify_one();
    }

    /// Has the sync thread write the log of the groups anew.
    pub(crate) fn request_rewrite(&self, store: &GroupStore) {
        self.syncs().rewrite.get_or_insert_with(|| store.clone());
        self.syncs_changed.notify_one();
    }

    /// Notes who holds records. Before the first log is worked on.
    pub(crate) fn set_groups(&self, groups: &Arc<GroupsPlace>) {
        // There is one place for a broker.
        let _ = self.groups.set(Arc::downgrade(groups));
    }

    /// Sets how much a compaction may read and write.
    pub(crate) fn limit_compactions(&self, bytes_per_second: u64) {
        self.compaction_bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Has `log`, which was appended to, looked at soon.
    pub(crate) fn note_activity(&self, log: &Arc<LazyLog>) {
        // Most often it is; a look is cheaper than a swap.
        if log.is_active.load(Ordering::SeqCst) || log.is_active.swap(true, Ordering::SeqCst) {
            return;
        }
        let look_ms = log.opened().map_or(MAX_LOOK_MS, |log| log.config().write_interval_ms.min(MAX_LOOK_MS));
        self.schedule_by(log, Instant::now() + Duration::from_millis(look_ms));
    }

    fn schedule_by(&self, log: &Arc<LazyLog>, due: Instant) {
        let mut schedule = self.schedule();
        let first = schedule.first_due();
        schedule.put(log, due);
        // A thread that sleeps past this one has to be woken; another will see it in time.
        if first.is_none_or(|first| due < first) {
            self.schedule_changed.notify_one();
        }
    }

    /// How often the work on a log panicked.
    pub(crate) fn panic_count(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Does all that waits and all that is due, on this thread. Returns whether there was anything, and when there will
    /// be something, if nothing is appended before.
    pub(crate) fn run_once(&self) -> Result<(bool, Option<Duration>)> {
        let mut did_work = false;
        let mut first_error = Ok(());
        let waiting = self.syncs().take();
        for log in &waiting.logs {
            did_work = true;
            first_error = first_error.and(self.sync(log));
        }
        for flush in &waiting.flushes {
            did_work = true;
            self.flush(flush);
        }
        if let Some(store) = &waiting.rewrite {
            did_work = true;
            self.rewrite(store);
        }
        let logs = self.schedule().take_all();
        for log in &logs {
            match self.maintain(log, Drive::Hand) {
                Ok(worked) => did_work |= worked,
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error?;
        let next = self.schedule().first_due();
        Ok((did_work, next.map(|due| due.saturating_duration_since(Instant::now()))))
    }

    /// Makes a log durable whose sync was requested.
    fn sync(&self, log: &Arc<LazyLog>) -> Result<()> {
        log.is_sync_queued.store(false, Ordering::SeqCst);
        let Some(opened) = log.opened() else { return Ok(()) };
        let synced = self.guarded(log, || opened.sync());
        if let Err(error) = &synced {
            tracing::warn!(partition = %log.place(), %error, "a sync in the background failed");
            if !log.is_failed() {
                // No space left, most likely: what is due now and then is tried again.
                self.schedule_by(log, Instant::now() + RETRY);
            }
        }
        synced.map(drop)
    }

    /// Does what is due for a log, and schedules the next look at it. Returns whether anything was.
    fn maintain(&self, log: &Arc<LazyLog>, drive: Drive) -> Result<bool> {
        log.is_active.store(false, Ordering::SeqCst);
        let Some(opened) = self.opened(log)? else { return Ok(false) };
        // First, since what it deletes is then removed.
        let did_delete = self.retain(log, &opened, drive)?;
        match self.guarded(log, || opened.maintain()) {
            Ok(report) => {
                if let Some(ms) = report.next_due_ms {
                    self.schedule_in(log, Duration::from_millis(ms));
                }
                let did_compact = self.compact_if_due(log, &opened, drive)?;
                Ok(did_delete || did_compact || report.did_work)
            }
            Err(error) => {
                tracing::warn!(partition = %log.place(), %error, "maintenance in the background failed");
                if !log.is_failed() {
                    self.schedule_by(log, Instant::now() + RETRY);
                }
                Err(error)
            }
        }
    }

    /// Has a log looked at after `pause`.
    fn schedule_in(&self, log: &Arc<LazyLog>, pause: Duration) {
        // A time beyond what the clock can show never comes.
        if let Some(due) = Instant::now().checked_add(pause.max(MIN_PAUSE)) {
            self.schedule_by(log, due);
        }
    }

    /// Makes durable what a flush asks for.
    fn flush(&self, flush: &Flush) {
        let sync = |log: &Arc<LazyLog>| match log.opened() {
            None => Ok(()),
            Some(opened) => self.guarded(log, || opened.sync()).map(drop),
        };
        // The outcome is the flush's own; a panic can only come from the task that it wakes.
        if catch_unwind(AssertUnwindSafe(|| flush.run_with(sync))).is_err() {
            tracing::error!("a task panicked while it was woken");
        }
    }

    /// Writes the log of the groups anew. Where that fails it only stays large, and the next commits ask again.
    fn rewrite(&self, store: &GroupStore) {
        match catch_unwind(AssertUnwindSafe(|| store.rewrite())) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the log of the groups could not be made smaller"),
            Err(panic) => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    message = panic_message(&*panic),
                    "making the log of the groups smaller panicked"
                );
            }
        }
    }

    /// Runs `work`; a panic in it fails the log and not the thread.
    fn guarded<T>(&self, log: &Arc<LazyLog>, work: impl FnOnce() -> tailwater_log::Result<T>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => done.map_err(|error| Error::from(error).in_partition(log.place())),
            Err(panic) => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                let error = Error::MaintenancePanicked {
                    partition: Some(Arc::clone(log.place())),
                    message: panic_message(&*panic).into(),
                };
                tracing::error!(%error, "a partition takes no appends until the broker is reopened");
                log.fail(error.clone());
                Err(error)
            }
        }
    }

    /// Runs the flushes that nobody ran, after the logs were closed: they then know how it ended.
    pub(crate) fn finish_flushes(&self) {
        let flushes = std::mem::take(&mut self.syncs().flushes);
        flushes.iter().for_each(|flush| self.flush(flush));
    }

    fn stop(&self) {
        self.syncs().is_stopped = true;
        self.syncs_changed.notify_all();
        self.schedule().is_stopped = true;
        self.schedule_changed.notify_all();
        self.stop_compactions();
    }

    fn run_syncs(&self) {
        loop {
            let waiting = {
                let mut syncs = self.syncs();
                while syncs.is_empty() && !syncs.is_stopped {
                    syncs = self.syncs_changed.wait(syncs).unwrap_or_else(PoisonError::into_inner);
                }
                if syncs.is_stopped {
                    // Closing the logs makes everything durable.
                    return;
                }
                syncs.take()
            };
            // A failure is logged, and the log itself tells it to whoever waits.
            drop(parallel::map(&Vec::from(waiting.logs), |log| self.sync(log)));
            waiting.flushes.iter().for_each(|flush| self.flush(flush));
            waiting.rewrite.iter().for_each(|store| self.rewrite(store));
        }
    }

    fn run_schedule(&self) {
        let mut schedule = self.schedule();
        while !schedule.is_stopped {
            let now = Instant::now();
            let due: Vec<_> = std::iter::from_fn(|| schedule.take_due(now)).take(MOST_AT_ONCE).collect();
            if !due.is_empty() {
                drop(schedule);
                // As above.
                drop(parallel::map(&due, |log| self.maintain(log, Drive::Time)));
                schedule = self.schedule();
                continue;
            }
            schedule = match schedule.first_due() {
                None => self.schedule_changed.wait(schedule).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let sleep = due.saturating_duration_since(now);
                    let woken = self.schedule_changed.wait_timeout(schedule, sleep);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn syncs(&self) -> MutexGuard<'_, SyncQueue> {
        // No code that can panic runs while this is held.
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The background threads of a broker, if it has any.
#[derive(Debug)]
pub(crate) struct Threads {
    queues: Arc<WorkQueues>,
    handles: Mutex<Vec<JoinHandle<()>>>,
    /// Whose threads they are.
    process_id: u32,
}

impl Threads {
    /// No threads: the application does the work.
    pub(crate) fn none(queues: Arc<WorkQueues>) -> Self {
        Self { queues, handles: Mutex::default(), process_id: std::process::id() }
    }

    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the operating system gives no thread.
    pub(crate) fn start(queues: Arc<WorkQueues>) -> Result<Self> {
        let threads = Self::none(queues);
        let started = threads
            .spawn("tailwater-sync", WorkQueues::run_syncs)
            .and_then(|()| threads.spawn("tailwater-maintain", WorkQueues::run_schedule))
            .and_then(|()| threads.spawn("tailwater-compact", WorkQueues::run_compactions));
        if let Err(error) = started {
            threads.stop();
            let what = format!("cannot start a background thread: {error}");
            return Err(Error::Backend(Arc::new(std::io::Error::new(error.kind(), what))));
        }
        Ok(threads)
    }

    fn spawn(&self, name: &str, job: fn(&WorkQueues)) -> std::io::Result<()> {
        let queues = Arc::clone(&self.queues);
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.handles().push(thread.spawn(move || job(&queues))?);
        Ok(())
    }

    /// How many threads are at work.
    pub(crate) fn count(&self) -> usize {
        self.handles().iter().filter(|handle| !handle.is_finished()).count()
    }

    /// Stops the threads and waits for them to finish what they are at; not for one that this is called on.
    pub(crate) fn stop(&self) {
        self.queues.stop();
        let handles = std::mem::take(&mut *self.handles());
        if self.process_id != std::process::id() {
            // A forked child has no other threads than the one that forked: whoever waits for them waits for ever.
            return;
        }
        for handle in handles {
            if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
                tracing::error!("a background thread had died of a panic");
            }
        }
    }

    fn handles(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several logs made durable together: by the sync thread, or by a thread that waits for it.
#[derive(Debug)]
pub(crate) struct Flush {
    logs: Vec<Arc<LazyLog>>,
    state: Mutex<FlushState>,
}

#[derive(Debug, Default)]
struct FlushState {
    outcome: Option<Result<()>>,
    waker: Option<Waker>,
}

impl Flush {
    pub(crate) fn new(logs: Vec<Arc<LazyLog>>) -> Self {
        Self { logs, state: Mutex::default() }
    }

    /// Makes the logs durable unless that was done, and says how it ended.
    pub(crate) fn run(&self) -> Result<()> {
        self.run_with(|lazy| match lazy.opened() {
            None => Ok(()),
            Some(log) => log.sync().map(drop).map_err(|error| Error::from(error).in_partition(lazy.place())),
        })
    }

    fn run_with(&self, sync: impl Fn(&Arc<LazyLog>) -> Result<()> + Sync) -> Result<()> {
        if let Some(outcome) = self.outcome() {
            return outcome;
        }
        let mut done = Ok(());
        for outcome in parallel::map(&self.logs, sync) {
            // Every log is tried, and the first error told.
            done = done.and(outcome);
        }
        let (outcome, waker) = {
            let mut state = self.state();
            (state.outcome.get_or_insert(done).clone(), state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        outcome
    }

    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        self.state().outcome.clone()
    }

    /// For a task: registers it to be woken if the outcome is still open.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, FlushState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tailwater_log::{PartitionId, PartitionIdentity, TopicId};

    use super::*;
    use crate::TopicPartition;

    fn lazy_log() -> Arc<LazyLog> {
        let identity =
            PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition: PartitionId::ZERO };
        let place = TopicPartition::new("orders", PartitionId::ZERO);
        Arc::new(LazyLog::with_share(place, identity, Arc::default(), None))
    }

    #[test]
    fn a_panic_fails_the_log_it_came_from_and_nothing_else() {
        let (queues, log, other) = (WorkQueues::default(), lazy_log(), lazy_log());
        let worked: Result<()> = queues.guarded(&log, || panic!("a bug of number {}", 7));
        let error = worked.unwrap_err();
        assert_eq!(error.to_string(), "background maintenance panicked in orders-0: a bug of number 7");
        assert!(log.is_failed() && !other.is_failed());
        assert_eq!(queues.panic_count(), 1);
        queues.guarded(&other, || Ok(())).unwrap();
    }

    #[test]
    fn a_log_is_looked_at_by_the_earliest_time_it_was_given() {
        let (mut schedule, log, other) = (Schedule::default(), lazy_log(), lazy_log());
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        schedule.put(&log, after(700));
        schedule.put(&log, after(20));
        schedule.put(&log, after(50));
        schedule.put(&other, after(30));
        assert_eq!((schedule.queue.len(), schedule.due.len()), (2, 2));
        assert!(schedule.take_due(after(19)).is_none());
        assert_eq!(schedule.take_due(after(100)).unwrap().key, log.key);
        assert_eq!(schedule.first_due(), Some(after(30)));
        assert_eq!(schedule.take_due(after(100)).unwrap().key, other.key);
        assert!(schedule.queue.is_empty() && schedule.due.is_empty());
    }

    #[test]
    fn a_log_waits_in_a_queue_once() {
        let (queues, log) = (WorkQueues::default(), lazy_log());
        for _ in 0..3 {
            queues.request_sync(&log);
            queues.note_activity(&log);
        }
        assert_eq!((queues.syncs().logs.len(), queues.schedule().queue.len()), (1, 1));
        // It is not open, so there is nothing to do; but the next request counts again.
        queues.run_once().unwrap();
        queues.request_sync(&log);
        assert_eq!(queues.syncs().logs.len(), 1);
    }

    #[test]
    fn threads_stop_with_work_left_and_stopping_again_does_nothing() {
        let queues = Arc::new(WorkQueues::default());
        let threads = Threads::start(Arc::clone(&queues)).unwrap();
        queues.request_sync(&lazy_log());
        threads.stop();
        threads.stop();
        assert_eq!(threads.count(), 0);
    }
}
